/* Tokenizers that are no tokenizer.json: SentencePiece's .model, tekken.json and
 * tiktoken's ranks. Digests of ids and texts are those of `sentencepiece` 0.2.3
 * and `tiktoken` 0.14.0 (tests/golden/text/make_files.py). */
#include "generated_text.h"

#include <sys/stat.h>
#include <unistd.h>

/* A folder with one file in it; *path for removing. */
static char *folder_with(const char *name, const char *data, size_t length, char **path) {
    Error err = {0};
    char *folder = base_format("/tmp/mlx-rag-tokenizer-XXXXXX");
    assert_non_null(mkdtemp(folder));
    *path = base_path_join(folder, name);
    assert_true(base_file_write(*path, data, length, &err));
    return folder;
}

static void remove_folder(char *folder, char *path) {
    unlink(path);
    rmdir(folder);
    free(path);
    free(folder);
}

static TextTokenizer *open_file(const char *name, const char *data, size_t length, Error *err) {
    char *path, *folder = folder_with(name, data, length, &path);
    TextTokenizer *tokenizer = text_tokenizer_open(folder, err);
    remove_folder(folder, path);
    return tokenizer;
}

/* ---- the same ids and texts --------------------------------------------- */

static void append_token(StrBuf *out, const uint8_t *bytes, size_t length, int rank) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        uint32_t bits = (uint32_t)bytes[i] << 16;
        if (i + 1 < length) bits |= (uint32_t)bytes[i + 1] << 8;
        if (i + 2 < length) bits |= bytes[i + 2];
        for (size_t k = 0; k < 4; k++)
            base_str_append_char(out, i + k <= length ? letters[bits >> (18 - 6 * k) & 63] : '=');
    }
    char text[16];
    snprintf(text, sizeof text, " %d\n", rank);
    base_str_append(out, text);
}

/* As many ranks as cl100k_base has, by which the encoding is known. */
static StrBuf cl100k_ranks(void) {
    static const char letters[] = " etaoinshrdlucmfwypvbgkjqxz.,012345";
    enum { COUNT = 100256, LETTERS = sizeof letters - 1 };
    StrBuf out = {0};
    int rank = 0;
    for (int a = 0; a < 256; a++) append_token(&out, (uint8_t[]){(uint8_t)a}, 1, rank++);
    for (int a = 0; a < 65536; a++)
        append_token(&out, (uint8_t[]){(uint8_t)(a >> 8), (uint8_t)a}, 2, rank++);
    for (int i = 0; rank < COUNT; i++) {
        uint8_t token[3] = {(uint8_t)letters[i / LETTERS / LETTERS],
                            (uint8_t)letters[i / LETTERS % LETTERS], (uint8_t)letters[i % LETTERS]};
        append_token(&out, token, 3, rank++);
    }
    return out;
}

static TextTokenizer *open_entry(const char *name) {
    Error err = {0};
    TextTokenizer *tokenizer;
    if (strcmp(name, "cl100k") == 0) {
        StrBuf ranks = cl100k_ranks();
        tokenizer = open_file("cl100k_base.tiktoken", ranks.data, ranks.length, &err);
        base_str_free(&ranks);
    } else {
        char *folder = base_format("%s/text/%s", GOLDEN, name);
        tokenizer = text_tokenizer_open(folder, &err);
        free(folder);
    }
    if (!tokenizer) fail_msg("%s: %s", name, err.message);
    return tokenizer;
}

static void check_entry(const json_t *entry, const StrBuf *text) {
    Error err = {0};
    const char *name = json_string_value(json_object_get(entry, "name"));
    uint32_t first = (uint32_t)json_integer_value(json_object_get(entry, "first")),
             size = (uint32_t)json_integer_value(json_object_get(entry, "size"));
    TextTokenizer *tokenizer = open_entry(name);
    TextIds ids = {0};
    StrBuf texts = {0};
    assert_true(
        text_tokenizer_encode(tokenizer, text->data, text->length, TEXT_ENCODE_PLAIN, &ids, &err));
    for (uint64_t i = 0; i < 200; i++) {
        StrBuf some = mixed_text(1000 + i, 8);
        assert_true(text_tokenizer_encode(tokenizer, some.data, some.length, TEXT_ENCODE_PLAIN,
                                          &ids, &err));
        base_str_free(&some);
    }
    assert_int_equal(ids.length, json_integer_value(json_object_get(entry, "count")));
    check_digest(name, "ids", entry, ids.data, ids.length * sizeof *ids.data);
    append_decoded(name, tokenizer, ids.data, ids.length, false, &texts);
    append_random_texts(name, tokenizer, first, size, &texts);
    check_digest(name, "texts", entry, texts.data, texts.length);
    base_str_free(&texts);
    text_ids_free(&ids);
    text_tokenizer_free(tokenizer);
}

static void test_every_format_gives_the_ids_and_texts_of_its_own_package(void **state) {
    (void)state;
    Error err = {0};
    json_t *entries = base_json_load(GOLDEN "/text/tokenizer_files.json", &err);
    assert_non_null(entries);
    StrBuf text = mixed_text(1, 12000);
    for (size_t i = 0; i < json_array_size(entries); i++)
        check_entry(json_array_get(entries, i), &text);
    assert_int_equal(differences, 0);
    base_str_free(&text);
    json_decref(entries);
}

/* ---- files that are wrong ----------------------------------------------- */

#define TEKKEN(tokens, size)                                                             \
    "{\"vocab\":[" tokens "],\"config\":{\"pattern\":\"a\",\"default_vocab_size\":" size \
    ",\"default_num_special_tokens\":2}}"
#define TOKEN(base64) "{\"token_bytes\":" base64 "}"

static void test_wrong_files_fail_with_what_is_wrong(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"tekken.json", "", "not valid JSON"},
        {"tekken.json", "[]", "\"vocab\" is missing"},
        {"tekken.json", "{\"vocab\":[],\"config\":{}}", "\"config\" does not make a tokenizer"},
        {"tekken.json", TEKKEN("", "3"), "entry 0 of 1 has no \"token_bytes\""},
        {"tekken.json", TEKKEN(TOKEN("5"), "3"), "entry 0 of 1 has no \"token_bytes\""},
        {"tekken.json", TEKKEN(TOKEN("\"!!\""), "3"), "token 2 is not base64"},
        {"tekken.json", TEKKEN(TOKEN("\"YQ==\"") "," TOKEN("\"YQ==\""), "4"), "twice"},
        {"tekken.json", TEKKEN(TOKEN("\"YQ==\""), "3"), "the byte 0x00 is not a token"},
        {"tekken.json", TEKKEN(TOKEN("\"YQ==\""), "99999999999"), "default_vocab_size"},
        {"tokenizer.model", "", "not a SentencePiece model"},
        {"tokenizer.model", "hello", "not a SentencePiece model"},
        {"tokenizer.model", "\n\004\n\002hi", "0 unknown pieces"},
        {"tokenizer.model", "YQ== 0\n", "1 ranks are those of no known"},
        {"x.tiktoken", "YQ== 0\nYg 1x\n", "line 2 is not a base64 token and its rank"},
        {"x.tiktoken", "YQ== 99999999999\n", "line 1 is not a base64 token and its rank"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Error err = {0};
        TextTokenizer *tokenizer = open_file(cases[i][0], cases[i][1], strlen(cases[i][1]), &err);
        if (tokenizer || !strstr(err.message, cases[i][2]) || strchr(err.message, '\n'))
            fail_msg("case %zu: %s", i, tokenizer ? "opened" : err.message);
    }
}

/* A shorter .model may be a whole one, without its last pieces; the others are JSON. */
static void test_files_cut_short_are_refused(void **state) {
    (void)state;
    static const char *const names[][2] = {{"spm_bpe/tokenizer.model", "tokenizer.model"},
                                           {"spm_unigram/tokenizer.model", "tokenizer.model"},
                                           {"tekken/tekken.json", "tekken.json"},
                                           {"wordpiece.json", "tokenizer.json"},
                                           {"spm.json", "tokenizer.json"}};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        Error err = {0};
        char *data, *path = base_format("%s/text/%s", GOLDEN, names[i][0]);
        size_t length, step;
        assert_true(base_file_read(path, &data, &length, &err));
        step = length / 60 + 1;
        for (size_t cut = 0; cut + 2 < length; cut += step) {
            err = (Error){0};
            TextTokenizer *tokenizer = open_file(names[i][1], data, cut, &err);
            if (!tokenizer) assert_true(err.message[0] && !strchr(err.message, '\n'));
            if (tokenizer && i > 1) fail_msg("%s: %zu bytes opened", names[i][0], cut);
            text_tokenizer_free(tokenizer);
        }
        free(data);
        free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_format_gives_the_ids_and_texts_of_its_own_package),
        cmocka_unit_test(test_wrong_files_fail_with_what_is_wrong),
        cmocka_unit_test(test_files_cut_short_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
