/* fp_quant_kernels: products that stream weights of 8-bit codes (E4M3) with a
 * byte of scale, and the decoding of all such weights, for every vector width.
 * Included by fp_quant_avx2.c, fp_quant_avx512.c and fp_quant_neon.c. The products
 * of 4-bit codes are those of digit_kernels.h.
 *
 *      value = codes through float16       4 instructions for LANES weights
 *      sum += value * x                    1
 *      acc += sum * scale of the group     2 for 32 weights
 *
 * Activations stay float32. 12 instructions for 32 weights on AVX-512: at two a
 * cycle and 3 GHz a core takes 16 GB/s of codes. */
#include "cpu/fp_quant.h"
#include "cpu/vector.h"

#define INLINE static inline __attribute__((always_inline))
enum { GROUP = 32, ROWS = LANES == 8 ? 2 : 4 }; /* weight rows in flight, as registers allow */

/* y for `rows` weight rows and m activation rows. */
INLINE void byte_rows(const CpuQuant *w, size_t row, const Activations *x, size_t first_x, float *y,
                      ptrdiff_t y_stride, int rows, int m) {
    const uint8_t *codes = (const uint8_t *)w->words + row * w->cols;
    const uint8_t *scales = (const uint8_t *)w->scales + row * x->groups;
    const float *xs = x->f32 + first_x * x->k;
    V acc[ROWS][GEMV_MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) acc[r][i] = v_set(0.0f);
    for (size_t g = 0; g < x->groups; g++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const uint8_t *p = codes + (size_t)r * w->cols + g * GROUP;
            V scale = v_set(cpu_f32_from_e8m0(scales[(size_t)r * x->groups + g])), sum[GEMV_MAX_M];
#pragma GCC unroll 8
            for (int j = 0; j < GROUP / LANES; j++) {
                V value = v_load_e4m3(p + j * LANES);
#pragma GCC unroll 4
                for (int i = 0; i < m; i++) {
                    V xi = v_load(xs + (size_t)i * x->k + g * GROUP + (size_t)(j * LANES));
                    sum[i] = j == 0 ? v_mul(value, xi) : v_fma(value, xi, sum[i]);
                }
            }
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) acc[r][i] = v_fma(sum[i], scale, acc[r][i]);
        }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            y[(ptrdiff_t)(first_x + (size_t)i) * y_stride + (ptrdiff_t)row + r] =
                v_sum(acc[r][i]) * 256.0f;
}

static void gemv_mxfp8(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                       ptrdiff_t y_stride) {
    for (size_t row = begin; row < end;) {
        const size_t rows = end - row >= ROWS ? ROWS : 1;
        for (size_t i = 0; i < x->m;) {
            const size_t left = x->m - i, m = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            if (left == 1 && rows == ROWS) {
                byte_rows(w, row, x, i, y, y_stride, ROWS, 1);
                break;
            }
            for (size_t r = row; r < row + rows; r++) {
                if (m == 4)
                    byte_rows(w, r, x, i, y, y_stride, 1, 4);
                else if (m == 2)
                    byte_rows(w, r, x, i, y, y_stride, 1, 2);
                else
                    byte_rows(w, r, x, i, y, y_stride, 1, 1);
            }
            i += m;
        }
        row += rows;
    }
}

#if defined(__aarch64__)
/* Sixteen elements, a divisor of every group, at a time. The upper byte of a
 * float16 is enough for an E2M1 number. */
static void dequant4(const uint32_t *row, int bits, size_t first, size_t count, int group,
                     const float *scales, const float *biases, float *out) {
    static const uint8_t upper[16] = {0x00, 0x38, 0x3C, 0x3E, 0x40, 0x42, 0x44, 0x46,
                                      0x80, 0xB8, 0xBC, 0xBE, 0xC0, 0xC2, 0xC4, 0xC6};
    const uint8_t *codes = (const uint8_t *)row + first / 2;
    const uint8x16_t table = vld1q_u8(upper);
    (void)bits;
    (void)biases;
    for (size_t i = 0; i < count; i += 16) {
        const uint8x8_t pairs = vld1_u8(codes + i / 2);
        const uint8x8_t even = vand_u8(pairs, vdup_n_u8(15)), odd = vshr_n_u8(pairs, 4);
        const uint8x8_t part[2] = {vzip1_u8(even, odd), vzip2_u8(even, odd)};
        const V scale = v_set(scales[(first + i) / (size_t)group]);
        for (int half = 0; half < 2; half++) {
            const uint16x8_t bytes = vshll_n_u8(vqtbl1_u8(table, part[half]), 8);
            const float16x8_t value = vreinterpretq_f16_u16(bytes);
            float *target = out + i + 8 * half;
            v_store(target, v_mul(vcvt_f32_f16(vget_low_f16(value)), scale));
            v_store(target + 4, v_mul(vcvt_high_f32_f16(value), scale));
        }
    }
}
#else
/* Eight elements, a divisor of every group, at a time. */
static void dequant4(const uint32_t *row, int bits, size_t first, size_t count, int group,
                     const float *scales, const float *biases, float *out) {
    const __m256i shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256 table = _mm256_loadu_ps(cpu_e2m1); /* by the low three bits */
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
#endif

static void dequant8(const uint32_t *row, int bits, size_t first, size_t count, int group,
                     const float *scales, const float *biases, float *out) {
    const uint8_t *codes = (const uint8_t *)row + first;
    (void)bits;
    (void)biases;
    for (size_t i = 0; i < count; i += LANES) {
        V value = v_mul(v_load_e4m3(codes + i), v_set(256.0f));
        v_store(out + i, v_mul(value, v_set(scales[(first + i) / (size_t)group])));
    }
}

void VECTOR(cpu_fill_fp_quant)(Kernels *t) {
    t->quant_gemv[KIND_MXFP8] = gemv_mxfp8;
    t->dequant[CPU_MXFP4] = t->dequant[CPU_NVFP4] = dequant4;
    t->dequant[CPU_MXFP8] = dequant8;
}
