/* The byte lanes of digit_kernels.h on aarch64. With the dot product (NEON_DOT,
 * processors since about 2018) SDOT adds four products of bytes to a lane of 32
 * bits; it takes signed bytes alone, so codes of 8 bits lose their middle and the
 * bias makes up for it. Instructions for 32 weights of a row and two digits:
 *
 *      4 bits   load, zero, 2 nibbles, 4 SDOT, shift, float, scale, fma     12
 *      8 bits   twice: load, zero, middle, 2 SDOT, shift, float, ..         18
 *
 * and the loads of digits, shared by four rows. Without it products of nibbles
 * and bytes are 16 bits (SMULL, SMLAL) before they are summed: 20. */
#ifndef ENGINE_CPU_DIGIT_NEON_H
#define ENGINE_CPU_DIGIT_NEON_H

#include "cpu/vector_words.h"

#if defined(NEON_DOT)
#define DIGIT(name) name##_neondot
#define BYTE_DOTS
static inline Vi vi_dot_bytes(Vi sum, Vi codes, Vi digits) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(digits));
}
#else
#define DIGIT(name) name##_neon
/* sum + low . even + high . odd */
static inline Vi vi_dot_nibbles(Vi sum, Vi low, Vi high, Vi even, Vi odd) {
    const int8x16_t l = vreinterpretq_s8_s32(low), h = vreinterpretq_s8_s32(high);
    const int8x16_t e = vreinterpretq_s8_s32(even), o = vreinterpretq_s8_s32(odd);
    int16x8_t first = vmull_s8(vget_low_s8(l), vget_low_s8(e));
    int16x8_t second = vmull_high_s8(l, e);
    first = vmlal_s8(first, vget_low_s8(h), vget_low_s8(o));
    second = vmlal_high_s8(second, h, o);
    return vpadalq_s16(sum, vpaddq_s16(first, second));
}
#endif
enum { TOGETHER = 4 };
enum { UNROLLED = 1 };    /* more and GCC loads so far ahead that sums leave the registers */
enum { FETCHES = false }; /* left to the processor: the rows are a few plain streams */
enum { SIGNED_CODES = 1 };
/* Of three digits: six times a power of two, so that activations which are E2M1
 * numbers, and their scale, are exact. It keeps 23.6 bits of a group's largest. */
enum { LARGEST3 = 6 << 20 };

/* Two words: a part of a vector is one group of 16 codes. */
static inline Vi vi_load_part(const void *p, size_t words) {
    (void)words;
    return vcombine_s32(vreinterpret_s32_s8(vld1_s8(p)), vdup_n_s32(0));
}
/* At most LANES; no call, as for v_load_n. */
static inline void copy_bytes(uint8_t *out, const uint8_t *in, size_t n) {
    for (size_t i = 0; i < LANES; i++)
        if (i < n) out[i] = in[i];
}
static inline Vi vi_low_nibbles(Vi w) {
    return vandq_s32(w, vdupq_n_s32(0x0F0F0F0F));
}
static inline Vi vi_high_nibbles(Vi w) {
    return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(w), 4));
}
/* Codes of 8 bits less 128. */
static inline Vi vi_less_middle(Vi w) {
    return veorq_s32(w, vdupq_n_s32((int)0x80808080));
}
static inline Vi vi_look_up(const int8_t table[16], Vi w) {
    return vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s32(w)));
}
/* Of LANES groups, in memory: a load and the multiply-add by one lane cost what a
 * permutation would, and no register. */
typedef struct Scales {
    float of[LANES];
} Scales;
static inline Scales scales_of(V x) {
    Scales scales;
    vst1q_f32(scales.of, x);
    return scales;
}
/* Lane l of the result: scales[(first + l * step) >> shift]. A vector has codes of
 * one group, of two where groups are 16. */
static inline __attribute__((always_inline)) V spread(const Scales *scales, int first, int step,
                                                      int shift) {
    (void)step;
    const float *of = scales->of + (first >> shift);
    if (shift == 4) return vcombine_f32(vdup_n_f32(of[0]), vdup_n_f32(of[1]));
    return vdupq_n_f32(of[0]);
}

#endif
