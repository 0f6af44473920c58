/* matmul, addmm, quantize, dequantize, quantized_matmul. */
#include "ops_check.h"

#include "base/base.h"

/* Small whole numbers, so that float32 sums are exact. */
static mlx_array pattern(mlx_dtype dtype, const int *shape, int ndim, int seed) {
    static double values[16384];
    size_t size = 1;
    for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
    assert_true(size <= 16384);
    for (size_t i = 0; i < size; i++) values[i] = (double)((int)(i * 7 + (size_t)seed) % 11 - 5);
    return make(dtype, shape, ndim, values, size);
}

/* a [m, k] @ b [k, n] by definition. */
static void reference(const double *a, const double *b, int m, int k, int n, double *out) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            out[i * n + j] = 0;
            for (int x = 0; x < k; x++) out[i * n + j] += a[i * k + x] * b[x * n + j];
        }
}

static void test_matmul_of_every_float_pair(void **state) {
    (void)state;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64};
    const int sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {1, 67, 33}, {9, 64, 40}, {17, 3, 1}};
    static double expected[8192];
    for (int p = 0; p < 16; p++) {
        for (size_t t = 0; t < 5; t++) {
            const int m = sizes[t][0], k = sizes[t][1], n = sizes[t][2];
            mlx_array a = pattern(dtypes[p / 4], SHAPE(m, k), 1);
            mlx_array b = pattern(dtypes[p % 4], SHAPE(k, n), 4);
            mlx_array bt = OP(transpose, OP(contiguous, OP(transpose, b), false));
            mlx_array at = OP(transpose, OP(contiguous, OP(transpose, a), false));
            reference(doubles(a), doubles(b), m, k, n, expected);
            mlx_array c = OP(matmul, a, b);
            /* The sums are whole numbers below 2^11, but bfloat16 keeps 8 bits. */
            const double near = mlx_array_dtype(c) == MLX_BFLOAT16 ? 4e-3 : 0;
            check_near(c, expected, (size_t)(m * n), near);
            check_near(OP(matmul, a, bt), expected, (size_t)(m * n), near);
            check_near(OP(matmul, at, b), expected, (size_t)(m * n), near);
            release_all(NULL);
        }
    }
}

static void test_matmul_accumulates_in_float32(void **state) {
    (void)state;
    mlx_array a = OP(ones, INTS(1, 1000), MLX_BFLOAT16), b = OP(ones, INTS(1000, 2), MLX_BFLOAT16);
    check(OP(matmul, a, b), 1000, 1000);
}

static void test_matmul_batches_and_vectors(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(2, 1, 2, 2)),
              b = count_up(MLX_FLOAT32, SHAPE(3, 2, 2));
    mlx_array c = OP(matmul, a, b);
    check_shape(c, MLX_FLOAT32, SHAPE(2, 3, 2, 2));
    check(c, 2, 3, 6, 11, 6, 7, 26, 31, 10, 11, 46, 51, 10, 19, 14, 27, 46, 55, 66, 79, 82, 91, 118,
          131);
    mlx_array v = make(MLX_FLOAT32, SHAPE(2), VALUES(1, 2));
    check(OP(matmul, v, v), 5);
    check(OP(matmul, v, b), 4, 7, 16, 19, 28, 31);
    check(OP(matmul, b, v), 2, 8, 14, 20, 26, 32);
    check_shape(OP(matmul, OP(zeros, INTS(2, 0), MLX_FLOAT32), OP(zeros, INTS(0, 3), MLX_FLOAT32)),
                MLX_FLOAT32, SHAPE(2, 3));
    check(OP(matmul, OP(zeros, INTS(1, 0), MLX_FLOAT32), OP(zeros, INTS(0, 2), MLX_FLOAT32)), 0, 0);
    check_shape(OP(matmul, OP(zeros, INTS(0, 2), MLX_FLOAT32), OP(zeros, INTS(2, 3), MLX_FLOAT32)),
                MLX_FLOAT32, SHAPE(0, 3));
    FAILS("matmul", matmul, count_up(MLX_INT32, SHAPE(2, 2)), count_up(MLX_INT32, SHAPE(2, 2)));
    FAILS("must match", matmul, a, count_up(MLX_FLOAT32, SHAPE(3, 2)));
    FAILS("0 dimension", matmul, scalar(MLX_FLOAT32, 1), v);
}

static void test_addmm(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(2, 2)), w = count_up(MLX_FLOAT32, SHAPE(3, 2));
    mlx_array bias = make(MLX_FLOAT32, SHAPE(3), VALUES(10, 20, 30));
    check(OP(addmm, bias, a, OP(transpose, w), 1, 1), 11, 23, 35, 13, 33, 53);
    check(OP(addmm, bias, a, OP(transpose, w), 2, 0.5f), 7, 16, 25, 11, 36, 61);
    mlx_array batch = count_up(MLX_FLOAT32, SHAPE(2, 1, 2));
    check(OP(addmm, bias, batch, OP(transpose, w), 1, 1), 11, 23, 35, 13, 33, 53);
    mlx_array v = make(MLX_FLOAT32, SHAPE(2), VALUES(0, 1));
    check(OP(addmm, bias, v, OP(transpose, w), 1, 1), 11, 23, 35);
    mlx_array wide = OP(astype, bias, MLX_FLOAT64);
    check_shape(OP(addmm, wide, a, OP(transpose, w), 1, 1), MLX_FLOAT64, SHAPE(2, 3));
    check_shape(OP(addmm, OP(astype, bias, MLX_BFLOAT16), OP(astype, a, MLX_BFLOAT16),
                   OP(transpose, OP(astype, w, MLX_BFLOAT16)), 1, 1),
                MLX_BFLOAT16, SHAPE(2, 3));
    FAILS("broadcast", addmm, OP(zeros, INTS(2), MLX_FLOAT32), a, OP(transpose, w), 1, 1);
    FAILS("broadcast", addmm, OP(zeros, INTS(4, 2, 3), MLX_FLOAT32), a, OP(transpose, w), 1, 1);
}

/* ---- quantised ---------------------------------------------------------------------- */

static const int all_bits[] = {2, 3, 4, 5, 6, 8}, all_groups[] = {32, 64, 128};
static const mlx_dtype quant_dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16};

#define QUANTIZE(parts, w, group, bits) \
    OPV(parts, quantize, w, some(group), some(bits), "affine", NONE)

static void test_affine_vectors(void **state) {
    (void)state;
    static const struct {
        int bits;
        double scale;
        uint32_t words[2];
    } rows[] = {
        {2, -2.1500001, {0xaaafffff, 0}},           {3, -.860000014, {0xb6ffffff, 0xdb6ddb6d}},
        {4, -.430000007, {0xdddeeeef, 0}},          {5, -.204761907, {0x39defbdf, 0x9ceb5bdf}},
        {6, -.100000001, {0xbbf3dfbf, 0x5db7e39e}}, {8, -.0247126445, {0xf3f7fbff, 0}}};
    double values[64];
    for (int i = 0; i < 64; i++) values[i] = (double)((float)i / 10.0f - 2.0f);
    mlx_array w = make(MLX_FLOAT32, SHAPE(1, 64), values, 64), parts[3];
    for (size_t i = 0; i < 6; i++) {
        QUANTIZE(parts, w, 64, rows[i].bits);
        check_shape(parts[0], MLX_UINT32, SHAPE(1, 2 * rows[i].bits));
        const double *words = doubles(parts[0]);
        assert_int_equal((uint32_t)words[0], rows[i].words[0]);
        if (rows[i].words[1]) assert_int_equal((uint32_t)words[1], rows[i].words[1]);
        check(parts[1], (double)(float)rows[i].scale);
        check(parts[2], (double)4.3f);
    }
    QUANTIZE(parts, OP(full, INTS(1, 32), scalar(MLX_FLOAT32, 0.5), MLX_FLOAT32), 32, 4);
    check(parts[0], 0, 0, 0, 0);
    check(parts[1], (double)-1e-7f);
    check(parts[2], 0.5);
    QUANTIZE(parts, OP(zeros, INTS(1, 32), MLX_FLOAT32), 32, 4);
    check(parts[2], 0);
}

static void test_quantize_equals_mlx_bit_for_bit(void **state) {
    (void)state;
    /* FNV-1a of words, scales and biases as bytes, by mlx[cpu] 0.32.4 from
     * w[i] = ((i*i*7 + i*37) % 1009 - 500) / 128, shape [4, 256]. Rows: bits;
     * columns: group 32, 64, 128, each in float32, float16, bfloat16. */
    static const uint64_t expected[6][9] = {
        {0x8a559e5b450ac850, 0x3cd9fb25a176d298, 0xa22622c8685772b2, 0x0998fae6516e8ccf,
         0xe3c19cd53f139bc7, 0x2bfbde6fca0223bf, 0x15149c2ec6c9f398, 0x4731eda70c4a6db4,
         0x04ff0d6e061a70e4},
        {0x3c987ea9f4b005af, 0xd7a5366c763bc7ff, 0x4d252fbf32ea3ad6, 0x05c3faa166679769,
         0x4b7c1c6cd46d7b69, 0x380c77ead6e4b121, 0xcf9fe42f211cfd7a, 0x7b6cd552a6ff632e,
         0x03e0fe14ca7e0bc8},
        {0x5f505a6a2125f95a, 0xe2efb118b3c962b2, 0x0ab8330f55f2567b, 0xa068d2d33a81de52,
         0x032fbc2cd31c0f0a, 0x118168518880f243, 0xaf5ba549f8dfb9f6, 0x931b6e4b86475dd6,
         0x015809dda20da2fb},
        {0x72c6077c15f6aaed, 0xa08b4884a3eb3e63, 0x68707f6be58a89a8, 0x4b8c3c71391e32e4,
         0x56af263dcbf888fc, 0xad0e2454c3849198, 0xb9aabb6571c9dd57, 0x3fe8b1ac36b913c7,
         0xa5e061ac740eda47},
        {0xa16f62353ef4ce4d, 0xc16c4bc158b572bd, 0xb7e9d8275f265fa7, 0xa892fbdfb5318f3d,
         0x6bfdc17ac23e5501, 0x0798411552ed0936, 0xbded42fc0f5a9fa5, 0xdee7e75d299a1389,
         0xf53e5cb4b5d3a51b},
        {0xe1e4d749d500d97e, 0x5d59849e78f9dd95, 0xeb2047f269415a83, 0x87b602820ab912c8,
         0x156babd65550e44d, 0xefb7b5144149be01, 0x63eefddb49013d20, 0x882ea92c18c5025b,
         0xad87cc122969aa9e},
    };
    double values[1024];
    for (int i = 0; i < 1024; i++) values[i] = ((i * i * 7 + i * 37) % 1009 - 500) / 128.0;
    for (int b = 0; b < 6; b++) {
        for (int c = 0; c < 9; c++) {
            mlx_array parts[3], w = make(quant_dtypes[c % 3], SHAPE(4, 256), values, 1024);
            QUANTIZE(parts, w, all_groups[c / 3], all_bits[b]);
            StrBuf bytes = {0};
            for (int i = 0; i < 3; i++) {
                mlx_array raw = OP(view, OP(contiguous, parts[i], false), MLX_UINT8);
                mlx_array_eval(raw);
                base_str_append_n(&bytes, (const char *)mlx_array_data_uint8(raw),
                                  mlx_array_size(raw));
            }
            if (base_hash(bytes.data, bytes.length) != expected[b][c])
                fail_msg("%d bits, group %d, dtype %d differ", all_bits[b], all_groups[c / 3],
                         (int)quant_dtypes[c % 3]);
            base_str_free(&bytes);
            release_all(NULL);
        }
    }
}

static void test_quantized_matmul_equals_the_dense_product(void **state) {
    (void)state;
    static double expected[16384];
    const int rows[] = {1, 3, 40};
    for (int b = 0; b < 6; b++) {
        for (int g = 0; g < 3; g++) {
            for (int c = 0; c < 3; c++) {
                const mlx_dtype d = quant_dtypes[c];
                double values[2048];
                for (int i = 0; i < 2048; i++) values[i] = ((i * 29) % 97 - 48) / 64.0;
                mlx_array parts[3], w = make(d, SHAPE(8, 256), values, 2048);
                QUANTIZE(parts, w, all_groups[g], all_bits[b]);
                mlx_array dense =
                    OP(dequantize, parts[0], OP(astype, parts[1], MLX_FLOAT32),
                       OP(astype, parts[2], MLX_FLOAT32), some(all_groups[g]), some(all_bits[b]),
                       "affine", NONE, ((mlx_optional_dtype){MLX_FLOAT32, false}));
                mlx_array wide = OP(astype, dense, MLX_FLOAT64);
                for (int r = 0; r < 3; r++) {
                    const int m = rows[r];
                    const double near = d == MLX_BFLOAT16 ? 1e-2 : 3e-3;
                    mlx_array x = OP(multiply, pattern(d, SHAPE(m, 256), m), scalar(d, 0.25));
                    mlx_array product = OP(matmul, OP(astype, x, MLX_FLOAT64), OP(transpose, wide));
                    memcpy(expected, doubles(product), sizeof(double) * (size_t)m * 8);
                    mlx_array y = OP(quantized_matmul, x, parts[0], parts[1], parts[2], true,
                                     some(all_groups[g]), some(all_bits[b]), "affine");
                    check_shape(y, d, SHAPE(m, 8));
                    check_near(y, expected, (size_t)m * 8, near);
                    mlx_array x8 = OP(multiply, pattern(d, SHAPE(m, 8), m), scalar(d, 0.25));
                    product = OP(matmul, OP(astype, x8, MLX_FLOAT64), wide);
                    memcpy(expected, doubles(product), sizeof(double) * (size_t)m * 256);
                    y = OP(quantized_matmul, x8, parts[0], parts[1], parts[2], false,
                           some(all_groups[g]), some(all_bits[b]), "affine");
                    check_near(y, expected, (size_t)m * 256, near);
                }
                release_all(NULL);
            }
        }
    }
}

static void test_quantized_ones_sum_exactly(void **state) {
    (void)state;
    mlx_array parts[3], w = OP(ones, INTS(2, 1024), MLX_BFLOAT16);
    const mlx_optional_int none = {0, false};
    OPV(parts, quantize, w, none, none, "affine", NONE);
    mlx_array x = OP(ones, INTS(1, 1024), MLX_BFLOAT16);
    check(OP(quantized_matmul, x, parts[0], parts[1], parts[2], true, none, none, "affine"), 1024,
          1024);
}

static void test_quantized_batches(void **state) {
    (void)state;
    mlx_array parts[3], w = pattern(MLX_FLOAT32, SHAPE(3, 4, 64), 2);
    QUANTIZE(parts, w, 32, 8);
    mlx_array dense = OP(dequantize, parts[0], parts[1], parts[2], some(32), some(8), "affine",
                         NONE, ((mlx_optional_dtype){MLX_FLOAT32, false}));
    mlx_array x = pattern(MLX_FLOAT32, SHAPE(2, 1, 5, 64), 3);
    mlx_array y =
        OP(quantized_matmul, x, parts[0], parts[1], parts[2], true, some(32), some(8), "affine");
    check_shape(y, MLX_FLOAT32, SHAPE(2, 3, 5, 4));
    const double *want = doubles(OP(matmul, x, OP(swapaxes, dense, 1, 2)));
    check_near(y, want, 120, 1e-3);
    mlx_array line = pattern(MLX_FLOAT32, SHAPE(64), 3);
    check_shape(
        OP(quantized_matmul, line, parts[0], parts[1], parts[2], true, some(32), some(8), "affine"),
        MLX_FLOAT32, SHAPE(3, 4));
    mlx_array rows = make(MLX_INT32, SHAPE(2), VALUES(2, 0));
    mlx_array taken =
        OP(dequantize, OP(take_axis, parts[0], rows, 0), OP(take_axis, parts[1], rows, 0),
           OP(take_axis, parts[2], rows, 0), some(32), some(8), "affine", NONE,
           ((mlx_optional_dtype){MLX_FLOAT32, false}));
    check_near(taken, doubles(OP(take_axis, dense, rows, 0)), 512, 0);
}

static void test_quantize_refuses_bad_settings(void **state) {
    (void)state;
    mlx_array parts[3], w = pattern(MLX_FLOAT32, SHAPE(4, 64), 2);
    QUANTIZE(parts, w, 32, 4);
    mlx_vector_array out = mlx_vector_array_new();
    assert_int_equal(mlx_quantize(&out, w, some(32), some(7), "affine", NONE, cpu), 1);
    assert_int_equal(mlx_quantize(&out, w, some(48), some(4), "affine", NONE, cpu), 1);
    assert_int_equal(mlx_quantize(&out, w, some(128), some(4), "affine", NONE, cpu), 1);
    assert_int_equal(mlx_quantize(&out, w, some(32), some(4), "q4_k", NONE, cpu), 1);
    mlx_vector_array_free(out);
#define QMM(x, a, b, c, g, n) x, a, b, c, true, some(g), some(n), "affine"
    mlx_array x = pattern(MLX_FLOAT32, SHAPE(1, 64), 1);
    FAILS("Biases", quantized_matmul, QMM(x, parts[0], parts[1], NONE, 32, 4));
    FAILS("uint32", quantized_matmul, QMM(x, w, parts[1], parts[2], 32, 4));
    FAILS("incompatible", quantized_matmul, QMM(x, parts[0], parts[1], parts[2], 64, 4));
    FAILS("incompatible", quantized_matmul, QMM(x, parts[0], parts[1], parts[2], 32, 8));
    FAILS("same shape", quantized_matmul, QMM(x, parts[0], parts[1], w, 32, 4));
    FAILS("does not match", quantized_matmul,
          QMM(pattern(MLX_FLOAT32, SHAPE(1, 32), 1), parts[0], parts[1], parts[2], 32, 4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_matmul_of_every_float_pair),
        TEST(test_matmul_accumulates_in_float32),
        TEST(test_matmul_batches_and_vectors),
        TEST(test_addmm),
        TEST(test_affine_vectors),
        TEST(test_quantize_equals_mlx_bit_for_bit),
        TEST(test_quantized_matmul_equals_the_dense_product),
        TEST(test_quantized_ones_sum_exactly),
        TEST(test_quantized_batches),
        TEST(test_quantize_refuses_bad_settings),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
