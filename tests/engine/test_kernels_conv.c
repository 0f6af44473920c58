/* Kernels of convolution and of the Hadamard transform, at every level of this
 * processor: the sum over taps against its scalar twin, whole convolutions
 * against float64, gradients of the weights too. */
#include "kernels_check.h"

static const CpuType types[] = {CPU_F32, CPU_F16, CPU_BF16};

static void test_tap_sum_matches_its_twin(void **state) {
    (void)state;
    Kernels twin;
    memset(&twin, 0, sizeof twin);
    cpu_fill_conv_scalar(&twin);
    for (int round = 0; round < 300; round++) {
        enum { TAPS = 9 };
        const CpuType type = types[round % 3];
        const size_t n = 1 + random_below(150), count = random_below(TAPS + 1);
        void *inputs[TAPS], *weights[TAPS];
        for (size_t t = 0; t < TAPS; t++) {
            inputs[t] = random_array(type, n, 1);
            weights[t] = random_array(CPU_F32, n, 1);
        }
        float *got = malloc(n * sizeof *got), *want = malloc(n * sizeof *want);
        cpu_kernels()->tap_sum[type](got, (const void *const *)inputs,
                                     (const float *const *)weights, count, n);
        twin.tap_sum[type](want, (const void *const *)inputs, (const float *const *)weights, count,
                           n);
        for (size_t i = 0; i < n; i++) assert_near(got[i], want[i], 1e-6, "sum of taps", i);
        for (size_t t = 0; t < TAPS; t++) {
            free(inputs[t]);
            free(weights[t]);
        }
        free(got);
        free(want);
    }
}

static CpuConv random_conv(bool depthwise) {
    CpuConv conv = {.batch = 1 + random_below(2), .flip = random_below(2)};
    conv.groups = depthwise ? 2 + random_below(80) : 1 + random_below(3);
    conv.channels = conv.groups * (depthwise ? 1 : 1 + random_below(9));
    conv.features = conv.groups * (depthwise ? 1 : 1 + random_below(9));
    for (int i = 0; i < 3; i++) {
        CpuConvAxis *axis = &conv.axis[i];
        *axis = (CpuConvAxis){.in = 1 + random_below(i ? 8 : 3),
                              .kernel = 1 + random_below(3),
                              .out = 1 + random_below(9),
                              .stride = 1 + (ptrdiff_t)random_below(3),
                              .kernel_dilation = 1 + (ptrdiff_t)random_below(3),
                              .input_dilation = 1 + (ptrdiff_t)random_below(3),
                              .pad = (ptrdiff_t)random_below(6) - 2};
    }
    return conv;
}

static size_t volume(const CpuConv *conv, int which) {
    size_t items = 1;
    for (int i = 0; i < 3; i++)
        items *= which == 0   ? conv->axis[i].in
                 : which == 1 ? conv->axis[i].kernel
                              : conv->axis[i].out;
    return items;
}

static double *widened(const void *array, CpuType type, size_t n) {
    double *out = malloc((n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++) out[i] = (double)cpu_load(array, type, i);
    return out;
}

static void check_conv(CpuConv conv) {
    const size_t in = conv.batch * volume(&conv, 0) * conv.channels;
    const size_t weights = conv.features * volume(&conv, 1) * (conv.channels / conv.groups);
    const size_t out = conv.batch * volume(&conv, 2) * conv.features;
    const double rounding = conv.type == CPU_F32 ? 1e-6 : type_error(conv.type);
    void *x = random_array(conv.type, in, 1), *w = random_array(conv.type, weights, 1);
    void *g = random_array(conv.type, out, 1);
    void *y = random_array(conv.type, out, 1), *dw = random_array(conv.type, weights, 1);
    double *wide_x = widened(x, conv.type, in), *wide_w = widened(w, conv.type, weights);
    double *wide_g = widened(g, conv.type, out);
    double *want = malloc(out * sizeof *want), *want_dw = malloc(weights * sizeof *want_dw);
    conv.in = x;
    conv.weight = w;
    conv.out = y;
    cpu_conv(&conv);
    cpu_conv_weight(&conv, g, dw);
    conv.in = wide_x;
    conv.weight = wide_w;
    conv.out = want;
    cpu_conv_f64(&conv);
    cpu_conv_weight_f64(&conv, wide_g, want_dw);
    for (size_t i = 0; i < out; i++)
        assert_near(cpu_load(y, conv.type, i), want[i], rounding * (10 + 2 * fabs(want[i])),
                    "convolution", i);
    for (size_t i = 0; i < weights; i++)
        assert_near(cpu_load(dw, conv.type, i), want_dw[i], rounding * (10 + 2 * fabs(want_dw[i])),
                    "gradient of the weights", i);
    free(x);
    free(w);
    free(g);
    free(y);
    free(dw);
    free(wide_x);
    free(wide_w);
    free(wide_g);
    free(want);
    free(want_dw);
}

static void test_convolutions_match_float64(void **state) {
    (void)state;
    for (int round = 0; round < 300; round++) {
        CpuConv conv = random_conv(round % 3 == 0);
        conv.type = types[round / 3 % 3];
        check_conv(conv);
    }
}

static void test_hadamard_matches_its_matrix(void **state) {
    (void)state;
    const size_t sizes[] = {1, 2, 4, 8, 64, 12, 20, 28, 24, 80, 112};
    for (size_t s = 0; s < BASE_COUNT(sizes); s++) {
        const size_t n = sizes[s];
        assert_true(cpu_hadamard_length_ok(n));
        double matrix[112 * 112], x[112], sums[112];
        float narrow[112];
        /* The rows of the transposed matrix, one unit vector each. */
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < n; j++) matrix[i * n + j] = i == j;
            cpu_hadamard_f64(matrix + i * n, n, 1, false);
        }
        for (size_t i = 0; i < n; i++) x[i] = narrow[i] = random_float();
        for (size_t i = 0; i < n; i++) {
            sums[i] = 0;
            for (size_t j = 0; j < n; j++) {
                double same = 0;
                sums[i] += matrix[j * n + i] * x[j];
                for (size_t k = 0; k < n; k++) same += matrix[i * n + k] * matrix[j * n + k];
                assert_true(same == (i == j ? (double)n : 0));
            }
        }
        cpu_hadamard_f32(narrow, n, 1, false);
        for (size_t i = 0; i < n; i++) assert_near(narrow[i], sums[i], 1e-5, "Hadamard", i);
        cpu_hadamard_f32(narrow, n, 1.0f / (float)n, true);
        for (size_t i = 0; i < n; i++) assert_near(narrow[i], x[i], 1e-5, "Hadamard back", i);
    }
    const size_t bad[] = {0, 3, 7, 36, 44, 25};
    for (size_t i = 0; i < BASE_COUNT(bad); i++) assert_false(cpu_hadamard_length_ok(bad[i]));
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tap_sum_matches_its_twin),
        cmocka_unit_test(test_convolutions_match_float64),
        cmocka_unit_test(test_hadamard_matches_its_matrix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return run_levels(run);
}
