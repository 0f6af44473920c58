/* The loss over a large vocabulary without its products. A function that lets go
 * of the logits is compared with the same one that holds them. */
#include "grad_check.h"

#include "mlx/c/memory.h"

enum { ROWS = 40, WORDS = 1 << 17, DEPTH = 32 };

static bool holds; /* the logits, so that they are needed as a whole */
static bool casts; /* the logits to float32 */
static mlx_array targets, packed[3];

/* logsumexp(logits) - logits[target]; takes over logits. */
static mlx_array loss_of(mlx_array logits) {
    if (casts) {
        mlx_array cast = mlx_array_new();
        assert_int_equal(mlx_astype(&cast, logits, MLX_FLOAT32, cpu), 0);
        mlx_array_free(logits);
        logits = cast;
    }
    mlx_array score = OP(take_along_axis, logits, targets, -1);
    mlx_array loss = OP(subtract, OP(logsumexp_axis, logits, -1, true), score);
    if (holds)
        keep(logits);
    else
        mlx_array_free(logits);
    return loss;
}

static mlx_array dense_loss(const mlx_array *x) { /* x [ROWS, DEPTH], w [WORDS, DEPTH] */
    mlx_array logits = mlx_array_new();
    assert_int_equal(mlx_matmul(&logits, x[0], OP(transpose, x[1]), cpu), 0);
    return loss_of(logits);
}

static mlx_array packed_loss(const mlx_array *x) {
    mlx_array logits = mlx_array_new();
    assert_int_equal(mlx_quantized_matmul(&logits, x[0], packed[0], packed[1], packed[2], true,
                                          some(32), some(4), "affine", cpu),
                     0);
    return loss_of(logits);
}

static mlx_array numbers(mlx_dtype dtype, int rows, double scale) {
    mlx_array x =
        OP(sin, OP(multiply, count_up(MLX_FLOAT32, SHAPE(rows, DEPTH)), scalar(MLX_FLOAT32, 0.7)));
    return OP(astype, OP(multiply, x, scalar(MLX_FLOAT32, scale)), dtype);
}

static int set_up(void **state) {
    holds = casts = false;
    mlx_array line = OP(multiply, OP(arange, 0, ROWS, 1, MLX_INT32), scalar(MLX_INT32, 3271));
    targets = OP(reshape, line, INTS(ROWS, 1)); /* the last one: word 127569 */
    (void)state;
    return 0;
}

/* Largest difference, relative to the largest value. */
static double distance(mlx_array a, mlx_array b) {
    const double *x = doubles(a), *y = doubles(b);
    double worst = 0, large = 1e-30;
    assert_int_equal(mlx_array_size(a), mlx_array_size(b));
    for (size_t i = 0; i < mlx_array_size(a); i++) {
        worst = fmax(worst, fabs(x[i] - y[i]));
        large = fmax(large, fabs(y[i]));
    }
    return worst / large;
}

static void near_held(GradFunction function, const mlx_array *inputs, size_t n, double tolerance) {
    mlx_array grads[2][GRAD_INPUTS], values[2];
    for (int i = 0; i < 2; i++) {
        holds = i;
        values[i] = function(inputs);
        gradients(function, inputs, n, weights_like(values[i]), grads[i]);
    }
    holds = false;
    if (distance(values[0], values[1]) > tolerance)
        fail_msg("values differ by %g", distance(values[0], values[1]));
    for (size_t i = 0; i < n; i++)
        if (distance(grads[0][i], grads[1][i]) > tolerance)
            fail_msg("gradients of %zu differ by %g", i, distance(grads[0][i], grads[1][i]));
}

static void test_a_dense_head_gives_the_values_and_gradients_of_held_logits(void **state) {
    set_up(state);
    near_held(dense_loss,
              (mlx_array[]){numbers(MLX_FLOAT32, ROWS, 1), numbers(MLX_FLOAT32, WORDS, 0.5)}, 2,
              1e-5);
}

static mlx_array frozen_words;
static mlx_array frozen_loss(const mlx_array *x) {
    return dense_loss((mlx_array[]){x[0], frozen_words});
}

static void test_a_head_that_does_not_train(void **state) {
    set_up(state);
    frozen_words = numbers(MLX_FLOAT32, WORDS, 0.5);
    near_held(frozen_loss, (mlx_array[]){numbers(MLX_FLOAT32, ROWS, 1)}, 1, 1e-5);
    near_held(frozen_loss, (mlx_array[]){numbers(MLX_FLOAT32, ROWS, 300)}, 1, 1e-5);
    casts = true;
    frozen_words = numbers(MLX_BFLOAT16, WORDS, 0.5);
    near_held(frozen_loss, (mlx_array[]){numbers(MLX_BFLOAT16, ROWS, 1)}, 1, 1e-2);
}

static void test_bfloat16_logits_cast_to_float32(void **state) {
    set_up(state);
    casts = true;
    near_held(dense_loss,
              (mlx_array[]){numbers(MLX_BFLOAT16, ROWS, 1), numbers(MLX_BFLOAT16, WORDS, 0.5)}, 2,
              1e-2);
}

static void test_a_packed_head(void **state) {
    set_up(state);
    mlx_vector_array parts = mlx_vector_array_new();
    assert_int_equal(mlx_quantize(&parts, numbers(MLX_FLOAT32, WORDS, 0.5), some(32), some(4),
                                  "affine", NONE, cpu),
                     0);
    for (size_t i = 0; i < 3; i++) {
        packed[i] = mlx_array_new();
        mlx_vector_array_get(&packed[i], parts, i);
        keep(packed[i]);
    }
    mlx_vector_array_free(parts);
    near_held(packed_loss, (mlx_array[]){numbers(MLX_FLOAT32, ROWS, 1)}, 1, 1e-5);
}

static void test_gradients_of_the_gradient(void **state) {
    set_up(state);
    mlx_array inputs[] = {numbers(MLX_FLOAT32, ROWS, 1), numbers(MLX_FLOAT32, WORDS, 0.5), NONE};
    inputs[2] = OP(sin, count_up(MLX_FLOAT32, SHAPE(ROWS, 1)));
    grad_target = dense_loss;
    near_held(gradient_line_3, inputs, 3, 1e-4);
}

static void test_the_logits_are_never_there(void **state) {
    set_up(state);
    mlx_array inputs[] = {numbers(MLX_FLOAT32, ROWS, 1), numbers(MLX_FLOAT32, WORDS, 0.5)};
    mlx_array grads[2], g = OP(full, INTS(ROWS, 1), scalar(MLX_FLOAT32, 1), MLX_FLOAT32);
    size_t before, peak;
    for (int i = 0; i < 2; i++) mlx_array_eval(inputs[i]);
    mlx_array_eval(targets);
    mlx_get_active_memory(&before);
    mlx_reset_peak_memory();
    mlx_array_eval(dense_loss(inputs));
    mlx_get_peak_memory(&peak);
    assert_true(peak - before < 1 << 16);
    gradients(dense_loss, inputs, 2, g, grads);
    mlx_reset_peak_memory();
    mlx_array_eval(grads[1]);
    mlx_get_peak_memory(&peak);
    assert_true(peak - before < WORDS * DEPTH * sizeof(float) + (1 << 16));
}

static void test_a_target_outside_the_vocabulary_is_an_error(void **state) {
    set_up(state);
    targets = OP(full, INTS(ROWS, 1), scalar(MLX_INT32, WORDS), MLX_INT32);
    mlx_array loss =
        dense_loss((mlx_array[]){numbers(MLX_FLOAT32, ROWS, 1), numbers(MLX_FLOAT32, WORDS, 0.5)});
    assert_int_equal(mlx_array_eval(loss), 1);
    assert_non_null(strstr(last_error, "take_along_axis"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_a_dense_head_gives_the_values_and_gradients_of_held_logits),
        TEST(test_a_head_that_does_not_train),
        TEST(test_bfloat16_logits_cast_to_float32),
        TEST(test_a_packed_head),
        TEST(test_gradients_of_the_gradient),
        TEST(test_the_logits_are_never_there),
        TEST(test_a_target_outside_the_vocabulary_is_an_error),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
