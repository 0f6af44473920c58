/* From a config and a parameter tree to an encoder of the BERT family. */
#include "models/encoders.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 1024, MAX_RELATIVE = 1 << 16 };

static void read_sizes(NnParams *p, const json_t *config, Encoder *e) {
    e->hidden_size = nn_config_size(p, config, "hidden_size");
    e->n_layers = nn_config_size(p, config, "num_hidden_layers");
    e->vocab_size = nn_config_size(p, config, "vocab_size");
    e->heads = nn_config_size(p, config, "num_attention_heads");
    e->max_positions = nn_config_size(p, config, "max_position_embeddings");
    e->pad_id = nn_config_int(p, config, "pad_token_id", e->arch->positions_after_pad ? 1 : 0);
    e->head_dim = e->hidden_size / e->heads;
    if (e->hidden_size % e->heads != 0 || e->n_layers > MAX_LAYERS || e->pad_id < 0 ||
        e->pad_id >= e->vocab_size || e->pad_id + 1 >= e->max_positions) {
        nn_params_fail(
            p, ERROR_INPUT,
            "config.json: %d layers of %d features in %d heads, padding id %d, are impossible",
            e->n_layers, e->hidden_size, e->heads, e->pad_id);
    }
    const char *act = nn_config_string(p, config, "hidden_act", "gelu");
    if (!nn_activation_parse(act, &e->activation)) {
        nn_params_fail(p, ERROR_UNSUPPORTED, "config.json: activation \"%s\" is not supported",
                       act);
    }
    const char *kind = nn_config_string(p, config, "position_embedding_type", "absolute");
    if (strcmp(kind, "absolute") != 0) {
        nn_params_fail(p, ERROR_UNSUPPORTED,
                       "config.json: position_embedding_type \"%s\" is not supported", kind);
    }
}

/* Names without the family's prefix; heads of pre-training and buffers dropped. */
static void clean_names(NnParams *p, const EncoderArch *arch) {
    nn_params_rename_prefix(p, arch->prefix, "");
    nn_params_remove_suffix(p, "position_ids");
    nn_params_remove_suffix(p, "token_type_ids");
    nn_params_remove_prefix(p, "cls.");
    nn_params_remove_prefix(p, "lm_head.");
}

static void load_layers(NnParams *p, Encoder *e, int inner, float eps) {
    const EncoderArch *a = e->arch;
    int size = e->hidden_size;
    for (int i = 0; i < e->n_layers && !nn_params_failed(p); i++) {
        EncoderLayer *layer = &e->layers[i];
        layer->q = nn_linear_load(p, size, size, true, "encoder.layer.%d.%s", i, a->q);
        layer->k = nn_linear_load(p, size, size, true, "encoder.layer.%d.%s", i, a->k);
        layer->v = nn_linear_load(p, size, size, true, "encoder.layer.%d.%s", i, a->v);
        layer->o = nn_linear_load(p, size, size, true, "encoder.layer.%d.%s", i, a->o);
        layer->attention_norm = nn_norm_load(p, NN_NORM_LAYER_BIAS, size, eps,
                                             "encoder.layer.%d.%s", i, a->attention_norm);
        layer->up = nn_linear_load(p, size, inner, true, "encoder.layer.%d.intermediate.dense", i);
        layer->down = nn_linear_load(p, inner, size, true, "encoder.layer.%d.output.dense", i);
        layer->ffn_norm =
            nn_norm_load(p, NN_NORM_LAYER_BIAS, size, eps, "encoder.layer.%d.output.LayerNorm", i);
    }
}

/* A classifier is there or not; a pooler that no classifier needs is dropped. */
static void load_head(NnParams *p, Encoder *e) {
    bool own = e->arch->head == HEAD_OWN;
    const char *last = own ? "classifier.out_proj" : "classifier";
    int size = e->hidden_size;
    if (!nn_params_has(p, "%s.weight", last)) {
        nn_params_remove_prefix(p, "pooler.");
        return;
    }
    e->labels =
        mx_dim(nn_params_peek(p, own ? "classifier.out_proj.weight" : "classifier.weight"), 0);
    e->pooler = nn_linear_load(p, size, size, true, own ? "classifier.dense" : "pooler.dense");
    e->classifier = nn_linear_load(p, size, e->labels, true, "%s", last);
    if (own) nn_params_remove_prefix(p, "pooler.");
}

/* T5's buckets (Raffel et al., 2019): near distances have one each, far ones
 * share logarithmically; one half of the buckets looks ahead. */
static int bucket_of(int distance, int buckets) {
    int half = buckets / 2, bucket = distance < 0 ? half : 0, far = abs(distance), exact = half / 2;
    if (far < exact) return bucket + far;
    double share = log((double)far / exact) / log(128.0 / exact);
    return bucket + BASE_MIN(half - 1, exact + (int)(share * (half - exact)));
}

static void load_relative_bias(NnParams *p, const json_t *config, Encoder *e) {
    int buckets = nn_config_int(p, config, "relative_attention_num_buckets", 32);
    if (buckets < 4 || e->max_positions > MAX_RELATIVE) {
        nn_params_fail(p, ERROR_INPUT,
                       "config.json: %d relative buckets over %d positions are impossible", buckets,
                       e->max_positions);
        return;
    }
    Embedding table = nn_embedding_load(p, buckets, e->heads, "encoder.relative_attention_bias");
    if (nn_params_failed(p)) return;
    int span = 2 * e->max_positions - 1;
    int *rows = nn_params_alloc(p, (size_t)span, sizeof *rows);
    for (int i = 0; i < span; i++) rows[i] = bucket_of(e->max_positions - 1 - i, buckets);
    mx_scope s = mx_open();
    mlx_array index = mx_from_i32(rows, MX_SHAPE(span));
    e->by_distance = nn_params_adopt(p, nn_embedding(&table, index));
    mx_drop(s);
}

Encoder *model_encoder_load(NnParams *params, const json_t *config, Error *err) {
    const char *type = nn_config_string(params, config, "model_type", "");
    const EncoderArch *arch = model_encoder_arch(type);
    if (!arch) {
        base_fail(err, ERROR_UNSUPPORTED, "model type \"%s\" is not an encoder that is known",
                  type);
        return NULL;
    }
    Encoder *e = nn_params_alloc(params, 1, sizeof *e);
    e->arch = arch;
    read_sizes(params, config, e);
    int inner = nn_config_size(params, config, "intermediate_size");
    float eps = (float)nn_config_number(params, config, "layer_norm_eps", 1e-12);
    if (nn_params_failed(params)) {
        nn_params_check(params, err);
        return NULL;
    }
    e->layers = nn_params_alloc(params, (size_t)e->n_layers, sizeof *e->layers);

    clean_names(params, arch);
    e->words =
        nn_embedding_load(params, e->vocab_size, e->hidden_size, "embeddings.word_embeddings");
    e->positions = nn_embedding_load(params, e->max_positions, e->hidden_size,
                                     "embeddings.position_embeddings");
    if (arch->token_types) {
        int types = nn_config_int(params, config, "type_vocab_size", 2);
        e->types =
            nn_embedding_load(params, types, e->hidden_size, "embeddings.token_type_embeddings");
    }
    if (arch->relative_bias) {
        load_relative_bias(params, config, e);
    }
    e->norm = nn_norm_load(params, NN_NORM_LAYER_BIAS, e->hidden_size, eps, "embeddings.LayerNorm");
    load_layers(params, e, inner, eps);
    load_head(params, e);
    return nn_params_check(params, err) ? e : NULL;
}
