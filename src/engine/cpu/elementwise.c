/* Contiguous runs of any storage type: split over threads, and for 16-bit
 * types widened tile by tile into the first-level cache, where the float32
 * kernel of the table works. */
#include "base/base.h"
#include "cpu/table.h"

#include <math.h>

enum { TILE = 1024 };
/* Work under this many elements a thread is not worth waking one for. */
static const size_t cheap_grain = 32768, costly_grain = 8192;

static char *at(void *array, CpuType type, size_t index) {
    return (char *)array + index * cpu_type_size(type);
}
static const char *at_const(const void *array, CpuType type, size_t index) {
    return (const char *)array + index * cpu_type_size(type);
}

typedef struct Convert {
    void *out;
    const void *in;
    CpuType out_type, in_type;
} Convert;

static void convert_slice(void *context, size_t begin, size_t end, int thread) {
    const Convert *c = context;
    const Kernels *kernels = cpu_kernels();
    (void)thread;
    if (c->in_type == CPU_F32) {
        kernels->from_f32[c->out_type](at(c->out, c->out_type, begin), (const float *)c->in + begin,
                                       end - begin);
    } else if (c->out_type == CPU_F32) {
        kernels->to_f32[c->in_type]((float *)c->out + begin, at_const(c->in, c->in_type, begin),
                                    end - begin);
    } else {
        float tile[TILE];
        for (size_t i = begin; i < end; i += TILE) {
            size_t n = BASE_MIN((size_t)TILE, end - i);
            kernels->to_f32[c->in_type](tile, at_const(c->in, c->in_type, i), n);
            kernels->from_f32[c->out_type](at(c->out, c->out_type, i), tile, n);
        }
    }
}

void cpu_convert(void *out, CpuType out_type, const void *in, CpuType in_type, size_t n) {
    Convert context = {out, in, out_type, in_type};
    base_parallel_for(n, cheap_grain, convert_slice, &context);
}

typedef struct Elementwise {
    CpuType type;
    void *out;
    const void *a, *b;
    int a_step, b_step;
    CpuUnary unary;
    CpuBinary binary;
    float factor;
} Elementwise;

static void unary_slice(void *context, size_t begin, size_t end, int thread) {
    const Elementwise *e = context;
    const Kernels *kernels = cpu_kernels();
    (void)thread;
    if (e->type == CPU_F32) {
        kernels->unary[e->unary]((float *)e->out + begin, (const float *)e->a + begin, end - begin);
        return;
    }
    float tile[TILE];
    for (size_t i = begin; i < end; i += TILE) {
        size_t n = BASE_MIN((size_t)TILE, end - i);
        kernels->to_f32[e->type](tile, at_const(e->a, e->type, i), n);
        kernels->unary[e->unary](tile, tile, n);
        kernels->from_f32[e->type](at(e->out, e->type, i), tile, n);
    }
}

void cpu_unary(CpuUnary op, CpuType type, void *out, const void *in, size_t n) {
    Elementwise context = {.type = type, .out = out, .a = in, .unary = op};
    base_parallel_for(n, costly_grain, unary_slice, &context);
}

/* The operand's next n elements (or its one) as float32. */
static const float *operand(const void *array, int step, CpuType type, size_t i, size_t n,
                            float *tile) {
    if (type == CPU_F32) return (const float *)array + (step ? i : 0);
    cpu_kernels()->to_f32[type](tile, step ? at_const(array, type, i) : array, step ? n : 1);
    return tile;
}

static void binary_slice(void *context, size_t begin, size_t end, int thread) {
    const Elementwise *e = context;
    const Kernels *kernels = cpu_kernels();
    float left[TILE], right[TILE], result[TILE];
    (void)thread;
    for (size_t i = begin; i < end; i += TILE) {
        size_t n = BASE_MIN((size_t)TILE, end - i);
        const float *a = operand(e->a, e->a_step, e->type, i, n, left);
        const float *b = operand(e->b, e->b_step, e->type, i, n, right);
        float *out = e->type == CPU_F32 ? (float *)e->out + i : result;
        kernels->binary[e->binary](out, a, e->a_step, b, e->b_step, n);
        if (e->type != CPU_F32) kernels->from_f32[e->type](at(e->out, e->type, i), result, n);
    }
}

void cpu_binary(CpuBinary op, CpuType type, void *out, const void *a, int a_step, const void *b,
                int b_step, size_t n) {
    Elementwise context = {
        .type = type, .out = out, .a = a, .b = b, .a_step = a_step, .b_step = b_step, .binary = op};
    base_parallel_for(n, op < CPU_SILU_MUL ? cheap_grain : costly_grain, binary_slice, &context);
}

void cpu_unary_tile(CpuUnary op, float *out, const float *in, size_t n) {
    cpu_kernels()->unary[op](out, in, n);
}

void cpu_binary_tile(CpuBinary op, float *out, const float *a, int a_step, const float *b,
                     int b_step, size_t n) {
    cpu_kernels()->binary[op](out, a, a_step, b, b_step, n);
}

void cpu_widen_tile(float *out, CpuType type, const void *in, size_t n) {
    cpu_kernels()->to_f32[type](out, in, n);
}

void cpu_narrow_tile(void *out, CpuType type, const float *in, size_t n) {
    cpu_kernels()->from_f32[type](out, in, n);
}

void cpu_round_tile(CpuType type, float *values, size_t n) {
    cpu_kernels()->round[type](values, values, n);
}

static void add_scaled_slice(void *context, size_t begin, size_t end, int thread) {
    const Elementwise *e = context;
    const Kernels *kernels = cpu_kernels();
    float left[TILE], right[TILE];
    (void)thread;
    for (size_t i = begin; i < end; i += TILE) {
        size_t n = BASE_MIN((size_t)TILE, end - i);
        const float *a = operand(e->a, 1, e->type, i, n, left);
        const float *b = operand(e->b, 1, e->type, i, n, right);
        float *out = e->type == CPU_F32 ? (float *)e->out + i : left;
        kernels->add_scaled(out, a, e->factor, b, n);
        if (e->type != CPU_F32) kernels->from_f32[e->type](at(e->out, e->type, i), left, n);
    }
}

void cpu_add_scaled(CpuType type, void *out, const void *a, float factor, const void *b, size_t n) {
    Elementwise context = {.type = type, .out = out, .a = a, .b = b, .factor = factor};
    base_parallel_for(n, cheap_grain, add_scaled_slice, &context);
}

static float sum_tile(const float *x, size_t n) {
    return cpu_kernels()->sum(x, n);
}
static float sum_squares_tile(const float *x, size_t n) {
    return cpu_kernels()->sum_squares(x, 0.0f, n);
}

/* Folds tile results by addition, in double so that many tiles lose nothing. */
static float fold_sum(CpuType type, const void *in, size_t n,
                      float (*reduce)(const float *x, size_t n)) {
    float tile[TILE];
    double total = 0;
    for (size_t i = 0; i < n; i += TILE) {
        size_t count = BASE_MIN((size_t)TILE, n - i);
        total += (double)reduce(operand(in, 1, type, i, count, tile), count);
    }
    return (float)total;
}

float cpu_sum(CpuType type, const void *in, size_t n) {
    return fold_sum(type, in, n, sum_tile);
}

float cpu_sum_squares(CpuType type, const void *in, size_t n) {
    return fold_sum(type, in, n, sum_squares_tile);
}

float cpu_max(CpuType type, const void *in, size_t n) {
    float tile[TILE], best = -INFINITY;
    for (size_t i = 0; i < n; i += TILE) {
        size_t count = BASE_MIN((size_t)TILE, n - i);
        float value = cpu_kernels()->max(operand(in, 1, type, i, count, tile), count);
        if (value > best || value != value) best = value;
        if (best != best) break;
    }
    return best;
}

float cpu_min(CpuType type, const void *in, size_t n) {
    float tile[TILE], best = INFINITY;
    for (size_t i = 0; i < n; i += TILE) {
        size_t count = BASE_MIN((size_t)TILE, n - i);
        float value = cpu_kernels()->min(operand(in, 1, type, i, count, tile), count);
        if (value < best || value != value) best = value;
        if (best != best) break;
    }
    return best;
}

float cpu_dot(CpuType type, const void *a, const void *b, size_t n) {
    float tile[TILE], total = 0;
    for (size_t i = 0; i < n; i += TILE) {
        size_t count = BASE_MIN((size_t)TILE, n - i);
        const float *x = operand(a, 1, type, i, count, tile);
        float part = 0;
        cpu_kernels()->dot_rows[type](at_const(b, type, i), 0, 1, count, x, 0, 1, &part, 0);
        total += part;
    }
    return total;
}
