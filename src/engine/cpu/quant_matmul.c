/* y = x W^T with quantised W and few rows of x: the activations are prepared once
 * (float32, and integers with a scale a group where a kernel wants them), then
 * threads share the weight rows and each word is read once. Activations that are
 * not finite use the blocked product of gemm.c, which unpacks to float32 panels. */
#include "base/base.h"
#include "cpu/matmul.h"

#include <stdatomic.h>
#include <string.h>

/* Rows up to which bytes of activations, which need no panels, are as fast as tiles
 * (measured): fewer of half types, whose tiles are twice as fast. */
enum { MORE_HALF = 16, MORE_F32 = 32 };
enum { SLACK = 16 }; /* floats a vector read may pass a row's end */

typedef struct Product {
    const CpuGemm *g;
    Activations x;
    ActivationLayout layout;
    float *f32, *scales, *sums;
    int16_t *fixed;
    int8_t *digits;
    _Atomic bool special; /* an activation is not finite */
} Product;

/* Products of one x by the GEMV: blocks of GEMV_ROWS weight rows, numbered through. */
typedef struct Gemv {
    Product product; /* the first, with the activations of all */
    size_t count;
    struct {
        const CpuQuant *quant;
        size_t first_block;
        float *y; /* [m, y_row] */
        ptrdiff_t y_row;
    } of[CPU_TOGETHER];
} Gemv;

static void fix_slice(void *context, size_t begin, size_t end, int thread) {
    Product *p = context;
    const CpuQuant *q = p->g->quant;
    const Kernels *kernels = cpu_kernels();
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const float *x = p->x.f32 + i * p->x.k;
        float *scales = p->scales + i * p->x.group_stride, *sums = p->sums + i * p->x.group_stride;
        for (size_t g = p->x.groups; g < p->x.group_stride; g++) scales[g] = sums[g] = 0;
        const bool finite =
            p->layout == LAYOUT_DIGITS
                ? kernels->digit_activations(x, p->x.k, q->group, q->bits, p->x.parts,
                                             p->digits + i * p->x.digit_stride, scales, sums)
                : kernels->fix_activations(x, p->x.k, q->group, p->x.parts,
                                           p->fixed + i * p->x.fixed_stride, p->x.plane, scales,
                                           sums);
        if (!finite) atomic_store_explicit(&p->special, true, memory_order_relaxed);
    }
}

static void prepare_activations(Product *p, ActivationLayout layout) {
    const CpuGemm *g = p->g;
    p->layout = layout;
    p->x = (Activations){.m = g->m,
                         .k = g->k,
                         .group = g->quant->group,
                         .groups = g->k / (size_t)g->quant->group,
                         .f32 = g->a};
    if (g->a_type != CPU_F32 || g->a_col != 1 || (g->m > 1 && g->a_row != (ptrdiff_t)g->k)) {
        p->f32 = cpu_scratch_take(g->m * g->k * sizeof(float));
        cpu_gemm_widen(g, p->f32);
        p->x.f32 = p->f32;
    }
    if (layout == LAYOUT_NONE) return;
    p->x.group_stride = p->x.groups + SLACK;
    p->scales = cpu_scratch_take(2 * g->m * p->x.group_stride * sizeof(float));
    p->sums = p->scales + g->m * p->x.group_stride;
    p->x.scales = p->scales;
    p->x.sums = p->sums;
    p->x.parts = g->a_type == CPU_F32 ? 2 : 1;
    if (layout == LAYOUT_DIGITS) {
        const size_t block = cpu_kernels()->digit_block[cpu_quant_kind(g->quant)];
        p->x.parts++;
        p->x.digit_stride = (g->k + block - 1) / block * block * (size_t)p->x.parts;
        p->x.digits = p->digits = cpu_scratch_take(g->m * p->x.digit_stride);
    } else {
        p->x.plane = g->k;
        p->x.fixed_stride = g->k * (size_t)p->x.parts;
        p->x.fixed = p->fixed = cpu_scratch_take(g->m * p->x.fixed_stride * sizeof *p->fixed);
    }
    base_parallel_for(g->m, BASE_MAX((size_t)1, 16384 / g->k), fix_slice, p);
}

static void release(Product *p) {
    cpu_scratch_give(p->f32);
    cpu_scratch_give(p->fixed);
    cpu_scratch_give(p->digits);
    cpu_scratch_give(p->scales);
}

/* Columns from.. of product i, computed as floats, become its result. */
static void finish_columns(const Gemv *gemv, size_t i, size_t from, size_t to) {
    const CpuGemm *g = &gemv->product.g[i];
    if (g->c_type == CPU_F32 && g->alpha == 1.0f && !g->add) return;
    for (size_t row = 0; row < g->m; row++) {
        float *values = gemv->of[i].y + (ptrdiff_t)row * gemv->of[i].y_row + from;
        cpu_gemm_finish_row(g, row, from, to - from, values);
    }
}

/* begin and end count blocks of all products. */
static void gemv_slice(void *context, size_t begin, size_t end, int thread) {
    const Gemv *gemv = context;
    (void)thread;
    for (size_t i = 0; i < gemv->count; i++) {
        const CpuQuant *q = gemv->of[i].quant;
        const size_t first = gemv->of[i].first_block, blocks = cpu_pieces(q->rows, GEMV_ROWS);
        if (end <= first || begin >= first + blocks) continue;
        const size_t from = (BASE_MAX(begin, first) - first) * GEMV_ROWS;
        const size_t to = BASE_MIN((BASE_MIN(end, first + blocks) - first) * GEMV_ROWS, q->rows);
        cpu_kernels()->quant_gemv[cpu_quant_kind(q)](q, from, to, &gemv->product.x, gemv->of[i].y,
                                                     gemv->of[i].y_row);
        finish_columns(gemv, i, from, to);
    }
}

/* products: of the same x, and of weights of one mode, width and group. */
static bool run_gemv(const CpuGemm *products, size_t count) {
    Gemv gemv = {.product = {.g = products}, .count = count};
    size_t blocks = 0, columns = 0;
    prepare_activations(&gemv.product,
                        cpu_kernels()->quant_layout[cpu_quant_kind(products->quant)]);
    if (gemv.product.special) {
        release(&gemv.product);
        return false;
    }
    for (size_t i = 0; i < count; i++)
        if (products[i].c_type != CPU_F32) columns += products[i].n;
    float *wide = columns ? cpu_scratch_take(products->m * columns * sizeof(float)) : NULL;
    float *next = wide;
    for (size_t i = 0; i < count; i++) {
        const CpuGemm *g = &products[i];
        const bool direct = g->c_type == CPU_F32;
        gemv.of[i].quant = g->quant;
        gemv.of[i].first_block = blocks;
        gemv.of[i].y = direct ? g->c : next;
        gemv.of[i].y_row = direct ? g->c_row : (ptrdiff_t)g->n;
        blocks += cpu_pieces(g->n, GEMV_ROWS);
        if (!direct) next += g->m * g->n;
    }
    base_parallel_for(blocks, BASE_MAX((size_t)1, 8192 / GEMV_ROWS / products->k), gemv_slice,
                      &gemv);
    cpu_scratch_give(wide);
    release(&gemv.product);
    return true;
}

bool cpu_quant_streams(const CpuGemm *g) {
    return g->quant && g->quant_transposed && g->m <= CPU_STREAMED_ROWS && run_gemv(g, 1);
}

bool cpu_quant_streams_more(const CpuGemm *g) {
    return g->quant && g->quant_transposed && g->m > CPU_STREAMED_ROWS &&
           cpu_kernels()->quant_layout[cpu_quant_kind(g->quant)] == LAYOUT_DIGITS &&
           g->m <= (g->a_type == CPU_F32 ? MORE_F32 : MORE_HALF) && run_gemv(g, 1);
}

static CpuGemm product_of(const CpuQuant *weights, size_t m, const void *x, CpuType x_type,
                          ptrdiff_t x_stride, void *y, CpuType y_type, ptrdiff_t y_stride) {
    return (CpuGemm){.m = m,
                     .n = weights->rows,
                     .k = weights->cols,
                     .a = x,
                     .a_type = x_type,
                     .a_row = x_stride,
                     .a_col = 1,
                     .quant = weights,
                     .quant_transposed = true,
                     .c = y,
                     .c_type = y_type,
                     .c_row = y_stride,
                     .alpha = 1};
}

void cpu_quant_matmul(const CpuQuant *weights, size_t m, const void *x, CpuType x_type,
                      ptrdiff_t x_stride, void *y, CpuType y_type, ptrdiff_t y_stride) {
    const CpuGemm product = product_of(weights, m, x, x_type, x_stride, y, y_type, y_stride);
    cpu_gemm(&product);
}

void cpu_quant_matmul_together(const CpuQuant *weights, size_t count, size_t m, const void *x,
                               CpuType x_type, void *const *y, CpuType y_type) {
    CpuGemm products[CPU_TOGETHER];
    bool streamed = m > 0 && m <= CPU_STREAMED_ROWS && count > 0 && weights->cols > 0;
    for (size_t i = 0; i < count; i++) {
        products[i] = product_of(&weights[i], m, x, x_type, (ptrdiff_t)weights->cols, y[i], y_type,
                                 (ptrdiff_t)weights[i].rows);
        streamed = streamed && weights[i].rows > 0;
    }
    if (streamed && run_gemv(products, count)) return;
    for (size_t i = 0; i < count; i++) cpu_gemm(&products[i]);
}
