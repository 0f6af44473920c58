/* The byte lanes of digit_kernels.h on aarch64. With the dot product (NEON_DOT,
 * every core since 2018) SDOT adds four products of bytes to a lane of 32 bits;
 * it takes signed bytes alone, so codes of 8 bits lose their middle and the
 * bias makes up for it. Four rows, two digits, instructions for 32 weights:
 *
 *      4 bits   load, 2 nibbles, 4 SDOT, shift, convert, fma        10
 *      8 bits   the same for 16: load, middle, 2 SDOT, ..           14
 *
 * and a quarter of the loads of digits. Without it products of nibbles and bytes
 * are 16 bits (SMULL, SMLAL) before they are summed, 18 instructions for 32. */
#ifndef ENGINE_CPU_DIGIT_NEON_H
#define ENGINE_CPU_DIGIT_NEON_H

#include "cpu/vector.h"

#include <string.h>

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
enum { UNROLLED = 32 };   /* vectors of a whole chunk: the lanes of spread are constants */
enum { FETCHES = false }; /* the rows in work are one or a few plain streams */
enum { MIDDLE = 128 };

static inline Iv iv_load(const void *p) {
    return vld1q_s8(p);
}
static inline Iv iv_load_part(const void *p, size_t words) {
    int8_t part[16] = {0};
    memcpy(part, p, 4 * words);
    return vld1q_s8(part);
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
static inline Iv iv_less_middle(Iv w) {
    return veorq_s8(w, vdupq_n_s8(-MIDDLE));
}
static inline Iv iv_look_up(const int8_t table[16], Iv w) {
    return vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s8(w));
}
static inline V iv_float(Vi a) {
    return vcvtq_f32_s32(a);
}
/* Lane l of the result: scales[(first + l * step) >> shift]. A vector has codes of
 * one group, of two where groups are 16. */
static inline __attribute__((always_inline)) V spread(V scales, int first, int step, int shift) {
    (void)step;
    if (shift == 4) return first == 0 ? vzip1q_f32(scales, scales) : vzip2q_f32(scales, scales);
    return vdupq_n_f32(scales[first >> shift]);
}
static inline V keep_first(V x, size_t n) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), v_first(n)));
}

#endif
