/* Scans, combining and dynamic slice updates, strided views and diagonals, with
 * their gradients. Values by mlx 0.31.2 on the CPU. */
#include "grad_check.h"

static void test_scans(void **state) {
    (void)state;
    mlx_array x = make(MLX_INT32, SHAPE(2, 3), VALUES(3, 1, 2, -1, 4, 2));
    check(OP(cumprod, x, 1, false, true), 3, 3, 6, -1, -4, -8);
    check(OP(cumprod, x, 1, true, false), 2, 2, 1, 8, 2, 1);
    check(OP(cumprod, x, 0, false, true), 3, 1, 2, -3, 4, 4);
    check(OP(cummax, x, -1, false, true), 3, 3, 3, -1, 4, 4);
    check(OP(cummax, x, 1, false, false), -2147483648.0, 3, 3, -2147483648.0, -1, 4);
    check(OP(cummin, x, 1, true, true), 1, 1, 2, -1, 2, 2);
    check(OP(cummin, x, 1, true, false), 1, 2, 2147483647.0, 2, 2, 2147483647.0);
    mlx_array t = OP(transpose, OP(astype, x, MLX_FLOAT32));
    check(OP(cummax, t, 0, true, true), 3, 4, 2, 4, 2, 2);
    check(OP(cummin, t, 1, false, false), INFINITY, 3, INFINITY, 1, INFINITY, 2);
    FAILS("out of bounds", cumprod, x, 2, false, true);
}

static void test_scans_keep_the_dtype(void **state) {
    (void)state;
    mlx_array flags = make(MLX_BOOL, SHAPE(3), VALUES(1, 0, 1));
    check_shape(OP(cumprod, flags, 0, false, true), MLX_BOOL, SHAPE(3));
    check(OP(cumprod, flags, 0, false, true), 1, 0, 0);
    check(OP(cummax, flags, 0, false, false), 0, 1, 1);
    check_shape(OP(cumsum, flags, 0, false, true), MLX_INT32, SHAPE(3));
    mlx_array bytes = make(MLX_INT8, SHAPE(3), VALUES(100, 2, 1));
    check(OP(cumprod, bytes, 0, false, true), 100, -56, -56);
    mlx_array half = make(MLX_FLOAT16, SHAPE(3), VALUES(3, 1, 2));
    check(OP(logcumsumexp, half, 0, false, true), 3, 3.126953125, 3.408203125);
    check(OP(logcumsumexp, half, 0, false, false), -INFINITY, 3, 3.126953125);
    check_shape(OP(cumprod, OP(zeros, INTS(2, 0), MLX_FLOAT32), 1, false, true), MLX_FLOAT32,
                SHAPE(2, 0));
}

static void test_extreme_scans_keep_nan(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(4), VALUES(1, NAN, 3, 0));
    check(OP(cummax, x, 0, false, true), 1, NAN, NAN, NAN);
    check(OP(cummin, x, 0, true, true), NAN, NAN, 0, 0);
}

static void test_slice_updates_that_combine(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT16, SHAPE(2, 3));
    mlx_array u = make(MLX_FLOAT32, SHAPE(2), VALUES(3, 10));
    check(OP(slice_update_add, x, u, INTS(0, 0), INTS(2, 3), INTS(1, 2)), 3, 1, 12, 6, 4, 15);
    check(OP(slice_update_prod, x, u, INTS(0, 2), INTS(2, -4), INTS(1, -2)), 0, 1, 6, 30, 4, 15);
    check(OP(slice_update_max, x, u, INTS(0, 0), INTS(2, 2), INTS(1, 1)), 3, 10, 2, 3, 10, 5);
    check(OP(slice_update_min, x, u, INTS(1, 1), INTS(2, 3), INTS(1, 1)), 0, 1, 2, 3, 3, 5);
    check(OP(slice_update_add, x, x, INTS(0, 0), INTS(2, 3), INTS(1, 1)), 0, 2, 4, 6, 8, 10);
}

static void test_slices_at_computed_places(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(3, 4));
    mlx_array at = make(MLX_INT32, SHAPE(2), VALUES(2, 1));
    check(OP(slice_dynamic, x, at, INTS(1, 0), INTS(2, 2)), 6, 7, 10, 11);
    mlx_array u = make(MLX_INT32, SHAPE(1, 2), VALUES(-1, -2));
    check(OP(slice_update_dynamic, x, u, at, INTS(1, 0)), 0, 1, 2, 3, 4, 5, -1, -2, 8, 9, 10, 11);
    check(OP(slice_update_dynamic, x, u, scalar(MLX_UINT8, 2), INTS(-1)), 0, 1, -1, -2, 4, 5, 6, 7,
          8, 9, 10, 11);
    mlx_array y = OP(slice_dynamic, x, scalar(MLX_INT32, 3), INTS(1), INTS(3, 2));
    assert_int_equal(mlx_array_eval(y), 1);
    assert_non_null(strstr(last_error, "does not fit axis 1"));
    FAILS("does not match number of axes", slice_dynamic, x, at, INTS(0), INTS(1, 1));
    FAILS("integers", slice_dynamic, x, scalar(MLX_FLOAT32, 0), INTS(0), INTS(1, 1));
    FAILS("Invalid slice size", slice_dynamic, x, at, INTS(0, 1), INTS(4, 1));
}

static void test_as_strided(void **state) {
    (void)state;
    mlx_array x = OP(transpose, count_up(MLX_INT32, SHAPE(2, 3))); /* 0 3 / 1 4 / 2 5 */
    const int64_t strides[] = {2, 1}, back[] = {-1, 0};
    check(OP(as_strided, x, INTS(2, 3), strides, 2, 1), 3, 1, 4, 4, 2, 5);
    check(OP(as_strided, x, INTS(2, 2), back, 2, 5), 5, 5, 2, 2);
    FAILS("leaves", as_strided, x, INTS(3, 3), strides, 2, 0);
    FAILS("leaves", as_strided, x, INTS(2, 2), back, 2, 0);
    FAILS("Negative", as_strided, x, INTS(-1, 3), strides, 2, 0);
    FAILS("as many strides", as_strided, x, INTS(2), strides, 2, 0);
}

static void test_diagonals(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT16, SHAPE(2, 3));
    check(OP(diagonal, x, 1, 0, 1), 1, 5);
    check(OP(diagonal, x, -1, 0, 1), 3);
    check(OP(diagonal, OP(transpose, x), 1, 0, 1), 3);
    mlx_array none = OP(diagonal, x, 5, 0, 1);
    check_shape(none, MLX_INT16, SHAPE(0));
    mlx_array cube = count_up(MLX_INT16, SHAPE(2, 2, 2));
    check(OP(diagonal, cube, 0, 0, 2), 0, 5, 2, 7);
    check(OP(diag, x, 0), 0, 4);
    check(OP(diag, make(MLX_BFLOAT16, SHAPE(2), VALUES(3, 4)), -1), 0, 0, 0, 3, 0, 0, 0, 4, 0);
    mlx_array sum = OP(trace, cube, 0, -1, 0, MLX_FLOAT32);
    check_shape(sum, MLX_FLOAT32, SHAPE(2));
    check(sum, 5, 9);
    check(OP(eye, 2, 3, 1, MLX_FLOAT16), 0, 1, 0, 0, 0, 1);
    check(OP(eye, 3, 2, -2, MLX_UINT8), 0, 0, 0, 0, 1, 0);
    check(OP(eye, 1, 2, 9, MLX_UINT8), 0, 0);
    check(OP(identity, 2, MLX_INT64), 1, 0, 0, 1);
    FAILS("cannot be the same", diagonal, x, 0, 1, -1);
    FAILS("at least two", trace, scalar(MLX_INT8, 1), 0, 0, 1, MLX_INT8);
    FAILS("1-D or 2-D", diag, cube, 0);
    FAILS("positive", eye, -1, 2, 0, MLX_INT8);
}

#define SCAN_OF(name)                                                    \
    static mlx_array name##_of(const mlx_array *x) {                     \
        return OP(name, x[0], 1, false, true);                           \
    }                                                                    \
    static mlx_array reverse_exclusive_##name##_of(const mlx_array *x) { \
        return OP(name, x[0], 1, true, false);                           \
    }
SCAN_OF(cumprod)
SCAN_OF(logcumsumexp)
static mlx_array exclusive_cumprod_of(const mlx_array *x) {
    return OP(cumprod, x[0], 0, false, false);
}
static mlx_array cummax_of(const mlx_array *x) {
    return OP(cummax, x[0], 1, false, true);
}
static mlx_array cummin_of(const mlx_array *x) {
    return OP(cummin, x[0], 1, true, true);
}
/* The first of an exclusive scan is infinite. */
static mlx_array exclusive_cummax_of(const mlx_array *x) {
    return OP(maximum, OP(cummax, x[0], 1, true, false), scalar(MLX_FLOAT64, -9));
}
static mlx_array finite_logcumsumexp_of(const mlx_array *x) {
    return OP(slice, reverse_exclusive_logcumsumexp_of(x), INTS(0, 0), INTS(2, 2), INTS(1, 1));
}

static void test_gradients_of_scans(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, -.7, 1.2, -1.9, .05, 2.4));
    mlx_array z = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, 0, 1.2, 0, .05, 0));
    const GradFunction smooth[] = {cumprod_of, reverse_exclusive_cumprod_of, exclusive_cumprod_of,
                                   logcumsumexp_of};
    for (int i = 0; i < 4; i++) check_gradients(smooth[i], &x, 1);
    for (int i = 0; i < 3; i++) check_gradient(smooth[i], &z, 1, 1e-6, 1e-7);
    check_gradients(finite_logcumsumexp_of, &x, 1);
    check_gradients(cummax_of, &x, 1);
    check_gradients(cummin_of, &x, 1);
    check_gradients(exclusive_cummax_of, &x, 1);
}

#define UPDATE_OF(name)                                                      \
    static mlx_array name##_of(const mlx_array *x) {                         \
        return OP(name, x[0], x[1], INTS(1, 2), INTS(-3, -4), INTS(-1, -2)); \
    }
UPDATE_OF(slice_update_add)
UPDATE_OF(slice_update_prod)
UPDATE_OF(slice_update_max)
UPDATE_OF(slice_update_min)
static mlx_array dynamic_of(const mlx_array *x) {
    return OP(slice_dynamic, x[0], scalar(MLX_INT32, 1), INTS(1), INTS(2, 2));
}
static mlx_array dynamic_update_of(const mlx_array *x) {
    return OP(slice_update_dynamic, x[0], x[1], scalar(MLX_INT32, 1), INTS(1));
}
static mlx_array strided_of(const mlx_array *x) {
    const int64_t strides[] = {1, 2};
    return OP(as_strided, OP(transpose, x[0]), INTS(3, 2), strides, 2, 1);
}
static mlx_array diagonal_of(const mlx_array *x) {
    return OP(diagonal, x[0], 1, 0, 1);
}
static mlx_array matrix_of(const mlx_array *x) {
    return OP(diag, OP(flatten, x[0], 0, -1), -1);
}
static mlx_array trace_of(const mlx_array *x) {
    return OP(trace, x[0], 0, 1, 0, MLX_FLOAT64);
}

static void test_gradients_of_slices_and_views(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, -.7, 1.2, -1.9, .05, 2.4));
    mlx_array u = make(MLX_FLOAT64, SHAPE(2, 2), VALUES(.8, -.9, -1.1, .7));
    const GradFunction updates[] = {slice_update_add_of, slice_update_prod_of, slice_update_max_of,
                                    slice_update_min_of, dynamic_update_of};
    for (int i = 0; i < 5; i++) check_gradients(updates[i], (mlx_array[]){x, u}, 2);
    const GradFunction views[] = {dynamic_of, strided_of, diagonal_of, matrix_of, trace_of};
    for (int i = 0; i < 5; i++) check_gradients(views[i], &x, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_scans),
        TEST(test_scans_keep_the_dtype),
        TEST(test_extreme_scans_keep_nan),
        TEST(test_slice_updates_that_combine),
        TEST(test_slices_at_computed_places),
        TEST(test_as_strided),
        TEST(test_diagonals),
        TEST(test_gradients_of_scans),
        TEST(test_gradients_of_slices_and_views),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
