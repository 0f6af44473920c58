/* quant_kernels: products that stream packed weights, for every vector width.
 * Included by quant_avx2.c, quant_avx512.c and quant_avx512vnni.c.
 *
 * The activation is carried as 16-bit integers with a scale a group (15 bits
 * and a sign: relative error 2^-16 of the group's largest), so that a weight
 * never becomes a float:  y = sum_g (scale_g a_g) * sum(q x) + bias_g * sum(x).
 *
 * Four bits, one vector of words, 4 elements a 16-bit lane:
 *
 *      w        [e0 e1 e2 e3 | e4 ..       one load: 64 (AVX2) or 128 weights
 *      w & 15, w >> 4 & 15, w >> 8 & 15, w >> 12        3 and, 3 shifts
 *      each * its own permuted activations, summed in pairs to 32 bits
 *                                          4 dot products (VNNI: they add too)
 *      float of the sum, * group scale, += result       2 and a permute
 *
 * About 17 instructions for 64 weights on AVX2: at four a cycle and 3 GHz a
 * core takes 22 GB/s of packed words, above what one core reads from memory.
 * The other widths come out in element order, 2 * LANES a step. */
#include "cpu/vector.h"

#include <string.h>

#if defined(__AVX512F__)
#if defined(__AVX512VNNI__)
#define QUANT(name) name##_avx512vnni
#else
#define QUANT(name) name##_avx512
#endif
typedef __m512i Iv;
static inline Iv iv_load(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline Iv iv_load_part(const void *p, size_t words) {
    return _mm512_maskz_loadu_epi32((__mmask16)((1u << words) - 1), p);
}
static inline Iv iv_zero(void) {
    return _mm512_setzero_si512();
}
static inline Iv iv_set16(short x) {
    return _mm512_set1_epi16(x);
}
static inline Iv iv_and(Iv a, Iv b) {
    return _mm512_and_si512(a, b);
}
#define iv_shr16(a, n) _mm512_srli_epi16(a, n)
#if defined(__AVX512VNNI__)
static inline Iv iv_dot(Iv sum, Iv a, Iv b) {
    return _mm512_dpwssd_epi32(sum, a, b);
}
#else
static inline Iv iv_dot(Iv sum, Iv a, Iv b) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}
#endif
static inline V iv_float(Iv a) {
    return _mm512_cvtepi32_ps(a);
}
/* The scales of the groups of one vector of nibbles, each over its lanes. */
static inline __attribute__((always_inline)) V spread(const float *scales, size_t vector,
                                                      int group) {
    if (group == 128) return _mm512_set1_ps(scales[vector]);
    if (group == 64)
        return _mm512_permutexvar_ps(
            _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
            _mm512_castps128_ps512(_mm_loadu_ps(scales + 2 * vector)));
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                 _mm512_castps128_ps512(_mm_loadu_ps(scales + 4 * vector)));
}
#else
#define QUANT(name) name##_avx2
typedef __m256i Iv;
static inline Iv iv_load(const void *p) {
    return _mm256_loadu_si256(p);
}
static inline Iv iv_load_part(const void *p, size_t words) {
    (void)words; /* half a vector: a row is a multiple of 32 elements */
    return _mm256_zextsi128_si256(_mm_loadu_si128(p));
}
static inline Iv iv_zero(void) {
    return _mm256_setzero_si256();
}
static inline Iv iv_set16(short x) {
    return _mm256_set1_epi16(x);
}
static inline Iv iv_and(Iv a, Iv b) {
    return _mm256_and_si256(a, b);
}
#define iv_shr16(a, n) _mm256_srli_epi16(a, n)
static inline Iv iv_dot(Iv sum, Iv a, Iv b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
static inline V iv_float(Iv a) {
    return _mm256_cvtepi32_ps(a);
}
static inline __attribute__((always_inline)) V spread(const float *scales, size_t vector,
                                                      int group) {
    if (group == 128) return _mm256_broadcast_ss(scales + vector / 2);
    if (group == 64) return _mm256_broadcast_ss(scales + vector);
    __m128d pair = _mm_load_sd((const double *)(const void *)(scales + 2 * vector));
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_castpd_ps(pair)),
                                    _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}
#endif

#define INLINE static inline __attribute__((always_inline))
enum { LANES16 = 2 * LANES, NIBBLES = 8 * LANES };

/* One block of work: weight rows, activations, and the scales of each pair. */
typedef struct Block {
    const uint8_t *words; /* of the first row */
    const uint8_t *end;   /* of all words */
    size_t row_bytes, k;
    int group;
    const Activations *x;
    size_t first_x;      /* first activation of the pass */
    const float *scales; /* [row][activation][scale_row] */
    size_t scale_row;
} Block;

INLINE const float *block_scales(const Block *block, int r, int i) {
    return block->scales + (size_t)(r * GEMV_MAX_M + i) * block->scale_row;
}

/* The first n lanes. */
INLINE V keep_first(V x, size_t n) {
#if defined(__AVX512F__)
    return _mm512_maskz_mov_ps(v_first(n), x);
#else
    return _mm256_and_ps(x, _mm256_castsi256_ps(v_first(n)));
#endif
}
/* `count` scales at `at`. A whole vector is read where the tensor goes on for
 * as long: what it reads too much belongs to the next rows. */
INLINE V load_first(const void *p, size_t at, size_t count, size_t total, CpuType type) {
    if (at + LANES > total) return v_load_type_n(p, at, count, type);
    return keep_first(v_load_type(p, at, type), count);
}

/* out[g] = scale * activation scale, with zeros to the end of the last vector;
 * the lanes of the result sum to the part that biases and centers make. */
INLINE V prepare_type(const CpuQuant *w, size_t row, const Activations *x, size_t i, float *out,
                      CpuType type) {
    const float *a_scales = x->scales + i * x->group_stride,
                *a_sums = x->sums + i * x->group_stride;
    const float *a_centers = x->centers + i * x->group_stride;
    size_t groups = x->groups, at = row * groups, all = w->rows * groups, g = 0;
    V total = v_set(0.0f), other = v_set(0.0f);
    for (; g + LANES <= groups; g += LANES) {
        V scale = v_load_type(w->scales, at + g, type);
        v_store(out + g, v_mul(scale, v_load(a_scales + g)));
        total = v_fma(v_load_type(w->biases, at + g, type), v_load(a_sums + g), total);
        other = v_fma(scale, v_load(a_centers + g), other);
    }
    if (g < groups) {
        size_t rest = groups - g;
        V scale = load_first(w->scales, at + g, rest, all, type);
        V bias = load_first(w->biases, at + g, rest, all, type);
        v_store(out + g, v_mul(scale, v_load(a_scales + g)));
        total = v_fma(bias, v_load(a_sums + g), total);
        other = v_fma(scale, v_load(a_centers + g), other);
    }
    return v_add(total, other);
}
INLINE V prepare(const CpuQuant *w, size_t row, const Activations *x, size_t i, float *out) {
    if (w->type == CPU_F32) return prepare_type(w, row, x, i, out, CPU_F32);
    if (w->type == CPU_F16) return prepare_type(w, row, x, i, out, CPU_F16);
    return prepare_type(w, row, x, i, out, CPU_BF16);
}

INLINE void nibble_step(const Block *block, Iv words, size_t vector, int r, int group, int m,
                        V *acc) {
    Iv low = iv_set16(15);
    Iv q0 = iv_and(words, low), q1 = iv_and(iv_shr16(words, 4), low);
    Iv q2 = iv_and(iv_shr16(words, 8), low), q3 = iv_shr16(words, 12);
    for (int i = 0; i < m; i++) {
        const int16_t *x = block->x->fixed + (block->first_x + (size_t)i) * block->x->fixed_stride +
                           vector * NIBBLES;
        Iv sum = iv_dot(iv_zero(), q0, iv_load(x));
        Iv other = iv_dot(iv_zero(), q1, iv_load(x + LANES16));
        sum = iv_dot(sum, q2, iv_load(x + 2 * LANES16));
        other = iv_dot(other, q3, iv_load(x + 3 * LANES16));
#if defined(__AVX512F__)
        sum = _mm512_add_epi32(sum, other);
#else
        sum = _mm256_add_epi32(sum, other);
#endif
        acc[i] = v_fma(iv_float(sum), spread(block_scales(block, r, i), vector, group), acc[i]);
    }
}

INLINE void nibble_block(const Block *block, V acc[GEMV_ROWS][GEMV_MAX_M], int rows, int m,
                         int group) {
    size_t vectors = block->k / NIBBLES, rest = block->k % NIBBLES;
    for (size_t v = 0; v < vectors; v++)
        for (int r = 0; r < rows; r++)
            nibble_step(block,
                        iv_load(block->words + (size_t)r * block->row_bytes + v * sizeof(Iv)), v, r,
                        group, m, acc[r]);
    if (rest)
        for (int r = 0; r < rows; r++)
            nibble_step(
                block,
                iv_load_part(block->words + (size_t)r * block->row_bytes + vectors * sizeof(Iv),
                             rest / 8),
                vectors, r, group, m, acc[r]);
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
/* Step `step` of a row: LANES16 elements. */
INLINE Iv linear_load(const uint8_t *row, const uint8_t *end, size_t step, Spreader s, int bits) {
#if defined(__AVX512F__)
    if (bits == 8)
        return _mm512_cvtepu8_epi16(
            _mm256_loadu_si256((const __m256i *)(const void *)(row + step * 32)));
    const uint8_t *p = row + step * 4 * (size_t)bits;
    return _mm512_inserti64x4(_mm512_castsi256_si512(spread16(p, end, s, bits)),
                              spread16(p + 2 * bits, end, s, bits), 1);
#else
    if (bits == 8)
        return _mm256_cvtepu8_epi16(
            _mm_loadu_si128((const __m128i *)(const void *)(row + step * 16)));
    return spread16(row + step * 2 * (size_t)bits, end, s, bits);
#endif
}

/* 32 elements at a time, a divisor of every group. */
INLINE void linear_block(const Block *block, V acc[GEMV_ROWS][GEMV_MAX_M], int rows, int m,
                         int bits) {
    enum { STEPS = 32 / LANES16 };
    Spreader s = spreader(bits);
    int shift = block->group == 32 ? 0 : block->group == 64 ? 1 : 2;
    for (size_t u = 0; u < block->k / 32; u++)
        for (int r = 0; r < rows; r++) {
            const uint8_t *row = block->words + (size_t)r * block->row_bytes;
            const int16_t *x = block->x->fixed + block->first_x * block->x->fixed_stride + u * 32;
            Iv first = linear_load(row, block->end, u * STEPS, s, bits), second = first;
            if (STEPS == 2) second = linear_load(row, block->end, u * STEPS + 1, s, bits);
            for (int i = 0; i < m; i++) {
                const int16_t *xi = x + (size_t)i * block->x->fixed_stride;
                Iv sum = iv_dot(iv_zero(), first, iv_load(xi));
                if (STEPS == 2) sum = iv_dot(sum, second, iv_load(xi + LANES16));
                acc[r][i] =
                    v_fma(iv_float(sum), v_set(block_scales(block, r, i)[u >> shift]), acc[r][i]);
            }
        }
}

/* `kind` is the group of nibbles, or the bits in element order. */
INLINE void any_block(const CpuQuant *w, size_t row, Block *block, float *y, ptrdiff_t y_stride,
                      float *scratch, int rows, int m, bool nibbles, int kind) {
    V acc[GEMV_ROWS][GEMV_MAX_M];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < m; i++)
            acc[r][i] = prepare(w, row + (size_t)r, block->x, block->first_x + (size_t)i,
                                scratch + (size_t)(r * GEMV_MAX_M + i) * block->scale_row);
    block->words = (const uint8_t *)w->words + row * block->row_bytes;
    if (nibbles)
        nibble_block(block, acc, rows, m, kind);
    else
        linear_block(block, acc, rows, m, kind);
    for (int i = 0; i < m; i++) {
        float *target = y + (ptrdiff_t)(block->first_x + (size_t)i) * y_stride + (ptrdiff_t)row;
        for (int r = 0; r < rows; r++) target[r] = v_sum(acc[r][i]);
    }
}

INLINE void gemv(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                 ptrdiff_t y_stride, float *scratch, bool nibbles, int kind) {
    size_t row_bytes = w->cols * (size_t)w->bits / 8;
    Block block = {.end = (const uint8_t *)w->words + w->rows * row_bytes,
                   .row_bytes = row_bytes,
                   .k = w->cols,
                   .group = w->group,
                   .x = x,
                   .scales = scratch,
                   .scale_row = CPU_GEMV_SCALES(x->groups)};
    for (size_t row = begin; row < end;) {
        size_t rows = end - row >= GEMV_ROWS ? GEMV_ROWS : 1;
        for (block.first_x = 0; block.first_x < x->m;) {
            size_t left = x->m - block.first_x;
            if (rows == GEMV_ROWS && left == 1) {
                any_block(w, row, &block, y, y_stride, scratch, GEMV_ROWS, 1, nibbles, kind);
                break;
            }
            size_t m = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            for (size_t r = row; r < row + rows; r++) {
                if (m == 4)
                    any_block(w, r, &block, y, y_stride, scratch, 1, 4, nibbles, kind);
                else if (m == 2)
                    any_block(w, r, &block, y, y_stride, scratch, 1, 2, nibbles, kind);
                else
                    any_block(w, r, &block, y, y_stride, scratch, 1, 1, nibbles, kind);
            }
            block.first_x += m;
        }
        row += rows;
    }
}

#define GEMV(name, nibbles, kind)                                                                 \
    static void name(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y, \
                     ptrdiff_t y_stride, float *scratch) {                                        \
        gemv(w, begin, end, x, y, y_stride, scratch, nibbles, kind);                              \
    }
GEMV(gemv_2, false, 2)
GEMV(gemv_3, false, 3)
GEMV(gemv_4_32, true, 32)
GEMV(gemv_4_64, true, 64)
GEMV(gemv_4_128, true, 128)
GEMV(gemv_5, false, 5)
GEMV(gemv_6, false, 6)
GEMV(gemv_8, false, 8)
static void gemv_4(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                   ptrdiff_t y_stride, float *scratch) {
    QuantGemv run = w->group == 32 ? gemv_4_32 : w->group == 64 ? gemv_4_64 : gemv_4_128;
    run(w, begin, end, x, y, y_stride, scratch);
}

/* 32 numbers to integers at `factor`, in element order, and their sum. */
INLINE int fix32(const float *x, float factor, __m128i out[4]) {
    __m256 f = _mm256_set1_ps(factor);
    __m128i ones = _mm_set1_epi16(1), sum = _mm_setzero_si128();
    for (int i = 0; i < 4; i++) {
        __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), f));
        out[i] = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
        sum = _mm_add_epi32(sum, _mm_madd_epi16(out[i], ones));
    }
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1)));
}
/* Elements 4i + s of the 32 go to out + s * LANES16. */
INLINE void store_nibble_order(const __m128i in[4], int16_t *out) {
    __m128i order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15), v[4];
    for (int i = 0; i < 4; i++) v[i] = _mm_shuffle_epi8(in[i], order);
    __m128i a = _mm_unpacklo_epi32(v[0], v[1]), b = _mm_unpackhi_epi32(v[0], v[1]);
    __m128i c = _mm_unpacklo_epi32(v[2], v[3]), d = _mm_unpackhi_epi32(v[2], v[3]);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_unpacklo_epi64(a, c));
    _mm_storeu_si128((__m128i *)(void *)(out + LANES16), _mm_unpackhi_epi64(a, c));
    _mm_storeu_si128((__m128i *)(void *)(out + 2 * LANES16), _mm_unpacklo_epi64(b, d));
    _mm_storeu_si128((__m128i *)(void *)(out + 3 * LANES16), _mm_unpackhi_epi64(b, d));
}

static void fix_activations(const float *x, size_t k, int group, int bits, ActivationLayout layout,
                            int16_t *fixed, float *scales, float *sums, float *centers) {
    float middle = (float)((1 << bits) - 1) * 0.5f;
    for (size_t g = 0; g < k / (size_t)group; g++) {
        const float *start = x + g * (size_t)group;
        V top = v_set(0.0f), sum = top;
        for (int i = 0; i < group; i += LANES) {
            V value = v_load(start + i);
            top = v_max(top, v_abs(value));
            sum = v_add(sum, value);
        }
        float largest = v_top(top), factor = largest > 1e-30f ? 32767.0f / largest : 0.0f;
        scales[g] = largest > 1e-30f ? largest / 32767.0f : 0.0f;
        sums[g] = v_sum(sum);
        int fixed_sum = 0;
        for (size_t i = 0; i < (size_t)group; i += 32) {
            __m128i q[4];
            fixed_sum += fix32(start + i, factor, q);
            size_t at = g * (size_t)group + i;
            if (layout == LAYOUT_NIBBLE)
                store_nibble_order(q, fixed + at / NIBBLES * NIBBLES + at % NIBBLES / 4);
            else
                for (int j = 0; j < 4; j++)
                    _mm_storeu_si128((__m128i *)(void *)(fixed + at + 8 * (size_t)j), q[j]);
        }
        centers[g] = middle * (sums[g] - scales[g] * (float)fixed_sum);
    }
}

INLINE void dequant_bits(const uint8_t *row, const uint8_t *end, size_t first, size_t count,
                         int group, const float *scales, const float *biases, float *out,
                         int bits) {
    Spreader s = spreader(bits);
    for (size_t i = 0; i < count; i += 16) {
        size_t at = first + i, g = at / (size_t)group;
        __m256i q =
            bits == 8
                ? _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(row + at)))
                : spread16(row + at / 8 * (size_t)bits, end, s, bits);
        __m256 scale = _mm256_set1_ps(scales[g]), bias = _mm256_set1_ps(biases[g]);
        __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(q));
        __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(q, 1));
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(_mm256_cvtepi32_ps(low), scale, bias));
        _mm256_storeu_ps(out + i + 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), scale, bias));
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
        [2] = gemv_2, [3] = gemv_3, [4] = gemv_4, [5] = gemv_5, [6] = gemv_6, [8] = gemv_8};
    for (int bits = 2; bits <= 8; bits++) {
        if (!by_bits[bits]) continue;
        t->quant_gemv[bits] = by_bits[bits];
        t->quant_layout[bits] = bits == 4 ? LAYOUT_NIBBLE : LAYOUT_LINEAR;
    }
    t->quant_block = NIBBLES;
    t->fix_activations = fix_activations;
    t->dequant[CPU_AFFINE] = dequant;
}
