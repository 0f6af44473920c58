/* The blocked product on a matrix unit that multiplies bf16: every operand is a
 * sum of bf16 parts, and as many products of parts are added as its type needs.
 *
 *   bf16                1 part, exact
 *   f16                 2 parts, exact: 4 products with another
 *   codes of weights    1 part, exact; groups meet their scales in float32
 *   f32                 3 parts, to 2^-24: 6 products with another
 *   weights otherwise   (groups of 16, rows along k) 2 parts with f16 and bf16,
 *                       to 2^-17; 3 with f32
 *
 * The loops are those of gemm.c. Numbers that have no parts (infinity, NaN,
 * above 2^127) make it give up, and the float32 product takes its place. */
#include "base/base.h"
#include "cpu/matmul.h"

#include <stdatomic.h>
#include <string.h>

enum { BLOCK_K = 256, BLOCK_M = 1024, STRIP_N = 256, CHUNK_M = 128, C_PADDING = 16 };
enum { A_BYTES = 32 << 20 }; /* of the packed rows, which are fewer where k is long */
enum { LEAST_CODES_M = CPU_STREAMED_ROWS + 1, LEAST_M = 12, LEAST_N = 16, LEAST_K = 32 };
/* Six products of parts keep a core's one matrix unit busy where two vector units
 * would need more threads to fill them. Measured on 16 threads of 8 cores: 160 against
 * 112 GFLOP/s of vectors on one thread, the same on 8, 1054 against 1575 on 16. */
enum { MOST_F32_THREADS = 8 };
enum { WIDTH = SPLIT_WIDTH, DEPTH = SPLIT_DEPTH };

typedef struct Split {
    const CpuGemm *g;
    GemmSide a, b;
    int a_parts, b_parts;
    size_t group; /* of codes; 0: numbers */
    GemmTile tile;
    size_t block_k, m0, mb;
    uint16_t *a_panels; /* [blocks of k][panels][k / DEPTH][parts][WIDTH * DEPTH] */
    GemmTasks tasks;
    _Atomic size_t next_task;
    _Atomic bool beyond;
} Split;

/* Behind a panel's parts: float32 sums of A's groups, scales and biases of B's. */
static size_t a_items(const Split *s, size_t kb) {
    return cpu_split_items(kb, s->a_parts) + (s->group ? kb / s->group * WIDTH * 2 : 0);
}

static size_t b_items(const Split *s, size_t kb) {
    return cpu_split_items(kb, s->b_parts) + (s->group ? kb / s->group * WIDTH * 4 : 0);
}

static float *a_sums(const Split *s, const uint16_t *panel, size_t kb) {
    return (float *)(uintptr_t)(panel + cpu_split_items(kb, s->a_parts));
}

static float *b_scales(const Split *s, const uint16_t *panel, size_t kb) {
    return (float *)(uintptr_t)(panel + cpu_split_items(kb, s->b_parts));
}

/* Where the panels of a block of k begin; all blocks before it are whole. */
static uint16_t *a_block(const Split *s, size_t k0) {
    return s->a_panels + cpu_pieces(s->mb, WIDTH) * a_items(s, k0);
}

/* What is taken from a code so that it lies around zero. */
static float middle(const CpuQuant *q) {
    return q->mode == CPU_AFFINE ? (float)(1 << (q->bits - 1)) : 0;
}

static void fp_scales(const CpuQuant *q, size_t first, size_t count, size_t group, size_t groups,
                      float *out) {
    float scales[BLOCK_K / DEPTH];
    memset(out, 0, groups * 2 * WIDTH * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        cpu_quant_scales(q, (first + i) * (q->cols / (size_t)q->group) + group, groups, scales,
                         NULL);
        for (size_t g = 0; g < groups; g++) out[2 * g * WIDTH + i] = scales[g];
    }
}

/* A panel of B: codes as numbers, then scales and biases of each group. */
static void pack_codes(const Split *s, size_t first, size_t count, size_t k0, size_t kb,
                       float *wide, uint16_t *out) {
    const CpuQuant *q = s->g->quant;
    const Kernels *kernels = cpu_kernels();
    const size_t row_words = q->cols * (size_t)q->bits / 32, groups = kb / s->group;
    const uint32_t *words = q->words + first * row_words + k0 * (size_t)q->bits / 32;
    float ones[BLOCK_K / DEPTH], middles[BLOCK_K / DEPTH], *scales = b_scales(s, out, kb);
    if (q->mode == CPU_AFFINE && (q->bits == 4 || q->bits == 8)) {
        kernels->split_codes[q->bits == 8](words, row_words, count, kb, out);
    } else {
        for (size_t g = 0; g < groups; g++) ones[g] = 1, middles[g] = -middle(q);
        for (size_t i = 0; i < count; i++)
            kernels->dequant[q->mode](words + i * row_words, q->bits, 0, kb, q->group, ones,
                                      middles, wide + i * kb);
        kernels->split_rows[1](wide, (ptrdiff_t)(kb * sizeof(float)), CPU_F32, count, kb, 1, out);
    }
    if (q->mode == CPU_AFFINE)
        kernels->split_scales(q, first, count, k0 / s->group, groups, middle(q), scales);
    else
        fp_scales(q, first, count, k0 / s->group, groups, scales);
}

/* One panel of A (side 0) or B (side 1); wide: [block_k, WIDTH]. */
static bool pack_panel(const Split *s, int side, size_t first, size_t count, size_t k0, size_t kb,
                       float *wide, uint16_t *out) {
    const GemmSide *from = side ? &s->b : &s->a;
    const int parts = side ? s->b_parts : s->a_parts;
    const Kernels *kernels = cpu_kernels();
    bool good = true;
    if (side && s->group) {
        pack_codes(s, first, count, k0, kb, wide, out);
    } else if (from->quant && from->quant_transposed) {
        cpu_gemm_dequantize(from->quant, first, count, k0, kb, wide);
        good = kernels->split_rows[side](wide, (ptrdiff_t)(kb * sizeof(float)), CPU_F32, count, kb,
                                         parts, out);
    } else if (!from->quant && (from->inner == 1 || from->outer == 1)) {
        const ptrdiff_t size = (ptrdiff_t)cpu_type_size(from->type);
        const bool rows = from->inner == 1;
        const char *at =
            from->data + ((ptrdiff_t)first * from->outer + (ptrdiff_t)k0 * from->inner) * size;
        good = (rows ? kernels->split_rows : kernels->split_lines)[side](
            at, (rows ? from->outer : from->inner) * size, from->type, count, kb, parts, out);
    } else {
        cpu_gemm_pack(from, first, count, k0, kb, WIDTH, wide);
        good =
            kernels->split_lines[side](wide, WIDTH * sizeof(float), CPU_F32, count, kb, parts, out);
    }
    if (!side && s->group)
        kernels->split_sums(out, kb / s->group, s->group / DEPTH, parts, a_sums(s, out, kb));
    return good || (s->a_parts + s->b_parts == 2 && !s->group); /* they multiply like numbers */
}

static void pack_slice(void *context, size_t begin, size_t end, int thread) {
    Split *s = context;
    const size_t count = cpu_pieces(s->mb, WIDTH);
    float *wide = cpu_scratch_take(s->block_k * WIDTH * sizeof(float));
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const size_t k0 = i / count * s->block_k, panel = i % count, row = panel * WIDTH;
        const size_t kb = BASE_MIN(s->block_k, s->g->k - k0);
        if (!pack_panel(s, 0, s->m0 + row, BASE_MIN((size_t)WIDTH, s->mb - row), k0, kb, wide,
                        a_block(s, k0) + panel * a_items(s, kb)))
            atomic_store_explicit(&s->beyond, true, memory_order_relaxed);
    }
    cpu_scratch_give(wide);
}

typedef struct Strip {
    size_t m, rows, n, columns;
    float *wide, *c; /* [block_k, WIDTH]; [rows to WIDTH, c_row] */
    uint16_t *b_panels;
    size_t c_row;
} Strip;

static void multiply(const Split *s, const uint16_t *a, const uint16_t *b, size_t kb, float *c,
                     size_t c_row, bool accumulate) {
    if (s->group)
        cpu_kernels()->split_groups[s->a_parts - 1](&(SplitGroups){.groups = kb / s->group,
                                                                   .group_blocks = s->group / DEPTH,
                                                                   .a = a,
                                                                   .b = b,
                                                                   .a_sums = a_sums(s, a, kb),
                                                                   .b_scales = b_scales(s, b, kb),
                                                                   .c = c,
                                                                   .c_row = (ptrdiff_t)c_row});
    else
        s->tile(cpu_pieces(kb, DEPTH), a, b, c, (ptrdiff_t)c_row, accumulate);
}

/* The strip += its rows of A times its columns of B for one block of k. A chunk
 * of A meets every panel of B; meanwhile the chunk after it, which lies behind
 * it (of the next block of k at the end), comes into the second-level cache. */
static void run_tiles(const Split *s, const Strip *strip, size_t k0, size_t kb) {
    const size_t a_step = a_items(s, kb), b_step = b_items(s, kb);
    const uint16_t *a = a_block(s, k0) + strip->m / WIDTH * a_step;
    const size_t panels = CHUNK_M / WIDTH;
    const size_t share = a_step / cpu_pieces(strip->columns, WIDTH) + 1;
    for (size_t first = 0; first < strip->rows; first += CHUNK_M)
        for (size_t j = 0; j < strip->columns; j += WIDTH)
            for (size_t i = first; i < BASE_MIN(first + CHUNK_M, strip->rows); i += WIDTH) {
                const uint16_t *panel = a + i / WIDTH * a_step;
                const uint16_t *b = strip->b_panels + j / WIDTH * b_step;
                const uintptr_t later =
                    (uintptr_t)panel + 2 * (panels * a_step + j / WIDTH * share);
                for (size_t at = 0; at < 2 * share; at += 64)
                    __builtin_prefetch((const void *)(later + at), 0, 2);
                multiply(s, panel, b, kb, strip->c + i * strip->c_row + j, strip->c_row, k0 > 0);
            }
}

static bool run_strip(const Split *s, const Strip *strip) {
    bool good = true;
    if (s->group)
        memset(strip->c, 0, cpu_pieces(strip->rows, WIDTH) * WIDTH * strip->c_row * sizeof(float));
    for (size_t k0 = 0; good && k0 < s->g->k; k0 += s->block_k) {
        const size_t kb = BASE_MIN(s->block_k, s->g->k - k0);
        for (size_t j = 0; j < strip->columns; j += WIDTH)
            good &= pack_panel(s, 1, strip->n + j, BASE_MIN((size_t)WIDTH, strip->columns - j), k0,
                               kb, strip->wide, strip->b_panels + j / WIDTH * b_items(s, kb));
        run_tiles(s, strip, k0, kb);
    }
    for (size_t i = 0; good && i < strip->rows; i++)
        cpu_gemm_finish_row(s->g, s->m0 + strip->m + i, strip->n, strip->columns,
                            strip->c + i * strip->c_row);
    return good;
}

static void task_slice(void *context, size_t begin, size_t end, int thread) {
    Split *s = context;
    const size_t width = s->tasks.strip_n;
    Strip strip = {.c_row = width + C_PADDING};
    (void)begin;
    (void)end;
    (void)thread;
    strip.wide = cpu_scratch_take(s->block_k * WIDTH * sizeof(float));
    strip.b_panels = cpu_scratch_take(width / WIDTH * b_items(s, s->block_k) * sizeof(uint16_t));
    strip.c = cpu_scratch_take(s->tasks.part_m * strip.c_row * sizeof(float));
    cpu_kernels()->split_begin();
    while (!atomic_load_explicit(&s->beyond, memory_order_relaxed)) {
        const size_t task = atomic_fetch_add_explicit(&s->next_task, 1, memory_order_relaxed);
        if (task >= s->tasks.strips * s->tasks.parts) break;
        strip.m = task % s->tasks.parts * s->tasks.part_m;
        strip.n = task / s->tasks.parts * s->tasks.strip_n;
        strip.rows = BASE_MIN(s->tasks.part_m, s->mb - strip.m);
        strip.columns = BASE_MIN(s->tasks.strip_n, s->g->n - strip.n);
        if (!run_strip(s, &strip)) atomic_store_explicit(&s->beyond, true, memory_order_relaxed);
    }
    cpu_kernels()->split_end();
    cpu_scratch_give(strip.wide);
    cpu_scratch_give(strip.b_panels);
    cpu_scratch_give(strip.c);
}

bool cpu_gemm_split(const CpuGemm *g) {
    if (!cpu_kernels()->split_begin || g->m < (g->quant ? LEAST_CODES_M : LEAST_M) ||
        g->n < LEAST_N || g->k < LEAST_K)
        return false;
    const bool f32 = !g->quant && g->a_type == CPU_F32 && g->b_type == CPU_F32;
    if (f32 && base_threads() > MOST_F32_THREADS) return false;
    if (g->add && g->add == g->c) return false; /* giving up must leave D whole */
    Split s = {
        .g = g, .a = cpu_gemm_a(g), .b = cpu_gemm_b(g), .a_parts = cpu_split_parts(g->a_type)};
    if (g->quant && g->quant_transposed && g->quant->group % DEPTH == 0)
        s.group = (size_t)g->quant->group;
    s.b_parts = s.group ? 1 : !g->quant ? cpu_split_parts(g->b_type) : g->a_type == CPU_F32 ? 3 : 2;
    s.tile = cpu_kernels()->split_tile[s.a_parts - 1][s.b_parts - 1];
    const int parts = s.a_parts + s.b_parts;
    s.block_k = s.group || parts == 2 ? BLOCK_K : parts > 4 && !g->quant ? 64 : 128;
    const size_t row_bytes =
        a_items(&s, cpu_pieces(g->k, DEPTH) * DEPTH) / WIDTH * sizeof(uint16_t);
    size_t block_m =
        BASE_MIN(BASE_MAX((size_t)A_BYTES / row_bytes, (size_t)WIDTH), (size_t)BLOCK_M);
    block_m = BASE_MIN(cpu_pieces(g->m, WIDTH), block_m / WIDTH) * WIDTH;
    s.a_panels = cpu_scratch_take(block_m * row_bytes);
    for (s.m0 = 0; s.m0 < g->m && !s.beyond; s.m0 += block_m) {
        s.mb = BASE_MIN(block_m, g->m - s.m0);
        base_parallel_for(cpu_pieces(s.mb, WIDTH) * cpu_pieces(g->k, s.block_k), 1, pack_slice, &s);
        s.tasks = cpu_gemm_tasks(s.mb, g->n, WIDTH, WIDTH, STRIP_N);
        atomic_store(&s.next_task, 0);
        base_parallel_for(BASE_MIN((size_t)base_threads(), s.tasks.strips * s.tasks.parts), 1,
                          task_slice, &s);
    }
    cpu_scratch_give(s.a_panels);
    return !s.beyond;
}
