/* Mixtures of experts: a router chooses a few experts a token and weighs what they
 * say; shared experts hear every token. Shazeer et al., 2017, in the forms that
 * mlx_lm's model files have. Tokens are sorted by expert when there are many, so
 * that each matrix is read once. */
#include "models/decoder.h"

#include <string.h>

enum { WORTH_SORTING = 64 };

/* ---- the choice ------------------------------------------------------------------------ */

typedef struct Choice {
    mlx_array indices, weights; /* [B, L, k] */
} Choice;

static mlx_array top(mlx_array scores, int count) {
    int all = mx_dim(scores, -1);
    mlx_array order = mx_argpartition(mx_neg(scores), BASE_MIN(count, all) - 1, -1);
    return mx_slice(order, -1, 0, count);
}

/* The groups of experts with the lowest scores are out: their scores become 0. */
static mlx_array limit_groups(const Moe *moe, mlx_array scores) {
    int batch = mx_dim(scores, 0), length = mx_dim(scores, 1), size = moe->experts / moe->groups;
    mlx_array grouped = mx_reshape(scores, MX_SHAPE(batch, length, moe->groups, size));
    mlx_array value;
    if (moe->group_score == GROUP_BEST || size < 2) {
        value = mx_max(grouped, -1, false);
    } else { /* the sum of the best two */
        mlx_array best = mx_take_along(grouped, top(grouped, 2), -1);
        value = mx_sum(best, -1, false);
    }
    int dropped = moe->groups - moe->kept_groups;
    mlx_array order = mx_argpartition(value, dropped - 1, -1);
    mlx_array out = mx_expand_dims(mx_slice(order, -1, 0, dropped), -1);
    out = mx_broadcast_to(out, MX_SHAPE(batch, length, dropped, size));
    mlx_array zeros = mx_zeros(MX_SHAPE(batch, length, dropped, size), mx_dtype(scores));
    grouped = mx_put_along(grouped, out, zeros, -2);
    return mx_reshape(grouped, MX_SHAPE(batch, length, moe->experts));
}

static mlx_array score(const Moe *moe, mlx_array logits) {
    switch (moe->score) {
    case SCORE_SOFTMAX: return mx_softmax(logits, -1);
    case SCORE_SIGMOID: return mx_sigmoid(mx_cast(logits, MLX_FLOAT32));
    case SCORE_SQRT_SOFTPLUS: return mx_sqrt(mx_softplus(mx_cast(logits, MLX_FLOAT32)));
    case SCORE_TOP_SOFTMAX:
    case SCORE_INPUT: break;
    }
    return logits;
}

static Choice choose(const Moe *moe, mlx_array x) {
    if (moe->router_float32) x = mx_cast(x, MLX_FLOAT32);
    mlx_array logits = nn_linear(&moe->router, x);
    if (moe->softcap > 0)
        logits = mx_mul_scalar(mx_tanh(mx_mul_scalar(logits, 1 / moe->softcap)), moe->softcap);
    mlx_array scores = score(moe, logits), ranked = scores;
    if (moe->correction.ctx) ranked = mx_add(ranked, moe->correction);
    if (moe->groups > 1 && moe->kept_groups < moe->groups) ranked = limit_groups(moe, ranked);
    Choice choice = {.indices = mx_stop_gradient(top(ranked, moe->active))};
    choice.weights = mx_take_along(scores, choice.indices, -1);
    if (moe->score == SCORE_TOP_SOFTMAX) choice.weights = mx_softmax(choice.weights, -1);
    if (moe->score == SCORE_INPUT) choice.weights = mx_sigmoid(choice.weights);
    if (moe->normalise) {
        mlx_array total = mx_add_scalar(mx_sum(choice.weights, -1, true), 1e-20);
        choice.weights = mx_div(choice.weights, total);
    }
    choice.weights = mx_mul_scalar(choice.weights, moe->scale);
    return choice;
}

/* ---- the experts ------------------------------------------------------------------------ */

static mlx_array experts(const Moe *moe, mlx_array x, mlx_array indices, bool sorted) {
    mlx_array up = nn_switch_linear(&moe->up, x, indices, sorted), h;
    if (moe->two_layer) {
        h = nn_activate(moe->activation, up);
    } else {
        mlx_array gate = nn_switch_linear(&moe->gate, x, indices, sorted);
        h = model_pair(moe->activation, moe->pair, moe->limit, gate, up);
    }
    return nn_switch_linear(&moe->down, h, indices, sorted);
}

/* x [B, L, D], indices [B, L, k] -> [B, L, k, D] */
static mlx_array routed(const Moe *moe, mlx_array x, mlx_array indices) {
    int batch = mx_dim(x, 0), length = mx_dim(x, 1), width = mx_dim(x, 2);
    int active = moe->active, rows = batch * length;
    if (rows * active < WORTH_SORTING) {
        mlx_array y =
            experts(moe, mx_reshape(x, MX_SHAPE(batch, length, 1, 1, width)), indices, false);
        return mx_squeeze(y, -2);
    }
    mlx_array flat = mx_reshape(indices, MX_SHAPE(rows * active));
    mlx_array order = mx_argsort(flat, 0), back = mx_argsort(order, 0);
    mlx_array token = mx_floor_divide_scalar(order, active);
    mlx_array gathered = mx_take(mx_reshape(x, MX_SHAPE(rows, 1, width)), token, 0);
    mlx_array y = experts(moe, gathered, mx_take(flat, order, 0), true);
    y = mx_take(mx_squeeze(y, -2), back, 0);
    return mx_reshape(y, MX_SHAPE(batch, length, active, width));
}

mlx_array model_moe(const Moe *moe, mlx_array x) {
    Choice choice = choose(moe, x);
    mlx_array y;
    if (moe->score == SCORE_INPUT) { /* one expert, whose input is scaled */
        mlx_array scaled = mx_mul(x, mx_cast(choice.weights, mx_dtype(x)));
        y = mx_squeeze(routed(moe, scaled, choice.indices), 2);
    } else {
        y = routed(moe, x, choice.indices);
        mlx_array weighted = mx_mul(y, mx_expand_dims(choice.weights, -1));
        y = mx_cast(mx_sum(weighted, -2, false), mx_dtype(x));
    }
    if (!moe->has_shared) return y;
    mlx_array shared = model_glu(&moe->shared, x);
    if (moe->shared_rule == SHARED_GATED) {
        shared = mx_mul(mx_sigmoid(nn_linear(&moe->shared_gate, x)), shared);
    } else if (moe->shared_rule == SHARED_MIXED) {
        mlx_array share = mx_softmax(nn_linear(&moe->shared_gate, x), -1);
        y = mx_mul(y, mx_slice(share, -1, 0, 1));
        shared = mx_mul(shared, mx_slice(share, -1, 1, 2));
    }
    return mx_add(y, shared);
}

/* ---- loading ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    MoeScore score;
} score_names[] = {
    {"softmax", SCORE_SOFTMAX},
    {"sigmoid", SCORE_SIGMOID},
    {"sqrtsoftplus", SCORE_SQRT_SOFTPLUS},
};

static MoeScore score_of(const Loading *l) {
    const MoeArch *a = &l->arch.moe;
    if (!a->score_key) return a->score;
    const char *name = nn_config_string(l->params, l->config, a->score_key, NULL);
    if (!name) return a->score;
    for (size_t i = 0; i < BASE_COUNT(score_names); i++) {
        if (strcmp(score_names[i].name, name) == 0) return score_names[i].score;
    }
    nn_params_fail(l->params, ERROR_UNSUPPORTED, "config.json: %s \"%s\" is not supported",
                   a->score_key, name);
    return a->score;
}

static int width_of(const Loading *l, const Decoder *d, int i) {
    const char *key = l->arch.moe.width_key;
    if (key && !key[0]) {
        /* Experts as wide as the dense layers, or as a key says. */
        const json_t *own = model_layer_value(l->config, "moe_intermediate_size", i);
        if (json_integer_value(own) > 0 && !l->arch.ffn_key) return (int)json_integer_value(own);
        if (l->arch.ffn_key) return nn_config_size(l->params, l->config, "intermediate_size");
        return model_ffn_width(l, d, i);
    }
    const json_t *own = model_layer_value(l->config, "moe_intermediate_size", i);
    int64_t width = json_integer_value(own);
    if (width > 0 && width < 1 << 22) return (int)width;
    return model_ffn_width(l, d, i);
}

/* 0: there is none. */
static int shared_width(const Loading *l, int expert_width, int i) {
    const MoeArch *a = &l->arch.moe;
    if (!a->shared || !model_flag(l, a->shared_if)) return 0;
    const json_t *own = model_layer_value(l->config, a->shared_width_key, i);
    int64_t width = json_integer_value(own), count = 1;
    if (a->shared_count_key && a->shared_count_key[0]) {
        count = json_integer_value(model_layer_value(l->config, a->shared_count_key, i));
        if (width <= 0) width = expert_width;
    }
    width *= count;
    if (width < 0 || width > 1 << 22) {
        nn_params_fail(l->params, ERROR_INPUT,
                       "config.json: a shared expert of %lld features is impossible",
                       (long long)width);
        return 0;
    }
    return (int)width;
}

static void load_choice(const Loading *l, const Decoder *d, int i, Moe *moe) {
    const MoeArch *a = &l->arch.moe;
    NnParams *p = l->params;
    moe->router = nn_linear_load(p, d->hidden_size, moe->experts, model_flag(l, a->router_bias),
                                 "%s", model_path(l, i, a->router));
    if (a->correction && model_flag(l, a->correction_if))
        moe->correction =
            nn_params_take_exact(p, &moe->experts, 1, "%s", model_path(l, i, a->correction));
    moe->score = score_of(l);
    moe->router_float32 = model_flag(l, a->router_float32);
    moe->normalise = model_flag(l, a->normalise);
    moe->scale = model_present(l->config, a->scale.key) || !a->scale.key ? model_scalar(l, a->scale)
                                                                         : a->scale.value;
    moe->softcap = model_scalar(l, a->softcap);
    moe->group_score = a->groups;
    moe->groups = nn_config_int(p, l->config, "n_group", 1);
    moe->kept_groups = nn_config_int(p, l->config, "topk_group", 1);
    if (a->groups_if && a->groups_if[0]) {
        const char *method = nn_config_string(p, l->config, "topk_method", "");
        if (strcmp(method, a->groups_if) != 0) moe->groups = 1;
    }
    if (moe->groups > 1 && (moe->experts % moe->groups != 0 || moe->kept_groups < 1)) {
        nn_params_fail(p, ERROR_INPUT,
                       "config.json: %d experts cannot be chosen from %d of %d groups",
                       moe->experts, moe->kept_groups, moe->groups);
    }
}

const Moe *model_moe_load(const Loading *l, const Decoder *d, int i) {
    const MoeArch *a = &l->arch.moe;
    NnParams *p = l->params;
    Moe *moe = nn_params_alloc(p, 1, sizeof *moe);
    int hidden = d->hidden_size, width = width_of(l, d, i);
    moe->experts = model_expert_count(l, i);
    moe->active = model_experts_active(l, i);
    if (moe->active < 1 || moe->active > moe->experts) {
        nn_params_fail(p, ERROR_INPUT, "config.json: %d of %d experts cannot be active",
                       moe->active, moe->experts);
        return moe;
    }
    load_choice(l, d, i, moe);
    moe->two_layer = model_flag(l, a->two_layer);
    moe->activation = l->activation;
    moe->pair = l->arch.pair;
    if (moe->pair == PAIR_LIMITED)
        moe->limit = (float)json_number_value(model_layer_value(l->config, "swiglu_limits", i));
    bool bias = model_flag(l, a->expert_bias);
    const char *path = model_path(l, i, a->experts);
    moe->up = nn_switch_linear_load(p, moe->experts, hidden, width, bias, "%s.%s", path,
                                    moe->two_layer ? "fc1" : "up_proj");
    if (!moe->two_layer)
        moe->gate =
            nn_switch_linear_load(p, moe->experts, hidden, width, bias, "%s.gate_proj", path);
    moe->down = nn_switch_linear_load(p, moe->experts, width, hidden, bias, "%s.%s", path,
                                      moe->two_layer ? "fc2" : "down_proj");
    int shared = shared_width(l, width, i);
    moe->has_shared = shared > 0;
    if (!moe->has_shared) return moe;
    model_glu_load(l, model_path(l, i, a->shared), hidden, shared, i, NULL, &moe->shared);
    moe->shared_rule = a->shared_rule;
    if (a->shared_gate) {
        bool mixed = a->shared_rule == SHARED_MIXED;
        moe->shared_gate =
            nn_linear_load(p, hidden, mixed ? 2 : 1, mixed, "%s", model_path(l, i, a->shared_gate));
    }
    return moe;
}
