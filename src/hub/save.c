/* Writing the weights of a model folder: shards and their index, laid out as
 * mlx-lm does. */
#include "hub/internal.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 64 };

/* Shard of each tensor: packed greedily in the order given, a new one when the
 * next tensor would pass the limit. Returns the number of shards. */
static size_t assign_shards(const HubTensor *tensors, size_t count, uint64_t limit, size_t *shard) {
    size_t shards = 1;
    uint64_t used = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = mlx_array_nbytes(tensors[i].array);
        if (used > 0 && used + bytes > limit) {
            shards++;
            used = 0;
        }
        used += bytes;
        shard[i] = shards - 1;
    }
    return shards;
}

static void shard_name(size_t index, size_t shards, char name[NAME_BYTES]) {
    if (shards == 1)
        snprintf(name, NAME_BYTES, "model.safetensors");
    else
        snprintf(name, NAME_BYTES, "model-%05zu-of-%05zu.safetensors", index + 1, shards);
}

/* The tensors whose shard is `index`; all of them when `shard` is NULL. */
static bool save_file(const char *path, const HubTensor *tensors, size_t count, const size_t *shard,
                      size_t index, Error *err) {
    mlx_map_string_to_array arrays = mlx_map_string_to_array_new();
    mlx_map_string_to_string texts = mlx_map_string_to_string_new();
    mlx_map_string_to_string_insert(texts, "format", "mlx");
    for (size_t i = 0; i < count; i++)
        if (!shard || shard[i] == index)
            mlx_map_string_to_array_insert(arrays, tensors[i].name, tensors[i].array);
    bool saved = mlx_save_safetensors(path, arrays, texts) == 0;
    if (!saved) {
        Error failure = {0};
        hub_engine_failed(path, &failure);
        base_fail(err, ERROR_IO, "%s", failure.message);
    }
    mlx_map_string_to_array_free(arrays);
    mlx_map_string_to_string_free(texts);
    return saved;
}

bool hub_tensors_save(const char *file, const HubTensor *tensors, size_t count, Error *err) {
    mx_scope scope = mx_open();
    bool saved = save_file(file, tensors, count, NULL, 0, err);
    mx_drop(scope);
    return saved;
}

static bool save_shard(const char *folder, const HubTensor *tensors, size_t count,
                       const size_t *shard, size_t index, size_t shards, Error *err) {
    char name[NAME_BYTES];
    shard_name(index, shards, name);
    char *path = base_path_join(folder, name);
    bool saved = save_file(path, tensors, count, shard, index, err);
    free(path);
    return saved;
}

/* Values that a tensor stands for in the count of parameters: those packed into
 * a weight, none for its scales and biases. `quantization` may be NULL. */
static uint64_t logical_size(const HubTensor *tensor, const json_t *quantization) {
    const char *dot = strrchr(tensor->name, '.');
    if (!quantization || !dot) return hub_logical_size(tensor->array, 0);
    bool weight = strcmp(dot, ".weight") == 0 && mlx_array_dtype(tensor->array) == MLX_UINT32;
    bool part = strcmp(dot, ".scales") == 0 || strcmp(dot, ".biases") == 0;
    if (part) return 0;
    if (!weight) return hub_logical_size(tensor->array, 0);
    char *path = base_strndup(tensor->name, (size_t)(dot - tensor->name));
    MxQuant quant = {0};
    if (hub_quantization_entry(quantization, path, &quant) != HUB_ENTRY_QUANTISED)
        hub_quantization_global(quantization, &quant);
    free(path);
    return hub_logical_size(tensor->array, quant.bits);
}

static bool save_index(const char *folder, const HubTensor *tensors, size_t count,
                       const size_t *shard, size_t shards, const json_t *quantization, Error *err) {
    uint64_t bytes = 0, parameters = 0;
    json_t *map = json_object();
    for (size_t i = 0; i < count; i++) {
        char name[NAME_BYTES];
        shard_name(shard[i], shards, name);
        json_object_set_new(map, tensors[i].name, json_string(name));
        bytes += mlx_array_nbytes(tensors[i].array);
        parameters += logical_size(&tensors[i], quantization);
    }
    json_t *index = json_pack("{s:{s:I,s:I},s:o}", "metadata", "total_size", (json_int_t)bytes,
                              "total_parameters", (json_int_t)parameters, "weight_map", map);
    char *path = base_path_join(folder, "model.safetensors.index.json");
    bool saved = base_json_save(path, index, err);
    free(path);
    json_decref(index);
    return saved;
}

bool hub_weights_save(const char *folder, const HubTensor *tensors, size_t count,
                      const json_t *config, uint64_t shard_bytes, Error *err) {
    uint64_t limit = shard_bytes ? shard_bytes : (uint64_t)5 << 30;
    size_t *shard = base_calloc(count + 1, sizeof *shard);
    size_t shards = assign_shards(tensors, count, limit, shard);
    mx_scope scope = mx_open();
    bool saved = true;
    for (size_t i = 0; i < shards && saved; i++)
        saved = save_shard(folder, tensors, count, shard, i, shards, err);
    saved = saved &&
            save_index(folder, tensors, count, shard, shards, hub_config_quantization(config), err);
    mx_drop(scope);
    free(shard);
    return saved;
}
