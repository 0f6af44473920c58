/* The lanes of vector.h on aarch64: four of float32. Every such processor has
 * them, float16 conversions included. */
#ifndef ENGINE_CPU_VECTOR_NEON_H
#define ENGINE_CPU_VECTOR_NEON_H

#include <arm_neon.h>

#define VECTOR(name) name##_neon
enum { LANES = 4 };
typedef float32x4_t V;
typedef int32x4_t Vi;
typedef uint32x4_t Vm;
static inline V v_load(const float *p) {
    return vld1q_f32(p);
}
static inline void v_store(float *p, V x) {
    vst1q_f32(p, x);
}
static inline Vm v_first(size_t n) {
    static const uint32_t lane[LANES] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(lane), vdupq_n_u32((uint32_t)n));
}
/* Up to four items, lane by lane: a loop would become a call of memcpy, and sums
 * that live across a call stay in memory through the whole kernel. */
static inline V v_load_n(const float *p, size_t n) {
    V x = vdupq_n_f32(0);
    if (n > 0) x = vld1q_lane_f32(p, x, 0);
    if (n > 1) x = vld1q_lane_f32(p + 1, x, 1);
    if (n > 2) x = vld1q_lane_f32(p + 2, x, 2);
    if (n > 3) x = vld1q_lane_f32(p + 3, x, 3);
    return x;
}
static inline uint16x4_t v_halves_n(const uint16_t *p, size_t n) {
    uint16x4_t x = vdup_n_u16(0);
    if (n > 0) x = vld1_lane_u16(p, x, 0);
    if (n > 1) x = vld1_lane_u16(p + 1, x, 1);
    if (n > 2) x = vld1_lane_u16(p + 2, x, 2);
    if (n > 3) x = vld1_lane_u16(p + 3, x, 3);
    return x;
}
static inline void v_store_n(float *p, V x, size_t n) {
    if (n > 0) vst1q_lane_f32(p, x, 0);
    if (n > 1) vst1q_lane_f32(p + 1, x, 1);
    if (n > 2) vst1q_lane_f32(p + 2, x, 2);
    if (n > 3) vst1q_lane_f32(p + 3, x, 3);
}
static inline V v_set(float x) {
    return vdupq_n_f32(x);
}
static inline V v_add(V a, V b) {
    return vaddq_f32(a, b);
}
static inline V v_sub(V a, V b) {
    return vsubq_f32(a, b);
}
static inline V v_mul(V a, V b) {
    return vmulq_f32(a, b);
}
static inline V v_div(V a, V b) {
    return vdivq_f32(a, b);
}
static inline V v_fma(V a, V b, V c) {
    return vfmaq_f32(c, a, b);
}
static inline V v_fnma(V a, V b, V c) {
    return vfmsq_f32(c, a, b);
}
/* b where one of them is NaN, as on x86. */
static inline V v_max(V a, V b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline V v_min(V a, V b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline V v_sqrt(V a) {
    return vsqrtq_f32(a);
}
static inline V v_abs(V a) {
    return vabsq_f32(a);
}
static inline V v_negate(V a) {
    return vnegq_f32(a);
}
static inline V v_copysign(V a, V sign) {
    return vbslq_f32(vdupq_n_u32(0x80000000u), sign, a);
}
static inline V v_nearest(V a) {
    return vrndnq_f32(a);
}
static inline V v_floor(V a) {
    return vrndmq_f32(a);
}
static inline V v_ceil(V a) {
    return vrndpq_f32(a);
}
static inline Vm v_less(V a, V b) {
    return vcltq_f32(a, b);
}
static inline Vm v_is_nan(V a) {
    return vmvnq_u32(vceqq_f32(a, a));
}
static inline V v_select(Vm m, V yes, V no) {
    return vbslq_f32(m, yes, no);
}
static inline Vi v_int(V a) {
    return vcvtnq_s32_f32(a);
}
static inline V v_float(Vi a) {
    return vcvtq_f32_s32(a);
}
static inline Vi v_bits(V a) {
    return vreinterpretq_s32_f32(a);
}
static inline V v_from_bits(Vi a) {
    return vreinterpretq_f32_s32(a);
}
static inline Vi vi_set(int x) {
    return vdupq_n_s32(x);
}
static inline Vi vi_add(Vi a, Vi b) {
    return vaddq_s32(a, b);
}
static inline Vi vi_sub(Vi a, Vi b) {
    return vsubq_s32(a, b);
}
static inline Vi vi_and(Vi a, Vi b) {
    return vandq_s32(a, b);
}
static inline Vi vi_shl(Vi a, int n) {
    return vshlq_s32(a, vdupq_n_s32(n));
}
static inline Vi vi_sar(Vi a, int n) {
    return vshlq_s32(a, vdupq_n_s32(-n));
}
static inline float v_sum(V a) {
    return vaddvq_f32(a);
}
static inline void v_sums4(float *out, V a, V b, V c, V d) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}
static inline float v_top(V a) {
    return vmaxvq_f32(a);
}
static inline float v_bottom(V a) {
    return vminvq_f32(a);
}
static inline bool v_any(Vm m) {
    return vmaxvq_u32(m) != 0;
}
static inline V v_from_f16(uint16x4_t x) {
    return vcvt_f32_f16(vreinterpret_f16_u16(x));
}
static inline V v_from_bf16(uint16x4_t x) {
    return vreinterpretq_f32_u32(vshll_n_u16(x, 16));
}
static inline V v_load_f16(const uint16_t *p) {
    return v_from_f16(vld1_u16(p));
}
static inline V v_load_bf16(const uint16_t *p) {
    return v_from_bf16(vld1_u16(p));
}
static inline void v_store_f16(uint16_t *p, V x) {
    uint16x4_t bits = vreinterpret_u16_f16(vcvt_f16_f32(x)), nan = vmovn_u32(v_is_nan(x));
    uint16x4_t sign = vand_u16(bits, vdup_n_u16(0x8000));
    vst1_u16(p, vbsl_u16(nan, vorr_u16(sign, vdup_n_u16(0x7D00)), bits));
}
/* The bits of bfloat16 in the upper halves, to nearest even. */
static inline uint32x4_t v_bf16_bits(V x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), odd);
}
static inline void v_store_bf16(uint16_t *p, V x) {
    const uint32x4_t nan = vdupq_n_u32(0x7FC00000u);
    vst1_u16(p, vshrn_n_u32(vbslq_u32(v_is_nan(x), nan, v_bf16_bits(x)), 16));
}
static inline V v_round_f16(V x) {
    return vcvt_f32_f16(vcvt_f16_f32(x));
}
static inline V v_round_bf16(V x) {
    const uint32x4_t rounded = vandq_u32(v_bf16_bits(x), vdupq_n_u32(0xFFFF0000u));
    return v_select(v_is_nan(x), x, vreinterpretq_f32_u32(rounded));
}
/* As vector.h has them. */
static inline V v_load_e4m3(const uint8_t *p) {
    uint32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    const int16x8_t x = vshll_n_s8(vreinterpret_s8_u32(vdup_n_u32(bytes)), 7);
    const int16x4_t halves = vand_s16(vget_low_s16(x), vdup_n_s16((int16_t)0xBFFF));
    return vcvt_f32_f16(vreinterpret_f16_s16(halves));
}
static inline V v_load_e8m0(const uint8_t *p) {
    uint32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    const uint16x8_t x = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)));
    const uint32x4_t bits = vshlq_n_u32(vmovl_u16(vget_low_u16(x)), 23);
    return vreinterpretq_f32_u32(vmaxq_u32(bits, vdupq_n_u32(0x00400000)));
}

#endif
