/* Linear algebra: known small results (numpy 2 and mlx 0.31.2), factors that
 * multiply back, ranks that are not full, input that is refused. */
#include "ops_check.h"

#include <stdlib.h>

/* Numbers without a pattern, about 1 in size. */
static mlx_array wavy(mlx_dtype dtype, const int *shape, int ndim) {
    int size = 1;
    for (int i = 0; i < ndim; i++) size *= shape[i];
    double *values = malloc((size_t)size * sizeof *values + 1);
    for (int i = 0; i < size; i++) values[i] = sin(1.7 * i) + cos(2.3 * i * i);
    mlx_array array = make(dtype, shape, ndim, values, (size_t)size);
    free(values);
    return array;
}

static mlx_array turned(mlx_array x) {
    return OP(swapaxes, x, -1, -2);
}

static void check_same(mlx_array got, mlx_array expected, double tolerance) {
    check_shape(got, mlx_array_dtype(expected), mlx_array_shape(expected),
                (int)mlx_array_ndim(expected));
    check_near(got, doubles(expected), mlx_array_size(expected), tolerance);
}

/* The rows or columns of x are orthonormal. */
static void check_orthonormal(mlx_array x, bool columns, double tolerance) {
    mlx_array product = columns ? OP(matmul, turned(x), x) : OP(matmul, x, turned(x));
    const int n = mlx_array_dim(product, -1);
    const double *got = doubles(product);
    for (size_t i = 0; i < mlx_array_size(product); i++)
        assert_true(fabs(got[i] - (i / n % n == i % n)) < tolerance);
}

#define PAIR(first, second, name, ...)                                             \
    mlx_array first = mlx_array_new(), second = mlx_array_new();                   \
    if (mlx_##name(&first, &second, __VA_ARGS__, cpu)) fail_msg("%s", last_error); \
    keep(first);                                                                   \
    keep(second)

/* Evaluation fails and says so. */
static void check_fails(mlx_array x, const char *text) {
    last_error[0] = 0;
    assert_int_equal(mlx_array_eval(x), 1);
    if (!strstr(last_error, text)) fail_msg("\"%s\" does not say \"%s\"", last_error, text);
}

static const struct {
    mlx_dtype dtype;
    double tolerance;
} kinds[] = {{MLX_FLOAT32, 2e-5}, {MLX_FLOAT64, 1e-11}};

static void test_inverse_and_solve(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const double near = kinds[i].tolerance;
        mlx_array a = make(kinds[i].dtype, SHAPE(2, 2), VALUES(1, 2, 3, 4));
        check_near(OP(linalg_inv, a), VALUES(-2, 1, 1.5, -.5), near);
        check_near(OP(linalg_solve, a, make(kinds[i].dtype, SHAPE(2), VALUES(5, 11))), VALUES(1, 2),
                   near);
        mlx_array batch = wavy(kinds[i].dtype, SHAPE(3, 5, 5));
        mlx_array identity = OP(matmul, batch, OP(linalg_inv, batch));
        for (int k = 0; k < 75; k++)
            assert_true(fabs(doubles(identity)[k] - (k / 5 % 5 == k % 5)) < 10 * near);
        mlx_array b = wavy(kinds[i].dtype, SHAPE(5, 2));
        check_same(OP(matmul, batch, OP(linalg_solve, batch, b)),
                   OP(broadcast_to, b, INTS(3, 5, 2)), 10 * near);
        check_same(OP(linalg_solve, OP(transpose_axes, batch, INTS(0, 2, 1)), b),
                   OP(matmul, turned(OP(linalg_inv, batch)), b), 10 * near);
    }
}

static void test_triangles(void **state) {
    (void)state;
    mlx_array a = make(MLX_FLOAT64, SHAPE(3, 3), VALUES(2, 9, 4, 1, 4, 9, 3, 1, 5));
    check_near(OP(linalg_tri_inv, a, false), VALUES(.5, 0, 0, -.125, .25, 0, -.275, -.05, .2),
               1e-14);
    mlx_array upper = OP(triu, a, 0);
    check_same(OP(linalg_tri_inv, a, true), OP(linalg_inv, upper), 1e-14);
    mlx_array b = make(MLX_FLOAT64, SHAPE(3), VALUES(1, 2, 3));
    check_same(OP(linalg_solve_triangular, a, b, true), OP(linalg_solve, upper, b), 1e-14);
    check_near(OP(linalg_solve_triangular, a, b, false), VALUES(.5, .375, .225), 1e-14);
}

static void test_cholesky(void **state) {
    (void)state;
    mlx_array a = make(MLX_FLOAT32, SHAPE(3, 3), VALUES(4, 12, -16, 12, 37, -43, -16, -43, 98));
    check_near(OP(linalg_cholesky, a, false), VALUES(2, 0, 0, 6, 1, 0, -8, 5, 3), 1e-6);
    check_near(OP(linalg_cholesky, a, true), VALUES(2, 6, -8, 0, 1, 5, 0, 0, 3), 1e-6);
    /* Only the named triangle is read. */
    check_near(OP(linalg_cholesky, OP(tril, a, 0), false), VALUES(2, 0, 0, 6, 1, 0, -8, 5, 3),
               1e-6);
    for (int upper = 0; upper < 2; upper++)
        check_same(OP(linalg_cholesky_inv, OP(linalg_cholesky, a, upper), upper), OP(linalg_inv, a),
                   1e-3);
}

static void test_lu(void **state) {
    (void)state;
    mlx_array a = make(MLX_FLOAT64, SHAPE(3, 3), VALUES(3, 1, 2, 1, 8, 6, 9, 2, 5)), parts[3];
    OPV(parts, linalg_lu, a);
    check_shape(parts[0], MLX_UINT32, SHAPE(3));
    check(parts[0], 2, 1, 0);
    check_near(parts[1], VALUES(1, 0, 0, 1. / 9, 1, 0, 1. / 3, 3. / 70, 1), 1e-15);
    check_near(parts[2], VALUES(9, 2, 5, 0, 70. / 9, 49. / 9, 0, 0, .1), 1e-14);
    PAIR(lu, pivots, linalg_lu_factor, a);
    check(pivots, 2, 1, 2);
    check_near(lu, VALUES(9, 2, 5, 1. / 9, 70. / 9, 49. / 9, 1. / 3, 3. / 70, .1), 1e-14);
    const int shapes[][3] = {{2, 4, 3}, {2, 3, 5}};
    for (int i = 0; i < 2; i++) {
        mlx_array x = wavy(MLX_FLOAT32, shapes[i], 3);
        OPV(parts, linalg_lu, x);
        mlx_array product = OP(matmul, parts[1], parts[2]);
        check_same(OP(take_along_axis, product, OP(expand_dims, parts[0], -1), 1), x, 1e-5);
    }
}

static void test_qr(void **state) {
    (void)state;
    mlx_array a = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(3, 1, 4, 2));
    PAIR(q, r, linalg_qr, a);
    check_near(q, VALUES(-.6, -.8, -.8, .6), 1e-6);
    check_near(r, VALUES(-5, -2.2, 0, .4), 1e-6);
    const int shapes[][3] = {{2, 6, 4}, {2, 4, 6}, {1, 33, 33}, {1, 1, 3}};
    for (int i = 0; i < 8; i++) {
        mlx_array x = wavy(kinds[i / 4].dtype, shapes[i % 4], 3);
        PAIR(basis, rest, linalg_qr, x);
        check_same(OP(matmul, basis, rest), x, kinds[i / 4].tolerance);
        check_orthonormal(basis, true, kinds[i / 4].tolerance);
        check_same(OP(triu, rest, 0), rest, 0);
    }
}

static void check_svd(mlx_array x, double tolerance) {
    mlx_array parts[3], alone[1];
    const int m = mlx_array_dim(x, -2), n = mlx_array_dim(x, -1), k = m < n ? m : n;
    OPV(parts, linalg_svd, x, true);
    OPV(alone, linalg_svd, x, false);
    check_same(alone[0], parts[1], tolerance);
    check_orthonormal(parts[0], true, tolerance);
    check_orthonormal(parts[2], false, tolerance);
    mlx_array range = OP(arange, 0, k, 1, MLX_INT32);
    mlx_array scaled =
        OP(multiply, OP(take_axis, parts[0], range, -1), OP(expand_dims, parts[1], -2));
    check_same(OP(matmul, scaled, OP(take_axis, parts[2], range, -2)), x, tolerance);
    const double *values = doubles(parts[1]);
    for (size_t i = 0; i < mlx_array_size(parts[1]); i++)
        assert_true(values[i] >= 0 && (i % k == 0 || values[i] <= values[i - 1]));
}

static void test_svd(void **state) {
    (void)state;
    mlx_array s[1];
    OPV(s, linalg_svd, make(MLX_FLOAT64, SHAPE(2, 3), VALUES(1, 2, 3, 4, 5, 6)), false);
    check_near(s[0], VALUES(9.508032000695724, .7728696356734838), 1e-14);
    const int shapes[][3] = {{2, 5, 3}, {2, 3, 5}, {1, 40, 40}, {1, 1, 1}, {1, 70, 9}};
    for (int i = 0; i < 10; i++)
        check_svd(wavy(kinds[i / 5].dtype, shapes[i % 5], 3), kinds[i / 5].tolerance);
    check_svd(OP(zeros, INTS(4, 3), MLX_FLOAT64), 1e-14);
    check_svd(OP(ones, INTS(5, 7), MLX_FLOAT64), 1e-13);
    check_svd(OP(outer, wavy(MLX_FLOAT32, SHAPE(6)), wavy(MLX_FLOAT32, SHAPE(4))), 1e-5);
    mlx_array parts[3];
    OPV(parts, linalg_svd, OP(zeros, INTS(0, 3), MLX_FLOAT32), true);
    check_orthonormal(parts[2], false, 1e-14);
}

static void test_pinv(void **state) {
    (void)state;
    check_near(OP(linalg_pinv, make(MLX_FLOAT64, SHAPE(3, 2), VALUES(1, 2, 3, 4, 5, 6))),
               VALUES(-4. / 3, -1. / 3, 2. / 3, 13. / 12, 1. / 3, -5. / 12), 1e-13);
    check_near(OP(linalg_pinv, OP(ones, INTS(2, 2), MLX_FLOAT32)), VALUES(.25, .25, .25, .25),
               1e-6);
    check_shape(OP(linalg_pinv, OP(zeros, INTS(0, 3), MLX_FLOAT32)), MLX_FLOAT32, SHAPE(3, 0));
}

static void test_eigh(void **state) {
    (void)state;
    mlx_array a = make(MLX_FLOAT64, SHAPE(2, 2), VALUES(2, 1, 1, 2));
    check_near(OP(linalg_eigvalsh, a, "L"), VALUES(1, 3), 1e-14);
    const int shapes[][3] = {{3, 4, 4}, {1, 1, 1}, {1, 50, 50}};
    for (int i = 0; i < 12; i++) {
        const double near = 2 * kinds[i % 2].tolerance;
        mlx_array x = wavy(kinds[i % 2].dtype, shapes[i / 4], 3);
        const char *triangle = i / 2 % 2 ? "U" : "L";
        mlx_array half = i / 2 % 2 ? OP(triu, x, 1) : OP(tril, x, -1);
        mlx_array whole =
            OP(add, OP(add, half, turned(half)), OP(subtract, OP(tril, x, 0), OP(tril, x, -1)));
        PAIR(values, vectors, linalg_eigh, x, triangle);
        check_orthonormal(vectors, true, near);
        check_same(OP(matmul, whole, vectors), OP(multiply, vectors, OP(expand_dims, values, -2)),
                   near);
        check_same(OP(linalg_eigvalsh, x, triangle), values, near);
        check_same(OP(sort_axis, values, -1), values, 0);
    }
    check(OP(linalg_eigvalsh, OP(zeros, INTS(3, 3), MLX_FLOAT32), "U"), 0, 0, 0);
}

/* x + iy */
static mlx_array complex_of(mlx_array x, mlx_array y) {
    mlx_array i = keep(mlx_array_new_complex(0, 1));
    return OP(add, x, OP(multiply, y, i));
}

/* As check_near of both parts. */
static void check_same_complex(mlx_array got, mlx_array expected, double tolerance) {
    assert_int_equal(mlx_array_dtype(got), MLX_COMPLEX64);
    check_same(OP(real, got), OP(real, expected), tolerance);
    check_same(OP(imag, got), OP(imag, expected), tolerance);
}

static mlx_array adjoint(mlx_array x) {
    return turned(OP(conjugate, x));
}

static mlx_array identity(int n) {
    return OP(eye, n, n, 0, MLX_FLOAT32);
}

/* The columns of x [.., n, n] are orthonormal over the complex numbers. */
static void check_unitary(mlx_array x) {
    mlx_array product = OP(matmul, adjoint(x), x);
    mlx_array unit = OP(add, OP(zeros_like, product), identity(mlx_array_dim(x, -1)));
    check_same_complex(product, unit, 1e-5);
}

static void check_complex_svd(mlx_array x) {
    mlx_array parts[3], alone[1];
    const int m = mlx_array_dim(x, 0), n = mlx_array_dim(x, 1), k = m < n ? m : n;
    OPV(parts, linalg_svd, x, true);
    OPV(alone, linalg_svd, x, false);
    check_shape(parts[1], MLX_FLOAT32, SHAPE(k));
    check_same(alone[0], parts[1], 1e-6);
    check_unitary(parts[0]);
    check_unitary(parts[2]);
    mlx_array u = OP(slice, parts[0], INTS(0, 0), INTS(m, k), INTS(1, 1));
    mlx_array v = OP(slice, parts[2], INTS(0, 0), INTS(k, n), INTS(1, 1));
    check_same_complex(OP(matmul, OP(multiply, u, parts[1]), v), x, 2e-5);
    const double *values = doubles(parts[1]);
    for (int i = 0; i < k; i++) assert_true(values[i] >= 0 && (!i || values[i] <= values[i - 1]));
}

static void test_complex_svd(void **state) {
    (void)state;
    const int shapes[][2] = {{1, 1}, {3, 3}, {7, 4}, {4, 7}, {40, 33}, {2, 20}};
    for (int i = 0; i < 6; i++) {
        mlx_array x = wavy(MLX_FLOAT32, shapes[i], 2);
        check_complex_svd(complex_of(x, OP(sin, OP(multiply, x, scalar(MLX_FLOAT32, 9)))));
    }
    mlx_array ones = OP(ones, INTS(4, 3), MLX_FLOAT32), unit = identity(5);
    check_complex_svd(complex_of(ones, ones)); /* of rank 1 */
    check_complex_svd(complex_of(OP(zeros_like, ones), OP(zeros_like, ones)));
    check_complex_svd(complex_of(OP(zeros_like, unit), unit)); /* one value five times */
    const double falling[] = {1, 1e-3, 1e-6, 1e-9, 1e-13, 0};
    mlx_array steep = OP(diag, make(MLX_FLOAT32, SHAPE(6), falling, 6), 0), turn[3];
    OPV(turn, linalg_svd, complex_of(wavy(MLX_FLOAT32, SHAPE(6, 6)), steep), true);
    check_complex_svd(OP(matmul, OP(matmul, turn[0], steep), turn[2]));
    check_complex_svd(OP(astype, steep, MLX_COMPLEX64));
}

static void test_complex_eigh(void **state) {
    (void)state;
    mlx_array x = wavy(MLX_FLOAT32, SHAPE(2, 9, 9)), z = complex_of(x, OP(square, x));
    mlx_array tall = OP(take_axis, z, OP(arange, 0, 2, 1, MLX_INT32), -1);
    mlx_array matrices[] = {OP(add, z, adjoint(z)),                 /* no value twice */
                            OP(astype, identity(4), MLX_COMPLEX64), /* one value four times */
                            OP(matmul, tall, adjoint(tall))};       /* zero seven times */
    for (int i = 0; i < 6; i++) {
        mlx_array a = matrices[i / 2], half = i % 2 ? OP(triu, a, 0) : OP(tril, a, 0);
        /* Only one triangle counts, and of the diagonal the real part. */
        mlx_array given =
            complex_of(OP(real, half), OP(add, OP(imag, half), identity(mlx_array_dim(a, -1))));
        PAIR(values, vectors, linalg_eigh, given, i % 2 ? "U" : "L");
        assert_int_equal(mlx_array_dtype(values), MLX_FLOAT32);
        check_same(OP(sort_axis, values, -1), values, 0);
        check_same(OP(linalg_eigvalsh, given, i % 2 ? "U" : "L"), values, 1e-6);
        check_unitary(vectors);
        const double most = doubles(OP(max, OP(abs, values), false))[0];
        check_same_complex(OP(matmul, a, vectors),
                           OP(multiply, vectors, OP(expand_dims, values, -2)), 1e-5 * most);
    }
}

static void test_cross(void **state) {
    (void)state;
    mlx_array a = make(MLX_FLOAT32, SHAPE(3), VALUES(1, 2, 3));
    mlx_array b = make(MLX_FLOAT32, SHAPE(2, 3), VALUES(4, 5, 6, 1, 0, 0));
    check(OP(linalg_cross, a, b, -1), -3, 6, -3, 0, 3, -2);
    mlx_array flat = make(MLX_FLOAT32, SHAPE(2), VALUES(1, 2));
    check(OP(linalg_cross, flat, a, 0), 6, -3, 0);
    check(OP(linalg_cross, a, flat, 0), -6, 3, 0);
    check(OP(linalg_cross, flat, make(MLX_FLOAT32, SHAPE(2), VALUES(3, 5)), 0), 0, 0, -1);
    FAILS("size 2 or 3", linalg_cross, a, OP(zeros, INTS(4), MLX_FLOAT32), 0);
    FAILS("linalg::cross", linalg_cross, a, b, 2);
}

static void test_bad_matrices_are_errors(void **state) {
    (void)state;
    mlx_array full = OP(ones, INTS(2, 3, 3), MLX_FLOAT32),
              zero = OP(zeros, INTS(2, 2), MLX_FLOAT64);
    check_fails(OP(linalg_inv, full), "LU factorization failed with error code 2");
    check_fails(OP(linalg_solve, full, OP(ones, INTS(3), MLX_FLOAT32)), "singular");
    check_fails(OP(linalg_tri_inv, zero, true), "triangular inversion failed with error code 1");
    check_fails(OP(linalg_cholesky,
                   OP(negative, OP(linalg_inv, make(MLX_FLOAT32, SHAPE(1, 1), VALUES(2)))), false),
                "not positive definite");
    mlx_array nan = OP(multiply, full, scalar(MLX_FLOAT32, NAN)), parts[3];
    check_fails(OP(linalg_eigvalsh, nan, "L"), "Eigenvalue decomposition failed");
    OPV(parts, linalg_svd, nan, true);
    check_fails(parts[0], "SVD failed");
    mlx_array complex_nan = OP(astype, nan, MLX_COMPLEX64);
    check_fails(OP(linalg_eigvalsh, complex_nan, "L"), "Eigenvalue decomposition failed");
    OPV(parts, linalg_svd, complex_nan, true);
    check_fails(parts[0], "SVD failed");
    mlx_array square = OP(linalg_inv, nan);
    assert_int_equal(mlx_array_eval(square), 0);
}

static void test_bad_arguments_are_refused(void **state) {
    (void)state;
    mlx_array line = OP(ones, INTS(3), MLX_FLOAT32), wide = OP(ones, INTS(2, 3), MLX_FLOAT32);
    mlx_array whole = OP(ones, INTS(2, 2), MLX_INT32), square = OP(ones, INTS(2, 2), MLX_FLOAT32);
    FAILS("float32 or float64", linalg_inv, whole);
    FAILS(">= 2 dimensions", linalg_inv, line);
    FAILS("float32, float64 or complex64", linalg_eigvalsh, whole, "L");
    FAILS("float32 or float64", linalg_inv, OP(astype, whole, MLX_COMPLEX64));
    FAILS("float32 or float64", linalg_pinv, OP(astype, whole, MLX_COMPLEX64));
    FAILS("square", linalg_inv, wide);
    FAILS("square", linalg_cholesky, wide, false);
    FAILS("square", linalg_eigvalsh, wide, "L");
    FAILS("UPLO must be", linalg_eigvalsh, square, "X");
    FAILS("UPLO must be", linalg_eigvalsh, square, NULL);
    FAILS("square matrix", linalg_solve, wide, wide);
    FAILS("must match", linalg_solve, square, line);
    FAILS(">= 1 dimensions", linalg_solve, square, scalar(MLX_FLOAT32, 1));
    FAILS("promote to float32 or float64", linalg_solve, whole, whole);
    FAILS(">= 2 dimensions", linalg_pinv, line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_inverse_and_solve),
        TEST(test_triangles),
        TEST(test_cholesky),
        TEST(test_lu),
        TEST(test_qr),
        TEST(test_svd),
        TEST(test_pinv),
        TEST(test_eigh),
        TEST(test_complex_svd),
        TEST(test_complex_eigh),
        TEST(test_cross),
        TEST(test_bad_matrices_are_errors),
        TEST(test_bad_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
