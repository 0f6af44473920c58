/* The int8 copy of the vectors: written row by row with incremental blob I/O,
 * scanned segment by segment. A row is scale * int8, scale = max|x| / 127; scale
 * 0 marks a free row.
 *
 * Limit: dim + 4 bytes a chunk, 39 MB for 100,000 chunks of 384, copied once out
 * of the page cache into a buffer of one segment, which stays in the processor's
 * cache for the scan. (Gathering all segments first costs more in page faults
 * than reading and scanning together.) */
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
    sqlite3_stmt *insert =
        rag_store_prepare(index, "INSERT OR IGNORE INTO segments VALUES (?1, zeroblob(?2))", err);
    if (!insert) return false;
    sqlite3_bind_int64(insert, 1, id);
    sqlite3_bind_int64(insert, 2, (int64_t)rag_segment_bytes(index->dim));
    if (!rag_store_finish(index, insert, "writing the index", err)) return false;
    if (sqlite3_blob_open(index->db, "main", "segments", "data", id, 1, &index->segment) !=
        SQLITE_OK) {
        index->segment = NULL;
        return rag_store_fail(index, err, "writing the index");
    }
    index->segment_id = id;
    if ((size_t)sqlite3_blob_bytes(index->segment) == rag_segment_bytes(index->dim)) return true;
    rag_matrix_release(index);
    return base_fail(err, ERROR_INPUT, "%s: the index is damaged (segment %lld)", index->path,
                     (long long)id);
}

static bool write_row(RagIndex *index, int64_t chunk, float scale, const int8_t *row, Error *err) {
    int64_t slot = chunk - 1;
    if (slot < 0)
        return base_fail(err, ERROR_INPUT, "%s: the index is damaged (chunk %lld)", index->path,
                         (long long)chunk);
    if (!open_segment(index, slot / RAG_SEGMENT_ROWS, err)) return false;
    int within = (int)(slot % RAG_SEGMENT_ROWS);
    int rows_at = RAG_SEGMENT_ROWS * (int)sizeof scale;
    bool ok = sqlite3_blob_write(index->segment, &scale, (int)sizeof scale,
                                 within * (int)sizeof scale) == SQLITE_OK;
    if (ok && row)
        ok = sqlite3_blob_write(index->segment, row, (int)index->dim,
                                rows_at + within * (int)index->dim) == SQLITE_OK;
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

bool rag_matrix_open(RagIndex *index, RagMatrix *matrix, Error *err) {
    *matrix = (RagMatrix){.index = index, .dim = index->dim};
    sqlite3_stmt *count =
        rag_store_prepare(index, "SELECT coalesce(max(id) + 1, 0) FROM segments", err);
    if (!count) return false;
    bool ok = sqlite3_step(count) == SQLITE_ROW;
    int64_t n = ok ? sqlite3_column_int64(count, 0) : 0;
    if (!ok) rag_store_fail(index, err, "reading the index");
    sqlite3_finalize(count);
    if (ok && (n < 0 || n > (int64_t)1 << 30))
        ok = base_fail(err, ERROR_INPUT, "%s: the index is damaged (segments)", index->path);
    if (!ok) return false;
    matrix->n_segments = (size_t)n;
    matrix->bytes = base_alloc(rag_segment_bytes(index->dim));
    matrix->scales = (const float *)matrix->bytes;
    matrix->rows = (const int8_t *)matrix->bytes + RAG_SEGMENT_ROWS * sizeof(float);
    return true;
}

bool rag_matrix_read(RagMatrix *matrix, size_t segment, Error *err) {
    int64_t id = (int64_t)segment;
    size_t bytes = rag_segment_bytes(matrix->dim);
    int rc = matrix->blob ? sqlite3_blob_reopen(matrix->blob, id)
                          : sqlite3_blob_open(matrix->index->db, "main", "segments", "data", id, 0,
                                              &matrix->blob);
    bool ok = rc == SQLITE_OK && (size_t)sqlite3_blob_bytes(matrix->blob) == bytes &&
              sqlite3_blob_read(matrix->blob, matrix->bytes, (int)bytes, 0) == SQLITE_OK;
    return ok || base_fail(err, ERROR_INPUT, "%s: the index is damaged (segment %lld)",
                           matrix->index->path, (long long)id);
}

void rag_matrix_close(RagMatrix *matrix) {
    if (matrix->blob) sqlite3_blob_close(matrix->blob);
    free(matrix->bytes);
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
        for (; i > 0 && worse(item, heap[(i - 1) / 2]); i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
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
static int32_t
dot_plain(const int8_t *restrict a, const int16_t *restrict b, size_t dim) {
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (int32_t)((int16_t)a[i] * b[i]);
    return sum;
}

typedef int32_t (*Dot)(const int8_t *restrict a, const int16_t *restrict b, size_t dim);

#if defined(__x86_64__)
#if !defined(__clang__)
__attribute__((optimize("O3")))
#endif
__attribute__((target("avx2"))) static int32_t
dot_avx2(const int8_t *restrict a, const int16_t *restrict b, size_t dim) {
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

static int by_score(const void *a, const void *b) {
    const RagScored *left = a, *right = b;
    if (left->score != right->score) return left->score > right->score ? -1 : 1;
    return left->chunk < right->chunk ? -1 : left->chunk > right->chunk;
}

void rag_scored_sort(RagScored *scored, size_t count) {
    if (count) qsort(scored, count, sizeof *scored, by_score);
}

bool rag_matrix_search(RagMatrix *matrix, const float *query, const uint8_t *allowed,
                       size_t allowed_bits, RagScored *best, size_t count, size_t *found,
                       Error *err) {
    int8_t narrow[8192];
    int16_t wide[8192];
    double query_scale = (double)quantise(query, matrix->dim, narrow);
    for (size_t i = 0; i < matrix->dim; i++) wide[i] = narrow[i];
    Dot dot = fastest_dot();
    bool ok = true;
    *found = 0;
    for (size_t s = 0; ok && count && s < matrix->n_segments; s++) {
        ok = rag_matrix_read(matrix, s, err);
        for (size_t r = 0; ok && r < RAG_SEGMENT_ROWS; r++) {
            double scale = (double)matrix->scales[r];
            if (!(scale > 0)) continue; /* free, or not a number */
            size_t chunk = s * RAG_SEGMENT_ROWS + r + 1;
            if (allowed && (chunk >= allowed_bits || !(allowed[chunk / 8] >> (chunk % 8) & 1)))
                continue;
            double score = (double)dot(matrix->rows + r * matrix->dim, wide, matrix->dim) * scale *
                           query_scale;
            heap_push(best, found, count, (RagScored){(int64_t)chunk, score});
        }
    }
    rag_scored_sort(best, *found);
    return ok;
}

bool rag_store_rescore(RagIndex *index, const float *query, RagScored *scored, size_t count,
                       Error *err) {
    sqlite3_stmt *s = rag_store_prepare(index, "SELECT vector FROM vectors WHERE chunk = ?1", err);
    if (!s) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        sqlite3_bind_int64(s, 1, scored[i].chunk);
        int rc = sqlite3_step(s);
        if (rc == SQLITE_DONE) {
            scored[i].score = -1;
            sqlite3_reset(s);
            continue;
        }
        ok = rc == SQLITE_ROW && (size_t)sqlite3_column_bytes(s, 0) == index->dim * sizeof(float);
        if (!ok) {
            base_fail(err, ERROR_INPUT, "%s: the index is damaged (vector of chunk %lld)",
                      index->path, (long long)scored[i].chunk);
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
