/* The operators on fields: what they cut, pad, rename and refuse. */
#include "data/data_test.h"

#include <limits.h>
#include <sys/stat.h>

static bool is_odd(void *self, const DxSample *sample) {
    (void)self;
    return dx_array_int_at(dx_sample_get(sample, dx_key("n")), 0) % 2;
}

static DxStream *count_up(int count) {
    Error err = {0};
    DxSample *sample = dx_sample_new();
    int32_t ids[16];
    for (int i = 0; i < count; i++) ids[i] = i;
    dx_sample_put(&sample, dx_key("ids"), dx_array_ids(ids, (size_t)count, &err));
    DxBuffer *buffer = dx_samples(&sample, 1, &err);
    dx_sample_free(sample);
    return dx_buffer_stream(buffer, &err);
}

static DxStream *text_stream(const char *text) {
    Error err = {0};
    DxSample *sample = dx_sample_new();
    dx_sample_put(&sample, dx_key("text"), dx_array_text(text, strlen(text), &err));
    DxBuffer *buffer = dx_samples(&sample, 1, &err);
    dx_sample_free(sample);
    return dx_buffer_stream(buffer, &err);
}

static void assert_step(DxStream *stream, DxStep step, const char *key, const char *expected) {
    Error err = {0};
    assert_all(dx_step(stream, step, &err), key, expected);
}

static void test_filters(void **state) {
    (void)state;
    Error err = {0};
    assert_step(number_stream(6), dx_filter("odd", is_odd, NULL, NULL), "n", "1 | 3 | 5");
    assert_step(VECTORS(1, 5, 2, 3), dx_filter_size("ids", 0, 2, 3, &err), "ids", "3 3 | 4 4 4");
    assert_step(VECTORS(1, 2), dx_filter_size("ids", -1, 2, -1, &err), "ids", "2 2");
    assert_step(VECTORS(1, 2), dx_filter_size("ids", 1, 2, -1, &err), "ids", "! | !");
    DxBuffer *buffer = dx_buffer_step(numbers(6), dx_filter("odd", is_odd, NULL, NULL), &err);
    assert_all(dx_buffer_stream(buffer, &err), "n", "1 | 3 | 5");
}

static void test_fields_are_kept_dropped_and_renamed(void **state) {
    (void)state;
    Error err = {0};
    const char *keys[] = {"ids"};
    assert_step(VECTORS(1), dx_keep(keys, 1, &err), "ids", "1");
    assert_step(VECTORS(1), dx_drop("ids", &err), "ids", "-");
    assert_step(VECTORS(1), dx_drop("text", &err), "ids", "!");
    assert_step(VECTORS(1), dx_rename("ids", "tokens", &err), "tokens", "1");
    assert_step(VECTORS(1), dx_rename("ids", "tokens", &err), "ids", "-");
    assert_step(VECTORS(1), dx_rename("ids", "ids", &err), "ids", "1");
}

static void test_slices_are_pythons(void **state) {
    (void)state;
    Error err = {0};
    const struct {
        int64_t start, end;
        const char *expected;
    } cases[] = {{0, 2, "0 1"},      {1, 9, "1 2 3 4"}, {-2, 9, "3 4"},
                 {0, -1, "0 1 2 3"}, {3, 1, ""},        {7, 9, ""},
                 {-9, 2, "0 1"},     {-2, -1, "3"},     {INT64_MIN, INT64_MAX, "0 1 2 3 4"}};
    for (size_t i = 0; i < BASE_COUNT(cases); i++)
        assert_step(count_up(5), dx_slice("ids", 0, cases[i].start, cases[i].end, &err), "ids",
                    cases[i].expected);
    assert_step(count_up(0), dx_slice("ids", 0, 0, 3, &err), "ids", "");
    assert_step(count_up(5), dx_slice("ids", -2, 0, 3, &err), "ids", "!");
}

static void test_random_slices_stay_inside(void **state) {
    (void)state;
    Error err = {0};
    assert_step(count_up(3), dx_random_slice("ids", 0, 3, 1, &err), "ids", "0 1 2");
    assert_step(count_up(3), dx_random_slice("ids", 0, 9, 1, &err), "ids", "0 1 2");
    DxStream *stream = dx_step(count_up(5), dx_random_slice("ids", 0, 2, 1, &err), &err);
    int seen[5] = {0};
    for (uint64_t epoch = 0; epoch < 60; epoch++) {
        DxSample *sample;
        assert_true(dx_rewind(stream, epoch, &err));
        assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
        const DxArray *ids = dx_sample_get(sample, dx_key("ids"));
        assert_int_equal(ids->count, 2);
        assert_int_equal(dx_array_int_at(ids, 1), dx_array_int_at(ids, 0) + 1);
        seen[dx_array_int_at(ids, 0)]++;
        dx_sample_free(sample);
    }
    for (int i = 0; i < 4; i++) assert_true(seen[i] > 3);
    assert_int_equal(seen[4], 0);
    dx_stream_free(stream);
    assert_null(dx_random_slice("ids", 0, 0, 1, &err).op.apply);
}

static void test_padding(void **state) {
    (void)state;
    Error err = {0};
    assert_step(count_up(2), dx_pad("ids", 0, 1, 2, 7, &err), "ids", "7 0 1 7 7");
    assert_step(count_up(0), dx_pad("ids", 0, 1, 0, 7, &err), "ids", "7");
    assert_step(count_up(2), dx_pad_to("ids", 0, 4, 7, false, &err), "ids", "0 1 7 7");
    assert_step(count_up(4), dx_pad_to("ids", 0, 3, 7, false, &err), "ids", "0 1 2 3");
    assert_step(count_up(4), dx_pad_to("ids", 0, 3, 7, true, &err), "ids", "0 1 2");
    assert_step(count_up(5), dx_pad_to_multiple("ids", -1, 4, 7, &err), "ids", "0 1 2 3 4 7 7 7");
    assert_step(count_up(4), dx_pad_to_multiple("ids", 0, 4, 7, &err), "ids", "0 1 2 3");
    assert_step(count_up(0), dx_pad_to_multiple("ids", 0, 4, 7, &err), "ids", "");
    assert_step(number_stream(1), dx_pad_to_multiple("n", -1, 4, 7, &err), "n", "!");
}

static void test_arguments_without_sense_are_refused_when_the_operator_is_made(void **state) {
    (void)state;
    Error err = {0};
    DxStep step = dx_pad_to_multiple("ids", 0, 0, 0, &err);
    assert_null(step.op.apply);
    assert_string_equal(err.message,
                        "pad to multiple(ids, axis 0, 0 of 0): these arguments make no sense");
    assert_null(dx_step(count_up(2), step, &err));
    assert_null(dx_pad("ids", 0, -1, 0, 0, &err).op.apply);
    assert_null(dx_pad_to("ids", 0, -1, 0, false, &err).op.apply);
    assert_null(dx_replace("text", "", "x", -1, &err).op.apply);
    assert_step(count_up(1), dx_pad("ids", 0, INT64_MAX, 1, 0, &err), "ids", "!");
}

static void test_shapes_and_axes_of_one(void **state) {
    (void)state;
    Error err = {0};
    assert_step(VECTORS(3), dx_shape("ids", 0, "size", &err), "size", "3");
    DxStream *stream = dx_batch(VECTORS(3), &(DxBatchOptions){.size = 1}, &err);
    assert_step(stream, dx_shape("ids", -1, "size", &err), "size", "1 3");
    stream = dx_batch(VECTORS(3), &(DxBatchOptions){.size = 1}, &err);
    stream = dx_step(stream, dx_squeeze("ids", 0, &err), &err);
    assert_step(stream, dx_shape("ids", -1, "size", &err), "size", "3");
    stream = dx_batch(VECTORS(1), &(DxBatchOptions){.size = 1}, &err);
    stream = dx_step(stream, dx_squeeze("ids", INT_MIN, &err), &err);
    assert_step(stream, dx_shape("ids", -1, "size", &err), "size", "");
    assert_step(VECTORS(3), dx_squeeze("ids", 0, &err), "ids", "!");
}

static void assert_text(DxStream *stream, DxStep step, const char *expected) {
    Error err = {0};
    DxSample *sample;
    stream = dx_step(stream, step, &err);
    if (dx_next(stream, &sample, &err) != DX_OK) fail_msg("%s", err.message);
    const DxArray *text = dx_sample_get(sample, dx_key("text"));
    assert_int_equal(text->type, DX_TEXT);
    assert_int_equal(text->count, strlen(expected));
    assert_memory_equal(text->count ? text->data : "", expected, text->count);
    dx_sample_free(sample);
    dx_stream_free(stream);
}

static void test_replacing_counts_and_ends(void **state) {
    (void)state;
    Error err = {0};
    assert_text(text_stream("aabaa"), dx_replace("text", "a", "x", -1, &err), "xxbxx");
    assert_text(text_stream("aabaa"), dx_replace("text", "a", "", 3, &err), "ba");
    assert_text(text_stream("aabaa"), dx_replace("text", "a", "x", 0, &err), "aabaa");
    assert_text(text_stream("aaa"), dx_replace("text", "aa", "b", -1, &err), "ba");
    assert_text(text_stream("a"), dx_replace("text", "abc", "x", -1, &err), "a");
    assert_text(text_stream(""), dx_replace("text", "abc", "x", -1, &err), "");
    assert_step(VECTORS(1), dx_replace("ids", "a", "b", -1, &err), "ids", "!");
}

static DxTrie *trie_of(const char *const *words, size_t count) {
    DxTrie *trie = dx_trie_new();
    Error err = {0};
    for (size_t i = 0; i < count; i++)
        assert_int_equal(dx_trie_add(trie, words[i], strlen(words[i]), -1, &err), i);
    return trie;
}

static bool note_way(void *context, const int32_t *ids, size_t count) {
    for (size_t i = 0; i < count; i++) base_str_appendf(context, "%d ", ids[i]);
    base_str_append(context, ";");
    return true;
}

static void assert_ways(const DxTrie *trie, const char *text, const char *expected) {
    StrBuf ways = {0};
    base_str_append(&ways, "");
    dx_trie_each(trie, text, strlen(text), note_way, &ways);
    assert_string_equal(ways.data, expected);
    base_str_free(&ways);
}

static void test_a_text_is_cut_into_words_of_a_trie(void **state) {
    (void)state;
    Error err = {0};
    const double scores[] = {1, 5, 1};
    DxTrie *trie = trie_of((const char *const[]){"a", "aa", "b"}, 3);
    assert_step(text_stream("aab"), dx_tokenise_trie("text", "ids", trie, NULL, 0, false, &err),
                "ids", "1 2");
    assert_step(text_stream("aab"), dx_tokenise_trie("text", "ids", trie, scores, 3, false, &err),
                "ids", "0 0 2");
    assert_step(text_stream(""), dx_tokenise_trie("text", "ids", trie, NULL, 0, false, &err), "ids",
                "");
    assert_ways(trie, "aab", "1 2 ;0 0 2 ;");
    assert_ways(trie, "aax", "");
    assert_ways(trie, "", ";");
    assert_step(text_stream("aaX"), dx_tokenise_trie("text", "ids", trie, NULL, 0, false, &err),
                "ids", "!");
    assert_null(dx_tokenise_trie("text", "ids", trie, scores, 2, false, &err).op.apply);
    assert_non_null(strstr(err.message, "2 scores for ids up to 2"));
    dx_trie_free(trie);
    /* Nothing that fits is lost with what does not. */
    trie = trie_of((const char *const[]){"a", "bcd", "c"}, 3);
    assert_step(text_stream("abcX"), dx_tokenise_trie("text", "ids", trie, NULL, 0, true, &err),
                "ids", "0 2");
    dx_trie_free(trie);
}

static void test_ids_of_a_trie_do_not_collide(void **state) {
    (void)state;
    Error err = {0};
    DxTrie *trie = dx_trie_new();
    assert_int_equal(dx_trie_add(trie, "a", 1, 1, &err), 1);
    assert_int_equal(dx_trie_add(trie, "a", 1, -1, &err), 1);
    assert_int_equal(dx_trie_add(trie, "b", 1, -1, &err), -1); /* would be 1 */
    assert_non_null(strstr(err.message, "the id 1 is another word's than \"b\""));
    assert_int_equal(dx_trie_add(trie, "a", 1, 2, &err), -1);
    assert_int_equal(dx_trie_add(trie, "", 0, -1, &err), -1);
    assert_int_equal(dx_trie_add(trie, "c", 1, 1 << 24, &err), -1);
    assert_int_equal(dx_trie_add(trie, "abc", 3, 0, &err), 0);
    assert_int_equal(dx_trie_find(trie, "abc", 3), 0);
    assert_int_equal(dx_trie_find(trie, "ab", 2), -1);
    assert_int_equal(dx_trie_count(trie), 2);
    dx_trie_free(trie);
}

static void assert_load_fails(const char *path, const char *part) {
    Error err = {0};
    DxSample *sample;
    DxStream *stream = dx_step(text_stream(path), dx_load_file("text", NULL, "bytes", &err), &err);
    assert_int_equal(dx_next(stream, &sample, &err), DX_FAIL);
    assert_non_null(strstr(err.message, path));
    if (!strstr(err.message, part)) fail_msg("%s", err.message);
    dx_stream_free(stream);
}

static void test_files_are_loaded_or_named(void **state) {
    (void)state;
    Error err = {0};
    char *path = write_file("three.bin", "\x01\xff\x00", 3);
    assert_step(text_stream(path), dx_load_file("text", "/nowhere", "bytes", &err), "bytes",
                "1 255 0");
    free(path);
    path = write_file("nothing.bin", "", 0);
    assert_step(text_stream(path), dx_load_file("text", NULL, "bytes", &err), "bytes", "");
    free(path);
    assert_load_fails("/nowhere/missing.txt", "No such file");
    assert_load_fails("/tmp", "is a folder, not a file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_fields_are_kept_dropped_and_renamed),
        cmocka_unit_test(test_slices_are_pythons),
        cmocka_unit_test(test_random_slices_stay_inside),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_arguments_without_sense_are_refused_when_the_operator_is_made),
        cmocka_unit_test(test_shapes_and_axes_of_one),
        cmocka_unit_test(test_replacing_counts_and_ends),
        cmocka_unit_test(test_a_text_is_cut_into_words_of_a_trie),
        cmocka_unit_test(test_ids_of_a_trie_do_not_collide),
        cmocka_unit_test(test_files_are_loaded_or_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
