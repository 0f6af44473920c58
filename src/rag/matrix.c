/* The int8 copy of the vectors: written row by row with incremental blob I/O,
 * read segment by segment, scanned by all threads. A row is scale * int8, scale
 * = max|x| / 127; scale 0 marks a free row.
 *
 * Limit: dim + 4 bytes a chunk, 39 MB for 100,000 chunks of 384: the copy out
 * of the page cache and the scan each run near memory speed. */
#include <math.h>
#include <string.h>

#include "rag/store.h"

size_t rag_segment_bytes(size_t dim) {
    return RAG_SEGMENT_ROWS * (sizeof(float) + dim);
}

void rag_matrix_release(RagIndex *index) {
    if (index->segment) sqlite3_blob_close(index->segment);
    index->segment = NULL;
}

/* Makes index->segment the one that holds the row, for writing. */
static bool open_segment(RagIndex *index, int64_t id, Error *err) {
    if (index->segment && index->segment_id == id) return true;
    rag_matrix_release(index);
    sqlite3_stmt *insert = rag_store_prepare(index, "INSERT OR IGNORE INTO segments VALUES (?1, zeroblob(?2))", err);
    if (!insert) return false;
    sqlite3_bind_int64(insert, 1, id);
    sqlite3_bind_int64(insert, 2, (int64_t)rag_segment_bytes(index->dim));
    if (!rag_store_finish(index, insert, "writing the index", err)) return false;
    if (sqlite3_blob_open(index->db, "main", "segments", "data", id, 1, &index->segment) != SQLITE_OK) {
        index->segment = NULL;
        return rag_store_fail(index, err, "writing the index");
    }
    index->segment_id = id;
    if ((size_t)sqlite3_blob_bytes(index->segment) == rag_segment_bytes(index->dim)) return true;
    rag_matrix_release(index);
    return base_fail(err, ERROR_INPUT, "%s: the index is damaged (segment %lld)", index->path, (long long)id);
}

static bool write_row(RagIndex *index, int64_t chunk, float scale, const int8_t *row, Error *err) {
    int64_t slot = chunk - 1;
    if (slot < 0) return base_fail(err, ERROR_INPUT, "%s: the index is damaged (chunk %lld)", index->path, (long long)chunk);
    if (!open_segment(index, slot / RAG_SEGMENT_ROWS, err)) return false;
    int within = (int)(slot % RAG_SEGMENT_ROWS);
    int rows_at = RAG_SEGMENT_ROWS * (int)sizeof scale;
    bool ok = sqlite3_blob_write(index->segment, &scale, (int)sizeof scale, within * (int)sizeof scale) == SQLITE_OK;
    if (ok && row)
        ok = sqlite3_blob_write(index->segment, row, (int)index->dim, rows_at + within * (int)index->dim) == SQLITE_OK;
    return ok || rag_store_fail(index, err, "writing the index");
}

static float quantise(const float *vector, size_t dim, int8_t *row) {
    float largest = 0;
    for (size_t i = 0; i < dim; i++) largest = fmaxf(largest, fabsf(vector[i]));
    float scale = largest / 127.0f;
    for (size_t i = 0; i < dim; i++) row[i] = (int8_t)(scale > 0 ? lrintf(vector[i] / scale) : 0);
    return scale;
}

bool rag_matrix_set(RagIndex *index, int64_t chunk, const float *vector, Error *err) {
    int8_t row[8192];
    float scale = quantise(vector, index->dim, row);
    return write_row(index, chunk, scale, row, err);
}

bool rag_matrix_clear(RagIndex *index, int64_t chunk, Error *err) {
    return write_row(index, chunk, 0, NULL, err);
}

/* ---- reading -------------------------------------------------------------- */

bool rag_matrix_load(RagIndex *index, RagMatrix *matrix, Error *err) {
    *matrix = (RagMatrix){.dim = index->dim, .segment_bytes = rag_segment_bytes(index->dim)};
    sqlite3_stmt *count = rag_store_prepare(index, "SELECT coalesce(max(id) + 1, 0) FROM segments", err);
    if (!count) return false;
    bool ok = sqlite3_step(count) == SQLITE_ROW;
    int64_t n = ok ? sqlite3_column_int64(count, 0) : 0;
    if (!ok) rag_store_fail(index, err, "reading the index");
    sqlite3_finalize(count);
    if (!ok || !n) return ok;
    if (n < 0 || n > (int64_t)1 << 30) return base_fail(err, ERROR_INPUT, "%s: the index is damaged (segments)", index->path);
    matrix->segments = base_try_alloc((size_t)n, matrix->segment_bytes, err);
    if (!matrix->segments) return false;
    sqlite3_blob *blob = NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        uint8_t *to = matrix->segments + (size_t)i * matrix->segment_bytes;
        int rc = blob ? sqlite3_blob_reopen(blob, i)
                      : sqlite3_blob_open(index->db, "main", "segments", "data", i, 0, &blob);
        ok = rc == SQLITE_OK && (size_t)sqlite3_blob_bytes(blob) == matrix->segment_bytes &&
             sqlite3_blob_read(blob, to, (int)matrix->segment_bytes, 0) == SQLITE_OK;
        if (!ok) base_fail(err, ERROR_INPUT, "%s: the index is damaged (segment %lld)", index->path, (long long)i);
    }
    if (blob) sqlite3_blob_close(blob);
    matrix->n_segments = (size_t)n;
    if (!ok) rag_matrix_free(matrix);
    return ok;
}

void rag_matrix_free(RagMatrix *matrix) {
    free(matrix->segments);
    *matrix = (RagMatrix){0};
}

/* ---- the scan --------------------------------------------------------------- */

/* Worst kept score on top, so that most rows are turned away by one comparison. */
static bool worse(RagScored a, RagScored b) {
    return a.score < b.score || (a.score == b.score && a.chunk > b.chunk);
}

static void heap_push(RagScored *heap, size_t *size, size_t capacity, RagScored item) {
    size_t i = 0;
    if (*size < capacity) {
        i = (*size)++;
        for (; i > 0 && worse(item, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    } else {
        if (!worse(heap[0], item)) return;
        for (size_t child = 1; child < *size; child = 2 * i + 1) {
            if (child + 1 < *size && worse(heap[child + 1], heap[child])) child++;
            if (!worse(heap[child], item)) break;
            heap[i] = heap[child];
            i = child;
        }
    }
    heap[i] = item;
}

/* The compiler vectorises this loop (widen to 16 bits, multiply, add pairs). */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("O3")))
#endif
static int32_t dot_plain(const int8_t *restrict a, const int16_t *restrict b, size_t dim) {
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (int32_t)((int16_t)a[i] * b[i]);
    return sum;
}

typedef int32_t (*Dot)(const int8_t *restrict a, const int16_t *restrict b, size_t dim);

#if defined(__x86_64__)
#if !defined(__clang__)
__attribute__((optimize("O3")))
#endif
__attribute__((target("avx2"))) static int32_t dot_avx2(const int8_t *restrict a, const int16_t *restrict b, size_t dim) {
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (int32_t)((int16_t)a[i] * b[i]);
    return sum;
}
#endif

static Dot fastest_dot(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return dot_avx2;
#endif
    return dot_plain;
}

#define MAX_SCAN_THREADS 64

typedef struct Scan {
    const RagMatrix *matrix;
    const int16_t *query;
    float query_scale;
    const uint8_t *allowed;
    size_t allowed_bits, capacity;
    Dot dot;
    RagScored *heaps; /* [MAX_SCAN_THREADS][capacity] */
    size_t sizes[MAX_SCAN_THREADS];
} Scan;

static void scan_segments(void *context, size_t begin, size_t end, int thread) {
    Scan *scan = context;
    size_t dim = scan->matrix->dim;
    size_t which = (size_t)thread % MAX_SCAN_THREADS;
    RagScored *heap = scan->heaps + which * scan->capacity;
    size_t size = scan->sizes[which];
    for (size_t s = begin; s < end; s++) {
        const uint8_t *segment = scan->matrix->segments + s * scan->matrix->segment_bytes;
        const float *scales = (const float *)(const void *)segment;
        const int8_t *rows = (const int8_t *)(segment + RAG_SEGMENT_ROWS * sizeof(float));
        for (size_t r = 0; r < RAG_SEGMENT_ROWS; r++) {
            float scale = scales[r];
            if (!(scale > 0)) continue; /* free, or not a number */
            size_t chunk = s * RAG_SEGMENT_ROWS + r + 1;
            if (scan->allowed && (chunk >= scan->allowed_bits || !(scan->allowed[chunk / 8] >> (chunk % 8) & 1))) continue;
            double score = (double)scan->dot(rows + r * dim, scan->query, dim) * (double)scale * (double)scan->query_scale;
            heap_push(heap, &size, scan->capacity, (RagScored){(int64_t)chunk, score});
        }
    }
    scan->sizes[which] = size;
}

static int by_score(const void *a, const void *b) {
    const RagScored *left = a, *right = b;
    if (left->score != right->score) return left->score > right->score ? -1 : 1;
    return left->chunk < right->chunk ? -1 : left->chunk > right->chunk;
}

void rag_scored_sort(RagScored *scored, size_t count) {
    if (count) qsort(scored, count, sizeof *scored, by_score);
}

size_t rag_matrix_search(const RagMatrix *matrix, const float *query, const uint8_t *allowed,
                         size_t allowed_bits, RagScored *best, size_t count) {
    if (!count || !matrix->n_segments) return 0;
    int8_t narrow[8192];
    int16_t wide[8192];
    float scale = quantise(query, matrix->dim, narrow);
    for (size_t i = 0; i < matrix->dim; i++) wide[i] = narrow[i];
    Scan scan = {.matrix = matrix, .query = wide, .query_scale = scale, .allowed = allowed,
                 .allowed_bits = allowed_bits, .capacity = count, .dot = fastest_dot()};
    scan.heaps = base_calloc(MAX_SCAN_THREADS * count, sizeof *scan.heaps);
    if (base_threads() <= MAX_SCAN_THREADS)
        base_parallel_for(matrix->n_segments, 4, scan_segments, &scan);
    else /* no heap for each of them */
        scan_segments(&scan, 0, matrix->n_segments, 0);
    size_t total = 0;
    for (size_t t = 0; t < MAX_SCAN_THREADS; t++) { /* pack the heaps together */
        memmove(scan.heaps + total, scan.heaps + t * count, scan.sizes[t] * sizeof *scan.heaps);
        total += scan.sizes[t];
    }
    rag_scored_sort(scan.heaps, total);
    total = BASE_MIN(total, count);
    memcpy(best, scan.heaps, total * sizeof *best);
    free(scan.heaps);
    return total;
}

bool rag_store_rescore(RagIndex *index, const float *query, RagScored *scored, size_t count, Error *err) {
    sqlite3_stmt *s = rag_store_prepare(index, "SELECT vector FROM vectors WHERE chunk = ?1", err);
    if (!s) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        sqlite3_bind_int64(s, 1, scored[i].chunk);
        int rc = sqlite3_step(s);
        ok = rc == SQLITE_ROW && (size_t)sqlite3_column_bytes(s, 0) == index->dim * sizeof(float);
        if (!ok) {
            base_fail(err, ERROR_INPUT, "%s: the index is damaged (vector of chunk %lld)", index->path, (long long)scored[i].chunk);
            break;
        }
        const char *bytes = sqlite3_column_blob(s, 0);
        double sum = 0;
        for (size_t k = 0; k < index->dim; k++) {
            float x;
            memcpy(&x, bytes + k * sizeof x, sizeof x);
            sum += (double)x * (double)query[k];
        }
        scored[i].score = isfinite(sum) ? sum : -1;
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    return ok;
}
