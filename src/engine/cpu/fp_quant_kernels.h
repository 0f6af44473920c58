/* fp_quant_kernels: products that stream weights with a byte of scale, and
 * their decoding, for every vector width. Included by fp_quant_avx2.c and
 * fp_quant_avx512.c.
 *
 * Activations stay float32. Four bits, one vector of words at a time, x in
 * blocks of 8 * LANES with its elements 8i + j at j * LANES + i:
 *
 *      w        [e0..e7 | e8..e15 | ..     one load: 64 (AVX2) or 128 weights
 *      w >> 4j                             the code of element j in each lane
 *      table[w >> 4j]                      AVX-512: one permute looks at the
 *                                          low 4 bits; AVX2: at 3, sign apart
 *      sum += table * x block j            8 multiply-adds
 *      acc += sum * scale of the word's group
 *
 * 26 instructions for 128 weights on AVX-512, 8 of them on the one shuffle
 * port: 5 bytes of words a cycle. Eight bits go through float16, whose
 * exponent is one bit longer: the code moved up 7 bits is its value / 256. */
#include "cpu/fp_quant.h"
#include "cpu/vector.h"

#define INLINE static inline __attribute__((always_inline))
enum { BLOCK = 8 * LANES };

/* Eight E4M3 codes as their values / 256. */
INLINE __m256 fp8_eight(const uint8_t *p) {
    __m128i x = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)p));
    x = _mm_and_si128(_mm_slli_epi16(x, 7), _mm_set1_epi16((short)0xBFFF));
    return _mm256_cvtph_ps(x);
}

#if defined(__AVX512F__)
enum { ROWS = 4 };
typedef __m512i Words;
INLINE Words words_load(const uint8_t *p, size_t left) {
    return left >= LANES ? _mm512_loadu_si512(p)
                         : _mm512_maskz_loadu_epi32((__mmask16)((1u << left) - 1), p);
}
INLINE V code_table(void) {
    return v_load(cpu_e2m1);
}
INLINE V code_values(Words w, int j, V table) {
    return _mm512_permutexvar_ps(_mm512_srli_epi32(w, (unsigned)(4 * j)), table);
}
/* The scales of the groups of a vector of words, each over its lanes. */
INLINE V spread(const float *scales, size_t vector, int group) {
    if (group == 32)
        return _mm512_permutexvar_ps(
            _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
            _mm512_castps128_ps512(_mm_loadu_ps(scales + 4 * vector)));
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                 _mm512_castps256_ps512(_mm256_loadu_ps(scales + 8 * vector)));
}
INLINE V fp8_values(const uint8_t *p) {
    __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    x = _mm256_and_si256(_mm256_slli_epi16(x, 7), _mm256_set1_epi16((short)0xBFFF));
    return _mm512_cvtph_ps(x);
}
#else
enum { ROWS = 2 };
typedef __m256i Words;
INLINE Words words_load(const uint8_t *p, size_t left) {
    return left >= LANES ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                         : _mm256_maskload_epi32((const int *)(const void *)p, v_first(left));
}
INLINE V code_table(void) {
    return v_load(cpu_e2m1);
}
INLINE V code_values(Words w, int j, V table) {
    V size = _mm256_permutevar8x32_ps(table, _mm256_srli_epi32(w, 4 * j));
    __m256i sign = _mm256_and_si256(_mm256_slli_epi32(w, 28 - 4 * j), _mm256_set1_epi32(INT32_MIN));
    return _mm256_xor_ps(size, _mm256_castsi256_ps(sign));
}
INLINE V spread(const float *scales, size_t vector, int group) {
    if (group == 32)
        return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(scales + 2 * vector)),
                                        _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(scales + 4 * vector)),
                                    _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
INLINE V fp8_values(const uint8_t *p) {
    return fp8_eight(p);
}
#endif

/* The scales of one row, zero to the end of its room. */
INLINE void row_scales(const CpuQuant *w, size_t row, size_t groups, float *out) {
    const uint8_t *bytes = (const uint8_t *)w->scales + row * groups;
    size_t g = 0;
    for (; g + 8 <= groups; g += 8) {
        __m256 value;
        if (w->mode == CPU_NVFP4) {
            value = _mm256_mul_ps(fp8_eight(bytes + g), _mm256_set1_ps(256.0f * w->factor));
        } else {
            __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)(bytes + g));
            __m256i bits = _mm256_slli_epi32(_mm256_cvtepu8_epi32(eight), 23);
            value = _mm256_castsi256_ps(_mm256_max_epi32(bits, _mm256_set1_epi32(0x00400000)));
        }
        _mm256_storeu_ps(out + g, value);
    }
    cpu_quant_scales(w, row * groups + g, groups - g, out + g, NULL);
    for (size_t i = groups; i < CPU_FP_SCALES(groups); i++) out[i] = 0;
}

/* `rows` weight rows times m activations; scales: [rows, scale_row]. */
INLINE void nibble_block(const uint8_t *words, size_t row_bytes, const float *x, size_t x_stride,
                         const float *scales, size_t scale_row, int group, int rows, int m,
                         V acc[ROWS][GEMV_MAX_M]) {
    const V table = code_table();
    for (size_t v = 0; v * sizeof(Words) < row_bytes; v++) {
        Words w[ROWS];
        V sum[ROWS][GEMV_MAX_M];
        for (int r = 0; r < rows; r++)
            w[r] = words_load(words + (size_t)r * row_bytes + v * sizeof(Words),
                              (row_bytes - v * sizeof(Words)) / 4);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            for (int r = 0; r < rows; r++) {
                V value = code_values(w[r], j, table);
                for (int i = 0; i < m; i++) {
                    V xi = v_load(x + (size_t)i * x_stride + v * BLOCK + (size_t)j * LANES);
                    sum[r][i] = j == 0 ? v_mul(value, xi) : v_fma(value, xi, sum[r][i]);
                }
            }
        for (int r = 0; r < rows; r++) {
            V scale = spread(scales + (size_t)r * scale_row, v, group);
            for (int i = 0; i < m; i++) acc[r][i] = v_fma(sum[r][i], scale, acc[r][i]);
        }
    }
}

INLINE void byte_block(const uint8_t *words, size_t row_bytes, const float *x, size_t x_stride,
                       const float *scales, size_t scale_row, int rows, int m,
                       V acc[ROWS][GEMV_MAX_M]) {
    for (size_t g = 0; g < row_bytes / 32; g++)
        for (int r = 0; r < rows; r++) {
            const uint8_t *p = words + (size_t)r * row_bytes + g * 32;
            V sum[GEMV_MAX_M], scale = v_set(scales[(size_t)r * scale_row + g]);
#pragma GCC unroll 4
            for (int j = 0; j < 32 / LANES; j++) {
                V value = fp8_values(p + j * LANES);
                for (int i = 0; i < m; i++) {
                    V xi = v_load(x + (size_t)i * x_stride + g * 32 + (size_t)(j * LANES));
                    sum[i] = j == 0 ? v_mul(value, xi) : v_fma(value, xi, sum[i]);
                }
            }
            for (int i = 0; i < m; i++) acc[r][i] = v_fma(sum[i], scale, acc[r][i]);
        }
}

/* `group` is that of 4-bit codes, or 0: 8-bit codes in groups of 32. */
INLINE void any_block(const CpuQuant *w, size_t row, const float *x, size_t x_stride,
                      const float *scales, size_t scale_row, float *y, ptrdiff_t y_stride, int rows,
                      int m, int group) {
    size_t row_bytes = w->cols * (size_t)w->bits / 8;
    const uint8_t *words = (const uint8_t *)w->words + row * row_bytes;
    V acc[ROWS][GEMV_MAX_M];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < m; i++) acc[r][i] = v_set(0.0f);
    if (group)
        nibble_block(words, row_bytes, x, x_stride, scales, scale_row, group, rows, m, acc);
    else
        byte_block(words, row_bytes, x, x_stride, scales, scale_row, rows, m, acc);
    for (int i = 0; i < m; i++)
        for (int r = 0; r < rows; r++)
            y[(ptrdiff_t)i * y_stride + (ptrdiff_t)row + r] =
                v_sum(acc[r][i]) * (group ? 1.0f : 256.0f);
}

INLINE void gemv(const CpuQuant *w, size_t begin, size_t end, const float *x, size_t x_stride,
                 size_t m, float *y, ptrdiff_t y_stride, float *scratch, int group) {
    size_t groups = w->cols / (size_t)w->group, scale_row = CPU_FP_SCALES(groups);
    for (size_t row = begin; row < end;) {
        size_t rows = end - row >= ROWS ? ROWS : 1;
        for (size_t r = 0; r < rows; r++) row_scales(w, row + r, groups, scratch + r * scale_row);
        for (size_t i = 0; i < m;) {
            const float *xi = x + i * x_stride;
            float *yi = y + (ptrdiff_t)i * y_stride;
            if (m - i == 1 && rows == ROWS) {
                any_block(w, row, xi, x_stride, scratch, scale_row, yi, y_stride, ROWS, 1, group);
                break;
            }
            size_t some = m - i >= 4 ? 4 : m - i >= 2 ? 2 : 1;
            for (size_t r = 0; r < rows; r++) {
                const float *scales = scratch + r * scale_row;
                if (some == 4)
                    any_block(w, row + r, xi, x_stride, scales, scale_row, yi, y_stride, 1, 4,
                              group);
                else if (some == 2)
                    any_block(w, row + r, xi, x_stride, scales, scale_row, yi, y_stride, 1, 2,
                              group);
                else
                    any_block(w, row + r, xi, x_stride, scales, scale_row, yi, y_stride, 1, 1,
                              group);
            }
            i += some;
        }
        row += rows;
    }
}

#define FP_GEMV(name, group)                                                                       \
    static void name(const CpuQuant *w, size_t begin, size_t end, const float *x, size_t x_stride, \
                     size_t m, float *y, ptrdiff_t y_stride, float *scratch) {                     \
        gemv(w, begin, end, x, x_stride, m, y, y_stride, scratch, group);                          \
    }
FP_GEMV(gemv_mxfp4, 32)
FP_GEMV(gemv_nvfp4, 16)
FP_GEMV(gemv_mxfp8, 0)

/* Eight elements, a divisor of every group, at a time. */
static void dequant4(const uint32_t *row, int bits, size_t first, size_t count, int group,
                     const float *scales, const float *biases, float *out) {
    const __m256i shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256 table = _mm256_loadu_ps(cpu_e2m1);
    (void)bits;
    (void)biases;
    for (size_t i = 0; i < count; i += 8) {
        size_t at = first + i;
        __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32((int)row[at / 8]), shift);
        __m256 size = _mm256_permutevar8x32_ps(table, codes);
        __m256i sign = _mm256_and_si256(_mm256_slli_epi32(codes, 28), _mm256_set1_epi32(INT32_MIN));
        __m256 value = _mm256_xor_ps(size, _mm256_castsi256_ps(sign));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(value, _mm256_set1_ps(scales[at / (size_t)group])));
    }
}
static void dequant8(const uint32_t *row, int bits, size_t first, size_t count, int group,
                     const float *scales, const float *biases, float *out) {
    const uint8_t *codes = (const uint8_t *)row;
    (void)bits;
    (void)biases;
    for (size_t i = 0; i < count; i += 8) {
        size_t at = first + i;
        __m256 value = _mm256_mul_ps(fp8_eight(codes + at), _mm256_set1_ps(256.0f));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(value, _mm256_set1_ps(scales[at / (size_t)group])));
    }
}

void VECTOR(cpu_fill_fp_quant)(Kernels *t) {
    t->fp_block = BLOCK;
    t->fp_gemv[CPU_MXFP4] = gemv_mxfp4;
    t->fp_gemv[CPU_MXFP8] = gemv_mxfp8;
    t->fp_gemv[CPU_NVFP4] = gemv_nvfp4;
    t->dequant[CPU_MXFP4] = t->dequant[CPU_NVFP4] = dequant4;
    t->dequant[CPU_MXFP8] = dequant8;
}
