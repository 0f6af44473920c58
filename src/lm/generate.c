/* Generation: prompt in chunks, then a token at a time until a stop token, the
 * limit, or the caller ends it.
 *
 * One evaluation a token. Greedy decoding without penalties computes nothing
 * but an argmax on the logits; otherwise the logits come to the host once. */
#include "lm/generation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_PREFILL = 2048 };

LmGenerateOptions lm_generate_defaults(void) {
    return (LmGenerateOptions){
        .max_tokens = 100,
        .sampling = {.min_tokens_to_keep = 1, .top_p = 1, .xtc_threshold = 0.1f},
        .prefill_step = DEFAULT_PREFILL,
        .num_draft_tokens = 3,
    };
}

/* ---- the model ------------------------------------------------------------------------- */

mlx_array lm_forward(LmModel *model, LmCache *cache, const int *ids, size_t count, int wanted) {
    mx_scope s = mx_open();
    mlx_array hidden = lm_read(model, cache, ids, count);
    mlx_array last = mx_slice(hidden, 1, (int)count - wanted, (int)count);
    return mx_close(s, model_decoder_head(model->decoder, last));
}

static size_t prefill_step(const Generation *g) {
    return g->options->prefill_step > 0 ? (size_t)g->options->prefill_step : DEFAULT_PREFILL;
}

bool lm_prefill(Generation *g, LmModel *model, LmCache *cache, const int *ids, size_t count,
                size_t total, void (*progress)(void *, size_t, size_t)) {
    for (size_t done = 0; done < count && !mx_failed() && !base_interrupted();) {
        size_t chunk = BASE_MIN(prefill_step(g), count - done);
        mx_scope s = mx_open();
        lm_read(model, cache, ids + done, chunk);
        mx_drop(s); /* only what the caches need is computed: no head, no last norm */
        lm_cache_settle(cache);
        lm_cache_eval(cache);
        mlx_clear_cache();
        done += chunk;
        if (progress) progress(g->options->context, done, total);
    }
    if (base_interrupted()) g->stats.finish = LM_FINISH_CALLER;
    return !mx_failed();
}

void lm_choose(Generation *g, mlx_array logits, int count, int *ids, float *logprobs) {
    mx_scope s = mx_open();
    int size = g->sampler.vocab_size, given = BASE_MIN(mx_dim(logits, 2), size);
    mlx_array known = mx_reshape(mx_slice(logits, 2, 0, given), MX_SHAPE(count, given));
    for (int i = 0; i < count; i++) ids[i] = 0, logprobs[i] = 0;
    if (lm_sampler_is_argmax(&g->sampler) && !g->options->logprobs) {
        mx_copy_i32(mx_argmax(known, -1), ids, (size_t)count);
    } else {
        if (given < size) {
            mlx_array rest = mx_full(MX_SHAPE(count, size - given), -INFINITY, mx_dtype(known));
            known = mx_concat2(known, rest, 1);
        }
        size_t cells = (size_t)count * (size_t)size;
        if (cells > g->logits_capacity)
            g->logits = base_grow(g->logits, &g->logits_capacity, cells, sizeof(float));
        if (mx_copy_f32(known, g->logits, cells))
            lm_sampler_choose_rows(&g->sampler, g->logits, count, ids,
                                   g->options->logprobs ? logprobs : NULL);
    }
    mx_drop(s);
}

/* ---- tokens out ------------------------------------------------------------------------- */

static bool is_in(const int *ids, size_t count, int id) {
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id) return true;
    }
    return false;
}

static bool is_stop(const Generation *g, int id) {
    const LmGenerateOptions *o = g->options;
    if (o->ignore_stop) return false;
    return is_in(g->model->stop_ids, g->model->n_stop_ids, id) ||
           is_in(o->stop_ids, o->n_stop_ids, id);
}

bool lm_emit(Generation *g, int id, float logprob, bool from_draft) {
    const LmGenerateOptions *o = g->options;
    LmStats *stats = &g->stats;
    if (stats->generated_tokens++ == 0) {
        g->first_token = base_now();
        stats->prompt_seconds = g->first_token - g->started;
    }
    if (is_stop(g, id)) {
        stats->finish = LM_FINISH_STOP;
    } else if (o->max_tokens >= 0 && stats->generated_tokens >= (size_t)o->max_tokens) {
        stats->finish = LM_FINISH_LENGTH;
    } else if (base_interrupted()) {
        stats->finish = LM_FINISH_CALLER;
    }
    g->text.length = 0;
    if (g->stream) {
        if (stats->finish != LM_FINISH_STOP) text_stream_push(g->stream, id, &g->text);
        if (stats->finish != LM_FINISH_NONE) text_stream_finish(g->stream, &g->text);
    }
    LmToken token = {
        .id = id,
        .text = g->text.length ? g->text.data : "",
        .text_length = g->text.length,
        .logprob = logprob,
        .from_draft = from_draft,
        .index = (int)stats->generated_tokens - 1,
        .finish = stats->finish,
    };
    if (o->on_token && !o->on_token(o->context, &token) && stats->finish == LM_FINISH_NONE) {
        stats->finish = LM_FINISH_CALLER;
    }
    return stats->finish == LM_FINISH_NONE;
}

/* ---- the loop ------------------------------------------------------------------------------ */

/* mlx_lm always reads the last token of a prompt by itself. Where that makes a
 * difference, kept rows or a cache that is packed by then, so is it here. */
static bool reads_last_alone(const LmCache *cache) {
    return cache->options.kv_bits > 0 || cache->options.max_size > 0;
}

static bool generate_plain(Generation *g, const int *prompt, size_t length) {
    size_t rest = (length - 1) % prefill_step(g) + 1; /* the last chunk gives the first token */
    if (reads_last_alone(g->cache)) rest = 1;
    if (!lm_prefill(g, g->model, g->cache, prompt, length - rest, length, g->options->on_prefill))
        return false;
    const int *ids = prompt + length - rest;
    int id;
    while (g->stats.finish == LM_FINISH_NONE && !mx_failed()) {
        mx_scope s = mx_open();
        float logprob = 0;
        mlx_array logits = lm_forward(g->model, g->cache, ids, rest, 1);
        lm_cache_settle(g->cache);
        lm_choose(g, logits, 1, &id, &logprob);
        mx_drop(s);
        if (mx_failed()) break;
        if (g->stats.generated_tokens == 0 && g->options->on_prefill) {
            g->options->on_prefill(g->options->context, length, length);
        }
        lm_sampler_see(&g->sampler, id);
        lm_emit(g, id, logprob, false);
        ids = &id;
        rest = 1;
    }
    return !mx_failed();
}

/* A cache that the caller continues holds every token that was reported, the
 * last included; decoding itself never needs that one. */
static void complete_cache(Generation *g, int start, size_t prompt_length) {
    size_t reported = g->stats.generated_tokens;
    int wanted = start + (int)prompt_length + (int)reported;
    int excess = lm_cache_length(g->cache) - wanted;
    if (excess > 0) lm_cache_trim(g->cache, excess);
    if (lm_cache_length(g->cache) != wanted - 1 || reported == 0) return;
    mx_scope s = mx_open();
    int last = g->sampler.recent[g->sampler.n_recent - 1];
    lm_read(g->model, g->cache, &last, 1);
    mx_drop(s);
    lm_cache_settle(g->cache);
    lm_cache_eval(g->cache);
}

static void finish_stats(Generation *g, size_t prompt_length) {
    LmStats *stats = &g->stats;
    double now = base_now();
    stats->prompt_tokens = prompt_length;
    if (stats->generated_tokens == 0)
        stats->prompt_seconds = now - g->started;
    else
        stats->generation_seconds = now - g->first_token;
    if (stats->prompt_seconds > 0)
        stats->prompt_tps = (double)prompt_length / stats->prompt_seconds;
    if (stats->generation_seconds > 0) {
        stats->generation_tps = (double)stats->generated_tokens / stats->generation_seconds;
    }
    stats->peak_gb = (double)base_peak_memory() / 1e9;
}

/* By the tokenizers, for models pad their rows differently. */
static bool same_vocabulary(const LmModel *a, const LmModel *b) {
    if (!a->tokenizer || !b->tokenizer) return lm_model_vocab_size(a) == lm_model_vocab_size(b);
    return text_tokenizer_vocab_size(a->tokenizer) == text_tokenizer_vocab_size(b->tokenizer);
}

static bool check_input(const LmModel *model, const int *prompt, size_t length,
                        const LmGenerateOptions *o, Error *err) {
    int rows = lm_model_vocab_size(model);
    if (length == 0) return base_fail(err, ERROR_INPUT, "the prompt is empty");
    if (length > INT32_MAX / 4) return base_fail(err, ERROR_INPUT, "the prompt is too long");
    for (size_t i = 0; i < length; i++) {
        if (prompt[i] < 0 || prompt[i] >= rows) {
            return base_fail(err, ERROR_INPUT, "token %d of the prompt is %d, the model has %d ids",
                             (int)i, prompt[i], rows);
        }
    }
    if (o->draft && !same_vocabulary(model, o->draft)) {
        return base_fail(err, ERROR_INPUT, "the draft model %s has another vocabulary than %s",
                         lm_model_folder(o->draft), lm_model_folder(model));
    }
    if (o->draft && o->num_draft_tokens < 1) {
        return base_fail(err, ERROR_INPUT, "num-draft-tokens must be at least 1, not %d",
                         o->num_draft_tokens);
    }
    return true;
}

/* XTC keeps the newline and the stop tokens. */
static bool start_sampler(Generation *g, Error *err) {
    TextIds special = {0};
    const LmModel *model = g->model;
    for (size_t i = 0; i < model->n_stop_ids; i++) text_ids_append(&special, model->stop_ids[i]);
    if (model->tokenizer && g->options->sampling.xtc_probability > 0) {
        Error ignored = {0}; /* a vocabulary without newline has nothing to protect */
        text_tokenizer_encode(model->tokenizer, "\n", 1, TEXT_ENCODE_PLAIN, &special, &ignored);
    }
    bool ok = lm_sampler_init(&g->sampler, &g->options->sampling, lm_model_vocab_size(model),
                              special.data, special.length, err);
    text_ids_free(&special);
    return ok;
}

static bool run(Generation *g, const int *prompt, size_t length, Error *err) {
    int start = lm_cache_length(g->cache);
    lm_cache_expect(g->cache, length);
    lm_sampler_see(&g->sampler, prompt[length - 1]);
    if (g->options->max_tokens == 0) { /* the prompt is read, nothing follows */
        g->stats.finish = LM_FINISH_LENGTH;
        void (*progress)(void *, size_t, size_t) = g->options->on_prefill;
        bool read = lm_prefill(g, g->model, g->cache, prompt, length - 1, length, progress);
        if (read && !base_interrupted()) {
            lm_prefill(g, g->model, g->cache, prompt + length - 1, 1, length, NULL);
            if (progress) progress(g->options->context, length, length);
        }
        return mx_check(err);
    }
    bool ok = g->options->draft ? lm_generate_speculative(g, prompt, length, err)
                                : generate_plain(g, prompt, length);
    if (ok && !g->own_cache) complete_cache(g, start, length);
    return mx_check(err) && ok;
}

bool lm_generate(LmModel *model, const int *prompt, size_t length, const LmGenerateOptions *options,
                 LmStats *stats, Error *err) {
    if (!mx_check(err) || !check_input(model, prompt, length, options, err)) return false;
    Generation g = {.model = model,
                    .options = options,
                    .started = base_now(),
                    .cache = options->cache,
                    .own_cache = !options->cache};
    if (g.own_cache) g.cache = lm_cache_new(model, &options->cache_options, err);
    mx_scope s = mx_open();
    bool ok = g.cache && start_sampler(&g, err);
    if (ok) {
        if (options->seeded) mx_seed(options->seed);
        if (model->tokenizer) g.stream = text_stream_new(model->tokenizer, false);
        ok = run(&g, prompt, length, err);
        finish_stats(&g, length);
    }
    mx_drop(s);
    if (stats) *stats = g.stats;
    text_stream_free(g.stream);
    base_str_free(&g.text);
    lm_sampler_free(&g.sampler);
    free(g.logits);
    if (g.own_cache) lm_cache_free(g.cache);
    return ok;
}

/* ---- gathering ------------------------------------------------------------------------------- */

typedef struct Gathering {
    const LmGenerateOptions *options;
    StrBuf text;
} Gathering;

static bool gather(void *context, const LmToken *token) {
    Gathering *gathering = context;
    const LmGenerateOptions *o = gathering->options;
    base_str_append_n(&gathering->text, token->text, token->text_length);
    return !o->on_token || o->on_token(o->context, token);
}

static void gather_prefill(void *context, size_t done, size_t total) {
    const LmGenerateOptions *o = ((Gathering *)context)->options;
    if (o->on_prefill) o->on_prefill(o->context, done, total);
}

char *lm_generate_text(LmModel *model, const int *prompt, size_t length,
                       const LmGenerateOptions *options, LmStats *stats, Error *err) {
    Gathering gathering = {options, {0}};
    LmGenerateOptions own = *options;
    own.on_token = gather;
    own.on_prefill = gather_prefill;
    own.context = &gathering;
    if (lm_generate(model, prompt, length, &own, stats, err))
        return base_str_detach(&gathering.text);
    base_str_free(&gathering.text);
    return NULL;
}
