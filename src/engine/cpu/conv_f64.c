/* Convolution in float64: plain loops over outputs, taps, features, channels. */
#include "base/base.h"
#include "cpu/conv.h"

#include <string.h>

typedef struct Wide {
    ConvClass c;
    const double *g; /* NULL: forward */
    double *weight;  /* the gradient when g is given */
} Wide;

/* Every feature of one group at one tap: out += weight * in, or the gradient
 * weight += g * in. in: the tap's channels of the group. */
static void multiply_tap(const Wide *wide, const double *in, size_t group, size_t item,
                         size_t output) {
    const CpuConv *conv = wide->c.conv;
    const size_t cg = conv->channels / conv->groups, og = conv->features / conv->groups;
    const size_t items = cpu_conv_kernel_items(conv);
    for (size_t o = group * og; o < (group + 1) * og; o++) {
        if (wide->g) {
            double *weight = wide->weight + (o * items + item) * cg;
            const double factor = wide->g[output * conv->features + o];
            for (size_t i = 0; i < cg; i++) weight[i] += factor * in[i];
        } else {
            const double *weight = (const double *)conv->weight + (o * items + item) * cg;
            double sum = 0;
            for (size_t i = 0; i < cg; i++) sum += weight[i] * in[i];
            ((double *)conv->out)[output * conv->features + o] += sum;
        }
    }
}

static void multiply_position(const Wide *wide, const ConvPosition *p) {
    const ConvClass *c = &wide->c;
    const CpuConv *conv = c->conv;
    const size_t output = cpu_conv_output(c, p);
    size_t low[3], high[3], tap[3];
    for (int i = 0; i < 3; i++) cpu_conv_inside(c, i, p->at[i], &low[i], &high[i]);
    for (tap[0] = low[0]; tap[0] < high[0]; tap[0]++)
        for (tap[1] = low[1]; tap[1] < high[1]; tap[1]++)
            for (tap[2] = low[2]; tap[2] < high[2]; tap[2]++) {
                ptrdiff_t index = (ptrdiff_t)p->batch;
                for (int x = 0; x < 3; x++)
                    index = index * (ptrdiff_t)conv->axis[x].in + c->axis[x].start +
                            (ptrdiff_t)p->at[x] * c->axis[x].step +
                            (ptrdiff_t)tap[x] * c->axis[x].tap_step;
                const double *in = (const double *)conv->in + index * (ptrdiff_t)conv->channels;
                const size_t item = cpu_conv_kernel_item(c, tap);
                for (size_t group = 0; group < conv->groups; group++)
                    multiply_tap(wide, in + group * (conv->channels / conv->groups), group, item,
                                 output);
            }
}

static void forward_slice(void *context, size_t begin, size_t end, int thread) {
    const Wide *wide = context;
    ConvPosition p = cpu_conv_position(&wide->c, begin);
    (void)thread;
    for (size_t i = begin; i < end; i++, cpu_conv_advance(&wide->c, &p))
        multiply_position(wide, &p);
}

void cpu_conv_f64(const CpuConv *conv) {
    memset(conv->out, 0, cpu_conv_out_items(conv) * sizeof(double));
    for (size_t i = 0; i < cpu_conv_class_count(conv); i++) {
        Wide wide = {.c = cpu_conv_class(conv, i)};
        if (wide.c.positions) base_parallel_for(wide.c.positions, 64, forward_slice, &wide);
    }
}

void cpu_conv_weight_f64(const CpuConv *conv, const double *g, double *weight) {
    memset(weight, 0,
           conv->features * cpu_conv_kernel_items(conv) * (conv->channels / conv->groups) *
               sizeof(double));
    for (size_t i = 0; i < cpu_conv_class_count(conv); i++) {
        Wide wide = {.c = cpu_conv_class(conv, i), .g = g, .weight = weight};
        if (wide.c.positions) forward_slice(&wide, 0, wide.c.positions, 0);
    }
}
