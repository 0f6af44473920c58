/* Laziness, layouts and memory: what is computed when, what shares what, what is
 * given back, and that many small evaluations leave nothing behind. */
#include "conformance/check.h"

#include <pthread.h>

static size_t active(void) {
    size_t bytes = 0;
    mlx_synchronize(cpu);
    assert_int_equal(mlx_get_active_memory(&bytes), 0);
    return bytes;
}

static bool available(mlx_array array) {
    bool there = false;
    assert_int_equal(_mlx_array_is_available(&there, array), 0);
    return there;
}

static void check_flags(mlx_array array, bool contiguous, bool rows, bool columns) {
    bool flag;
    assert_int_equal(mlx_array_eval(array), 0);
    _mlx_array_is_contiguous(&flag, array);
    assert_int_equal(flag, contiguous);
    _mlx_array_is_row_contiguous(&flag, array);
    assert_int_equal(flag, rows);
    _mlx_array_is_col_contiguous(&flag, array);
    assert_int_equal(flag, columns);
}

static void check_strides(mlx_array array, const long *strides, size_t count) {
    assert_int_equal(mlx_array_eval(array), 0);
    assert_int_equal(mlx_array_ndim(array), count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal((long)mlx_array_strides(array)[i], strides[i]);
}
#define STRIDES(...) (long[]){__VA_ARGS__}, sizeof((long[]){__VA_ARGS__}) / sizeof(long)

static void test_nothing_happens_before_evaluation(void **state) {
    (void)state;
    mlx_array x = OP(zeros, LIST(1024, 1024), MLX_FLOAT32);
    mlx_array_eval(x);
    const size_t before = active();
    mlx_array y = OP(exp, OP(add, x, x));
    assert_false(available(y));
    if (!upstream(NULL_DATA)) assert_null(mlx_array_data_float32(y));
    assert_int_equal(active(), before);
    assert_int_equal(mlx_array_eval(y), 0);
    assert_true(available(y));
    assert_true(active() >= before + (4u << 20));
    assert_true(available(keep(mlx_array_new_int(1))));
}

static void test_async_evaluation_arrives(void **state) {
    (void)state;
    mlx_array y = OP(square, count_up(MLX_FLOAT32, SHAPE(1000)));
    mlx_vector_array one = mlx_vector_array_new_value(y);
    assert_int_equal(mlx_async_eval(one), 0);
    assert_int_equal(mlx_eval(one), 0);
    assert_int_equal(_mlx_array_wait(y), 0);
    assert_true(mlx_array_data_float32(y)[999] == 998001);
    mlx_vector_array_free(one);
    mlx_vector_array none = mlx_vector_array_new();
    assert_int_equal(mlx_eval(none), 0);
    mlx_vector_array_free(none);
}

static void test_views_share_and_carry_strides(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(3, 4));
    mlx_array_eval(x);
    check_flags(x, true, true, false);
    mlx_array t = OP(transpose, x);
    check_flags(t, true, false, true);
    check_strides(t, STRIDES(1, 4));
    assert_ptr_equal(mlx_array_data_float32(t), mlx_array_data_float32(x));
    mlx_array s = OP(slice, x, LIST(0, 1), LIST(3, 4), LIST(2, 2));
    check_strides(s, STRIDES(8, 2));
    check_flags(s, false, false, false);
    assert_ptr_equal(mlx_array_data_float32(s), mlx_array_data_float32(x) + 1);
    check(s, 1, 3, 9, 11);
    mlx_array b = OP(broadcast_to, OP(slice, x, LIST(0, 0), LIST(1, 4), LIST(1, 1)), LIST(5, 4));
    check_strides(b, STRIDES(0, 1));
    mlx_array r = OP(reshape, x, LIST(2, 6));
    mlx_array_eval(r);
    assert_ptr_equal(mlx_array_data_float32(r), mlx_array_data_float32(x));
    mlx_array c = OP(contiguous, t, false);
    check_flags(c, true, true, false);
    mlx_array_eval(c);
    assert_true(mlx_array_data_float32(c) != mlx_array_data_float32(x));
    assert_true(mlx_array_data_float32(c)[1] == 4);
    mlx_array kept_columns = OP(contiguous, t, true);
    mlx_array_eval(kept_columns);
    assert_ptr_equal(mlx_array_data_float32(kept_columns), mlx_array_data_float32(x));
    check_flags(count_up(MLX_INT8, SHAPE(5)), true, true, true);
    check_flags(scalar(MLX_FLOAT32, 1), true, true, true);
}

/* Results of two arrays that lie in neither row nor column order are row-major and
 * whole, whatever the layout of the operands. */
static void test_results_of_broadcasts_can_be_read_as_they_lie(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(2, 3));
    mlx_array wide = OP(broadcast_to, a, LIST(2, 2, 3)), y = OP(add, wide, wide);
    mlx_array b = OP(transpose_axes, count_up(MLX_FLOAT32, SHAPE(2, 3, 2)), LIST(0, 2, 1));
    mlx_array z = OP(add, OP(multiply, b, b), b);
    const float doubled[12] = {0, 2, 4, 6, 8, 10, 0, 2, 4, 6, 8, 10};
    const float squares[12] = {0, 6, 20, 2, 12, 30, 42, 72, 110, 56, 90, 132};
    assert_int_equal(mlx_array_eval(y), 0);
    assert_int_equal(mlx_array_eval(z), 0);
    const size_t *strides = mlx_array_strides(y);
    assert_int_equal(strides[0], 6);
    assert_int_equal(strides[1], 3);
    assert_int_equal(strides[2], 1);
    assert_memory_equal(mlx_array_data_float32(y), doubled, sizeof doubled);
    assert_memory_equal(mlx_array_data_float32(z), squares, sizeof squares);
}

static void test_backward_slices(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(5));
    check(OP(slice, x, LIST(4), LIST(-6), LIST(-1)), 4, 3, 2, 1, 0);
    check(OP(slice, x, LIST(4), LIST(-1), LIST(1)));
    check(OP(slice, x, LIST(-4), LIST(-1), LIST(1)), 1, 2, 3);
    check(OP(slice, x, LIST(3), LIST(0), LIST(-2)), 3, 1);
    check(OP(slice, x, LIST(-100), LIST(100), LIST(1)), 0, 1, 2, 3, 4);
    check(OP(slice, x, LIST(3), LIST(1), LIST(1)));
    check_shape(OP(slice, x, LIST(3), LIST(1), LIST(1)), MLX_INT32, SHAPE(0));
}

static void test_live_values_are_never_overwritten(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(1000)), y = OP(negative, x),
              z = OP(exp, OP(negative, y));
    mlx_array_eval(z);
    assert_true(doubles(x)[7] == 7 && doubles(y)[7] == -7);
    mlx_array view = OP(slice, x, LIST(0), LIST(2), LIST(1));
    mlx_array_eval(view);
    mlx_array copy = mlx_array_new();
    mlx_array_set(&copy, x);
    assert_int_equal(
        mlx_slice_update(&copy, copy, scalar(MLX_FLOAT32, 5), LIST(0), LIST(1), LIST(1), cpu), 0);
    check(OP(slice, copy, LIST(0), LIST(2), LIST(1)), 5, 1);
    check(view, 0, 1);
    assert_true(doubles(x)[0] == 0);
    mlx_array_free(copy);
}

/* The way a key-value cache grows: the old value has no other owner. */
static void test_slice_update_in_a_loop_needs_constant_memory(void **state) {
    (void)state;
    mlx_array cache = mlx_array_new(), part = mlx_array_new();
    mlx_zeros(&cache, LIST(1, 8, 512, 64), MLX_FLOAT32, cpu);
    mlx_array_eval(cache);
    mlx_reset_peak_memory();
    const size_t before = active();
    for (int i = 0; i < 200; i++) {
        mlx_array value = mlx_array_new_float((float)i);
        mlx_full(&part, LIST(1, 8, 1, 64), value, MLX_FLOAT32, cpu);
        mlx_array_free(value);
        assert_int_equal(mlx_slice_update(&cache, cache, part, LIST(0, 0, i, 0),
                                          LIST(1, 8, i + 1, 64), LIST(1, 1, 1, 1), cpu),
                         0);
        mlx_array_eval(cache);
    }
    size_t peak = 0;
    mlx_get_peak_memory(&peak);
    assert_true(peak < before + (512u << 10));
    check(OP(take, cache, scalar(MLX_INT32, 199 * 64 + 3)), 199);
    mlx_array_free(cache);
    mlx_array_free(part);
}

static void test_counters_and_limits(void **state) {
    (void)state;
    size_t first, value, peak;
    release_all(NULL);
    const size_t before = active();
    mlx_array x = mlx_array_new();
    mlx_reset_peak_memory();
    mlx_ones(&x, LIST(256, 1024), MLX_FLOAT32, cpu);
    mlx_array_eval(x);
    assert_true(active() >= before);
    mlx_get_peak_memory(&peak);
    assert_true(peak >= active());
    mlx_array_free(x);
    assert_int_equal(active(), before);
    assert_int_equal(mlx_clear_cache(), 0);
    mlx_get_cache_memory(&value);
    assert_int_equal(value, 0);
    assert_int_equal(mlx_get_memory_limit(&first), 0);
    assert_int_equal(mlx_set_memory_limit(&value, first + 4096), 0);
    assert_int_equal(value, first);
    assert_int_equal(mlx_set_memory_limit(&value, first), 0);
    assert_int_equal(value, first + 4096);
    assert_int_equal(mlx_set_cache_limit(&first, 1 << 20), 0);
    assert_int_equal(mlx_set_cache_limit(&value, first), 0);
    if (!upstream(NO_CACHE)) assert_int_equal(value, 1 << 20);
    assert_int_equal(mlx_set_wired_limit(&value, 0), 0);
    assert_int_equal(value, 0);
}

static void test_small_evaluations_leave_nothing(void **state) {
    (void)state;
    const size_t before = active();
    const int rounds = upstream(SPEED) ? 2000 : 250000;
    for (int i = 0; i < rounds; i++) {
        mlx_array a = mlx_array_new_float((float)i), b = mlx_array_new();
        mlx_add(&b, a, a, cpu);
        mlx_multiply(&b, b, a, cpu);
        mlx_expand_dims(&b, b, 0, cpu);
        mlx_sum(&b, b, false, cpu);
        if (i % 3) mlx_array_eval(b);
        mlx_array_free(a);
        mlx_array_free(b);
    }
    assert_int_equal(active(), before);
}

/* Errors on the way leave nothing behind either. */
static void test_failures_leave_nothing(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(2, 3)), b = count_up(MLX_FLOAT32, SHAPE(4));
    mlx_array_eval(a);
    mlx_array_eval(b);
    const size_t before = active();
    for (int i = 0; i < 1000; i++) {
        mlx_array out = mlx_array_new();
        assert_int_equal(mlx_add(&out, a, b, cpu), 1);
        assert_int_equal(mlx_matmul(&out, a, b, cpu), 1);
        assert_int_equal(mlx_reshape(&out, a, LIST(5), cpu), 1);
        assert_int_equal(mlx_sum_axis(&out, a, 7, false, cpu), 1);
        assert_null(out.ctx);
    }
    assert_int_equal(active(), before);
}

static void test_a_deep_graph_needs_no_stack(void **state) {
    (void)state;
    mlx_array x = mlx_array_new_float(0), one = mlx_array_new_float(1);
    const int depth = upstream(SPEED) ? 1000 : 100000;
    for (int i = 0; i < depth; i++) mlx_add(&x, x, one, cpu);
    check(x, depth);
    for (int i = 0; i < depth; i++) mlx_add(&x, x, one, cpu);
    mlx_array_free(x); /* never evaluated */
    mlx_array_free(one);
}

/* ---- threads ---- */

static void *work(void *result) {
    mlx_stream s = mlx_default_cpu_stream_new();
    mlx_array x = mlx_array_new(), key = mlx_array_new();
    mlx_random_seed(7);
    double total = 0;
    for (int i = 0; i < 200; i++) {
        mlx_random_normal(&x, LIST(16, 16), MLX_FLOAT32, 0, 1, mlx_array_empty, s);
        mlx_matmul(&x, x, x, s);
        mlx_sum(&x, x, false, s);
        float item;
        mlx_array_item_float32(&item, x);
        total += (double)item;
    }
    mlx_array_free(x);
    mlx_array_free(key);
    mlx_stream_free(s);
    *(double *)result = total;
    return NULL;
}

static void test_threads_have_their_own_keys_and_graphs(void **state) {
    (void)state;
    if (upstream(PROCESS_KEY)) return;
    double totals[4] = {0};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, &totals[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 1; i < 4; i++) assert_true(totals[i] == totals[0]);
}

RUN(TEST(test_nothing_happens_before_evaluation), TEST(test_async_evaluation_arrives),
    TEST(test_views_share_and_carry_strides), TEST(test_backward_slices),
    TEST(test_results_of_broadcasts_can_be_read_as_they_lie),
    TEST(test_live_values_are_never_overwritten),
    TEST(test_slice_update_in_a_loop_needs_constant_memory), TEST(test_counters_and_limits),
    TEST(test_small_evaluations_leave_nothing), TEST(test_failures_leave_nothing),
    TEST(test_a_deep_graph_needs_no_stack), TEST(test_threads_have_their_own_keys_and_graphs))
