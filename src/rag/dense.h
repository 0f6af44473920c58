/* Search by vectors over all segments, shared by the threads that have time for it.
 *
 * The first question to a handle reads the segments through the database, each
 * thread on a connection of its own. A handle that is asked again, its index
 * unchanged, keeps them in memory (dim + 4 bytes a chunk) as long as nobody
 * writes the index and they take no more than a quarter of the machine. */
#ifndef RAG_DENSE_H
#define RAG_DENSE_H

#include "rag/store.h"

typedef struct RagDense RagDense;

/* The `width` best by approximate cosine. vector and allowed are borrowed until the
 * end; see scan.h for the latter. Inside a transaction of the index. */
RagDense *rag_dense_begin(RagIndex *index, const float *vector, const uint8_t *allowed,
                          size_t allowed_bits, size_t width, Error *err);
/* Takes segments until none is left or somebody failed; any number of threads at
 * once, each with another number below base_threads(). */
void rag_dense_help(RagDense *dense, int thread);
/* After all helpers: best [width], sorted, *found of them. Frees dense; NULL fails. */
bool rag_dense_end(RagDense *dense, RagScored *best, size_t *found, Error *err);

void rag_resident_free(RagResident *resident); /* NULL ok */

#endif
