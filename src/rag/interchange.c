/* Indexes exchanged with other programs and with each other. */
#include <string.h>
#include <unistd.h>

#include "rag/bank.h"
#include "rag/store.h"

static bool is_jsonl(const char *path) {
    return base_ends_with(path, ".jsonl");
}

static bool known_suffix(const char *path, Error *err) {
    if (is_jsonl(path) || base_ends_with(path, ".npz") || base_ends_with(path, ".safetensors"))
        return true;
    return base_fail(err, ERROR_INPUT, "%s: must end in .npz, .safetensors or .jsonl", path);
}

bool rag_index_export(RagIndex *index, const char *path, size_t *chunks, Error *err) {
    RagBank bank = {0};
    if (!known_suffix(path, err) || !rag_bank_from_index(index, &bank, err)) return false;
    *chunks = bank.count;
    bool ok = bank.count ||
              base_fail(err, ERROR_INPUT, "%s: the index is empty, nothing to export", index->path);
    ok = ok && (is_jsonl(path) ? rag_bank_save_jsonl : rag_bank_save_tensors)(path, &bank, err);
    rag_bank_free(&bank);
    return ok;
}

/* ---- import ------------------------------------------------------------------- */

static bool check_vectors(const char *path, const RagBank *bank, const RagEmbedder *embedder,
                          Error *err) {
    bool foreign =
        embedder && bank->embedder_hash && strcmp(bank->embedder_hash, embedder->hash) != 0;
    if (!bank->vectors) {
        base_fail(err, ERROR_INPUT, "%s: has no embeddings", path);
        return base_hint(err, "give --embedder MODEL and --embed to compute them");
    }
    if (embedder && (foreign || embedder->dim != bank->dim)) {
        base_fail(err, ERROR_INPUT, "%s: its embeddings, of %zu numbers, are not of %s (%zu)", path,
                  bank->dim, embedder->name, embedder->dim);
        return base_hint(err, "give the model that made them, or --embed to compute them again");
    }
    return rag_bank_check(bank, path, err);
}

/* An embedder that cannot embed: it names who made the vectors. */
static RagEmbedder identity_of(const RagBank *bank) {
    return (RagEmbedder){.name = bank->embedder_name ? bank->embedder_name : "unknown",
                         .hash = bank->embedder_hash ? bank->embedder_hash : "unknown",
                         .pooling = bank->pooling ? bank->pooling : "unknown",
                         .dim = bank->dim};
}

bool rag_index_import(const char *path, const char *index_path, const RagEmbedder *embedder,
                      bool embed, RagImportReport *report, Error *err) {
    *report = (RagImportReport){0};
    RagBank bank = {0};
    if (!known_suffix(path, err) ||
        !(is_jsonl(path) ? rag_bank_load_jsonl : rag_bank_load_tensors)(path, &bank, err))
        return false;
    bool ok =
        embed ? rag_bank_embed(&bank, embedder, err) : check_vectors(path, &bank, embedder, err);
    RagEmbedder identity = embedder ? *embedder : identity_of(&bank);
    bool fresh = access(index_path, F_OK) != 0;
    RagIndex *index = ok ? rag_index_open(index_path, RAG_CREATE, &identity, err) : NULL;
    ok = index && rag_bank_into_index(&bank, index, &report->documents, err);
    report->chunks = bank.count;
    report->dim = bank.dim;
    rag_index_close(index);
    if (!ok && fresh && index) unlink(index_path);
    rag_bank_free(&bank);
    return ok;
}

/* ---- merge -------------------------------------------------------------------- */

/* One stored document as it was ingested. */
typedef struct Stored {
    char *path, *root;
    RagDocument document;
    RagChunks chunks;
    float *vectors;
    size_t vectors_capacity;
    RagStoredFile file;
} Stored;

static void free_stored(Stored *stored) {
    free(stored->path), free(stored->root), free(stored->vectors);
    rag_document_free(&stored->document);
    rag_chunks_free(&stored->chunks);
}

static char *column(sqlite3_stmt *statement, int i) {
    const char *text = (const char *)sqlite3_column_text(statement, i);
    return base_strdup(text ? text : "");
}

static void load_head(sqlite3_stmt *s, Stored *out) {
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

static bool load_chunks(RagIndex *from, sqlite3_stmt *s, int64_t document, Stored *out,
                        Error *err) {
    size_t dim = from->dim;
    sqlite3_bind_int64(s, 1, document);
    int rc = SQLITE_ROW;
    bool ok = true;
    while (ok && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t start = sqlite3_column_int64(s, 0), end = sqlite3_column_int64(s, 1);
        ok = start >= 0 && start <= end && (uint64_t)end <= out->document.text.length &&
             (size_t)sqlite3_column_bytes(s, 5) == dim * sizeof(float);
        if (!ok) base_fail(err, ERROR_INPUT, "%s: the index is damaged (chunks)", from->path);
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
    if (ok && rc != SQLITE_DONE) ok = rag_store_fail(from, err, "reading the index");
    sqlite3_reset(s);
    return ok;
}

static bool same_embedder(RagIndex *into, RagIndex *from, Error *err) {
    RagIndexInfo a, b;
    if (!rag_index_info(into, &a, err) || !rag_index_info(from, &b, err)) return false;
    if (a.dim == b.dim && strcmp(a.embedder_hash, b.embedder_hash) == 0 &&
        strcmp(a.pooling, b.pooling) == 0)
        return true;
    base_fail(err, ERROR_INPUT, "%s: made with the embedder %s (%.16s), %s with %s (%.16s)",
              from->path, b.embedder_name, b.embedder_hash, into->path, a.embedder_name,
              a.embedder_hash);
    return base_hint(err, "vectors of two models cannot be compared");
}

bool rag_index_merge(RagIndex *into, RagIndex *from, size_t *documents, Error *err) {
    if (!same_embedder(into, from, err)) return false;
    sqlite3_stmt *heads = rag_store_prepare(
        from,
        "SELECT id, path, root, title, format, pages, size, mtime_ns, sha256, settings, warning,"
        " text FROM documents ORDER BY id",
        err);
    sqlite3_stmt *chunks =
        heads ? rag_store_prepare(from,
                                  "SELECT first_byte, end_byte, page, heading, header, vector"
                                  " FROM chunks JOIN vectors ON chunk = id WHERE document = ?1"
                                  " ORDER BY first_byte, id",
                                  err)
              : NULL;
    bool ok = chunks != NULL;
    int rc = SQLITE_DONE;
    while (ok && (rc = sqlite3_step(heads)) == SQLITE_ROW) {
        Stored stored = {0};
        load_head(heads, &stored);
        ok = load_chunks(from, chunks, sqlite3_column_int64(heads, 0), &stored, err);
        if (ok && base_interrupted())
            ok = base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        RagNewDocument new = {.path = stored.path,
                              .root = stored.root,
                              .document = &stored.document,
                              .chunks = &stored.chunks,
                              .vectors = stored.vectors,
                              .file = stored.file};
        ok = ok && rag_store_put(into, &new, NULL, err);
        *documents += ok;
        free_stored(&stored);
    }
    if (ok && rc != SQLITE_DONE) ok = rag_store_fail(from, err, "reading the index");
    sqlite3_finalize(heads);
    sqlite3_finalize(chunks);
    return ok;
}
