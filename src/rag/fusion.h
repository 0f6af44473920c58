/* Two ranked lists into one, by reciprocal rank fusion (Cormack et al., 2009):
 * score = sum over lists of weight / (constant + rank), rank from 1. */
#ifndef RAG_FUSION_H
#define RAG_FUSION_H

#include "rag/store.h"

#define RAG_RANK_CONSTANT 60 /* the paper's */

typedef struct RagFused {
    int64_t chunk;
    double score;
    size_t dense_rank, lexical_rank; /* from 1; 0 when not in the list */
    double cosine, bm25;             /* -2 and 0 when not in the list */
} RagFused;

/* Both lists best first, each chunk once; either may be empty. Returns a new
 * list of *count, best first, ties by smaller chunk id; caller frees. */
RagFused *rag_fuse(const RagScored *dense, size_t n_dense, double dense_weight,
                   const RagScored *lexical, size_t n_lexical, double lexical_weight,
                   double constant, size_t *count);

#endif
