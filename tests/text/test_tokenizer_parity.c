/* Ids and texts of generated text, against digests that the Python package
 * `tokenizers` 0.23.3 made (tests/golden/text/make_tokenizers.py, whose
 * generator this repeats). One variant is one pipeline: a base file with some
 * members replaced. */
#include "generated_text.h"

/* Without the planes where nothing is assigned but at their ends. */
static StrBuf every_code_point(void) {
    StrBuf out = {0};
    for (uint32_t code = 0; code < 0x110000; code++) {
        bool unassigned =
            (code >= 0x33480 && code < 0xDFF00) || (code >= 0xE0200 && code < 0x10FF00);
        if ((code >= 0xD800 && code <= 0xDFFF) || unassigned) continue;
        if (code % 3 == 0) base_str_append_char(&out, 'a');
        base_str_append_codepoint(&out, code);
        if (code % 5 == 0) base_str_append_char(&out, ' ');
    }
    return out;
}

static size_t count_characters(const StrBuf *text) {
    size_t count = 0;
    for (size_t i = 0; i < text->length; i++) count += (text->data[i] & 0xC0) != 0x80;
    return count;
}

static TextTokenizer *build(const json_t *entry) {
    Error err = {0};
    char *path =
        base_format("%s/text/%s", GOLDEN, json_string_value(json_object_get(entry, "base")));
    json_t *tree = base_json_load(path, &err), *value;
    const char *key;
    json_object_foreach(json_object_get(entry, "change"), key, value) {
        if (strcmp(key, "model") == 0)
            json_object_update(json_object_get(tree, "model"), value);
        else if (strcmp(key, "replace_model") == 0)
            json_object_set(tree, "model", value);
        else if (strcmp(key, "every") != 0 && strcmp(key, "pair") != 0)
            json_object_set(tree, key, value);
    }
    TextTokenizer *tokenizer = text_tokenizer_from_json(tree, NULL, &err);
    if (!tokenizer)
        fail_msg("%s: %s", json_string_value(json_object_get(entry, "name")), err.message);
    json_decref(tree);
    free(path);
    return tokenizer;
}

/* Ids and types of pairs of short texts. */
static void append_pairs(const TextTokenizer *tokenizer, TextIds *ids) {
    for (uint64_t i = 0; i < 200; i += 2) {
        Error err = {0};
        TextEncoding both = {0};
        StrBuf a = mixed_text(1000 + i, 8), b = mixed_text(1001 + i, 8);
        assert_true(text_tokenizer_encode_pair(tokenizer, a.data, a.length, b.data, b.length,
                                               TEXT_ENCODE_PROMPT, &both, &err));
        for (size_t k = 0; k < both.length; k++) text_ids_append(ids, both.ids[k]);
        for (size_t k = 0; k < both.length; k++) text_ids_append(ids, both.type_ids[k]);
        text_encoding_free(&both);
        base_str_free(&a);
        base_str_free(&b);
    }
}

static void check_variant(const json_t *entry, const StrBuf *every, const StrBuf *text) {
    Error err = {0};
    const char *name = json_string_value(json_object_get(entry, "name"));
    TextTokenizer *tokenizer = build(entry);
    TextIds ids = {0};
    StrBuf texts = {0};
    if (!json_object_get(entry, "texts")) {
        assert_true(text_tokenizer_encode(tokenizer, every->data, every->length,
                                          TEXT_ENCODE_TEMPLATED, &ids, &err));
    } else {
        assert_true(text_tokenizer_encode(tokenizer, text->data, text->length, TEXT_ENCODE_PROMPT,
                                          &ids, &err));
        if (json_object_get(json_object_get(entry, "change"), "pair"))
            append_pairs(tokenizer, &ids);
        for (uint64_t i = 0; i < 200; i++) {
            StrBuf some = mixed_text(1000 + i, 8);
            TextEncodeOptions options = {.parse_special = count_characters(&some) % 2 == 0};
            assert_true(
                text_tokenizer_encode(tokenizer, some.data, some.length, options, &ids, &err));
            base_str_free(&some);
        }
        append_decoded(name, tokenizer, ids.data, ids.length, false, &texts);
        append_random_texts(name, tokenizer, 0, (uint32_t)text_tokenizer_vocab_size(tokenizer) + 3,
                            &texts);
        check_digest(name, "texts", entry, texts.data, texts.length);
    }
    check_digest(name, "ids", entry, ids.data, ids.length * sizeof *ids.data);
    base_str_free(&texts);
    text_ids_free(&ids);
    text_tokenizer_free(tokenizer);
}

static void test_every_pipeline_gives_the_ids_and_texts_of_the_python_package(void **state) {
    (void)state;
    Error err = {0};
    json_t *variants = base_json_load(GOLDEN "/text/tokenizer_variants.json", &err);
    assert_non_null(variants);
    StrBuf every = every_code_point(), text = mixed_text(1, 12000);
    assert_true(json_array_size(variants) > 80);
    for (size_t i = 0; i < json_array_size(variants); i++)
        check_variant(json_array_get(variants, i), &every, &text);
    assert_int_equal(differences, 0);
    base_str_free(&every);
    base_str_free(&text);
    json_decref(variants);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pipeline_gives_the_ids_and_texts_of_the_python_package),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
