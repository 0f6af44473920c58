/* Which outputs of a convolution see which taps of the kernel (conv.h), and the
 * counting of positions that all ways to convolve share. */
#include "base/base.h"
#include "cpu/conv.h"

static ptrdiff_t greatest_divisor(ptrdiff_t a, ptrdiff_t b) {
    while (b) {
        const ptrdiff_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static size_t axis_period(const CpuConvAxis *axis) {
    return (size_t)(axis->input_dilation / greatest_divisor(axis->stride, axis->input_dilation));
}

static ConvAxisClass axis_class(const CpuConvAxis *axis, size_t first) {
    const ptrdiff_t dilation = axis->input_dilation;
    const size_t period = axis_period(axis);
    const size_t tap_period =
        (size_t)(dilation / greatest_divisor(axis->kernel_dilation, dilation));
    ConvAxisClass c = {.first = first,
                       .period = period,
                       .count = first < axis->out ? (axis->out - first - 1) / period + 1 : 0,
                       .tap_period = tap_period,
                       .step = (ptrdiff_t)period * axis->stride / dilation,
                       .tap_step = (ptrdiff_t)tap_period * axis->kernel_dilation / dilation};
    for (size_t k = 0; k < tap_period && k < axis->kernel; k++) {
        const ptrdiff_t at =
            (ptrdiff_t)first * axis->stride + (ptrdiff_t)k * axis->kernel_dilation - axis->pad;
        if (at % dilation) continue;
        c.tap_first = k;
        c.n_taps = (axis->kernel - k - 1) / tap_period + 1;
        c.start = at / dilation;
        break;
    }
    return c;
}

size_t cpu_conv_kernel_items(const CpuConv *conv) {
    return conv->axis[0].kernel * conv->axis[1].kernel * conv->axis[2].kernel;
}

size_t cpu_conv_out_items(const CpuConv *conv) {
    return conv->batch * conv->axis[0].out * conv->axis[1].out * conv->axis[2].out * conv->features;
}

size_t cpu_conv_class_count(const CpuConv *conv) {
    size_t count = 1;
    for (int i = 0; i < 3; i++) count *= axis_period(&conv->axis[i]);
    return count;
}

ConvClass cpu_conv_class(const CpuConv *conv, size_t index) {
    ConvClass c = {.conv = conv, .positions = conv->batch, .taps = 1, .whole = true};
    for (int i = 0; i < 3; i++) {
        const size_t period = axis_period(&conv->axis[i]);
        c.axis[i] = axis_class(&conv->axis[i], index % period);
        index /= period;
        c.positions *= c.axis[i].count;
        c.taps *= c.axis[i].n_taps;
        c.whole &= period == 1;
    }
    return c;
}

ConvPosition cpu_conv_position(const ConvClass *c, size_t position) {
    ConvPosition p;
    for (int i = 2; i >= 0; i--) {
        p.at[i] = position % c->axis[i].count;
        position /= c->axis[i].count;
    }
    p.batch = position;
    return p;
}

void cpu_conv_advance(const ConvClass *c, ConvPosition *p) {
    for (int i = 2; i >= 0; i--) {
        if (++p->at[i] < c->axis[i].count) return;
        p->at[i] = 0;
    }
    p->batch++;
}

size_t cpu_conv_output(const ConvClass *c, const ConvPosition *p) {
    size_t index = p->batch;
    for (int i = 0; i < 3; i++)
        index = index * c->conv->axis[i].out + c->axis[i].first + p->at[i] * c->axis[i].period;
    return index;
}

size_t cpu_conv_kernel_item(const ConvClass *c, const size_t taps[3]) {
    size_t index = 0;
    for (int i = 0; i < 3; i++) {
        const size_t kernel = c->conv->axis[i].kernel;
        const size_t k = c->axis[i].tap_first + taps[i] * c->axis[i].tap_period;
        index = index * kernel + (c->conv->flip ? kernel - 1 - k : k);
    }
    return index;
}

void cpu_conv_inside(const ConvClass *c, int axis, size_t j, size_t *low, size_t *high) {
    const ConvAxisClass *a = &c->axis[axis];
    const ptrdiff_t at = (ptrdiff_t)j * a->step + a->start;
    const ptrdiff_t size = (ptrdiff_t)c->conv->axis[axis].in, taps = (ptrdiff_t)a->n_taps;
    ptrdiff_t first = at < 0 ? (-at + a->tap_step - 1) / a->tap_step : 0;
    ptrdiff_t end = at < size ? (size - at - 1) / a->tap_step + 1 : 0;
    first = BASE_MIN(first, taps);
    end = BASE_MIN(end, taps);
    *low = (size_t)first;
    *high = (size_t)BASE_MAX(first, end);
}
