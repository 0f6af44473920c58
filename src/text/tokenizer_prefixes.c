/* Which texts of a set a text starts with: a trie whose nodes lie level by level
 * in arrays, the children of a node side by side in the order of their bytes. */
#include "text/tokenizer_parts.h"

typedef struct Entry {
    const char *text;
    size_t length;
    int32_t id;
} Entry;

static int by_text(const void *left, const void *right) {
    const Entry *a = left, *b = right;
    int order = memcmp(a->text, b->text, BASE_MIN(a->length, b->length));
    if (!order) order = (a->length > b->length) - (a->length < b->length);
    return order ? order : (a->id > b->id) - (a->id < b->id);
}

/* Entries [begin, end) share their first `depth` bytes with the node. */
typedef struct Span {
    uint32_t begin, end;
} Span;

static void add_node(TextPrefixes *trie, size_t *capacity, uint8_t label) {
    if (trie->count == *capacity) {
        *capacity = BASE_MAX((size_t)256, *capacity * 2);
        trie->first = base_realloc(trie->first, (*capacity + 1) * sizeof *trie->first);
        trie->ids = base_realloc(trie->ids, *capacity * sizeof *trie->ids);
        trie->labels = base_realloc(trie->labels, *capacity);
    }
    trie->ids[trie->count] = -1;
    trie->labels[trie->count++] = label;
}

/* Breadth first: node n's children are [first[n], first[n + 1]). */
static void build(TextPrefixes *trie, const Entry *entries, size_t count) {
    size_t capacity = 0, span_capacity = 0;
    Span *spans = NULL;
    add_node(trie, &capacity, 0);
    spans = base_grow(spans, &span_capacity, 1, sizeof *spans);
    spans[0] = (Span){0, (uint32_t)count};
    size_t level_end = 1, depth = 0;
    for (size_t node = 0; node < trie->count; node++) {
        if (node == level_end) {
            level_end = trie->count;
            depth++;
        }
        Span span = spans[node];
        trie->first[node] = (uint32_t)trie->count;
        while (span.begin < span.end && entries[span.begin].length == depth)
            trie->ids[node] = entries[span.begin++].id;
        for (uint32_t i = span.begin; i < span.end;) {
            uint32_t end = i;
            uint8_t label = (uint8_t)entries[i].text[depth];
            while (end < span.end && (uint8_t)entries[end].text[depth] == label) end++;
            add_node(trie, &capacity, label);
            spans = base_grow(spans, &span_capacity, trie->count, sizeof *spans);
            spans[trie->count - 1] = (Span){i, end};
            i = end;
        }
    }
    trie->first[trie->count] = (uint32_t)trie->count;
    free(spans);
}

void text_prefixes_build(TextPrefixes *trie, const TextVocab *vocab, const uint8_t *wanted) {
    Entry *entries = base_calloc(vocab->size + 1, sizeof *entries);
    size_t count = 0;
    for (size_t id = 0; id < vocab->size; id++) {
        size_t length = 0;
        const char *text = text_vocab_text(vocab, (int32_t)id, &length);
        if (!text || !length || (wanted && !wanted[id])) continue;
        entries[count++] = (Entry){text, length, (int32_t)id};
    }
    qsort(entries, count, sizeof *entries, by_text);
    build(trie, entries, count);
    free(entries);
}

uint32_t text_prefixes_child(const TextPrefixes *trie, uint32_t node, uint8_t byte) {
    uint32_t low = trie->first[node], high = trie->first[node + 1], end = high;
    while (high - low > 4) {
        uint32_t middle = (low + high) / 2;
        if (trie->labels[middle] <= byte)
            low = middle;
        else
            high = middle;
    }
    for (; low < high && low < end; low++)
        if (trie->labels[low] == byte) return low;
    return 0;
}

int32_t text_prefixes_longest(const TextPrefixes *trie, const char *text, size_t length,
                              size_t *matched) {
    int32_t found = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        node = text_prefixes_child(trie, node, (uint8_t)text[i]);
        if (!node) break;
        if (trie->ids[node] < 0) continue;
        found = trie->ids[node];
        *matched = i + 1;
    }
    return found;
}

void text_prefixes_free(TextPrefixes *trie) {
    free(trie->first);
    free(trie->ids);
    free(trie->labels);
    *trie = (TextPrefixes){0};
}
