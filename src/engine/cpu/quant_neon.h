/* The integer lanes of quant_kernels.h on aarch64. A step is 16 elements in two
 * registers; 16 bits are multiplied and summed by SMLAL, four products each:
 *
 *      codes from bytes   6 instructions for 16 weights (8 bits: 2)
 *      dot products       4 a plane
 *      to the sums        2 for 32 weights and planes */
#ifndef ENGINE_CPU_QUANT_NEON_H
#define ENGINE_CPU_QUANT_NEON_H

#include "cpu/vector_words.h"

#include <string.h>

#define QUANT(name) name##_neon
enum { LANES16 = 16 };
typedef int16x8x2_t Codes;
static inline Codes load_fixed(const int16_t *p) {
    return (Codes){{vld1q_s16(p), vld1q_s16(p + 8)}};
}
/* Which elements meet in a lane does not matter within a group. */
static inline Vi dot_codes(Vi sum, Codes a, Codes b) {
    sum = vmlal_s16(sum, vget_low_s16(a.val[0]), vget_low_s16(b.val[0]));
    sum = vmlal_high_s16(sum, a.val[0], b.val[0]);
    sum = vmlal_s16(sum, vget_low_s16(a.val[1]), vget_low_s16(b.val[1]));
    return vmlal_high_s16(sum, a.val[1], b.val[1]);
}

/* Elements of `bits` bits in 16-bit lanes: a byte shuffle brings the two bytes
 * that hold an element into its lane, a shift brings it down, a mask cuts it out. */
typedef struct Spreader {
    uint8x16_t shuffle[2];
    int16x8_t shift; /* eight elements are whole bytes: alike in both halves */
    uint16x8_t mask;
} Spreader;
static inline __attribute__((always_inline)) Spreader spreader(int bits) {
    uint8_t shuffle[32];
    int16_t shift[8];
    for (int e = 0; e < 16; e++) {
        shuffle[2 * e] = (uint8_t)(e * bits / 8);
        shuffle[2 * e + 1] = (uint8_t)(e * bits / 8 + 1);
    }
    for (int e = 0; e < 8; e++) shift[e] = (int16_t)(-(e * bits % 8));
    return (Spreader){{vld1q_u8(shuffle), vld1q_u8(shuffle + 16)},
                      vld1q_s16(shift),
                      vdupq_n_u16((uint16_t)((1 << bits) - 1))};
}

/* Step `step` of a row: 16 elements from 2 * bits bytes; reads 16 bytes where the
 * words go on. */
static inline __attribute__((always_inline)) Codes load16(const uint8_t *row, const uint8_t *end,
                                                          size_t step, Spreader s, int bits) {
    const uint8_t *p = row + step * 2 * (size_t)bits;
    if (bits == 8) {
        const uint8x16_t bytes = vld1q_u8(p);
        return (Codes){{vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))),
                        vreinterpretq_s16_u16(vmovl_high_u8(bytes))}};
    }
    uint8_t part[16] = {0};
    if (p + 16 > end) {
        memcpy(part, p, 2 * (size_t)bits);
        p = part;
    }
    const uint8x16_t bytes = vld1q_u8(p);
    Codes codes;
    for (int half = 0; half < 2; half++) {
        const uint16x8_t pairs = vreinterpretq_u16_u8(vqtbl1q_u8(bytes, s.shuffle[half]));
        codes.val[half] = vreinterpretq_s16_u16(vandq_u16(vshlq_u16(pairs, s.shift), s.mask));
    }
    return codes;
}

/* 16 codes as weights. */
static inline void store16(float *out, Codes codes, float scale, float bias) {
    const V factor = vdupq_n_f32(scale), shift = vdupq_n_f32(bias);
    for (int half = 0; half < 2; half++) {
        const V low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes.val[half])));
        const V high = vcvtq_f32_s32(vmovl_high_s16(codes.val[half]));
        vst1q_f32(out + 8 * half, vfmaq_f32(shift, low, factor));
        vst1q_f32(out + 8 * half + 4, vfmaq_f32(shift, high, factor));
    }
}

#endif
