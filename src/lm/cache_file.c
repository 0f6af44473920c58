/* mlx-lm's prompt cache files.
 *
 *   tensors   "{layer}.0" keys, "{layer}.1" values [1, kv_heads, rows, n]; packed:
 *             "{layer}.0.0" ..., words, scales and biases
 *
 * The numbers of a layer's cache are tensors too, since 0.32: "{layer}.{j}", int32.
 *
 *   metadata  "0.{key}" the user's, "1.{layer}" the class's name, "2.0" empty,
 *             "2.{i}.0" the name of a tensor that stands for a number or for none
 *             at all, "2.{i}.1" which: "scalar" or "none"
 *
 * Before that they were text.
 *
 *   metadata  "0.{layer}" or "0.{layer}.{j}" the numbers, "1.{key}" the user's,
 *             "2.{layer}" the class's name */
#include "lm/model.h"

#include <stdlib.h>
#include <string.h>

/* mlx-lm's names. */
static const char *const classes[] = {[KV_GROWING] = "KVCache",
                                      [KV_ROTATING] = "RotatingKVCache",
                                      [KV_QUANTIZED] = "QuantizedKVCache",
                                      [KV_CHUNKED] = "ChunkedKVCache"};

/* The numbers of a cache, and where each kind's lie: from 2 on in a file of tensors,
 * from 0 on in one of text. */
typedef enum { OFFSET, GROUP, BITS, KEEP, SIZE, INDEX, START, NUMBERS, NOT_THERE = -1 } Number;
enum { MOST_NUMBERS = 4 };
static const Number tensor_numbers[][MOST_NUMBERS + 1] = {
    [KV_GROWING] = {OFFSET, NOT_THERE},
    [KV_ROTATING] = {OFFSET, KEEP, SIZE, INDEX, NOT_THERE},
    [KV_QUANTIZED] = {OFFSET, GROUP, BITS, NOT_THERE},
    [KV_CHUNKED] = {OFFSET, SIZE, START, NOT_THERE}};
static const Number text_numbers[][MOST_NUMBERS + 1] = {
    [KV_GROWING] = {NOT_THERE},
    [KV_ROTATING] = {KEEP, SIZE, OFFSET, INDEX, NOT_THERE},
    [KV_QUANTIZED] = {OFFSET, GROUP, BITS, NOT_THERE},
    [KV_CHUNKED] = {SIZE, START, NOT_THERE}};

static int number_of(const KvCache *layer, Number number) {
    const int numbers[NUMBERS] = {
        [OFFSET] = layer->offset, [GROUP] = layer->quant.group_size, [BITS] = layer->quant.bits,
        [KEEP] = layer->keep,     [SIZE] = layer->max_size,          [INDEX] = layer->index,
        [START] = layer->start};
    return numbers[number];
}

/* ---- saving ------------------------------------------------------------------------------ */

typedef struct Listing {
    char **names;
    mlx_array *arrays;
    size_t count;
    json_t *metadata;
    LmCacheLayout layout;
    int marked; /* entries "2.{i}" so far */
} Listing;

static void describe(Listing *listing, char *key, const char *value) {
    json_object_set_new(listing->metadata, key, json_string(value));
    free(key);
}

static void list_tensor(Listing *listing, char *name, mlx_array array) {
    listing->names[listing->count] = name;
    listing->arrays[listing->count++] = array;
}

/* A tensor that stands for something else: "scalar", "none". */
static void list_sign(Listing *listing, char *name, const char *what, mlx_array array) {
    const int i = ++listing->marked;
    describe(listing, base_format("2.%d.0", i), name);
    describe(listing, base_format("2.%d.1", i), what);
    list_tensor(listing, name, array);
}

static void list_numbers(Listing *listing, int i, const KvCache *layer) {
    const bool text = listing->layout == LM_CACHE_TEXT;
    const Number *numbers = (text ? text_numbers : tensor_numbers)[layer->kind];
    if (text && numbers[0] == NOT_THERE) describe(listing, base_format("0.%d", i), "");
    for (int j = 0; numbers[j] != NOT_THERE; j++) {
        const int value = number_of(layer, numbers[j]);
        char digits[16];
        snprintf(digits, sizeof digits, "%d", value);
        if (text)
            describe(listing, base_format("0.%d.%d", i, j), digits);
        else
            list_sign(listing, base_format("%d.%d", i, j + 2), "scalar",
                      mx_scalar(value, MLX_INT32));
    }
}

static void list_layer(Listing *listing, int i, const KvCache *layer) {
    const mlx_array *sides[] = {layer->keys, layer->values};
    const bool text = listing->layout == LM_CACHE_TEXT;
    int rows = layer->offset;
    if (layer->kind == KV_ROTATING) rows = BASE_MIN(layer->capacity, layer->offset);
    if (layer->kind == KV_CHUNKED) rows = layer->offset - layer->start;
    for (int side = 0; side < 2; side++) {
        const int parts = layer->kind == KV_QUANTIZED ? 3 : 1;
        if (layer->offset == 0 && !text)
            list_sign(listing, base_format("%d.%d", i, side), "none",
                      mx_zeros(MX_SHAPE(0), MLX_FLOAT32));
        for (int part = 0; part < parts && layer->offset > 0; part++)
            list_tensor(listing,
                        parts == 3 ? base_format("%d.%d.%d", i, side, part)
                                   : base_format("%d.%d", i, side),
                        mx_slice(sides[side][part], 2, 0, rows));
    }
    list_numbers(listing, i, layer);
    describe(listing, base_format("%d.%d", text ? 2 : 1, i), classes[layer->kind]);
}

/* The name as mlx's save_safetensors completes it. */
static char *cache_file(const char *path) {
    static const char suffix[] = ".safetensors";
    return base_format("%s%s", path, base_ends_with(path, suffix) ? "" : suffix);
}

bool lm_cache_save(const LmCache *cache, const char *path, LmCacheLayout layout,
                   const json_t *metadata, Error *err) {
    const size_t most = (size_t)cache->n_layers * (6 + MOST_NUMBERS);
    Listing listing = {.names = base_alloc((most + 1) * sizeof(char *)),
                       .arrays = base_alloc((most + 1) * sizeof(mlx_array)),
                       .metadata = json_object(),
                       .layout = layout};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        describe(&listing, base_format("%d.%s", layout == LM_CACHE_TEXT ? 1 : 0, key),
                 json_string_value(value));
    }
    if (layout == LM_CACHE_TENSORS) describe(&listing, base_strdup("2.0"), "");
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

/* An open file. */
typedef struct Opened {
    const NnParams *tensors;
    const json_t *metadata;
    LmCacheLayout layout;
} Opened;

/* "2.0" is a class's name in a file of text. */
static LmCacheLayout layout_of(const json_t *metadata) {
    const char *second = json_string_value(json_object_get(metadata, "2.0"));
    return second && *second == '\0' ? LM_CACHE_TENSORS : LM_CACHE_TEXT;
}

static const char *class_of(const Opened *file, int layer) {
    char key[48];
    snprintf(key, sizeof key, "%d.%d", file->layout == LM_CACHE_TEXT ? 2 : 1, layer);
    return json_string_value(json_object_get(file->metadata, key));
}

static int64_t text_number(const Opened *file, int layer, int j) {
    char key[48], *end = NULL;
    snprintf(key, sizeof key, "0.%d.%d", layer, j);
    const char *text = json_string_value(json_object_get(file->metadata, key));
    const long value = text ? strtol(text, &end, 10) : -1;
    return text && end != text && *end == '\0' ? value : -1;
}

static int64_t tensor_number(const Opened *file, int layer, int j) {
    char name[48];
    snprintf(name, sizeof name, "%d.%d", layer, j + 2);
    mlx_array array = nn_params_peek(file->tensors, name);
    return array.ctx && mx_size(array) == 1 && !mx_is_float(mx_dtype(array)) ? mx_item_int(array)
                                                                             : -1;
}

/* A layer's number, or -1. */
static int number_in(const Opened *file, KvKind kind, int layer, Number number) {
    const bool text = file->layout == LM_CACHE_TEXT;
    const Number *numbers = (text ? text_numbers : tensor_numbers)[kind];
    int j = 0;
    while (numbers[j] != NOT_THERE && numbers[j] != number) j++;
    if (numbers[j] == NOT_THERE) return -1;
    const int64_t value = text ? text_number(file, layer, j) : tensor_number(file, layer, j);
    return value >= 0 && value <= MOST_TOKENS ? (int)value : -1;
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

static bool load_quantized(KvCache *layer, int i, const Opened *file, LmCacheOptions *options) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    const int group = number_in(file, KV_QUANTIZED, i, GROUP);
    const int bits = number_in(file, KV_QUANTIZED, i, BITS);
    bool known = false;
    for (size_t k = 0; k < BASE_COUNT(widths); k++) known |= bits == widths[k];
    if (!known || (group != 32 && group != 64 && group != 128)) return false;
    layer->quant = (MxQuant){.group_size = group, .bits = bits, .mode = "affine"};
    options->kv_group_size = group;
    options->kv_bits = bits;
    for (int side = 0; side < 2 && layer->capacity > 0; side++) {
        const mlx_array *parts = side ? layer->values : layer->keys;
        int64_t values = (int64_t)mx_dim(parts[1], 3) * group;
        if ((int64_t)mx_dim(parts[0], 3) * 32 != values * bits) return false;
    }
    return true;
}

static bool load_rotating(KvCache *layer, int i, const Opened *file, LmCacheOptions *options) {
    layer->keep = number_in(file, KV_ROTATING, i, KEEP);
    layer->max_size = options->max_size = number_in(file, KV_ROTATING, i, SIZE);
    layer->index = number_in(file, KV_ROTATING, i, INDEX);
    return layer->keep >= 0 && layer->max_size > layer->keep && layer->index >= 0;
}

/* Rows that are there beyond those in use go. false: fewer are there. */
static bool keep_rows(KvCache *layer, int rows) {
    if (rows > layer->capacity || (rows > 0) != (layer->offset > 0)) return false;
    for (int part = 0; part < 3 && rows < layer->capacity; part++) {
        mlx_array *const sides[] = {&layer->keys[part], &layer->values[part]};
        for (int side = 0; side < 2; side++)
            if (sides[side]->ctx) mx_store(sides[side], mx_slice(*sides[side], 2, 0, rows));
    }
    layer->capacity = rows;
    return true;
}

static bool load_layer(KvCache *layer, int i, const Opened *file, LmCacheOptions *options) {
    const char *name = class_of(file, i);
    size_t kind = 0;
    while (kind < BASE_COUNT(classes) && (!name || strcmp(name, classes[kind]) != 0)) kind++;
    if (kind == BASE_COUNT(classes)) return false;
    *layer = (KvCache){.kind = (KvKind)kind, .text_length = INT32_MAX};
    const int parts = layer->kind == KV_QUANTIZED ? 3 : 1;
    char key[48];
    snprintf(key, sizeof key, parts == 3 ? "%d.0.0" : "%d.0", i);
    mlx_array first = nn_params_peek(file->tensors, key);
    if (first.ctx && mx_size(first) > 0 &&
        !(fill_side(layer->keys, parts, file->tensors, i, 0) &&
          fill_side(layer->values, parts, file->tensors, i, 1)))
        return false;
    layer->capacity = mx_dim(layer->keys[0], 2);
    if (layer->kind == KV_CHUNKED) {
        layer->max_size = number_in(file, KV_CHUNKED, i, SIZE);
        layer->start = number_in(file, KV_CHUNKED, i, START);
        if (layer->max_size <= 0 || layer->start < 0) return false;
    }
    layer->offset = number_in(file, layer->kind, i, OFFSET);
    const bool said = file->layout == LM_CACHE_TENSORS || layer->kind == KV_ROTATING ||
                      layer->kind == KV_QUANTIZED;
    if (!said) layer->offset = layer->capacity + layer->start;
    if (layer->offset < 0) return false;
    if (layer->kind == KV_QUANTIZED && !load_quantized(layer, i, file, options)) return false;
    if (layer->kind == KV_ROTATING && !load_rotating(layer, i, file, options)) return false;
    const int rows = layer->kind == KV_ROTATING ? BASE_MIN(layer->capacity, layer->offset)
                                                : layer->offset - layer->start;
    return rows >= 0 && keep_rows(layer, rows) && layer->index <= layer->capacity;
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
    const char *prefix = layout_of(entries) == LM_CACHE_TEXT ? "1." : "0.";
    json_t *metadata = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)entries, key, value) {
        if (base_starts_with(key, prefix)) json_object_set(metadata, key + 2, value);
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
    const Opened opened = {tensors, entries, layout_of(entries)};
    bool ok = cache != NULL;
    mx_scope scope = mx_open();
    for (int i = 0; ok && i < cache->n_layers; i++) {
        KvCache *layer = &cache->layers[i];
        if (load_layer(layer, i, &opened, &cache->options) && fits(model, i, layer) &&
            layer->offset == cache->layers[0].offset)
            continue;
        ok = base_fail(err, ERROR_INPUT, "%s: layer %d is not a prompt cache of this model", file,
                       i);
    }
    mx_drop(scope);
    ok = ok && mx_check(err) && agrees(cache, &asked, file, err);
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
