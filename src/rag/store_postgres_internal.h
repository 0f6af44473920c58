/* What the files of the PostgreSQL keeper share: statements with binary arguments and
 * results. */
#ifndef RAG_STORE_POSTGRES_INTERNAL_H
#define RAG_STORE_POSTGRES_INTERNAL_H

#include <libpq-fe.h>

#include "rag/store_postgres.h"
#include "rag/words.h"

struct RagPostgres {
    PGconn *connection;
    char *url;           /* with its password */
    RagStemmer *stemmer; /* NULL until it is needed */
};

/* What the server said, in one line that names the index. Returns false. */
bool rag_postgres_fail(RagIndex *index, const PGresult *result, Error *err, const char *doing);
/* A second connection for reading, for another thread; close with rag_index_close. */
RagIndex *rag_postgres_twin(const RagIndex *index, Error *err);
/* NULL on failure. */
RagStemmer *rag_postgres_stemmer(RagIndex *index, Error *err);

#define RAG_PG_ARGUMENTS 128

/* Arguments $1, $2, ... of a statement; texts and bytes are borrowed. */
typedef struct RagPgArguments {
    int count;
    const char *values[RAG_PG_ARGUMENTS];
    int lengths[RAG_PG_ARGUMENTS], formats[RAG_PG_ARGUMENTS];
    char numbers[RAG_PG_ARGUMENTS][24];
} RagPgArguments;

void rag_pg_add_text(RagPgArguments *arguments, const char *text);
void rag_pg_add_bytes(RagPgArguments *arguments, const void *bytes, size_t length);
void rag_pg_add_int(RagPgArguments *arguments, int64_t number);

/* Runs one statement; results are binary. NULL on failure; caller PQclear's. */
PGresult *rag_pg_query(RagIndex *index, const char *sql, const RagPgArguments *arguments,
                       const char *doing, Error *err);
/* The same where the rows do not matter. */
bool rag_pg_run(RagIndex *index, const char *sql, const RagPgArguments *arguments,
                const char *doing, Error *err);

int64_t rag_pg_int(const PGresult *result, int row, int column); /* int4 or int8; 0 for NULL */
char *rag_pg_text(const PGresult *result, int row, int column);  /* caller frees */
/* vector [dim] out of pgvector's form; false when it has another length. */
bool rag_pg_vector(const PGresult *result, int row, int column, float *vector, size_t dim);

/* Numbers in network order at the end of a buffer. */
void rag_pg_put16(StrBuf *out, int value);
void rag_pg_put32(StrBuf *out, int64_t value);
void rag_pg_put64(StrBuf *out, int64_t value);
void rag_pg_put_vector(StrBuf *out, const float *vector, size_t dim);
/* An array of int8 in binary form; ids may be NULL when count is 0. */
void rag_pg_put_ids(StrBuf *out, const int64_t *ids, size_t count);

/* ---- the functions of the table ---------------------------------------------- */

bool rag_postgres_check(RagIndex *index, Error *err);
bool rag_postgres_find(RagIndex *index, const char *path, RagStoredFile *file, bool *found,
                       Error *err);
bool rag_postgres_list(RagIndex *index, const char *path, int64_t **ids, char ***paths,
                       size_t *count, Error *err);
bool rag_postgres_put(RagIndex *index, const RagNewDocument *document, size_t *removed_chunks,
                      Error *err);
bool rag_postgres_touch(RagIndex *index, int64_t id, int64_t size, int64_t mtime_ns, Error *err);
bool rag_postgres_remove(RagIndex *index, int64_t id, size_t *removed_chunks, Error *err);
bool rag_postgres_reuse(RagIndex *index, const char *header, const char *text, size_t length,
                        float *vector, bool *found, Error *err);
bool rag_postgres_each(RagIndex *index, RagOnStored on_stored, void *context, Error *err);

bool rag_postgres_mark(RagIndex *index, RagWanted wanted, const void *context, RagFilter *filter,
                       Error *err);
bool rag_postgres_vectors(RagIndex *index, const RagScored *chunks, size_t count, float *out,
                          Error *err);
bool rag_postgres_hit(RagIndex *index, int64_t chunk, RagHit *hit, char **header, bool *found,
                      Error *err);
bool rag_postgres_places(RagIndex *index, int64_t chunk, RagPlace **places, size_t *count,
                         Error *err);
bool rag_postgres_text(RagIndex *index, int64_t chunk, size_t start, size_t end, StrBuf *out,
                       Error *err);
RagDense *rag_postgres_dense_begin(RagIndex *index, const float *vector, const RagFilter *filter,
                                   size_t width, Error *err);
void rag_postgres_dense_help(RagDense *dense, int thread);
bool rag_postgres_dense_end(RagDense *dense, RagScored *best, size_t *found, Error *err);

bool rag_postgres_count_rows(RagIndex *index, const char *phrase, size_t most, size_t *rows,
                             Error *err);
bool rag_postgres_match(RagIndex *index, const char *const *phrases, size_t n_phrases,
                        const RagFilter *filter, size_t capacity, RagScored *best, size_t *found,
                        Error *err);

#endif
