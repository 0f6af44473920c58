/* Reciprocal rank fusion; see fusion.h. */
#include "rag/fusion.h"

#include <math.h>

static int by_chunk(const void *a, const void *b) {
    const RagFused *left = a, *right = b;
    return left->chunk < right->chunk ? -1 : left->chunk > right->chunk;
}

static int by_score(const void *a, const void *b) {
    const RagFused *left = a, *right = b;
    if (left->score != right->score) return left->score > right->score ? -1 : 1;
    return by_chunk(a, b);
}

/* The better of two ranks, 0 being none. */
static size_t better(size_t a, size_t b) {
    return a && b ? BASE_MIN(a, b) : BASE_MAX(a, b);
}

RagFused *rag_fuse(const RagRanked *lists, size_t n_lists, double constant, size_t *count) {
    size_t total = 0, n = 0, kept = 0;
    for (size_t k = 0; k < n_lists; k++) total += lists[k].count;
    RagFused *all = base_calloc(total + 1, sizeof *all);
    for (size_t k = 0; k < n_lists; k++) {
        for (size_t i = 0; i < lists[k].count; i++) {
            const RagScored *item = &lists[k].items[i];
            bool dense = lists[k].dense;
            all[n++] = (RagFused){.chunk = item->chunk,
                                  .score = lists[k].weight / (constant + (double)(i + 1)),
                                  .dense_rank = dense ? i + 1 : 0,
                                  .lexical_rank = dense ? 0 : i + 1,
                                  .cosine = dense ? item->score : -2,
                                  .bm25 = dense ? 0 : item->score};
        }
    }
    qsort(all, n, sizeof *all, by_chunk);
    for (size_t i = 0; i < n; i++) {
        RagFused *last = kept ? &all[kept - 1] : NULL;
        if (!last || last->chunk != all[i].chunk) {
            all[kept++] = all[i];
            continue;
        }
        last->score += all[i].score;
        last->dense_rank = better(last->dense_rank, all[i].dense_rank);
        last->lexical_rank = better(last->lexical_rank, all[i].lexical_rank);
        last->cosine = fmax(last->cosine, all[i].cosine);
        last->bm25 = fmax(last->bm25, all[i].bm25);
    }
    qsort(all, kept, sizeof *all, by_score);
    *count = kept;
    return all;
}
