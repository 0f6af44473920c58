/* Files of trained tensors: mlx_lm's adapters.safetensors and PEFT's
 * adapter_model.safetensors. A file is checked against the model as a whole before
 * anything of it counts. */
#include "hub/hub.h"
#include "lm/peft.h"
#include "tune/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- loading ----------------------------------------------------------------------- */

typedef struct Loaded {
    TuneModel *model;
    const json_t *peft; /* its config, or NULL */
    bool strict;
    mlx_array *values; /* one a tensor of the model, {0} where the file has none; held */
    size_t wrong;
    StrBuf offenders;
} Loaded;

/* "2048x8" */
static void append_shape(StrBuf *text, mlx_array array) {
    for (int d = 0; d < mx_ndim(array); d++)
        base_str_appendf(text, "%s%d", d ? "x" : "", mx_dim(array, d));
    if (mx_ndim(array) == 0) base_str_append(text, "a scalar");
}

static StrBuf *offence(Loaded *loaded, const char *name) {
    if (loaded->wrong++) base_str_append(&loaded->offenders, "; ");
    base_str_append(&loaded->offenders, name);
    base_str_append(&loaded->offenders, " ");
    return &loaded->offenders;
}

static bool same_shape(mlx_array a, mlx_array b) {
    if (mx_ndim(a) != mx_ndim(b)) return false;
    for (int d = 0; d < mx_ndim(a); d++)
        if (mx_dim(a, d) != mx_dim(b, d)) return false;
    return true;
}

static void load_tensor(Loaded *loaded, const char *shown, const char *name, mlx_array array) {
    const TuneModel *model = loaded->model;
    size_t i = 0;
    while (i < model->count && strcmp(model->tensors[i].name, name) != 0) i++;
    if (i == model->count) {
        if (loaded->strict)
            base_str_append(offence(loaded, shown), "is not an adapter's tensor of this model");
        return;
    }
    mlx_array value = model->tensors[i].value;
    /* Experts as mlx_lm wrote them before October 2025: [E r, in]. */
    if (mx_ndim(value) == 3 && mx_ndim(array) == 2 && mx_size(value) == mx_size(array) &&
        mx_dim(value, -1) == mx_dim(array, -1))
        array = mx_reshape(array, mlx_array_shape(value), 3);
    if (!same_shape(value, array)) {
        StrBuf *text = offence(loaded, shown);
        base_str_append(text, "is ");
        append_shape(text, array);
        base_str_append(text, ", the model needs ");
        append_shape(text, value);
        return;
    }
    mx_store(&loaded->values[i], mx_cast(array, mx_dtype(value)));
}

/* base_model.model.<path>.lora_A.weight [r, in] -> <path>.lora_a [in, r]. Their scale
 * goes into b where ours differs. */
static void load_peft(Loaded *loaded, const char *name, const LmPeftName *parts, mlx_array array) {
    char *module = base_strndup(parts->module, parts->length), *ours = NULL;
    if (parts->turned && mx_ndim(array) == 2) array = mx_swapaxes(array, 0, 1);
    for (size_t t = 0; t < loaded->model->count && !ours; t++) {
        const TuneTensor *tensor = &loaded->model->tensors[t];
        if (!lm_peft_same(module, tensor->module->path)) continue;
        ours = base_format("%s.%s", tensor->module->path, parts->leaf);
        if (!loaded->peft || strcmp(parts->leaf, "lora_b") != 0) continue;
        const double scale = lm_peft_scale(loaded->peft, module);
        if (scale > 0) array = mx_mul_scalar(array, scale / (double)tensor->module->lora.scale);
    }
    if (!ours) ours = base_format("%s.%s", module, parts->leaf);
    load_tensor(loaded, name, ours, array);
    free(ours);
    free(module);
}

static void visit(void *context, const char *name, mlx_array array) {
    LmPeftName parts;
    if (lm_peft_name(name, &parts))
        load_peft(context, name, &parts, array);
    else
        load_tensor(context, name, name, array);
}

static bool settle(Loaded *loaded, const char *file, Error *err) {
    TuneModel *model = loaded->model;
    if (loaded->wrong) {
        base_fail(err, ERROR_INPUT, "%s: %zu tensors do not fit: %s", file, loaded->wrong,
                  loaded->offenders.data);
        return base_hint(err, "Was this adapter trained on another model, or with other layers, "
                              "keys or rank?");
    }
    if (!mx_check(err)) return base_error_context(err, "%s", file);
    size_t found = 0;
    for (size_t i = 0; i < model->count; i++) {
        if (!loaded->values[i].ctx) continue;
        if (!mx_eval(&loaded->values[i], 1) && !mx_check(err)) return false;
        found++;
    }
    if (found == 0 && loaded->strict)
        return base_fail(err, ERROR_INPUT, "%s: the file holds no tensor of this model's adapter",
                         file);
    for (size_t i = 0; i < model->count; i++)
        if (loaded->values[i].ctx) tune_model_set(model, i, loaded->values[i]);
    return true;
}

char *tune_adapter_file(const char *path) {
    if (!base_is_dir(path)) return base_strdup(path);
    char *file = base_path_join(path, "adapter_model.safetensors");
    if (base_is_file(file)) return file;
    free(file);
    return base_path_join(path, "adapters.safetensors");
}

bool tune_adapter_config(const char *file, json_t **config, Error *err) {
    const size_t folder = strlen(file) - strlen(base_path_name(file));
    char *path = base_format("%.*sadapter_config.json", (int)folder, file);
    *config = base_is_file(path) ? base_json_load(path, err) : NULL;
    const bool good = *config || !base_is_file(path);
    free(path);
    return good;
}

bool tune_model_load_adapter(TuneModel *model, const char *path, bool strict, Error *err) {
    char *file = tune_adapter_file(path);
    Loaded loaded = {.model = model,
                     .strict = strict,
                     .values = base_calloc(model->count + 1, sizeof(mlx_array))};
    mx_scope s = mx_open();
    json_t *config = NULL;
    bool good = tune_adapter_config(file, &config, err);
    loaded.peft = json_object_get(config, "peft_type") ? config : NULL;
    good = good &&
           mx_load_safetensors(file, (MxFileVisitor){.tensor = visit, .context = &loaded}, err) &&
           settle(&loaded, file, err);
    for (size_t i = 0; i < model->count; i++) mx_free(&loaded.values[i]);
    mx_drop(s);
    json_decref(config);
    free(loaded.values);
    base_str_free(&loaded.offenders);
    free(file);
    return good;
}

/* ---- saving ------------------------------------------------------------------------- */

bool tune_model_save_adapter(const TuneModel *model, const char *file, Error *err) {
    HubTensor *tensors = base_alloc((model->count + 1) * sizeof *tensors);
    for (size_t i = 0; i < model->count; i++)
        tensors[i] = (HubTensor){model->tensors[i].name, model->tensors[i].value};
    mx_scope s = mx_open();
    const bool good = hub_tensors_save(file, tensors, model->count, err);
    mx_drop(s);
    free(tensors);
    return good;
}

static const char *peft_name(const TuneTensor *tensor) {
    static const struct {
        const char *linear;
    } names[] = {[TUNE_LEAF_M] = {"lora_magnitude_vector"},
                 [TUNE_LEAF_A] = {"lora_A.weight"},
                 [TUNE_LEAF_B] = {"lora_B.weight"}};
    return names[tensor->leaf].linear;
}

static int rank_of(const TuneTensor *b) {
    return mx_dim(b->value, 0);
}

static char *their_path(const TuneModel *model, const TuneTensor *tensor) {
    const json_t *type = json_object_get(lm_model_config(model->lm), "model_type");
    return lm_peft_path(json_string_value(type), tensor->module->path);
}

static json_t *peft_config(const TuneModel *model) {
    json_t *targets = json_array(), *ranks = json_object(), *alphas = json_object();
    for (size_t i = 0; i < model->count; i++) {
        const TuneTensor *tensor = &model->tensors[i];
        if (tensor->leaf != TUNE_LEAF_B) continue;
        char *path = their_path(model, tensor);
        json_array_append_new(targets, json_string(path));
        if (model->pairs_differ) {
            json_object_set_new(ranks, path, json_integer(rank_of(tensor)));
            json_object_set_new(alphas, path,
                                json_real((double)tensor->module->lora.scale * rank_of(tensor)));
        }
        free(path);
    }
    return json_pack("{s:s, s:s, s:s, s:i, s:f, s:o, s:s, s:b, s:b, s:o, s:o, s:o, s:b}",
                     "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path",
                     lm_model_folder(model->lm), "r", model->rank, "lora_alpha",
                     (double)model->scale * model->rank, "lora_dropout",
                     base_json_float((double)model->dropout.p), "bias", "none", "use_dora",
                     model->kind == TUNE_DORA, "use_rslora", 0, "target_modules", targets,
                     "rank_pattern", ranks, "alpha_pattern", alphas, "inference_mode", 1);
}

bool tune_model_can_be_peft(const TuneModel *model, Error *err) {
    if (model->kind == TUNE_FULL)
        return base_fail(err, ERROR_UNSUPPORTED, "PEFT has no form for fully tuned blocks");
    for (size_t i = 0; i < model->count; i++) {
        const NnModule *module = model->tensors[i].module;
        if (module->kind == NN_LINEAR) continue;
        return base_fail(err, ERROR_UNSUPPORTED,
                         "save_peft: %s: only adapters on linear layers are written for PEFT. "
                         "Choose others with keys",
                         module->path);
    }
    return true;
}

bool tune_model_save_peft(const TuneModel *model, const char *folder, Error *err) {
    if (!tune_model_can_be_peft(model, err)) return false;
    HubTensor *tensors = base_alloc((model->count + 1) * sizeof *tensors);
    mx_scope s = mx_open();
    for (size_t i = 0; i < model->count; i++) {
        const TuneTensor *tensor = &model->tensors[i];
        mlx_array value = tensor->value;
        if (tensor->leaf != TUNE_LEAF_M) value = mx_contiguous(mx_swapaxes(value, 0, 1));
        char *path = their_path(model, tensor);
        tensors[i] =
            (HubTensor){base_format("base_model.model.%s.%s", path, peft_name(tensor)), value};
        free(path);
    }
    char *file = base_path_join(folder, "adapter_model.safetensors");
    char *config_file = base_path_join(folder, "adapter_config.json");
    json_t *config = peft_config(model);
    const bool good = mx_check(err) && hub_tensors_save(file, tensors, model->count, err) &&
                      base_json_save(config_file, config, err);
    json_decref(config);
    free(config_file);
    free(file);
    mx_drop(s);
    for (size_t i = 0; i < model->count; i++) free(tensors[i].name);
    free(tensors);
    return good;
}
