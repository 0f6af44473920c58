/* The SQLite keeper: one file with documents, chunks, words (FTS5) and vectors.
 *
 * Vectors are kept twice: exactly, as float32 by chunk, and rounded to int8 in
 * segments of SEGMENT_ROWS rows, so that a search reads a quarter of the bytes
 * in large pieces and then looks up the exact vectors of the best few. Row
 * id - 1 of the segments belongs to chunk `id`; ids of deleted chunks are used
 * again, so segments stay dense. Everything is written inside the transaction
 * of its document. */
#ifndef RAG_STORE_SQLITE_H
#define RAG_STORE_SQLITE_H

#include <sqlite3.h>

#include "rag/store.h"

#define RAG_APPLICATION_ID 0x4D585247 /* "MXRG" */
#define RAG_SEGMENT_ROWS 1024

typedef struct RagResident RagResident; /* dense.c */
typedef struct RagPhrases RagPhrases;   /* store_sqlite_words.c */

struct RagSqlite {
    sqlite3 *db;
    sqlite3_blob *segment; /* open for writing, or NULL */
    int64_t segment_id;
    RagResident *resident; /* what a handle for reading keeps of the segments, or NULL */
    RagPhrases *phrases;   /* whose postings the search under way has read, or NULL */
};

RagIndex *rag_sqlite_open(const char *path, RagOpenMode mode, const RagEmbedder *embedder,
                          Error *err);

/* What failed, in one line that names the file. Returns false. */
bool rag_sqlite_fail(RagIndex *index, Error *err, const char *doing);
/* A second connection for reading, for another thread. NULL on failure; caller
 * frees with rag_index_close. */
RagIndex *rag_sqlite_twin(const RagIndex *index, Error *err);
/* NULL on failure. Caller sqlite3_finalize's. */
sqlite3_stmt *rag_sqlite_prepare(RagIndex *index, const char *sql, Error *err);
bool rag_sqlite_run(RagIndex *index, const char *sql, Error *err);
/* Steps a statement that returns no rows, and finalizes it; NULL fails. */
bool rag_sqlite_finish(RagIndex *index, sqlite3_stmt *statement, const char *doing, Error *err);

/* ---- the functions of the table ---------------------------------------------- */

bool rag_sqlite_check(RagIndex *index, Error *err);

bool rag_sqlite_find(RagIndex *index, const char *path, RagStoredFile *file, bool *found,
                     Error *err);
bool rag_sqlite_list(RagIndex *index, const char *path, int64_t **ids, char ***paths, size_t *count,
                     Error *err);
bool rag_sqlite_put(RagIndex *index, const RagNewDocument *document, size_t *removed_chunks,
                    Error *err);
bool rag_sqlite_touch(RagIndex *index, int64_t id, int64_t size, int64_t mtime_ns, Error *err);
bool rag_sqlite_remove(RagIndex *index, int64_t id, size_t *removed_chunks, Error *err);
bool rag_sqlite_reuse(RagIndex *index, const char *header, const char *text, size_t length,
                      float *vector, bool *found, Error *err);
bool rag_sqlite_each(RagIndex *index, RagOnStored on_stored, void *context, Error *err);

bool rag_sqlite_mark(RagIndex *index, RagWanted wanted, const void *context, RagFilter *filter,
                     Error *err);
bool rag_sqlite_vectors(RagIndex *index, const RagScored *chunks, size_t count, float *out,
                        Error *err);
bool rag_sqlite_hit(RagIndex *index, int64_t chunk, RagHit *hit, char **header, bool *found,
                    Error *err);
bool rag_sqlite_places(RagIndex *index, int64_t chunk, RagPlace **places, size_t *count,
                       Error *err);
bool rag_sqlite_text(RagIndex *index, int64_t chunk, size_t start, size_t end, StrBuf *out,
                     Error *err);

/* dense.c. The first question to a handle reads the segments through the database,
 * each thread on a connection of its own. A handle that is asked again, its index
 * unchanged, keeps them in memory (dim + 4 bytes a chunk) as long as they take no
 * more than a quarter of the machine. */
RagDense *rag_sqlite_dense_begin(RagIndex *index, const float *vector, const RagFilter *filter,
                                 size_t width, Error *err);
void rag_sqlite_dense_help(RagDense *dense, int thread);
bool rag_sqlite_dense_end(RagDense *dense, RagScored *best, size_t *found, Error *err);
void rag_resident_free(RagResident *resident); /* NULL ok */

/* store_sqlite_words.c. What count_rows reads is kept for match, until the search ends. */
bool rag_sqlite_count_rows(RagIndex *index, const char *phrase, size_t most, size_t *rows,
                           Error *err);
bool rag_sqlite_match(RagIndex *index, const char *const *phrases, size_t n_phrases,
                      const RagFilter *filter, size_t capacity, RagScored *best, size_t *found,
                      Error *err);
void rag_sqlite_forget_words(RagIndex *index);

/* ---- rounded vectors (matrix.c) --------------------------------------------------- */

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

#endif
