/* Reciprocal rank fusion; see fusion.h. */
#include "rag/fusion.h"

static int by_chunk(const void *a, const void *b) {
    const RagFused *left = a, *right = b;
    return left->chunk < right->chunk ? -1 : left->chunk > right->chunk;
}

static int by_score(const void *a, const void *b) {
    const RagFused *left = a, *right = b;
    if (left->score != right->score) return left->score > right->score ? -1 : 1;
    return by_chunk(a, b);
}

RagFused *rag_fuse(const RagScored *dense, size_t n_dense, double dense_weight,
                   const RagScored *lexical, size_t n_lexical, double lexical_weight,
                   double constant, size_t *count) {
    RagFused *all = base_calloc(n_dense + n_lexical + 1, sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < n_dense; i++)
        all[n++] = (RagFused){.chunk = dense[i].chunk,
                              .dense_rank = i + 1,
                              .cosine = dense[i].score,
                              .score = dense_weight / (constant + (double)(i + 1))};
    for (size_t i = 0; i < n_lexical; i++)
        all[n++] = (RagFused){.chunk = lexical[i].chunk,
                              .lexical_rank = i + 1,
                              .bm25 = lexical[i].score,
                              .cosine = -2,
                              .score = lexical_weight / (constant + (double)(i + 1))};
    qsort(all, n, sizeof *all, by_chunk);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        RagFused *last = kept ? &all[kept - 1] : NULL;
        if (!last || last->chunk != all[i].chunk) {
            all[kept++] = all[i];
            continue;
        }
        last->score += all[i].score;
        if (all[i].dense_rank) last->dense_rank = all[i].dense_rank, last->cosine = all[i].cosine;
        if (all[i].lexical_rank) last->lexical_rank = all[i].lexical_rank, last->bm25 = all[i].bm25;
    }
    qsort(all, kept, sizeof *all, by_score);
    *count = kept;
    return all;
}
