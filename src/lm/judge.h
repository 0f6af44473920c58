/* Language models that judge whether a document answers a query: the two of a
 * reranking protocol's answers are compared at the end of its prompt.
 *
 * Qwen3-Reranker (qwen3): "yes" against "no". mxbai-rerank v2 (qwen2): "1"
 * against "0". Prompts and cuts are those of the models' own programs. */
#ifndef LM_JUDGE_H
#define LM_JUDGE_H

#include "lm/lm.h"

typedef struct LmJudge LmJudge;

/* As lm_model_open; an architecture without a protocol here is
 * ERROR_UNSUPPORTED. Caller frees with lm_judge_close. */
LmJudge *lm_judge_open(const char *folder, const LmOpenOptions *options, Error *err);
void lm_judge_close(LmJudge *judge); /* NULL ok */
/* scores[i]: the logit of the affirmative answer less that of the other, so that a
 * sigmoid gives the probability of the two. The tokens that all prompts begin with
 * are read once. */
bool lm_judge_score(LmJudge *judge, const char *query, const char *const *documents, size_t count,
                    float *scores, Error *err);

#endif
