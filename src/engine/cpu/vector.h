/* vector: float32 lanes under one set of names, so that a kernel is written
 * once and compiled for AVX2 (8 lanes), AVX-512 (16 lanes) and NEON (4, in
 * vector_neon.h). Included only by files compiled for one of them; VECTOR(name)
 * ends a symbol with the set.
 *
 * The functions of one argument below follow from a range reduction and a
 * polynomial; each says its range and its error against float64. */
#ifndef ENGINE_CPU_VECTOR_H
#define ENGINE_CPU_VECTOR_H

#include "cpu/table.h"

#include <math.h>

#if defined(__aarch64__)
#include "cpu/vector_neon.h"
#elif defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR(name) name##_avx512
enum { LANES = 16 };
typedef __m512 V;
typedef __m512i Vi;
typedef __mmask16 Vm;
static inline V v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void v_store(float *p, V x) {
    _mm512_storeu_ps(p, x);
}
static inline Vm v_first(size_t n) {
    return (Vm)((1u << n) - 1);
}
static inline V v_load_n(const float *p, size_t n) {
    return _mm512_maskz_loadu_ps(v_first(n), p);
}
static inline void v_store_n(float *p, V x, size_t n) {
    _mm512_mask_storeu_ps(p, v_first(n), x);
}
static inline V v_set(float x) {
    return _mm512_set1_ps(x);
}
static inline V v_add(V a, V b) {
    return _mm512_add_ps(a, b);
}
static inline V v_sub(V a, V b) {
    return _mm512_sub_ps(a, b);
}
static inline V v_mul(V a, V b) {
    return _mm512_mul_ps(a, b);
}
static inline V v_div(V a, V b) {
    return _mm512_div_ps(a, b);
}
static inline V v_fma(V a, V b, V c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline V v_fnma(V a, V b, V c) {
    return _mm512_fnmadd_ps(a, b, c);
}
static inline V v_max(V a, V b) {
    return _mm512_max_ps(a, b);
}
static inline V v_min(V a, V b) {
    return _mm512_min_ps(a, b);
}
static inline V v_sqrt(V a) {
    return _mm512_sqrt_ps(a);
}
static inline V v_abs(V a) {
    return _mm512_abs_ps(a);
}
static inline V v_negate(V a) {
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
static inline V v_copysign(V a, V sign) {
    V bit = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, sign));
}
static inline V v_nearest(V a) {
    return _mm512_roundscale_ps(a, 8);
}
static inline V v_floor(V a) {
    return _mm512_roundscale_ps(a, 9);
}
static inline V v_ceil(V a) {
    return _mm512_roundscale_ps(a, 10);
}
static inline Vm v_less(V a, V b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline Vm v_is_nan(V a) {
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
static inline V v_select(Vm m, V yes, V no) {
    return _mm512_mask_blend_ps(m, no, yes);
}
static inline Vi v_int(V a) {
    return _mm512_cvtps_epi32(a);
}
static inline V v_float(Vi a) {
    return _mm512_cvtepi32_ps(a);
}
static inline Vi v_bits(V a) {
    return _mm512_castps_si512(a);
}
static inline V v_from_bits(Vi a) {
    return _mm512_castsi512_ps(a);
}
static inline Vi vi_set(int x) {
    return _mm512_set1_epi32(x);
}
static inline Vi vi_add(Vi a, Vi b) {
    return _mm512_add_epi32(a, b);
}
static inline Vi vi_sub(Vi a, Vi b) {
    return _mm512_sub_epi32(a, b);
}
static inline Vi vi_and(Vi a, Vi b) {
    return _mm512_and_si512(a, b);
}
static inline Vi vi_shl(Vi a, int n) {
    return _mm512_slli_epi32(a, (unsigned)n);
}
static inline Vi vi_sar(Vi a, int n) {
    return _mm512_srai_epi32(a, (unsigned)n);
}
static inline float v_sum(V a) {
    return _mm512_reduce_add_ps(a);
}
/* out[0..4): the sums of four vectors. */
static inline void v_sums4(float *out, V a, V b, V c, V d) {
    V ab = v_add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    V cd = v_add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    V all = v_add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
static inline float v_top(V a) {
    return _mm512_reduce_max_ps(a);
}
static inline float v_bottom(V a) {
    return _mm512_reduce_min_ps(a);
}
static inline bool v_any(Vm m) {
    return m != 0;
}
static inline V v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline V v_load_bf16(const uint16_t *p) {
    __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
static inline void v_store_f16(uint16_t *p, V x) {
    __m256i bits = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    Vm nan = v_is_nan(x);
    __m256i sign = _mm256_and_si256(bits, _mm256_set1_epi16((short)0x8000));
    bits = _mm256_mask_blend_epi16(nan, bits, _mm256_or_si256(sign, _mm256_set1_epi16(0x7D00)));
    _mm256_storeu_si256((__m256i *)(void *)p, bits);
}
static inline void v_store_bf16(uint16_t *p, V x) {
    Vi bits = v_bits(x);
    Vi odd = vi_and(_mm512_srli_epi32(bits, 16), vi_set(1));
    Vi rounded = _mm512_srli_epi32(vi_add(vi_add(bits, vi_set(0x7FFF)), odd), 16);
    rounded = _mm512_mask_blend_epi32(v_is_nan(x), rounded, vi_set(0x7FC0));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(rounded));
}
static inline V v_round_f16(V x) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
static inline V v_round_bf16(V x) {
    Vi bits = v_bits(x);
    Vi odd = vi_and(_mm512_srli_epi32(bits, 16), vi_set(1));
    Vi rounded = vi_and(vi_add(vi_add(bits, vi_set(0x7FFF)), odd), vi_set((int)0xFFFF0000));
    return v_select(v_is_nan(x), x, v_from_bits(rounded));
}
#else
#include <immintrin.h>
#define VECTOR(name) name##_avx2
enum { LANES = 8 };
typedef __m256 V;
typedef __m256i Vi;
typedef __m256 Vm;
static inline V v_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void v_store(float *p, V x) {
    _mm256_storeu_ps(p, x);
}
static inline Vi v_first(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline V v_load_n(const float *p, size_t n) {
    return _mm256_maskload_ps(p, v_first(n));
}
static inline void v_store_n(float *p, V x, size_t n) {
    _mm256_maskstore_ps(p, v_first(n), x);
}
static inline V v_set(float x) {
    return _mm256_set1_ps(x);
}
static inline V v_add(V a, V b) {
    return _mm256_add_ps(a, b);
}
static inline V v_sub(V a, V b) {
    return _mm256_sub_ps(a, b);
}
static inline V v_mul(V a, V b) {
    return _mm256_mul_ps(a, b);
}
static inline V v_div(V a, V b) {
    return _mm256_div_ps(a, b);
}
static inline V v_fma(V a, V b, V c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline V v_fnma(V a, V b, V c) {
    return _mm256_fnmadd_ps(a, b, c);
}
static inline V v_max(V a, V b) {
    return _mm256_max_ps(a, b);
}
static inline V v_min(V a, V b) {
    return _mm256_min_ps(a, b);
}
static inline V v_sqrt(V a) {
    return _mm256_sqrt_ps(a);
}
static inline V v_abs(V a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline V v_negate(V a) {
    return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f));
}
static inline V v_copysign(V a, V sign) {
    V bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(bit, a), _mm256_and_ps(bit, sign));
}
static inline V v_nearest(V a) {
    return _mm256_round_ps(a, 8);
}
static inline V v_floor(V a) {
    return _mm256_round_ps(a, 9);
}
static inline V v_ceil(V a) {
    return _mm256_round_ps(a, 10);
}
static inline Vm v_less(V a, V b) {
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
static inline Vm v_is_nan(V a) {
    return _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
}
static inline V v_select(Vm m, V yes, V no) {
    return _mm256_blendv_ps(no, yes, m);
}
static inline Vi v_int(V a) {
    return _mm256_cvtps_epi32(a);
}
static inline V v_float(Vi a) {
    return _mm256_cvtepi32_ps(a);
}
static inline Vi v_bits(V a) {
    return _mm256_castps_si256(a);
}
static inline V v_from_bits(Vi a) {
    return _mm256_castsi256_ps(a);
}
static inline Vi vi_set(int x) {
    return _mm256_set1_epi32(x);
}
static inline Vi vi_add(Vi a, Vi b) {
    return _mm256_add_epi32(a, b);
}
static inline Vi vi_sub(Vi a, Vi b) {
    return _mm256_sub_epi32(a, b);
}
static inline Vi vi_and(Vi a, Vi b) {
    return _mm256_and_si256(a, b);
}
static inline Vi vi_shl(Vi a, int n) {
    return _mm256_slli_epi32(a, n);
}
static inline Vi vi_sar(Vi a, int n) {
    return _mm256_srai_epi32(a, n);
}
static inline float v_sum(V a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline void v_sums4(float *out, V a, V b, V c, V d) {
    V all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
static inline float v_top(V a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline float v_bottom(V a) {
    return -v_top(v_negate(a));
}
static inline bool v_any(Vm m) {
    return _mm256_movemask_ps(m) != 0;
}
static inline V v_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline V v_load_bf16(const uint16_t *p) {
    __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
/* The low 16 bits of 8 lanes; each lane is below 2^16. */
static inline __m128i v_narrow(Vi x) {
    return _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
static inline void v_store_f16(uint16_t *p, V x) {
    __m128i bits = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    Vi nan = v_bits(v_is_nan(x));
    __m128i mask = _mm_packs_epi32(_mm256_castsi256_si128(nan), _mm256_extracti128_si256(nan, 1));
    __m128i sign = _mm_and_si128(bits, _mm_set1_epi16((short)0x8000));
    bits = _mm_blendv_epi8(bits, _mm_or_si128(sign, _mm_set1_epi16(0x7D00)), mask);
    _mm_storeu_si128((__m128i *)(void *)p, bits);
}
static inline void v_store_bf16(uint16_t *p, V x) {
    Vi bits = v_bits(x);
    Vi odd = vi_and(_mm256_srli_epi32(bits, 16), vi_set(1));
    Vi rounded = _mm256_srli_epi32(vi_add(vi_add(bits, vi_set(0x7FFF)), odd), 16);
    rounded = _mm256_blendv_epi8(rounded, vi_set(0x7FC0), v_bits(v_is_nan(x)));
    _mm_storeu_si128((__m128i *)(void *)p, v_narrow(rounded));
}
static inline V v_round_f16(V x) {
    return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
static inline V v_round_bf16(V x) {
    Vi bits = v_bits(x);
    Vi odd = vi_and(_mm256_srli_epi32(bits, 16), vi_set(1));
    Vi rounded = vi_and(vi_add(vi_add(bits, vi_set(0x7FFF)), odd), vi_set((int)0xFFFF0000));
    return v_select(v_is_nan(x), x, v_from_bits(rounded));
}
#endif

/* One load for a storage type; the type is a constant after inlining. */
static inline __attribute__((always_inline)) V v_load_type(const void *p, size_t i, CpuType type) {
    if (type == CPU_F32) return v_load((const float *)p + i);
    if (type == CPU_F16) return v_load_f16((const uint16_t *)p + i);
    return v_load_bf16((const uint16_t *)p + i);
}
static inline V v_load_type_n(const void *p, size_t i, size_t n, CpuType type) {
    if (type == CPU_F32) return v_load_n((const float *)p + i, n);
#if defined(__aarch64__)
    const uint16x4_t part = v_halves_n((const uint16_t *)p + i, n);
    return type == CPU_F16 ? v_from_f16(part) : v_from_bf16(part);
#else
    uint16_t part[16] = {0};
    for (size_t j = 0; j < n; j++) part[j] = ((const uint16_t *)p)[i + j];
    return type == CPU_F16 ? v_load_f16(part) : v_load_bf16(part);
#endif
}

#if !defined(__aarch64__)
/* LANES bytes of E4M3 as their values / 256: float16's exponent is one bit
 * longer, so the code moved up 7 bits, its sign to the top, is such a number. */
static inline V v_load_e4m3(const uint8_t *p) {
#if defined(__AVX512F__)
    __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    x = _mm256_and_si256(_mm256_slli_epi16(x, 7), _mm256_set1_epi16((short)0xBFFF));
    return _mm512_cvtph_ps(x);
#else
    __m128i x = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)p));
    x = _mm_and_si128(_mm_slli_epi16(x, 7), _mm_set1_epi16((short)0xBFFF));
    return _mm256_cvtph_ps(x);
#endif
}
/* LANES bytes of E8M0: an exponent; 0 is 2^-127, a subnormal. */
static inline V v_load_e8m0(const uint8_t *p) {
#if defined(__AVX512F__)
    Vi x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return v_from_bits(_mm512_max_epi32(vi_shl(x, 23), vi_set(0x00400000)));
#else
    Vi x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    return v_from_bits(_mm256_max_epi32(vi_shl(x, 23), vi_set(0x00400000)));
#endif
}
#endif

static inline V v_polynomial(V x, const float *coefficients, int count) {
    V y = v_set(coefficients[0]);
    for (int i = 1; i < count; i++) y = v_fma(y, x, v_set(coefficients[i]));
    return y;
}

/* x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts keeps r exact. */
static inline V v_reduce_exp(V x, V *n) {
    *n = v_nearest(v_mul(x, v_set(1.44269504f)));
    V r = v_fnma(*n, v_set(0.693145752f), x);
    return v_fnma(*n, v_set(1.42860677e-6f), r);
}
/* x * 2^n for integral n in [-252, 254], by two factors: subnormal results
 * and the largest finite ones come out right. */
static inline V v_scale(V x, V n) {
    Vi whole = v_int(n), half = vi_sar(whole, 1);
    V low = v_from_bits(vi_shl(vi_add(half, vi_set(127)), 23));
    V high = v_from_bits(vi_shl(vi_add(vi_sub(whole, half), vi_set(127)), 23));
    return v_mul(v_mul(x, low), high);
}
/* (e^r - 1 - r) / r^2 for |r| <= 0.35, Taylor to r^5: 2e-9. */
static inline V v_exp_tail(V r) {
    static const float c[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f};
    return v_polynomial(r, c, 6);
}
/* e^x, 1 ulp or so; infinity above 88.73, 0 below -104, NaN stays. */
static inline V v_exp(V x) {
    V n, bounded = v_min(v_set(89.0f), v_max(v_set(-105.0f), x));
    V r = v_reduce_exp(bounded, &n);
    V y = v_add(v_fma(v_mul(r, r), v_exp_tail(r), r), v_set(1.0f));
    return v_scale(y, n);
}
/* e^x - 1 with relative accuracy near 0. */
static inline V v_expm1(V x) {
    V n, bounded = v_min(v_set(89.0f), v_max(v_set(-105.0f), x));
    V r = v_reduce_exp(bounded, &n);
    V y = v_fma(v_mul(r, r), v_exp_tail(r), r);
    V power = v_scale(v_set(1.0f), n);
    V result = v_add(v_scale(y, n), v_sub(power, v_set(1.0f)));
    /* 2^128 is no float32 though e^x may be finite: the other form there. */
    V large = v_sub(v_scale(v_add(y, v_set(1.0f)), n), v_set(1.0f));
    return v_copysign(v_select(v_less(v_set(20.0f), x), large, result), x);
}
/* tanh by expm1(2x) / (expm1(2x) + 2): relative accuracy near 0. */
static inline V v_tanh(V x) {
    V two = v_set(2.0f), a = v_min(v_set(20.0f), v_abs(x));
    V e = v_expm1(v_mul(a, two));
    V y = v_copysign(v_div(e, v_add(e, two)), x);
    return v_select(v_is_nan(x), x, y);
}
static inline V v_sigmoid(V x) {
    V one = v_set(1.0f);
    return v_div(one, v_add(one, v_exp(v_negate(x))));
}
/* erf: Taylor in x^2 below 1; 1 - exp(polynomial) up to 4, the polynomial a
 * least-squares fit of log(erfc(x)) about 2.5 (4e-8); 1 beyond. */
static inline V v_erf(V x) {
    static const float near[] = {1.4807193e-8f, -1.6365846e-7f, 1.6462114e-6f, -1.4925650e-5f,
                                 1.2055332e-4f, -8.5483270e-4f, 5.2239776e-3f, -2.6866171e-2f,
                                 0.11283792f,   -0.37612639f,   1.1283792f};
    static const float far[] = {1.2091213e-4f, -4.2749057e-4f, 2.0675824e-3f, -1.0908497e-2f,
                                -0.94385990f,  -5.3526574f,    -7.8068139f};
    V a = v_abs(x), square = v_mul(x, x);
    V small = v_mul(x, v_polynomial(square, near, 11));
    V t = v_sub(v_min(v_set(4.0f), a), v_set(2.5f));
    V large = v_sub(v_set(1.0f), v_exp(v_polynomial(t, far, 7)));
    V y = v_select(v_less(a, v_set(1.0f)), small, v_copysign(large, x));
    return v_select(v_is_nan(x), x, y);
}
/* ln x: x = m 2^e with m in [0.7, 1.42); 2 atanh((m-1)/(m+1)) to s^11. */
static inline V v_log(V x) {
    static const float c[] = {2.0f / 11, 2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3};
    V zero = v_set(0.0f), one = v_set(1.0f);
    Vm tiny = v_less(x, v_set(1.17549435e-38f));
    V scaled = v_select(tiny, v_mul(x, v_set(8388608.0f)), x);
    Vi bits = v_bits(scaled);
    Vi e = vi_sar(vi_sub(bits, vi_set(0x3F3504F3)), 23);
    V m = v_from_bits(vi_sub(bits, vi_shl(e, 23)));
    V exponent = v_sub(v_float(e), v_select(tiny, v_set(23.0f), zero));
    V f = v_sub(m, one), s = v_div(f, v_add(m, one)), square = v_mul(s, s);
    /* 2 s = f - s f: adding the correction to f keeps its last bits. */
    V tail = v_sub(v_mul(v_mul(s, square), v_polynomial(square, c, 5)), v_mul(s, f));
    V low = v_fma(exponent, v_set(1.42860677e-6f), tail);
    V y = v_fma(exponent, v_set(0.693145752f), v_add(f, low));
    y = v_select(v_less(x, zero), v_set(NAN), y);
    y = v_select(v_less(v_abs(x), v_set(1e-45f)), v_set(-INFINITY), y);
    y = v_select(v_less(v_set(3.4028234e38f), x), x, y);
    return v_select(v_is_nan(x), x, y);
}
/* ln(1 + x); the rounding of 1 + x is put back. */
static inline V v_log1p(V x) {
    V one = v_set(1.0f), u = v_add(one, x);
    V lost = v_sub(x, v_sub(u, one));
    V y = v_add(v_log(u), v_div(lost, v_max(u, v_set(1e-37f)))); /* u is 0 for x = -1 */
    Vm small = v_less(v_abs(x), v_set(1e-4f));
    y = v_select(small, v_fma(v_mul(x, x), v_fma(x, v_set(1.0f / 3), v_set(-0.5f)), x), y);
    return v_select(v_less(v_set(3.4028234e38f), x), x, y);
}

#endif
