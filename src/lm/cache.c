/* The cache of a whole model: one KvCache a layer, trimmed, quantised, saved
 * and loaded together. The file is mlx-lm's prompt cache:
 *   tensors   "{layer}.0" keys, "{layer}.1" values; packed: "{layer}.0.0" ...
 *   metadata  "0.{layer}" state (or "0.{layer}.{j}"), "1.{key}" the user's,
 *             "2.{layer}" the class's name */
#include "lm/model.h"

#include <stdlib.h>
#include <string.h>

static bool check_options(const LmCacheOptions *o, Error *err) {
    bool bits_ok = o->kv_bits == 0 || o->kv_bits == 2 || o->kv_bits == 3 || o->kv_bits == 4 ||
                   o->kv_bits == 5 || o->kv_bits == 6 || o->kv_bits == 8;
    if (!bits_ok)
        return base_fail(err, ERROR_INPUT, "kv-bits must be 2, 3, 4, 5, 6 or 8, not %d",
                         o->kv_bits);
    if (o->kv_group_size != 0 && o->kv_group_size != 32 && o->kv_group_size != 64 &&
        o->kv_group_size != 128) {
        return base_fail(err, ERROR_INPUT, "kv-group-size must be 32, 64 or 128, not %d",
                         o->kv_group_size);
    }
    if (o->max_size < 0 || o->max_size == 1) {
        return base_fail(err, ERROR_INPUT, "max-kv-size must be at least 2, not %d", o->max_size);
    }
    if (o->kv_bits && o->max_size) {
        return base_fail(err, ERROR_UNSUPPORTED,
                         "a rotating cache (max-kv-size) cannot be quantised (kv-bits)");
    }
    return true;
}

/* Rows are packed in whole groups. */
static bool check_groups(const LmModel *model, const LmCacheOptions *o, Error *err) {
    int group = o->kv_group_size ? o->kv_group_size : 64;
    for (int i = 0; o->kv_bits && i < model_decoder_layers(model->decoder); i++) {
        int heads, widths[2];
        model_decoder_kv_shape(model->decoder, i, &heads, &widths[0], &widths[1]);
        for (int side = 0; side < 2; side++) {
            if (widths[side] % group == 0) continue;
            base_fail(err, ERROR_INPUT,
                      "kv-group-size %d does not divide the %d features of this model's heads",
                      group, widths[side]);
            return base_hint(err, "Choose 32, 64 or 128, or leave kv-bits out.");
        }
    }
    return true;
}

LmCache *lm_cache_new(LmModel *model, const LmCacheOptions *options, Error *err) {
    static const LmCacheOptions defaults = {0};
    if (!options) options = &defaults;
    if (!check_options(options, err) || !check_groups(model, options, err)) return NULL;
    LmCache *cache = base_calloc(1, sizeof *cache);
    cache->options = *options;
    if (cache->options.kv_group_size == 0) cache->options.kv_group_size = 64;
    cache->n_layers = model_decoder_layers(model->decoder);
    cache->layers = base_calloc((size_t)cache->n_layers, sizeof *cache->layers);
    model_decoder_caches(model->decoder, cache->layers, options->max_size);
    cache->short_length = options->for_file ? 0 : model_decoder_short_length(model->decoder);
    for (int i = 0; options->for_file && i < cache->n_layers; i++)
        cache->layers[i].text_length = INT32_MAX;
    return cache;
}

void lm_cache_free(LmCache *cache) {
    if (!cache) return;
    for (int i = 0; i < cache->n_layers; i++) nn_kv_free(&cache->layers[i]);
    free(cache->layers);
    text_ids_free(&cache->held);
    free(cache);
}

int lm_cache_length(const LmCache *cache) {
    return cache->n_layers ? cache->layers[0].offset : 0;
}

bool lm_cache_trim(LmCache *cache, int count) {
    for (int i = 0; i < cache->n_layers; i++) {
        if (!nn_kv_can_trim(&cache->layers[i], count)) return false;
    }
    for (int i = 0; i < cache->n_layers; i++) nn_kv_trim(&cache->layers[i], count);
    if (cache->held.length) cache->held.length -= (size_t)count;
    return true;
}

void lm_cache_clear(LmCache *cache) {
    for (int i = 0; i < cache->n_layers; i++) {
        nn_kv_clear(&cache->layers[i]);
        if (cache->layers[i].kind == KV_QUANTIZED) cache->layers[i].kind = KV_GROWING;
        cache->layers[i].text_length = cache->options.for_file ? INT32_MAX : 0;
    }
    cache->held.length = 0;
    cache->expected = 0;
}

void lm_cache_settle(LmCache *cache) {
    const LmCacheOptions *o = &cache->options;
    if (!o->kv_bits || lm_cache_length(cache) < o->kv_start) return;
    MxQuant quant = {.group_size = o->kv_group_size, .bits = o->kv_bits, .mode = "affine"};
    for (int i = 0; i < cache->n_layers; i++) nn_kv_quantize(&cache->layers[i], quant);
}

bool lm_cache_eval(const LmCache *cache) {
    mlx_array *all = base_alloc((size_t)cache->n_layers * 6 * sizeof *all);
    size_t count = 0;
    for (int i = 0; i < cache->n_layers; i++) {
        for (int part = 0; part < 3; part++) {
            if (cache->layers[i].keys[part].ctx) all[count++] = cache->layers[i].keys[part];
            if (cache->layers[i].values[part].ctx) all[count++] = cache->layers[i].values[part];
        }
    }
    bool ok = count == 0 || mx_eval(all, count);
    free(all);
    return ok;
}

/* ---- saving ------------------------------------------------------------------------------ */

/* mlx-lm's names. */
static const char *const classes[] = {[KV_GROWING] = "KVCache",
                                      [KV_ROTATING] = "RotatingKVCache",
                                      [KV_QUANTIZED] = "QuantizedKVCache",
                                      [KV_CHUNKED] = "ChunkedKVCache"};

typedef struct Listing {
    char **names;
    mlx_array *arrays;
    size_t count;
    json_t *metadata;
} Listing;

static void list_tensor(Listing *listing, char *name, mlx_array array) {
    listing->names[listing->count] = name;
    listing->arrays[listing->count++] = array;
}

static void list_state(Listing *listing, int layer, const int *numbers, int count) {
    for (int i = 0; i < count; i++) {
        char key[48], value[16];
        snprintf(key, sizeof key, "0.%d.%d", layer, i);
        snprintf(value, sizeof value, "%d", numbers[i]);
        json_object_set_new(listing->metadata, key, json_string(value));
    }
}

static void list_layer(Listing *listing, int i, const KvCache *layer) {
    const mlx_array *sides[] = {layer->keys, layer->values};
    char key[48];
    for (int side = 0; side < 2 && layer->offset > 0; side++) {
        if (layer->kind == KV_QUANTIZED) {
            for (int part = 0; part < 3; part++) {
                list_tensor(listing, base_format("%d.%d.%d", i, side, part),
                            mx_slice(sides[side][part], 2, 0, layer->offset));
            }
        } else {
            int rows = layer->kind == KV_ROTATING ? BASE_MIN(layer->capacity, layer->offset)
                                                  : layer->offset - layer->start;
            list_tensor(listing, base_format("%d.%d", i, side),
                        mx_slice(sides[side][0], 2, 0, rows));
        }
    }
    if (layer->kind == KV_QUANTIZED) {
        list_state(listing, i,
                   (const int[]){layer->offset, layer->quant.group_size, layer->quant.bits}, 3);
    } else if (layer->kind == KV_ROTATING) {
        list_state(listing, i,
                   (const int[]){layer->keep, layer->max_size, layer->offset, layer->index}, 4);
    } else if (layer->kind == KV_CHUNKED) {
        list_state(listing, i, (const int[]){layer->max_size, layer->start}, 2);
    } else {
        snprintf(key, sizeof key, "0.%d", i);
        json_object_set_new(listing->metadata, key, json_string(""));
    }
    snprintf(key, sizeof key, "2.%d", i);
    json_object_set_new(listing->metadata, key, json_string(classes[layer->kind]));
}

/* The name as mlx's save_safetensors completes it. */
static char *cache_file(const char *path) {
    static const char suffix[] = ".safetensors";
    return base_format("%s%s", path, base_ends_with(path, suffix) ? "" : suffix);
}

bool lm_cache_save(const LmCache *cache, const char *path, const json_t *metadata, Error *err) {
    size_t most = (size_t)cache->n_layers * 6;
    Listing listing = {base_alloc((most + 1) * sizeof(char *)),
                       base_alloc((most + 1) * sizeof(mlx_array)), 0, json_object()};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        char *prefixed = base_format("1.%s", key);
        json_object_set(listing.metadata, prefixed, value);
        free(prefixed);
    }
    mx_scope s = mx_open();
    for (int i = 0; i < cache->n_layers; i++) list_layer(&listing, i, &cache->layers[i]);
    char *file = cache_file(path);
    bool ok =
        mx_check(err) && mx_save_safetensors(file, (const char *const *)listing.names,
                                             listing.arrays, listing.count, listing.metadata, err);
    mx_drop(s);
    free(file);
    for (size_t i = 0; i < listing.count; i++) free(listing.names[i]);
    free(listing.names);
    free(listing.arrays);
    json_decref(listing.metadata);
    return ok;
}

/* ---- loading -------------------------------------------------------------------------------- */

static void keep_tensor(void *context, const char *name, mlx_array array) {
    nn_params_add(((void **)context)[0], name, array);
}

static void keep_metadata(void *context, const char *key, const char *value) {
    json_object_set_new(((void **)context)[1], key, json_string(value));
}

/* More tokens than this are nobody's; sums of two stay in range. */
enum { MOST_TOKENS = 1 << 29 };

/* The i'th number of a layer's state, or -1. */
static int state_number(const json_t *metadata, int layer, int i) {
    char key[48], *end = NULL;
    snprintf(key, sizeof key, "0.%d.%d", layer, i);
    const char *text = json_string_value(json_object_get(metadata, key));
    long value = text ? strtol(text, &end, 10) : -1;
    return text && end != text && *end == '\0' && value >= 0 && value <= MOST_TOKENS ? (int)value
                                                                                     : -1;
}

/* The arrays of keys or values: one of floats, or packed words, scales, biases,
 * all [1, kv_heads, rows, n]. */
static bool fill_side(mlx_array slot[3], int parts, const NnParams *tensors, int layer, int side) {
    for (int part = 0; part < parts; part++) {
        char name[48];
        if (parts == 1) snprintf(name, sizeof name, "%d.%d", layer, side);
        if (parts == 3) snprintf(name, sizeof name, "%d.%d.%d", layer, side, part);
        mlx_array array = nn_params_peek(tensors, name);
        bool typed =
            parts == 3 && part == 0 ? mx_dtype(array) == MLX_UINT32 : mx_is_float(mx_dtype(array));
        if (mx_ndim(array) != 4 || !typed) return false;
        for (int axis = 0; part > 0 && axis < 3; axis++) {
            if (mx_dim(array, axis) != mx_dim(slot[0], axis)) return false;
        }
        if (part == 2 && mx_dim(array, 3) != mx_dim(slot[1], 3)) return false;
        mx_store(&slot[part], array);
    }
    return true;
}

static bool load_quantized(KvCache *layer, int i, int rows, const json_t *metadata,
                           LmCacheOptions *options) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    int group = state_number(metadata, i, 1), bits = state_number(metadata, i, 2);
    bool known = false;
    for (size_t k = 0; k < BASE_COUNT(widths); k++) known |= bits == widths[k];
    if (!known || (group != 32 && group != 64 && group != 128)) return false;
    layer->quant = (MxQuant){.group_size = group, .bits = bits, .mode = "affine"};
    options->kv_group_size = group;
    options->kv_bits = bits;
    for (int side = 0; side < 2 && rows > 0; side++) {
        const mlx_array *parts = side ? layer->values : layer->keys;
        int64_t values = (int64_t)mx_dim(parts[1], 3) * group;
        if ((int64_t)mx_dim(parts[0], 3) * 32 != values * bits) return false;
    }
    return state_number(metadata, i, 0) == rows;
}

static bool load_rotating(KvCache *layer, int i, int rows, const json_t *metadata,
                          LmCacheOptions *options) {
    layer->keep = state_number(metadata, i, 0);
    layer->max_size = options->max_size = state_number(metadata, i, 1);
    layer->offset = state_number(metadata, i, 2);
    layer->index = state_number(metadata, i, 3);
    return layer->keep >= 0 && layer->max_size > layer->keep && layer->offset >= rows &&
           layer->index >= 0 && layer->index <= rows && (layer->offset > 0) == (rows > 0);
}

static bool load_layer(KvCache *layer, int i, const NnParams *tensors, const json_t *metadata,
                       LmCacheOptions *options) {
    char key[48];
    snprintf(key, sizeof key, "2.%d", i);
    const char *name = json_string_value(json_object_get(metadata, key));
    size_t kind = 0;
    while (kind < BASE_COUNT(classes) && (!name || strcmp(name, classes[kind]) != 0)) kind++;
    if (kind == BASE_COUNT(classes)) return false;
    *layer = (KvCache){.kind = (KvKind)kind, .text_length = INT32_MAX};
    int parts = layer->kind == KV_QUANTIZED ? 3 : 1;
    snprintf(key, sizeof key, parts == 3 ? "%d.0.0" : "%d.0", i);
    bool filled = nn_params_has(tensors, "%s", key);
    if (filled && !(fill_side(layer->keys, parts, tensors, i, 0) &&
                    fill_side(layer->values, parts, tensors, i, 1))) {
        return false;
    }
    int rows = mx_dim(layer->keys[0], 2);
    layer->capacity = layer->offset = rows;
    switch (layer->kind) {
    case KV_QUANTIZED: return load_quantized(layer, i, rows, metadata, options);
    case KV_ROTATING: return load_rotating(layer, i, rows, metadata, options);
    case KV_CHUNKED:
        layer->max_size = state_number(metadata, i, 0);
        layer->start = state_number(metadata, i, 1);
        layer->offset = rows + BASE_MAX(layer->start, 0);
        return layer->max_size > 0 && layer->start >= 0;
    case KV_GROWING: break;
    }
    return true;
}

/* Whether the rows are this model's: [1, kv_heads, rows, width]. */
static bool fits(const LmModel *model, int index, const KvCache *layer) {
    int kv_heads, widths[2], bits = layer->quant.bits;
    model_decoder_kv_shape(model->decoder, index, &kv_heads, &widths[0], &widths[1]);
    const mlx_array sides[] = {layer->keys[0], layer->values[0]};
    for (int i = 0; i < 2; i++) {
        if (!sides[i].ctx) continue;
        int width = layer->kind == KV_QUANTIZED ? widths[i] * bits / 32 : widths[i];
        if (mx_dim(sides[i], 0) != 1 || mx_dim(sides[i], 1) != kv_heads ||
            mx_dim(sides[i], 3) != width || mx_dim(sides[i], 2) != mx_dim(sides[0], 2)) {
            return false;
        }
    }
    return true;
}

/* What the file brings must be what the options ask for. */
static bool agrees(const LmCache *cache, const LmCacheOptions *asked, const char *path,
                   Error *err) {
    const KvCache *first = &cache->layers[0];
    if (cache->n_layers == 0 || first->kind != KV_QUANTIZED) return true;
    if (asked->kv_bits && asked->kv_bits != first->quant.bits) {
        return base_fail(err, ERROR_INPUT, "%s: the cache has kv-bits %d, not %d", path,
                         first->quant.bits, asked->kv_bits);
    }
    if (asked->kv_group_size && asked->kv_group_size != first->quant.group_size) {
        return base_fail(err, ERROR_INPUT, "%s: the cache has kv-group-size %d, not %d", path,
                         first->quant.group_size, asked->kv_group_size);
    }
    return true;
}

/* The user's entries among a file's metadata. */
static json_t *user_metadata(const json_t *entries) {
    json_t *metadata = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)entries, key, value) {
        if (base_starts_with(key, "1.")) json_object_set(metadata, key + 2, value);
    }
    return metadata;
}

json_t *lm_cache_metadata(const char *path, Error *err) {
    json_t *entries = json_object(), *metadata = NULL;
    void *context[] = {NULL, entries};
    char *file = cache_file(path);
    MxFileVisitor visitor = {.metadata = keep_metadata, .context = context};
    if (mx_load_safetensors(file, visitor, err)) metadata = user_metadata(entries);
    free(file);
    json_decref(entries);
    return metadata;
}

LmCache *lm_cache_load(LmModel *model, const char *path, const LmCacheOptions *options,
                       json_t **metadata, Error *err) {
    LmCacheOptions asked = options ? *options : (LmCacheOptions){0};
    asked.max_size = 0; /* the file's own */
    asked.for_file = true;
    json_t *entries = json_object();
    NnParams *tensors = nn_params_new(path, NULL, NULL);
    void *context[] = {tensors, entries};
    MxFileVisitor visitor = {keep_tensor, keep_metadata, context};
    char *file = cache_file(path);
    LmCache *cache = NULL;
    if (mx_load_safetensors(file, visitor, err)) cache = lm_cache_new(model, &asked, err);
    bool ok = cache != NULL;
    for (int i = 0; ok && i < cache->n_layers; i++) {
        KvCache *layer = &cache->layers[i];
        if (load_layer(layer, i, tensors, entries, &cache->options) && fits(model, i, layer) &&
            layer->offset == cache->layers[0].offset)
            continue;
        ok = base_fail(err, ERROR_INPUT, "%s: layer %d is not a prompt cache of this model", file,
                       i);
    }
    ok = ok && agrees(cache, &asked, file, err);
    if (!ok) {
        lm_cache_free(cache);
        cache = NULL;
    }
    if (cache && metadata) *metadata = user_metadata(entries);
    nn_params_free(tensors);
    json_decref(entries);
    free(file);
    return cache;
}
