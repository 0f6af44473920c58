/* The tile of the bf16 product: panels hold pairs of neighbouring k, and one
 * instruction multiplies 16 pairs and adds both products to 16 float32 sums.
 *
 *   14 x 32 of C in 28 registers, 2 of B, 1 broadcast pair of A: 28 dot
 *   products of 32 multiply-adds a step against 16 loads. The instruction
 *   issues once a cycle on the cores that have it: 32 multiply-adds a cycle
 *   and lane-for-lane twice the float32 rate. */
#include "cpu/table.h"

#include <immintrin.h>
#include <string.h>

enum { MR = 14, NR = 32, HALF_MR = 8 };

/* The first `rows` of it. The loops are unrolled early, before the sums get a place. */
static inline __attribute__((always_inline)) void tile_rows(size_t k, const void *a_panel,
                                                            const void *b_panel, float *c,
                                                            ptrdiff_t c_row, bool accumulate,
                                                            int rows) {
    const int32_t *a = a_panel, *b = b_panel;
    __m512 acc[MR][2];
#pragma GCC unroll MR
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = _mm512_setzero_ps();
    for (size_t p = 0; p < k; p++, a += MR, b += NR) {
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll MR
        for (int i = 0; i < rows; i++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32(a[i]);
            acc[i][0] = _mm512_dpbf16_ps(acc[i][0], x, b0);
            acc[i][1] = _mm512_dpbf16_ps(acc[i][1], x, b1);
        }
    }
#pragma GCC unroll MR
    for (int i = 0; i < rows; i++, c += c_row) {
        if (accumulate) {
            acc[i][0] = _mm512_add_ps(acc[i][0], _mm512_loadu_ps(c));
            acc[i][1] = _mm512_add_ps(acc[i][1], _mm512_loadu_ps(c + 16));
        }
        _mm512_storeu_ps(c, acc[i][0]);
        _mm512_storeu_ps(c + 16, acc[i][1]);
    }
}

static void gemm_tile(size_t k, const void *a, const void *b, float *c, ptrdiff_t c_row,
                      bool accumulate) {
    tile_rows(k, a, b, c, c_row, accumulate, MR);
}

static void gemm_half_tile(size_t k, const void *a, const void *b, float *c, ptrdiff_t c_row,
                           bool accumulate) {
    tile_rows(k, a, b, c, c_row, accumulate, HALF_MR);
}

void cpu_fill_gemm_avx512bf16(Kernels *t) {
    t->bf16_mr = MR;
    t->bf16_nr = NR;
    t->bf16_half_mr = HALF_MR;
    t->bf16_tile = gemm_tile;
    t->bf16_half_tile = gemm_half_tile;
}
