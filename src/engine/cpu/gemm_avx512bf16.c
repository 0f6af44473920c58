/* The tile of the bf16 product: panels hold pairs of neighbouring k, and one
 * instruction multiplies 16 pairs and adds both products to 16 float32 sums.
 *
 *   14 x 32 of C in 28 registers, 2 of B, 1 broadcast pair of A: 28 dot
 *   products of 32 multiply-adds a step against 16 loads. The instruction
 *   issues once a cycle on the cores that have it: 32 multiply-adds a cycle
 *   and lane-for-lane twice the float32 rate. */
#include "cpu/vector.h"

enum { MR = 14, NR = 2 * LANES, HALF_MR = MR / 2 + 1 };

/* An item is a pair; a panel vector 16 of them. */
typedef int32_t Item;
typedef __m512bh Panel;
static inline Panel panel_load(const Item *p) {
    return (__m512bh)_mm512_loadu_si512(p);
}
static inline Panel panel_all(Item x) {
    return (__m512bh)_mm512_set1_epi32(x);
}
static inline V panel_fma(Panel x, Panel b, V sums) {
    return _mm512_dpbf16_ps(sums, x, b);
}
#include "cpu/gemm_tile.h"

void cpu_fill_gemm_avx512bf16(Kernels *t) {
    t->bf16_mr = MR;
    t->bf16_nr = NR;
    t->bf16_half_mr = HALF_MR;
    t->bf16_tile = gemm_tile;
    t->bf16_half_tile = gemm_half_tile;
}
