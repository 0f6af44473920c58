/* From a config, a family's row and a parameter tree to a decoder: sizes are
 * checked, each tensor is taken under its name, rotary tables are made. */
#include "models/decoder.h"

#include <math.h>
#include <string.h>

enum { MAX_LAYERS = 4096, MAX_WIDTH = 1 << 22 };

/* What the steps of loading share. */
typedef struct Loading {
    NnParams *params;
    const json_t *config;
    DecoderArch arch;
    NnNormKind norm;
    float eps;
    int ffn_size;
    bool qkv_bias, o_bias, ffn_bias;
} Loading;

static bool flag(const Loading *l, Flag f) {
    return f.key ? nn_config_bool(l->params, l->config, f.key, f.value) : f.value;
}

static double scalar(const Loading *l, Scalar s) {
    return s.key ? nn_config_number(l->params, l->config, s.key, s.value) : s.value;
}

static const json_t *present(const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    return value && !json_is_null(value) ? value : NULL;
}

/* ---- sizes and scalars ------------------------------------------------------------ */

static void read_sizes(const Loading *l, Decoder *d) {
    NnParams *p = l->params;
    d->hidden_size = nn_config_size(p, l->config, "hidden_size");
    d->n_layers = nn_config_size(p, l->config, "num_hidden_layers");
    d->vocab_size = nn_config_size(p, l->config, "vocab_size");
    d->heads = nn_config_size(p, l->config, "num_attention_heads");
    d->kv_heads = nn_config_int(p, l->config, "num_key_value_heads", d->heads);
    d->head_dim = nn_config_int(p, l->config, "head_dim", d->hidden_size / d->heads);
    if (d->kv_heads < 1 || d->heads % d->kv_heads != 0) {
        nn_params_fail(p, ERROR_INPUT,
                       "config.json: %d attention heads cannot share %d key-value heads", d->heads,
                       d->kv_heads);
    }
    if (d->n_layers > MAX_LAYERS || d->head_dim < 1 ||
        (int64_t)d->heads * d->head_dim > MAX_WIDTH) {
        nn_params_fail(p, ERROR_INPUT,
                       "config.json: %d layers of %d heads of %d features are impossible",
                       d->n_layers, d->heads, d->head_dim);
    }
}

static void read_scalars(const Loading *l, Decoder *d) {
    const DecoderArch *a = &l->arch;
    double dim = scalar(l, a->attention_dim), direct = scalar(l, a->attention_scale);
    d->attention_scale = (float)(direct != 0 ? direct : 1 / sqrt(dim > 0 ? dim : d->head_dim));
    d->attention_softcap = (float)scalar(l, a->attention_softcap);
    d->residual_scale = (float)scalar(l, a->residual_scale);
    d->embed_scale =
        a->embed == EMBED_SQRT_HIDDEN ? sqrt(d->hidden_size) : scalar(l, a->embed_scale);
    d->logit_scale = scalar(l, a->logit_scale) / scalar(l, a->logit_divisor);
    d->logit_softcap = scalar(l, a->logit_softcap);
    /* An explicit null switches a cap off. */
    if (a->attention_softcap.key &&
        json_is_null(json_object_get(l->config, a->attention_softcap.key))) {
        d->attention_softcap = 0;
    }
    if (a->logit_softcap.key && json_is_null(json_object_get(l->config, a->logit_softcap.key))) {
        d->logit_softcap = 0;
    }
}

static void read_flags(Loading *l, Decoder *d) {
    const DecoderArch *a = &l->arch;
    d->parallel = flag(l, a->parallel);
    d->fused_qkv = a->fused_qkv;
    d->qk_norm = a->qk_norm;
    d->ffn = a->ffn;
    d->activation = a->activation;
    if (a->activation_key) {
        const char *name = nn_config_string(l->params, l->config, a->activation_key, NULL);
        if (name && !nn_activation_parse(name, &d->activation)) {
            nn_params_fail(l->params, ERROR_UNSUPPORTED,
                           "config.json: activation \"%s\" is not supported", name);
        }
    }
    if (a->refused && nn_config_bool(l->params, l->config, a->refused, false)) {
        nn_params_fail(l->params, ERROR_UNSUPPORTED, "config.json: %s is not supported for %s",
                       a->refused, a->model_type);
    }
    l->norm = flag(l, a->norm_bias) ? NN_NORM_LAYER_BIAS : a->norm;
    l->eps = (float)scalar(l, a->norm_eps);
    l->qkv_bias = flag(l, a->qkv_bias);
    l->o_bias = flag(l, a->o_bias);
    l->ffn_bias = flag(l, a->ffn_bias);
    l->ffn_size = nn_config_size(l->params, l->config, "intermediate_size");
}

/* ---- windows and positions ------------------------------------------------------------ */

/* "LLLG" or 4: the length of the pattern whose last layer sees everything. */
static int pattern_length(const Loading *l) {
    static const char *const keys[] = {"sliding_window_pattern", "_sliding_window_pattern"};
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        const json_t *value = present(l->config, keys[i]);
        if (json_is_string(value)) return (int)json_string_length(value);
        if (value) return nn_config_int(l->params, l->config, keys[i], 0);
    }
    return l->arch.default_pattern;
}

static bool layer_slides(const Loading *l, const Decoder *d, int i) {
    if (d->window <= 0) return false;
    const json_t *types = present(l->config, "layer_types");
    if (types) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        return type && strcmp(type, "sliding_attention") == 0;
    }
    int pattern = pattern_length(l);
    switch (l->arch.window) {
    case WINDOW_ALL: return true;
    case WINDOW_ALTERNATING: return i % 2 == 0;
    case WINDOW_PATTERN: return pattern > 0 && (i + 1) % pattern != 0;
    case WINDOW_NONE:
    case WINDOW_LAYER_TYPES: break;
    }
    return false;
}

static bool layer_rotates(const Loading *l, const Decoder *d, int i) {
    if (l->arch.position == POSITION_ROPE_SLIDING)
        return d->first_sliding < 0 || d->layers[i].sliding;
    if (l->arch.position == POSITION_ROPE_SOME) {
        const json_t *list = present(l->config, "no_rope_layers"); /* 1: rotates */
        if (json_is_array(list) && json_array_size(list) == (size_t)d->n_layers) {
            return json_integer_value(json_array_get(list, (size_t)i)) != 0;
        }
        int interval = nn_config_int(l->params, l->config, "no_rope_layer_interval", 4);
        return interval < 1 || (i + 1) % interval != 0;
    }
    return true;
}

static void load_positions(const Loading *l, Decoder *d) {
    const DecoderArch *a = &l->arch;
    const json_t *window = json_object_get(l->config, "sliding_window");
    d->window = window && json_is_null(window)
                    ? 0
                    : nn_config_int(l->params, l->config, "sliding_window", a->default_window);
    const json_t *types = present(l->config, "layer_types");
    if (types && json_array_size(types) != (size_t)d->n_layers) {
        nn_params_fail(l->params, ERROR_INPUT, "config.json: layer_types must list %d layers",
                       d->n_layers);
    }
    d->first_full = d->first_sliding = -1;
    for (int i = 0; i < d->n_layers; i++) {
        d->layers[i].sliding = layer_slides(l, d, i);
        int *first = d->layers[i].sliding ? &d->first_sliding : &d->first_full;
        if (*first < 0) *first = i;
    }

    RopeConfig full = nn_rope_config(l->config, "full_attention", a->rope_theta, a->rope_partial);
    int dims = (int)(d->head_dim * full.partial);
    d->rope = nn_rope_load(l->params, l->config, full, dims, a->rope_traditional);
    if (a->local_theta > 0) {
        RopeConfig local =
            nn_rope_config(l->config, "sliding_attention", a->local_theta, a->rope_partial);
        if (!json_is_object(json_object_get(l->config, "rope_parameters"))) {
            local.theta =
                nn_config_number(l->params, l->config, "rope_local_base_freq", a->local_theta);
            local.scaling = NULL; /* the old form scales only the full layers */
        }
        d->local_rope = nn_rope_load(l->params, l->config, local, dims, a->rope_traditional);
    }
    for (int i = 0; i < d->n_layers; i++) {
        bool local = a->local_theta > 0 && d->layers[i].sliding;
        if (layer_rotates(l, d, i)) d->layers[i].rope = local ? &d->local_rope : &d->rope;
    }
}

/* ---- tensors ----------------------------------------------------------------------------- */

static bool load_norm(const Loading *l, const Decoder *d, int layer, const char *name, Norm *norm) {
    if (name[0] == '\0') return false;
    *norm =
        nn_norm_load(l->params, l->norm, d->hidden_size, l->eps, "model.layers.%d.%s", layer, name);
    return true;
}

static void load_attention(const Loading *l, const Decoder *d, int i, DecoderLayer *layer) {
    NnParams *p = l->params;
    int hidden = d->hidden_size, q_size = d->heads * d->head_dim,
        kv_size = d->kv_heads * d->head_dim;
    if (d->fused_qkv) {
        layer->q = nn_linear_load(p, hidden, q_size + 2 * kv_size, l->qkv_bias,
                                  "model.layers.%d.self_attn.qkv_proj", i);
    } else {
        layer->q =
            nn_linear_load(p, hidden, q_size, l->qkv_bias, "model.layers.%d.self_attn.q_proj", i);
        layer->k =
            nn_linear_load(p, hidden, kv_size, l->qkv_bias, "model.layers.%d.self_attn.k_proj", i);
        layer->v =
            nn_linear_load(p, hidden, kv_size, l->qkv_bias, "model.layers.%d.self_attn.v_proj", i);
    }
    layer->o =
        nn_linear_load(p, q_size, hidden, l->o_bias, "model.layers.%d.%s", i, l->arch.o_name);
    if (d->qk_norm == QK_NORM_NONE) return;
    bool whole = d->qk_norm == QK_NORM_WHOLE;
    layer->q_norm = nn_norm_load(p, l->norm, whole ? q_size : d->head_dim, l->eps,
                                 "model.layers.%d.self_attn.q_norm", i);
    layer->k_norm = nn_norm_load(p, l->norm, whole ? kv_size : d->head_dim, l->eps,
                                 "model.layers.%d.self_attn.k_norm", i);
}

static void load_feed_forward(const Loading *l, const Decoder *d, int i, DecoderLayer *layer) {
    NnParams *p = l->params;
    const DecoderArch *a = &l->arch;
    int hidden = d->hidden_size, inner = l->ffn_size;
    if (d->ffn == FFN_GLU_FUSED) {
        layer->gate =
            nn_linear_load(p, hidden, 2 * inner, l->ffn_bias, "model.layers.%d.%s", i, a->gate);
    } else {
        if (d->ffn == FFN_GLU) {
            layer->gate =
                nn_linear_load(p, hidden, inner, l->ffn_bias, "model.layers.%d.%s", i, a->gate);
        }
        layer->up = nn_linear_load(p, hidden, inner, l->ffn_bias, "model.layers.%d.%s", i, a->up);
    }
    layer->down = nn_linear_load(p, inner, hidden, l->ffn_bias, "model.layers.%d.%s", i, a->down);
}

/* A file that states nothing about tying and has a head of its own is untied. */
static bool is_tied(const Loading *l) {
    bool has_head = nn_params_has(l->params, "lm_head.weight");
    if (l->arch.tied.key && !present(l->config, l->arch.tied.key)) return !has_head;
    return flag(l, l->arch.tied);
}

static void load_ends(const Loading *l, Decoder *d) {
    NnParams *p = l->params;
    d->embed = nn_embedding_load(p, d->vocab_size, d->hidden_size, "model.embed_tokens");
    d->norm = nn_norm_load(p, l->norm, d->hidden_size, l->eps, "%s", l->arch.final_norm);
    d->tied = is_tied(l);
    if (d->tied) {
        nn_params_remove_prefix(p, "lm_head.");
    } else {
        d->head = nn_linear_load(p, d->hidden_size, d->vocab_size, l->arch.head_bias, "lm_head");
    }
}

Decoder *model_decoder_load(NnParams *params, const json_t *config, Error *err) {
    const char *type = nn_config_string(params, config, "model_type", "");
    const DecoderArch *row = model_decoder_arch(type);
    if (!row) {
        base_fail(err, ERROR_UNSUPPORTED, "model type \"%s\" is not a decoder that is known", type);
        return NULL;
    }
    Loading l = {.params = params, .config = config, .arch = model_decoder_complete(row)};
    Decoder *d = nn_params_alloc(params, 1, sizeof *d);
    read_sizes(&l, d);
    read_scalars(&l, d);
    read_flags(&l, d);
    if (nn_params_failed(params)) {
        nn_params_check(params, err);
        return NULL;
    }

    nn_params_remove_suffix(params, "rotary_emb.inv_freq");
    d->layers = nn_params_alloc(params, (size_t)d->n_layers, sizeof *d->layers);
    load_positions(&l, d);
    load_ends(&l, d);
    for (int i = 0; i < d->n_layers && !nn_params_failed(params); i++) {
        DecoderLayer *layer = &d->layers[i];
        layer->has_attention_in = load_norm(&l, d, i, l.arch.attention_in, &layer->attention_in);
        layer->has_attention_out = load_norm(&l, d, i, l.arch.attention_out, &layer->attention_out);
        layer->has_ffn_in = load_norm(&l, d, i, d->parallel ? "" : l.arch.ffn_in, &layer->ffn_in);
        layer->has_ffn_out = load_norm(&l, d, i, l.arch.ffn_out, &layer->ffn_out);
        load_attention(&l, d, i, layer);
        load_feed_forward(&l, d, i, layer);
    }
    return nn_params_check(params, err) ? d : NULL;
}
