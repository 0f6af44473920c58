/* The product of rows with a large vocabulary where only its logsumexp or that
 * one's gradient is wanted: a chunk of words at a time, all rows, so that the
 * products are never there together. A chunk's width follows from the rows. */
#include "base/base.h"
#include "cpu/table.h"

#include <math.h>

enum { CHUNK_BYTES = 16 << 20, CHUNK_WORDS = 256 }; /* of products; words are a multiple */

typedef struct Chunk {
    const CpuVocabulary *job;
    size_t first, count; /* words */
    float *products;     /* [rows, count] */
    float *top, *sum;    /* [rows]: the largest so far, the sum of exp(x - top) */
    float *mean;         /* [rows, depth]: the sum of exp(x - top) word, or NULL */
    const CpuVocabularyGrad *grad;
    void *shares; /* [rows, count] of x_type: the gradient of the products */
} Chunk;

static size_t chunk_words(const CpuVocabulary *job) {
    const size_t words = (size_t)CHUNK_BYTES / sizeof(float) / job->rows / CHUNK_WORDS;
    return BASE_MIN(BASE_MAX(words, (size_t)1) * CHUNK_WORDS, job->words);
}

/* B is the chunk's words, rows of w, as [depth, words] or the other way round. */
static void set_words(const Chunk *chunk, CpuQuant *packed, bool transposed, CpuGemm *product) {
    const CpuVocabulary *job = chunk->job;
    if (job->quant) {
        *packed = cpu_quant_rows(job->quant, chunk->first, chunk->count);
        product->quant = packed;
        product->quant_transposed = transposed;
        return;
    }
    product->b = (const char *)job->w +
                 (ptrdiff_t)chunk->first * job->w_word * (ptrdiff_t)cpu_type_size(job->w_type);
    product->b_type = job->w_type;
    product->b_row = transposed ? job->w_depth : job->w_word;
    product->b_col = transposed ? job->w_word : job->w_depth;
}

static void multiply_chunk(const Chunk *chunk) {
    const CpuVocabulary *job = chunk->job;
    CpuQuant packed;
    CpuGemm product = {.m = job->rows,
                       .n = chunk->count,
                       .k = job->depth,
                       .a = job->x,
                       .a_type = job->x_type,
                       .a_row = (ptrdiff_t)job->depth,
                       .a_col = 1,
                       .c = chunk->products,
                       .c_type = CPU_F32,
                       .c_row = (ptrdiff_t)chunk->count,
                       .alpha = 1};
    set_words(chunk, &packed, true, &product);
    cpu_gemm(&product);
}

/* A row of products, by now probabilities or gradients, as x_type. */
static void narrow_row(const Chunk *chunk, size_t r) {
    const CpuVocabulary *job = chunk->job;
    if (job->x_type == CPU_F32) return;
    cpu_kernels()->from_f32[job->x_type]((char *)chunk->shares +
                                             r * chunk->count * cpu_type_size(job->x_type),
                                         chunk->products + r * chunk->count, chunk->count);
}

/* sum += shares @ the chunk's words; part is as large as sum. */
static void add_words(const Chunk *chunk, float *part, float *sum) {
    const CpuVocabulary *job = chunk->job;
    CpuQuant packed;
    CpuGemm product = {.m = job->rows,
                       .n = job->depth,
                       .k = chunk->count,
                       .a = chunk->shares,
                       .a_type = job->x_type,
                       .a_row = (ptrdiff_t)chunk->count,
                       .a_col = 1,
                       .c = chunk->first ? part : sum,
                       .c_type = CPU_F32,
                       .c_row = (ptrdiff_t)job->depth,
                       .alpha = 1};
    set_words(chunk, &packed, false, &product);
    cpu_gemm(&product);
    if (chunk->first) cpu_binary(CPU_ADD, CPU_F32, sum, sum, 1, part, 1, job->rows * job->depth);
}

static void logsumexp_slice(void *context, size_t begin, size_t end, int thread) {
    const Chunk *chunk = context;
    const Kernels *kernels = cpu_kernels();
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *row = chunk->products + r * chunk->count;
        const float high = kernels->max(row, chunk->count), before = chunk->top[r];
        const float top = before > high || isnan(before) ? before : high;
        const float kept = expf(before - top);
        if (isfinite(top))
            chunk->sum[r] = chunk->sum[r] * kept + kernels->exp_sum(row, row, top, chunk->count);
        chunk->top[r] = top;
        if (!chunk->mean) continue;
        const size_t depth = chunk->job->depth;
        if (chunk->first && kept != 1.0f)
            kernels->scale_shift(chunk->mean + r * depth, chunk->mean + r * depth, 0.0f, kept,
                                 depth);
        narrow_row(chunk, r);
    }
}

static void take_chunk(Chunk *chunk, size_t words) {
    const size_t left = chunk->job->words - chunk->first;
    chunk->count = BASE_MIN(words, left);
    multiply_chunk(chunk);
}

static size_t row_grain(const Chunk *chunk) {
    return BASE_MAX((size_t)1, (size_t)8192 / chunk->count);
}

/* Room for a chunk's products, and for them in x_type when that is another. */
static void take_room(Chunk *chunk, size_t words, bool shares) {
    const CpuVocabulary *job = chunk->job;
    chunk->products = cpu_scratch_take(job->rows * words * sizeof(float));
    chunk->shares = chunk->products;
    if (shares && job->x_type != CPU_F32)
        chunk->shares = cpu_scratch_take(job->rows * words * sizeof(uint16_t));
}

static void give_room(const Chunk *chunk) {
    if (chunk->shares != chunk->products) cpu_scratch_give(chunk->shares);
    cpu_scratch_give(chunk->products);
}

void cpu_vocabulary_logsumexp(const CpuVocabulary *job, float *out, float *mean) {
    if (!job->rows || !job->words) return;
    const size_t words = chunk_words(job);
    Chunk chunk = {.job = job, .top = out, .mean = mean};
    take_room(&chunk, words, mean != NULL);
    chunk.sum = cpu_scratch_take(job->rows * sizeof(float));
    float *part = mean ? cpu_scratch_take(job->rows * job->depth * sizeof(float)) : NULL;
    for (size_t r = 0; r < job->rows; r++) {
        chunk.top[r] = -INFINITY;
        chunk.sum[r] = 0;
    }
    for (; chunk.first < job->words; chunk.first += words) {
        take_chunk(&chunk, words);
        base_parallel_for(job->rows, row_grain(&chunk), logsumexp_slice, &chunk);
        if (mean) add_words(&chunk, part, mean);
    }
    for (size_t r = 0; r < job->rows; r++) {
        float *row = mean ? mean + r * job->depth : NULL;
        if (mean) cpu_kernels()->scale_shift(row, row, 0.0f, 1 / chunk.sum[r], job->depth);
        if (isfinite(out[r])) out[r] += logf(chunk.sum[r]);
    }
    cpu_scratch_give(part);
    cpu_scratch_give(chunk.sum);
    give_room(&chunk);
}

/* The word of a row's target, as float32. */
static void target_word(const CpuVocabulary *job, size_t r, float *out) {
    const size_t size = job->quant ? 4 : cpu_type_size(job->w_type);
    const uint32_t target = job->targets[r];
    const char *w = job->quant
                        ? NULL
                        : (const char *)job->w + (ptrdiff_t)target * job->w_word * (ptrdiff_t)size;
    if (job->quant)
        cpu_dequantize_gather(job->quant, &target, 1, CPU_F32, out);
    else if (job->w_depth == 1)
        cpu_kernels()->to_f32[job->w_type](out, w, job->depth);
    else
        for (size_t i = 0; i < job->depth; i++)
            out[i] = cpu_load(w + (ptrdiff_t)i * job->w_depth * (ptrdiff_t)size, job->w_type, 0);
}

static void score_slice(void *context, size_t begin, size_t end, int thread) {
    const Chunk *chunk = context;
    const CpuVocabulary *job = chunk->job;
    const Kernels *kernels = cpu_kernels();
    float *x = cpu_scratch_take(2 * job->depth * sizeof(float)), *word = x + job->depth;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        kernels->to_f32[job->x_type](
            x, (const char *)job->x + r * job->depth * cpu_type_size(job->x_type), job->depth);
        target_word(job, r, word);
        kernels->dot_rows[CPU_F32](word, (ptrdiff_t)job->depth, 1, job->depth, x, job->depth, 1,
                                   chunk->products + r, 1);
    }
    cpu_scratch_give(x);
}

void cpu_vocabulary_scores(const CpuVocabulary *job, float *out) {
    Chunk chunk = {.job = job, .products = out};
    base_parallel_for(job->rows, BASE_MAX((size_t)1, 16384 / BASE_MAX(job->depth, (size_t)1)),
                      score_slice, &chunk);
}

/* ---- the gradient ---- */

static void share_slice(void *context, size_t begin, size_t end, int thread) {
    const Chunk *chunk = context;
    const CpuVocabulary *job = chunk->job;
    const CpuVocabularyGrad *grad = chunk->grad;
    const Kernels *kernels = cpu_kernels();
    const size_t n = chunk->count;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *row = chunk->products + r * n;
        kernels->exp_sum(row, row, grad->logsumexp[r], n);
        kernels->scale_shift(row, row, 0.0f, grad->g_logsumexp ? grad->g_logsumexp[r] : 0.0f, n);
        if (grad->g_score && job->targets[r] >= chunk->first && job->targets[r] - chunk->first < n)
            row[job->targets[r] - chunk->first] += grad->g_score[r];
        narrow_row(chunk, r);
    }
}

/* The chunk's rows of dw = sharesᵀ @ x. */
static void set_dw(const Chunk *chunk) {
    const CpuVocabulary *job = chunk->job;
    cpu_gemm(&(CpuGemm){.m = chunk->count,
                        .n = job->depth,
                        .k = job->rows,
                        .a = chunk->shares,
                        .a_type = job->x_type,
                        .a_row = 1,
                        .a_col = (ptrdiff_t)chunk->count,
                        .b = job->x,
                        .b_type = job->x_type,
                        .b_row = (ptrdiff_t)job->depth,
                        .b_col = 1,
                        .c = (char *)chunk->grad->dw +
                             chunk->first * job->depth * cpu_type_size(job->w_type),
                        .c_type = job->w_type,
                        .c_row = (ptrdiff_t)job->depth,
                        .alpha = 1});
}

/* dx = g_logsumexp mean + g_score word */
static void mean_slice(void *context, size_t begin, size_t end, int thread) {
    const Chunk *chunk = context;
    const CpuVocabulary *job = chunk->job;
    const CpuVocabularyGrad *grad = chunk->grad;
    const Kernels *kernels = cpu_kernels();
    const size_t depth = job->depth;
    float *row = cpu_scratch_take(2 * depth * sizeof(float)), *word = row + depth;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        kernels->scale_shift(row, grad->mean + r * depth, 0.0f,
                             grad->g_logsumexp ? grad->g_logsumexp[r] : 0.0f, depth);
        if (grad->g_score) {
            target_word(job, r, word);
            kernels->add_scaled(row, row, grad->g_score[r], word, depth);
        }
        kernels->from_f32[job->x_type]((char *)grad->dx + r * depth * cpu_type_size(job->x_type),
                                       row, depth);
    }
    cpu_scratch_give(row);
}

static void product_grad(const CpuVocabulary *job, const CpuVocabularyGrad *grad) {
    const size_t words = chunk_words(job), items = job->rows * job->depth;
    Chunk chunk = {.job = job, .grad = grad};
    take_room(&chunk, words, true);
    float *part = grad->dx && words < job->words ? cpu_scratch_take(items * sizeof(float)) : NULL;
    float *dx = !grad->dx                ? NULL
                : job->x_type == CPU_F32 ? grad->dx
                                         : cpu_scratch_take(items * sizeof(float));
    for (; chunk.first < job->words; chunk.first += words) {
        take_chunk(&chunk, words);
        base_parallel_for(job->rows, row_grain(&chunk), share_slice, &chunk);
        if (dx) add_words(&chunk, part, dx);
        if (grad->dw) set_dw(&chunk);
    }
    if (dx && dx != grad->dx) {
        cpu_convert(grad->dx, job->x_type, dx, CPU_F32, items);
        cpu_scratch_give(dx);
    }
    cpu_scratch_give(part);
    give_room(&chunk);
}

void cpu_vocabulary_grad(const CpuVocabulary *job, const CpuVocabularyGrad *grad) {
    if (!job->rows || !job->words || !job->depth) return;
    if (grad->mean)
        base_parallel_for(job->rows, 16, mean_slice, &(Chunk){.job = job, .grad = grad});
    else
        product_grad(job, grad);
}
