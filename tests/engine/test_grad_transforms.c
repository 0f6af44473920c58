/* mlx_vjp and mlx_value_and_grad: what goes in, what comes out, what fails.
 * Expected values and messages: mlx 0.31.2. */
#include "grad_check.h"

/* ---- functions of two vectors or more ---- */

static mlx_array at(const mlx_vector_array list, size_t i) {
    mlx_array item = mlx_array_new();
    assert_int_equal(mlx_vector_array_get(&item, list, i), 0);
    return keep(item);
}

static int give(mlx_vector_array *res, const mlx_array *arrays, size_t n) {
    return mlx_vector_array_set_data(res, arrays, n);
}

static int double_and_triple(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array x = at(input, 0);
    mlx_array two = scalar(MLX_INT32, 2), three = scalar(MLX_INT32, 3);
    return give(res, (mlx_array[]){OP(multiply, x, two), OP(multiply, x, three)}, 2);
}

static int stopped_and_triple(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array x = at(input, 0), three = scalar(MLX_INT32, 3);
    return give(res, (mlx_array[]){OP(stop_gradient, x), OP(multiply, x, three)}, 2);
}

static int twice(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array y = OP(multiply, at(input, 0), scalar(MLX_INT32, 2));
    return give(res, &y, 1);
}

static int identity(mlx_vector_array *res, const mlx_vector_array input) {
    return mlx_vector_array_set(res, input);
}

static int failing(mlx_vector_array *res, const mlx_vector_array input) {
    (void)res, (void)input;
    return 3;
}

/* sum(a^2 * b), and a as a second value. */
static int squares(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array a = at(input, 0), b = at(input, 1);
    mlx_array product = OP(multiply, OP(square, a), b);
    return give(res, (mlx_array[]){OP(sum, product, false), a}, 2);
}

/* ---- calls ---- */

static mlx_vector_array values, grads;

static int run_vjp(int (*fun)(mlx_vector_array *, const mlx_vector_array), const mlx_array *primals,
                   size_t n, const mlx_array *cotangents, size_t n_cot) {
    mlx_closure closure = mlx_closure_new_func(fun);
    mlx_vector_array inputs = vector_of(primals, n), incoming = vector_of(cotangents, n_cot);
    last_error[0] = 0;
    const int status = mlx_vjp(&values, &grads, closure, inputs, incoming);
    mlx_vector_array_free(inputs);
    mlx_vector_array_free(incoming);
    mlx_closure_free(closure);
    return status;
}

static int run_value_and_grad(int (*fun)(mlx_vector_array *, const mlx_vector_array),
                              const mlx_array *primals, size_t n, const int *argnums,
                              size_t n_argnums) {
    mlx_closure closure = mlx_closure_new_func(fun);
    mlx_closure_value_and_grad derived = mlx_closure_value_and_grad_new();
    last_error[0] = 0;
    int status = mlx_value_and_grad(&derived, closure, argnums, n_argnums);
    mlx_closure_free(closure);
    if (status == 0) {
        mlx_vector_array inputs = vector_of(primals, n);
        status = mlx_closure_value_and_grad_apply(&values, &grads, derived, inputs);
        mlx_vector_array_free(inputs);
    }
    mlx_closure_value_and_grad_free(derived);
    return status;
}

static int release_lists(void **state) {
    mlx_vector_array_free(values);
    mlx_vector_array_free(grads);
    values = grads = (mlx_vector_array){NULL};
    return release_all(state);
}

#define assert_says(text) \
    if (!strstr(last_error, text)) fail_msg("\"%s\" does not say \"%s\"", last_error, text)

/* ---- vjp ---- */

static void test_vjp_gives_all_outputs_and_a_gradient_for_each_primal(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(3), VALUES(1, 2, 3));
    mlx_array one = make(MLX_FLOAT32, SHAPE(3), VALUES(1, 1, 1));
    assert_int_equal(run_vjp(double_and_triple, (mlx_array[]){x, x}, 2, (mlx_array[]){one, x}, 2),
                     0);
    assert_int_equal(mlx_vector_array_size(values), 2);
    assert_int_equal(mlx_vector_array_size(grads), 2);
    check(at(values, 1), 3, 6, 9);
    check(at(grads, 0), 5, 8, 11);
    check(at(grads, 1), 0, 0, 0); /* nothing depends on it */
}

static void test_vjp_skips_outputs_behind_stop_gradient(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(3), VALUES(1, 2, 3));
    assert_int_equal(run_vjp(stopped_and_triple, &x, 1, &x, 1), 0);
    check(at(grads, 0), 3, 6, 9);
}

static void test_vjp_of_identity_and_of_integers(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT16, SHAPE(2), VALUES(1, 2));
    assert_int_equal(run_vjp(identity, &x, 1, &x, 1), 0);
    check(at(grads, 0), 1, 2);
    mlx_array whole = make(MLX_INT32, SHAPE(2), VALUES(1, 2));
    assert_int_equal(run_vjp(twice, &whole, 1, &x, 1), 0);
    check_shape(at(grads, 0), MLX_INT32, SHAPE(2));
    check(at(grads, 0), 2, 4);
}

static void test_vjp_refuses_cotangents_that_do_not_fit(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(3), VALUES(1, 2, 3));
    mlx_array pair = make(MLX_FLOAT32, SHAPE(2), VALUES(1, 2));
    assert_int_equal(run_vjp(double_and_triple, &x, 1, &x, 1), 1);
    assert_says("[vjp] Number of outputs to compute gradients for (2) does not match number of "
                "cotangents (1).");
    assert_null(values.ctx);
    assert_null(grads.ctx);
    assert_int_equal(run_vjp(twice, &x, 1, &pair, 1), 1);
    assert_says("[vjp] Output shape (3) does not match cotangent shape (2).");
    assert_int_equal(run_vjp(failing, &x, 1, &x, 1), 1);
    assert_says("mlx_closure returned a non-zero value");
    assert_int_equal(run_vjp(twice, &x, 1, &x, 1), 0); /* nothing is left behind */
    check(at(grads, 0), 2, 4, 6);
}

static int reinterpret(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array y = OP(view, at(input, 0), MLX_INT32);
    return give(res, &y, 1);
}

static void test_an_operation_without_a_rule_is_an_error(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(1), VALUES(1));
    assert_int_equal(run_vjp(reinterpret, &x, 1, &x, 1), 1);
    assert_says("[Primitive::vjp] Not implemented for view");
}

/* ---- value_and_grad ---- */

static void test_value_and_grad_orders_and_checks_arguments(void **state) {
    (void)state;
    mlx_array a = make(MLX_FLOAT32, SHAPE(2), VALUES(1, 2));
    mlx_array inputs[] = {a, make(MLX_FLOAT32, SHAPE(2), VALUES(3, 5))};
    assert_int_equal(run_value_and_grad(squares, inputs, 2, INTS(1, 0)), 0);
    check(at(values, 0), 23);
    check(at(values, 1), 1, 2);
    check(at(grads, 0), 6, 20); /* with respect to a, though asked for second */
    check(at(grads, 1), 1, 4);
    assert_int_equal(run_value_and_grad(squares, inputs, 2, INTS(-1)), 0);
    assert_int_equal(mlx_vector_array_size(grads), 1);
    check(at(grads, 0), 1, 4);

    assert_int_equal(run_value_and_grad(squares, inputs, 2, INTS(1, -1)), 1);
    assert_says("[grad] Repeat argument number not allowed in grad.");
    assert_int_equal(run_value_and_grad(squares, inputs, 2, INTS(2)), 1);
    assert_says("[grad] Invalid argument number for function with 2 inputs.");
    assert_int_equal(run_value_and_grad(squares, inputs, 2, INTS(-3)), 1);
    assert_int_equal(run_value_and_grad(squares, inputs, 2, NULL, 0), 1);
    assert_says("[grad] Must specify at least one argument.");
    mlx_array single = make(MLX_FLOAT32, SHAPE(1), VALUES(3));
    assert_int_equal(run_value_and_grad(identity, &single, 1, INTS(0)), 1);
    assert_says("If you are using grad your function must return a scalar.");
    assert_int_equal(run_value_and_grad(failing, inputs, 2, INTS(0)), 1);
    assert_says("mlx_closure returned a non-zero value");
}

/* ---- nesting, reading, depth ---- */

static mlx_array cube(const mlx_array *x) {
    return OP(multiply, OP(square, x[0]), x[0]);
}

static mlx_array cube_slope(const mlx_array *x) {
    mlx_array slope;
    gradients(cube, x, 1, scalar(MLX_FLOAT64, 1), &slope);
    return slope;
}

static mlx_array cube_bend(const mlx_array *x) {
    mlx_array bend;
    gradients(cube_slope, x, 1, scalar(MLX_FLOAT64, 1), &bend);
    return bend;
}

static void test_transforms_nest(void **state) {
    (void)state;
    mlx_array x = scalar(MLX_FLOAT64, 5), third;
    check(cube_slope(&x), 75);
    check(cube_bend(&x), 30);
    gradients(cube_bend, &x, 1, scalar(MLX_FLOAT64, 1), &third);
    check(third, 6);
}

/* Values are read on the way, so nodes are ready before the walk back. */
static mlx_array nosy(const mlx_array *x) {
    mlx_array a = OP(exp, x[0]), b = OP(multiply, a, a), c = OP(add, b, x[0]);
    assert_int_equal(mlx_array_eval(c), 0);
    mlx_array d = OP(sin, c);
    doubles(d);
    return OP(multiply, d, a);
}

static void test_values_may_be_read_inside_a_transform(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(3), VALUES(.1, .2, -.4));
    check_gradients(nosy, &x, 1);
}

static mlx_array deep(const mlx_array *x) {
    mlx_array y = mlx_array_new(), one = mlx_array_new_double(1);
    mlx_array_set(&y, x[0]);
    for (int i = 0; i < 100000; i++) mlx_add(&y, y, one, cpu);
    mlx_array_free(one);
    return keep(y);
}

static void test_deep_graphs_need_no_stack(void **state) {
    (void)state;
    mlx_array x = scalar(MLX_FLOAT64, 5), slope;
    gradients(deep, &x, 1, scalar(MLX_FLOAT64, 2), &slope);
    check(slope, 2);
}

/* A value kept past the transform is an ordinary array. */
static mlx_array leaked;
static mlx_array leaking(const mlx_array *x) {
    mlx_array y = OP(exp, x[0]);
    mlx_array_set(&leaked, y);
    return OP(square, y);
}

static void test_values_may_outlive_the_transform(void **state) {
    (void)state;
    mlx_array x = scalar(MLX_FLOAT64, 0), slope;
    leaked = mlx_array_new();
    gradients(leaking, &x, 1, scalar(MLX_FLOAT64, 1), &slope);
    check(slope, 2);
    check(leaked, 1);
    check(OP(add, leaked, leaked), 2);
    mlx_array_free(leaked);
}

static void test_a_transform_holds_no_memory_afterwards(void **state) {
    (void)state;
    mlx_array x = OP(sin, count_up(MLX_FLOAT64, SHAPE(1000)));
    mlx_array_eval(x);
    size_t before, after;
    for (int i = 0; i < 20; i++) {
        const int mark = n_kept;
        mlx_array slope;
        gradients(nosy, &x, 1, x, &slope);
        mlx_array_eval(slope);
        release_to(mark);
        mlx_get_active_memory(i ? &after : &before);
    }
    assert_int_equal(after, before);
}

static mlx_array halves(const mlx_array *x) {
    mlx_array parts[3];
    OPV(parts, split, x[0], 3, 1);
    return OP(multiply, parts[0], OP(exp, parts[2]));
}

static void test_parts_reach_their_operation_together(void **state) {
    (void)state;
    mlx_array x = OP(sin, count_up(MLX_FLOAT64, SHAPE(2, 6)));
    check_gradients(halves, &x, 1);
}

int main(void) {
#define LIST_TEST(name) cmocka_unit_test_teardown(name, release_lists)
    const struct CMUnitTest tests[] = {
        LIST_TEST(test_vjp_gives_all_outputs_and_a_gradient_for_each_primal),
        LIST_TEST(test_vjp_skips_outputs_behind_stop_gradient),
        LIST_TEST(test_vjp_of_identity_and_of_integers),
        LIST_TEST(test_vjp_refuses_cotangents_that_do_not_fit),
        LIST_TEST(test_an_operation_without_a_rule_is_an_error),
        LIST_TEST(test_value_and_grad_orders_and_checks_arguments),
        TEST(test_transforms_nest),
        TEST(test_values_may_be_read_inside_a_transform),
        TEST(test_deep_graphs_need_no_stack),
        TEST(test_values_may_outlive_the_transform),
        TEST(test_a_transform_holds_no_memory_afterwards),
        TEST(test_parts_reach_their_operation_together),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
