/* The trusted sum over the taps of a depthwise convolution. */
#include "cpu/table.h"

static void tap_sum_any(float *out, const void *const *taps, const float *const *weights,
                        size_t n_taps, size_t n, CpuType type) {
    for (size_t c = 0; c < n; c++) {
        float sum = 0;
        for (size_t t = 0; t < n_taps; t++) sum += cpu_load(taps[t], type, c) * weights[t][c];
        out[c] = sum;
    }
}

static void tap_sum_f32(float *out, const void *const *taps, const float *const *weights,
                        size_t n_taps, size_t n) {
    tap_sum_any(out, taps, weights, n_taps, n, CPU_F32);
}
static void tap_sum_f16(float *out, const void *const *taps, const float *const *weights,
                        size_t n_taps, size_t n) {
    tap_sum_any(out, taps, weights, n_taps, n, CPU_F16);
}
static void tap_sum_bf16(float *out, const void *const *taps, const float *const *weights,
                         size_t n_taps, size_t n) {
    tap_sum_any(out, taps, weights, n_taps, n, CPU_BF16);
}

void cpu_fill_conv_scalar(Kernels *t) {
    t->tap_sum[CPU_F32] = tap_sum_f32;
    t->tap_sum[CPU_F16] = tap_sum_f16;
    t->tap_sum[CPU_BF16] = tap_sum_bf16;
}
