/* Weights with a byte of scale a group: the number formats, quantisation and
 * products against float64, at every level. */
#include "cpu/fp_quant.h"
#include "cpu/unpack.h"
#include "engine/kernels_check.h"

static const CpuQuantMode modes[] = {CPU_MXFP4, CPU_MXFP8, CPU_NVFP4};

static int mode_bits(CpuQuantMode mode) {
    return mode == CPU_MXFP8 ? 8 : 4;
}
static int mode_group(CpuQuantMode mode) {
    return mode == CPU_NVFP4 ? 16 : 32;
}

static void test_fp8_codes_are_their_own_nearest(void **state) {
    (void)state;
    for (int code = 0; code < 256; code++) {
        float value = cpu_f32_from_fp8((uint8_t)code);
        assert_int_equal(cpu_fp8_from_f32(value), (code & 127) == 127 ? code - 1 : code);
        int exponent = code >> 3 & 15, mantissa = code & 7;
        double want = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
        assert_true(value == (code & 128 ? -want : want));
    }
    assert_int_equal(cpu_fp8_from_f32(1000), 0x7E);
    assert_int_equal(cpu_fp8_from_f32(-INFINITY), 0xFE);
    assert_int_equal(cpu_fp8_from_f32(NAN) & 0x7F, 0x7E);
    assert_int_equal(cpu_fp8_from_f32(0x1p-10f), 0); /* ties to even */
    assert_int_equal(cpu_fp8_from_f32(0x3p-10f), 2);
    assert_int_equal(cpu_fp8_from_f32(1.0625f), 0x38);
    assert_int_equal(cpu_fp8_from_f32(1.1875f), 0x3A);
    assert_int_equal(cpu_fp8_from_f32(447), 0x7E);
}

static void test_quantise_matches_the_published_vectors(void **state) {
    /* w[i] = i/10 - 2: made by mlx on the CPU. */
    (void)state;
    float w[64];
    for (int i = 0; i < 64; i++) w[i] = (float)i / 10.0f - 2.0f;
    uint32_t words[16];
    uint8_t scales[4];
    cpu_fp_quantize(CPU_MXFP4, w, CPU_F32, 1, 64, NULL, words, scales);
    assert_memory_equal(scales, ((uint8_t[]){0x7d, 0x7f}), 2);
    assert_memory_equal(words, ((uint32_t[]){0xffffffff, 0xccddeeee, 0x22109aab}), 12);
    cpu_fp_quantize(CPU_MXFP8, w, CPU_F32, 1, 64, NULL, words, scales);
    assert_memory_equal(scales, ((uint8_t[]){0x77, 0x78}), 2);
    assert_memory_equal(words, ((uint32_t[]){0xfefefefe, 0xfafbfcfd}), 8);
    cpu_fp_quantize(CPU_NVFP4, w, CPU_F32, 1, 64, NULL, words, scales);
    assert_memory_equal(scales, ((uint8_t[]){0x2b, 0x24, 0x2e, 0x33}), 4);
    assert_memory_equal(words, ((uint32_t[]){0xeeeeefff, 0xbbccdddd}), 8);
}

static void test_quantise_takes_the_smaller_value_on_ties(void **state) {
    (void)state;
    static const float ties[] = {.25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5, -.25f, -.75f, -.1f};
    static const uint32_t codes[] = {0, 1, 2, 3, 4, 5, 6, 0, 9, 0};
    static const float even[] = {0, 1, 1, 2, 2, 4, 4, -0.0f, -1, -0.0f};
    float w[32] = {6}, out[32];
    for (size_t i = 0; i < BASE_COUNT(ties); i++) w[i + 1] = ties[i];
    uint32_t words[4];
    uint8_t scale;
    cpu_fp_quantize(CPU_MXFP4, w, CPU_F32, 1, 32, NULL, words, &scale);
    assert_int_equal(scale, 127);
    cpu_fp_round(CPU_MXFP4, w, CPU_F32, 1, 32, NULL, out);
    assert_true(out[0] == 6);
    for (size_t i = 0; i < BASE_COUNT(ties); i++) {
        assert_int_equal(cpu_unpack(words, 4, i + 1), codes[i]);
        assert_true(out[i + 1] == even[i] && signbit(out[i + 1]) == signbit(even[i]));
    }
}

static void test_strange_groups_do_no_harm(void **state) {
    (void)state;
    static const float strange[] = {0, 1e-45f, 1e-38f, 3.4e38f, INFINITY, -INFINITY, NAN};
    for (size_t m = 0; m < BASE_COUNT(modes); m++)
        for (CpuType type = 0; type < CPU_TYPES; type++)
            for (size_t i = 0; i < BASE_COUNT(strange); i++) {
                float w[32], out[32], wide[32];
                for (size_t j = 0; j < 32; j++)
                    cpu_store(w, type, j, j % 3 ? strange[i] : -strange[i]);
                uint32_t words[8];
                uint8_t scales[2];
                cpu_fp_quantize(modes[m], w, type, 1, 32, NULL, words, scales);
                cpu_fp_round(modes[m], w, type, 1, 32, NULL, wide);
                CpuQuant q = {words, scales, NULL,     0, mode_bits(modes[m]), mode_group(modes[m]),
                              1,     32,     modes[m], 1};
                cpu_dequantize(&q, CPU_F32, out);
                if (strange[i] == 0)
                    for (int j = 0; j < 32; j++) assert_true(out[j] == 0 && wide[j] == 0);
            }
}

/* Every code and every plausible scale; frees with free_weights. */
static CpuQuant random_weights(size_t rows, size_t cols, CpuQuantMode mode, float factor) {
    size_t bits = (size_t)mode_bits(mode), group = (size_t)mode_group(mode);
    uint32_t *words = malloc(rows * cols * bits / 8);
    uint8_t *scales = malloc(rows * cols / group);
    for (size_t i = 0; i < rows * cols * bits / 32; i++) words[i] = random_bits();
    for (size_t i = 0; i < rows * cols / group; i++)
        scales[i] = mode == CPU_NVFP4 ? random_bits() & 0x7F : 120 + random_below(10);
    return (CpuQuant){words,      scales, NULL, CPU_F32, (int)bits,
                      (int)group, rows,   cols, mode,    factor};
}
static void free_weights(CpuQuant *q) {
    free((void *)(uintptr_t)q->words);
    free((void *)(uintptr_t)q->scales);
}
static double weight_at(const CpuQuant *q, size_t r, size_t c) {
    uint32_t code = cpu_unpack(q->words + r * q->cols * (size_t)q->bits / 32, q->bits, c);
    uint8_t byte = ((const uint8_t *)q->scales)[(r * q->cols + c) / (size_t)q->group];
    double value = q->bits == 8 ? cpu_f32_from_fp8((uint8_t)code) : cpu_e2m1[code];
    return value * cpu_fp_scale(q->mode, byte) * q->factor;
}

static void test_dequantise_and_gather_every_mode(void **state) {
    (void)state;
    static const uint32_t indices[] = {2, 0, 2};
    for (size_t m = 0; m < BASE_COUNT(modes); m++)
        for (size_t groups = 1; groups < 12; groups++) {
            size_t cols = groups * (size_t)mode_group(modes[m]);
            CpuQuant q = random_weights(3, cols, modes[m], modes[m] == CPU_NVFP4 ? 0.3f : 1);
            float *out = random_array(CPU_F32, 3 * cols, 0);
            uint16_t *picked = random_array(CPU_BF16, 3 * cols, 0);
            cpu_dequantize(&q, CPU_F32, out);
            cpu_dequantize_gather(&q, indices, 3, CPU_BF16, picked);
            for (size_t i = 0; i < 3 * cols; i++) {
                double want = weight_at(&q, i / cols, i % cols);
                assert_near(out[i], want, 2e-7 * fabs(want), "dequantise", i);
                assert_int_equal(picked[i],
                                 cpu_bf16_from_f32(out[indices[i / cols] * cols + i % cols]));
            }
            free_weights(&q);
            free(out);
            free(picked);
        }
}

/* Few rows of half types carry activations as 15-bit integers. */
static void check_product(size_t m, size_t n, size_t k, CpuQuantMode mode, CpuType type,
                          bool transposed) {
    float factor = mode == CPU_NVFP4 ? 0.01f : 1;
    const double near = type == CPU_F32 ? 1e-6 : 3e-5;
    CpuQuant q = random_weights(transposed ? n : k, transposed ? k : n, mode, factor);
    size_t x_row = k + 2, y_row = n + 1;
    void *x = random_array(type, m * x_row, 1), *y = random_array(type, m * y_row, 0);
    cpu_gemm(&(CpuGemm){.m = m,
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
                        .alpha = 1});
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double want = 0, size = 0;
            for (size_t p = 0; p < k; p++) {
                double term = cpu_load(x, type, i * x_row + p) *
                              (transposed ? weight_at(&q, j, p) : weight_at(&q, p, j));
                want += term;
                size += fabs(term);
            }
            char what[96];
            snprintf(what, sizeof what, "mode %d %zux%zux%zu type %d", mode, m, n, k, type);
            assert_near(cpu_load(y, type, i * y_row + j), want,
                        near * size + type_error(type) * 1.01 * fabs(want) + 3e-8, what, i * n + j);
        }
    free_weights(&q);
    free(x);
    free(y);
}

static void test_products_of_every_mode(void **state) {
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(modes); i++) {
        size_t group = (size_t)mode_group(modes[i]);
        for (size_t m = 1; m <= 9; m++)
            for (size_t groups = 1; groups < 20; groups += 1 + random_below(4)) {
                CpuType type = (CpuType)random_below(CPU_TYPES);
                check_product(m, 1 + random_below(23), group * groups, modes[i], type, true);
                check_product(m, group * (1 + random_below(9)), 1 + random_below(70), modes[i],
                              type, false);
            }
        check_product(70, 50, 37 * group, modes[i], CPU_F32, true);
        check_product(70, 37 * group, 300, modes[i], CPU_F32, false);
    }
}

static int tests(void) {
    const struct CMUnitTest list[] = {
        cmocka_unit_test(test_fp8_codes_are_their_own_nearest),
        cmocka_unit_test(test_quantise_matches_the_published_vectors),
        cmocka_unit_test(test_quantise_takes_the_smaller_value_on_ties),
        cmocka_unit_test(test_strange_groups_do_no_harm),
        cmocka_unit_test(test_dequantise_and_gather_every_mode),
        cmocka_unit_test(test_products_of_every_mode),
    };
    return cmocka_run_group_tests(list, NULL, NULL);
}

int main(void) {
    return run_levels(tests);
}
