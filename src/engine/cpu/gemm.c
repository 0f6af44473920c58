/* The blocked, packed product C = alpha A B + beta D for every operand type.
 *
 *   for each block of rows of C
 *     pack A [rows, k] to panels [k][mr], in blocks of k, 384 at most
 *     for each strip of columns (the threads share them)
 *       for each block of k
 *         pack B [k, strip] to panels [k][nr]
 *         every tile of C += A panel * B panel   (registers, first-level cache)
 *       C = alpha C + beta D, in C's type
 *
 * A thread packs the strip that it then uses and keeps the strip of C in its
 * second-level cache until it is finished: memory sees A and B once a block of
 * rows, C once. Packing turns every storage type, stride and quantised layout
 * into the same float32 panels, so there is one tile a processor; with bf16 dot
 * products and bf16 operands the panels are pairs of bf16 instead. Few rows
 * stream B instead (dense), or go to the quantised kernels of quant_matmul.c;
 * more rows of half types with quantised weights go to those of quant_many.c. */
#include "base/base.h"
#include "cpu/matmul.h"

#include <stdatomic.h>
#include <string.h>

enum { BLOCK_M = 1024, BLOCK_K = 384, QUANT_K = 256, STRIP_N = 256, CHUNK_M = 96 };
enum { NARROW_K = 256 };     /* of panels of 16: with one of A they fill half of 32 KB */
enum { C_PADDING = 16 };     /* floats between rows of a strip */
enum { A_BYTES = 32 << 20 }; /* of the packed rows, which are fewer where k is long */
/* Up to here B is read once, unpacked: with contiguous k, with contiguous n. */
enum { STREAM_DOT_M = 16, STREAM_SUM_M = 8 };

typedef struct Plan {
    const CpuGemm *g;
    GemmSide a, b;
    bool bf16;
    size_t mr, nr, half_mr, block_k;
    GemmTile tile, half_tile;
    size_t m0, mb;  /* the block of rows in work */
    char *a_panels; /* [blocks of k][panels][k][mr], 4 bytes an f32 or pair of bf16 */
    GemmTasks tasks;
    _Atomic size_t next_task;
} Plan;

/* Entries of a panel that is kb deep: single k, or pairs. */
static size_t depth(const Plan *plan, size_t kb) {
    return plan->bf16 ? (kb + 1) / 2 : kb;
}

void cpu_gemm_dequantize(const CpuQuant *q, size_t first, size_t count, size_t k0, size_t kb,
                         float *out) {
    const size_t group = (size_t)q->group, groups = q->cols / group;
    float scales[QUANT_K / 16], biases[QUANT_K / 16];
    for (size_t i = 0; i < count; i++) {
        cpu_quant_scales(q, (first + i) * groups + k0 / group, (kb + group - 1) / group, scales,
                         biases);
        const uint32_t *row = q->words + ((first + i) * q->cols + k0) * (size_t)q->bits / 32;
        cpu_kernels()->dequant[q->mode](row, q->bits, 0, kb, q->group, scales, biases,
                                        out + i * kb);
    }
}

static void pack_quant_rows(const CpuQuant *q, size_t first, size_t count, size_t k0, size_t kb,
                            size_t width, float *out) {
    float *rows = cpu_scratch_take(width * kb * sizeof(float));
    cpu_gemm_dequantize(q, first, count, k0, kb, rows);
    cpu_kernels()->pack_rows(out, width, rows, (ptrdiff_t)(kb * sizeof(float)), count, kb);
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

GemmSide cpu_gemm_a(const CpuGemm *g) {
    return (GemmSide){.data = g->a, .type = g->a_type, .outer = g->a_row, .inner = g->a_col};
}

GemmSide cpu_gemm_b(const CpuGemm *g) {
    return (GemmSide){.data = g->b,
                      .type = g->b_type,
                      .outer = g->b_col,
                      .inner = g->b_row,
                      .quant = g->quant,
                      .quant_transposed = g->quant_transposed};
}

void cpu_gemm_pack(const GemmSide *side, size_t first, size_t count, size_t k0, size_t kb,
                   size_t width, float *out) {
    const Kernels *kernels = cpu_kernels();
    size_t size = cpu_type_size(side->type);
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
    } else if (side->inner == 1 && side->type == CPU_BF16 && kernels->pack_rows_bf16) {
        kernels->pack_rows_bf16(out, width, start, side->outer * 2, count, kb);
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
static void pack_bf16(const GemmSide *side, size_t first, size_t count, size_t k0, size_t kb,
                      size_t width, uint16_t *out) {
    const uint16_t *start = (const uint16_t *)(const void *)side->data +
                            (ptrdiff_t)first * side->outer + (ptrdiff_t)k0 * side->inner;
    size_t pairs = kb / 2;
    if (side->inner == 1)
        cpu_kernels()->pack_rows((float *)(void *)out, width, start, side->outer * 2, count, pairs);
    for (size_t p = side->inner == 1 ? pairs : 0; p < (kb + 1) / 2; p++) {
        const uint16_t *low = start + (ptrdiff_t)(2 * p) * side->inner;
        uint16_t *target = out + p * width * 2;
        bool whole = 2 * p + 1 < kb;
        for (size_t i = 0; i < width; i++) {
            const uint16_t *item = low + (ptrdiff_t)i * side->outer;
            target[2 * i] = i < count ? item[0] : 0;
            target[2 * i + 1] = i < count && whole ? item[side->inner] : 0;
        }
    }
}

/* One panel: `count` of A's rows or B's columns from `first`, `width` wide. */
static void pack_panel(const Plan *plan, const GemmSide *side, size_t first, size_t count,
                       size_t k0, size_t kb, size_t width, char *out) {
    if (plan->bf16)
        pack_bf16(side, first, count, k0, kb, width, (uint16_t *)(void *)out);
    else
        cpu_gemm_pack(side, first, count, k0, kb, width, (float *)(void *)out);
}

/* Where the packed rows of a block of k begin. */
static char *a_block(const Plan *plan, size_t k0) {
    return plan->a_panels + cpu_pieces(plan->mb, plan->mr) * plan->mr * depth(plan, k0) * 4;
}

static void pack_slice(void *context, size_t begin, size_t end, int thread) {
    Plan *plan = context;
    const size_t count = cpu_pieces(plan->mb, plan->mr), k = plan->g->k, mr = plan->mr;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const size_t k0 = i / count * plan->block_k, row = i % count * mr;
        const size_t kb = BASE_MIN(plan->block_k, k - k0);
        pack_panel(plan, &plan->a, plan->m0 + row, BASE_MIN(mr, plan->mb - row), k0, kb, mr,
                   a_block(plan, k0) + row * depth(plan, kb) * 4);
    }
}

/* One strip of C in work: rows and columns of the block, its float32 values. */
typedef struct Strip {
    size_t m, rows, n, columns;
    char *b_panels; /* [panels][k][nr] */
    float *c;       /* [rows, c_row] */
    ptrdiff_t c_row;
    bool finish; /* they have yet to become C */
} Strip;

static void run_tile(const Plan *plan, const Strip *strip, size_t i, size_t j, size_t k0,
                     size_t kb) {
    enum { LARGEST_TILE = 64 * 64 };
    float edge[LARGEST_TILE] __attribute__((aligned(64)));
    const size_t deep = depth(plan, kb), nr = plan->nr;
    const char *a = a_block(plan, k0) + (strip->m + i) * deep * 4;
    const char *b = strip->b_panels + j * deep * 4;
    float *c = strip->c + (ptrdiff_t)i * strip->c_row + (ptrdiff_t)j;
    const size_t rows = BASE_MIN(plan->mr, strip->rows - i);
    const size_t columns = BASE_MIN(nr, strip->columns - j);
    const bool accumulate = k0 > 0, half = rows <= plan->half_mr;
    const GemmTile tile = half ? plan->half_tile : plan->tile;
    if (rows == (half ? plan->half_mr : plan->mr) && columns == nr) {
        tile(deep, a, b, c, strip->c_row, accumulate);
        return;
    }
    tile(deep, a, b, edge, (ptrdiff_t)nr, false);
    for (size_t r = 0; r < rows; r++)
        for (size_t s = 0; s < columns; s++) {
            float *target = c + (ptrdiff_t)r * strip->c_row + (ptrdiff_t)s;
            *target = accumulate ? *target + edge[r * nr + s] : edge[r * nr + s];
        }
}

/* Calls for the lines of C where the tile's values will go. */
static void expect_tile(const Plan *plan, const Strip *strip, size_t i, size_t j) {
    const CpuGemm *g = plan->g;
    const ptrdiff_t size = (ptrdiff_t)cpu_type_size(g->c_type);
    const char *c = g->c;
    c += ((ptrdiff_t)(plan->m0 + strip->m + i) * g->c_row + (ptrdiff_t)(strip->n + j)) * size;
    for (size_t r = 0; r < BASE_MIN(plan->mr, strip->rows - i); r++)
        __builtin_prefetch(c + (ptrdiff_t)r * g->c_row * size, 1);
}

/* The strip += its rows of A times its columns of B for one block of k. A chunk
 * of A stays in the second-level cache while it meets every panel of B, and so do
 * its rows of the strip, which become C there after the last block. */
static void run_tiles(const Plan *plan, const Strip *strip, size_t k0, size_t kb) {
    const CpuGemm *g = plan->g;
    const size_t mr = plan->mr, chunk = cpu_pieces(CHUNK_M, mr) * mr;
    const bool finish = strip->finish && k0 + kb == g->k;
    for (size_t first = 0; first < strip->rows; first += chunk) {
        const size_t end = BASE_MIN(first + chunk, strip->rows);
        for (size_t j = 0; j < strip->columns; j += plan->nr)
            for (size_t i = first; i < end; i += mr) {
                if (finish) expect_tile(plan, strip, i, j);
                run_tile(plan, strip, i, j, k0, kb);
            }
        for (size_t i = first; finish && i < end; i++)
            cpu_gemm_finish_row(g, plan->m0 + strip->m + i, strip->n, strip->columns,
                                strip->c + (ptrdiff_t)i * strip->c_row);
    }
}

static void run_strip(const Plan *plan, const Strip *strip) {
    const CpuGemm *g = plan->g;
    for (size_t k0 = 0; k0 < g->k; k0 += plan->block_k) {
        const size_t kb = BASE_MIN(plan->block_k, g->k - k0);
        for (size_t j = 0; j < strip->columns; j += plan->nr)
            pack_panel(plan, &plan->b, strip->n + j, BASE_MIN(plan->nr, strip->columns - j), k0, kb,
                       plan->nr, strip->b_panels + j * depth(plan, kb) * 4);
        run_tiles(plan, strip, k0, kb);
    }
}

static void task_slice(void *context, size_t begin, size_t end, int thread) {
    Plan *plan = context;
    const CpuGemm *g = plan->g;
    /* Rows of C far apart share few places of the first-level cache: a strip that
     * is added to again and again is kept close together. */
    const bool direct = g->c_type == CPU_F32 && g->k <= plan->block_k;
    const size_t width = plan->tasks.strip_n, c_row = width + C_PADDING;
    (void)begin;
    (void)end;
    (void)thread;
    char *b_panels = cpu_scratch_take(width * depth(plan, plan->block_k) * 4);
    float *c = direct ? NULL : cpu_scratch_take(plan->tasks.part_m * c_row * sizeof(float));
    for (;;) {
        const size_t task = atomic_fetch_add_explicit(&plan->next_task, 1, memory_order_relaxed);
        if (task >= plan->tasks.strips * plan->tasks.parts) break;
        Strip strip = {.m = task % plan->tasks.parts * plan->tasks.part_m,
                       .n = task / plan->tasks.parts * plan->tasks.strip_n,
                       .b_panels = b_panels,
                       .c = c,
                       .c_row = (ptrdiff_t)c_row,
                       .finish = !direct || g->alpha != 1.0f || g->add};
        strip.rows = BASE_MIN(plan->tasks.part_m, plan->mb - strip.m);
        strip.columns = BASE_MIN(plan->tasks.strip_n, g->n - strip.n);
        if (direct) {
            strip.c_row = g->c_row;
            strip.c =
                (float *)g->c + (ptrdiff_t)(plan->m0 + strip.m) * g->c_row + (ptrdiff_t)strip.n;
        }
        run_strip(plan, &strip);
    }
    cpu_scratch_give(b_panels);
    cpu_scratch_give(c);
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

/* Equal blocks of k: a short last one would read and write C for little. Whole
 * groups where B is quantised. */
static size_t depth_block(const CpuGemm *g, bool bf16) {
    if (g->quant) return BASE_MIN(g->k, (size_t)QUANT_K);
    const size_t single = cpu_kernels()->nr <= 16 ? NARROW_K : BLOCK_K;
    size_t most = bf16 ? 2 * BLOCK_K : single, blocks = (g->k + most - 1) / most;
    return ((g->k + blocks - 1) / blocks + 7) / 8 * 8;
}

GemmTasks cpu_gemm_tasks(size_t m, size_t n, size_t mr, size_t nr, size_t most_n) {
    const size_t threads = (size_t)base_threads(), wanted = 3 * threads;
    const size_t widest = BASE_MIN(cpu_pieces(cpu_pieces(n, wanted), nr), most_n / nr);
    GemmTasks best = {0};
    size_t least = SIZE_MAX;
    /* Of strips as wide, down to half: those that leave least to the busiest thread. */
    for (size_t panels = widest; panels > widest / 2; panels--) {
        GemmTasks tasks = {.strip_n = panels * nr, .strips = cpu_pieces(n, panels * nr)};
        const size_t parts = threads > 1 ? cpu_pieces(wanted, tasks.strips) : 1;
        tasks.part_m = cpu_pieces(cpu_pieces(m, parts), mr) * mr;
        tasks.parts = cpu_pieces(m, tasks.part_m);
        const size_t load =
            cpu_pieces(tasks.strips * tasks.parts, threads) * tasks.strip_n * tasks.part_m;
        if (load >= least) continue;
        least = load;
        best = tasks;
    }
    return best;
}

static void run_packed(const CpuGemm *g) {
    const Kernels *kernels = cpu_kernels();
    Plan plan = {.g = g,
                 .a = cpu_gemm_a(g),
                 .b = cpu_gemm_b(g),
                 .mr = kernels->mr,
                 .nr = kernels->nr,
                 .half_mr = kernels->half_mr,
                 .tile = kernels->tile,
                 .half_tile = kernels->half_tile};
    if (kernels->bf16_mr && !g->quant && g->a_type == CPU_BF16 && g->b_type == CPU_BF16) {
        plan.bf16 = true;
        plan.mr = kernels->bf16_mr;
        plan.nr = kernels->bf16_nr;
        plan.half_mr = kernels->bf16_half_mr;
        plan.tile = kernels->bf16_tile;
        plan.half_tile = kernels->bf16_half_tile;
    }
    plan.block_k = depth_block(g, plan.bf16);
    const size_t row_bytes = (depth(&plan, g->k) + 1) * 4;
    size_t block_m = BASE_MIN(BASE_MAX((size_t)A_BYTES / row_bytes, plan.mr), (size_t)BLOCK_M);
    block_m = cpu_pieces(BASE_MIN(g->m, block_m), plan.mr) * plan.mr;
    plan.a_panels = cpu_scratch_take(block_m * row_bytes);
    for (plan.m0 = 0; plan.m0 < g->m; plan.m0 += block_m) {
        plan.mb = BASE_MIN(block_m, g->m - plan.m0);
        base_parallel_for(cpu_pieces(plan.mb, plan.mr) * cpu_pieces(g->k, plan.block_k),
                          BASE_MAX((size_t)1, 8192 / (plan.mr * plan.block_k)), pack_slice, &plan);
        plan.tasks = cpu_gemm_tasks(plan.mb, g->n, plan.mr, plan.nr, STRIP_N);
        atomic_store(&plan.next_task, 0);
        const size_t tasks = plan.tasks.strips * plan.tasks.parts;
        const bool small = plan.mb * g->n * g->k < 65536;
        base_parallel_for(small ? 1 : BASE_MIN((size_t)base_threads(), tasks), 1, task_slice,
                          &plan);
    }
    cpu_scratch_give(plan.a_panels);
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

void cpu_gemm_widen_row(const CpuGemm *g, size_t row, float *out) {
    const size_t size = cpu_type_size(g->a_type);
    const char *items = (const char *)g->a + (ptrdiff_t)row * g->a_row * (ptrdiff_t)size;
    if (g->a_col == 1)
        cpu_kernels()->to_f32[g->a_type](out, items, g->k);
    else
        for (size_t p = 0; p < g->k; p++)
            out[p] = cpu_load(items + (ptrdiff_t)p * g->a_col * (ptrdiff_t)size, g->a_type, 0);
}

void cpu_gemm_widen(const CpuGemm *g, float *out) {
    for (size_t i = 0; i < g->m; i++) cpu_gemm_widen_row(g, i, out + i * g->k);
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
    if (y || g->alpha != 1.0f || g->add)
        for (size_t i = 0; i < g->m; i++)
            cpu_gemm_finish_row(g, i, 0, g->n, stream.y + (ptrdiff_t)i * stream.y_row);
    cpu_scratch_give(x);
    cpu_scratch_give(y);
}

static bool streams(const CpuGemm *g) {
    if (g->quant) return false;
    return (g->b_row == 1 && g->m <= STREAM_DOT_M) || (g->b_col == 1 && g->m <= STREAM_SUM_M);
}

/* Few columns: C' = B' A' streams A as it lies, where packing it would cost as much as
 * the product. */
static bool run_turned(const CpuGemm *g) {
    CpuGemm turned = {.m = g->n,
                      .n = g->m,
                      .k = g->k,
                      .a = g->b,
                      .a_type = g->b_type,
                      .a_row = g->b_col,
                      .a_col = g->b_row,
                      .b = g->a,
                      .b_type = g->a_type,
                      .b_row = g->a_col,
                      .b_col = g->a_row,
                      .c_row = (ptrdiff_t)g->m,
                      .alpha = 1};
    if (g->quant || g->k < 64 || g->m < 64 || !streams(&turned)) return false;
    float *columns = cpu_scratch_take(g->m * g->n * sizeof(float)), row[STREAM_DOT_M];
    turned.c = columns;
    run_streamed(&turned);
    for (size_t i = 0; i < g->m; i++) {
        for (size_t j = 0; j < g->n; j++) row[j] = columns[j * g->m + i];
        cpu_gemm_finish_row(g, i, 0, g->n, row);
    }
    cpu_scratch_give(columns);
    return true;
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

void cpu_gemm(const CpuGemm *g) {
    if (g->m == 0 || g->n == 0) return;
    if (g->k == 0)
        run_empty(g);
    else if (streams(g))
        run_streamed(g);
    else if (run_turned(g))
        return;
    else if (!cpu_quant_streams(g) && !cpu_gemm_split(g) && !cpu_quant_streams_more(g) &&
             !cpu_quant_pairs(g))
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
