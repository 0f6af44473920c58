/* take, gather, along-axis operations, and the sorts. */
#include "ops_check.h"

static void test_take(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(3, 2));
    mlx_array ids = make(MLX_INT32, SHAPE(2, 2), VALUES(0, 2, -1, 1));
    check_shape(OP(take_axis, x, ids, 0), MLX_FLOAT32, SHAPE(2, 2, 2));
    check(OP(take_axis, x, ids, 0), 0, 1, 4, 5, 4, 5, 2, 3);
    check(OP(take_axis, OP(transpose, x), ids, 1), 0, 4, 4, 2, 1, 5, 5, 3);
    check(OP(take_axis, OP(transpose, x), scalar(MLX_UINT8, 1), 0), 1, 3, 5);
    check(OP(take, x, make(MLX_UINT32, SHAPE(2), VALUES(5, 0))), 5, 0);
    FAILS("integral", take_axis, x, scalar(MLX_FLOAT32, 0), 0);
    FAILS("zero elements", take_axis, OP(zeros, INTS(0, 2), MLX_INT8), ids, 0);
}

static void test_an_index_outside_is_an_error(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(3, 2));
    const struct {
        mlx_dtype dtype;
        double index;
    } bad[] = {{MLX_INT32, 3}, {MLX_INT32, -4}, {MLX_UINT32, 4294967295.0}, {MLX_INT64, 1e15}};
    for (size_t i = 0; i < 4; i++) {
        mlx_array index = make(bad[i].dtype, SHAPE(1, 1), &bad[i].index, 1);
        mlx_array results[] = {
            OP(take_axis, x, index, 0), OP(take_along_axis, x, index, 0),
            OP(put_along_axis, x, OP(broadcast_to, index, INTS(1, 2)), scalar(MLX_FLOAT32, 1), 0),
            OP(gather_single, x, index, 0, INTS(1, 2))};
        for (int k = 0; k < 4; k++) {
            last_error[0] = 0;
            assert_int_equal(mlx_array_eval(results[k]), 1);
            assert_non_null(strstr(last_error, "out of bounds"));
        }
    }
}

static void test_along_axis(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(2, 3));
    mlx_array ids = make(MLX_INT32, SHAPE(2, 2), VALUES(2, 0, -1, 1));
    check(OP(take_along_axis, x, ids, 1), 2, 0, 5, 4);
    check(OP(take_along_axis, OP(transpose, x), make(MLX_INT8, SHAPE(1, 2), VALUES(1, 2)), 0), 1,
          5);
    check(OP(take_along_axis, x, make(MLX_INT32, SHAPE(1, 1), VALUES(1)), 1), 1, 4);
    mlx_array y = OP(put_along_axis, x, ids, scalar(MLX_FLOAT32, 9.5), 1);
    check(y, 9, 1, 9, 3, 9, 9);
    check(x, 0, 1, 2, 3, 4, 5);
    mlx_array v = make(MLX_INT32, SHAPE(2, 2), VALUES(1, 2, 3, 4));
    check(OP(put_along_axis, x, ids, v, 1), 2, 1, 1, 3, 4, 3);
    FAILS("dimension", take_along_axis, x, scalar(MLX_INT32, 0), 0);
}

static void test_gather(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(3, 4));
    mlx_array rows = make(MLX_INT32, SHAPE(2), VALUES(0, 2));
    mlx_array columns = make(MLX_UINT32, SHAPE(2, 1), VALUES(3, 1));
    mlx_vector_array both = vector_of((mlx_array[]){rows, columns}, 2);
    mlx_array y = OP(gather, x, both, INTS(0, 1), INTS(1, 1));
    check_shape(y, MLX_INT32, SHAPE(2, 2, 1, 1));
    check(y, 3, 11, 1, 9);
    mlx_vector_array_free(both);
    check(OP(gather_single, x, rows, 0, INTS(1, 2)), 0, 1, 8, 9);
    check(OP(gather_single, OP(transpose, x), rows, 1, INTS(4, 1)), 0, 1, 2, 3, 8, 9, 10, 11);
    FAILS("negative", gather_single, x, rows, -1, INTS(1, 1));
    FAILS("Slice size", gather_single, x, rows, 0, INTS(4, 1));
    FAILS("slice_sizes", gather_single, x, rows, 0, INTS(1));
}

static void test_sort_is_stable_with_nan_last(void **state) {
    (void)state;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64};
    for (int i = 0; i < 4; i++) {
        mlx_array x = make(dtypes[i], SHAPE(7), VALUES(3, NAN, -1, 0, INFINITY, -1, -INFINITY));
        check(OP(sort_axis, x, 0), -INFINITY, -1, -1, 0, 3, INFINITY, NAN);
        check(OP(argsort_axis, x, -1), 6, 2, 5, 3, 0, 4, 1);
    }
    check(OP(argsort_axis, make(MLX_FLOAT32, SHAPE(3), VALUES(0.0, -0.0, 0.0)), 0), 0, 1, 2);
    check(OP(sort_axis, make(MLX_INT8, SHAPE(4), VALUES(5, -128, 127, 0)), 0), -128, 0, 5, 127);
    mlx_array t = OP(transpose, make(MLX_INT64, SHAPE(2, 2), VALUES(4, 1, 3, 2)));
    check(OP(sort_axis, t, 1), 3, 4, 1, 2);
    check(OP(sort_axis, t, 0), 1, 2, 4, 3);
    FAILS("out of bounds", sort_axis, t, 2);
}

static void test_long_sorts_and_partitions(void **state) {
    (void)state;
    enum { N = 5000, K = 1234 };
    static double values[N], sorted[N];
    uint32_t seed = 7;
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (double)(seed >> 20) - 2000; /* many ties */
    }
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_INT32, MLX_FLOAT64, MLX_INT16};
    for (int d = 0; d < 4; d++) {
        mlx_array x = make(dtypes[d], SHAPE(N), values, N);
        const double *s = doubles(OP(sort_axis, x, 0));
        for (int i = 1; i < N; i++) assert_true(s[i - 1] <= s[i]);
        memcpy(sorted, s, sizeof sorted);
        const double *order = doubles(OP(argsort_axis, x, 0));
        for (int i = 0; i < N; i++) {
            assert_true(values[(int)order[i]] == sorted[i]);
            if (i && sorted[i] == sorted[i - 1]) assert_true(order[i - 1] < order[i]);
        }
        const double *part = doubles(OP(partition_axis, x, K, 0));
        const double *places = doubles(OP(argpartition_axis, x, K - N, 0));
        assert_true(part[K] == sorted[K] && values[(int)places[K]] == sorted[K]);
        for (int i = 0; i < N; i++) {
            assert_true(i < K ? part[i] <= sorted[K] : part[i] >= sorted[K]);
            const double v = values[(int)places[i]];
            assert_true(i < K ? v <= sorted[K] : v >= sorted[K]);
        }
        check_near(OP(sort_axis, OP(topk_axis, x, 10, 0), 0), sorted + N - 10, 10, 0);
    }
}

static void test_partition_bounds(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(4));
    FAILS("kth", partition_axis, x, 4, 0);
    FAILS("kth", argpartition_axis, x, -5, 0);
    FAILS("k=5", topk_axis, x, 5, 0);
    check_shape(OP(topk_axis, x, 0, 0), MLX_INT32, SHAPE(0));
    check_shape(OP(argpartition_axis, x, -1, 0), MLX_UINT32, SHAPE(4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_take),
        TEST(test_an_index_outside_is_an_error),
        TEST(test_along_axis),
        TEST(test_gather),
        TEST(test_sort_is_stable_with_nan_last),
        TEST(test_long_sorts_and_partitions),
        TEST(test_partition_bounds),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
