/* Opening an index on a PostgreSQL server, and its statements; see store_postgres.h. */
#include <string.h>

#include "rag/store_postgres_internal.h"

static const char schema[] =
    "CREATE TABLE mlxrag_meta(key text PRIMARY KEY, value text NOT NULL);"
    "CREATE TABLE mlxrag_documents("
    " id bigint PRIMARY KEY,"
    " path bytea NOT NULL UNIQUE," /* names of files are bytes */
    " root bytea NOT NULL,"
    " title text NOT NULL,"
    " format text NOT NULL,"
    " pages int NOT NULL,"
    " size bigint NOT NULL,"
    " mtime_ns bigint NOT NULL,"
    " sha256 bytea NOT NULL,"
    " settings bigint NOT NULL,"
    " n_chunks bigint NOT NULL,"
    " warning text NOT NULL,"
    " text text NOT NULL);"
    "CREATE TABLE mlxrag_chunks("
    " id bigint PRIMARY KEY,"
    " document bigint NOT NULL REFERENCES mlxrag_documents(id),"
    " first_byte bigint NOT NULL,"
    " end_byte bigint NOT NULL,"
    " page int NOT NULL,"
    " key bigint NOT NULL,"   /* hash of what was embedded */
    " n_words int NOT NULL,"  /* places of header and text */
    " words text[] NOT NULL," /* header, then text */
    " places int[] NOT NULL," /* of each word; a gap after the header */
    " heading text NOT NULL,"
    " header text NOT NULL,"
    " text text NOT NULL,"
    " vector vector(%zu) NOT NULL);"
    "CREATE INDEX ON mlxrag_chunks(document);"
    "CREATE INDEX ON mlxrag_chunks(key);"
    "CREATE INDEX ON mlxrag_chunks USING gin(words);"
    "CREATE TABLE mlxrag_free_chunks(id bigint PRIMARY KEY);"
    "CREATE TABLE mlxrag_totals(chunks bigint NOT NULL, words bigint NOT NULL);"
    "INSERT INTO mlxrag_totals VALUES (0, 0);";

static const char drop[] = "DROP TABLE IF EXISTS mlxrag_meta, mlxrag_chunks, mlxrag_documents, "
                           "mlxrag_free_chunks, mlxrag_totals";

/* ---- statements ----------------------------------------------------------------- */

bool rag_postgres_fail(RagIndex *index, const PGresult *result, Error *err, const char *doing) {
    const PGconn *connection = index->postgres->connection;
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *said = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    if (!said) said = PQerrorMessage(connection);
    if (state && strcmp(state, "55P03") == 0) {
        base_fail(err, ERROR_IO, "%s: another process is writing this index", index->path);
        return base_hint(err, "try again when it is done");
    }
    base_fail(err, ERROR_IO, "%s: %s: %.*s", index->path, doing, (int)strcspn(said, "\n"), said);
    /* Tables or columns that are not there. */
    if (state && strncmp(state, "42", 2) == 0 && strcmp(state, "42501") != 0)
        return base_hint(err, "the tables mlxrag_* are not as this program makes them");
    return false;
}

static void add(RagPgArguments *arguments, const void *bytes, size_t length, int format) {
    int i = arguments->count++;
    arguments->values[i] = bytes;
    arguments->lengths[i] = (int)length;
    arguments->formats[i] = format;
}

void rag_pg_add_text(RagPgArguments *arguments, const char *text) {
    add(arguments, text, strlen(text), 0);
}

void rag_pg_add_bytes(RagPgArguments *arguments, const void *bytes, size_t length) {
    add(arguments, length ? bytes : "", length, 1);
}

void rag_pg_add_int(RagPgArguments *arguments, int64_t number) {
    char *text = arguments->numbers[arguments->count];
    snprintf(text, sizeof arguments->numbers[0], "%lld", (long long)number);
    rag_pg_add_text(arguments, text);
}

PGresult *rag_pg_query(RagIndex *index, const char *sql, const RagPgArguments *arguments,
                       const char *doing, Error *err) {
    static const RagPgArguments none;
    const RagPgArguments *a = arguments ? arguments : &none;
    PGresult *result = PQexecParams(index->postgres->connection, sql, a->count, NULL, a->values,
                                    a->lengths, a->formats, 1);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_COPY_IN)
        return result;
    rag_postgres_fail(index, result, err, doing);
    PQclear(result);
    return NULL;
}

bool rag_pg_run(RagIndex *index, const char *sql, const RagPgArguments *arguments,
                const char *doing, Error *err) {
    PGresult *result = rag_pg_query(index, sql, arguments, doing, err);
    PQclear(result);
    return result != NULL;
}

static uint64_t big_endian(const char *bytes, int length) {
    uint64_t value = 0;
    for (int i = 0; i < length; i++) value = value << 8 | (unsigned char)bytes[i];
    return value;
}

int64_t rag_pg_int(const PGresult *result, int row, int column) {
    int length = PQgetlength(result, row, column);
    uint64_t value = big_endian(PQgetvalue(result, row, column), BASE_MIN(length, 8));
    return length == 4 ? (int32_t)(uint32_t)value : (int64_t)value;
}

char *rag_pg_text(const PGresult *result, int row, int column) {
    return base_strndup(PQgetvalue(result, row, column), (size_t)PQgetlength(result, row, column));
}

bool rag_pg_vector(const PGresult *result, int row, int column, float *vector, size_t dim) {
    const char *bytes = PQgetvalue(result, row, column);
    if ((size_t)PQgetlength(result, row, column) != 4 + 4 * dim || big_endian(bytes, 2) != dim)
        return false;
    for (size_t i = 0; i < dim; i++) {
        uint32_t bits = (uint32_t)big_endian(bytes + 4 + 4 * i, 4);
        memcpy(vector + i, &bits, sizeof bits);
    }
    return true;
}

static void put(StrBuf *out, uint64_t value, int bytes) {
    char text[8];
    for (int i = 0; i < bytes; i++) text[i] = (char)(value >> (8 * (bytes - 1 - i)));
    base_str_append_n(out, text, (size_t)bytes);
}

void rag_pg_put16(StrBuf *out, int value) {
    put(out, (uint64_t)value, 2);
}

void rag_pg_put32(StrBuf *out, int64_t value) {
    put(out, (uint64_t)value, 4);
}

void rag_pg_put64(StrBuf *out, int64_t value) {
    put(out, (uint64_t)value, 8);
}

void rag_pg_put_vector(StrBuf *out, const float *vector, size_t dim) {
    rag_pg_put16(out, (int)dim);
    rag_pg_put16(out, 0);
    for (size_t i = 0; i < dim; i++) {
        uint32_t bits;
        memcpy(&bits, vector + i, sizeof bits);
        rag_pg_put32(out, bits);
    }
}

enum { INT8_TYPE = 20 }; /* pg_type's, fixed for ever */

void rag_pg_put_ids(StrBuf *out, const int64_t *ids, size_t count) {
    rag_pg_put32(out, count ? 1 : 0);
    rag_pg_put32(out, 0);
    rag_pg_put32(out, INT8_TYPE);
    if (!count) return;
    rag_pg_put32(out, (int64_t)count);
    rag_pg_put32(out, 1);
    for (size_t i = 0; i < count; i++) {
        rag_pg_put32(out, 8);
        rag_pg_put64(out, ids[i]);
    }
}

/* ---- opening ---------------------------------------------------------------------- */

/* For messages: without password and options. Caller frees. */
static char *public_url(const PGconn *connection) {
    const char *host = PQhost(connection), *user = PQuser(connection), *db = PQdb(connection);
    bool socket = host && host[0] == '/';
    return base_format("postgresql://%s@%s:%s/%s", user ? user : "", socket || !host ? "" : host,
                       PQport(connection) ? PQport(connection) : "", db ? db : "");
}

static void ignore(void *context, const char *message) {
    (void)context, (void)message;
}

static RagIndex *connect_to(const char *url, RagOpenMode mode, const RagStorage *storage,
                            Error *err) {
    PGconn *connection = PQconnectdb(url);
    RagIndex *index = base_calloc(1, sizeof *index);
    index->storage = storage;
    index->mode = mode;
    index->postgres = base_calloc(1, sizeof *index->postgres);
    index->postgres->connection = connection;
    index->postgres->url = base_strdup(url);
    index->path = public_url(connection);
    if (PQstatus(connection) == CONNECTION_OK) {
        PQsetNoticeProcessor(connection, ignore, NULL);
        if (rag_pg_run(index,
                       mode == RAG_READ ? "SET client_encoding = 'UTF8'"
                                        : "SELECT set_config('client_encoding', 'UTF8', false),"
                                          " set_config('lock_timeout', '10s', false)",
                       NULL, "connecting", err))
            return index;
    } else {
        const char *said = PQerrorMessage(connection);
        base_fail(err, ERROR_IO, "%s: %.*s", index->path, (int)strcspn(said, "\n"), said);
        base_hint(err, "is the server running, and the URL right?");
    }
    rag_index_close(index);
    return NULL;
}

static void close_index(RagIndex *index) {
    rag_stemmer_close(index->postgres->stemmer);
    PQfinish(index->postgres->connection);
    free(index->postgres->url);
    free(index->postgres);
}

static void discard_index(RagIndex *index) {
    if (index->created) PQclear(PQexec(index->postgres->connection, drop));
    close_index(index);
}

RagStemmer *rag_postgres_stemmer(RagIndex *index, Error *err) {
    if (!index->postgres->stemmer) index->postgres->stemmer = rag_stemmer_open(err);
    return index->postgres->stemmer;
}

static bool number_of(RagIndex *index, const char *sql, int64_t *number, Error *err) {
    PGresult *result = rag_pg_query(index, sql, NULL, "reading the index", err);
    if (result) *number = rag_pg_int(result, 0, 0);
    PQclear(result);
    return result != NULL;
}

static bool meta_set(RagIndex *index, const char *key, const char *value, Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_text(&a, key);
    rag_pg_add_text(&a, value);
    return rag_pg_run(index, "INSERT INTO mlxrag_meta VALUES ($1, $2)", &a, "writing the index",
                      err);
}

/* "" when the key is not there; caller frees; NULL on failure. */
static char *meta_get(RagIndex *index, const char *key, Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_text(&a, key);
    PGresult *result = rag_pg_query(index, "SELECT value FROM mlxrag_meta WHERE key = $1", &a,
                                    "reading the index", err);
    char *value = NULL;
    if (result) value = PQntuples(result) ? rag_pg_text(result, 0, 0) : base_strdup("");
    PQclear(result);
    return value;
}

/* Several statements without arguments. */
static bool run_script(RagIndex *index, const char *sql, const char *doing, Error *err) {
    PGresult *result = PQexec(index->postgres->connection, sql);
    bool ok = PQresultStatus(result) == PGRES_COMMAND_OK;
    if (!ok) rag_postgres_fail(index, result, err, doing);
    PQclear(result);
    return ok;
}

static bool create_tables(RagIndex *index, const RagEmbedder *embedder, Error *err) {
    char dim[32], version[32];
    snprintf(dim, sizeof dim, "%zu", embedder->dim);
    snprintf(version, sizeof version, "%d", RAG_SCHEMA_VERSION);
    char *tables = base_format(schema, embedder->dim);
    bool ok = run_script(index, "BEGIN", "making the index", err) &&
              run_script(index, tables, "making the index", err) &&
              meta_set(index, "schema", version, err) &&
              meta_set(index, "embedder_name", embedder->name, err) &&
              meta_set(index, "embedder_hash", embedder->hash, err) &&
              meta_set(index, "pooling", embedder->pooling, err) &&
              meta_set(index, "dim", dim, err) &&
              run_script(index, "COMMIT", "making the index", err);
    if (!ok) PQclear(PQexec(index->postgres->connection, "ROLLBACK"));
    index->created = ok;
    free(tables);
    return ok;
}

static bool check_extension(RagIndex *index, Error *err) {
    int64_t there = 0;
    static const char question[] = "SELECT count(*) FROM pg_extension WHERE extname = 'vector'";
    if (!number_of(index, question, &there, err)) return false;
    if (there) return true;
    if (index->mode == RAG_CREATE) {
        PQclear(PQexec(index->postgres->connection, "CREATE EXTENSION IF NOT EXISTS vector"));
        if (!number_of(index, question, &there, err)) return false;
        if (there) return true;
    }
    base_fail(err, ERROR_UNSUPPORTED, "%s: the database has not the extension pgvector",
              index->path);
    return base_hint(err, "install pgvector there, and as its owner: CREATE EXTENSION vector");
}

static bool check_embedder(RagIndex *index, const RagEmbedder *embedder, Error *err) {
    char *name = meta_get(index, "embedder_name", err),
         *hash = meta_get(index, "embedder_hash", err), *dim = meta_get(index, "dim", err),
         *pooling = meta_get(index, "pooling", err), *version = meta_get(index, "schema", err);
    bool ok = name && hash && pooling && dim && version;
    if (ok && atoi(version) != RAG_SCHEMA_VERSION) {
        ok = base_fail(err, ERROR_UNSUPPORTED, "%s: index version %.20s, this program knows %d",
                       index->path, version, RAG_SCHEMA_VERSION);
        base_hint(err, "ingest the documents again into a new index");
    }
    ok = ok && rag_index_check_embedder(index, embedder, name, hash, pooling, dim, err);
    free(name), free(hash), free(pooling), free(dim), free(version);
    return ok;
}

static bool check_tables(RagIndex *index, const RagEmbedder *embedder, Error *err) {
    int64_t there = 0;
    if (!check_extension(index, err) ||
        !number_of(index, "SELECT (to_regclass('mlxrag_meta') IS NOT NULL)::int", &there, err))
        return false;
    if (!there && index->mode != RAG_CREATE) {
        base_fail(err, ERROR_INPUT, "%s: holds no index", index->path);
        return base_hint(err, "run mlx-rag ingest first");
    }
    return (there || create_tables(index, embedder, err)) && check_embedder(index, embedder, err);
}

static bool read_info(RagIndex *index, RagIndexInfo *info, Error *err) {
    *info = (RagIndexInfo){.dim = index->dim};
    PGresult *result = rag_pg_query(
        index,
        "SELECT (SELECT count(*) FROM mlxrag_documents), (SELECT chunks FROM mlxrag_totals),"
        " pg_total_relation_size('mlxrag_documents') + pg_total_relation_size('mlxrag_chunks')",
        NULL, "reading the index", err);
    if (!result) return false;
    info->n_documents = (size_t)rag_pg_int(result, 0, 0);
    info->n_chunks = (size_t)rag_pg_int(result, 0, 1);
    info->file_bytes = (uint64_t)rag_pg_int(result, 0, 2);
    PQclear(result);
    const struct {
        const char *key;
        char *out;
        size_t size;
    } texts[] = {{"embedder_name", info->embedder_name, sizeof info->embedder_name},
                 {"embedder_hash", info->embedder_hash, sizeof info->embedder_hash},
                 {"pooling", info->pooling, sizeof info->pooling}};
    for (size_t i = 0; i < BASE_COUNT(texts); i++) {
        char *value = meta_get(index, texts[i].key, err);
        if (!value) return false;
        snprintf(texts[i].out, texts[i].size, "%s", value);
        free(value);
    }
    return true;
}

static bool begin(RagIndex *index, Error *err) {
    return run_script(index, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "reading the index",
                      err);
}

static void end(RagIndex *index) {
    PQclear(PQexec(index->postgres->connection, "COMMIT"));
}

static const RagStorage storage_table = {
    .close = close_index,
    .discard = discard_index,
    .info = read_info,
    .check = rag_postgres_check,
    .find = rag_postgres_find,
    .list = rag_postgres_list,
    .put = rag_postgres_put,
    .touch = rag_postgres_touch,
    .remove = rag_postgres_remove,
    .reuse = rag_postgres_reuse,
    .each = rag_postgres_each,
    .begin = begin,
    .end = end,
    .mark = rag_postgres_mark,
    .count_rows = rag_postgres_count_rows,
    .match = rag_postgres_match,
    .dense_begin = rag_postgres_dense_begin,
    .dense_help = rag_postgres_dense_help,
    .dense_end = rag_postgres_dense_end,
    .vectors = rag_postgres_vectors,
    .hit = rag_postgres_hit,
    .places = rag_postgres_places,
    .text = rag_postgres_text,
};

RagIndex *rag_postgres_open(const char *url, RagOpenMode mode, const RagEmbedder *embedder,
                            Error *err) {
    RagIndex *index = connect_to(url, mode, &storage_table, err);
    if (!index || check_tables(index, embedder, err)) return index;
    rag_index_discard(index);
    return NULL;
}

RagIndex *rag_postgres_twin(const RagIndex *index, Error *err) {
    RagIndex *twin = connect_to(index->postgres->url, RAG_READ, &storage_table, err);
    if (twin) twin->dim = index->dim;
    return twin;
}
