/* Contiguous kernels (conversions, functions, reductions, rows, rope) against
 * float64, at every level of this processor and on odd lengths. */
#include "engine/kernels_check.h"

static const size_t lengths[] = {0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 1023, 1025, 3001};

static double f16_value(uint16_t bits) {
    int exponent = bits >> 10 & 31;
    double fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, -24);
    return sign * ldexp(1024 + fraction, exponent - 25);
}

static void test_every_half_and_bfloat_widens_exactly(void **state) {
    (void)state;
    uint16_t *bits = malloc(65536 * 2);
    float *wide = malloc(65536 * 4);
    for (int i = 0; i < 65536; i++) bits[i] = (uint16_t)i;
    cpu_convert(wide, CPU_F32, bits, CPU_F16, 65536);
    for (int i = 0; i < 65536; i++) {
        assert_near(wide[i], f16_value(bits[i]), 0, "f16", (size_t)i);
        assert_near(cpu_f32_from_f16(bits[i]), wide[i], 0, "one f16", (size_t)i);
    }
    cpu_convert(wide, CPU_F32, bits, CPU_BF16, 65536);
    for (int i = 0; i < 65536; i++) {
        uint32_t pattern;
        memcpy(&pattern, &wide[i], 4);
        assert_int_equal(pattern, (uint32_t)i << 16);
    }
    free(bits);
    free(wide);
}

static void test_narrowing_rounds_to_nearest_even(void **state) {
    (void)state;
    enum { N = 40001 };
    float *in = malloc(N * 4);
    uint16_t *out = malloc(N * 2);
    static const float special[] = {0.0f,          -0.0f,    INFINITY,  -INFINITY, 65504.0f,
                                    65519.9f,      65520.0f, -65520.0f, 1e-8f,     2.9802322e-8f,
                                    5.9604645e-8f, 6.1e-5f,  3.4e38f};
    for (int i = 0; i < N; i++) {
        uint32_t bits = random_bits();
        if (i % 2) bits = (bits & 0x8FFFFFFF) + 0x37000000;  /* the range of f16 */
        if (i % 5 == 0) bits = (bits & 0xFFFFE000) | 0x1000; /* ties of f16 */
        if (i % 7 == 0) bits = (bits & 0xFFFF0000) | 0x8000; /* ties of bf16 */
        memcpy(&in[i], &bits, 4);
        if (i < (int)BASE_COUNT(special)) in[i] = special[i];
    }
    cpu_convert(out, CPU_F16, in, CPU_F32, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(out[i], cpu_f16_from_f32(in[i]));
        if (isnan(in[i])) {
            assert_int_equal(out[i] & 0x7FFF, 0x7D00);
            continue;
        }
        if (isinf(f16_value(out[i]))) {
            assert_true(fabsf(in[i]) >= 65520.0f);
            continue;
        }
        /* No neighbour is nearer, and none is as near with an even code. */
        double error = fabs(f16_value(out[i]) - in[i]);
        for (int step = -1; step <= 1; step += 2) {
            if ((out[i] & 0x7FFF) + step < 0 || (out[i] & 0x7FFF) + step >= 0x7C00) continue;
            double other = fabs(f16_value((uint16_t)(out[i] + step)) - in[i]);
            assert_true(error < other || (error == other && out[i] % 2 == 0));
        }
    }
    cpu_convert(out, CPU_BF16, in, CPU_F32, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(out[i], cpu_bf16_from_f32(in[i]));
        if (isnan(in[i])) assert_int_equal(out[i], 0x7FC0);
    }
    free(in);
    free(out);
}

static double unary_reference(CpuUnary op, double x) {
    switch (op) {
    case CPU_ABS: return fabs(x);
    case CPU_CEIL: return ceil(x);
    case CPU_COS: return cos(x);
    case CPU_ERF: return erf(x);
    case CPU_EXP: return exp(x);
    case CPU_EXPM1: return expm1(x);
    case CPU_FLOOR: return floor(x);
    case CPU_GELU: return 0.5 * x * (1 + erf(x / sqrt(2.0)));
    case CPU_GELU_APPROX: return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case CPU_GELU_FAST: return x / (1 + exp(-1.702 * x));
    case CPU_LOG: return log(x);
    case CPU_LOG1P: return log1p(x);
    case CPU_NEGATIVE: return -x;
    case CPU_RECIPROCAL: return 1 / x;
    case CPU_RELU: return isnan(x) || x > 0 ? x : 0;
    case CPU_ROUND: return rint(x);
    case CPU_RSQRT: return 1 / sqrt(x);
    case CPU_SIGMOID: return 1 / (1 + exp(-x));
    case CPU_SILU: return x / (1 + exp(-x));
    case CPU_SIN: return sin(x);
    case CPU_SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    case CPU_SQRT: return sqrt(x);
    case CPU_SQUARE: return x * x;
    default: return tanh(x);
    }
}

/* The tail of gelu is a difference of near-equal numbers, by definition. */
static double unary_tolerance(CpuUnary op, double x, double want) {
    double relative = 4e-7 * fabs(want) + 1.5e-45;
    if (op == CPU_GELU || op == CPU_GELU_APPROX) return relative + 2e-7 * fabs(x);
    if (op == CPU_GELU_FAST || op == CPU_SILU || op == CPU_SIGMOID)
        return relative + 2e-7 * fabs(x * want) + 1e-36;
    if (op == CPU_SIN || op == CPU_COS || op == CPU_LOG) return relative + 1e-7;
    if (op == CPU_EXP) return relative + 1e-7 * fabs(want);
    return relative;
}

static void test_functions_of_one_argument_match_float64(void **state) {
    (void)state;
    enum { N = 4001 };
    static const float spread[] = {1e-6f, 1e-2f, 1.0f, 5.0f, 30.0f, 87.0f};
    float *in = malloc(N * 4), *out = malloc(N * 4);
    for (CpuUnary op = 0; op < CPU_UNARY_COUNT; op++) {
        bool positive = op == CPU_LOG || op == CPU_SQRT || op == CPU_RSQRT || op == CPU_LOG1P;
        for (size_t s = 0; s < BASE_COUNT(spread); s++) {
            for (int i = 0; i < N; i++) {
                in[i] = random_float() * spread[s];
                if (positive) in[i] = fabsf(in[i]) + 1e-30f;
            }
            cpu_unary(op, CPU_F32, out, in, N);
            for (int i = 0; i < N; i++) {
                double want = unary_reference(op, in[i]);
                char name[32];
                snprintf(name, sizeof name, "unary %d of %g", (int)op, (double)in[i]);
                assert_near(out[i], want, unary_tolerance(op, in[i], want), name, (size_t)i);
            }
        }
    }
    free(in);
    free(out);
}

static void test_functions_of_one_argument_keep_nan_and_infinity(void **state) {
    (void)state;
    static const float in[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-42f, 100.0f, -110.0f, NAN};
    for (CpuUnary op = 0; op < CPU_UNARY_COUNT; op++) {
        float out[BASE_COUNT(in)];
        cpu_unary(op, CPU_F32, out, in, BASE_COUNT(in));
        for (size_t i = 0; i < BASE_COUNT(in); i++) {
            double want = unary_reference(op, in[i]);
            if (fabs(want) > 3.4028235e38) want = copysign(INFINITY, want);
            bool product_with_limit = isinf(in[i]) && isnan(want);
            if (product_with_limit && op != CPU_SIN && op != CPU_COS && op != CPU_LOG &&
                op != CPU_SQRT && op != CPU_RSQRT && op != CPU_LOG1P)
                continue; /* -inf * 0 inside the formula */
            char name[32];
            snprintf(name, sizeof name, "unary %d of %g", (int)op, (double)in[i]);
            assert_near(out[i], want, unary_tolerance(op, in[i], want) + 2e-42, name, i);
        }
    }
}

static double binary_reference(CpuBinary op, double a, double b) {
    switch (op) {
    case CPU_ADD: return a + b;
    case CPU_SUBTRACT: return a - b;
    case CPU_MULTIPLY: return a * b;
    case CPU_DIVIDE: return a / b;
    case CPU_MAXIMUM: return isnan(a) || isnan(b) ? NAN : fmax(a, b);
    case CPU_MINIMUM: return isnan(a) || isnan(b) ? NAN : fmin(a, b);
    case CPU_SILU_MUL: return unary_reference(CPU_SILU, a) * b;
    case CPU_GELU_MUL: return unary_reference(CPU_GELU, a) * b;
    default: return unary_reference(CPU_GELU_APPROX, a) * b;
    }
}

static void test_functions_of_two_arguments_in_every_type_and_step(void **state) {
    (void)state;
    for (CpuBinary op = 0; op < CPU_BINARY_COUNT; op++)
        for (CpuType type = 0; type < CPU_TYPES; type++)
            for (size_t l = 0; l < BASE_COUNT(lengths); l++)
                for (int steps = 0; steps < 4; steps++) {
                    size_t n = lengths[l];
                    int a_step = steps & 1, b_step = steps >> 1;
                    void *a = random_array(type, a_step ? n : 1, 3);
                    void *b = random_array(type, b_step ? n : 1, 3);
                    void *out = random_array(type, n, 0);
                    if (n > 3 && a_step) cpu_store(a, type, 1, NAN);
                    if (n > 3 && b_step) cpu_store(b, type, n - 1, NAN);
                    cpu_binary(op, type, out, a, a_step, b, b_step, n);
                    for (size_t i = 0; i < n; i++) {
                        double x = cpu_load(a, type, a_step ? i : 0);
                        double y = cpu_load(b, type, b_step ? i : 0);
                        double want = binary_reference(op, x, y);
                        assert_near(cpu_load(out, type, i), want,
                                    type_error(type) * 1.01 * fabs(want) + 1e-6 * fabs(x * y) +
                                        6e-8,
                                    "binary", i);
                    }
                    if (a_step) {
                        cpu_binary(op, type, a, a, 1, b, b_step, n);
                        for (size_t i = 0; i < n; i++)
                            assert_near(cpu_load(a, type, i), cpu_load(out, type, i), 0, "in place",
                                        i);
                    }
                    free(a);
                    free(b);
                    free(out);
                }
}

static void test_reductions_sum_in_float32_and_propagate_nan(void **state) {
    (void)state;
    for (CpuType type = 0; type < CPU_TYPES; type++)
        for (size_t l = 0; l < BASE_COUNT(lengths); l++) {
            size_t n = lengths[l];
            void *a = random_array(type, n, 2), *b = random_array(type, n, 2);
            double sum = 0, squares = 0, dot = 0, top = -INFINITY, low = INFINITY;
            for (size_t i = 0; i < n; i++) {
                double x = cpu_load(a, type, i);
                sum += x;
                squares += x * x;
                dot += x * cpu_load(b, type, i);
                top = fmax(top, x);
                low = fmin(low, x);
            }
            double tolerance = 1e-6 * (double)n + 1e-12;
            assert_near(cpu_sum(type, a, n), sum, tolerance, "sum", n);
            assert_near(cpu_sum_squares(type, a, n), squares, tolerance, "sum of squares", n);
            assert_near(cpu_dot(type, a, b, n), dot, tolerance, "dot", n);
            assert_near(cpu_max(type, a, n), top, 0, "max", n);
            assert_near(cpu_min(type, a, n), low, 0, "min", n);
            if (n) {
                cpu_store(a, type, random_below(n), INFINITY);
                assert_near(cpu_max(type, a, n), INFINITY, 0, "max", n);
                cpu_store(a, type, random_below(n), NAN);
                assert_true(isnan(cpu_max(type, a, n)) && isnan(cpu_min(type, a, n)));
            }
            free(a);
            free(b);
        }
    uint16_t ones[1000];
    for (int i = 0; i < 1000; i++) ones[i] = 0x3F80;
    assert_true(cpu_sum(CPU_BF16, ones, 1000) == 1000.0f);
}

static void test_softmax_and_logsumexp_rows(void **state) {
    (void)state;
    for (CpuType type = 0; type < CPU_TYPES; type++)
        for (size_t l = 1; l < BASE_COUNT(lengths); l++) {
            size_t n = lengths[l], rows = 3, stride = n + 5;
            void *in = random_array(type, rows * stride, 9),
                 *out = random_array(type, rows * stride, 0);
            CpuRows work = {type, rows, n, in, out, (ptrdiff_t)stride, (ptrdiff_t)stride};
            cpu_softmax(&work);
            void *lse = random_array(type, rows, 0);
            CpuRows reduce = {type, rows, n, in, lse, (ptrdiff_t)stride, 1};
            cpu_logsumexp(&reduce);
            for (size_t r = 0; r < rows; r++) {
                double sum = 0;
                for (size_t i = 0; i < n; i++) sum += exp(cpu_load(in, type, r * stride + i));
                for (size_t i = 0; i < n; i++) {
                    double want = exp(cpu_load(in, type, r * stride + i)) / sum;
                    assert_near(cpu_load(out, type, r * stride + i), want,
                                (type_error(type) + 2e-6) * want + 3e-8, "softmax", i);
                }
                assert_near(cpu_load(lse, type, r), log(sum),
                            (type_error(type) + 1e-6) * fabs(log(sum)) + 1e-6, "logsumexp", r);
            }
            free(in);
            free(out);
            free(lse);
        }
    float empty_row[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, out[4];
    CpuRows work = {CPU_F32, 1, 4, empty_row, out, 4, 4};
    cpu_softmax(&work);
    assert_true(isnan(out[0]));
    cpu_logsumexp(&work);
    assert_true(out[0] == -INFINITY);
}

static void test_norms_match_float64(void **state) {
    (void)state;
    for (CpuType type = 0; type < CPU_TYPES; type++)
        for (size_t l = 1; l < BASE_COUNT(lengths); l++)
            for (int parts = 0; parts < 4; parts++) {
                size_t n = lengths[l], rows = 2;
                void *in = random_array(type, rows * n, 2), *out = random_array(type, rows * n, 0);
                void *weight = random_array(type, n, 1), *bias = random_array(type, n, 1);
                const void *w = parts & 1 ? weight : NULL, *b = parts & 2 ? bias : NULL;
                CpuRows work = {type, rows, n, in, out, (ptrdiff_t)n, (ptrdiff_t)n};
                for (int layer = 0; layer < 2; layer++) {
                    if (layer)
                        cpu_norm(&work, w, b, type, 1e-5f, true);
                    else
                        cpu_norm(&work, w, NULL, type, 1e-5f, false);
                    for (size_t r = 0; r < rows; r++) {
                        double mean = 0, squares = 0;
                        for (size_t i = 0; layer && i < n; i++)
                            mean += cpu_load(in, type, r * n + i) / (double)n;
                        for (size_t i = 0; i < n; i++) {
                            double x = cpu_load(in, type, r * n + i) - mean;
                            squares += x * x / (double)n;
                        }
                        for (size_t i = 0; i < n; i++) {
                            double x =
                                (cpu_load(in, type, r * n + i) - mean) / sqrt(squares + 1e-5);
                            double want = (w ? cpu_load(w, type, i) : 1) * x +
                                          (layer && b ? cpu_load(b, type, i) : 0);
                            assert_near(cpu_load(out, type, r * n + i), want,
                                        3 * type_error(type) * (fabs(x) + 1.5) + 4e-6, "norm", i);
                        }
                    }
                }
                free(in);
                free(out);
                free(weight);
                free(bias);
            }
}

static void test_rope_rotates_both_pairings_with_strides(void **state) {
    (void)state;
    enum { B = 2, H = 3, L = 5, D = 38 };
    static const size_t dims_of[] = {2, 6, 16, 34, 38};
    for (CpuType type = 0; type < CPU_TYPES; type++)
        for (size_t d = 0; d < BASE_COUNT(dims_of); d++)
            for (int traditional = 0; traditional < 2; traditional++) {
                size_t dims = dims_of[d], half = dims / 2;
                void *in = random_array(type, B * L * H * D, 1); /* [B, L, H, D] */
                void *out = random_array(type, B * H * L * D, 0);
                float inv_freq[D], cosine[L * D], sine[L * D];
                for (size_t i = 0; i < half; i++)
                    inv_freq[i] = expf(-(float)i * logf(1e4f) / (float)half);
                cpu_rope_table(cosine, sine, inv_freq, half, L, 7, 0.5f);
                CpuRope rope = {type,
                                B,
                                H,
                                L,
                                D,
                                dims,
                                traditional,
                                in,
                                out,
                                {L * H * D, D, H * D},
                                {H * L * D, L * D, D},
                                cosine,
                                sine,
                                0};
                cpu_rope(&rope);
                for (size_t b = 0; b < B; b++)
                    for (size_t h = 0; h < H; h++)
                        for (size_t t = 0; t < L; t++) {
                            size_t from = ((b * L + t) * H + h) * D, to = ((b * H + h) * L + t) * D;
                            for (size_t i = 0; i < half; i++) {
                                size_t p = traditional ? 2 * i : i,
                                       q = traditional ? 2 * i + 1 : i + half;
                                double x = cpu_load(in, type, from + p),
                                       y = cpu_load(in, type, from + q);
                                double angle = (float)(((float)t + 7) * 0.5f * inv_freq[i]);
                                double c = cos(angle), s = sin(angle);
                                double tolerance = 2 * type_error(type) + 3e-7;
                                assert_near(cpu_load(out, type, to + p), x * c - y * s, tolerance,
                                            "rope", i);
                                assert_near(cpu_load(out, type, to + q), x * s + y * c, tolerance,
                                            "rope", i);
                            }
                            for (size_t i = dims; i < D; i++)
                                assert_near(cpu_load(out, type, to + i),
                                            cpu_load(in, type, from + i), 0, "rope rest", i);
                        }
                free(in);
                free(out);
            }
}

static int tests(void) {
    const struct CMUnitTest list[] = {
        cmocka_unit_test(test_every_half_and_bfloat_widens_exactly),
        cmocka_unit_test(test_narrowing_rounds_to_nearest_even),
        cmocka_unit_test(test_functions_of_one_argument_match_float64),
        cmocka_unit_test(test_functions_of_one_argument_keep_nan_and_infinity),
        cmocka_unit_test(test_functions_of_two_arguments_in_every_type_and_step),
        cmocka_unit_test(test_reductions_sum_in_float32_and_propagate_nan),
        cmocka_unit_test(test_softmax_and_logsumexp_rows),
        cmocka_unit_test(test_norms_match_float64),
        cmocka_unit_test(test_rope_rotates_both_pairings_with_strides),
    };
    return cmocka_run_group_tests(list, NULL, NULL);
}

int main(void) {
    return run_levels(tests);
}
