/* The text that golden digests of tokenizers were made from (the generator of
 * tests/golden/text/make_tokenizers.py), and what compares with them. */
#ifndef TESTS_TEXT_GENERATED_TEXT_H
#define TESTS_TEXT_GENERATED_TEXT_H

/* cmocka wants these first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "text/tokenizer.h"

static const uint32_t ranges[][2] = {
    {0x61, 0x7A},       {0x3B1, 0x3C9},     {0x400, 0x44F},   {0x5D0, 0x5EA},   {0x621, 0x65F},
    {0x905, 0x963},     {0xE01, 0xE4E},     {0x3041, 0x30FF}, {0x4E00, 0x9FA5}, {0xAC00, 0xD7A3},
    {0x1F300, 0x1FAFF}, {0x300, 0x36F},     {0xC0, 0x24F},    {0x1E00, 0x1FFF}, {0x2000, 0x2FFF},
    {0xFF00, 0xFFEF},   {0x20000, 0x20FFF}, {0x0, 0xA0},      {0x1100, 0x11FF}, {0x10000, 0x1FFFF},
};
static const char *const separators[] = {
    " ",      "  ",         "   ",    "\n",       "\t",     " \n",    "\r\n",   "\n\n",    "\u3000",
    "\u00a0", "\u200b",     "\u180e", "\xC2\x85", "\ufeff", "'s",     "'ll",    "'\u017f", "'S",
    "'RE",    "<|im_end|>", "[MASK]", "</s>",     "1",      "12",     "1234",   "1234567", ".",
    ",",      "!",          "?",      "/",        "//\n/",  "\u2028", "-",      "--",      "a",
    "B",      "\u0301",     "\u00b2", "\u0663",   "\u02b0", "\u01c5", "\u00df", "_",       "\u2581",
};

static uint64_t random_state;

static inline uint32_t below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

static inline StrBuf mixed_text(uint64_t seed, int units) {
    StrBuf out = {0};
    random_state = seed;
    for (int i = 0; i < units; i++) {
        uint32_t kind = below(10);
        if (kind < 3) {
            const uint32_t *range = ranges[below(BASE_COUNT(ranges))];
            for (uint32_t n = 1 + below(8); n > 0; n--)
                base_str_append_codepoint(&out, range[0] + below(range[1] - range[0] + 1));
        } else if (kind < 6) {
            bool upper = below(4) == 0;
            for (uint32_t n = 1 + below(9); n > 0; n--) {
                char letter = "etaoinshrdlu"[below(12)];
                base_str_append_char(&out, (char)(upper ? letter - 32 : letter));
                upper = false;
            }
        } else if (kind < 9) {
            base_str_append(&out, separators[below(BASE_COUNT(separators))]);
        } else {
            uint32_t code = below(0x110000);
            base_str_append_codepoint(&out, code >= 0xD800 && code <= 0xDFFF ? 'A' : code);
        }
        if (below(2)) base_str_append_char(&out, ' ');
    }
    return out;
}

static int differences;

static inline void check_digest(const char *name, const char *what, const json_t *entry,
                                const void *bytes, size_t length) {
    char digest[17];
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)base_hash(bytes, length));
    const char *expected = json_string_value(json_object_get(entry, what));
    if (strcmp(digest, expected) != 0)
        differences++, print_error("%s: %s differ from the Python package's\n", name, what);
}

/* The text of ids, after checking that the stream gives the same. */
static inline void append_decoded(const char *name, const TextTokenizer *tokenizer,
                                  const int32_t *ids, size_t count, bool skip_special,
                                  StrBuf *texts) {
    size_t length;
    char *text = text_tokenizer_decode(tokenizer, ids, count, skip_special, &length);
    TextStream *stream = text_stream_new(tokenizer, skip_special);
    StrBuf streamed = {0};
    for (int round = 0; round < 2; round++) {
        streamed.length = 0;
        size_t whole = 0;
        for (size_t i = 0; i < count; i++) {
            text_stream_push(stream, ids[i], &streamed);
            if (!base_utf8_valid(streamed.data + whole, streamed.length - whole))
                fail_msg("%s: half a character was streamed", name);
            whole = streamed.length;
        }
        text_stream_finish(stream, &streamed);
        if (streamed.length != length || (length && memcmp(streamed.data, text, length) != 0))
            fail_msg("%s: streaming differs from decoding", name);
    }
    if (texts->data) base_str_append_char(texts, '\n');
    base_str_append_n(texts, text, length);
    base_str_free(&streamed);
    text_stream_free(stream);
    free(text);
}

/* The texts of 200 lists of ids from `first` to below `size`. */
static inline void append_random_texts(const char *name, const TextTokenizer *tokenizer,
                                       uint32_t first, uint32_t size, StrBuf *texts) {
    random_state = 7;
    for (int i = 0; i < 200; i++) {
        int32_t some[30];
        size_t count = 1 + below(30);
        for (size_t k = 0; k < count; k++) some[k] = (int32_t)(first + below(size - first));
        append_decoded(name, tokenizer, some, count, i % 2 == 0, texts);
    }
}

#endif
