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
        cmocka_unit_test(test_threads_share_weights_and_evaluate_at_once),
        cmocka_unit_test(test_an_empty_program_holds_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
