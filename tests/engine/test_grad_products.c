/* Gradient rules of matrix products, norms, rotary embedding, sorting and
 * quantised products. */
#include "grad_check.h"

static mlx_array wave(mlx_dtype dtype, const int *shape, int ndim) {
    return OP(astype, OP(sin, count_up(MLX_FLOAT64, shape, ndim)), dtype);
}

static mlx_array matmul_of(const mlx_array *x) {
    return OP(matmul, x[0], x[1]);
}
static mlx_array addmm_of(const mlx_array *x) {
    return OP(addmm, x[2], x[0], x[1], 2.f, -.5f);
}

static void test_matmul_and_addmm(void **state) {
    (void)state;
    mlx_array a = wave(MLX_FLOAT64, SHAPE(2, 3, 4)), w = wave(MLX_FLOAT64, SHAPE(4, 2));
    mlx_array b = wave(MLX_FLOAT64, SHAPE(2, 1, 4, 2)), v = wave(MLX_FLOAT64, SHAPE(4));
    mlx_array c = wave(MLX_FLOAT64, SHAPE(3, 1));
    check_gradients(matmul_of, (mlx_array[]){a, w}, 2);
    check_gradients(matmul_of, (mlx_array[]){a, b}, 2);
    check_gradients(matmul_of, (mlx_array[]){v, w}, 2);
    check_gradients(matmul_of, (mlx_array[]){a, v}, 2);
    check_gradients(matmul_of, (mlx_array[]){v, v}, 2);
    check_gradients(addmm_of, (mlx_array[]){a, w, c}, 3);
    mlx_array af = wave(MLX_FLOAT32, SHAPE(2, 3, 4)), wf = wave(MLX_FLOAT32, SHAPE(4, 2));
    check_gradient(addmm_of, (mlx_array[]){af, wf, OP(astype, c, MLX_FLOAT32)}, 3, 1e-2, 1e-3);
}

static mlx_array rms_of(const mlx_array *x) {
    return OP(fast_rms_norm, x[0], x[1], 1e-2f);
}
static mlx_array rms_plain_of(const mlx_array *x) {
    return OP(fast_rms_norm, x[0], NONE, 1e-2f);
}
static mlx_array layer_of(const mlx_array *x) {
    return OP(fast_layer_norm, x[0], x[1], x[2], 1e-2f);
}
static mlx_array layer_weightless_of(const mlx_array *x) {
    return OP(fast_layer_norm, x[0], NONE, x[1], 1e-2f);
}

static void test_norms(void **state) {
    (void)state;
    mlx_array x = wave(MLX_FLOAT64, SHAPE(2, 3, 4));
    mlx_array w = make(MLX_FLOAT64, SHAPE(4), VALUES(.5, -1, 2, .7));
    mlx_array b = make(MLX_FLOAT64, SHAPE(4), VALUES(1, -1, .3, .2));
    check_gradients(rms_of, (mlx_array[]){x, w}, 2);
    check_gradients(rms_plain_of, &x, 1);
    check_gradients(layer_of, (mlx_array[]){x, w, b}, 3);
    check_gradients(layer_weightless_of, (mlx_array[]){x, b}, 2);
}

/* The float32 and 16-bit kernels against float64. */
static void test_norm_gradients_of_narrow_types(void **state) {
    (void)state;
    static const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16};
    static const double tolerances[] = {1e-5, 2e-3, 2e-2};
    mlx_array x = wave(MLX_BFLOAT16, SHAPE(40, 37)), w = wave(MLX_BFLOAT16, SHAPE(37));
    mlx_array wide[3] = {OP(astype, x, MLX_FLOAT64), OP(astype, w, MLX_FLOAT64)};
    wide[2] = wide[1];
    mlx_array g = OP(cos, wave(MLX_FLOAT64, SHAPE(40, 37))), expected[3];
    g = OP(astype, OP(astype, g, MLX_BFLOAT16), MLX_FLOAT64);
    for (int i = 0; i < 3; i++) {
        mlx_array narrow[3], grads[3];
        for (int k = 0; k < 3; k++) narrow[k] = OP(astype, wide[k], dtypes[i]);
        gradients(layer_of, wide, 3, g, expected);
        gradients(layer_of, narrow, 3, OP(astype, g, dtypes[i]), grads);
        for (int k = 0; k < 3; k++)
            check_near(grads[k], doubles(expected[k]), mlx_array_size(expected[k]), tolerances[i]);
        gradients(rms_of, wide, 2, g, expected);
        gradients(rms_of, narrow, 2, OP(astype, g, dtypes[i]), grads);
        for (int k = 0; k < 2; k++)
            check_near(grads[k], doubles(expected[k]), mlx_array_size(expected[k]), tolerances[i]);
    }
}

static mlx_array rope_of(const mlx_array *x) {
    return OP(fast_rope, x[0], 4, false, ((mlx_optional_float){100, true}), .7f, 3, NONE);
}
static mlx_array rope_pairs_of(const mlx_array *x) {
    mlx_array offsets = make(MLX_INT32, SHAPE(2), VALUES(1, 5));
    mlx_array freqs = make(MLX_FLOAT32, SHAPE(2), VALUES(1, 7));
    return OP(fast_rope_dynamic, x[0], 4, true, ((mlx_optional_float){0, false}), 1.f, offsets,
              freqs);
}

static void test_rope(void **state) {
    (void)state;
    mlx_array x = wave(MLX_FLOAT64, SHAPE(2, 2, 3, 6));
    check_gradients(rope_of, &x, 1);
    check_gradients(rope_pairs_of, &x, 1);
}

static mlx_array sort_of(const mlx_array *x) {
    return OP(square, OP(sort_axis, x[0], 1));
}
static mlx_array partition_of(const mlx_array *x) {
    return OP(square, OP(partition_axis, x[0], 2, 0));
}
static mlx_array topk_of(const mlx_array *x) {
    return OP(sum_axis, OP(square, OP(topk_axis, x[0], 2, -1)), -1, false);
}

static void test_sort_partition_topk(void **state) {
    (void)state;
    mlx_array x = wave(MLX_FLOAT64, SHAPE(4, 5)), g;
    check_gradient(sort_of, &x, 1, 1e-6, 1e-7);
    check_gradient(partition_of, &x, 1, 1e-6, 1e-7);
    check_gradient(topk_of, &x, 1, 1e-6, 1e-7);
    mlx_array y = make(MLX_FLOAT32, SHAPE(1, 3), VALUES(3, 1, 2));
    gradients(sort_of, &y, 1, make(MLX_FLOAT32, SHAPE(1, 3), VALUES(1, 2, 3)), &g);
    check(g, 18, 2, 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_matmul_and_addmm),
        TEST(test_norms),
        TEST(test_norm_gradients_of_narrow_types),
        TEST(test_rope),
        TEST(test_sort_partition_topk),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
