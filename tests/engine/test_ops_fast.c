/* fast.*: norms, rotary embedding, attention. */
#include "ops_check.h"

static const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16};
static const double tolerances[] = {2e-6, 2e-3, 1e-2};

static const mlx_optional_float base_1e4 = {1e4f, true}, no_base = {0, false};

static void test_rms_norm(void **state) {
    (void)state;
    static const double plain[] = {.3651481, .7302963, 1.095444, 1.460593};
    for (int i = 0; i < 3; i++) {
        mlx_array x = make(dtypes[i], SHAPE(4), VALUES(1, 2, 3, 4));
        check_near(OP(fast_rms_norm, x, NONE, 1e-5f), plain, 4, tolerances[i]);
        mlx_array w = make(dtypes[i], SHAPE(4), VALUES(2, 2, 2, -2));
        check_near(OP(fast_rms_norm, x, w, 1e-5f), VALUES(.7302963, 1.4605926, 2.190889, -2.921186),
                   tolerances[i]);
        mlx_array t = OP(transpose, make(dtypes[i], SHAPE(4, 2), VALUES(1, 1, 2, 2, 3, 3, 4, 4)));
        mlx_array rows[2];
        OPV(rows, split, OP(fast_rms_norm, t, NONE, 1e-5f), 2, 0);
        check_near(rows[1], plain, 4, tolerances[i]);
    }
    mlx_array x = make(MLX_BFLOAT16, SHAPE(2), VALUES(1, 1));
    check_shape(OP(fast_rms_norm, x, make(MLX_FLOAT32, SHAPE(2), VALUES(1, 1)), 1e-5f), MLX_FLOAT32,
                SHAPE(2));
    check_shape(OP(fast_rms_norm, make(MLX_FLOAT64, SHAPE(2), VALUES(3, 4)), NONE, 0), MLX_FLOAT64,
                SHAPE(2));
    FAILS("weight", fast_rms_norm, x, make(MLX_FLOAT32, SHAPE(3), VALUES(1, 1, 1)), 1e-5f);
    FAILS("unsupported", fast_rms_norm, count_up(MLX_INT32, SHAPE(2)), NONE, 1e-5f);
    FAILS("at least 1", fast_rms_norm, scalar(MLX_FLOAT32, 1), NONE, 1e-5f);
}

static void test_layer_norm(void **state) {
    (void)state;
    static const double plain[] = {-1.3416355, -0.44721183, 0.44721183, 1.3416355};
    for (int i = 0; i < 3; i++) {
        mlx_array x = make(dtypes[i], SHAPE(1, 4), VALUES(1, 2, 3, 4));
        mlx_array w = make(dtypes[i], SHAPE(4), VALUES(1, 1, 2, 2));
        mlx_array b = make(dtypes[i], SHAPE(4), VALUES(0, 1, 0, 1));
        check_near(OP(fast_layer_norm, x, NONE, NONE, 1e-5f), plain, 4, tolerances[i]);
        check_near(OP(fast_layer_norm, x, w, b, 1e-5f),
                   VALUES(-1.3416355, .5527882, .8944237, 3.683271), tolerances[i]);
        check_near(OP(fast_layer_norm, x, NONE, b, 1e-5f),
                   VALUES(-1.3416355, .5527882, .4472118, 2.3416355), tolerances[i]);
    }
    mlx_array x = make(MLX_BFLOAT16, SHAPE(2), VALUES(1, 2));
    mlx_array b = make(MLX_FLOAT32, SHAPE(2), VALUES(0, 0));
    check_shape(OP(fast_layer_norm, x, NONE, b, 1e-5f), MLX_BFLOAT16, SHAPE(2));
    check_shape(OP(fast_layer_norm, x, b, b, 1e-5f), MLX_FLOAT32, SHAPE(2));
}

static void test_rope_vectors(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT32, SHAPE(1, 2, 4), VALUES(1, 2, 3, 4, 1, 2, 3, 4));
    static const double halves[] = {-1.984111, 1.959901, 2.462378,  4.0198,
                                    -3.144039, 1.919605, -.3391431, 4.039197};
    static const double pairs[] = {-1.14264,  1.922076,  2.959851, 4.029799,
                                   -2.234742, .07700378, 2.919405, 4.059196};
    mlx_array freqs = make(MLX_FLOAT32, SHAPE(2), VALUES(1, 100));
    for (int round = 0; round < 2; round++) { /* the second one finds the table */
        check_near(OP(fast_rope, x, 4, false, base_1e4, 1, 1, NONE), halves, 8, 1e-6);
        check_near(OP(fast_rope, x, 4, true, base_1e4, 1, 1, NONE), pairs, 8, 1e-6);
        check_near(OP(fast_rope, x, 4, true, no_base, 1, 1, freqs), pairs, 8, 1e-6);
    }
    mlx_array other = make(MLX_FLOAT32, SHAPE(2), VALUES(2, 100));
    const double *slow = doubles(OP(fast_rope, x, 4, true, no_base, 1, 1, other));
    assert_true(fabs(slow[0] - pairs[0]) > 0.1);
    mlx_array one = OP(slice, x, INTS(0, 0, 0), INTS(1, 1, 4), INTS(1, 1, 1));
    check_near(OP(fast_rope, one, 4, false, base_1e4, 0.5f, 2, NONE), halves, 4, 1e-6);
    check_near(OP(fast_rope, one, 4, false, base_1e4, 1, 2, NONE), halves + 4, 4, 1e-6);
}

static void test_rope_layouts_and_offsets(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        mlx_array x = OP(sin, count_up(MLX_FLOAT32, SHAPE(2, 3, 5, 8)));
        x = OP(astype, x, dtypes[i]);
        mlx_array whole = OP(fast_rope, x, 6, false, base_1e4, 1, 3, NONE);
        /* Partial dims: the rest passes through. */
        mlx_array tail = OP(slice, whole, INTS(0, 0, 0, 6), INTS(2, 3, 5, 8), INTS(1, 1, 1, 1));
        check_near(tail,
                   doubles(OP(slice, x, INTS(0, 0, 0, 6), INTS(2, 3, 5, 8), INTS(1, 1, 1, 1))), 60,
                   0);
        /* [B, T, H, D] seen as [B, H, T, D] gives the same. */
        mlx_array turned = OP(swapaxes, OP(contiguous, OP(swapaxes, x, 1, 2), false), 1, 2);
        check_near(OP(fast_rope, turned, 6, false, base_1e4, 1, 3, NONE), doubles(whole), 240, 0);
        mlx_array offset = make(MLX_INT32, SHAPE(2), VALUES(3, 3));
        check_near(OP(fast_rope_dynamic, x, 6, false, base_1e4, 1, offset, NONE), doubles(whole),
                   240, 0);
        check_near(OP(fast_rope_dynamic, x, 6, false, base_1e4, 1, scalar(MLX_INT64, 3), NONE),
                   doubles(whole), 240, 0);
        /* One offset per batch row. */
        mlx_array moved = OP(fast_rope_dynamic, x, 6, false, base_1e4, 1,
                             make(MLX_INT32, SHAPE(2), VALUES(3, 7)), NONE);
        mlx_array second = OP(fast_rope, x, 6, false, base_1e4, 1, 7, NONE);
        for (int row = 0; row < 2; row++) {
            mlx_array from = row ? second : whole;
            check_near(
                OP(slice, moved, INTS(row, 0, 0, 0), INTS(row + 1, 3, 5, 8), INTS(1, 1, 1, 1)),
                doubles(
                    OP(slice, from, INTS(row, 0, 0, 0), INTS(row + 1, 3, 5, 8), INTS(1, 1, 1, 1))),
                120, 0);
        }
        /* A token alone equals its row in a longer sequence. */
        mlx_array last = OP(slice, x, INTS(0, 0, 4, 0), INTS(2, 3, 5, 8), INTS(1, 1, 1, 1));
        mlx_array row = OP(slice, whole, INTS(0, 0, 4, 0), INTS(2, 3, 5, 8), INTS(1, 1, 1, 1));
        check_near(OP(fast_rope, last, 6, false, base_1e4, 1, 7, NONE), doubles(row), 48, 1e-6);
        release_all(NULL);
    }
}

static void test_rope_errors(void **state) {
    (void)state;
    mlx_array x = OP(zeros, INTS(1, 2, 4), MLX_FLOAT32);
    mlx_array freqs = OP(ones, INTS(2), MLX_FLOAT32);
    FAILS("Only one", fast_rope, x, 4, false, no_base, 1, 0, NONE);
    FAILS("Only one", fast_rope, x, 4, false, base_1e4, 1, 0, freqs);
    FAILS("dims", fast_rope, x, 6, false, base_1e4, 1, 0, NONE);
    FAILS("dims", fast_rope, x, 3, false, base_1e4, 1, 0, NONE);
    FAILS("freqs", fast_rope, x, 2, false, no_base, 1, 0, freqs);
    FAILS("3 dimensions", fast_rope, freqs, 2, false, base_1e4, 1, 0, NONE);
    FAILS("floating", fast_rope, OP(zeros, INTS(1, 2, 4), MLX_INT32), 4, false, base_1e4, 1, 0,
          NONE);
    FAILS("offset", fast_rope_dynamic, x, 4, false, base_1e4, 1, freqs, NONE);
}

#define ATTEND(...) OP(fast_scaled_dot_product_attention, __VA_ARGS__)

static void test_attention_vectors(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        const mlx_dtype d = dtypes[i];
        const double near = tolerances[i];
        mlx_array q = make(d, SHAPE(1, 2, 2, 2), VALUES(1, 0, 0, 1, 1, 1, 2, 0));
        mlx_array k = make(d, SHAPE(1, 1, 3, 2), VALUES(1, 0, 0, 1, 1, 1));
        static const double plain[] = {.8446376, .5776812, .5776812, .8446376,
                                       .7880584, .7880584, .936621,  .5316895};
        check_near(ATTEND(q, k, k, 1, "", NONE, NONE), plain, 8, near);
        mlx_array all = OP(ones, INTS(2, 3), MLX_BOOL);
        check_near(ATTEND(q, k, k, 1, "array", all, NONE), plain, 8, near);
        mlx_array causal = ATTEND(q, k, k, 1, "causal", NONE, NONE);
        mlx_array first = OP(slice, causal, INTS(0, 0, 0, 0), INTS(1, 1, 1, 2), INTS(1, 1, 1, 1));
        check_near(first, VALUES(.7310586, .2689414), near);
        mlx_array mask = OP(tri, 2, 3, 1, MLX_BOOL);
        check_near(ATTEND(q, k, k, 1, "array", mask, NONE), doubles(causal), 8, near);
        mlx_array added = OP(where, mask, scalar(d, 0), scalar(d, -30000));
        check_near(ATTEND(q, k, k, 1, "", added, NONE), doubles(causal), 8, near);
        mlx_array sunk = ATTEND(q, k, k, 1, "causal", NONE, make(d, SHAPE(2), VALUES(0, 1)));
        first = OP(slice, sunk, INTS(0, 0, 0, 0), INTS(1, 1, 1, 2), INTS(1, 1, 1, 1));
        check_near(first, VALUES(.5761169, .2119416), near);
        /* A row that sees nothing averages v. */
        mlx_array blind = OP(zeros, INTS(1, 1, 2, 3), MLX_BOOL);
        check_near(ATTEND(q, k, k, 1, "array", blind, NONE),
                   VALUES(2. / 3, 2. / 3, 2. / 3, 2. / 3, 2. / 3, 2. / 3, 2. / 3, 2. / 3), near);
    }
}

/* softmax(scale q k^T + mask) v from the other operations, in float32. */
static mlx_array composed(mlx_array q, mlx_array k, mlx_array v, float scale, mlx_array mask) {
    const int *qs = mlx_array_shape(q), *ks = mlx_array_shape(k), *vs = mlx_array_shape(v);
    const int group = qs[1] / ks[1];
    mlx_array q5 = OP(reshape, q, INTS(qs[0], ks[1], group, qs[2], qs[3]));
    mlx_array k5 = OP(expand_dims, k, 2), v5 = OP(expand_dims, v, 2);
    mlx_array scores =
        OP(matmul, OP(multiply, q5, scalar(MLX_FLOAT32, (double)scale)), OP(swapaxes, k5, -1, -2));
    scores = OP(reshape, scores, INTS(qs[0], qs[1], qs[2], ks[2]));
    if (mask.ctx) scores = OP(add, scores, mask);
    mlx_array weights = OP(softmax_axis, scores, -1, true);
    weights = OP(reshape, weights, INTS(qs[0], ks[1], group, qs[2], ks[2]));
    return OP(reshape, OP(matmul, weights, v5), INTS(qs[0], qs[1], qs[2], vs[3]));
}

static void test_attention_equals_its_parts(void **state) {
    (void)state;
    static const int cases[][7] = {/* B, Hq, Hk, Lq, Lk, D, Dv */
                                   {2, 4, 2, 5, 9, 16, 16},
                                   {1, 8, 2, 1, 33, 64, 64},
                                   {1, 6, 3, 37, 37, 32, 48},
                                   {2, 3, 3, 4, 70, 8, 8}};
    for (size_t c = 0; c < 4; c++) {
        const int *n = cases[c];
        mlx_array q = OP(sin, count_up(MLX_FLOAT32, SHAPE(n[0], n[1], n[3], n[5])));
        mlx_array k = OP(cos, count_up(MLX_FLOAT32, SHAPE(n[0], n[4], n[2], n[5])));
        k = OP(swapaxes, k, 1, 2); /* a cache as models keep it */
        mlx_array v = OP(sin, count_up(MLX_FLOAT32, SHAPE(n[0], n[2], n[4], n[6])));
        const size_t size = (size_t)(n[0] * n[1] * n[3] * n[6]);
        check_near(ATTEND(q, k, v, 0.3f, "", NONE, NONE), doubles(composed(q, k, v, 0.3f, NONE)),
                   size, 1e-5);
        const int shapes[][4] = {
            {n[0], n[1], n[3], n[4]}, {1, 1, n[3], n[4]}, {n[0], 1, 1, n[4]}, {1, n[1], n[3], 1}};
        for (int s = 0; s < 4; s++) {
            mlx_array mask = OP(cos, count_up(MLX_FLOAT32, shapes[s], 4));
            check_near(ATTEND(q, k, v, 0.3f, "array", mask, NONE),
                       doubles(composed(q, k, v, 0.3f, mask)), size, 1e-5);
        }
        mlx_array see = OP(tri, n[3], n[4], n[4] - n[3], MLX_BOOL);
        mlx_array causal = OP(where, see, scalar(MLX_FLOAT32, 0), scalar(MLX_FLOAT32, -1e30));
        check_near(ATTEND(q, k, v, 0.3f, "causal", NONE, NONE),
                   doubles(composed(q, k, v, 0.3f, causal)), size, 1e-5);
        release_all(NULL);
    }
}

static void test_attention_errors(void **state) {
    (void)state;
    mlx_array q = OP(zeros, INTS(1, 4, 2, 8), MLX_BFLOAT16);
    mlx_array k = OP(zeros, INTS(1, 3, 2, 8), MLX_BFLOAT16);
    mlx_array mask = OP(zeros, INTS(2, 2), MLX_FLOAT32);
#define REFUSED(text, ...) FAILS(text, fast_scaled_dot_product_attention, __VA_ARGS__)
    REFUSED("belong", q, k, k, 1, "", NONE, NONE);
    REFUSED("4 axes", q, mask, mask, 1, "", NONE, NONE);
    REFUSED("mask_mode", q, q, q, 1, "none", NONE, NONE);
    REFUSED("causal", q, q, q, 1, "causal", mask, NONE);
    REFUSED("promote", q, q, q, 1, "array", mask, NONE);
    REFUSED("broadcast", q, q, q, 1, "array", OP(zeros, INTS(3, 2), MLX_BFLOAT16), NONE);
    REFUSED("sinks", q, q, q, 1, "", NONE, OP(zeros, INTS(3), MLX_BFLOAT16));
    check_shape(ATTEND(q, OP(astype, q, MLX_FLOAT32), q, 1, "", NONE, NONE), MLX_FLOAT32,
                SHAPE(1, 4, 2, 8));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_rms_norm),
        TEST(test_layer_norm),
        TEST(test_rope_vectors),
        TEST(test_rope_layouts_and_offsets),
        TEST(test_rope_errors),
        TEST(test_attention_vectors),
        TEST(test_attention_equals_its_parts),
        TEST(test_attention_errors),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
