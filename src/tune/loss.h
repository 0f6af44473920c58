/* Losses over logits. All are lazy; results belong to the open scope. */
#ifndef TUNE_LOSS_H
#define TUNE_LOSS_H

#include "mx/mx.h"

/* logits [N, V], targets int32 [N] -> cross-entropy a row [N], float32:
 * logsumexp(z) - z[t], with `compat` rounded as the logits' dtype does it. Written so
 * that the engine need not make the logits (docs/ENGINES.md). */
mlx_array tune_cross_entropy(mlx_array logits, mlx_array targets, bool compat);

/* Of n preferences, all [n]: the summed log-probabilities of the targets under the
 * model and under the reference -> the loss of each. *margins > 0: the model moved
 * towards the chosen one. */
mlx_array tune_dpo_loss(mlx_array chosen, mlx_array rejected, mlx_array reference_chosen,
                        mlx_array reference_rejected, double beta, mlx_array *margins);
/* From mean log-probabilities [n]: the chosen one's cross-entropy and `lambda` times
 * the log-sigmoid of the odds' ratio. *margins > 0: the chosen one is the likelier. */
mlx_array tune_orpo_loss(mlx_array chosen, mlx_array rejected, double lambda, mlx_array *margins);

/* Divergences over the last axis, p and q the softmax of logits [..., V] -> [...]:
 * sum p (log p - log q); the mean of KL to the middle from both. As
 * mlx_lm.tuner.losses; gradients go to both, as in its form without Metal. */
mlx_array tune_kl_divergence(mlx_array logits_q, mlx_array logits_p);
mlx_array tune_js_divergence(mlx_array logits_q, mlx_array logits_p);

#endif
