/* What a person wants to know about a model folder before using it. */
#include "hub/internal.h"

#include <stdlib.h>
#include <string.h>

static int64_t number_at(const json_t *config, const char *const *keys, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        if (json_is_integer(value)) return json_integer_value(value);
    }
    return 0;
}

/* Sizes under the names that the architectures give them. Wrapped models keep
 * them in text_config. */
static void read_sizes(const json_t *config, HubInfo *info) {
    static const struct {
        size_t field;
        const char *keys[4];
    } sizes[] = {
        {offsetof(HubInfo, layers), {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}},
        {offsetof(HubInfo, hidden_size), {"hidden_size", "n_embd", "d_model", "dim"}},
        {offsetof(HubInfo, heads), {"num_attention_heads", "n_head", "n_heads", "num_heads"}},
        {offsetof(HubInfo, kv_heads), {"num_key_value_heads", "n_kv_heads", "num_kv_heads", ""}},
        {offsetof(HubInfo, vocab_size), {"vocab_size", "n_vocab", "", ""}},
        {offsetof(HubInfo, context),
         {"max_position_embeddings", "n_positions", "n_ctx", "seq_length"}},
    };
    const json_t *text = json_object_get(config, "text_config");
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        int64_t value = number_at(config, sizes[i].keys, 4);
        if (value == 0) value = number_at(text, sizes[i].keys, 4);
        memcpy((char *)info + sizes[i].field, &value, sizeof value);
    }
    if (info->kv_heads == 0) info->kv_heads = info->heads;
}

static void note_dtype(HubInfo *info, mlx_array tensor) {
    mlx_dtype dtype = mlx_array_dtype(tensor);
    if (!mx_is_float(dtype)) return;
    const char *name = mx_dtype_name(dtype);
    if (info->dtype[0] == '\0')
        snprintf(info->dtype, sizeof info->dtype, "%s", name);
    else if (strcmp(info->dtype, name) != 0)
        snprintf(info->dtype, sizeof info->dtype, "mixed");
}

static void count_weights(const HubModel *model, HubInfo *info) {
    const char *name;
    for (size_t i = 0; (name = hub_model_name(model, i)) != NULL; i++) {
        mlx_array tensor = hub_model_tensor(model, name);
        info->weight_bytes += mlx_array_nbytes(tensor);
        size_t path_length = strlen(name);
        bool weight = base_ends_with(name, ".weight");
        bool part = base_ends_with(name, ".scales") || base_ends_with(name, ".biases");
        if (weight || part) path_length -= strlen(".weight");
        char *path = base_strndup(name, path_length);
        MxQuant quant;
        bool packed = (weight || part) && hub_model_quantization(model, path, &quant);
        free(path);
        if (packed && part) continue;
        info->parameters += hub_logical_size(tensor, packed ? quant.bits : 0);
        if (!packed) note_dtype(info, tensor);
    }
    if (info->parameters > 0)
        info->bits_per_weight = (double)info->weight_bytes * 8 / (double)info->parameters;
}

/* What a tokenizer.json says of its model, or the name of another file. */
static void read_tokenizer(const char *folder, HubInfo *info) {
    static const char *const others[] = {"tekken.json",  "tokenizer.model", "tiktoken.model",
                                         "spiece.model", "vocab.txt",       "vocab.json"};
    char *path = base_path_join(folder, "tokenizer.json");
    bool found = base_is_file(path);
    if (found && base_path_inside(folder, path, NULL)) {
        json_t *tokenizer = base_json_load(path, NULL);
        const char *type =
            json_string_value(json_object_get(json_object_get(tokenizer, "model"), "type"));
        snprintf(info->tokenizer, sizeof info->tokenizer, "%s", type ? type : "unknown");
        json_decref(tokenizer);
    }
    free(path);
    for (size_t i = 0; !found && i < BASE_COUNT(others); i++) {
        path = base_path_join(folder, others[i]);
        found = base_is_file(path);
        if (found) snprintf(info->tokenizer, sizeof info->tokenizer, "%s", others[i]);
        free(path);
    }
    char **names = NULL;
    size_t count = 0;
    if (!found) base_list_dir(folder, &names, &count, NULL);
    for (size_t i = 0; i < count; i++) {
        if (base_ends_with(names[i], ".tiktoken"))
            snprintf(info->tokenizer, sizeof info->tokenizer, "%s", names[i]);
        free(names[i]);
    }
    free(names);
}

bool hub_model_info(const char *folder, HubInfo *info, Error *err) {
    *info = (HubInfo){0};
    HubModel *model = hub_model_open(folder, err);
    if (!model) return false;
    const json_t *config = hub_model_config(model);
    snprintf(info->architecture, sizeof info->architecture, "%s",
             json_string_value(json_object_get(config, "model_type")));
    MxQuant quant;
    if (hub_quantization_global(hub_config_quantization(config), &quant)) {
        info->bits = quant.bits;
        info->group_size = quant.group_size;
        snprintf(info->mode, sizeof info->mode, "%s", quant.mode);
    }
    info->tensors = hub_model_count(model);
    info->shards = hub_model_shards(model);
    read_sizes(config, info);
    count_weights(model, info);
    read_tokenizer(folder, info);
    hub_model_free(model);
    return true;
}
