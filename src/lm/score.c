/* Log-likelihoods of continuations, as mlx_lm.evaluate computes them: the context
 * is read into a cache, its last logits judge each continuation's first token, and
 * the rest of a continuation is read behind it and forgotten again. */
#include "lm/score.h"

#include "lm/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { READ_STEP = 2048, SCORE_STEP = 256 };

struct LmScorer {
    LmModel *model;
    LmCache *cache;
    TextEncodeOptions encoding;
    size_t max_tokens;
    TextIds held;  /* what the cache has read */
    float *logits; /* after the context, [V] */
    double total;  /* log of the sum of their exponentials */
    int best;      /* the likeliest id */
};

LmScorer *lm_scorer_new(LmModel *model, bool templated, int max_tokens, Error *err) {
    if (!lm_model_tokenizer(model)) {
        base_fail(err, ERROR_UNSUPPORTED, "%s: the model has no tokenizer", lm_model_folder(model));
        return NULL;
    }
    LmCache *cache = lm_cache_new(model, NULL, err);
    if (!cache) return NULL;
    LmScorer *scorer = base_calloc(1, sizeof *scorer);
    scorer->model = model;
    scorer->cache = cache;
    scorer->encoding = templated ? TEXT_ENCODE_TEMPLATED : TEXT_ENCODE_PROMPT;
    scorer->max_tokens = (size_t)max_tokens;
    scorer->logits = base_alloc((size_t)lm_model_vocab_size(model) * sizeof(float));
    return scorer;
}

void lm_scorer_free(LmScorer *scorer) {
    if (!scorer) return;
    lm_cache_free(scorer->cache);
    text_ids_free(&scorer->held);
    free(scorer->logits);
    free(scorer);
}

/* ---- reading ----------------------------------------------------------------------------- */

static void forget(LmScorer *scorer, size_t count) {
    if (count > 0 && !lm_cache_trim(scorer->cache, (int)count)) {
        lm_cache_clear(scorer->cache);
        scorer->held.length = 0;
        return;
    }
    scorer->held.length -= count;
}

/* Reads ids into the cache; their final hidden states [1, count, D]. */
static mlx_array read_more(LmScorer *scorer, const int *ids, size_t count) {
    mlx_array hidden = lm_read(scorer->model, scorer->cache, ids, count);
    for (size_t i = 0; i < count; i++) text_ids_append(&scorer->held, ids[i]);
    return hidden;
}

static void judge_next(LmScorer *scorer) {
    size_t size = (size_t)lm_model_vocab_size(scorer->model);
    float top = -INFINITY;
    for (size_t i = 0; i < size; i++) {
        if (!(scorer->logits[i] > top)) continue;
        top = scorer->logits[i];
        scorer->best = (int)i;
    }
    double sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += (int)i == scorer->best ? 0 : exp((double)(scorer->logits[i] - top));
    scorer->total = (double)top + log1p(sum);
}

/* Makes the cache hold exactly these ids, and knows what may follow them. */
static bool read_context(LmScorer *scorer, const int *ids, size_t count, Error *err) {
    size_t common = 0, most = BASE_MIN(scorer->held.length, count - 1);
    while (common < most && scorer->held.data[common] == ids[common]) common++;
    forget(scorer, scorer->held.length - common);
    lm_cache_expect(scorer->cache, count - scorer->held.length);
    for (size_t done = scorer->held.length; done < count && !mx_failed();) {
        mx_scope s = mx_open();
        size_t step = BASE_MIN((size_t)READ_STEP, count - done);
        mlx_array hidden = read_more(scorer, ids + done, step);
        done += step;
        if (done == count) {
            mlx_array last = mx_slice(hidden, 1, (int)step - 1, (int)step);
            mlx_array logits = model_decoder_head(scorer->model->decoder, last);
            mx_copy_f32(logits, scorer->logits, (size_t)lm_model_vocab_size(scorer->model));
        }
        mx_drop(s);
        lm_cache_eval(scorer->cache);
    }
    if (!mx_check(err)) return false;
    judge_next(scorer);
    return true;
}

/* ---- one continuation ---------------------------------------------------------------------- */

/* ids[1..count) after ids[0..count - 1), which follow what the cache holds. */
static void score_rest(LmScorer *scorer, const int *ids, size_t count, LmScore *score) {
    float logprobs[SCORE_STEP];
    int best[SCORE_STEP];
    for (size_t at = 0; at + 1 < count && !mx_failed();) {
        mx_scope s = mx_open();
        size_t step = BASE_MIN((size_t)SCORE_STEP, count - 1 - at);
        mlx_array hidden = mx_squeeze(read_more(scorer, ids + at, step), 0);
        mlx_array logits = model_decoder_head(scorer->model->decoder, hidden);
        mlx_array targets = mx_from_i32(ids + at + 1, MX_SHAPE((int)step, 1));
        logits = mx_cast(logits, MLX_FLOAT32);
        mlx_array chosen = mx_squeeze(mx_take_along(logits, targets, -1), -1);
        bool ok = mx_copy_f32(mx_sub(chosen, mx_logsumexp(logits, -1, false)), logprobs, step) &&
                  mx_copy_i32(mx_argmax(logits, -1), best, step);
        mx_drop(s);
        for (size_t i = 0; ok && i < step; i++) {
            score->logprob += (double)logprobs[i];
            score->greedy &= best[i] == ids[at + 1 + i];
        }
        at += step;
    }
}

/* The last `count` of ids after the ones before them, of which the first `cut` are
 * left out. */
static bool score_one(LmScorer *scorer, const TextIds *ids, size_t cut, size_t count,
                      LmScore *score, Error *err) {
    size_t context = ids->length - count;
    const int *first = ids->data + context;
    bool ready = scorer->held.length == context - cut &&
                 memcmp(scorer->held.data, ids->data + cut, (context - cut) * sizeof(int)) == 0;
    if (!ready && !read_context(scorer, ids->data + cut, context - cut, err)) return false;
    score->logprob = (double)scorer->logits[first[0]] - scorer->total;
    score->greedy = first[0] == scorer->best;
    size_t before = scorer->held.length;
    score_rest(scorer, first, count, score);
    if (!mx_check(err)) return false;
    forget(scorer, scorer->held.length - before);
    return true;
}

/* ---- texts --------------------------------------------------------------------------- */

/* The ids of a context and a continuation joined, and how many belong to the
 * latter: at least one. */
typedef struct Joined {
    TextIds ids;
    size_t own;
} Joined;

static bool encode(const LmScorer *scorer, const char *text, TextIds *ids, Error *err) {
    return text_tokenizer_encode(lm_model_tokenizer(scorer->model), text, strlen(text),
                                 scorer->encoding, ids, err);
}

/* Something to come after, where the context has no tokens. */
static void begin(const LmScorer *scorer, TextIds *ids) {
    const TextTokenizer *tokenizer = lm_model_tokenizer(scorer->model);
    int id = text_tokenizer_special_id(tokenizer, TEXT_BOS);
    if (id < 0) id = text_tokenizer_special_id(tokenizer, TEXT_EOS);
    text_ids_append(ids, id < 0 ? 0 : id);
}

static bool join(const LmScorer *scorer, const char *context, size_t context_tokens,
                 const char *continuation, Joined *joined, Error *err) {
    char *text = base_format("%s%s", context, continuation);
    if (context_tokens == 0) begin(scorer, &joined->ids);
    size_t prefix = BASE_MAX(context_tokens, joined->ids.length);
    bool ok = encode(scorer, text, &joined->ids, err);
    free(text);
    if (!ok) return false;
    size_t total = joined->ids.length;
    joined->own = total > prefix ? total - prefix : BASE_MIN(total, 1);
    return true;
}

static bool check_ids(const LmScorer *scorer, const TextIds *ids, Error *err) {
    int size = lm_model_vocab_size(scorer->model);
    for (size_t i = 0; i < ids->length; i++) {
        if (ids->data[i] >= size)
            return base_fail(err, ERROR_INPUT, "%s: the tokenizer gives id %d, the model has %d",
                             lm_model_folder(scorer->model), ids->data[i], size);
    }
    return true;
}

static bool score_all(LmScorer *scorer, const Joined *joined, size_t count, LmScore *scores,
                      Error *err) {
    size_t longest = 0;
    for (size_t i = 0; i < count; i++) longest = BASE_MAX(longest, joined[i].ids.length);
    size_t cut = longest > scorer->max_tokens + 1 ? longest - scorer->max_tokens - 1 : 0;
    for (size_t i = 0; i < count; i++) {
        scores[i] = (LmScore){.logprob = -INFINITY};
        if (!check_ids(scorer, &joined[i].ids, err)) return false;
        if (cut >= joined[i].ids.length - joined[i].own) continue;
        if (!score_one(scorer, &joined[i].ids, cut, joined[i].own, &scores[i], err)) return false;
    }
    return true;
}

bool lm_score(LmScorer *scorer, const char *context, const char *const *continuations, size_t count,
              LmScore *scores, Error *err) {
    if (!mx_check(err)) return false;
    mx_scope s = mx_open();
    TextIds alone = {0};
    Joined *joined = base_calloc(count + 1, sizeof *joined);
    bool ok = encode(scorer, context, &alone, err);
    for (size_t i = 0; ok && i < count; i++)
        ok = join(scorer, context, alone.length, continuations[i], &joined[i], err);
    ok = ok && score_all(scorer, joined, count, scores, err);
    for (size_t i = 0; i < count; i++) text_ids_free(&joined[i].ids);
    text_ids_free(&alone);
    free(joined);
    mx_drop(s);
    return ok;
}
