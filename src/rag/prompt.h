/* The prompt of an answer: passages numbered from 1, the question after them,
 * through the model's chat template. Text from documents and the question are
 * encoded with the parsing of special tokens off. */
#ifndef RAG_PROMPT_H
#define RAG_PROMPT_H

#include "rag/evidence.h"

typedef struct RagPrompt {
    int32_t *ids;
    size_t count;
    size_t n_passages; /* how many of the given ones fit */
} RagPrompt;

/* Under 600 million parameters: one plain instruction, short passages. */
bool rag_prompt_is_small(const RagGenerator *generator);

/* At most limit tokens; passages of the lowest rank are left out until it fits.
 * Fails when not even the first does. Caller frees ids. */
bool rag_prompt_build(const RagGenerator *generator, const char *question,
                      const RagEvidence *evidence, size_t n_passages, size_t limit,
                      RagPrompt *prompt, Error *err);
/* The ids of one system and one user text; those of `user` are never special. Fails
 * past `limit` tokens. Caller frees ids. */
bool rag_prompt_plain(const RagGenerator *generator, const char *system, const char *user,
                      size_t limit, RagPrompt *prompt, Error *err);

#endif
