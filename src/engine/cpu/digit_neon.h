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

#include "cpu/vector.h"

#if defined(NEON_DOT)
#define DIGIT(name) name##_neondot
#define BYTE_DOTS
static inline Vi iv_dot(Vi sum, int8x16_t codes, int8x16_t digits) {
    return vdotq_s32(sum, codes, digits);
}
#else
#define DIGIT(name) name##_neon
#endif
typedef int8x16_t Iv;
enum { TOGETHER = 4 };
enum { UNROLLED = 1 };    /* more and GCC loads so far ahead that sums leave the registers */
enum { FETCHES = false }; /* left to the processor: the rows are a few plain streams */
enum { SIGNED_CODES = 1 };
/* Of three digits: six times a power of two, so that activations which are E2M1
 * numbers, and their scale, are exact. It keeps 23.6 bits of a group's largest. */
enum { LARGEST3 = 6 << 20 };

static inline Iv iv_load(const void *p) {
    return vld1q_s8(p);
}
/* Two words: a part of a vector is one group of 16 codes. */
static inline Iv iv_load_part(const void *p, size_t words) {
    (void)words;
    return vcombine_s8(vld1_s8(p), vdup_n_s8(0));
}
/* At most LANES; no call, as for v_load_n. */
static inline void copy_bytes(uint8_t *out, const uint8_t *in, size_t n) {
    for (size_t i = 0; i < LANES; i++)
        if (i < n) out[i] = in[i];
}
static inline Vi iv_zero(void) {
    return vdupq_n_s32(0);
}
static inline Vi iv_shift8(Vi sum) {
    return vshlq_n_s32(sum, 8);
}
static inline Iv iv_low_nibbles(Iv w) {
    return vandq_s8(w, vdupq_n_s8(15));
}
static inline Iv iv_high_nibbles(Iv w) {
    return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(w), 4));
}
/* Codes of 8 bits less 128. */
static inline Iv iv_less_middle(Iv w) {
    return veorq_s8(w, vdupq_n_s8(-128));
}
static inline Iv iv_look_up(const int8_t table[16], Iv w) {
    return vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s8(w));
}
static inline V iv_float(Vi a) {
    return vcvtq_f32_s32(a);
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
static inline V keep_first(V x, size_t n) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), v_first(n)));
}

#endif
