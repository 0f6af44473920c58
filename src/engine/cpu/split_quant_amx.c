/* The tile of quantised weights on AMX. Codes are whole numbers of at most eight
 * bits, so one bf16 part holds each exactly; a group's product of activations and
 * codes comes out of the matrix unit and meets its scale and bias in float32:
 *
 *   C[row, column] += scale[column] * sum of x * code + bias[column] * sum of x
 *
 * A group of 32 k and one part keeps the matrix unit busy for 64 cycles; storing
 * its four tiles and adding them to C takes 128 stores. The sums of one group are
 * added while the unit works on the next. */
#include "cpu/split_amx.h"

enum { WIDTH = SPLIT_WIDTH, DEPTH = SPLIT_DEPTH, PART = WIDTH * DEPTH };

typedef float Square[WIDTH][WIDTH];

/* scales: [2][WIDTH], scales and biases of the columns; sums: of the rows. */
static inline void add_group(Square products, const float *sums, const float *scales, float *c,
                             ptrdiff_t c_row) {
    const __m512 scale0 = _mm512_loadu_ps(scales), scale1 = _mm512_loadu_ps(scales + 16);
    const __m512 bias0 = _mm512_loadu_ps(scales + WIDTH);
    const __m512 bias1 = _mm512_loadu_ps(scales + WIDTH + 16);
    for (ptrdiff_t row = 0; row < WIDTH; row++) {
        float *at = c + row * c_row;
        const __m512 sum = _mm512_set1_ps(sums[row]);
        const __m512 c0 = _mm512_fmadd_ps(bias0, sum, _mm512_loadu_ps(at));
        const __m512 c1 = _mm512_fmadd_ps(bias1, sum, _mm512_loadu_ps(at + 16));
        _mm512_storeu_ps(at, _mm512_fmadd_ps(scale0, _mm512_load_ps(products[row]), c0));
        _mm512_storeu_ps(at + 16, _mm512_fmadd_ps(scale1, _mm512_load_ps(products[row] + 16), c1));
    }
}

static inline __attribute__((always_inline)) void multiply(const SplitGroups *t, int parts) {
    Square products[2] __attribute__((aligned(64)));
    const uint16_t *a = t->a, *b = t->b;
    for (size_t group = 0; group < t->groups; group++) {
        float *out = products[group % 2][0];
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (size_t block = 0; block < t->group_blocks; block++, a += parts * PART, b += PART) {
            _tile_loadd(6, b, WIDTH * 4);
            _tile_loadd(7, b + WIDTH, WIDTH * 4);
            for (int i = 0; i < parts; i++) {
                _tile_loadd(4, a + i * PART, DEPTH * 2);
                _tile_loadd(5, a + i * PART + WIDTH / 2 * DEPTH, DEPTH * 2);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        if (group)
            add_group(products[(group - 1) % 2], t->a_sums + (group - 1) * WIDTH,
                      t->b_scales + (group - 1) * 2 * WIDTH, t->c, t->c_row);
        _tile_stored(0, out, WIDTH * 4);
        _tile_stored(1, out + 16, WIDTH * 4);
        _tile_stored(2, out + 16 * WIDTH, WIDTH * 4);
        _tile_stored(3, out + 16 * WIDTH + 16, WIDTH * 4);
    }
    const size_t last = t->groups - 1;
    add_group(products[last % 2], t->a_sums + last * WIDTH, t->b_scales + last * 2 * WIDTH, t->c,
              t->c_row);
}

static void groups_1(const SplitGroups *tile) {
    multiply(tile, 1);
}

static void groups_2(const SplitGroups *tile) {
    multiply(tile, 2);
}

static void groups_3(const SplitGroups *tile) {
    multiply(tile, 3);
}

/* Sums of the rows of a panel of A over groups of blocks: out [groups][WIDTH]. */
static void sum_groups(const uint16_t *panel, size_t groups, size_t group_blocks, int parts,
                       float *out) {
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000);
    const size_t pieces = group_blocks * (size_t)parts;
    for (size_t group = 0; group < groups; group++, panel += pieces * PART, out += WIDTH) {
        for (size_t row = 0; row < WIDTH; row++) {
            __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
            for (size_t i = 0; i < pieces; i++) {
                const __m512i pairs = _mm512_loadu_si512(panel + i * PART + row * DEPTH);
                even = _mm512_add_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)));
                odd = _mm512_add_ps(odd, _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)));
            }
            out[row] = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
        }
    }
}

/* ---- codes ---------------------------------------------------------------------- */

/* Two codes of each word at bit `at`, less their middle, as bf16 pairs. */
static inline __m512i pairs_of_4(__m512i words, int at, __m512i values) {
    const __m512i low = _mm512_srl_epi32(words, _mm_cvtsi32_si128(at));
    const __m512i high = at < 12 ? _mm512_sll_epi32(words, _mm_cvtsi32_si128(12 - at))
                                 : _mm512_srl_epi32(words, _mm_cvtsi32_si128(at - 12));
    return _mm512_permutexvar_epi16(_mm512_mask_mov_epi16(low, 0xAAAAAAAA, high), values);
}

static inline __m512i pairs_of_8(__m512i words, int at) {
    const __m512i byte = _mm512_set1_epi32(0xFF), middle = _mm512_set1_epi32(128);
    const __m512i low = _mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128(at)), byte);
    const __m512i high = _mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128(at + 8)), byte);
    const __m512 x = _mm512_cvtepi32_ps(_mm512_sub_epi32(low, middle));
    const __m512 y = _mm512_cvtepi32_ps(_mm512_sub_epi32(high, middle));
    return _mm512_mask_mov_epi16(_mm512_srli_epi32(_mm512_castps_si512(x), 16), 0xAAAAAAAA,
                                 _mm512_castps_si512(y));
}

/* -8..7 as bf16, twice: an index has five bits, of which the last is anything. */
static __m512i values_of_4(void) {
    uint16_t values[32] __attribute__((aligned(64)));
    for (int i = 0; i < 32; i++) {
        const float value = (float)(i % 16 - 8);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        values[i] = (uint16_t)(bits >> 16);
    }
    return _mm512_load_si512(values);
}

/* 16 words of 16 rows at a time: turned, a vector holds the same word of all. */
static inline __attribute__((always_inline)) void
unpack(const uint32_t *words, size_t row_words, size_t count, size_t k, int bits, uint16_t *out) {
    enum { WORDS = 16 };
    const size_t row_items = k * (size_t)bits / 32, word_pairs = 16 / (size_t)bits;
    const __m512i values = values_of_4();
    for (size_t half = 0; half < WIDTH; half += 16)
        for (size_t first = 0; first < row_items; first += WORDS) {
            uint32_t lines[16][WORDS] __attribute__((aligned(64)));
            uint32_t turned[WORDS][16] __attribute__((aligned(64)));
            const size_t have = row_items - first < WORDS ? row_items - first : WORDS;
            const __mmask16 mask = (__mmask16)((1u << have) - 1);
            for (size_t i = 0; i < 16; i++) {
                const __mmask16 rows = half + i < count ? mask : 0;
                _mm512_store_si512(lines[i], _mm512_maskz_loadu_epi32(
                                                 rows, words + (half + i) * row_words + first));
            }
            transpose16(lines[0], WORDS, turned[0], 16);
            for (size_t word = 0; word < have; word++) {
                const __m512i v = _mm512_load_si512(turned[word]);
                const size_t pair = (first + word) * word_pairs;
                uint16_t *to = out + pair / 16 * PART + (pair % 16 * WIDTH + half) * 2;
                for (size_t i = 0; i < word_pairs; i++)
                    _mm512_storeu_si512(to + i * WIDTH * 2, bits == 4
                                                                ? pairs_of_4(v, (int)i * 8, values)
                                                                : pairs_of_8(v, (int)i * 16));
            }
        }
}

static void codes_4(const uint32_t *words, size_t row_words, size_t count, size_t k,
                    uint16_t *out) {
    unpack(words, row_words, count, k, 4, out);
}

static void codes_8(const uint32_t *words, size_t row_words, size_t count, size_t k,
                    uint16_t *out) {
    unpack(words, row_words, count, k, 8, out);
}

/* ---- scales and biases ------------------------------------------------------------ */

/* `groups` (at most 16) of each of 16 rows, row_groups apart, turned: a vector
 * holds those of one group. */
static inline void turn_groups(const char *in, CpuType type, size_t row_groups, size_t rows,
                               size_t groups, float turned[16][16]) {
    float lines[16][16] __attribute__((aligned(64)));
    const size_t row_bytes = row_groups * cpu_type_size(type);
    const __mmask16 mask = (__mmask16)((1u << groups) - 1);
    for (size_t i = 0; i < 16; i++, in += row_bytes)
        _mm512_store_ps(lines[i], items16(in, type, i < rows ? mask : 0));
    transpose16((const uint32_t *)(const void *)lines, 16, (uint32_t *)(void *)turned, 16);
}

static void affine_scales(const CpuQuant *q, size_t first, size_t count, size_t group,
                          size_t groups, float middle, float *out) {
    float scales[16][16] __attribute__((aligned(64))), biases[16][16] __attribute__((aligned(64)));
    const size_t row_groups = q->cols / (size_t)q->group, size = cpu_type_size(q->type);
    for (size_t half = 0; half < WIDTH; half += 16, out += 16) {
        const size_t at = ((first + half) * row_groups + group) * size;
        const size_t rows = count < half ? 0 : count - half;
        turn_groups((const char *)q->scales + at, q->type, row_groups, rows, groups, scales);
        turn_groups((const char *)q->biases + at, q->type, row_groups, rows, groups, biases);
        for (size_t g = 0; g < groups; g++) {
            const __m512 scale = _mm512_load_ps(scales[g]), bias = _mm512_load_ps(biases[g]);
            _mm512_storeu_ps(out + 2 * g * WIDTH, scale);
            _mm512_storeu_ps(out + (2 * g + 1) * WIDTH,
                             _mm512_fmadd_ps(_mm512_set1_ps(middle), scale, bias));
        }
    }
}

void cpu_fill_split_quant_amx(Kernels *t) {
    t->split_groups[0] = groups_1;
    t->split_groups[1] = groups_2;
    t->split_groups[2] = groups_3;
    t->split_sums = sum_groups;
    t->split_scales = affine_scales;
    t->split_codes[0] = codes_4;
    t->split_codes[1] = codes_8;
}
