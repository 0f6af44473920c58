/* complex64 through every family of operations: arithmetic, order (by the real part
 * first), sums, products of matrices, softmax, gradients. */
#include "conformance/check.h"

/* Real and imaginary parts in turn. */
static mlx_array numbers(const int *shape, int ndim, const double *parts, size_t count) {
    float values[64];
    assert_true(count <= COUNT(values));
    for (size_t i = 0; i < count; i++) values[i] = (float)parts[i];
    return keep(mlx_array_new_data(values, shape, ndim, MLX_COMPLEX64));
}

static void check_parts(mlx_array array, const double *parts, size_t count, double tolerance) {
    assert_int_equal(mlx_array_dtype(array), MLX_COMPLEX64);
    assert_int_equal(2 * mlx_array_size(array), count);
    const double *real = doubles(OP(real, array)), *imag = doubles(OP(imag, array));
    for (size_t i = 0; i < count; i++) {
        const double got = i % 2 ? imag[i / 2] : real[i / 2];
        if (isnan(got) && isnan(parts[i])) continue;
        if (!(got == parts[i] || fabs(got - parts[i]) <= tolerance * fmax(1, fabs(parts[i]))))
            fail_msg("part %zu is %.9g, expected %.9g", i, got, parts[i]);
    }
}
#define check_complex(array, ...) check_parts(array, VALUES(__VA_ARGS__), 3e-6)

/* [2, 2]: 1+2i, 3-i, 1+i, -2. */
static mlx_array square_matrix(void) {
    return numbers(SHAPE(2, 2), VALUES(1, 2, 3, -1, 1, 1, -2, 0));
}

static void test_products_of_complex_matrices(void **state) {
    (void)state;
    mlx_array a = square_matrix(), b = numbers(SHAPE(2, 1), VALUES(1, 0, 0, 1));
    check_complex(OP(matmul, a, b), 2, 5, 1, -1);
    check_complex(OP(matmul, a, a), 1, 6, -1, 7, -3, 1, 8, 2);
    check_complex(OP(matmul, OP(transpose, a), b), 0, 3, 3, -3);
    check_complex(OP(matmul, OP(real, a), b), 1, 3, 1, -2);
    check_complex(OP(addmm, b, a, b, 2, 0.5f), 4.5, 10, 2, -1.5);
    check_complex(OP(inner, OP(flatten, b, 0, -1), OP(flatten, b, 0, -1)), 0, 0);
    check_complex(OP(tensordot_axis, a, b, 1), 2, 5, 1, -1);
    mlx_array both[2] = {a, b};
    mlx_vector_array operands = vector_of(both, 2);
    check_complex(OP(einsum, "ij,jk->ik", operands), 2, 5, 1, -1);
    mlx_vector_array_free(operands);
    mlx_array none = empty(MLX_COMPLEX64, SHAPE(2, 0));
    check_complex(OP(matmul, none, OP(transpose, none)), 0, 0, 0, 0, 0, 0, 0, 0);
}

static void test_complex_numbers_are_ordered_by_their_real_part(void **state) {
    (void)state;
    mlx_array x = numbers(SHAPE(4), VALUES(1, 2, 3, -1, 1, 1, -2, 0));
    check_complex(OP(sort, x), -2, 0, 1, 1, 1, 2, 3, -1);
    check(OP(argsort, x), 3, 2, 0, 1);
    check(OP(argmax, x, false), 1);
    check(OP(argmin, x, false), 3);
    check_complex(OP(max, x, false), 3, -1);
    check_complex(OP(min, x, false), -2, 0);
    check_complex(OP(cummax, x, 0, false, true), 1, 2, 3, -1, 3, -1, 3, -1);
    check_complex(OP(cummin, x, 0, true, true), -2, 0, -2, 0, -2, 0, -2, 0);
    check_complex(OP(sort, OP(topk, x, 2)), 1, 2, 3, -1);
    check_complex(OP(median, x, LIST(0), false), 1, 1.5);
    mlx_array holes = numbers(SHAPE(3), VALUES(NAN, 0, 2, 0, 1, 0));
    check_complex(OP(sort, holes), 1, 0, 2, 0, NAN, 0);
}

static void test_truth_and_closeness_see_both_parts(void **state) {
    (void)state;
    mlx_array x = numbers(SHAPE(2), VALUES(0, 1, 2, 0)), zero = numbers(SHAPE(1), VALUES(0, 0));
    check(OP(all, x, false), 1);
    check(OP(all, OP(multiply, x, zero), false), 0);
    check(OP(any, zero, false), 0);
    mlx_array near_x = numbers(SHAPE(2), VALUES(0, 1.05, 2, 0.5));
    check(OP(isclose, x, near_x, 0, 0.1, false), 1, 0);
    check(OP(allclose, x, x, 1e-5, 1e-8, false), 1);
    mlx_array holes = numbers(SHAPE(2), VALUES(NAN, 0, INFINITY, 0));
    check(OP(isclose, holes, holes, 0, 0, false), 0, 1);
    check(OP(isclose, holes, holes, 0, 0, true), 1, 1);
}

static void test_functions_of_complex_numbers(void **state) {
    (void)state;
    mlx_array x = numbers(SHAPE(2), VALUES(0.25, -0.5, 1.5, 2.5));
    check_complex(OP(log1p, x), 0.2973536, -0.3805064, 1.262864, 0.7853982);
    check_complex(OP(round, x, 0), 0, 0, 2, 2);
    check_complex(OP(square, x), -0.1875, -0.25, -4, 7.5);
    if (upstream(COMPLEX_CURVES)) return;
    check_complex(OP(expm1, x), 0.1268383, -0.6155946, -4.590477, 2.682166);
    check_complex(OP(sigmoid, x), 0.5661637, -0.1255701, 1.186304, 0.192898);
}

static void test_sums_of_exponentials_of_complex_numbers(void **state) {
    (void)state;
    mlx_array x = numbers(SHAPE(2, 2), VALUES(0, 0, 0, M_PI / 2, 1, 0, 1, 1));
    check_complex(OP(softmax_axis, x, -1, false), 0.5, -0.5, 0.5, 0.5, 0.5, -0.273151, 0.5,
                  0.273151);
    check_complex(OP(logsumexp_axis, x, 1, false), 0.346574, 0.785398, 1.562563, 0.5);
    check_complex(OP(logcumsumexp, x, 1, false, true), 0, 0, 0.346574, 0.785398, 1, 0, 1.562563,
                  0.5);
}

static void test_moments_of_complex_numbers(void **state) {
    (void)state;
    mlx_array x = numbers(SHAPE(2), VALUES(1, 1, 3, -1));
    check_complex(OP(mean, x, false), 2, 0);
    check_complex(OP(var, x, false, 0), 0, -2);
    check_complex(OP(std, x, false, 0), 1, -1);
    mlx_array size = OP(linalg_norm, x, 1, NULL, 0, false);
    check_complex(size, 4.576491, 0);
    check(OP(linalg_norm_l2, x, NULL, 0, false), 3.4641016);
}

static int product_part(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array a = mlx_array_new(), b = mlx_array_new(), y = mlx_array_new();
    int failed = mlx_vector_array_get(&a, input, 0) || mlx_vector_array_get(&b, input, 1) ||
                 mlx_matmul(&y, a, b, cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(a);
    mlx_array_free(b);
    mlx_array_free(y);
    return failed;
}

static int product_of_all(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array x = mlx_array_new();
    int failed = mlx_vector_array_get(&x, input, 0) || mlx_prod_axis(&x, x, 0, false, cpu);
    *res = mlx_vector_array_new_value(x);
    mlx_array_free(x);
    return failed;
}

/* The gradients of one result; kept. */
static void pull(int (*function)(mlx_vector_array *, const mlx_vector_array), mlx_array *inputs,
                 size_t count, mlx_array cotangent, mlx_array *grads) {
    mlx_closure closure = mlx_closure_new_func(function);
    mlx_vector_array primals = vector_of(inputs, count), cotangents = vector_of(&cotangent, 1);
    mlx_vector_array values = mlx_vector_array_new(), pulled = mlx_vector_array_new();
    if (mlx_vjp(&values, &pulled, closure, primals, cotangents)) fail_msg("%s", last_error);
    for (size_t i = 0; i < count; i++) {
        grads[i] = mlx_array_new();
        mlx_vector_array_get(&grads[i], pulled, i);
        keep(grads[i]);
    }
    mlx_closure_free(closure);
    mlx_vector_array_free(primals);
    mlx_vector_array_free(cotangents);
    mlx_vector_array_free(values);
    mlx_vector_array_free(pulled);
}

static void test_gradients_conjugate_what_multiplies(void **state) {
    (void)state;
    mlx_array inputs[2] = {square_matrix(), numbers(SHAPE(2, 1), VALUES(1, 0, 0, 1))}, grads[2];
    pull(product_part, inputs, 2, numbers(SHAPE(2, 1), VALUES(1, 0, 0, 1)), grads);
    check_complex(grads[0], 1, 0, 0, -1, 0, 1, 1, 0);
    check_complex(grads[1], 2, -1, 3, -1);
    mlx_array x = numbers(SHAPE(3), VALUES(1, 1, 0, 2, 2, 0));
    pull(product_of_all, &x, 1, numbers(NULL, 0, VALUES(1, 0)), grads);
    check_complex(grads[0], 0, -4, 2, -2, -2, -2);
}

static void test_normal_numbers_may_be_complex(void **state) {
    (void)state;
    mlx_array key = mlx_array_new();
    mlx_random_key(&key, 0);
    keep(key);
    mlx_array plain = OP(random_normal, LIST(3), MLX_COMPLEX64, 0, 1, key);
    mlx_array moved = OP(random_normal, LIST(3), MLX_COMPLEX64, 0.5, 2, key);
    mlx_array half = scalar(MLX_FLOAT32, 0.5), two = scalar(MLX_FLOAT32, 2);
    check_shape(plain, MLX_COMPLEX64, SHAPE(3));
    check_complex(plain, 0.1328259, -0.9074599, 0.4592081, 0.8832188, 0.1728664, -0.08304928);
    check(OP(allclose, moved, OP(add, half, OP(multiply, plain, two)), 1e-6, 1e-6, false), 1);
    mlx_array wide = OP(random_normal, LIST(4), MLX_FLOAT64, 0, 1, key);
    check_shape(wide, MLX_FLOAT64, SHAPE(4));
    check_near(wide, VALUES(1.81608713, -.754884779, .339889258, -.534835339), 1e-6);
}

/* numpy 2: eigvalsh of the hermitian matrix, svd of the other. */
static void test_spectra_of_complex_matrices(void **state) {
    (void)state;
    mlx_array h =
        numbers(SHAPE(3, 3), VALUES(2, 0, 1, -1, 0, 2, 1, 1, -1, 0, 3, 0, 0, -2, 3, 0, 1, 0));
    check_near(OP(linalg_eigvalsh, h, "L"), VALUES(-3.95781588, 1.84138684, 4.11642903), 2e-6);
    check_near(OP(linalg_eigvalsh, h, "U"), VALUES(-3.95781588, 1.84138684, 4.11642903), 2e-6);
    mlx_array parts[3], a = square_matrix();
    assert_int_equal(OPV(parts, linalg_svd, a, true), 3);
    check_near(parts[1], VALUES(4.08468584, 2.07734002), 2e-6);
    mlx_array back = OP(matmul, OP(multiply, parts[0], parts[1]), parts[2]);
    check_complex(back, 1, 2, 3, -1, 1, 1, -2, 0);
    check_complex(OP(matmul, OP(transpose, OP(conjugate, parts[0])), parts[0]), 1, 0, 0, 0, 0, 0, 1,
                  0);
    check_shape(parts[1], MLX_FLOAT32, SHAPE(2));
    check_near(OP(linalg_norm_matrix, a, "nuc", LIST(0, 1), false), VALUES(6.16202586), 2e-6);
    check_complex(OP(linalg_norm, a, 2, LIST(0, 1), false), 4.08468584, 0);
    FAILS("float32 or float64", linalg_inv, a);
}

RUN(TEST(test_products_of_complex_matrices),
    TEST(test_complex_numbers_are_ordered_by_their_real_part),
    TEST(test_truth_and_closeness_see_both_parts), TEST(test_functions_of_complex_numbers),
    TEST(test_sums_of_exponentials_of_complex_numbers), TEST(test_moments_of_complex_numbers),
    TEST(test_gradients_conjugate_what_multiplies), TEST(test_normal_numbers_may_be_complex),
    TEST(test_spectra_of_complex_matrices))
