/* jvp, functions with rules of their own, checkpoints, closures of every kind. */
#include "grad_check.h"

static mlx_array at(const mlx_vector_array list, size_t i) {
    mlx_array item = mlx_array_new();
    assert_int_equal(mlx_vector_array_get(&item, list, i), 0);
    return keep(item);
}

static int give(mlx_vector_array *res, const mlx_array *arrays, size_t n) {
    return mlx_vector_array_set_data(res, arrays, n);
}

#define assert_says(text) \
    if (!strstr(last_error, text)) fail_msg("\"%s\" does not say \"%s\"", last_error, text)

/* ---- jvp ---- */

static mlx_vector_array values, slopes;

static int run_jvp(mlx_closure closure, const mlx_array *primals, size_t n,
                   const mlx_array *tangents, size_t n_tangents) {
    mlx_vector_array inputs = vector_of(primals, n), directions = vector_of(tangents, n_tangents);
    last_error[0] = 0;
    const int status = mlx_jvp(&values, &slopes, closure, inputs, directions);
    mlx_vector_array_free(inputs);
    mlx_vector_array_free(directions);
    return status;
}

static int run_vjp(mlx_closure closure, const mlx_array *primals, size_t n,
                   const mlx_array *cotangents, size_t n_cotangents) {
    mlx_vector_array inputs = vector_of(primals, n), g = vector_of(cotangents, n_cotangents);
    last_error[0] = 0;
    const int status = mlx_vjp(&values, &slopes, closure, inputs, g);
    mlx_vector_array_free(inputs);
    mlx_vector_array_free(g);
    return status;
}

static int release_lists(void **state) {
    mlx_vector_array_free(values);
    mlx_vector_array_free(slopes);
    values = slopes = (mlx_vector_array){NULL};
    return release_all(state);
}

/* [x * sin(w), parts of a split multiplied, argmax(x), a constant] */
static int mixed(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array x = at(input, 0), w = at(input, 1), parts[2];
    OPV(parts, split, x, 2, 0);
    return give(res,
                (mlx_array[]){OP(multiply, x, OP(sin, w)), OP(multiply, parts[0], parts[1]),
                              OP(argmax, x, false), w},
                4);
}

static void test_jvp_pushes_tangents_forward(void **state) {
    (void)state;
    mlx_closure closure = mlx_closure_new_func(mixed);
    mlx_array x = make(MLX_FLOAT64, SHAPE(2), VALUES(2, 3));
    mlx_array w = make(MLX_FLOAT64, SHAPE(2), VALUES(.5, -.5));
    mlx_array tx = make(MLX_FLOAT64, SHAPE(2), VALUES(1, 10));
    mlx_array tw = make(MLX_FLOAT32, SHAPE(2), VALUES(2, 4));
    assert_int_equal(run_jvp(closure, (mlx_array[]){x, w}, 2, (mlx_array[]){tx, tw}, 2), 0);
    assert_int_equal(mlx_vector_array_size(slopes), 4);
    check_near(at(slopes, 0), VALUES(sin(.5) + 2 * 2 * cos(.5), -10 * sin(.5) + 3 * 4 * cos(.5)),
               1e-12);
    check(at(slopes, 1), 23);
    check_shape(at(slopes, 2), MLX_UINT32, NULL, 0);
    check(at(slopes, 2), 0);
    check(at(slopes, 3), 2, 4);
    assert_int_equal(run_jvp(closure, (mlx_array[]){x, w}, 2, &tx, 1), 1);
    assert_says("[jvp] Number of inputs does not match number of tangents.");
    assert_int_equal(
        run_jvp(closure, (mlx_array[]){x, w}, 2, (mlx_array[]){tx, scalar(MLX_FLOAT32, 1)}, 2), 1);
    assert_says("[jvp] Input shape does not match shape of tangent.");
    mlx_closure_free(closure);
}

/* ---- rules of one's own ---- */

static int calls;

static int power_and_sum(mlx_vector_array *res, const mlx_vector_array input) {
    calls++;
    mlx_array x = at(input, 0), y = at(input, 1);
    mlx_array product = OP(multiply, OP(square, x), y);
    return give(res, (mlx_array[]){OP(sin, product), OP(sum, x, false)}, 2);
}

/* Ten times the cotangent of output 0, and output 0 itself. */
static int odd_rule(mlx_vector_array *res, const mlx_vector_array primals,
                    const mlx_vector_array cotangents, const mlx_vector_array outputs) {
    assert_int_equal(mlx_vector_array_size(primals), 2);
    assert_int_equal(mlx_vector_array_size(cotangents), 2);
    assert_int_equal(mlx_vector_array_size(outputs), 2);
    check(at(cotangents, 1), 0); /* not used by anyone */
    mlx_array ten = scalar(MLX_FLOAT64, 10);
    return give(res, (mlx_array[]){OP(multiply, at(cotangents, 0), ten), at(outputs, 0)}, 2);
}

static int odd_forward(mlx_vector_array *res, const mlx_vector_array primals,
                       const mlx_vector_array tangents, const int *argnums, size_t n) {
    assert_int_equal(mlx_vector_array_size(primals), 2);
    assert_int_equal(n, 2);
    assert_int_equal(argnums[1], 1);
    mlx_array hundred = scalar(MLX_FLOAT64, 100);
    return give(res, (mlx_array[]){OP(multiply, at(tangents, 0), hundred), scalar(MLX_FLOAT64, 7)},
                2);
}

typedef struct Apply {
    mlx_closure inner;
} Apply;

/* exp of the first output of the closure in the payload. */
static int exp_of_first(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    mlx_vector_array outputs = mlx_vector_array_new();
    const int status = mlx_closure_apply(&outputs, ((Apply *)payload)->inner, input);
    if (status == 0) {
        mlx_array y = OP(exp, at(outputs, 0));
        give(res, &y, 1);
    }
    mlx_vector_array_free(outputs);
    return status;
}

static void free_inner(void *payload) {
    mlx_closure_free(((Apply *)payload)->inner);
    ((Apply *)payload)->inner = mlx_closure_new();
}

static void test_a_custom_rule_replaces_the_gradient(void **state) {
    (void)state;
    mlx_closure fun = mlx_closure_new_func(power_and_sum);
    mlx_closure_custom rule = mlx_closure_custom_new_func(odd_rule);
    Apply apply = {mlx_closure_new()};
    assert_int_equal(mlx_custom_vjp(&apply.inner, fun, rule), 0);
    mlx_closure_free(fun);
    mlx_closure_custom_free(rule);
    mlx_closure outer = mlx_closure_new_func_payload(exp_of_first, &apply, free_inner);
    mlx_array x = make(MLX_FLOAT64, SHAPE(2), VALUES(.5, .25));
    mlx_array g = make(MLX_FLOAT64, SHAPE(2), VALUES(1, 2));
    calls = 0;
    assert_int_equal(run_vjp(outer, (mlx_array[]){x, x}, 2, &g, 1), 0);
    assert_int_equal(calls, 1);
    const double s0 = sin(.125), s1 = sin(.015625);
    check_near(at(values, 0), VALUES(exp(s0), exp(s1)), 1e-12);
    check_near(at(slopes, 0), VALUES(10 * exp(s0), 20 * exp(s1)), 1e-12);
    check_near(at(slopes, 1), VALUES(s0, s1), 1e-12);
    mlx_closure_free(outer);
    assert_null(apply.inner.ctx); /* all that derived from it is gone */
}

static void test_a_custom_forward_rule_serves_jvp_alone(void **state) {
    (void)state;
    mlx_closure fun = mlx_closure_new_func(power_and_sum), made = mlx_closure_new();
    mlx_closure_custom_jvp rule = mlx_closure_custom_jvp_new_func(odd_forward);
    assert_int_equal(mlx_custom_function(&made, fun, mlx_closure_custom_new(), rule,
                                         mlx_closure_custom_vmap_new()),
                     0);
    mlx_array x = make(MLX_FLOAT64, SHAPE(1), VALUES(.5)),
              t = make(MLX_FLOAT64, SHAPE(1), VALUES(1));
    assert_int_equal(run_jvp(made, (mlx_array[]){x, x}, 2, (mlx_array[]){t, t}, 2), 0);
    check(at(slopes, 0), 100);
    check(at(slopes, 1), 7);
    mlx_array one = scalar(MLX_FLOAT64, 1);
    assert_int_equal(run_vjp(made, (mlx_array[]){x, x}, 2, (mlx_array[]){t, one}, 2), 0);
    check_near(at(slopes, 0), VALUES(.5 * cos(.125) + 1), 1e-12);
    check_near(at(slopes, 1), VALUES(.25 * cos(.125)), 1e-12);
    mlx_closure_custom_jvp_free(rule);
    mlx_closure_free(made);
    mlx_closure_free(fun);
}

/* ---- checkpoints ---- */

static Apply checkpointed;

static mlx_array through_checkpoint(const mlx_array *x) {
    mlx_vector_array input = vector_of(x, 2), outputs = mlx_vector_array_new();
    if (mlx_closure_apply(&outputs, checkpointed.inner, input)) fail_msg("%s", last_error);
    mlx_array y = OP(add, at(outputs, 0), at(outputs, 1));
    mlx_vector_array_free(input);
    mlx_vector_array_free(outputs);
    return y;
}

static mlx_array plainly(const mlx_array *x) {
    mlx_array product = OP(multiply, OP(square, x[0]), x[1]);
    return OP(add, OP(sin, product), OP(sum, x[0], false));
}

static void test_a_checkpoint_equals_the_plain_function(void **state) {
    (void)state;
    mlx_closure fun = mlx_closure_new_func(power_and_sum);
    checkpointed.inner = mlx_closure_new();
    assert_int_equal(mlx_checkpoint(&checkpointed.inner, fun), 0);
    mlx_closure_free(fun);
    mlx_array x[2] = {make(MLX_FLOAT64, SHAPE(3), VALUES(.5, .25, -.7)),
                      make(MLX_FLOAT64, SHAPE(3), VALUES(1.5, .6, .2))};
    check_gradients(through_checkpoint, x, 2);
    mlx_array g = make(MLX_FLOAT64, SHAPE(3), VALUES(1, 2, 3)), plain[2], again[2];
    gradients(plainly, x, 2, g, plain);
    calls = 0;
    gradients(through_checkpoint, x, 2, g, again);
    assert_int_equal(calls, 2); /* forward, and for the gradient */
    for (int i = 0; i < 2; i++) check_near(again[i], doubles(plain[i]), 3, 1e-15);
    mlx_closure_free(checkpointed.inner);
}

/* Twelve layers y = tanh(tanh(x w) w) + x. */
enum { LAYERS = 12, ROWS = 512, WIDTH = 16 };

static int one_layer(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array x = at(input, 0), w = at(input, 1);
    mlx_array y = OP(tanh, OP(matmul, OP(tanh, OP(matmul, x, w)), w));
    return give(res, (mlx_array[]){OP(add, y, x)}, 1);
}

static int all_layers(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    const mlx_closure *layer = payload;
    mlx_array x = mlx_array_new();
    mlx_vector_array_get(&x, input, LAYERS);
    keep(x);
    for (int i = 0; i < LAYERS; i++) {
        mlx_vector_array inputs = vector_of((mlx_array[]){x, at(input, i)}, 2), outputs = {NULL};
        assert_int_equal(mlx_closure_apply(&outputs, *layer, inputs), 0);
        mlx_vector_array_get(&x, outputs, 0);
        mlx_vector_array_free(inputs);
        mlx_vector_array_free(outputs);
    }
    mlx_array total = OP(sum, x, false);
    return give(res, &total, 1);
}

/* The most memory while all gradients are computed, in arrays of ROWS x WIDTH. */
static double peak_of(mlx_closure layer) {
    mlx_closure fun = mlx_closure_new_func_payload(all_layers, &layer, free_nothing);
    mlx_array inputs[LAYERS + 1], one = scalar(MLX_FLOAT32, 1);
    for (int i = 0; i < LAYERS; i++)
        inputs[i] = OP(sin, count_up(MLX_FLOAT32, SHAPE(WIDTH, WIDTH)));
    inputs[LAYERS] = OP(sin, count_up(MLX_FLOAT32, SHAPE(ROWS, WIDTH)));
    for (int i = 0; i <= LAYERS; i++) mlx_array_eval(inputs[i]);
    const int mark = n_kept;
    assert_int_equal(run_vjp(fun, inputs, LAYERS + 1, &one, 1), 0);
    release_to(mark);
    mlx_vector_array_free(values);
    values = (mlx_vector_array){NULL};
    size_t before, peak;
    mlx_get_active_memory(&before);
    mlx_reset_peak_memory();
    assert_int_equal(mlx_eval(slopes), 0);
    mlx_get_peak_memory(&peak);
    mlx_closure_free(fun);
    return (double)(peak - before) / (ROWS * WIDTH * 4.0);
}

static void test_a_checkpoint_saves_memory_in_any_order_of_results(void **state) {
    (void)state;
    mlx_closure layer = mlx_closure_new_func(one_layer), light = mlx_closure_new();
    assert_int_equal(mlx_checkpoint(&light, layer), 0);
    const double plain = peak_of(layer), saved = peak_of(light);
    mlx_closure_free(layer);
    mlx_closure_free(light);
    if (plain > 3 * LAYERS + 3 || saved > LAYERS + 6) fail_msg("%.1f, %.1f", plain, saved);
}

/* ---- the loss over a large vocabulary ---- */

static mlx_array targets;                            /* [N, 1] */
static mlx_array cross_entropy(const mlx_array *x) { /* logits [N, V] */
    mlx_array score = OP(take_along_axis, x[0], targets, 1);
    return OP(subtract, OP(logsumexp_axis, x[0], 1, true), score);
}

static void test_cross_entropy_keeps_one_array_of_gradients(void **state) {
    (void)state;
    enum { N = 16, V = 5000 };
    mlx_array small = OP(sin, count_up(MLX_FLOAT64, SHAPE(3, 5)));
    targets = make(MLX_INT32, SHAPE(3, 1), VALUES(4, 0, 2));
    check_gradients(cross_entropy, &small, 1);

    mlx_array logits = OP(sin, count_up(MLX_FLOAT32, SHAPE(N, V))), slope;
    targets = OP(reshape, OP(arange, 0, N, 1, MLX_INT32), INTS(N, 1));
    mlx_array g = OP(full, INTS(N, 1), scalar(MLX_FLOAT32, 2), MLX_FLOAT32);
    gradients(cross_entropy, &logits, 1, g, &slope);
    mlx_array_eval(logits);
    size_t before, peak;
    mlx_get_active_memory(&before);
    mlx_reset_peak_memory();
    mlx_array_eval(slope);
    mlx_get_peak_memory(&peak);
    assert_true(peak - before < N * V * sizeof(float) * 3 / 2);
}

/* ---- closures ---- */

static int named(mlx_vector_array *res, const mlx_vector_array input,
                 const mlx_map_string_to_array kwargs, void *payload) {
    mlx_array b = mlx_array_new();
    if (mlx_map_string_to_array_get(&b, kwargs, "b")) return 1;
    ++*(int *)payload;
    mlx_array sum = OP(add, at(input, 0), keep(b));
    return give(res, &sum, 1);
}

static void count_free(void *payload) {
    *(int *)payload += 100;
}

static void test_closures_with_named_arguments_share_their_payload(void **state) {
    (void)state;
    int payload = 0;
    mlx_closure_kwargs closure = mlx_closure_kwargs_new_func_payload(named, &payload, count_free);
    mlx_closure_kwargs copy = mlx_closure_kwargs_new();
    assert_int_equal(mlx_closure_kwargs_set(&copy, closure), 0);
    mlx_closure_kwargs_free(closure);
    assert_int_equal(payload, 0);
    mlx_array x = scalar(MLX_FLOAT32, 2);
    mlx_vector_array input = vector_of(&x, 1), res = {NULL};
    mlx_map_string_to_array map = mlx_map_string_to_array_new();
    assert_int_equal(mlx_closure_kwargs_apply(&res, copy, input, map), 1);
    assert_says("mlx_closure returned a non-zero value");
    assert_null(res.ctx);
    mlx_map_string_to_array_insert(map, "b", x);
    assert_int_equal(mlx_closure_kwargs_apply(&res, copy, input, map), 0);
    check(at(res, 0), 4);
    mlx_closure_kwargs_free(copy);
    assert_int_equal(payload, 101);
    assert_int_equal(mlx_closure_kwargs_apply(&res, mlx_closure_kwargs_new(), input, map), 1);
    assert_says("expected a non-empty mlx_closure_kwargs");
    mlx_vector_array_free(input);
    mlx_vector_array_free(res);
    mlx_map_string_to_array_free(map);
}

static int batched(mlx_vector_array *res_0, mlx_vector_int *res_1, const mlx_vector_array input,
                   const int *axes, size_t n) {
    assert_int_equal(n, 1);
    return mlx_vector_array_set(res_0, input) || mlx_vector_int_set_value(res_1, axes[0] + 1);
}

static void test_batching_closures_give_arrays_and_axes(void **state) {
    (void)state;
    mlx_closure_custom_vmap closure = mlx_closure_custom_vmap_new_func(batched);
    mlx_array x = scalar(MLX_FLOAT32, 2);
    mlx_vector_array input = vector_of(&x, 1), res = {NULL};
    mlx_vector_int axes = {NULL};
    assert_int_equal(mlx_closure_custom_vmap_apply(&res, &axes, closure, input, (int[]){4}, 1), 0);
    int axis;
    assert_int_equal(mlx_vector_int_get(&axis, axes, 0), 0);
    assert_int_equal(axis, 5);
    mlx_vector_array_free(input);
    mlx_vector_array_free(res);
    mlx_vector_int_free(axes);
    mlx_closure_custom_vmap_free(closure);
}

int main(void) {
#define LIST_TEST(name) cmocka_unit_test_teardown(name, release_lists)
    const struct CMUnitTest tests[] = {
        LIST_TEST(test_jvp_pushes_tangents_forward),
        LIST_TEST(test_a_custom_rule_replaces_the_gradient),
        LIST_TEST(test_a_custom_forward_rule_serves_jvp_alone),
        TEST(test_a_checkpoint_equals_the_plain_function),
        LIST_TEST(test_a_checkpoint_saves_memory_in_any_order_of_results),
        TEST(test_cross_entropy_keeps_one_array_of_gradients),
        TEST(test_closures_with_named_arguments_share_their_payload),
        TEST(test_batching_closures_give_arrays_and_axes),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
