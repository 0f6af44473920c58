/* Exact and near duplicates of texts. Each text has a sketch: a hash of its words, and
 * 128 least hashes of its runs of five words. Near texts are found without comparing all
 * pairs: the 128 are cut into 32 bands of four, and texts that agree in a band are
 * compared. Broder, 1997 (MinHash); Indyk and Motwani, 1998 (bands). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"

enum { RUN = 5, BANDS = 32, ROWS = DX_SKETCH_HASHES / BANDS, MOST_COMPARED = 256 };

static uint64_t mixed(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* ---- sketches ------------------------------------------------------------------------------ */

static void take_run(DxSketch *sketch, uint64_t run) {
    /* Odd factors and a shift: 128 hash functions of one hash. */
    uint64_t factor = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < DX_SKETCH_HASHES; i++) {
        factor = factor * 0xd1342543de82ef95u + 2;
        uint32_t value = (uint32_t)((run ^ factor >> 7) * factor >> 32);
        if (value < sketch->least[i]) sketch->least[i] = value;
    }
}

static bool in_word(unsigned char byte) {
    return isalnum(byte) || byte >= 0x80;
}

/* Case, punctuation and white space do not count for near texts. */
static void sketch_runs(const char *text, size_t length, DxSketch *sketch) {
    uint64_t words[RUN] = {0};
    size_t count = 0;
    for (size_t at = 0; at < length;) {
        while (at < length && !in_word((unsigned char)text[at])) at++;
        uint64_t word = 0xcbf29ce484222325u;
        size_t begin = at;
        for (; at < length && in_word((unsigned char)text[at]); at++)
            word =
                (word ^ (uint64_t)(unsigned char)tolower((unsigned char)text[at])) * 0x100000001b3u;
        if (at == begin) break;
        words[count++ % RUN] = mixed(word);
        if (count < RUN) continue;
        uint64_t run = 0;
        for (size_t i = 0; i < RUN; i++) run = mixed(run + words[(count + i) % RUN]);
        take_run(sketch, run);
    }
    if (count >= RUN) return;
    uint64_t run = count;
    for (size_t i = 0; i < count; i++) run = mixed(run + words[i]);
    take_run(sketch, run);
}

void dx_sketch(const char *text, size_t length, DxSketch *sketch) {
    uint64_t one = 0xcbf29ce484222325u, two = 0x2545f4914f6cdd1du;
    bool space = false, any = false;
    memset(sketch->least, 0xff, sizeof sketch->least);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (isspace(byte)) {
            space = any;
            continue;
        }
        for (int part = space ? 0 : 1; part < 2; part++) {
            unsigned char hashed = part ? byte : ' ';
            one = (one ^ hashed) * 0x100000001b3u;
            two = mixed(two + hashed);
        }
        any = true;
        space = false;
    }
    sketch->exact[0] = one;
    sketch->exact[1] = two;
    sketch_runs(text, length, sketch);
}

double dx_sketch_similarity(const DxSketch *a, const DxSketch *b) {
    int same = 0;
    for (int i = 0; i < DX_SKETCH_HASHES; i++) same += a->least[i] == b->least[i];
    return (double)same / DX_SKETCH_HASHES;
}

/* ---- what was seen --------------------------------------------------------------------------- */

/* Slot 0 of a text is its exact hash, the others its bands. */
enum { SLOTS = BANDS + 1 };

struct DxDuplicates {
    double similarity;
    size_t slots;
    DxSketch *sketches;
    size_t count, capacity;
    uint32_t *chains; /* [count, slots]: the text before in a bucket, plus one */
    size_t chains_capacity;
    uint32_t *buckets; /* the last text of each, plus one */
    size_t n_buckets;  /* a power of two */
};

DxDuplicates *dx_duplicates_new(double similarity) {
    DxDuplicates *duplicates = base_calloc(1, sizeof *duplicates);
    duplicates->similarity = similarity;
    duplicates->slots = similarity < 1 ? SLOTS : 1;
    duplicates->n_buckets = 1 << 10;
    duplicates->buckets = base_calloc(duplicates->n_buckets, sizeof *duplicates->buckets);
    return duplicates;
}

void dx_duplicates_free(DxDuplicates *duplicates) {
    if (!duplicates) return;
    free(duplicates->sketches);
    free(duplicates->chains);
    free(duplicates->buckets);
    free(duplicates);
}

static uint32_t *bucket_of(const DxDuplicates *duplicates, const DxSketch *sketch, size_t slot) {
    uint64_t hash = sketch->exact[0];
    if (slot > 0) {
        hash = slot;
        for (int i = 0; i < ROWS; i++)
            hash = mixed(hash + sketch->least[(int)(slot - 1) * ROWS + i]);
    }
    return &duplicates->buckets[hash & (duplicates->n_buckets - 1)];
}

static void enter(DxDuplicates *duplicates, size_t text) {
    for (size_t slot = 0; slot < duplicates->slots; slot++) {
        uint32_t *bucket = bucket_of(duplicates, &duplicates->sketches[text], slot);
        duplicates->chains[text * duplicates->slots + slot] = *bucket;
        *bucket = (uint32_t)text + 1;
    }
}

static void grow_buckets(DxDuplicates *duplicates) {
    if (duplicates->count * duplicates->slots < duplicates->n_buckets) return;
    duplicates->n_buckets *= 4;
    free(duplicates->buckets);
    duplicates->buckets = base_calloc(duplicates->n_buckets, sizeof *duplicates->buckets);
    for (size_t i = 0; i < duplicates->count; i++) enter(duplicates, i);
}

static bool same_words(const DxSketch *a, const DxSketch *b) {
    return a->exact[0] == b->exact[0] && a->exact[1] == b->exact[1];
}

static int64_t find(const DxDuplicates *duplicates, const DxSketch *sketch, bool *exactly) {
    for (size_t slot = 0; slot < duplicates->slots; slot++) {
        uint32_t at = *bucket_of(duplicates, sketch, slot);
        for (int compared = 0; at && (slot == 0 || compared < MOST_COMPARED); compared++) {
            const DxSketch *other = &duplicates->sketches[at - 1];
            *exactly = same_words(sketch, other);
            if (*exactly ||
                (slot > 0 && dx_sketch_similarity(sketch, other) >= duplicates->similarity))
                return (int64_t)at - 1;
            at = duplicates->chains[(size_t)(at - 1) * duplicates->slots + slot];
        }
    }
    *exactly = false;
    return -1;
}

int64_t dx_duplicates_add(DxDuplicates *duplicates, const DxSketch *sketch, bool *exactly) {
    bool ignored;
    int64_t found = find(duplicates, sketch, exactly ? exactly : &ignored);
    if (found >= 0) return found;
    size_t text = duplicates->count;
    duplicates->sketches = base_grow(duplicates->sketches, &duplicates->capacity, text + 1,
                                     sizeof *duplicates->sketches);
    duplicates->chains = base_grow(duplicates->chains, &duplicates->chains_capacity,
                                   (text + 1) * duplicates->slots, sizeof *duplicates->chains);
    duplicates->sketches[text] = *sketch;
    duplicates->count = text + 1;
    enter(duplicates, text);
    grow_buckets(duplicates);
    return -1;
}
