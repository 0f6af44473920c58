/* Compiled functions: run once a signature, equal to the plain function, in and
 * around gradients, for other shapes, in threads, and gone with their closure. */
#include "engine/ops_check.h"

#include <pthread.h>
#include <stdlib.h>

static _Atomic int runs;

static mlx_array argument(const mlx_vector_array list, size_t i) {
    mlx_array x = mlx_array_new();
    mlx_vector_array_get(&x, list, i);
    return x;
}

/* x * sigmoid(x) + y, and their sum over the last axis. */
static int gate(mlx_vector_array *res, const mlx_vector_array input) {
    runs++;
    mlx_array x = argument(input, 0), y = argument(input, 1), r = mlx_array_new();
    mlx_array total = mlx_array_new();
    mlx_stream s = mlx_default_cpu_stream_new();
    int status = mlx_sigmoid(&r, x, s) || mlx_multiply(&r, r, x, s) || mlx_add(&r, r, y, s) ||
                 mlx_sum_axis(&total, r, -1, false, s);
    mlx_array both[] = {r, total};
    if (!status) *res = mlx_vector_array_new_data(both, 2);
    mlx_array_free(x);
    mlx_array_free(y);
    mlx_array_free(r);
    mlx_array_free(total);
    mlx_stream_free(s);
    return status;
}

/* Calls; the outputs are kept until the test ends. */
static int call(mlx_closure fun, mlx_array *out, size_t n_out, const mlx_array *in, size_t n_in) {
    mlx_vector_array inputs = mlx_vector_array_new_data(in, n_in), outputs = {NULL};
    const int status = mlx_closure_apply(&outputs, fun, inputs);
    mlx_vector_array_free(inputs);
    if (status == 0) {
        assert_int_equal(mlx_vector_array_size(outputs), n_out);
        for (size_t i = 0; i < n_out; i++) out[i] = keep(argument(outputs, i));
    }
    mlx_vector_array_free(outputs);
    return status;
}

static mlx_closure compiled(mlx_closure fun, bool shapeless) {
    mlx_closure result = mlx_closure_new();
    assert_int_equal(mlx_compile(&result, fun, shapeless), 0);
    mlx_closure_free(fun);
    return result;
}

static void check_same(mlx_array a, mlx_array b) {
    check_shape(a, mlx_array_dtype(b), mlx_array_shape(b), (int)mlx_array_ndim(b));
    check_near(a, doubles(b), mlx_array_size(b), 0);
}

static void check_gate(mlx_closure fun, mlx_array x, mlx_array y) {
    mlx_array got[2], expected[2], in[] = {x, y};
    mlx_closure plain = mlx_closure_new_func(gate);
    const int before = runs;
    if (call(plain, expected, 2, in, 2)) fail_msg("%s", last_error);
    runs = before;
    if (call(fun, got, 2, in, 2)) fail_msg("%s", last_error);
    check_same(got[0], expected[0]);
    check_same(got[1], expected[1]);
    mlx_closure_free(plain);
}

static void test_the_function_runs_once_a_signature(void **state) {
    (void)state;
    mlx_closure fun = compiled(mlx_closure_new_func(gate), false);
    runs = 0;
    for (int i = 0; i < 3; i++)
        check_gate(fun, count_up(MLX_FLOAT32, SHAPE(2, 3)), scalar(MLX_FLOAT32, i));
    assert_int_equal(runs, 1);
    check_gate(fun, count_up(MLX_FLOAT32, SHAPE(3, 2)), scalar(MLX_FLOAT32, 1));
    assert_int_equal(runs, 2);
    check_gate(fun, count_up(MLX_FLOAT16, SHAPE(3, 2)), scalar(MLX_FLOAT32, 1));
    assert_int_equal(runs, 3);
    check_gate(fun, count_up(MLX_FLOAT32, SHAPE(6)), scalar(MLX_FLOAT32, 1));
    assert_int_equal(runs, 4);
    check_gate(fun, count_up(MLX_FLOAT32, SHAPE(2, 3)), scalar(MLX_FLOAT32, 7));
    assert_int_equal(runs, 4);
    mlx_closure_free(fun);
}

/* The first argument, a constant, the first plus a captured array, a random number. */
static int captures(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    runs++;
    mlx_array x = argument(input, 0), sum = mlx_array_new(), random = mlx_array_new();
    mlx_array zero = mlx_array_new_float(0), one = mlx_array_new_float(1), eye = mlx_array_new();
    mlx_stream s = mlx_default_cpu_stream_new();
    int status = mlx_add(&sum, x, *(mlx_array *)payload, s) ||
                 mlx_random_uniform(&random, zero, one, NULL, 0, MLX_FLOAT32, mlx_array_new(), s) ||
                 mlx_arange(&eye, 0, 3, 1, MLX_INT32, s);
    mlx_array all[] = {x, eye, sum, random};
    if (!status) *res = mlx_vector_array_new_data(all, 4);
    for (int i = 0; i < 4; i++) mlx_array_free(all[i]);
    mlx_array_free(zero);
    mlx_array_free(one);
    mlx_stream_free(s);
    return status;
}

static void test_captured_arrays_and_random_keys_are_frozen(void **state) {
    (void)state;
    mlx_array captured = mlx_array_new_float(10), first[4], second[4];
    mlx_closure fun = compiled(mlx_closure_new_func_payload(captures, &captured, NULL), false);
    mlx_array x = scalar(MLX_FLOAT32, 1), y = scalar(MLX_FLOAT32, 2);
    assert_int_equal(call(fun, first, 4, &x, 1), 0);
    mlx_array_set_float(&captured, 100);
    assert_int_equal(call(fun, second, 4, &y, 1), 0);
    check(first[0], 1);
    check(second[0], 2);
    check(second[1], 0, 1, 2);
    check(first[2], 11);
    check(second[2], 12);
    check_same(first[3], second[3]);
    mlx_closure_free(fun);
    mlx_array_free(captured);
}

static int fails_first(mlx_vector_array *res, const mlx_vector_array input) {
    return runs++ == 0 ? 1 : mlx_vector_array_set(res, input);
}

static void test_a_failing_function_leaves_nothing_behind(void **state) {
    (void)state;
    mlx_closure fun = compiled(mlx_closure_new_func(fails_first), false);
    mlx_array x = scalar(MLX_FLOAT32, 3), y;
    runs = 0;
    last_error[0] = 0;
    assert_int_equal(call(fun, &y, 1, &x, 1), 1);
    assert_non_null(strstr(last_error, "mlx_closure returned a non-zero value"));
    assert_int_equal(call(fun, &y, 1, &x, 1), 0);
    assert_int_equal(call(fun, &y, 1, &x, 1), 0);
    assert_int_equal(runs, 2);
    check(y, 3);
    mlx_closure_free(fun);
}

static mlx_array leaked;

static int reads(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array x = argument(input, 0);
    float value;
    (void)res;
    mlx_array_set(&leaked, x);
    const int status = mlx_array_item_float32(&value, x);
    mlx_array_free(x);
    return status;
}

static int adds_leaked(mlx_array *res, const mlx_array x) {
    return mlx_add(res, x, leaked, cpu);
}

static void test_values_cannot_be_read_while_recording(void **state) {
    (void)state;
    mlx_closure fun = compiled(mlx_closure_new_func(reads), false);
    mlx_array x = scalar(MLX_FLOAT32, 3), y;
    assert_int_equal(call(fun, &y, 1, &x, 1), 1);
    mlx_closure_free(fun);
    last_error[0] = 0;
    assert_int_equal(mlx_array_eval(leaked), 1);
    assert_non_null(strstr(last_error, "[eval] Attempting to eval an array during function"));
    fun = compiled(mlx_closure_new_unary(adds_leaked), false);
    assert_int_equal(call(fun, &y, 1, &x, 1), 1);
    mlx_closure_free(fun);
    mlx_array_free(leaked);
    leaked = mlx_array_new();
}

static float step_by;
static int adds_step(mlx_array *res, const mlx_array x) {
    runs++;
    mlx_array step = mlx_array_new_float(step_by);
    const int status = mlx_add(res, x, step, cpu);
    mlx_array_free(step);
    return status;
}

static void test_shapeless_functions_take_other_shapes_without_running(void **state) {
    (void)state;
    mlx_closure fun = compiled(mlx_closure_new_unary(adds_step), true);
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2)), y;
    runs = 0;
    step_by = 1;
    assert_int_equal(call(fun, &y, 1, &x, 1), 0);
    check(y, 1, 2);
    step_by = 2;
    x = count_up(MLX_FLOAT32, SHAPE(3));
    assert_int_equal(call(fun, &y, 1, &x, 1), 0);
    check(y, 1, 2, 3);
    x = count_up(MLX_FLOAT32, SHAPE(0));
    assert_int_equal(call(fun, &y, 1, &x, 1), 0);
    assert_int_equal(mlx_array_size(y), 0);
    assert_int_equal(runs, 1);
    x = count_up(MLX_FLOAT32, SHAPE(1, 2));
    assert_int_equal(call(fun, &y, 1, &x, 1), 0);
    check(y, 2, 3);
    x = count_up(MLX_FLOAT16, SHAPE(2));
    assert_int_equal(call(fun, &y, 1, &x, 1), 0);
    assert_int_equal(runs, 3);
    mlx_closure_free(fun);
    fun = compiled(mlx_closure_new_func(gate), true);
    runs = 0;
    for (int n = 1; n < 5; n++)
        check_gate(fun, count_up(MLX_FLOAT32, SHAPE(n, 3)), scalar(MLX_FLOAT32, 1));
    assert_int_equal(runs, 1);
    mlx_array bad[] = {count_up(MLX_FLOAT32, SHAPE(2, 3)), count_up(MLX_FLOAT32, SHAPE(2))}, r[2];
    assert_int_equal(call(fun, r, 2, bad, 2), 1);
    mlx_closure_free(fun);
}

/* softmax(x @ transpose(x)) joined with x's rows of means, [n, n + 1]. */
static int mixes(mlx_array *res, const mlx_array x) {
    runs++;
    mlx_array t = mlx_array_new(), mean = mlx_array_new();
    int status = mlx_transpose(&t, x, cpu) || mlx_matmul(&t, x, t, cpu) ||
                 mlx_softmax_axis(&t, t, -1, true, cpu) || mlx_mean_axis(&mean, x, 1, true, cpu) ||
                 mlx_squeeze(&mean, mean, cpu) || mlx_expand_dims(&mean, mean, 1, cpu);
    mlx_vector_array both = mlx_vector_array_new();
    mlx_vector_array_append_value(both, t);
    mlx_vector_array_append_value(both, mean);
    status = status || mlx_concatenate_axis(res, both, 1, cpu);
    mlx_vector_array_free(both);
    mlx_array_free(t);
    mlx_array_free(mean);
    return status;
}

/* Its shapes are numbers in the graph: [n, 2] as [2, n], plus ones of that shape. */
static int reshapes(mlx_array *res, const mlx_array x) {
    runs++;
    mlx_array ones = mlx_array_new();
    const int n = mlx_array_dim(x, 0);
    const int status = mlx_ones(&ones, (int[]){2, n}, 2, MLX_FLOAT32, cpu) ||
                       mlx_reshape(res, x, (int[]){2, n}, 2, cpu) || mlx_add(res, *res, ones, cpu);
    mlx_array_free(ones);
    return status;
}

static void test_shapeless_functions_are_right_whatever_they_compute(void **state) {
    (void)state;
    int (*const functions[])(mlx_array *, const mlx_array) = {mixes, reshapes};
    for (int k = 0; k < 2; k++) {
        mlx_closure fun = compiled(mlx_closure_new_unary(functions[k]), true);
        runs = 0;
        for (int n = 2; n < 6; n++) {
            mlx_array x = count_up(MLX_FLOAT32, SHAPE(n, 2)), got, expected = mlx_array_new();
            if (call(fun, &got, 1, &x, 1)) fail_msg("%s", last_error);
            const int before = runs;
            assert_int_equal(functions[k](&expected, x), 0);
            runs = before;
            check_same(got, keep(expected));
        }
        assert_int_equal(runs, k ? 4 : 1);
        mlx_closure_free(fun);
    }
}

/* The mean of (x w - y)^2: arguments w, x, y. */
static int loss(mlx_vector_array *res, const mlx_vector_array input) {
    runs++;
    mlx_array w = argument(input, 0), x = argument(input, 1), y = argument(input, 2);
    mlx_array r = mlx_array_new();
    const int status = mlx_multiply(&r, x, w, cpu) || mlx_sum_axis(&r, r, -1, false, cpu) ||
                       mlx_subtract(&r, r, y, cpu) || mlx_square(&r, r, cpu) ||
                       mlx_mean(&r, r, false, cpu);
    if (!status) *res = mlx_vector_array_new_value(r);
    mlx_array_free(w);
    mlx_array_free(x);
    mlx_array_free(y);
    mlx_array_free(r);
    return status;
}

static mlx_closure_value_and_grad gradient_of(mlx_closure fun) {
    mlx_closure_value_and_grad result = mlx_closure_value_and_grad_new();
    assert_int_equal(mlx_value_and_grad(&result, fun, (int[]){0}, 1), 0);
    return result;
}

static void test_gradients_pass_through_compiled_functions(void **state) {
    (void)state;
    mlx_closure plain = mlx_closure_new_func(loss), fun = mlx_closure_new();
    assert_int_equal(mlx_compile(&fun, plain, false), 0);
    mlx_closure_value_and_grad grads[] = {gradient_of(plain), gradient_of(fun)};
    mlx_array in[] = {count_up(MLX_FLOAT32, SHAPE(3)), count_up(MLX_FLOAT32, SHAPE(4, 3)),
                      count_up(MLX_FLOAT32, SHAPE(4))},
              got[2][2];
    for (int i = 0; i < 2; i++) {
        mlx_vector_array inputs = vector_of(in, 3), value = {NULL}, grad = {NULL};
        if (mlx_closure_value_and_grad_apply(&value, &grad, grads[i], inputs))
            fail_msg("%s", last_error);
        got[i][0] = keep(argument(value, 0));
        got[i][1] = keep(argument(grad, 0));
        mlx_vector_array_free(inputs);
        mlx_vector_array_free(value);
        mlx_vector_array_free(grad);
        mlx_closure_value_and_grad_free(grads[i]);
    }
    check_same(got[1][0], got[0][0]);
    check_same(got[1][1], got[0][1]);
    mlx_closure_free(plain);
    mlx_closure_free(fun);
}

/* One step of gradient descent with momentum: (w, v, x, y) to (loss, w, v). */
static int train(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    mlx_array w = argument(input, 0), v = argument(input, 1), x = argument(input, 2);
    mlx_array y = argument(input, 3), list[] = {w, x, y};
    mlx_array rate = mlx_array_new_float(0.01f), decay = mlx_array_new_float(0.9f);
    mlx_array move = mlx_array_new();
    mlx_vector_array inputs = vector_of(list, 3), value = {NULL}, grad = {NULL};
    int status = mlx_closure_value_and_grad_apply(&value, &grad,
                                                  *(mlx_closure_value_and_grad *)payload, inputs);
    if (!status) {
        mlx_array g = argument(grad, 0), l = argument(value, 0);
        status = mlx_multiply(&v, v, decay, cpu) || mlx_add(&v, v, g, cpu) ||
                 mlx_multiply(&move, v, rate, cpu) || mlx_subtract(&w, w, move, cpu);
        mlx_array results[] = {l, w, v};
        if (!status) *res = mlx_vector_array_new_data(results, 3);
        mlx_array_free(g);
        mlx_array_free(l);
    }
    mlx_array all[] = {w, v, x, y, rate, decay, move};
    for (int i = 0; i < 7; i++) mlx_array_free(all[i]);
    mlx_vector_array_free(inputs);
    mlx_vector_array_free(value);
    mlx_vector_array_free(grad);
    return status;
}

static void test_a_compiled_training_step_trains_as_the_plain_one(void **state) {
    (void)state;
    mlx_closure base = mlx_closure_new_func(loss);
    mlx_closure_value_and_grad grad = gradient_of(base);
    mlx_closure plain = mlx_closure_new_func_payload(train, &grad, NULL), fun = mlx_closure_new();
    assert_int_equal(mlx_compile(&fun, plain, false), 0);
    const mlx_array x = OP(divide, count_up(MLX_FLOAT32, SHAPE(4, 3)), scalar(MLX_FLOAT32, 8));
    const mlx_array y = count_up(MLX_FLOAT32, SHAPE(4)), start = count_up(MLX_FLOAT32, SHAPE(3));
    mlx_array a[] = {start, OP(zeros_like, start), x, y}, b[] = {a[0], a[1], x, y};
    runs = 0;
    for (int i = 0; i < 10; i++) {
        mlx_array p[3], q[3];
        if (call(plain, p, 3, a, 4) || call(fun, q, 3, b, 4)) fail_msg("%s", last_error);
        for (int k = 0; k < 3; k++) check_same(q[k], p[k]);
        a[0] = p[1], a[1] = p[2], b[0] = q[1], b[1] = q[2];
    }
    assert_int_equal(runs, 11);
    mlx_closure_free(base);
    mlx_closure_free(plain);
    mlx_closure_free(fun);
    mlx_closure_value_and_grad_free(grad);
}

static int calls_inner(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    return mlx_closure_apply(res, *(mlx_closure *)payload, input);
}

static void test_compiled_functions_nest(void **state) {
    (void)state;
    mlx_closure inner = compiled(mlx_closure_new_func(gate), false);
    mlx_closure outer = compiled(mlx_closure_new_func_payload(calls_inner, &inner, NULL), false);
    runs = 0;
    for (int i = 0; i < 3; i++)
        check_gate(outer, count_up(MLX_FLOAT32, SHAPE(2, 2)), scalar(MLX_FLOAT32, i));
    assert_int_equal(runs, 1);
    mlx_closure_free(outer);
    mlx_closure_free(inner);
}

static void test_disabled_compilation_gives_the_function_itself(void **state) {
    (void)state;
    assert_int_equal(mlx_disable_compile(), 0);
    mlx_closure fun = compiled(mlx_closure_new_func(gate), false);
    runs = 0;
    for (int i = 0; i < 3; i++)
        check_gate(fun, count_up(MLX_FLOAT32, SHAPE(2)), scalar(MLX_FLOAT32, i));
    assert_int_equal(runs, 3);
    mlx_closure_free(fun);
    assert_int_equal(mlx_set_compile_mode(MLX_COMPILE_MODE_NO_FUSE), 0);
    fun = compiled(mlx_closure_new_func(gate), false);
    runs = 0;
    for (int i = 0; i < 3; i++)
        check_gate(fun, count_up(MLX_FLOAT32, SHAPE(2)), scalar(MLX_FLOAT32, i));
    assert_int_equal(runs, 1);
    mlx_closure_free(fun);
    assert_int_equal(mlx_set_compile_mode((mlx_compile_mode)9), 1);
    assert_non_null(strstr(last_error, "9 is not a compile mode"));
    assert_int_equal(mlx_enable_compile(), 0);
    mlx_closure none = mlx_closure_new(), res = mlx_closure_new();
    assert_int_equal(mlx_compile(&res, none, false), 1);
    assert_null(res.ctx);
}

static void test_an_identity_shares_recordings_until_it_is_erased(void **state) {
    (void)state;
    mlx_closure fun = mlx_closure_new_func(gate), a = mlx_closure_new(), b = mlx_closure_new();
    mlx_closure c = mlx_closure_new();
    const uint64_t one = 1, two = 2;
    assert_int_equal(mlx_detail_compile(&a, fun, 77, false, &one, 1), 0);
    assert_int_equal(mlx_detail_compile(&b, fun, 77, false, &one, 1), 0);
    assert_int_equal(mlx_detail_compile(&c, fun, 77, false, &two, 1), 0);
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2)), y = scalar(MLX_FLOAT32, 1);
    runs = 0;
    check_gate(a, x, y);
    check_gate(b, x, y);
    assert_int_equal(runs, 1);
    check_gate(c, x, y);
    assert_int_equal(runs, 2);
    mlx_closure_free(a);
    check_gate(b, x, y);
    assert_int_equal(runs, 2);
    assert_int_equal(mlx_detail_compile_erase(77), 0);
    check_gate(b, x, y);
    assert_int_equal(runs, 3);
    assert_int_equal(mlx_detail_compile_clear_cache(), 0);
    check_gate(b, x, y);
    assert_int_equal(runs, 4);
    mlx_detail_compile_erase(77);
    mlx_closure_free(b);
    mlx_closure_free(c);
    mlx_closure_free(fun);
}

static int frees;
static void count_free(void *payload) {
    mlx_array_free(*(mlx_array *)payload);
    frees++;
}

static void test_recordings_go_with_the_last_handle(void **state) {
    (void)state;
    size_t before, after;
    mlx_get_active_memory(&before);
    mlx_array captured = mlx_array_new(), out[4];
    mlx_zeros(&captured, (int[]){100000}, 1, MLX_FLOAT32, cpu);
    frees = 0;
    mlx_closure fun =
        compiled(mlx_closure_new_func_payload(captures, &captured, count_free), false);
    mlx_closure other = mlx_closure_new();
    mlx_closure_set(&other, fun);
    mlx_closure_free(fun);
    mlx_array x = mlx_array_new_float(1);
    assert_int_equal(call(other, out, 4, &x, 1), 0);
    assert_int_equal(frees, 0);
    mlx_closure_free(other);
    assert_int_equal(frees, 1);
    mlx_array_free(x);
    release_all(NULL);
    mlx_get_active_memory(&after);
    assert_int_equal(after, before);
}

static void *call_many(void *closure) {
    mlx_array x = mlx_array_new_float(2), y = mlx_array_new_float(1), in[] = {x, y};
    float value = 0;
    for (int i = 0; i < 50; i++) {
        mlx_vector_array inputs = mlx_vector_array_new_data(in, 2), outputs = {NULL};
        if (mlx_closure_apply(&outputs, *(mlx_closure *)closure, inputs) == 0) {
            mlx_array r = argument(outputs, 0);
            mlx_array_item_float32(&value, r);
            mlx_array_free(r);
        }
        mlx_vector_array_free(inputs);
        mlx_vector_array_free(outputs);
    }
    mlx_array_free(x);
    mlx_array_free(y);
    return fabsf(value - 2.7615942f) < 1e-6f ? NULL : closure;
}

static int gate_items(mlx_vector_array *res, const mlx_vector_array input) {
    runs++;
    mlx_array x = argument(input, 0), y = argument(input, 1), r = mlx_array_new();
    mlx_stream s = mlx_default_cpu_stream_new();
    const int status = mlx_sigmoid(&r, x, s) || mlx_multiply(&r, r, x, s) || mlx_add(&r, r, y, s);
    if (!status) *res = mlx_vector_array_new_value(r);
    mlx_array_free(x);
    mlx_array_free(y);
    mlx_array_free(r);
    mlx_stream_free(s);
    return status;
}

static void test_every_thread_records_for_itself(void **state) {
    (void)state;
    mlx_closure fun = compiled(mlx_closure_new_func(gate_items), false);
    pthread_t threads[4];
    runs = 0;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_many, &fun), 0);
    for (int i = 0; i < 4; i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        assert_null(problem);
    }
    assert_int_equal(runs, 4);
    mlx_closure_free(fun);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_the_function_runs_once_a_signature),
        TEST(test_captured_arrays_and_random_keys_are_frozen),
        TEST(test_a_failing_function_leaves_nothing_behind),
        TEST(test_values_cannot_be_read_while_recording),
        TEST(test_shapeless_functions_take_other_shapes_without_running),
        TEST(test_shapeless_functions_are_right_whatever_they_compute),
        TEST(test_gradients_pass_through_compiled_functions),
        TEST(test_a_compiled_training_step_trains_as_the_plain_one),
        TEST(test_compiled_functions_nest),
        TEST(test_disabled_compilation_gives_the_function_itself),
        TEST(test_an_identity_shares_recordings_until_it_is_erased),
        TEST(test_recordings_go_with_the_last_handle),
        TEST(test_every_thread_records_for_itself),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
