/* y = x W^T with quantised W and many rows of x, by tiles of pairs of 16-bit
 * numbers. Codes of up to 8 bits are exact in them; so are activations of
 * bfloat16 where the processor multiplies that, and else each is a 16-bit integer
 * times the scale of its group:
 *
 *      y = sum over groups of scale * (x . codes) + bias * sum(x)
 *
 * Threads share the columns of y; a panel of codes is unpacked into the
 * first-level cache and meets every row of x. Float32 activations, and those that
 * are not finite, use the blocked product of gemm.c. */
#include "base/base.h"
#include "cpu/matmul.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* Rows of a task, k of a panel, panels of a strip. */
enum { LEAST_M = 48, MOST_M = 512, BLOCK_K = 640, STRIP = 4 };
enum { LEAST_GROUP = 16 };

typedef struct Product {
    const CpuGemm *g;
    const PairKernel *kernel;
    PairKind kind;
    size_t groups;
    const uint16_t *x; /* [m, x_row]: integers, or the bfloat16 of A */
    size_t x_row;
    uint16_t *own_x;      /* x if not A itself */
    float *scales, *sums; /* [m, groups] */
    _Atomic bool special; /* an activation is not finite */
    GemmTasks tasks;
    _Atomic size_t next_task;
} Product;

/* Scratch of one thread. */
typedef struct Panel {
    uint16_t *b;            /* [BLOCK_K / 2, nr, 2] */
    float *scales, *biases; /* [BLOCK_K / LEAST_GROUP, nr] */
    float *codes;           /* [BLOCK_K] */
    uint16_t *rows;         /* [nr, BLOCK_K] */
    float *c;               /* [part_m, strip_n] */
} Panel;

static void prepare_slice(void *context, size_t begin, size_t end, int thread) {
    Product *p = context;
    const CpuGemm *g = p->g;
    const Kernels *kernels = cpu_kernels();
    const size_t group = (size_t)g->quant->group;
    float *wide = cpu_scratch_take(g->k * sizeof(float));
    bool finite = true;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float *scales = p->scales + i * p->groups, *sums = p->sums + i * p->groups;
        cpu_gemm_widen_row(g, i, wide);
        if (p->kind == PAIRS_INT16) {
            finite &=
                kernels->fix_activations(wide, g->k, g->quant->group, 1,
                                         (int16_t *)p->own_x + i * p->x_row, g->k, scales, sums);
            continue;
        }
        if (p->own_x) kernels->from_f32[CPU_BF16](p->own_x + i * p->x_row, wide, g->k);
        for (size_t s = 0; s < p->groups; s++) {
            sums[s] = kernels->sum(wide + s * group, group);
            finite &= isfinite(sums[s]) != 0;
        }
    }
    if (!finite) atomic_store_explicit(&p->special, true, memory_order_relaxed);
    cpu_scratch_give(wide);
}

static void prepare(Product *p) {
    const CpuGemm *g = p->g;
    p->scales = cpu_scratch_take(2 * g->m * p->groups * sizeof(float));
    p->sums = p->scales + g->m * p->groups;
    if (p->kind == PAIRS_BF16 && g->a_col == 1 && g->a_row >= 0) {
        p->x = g->a;
        p->x_row = (size_t)g->a_row;
    } else {
        p->x_row = g->k;
        p->x = p->own_x = cpu_scratch_take(g->m * g->k * sizeof *p->own_x);
    }
    base_parallel_for(g->m, BASE_MAX((size_t)1, 16384 / g->k), prepare_slice, p);
}

/* Codes of the weights n0.. (`count` of them), k0..k0+kb, to a panel. Of 4 and 8
 * bits directly; of others by float32, which is exact. */
static void pack_codes(const Product *p, size_t n0, size_t count, size_t k0, size_t kb,
                       Panel *panel) {
    const CpuQuant *q = p->g->quant;
    const Kernels *kernels = cpu_kernels();
    const size_t nr = p->kernel->nr, row_words = q->cols * (size_t)q->bits / 32;
    const uint32_t *words = q->words + n0 * row_words + k0 * (size_t)q->bits / 32;
    if (q->mode == CPU_AFFINE && (q->bits == 4 || q->bits == 8)) {
        for (size_t j = 0; j < nr; j += 8) {
            const size_t rows = j < count ? BASE_MIN((size_t)8, count - j) : 0;
            p->kernel->pack(words + (rows ? j * row_words : 0), row_words, q->bits, rows, kb, nr,
                            panel->b + 2 * j);
        }
        return;
    }
    float ones[BLOCK_K / LEAST_GROUP], zeros[BLOCK_K / LEAST_GROUP];
    for (size_t i = 0; i < BASE_COUNT(ones); i++) ones[i] = 1, zeros[i] = 0;
    for (size_t j = 0; j < count; j++) {
        uint16_t *row = panel->rows + j * kb;
        kernels->dequant[q->mode](words + j * row_words, q->bits, 0, kb, q->group, ones, zeros,
                                  panel->codes);
        if (p->kind == PAIRS_BF16)
            kernels->from_f32[CPU_BF16](row, panel->codes, kb);
        else
            for (size_t i = 0; i < kb; i++) row[i] = (uint16_t)(int)panel->codes[i];
    }
    kernels->pack_rows((float *)(void *)panel->b, nr, panel->rows, (ptrdiff_t)(2 * kb), count,
                       kb / 2);
}

/* The same with the scales and biases of their groups. */
static void pack_panel(const Product *p, size_t n0, size_t k0, size_t kb, Panel *panel) {
    const CpuQuant *q = p->g->quant;
    const size_t nr = p->kernel->nr, group = (size_t)q->group, used = kb / group;
    const size_t count = n0 < q->rows ? BASE_MIN(nr, q->rows - n0) : 0;
    pack_codes(p, n0, count, k0, kb, panel);
    for (size_t j = 0; j < nr; j++) {
        float scales[BLOCK_K / LEAST_GROUP] = {0}, biases[BLOCK_K / LEAST_GROUP] = {0};
        if (j < count) cpu_quant_scales(q, (n0 + j) * p->groups + k0 / group, used, scales, biases);
        for (size_t g = 0; g < used; g++) {
            panel->scales[g * nr + j] = scales[g];
            panel->biases[g * nr + j] = biases[g];
        }
    }
}

/* Columns n0.. of a strip of panels, rows m0..m0+mb. */
static void run_strip(const Product *p, size_t n0, size_t columns, size_t m0, size_t mb,
                      Panel *panel) {
    const CpuGemm *g = p->g;
    const size_t nr = p->kernel->nr, mr = p->kernel->mr, c_row = p->tasks.strip_n;
    /* Equal blocks of whole groups: a short last one would not pay its way. */
    const size_t blocks = cpu_pieces(g->k, BLOCK_K);
    const size_t block = (g->k / blocks + 127) / 128 * 128;
    for (size_t k0 = 0; k0 < g->k; k0 += block) {
        const size_t kb = BASE_MIN(block, g->k - k0), first = k0 / (size_t)g->quant->group;
        for (size_t j = 0; j < columns; j += nr) {
            pack_panel(p, n0 + j, k0, kb, panel);
            for (size_t i = 0; i < mb; i += mr) {
                const size_t row = m0 + i, at = row * p->groups + first;
                p->kernel->tile(&(PairTile){.rows = BASE_MIN(mr, mb - i),
                                            .groups = kb / (size_t)g->quant->group,
                                            .group = g->quant->group,
                                            .a = p->x + row * p->x_row + k0,
                                            .a_row = p->x_row,
                                            .a_scales = p->scales + at,
                                            .a_sums = p->sums + at,
                                            .a_group_row = p->groups,
                                            .b = panel->b,
                                            .b_scales = panel->scales,
                                            .b_biases = panel->biases,
                                            .c = panel->c + i * c_row + j,
                                            .c_row = (ptrdiff_t)c_row,
                                            .accumulate = k0 > 0});
            }
        }
    }
    for (size_t i = 0; i < mb; i++)
        cpu_gemm_finish_row(g, m0 + i, n0, columns, panel->c + i * c_row);
}

static void strip_slice(void *context, size_t begin, size_t end, int thread) {
    enum { GROUPS = BLOCK_K / LEAST_GROUP };
    Product *p = context;
    const CpuGemm *g = p->g;
    const GemmTasks *tasks = &p->tasks;
    const size_t nr = p->kernel->nr;
    (void)begin;
    (void)end;
    (void)thread;
    Panel panel = {.b = cpu_scratch_take(2 * BLOCK_K * nr * sizeof(uint16_t)),
                   .scales = cpu_scratch_take((2 * GROUPS * nr + BLOCK_K) * sizeof(float)),
                   .c = cpu_scratch_take(tasks->part_m * tasks->strip_n * sizeof(float))};
    panel.rows = panel.b + BLOCK_K * nr;
    panel.biases = panel.scales + GROUPS * nr;
    panel.codes = panel.biases + GROUPS * nr;
    for (;;) {
        const size_t task = atomic_fetch_add_explicit(&p->next_task, 1, memory_order_relaxed);
        if (task >= tasks->strips * tasks->parts) break;
        const size_t n0 = task % tasks->strips * tasks->strip_n,
                     m0 = task / tasks->strips * tasks->part_m;
        run_strip(p, n0, BASE_MIN(tasks->strip_n, g->n - n0), m0,
                  BASE_MIN(tasks->part_m, g->m - m0), &panel);
    }
    cpu_scratch_give(panel.b);
    cpu_scratch_give(panel.scales);
    cpu_scratch_give(panel.c);
}

/* Whether some tile takes these activations and codes. */
static bool choose(const CpuGemm *g, PairKind *kind) {
    const PairKernel *pairs = cpu_kernels()->pairs;
    if (!g->quant || !g->quant_transposed || g->m <= CPU_STREAMED_ROWS) return false;
    *kind = g->a_type == CPU_BF16 && pairs[PAIRS_BF16].tile ? PAIRS_BF16 : PAIRS_INT16;
    if (*kind == PAIRS_BF16) return true;
    return g->a_type != CPU_F32 && pairs[PAIRS_INT16].tile && g->quant->mode == CPU_AFFINE;
}

bool cpu_quant_pairs(const CpuGemm *g) {
    Product p = {.g = g};
    if (!choose(g, &p.kind)) return false;
    p.kernel = &cpu_kernels()->pairs[p.kind];
    p.groups = g->k / (size_t)g->quant->group;
    prepare(&p);
    const size_t mr = p.kernel->mr, nr = p.kernel->nr;
    p.tasks = cpu_gemm_tasks(g->m, g->n, mr, nr, STRIP * nr);
    const size_t part = BASE_MIN(BASE_MAX(p.tasks.part_m, (size_t)LEAST_M), (size_t)MOST_M);
    p.tasks.part_m = cpu_pieces(part, mr) * mr;
    p.tasks.parts = cpu_pieces(g->m, p.tasks.part_m);
    if (!p.special)
        base_parallel_for(BASE_MIN(p.tasks.strips * p.tasks.parts, (size_t)base_threads()), 1,
                          strip_slice, &p);
    cpu_scratch_give(p.scales);
    cpu_scratch_give(p.own_x);
    return !p.special;
}
