/* How much of some wanted words a text holds: the room's measure of lexical
 * evidence, for relevance, snippets and checked citations. Words are compared
 * by a light English stem, other scripts as they stand. */
#ifndef RAG_MATCH_H
#define RAG_MATCH_H

#include "rag/words.h"

typedef struct RagStem {
    char text[RAG_WORD_BYTES];
    double weight;
    bool number; /* holds a digit: must be found for a claim to hold */
} RagStem;

typedef struct RagStems {
    RagStem *items;
    size_t count, capacity;
} RagStems;

/* The content words of a text, each once, weight 1. */
RagStems rag_stems_of(const char *text, size_t length);
/* Those of the terms of a query, weighted by idf. */
RagStems rag_stems_of_terms(const RagTerms *terms);
void rag_stems_free(RagStems *stems);

/* Share of the wanted weight found in text, 0..1; 0 when nothing is wanted.
 * *missing_number (may be NULL): a wanted number is not there. */
double rag_overlap(const RagStems *wanted, const char *text, size_t length, bool *missing_number);

/* One line of at most `limit` bytes around where most wanted words stand, with
 * ellipses where it was cut; caller frees. */
char *rag_snippet(const RagStems *wanted, const char *text, size_t limit);

#endif
