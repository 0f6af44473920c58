/* What a model is trained to make small: the cross-entropy of the next token, the two
 * losses of preferences, and divergences between distributions. */
#include "tune/loss.h"

#include <math.h>

mlx_array tune_cross_entropy(mlx_array logits, mlx_array targets, bool compat) {
    mlx_array scores = mx_take_along(logits, mx_expand_dims(targets, -1), -1);
    mlx_array sums = mx_logsumexp(logits, -1, false);
    scores = mx_squeeze(scores, -1);
    if (compat) return mx_cast(mx_sub(sums, scores), MLX_FLOAT32);
    return mx_sub(mx_cast(sums, MLX_FLOAT32), mx_cast(scores, MLX_FLOAT32));
}

/* -log sigmoid(x) */
static mlx_array negative_log_sigmoid(mlx_array x) {
    return mx_softplus(mx_neg(x));
}

/* Rafailov et al., 2023, eq. 7. */
mlx_array tune_dpo_loss(mlx_array chosen, mlx_array rejected, mlx_array reference_chosen,
                        mlx_array reference_rejected, double beta, mlx_array *margins) {
    mlx_array ours = mx_sub(chosen, rejected);
    *margins = mx_mul_scalar(mx_sub(ours, mx_sub(reference_chosen, reference_rejected)), beta);
    return negative_log_sigmoid(*margins);
}

/* log(1 - exp(x)) of log-probabilities x < 0, kept from log 0 where x is all but 0. */
static mlx_array log_of_rest(mlx_array x) {
    mlx_array capped = mx_minimum(x, mx_scalar(-1e-7, mx_dtype(x)));
    return mx_log(mx_neg(mx_expm1(capped)));
}

/* Hong et al., 2024, eq. 6. */
mlx_array tune_orpo_loss(mlx_array chosen, mlx_array rejected, double lambda, mlx_array *margins) {
    mlx_array rest = mx_sub(log_of_rest(chosen), log_of_rest(rejected));
    *margins = mx_sub(mx_sub(chosen, rejected), rest);
    return mx_sub(mx_mul_scalar(negative_log_sigmoid(*margins), lambda), chosen);
}

static mlx_array log_softmax(mlx_array logits) {
    return mx_sub(logits, mx_logsumexp(logits, -1, true));
}

static mlx_array divergence(mlx_array log_p, mlx_array log_q) {
    return mx_sum(mx_mul(mx_exp(log_p), mx_sub(log_p, log_q)), -1, false);
}

mlx_array tune_kl_divergence(mlx_array logits_q, mlx_array logits_p) {
    return divergence(log_softmax(logits_p), log_softmax(logits_q));
}

mlx_array tune_js_divergence(mlx_array logits_q, mlx_array logits_p) {
    mlx_array p = log_softmax(logits_p), q = log_softmax(logits_q);
    mlx_array either = mx_stack((const mlx_array[]){p, q}, 2, 0);
    mlx_array middle = mx_add_scalar(mx_logsumexp(either, 0, false), -log(2));
    return mx_mul_scalar(mx_add(divergence(p, middle), divergence(q, middle)), 0.5);
}
