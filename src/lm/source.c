/* Opening what is to be converted, and the files that go with the weights. */
#include "lm/source.h"

#include "lm/import.h"
#include "models/models.h"

#include <stdlib.h>
#include <string.h>

/* ---- opening ---------------------------------------------------------------------- */

/* The list alone holds the tensors: what is written and removed from it leaves memory. */
static bool open_folder(LmSource *source, Error *err) {
    HubModel *folder = hub_model_open(source->path, err);
    if (!folder) return false;
    source->config = json_copy((json_t *)hub_model_config(folder));
    const char *name;
    for (size_t i = 0; (name = hub_model_name(folder, i)) != NULL; i++)
        lm_tensors_add(&source->tensors, name, hub_model_tensor(folder, name));
    hub_model_free(folder);
    return true;
}

static bool open_gguf(LmSource *source, const char *dtype, Error *err) {
    HubGgufOptions how = {.dtype = dtype};
    source->gguf = hub_gguf_open(source->path, &how, err);
    if (!source->gguf) return false;
    source->config = json_copy((json_t *)hub_gguf_config(source->gguf));
    size_t count = 0;
    const HubTensor *tensors = hub_gguf_tensors(source->gguf, &count);
    for (size_t i = 0; i < count; i++)
        lm_tensors_add(&source->tensors, tensors[i].name, tensors[i].array);
    hub_gguf_forget_tensors(source->gguf);
    return true;
}

/* ---- names and layouts, which are models/'s ---------------------------------------------- */

static bool quant_rule(const void *context, const char *path, MxQuant *quant) {
    return lm_source_quant(context, path, quant);
}

typedef struct Renamed {
    const NnParams *params;
    LmTensors tensors;
    json_t *moved; /* path -> how it is packed, of all packed modules */
} Renamed;

static void keep(void *context, const char *name, mlx_array array) {
    Renamed *renamed = context;
    lm_tensors_add(&renamed->tensors, name, array);
    if (!base_ends_with(name, ".scales")) return;
    char *path = base_strndup(name, strlen(name) - strlen(".scales"));
    MxQuant quant;
    if (nn_params_quant(renamed->params, path, &quant))
        json_object_set_new(renamed->moved, path,
                            json_pack("{s:i,s:i,s:s}", "group_size", quant.group_size, "bits",
                                      quant.bits, "mode", quant.mode));
    free(path);
}

/* A module that moved is packed as it was: said by name where the rest of the
 * config would say otherwise. */
static void describe_moved(LmSource *source, const json_t *moved) {
    json_t *quantization = json_object_get(source->config, "quantization"), *entry;
    const char *path;
    if (!json_is_object(quantization)) return;
    json_object_foreach((json_t *)moved, path, entry) {
        MxQuant said = {0};
        bool known = hub_quantization_of(source->config, path, true, &said);
        if (!known || said.bits != json_integer_value(json_object_get(entry, "bits")) ||
            said.group_size != json_integer_value(json_object_get(entry, "group_size")))
            json_object_set(quantization, path, entry);
    }
}

static NnParams *tree_of(const LmSource *source) {
    NnParams *params = nn_params_new(source->path, quant_rule, source);
    for (size_t i = 0; i < source->tensors.count; i++)
        if (source->tensors.items[i].name)
            nn_params_add(params, source->tensors.items[i].name, source->tensors.items[i].array);
    return params;
}

static bool sanitize(LmSource *source, Error *err) {
    const char *type = json_string_value(json_object_get(source->config, "model_type"));
    if (model_kind(source->config, NULL) != MODEL_DECODER) {
        base_log(LOG_DEBUG, "model type %s: tensors keep their names", type ? type : "?");
        return true;
    }
    NnParams *params = tree_of(source);
    bool good = model_decoder_sanitize(params, source->config, err);
    if (good) {
        Renamed renamed = {.params = params, .moved = json_object()};
        nn_params_each(params, keep, &renamed);
        lm_tensors_free(&source->tensors);
        source->tensors = renamed.tensors;
        describe_moved(source, renamed.moved);
        json_decref(renamed.moved);
        if (json_is_true(json_object_get(source->config, "tie_word_embeddings"))) {
            static const char *const head[] = {"lm_head.weight", "lm_head.scales",
                                               "lm_head.biases"};
            for (size_t i = 0; i < BASE_COUNT(head); i++)
                lm_tensors_remove(&source->tensors, head[i]);
        }
    }
    nn_params_free(params);
    return good && mx_check(err);
}

/* Does a model load from the tensors? A wrong one is found before anything is
 * written. What no row of models/ describes is copied as it is. */
static bool fits(const LmSource *source, Error *err) {
    ModelKind kind = model_kind(source->config, NULL);
    if (kind == MODEL_UNKNOWN) return true;
    NnParams *params = tree_of(source);
    bool good = kind == MODEL_DECODER ? model_decoder_load(params, source->config, err) != NULL
                                      : model_encoder_load(params, source->config, err) != NULL;
    nn_params_free(params);
    return good;
}

LmSource *lm_source_open(const char *path, const char *gguf_dtype, Error *err) {
    LmSource *source = base_calloc(1, sizeof *source);
    source->path = base_strdup(path);
    bool gguf = !base_is_dir(path) && (base_is_file(path) || base_ends_with(path, ".gguf"));
    bool good = gguf ? open_gguf(source, gguf_dtype, err) : open_folder(source, err);
    if (good && !gguf) {
        good = lm_foreign_adopt(&source->tensors, source->config, err) && sanitize(source, err) &&
               fits(source, err);
        if (!good && err && !base_starts_with(err->message, path))
            base_error_context(err, "%s", path);
    }
    if (good) {
        lm_tensors_order(&source->tensors);
        return source;
    }
    lm_source_free(source);
    return NULL;
}

void lm_source_free(LmSource *source) {
    if (!source) return;
    lm_tensors_free(&source->tensors);
    hub_gguf_free(source->gguf);
    json_decref(source->config);
    free(source->path);
    free(source);
}

bool lm_source_quant(const LmSource *source, const char *path, MxQuant *quant) {
    return hub_quantization_of(source->config, path,
                               lm_tensors_find(&source->tensors, "%s.scales", path).ctx != NULL,
                               quant);
}

/* ---- files beside the weights --------------------------------------------------------- */

/* What is written anew, or is weights. */
static bool is_made_here(const char *name) {
    return strcmp(name, "config.json") == 0 || base_ends_with(name, ".index.json") ||
           strcmp(name, "adapter_config.json") == 0;
}

static bool is_settings(const char *name) {
    static const char *const endings[] = {".json",  ".py",  ".model", ".tiktoken",
                                          ".jsonl", ".txt", ".jinja"};
    for (size_t i = 0; i < BASE_COUNT(endings); i++)
        if (base_ends_with(name, endings[i])) return name[0] != '.';
    return false;
}

static bool copy_file(const char *root, const char *from, const char *to, Error *err) {
    char *data = NULL;
    size_t length = 0;
    bool copied = base_path_inside(root, from, err) && base_file_read(from, &data, &length, err) &&
                  base_file_write(to, data, length, err);
    free(data);
    return copied;
}

/* Folders of a model that hold settings: further chat templates, the modules of
 * sentence-transformers. */
static bool is_settings_folder(const char *name) {
    return strcmp(name, "additional_chat_templates") == 0 ||
           (name[0] >= '0' && name[0] <= '9' && name[1] == '_');
}

static bool copy_folder(const char *root, const char *from, const char *to, bool top, Error *err) {
    char **names = NULL;
    size_t count = 0;
    bool good = base_make_dirs(to, err) && base_list_dir(from, &names, &count, err);
    for (size_t i = 0; i < count; i++) {
        char *source = base_path_join(from, names[i]), *target = base_path_join(to, names[i]);
        if (good && base_is_dir(source)) {
            if (top && is_settings_folder(names[i]))
                good = copy_folder(root, source, target, false, err);
        } else if (good && base_is_file(source)) {
            bool wanted = is_settings(names[i]) && !(top && is_made_here(names[i]));
            if (wanted || (!top && base_ends_with(names[i], ".safetensors")))
                good = copy_file(root, source, target, err);
        }
        free(source);
        free(target);
        free(names[i]);
    }
    free(names);
    return good;
}

/* The front matter that mlx-lm gives a model from a local folder. */
static bool save_card(const char *folder, Error *err) {
    static const char card[] = "---\nlanguage: en\nlibrary_name: mlx\npipeline_tag: "
                               "text-generation\ntags:\n- mlx\n---\n";
    char *path = base_path_join(folder, "README.md");
    bool saved = base_file_write(path, card, strlen(card), err);
    free(path);
    return saved;
}

bool lm_source_copy_files(LmSource *source, const char *folder, Error *err) {
    bool good = source->gguf ? lm_import_tokenizer(source->gguf, folder, err) &&
                                   hub_gguf_save_settings(source->gguf, folder, source->config, err)
                             : copy_folder(source->path, source->path, folder, true, err);
    return good && save_card(folder, err);
}
