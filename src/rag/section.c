/* Chunks to sections; see section.h. */
#include "rag/section.h"

#include <string.h>

#include "rag/select.h"
#include "rag/show.h"

typedef struct Neighbours {
    RagPlace *items;   /* chunks of the hit's document */
    bool *inside;      /* the section of the hit */
    size_t count, own; /* own: the hit's */
} Neighbours;

/* "a > b" holds "a > b > c". */
static bool is_under(const char *heading, const char *section) {
    size_t length = strlen(section);
    return strncmp(heading, section, length) == 0 &&
           (!length || !heading[length] || strncmp(heading + length, " > ", 3) == 0);
}

static void free_neighbours(Neighbours *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i].heading);
    free(list->items), free(list->inside);
    *list = (Neighbours){0};
}

static bool list_neighbours(RagIndex *index, const RagHit *hit, Neighbours *list, Error *err) {
    free_neighbours(list);
    if (!index->storage->places(index, hit->chunk, &list->items, &list->count, err)) return false;
    list->inside = base_calloc(list->count + 1, sizeof *list->inside);
    for (size_t i = 0; i < list->count; i++) {
        list->inside[i] = is_under(list->items[i].heading, hit->heading);
        if (list->items[i].chunk == hit->chunk) list->own = i;
    }
    return true;
}

/* Whether another hit, already grown, holds some of these bytes. */
static bool taken(const RagSearch *result, size_t kept, const char *document, size_t start,
                  size_t end) {
    for (size_t i = 0; i < kept; i++) {
        const RagHit *hit = &result->hits[i];
        if (strcmp(hit->document, document) == 0 && start < hit->end && hit->start < end)
            return true;
    }
    return false;
}

/* Chunks [*first, *last) around the hit's: what follows explains a statement more
 * often than what precedes, so it comes first. */
static void choose(const Neighbours *list, size_t bytes, const RagSearch *result, size_t kept,
                   const RagHit *hit, size_t *first, size_t *last) {
    const RagPlace *chunks = list->items;
    *first = list->own, *last = list->own + 1;
    for (bool grown = true; grown;) {
        grown = false;
        size_t next = *last, before = *first - 1;
        if (next < list->count && list->inside[next] &&
            chunks[next].end - chunks[*first].start <= bytes &&
            !taken(result, kept, hit->document, chunks[next].start, chunks[next].end))
            (*last)++, grown = true;
        if (*first > 0 && list->inside[before] &&
            chunks[*last - 1].end - chunks[before].start <= bytes &&
            !taken(result, kept, hit->document, chunks[before].start, chunks[before].end))
            (*first)--, grown = true;
    }
}

/* Bytes [start, end) of the document's text. */
static bool read_text(RagIndex *index, RagHit *hit, size_t start, size_t end, Error *err) {
    StrBuf raw = {0}, text = {0};
    bool ok = index->storage->text(index, hit->chunk, start, end, &raw, err);
    if (ok && raw.length == end - start) {
        rag_clean_append(&text, raw.data, raw.length);
        free(hit->text);
        hit->text = base_str_detach(&text);
        hit->start = start, hit->end = end;
    }
    base_str_free(&raw);
    return ok;
}

bool rag_section_grow(RagIndex *index, size_t bytes, size_t top_k, RagSearch *result, Error *err) {
    Neighbours list = {0};
    size_t kept = 0;
    bool ok = true;
    for (size_t i = 0; i < result->n_hits; i++) {
        RagHit *hit = &result->hits[i];
        if (!ok || kept >= top_k || taken(result, kept, hit->document, hit->start, hit->end)) {
            rag_hit_free(hit);
            continue;
        }
        size_t first = 0, last = 0;
        ok = list_neighbours(index, hit, &list, err);
        if (ok && list.count) {
            choose(&list, bytes, result, kept, hit, &first, &last);
            hit->n_chunks = last - first;
            if (hit->n_chunks > 1)
                ok = read_text(index, hit, list.items[first].start, list.items[last - 1].end, err);
        }
        result->hits[kept++] = *hit;
    }
    result->n_hits = kept;
    free_neighbours(&list);
    return ok;
}
