/* Opening an index file: whose file it is, which schema, which embedder; and the
 * words for what SQLite says when something is wrong. */
#include "rag/store_sqlite.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rag/words.h"

static const char schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE documents("
    " id INTEGER PRIMARY KEY,"
    " path TEXT NOT NULL UNIQUE,"
    " root TEXT NOT NULL,"
    " title TEXT NOT NULL,"
    " format TEXT NOT NULL,"
    " pages INTEGER NOT NULL,"
    " size INTEGER NOT NULL,"
    " mtime_ns INTEGER NOT NULL,"
    " sha256 BLOB NOT NULL,"
    " settings INTEGER NOT NULL,"
    " n_chunks INTEGER NOT NULL,"
    " warning TEXT NOT NULL,"
    " text TEXT NOT NULL);"
    "CREATE INDEX documents_root ON documents(root);"
    "CREATE TABLE chunks("
    " id INTEGER PRIMARY KEY,"
    " document INTEGER NOT NULL REFERENCES documents(id),"
    " first_byte INTEGER NOT NULL,"
    " end_byte INTEGER NOT NULL,"
    " page INTEGER NOT NULL,"
    " key INTEGER NOT NULL," /* hash of what was embedded */
    " heading TEXT NOT NULL,"
    " header TEXT NOT NULL,"
    " text TEXT NOT NULL);"
    "CREATE INDEX chunks_document ON chunks(document);"
    "CREATE INDEX chunks_key ON chunks(key);"
    "CREATE TABLE free_chunks(id INTEGER PRIMARY KEY);"
    "CREATE TABLE vectors(chunk INTEGER PRIMARY KEY, vector BLOB NOT NULL);"
    "CREATE TABLE segments(id INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE VIRTUAL TABLE words USING fts5("
    " header, text, content='chunks', content_rowid='id', tokenize='porter mlxrag');"
    "CREATE TRIGGER chunks_added AFTER INSERT ON chunks BEGIN"
    " INSERT INTO words(rowid, header, text) VALUES (new.id, new.header, new.text); END;"
    "CREATE TRIGGER chunks_removed AFTER DELETE ON chunks BEGIN"
    " INSERT INTO words(words, rowid, header, text) VALUES ('delete', old.id, old.header, "
    "old.text); END;"
    "CREATE TRIGGER chunks_changed AFTER UPDATE OF header, text ON chunks BEGIN"
    " INSERT INTO words(words, rowid, header, text) VALUES ('delete', old.id, old.header, "
    "old.text);"
    " INSERT INTO words(rowid, header, text) VALUES (new.id, new.header, new.text); END;";

/* ---- what SQLite says ----------------------------------------------------- */

typedef struct Saying {
    int code;
    ErrorCode error;
    const char *text, *hint;
} Saying;

static const Saying sayings[] = {
    {SQLITE_NOTADB, ERROR_INPUT, "not an index of mlx-rag",
     "give another --index, this file was left alone"},
    {SQLITE_CORRUPT, ERROR_INPUT, "the index is damaged",
     "ingest the documents again into a new index"},
    {SQLITE_FULL, ERROR_IO, "the disk is full", "the index is as it was before this document"},
    {SQLITE_READONLY, ERROR_IO, "the index or its folder cannot be written",
     "check the permissions"},
    {SQLITE_PERM, ERROR_IO, "the index cannot be opened: permission denied",
     "check the permissions"},
    {SQLITE_BUSY, ERROR_IO, "another process is writing this index", "try again when it is done"},
    {SQLITE_LOCKED, ERROR_IO, "another process is writing this index", "try again when it is done"},
    {SQLITE_TOOBIG, ERROR_INPUT, "a document is larger than an index can hold", ""},
    {SQLITE_NOMEM, ERROR_MEMORY, "not enough memory", ""},
};

bool rag_sqlite_fail(RagIndex *index, Error *err, const char *doing) {
    int code = index->sqlite->db ? sqlite3_errcode(index->sqlite->db) & 0xFF : SQLITE_NOMEM;
    int system = index->sqlite->db ? sqlite3_system_errno(index->sqlite->db) : 0;
    if (code == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT)) code = SQLITE_FULL;
    for (size_t i = 0; i < BASE_COUNT(sayings); i++) {
        if (sayings[i].code != code) continue;
        base_fail(err, sayings[i].error, "%s: %s", index->path, sayings[i].text);
        if (sayings[i].hint[0]) base_hint(err, "%s", sayings[i].hint);
        return false;
    }
    const char *detail = index->sqlite->db ? sqlite3_errmsg(index->sqlite->db) : "no memory";
    if (code == SQLITE_CANTOPEN || code == SQLITE_IOERR)
        return base_fail(err, ERROR_IO, "%s: %s: %s", index->path, doing,
                         system ? strerror(system) : detail);
    /* Tables or columns that are not there: the file says it is ours and is not. */
    if (code == SQLITE_ERROR) {
        base_fail(err, ERROR_INPUT, "%s: the index is damaged (%s: %s)", index->path, doing,
                  detail);
        return base_hint(err, "ingest the documents again into a new index");
    }
    return base_fail(err, ERROR_INTERNAL, "%s: %s: %s", index->path, doing, detail);
}

sqlite3_stmt *rag_sqlite_prepare(RagIndex *index, const char *sql, Error *err) {
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(index->sqlite->db, sql, -1, &statement, NULL) != SQLITE_OK) {
        rag_sqlite_fail(index, err, "reading the index");
        return NULL;
    }
    return statement;
}

bool rag_sqlite_run(RagIndex *index, const char *sql, Error *err) {
    return sqlite3_exec(index->sqlite->db, sql, NULL, NULL, NULL) == SQLITE_OK ||
           rag_sqlite_fail(index, err, "writing the index");
}

bool rag_sqlite_finish(RagIndex *index, sqlite3_stmt *statement, const char *doing, Error *err) {
    if (!statement) return false;
    int rc = sqlite3_step(statement);
    bool ok = rc == SQLITE_DONE || rc == SQLITE_ROW || rag_sqlite_fail(index, err, doing);
    sqlite3_finalize(statement);
    return ok;
}

/* ---- meta ----------------------------------------------------------------- */

static bool meta_set(RagIndex *index, const char *key, const char *value, Error *err) {
    sqlite3_stmt *statement =
        rag_sqlite_prepare(index, "INSERT OR REPLACE INTO meta VALUES (?1, ?2)", err);
    if (!statement) return false;
    sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, value, -1, SQLITE_STATIC);
    return rag_sqlite_finish(index, statement, "writing the index", err);
}

/* The value of a key, "" when it is not there; caller frees; NULL on failure. */
static char *meta_get(RagIndex *index, const char *key, Error *err) {
    sqlite3_stmt *statement =
        rag_sqlite_prepare(index, "SELECT value FROM meta WHERE key = ?1", err);
    if (!statement) return NULL;
    sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC);
    int rc = sqlite3_step(statement);
    char *value = NULL;
    if (rc == SQLITE_ROW)
        value = base_strdup(sqlite3_column_text(statement, 0)
                                ? (const char *)sqlite3_column_text(statement, 0)
                                : "");
    else if (rc == SQLITE_DONE)
        value = base_strdup("");
    else
        rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(statement);
    return value;
}

static bool pragma_number(RagIndex *index, const char *sql, int64_t *value, Error *err) {
    sqlite3_stmt *statement = rag_sqlite_prepare(index, sql, err);
    if (!statement) return false;
    bool ok = sqlite3_step(statement) == SQLITE_ROW;
    if (ok)
        *value = sqlite3_column_int64(statement, 0);
    else
        rag_sqlite_fail(index, err, "reading the index");
    sqlite3_finalize(statement);
    return ok;
}

/* ---- opening ---------------------------------------------------------------- */

static bool create_schema(RagIndex *index, const RagEmbedder *embedder, Error *err) {
    char dim[32], stamps[128];
    snprintf(dim, sizeof dim, "%zu", embedder->dim);
    snprintf(stamps, sizeof stamps, "PRAGMA application_id=%d; PRAGMA user_version=%d;",
             RAG_APPLICATION_ID, RAG_SCHEMA_VERSION);
    bool ok = rag_sqlite_run(index, "BEGIN IMMEDIATE", err);
    if (!ok) return false;
    ok = rag_sqlite_run(index, schema, err) && rag_sqlite_run(index, stamps, err) &&
         meta_set(index, "embedder_name", embedder->name, err) &&
         meta_set(index, "embedder_hash", embedder->hash, err) &&
         meta_set(index, "pooling", embedder->pooling, err) && meta_set(index, "dim", dim, err) &&
         rag_sqlite_run(index, "COMMIT", err);
    if (!ok) sqlite3_exec(index->sqlite->db, "ROLLBACK", NULL, NULL, NULL);
    return ok;
}

static bool check_embedder(RagIndex *index, const RagEmbedder *embedder, Error *err) {
    char *name = meta_get(index, "embedder_name", err),
         *hash = meta_get(index, "embedder_hash", err);
    char *pooling = meta_get(index, "pooling", err), *dim = meta_get(index, "dim", err);
    bool ok = name && hash && pooling && dim &&
              rag_index_check_embedder(index, embedder, name, hash, pooling, dim, err);
    free(name), free(hash), free(pooling), free(dim);
    return ok;
}

static bool check_ours(RagIndex *index, const RagEmbedder *embedder, Error *err) {
    int64_t application = 0, version = 0, tables = 0;
    if (!pragma_number(index, "PRAGMA application_id", &application, err) ||
        !pragma_number(index, "PRAGMA user_version", &version, err) ||
        !pragma_number(index, "SELECT count(*) FROM sqlite_master", &tables, err))
        return false;
    if (!application && !tables) {
        if (index->mode == RAG_CREATE)
            return create_schema(index, embedder, err) && check_embedder(index, embedder, err);
        base_fail(err, ERROR_INPUT, "%s: the index is empty", index->path);
        return base_hint(err, "run mlx-rag ingest first");
    }
    if (application != RAG_APPLICATION_ID) {
        base_fail(err, ERROR_INPUT, "%s: a database of another program, not an index of mlx-rag",
                  index->path);
        return base_hint(err, "give another --index, this file was left alone");
    }
    if (version != RAG_SCHEMA_VERSION) {
        base_fail(err, ERROR_UNSUPPORTED, "%s: index version %lld, this program knows %d",
                  index->path, (long long)version, RAG_SCHEMA_VERSION);
        return base_hint(err, "ingest the documents again into a new index");
    }
    /* SQLite runs what triggers and views say, so only ours may be there. (Its
     * TRUSTED_SCHEMA switch would refuse FTS5 in our own triggers.) */
    int64_t strange = 0;
    if (!pragma_number(
            index,
            "SELECT count(*) FROM sqlite_master WHERE type = 'view' OR (type = 'trigger' AND"
            " (tbl_name <> 'chunks' OR sql NOT LIKE '%INSERT INTO words(%' OR length(sql) > 300))",
            &strange, err))
        return false;
    if (strange)
        return base_fail(err, ERROR_INPUT, "%s: the index is damaged (foreign triggers)",
                         index->path);
    return check_embedder(index, embedder, err);
}

static bool check_folder(const char *path, Error *err) {
    char *folder = base_path_parent(path);
    const bool ok =
        access(folder, W_OK | X_OK) == 0 || base_fail_errno(err, "%s: cannot be made", path);
    free(folder);
    return ok;
}

/* Before SQLite sees it: SQLite would take a foreign file of zeros for new. */
static bool check_file(const char *path, RagOpenMode mode, Error *err) {
    struct stat status;
    if (stat(path, &status) != 0) {
        if (errno == ENOENT && mode == RAG_CREATE) return check_folder(path, err);
        base_fail_errno(err, "%s", path);
        return errno == ENOENT ? base_hint(err, "run mlx-rag ingest first") : false;
    }
    if (!S_ISREG(status.st_mode)) return base_fail(err, ERROR_INPUT, "%s: not a file", path);
    FILE *file = fopen(path, "rb");
    if (!file) return base_fail_errno(err, "%s", path);
    char head[16] = "";
    size_t got = fread(head, 1, sizeof head, file);
    fclose(file);
    if (got && (got < sizeof head || memcmp(head, "SQLite format 3", 16) != 0)) {
        base_fail(err, ERROR_INPUT, "%s: not an index of mlx-rag", path);
        return base_hint(err, "give another --index, this file was left alone");
    }
    return true;
}

static bool configure(RagIndex *index, Error *err) {
    sqlite3_busy_timeout(index->sqlite->db, 10000);
    sqlite3_db_config(index->sqlite->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(index->sqlite->db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
    sqlite3_extended_result_codes(index->sqlite->db, 1);
    return rag_words_register(index->sqlite->db, err);
}

static void close_index(RagIndex *index) {
    sqlite3 *db = index->sqlite->db;
    rag_matrix_release(index);
    rag_resident_free(index->sqlite->resident);
    rag_sqlite_forget_words(index);
    if (db && index->mode != RAG_READ) {
        /* One plain file again, readable from a read-only folder. Another reader
         * may hold it; then the log stays, which is as safe. */
        sqlite3_busy_timeout(db, 200);
        sqlite3_exec(
            db, "PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=DELETE;",
            NULL, NULL, NULL);
    }
    if (db) sqlite3_close(db);
    free(index->sqlite);
}

static void discard_index(RagIndex *index) {
    close_index(index);
    if (index->created) unlink(index->path);
}

static void copy_meta(RagIndex *index, const char *key, char *out, size_t size, bool *ok,
                      Error *err) {
    char *value = *ok ? meta_get(index, key, err) : NULL;
    *ok = value != NULL;
    if (value) snprintf(out, size, "%s", value);
    free(value);
}

/* Ids are used or free without a gap, which is quicker to see than to count. */
static const char count_chunks[] = "SELECT max(coalesce((SELECT max(id) FROM chunks), 0),"
                                   " coalesce((SELECT max(id) FROM free_chunks), 0))"
                                   " - (SELECT count(*) FROM free_chunks)";

static bool read_info(RagIndex *index, RagIndexInfo *info, Error *err) {
    *info = (RagIndexInfo){.dim = index->dim};
    int64_t documents = 0, chunks = 0;
    bool ok = pragma_number(index, "SELECT count(*) FROM documents", &documents, err) &&
              pragma_number(index, count_chunks, &chunks, err);
    info->n_documents = (size_t)documents;
    info->n_chunks = (size_t)chunks;
    copy_meta(index, "embedder_name", info->embedder_name, sizeof info->embedder_name, &ok, err);
    copy_meta(index, "embedder_hash", info->embedder_hash, sizeof info->embedder_hash, &ok, err);
    copy_meta(index, "pooling", info->pooling, sizeof info->pooling, &ok, err);
    struct stat status;
    if (stat(index->path, &status) == 0) info->file_bytes = (uint64_t)status.st_size;
    return ok;
}

static bool begin(RagIndex *index, Error *err) {
    return rag_sqlite_run(index, "BEGIN", err);
}

static void end(RagIndex *index) {
    rag_sqlite_forget_words(index);
    sqlite3_exec(index->sqlite->db, "COMMIT", NULL, NULL, NULL);
}

static const RagStorage storage = {
    .close = close_index,
    .discard = discard_index,
    .info = read_info,
    .check = rag_sqlite_check,
    .find = rag_sqlite_find,
    .list = rag_sqlite_list,
    .put = rag_sqlite_put,
    .touch = rag_sqlite_touch,
    .remove = rag_sqlite_remove,
    .reuse = rag_sqlite_reuse,
    .each = rag_sqlite_each,
    .begin = begin,
    .end = end,
    .mark = rag_sqlite_mark,
    .count_rows = rag_sqlite_count_rows,
    .match = rag_sqlite_match,
    .dense_begin = rag_sqlite_dense_begin,
    .dense_help = rag_sqlite_dense_help,
    .dense_end = rag_sqlite_dense_end,
    .vectors = rag_sqlite_vectors,
    .hit = rag_sqlite_hit,
    .places = rag_sqlite_places,
    .text = rag_sqlite_text,
};

/* A handle without a database yet. */
static RagIndex *new_index(const char *path, RagOpenMode mode) {
    RagIndex *index = base_calloc(1, sizeof *index);
    index->storage = &storage;
    index->path = base_strdup(path);
    index->mode = mode;
    index->sqlite = base_calloc(1, sizeof *index->sqlite);
    return index;
}

/* What a killed writer left half done is undone by whoever opens the file for writing
 * next; one who only reads may not. SQLite knows whether the writer still lives. */
static void undo_killed(const char *path) {
    char *journal = base_format("%s-journal", path);
    struct stat status;
    sqlite3 *db = NULL;
    if (stat(journal, &status) == 0 && status.st_size > 0) {
        if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK)
            sqlite3_exec(db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL);
        sqlite3_close(db);
    }
    free(journal);
}

RagIndex *rag_sqlite_open(const char *path, RagOpenMode mode, const RagEmbedder *embedder,
                          Error *err) {
    if (!check_file(path, mode, err)) return NULL;
    RagIndex *index = new_index(path, mode);
    index->created = mode == RAG_CREATE && access(path, F_OK) != 0;
    if (mode == RAG_READ) undo_killed(path);
    int flags = mode == RAG_READ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
    if (mode == RAG_CREATE) flags |= SQLITE_OPEN_CREATE;
    bool ok =
        sqlite3_open_v2(path, &index->sqlite->db, flags | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK ||
        rag_sqlite_fail(index, err, "cannot open the index");
    ok = ok && configure(index, err);
    if (ok && mode != RAG_READ && sqlite3_db_readonly(index->sqlite->db, "main") == 1) {
        ok = base_fail(err, ERROR_IO, "%s: the index cannot be written", path);
        base_hint(err, "check the permissions");
    }
    ok = ok && rag_sqlite_run(index, "PRAGMA page_size=8192; PRAGMA mmap_size=17179869184;", err) &&
         check_ours(index, embedder, err);
    /* While writing, a log beside the file: commits need no wait for the disk and
     * a killed process leaves the last commit. Closing folds it in again. */
    if (ok && mode != RAG_READ)
        ok = rag_sqlite_run(
            index,
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-65536;"
            "PRAGMA temp_store=MEMORY;",
            err);
    if (ok) return index;
    if (index->sqlite->db) sqlite3_close(index->sqlite->db);
    index->sqlite->db = NULL;
    struct stat status; /* an empty file that this call made */
    if (index->created && stat(path, &status) == 0 && status.st_size == 0) unlink(path);
    rag_index_close(index);
    return NULL;
}

RagIndex *rag_sqlite_twin(const RagIndex *index, Error *err) {
    RagIndex *twin = new_index(index->path, RAG_READ);
    twin->dim = index->dim;
    bool ok = sqlite3_open_v2(index->path, &twin->sqlite->db,
                              SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK ||
              rag_sqlite_fail(twin, err, "cannot open the index");
    ok = ok && configure(twin, err) && rag_sqlite_run(twin, "PRAGMA mmap_size=17179869184;", err);
    if (ok) return twin;
    rag_index_close(twin);
    return NULL;
}
