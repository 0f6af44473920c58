/* Matrix products, dense and quantised, and quantisation itself, against
 * float64 on random shapes with odd tails, at every level. */
#include "cpu/unpack.h"
#include "engine/kernels_check.h"

static const int all_bits[] = {2, 3, 4, 5, 6, 8}, all_groups[] = {32, 64, 128};

/* A dense product with every stride choice; reports the largest error over
 * the root mean square of the result. */
static void check_gemm(size_t m, size_t n, size_t k, CpuType type, int layout, bool epilogue) {
    bool a_columns = layout & 1, b_columns = layout & 2, spaced = layout & 4;
    size_t gap = spaced ? 3 : 0, step = spaced && !a_columns && !b_columns ? 2 : 1;
    size_t a_row = a_columns ? 1 : (k * step + gap), a_col = a_columns ? m + gap : step;
    size_t b_row = b_columns ? 1 : (n * step + gap), b_col = b_columns ? k + gap : step;
    size_t a_size = m && k ? (m - 1) * a_row + (k - 1) * a_col + 1 : 0;
    size_t b_size = n && k ? (k - 1) * b_row + (n - 1) * b_col + 1 : 0;
    size_t c_row = n + gap;
    void *a = random_array(type, a_size, 1), *b = random_array(type, b_size, 1);
    void *c = random_array(type, m * c_row, 9), *d = random_array(type, n, 1);
    CpuGemm g = {.m = m,
                 .n = n,
                 .k = k,
                 .a = a,
                 .a_type = type,
                 .a_row = (ptrdiff_t)a_row,
                 .a_col = (ptrdiff_t)a_col,
                 .b = b,
                 .b_type = type,
                 .b_row = (ptrdiff_t)b_row,
                 .b_col = (ptrdiff_t)b_col,
                 .c = c,
                 .c_type = type,
                 .c_row = (ptrdiff_t)c_row,
                 .alpha = epilogue ? 0.5f : 1.0f,
                 .add = epilogue ? d : NULL,
                 .add_type = type,
                 .add_row = 0,
                 .add_col = 1,
                 .beta = 2.0f};
    cpu_gemm(&g);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double want = 0, size = 0;
            for (size_t p = 0; p < k; p++) {
                double term = (double)cpu_load(a, type, i * a_row + p * a_col) *
                              cpu_load(b, type, p * b_row + j * b_col);
                want += term;
                size += fabs(term);
            }
            if (epilogue) want = 0.5 * want + 2.0 * cpu_load(d, type, j);
            char what[96];
            snprintf(what, sizeof what, "gemm %zux%zux%zu type %d layout %d", m, n, k, type,
                     layout);
            assert_near(cpu_load(c, type, i * c_row + j), want,
                        1e-6 * size + type_error(type) * 1.01 * fabs(want) + 1e-7, what, i * n + j);
        }
    free(a);
    free(b);
    free(c);
    free(d);
}

static void test_dense_products_of_every_layout_and_type(void **state) {
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1},    {1, 37, 64},   {2, 50, 33},   {3, 5, 100},
                                       {7, 19, 257}, {9, 16, 5},    {13, 33, 300}, {30, 70, 65},
                                       {48, 64, 32}, {61, 40, 600}, {5, 3, 0},     {100, 1, 17}};
    for (size_t s = 0; s < BASE_COUNT(shapes); s++)
        for (CpuType type = 0; type < CPU_TYPES; type++)
            for (int layout = 0; layout < 8; layout++)
                check_gemm(shapes[s][0], shapes[s][1], shapes[s][2], type, layout, layout % 3 == 1);
}

static void test_large_products_cross_every_block(void **state) {
    (void)state;
    check_gemm(1040, 33, 20, CPU_F32, 2, false);
    check_gemm(20, 1100, 70, CPU_F32, 0, true);
    check_gemm(130, 530, 270, CPU_BF16, 2, false);
    check_gemm(33, 40, 1050, CPU_BF16, 0, true);
}

static void test_a_batch_equals_its_products(void **state) {
    (void)state;
    enum { COUNT = 9, M = 11, N = 21, K = 40 };
    float *a = random_array(CPU_F32, COUNT * M * K, 1),
          *b = random_array(CPU_F32, COUNT * K * N, 1);
    float *c = random_array(CPU_F32, COUNT * M * N, 0), *one = random_array(CPU_F32, M * N, 0);
    CpuGemm g[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        g[i] = (CpuGemm){.m = M,
                         .n = N,
                         .k = K,
                         .a = a + i * M * K,
                         .a_row = K,
                         .a_col = 1,
                         .b = b + i * K * N,
                         .b_row = N,
                         .b_col = 1,
                         .c = c + i * M * N,
                         .c_row = N,
                         .alpha = 1};
    cpu_gemm_batch(g, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CpuGemm single = g[i];
        single.c = one;
        cpu_gemm(&single);
        assert_memory_equal(one, c + i * M * N, M * N * sizeof(float));
    }
    free(a);
    free(b);
    free(c);
    free(one);
}

static void test_quantise_matches_the_published_vectors(void **state) {
    /* w[i] = i/10 - 2, group 64: made by mlx on the CPU. */
    (void)state;
    static const struct {
        int bits;
        float scale;
        uint32_t words[2];
        int known;
    } expected[] = {{2, -2.1500001f, {0xaaafffff}, 1},
                    {3, -.860000014f, {0xb6ffffff, 0xdb6ddb6d}, 2},
                    {4, -.430000007f, {0xdddeeeef}, 1},
                    {5, -.204761907f, {0x39defbdf, 0x9ceb5bdf}, 2},
                    {6, -.100000001f, {0xbbf3dfbf, 0x5db7e39e}, 2},
                    {8, -.0247126445f, {0xf3f7fbff}, 1}};
    float w[64];
    for (int i = 0; i < 64; i++) w[i] = (float)i / 10.0f - 2.0f;
    for (size_t e = 0; e < BASE_COUNT(expected); e++) {
        uint32_t words[16];
        float scale, bias;
        cpu_quantize(w, CPU_F32, 1, 64, expected[e].bits, 64, words, &scale, &bias);
        assert_true(scale == expected[e].scale);
        assert_true(fabsf(bias - 4.3f) < 1e-6f);
        for (int i = 0; i < expected[e].known; i++)
            assert_int_equal(words[i], expected[e].words[i]);
    }
    float zeros[64] = {0}, out[64];
    uint32_t words[8];
    float scale, bias;
    cpu_quantize(zeros, CPU_F32, 1, 64, 4, 64, words, &scale, &bias);
    CpuQuant q = {words, &scale, &bias, CPU_F32, 4, 64, 1, 64, CPU_AFFINE, 1};
    cpu_dequantize(&q, CPU_F32, out);
    for (int i = 0; i < 64; i++) assert_true(out[i] == 0.0f);
}

/* Random quantised weights; frees with free_weights. */
static CpuQuant random_weights(size_t rows, size_t cols, int bits, int group, CpuType type) {
    float *w = random_array(CPU_F32, rows * cols, 1);
    for (size_t i = 0; i < rows * cols; i++) w[i] += 0.3f;
    void *narrow = random_array(type, rows * cols, 0);
    cpu_convert(narrow, type, w, CPU_F32, rows * cols);
    uint32_t *words = malloc(rows * cols * (size_t)bits / 8);
    void *scales = random_array(type, rows * cols / (size_t)group, 0);
    void *biases = random_array(type, rows * cols / (size_t)group, 0);
    cpu_quantize(narrow, type, rows, cols, bits, group, words, scales, biases);
    free(w);
    free(narrow);
    return (CpuQuant){words, scales, biases, type, bits, group, rows, cols, CPU_AFFINE, 1};
}
static void free_weights(CpuQuant *q) {
    free((void *)(uintptr_t)q->words);
    free((void *)(uintptr_t)q->scales);
    free((void *)(uintptr_t)q->biases);
}
static double weight_at(const CpuQuant *q, size_t r, size_t c) {
    size_t g = (r * q->cols + c) / (size_t)q->group;
    return (double)cpu_unpack(q->words + r * q->cols * (size_t)q->bits / 32, q->bits, c) *
               cpu_load(q->scales, q->type, g) +
           cpu_load(q->biases, q->type, g);
}

/* In bfloat16 throughout: the product is rounded, then the sum. */
static uint16_t twice_rounded(const CpuQuant *q, size_t r, size_t c) {
    size_t g = r * (q->cols / (size_t)q->group) + c / (size_t)q->group;
    float code = (float)cpu_unpack(q->words + r * q->cols * (size_t)q->bits / 32, q->bits, c);
    float product = cpu_f32_from_bf16(cpu_bf16_from_f32(code * cpu_load(q->scales, q->type, g)));
    return cpu_bf16_from_f32(product + cpu_load(q->biases, q->type, g));
}

static void test_dequantise_and_gather_every_width(void **state) {
    (void)state;
    for (size_t b = 0; b < BASE_COUNT(all_bits); b++)
        for (size_t g = 0; g < BASE_COUNT(all_groups); g++)
            for (CpuType type = 0; type < CPU_TYPES; type++) {
                size_t cols = (size_t)all_groups[g] * 3, rows = 5;
                CpuQuant q = random_weights(rows, cols, all_bits[b], all_groups[g], type);
                float *out = random_array(CPU_F32, rows * cols, 0);
                cpu_dequantize(&q, CPU_F32, out);
                for (size_t i = 0; i < rows * cols; i++)
                    assert_near(out[i], weight_at(&q, i / cols, i % cols), 4e-7, "dequantise", i);
                static const uint32_t indices[] = {4, 0, 4, 2};
                uint16_t *picked = random_array(CPU_BF16, BASE_COUNT(indices) * cols, 0);
                cpu_dequantize_gather(&q, indices, BASE_COUNT(indices), CPU_BF16, picked);
                for (size_t i = 0; i < BASE_COUNT(indices); i++)
                    for (size_t c = 0; c < cols; c++)
                        assert_int_equal(picked[i * cols + c],
                                         type == CPU_BF16
                                             ? twice_rounded(&q, indices[i], c)
                                             : cpu_bf16_from_f32(out[indices[i] * cols + c]));
                free_weights(&q);
                free(out);
                free(picked);
            }
}

/* The error is measured against the size of the terms: half types carry
 * activations as 16-bit integers, which allows 2^-16 of the largest x of a
 * group, spread over the terms; float32 keeps 24 bits. */
static void check_quant(size_t m, size_t n, size_t k, int bits, int group, CpuType type,
                        bool transposed, bool epilogue) {
    CpuQuant q = transposed ? random_weights(n, k, bits, group, type)
                            : random_weights(k, n, bits, group, type);
    size_t x_row = k + 2, y_row = n + 1;
    void *x = random_array(type, m * x_row, 1), *y = random_array(type, m * y_row, 0);
    void *d = random_array(type, n, 1);
    CpuGemm g = {.m = m,
                 .n = n,
                 .k = k,
                 .a = x,
                 .a_type = type,
                 .a_row = (ptrdiff_t)x_row,
                 .a_col = 1,
                 .quant = &q,
                 .quant_transposed = transposed,
                 .c = y,
                 .c_type = type,
                 .c_row = (ptrdiff_t)y_row,
                 .alpha = 1,
                 .add = epilogue ? d : NULL,
                 .add_type = type,
                 .add_col = 1,
                 .beta = 1};
    if (transposed && !epilogue)
        cpu_quant_matmul(&q, m, x, type, (ptrdiff_t)x_row, y, type, (ptrdiff_t)y_row);
    else
        cpu_gemm(&g);
    double error = 0, power = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double want = epilogue ? cpu_load(d, type, j) : 0;
            for (size_t p = 0; p < k; p++)
                want += cpu_load(x, type, i * x_row + p) *
                        (transposed ? weight_at(&q, j, p) : weight_at(&q, p, j));
            double got = cpu_load(y, type, i * y_row + j);
            double bound = (type == CPU_F32 ? 1e-6 : 2e-5) * sqrt((double)k) * 3;
            char what[96];
            snprintf(what, sizeof what, "quant %zux%zux%zu bits %d group %d type %d", m, n, k, bits,
                     group, type);
            assert_near(got, want, bound + type_error(type) * 1.01 * fabs(want), what, i * n + j);
            error += (got - want) * (got - want);
            power += want * want;
        }
    if (type == CPU_F32 && m * n > 20) assert_true(sqrt(error / power) < 1e-6);
    free_weights(&q);
    free(x);
    free(y);
    free(d);
}

static void test_few_rows_stream_every_width(void **state) {
    (void)state;
    for (size_t b = 0; b < BASE_COUNT(all_bits); b++)
        for (size_t g = 0; g < BASE_COUNT(all_groups); g++)
            for (size_t m = 1; m <= 8; m++) {
                size_t k = (size_t)all_groups[g] * (1 + random_below(5));
                check_quant(m, 1 + random_below(23), k, all_bits[b], all_groups[g],
                            (CpuType)(m % 3), true, m == 3);
            }
}

static void test_many_rows_of_every_width(void **state) {
    (void)state;
    for (size_t b = 0; b < BASE_COUNT(all_bits); b++)
        for (size_t g = 0; g < BASE_COUNT(all_groups); g++)
            for (CpuType type = 0; type < CPU_TYPES; type++) {
                size_t k = (size_t)all_groups[g] * (1 + random_below(5));
                check_quant(9 + random_below(30), 1 + random_below(90), k, all_bits[b],
                            all_groups[g], type, true, type == CPU_F16);
                size_t n = (size_t)all_groups[g] * (1 + random_below(3));
                check_quant(1 + random_below(20), n, 1 + random_below(70), all_bits[b],
                            all_groups[g], type, false, type == CPU_BF16);
            }
    check_quant(530, 40, 1152, 4, 32, CPU_F32, true, false);
}

static void test_special_activations_give_what_multiplication_gives(void **state) {
    (void)state;
    enum { K = 64, N = 6 };
    for (size_t b = 0; b < BASE_COUNT(all_bits); b++)
        for (size_t m = 1; m <= 16; m += 15) {
            CpuQuant q = random_weights(N, K, all_bits[b], 32, CPU_F16);
            uint16_t *x = random_array(CPU_F16, m * K, 1), *y = random_array(CPU_F16, m * N, 0);
            x[5] = 0x7C00;               /* infinity */
            x[(m - 1) * K + 9] = 0x7E00; /* NaN; the only row has both */
            cpu_quant_matmul(&q, m, x, CPU_F16, K, y, CPU_F16, N);
            for (size_t j = 0; j < N; j++) {
                const double w = weight_at(&q, j, 5);
                const float first_want = w > 0 ? INFINITY : -INFINITY;
                const float first = cpu_f32_from_f16(y[j]),
                            last = cpu_f32_from_f16(y[(m - 1) * N + j]);
                assert_true(isnan(last));
                if (m > 1 && fabs(w) > 1e-3) assert_true(first == first_want);
            }
            free_weights(&q);
            free(x);
            free(y);
        }
}

static void test_ones_sum_exactly_in_bfloat(void **state) {
    (void)state;
    enum { K = 1024, N = 5 };
    uint16_t w[N * K], x[K], y[N];
    for (int i = 0; i < N * K; i++) w[i] = 0x3F80;
    for (int i = 0; i < K; i++) x[i] = 0x3F80;
    uint32_t words[N * K / 8];
    uint16_t scales[N * K / 64], biases[N * K / 64];
    cpu_quantize(w, CPU_BF16, N, K, 4, 64, words, scales, biases);
    CpuQuant q = {words, scales, biases, CPU_BF16, 4, 64, N, K, CPU_AFFINE, 1};
    cpu_quant_matmul(&q, 1, x, CPU_BF16, K, y, CPU_BF16, N);
    for (int i = 0; i < N; i++) assert_true(cpu_f32_from_bf16(y[i]) == 1024.0f);
}

static int tests(void) {
    const struct CMUnitTest list[] = {
        cmocka_unit_test(test_dense_products_of_every_layout_and_type),
        cmocka_unit_test(test_large_products_cross_every_block),
        cmocka_unit_test(test_a_batch_equals_its_products),
        cmocka_unit_test(test_quantise_matches_the_published_vectors),
        cmocka_unit_test(test_dequantise_and_gather_every_width),
        cmocka_unit_test(test_few_rows_stream_every_width),
        cmocka_unit_test(test_many_rows_of_every_width),
        cmocka_unit_test(test_special_activations_give_what_multiplication_gives),
        cmocka_unit_test(test_ones_sum_exactly_in_bfloat),
    };
    return cmocka_run_group_tests(list, NULL, NULL);
}

int main(void) {
    return run_levels(tests);
}
