/* Encoding: runs a text through the stages, then puts the post-processor's
 * template around the ids. The cache remembers the ids of short pieces, because
 * most words of a text come again. */
#include "text/tokenizer_parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* ---- work --------------------------------------------------------------- */

TextWork *text_work_take(const TextTokenizer *tokenizer) {
    /* The lock and the idle list are the only things that change. */
    TextTokenizer *shared = (TextTokenizer *)(uintptr_t)tokenizer;
    pthread_mutex_lock(&shared->lock);
    TextWork *work = shared->idle;
    if (work) shared->idle = work->next;
    pthread_mutex_unlock(&shared->lock);
    if (!work) {
        work = base_calloc(1, sizeof *work);
        work->tokenizer = tokenizer;
    }
    work->failed = false;
    work->emitted = 0;
    return work;
}

void text_work_give(const TextTokenizer *tokenizer, TextWork *work) {
    TextTokenizer *shared = (TextTokenizer *)(uintptr_t)tokenizer;
    pthread_mutex_lock(&shared->lock);
    work->next = shared->idle;
    shared->idle = work;
    pthread_mutex_unlock(&shared->lock);
}

void text_work_free(TextWork *work) {
    if (!work) return;
    text_buffer_free(&work->valid);
    text_buffer_free(&work->normal[0]);
    text_buffer_free(&work->normal[1]);
    for (size_t i = 0; i < TEXT_MAX_STAGES; i++) text_buffer_free(&work->stages[i]);
    free(work->spans);
    free(work->cache);
    free(work->symbols.ids);
    free(work->symbols.begin);
    free(work->symbols.next);
    free(work->symbols.previous);
    free(work->symbols.rank);
    free(work->symbols.product);
    free(work->paths);
    free(work->unused_cuts);
    free(work->joins);
    free(work->symbols.heap);
    base_str_free(&work->scratch);
    pcre2_match_data_free(work->match_data);
    free(work);
}

void text_work_emit(TextWork *work, int32_t id, TextView piece, size_t begin, size_t end) {
    text_ids_append(work->ids, id);
    if (!work->want_spans) return;
    if (work->emitted == work->span_capacity)
        work->spans =
            base_grow(work->spans, &work->span_capacity, work->emitted + 1, sizeof *work->spans);
    work->spans[work->emitted++] = text_view_span(piece, begin, end);
}

/* ---- the model, through the cache --------------------------------------- */

static uint64_t hash_piece(const char *data, size_t length) {
    uint64_t hash = length * 0x9E3779B97F4A7C15ull, word;
    for (; length >= 8; data += 8, length -= 8) {
        memcpy(&word, data, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdull;
        hash ^= hash >> 32;
    }
    if (length) {
        word = 0;
        memcpy(&word, data, length);
        hash = (hash ^ word) * 0xff51afd7ed558ccdull;
        hash ^= hash >> 32;
    }
    return hash * 0x9E3779B97F4A7C15ull;
}

static bool model_piece(const TextModel *model, TextWork *work, TextView piece) {
    switch (model->kind) {
    case MODEL_BPE: return text_bpe_piece(model, work, piece);
    case MODEL_WORDPIECE: return text_wordpiece_piece(model, work, piece);
    case MODEL_WORDLEVEL: return text_wordlevel_piece(model, work, piece);
    case MODEL_UNIGRAM: return text_unigram_piece(model, work, piece);
    case MODEL_TEXT_BPE: return text_bpe_piece(model, work, piece);
    }
    return false;
}

static void cached_piece(const TextModel *model, TextWork *work, TextView piece) {
    if (!work->cache) work->cache = base_calloc(TEXT_CACHE_SLOTS, sizeof *work->cache);
    uint64_t hash = hash_piece(piece.data, piece.length);
    TextCacheSlot *slot = &work->cache[hash >> 32 & (TEXT_CACHE_SLOTS - 1)];
    if (slot->tag == (uint32_t)hash && slot->length == piece.length &&
        memcmp(slot->key, piece.data, piece.length) == 0) {
        TextIds *ids = work->ids;
        if (ids->length + slot->count > ids->capacity)
            ids->data =
                base_grow(ids->data, &ids->capacity, ids->length + slot->count, sizeof *ids->data);
        for (size_t i = 0; i < slot->count; i++) ids->data[ids->length + i] = slot->ids[i];
        ids->length += slot->count;
        return;
    }
    size_t start = work->ids->length;
    if (!model_piece(model, work, piece)) {
        work->failed = true;
        return;
    }
    size_t count = work->ids->length - start;
    if (count > TEXT_CACHED_IDS) return;
    slot->tag = (uint32_t)hash;
    slot->length = (uint8_t)piece.length;
    slot->count = (uint8_t)count;
    memcpy(slot->key, piece.data, piece.length);
    if (count) memcpy(slot->ids, work->ids->data + start, count * sizeof *slot->ids);
}

void text_work_piece(TextWork *work, size_t stage, TextView piece) {
    const TextTokenizer *tokenizer = work->tokenizer;
    if (stage < tokenizer->pre_tokenizers.count) {
        const TextPreTokenizer *part = &tokenizer->pre_tokenizers.parts[stage];
        part->run(part, work, stage, piece);
    } else if (!work->want_spans && piece.length <= TEXT_CACHED_KEY) {
        cached_piece(&tokenizer->model, work, piece);
    } else if (!model_piece(&tokenizer->model, work, piece)) {
        work->failed = true;
    }
}

/* ---- one sequence ------------------------------------------------------- */

static void after_normalizing(TextWork *work, const TextAdded *token, TextView part) {
    if (token)
        text_work_emit(work, token->id, part, 0, part.length);
    else if (part.length)
        text_work_piece(work, 0, part);
}

static void before_normalizing(TextWork *work, const TextAdded *token, TextView part) {
    const TextTokenizer *tokenizer = work->tokenizer;
    if (token) {
        text_work_emit(work, token->id, part, 0, part.length);
        return;
    }
    part = text_normalize(&tokenizer->normalizers, work, part);
    if (!work->failed)
        text_added_cut(&tokenizer->added, true, work->parse_special, part, after_normalizing, work);
}

/* Invalid bytes become U+FFFD, which remembers them as its origin. */
static TextView make_valid(TextWork *work, const char *text, size_t length) {
    if (base_utf8_valid(text, length)) return (TextView){.data = text, .length = length};
    text_buffer_reset(&work->valid, work->track);
    for (size_t i = 0, step; i < length; i += step) {
        uint32_t code;
        step = base_utf8_decode(text + i, length - i, &code, NULL);
        text_buffer_add_code(&work->valid, code, (TextSpan){i, i + step});
    }
    return text_buffer_view(&work->valid);
}

/* A byte-level model cuts characters; the spans given out do not. */
static void widen_spans(TextWork *work, const char *text, size_t length) {
    for (size_t i = 0; i < work->emitted; i++) {
        TextSpan *span = &work->spans[i];
        while (span->begin > 0 && span->begin < length && (text[span->begin] & 0xC0) == 0x80)
            span->begin--;
        while (span->end > 0 && span->end < length && (text[span->end] & 0xC0) == 0x80) span->end++;
    }
}

static bool encode_sequence(TextWork *work, const char *text, size_t length, Error *err) {
    Error unwanted;
    base_error_clear(&unwanted);
    work->err = err ? err : &unwanted;
    work->track = work->want_spans || work->tokenizer->pre_tokenizers.needs_origins;
    if (length == 0) return true;
    TextView view = make_valid(work, text, length);
    text_added_cut(&work->tokenizer->added, false, work->parse_special, view, before_normalizing,
                   work);
    if (work->want_spans) widen_spans(work, text, length);
    if (work->failed) base_error_context(err, "encode");
    return !work->failed;
}

/* ---- truncation --------------------------------------------------------- */

/* How many ids of each sequence stay. */
static bool truncate_lengths(TextEncodeOptions options, size_t special, bool pair,
                             size_t lengths[2], Error *err) {
    if (!options.max_length) return true;
    if (options.max_length < special)
        return base_fail(err, ERROR_INPUT,
                         "encode: max_length %zu is less than the %zu special tokens",
                         options.max_length, special);
    size_t room = options.max_length - special, total = lengths[0] + lengths[1];
    if (total <= room) return true;
    size_t excess = total - room;
    if (options.truncation == TEXT_TRUNCATE_LONGEST_FIRST) {
        if (!pair) {
            lengths[0] = room;
            return true;
        }
        bool swap = lengths[0] > lengths[1];
        size_t shorter = lengths[swap], longer;
        longer = shorter > room ? shorter : BASE_MAX(shorter, room - shorter);
        if (shorter + longer > room) {
            shorter = room / 2;
            longer = shorter + room % 2;
        }
        lengths[swap] = shorter;
        lengths[!swap] = longer;
        return true;
    }
    bool second = options.truncation == TEXT_TRUNCATE_ONLY_SECOND;
    if (second && !pair)
        return base_fail(err, ERROR_INPUT, "encode: there is no second sequence to truncate");
    if (lengths[second] <= excess)
        return base_fail(err, ERROR_INPUT,
                         "encode: the %s sequence has %zu tokens, too few to cut %zu",
                         second ? "second" : "first", lengths[second], excess);
    lengths[second] -= excess;
    return true;
}

/* ---- the face ----------------------------------------------------------- */

void text_ids_append(TextIds *ids, int32_t id) {
    if (ids->length == ids->capacity)
        ids->data = base_grow(ids->data, &ids->capacity, ids->length + 1, sizeof *ids->data);
    ids->data[ids->length++] = id;
}

void text_ids_free(TextIds *ids) {
    free(ids->data);
    *ids = (TextIds){0};
}

void text_encoding_free(TextEncoding *encoding) {
    free(encoding->ids);
    free(encoding->type_ids);
    free(encoding->attention_mask);
    free(encoding->sequence);
    free(encoding->spans);
    *encoding = (TextEncoding){0};
}

static void encoding_reserve(TextEncoding *encoding, size_t needed) {
    if (needed <= encoding->capacity) return;
    size_t capacity = BASE_MAX(needed, (size_t)16);
    encoding->ids = base_realloc(encoding->ids, capacity * sizeof *encoding->ids);
    encoding->type_ids = base_realloc(encoding->type_ids, capacity * sizeof *encoding->type_ids);
    encoding->attention_mask =
        base_realloc(encoding->attention_mask, capacity * sizeof *encoding->attention_mask);
    encoding->sequence = base_realloc(encoding->sequence, capacity * sizeof *encoding->sequence);
    encoding->spans = base_realloc(encoding->spans, capacity * sizeof *encoding->spans);
    encoding->capacity = capacity;
}

static void encoding_set(TextEncoding *encoding, size_t at, int32_t id, int32_t type_id,
                         int8_t sequence, TextSpan span) {
    encoding->ids[at] = id;
    encoding->type_ids[at] = type_id;
    encoding->attention_mask[at] = 1;
    encoding->sequence[at] = sequence;
    encoding->spans[at] = span;
}

/* ids[0, n1) and from n1 on are the two sequences; spans likewise. */
static void fill_template(const TextTemplate *template, bool add_special, const TextIds *ids,
                          const TextSpan *spans, const size_t begins[2], const size_t lengths[2],
                          TextEncoding *encoding) {
    size_t at = 0;
    for (size_t i = 0; i < template->count; i++) {
        const TextTemplateItem *item = &template->items[i];
        if (item->sequence < 0) {
            if (!add_special) continue;
            encoding_reserve(encoding, at + item->count);
            for (size_t k = 0; k < item->count; k++)
                encoding_set(encoding, at++, item->ids[k], item->type_id, -1, (TextSpan){0, 0});
            continue;
        }
        size_t begin = begins[item->sequence], count = lengths[item->sequence];
        encoding_reserve(encoding, at + count);
        for (size_t k = begin; k < begin + count; k++)
            encoding_set(encoding, at++, ids->data[k], item->type_id, item->sequence, spans[k]);
    }
    encoding->length = at;
}

static bool encode_full(const TextTokenizer *tokenizer, const char *const texts[2],
                        const size_t bytes[2], bool pair, TextEncodeOptions options,
                        TextEncoding *encoding, Error *err) {
    const TextTemplate *template = pair ? &tokenizer->post.pair : &tokenizer->post.single;
    TextIds ids = {0};
    TextWork *work = text_work_take(tokenizer);
    work->ids = &ids;
    work->want_spans = true;
    work->parse_special = options.parse_special;
    bool ok = encode_sequence(work, texts[0], bytes[0], err);
    size_t begins[2] = {0, ids.length}, lengths[2] = {ids.length, 0};
    TextSpan *first_spans = NULL;
    if (ok && pair) {
        /* The second sequence's spans are widened against its own text. */
        first_spans = work->spans;
        size_t first = work->emitted;
        work->spans = NULL;
        work->span_capacity = work->emitted = 0;
        ok = encode_sequence(work, texts[1], bytes[1], err);
        lengths[1] = ids.length - first;
        first_spans = base_realloc(first_spans, (ids.length + 1) * sizeof *first_spans);
        if (work->emitted)
            memcpy(first_spans + first, work->spans, work->emitted * sizeof *first_spans);
    }
    size_t before[2] = {lengths[0], lengths[1]};
    ok = ok &&
         truncate_lengths(options, options.add_special ? template->special : 0, pair, lengths, err);
    if (ok) {
        for (size_t i = 0; i < 2 && options.keep_left; i++) begins[i] += before[i] - lengths[i];
        fill_template(template, options.add_special, &ids, pair ? first_spans : work->spans, begins,
                      lengths, encoding);
    }
    free(first_spans);
    text_work_give(tokenizer, work);
    text_ids_free(&ids);
    return ok;
}

bool text_tokenizer_encode_spans(const TextTokenizer *tokenizer, const char *text, size_t length,
                                 TextEncodeOptions options, TextEncoding *encoding, Error *err) {
    return encode_full(tokenizer, (const char *const[]){text, NULL}, (const size_t[]){length, 0},
                       false, options, encoding, err);
}

bool text_tokenizer_encode_pair(const TextTokenizer *tokenizer, const char *first,
                                size_t first_length, const char *second, size_t second_length,
                                TextEncodeOptions options, TextEncoding *encoding, Error *err) {
    return encode_full(tokenizer, (const char *const[]){first, second},
                       (const size_t[]){first_length, second_length}, true, options, encoding, err);
}

/* Ids of one sequence without its template, appended; no spans, so cached. */
static bool encode_plain(const TextTokenizer *tokenizer, const char *text, size_t length,
                         bool parse_special, TextIds *ids, Error *err) {
    size_t start = ids->length;
    TextWork *work = text_work_take(tokenizer);
    work->ids = ids;
    work->want_spans = false;
    work->parse_special = parse_special;
    bool ok = encode_sequence(work, text, length, err);
    text_work_give(tokenizer, work);
    if (!ok) ids->length = start;
    return ok;
}

bool text_tokenizer_encode(const TextTokenizer *tokenizer, const char *text, size_t length,
                           TextEncodeOptions options, TextIds *ids, Error *err) {
    const TextTemplate *template = &tokenizer->post.single;
    if (!options.add_special && !options.max_length)
        return encode_plain(tokenizer, text, length, options.parse_special, ids, err);
    TextIds own = {0};
    bool ok = encode_plain(tokenizer, text, length, options.parse_special, &own, err);
    size_t lengths[2] = {own.length, 0};
    ok = ok && truncate_lengths(options, options.add_special ? template->special : 0, false,
                                lengths, err);
    size_t begin = options.keep_left ? own.length - lengths[0] : 0;
    for (size_t i = 0; ok && i < template->count; i++) {
        const TextTemplateItem *item = &template->items[i];
        if (item->sequence == 0)
            for (size_t k = begin; k < begin + lengths[0]; k++) text_ids_append(ids, own.data[k]);
        for (size_t k = 0; item->sequence < 0 && options.add_special && k < item->count; k++)
            text_ids_append(ids, item->ids[k]);
    }
    text_ids_free(&own);
    return ok;
}

void text_encoding_pad(TextEncoding *encoding, size_t length, int32_t pad_id, int32_t pad_type_id,
                       bool left) {
    if (encoding->length >= length) return;
    size_t old = encoding->length, added = length - old, start = left ? 0 : old;
    encoding_reserve(encoding, length);
    if (left) {
        memmove(encoding->ids + added, encoding->ids, old * sizeof *encoding->ids);
        memmove(encoding->type_ids + added, encoding->type_ids, old * sizeof *encoding->type_ids);
        memmove(encoding->attention_mask + added, encoding->attention_mask,
                old * sizeof *encoding->attention_mask);
        memmove(encoding->sequence + added, encoding->sequence, old * sizeof *encoding->sequence);
        memmove(encoding->spans + added, encoding->spans, old * sizeof *encoding->spans);
    }
    for (size_t i = start; i < start + added; i++) {
        encoding_set(encoding, i, pad_id, pad_type_id, -1, (TextSpan){0, 0});
        encoding->attention_mask[i] = 0;
    }
    encoding->length = length;
}

size_t text_tokenizer_count(const TextTokenizer *tokenizer, const char *text, size_t length) {
    TextIds ids = {0};
    bool ok = encode_plain(tokenizer, text, length, false, &ids, NULL);
    size_t count = ok ? ids.length : length;
    text_ids_free(&ids);
    return count;
}

size_t text_tokenizer_count_special(const TextTokenizer *tokenizer, bool pair) {
    return pair ? tokenizer->post.pair.special : tokenizer->post.single.special;
}
