/* The sentences of the retrieved passages that speak to a question, and how
 * well a sentence of an answer is supported by them. */
#ifndef RAG_EVIDENCE_H
#define RAG_EVIDENCE_H

#include "rag/match.h"
#include "rag/rag.h"

typedef struct RagEvidence {
    const RagHit *hit; /* borrowed */
    size_t *starts;    /* of each sentence in hit->text, and the end: [n_sentences + 1] */
    size_t n_sentences;
    float *vectors; /* [n_sentences, dim], or NULL without an embedder */
    double *scores; /* [n_sentences]: to the question, 0..1 */
    size_t best;    /* the highest of them */
} RagEvidence;

/* Splits, embeds and scores the sentences of n hits. Caller frees the list with
 * rag_evidence_free. embedder may be NULL. NULL on failure. */
RagEvidence *rag_evidence_gather(const char *question, const RagHit *hits, size_t n,
                                 const RagEmbedder *embedder, Error *err);
void rag_evidence_free(RagEvidence *evidence, size_t n);

/* Sentences around the best one, in order, within `limit` bytes; on one line;
 * caller frees. */
char *rag_evidence_window(const RagEvidence *evidence, size_t limit);

typedef struct RagJudgement {
    size_t source; /* index of the evidence + 1; 0 when nothing supports it */
    RagSupport support;
    double overlap, cosine;
} RagJudgement;

/* Which passage supports a sentence best. vector [dim] is the sentence's, or
 * NULL; preferred is the index + 1 that the model cited, or 0. */
RagJudgement rag_evidence_judge(const RagEvidence *evidence, size_t n, const char *sentence,
                                size_t length, const float *vector, size_t dim, size_t preferred);

#endif
