/* A tiny encoder of golden/hf as an embedder or reranker: its weights and a tokenizer of
 * whole words made here. */
#ifndef TESTS_LM_EMBED_FOLDER_H
#define TESTS_LM_EMBED_FOLDER_H

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* [PAD] [UNK] [CLS] [SEP] w4 w5 ... */
static inline char *embed_tokenizer(int size) {
    StrBuf text = {0};
    base_str_append(
        &text,
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [");
    const char *const special[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]"};
    for (int i = 0; i < 4; i++) {
        base_str_appendf(
            &text,
            "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false,"
            "\"rstrip\": false, \"normalized\": false, \"special\": true}",
            i ? ", " : "", i, special[i]);
    }
    base_str_append(
        &text,
        "], \"normalizer\": null, \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},"
        "\"post_processor\": {\"type\": \"BertProcessing\", \"sep\": [\"[SEP]\", 3], \"cls\": "
        "[\"[CLS]\", 2]},"
        "\"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true},"
        "\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\","
        "\"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 100, \"vocab\": {");
    for (int i = 0; i < size; i++) {
        if (i < 4)
            base_str_appendf(&text, "%s\"%s\": %d", i ? ", " : "", special[i], i);
        else
            base_str_appendf(&text, ", \"w%d\": %d", i, i);
    }
    base_str_append(&text, "}}}");
    return base_str_detach(&text);
}

static inline void embed_fill(const char *folder, const char *name, int size) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *from = base_format(GOLDEN "/hf/%s/%s", name, files[i]),
             *to = base_path_join(folder, files[i]);
        char *data = NULL;
        size_t length = 0;
        Error err = {0};
        if (i == 2)
            length = strlen(data = embed_tokenizer(size));
        else
            assert_true(base_file_read(from, &data, &length, &err));
        assert_true(base_file_write(to, data, length, &err));
        free(data), free(from), free(to);
    }
}

#endif
