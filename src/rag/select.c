/* Reranking and maximal marginal relevance; see select.h. */
#include "rag/select.h"

#include "rag/section.h"

#include <math.h>
#include <string.h>

#define RERANK_CANDIDATES 20
#define DIVERSE_FACTOR 4 /* hits to choose from for each one wanted */
#define SECTION_FACTOR 3 /* the same, where several may stand in one section */

static bool diverse(const RagSearchOptions *options) {
    return options->diversity_lambda > 0 && options->diversity_lambda < 1;
}

static size_t rerank_width(const RagSearchOptions *options, size_t top_k) {
    size_t wanted = options->rerank_candidates ? BASE_MIN(options->rerank_candidates, (size_t)1000)
                                               : RERANK_CANDIDATES;
    return BASE_MAX(wanted, top_k);
}

size_t rag_select_width(const RagSearchOptions *options, size_t top_k) {
    size_t factor = diverse(options) ? DIVERSE_FACTOR : options->section_bytes ? SECTION_FACTOR : 1;
    size_t width = top_k * factor;
    return options->reranker ? BASE_MAX(width, rerank_width(options, top_k)) : width;
}

void rag_hit_free(RagHit *hit) {
    free(hit->document), free(hit->title), free(hit->heading), free(hit->text), free(hit->snippet);
}

/* Greatest first; hits of one score keep the order of the fusion. */
static int by_rerank(const void *a, const void *b) {
    const RagHit *x = a, *y = b;
    if (x->reranked != y->reranked) return x->reranked ? -1 : 1;
    if (x->rerank_score != y->rerank_score) return x->rerank_score > y->rerank_score ? -1 : 1;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

static bool rerank(const RagReranker *reranker, size_t count, RagSearch *result, Error *err) {
    double started = base_now();
    char **texts = base_calloc(count + 1, sizeof *texts);
    float *scores = base_calloc(count + 1, sizeof *scores);
    for (size_t i = 0; i < count; i++) {
        const RagHit *hit = &result->hits[i];
        texts[i] = base_format("%s%s%s", hit->heading, *hit->heading ? "\n" : "", hit->text);
    }
    bool ok = reranker->score(reranker->context, result->query, (const char *const *)texts, count,
                              scores, err);
    for (size_t i = 0; i < count; i++) {
        bool number = ok && isfinite(scores[i]);
        result->hits[i].reranked = number;
        result->hits[i].rerank_score = number ? (double)scores[i] : 0;
        free(texts[i]);
    }
    free(texts), free(scores);
    if (ok) qsort(result->hits, result->n_hits, sizeof *result->hits, by_rerank);
    result->rerank_seconds = base_now() - started;
    return ok;
}

/* ---- maximal marginal relevance --------------------------------------------- */

/* vectors [n_hits, dim] of the hits; zeros where a chunk is gone. */
static bool load_vectors(RagIndex *index, const RagSearch *result, float *vectors, Error *err) {
    RagScored *chunks = base_calloc(result->n_hits + 1, sizeof *chunks);
    for (size_t i = 0; i < result->n_hits; i++) chunks[i].chunk = result->hits[i].chunk;
    bool ok = index->storage->vectors(index, chunks, result->n_hits, vectors, err);
    free(chunks);
    return ok;
}

static double dot(const float *a, const float *b, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* 0..1, by the best judge that ran. */
static double relevance(const RagHit *hit, double best_score) {
    if (hit->reranked) return 1 / (1 + exp(-hit->rerank_score));
    if (hit->cosine > -2) return hit->cosine;
    return best_score > 0 ? hit->score / best_score : 0;
}

static bool diversify(RagIndex *index, double lambda, size_t top_k, RagSearch *result, Error *err) {
    size_t n = result->n_hits, dim = index->dim;
    float *vectors = base_calloc(n * dim + 1, sizeof *vectors);
    double *nearest = base_calloc(n + 1, sizeof *nearest); /* to a hit chosen before */
    double best_score = result->hits[0].score;
    for (size_t i = 1; i < n; i++) best_score = fmax(best_score, result->hits[i].score);
    bool ok = load_vectors(index, result, vectors, err);
    for (size_t chosen = 0; ok && chosen < BASE_MIN(top_k, n); chosen++) {
        size_t best = chosen;
        double most = -INFINITY;
        for (size_t i = chosen; i < n; i++) {
            double worth =
                lambda * relevance(&result->hits[i], best_score) - (1 - lambda) * nearest[i];
            if (worth > most) most = worth, best = i;
        }
        /* The ones passed over keep their order. */
        for (size_t i = best; i > chosen; i--) {
            RagHit hit = result->hits[i];
            result->hits[i] = result->hits[i - 1];
            result->hits[i - 1] = hit;
            double near = nearest[i];
            nearest[i] = nearest[i - 1];
            nearest[i - 1] = near;
            for (size_t k = 0; k < dim; k++) {
                float x = vectors[i * dim + k];
                vectors[i * dim + k] = vectors[(i - 1) * dim + k];
                vectors[(i - 1) * dim + k] = x;
            }
        }
        for (size_t i = chosen + 1; i < n; i++)
            nearest[i] = fmax(nearest[i], dot(vectors + chosen * dim, vectors + i * dim, dim));
    }
    free(vectors), free(nearest);
    return ok;
}

bool rag_select(RagIndex *index, const RagSearchOptions *options, size_t top_k, RagSearch *result,
                Error *err) {
    if (!result->n_hits) return true;
    bool ok = true;
    if (options->reranker)
        ok = rerank(options->reranker, BASE_MIN(result->n_hits, rerank_width(options, top_k)),
                    result, err);
    if (ok && diverse(options))
        ok = diversify(index, (double)options->diversity_lambda, top_k, result, err);
    if (ok && options->section_bytes)
        ok = rag_section_grow(index, options->section_bytes, top_k, result, err);
    while (result->n_hits > top_k) rag_hit_free(&result->hits[--result->n_hits]);
    return ok;
}
