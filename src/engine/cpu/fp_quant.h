/* fp_quant: the number formats of the modes with a byte of scale, for portable
 * code. E2M1: sign, two bits of exponent, one of mantissa. E4M3: the same with
 * four and three, bias 7, no infinity. E8M0: 2^(byte - 127), 255 infinite. */
#ifndef ENGINE_CPU_FP_QUANT_H
#define ENGINE_CPU_FP_QUANT_H

#include "cpu/kernels.h"

#include <string.h>

static const float cpu_e2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                   -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

static inline float cpu_f32_from_e8m0(uint8_t byte) {
    uint32_t bits = byte ? (uint32_t)byte << 23 : 0x00400000u;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The value of a group's scale. */
static inline float cpu_fp_scale(CpuQuantMode mode, uint8_t byte) {
    return mode == CPU_NVFP4 ? cpu_f32_from_fp8(byte) : cpu_f32_from_e8m0(byte);
}

#endif
