/* The tile of the split product (gemm_split.c) on AMX, and the packing of its
 * panels. A number is a sum of bf16 parts, eight bits of it each; the matrix
 * unit multiplies parts exactly and adds the products in float32.
 *
 * Panels hold blocks of 32 k, in each the parts one after the other:
 *
 *   A [32 rows][32 k]         two tiles of 16 rows
 *   B [16 pairs][32 columns][2 k]   two tiles of 16 columns
 *
 * Four tiles of C, two of A and two of B are all eight: each product of parts
 * is 4 loads and 4 multiplications of 16 x 16 x 32, which take twice as long. */
#include "cpu/split_amx.h"

enum { WIDTH = SPLIT_WIDTH, DEPTH = SPLIT_DEPTH, PART = WIDTH * DEPTH };

/* ---- tiles of this thread ---------------------------------------------------- */

#define EIGHT(x) x, x, x, x, x, x, x, x

static void begin_tiles(void) {
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1, .row_bytes = {EIGHT(64)}, .rows = {EIGHT(16)}};
    _tile_loadconfig(&shape);
}

static void end_tiles(void) {
    _tile_release();
}

/* Products of parts i and j are as small as part i + j: those below a third part
 * are left out. */
static inline __attribute__((always_inline)) void multiply(size_t blocks, const uint16_t *a,
                                                           const uint16_t *b, float *c,
                                                           ptrdiff_t c_row, bool accumulate,
                                                           int a_parts, int b_parts) {
    const ptrdiff_t stride = c_row * 4, half = WIDTH / 2;
    if (accumulate) {
        _tile_loadd(0, c, stride);
        _tile_loadd(1, c + half, stride);
        _tile_loadd(2, c + half * c_row, stride);
        _tile_loadd(3, c + half * c_row + half, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t block = 0; block < blocks; block++, a += a_parts * PART, b += b_parts * PART) {
        for (int i = 0; i < a_parts; i++) {
            _tile_loadd(4, a + i * PART, DEPTH * 2);
            _tile_loadd(5, a + i * PART + half * DEPTH, DEPTH * 2);
            for (int j = 0; j < b_parts && i + j < 3; j++) {
                _tile_loadd(6, b + j * PART, WIDTH * 4);
                _tile_loadd(7, b + j * PART + WIDTH, WIDTH * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, c, stride);
    _tile_stored(1, c + half, stride);
    _tile_stored(2, c + half * c_row, stride);
    _tile_stored(3, c + half * c_row + half, stride);
}

#define TILE(a_parts, b_parts)                                                                 \
    static void tile_##a_parts##b_parts(size_t blocks, const void *a, const void *b, float *c, \
                                        ptrdiff_t c_row, bool accumulate) {                    \
        multiply(blocks, a, b, c, c_row, accumulate, a_parts, b_parts);                        \
    }
TILE(1, 1)
TILE(1, 2)
TILE(1, 3)
TILE(2, 1)
TILE(2, 2)
TILE(2, 3)
TILE(3, 1)
TILE(3, 2)
TILE(3, 3)

/* ---- parts -------------------------------------------------------------------- */

/* The upper 16 bits of x, to nearest, as a float. What is left of it goes to the
 * next part, so ties may go either way. */
static inline __m512i top_part(__m512 x) {
    const __m512i rounded = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    return _mm512_and_si512(rounded, _mm512_set1_epi32((int)0xFFFF0000));
}

static inline __m512 rest(__m512 x, __m512i part) {
    return _mm512_sub_ps(x, _mm512_castsi512_ps(part));
}

/* Lanes that are not finite or whose first part would not be. */
static inline __mmask16 beyond_parts(__m512 x) {
    const __m512i magnitude =
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7FFFFFFF));
    return _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7F000000));
}

/* ---- from rows: k contiguous ---------------------------------------------------- */

/* `have` items (at most 32) of a row: each part's 16 pairs, zero past them. */
static inline __mmask16 row_pairs(const char *at, CpuType type, size_t have, int parts,
                                  __m512i out[3]) {
    const __mmask32 all = have < 32 ? (1u << have) - 1 : ~0u;
    const __mmask16 low = (__mmask16)all, high = (__mmask16)(all >> 16);
    if (type == CPU_BF16) {
        out[0] = _mm512_maskz_loadu_epi16(all, at);
        const __m512i magnitude = _mm512_and_si512(out[0], _mm512_set1_epi16(0x7FFF));
        return _mm512_cmpgt_epi16_mask(magnitude, _mm512_set1_epi16(0x7F00)) != 0;
    }
    __m512 x, y;
    if (type == CPU_F16) {
        const __m512i halves = _mm512_maskz_loadu_epi16(all, at);
        x = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
        y = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
    } else {
        x = _mm512_maskz_loadu_ps(low, at);
        y = _mm512_maskz_loadu_ps(high, at + 64);
    }
    const __m512i upper_words =
        _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    const __mmask16 beyond = beyond_parts(x) | beyond_parts(y);
    for (int part = 0; part < parts; part++) {
        const __m512i a = top_part(x), b = top_part(y);
        out[part] = _mm512_permutex2var_epi16(a, upper_words, b);
        x = rest(x, a);
        y = rest(y, b);
    }
    return beyond;
}

static inline __attribute__((always_inline)) bool a_from_rows(const char *in, ptrdiff_t stride,
                                                              CpuType type, size_t count, size_t k,
                                                              int parts, uint16_t *out) {
    __mmask16 beyond = 0;
    for (size_t first = 0; first < k; first += DEPTH, out += parts * PART) {
        const size_t have = k - first < DEPTH ? k - first : DEPTH;
        for (size_t row = 0; row < WIDTH; row++) {
            __m512i pairs[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(),
                                _mm512_setzero_si512()};
            if (row < count)
                beyond |= row_pairs(in + (ptrdiff_t)row * stride + first * cpu_type_size(type),
                                    type, have, parts, pairs);
            for (int part = 0; part < parts; part++)
                _mm512_storeu_si512(out + (size_t)part * PART + row * DEPTH, pairs[part]);
        }
    }
    return !beyond;
}

static inline __attribute__((always_inline)) bool b_from_rows(const char *in, ptrdiff_t stride,
                                                              CpuType type, size_t count, size_t k,
                                                              int parts, uint16_t *out) {
    uint32_t turned[3][16][16] __attribute__((aligned(64)));
    __mmask16 beyond = 0;
    for (size_t first = 0; first < k; first += DEPTH, out += parts * PART) {
        const size_t have = k - first < DEPTH ? k - first : DEPTH;
        for (size_t half = 0; half < WIDTH; half += 16) {
            for (size_t i = 0; i < 16; i++) {
                const size_t row = half + i;
                __m512i pairs[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(),
                                    _mm512_setzero_si512()};
                if (row < count)
                    beyond |= row_pairs(in + (ptrdiff_t)row * stride + first * cpu_type_size(type),
                                        type, have, parts, pairs);
                for (int part = 0; part < parts; part++)
                    _mm512_store_si512(turned[part][i], pairs[part]);
            }
            for (int part = 0; part < parts; part++)
                transpose16(turned[part][0], 16,
                            (uint32_t *)(void *)out + (size_t)part * PART / 2 + half, WIDTH);
        }
    }
    return !beyond;
}

/* ---- from lines: columns contiguous ------------------------------------------------ */

/* One block of at most DEPTH lines: out [parts][DEPTH / 2 pairs][WIDTH][2]. */
static inline __attribute__((always_inline)) __mmask16 b_block(const char *in, ptrdiff_t stride,
                                                               CpuType type, size_t count,
                                                               size_t lines, int parts,
                                                               uint16_t *out) {
    const size_t size = cpu_type_size(type);
    __mmask16 beyond = 0;
    for (size_t half = 0; half < WIDTH; half += 16) {
        const size_t have = count < half ? 0 : count - half < 16 ? count - half : 16;
        const __mmask16 mask = (__mmask16)((1u << have) - 1);
        for (size_t line = 0; line < DEPTH; line += 2) {
            const char *at = in + (ptrdiff_t)line * stride + half * size;
            __m512 x = items16(at, type, line < lines ? mask : 0);
            __m512 y = items16(at + stride, type, line + 1 < lines ? mask : 0);
            beyond |= beyond_parts(x) | beyond_parts(y);
            for (int part = 0; part < parts; part++) {
                const __m512i a = top_part(x), b = top_part(y);
                _mm512_storeu_si512(out + (size_t)part * PART + line * WIDTH + half * 2,
                                    _mm512_or_si512(b, _mm512_srli_epi32(a, 16)));
                x = rest(x, a);
                y = rest(y, b);
            }
        }
    }
    return beyond;
}

static inline __attribute__((always_inline)) bool b_from_lines(const char *in, ptrdiff_t stride,
                                                               CpuType type, size_t count, size_t k,
                                                               int parts, uint16_t *out) {
    __mmask16 beyond = 0;
    for (size_t first = 0; first < k; first += DEPTH, out += parts * PART)
        beyond |=
            b_block(in + (ptrdiff_t)first * stride, stride, type, count, k - first, parts, out);
    return !beyond;
}

/* B's pairs, turned. */
static inline __attribute__((always_inline)) bool a_from_lines(const char *in, ptrdiff_t stride,
                                                               CpuType type, size_t count, size_t k,
                                                               int parts, uint16_t *out) {
    uint32_t pairs[3 * PART / 2] __attribute__((aligned(64)));
    __mmask16 beyond = 0;
    for (size_t first = 0; first < k; first += DEPTH) {
        beyond |= b_block(in + (ptrdiff_t)first * stride, stride, type, count, k - first, parts,
                          (uint16_t *)(void *)pairs);
        for (int part = 0; part < parts; part++, out += PART)
            for (size_t row = 0; row < WIDTH; row += 16)
                transpose16(pairs + (size_t)part * PART / 2 + row, WIDTH,
                            (uint32_t *)(void *)out + row * DEPTH / 2, DEPTH / 2);
    }
    return !beyond;
}

#define PACKERS(side, from)                                                                      \
    static bool side##_##from(const void *in, ptrdiff_t stride, CpuType type, size_t count,      \
                              size_t k, int parts, uint16_t *out) {                              \
        if (type == CPU_BF16) return side##_from_##from(in, stride, CPU_BF16, count, k, 1, out); \
        if (type == CPU_F16) return side##_from_##from(in, stride, CPU_F16, count, k, 2, out);   \
        if (parts == 1) return side##_from_##from(in, stride, CPU_F32, count, k, 1, out);        \
        if (parts == 2) return side##_from_##from(in, stride, CPU_F32, count, k, 2, out);        \
        return side##_from_##from(in, stride, CPU_F32, count, k, 3, out);                        \
    }
PACKERS(a, rows)
PACKERS(b, rows)
PACKERS(a, lines)
PACKERS(b, lines)

void cpu_fill_split_amx(Kernels *t) {
    static const GemmTile tiles[3][3] = {
        {tile_11, tile_12, tile_13}, {tile_21, tile_22, tile_23}, {tile_31, tile_32, tile_33}};
    memcpy(t->split_tile, tiles, sizeof tiles);
    t->split_begin = begin_tiles;
    t->split_end = end_tiles;
    t->split_rows[0] = a_rows;
    t->split_rows[1] = b_rows;
    t->split_lines[0] = a_lines;
    t->split_lines[1] = b_lines;
}
