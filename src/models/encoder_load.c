/* From a config and a parameter tree to an encoder. The table of families says
 * which tensors and keys there are; nothing here knows a family by name. */
#include "models/encoders.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 1024, MAX_BUCKETS = 1 << 16, MAX_DISTANCE = 1 << 20 };

static bool flag(NnParams *p, const json_t *config, EncoderFlag from) {
    return from.key ? nn_config_bool(p, config, from.key, from.value) : from.value;
}

/* ---- config ------------------------------------------------------------------------ */

/* "gelu", or T5's "gated-gelu", where plain gelu means its tanh form. */
static void read_activation(NnParams *p, const json_t *config, Encoder *e) {
    const EncoderArch *a = e->arch;
    const char *name = nn_config_string(p, config, a->activation_key, a->activation), *word = name;
    e->gated = a->gate == NULL && a->fused_gate;
    if (a->gate && base_starts_with(name, "gated-")) {
        e->gated = true;
        word = strcmp(name, "gated-gelu") == 0 ? "gelu_new" : name + strlen("gated-");
    }
    if (!nn_activation_parse(word, &e->activation)) {
        nn_params_fail(p, ERROR_UNSUPPORTED, "config.json: activation \"%s\" is not supported",
                       name);
    }
}

static void read_sizes(NnParams *p, const json_t *config, Encoder *e) {
    const EncoderArch *a = e->arch;
    e->hidden_size = nn_config_size(p, config, a->hidden_key);
    e->n_layers = nn_config_size(p, config, a->layers_key);
    e->vocab_size = nn_config_size(p, config, "vocab_size");
    e->heads = nn_config_size(p, config, a->heads_key);
    bool divides = e->hidden_size % e->heads == 0;
    e->head_dim = e->hidden_size / e->heads;
    if (a->head_dim_key) {
        e->head_dim = nn_config_size(p, config, a->head_dim_key);
        divides = (int64_t)e->head_dim * e->heads < 1 << 24;
    }
    e->scale = a->unscaled ? 1 : 1 / sqrtf((float)e->head_dim);
    e->pad_id = nn_config_int(p, config, "pad_token_id", a->pad);
    e->position_pad = a->pad_fixed ? a->pad : e->pad_id;
    bool pad_ok = a->counting != POSITIONS_AFTER_PAD || e->position_pad >= 0;
    if (!divides || e->n_layers > MAX_LAYERS || !pad_ok) {
        nn_params_fail(
            p, ERROR_INPUT,
            "config.json: %d layers of %d features in %d heads, padding id %d, are impossible",
            e->n_layers, e->hidden_size, e->heads, e->pad_id);
    }
    if (e->pad_id < 0 || e->pad_id >= e->vocab_size) e->pad_id = 0; /* only fills what is masked */
    const char *kind = nn_config_string(p, config, "position_embedding_type", "absolute");
    if (a->positions && strcmp(kind, "absolute") != 0) {
        nn_params_fail(p, ERROR_UNSUPPORTED,
                       "config.json: position_embedding_type \"%s\" is not supported", kind);
    }
}

/* ---- names --------------------------------------------------------------------------- */

/* Names without the family's prefixes; other models' tensors, heads of
 * pre-training, buffers dropped; TensorFlow's words for norms replaced. */
static void clean_names(NnParams *p, const EncoderArch *a) {
    for (size_t i = 0; i < BASE_COUNT(a->prefixes) && a->prefixes[i]; i++)
        nn_params_rename_prefix(p, a->prefixes[i], "");
    for (size_t i = 0; i < BASE_COUNT(a->dropped) && a->dropped[i]; i++)
        nn_params_remove_prefix(p, a->dropped[i]);
    nn_params_remove_suffix(p, "position_ids");
    nn_params_remove_suffix(p, "token_type_ids");
    nn_params_rename_suffix(p, ".LayerNorm.gamma", ".LayerNorm.weight");
    nn_params_rename_suffix(p, ".LayerNorm.beta", ".LayerNorm.bias");
    if (a->words_copy) { /* the table under a second name, which counts where they differ */
        char name[128], copy[128];
        snprintf(name, sizeof name, "%s.", a->words);
        snprintf(copy, sizeof copy, "%s.", a->words_copy);
        if (nn_params_has(p, "%sweight", copy)) {
            nn_params_remove_prefix(p, name);
            nn_params_rename_prefix(p, copy, name);
        }
    }
}

/* ---- positions ------------------------------------------------------------------------- */

/* The table of positions, and how long a text may be. */
static void load_positions(NnParams *p, const json_t *config, Encoder *e) {
    const EncoderArch *a = e->arch;
    e->max_tokens = INT_MAX;
    if (a->relative_bias && !a->positions) return;
    int rows = nn_config_size(p, config, "max_position_embeddings");
    e->max_tokens = a->counting == POSITIONS_AFTER_PAD ? rows - e->position_pad - 1 : rows;
    if (e->max_tokens < 1) {
        nn_params_fail(p, ERROR_INPUT,
                       "config.json: %d positions after padding id %d leave none for a text", rows,
                       e->position_pad);
    }
    if (a->positions) e->positions = nn_embedding_load(p, rows, e->hidden_size, "%s", a->positions);
}

/* T5's buckets (Raffel et al., 2019): near distances have one each, far ones
 * share logarithmically; one half of the buckets looks ahead. Single precision,
 * as where the models were trained. */
static int bucket_of(int distance, int buckets, int furthest) {
    int half = buckets / 2, bucket = distance > 0 ? half : 0, far = abs(distance), exact = half / 2;
    if (far < exact) return bucket + far;
    float share = logf((float)far / (float)exact) / (float)log((double)furthest / exact) *
                  (float)(half - exact);
    return bucket + BASE_MIN(half - 1, exact + (int)share);
}

static void load_relative_bias(NnParams *p, const json_t *config, Encoder *e) {
    int rows = nn_config_int(p, config, "relative_attention_num_buckets", 32), buckets = rows;
    e->furthest = nn_config_int(p, config, "relative_attention_max_distance", 128);
    if (e->arch->buckets_fixed) {
        buckets = 32;
        e->furthest = 128;
    }
    if (buckets < 4 || buckets > rows || rows > MAX_BUCKETS || e->furthest <= buckets / 4 ||
        e->furthest > MAX_DISTANCE) {
        nn_params_fail(p, ERROR_INPUT,
                       "config.json: %d relative buckets for distances up to %d are impossible",
                       rows, e->furthest);
        return;
    }
    Embedding table = nn_embedding_load(p, rows, e->heads, "%s", e->arch->relative_bias);
    if (nn_params_failed(p)) return;
    /* Past `furthest` all distances of a side share its last bucket. */
    int span = 2 * e->furthest + 1;
    int *places = nn_params_alloc(p, (size_t)span, sizeof *places);
    for (int i = 0; i < span; i++) places[i] = bucket_of(i - e->furthest, buckets, e->furthest);
    mx_scope s = mx_open();
    e->by_distance = nn_params_adopt(p, nn_embedding(&table, mx_from_i32(places, MX_SHAPE(span))));
    mx_drop(s);
}

/* ---- ModernBERT's windows ---------------------------------------------------------------- */

/* layer_types decides, or each n'th layer sees everything. */
static bool is_windowed(NnParams *p, const json_t *config, int layer) {
    const json_t *types = json_object_get(config, "layer_types");
    if (!json_is_array(types)) {
        int every = nn_config_int(p, config, "global_attn_every_n_layers", 3);
        return every > 0 && layer % every != 0;
    }
    const char *type = json_string_value(json_array_get(types, (size_t)layer));
    bool windowed = type && strcmp(type, "sliding_attention") == 0;
    if (!windowed && (!type || strcmp(type, "full_attention") != 0)) {
        nn_params_fail(p, ERROR_INPUT,
                       "config.json: layer_types[%d] must be full_attention or sliding_attention",
                       layer);
    }
    return windowed;
}

static void load_rotation(NnParams *p, const json_t *config, Encoder *e) {
    double global = nn_config_number(p, config, "global_rope_theta", 160000);
    double local = nn_config_number(p, config, "local_rope_theta", 10000);
    e->rope = nn_rope_load(p, config, nn_rope_config(config, "full_attention", global, 1),
                           e->head_dim, false);
    e->local_rope = nn_rope_load(p, config, nn_rope_config(config, "sliding_attention", local, 1),
                                 e->head_dim, false);
    e->window = nn_config_int(p, config, "local_attention", 128) / 2;
    if (e->window < 0) {
        nn_params_fail(p, ERROR_INPUT, "config.json: local_attention must be positive");
    }
    for (int i = 0; i < e->n_layers; i++) e->layers[i].windowed = is_windowed(p, config, i);
}

/* ---- layers -------------------------------------------------------------------------------- */

typedef struct LayerPlan {
    const char *layer;
    int inner;
    float eps;
    NnNormKind norm;
    bool attention_bias, ffn_bias;
} LayerPlan;

static void load_attention(NnParams *p, const Encoder *e, EncoderLayer *layer, int i,
                           const LayerPlan *plan) {
    const EncoderArch *a = e->arch;
    int size = e->hidden_size, wide = e->heads * e->head_dim;
    bool bias = plan->attention_bias;
    if (a->k) {
        layer->q = nn_linear_load(p, size, wide, bias, "%s.%d.%s", a->layer, i, a->q);
        layer->k = nn_linear_load(p, size, wide, bias, "%s.%d.%s", a->layer, i, a->k);
        layer->v = nn_linear_load(p, size, wide, bias, "%s.%d.%s", a->layer, i, a->v);
    } else {
        layer->q = nn_linear_load(p, size, 3 * wide, bias, "%s.%d.%s", a->layer, i, a->q);
    }
    layer->o = nn_linear_load(p, wide, size, bias, "%s.%d.%s", a->layer, i, a->o);
    layer->has_attention_norm = !(a->first_norm_absent && i == 0);
    if (layer->has_attention_norm) {
        layer->attention_norm = nn_norm_load(p, plan->norm, size, plan->eps, "%s.%d.%s", a->layer,
                                             i, a->attention_norm);
    }
}

static void load_ffn(NnParams *p, const Encoder *e, EncoderLayer *layer, int i,
                     const LayerPlan *plan) {
    const EncoderArch *a = e->arch;
    int size = e->hidden_size, inner = plan->inner;
    bool bias = plan->ffn_bias;
    if (e->gated && a->gate)
        layer->gate = nn_linear_load(p, size, inner, bias, "%s.%d.%s", a->layer, i, a->gate);
    layer->up = nn_linear_load(p, size, a->fused_gate ? 2 * inner : inner, bias, "%s.%d.%s",
                               a->layer, i, a->up_alone && !e->gated ? a->up_alone : a->up);
    layer->down = nn_linear_load(p, inner, size, bias, "%s.%d.%s", a->layer, i, a->down);
    layer->ffn_norm =
        nn_norm_load(p, plan->norm, size, plan->eps, "%s.%d.%s", a->layer, i, a->ffn_norm);
}

/* ---- heads ----------------------------------------------------------------------------------- */

static int rows_of(const NnParams *p, const char *path) {
    char name[128];
    snprintf(name, sizeof name, "%s.weight", path);
    return mx_dim(nn_params_peek(p, name), 0);
}

/* A classifier is there or not. Without one its dense layer, which pre-training
 * leaves behind under the same name, is dropped. */
static void load_classifier(NnParams *p, const json_t *config, Encoder *e, const LayerPlan *plan) {
    const EncoderArch *a = e->arch;
    int size = e->hidden_size;
    if (!a->classifier) return;
    if (!nn_params_has(p, "%s.weight", a->classifier)) {
        if (a->head_norm) nn_params_remove_prefix(p, "head.");
        return;
    }
    e->labels = rows_of(p, a->classifier);
    e->head_activation = NN_TANH;
    bool bias = true;
    if (a->head_norm) {
        const char *name = nn_config_string(p, config, "classifier_activation", "gelu");
        bias = nn_config_bool(p, config, "classifier_bias", false);
        if (!nn_activation_parse(name, &e->head_activation)) {
            nn_params_fail(p, ERROR_UNSUPPORTED,
                           "config.json: classifier_activation \"%s\" is not supported", name);
        }
        e->head_norm = nn_norm_load(p, plan->norm, size, plan->eps, "%s", a->head_norm);
        const char *pooling = nn_config_string(p, config, "classifier_pooling", "cls");
        e->classify_mean = strcmp(pooling, "mean") == 0;
        if (!e->classify_mean && strcmp(pooling, "cls") != 0) {
            nn_params_fail(p, ERROR_UNSUPPORTED,
                           "config.json: classifier_pooling \"%s\" is neither cls nor mean",
                           pooling);
        }
    }
    e->head_dense = nn_linear_load(p, size, size, bias, "%s", a->head_dense);
    e->classifier = nn_linear_load(p, size, e->labels, true, "%s", a->classifier);
}

static void load_pooler(NnParams *p, const json_t *config, Encoder *e) {
    const EncoderArch *a = e->arch;
    int size = e->hidden_size;
    e->pooled_size = size;
    e->has_pooler = a->pooler && nn_params_has(p, "%s.weight", a->pooler);
    if (e->has_pooler) e->pooler = nn_linear_load(p, size, size, true, "%s", a->pooler);
    if (!a->projection) return;
    e->eos_id = nn_config_int(p, config, "eos_token_id", 49407);
    e->has_projection = nn_params_has(p, "%s.weight", a->projection);
    if (e->has_projection) {
        e->pooled_size = rows_of(p, a->projection);
        e->projection = nn_linear_load(p, size, e->pooled_size, false, "%s", a->projection);
    }
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static void load(NnParams *p, const json_t *config, Encoder *e) {
    const EncoderArch *a = e->arch;
    read_sizes(p, config, e);
    read_activation(p, config, e);
    bool norm_bias = flag(p, config, a->norm_bias);
    LayerPlan plan = {
        .inner = nn_config_size(p, config, a->inner_key),
        .eps = (float)nn_config_number(p, config, a->eps_key, a->eps),
        .norm = a->rms      ? NN_NORM_RMS
                : norm_bias ? NN_NORM_LAYER_BIAS
                            : NN_NORM_LAYER,
        .attention_bias = flag(p, config, a->attention_bias),
        .ffn_bias = flag(p, config, a->ffn_bias),
    };
    if (nn_params_failed(p)) return;
    e->layers = nn_params_alloc(p, (size_t)e->n_layers, sizeof *e->layers);

    clean_names(p, a);
    e->words = nn_embedding_load(p, e->vocab_size, e->hidden_size, "%s", a->words);
    load_positions(p, config, e);
    int types = a->types ? nn_config_int(p, config, "type_vocab_size", 2) : 0;
    e->has_types = types > 0;
    if (e->has_types) e->types = nn_embedding_load(p, types, e->hidden_size, "%s", a->types);
    if (a->relative_bias) load_relative_bias(p, config, e);
    if (a->rotary_windows) load_rotation(p, config, e);
    if (a->embed_norm)
        e->embed_norm = nn_norm_load(p, plan.norm, e->hidden_size, plan.eps, "%s", a->embed_norm);
    for (int i = 0; i < e->n_layers && !nn_params_failed(p); i++) {
        load_attention(p, e, &e->layers[i], i, &plan);
        load_ffn(p, e, &e->layers[i], i, &plan);
    }
    if (a->final_norm)
        e->final_norm = nn_norm_load(p, plan.norm, e->hidden_size, plan.eps, "%s", a->final_norm);
    load_pooler(p, config, e);
    load_classifier(p, config, e, &plan);
}

Encoder *model_encoder_load(NnParams *params, const json_t *config, Error *err) {
    const char *type = nn_config_string(params, config, "model_type", "");
    const EncoderArch *arch = model_encoder_arch(type);
    if (!arch) {
        base_fail(err, ERROR_UNSUPPORTED, "model type \"%s\" is not an encoder that is known",
                  type);
        return NULL;
    }
    if (arch->section && json_is_object(json_object_get(config, arch->section)))
        config = json_object_get(config, arch->section);
    Encoder *e = nn_params_alloc(params, 1, sizeof *e);
    e->arch = arch;
    load(params, config, e);
    return nn_params_check(params, err) ? e : NULL;
}
