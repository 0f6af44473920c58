/* Added tokens: texts that become one id wherever they stand, before the model
 * sees anything. Two sets, as in the Python package: those looked for in the
 * raw text, and those looked for after normalization. */
#include "text/tokenizer_parts.h"

/* ---- the trie ----------------------------------------------------------- */

static size_t edge_slot(const TextTrie *trie, uint64_t edge) {
    size_t mask = trie->edge_slots - 1;
    size_t slot = (size_t)(edge * 0x9E3779B97F4A7C15ull >> 32) & mask;
    while (trie->edges[slot] && trie->edges[slot] != edge) slot = (slot + 1) & mask;
    return slot;
}

static int32_t trie_child(const TextTrie *trie, int32_t node, uint8_t byte) {
    uint64_t edge = ((uint64_t)(uint32_t)node << 8 | byte) + 1;
    size_t slot = edge_slot(trie, edge);
    return trie->edges[slot] ? trie->children[slot] : -1;
}

static int32_t trie_new_node(TextTrie *trie) {
    trie->ends =
        base_grow(trie->ends, &trie->node_capacity, trie->node_count + 1, sizeof *trie->ends);
    trie->ends[trie->node_count] = -1;
    return (int32_t)trie->node_count++;
}

/* Room for edges of `bytes` bytes of text in all. */
static void trie_start(TextTrie *trie, size_t bytes) {
    for (size_t i = 0; i < 256; i++) trie->root[i] = -1;
    trie->edge_slots = 64;
    while (trie->edge_slots < bytes * 2) trie->edge_slots *= 2;
    trie->edges = base_calloc(trie->edge_slots, sizeof *trie->edges);
    trie->children = base_calloc(trie->edge_slots, sizeof *trie->children);
}

static void trie_put(TextTrie *trie, const char *text, size_t length, int32_t value) {
    int32_t node = trie->root[(uint8_t)text[0]];
    if (node < 0) node = trie->root[(uint8_t)text[0]] = trie_new_node(trie);
    for (size_t i = 1; i < length; i++) {
        uint64_t edge = ((uint64_t)(uint32_t)node << 8 | (uint8_t)text[i]) + 1;
        size_t slot = edge_slot(trie, edge);
        if (!trie->edges[slot]) {
            trie->edges[slot] = edge;
            trie->children[slot] = trie_new_node(trie);
        }
        node = trie->children[slot];
    }
    trie->ends[node] = value;
    trie->any = true;
}

int32_t text_trie_find(const TextTrie *trie, const char *text, size_t length, size_t from,
                       size_t *begin, size_t *end) {
    for (size_t i = from; i < length; i++) {
        int32_t node = trie->root[(uint8_t)text[i]], found = -1;
        for (size_t k = i + 1; node >= 0; k++) {
            if (trie->ends[node] >= 0) {
                found = trie->ends[node];
                *begin = i;
                *end = k;
            }
            node = k < length ? trie_child(trie, node, (uint8_t)text[k]) : -1;
        }
        if (found >= 0) return found;
    }
    return -1;
}

static void trie_free(TextTrie *trie) {
    free(trie->edges);
    free(trie->children);
    free(trie->ends);
}

/* ---- the set ------------------------------------------------------------ */

static uint64_t content_hash(const char *text, size_t length) {
    return base_hash(text, length);
}

/* The slot in by_content of this text, or the empty one where it would go. */
static size_t content_slot(const TextAddedSet *set, const char *text, size_t length) {
    size_t mask = set->content_slots - 1, slot = (size_t)content_hash(text, length) & mask;
    for (; set->by_content[slot]; slot = (slot + 1) & mask) {
        const TextAdded *token = &set->tokens[set->by_content[slot] - 1];
        if (token->content_length == length && memcmp(token->content, text, length) == 0) break;
    }
    return slot;
}

static void grow_contents(TextAddedSet *set) {
    if (set->content_slots > 2 * (set->count + 1)) return;
    free(set->by_content);
    set->content_slots = BASE_MAX((size_t)64, set->content_slots * 4);
    set->by_content = base_calloc(set->content_slots, sizeof *set->by_content);
    for (size_t i = 0; i < set->count; i++)
        set->by_content[content_slot(set, set->tokens[i].content, set->tokens[i].content_length)] =
            (uint32_t)i + 1;
}

void text_added_put(TextAddedSet *set, const TextVocab *vocab, const TextAdded *token) {
    size_t length = strlen(token->content);
    if (!length) return;
    grow_contents(set);
    size_t slot = content_slot(set, token->content, length);
    TextAdded *place;
    if (set->by_content[slot]) {
        place = &set->tokens[set->by_content[slot] - 1];
        int32_t id = place->id;
        char *content = place->content;
        *place = *token;
        place->id = id;
        place->content = content;
    } else {
        int32_t id = text_vocab_find(vocab, token->content, length);
        if (id < 0) id = BASE_MAX((int32_t)vocab->size, set->next_id);
        set->tokens = base_grow(set->tokens, &set->capacity, set->count + 1, sizeof *set->tokens);
        place = &set->tokens[set->count++];
        *place = *token;
        place->id = id;
        place->content = base_strndup(token->content, length);
        set->by_content[slot] = (uint32_t)set->count;
        set->next_id = BASE_MAX(set->next_id, id + 1);
    }
    place->content_length = length;
    place->shown = NULL;
}

const TextAdded *text_added_by_content(const TextAddedSet *set, const char *content) {
    if (!set->content_slots) return NULL;
    size_t slot = content_slot(set, content, strlen(content));
    return set->by_content[slot] ? &set->tokens[set->by_content[slot] - 1] : NULL;
}

const TextAdded *text_added_by_id(const TextAddedSet *set, int32_t id) {
    size_t low = 0, high = set->count;
    if (!high || id < set->tokens[set->by_id[0]].id || id >= set->next_id) return NULL;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const TextAdded *token = &set->tokens[set->by_id[middle]];
        if (token->id == id) return token;
        if (token->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static int by_id(const void *left, const void *right, void *tokens) {
    const TextAdded *a = (const TextAdded *)tokens + *(const int32_t *)left;
    const TextAdded *b = (const TextAdded *)tokens + *(const int32_t *)right;
    return (a->id > b->id) - (a->id < b->id);
}

void text_added_finish(TextAddedSet *set, const TextNormalizers *normalizers, TextWork *work) {
    size_t bytes[2] = {0, 0};
    set->by_id = base_calloc(set->count + 1, sizeof *set->by_id);
    for (size_t i = 0; i < set->count; i++) {
        TextAdded *token = &set->tokens[i];
        TextView shown = {.data = token->content, .length = token->content_length};
        if (token->normalized) shown = text_normalize(normalizers, work, shown);
        token->shown = base_strndup(shown.data, shown.length);
        token->shown_length = shown.length;
        bytes[token->normalized] += shown.length;
        set->by_id[i] = (int32_t)i;
    }
    qsort_r(set->by_id, set->count, sizeof *set->by_id, by_id, set->tokens);
    for (int normalized = 0; normalized < 2; normalized++)
        trie_start(&set->tries[normalized], bytes[normalized]);
    for (size_t i = 0; i < set->count; i++) {
        const TextAdded *token = &set->tokens[i];
        if (!token->shown_length) continue;
        trie_put(&set->tries[token->normalized], token->shown, token->shown_length, (int32_t)i);
        set->any_plain[token->normalized] |= !token->special;
    }
}

void text_added_free(TextAddedSet *set) {
    for (size_t i = 0; i < set->count; i++) {
        free(set->tokens[i].content);
        free(set->tokens[i].shown);
    }
    free(set->tokens);
    free(set->by_id);
    free(set->by_content);
    trie_free(&set->tries[0]);
    trie_free(&set->tries[1]);
    *set = (TextAddedSet){0};
}

/* ---- cutting a text ----------------------------------------------------- */

static bool is_word_beside(TextView in, size_t at, bool before) {
    size_t length;
    if (before ? at == 0 : at == in.length) return false;
    return text_is_rust_word(before ? text_decode_before((const uint8_t *)in.data, at, &length)
                                    : text_decode((const uint8_t *)in.data + at, &length));
}

void text_added_cut(const TextAddedSet *set, bool normalized, bool parse_special, TextView in,
                    TextAddedSink sink, TextWork *work) {
    const TextTrie *trie = &set->tries[normalized];
    size_t done = 0, from = 0, begin = 0, end = 0, length;
    bool useful = trie->any && (parse_special || set->any_plain[normalized]);
    int32_t index;
    while (useful && !work->failed &&
           (index = text_trie_find(trie, in.data, in.length, from, &begin, &end)) >= 0) {
        const TextAdded *token = &set->tokens[index];
        from = end; /* a match that is turned down is used up all the same */
        if (token->special && !parse_special) continue;
        if (token->single_word &&
            (is_word_beside(in, begin, true) || is_word_beside(in, end, false)))
            continue;
        while (token->lstrip && begin > done &&
               text_is_space(text_decode_before((const uint8_t *)in.data, begin, &length)))
            begin -= length;
        while (token->rstrip && end < in.length &&
               text_is_space(text_decode((const uint8_t *)in.data + end, &length)))
            end += length;
        /* An earlier match may have taken these spaces already. */
        if (token->lstrip) begin = BASE_MAX(begin, done);
        if (begin >= end) continue;
        if (begin > done) sink(work, NULL, text_view_slice(in, done, begin));
        sink(work, token, text_view_slice(in, begin, end));
        done = end;
    }
    if (in.length > done && !work->failed) sink(work, NULL, text_view_slice(in, done, in.length));
}
