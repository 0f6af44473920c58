/* vector_words: lanes of packed words and of the integers in them, and the turning
 * of 32-bit items; what the kernels of weights and panels share. */
#ifndef ENGINE_CPU_VECTOR_WORDS_H
#define ENGINE_CPU_VECTOR_WORDS_H

#include "cpu/vector.h"

#if defined(__aarch64__)
static inline Vi vi_load(const void *p) {
    return vreinterpretq_s32_s8(vld1q_s8(p));
}
static inline V v_keep_first(V x, size_t n) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), v_first(n)));
}
#elif defined(__AVX512F__)
static inline Vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}
/* sum + the products of two neighbouring 16-bit integers, a lane. */
static inline Vi vi_dot_pairs(Vi sum, Vi a, Vi b) {
#if defined(__AVX512VNNI__)
    return _mm512_dpwssd_epi32(sum, a, b);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
static inline V v_keep_first(V x, size_t n) {
    return _mm512_maskz_mov_ps(v_first(n), x);
}
#else
static inline Vi vi_load(const void *p) {
    return _mm256_loadu_si256(p);
}
static inline Vi vi_dot_pairs(Vi sum, Vi a, Vi b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
static inline V v_keep_first(V x, size_t n) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(v_first(n)));
}
#endif

/* n scales or biases from `at` on, zero in the other lanes. A whole vector is
 * read where the tensor goes on for as long. */
static inline __attribute__((always_inline)) V v_load_scales(const void *p, size_t at, size_t n,
                                                             size_t total, CpuType type) {
    if (n == LANES) return v_load_type(p, at, type);
    if (at + LANES > total) return v_load_type_n(p, at, n, type);
    return v_keep_first(v_load_type(p, at, type), n);
}

#if !defined(__aarch64__)
/* 8 rows of 8 words become 8 vectors, one word of every row each. */
static inline void transpose8(__m256i r[8]) {
    __m256i t[8], u[8];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        u[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}
#endif

#endif
