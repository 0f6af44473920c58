/* Convolution as matrix products. A tile of outputs has its patches of the
 * input laid out as rows [positions, taps * channels] in scratch memory of a
 * few megabytes; the packed product multiplies them by the weights, or, for the
 * gradient of the weights, the cotangent by them. A kernel of one item needs no
 * patches: the input is the matrix. One channel a group is conv_depthwise.c. */
#include "cpu/conv.h"
#include "base/base.h"

#include <string.h>

enum { TILE_MOST = 1024, TILE_LEAST = 16, SCRATCH_BYTES = 8 << 20, GROUP_BYTES = 1 << 20 };

typedef struct Plan {
    ConvClass c;
    size_t item;   /* bytes of a number */
    size_t cg, og; /* channels and features of a group */
    size_t depth;  /* taps * cg */
    size_t tile, tiles;
    bool direct;         /* the patches are the input itself */
    const char *weights; /* [features, depth] */
    const char *g;       /* the cotangent, for the gradient of the weights */
    float *sums;         /* [features, depth], that gradient */
} Plan;

static Plan make_plan(const CpuConv *conv, size_t class_index) {
    Plan plan = {.c = cpu_conv_class(conv, class_index),
                 .item = cpu_type_size(conv->type),
                 .cg = conv->channels / conv->groups,
                 .og = conv->features / conv->groups};
    plan.depth = plan.c.taps * plan.cg;
    plan.direct = plan.c.whole && plan.c.taps == 1;
    for (int i = 0; i < 3; i++)
        plan.direct &= plan.c.axis[i].step == 1 && plan.c.axis[i].start == 0 &&
                       plan.c.axis[i].count == conv->axis[i].in;
    const size_t bytes = conv->groups == 1 ? SCRATCH_BYTES : GROUP_BYTES;
    plan.tile = bytes / (plan.depth * plan.item + 1);
    plan.tile = BASE_MAX(BASE_MIN(plan.tile, (size_t)TILE_MOST), (size_t)TILE_LEAST);
    if (plan.direct) plan.tile = plan.c.positions;
    plan.tiles = plan.c.positions ? (plan.c.positions - 1) / plan.tile + 1 : 0;
    return plan;
}

/* ---- patches ------------------------------------------------------------------- */

typedef struct Fill {
    const Plan *plan;
    size_t first, group;
    char *out; /* [positions, depth] */
} Fill;

/* The taps of the last axis from input item `line` on; low to high are inside. */
static void fill_line(const Plan *plan, const char *line, size_t group, size_t low, size_t high,
                      char *out) {
    const CpuConv *conv = plan->c.conv;
    const ConvAxisClass *axis = &plan->c.axis[2];
    const size_t bytes = plan->cg * plan->item;
    memset(out, 0, low * bytes);
    if (axis->tap_step == 1 && conv->groups == 1) {
        if (high > low) memcpy(out + low * bytes, line + low * bytes, (high - low) * bytes);
    } else {
        const ptrdiff_t step = axis->tap_step * (ptrdiff_t)(conv->channels * plan->item);
        const char *from = line + group * bytes;
        for (size_t i = low; i < high; i++)
            memcpy(out + i * bytes, from + (ptrdiff_t)i * step, bytes);
    }
    memset(out + high * bytes, 0, (axis->n_taps - high) * bytes);
}

static void fill_patch(const Plan *plan, const ConvPosition *p, size_t group, char *out) {
    const CpuConv *conv = plan->c.conv;
    const ConvAxisClass *axis = plan->c.axis;
    const size_t line_bytes = axis[2].n_taps * plan->cg * plan->item;
    const ptrdiff_t pixel = (ptrdiff_t)(conv->channels * plan->item);
    size_t low[3], high[3];
    ptrdiff_t at[3];
    for (int i = 0; i < 3; i++) {
        cpu_conv_inside(&plan->c, i, p->at[i], &low[i], &high[i]);
        at[i] = (ptrdiff_t)p->at[i] * axis[i].step + axis[i].start;
    }
    for (size_t i = 0; i < axis[0].n_taps; i++)
        for (size_t j = 0; j < axis[1].n_taps; j++, out += line_bytes) {
            if (i < low[0] || i >= high[0] || j < low[1] || j >= high[1]) {
                memset(out, 0, line_bytes);
                continue;
            }
            ptrdiff_t index = (ptrdiff_t)p->batch;
            index = index * (ptrdiff_t)conv->axis[0].in + at[0] + (ptrdiff_t)i * axis[0].tap_step;
            index = index * (ptrdiff_t)conv->axis[1].in + at[1] + (ptrdiff_t)j * axis[1].tap_step;
            index = index * (ptrdiff_t)conv->axis[2].in + at[2];
            fill_line(plan, (const char *)conv->in + index * pixel, group, low[2], high[2], out);
        }
}

static void fill_slice(void *context, size_t begin, size_t end, int thread) {
    const Fill *fill = context;
    const size_t bytes = fill->plan->depth * fill->plan->item;
    ConvPosition p = cpu_conv_position(&fill->plan->c, fill->first + begin);
    (void)thread;
    for (size_t i = begin; i < end; i++, cpu_conv_advance(&fill->plan->c, &p))
        fill_patch(fill->plan, &p, fill->group, fill->out + i * bytes);
}

/* The patches of a tile as the rows of a matrix, *row items apart. */
static const char *tile_patches(const Plan *plan, size_t first, size_t count, size_t group,
                                char *scratch, size_t *row) {
    const CpuConv *conv = plan->c.conv;
    if (plan->direct) {
        *row = conv->channels;
        return (const char *)conv->in + (first * conv->channels + group * plan->cg) * plan->item;
    }
    Fill fill = {plan, first, group, scratch};
    base_parallel_for(count, BASE_MAX((size_t)1, 16384 / plan->depth), fill_slice, &fill);
    *row = plan->depth;
    return scratch;
}

static char *take_patches(const Plan *plan) {
    return plan->direct ? NULL : cpu_scratch_take(plan->tile * plan->depth * plan->item);
}

/* ---- weights ------------------------------------------------------------------- */

/* Are the weights of the class the kernel as it lies? */
static bool weights_in_place(const ConvClass *c) {
    bool plain = !c->conv->flip || c->taps == 1;
    for (int i = 0; i < 3; i++) plain &= c->axis[i].n_taps == c->conv->axis[i].kernel;
    return plain;
}

/* The kernel's items of the class, for every feature: [features, depth]. */
static void pack_weights(const Plan *plan, char *out) {
    const CpuConv *conv = plan->c.conv;
    const ConvAxisClass *axis = plan->c.axis;
    const size_t bytes = plan->cg * plan->item, items = cpu_conv_kernel_items(conv);
    size_t tap[3];
    for (size_t o = 0; o < conv->features; o++)
        for (tap[0] = 0; tap[0] < axis[0].n_taps; tap[0]++)
            for (tap[1] = 0; tap[1] < axis[1].n_taps; tap[1]++)
                for (tap[2] = 0; tap[2] < axis[2].n_taps; tap[2]++, out += bytes) {
                    const size_t at = o * items + cpu_conv_kernel_item(&plan->c, tap);
                    memcpy(out, (const char *)conv->weight + at * bytes, bytes);
                }
}

/* ---- forward --------------------------------------------------------------------- */

/* One tile of one group; scratch: its patches, and its result unless whole. */
static void run_tile(const Plan *plan, size_t tile, size_t group, char *patches, char *result) {
    const CpuConv *conv = plan->c.conv;
    const size_t first = tile * plan->tile;
    const size_t count = BASE_MIN(plan->tile, plan->c.positions - first);
    size_t row;
    CpuGemm product = {.m = count,
                       .n = plan->og,
                       .k = plan->depth,
                       .a = tile_patches(plan, first, count, group, patches, &row),
                       .a_type = conv->type,
                       .a_col = 1,
                       .b = plan->weights + group * plan->og * plan->depth * plan->item,
                       .b_type = conv->type,
                       .b_row = 1,
                       .b_col = (ptrdiff_t)plan->depth,
                       .c_type = conv->type,
                       .alpha = 1};
    char *out = (char *)conv->out + group * plan->og * plan->item;
    product.a_row = (ptrdiff_t)row;
    product.c = plan->c.whole ? out + first * conv->features * plan->item : result;
    product.c_row = (ptrdiff_t)(plan->c.whole ? conv->features : plan->og);
    cpu_gemm(&product);
    if (plan->c.whole) return;
    ConvPosition p = cpu_conv_position(&plan->c, first);
    for (size_t i = 0; i < count; i++, cpu_conv_advance(&plan->c, &p))
        memcpy(out + cpu_conv_output(&plan->c, &p) * conv->features * plan->item,
               result + i * plan->og * plan->item, plan->og * plan->item);
}

static void run_tiles(void *context, size_t begin, size_t end, int thread) {
    const Plan *plan = context;
    char *patches = take_patches(plan);
    char *result = plan->c.whole ? NULL : cpu_scratch_take(plan->tile * plan->og * plan->item);
    (void)thread;
    for (size_t i = begin; i < end; i++)
        run_tile(plan, i / plan->c.conv->groups, i % plan->c.conv->groups, patches, result);
    cpu_scratch_give(patches);
    cpu_scratch_give(result);
}

/* One group: threads inside a tile. Several: a thread a tile and group. */
static void run_class(const CpuConv *conv, size_t index) {
    Plan plan = make_plan(conv, index);
    if (plan.depth == 0 || plan.c.positions == 0) return;
    char *packed = NULL;
    if (weights_in_place(&plan.c)) {
        plan.weights = conv->weight;
    } else {
        packed = cpu_scratch_take(conv->features * plan.depth * plan.item);
        pack_weights(&plan, packed);
        plan.weights = packed;
    }
    if (conv->groups == 1)
        run_tiles(&plan, 0, plan.tiles, 0);
    else
        base_parallel_for(plan.tiles * conv->groups, 1, run_tiles, &plan);
    cpu_scratch_give(packed);
}

void cpu_conv(const CpuConv *conv) {
    const size_t classes = cpu_conv_class_count(conv);
    /* Outputs that see no tap stay zero. */
    if (classes > 1 || conv->channels == 0 || cpu_conv_class(conv, 0).taps == 0)
        memset(conv->out, 0, cpu_conv_out_items(conv) * cpu_type_size(conv->type));
    for (size_t i = 0; i < classes; i++) {
        if (cpu_conv_is_depthwise(conv)) {
            const ConvClass c = cpu_conv_class(conv, i);
            cpu_conv_depthwise(&c);
        } else {
            run_class(conv, i);
        }
    }
}

/* ---- the gradient of the weights ------------------------------------------------- */

/* Adds a tile's part for one group to its sums: the cotangent's columns times
 * the patches. */
static void sum_tile(const Plan *plan, size_t tile, size_t group, char *patches, char *rows,
                     float *product_items) {
    const CpuConv *conv = plan->c.conv;
    const size_t first = tile * plan->tile, og = plan->og;
    const size_t count = BASE_MIN(plan->tile, plan->c.positions - first);
    size_t row;
    CpuGemm product = {.m = og,
                       .n = plan->depth,
                       .k = count,
                       .a_type = conv->type,
                       .a_row = 1,
                       .b = tile_patches(plan, first, count, group, patches, &row),
                       .b_type = conv->type,
                       .b_col = 1,
                       .c = product_items,
                       .c_type = CPU_F32,
                       .c_row = (ptrdiff_t)plan->depth,
                       .alpha = 1};
    product.b_row = (ptrdiff_t)row;
    if (plan->c.whole) {
        product.a = plan->g + (first * conv->features + group * og) * plan->item;
        product.a_col = (ptrdiff_t)conv->features;
    } else {
        ConvPosition p = cpu_conv_position(&plan->c, first);
        for (size_t i = 0; i < count; i++, cpu_conv_advance(&plan->c, &p)) {
            const size_t at = cpu_conv_output(&plan->c, &p) * conv->features + group * og;
            memcpy(rows + i * og * plan->item, plan->g + at * plan->item, og * plan->item);
        }
        product.a = rows;
        product.a_col = (ptrdiff_t)og;
    }
    cpu_gemm(&product);
    float *sums = plan->sums + group * og * plan->depth;
    cpu_binary(CPU_ADD, CPU_F32, sums, sums, 1, product_items, 1, og * plan->depth);
}

static void sum_groups(void *context, size_t begin, size_t end, int thread) {
    const Plan *plan = context;
    char *patches = take_patches(plan);
    char *rows = plan->c.whole ? NULL : cpu_scratch_take(plan->tile * plan->og * plan->item);
    float *product = cpu_scratch_take(plan->og * plan->depth * sizeof(float));
    (void)thread;
    for (size_t group = begin; group < end; group++)
        for (size_t tile = 0; tile < plan->tiles; tile++)
            sum_tile(plan, tile, group, patches, rows, product);
    cpu_scratch_give(patches);
    cpu_scratch_give(rows);
    cpu_scratch_give(product);
}

/* The sums to the places of the class in the kernel. */
static void unpack_sums(const Plan *plan, char *weight) {
    const CpuConv *conv = plan->c.conv;
    const ConvAxisClass *axis = plan->c.axis;
    const size_t items = cpu_conv_kernel_items(conv);
    const float *in = plan->sums;
    size_t tap[3];
    for (size_t o = 0; o < conv->features; o++)
        for (tap[0] = 0; tap[0] < axis[0].n_taps; tap[0]++)
            for (tap[1] = 0; tap[1] < axis[1].n_taps; tap[1]++)
                for (tap[2] = 0; tap[2] < axis[2].n_taps; tap[2]++, in += plan->cg) {
                    const size_t at = o * items + cpu_conv_kernel_item(&plan->c, tap);
                    cpu_convert(weight + at * plan->cg * plan->item, conv->type, in, CPU_F32,
                                plan->cg);
                }
}

void cpu_conv_weight(const CpuConv *conv, const void *g, void *weight) {
    memset(weight, 0,
           conv->features * cpu_conv_kernel_items(conv) * (conv->channels / conv->groups) *
               cpu_type_size(conv->type));
    for (size_t i = 0; i < cpu_conv_class_count(conv); i++) {
        Plan plan = make_plan(conv, i);
        if (plan.depth == 0 || plan.c.positions == 0) continue;
        if (cpu_conv_is_depthwise(conv)) {
            cpu_conv_depthwise_weight(&plan.c, g, weight);
            continue;
        }
        plan.g = g;
        plan.sums = cpu_scratch_take(conv->features * plan.depth * sizeof(float));
        memset(plan.sums, 0, conv->features * plan.depth * sizeof(float));
        if (conv->groups == 1)
            sum_groups(&plan, 0, 1, 0);
        else
            base_parallel_for(conv->groups, 1, sum_groups, &plan);
        unpack_sums(&plan, weight);
        cpu_scratch_give(plan.sums);
    }
}
