/* Speed: a prompt of random tokens is read and a fixed number of tokens generated,
 * whatever they are, as mlx_lm.benchmark does. */
#include "lm/evaluate.h"
#include "lm/model.h"

#include <stdlib.h>

int *lm_benchmark_prompts(const LmModel *model, const LmBenchmarkOptions *o, Error *err) {
    if (!mx_check(err)) return NULL;
    size_t count = (size_t)o->batch_size * (size_t)o->prompt_tokens;
    int *ids = base_try_alloc(count, sizeof *ids, err);
    if (!ids) return NULL;
    mx_scope s = mx_open();
    mx_seed(0);
    mlx_array drawn = mx_uniform(0, lm_model_vocab_size(model),
                                 MX_SHAPE(o->batch_size, o->prompt_tokens), MLX_FLOAT32);
    mx_copy_i32(mx_cast(drawn, MLX_INT32), ids, count);
    mx_drop(s);
    if (mx_check(err)) return ids;
    free(ids);
    return NULL;
}

/* ---- one sequence ---------------------------------------------------------------------- */

static bool run_single(LmModel *model, const int *ids, const LmBenchmarkOptions *o, LmStats *stats,
                       Error *err) {
    LmGenerateOptions options = lm_generate_defaults();
    options.max_tokens = o->generation_tokens;
    options.prefill_step = o->prefill_step;
    options.ignore_stop = true;
    return lm_generate(model, ids, (size_t)o->prompt_tokens, &options, stats, err);
}

/* ---- several of one length side by side ------------------------------------------------- */

/* Reads tokens [from, to) of all prompts. */
static void read_prompts(const LmModel *model, LmCache *cache, mlx_array prompts, int from,
                         int to) {
    mx_scope s = mx_open();
    model_decoder_hidden(model->decoder, mx_slice(prompts, 1, from, to), cache->layers);
    mx_drop(s);
    lm_cache_eval(cache);
    mlx_clear_cache();
}

/* The likeliest tokens after `last` [B, 1], of the same shape and evaluated. */
static mlx_array step(const LmModel *model, LmCache *cache, mlx_array last) {
    mx_scope s = mx_open();
    mlx_array hidden = model_decoder_hidden(model->decoder, last, cache->layers);
    mlx_array next = mx_argmax(model_decoder_head(model->decoder, hidden), -1);
    mx_eval(&next, 1);
    return mx_close(s, next);
}

static void generate(const LmModel *model, LmCache *cache, mlx_array prompts,
                     const LmBenchmarkOptions *o, LmStats *stats) {
    double started = base_now();
    int last = o->prompt_tokens - 1;
    for (int from = 0; from < last && !mx_failed() && !base_interrupted(); from += o->prefill_step)
        read_prompts(model, cache, prompts, from, BASE_MIN(from + o->prefill_step, last));
    mlx_array held = {0};
    mx_store(&held, step(model, cache, mx_slice(prompts, 1, last, last + 1)));
    double first = base_now();
    for (int i = 1; i < o->generation_tokens && !mx_failed() && !base_interrupted(); i++) {
        mx_scope s = mx_open();
        mx_store(&held, step(model, cache, held));
        mx_drop(s);
    }
    mx_free(&held);
    stats->prompt_seconds = first - started;
    stats->generation_seconds = base_now() - first;
}

static bool run_batch(LmModel *model, const int *ids, const LmBenchmarkOptions *o, LmStats *stats,
                      Error *err) {
    LmCache *cache = lm_cache_new(model, NULL, err);
    if (!cache) return false;
    mx_scope s = mx_open();
    generate(model, cache, mx_from_i32(ids, MX_SHAPE(o->batch_size, o->prompt_tokens)), o, stats);
    mx_drop(s);
    lm_cache_free(cache);
    size_t batch = (size_t)o->batch_size;
    stats->prompt_tokens = batch * (size_t)o->prompt_tokens;
    stats->generated_tokens = batch * (size_t)o->generation_tokens;
    if (stats->prompt_seconds > 0)
        stats->prompt_tps = (double)stats->prompt_tokens / stats->prompt_seconds;
    if (stats->generation_seconds > 0)
        stats->generation_tps = (double)stats->generated_tokens / stats->generation_seconds;
    stats->peak_gb = (double)base_peak_memory() / 1e9;
    return mx_check(err);
}

bool lm_benchmark(LmModel *model, const int *prompts, const LmBenchmarkOptions *options,
                  LmStats *stats, Error *err) {
    *stats = (LmStats){0};
    if (!mx_check(err)) return false;
    bool done = options->batch_size == 1 ? run_single(model, prompts, options, stats, err)
                                         : run_batch(model, prompts, options, stats, err);
    if (done && base_interrupted()) return base_fail(err, ERROR_INTERRUPTED, "interrupted");
    return done;
}
