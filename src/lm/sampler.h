/* Choosing the next token from logits. */
#ifndef LM_SAMPLER_H
#define LM_SAMPLER_H

#include "lm/lm.h"
#include "mx/mx.h"

typedef struct LmSampler {
    LmSampling options;
    int vocab_size;
    int *special; /* ids that XTC never removes */
    size_t n_special;
    float *work; /* [rows][vocab_size], the logits being worked on */
    size_t work_capacity;
    int *order;  /* [vocab_size], a heap of ids */
    int *recent; /* the ids that penalties see, oldest first */
    size_t n_recent, recent_capacity;
} LmSampler;

/* Checks the options' ranges. special: ids protected from XTC; copied. */
bool lm_sampler_init(LmSampler *sampler, const LmSampling *options, int vocab_size,
                     const int *special, size_t n_special, Error *err);
void lm_sampler_free(LmSampler *sampler);
/* True when the next token is simply the largest logit: nothing but argmax has
 * to be computed. */
bool lm_sampler_is_argmax(const LmSampler *sampler);
/* A token that was read or chosen: penalties look at the last ones. */
void lm_sampler_see(LmSampler *sampler, int id);
void lm_sampler_forget(LmSampler *sampler, size_t count);
/* logits[0..vocab_size) is changed in place. Returns the id; *logprob (may be
 * NULL) is its log-probability after penalties, before temperature and filters.
 * Draws from MLX's generator of this thread. Needs an open scope. */
int lm_sampler_choose(LmSampler *sampler, float *logits, float *logprob);
/* The same for `count` positions that follow each other, logits[count][vocab_size]
 * -> ids[count], logprobs[count] (may be NULL), in the draws that MLX makes: one for
 * all rows, or one a row where penalties look at the row before. */
void lm_sampler_choose_rows(LmSampler *sampler, float *logits, int count, int *ids,
                            float *logprobs);

#endif
