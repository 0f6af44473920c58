/* Gradient rules of products and convolutions, first and second order, against
 * central differences in float64; in float32 against the float64 gradients. */
#include "grad_check.h"

#include <math.h>

/* Numbers without a pattern, about 1 in size. */
static mlx_array wavy(const int *shape, int ndim, double phase) {
    int size = 1;
    for (int i = 0; i < ndim; i++) size *= shape[i];
    double *values = malloc((size_t)size * sizeof *values);
    for (int i = 0; i < size; i++) values[i] = sin(phase + 1.3 * i) + .3 * cos(phase * i);
    mlx_array array = make(MLX_FLOAT64, shape, ndim, values, (size_t)size);
    free(values);
    return array;
}

static mlx_array einsum(const char *text, const mlx_array *x, size_t n) {
    mlx_vector_array vector = vector_of(x, n);
    mlx_array out = mlx_array_new();
    const int status = mlx_einsum(&out, text, vector, cpu);
    mlx_vector_array_free(vector);
    return must(status, out);
}

static mlx_array chain_of(const mlx_array *x) {
    return einsum("ij,jk,kk->ik", x, 3);
}
static mlx_array tensordot_of(const mlx_array *x) {
    return OP(tensordot, x[0], x[1], INTS(1), INTS(0));
}
static mlx_array inner_of(const mlx_array *x) {
    return OP(inner, x[0], x[0]);
}
static mlx_array outer_of(const mlx_array *x) {
    return OP(outer, x[0], x[1]);
}

static void test_einsum_and_kin(void **state) {
    (void)state;
    const mlx_array x[] = {wavy(SHAPE(2, 3), 1), wavy(SHAPE(3, 2), 2), wavy(SHAPE(2, 2), 3)};
    check_gradients(chain_of, x, 3);
    check_gradients(tensordot_of, x, 2);
    check_gradients(inner_of, x, 1);
    check_gradients(outer_of, x, 2);
}

static mlx_array gather_right_of(const mlx_array *x) {
    return OP(gather_mm, x[0], x[1], NONE, make(MLX_UINT32, SHAPE(4), VALUES(1, 0, 1, 1)), false);
}
static mlx_array gather_both_of(const mlx_array *x) {
    return OP(gather_mm, x[0], x[1], make(MLX_UINT32, SHAPE(3, 1), VALUES(2, 0, 2)),
              make(MLX_UINT32, SHAPE(2), VALUES(1, 1)), false);
}

static void test_gather_mm(void **state) {
    (void)state;
    const mlx_array rows[] = {wavy(SHAPE(4, 1, 3), 1), wavy(SHAPE(2, 3, 2), 2)};
    check_gradients(gather_right_of, rows, 2);
    const mlx_array matrices[] = {wavy(SHAPE(4, 2, 3), 1), wavy(SHAPE(2, 3, 2), 2)};
    check_gradients(gather_right_of, matrices, 2);
    check_gradients(gather_both_of, matrices, 2);
}

static mlx_array masked_of(const mlx_array *x) {
    return OP(block_masked_mm, x[0], x[1], 32, NONE, x[2], NONE);
}
static mlx_array segmented_of(const mlx_array *x) {
    return OP(segmented_mm, x[0], x[1], make(MLX_UINT32, SHAPE(3, 2), VALUES(0, 2, 1, 4, 3, 3)));
}

static void test_masked_and_segmented_mm(void **state) {
    (void)state;
    const mlx_array x[] = {wavy(SHAPE(2, 34), 1), wavy(SHAPE(34, 2), 2), wavy(SHAPE(1, 2), 3)};
    check_gradient(masked_of, x, 3, 1e-6, 1e-7);
    const mlx_array y[] = {wavy(SHAPE(2, 4), 1), wavy(SHAPE(4, 3), 2)};
    check_gradients(segmented_of, y, 2);
}

static mlx_array hadamard_of(const mlx_array *x) {
    return OP(hadamard_transform, x[0], (mlx_optional_float){0, false});
}

static void test_hadamard_transform(void **state) {
    (void)state;
    const mlx_array power = wavy(SHAPE(2, 8), 1), twelve = wavy(SHAPE(24), 2);
    check_gradients(hadamard_of, &power, 1);
    check_gradients(hadamard_of, &twelve, 1);
}

/* ---- convolutions -------------------------------------------------------------------- */

static mlx_array plain_of(const mlx_array *x) {
    return OP(conv1d, x[0], x[1], 1, 1, 1, 1);
}
static mlx_array grouped_of(const mlx_array *x) {
    return OP(conv1d, x[0], x[1], 2, 1, 2, 2);
}
static mlx_array flipped_of(const mlx_array *x) {
    return OP(conv_general, x[0], x[1], INTS(2, 1), INTS(1, 0), INTS(2, 3), INTS(1, 2), INTS(3, 2),
              1, true);
}
static mlx_array cropped_of(const mlx_array *x) {
    return OP(conv_general, x[0], x[1], INTS(1, 1), INTS(-1, 3), INTS(0, -1), INTS(1, 1),
              INTS(1, 1), 1, false);
}
static mlx_array transposed_of(const mlx_array *x) {
    return OP(conv_transpose2d, x[0], x[1], 2, 3, 1, 0, 1, 1, 1, 0, 1);
}
static mlx_array solid_of(const mlx_array *x) {
    return OP(conv3d, x[0], x[1], 1, 2, 1, 0, 1, 0, 1, 1, 1, 1);
}

static void test_convolutions(void **state) {
    (void)state;
    mlx_array x[] = {wavy(SHAPE(2, 5, 2), 1), wavy(SHAPE(3, 3, 2), 2)};
    check_gradients(plain_of, x, 2);
    mlx_array grouped[] = {wavy(SHAPE(1, 7, 4), 1), wavy(SHAPE(2, 2, 2), 2)};
    check_gradients(grouped_of, grouped, 2);
    mlx_array flat[] = {wavy(SHAPE(1, 3, 4, 2), 1), wavy(SHAPE(2, 2, 2, 2), 2)};
    check_gradient(flipped_of, flat, 2, 1e-6, 1e-7);
    check_gradient(cropped_of, flat, 2, 1e-6, 1e-7);
    check_gradient(transposed_of, flat, 2, 1e-6, 1e-7);
    mlx_array solid[] = {wavy(SHAPE(1, 2, 3, 2, 1), 1), wavy(SHAPE(2, 2, 2, 1, 1), 2)};
    check_gradient(solid_of, solid, 2, 1e-6, 1e-7);
}

static void check_float32(GradFunction function, const mlx_array *x) {
    mlx_array narrow[2], wide_grads[2], grads[2];
    mlx_array weights = weights_like(function(x));
    for (int i = 0; i < 2; i++) narrow[i] = OP(astype, x[i], MLX_FLOAT32);
    gradients(function, x, 2, weights, wide_grads);
    gradients(function, narrow, 2, OP(astype, weights, MLX_FLOAT32), grads);
    for (int i = 0; i < 2; i++)
        check_near(grads[i], doubles(wide_grads[i]), mlx_array_size(grads[i]), 2e-4);
}

static mlx_array depthwise_of(const mlx_array *x) {
    return OP(conv1d, x[0], x[1], 1, 2, 1, 70);
}
static mlx_array experts_of(const mlx_array *x) {
    double order[40];
    for (int i = 0; i < 40; i++) order[i] = i * 7 % 5;
    return OP(gather_mm, x[0], x[1], NONE, make(MLX_UINT32, SHAPE(40), order, 40), false);
}

static void test_float32_agrees_with_float64(void **state) {
    (void)state;
    check_float32(plain_of, (mlx_array[]){wavy(SHAPE(2, 40, 9), 1), wavy(SHAPE(17, 3, 9), 2)});
    check_float32(grouped_of, (mlx_array[]){wavy(SHAPE(2, 40, 8), 1), wavy(SHAPE(6, 3, 4), 2)});
    check_float32(depthwise_of, (mlx_array[]){wavy(SHAPE(2, 9, 70), 1), wavy(SHAPE(70, 4, 1), 2)});
    check_float32(flipped_of,
                  (mlx_array[]){wavy(SHAPE(2, 9, 8, 5), 1), wavy(SHAPE(7, 3, 2, 5), 2)});
    check_float32(transposed_of,
                  (mlx_array[]){wavy(SHAPE(2, 9, 8, 5), 1), wavy(SHAPE(7, 3, 2, 5), 2)});
    check_float32(experts_of, (mlx_array[]){wavy(SHAPE(40, 1, 20), 1), wavy(SHAPE(5, 20, 18), 2)});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_einsum_and_kin),
        TEST(test_gather_mm),
        TEST(test_masked_and_segmented_mm),
        TEST(test_hadamard_transform),
        TEST(test_convolutions),
        TEST(test_float32_agrees_with_float64),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
