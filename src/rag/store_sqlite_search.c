/* What a search asks of an index file, words (store_sqlite_words.c) and the search by
 * vectors (dense.c) aside. */
#include <string.h>

#include "rag/show.h"
#include "rag/store_sqlite.h"

/* ---- filter -------------------------------------------------------------------- */

static bool largest_chunk(RagIndex *index, int64_t *largest, Error *err) {
    sqlite3_stmt *s = rag_sqlite_prepare(index, "SELECT coalesce(max(id), 0) FROM chunks", err);
    if (!s) return false;
    bool ok = sqlite3_step(s) == SQLITE_ROW || rag_sqlite_fail(index, err, "reading the index");
    *largest = ok ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_finalize(s);
    if (ok && (*largest < 0 || *largest > (int64_t)1 << 40))
        ok = base_fail(err, ERROR_INPUT, "%s: the index is damaged", index->path);
    return ok;
}

static bool mark_chunks(RagIndex *index, sqlite3_stmt *chunks, int64_t document, RagFilter *filter,
                        Error *err) {
    int rc = SQLITE_ROW;
    sqlite3_bind_int64(chunks, 1, document);
    while ((rc = sqlite3_step(chunks)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(chunks, 0);
        if (id > 0 && (size_t)id < filter->bits)
            filter->allowed[id / 8] |= (uint8_t)(1u << (id % 8));
    }
    sqlite3_reset(chunks);
    return rc == SQLITE_DONE || rag_sqlite_fail(index, err, "reading the index");
}

static const char *column(sqlite3_stmt *statement, int i) {
    const char *text = (const char *)sqlite3_column_text(statement, i);
    return text ? text : "";
}

bool rag_sqlite_mark(RagIndex *index, RagWanted wanted, const void *context, RagFilter *filter,
                     Error *err) {
    int64_t largest = 0;
    if (!largest_chunk(index, &largest, err)) return false;
    filter->bits = (size_t)largest + 1;
    filter->allowed = base_calloc(filter->bits / 8 + 1, 1);
    sqlite3_stmt *documents =
        rag_sqlite_prepare(index, "SELECT id, path, format, mtime_ns FROM documents", err);
    sqlite3_stmt *chunks =
        documents ? rag_sqlite_prepare(index, "SELECT id FROM chunks WHERE document = ?1", err)
                  : NULL;
    bool ok = chunks != NULL;
    int rc = SQLITE_DONE;
    while (ok && (rc = sqlite3_step(documents)) == SQLITE_ROW)
        if (wanted(context, column(documents, 1), column(documents, 2),
                   sqlite3_column_int64(documents, 3)))
            ok = mark_chunks(index, chunks, sqlite3_column_int64(documents, 0), filter, err);
    if (ok && rc != SQLITE_DONE) ok = rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(documents);
    sqlite3_finalize(chunks);
    return ok;
}

/* ---- vectors and texts ----------------------------------------------------------- */

bool rag_sqlite_vectors(RagIndex *index, const RagScored *chunks, size_t count, float *out,
                        Error *err) {
    sqlite3_stmt *s = rag_sqlite_prepare(index, "SELECT vector FROM vectors WHERE chunk = ?1", err);
    if (!s) return false;
    size_t bytes = index->dim * sizeof *out;
    bool ok = true;
    memset(out, 0, count * bytes);
    for (size_t i = 0; ok && i < count; i++) {
        sqlite3_bind_int64(s, 1, chunks[i].chunk);
        int rc = sqlite3_step(s);
        if (rc == SQLITE_ROW && (size_t)sqlite3_column_bytes(s, 0) == bytes)
            memcpy(out + i * index->dim, sqlite3_column_blob(s, 0), bytes);
        else if (rc == SQLITE_ROW)
            ok = base_fail(err, ERROR_INPUT, "%s: the index is damaged (vector of chunk %lld)",
                           index->path, (long long)chunks[i].chunk);
        else if (rc != SQLITE_DONE)
            ok = rag_sqlite_fail(index, err, "reading the index");
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    return ok;
}

bool rag_sqlite_hit(RagIndex *index, int64_t chunk, RagHit *hit, char **header, bool *found,
                    Error *err) {
    *found = false;
    sqlite3_stmt *q = rag_sqlite_prepare(
        index,
        "SELECT d.path, d.title, c.heading, c.text, c.page, c.first_byte, c.end_byte, c.header,"
        " d.format FROM chunks c JOIN documents d ON d.id = c.document WHERE c.id = ?1",
        err);
    if (!q) return false;
    sqlite3_bind_int64(q, 1, chunk);
    int rc = sqlite3_step(q);
    if (rc == SQLITE_ROW) {
        *found = true;
        *hit = (RagHit){.chunk = chunk,
                        .document = rag_clean(column(q, 0)),
                        .title = rag_clean(column(q, 1)),
                        .heading = rag_clean(column(q, 2)),
                        .text = rag_clean(column(q, 3)),
                        .page = sqlite3_column_int(q, 4),
                        .start = (size_t)sqlite3_column_int64(q, 5),
                        .end = (size_t)sqlite3_column_int64(q, 6),
                        .format = rag_format_name(rag_format_named(column(q, 8)))};
        *header = rag_clean(column(q, 7));
    }
    bool ok =
        rc == SQLITE_ROW || rc == SQLITE_DONE || rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(q);
    return ok;
}

bool rag_sqlite_places(RagIndex *index, int64_t chunk, RagPlace **places, size_t *count,
                       Error *err) {
    size_t capacity = 0;
    *places = NULL;
    *count = 0;
    sqlite3_stmt *q =
        rag_sqlite_prepare(index,
                           "SELECT id, first_byte, end_byte, heading FROM chunks WHERE document ="
                           " (SELECT document FROM chunks WHERE id = ?1) ORDER BY first_byte",
                           err);
    if (!q) return false;
    sqlite3_bind_int64(q, 1, chunk);
    int rc;
    while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
        *places = base_grow(*places, &capacity, *count + 1, sizeof **places);
        (*places)[(*count)++] = (RagPlace){.chunk = sqlite3_column_int64(q, 0),
                                           .start = (size_t)sqlite3_column_int64(q, 1),
                                           .end = (size_t)sqlite3_column_int64(q, 2),
                                           .heading = rag_clean(column(q, 3))};
    }
    bool ok = rc == SQLITE_DONE || rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(q);
    return ok;
}

bool rag_sqlite_text(RagIndex *index, int64_t chunk, size_t start, size_t end, StrBuf *out,
                     Error *err) {
    sqlite3_stmt *q =
        rag_sqlite_prepare(index,
                           "SELECT substr(CAST(text AS BLOB), ?2, ?3) FROM documents WHERE id ="
                           " (SELECT document FROM chunks WHERE id = ?1)",
                           err);
    if (!q) return false;
    sqlite3_bind_int64(q, 1, chunk);
    sqlite3_bind_int64(q, 2, (int64_t)start + 1);
    sqlite3_bind_int64(q, 3, (int64_t)(end - start));
    int rc = sqlite3_step(q);
    if (rc == SQLITE_ROW && sqlite3_column_bytes(q, 0))
        base_str_append_n(out, sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0));
    bool ok =
        rc == SQLITE_ROW || rc == SQLITE_DONE || rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(q);
    return ok;
}
