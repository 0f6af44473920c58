/* Which dtype comes out: promotion of all pairs, classes of operations, casts. */
#include "conformance/check.h"

enum { B, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, BF, C };

/* Row and column by mlx_dtype; MLX 0.31.2. */
static const char promoted[14][15] = {
    /*  B    U8   U16  U32  U64  I8   I16  I32  I64  F16  F32  F64  BF   C */
    {B, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, BF, C},
    {U8, U8, U16, U32, U64, I16, I16, I32, I64, F16, F32, F64, BF, C},
    {U16, U16, U16, U32, U64, I32, I32, I32, I64, F16, F32, F64, BF, C},
    {U32, U32, U32, U32, U64, I64, I64, I64, I64, F16, F32, F64, BF, C},
    {U64, U64, U64, U64, U64, F32, F32, F32, F32, F16, F32, F64, BF, C},
    {I8, I16, I32, I64, F32, I8, I16, I32, I64, F16, F32, F64, BF, C},
    {I16, I16, I32, I64, F32, I16, I16, I32, I64, F16, F32, F64, BF, C},
    {I32, I32, I32, I64, F32, I32, I32, I32, I64, F16, F32, F64, BF, C},
    {I64, I64, I64, I64, F32, I64, I64, I64, I64, F16, F32, F64, BF, C},
    {F16, F16, F16, F16, F16, F16, F16, F16, F16, F16, F32, F64, F32, C},
    {F32, F32, F32, F32, F32, F32, F32, F32, F32, F32, F32, F64, F32, C},
    {F64, F64, F64, F64, F64, F64, F64, F64, F64, F64, F64, F64, F64, C},
    {BF, BF, BF, BF, BF, BF, BF, BF, BF, F32, F32, F64, BF, C},
    {C, C, C, C, C, C, C, C, C, C, C, C, C, C},
};

static mlx_array two(int dtype) {
    return OP(astype, count_up(MLX_INT32, SHAPE(2)), (mlx_dtype)dtype);
}

static void test_pairs_promote_as_in_the_table(void **state) {
    (void)state;
    for (int a = 0; a < 14; a++) {
        for (int b = 0; b < 14; b++) {
            mlx_array x = two(a), y = two(b);
            const mlx_dtype want = (mlx_dtype)promoted[a][b];
            const mlx_dtype real = want < MLX_FLOAT16 ? MLX_FLOAT32 : want;
            check_shape(OP(add, x, y), want, SHAPE(2));
            check_shape(OP(multiply, x, y), want, SHAPE(2));
            if (want != MLX_COMPLEX64) check_shape(OP(maximum, x, y), want, SHAPE(2));
            check_shape(OP(where, two(B), x, y), want, SHAPE(2));
            check_shape(OP(divide, x, y), real, SHAPE(2));
            if (want != MLX_COMPLEX64) check_shape(OP(logaddexp, x, y), real, SHAPE(2));
            if (want != MLX_COMPLEX64) check_shape(OP(less, x, y), MLX_BOOL, SHAPE(2));
            check_shape(OP(equal, x, y), MLX_BOOL, SHAPE(2));
            check_shape(OP(logical_and, x, y), MLX_BOOL, SHAPE(2));
            mlx_vector_array both = vector_of((mlx_array[]){x, y}, 2);
            check_shape(OP(concatenate, both), want, SHAPE(4));
            check_shape(OP(stack, both), want, SHAPE(2, 2));
            mlx_vector_array_free(both);
            /* A 0-d array promotes like any other. */
            check_shape(OP(add, x, scalar((mlx_dtype)b, 1)), want, SHAPE(2));
        }
        release_all(NULL);
    }
}

static void test_functions_of_one_array_have_their_dtypes(void **state) {
    (void)state;
    static const char sums[14] = {I32, U32, U32, U32, U64, I32, I32,
                                  I32, I64, F16, F32, F64, BF,  C};
    for (int a = 0; a < 14; a++) {
        const mlx_dtype dtype = (mlx_dtype)a, real = a < F16 ? MLX_FLOAT32 : dtype;
        mlx_array x = two(a);
        check_shape(OP(exp, x), real, SHAPE(2));
        check_shape(OP(sin, x), real, SHAPE(2));
        check_shape(OP(tanh, x), real, SHAPE(2));
        check_shape(OP(square, x), dtype, SHAPE(2));
        check_shape(OP(abs, x), a == C ? MLX_FLOAT32 : dtype, SHAPE(2));
        check_shape(OP(isnan, x), MLX_BOOL, SHAPE(2));
        check_shape(OP(logical_not, x), MLX_BOOL, SHAPE(2));
        check_shape(OP(sum, x, false), (mlx_dtype)sums[a], NULL, 0);
        check_shape(OP(mean, x, false), real, NULL, 0);
        check_shape(OP(zeros_like, x), dtype, SHAPE(2));
        check_shape(OP(real, x), a == C ? MLX_FLOAT32 : dtype, SHAPE(2));
        if (a == C) continue;
        check_shape(OP(sqrt, x), real, SHAPE(2));
        check_shape(OP(sigmoid, x), real, SHAPE(2));
        check_shape(OP(max, x, false), dtype, NULL, 0);
        check_shape(OP(argmax, x, false), MLX_UINT32, NULL, 0);
        check_shape(OP(argsort_axis, x, 0), MLX_UINT32, SHAPE(2));
        check_shape(OP(sort_axis, x, 0), dtype, SHAPE(2));
        check_shape(OP(all, x, false), MLX_BOOL, NULL, 0);
        check_shape(OP(softmax, x, false), real, SHAPE(2));
        check_shape(OP(logsumexp, x, false), real, NULL, 0);
        check_shape(OP(cumsum, x, 0, false, true), a == B ? MLX_INT32 : dtype, SHAPE(2));
        check_shape(OP(floor, x), dtype, SHAPE(2));
    }
}

/* Nothing to fold leaves the array as it is, dtype included. */
static void test_sums_over_no_axis_change_nothing(void **state) {
    (void)state;
    check_shape(OP(sum, scalar(MLX_INT8, 3), false), MLX_INT8, NULL, 0);
    check_shape(OP(sum_axes, two(U8), NULL, 0, false), MLX_UINT8, SHAPE(2));
    check_shape(OP(sum_axis, empty(MLX_BOOL, SHAPE(1, 2)), 0, false), MLX_INT32, SHAPE(2));
    check_shape(OP(max_axes, two(U8), NULL, 0, false), MLX_UINT8, SHAPE(2));
    check_shape(OP(mean_axes, two(U8), NULL, 0, false), MLX_FLOAT32, SHAPE(2));
}

static void test_softmax_keeps_integers_off_the_last_axis(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(2, 2));
    check_shape(OP(softmax_axis, x, -1, false), MLX_FLOAT32, SHAPE(2, 2));
    check_shape(OP(softmax_axis, x, 0, false), MLX_INT32, SHAPE(2, 2));
    check_shape(OP(softmax_axis, empty(MLX_UINT8, SHAPE(0, 2)), -1, false), MLX_UINT8, SHAPE(0, 2));
}

static void test_products_want_floats(void **state) {
    (void)state;
    mlx_array i = count_up(MLX_INT32, SHAPE(2, 2)), f = count_up(MLX_FLOAT16, SHAPE(2, 2));
    FAILS("[matmul]", matmul, i, i);
    FAILS("[addmm]", addmm, i, i, i, 1, 1);
    check_shape(OP(matmul, i, f), MLX_FLOAT16, SHAPE(2, 2));
    check_shape(OP(matmul, f, count_up(MLX_BFLOAT16, SHAPE(2, 2))), MLX_FLOAT32, SHAPE(2, 2));
    check_shape(OP(fast_rms_norm, f, OP(ones, LIST(2), MLX_FLOAT32), 1e-5f), MLX_FLOAT32,
                SHAPE(2, 2));
}

static void test_bit_operations_want_integers(void **state) {
    (void)state;
    mlx_array i = count_up(MLX_INT32, SHAPE(2)), f = count_up(MLX_FLOAT32, SHAPE(2)), b = two(B);
    FAILS("bitwise_and", bitwise_and, i, f);
    FAILS("left_shift", left_shift, f, i);
    check_shape(OP(left_shift, b, b), MLX_UINT8, SHAPE(2));
    check_shape(OP(bitwise_or, b, b), MLX_BOOL, SHAPE(2));
    FAILS("[negative]", negative, b);
    check(OP(negative, two(U8)), 0, 255);
}

static void test_integer_arithmetic_wraps(void **state) {
    (void)state;
    check(OP(cumsum, row(MLX_UINT8, VALUES(200, 200, 200)), 0, false, true), 200, 144, 88);
    check(OP(add, scalar(MLX_INT8, 127), scalar(MLX_INT8, 1)), -128);
    check(OP(multiply, scalar(MLX_UINT16, 300), scalar(MLX_UINT16, 300)), 24464);
    check(OP(sum, row(MLX_UINT8, VALUES(200, 200, 200)), false), 600);
    check(OP(power, row(MLX_INT32, VALUES(2, 3, -2)), row(MLX_INT32, VALUES(10, 0, 3))), 1024, 1,
          -8);
    if (!upstream(INTEGER_POWER)) check(OP(power, scalar(MLX_INT32, 2), scalar(MLX_INT32, -1)), 0);
    check(OP(remainder, row(MLX_INT32, VALUES(-7, 7, -7)), row(MLX_INT32, VALUES(2, -2, -2))), 1,
          -1, -1);
    check(OP(right_shift, scalar(MLX_INT32, -8), scalar(MLX_INT32, 1)), -4);
    check(OP(subtract, scalar(MLX_UINT32, 0), scalar(MLX_UINT32, 1)), 4294967295.0);
}

static void test_casts_truncate_round_and_test(void **state) {
    (void)state;
    check(OP(astype, row(MLX_FLOAT32, VALUES(2.9, -2.9, 0)), MLX_INT32), 2, -2, 0);
    check(OP(astype, row(MLX_FLOAT32, VALUES(0.1, -0.0, NAN)), MLX_BOOL), 1, 0, 1);
    check(OP(astype, row(MLX_INT32, VALUES(256, 257)), MLX_UINT8), 0, 1);
    check(OP(astype, row(MLX_FLOAT32, VALUES(1 + 0x1p-8, 1 + 0x3p-8, 65520)), MLX_BFLOAT16), 1,
          1 + 0x4p-8, 65536);
    check(OP(astype, row(MLX_FLOAT32, VALUES(65519, 65520, -65520, 0x1p-25)), MLX_FLOAT16), 65504,
          INFINITY, -INFINITY, 0);
    if (!upstream(BAD_DTYPE)) FAILS("dtype", astype, scalar(MLX_INT8, 0), (mlx_dtype)99);
}

RUN(TEST(test_pairs_promote_as_in_the_table), TEST(test_functions_of_one_array_have_their_dtypes),
    TEST(test_sums_over_no_axis_change_nothing),
    TEST(test_softmax_keeps_integers_off_the_last_axis), TEST(test_products_want_floats),
    TEST(test_bit_operations_want_integers), TEST(test_integer_arithmetic_wraps),
    TEST(test_casts_truncate_round_and_test))
