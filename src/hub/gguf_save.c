/* Writing a GGUF model's config, stop ids and weights into a folder. An encoder
 * also gets sentence-transformers' description of how its vectors are made. */
#include "hub/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { STOP_IDS = 64 };

static bool save_json(const char *folder, const char *name, json_t *value, Error *err) {
    char *path = base_path_join(folder, name);
    bool saved = value ? base_json_save(path, value, err)
                       : base_fail(err, ERROR_INTERNAL, "%s: cannot be written as JSON", name);
    free(path);
    json_decref(value);
    return saved;
}

static json_t *generation_config(HubGguf *gguf, json_t *config) {
    int ids[STOP_IDS];
    size_t count = gguf_stop_ids(gguf, ids, STOP_IDS);
    if (count > STOP_IDS) count = STOP_IDS;
    json_t *eos = NULL;
    if (count == 1) eos = json_integer(ids[0]);
    if (count > 1) {
        eos = json_array();
        for (size_t i = 0; i < count; i++) json_array_append_new(eos, json_integer(ids[i]));
    }
    if (!eos) eos = json_incref(json_object_get(config, "eos_token_id"));
    json_t *generation = json_object();
    static const char *const copied[] = {"bos_token_id", "pad_token_id"};
    for (size_t i = 0; i < BASE_COUNT(copied); i++) {
        json_t *id = json_object_get(config, copied[i]);
        if (id) json_object_set(generation, copied[i], id);
    }
    if (eos) {
        json_object_set_new(generation, "eos_token_id", eos);
        json_object_set(config, "eos_token_id", eos);
    }
    return generation;
}

/* sentence-transformers' modules: encoder, pooling, unit length. */
static bool save_pooling(HubGguf *gguf, const char *folder, const json_t *config, Error *err) {
    enum { MEAN = 1, CLS = 2 };
    double type = MEAN;
    hub_gguf_number(gguf, "bert.pooling_type", &type);
    if (type != MEAN && type != CLS)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "bert.pooling_type %g is not known (1 mean, 2 cls)", type);
    json_t *modules = json_pack(
        "[{s:i,s:s,s:s,s:s},{s:i,s:s,s:s,s:s},{s:i,s:s,s:s,s:s}]", "idx", 0, "name", "0", "path",
        "", "type", "sentence_transformers.models.Transformer", "idx", 1, "name", "1", "path",
        "1_Pooling", "type", "sentence_transformers.models.Pooling", "idx", 2, "name", "2", "path",
        "2_Normalize", "type", "sentence_transformers.models.Normalize");
    json_t *pooling = json_pack("{s:O,s:b,s:b}", "word_embedding_dimension",
                                json_object_get(config, "hidden_size"), "pooling_mode_cls_token",
                                type == CLS, "pooling_mode_mean_tokens", type == MEAN);
    json_t *limits =
        json_pack("{s:O,s:b}", "max_seq_length", json_object_get(config, "max_position_embeddings"),
                  "do_lower_case", 0);
    char *pooling_folder = base_path_join(folder, "1_Pooling");
    bool saved = base_make_dirs(pooling_folder, err);
    free(pooling_folder);
    /* All three are consumed, saved or not. */
    saved = save_json(folder, "modules.json", modules, saved ? err : NULL) && saved;
    saved = save_json(folder, "sentence_bert_config.json", limits, saved ? err : NULL) && saved;
    return save_json(folder, "1_Pooling/config.json", pooling, saved ? err : NULL) && saved;
}

bool hub_gguf_save_settings(HubGguf *gguf, const char *folder, json_t *config, Error *err) {
    if (strcmp(json_string_value(json_object_get(config, "model_type")), "bert") == 0)
        return save_pooling(gguf, folder, config, err);
    return save_json(folder, "generation_config.json", generation_config(gguf, config), err);
}

bool hub_gguf_save(HubGguf *gguf, const char *folder, Error *err) {
    size_t count = 0;
    const HubTensor *tensors = hub_gguf_tensors(gguf, &count);
    json_t *config = json_copy((json_t *)hub_gguf_config(gguf));
    bool saved = hub_gguf_save_settings(gguf, folder, config, err) &&
                 hub_config_save(folder, config, err) &&
                 hub_weights_save(folder, tensors, count, config, hub_gguf_shard_bytes(gguf), err);
    json_decref(config);
    return saved;
}
