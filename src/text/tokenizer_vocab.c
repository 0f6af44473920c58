/* The vocabulary: texts by id in one block of memory, ids by text through an
 * open-addressing table of FNV-1a hashes. */
#include "text/tokenizer_parts.h"

static uint64_t finish_hash(uint64_t hash) {
    hash ^= hash >> 32;
    hash *= 0x9E3779B97F4A7C15ull;
    return hash ^ hash >> 29;
}

/* What a slot remembers of a hash: bits that do not choose the slot. */
static uint32_t tag_of(uint64_t mixed) {
    return (uint32_t)(mixed >> 56) << 24;
}
static uint32_t id_of(uint32_t slot) {
    return (slot & 0xFFFFFF) - 1;
}

static uint64_t hash_text(const char *text, size_t length) {
    uint64_t hash = TEXT_HASH_START;
    for (size_t i = 0; i < length; i++) hash = text_hash_step(hash, (uint8_t)text[i]);
    return hash;
}

static bool same_text(const TextVocab *vocab, uint32_t id, const char *text, size_t length) {
    const struct TextVocabEntry *entry = &vocab->entries[id];
    return entry->length == length && memcmp(vocab->blob + entry->offset, text, length) == 0;
}

static const uint32_t *first_slot(const TextVocab *vocab, uint64_t hash) {
    return &vocab->slots[(size_t)finish_hash(hash) & (vocab->slot_count - 1)];
}

/* The slot of the text, or the empty one where it would go. */
static size_t find_slot(const TextVocab *vocab, const char *text, size_t length, uint64_t hash) {
    uint64_t mixed = finish_hash(hash);
    size_t mask = vocab->slot_count - 1, slot = (size_t)mixed & mask;
    uint32_t tag = tag_of(mixed);
    for (; vocab->slots[slot]; slot = (slot + 1) & mask)
        if ((vocab->slots[slot] & 0xFF000000) == tag &&
            same_text(vocab, id_of(vocab->slots[slot]), text, length))
            break;
    return slot;
}

static void set_slot(TextVocab *vocab, size_t slot, uint64_t hash, uint32_t id) {
    vocab->slots[slot] = tag_of(finish_hash(hash)) | (id + 1);
}

static void rebuild_slots(TextVocab *vocab, size_t slot_count) {
    uint32_t *old = vocab->slots;
    size_t old_count = vocab->slot_count;
    vocab->slots = base_calloc(slot_count, sizeof *vocab->slots);
    vocab->slot_count = slot_count;
    for (size_t i = 0; i < old_count; i++) {
        if (!old[i]) continue;
        uint32_t id = id_of(old[i]);
        const struct TextVocabEntry *entry = &vocab->entries[id];
        const char *text = vocab->blob + entry->offset;
        uint64_t hash = hash_text(text, entry->length);
        set_slot(vocab, find_slot(vocab, text, entry->length, hash), hash, id);
    }
    free(old);
}

static size_t slots_for(size_t tokens) {
    size_t slots = 64;
    while (slots < tokens * 2) slots *= 2;
    return slots;
}

static void grow_entries(TextVocab *vocab, size_t size) {
    vocab->entries = base_grow(vocab->entries, &vocab->capacity, size, sizeof *vocab->entries);
    for (size_t i = vocab->size; i < size; i++)
        vocab->entries[i] = (struct TextVocabEntry){UINT32_MAX, 0};
    vocab->size = size;
}

void text_vocab_reserve(TextVocab *vocab, size_t bytes, size_t tokens) {
    vocab->blob = base_grow(vocab->blob, &vocab->blob_capacity, bytes + tokens, 1);
    vocab->entries = base_grow(vocab->entries, &vocab->capacity, tokens, sizeof *vocab->entries);
    if (slots_for(tokens) > vocab->slot_count) rebuild_slots(vocab, slots_for(tokens));
}

static bool add_hashed(TextVocab *vocab, const char *text, size_t length, uint64_t hash, int64_t id,
                       Error *err) {
    if (id < 0 || id >= TEXT_MAX_IDS)
        return base_fail(err, ERROR_INPUT,
                         "vocabulary: token \"%.*s\" has the id %lld, outside 0..%d",
                         (int)BASE_MIN(length, (size_t)60), text, (long long)id, TEXT_MAX_IDS - 1);
    if (vocab->blob_length + length + 1 >= UINT32_MAX)
        return base_fail(err, ERROR_MEMORY, "vocabulary: more than 4 GiB of token texts");
    if ((vocab->count + 1) * 2 > vocab->slot_count)
        rebuild_slots(vocab, slots_for((vocab->count + 1) * 2));
    size_t slot = find_slot(vocab, text, length, hash);
    if (vocab->slots[slot]) {
        uint32_t old = id_of(vocab->slots[slot]);
        if (old == (uint32_t)id) return true;
        /* The text moves to its new id; the old one names nothing any more. */
        struct TextVocabEntry entry = vocab->entries[old];
        if ((size_t)id < vocab->size && vocab->entries[id].offset != UINT32_MAX)
            return base_fail(err, ERROR_INPUT, "vocabulary: two tokens have the id %lld",
                             (long long)id);
        vocab->entries[old].offset = UINT32_MAX;
        if ((size_t)id >= vocab->size) grow_entries(vocab, (size_t)id + 1);
        vocab->entries[id] = entry;
        set_slot(vocab, slot, hash, (uint32_t)id);
        return true;
    }
    if ((size_t)id >= vocab->size) grow_entries(vocab, (size_t)id + 1);
    if (vocab->entries[id].offset != UINT32_MAX)
        return base_fail(err, ERROR_INPUT, "vocabulary: two tokens have the id %lld",
                         (long long)id);
    size_t needed = vocab->blob_length + length + 1;
    if (needed > vocab->blob_capacity)
        vocab->blob = base_grow(vocab->blob, &vocab->blob_capacity, needed, 1);
    memcpy(vocab->blob + vocab->blob_length, text, length);
    vocab->blob[vocab->blob_length + length] = '\0';
    vocab->entries[id] = (struct TextVocabEntry){(uint32_t)vocab->blob_length, (uint32_t)length};
    vocab->blob_length = needed;
    set_slot(vocab, slot, hash, (uint32_t)id);
    vocab->longest = BASE_MAX(vocab->longest, length);
    vocab->count++;
    return true;
}

bool text_vocab_add(TextVocab *vocab, const char *text, size_t length, int64_t id, Error *err) {
    return add_hashed(vocab, text, length, hash_text(text, length), id, err);
}

/* Hashes of texts, and their slots asked for. */
static void hash_many(const TextVocab *vocab, const TextPiece *texts, size_t count,
                      uint64_t *hashes) {
    for (size_t i = 0; i < count; i++) {
        hashes[i] = hash_text(texts[i].text, texts[i].length);
        if (vocab->slot_count) __builtin_prefetch(first_slot(vocab, hashes[i]));
    }
}

bool text_vocab_add_many(TextVocab *vocab, const TextPiece *texts, const int64_t *ids, size_t count,
                         Error *err) {
    uint64_t hashes[TEXT_BATCH];
    hash_many(vocab, texts, count, hashes);
    for (size_t i = 0; i < count; i++)
        if (!add_hashed(vocab, texts[i].text, texts[i].length, hashes[i], ids[i], err))
            return false;
    return true;
}

int32_t text_vocab_find_hashed(const TextVocab *vocab, const char *text, size_t length,
                               uint64_t hash) {
    if (!vocab->slot_count || length > vocab->longest) return -1;
    uint32_t slot = vocab->slots[find_slot(vocab, text, length, hash)];
    return slot ? (int32_t)id_of(slot) : -1;
}

int32_t text_vocab_find(const TextVocab *vocab, const char *text, size_t length) {
    if (length > vocab->longest) return -1;
    return text_vocab_find_hashed(vocab, text, length, hash_text(text, length));
}

/* First the slots, then what they lead to, last the comparing. */
void text_vocab_find_many(const TextVocab *vocab, const TextPiece *texts, size_t count,
                          int32_t *ids) {
    uint64_t hashes[TEXT_BATCH];
    hash_many(vocab, texts, count, hashes);
    for (size_t i = 0; i < count && vocab->slot_count; i++) {
        uint32_t slot = *first_slot(vocab, hashes[i]);
        if (slot) __builtin_prefetch(&vocab->entries[id_of(slot)]);
    }
    for (size_t i = 0; i < count && vocab->slot_count; i++) {
        uint32_t slot = *first_slot(vocab, hashes[i]);
        if (slot) __builtin_prefetch(vocab->blob + vocab->entries[id_of(slot)].offset);
    }
    for (size_t i = 0; i < count; i++)
        ids[i] = text_vocab_find_hashed(vocab, texts[i].text, texts[i].length, hashes[i]);
}

const char *text_vocab_text(const TextVocab *vocab, int32_t id, size_t *length) {
    if (id < 0 || (size_t)id >= vocab->size || vocab->entries[id].offset == UINT32_MAX) return NULL;
    if (length) *length = vocab->entries[id].length;
    return vocab->blob + vocab->entries[id].offset;
}

void text_vocab_free(TextVocab *vocab) {
    free(vocab->blob);
    free(vocab->entries);
    free(vocab->slots);
    *vocab = (TextVocab){0};
}
