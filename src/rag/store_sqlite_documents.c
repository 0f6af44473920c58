/* Documents in the index: found, put, touched, removed, each in a transaction
 * of its own. The triggers of the schema keep the words in step with the
 * chunks; vectors and segments are written here beside them. */
#include <string.h>

#include "rag/store_sqlite.h"

static bool begin(RagIndex *index, Error *err) {
    return rag_sqlite_run(index, "BEGIN IMMEDIATE", err);
}

/* Commits, or rolls back when something failed before or fails now. */
static bool end(RagIndex *index, bool ok, Error *err) {
    rag_matrix_release(index);
    if (ok) ok = rag_sqlite_run(index, "COMMIT", err);
    if (!ok) sqlite3_exec(index->sqlite->db, "ROLLBACK", NULL, NULL, NULL);
    return ok;
}

bool rag_sqlite_find(RagIndex *index, const char *path, RagStoredFile *file, bool *found,
                     Error *err) {
    *file = (RagStoredFile){0};
    *found = false;
    sqlite3_stmt *statement = rag_sqlite_prepare(
        index,
        "SELECT id, size, mtime_ns, sha256, settings, n_chunks FROM documents WHERE path = ?1",
        err);
    if (!statement) return false;
    sqlite3_bind_text(statement, 1, path, -1, SQLITE_STATIC);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        *found = true;
        file->id = sqlite3_column_int64(statement, 0);
        file->size = sqlite3_column_int64(statement, 1);
        file->mtime_ns = sqlite3_column_int64(statement, 2);
        if (sqlite3_column_bytes(statement, 3) == (int)sizeof file->sha256)
            memcpy(file->sha256, sqlite3_column_blob(statement, 3), sizeof file->sha256);
        file->settings = sqlite3_column_int64(statement, 4);
        file->n_chunks = (size_t)sqlite3_column_int64(statement, 5);
    }
    bool ok =
        rc == SQLITE_ROW || rc == SQLITE_DONE || rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(statement);
    return ok;
}

static bool run_with_id(RagIndex *index, const char *sql, int64_t id, Error *err) {
    sqlite3_stmt *statement = rag_sqlite_prepare(index, sql, err);
    if (!statement) return false;
    sqlite3_bind_int64(statement, 1, id);
    return rag_sqlite_finish(index, statement, "writing the index", err);
}

/* Inside a transaction. */
static bool remove_document(RagIndex *index, int64_t id, size_t *removed, Error *err) {
    sqlite3_stmt *chunks =
        rag_sqlite_prepare(index, "SELECT id FROM chunks WHERE document = ?1", err);
    if (!chunks) return false;
    sqlite3_bind_int64(chunks, 1, id);
    int rc = SQLITE_ROW;
    bool ok = true;
    while (ok && (rc = sqlite3_step(chunks)) == SQLITE_ROW) {
        ok = rag_matrix_clear(index, sqlite3_column_int64(chunks, 0), err);
        if (removed) (*removed)++;
    }
    if (ok && rc != SQLITE_DONE) ok = rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(chunks);
    return ok &&
           run_with_id(index, "INSERT INTO free_chunks SELECT id FROM chunks WHERE document = ?1",
                       id, err) &&
           run_with_id(
               index,
               "DELETE FROM vectors WHERE chunk IN (SELECT id FROM chunks WHERE document = ?1)", id,
               err) &&
           run_with_id(index, "DELETE FROM chunks WHERE document = ?1", id, err) &&
           run_with_id(index, "DELETE FROM documents WHERE id = ?1", id, err);
}

bool rag_sqlite_remove(RagIndex *index, int64_t id, size_t *removed_chunks, Error *err) {
    return begin(index, err) && end(index, remove_document(index, id, removed_chunks, err), err);
}

bool rag_sqlite_touch(RagIndex *index, int64_t id, int64_t size, int64_t mtime_ns, Error *err) {
    sqlite3_stmt *statement = rag_sqlite_prepare(
        index, "UPDATE documents SET size = ?2, mtime_ns = ?3 WHERE id = ?1", err);
    if (!statement) return false;
    sqlite3_bind_int64(statement, 1, id);
    sqlite3_bind_int64(statement, 2, size);
    sqlite3_bind_int64(statement, 3, mtime_ns);
    return rag_sqlite_finish(index, statement, "writing the index", err);
}

static bool insert_document(RagIndex *index, const RagNewDocument *new, int64_t *id, Error *err) {
    const RagDocument *document = new->document;
    sqlite3_stmt *s = rag_sqlite_prepare(
        index,
        "INSERT INTO documents(path, root, title, format, pages, size, mtime_ns, sha256, settings, "
        "n_chunks,"
        " warning, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        err);
    if (!s) return false;
    sqlite3_bind_text(s, 1, new->path, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, new->root, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, document->title ? document->title : "", -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 4, document->format ? document->format : "", -1, SQLITE_STATIC);
    sqlite3_bind_int(s, 5, document->n_pages);
    sqlite3_bind_int64(s, 6, new->file.size);
    sqlite3_bind_int64(s, 7, new->file.mtime_ns);
    sqlite3_bind_blob(s, 8, new->file.sha256, (int)sizeof new->file.sha256, SQLITE_STATIC);
    sqlite3_bind_int64(s, 9, new->file.settings);
    sqlite3_bind_int64(s, 10, (int64_t) new->chunks->count);
    sqlite3_bind_text(s, 11, document->warning, -1, SQLITE_STATIC);
    sqlite3_bind_text64(s, 12, document->text.data ? document->text.data : "",
                        document->text.length, SQLITE_STATIC, SQLITE_UTF8);
    if (!rag_sqlite_finish(index, s, "writing the index", err)) return false;
    *id = sqlite3_last_insert_rowid(index->sqlite->db);
    return true;
}

/* Ids of removed chunks first; when there are none, every id up to the largest
 * is in use and the next one is free. */
static bool next_chunk_id(RagIndex *index, sqlite3_stmt *take, sqlite3_stmt *largest, int64_t *id,
                          Error *err) {
    *id = 0;
    int rc = sqlite3_step(take);
    if (rc == SQLITE_ROW) *id = sqlite3_column_int64(take, 0);
    if (rc == SQLITE_ROW) rc = sqlite3_step(take);
    sqlite3_reset(take);
    if (rc == SQLITE_DONE && !*id) {
        rc = sqlite3_step(largest);
        if (rc == SQLITE_ROW) *id = sqlite3_column_int64(largest, 0) + 1;
        sqlite3_reset(largest);
        rc = rc == SQLITE_ROW ? SQLITE_DONE : rc;
    }
    if (rc != SQLITE_DONE) return rag_sqlite_fail(index, err, "writing the index");
    if (*id < 1 || *id > (int64_t)1 << 40)
        return base_fail(err, ERROR_INPUT, "%s: the index is damaged (chunk %lld)", index->path,
                         (long long)*id);
    return true;
}

static bool insert_chunks(RagIndex *index, const RagNewDocument *new, int64_t document,
                          Error *err) {
    sqlite3_stmt *take = rag_sqlite_prepare(
        index, "DELETE FROM free_chunks WHERE id = (SELECT min(id) FROM free_chunks) RETURNING id",
        err);
    sqlite3_stmt *largest =
        rag_sqlite_prepare(index, "SELECT coalesce(max(id), 0) FROM chunks", err);
    sqlite3_stmt *insert = rag_sqlite_prepare(
        index,
        "INSERT INTO chunks(id, document, first_byte, end_byte, page, key, heading, header, text)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        err);
    sqlite3_stmt *vector = rag_sqlite_prepare(index, "INSERT INTO vectors VALUES (?1, ?2)", err);
    bool ok = take && largest && insert && vector;
    const char *text = new->document->text.data;
    for (size_t i = 0; ok && i < new->chunks->count; i++) {
        const RagChunk *chunk = &new->chunks->items[i];
        const float *row = new->vectors + i * index->dim;
        int64_t id = 0;
        ok = next_chunk_id(index, take, largest, &id, err);
        if (!ok) break;
        size_t length = chunk->end - chunk->start;
        sqlite3_bind_int64(insert, 1, id);
        sqlite3_bind_int64(insert, 2, document);
        sqlite3_bind_int64(insert, 3, (int64_t)chunk->start);
        sqlite3_bind_int64(insert, 4, (int64_t)chunk->end);
        sqlite3_bind_int(insert, 5, chunk->page);
        sqlite3_bind_int64(insert, 6, rag_chunk_key(chunk->header, text + chunk->start, length));
        sqlite3_bind_text(insert, 7, chunk->heading, -1, SQLITE_STATIC);
        sqlite3_bind_text(insert, 8, chunk->header, -1, SQLITE_STATIC);
        sqlite3_bind_text64(insert, 9, text + chunk->start, length, SQLITE_STATIC, SQLITE_UTF8);
        sqlite3_bind_int64(vector, 1, id);
        sqlite3_bind_blob64(vector, 2, row, index->dim * sizeof *row, SQLITE_STATIC);
        ok = sqlite3_step(insert) == SQLITE_DONE && sqlite3_step(vector) == SQLITE_DONE;
        if (!ok) rag_sqlite_fail(index, err, "writing the index");
        sqlite3_reset(insert);
        sqlite3_reset(vector);
        ok = ok && rag_matrix_set(index, id, row, err);
    }
    sqlite3_finalize(take);
    sqlite3_finalize(largest);
    sqlite3_finalize(insert);
    sqlite3_finalize(vector);
    return ok;
}

bool rag_sqlite_put(RagIndex *index, const RagNewDocument *new, size_t *removed_chunks,
                    Error *err) {
    if (!begin(index, err)) return false;
    RagStoredFile old;
    bool found = false;
    int64_t id = 0;
    bool ok = rag_sqlite_find(index, new->path, &old, &found, err) &&
              (!found || remove_document(index, old.id, removed_chunks, err)) &&
              insert_document(index, new, &id, err) && insert_chunks(index, new, id, err);
    return end(index, ok, err);
}

bool rag_sqlite_reuse(RagIndex *index, const char *header, const char *text, size_t length,
                      float *vector, bool *found, Error *err) {
    *found = false;
    sqlite3_stmt *s = rag_sqlite_prepare(index,
                                         "SELECT vector FROM chunks JOIN vectors ON chunk = id "
                                         "WHERE key = ?1 AND header = ?2 AND text = ?3 LIMIT 1",
                                         err);
    if (!s) return false;
    sqlite3_bind_int64(s, 1, rag_chunk_key(header, text, length));
    sqlite3_bind_text(s, 2, header, -1, SQLITE_STATIC);
    sqlite3_bind_text64(s, 3, text, length, SQLITE_STATIC, SQLITE_UTF8);
    int rc = sqlite3_step(s);
    size_t bytes = index->dim * sizeof *vector;
    if (rc == SQLITE_ROW && (size_t)sqlite3_column_bytes(s, 0) == bytes) {
        memcpy(vector, sqlite3_column_blob(s, 0), bytes);
        *found = true;
    }
    bool ok =
        rc == SQLITE_ROW || rc == SQLITE_DONE || rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(s);
    return ok;
}

bool rag_sqlite_list(RagIndex *index, const char *path, int64_t **ids, char ***paths, size_t *count,
                     Error *err) {
    *ids = NULL;
    *paths = NULL;
    *count = 0;
    /* '0' is the character after '/'. */
    sqlite3_stmt *s = rag_sqlite_prepare(
        index,
        "SELECT id, path FROM documents WHERE path = ?1"
        " OR (path >= rtrim(?1, '/') || '/' AND path < rtrim(?1, '/') || '0') ORDER BY path",
        err);
    if (!s) return false;
    sqlite3_bind_text(s, 1, path, -1, SQLITE_STATIC);
    size_t ids_capacity = 0, paths_capacity = 0;
    int rc = SQLITE_ROW;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        const char *found = (const char *)sqlite3_column_text(s, 1);
        *ids = base_grow(*ids, &ids_capacity, *count + 1, sizeof **ids);
        *paths = base_grow(*paths, &paths_capacity, *count + 1, sizeof **paths);
        (*ids)[*count] = sqlite3_column_int64(s, 0);
        (*paths)[(*count)++] = base_strdup(found ? found : "");
    }
    bool ok = rc == SQLITE_DONE || rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(s);
    return ok;
}

/* ---- all documents ------------------------------------------------------------ */

static char *column(sqlite3_stmt *statement, int i) {
    const char *text = (const char *)sqlite3_column_text(statement, i);
    return base_strdup(text ? text : "");
}

static void load_head(sqlite3_stmt *s, RagStored *out) {
    out->path = column(s, 1);
    out->root = column(s, 2);
    out->document.title = column(s, 3);
    const char *format = (const char *)sqlite3_column_text(s, 4);
    out->document.format = rag_format_name(rag_format_named(format ? format : ""));
    out->document.n_pages = sqlite3_column_int(s, 5);
    out->file.size = sqlite3_column_int64(s, 6);
    out->file.mtime_ns = sqlite3_column_int64(s, 7);
    if (sqlite3_column_bytes(s, 8) == (int)sizeof out->file.sha256)
        memcpy(out->file.sha256, sqlite3_column_blob(s, 8), sizeof out->file.sha256);
    out->file.settings = sqlite3_column_int64(s, 9);
    const char *warning = (const char *)sqlite3_column_text(s, 10);
    snprintf(out->document.warning, sizeof out->document.warning, "%s", warning ? warning : "");
    const char *text = (const char *)sqlite3_column_text(s, 11);
    base_str_append_n(&out->document.text, text ? text : "", (size_t)sqlite3_column_bytes(s, 11));
}

static bool load_chunks(RagIndex *index, sqlite3_stmt *s, int64_t document, RagStored *out,
                        Error *err) {
    size_t dim = index->dim;
    sqlite3_bind_int64(s, 1, document);
    int rc = SQLITE_ROW;
    bool ok = true;
    while (ok && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t start = sqlite3_column_int64(s, 0), end = sqlite3_column_int64(s, 1);
        ok = start >= 0 && start <= end && (uint64_t)end <= out->document.text.length &&
             (size_t)sqlite3_column_bytes(s, 5) == dim * sizeof(float);
        if (!ok) base_fail(err, ERROR_INPUT, "%s: the index is damaged (chunks)", index->path);
        if (!ok) break;
        RagChunks *chunks = &out->chunks;
        size_t n = chunks->count;
        chunks->items = base_grow(chunks->items, &chunks->capacity, n + 1, sizeof *chunks->items);
        chunks->items[chunks->count++] = (RagChunk){.start = (size_t)start,
                                                    .end = (size_t)end,
                                                    .page = sqlite3_column_int(s, 2),
                                                    .heading = column(s, 3),
                                                    .header = column(s, 4)};
        out->vectors =
            base_grow(out->vectors, &out->vectors_capacity, n + 1, dim * sizeof *out->vectors);
        memcpy(out->vectors + n * dim, sqlite3_column_blob(s, 5), dim * sizeof *out->vectors);
    }
    if (ok && rc != SQLITE_DONE) ok = rag_sqlite_fail(index, err, "reading the index");
    sqlite3_reset(s);
    return ok;
}

bool rag_sqlite_each(RagIndex *index, RagOnStored on_stored, void *context, Error *err) {
    sqlite3_stmt *heads = rag_sqlite_prepare(
        index,
        "SELECT id, path, root, title, format, pages, size, mtime_ns, sha256, settings, warning,"
        " text FROM documents ORDER BY id",
        err);
    sqlite3_stmt *chunks =
        heads ? rag_sqlite_prepare(index,
                                   "SELECT first_byte, end_byte, page, heading, header, vector"
                                   " FROM chunks JOIN vectors ON chunk = id WHERE document = ?1"
                                   " ORDER BY first_byte, id",
                                   err)
              : NULL;
    bool ok = chunks != NULL;
    int rc = SQLITE_DONE;
    while (ok && (rc = sqlite3_step(heads)) == SQLITE_ROW) {
        RagStored stored = {0};
        load_head(heads, &stored);
        ok = load_chunks(index, chunks, sqlite3_column_int64(heads, 0), &stored, err) &&
             on_stored(context, &stored, err);
        rag_stored_free(&stored);
    }
    if (ok && rc != SQLITE_DONE) ok = rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(heads);
    sqlite3_finalize(chunks);
    return ok;
}
