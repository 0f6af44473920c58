/* Speculative decoding (Leviathan et al., 2022), as mlx_lm does it: a small
 * model proposes k tokens, the large one checks them in one pass, and a token is
 * accepted while both choose the same. The output is the large model's own. */
#include "lm/generation.h"

#include <stdlib.h>

/* One draft: k tokens, each from the one before, starting with ids[0..count). */
static bool propose(Generation *g, LmCache *cache, const int *ids, size_t count, int k,
                    int *tokens) {
    for (int i = 0; i < k && !mx_failed(); i++) {
        mx_scope s = mx_open();
        float logprob;
        mlx_array logits = i == 0 ? lm_forward(g->options->draft, cache, ids, count, 1)
                                  : lm_forward(g->options->draft, cache, &tokens[i - 1], 1, 1);
        lm_cache_settle(cache);
        lm_choose(g, logits, 1, &tokens[i], &logprob);
        lm_sampler_see(&g->sampler, tokens[i]);
        mx_drop(s);
    }
    lm_sampler_forget(&g->sampler, (size_t)k);
    return !mx_failed();
}

/* Emits what the large model chose at each position while it agrees with the
 * draft, then its own token. Returns how many proposals were accepted. */
static int verify(Generation *g, const int *chosen, const float *logprobs, const int *proposed,
                  int k) {
    for (int i = 0;; i++) {
        bool accepted = i < k && chosen[i] == proposed[i];
        lm_sampler_see(&g->sampler, chosen[i]);
        g->stats.accepted += accepted;
        bool more = lm_emit(g, chosen[i], logprobs[i], accepted);
        if (!accepted || !more) return i + (accepted && !more);
    }
}

/* What a round works on; arrays of num_draft_tokens + 1. */
typedef struct Round {
    int *proposed, *line, *chosen;
    float *logprobs;
} Round;

/* Proposals must not be what makes the text so long that its keys rotate otherwise. */
static int fitting(const LmCache *cache, int k) {
    int room = cache->short_length - lm_cache_length(cache) - 1;
    return room >= 0 ? BASE_MIN(k, room) : k;
}

static bool rounds(Generation *g, LmCache *draft_cache, int last, Round round) {
    int *proposed = round.proposed, *line = round.line;
    int pending[2] = {last, 0}; /* what the draft has not read yet */
    size_t n_pending = 1;
    line[0] = last;
    while (g->stats.finish == LM_FINISH_NONE && !mx_failed()) {
        int k = g->options->num_draft_tokens;
        if (g->options->max_tokens > 0) {
            k = BASE_MIN(k, g->options->max_tokens - (int)g->stats.generated_tokens);
        }
        k = fitting(g->cache, k);
        if (!propose(g, draft_cache, pending, n_pending, k, proposed)) return false;
        g->stats.drafted += (size_t)k;
        for (int i = 0; i < k; i++) line[i + 1] = proposed[i];

        mx_scope s = mx_open();
        mlx_array logits = lm_forward(g->model, g->cache, line, (size_t)k + 1, k + 1);
        lm_cache_settle(g->cache);
        lm_choose(g, logits, k + 1, round.chosen, round.logprobs);
        mx_drop(s);
        if (mx_failed()) return false;
        int accepted = verify(g, round.chosen, round.logprobs, proposed, k);
        if (g->stats.finish != LM_FINISH_NONE) break;

        lm_cache_trim(g->cache, k - accepted);
        lm_cache_trim(draft_cache, BASE_MAX(k - accepted - 1, 0));
        int next = round.chosen[accepted];
        bool all = accepted == k && k > 0; /* the draft has not read its own last token */
        pending[0] = all ? proposed[k - 1] : next;
        pending[1] = next;
        n_pending = all ? 2 : 1;
        line[0] = next;
    }
    return !mx_failed();
}

/* Proposals that fail are taken back, which a full ring cannot do. */
static bool can_rewind(const LmCache *cache, size_t length, const LmGenerateOptions *o) {
    for (int i = 0; i < cache->n_layers; i++) {
        const KvCache *layer = &cache->layers[i];
        if (layer->kind != KV_ROTATING) continue;
        double most = (double)layer->offset + (double)length + o->max_tokens + o->num_draft_tokens;
        if (o->max_tokens < 0 || most >= layer->max_size) return false;
    }
    return true;
}

bool lm_generate_speculative(Generation *g, const int *prompt, size_t length, Error *err) {
    const LmGenerateOptions *o = g->options;
    LmCacheOptions kind = g->cache->options;
    kind.max_size = 0;
    LmCache *draft_cache = lm_cache_new(o->draft, &kind, err);
    if (!draft_cache) return false;
    if (!can_rewind(g->cache, length, o) || !can_rewind(draft_cache, length, o)) {
        lm_cache_free(draft_cache);
        return base_fail(
            err, ERROR_UNSUPPORTED,
            "a draft model needs caches that hold the whole text; here a window is smaller");
    }
    size_t most = (size_t)o->num_draft_tokens + 1;
    Round round = {.proposed = base_alloc(3 * most * sizeof(int)),
                   .logprobs = base_alloc(most * sizeof(float))};
    round.line = round.proposed + most;
    round.chosen = round.line + most;
    lm_cache_expect(draft_cache, length);
    bool ok = lm_prefill(g, o->draft, draft_cache, prompt, length - 1, length, NULL) &&
              lm_prefill(g, g->model, g->cache, prompt, length - 1, length, o->on_prefill) &&
              rounds(g, draft_cache, prompt[length - 1], round);
    free(round.proposed);
    free(round.logprobs);
    lm_cache_free(draft_cache);
    return ok;
}
