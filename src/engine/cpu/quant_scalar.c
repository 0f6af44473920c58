/* The trusted twins of the quantised kernels, straight from the definition
 * w = q * scale + bias. */
#include "cpu/table.h"
#include "cpu/unpack.h"

#include <math.h>
#include <string.h>

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

static void pack(const float *w, size_t groups, int group, int bits, uint32_t *words, float *scales,
                 float *biases) {
    const float top = (float)((1 << bits) - 1);
    memset(words, 0, groups * (size_t)group * (size_t)bits / 8);
    for (size_t g = 0; g < groups; g++) {
        const float *from = w + g * (size_t)group;
        float low = INFINITY, high = -INFINITY;
        for (int i = 0; i < group; i++) {
            low = fminf(low, from[i]);
            high = fmaxf(high, from[i]);
        }
        cpu_affine_range(low, high, bits, &scales[g], &biases[g]);
        for (int i = 0; i < group; i++) {
            float level = rintf((from[i] - biases[g]) / scales[g]);
            uint32_t code = level > 0 ? (uint32_t)fminf(level, top) : 0;
            size_t bit = (g * (size_t)group + (size_t)i) * (size_t)bits;
            words[bit / 32] |= code << bit % 32;
            if (bit % 32 + (size_t)bits > 32) words[bit / 32 + 1] |= code >> (32 - bit % 32);
        }
    }
}

void cpu_fill_quant_scalar(Kernels *t) {
    for (int bits = 0; bits <= 8; bits++) t->quant_gemv[bits] = quant_gemv;
    t->dequant[CPU_AFFINE] = dequant;
    t->pack = pack;
}
