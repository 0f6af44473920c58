/* Folders of vocab.txt, or of vocab.json and merges.txt. What they must give is in
 * vocab_files.json: ids and texts of `transformers` 5.24.0 (make_vocab_files.py). */
#include "generated_text.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder with files of these names and texts, one object of strings. */
static TextTokenizer *open_files(const json_t *files, Error *err) {
    char *folder = base_format("/tmp/mlx-rag-vocab-XXXXXX");
    assert_non_null(mkdtemp(folder));
    const char *name;
    json_t *text;
    json_object_foreach((json_t *)(uintptr_t)files, name, text) {
        char *path = base_path_join(folder, name);
        assert_true(base_file_write(path, json_string_value(text), json_string_length(text), err));
        free(path);
    }
    TextTokenizer *tokenizer = text_tokenizer_open(folder, err);
    json_object_foreach((json_t *)(uintptr_t)files, name, text) {
        char *path = base_path_join(folder, name);
        unlink(path);
        free(path);
    }
    rmdir(folder);
    free(folder);
    return tokenizer;
}

static void check_ids(const char *name, const char *text, const TextIds *ids, const json_t *want) {
    bool same = ids->length == json_array_size(want);
    for (size_t i = 0; same && i < ids->length; i++)
        same = ids->data[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s: \"%s\" has other ids", name, text);
}

static void check_case(const char *name, const TextTokenizer *tokenizer, const json_t *one) {
    Error err = {0};
    TextIds ids = {0};
    const json_t *text = json_object_get(one, "text");
    assert_true(text_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                                      TEXT_ENCODE_PROMPT, &ids, &err));
    check_ids(name, json_string_value(text), &ids, json_object_get(one, "ids"));
    char *decoded = text_tokenizer_decode(tokenizer, ids.data, ids.length, true, NULL);
    assert_string_equal(decoded, json_string_value(json_object_get(one, "decoded")));
    free(decoded);
    text_ids_free(&ids);
}

static void check_pair(const char *name, const TextTokenizer *tokenizer, const json_t *want) {
    Error err = {0};
    TextEncoding pair = {0};
    assert_true(text_tokenizer_encode_pair(tokenizer, "the", 3, "a the", 5, TEXT_ENCODE_PROMPT,
                                           &pair, &err));
    check_ids(name, "a pair", &(TextIds){.data = pair.ids, .length = pair.length}, want);
    text_encoding_free(&pair);
}

static int id_or_none(const json_t *value) {
    return json_is_integer(value) ? (int)json_integer_value(value) : -1;
}

static void test_vocabulary_files_give_the_ids_and_texts_of_transformers(void **state) {
    (void)state;
    Error err = {0};
    json_t *entries = base_json_load(GOLDEN "/text/vocab_files.json", &err);
    assert_int_equal(json_array_size(entries), 10);
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i), *cases = json_object_get(entry, "cases");
        const char *name = json_string_value(json_object_get(entry, "name"));
        TextTokenizer *tokenizer = open_files(json_object_get(entry, "files"), &err);
        if (!tokenizer) fail_msg("%s: %s", name, err.message);
        for (size_t k = 0; k < json_array_size(cases); k++)
            check_case(name, tokenizer, json_array_get(cases, k));
        check_pair(name, tokenizer, json_object_get(entry, "pair"));
        assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_MASK),
                         id_or_none(json_object_get(entry, "mask")));
        assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_EOS),
                         id_or_none(json_object_get(entry, "eos")));
        text_tokenizer_free(tokenizer);
    }
    json_decref(entries);
}

static void test_without_a_class_the_tokens_tell_the_family(void **state) {
    (void)state;
    Error err = {0};
    json_t *entries = base_json_load(GOLDEN "/text/vocab_files.json", &err);
    static const size_t usual[] = {0, 3, 4, 6, 8, 9}; /* those whose config only names the class */
    for (size_t i = 0; i < BASE_COUNT(usual); i++) {
        const json_t *entry = json_array_get(entries, usual[i]);
        const char *name = json_string_value(json_object_get(entry, "name"));
        json_object_del(json_object_get(entry, "files"), "tokenizer_config.json");
        TextTokenizer *tokenizer = open_files(json_object_get(entry, "files"), &err);
        if (!tokenizer) fail_msg("%s: %s", name, err.message);
        check_case(name, tokenizer, json_array_get(json_object_get(entry, "cases"), 4));
        check_pair(name, tokenizer, json_object_get(entry, "pair"));
        text_tokenizer_free(tokenizer);
    }
    json_decref(entries);
}

static void test_special_tokens_of_their_file_are_used(void **state) {
    (void)state;
    Error err = {0};
    json_t *files = json_pack(
        "{s:s, s:s}", "vocab.txt", "[P]\n[U]\n[C]\n[S]\nthe\n", "special_tokens_map.json",
        "{\"cls_token\": \"[C]\", \"sep_token\": {\"content\": \"[S]\"}, \"unk_token\": \"[U]\", "
        "\"pad_token\": \"[P]\"}");
    TextTokenizer *tokenizer = open_files(files, &err);
    assert_non_null(tokenizer);
    TextIds ids = {0};
    assert_true(text_tokenizer_encode(tokenizer, "the x", 5, TEXT_ENCODE_PROMPT, &ids, &err));
    assert_int_equal(ids.length, 4);
    const int32_t want[] = {2, 4, 1, 3};
    assert_memory_equal(ids.data, want, sizeof want);
    text_ids_free(&ids);
    text_tokenizer_free(tokenizer);
    json_decref(files);
}

static void test_wrong_vocabulary_files_fail_with_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *names[3], *texts[3], *complaint;
    } cases[] = {
        {{"vocab.txt"}, {""}, "vocab.txt: the sep_token \"[SEP]\" is not in the vocabulary"},
        {{"vocab.txt"}, {"[CLS]\n[SEP]\n\xff\n"}, "vocab.txt: line 3 is not a token in UTF-8"},
        {{"vocab.txt", "tokenizer_config.json"},
         {"[CLS]\n", "{\"tokenizer_class\": \"BertJapaneseTokenizer\"}"},
         "tokenizer_class \"BertJapaneseTokenizer\" is not known"},
        {{"vocab.json"}, {"{}"}, "merges.txt"},
        {{"vocab.json", "merges.txt"}, {"[]", ""}, "\"vocab\" must be an object"},
        {{"vocab.json", "merges.txt"}, {"{", ""}, "vocab.json"},
        {{"vocab.json", "merges.txt"},
         {"{\"a\": 0}", "#version: 0.2\na\n"},
         "merges.txt: line 2 is not two parts"},
        {{"vocab.json", "merges.txt"}, {"{\"a\": 0}", "a b\n"}, "\"b\""},
        {{"vocab.json", "merges.txt"}, {"{\"a\": 1.5}", ""}, "not a whole number"},
        {{"vocab.json", "merges.txt"}, {"{\"<s>\": 0}", ""}, "the sep_token \"</s>\""},
        {{"vocab.json", "merges.txt", "tokenizer_config.json"},
         {"{\"a\": 0}", "", "{\"add_bos_token\": true}"},
         "the bos_token \"<|endoftext|>\""},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Error err = {0};
        json_t *files = json_object();
        for (size_t k = 0; k < 3 && cases[i].names[k]; k++)
            json_object_set_new(files, cases[i].names[k],
                                json_stringn_nocheck(cases[i].texts[k], strlen(cases[i].texts[k])));
        TextTokenizer *tokenizer = open_files(files, &err);
        if (tokenizer || !strstr(err.message, cases[i].complaint) || strchr(err.message, '\n'))
            fail_msg("case %zu: %s", i, tokenizer ? "opened" : err.message);
        json_decref(files);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabulary_files_give_the_ids_and_texts_of_transformers),
        cmocka_unit_test(test_without_a_class_the_tokens_tell_the_family),
        cmocka_unit_test(test_special_tokens_of_their_file_are_used),
        cmocka_unit_test(test_wrong_vocabulary_files_fail_with_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
