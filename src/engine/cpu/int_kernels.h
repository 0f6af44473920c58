/* int_kernels: the tile of the product of 16-bit activations and 4- or 8-bit
 * weights for many rows, and the packing of its panels; for every vector
 * width. Included by int_avx2.c, int_avx512.c and int_avx512vnni.c.
 *
 * A panel holds nr columns; a step is one pair of neighbouring k:
 *
 *      b   [c0k0 c0k1 | c1k0 c1k1 | ..]    two vectors of 16-bit pairs
 *      a   [k0 k1 | k0 k1 | ..]            one row's pair, broadcast
 *      sum += a * b in pairs               per row: 2 dot products
 *
 * AVX2 keeps 6 x 16 sums in 12 registers; a dot product is a multiply and an
 * add, which run on different ports: 32 multiply-adds a cycle where float32
 * has 16. With VNNI it is one instruction for 32. At the end of a group the
 * sums become floats: sum * a_scale * b_scale + b_bias * a_sum. */
#include "cpu/vector.h"

#include <string.h>

#if defined(__AVX512F__)
#if defined(__AVX512VNNI__)
#define INT(name) name##_avx512vnni
#define DOT(sum, a, b) _mm512_dpwssd_epi32(sum, a, b)
#else
#define INT(name) name##_avx512
#define DOT(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
#endif
typedef __m512i Iv;
#define REGISTER(x) "+v"(x)
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
enum { ROWS = 12 };
static inline Iv iv_load(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline Iv iv_set(int32_t x) {
    return _mm512_set1_epi32(x);
}
static inline Iv iv_zero(void) {
    return _mm512_setzero_si512();
}
static inline V iv_float(Iv x) {
    return _mm512_cvtepi32_ps(x);
}
#else
#define INT(name) name##_avx2
#define DOT(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
typedef __m256i Iv;
#define REGISTER(x) "+x"(x)
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5)
enum { ROWS = 6 };
static inline Iv iv_load(const void *p) {
    return _mm256_loadu_si256(p);
}
static inline Iv iv_set(int32_t x) {
    return _mm256_set1_epi32(x);
}
static inline Iv iv_zero(void) {
    return _mm256_setzero_si256();
}
static inline V iv_float(Iv x) {
    return _mm256_cvtepi32_ps(x);
}
#endif
enum { COLUMNS = 2 * LANES };

static inline int32_t pair_at(const int16_t *a, size_t p) {
    int32_t pair;
    memcpy(&pair, a + 2 * p, 4);
    return pair;
}

/* The sums are named one by one: no compiler keeps an array of this many in
 * registers reliably. The empty asm keeps row after row, because gathering the
 * products of all rows first would spill. */
#define ROW_ZERO(i) Iv low##i = iv_zero(), high##i = iv_zero();
#define ROW_STEP(i)                                        \
    {                                                      \
        Iv x = iv_set(pair_at(a[i], p));                   \
        low##i = DOT(low##i, x, b0);                       \
        high##i = DOT(high##i, x, b1);                     \
        __asm__("" : REGISTER(low##i), REGISTER(high##i)); \
    }
#define ROW_KEEP(i) sum[i][0] = low##i, sum[i][1] = high##i;

static void int_tile(const IntTile *t) {
    const int16_t *a[ROWS];
    const float *a_scales[ROWS], *a_sums[ROWS];
    V total[ROWS][2];
    for (size_t i = 0; i < ROWS; i++) {
        size_t row = i < t->rows ? i : t->rows - 1; /* rows past the end repeat the last */
        a[i] = t->a + row * t->a_row;
        a_scales[i] = t->a_scales + row * t->a_group_row;
        a_sums[i] = t->a_sums + row * t->a_group_row;
        const float *c = t->c + (ptrdiff_t)row * t->c_row;
        total[i][0] = t->accumulate ? v_load(c) : v_set(0.0f);
        total[i][1] = t->accumulate ? v_load(c + LANES) : v_set(0.0f);
    }
    size_t pairs = (size_t)t->group / 2;
    const int16_t *b = t->b;
    for (size_t g = 0; g < t->groups; g++) {
        EACH_ROW(ROW_ZERO)
        for (size_t p = g * pairs; p < (g + 1) * pairs; p++, b += 2 * COLUMNS) {
            Iv b0 = iv_load(b), b1 = iv_load(b + COLUMNS);
            EACH_ROW(ROW_STEP)
        }
        Iv sum[ROWS][2];
        EACH_ROW(ROW_KEEP)
        const float *scale = t->b_scales + g * COLUMNS, *bias = t->b_biases + g * COLUMNS;
        V s0 = v_load(scale), s1 = v_load(scale + LANES);
        V o0 = v_load(bias), o1 = v_load(bias + LANES);
        for (int i = 0; i < ROWS; i++) {
            V x = v_set(a_scales[i][g]), all = v_set(a_sums[i][g]);
            V y0 = v_mul(iv_float(sum[i][0]), x), y1 = v_mul(iv_float(sum[i][1]), x);
            total[i][0] = v_fma(o0, all, v_fma(y0, s0, total[i][0]));
            total[i][1] = v_fma(o1, all, v_fma(y1, s1, total[i][1]));
        }
    }
    for (size_t i = 0; i < t->rows; i++) {
        v_store(t->c + (ptrdiff_t)i * t->c_row, total[i][0]);
        v_store(t->c + (ptrdiff_t)i * t->c_row + LANES, total[i][1]);
    }
}

/* 8 rows of 8 words become 8 vectors, one word of every row each. */
static inline void transpose_words(__m256i r[8]) {
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

static void int_pack(const uint32_t *words, size_t row_words, int bits, size_t rows, size_t count,
                     size_t nr, int16_t *out) {
    size_t have = count * (size_t)bits / 32, pairs_a_word = 16 / (size_t)bits;
    __m256i low = _mm256_set1_epi32((1 << bits) - 1);
    __m256i high = _mm256_set1_epi32(((1 << bits) - 1) << 16);
    for (size_t first = 0; first < have; first += 8) {
        size_t n = have - first < 8 ? have - first : 8;
        __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                                          _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        __m256i r[8];
        for (size_t i = 0; i < 8; i++)
            r[i] = i < rows ? _mm256_maskload_epi32(
                                  (const int *)(const void *)(words + i * row_words + first), mask)
                            : _mm256_setzero_si256();
        transpose_words(r);
        for (size_t i = 0; i < n; i++) {
            int16_t *target = out + (first + i) * pairs_a_word * nr * 2;
            for (size_t j = 0; j < pairs_a_word; j++) {
                __m256i pair =
                    _mm256_or_si256(_mm256_and_si256(r[i], low),
                                    _mm256_and_si256(_mm256_slli_epi32(r[i], 16 - bits), high));
                _mm256_storeu_si256((__m256i *)(void *)(target + j * nr * 2), pair);
                r[i] = _mm256_srli_epi32(r[i], 2 * bits);
            }
        }
    }
}

void INT(cpu_fill_int)(Kernels *t) {
    t->int_mr = ROWS;
    t->int_nr = COLUMNS;
    t->int_tile = int_tile;
    t->int_pack = int_pack;
}
