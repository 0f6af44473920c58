/* Which keeper an index has, and what both share; see store.h. */
#include "rag/store.h"

#include <string.h>

#include "rag/store_postgres.h"
#include "rag/store_sqlite.h"

bool rag_postgres_is_url(const char *path) {
    return base_starts_with(path, "postgresql://") || base_starts_with(path, "postgres://");
}

RagIndex *rag_index_open(const char *path, RagOpenMode mode, const RagEmbedder *embedder,
                         Error *err) {
    if (!embedder && mode != RAG_READ) {
        base_fail(err, ERROR_INTERNAL, "an index is written with an embedder only");
        return NULL;
    }
    if (!rag_postgres_is_url(path)) return rag_sqlite_open(path, mode, embedder, err);
#ifdef RAG_POSTGRES
    return rag_postgres_open(path, mode, embedder, err);
#else
    base_fail(err, ERROR_UNSUPPORTED, "this mlx-rag was built without PostgreSQL's libpq");
    base_hint(err, "install libpq-dev and build again");
    return NULL;
#endif
}

void rag_index_close(RagIndex *index) {
    if (!index) return;
    index->storage->close(index);
    free(index->path);
    free(index);
}

void rag_index_discard(RagIndex *index) {
    if (!index) return;
    index->storage->discard(index);
    free(index->path);
    free(index);
}

bool rag_index_info(RagIndex *index, RagIndexInfo *info, Error *err) {
    return index->storage->info(index, info, err);
}

bool rag_index_check(RagIndex *index, Error *err) {
    return index->storage->check(index, err);
}

/* A model's folder may move and be renamed: its name is for people only. */
bool rag_index_check_embedder(RagIndex *index, const RagEmbedder *embedder, const char *name,
                              const char *hash, const char *pooling, const char *dim, Error *err) {
    long long number = atoll(dim);
    index->dim = number > 0 && number <= RAG_MAX_DIM ? (size_t)number : 0;
    if (!index->dim)
        return base_fail(err, ERROR_INPUT, "%s: the index is damaged (dim is '%.20s')", index->path,
                         dim);
    if (!embedder || (strcmp(hash, embedder->hash) == 0 &&
                      strcmp(pooling, embedder->pooling) == 0 && index->dim == embedder->dim))
        return true;
    base_fail(err, ERROR_INPUT,
              "%s: was made with the embedder %.100s (%.16s, %zu numbers), not with %s (%.16s, %zu "
              "numbers)",
              index->path, name, hash, index->dim, embedder->name, embedder->hash, embedder->dim);
    return base_hint(err, "use that embedder, or ingest into a new index");
}

int64_t rag_chunk_key(const char *header, const char *text, size_t length) {
    uint64_t parts[2] = {base_hash(header, strlen(header)), base_hash(text, length)};
    return (int64_t)base_hash(parts, sizeof parts);
}

bool rag_filter_allows(const RagFilter *filter, int64_t chunk) {
    return !filter->allowed || (chunk > 0 && (size_t)chunk < filter->bits &&
                                (filter->allowed[chunk / 8] >> (chunk % 8) & 1));
}

void rag_stored_free(RagStored *stored) {
    free(stored->path), free(stored->root), free(stored->vectors);
    rag_document_free(&stored->document);
    rag_chunks_free(&stored->chunks);
    *stored = (RagStored){0};
}
