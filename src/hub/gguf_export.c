/* From a model in mlx-lm's terms to llama.cpp's: config.json as metadata, modules as
 * tensors. The tables of names and keys are those by which GGUF files are read. */
#include "hub/gguf_write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- settings ----------------------------------------------------------------------- */

static char *key_of(const HubGgufOut *out, const char *key) {
    return base_format("%s.%s", out->arch->name, key);
}

static void set_size(HubGgufOut *out, const char *key, int64_t value) {
    char *full = key_of(out, key);
    hub_gguf_out_size(out, full, (uint32_t)value);
    free(full);
}

static void set_float(HubGgufOut *out, const char *key, double value) {
    char *full = key_of(out, key);
    hub_gguf_out_float(out, full, (float)value);
    free(full);
}

static double number_of(const json_t *object, const char *key, double fallback) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

static int64_t size_of(const HubGgufOut *out, const char *key) {
    return json_integer_value(json_object_get(out->config, key));
}

static int64_t head_dim(const HubGgufOut *out) {
    const int64_t said = size_of(out, "head_dim"), heads = size_of(out, "num_attention_heads");
    return said > 0 || heads <= 0 ? said : size_of(out, "hidden_size") / heads;
}

/* Where newer tools say how positions rotate; by kinds of layers, the one that sees all. */
static const json_t *rope_parameters(const HubGgufOut *out) {
    const json_t *all = json_object_get(out->config, "rope_parameters"),
                 *full = json_object_get(all, "full_attention");
    return json_is_object(full) ? full : all;
}

/* A setting under its name, or where newer tools put it. */
static const json_t *setting(const HubGgufOut *out, const char *key) {
    const json_t *value = json_object_get(out->config, key);
    if (!json_is_number(value) && strcmp(key, "num_experts") == 0)
        value = json_object_get(out->config, "num_local_experts");
    if (!json_is_number(value)) value = json_object_get(rope_parameters(out), key);
    return json_is_number(value) ? value : NULL;
}

static double setting_number(const HubGgufOut *out, const char *key, double fallback) {
    const json_t *value = setting(out, key);
    return value ? json_number_value(value) : fallback;
}

/* The numbers that both sides name; those that others below have to say are passed over. */
static bool set_keys(HubGgufOut *out, Error *err) {
    size_t count;
    const GgufKey *keys = gguf_keys(&count);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = setting(out, keys[i].config);
        if (!(keys[i].archs & out->arch->bit) || strcmp(keys[i].config, "head_dim") == 0 ||
            base_starts_with(keys[i].key, "rope."))
            continue;
        if (!value) {
            if (!keys[i].required) continue;
            return base_fail(err, ERROR_INPUT, "config.json: %s is missing", keys[i].config);
        }
        if (keys[i].kind == KEY_FLOAT)
            set_float(out, keys[i].key, json_number_value(value));
        else
            set_size(out, keys[i].key, json_integer_value(value));
    }
    const int64_t head = head_dim(out);
    if (head <= 0 || head > 1 << 20)
        return base_fail(err, ERROR_INPUT, "config.json: num_attention_heads is missing");
    if (size_of(out, "num_key_value_heads") <= 0)
        set_size(out, "attention.head_count_kv", size_of(out, "num_attention_heads"));
    set_size(out, "attention.key_length", head);
    set_size(out, "attention.value_length", head);
    set_size(out, "rope.dimension_count",
             (int64_t)((double)head * setting_number(out, "partial_rotary_factor", 1)));
    /* llama.cpp asks every Phi for a window; 0 is none. */
    if (out->arch->bit == GGUF_PHI3 && !setting(out, "sliding_window"))
        set_size(out, "attention.sliding_window", 0);
    return true;
}

static void add_factors(HubGgufOut *out, const char *name, const float *factors, size_t count) {
    mlx_array array = mx_from_f32(factors, MX_SHAPE((int)count));
    gguf_tensor_add(
        out,
        (GgufTensor){
            .packing = gguf_packing("f32"), .array = array, .shape = {(int)count}, .ndim = 1},
        name);
}

static bool add_factor_list(HubGgufOut *out, const char *name, const json_t *list, Error *err) {
    const size_t count = json_array_size(list);
    if (count == 0 || count != (size_t)head_dim(out) / 2)
        return base_fail(err, ERROR_INPUT, "config.json: rope_scaling has no list of %d factors",
                         (int)head_dim(out) / 2);
    float *factors = base_calloc(count, sizeof *factors);
    for (size_t i = 0; i < count; i++)
        factors[i] = (float)json_number_value(json_array_get(list, i));
    add_factors(out, name, factors, count);
    free(factors);
    return true;
}

static bool rope_llama3(HubGgufOut *out, const json_t *scaling, double base, Error *err) {
    const size_t count = (size_t)head_dim(out) / 2;
    float *factors = base_calloc(count + 1, sizeof *factors);
    gguf_llama3_factors(
        base, number_of(scaling, "factor", 1), number_of(scaling, "low_freq_factor", 1),
        number_of(scaling, "high_freq_factor", 4),
        number_of(scaling, "original_max_position_embeddings", 8192), factors, count);
    add_factors(out, "rope_freqs.weight", factors, count);
    free(factors);
    (void)err;
    return true;
}

static void rope_type(HubGgufOut *out, const char *type) {
    char *full = key_of(out, "rope.scaling.type");
    hub_gguf_out_text(out, full, type);
    free(full);
}

static bool rope_linear(HubGgufOut *out, const json_t *scaling, double base, Error *err) {
    (void)base;
    (void)err;
    rope_type(out, "linear");
    set_float(out, "rope.scaling.factor", number_of(scaling, "factor", 1));
    return true;
}

static bool rope_yarn(HubGgufOut *out, const json_t *scaling, double base, Error *err) {
    (void)base;
    (void)err;
    rope_type(out, "yarn");
    set_float(out, "rope.scaling.factor", number_of(scaling, "factor", 1));
    set_size(out, "rope.scaling.original_context_length",
             (int64_t)number_of(scaling, "original_max_position_embeddings",
                                number_of(out->config, "max_position_embeddings", 0)));
    return true;
}

/* Phi's: a list of factors for short texts and one for long ones. */
static bool rope_long(HubGgufOut *out, const json_t *scaling, double base, Error *err) {
    const double context = setting_number(out, "max_position_embeddings", 0),
                 original = setting_number(out, "original_max_position_embeddings", context),
                 ratio = original > 1 ? context / original : 1;
    (void)base;
    set_size(out, "rope.scaling.original_context_length", (int64_t)original);
    set_float(out, "rope.scaling.attn_factor",
              ratio > 1 ? sqrt(1 + log(ratio) / log(original)) : 1);
    return add_factor_list(out, "rope_factors_long.weight", json_object_get(scaling, "long_factor"),
                           err) &&
           add_factor_list(out, "rope_factors_short.weight",
                           json_object_get(scaling, "short_factor"), err);
}

static bool set_rope(HubGgufOut *out, Error *err) {
    static const struct {
        const char *type;
        bool (*set)(HubGgufOut *, const json_t *, double, Error *);
    } kinds[] = {{"llama3", rope_llama3},
                 {"linear", rope_linear},
                 {"yarn", rope_yarn},
                 {"longrope", rope_long},
                 {"su", rope_long}};
    const json_t *scaling = json_object_get(out->config, "rope_scaling");
    if (!json_is_object(scaling)) scaling = rope_parameters(out);
    const double base = setting_number(out, "rope_theta", 10000);
    set_float(out, "rope.freq_base", base);
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type) type = json_string_value(json_object_get(scaling, "type"));
    if (!type || strcmp(type, "default") == 0) return true;
    for (size_t i = 0; i < BASE_COUNT(kinds); i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].set(out, scaling, base, err);
    return base_fail(err, ERROR_UNSUPPORTED,
                     "config.json: rope_scaling of type \"%.32s\" has no place in a GGUF", type);
}

/* Mistral's window of attention is not among what llama.cpp reads of a llama. */
static void warn_of_window(const HubGgufOut *out) {
    const int64_t window = size_of(out, "sliding_window");
    if (out->arch->bit == GGUF_LLAMA && window > 0 &&
        window < size_of(out, "max_position_embeddings"))
        base_log(LOG_WARNING,
                 "llama.cpp knows no sliding window in this architecture: texts longer than %lld "
                 "tokens will continue otherwise there",
                 (long long)window);
}

/* Whether layer i is what llama.cpp takes it for: every pattern'th sees all, or has no
 * positions. */
static bool layer_is(const HubGgufOut *out, int i, int pattern) {
    const bool last = (i + 1) % pattern == 0;
    const json_t *types = json_object_get(out->config, "layer_types"),
                 *rotating = json_object_get(out->config, "no_rope_layers");
    if (out->arch->bit == GGUF_SMOLLM3) {
        const json_t *value = json_array_get(rotating, (size_t)i);
        if (value) return (json_is_true(value) || json_integer_value(value) != 0) != last;
        return (int)setting_number(out, "no_rope_layer_interval", pattern) == pattern;
    }
    const char *type = json_string_value(json_array_get(types, (size_t)i));
    if (type) return (strcmp(type, "sliding_attention") != 0) == last;
    return (int)setting_number(out, "sliding_window_pattern",
                               setting_number(out, "_sliding_window_pattern", pattern)) == pattern;
}

/* What a file cannot say must be as llama.cpp supposes it. */
static bool check_supposed(HubGgufOut *out, Error *err) {
    const int pattern = out->arch->every;
    const int layer_count = (int)size_of(out, "num_hidden_layers");
    for (int i = 0; pattern > 0 && i < layer_count; i++)
        if (!layer_is(out, i, pattern))
            return base_fail(
                err, ERROR_UNSUPPORTED,
                "layer %d is of another kind than llama.cpp takes it for, which counts "
                "every %dth of this architecture",
                i, pattern);
    if (out->arch->bit != GGUF_GEMMA3) return true;
    const int64_t supposed = gguf_query_scalar(out->arch, layer_count, size_of(out, "hidden_size"),
                                               size_of(out, "num_attention_heads"), head_dim(out));
    if ((int64_t)setting_number(out, "query_pre_attn_scalar", 256) != supposed)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "config.json: llama.cpp takes query_pre_attn_scalar to be %lld",
                         (long long)supposed);
    const json_t *local = json_object_get(
        json_object_get(json_object_get(out->config, "rope_parameters"), "sliding_attention"),
        "rope_theta");
    const double theta = json_is_number(local) ? json_number_value(local)
                                               : setting_number(out, "rope_local_base_freq", 10000);
    if (theta != 10000) set_float(out, "rope.freq_base_swa", theta);
    return true;
}

HubGgufOut *hub_gguf_out_new(const json_t *config, Error *err) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const GgufArch *arch = type ? gguf_arch_for(type) : NULL;
    if (!arch || !(arch->bit & GGUF_DECODERS)) {
        base_fail(err, ERROR_UNSUPPORTED, "a %.40s model cannot become a GGUF",
                  type ? type : "nameless");
        base_hint(err, "llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, phi3, gemma, gemma2, "
                       "gemma3_text, olmo2, granite, smollm3, cohere and cohere2 can.");
        return NULL;
    }
    HubGgufOut *out = base_calloc(1, sizeof *out);
    out->arch = arch;
    out->config = config;
    hub_gguf_out_text(out, "general.architecture", arch->name);
    hub_gguf_out_size(out, "general.quantization_version", 2);
    mx_scope scope = mx_open();
    const bool good = set_keys(out, err) && set_rope(out, err) && check_supposed(out, err);
    mx_drop(scope);
    if (good) warn_of_window(out);
    if (good) return out;
    hub_gguf_out_free(out);
    return NULL;
}

/* ---- tensors ----------------------------------------------------------------------------- */

typedef struct Planning {
    HubGgufOut *out;
    const HubTensor *tensors;
    size_t count;
    const GgufPacking *wanted; /* NULL: as the values are, else f16 */
    size_t uses[64];           /* of a type, by its number */
} Planning;

static mlx_array find(const Planning *planning, const char *path, const char *leaf) {
    char *name = base_format("%s.%s", path, leaf);
    mlx_array found = {0};
    for (size_t i = 0; i < planning->count && !found.ctx; i++)
        if (planning->tensors[i].name && strcmp(planning->tensors[i].name, name) == 0)
            found = planning->tensors[i].array;
    free(name);
    return found;
}

static bool equals_scaled(mlx_array biases, mlx_array scales, double factor) {
    const int flat[] = {-1};
    mlx_array same = mx_equal(biases, mx_mul_scalar(scales, factor));
    return mx_item_int(mx_min(mx_reshape(mx_cast(same, MLX_INT32), flat, 1), 0, false)) == 1;
}

/* The type that holds the packed values as they are, or NULL. */
static const GgufPacking *exact_type(MxQuant quant, mlx_array scales, mlx_array biases) {
    if (strcmp(quant.mode, "mxfp4") == 0) return gguf_packing("mxfp4");
    if (strcmp(quant.mode, "affine") != 0 || quant.group_size % GGUF_BLOCK != 0) return NULL;
    if (quant.bits == 8) return equals_scaled(biases, scales, -128) ? gguf_packing("q8_0") : NULL;
    if (quant.bits == 4 && equals_scaled(biases, scales, -8)) return gguf_packing("q4_0");
    return quant.bits <= 4 ? gguf_packing("q4_1") : quant.bits == 5 ? gguf_packing("q5_1") : NULL;
}

static mlx_array permuted(const Planning *planning, const GgufName *name, mlx_array a) {
    const json_t *config = planning->out->config;
    int64_t heads = json_integer_value(json_object_get(config, "num_attention_heads"));
    if (!a.ctx || !(name->flags & (GGUF_PERMUTE_HEADS | GGUF_PERMUTE_KV_HEADS))) return a;
    const int64_t shared = json_integer_value(json_object_get(config, "num_key_value_heads"));
    if ((name->flags & GGUF_PERMUTE_KV_HEADS) && shared > 0) heads = shared;
    if (heads <= 0 || mx_ndim(a) > 2 || mx_dim(a, 0) % (2 * heads) != 0)
        return mx_fail("its %d rows are not of %d heads", mx_dim(a, 0), (int)heads);
    return gguf_swap_halves(a, (int)heads, true);
}

static void plan_weight(Planning *planning, const GgufName *name, const char *path,
                        GgufTensor *tensor) {
    MxQuant quant;
    mlx_array scales = find(planning, path, "scales"), biases = find(planning, path, "biases");
    const bool packed =
        hub_quantization_of(planning->out->config, path, scales.ctx != NULL, &quant);
    const GgufPacking *exact = packed ? exact_type(quant, scales, biases) : NULL,
                      *type = planning->wanted;
    if (packed) tensor->shape[tensor->ndim - 1] = tensor->shape[tensor->ndim - 1] * 32 / quant.bits;
    if (!type) type = exact ? exact : gguf_packing("f16");
    if (tensor->ndim == 1 || (name->flags & GGUF_FLOAT)) type = gguf_packing("f32");
    if (tensor->shape[tensor->ndim - 1] % type->items != 0) type = gguf_packing("f16");
    tensor->packing = type;
    if (tensor->ndim > 1) planning->uses[type->id]++;
    if (packed && exact == type) {
        planning->out->kept++;
        tensor->scales = permuted(planning, name, scales);
        tensor->biases = permuted(planning, name, biases);
        tensor->quant = quant;
    } else if (packed) {
        planning->out->unpacked++;
        if (biases.ctx) { /* or the values would be rounded to the type of the scales first */
            scales = mx_cast(scales, MLX_FLOAT32);
            biases = mx_cast(biases, MLX_FLOAT32);
        }
        tensor->array = mx_dequantize(tensor->array, scales, biases, quant);
    }
    tensor->array = permuted(planning, name, tensor->array);
}

static bool plan_tensor(Planning *planning, const HubTensor *from, Error *err) {
    const char *dot = strrchr(from->name, '.');
    if (dot && (strcmp(dot, ".scales") == 0 || strcmp(dot, ".biases") == 0)) return true;
    char *path = base_strndup(from->name, dot ? (size_t)(dot - from->name) : 0);
    int layer = -1;
    const bool weight = dot && strcmp(dot, ".weight") == 0;
    const GgufName *name = gguf_name_of_module(planning->out->arch, path, &layer);
    GgufTensor tensor = {.array = from->array, .ndim = mx_ndim(from->array)};
    if (!name || !(weight || strcmp(dot, ".bias") == 0) || tensor.ndim < 1 ||
        tensor.ndim > GGUF_TENSOR_DIMS) {
        free(path);
        base_fail(err, ERROR_UNSUPPORTED, "tensor %s has no place in a %s GGUF", from->name,
                  planning->out->arch->name);
        return false;
    }
    for (int d = 0; d < tensor.ndim; d++) tensor.shape[d] = mx_dim(from->array, d);
    if (weight) {
        plan_weight(planning, name, path, &tensor);
    } else {
        tensor.packing = gguf_packing("f32");
        tensor.array = permuted(planning, name, tensor.array);
    }
    if ((name->flags & GGUF_NORM) && (planning->out->arch->bit & GGUF_GEMMAS))
        tensor.array = mx_add_scalar(mx_cast(tensor.array, MLX_FLOAT32), 1);
    char *full = layer < 0 ? base_format("%s%s", name->gguf, dot)
                           : base_format("blk.%d.%s%s", layer, name->gguf, dot);
    const bool good = mx_check(err) || base_error_context(err, "%s", from->name);
    if (good) gguf_tensor_add(planning->out, tensor, full);
    free(full);
    free(path);
    return good;
}

/* What llama.cpp wants to find. */
static bool check_complete(const Planning *planning, Error *err) {
    const HubGgufOut *out = planning->out;
    const int layer_count = (int)BASE_MIN(size_of(out, "num_hidden_layers"), 4096);
    const unsigned other = gguf_has_experts(out->config) ? GGUF_FEED_FORWARD : GGUF_EXPERTS;
    for (int layer = -1; layer < layer_count; layer++) {
        size_t count;
        const GgufName *names = gguf_names(layer >= 0, &count);
        for (size_t i = 0; i < count; i++) {
            if (!(names[i].archs & out->arch->bit) || !names[i].required ||
                (names[i].flags & other))
                continue;
            char *path = layer < 0 ? base_strdup(names[i].model)
                                   : base_format("%s.%d.%s", gguf_layer_stem(out->arch), layer,
                                                 names[i].model);
            const bool there = find(planning, path, "weight").ctx != NULL;
            if (!there) base_fail(err, ERROR_INPUT, "the model has no tensor %s.weight", path);
            free(path);
            if (!there) return false;
        }
    }
    return true;
}

bool hub_gguf_out_model(HubGgufOut *out, const HubTensor *tensors, size_t count, const char *type,
                        Error *err) {
    Planning planning = {.out = out, .tensors = tensors, .count = count};
    if (type) {
        planning.wanted = gguf_packing(type);
        if (!planning.wanted || (planning.wanted->items > 1 && !planning.wanted->round))
            return base_fail(err, ERROR_INPUT,
                             "type \"%.32s\" is not f32, f16, bf16, q8_0, q4_0 or q4_1", type);
    }
    bool good = check_complete(&planning, err);
    for (size_t i = 0; i < count && good; i++) {
        mx_scope scope = mx_open();
        good = !tensors[i].name || plan_tensor(&planning, &tensors[i], err);
        mx_drop(scope);
    }
    if (!good) return false;
    const GgufPacking *packing;
    for (size_t i = 0; (packing = gguf_packing_at(i)) != NULL; i++)
        if (!out->main || planning.uses[packing->id] > planning.uses[out->main->id])
            out->main = packing;
    hub_gguf_out_size(out, "general.file_type", out->main->file_type);
    return true;
}
