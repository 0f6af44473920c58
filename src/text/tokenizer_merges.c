/* The merges of a byte-pair model as a file lists them: each is a pair of ids and
 * the id of what they become, in a list by rank, found through a table of slots.
 * Small tables matter here: opening a tokenizer is waiting for memory. */
#include "text/tokenizer_parts.h"

static size_t slots_for(size_t pairs) {
    size_t slots = 64;
    while (slots < pairs * 2) slots *= 2;
    return slots;
}

static uint64_t pair_hash(int32_t left, int32_t right) {
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * TEXT_PAIR_HASH;
}

/* A pair that is listed twice keeps its later rank. */
static void put_slot(TextModel *model, size_t index) {
    const TextPair *pair = &model->pairs[index];
    uint64_t hash = pair_hash(pair->left, pair->right);
    size_t mask = model->pair_slot_count - 1, slot = (size_t)(hash >> 32) & mask;
    uint32_t tag = (uint32_t)(hash >> 32) & 0xFF000000, found;
    for (; (found = model->pair_slots[slot]) != 0; slot = (slot + 1) & mask) {
        const TextPair *other = &model->pairs[(found & 0xFFFFFF) - 1];
        if ((found & 0xFF000000) == tag && other->left == pair->left && other->right == pair->right)
            break;
    }
    model->pair_slots[slot] = tag | (uint32_t)(index + 1);
}

static void make_slots(TextModel *model, size_t count) {
    free(model->pair_slots);
    model->pair_slots = base_calloc(count, sizeof *model->pair_slots);
    model->pair_slot_count = count;
    for (size_t i = 0; i < model->pair_count; i++) put_slot(model, i);
}

void text_model_start_merges(TextModel *model, size_t expected) {
    model->pair_count = 0;
    model->pairs = base_grow(model->pairs, &model->pair_capacity, expected, sizeof *model->pairs);
    make_slots(model, slots_for(expected));
}

/* The id of left + right, or -1. Trainers number products in the order of the
 * merges, so the next id is tried first. */
static int32_t find_product(TextModel *model, TextPiece left, TextPiece right) {
    char small[256];
    size_t length = left.length + right.length, next_length;
    const char *next = text_vocab_text(&model->vocab, model->last_product + 1, &next_length);
    if (next && next_length == length && memcmp(next, left.text, left.length) == 0 &&
        memcmp(next + left.length, right.text, right.length) == 0)
        return ++model->last_product;
    char *joined = length <= sizeof small ? small : base_alloc(length);
    memcpy(joined, left.text, left.length);
    memcpy(joined + left.length, right.text, right.length);
    model->last_product = text_vocab_find(&model->vocab, joined, length);
    if (joined != small) free(joined);
    return model->last_product;
}

static bool resolve(TextModel *model, const TextPiece texts[2], const int32_t ids[2],
                    TextPair *pair, Error *err) {
    size_t prefix = model->prefix ? strlen(model->prefix) : 0;
    unsigned rank = (unsigned)model->pair_count;
    if (ids[0] < 0 || ids[1] < 0) {
        TextPiece lacks = texts[ids[0] >= 0];
        return base_fail(err, ERROR_INPUT, "merge %u: \"%.*s\" is not in the vocabulary", rank,
                         (int)BASE_MIN(lacks.length, (size_t)60), lacks.text);
    }
    if (texts[1].length < prefix)
        return base_fail(err, ERROR_INPUT,
                         "merge %u: the right side lacks the prefix of continuing subwords", rank);
    TextPiece right = {texts[1].text + prefix, texts[1].length - prefix};
    *pair = (TextPair){ids[0], ids[1], find_product(model, texts[0], right)};
    return pair->product >= 0 ||
           base_fail(err, ERROR_INPUT,
                     "merge %u: its product \"%.*s%.*s\" is not in the vocabulary", rank,
                     (int)BASE_MIN(texts[0].length, (size_t)30), texts[0].text,
                     (int)BASE_MIN(right.length, (size_t)30), right.text);
}

bool text_model_add_merges(TextModel *model, const TextPiece *texts, size_t count, Error *err) {
    int32_t ids[TEXT_BATCH];
    size_t first = model->pair_count;
    if (first + count >= TEXT_MAX_IDS)
        return base_fail(err, ERROR_INPUT, "more than %d merges", TEXT_MAX_IDS);
    text_vocab_find_many(&model->vocab, texts, 2 * count, ids);
    model->pairs =
        base_grow(model->pairs, &model->pair_capacity, first + count, sizeof *model->pairs);
    for (size_t i = 0; i < count; i++) {
        TextPair *pair = &model->pairs[first + i];
        if (!resolve(model, texts + 2 * i, ids + 2 * i, pair, err)) return false;
        size_t slot = (size_t)(pair_hash(pair->left, pair->right) >> 32);
        __builtin_prefetch(&model->pair_slots[slot & (model->pair_slot_count - 1)], 1);
        model->pair_count++;
    }
    if (model->pair_count * 2 > model->pair_slot_count) {
        make_slots(model, slots_for(model->pair_count * 2));
        return true;
    }
    for (size_t i = first; i < model->pair_count; i++) put_slot(model, i);
    return true;
}
