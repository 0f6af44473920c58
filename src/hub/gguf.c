/* A GGUF file as an MLX model: metadata by key, tensors under their Hugging
 * Face names and in their order, and the settings that say how each is packed.
 *
 * The engine has already put Q4_0, Q4_1 and Q8_0 into MLX's affine layout with
 * their exact values, groups of 32 along a row; here only whole rows move, so
 * the values stay what they were. */
#include "hub/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { GGUF_GROUP = 32 };

/* A metadata value that was asked for; it lives as long as the file. */
typedef struct Value {
    char *key;
    mlx_string text;
    mlx_vector_string texts;
    const char **list;
    void *numbers; /* float or int32_t [count] */
    mlx_dtype dtype;
    size_t count;
    struct Value *next;
} Value;

struct HubGguf {
    mlx_io_gguf io;
    const GgufArch *arch;
    mlx_dtype dtype;
    uint64_t shard_bytes;
    json_t *config;
    HubTensor *tensors; /* in the order of the model */
    size_t count, capacity;
    Value *values;
};

/* ---- metadata ---------------------------------------------------------------- */

static Value *remember(HubGguf *gguf, const char *key) {
    Value *value = base_calloc(1, sizeof *value);
    value->key = base_strdup(key);
    value->next = gguf->values;
    gguf->values = value;
    return value;
}

static Value *recall(const HubGguf *gguf, const char *key) {
    for (Value *value = gguf->values; value; value = value->next)
        if (strcmp(value->key, key) == 0) return value;
    return NULL;
}

static void value_free(Value *value) {
    free(value->key);
    free(value->list);
    free(value->numbers);
    if (value->text.ctx) mlx_string_free(value->text);
    if (value->texts.ctx) mlx_vector_string_free(value->texts);
    free(value);
}

const char *hub_gguf_string(HubGguf *gguf, const char *key) {
    Value *value = recall(gguf, key);
    bool present = false;
    if (!value) {
        if (mlx_io_gguf_has_metadata_string(&present, gguf->io, key) != 0 || !present) return NULL;
        value = remember(gguf, key);
        value->text = mlx_string_new();
        mlx_io_gguf_get_metadata_string(&value->text, gguf->io, key);
    }
    return value->text.ctx ? mlx_string_data(value->text) : NULL;
}

const char *const *hub_gguf_strings(HubGguf *gguf, const char *key, size_t *count) {
    Value *value = recall(gguf, key);
    bool present = false;
    *count = 0;
    if (!value) {
        if (mlx_io_gguf_has_metadata_vector_string(&present, gguf->io, key) != 0 || !present)
            return NULL;
        value = remember(gguf, key);
        value->texts = mlx_vector_string_new();
        mlx_io_gguf_get_metadata_vector_string(&value->texts, gguf->io, key);
        value->count = mlx_vector_string_size(value->texts);
        value->list = base_calloc(value->count + 1, sizeof *value->list);
        for (size_t i = 0; i < value->count; i++) {
            char *text = NULL;
            mlx_vector_string_get(&text, value->texts, i);
            value->list[i] = text ? text : "";
        }
    }
    if (!value->list) return NULL;
    *count = value->count;
    return value->list;
}

/* A metadata array converted to float32 or int32. */
static const void *numbers(HubGguf *gguf, const char *key, mlx_dtype dtype, size_t *count) {
    Value *value = recall(gguf, key);
    bool present = false;
    *count = 0;
    if (!value) {
        if (mlx_io_gguf_has_metadata_array(&present, gguf->io, key) != 0 || !present) return NULL;
        mx_scope scope = mx_open();
        mlx_array array = mlx_array_new();
        mlx_io_gguf_get_metadata_array(&array, gguf->io, key);
        array = mx_own(array);
        size_t size = mx_size(array);
        void *data = base_calloc(size + 1, sizeof(float));
        bool copied = size == 0 || (dtype == MLX_FLOAT32 ? mx_copy_f32(array, data, size)
                                                         : mx_copy_i32(array, data, size));
        mx_drop(scope);
        if (!copied) {
            mx_check(NULL);
            free(data);
            return NULL;
        }
        value = remember(gguf, key);
        value->numbers = data;
        value->dtype = dtype;
        value->count = size;
    }
    if (!value->numbers || value->dtype != dtype) return NULL;
    *count = value->count;
    return value->numbers;
}

const float *hub_gguf_floats(HubGguf *gguf, const char *key, size_t *count) {
    return numbers(gguf, key, MLX_FLOAT32, count);
}

const int32_t *hub_gguf_ints(HubGguf *gguf, const char *key, size_t *count) {
    return numbers(gguf, key, MLX_INT32, count);
}

bool hub_gguf_number(HubGguf *gguf, const char *key, double *value) {
    bool present = false;
    if (mlx_io_gguf_has_metadata_array(&present, gguf->io, key) != 0 || !present) return false;
    mx_scope scope = mx_open();
    mlx_array array = mlx_array_new();
    mlx_io_gguf_get_metadata_array(&array, gguf->io, key);
    array = mx_own(array);
    bool one = mx_size(array) == 1;
    if (one) {
        if (mx_dtype(array) == MLX_BOOL) array = mx_cast(array, MLX_INT32);
        *value = mx_is_float(mx_dtype(array)) ? mx_item_float(array) : (double)mx_item_int(array);
    }
    mx_drop(scope);
    return mx_check(NULL) && one;
}

/* ---- tensors ----------------------------------------------------------------- */

/* Tensors that become settings of the config. */
static const char *const settings[] = {"rope_freqs.weight", "rope_factors_long.weight",
                                       "rope_factors_short.weight"};

static const char *const leaves[] = {"weight", "scales", "biases", "bias"};

static int64_t setting_of(const HubGguf *gguf, const char *key) {
    return json_integer_value(json_object_get(gguf->config, key));
}

/* The array as the model keeps it; owned by the open scope. */
static mlx_array adapt(const HubGguf *gguf, const GgufName *rename, mlx_array a) {
    if (rename->flags & (GGUF_PERMUTE_HEADS | GGUF_PERMUTE_KV_HEADS)) {
        bool all = (rename->flags & GGUF_PERMUTE_HEADS) != 0;
        int heads = (int)setting_of(gguf, all ? "num_attention_heads" : "num_key_value_heads");
        if (mx_ndim(a) > 2 || mx_dim(a, 0) % (2 * heads) != 0)
            return mx_fail("its %d rows are not of %d heads", mx_dim(a, 0), heads);
        a = gguf_swap_halves(a, heads, false);
    }
    if ((rename->flags & GGUF_NORM) && (gguf->arch->bit & GGUF_GEMMAS))
        a = mx_add_scalar(mx_cast(a, MLX_FLOAT32), -1);
    if ((rename->flags & GGUF_TABLE) && mx_ndim(a) == 1) a = mx_expand_dims(a, 0);
    return mx_is_float(mx_dtype(a)) ? mx_cast(a, gguf->dtype) : a;
}

/* Adds the parts of one module that the file has. Sets *found when it has a
 * weight. */
static bool add_module(HubGguf *gguf, const GgufName *rename, const char *from, const char *to,
                       bool *found, Error *err) {
    *found = false;
    for (size_t i = 0; i < BASE_COUNT(leaves); i++) {
        char *name = base_format("%s.%s", from, leaves[i]);
        mx_scope scope = mx_open();
        mlx_array array = mlx_array_new();
        bool good = true;
        if (mlx_io_gguf_get_array(&array, gguf->io, name) == 0) {
            array = adapt(gguf, rename, mx_own(array));
            good = mx_check(err) || base_error_context(err, "%s", name);
            if (good) {
                gguf->tensors = base_grow(gguf->tensors, &gguf->capacity, gguf->count + 1,
                                          sizeof *gguf->tensors);
                gguf->tensors[gguf->count++] = (HubTensor){
                    .name = base_format("%s.%s", to, leaves[i]), .array = mx_keep(array)};
                if (i == 0) *found = true;
            }
        }
        mx_drop(scope);
        free(name);
        if (!good) return false;
    }
    return true;
}

/* The modules of a layer, or those outside of layers (-1). */
static bool add_rows(HubGguf *gguf, int layer, Error *err) {
    const char *stem = gguf_layer_stem(gguf->arch);
    const unsigned other = gguf_has_experts(gguf->config) ? GGUF_FEED_FORWARD : GGUF_EXPERTS;
    size_t count;
    const GgufName *rows = gguf_names(layer >= 0, &count);
    for (size_t i = 0; i < count; i++) {
        if (!(rows[i].archs & gguf->arch->bit) || (rows[i].flags & other)) continue;
        char *from =
            layer < 0 ? base_strdup(rows[i].gguf) : base_format("blk.%d.%s", layer, rows[i].gguf);
        char *to = layer < 0 ? base_strdup(rows[i].model)
                             : base_format("%s.%d.%s", stem, layer, rows[i].model);
        bool found = false;
        bool good = add_module(gguf, &rows[i], from, to, &found, err);
        if (good && !found && rows[i].required)
            good = base_fail(err, ERROR_INPUT, "tensor %s.weight is missing", from);
        free(from);
        free(to);
        if (!good) return false;
    }
    return true;
}

/* Every tensor of the file must have found a place: a model with parts that
 * this program does not know would compute something else. */
static bool is_known(const HubGguf *gguf, const char *name) {
    for (size_t i = 0; i < BASE_COUNT(settings); i++)
        if (strcmp(settings[i], name) == 0) return true;
    const char *module = name;
    size_t count;
    const GgufName *rows = gguf_names(false, &count);
    if (base_starts_with(name, "blk.")) {
        char *end = NULL;
        long layer = strtol(name + 4, &end, 10);
        if (layer < 0 || layer >= setting_of(gguf, "num_hidden_layers") || *end != '.')
            return false;
        module = end + 1;
        rows = gguf_names(true, &count);
    }
    const unsigned other = gguf_has_experts(gguf->config) ? GGUF_FEED_FORWARD : GGUF_EXPERTS;
    const char *dot = strrchr(module, '.');
    if (!dot) return false;
    bool leaf = false;
    for (size_t i = 0; i < BASE_COUNT(leaves); i++) leaf |= strcmp(dot + 1, leaves[i]) == 0;
    for (size_t i = 0; i < count && leaf; i++)
        if ((rows[i].archs & gguf->arch->bit) && !(rows[i].flags & other) &&
            strlen(rows[i].gguf) == (size_t)(dot - module) &&
            strncmp(rows[i].gguf, module, (size_t)(dot - module)) == 0)
            return true;
    return false;
}

static bool check_known(const HubGguf *gguf, const mlx_vector_string keys, Error *err) {
    for (size_t i = 0; i < mlx_vector_string_size(keys); i++) {
        char *name = NULL;
        mlx_vector_string_get(&name, keys, i);
        if (!name || is_known(gguf, name)) continue;
        base_fail(err, ERROR_UNSUPPORTED, "tensor %.200s is not one of a %s model", name,
                  gguf->arch->name);
        return base_hint(err, "The model has parts that are not supported yet.");
    }
    return true;
}

/* ---- settings that follow from the tensors ---------------------------------------- */

static mlx_array find(const HubGguf *gguf, const char *name) {
    for (size_t i = 0; i < gguf->count; i++)
        if (strcmp(gguf->tensors[i].name, name) == 0) return gguf->tensors[i].array;
    return (mlx_array){0};
}

/* float16 as MLX reads GGUF, unless the file is float32 throughout. */
static mlx_dtype natural_dtype(const HubGguf *gguf, const mlx_vector_string keys) {
    for (size_t i = 0; i < mlx_vector_string_size(keys); i++) {
        char *name = NULL;
        mlx_array array = mlx_array_new();
        mlx_vector_string_get(&name, keys, i);
        bool matrix =
            name && mlx_io_gguf_get_array(&array, gguf->io, name) == 0 && mlx_array_ndim(array) > 1;
        bool narrow = matrix && mlx_array_dtype(array) != MLX_FLOAT32;
        mlx_array_free(array);
        if (narrow) return MLX_FLOAT16;
    }
    return MLX_FLOAT32;
}

/* Bits a value of packed weight i takes; 0 for other tensors, -1 for a dense
 * matrix of a kind that could be packed. The group is 32 always. */
static int width_of(const HubGguf *gguf, size_t i, char **path) {
    const char *name = gguf->tensors[i].name;
    mlx_array weight = gguf->tensors[i].array;
    if (!base_ends_with(name, ".weight") || mlx_array_ndim(weight) < 2) return 0;
    *path = base_strndup(name, strlen(name) - strlen(".weight"));
    char *scales_name = base_format("%s.scales", *path);
    mlx_array scales = find(gguf, scales_name);
    free(scales_name);
    if (!scales.ctx || mlx_array_dim(scales, -1) <= 0) return -1;
    return mlx_array_dim(weight, -1) / mlx_array_dim(scales, -1);
}

/* `quantization`: the width of most packed modules for all, and an entry for
 * each module that differs. In words a group of 32 values of b bits is b words,
 * so words a group is bits a value. */
static void describe_packing(HubGguf *gguf) {
    size_t modules[33] = {0};
    for (size_t i = 0; i < gguf->count; i++) {
        char *path = NULL;
        int bits = width_of(gguf, i, &path);
        if (bits > 0 && bits <= 32) modules[bits]++;
        free(path);
    }
    int global = 0;
    for (int bits = 1; bits <= 32; bits++)
        if (modules[bits] > modules[global]) global = bits;
    if (global == 0) return;
    json_t *quantization =
        json_pack("{s:i,s:i,s:s}", "group_size", GGUF_GROUP, "bits", global, "mode", "affine");
    for (size_t i = 0; i < gguf->count; i++) {
        char *path = NULL;
        int bits = width_of(gguf, i, &path);
        if (bits < 0)
            json_object_set_new(quantization, path, json_false());
        else if (bits > 0 && bits != global)
            json_object_set_new(quantization, path,
                                json_pack("{s:i,s:i}", "group_size", GGUF_GROUP, "bits", bits));
        free(path);
    }
    json_object_set_new(gguf->config, "quantization", quantization);
}

static json_t *factor_list(const float *factors, size_t count) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(list, base_json_float(factors[i]));
    return list;
}

/* The float32 values of a one-dimensional tensor; caller frees; NULL when the
 * file has none. */
static float *tensor_floats(const HubGguf *gguf, const char *name, size_t *count) {
    float *data = NULL;
    mx_scope scope = mx_open();
    mlx_array array = mlx_array_new();
    if (mlx_io_gguf_get_array(&array, gguf->io, name) == 0) {
        array = mx_own(array);
        *count = mx_size(array);
        data = base_calloc(*count + 1, sizeof *data);
        if (*count > 0) mx_copy_f32(array, data, *count);
    }
    mx_drop(scope);
    return data;
}

static bool read_rope_tensors(HubGguf *gguf, Error *err) {
    size_t count = 0, long_count = 0, short_count = 0;
    float *freqs = tensor_floats(gguf, "rope_freqs.weight", &count);
    float *longs = tensor_floats(gguf, "rope_factors_long.weight", &long_count);
    float *shorts = tensor_floats(gguf, "rope_factors_short.weight", &short_count);
    bool good = mx_check(err);
    if (good && freqs) good = gguf_rope_llama3(gguf->config, freqs, count, err);
    if (good && (longs || shorts)) {
        if (!longs || !shorts || long_count != short_count)
            good = base_fail(err, ERROR_INPUT,
                             "rope_factors_long and rope_factors_short do not belong together");
        else
            json_object_set_new(gguf->config, "rope_scaling",
                                json_pack("{s:s,s:s,s:o,s:o}", "type", "longrope", "rope_type",
                                          "longrope", "long_factor", factor_list(longs, long_count),
                                          "short_factor", factor_list(shorts, short_count)));
    }
    free(freqs);
    free(longs);
    free(shorts);
    return good;
}

static bool check_embedding(HubGguf *gguf, Error *err) {
    bool bert = gguf->arch->bit == GGUF_BERT;
    mlx_array table =
        find(gguf, bert ? "embeddings.word_embeddings.weight" : "model.embed_tokens.weight");
    size_t tokens = 0;
    hub_gguf_strings(gguf, "tokenizer.ggml.tokens", &tokens);
    int rows = mlx_array_ndim(table) == 2 ? mlx_array_dim(table, 0) : 0;
    if (rows <= 0) return base_fail(err, ERROR_INPUT, "token_embd.weight must be a matrix");
    if (tokens > (size_t)rows)
        return base_fail(err, ERROR_INPUT,
                         "the vocabulary has %zu tokens, token_embd.weight %d rows", tokens, rows);
    json_object_set_new(gguf->config, "vocab_size", json_integer(rows));
    return true;
}

static bool finish_config(HubGguf *gguf, Error *err) {
    if (!check_embedding(gguf, err) || !read_rope_tensors(gguf, err)) return false;
    json_t *config = gguf->config;
    json_object_set_new(config, "torch_dtype", json_string(mx_dtype_name(gguf->dtype)));
    if (gguf->arch->bit == GGUF_BERT) {
        mlx_array types = find(gguf, "embeddings.token_type_embeddings.weight");
        json_object_set_new(config, "type_vocab_size", json_integer(mlx_array_dim(types, 0)));
        json_object_set_new(config, "position_embedding_type", json_string("absolute"));
    } else {
        bool tied = find(gguf, "lm_head.weight").ctx == NULL;
        bool attention = find(gguf, "model.layers.0.self_attn.o_proj.bias").ctx != NULL ||
                         (gguf->arch->bit != GGUF_QWEN2 &&
                          find(gguf, "model.layers.0.self_attn.q_proj.bias").ctx != NULL);
        bool mlp = find(gguf, "model.layers.0.mlp.up_proj.bias").ctx != NULL;
        json_object_set_new(config, "tie_word_embeddings", json_boolean(tied));
        json_object_set_new(config, "attention_bias", json_boolean(attention));
        json_object_set_new(config, "mlp_bias", json_boolean(mlp));
    }
    describe_packing(gguf);
    return true;
}

/* ---- the face ------------------------------------------------------------------------ */

static bool read_config(HubGguf *gguf, Error *err) {
    gguf->arch = gguf_arch_find(gguf, err);
    if (!gguf->arch) return false;
    gguf->config = gguf_config_make(gguf, gguf->arch, err);
    return gguf->config != NULL;
}

static bool read_tensors(HubGguf *gguf, mlx_vector_string keys, Error *err) {
    if (!check_known(gguf, keys, err)) return false;
    if (!add_rows(gguf, -1, err)) return false;
    int64_t count = setting_of(gguf, "num_hidden_layers");
    for (int layer = 0; layer < count; layer++)
        if (!add_rows(gguf, layer, err)) return false;
    return finish_config(gguf, err);
}

/* Asked here too, because the official engine says nothing a reader could use. */
static bool is_gguf(const char *file, Error *err) {
    MappedFile map;
    if (!base_map_open(file, &map, err)) return false;
    const bool is = map.length >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    base_map_close(&map);
    return is || base_fail(err, ERROR_INPUT, "%s: not a GGUF file", file);
}

static bool read_model(HubGguf *gguf, const char *file, const char *dtype, Error *err) {
    if (!base_is_file(file)) return base_fail(err, ERROR_IO, "%s: no such file", file);
    if (!is_gguf(file, err)) return false;
    mlx_dtype wanted = MLX_FLOAT16;
    if (dtype && (!mx_dtype_parse(dtype, &wanted) || !mx_is_float(wanted)))
        return base_fail(err, ERROR_INPUT, "unknown dtype \"%.32s\" (float16, bfloat16 or float32)",
                         dtype);
    if (mlx_load_gguf(&gguf->io, file, mx_stream()) != 0) return mx_file_failed(file, err);
    mlx_vector_string keys = mlx_vector_string_new();
    mlx_io_gguf_get_keys(&keys, gguf->io);
    gguf->dtype = dtype ? wanted : natural_dtype(gguf, keys);
    bool good = read_config(gguf, err) && read_tensors(gguf, keys, err);
    mlx_vector_string_free(keys);
    return good || base_error_context(err, "%s", file);
}

HubGguf *hub_gguf_open(const char *file, const HubGgufOptions *options, Error *err) {
    HubGguf *gguf = base_calloc(1, sizeof *gguf);
    gguf->io = mlx_io_gguf_new();
    gguf->shard_bytes = options ? options->shard_bytes : 0;
    mx_scope scope = mx_open();
    bool good = read_model(gguf, file, options ? options->dtype : NULL, err);
    mx_drop(scope);
    if (good) return gguf;
    hub_gguf_free(gguf);
    return NULL;
}

void hub_gguf_free(HubGguf *gguf) {
    if (!gguf) return;
    for (Value *value = gguf->values, *next; value; value = next) {
        next = value->next;
        value_free(value);
    }
    hub_tensors_free(gguf->tensors, gguf->count);
    json_decref(gguf->config);
    mlx_io_gguf_free(gguf->io);
    free(gguf);
}

const json_t *hub_gguf_config(const HubGguf *gguf) {
    return gguf->config;
}

const HubTensor *hub_gguf_tensors(const HubGguf *gguf, size_t *count) {
    *count = gguf->count;
    return gguf->tensors;
}

void hub_gguf_forget_tensors(HubGguf *gguf) {
    hub_tensors_free(gguf->tensors, gguf->count);
    gguf->tensors = NULL;
    gguf->count = gguf->capacity = 0;
    /* The engine cannot drop an array of its file; an empty one takes its place. */
    mlx_vector_string keys = mlx_vector_string_new();
    mlx_array nothing = mlx_array_new_float(0);
    mlx_io_gguf_get_keys(&keys, gguf->io);
    for (size_t i = 0; i < mlx_vector_string_size(keys); i++) {
        char *name = NULL;
        mlx_vector_string_get(&name, keys, i);
        if (name) mlx_io_gguf_set_array(gguf->io, name, nothing);
    }
    mlx_array_free(nothing);
    mlx_vector_string_free(keys);
}

uint64_t hub_gguf_shard_bytes(const HubGguf *gguf) {
    return gguf->shard_bytes;
}
