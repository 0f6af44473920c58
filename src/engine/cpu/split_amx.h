/* What the AMX files share. */
#ifndef CPU_SPLIT_AMX_H
#define CPU_SPLIT_AMX_H

#include "cpu/table.h"

#include <immintrin.h>
#include <string.h>

/* 16 items of any type as float32; those outside the mask are not read, and zero. */
static inline __m512 items16(const char *at, CpuType type, __mmask16 mask) {
    if (type == CPU_F32) return _mm512_maskz_loadu_ps(mask, at);
    const __m256i halves = _mm256_maskz_loadu_epi16(mask, at);
    if (type == CPU_F16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* 16 lines of 16 items, `stride` items apart, turned: line i becomes column i. */
static inline void transpose16(const uint32_t *in, size_t stride, uint32_t *out,
                               size_t out_stride) {
    __m512i a[16], b[16];
    for (size_t i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(in + i * stride);
    for (int i = 0; i < 8; i++) {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88);
        b[4 + i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xDD);
        b[8 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
        b[12 + i] = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xDD);
    }
    for (size_t i = 0; i < 8; i++) {
        _mm512_storeu_si512(out + i * out_stride, _mm512_shuffle_i32x4(b[i], b[8 + i], 0x88));
        _mm512_storeu_si512(out + (i + 8) * out_stride, _mm512_shuffle_i32x4(b[i], b[8 + i], 0xDD));
    }
}

#endif
