/* Words in a tree of bytes, and texts cut into them: the way that costs least, or every
 * way there is. */
#include <float.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "data/step.h"

/* ---- words ----------------------------------------------------------------------------- */

/* Nodes of one parent are a list; the root's are found by their byte. 0 is none. */
typedef struct Node {
    uint32_t child, sibling;
    int32_t id; /* of the word that ends here, or -1 */
    uint8_t byte;
} Node;

enum { MOST_IDS = 1 << 24 };

struct DxTrie {
    atomic_int references;
    Node *nodes; /* [0] is the root */
    size_t count, capacity;
    uint32_t first[256];
    uint32_t *ends; /* an id's node, 0: no word has it */
    size_t n_ids, ids_capacity, words;
};

DxTrie *dx_trie_new(void) {
    DxTrie *trie = base_calloc(1, sizeof *trie);
    atomic_init(&trie->references, 1);
    trie->nodes = base_grow(NULL, &trie->capacity, 1, sizeof *trie->nodes);
    trie->nodes[trie->count++] = (Node){.id = -1};
    return trie;
}

void dx_trie_free(DxTrie *trie) {
    if (!trie || atomic_fetch_sub(&trie->references, 1) > 1) return;
    free(trie->nodes);
    free(trie->ends);
    free(trie);
}

size_t dx_trie_count(const DxTrie *trie) {
    return trie->words;
}

/* The node under `at` for a byte, or 0. */
static uint32_t step(const DxTrie *trie, uint32_t at, uint8_t byte) {
    if (at == 0) return trie->first[byte];
    uint32_t child = trie->nodes[at].child;
    while (child && trie->nodes[child].byte != byte) child = trie->nodes[child].sibling;
    return child;
}

static uint32_t grow(DxTrie *trie, uint32_t at, uint8_t byte) {
    trie->nodes = base_grow(trie->nodes, &trie->capacity, trie->count + 1, sizeof *trie->nodes);
    const uint32_t made = (uint32_t)trie->count++;
    trie->nodes[made] = (Node){.id = -1, .byte = byte, .sibling = at ? trie->nodes[at].child : 0};
    if (at)
        trie->nodes[at].child = made;
    else
        trie->first[byte] = made;
    return made;
}

/* old: the id that the word has, or -1. */
static bool may_add(const DxTrie *trie, const uint8_t *word, size_t length, int32_t old, int64_t id,
                    Error *err) {
    const int shown = (int)BASE_MIN(length, (size_t)64);
    if (length == 0) return base_fail(err, ERROR_INPUT, "a word of a trie has no bytes");
    if (trie->count + length >= UINT32_MAX || id >= MOST_IDS)
        return base_fail(err, ERROR_INPUT, "a trie has ids below %d", MOST_IDS);
    if (old >= 0)
        return base_fail(err, ERROR_INPUT, "the word \"%.*s\" has the id %d already", shown, word,
                         old);
    if ((size_t)id < trie->n_ids && trie->ends[id])
        return base_fail(err, ERROR_INPUT, "the id %lld is another word's than \"%.*s\"",
                         (long long)id, shown, word);
    return true;
}

int64_t dx_trie_add(DxTrie *trie, const void *word, size_t length, int64_t id, Error *err) {
    const uint8_t *bytes = word;
    uint32_t at = 0, end = 0;
    size_t there = 0;
    while (there < length && (end = step(trie, at, bytes[there])) != 0) at = end, there++;
    const int32_t old = length > 0 && there == length ? trie->nodes[at].id : -1;
    if (old >= 0 && (id < 0 || id == old)) return old;
    if (id < 0) id = (int64_t)trie->words;
    if (!may_add(trie, bytes, length, old, id, err)) return -1;
    for (; there < length; there++) at = grow(trie, at, bytes[there]);
    if ((size_t)id >= trie->n_ids) {
        trie->ends = base_grow(trie->ends, &trie->ids_capacity, (size_t)id + 1, sizeof *trie->ends);
        memset(trie->ends + trie->n_ids, 0, ((size_t)id + 1 - trie->n_ids) * sizeof *trie->ends);
        trie->n_ids = (size_t)id + 1;
    }
    trie->ends[id] = at;
    trie->nodes[at].id = (int32_t)id;
    trie->words++;
    return id;
}

int64_t dx_trie_find(const DxTrie *trie, const void *word, size_t length) {
    uint32_t at = 0;
    for (size_t i = 0; i < length; i++)
        if ((at = step(trie, at, ((const uint8_t *)word)[i])) == 0) return -1;
    return at ? trie->nodes[at].id : -1;
}

/* ---- the cheapest way -------------------------------------------------------------------- */

/* The best way to some place: fewest bytes left out, then the least cost. */
typedef struct Place {
    double cost;
    size_t left_out;
    size_t from;
    int32_t id; /* of the word that ends here; -1: a byte left out */
    bool reached;
} Place;

static void reach(Place *place, size_t left_out, double cost, size_t from, int32_t id) {
    const bool better = !place->reached || left_out < place->left_out ||
                        (left_out == place->left_out && cost < place->cost);
    if (better) *place = (Place){cost, left_out, from, id, true};
}

typedef struct Tokenising {
    DxStepArgs args;
    DxTrie *trie;
    double *scores; /* by id, or NULL: 1 each */
} Tokenising;

static Place *ways(const Tokenising *how, const uint8_t *text, size_t length) {
    const DxTrie *trie = how->trie;
    Place *places = base_calloc(length + 1, sizeof *places);
    places[0].reached = true;
    for (size_t i = 0; i < length; i++) {
        const Place here = places[i];
        if (!here.reached) continue;
        uint32_t at = 0;
        for (size_t j = i; j < length && (at = step(trie, at, text[j])) != 0; j++) {
            const int32_t id = trie->nodes[at].id;
            if (id < 0) continue;
            const double score = how->scores ? how->scores[id] : 1;
            reach(&places[j + 1], here.left_out, here.cost + score, i, id);
        }
        if (how->args.flag) reach(&places[i + 1], here.left_out + 1, here.cost, i, -1);
    }
    return places;
}

static DxStatus tokenise_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const Tokenising *how = self;
    const DxArray *text = dx_sample_need_bytes(*sample, how->args.key, err);
    if (!text) return DX_FAIL;
    Place *places = ways(how, text->data, text->bytes);
    size_t count = 0, end = text->bytes;
    if (!places[end].reached) {
        while (!places[end].reached) end--;
        free(places);
        base_fail(err, ERROR_INPUT, "key \"%s\": no word goes on from byte %zu", how->args.key.name,
                  end);
        return DX_FAIL;
    }
    for (size_t at = end; at > 0; at = places[at].from) count += places[at].id >= 0;
    int32_t *ids = base_alloc((count + 1) * sizeof *ids);
    for (size_t at = end, left = count; at > 0; at = places[at].from)
        if (places[at].id >= 0) ids[--left] = places[at].id;
    DxArray *made = dx_array_ids(ids, count, err);
    free(ids);
    free(places);
    return dx_step_put(&how->args, sample, made);
}

static void tokenise_free(void *self) {
    Tokenising *how = self;
    dx_trie_free(how->trie);
    free(how->scores);
    free(how->args.identity);
    free(how);
}

/* What tells this trie from another: of the words and their ids. */
static uint64_t digest(const DxTrie *trie) {
    uint64_t sum = base_hash(trie->ends, trie->n_ids * sizeof *trie->ends);
    for (size_t i = 1; i < trie->count; i++) {
        const Node *node = &trie->nodes[i];
        const uint32_t parts[] = {node->child, node->sibling, (uint32_t)node->id, node->byte};
        sum = sum * 0x100000001b3u ^ base_hash(parts, sizeof parts);
    }
    return sum;
}

DxStep dx_tokenise_trie(const char *key, const char *to, DxTrie *trie, const double *scores,
                        size_t n_scores, bool leave_out, Error *err) {
    if (scores && n_scores < trie->n_ids) {
        base_fail(err, ERROR_INPUT, "tokenise(%s): %zu scores for ids up to %zu", key, n_scores,
                  trie->n_ids - 1);
        return (DxStep){0};
    }
    Tokenising *how = base_calloc(1, sizeof *how);
    how->trie = trie;
    atomic_fetch_add(&trie->references, 1);
    if (scores) {
        how->scores = base_alloc((n_scores + 1) * sizeof *how->scores);
        memcpy(how->scores, scores, n_scores * sizeof *how->scores);
    }
    const uint64_t prices = scores ? base_hash(scores, n_scores * sizeof *scores) : 0;
    how->args = (DxStepArgs){.key = dx_key(key), .to = dx_key(to ? to : key), .flag = leave_out};
    how->args.identity = base_format("%s to %s, %zu words %016llx, scores %016llx%s", key,
                                     to ? to : key, trie->words, (unsigned long long)digest(trie),
                                     (unsigned long long)prices, leave_out ? ", leave out" : "");
    return (DxStep){{.name = "tokenise by trie",
                     .options = how->args.identity,
                     .apply = tokenise_apply,
                     .destroy = tokenise_free},
                    how};
}

/* ---- every way ------------------------------------------------------------------------------ */

/* The longest word of text[at, length) that is shorter than `below`, where a way goes on
 * from its end: its length, 0: none. */
static size_t next_word(const DxTrie *trie, const uint8_t *text, size_t length, const bool *goes_on,
                        size_t at, size_t below, int32_t *id) {
    size_t found = 0;
    uint32_t node = 0;
    for (size_t j = at; j < length && j - at + 1 < below; j++) {
        if ((node = step(trie, node, text[j])) == 0) break;
        if (trie->nodes[node].id < 0 || !goes_on[j + 1]) continue;
        found = j - at + 1;
        *id = trie->nodes[node].id;
    }
    return found;
}

void dx_trie_each(const DxTrie *trie, const void *text, size_t length,
                  bool (*visit)(void *context, const int32_t *ids, size_t count), void *context) {
    const uint8_t *bytes = text;
    bool *goes_on = base_calloc(length + 1, sizeof *goes_on);
    int32_t *ids = base_alloc((length + 1) * sizeof *ids), id = 0;
    size_t *lengths = base_calloc(length + 1, sizeof *lengths), depth = 0, at = 0;
    goes_on[length] = true;
    for (size_t i = length; i-- > 0;)
        goes_on[i] = next_word(trie, bytes, length, goes_on, i, SIZE_MAX, &id) > 0;
    bool more = goes_on[0], turned = false;
    while (more) {
        if (at == length && !turned) more = visit(context, ids, depth);
        const size_t below = turned ? lengths[depth] : SIZE_MAX;
        const size_t word =
            at < length ? next_word(trie, bytes, length, goes_on, at, below, &id) : 0;
        turned = word == 0;
        if (word > 0) {
            ids[depth] = id;
            lengths[depth++] = word;
            at += word;
        } else if (depth > 0) {
            at -= lengths[--depth];
        } else {
            more = false;
        }
    }
    free(goes_on);
    free(ids);
    free(lengths);
}
