/* Decoders: from the texts of tokens to the text they stand for. This file
 * decodes a whole list, one decoder after another; tokenizer_stream.c does the
 * same token by token. Both call the small per-token steps here. */
#include "text/tokenizer_decode.h"

/* ---- lists of texts ----------------------------------------------------- */

typedef struct Pieces {
    StrBuf text;
    size_t *ends, count, capacity;
} Pieces;

static void pieces_end(Pieces *pieces) {
    pieces->ends =
        base_grow(pieces->ends, &pieces->capacity, pieces->count + 1, sizeof *pieces->ends);
    pieces->ends[pieces->count++] = pieces->text.length;
}

static const char *pieces_at(const Pieces *pieces, size_t i, size_t *length) {
    size_t begin = i ? pieces->ends[i - 1] : 0;
    *length = pieces->ends[i] - begin;
    return pieces->text.data ? pieces->text.data + begin : "";
}

static void pieces_clear(Pieces *pieces) {
    pieces->text.length = pieces->count = 0;
}

static void pieces_free(Pieces *pieces) {
    base_str_free(&pieces->text);
    free(pieces->ends);
}

/* ---- steps on one token ------------------------------------------------- */

static void replace_all(const char *text, size_t length, const char *from, const char *to,
                        StrBuf *out) {
    size_t from_length = strlen(from);
    const char *end = text + length, *found;
    while (from_length && (found = memmem(text, (size_t)(end - text), from, from_length)) != NULL) {
        base_str_append_n(out, text, (size_t)(found - text));
        base_str_append(out, to);
        text = found + from_length;
    }
    base_str_append_n(out, text, (size_t)(end - text));
}

/* English spacing undone, in this order. */
static void clean_up(StrBuf *text, size_t from) {
    static const char *const rules[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                           {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                           {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < BASE_COUNT(rules); i++) {
        size_t length = text->length - from;
        if (!length || !memmem(text->data + from, length, rules[i][0], strlen(rules[i][0])))
            continue;
        char *copy = base_strndup(text->data + from, length);
        text->length = from;
        replace_all(copy, length, rules[i][0], rules[i][1], text);
        free(copy);
    }
}

static size_t utf8_length(const char *text, size_t length) {
    size_t step = 1;
    while (step < length && (text[step] & 0xC0) == 0x80) step++;
    return step;
}

static void step_strip(const TextDecoder *decoder, const char *text, size_t length, StrBuf *out) {
    size_t content = strlen(decoder->content), begin = 0, end = length;
    for (size_t i = 0; i < decoder->start && end - begin >= content &&
                       memcmp(text + begin, decoder->content, content) == 0;
         i++)
        begin += content;
    for (size_t i = 0; i < decoder->stop && end - begin >= content &&
                       memcmp(text + end - content, decoder->content, content) == 0;
         i++)
        end -= content;
    base_str_append_n(out, text + begin, end - begin);
}

static void step_replace(const TextDecoder *decoder, TextWork *work, const char *text,
                         size_t length, StrBuf *out) {
    TextMatch match = {0};
    size_t done = 0;
    while (text_pattern_next(decoder->pattern, work, text, length, &match)) {
        base_str_append_n(out, text + done, match.begin - done);
        base_str_append(out, decoder->content);
        done = match.end;
    }
    base_str_append_n(out, text + done, length - done);
}

static void step_wordpiece(const TextDecoder *decoder, bool first, const char *text, size_t length,
                           StrBuf *out) {
    size_t start = out->length, prefix = strlen(decoder->content);
    if (!first) {
        if (length >= prefix && memcmp(text, decoder->content, prefix) == 0) {
            text += prefix;
            length -= prefix;
        } else {
            base_str_append_char(out, ' ');
        }
    }
    base_str_append_n(out, text, length);
    if (decoder->cleanup) clean_up(out, start);
}

void text_decode_token(const TextDecoder *decoder, TextWork *work, bool first, const char *text,
                       size_t length, StrBuf *out) {
    switch (decoder->kind) {
    case DECODE_STRIP: step_strip(decoder, text, length, out); break;
    case DECODE_REPLACE: step_replace(decoder, work, text, length, out); break;
    case DECODE_METASPACE:
        replace_all(text, length, decoder->content, first && !decoder->keep_first_space ? "" : " ",
                    out);
        break;
    case DECODE_WORDPIECE: step_wordpiece(decoder, first, text, length, out); break;
    default: base_str_append_n(out, text, length); break;
    }
}

void text_decode_suffix(const TextDecoder *decoder, bool last, const char *text, size_t length,
                        StrBuf *out) {
    replace_all(text, length, decoder->content, last ? "" : " ", out);
}

static int lenient_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

int text_decode_fallback_byte(const char *text, size_t length) {
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = text[3] == '+' ? 0 : lenient_hex(text[3]), low = lenient_hex(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void text_decode_bytes(const char *text, size_t length, StrBuf *out) {
    /* The token's own text first: it is longer, and stays when it is not of
     * the alphabet. Bytes then go in over it, behind the reading. */
    size_t start = out->length, kept = 0;
    base_str_append_n(out, text, length);
    for (size_t i = 0, step; i < length; i += step) {
        uint8_t lead = (uint8_t)text[i];
        bool plain = lead > 0x20 && lead < 0x7F;
        step = 1;
        int byte =
            plain ? lead : text_byte_of_alphabet(text_decode((const uint8_t *)text + i, &step));
        if (byte < 0) {
            memcpy(out->data + start, text, length);
            return;
        }
        out->data[start + kept++] = (char)byte;
    }
    out->length = start + kept;
    if (out->data) out->data[out->length] = '\0';
}

static void append_lossy(const char *bytes, size_t length, StrBuf *out) {
    if (base_utf8_valid(bytes, length)) {
        base_str_append_n(out, bytes, length);
        return;
    }
    for (size_t i = 0, step; i < length; i += step) {
        uint32_t code;
        step = base_utf8_decode(bytes + i, length - i, &code, NULL);
        base_str_append_codepoint(out, code);
    }
}

/* ---- whole lists -------------------------------------------------------- */

static void list_bytes(const Pieces *in, Pieces *out) {
    StrBuf bytes = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t length;
        const char *text = pieces_at(in, i, &length);
        text_decode_bytes(text, length, &bytes);
    }
    if (bytes.length) append_lossy(bytes.data, bytes.length, &out->text);
    pieces_end(out);
    base_str_free(&bytes);
}

static void end_run(StrBuf *run, Pieces *out) {
    if (!run->length) return;
    bool valid = base_utf8_valid(run->data, run->length);
    if (valid) base_str_append_n(&out->text, run->data, run->length);
    for (size_t i = 0; !valid && i < run->length; i++) {
        base_str_append_codepoint(&out->text, 0xFFFD);
        if (i + 1 < run->length) pieces_end(out);
    }
    pieces_end(out);
    run->length = 0;
}

static void list_fallback(const Pieces *in, Pieces *out) {
    StrBuf run = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t length;
        const char *text = pieces_at(in, i, &length);
        int byte = text_decode_fallback_byte(text, length);
        if (byte >= 0) {
            base_str_append_char(&run, (char)byte);
            continue;
        }
        end_run(&run, out);
        base_str_append_n(&out->text, text, length);
        pieces_end(out);
    }
    end_run(&run, out);
    base_str_free(&run);
}

/* Repeats collapse, padding goes, the delimiter becomes a space. */
static void list_ctc(const TextDecoder *decoder, const Pieces *in, Pieces *out) {
    const char *previous = NULL;
    size_t previous_length = 0;
    StrBuf text = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t length;
        const char *token = pieces_at(in, i, &length);
        if (previous && length == previous_length && memcmp(token, previous, length) == 0) continue;
        previous = token;
        previous_length = length;
        text.length = 0;
        replace_all(token, length, decoder->content, "", &text);
        size_t start = out->text.length;
        if (decoder->cleanup) {
            clean_up(&text, 0);
            replace_all(text.data ? text.data : "", text.length, decoder->other, " ", &out->text);
        } else if (text.length) {
            base_str_append_n(&out->text, text.data, text.length);
        }
        if (out->text.length > start) pieces_end(out);
    }
    base_str_free(&text);
}

static void run_decoder(const TextDecoder *decoder, TextWork *work, const Pieces *in, Pieces *out) {
    pieces_clear(out);
    if (decoder->kind == DECODE_BYTE_LEVEL) {
        list_bytes(in, out);
    } else if (decoder->kind == DECODE_BYTE_FALLBACK) {
        list_fallback(in, out);
    } else if (decoder->kind == DECODE_CTC) {
        list_ctc(decoder, in, out);
    } else if (decoder->kind == DECODE_FUSE) {
        if (in->text.length) base_str_append_n(&out->text, in->text.data, in->text.length);
        pieces_end(out);
    } else {
        for (size_t i = 0; i < in->count; i++) {
            size_t length;
            const char *text = pieces_at(in, i, &length);
            if (decoder->kind == DECODE_BPE)
                text_decode_suffix(decoder, i + 1 == in->count, text, length, &out->text);
            else
                text_decode_token(decoder, work, i == 0, text, length, &out->text);
            pieces_end(out);
        }
    }
}

const char *text_shown_token(const TextTokenizer *tokenizer, int32_t id, bool skip_special,
                             size_t *length) {
    const TextAdded *added = text_added_by_id(&tokenizer->added, id);
    if (!added) {
        const TextVocab *vocab = &tokenizer->model.vocab;
        const char *text = text_vocab_text(vocab, id, length);
        /* A token listed twice: its earlier id is as special as the text is. */
        if (!text || !skip_special || vocab->count == vocab->size) return text;
        added = text_added_by_content(&tokenizer->added, text);
        return added && added->special ? NULL : text;
    }
    *length = added->shown_length;
    return skip_special && added->special ? NULL : added->shown;
}

/* The usual chain of one ByteLevel, without lists in between. */
static char *decode_bytes(const TextTokenizer *tokenizer, const int32_t *ids, size_t count,
                          bool skip_special, size_t *length) {
    StrBuf bytes = {0}, text = {0};
    for (size_t i = 0; i < count; i++) {
        size_t token_length;
        const char *token = text_shown_token(tokenizer, ids[i], skip_special, &token_length);
        if (token) text_decode_bytes(token, token_length, &bytes);
    }
    if (bytes.length && !base_utf8_valid(bytes.data, bytes.length)) {
        append_lossy(bytes.data, bytes.length, &text);
        base_str_free(&bytes);
    } else {
        text = bytes;
    }
    if (length) *length = text.length;
    return base_str_detach(&text);
}

static char *decode_spm(const TextTokenizer *tokenizer, const int32_t *ids, size_t count,
                        bool skip_special, size_t *length) {
    TextSpmDecoding state = {0};
    StrBuf text = {0};
    for (size_t i = 0; i < count; i++)
        text_spm_decode(tokenizer, &state, ids[i], skip_special, &text);
    text_spm_decode_end(&state, &text);
    base_str_free(&state.held);
    if (length) *length = text.length;
    return base_str_detach(&text);
}

char *text_tokenizer_decode(const TextTokenizer *tokenizer, const int32_t *ids, size_t count,
                            bool skip_special, size_t *length) {
    if (tokenizer->decoders.count == 1 && tokenizer->decoders.parts[0].kind == DECODE_BYTE_LEVEL)
        return decode_bytes(tokenizer, ids, count, skip_special, length);
    if (tokenizer->decoders.count && tokenizer->decoders.parts[0].kind == DECODE_SENTENCEPIECE)
        return decode_spm(tokenizer, ids, count, skip_special, length);
    Pieces lists[2] = {0};
    size_t now = 0;
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        const char *text = text_shown_token(tokenizer, ids[i], skip_special, &bytes);
        if (!text) continue;
        if (tokenizer->decoders.none && lists[0].count) base_str_append_char(&lists[0].text, ' ');
        base_str_append_n(&lists[0].text, text, bytes);
        pieces_end(&lists[0]);
    }
    TextWork *work = text_work_take(tokenizer);
    work->err = NULL;
    for (size_t i = 0; i < tokenizer->decoders.count; i++, now = !now)
        run_decoder(&tokenizer->decoders.parts[i], work, &lists[now], &lists[!now]);
    text_work_give(tokenizer, work);
    if (length) *length = lists[now].text.length;
    char *text = base_str_detach(&lists[now].text);
    pieces_free(&lists[0]);
    pieces_free(&lists[1]);
    return text;
}

/* ---- loading ------------------------------------------------------------ */

static bool load_replace(const json_t *json, TextDecoder *decoder, Error *err) {
    const char *where = "decoder Replace";
    decoder->pattern = text_pattern_load(json, where, err);
    return decoder->pattern && text_json_string(json, "content", "", where, &decoder->content, err);
}

static bool load_strip(const json_t *json, TextDecoder *decoder, Error *err) {
    const char *where = "decoder Strip";
    if (!text_json_string(json, "content", " ", where, &decoder->content, err) ||
        !text_json_size(json, "start", 0, where, &decoder->start, err) ||
        !text_json_size(json, "stop", 0, where, &decoder->stop, err))
        return false;
    size_t length = strlen(decoder->content);
    return (length && utf8_length(decoder->content, length) == length) ||
           base_fail(err, ERROR_INPUT, "%s: \"content\" must be one character", where);
}

static bool load_metaspace(const json_t *json, TextDecoder *decoder, Error *err) {
    const char *where = "decoder Metaspace",
               *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    decoder->keep_first_space = scheme && strcmp(scheme, "never") == 0;
    return text_json_string(json, "replacement", "\xE2\x96\x81", where, &decoder->content, err);
}

static bool load_wordpiece(const json_t *json, TextDecoder *decoder, Error *err) {
    const char *where = "decoder WordPiece";
    return text_json_string(json, "prefix", "##", where, &decoder->content, err) &&
           text_json_bool(json, "cleanup", true, where, &decoder->cleanup, err);
}

static bool load_bpe(const json_t *json, TextDecoder *decoder, Error *err) {
    return text_json_string(json, "suffix", "</w>", "decoder BPEDecoder", &decoder->content, err);
}

static bool load_ctc(const json_t *json, TextDecoder *decoder, Error *err) {
    const char *where = "decoder CTC";
    return text_json_string(json, "pad_token", "<pad>", where, &decoder->content, err) &&
           text_json_string(json, "word_delimiter_token", "|", where, &decoder->other, err) &&
           text_json_bool(json, "cleanup", true, where, &decoder->cleanup, err);
}

static const struct {
    const char *type;
    TextDecoderKind kind;
    bool (*load)(const json_t *, TextDecoder *, Error *);
} kinds[] = {
    {"ByteLevel", DECODE_BYTE_LEVEL, NULL},
    {"ByteFallback", DECODE_BYTE_FALLBACK, NULL},
    {"Fuse", DECODE_FUSE, NULL},
    {"Replace", DECODE_REPLACE, load_replace},
    {"Strip", DECODE_STRIP, load_strip},
    {"Metaspace", DECODE_METASPACE, load_metaspace},
    {"WordPiece", DECODE_WORDPIECE, load_wordpiece},
    {"BPEDecoder", DECODE_BPE, load_bpe},
    {"CTC", DECODE_CTC, load_ctc},
};

static bool load_part(const json_t *json, const char *type, void *chain, Error *err) {
    TextDecoders *out = chain;
    size_t k = 0;
    while (k < BASE_COUNT(kinds) && strcmp(type, kinds[k].type) != 0) k++;
    if (k == BASE_COUNT(kinds)) return text_chain_unknown("decoder", type, err);
    void *parts = text_chain_grow(out->parts, &out->count, sizeof *out->parts, "decoder", err);
    if (!parts) return false;
    out->parts = parts;
    TextDecoder *part = &out->parts[out->count - 1];
    part->kind = kinds[k].kind;
    return !kinds[k].load || kinds[k].load(json, part, err);
}

bool text_decoders_load(const json_t *json, TextDecoders *out, Error *err) {
    static const TextChainLoader loader = {"decoder", "decoders", load_part};
    out->none = !json || json_is_null(json);
    return text_chain_load(json, &loader, out, err);
}

TextDecoder *text_decoders_add(TextDecoders *chain, TextDecoderKind kind) {
    chain->parts = base_calloc(1, sizeof *chain->parts);
    chain->parts->kind = kind;
    chain->count = 1;
    return chain->parts;
}

void text_decoders_free(TextDecoders *chain) {
    for (size_t i = 0; i < chain->count; i++) {
        free(chain->parts[i].content);
        free(chain->parts[i].other);
        text_pattern_free(chain->parts[i].pattern);
    }
    free(chain->parts);
    *chain = (TextDecoders){0};
}
