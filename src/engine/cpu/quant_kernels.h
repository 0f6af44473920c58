/* quant_kernels: products that stream packed weights of any width, for every
 * vector width. Included by quant_avx2.c, quant_avx512.c, quant_avx512vnni.c and
 * quant_neon.c; 4 bits (and 8 with dot products of bytes) have digit_kernels.h.
 *
 * The activation is carried as 16-bit integers with a scale a group, one plane
 * of them for half types (relative error 2^-16 of the group's largest) and two
 * for float32 (its 24 bits), so that a weight never becomes a float:
 *
 *      y = sum_g (scale_g a_g) * sum(q x) + bias_g * sum(x)
 *
 * Weights come out in element order as 16-bit lanes, LANES16 a step; a dot
 * product sums pairs to 32 bits. */
#include "base/base.h"
#include "cpu/vector_words.h"

#include <string.h>

#if defined(__aarch64__)
#include "cpu/quant_neon.h"
#elif defined(__AVX512VNNI__)
#define QUANT(name) name##_avx512vnni
#elif defined(__AVX512F__)
#define QUANT(name) name##_avx512
#else
#define QUANT(name) name##_avx2
#endif

#define INLINE static inline __attribute__((always_inline))

#if !defined(__aarch64__)
enum { LANES16 = 2 * LANES };
typedef Vi Codes; /* 16 bits each */
INLINE Codes load_fixed(const int16_t *p) {
    return vi_load(p);
}
INLINE Vi dot_codes(Vi sum, Codes a, Codes b) {
    return vi_dot_pairs(sum, a, b);
}

/* Elements of `bits` bits in 16-bit lanes: a byte shuffle brings the two bytes
 * that hold an element into its lane, a multiplication moves its top bit to
 * bit 15, a shift brings it down. */
typedef struct Spreader {
    __m256i shuffle, factor;
} Spreader;
INLINE Spreader spreader(int bits) {
    int8_t shuffle[32];
    int16_t factor[16];
    for (int e = 0; e < 16; e++) {
        int lane = e / 8, bit = e % 8 * bits;
        shuffle[2 * e] = (int8_t)(lane * bits + bit / 8);
        shuffle[2 * e + 1] = (int8_t)(lane * bits + bit / 8 + 1);
        factor[e] = (int16_t)(1 << (16 - bits - bit % 8));
    }
    return (Spreader){_mm256_loadu_si256((const __m256i *)(const void *)shuffle),
                      _mm256_loadu_si256((const __m256i *)(const void *)factor)};
}
/* 16 elements from 2 * bits bytes; reads 16 bytes where the words go on. */
INLINE __m256i spread16(const uint8_t *p, const uint8_t *end, Spreader s, int bits) {
    uint8_t part[16] = {0};
    if (p + 16 > end) {
        memcpy(part, p, 2 * (size_t)bits);
        p = part;
    }
    __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m256i pairs = _mm256_mullo_epi16(_mm256_shuffle_epi8(bytes, s.shuffle), s.factor);
    return _mm256_srli_epi16(pairs, 16 - bits);
}
/* Elements 16 * step.. of a row. */
INLINE __m256i load16(const uint8_t *row, const uint8_t *end, size_t step, Spreader s, int bits) {
    if (bits == 8)
        return _mm256_cvtepu8_epi16(
            _mm_loadu_si128((const __m128i *)(const void *)(row + step * 16)));
    return spread16(row + step * 2 * (size_t)bits, end, s, bits);
}
/* 16 codes as weights. */
INLINE void store16(float *out, __m256i codes, float scale, float bias) {
    const __m256 factor = _mm256_set1_ps(scale), shift = _mm256_set1_ps(bias);
    const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(codes));
    const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(codes, 1));
    _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(low), factor, shift));
    _mm256_storeu_ps(out + 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), factor, shift));
}
#endif

/* Step `step` of a row: LANES16 elements. */
INLINE Codes linear_load(const uint8_t *row, const uint8_t *end, size_t step, Spreader s,
                         int bits) {
#if defined(__AVX512F__)
    if (bits == 8)
        return _mm512_cvtepu8_epi16(
            _mm256_loadu_si256((const __m256i *)(const void *)(row + step * 32)));
    const uint8_t *p = row + step * 4 * (size_t)bits;
    return _mm512_inserti64x4(_mm512_castsi256_si512(spread16(p, end, s, bits)),
                              spread16(p + 2 * bits, end, s, bits), 1);
#else
    return load16(row, end, step, s, bits);
#endif
}

/* Bytes between a fetch and its use, as in digit_kernels.h. */
enum { AHEAD = 8192 };

/* The products of 32 weights, a divisor of every group, with one activation
 * row of 1 or 2 planes. */
INLINE V linear_dots(Codes first, Codes second, const int16_t *x, size_t plane, int planes) {
    enum { STEPS = 32 / LANES16 };
    Vi sum = dot_codes(vi_set(0), first, load_fixed(x));
    if (STEPS == 2) sum = dot_codes(sum, second, load_fixed(x + LANES16));
    if (planes == 1) return v_float(sum);
    Vi low = dot_codes(vi_set(0), first, load_fixed(x + plane));
    if (STEPS == 2) low = dot_codes(low, second, load_fixed(x + plane + LANES16));
    return v_fma(v_float(sum), v_set(32768.0f), v_float(low));
}

/* y for `rows` weight rows (4 or 1) and m activation rows. The scales of LANES
 * groups are prepared at once. */
INLINE void linear_rows(const CpuQuant *w, size_t row, const Activations *x, size_t first_x,
                        float *y, ptrdiff_t y_stride, int rows, int m, int bits, int planes) {
    enum { STEPS = 32 / LANES16 };
    const Spreader s = spreader(bits);
    const size_t row_bytes = w->cols * (size_t)bits / 8, units = (size_t)w->group / 32;
    const uint8_t *words = (const uint8_t *)w->words + row * row_bytes;
    const uint8_t *end = (const uint8_t *)w->words + w->rows * row_bytes;
    const size_t total = w->rows * x->groups, block = (size_t)rows * row_bytes;
    const size_t ahead = (AHEAD + block - 1) / block * block;
    V acc[GEMV_ROWS][GEMV_MAX_M];
    float scale[GEMV_ROWS][GEMV_MAX_M][LANES];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) acc[r][i] = v_set(0.0f);
    for (size_t g = 0; g < x->groups; g++) {
        if (g % LANES == 0)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const size_t n = BASE_MIN(x->groups - g, (size_t)LANES);
                const size_t at = (row + (size_t)r) * x->groups + g;
                V of_weights = v_load_scales(w->scales, at, n, total, w->type);
                V bias = v_load_scales(w->biases, at, n, total, w->type);
#pragma GCC unroll 4
                for (int i = 0; i < m; i++) {
                    const size_t a = (first_x + (size_t)i) * x->group_stride + g;
                    v_store(scale[r][i], v_mul(of_weights, v_load(x->scales + a)));
                    acc[r][i] = v_fma(bias, v_load(x->sums + a), acc[r][i]);
                }
            }
        for (size_t u = g * units; u < (g + 1) * units; u++)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const uint8_t *from = words + (size_t)r * row_bytes;
                __builtin_prefetch(from + u * 4 * (size_t)bits + ahead, 0, 2);
                Codes first = linear_load(from, end, u * STEPS, s, bits), second = first;
                if (STEPS == 2) second = linear_load(from, end, u * STEPS + 1, s, bits);
#pragma GCC unroll 4
                for (int i = 0; i < m; i++) {
                    const int16_t *xi = x->fixed + (first_x + (size_t)i) * x->fixed_stride + u * 32;
                    acc[r][i] = v_fma(linear_dots(first, second, xi, x->plane, planes),
                                      v_set(scale[r][i][g % LANES]), acc[r][i]);
                }
            }
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        float *target = y + (ptrdiff_t)(first_x + (size_t)i) * y_stride + (ptrdiff_t)row;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) target[r] = v_sum(acc[r][i]);
    }
}

INLINE void linear_gemv(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                        ptrdiff_t y_stride, int bits, int planes) {
    for (size_t row = begin; row < end;) {
        const size_t rows = end - row >= GEMV_ROWS ? GEMV_ROWS : 1;
        for (size_t i = 0; i < x->m;) {
            const size_t left = x->m - i, m = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            if (rows == GEMV_ROWS && left == 1) {
                linear_rows(w, row, x, i, y, y_stride, GEMV_ROWS, 1, bits, planes);
                break;
            }
            for (size_t r = row; r < row + rows; r++) {
                if (m == 4)
                    linear_rows(w, r, x, i, y, y_stride, 1, 4, bits, planes);
                else if (m == 2)
                    linear_rows(w, r, x, i, y, y_stride, 1, 2, bits, planes);
                else
                    linear_rows(w, r, x, i, y, y_stride, 1, 1, bits, planes);
            }
            i += m;
        }
        row += rows;
    }
}

#define GEMV(bits)                                                                             \
    static void gemv_##bits(const CpuQuant *w, size_t begin, size_t end, const Activations *x, \
                            float *y, ptrdiff_t y_stride) {                                    \
        if (x->parts == 1)                                                                     \
            linear_gemv(w, begin, end, x, y, y_stride, bits, 1);                               \
        else                                                                                   \
            linear_gemv(w, begin, end, x, y, y_stride, bits, 2);                               \
    }
GEMV(2)
GEMV(3)
GEMV(5)
GEMV(6)
GEMV(8)

/* v = high * 2^15 + low for one plane of 16 bits each; v itself for one plane. */
static bool fix_activations(const float *x, size_t k, int group, int planes, int16_t *fixed,
                            size_t plane, float *scales, float *sums) {
    const float limit = planes == 1 ? 32767.0f : 8388000.0f;
    bool finite = true;
    for (size_t g = 0; g < k / (size_t)group; g++, x += group, fixed += group) {
        V top = v_set(0.0f), special = top;
        for (int i = 0; i < group; i += LANES) {
            V value = v_load(x + i);
            top = v_max(top, v_abs(value));
            special = v_fma(value, v_set(0.0f), special); /* NaN after NaN or infinity */
        }
        const float largest = v_top(top);
        finite &= v_sum(special) == 0.0f;
        const float factor = largest > 1e-30f ? limit / largest : 0.0f;
        int32_t v[128], sum = 0;
        for (int i = 0; i < group; i += LANES) {
            Vi q = v_int(v_mul(v_load(x + i), v_set(factor)));
            memcpy(v + i, &q, sizeof q);
        }
        for (int i = 0; i < group; i++) sum += v[i];
        scales[g] = largest > 1e-30f ? largest / limit : 0.0f;
        sums[g] = scales[g] * (float)sum;
        if (planes == 1) {
            for (int i = 0; i < group; i++) fixed[i] = (int16_t)v[i];
            continue;
        }
        for (int i = 0; i < group; i++) {
            const int32_t high = (v[i] + 16384) >> 15;
            fixed[i] = (int16_t)high;
            fixed[plane + (size_t)i] = (int16_t)(v[i] - high * 32768);
        }
    }
    return finite;
}

INLINE void dequant_bits(const uint8_t *row, const uint8_t *end, size_t first, size_t count,
                         int group, const float *scales, const float *biases, float *out,
                         int bits) {
    Spreader s = spreader(bits);
    for (size_t i = 0; i < count; i += 16) {
        const size_t at = first + i, g = at / (size_t)group;
        store16(out + i, load16(row, end, at / 16, s, bits), scales[g], biases[g]);
    }
}
static void dequant(const uint32_t *words, int bits, size_t first, size_t count, int group,
                    const float *scales, const float *biases, float *out) {
    const uint8_t *row = (const uint8_t *)words, *end = row + (first + count) * (size_t)bits / 8;
    switch (bits) {
    case 2: dequant_bits(row, end, first, count, group, scales, biases, out, 2); break;
    case 3: dequant_bits(row, end, first, count, group, scales, biases, out, 3); break;
    case 4: dequant_bits(row, end, first, count, group, scales, biases, out, 4); break;
    case 5: dequant_bits(row, end, first, count, group, scales, biases, out, 5); break;
    case 6: dequant_bits(row, end, first, count, group, scales, biases, out, 6); break;
    default: dequant_bits(row, end, first, count, group, scales, biases, out, 8); break;
    }
}

void QUANT(cpu_fill_quant)(Kernels *t) {
    static const QuantGemv by_bits[9] = {
        [2] = gemv_2, [3] = gemv_3, [5] = gemv_5, [6] = gemv_6, [8] = gemv_8};
    for (int bits = 2; bits <= 8; bits++) {
        if (!by_bits[bits]) continue;
        t->quant_gemv[bits] = by_bits[bits];
        t->quant_layout[bits] = LAYOUT_LINEAR;
    }
    t->fix_activations = fix_activations;
    t->dequant[CPU_AFFINE] = dequant;
}
