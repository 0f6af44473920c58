/* config.json: loading with generation_config.json merged in, the check of its
 * quantization settings, and writing it as mlx-lm does. What the numbers of an
 * architecture mean is models/'s. */
#include "hub/internal.h"

#include <stdlib.h>
#include <string.h>

static const HubMode modes[] = {
    {"affine", 64, 4, {32, 64, 128}, {2, 3, 4, 5, 6, 8}},
    {"mxfp4", 32, 4, {32}, {4}},
    {"mxfp8", 32, 8, {32}, {8}},
    {"nvfp4", 16, 4, {16}, {4}},
};

/* Is value one of the mode's numbers, a list that ends with 0 or at count? */
static bool check_number(const char *name, const char *module, const HubMode *mode,
                         const char *field, const int *list, size_t count, int value, Error *err) {
    char known[64] = "";
    size_t length = 0;
    for (size_t i = 0; i < count && list[i] != 0; i++) {
        if (list[i] == value) return true;
        length +=
            (size_t)snprintf(known + length, sizeof known - length, "%s%d", i ? ", " : "", list[i]);
    }
    return base_fail(err, ERROR_INPUT, "%s: %s: %s is not one of mode %s, which has %s", name,
                     module, field, mode->name, known);
}

/* A number of a quantization entry: `fallback` when absent or null, 0 when it
 * is not a small integer. */
static int setting(const json_t *entry, const char *key, int fallback) {
    const json_t *value = json_object_get(entry, key);
    if (!value || json_is_null(value)) return fallback;
    json_int_t number = json_integer_value(value);
    return json_is_integer(value) && number > 0 && number <= 1024 ? (int)number : 0;
}

/* `entry` is the global object or that of one module; `module` is for messages. */
static bool read_entry(const json_t *entry, const char *name, const char *module, MxQuant *quant,
                       Error *err) {
    const json_t *mode_value = json_object_get(entry, "mode");
    const char *mode_name = "affine";
    if (mode_value && !json_is_null(mode_value)) {
        mode_name = json_string_value(mode_value);
        if (!mode_name)
            return base_fail(err, ERROR_INPUT, "%s: %s: mode must be a string", name, module);
    }
    const HubMode *mode = NULL;
    for (size_t i = 0; i < BASE_COUNT(modes); i++)
        if (strcmp(modes[i].name, mode_name) == 0) mode = &modes[i];
    if (!mode)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "%s: %s: unknown mode \"%.32s\" (affine, mxfp4, mxfp8 or nvfp4)", name,
                         module, mode_name);
    int group_size = setting(entry, "group_size", mode->group_size);
    int bits = setting(entry, "bits", mode->bits);
    if (!check_number(name, module, mode, "group_size", mode->groups, BASE_COUNT(mode->groups),
                      group_size, err) ||
        !check_number(name, module, mode, "bits", mode->widths, BASE_COUNT(mode->widths), bits,
                      err))
        return false;
    *quant = (MxQuant){.group_size = group_size, .bits = bits, .mode = mode->name};
    return true;
}

const json_t *hub_config_quantization(const json_t *config) {
    const json_t *native = json_object_get(config, "quantization");
    if (native && !json_is_null(native)) return native;
    const json_t *other = json_object_get(config, "quantization_config");
    if (!other || json_is_null(other))
        other = json_object_get(json_object_get(config, "text_config"), "quantization_config");
    return other && !json_is_null(other) ? other : NULL;
}

const json_t *hub_config_foreign(const json_t *config) {
    const json_t *native = json_object_get(config, "quantization");
    const json_t *other = native && !json_is_null(native) ? NULL : hub_config_quantization(config);
    return json_is_string(json_object_get(other, "quant_method")) ? other : NULL;
}

HubQuantEntry hub_quantization_entry(const json_t *quantization, const char *path, MxQuant *quant) {
    const json_t *entry = json_object_get(quantization, path);
    if (!entry) return HUB_ENTRY_ABSENT;
    if (json_is_object(entry))
        return read_entry(entry, "config.json", path, quant, NULL) ? HUB_ENTRY_QUANTISED
                                                                   : HUB_ENTRY_DENSE;
    if (!json_is_true(entry)) return HUB_ENTRY_DENSE;
    return read_entry(quantization, "config.json", path, quant, NULL) ? HUB_ENTRY_QUANTISED
                                                                      : HUB_ENTRY_DENSE;
}

bool hub_quantization_of(const json_t *config, const char *path, bool has_scales, MxQuant *quant) {
    const json_t *quantization = hub_config_quantization(config);
    if (!quantization) return false;
    HubQuantEntry entry = hub_quantization_entry(quantization, path, quant);
    if (entry != HUB_ENTRY_ABSENT) return entry == HUB_ENTRY_QUANTISED;
    return has_scales && hub_quantization_global(quantization, quant);
}

bool hub_quantization_make(const char *mode, int group_size, int bits, MxQuant *quant, Error *err) {
    json_t *entry = json_pack("{s:s}", "mode", mode);
    if (group_size) json_object_set_new(entry, "group_size", json_integer(group_size));
    if (bits) json_object_set_new(entry, "bits", json_integer(bits));
    bool good = read_entry(entry, "quantization", mode, quant, err);
    json_decref(entry);
    return good;
}

bool hub_quantization_global(const json_t *quantization, MxQuant *quant) {
    return quantization && read_entry(quantization, "config.json", "quantization", quant, NULL);
}

bool hub_config_check(const json_t *config, const char *name, Error *err) {
    if (!json_is_object(config))
        return base_fail(err, ERROR_INPUT, "%s: must be a JSON object", name);
    const json_t *type = json_object_get(config, "model_type");
    if (!json_is_string(type) || json_string_length(type) == 0)
        return base_fail(err, ERROR_INPUT, "%s: model_type is missing", name);
    const json_t *quantization = hub_config_quantization(config);
    if (!quantization) return true;
    if (!json_is_object(quantization))
        return base_fail(err, ERROR_INPUT, "%s: quantization must be an object", name);
    const json_t *method = json_object_get(quantization, "quant_method");
    if (method && !json_object_get(config, "quantization")) {
        static const char *const convertible[] = {"awq", "gptq",  "mxfp4", "compressed-tensors",
                                                  "fp8", "bitnet"};
        const char *named = json_string_value(method);
        for (size_t i = 0; named && i < BASE_COUNT(convertible); i++)
            if (strcmp(convertible[i], named) == 0) return true;
        base_fail(err, ERROR_UNSUPPORTED, "%s: weights quantised by \"%.32s\" cannot be read", name,
                  json_is_string(method) ? json_string_value(method) : "?");
        return base_hint(err, "Use an MLX-quantised or unquantised folder of this model.");
    }
    MxQuant quant;
    if (!read_entry(quantization, name, "quantization", &quant, err)) return false;
    const char *key;
    const json_t *entry;
    json_object_foreach((json_t *)quantization, key, entry) {
        if (!json_is_object(entry)) continue;
        char module[160];
        snprintf(module, sizeof module, "quantization of %.128s", key);
        if (!read_entry(entry, name, module, &quant, err)) return false;
    }
    return true;
}

/* eos_token_id of generation_config.json replaces config's when it is truthy; a
 * malformed file there is ignored, as mlx-lm does. */
static void merge_eos(const char *folder, json_t *config) {
    char *path = base_path_join(folder, "generation_config.json");
    if (base_is_file(path) && base_path_inside(folder, path, NULL)) {
        json_t *generation = base_json_load(path, NULL);
        json_t *eos = json_object_get(generation, "eos_token_id");
        bool truthy = (json_is_integer(eos) && json_integer_value(eos) != 0) ||
                      (json_is_array(eos) && json_array_size(eos) > 0);
        if (truthy) json_object_set(config, "eos_token_id", eos);
        json_decref(generation);
    }
    free(path);
}

json_t *hub_config_load(const char *folder, Error *err) {
    if (!base_is_dir(folder)) {
        base_fail(err, ERROR_IO,
                  base_is_file(folder) ? "%s: is a file, a model is a folder"
                                       : "%s: no such folder",
                  folder);
        if (base_ends_with(folder, ".gguf"))
            base_hint(err, "Convert it first: mlx-rag model convert --gguf %s --output DIR",
                      folder);
        return NULL;
    }
    char *path = base_path_join(folder, "config.json");
    json_t *config = NULL;
    if (!base_is_file(path)) {
        base_fail(err, ERROR_INPUT, "%s: no config.json, so this is not a model folder", folder);
    } else if (base_path_inside(folder, path, err)) {
        config = base_json_load(path, err);
        if (config && !hub_config_check(config, path, err)) {
            json_decref(config);
            config = NULL;
        }
    }
    if (config) merge_eos(folder, config);
    free(path);
    return config;
}

static int by_key(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The outer keys sorted, what is in them as it was: Python's sorted(items). */
static json_t *sorted_copy(const json_t *object) {
    const char **keys = base_calloc(json_object_size(object) + 1, sizeof *keys), *key;
    size_t count = 0;
    json_t *value, *copy = json_object();
    json_object_foreach((json_t *)object, key, value) keys[count++] = key;
    qsort(keys, count, sizeof *keys, by_key);
    for (size_t i = 0; i < count; i++)
        json_object_set(copy, keys[i], json_object_get(object, keys[i]));
    free(keys);
    return copy;
}

bool hub_config_save(const char *folder, const json_t *config, Error *err) {
    json_t *copy = json_copy((json_t *)config);
    if (!copy) return base_fail(err, ERROR_MEMORY, "config.json: out of memory");
    json_object_del(copy, "_name_or_path");
    json_object_del(copy, "vision_config");
    json_t *quantization = json_object_get(copy, "quantization");
    if (quantization) json_object_set(copy, "quantization_config", quantization);
    json_t *sorted = sorted_copy(copy);
    char *path = base_path_join(folder, "config.json");
    bool saved = base_json_save_ordered(path, sorted, err);
    free(path);
    json_decref(sorted);
    json_decref(copy);
    return saved;
}

size_t hub_config_eos(const json_t *config, int *ids, size_t capacity) {
    const json_t *eos = json_object_get(config, "eos_token_id");
    size_t count = 0, listed = json_is_array(eos) ? json_array_size(eos) : 1;
    for (size_t i = 0; i < listed; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT32_MAX) continue;
        if (count < capacity) ids[count] = (int)value;
        count++;
    }
    return count;
}
