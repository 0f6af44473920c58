/* pack_kernels: rows of floats become affine codes, for every vector width.
 * Included by pack_avx2.c, pack_avx512.c and pack_neon.c; the arithmetic is that
 * of the scalar twin, operation by operation, so the bits are the same.
 *
 * A group is read twice: for its range, then for its codes. The division bounds
 * it (16 quotients in about 10 cycles); eight codes, a byte each, are squeezed
 * to `bits` bytes by one PEXT, or by three steps that bring neighbours together. */
#include "cpu/vector.h"

#include <string.h>

#if defined(__aarch64__)
/* The low byte of each lane. */
static inline void store_bytes(uint8_t *out, Vi codes) {
    const uint16x4_t halves = vmovn_u32(vreinterpretq_u32_s32(codes));
    const uint32x2_t bytes = vreinterpret_u32_u8(vmovn_u16(vcombine_u16(halves, halves)));
    vst1_lane_u32((uint32_t *)(void *)out, bytes, 0);
}
#elif defined(__AVX512F__)
static inline void store_bytes(uint8_t *out, Vi codes) {
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(codes));
}
#else
static inline void store_bytes(uint8_t *out, Vi codes) {
    __m128i halves =
        _mm_packus_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
    _mm_storel_epi64((__m128i *)(void *)out, _mm_packus_epi16(halves, halves));
}
#endif

/* Eight bytes below 2^bits as eight codes side by side. */
static inline uint64_t squeeze(uint64_t codes, int bits) {
#if defined(__aarch64__)
    const uint64_t bytes = 0x00FF00FF00FF00FFu, halves = 0x0000FFFF0000FFFFu;
    codes = (codes & bytes) | (codes >> 8 & bytes) << bits;
    codes = (codes & halves) | (codes >> 16 & halves) << 2 * bits;
    return (codes & 0xFFFFFFFFu) | codes >> 32 << 4 * bits;
#else
    return _pext_u64(codes, 0x0101010101010101u * (uint64_t)((1 << bits) - 1));
#endif
}

/* The smallest and largest of a group, NaN left out. */
static inline void range_of(const float *w, int group, float *low, float *high) {
    V lows = v_set(INFINITY), highs = v_set(-INFINITY);
    for (int i = 0; i < group; i += LANES) {
        V x = v_load(w + i);
        lows = v_min(x, lows); /* the second operand when either is NaN */
        highs = v_max(x, highs);
    }
    float l[LANES], h[LANES];
    v_store(l, lows);
    v_store(h, highs);
    *low = l[0];
    *high = h[0];
    for (int i = 1; i < LANES; i++) {
        *low = l[i] < *low ? l[i] : *low;
        *high = h[i] > *high ? h[i] : *high;
    }
}

static inline __attribute__((always_inline)) void pack_bits(const float *w, size_t groups,
                                                            int group, uint8_t *out, float *scales,
                                                            float *biases, int bits) {
    const V top = v_set((float)((1 << bits) - 1)), zero = v_set(0);
    for (size_t g = 0; g < groups; g++, w += group) {
        float low, high;
        range_of(w, group, &low, &high);
        cpu_affine_range(low, high, bits, &scales[g], &biases[g]);
        const V scale = v_set(scales[g]), bias = v_set(biases[g]);
        for (int i = 0; i < group; i += 16) {
            uint8_t codes[16];
            for (int j = 0; j < 16; j += LANES) {
                V level = v_nearest(v_div(v_sub(v_load(w + i + j), bias), scale));
                store_bytes(codes + j, v_int(v_min(v_max(level, zero), top)));
            }
            for (int j = 0; j < 16; j += 8) {
                uint64_t eight;
                memcpy(&eight, codes + j, 8);
                if (bits < 8) eight = squeeze(eight, bits);
                memcpy(out, &eight, (size_t)bits);
                out += bits;
            }
        }
    }
}

static void pack(const float *w, size_t groups, int group, int bits, uint32_t *words, float *scales,
                 float *biases) {
    uint8_t *out = (uint8_t *)words;
    switch (bits) {
    case 2: pack_bits(w, groups, group, out, scales, biases, 2); break;
    case 3: pack_bits(w, groups, group, out, scales, biases, 3); break;
    case 4: pack_bits(w, groups, group, out, scales, biases, 4); break;
    case 5: pack_bits(w, groups, group, out, scales, biases, 5); break;
    case 6: pack_bits(w, groups, group, out, scales, biases, 6); break;
    default: pack_bits(w, groups, group, out, scales, biases, 8); break;
    }
}

void VECTOR(cpu_fill_pack)(Kernels *t) {
    t->pack = pack;
}
