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

bool hub_tensors_save(const char *file, const HubTensor *tensors, size_t count, Error *err) {
    HubTensor *copy = base_calloc(count + 1, sizeof *copy);
    memcpy(copy, tensors, count * sizeof *copy);
    mx_scope scope = mx_open();
    bool saved = hub_tensors_stream(file, copy, count, NULL, 0, NULL, err);
    mx_drop(scope);
    free(copy);
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

static int by_name(const void *a, const void *b) {
    return strcmp((*(HubTensor *const *)a)->name, (*(HubTensor *const *)b)->name);
}

/* mlx-lm counts the parameters of modules without modules in them: not those that a
 * module with parts holds itself, such as a bias on the choice of experts. sorted[at]
 * is the tensor, its module's others stand around it. */
static bool is_counted(const HubTensor *const *sorted, size_t count, size_t at) {
    const char *name = sorted[at]->name, *dot = strrchr(name, '.');
    const size_t module = dot ? (size_t)(dot - name) + 1 : 0;
    if (!dot) return true;
    for (int step = -1; step <= 1; step += 2)
        for (size_t i = at + (size_t)step; i < count; i += (size_t)step) {
            if (strncmp(sorted[i]->name, name, module) != 0) break;
            if (strchr(sorted[i]->name + module, '.')) return false;
        }
    return true;
}

/* The index of the shards, to be written when they are. */
static json_t *make_index(const HubTensor *tensors, size_t count, const size_t *shard,
                          size_t shards, const json_t *quantization) {
    uint64_t bytes = 0, parameters = 0;
    const HubTensor **sorted = base_calloc(count + 1, sizeof *sorted);
    for (size_t i = 0; i < count; i++) sorted[i] = &tensors[i];
    qsort(sorted, count, sizeof *sorted, by_name);
    json_t *map = json_object();
    for (size_t i = 0; i < count; i++) {
        char name[NAME_BYTES];
        shard_name(shard[sorted[i] - tensors], shards, name);
        json_object_set_new(map, sorted[i]->name, json_string(name));
        bytes += mlx_array_nbytes(sorted[i]->array);
        if (is_counted(sorted, count, i)) parameters += logical_size(sorted[i], quantization);
    }
    free(sorted);
    return json_pack("{s:{s:I,s:I},s:o}", "metadata", "total_size", (json_int_t)bytes,
                     "total_parameters", (json_int_t)parameters, "weight_map", map);
}

bool hub_weights_stream(const char *folder, HubTensor *tensors, size_t count, const json_t *config,
                        const HubSave *how, Error *err) {
    uint64_t limit = how && how->shard_bytes ? how->shard_bytes : (uint64_t)5 << 30;
    size_t *shard = base_calloc(count + 1, sizeof *shard);
    size_t shards = assign_shards(tensors, count, limit, shard);
    json_t *index = make_index(tensors, count, shard, shards, hub_config_quantization(config));
    mx_scope scope = mx_open();
    bool saved = true;
    for (size_t i = 0; i < shards && saved; i++) {
        char name[NAME_BYTES];
        shard_name(i, shards, name);
        char *path = base_path_join(folder, name);
        saved = hub_tensors_stream(path, tensors, count, shard, i, how, err);
        free(path);
    }
    mx_drop(scope);
    char *path = base_path_join(folder, "model.safetensors.index.json");
    saved = saved && base_json_save_ordered(path, index, err);
    free(path);
    json_decref(index);
    free(shard);
    return saved;
}

bool hub_weights_save(const char *folder, const HubTensor *tensors, size_t count,
                      const json_t *config, uint64_t shard_bytes, Error *err) {
    HubTensor *copy = base_calloc(count + 1, sizeof *copy);
    memcpy(copy, tensors, count * sizeof *copy);
    HubSave how = {.shard_bytes = shard_bytes};
    bool saved = hub_weights_stream(folder, copy, count, config, &how, err);
    free(copy);
    return saved;
}
