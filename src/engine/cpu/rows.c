/* Softmax, logsumexp and the two norms over the last axis, and rotary
 * positions: a row at a time, rows over threads. A 16-bit row is widened into
 * scratch once and rounded once. */
#include "base/base.h"
#include "cpu/table.h"

#include <math.h>

typedef struct RowsWork {
    const CpuRows *rows;
    float *scratch; /* [threads, n]: the row in float32 */
} RowsWork;

static const char *row_in(const CpuRows *rows, size_t r) {
    return (const char *)rows->in +
           (ptrdiff_t)r * rows->in_stride * (ptrdiff_t)cpu_type_size(rows->type);
}
static char *row_out(const CpuRows *rows, size_t r) {
    return (char *)rows->out +
           (ptrdiff_t)r * rows->out_stride * (ptrdiff_t)cpu_type_size(rows->type);
}

/* Row r as float32: in place where it is stored so, else in `scratch`. */
static const float *widen(const CpuRows *rows, size_t r, float *scratch) {
    if (rows->type == CPU_F32) return (const float *)(const void *)row_in(rows, r);
    cpu_kernels()->to_f32[rows->type](scratch, row_in(rows, r), rows->n);
    return scratch;
}

static size_t row_grain(const CpuRows *rows) {
    return BASE_MAX((size_t)1, (size_t)8192 / BASE_MAX(rows->n, (size_t)1));
}

/* One run over rows: `body` a slice, with a float32 row of scratch a thread. */
static void run_rows(const CpuRows *rows, RowsWork *work, ParallelBody body) {
    if (rows->rows == 0) return;
    work->rows = rows;
    work->scratch = cpu_scratch_take((size_t)base_threads() * (rows->n + 16) * sizeof(float));
    base_parallel_for(rows->rows, row_grain(rows), body, work);
    cpu_scratch_give(work->scratch);
}

static float *scratch_of(const RowsWork *work, int thread) {
    return work->scratch + (size_t)thread * (work->rows->n + 16);
}

static void softmax_slice(void *context, size_t begin, size_t end, int thread) {
    const RowsWork *work = context;
    const CpuRows *rows = work->rows;
    const Kernels *kernels = cpu_kernels();
    float *scratch = scratch_of(work, thread);
    for (size_t r = begin; r < end; r++) {
        const float *x = widen(rows, r, scratch);
        float *y = rows->type == CPU_F32 ? (float *)(void *)row_out(rows, r) : scratch;
        float sum = kernels->exp_sum(y, x, kernels->max(x, rows->n), rows->n);
        kernels->scale_shift(y, y, 0.0f, 1.0f / sum, rows->n);
        if (y == scratch) kernels->from_f32[rows->type](row_out(rows, r), scratch, rows->n);
    }
}

void cpu_softmax(const CpuRows *rows) {
    RowsWork work = {0};
    run_rows(rows, &work, softmax_slice);
}

static void logsumexp_slice(void *context, size_t begin, size_t end, int thread) {
    const RowsWork *work = context;
    const CpuRows *rows = work->rows;
    const Kernels *kernels = cpu_kernels();
    float *scratch = scratch_of(work, thread);
    for (size_t r = begin; r < end; r++) {
        const float *x = widen(rows, r, scratch);
        float top = kernels->max(x, rows->n), value = top;
        if (isfinite(top)) value = top + logf(kernels->exp_sum(scratch, x, top, rows->n));
        cpu_store(row_out(rows, r), rows->type, 0, value);
    }
}

void cpu_logsumexp(const CpuRows *rows) {
    RowsWork work = {0};
    run_rows(rows, &work, logsumexp_slice);
}

/* ---- norms ---- */

/* The vector as float32: itself, or a copy of it at *next, which moves on. */
static const float *norm_vector(const void *vector, CpuType type, size_t n, float **next) {
    if (!vector || type == CPU_F32) return vector;
    float *out = *next;
    cpu_kernels()->to_f32[type](out, vector, n);
    *next += n;
    return out;
}

void cpu_norm_begin(CpuNorm *norm) {
    const size_t n = norm->rows.n;
    const bool wide = norm->vector_type == CPU_F32 || !(norm->weight || norm->bias);
    float *next = norm->scratch = wide ? NULL : cpu_scratch_take(2 * n * sizeof(float));
    norm->scale = norm_vector(norm->weight, norm->vector_type, n, &next);
    norm->shift = norm_vector(norm->bias, norm->vector_type, n, &next);
}

void cpu_norm_end(CpuNorm *norm) {
    cpu_scratch_give(norm->scratch);
}

void cpu_norm_rows(const CpuNorm *norm, size_t begin, size_t end) {
    const CpuRows *rows = &norm->rows;
    const Kernels *kernels = cpu_kernels();
    for (size_t r = begin; r < end; r++)
        kernels->norm_row[rows->type](row_out(rows, r), row_in(rows, r), rows->n, norm->eps,
                                      norm->centred, norm->scale, norm->shift);
}

static void norm_slice(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    cpu_norm_rows(context, begin, end);
}

void cpu_norm(const CpuRows *rows, const void *weight, const void *bias, CpuType vector_type,
              float eps, bool centred) {
    CpuNorm norm = {.rows = *rows,
                    .weight = weight,
                    .bias = bias,
                    .vector_type = vector_type,
                    .eps = eps,
                    .centred = centred};
    if (rows->rows == 0) return;
    cpu_norm_begin(&norm);
    base_parallel_for(rows->rows, row_grain(rows), norm_slice, &norm);
    cpu_norm_end(&norm);
}

/* ---- rotary positions ---- */

void cpu_rope_table(float *cosine, float *sine, const float *inv_freq, size_t half, size_t length,
                    float offset, float scale) {
    for (size_t t = 0; t < length; t++) {
        float position = ((float)t + offset) * scale;
        for (size_t i = 0; i < half; i++) {
            float angle = position * inv_freq[i];
            cosine[t * half + i] = cosf(angle);
            sine[t * half + i] = sinf(angle);
        }
    }
}

enum { ROPE_MAX_STACK = 1024 };

static void rope_slice(void *context, size_t begin, size_t end, int thread) {
    const CpuRope *rope = context;
    const Kernels *kernels = cpu_kernels();
    size_t half = rope->dims / 2, size = cpu_type_size(rope->type);
    float stack[ROPE_MAX_STACK];
    float *heap = rope->dims > ROPE_MAX_STACK ? cpu_scratch_take(rope->dims * sizeof(float)) : NULL;
    float *row = heap ? heap : stack;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        size_t t = r % rope->length, h = r / rope->length % rope->heads;
        size_t b = r / rope->length / rope->heads;
        const char *in = (const char *)rope->in +
                         ((ptrdiff_t)b * rope->in_stride[0] + (ptrdiff_t)h * rope->in_stride[1] +
                          (ptrdiff_t)t * rope->in_stride[2]) *
                             (ptrdiff_t)size;
        char *out = (char *)rope->out +
                    ((ptrdiff_t)b * rope->out_stride[0] + (ptrdiff_t)h * rope->out_stride[1] +
                     (ptrdiff_t)t * rope->out_stride[2]) *
                        (ptrdiff_t)size;
        const float *cosine = rope->cosine + b * rope->table_stride + t * half;
        const float *sine = rope->sine + b * rope->table_stride + t * half;
        kernels->to_f32[rope->type](row, in, rope->dims);
        if (rope->traditional)
            kernels->rope_pairs(row, row, cosine, sine, rope->dims);
        else
            kernels->rope_halves(row, row, cosine, sine, rope->dims);
        kernels->from_f32[rope->type](out, row, rope->dims);
        if (out != in)
            __builtin_memcpy(out + rope->dims * size, in + rope->dims * size,
                             (rope->head_dim - rope->dims) * size);
    }
    cpu_scratch_give(heap);
}

void cpu_rope(const CpuRope *rope) {
    size_t rows = rope->batch * rope->heads * rope->length;
    size_t grain = BASE_MAX((size_t)1, (size_t)16384 / BASE_MAX(rope->head_dim, (size_t)1));
    base_parallel_for(rows, grain, rope_slice, (void *)(uintptr_t)rope);
}
