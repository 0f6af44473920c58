/* Whether text, words, exact vectors and segments of an index agree. */
#include <string.h>

#include "rag/store_sqlite.h"

typedef struct Rule {
    const char *what, *sql; /* sql gives the number of violations */
} Rule;

static const Rule rules[] = {
    {"chunks without a vector",
     "SELECT count(*) FROM chunks WHERE id NOT IN (SELECT chunk FROM vectors)"},
    {"vectors without a chunk",
     "SELECT count(*) FROM vectors WHERE chunk NOT IN (SELECT id FROM chunks)"},
    {"chunks without a document",
     "SELECT count(*) FROM chunks WHERE document NOT IN (SELECT id FROM documents)"},
    {"documents with another number of chunks",
     "SELECT count(*) FROM documents d WHERE n_chunks <> (SELECT count(*) FROM chunks WHERE "
     "document = d.id)"},
    {"ids both free and used",
     "SELECT count(*) FROM chunks WHERE id IN (SELECT id FROM free_chunks)"},
    {"ids neither free nor used", "SELECT coalesce(max(id), 0) - count(*) FROM (SELECT id FROM "
                                  "chunks UNION SELECT id FROM free_chunks)"},
    {"words of another number of chunks",
     "SELECT (SELECT count(*) FROM words_docsize) <> (SELECT count(*) FROM chunks)"},
};

static bool check_rules(RagIndex *index, Error *err) {
    for (size_t i = 0; i < BASE_COUNT(rules); i++) {
        sqlite3_stmt *s = rag_sqlite_prepare(index, rules[i].sql, err);
        if (!s) return false;
        bool ok =
            sqlite3_step(s) == SQLITE_ROW || rag_sqlite_fail(index, err, "checking the index");
        int64_t wrong = ok ? sqlite3_column_int64(s, 0) : 0;
        sqlite3_finalize(s);
        if (!ok) return false;
        if (wrong)
            return base_fail(err, ERROR_INPUT, "%s: %lld %s", index->path, (long long)wrong,
                             rules[i].what);
    }
    return true;
}

/* Every chunk is the slice of its document's text that it says it is. */
static bool check_slices(RagIndex *index, Error *err) {
    sqlite3_stmt *s =
        rag_sqlite_prepare(index,
                           "SELECT d.text, c.first_byte, c.end_byte, c.text, c.id FROM chunks c"
                           " JOIN documents d ON d.id = c.document",
                           err);
    if (!s) return false;
    bool ok = true;
    int rc = SQLITE_DONE;
    while (ok && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        const char *whole = (const char *)sqlite3_column_text(s, 0),
                   *slice = (const char *)sqlite3_column_text(s, 3);
        int64_t start = sqlite3_column_int64(s, 1), end = sqlite3_column_int64(s, 2);
        ok = whole && slice && start >= 0 && start <= end && end <= sqlite3_column_bytes(s, 0) &&
             end - start == sqlite3_column_bytes(s, 3) &&
             memcmp(whole + start, slice, (size_t)(end - start)) == 0;
        if (!ok)
            base_fail(err, ERROR_INPUT, "%s: chunk %lld is not a slice of its document",
                      index->path, (long long)sqlite3_column_int64(s, 4));
    }
    if (ok && rc != SQLITE_DONE) ok = rag_sqlite_fail(index, err, "checking the index");
    sqlite3_finalize(s);
    return ok;
}

/* A row of the segments is used exactly when its chunk exists, and close to the
 * exact vector. */
static bool check_segments(RagIndex *index, Error *err) {
    RagMatrix matrix;
    if (!rag_matrix_open(index, &matrix, err)) return false;
    sqlite3_stmt *s = rag_sqlite_prepare(index, "SELECT vector FROM vectors WHERE chunk = ?1", err);
    bool ok = s != NULL;
    for (size_t slot = 0; ok && slot < matrix.n_segments * RAG_SEGMENT_ROWS; slot++) {
        size_t r = slot % RAG_SEGMENT_ROWS;
        if (r == 0) ok = rag_matrix_read(&matrix, slot / RAG_SEGMENT_ROWS, NULL, err);
        if (!ok) break;
        float scale = matrix.scales[r];
        const int8_t *row = matrix.rows + r * matrix.dim;
        sqlite3_bind_int64(s, 1, (int64_t)slot + 1);
        bool stored = sqlite3_step(s) == SQLITE_ROW;
        ok = stored == (scale > 0) &&
             (!stored || (size_t)sqlite3_column_bytes(s, 0) == matrix.dim * sizeof(float));
        for (size_t i = 0; ok && stored && i < matrix.dim; i++) {
            float exact;
            memcpy(&exact, (const char *)sqlite3_column_blob(s, 0) + i * sizeof exact,
                   sizeof exact);
            float off = exact - scale * (float)row[i];
            ok = off <= scale && off >= -scale;
        }
        sqlite3_reset(s);
        if (!ok)
            base_fail(err, ERROR_INPUT, "%s: the segment row of chunk %zu does not fit",
                      index->path, slot + 1);
    }
    sqlite3_finalize(s);
    rag_matrix_close(&matrix);
    return ok;
}

bool rag_sqlite_check(RagIndex *index, Error *err) {
    /* FTS5 checks itself through an INSERT, which a read-only index refuses. */
    bool ok = index->mode == RAG_READ ||
              rag_sqlite_run(index, "INSERT INTO words(words) VALUES ('integrity-check')", err);
    return ok && check_rules(index, err) && check_slices(index, err) && check_segments(index, err);
}
