/* Checks of the ids that a text gives. After cmocka.h. */
#ifndef TESTS_TEXT_IDS_H
#define TESTS_TEXT_IDS_H

#include "text/tokenizer.h"

#define IDS(...) \
    ((const int32_t[]){__VA_ARGS__}), sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static inline void check_ids(const int32_t *ids, size_t length, const int32_t *expected,
                             size_t count) {
    assert_int_equal(length, count);
    assert_memory_equal(ids, expected, count * sizeof *ids);
}

static inline void check_encode(const TextTokenizer *tokenizer, const char *text,
                                TextEncodeOptions options, const int32_t *expected, size_t count) {
    Error err = {0};
    TextIds ids = {0};
    assert_true(text_tokenizer_encode(tokenizer, text, strlen(text), options, &ids, &err));
    check_ids(ids.data, ids.length, expected, count);
    text_ids_free(&ids);
}

#endif
