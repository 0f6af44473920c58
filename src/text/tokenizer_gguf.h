/* What reading and writing the vocabulary of a GGUF file share. */
#ifndef TEXT_TOKENIZER_GGUF_H
#define TEXT_TOKENIZER_GGUF_H

#include "text/tokenizer_parts.h"

/* A pre-tokenizer is a list of steps: "#" digits one by one, "#+" runs of
 * digits, "!" runs of punctuation, "B" the byte level with GPT-2's pattern, "b"
 * without; anything else is the pattern of a Split. */
typedef struct TextGgufPre {
    const char *const *steps; /* ends with NULL */
    bool ignore_merges, add_bos;
    bool raw;          /* pieces are text with marks for spaces, not the byte alphabet */
    const char *names; /* separated and enclosed by spaces */
} TextGgufPre;

/* By llama.cpp's name; NULL when it is not known. */
const TextGgufPre *text_gguf_pre_find(const char *pre);
/* The pre_tokenizer of a tokenizer.json. New reference. */
json_t *text_gguf_pre_tokenizer(const TextGgufPre *group);
json_t *text_gguf_byte_level(bool use_regex);
/* The first name of the group that cuts as this pre_tokenizer of a tokenizer.json, in
 * a buffer of `room` bytes; false when llama.cpp has none. */
bool text_gguf_pre_name(const json_t *pre_tokenizer, bool ignore_merges, char *name, size_t room);

#endif
