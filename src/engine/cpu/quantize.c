/* mlx's affine quantisation, bit for bit as its CPU backend computes it, and
 * back; rows over threads. */
#include "base/base.h"
#include "cpu/table.h"

#include <math.h>
#include <string.h>

typedef struct Quantize {
    const void *w;
    CpuType type;
    size_t cols;
    int bits, group;
    uint32_t *words;
    void *scales, *biases;
} Quantize;

void cpu_affine_range(float low, float high, int bits, float *scale, float *bias) {
    float steps = (float)((1 << bits) - 1);
    bool low_is_edge = fabsf(low) > fabsf(high);
    float edge = low_is_edge ? low : high;
    float step = fmaxf((high - low) / steps, 1e-7f);
    if (!low_is_edge) step = -step;
    float zero = rintf(edge / step);
    *bias = 0;
    *scale = step;
    if (zero != 0) {
        *scale = edge / zero;
        *bias = edge;
    }
}

static void quantize_slice(void *context, size_t begin, size_t end, int thread) {
    const Quantize *q = context;
    const Kernels *kernels = cpu_kernels();
    size_t groups = q->cols / (size_t)q->group, row_words = q->cols * (size_t)q->bits / 32;
    float *scales = cpu_scratch_take((2 * groups + q->cols) * sizeof(float));
    float *biases = scales + groups, *wide = biases + groups;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const char *row = (const char *)q->w + r * q->cols * cpu_type_size(q->type);
        const float *w = q->type == CPU_F32 ? (const float *)(const void *)row : wide;
        if (w == wide) kernels->to_f32[q->type](wide, row, q->cols);
        kernels->pack(w, groups, q->group, q->bits, q->words + r * row_words, scales, biases);
        size_t out = r * groups * cpu_type_size(q->type);
        kernels->from_f32[q->type]((char *)q->scales + out, scales, groups);
        kernels->from_f32[q->type]((char *)q->biases + out, biases, groups);
    }
    cpu_scratch_give(scales);
}

void cpu_quantize(const void *w, CpuType type, size_t rows, size_t cols, int bits, int group,
                  uint32_t *words, void *scales, void *biases) {
    Quantize context = {w, type, cols, bits, group, words, scales, biases};
    base_parallel_for(rows, BASE_MAX((size_t)1, 4096 / BASE_MAX(cols, (size_t)1)), quantize_slice,
                      &context);
}

CpuQuant cpu_quant_rows(const CpuQuant *weights, size_t row, size_t count) {
    CpuQuant one = *weights;
    bool affine = weights->mode == CPU_AFFINE;
    size_t groups = weights->cols / (size_t)weights->group;
    size_t step = row * groups * (affine ? cpu_type_size(weights->type) : 1);
    one.rows = count;
    one.words += row * (weights->cols * (size_t)weights->bits / 32);
    one.scales = (const char *)weights->scales + step;
    if (affine) one.biases = (const char *)weights->biases + step;
    return one;
}

typedef struct Dequantize {
    const CpuQuant *weights;
    const uint32_t *indices; /* NULL: every row in turn */
    CpuType out_type;
    void *out;
} Dequantize;

/* q * scale + bias as mlx does: the product is rounded to the type of the scales
 * before the sum. `half` is room for a row of that type. */
static void dequantize_affine(const CpuQuant *row, const float *scales, const float *biases,
                              const float *zeros, void *half, float *out) {
    const Kernels *kernels = cpu_kernels();
    const size_t cols = row->cols, group = (size_t)row->group;
    kernels->dequant[CPU_AFFINE](row->words, row->bits, 0, cols, row->group, scales, zeros, out);
    if (row->type != CPU_F32) {
        kernels->from_f32[row->type](half, out, cols);
        kernels->to_f32[row->type](out, half, cols);
    }
    for (size_t g = 0; g < cols / group; g++)
        for (size_t i = 0; i < group; i++) out[g * group + i] += biases[g];
}

static void dequantize_slice(void *context, size_t begin, size_t end, int thread) {
    const Dequantize *d = context;
    const Kernels *kernels = cpu_kernels();
    size_t cols = d->weights->cols, groups = cols / (size_t)d->weights->group;
    float *scales = cpu_scratch_take((3 * groups + cols) * sizeof(float));
    float *biases = scales + groups, *zeros = biases + groups, *wide = zeros + groups;
    (void)thread;
    for (size_t g = 0; g < groups; g++) zeros[g] = -0.0F; /* adds nothing, not even a sign */
    for (size_t i = begin; i < end; i++) {
        CpuQuant row = cpu_quant_rows(d->weights, d->indices ? d->indices[i] : i, 1);
        char *out = (char *)d->out + i * cols * cpu_type_size(d->out_type);
        float *target = d->out_type == CPU_F32 ? (float *)(void *)out : wide;
        cpu_quant_scales(&row, 0, groups, scales, biases);
        if (row.mode == CPU_AFFINE && (row.type == CPU_F32 || row.type == d->out_type)) {
            dequantize_affine(&row, scales, biases, zeros, out, target);
        } else {
            /* mlx takes the byte of scale to the type of the result first. */
            if ((row.mode == CPU_MXFP4 || row.mode == CPU_MXFP8) && d->out_type == CPU_F16)
                for (size_t g = 0; g < groups; g++)
                    scales[g] = cpu_f32_from_f16(cpu_f16_from_f32(scales[g]));
            kernels->dequant[row.mode](row.words, row.bits, 0, cols, row.group, scales, biases,
                                       target);
        }
        if (target == wide) kernels->from_f32[d->out_type](out, wide, cols);
    }
    cpu_scratch_give(scales);
}

void cpu_dequantize_gather(const CpuQuant *weights, const uint32_t *indices, size_t count,
                           CpuType out_type, void *out) {
    Dequantize context = {weights, indices, out_type, out};
    base_parallel_for(count, BASE_MAX((size_t)1, 16384 / BASE_MAX(weights->cols, (size_t)1)),
                      dequantize_slice, &context);
}

void cpu_dequantize(const CpuQuant *weights, CpuType out_type, void *out) {
    cpu_dequantize_gather(weights, NULL, weights->rows, out_type, out);
}
