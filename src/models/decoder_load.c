/* From a config, a family's row and a parameter tree to a decoder: tensors get the
 * names of the row, sizes are checked, each tensor is taken under its name. */
#include "models/decoder.h"

#include <math.h>
#include <string.h>

/* ---- paths ------------------------------------------------------------------------------ */

const char *model_outer_path(const Loading *l, const char *name) {
    if (l->prefix[0] == '\0') return name;
    size_t bytes = strlen(l->prefix) + strlen(name) + 1;
    char *path = nn_params_alloc(l->params, bytes, 1);
    snprintf(path, bytes, "%s%s", l->prefix, name);
    return path;
}

const char *model_path(const Loading *l, int layer, const char *name) {
    size_t bytes = strlen(l->prefix) + strlen(l->arch.layers) + strlen(name) + 16;
    char *path = nn_params_alloc(l->params, bytes, 1);
    snprintf(path, bytes, "%s%s.%d.%s", l->prefix, l->arch.layers, layer, name);
    return path;
}

/* ---- scalars and flags -------------------------------------------------------------------- */

static void read_scalars(const Loading *l, Decoder *d) {
    const DecoderArch *a = &l->arch;
    bool root = a->embed_rule == EMBED_SQRT_HIDDEN ||
                (a->embed_rule == EMBED_SQRT_IF_MUP &&
                 nn_config_bool(l->params, l->config, "mup_enabled", true));
    d->embed_scale = root ? sqrt(d->hidden_size) : model_scalar(l, a->embed_scale);
    double residual = model_scalar(l, a->residual_scale);
    if (a->residual_rule == RESIDUAL_DEPTH) residual /= sqrt(d->n_layers);
    d->residual_scale = (float)residual;
    d->logit_scale = model_scalar(l, a->logit_scale) / model_scalar(l, a->logit_divisor);
    if (a->logit_rule == LOGIT_BASE_WIDTH && !model_flag(l, a->tied)) {
        d->logit_scale = nn_config_number(l->params, l->config, "dim_model_base", d->hidden_size) /
                         d->hidden_size;
    }
    d->logit_softcap = model_scalar(l, a->logit_softcap);
}

static const struct {
    RowNorm row;
    NnNormKind plain, biased;
} norm_kinds[] = {
    {NORM_RMS, NN_NORM_RMS, NN_NORM_RMS},
    {NORM_RMS_PLUS_ONE, NN_NORM_RMS_PLUS_ONE, NN_NORM_RMS_PLUS_ONE},
    {NORM_LAYER, NN_NORM_LAYER, NN_NORM_LAYER_BIAS},
    {NORM_LAYER_PLUS_ONE, NN_NORM_LAYER_BIAS_PLUS_ONE, NN_NORM_LAYER_BIAS_PLUS_ONE},
    {NORM_RMS_UNIT, NN_NORM_RMS_UNIT, NN_NORM_RMS_UNIT},
    {NORM_LAYER_UNIT, NN_NORM_LAYER_UNIT, NN_NORM_LAYER_UNIT},
};

static void read_flags(Loading *l, Decoder *d) {
    const DecoderArch *a = &l->arch;
    d->parallel = model_flag(l, a->parallel);
    d->two_norms = model_flag(l, a->two_norms);
    d->clip_residual = model_flag(l, a->clip_residual);
    l->activation = a->activation;
    if (a->activation_key[0] != '\0') {
        const char *name = nn_config_string(l->params, l->config, a->activation_key, NULL);
        if (name && !nn_activation_parse(name, &l->activation)) {
            nn_params_fail(l->params, ERROR_UNSUPPORTED,
                           "config.json: activation \"%s\" is not supported", name);
        }
    }
    bool biased = model_flag(l, a->norm_bias);
    for (size_t i = 0; i < BASE_COUNT(norm_kinds); i++) {
        if (norm_kinds[i].row == a->norm)
            l->norm = biased ? norm_kinds[i].biased : norm_kinds[i].plain;
    }
    l->eps = (float)model_scalar(l, a->norm_eps);
    l->qkv_bias = model_flag(l, a->qkv_bias);
    l->o_bias = model_flag(l, a->o_bias);
    l->ffn_bias = model_flag(l, a->ffn_bias);
}

/* ---- layers --------------------------------------------------------------------------------- */

static bool load_norm(const Loading *l, const Decoder *d, int layer, const char *name, Norm *norm) {
    if (!name || name[0] == '\0') return false;
    *norm =
        nn_norm_load(l->params, l->norm, d->hidden_size, l->eps, "%s", model_path(l, layer, name));
    return true;
}

static Mixer load_mixer(const Loading *l, const Decoder *d, int i) {
    if (d->layers[i].attention == SUB_LINEAR) return model_linear_mixer_load(l, d, i);
    switch (l->arch.mixer) {
    case MIXER_LATENT:
    case MIXER_LATENT_EXPANDED: return model_latent_load(l, d, i);
    case MIXER_ATTENTION:
    case MIXER_BLOCKS: break;
    }
    return model_attention_load(l, d, i);
}

static void load_feed_forward(const Loading *l, const Decoder *d, int i, DecoderLayer *layer) {
    const DecoderArch *a = &l->arch;
    const char *path = model_path(l, i, a->ffn_path);
    if (layer->ffn_block == SUB_LINEAR) {
        layer->ffn_linear = nn_linear_load(l->params, d->hidden_size, d->hidden_size, l->ffn_bias,
                                           "%s.linear", path);
    } else if (model_is_moe(l, d, i)) {
        layer->moe = model_moe_load(l, d, i);
    } else {
        model_glu_load(l, path, d->hidden_size, model_ffn_width(l, d, i), i, a->ffn_sub,
                       &layer->dense);
    }
}

static void load_layer(const Loading *l, const Decoder *d, int i, DecoderLayer *layer) {
    const DecoderArch *a = &l->arch;
    if (layer->attention != SUB_ABSENT) {
        layer->has_attention_in = load_norm(l, d, i, a->attention_in, &layer->attention_in);
        layer->has_attention_out = load_norm(l, d, i, a->attention_out, &layer->attention_out);
        layer->mixer = load_mixer(l, d, i);
    }
    if (layer->ffn_block != SUB_ABSENT) {
        bool own_norm = !d->parallel || d->two_norms;
        layer->has_ffn_in = load_norm(l, d, i, own_norm ? a->ffn_in : NULL, &layer->ffn_in);
        layer->has_ffn_out = load_norm(l, d, i, a->ffn_out, &layer->ffn_out);
        load_feed_forward(l, d, i, layer);
    }
}

/* ---- ends -------------------------------------------------------------------------------------
 */

/* A file that states nothing about tying and has a head of its own is untied. */
static bool is_tied(const Loading *l, const char *head) {
    const DecoderArch *a = &l->arch;
    bool has_head = nn_params_has(l->params, "%s.weight", head);
    if (a->tied.key && !model_present(l->config, a->tied.key) && (has_head || a->tied.value))
        return !has_head;
    /* MiniCPM's head is its embedding where the file has none. */
    if (a->logit_rule == LOGIT_BASE_WIDTH && !has_head) return true;
    return model_flag(l, a->tied);
}

static void load_ends(const Loading *l, Decoder *d) {
    NnParams *p = l->params;
    const DecoderArch *a = &l->arch;
    const char *head = model_outer_path(l, a->head);
    d->embed =
        nn_embedding_load(p, d->vocab_size, d->hidden_size, "%s", model_outer_path(l, a->embed));
    if (a->positions) {
        static const char *const spellings[] = {"n_positions", "max_position_embeddings", NULL};
        d->has_positions = true;
        d->n_positions = model_size(l, spellings, 0);
        d->positions = nn_embedding_load(p, d->n_positions, d->hidden_size, "%s",
                                         model_outer_path(l, a->positions));
    }
    d->has_embed_norm = model_flag(l, a->embed_norm);
    if (d->has_embed_norm)
        d->embed_norm = nn_norm_load(p, l->norm, d->hidden_size, l->eps, "%s", a->embed);
    d->norm =
        nn_norm_load(p, l->norm, d->hidden_size, l->eps, "%s", model_outer_path(l, a->final_norm));
    d->tied = is_tied(l, head);
    if (d->tied) {
        nn_params_remove_prefix(p, model_outer_path(l, "lm_head."));
    } else {
        d->head = nn_linear_load(p, d->hidden_size, d->vocab_size, model_flag(l, a->head_bias),
                                 "%s", head);
    }
}

static Decoder *load(Loading *l) {
    NnParams *p = l->params;
    Decoder *d = nn_params_alloc(p, 1, sizeof *d);
    model_read_sizes(l, d);
    read_scalars(l, d);
    read_flags(l, d);
    if (nn_params_failed(p)) return NULL;
    model_sanitize_tensors(l);
    model_stack_experts(l, d->n_layers);
    const json_t *packing = json_object_get(l->config, "quantization_config");
    const char *method = json_string_value(json_object_get(packing, "quant_method"));
    if (model_flag(l, l->arch.ternary) || (method && strcmp(method, "bitnet") == 0))
        model_special_ternary(&(Sanitizer){.params = p, .loading = l});

    d->layers_prefix = model_outer_path(l, l->arch.layers);
    d->layers = nn_params_alloc(p, (size_t)d->n_layers, sizeof *d->layers);
    model_read_layers(l, d);
    if (nn_params_failed(p)) return NULL;
    load_ends(l, d);
    for (int i = 0; i < d->n_layers && !nn_params_failed(p); i++)
        load_layer(l, d, i, &d->layers[i]);
    return d;
}

static bool begin(Loading *l, NnParams *params, const json_t *config, Error *err) {
    *l = (Loading){.params = params};
    if (!model_decoder_arch(config, &l->arch)) {
        const char *type = json_string_value(json_object_get(config, "model_type"));
        return base_fail(err, ERROR_UNSUPPORTED, "model type \"%s\" is not a decoder that is known",
                         type ? type : "");
    }
    l->config = model_decoder_flatten(config, &l->arch);
    l->prefix = l->arch.wrapper ? l->arch.wrapper : "";
    return true;
}

Decoder *model_decoder_load(NnParams *params, const json_t *config, Error *err) {
    Loading l;
    if (!begin(&l, params, config, err)) return NULL;
    Decoder *d = load(&l);
    json_decref(l.config);
    return nn_params_check(params, err) ? d : NULL;
}

void model_layer_load(NnParams *params, const json_t *config, const Decoder *d, int i,
                      DecoderLayer *layer) {
    Loading l;
    Error err = {0};
    if (!begin(&l, params, config, &err)) return;
    Decoder flags = *d;
    read_flags(&l, &flags);
    *layer = d->layers[i];
    load_layer(&l, d, i, layer);
    json_decref(l.config);
}

bool model_decoder_sanitize(NnParams *params, const json_t *config, Error *err) {
    Loading l;
    if (!begin(&l, params, config, err)) return false;
    Decoder sizes = {0};
    model_read_sizes(&l, &sizes);
    model_sanitize_tensors(&l);
    if (!model_flag(&l, l.arch.moe.listed)) model_stack_experts(&l, sizes.n_layers);
    json_decref(l.config);
    return !nn_params_failed(params) || nn_params_check(params, err);
}

bool model_decoder_keeps_8_bits(const json_t *config, const char *path) {
    DecoderArch arch;
    return model_decoder_arch(config, &arch) && arch.eight_bits &&
           base_ends_with(path, arch.eight_bits);
}

bool model_decoder_keeps_dtype(const json_t *config, const char *name) {
    DecoderArch arch;
    return model_decoder_arch(config, &arch) && arch.keeps_dtype && strstr(name, arch.keeps_dtype);
}
