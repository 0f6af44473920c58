/* conv_kernels: the sum over the taps of a depthwise convolution, for every
 * vector width (vector.h). Included by conv_avx2.c and conv_avx512.c. Four
 * vectors of channels stay in registers while the taps pass by; a tap costs a
 * load of input, a load of weights and a multiply-add a vector, so the loads
 * bound it, from the first-level cache in the common case. */
#include "cpu/vector.h"

static inline __attribute__((always_inline)) void tap_sum_any(float *out, const void *const *taps,
                                                              const float *const *weights,
                                                              size_t n_taps, size_t n,
                                                              CpuType type) {
    size_t c = 0;
    for (; c + 4 * LANES <= n; c += 4 * LANES) {
        V sum[4];
        for (int i = 0; i < 4; i++) sum[i] = v_set(0.0f);
        for (size_t t = 0; t < n_taps; t++)
            for (size_t i = 0; i < 4; i++)
                sum[i] = v_fma(v_load_type(taps[t], c + i * LANES, type),
                               v_load(weights[t] + c + i * LANES), sum[i]);
        for (int i = 0; i < 4; i++) v_store(out + c + (size_t)i * LANES, sum[i]);
    }
    for (; c + LANES <= n; c += LANES) {
        V sum = v_set(0.0f);
        for (size_t t = 0; t < n_taps; t++)
            sum = v_fma(v_load_type(taps[t], c, type), v_load(weights[t] + c), sum);
        v_store(out + c, sum);
    }
    for (; c < n; c++) {
        float sum = 0;
        for (size_t t = 0; t < n_taps; t++) sum += cpu_load(taps[t], type, c) * weights[t][c];
        out[c] = sum;
    }
}

#define TAP_SUM(name, type)                                                                      \
    static void tap_sum_##name(float *out, const void *const *taps, const float *const *weights, \
                               size_t n_taps, size_t n) {                                        \
        tap_sum_any(out, taps, weights, n_taps, n, type);                                        \
    }
TAP_SUM(f32, CPU_F32)
TAP_SUM(f16, CPU_F16)
TAP_SUM(bf16, CPU_BF16)

void VECTOR(cpu_fill_conv)(Kernels *t) {
    t->tap_sum[CPU_F32] = tap_sum_f32;
    t->tap_sum[CPU_F16] = tap_sum_f16;
    t->tap_sum[CPU_BF16] = tap_sum_bf16;
}
