/* Gradient rules of element-wise operations, casts, views, slices, reductions
 * and scans, first and second order, against central differences in float64. */
#include "grad_check.h"

#define UNARY(name)                                  \
    static mlx_array name##_of(const mlx_array *x) { \
        return OP(name, x[0]);                       \
    }
#define BINARY(name)                                 \
    static mlx_array name##_of(const mlx_array *x) { \
        return OP(name, x[0], x[1]);                 \
    }
UNARY(abs)
UNARY(arccos)
UNARY(arccosh)
UNARY(arcsin)
UNARY(arcsinh)
UNARY(arctan)
UNARY(arctanh)
UNARY(cos)
UNARY(cosh)
UNARY(erf)
UNARY(exp)
UNARY(expm1)
UNARY(log)
UNARY(log10)
UNARY(log1p)
UNARY(log2)
UNARY(negative)
UNARY(reciprocal)
UNARY(rsqrt)
UNARY(sigmoid)
UNARY(sin)
UNARY(sinh)
UNARY(sqrt)
UNARY(square)
UNARY(tan)
UNARY(tanh)
UNARY(erfinv)
BINARY(add)
BINARY(subtract)
BINARY(multiply)
BINARY(divide)
BINARY(maximum)
BINARY(minimum)
BINARY(power)
BINARY(remainder)
BINARY(logaddexp)

static void test_unary_rules(void **state) {
    (void)state;
    static const GradFunction any[] = {abs_of,      cos_of,     erf_of,  exp_of,    expm1_of,
                                       negative_of, sigmoid_of, sin_of,  square_of, tanh_of,
                                       arcsinh_of,  arctan_of,  cosh_of, sinh_of,   tan_of};
    static const GradFunction positive[] = {log_of,  log1p_of, reciprocal_of, rsqrt_of,
                                            sqrt_of, log2_of,  log10_of};
    static const GradFunction inside[] = {arccos_of, arcsin_of, arctanh_of, erfinv_of};
    mlx_array x = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, -.7, 1.2, -1.9, .05, 2.4));
    mlx_array y = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, .7, 1.2, 1.9, .5, 2.4));
    for (size_t i = 0; i < sizeof any / sizeof any[0]; i++) check_gradients(any[i], &x, 1);
    for (size_t i = 0; i < sizeof positive / sizeof positive[0]; i++)
        check_gradients(positive[i], &y, 1);
    mlx_array u = make(MLX_FLOAT64, SHAPE(3), VALUES(.3, -.7, .05));
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) check_gradients(inside[i], &u, 1);
    mlx_array v = make(MLX_FLOAT64, SHAPE(2), VALUES(1.3, 2.7));
    check_gradients(arccosh_of, &v, 1);
}

static void test_binary_rules_with_broadcasting(void **state) {
    (void)state;
    static const GradFunction all[] = {add_of,    subtract_of,  multiply_of,
                                       divide_of, maximum_of,   minimum_of,
                                       power_of,  remainder_of, logaddexp_of};
    mlx_array a = make(MLX_FLOAT64, SHAPE(2, 1, 3), VALUES(.3, .75, 1.1, 1.9, .55, 2.5));
    mlx_array b = make(MLX_FLOAT64, SHAPE(2, 1), VALUES(.8, 1.4));
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        check_gradients(all[i], (mlx_array[]){a, b}, 2);
        check_gradients(all[i], (mlx_array[]){b, a}, 2);
    }
}

/* Ties, zeros and steps; values by mlx 0.31.2. */
static void test_special_points_of_elementwise_rules(void **state) {
    (void)state;
    mlx_array g[2], one = make(MLX_FLOAT32, SHAPE(3), VALUES(1, 1, 1));
    mlx_array x = make(MLX_FLOAT32, SHAPE(3), VALUES(1, 2, 3));
    gradients(maximum_of, (mlx_array[]){x, x}, 2, one, g);
    check(g[0], 0, 0, 0);
    check(g[1], 1, 1, 1);
    gradients(minimum_of, (mlx_array[]){x, x}, 2, one, g);
    check(g[0], 0, 0, 0);
    check(g[1], 1, 1, 1);
    mlx_array zero = make(MLX_FLOAT32, SHAPE(3), VALUES(0, 0, 0));
    gradients(abs_of, &zero, 1, one, g);
    check(g[0], 0, 0, 0);
    mlx_array exponents = make(MLX_FLOAT32, SHAPE(3), VALUES(0, 1, 2));
    gradients(power_of, (mlx_array[]){zero, exponents}, 2, one, g);
    check(g[0], NAN, 1, 0);
    check(g[1], -INFINITY, 0, 0);
    mlx_array whole = make(MLX_INT32, SHAPE(3), VALUES(1, 2, 3));
    gradients(power_of, (mlx_array[]){whole, whole}, 2, one, g);
    check(g[0], 1, 4, 27);
}

static mlx_array zero_rules(const mlx_array *x) {
    mlx_array truth = OP(logical_and, OP(greater, x[0], x[1]), OP(isnan, x[0]));
    mlx_array steps = OP(add, OP(floor, x[0]), OP(add, OP(ceil, x[1]), OP(sign, x[0])));
    steps = OP(add, steps, OP(add, OP(round, x[0], 0), OP(floor_divide, x[0], x[1])));
    steps = OP(add, steps, OP(argmax_axis, x[0], 0, true));
    steps = OP(add, steps, OP(argsort_axis, x[0], 0));
    return OP(where, truth, steps, OP(add, steps, OP(astype, truth, MLX_FLOAT64)));
}

static void test_steps_have_no_gradient(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(3), VALUES(.3, .7, 1.2));
    mlx_array y = make(MLX_FLOAT64, SHAPE(3), VALUES(.6, 1.4, .9));
    check_gradient(zero_rules, (mlx_array[]){x, y}, 2, 1e-6, 0);
}

static mlx_array select_of(const mlx_array *x) {
    mlx_array condition = OP(less, x[2], scalar(MLX_INT32, 2));
    mlx_array clipped = OP(clip, x[0], scalar(MLX_FLOAT64, -.5), scalar(MLX_FLOAT64, 1));
    return OP(where, condition, clipped, x[1]);
}

static void test_select_and_clip(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, -.7, 1.2, -1.9, .05, 2.4));
    mlx_array y = make(MLX_FLOAT64, SHAPE(3), VALUES(.6, 1.4, .9));
    mlx_array which = make(MLX_INT32, SHAPE(2, 1), VALUES(1, 3));
    check_gradients(select_of, (mlx_array[]){x, y, which}, 3);
}

static mlx_array cast_of(const mlx_array *x) {
    return OP(sin, OP(astype, OP(square, x[0]), MLX_FLOAT64));
}

static void test_casts_pass_gradients_back_in_the_dtype_they_came_from(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(3), VALUES(.3, .7, 1.2));
    check_gradient(cast_of, &x, 1, 1e-3, 1e-4);
}

/* ---- views, slices, joins ---- */

static mlx_array movements(const mlx_array *x) { /* x: [2, 3, 4] */
    mlx_array y = OP(reshape, x[0], INTS(3, 8));
    y = OP(transpose, OP(expand_dims_axes, y, INTS(0, 2))); /* [8, 1, 3, 1] */
    y = OP(squeeze_axis, OP(moveaxis, y, 2, 0), 3);         /* [3, 8, 1] */
    y = OP(broadcast_to, OP(swapaxes, y, 0, 1), INTS(2, 8, 3, 2));
    y = OP(contiguous, OP(copy, OP(flatten, y, 1, 2)), false); /* [2, 24, 2] */
    return OP(sin, OP(unflatten, y, 1, INTS(6, 4)));
}

static mlx_array slices(const mlx_array *x) { /* x: [2, 3, 4], update [2, 2] */
    mlx_array part = OP(slice, x[0], INTS(0, 2, 0), INTS(2, -4, 3), INTS(1, -1, 2)); /* [2, 3, 2] */
    mlx_array update = OP(multiply, x[1], x[1]);
    mlx_array whole = OP(slice_update, OP(square, part), OP(expand_dims, update, 1), INTS(0, 2, 0),
                         INTS(2, 0, 2), INTS(1, -2, 1));
    return OP(multiply, whole, whole);
}

static mlx_array joins(const mlx_array *x) { /* [2, 3], [2, 2] */
    mlx_vector_array both = vector_of(x, 2);
    mlx_array y = OP(concatenate_axis, both, 1); /* [2, 5] */
    mlx_vector_array_free(both);
    mlx_vector_array pair = vector_of((mlx_array[]){y, OP(sin, y)}, 2);
    y = OP(stack_axis, pair, 1); /* [2, 2, 5] */
    mlx_vector_array_free(pair);
    mlx_array parts[3];
    OPV(parts, split_sections, y, INTS(1, 4), 2);
    y = OP(multiply, OP(roll_axis, parts[1], INTS(1), 2), parts[2]);
    y = OP(pad, y, INTS(0, 2), INTS(1, 0), INTS(0, 2), OP(square, OP(sum, x[1], false)),
           "constant");
    return OP(square, OP(tile, OP(repeat_axis, y, 2, 1), INTS(1, 2)));
}

static void test_movement_rules(void **state) {
    (void)state;
    mlx_array x = OP(sin, count_up(MLX_FLOAT64, SHAPE(2, 3, 4)));
    check_gradients(movements, &x, 1);
    mlx_array update = make(MLX_FLOAT64, SHAPE(2, 2), VALUES(.3, .4, .5, -.6));
    check_gradients(slices, (mlx_array[]){x, update}, 2);
    mlx_array a = OP(sin, count_up(MLX_FLOAT64, SHAPE(2, 3)));
    check_gradients(joins, (mlx_array[]){a, update}, 2);
}

/* ---- reductions and scans ---- */

static mlx_array reductions(const mlx_array *x) {                   /* [2, 3, 4] */
    mlx_array y = OP(sum_axes, OP(square, x[0]), INTS(0, 2), true); /* [1, 3, 1] */
    y = OP(multiply, y, OP(mean_axis, OP(sin, x[0]), 1, true));     /* [2, 3, 4] */
    y = OP(multiply, y, OP(max_axis, x[0], 2, true));
    y = OP(multiply, y, OP(square, OP(min_axes, x[0], INTS(0, 1), false)));
    return OP(multiply, y, OP(mean, x[0], false));
}

static mlx_array softmaxes(const mlx_array *x) {
    mlx_array y = OP(multiply, OP(softmax_axis, x[0], -1, true), OP(softmax_axis, x[0], 0, false));
    y = OP(multiply, y, OP(logsumexp_axis, x[0], 2, true));
    y = OP(multiply, y, OP(logsumexp_axis, x[0], 1, true));
    y = OP(multiply, y, OP(softmax_axes, x[0], INTS(0, 1), true));
    return OP(multiply, y, OP(logsumexp, x[0], false));
}

static mlx_array scans(const mlx_array *x) {
    mlx_array y = OP(cumsum, OP(square, x[0]), 2, false, true);
    return OP(multiply, y, OP(cumsum, x[0], 1, true, false));
}

static void test_reductions_softmax_and_scans(void **state) {
    (void)state;
    mlx_array x = OP(sin, count_up(MLX_FLOAT64, SHAPE(2, 3, 4)));
    check_gradients(reductions, &x, 1);
    check_gradients(softmaxes, &x, 1);
    check_gradients(scans, &x, 1);
}

static mlx_array max_of(const mlx_array *x) {
    return OP(max, x[0], false);
}

static void test_ties_share_the_gradient_of_an_extreme(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(3), VALUES(2, 1, 2)), g;
    gradients(max_of, &x, 1, scalar(MLX_FLOAT32, 1), &g);
    check(g, .5, 0, .5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_unary_rules),
        TEST(test_binary_rules_with_broadcasting),
        TEST(test_special_points_of_elementwise_rules),
        TEST(test_steps_have_no_gradient),
        TEST(test_select_and_clip),
        TEST(test_casts_pass_gradients_back_in_the_dtype_they_came_from),
        TEST(test_movement_rules),
        TEST(test_reductions_softmax_and_scans),
        TEST(test_ties_share_the_gradient_of_an_extreme),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
