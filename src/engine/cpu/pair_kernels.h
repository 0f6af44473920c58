/* pair_kernels: the tile of the product of many rows with quantised weights, and
 * the packing of its panels; for every vector width. Included by pair_avx2.c,
 * pair_avx512.c, pair_avx512vnni.c and, of bfloat16, pair_avx512bf16.c.
 *
 * A panel holds nr columns; a step is one pair of neighbouring k:
 *
 *      b   [c0k0 c0k1 | c1k0 c1k1 | ..]    two vectors of 16-bit pairs
 *      a   [k0 k1 | k0 k1 | ..]            one row's pair, broadcast
 *      sum += a * b in pairs               per row: 2 dot products
 *
 * AVX2 keeps 6 x 16 sums in 12 registers; a dot product is a multiply and an
 * add, which run on different ports: 32 multiply-adds a cycle where float32
 * has 16. With VNNI, and of bfloat16, it is one instruction for 32. At the end of
 * a group the sums become floats: sum * a_scale * b_scale + b_bias * a_sum. */
#include "cpu/vector_words.h"

#include <string.h>

/* Sums of products, and what a group's are as numbers. */
#if defined(__AVX512BF16__)
#define PAIRS(name) name##_avx512bf16
#define KIND PAIRS_BF16
typedef V Sum;
static inline Sum sum_zero(void) {
    return v_set(0.0f);
}
static inline Sum dot(Sum sum, Vi a, Vi b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
static inline V sum_value(Sum sum, const float *scale) {
    (void)scale;
    return sum;
}
#else
#if defined(__AVX512VNNI__)
#define PAIRS(name) name##_avx512vnni
#elif defined(__AVX512F__)
#define PAIRS(name) name##_avx512
#else
#define PAIRS(name) name##_avx2
#endif
#define KIND PAIRS_INT16
typedef Vi Sum;
static inline Sum sum_zero(void) {
    return vi_set(0);
}
static inline Sum dot(Sum sum, Vi a, Vi b) {
    return vi_dot_pairs(sum, a, b);
}
static inline V sum_value(Sum sum, const float *scale) {
    return v_mul(v_float(sum), v_set(*scale));
}
#endif

#if defined(__AVX512F__)
#define REGISTER(x) "+v"(x)
#else
#define REGISTER(x) "+x"(x)
#endif
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5)
enum { ROWS = 6, COLUMNS = 2 * LANES };

static inline int32_t pair_at(const uint16_t *a, size_t p) {
    int32_t pair;
    memcpy(&pair, a + 2 * p, 4);
    return pair;
}

/* The sums are named one by one: no compiler keeps an array of this many in
 * registers reliably. The empty asm keeps row after row, because gathering the
 * products of all rows first would spill. */
#define ROW_BEGIN(i)                                                                   \
    const size_t row##i = i < t->rows ? i : t->rows - 1; /* the last again, past it */ \
    const uint16_t *a##i = t->a + row##i * t->a_row;                                   \
    const float *scales##i = t->a_scales + row##i * t->a_group_row;                    \
    const float *sums##i = t->a_sums + row##i * t->a_group_row;                        \
    float *c##i = t->c + (ptrdiff_t)row##i * t->c_row;                                 \
    V low_total##i = t->accumulate ? v_load(c##i) : v_set(0.0f);                       \
    V high_total##i = t->accumulate ? v_load(c##i + LANES) : v_set(0.0f);
#define ROW_ZERO(i) Sum low##i = sum_zero(), high##i = sum_zero();
#define ROW_STEP(i)                                        \
    {                                                      \
        Vi x = vi_set(pair_at(a##i, p));                   \
        low##i = dot(low##i, x, b0);                       \
        high##i = dot(high##i, x, b1);                     \
        __asm__("" : REGISTER(low##i), REGISTER(high##i)); \
    }
#define ROW_GROUP(i)                                                                 \
    {                                                                                \
        V all = v_set(sums##i[g]);                                                   \
        low_total##i = v_fma(sum_value(low##i, scales##i + g), s0, low_total##i);    \
        high_total##i = v_fma(sum_value(high##i, scales##i + g), s1, high_total##i); \
        low_total##i = v_fma(o0, all, low_total##i);                                 \
        high_total##i = v_fma(o1, all, high_total##i);                               \
    }
#define ROW_END(i)               \
    v_store(c##i, low_total##i); \
    v_store(c##i + LANES, high_total##i);

static void tile(const PairTile *t) {
    EACH_ROW(ROW_BEGIN)
    const size_t pairs = (size_t)t->group / 2;
    const uint16_t *b = t->b;
    for (size_t g = 0; g < t->groups; g++) {
        EACH_ROW(ROW_ZERO)
        for (size_t p = g * pairs; p < (g + 1) * pairs; p++, b += 2 * COLUMNS) {
            Vi b0 = vi_load(b), b1 = vi_load(b + COLUMNS);
            EACH_ROW(ROW_STEP)
        }
        const float *scale = t->b_scales + g * COLUMNS, *bias = t->b_biases + g * COLUMNS;
        V s0 = v_load(scale), s1 = v_load(scale + LANES);
        V o0 = v_load(bias), o1 = v_load(bias + LANES);
        EACH_ROW(ROW_GROUP)
    }
    EACH_ROW(ROW_END)
}

/* Codes 2j and 2j + 1 of each lane's word, which begins with them, as a pair. */
#if defined(__AVX512BF16__)
static inline __attribute__((always_inline)) __m256i code_pair(__m256i words, int bits) {
    if (bits == 4) { /* an index is the low four bits of its 16 */
        const __m256i numbers =
            _mm256_setr_epi16(0, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0, 0x4100,
                              0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170);
        const __m256i places = _mm256_blend_epi16(words, _mm256_slli_epi32(words, 12), 0xAA);
        return _mm256_permutexvar_epi16(places, numbers);
    }
    const __m256i byte = _mm256_set1_epi32(255);
    __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(words, byte));
    __m256 high = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(words, 8), byte));
    return _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(low), 16),
                           _mm256_castps_si256(high));
}
#else
static inline __attribute__((always_inline)) __m256i code_pair(__m256i words, int bits) {
    const __m256i low = _mm256_set1_epi32((1 << bits) - 1);
    const __m256i high = _mm256_set1_epi32(((1 << bits) - 1) << 16);
    return _mm256_or_si256(_mm256_and_si256(words, low),
                           _mm256_and_si256(_mm256_slli_epi32(words, 16 - bits), high));
}
#endif

static inline __attribute__((always_inline)) void pack_bits(const uint32_t *words, size_t row_words,
                                                            size_t rows, size_t count, size_t nr,
                                                            uint16_t *out, int bits) {
    const size_t have = count * (size_t)bits / 32, pairs_a_word = 16 / (size_t)bits;
    for (size_t first = 0; first < have; first += 8) {
        const size_t n = have - first < 8 ? have - first : 8;
        const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                                                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        __m256i r[8];
        for (size_t i = 0; i < 8; i++)
            r[i] = i < rows ? _mm256_maskload_epi32(
                                  (const int *)(const void *)(words + i * row_words + first), mask)
                            : _mm256_setzero_si256();
        transpose8(r);
        for (size_t i = 0; i < n; i++) {
            uint16_t *target = out + (first + i) * pairs_a_word * nr * 2;
            for (size_t j = 0; j < pairs_a_word; j++) {
                _mm256_storeu_si256((__m256i *)(void *)(target + j * nr * 2),
                                    code_pair(r[i], bits));
                r[i] = _mm256_srli_epi32(r[i], 2 * bits);
            }
        }
    }
}

static void pack(const uint32_t *words, size_t row_words, int bits, size_t rows, size_t count,
                 size_t nr, uint16_t *out) {
    if (bits == 4)
        pack_bits(words, row_words, rows, count, nr, out, 4);
    else
        pack_bits(words, row_words, rows, count, nr, out, 8);
}

void PAIRS(cpu_fill_pairs)(Kernels *t) {
    t->pairs[KIND] = (PairKernel){.mr = ROWS, .nr = COLUMNS, .tile = tile, .pack = pack};
}
