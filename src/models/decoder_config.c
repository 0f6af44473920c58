/* What a config.json says about sizes, about each layer's heads, window and
 * rotation, in the many spellings of its authors. */
#include "models/decoder.h"

#include <math.h>
#include <string.h>

enum { MAX_LAYERS = 4096, MAX_WIDTH = 1 << 22 };

/* ---- one value --------------------------------------------------------------------- */

bool model_flag(const Loading *l, Flag f) {
    return f.key ? nn_config_bool(l->params, l->config, f.key, f.value) : f.value;
}

double model_scalar(const Loading *l, Scalar s) {
    if (!s.key) return s.value;
    /* An explicit null switches a cap off. */
    if (json_is_null(json_object_get(l->config, s.key))) return 0;
    return nn_config_number(l->params, l->config, s.key, s.value);
}

const json_t *model_present(const json_t *config, const char *key) {
    const json_t *value = key ? json_object_get(config, key) : NULL;
    return value && !json_is_null(value) ? value : NULL;
}

const json_t *model_layer_value(const json_t *config, const char *key, int i) {
    const json_t *value = model_present(config, key);
    if (!json_is_array(value)) return value;
    value = json_array_get(value, (size_t)i);
    return json_is_null(value) ? NULL : value;
}

int model_size(const Loading *l, const char *const *spellings, int fallback) {
    for (const char *const *key = spellings; *key; key++) {
        if (model_present(l->config, *key)) return nn_config_size(l->params, l->config, *key);
    }
    return fallback > 0 ? fallback : nn_config_size(l->params, l->config, spellings[0]);
}

/* Element i of a list of whole numbers, or the number itself. */
static int layer_int(const Loading *l, const char *key, int i, int fallback) {
    const json_t *value = model_layer_value(l->config, key, i);
    if (!value) return fallback;
    double number = json_number_value(value);
    if (!json_is_number(value) || number != floor(number) || number < 0 || number > MAX_WIDTH) {
        nn_params_fail(l->params, ERROR_INPUT, "config.json: %s must hold whole numbers", key);
        return fallback;
    }
    return (int)number;
}

json_t *model_decoder_flatten(const json_t *config, const DecoderArch *arch) {
    json_t *flat = json_copy((json_t *)config);
    if (arch->wrapper) {
        json_t *text = json_object_get(config, "text_config");
        if (json_is_object(text)) json_object_update(flat, text);
    }
    for (const char *const *key = arch->nested; key && *key; key++) {
        json_t *inner = json_object_get(config, *key);
        if (json_is_object(inner)) json_object_update(flat, inner);
    }
    return flat;
}

/* ---- sizes of the whole -------------------------------------------------------------- */

#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})

void model_read_sizes(const Loading *l, Decoder *d) {
    const Sizes *sizes = &l->arch.sizes;
    d->hidden_size =
        model_size(l, KEYS("hidden_size", "n_embd", "d_model", "model_dim"), sizes->hidden);
    d->n_layers = model_size(
        l, KEYS("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers"),
        sizes->layers);
    d->vocab_size = model_size(l, KEYS("vocab_size", "num_vocab"), sizes->vocab);
    if (l->arch.with_key) /* ai2-olmo pads its table */
        d->vocab_size = model_size(l, KEYS("embedding_size"), d->vocab_size);
    if (d->n_layers > MAX_LAYERS) {
        nn_params_fail(l->params, ERROR_INPUT, "config.json: %d layers are impossible",
                       d->n_layers);
    }
}

/* ---- heads of a layer ------------------------------------------------------------------ */

static int kv_heads(const Loading *l, int layer, int heads) {
    switch (l->arch.kv) {
    case KV_ONE_A_HEAD: return heads;
    case KV_MULTI_QUERY:
        return nn_config_bool(l->params, l->config, "multi_query", true) ? 1 : heads;
    case KV_TILED: {
        int shared = nn_config_int(l->params, l->config, "n_shared_head", 8);
        return shared > 0 ? (heads + shared - 1) / shared : heads;
    }
    case KV_FROM_KEY: break;
    }
    static const char *const keys[] = {"num_key_value_heads", "n_kv_heads", "num_kv_heads",
                                       "num_attention_groups", "kv_n_heads"};
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        if (model_present(l->config, keys[i])) return layer_int(l, keys[i], layer, heads);
    }
    return l->arch.sizes.kv_heads > 0 ? l->arch.sizes.kv_heads : heads;
}

static int query_heads(const Loading *l, int layer) {
    static const char *const lists[] = {"num_query_heads", "num_attention_heads_per_layer"};
    for (size_t i = 0; i < BASE_COUNT(lists); i++) {
        if (model_layer_value(l->config, lists[i], layer)) return layer_int(l, lists[i], layer, 1);
    }
    return model_size(l, KEYS("num_attention_heads", "n_head", "n_heads", "num_heads"),
                      l->arch.sizes.heads);
}

/* Sliding layers may have heads of their own: prefixed keys or an object. */
static void sliding_heads(const Loading *l, DecoderLayer *layer) {
    const json_t *other = model_present(l->config, "attention_other_setting");
    if (json_is_object(other)) {
        layer->heads = nn_config_int(l->params, other, "num_attention_heads", layer->heads);
        layer->kv_heads = nn_config_int(l->params, other, "num_attention_groups", layer->kv_heads);
    }
    const struct {
        const char *key;
        int *size;
    } own[] = {{"swa_num_attention_heads", &layer->heads},
               {"swa_num_key_value_heads", &layer->kv_heads},
               {"swa_head_dim", &layer->head_dim},
               {"swa_v_head_dim", &layer->value_dim}};
    for (size_t i = 0; i < BASE_COUNT(own); i++)
        *own[i].size = nn_config_int(l->params, l->config, own[i].key, *own[i].size);
}

/* Nemotron-NAS: each layer says what its halves are. */
static SubBlock block_part(const Loading *l, int i, const char *part, const json_t **settings) {
    const json_t *block = model_layer_value(l->config, "block_configs", i);
    *settings = json_object_get(block, part);
    if (!json_is_object(*settings)) {
        nn_params_fail(l->params, ERROR_INPUT, "config.json: block_configs[%d] lacks %s", i, part);
        return SUB_ABSENT;
    }
    if (nn_config_bool(l->params, *settings, "no_op", false)) return SUB_ABSENT;
    return nn_config_bool(l->params, *settings, "replace_with_linear", false) ? SUB_LINEAR
                                                                              : SUB_PRESENT;
}

static void read_heads(const Loading *l, Decoder *d, int i) {
    DecoderLayer *layer = &d->layers[i];
    layer->heads = query_heads(l, i);
    layer->kv_heads = kv_heads(l, i, layer->heads);
    layer->attention = layer->ffn_block = SUB_PRESENT;
    if (l->arch.mixer == MIXER_BLOCKS) {
        const json_t *attention, *ffn;
        layer->attention = block_part(l, i, "attention", &attention);
        layer->ffn_block = block_part(l, i, "ffn", &ffn);
        int group = nn_config_int(l->params, attention, "n_heads_in_group", 1);
        layer->kv_heads = group > 0 ? layer->heads / group : 0;
    }
    int even = l->arch.sizes.head_dim ? l->arch.sizes.head_dim : d->hidden_size / layer->heads;
    layer->head_dim = nn_config_int(l->params, l->config, "head_dim", even);
    layer->value_dim = nn_config_int(l->params, l->config, "v_head_dim", layer->head_dim);
    /* The two that project to kv_channels a head, whatever hidden_size is. */
    if (l->arch.width == WIDTH_HALF)
        layer->head_dim = layer->value_dim =
            nn_config_int(l->params, l->config, "kv_channels", layer->head_dim);
    if (layer->sliding) sliding_heads(l, layer);
    if (layer->kv_heads < 1 || layer->heads < 1 || layer->heads % layer->kv_heads != 0) {
        nn_params_fail(l->params, ERROR_INPUT,
                       "config.json: %d attention heads cannot share %d key-value heads",
                       layer->heads, layer->kv_heads);
    }
    if (layer->head_dim < 1 || layer->value_dim < 1 ||
        (int64_t)layer->heads * BASE_MAX(layer->head_dim, layer->value_dim) > MAX_WIDTH) {
        nn_params_fail(l->params, ERROR_INPUT,
                       "config.json: %d heads of %d features are impossible", layer->heads,
                       layer->head_dim);
    }
}

/* ---- widths and experts ----------------------------------------------------------------- */

int model_expert_count(const Loading *l, int layer) {
    static const char *const keys[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                       "moe_num_experts"};
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        if (json_object_get(l->config, keys[i])) return layer_int(l, keys[i], layer, 0);
    }
    return l->arch.sizes.experts;
}

int model_experts_active(const Loading *l, int layer) {
    static const char *const keys[] = {"num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k"};
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        if (model_present(l->config, keys[i])) return layer_int(l, keys[i], layer, 1);
    }
    return BASE_MAX(l->arch.sizes.active, 1);
}

/* Is i among the comma-separated numbers of `text`? */
static bool enumerates(const char *text, int i) {
    char word[16];
    size_t length = (size_t)snprintf(word, sizeof word, "%d", i);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at += length) {
        bool starts = at == text || at[-1] < '0' || at[-1] > '9';
        if (starts && (at[length] < '0' || at[length] > '9')) return true;
    }
    return false;
}

static bool list_has(const json_t *list, int number) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (json_integer_value(json_array_get(list, i)) == number) return true;
    }
    return false;
}

/* Ernie writes a first and last layer, or a list of them. */
static int extreme(const Loading *l, const char *key, int fallback, bool largest) {
    const json_t *value = model_present(l->config, key);
    if (!json_is_array(value)) return nn_config_int(l->params, l->config, key, fallback);
    int best = (int)json_integer_value(json_array_get(value, 0));
    for (size_t i = 1; i < json_array_size(value); i++) {
        int other = (int)json_integer_value(json_array_get(value, i));
        best = largest ? BASE_MAX(best, other) : BASE_MIN(best, other);
    }
    return best;
}

bool model_is_moe(const Loading *l, const Decoder *d, int i) {
    const MoeArch *moe = &l->arch.moe;
    if (!moe->router) return false;
    int experts = model_expert_count(l, i);
    if (experts < 1) return false;
    const char *type = json_string_value(model_layer_value(l->config, "mlp_layer_types", i));
    if (type) return strcmp(type, "sparse") == 0; /* newer configs say it for each layer */
    const json_t *value = model_layer_value(l->config, moe->layers_key, i);
    switch (moe->layers) {
    case MOE_AFTER_DENSE: {
        int every = nn_config_int(l->params, l->config, "moe_layer_freq", 1);
        int dense = nn_config_int(l->params, l->config, moe->layers_key, 0);
        return i >= dense && (every < 2 || i % every == 0);
    }
    case MOE_SPARSE_STEP: {
        int step = nn_config_int(l->params, l->config, "decoder_sparse_step", 1);
        return !list_has(model_present(l->config, "mlp_only_layers"), i) &&
               (step < 2 || (i + 1) % step == 0);
    }
    case MOE_LIST: return json_is_true(value) || json_integer_value(value) == 1;
    case MOE_ERNIE: {
        int every = nn_config_int(l->params, l->config, "moe_layer_interval", 1);
        return (every < 2 || (i + 1) % every == 0) &&
               i >= extreme(l, "moe_layer_start_index", 0, false) &&
               i <= extreme(l, "moe_layer_end_index", d->n_layers - 1, true);
    }
    case MOE_INTERLEAVED: {
        int step = nn_config_int(l->params, l->config, moe->layers_key, 1);
        return step < 2 || i % step == step - 1;
    }
    case MOE_ENUMERATED:
        return json_is_string(value) ? enumerates(json_string_value(value), i) : i > 0;
    case MOE_BUT_FIRST: return i > 0;
    case MOE_EVERYWHERE: break;
    }
    return experts > 1;
}

static int rounded_up(double width, int multiple) {
    int whole = (int)width;
    return whole % multiple == 0 ? whole : whole + multiple - whole % multiple;
}

/* OpenELM: the nearest multiple, but never a tenth below. */
static int openelm_width(const Loading *l, const Decoder *d, int i) {
    int divisor = nn_config_size(l->params, l->config, "ffn_dim_divisor");
    double wanted =
        json_number_value(model_layer_value(l->config, "ffn_multipliers", i)) * d->hidden_size;
    int width = BASE_MAX(divisor, (int)(wanted + divisor / 2.0) / divisor * divisor);
    return width < 0.9 * wanted ? width + divisor : width;
}

int model_ffn_width(const Loading *l, const Decoder *d, int i) {
    static const char *const keys[] = {"intermediate_size", "n_inner", "mlp_hidden_size",
                                       "ffn_hidden_size", NULL};
    const char *const own[] = {l->arch.ffn_key, NULL};
    int hidden = d->hidden_size, width = 0;
    switch (l->arch.width) {
    case WIDTH_FOUR_HIDDEN: width = model_size(l, keys, 4 * hidden); break;
    case WIDTH_HALF: {
        int ratio = nn_config_int(l->params, l->config, "mlp_ratio", 0);
        int ready = l->arch.sizes.ffn ? l->arch.sizes.ffn : ratio * hidden;
        width = model_size(l, keys, ready) / 2;
        break;
    }
    case WIDTH_LILLE: width = 256 * (int)lrint((int)(8 * hidden / 3.0) / 256.0); break;
    case WIDTH_OPENELM: width = openelm_width(l, d, i); break;
    case WIDTH_BLOCKS: {
        const json_t *ffn =
            json_object_get(model_layer_value(l->config, "block_configs", i), "ffn");
        double times = round(nn_config_number(l->params, ffn, "ffn_mult", 0) * 1e6) / 1e6;
        width = rounded_up(2 * times * hidden / 3, 256);
        break;
    }
    case WIDTH_FROM_KEY: width = model_size(l, l->arch.ffn_key ? own : keys, l->arch.sizes.ffn);
    }
    if (width < 1 || width > MAX_WIDTH) {
        nn_params_fail(l->params, ERROR_INPUT,
                       "config.json: a feed-forward of %d features is impossible", width);
        return 1;
    }
    return width;
}

/* ---- windows and positions ------------------------------------------------------------ */

/* "LLLG" or 4: the length of the pattern whose last layer sees everything. */
static int pattern_length(const Loading *l) {
    static const char *const keys[] = {"sliding_window_pattern", "_sliding_window_pattern"};
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        const json_t *value = model_present(l->config, keys[i]);
        if (json_is_string(value)) return (int)json_string_length(value);
        if (value) return nn_config_int(l->params, l->config, keys[i], 0);
    }
    return l->arch.default_pattern;
}

static bool layer_slides(const Loading *l, const Decoder *d, int i) {
    WindowRule rule = l->arch.window;
    if (d->window <= 0 || rule == WINDOW_CHUNKS || rule == WINDOW_NEVER) return false;
    const char *type = json_string_value(model_layer_value(l->config, "layer_types", i));
    if (type) return strcmp(type, "sliding_attention") == 0;
    const char *letters = json_string_value(json_object_get(l->config, "sliding_window_pattern"));
    if (letters && letters[0]) return letters[(size_t)i % strlen(letters)] == 'L';
    int pattern = pattern_length(l);
    switch (rule) {
    case WINDOW_ALL: return true;
    case WINDOW_ALTERNATING: return i % 2 == 0;
    case WINDOW_PATTERN: return pattern > 0 && (i + 1) % pattern != 0;
    case WINDOW_HYBRID_LIST:
        return json_integer_value(model_layer_value(l->config, "hybrid_layer_pattern", i)) == 1;
    case WINDOW_LAYER_TYPES:
    case WINDOW_CHUNKS:
    case WINDOW_NEVER: break;
    }
    return false;
}

static bool layer_rotates(const Loading *l, const Decoder *d, int i) {
    const DecoderLayer *layer = &d->layers[i];
    switch (l->arch.position) {
    case POSITION_LEARNED: return false;
    case POSITION_ROPE_SLIDING: return d->window <= 0 || layer->sliding;
    case POSITION_ROPE_LOCAL: return layer->sliding || layer->chunked;
    case POSITION_ROPE_SOME: {
        const json_t *list = model_present(l->config, "no_rope_layers"); /* 1: rotates */
        if (json_array_size(list) == (size_t)d->n_layers) {
            const json_t *value = json_array_get(list, (size_t)i);
            return json_is_true(value) || json_integer_value(value) != 0;
        }
        int interval = nn_config_int(l->params, l->config, "no_rope_layer_interval", 4);
        return interval < 1 || (i + 1) % interval != 0;
    }
    case POSITION_ROPE: break;
    }
    return true;
}

/* How layer i rotates, and over how many features. rope_scaling counts in every family,
 * as in transformers, though mlx_lm reads it in some only. */
static RopeConfig layer_rope(const Loading *l, const DecoderLayer *layer, int i, int *dims) {
    const DecoderArch *a = &l->arch;
    bool modern = json_is_object(json_object_get(l->config, "rope_parameters"));
    bool local = layer->sliding && (a->local_theta > 0);
    double theta = local ? a->local_theta : a->rope_theta;
    RopeConfig rope = nn_rope_config(
        l->config, layer->sliding ? "sliding_attention" : "full_attention", theta, a->rope_partial);
    if (local && !modern)
        rope.theta = nn_config_number(l->params, l->config, a->local_theta_key, theta);
    const json_t *own_theta = model_layer_value(l->config, "rope_theta", i);
    if (json_is_array(json_object_get(l->config, "rope_theta")) && json_is_number(own_theta))
        rope.theta = json_number_value(own_theta);
    const json_t *own_partial = model_layer_value(l->config, "partial_rotary_factors", i);
    if (json_is_number(own_partial)) rope.partial = json_number_value(own_partial);

    bool typed = json_is_object(
        json_object_get(json_object_get(l->config, "rope_parameters"), "sliding_attention"));
    if (layer->sliding && !typed && model_flag(l, a->local_plain)) rope.scaling = NULL;
    const json_t *stretched = model_present(l->config, "yarn_only_types");
    if (json_array_size(stretched) > 0) {
        const char *layer_type = json_string_value(model_layer_value(l->config, "layer_types", i));
        bool named = false;
        for (size_t t = 0; t < json_array_size(stretched); t++) {
            const char *name = json_string_value(json_array_get(stretched, t));
            named =
                named || (name && strcmp(name, layer_type ? layer_type : "full_attention") == 0);
        }
        if (!named) rope.scaling = NULL;
    }

    *dims = (int)(layer->head_dim * rope.partial);
    if (a->rotary_dim && model_present(l->config, a->rotary_dim))
        *dims = nn_config_int(l->params, l->config, a->rotary_dim, *dims);
    if (a->mixer == MIXER_LATENT || a->mixer == MIXER_LATENT_EXPANDED)
        *dims = nn_config_int(l->params, l->config, "qk_rope_head_dim", 64);
    if (a->rope_base == ROPE_BASE_ALPHA) {
        double alpha = nn_config_number(l->params, rope.scaling, "alpha", 1);
        rope.theta *= pow(alpha, *dims / (*dims - 2.0));
        rope.scaling = NULL;
    }
    return rope;
}

typedef struct LoadedRope {
    RopeConfig from;
    int dims;
    Rope rope;
} LoadedRope;

static const Rope *rope_of(const Loading *l, LoadedRope *ropes, int *count, RopeConfig from,
                           int dims) {
    for (int i = 0; i < *count; i++) {
        if (ropes[i].from.theta == from.theta && ropes[i].from.scaling == from.scaling &&
            ropes[i].dims == dims)
            return &ropes[i].rope;
    }
    LoadedRope *made = &ropes[(*count)++];
    bool traditional = model_flag(l, l->arch.rope_traditional);
    *made = (LoadedRope){from, dims, nn_rope_load(l->params, l->config, from, dims, traditional)};
    if (l->arch.rope_base == ROPE_BASE_NEGATIVE) made->rope.scale = -made->rope.scale;
    return &made->rope;
}

void model_read_layers(const Loading *l, Decoder *d) {
    const DecoderArch *a = &l->arch;
    static const char *const window_keys[] = {"sliding_window", "sliding_window_size"};
    d->window = a->default_window;
    for (size_t i = 0; i < BASE_COUNT(window_keys); i++) {
        const json_t *value = json_object_get(l->config, window_keys[i]);
        if (json_is_null(value))
            d->window = 0;
        else if (value)
            d->window = nn_config_int(l->params, l->config, window_keys[i], 0);
    }
    if (a->window == WINDOW_CHUNKS)
        d->chunk = nn_config_size(l->params, l->config, "attention_chunk_size");
    const json_t *types = model_present(l->config, "layer_types");
    if (types && json_array_size(types) != (size_t)d->n_layers) {
        nn_params_fail(l->params, ERROR_INPUT, "config.json: layer_types must list %d layers",
                       d->n_layers);
    }
    for (int i = 0; i < d->n_layers; i++) {
        DecoderLayer *layer = &d->layers[i];
        layer->sliding = layer_slides(l, d, i);
        layer->chunked = a->window == WINDOW_CHUNKS && (i + 1) % 4 != 0;
        read_heads(l, d, i);
    }
    LoadedRope *ropes = nn_params_alloc(l->params, (size_t)d->n_layers, sizeof *ropes);
    int count = 0;
    d->first_full = d->first_sliding = -1;
    for (int i = 0; i < d->n_layers && !nn_params_failed(l->params); i++) {
        DecoderLayer *layer = &d->layers[i];
        layer->rotates = layer_rotates(l, d, i);
        if (layer->rotates && layer->attention == SUB_PRESENT) {
            int dims;
            RopeConfig from = layer_rope(l, layer, i, &dims);
            layer->rope = rope_of(l, ropes, &count, from, dims);
        }
        /* Every layer has its cache, but those of Nemotron-NAS that lost attention. */
        layer->cache = layer->attention == SUB_ABSENT ? -1 : d->n_caches++;
        int *first = layer->sliding ? &d->first_sliding : &d->first_full;
        if (*first < 0 && layer->attention == SUB_PRESENT) *first = layer->cache;
    }
}
