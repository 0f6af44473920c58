/* Numbers that MLX fixes: random bits, packed weights, the fast operations.
 * Literal values: MLX 0.31.2 on a CPU. */
#include "conformance/check.h"

/* Of the largest result, for float32: activations of few rows travel as 16-bit
 * integers with a scale a group. */
#define PRODUCT_ERROR 4e-5

static mlx_array key_of(uint64_t seed) {
    mlx_array key = mlx_array_new();
    assert_int_equal(mlx_random_key(&key, seed), 0);
    return keep(key);
}

static void test_random_bits_are_those_of_threefry(void **state) {
    (void)state;
    mlx_array key = key_of(0);
    check(key, 0, 0);
    check(key_of(0x100000002u), 1, 2);
    check(OP(random_bits, LIST(4), 4, key), 4146024105.0, 967050713, 2718843009.0, 1272950319);
    check(OP(random_bits, LIST(5), 4, key), 2467461003.0, 428148500, 1688610540, 3840466878.0,
          2562233961.0);
    check(OP(random_bits, LIST(1), 4, key), 1797259609);
    check(OP(random_bits, LIST(3), 2, key), 9103, 14175, 5405);
    check(OP(random_bits, LIST(7), 1, key), 143, 35, 95, 55, 29, 21, 219);
    check_shape(OP(random_bits, LIST(7), 1, key), MLX_UINT8, SHAPE(7));
    check(OP(random_split_num, key, 3), 2467461003.0, 428148500, 3186719485.0, 3840466878.0,
          2562233961.0, 1946702221);
    mlx_array a = mlx_array_new(), b = mlx_array_new();
    assert_int_equal(mlx_random_split(&a, &b, key, cpu), 0);
    mlx_array pair = OP(random_split_num, key, 2);
    check_same(keep(a), OP(take_axis, pair, scalar(MLX_INT32, 0), 0), 0);
    check_same(keep(b), OP(take_axis, pair, scalar(MLX_INT32, 1), 0), 0);
    check_shape(OP(random_bits, LIST(0, 3), 4, key), MLX_UINT32, SHAPE(0, 3));
    FAILS("", random_bits, LIST(2), 3, key);
    FAILS("", random_bits, LIST(2), 4, count_up(MLX_UINT32, SHAPE(3)));
    FAILS("", random_bits, LIST(2), 4, count_up(MLX_FLOAT32, SHAPE(2)));
}

static void test_random_numbers_follow_from_the_bits(void **state) {
    (void)state;
    mlx_array key = key_of(0), zero = scalar(MLX_FLOAT32, 0), one = scalar(MLX_FLOAT32, 1);
    check(OP(random_uniform, zero, one, LIST(4), MLX_FLOAT32, key), .965321481, .225159034,
          .633029997, .296381831);
    check(OP(random_normal, LIST(4), MLX_FLOAT32, 0, 1, key), 1.81608713, -.754884779, .339889258,
          -.534835339);
    check(OP(random_gumbel, LIST(4), MLX_FLOAT32, key), 3.34403968, -.399412364, .782552361,
          -.195654482);
    check_shape(OP(random_uniform, zero, one, LIST(2, 3), MLX_BFLOAT16, key), MLX_BFLOAT16,
                SHAPE(2, 3));
    check(OP(random_bernoulli, scalar(MLX_FLOAT32, 0.5), LIST(8), key), 0, 1, 1, 0, 1, 0, 1, 0);
    check(OP(random_randint, scalar(MLX_INT32, 0), scalar(MLX_INT32, 10), LIST(8), MLX_INT32, key),
          5, 3, 3, 9, 1, 9, 1, 8);
    check(OP(random_permutation_arange, 8, key), 4, 6, 1, 2, 0, 7, 3, 5);
    FAILS("", random_uniform, zero, one, LIST(2), MLX_INT32, key);
    FAILS("", random_normal, LIST(2), MLX_INT32, 0, 1, key);
    mlx_array logits = row(MLX_FLOAT32, VALUES(0, 1, 2, 3));
    check_shape(OP(random_categorical, logits, -1, key), MLX_UINT32, NULL, 0);
    check(OP(random_categorical, logits, -1, key), 0);
    check_shape(OP(random_categorical_num_samples, logits, -1, 5, key), MLX_UINT32, SHAPE(5));
    check_shape(
        OP(random_categorical_shape, count_up(MLX_FLOAT32, SHAPE(2, 4)), 1, LIST(3, 2), key),
        MLX_UINT32, SHAPE(3, 2));
    check(OP(random_categorical_num_samples, row(MLX_FLOAT32, VALUES(-INFINITY, 0, -INFINITY)), 0,
             3, key),
          1, 1, 1);
}

static void test_a_seed_starts_the_sequence_again(void **state) {
    (void)state;
    mlx_array zero = scalar(MLX_FLOAT32, 0), one = scalar(MLX_FLOAT32, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mlx_random_seed(42), 0);
        check(OP(random_uniform, zero, one, LIST(2), MLX_FLOAT32, NONE), .955981255, .403272569);
        check(OP(random_uniform, zero, one, LIST(2), MLX_FLOAT32, NONE), .537103951, .104098655);
    }
}

static void test_affine_words_are_those_of_mlx(void **state) {
    (void)state;
    static const struct {
        int bits;
        double scale;
        uint32_t words[2];
    } rows[] = {
        {2, -2.1500001, {0xaaafffff, 0}},           {3, -.860000014, {0xb6ffffff, 0xdb6ddb6d}},
        {4, -.430000007, {0xdddeeeef, 0}},          {5, -.204761907, {0x39defbdf, 0x9ceb5bdf}},
        {6, -.100000001, {0xbbf3dfbf, 0x5db7e39e}}, {8, -.0247126445, {0xf3f7fbff, 0}}};
    float values[64];
    for (int i = 0; i < 64; i++) values[i] = (float)i / 10 - 2;
    mlx_array w = keep(mlx_array_new_data(values, SHAPE(1, 64), MLX_FLOAT32)), parts[3];
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(OPV(parts, quantize, w, some(64), some(rows[i].bits), "affine", NONE), 3);
        check_shape(parts[0], MLX_UINT32, SHAPE(1, 2 * rows[i].bits));
        check(parts[1], rows[i].scale);
        check(parts[2], 4.3f);
        mlx_array_eval(parts[0]);
        for (int k = 0; k < 2; k++)
            if (rows[i].words[k])
                assert_int_equal(mlx_array_data_uint32(parts[0])[k], rows[i].words[k]);
        mlx_array back = OP(dequantize, parts[0], parts[1], parts[2], some(64), some(rows[i].bits),
                            "affine", NONE, (mlx_optional_dtype){MLX_FLOAT32, false});
        check_near(back, doubles(w), 64, rows[i].bits == 2 ? 1.1 : fabs(rows[i].scale) * 0.51);
    }
    /* A group of one value, and of zeros. */
    OPV(parts, quantize, OP(full, LIST(1, 32), scalar(MLX_FLOAT32, 3), MLX_FLOAT32), some(32),
        some(4), "affine", NONE);
    check(OP(dequantize, parts[0], parts[1], parts[2], some(32), some(4), "affine", NONE,
             (mlx_optional_dtype){MLX_FLOAT32, false}),
          3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
          3, 3);
    FAILS("", dequantize, parts[0], parts[1], NONE, some(32), some(4), "affine", NONE,
          (mlx_optional_dtype){0});
    mlx_vector_array out = mlx_vector_array_new();
    const mlx_array ints = count_up(MLX_INT32, SHAPE(2, 64)),
                    odd = count_up(MLX_FLOAT32, SHAPE(2, 60));
    assert_int_equal(mlx_quantize(&out, w, some(64), some(7), "affine", NONE, cpu), 1);
    assert_int_equal(mlx_quantize(&out, w, some(48), some(4), "affine", NONE, cpu), 1);
    assert_int_equal(mlx_quantize(&out, w, some(64), some(4), "nonsense", NONE, cpu), 1);
    assert_int_equal(mlx_quantize(&out, odd, some(64), some(4), "affine", NONE, cpu), 1);
    assert_int_equal(mlx_quantize(&out, ints, some(64), some(4), "affine", NONE, cpu), 1);
    assert_int_equal(
        mlx_quantize(&out, row(MLX_FLOAT32, VALUES(1, 2)), some(64), some(4), "affine", NONE, cpu),
        1);
    mlx_vector_array_free(out);
}

/* Against the dequantised matrix in float64: 1e-5 for float32 and 1e-2 for
 * bfloat16 of the largest result. */
static void test_quantised_products_equal_plain_ones(void **state) {
    (void)state;
    mlx_array key = key_of(1), parts[3];
    mlx_array w32 = OP(random_normal, LIST(96, 256), MLX_FLOAT32, 0, 1, key);
    for (int bits = 2; bits <= 8; bits++) {
        if (bits == 7) continue;
        for (int k = 0; k < 8; k++) {
            const bool transpose = k & 1, half = k & 2;
            const int rows = k & 4 ? 40 : 1, inner = transpose ? 256 : 96;
            if (half && upstream(HALF_SUMS)) continue;
            const mlx_dtype dtype = half ? MLX_BFLOAT16 : MLX_FLOAT32;
            mlx_array x = OP(random_normal, LIST(2, rows, inner), dtype, 0, 1, key);
            OPV(parts, quantize, OP(astype, w32, dtype), some(32), some(bits), "affine", NONE);
            mlx_array got = OP(quantized_matmul, x, parts[0], parts[1], parts[2], transpose,
                               some(32), some(bits), "affine");
            mlx_array wide = OP(astype,
                                OP(dequantize, OP(astype, parts[0], MLX_UINT32),
                                   OP(astype, parts[1], MLX_FLOAT32),
                                   OP(astype, parts[2], MLX_FLOAT32), some(32), some(bits),
                                   "affine", NONE, (mlx_optional_dtype){MLX_FLOAT32, false}),
                                MLX_FLOAT64);
            if (transpose) wide = OP(transpose, wide);
            mlx_array want = OP(matmul, OP(astype, x, MLX_FLOAT64), wide);
            check_shape(got, dtype, SHAPE(2, rows, transpose ? 96 : 256));
            const double scale = *doubles(OP(max, OP(abs, want), false));
            mlx_array error =
                OP(max, OP(abs, OP(subtract, OP(astype, got, MLX_FLOAT64), want)), false);
            const double limit = (half ? 1e-2 : PRODUCT_ERROR) * scale;
            if (*doubles(error) > limit)
                fail_msg("bits %d case %d: error %g of %g", bits, k, *doubles(error), scale);
        }
        release_all(NULL);
        key = key_of(1);
        w32 = OP(random_normal, LIST(96, 256), MLX_FLOAT32, 0, 1, key);
    }
    if (!upstream(HALF_SUMS)) {
        OPV(parts, quantize, OP(ones, LIST(32, 1024), MLX_BFLOAT16), some(64), some(4), "affine",
            NONE);
        mlx_array sum = OP(quantized_matmul, OP(ones, LIST(1, 1024), MLX_BFLOAT16), parts[0],
                           parts[1], parts[2], true, some(64), some(4), "affine");
        assert_true(doubles(sum)[31] == 1024);
    }
}

static void test_fast_operations_have_their_vectors(void **state) {
    (void)state;
    const mlx_optional_float base = {1e4f, true}, none = {0, false};
    mlx_array x = row(MLX_FLOAT32, VALUES(1, 2, 3, 4));
    check_near(OP(fast_rms_norm, x, NONE, 1e-5f), VALUES(.3651481, .7302963, 1.095444, 1.460593),
               1e-6);
    check_near(OP(fast_layer_norm, x, NONE, NONE, 0),
               VALUES(-1.3416408, -.4472136, .4472136, 1.3416408), 1e-6);
    mlx_array rows = make(MLX_FLOAT32, SHAPE(1, 2, 4), VALUES(1, 2, 3, 4, 1, 2, 3, 4));
    static const double halves[] = {-1.984111, 1.959901, 2.462378,  4.0198,
                                    -3.144039, 1.919605, -.3391431, 4.039197};
    check_near(OP(fast_rope, rows, 4, false, base, 1, 1, NONE), halves, 8, 2e-6);
    check_near(
        OP(fast_rope, rows, 4, true, base, 1, 1, NONE),
        VALUES(-1.14264, 1.922076, 2.959851, 4.029799, -2.234742, .07700378, 2.919405, 4.059196),
        2e-6);
    check_near(OP(fast_rope, rows, 4, false, none, 1, 1, row(MLX_FLOAT32, VALUES(1, 100))), halves,
               8, 2e-6);
    check_near(OP(fast_rope_dynamic, rows, 4, false, base, 1, scalar(MLX_INT32, 1), NONE), halves,
               8, 2e-6);
    FAILS("", fast_rope, rows, 3, false, base, 1, 0, NONE);
    FAILS("", fast_rope, x, 4, false, base, 1, 0, NONE);
    FAILS("", fast_rope, rows, 4, false, none, 1, 0, NONE);

    mlx_array q = make(MLX_FLOAT32, SHAPE(1, 2, 2, 2), VALUES(1, 0, 0, 1, 1, 1, 2, 0));
    mlx_array k = make(MLX_FLOAT32, SHAPE(1, 1, 3, 2), VALUES(1, 0, 0, 1, 1, 1));
#define ATTENTION(...) OP(fast_scaled_dot_product_attention, q, k, k, 1, __VA_ARGS__)
    check_near(
        ATTENTION("", NONE, NONE),
        VALUES(.8446376, .5776812, .5776812, .8446376, .7880584, .7880584, .936621, .5316895),
        1e-6);
    const double *causal = doubles(ATTENTION("causal", NONE, NONE));
    assert_true(fabs(causal[0] - .7310586) < 1e-6 && fabs(causal[1] - .2689414) < 1e-6);
    const double *sinks = doubles(ATTENTION("causal", NONE, row(MLX_FLOAT32, VALUES(0, 1))));
    assert_true(fabs(sinks[0] - .5761169) < 1e-6 && fabs(sinks[1] - .2119416) < 1e-6);
    mlx_array mask = make(MLX_BOOL, SHAPE(2, 3), VALUES(1, 1, 0, 1, 1, 1));
    check_same(ATTENTION("array", mask, NONE), ATTENTION("causal", NONE, NONE), 1e-6);
    check_same(ATTENTION("", mask, NONE), ATTENTION("causal", NONE, NONE), 1e-6);
    check_same(ATTENTION("array", OP(zeros, LIST(1, 1, 1, 3), MLX_FLOAT32), NONE),
               ATTENTION("", NONE, NONE), 1e-6);
#define REFUSED(...) FAILS("", fast_scaled_dot_product_attention, __VA_ARGS__)
    REFUSED(q, k, k, 1, "none", NONE, NONE);
    REFUSED(q, k, k, 1, "causal", mask, NONE);
    REFUSED(q, k, k, 1, "array", OP(zeros, LIST(4, 3), MLX_FLOAT32), NONE);
    REFUSED(q, x, k, 1, "", NONE, NONE);
    REFUSED(q, q, k, 1, "", NONE, NONE);
    REFUSED(q, OP(zeros, LIST(1, 1, 3, 5), MLX_FLOAT32), k, 1, "", NONE, NONE);
}

static void test_scans_begin_with_the_first_item(void **state) {
    (void)state;
    mlx_array x = OP(cumsum, row(MLX_FLOAT32, VALUES(-0.0, 1)), 0, false, true);
    assert_true(signbit(doubles(x)[0]));
    mlx_array infinite = keep(mlx_array_new_complex(INFINITY, 1));
    mlx_array first = OP(cumprod, OP(reshape, infinite, LIST(1)), 0, false, true);
    check(OP(imag, first), 1);
}

RUN(TEST(test_scans_begin_with_the_first_item), TEST(test_random_bits_are_those_of_threefry),
    TEST(test_random_numbers_follow_from_the_bits), TEST(test_a_seed_starts_the_sequence_again),
    TEST(test_affine_words_are_those_of_mlx), TEST(test_quantised_products_equal_plain_ones),
    TEST(test_fast_operations_have_their_vectors))
