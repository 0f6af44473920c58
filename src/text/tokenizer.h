/* Tokenizers: the pipeline that a tokenizer.json describes, with the ids of
 * Hugging Face's `tokenizers` package.
 *
 *     TextTokenizer *tok = text_tokenizer_open("models/SmolLM2", &err);
 *     TextIds ids = {0};
 *     text_tokenizer_encode(tok, text, strlen(text), TEXT_ENCODE_PROMPT, &ids, &err);
 *     char *again = text_tokenizer_decode(tok, ids.data, ids.length, false, NULL);
 *     free(again); text_ids_free(&ids); text_tokenizer_free(tok);
 *
 * An open tokenizer never changes: every function that takes a const
 * TextTokenizer may be called from several threads at once. Text is UTF-8;
 * invalid bytes are read as U+FFFD, one per maximal subpart, never refused. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "base/base.h"

typedef struct TextTokenizer TextTokenizer;

/* ---- opening ----------------------------------------------------------- */

/* Reads tokenizer.json, else tekken.json, tokenizer.model (SentencePiece or
 * tiktoken), vocab.txt, vocab.json with merges.txt, or a .tiktoken file and, where
 * present, tokenizer_config.json, special_tokens_map.json and added_tokens.json of a
 * model folder. The
 * pipeline is the file as it stands; added tokens of the config win over
 * the other files. NULL and *err on failure. Caller frees with _free. */
TextTokenizer *text_tokenizer_open(const char *folder, Error *err);
/* Does the folder have one of those files? */
bool text_tokenizer_exists(const char *folder);
/* The same from trees. config is a tokenizer_config.json or NULL. Both are
 * borrowed for the call only. */
TextTokenizer *text_tokenizer_from_json(const json_t *tokenizer, const json_t *config, Error *err);
/* The same from the bytes of a tokenizer.json, which is faster than a tree:
 * the vocabulary is read without building one. `name` is for messages. */
TextTokenizer *text_tokenizer_from_bytes(const char *json, size_t length, const char *name,
                                         const json_t *config, Error *err);
/* The same from the bytes of any tokenizer file, told apart by its name:
 * tokenizer.json, tekken.json, or a SentencePiece model or tiktoken ranks under
 * any other. */
TextTokenizer *text_tokenizer_from_file_bytes(const void *bytes, size_t length, const char *name,
                                              const json_t *config, Error *err);
void text_tokenizer_free(TextTokenizer *tokenizer); /* NULL ok */

/* ---- encoding ---------------------------------------------------------- */

/* Growing lists. Start with {0}. */
typedef struct TextIds {
    int32_t *data;
    size_t length, capacity;
} TextIds;
void text_ids_append(TextIds *ids, int32_t id);
void text_ids_free(TextIds *ids);

/* Bytes [begin, end) of the text that was given. Widened to whole characters. */
typedef struct TextSpan {
    size_t begin, end;
} TextSpan;

typedef enum {
    TEXT_TRUNCATE_LONGEST_FIRST,
    TEXT_TRUNCATE_ONLY_FIRST,
    TEXT_TRUNCATE_ONLY_SECOND
} TextTruncation;

typedef struct TextEncodeOptions {
    bool add_special;   /* let the post-processor add bos, [CLS], [SEP] ... */
    bool parse_special; /* read "<|im_end|>" in the text as that token. Off for text that
                         * somebody else wrote: documents, tool results */
    bool keep_left;     /* truncation drops the head and keeps the tail */
    size_t max_length;  /* ids at most, those added by the post-processor included; 0 = no limit */
    TextTruncation truncation;
} TextEncodeOptions;

/* A prompt as Hugging Face encodes it by default; a text that a chat template
 * made (it has its special tokens already); words of a document, to be counted
 * or embedded as they stand. */
#define TEXT_ENCODE_PROMPT ((TextEncodeOptions){.add_special = true, .parse_special = true})
#define TEXT_ENCODE_TEMPLATED ((TextEncodeOptions){.parse_special = true})
#define TEXT_ENCODE_PLAIN ((TextEncodeOptions){0})

/* Appends the ids of text[0, length) to *ids. Fails only where the model has no
 * id for a piece and no usable unk token, or the truncation is impossible; *ids
 * is then as before. */
bool text_tokenizer_encode(const TextTokenizer *tokenizer, const char *text, size_t length,
                           TextEncodeOptions options, TextIds *ids, Error *err);

/* Ids with what belongs to them, all of `length`. Spans are those of the piece
 * of text behind each token in its own sequence (leading space included), or
 * {0, 0} for tokens that the post-processor added. Start with {0}. */
typedef struct TextEncoding {
    int32_t *ids;
    int32_t *type_ids;       /* 0 first sequence, 1 second, as the post-processor says */
    int32_t *attention_mask; /* 1, or 0 for padding */
    int8_t *sequence;        /* 0 first, 1 second, -1 added by the post-processor or padding */
    TextSpan *spans;
    size_t length, capacity;
} TextEncoding;
void text_encoding_free(TextEncoding *encoding);

/* Replaces *encoding. Failures as encode. */
bool text_tokenizer_encode_spans(const TextTokenizer *tokenizer, const char *text, size_t length,
                                 TextEncodeOptions options, TextEncoding *encoding, Error *err);
/* Two texts for a cross-encoder, e.g. question and passage; with max_length and
 * TEXT_TRUNCATE_ONLY_SECOND only the passage is cut. */
bool text_tokenizer_encode_pair(const TextTokenizer *tokenizer, const char *first,
                                size_t first_length, const char *second, size_t second_length,
                                TextEncodeOptions options, TextEncoding *encoding, Error *err);

/* Pads to `length` (no-op when longer) on the right, or on the left. */
void text_encoding_pad(TextEncoding *encoding, size_t length, int32_t pad_id, int32_t pad_type_id,
                       bool left);

/* Number of ids that encode would give with TEXT_ENCODE_PLAIN; a text that
 * cannot be encoded counts one token a byte. */
size_t text_tokenizer_count(const TextTokenizer *tokenizer, const char *text, size_t length);
/* Ids that the post-processor adds to one text, or to a pair. */
size_t text_tokenizer_count_special(const TextTokenizer *tokenizer, bool pair);

/* What the file says about truncation and padding. Nothing here is applied by
 * itself. Return false when the file says nothing. */
typedef struct TextFileTruncation {
    size_t max_length, stride;
    TextTruncation strategy;
    bool keep_left;
} TextFileTruncation;
typedef struct TextFilePadding {
    size_t fixed_length; /* 0 = to the longest of the batch */
    size_t multiple_of;  /* 0 = any */
    int32_t pad_id, pad_type_id;
    const char *pad_token; /* borrowed */
    bool left;
} TextFilePadding;
bool text_tokenizer_file_truncation(const TextTokenizer *tokenizer, TextFileTruncation *out);
bool text_tokenizer_file_padding(const TextTokenizer *tokenizer, TextFilePadding *out);

/* ---- decoding ---------------------------------------------------------- */

/* The text of ids, always valid UTF-8; unknown ids are skipped, special tokens
 * too when skip_special. *length (may be NULL) is its byte count, for texts
 * that hold NUL. Caller frees. */
char *text_tokenizer_decode(const TextTokenizer *tokenizer, const int32_t *ids, size_t count,
                            bool skip_special, size_t *length);

/* Streaming: what is pushed out, joined, equals text_tokenizer_decode of all
 * ids; each part is whole characters. The tokenizer must outlive the stream. */
typedef struct TextStream TextStream;
TextStream *text_stream_new(const TextTokenizer *tokenizer, bool skip_special);
/* Appends to *out the text that this id settles, often the whole token,
 * sometimes nothing yet. */
void text_stream_push(TextStream *stream, int32_t id, StrBuf *out);
/* Appends what was still held, and makes the stream new again. */
void text_stream_finish(TextStream *stream, StrBuf *out);
void text_stream_free(TextStream *stream); /* NULL ok */

/* Stop strings on streamed text: holds back the longest tail that may still
 * become one. */
typedef struct TextStop TextStop;
TextStop *text_stop_new(const char *const *strings, size_t count); /* copied; empty ones ignored */
/* Appends to *out the text that is certainly before any stop string. Returns
 * true once a stop string was found: the text before it is out, it and the rest
 * are dropped, and later pushes append nothing and return true. */
bool text_stop_push(TextStop *stop, const char *text, size_t length, StrBuf *out);
/* Appends what is held (nothing after a match), and makes it new again. */
void text_stop_finish(TextStop *stop, StrBuf *out);
/* The stop string that was found, borrowed, or NULL. */
const char *text_stop_found(const TextStop *stop);
void text_stop_free(TextStop *stop); /* NULL ok */

/* ---- the vocabulary ---------------------------------------------------- */

/* One more than the highest id, added tokens included. A model may have more
 * rows in its embedding, never fewer. */
int32_t text_tokenizer_vocab_size(const TextTokenizer *tokenizer);
/* The token's text as the file spells it ("Ġthe"), borrowed, or NULL. */
const char *text_tokenizer_token(const TextTokenizer *tokenizer, int32_t id);
/* The id of a token's text as the file spells it, or -1. */
int32_t text_tokenizer_id(const TextTokenizer *tokenizer, const char *token);
/* Whether skip_special would drop it. */
bool text_tokenizer_is_special(const TextTokenizer *tokenizer, int32_t id);

typedef enum {
    TEXT_BOS,
    TEXT_EOS,
    TEXT_UNK,
    TEXT_SEP,
    TEXT_PAD,
    TEXT_CLS,
    TEXT_MASK,
    TEXT_SPECIAL_COUNT
} TextSpecial;
/* The special tokens named by tokenizer_config.json or special_tokens_map.json:
 * id or -1, text (borrowed) or NULL, and the key ("bos_token"), which is also
 * the name of the variable in chat templates. */
int32_t text_tokenizer_special_id(const TextTokenizer *tokenizer, TextSpecial which);
const char *text_tokenizer_special_text(const TextTokenizer *tokenizer, TextSpecial which);
const char *text_special_key(TextSpecial which);
/* model_max_length of the config, or 0 when absent or "unlimited" (1e30). */
size_t text_tokenizer_max_length(const TextTokenizer *tokenizer);

/* ---- GGUF -------------------------------------------------------------- */

/* The tokenizer.ggml.* metadata. Everything borrowed. Start with
 * TEXT_GGUF_VOCAB_NONE: absent strings and arrays are NULL, absent ids and
 * flags are -1. */
typedef struct TextGgufVocab {
    const char *model;         /* "gpt2", "llama", "bert", "t5", "gemma4" */
    const char *pre;           /* regex group of gpt2 */
    const char *const *tokens; /* [size] */
    const float *scores;       /* [score_count] */
    const int32_t *types; /* [type_count] 1 normal 2 unknown 3 control 4 user 5 unused 6 byte */
    const char *const *merges; /* [merge_count] "a b" */
    const int32_t *charsmap;   /* [charsmap_length] bytes of SentencePiece's charsmap, t5 */
    size_t size, score_count, type_count, merge_count, charsmap_length;
    int32_t bos_id, eos_id, unk_id, sep_id, pad_id, cls_id, mask_id;
    int8_t add_bos, add_eos, add_sep, add_space_prefix, remove_extra_whitespaces;
} TextGgufVocab;
#define TEXT_GGUF_VOCAB_NONE                 \
    ((TextGgufVocab){.bos_id = -1,           \
                     .eos_id = -1,           \
                     .unk_id = -1,           \
                     .sep_id = -1,           \
                     .pad_id = -1,           \
                     .cls_id = -1,           \
                     .mask_id = -1,          \
                     .add_bos = -1,          \
                     .add_eos = -1,          \
                     .add_sep = -1,          \
                     .add_space_prefix = -1, \
                     .remove_extra_whitespaces = -1})

/* A tokenizer.json tree that gives the ids of llama.cpp on that GGUF, and in
 * *config (may be NULL) the tokenizer_config.json tree that belongs to it
 * (special tokens; no chat template). Both are new references. NULL and *err
 * for a kind of vocabulary that is not known or contradicts itself. */
json_t *text_tokenizer_json_from_gguf(const TextGgufVocab *vocab, json_t **config, Error *err);

/* The way back: what a GGUF says of the tokenizer in a model folder, filled up to the
 * rows of the model's embedding. *arena owns everything in *vocab: free it with
 * base_arena_free. Fails when llama.cpp has no tokenizer that gives the same ids. */
bool text_gguf_vocab_open(const char *folder, size_t rows, TextGgufVocab *vocab, Arena **arena,
                          Error *err);

#endif
