/* What becomes of the hits that the fusion found: ordered anew by a model, and
 * chosen so that they differ from each other. */
#ifndef RAG_SELECT_H
#define RAG_SELECT_H

#include "rag/store.h"

/* How many hits to load for these options, at least top_k. */
size_t rag_select_width(const RagSearchOptions *options, size_t top_k);
/* Leaves the top_k best of result->hits, in order. */
bool rag_select(RagIndex *index, const RagSearchOptions *options, size_t top_k, RagSearch *result,
                Error *err);
void rag_hit_free(RagHit *hit);

#endif
