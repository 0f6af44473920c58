/* SentencePiece's decoding, token by token: control pieces print nothing, the
 * mark at the start of the text goes, marks become spaces, and runs of byte
 * pieces become characters, one U+FFFD for each byte that is none. */
#include "text/tokenizer_decode.h"

/* Prints what is certain of the held bytes, at the end all of it. */
static void settle(TextSpmDecoding *state, bool end, StrBuf *out) {
    size_t at = 0;
    StrBuf *held = &state->held;
    while (at < held->length) {
        uint32_t code;
        bool valid;
        if (!end && text_is_cut_character((const uint8_t *)held->data + at, held->length - at))
            break;
        size_t step = base_utf8_decode(held->data + at, held->length - at, &code, &valid);
        base_str_append_codepoint(out, code);
        state->started = true;
        at += valid ? step : 1;
    }
    if (at) memmove(held->data, held->data + at, held->length - at);
    held->length -= at;
}

static void print_piece(const TextDecoder *decoder, TextSpmDecoding *state, const char *text,
                        size_t length, StrBuf *out) {
    static const char mark[] = "\xE2\x96\x81";
    bool begins = length >= 3 && memcmp(text, mark, 3) == 0;
    if (begins && !state->started && !decoder->keep_first_space) {
        text += 3;
        length -= 3;
        /* Where extra spaces are removed, all that lead go, one from each piece. */
        state->started = !decoder->cleanup;
    }
    state->started |= length > 0;
    for (const char *end = text + length; text < end;) {
        const char *found = memmem(text, (size_t)(end - text), mark, 3);
        base_str_append_n(out, text, (size_t)((found ? found : end) - text));
        if (found) base_str_append_char(out, ' ');
        text = found ? found + 3 : end;
    }
}

void text_spm_decode(const TextTokenizer *tokenizer, TextSpmDecoding *state, int32_t id,
                     bool skip_special, StrBuf *out) {
    const TextModel *model = &tokenizer->model;
    const TextDecoder *decoder = &tokenizer->decoders.parts[0];
    int type = id >= 0 && (size_t)id < model->vocab.size ? model->types[id] : 0;
    size_t length;
    const char *text = text_shown_token(tokenizer, id, skip_special, &length);
    if (type == PIECE_BYTE && text) {
        base_str_append_char(&state->held, (char)text_decode_fallback_byte(text, length));
        settle(state, false, out);
        return;
    }
    if (!text) return;
    settle(state, true, out);
    if (type == PIECE_CONTROL) return;
    if (type != PIECE_UNKNOWN) {
        print_piece(decoder, state, text, length, out);
        return;
    }
    base_str_append(out, decoder->content);
    state->started |= *decoder->content != '\0';
}

void text_spm_decode_end(TextSpmDecoding *state, StrBuf *out) {
    settle(state, true, out);
    state->started = false;
}
