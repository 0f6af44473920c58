/* The int8 copy of the vectors: written row by row with incremental blob I/O, read
 * segment by segment. */
#include <math.h>
#include <string.h>

#include "rag/store_sqlite.h"

size_t rag_segment_bytes(size_t dim) {
    return RAG_SEGMENT_ROWS * (sizeof(float) + dim);
}

void rag_matrix_release(RagIndex *index) {
    if (index->sqlite->segment) sqlite3_blob_close(index->sqlite->segment);
    index->sqlite->segment = NULL;
}

/* Makes index->sqlite->segment the one that holds the row, for writing. */
static bool open_segment(RagIndex *index, int64_t id, Error *err) {
    if (index->sqlite->segment && index->sqlite->segment_id == id) return true;
    rag_matrix_release(index);
    sqlite3_stmt *insert =
        rag_sqlite_prepare(index, "INSERT OR IGNORE INTO segments VALUES (?1, zeroblob(?2))", err);
    if (!insert) return false;
    sqlite3_bind_int64(insert, 1, id);
    sqlite3_bind_int64(insert, 2, (int64_t)rag_segment_bytes(index->dim));
    if (!rag_sqlite_finish(index, insert, "writing the index", err)) return false;
    if (sqlite3_blob_open(index->sqlite->db, "main", "segments", "data", id, 1,
                          &index->sqlite->segment) != SQLITE_OK) {
        index->sqlite->segment = NULL;
        return rag_sqlite_fail(index, err, "writing the index");
    }
    index->sqlite->segment_id = id;
    if ((size_t)sqlite3_blob_bytes(index->sqlite->segment) == rag_segment_bytes(index->dim))
        return true;
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
    bool ok = sqlite3_blob_write(index->sqlite->segment, &scale, (int)sizeof scale,
                                 within * (int)sizeof scale) == SQLITE_OK;
    if (ok && row)
        ok = sqlite3_blob_write(index->sqlite->segment, row, (int)index->dim,
                                rows_at + within * (int)index->dim) == SQLITE_OK;
    return ok || rag_sqlite_fail(index, err, "writing the index");
}

bool rag_matrix_set(RagIndex *index, int64_t chunk, const float *vector, Error *err) {
    int8_t row[RAG_MAX_DIM];
    float scale = rag_quantise(vector, index->dim, row);
    return write_row(index, chunk, scale, row, err);
}

bool rag_matrix_clear(RagIndex *index, int64_t chunk, Error *err) {
    return write_row(index, chunk, 0, NULL, err);
}

/* ---- reading -------------------------------------------------------------- */

bool rag_matrix_open(RagIndex *index, RagMatrix *matrix, Error *err) {
    *matrix = (RagMatrix){.index = index, .dim = index->dim};
    sqlite3_stmt *count =
        rag_sqlite_prepare(index, "SELECT coalesce(max(id) + 1, 0) FROM segments", err);
    if (!count) return false;
    bool ok = sqlite3_step(count) == SQLITE_ROW;
    int64_t n = ok ? sqlite3_column_int64(count, 0) : 0;
    if (!ok) rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(count);
    if (ok && (n < 0 || n > (int64_t)1 << 30))
        ok = base_fail(err, ERROR_INPUT, "%s: the index is damaged (segments)", index->path);
    if (!ok) return false;
    matrix->n_segments = (size_t)n;
    return true;
}

bool rag_matrix_read(RagMatrix *matrix, size_t segment, uint8_t *into, Error *err) {
    if (!into) {
        if (!matrix->own) matrix->own = base_alloc(rag_segment_bytes(matrix->dim));
        into = matrix->own;
    }
    matrix->scales = (const float *)(const void *)into;
    matrix->rows = (const int8_t *)into + RAG_SEGMENT_ROWS * sizeof(float);
    int64_t id = (int64_t)segment;
    size_t bytes = rag_segment_bytes(matrix->dim);
    int rc = matrix->blob ? sqlite3_blob_reopen(matrix->blob, id)
                          : sqlite3_blob_open(matrix->index->sqlite->db, "main", "segments", "data",
                                              id, 0, &matrix->blob);
    bool ok = rc == SQLITE_OK && (size_t)sqlite3_blob_bytes(matrix->blob) == bytes &&
              sqlite3_blob_read(matrix->blob, into, (int)bytes, 0) == SQLITE_OK;
    return ok || base_fail(err, ERROR_INPUT, "%s: the index is damaged (segment %lld)",
                           matrix->index->path, (long long)id);
}

void rag_matrix_close(RagMatrix *matrix) {
    if (matrix->blob) sqlite3_blob_close(matrix->blob);
    free(matrix->own);
    *matrix = (RagMatrix){0};
}
