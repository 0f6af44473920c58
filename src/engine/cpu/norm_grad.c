/* Gradients of rms_norm and layer_norm, a row at a time:
 *
 *   h = (x - mean) r     u = g * weight
 *   dx = r (u - mean(u) - h mean(u h))      (no mean(u) for rms_norm)
 *   dweight = sum of g h over rows          dbias = sum of g over rows
 *
 * float32 inside; each slice of rows sums its own dweight and dbias, and the
 * slices are added in order. */
#include "base/base.h"
#include "cpu/table.h"

#include <math.h>
#include <string.h>

enum { SLICES = 64, SLICE_ROWS = 16 };

typedef struct Work {
    const CpuNormGrad *job;
    const float *weight; /* [n] or NULL */
    size_t slices;
    float *sums; /* [slices, 2, n]: dweight, dbias */
} Work;

static const void *row_of(const void *base, CpuType type, size_t row, size_t n) {
    return (const char *)base + row * n * cpu_type_size(type);
}

/* One row; h and u have n items of scratch. */
static void grad_row(const Work *work, size_t row, float *h, float *u, float *weight_sum,
                     float *bias_sum) {
    const CpuNormGrad *job = work->job;
    const Kernels *kernels = cpu_kernels();
    const size_t n = job->n;
    const float count = (float)n;
    kernels->to_f32[job->type](h, row_of(job->x, job->type, row, n), n);
    kernels->to_f32[job->type](u, row_of(job->g, job->type, row, n), n);
    const float mean = job->centred ? kernels->sum(h, n) / count : 0;
    const float r = 1.0f / sqrtf(kernels->sum_squares(h, mean, n) / count + job->eps);
    kernels->scale_shift(h, h, mean, r, n);
    if (weight_sum)
        for (size_t i = 0; i < n; i++) weight_sum[i] += u[i] * h[i];
    if (bias_sum) kernels->binary[CPU_ADD](bias_sum, bias_sum, 1, u, 1, n);
    if (!job->dx) return;
    if (work->weight) kernels->binary[CPU_MULTIPLY](u, u, 1, work->weight, 1, n);
    float dot;
    kernels->dot_rows[CPU_F32](u, (ptrdiff_t)n, 1, n, h, n, 1, &dot, 1);
    const float shift = job->centred ? kernels->sum(u, n) / count : 0;
    kernels->add_scaled(u, u, -dot / count, h, n);
    kernels->scale_shift(u, u, shift, r, n);
    kernels->from_f32[job->type]((char *)job->dx + row * n * cpu_type_size(job->type), u, n);
}

static void grad_slices(void *context, size_t begin, size_t end, int thread) {
    const Work *work = context;
    const CpuNormGrad *job = work->job;
    const size_t n = job->n;
    float *scratch = cpu_scratch_take(2 * n * sizeof(float));
    (void)thread;
    for (size_t slice = begin; slice < end; slice++) {
        float *sums = work->sums ? work->sums + slice * 2 * n : NULL;
        if (sums) memset(sums, 0, 2 * n * sizeof(float));
        const size_t last = job->rows * (slice + 1) / work->slices;
        for (size_t row = job->rows * slice / work->slices; row < last; row++)
            grad_row(work, row, scratch, scratch + n, job->dweight ? sums : NULL,
                     job->dbias ? sums + n : NULL);
    }
    cpu_scratch_give(scratch);
}

void cpu_norm_grad(const CpuNormGrad *job) {
    const Kernels *kernels = cpu_kernels();
    const size_t n = job->n;
    Work work = {.job = job};
    work.slices = BASE_MAX((size_t)1, BASE_MIN((size_t)SLICES, job->rows / SLICE_ROWS));
    float *weight = NULL;
    if (job->weight) {
        weight = cpu_scratch_take(n * sizeof(float));
        kernels->to_f32[job->weight_type](weight, job->weight, n);
        work.weight = weight;
    }
    if (job->dweight || job->dbias)
        work.sums = cpu_scratch_take(work.slices * 2 * n * sizeof(float));
    base_parallel_for(work.slices, job->rows * n < 16384 ? work.slices : 1, grad_slices, &work);
    for (size_t slice = 1; slice < work.slices && work.sums; slice++)
        kernels->binary[CPU_ADD](work.sums, work.sums, 1, work.sums + slice * 2 * n, 1, 2 * n);
    if (job->dweight) kernels->from_f32[job->weight_type](job->dweight, work.sums, n);
    if (job->dbias) kernels->from_f32[job->weight_type](job->dbias, work.sums + n, n);
    cpu_scratch_give(work.sums);
    cpu_scratch_give(weight);
}
