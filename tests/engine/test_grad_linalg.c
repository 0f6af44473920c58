/* Gradient rules of linear algebra, first and second order, against central
 * differences in float64. */
#include "grad_check.h"

static mlx_array matrices(const int *shape, int ndim) {
    int size = 1;
    for (int i = 0; i < ndim; i++) size *= shape[i];
    double *values = malloc((size_t)size * sizeof *values);
    const int n = shape[ndim - 1], m = ndim > 1 ? shape[ndim - 2] : 1;
    for (int i = 0; i < size; i++) values[i] = sin(1.9 * i + 1) + (i % n == i / n % m ? 3 : 0);
    mlx_array array = make(MLX_FLOAT64, shape, ndim, values, (size_t)size);
    free(values);
    return array;
}

static mlx_array inverse_of(const mlx_array *x) {
    return OP(linalg_inv, x[0]);
}
static mlx_array lower_inverse_of(const mlx_array *x) {
    return OP(linalg_tri_inv, x[0], false);
}
static mlx_array upper_inverse_of(const mlx_array *x) {
    return OP(linalg_tri_inv, x[0], true);
}
static mlx_array solve_of(const mlx_array *x) {
    return OP(linalg_solve, x[0], x[1]);
}
static mlx_array solve_triangular_of(const mlx_array *x) {
    return OP(linalg_solve_triangular, x[0], x[1], true);
}
/* The gradient belongs to symmetric changes. */
static mlx_array positive_of(const mlx_array *x) {
    return OP(matmul, x[0], OP(swapaxes, x[0], -1, -2));
}
static mlx_array lower_of(const mlx_array *x) {
    return OP(linalg_cholesky, positive_of(x), false);
}
static mlx_array upper_of(const mlx_array *x) {
    return OP(linalg_cholesky, positive_of(x), true);
}
static mlx_array cross_of(const mlx_array *x) {
    return OP(linalg_cross, x[0], x[1], -1);
}

static void test_inverses(void **state) {
    (void)state;
    mlx_array x = matrices(SHAPE(2, 3, 3));
    check_gradients(inverse_of, &x, 1);
    check_gradients(lower_inverse_of, &x, 1);
    check_gradients(upper_inverse_of, &x, 1);
}

static void test_solutions(void **state) {
    (void)state;
    mlx_array a = matrices(SHAPE(2, 3, 3)), b = matrices(SHAPE(3, 2));
    check_gradients(solve_of, (mlx_array[]){a, b}, 2);
    check_gradients(solve_of, (mlx_array[]){a, matrices(SHAPE(3))}, 2);
    check_gradients(solve_triangular_of, (mlx_array[]){a, b}, 2);
}

static void test_cholesky(void **state) {
    (void)state;
    mlx_array x = matrices(SHAPE(2, 3, 3));
    check_gradients(lower_of, &x, 1);
    check_gradients(upper_of, &x, 1);
}

static void test_cross(void **state) {
    (void)state;
    mlx_array a = matrices(SHAPE(2, 3)), b = matrices(SHAPE(3)), c = matrices(SHAPE(2, 2));
    check_gradients(cross_of, (mlx_array[]){a, b}, 2);
    check_gradients(cross_of, (mlx_array[]){c, b}, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_inverses),
        TEST(test_solutions),
        TEST(test_cholesky),
        TEST(test_cross),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
