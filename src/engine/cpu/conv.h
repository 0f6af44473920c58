/* conv: what the three ways to convolve share. A class holds the outputs that
 * see the same taps of the kernel: with a dilated input every period-th output
 * does, so no zero between the input's items is ever multiplied. */
#ifndef ENGINE_CPU_CONV_H
#define ENGINE_CPU_CONV_H

#include "cpu/table.h"

/* Output first + j * period, j < count, reads input j * step + start + i *
 * tap_step at tap i, which is the kernel's item tap_first + i * tap_period. */
typedef struct ConvAxisClass {
    size_t first, period, count;
    size_t tap_first, tap_period, n_taps;
    ptrdiff_t start, step, tap_step;
} ConvAxisClass;

typedef struct ConvClass {
    const CpuConv *conv;
    ConvAxisClass axis[3];
    size_t positions; /* batch included */
    size_t taps;
    bool whole; /* the outputs of the class are all outputs in order */
} ConvClass;

/* Where output `position` of a class lies. */
typedef struct ConvPosition {
    size_t batch, at[3]; /* j of each axis */
} ConvPosition;

/* Items of one feature's kernel for one channel; of the whole output. */
size_t cpu_conv_kernel_items(const CpuConv *conv);
size_t cpu_conv_out_items(const CpuConv *conv);

size_t cpu_conv_class_count(const CpuConv *conv);
ConvClass cpu_conv_class(const CpuConv *conv, size_t index);
ConvPosition cpu_conv_position(const ConvClass *c, size_t position);
void cpu_conv_advance(const ConvClass *c, ConvPosition *position);
/* Number of the output, [batch, out...] in row-major order. */
size_t cpu_conv_output(const ConvClass *c, const ConvPosition *position);
/* Number of the kernel's item, [kernel...], of tap i0, i1, i2. */
size_t cpu_conv_kernel_item(const ConvClass *c, const size_t taps[3]);
/* Taps [*low, *high) of an axis that fall inside the input at output j. */
void cpu_conv_inside(const ConvClass *c, int axis, size_t j, size_t *low, size_t *high);

/* One channel a group: no product to speak of. */
bool cpu_conv_is_depthwise(const CpuConv *conv);
void cpu_conv_depthwise(const ConvClass *c);
void cpu_conv_depthwise_weight(const ConvClass *c, const void *g, void *weight);

#endif
