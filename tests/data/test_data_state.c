/* Saved states: going on from any place gives what an undisturbed run gives, byte for
 * byte, for any number of threads; other pipelines and damaged states are refused. */
#include "data/data_test.h"

static DxStatus digits(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self;
    (void)err;
    int64_t n = dx_array_int_at(dx_sample_get(*sample, dx_key("n")), 0);
    int32_t ids[8];
    size_t count = (size_t)dx_random_below(random, 8);
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)(n * 10 + (int64_t)i);
    dx_sample_put(sample, dx_key("ids"), dx_array_ids(ids, count, err));
    dx_sample_remove(sample, dx_key("n"));
    return n % 7 == 3 ? DX_SKIP : DX_OK;
}

static DxStatus halves(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                       Error *err) {
    (void)self;
    (void)random;
    const DxArray *ids = dx_sample_get(sample, dx_key("ids"));
    size_t half = ids->count / 2;
    for (size_t begin = 0; begin < ids->count; begin += half ? half : 1) {
        size_t count = BASE_MIN(half ? half : 1, ids->count - begin);
        DxSample *part = dx_sample_new();
        dx_sample_put(&part, dx_key("ids"),
                      dx_array_ids((const int32_t *)ids->data + begin, count, err));
        dx_emit(emit, part);
    }
    return DX_OK;
}

/* Shuffle, map, flat map, threads, three epochs, window shuffle, pack, batch. */
static DxStream *pipeline(int64_t count, int threads, int64_t length) {
    Error err = {0};
    DxStream *s = dx_buffer_stream(dx_buffer_shuffle(numbers(count), 11, &err), &err);
    s = dx_map(s, &(DxOp){.name = "digits", .seed = 5, .apply = digits}, NULL, &err);
    s = dx_flat_map(s, &(DxExpand){.name = "halves", .expand = halves}, NULL, &err);
    s = dx_parallel(s, &(DxParallelOptions){.threads = threads, .depth = threads * 2}, &err);
    s = dx_repeat(s, 3, &err);
    s = dx_window_shuffle(s, 5, 4, &err);
    s = dx_pack(s, &(DxPackOptions){.key = "ids", .length = length, .open = 3}, &err);
    s = dx_batch(s, &(DxBatchOptions){.size = 2}, &err);
    if (!s) fail_msg("%s", err.message);
    return s;
}

static void test_going_on_from_every_step_gives_the_same(void **state) {
    (void)state;
    Error err = {0};
    DxStream *whole = pipeline(90, 1, 8);
    enum { MOST = 400 };
    DxSample *expected[MOST];
    StrBuf states[MOST + 1] = {{0}};
    int count = 0;
    assert_true(dx_save(whole, &states[0], &err));
    while (dx_next(whole, &expected[count], &err) == DX_OK) {
        count++;
        assert_in_range(count, 1, MOST - 1);
        if (!dx_save(whole, &states[count], &err)) fail_msg("%s", err.message);
    }
    dx_stream_free(whole);
    assert_in_range(count, 40, MOST);
    DxStream *three = pipeline(90, 3, 8);
    for (int from = 0; from <= count; from += from % 9 ? 1 : 3) {
        if (!dx_load(three, states[from].data, states[from].length, &err))
            fail_msg("%s", err.message);
        for (int i = from; i < BASE_MIN(from + 12, count); i++) {
            DxSample *sample;
            StrBuf again = {0};
            assert_true(dx_save(three, &again, &err)); /* the same bytes with other threads */
            assert_int_equal(again.length, states[i].length);
            assert_memory_equal(again.data, states[i].data, again.length);
            base_str_free(&again);
            assert_int_equal(dx_next(three, &sample, &err), DX_OK);
            assert_true(dx_sample_equal(sample, expected[i]));
            dx_sample_free(sample);
        }
    }
    DxSample *sample;
    assert_true(dx_load(three, states[count].data, states[count].length, &err));
    assert_int_equal(dx_next(three, &sample, &err), DX_END);
    dx_stream_free(three);
    for (int i = 0; i < count; i++) dx_sample_free(expected[i]);
    for (int i = 0; i <= count; i++) base_str_free(&states[i]);
}

static DxStream *other_operators(void) {
    Error err = {0};
    DxStream *two[] = {number_stream(9), number_stream(5)};
    DxStream *s = dx_mix(two, 2, &(DxMixOptions){.seed = 3}, &err);
    s = dx_skip(dx_take(s, 12, &err), 1, &err);
    s = dx_batch(s, &(DxBatchOptions){.size = 3}, &err);
    const DxWindowOptions window = {.key = "n", .size = 2, .stride = 1, .short_tails = true};
    s = dx_sliding_window(s, &window, &err);
    return dx_dynamic_batch(
        s, &(DxDynamicOptions){.key = "n", .window = 3, .min_size = 3, .max_size = 4}, &err);
}

static void test_flat_maps_mixes_and_dynamic_batches_go_on(void **state) {
    (void)state;
    Error err = {0};
    DxStream *stream = other_operators();
    char *rest = drain(stream, "n");
    dx_stream_free(stream);
    for (int steps = 0;; steps++) {
        stream = other_operators();
        StrBuf text = {0}, saved = {0};
        DxSample *sample;
        DxStatus status = DX_OK;
        base_str_append(&text, "");
        for (int i = 0; i < steps && status == DX_OK; i++) {
            status = dx_next(stream, &sample, &err);
            if (status != DX_OK) break;
            print_array(&text, dx_sample_get(sample, dx_key("n")));
            base_str_append(&text, " | ");
            dx_sample_free(sample);
        }
        assert_true(dx_save(stream, &saved, &err));
        dx_stream_free(stream);
        if (status == DX_END) {
            base_str_free(&saved);
            base_str_free(&text);
            assert_true(steps > 3);
            break;
        }
        stream = other_operators();
        assert_true(dx_load(stream, saved.data, saved.length, &err));
        char *after = drain(stream, "n");
        base_str_append(&text, after);
        if (!after[0]) text.data[text.length - 3] = '\0';
        assert_string_equal(text.data, rest);
        free(after);
        base_str_free(&saved);
        base_str_free(&text);
        dx_stream_free(stream);
    }
    free(rest);
}

static void test_a_state_of_another_pipeline_is_refused_by_name(void **state) {
    (void)state;
    Error err = {0};
    StrBuf saved = {0};
    DxStream *stream = pipeline(90, 2, 8);
    assert_true(dx_save(stream, &saved, &err));
    dx_stream_free(stream);
    DxStream *longer = pipeline(90, 2, 9), *less = pipeline(89, 2, 8);
    assert_false(dx_load(longer, saved.data, saved.length, &err));
    assert_non_null(strstr(err.message, "pack(ids, 8, 3 open"));
    assert_non_null(strstr(err.message, "pack(ids, 9, 3 open"));
    base_error_clear(&err);
    assert_false(dx_load(less, saved.data, saved.length, &err));
    assert_non_null(strstr(err.message, "numbers, 90 samples"));
    dx_stream_free(longer);
    dx_stream_free(less);
    base_str_free(&saved);
}

static void test_a_damaged_state_is_refused_and_changes_nothing(void **state) {
    (void)state;
    Error err = {0};
    StrBuf saved = {0};
    DxStream *stream = dx_batch(number_stream(7), &(DxBatchOptions){.size = 2}, &err);
    DxSample *sample;
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    dx_sample_free(sample);
    assert_true(dx_save(stream, &saved, &err));
    for (size_t length = 0; length < saved.length; length++) {
        base_error_clear(&err);
        assert_false(dx_load(stream, saved.data, length, &err));
        assert_int_not_equal(err.code, ERROR_NONE);
    }
    for (size_t at = 0; at < saved.length; at++) {
        base_error_clear(&err);
        saved.data[at] ^= 0x10;
        assert_false(dx_load(stream, saved.data, saved.length, &err));
        saved.data[at] ^= 0x10;
    }
    assert_all(stream, "n", "2 3 | 4 5 | 6");
    base_str_free(&saved);
}

static DxStatus endless_next(void *self, DxSample **sample, Error *err) {
    (void)self;
    (void)err;
    dx_sample_put(sample, dx_key("n"), dx_array_int(1));
    return DX_OK;
}

static void test_a_source_that_does_not_know_its_place_says_so(void **state) {
    (void)state;
    Error err = {0};
    StrBuf saved = {0};
    DxStream *stream =
        dx_stream_callback(&(DxStreamCallback){.name = "socket", .next = endless_next}, NULL, &err);
    stream = dx_parallel(dx_take(stream, 3, &err), &(DxParallelOptions){.threads = 2}, &err);
    assert_gives(stream, "n", "1 | 1 | 1");
    assert_false(dx_save(stream, &saved, &err));
    assert_string_equal(err.message, "socket: this source cannot say where it is");
    base_error_clear(&err);
    assert_false(dx_rewind(stream, 0, &err));
    assert_string_equal(err.message, "socket: this source gives one pass only");
    dx_stream_free(stream);
}

static void test_a_changed_file_is_another_source(void **state) {
    (void)state;
    Error err = {0};
    StrBuf saved = {0};
    char *path = write_file("rows.jsonl", "{\"a\":1}\n{\"a\":2}\n", 16);
    DxStream *stream = dx_buffer_stream(dx_jsonl(&(DxJsonlOptions){.path = path}, &err), &err);
    assert_true(dx_save(stream, &saved, &err));
    dx_stream_free(stream);
    free(write_file("rows.jsonl", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", 24));
    stream = dx_buffer_stream(dx_jsonl(&(DxJsonlOptions){.path = path}, &err), &err);
    assert_false(dx_load(stream, saved.data, saved.length, &err));
    dx_stream_free(stream);
    base_str_free(&saved);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_going_on_from_every_step_gives_the_same),
        cmocka_unit_test(test_flat_maps_mixes_and_dynamic_batches_go_on),
        cmocka_unit_test(test_a_state_of_another_pipeline_is_refused_by_name),
        cmocka_unit_test(test_a_damaged_state_is_refused_and_changes_nothing),
        cmocka_unit_test(test_a_source_that_does_not_know_its_place_says_so),
        cmocka_unit_test(test_a_changed_file_is_another_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
