/* Element-wise operations: values, dtypes, promotion, NaN, layouts. */
#include "ops_check.h"

static const mlx_dtype all_dtypes[] = {
    MLX_BOOL,  MLX_UINT8, MLX_UINT16,  MLX_UINT32,  MLX_UINT64,  MLX_INT8,     MLX_INT16,
    MLX_INT32, MLX_INT64, MLX_FLOAT16, MLX_FLOAT32, MLX_FLOAT64, MLX_BFLOAT16, MLX_COMPLEX64};
static const mlx_dtype real_dtypes[] = {MLX_FLOAT16, MLX_FLOAT32, MLX_FLOAT64, MLX_BFLOAT16};

static bool is_floating(mlx_dtype dtype) {
    return dtype >= MLX_FLOAT16;
}

static void test_result_dtypes_of_unary_classes(void **state) {
    (void)state;
    for (size_t i = 0; i < 14; i++) {
        const mlx_dtype d = all_dtypes[i];
        mlx_array x = make(d, SHAPE(2), VALUES(0, 1));
        if (d != MLX_COMPLEX64) {
            const mlx_dtype real = is_floating(d) ? d : MLX_FLOAT32;
            check_shape(OP(exp, x), real, SHAPE(2));
            check_shape(OP(sigmoid, x), real, SHAPE(2));
            check_shape(OP(sqrt, x), real, SHAPE(2));
            check_shape(OP(floor, x), d, SHAPE(2));
            check(OP(erf, OP(zeros_like, x)), 0, 0);
        }
        check_shape(OP(square, x), d, SHAPE(2));
        check_shape(OP(sign, x), d, SHAPE(2));
        check_shape(OP(abs, x), d == MLX_COMPLEX64 ? MLX_FLOAT32 : d, SHAPE(2));
        check_shape(OP(isnan, x), MLX_BOOL, SHAPE(2));
        check_shape(OP(logical_not, x), MLX_BOOL, SHAPE(2));
        check(OP(logical_not, x), 1, 0);
    }
}

static void test_promotion_of_every_pair(void **state) {
    (void)state;
    /* Rows and columns in the order of all_dtypes; from mlx 0.32.4. */
    static const uint8_t expected[14][14] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13},
        {1, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10, 11, 12, 13},
        {2, 2, 2, 3, 4, 7, 7, 7, 8, 9, 10, 11, 12, 13},
        {3, 3, 3, 3, 4, 8, 8, 8, 8, 9, 10, 11, 12, 13},
        {4, 4, 4, 4, 4, 10, 10, 10, 10, 9, 10, 11, 12, 13},
        {5, 6, 7, 8, 10, 5, 6, 7, 8, 9, 10, 11, 12, 13},
        {6, 6, 7, 8, 10, 6, 6, 7, 8, 9, 10, 11, 12, 13},
        {7, 7, 7, 8, 10, 7, 7, 7, 8, 9, 10, 11, 12, 13},
        {8, 8, 8, 8, 10, 8, 8, 8, 8, 9, 10, 11, 12, 13},
        {9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 10, 11, 10, 13},
        {10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 11, 10, 13},
        {11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 11, 13},
        {12, 12, 12, 12, 12, 12, 12, 12, 12, 10, 10, 11, 12, 13},
        {13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13},
    };
    for (size_t i = 0; i < 14; i++) {
        for (size_t j = 0; j < 14; j++) {
            mlx_array a = scalar(all_dtypes[i], 1), b = scalar(all_dtypes[j], 1);
            const mlx_dtype d = (mlx_dtype)expected[i][j];
            mlx_array sum = OP(multiply, a, b);
            check_shape(sum, d, NULL, 0);
            check(sum, 1);
            check_shape(OP(where, a, a, b), d, NULL, 0);
            check_shape(OP(divide, a, b), is_floating(d) ? d : MLX_FLOAT32, NULL, 0);
            check_shape(OP(equal, a, b), MLX_BOOL, NULL, 0);
            check_shape(OP(logical_and, a, b), MLX_BOOL, NULL, 0);
        }
        release_all(NULL);
    }
}

static void test_integer_arithmetic(void **state) {
    (void)state;
    mlx_array a = make(MLX_INT32, SHAPE(4), VALUES(-7, 7, -7, 7));
    mlx_array b = make(MLX_INT32, SHAPE(4), VALUES(2, -2, -2, 2));
    check(OP(floor_divide, a, b), -4, -4, 3, 3); /* mlx 0.32.4 */
    check(OP(remainder, a, b), 1, -1, -1, 1);
    check(OP(divide, a, b), -3.5, -3.5, 3.5, 3.5);
    mlx_array zero = scalar(MLX_INT32, 0);
    check(OP(floor_divide, a, zero), 0, 0, 0, 0);
    check(OP(remainder, a, zero), 0, 0, 0, 0);
    mlx_array low = scalar(MLX_INT32, -2147483648.0), minus = scalar(MLX_INT32, -1);
    check(OP(floor_divide, low, minus), -2147483648.0);
    check(OP(remainder, low, minus), 0);
    check(OP(abs, low), -2147483648.0);
    check(OP(power, make(MLX_INT32, SHAPE(3), VALUES(2, 3, -2)),
             make(MLX_INT32, SHAPE(3), VALUES(10, -1, 3))),
          1024, 0, -8);
    mlx_array bytes = make(MLX_UINT8, SHAPE(2), VALUES(200, 100));
    check(OP(add, bytes, bytes), 144, 200);
    check(OP(multiply, bytes, bytes), 64, 16);
    check(OP(negative, bytes), 56, 156);
}

static void test_shifts_and_bits(void **state) {
    (void)state;
    mlx_array a = make(MLX_INT8, SHAPE(3), VALUES(-8, 5, 1));
    check(OP(right_shift, a, make(MLX_INT8, SHAPE(3), VALUES(1, 1, 9))), -4, 2, 0);
    check(OP(left_shift, a, make(MLX_INT8, SHAPE(3), VALUES(1, 2, 7))), -16, 20, -128);
    check(OP(right_shift, scalar(MLX_INT8, -1), scalar(MLX_INT8, 100)), -1);
    mlx_array yes = scalar(MLX_BOOL, 1);
    check_shape(OP(left_shift, yes, yes), MLX_UINT8, NULL, 0);
    check(OP(left_shift, yes, yes), 2);
    check(OP(bitwise_xor, a, scalar(MLX_INT8, 3)), -5, 6, 2);
    check(OP(bitwise_and, scalar(MLX_BOOL, 1), scalar(MLX_BOOL, 0)), 0);
    FAILS("bitwise_or", bitwise_or, scalar(MLX_FLOAT32, 1), yes);
}

static void test_nan_rules(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        const mlx_dtype d = real_dtypes[i];
        mlx_array a = make(d, SHAPE(4), VALUES(NAN, 1, 2, NAN));
        mlx_array b = make(d, SHAPE(4), VALUES(1, NAN, 3, NAN));
        check(OP(maximum, a, b), NAN, NAN, 3, NAN);
        check(OP(minimum, a, b), NAN, NAN, 2, NAN);
        check(OP(clip, a, scalar(d, 1.5), NONE), NAN, 1.5, 2, NAN);
        check(OP(equal, a, a), 0, 1, 1, 0);
        check(OP(not_equal, a, a), 1, 0, 0, 1);
        check(OP(less, a, b), 0, 0, 1, 0);
        check(OP(isnan, a), 1, 0, 0, 1);
        check(OP(array_equal, a, a, false), 0);
        check(OP(array_equal, a, a, true), 1);
    }
}

static void test_float_remainder_takes_the_sign_of_the_divisor(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        mlx_array a = make(real_dtypes[i], SHAPE(4), VALUES(5.5, -5.5, 5.5, -5.5));
        mlx_array b = make(real_dtypes[i], SHAPE(4), VALUES(2, 2, -2, -2));
        check(OP(remainder, a, b), 1.5, 0.5, -0.5, -1.5);
        check(OP(floor_divide, a, b), 2, -3, -3, 2);
    }
}

static void test_round_half_to_even(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        mlx_array x = make(real_dtypes[i], SHAPE(6), VALUES(0.5, 1.5, 2.5, -0.5, -1.5, 3.25));
        check(OP(round, x, 0), 0, 2, 2, 0, -2, 3);
    }
    check_near(OP(round, make(MLX_FLOAT32, SHAPE(2), VALUES(1.2345, -2.675)), 2),
               VALUES(1.23, -2.68), 6e-3);
    check(OP(round, make(MLX_INT32, SHAPE(2), VALUES(15, 25)), -1), 20, 20);
}

static void test_float32_functions_are_accurate(void **state) {
    (void)state;
    double points[200];
    for (int i = 0; i < 200; i++) points[i] = (double)(float)(-9.0 + i * 0.0903);
    mlx_array x = make(MLX_FLOAT32, SHAPE(200), points, 200);
    mlx_array positive = OP(add, OP(abs, x), scalar(MLX_FLOAT32, 0.125));
    static const double ulps = 4 * 0x1p-24;
    double want[200];
    const double *p = doubles(positive);
#define AGAINST(op, input, at, libm)                                                \
    do {                                                                            \
        const double *got = doubles(OP(op, input));                                 \
        for (int i = 0; i < 200; i++) {                                             \
            want[i] = libm((at)[i]);                                                \
            if (fabs(got[i] - want[i]) > ulps * fmax(fabs(want[i]), 0x1p-10))       \
                fail_msg(#op "(%.9g) is %.9g, not %.9g", (at)[i], got[i], want[i]); \
        }                                                                           \
    } while (0)
    AGAINST(exp, x, points, exp);
    AGAINST(expm1, x, points, expm1);
    AGAINST(erf, x, points, erf);
    AGAINST(tanh, x, points, tanh);
    AGAINST(log, positive, p, log);
    AGAINST(log1p, positive, p, log1p);
    AGAINST(sqrt, positive, p, sqrt);
#define SIGMOID(v) (1 / (1 + exp(-(v))))
    AGAINST(sigmoid, x, points, SIGMOID);
}

static void test_special_values(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(4), VALUES(INFINITY, -INFINITY, NAN, 0));
    check(OP(exp, x), INFINITY, 0, NAN, 1);
    check(OP(sigmoid, x), 1, 0, NAN, 0.5);
    check(OP(tanh, x), 1, -1, NAN, 0);
    check(OP(isinf, x), 1, 1, 0, 0);
    check(OP(log, x), INFINITY, NAN, NAN, -INFINITY);
    check(OP(sign, x), 1, -1, 0, 0);
    check(OP(logaddexp, x, x), INFINITY, -INFINITY, NAN, 0.6931471824645996);
    check(OP(exp, make(MLX_FLOAT32, SHAPE(2), VALUES(200, -200))), INFINITY, 0);
}

static void test_strided_broadcast_offset_and_empty_inputs(void **state) {
    (void)state;
    for (size_t i = 1; i < 14; i++) {
        const mlx_dtype d = all_dtypes[i];
        mlx_array x = count_up(d, SHAPE(3, 4));
        mlx_array t = OP(transpose, x);
        check(OP(add, t, t), 0, 8, 16, 2, 10, 18, 4, 12, 20, 6, 14, 22);
        check(OP(add, t, make(d, SHAPE(3), VALUES(0, 1, 2))), 0, 5, 10, 1, 6, 11, 2, 7, 12, 3, 8,
              13);
        mlx_array part = OP(slice, x, INTS(1, 0), INTS(3, 4), INTS(1, 2)); /* 4 6 8 10 */
        check(OP(square, part), 16, 36, 64, 100);
        check(OP(subtract, part, make(d, SHAPE(2, 1), VALUES(4, 8))), 0, 2, 0, 2);
        mlx_array wide = OP(broadcast_to, scalar(d, 3), INTS(2, 2));
        check(OP(multiply, wide, part), 12, 18, 24, 30);
        check(OP(multiply, wide, wide), 9, 9, 9, 9);
        mlx_array back = OP(slice, x, INTS(2, 3), INTS(-4, -5), INTS(-1, -2)); /* 11 9 7 5 3 1 */
        check(OP(add, back, scalar(d, 1)), 12, 10, 8, 6, 4, 2);
        mlx_array none = OP(slice, x, INTS(1, 0), INTS(1, 4), INTS(1, 1));
        check_shape(OP(add, none, scalar(d, 1)), d, SHAPE(0, 4));
        assert_int_equal(mlx_array_eval(OP(square, none)), 0);
        release_all(NULL);
    }
    FAILS("broadcast", add, count_up(MLX_FLOAT32, SHAPE(3)), count_up(MLX_FLOAT32, SHAPE(4)));
}

static void test_operands_survive_a_result(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(4));
    mlx_array b = OP(add, a, scalar(MLX_FLOAT32, 1));
    mlx_array c = OP(multiply, b, b);
    check(c, 1, 4, 9, 16);
    check(b, 1, 2, 3, 4);
    check(a, 0, 1, 2, 3);
}

static void test_casts(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(5), VALUES(-1.9, -0.2, 0.7, 2.5, 300));
    check(OP(astype, x, MLX_INT32), -1, 0, 0, 2, 300);
    check(OP(astype, x, MLX_BOOL), 1, 1, 1, 1, 1);
    check(OP(astype, x, MLX_UINT8), 255, 0, 0, 2, 44);
    check(
        OP(astype, make(MLX_FLOAT32, SHAPE(3), VALUES(1.00390625, 1.01171875, 1e39)), MLX_BFLOAT16),
        1, 1.015625, INFINITY);
    check(OP(astype, make(MLX_FLOAT32, SHAPE(3), VALUES(65519, 65520, 3e-8)), MLX_FLOAT16), 65504,
          INFINITY, 0x1p-24);
    mlx_array nan = scalar(MLX_FLOAT32, NAN);
    check(OP(view, OP(astype, nan, MLX_BFLOAT16), MLX_UINT16), 0x7FC0);
    check(OP(astype, make(MLX_FLOAT32, SHAPE(2), VALUES(NAN, 1e30)), MLX_BOOL), 1, 1);
    assert_int_equal(
        mlx_array_eval(OP(astype, make(MLX_FLOAT32, SHAPE(2), VALUES(NAN, 1e30)), MLX_INT8)), 0);
}

static void test_view_changes_the_last_axis(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(1, 2, 3, 4));
    check_shape(OP(view, x, MLX_UINT16), MLX_UINT16, SHAPE(2, 4));
    check(OP(view, x, MLX_UINT32), 0x3F800000, 0x40000000, 0x40400000, 0x40800000);
    check(OP(view, OP(transpose, x), MLX_UINT16), 0, 0x3F80, 0, 0x4040, 0, 0x4000, 0, 0x4080);
    FAILS("last axis", view, count_up(MLX_UINT8, SHAPE(3)), MLX_FLOAT32);
    FAILS("0-d", view, scalar(MLX_FLOAT32, 1), MLX_UINT8);
}

static void test_where_broadcasts_three_ways(void **state) {
    (void)state;
    mlx_array c = make(MLX_FLOAT32, SHAPE(2, 1), VALUES(0, 5));
    mlx_array x = make(MLX_INT32, SHAPE(3), VALUES(1, 2, 3));
    mlx_array y = scalar(MLX_BFLOAT16, -1);
    mlx_array r = OP(where, c, x, y);
    check_shape(r, MLX_BFLOAT16, SHAPE(2, 3));
    check(r, -1, -1, -1, 1, 2, 3);
}

static void test_clip_and_closeness(void **state) {
    (void)state;
    mlx_array x = make(MLX_INT32, SHAPE(4), VALUES(-5, 0, 5, 10));
    check(OP(clip, x, scalar(MLX_INT32, -1), scalar(MLX_INT32, 6)), -1, 0, 5, 6);
    FAILS("At least one", clip, x, NONE, NONE);
    mlx_array a = make(MLX_FLOAT32, SHAPE(3), VALUES(1, INFINITY, 2));
    mlx_array b = make(MLX_FLOAT32, SHAPE(3), VALUES(1.000001, INFINITY, 2));
    check(OP(allclose, a, b, 1e-5, 1e-8, false), 1);
    check(OP(allclose, a, OP(negative, b), 1e-5, 1e-8, false), 0);
    mlx_array nan = scalar(MLX_FLOAT32, NAN);
    check(OP(allclose, nan, nan, 1e-5, 1e-8, false), 0);
    check(OP(allclose, nan, nan, 1e-5, 1e-8, true), 1);
    check(OP(array_equal, x, a, false), 0);
}

static void test_complex_numbers(void **state) {
    (void)state;
    mlx_array z = keep(mlx_array_new_complex(3, -4)), i = keep(mlx_array_new_complex(0, 1));
    check(OP(abs, z), 5);
    check(OP(view, OP(reshape, OP(multiply, z, i), INTS(1)), MLX_FLOAT32), 4, 3);
    check(OP(view, OP(reshape, OP(divide, z, i), INTS(1)), MLX_FLOAT32), -4, -3);
    check(OP(view, OP(reshape, OP(add, z, scalar(MLX_FLOAT32, 1)), INTS(1)), MLX_FLOAT32), 4, -4);
    check(OP(equal, z, z), 1);
    check_near(OP(view, OP(reshape, OP(exp, z), INTS(1)), MLX_FLOAT32),
               VALUES(-13.128783081462158, 15.200784463067954), 1e-6);
    check(OP(real, z), 3);
    check(OP(imag, z), -4);
    check(OP(imag, OP(conjugate, z)), 4);
    FAILS("complex64", erf, z);
    check(OP(real, OP(maximum, z, i)), 3);
    check(OP(greater, i, z), 0);
    check_near(OP(imag, OP(power, i, z)), VALUES(-535.49164), 1e-5);
    check_near(OP(view, OP(reshape, OP(logaddexp, i, i), INTS(1)), MLX_FLOAT32),
               VALUES(0.6931472, 1), 1e-6);
    FAILS("bool", negative, scalar(MLX_BOOL, 1));
}

/* mlx 0.31.2 on the CPU. */
static void test_inverse_and_hyperbolic_functions(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(2), VALUES(0.3, -0.7));
    check_near(OP(arccos, x), VALUES(1.2661036727794992, 2.3461938234056494), 1e-14);
    check_near(OP(arcsin, x), VALUES(0.3046926540153975, -0.775397496610753), 1e-14);
    check_near(OP(arctan, x), VALUES(0.2914567944778671, -0.6107259643892086), 1e-14);
    check_near(OP(arcsinh, x), VALUES(0.29567304756342244, -0.6526665660823557), 1e-14);
    check_near(OP(arctanh, x), VALUES(0.30951960420311175, -0.8673005276940531), 1e-14);
    check(OP(arccosh, x), NAN, NAN);
    check_near(OP(cosh, x), VALUES(1.0453385141288605, 1.255169005630943), 1e-14);
    check_near(OP(log2, OP(abs, x)), VALUES(-1.7369655941662063, -0.5145731728297583), 1e-14);
    mlx_array k = make(MLX_INT8, SHAPE(2), VALUES(-2, 3));
    check_shape(OP(sinh, k), MLX_FLOAT32, SHAPE(2));
    check_near(OP(sinh, k), VALUES(-3.6268603801727295, 10.017874717712402), 1e-6);
    check_near(OP(tan, k), VALUES(2.185039863261519, -0.1425465430742778), 1e-6);
    check_near(OP(log10, k), VALUES(NAN, 0.4771212339401245), 1e-6);
    check_near(OP(degrees, OP(radians, x)), VALUES(0.3, -0.7), 1e-14);
    check(OP(bitwise_invert, k), 1, -4);
    check(OP(bitwise_invert, scalar(MLX_UINT16, 0)), 65535);
    check(OP(bitwise_invert, scalar(MLX_BOOL, 1)), 0);
    FAILS("integer", bitwise_invert, x);
    check(OP(log1p, make(MLX_FLOAT32, SHAPE(2), VALUES(-1, -2))), -INFINITY, NAN);
}

static void test_finite_and_infinite(void **state) {
    (void)state;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64};
    for (int i = 0; i < 4; i++) {
        mlx_array x = make(dtypes[i], SHAPE(4), VALUES(1, INFINITY, -INFINITY, NAN));
        check(OP(isfinite, x), 1, 0, 0, 0);
        check(OP(isposinf, x), 0, 1, 0, 0);
        check(OP(isneginf, x), 0, 0, 1, 0);
    }
    check(OP(isfinite, scalar(MLX_INT32, 4)), 1);
    check(OP(isposinf, scalar(MLX_INT32, 4)), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_result_dtypes_of_unary_classes),
        TEST(test_promotion_of_every_pair),
        TEST(test_integer_arithmetic),
        TEST(test_shifts_and_bits),
        TEST(test_nan_rules),
        TEST(test_float_remainder_takes_the_sign_of_the_divisor),
        TEST(test_round_half_to_even),
        TEST(test_float32_functions_are_accurate),
        TEST(test_special_values),
        TEST(test_strided_broadcast_offset_and_empty_inputs),
        TEST(test_operands_survive_a_result),
        TEST(test_casts),
        TEST(test_view_changes_the_last_axis),
        TEST(test_where_broadcasts_three_ways),
        TEST(test_clip_and_closeness),
        TEST(test_complex_numbers),
        TEST(test_inverse_and_hyperbolic_functions),
        TEST(test_finite_and_infinite),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
