/* The PostgreSQL keeper: documents, chunks and words in tables named mlxrag_*, vectors
 * in a column of pgvector, for an index that many machines use at once. The tables are
 * those of the first schema of the connection's search_path, so
 * postgresql://host/db?options=-csearch_path%3Dname has an index of its own.
 *
 * PostgreSQL's own ranking has no idf, so words are kept as FTS5 stems them, in the
 * order of the text, a GIN index finds the chunks and BM25 is computed here. */
#ifndef RAG_STORE_POSTGRES_H
#define RAG_STORE_POSTGRES_H

#include "rag/store.h"

/* postgresql://... or postgres://... */
bool rag_postgres_is_url(const char *path);

RagIndex *rag_postgres_open(const char *url, RagOpenMode mode, const RagEmbedder *embedder,
                            Error *err);

#endif
