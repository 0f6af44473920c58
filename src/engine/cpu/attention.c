/* softmax(scale q k^T + mask) v without ever holding the scores: a block of
 * query rows walks the keys in tiles and keeps, per row, the running maximum m,
 * the running denominator l and the unnormalised output o (Milakov and
 * Gimelshein 2018; Dao et al. 2022):
 *
 *   s = q k^T        m' = max(m, max s)      p = exp(s - m')
 *   l = l exp(m - m') + sum p               o = o exp(m - m') + p v
 *
 * The query heads that share a key head form one block, so that each key is
 * read once for all of them. Blocks of many rows pack q, k, p and v for the
 * tile of the blocked product; few rows (decoding) stream k and v as they lie,
 * and a long past is split between threads and merged at the end. */
#include "cpu/attention_block.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK_ROWS = 128, TILE_KEYS = 128, STREAM_ROWS = 8, STREAM_KEYS = 512, SPLIT_KEYS = 128 };

/* What a masked score becomes: a row masked everywhere averages v. */
static const float masked_score = -FLT_MAX;

/* Keys that the row sees when causal; 0 when none. */
static size_t visible(const Block *b, size_t row) {
    const CpuAttention *a = b->run->a;
    size_t end = position(b, row) + 1 + a->kv_len;
    if (!a->causal) return a->kv_len;
    return end <= a->q_len ? 0 : BASE_MIN(end - a->q_len, a->kv_len);
}

/* False when the split way cannot go on. */
static bool load_queries(Block *b) {
    const CpuAttention *a = b->run->a;
    if (b->run->split) return attention_split_queries(b);
    const Kernels *kernels = cpu_kernels();
    for (size_t r = 0; r < b->rows; r++) {
        float *q = b->q + r * a->head_dim;
        kernels->to_f32[a->type](
            q, row_at(a->q, a->type, a->q_stride, b->batch, query_head(b, r), position(b, r)),
            a->head_dim);
        kernels->scale_shift(q, q, 0.0f, a->scale, a->head_dim);
    }
    if (b->run->streamed) return true;
    for (size_t r = 0; r < b->rows; r += kernels->mr)
        kernels->pack_rows(b->q_panels + r * a->head_dim, kernels->mr, b->q + r * a->head_dim,
                           (ptrdiff_t)(a->head_dim * sizeof(float)),
                           BASE_MIN(kernels->mr, b->rows - r), a->head_dim);
    return true;
}

/* Rows j0.. of k or v as float32 rows of `width`, in place if they are so. */
static const float *wide_rows(Block *b, const void *base, const ptrdiff_t stride[3], size_t width,
                              size_t j0, size_t keys, ptrdiff_t *row_stride) {
    const CpuAttention *a = b->run->a;
    const char *start = row_at(base, a->type, stride, b->batch, b->kv_head, j0);
    *row_stride = stride[2];
    if (a->type == CPU_F32) return (const float *)(const void *)start;
    for (size_t j = 0; j < keys; j++)
        cpu_kernels()->to_f32[a->type](b->wide + j * width,
                                       row_at(base, a->type, stride, b->batch, b->kv_head, j0 + j),
                                       width);
    *row_stride = (ptrdiff_t)width;
    return b->wide;
}

/* scores = q k^T for keys j0..j0+keys. */
static bool score_tile(Block *b, size_t j0, size_t keys) {
    const CpuAttention *a = b->run->a;
    if (b->run->split) return attention_split_scores(b, j0, keys);
    const Kernels *kernels = cpu_kernels();
    size_t d = a->head_dim, mr = kernels->mr, nr = kernels->nr;
    if (b->run->streamed) {
        kernels->dot_rows[a->type](row_at(a->k, a->type, a->k_stride, b->batch, b->kv_head, j0),
                                   a->k_stride[2], keys, d, b->q, d, b->rows, b->scores,
                                   (ptrdiff_t)b->score_row);
        return true;
    }
    ptrdiff_t stride;
    const float *k = wide_rows(b, a->k, a->k_stride, d, j0, keys, &stride);
    for (size_t j = 0; j < keys; j += nr)
        kernels->pack_rows(b->k_panels + j * d, nr, k + (ptrdiff_t)j * stride, stride * 4,
                           BASE_MIN(nr, keys - j), d);
    for (size_t j = 0; j < keys; j += nr)
        for (size_t r = 0; r < b->rows; r += mr)
            kernels->tile(d, b->q_panels + r * d, b->k_panels + j * d,
                          b->scores + r * b->score_row + j, (ptrdiff_t)b->score_row, false);
    return true;
}

static void mask_row(const Block *b, size_t row, size_t j0, size_t keys, float *s) {
    const CpuAttention *a = b->run->a;
    const ptrdiff_t *stride = a->mask_stride;
    ptrdiff_t at = (ptrdiff_t)b->batch * stride[0] + (ptrdiff_t)query_head(b, row) * stride[1] +
                   (ptrdiff_t)position(b, row) * stride[2] + (ptrdiff_t)j0 * stride[3];
    if (a->mask_kind == CPU_MASK_BOOL) {
        const uint8_t *mask = a->mask;
        for (size_t j = 0; j < keys; j++)
            if (!mask[at + (ptrdiff_t)j * stride[3]]) s[j] = masked_score;
    } else {
        const char *mask = (const char *)a->mask + at * (ptrdiff_t)cpu_type_size(a->mask_type);
        ptrdiff_t step = stride[3] * (ptrdiff_t)cpu_type_size(a->mask_type);
        for (size_t j = 0; j < keys; j++)
            s[j] += cpu_load(mask + (ptrdiff_t)j * step, a->mask_type, 0);
    }
}

/* Scores to probabilities under the new maximum; o and l scaled to it. */
static void softmax_tile(Block *b, size_t j0, size_t keys) {
    const CpuAttention *a = b->run->a;
    const Kernels *kernels = cpu_kernels();
    for (size_t r = 0; r < b->rows; r++) {
        float *s = b->scores + r * b->score_row;
        size_t seen = visible(b, r), count = seen <= j0 ? 0 : BASE_MIN(seen - j0, keys);
        if (seen == 0) {
            for (size_t j = 0; j < keys; j++) s[j] = masked_score;
            count = keys;
        } else {
            if (b->run->split) kernels->scale_shift(s, s, 0.0f, a->scale, count);
            if (a->mask_kind != CPU_MASK_NONE) mask_row(b, r, j0, count, s);
        }
        memset(s + count, 0, (keys - count) * sizeof(float));
        if (count == 0) continue;
        float peak = kernels->max(s, count), top = peak > b->m[r] || peak != peak ? peak : b->m[r];
        if (top == -INFINITY) {
            memset(s, 0, count * sizeof(float));
            continue;
        }
        float sum = kernels->exp_sum(s, s, top, count);
        if (top != b->m[r]) {
            float factor = expf(b->m[r] - top);
            b->l[r] *= factor;
            float *o = b->o + r * b->run->value_width;
            kernels->scale_shift(o, o, 0.0f, factor, b->run->value_width);
            b->m[r] = top;
        }
        b->l[r] += sum;
    }
}

/* o += p v. */
static bool value_tile(Block *b, size_t j0, size_t keys) {
    const CpuAttention *a = b->run->a;
    if (b->run->split) return attention_split_values(b, j0, keys);
    const Kernels *kernels = cpu_kernels();
    size_t d = a->value_dim, mr = kernels->mr, nr = kernels->nr, width = b->run->value_width;
    if (b->run->streamed) {
        kernels->sum_rows[a->type](row_at(a->v, a->type, a->v_stride, b->batch, b->kv_head, j0),
                                   a->v_stride[2], keys, d, b->scores, b->score_row, b->rows, b->o,
                                   (ptrdiff_t)width);
        return true;
    }
    for (size_t r = 0; r < b->rows; r += mr)
        kernels->pack_rows(b->p_panels + r * keys, mr, b->scores + r * b->score_row,
                           (ptrdiff_t)(b->score_row * sizeof(float)), BASE_MIN(mr, b->rows - r),
                           keys);
    for (size_t c = 0; c < d; c += nr) {
        size_t count = BASE_MIN(nr, d - c);
        float *panel = b->v_panels + c * keys;
        for (size_t j = 0; j < keys; j++, panel += nr) {
            const char *v = row_at(a->v, a->type, a->v_stride, b->batch, b->kv_head, j0 + j);
            kernels->to_f32[a->type](panel, v + c * cpu_type_size(a->type), count);
            for (size_t i = count; i < nr; i++) panel[i] = 0;
        }
    }
    for (size_t c = 0; c < d; c += nr)
        for (size_t r = 0; r < b->rows; r += mr)
            kernels->tile(keys, b->p_panels + r * keys, b->v_panels + c * keys,
                          b->o + r * width + c, (ptrdiff_t)width, true);
    return true;
}

static void store_row(const Block *b, size_t row, const float *o, float l, float *scratch) {
    const CpuAttention *a = b->run->a;
    const Kernels *kernels = cpu_kernels();
    char *out = (char *)(uintptr_t)row_at(a->out, a->type, a->out_stride, b->batch,
                                          query_head(b, row), position(b, row));
    kernels->scale_shift(scratch, o, 0.0f, 1.0f / l, a->value_dim);
    kernels->from_f32[a->type](out, scratch, a->value_dim);
}

static Block block_open(const Run *run) {
    const CpuAttention *a = run->a;
    const Kernels *kernels = cpu_kernels();
    Block b = {.run = run};
    size_t rows = run->block_rows, keys = run->streamed ? STREAM_KEYS : TILE_KEYS;
    size_t packed = run->streamed ? 0 : 1, widest = BASE_MAX(a->head_dim, a->value_dim);
    b.score_row = round_up(keys, run->split ? SPLIT_WIDTH : kernels->nr);
    size_t q_size = packed * rows * a->head_dim, k_size = packed * b.score_row * a->head_dim,
           p_size = packed * rows * b.score_row, v_size = packed * b.score_row * run->value_width;
    if (run->split) attention_split_sizes(run, keys, &q_size, &k_size, &p_size, &v_size);
    size_t sizes[] = {rows * a->head_dim,
                      q_size,
                      k_size,
                      p_size,
                      v_size,
                      packed * keys * widest,
                      rows * b.score_row,
                      rows * run->value_width,
                      rows,
                      rows};
    float **parts[] = {&b.q,    &b.q_panels, &b.k_panels, &b.p_panels, &b.v_panels,
                       &b.wide, &b.scores,   &b.o,        &b.m,        &b.l};
    size_t total = 0;
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) total += round_up(sizes[i], 16);
    float *memory = cpu_scratch_take(total * sizeof(float));
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        *parts[i] = memory;
        memory += round_up(sizes[i], 16);
    }
    return b;
}

/* Keys [begin, end) for the block, from an empty state. */
static bool run_block(Block *b, size_t begin, size_t end) {
    const CpuAttention *a = b->run->a;
    size_t step = b->run->streamed ? STREAM_KEYS : TILE_KEYS, last = 0;
    bool good = load_queries(b);
    for (size_t r = 0; r < b->rows; r++) {
        bool sink = a->sinks && begin == 0;
        b->m[r] = sink ? a->sinks[query_head(b, r)] : -INFINITY;
        b->l[r] = sink ? 1.0f : 0.0f;
        size_t seen = visible(b, r);
        last = BASE_MAX(last, seen ? seen : a->kv_len);
    }
    memset(b->o, 0, b->run->block_rows * b->run->value_width * sizeof(float));
    end = BASE_MIN(end, last);
    for (size_t j0 = begin; good && j0 < end; j0 += step) {
        size_t keys = BASE_MIN(step, end - j0);
        good = score_tile(b, j0, keys);
        if (good) softmax_tile(b, j0, keys);
        good = good && value_tile(b, j0, keys);
    }
    return good;
}

static void task_slice(void *context, size_t begin, size_t end, int thread) {
    Run *run = context;
    const CpuAttention *a = run->a;
    Block b = block_open(run);
    (void)begin;
    (void)end;
    (void)thread;
    if (run->split) cpu_kernels()->split_begin();
    while (!atomic_load_explicit(&run->beyond, memory_order_relaxed)) {
        size_t task = atomic_fetch_add_explicit(&run->next_task, 1, memory_order_relaxed);
        if (task >= run->tasks) break;
        size_t split = task % run->splits, block = task / run->splits % run->blocks;
        size_t head = task / run->splits / run->blocks;
        /* Later rows see more keys: the longest blocks go first. */
        block = run->blocks - 1 - block;
        b.batch = head / a->kv_heads;
        b.kv_head = head % a->kv_heads;
        b.first = block * run->block_rows;
        b.rows = BASE_MIN(run->block_rows, run->rows - b.first);
        if (!run_block(&b, a->kv_len * split / run->splits,
                       a->kv_len * (split + 1) / run->splits)) {
            atomic_store_explicit(&run->beyond, true, memory_order_relaxed);
            break;
        }
        for (size_t r = 0; r < b.rows; r++) {
            float *o = b.o + r * run->value_width;
            if (run->splits == 1) {
                store_row(&b, r, o, b.l[r], o);
                continue;
            }
            float *part = run->partial + (task * run->block_rows + r) * (2 + run->value_width);
            part[0] = b.m[r];
            part[1] = b.l[r];
            memcpy(part + 2, o, run->value_width * sizeof(float));
        }
    }
    if (run->split) cpu_kernels()->split_end();
    cpu_scratch_give(b.q);
}

/* Adds the splits of each row of each (batch, key head); one block a head. */
static void merge_splits(const Run *run) {
    const CpuAttention *a = run->a;
    size_t part_size = 2 + run->value_width;
    for (size_t head = 0; head < a->batch * a->kv_heads; head++) {
        Block b = {.run = run, .batch = head / a->kv_heads, .kv_head = head % a->kv_heads};
        for (size_t r = 0; r < run->rows; r++) {
            float *first = run->partial + (head * run->splits * run->block_rows + r) * part_size;
            size_t step = run->block_rows * part_size;
            float top = -INFINITY;
            for (size_t s = 0; s < run->splits; s++) top = fmaxf(top, first[s * step]);
            for (size_t s = 0; s < run->splits; s++) {
                float *part = first + s * step;
                float factor = part[0] == -INFINITY ? 0.0f : expf(part[0] - top);
                if (s == 0) {
                    part[1] *= factor;
                    cpu_kernels()->scale_shift(part + 2, part + 2, 0.0f, factor, a->value_dim);
                    continue;
                }
                first[1] += factor * part[1];
                cpu_kernels()->add_scaled(first + 2, first + 2, factor, part + 2, a->value_dim);
            }
            store_row(&b, r, first + 2, first[1], first + 2);
        }
    }
}

/* The fewest splits of the keys that let no thread wait for another longer than
 * an eighth of the work; at most `most`. */
static size_t fair_splits(size_t heads, size_t threads, size_t most) {
    size_t best = 1;
    double best_share = INFINITY; /* of the busiest thread, in heads */
    for (size_t splits = 1; splits <= most; splits++) {
        const size_t turns = (heads * splits + threads - 1) / threads;
        const double share = (double)turns / (double)splits;
        if (share < best_share) best = splits, best_share = share;
        if (share <= 1.125 * (double)heads / (double)threads) break;
    }
    return best;
}

/* False when the split way gave up; what it wrote is to be written again. */
static bool attend(const CpuAttention *a, bool split) {
    const Kernels *kernels = cpu_kernels();
    Run run = {.a = a, .group = a->q_heads / a->kv_heads, .splits = 1, .split = split};
    size_t heads = a->batch * a->kv_heads, threads = (size_t)base_threads();
    run.rows = run.group * a->q_len;
    run.streamed = run.rows <= STREAM_ROWS;
    run.block_rows = run.rows;
    if (!run.streamed) {
        /* Smaller blocks when there would be fewer than threads can share. */
        size_t wanted = BASE_MAX((size_t)1, 2 * threads / heads);
        size_t most = split ? ATTENTION_SPLIT_ROWS : BLOCK_ROWS;
        size_t rows = BASE_MIN(most, BASE_MAX((size_t)16, run.rows / wanted));
        run.block_rows = round_up(rows, split ? SPLIT_WIDTH : kernels->mr);
    }
    run.blocks = (run.rows + run.block_rows - 1) / run.block_rows;
    run.value_width = round_up(a->value_dim, split ? SPLIT_WIDTH : kernels->nr);
    if (run.streamed) run.splits = fair_splits(heads, threads, a->kv_len / SPLIT_KEYS);
    run.tasks = heads * run.blocks * run.splits;
    if (run.splits > 1)
        run.partial =
            cpu_scratch_take(run.tasks * run.block_rows * (2 + run.value_width) * sizeof(float));
    size_t work = run.tasks * run.block_rows * (a->kv_len / run.splits + 1) * a->head_dim;
    base_parallel_for(work < 32768 ? 1 : BASE_MIN(run.tasks, threads), 1, task_slice, &run);
    if (run.splits > 1) merge_splits(&run);
    cpu_scratch_give(run.partial);
    return !run.beyond;
}

void cpu_attention(const CpuAttention *a) {
    if (a->batch == 0 || a->q_heads == 0 || a->q_len == 0 || a->value_dim == 0) return;
    if (!attention_splits(a, a->q_heads / a->kv_heads * a->q_len) || !attend(a, true))
        attend(a, false);
}
