/* The attention mixer: grouped queries over a cache, in all the forms that the
 * families give it - fused projections, query-key norms before or after the
 * rotation, gates on the output, sinks, shared keys, tiled heads, temperatures. */
#include "models/decoder.h"

#include <math.h>
#include <string.h>

typedef struct Attention {
    int heads, kv_heads, head_dim, value_dim;
    float scale, softcap;
    double clip;
    QkvLayout layout;
    Linear q, k, v, o; /* q holds all three when fused */
    QkNorm qk_norm;
    bool norm_late, has_sub_norm, tiled;
    Norm q_norm, k_norm, sub_norm;
    mlx_array each[2]; /* QK_NORM_EACH: [heads, 1, head_dim] of queries and keys */
    const Rope *rope;
    mlx_array sinks; /* {0}: none */
    Linear gate;
    GateKind gate_kind;
    InFloat32 in_float32;
    Temperature temperature;
    double temperature_slope, temperature_step;
    bool borrows_kv, lends_kv;
} Attention;

/* ---- forward ------------------------------------------------------------------------ */

typedef struct Projected {
    mlx_array q, k, v; /* [B, heads, L, D] */
} Projected;

static mlx_array clipped(const Attention *a, mlx_array x) {
    if (a->clip <= 0) return x;
    mlx_dtype dtype = mx_dtype(x);
    return mx_minimum(mx_maximum(x, mx_scalar(-a->clip, dtype)), mx_scalar(a->clip, dtype));
}

/* [q | k | v], each a run of heads. */
static Projected split_fused(const Attention *a, mlx_array all) {
    int q = a->heads * a->head_dim, k = a->kv_heads * a->head_dim, v = a->kv_heads * a->value_dim;
    return (Projected){
        nn_split_heads(mx_slice(all, -1, 0, q), a->heads, a->head_dim),
        nn_split_heads(mx_slice(all, -1, q, q + k), a->kv_heads, a->head_dim),
        nn_split_heads(mx_slice(all, -1, q + k, q + k + v), a->kv_heads, a->value_dim)};
}

/* One run a key-value head: its queries, its key, its value. */
static Projected split_grouped(const Attention *a, mlx_array all) {
    int batch = mx_dim(all, 0), length = mx_dim(all, 1), group = a->heads / a->kv_heads;
    mlx_array runs = mx_reshape(all, MX_SHAPE(batch, length, a->kv_heads, group + 2, a->head_dim));
    int q_size = a->heads * a->head_dim, kv_size = a->kv_heads * a->head_dim;
    mlx_array q = mx_reshape(mx_slice(runs, 3, 0, group), MX_SHAPE(batch, length, q_size));
    mlx_array k = mx_reshape(mx_slice(runs, 3, group, group + 1), MX_SHAPE(batch, length, kv_size));
    mlx_array v =
        mx_reshape(mx_slice(runs, 3, group + 1, group + 2), MX_SHAPE(batch, length, kv_size));
    return (Projected){nn_split_heads(q, a->heads, a->head_dim),
                       nn_split_heads(k, a->kv_heads, a->head_dim),
                       nn_split_heads(v, a->kv_heads, a->head_dim)};
}

static Projected project(const Attention *a, mlx_array x, MixerInput *input) {
    if (a->layout != QKV_SEPARATE) {
        mlx_array all = clipped(a, nn_linear(&a->q, x));
        return a->layout == QKV_FUSED ? split_fused(a, all) : split_grouped(a, all);
    }
    mlx_array q = clipped(a, nn_linear(&a->q, x));
    mlx_array k = a->borrows_kv ? input->shared[0] : clipped(a, nn_linear(&a->k, x));
    mlx_array v = a->borrows_kv ? input->shared[1] : clipped(a, nn_linear(&a->v, x));
    if (a->lends_kv) {
        input->shared[0] = k;
        input->shared[1] = v;
    }
    if (a->qk_norm == QK_NORM_WHOLE) {
        q = nn_norm(&a->q_norm, q);
        k = nn_norm(&a->k_norm, k);
    }
    return (Projected){nn_split_heads(q, a->heads, a->head_dim),
                       nn_split_heads(k, a->kv_heads, a->head_dim),
                       nn_split_heads(v, a->kv_heads, a->value_dim)};
}

static void norm_heads(const Attention *a, Projected *p) {
    if (a->qk_norm == QK_NORM_NONE || a->qk_norm == QK_NORM_WHOLE) return;
    p->q = nn_norm(&a->q_norm, p->q);
    p->k = nn_norm(&a->k_norm, p->k);
    if (a->qk_norm == QK_NORM_EACH) {
        p->q = mx_mul(p->q, a->each[0]);
        p->k = mx_mul(p->k, a->each[1]);
    }
}

/* Far positions ask more sharply: queries grow with the logarithm of their place. */
static mlx_array heated(const Attention *a, mlx_array q, int offset) {
    bool next = a->temperature == TEMPERATURE_FLOOR_SCALE; /* counts from 1 */
    double first = offset + (next ? 1 : 0);
    mlx_array place = mx_arange(first, first + mx_dim(q, 2), 1, MLX_FLOAT32);
    mlx_array steps = mx_floor(mx_mul_scalar(place, 1 / a->temperature_step));
    mlx_array grown = mx_log(mx_add_scalar(steps, 1));
    mlx_array factor = mx_add_scalar(mx_mul_scalar(grown, a->temperature_slope), 1);
    return mx_cast(mx_mul(q, mx_expand_dims(factor, 1)), mx_dtype(q));
}

/* Query head h reads key-value head h modulo kv_heads: heads change places so that
 * grouped attention does that. [B, rep kv, L, D] <-> [B, kv rep, L, D] */
static mlx_array exchange(mlx_array x, int outer, int inner) {
    int batch = mx_dim(x, 0), length = mx_dim(x, 2), width = mx_dim(x, 3);
    mlx_array grouped = mx_reshape(x, MX_SHAPE(batch, outer, inner, length, width));
    return mx_reshape(mx_swapaxes(grouped, 1, 2), MX_SHAPE(batch, outer * inner, length, width));
}

static mlx_array gated(const Attention *a, mlx_array y, mlx_array x) {
    mlx_array gate = nn_linear(&a->gate, x);
    if (a->gate_kind == GATE_EACH) return mx_mul(y, mx_sigmoid(gate));
    int batch = mx_dim(y, 0), length = mx_dim(y, 1);
    gate = a->gate_kind == GATE_HEAD_SIGMOID ? mx_sigmoid(gate) : mx_softplus(gate);
    mlx_array heads = mx_reshape(y, MX_SHAPE(batch, length, a->heads, a->value_dim));
    return mx_reshape(mx_mul(heads, mx_expand_dims(gate, -1)), MX_SHAPE(batch, length, -1));
}

static mlx_array attend(const Attention *a, Projected p, MixerInput *input) {
    mlx_dtype dtype = mx_dtype(p.q);
    bool wide = a->in_float32 == IN_FLOAT32_ALWAYS ||
                (a->in_float32 == IN_FLOAT32_FROM_HALF && dtype == MLX_FLOAT16);
    int group = a->heads / a->kv_heads;
    if (wide) p.q = mx_cast(p.q, MLX_FLOAT32);
    if (a->tiled) p.q = exchange(p.q, group, a->kv_heads);
    mlx_array y =
        a->sinks.ctx
            ? nn_attention_sinks(input->cache, p.q, p.k, p.v, a->scale, input->mask, a->sinks)
            : nn_attention(input->cache, p.q, p.k, p.v, a->scale, input->mask, a->softcap);
    if (a->tiled) y = exchange(y, a->kv_heads, group);
    return wide ? mx_cast(y, dtype) : y;
}

static mlx_array forward(const void *state, mlx_array x, MixerInput *input) {
    const Attention *a = state;
    int offset = input->cache ? input->cache->offset : 0;
    Projected p = project(a, x, input);
    if (!a->norm_late) norm_heads(a, &p);
    if (a->rope) {
        p.q = nn_rope_within(a->rope, p.q, offset, input->text_length);
        p.k = nn_rope_within(a->rope, p.k, offset, input->text_length);
    }
    if (a->norm_late) norm_heads(a, &p);
    if (a->temperature != TEMPERATURE_NONE) p.q = heated(a, p.q, offset);
    mlx_array y = nn_merge_heads(attend(a, p, input));
    if (a->gate_kind != GATE_NONE) y = gated(a, y, x);
    if (a->has_sub_norm) y = nn_norm(&a->sub_norm, y);
    return nn_linear(&a->o, y);
}

/* ---- loading ------------------------------------------------------------------------- */

/* Weights of a norm for each head: [heads, head_dim], or one tensor a head. */
static mlx_array each_weights(const Loading *l, const char *path, int heads, int head_dim) {
    NnParams *p = l->params;
    mx_scope s = mx_open();
    mlx_array weight;
    if (nn_params_has(p, "%s.norms.0.weight", path)) {
        mlx_array *rows = nn_params_alloc(p, (size_t)heads, sizeof *rows);
        for (int h = 0; h < heads; h++)
            rows[h] = nn_params_take(p, &head_dim, 1, "%s.norms.%d.weight", path, h);
        weight = nn_params_failed(p) ? rows[0] : mx_stack(rows, (size_t)heads, 0);
    } else {
        weight = nn_params_take(p, (const int[]){heads, head_dim}, 2, "%s.weight", path);
    }
    if (weight.ctx && !nn_params_failed(p)) weight = nn_params_adopt(p, mx_expand_dims(weight, 1));
    mx_drop(s);
    return weight;
}

static void load_qk_norms(const Loading *l, int i, const DecoderLayer *layer, Attention *a) {
    const DecoderArch *arch = &l->arch;
    a->qk_norm = model_flag(l, arch->qk_norm_if) ? arch->qk_norm : QK_NORM_NONE;
    if (!layer->rotates && model_flag(l, arch->qk_norm_rotating)) a->qk_norm = QK_NORM_NONE;
    a->norm_late = model_flag(l, arch->qk_norm_late);
    if (a->qk_norm == QK_NORM_NONE) return;
    const char *q_path = model_path(l, i, arch->q_norm), *k_path = model_path(l, i, arch->k_norm);
    double own = model_scalar(l, arch->qk_norm_eps);
    float eps = own > 0 ? (float)own : l->eps;
    int q_size = a->head_dim, k_size = q_size;
    NnNormKind kind = l->norm;
    switch (a->qk_norm) {
    case QK_NORM_WHOLE:
        q_size *= a->heads;
        k_size *= a->kv_heads;
        break;
    case QK_NORM_UNIT: kind = NN_NORM_RMS_UNIT; break;
    case QK_NORM_EACH:
        kind = NN_NORM_LAYER_UNIT;
        a->each[0] = each_weights(l, q_path, a->heads, a->head_dim);
        a->each[1] = each_weights(l, k_path, a->kv_heads, a->head_dim);
        break;
    case QK_NORM_HEAD:
    case QK_NORM_NONE: break;
    }
    a->q_norm = nn_norm_load(l->params, kind, q_size, eps, "%s", q_path);
    a->k_norm = nn_norm_load(l->params, kind, k_size, eps, "%s", k_path);
}

static void load_projections(const Loading *l, int hidden, int i, Attention *a) {
    NnParams *p = l->params;
    const DecoderArch *arch = &l->arch;
    int q = a->heads * a->head_dim, k = a->kv_heads * a->head_dim, v = a->kv_heads * a->value_dim;
    if (a->layout != QKV_SEPARATE) {
        a->q = nn_linear_load(p, hidden, q + k + v, l->qkv_bias, "%s", model_path(l, i, arch->qkv));
    } else {
        a->q = nn_linear_load(p, hidden, q, l->qkv_bias, "%s", model_path(l, i, arch->q));
        if (!a->borrows_kv) {
            a->k = nn_linear_load(p, hidden, k, l->qkv_bias, "%s", model_path(l, i, arch->k));
            a->v = nn_linear_load(p, hidden, v, l->qkv_bias, "%s", model_path(l, i, arch->v));
        }
    }
    a->o = nn_linear_load(p, a->heads * a->value_dim, hidden, l->o_bias, "%s",
                          model_path(l, i, arch->o));
}

static void load_temperature(const Loading *l, const DecoderLayer *layer, Attention *a) {
    NnParams *p = l->params;
    const json_t *rope = json_object_get(l->config, "rope_parameters");
    a->temperature = l->arch.temperature;
    if (a->temperature == TEMPERATURE_FLOOR_SCALE) {
        const json_t *tuning = model_present(l->config, "attn_temperature_tuning");
        bool off = tuning && !json_is_true(tuning) && json_number_value(tuning) == 0;
        if (layer->rotates || off) a->temperature = TEMPERATURE_NONE;
        a->temperature_slope = nn_config_number(p, l->config, "attn_scale", 0.1);
        a->temperature_step = nn_config_number(p, l->config, "floor_scale", 8192);
    } else if (a->temperature == TEMPERATURE_ORIGINAL) {
        a->temperature_slope = nn_config_number(p, rope, "llama_4_scaling_beta", 0);
        a->temperature_step =
            nn_config_number(p, rope, "original_max_position_embeddings", 1 << 30);
        if (a->temperature_slope == 0) a->temperature = TEMPERATURE_NONE;
    }
    if (a->temperature != TEMPERATURE_NONE && !(a->temperature_step > 0))
        nn_params_fail(p, ERROR_INPUT, "config.json: the step of the query scale must be positive");
}

Mixer model_attention_load(const Loading *l, const Decoder *d, int i) {
    const DecoderArch *arch = &l->arch;
    const DecoderLayer *layer = &d->layers[i];
    Attention *a = nn_params_alloc(l->params, 1, sizeof *a);
    *a = (Attention){.heads = layer->heads,
                     .kv_heads = layer->kv_heads,
                     .head_dim = layer->head_dim,
                     .value_dim = layer->value_dim,
                     .rope = layer->rope,
                     .layout = arch->layout,
                     .tiled = arch->kv == KV_TILED,
                     .in_float32 = arch->in_float32,
                     .clip = model_scalar(l, arch->clip_qkv),
                     .softcap = (float)model_scalar(l, arch->attention_softcap)};
    if (arch->kv == KV_MULTI_QUERY && a->kv_heads == a->heads) a->layout = QKV_GROUPED;
    double dim = model_scalar(l, arch->attention_dim);
    double direct = model_scalar(l, arch->attention_scale);
    double scale = direct != 0 ? direct : 1 / sqrt(dim > 0 ? dim : a->head_dim);
    if (!model_flag(l, arch->attention_scaled)) scale = 1;
    if (model_flag(l, arch->attention_by_layer)) scale /= i + 1;
    a->scale = (float)scale;
    if (model_flag(l, arch->shares_kv)) {
        int shared = nn_config_int(l->params, l->config, "cla_share_factor", 2);
        a->borrows_kv = shared > 1 && i % shared != 0;
        a->lends_kv = !a->borrows_kv;
    }
    load_projections(l, d->hidden_size, i, a);
    load_qk_norms(l, i, layer, a);
    load_temperature(l, layer, a);
    a->gate_kind = arch->gate && model_flag(l, arch->gate_if) ? arch->gate_kind : GATE_NONE;
    if (a->gate_kind != GATE_NONE) {
        int width = a->gate_kind == GATE_EACH ? a->heads * a->value_dim : a->heads;
        a->gate = nn_linear_load(l->params, d->hidden_size, width, false, "%s",
                                 model_path(l, i, arch->gate));
    }
    if (arch->sinks && model_flag(l, layer->sliding ? arch->sliding_sinks : arch->full_sinks))
        a->sinks = nn_params_take(l->params, &a->heads, 1, "%s", model_path(l, i, arch->sinks));
    a->has_sub_norm = arch->attention_sub != NULL;
    if (a->has_sub_norm) {
        a->sub_norm = nn_norm_load(l->params, l->norm, a->heads * a->value_dim, l->eps, "%s",
                                   model_path(l, i, arch->attention_sub));
    }
    return (Mixer){forward, a, a->kv_heads, a->head_dim, a->value_dim};
}

/* ---- one matrix in its place (Nemotron-NAS) ------------------------------------------- */

static mlx_array forward_linear(const void *state, mlx_array x, MixerInput *input) {
    (void)input;
    return nn_linear(state, x);
}

Mixer model_linear_mixer_load(const Loading *l, const Decoder *d, int i) {
    Linear *linear = nn_params_alloc(l->params, 1, sizeof *linear);
    *linear = nn_linear_load(l->params, d->hidden_size, d->hidden_size, l->qkv_bias, "%s",
                             model_path(l, i, "self_attn.linear"));
    return (Mixer){.forward = forward_linear, .state = linear};
}
