/* Streams and buffers: order, choice, batches, packs, windows. */
#include "data/data_test.h"

/* ---- passes ------------------------------------------------------------------------------ */

static void test_a_second_pass_needs_a_rewind(void **state) {
    (void)state;
    Error err = {0};
    DxStream *stream = number_stream(3);
    assert_gives(stream, "n", "0 | 1 | 2");
    assert_gives(stream, "n", "");
    assert_true(dx_rewind(stream, 1, &err));
    assert_gives(stream, "n", "0 | 1 | 2");
    dx_stream_free(stream);
}

static void test_every_operator_starts_again_after_a_rewind(void **state) {
    (void)state;
    Error err = {0};
    const DxBatchOptions batch = {.size = 2};
    const DxDynamicOptions dynamic = {.key = "n", .window = 4, .min_size = 2, .max_size = 3};
    const DxWindowOptions window = {.key = "n", .size = 2, .stride = 1, .short_tails = true};
    DxStream *stream = dx_take(dx_skip(number_stream(20), 1, &err), 15, &err);
    stream = dx_repeat(dx_window_shuffle(stream, 4, 3, &err), 2, &err);
    stream = dx_sliding_window(dx_batch(stream, &batch, &err), &window, &err);
    stream = dx_dynamic_batch(stream, &dynamic, &err);
    assert_non_null(stream);
    char *first = drain(stream, "n");
    assert_true(strlen(first) > 40);
    for (int left = 0; left < 5; left++) {
        assert_true(dx_rewind(stream, 0, &err));
        for (int i = 0; i < left; i++) { /* also from the middle of a batch, a block, a carry */
            DxSample *sample;
            assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
            dx_sample_free(sample);
        }
        assert_true(dx_rewind(stream, 0, &err));
        assert_gives(stream, "n", first);
    }
    free(first);
    dx_stream_free(stream);
}

static void test_repeat_counts_all_passes(void **state) {
    (void)state;
    Error err = {0};
    assert_all(dx_repeat(number_stream(2), 1, &err), "n", "0 | 1");
    assert_all(dx_repeat(number_stream(2), 3, &err), "n", "0 | 1 | 0 | 1 | 0 | 1");
    assert_all(dx_take(dx_repeat(number_stream(2), 0, &err), 5, &err), "n", "0 | 1 | 0 | 1 | 0");
    assert_all(dx_repeat(number_stream(0), 0, &err), "n", "");
    assert_null(dx_repeat(number_stream(2), -1, &err));
    assert_string_equal(err.message, "repeat: -1 passes");
}

/* ---- order and choice ------------------------------------------------------------------------ */

static void test_a_shuffle_is_a_permutation_of_its_epoch(void **state) {
    (void)state;
    Error err = {0};
    DxBuffer *buffer = dx_buffer_shuffle(numbers(100), 7, &err);
    uint8_t seen[2][100] = {{0}};
    int moved = 0;
    for (int64_t i = 0; i < 100; i++) {
        int64_t at[3];
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            DxSample *sample;
            assert_int_equal(dx_buffer_get(buffer, epoch % 2, i, &sample, &err), DX_OK);
            at[epoch] = dx_array_int_at(dx_sample_get(sample, dx_key("n")), 0);
            dx_sample_free(sample);
        }
        assert_int_equal(at[0], at[2]);
        seen[0][at[0]]++;
        seen[1][at[1]]++;
        moved += at[0] != at[1];
    }
    for (int i = 0; i < 100; i++) assert_int_equal(seen[0][i] + seen[1][i], 2);
    assert_true(moved > 80);
    dx_buffer_free(buffer);
}

static int64_t calls;
static DxStatus counted(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self;
    (void)sample;
    (void)random;
    (void)err;
    calls++;
    return DX_OK;
}

static void test_shards_are_disjoint_cover_and_work_for_their_own_share(void **state) {
    (void)state;
    Error err = {0};
    const char *uneven[] = {"0 | 4 | 8", "1 | 5 | 9", "2 | 6", "3 | 7"};
    const char *trimmed[] = {"0 | 4", "1 | 5", "2 | 6", "3 | 7"};
    const char *wrapped[] = {"0 | 4 | 8", "1 | 5 | 9", "2 | 6 | 0", "3 | 7 | 1"};
    const char **expected[] = {uneven, trimmed, wrapped};
    for (int tail = 0; tail < 3; tail++)
        for (int rank = 0; rank < 4; rank++) {
            DxBuffer *buffer =
                dx_buffer_map(numbers(10), &(DxOp){.name = "count", .apply = counted}, NULL, &err);
            calls = 0;
            buffer = dx_buffer_shard(buffer, 4, rank, (DxTail)tail, &err);
            int64_t share = dx_buffer_count(buffer);
            assert_all(dx_buffer_stream(buffer, &err), "n", expected[tail][rank]);
            assert_int_equal(calls, share);
        }
    assert_all(dx_stream_shard(number_stream(10), 4, 2, &err), "n", "2 | 6");
    assert_null(dx_stream_shard(number_stream(10), 4, 4, &err));
    assert_string_equal(err.message, "shard: rank 4 of 4");
    base_error_clear(&err);
    assert_null(dx_buffer_shard(numbers(10), 0, 0, DX_TRIM, &err));
}

static void test_take_and_skip(void **state) {
    (void)state;
    Error err = {0};
    assert_all(dx_take(number_stream(5), 2, &err), "n", "0 | 1");
    assert_all(dx_take(number_stream(5), 0, &err), "n", "");
    assert_all(dx_take(number_stream(2), 9, &err), "n", "0 | 1");
    assert_all(dx_skip(number_stream(5), 3, &err), "n", "3 | 4");
    assert_all(dx_skip(number_stream(2), 9, &err), "n", "");
    assert_null(dx_take(number_stream(2), -1, &err));
    assert_null(dx_skip(NULL, 1, &err));
}

static void test_a_window_shuffle_loses_nothing(void **state) {
    (void)state;
    Error err = {0};
    DxStream *stream = dx_window_shuffle(number_stream(50), 8, 5, &err);
    char *first = drain(stream, "n");
    assert_true(dx_rewind(stream, 1, &err));
    char *other = drain(stream, "n");
    assert_true(dx_rewind(stream, 0, &err));
    assert_gives(stream, "n", first);
    assert_string_not_equal(first, other);
    assert_true(dx_rewind(stream, 0, &err));
    uint8_t seen[50] = {0};
    DxSample *sample;
    while (dx_next(stream, &sample, &err) == DX_OK) {
        seen[dx_array_int_at(dx_sample_get(sample, dx_key("n")), 0)]++;
        dx_sample_free(sample);
    }
    for (int i = 0; i < 50; i++) assert_int_equal(seen[i], 1);
    dx_stream_free(stream);
    free(first);
    free(other);
    assert_null(dx_window_shuffle(number_stream(5), 0, 1, &err));
}

static void test_streams_one_behind_another_and_mixed(void **state) {
    (void)state;
    Error err = {0};
    DxStream *two[] = {number_stream(2), number_stream(3)};
    assert_all(dx_chain(two, 2, &err), "n", "0 | 1 | 0 | 1 | 2");
    int share = 0;
    DxStream *large[] = {number_stream(4000), number_stream(4000)};
    DxStream *mix = dx_mix(
        large, 2, &(DxMixOptions){.weights = (double[]){3, 1}, .seed = 2, .shortest = true}, &err);
    for (int i = 0; i < 2000; i++) {
        DxSample *sample;
        assert_int_equal(dx_next(mix, &sample, &err), DX_OK);
        share += dx_sample_record(sample)->source == 0;
        dx_sample_free(sample);
    }
    assert_in_range(share, 1430, 1570);
    dx_stream_free(mix);
    DxStream *none[] = {number_stream(1), number_stream(1)};
    assert_null(dx_mix(none, 2, &(DxMixOptions){.weights = (double[]){0, 0}}, &err));
}

/* ---- batches ------------------------------------------------------------------------------------
 */

static void test_a_batch_stacks_pads_and_keeps_the_short_one(void **state) {
    (void)state;
    Error err = {0};
    const DxPad pads[] = {{"ids", -1}};
    DxBatchOptions options = {.size = 2, .pads = pads, .n_pads = 1};
    assert_all(dx_batch(VECTORS(1, 2, 3), &options, &err), "ids", "1 -1 2 2 | 3 3 3");
    options.drop_last = true;
    assert_all(dx_batch(VECTORS(1, 2, 3), &options, &err), "ids", "1 -1 2 2");
    assert_null(dx_batch(VECTORS(1), &(DxBatchOptions){.size = 0}, &err));
    assert_string_equal(err.message, "batch: 0 samples");
}

static void test_a_batch_joins_along_an_axis(void **state) {
    (void)state;
    Error err = {0};
    const struct DxJoin join[] = {{"ids", 0}};
    DxStream *stream = dx_batch(VECTORS(1, 2, 0, 3),
                                &(DxBatchOptions){.size = 4, .joins = join, .n_joins = 1}, &err);
    DxSample *sample;
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    const DxArray *ids = dx_sample_get(sample, dx_key("ids"));
    assert_int_equal(ids->rank, 1);
    assert_int_equal(ids->shape[0], 6);
    assert_int_equal(dx_array_int_at(ids, 5), 4);
    dx_sample_free(sample);
    dx_stream_free(stream);
}

static void test_arrays_of_two_axes_are_padded_in_both(void **state) {
    (void)state;
    Error err = {0};
    DxSample *samples[2] = {dx_sample_new(), dx_sample_new()};
    const float one[] = {1, 2, 3, 4}, two[] = {5, 6, 7};
    dx_sample_put(&samples[0], dx_key("x"),
                  dx_array_copy(DX_F32, 2, (const int64_t[]){2, 2}, one, &err));
    dx_sample_put(&samples[1], dx_key("x"),
                  dx_array_copy(DX_F32, 2, (const int64_t[]){1, 3}, two, &err));
    DxSample *batch = dx_collate(samples, 2, &(DxBatchOptions){.size = 2}, &err);
    StrBuf text = {0};
    print_array(&text, dx_sample_get(batch, dx_key("x")));
    assert_string_equal(text.data, "1 2 0 3 4 0 5 6 7 0 0 0");
    base_str_free(&text);
    dx_sample_free(batch);
    for (int i = 0; i < 2; i++) dx_sample_free(samples[i]);
}

static void test_axes_without_elements_batch(void **state) {
    (void)state;
    Error err = {0};
    assert_all(dx_batch(VECTORS(0, 0), &(DxBatchOptions){.size = 2}, &err), "ids", "");
    assert_all(dx_batch(VECTORS(0, 2), &(DxBatchOptions){.size = 2}, &err), "ids", "0 0 2 2");
}

static void test_missing_and_extra_keys_of_a_batch_are_failures(void **state) {
    (void)state;
    DxSample *samples[2] = {dx_sample_new(), dx_sample_new()};
    dx_sample_put(&samples[0], dx_key("a"), dx_array_int(1));
    dx_sample_put(&samples[1], dx_key("a"), dx_array_int(1));
    dx_sample_put(&samples[1], dx_key("b"), dx_array_int(1));
    Error err = {0};
    assert_null(dx_collate(samples, 2, &(DxBatchOptions){.size = 2}, &err));
    assert_string_equal(err.message, "sample 1 of a batch has key \"b\", which the first lacks");
    DxSample *turned[2] = {samples[1], samples[0]};
    base_error_clear(&err);
    assert_null(dx_collate(turned, 2, &(DxBatchOptions){.size = 2}, &err));
    assert_string_equal(err.message, "sample 1 of a batch lacks key \"b\", which the first has");
    dx_sample_put(&samples[0], dx_key("b"), dx_array_real(1));
    base_error_clear(&err);
    assert_null(dx_collate(samples, 2, &(DxBatchOptions){.size = 2}, &err));
    assert_string_equal(err.message, "key \"b\": float64 beside int64 in one batch");
    for (int i = 0; i < 2; i++) dx_sample_free(samples[i]);
}

/* ---- batches of similar size
 * --------------------------------------------------------------------- */

/* Lengths of the rows of each batch, as "{1,2,2}{3,4}". */
static void assert_groups(DxStream *stream, const char *expected, uint64_t dropped) {
    Error err = {0};
    StrBuf text = {0};
    base_str_append(&text, "");
    DxSample *sample;
    assert_non_null(stream);
    while (dx_next(stream, &sample, &err) == DX_OK) {
        const DxArray *ids = dx_sample_get(sample, dx_key("ids"));
        for (int64_t row = 0; row < ids->shape[0]; row++) {
            int length = 0;
            for (int64_t i = 0; i < ids->shape[1]; i++)
                length += dx_array_int_at(ids, (size_t)(row * ids->shape[1] + i)) != 0;
            base_str_appendf(&text, "%s%d", row ? "," : "{", length);
        }
        base_str_append(&text, "}");
        dx_sample_free(sample);
    }
    assert_string_equal(text.data, expected);
    assert_int_equal(dx_dynamic_dropped(stream), dropped);
    base_str_free(&text);
    dx_stream_free(stream);
}

/* The first three are what mlx-data 0.2.0 gives; the others it gets wrong. */
static void test_dynamic_batches_as_mlx_data_cuts_them(void **state) {
    (void)state;
    Error err = {0};
    DxDynamicOptions options = {.key = "ids", .max_size = 8};
    assert_groups(dx_dynamic_batch(VECTORS(3, 1, 2, 5, 4, 2), &options, &err), "{1,2,2}{3,4}{5}",
                  0);
    options.window = 3;
    assert_groups(dx_dynamic_batch(VECTORS(3, 1, 2, 5, 4, 2), &options, &err), "{1,2}{3}{2,4}{5}",
                  0);
    options = (DxDynamicOptions){.key = "ids", .min_size = 8, .max_size = 10};
    assert_groups(dx_dynamic_batch(VECTORS(4, 4, 3, 3, 3, 7, 9), &options, &err), "{3,3,3}{4,4}",
                  2);
}

static void test_dynamic_batches_lose_and_keep_outliers_as_told(void **state) {
    (void)state;
    Error err = {0};
    DxDynamicOptions options = {.key = "ids", .max_size = 10};
    assert_groups(dx_dynamic_batch(VECTORS(1, 1, 100), &options, &err), "{1,1}{100}", 0);
    options.drop_outliers = true;
    assert_groups(dx_dynamic_batch(VECTORS(1, 1, 100), &options, &err), "{1,1}", 1);
    assert_groups(dx_dynamic_batch(VECTORS(1, 1, 100, 200, 300), &options, &err), "{1,1}", 3);
    options.window = 2; /* a window that gives nothing does not end the stream */
    assert_groups(dx_dynamic_batch(VECTORS(100, 200, 1, 1), &options, &err), "{1,1}", 2);
}

static void test_small_groups_wait_for_the_next_window(void **state) {
    (void)state;
    Error err = {0};
    DxDynamicOptions options = {.key = "ids", .min_size = 6, .max_size = 6, .window = 2};
    assert_groups(dx_dynamic_batch(VECTORS(2, 2, 2, 3, 3, 1), &options, &err), "{2,2,2}{1,3}", 1);
    options = (DxDynamicOptions){.key = "ids", .min_size = 4}; /* the order stays */
    assert_groups(dx_dynamic_batch(VECTORS(3, 1, 1, 2, 2), &options, &err), "{3,1}{1,2}", 1);
    assert_null(dx_dynamic_batch(VECTORS(1), &(DxDynamicOptions){.key = "ids"}, &err));
    base_error_clear(&err);
    assert_null(dx_dynamic_batch(
        VECTORS(1), &(DxDynamicOptions){.key = "ids", .min_size = 5, .max_size = 4}, &err));
}

static double padding(int64_t window, int64_t batch_size) {
    Error err = {0};
    enum { ROWS = 10000 };
    int *lengths = malloc(ROWS * sizeof *lengths);
    for (int i = 0; i < ROWS; i++) {
        DxRandom random = dx_random_of(1, 0, (uint64_t)i);
        lengths[i] = 64 + (int)dx_random_below(&random, 961);
    }
    DxStream *stream = vectors(lengths, ROWS);
    stream =
        batch_size
            ? dx_batch(stream, &(DxBatchOptions){.size = batch_size}, &err)
            : dx_dynamic_batch(
                  stream, &(DxDynamicOptions){.key = "ids", .window = window, .max_size = 16384},
                  &err);
    double real = 0, all = 0;
    DxSample *sample;
    for (int i = 0; i < ROWS; i++) real += lengths[i];
    while (dx_next(stream, &sample, &err) == DX_OK) {
        all += (double)dx_sample_get(sample, dx_key("ids"))->count;
        dx_sample_free(sample);
    }
    dx_stream_free(stream);
    free(lengths);
    return 1 - real / all;
}

static void test_dynamic_batches_waste_little_room(void **state) {
    (void)state;
    assert_true(padding(0, 16) > 0.4); /* what they are for */
    assert_true(padding(0, 0) <= 0.004);
    assert_true(padding(500, 0) <= 0.06);
}

/* ---- windows and packs
 * ---------------------------------------------------------------------------- */

static void test_windows_slide(void **state) {
    (void)state;
    Error err = {0};
    DxWindowOptions options = {.key = "ids", .size = 4, .stride = 1, .index_key = "w"};
    assert_all(dx_sliding_window(VECTORS(5), &options, &err), "ids", "1 1 1 1 | 1 1 1 1");
    options.short_tails = true;
    assert_all(dx_sliding_window(VECTORS(5), &options, &err), "ids",
               "1 1 1 1 | 1 1 1 1 | 1 1 1 | 1 1 | 1");
    assert_all(dx_sliding_window(VECTORS(5), &options, &err), "w", "0 | 1 | 2 | 3 | 4");
    assert_all(dx_sliding_window(VECTORS(0), &options, &err), "ids", "");
    assert_all(dx_sliding_window(VECTORS(2), &options, &err), "ids", "1 1 | 1");
    options = (DxWindowOptions){.key = "ids", .size = 2, .stride = 3, .axis = -1};
    assert_all(dx_sliding_window(VECTORS(8), &options, &err), "ids", "1 1 | 1 1 | 1 1");
    options.stride = INT64_MAX;
    assert_all(dx_sliding_window(VECTORS(8), &options, &err), "ids", "1 1");
}

static void test_windows_over_a_scalar_or_of_no_size_are_failures(void **state) {
    (void)state;
    Error err = {0};
    DxSample *sample;
    DxWindowOptions options = {.key = "n", .size = 2, .stride = 1, .axis = -1};
    DxStream *stream = dx_sliding_window(number_stream(1), &options, &err);
    assert_int_equal(dx_next(stream, &sample, &err), DX_FAIL);
    assert_string_equal(err.message,
                        "numbers: record 0: sliding window: key \"n\": int64 has no axis -1");
    dx_stream_free(stream);
    base_error_clear(&err);
    options.size = 0;
    assert_null(dx_sliding_window(number_stream(1), &options, &err));
}

static void test_packs_are_filled_by_best_fit(void **state) {
    (void)state;
    Error err = {0};
    DxPackOptions options = {.key = "ids", .length = 6, .open = 2};
    /* 4, 3, then 2 fits the 4 exactly; 3 fits the 3; 5 alone */
    assert_all(dx_pack(VECTORS(4, 3, 2, 3, 5), &options, &err), "ids",
               "1 1 1 1 3 3 | 2 2 2 4 4 4 | 5 5 5 5 5 0");
    assert_all(dx_pack(VECTORS(4, 3, 2, 3, 5), &options, &err), "segments",
               "1 1 1 1 2 2 | 1 1 1 2 2 2 | 1 1 1 1 1 0");
    assert_all(dx_pack(VECTORS(4, 3, 2, 3, 5), &options, &err), "positions",
               "0 1 2 3 0 1 | 0 1 2 0 1 2 | 0 1 2 3 4 0");
    assert_all(dx_pack(VECTORS(8), &options, &err), "ids", "1 1 1 1 1 1");
    options.split = true;
    assert_all(dx_pack(VECTORS(8), &options, &err), "ids", "1 1 1 1 1 1 | 1 1 0 0 0 0");
    assert_all(dx_pack(VECTORS(0), &options, &err), "ids", "");
    options.length = 0;
    assert_null(dx_pack(VECTORS(1), &options, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_second_pass_needs_a_rewind),
        cmocka_unit_test(test_every_operator_starts_again_after_a_rewind),
        cmocka_unit_test(test_repeat_counts_all_passes),
        cmocka_unit_test(test_a_shuffle_is_a_permutation_of_its_epoch),
        cmocka_unit_test(test_shards_are_disjoint_cover_and_work_for_their_own_share),
        cmocka_unit_test(test_take_and_skip),
        cmocka_unit_test(test_a_window_shuffle_loses_nothing),
        cmocka_unit_test(test_streams_one_behind_another_and_mixed),
        cmocka_unit_test(test_a_batch_stacks_pads_and_keeps_the_short_one),
        cmocka_unit_test(test_a_batch_joins_along_an_axis),
        cmocka_unit_test(test_arrays_of_two_axes_are_padded_in_both),
        cmocka_unit_test(test_axes_without_elements_batch),
        cmocka_unit_test(test_missing_and_extra_keys_of_a_batch_are_failures),
        cmocka_unit_test(test_dynamic_batches_as_mlx_data_cuts_them),
        cmocka_unit_test(test_dynamic_batches_lose_and_keep_outliers_as_told),
        cmocka_unit_test(test_small_groups_wait_for_the_next_window),
        cmocka_unit_test(test_dynamic_batches_waste_little_room),
        cmocka_unit_test(test_windows_slide),
        cmocka_unit_test(test_windows_over_a_scalar_or_of_no_size_are_failures),
        cmocka_unit_test(test_packs_are_filled_by_best_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
