/* The trusted tile of the blocked product and the packing of its panels. A
 * compiler turns the fixed loops into what vectors the target has. */
#include "cpu/table.h"

#include <string.h>

enum { MR = 4, NR = 8 };

static void gemm_tile(size_t k, const void *a_panel, const void *b_panel, float *c, ptrdiff_t c_row,
                      bool accumulate) {
    const float *a = a_panel, *b = b_panel;
    float acc[MR][NR] = {{0}};
    for (size_t p = 0; p < k; p++, a += MR, b += NR)
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NR; j++) acc[i][j] += a[i] * b[j];
    for (int i = 0; i < MR; i++)
        for (int j = 0; j < NR; j++) {
            float *target = c + i * c_row + j;
            *target = accumulate ? *target + acc[i][j] : acc[i][j];
        }
}

static void pack_rows(float *out, size_t width, const void *in, ptrdiff_t stride_bytes, size_t rows,
                      size_t k) {
    for (size_t i = 0; i < width; i++)
        for (size_t p = 0; p < k; p++) {
            float item = 0;
            if (i < rows) memcpy(&item, (const char *)in + (ptrdiff_t)i * stride_bytes + p * 4, 4);
            out[p * width + i] = item;
        }
}

void cpu_fill_gemm_scalar(Kernels *t) {
    t->mr = MR;
    t->nr = NR;
    t->tile = gemm_tile;
    t->pack_rows = pack_rows;
}
