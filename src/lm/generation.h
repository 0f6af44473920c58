/* A generation under way: what plain and speculative decoding share. */
#ifndef LM_GENERATION_H
#define LM_GENERATION_H

#include "lm/model.h"
#include "lm/sampler.h"

typedef struct Generation {
    LmModel *model;
    const LmGenerateOptions *options;
    LmCache *cache;
    bool own_cache;
    LmSampler sampler;
    float *logits; /* host copy, [rows][vocab], of sampling that needs one */
    size_t logits_capacity;
    TextStream *stream; /* NULL without tokenizer */
    StrBuf text;
    LmStats stats;
    double started, first_token;
} Generation;

/* Runs ids through the model; the logits of the last `wanted` positions,
 * [1, wanted, V], lazy. Needs an open scope. */
mlx_array lm_forward(LmModel *model, LmCache *cache, const int *ids, size_t count, int wanted);
/* Reads ids[0..count) into the cache in chunks; progress (may be NULL) is told
 * how many of `total` are done. */
bool lm_prefill(Generation *g, LmModel *model, LmCache *cache, const int *ids, size_t count,
                size_t total, void (*progress)(void *, size_t, size_t));
/* The token after each position of logits [1, count, V] -> ids[count],
 * logprobs[count] (0 unless asked for). V may differ from the model's: what a draft
 * model pads. */
void lm_choose(Generation *g, mlx_array logits, int count, int *ids, float *logprobs);
/* Hands a token to the caller. False: this was the last one. */
bool lm_emit(Generation *g, int id, float logprob, bool from_draft);
bool lm_generate_speculative(Generation *g, const int *prompt, size_t length, Error *err);

#endif
