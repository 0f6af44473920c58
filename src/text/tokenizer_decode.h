/* The steps of decoding that a list and a stream share. Each appends to *out. */
#ifndef TEXT_TOKENIZER_DECODE_H
#define TEXT_TOKENIZER_DECODE_H

#include "text/tokenizer_parts.h"

/* Strip, Replace, Metaspace or WordPiece of one token; first: it is token 0. */
void text_decode_token(const TextDecoder *decoder, TextWork *work, bool first, const char *text,
                       size_t length, StrBuf *out);
/* BPEDecoder of one token. */
void text_decode_suffix(const TextDecoder *decoder, bool last, const char *text, size_t length,
                        StrBuf *out);
/* The byte that a ByteFallback token such as <0x0A> stands for, or -1. */
int text_decode_fallback_byte(const char *text, size_t length);
/* The bytes behind a token in GPT-2's alphabet, or its own where it is not in it. */
void text_decode_bytes(const char *text, size_t length, StrBuf *out);
/* What decoders see of an id: borrowed, or NULL when it is to be skipped. */
const char *text_shown_token(const TextTokenizer *tokenizer, int32_t id, bool skip_special,
                             size_t *length);

/* Bytes at the start of s that may yet become a character: false when they are
 * a whole one or can never be one. */
bool text_is_cut_character(const uint8_t *s, size_t length);

/* SentencePiece's decoding, by id; the same for a list and a stream. Start with
 * {0}; text_spm_decode_end prints what is held and starts again. */
typedef struct TextSpmDecoding {
    StrBuf held;  /* bytes of a character that is not whole yet */
    bool started; /* some text is out, or the leading space is gone */
} TextSpmDecoding;
void text_spm_decode(const TextTokenizer *tokenizer, TextSpmDecoding *state, int32_t id,
                     bool skip_special, StrBuf *out);
void text_spm_decode_end(TextSpmDecoding *state, StrBuf *out);

#endif
