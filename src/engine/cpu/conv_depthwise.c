/* Depthwise convolution: every channel by itself, all channels of a position
 * side by side, so that a vector of channels is multiplied by a vector of
 * weights at every tap. The weights are turned to [taps, channels] first. */
#include "base/base.h"
#include "cpu/conv.h"

#include <string.h>

enum { BLOCK = 64 };

bool cpu_conv_is_depthwise(const CpuConv *conv) {
    return conv->groups > 1 && conv->groups == conv->channels && conv->groups == conv->features;
}

typedef struct Depthwise {
    const ConvClass *c;
    size_t item;
    float *weights; /* [taps, channels]; NULL for the gradient */
    const char *g;  /* the cotangent, for the gradient of the weights */
    char *weight;   /* that gradient, [channels, kernel...] */
} Depthwise;

typedef struct Taps {
    size_t count;
    const void **inputs;
    const float **weights;
    size_t *numbers; /* 0 <= number < taps */
} Taps;

static void *taps_take(Taps *taps, size_t most) {
    char *memory = cpu_scratch_take(most * 3 * sizeof(void *));
    taps->inputs = (const void **)(void *)memory;
    taps->weights = (const float **)(void *)(memory + most * sizeof(void *));
    taps->numbers = (size_t *)(void *)(memory + 2 * most * sizeof(void *));
    return memory;
}

/* The taps inside the input at a position: their channels and weights. */
static void collect_taps(const Depthwise *job, const ConvPosition *p, Taps *taps) {
    const CpuConv *conv = job->c->conv;
    const ConvAxisClass *axis = job->c->axis;
    size_t low[3], high[3];
    taps->count = 0;
    for (int i = 0; i < 3; i++) cpu_conv_inside(job->c, i, p->at[i], &low[i], &high[i]);
    for (size_t i = low[0]; i < high[0]; i++)
        for (size_t j = low[1]; j < high[1]; j++)
            for (size_t k = low[2]; k < high[2]; k++) {
                const size_t tap[3] = {i, j, k};
                ptrdiff_t index = (ptrdiff_t)p->batch;
                size_t number = 0;
                for (int x = 0; x < 3; x++) {
                    index = index * (ptrdiff_t)conv->axis[x].in + axis[x].start +
                            (ptrdiff_t)p->at[x] * axis[x].step +
                            (ptrdiff_t)tap[x] * axis[x].tap_step;
                    number = number * axis[x].n_taps + tap[x];
                }
                taps->inputs[taps->count] =
                    (const char *)conv->in + index * (ptrdiff_t)(conv->channels * job->item);
                if (job->weights)
                    taps->weights[taps->count] = job->weights + number * conv->channels;
                taps->numbers[taps->count++] = number;
            }
}

/* Number of the kernel's item of every tap of the class, in order. */
static void kernel_numbers(const ConvClass *c, size_t *numbers) {
    size_t tap[3];
    for (tap[0] = 0; tap[0] < c->axis[0].n_taps; tap[0]++)
        for (tap[1] = 0; tap[1] < c->axis[1].n_taps; tap[1]++)
            for (tap[2] = 0; tap[2] < c->axis[2].n_taps; tap[2]++)
                *numbers++ = cpu_conv_kernel_item(c, tap);
}

static void depthwise_slice(void *context, size_t begin, size_t end, int thread) {
    const Depthwise *job = context;
    const CpuConv *conv = job->c->conv;
    const Kernels *kernels = cpu_kernels();
    const size_t n = conv->channels;
    Taps taps;
    void *memory = taps_take(&taps, job->c->taps);
    float *row = conv->type == CPU_F32 ? NULL : cpu_scratch_take(n * sizeof(float));
    ConvPosition p = cpu_conv_position(job->c, begin);
    (void)thread;
    for (size_t i = begin; i < end; i++, cpu_conv_advance(job->c, &p)) {
        char *out = (char *)conv->out + cpu_conv_output(job->c, &p) * n * job->item;
        collect_taps(job, &p, &taps);
        float *target = row ? row : (float *)(void *)out;
        kernels->tap_sum[conv->type](target, taps.inputs, taps.weights, taps.count, n);
        if (row) kernels->from_f32[conv->type](out, row, n);
    }
    cpu_scratch_give(memory);
    cpu_scratch_give(row);
}

void cpu_conv_depthwise(const ConvClass *c) {
    const CpuConv *conv = c->conv;
    if (c->taps == 0 || c->positions == 0) return;
    Depthwise job = {.c = c, .item = cpu_type_size(conv->type)};
    job.weights = cpu_scratch_take(c->taps * conv->channels * sizeof(float));
    size_t *numbers = cpu_scratch_take(c->taps * sizeof *numbers);
    kernel_numbers(c, numbers);
    for (size_t t = 0; t < c->taps; t++)
        for (size_t i = 0; i < conv->channels; i++)
            job.weights[t * conv->channels + i] =
                cpu_load(conv->weight, conv->type, i * cpu_conv_kernel_items(conv) + numbers[t]);
    base_parallel_for(c->positions, 8192 / (conv->channels * c->taps) + 1, depthwise_slice, &job);
    cpu_scratch_give(numbers);
    cpu_scratch_give(job.weights);
}

/* Blocks of channels [begin, end): their sums over every position. */
static void weight_slice(void *context, size_t begin, size_t end, int thread) {
    const Depthwise *job = context;
    const ConvClass *c = job->c;
    const CpuConv *conv = c->conv;
    const Kernels *kernels = cpu_kernels();
    float *sums = cpu_scratch_take(c->taps * BLOCK * sizeof(float));
    size_t *numbers = cpu_scratch_take(c->taps * sizeof *numbers);
    Taps taps;
    void *memory = taps_take(&taps, c->taps);
    float g[BLOCK], x[BLOCK];
    (void)thread;
    kernel_numbers(c, numbers);
    for (size_t block = begin; block < end; block++) {
        const size_t first = block * BLOCK, n = BASE_MIN((size_t)BLOCK, conv->channels - first);
        memset(sums, 0, c->taps * BLOCK * sizeof(float));
        ConvPosition p = cpu_conv_position(c, 0);
        for (size_t i = 0; i < c->positions; i++, cpu_conv_advance(c, &p)) {
            const size_t at = cpu_conv_output(c, &p) * conv->channels + first;
            kernels->to_f32[conv->type](g, job->g + at * job->item, n);
            collect_taps(job, &p, &taps);
            for (size_t t = 0; t < taps.count; t++) {
                float *sum = sums + taps.numbers[t] * BLOCK;
                kernels->to_f32[conv->type](x, (const char *)taps.inputs[t] + first * job->item, n);
                for (size_t j = 0; j < n; j++) sum[j] += g[j] * x[j];
            }
        }
        for (size_t t = 0; t < c->taps; t++)
            for (size_t j = 0; j < n; j++)
                cpu_store(job->weight, conv->type,
                          (first + j) * cpu_conv_kernel_items(conv) + numbers[t],
                          sums[t * BLOCK + j]);
    }
    cpu_scratch_give(sums);
    cpu_scratch_give(numbers);
    cpu_scratch_give(memory);
}

void cpu_conv_depthwise_weight(const ConvClass *c, const void *g, void *weight) {
    Depthwise job = {.c = c, .item = cpu_type_size(c->conv->type), .g = g, .weight = weight};
    base_parallel_for((c->conv->channels - 1) / BLOCK + 1, 1, weight_slice, &job);
}
