/* Indexes exchanged with other programs and with each other. */
#include <string.h>

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
    RagIndex *index = ok ? rag_index_open(index_path, RAG_CREATE, &identity, err) : NULL;
    ok = index && rag_bank_into_index(&bank, index, &report->documents, err);
    report->chunks = bank.count;
    report->dim = bank.dim;
    if (ok)
        rag_index_close(index);
    else
        rag_index_discard(index);
    rag_bank_free(&bank);
    return ok;
}

/* ---- merge -------------------------------------------------------------------- */

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

typedef struct Merge {
    RagIndex *into;
    size_t *documents;
} Merge;

static bool take(void *context, const RagStored *stored, Error *err) {
    Merge *merge = context;
    if (base_interrupted())
        return base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
    RagNewDocument new = {.path = stored->path,
                          .root = stored->root,
                          .document = &stored->document,
                          .chunks = &stored->chunks,
                          .vectors = stored->vectors,
                          .file = stored->file};
    bool ok = merge->into->storage->put(merge->into, &new, NULL, err);
    *merge->documents += ok;
    return ok;
}

bool rag_index_merge(RagIndex *into, RagIndex *from, size_t *documents, Error *err) {
    Merge merge = {.into = into, .documents = documents};
    return same_embedder(into, from, err) && from->storage->each(from, take, &merge, err);
}
