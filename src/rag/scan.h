/* Rows of int8 against a query, and the best of what was seen. A row stands for
 * scale * int8 numbers, scale = max|x| / 127; scale 0 marks a free row.
 *
 * Limit: dim + 4 bytes a row. 1,000,000 rows of 384 are 388 MB, which is what one
 * search reads; the products of a row take less time than its bytes. */
#ifndef RAG_SCAN_H
#define RAG_SCAN_H

#include "base/base.h"

#define RAG_MAX_DIM 8192

typedef struct RagScored {
    int64_t chunk;
    double score;
} RagScored;

/* Sorts by score, greatest first, ties by smaller chunk. */
void rag_scored_sort(RagScored *scored, size_t count);

/* The `capacity` best of what was pushed, in no order; items are borrowed. */
typedef struct RagBest {
    RagScored *items;
    size_t count, capacity;
} RagBest;

void rag_best_push(RagBest *best, RagScored item);

/* vector [dim] -> row [dim]; returns its scale. */
float rag_quantise(const float *vector, size_t dim, int8_t *row);

typedef struct RagScanQuery {
    int8_t row[RAG_MAX_DIM]; /* the query as a row */
    double scale;
    size_t dim;
    const uint8_t *allowed; /* one bit a chunk (bit 0 unused), borrowed; NULL: all */
    size_t allowed_bits;
} RagScanQuery;

void rag_scan_query(RagScanQuery *query, const float *vector, size_t dim, const uint8_t *allowed,
                    size_t allowed_bits);
/* scales [n], rows [n, dim] of the chunks first, first + 1, ...: their approximate
 * cosines into best. */
void rag_scan_rows(const RagScanQuery *query, const float *scales, const int8_t *rows, size_t n,
                   size_t first, RagBest *best);

#endif
