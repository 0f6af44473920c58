/* Streaming decode: the chain of decoders as stages that pass on what they can
 * settle and hold what they cannot: half a UTF-8 character, a run of byte
 * tokens, a last token, or leading spaces to strip. Constant work per token.
 * A chain that cannot work that way (a Replace on fused text, CTC) is held and
 * decoded at the end. */
#include "text/tokenizer_decode.h"

typedef struct Stage {
    StrBuf held;
    StrBuf scratch;
    size_t seen;  /* tokens so far */
    bool fused;   /* what comes in is text in any portions, not tokens */
    bool settled; /* Strip on fused text: past the leading copies */
} Stage;

struct TextStream {
    const TextTokenizer *tokenizer;
    bool skip_special, wait; /* wait: decode everything at the end */
    TextIds ids;             /* when waiting */
    size_t seen;
    bool spm;
    TextSpmDecoding spm_state;
    TextWork *work;
    StrBuf *out;
    Stage stages[TEXT_MAX_STAGES];
};

static void stage_token(TextStream *stream, size_t at, const char *text, size_t length);

bool text_is_cut_character(const uint8_t *s, size_t length) {
    size_t needed = s[0] >= 0xF0 && s[0] <= 0xF4   ? 4
                    : s[0] >= 0xE0 && s[0] <= 0xEF ? 3
                    : s[0] >= 0xC2 && s[0] <= 0xDF ? 2
                                                   : 0;
    if (length >= needed) return false;
    for (size_t i = 1; i < length; i++) {
        uint8_t low = 0x80, high = 0xBF;
        if (i == 1) {
            low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
            high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
        }
        if (s[i] < low || s[i] > high) return false;
    }
    return true;
}

/* Passes on the whole characters of stage->held, at the end all of it. */
static void settle_bytes(TextStream *stream, size_t at, bool end) {
    Stage *stage = &stream->stages[at];
    StrBuf *held = &stage->held;
    size_t i = 0;
    stage->scratch.length = 0;
    while (i < held->length) {
        uint32_t code;
        if (!end && text_is_cut_character((const uint8_t *)held->data + i, held->length - i)) break;
        i += base_utf8_decode(held->data + i, held->length - i, &code, NULL);
        base_str_append_codepoint(&stage->scratch, code);
    }
    if (i) {
        memmove(held->data, held->data + i, held->length - i);
        held->length -= i;
    }
    if (stage->scratch.length)
        stage_token(stream, at + 1, stage->scratch.data, stage->scratch.length);
}

static void settle_run(TextStream *stream, size_t at) {
    StrBuf *run = &stream->stages[at].held;
    if (!run->length) return;
    if (base_utf8_valid(run->data, run->length)) {
        stage_token(stream, at + 1, run->data, run->length);
    } else {
        for (size_t i = 0; i < run->length; i++) stage_token(stream, at + 1, "\xEF\xBF\xBD", 3);
    }
    run->length = 0;
}

/* Leading copies of one character vanish from fused text, `start` at most. */
static void strip_fused(TextStream *stream, size_t at, const TextDecoder *decoder, const char *text,
                        size_t length) {
    Stage *stage = &stream->stages[at];
    size_t content = strlen(decoder->content);
    while (!stage->settled && length) {
        if (stage->seen < decoder->start && length >= content &&
            memcmp(text, decoder->content, content) == 0) {
            text += content;
            length -= content;
            stage->seen++;
        } else {
            stage->settled = true;
        }
    }
    if (length) stage_token(stream, at + 1, text, length);
}

static void stage_token(TextStream *stream, size_t at, const char *text, size_t length) {
    const TextDecoders *chain = &stream->tokenizer->decoders;
    if (at == chain->count) {
        base_str_append_n(stream->out, text, length);
        return;
    }
    const TextDecoder *decoder = &chain->parts[at];
    Stage *stage = &stream->stages[at];
    switch (decoder->kind) {
    case DECODE_BYTE_LEVEL:
        text_decode_bytes(text, length, &stage->held);
        settle_bytes(stream, at, false);
        return;
    case DECODE_BYTE_FALLBACK: {
        int byte = text_decode_fallback_byte(text, length);
        if (byte >= 0) {
            base_str_append_char(&stage->held, (char)byte);
            return;
        }
        settle_run(stream, at);
        stage_token(stream, at + 1, text, length);
        return;
    }
    case DECODE_FUSE: stage_token(stream, at + 1, text, length); return;
    case DECODE_BPE: /* the last token differs, so one is held */
        if (stage->seen++) {
            stage->scratch.length = 0;
            text_decode_suffix(decoder, false, stage->held.data ? stage->held.data : "",
                               stage->held.length, &stage->scratch);
            stage_token(stream, at + 1, stage->scratch.data ? stage->scratch.data : "",
                        stage->scratch.length);
        }
        stage->held.length = 0;
        base_str_append_n(&stage->held, text, length);
        return;
    default: break;
    }
    if (stage->fused) {
        strip_fused(stream, at, decoder, text, length);
        return;
    }
    stage->scratch.length = 0;
    text_decode_token(decoder, stream->work, stage->seen++ == 0, text, length, &stage->scratch);
    stage_token(stream, at + 1, stage->scratch.data ? stage->scratch.data : "",
                stage->scratch.length);
}

static void stage_end(TextStream *stream, size_t at) {
    const TextDecoder *decoder = &stream->tokenizer->decoders.parts[at];
    Stage *stage = &stream->stages[at];
    if (decoder->kind == DECODE_BYTE_LEVEL)
        settle_bytes(stream, at, true);
    else if (decoder->kind == DECODE_BYTE_FALLBACK)
        settle_run(stream, at);
    else if (decoder->kind == DECODE_BPE && stage->seen) {
        stage->scratch.length = 0;
        text_decode_suffix(decoder, true, stage->held.data ? stage->held.data : "",
                           stage->held.length, &stage->scratch);
        stage_token(stream, at + 1, stage->scratch.data ? stage->scratch.data : "",
                    stage->scratch.length);
    }
    stage->held.length = stage->seen = 0;
    stage->settled = false;
}

/* Marks the stages that get fused text; false when one of them cannot. */
static bool plan(TextStream *stream) {
    const TextDecoders *chain = &stream->tokenizer->decoders;
    bool fused = false;
    for (size_t i = 0; i < chain->count; i++) {
        const TextDecoder *decoder = &chain->parts[i];
        stream->stages[i].fused = fused;
        if (decoder->kind == DECODE_CTC) return false;
        if (fused && decoder->kind != DECODE_FUSE &&
            !(decoder->kind == DECODE_STRIP && decoder->stop == 0))
            return false;
        fused |= decoder->kind == DECODE_FUSE || decoder->kind == DECODE_BYTE_LEVEL;
    }
    return true;
}

TextStream *text_stream_new(const TextTokenizer *tokenizer, bool skip_special) {
    TextStream *stream = base_calloc(1, sizeof *stream);
    stream->tokenizer = tokenizer;
    stream->skip_special = skip_special;
    stream->wait = !plan(stream);
    stream->spm =
        tokenizer->decoders.count && tokenizer->decoders.parts[0].kind == DECODE_SENTENCEPIECE;
    return stream;
}

void text_stream_push(TextStream *stream, int32_t id, StrBuf *out) {
    size_t length;
    if (stream->spm) {
        text_spm_decode(stream->tokenizer, &stream->spm_state, id, stream->skip_special, out);
        return;
    }
    if (stream->wait) {
        text_ids_append(&stream->ids, id);
        return;
    }
    const char *text = text_shown_token(stream->tokenizer, id, stream->skip_special, &length);
    if (!text) return;
    stream->out = out;
    if (stream->tokenizer->decoders.none && stream->seen) base_str_append_char(out, ' ');
    stream->seen++;
    stream->work = text_work_take(stream->tokenizer);
    stream->work->err = NULL;
    stage_token(stream, 0, text, length);
    text_work_give(stream->tokenizer, stream->work);
}

void text_stream_finish(TextStream *stream, StrBuf *out) {
    if (stream->spm) {
        text_spm_decode_end(&stream->spm_state, out);
        return;
    }
    if (stream->wait) {
        size_t length;
        char *text = text_tokenizer_decode(stream->tokenizer, stream->ids.data, stream->ids.length,
                                           stream->skip_special, &length);
        base_str_append_n(out, text, length);
        free(text);
        stream->ids.length = 0;
        return;
    }
    stream->out = out;
    stream->work = text_work_take(stream->tokenizer);
    stream->work->err = NULL;
    for (size_t i = 0; i < stream->tokenizer->decoders.count; i++) stage_end(stream, i);
    text_work_give(stream->tokenizer, stream->work);
    stream->seen = 0;
}

void text_stream_free(TextStream *stream) {
    if (!stream) return;
    for (size_t i = 0; i < TEXT_MAX_STAGES; i++) {
        base_str_free(&stream->stages[i].held);
        base_str_free(&stream->stages[i].scratch);
    }
    base_str_free(&stream->spm_state.held);
    text_ids_free(&stream->ids);
    free(stream);
}
