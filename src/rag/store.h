/* What an index is to the rest of the room: a table of functions that keeps
 * documents, chunks, words and vectors. Two keepers exist: an SQLite file
 * (store_sqlite.h) and a PostgreSQL server with pgvector (store_postgres.h). Both
 * give the same chunks the same ids, the same BM25 and the same cosines, so a
 * search finds the same with either. This face is for the room only; rag.h is the
 * public one. */
#ifndef RAG_STORE_H
#define RAG_STORE_H

#include "rag/chunk.h"
#include "rag/document.h"
#include "rag/rag.h"
#include "rag/scan.h"

#define RAG_SCHEMA_VERSION 1

typedef struct RagStorage RagStorage;
typedef struct RagSqlite RagSqlite;
typedef struct RagPostgres RagPostgres;

struct RagIndex {
    const RagStorage *storage;
    char *path; /* for messages: the file, or the URL without its password */
    RagOpenMode mode;
    size_t dim;
    bool created; /* by this handle */
    union {
        RagSqlite *sqlite;
        RagPostgres *postgres;
    };
};

/* What is known of a file that was ingested before. */
typedef struct RagStoredFile {
    int64_t id, size, mtime_ns;
    unsigned char sha256[32];
    int64_t settings; /* of the chunker; another value means: chunk again */
    size_t n_chunks;
} RagStoredFile;

typedef struct RagNewDocument {
    const char *path, *root;
    const RagDocument *document;
    const RagChunks *chunks;
    const float *vectors; /* [chunks->count, dim], unit length */
    RagStoredFile file;   /* id ignored */
} RagNewDocument;

/* One stored document as it was ingested; the strings of chunks are its own. */
typedef struct RagStored {
    char *path, *root;
    RagDocument document;
    RagChunks chunks;
    float *vectors; /* [chunks.count, dim] */
    size_t vectors_capacity;
    RagStoredFile file;
} RagStored;

void rag_stored_free(RagStored *stored); /* and makes it {0} */

/* Returning false stops the walk, which then fails with what *err says. */
typedef bool (*RagOnStored)(void *context, const RagStored *stored, Error *err);

/* Which chunks a search may find. */
typedef struct RagFilter {
    uint8_t *allowed; /* one bit a chunk id (bit 0 unused); NULL: all */
    size_t bits;
} RagFilter;

bool rag_filter_allows(const RagFilter *filter, int64_t chunk);
typedef bool (*RagWanted)(const void *context, const char *path, const char *format,
                          int64_t mtime_ns);

/* Where a chunk stands in its document. */
typedef struct RagPlace {
    int64_t chunk;
    size_t start, end;
    char *heading; /* safe to show */
} RagPlace;

typedef struct RagDense RagDense; /* a search by vectors under way */

struct RagStorage {
    void (*close)(RagIndex *index);
    /* Closes, and removes what this handle created, when it did. */
    void (*discard)(RagIndex *index);
    bool (*info)(RagIndex *index, RagIndexInfo *info, Error *err);
    bool (*check)(RagIndex *index, Error *err);

    /* Files. *found false when the path is not in the index. */
    bool (*find)(RagIndex *index, const char *path, RagStoredFile *file, bool *found, Error *err);
    /* The document of this path and those in the folder of this path: ids and paths,
     * in order; caller frees each path and both lists. */
    bool (*list)(RagIndex *index, const char *path, int64_t **ids, char ***paths, size_t *count,
                 Error *err);
    /* One transaction: what was stored under this path goes, the new comes. Grows
     * *removed_chunks, which may be NULL. */
    bool (*put)(RagIndex *index, const RagNewDocument *document, size_t *removed_chunks,
                Error *err);
    /* The file was touched but its bytes are the same. */
    bool (*touch)(RagIndex *index, int64_t id, int64_t size, int64_t mtime_ns, Error *err);
    bool (*remove)(RagIndex *index, int64_t id, size_t *removed_chunks, Error *err);
    /* The exact vector of any stored chunk whose embedded text is the same. */
    bool (*reuse)(RagIndex *index, const char *header, const char *text, size_t length,
                  float *vector, bool *found, Error *err);
    /* All documents in the order of their ids, chunks in the order of the text. */
    bool (*each)(RagIndex *index, RagOnStored on_stored, void *context, Error *err);

    /* Search. Between begin and end nothing changes that is read on this handle. */
    bool (*begin)(RagIndex *index, Error *err);
    void (*end)(RagIndex *index);
    /* Allows the chunks of the documents that are wanted; *filter is {0} before. */
    bool (*mark)(RagIndex *index, RagWanted wanted, const void *context, RagFilter *filter,
                 Error *err);
    /* Chunks that hold the phrase, counted up to `most`. */
    bool (*count_rows)(RagIndex *index, const char *phrase, size_t most, size_t *rows, Error *err);
    /* The `capacity` best by BM25 of those that hold any of the phrases, which are of
     * folded words with one space between, as rag_terms_of makes them, no two the same;
     * sorted, *found of them. */
    bool (*match)(RagIndex *index, const char *const *phrases, size_t n_phrases,
                  const RagFilter *filter, size_t capacity, RagScored *best, size_t *found,
                  Error *err);
    /* The `width` best by cosine, which may be rounded: begin, then any number of threads
     * help at once, each with another number below base_threads() and beside count_rows
     * and match; then end frees, gives best [width], sorted, and *found of them. vector
     * and filter are borrowed until the end; begin gives NULL on failure. */
    RagDense *(*dense_begin)(RagIndex *index, const float *vector, const RagFilter *filter,
                             size_t width, Error *err);
    void (*dense_help)(RagDense *dense, int thread);
    bool (*dense_end)(RagDense *dense, RagScored *best, size_t *found, Error *err);
    /* out [count, dim]: the exact vectors; zeros where a chunk is gone. */
    bool (*vectors)(RagIndex *index, const RagScored *chunks, size_t count, float *out, Error *err);
    /* The texts of a hit, safe to show, and the header of its chunk (caller frees), or
     * *found false: removed since. */
    bool (*hit)(RagIndex *index, int64_t chunk, RagHit *hit, char **header, bool *found,
                Error *err);
    /* All chunks of the chunk's document, in order; caller frees headings and list. */
    bool (*places)(RagIndex *index, int64_t chunk, RagPlace **places, size_t *count, Error *err);
    /* Bytes [start, end) of the text of the chunk's document; less when it has less. */
    bool (*text)(RagIndex *index, int64_t chunk, size_t start, size_t end, StrBuf *out, Error *err);
};

/* The identity of what was embedded, of header and text[0..length). */
int64_t rag_chunk_key(const char *header, const char *text, size_t length);
/* Whether an index that says name, hash, pooling and dim was made by the embedder
 * (NULL: any); sets index->dim. */
bool rag_index_check_embedder(RagIndex *index, const RagEmbedder *embedder, const char *name,
                              const char *hash, const char *pooling, const char *dim, Error *err);
/* rag_index_close, and removes what rag_index_open made; NULL ok. */
void rag_index_discard(RagIndex *index);

#endif
