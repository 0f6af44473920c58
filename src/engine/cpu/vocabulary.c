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

static void logsumexp_slice(void *context, size_t begin, size_t end, int thread) {
    const Chunk *chunk = context;
    const Kernels *kernels = cpu_kernels();
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *row = chunk->products + r * chunk->count;
        const float high = kernels->max(row, chunk->count), before = chunk->top[r];
        const float top = before > high || isnan(before) ? before : high;
        if (isfinite(top))
            chunk->sum[r] =
                chunk->sum[r] * expf(before - top) + kernels->exp_sum(row, row, top, chunk->count);
        chunk->top[r] = top;
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

void cpu_vocabulary_logsumexp(const CpuVocabulary *job, float *out) {
    if (!job->rows || !job->words) return;
    const size_t words = chunk_words(job);
    Chunk chunk = {.job = job, .top = out};
    chunk.products = cpu_scratch_take(job->rows * words * sizeof(float));
    chunk.sum = cpu_scratch_take(job->rows * sizeof(float));
    for (size_t r = 0; r < job->rows; r++) {
        chunk.top[r] = -INFINITY;
        chunk.sum[r] = 0;
    }
    for (; chunk.first < job->words; chunk.first += words) {
        take_chunk(&chunk, words);
        base_parallel_for(job->rows, row_grain(&chunk), logsumexp_slice, &chunk);
    }
    for (size_t r = 0; r < job->rows; r++)
        if (isfinite(out[r])) out[r] += logf(chunk.sum[r]);
    cpu_scratch_give(chunk.products);
    cpu_scratch_give(chunk.sum);
}

static void score_slice(void *context, size_t begin, size_t end, int thread) {
    const Chunk *chunk = context;
    const CpuVocabulary *job = chunk->job;
    const Kernels *kernels = cpu_kernels();
    const size_t size = job->quant ? 4 : cpu_type_size(job->w_type);
    float *x = cpu_scratch_take(2 * job->depth * sizeof(float)), *word = x + job->depth;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const uint32_t target = job->targets[r];
        kernels->to_f32[job->x_type](
            x, (const char *)job->x + r * job->depth * cpu_type_size(job->x_type), job->depth);
        const char *w =
            job->quant ? NULL
                       : (const char *)job->w + (ptrdiff_t)target * job->w_word * (ptrdiff_t)size;
        if (job->quant)
            cpu_dequantize_gather(job->quant, &target, 1, CPU_F32, word);
        else if (job->w_depth == 1)
            kernels->to_f32[job->w_type](word, w, job->depth);
        else
            for (size_t i = 0; i < job->depth; i++)
                word[i] =
                    cpu_load(w + (ptrdiff_t)i * job->w_depth * (ptrdiff_t)size, job->w_type, 0);
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
        if (job->x_type != CPU_F32)
            kernels->from_f32[job->x_type](
                (char *)chunk->shares + r * n * cpu_type_size(job->x_type), row, n);
    }
}

/* dx += shares @ the chunk's words */
static void add_dx(const Chunk *chunk, float *part, float *dx) {
    const CpuVocabulary *job = chunk->job;
    CpuQuant packed;
    CpuGemm product = {.m = job->rows,
                       .n = job->depth,
                       .k = chunk->count,
                       .a = chunk->shares,
                       .a_type = job->x_type,
                       .a_row = (ptrdiff_t)chunk->count,
                       .a_col = 1,
                       .c = chunk->first ? part : dx,
                       .c_type = CPU_F32,
                       .c_row = (ptrdiff_t)job->depth,
                       .alpha = 1};
    set_words(chunk, &packed, false, &product);
    cpu_gemm(&product);
    if (chunk->first) cpu_binary(CPU_ADD, CPU_F32, dx, dx, 1, part, 1, job->rows * job->depth);
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

void cpu_vocabulary_grad(const CpuVocabulary *job, const CpuVocabularyGrad *grad) {
    if (!job->rows || !job->words || !job->depth) return;
    const size_t words = chunk_words(job), items = job->rows * job->depth;
    Chunk chunk = {.job = job, .grad = grad};
    chunk.products = cpu_scratch_take(job->rows * words * sizeof(float));
    chunk.shares = job->x_type == CPU_F32 ? chunk.products
                                          : cpu_scratch_take(job->rows * words * sizeof(uint16_t));
    float *part = grad->dx && words < job->words ? cpu_scratch_take(items * sizeof(float)) : NULL;
    float *dx = !grad->dx                ? NULL
                : job->x_type == CPU_F32 ? grad->dx
                                         : cpu_scratch_take(items * sizeof(float));
    for (; chunk.first < job->words; chunk.first += words) {
        take_chunk(&chunk, words);
        base_parallel_for(job->rows, row_grain(&chunk), share_slice, &chunk);
        if (dx) add_dx(&chunk, part, dx);
        if (grad->dw) set_dw(&chunk);
    }
    if (dx && dx != grad->dx) {
        cpu_convert(grad->dx, job->x_type, dx, CPU_F32, items);
        cpu_scratch_give(dx);
    }
    cpu_scratch_give(part);
    if (chunk.shares != chunk.products) cpu_scratch_give(chunk.shares);
    cpu_scratch_give(chunk.products);
}
