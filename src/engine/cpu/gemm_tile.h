/* gemm_tile: the tile of the blocked product for panels of any item, and that of half
 * its rows. Before it come the vectors (vector.h), MR, NR and HALF_MR, and
 *
 *   Item, Panel                   an item of a panel, LANES of them
 *   panel_load(p), panel_all(x)   from memory; one item throughout
 *   panel_fma(x, b, sums)         sums + x * b, lane by lane, in float32 */

/* The first `rows` of a tile. The loops are unrolled early, before the sums get a place. */
static inline __attribute__((always_inline)) void tile_rows(size_t k, const void *a_panel,
                                                            const void *b_panel, float *c,
                                                            ptrdiff_t c_row, bool accumulate,
                                                            int rows) {
    const Item *a = a_panel, *b = b_panel;
    V acc[MR][2];
#pragma GCC unroll MR
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = v_set(0.0f);
#pragma GCC unroll MR
    for (int i = 0; i < rows; i++) __builtin_prefetch(c + i * c_row, 1);
    for (size_t p = 0; p < k; p++, a += MR, b += NR) {
        Panel b0 = panel_load(b), b1 = panel_load(b + LANES);
#pragma GCC unroll MR
        for (int i = 0; i < rows; i++) {
            Panel x = panel_all(a[i]);
            acc[i][0] = panel_fma(x, b0, acc[i][0]);
            acc[i][1] = panel_fma(x, b1, acc[i][1]);
        }
    }
#pragma GCC unroll MR
    for (int i = 0; i < rows; i++, c += c_row) {
        if (accumulate) {
            acc[i][0] = v_add(acc[i][0], v_load(c));
            acc[i][1] = v_add(acc[i][1], v_load(c + LANES));
        }
        v_store(c, acc[i][0]);
        v_store(c + LANES, acc[i][1]);
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
