/* Gradients through weights of few bits: to x, scales and biases of the
 * products and of dequantize. All are linear in each input, so the difference
 * quotients take wide steps. */
#include "grad_check.h"

static const mlx_optional_int usual = {0, false};
static const char *mode;
static bool transpose;
static mlx_array words, lhs, rhs, fixed[2];

static const double STEP = 0.5, NEAR = 2e-3;

static mlx_array pattern(const int *shape, int ndim, int seed) {
    static double values[32768];
    size_t size = 1;
    for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
    for (size_t i = 0; i < size; i++)
        values[i] = (double)((int)((i * 29 + i * i % 7 + (size_t)seed * 31) % 97) - 48) / 64.0;
    return make(MLX_FLOAT32, shape, ndim, values, size);
}

/* Packs w and keeps its words and, for the fp modes, its scales aside. */
static void pack(mlx_array parts[3], mlx_array w) {
    parts[2] = NONE;
    OPV(parts, quantize, w, usual, usual, mode, NONE);
    words = parts[0];
    fixed[0] = parts[1];
    fixed[1] = parts[2];
}

/* inputs: x, scales, biases; or x alone. */
static mlx_array product(const mlx_array *x) {
    return OP(quantized_matmul, x[0], words, x[1], x[2], transpose, usual, usual, mode);
}
static mlx_array product_of_x(const mlx_array *x) {
    return product((mlx_array[]){x[0], fixed[0], fixed[1]});
}
static mlx_array gather(const mlx_array *x) {
    return OP(gather_qmm, x[0], words, x[1], x[2], lhs, rhs, transpose, usual, usual, mode, false);
}
static mlx_array gather_of_x(const mlx_array *x) {
    return gather((mlx_array[]){x[0], fixed[0], fixed[1]});
}
static mlx_array unpacked(const mlx_array *x) {
    return OP(dequantize, words, x[0], x[1], usual, usual, mode, NONE,
              ((mlx_optional_dtype){MLX_FLOAT32, false}));
}

static void test_affine_products_differentiate_to_all_but_the_words(void **state) {
    (void)state;
    mode = "affine";
    for (int t = 0; t < 2; t++) {
        transpose = t;
        mlx_array parts[3];
        pack(parts, pattern(SHAPE(4, 128), 1));
        mlx_array x = pattern(SHAPE(2, 3, t ? 128 : 4), 2);
        check_gradient(product, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
        mlx_array line = pattern(SHAPE(t ? 128 : 4), 3);
        check_gradient(product, (mlx_array[]){line, parts[1], parts[2]}, 3, STEP, NEAR);
        pack(parts, pattern(SHAPE(2, 1, 3, 64), 1));
        x = pattern(SHAPE(1, 3, 2, t ? 64 : 3), 2);
        check_gradient(product, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
    }
}

static void test_affine_products_have_second_gradients(void **state) {
    (void)state;
    mode = "affine";
    transpose = true;
    mlx_array parts[3];
    pack(parts, pattern(SHAPE(2, 64), 1));
    mlx_array x = pattern(SHAPE(2, 64), 2);
    check_second(product, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
}

static void test_fp_products_differentiate_to_x(void **state) {
    (void)state;
    static const char *const names[] = {"mxfp4", "mxfp8", "nvfp4"};
    for (int m = 0; m < 6; m++) {
        mlx_array parts[3];
        mode = names[m / 2];
        transpose = m % 2;
        pack(parts, pattern(SHAPE(5, 64), 1));
        mlx_array x = pattern(SHAPE(3, transpose ? 64 : 5), 2);
        check_gradient(product_of_x, &x, 1, STEP, NEAR);
        pack(parts, pattern(SHAPE(3, 5, 64), 1));
        lhs = make(MLX_UINT32, SHAPE(4), VALUES(1, 0, 1, 1));
        rhs = make(MLX_UINT32, SHAPE(4), VALUES(2, 2, 0, 2));
        x = pattern(SHAPE(2, 2, transpose ? 64 : 5), 2);
        check_gradient(gather_of_x, &x, 1, STEP, NEAR);
    }
}

static void test_gathered_products_differentiate_to_all_but_the_words(void **state) {
    (void)state;
    mode = "affine";
    for (int t = 0; t < 2; t++) {
        mlx_array parts[3];
        transpose = t;
        pack(parts, pattern(SHAPE(3, 4, 64), 1));
        mlx_array x = pattern(SHAPE(2, 2, t ? 64 : 4), 2);
        lhs = make(MLX_UINT32, SHAPE(2, 1), VALUES(1, 0)); /* broadcast: x is used twice */
        rhs = make(MLX_UINT32, SHAPE(2), VALUES(2, 0));    /* matrix 1 is not used */
        check_gradient(gather, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
        lhs = NONE;
        check_gradient(gather, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
        lhs = rhs = NONE;
        x = pattern(SHAPE(3, 2, t ? 64 : 4), 2);
        check_gradient(gather, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
        rhs = make(MLX_UINT32, SHAPE(2, 3), VALUES(2, 0, 1, 1, 1, 0));
        check_gradient(gather, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
    }
    transpose = true;
    mlx_array parts[3], x = pattern(SHAPE(2, 1, 64), 2);
    pack(parts, pattern(SHAPE(2, 2, 64), 1));
    lhs = make(MLX_UINT32, SHAPE(3), VALUES(1, 0, 1));
    rhs = make(MLX_UINT32, SHAPE(3), VALUES(1, 0, 0));
    check_second(gather, (mlx_array[]){x, parts[1], parts[2]}, 3, STEP, NEAR);
}

static void test_dequantize_differentiates_to_scales_and_biases(void **state) {
    (void)state;
    mode = "affine";
    mlx_array parts[3];
    pack(parts, pattern(SHAPE(2, 3, 128), 1));
    check_gradient(unpacked, (mlx_array[]){parts[1], parts[2]}, 2, STEP, NEAR);
}

static int value_and_gradient(GradFunction function, const mlx_array *inputs, size_t n) {
    mlx_closure closure = closure_of(&function);
    mlx_array weights = weights_like(function(inputs));
    mlx_vector_array primals = vector_of(inputs, n), cotangents = vector_of(&weights, 1);
    mlx_vector_array values = {NULL}, result = {NULL};
    const int status = mlx_vjp(&values, &result, closure, primals, cotangents);
    mlx_vector_array_free(primals);
    mlx_vector_array_free(cotangents);
    mlx_vector_array_free(values);
    mlx_vector_array_free(result);
    mlx_closure_free(closure);
    return status;
}

static mlx_array product_of_words(const mlx_array *x) {
    return OP(quantized_matmul, x[0], x[1], fixed[0], fixed[1], transpose, usual, usual, mode);
}
static mlx_array product_of_scales(const mlx_array *x) {
    return OP(quantized_matmul, x[0], words, x[1], NONE, transpose, usual, usual, mode);
}
static mlx_array gather_of_indices(const mlx_array *x) {
    return OP(gather_qmm, x[0], words, fixed[0], fixed[1], NONE, x[1], transpose, usual, usual,
              mode, false);
}

static void test_words_scales_of_fp_modes_and_indices_have_no_gradient(void **state) {
    (void)state;
    mlx_array parts[3], x = pattern(SHAPE(2, 64), 2);
    transpose = true;
    mode = "affine";
    pack(parts, pattern(SHAPE(4, 64), 1));
    assert_int_equal(value_and_gradient(product_of_words, (mlx_array[]){x, words}, 2), 1);
    assert_non_null(strstr(last_error, "quantized weights"));
    pack(parts, pattern(SHAPE(3, 4, 64), 1));
    rhs = make(MLX_UINT32, SHAPE(1), VALUES(2));
    assert_int_equal(value_and_gradient(gather_of_indices, (mlx_array[]){x, rhs}, 2), 1);
    assert_non_null(strstr(last_error, "indices"));
    mode = "mxfp4";
    pack(parts, pattern(SHAPE(4, 64), 1));
    assert_int_equal(value_and_gradient(product_of_scales, (mlx_array[]){x, parts[1]}, 2), 1);
    assert_non_null(strstr(last_error, "mxfp4"));
}

static mlx_array rounded_product(const mlx_array *x) {
    return OP(qqmm, x[0], x[1], NONE, usual, usual, "nvfp4", fixed[0], fixed[1]);
}

static void test_qqmm_gradients_are_quantised_products(void **state) {
    (void)state;
    /* Values that the codes hold exactly, so the quantised gradients are exact. */
    mlx_array x = OP(full, INTS(16, 16), scalar(MLX_FLOAT32, 1.5), MLX_FLOAT32);
    mlx_array w = OP(full, INTS(16, 16), scalar(MLX_FLOAT32, -6), MLX_FLOAT32), grads[2];
    mlx_array ones = OP(ones, INTS(16, 16), MLX_FLOAT32);
    mlx_array g = OP(multiply, ones, scalar(MLX_FLOAT32, 3));
    for (int global = 0; global < 2; global++) {
        fixed[0] = global ? scalar(MLX_FLOAT32, 1.5) : NONE;
        fixed[1] = global ? scalar(MLX_FLOAT32, 6) : NONE;
        gradients(rounded_product, (mlx_array[]){x, w}, 2, g, grads);
        const double *dx = doubles(grads[0]), *dw = doubles(grads[1]);
        for (int i = 0; i < 256; i++) {
            assert_true(fabs(dx[i] + 288) < 1e-4);
            assert_true(fabs(dw[i] - 72) < 1e-4);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_affine_products_differentiate_to_all_but_the_words),
        TEST(test_affine_products_have_second_gradients),
        TEST(test_fp_products_differentiate_to_x),
        TEST(test_gathered_products_differentiate_to_all_but_the_words),
        TEST(test_dequantize_differentiates_to_scales_and_biases),
        TEST(test_words_scales_of_fp_modes_and_indices_have_no_gradient),
        TEST(test_qqmm_gradients_are_quantised_products),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
