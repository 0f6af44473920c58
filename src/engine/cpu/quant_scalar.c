/* The trusted twins of the quantised kernels, straight from the definition
 * w = q * scale + bias. */
#include "cpu/table.h"
#include "cpu/unpack.h"

#include <math.h>

static void quant_gemv(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                       ptrdiff_t y_stride) {
    size_t row_words = w->cols * (size_t)w->bits / 32, group = (size_t)w->group;
    for (size_t r = begin; r < end; r++)
        for (size_t i = 0; i < x->m; i++) {
            const uint32_t *row = w->words + r * row_words;
            const float *xi = x->f32 + i * x->k;
            float total = 0;
            for (size_t j = 0; j < x->k; j++) {
                size_t at = r * x->groups + j / group;
                total += ((float)cpu_unpack(row, w->bits, j) * cpu_load(w->scales, w->type, at) +
                          cpu_load(w->biases, w->type, at)) *
                         xi[j];
            }
            y[(ptrdiff_t)i * y_stride + (ptrdiff_t)r] = total;
        }
}

static void dequant(const uint32_t *row, int bits, size_t first, size_t count, int group,
                    const float *scales, const float *biases, float *out) {
    for (size_t i = 0; i < count; i++) {
        size_t g = (first + i) / (size_t)group;
        out[i] = (float)cpu_unpack(row, bits, first + i) * scales[g] + biases[g];
    }
}

void cpu_fill_quant_scalar(Kernels *t) {
    for (int bits = 0; bits <= 8; bits++) t->quant_gemv[bits] = quant_gemv;
    t->dequant[CPU_AFFINE] = dequant;
}
