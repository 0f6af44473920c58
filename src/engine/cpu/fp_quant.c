/* Weights with a byte of scale a group (mxfp4, mxfp8, nvfp4): floats to codes,
 * as mlx makes them on the CPU, and activations rounded to codes, as its
 * quantised products do. */
#include "cpu/fp_quant.h"
#include "base/base.h"
#include "cpu/table.h"

#include <float.h>
#include <math.h>

static const float E2M1_MAX = 6.0f, E4M3_MAX = 448.0f;

static uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

uint8_t cpu_fp8_from_f32(float value) {
    uint32_t bits = float_bits(value), sign = bits >> 24 & 0x80, code;
    bits &= 0x7FFFFFFF;
    if (bits >= float_bits(E4M3_MAX))
        code = 0x7E;
    else if (bits < (uint32_t)(127 - 6) << 23) /* below 2^-6: steps of 2^-9 */
        code = (uint32_t)rintf(fabsf(value) * 512.0f);
    else
        code = (bits - ((uint32_t)(127 - 7) << 23) + 0x7FFFF + (bits >> 20 & 1)) >> 20;
    return (uint8_t)(sign | code);
}

float cpu_f32_from_fp8(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    float value =
        exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return code & 0x80 ? -value : value;
}

static float largest_value(CpuQuantMode mode) {
    return mode == CPU_MXFP8 ? E4M3_MAX : E2M1_MAX;
}

/* What the scales of nvfp4 are multiplied by before they become bytes, so that
 * the global maximum gets the largest scale. */
static float scale_encoding(const float *global_scale) {
    return global_scale ? E4M3_MAX * E2M1_MAX / *global_scale : 1.0f;
}

/* value as an element of `type`: mlx quantises in the type of the weights. */
static float rounded(CpuType type, float value) {
    if (type == CPU_F16) return cpu_f32_from_f16(cpu_f16_from_f32(value));
    return type == CPU_BF16 ? cpu_f32_from_bf16(cpu_bf16_from_f32(value)) : value;
}

/* ---- quantize ------------------------------------------------------------ */

/* The nearest E2M1 code, the smaller value on ties, no negative zero; NaN and
 * infinity are as near to zero as to any other. */
static uint32_t nearest_e2m1(float value) {
    const float a = fabsf(value);
    const uint32_t finite = a <= FLT_MAX;
    const uint32_t code = (uint32_t)(a > 0.25f) + (uint32_t)(a > 0.75f) + (uint32_t)(a > 1.25f) +
                          (uint32_t)(a > 1.75f) + (uint32_t)(a > 2.5f) + (uint32_t)(a > 3.5f) +
                          (uint32_t)(a > 5.0f);
    return finite * (code | (uint32_t)(value < -0.25f) << 3);
}

typedef struct FpQuantize {
    CpuQuantMode mode;
    const void *w;
    CpuType type;
    size_t cols;
    float encoding;
    uint32_t *words;
    uint8_t *scales;
} FpQuantize;

/* The byte of scale of a group whose largest magnitude is `top`, and the factor
 * pair that takes a weight to its code: w / *divisor, rounded, * encoding. */
static uint8_t group_scale(const FpQuantize *q, float top, float *divisor) {
    float scale = rounded(q->type, top / largest_value(q->mode));
    if (q->mode == CPU_NVFP4) {
        uint8_t byte = cpu_fp8_from_f32(scale * q->encoding);
        *divisor = cpu_f32_from_fp8(byte);
        return byte;
    }
    float exponent = scale == 0.0f ? 0.0f : rintf(rounded(q->type, log2f(scale)));
    *divisor = rounded(q->type, exp2f(exponent));
    float byte = exponent + 127.0f;
    return byte > 0.0f ? (uint8_t)fminf(byte, 255.0f) : 0;
}

/* The largest magnitude; NaN, whose bits are above those of all others, stays. */
static float largest(const float *w, size_t count) {
    uint32_t top = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = float_bits(w[i]) & 0x7FFFFFFF;
        top = bits > top ? bits : top;
    }
    float value;
    memcpy(&value, &top, sizeof value);
    return value;
}

static void put_codes(const FpQuantize *q, const float *values, uint32_t *words) {
    const uint32_t per = q->mode == CPU_MXFP8 ? 4 : 8, bits = 32 / per;
    for (size_t i = 0; i < q->cols / per; i++) {
        uint32_t codes[8], word = 0;
        for (uint32_t j = 0; j < per; j++) {
            const float value = values[i * per + j] * q->encoding;
            codes[j] = bits == 8 ? cpu_fp8_from_f32(value) : nearest_e2m1(value);
        }
        for (uint32_t j = 0; j < per; j++) word |= codes[j] << j * bits;
        words[i] = word;
    }
}

/* A row at a time, so that types are converted by the fast kernels. */
static void fp_quantize_slice(void *context, size_t begin, size_t end, int thread) {
    const FpQuantize *q = context;
    const Kernels *kernels = cpu_kernels();
    const size_t cols = q->cols, group = q->mode == CPU_NVFP4 ? 16 : 32, groups = cols / group;
    const size_t row_words = cols * (q->mode == CPU_MXFP8 ? 8 : 4) / 32;
    float *values = cpu_scratch_take(2 * cols * sizeof(float)), *half = values + cols;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const char *row = (const char *)q->w + r * cols * cpu_type_size(q->type);
        if (q->type == CPU_F32)
            memcpy(values, row, cols * sizeof *values);
        else
            kernels->to_f32[q->type](values, row, cols);
        for (size_t g = 0; g < groups; g++) {
            float *w = values + g * group, divisor;
            q->scales[r * groups + g] = group_scale(q, largest(w, group), &divisor);
            for (size_t j = 0; j < group; j++) w[j] /= divisor;
        }
        if (q->type != CPU_F32) { /* mlx divides in the type of the weights */
            kernels->from_f32[q->type](half, values, cols);
            kernels->to_f32[q->type](values, half, cols);
        }
        put_codes(q, values, q->words + r * row_words);
    }
    cpu_scratch_give(values);
}

void cpu_fp_quantize(CpuQuantMode mode, const void *w, CpuType type, size_t rows, size_t cols,
                     const float *global_scale, uint32_t *words, uint8_t *scales) {
    FpQuantize context = {mode, w, type, cols, scale_encoding(global_scale), words, scales};
    base_parallel_for(rows, BASE_MAX((size_t)1, 4096 / BASE_MAX(cols, (size_t)1)),
                      fp_quantize_slice, &context);
}

/* ---- rounding of activations ---------------------------------------------- */

typedef struct FpRound {
    CpuQuantMode mode;
    const void *x;
    CpuType type;
    size_t cols;
    float encoding;
    float *out;
} FpRound;

/* To the nearest E2M1 value, ties to the even code, the sign kept. */
static float round_e2m1(float value) {
    float a = fabsf(value);
    if (isnan(a)) return E2M1_MAX;
    int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) +
               (a > 5.0f);
    return copysignf(cpu_e2m1[code], value);
}

static float round_scale(const FpRound *r, float top) {
    float scale = top / largest_value(r->mode);
    if (r->mode == CPU_NVFP4) return cpu_f32_from_fp8(cpu_fp8_from_f32(scale * r->encoding));
    if (!isfinite(scale)) return INFINITY;
    float exponent = scale > 0 ? roundf(log2f(scale)) : -127.0f;
    return cpu_f32_from_e8m0((uint8_t)(fminf(fmaxf(exponent, -127.0f), 127.0f) + 127.0f));
}

static void fp_round_slice(void *context, size_t begin, size_t end, int thread) {
    const FpRound *r = context;
    const size_t group = r->mode == CPU_NVFP4 ? 16 : 32, groups = r->cols / group;
    (void)thread;
    for (size_t i = begin * groups; i < end * groups; i++) {
        float *x = r->out + i * group, top = 0;
        for (size_t j = 0; j < group; j++) {
            x[j] = cpu_load(r->x, r->type, i * group + j);
            top = fmaxf(top, fabsf(x[j]));
        }
        const float scale = round_scale(r, top);
        for (size_t j = 0; j < group; j++) {
            float value = scale == 0.0f ? 0.0f : x[j] / scale * r->encoding;
            value = r->mode == CPU_MXFP8 ? cpu_f32_from_fp8(cpu_fp8_from_f32(value))
                                         : round_e2m1(value);
            x[j] = scale / r->encoding * value;
        }
    }
}

void cpu_fp_round(CpuQuantMode mode, const void *x, CpuType type, size_t rows, size_t cols,
                  const float *global_scale, float *out) {
    FpRound context = {mode, x, type, cols, scale_encoding(global_scale), out};
    base_parallel_for(rows, BASE_MAX((size_t)1, 4096 / BASE_MAX(cols, (size_t)1)), fp_round_slice,
                      &context);
}

/* ---- for the kernels --------------------------------------------------------- */

void cpu_quant_scales(const CpuQuant *q, size_t at, size_t count, float *scales, float *biases) {
    if (q->mode == CPU_AFFINE) {
        const Kernels *kernels = cpu_kernels();
        size_t offset = at * cpu_type_size(q->type);
        kernels->to_f32[q->type](scales, (const char *)q->scales + offset, count);
        kernels->to_f32[q->type](biases, (const char *)q->biases + offset, count);
        return;
    }
    const uint8_t *bytes = (const uint8_t *)q->scales + at;
    for (size_t g = 0; g < count; g++) scales[g] = cpu_fp_scale(q->mode, bytes[g]) * q->factor;
}
