/* The gradient of scaled_dot_product_attention against the gradient of attention
 * written out in float64. */
#include "grad_check.h"

typedef struct Case {
    int batch, heads, kv_heads, q_len, kv_len, width, value_width;
    const char *mode; /* "", "causal", "bool", "add" */
    bool sinks, strided;
} Case;

static Case now; /* what the functions below compute */

static const double scale = 0.4;

/* x: q, k, v, then the mask (if any), then sinks (if any). */
static mlx_array fused(const mlx_array *x) {
    const bool masked = now.mode[0] == 'b' || now.mode[0] == 'a';
    return OP(fast_scaled_dot_product_attention, x[0], x[1], x[2], (float)scale,
              masked ? "array" : now.mode, masked ? x[3] : NONE, now.sinks ? x[3 + masked] : NONE);
}

static mlx_array written_out(const mlx_array *x) {
    const int group = now.heads / now.kv_heads;
    mlx_array q = OP(multiply, x[0], scalar(MLX_FLOAT64, scale));
    mlx_array k = OP(repeat_axis, x[1], group, 1), v = OP(repeat_axis, x[2], group, 1);
    mlx_array s = OP(matmul, q, OP(swapaxes, k, 2, 3));
    mlx_array low = scalar(MLX_FLOAT64, -1e30);
    int next = 3;
    if (now.mode[0] == 'c') {
        const int shift = now.kv_len - now.q_len;
        mlx_array rows = OP(arange, shift, shift + now.q_len, 1, MLX_INT32);
        mlx_array seen =
            OP(greater_equal, OP(expand_dims, rows, 1), OP(arange, 0, now.kv_len, 1, MLX_INT32));
        s = OP(where, seen, s, low);
    } else if (now.mode[0] == 'b') {
        s = OP(where, x[next++], s, low);
    } else if (now.mode[0] == 'a') {
        s = OP(add, s, x[next++]);
    }
    if (now.sinks) {
        mlx_array sink = OP(reshape, x[next], INTS(1, now.heads, 1, 1));
        sink = OP(broadcast_to, sink, INTS(now.batch, now.heads, now.q_len, 1));
        mlx_vector_array both = vector_of((mlx_array[]){s, sink}, 2);
        s = OP(concatenate_axis, both, 3);
        mlx_vector_array_free(both);
    }
    mlx_array p = OP(softmax_axis, s, 3, true);
    p = OP(slice, p, INTS(0, 0, 0, 0), INTS(now.batch, now.heads, now.q_len, now.kv_len),
           INTS(1, 1, 1, 1));
    return OP(matmul, p, v);
}

static mlx_array noise(const int *shape, int ndim, double seed) {
    mlx_array x = OP(multiply, count_up(MLX_FLOAT64, shape, ndim), scalar(MLX_FLOAT64, seed));
    return OP(sin, OP(square, x));
}

/* The same values in float64 and in dtype; returns how many inputs. */
static int make_inputs(mlx_array *wide, mlx_array *narrow, mlx_dtype dtype) {
    int n = 0;
    if (now.strided) {
        wide[n++] =
            OP(swapaxes, noise(SHAPE(now.batch, now.q_len, now.heads, now.width), .7), 1, 2);
        wide[n++] =
            OP(swapaxes, noise(SHAPE(now.batch, now.kv_len, now.kv_heads, now.width), .3), 1, 2);
    } else {
        wide[n++] = noise(SHAPE(now.batch, now.heads, now.q_len, now.width), .7);
        wide[n++] = noise(SHAPE(now.batch, now.kv_heads, now.kv_len, now.width), .3);
    }
    wide[n++] = noise(SHAPE(now.batch, now.kv_heads, now.kv_len, now.value_width), .9);
    if (now.mode[0] == 'b')
        wide[n++] = OP(greater, noise(SHAPE(now.q_len, now.kv_len), .31), scalar(MLX_FLOAT64, -.3));
    if (now.mode[0] == 'a') wide[n++] = noise(SHAPE(now.batch, 1, 1, now.kv_len), .31);
    if (now.sinks) wide[n++] = noise(SHAPE(now.heads), .5);
    for (int i = 0; i < n; i++) {
        const bool real = mlx_array_dtype(wide[i]) == MLX_FLOAT64;
        narrow[i] = real ? OP(astype, wide[i], dtype) : wide[i];
        if (real) wide[i] = OP(astype, narrow[i], MLX_FLOAT64);
    }
    return n;
}

static void compare(mlx_dtype dtype, double tolerance) {
    mlx_array wide[5], narrow[5], expected[5], got[5];
    const int n = make_inputs(wide, narrow, dtype);
    mlx_array g = weights_like(written_out(wide)), g_narrow = OP(astype, g, dtype);
    gradients(written_out, wide, (size_t)n, OP(astype, g_narrow, MLX_FLOAT64), expected);
    gradients(fused, narrow, (size_t)n, g_narrow, got);
    for (int i = 0; i < n; i++)
        if (mlx_array_dtype(wide[i]) == MLX_FLOAT64)
            check_near(got[i], doubles(expected[i]), mlx_array_size(expected[i]), tolerance);
}

static const Case cases[] = {
    {1, 1, 1, 3, 3, 4, 4, "", false, false},
    {2, 4, 2, 5, 7, 8, 3, "", false, true},
    {2, 4, 2, 7, 7, 8, 8, "causal", false, true},
    {1, 2, 1, 3, 9, 5, 6, "causal", true, false},
    {1, 2, 2, 9, 4, 5, 6, "causal", false, false},
    {1, 4, 1, 6, 6, 8, 8, "bool", false, false},
    {2, 2, 1, 6, 5, 8, 8, "bool", true, true},
    {2, 4, 4, 4, 6, 8, 8, "add", false, false},
    {2, 4, 2, 4, 6, 8, 8, "", true, true},
    {1, 3, 1, 300, 300, 16, 16, "causal", false, true},
    {1, 2, 2, 1, 40, 16, 16, "", false, false},
};

static void test_gradients_in_float32(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        now = cases[i];
        compare(MLX_FLOAT32, 2e-5);
    }
}

static void test_gradients_in_16_bits(void **state) {
    (void)state;
    for (size_t i = 0; i < 9; i++) {
        now = cases[i];
        compare(MLX_FLOAT16, 4e-3);
        compare(MLX_BFLOAT16, 3e-2);
    }
}

/* grad_target is fused or written_out. */
static mlx_array line_of(const mlx_array *x) {
    return gradient_line(x, 4);
}

static void test_the_gradient_has_a_gradient(void **state) {
    (void)state;
    static const int which[] = {1, 2, 4};
    for (int i = 0; i < 3; i++) {
        now = cases[which[i]];
        mlx_array wide[5], narrow[5], expected[4], got[4];
        make_inputs(wide, narrow, MLX_FLOAT32);
        wide[3] = weights_like(written_out(wide));
        narrow[3] = OP(astype, wide[3], MLX_FLOAT32);
        grad_target = written_out;
        mlx_array g = weights_like(line_of(wide));
        gradients(line_of, wide, 4, g, expected);
        grad_target = fused;
        gradients(line_of, narrow, 4, OP(astype, g, MLX_FLOAT32), got);
        for (int k = 0; k < 4; k++)
            check_near(got[k], doubles(expected[k]), mlx_array_size(expected[k]), 1e-4);
    }
}

/* Differentiates q and v alone: results that are not wanted are not computed. */
static mlx_array fixed_key;
static mlx_array without_key(const mlx_array *x) {
    return fused((mlx_array[]){x[0], fixed_key, x[1]});
}

static void test_only_some_gradients_are_wanted(void **state) {
    (void)state;
    now = cases[1];
    mlx_array wide[5], narrow[5], all[3], some[2];
    make_inputs(wide, narrow, MLX_FLOAT32);
    mlx_array g = weights_like(fused(narrow));
    gradients(fused, narrow, 3, g, all);
    fixed_key = narrow[1];
    gradients(without_key, (mlx_array[]){narrow[0], narrow[2]}, 2, g, some);
    check_near(some[0], doubles(all[0]), mlx_array_size(all[0]), 0);
    check_near(some[1], doubles(all[2]), mlx_array_size(all[2]), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_gradients_in_float32),
        TEST(test_gradients_in_16_bits),
        TEST(test_the_gradient_has_a_gradient),
        TEST(test_only_some_gradients_are_wanted),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
