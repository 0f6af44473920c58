/* Which chunks a search may find: by path, type and date of their document. */
#ifndef RAG_FILTER_H
#define RAG_FILTER_H

#include "rag/store.h"

bool rag_filter_open(RagIndex *index, const RagSearchOptions *options, RagFilter *filter,
                     Error *err);
void rag_filter_close(RagFilter *filter);

#endif
