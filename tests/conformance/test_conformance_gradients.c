/* Transforms one inside the other: gradients of gradients, rules of the caller,
 * checkpoints, and a step of AdamW. */
#include "conformance/check.h"

static int calls;

/* Closures in these tests: mlx functions on the first input, result in *res. */
#define FUNCTION(name, ...)                                             \
    static int name(mlx_vector_array *res, const mlx_vector_array in) { \
        mlx_array x = mlx_array_new(), y = mlx_array_new();             \
        calls++;                                                        \
        int failed = mlx_vector_array_get(&x, in, 0) || (__VA_ARGS__);  \
        *res = mlx_vector_array_new_value(y);                           \
        mlx_array_free(x);                                              \
        mlx_array_free(y);                                              \
        return failed;                                                  \
    }
FUNCTION(product, mlx_prod(&y, x, false, cpu))
FUNCTION(sum_of_cubes,
         mlx_square(&y, x, cpu) || mlx_multiply(&y, y, x, cpu) || mlx_sum(&y, y, false, cpu))
FUNCTION(is_positive, mlx_zeros_like(&y, x, cpu) || mlx_greater(&y, x, y, cpu))
FUNCTION(sum_of_exponentials, mlx_exp(&y, x, cpu) || mlx_sum(&y, y, false, cpu))
FUNCTION(fails, (mlx_sum_axis(&y, x, 9, false, cpu)))

static mlx_array first_of(mlx_vector_array list) {
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_vector_array_get(&array, list, 0), 0);
    return keep(array);
}

/* d f(x) / dx of a scalar function. */
static int gradient(mlx_array *res, mlx_closure f, mlx_array x) {
    mlx_closure_value_and_grad both = mlx_closure_value_and_grad_new();
    mlx_vector_array in = mlx_vector_array_new_value(x), values = mlx_vector_array_new(),
                     grads = mlx_vector_array_new();
    const int zero = 0;
    int failed = mlx_value_and_grad(&both, f, &zero, 1) ||
                 mlx_closure_value_and_grad_apply(&values, &grads, both, in) ||
                 mlx_vector_array_get(res, grads, 0);
    mlx_closure_value_and_grad_free(both);
    mlx_vector_array_free(in);
    mlx_vector_array_free(values);
    mlx_vector_array_free(grads);
    return failed;
}

/* The gradient of f, weighed by 1, 10, 100. */
static int weighed_gradient(mlx_vector_array *res, const mlx_vector_array in, void *f) {
    mlx_array x = mlx_array_new(), y = mlx_array_new();
    mlx_array weights = mlx_array_new_data((float[]){1, 10, 100}, (int[]){3}, 1, MLX_FLOAT32);
    int failed = mlx_vector_array_get(&x, in, 0) || gradient(&y, *(mlx_closure *)f, x) ||
                 mlx_multiply(&y, y, weights, cpu) || mlx_sum(&y, y, false, cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(x);
    mlx_array_free(y);
    mlx_array_free(weights);
    return failed;
}

static mlx_array second_gradient(int (*function)(mlx_vector_array *, const mlx_vector_array),
                                 mlx_array x) {
    mlx_closure f = mlx_closure_new_func(function);
    mlx_closure outer = mlx_closure_new_func_payload(weighed_gradient, &f, NULL);
    mlx_array out = mlx_array_new();
    must(gradient(&out, outer, x), out);
    mlx_closure_free(outer);
    mlx_closure_free(f);
    return out;
}

static void test_products_are_twice_differentiable_at_zeros(void **state) {
    (void)state;
    check(second_gradient(product, row(MLX_FLOAT32, VALUES(1, 2, 3))), 230, 103, 12);
    check(second_gradient(product, row(MLX_FLOAT32, VALUES(0, 2, 3))), 230, 3, 2);
    check(second_gradient(product, row(MLX_FLOAT32, VALUES(0, 0, 3))), 30, 3, 0);
    check(second_gradient(product, row(MLX_FLOAT32, VALUES(0, 0, 0))), 0, 0, 0);
    check(second_gradient(sum_of_cubes, row(MLX_FLOAT32, VALUES(1, 2, 3))), 6, 120, 1800);
}

static void test_tangents_of_answers_have_the_dtype_of_tangents(void **state) {
    (void)state;
    mlx_closure f = mlx_closure_new_func(is_positive);
    mlx_array x = row(MLX_FLOAT32, VALUES(1, -2, 3));
    mlx_vector_array in = vector_of(&x, 1), values = mlx_vector_array_new(),
                     tangents = mlx_vector_array_new();
    assert_int_equal(mlx_jvp(&values, &tangents, f, in, in), 0);
    check_shape(first_of(values), MLX_BOOL, SHAPE(3));
    check_shape(first_of(tangents), MLX_FLOAT32, SHAPE(3));
    check(first_of(tangents), 0, 0, 0);
    mlx_vector_array_free(in);
    mlx_vector_array_free(values);
    mlx_vector_array_free(tangents);
    mlx_closure_free(f);
}

/* A rule that gives 7 times the cotangent, and adds the result. */
static int own_rule(mlx_vector_array *res, const mlx_vector_array primals,
                    const mlx_vector_array cotangents, const mlx_vector_array outputs) {
    mlx_array x = mlx_array_new(), g = mlx_array_new(), y = mlx_array_new(),
              seven = mlx_array_new_float(7);
    int failed = mlx_vector_array_get(&x, primals, 0) || mlx_vector_array_get(&g, cotangents, 0) ||
                 mlx_vector_array_get(&y, outputs, 0) || mlx_multiply(&g, g, seven, cpu) ||
                 mlx_add(&g, g, y, cpu) || mlx_broadcast_to(&g, g, mlx_array_shape(x), 1, cpu);
    *res = mlx_vector_array_new_value(g);
    mlx_array_free(x);
    mlx_array_free(g);
    mlx_array_free(y);
    mlx_array_free(seven);
    return failed;
}

static void test_a_rule_of_the_caller_replaces_the_gradient(void **state) {
    (void)state;
    mlx_closure f = mlx_closure_new_func(sum_of_cubes), with_rule = mlx_closure_new(), none = {0};
    mlx_closure_custom rule = mlx_closure_custom_new_func(own_rule), no_rule = {0};
    mlx_array x = row(MLX_FLOAT32, VALUES(1, 2)), out = mlx_array_new();
    assert_int_equal(mlx_custom_vjp(&with_rule, f, rule), 0);
    mlx_closure_free(f);
    mlx_closure_custom_free(rule);
    check(must(gradient(&out, with_rule, x), out), 16, 16);
    mlx_vector_array in = vector_of(&x, 1), values = mlx_vector_array_new();
    assert_int_equal(mlx_closure_apply(&values, with_rule, in), 0);
    check(first_of(values), 9);
    error_count = 0;
    assert_int_equal(mlx_custom_vjp(&with_rule, none, no_rule), 1);
    assert_int_equal(error_count, 1);
    assert_int_equal(mlx_closure_apply(&values, with_rule, in), 0); /* still the old one */
    check(first_of(values), 9);
    mlx_vector_array_free(in);
    mlx_vector_array_free(values);
    mlx_closure_free(with_rule);
}

static void test_a_checkpoint_runs_again_for_the_same_gradient(void **state) {
    (void)state;
    mlx_closure f = mlx_closure_new_func(sum_of_exponentials), saved = mlx_closure_new();
    mlx_array x = row(MLX_FLOAT32, VALUES(0, 1)), out = mlx_array_new();
    assert_int_equal(mlx_checkpoint(&saved, f), 0);
    mlx_closure_free(f);
    calls = 0;
    check(must(gradient(&out, saved, x), out), 1, M_E);
    assert_int_equal(calls, 2);
    mlx_closure compiled = mlx_closure_new();
    mlx_array again = mlx_array_new();
    assert_int_equal(mlx_compile(&compiled, saved, false), 0);
    check(must(gradient(&again, compiled, x), again), 1, M_E);
    mlx_closure_free(compiled);
    mlx_closure_free(saved);
}

static int eigenvalues(mlx_vector_array *res, const mlx_vector_array in) {
    mlx_array x = mlx_array_new(), values = mlx_array_new(), vectors = mlx_array_new();
    int failed = mlx_vector_array_get(&x, in, 0) || mlx_linalg_eigh(&values, &vectors, x, "L", cpu);
    *res = mlx_vector_array_new_value(values);
    mlx_array_free(x);
    mlx_array_free(values);
    mlx_array_free(vectors);
    return failed;
}

static void test_functions_without_a_gradient_say_so(void **state) {
    (void)state;
    mlx_closure f = mlx_closure_new_func(eigenvalues);
    mlx_array x = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(2, 1, 1, 3));
    mlx_array g = row(MLX_FLOAT32, VALUES(1, 1));
    mlx_vector_array in = vector_of(&x, 1), out = vector_of(&g, 1);
    mlx_vector_array values = mlx_vector_array_new(), results = mlx_vector_array_new();
    error_count = 0;
    assert_int_equal(mlx_vjp(&values, &results, f, in, out), 1);
    assert_int_equal(mlx_jvp(&values, &results, f, in, in), 1);
    assert_int_equal(error_count, 2);
    assert_int_equal(mlx_vector_array_size(results), 0);
    mlx_vector_array_free(in);
    mlx_vector_array_free(out);
    mlx_vector_array_free(values);
    mlx_vector_array_free(results);
    mlx_closure_free(f);
}

static void test_failures_inside_transforms_come_out(void **state) {
    (void)state;
    mlx_closure f = mlx_closure_new_func(fails), wrapped = mlx_closure_new();
    mlx_array x = row(MLX_FLOAT32, VALUES(0, 1)), out = mlx_array_new();
    mlx_vector_array in = vector_of(&x, 1), values = mlx_vector_array_new();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(i == 0   ? mlx_closure_set(&wrapped, f)
                         : i == 1 ? mlx_checkpoint(&wrapped, f)
                                  : mlx_compile(&wrapped, f, true),
                         0);
        error_count = 0;
        assert_int_equal(mlx_closure_apply(&values, wrapped, in), 1);
        assert_true(error_count >= 1);
        assert_int_equal(gradient(&out, wrapped, x), 1);
        assert_null(out.ctx);
        assert_int_equal(mlx_vector_array_size(values), 0);
    }
    mlx_closure_free(f);
    mlx_closure_free(wrapped);
    mlx_vector_array_free(in);
    mlx_vector_array_free(values);
}

/* w, m, v after ten steps of AdamW on sum(w^3), against the same in double. */
static void test_ten_steps_of_adamw(void **state) {
    (void)state;
    const double rate = 0.1, decay = 0.01, b1 = 0.9, b2 = 0.999, eps = 1e-8;
    double w[2] = {1, -2}, m[2] = {0}, v[2] = {0};
    mlx_closure f = mlx_closure_new_func(sum_of_cubes);
    mlx_array x = row(MLX_FLOAT32, VALUES(1, -2)), first = row(MLX_FLOAT32, VALUES(0, 0));
    mlx_array second = first;
#define CONSTANT(value) scalar(MLX_FLOAT32, value)
    for (int step = 1; step <= 10; step++) {
        mlx_array g = mlx_array_new();
        must(gradient(&g, f, x), g);
        first = OP(add, OP(multiply, first, CONSTANT(b1)), OP(multiply, g, CONSTANT(1 - b1)));
        second = OP(add, OP(multiply, second, CONSTANT(b2)),
                    OP(multiply, OP(square, g), CONSTANT(1 - b2)));
        mlx_array down = OP(multiply, first, CONSTANT(rate / (1 - pow(b1, step))));
        mlx_array size = OP(multiply, OP(sqrt, second), CONSTANT(1 / sqrt(1 - pow(b2, step))));
        x = OP(multiply, x, CONSTANT(1 - rate * decay));
        x = OP(subtract, x, OP(divide, down, OP(add, size, CONSTANT(eps))));
        for (int i = 0; i < 2; i++) {
            const double slope = 3 * w[i] * w[i];
            m[i] = b1 * m[i] + (1 - b1) * slope;
            v[i] = b2 * v[i] + (1 - b2) * slope * slope;
            w[i] *= 1 - rate * decay;
            w[i] -=
                rate / (1 - pow(b1, step)) * m[i] / (sqrt(v[i]) / sqrt(1 - pow(b2, step)) + eps);
        }
    }
#undef CONSTANT
    check_near(x, w, 2, 1e-5);
    check_near(first, m, 2, 1e-5);
    check_near(second, v, 2, 1e-5);
    mlx_closure_free(f);
}

RUN(TEST(test_products_are_twice_differentiable_at_zeros),
    TEST(test_tangents_of_answers_have_the_dtype_of_tangents),
    TEST(test_a_rule_of_the_caller_replaces_the_gradient),
    TEST(test_a_checkpoint_runs_again_for_the_same_gradient),
    TEST(test_functions_without_a_gradient_say_so), TEST(test_failures_inside_transforms_come_out),
    TEST(test_ten_steps_of_adamw))
