/* The index file: one SQLite database with documents, chunks, words (FTS5) and
 * vectors. This face is for the room only; rag.h is the public one.
 *
 * Vectors are kept twice: exactly, as float32 by chunk, and rounded to int8 in
 * segments of SEGMENT_ROWS rows, so that a search reads a quarter of the bytes
 * in large pieces and then looks up the exact vectors of the best few. Row
 * id - 1 of the segments belongs to chunk `id`; ids of deleted chunks are used
 * again, so segments stay dense. Everything is written inside the transaction
 * of its document. */
#ifndef RAG_STORE_H
#define RAG_STORE_H

#include <sqlite3.h>

#include "rag/chunk.h"
#include "rag/document.h"
#include "rag/rag.h"
#include "rag/scan.h"

#define RAG_SCHEMA_VERSION 1
#define RAG_APPLICATION_ID 0x4D585247 /* "MXRG" */
#define RAG_SEGMENT_ROWS 1024

typedef struct RagResident RagResident; /* dense.c */

struct RagIndex {
    sqlite3 *db;
    char *path;
    RagOpenMode mode;
    size_t dim;
    sqlite3_blob *segment; /* open for writing, or NULL */
    int64_t segment_id;
    RagResident *resident; /* what a handle for reading keeps of the segments, or NULL */
};

/* What failed, in one line that names the file. Returns false. */
bool rag_store_fail(RagIndex *index, Error *err, const char *doing);
/* A second connection for reading, for another thread. NULL on failure; caller
 * frees with rag_index_close. */
RagIndex *rag_store_twin(const RagIndex *index, Error *err);
/* NULL on failure. Caller sqlite3_finalize's. */
sqlite3_stmt *rag_store_prepare(RagIndex *index, const char *sql, Error *err);
bool rag_store_run(RagIndex *index, const char *sql, Error *err);
/* Steps a statement that returns no rows, and finalizes it; NULL fails. */
bool rag_store_finish(RagIndex *index, sqlite3_stmt *statement, const char *doing, Error *err);

/* What is known of a file that was ingested before. */
typedef struct RagStoredFile {
    int64_t id, size, mtime_ns;
    unsigned char sha256[32];
    int64_t settings; /* of the chunker; another value means: chunk again */
    size_t n_chunks;
} RagStoredFile;

/* *found false when it is not in the index. */
bool rag_store_find(RagIndex *index, const char *path, RagStoredFile *file, bool *found,
                    Error *err);

typedef struct RagNewDocument {
    const char *path, *root;
    const RagDocument *document;
    const RagChunks *chunks;
    const float *vectors; /* [chunks->count, dim], unit length */
    RagStoredFile file;   /* id ignored */
} RagNewDocument;

/* One transaction: what was stored under this path goes, the new comes. */
bool rag_store_put(RagIndex *index, const RagNewDocument *document, size_t *removed_chunks,
                   Error *err);
/* The file was touched but its bytes are the same. */
bool rag_store_touch(RagIndex *index, int64_t id, int64_t size, int64_t mtime_ns, Error *err);
bool rag_store_remove(RagIndex *index, int64_t id, size_t *removed_chunks, Error *err);
/* The exact vector of any stored chunk whose embedded text is the same. */
bool rag_store_reuse(RagIndex *index, const char *header, const char *text, size_t length,
                     float *vector, bool *found, Error *err);
/* The document of this path and those in the folder of this path: ids and
 * paths; caller frees each path and both lists. */
bool rag_store_list(RagIndex *index, const char *path, int64_t **ids, char ***paths, size_t *count,
                    Error *err);

/* ---- vectors (matrix.c) --------------------------------------------------- */

bool rag_matrix_set(RagIndex *index, int64_t chunk, const float *vector, Error *err);
bool rag_matrix_clear(RagIndex *index, int64_t chunk, Error *err);
void rag_matrix_release(RagIndex *index); /* closes the open segment; before a commit */

size_t rag_segment_bytes(size_t dim);

/* One segment at a time: float scales[SEGMENT_ROWS], int8 rows[SEGMENT_ROWS][dim]. */
typedef struct RagMatrix {
    RagIndex *index; /* borrowed */
    size_t n_segments, dim;
    sqlite3_blob *blob;
    uint8_t *own;        /* room for one segment */
    const float *scales; /* of the segment read last; not above 0 for a free row */
    const int8_t *rows;
} RagMatrix;

bool rag_matrix_open(RagIndex *index, RagMatrix *matrix, Error *err);
/* into: where its rag_segment_bytes go, 4-byte aligned; NULL: room of the matrix. */
bool rag_matrix_read(RagMatrix *matrix, size_t segment, uint8_t *into, Error *err);
void rag_matrix_close(RagMatrix *matrix);

/* The exact cosine of some chunks; score becomes it. A chunk that is gone (an
 * ingest going on beside) gets -1. */
bool rag_store_rescore(RagIndex *index, const float *query, RagScored *scored, size_t count,
                       Error *err);

#endif
