/* dense_kernels: the tile of the float32 product (gemm_tile.h), the packing of its panels,
 * and the products that stream a dense matrix once; for every vector width
 * (vector.h). Included by gemm_avx2.c,
 * gemm_avx512.c and gemm_neon.c.
 *
 * The tile holds MR x 2 vectors of C in registers, reads two vectors of B and
 * MR broadcasts of A a step, and does 2 MR multiply-adds with them:
 *
 *            b0 b1            AVX2     6 x 16: 12 C + 2 B + 1 A of 16 registers
 *      a0 [ c00 c01 ]         AVX-512 14 x 32: 28 C + 2 B + 1 A of 32
 *      a1 [ c10 c11 ]
 *      ..                     two FMA a cycle need (MR + 2) / MR loads a cycle,
 *                             under the two a core can do: bound by FMA. */
#include "cpu/vector_words.h"

#if defined(__aarch64__)
enum { MR = 12 }; /* 12 x 8: 24 C + 2 B + 3 A of 32 registers */
#elif defined(__AVX512F__)
enum { MR = 14 };
#else
enum { MR = 6 };
#endif
enum { NR = 2 * LANES, HALF_MR = MR / 2 + 1 };

typedef float Item;
typedef V Panel;
#define panel_load v_load
#define panel_all v_set
#define panel_fma v_fma
#include "cpu/gemm_tile.h"

/* Packing turns squares of SQUARE rows by as many items around. */
#if defined(__aarch64__)
enum { SQUARE = 4 };
typedef float32x4_t Row;

static inline Row zero_row(void) {
    return vdupq_n_f32(0);
}

/* Four items of a row from p on; of bf16 the upper halves of floats. */
static inline Row load_row(const char *row, size_t p, bool bf16) {
    if (!bf16) return vld1q_f32((const float *)(const void *)row + p);
    return v_load_bf16((const uint16_t *)(const void *)row + p);
}

static inline void store_row(float *out, Row x, size_t columns) {
    (void)columns;
    vst1q_f32(out, x);
}
_Static_assert(MR % 4 == 0 && NR % 4 == 0, "panels are fours");

static inline void transpose(Row r[4]) {
    const Row t0 = vzip1q_f32(r[0], r[2]), t1 = vzip2q_f32(r[0], r[2]);
    const Row u0 = vzip1q_f32(r[1], r[3]), u1 = vzip2q_f32(r[1], r[3]);
    r[0] = vzip1q_f32(t0, u0);
    r[1] = vzip2q_f32(t0, u0);
    r[2] = vzip1q_f32(t1, u1);
    r[3] = vzip2q_f32(t1, u1);
}
#else
enum { SQUARE = 8 };
typedef __m256i Row;

static inline Row zero_row(void) {
    return _mm256_setzero_si256();
}

/* Eight items of a row from p on; of bf16 the upper halves of floats. */
static inline Row load_row(const char *row, size_t p, bool bf16) {
    if (!bf16) return _mm256_loadu_si256((const __m256i *)(const void *)(row + 4 * p));
    const __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)(row + 2 * p));
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
}

/* All eight items, or the first six: what a panel of MR rows has beyond whole eights.
 * Those are two stores, because AMD's masked one is slow. */
static inline void store_row(float *out, Row x, size_t columns) {
    if (columns == 8) {
        _mm256_storeu_si256((__m256i *)(void *)out, x);
        return;
    }
    _mm_storeu_si128((__m128i *)(void *)out, _mm256_castsi256_si128(x));
    _mm_storel_epi64((__m128i *)(void *)(out + 4), _mm256_extracti128_si256(x, 1));
}
_Static_assert(MR % 8 == 6 && NR % 8 == 0, "panels are eights and a six");

static inline void transpose(Row r[8]) {
    transpose8(r);
}
#endif

static inline __attribute__((always_inline)) void pack_any(float *out, size_t width, const void *in,
                                                           ptrdiff_t stride_bytes, size_t rows,
                                                           size_t k, bool bf16) {
    const char *source = in;
    for (size_t first = 0; first < width; first += SQUARE) {
        size_t columns = width - first < SQUARE ? width - first : SQUARE;
        size_t have = rows <= first ? 0 : rows - first < columns ? rows - first : columns;
        const char *base = source + (ptrdiff_t)first * stride_bytes;
        float *target = out + first;
        size_t p = 0;
        for (; p + SQUARE <= k; p += SQUARE) {
            Row r[SQUARE];
            for (size_t i = 0; i < SQUARE; i++) {
                const char *row = base + (ptrdiff_t)i * stride_bytes;
                r[i] = i < have ? load_row(row, p, bf16) : zero_row();
            }
            transpose(r);
            for (size_t i = 0; i < SQUARE; i++) store_row(target + (p + i) * width, r[i], columns);
        }
        for (; p < k; p++)
            for (size_t i = 0; i < columns; i++) {
                const size_t size = bf16 ? 2 : 4;
                uint32_t bits = 0;
                if (i < have)
                    __builtin_memcpy(&bits, base + (ptrdiff_t)i * stride_bytes + p * size, size);
                if (bf16) bits <<= 16;
                __builtin_memcpy(&target[p * width + i], &bits, 4);
            }
    }
}

static void pack_rows_run(float *out, size_t width, const void *in, ptrdiff_t stride_bytes,
                          size_t rows, size_t k) {
    pack_any(out, width, in, stride_bytes, rows, k, false);
}

static void pack_rows_bf16(float *out, size_t width, const void *in, ptrdiff_t stride_bytes,
                           size_t rows, size_t k) {
    pack_any(out, width, in, stride_bytes, rows, k, true);
}

/* ROWS weight rows times M activations: ROWS * M chains of multiply-adds, each
 * weight loaded (and widened) once. With M = 1 it reads memory as fast as four
 * streams can. */
static inline __attribute__((always_inline)) void
dot_block(const char *w, ptrdiff_t w_bytes, size_t k, const float *x, size_t x_stride, float *y,
          ptrdiff_t y_stride, CpuType type, int rows, int m) {
    V acc[4][4];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < m; i++) acc[r][i] = v_set(0.0f);
    size_t p = 0;
    for (; p + LANES <= k; p += LANES) {
        V xs[4];
        for (int i = 0; i < m; i++) xs[i] = v_load(x + (size_t)i * x_stride + p);
        for (int r = 0; r < rows; r++) {
            V weight = v_load_type(w + r * w_bytes, p, type);
            for (int i = 0; i < m; i++) acc[r][i] = v_fma(weight, xs[i], acc[r][i]);
        }
    }
    if (p < k) {
        V xs[4];
        for (int i = 0; i < m; i++) xs[i] = v_load_n(x + (size_t)i * x_stride + p, k - p);
        for (int r = 0; r < rows; r++) {
            V weight = v_load_type_n(w + r * w_bytes, p, k - p, type);
            for (int i = 0; i < m; i++) acc[r][i] = v_fma(weight, xs[i], acc[r][i]);
        }
    }
    for (int i = 0; i < m; i++) {
        if (rows == 4)
            v_sums4(y + i * y_stride, acc[0][i], acc[1][i], acc[2][i], acc[3][i]);
        else
            for (int r = 0; r < rows; r++) y[i * y_stride + r] = v_sum(acc[r][i]);
    }
}

static inline __attribute__((always_inline)) void
dot_rows_any(const void *w, ptrdiff_t w_stride, size_t rows, size_t k, const float *x,
             size_t x_stride, size_t m, float *y, ptrdiff_t y_stride, CpuType type) {
    ptrdiff_t w_bytes = w_stride * (ptrdiff_t)cpu_type_size(type);
    size_t r = 0;
    for (; r < rows;) {
        size_t block = rows - r >= 4 ? 4 : 1;
        const char *start = (const char *)w + (ptrdiff_t)r * w_bytes;
        float *target = y + r;
        size_t i = 0;
        for (; i < m;) {
            const float *xi = x + i * x_stride;
            float *yi = target + (ptrdiff_t)i * y_stride;
            if (block == 4 && m - i >= 3) {
                dot_block(start, w_bytes, k, xi, x_stride, yi, y_stride, type, 4, 3);
                i += 3;
            } else if (block == 4 && m - i == 2) {
                dot_block(start, w_bytes, k, xi, x_stride, yi, y_stride, type, 4, 2);
                i += 2;
            } else if (block == 4) {
                dot_block(start, w_bytes, k, xi, x_stride, yi, y_stride, type, 4, 1);
                i++;
            } else if (m - i >= 4) {
                dot_block(start, w_bytes, k, xi, x_stride, yi, y_stride, type, 1, 4);
                i += 4;
            } else {
                dot_block(start, w_bytes, k, xi, x_stride, yi, y_stride, type, 1, 1);
                i++;
            }
        }
        r += block;
    }
}

/* Four weight rows and m sums a pass: each weight widened once, four
 * multiply-adds for one read and write of y. */
static inline __attribute__((always_inline)) void sum_block(const char *const row[4], size_t n,
                                                            const float *x, size_t x_stride,
                                                            float *y, ptrdiff_t y_stride,
                                                            CpuType type, int m) {
    size_t c = 0;
    for (; c + LANES <= n; c += LANES) {
        V w[4];
        for (int j = 0; j < 4; j++) w[j] = v_load_type(row[j], c, type);
        for (int i = 0; i < m; i++) {
            const float *f = x + (size_t)i * x_stride;
            float *target = y + i * y_stride + c;
            V sum = v_fma(v_set(f[0]), w[0], v_load(target));
            V other = v_mul(v_set(f[1]), w[1]);
            sum = v_fma(v_set(f[2]), w[2], sum);
            other = v_fma(v_set(f[3]), w[3], other);
            v_store(target, v_add(sum, other));
        }
    }
    if (c == n) return;
    V w[4];
    for (int j = 0; j < 4; j++) w[j] = v_load_type_n(row[j], c, n - c, type);
    for (int i = 0; i < m; i++) {
        const float *f = x + (size_t)i * x_stride;
        float *target = y + i * y_stride + c;
        V sum = v_load_n(target, n - c);
        for (int j = 0; j < 4; j++) sum = v_fma(v_set(f[j]), w[j], sum);
        v_store_n(target, sum, n - c);
    }
}

/* Columns that stay in registers for all rows: the width of an attention head. */
enum { KEPT = LANES == 16 ? 4 : 2, KEPT_WIDTH = 8 * LANES };

/* KEPT vectors of m sums (at most 4) over all rows. */
static inline __attribute__((always_inline)) void
sum_kept(const char *w, ptrdiff_t w_bytes, size_t rows, size_t c, const float *x, size_t x_stride,
         float *y, ptrdiff_t y_stride, CpuType type, int m) {
    V acc[4][KEPT], v[KEPT];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < KEPT; j++) acc[i][j] = v_load(y + i * y_stride + c + (size_t)j * LANES);
    for (size_t r = 0; r < rows; r++, w += w_bytes) {
        for (int j = 0; j < KEPT; j++) v[j] = v_load_type(w, c + (size_t)j * LANES, type);
        for (int i = 0; i < m; i++) {
            const V factor = v_set(x[(size_t)i * x_stride + r]);
            for (int j = 0; j < KEPT; j++) acc[i][j] = v_fma(factor, v[j], acc[i][j]);
        }
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < KEPT; j++) v_store(y + i * y_stride + c + (size_t)j * LANES, acc[i][j]);
}

/* The same for n columns, a multiple of KEPT vectors. */
static inline __attribute__((always_inline)) void
sum_rows_kept(const char *w, ptrdiff_t w_bytes, size_t rows, size_t n, const float *x,
              size_t x_stride, size_t m, float *y, ptrdiff_t y_stride, CpuType type) {
    for (size_t c = 0; c < n; c += KEPT * LANES) {
        for (size_t i = 0; i < m;) {
            const size_t count = m - i >= 4 ? 4 : m - i;
            const float *f = x + i * x_stride;
            float *target = y + (ptrdiff_t)i * y_stride;
            switch (count) {
            case 4: sum_kept(w, w_bytes, rows, c, f, x_stride, target, y_stride, type, 4); break;
            case 3: sum_kept(w, w_bytes, rows, c, f, x_stride, target, y_stride, type, 3); break;
            case 2: sum_kept(w, w_bytes, rows, c, f, x_stride, target, y_stride, type, 2); break;
            default: sum_kept(w, w_bytes, rows, c, f, x_stride, target, y_stride, type, 1); break;
            }
            i += count;
        }
    }
}

static inline __attribute__((always_inline)) void
sum_rows_any(const void *w, ptrdiff_t w_stride, size_t rows, size_t n, const float *x,
             size_t x_stride, size_t m, float *y, ptrdiff_t y_stride, CpuType type) {
    ptrdiff_t w_bytes = w_stride * (ptrdiff_t)cpu_type_size(type);
    if (n <= KEPT_WIDTH && n % (KEPT * LANES) == 0) {
        sum_rows_kept(w, w_bytes, rows, n, x, x_stride, m, y, y_stride, type);
        return;
    }
    for (size_t r = 0; r < rows; r += 4) {
        const char *start = (const char *)w + (ptrdiff_t)r * w_bytes, *row[4];
        float last[4][4]; /* the factors of the last rows, 0 for those that are none */
        bool whole = rows - r >= 4;
        for (size_t j = 0; j < 4; j++) row[j] = start + (r + j < rows ? (ptrdiff_t)j * w_bytes : 0);
        for (size_t i = 0; i < m;) {
            const float *f = x + i * x_stride + r;
            size_t count = m - i >= 4 ? 4 : m - i, f_stride = x_stride;
            if (!whole) {
                for (size_t s = 0; s < count; s++)
                    for (size_t j = 0; j < 4; j++)
                        last[s][j] = r + j < rows ? f[s * x_stride + j] : 0.0f;
                f = last[0];
                f_stride = 4;
            }
            float *target = y + (ptrdiff_t)i * y_stride;
            switch (count) {
            case 4: sum_block(row, n, f, f_stride, target, y_stride, type, 4); break;
            case 3: sum_block(row, n, f, f_stride, target, y_stride, type, 3); break;
            case 2: sum_block(row, n, f, f_stride, target, y_stride, type, 2); break;
            default: sum_block(row, n, f, f_stride, target, y_stride, type, 1); break;
            }
            i += count;
        }
    }
}

#define MATRIX_ROWS(name, type)                                                           \
    static void dot_rows_##name(const void *w, ptrdiff_t w_stride, size_t rows, size_t k, \
                                const float *x, size_t x_stride, size_t m, float *y,      \
                                ptrdiff_t y_stride) {                                     \
        dot_rows_any(w, w_stride, rows, k, x, x_stride, m, y, y_stride, type);            \
    }                                                                                     \
    static void sum_rows_##name(const void *w, ptrdiff_t w_stride, size_t rows, size_t n, \
                                const float *x, size_t x_stride, size_t m, float *y,      \
                                ptrdiff_t y_stride) {                                     \
        sum_rows_any(w, w_stride, rows, n, x, x_stride, m, y, y_stride, type);            \
    }
MATRIX_ROWS(f32, CPU_F32)
MATRIX_ROWS(f16, CPU_F16)
MATRIX_ROWS(bf16, CPU_BF16)

void VECTOR(cpu_fill_gemm)(Kernels *t) {
    t->mr = MR;
    t->nr = NR;
    t->half_mr = HALF_MR;
    t->tile = gemm_tile;
    t->half_tile = gemm_half_tile;
    t->pack_rows = pack_rows_run;
    t->pack_rows_bf16 = pack_rows_bf16;
    t->dot_rows[CPU_F32] = dot_rows_f32;
    t->dot_rows[CPU_F16] = dot_rows_f16;
    t->dot_rows[CPU_BF16] = dot_rows_bf16;
    t->sum_rows[CPU_F32] = sum_rows_f32;
    t->sum_rows[CPU_F16] = sum_rows_f16;
    t->sum_rows[CPU_BF16] = sum_rows_bf16;
}
