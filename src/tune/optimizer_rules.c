/* The update rules. Each follows its paper as mlx.optimizers does, in the order of
 * its operations, so that float32 results agree to the last bits. Numbers beside an
 * array take its dtype. */
#include "tune/optimizer_rules.h"

#include <math.h>

/* beta old + (1 - beta) fresh */
static mlx_array blend(double beta, mlx_array old, mlx_array fresh) {
    return mx_add(mx_mul_scalar(old, beta), mx_mul_scalar(fresh, 1 - beta));
}

/* Kingma and Ba, 2015. Without bias correction unless asked, as MLX. */
mlx_array optimizer_adam(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                         mlx_array *state) {
    const OptimizerSettings *s = step->settings;
    mlx_array m = blend(s->betas[0], state[0], gradient);
    mlx_array v = blend(s->betas[1], state[1], mx_square(gradient));
    state[0] = m;
    state[1] = v;
    if (!s->bias_correction)
        return mx_sub(value,
                      mx_div(mx_mul_scalar(m, step->rate), mx_add_scalar(mx_sqrt(v), s->eps[0])));
    const float c1 = step->rate / (1 - powf((float)s->betas[0], step->step));
    const float c2 = 1 / sqrtf(1 - powf((float)s->betas[1], step->step));
    mlx_array below = mx_add_scalar(mx_mul_scalar(mx_sqrt(v), c2), s->eps[0]);
    return mx_sub(value, mx_div(mx_mul_scalar(m, c1), below));
}

/* Loshchilov and Hutter, 2019: the decay is apart from the gradient. */
mlx_array optimizer_adamw(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                          mlx_array *state) {
    const float kept = 1 - step->rate * (float)step->settings->weight_decay;
    return optimizer_adam(step, mx_mul_scalar(value, kept), gradient, state);
}

mlx_array optimizer_sgd(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                        mlx_array *state) {
    const OptimizerSettings *s = step->settings;
    if (s->weight_decay != 0) gradient = mx_add(gradient, mx_mul_scalar(value, s->weight_decay));
    if (s->momentum <= 0) return mx_sub(value, mx_mul_scalar(gradient, step->rate));
    mlx_array fresh = s->dampening > 0 ? mx_mul_scalar(gradient, 1 - s->dampening) : gradient;
    mlx_array v = mx_add(mx_mul_scalar(state[0], s->momentum), fresh);
    state[0] = v;
    mlx_array update = s->nesterov ? mx_add(gradient, mx_mul_scalar(v, s->momentum)) : v;
    return mx_sub(value, mx_mul_scalar(update, step->rate));
}

/* Chen and others, 2023: only the sign moves a parameter. */
mlx_array optimizer_lion(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                         mlx_array *state) {
    const OptimizerSettings *s = step->settings;
    mlx_array c = blend(s->betas[0], state[0], gradient);
    state[0] = blend(s->betas[1], state[0], gradient);
    if (s->weight_decay > 0) value = mx_mul_scalar(value, 1 - step->rate * (float)s->weight_decay);
    return mx_sub(value, mx_mul_scalar(mx_sign(c), step->rate));
}

/* ---- Muon (Jordan, 2024) -------------------------------------------------------- */

/* The nearest matrix with orthogonal rows or columns, roughly: five Newton-Schulz
 * steps on x [rows, columns] of norm 1. */
static mlx_array orthogonalized(mlx_array x, int steps) {
    const bool tall = mx_dim(x, 0) > mx_dim(x, 1);
    if (tall) x = mx_swapaxes(x, 0, 1);
    mlx_array squares = mx_sum(mx_reshape(mx_square(x), MX_SHAPE(-1)), 0, false);
    x = mx_div(x, mx_add_scalar(mx_sqrt(squares), 1e-7));
    for (int i = 0; i < steps; i++) {
        mlx_array a = mx_matmul(x, mx_swapaxes(x, 0, 1));
        mlx_array b = mx_add(mx_mul_scalar(a, -4.7750), mx_mul_scalar(mx_matmul(a, a), 2.0315));
        x = mx_add(mx_mul_scalar(x, 3.4445), mx_matmul(b, x));
    }
    return tall ? mx_swapaxes(x, 0, 1) : x;
}

mlx_array optimizer_muon(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                         mlx_array *state) {
    const OptimizerSettings *s = step->settings;
    if (s->weight_decay != 0) gradient = mx_add(gradient, mx_mul_scalar(value, s->weight_decay));
    mlx_array v = blend(s->momentum, state[0], gradient), update = v;
    state[0] = v;
    if (s->nesterov)
        update = mx_add(mx_mul_scalar(gradient, 1 - s->momentum), mx_mul_scalar(v, s->momentum));
    float rate = step->rate;
    const int ndim = mx_ndim(value);
    if (ndim >= 2) {
        const float longer = (float)mx_dim(value, -2) / (float)mx_dim(value, -1);
        mlx_array flat = mx_reshape(update, MX_SHAPE(mx_dim(value, 0), -1));
        flat = orthogonalized(flat, s->ns_steps);
        int shape[8] = {0};
        for (int i = 0; i < ndim && i < 8; i++) shape[i] = mx_dim(value, i);
        update = mx_reshape(flat, shape, (size_t)ndim);
        rate *= sqrtf(BASE_MAX(1.0f, longer));
    }
    return mx_sub(value, mx_mul_scalar(update, rate));
}

/* ---- Adafactor (Shazeer and Stern, 2018) ------------------------------------------ */

static mlx_array root_mean_square(mlx_array x) {
    return mx_sqrt(mx_mean(mx_reshape(mx_square(x), MX_SHAPE(-1)), 0, false));
}

/* [] : relative to the parameter's size and to the number of the update */
static mlx_array adafactor_rate(const OptimizerStep *step, mlx_array size) {
    const OptimizerSettings *s = step->settings;
    float rate = step->rate;
    if (s->relative_step) {
        const float most = s->warmup_init ? 1e-6f * step->step : 1e-2f;
        rate = BASE_MIN(most, 1 / sqrtf(step->step));
    }
    mlx_array scale = s->scale_parameter ? mx_maximum(size, mx_scalar(s->eps[1], mx_dtype(size)))
                                         : mx_scalar(1, mx_dtype(size));
    return mx_mul_scalar(scale, rate);
}

/* State: 0 row means, 1 column means (two axes and more), 2 all squares (fewer), 3
 * first moment. */
mlx_array optimizer_adafactor(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                              mlx_array *state) {
    const OptimizerSettings *s = step->settings;
    mlx_array rate = adafactor_rate(step, root_mean_square(value));
    const float beta = 1 - powf(step->step, (float)s->decay_rate);
    mlx_array squares = mx_add_scalar(mx_square(gradient), s->eps[0]), update;
    if (mx_ndim(gradient) >= 2) {
        mlx_array rows = mx_add(mx_mul_scalar(state[0], beta),
                                mx_mul_scalar(mx_mean(squares, -1, false), 1 - beta));
        mlx_array columns = mx_add(mx_mul_scalar(state[1], beta),
                                   mx_mul_scalar(mx_mean(squares, -2, false), 1 - beta));
        state[0] = rows;
        state[1] = columns;
        mlx_array by_row = mx_rsqrt(mx_div(rows, mx_mean(rows, -1, true)));
        update = mx_mul(mx_mul(mx_expand_dims(by_row, -1), mx_expand_dims(mx_rsqrt(columns), -2)),
                        gradient);
    } else {
        state[2] = mx_add(mx_mul_scalar(state[2], beta), mx_mul_scalar(squares, 1 - beta));
        update = mx_mul(mx_rsqrt(state[2]), gradient);
    }
    mlx_array excess = mx_mul_scalar(root_mean_square(update), 1 / s->clip_threshold);
    update = mx_div(update, mx_maximum(excess, mx_scalar(1, mx_dtype(excess))));
    update = mx_mul(update, rate);
    if (s->has_beta_1) {
        update = blend(s->beta_1, state[3], update);
        state[3] = update;
    }
    if (s->weight_decay != 0)
        value = mx_add(value, mx_mul(value, mx_mul_scalar(rate, -s->weight_decay)));
    return mx_sub(value, update);
}
