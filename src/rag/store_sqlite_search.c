/* What a search asks of an index file, vectors aside (dense.c). */
#include <string.h>

#include "rag/show.h"
#include "rag/store_sqlite.h"
#include "rag/words.h"

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

/* ---- words --------------------------------------------------------------------- */

bool rag_sqlite_count_rows(RagIndex *index, const char *phrase, size_t most, size_t *rows,
                           Error *err) {
    sqlite3_stmt *count = rag_sqlite_prepare(
        index, "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ?1 LIMIT ?2)", err);
    if (!count) return false;
    StrBuf quoted = {0};
    rag_fts_quote(&quoted, phrase);
    sqlite3_bind_text(count, 1, quoted.data, (int)quoted.length, SQLITE_STATIC);
    sqlite3_bind_int64(count, 2, (int64_t)most);
    bool ok = sqlite3_step(count) == SQLITE_ROW || rag_sqlite_fail(index, err, "searching words");
    if (ok) *rows = (size_t)sqlite3_column_int64(count, 0);
    sqlite3_finalize(count);
    base_str_free(&quoted);
    return ok;
}

/* In FTS5's language; caller frees. */
static char *expression_of(const RagMatch *match) {
    StrBuf out = {0};
    for (size_t i = 0; i < match->n_any; i++) {
        if (i) base_str_append(&out, " OR ");
        rag_fts_quote(&out, match->any[i]);
    }
    if (match->both[0]) {
        base_str_append(&out, match->n_any ? " OR (" : "(");
        rag_fts_quote(&out, match->both[0]);
        base_str_append(&out, " AND ");
        rag_fts_quote(&out, match->both[1]);
        base_str_append_char(&out, ')');
    }
    return base_str_detach(&out);
}

bool rag_sqlite_match(RagIndex *index, const RagMatch *match, const RagFilter *filter,
                      size_t capacity, RagScored *best, size_t *found, Error *err) {
    *found = 0;
    char *expression = expression_of(match);
    if (!*expression) {
        free(expression);
        return true;
    }
    /* With a filter every row is looked at until enough are allowed. */
    sqlite3_stmt *q = rag_sqlite_prepare(
        index, "SELECT rowid, rank FROM words WHERE words MATCH ?1 ORDER BY rank LIMIT ?2", err);
    bool ok = q != NULL;
    if (ok) {
        sqlite3_bind_text(q, 1, expression, -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 2, filter->allowed ? -1 : (int64_t)capacity);
        int rc = SQLITE_ROW;
        while (*found < capacity && (rc = sqlite3_step(q)) == SQLITE_ROW) {
            int64_t id = sqlite3_column_int64(q, 0);
            if (rag_filter_allows(filter, id))
                best[(*found)++] = (RagScored){id, -sqlite3_column_double(q, 1)};
        }
        ok =
            rc == SQLITE_ROW || rc == SQLITE_DONE || rag_sqlite_fail(index, err, "searching words");
        rag_scored_sort(best, *found);
    }
    sqlite3_finalize(q);
    free(expression);
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
