/* From a chunk that was found to the section around it, so that a reader and a model
 * see what a passage belongs to. */
#ifndef RAG_SECTION_H
#define RAG_SECTION_H

#include "rag/store.h"

/* Hits in their order grow, each within its section (chunks of its heading and of
 * those under it), to at most `bytes`; one that stands in what a better hit grew to
 * becomes part of that. Leaves top_k. */
bool rag_section_grow(RagIndex *index, size_t bytes, size_t top_k, RagSearch *result, Error *err);

#endif
