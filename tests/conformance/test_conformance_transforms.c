/* Gradients, compiled functions and files: the rules of the calls; the numbers of
 * gradients are compared by random_programs. */
#include "conformance/check.h"

#include <unistd.h>

static int calls;

/* (x, y) -> (sum(x * y + x^2), x) */
static int loss(mlx_vector_array *res, const mlx_vector_array in) {
    mlx_array x = mlx_array_new(), y = mlx_array_new(), a = mlx_array_new(), b = mlx_array_new();
    calls++;
    mlx_vector_array_get(&x, in, 0);
    mlx_vector_array_get(&y, in, 1);
    int failed = mlx_multiply(&a, x, y, cpu) || mlx_square(&b, x, cpu) || mlx_add(&a, a, b, cpu) ||
                 mlx_sum(&a, a, false, cpu);
    if (!failed) *res = mlx_vector_array_new_data((mlx_array[]){a, x}, 2);
    mlx_array_free(x);
    mlx_array_free(y);
    mlx_array_free(a);
    mlx_array_free(b);
    return failed;
}

static mlx_array item(mlx_vector_array list, size_t i) {
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_vector_array_get(&array, list, i), 0);
    return keep(array);
}

static void test_vjp_checks_counts_and_shapes(void **state) {
    (void)state;
    mlx_array x = row(MLX_FLOAT32, VALUES(1, 2)), y = row(MLX_FLOAT32, VALUES(3, 5));
    mlx_array one = scalar(MLX_FLOAT32, 1), two = row(MLX_FLOAT32, VALUES(10, 20));
    mlx_closure f = mlx_closure_new_func(loss);
    mlx_vector_array in = vector_of((mlx_array[]){x, y}, 2), out = mlx_vector_array_new();
    mlx_vector_array grads = mlx_vector_array_new();
    mlx_vector_array good = vector_of((mlx_array[]){one, two}, 2), few = vector_of(&one, 1);
    mlx_vector_array wrong = vector_of((mlx_array[]){one, one}, 2);
    assert_int_equal(mlx_vjp(&out, &grads, f, in, good), 0);
    assert_int_equal(mlx_vector_array_size(out), 2);
    check(item(out, 0), 3 + 10 + 1 + 4);
    check(item(grads, 0), 3 + 2 + 10, 5 + 4 + 20);
    check(item(grads, 1), 1, 2);
    assert_int_equal(mlx_vjp(&out, &grads, f, in, few), 1);
    assert_int_equal(mlx_vjp(&out, &grads, f, in, wrong), 1);
    check(item(grads, 1), 1, 2);
    mlx_vector_array tangents = vector_of((mlx_array[]){y, x}, 2);
    assert_int_equal(mlx_jvp(&out, &grads, f, in, tangents), 0);
    check(item(grads, 0), (3 + 2) * 3 + (5 + 4) * 5 + 1 + 4);
    check(item(grads, 1), 3, 5);
    assert_int_equal(mlx_jvp(&out, &grads, f, in, few), 1);
    mlx_vector_array_free(in);
    mlx_vector_array_free(out);
    mlx_vector_array_free(grads);
    mlx_vector_array_free(good);
    mlx_vector_array_free(few);
    mlx_vector_array_free(wrong);
    mlx_vector_array_free(tangents);
    mlx_closure_free(f);
}

static void test_value_and_grad_orders_by_argument(void **state) {
    (void)state;
    mlx_array x = row(MLX_FLOAT32, VALUES(1, 2)), y = row(MLX_FLOAT32, VALUES(3, 5));
    mlx_vector_array in = vector_of((mlx_array[]){x, y}, 2), out = mlx_vector_array_new();
    mlx_vector_array grads = mlx_vector_array_new();
    mlx_closure f = mlx_closure_new_func(loss);
    mlx_closure_value_and_grad g = mlx_closure_value_and_grad_new();
    assert_int_equal(mlx_value_and_grad(&g, f, LIST(1, 0)), 0);
    assert_int_equal(mlx_closure_value_and_grad_apply(&out, &grads, g, in), 0);
    check(item(out, 0), 18);
    check(item(grads, 0), 5, 9);
    check(item(grads, 1), 1, 2);
    assert_int_equal(mlx_value_and_grad(&g, f, LIST(-1)), 0);
    assert_int_equal(mlx_closure_value_and_grad_apply(&out, &grads, g, in), 0);
    assert_int_equal(mlx_vector_array_size(grads), 1);
    check(item(grads, 0), 1, 2);
    assert_int_equal(mlx_value_and_grad(&g, f, NULL, 0), 1);
    mlx_closure_value_and_grad_free(g);
    mlx_closure_free(f);
    mlx_vector_array_free(in);
    mlx_vector_array_free(out);
    mlx_vector_array_free(grads);
}

static void test_compiled_functions_give_the_same(void **state) {
    (void)state;
    mlx_closure f = mlx_closure_new_func(loss), g = mlx_closure_new();
    if (upstream(SPEED)) assert_int_equal(mlx_set_compile_mode(MLX_COMPILE_MODE_NO_FUSE), 0);
    assert_int_equal(mlx_compile(&g, f, false), 0);
    calls = 0;
    mlx_vector_array out = mlx_vector_array_new();
    for (int i = 0; i < 4; i++) {
        mlx_array x = count_up(MLX_FLOAT32, SHAPE(2 + i / 2)), y = OP(exp, x);
        mlx_vector_array in = vector_of((mlx_array[]){x, y}, 2);
        assert_int_equal(mlx_closure_apply(&out, g, in), 0);
        check_same(item(out, 0), OP(sum, OP(add, OP(multiply, x, y), OP(square, x)), false), 1e-6);
        mlx_vector_array_free(in);
    }
    assert_int_equal(calls, 2); /* once for each shape */
    mlx_closure_free(g);
    mlx_closure_free(f);
    mlx_vector_array_free(out);
}

static void test_files_come_back_as_they_were(void **state) {
    (void)state;
    char path[] = "/tmp/conformance-XXXXXX.safetensors", npy[] = "/tmp/conformance-XXXXXX.npy";
    close(mkstemps(path, 12));
    close(mkstemps(npy, 4));
    mlx_map_string_to_array arrays = mlx_map_string_to_array_new(),
                            back = mlx_map_string_to_array_new();
    mlx_map_string_to_string texts = mlx_map_string_to_string_new(),
                             found = mlx_map_string_to_string_new();
    mlx_map_string_to_string_insert(texts, "format", "mlx");
    for (int dtype = 0; dtype < 14; dtype++) {
        if (dtype == MLX_FLOAT64) continue;
        char name[8];
        snprintf(name, sizeof name, "t%d", dtype);
        mlx_map_string_to_array_insert(
            arrays, name,
            OP(transpose, OP(astype, count_up(MLX_INT32, SHAPE(2, 3)), (mlx_dtype)dtype)));
    }
    if (mlx_save_safetensors(path, arrays, texts)) fail_msg("%s", last_error);
    assert_int_equal(mlx_load_safetensors(&back, &found, path, cpu), 0);
    mlx_array value = mlx_array_new(), old = mlx_array_new();
    for (int dtype = 0; dtype < 14; dtype++) {
        if (dtype == MLX_FLOAT64) continue;
        char name[8];
        snprintf(name, sizeof name, "t%d", dtype);
        assert_int_equal(mlx_map_string_to_array_get(&value, back, name), 0);
        assert_int_equal(mlx_map_string_to_array_get(&old, arrays, name), 0);
        check_shape(value, (mlx_dtype)dtype, SHAPE(3, 2));
        check(OP(array_equal, value, old, false), 1);
        /* numpy has no bfloat16: its 16 bits come back as another type */
        if (dtype == MLX_BFLOAT16) continue;
        assert_int_equal(mlx_save(npy, old), 0);
        assert_int_equal(mlx_load(&value, npy, cpu), 0);
        check(OP(array_equal, value, old, false), 1);
    }
    mlx_map_string_to_array_insert(arrays, "empty", empty(MLX_FLOAT32, SHAPE(0, 2)));
    assert_int_equal(mlx_save_safetensors(path, arrays, texts), 1);
    const char *text;
    assert_int_equal(mlx_map_string_to_string_get(&text, found, "format"), 0);
    assert_string_equal(text, "mlx");
    assert_int_equal(mlx_load_safetensors(&back, &found, "/nonexistent.safetensors", cpu), 1);
    assert_int_equal(mlx_load(&value, "/nonexistent.npy", cpu), 1);
    assert_int_equal(mlx_load_safetensors(&back, &found, npy, cpu), 1);
    mlx_array_free(value);
    mlx_array_free(old);
    mlx_map_string_to_array_free(arrays);
    mlx_map_string_to_array_free(back);
    mlx_map_string_to_string_free(texts);
    mlx_map_string_to_string_free(found);
    unlink(path);
    unlink(npy);
}

RUN(TEST(test_vjp_checks_counts_and_shapes), TEST(test_value_and_grad_orders_by_argument),
    TEST(test_compiled_functions_give_the_same), TEST(test_files_come_back_as_they_were))
