/* A model folder, opened: its config and the tensors of all its shards under
 * their names. The shards stay mapped; nothing is copied. */
#include "hub/internal.h"
#include "hub/torch.h"

#include <stdlib.h>
#include <string.h>

/* A tensor and the file that it came from. */
typedef struct Entry {
    HubTensor tensor;
    size_t shard;
} Entry;

/* How weights lie in a folder: files, and the index that may name them. */
typedef struct Layout {
    const char *prefix, *suffix, *index;
    bool (*load)(const char *path, MxFileVisitor visitor, Error *err);
} Layout;

struct HubModel {
    const Layout *layout;
    char *folder;
    json_t *config;
    const json_t *quantization; /* of config, or NULL */
    MxQuant global;             /* group_size 0 when there is none */
    Entry *entries;             /* by name */
    char **shards;              /* file names */
    size_t count, capacity, shard_count, shard_capacity;
};

/* ---- helpers of the room ------------------------------------------------- */

uint64_t hub_logical_size(mlx_array weight, int bits) {
    uint64_t size = mlx_array_size(weight);
    return bits > 0 ? size * 32 / (uint64_t)bits : size;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const HubTensor *)a)->name, ((const HubTensor *)b)->name);
}

void hub_tensors_sort(HubTensor *tensors, size_t count) {
    if (count > 1) qsort(tensors, count, sizeof *tensors, by_name);
}

void hub_tensors_free(HubTensor *tensors, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(tensors[i].name);
        mlx_array_free(tensors[i].array);
    }
    free(tensors);
}

/* ---- loading -------------------------------------------------------------- */

static bool load_safetensors(const char *path, MxFileVisitor visitor, Error *err) {
    mlx_map_string_to_array arrays = mlx_map_string_to_array_new();
    mlx_map_string_to_string texts = mlx_map_string_to_string_new();
    bool loaded = mlx_load_safetensors(&arrays, &texts, path, mx_stream()) == 0;
    if (loaded) {
        mlx_map_string_to_array_iterator it = mlx_map_string_to_array_iterator_new(arrays);
        const char *name = NULL;
        mlx_array array = mlx_array_new();
        while (mlx_map_string_to_array_iterator_next(&name, &array, it) == 0)
            visitor.tensor(visitor.context, name, array);
        mlx_array_free(array);
        mlx_map_string_to_array_iterator_free(it);
    } else {
        mx_file_failed(path, err);
    }
    mlx_map_string_to_array_free(arrays);
    mlx_map_string_to_string_free(texts);
    return loaded;
}

static const Layout layouts[] = {
    {"model", ".safetensors", "model.safetensors.index.json", load_safetensors},
    {"pytorch_model", ".bin", "pytorch_model.bin.index.json", hub_torch_load},
    {"model", ".pt", "model.pt.index.json", hub_torch_load},
};

/* Where the tensors of one shard go. */
typedef struct Loading {
    HubModel *model;
    size_t shard;
} Loading;

static void add_tensor(void *context, const char *name, mlx_array array) {
    Loading *loading = context;
    HubModel *model = loading->model;
    model->entries =
        base_grow(model->entries, &model->capacity, model->count + 1, sizeof *model->entries);
    model->entries[model->count++] = (Entry){
        .tensor = {.name = base_strdup(name), .array = mx_keep(array)}, .shard = loading->shard};
}

static bool load_shard(HubModel *model, size_t shard, Error *err) {
    char *path = base_path_join(model->folder, model->shards[shard]);
    Loading loading = {model, shard};
    MxFileVisitor visitor = {.tensor = add_tensor, .context = &loading};
    bool loaded =
        base_path_inside(model->folder, path, err) && model->layout->load(path, visitor, err);
    if (!loaded && err && err->code == ERROR_INPUT && !err->hint[0])
        base_hint(err, "The file may be truncated: download or convert the model again.");
    free(path);
    return loaded;
}

/* Fails: with the index whose files are all missing, where there is one. */
static bool no_shards(const HubModel *model, Error *err) {
    for (size_t i = 0; i < BASE_COUNT(layouts); i++) {
        char *path = base_path_join(model->folder, layouts[i].index);
        const bool indexed = base_is_file(path);
        if (indexed) base_fail(err, ERROR_INPUT, "%s: none of the shards it names is there", path);
        free(path);
        if (indexed) return base_hint(err, "Download or convert the model again.");
    }
    return base_fail(err, ERROR_INPUT,
                     "%s: no model*.safetensors in this folder, and no pytorch_model*.bin",
                     model->folder);
}

/* The files of the first layout that the folder has. */
static bool find_shards(HubModel *model, Error *err) {
    char **names = NULL;
    size_t count = 0;
    if (!base_list_dir(model->folder, &names, &count, err)) return false;
    for (size_t i = 0; i < BASE_COUNT(layouts) && model->shard_count == 0; i++) {
        model->layout = &layouts[i];
        for (size_t j = 0; j < count; j++) {
            if (!base_starts_with(names[j], layouts[i].prefix) ||
                !base_ends_with(names[j], layouts[i].suffix))
                continue;
            model->shards = base_grow(model->shards, &model->shard_capacity, model->shard_count + 1,
                                      sizeof *model->shards);
            model->shards[model->shard_count++] = base_strdup(names[j]);
        }
    }
    for (size_t i = 0; i < count; i++) free(names[i]);
    free(names);
    return model->shard_count > 0 || no_shards(model, err);
}

static bool has_shard(const HubModel *model, const char *name) {
    for (size_t i = 0; i < model->shard_count; i++)
        if (strcmp(model->shards[i], name) == 0) return true;
    return false;
}

/* Every shard that the index names must be there: a download that stopped
 * half-way is the usual reason that it is not. */
static bool check_shards(const HubModel *model, const char *path, json_t *map, Error *err) {
    const char *tensor;
    json_t *file;
    json_object_foreach(map, tensor, file) {
        const char *shard = json_string_value(file);
        if (!shard)
            return base_fail(err, ERROR_INPUT, "%s: weight_map of %s is not a file name", path,
                             tensor);
        if (!has_shard(model, shard)) {
            base_fail(err, ERROR_INPUT, "%s: shard %s is missing", path, shard);
            return base_hint(err, "Download or convert the model again.");
        }
    }
    return true;
}

/* And every tensor. */
static bool check_tensors(const HubModel *model, const char *path, json_t *map, Error *err) {
    const char *tensor;
    json_t *file;
    json_object_foreach(map, tensor, file) {
        if (hub_model_tensor(model, tensor).ctx) continue;
        base_fail(err, ERROR_INPUT, "%s: tensor %s is not in %s", path, tensor,
                  json_string_value(file));
        return base_hint(err, "Download or convert the model again.");
    }
    return true;
}

static int by_entry_name(const void *a, const void *b) {
    return strcmp(((const Entry *)a)->tensor.name, ((const Entry *)b)->tensor.name);
}

static bool load_shards(HubModel *model, Error *err) {
    for (size_t i = 0; i < model->shard_count; i++)
        if (!load_shard(model, i, err)) return false;
    if (model->count > 1)
        qsort(model->entries, model->count, sizeof *model->entries, by_entry_name);
    for (size_t i = 1; i < model->count; i++) {
        const Entry *one = &model->entries[i - 1], *other = &model->entries[i];
        if (strcmp(one->tensor.name, other->tensor.name) != 0) continue;
        base_fail(err, ERROR_INPUT, "%s: both %s and %s hold tensor %s", model->folder,
                  model->shards[one->shard], model->shards[other->shard], one->tensor.name);
        return base_hint(err, "Remove the file that does not belong to this model.");
    }
    return true;
}

static bool load_weights(HubModel *model, Error *err) {
    if (!find_shards(model, err)) return false;
    char *path = base_path_join(model->folder, model->layout->index);
    bool indexed = base_is_file(path);
    bool inside = base_path_inside(model->folder, path, err);
    json_t *index = indexed && inside ? base_json_load(path, err) : NULL;
    json_t *map = json_object_get(index, "weight_map");
    bool good = index || !indexed;
    if (index && !json_is_object(map))
        good = base_fail(err, ERROR_INPUT, "%s: weight_map is not an object", path);
    good = good && check_shards(model, path, map, err) && load_shards(model, err) &&
           check_tensors(model, path, map, err);
    json_decref(index);
    free(path);
    return good;
}

/* ---- the face -------------------------------------------------------------- */

HubModel *hub_model_open(const char *folder, Error *err) {
    json_t *config = hub_config_load(folder, err);
    if (!config) return NULL;
    HubModel *model = base_calloc(1, sizeof *model);
    model->folder = base_strdup(folder);
    model->config = config;
    model->quantization = hub_config_quantization(config);
    hub_quantization_global(model->quantization, &model->global);
    mx_scope scope = mx_open();
    bool loaded = load_weights(model, err);
    mx_drop(scope);
    if (!loaded) {
        hub_model_free(model);
        return NULL;
    }
    return model;
}

void hub_model_free(HubModel *model) {
    if (!model) return;
    for (size_t i = 0; i < model->count; i++) {
        free(model->entries[i].tensor.name);
        mlx_array_free(model->entries[i].tensor.array);
    }
    for (size_t i = 0; i < model->shard_count; i++) free(model->shards[i]);
    free(model->entries);
    free(model->shards);
    free(model->folder);
    json_decref(model->config);
    free(model);
}

const char *hub_model_folder(const HubModel *model) {
    return model->folder;
}

const json_t *hub_model_config(const HubModel *model) {
    return model->config;
}

size_t hub_model_count(const HubModel *model) {
    return model->count;
}

size_t hub_model_shards(const HubModel *model) {
    return model->shard_count;
}

const char *hub_model_name(const HubModel *model, size_t index) {
    return index < model->count ? model->entries[index].tensor.name : NULL;
}

mlx_array hub_model_tensor(const HubModel *model, const char *name) {
    Entry wanted = {.tensor = {.name = (char *)name}};
    const Entry *found = model->count ? bsearch(&wanted, model->entries, model->count,
                                                sizeof *model->entries, by_entry_name)
                                      : NULL;
    return found ? found->tensor.array : (mlx_array){0};
}

bool hub_model_quantization(const HubModel *model, const char *path, MxQuant *quant) {
    if (!model->quantization) return false;
    HubQuantEntry entry = hub_quantization_entry(model->quantization, path, quant);
    if (entry != HUB_ENTRY_ABSENT) return entry == HUB_ENTRY_QUANTISED;
    char *scales = base_format("%s.scales", path);
    bool packed = hub_model_tensor(model, scales).ctx != NULL;
    free(scales);
    if (packed) *quant = model->global;
    return packed;
}

size_t hub_model_eos(const HubModel *model, int *ids, size_t capacity) {
    return hub_config_eos(model->config, ids, capacity);
}
