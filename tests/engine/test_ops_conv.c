/* Convolutions: numbers from mlx 0.31.2, and random ones of every kind against
 * plain loops. */
#include "ops_check.h"

#include <stdlib.h>

static const int *const none = NULL;

static void test_conv1d(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(1, 5, 2)), w = count_up(MLX_FLOAT32, SHAPE(2, 3, 2));
    mlx_array y = OP(conv1d, x, w, 1, 0, 1, 1);
    check_shape(y, MLX_FLOAT32, SHAPE(1, 3, 2));
    check(y, 55, 145, 85, 247, 115, 349);
    check(OP(conv1d, x, w, 2, 1, 1, 1), 26, 62, 85, 247, 50, 230);
    check(OP(conv1d, x, count_up(MLX_FLOAT32, SHAPE(1, 2, 2)), 1, 0, 3, 1), 34, 46);
    check_shape(OP(conv1d, OP(astype, x, MLX_BFLOAT16), OP(astype, w, MLX_FLOAT16), 1, 0, 1, 1),
                MLX_FLOAT32, SHAPE(1, 3, 2));
}

static void test_conv_groups(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT16, SHAPE(1, 4, 2));
    check(OP(conv1d, x, count_up(MLX_FLOAT16, SHAPE(4, 2, 1)), 1, 0, 1, 2), 2, 6, 19, 27, 4, 16, 37,
          53, 6, 26, 55, 79);
    check(OP(conv1d, x, count_up(MLX_FLOAT16, SHAPE(2, 3, 1)), 1, 1, 1, 2), 4, 19, 10, 40, 16, 64,
          6, 43);
}

static void test_conv2d_and_3d(void **state) {
    (void)state;
    check(OP(conv2d, count_up(MLX_BFLOAT16, SHAPE(1, 3, 3, 1)),
             count_up(MLX_BFLOAT16, SHAPE(1, 2, 2, 1)), 1, 1, 1, 0, 1, 1, 1),
          3, 8, 19, 25, 37, 43, 7, 8);
    check(OP(conv3d, count_up(MLX_FLOAT64, SHAPE(1, 2, 2, 3, 1)),
             count_up(MLX_FLOAT64, SHAPE(1, 2, 1, 2, 1)), 1, 1, 1, 0, 0, 0, 1, 1, 1, 1),
          34, 40, 52, 58);
}

static void test_conv_general(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(1, 4, 1)), w = count_up(MLX_FLOAT32, SHAPE(1, 3, 1));
    check(OP(conv_general, x, w, INTS(1), INTS(2), INTS(1), INTS(1), INTS(2), 1, true), 0, 0, 0, 1,
          2, 2, 4, 3);
    /* Negative padding crops; empty lists are 1 and 0. */
    check(OP(conv_general, count_up(MLX_FLOAT32, SHAPE(1, 6, 1)),
             count_up(MLX_FLOAT32, SHAPE(1, 2, 1)), none, 0, INTS(-1), INTS(-2), none, 0, none, 0,
             1, false),
          2, 3);
    check_shape(OP(conv_general, OP(zeros, INTS(0, 4, 1), MLX_FLOAT32), w, none, 0, none, 0, none,
                   0, none, 0, none, 0, 1, false),
                MLX_FLOAT32, SHAPE(0, 2, 1));
}

static void test_conv_transpose(void **state) {
    (void)state;
    check(OP(conv_transpose1d, count_up(MLX_FLOAT32, SHAPE(1, 3, 2)),
             count_up(MLX_FLOAT32, SHAPE(1, 3, 2)), 2, 1, 1, 1, 1),
          3, 8, 13, 28, 23, 41);
    check(OP(conv_transpose2d, count_up(MLX_FLOAT32, SHAPE(1, 2, 2, 1)),
             count_up(MLX_FLOAT32, SHAPE(1, 2, 2, 1)), 2, 2, 0, 0, 1, 1, 0, 0, 1),
          0, 0, 0, 1, 0, 0, 2, 3, 0, 2, 0, 3, 4, 6, 6, 9);
    check(OP(conv_transpose3d, count_up(MLX_FLOAT32, SHAPE(1, 1, 2, 2, 1)),
             count_up(MLX_FLOAT32, SHAPE(1, 1, 2, 2, 1)), 1, 2, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1),
          0, 0, 1, 0, 2, 3, 0, 2, 3, 4, 12, 9);
}

static void test_conv_refuses_bad_input(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 5, 4));
    FAILS("input: (2,5,4) and weight: (4,3,2)", conv1d, x, count_up(MLX_FLOAT32, SHAPE(4, 3, 2)), 1,
          0, 1, 1);
    FAILS("Invalid weight array with 4", conv1d, x, count_up(MLX_FLOAT32, SHAPE(4, 3, 2, 4)), 1, 0,
          1, 1);
    mlx_array w = count_up(MLX_FLOAT32, SHAPE(4, 3, 4));
    FAILS("cannot be smaller", conv1d, x, w, 1, 0, 3, 1);
    FAILS("Stride sizes must be positive", conv1d, x, w, 0, 0, 1, 1);
    FAILS("Kernel dilation sizes must be positive", conv1d, x, w, 1, 0, -1, 1);
    FAILS("divisible by the number of groups", conv1d, x, w, 1, 0, 1, 3);
    FAILS("expected to have 8 input channels", conv1d, x, w, 1, 0, 1, 2);
    FAILS("must be positive, but got 0", conv1d, x, w, 1, 0, 1, 0);
    FAILS("Invalid strides (1,1) for 1D", conv2d, x, w, 1, 1, 0, 0, 1, 1, 1);
    FAILS("1-3 spatial", conv1d, count_up(MLX_FLOAT32, SHAPE(5, 4)), w, 1, 0, 1, 1);
    FAILS("groups != 1", conv3d, count_up(MLX_FLOAT32, SHAPE(1, 2, 2, 2, 2)),
          count_up(MLX_FLOAT32, SHAPE(2, 1, 1, 1, 1)), 1, 1, 1, 0, 0, 0, 1, 1, 1, 2);
    FAILS("real floating", conv1d, count_up(MLX_INT32, SHAPE(2, 5, 4)),
          count_up(MLX_INT32, SHAPE(4, 3, 4)), 1, 0, 1, 1);
    FAILS("3 dimensions following", conv_transpose1d, scalar(MLX_FLOAT32, 1), w, 1, 0, 1, 0, 1);
}

/* ---- random ones ------------------------------------------------------------------- */

static uint32_t random_state = 12345;
static int pick(int from, int to) { /* both inclusive */
    random_state = random_state * 1664525u + 1013904223u;
    return from + (int)((random_state >> 8) % (uint32_t)(to - from + 1));
}

typedef struct Case {
    int x[4], w[4], out[2], stride[2], low[2], high[2], dilation[2], spread[2], groups;
    bool flip;
} Case;

/* Two axes of space; small whole numbers, so that every type is exact. */
static double expected_item(const Case *c, const double *x, const double *w, const int *at) {
    const int group_in = c->w[3], group = at[3] / (c->w[0] / c->groups);
    double sum = 0;
    for (int i = 0; i < c->w[1]; i++)
        for (int j = 0; j < c->w[2]; j++) {
            const int row = at[1] * c->stride[0] + i * c->dilation[0] - c->low[0];
            const int column = at[2] * c->stride[1] + j * c->dilation[1] - c->low[1];
            if (row < 0 || column < 0 || row % c->spread[0] || column % c->spread[1]) continue;
            if (row / c->spread[0] >= c->x[1] || column / c->spread[1] >= c->x[2]) continue;
            const int pixel =
                (at[0] * c->x[1] + row / c->spread[0]) * c->x[2] + column / c->spread[1];
            const int tap =
                c->flip ? (c->w[1] - 1 - i) * c->w[2] + c->w[2] - 1 - j : i * c->w[2] + j;
            for (int k = 0; k < group_in; k++)
                sum += x[pixel * c->x[3] + group * group_in + k] *
                       w[(at[3] * c->w[1] * c->w[2] + tap) * group_in + k];
        }
    return sum;
}

static bool random_case(Case *c, bool depthwise) {
    c->groups = depthwise ? pick(2, 90) : pick(1, 3);
    const int in = depthwise ? 1 : pick(1, 4), out = depthwise ? 1 : pick(1, 5);
    c->x[0] = pick(1, 2);
    c->x[3] = in * c->groups;
    c->w[0] = out * c->groups;
    c->w[3] = in;
    for (int i = 0; i < 2; i++) {
        c->x[i + 1] = pick(1, 9);
        c->w[i + 1] = pick(1, 3);
        c->stride[i] = pick(1, 3);
        c->low[i] = pick(0, 3);
        c->high[i] = pick(0, 3);
        c->dilation[i] = pick(1, 3);
        c->spread[i] = pick(0, 1) ? 1 : pick(1, 3);
        const int room = c->spread[i] * (c->x[i + 1] - 1) + c->low[i] + c->high[i] -
                         c->dilation[i] * (c->w[i + 1] - 1);
        if (room < 0) return false;
        c->out[i] = room / c->stride[i] + 1;
    }
    c->flip = pick(0, 1);
    return true;
}

static mlx_array random_array(mlx_dtype dtype, const int *shape) {
    const int size = shape[0] * shape[1] * shape[2] * shape[3];
    double *values = malloc((size_t)size * sizeof *values);
    for (int i = 0; i < size; i++) values[i] = pick(-2, 2);
    mlx_array array = make(dtype, shape, 4, values, (size_t)size);
    free(values);
    return array;
}

static void test_conv_of_every_kind_matches_plain_loops(void **state) {
    (void)state;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64};
    for (int t = 0; t < 240; t++) {
        Case c;
        if (!random_case(&c, t % 3 == 0)) continue;
        mlx_array x = random_array(dtypes[t % 4], c.x), w = random_array(dtypes[t % 4], c.w);
        mlx_array y = OP(conv_general, x, w, c.stride, 2, c.low, 2, c.high, 2, c.dilation, 2,
                         c.spread, 2, c.groups, c.flip);
        check_shape(y, dtypes[t % 4], SHAPE(c.x[0], c.out[0], c.out[1], c.w[0]));
        const double *got = doubles(y), *xs = doubles(x), *ws = doubles(w);
        int at[4];
        for (at[0] = 0; at[0] < c.x[0]; at[0]++)
            for (at[1] = 0; at[1] < c.out[0]; at[1]++)
                for (at[2] = 0; at[2] < c.out[1]; at[2]++)
                    for (at[3] = 0; at[3] < c.w[0]; at[3]++, got++)
                        if (*got != expected_item(&c, xs, ws, at))
                            fail_msg("case %d, output %d %d %d %d is %g", t, at[0], at[1], at[2],
                                     at[3], *got);
        release_all(NULL);
    }
}

/* More outputs than a tile has, and an input that does not lie row by row. */
static void test_conv_in_several_tiles(void **state) {
    (void)state;
    mlx_array x = OP(transpose_axes, OP(ones, INTS(2, 3, 40, 50), MLX_FLOAT32), INTS(0, 2, 3, 1));
    mlx_array w = OP(ones, INTS(5, 3, 3, 3), MLX_FLOAT32);
    mlx_array y = OP(conv2d, x, w, 1, 1, 1, 1, 1, 1, 1);
    check_shape(y, MLX_FLOAT32, SHAPE(2, 40, 50, 5));
    const double *got = doubles(y);
    for (int i = 0; i < 2 * 40 * 50 * 5; i++) {
        const int row = i / 5 / 50 % 40, column = i / 5 % 50;
        const int rows = row == 0 || row == 39 ? 2 : 3, columns = column % 49 ? 3 : 2;
        assert_true(got[i] == 3 * rows * columns);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_conv1d),
        TEST(test_conv_groups),
        TEST(test_conv2d_and_3d),
        TEST(test_conv_general),
        TEST(test_conv_transpose),
        TEST(test_conv_refuses_bad_input),
        TEST(test_conv_of_every_kind_matches_plain_loops),
        TEST(test_conv_in_several_tiles),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
