/* Chunks to sections; see section.h. */
#include "rag/section.h"

#include <string.h>

#include "rag/select.h"
#include "rag/show.h"

/* A chunk of the hit's document. */
typedef struct Neighbour {
    int64_t id;
    size_t start, end;
    bool inside; /* the section of the hit */
} Neighbour;

typedef struct Neighbours {
    Neighbour *items;
    size_t count, capacity, own; /* own: the hit's */
} Neighbours;

/* "a > b" holds "a > b > c". */
static bool is_under(const char *heading, const char *section) {
    size_t length = strlen(section);
    return strncmp(heading, section, length) == 0 &&
           (!length || !heading[length] || strncmp(heading + length, " > ", 3) == 0);
}

static bool list_neighbours(RagIndex *index, const RagHit *hit, Neighbours *list, Error *err) {
    sqlite3_stmt *q =
        rag_store_prepare(index,
                          "SELECT id, first_byte, end_byte, heading FROM chunks WHERE document ="
                          " (SELECT document FROM chunks WHERE id = ?1) ORDER BY first_byte",
                          err);
    if (!q) return false;
    sqlite3_bind_int64(q, 1, hit->chunk);
    list->count = list->own = 0;
    int rc;
    while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *heading = (const char *)sqlite3_column_text(q, 3);
        char *clean = rag_clean(heading ? heading : "");
        list->items = base_grow(list->items, &list->capacity, list->count + 1, sizeof *list->items);
        Neighbour *one = &list->items[list->count];
        *one = (Neighbour){.id = sqlite3_column_int64(q, 0),
                           .start = (size_t)sqlite3_column_int64(q, 1),
                           .end = (size_t)sqlite3_column_int64(q, 2),
                           .inside = is_under(clean, hit->heading)};
        if (one->id == hit->chunk) list->own = list->count;
        list->count++;
        free(clean);
    }
    bool ok = rc == SQLITE_DONE || rag_store_fail(index, err, "reading the index");
    sqlite3_finalize(q);
    return ok;
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
    const Neighbour *chunks = list->items;
    *first = list->own, *last = list->own + 1;
    for (bool grown = true; grown;) {
        grown = false;
        size_t next = *last, before = *first - 1;
        if (next < list->count && chunks[next].inside &&
            chunks[next].end - chunks[*first].start <= bytes &&
            !taken(result, kept, hit->document, chunks[next].start, chunks[next].end))
            (*last)++, grown = true;
        if (*first > 0 && chunks[before].inside &&
            chunks[*last - 1].end - chunks[before].start <= bytes &&
            !taken(result, kept, hit->document, chunks[before].start, chunks[before].end))
            (*first)--, grown = true;
    }
}

/* Bytes [start, end) of the document's text. */
static bool read_text(RagIndex *index, RagHit *hit, size_t start, size_t end, Error *err) {
    sqlite3_stmt *q =
        rag_store_prepare(index,
                          "SELECT substr(CAST(text AS BLOB), ?2, ?3) FROM documents WHERE id ="
                          " (SELECT document FROM chunks WHERE id = ?1)",
                          err);
    if (!q) return false;
    sqlite3_bind_int64(q, 1, hit->chunk);
    sqlite3_bind_int64(q, 2, (int64_t)start + 1);
    sqlite3_bind_int64(q, 3, (int64_t)(end - start));
    int rc = sqlite3_step(q);
    bool ok =
        rc == SQLITE_ROW || rc == SQLITE_DONE || rag_store_fail(index, err, "reading the index");
    size_t length = rc == SQLITE_ROW ? (size_t)sqlite3_column_bytes(q, 0) : 0;
    if (length == end - start) {
        StrBuf text = {0};
        rag_clean_append(&text, sqlite3_column_blob(q, 0), length);
        free(hit->text);
        hit->text = base_str_detach(&text);
        hit->start = start, hit->end = end;
    }
    sqlite3_finalize(q);
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
    free(list.items);
    return ok;
}
