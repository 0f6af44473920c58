/* Vocabularies whose tokens are bytes in base64 and whose merges are the order of
 * the tokens: what tiktoken's rank files and Mistral's tekken.json share. */
#include "text/tokenizer_parts.h"

/* ---- base64 ------------------------------------------------------------- */

/* Values of the characters from space to DEL; 64 is none. */
static const uint8_t base64_values[96] = {
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 62, 64, 64, 64, 63, 52, 53, 54, 55, 56, 57, 58, 59,
    60, 61, 64, 64, 64, 64, 64, 64, 64, 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 64, 64, 64, 64, 64, 64, 26, 27, 28, 29, 30, 31, 32,
    33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 64, 64, 64, 64, 64,
};

static uint32_t base64_value(char c) {
    size_t at = (size_t)(uint8_t)c - 32;
    return at < sizeof base64_values ? base64_values[at] : 64;
}

bool text_base64_append(const char *text, size_t length, StrBuf *out) {
    size_t start = out->length, at = 0;
    while (length && text[length - 1] == '=') length--;
    base_str_append_n(out, text, length); /* makes room: the bytes are fewer, and go over it */
    uint8_t *bytes = (uint8_t *)out->data + start;
    uint32_t seen = 0, bits = 0;
    for (; length - at >= 4; at += 4) {
        bits = 0;
        for (size_t i = 0; i < 4; i++) {
            uint32_t value = base64_value(text[at + i]);
            seen |= value;
            bits = bits << 6 | value;
        }
        for (int shift = 16; shift >= 0; shift -= 8) *bytes++ = (uint8_t)(bits >> shift);
    }
    size_t left = length - at;
    for (bits = 0; at < length; at++) {
        uint32_t value = base64_value(text[at]);
        seen |= value;
        bits = bits << 6 | value;
    }
    if (left > 1) *bytes++ = (uint8_t)(bits >> (left * 6 - 8));
    if (left > 2) *bytes++ = (uint8_t)(bits >> (left * 6 - 16));
    bool ok = left != 1 && seen < 64;
    out->length = ok ? (size_t)(bytes - (uint8_t *)out->data) : start;
    return ok;
}

char *text_base64_of(const uint8_t *bytes, size_t length) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = base_alloc(length / 3 * 4 + 5), *out = text;
    for (size_t i = 0; i < length; i += 3) {
        uint32_t bits = (uint32_t)bytes[i] << 16;
        if (i + 1 < length) bits |= (uint32_t)bytes[i + 1] << 8;
        if (i + 2 < length) bits |= bytes[i + 2];
        for (size_t k = 0; k < 4; k++)
            *out++ = i + k <= length ? letters[bits >> (18 - 6 * k) & 63] : '=';
    }
    *out = '\0';
    return text;
}

/* ---- tokens ------------------------------------------------------------- */

static void cut_pieces(const StrBuf *text, const size_t *ends, size_t count, TextPiece *pieces) {
    for (size_t i = 0, begin = 0; i < count; begin = ends[i++])
        pieces[i] = (TextPiece){text->data + begin, ends[i] - begin};
}

static bool flush(TextByteTokens *t, Error *err) {
    TextPiece pieces[TEXT_BATCH] = {{NULL, 0}};
    int32_t known[TEXT_BATCH];
    TextModel *model = t->model;
    size_t count = t->count, before = model->texts.count;
    cut_pieces(&t->bytes, t->ends, count, pieces);
    text_vocab_find_many(&model->texts, pieces, count, known);
    for (size_t i = 0; i < count; i++)
        if (known[i] >= 0)
            return base_fail(err, ERROR_INPUT, "token %lld is token %d again", (long long)t->ids[i],
                             (int)known[i]);
    if (!text_vocab_add_many(&model->texts, pieces, t->ids, count, err)) return false;
    if (model->texts.count != before + count)
        return base_fail(err, ERROR_INPUT, "a token near %lld is there twice",
                         (long long)t->ids[0]);
    cut_pieces(&t->shown, t->shown_ends, count, pieces);
    t->count = t->bytes.length = t->shown.length = 0;
    return text_vocab_add_many(&model->vocab, pieces, t->ids, count, err);
}

bool text_byte_tokens_add(TextByteTokens *t, const char *base64, size_t length, int64_t id,
                          Error *err) {
    size_t start = t->bytes.length;
    if (t->count == TEXT_BATCH) {
        if (!flush(t, err)) return false;
        start = 0;
    }
    if (!text_base64_append(base64, length, &t->bytes))
        return base_fail(err, ERROR_INPUT, "token %lld is not base64", (long long)id);
    if (t->bytes.length == start)
        return base_fail(err, ERROR_INPUT, "token %lld is empty", (long long)id);
    for (size_t i = start; i < t->bytes.length; i++)
        base_str_append_codepoint(&t->shown, text_alphabet_of_byte((uint8_t)t->bytes.data[i]));
    t->ends[t->count] = t->bytes.length;
    t->shown_ends[t->count] = t->shown.length;
    t->ids[t->count++] = id;
    return true;
}

bool text_byte_tokens_end(TextByteTokens *t, bool ok, Error *err) {
    ok = ok && flush(t, err);
    base_str_free(&t->bytes);
    base_str_free(&t->shown);
    return ok;
}

bool text_byte_tokens_finish(TextTokenizer *tokenizer, const char *pattern, Error *err) {
    TextModel *model = &tokenizer->model;
    model->kind = MODEL_TEXT_BPE;
    model->ignore_merges = true; /* a piece that is a token stays whole */
    model->unk_id = -1;
    model->ranks = base_calloc(model->vocab.size + 1, sizeof *model->ranks);
    for (size_t i = 0; i < model->vocab.size; i++) model->ranks[i] = (uint32_t)i;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        model->byte_ids[byte] = text_vocab_find(&model->texts, &text, 1);
        if (model->byte_ids[byte] < 0)
            return base_fail(err, ERROR_INPUT, "the byte 0x%02X is not a token", byte);
    }
    text_decoders_add(&tokenizer->decoders, DECODE_BYTE_LEVEL);
    return text_pre_tokenizers_add_split(&tokenizer->pre_tokenizers, pattern, err);
}

void text_byte_tokens_special(TextTokenizer *tokenizer, const char *text, int32_t id) {
    TextAdded token = {.content = (char *)(uintptr_t)text, .special = true};
    tokenizer->added.next_id = BASE_MAX(tokenizer->added.next_id, id);
    text_added_put(&tokenizer->added, &tokenizer->model.vocab, &token);
}
