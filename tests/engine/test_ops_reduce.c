/* Reductions, arg reductions, cumsum, softmax, logsumexp. */
#include "ops_check.h"

static const mlx_dtype float_dtypes[] = {MLX_FLOAT16, MLX_FLOAT32, MLX_FLOAT64, MLX_BFLOAT16};

static void test_sums_of_16_bit_ones_are_exact(void **state) {
    (void)state;
    const mlx_dtype halves[] = {MLX_BFLOAT16, MLX_FLOAT16};
    for (int i = 0; i < 2; i++) {
        mlx_array ones = OP(ones, INTS(1000), halves[i]);
        check(OP(sum, ones, false), 1000);
        check(OP(mean, ones, false), 1);
        mlx_array columns = OP(ones, INTS(1000, 3), halves[i]);
        check(OP(sum_axis, columns, 0, false), 1000, 1000, 1000);
        check(OP(mean_axis, columns, 0, false), 1, 1, 1);
        check(OP(slice, OP(cumsum, ones, 0, false, true), INTS(999), INTS(1000), INTS(1)), 1000);
        mlx_array even = OP(softmax, OP(ones, INTS(512), halves[i]), false);
        check(OP(slice, even, INTS(0), INTS(1), INTS(1)), 1.0 / 512);
    }
}

static void test_result_dtypes(void **state) {
    (void)state;
    static const struct {
        mlx_dtype in, sum, mean;
    } rows[] = {
        {MLX_BOOL, MLX_INT32, MLX_FLOAT32},         {MLX_UINT8, MLX_UINT32, MLX_FLOAT32},
        {MLX_UINT16, MLX_UINT32, MLX_FLOAT32},      {MLX_UINT32, MLX_UINT32, MLX_FLOAT32},
        {MLX_UINT64, MLX_UINT64, MLX_FLOAT32},      {MLX_INT8, MLX_INT32, MLX_FLOAT32},
        {MLX_INT16, MLX_INT32, MLX_FLOAT32},        {MLX_INT32, MLX_INT32, MLX_FLOAT32},
        {MLX_INT64, MLX_INT64, MLX_FLOAT32},        {MLX_FLOAT16, MLX_FLOAT16, MLX_FLOAT16},
        {MLX_FLOAT32, MLX_FLOAT32, MLX_FLOAT32},    {MLX_FLOAT64, MLX_FLOAT64, MLX_FLOAT64},
        {MLX_BFLOAT16, MLX_BFLOAT16, MLX_BFLOAT16}, {MLX_COMPLEX64, MLX_COMPLEX64, MLX_COMPLEX64}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mlx_array x = make(rows[i].in, SHAPE(3), VALUES(1, 1, 1));
        check_shape(OP(sum, x, false), rows[i].sum, NULL, 0);
        check(OP(sum, x, false), 3);
        check_shape(OP(mean, x, true), rows[i].mean, SHAPE(1));
        check(OP(mean, x, false), 1);
        check_shape(OP(all, x, false), MLX_BOOL, NULL, 0);
        if (rows[i].in == MLX_COMPLEX64) continue;
        check_shape(OP(max, x, false), rows[i].in, NULL, 0);
        check_shape(OP(argmax, x, false), MLX_UINT32, NULL, 0);
    }
}

static void test_every_axis_of_a_strided_array(void **state) {
    (void)state;
    mlx_array x = OP(transpose_axes, count_up(MLX_INT32, SHAPE(2, 3, 4)), INTS(2, 0, 1));
    /* x[i][j][k] = 12 j + 4 k + i, shape (4, 2, 3) */
    check(OP(sum_axis, x, 0, false), 6, 22, 38, 54, 70, 86);
    check(OP(sum_axis, x, 1, false), 12, 20, 28, 14, 22, 30, 16, 24, 32, 18, 26, 34);
    check(OP(sum_axis, x, -1, false), 12, 48, 15, 51, 18, 54, 21, 57);
    check(OP(max_axes, x, INTS(0, 2), false), 11, 23);
    check(OP(min_axes, x, INTS(1, 2), true), 0, 1, 2, 3);
    check_shape(OP(min_axes, x, INTS(1, 2), true), MLX_INT32, SHAPE(4, 1, 1));
    check(OP(mean, x, false), 11.5);
    check(OP(sum_axes, x, NULL, 0, false), 0, 4, 8, 12, 16, 20, 1, 5, 9, 13, 17, 21, 2, 6, 10, 14,
          18, 22, 3, 7, 11, 15, 19, 23);
    check(OP(sum, OP(broadcast_to, scalar(MLX_FLOAT32, 2), INTS(5, 5)), false), 50);
    FAILS("out of bounds", sum_axis, x, 3, false);
    FAILS("duplicate", sum_axes, x, INTS(0, 0), false);
}

static void test_empty_axes(void **state) {
    (void)state;
    mlx_array x = OP(zeros, INTS(2, 0), MLX_FLOAT32);
    check(OP(sum_axis, x, 1, false), 0, 0);
    check(OP(all, x, false), 1);
    check(OP(any, x, false), 0);
    check_shape(OP(sum_axis, x, 0, false), MLX_FLOAT32, SHAPE(0));
    FAILS("zero size", max, x, false);
    FAILS("zero size", argmax_axis, x, 1, false);
    FAILS("empty array", logsumexp_axis, x, 1, false);
}

static void test_extremes_propagate_nan(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        mlx_array x = make(float_dtypes[i], SHAPE(2, 3), VALUES(1, NAN, 3, 6, 5, 4));
        check(OP(max_axis, x, 1, false), NAN, 6);
        check(OP(min_axis, x, 1, false), NAN, 4);
        check(OP(max_axis, x, 0, false), 6, NAN, 4);
        /* The extremes' places ignore NaN unless it is first. */
        check(OP(argmax_axis, x, 1, false), 2, 0);
        check(OP(argmin_axis, x, 1, false), 0, 2);
        check(OP(argmax, make(float_dtypes[i], SHAPE(3), VALUES(NAN, 1, 2)), false), 0);
    }
}

static void test_argmax_takes_the_first(void **state) {
    (void)state;
    double values[300];
    for (int i = 0; i < 300; i++) values[i] = i % 7 == 3 && i > 100 ? 9 : i % 5;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_BFLOAT16, MLX_INT32, MLX_UINT8, MLX_FLOAT64};
    for (int i = 0; i < 5; i++) {
        mlx_array x = make(dtypes[i], SHAPE(300), values, 300);
        check(OP(argmax, x, false), 101);
        check(OP(argmin, x, true), 0);
        check(OP(argmax_axis, OP(reshape, x, INTS(2, 150)), 1, true), 101, 0);
    }
    check_shape(OP(argmax, scalar(MLX_FLOAT32, 2), false), MLX_UINT32, NULL, 0);
}

static void test_all_and_any(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(1, -0.0, 2, NAN));
    check(OP(all_axis, x, 1, false), 0, 1);
    check(OP(any_axis, x, 0, false), 1, 1);
    check(OP(any, OP(zeros, INTS(3), MLX_INT8), false), 0);
}

static void test_cumsum(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 3));
    check(OP(cumsum, x, 1, false, true), 0, 1, 3, 3, 7, 12);
    check(OP(cumsum, x, 1, false, false), 0, 0, 1, 0, 3, 7);
    check(OP(cumsum, x, 1, true, true), 3, 3, 2, 12, 9, 5);
    check(OP(cumsum, x, 1, true, false), 3, 2, 0, 9, 5, 0);
    check(OP(cumsum, x, 0, false, true), 0, 1, 2, 3, 5, 7);
    check(OP(cumsum, OP(transpose, x), 0, false, true), 0, 3, 1, 7, 3, 12);
    check(OP(cumsum, make(MLX_UINT8, SHAPE(3), VALUES(200, 200, 200)), 0, false, true), 200, 144,
          88);
    check_shape(OP(cumsum, make(MLX_BOOL, SHAPE(2), VALUES(1, 1)), 0, false, true), MLX_INT32,
                SHAPE(2));
}

static void test_softmax(void **state) {
    (void)state;
    static const double expected[] = {0.09003057317038046, 0.24472847105479767, 0.6652409557748219};
    for (int i = 0; i < 4; i++) {
        mlx_array x = make(float_dtypes[i], SHAPE(2, 3), VALUES(1, 2, 3, 101, 102, 103));
        const double near = float_dtypes[i] == MLX_BFLOAT16  ? 4e-3
                            : float_dtypes[i] == MLX_FLOAT16 ? 5e-4
                                                             : 1e-7;
        mlx_array rows[2];
        OPV(rows, split, OP(softmax_axis, x, -1, false), 2, 0);
        check_near(rows[0], expected, 3, near);
        check_near(rows[1], expected, 3, near);
        mlx_array columns = OP(softmax_axis, OP(transpose, x), 0, true);
        check_near(OP(slice, columns, INTS(0, 1), INTS(3, 2), INTS(1, 1)), expected, 3, near);
    }
    mlx_array x = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(0, 0, 0, 0));
    check(OP(softmax, x, false), 0.25, 0.25, 0.25, 0.25);
    check(OP(softmax_axes, x, INTS(0, 1), false), 0.25, 0.25, 0.25, 0.25);
    check_shape(OP(softmax_axis, make(MLX_INT8, SHAPE(2), VALUES(0, 0)), 0, false), MLX_FLOAT32,
                SHAPE(2));
    check(OP(softmax_axis, make(MLX_FLOAT32, SHAPE(3), VALUES(0, -INFINITY, 0)), 0, false), 0.5, 0,
          0.5);
    check(OP(softmax_axis, make(MLX_FLOAT32, SHAPE(2), VALUES(-INFINITY, -INFINITY)), 0, false),
          NAN, NAN);
}

static void test_logsumexp(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(0, 0, 1000, 1000));
    check_near(OP(logsumexp_axis, x, 1, false), VALUES(0.6931472, 1000.6931472), 1e-6);
    check_near(OP(logsumexp_axis, x, 0, true), VALUES(1000, 1000), 1e-6);
    check_near(OP(logsumexp, x, true), VALUES(1000.6931472), 1e-6);
    check_shape(OP(logsumexp, x, true), MLX_FLOAT32, SHAPE(1, 1));
    check_near(OP(logsumexp_axes, x, INTS(0, 1), false), VALUES(1000.6931472), 1e-6);
    mlx_array low = OP(full, INTS(2, 3), scalar(MLX_FLOAT32, -INFINITY), MLX_FLOAT32);
    check(OP(logsumexp_axis, low, 1, false), -INFINITY, -INFINITY);
    check(OP(logsumexp, low, false), -INFINITY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_sums_of_16_bit_ones_are_exact),
        TEST(test_result_dtypes),
        TEST(test_every_axis_of_a_strided_array),
        TEST(test_empty_axes),
        TEST(test_extremes_propagate_nan),
        TEST(test_argmax_takes_the_first),
        TEST(test_all_and_any),
        TEST(test_cumsum),
        TEST(test_softmax),
        TEST(test_logsumexp),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
