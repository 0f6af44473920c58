/* Statistics, norms, grids, windows, and the reductions and orders without an
 * axis. Values by mlx 0.31.2 on the CPU where they are not plain arithmetic. */
#include "grad_check.h"

static void test_products(void **state) {
    (void)state;
    mlx_array x = make(MLX_INT8, SHAPE(2, 3), VALUES(3, 1, 2, -100, 4, 2));
    check(OP(prod, x, false), -4800);
    check(OP(prod_axis, x, -2, true), -300, 4, 4);
    check(OP(prod_axes, x, INTS(1), false), 6, -800);
    check_shape(OP(prod_axes, x, INTS(1), false), MLX_INT32, SHAPE(2));
    check(OP(prod_axes, x, NULL, 0, false), 3, 1, 2, -100, 4, 2);
    check(OP(prod, OP(zeros, INTS(0), MLX_FLOAT16), false), 1);
    check(OP(all_axes, x, INTS(0, 1), false), 1);
    check(OP(any_axes, OP(zeros, INTS(2, 2), MLX_BFLOAT16), INTS(1), true), 0, 0);
}

static void test_variance_and_deviation(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(2, 3), VALUES(1, 2, 6, -1, 0, 1));
    check_near(OP(var_axis, x, 1, false, 0), VALUES(14.0 / 3, 2.0 / 3), 1e-6);
    check_near(OP(var_axis, x, -1, true, 1), VALUES(7, 1), 1e-6);
    check_near(OP(std_axes, x, INTS(0), false, 0), VALUES(1, 1, 2.5), 1e-6);
    check_near(OP(std, x, false, 1), VALUES(2.4289915602982237), 1e-6);
    check(OP(var, x, false, 6), INFINITY);
    check_shape(OP(var, OP(astype, x, MLX_INT16), false, 0), MLX_FLOAT32, NULL, 0);
    mlx_array half = OP(astype, OP(add, x, scalar(MLX_FLOAT32, 1000)), MLX_FLOAT16);
    check_shape(OP(var_axis, half, 1, false, 1), MLX_FLOAT16, SHAPE(2));
    check(OP(var_axis, half, 1, false, 1), 7, 1);
    FAILS("out of bounds", var_axis, x, 2, false, 0);
}

static void test_median(void **state) {
    (void)state;
    mlx_array x = make(MLX_INT32, SHAPE(2, 3), VALUES(7, 1, 3, 9, 2, 2));
    check(OP(median, x, INTS(1), false), 3, 2);
    check(OP(median, x, INTS(0), true), 8, 1.5, 2.5);
    check(OP(median, x, INTS(1, 0), false), 2.5);
    check_shape(OP(median, x, INTS(-1, 0), true), MLX_FLOAT32, SHAPE(1, 1));
    check(OP(median, make(MLX_FLOAT64, SHAPE(3), VALUES(1, NAN, 2)), INTS(0), false), NAN);
    FAILS("empty axis", median, OP(zeros, INTS(0, 2), MLX_INT8), INTS(0), false);
    FAILS("uplicate", median, x, INTS(0, -2), false);
    check(OP(number_of_elements, x, INTS(0, 1), false, MLX_INT64), 6);
    check(OP(number_of_elements, x, INTS(-2), true, MLX_FLOAT16), 0.5);
}

static void test_norms(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(3, -4, 0, 12));
    check(OP(linalg_norm_l2, x, NULL, 0, false), 13);
    check(OP(linalg_norm_l2, x, INTS(1), true), 5, 12);
    check(OP(linalg_norm_matrix, x, "fro", NULL, 0, false), 13);
    check(OP(linalg_norm, x, 0, INTS(1), false), 2, 1);
    check(OP(linalg_norm, x, 1, INTS(-1), false), 7, 12);
    check(OP(linalg_norm, x, INFINITY, INTS(0), false), 3, 12);
    check(OP(linalg_norm, x, -(double)INFINITY, INTS(0), false), 0, 4);
    check_near(OP(linalg_norm, x, 3, INTS(0), false), VALUES(3, 12.146367), 1e-6);
    check(OP(linalg_norm, x, 1, NULL, 0, false), 16);
    check(OP(linalg_norm, x, -1, NULL, 0, true), 3);
    check(OP(linalg_norm, x, INFINITY, INTS(0, 1), false), 12);
    check(OP(linalg_norm, x, INFINITY, INTS(-1, 0), false), 16);
    check(OP(linalg_norm, make(MLX_INT8, SHAPE(2), VALUES(3, -4)), 1, NULL, 0, false), 7);
    check_near(OP(linalg_norm, x, 2, NULL, 0, false), VALUES(12.6865165), 1e-6);
    check_near(OP(linalg_norm, x, -2, INTS(1, 0), true), VALUES(2.8376587), 1e-6);
    check_near(OP(linalg_norm_matrix, x, "nuc", NULL, 0, false), VALUES(15.5241747), 1e-6);
    FAILS("Invalid ord 3", linalg_norm, x, 3, NULL, 0, false);
    FAILS("too many axes", linalg_norm, count_up(MLX_FLOAT32, SHAPE(1, 1, 1)), 1, NULL, 0, false);
    FAILS("Invalid ord value 'x'", linalg_norm_matrix, x, "x", NULL, 0, false);
    FAILS("only supported for matrices", linalg_norm_matrix, x, "fro", INTS(0), false);
}

static void test_orders_of_all_items(void **state) {
    (void)state;
    mlx_array x = OP(transpose, make(MLX_INT16, SHAPE(2, 2), VALUES(4, 1, 3, 2))); /* 4 3 1 2 */
    check(OP(sort, x), 1, 2, 3, 4);
    check(OP(argsort, x), 2, 3, 1, 0);
    check(OP(sort, OP(topk, x, 2)), 3, 4);
    check(OP(slice, OP(partition, x, 1), INTS(1), INTS(2), INTS(1)), 2);
    check(OP(slice, OP(argpartition, x, -1), INTS(3), INTS(4), INTS(1)), 0);
    FAILS("invalid kth", partition, x, 4);
}

static void test_rolls_repeats_and_pads(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT8, SHAPE(2, 3));
    check(OP(roll, x, INTS(3, -2)), 5, 0, 1, 2, 3, 4);
    check(OP(roll_axes, x, INTS(1, -4), INTS(0, 1)), 4, 5, 3, 1, 2, 0);
    FAILS("At least one shift", roll_axes, x, INTS(1), INTS(0, 1));
    check(OP(repeat, OP(transpose, x), 2), 0, 0, 3, 3, 1, 1, 4, 4, 2, 2, 5, 5);
    check(OP(pad_symmetric, count_up(MLX_INT8, SHAPE(1, 1)), 1, scalar(MLX_INT8, 7), "constant"), 7,
          7, 7, 7, 0, 7, 7, 7, 7);
    check_shape(OP(atleast_1d, scalar(MLX_INT8, 1)), MLX_INT8, SHAPE(1));
    check_shape(OP(atleast_2d, count_up(MLX_INT8, SHAPE(4))), MLX_INT8, SHAPE(1, 4));
    check_shape(OP(atleast_3d, count_up(MLX_INT8, SHAPE(4))), MLX_INT8, SHAPE(1, 4, 1));
    check_shape(OP(atleast_3d, x), MLX_INT8, SHAPE(2, 3, 1));
}

static void test_grids(void **state) {
    (void)state;
    check(OP(linspace, 1, 3, 5, MLX_FLOAT16), 1, 1.5, 2, 2.5, 3);
    check(OP(linspace, 0, 4, 3, MLX_INT32), 0, 2, 4);
    check(OP(linspace, 7, 9, 1, MLX_FLOAT32), 7);
    FAILS("non-negative", linspace, 0, 1, -1, MLX_FLOAT32);
    mlx_array parts[2], a = count_up(MLX_INT32, SHAPE(3)), b = count_up(MLX_FLOAT32, SHAPE(2));
    mlx_vector_array both = vector_of((mlx_array[]){a, b}, 2);
    OPV(parts, meshgrid, both, false, "xy");
    check_shape(parts[0], MLX_INT32, SHAPE(2, 3));
    check(parts[0], 0, 1, 2, 0, 1, 2);
    check(parts[1], 0, 0, 0, 1, 1, 1);
    OPV(parts, meshgrid, both, true, "ij");
    check_shape(parts[0], MLX_INT32, SHAPE(3, 1));
    check_shape(parts[1], MLX_FLOAT32, SHAPE(1, 2));
    mlx_vector_array out = {NULL};
    assert_int_equal(mlx_meshgrid(&out, both, true, "xyz", cpu), 1);
    assert_non_null(strstr(last_error, "Valid values are"));
    mlx_vector_array_free(both);
    check(OP(kron, OP(reshape, a, INTS(3, 1)), OP(add, b, scalar(MLX_FLOAT32, 1))), 0, 0, 1, 2, 2,
          4);
    FAILS("empty", kron, a, OP(zeros, INTS(0), MLX_INT8));
}

static void test_windows(void **state) {
    (void)state;
    check(OP(bartlett, 5), 0, 0.5, 1, 0.5, 0);
    check_near(OP(hanning, 5), VALUES(0, 0.5, 1, 0.5, 0), 1e-6);
    check_near(OP(hamming, 5), VALUES(0.08, 0.54, 1, 0.54, 0.08), 1e-6);
    check_near(OP(blackman, 5), VALUES(0, 0.34, 1, 0.34, 0), 1e-6);
    check(OP(hamming, 1), 1);
    check_shape(OP(hanning, 0), MLX_FLOAT32, SHAPE(0));
}

static void test_closeness_and_replacing_nan(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(4), VALUES(1, INFINITY, NAN, -INFINITY));
    mlx_array y = make(MLX_FLOAT16, SHAPE(4), VALUES(1.0625, INFINITY, NAN, INFINITY));
    check(OP(isclose, x, y, 0.1, 0, false), 1, 1, 0, 0);
    check(OP(isclose, x, y, 1e-3, 0, true), 0, 1, 1, 0);
    const mlx_optional_float none = {0, false}, nine = {9, true};
    check(OP(nan_to_num, x, 2, none, none), 1, 3.4028234663852886e38, 2, -3.4028234663852886e38);
    check(OP(nan_to_num, OP(astype, x, MLX_FLOAT16), 2, nine, none), 1, 9, 2, -65504);
    check(OP(nan_to_num, scalar(MLX_INT8, 3), 2, none, none), 3);
}

static void test_quotients_and_angles(void **state) {
    (void)state;
    mlx_array parts[2], a = make(MLX_INT32, SHAPE(4), VALUES(-7, 7, -7, 7));
    mlx_array b = make(MLX_INT8, SHAPE(4), VALUES(2, -2, -2, 2));
    OPV(parts, divmod, a, b);
    check_shape(parts[0], MLX_INT32, SHAPE(4));
    check(parts[0], -4, -4, 3, 3);
    check(parts[1], 1, -1, -1, 1);
    OPV(parts, divmod, OP(astype, a, MLX_FLOAT16), b);
    check(parts[0], -4, -4, 3, 3);
    check(parts[1], 1, -1, -1, 1);
    check_near(
        OP(arctan2, a, b),
        VALUES(-1.2924966677897853, 1.8490959858000078, -1.8490959858000078, 1.2924966677897853),
        1e-6);
    FAILS("complex64", arctan2, keep(mlx_array_new_complex(1, 1)), a);
}

static mlx_array arctan2_of(const mlx_array *x) {
    return OP(arctan2, x[0], x[1]);
}
static mlx_array prod_of(const mlx_array *x) {
    return OP(prod_axes, x[0], INTS(1), false);
}
static mlx_array var_of(const mlx_array *x) {
    return OP(var_axis, x[0], 1, true, 1);
}
static mlx_array median_of(const mlx_array *x) {
    return OP(median, x[0], INTS(0), false);
}
static mlx_array norm_of(const mlx_array *x) {
    return OP(linalg_norm, x[0], 3, INTS(1), false);
}
static mlx_array kron_of(const mlx_array *x) {
    return OP(kron, x[0], x[1]);
}

static void test_gradients(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, -.7, 1.2, -1.9, .05, 2.4));
    mlx_array u = make(MLX_FLOAT64, SHAPE(3), VALUES(.8, -.9, 1.1));
    const GradFunction pairs[] = {arctan2_of, kron_of};
    const GradFunction singles[] = {prod_of, var_of, median_of, norm_of};
    for (int i = 0; i < 2; i++) check_gradients(pairs[i], (mlx_array[]){x, u}, 2);
    for (int i = 0; i < 4; i++) check_gradients(singles[i], &x, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_products),
        TEST(test_variance_and_deviation),
        TEST(test_median),
        TEST(test_norms),
        TEST(test_orders_of_all_items),
        TEST(test_rolls_repeats_and_pads),
        TEST(test_grids),
        TEST(test_windows),
        TEST(test_closeness_and_replacing_nan),
        TEST(test_quotients_and_angles),
        TEST(test_gradients),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
