/* The trusted twins of the kernels for weights with a byte of scale, straight
 * from the definition w = value(code) * value(scale) * factor. */
#include "cpu/fp_quant.h"
#include "cpu/table.h"
#include "cpu/unpack.h"

static float code_value(CpuQuantMode mode, const uint32_t *row, size_t j) {
    return mode == CPU_MXFP8 ? cpu_f32_from_fp8((uint8_t)cpu_unpack(row, 8, j))
                             : cpu_e2m1[cpu_unpack(row, 4, j)];
}

static void fp_gemv(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                    ptrdiff_t y_stride) {
    size_t group = (size_t)w->group;
    for (size_t r = begin; r < end; r++) {
        const uint32_t *row = w->words + r * (w->cols * (size_t)w->bits / 32);
        for (size_t i = 0; i < x->m; i++) {
            float total = 0;
            for (size_t g = 0; g < x->groups; g++) {
                float dot = 0, scale;
                for (size_t j = g * group; j < (g + 1) * group; j++)
                    dot += code_value(w->mode, row, j) * x->f32[i * x->k + j];
                cpu_quant_scales(w, r * x->groups + g, 1, &scale, NULL);
                total += scale * dot;
            }
            y[(ptrdiff_t)i * y_stride + (ptrdiff_t)r] = total;
        }
    }
}

static void dequant4(const uint32_t *row, int bits, size_t first, size_t count, int group,
                     const float *scales, const float *biases, float *out) {
    (void)bits;
    (void)biases;
    for (size_t i = 0; i < count; i++)
        out[i] = code_value(CPU_MXFP4, row, first + i) * scales[(first + i) / (size_t)group];
}

static void dequant8(const uint32_t *row, int bits, size_t first, size_t count, int group,
                     const float *scales, const float *biases, float *out) {
    (void)bits;
    (void)biases;
    for (size_t i = 0; i < count; i++)
        out[i] = code_value(CPU_MXFP8, row, first + i) * scales[(first + i) / (size_t)group];
}

void cpu_fill_fp_quant_scalar(Kernels *t) {
    for (CpuQuantMode mode = CPU_MXFP4; mode < CPU_QUANT_MODES; mode++) {
        t->quant_gemv[8 + mode] = fp_gemv;
        t->dequant[mode] = mode == CPU_MXFP8 ? dequant8 : dequant4;
    }
}
