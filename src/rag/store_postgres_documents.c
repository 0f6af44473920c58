/* Documents on a PostgreSQL server: found, put, touched, removed, each in a
 * transaction of its own; chunks arrive by COPY. */
#include <string.h>

#include "rag/store_postgres_internal.h"

/* Words of the text stand this far behind those of the header, so that no phrase
 * spans the two. */
enum { HEADER_GAP = 2 };

static bool script(RagIndex *index, const char *sql, Error *err) {
    return rag_pg_run(index, sql, NULL, "writing the index", err);
}

/* One writer at a time; readers go on. */
static bool begin(RagIndex *index, Error *err) {
    if (!script(index, "BEGIN", err)) return false;
    if (script(index, "LOCK TABLE mlxrag_meta IN EXCLUSIVE MODE", err)) return true;
    PQclear(PQexec(index->postgres->connection, "ROLLBACK"));
    return false;
}

/* Commits, or rolls back when something failed before or fails now. */
static bool end(RagIndex *index, bool ok, Error *err) {
    if (ok) ok = script(index, "COMMIT", err);
    if (!ok) PQclear(PQexec(index->postgres->connection, "ROLLBACK"));
    return ok;
}

bool rag_postgres_find(RagIndex *index, const char *path, RagStoredFile *file, bool *found,
                       Error *err) {
    *file = (RagStoredFile){0};
    *found = false;
    RagPgArguments a = {0};
    rag_pg_add_bytes(&a, path, strlen(path));
    PGresult *r = rag_pg_query(index,
                               "SELECT id, size, mtime_ns, sha256, settings, n_chunks"
                               " FROM mlxrag_documents WHERE path = $1",
                               &a, "reading the index", err);
    if (!r) return false;
    if (PQntuples(r)) {
        *found = true;
        file->id = rag_pg_int(r, 0, 0);
        file->size = rag_pg_int(r, 0, 1);
        file->mtime_ns = rag_pg_int(r, 0, 2);
        if (PQgetlength(r, 0, 3) == (int)sizeof file->sha256)
            memcpy(file->sha256, PQgetvalue(r, 0, 3), sizeof file->sha256);
        file->settings = rag_pg_int(r, 0, 4);
        file->n_chunks = (size_t)rag_pg_int(r, 0, 5);
    }
    PQclear(r);
    return true;
}

bool rag_postgres_list(RagIndex *index, const char *path, int64_t **ids, char ***paths,
                       size_t *count, Error *err) {
    *ids = NULL;
    *paths = NULL;
    *count = 0;
    size_t length = strlen(path);
    while (length && path[length - 1] == '/') length--;
    /* '0' is the character after '/'. */
    char *first = base_format("%.*s/", (int)length, path),
         *after = base_format("%.*s0", (int)length, path);
    RagPgArguments a = {0};
    rag_pg_add_bytes(&a, path, strlen(path));
    rag_pg_add_bytes(&a, first, length + 1);
    rag_pg_add_bytes(&a, after, length + 1);
    PGresult *r = rag_pg_query(index,
                               "SELECT id, path FROM mlxrag_documents WHERE path = $1"
                               " OR (path >= $2 AND path < $3) ORDER BY path",
                               &a, "reading the index", err);
    free(first), free(after);
    if (!r) return false;
    *count = (size_t)PQntuples(r);
    *ids = base_calloc(*count + 1, sizeof **ids);
    *paths = base_calloc(*count + 1, sizeof **paths);
    for (size_t i = 0; i < *count; i++) {
        (*ids)[i] = rag_pg_int(r, (int)i, 0);
        (*paths)[i] = rag_pg_text(r, (int)i, 1);
    }
    PQclear(r);
    return true;
}

bool rag_postgres_touch(RagIndex *index, int64_t id, int64_t size, int64_t mtime_ns, Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_int(&a, id);
    rag_pg_add_int(&a, size);
    rag_pg_add_int(&a, mtime_ns);
    return rag_pg_run(index, "UPDATE mlxrag_documents SET size = $2, mtime_ns = $3 WHERE id = $1",
                      &a, "writing the index", err);
}

/* Inside a transaction. */
static bool remove_document(RagIndex *index, int64_t id, size_t *removed, Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_int(&a, id);
    PGresult *r = rag_pg_query(
        index,
        "WITH gone AS (DELETE FROM mlxrag_chunks WHERE document = $1 RETURNING id, n_words),"
        " freed AS (INSERT INTO mlxrag_free_chunks SELECT id FROM gone),"
        " less AS (UPDATE mlxrag_totals SET chunks = chunks - g.n, words = words - g.w"
        " FROM (SELECT count(*) AS n, coalesce(sum(n_words), 0)::bigint AS w FROM gone) g)"
        " SELECT count(*) FROM gone",
        &a, "writing the index", err);
    if (r && removed) *removed += (size_t)rag_pg_int(r, 0, 0);
    PQclear(r);
    return r && rag_pg_run(index, "DELETE FROM mlxrag_documents WHERE id = $1", &a,
                           "writing the index", err);
}

bool rag_postgres_remove(RagIndex *index, int64_t id, size_t *removed_chunks, Error *err) {
    return begin(index, err) && end(index, remove_document(index, id, removed_chunks, err), err);
}

static bool insert_document(RagIndex *index, const RagNewDocument *new, int64_t *id, Error *err) {
    const RagDocument *document = new->document;
    RagPgArguments a = {0};
    rag_pg_add_bytes(&a, new->path, strlen(new->path));
    rag_pg_add_bytes(&a, new->root, strlen(new->root));
    rag_pg_add_text(&a, document->title ? document->title : "");
    rag_pg_add_text(&a, document->format ? document->format : "");
    rag_pg_add_int(&a, document->n_pages);
    rag_pg_add_int(&a, new->file.size);
    rag_pg_add_int(&a, new->file.mtime_ns);
    rag_pg_add_bytes(&a, new->file.sha256, sizeof new->file.sha256);
    rag_pg_add_int(&a, new->file.settings);
    rag_pg_add_int(&a, (int64_t) new->chunks->count);
    rag_pg_add_text(&a, document->warning);
    rag_pg_add_bytes(&a, document->text.data, document->text.length);
    PGresult *r = rag_pg_query(
        index,
        "INSERT INTO mlxrag_documents SELECT coalesce(max(id), 0) + 1, $1::bytea, $2::bytea,"
        " $3::text, $4::text, $5::int, $6::bigint, $7::bigint, $8::bytea, $9::bigint,"
        " $10::bigint, $11::text, $12::text FROM mlxrag_documents RETURNING id",
        &a, "writing the index", err);
    if (r) *id = rag_pg_int(r, 0, 0);
    PQclear(r);
    return r != NULL;
}

/* Ids of removed chunks first; when there are none, every id up to the largest is in
 * use and the next ones are free. */
static bool take_ids(RagIndex *index, int64_t *ids, size_t count, Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_int(&a, (int64_t)count);
    PGresult *most = rag_pg_query(index,
                                  "SELECT coalesce(max(id), 0) FROM (SELECT max(id) AS id FROM"
                                  " mlxrag_chunks UNION SELECT max(id) FROM mlxrag_free_chunks) m",
                                  NULL, "writing the index", err);
    PGresult *freed =
        most ? rag_pg_query(index,
                            "WITH taken AS (DELETE FROM mlxrag_free_chunks WHERE id IN (SELECT id"
                            " FROM mlxrag_free_chunks ORDER BY id LIMIT $1) RETURNING id)"
                            " SELECT id FROM taken ORDER BY id",
                            &a, "writing the index", err)
             : NULL;
    if (freed) {
        int64_t next = rag_pg_int(most, 0, 0) + 1;
        size_t n = (size_t)PQntuples(freed);
        for (size_t i = 0; i < count; i++) ids[i] = i < n ? rag_pg_int(freed, (int)i, 0) : next++;
    }
    PQclear(most), PQclear(freed);
    return freed != NULL;
}

typedef struct Words {
    StrBuf words, places; /* elements in binary form */
    int count, first;     /* first: place that 0 of this text has */
} Words;

static void add_word(void *context, const char *word, size_t length, int place) {
    Words *words = context;
    rag_pg_put32(&words->words, (int64_t)length);
    base_str_append_n(&words->words, word, length);
    rag_pg_put32(&words->places, 4);
    rag_pg_put32(&words->places, words->first + place);
    words->count++;
}

enum { TEXT_TYPE = 25, INT4_TYPE = 23 };

static void put_array(StrBuf *out, const StrBuf *elements, int count, int type) {
    rag_pg_put32(out, 12 + (count ? 8 + (int64_t)elements->length : 0));
    rag_pg_put32(out, count ? 1 : 0);
    rag_pg_put32(out, 0);
    rag_pg_put32(out, type);
    if (!count) return;
    rag_pg_put32(out, count);
    rag_pg_put32(out, 1);
    base_str_append_n(out, elements->data, elements->length);
}

static void put_int(StrBuf *out, int64_t value, int bytes) {
    rag_pg_put32(out, bytes);
    if (bytes == 4)
        rag_pg_put32(out, value);
    else
        rag_pg_put64(out, value);
}

static void put_text(StrBuf *out, const char *text, size_t length) {
    rag_pg_put32(out, (int64_t)length);
    base_str_append_n(out, text, length);
}

/* One row of COPY's binary form. Returns its number of words. */
static int put_chunk(RagIndex *index, StrBuf *out, const RagNewDocument *new, size_t i, int64_t id,
                     int64_t document) {
    const RagChunk *chunk = &new->chunks->items[i];
    const char *text = new->document->text.data + chunk->start;
    const char *heading = chunk->heading ? chunk->heading : "";
    const char *header = chunk->header ? chunk->header : "";
    size_t length = chunk->end - chunk->start;
    RagStemmer *stemmer = index->postgres->stemmer;
    Words words = {0};
    int n = rag_stemmer_run(stemmer, header, strlen(header), false, add_word, &words);
    words.first = n + HEADER_GAP;
    n += rag_stemmer_run(stemmer, text, length, false, add_word, &words);
    rag_pg_put16(out, 13);
    put_int(out, id, 8);
    put_int(out, document, 8);
    put_int(out, (int64_t)chunk->start, 8);
    put_int(out, (int64_t)chunk->end, 8);
    put_int(out, chunk->page, 4);
    put_int(out, rag_chunk_key(header, text, length), 8);
    put_int(out, n, 4);
    put_array(out, &words.words, words.count, TEXT_TYPE);
    put_array(out, &words.places, words.count, INT4_TYPE);
    put_text(out, heading, strlen(heading));
    put_text(out, header, strlen(header));
    put_text(out, text, length);
    rag_pg_put32(out, 4 + 4 * (int64_t)index->dim);
    rag_pg_put_vector(out, new->vectors + i * index->dim, index->dim);
    base_str_free(&words.words), base_str_free(&words.places);
    return n;
}

static bool end_copy(RagIndex *index, bool ok, Error *err) {
    PGconn *connection = index->postgres->connection;
    PQputCopyEnd(connection, ok ? NULL : "stopped");
    for (PGresult *r; (r = PQgetResult(connection)) != NULL; PQclear(r))
        if (ok && PQresultStatus(r) != PGRES_COMMAND_OK)
            ok = rag_postgres_fail(index, r, err, "writing the index");
    return ok;
}

static bool copy_chunks(RagIndex *index, const RagNewDocument *new, const int64_t *ids,
                        int64_t document, int64_t *n_words, Error *err) {
    PGconn *connection = index->postgres->connection;
    if (!rag_pg_run(index,
                    "COPY mlxrag_chunks(id, document, first_byte, end_byte, page, key, n_words,"
                    " words, places, heading, header, text, vector) FROM STDIN (FORMAT binary)",
                    NULL, "writing the index", err))
        return false;
    static const char signature[11] = "PGCOPY\n\377\r\n\0";
    StrBuf out = {0};
    base_str_append_n(&out, signature, sizeof signature);
    rag_pg_put32(&out, 0);
    rag_pg_put32(&out, 0);
    bool ok = true;
    for (size_t i = 0; ok && i <= new->chunks->count; i++) {
        if (i < new->chunks->count)
            *n_words += put_chunk(index, &out, new, i, ids[i], document);
        else
            rag_pg_put16(&out, -1);
        if (out.length < (size_t)1 << 20 && i < new->chunks->count) continue;
        ok = PQputCopyData(connection, out.data, (int)out.length) == 1 ||
             rag_postgres_fail(index, NULL, err, "writing the index");
        out.length = 0;
    }
    base_str_free(&out);
    return end_copy(index, ok, err);
}

static bool insert_chunks(RagIndex *index, const RagNewDocument *new, int64_t document,
                          Error *err) {
    size_t count = new->chunks->count;
    int64_t n_words = 0;
    int64_t *ids = base_calloc(count + 1, sizeof *ids);
    bool ok = rag_postgres_stemmer(index, err) && take_ids(index, ids, count, err) &&
              copy_chunks(index, new, ids, document, &n_words, err);
    free(ids);
    RagPgArguments a = {0};
    rag_pg_add_int(&a, (int64_t)count);
    rag_pg_add_int(&a, n_words);
    return ok &&
           rag_pg_run(index, "UPDATE mlxrag_totals SET chunks = chunks + $1, words = words + $2",
                      &a, "writing the index", err);
}

bool rag_postgres_put(RagIndex *index, const RagNewDocument *new, size_t *removed_chunks,
                      Error *err) {
    if (!begin(index, err)) return false;
    RagStoredFile old;
    bool found = false;
    int64_t id = 0;
    bool ok = rag_postgres_find(index, new->path, &old, &found, err) &&
              (!found || remove_document(index, old.id, removed_chunks, err)) &&
              insert_document(index, new, &id, err) && insert_chunks(index, new, id, err);
    return end(index, ok, err);
}

bool rag_postgres_reuse(RagIndex *index, const char *header, const char *text, size_t length,
                        float *vector, bool *found, Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_int(&a, rag_chunk_key(header, text, length));
    rag_pg_add_text(&a, header);
    rag_pg_add_bytes(&a, text, length);
    PGresult *r = rag_pg_query(index,
                               "SELECT vector FROM mlxrag_chunks WHERE key = $1 AND header = $2"
                               " AND text = $3::text ORDER BY id LIMIT 1",
                               &a, "reading the index", err);
    *found = r && PQntuples(r) && rag_pg_vector(r, 0, 0, vector, index->dim);
    PQclear(r);
    return r != NULL;
}

/* ---- all documents ---------------------------------------------------------------- */

static void load_head(const PGresult *r, RagStored *out) {
    char *format = rag_pg_text(r, 0, 3), *warning = rag_pg_text(r, 0, 9);
    out->path = rag_pg_text(r, 0, 0);
    out->root = rag_pg_text(r, 0, 1);
    out->document.title = rag_pg_text(r, 0, 2);
    out->document.format = rag_format_name(rag_format_named(format));
    out->document.n_pages = (int)rag_pg_int(r, 0, 4);
    out->file.size = rag_pg_int(r, 0, 5);
    out->file.mtime_ns = rag_pg_int(r, 0, 6);
    if (PQgetlength(r, 0, 7) == (int)sizeof out->file.sha256)
        memcpy(out->file.sha256, PQgetvalue(r, 0, 7), sizeof out->file.sha256);
    out->file.settings = rag_pg_int(r, 0, 8);
    snprintf(out->document.warning, sizeof out->document.warning, "%s", warning);
    base_str_append_n(&out->document.text, PQgetvalue(r, 0, 10), (size_t)PQgetlength(r, 0, 10));
    free(format), free(warning);
}

static bool load_chunks(RagIndex *index, const PGresult *r, RagStored *out, Error *err) {
    size_t n = (size_t)PQntuples(r), dim = index->dim;
    RagChunks *chunks = &out->chunks;
    chunks->items = base_grow(NULL, &chunks->capacity, n + 1, sizeof *chunks->items);
    out->vectors = base_alloc((n + 1) * dim * sizeof *out->vectors);
    for (size_t i = 0; i < n; i++) {
        int row = (int)i;
        int64_t start = rag_pg_int(r, row, 0), end = rag_pg_int(r, row, 1);
        if (start < 0 || start > end || (uint64_t)end > out->document.text.length ||
            !rag_pg_vector(r, row, 5, out->vectors + i * dim, dim))
            return base_fail(err, ERROR_INPUT, "%s: the index is damaged (chunks)", index->path);
        chunks->items[chunks->count++] = (RagChunk){.start = (size_t)start,
                                                    .end = (size_t)end,
                                                    .page = (int)rag_pg_int(r, row, 2),
                                                    .heading = rag_pg_text(r, row, 3),
                                                    .header = rag_pg_text(r, row, 4)};
    }
    return true;
}

static bool load_document(RagIndex *index, int64_t id, RagStored *out, bool *found, Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_int(&a, id);
    PGresult *head = rag_pg_query(index,
                                  "SELECT path, root, title, format, pages, size, mtime_ns, sha256,"
                                  " settings, warning, text FROM mlxrag_documents WHERE id = $1",
                                  &a, "reading the index", err);
    PGresult *chunks =
        head ? rag_pg_query(index,
                            "SELECT first_byte, end_byte, page, heading, header, vector"
                            " FROM mlxrag_chunks WHERE document = $1 ORDER BY first_byte, id",
                            &a, "reading the index", err)
             : NULL;
    *found = chunks && PQntuples(head);
    if (*found) load_head(head, out);
    bool ok = chunks && (!*found || load_chunks(index, chunks, out, err));
    PQclear(head), PQclear(chunks);
    return ok;
}

bool rag_postgres_each(RagIndex *index, RagOnStored on_stored, void *context, Error *err) {
    PGresult *ids = rag_pg_query(index, "SELECT id FROM mlxrag_documents ORDER BY id", NULL,
                                 "reading the index", err);
    bool ok = ids != NULL;
    for (int i = 0; ok && i < PQntuples(ids); i++) {
        RagStored stored = {0};
        bool found = false;
        ok = load_document(index, rag_pg_int(ids, i, 0), &stored, &found, err) &&
             (!found || on_stored(context, &stored, err));
        rag_stored_free(&stored);
    }
    PQclear(ids);
    return ok;
}

/* ---- check -------------------------------------------------------------------------- */

bool rag_postgres_check(RagIndex *index, Error *err) {
    static const struct {
        const char *what, *sql; /* sql gives the number of violations */
    } rules[] = {
        {"documents with another number of chunks",
         "SELECT count(*) FROM mlxrag_documents d WHERE n_chunks <>"
         " (SELECT count(*) FROM mlxrag_chunks WHERE document = d.id)"},
        {"ids both free and used",
         "SELECT count(*) FROM mlxrag_chunks JOIN mlxrag_free_chunks USING (id)"},
        {"ids neither free nor used",
         "SELECT coalesce(max(id), 0) - count(*) FROM (SELECT id FROM mlxrag_chunks UNION"
         " SELECT id FROM mlxrag_free_chunks) ids"},
        {"totals that are wrong",
         "SELECT count(*) FROM mlxrag_totals t WHERE t.chunks <> (SELECT count(*) FROM"
         " mlxrag_chunks) OR t.words <> (SELECT coalesce(sum(n_words), 0) FROM mlxrag_chunks)"},
        {"chunks whose words have no place",
         "SELECT count(*) FROM mlxrag_chunks WHERE cardinality(words) <> cardinality(places)"
         " OR n_words > cardinality(words)"},
        {"chunks that are not a slice of their document",
         "SELECT count(*) FROM mlxrag_chunks c JOIN mlxrag_documents d ON d.id = c.document WHERE"
         " convert_to(c.text, 'UTF8') IS DISTINCT FROM substring(convert_to(d.text, 'UTF8')"
         " FROM first_byte::int + 1 FOR (end_byte - first_byte)::int)"},
    };
    for (size_t i = 0; i < BASE_COUNT(rules); i++) {
        PGresult *r = rag_pg_query(index, rules[i].sql, NULL, "checking the index", err);
        if (!r) return false;
        int64_t wrong = rag_pg_int(r, 0, 0);
        PQclear(r);
        if (wrong)
            return base_fail(err, ERROR_INPUT, "%s: %lld %s", index->path, (long long)wrong,
                             rules[i].what);
    }
    return true;
}
