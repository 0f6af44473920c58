/* Precision of a source's modules, by the rules of mlx-lm's convert: which layers
 * are quantised, with how many bits, and what config.json says about it. */
#include "lm/pack.h"

#include "models/models.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

static const char *type_of(const LmSource *source) {
    const char *type = json_string_value(json_object_get(source->config, "model_type"));
    return type ? type : "";
}

/* The module of tensor i if it is a ".weight"; caller frees. */
static char *module_of(const LmSource *source, size_t i) {
    const char *name = source->tensors.items[i].name;
    if (!name || !base_ends_with(name, ".weight")) return NULL;
    return base_strndup(name, strlen(name) - strlen(".weight"));
}

bool lm_pack_cast(LmSource *source, mlx_dtype dtype, Error *err) {
    for (size_t i = 0; i < source->tensors.count; i++) {
        HubTensor *tensor = &source->tensors.items[i];
        if (!mx_is_float(mx_dtype(tensor->array)) ||
            model_decoder_keeps_dtype(source->config, tensor->name))
            continue;
        mx_store(&tensor->array, mx_cast(tensor->array, dtype));
    }
    return mx_check(err);
}

bool lm_pack_module(LmSource *source, const char *path, MxQuant quant, Error *err) {
    static const char *const leaves[] = {"weight", "scales", "biases"};
    mlx_array parts[3] = {{0}, {0}, {0}};
    mx_quantize(lm_tensors_find(&source->tensors, "%s.weight", path), quant, parts);
    if (!mx_check(err)) return base_error_context(err, "%s", path);
    for (size_t p = 0; p < 3; p++) {
        char *name = base_format("%s.%s", path, leaves[p]);
        lm_tensors_add(&source->tensors, name, parts[p]);
        free(name);
    }
    return true;
}

/* ---- which bits ------------------------------------------------------------------- */

static const struct {
    const char *name;
    int low, high;
} recipes[] = {{"mixed_2_6", 2, 6}, {"mixed_3_4", 3, 4}, {"mixed_3_6", 3, 6}, {"mixed_4_6", 4, 6}};

typedef struct Choice {
    const LmConvertOptions *options;
    const char *type;
    MxQuant global;
    int low, high;        /* of the recipe; 0: none */
    int layer_at, layers; /* part of a path that is the layer's number; how many layers */
} Choice;

/* The nth part of a dotted path as a number; 0 when there is none. */
static int part_number(const char *path, int n) {
    for (; n > 0; n--) {
        path = strchr(path, '.');
        if (!path) return 0;
        path++;
    }
    return isdigit((unsigned char)*path) ? (int)strtol(path, NULL, 10) : 0;
}

static bool prepare_recipe(const LmSource *source, Choice *choice, Error *err) {
    const char *recipe = choice->options->recipe;
    for (size_t i = 0; i < BASE_COUNT(recipes); i++)
        if (strcmp(recipes[i].name, recipe) == 0) {
            choice->low = recipes[i].low;
            choice->high = recipes[i].high;
        }
    if (!choice->low)
        return base_fail(err, ERROR_INPUT,
                         "quant predicate \"%.32s\" is not mixed_2_6, mixed_3_4, mixed_3_6 or "
                         "mixed_4_6",
                         recipe);
    if (strcmp(choice->global.mode, "affine") != 0)
        return base_fail(err, ERROR_INPUT, "quant predicates need the mode affine");
    choice->layer_at = -1;
    for (size_t i = 0; i < source->tensors.count; i++) {
        const char *name = source->tensors.items[i].name;
        if (!strstr(name, "down_proj")) continue;
        int part = 0;
        for (const char *at = name; at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL, part++)
            if (isdigit((unsigned char)*at)) {
                if (choice->layer_at < 0) choice->layer_at = part;
                choice->layers = BASE_MAX(choice->layers, part_number(name, part) + 1);
                break;
            }
    }
    if (choice->layer_at < 0)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "this model has no down_proj layers, which quant predicates look for");
    return true;
}

static int recipe_bits(const Choice *choice, const char *path) {
    const int n = choice->layers, i = part_number(path, choice->layer_at), rest = i - n / 8;
    const bool more = i < n / 8 || i >= 7 * n / 8 || (rest % 3 + 3) % 3 == 2;
    const bool value =
        strstr(path, "v_proj") || strstr(path, "v_a_proj") || strstr(path, "v_b_proj");
    if (strstr(path, "lm_head")) return choice->high;
    return more && (value || strstr(path, "down_proj")) ? choice->high : choice->low;
}

/* 1: as *quant says, which goes into the config; 0: stays dense; -1: none fits. */
static int overridden(const Choice *choice, const char *path, MxQuant *quant) {
    int result = -1;
    for (size_t i = 0; i < choice->options->override_count; i++) {
        const char *text = choice->options->overrides[i], *equals = strrchr(text, '=');
        char *pattern = base_strndup(text, (size_t)(equals - text));
        if (strstr(path, pattern)) {
            int bits = (int)strtol(equals + 1, NULL, 10);
            const char *colon = strchr(equals, ':');
            int group = colon ? (int)strtol(colon + 1, NULL, 10) : choice->global.group_size;
            result = bits > 0;
            *quant = (MxQuant){.group_size = group, .bits = bits, .mode = "affine"};
        }
        free(pattern);
    }
    return result;
}

static bool check_overrides(const LmConvertOptions *options, Error *err) {
    for (size_t i = 0; i < options->override_count; i++) {
        const char *text = options->overrides[i], *equals = strrchr(text, '=');
        MxQuant quant;
        int bits = equals ? (int)strtol(equals + 1, NULL, 10) : 0;
        const char *colon = equals ? strchr(equals, ':') : NULL;
        int group = colon ? (int)strtol(colon + 1, NULL, 10) : 0;
        if (equals && equals > text && strcmp(equals + 1, "no") == 0) continue;
        if (!equals || equals == text || bits <= 0)
            return base_fail(err, ERROR_INPUT,
                             "override \"%.80s\" is not PATTERN=BITS[:GROUP] or PATTERN=no", text);
        if (!hub_quantization_make("affine", group, bits, &quant, err))
            return base_error_context(err, "override %.80s", text);
    }
    return true;
}

static json_t *describe(MxQuant quant, bool with_mode) {
    json_t *entry = json_pack("{s:i,s:i}", "group_size", quant.group_size, "bits", quant.bits);
    if (with_mode) json_object_set_new(entry, "mode", json_string(quant.mode));
    return entry;
}

static bool is_one_of(const char *word, const char *const *list) {
    for (; *list; list++)
        if (strcmp(*list, word) == 0) return true;
    return false;
}

/* Whether mlx-lm's model has a module here that can be packed: a linear layer, an
 * embedding or a stack of experts. Some routers are bare tensors there. */
static bool is_quantizable(const char *type, const char *path, mlx_array weight) {
    static const char *const bare_gate[] = {
        "deepseek",        "deepseek_v2", "deepseek_v3", "deepseek_v32",  "kimi_k2",
        "joyai_llm_flash", "dots1",       "exaone_moe",  "glm4_moe",      "glm4_moe_lite",
        "glm_moe_dsa",     "nemotron_h",  "kimi_vl",     "mimo_v2_flash", NULL};
    static const char *const never[] = {"norm",       "Norm",   "position_embeddings",
                                        "token_type", "conv1d", "relative_attention_bias"};
    const int ndim = mx_ndim(weight);
    if (!mx_is_float(mx_dtype(weight)) || ndim < 2 || ndim > 3) return false;
    for (size_t i = 0; i < BASE_COUNT(never); i++)
        if (strstr(path, never[i])) return false;
    if (is_one_of(type, bare_gate) && base_ends_with(path, ".gate")) return false;
    return ndim == 2 || strstr(path, "switch_") || strstr(path, "experts") ||
           strstr(path, "embed_q") || strstr(path, "unembed_out");
}

/* Quantises one dense module if it is to be; `listing`: name every one in the config. */
static bool quantize_module(LmSource *source, const Choice *choice, const char *path, bool listing,
                            json_t *quantization, size_t *count, Error *err) {
    mlx_array weight = lm_tensors_find(&source->tensors, "%s.weight", path);
    if (!is_quantizable(choice->type, path, weight)) return true;
    MxQuant quant = choice->global;
    if (mx_dim(weight, -1) % quant.group_size != 0) return true;
    json_t *entry = NULL;
    int said = overridden(choice, path, &quant);
    if (said == 0) {
        json_object_set_new(quantization, path, json_false());
        return true;
    }
    if (said == 1) {
        entry = describe(quant, true);
    } else if (choice->low) {
        quant.bits = recipe_bits(choice, path);
        entry = describe(quant, true);
        if (!choice->options->group_size) json_object_set_new(entry, "group_size", json_null());
    } else if (model_decoder_keeps_8_bits(source->config, path)) {
        quant = (MxQuant){.group_size = 64, .bits = 8, .mode = "affine"};
        entry = describe(quant, false);
    } else if (listing) {
        entry = describe(quant, true);
    }
    if (entry) json_object_set_new(quantization, path, entry);
    if (mx_dim(weight, -1) % quant.group_size != 0)
        return base_fail(err, ERROR_INPUT, "%s: its %d columns are not groups of %d", path,
                         mx_dim(weight, -1), quant.group_size);
    (*count)++;
    return lm_pack_module(source, path, quant, err);
}

bool lm_pack_quantize(LmSource *source, const LmConvertOptions *options, size_t *count,
                      Error *err) {
    Choice choice = {.options = options, .type = type_of(source)};
    if (!hub_quantization_make(options->mode ? options->mode : "affine", options->group_size,
                               options->bits, &choice.global, err) ||
        !check_overrides(options, err) ||
        (options->recipe && !prepare_recipe(source, &choice, err)))
        return false;
    json_t *quantization = json_object_get(source->config, "quantization");
    const bool listing = json_is_object(quantization);
    quantization = listing ? json_deep_copy(quantization) : describe(choice.global, true);
    bool good = true;
    *count = 0;
    for (size_t i = 0, n = source->tensors.count; i < n && good; i++) {
        char *path = module_of(source, i);
        if (path) good = quantize_module(source, &choice, path, listing, quantization, count, err);
        free(path);
    }
    json_object_set_new(source->config, "quantization", quantization);
    json_object_set(source->config, "quantization_config", quantization);
    lm_tensors_order(&source->tensors);
    return good;
}

bool lm_pack_dequantize(LmSource *source, Error *err) {
    for (size_t i = 0, n = source->tensors.count; i < n; i++) {
        char *path = module_of(source, i);
        MxQuant quant;
        /* A module that was unpacked before may still have its entry in the config. */
        if (path && lm_tensors_find(&source->tensors, "%s.scales", path).ctx &&
            lm_source_quant(source, path, &quant)) {
            char *scales = base_format("%s.scales", path), *biases = base_format("%s.biases", path);
            HubTensor *tensor = &source->tensors.items[i];
            mx_store(&tensor->array,
                     mx_dequantize(tensor->array, lm_tensors_get(&source->tensors, scales),
                                   lm_tensors_get(&source->tensors, biases), quant));
            lm_tensors_remove(&source->tensors, scales);
            lm_tensors_remove(&source->tensors, biases);
            free(scales);
            free(biases);
            if (!mx_check(err)) {
                base_error_context(err, "%s", path);
                free(path);
                return false;
            }
        }
        free(path);
    }
    json_object_del(source->config, "quantization");
    json_object_del(source->config, "quantization_config");
    lm_tensors_order(&source->tensors);
    return true;
}

/* ---- measuring and writing ------------------------------------------------------------ */

void lm_pack_measure(const LmSource *source, LmConvertReport *report) {
    const LmTensors *tensors = &source->tensors;
    report->bytes = report->parameters = 0;
    report->tensors = tensors->count;
    snprintf(report->model_type, sizeof report->model_type, "%s", type_of(source));
    for (size_t i = 0; i < tensors->count; i++) {
        const char *name = tensors->items[i].name;
        mlx_array array = tensors->items[i].array;
        char *path = module_of(source, i);
        MxQuant quant = {0};
        bool packed = path && lm_source_quant(source, path, &quant);
        bool part = base_ends_with(name, ".scales") || base_ends_with(name, ".biases");
        report->bytes += mlx_array_nbytes(array);
        if (!part)
            report->parameters +=
                mx_size(array) * (packed ? 32 : 1) / (packed ? (uint64_t)quant.bits : 1);
        free(path);
    }
    report->bits_per_weight =
        report->parameters ? (double)report->bytes * 8 / (double)report->parameters : 0;
}

bool lm_pack_space(const char *path, uint64_t bytes, Error *err) {
    struct statvfs disk;
    char *folder = base_is_dir(path) ? base_strdup(path) : base_path_parent(path);
    const bool known = statvfs(folder, &disk) == 0;
    free(folder);
    if (!known) return true;
    const uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (room >= bytes) return true;
    base_fail(err, ERROR_IO, "the model takes %s and the disk has room for %s",
              base_bytes_text(bytes), base_bytes_text(room));
    return base_hint(err, "Free space or choose a folder on another disk.");
}

bool lm_pack_write(LmSource *source, const char *output, const LmConvertOptions *options,
                   Error *err) {
    AtomicFolder *folder = base_folder_open(output, err);
    if (!folder) return false;
    LmConvertReport report = {0};
    lm_pack_measure(source, &report);
    const char *path = base_folder_path(folder);
    Progress progress = base_progress_start("writing", "B", (double)report.bytes);
    progress.quiet = options->quiet;
    progress.json = options->json;
    HubSave how = {.shard_bytes = options->shard_bytes, .release = true, .progress = &progress};
    bool good = lm_pack_space(path, report.bytes, err) && lm_source_copy_files(source, path, err) &&
                hub_config_save(path, source->config, err) &&
                hub_weights_stream(path, source->tensors.items, source->tensors.count,
                                   source->config, &how, err);
    base_progress_end(&progress);
    if (good) return base_folder_commit(folder, err);
    base_folder_abort(folder);
    return base_error_context(err, "%s", output);
}
