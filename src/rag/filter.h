/* Which chunks a search may find: by path, type and date of their document. */
#ifndef RAG_FILTER_H
#define RAG_FILTER_H

#include "rag/store.h"

typedef struct RagFilter {
    uint8_t *allowed; /* one bit a chunk id (bit 0 unused); NULL: all */
    size_t bits;
} RagFilter;

bool rag_filter_open(RagIndex *index, const RagSearchOptions *options, RagFilter *filter,
                     Error *err);
void rag_filter_close(RagFilter *filter);
bool rag_filter_allows(const RagFilter *filter, int64_t chunk);

#endif
