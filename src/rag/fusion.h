/* Ranked lists into one, by reciprocal rank fusion (Cormack et al., 2009):
 * score = sum over lists of weight / (constant + rank), rank from 1. */
#ifndef RAG_FUSION_H
#define RAG_FUSION_H

#include "rag/store.h"

#define RAG_RANK_CONSTANT 60 /* the paper's */

/* Best first, each chunk once; may be empty. Scores are cosines, or those of words. */
typedef struct RagRanked {
    const RagScored *items;
    size_t count;
    double weight;
    bool dense;
} RagRanked;

typedef struct RagFused {
    int64_t chunk;
    double score;
    size_t dense_rank, lexical_rank; /* the best, from 1; 0 when in no such list */
    double cosine, bm25;             /* the greatest; -2 and 0 when in no such list */
} RagFused;

/* A new list of *count, best first, ties by smaller chunk id; caller frees. */
RagFused *rag_fuse(const RagRanked *lists, size_t n_lists, double constant, size_t *count);

#endif
