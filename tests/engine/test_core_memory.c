/* Memory through real operations: caches written in place, views that keep a
 * copy from happening in the wrong place, and threads that work at once. */
#include "engine/core_check.h"

#include <pthread.h>
#include <stdlib.h>

enum { HEADS = 4, ROOM = 1024, HEAD_DIM = 64 };

static mlx_stream cpu;

static mlx_array zero_cache(void) {
    mlx_array cache = mlx_array_new();
    assert_int_equal(mlx_zeros(&cache, INTS(1, HEADS, ROOM, HEAD_DIM), 4, MLX_FLOAT32, cpu), 0);
    assert_int_equal(mlx_array_eval(cache), 0);
    return cache;
}

/* The row of all heads at `position` becomes `value`. */
static void write_row(mlx_array *cache, int position, float value) {
    mlx_array number = mlx_array_new_float(value), row = mlx_array_new();
    mlx_broadcast_to(&row, number, INTS(1, HEADS, 1, HEAD_DIM), 4, cpu);
    assert_int_equal(mlx_slice_update(cache, *cache, row, INTS(0, 0, position, 0), 4,
                                      INTS(1, HEADS, position + 1, HEAD_DIM), 4, INTS(1, 1, 1, 1),
                                      4, cpu),
                     0);
    mlx_array_free(number);
    mlx_array_free(row);
}

static mlx_array rows_until(mlx_array cache, int end) {
    mlx_array view = mlx_array_new();
    assert_int_equal(mlx_slice(&view, cache, INTS(0, 0, 0, 0), 4, INTS(1, HEADS, end, HEAD_DIM), 4,
                               INTS(1, 1, 1, 1), 4, cpu),
                     0);
    return view;
}

static float total(mlx_array array) {
    mlx_array sum = mlx_array_new();
    float value;
    assert_int_equal(mlx_sum(&sum, array, false, cpu), 0);
    assert_int_equal(mlx_array_item_float32(&value, sum), 0);
    mlx_array_free(sum);
    return value;
}

static void test_a_cache_is_updated_in_place_with_constant_memory(void **state) {
    (void)state;
    const size_t bytes = (size_t)HEADS * ROOM * HEAD_DIM * sizeof(float);
    mlx_array cache = zero_cache();
    const void *memory = mlx_array_data_float32(cache);
    size_t active, peak;
    mlx_get_active_memory(&active);
    mlx_reset_peak_memory();
    for (int step = 0; step < 50; step++) {
        write_row(&cache, step, 1);
        mlx_array seen = rows_until(cache, step + 1);
        assert_float_equal(total(seen), HEADS * HEAD_DIM * (step + 1), 0);
        mlx_array_free(seen);
        assert_int_equal(mlx_array_eval(cache), 0);
        assert_ptr_equal(mlx_array_data_float32(cache), memory);
    }
    mlx_get_peak_memory(&peak);
    assert_true(peak < active + bytes / 8);
    mlx_array_free(cache);
}

static void test_many_updates_in_one_evaluation_stay_in_place(void **state) {
    (void)state;
    mlx_array cache = zero_cache();
    const void *memory = mlx_array_data_float32(cache);
    for (int step = 0; step < 50; step++) write_row(&cache, step, 2);
    assert_int_equal(mlx_array_eval(cache), 0);
    assert_ptr_equal(mlx_array_data_float32(cache), memory);
    assert_float_equal(total(cache), 2 * HEADS * HEAD_DIM * 50, 0);
    mlx_array_free(cache);
}

static void test_a_live_view_forces_a_copy(void **state) {
    (void)state;
    mlx_array cache = zero_cache(), seen = rows_until(cache, 8);
    assert_int_equal(mlx_array_eval(seen), 0);
    write_row(&cache, 0, 3);
    assert_int_equal(mlx_array_eval(cache), 0);
    assert_float_equal(total(seen), 0, 0);
    assert_float_equal(total(cache), 3 * HEADS * HEAD_DIM, 0);
    mlx_array kept = mlx_array_new();
    mlx_array_set(&kept, cache);
    write_row(&cache, 1, 3);
    assert_float_equal(total(cache), 6 * HEADS * HEAD_DIM, 0);
    assert_float_equal(total(kept), 3 * HEADS * HEAD_DIM, 0);
    mlx_array_free(kept);
    mlx_array_free(seen);
    mlx_array_free(cache);
}

static void test_counters_follow_buffers_and_their_cache(void **state) {
    (void)state;
    const size_t bytes = (size_t)1 << 20;
    size_t active, now, cached;
    mlx_clear_cache();
    mlx_get_active_memory(&active);
    mlx_array x = mlx_array_new();
    mlx_zeros(&x, INTS(1 << 18), 1, MLX_FLOAT32, cpu);
    mlx_get_active_memory(&now);
    assert_true(now < active + bytes);
    mlx_reset_peak_memory();
    assert_int_equal(mlx_array_eval(x), 0);
    mlx_get_active_memory(&now);
    assert_int_equal(now, active + bytes);
    mlx_get_peak_memory(&now);
    assert_in_range(now, active + bytes, active + bytes + 4096);
    mlx_get_cache_memory(&cached);
    const size_t before = cached;
    mlx_array_free(x);
    mlx_get_active_memory(&now);
    mlx_get_cache_memory(&cached);
    assert_int_equal(now, active);
    assert_int_equal(cached, before + bytes);
    mlx_get_peak_memory(&now);
    assert_true(now >= active + bytes);
    mlx_clear_cache();
    mlx_get_cache_memory(&cached);
    assert_int_equal(cached, 0);
}

static void test_limits_give_their_previous_value(void **state) {
    (void)state;
    size_t first, value, cached;
    assert_int_equal(mlx_set_cache_limit(&value, 0), 0);
    assert_int_equal(value, (size_t)32 << 20);
    mlx_array x = mlx_array_new();
    mlx_zeros(&x, INTS(1 << 18), 1, MLX_FLOAT32, cpu);
    mlx_array_eval(x);
    mlx_array_free(x);
    mlx_get_cache_memory(&cached);
    assert_int_equal(cached, 0);
    mlx_set_cache_limit(&value, (size_t)32 << 20);
    assert_int_equal(value, 0);

    mlx_get_memory_limit(&first);
    assert_true(first > 0);
    mlx_set_memory_limit(&value, 12345);
    assert_int_equal(value, first);
    mlx_set_memory_limit(&value, first);
    assert_int_equal(value, 12345);
    assert_int_equal(mlx_set_wired_limit(&value, 100), 0);
    assert_int_equal(value, 0);
}

static void test_the_cache_drops_its_oldest_buffers_first(void **state) {
    (void)state;
    size_t value, cached;
    mlx_clear_cache();
    mlx_set_cache_limit(&value, (size_t)3 << 20);
    mlx_array arrays[4];
    for (int i = 0; i < 4; i++) {
        arrays[i] = mlx_array_new();
        mlx_zeros(&arrays[i], INTS((1 << 18) + 16384 * i), 1, MLX_FLOAT32, cpu);
        mlx_array_eval(arrays[i]);
    }
    const void *newest = mlx_array_data_float32(arrays[3]);
    for (int i = 0; i < 4; i++) mlx_array_free(arrays[i]);
    mlx_get_cache_memory(&cached);
    assert_in_range(cached, (size_t)2 << 20, (size_t)3 << 20);
    mlx_array again = mlx_array_new();
    mlx_ones(&again, INTS((1 << 18) + 16384 * 3), 1, MLX_FLOAT32, cpu);
    mlx_array_eval(again);
    assert_ptr_equal(mlx_array_data_float32(again), newest);
    mlx_array_free(again);
    mlx_set_cache_limit(&value, (size_t)32 << 20);
}

static int starts_early(mlx_vector_array *res, const mlx_vector_array input) {
    return mlx_async_eval(input) || mlx_vector_array_set(res, input);
}

static void test_async_eval_computes_but_not_inside_a_transform(void **state) {
    (void)state;
    mlx_array one = mlx_array_new_float(1), x = mlx_array_new(), y = mlx_array_new();
    mlx_add(&x, one, one, cpu);
    mlx_add(&y, x, one, cpu);
    mlx_vector_array both = mlx_vector_array_new_data((mlx_array[]){x, y}, 2);
    assert_int_equal(mlx_async_eval(both), 0);
    float value;
    assert_int_equal(mlx_array_item_float32(&value, y), 0);
    assert_float_equal(value, 3, 0);
    assert_text(x, "array(2, dtype=float32)");

    mlx_closure fun = mlx_closure_new_func(starts_early);
    mlx_add(&x, one, one, cpu);
    mlx_vector_array primal = mlx_vector_array_new_value(x), outs = {NULL}, grads = {NULL};
    assert_fails(mlx_vjp(&outs, &grads, fun, primal, primal), "mlx_closure returned");
    assert_null(outs.ctx);
    mlx_closure_free(fun);
    mlx_vector_array_free(primal);
    mlx_vector_array_free(both);
    mlx_array_free(one);
    mlx_array_free(x);
    mlx_array_free(y);
}

static void *work(void *weights) {
    const mlx_array w = {weights};
    mlx_stream stream = mlx_default_cpu_stream_new();
    const char *problem = NULL;
    for (int round = 0; round < 20 && !problem; round++) {
        mlx_array x = mlx_array_new(), y = mlx_array_new();
        float value = 0;
        mlx_ones(&x, INTS(2, 32), 2, MLX_FLOAT32, stream);
        for (int layer = 0; layer < 5; layer++) {
            mlx_matmul(&y, x, w, stream);
            mlx_add(&y, y, x, stream);
            mlx_transpose(&y, y, stream);
            mlx_transpose(&x, y, stream);
        }
        mlx_sum(&y, x, false, stream);
        if (mlx_array_item_float32(&value, y) != 0 || value != 64 * 243) problem = "wrong sum";
        mlx_array_free(x);
        mlx_array_free(y);
    }
    mlx_stream_free(stream);
    return (void *)(uintptr_t)problem;
}

static void test_threads_share_weights_and_evaluate_at_once(void **state) {
    (void)state;
    enum { THREADS = 4 };
    float values[32 * 32];
    for (int i = 0; i < 32 * 32; i++) values[i] = 2.0f / 32;
    mlx_array weights = floats(values, INTS(32, 32), 2);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, weights.ctx), 0);
    for (int i = 0; i < THREADS; i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        assert_null(problem);
    }
    mlx_array_free(weights);
}

static void test_an_empty_program_holds_no_memory(void **state) {
    (void)state;
    size_t active, cached;
    mlx_clear_cache();
    mlx_get_active_memory(&active);
    mlx_get_cache_memory(&cached);
    assert_int_equal(active, 0);
    assert_int_equal(cached, 0);
}

static int setup(void **state) {
    cpu = mlx_default_cpu_stream_new();
    return catch_errors(state);
}

static int teardown(void **state) {
    (void)state;
    return mlx_stream_free(cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cache_is_updated_in_place_with_constant_memory),
        cmocka_unit_test(test_many_updates_in_one_evaluation_stay_in_place),
        cmocka_unit_test(test_a_live_view_forces_a_copy),
        cmocka_unit_test(test_counters_follow_buffers_and_their_cache),
        cmocka_unit_test(test_limits_give_their_previous_value),
        cmocka_unit_test(test_the_cache_drops_its_oldest_buffers_first),
        cmocka_unit_test(test_async_eval_computes_but_not_inside_a_transform),
        cmocka_unit_test(test_threads_share_weights_and_evaluate_at_once),
        cmocka_unit_test(test_an_empty_program_holds_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
