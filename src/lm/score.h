/* How likely texts are after another text. */
#ifndef LM_SCORE_H
#define LM_SCORE_H

#include "lm/lm.h"

typedef struct LmScore {
    double logprob; /* sum over the continuation's tokens, natural logarithm */
    bool greedy;    /* each of them was the likeliest */
} LmScore;

/* Remembers what the model has read: contexts that begin alike are read once. */
typedef struct LmScorer LmScorer;

/* templated: contexts were made by a chat template, so no special tokens are added.
 * max_tokens: of a context with its longest continuation; what is longer loses its
 * beginning. Caller frees with lm_scorer_free; model is borrowed. */
LmScorer *lm_scorer_new(LmModel *model, bool templated, int max_tokens, Error *err);
void lm_scorer_free(LmScorer *scorer); /* NULL ok */
/* scores[i] of continuations[i] after the context. A continuation's tokens are those
 * of both texts joined, without as many as the context has alone. One that leaves no
 * room for any context scores minus infinity. An empty context counts as the token
 * that begins (or ends) texts. */
bool lm_score(LmScorer *scorer, const char *context, const char *const *continuations, size_t count,
              LmScore *scores, Error *err);

#endif
