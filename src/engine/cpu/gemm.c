/* The blocked, packed product C = alpha A B + beta D for every operand type.
 *
 *   for each block of up to 1024 rows of C and 1024 columns
 *     for each block of k, 320 at most
 *       pack A [rows, k] to panels [k][mr], B [k, cols] to panels [k][nr]
 *       every tile of C += A panel * B panel     (registers, first-level cache)
 *   C = alpha C + beta D, in C's type
 *
 * Packing turns every storage type, stride and quantised layout into the same
 * float32 panels, so there is one tile a processor; with bf16 dot products and
 * bf16 operands the panels are pairs of bf16 instead. Threads share the panels
 * and take tiles from a counter. Few rows stream B instead (dense), or go to
 * the quantised kernels of quant_matmul.c. */
#include "base/base.h"
#include "cpu/matmul.h"

#include <stdatomic.h>
#include <string.h>

enum { BLOCK_M = 1024, BLOCK_N = 1024, BLOCK_K = 320, QUANT_K = 256, TASK_N = 256, TASK_M = 96 };
/* Up to here B is read once, unpacked: with contiguous k, with contiguous n. */
enum { STREAM_DOT_M = 16, STREAM_SUM_M = 8 };

/* A as [outer = m, inner = k], B as [outer = n, inner = k]. */
typedef struct Side {
    const char *data;
    CpuType type;
    ptrdiff_t outer, inner;
    const CpuQuant *quant; /* instead of data */
    bool quant_transposed; /* its rows are the outer dimension */
} Side;

typedef struct Plan {
    const CpuGemm *g;
    Side a, b;
    bool bf16;
    size_t mr, nr;
    GemmTile tile;
    size_t m0, mb, n0, nb, k0, kb; /* the block in work */
    char *a_panels, *b_panels;     /* 4 bytes an entry of f32 or pair of bf16 */
    float *c;                      /* the block's float32 result */
    ptrdiff_t c_row;
    _Atomic size_t next_task;
    size_t tasks_m, tasks_n;
} Plan;

/* Entries of a panel's depth: single k, or pairs. */
static size_t depth(const Plan *plan) {
    return plan->bf16 ? (plan->kb + 1) / 2 : plan->kb;
}

/* `count` quantised outer rows from `first`, k0..k0+kb of each. The row
 * pointers move to k0, a multiple of every group. */
static void pack_quant_rows(const CpuQuant *q, size_t first, size_t count, size_t k0, size_t kb,
                            size_t width, float *out) {
    const Kernels *kernels = cpu_kernels();
    size_t groups = q->cols / (size_t)q->group,
           used = (kb + (size_t)q->group - 1) / (size_t)q->group;
    float scales[QUANT_K / 16], biases[QUANT_K / 16];
    float *rows = cpu_scratch_take(width * kb * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        cpu_quant_scales(q, (first + i) * groups + k0 / (size_t)q->group, used, scales, biases);
        const uint32_t *row = q->words + ((first + i) * q->cols + k0) * (size_t)q->bits / 32;
        kernels->dequant[q->mode](row, q->bits, 0, kb, q->group, scales, biases, rows + i * kb);
    }
    kernels->pack_rows(out, width, rows, (ptrdiff_t)(kb * sizeof(float)), count, kb);
    cpu_scratch_give(rows);
}

/* Columns first.. of quantised rows k0..: groups run along the panel. */
static void pack_quant_columns(const CpuQuant *q, size_t first, size_t count, size_t k0, size_t kb,
                               size_t width, float *out) {
    const Kernels *kernels = cpu_kernels();
    size_t group = (size_t)q->group, groups = q->cols / group;
    size_t base = first / 128 * 128, from = first % 128 / 32 * 32;
    size_t last = BASE_MIN((first + count + 31) / 32 * 32, q->cols) - base;
    size_t used = (last + group - 1) / group;
    float scales[16], biases[16], wide[192];
    for (size_t p = 0; p < kb; p++) {
        cpu_quant_scales(q, (k0 + p) * groups + base / group, used, scales, biases);
        const uint32_t *row = q->words + ((k0 + p) * q->cols + base) * (size_t)q->bits / 32;
        kernels->dequant[q->mode](row, q->bits, from, last - from, q->group, scales, biases, wide);
        memcpy(out + p * width, wide + (first - base - from), count * sizeof(float));
        for (size_t j = count; j < width; j++) out[p * width + j] = 0;
    }
}

static void pack_f32(const Plan *plan, const Side *side, size_t first, size_t count, size_t width,
                     float *out) {
    const Kernels *kernels = cpu_kernels();
    size_t k0 = plan->k0, kb = plan->kb, size = cpu_type_size(side->type);
    if (side->quant && side->quant_transposed) {
        pack_quant_rows(side->quant, first, count, k0, kb, width, out);
        return;
    }
    if (side->quant) {
        pack_quant_columns(side->quant, first, count, k0, kb, width, out);
        return;
    }
    const char *start =
        side->data +
        ((ptrdiff_t)first * side->outer + (ptrdiff_t)k0 * side->inner) * (ptrdiff_t)size;
    if (side->inner == 1 && side->type == CPU_F32) {
        kernels->pack_rows(out, width, start, side->outer * 4, count, kb);
    } else if (side->inner == 1) {
        float *rows = cpu_scratch_take(width * kb * sizeof(float));
        for (size_t i = 0; i < count; i++)
            kernels->to_f32[side->type](rows + i * kb,
                                        start + (ptrdiff_t)i * side->outer * (ptrdiff_t)size, kb);
        kernels->pack_rows(out, width, rows, (ptrdiff_t)(kb * sizeof(float)), count, kb);
        cpu_scratch_give(rows);
    } else {
        for (size_t p = 0; p < kb; p++) {
            const char *column = start + (ptrdiff_t)p * side->inner * (ptrdiff_t)size;
            float *target = out + p * width;
            if (side->outer == 1)
                kernels->to_f32[side->type](target, column, count);
            else
                for (size_t i = 0; i < count; i++)
                    target[i] = cpu_load(column + (ptrdiff_t)i * side->outer * (ptrdiff_t)size,
                                         side->type, 0);
            for (size_t i = count; i < width; i++) target[i] = 0;
        }
    }
}

/* Pairs of neighbouring k as 32-bit items; an odd last k pairs with zero. */
static void pack_bf16(const Plan *plan, const Side *side, size_t first, size_t count, size_t width,
                      uint16_t *out) {
    const uint16_t *start = (const uint16_t *)(const void *)side->data +
                            (ptrdiff_t)first * side->outer + (ptrdiff_t)plan->k0 * side->inner;
    size_t pairs = plan->kb / 2;
    if (side->inner == 1)
        cpu_kernels()->pack_rows((float *)(void *)out, width, start, side->outer * 2, count, pairs);
    for (size_t p = side->inner == 1 ? pairs : 0; p < (plan->kb + 1) / 2; p++) {
        const uint16_t *low = start + (ptrdiff_t)(2 * p) * side->inner;
        uint16_t *target = out + p * width * 2;
        bool whole = 2 * p + 1 < plan->kb;
        for (size_t i = 0; i < width; i++) {
            const uint16_t *item = low + (ptrdiff_t)i * side->outer;
            target[2 * i] = i < count ? item[0] : 0;
            target[2 * i + 1] = i < count && whole ? item[side->inner] : 0;
        }
    }
}

static size_t panels(size_t count, size_t width) {
    return (count + width - 1) / width;
}

static void pack_slice(void *context, size_t begin, size_t end, int thread) {
    Plan *plan = context;
    size_t a_count = panels(plan->mb, plan->mr);
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        bool of_a = i < a_count;
        const Side *side = of_a ? &plan->a : &plan->b;
        size_t width = of_a ? plan->mr : plan->nr, index = of_a ? i : i - a_count;
        size_t size = of_a ? plan->mb : plan->nb, origin = of_a ? plan->m0 : plan->n0;
        char *out = (of_a ? plan->a_panels : plan->b_panels) + index * width * depth(plan) * 4;
        size_t count = BASE_MIN(width, size - index * width);
        if (plan->bf16)
            pack_bf16(plan, side, origin + index * width, count, width, (uint16_t *)(void *)out);
        else
            pack_f32(plan, side, origin + index * width, count, width, (float *)(void *)out);
    }
}

/* Tiles of rows [m_begin, m_end) and columns [n_begin, n_end) of the block,
 * which start at whole panels. */
static void run_task(Plan *plan, size_t m_begin, size_t m_end, size_t n_begin, size_t n_end) {
    enum { LARGEST_TILE = 64 * 64 };
    float edge[LARGEST_TILE] __attribute__((aligned(64)));
    size_t deep = depth(plan);
    bool accumulate = plan->k0 > 0;
    for (size_t j = n_begin; j < n_end; j += plan->nr)
        for (size_t i = m_begin; i < m_end; i += plan->mr) {
            const char *a = plan->a_panels + i * deep * 4, *b = plan->b_panels + j * deep * 4;
            float *c = plan->c + (ptrdiff_t)i * plan->c_row + (ptrdiff_t)j;
            size_t rows = BASE_MIN(plan->mr, m_end - i), cols = BASE_MIN(plan->nr, n_end - j);
            if (rows == plan->mr && cols == plan->nr) {
                plan->tile(deep, a, b, c, plan->c_row, accumulate);
                continue;
            }
            plan->tile(deep, a, b, edge, (ptrdiff_t)plan->nr, false);
            for (size_t r = 0; r < rows; r++)
                for (size_t s = 0; s < cols; s++) {
                    float *target = c + (ptrdiff_t)r * plan->c_row + (ptrdiff_t)s;
                    *target =
                        accumulate ? *target + edge[r * plan->nr + s] : edge[r * plan->nr + s];
                }
        }
}

static size_t task_rows(const Plan *plan) {
    return panels(TASK_M, plan->mr) * plan->mr;
}
static size_t task_columns(const Plan *plan) {
    return TASK_N / plan->nr * plan->nr;
}

static void compute_slice(void *context, size_t begin, size_t end, int thread) {
    Plan *plan = context;
    size_t total = plan->tasks_m * plan->tasks_n, tm = task_rows(plan), tn = task_columns(plan);
    (void)begin;
    (void)end;
    (void)thread;
    for (;;) {
        size_t task = atomic_fetch_add_explicit(&plan->next_task, 1, memory_order_relaxed);
        if (task >= total) return;
        size_t m = task % plan->tasks_m * tm, n = task / plan->tasks_m * tn;
        run_task(plan, m, BASE_MIN(m + tm, plan->mb), n, BASE_MIN(n + tn, plan->nb));
    }
}

/* The block's rows to C: alpha, D, beta, and C's type. */
static void finish_slice(void *context, size_t begin, size_t end, int thread) {
    Plan *plan = context;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        cpu_gemm_finish_row(plan->g, plan->m0 + i, plan->n0, plan->nb,
                            plan->c + (ptrdiff_t)i * plan->c_row);
}

void cpu_gemm_finish_row(const CpuGemm *g, size_t row, size_t n0, size_t n, float *values) {
    const Kernels *kernels = cpu_kernels();
    if (g->alpha != 1.0f) kernels->scale_shift(values, values, 0.0f, g->alpha, n);
    if (g->add) {
        float wide[256];
        const char *start =
            (const char *)g->add + ((ptrdiff_t)row * g->add_row + (ptrdiff_t)n0 * g->add_col) *
                                       (ptrdiff_t)cpu_type_size(g->add_type);
        for (size_t j = 0; j < n; j += 256) {
            size_t count = BASE_MIN((size_t)256, n - j);
            const char *from =
                start + (ptrdiff_t)j * g->add_col * (ptrdiff_t)cpu_type_size(g->add_type);
            if (g->add_col == 1)
                kernels->to_f32[g->add_type](wide, from, count);
            else
                for (size_t s = 0; s < count; s++)
                    wide[s] = cpu_load(from + (ptrdiff_t)s * g->add_col *
                                                  (ptrdiff_t)cpu_type_size(g->add_type),
                                       g->add_type, 0);
            kernels->add_scaled(values + j, values + j, g->beta, wide, count);
        }
    }
    char *out = (char *)g->c +
                ((ptrdiff_t)row * g->c_row + (ptrdiff_t)n0) * (ptrdiff_t)cpu_type_size(g->c_type);
    kernels->from_f32[g->c_type](out, values, n);
}

static bool needs_finish(const CpuGemm *g) {
    return g->c_type != CPU_F32 || g->alpha != 1.0f || g->add;
}

/* Equal blocks of k: a short last one would read and write C for little. Whole
 * groups where B is quantised. */
static size_t depth_block(const CpuGemm *g, bool bf16) {
    if (g->quant) return BASE_MIN(g->k, (size_t)QUANT_K);
    size_t most = bf16 ? 2 * BLOCK_K : BLOCK_K, blocks = (g->k + most - 1) / most;
    return ((g->k + blocks - 1) / blocks + 7) / 8 * 8;
}

static void run_block(Plan *plan) {
    const CpuGemm *g = plan->g;
    size_t block_k = depth_block(g, plan->bf16);
    for (plan->k0 = 0; plan->k0 < g->k; plan->k0 += block_k) {
        plan->kb = BASE_MIN(block_k, g->k - plan->k0);
        size_t a_count = panels(plan->mb, plan->mr), b_count = panels(plan->nb, plan->nr);
        base_parallel_for(a_count + b_count, BASE_MAX((size_t)1, 8192 / (plan->nr * plan->kb)),
                          pack_slice, plan);
        plan->tasks_m = panels(plan->mb, task_rows(plan));
        plan->tasks_n = panels(plan->nb, task_columns(plan));
        atomic_store(&plan->next_task, 0);
        size_t work = plan->mb * plan->nb * plan->kb;
        size_t workers = BASE_MIN((size_t)base_threads(), plan->tasks_m * plan->tasks_n);
        base_parallel_for(work < 65536 ? 1 : workers, 1, compute_slice, plan);
    }
    if (needs_finish(g)) base_parallel_for(plan->mb, 16, finish_slice, plan);
}

static void run_packed(const CpuGemm *g) {
    const Kernels *kernels = cpu_kernels();
    Plan plan = {.g = g,
                 .a = {.data = g->a, .type = g->a_type, .outer = g->a_row, .inner = g->a_col},
                 .b = {.data = g->b,
                       .type = g->b_type,
                       .outer = g->b_col,
                       .inner = g->b_row,
                       .quant = g->quant,
                       .quant_transposed = g->quant_transposed},
                 .mr = kernels->mr,
                 .nr = kernels->nr,
                 .tile = kernels->tile};
    if (kernels->bf16_mr && !g->quant && g->a_type == CPU_BF16 && g->b_type == CPU_BF16) {
        plan.bf16 = true;
        plan.mr = kernels->bf16_mr;
        plan.nr = kernels->bf16_nr;
        plan.tile = kernels->bf16_tile;
    }
    size_t block_m = panels(BASE_MIN(g->m, (size_t)BLOCK_M), plan.mr) * plan.mr;
    size_t block_n = panels(BASE_MIN(g->n, (size_t)BLOCK_N), plan.nr) * plan.nr;
    size_t block_k = depth_block(g, plan.bf16) + 1;
    plan.a_panels = cpu_scratch_take(block_m * block_k * 4);
    plan.b_panels = cpu_scratch_take(block_n * block_k * 4);
    float *block =
        g->c_type == CPU_F32 ? NULL : cpu_scratch_take(block_m * block_n * sizeof(float));
    for (plan.m0 = 0; plan.m0 < g->m; plan.m0 += block_m)
        for (plan.n0 = 0; plan.n0 < g->n; plan.n0 += block_n) {
            plan.mb = BASE_MIN(block_m, g->m - plan.m0);
            plan.nb = BASE_MIN(block_n, g->n - plan.n0);
            plan.c =
                block ? block : (float *)g->c + (ptrdiff_t)plan.m0 * g->c_row + (ptrdiff_t)plan.n0;
            plan.c_row = block ? (ptrdiff_t)block_n : g->c_row;
            run_block(&plan);
        }
    cpu_scratch_give(plan.a_panels);
    cpu_scratch_give(plan.b_panels);
    cpu_scratch_give(block);
}

typedef struct Stream {
    const CpuGemm *g;
    const float *x; /* [m, k] */
    float *y;       /* [m, y_row] */
    ptrdiff_t y_row;
} Stream;

static void stream_slice(void *context, size_t begin, size_t end, int thread) {
    const Stream *s = context;
    const CpuGemm *g = s->g;
    const Kernels *kernels = cpu_kernels();
    const char *b =
        (const char *)g->b + (ptrdiff_t)begin * g->b_col * (ptrdiff_t)cpu_type_size(g->b_type);
    (void)thread;
    if (g->b_row == 1) {
        kernels->dot_rows[g->b_type](b, g->b_col, end - begin, g->k, s->x, g->k, g->m, s->y + begin,
                                     s->y_row);
        return;
    }
    for (size_t i = 0; i < g->m; i++)
        memset(s->y + (ptrdiff_t)i * s->y_row + (ptrdiff_t)begin, 0, (end - begin) * sizeof(float));
    kernels->sum_rows[g->b_type](b, g->b_row, g->k, end - begin, s->x, g->k, g->m, s->y + begin,
                                 s->y_row);
}

/* Rows of A as contiguous float32. */
void cpu_gemm_widen(const CpuGemm *g, float *out) {
    const Kernels *kernels = cpu_kernels();
    size_t size = cpu_type_size(g->a_type);
    for (size_t i = 0; i < g->m; i++) {
        const char *row = (const char *)g->a + (ptrdiff_t)i * g->a_row * (ptrdiff_t)size;
        if (g->a_col == 1)
            kernels->to_f32[g->a_type](out + i * g->k, row, g->k);
        else
            for (size_t p = 0; p < g->k; p++)
                out[i * g->k + p] =
                    cpu_load(row + (ptrdiff_t)p * g->a_col * (ptrdiff_t)size, g->a_type, 0);
    }
}

static void run_streamed(const CpuGemm *g) {
    float *x = NULL, *y = NULL;
    Stream stream = {.g = g, .x = g->a, .y = g->c, .y_row = g->c_row};
    if (g->a_type != CPU_F32 || g->a_col != 1 || (g->m > 1 && g->a_row != (ptrdiff_t)g->k)) {
        x = cpu_scratch_take(g->m * g->k * sizeof(float));
        cpu_gemm_widen(g, x);
        stream.x = x;
    }
    if (g->c_type != CPU_F32) {
        y = cpu_scratch_take(g->m * g->n * sizeof(float));
        stream.y = y;
        stream.y_row = (ptrdiff_t)g->n;
    }
    base_parallel_for(g->n, BASE_MAX((size_t)16, 32768 / g->k), stream_slice, &stream);
    if (needs_finish(g))
        for (size_t i = 0; i < g->m; i++)
            cpu_gemm_finish_row(g, i, 0, g->n, stream.y + (ptrdiff_t)i * stream.y_row);
    cpu_scratch_give(x);
    cpu_scratch_give(y);
}

/* k = 0: beta * D alone. */
static void run_empty(const CpuGemm *g) {
    float *zeros = cpu_scratch_take(g->n * sizeof(float));
    for (size_t i = 0; i < g->m; i++) {
        memset(zeros, 0, g->n * sizeof(float));
        cpu_gemm_finish_row(g, i, 0, g->n, zeros);
    }
    cpu_scratch_give(zeros);
}

static bool streams(const CpuGemm *g) {
    if (g->quant) return false;
    return (g->b_row == 1 && g->m <= STREAM_DOT_M) || (g->b_col == 1 && g->m <= STREAM_SUM_M);
}

void cpu_gemm(const CpuGemm *g) {
    if (g->m == 0 || g->n == 0) return;
    if (g->k == 0)
        run_empty(g);
    else if (g->quant && g->quant_transposed && cpu_quant_product(g))
        return;
    else if (streams(g))
        run_streamed(g);
    else
        run_packed(g);
}

static void batch_slice(void *context, size_t begin, size_t end, int thread) {
    const CpuGemm *products = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) cpu_gemm(&products[i]);
}

void cpu_gemm_batch(const CpuGemm *products, size_t count) {
    size_t threads = (size_t)base_threads();
    /* A batch that divides well over threads needs no threads inside. */
    if (count >= 4 * threads || (count > 1 && count % threads == 0))
        base_parallel_for(count, 1, batch_slice, (void *)(uintptr_t)products);
    else
        batch_slice((void *)(uintptr_t)products, 0, count, 0);
}
