/* The gradient of attention (Dao et al., 2022). With p = softmax(scale q k^T + mask)
 * and the cotangent g of p v:
 *
 *   dv = p^T g      dp = g v^T      ds = p (dp - sum_j p dp)
 *   dq = scale ds k     dk = scale ds^T q
 *
 * Nothing of the forward pass is kept: a block of query rows computes its scores
 * again, for the keys that it sees, and five blocked products do the rest. One
 * task takes a key head with all query heads that share it, so the sums over
 * queries need no locks and come in one order. */
#include "base/base.h"
#include "cpu/table.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK_ROWS = 96, BLOCK_SCORES = 1 << 20 };

static const float masked_score = -FLT_MAX; /* as in the forward pass */

typedef struct Task {
    const CpuAttentionGrad *job;
    size_t batch, kv_head, rows, padded_keys; /* rows: of a block, at most */
    float *p, *dp;                            /* [rows, padded_keys] */
    float *dk, *dv;                           /* [kv_len, head_dim], [kv_len, value_dim] sums */
    float *part;                              /* one block's share of either */
    float *sink_sums;                         /* [q_heads] of this batch entry */
} Task;

/* Query rows first.. of one head, and the keys [0, keys) that any of them sees. */
typedef struct Block {
    size_t head, first, rows, keys;
    bool dead[BLOCK_ROWS];  /* masked everywhere: p averages, scores are constants */
    float sink[BLOCK_ROWS]; /* the sink's probability */
} Block;

static char *row_at(const void *base, CpuType type, const ptrdiff_t stride[3], size_t batch,
                    size_t head, size_t row) {
    return (char *)(uintptr_t)base + ((ptrdiff_t)batch * stride[0] + (ptrdiff_t)head * stride[1] +
                                      (ptrdiff_t)row * stride[2]) *
                                         (ptrdiff_t)cpu_type_size(type);
}

/* Keys that the query sees when causal; 0 when none. */
static size_t visible(const CpuAttention *a, size_t query) {
    if (!a->causal) return a->kv_len;
    const size_t end = query + 1 + a->kv_len;
    return end <= a->q_len ? 0 : BASE_MIN(end - a->q_len, a->kv_len);
}

static void mask_row(const Task *task, const Block *block, size_t query, size_t count, float *s) {
    const CpuAttention *a = &task->job->forward;
    const ptrdiff_t *stride = a->mask_stride;
    const ptrdiff_t at = (ptrdiff_t)task->batch * stride[0] + (ptrdiff_t)block->head * stride[1] +
                         (ptrdiff_t)query * stride[2];
    for (size_t j = 0; j < count && a->mask_kind == CPU_MASK_BOOL; j++)
        if (!((const uint8_t *)a->mask)[at + (ptrdiff_t)j * stride[3]]) s[j] = masked_score;
    const char *mask = (const char *)a->mask + at * (ptrdiff_t)cpu_type_size(a->mask_type);
    const ptrdiff_t step = stride[3] * (ptrdiff_t)cpu_type_size(a->mask_type);
    for (size_t j = 0; j < count && a->mask_kind == CPU_MASK_ADDITIVE; j++)
        s[j] += cpu_load(mask + (ptrdiff_t)j * step, a->mask_type, 0);
}

/* Scores to probabilities, row by row. */
static void probabilities(const Task *task, Block *block) {
    const CpuAttention *a = &task->job->forward;
    const Kernels *kernels = cpu_kernels();
    for (size_t r = 0; r < block->rows; r++) {
        float *s = task->p + r * task->padded_keys;
        const size_t query = block->first + r, seen = visible(a, query);
        size_t count = seen ? seen : a->kv_len;
        if (seen == 0)
            for (size_t j = 0; j < count; j++) s[j] = masked_score;
        else if (a->mask_kind != CPU_MASK_NONE)
            mask_row(task, block, query, count, s);
        float top = kernels->max(s, count);
        block->dead[r] = top == masked_score || top == -INFINITY;
        const float sink = a->sinks ? a->sinks[block->head] : -INFINITY;
        if (sink > top) top = sink;
        if (top == -INFINITY) count = 0;
        float sum = count ? kernels->exp_sum(s, s, top, count) : 1;
        block->sink[r] = a->sinks && count ? expf(sink - top) : 0;
        sum += block->sink[r];
        kernels->scale_shift(s, s, 0, 1 / sum, count);
        block->sink[r] /= sum;
        memset(s + count, 0, (block->keys - count) * sizeof(float));
    }
}

/* dp to ds, row by row. */
static void score_gradients(const Task *task, const Block *block) {
    const Kernels *kernels = cpu_kernels();
    for (size_t r = 0; r < block->rows; r++) {
        const float *p = task->p + r * task->padded_keys;
        float *dp = task->dp + r * task->padded_keys, mean;
        kernels->dot_rows[CPU_F32](p, (ptrdiff_t)block->keys, 1, block->keys, dp, block->keys, 1,
                                   &mean, 1);
        if (task->sink_sums) task->sink_sums[block->head] -= block->sink[r] * mean;
        if (block->dead[r]) {
            memset(dp, 0, block->keys * sizeof(float));
            continue;
        }
        kernels->scale_shift(dp, dp, mean, 1, block->keys);
        kernels->binary[CPU_MULTIPLY](dp, dp, 1, p, 1, block->keys);
    }
}

/* rows [rows of the block, keys] = x y^T, both read where they lie. */
static void scores_of(const Task *task, const Block *block, const void *x,
                      const ptrdiff_t *x_stride, const void *y, const ptrdiff_t *y_stride,
                      size_t width, float scale, float *out) {
    const CpuType type = task->job->forward.type;
    cpu_gemm(&(CpuGemm){
        .m = block->rows,
        .n = block->keys,
        .k = width,
        .a = row_at(x, type, x_stride, task->batch, block->head, block->first),
        .a_type = type,
        .a_row = x_stride[2],
        .a_col = 1,
        .b = row_at(y, type, y_stride, task->batch, task->kv_head, 0),
        .b_type = type,
        .b_row = 1,
        .b_col = y_stride[2],
        .c = out,
        .c_type = CPU_F32,
        .c_row = (ptrdiff_t)task->padded_keys,
        .alpha = scale,
    });
}

/* sums [keys, width] += scale * weights^T x. */
static void add_transposed(const Task *task, const Block *block, const float *weights,
                           const void *x, const ptrdiff_t *x_stride, size_t width, float scale,
                           float *sums) {
    const CpuType type = task->job->forward.type;
    const size_t items = block->keys * width;
    cpu_gemm(&(CpuGemm){
        .m = block->keys,
        .n = width,
        .k = block->rows,
        .a = weights,
        .a_type = CPU_F32,
        .a_row = 1,
        .a_col = (ptrdiff_t)task->padded_keys,
        .b = row_at(x, type, x_stride, task->batch, block->head, block->first),
        .b_type = type,
        .b_row = x_stride[2],
        .b_col = 1,
        .c = task->part,
        .c_type = CPU_F32,
        .c_row = (ptrdiff_t)width,
        .alpha = 1,
    });
    cpu_kernels()->add_scaled(sums, sums, scale, task->part, items);
}

static void run_block(const Task *task, Block *block) {
    const CpuAttentionGrad *job = task->job;
    const CpuAttention *a = &job->forward;
    scores_of(task, block, a->q, a->q_stride, a->k, a->k_stride, a->head_dim, a->scale, task->p);
    probabilities(task, block);
    if (job->dv)
        add_transposed(task, block, task->p, job->g, job->g_stride, a->value_dim, 1, task->dv);
    if (!job->dq && !job->dk && !job->dsinks) return;
    scores_of(task, block, job->g, job->g_stride, a->v, a->v_stride, a->value_dim, 1, task->dp);
    score_gradients(task, block);
    if (job->dk)
        add_transposed(task, block, task->dp, a->q, a->q_stride, a->head_dim, a->scale, task->dk);
    if (!job->dq) return;
    cpu_gemm(&(CpuGemm){
        .m = block->rows,
        .n = a->head_dim,
        .k = block->keys,
        .a = task->dp,
        .a_type = CPU_F32,
        .a_row = (ptrdiff_t)task->padded_keys,
        .a_col = 1,
        .b = row_at(a->k, a->type, a->k_stride, task->batch, task->kv_head, 0),
        .b_type = a->type,
        .b_row = a->k_stride[2],
        .b_col = 1,
        .c = row_at(job->dq, a->type, job->dq_stride, task->batch, block->head, block->first),
        .c_type = a->type,
        .c_row = job->dq_stride[2],
        .alpha = a->scale,
    });
}

static void store_sums(const Task *task, const float *sums, size_t width, void *out,
                       const ptrdiff_t *stride) {
    const CpuType type = task->job->forward.type;
    for (size_t j = 0; j < task->job->forward.kv_len; j++)
        cpu_kernels()->from_f32[type](row_at(out, type, stride, task->batch, task->kv_head, j),
                                      sums + j * width, width);
}

static void run_task(Task *task) {
    const CpuAttentionGrad *job = task->job;
    const CpuAttention *a = &job->forward;
    const size_t group = a->q_heads / a->kv_heads;
    if (job->dk) memset(task->dk, 0, a->kv_len * a->head_dim * sizeof(float));
    if (job->dv) memset(task->dv, 0, a->kv_len * a->value_dim * sizeof(float));
    for (size_t h = 0; h < group; h++)
        for (size_t first = 0; first < a->q_len; first += task->rows) {
            Block block = {.head = task->kv_head * group + h,
                           .first = first,
                           .rows = BASE_MIN(task->rows, a->q_len - first)};
            /* A query that sees nothing averages all, so all are read for it. */
            block.keys = visible(a, first) ? visible(a, first + block.rows - 1) : a->kv_len;
            run_block(task, &block);
        }
    if (job->dk) store_sums(task, task->dk, a->head_dim, job->dk, job->dk_stride);
    if (job->dv) store_sums(task, task->dv, a->value_dim, job->dv, job->dv_stride);
}

typedef struct Run {
    const CpuAttentionGrad *job;
    float *sink_sums; /* [batch, q_heads] */
} Run;

static size_t round_up(size_t n) {
    return (n + 15) / 16 * 16;
}

static void run_slice(void *context, size_t begin, size_t end, int thread) {
    const Run *run = context;
    const CpuAttention *a = &run->job->forward;
    Task task = {.job = run->job, .padded_keys = round_up(a->kv_len)};
    (void)thread;
    task.rows = BASE_MAX((size_t)16, BASE_MIN((size_t)BLOCK_ROWS, BLOCK_SCORES / task.padded_keys));
    const size_t widest = BASE_MAX(a->head_dim, a->value_dim);
    const size_t sizes[] = {task.rows * task.padded_keys, task.rows * task.padded_keys,
                            round_up(a->kv_len * a->head_dim), round_up(a->kv_len * a->value_dim),
                            round_up(a->kv_len * widest)};
    float **const parts[] = {&task.p, &task.dp, &task.dk, &task.dv, &task.part};
    size_t total = 0;
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) total += sizes[i];
    float *memory = cpu_scratch_take(total * sizeof(float)), *next = memory;
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        *parts[i] = next;
        next += sizes[i];
    }
    for (size_t i = begin; i < end; i++) {
        task.batch = i / a->kv_heads;
        task.kv_head = i % a->kv_heads;
        task.sink_sums = run->sink_sums ? run->sink_sums + task.batch * a->q_heads : NULL;
        run_task(&task);
    }
    cpu_scratch_give(memory);
}

void cpu_attention_grad(const CpuAttentionGrad *job) {
    const CpuAttention *a = &job->forward;
    Run run = {.job = job};
    if (job->dsinks) {
        run.sink_sums = cpu_scratch_take(a->batch * a->q_heads * sizeof(float));
        memset(run.sink_sums, 0, a->batch * a->q_heads * sizeof(float));
    }
    const size_t tasks = a->batch * a->kv_heads;
    const size_t work = a->q_len * a->kv_len * a->head_dim * a->q_heads * a->batch;
    if (tasks == 1)
        run_slice(&run, 0, 1, 0); /* the products inside spread over the threads */
    else
        base_parallel_for(tasks, work < 65536 ? tasks : 1, run_slice, &run);
    for (size_t h = 0; job->dsinks && h < a->q_heads; h++) {
        job->dsinks[h] = 0;
        for (size_t b = 0; b < a->batch; b++) job->dsinks[h] += run.sink_sums[b * a->q_heads + h];
    }
    cpu_scratch_give(run.sink_sums);
}
