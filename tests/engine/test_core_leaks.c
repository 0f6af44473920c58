/* Nothing is left behind by evaluations, however many: every array, handle, closure
 * and string lives on the heap, so the heap does not grow by a byte a round of them.
 * MLX_RAG_LEAK_ROUNDS makes the run longer; a round is about ten evaluations. */
#include "engine/ops_check.h"

#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static int multiply_and_sum(mlx_vector_array *res, const mlx_vector_array input) {
    mlx_array a = mlx_array_new(), b = mlx_array_new(), y = mlx_array_new();
    int failed = mlx_vector_array_get(&a, input, 0) || mlx_vector_array_get(&b, input, 1) ||
                 mlx_matmul(&y, a, b, cpu) || mlx_tanh(&y, y, cpu) || mlx_sum(&y, y, false, cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(a);
    mlx_array_free(b);
    mlx_array_free(y);
    return failed;
}

static int fails(mlx_vector_array *res, const mlx_vector_array input) {
    (void)res;
    (void)input;
    return 1;
}

typedef struct Round {
    mlx_array a, b, ids, words; /* [8, 32], [32, 32], [3], quantised b and its scales */
    mlx_vector_array quantised;
    mlx_closure compiled;
} Round;

static void element_wise_and_views(const Round *round) {
    mlx_array x = mlx_array_new(), y = mlx_array_new();
    mlx_add(&x, round->a, round->a, cpu);
    mlx_transpose(&y, x, cpu);
    mlx_exp(&x, y, cpu);
    mlx_slice(&x, x, (int[]){0, 1}, 2, (int[]){32, 8}, 2, (int[]){3, 2}, 2, cpu);
    mlx_softmax_axis(&x, x, -1, true, cpu);
    mlx_take_axis(&y, round->b, round->ids, 0, cpu);
    mlx_fast_rms_norm(&y, y, mlx_array_empty, 1e-5f, cpu);
    assert_int_equal(mlx_array_eval(x), 0);
    assert_int_equal(mlx_array_eval(y), 0);
    mlx_string text = mlx_string_new();
    mlx_array_tostring(&text, y);
    mlx_string_free(text);
    mlx_array_free(x);
    mlx_array_free(y);
}

static void products(const Round *round) {
    mlx_array x = mlx_array_new(), scales = mlx_array_new(), biases = mlx_array_new();
    mlx_vector_array_get(&scales, round->quantised, 1);
    mlx_vector_array_get(&biases, round->quantised, 2);
    mlx_quantized_matmul(&x, round->a, round->words, scales, biases, true,
                         (mlx_optional_int){32, true}, (mlx_optional_int){4, true}, "affine", cpu);
    mlx_matmul(&x, x, round->b, cpu);
    assert_int_equal(mlx_array_eval(x), 0);
    mlx_random_normal(&x, (int[]){4, 5}, 2, MLX_FLOAT32, 0, 1, mlx_array_empty, cpu);
    mlx_sort(&x, x, cpu);
    assert_int_equal(mlx_array_eval(x), 0);
    mlx_multiply(&x, x, x, cpu); /* never evaluated */
    mlx_array_free(scales);
    mlx_array_free(biases);
    mlx_array_free(x);
}

static void transforms(const Round *round) {
    mlx_vector_array input = mlx_vector_array_new_data((mlx_array[]){round->a, round->b}, 2);
    mlx_vector_array values = mlx_vector_array_new(), gradients = mlx_vector_array_new();
    mlx_closure function = mlx_closure_new_func(multiply_and_sum), again = mlx_closure_new();
    mlx_closure_value_and_grad gradient = mlx_closure_value_and_grad_new();
    mlx_checkpoint(&again, function);
    mlx_value_and_grad(&gradient, again, (int[]){0, 1}, 2);
    assert_int_equal(mlx_closure_value_and_grad_apply(&values, &gradients, gradient, input), 0);
    assert_int_equal(mlx_eval(gradients), 0);
    assert_int_equal(mlx_closure_apply(&values, round->compiled, input), 0);
    assert_int_equal(mlx_eval(values), 0);
    mlx_closure_free(function);
    mlx_closure_free(again);
    mlx_closure_value_and_grad_free(gradient);
    mlx_vector_array_free(values);
    mlx_vector_array_free(gradients);
    mlx_vector_array_free(input);
}

static void failures(const Round *round) {
    mlx_array x = mlx_array_new();
    mlx_vector_array input = mlx_vector_array_new_value(round->a), output = mlx_vector_array_new();
    mlx_closure function = mlx_closure_new_func(fails), compiled = mlx_closure_new();
    mlx_compile(&compiled, function, false);
    assert_int_equal(mlx_closure_apply(&output, compiled, input), 1);
    assert_int_equal(mlx_add(&x, round->a, round->ids, cpu), 1);
    assert_int_equal(mlx_reshape(&x, round->a, (int[]){7}, 1, cpu), 1);
    mlx_closure_free(function);
    mlx_closure_free(compiled);
    mlx_vector_array_free(input);
    mlx_vector_array_free(output);
    mlx_array_free(x);
}

static size_t heap(void) {
    mlx_clear_cache();
#ifdef __GLIBC__
    return mallinfo2().uordblks;
#else
    return 0; /* the active memory is checked all the same */
#endif
}

static void test_many_evaluations_leave_the_heap_as_it_was(void **state) {
    (void)state;
    const char *wanted = getenv("MLX_RAG_LEAK_ROUNDS");
    const long rounds = wanted ? strtol(wanted, NULL, 10) : 10000;
    Round round = {mlx_array_new(), mlx_array_new(),        mlx_array_new(),
                   mlx_array_new(), mlx_vector_array_new(), mlx_closure_new()};
    mlx_random_normal(&round.a, (int[]){8, 32}, 2, MLX_FLOAT32, 0, 1, mlx_array_empty, cpu);
    mlx_random_normal(&round.b, (int[]){32, 32}, 2, MLX_FLOAT32, 0, 1, mlx_array_empty, cpu);
    round.ids = mlx_array_new_data((int[]){3, 1, 2}, (int[]){3}, 1, MLX_INT32);
    mlx_quantize(&round.quantised, round.b, (mlx_optional_int){32, true},
                 (mlx_optional_int){4, true}, "affine", mlx_array_empty, cpu);
    mlx_vector_array_get(&round.words, round.quantised, 0);
    mlx_closure function = mlx_closure_new_func(multiply_and_sum);
    mlx_compile(&round.compiled, function, false);
    mlx_eval(round.quantised);
    size_t before = 0, active_before = 0, active = 0;
    for (long i = -200; i < rounds; i++) {
        if (i == 0) before = heap(), mlx_get_active_memory(&active_before);
        element_wise_and_views(&round);
        products(&round);
        transforms(&round);
        failures(&round);
    }
    /* malloc keeps some freed blocks that it counts as used, always the same few. */
    assert_true(heap() < before + (size_t)rounds);
    mlx_get_active_memory(&active);
    assert_int_equal(active, active_before);
    mlx_closure_free(function);
    mlx_closure_free(round.compiled);
    mlx_vector_array_free(round.quantised);
    mlx_array_free(round.a);
    mlx_array_free(round.b);
    mlx_array_free(round.ids);
    mlx_array_free(round.words);
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_many_evaluations_leave_the_heap_as_it_was)};
    return cmocka_run_group_tests(tests, start, finish);
}
