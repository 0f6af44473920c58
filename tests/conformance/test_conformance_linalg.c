/* Factorisations of matrices that are nearly or exactly singular, and the attention
 * and indices that accept or refuse a dtype. */
#include "conformance/check.h"

static mlx_array svd_values(mlx_array x) {
    mlx_array parts[3];
    assert_int_equal(OPV(parts, linalg_svd, x, false), 1);
    return parts[0];
}

static void test_singular_values_of_dependent_rows(void **state) {
    (void)state;
    check_near(
        svd_values(make(MLX_FLOAT32, SHAPE(3, 3), VALUES(1, -1, .5, -1, 1, -.5, .5, -.5, 1))),
        VALUES(2.3660254, .6339746, 0), 2e-6);
    check_near(svd_values(make(MLX_FLOAT32, SHAPE(2, 2), VALUES(1, 1, 1, 1))), VALUES(2, 0), 1e-6);
    check_near(svd_values(empty(MLX_FLOAT32, SHAPE(2, 3))), VALUES(0, 0), 0);
    mlx_array parts[3], x = count_up(MLX_FLOAT32, SHAPE(4, 3));
    assert_int_equal(OPV(parts, linalg_svd, x, true), 3);
    mlx_array u = OP(slice, parts[0], LIST(0, 0), LIST(4, 3), LIST(1, 1));
    check_same(OP(matmul, OP(multiply, u, parts[1]), parts[2]), x, 1e-5);
    mlx_array unit = OP(matmul, OP(transpose, parts[0]), parts[0]);
    check_same(unit, OP(eye, 4, 4, 0, MLX_FLOAT32), 1e-5);
}

static void test_cholesky_of_a_matrix_that_is_singular_but_for_rounding(void **state) {
    (void)state;
    mlx_array root = make(MLX_FLOAT32, SHAPE(3, 3), VALUES(1, 2, 3, 4, 5, 6, 7, 8, 9));
    mlx_array whole = OP(matmul, OP(transpose, root), root);
    mlx_array a = OP(divide, whole, scalar(MLX_FLOAT32, 81));
    mlx_array lower = OP(linalg_cholesky, a, false), upper = OP(linalg_cholesky, a, true);
    check_same(OP(matmul, lower, OP(transpose, lower)), a, 1e-5);
    check_same(OP(matmul, OP(transpose, upper), upper), a, 1e-5);
    if (upstream(EVAL_ERRORS)) return;
    mlx_array out = mlx_array_new(), none = OP(negative, a);
    assert_int_equal(mlx_linalg_cholesky(&out, none, false, cpu), 0);
    assert_int_equal(mlx_array_eval(out), 1);
    assert_non_null(strstr(last_error, "not positive definite"));
    mlx_array_free(out);
}

static void test_sinks_must_fit_the_output(void **state) {
    (void)state;
    mlx_array q = OP(ones, LIST(1, 2, 3, 8), MLX_FLOAT16), none = mlx_array_new();
    mlx_array wide = OP(zeros, LIST(2), MLX_FLOAT32), half = OP(zeros, LIST(2), MLX_FLOAT16);
    FAILS("sinks", fast_scaled_dot_product_attention, q, q, q, 1, "", none, wide);
    FAILS("sinks", fast_scaled_dot_product_attention, q, q, q, 1, "", none,
          OP(zeros, LIST(3), MLX_FLOAT16));
    mlx_array y = OP(fast_scaled_dot_product_attention, q, q, q, 0, "", none, half);
    check_shape(y, MLX_FLOAT16, SHAPE(1, 2, 3, 8));
    check_same(OP(max, y, false), scalar(MLX_FLOAT32, 0.75), 1e-3); /* 3 keys and a sink */
}

static void test_no_indices_may_have_any_dtype(void **state) {
    (void)state;
    mlx_array nothing = empty(MLX_FLOAT32, SHAPE(0));
    check_shape(OP(put_along_axis, nothing, nothing, nothing, 0), MLX_FLOAT32, SHAPE(0));
}

RUN(TEST(test_singular_values_of_dependent_rows),
    TEST(test_cholesky_of_a_matrix_that_is_singular_but_for_rounding),
    TEST(test_sinks_must_fit_the_output), TEST(test_no_indices_may_have_any_dtype))
