/* The tokenizer's face: special tokens, pairs, truncation, padding, spans,
 * streaming, stop strings, side files, and files that are wrong. Expected
 * ids were made with the Python package `tokenizers` 0.23.3. */
#include "text/tokenizer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ids.h"

static TextTokenizer *open_file(const char *name) {
    Error err = {0};
    char *data, *path = base_format("%s/text/%s", GOLDEN, name);
    size_t length;
    assert_true(base_file_read(path, &data, &length, &err));
    TextTokenizer *tokenizer = text_tokenizer_from_bytes(data, length, name, NULL, &err);
    if (!tokenizer) fail_msg("%s", err.message);
    free(data);
    free(path);
    return tokenizer;
}

static TextTokenizer *open_text(const char *json, Error *err) {
    return text_tokenizer_from_bytes(json, strlen(json), "tokenizer.json", NULL, err);
}

/* ---- special tokens ----------------------------------------------------- */

static void test_special_tokens_are_read_only_where_asked(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("byte_level.json");
    check_encode(tokenizer, "etaoin <|im_end|>!", TEXT_ENCODE_TEMPLATED,
                 IDS(703, 387, 220, 700, 0));
    check_encode(tokenizer, "etaoin <|im_end|>!", TEXT_ENCODE_PLAIN,
                 IDS(703, 387, 461, 360, 62, 344, 361, 0));
    assert_int_equal(text_tokenizer_id(tokenizer, "<|im_end|>"), 700);
    assert_true(text_tokenizer_is_special(tokenizer, 700));
    assert_false(text_tokenizer_is_special(tokenizer, 703));
    assert_int_equal(text_tokenizer_vocab_size(tokenizer), 704);
    assert_string_equal(text_tokenizer_token(tokenizer, 220), "Ġ");
    assert_null(text_tokenizer_token(tokenizer, 704));
    assert_int_equal(text_tokenizer_id(tokenizer, "no such token"), -1);
    text_tokenizer_free(tokenizer);
}

static void test_added_tokens_swallow_spaces_and_keep_to_words(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("byte_level.json");
    check_encode(tokenizer, "a [MASK]  b", TEXT_ENCODE_TEMPLATED, IDS(64, 701, 65));
    check_encode(tokenizer, "a [MASK]  b", TEXT_ENCODE_PLAIN, IDS(64, 415, 359, 60, 220, 220, 65));
    check_encode(tokenizer, "a  [MASK] [MASK]c", TEXT_ENCODE_TEMPLATED, IDS(64, 701, 701, 66));
    check_encode(tokenizer, "x[MASKy [MASK z", TEXT_ENCODE_TEMPLATED,
                 IDS(87, 58, 359, 88, 220, 702, 220, 89));
    check_encode(tokenizer, "_[MASK_", TEXT_ENCODE_TEMPLATED, IDS(62, 58, 359, 62));
    text_tokenizer_free(tokenizer);
}

#define BYTES_OF(added)                                                                           \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\" \":2,\"x\":3,\"\\n\":4},"         \
    "\"merges\":[]},\"added_tokens\":[{\"id\":4,\"content\":\"\\n\",\"single_word\":false," added \
    ",\"normalized\":false,\"special\":true}]}"

static void test_spaces_that_a_token_took_are_no_token_again(void **state) {
    (void)state;
    Error err = {0};
    TextTokenizer *right = open_text(BYTES_OF("\"lstrip\":false,\"rstrip\":true"), &err);
    check_encode(right, "a\n\nb", TEXT_ENCODE_TEMPLATED, IDS(0, 4, 4, 1));
    text_tokenizer_free(right);
    TextTokenizer *both = open_text(BYTES_OF("\"lstrip\":true,\"rstrip\":true"), &err);
    check_encode(both, "a\n\n\n\nb", TEXT_ENCODE_TEMPLATED, IDS(0, 4, 1));
    check_encode(both, "a \n \n b\n", TEXT_ENCODE_TEMPLATED, IDS(0, 4, 1, 4));
    text_tokenizer_free(both);
}

static void test_a_text_listed_twice_has_two_ids(void **state) {
    (void)state;
    Error err = {0};
    TextTokenizer *tokenizer = open_text(
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1],[\"</"
        "s>\","
        "0],[\"a\",-2],[\"</s>\",-3]]},\"added_tokens\":[{\"id\":4,\"content\":\"</s>\",\"single_"
        "word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],"
        "\"decoder\":{\"type\":\"Fuse\"}}",
        &err);
    if (!tokenizer) fail_msg("%s", err.message);
    check_encode(tokenizer, "aa</s>", TEXT_ENCODE_TEMPLATED, IDS(3, 3, 4));
    char *all = text_tokenizer_decode(tokenizer, IDS(1, 2, 3, 4), false, NULL),
         *plain = text_tokenizer_decode(tokenizer, IDS(1, 2, 3, 4), true, NULL);
    assert_string_equal(all, "a</s>a</s>");
    assert_string_equal(plain, "aa");
    free(all);
    free(plain);
    text_tokenizer_free(tokenizer);
}

/* ---- pairs, truncation, padding ----------------------------------------- */

static const char *const question = "hello the lion", *const passage = "no salt in sea 12";

static void check_pair(const TextTokenizer *tokenizer, TextEncodeOptions options,
                       const int32_t *expected, size_t count) {
    Error err = {0};
    TextEncoding encoding = {0};
    if (!text_tokenizer_encode_pair(tokenizer, question, strlen(question), passage, strlen(passage),
                                    options, &encoding, &err))
        fail_msg("%s", err.message);
    check_ids(encoding.ids, encoding.length, expected, count);
    text_encoding_free(&encoding);
}

static void test_a_pair_has_types_sequences_and_spans(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("wordpiece.json");
    TextEncoding encoding = {0};
    Error err = {0};
    static const int32_t types[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const size_t begins[] = {0, 0, 2, 4, 6, 8, 10, 12, 0, 0, 3, 4, 6, 8, 11, 13, 15, 0};
    static const size_t ends[] = {0, 2, 4, 5, 8, 9, 12, 14, 0, 2, 4, 6, 7, 10, 13, 14, 17, 0};
    assert_true(text_tokenizer_encode_pair(tokenizer, question, strlen(question), passage,
                                           strlen(passage), TEXT_ENCODE_PROMPT, &encoding, &err));
    check_ids(
        encoding.ids, encoding.length,
        IDS(2, 767, 674, 307, 806, 309, 795, 662, 3, 847, 42, 613, 312, 826, 755, 370, 651, 3));
    for (size_t i = 0; i < encoding.length; i++) {
        bool special = i == 0 || i == 8 || i == 17;
        assert_int_equal(encoding.type_ids[i], types[i]);
        assert_int_equal(encoding.sequence[i], special ? -1 : types[i]);
        assert_int_equal(encoding.spans[i].begin, begins[i]);
        assert_int_equal(encoding.spans[i].end, ends[i]);
    }
    text_encoding_pad(&encoding, 20, 9, 7, true);
    assert_int_equal(encoding.length, 20);
    assert_int_equal(encoding.ids[1], 9);
    assert_int_equal(encoding.type_ids[1], 7);
    assert_int_equal(encoding.attention_mask[1], 0);
    assert_int_equal(encoding.ids[2], 2);
    text_encoding_pad(&encoding, 21, 9, 7, false);
    assert_int_equal(encoding.attention_mask[20], 0);
    assert_int_equal(text_tokenizer_count_special(tokenizer, true), 3);
    assert_int_equal(text_tokenizer_count_special(tokenizer, false), 2);
    assert_int_equal(text_tokenizer_count(tokenizer, question, strlen(question)), 7);
    text_encoding_free(&encoding);
    text_tokenizer_free(tokenizer);
}

static void test_truncation_cuts_what_it_was_told_to_cut(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("wordpiece.json");
    TextEncodeOptions options = {.add_special = true, .max_length = 15};
    check_pair(tokenizer, options,
               IDS(2, 767, 674, 307, 806, 309, 795, 3, 847, 42, 613, 312, 826, 755, 3));
    options.keep_left = true;
    check_pair(tokenizer, options,
               IDS(2, 674, 307, 806, 309, 795, 662, 3, 613, 312, 826, 755, 370, 651, 3));
    options.truncation = TEXT_TRUNCATE_ONLY_SECOND;
    check_pair(tokenizer, options,
               IDS(2, 767, 674, 307, 806, 309, 795, 662, 3, 312, 826, 755, 370, 651, 3));
    options.keep_left = false;
    check_pair(tokenizer, options,
               IDS(2, 767, 674, 307, 806, 309, 795, 662, 3, 847, 42, 613, 312, 826, 3));
    options.truncation = TEXT_TRUNCATE_ONLY_FIRST;
    check_pair(tokenizer, options,
               IDS(2, 767, 674, 307, 806, 3, 847, 42, 613, 312, 826, 755, 370, 651, 3));
    options.max_length = 9;
    Error err = {0};
    TextEncoding encoding = {0};
    assert_false(text_tokenizer_encode_pair(tokenizer, question, strlen(question), passage,
                                            strlen(passage), options, &encoding, &err));
    assert_non_null(strstr(err.message, "too few"));
    check_encode(tokenizer, question, (TextEncodeOptions){.add_special = true, .max_length = 5},
                 IDS(2, 767, 674, 307, 3));
    check_encode(tokenizer, question, (TextEncodeOptions){.max_length = 2, .keep_left = true},
                 IDS(795, 662));
    text_encoding_free(&encoding);
    text_tokenizer_free(tokenizer);
}

static void test_spans_cover_the_text_in_whole_characters(void **state) {
    (void)state;
    const char *text = " \xF0\x9F\x98\x80 caf\xC3\xA9 <|im_end|> \xFF end";
    TextTokenizer *tokenizer = open_file("byte_level.json");
    TextEncoding encoding = {0};
    Error err = {0};
    assert_true(text_tokenizer_encode_spans(tokenizer, text, strlen(text), TEXT_ENCODE_TEMPLATED,
                                            &encoding, &err));
    size_t reached = 0;
    for (size_t i = 0; i < encoding.length; i++) {
        TextSpan span = encoding.spans[i];
        assert_true(span.begin <= reached && span.end >= reached);
        assert_true(text[span.begin] == '\xFF' || (text[span.begin] & 0xC0) != 0x80);
        reached = span.end;
    }
    assert_int_equal(reached, strlen(text));
    text_encoding_free(&encoding);
    text_tokenizer_free(tokenizer);
}

/* Of tokenizers 0.23.3: marks change places, their origins do not. */
static void test_marks_that_change_places_leave_spans_in_order(void **state) {
    (void)state;
    Error err = {0};
    TextTokenizer *tokenizer =
        open_text("{\"normalizer\":{\"type\":\"NFD\"},\"model\":{\"type\":\"BPE\",\"unk_token\":"
                  "\"u\",\"vocab\":"
                  "{\"u\":0,\"e\":1,\"\u0323\":2,\"\u0301\":3},\"merges\":[]}}",
                  &err);
    if (!tokenizer) fail_msg("%s", err.message);
    TextEncoding encoding = {0};
    const char *text = "e\u0301\u0323";
    assert_true(text_tokenizer_encode_spans(tokenizer, text, strlen(text), TEXT_ENCODE_PLAIN,
                                            &encoding, &err));
    check_ids(encoding.ids, encoding.length, IDS(1, 2, 3));
    static const size_t begins[] = {0, 1, 3}, ends[] = {1, 3, 5};
    for (size_t i = 0; i < encoding.length; i++) {
        assert_int_equal(encoding.spans[i].begin, begins[i]);
        assert_int_equal(encoding.spans[i].end, ends[i]);
    }
    text_encoding_free(&encoding);
    text_tokenizer_free(tokenizer);
}

static void test_invalid_bytes_are_read_as_replacement_characters(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("byte_level.json");
    TextIds bad = {0}, good = {0};
    Error err = {0};
    const char *broken = "a\xC0\x80"
                         "b\xED\xA0\x80\xF5\xE4\xB8",
               *mended = "a\uFFFD\uFFFDb\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD";
    assert_true(
        text_tokenizer_encode(tokenizer, broken, strlen(broken), TEXT_ENCODE_PLAIN, &bad, &err));
    assert_true(
        text_tokenizer_encode(tokenizer, mended, strlen(mended), TEXT_ENCODE_PLAIN, &good, &err));
    check_ids(bad.data, bad.length, good.data, good.length);
    text_ids_free(&bad);
    text_ids_free(&good);
    text_tokenizer_free(tokenizer);
}

static void test_nul_is_text(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("byte_level.json");
    TextIds ids = {0};
    Error err = {0};
    size_t length;
    assert_true(text_tokenizer_encode(tokenizer, "a\0b", 3, TEXT_ENCODE_PLAIN, &ids, &err));
    char *text = text_tokenizer_decode(tokenizer, ids.data, ids.length, true, &length);
    assert_int_equal(length, 3);
    assert_memory_equal(text, "a\0b", 3);
    free(text);
    text_ids_free(&ids);
    text_tokenizer_free(tokenizer);
}

static void test_a_long_run_of_one_class_stays_near_linear(void **state) {
    (void)state;
    enum { SMALL = 50000, FACTOR = 10 };
    TextTokenizer *tokenizer = open_file("byte_level.json");
    static const char *const units[] = {"a", " ", "!?", "1", "aA"};
    for (size_t u = 0; u < BASE_COUNT(units); u++) {
        StrBuf text = {0};
        while (text.length < (size_t)SMALL * FACTOR) base_str_append(&text, units[u]);
        double small = 1e9, large;
        for (int i = 0; i < 3; i++) {
            double start = base_now();
            text_tokenizer_count(tokenizer, text.data, SMALL);
            small = BASE_MIN(small, base_now() - start);
        }
        double start = base_now();
        text_tokenizer_count(tokenizer, text.data, text.length);
        large = base_now() - start;
        /* Quadratic work would take 100 times as long; other processes cost some. */
        assert_true(large < 60 * small + 0.5);
        base_str_free(&text);
    }
    text_tokenizer_free(tokenizer);
}

/* ---- threads ------------------------------------------------------------ */

static void *encode_many(void *context) {
    const TextTokenizer *tokenizer = context;
    size_t total = 0;
    for (int i = 0; i < 200; i++)
        total += text_tokenizer_count(tokenizer, "the tail of the lion and 12 salt seas", 37);
    return (void *)(uintptr_t)total;
}

static void test_threads_share_a_tokenizer(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("byte_level.json");
    pthread_t threads[4];
    size_t expected =
        200 * text_tokenizer_count(tokenizer, "the tail of the lion and 12 salt seas", 37);
    for (size_t i = 0; i < 4; i++) pthread_create(&threads[i], NULL, encode_many, tokenizer);
    for (size_t i = 0; i < 4; i++) {
        void *total;
        pthread_join(threads[i], &total);
        assert_int_equal((size_t)(uintptr_t)total, expected);
    }
    text_tokenizer_free(tokenizer);
}

/* ---- streams ------------------------------------------------------------ */

static void test_a_stream_never_gives_half_a_character(void **state) {
    (void)state;
    TextTokenizer *tokenizer = open_file("byte_level.json");
    int32_t grin[4]; /* the four bytes of U+1F600, one token each */
    static const char *const bytes[] = {"ð", "Ł", "ĺ", "Ģ"};
    for (size_t i = 0; i < 4; i++)
        assert_true((grin[i] = text_tokenizer_id(tokenizer, bytes[i])) >= 0);
    TextStream *stream = text_stream_new(tokenizer, true);
    StrBuf out = {0};
    for (size_t i = 0; i < 3; i++) text_stream_push(stream, grin[i], &out);
    assert_int_equal(out.length, 0);
    text_stream_push(stream, grin[3], &out);
    assert_string_equal(out.data, "\xF0\x9F\x98\x80");
    text_stream_push(stream, grin[0], &out);
    text_stream_push(stream, 700, &out); /* special, skipped */
    text_stream_push(stream, 64, &out);
    assert_string_equal(out.data, "\xF0\x9F\x98\x80\uFFFD"
                                  "a");
    text_stream_push(stream, grin[0], &out);
    text_stream_finish(stream, &out);
    assert_string_equal(out.data, "\xF0\x9F\x98\x80\uFFFD"
                                  "a\uFFFD");
    base_str_free(&out);
    text_stream_free(stream);
    text_tokenizer_free(tokenizer);
}

static void test_stop_strings_hold_what_may_become_one(void **state) {
    (void)state;
    TextStop *stop = text_stop_new((const char *const[]){"</s>", "", "\nUser:"}, 3);
    StrBuf out = {0};
    assert_false(text_stop_push(stop, "a <", 3, &out));
    assert_string_equal(out.data, "a ");
    assert_false(text_stop_push(stop, "/b\nUs", 5, &out));
    assert_string_equal(out.data, "a </b");
    assert_true(text_stop_push(stop, "er: x</s>", 9, &out));
    assert_string_equal(out.data, "a </b");
    assert_string_equal(text_stop_found(stop), "\nUser:");
    assert_true(text_stop_push(stop, "more", 4, &out));
    text_stop_finish(stop, &out);
    assert_string_equal(out.data, "a </b");
    assert_null(text_stop_found(stop));
    out.length = 0;
    assert_false(text_stop_push(stop, "</", 2, &out));
    assert_int_equal(out.length, 0);
    text_stop_finish(stop, &out);
    assert_string_equal(out.data, "</");
    base_str_free(&out);
    text_stop_free(stop);
}

/* ---- side files --------------------------------------------------------- */

#define TINY                                                                                     \
    "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<s>" \
    "\":3},\"merges\":[[\"a\",\"b\"]]}"

static void test_a_folder_gives_special_tokens_by_precedence(void **state) {
    (void)state;
    Error err = {0};
    char folder[] = "/tmp/mlx-rag-tokenizer-XXXXXX";
    assert_non_null(mkdtemp(folder));
    static const char *const files[][2] = {
        {"tokenizer.json", TINY ",\"padding\":{\"strategy\":{\"Fixed\":8},\"direction\":\"Left\","
                                "\"pad_to_multiple_of\":null,\"pad_id\":1,"
                                "\"pad_type_id\":0,\"pad_token\":\"b\"},\"truncation\":{\"max_"
                                "length\":6,\"strategy\":\"OnlyFirst\",\"stride\":2}}"},
        {"tokenizer_config.json", "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<end>\","
                                  "\"pad_token\":null,\"model_max_length\":512,"
                                  "\"additional_special_tokens\":[\"<tool>\"]}"},
        {"special_tokens_map.json",
         "{\"eos_token\":\"<other>\",\"unk_token\":\"<s>\",\"pad_token\":\"b\"}"},
    };
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *path = base_path_join(folder, files[i][0]);
        assert_true(base_file_write(path, files[i][1], strlen(files[i][1]), &err));
        free(path);
    }
    TextTokenizer *tokenizer = text_tokenizer_open(folder, &err);
    if (!tokenizer) fail_msg("%s", err.message);
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_BOS), 3);
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_UNK), 3);
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_EOS), 4);
    assert_string_equal(text_tokenizer_special_text(tokenizer, TEXT_EOS), "<end>");
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_PAD), -1);
    assert_null(text_tokenizer_special_text(tokenizer, TEXT_CLS));
    assert_string_equal(text_special_key(TEXT_MASK), "mask_token");
    assert_int_equal(text_tokenizer_id(tokenizer, "<tool>"), 5);
    assert_int_equal(text_tokenizer_max_length(tokenizer), 512);
    TextFilePadding padding;
    TextFileTruncation truncation;
    assert_true(text_tokenizer_file_padding(tokenizer, &padding));
    assert_true(text_tokenizer_file_truncation(tokenizer, &truncation));
    assert_true(padding.left && padding.fixed_length == 8 && padding.pad_id == 1);
    assert_true(truncation.max_length == 6 && truncation.stride == 2 &&
                truncation.strategy == TEXT_TRUNCATE_ONLY_FIRST);
    check_encode(tokenizer, "abababababab", TEXT_ENCODE_PROMPT, IDS(2, 2, 2, 2, 2, 2));
    text_tokenizer_free(tokenizer);
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *path = base_path_join(folder, files[i][0]);
        unlink(path);
        free(path);
    }
    err = (Error){0};
    assert_null(text_tokenizer_open(folder, &err));
    assert_int_equal(err.code, ERROR_IO);
    rmdir(folder);
}

/* Ids are in another order than merges. Expected: tokenizers 0.23.3. */
static void test_merges_of_one_rank_go_from_the_left(void **state) {
    (void)state;
    Error err = {0};
    TextTokenizer *tokenizer = open_text(
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 2, \"b\": 3, \"aa\": 7, \"aaaa\": 1, "
        "\"ba\": 9, \"ab\": 5}, \"merges\": [\"a a\", \"aa aa\", \"a b\", \"b a\"]}}",
        &err);
    if (!tokenizer) fail_msg("%s", err.message);
    TextIds none = {0};
    assert_true(text_tokenizer_encode(tokenizer, "", 0, TEXT_ENCODE_PLAIN, &none, &err));
    assert_int_equal(none.length, 0);
    text_ids_free(&none);
    check_encode(tokenizer, "aaa", TEXT_ENCODE_PLAIN, IDS(7, 2));
    check_encode(tokenizer, "aaaa", TEXT_ENCODE_PLAIN, IDS(1));
    check_encode(tokenizer, "aab", TEXT_ENCODE_PLAIN, IDS(7, 3));
    check_encode(tokenizer, "baaa", TEXT_ENCODE_PLAIN, IDS(3, 7, 2));
    text_tokenizer_free(tokenizer);
}

static void test_the_id_of_an_added_token_is_the_vocabularys(void **state) {
    (void)state;
    Error err = {0};
    TextTokenizer *tokenizer = open_text(
        TINY ",\"added_tokens\":[{\"id\":50,\"content\":\"<new>\",\"single_word\":false,\"lstrip\":"
             "false,\"rstrip\":false,\"normalized\":false,"
             "\"special\":true},{\"id\":60,\"content\":\"ab\",\"single_word\":false,\"lstrip\":"
             "false,\"rstrip\":false,\"normalized\":false,\"special\":false}]}",
        &err);
    assert_non_null(tokenizer);
    assert_int_equal(text_tokenizer_id(tokenizer, "<new>"), 4);
    assert_int_equal(text_tokenizer_id(tokenizer, "ab"), 2);
    text_tokenizer_free(tokenizer);
}

/* ---- files that are wrong ----------------------------------------------- */

static void test_wrong_files_fail_with_what_is_wrong(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "tokenizer.json"},
        {"[]", "object"},
        {TINY, "tokenizer.json"},
        {TINY ",\"extra\":1}", "extra"},
        {"{\"version\":\"2.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "2.0"},
        {TINY ",\"normalizer\":{\"type\":\"Precompiled\"}}", "Precompiled"},
        {TINY ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAEAAA==\"}}",
         "charsmap"},
        {TINY ",\"pre_tokenizer\":{\"type\":\"Scripts\"}}", "Scripts"},
        {TINY ",\"decoder\":{\"type\":\"Nothing\"}}", "Nothing"},
        {TINY ",\"post_processor\":{\"type\":\"Strange\"}}", "Strange"},
        {TINY ",\"normalizer\":{\"type\":\"Lowercase\"},\"pre_tokenizer\":{\"type\":\"Split\","
              "\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}}",
         "( without )"},
        {TINY ",\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]}", "single_word"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}}", "vocab"},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0.0]]}}", "unk_id"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "score"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
         "not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}",
         "product"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b c\"]}}",
         "merge"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "two tokens"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4294967296},\"merges\":[]}}", "outside"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "whole number"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":1},\"merges\":[]}}", "string"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1}}}", "merges"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Error err = {0};
        TextTokenizer *tokenizer = open_text(cases[i][0], &err);
        if (tokenizer || !strstr(err.message, cases[i][1]))
            fail_msg("case %zu: %s", i, tokenizer ? "opened" : err.message);
    }
}

static void test_a_missing_unk_token_is_an_error_of_encoding(void **state) {
    (void)state;
    Error err = {0};
    TextIds ids = {0};
    TextTokenizer *tokenizer = open_text(
        "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0},\"unk_token\":\"<unk>\"}}", &err);
    assert_non_null(tokenizer);
    text_ids_append(&ids, 7);
    assert_false(text_tokenizer_encode(tokenizer, "zebra", 5, TEXT_ENCODE_PLAIN, &ids, &err));
    assert_non_null(strstr(err.message, "<unk>"));
    assert_int_equal(ids.length, 1);
    assert_int_equal(text_tokenizer_count(tokenizer, "zebra", 5), 5);
    text_ids_free(&ids);
    text_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special_tokens_are_read_only_where_asked),
        cmocka_unit_test(test_added_tokens_swallow_spaces_and_keep_to_words),
        cmocka_unit_test(test_spaces_that_a_token_took_are_no_token_again),
        cmocka_unit_test(test_a_text_listed_twice_has_two_ids),
        cmocka_unit_test(test_a_pair_has_types_sequences_and_spans),
        cmocka_unit_test(test_truncation_cuts_what_it_was_told_to_cut),
        cmocka_unit_test(test_spans_cover_the_text_in_whole_characters),
        cmocka_unit_test(test_marks_that_change_places_leave_spans_in_order),
        cmocka_unit_test(test_invalid_bytes_are_read_as_replacement_characters),
        cmocka_unit_test(test_nul_is_text),
        cmocka_unit_test(test_a_long_run_of_one_class_stays_near_linear),
        cmocka_unit_test(test_threads_share_a_tokenizer),
        cmocka_unit_test(test_a_stream_never_gives_half_a_character),
        cmocka_unit_test(test_stop_strings_hold_what_may_become_one),
        cmocka_unit_test(test_a_folder_gives_special_tokens_by_precedence),
        cmocka_unit_test(test_merges_of_one_rank_go_from_the_left),
        cmocka_unit_test(test_the_id_of_an_added_token_is_the_vocabularys),
        cmocka_unit_test(test_wrong_files_fail_with_what_is_wrong),
        cmocka_unit_test(test_a_missing_unk_token_is_an_error_of_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
