/* Opening an embedder: modules.json and the small configs around the encoder. */
#include "lm/embedder.h"

#include <stdlib.h>
#include <string.h>

/* ---- small files -------------------------------------------------------------------------- */

/* The parsed file, or NULL when it does not exist; *err tells a broken one. */
static json_t *optional_json(const char *folder, const char *name, Error *err) {
    char *path = base_path_join(folder, name);
    bool present = base_is_file(path) && base_path_inside(folder, path, err);
    json_t *value = present ? base_json_load(path, err) : NULL;
    free(path);
    return value;
}

static int stated_length(const char *folder, Error *err) {
    json_t *config = optional_json(folder, "sentence_bert_config.json", err);
    int length = (int)json_integer_value(json_object_get(config, "max_seq_length"));
    json_decref(config);
    return length;
}

static void read_prompts(LmEmbedder *e, const char *folder, Error *err) {
    json_t *config = optional_json(folder, "config_sentence_transformers.json", err);
    const json_t *prompts = json_object_get(config, "prompts");
    const char *usual = json_string_value(json_object_get(config, "default_prompt_name"));
    const char *plain = usual ? json_string_value(json_object_get(prompts, usual)) : NULL;
    const char *query = json_string_value(json_object_get(prompts, "query"));
    const char *document = json_string_value(json_object_get(prompts, "document"));
    if (!document) document = json_string_value(json_object_get(prompts, "passage"));
    const char *found[] = {[LM_EMBED_PLAIN] = plain,
                           [LM_EMBED_QUERY] = query ? query : plain,
                           [LM_EMBED_DOCUMENT] = document ? document : plain};
    for (int i = 0; i < 3; i++) e->prompts[i] = found[i] ? base_strdup(found[i]) : NULL;
    json_decref(config);
}

/* ---- modules --------------------------------------------------------------------------------- */

static bool choose_pooling(LmEmbedder *e, const char *name) {
    for (int i = 0; i < LM_POOLINGS; i++) {
        if (strcmp(lm_poolings[i].name, name) == 0) return e->pooling[i] = true;
    }
    return false;
}

static bool read_pooling(LmEmbedder *e, const char *folder, Error *err) {
    json_t *config = optional_json(folder, "config.json", err);
    if (!config)
        return err->code == ERROR_NONE &&
               base_fail(err, ERROR_INPUT, "%s: config.json is missing", folder);
    const json_t *mode = json_object_get(config, "pooling_mode"),
                 *include = json_object_get(config, "include_prompt");
    bool ok = true;
    const char *unknown = NULL;
    if (json_is_string(mode)) {
        ok = choose_pooling(e, json_string_value(mode));
        unknown = json_string_value(mode);
    }
    for (size_t i = 0; ok && i < json_array_size(mode); i++) {
        unknown = json_string_value(json_array_get(mode, i));
        ok = unknown && choose_pooling(e, unknown);
    }
    for (int i = 0; i < LM_POOLINGS; i++) {
        if (json_is_true(json_object_get(config, lm_poolings[i].old_key))) e->pooling[i] = true;
    }
    if (!ok)
        base_fail(err, ERROR_UNSUPPORTED, "%s: pooling_mode \"%s\" is not known", folder,
                  unknown ? unknown : "");
    e->include_prompt = !json_is_false(include);
    json_decref(config);
    return ok;
}

static bool dense_activation(const json_t *config, NnActivation *activation) {
    const char *name = json_string_value(json_object_get(config, "activation_function"));
    if (!name) return *activation = NN_TANH, true; /* the library's default */
    const char *dot = strrchr(name, '.'), *last = dot ? dot + 1 : name;
    static const struct {
        const char *name;
        NnActivation activation;
    } known[] = {{"Identity", NN_IDENTITY},
                 {"Tanh", NN_TANH},
                 {"GELU", NN_GELU},
                 {"ReLU", NN_RELU},
                 {"SiLU", NN_SILU}};
    for (size_t i = 0; i < BASE_COUNT(known); i++) {
        if (strcmp(known[i].name, last) == 0) return *activation = known[i].activation, true;
    }
    return false;
}

static void add_tensor(void *context, const char *name, mlx_array array) {
    nn_params_add(context, name, array);
}

static bool read_dense(LmEmbedder *e, const char *folder, Error *err) {
    json_t *config = optional_json(folder, "config.json", err);
    if (!config)
        return err->code == ERROR_NONE &&
               base_fail(err, ERROR_INPUT, "%s: config.json is missing", folder);
    bool ok = e->n_dense < LM_DENSE ||
              base_fail(err, ERROR_UNSUPPORTED, "%s: more than %d dense layers", folder, LM_DENSE);
    EmbedderDense dense = {0};
    if (ok && !dense_activation(config, &dense.activation)) {
        ok = base_fail(err, ERROR_UNSUPPORTED, "%s: activation_function is not supported", folder);
    }
    if (ok) {
        char *file = base_path_join(folder, "model.safetensors");
        dense.params = nn_params_new(file, NULL, NULL);
        int in = nn_config_size(dense.params, config, "in_features");
        int out = nn_config_size(dense.params, config, "out_features");
        if (in != e->dim) {
            nn_params_fail(dense.params, ERROR_INPUT, "in_features is %d, the vectors have %d", in,
                           e->dim);
        }
        bool bias = nn_config_bool(dense.params, config, "bias", true);
        ok = base_path_inside(folder, file, err) &&
             mx_load_safetensors(
                 file, (MxFileVisitor){.tensor = add_tensor, .context = dense.params}, err);
        dense.linear = nn_linear_load(dense.params, in, out, bias, "linear");
        ok = ok && nn_params_check(dense.params, err);
        e->dense[e->n_dense++] = dense;
        e->dim = out;
        free(file);
    }
    json_decref(config);
    return ok;
}

static void settle_pooling(LmEmbedder *e) {
    int chosen = 0;
    for (int i = 0; i < LM_POOLINGS; i++) chosen += e->pooling[i];
    if (chosen == 0) chosen = choose_pooling(e, "mean");
    e->pooled_dim = e->dim = chosen * model_encoder_dim(e->model.encoder);
    size_t used = 0;
    for (int i = 0; i < LM_POOLINGS; i++) {
        if (!e->pooling[i]) continue;
        used += (size_t)snprintf(e->pooling_name + used, sizeof e->pooling_name - used, "%s%s",
                                 used ? "+" : "", lm_poolings[i].name);
    }
}

/* A module's own folder; a path that leads out of the model's is not followed. */
static char *module_folder(const char *folder, const json_t *module) {
    const char *path = json_string_value(json_object_get(module, "path"));
    if (!path || path[0] == '\0' || strstr(path, "..") || path[0] == '/')
        return base_strdup(folder);
    return base_path_join(folder, path);
}

static bool read_module(LmEmbedder *e, const char *folder, const json_t *module, Error *err) {
    const char *type = json_string_value(json_object_get(module, "type"));
    const char *dot = type ? strrchr(type, '.') : NULL, *last = dot ? dot + 1 : type ? type : "";
    char *path = module_folder(folder, module);
    bool ok = base_path_inside(folder, path, err);
    if (ok && strcmp(last, "Pooling") == 0) {
        ok = read_pooling(e, path, err);
        if (ok) settle_pooling(e);
    } else if (ok && strcmp(last, "Dense") == 0) {
        if (e->dim == 0) settle_pooling(e);
        ok = read_dense(e, path, err);
    } else if (strcmp(last, "Normalize") == 0) {
        e->normalise = true;
    } else if (strcmp(last, "Transformer") != 0) {
        ok = base_fail(err, ERROR_UNSUPPORTED, "%s: modules.json: module \"%s\" is not supported",
                       folder, last);
    }
    free(path);
    return ok;
}

/* The folder of the encoder itself: usually the root. */
static char *transformer_folder(const char *folder, const json_t *modules) {
    return module_folder(folder, json_array_get(modules, 0));
}

/* ---- identity ----------------------------------------------------------------------------------
 */

static uint64_t mix(uint64_t hash, const void *bytes, size_t length) {
    uint64_t parts[2] = {hash, base_hash(bytes, length)};
    return base_hash(parts, sizeof parts);
}

static void identify(LmEmbedder *e) {
    const HubModel *folder = e->model.folder;
    char *config = json_dumps(hub_model_config(folder), JSON_SORT_KEYS | JSON_COMPACT);
    uint64_t hash = mix(0, config, strlen(config));
    free(config);
    hash = mix(hash, e->pooling_name, strlen(e->pooling_name));
    for (int i = 0; i < 3; i++) {
        if (e->prompts[i]) hash = mix(hash, e->prompts[i], strlen(e->prompts[i]));
    }
    int numbers[] = {e->dim, e->max_tokens, e->normalise, e->n_dense};
    hash = mix(hash, numbers, sizeof numbers);
    for (size_t i = 0; i < hub_model_count(folder); i++) {
        const char *name = hub_model_name(folder, i);
        mlx_array array = hub_model_tensor(folder, name);
        hash = mix(hash, name, strlen(name));
        hash = mix(hash, mlx_array_shape(array), mlx_array_ndim(array) * sizeof(int));
        size_t count = mx_size(array);
        if (mx_ndim(array) != 1 || count == 0 || !mx_is_float(mx_dtype(array))) continue;
        float *values = base_alloc(count * sizeof *values);
        if (mx_copy_f32(array, values, count)) hash = mix(hash, values, count * sizeof *values);
        free(values);
    }
    snprintf(e->identity, sizeof e->identity, "%016llx", (unsigned long long)hash);
}

/* ---- opening
 * ------------------------------------------------------------------------------------- */

static bool open_parts(LmEmbedder *e, const char *folder, const json_t *modules,
                       const LmOpenOptions *options, Error *err) {
    char *inner = transformer_folder(folder, modules);
    bool ok = lm_encoder_open(&e->model, inner, options, err);
    e->include_prompt = true;
    e->normalise = modules == NULL;
    size_t i;
    json_t *module;
    json_array_foreach((json_t *)modules, i, module) {
        ok = ok && read_module(e, folder, module, err);
    }
    if (ok) {
        if (e->dim == 0) settle_pooling(e);
        int stated = stated_length(inner, err);
        if (stated == 0) stated = stated_length(folder, err);
        e->max_tokens = lm_encoder_limit(&e->model, stated);
        read_prompts(e, folder, err);
        identify(e);
        ok = err->code == ERROR_NONE && mx_check(err);
    }
    free(inner);
    return ok;
}

LmEmbedder *lm_embedder_open(const char *folder, const LmOpenOptions *options, Error *err) {
    Error local = {0}; /* what goes wrong in optional files must be seen */
    LmEmbedder *e = base_calloc(1, sizeof *e);
    json_t *modules = optional_json(folder, "modules.json", &local);
    mx_scope s = mx_open();
    bool ok = local.code == ERROR_NONE && open_parts(e, folder, modules, options, &local);
    mx_drop(s);
    json_decref(modules);
    if (ok) return e;
    base_fail(err, local.code, "%s", local.message);
    if (local.hint[0]) base_hint(err, "%s", local.hint);
    lm_embedder_close(e);
    return NULL;
}

void lm_embedder_close(LmEmbedder *e) {
    if (!e) return;
    lm_encoder_close(&e->model);
    for (int i = 0; i < e->n_dense; i++) nn_params_free(e->dense[i].params);
    for (int i = 0; i < 3; i++) free(e->prompts[i]);
    free(e);
}
