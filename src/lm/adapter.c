/* Adapter folders: mlx-lm's LoRA, DoRA and full fine-tuning, and PEFT's LoRA.
 *
 * Low-rank pairs become a second parameter tree from which the layers take
 * theirs while they load; fully tuned tensors replace the model's. */
#include "lm/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where visited tensors go. */
typedef struct Reading {
    NnParams *base, *adapter;
    const char *file;
    Error *err;
    bool failed;
} Reading;

static void read_lora(void *context, const char *name, mlx_array array) {
    Reading *reading = context;
    if (!base_ends_with(name, ".lora_a") && !base_ends_with(name, ".lora_b") &&
        !base_ends_with(name, ".m")) {
        if (!reading->failed) {
            base_fail(reading->err, ERROR_INPUT, "%s: tensor %s is not a low-rank adapter's",
                      reading->file, name);
        }
        reading->failed = true;
        return;
    }
    nn_params_add(reading->adapter, name, array);
}

static void read_full(void *context, const char *name, mlx_array array) {
    Reading *reading = context;
    if (!nn_params_has(reading->base, "%s", name) && !reading->failed) {
        base_fail(reading->err, ERROR_INPUT, "%s: the model has no tensor %s", reading->file, name);
        reading->failed = true;
    }
    nn_params_add(reading->base, name, array);
}

/* base_model.model.<path>.lora_A.weight [r, in] -> <path>.lora_a [in, r] */
static void read_peft(void *context, const char *name, mlx_array array) {
    static const char prefix[] = "base_model.model.";
    static const struct {
        const char *theirs, *ours;
    } leaves[] = {{".lora_A.weight", ".lora_a"}, {".lora_B.weight", ".lora_b"}};
    Reading *reading = context;
    const char *path = base_starts_with(name, prefix) ? name + strlen(prefix) : name;
    for (size_t i = 0; i < BASE_COUNT(leaves); i++) {
        if (!base_ends_with(path, leaves[i].theirs)) continue;
        size_t length = strlen(path) - strlen(leaves[i].theirs);
        char *ours = base_format("%.*s%s", (int)length, path, leaves[i].ours);
        nn_params_add(reading->adapter, ours, mx_swapaxes(array, 0, 1));
        free(ours);
        return;
    }
    if (!reading->failed) {
        base_fail(reading->err, ERROR_UNSUPPORTED, "%s: tensor %s is not a LoRA tensor",
                  reading->file, name);
    }
    reading->failed = true;
}

static bool scale_of(const json_t *config, const char *file, bool peft, float *scale, Error *err) {
    if (peft) {
        double rank = json_number_value(json_object_get(config, "r"));
        double alpha = json_number_value(json_object_get(config, "lora_alpha"));
        if (!(rank > 0)) return base_fail(err, ERROR_INPUT, "%s: r must be a positive rank", file);
        if (json_is_true(json_object_get(config, "use_dora"))) {
            return base_fail(err, ERROR_UNSUPPORTED,
                             "%s: use_dora is not supported for PEFT adapters", file);
        }
        bool rank_stable = json_is_true(json_object_get(config, "use_rslora"));
        *scale = (float)(alpha / (rank_stable ? sqrt(rank) : rank));
        return true;
    }
    const json_t *lora = json_object_get(config, "lora_parameters"),
                 *value = json_object_get(lora, "scale");
    if (!json_is_number(value))
        return base_fail(err, ERROR_INPUT, "%s: lora_parameters.scale is missing", file);
    *scale = (float)json_number_value(value);
    return true;
}

static bool attach(const char *folder, const json_t *config, const char *config_file,
                   NnParams *params, NnParams **adapter, float *scale, Error *err) {
    const char *peft_type = json_string_value(json_object_get(config, "peft_type"));
    const char *kind = json_string_value(json_object_get(config, "fine_tune_type"));
    bool peft = peft_type != NULL, full = kind && strcmp(kind, "full") == 0;
    if (peft && strcmp(peft_type, "LORA") != 0) {
        return base_fail(err, ERROR_UNSUPPORTED, "%s: PEFT type %s is not supported", config_file,
                         peft_type);
    }
    if (kind && !full && strcmp(kind, "lora") != 0 && strcmp(kind, "dora") != 0) {
        return base_fail(err, ERROR_UNSUPPORTED,
                         "%s: fine_tune_type \"%s\" is not lora, dora or full", config_file, kind);
    }
    char *file =
        base_path_join(folder, peft ? "adapter_model.safetensors" : "adapters.safetensors");
    *scale = 1;
    bool ok = full || scale_of(config, config_file, peft, scale, err);
    *adapter = nn_params_new(file, NULL, NULL);
    Reading reading = {params, *adapter, file, err, false};
    MxFileVisitor visitor = {.tensor = full   ? read_full
                                       : peft ? read_peft
                                              : read_lora,
                             .context = &reading};
    ok = ok && base_path_inside(folder, file, err) && mx_load_safetensors(file, visitor, err) &&
         !reading.failed;
    free(file);
    return ok;
}

bool lm_adapter_read(const char *folder, NnParams *params, NnParams **adapter, float *scale,
                     Error *err) {
    char *file = base_path_join(folder, "adapter_config.json");
    json_t *config = base_path_inside(folder, file, err) ? base_json_load(file, err) : NULL;
    bool ok = config && attach(folder, config, file, params, adapter, scale, err);
    json_decref(config);
    free(file);
    return ok;
}

bool lm_adapter_attach(const char *folder, NnParams *params, NnParams **adapter, Error *err) {
    float scale = 1;
    if (!lm_adapter_read(folder, params, adapter, &scale, err)) return false;
    nn_params_adapter(params, *adapter, scale, NULL);
    return true;
}
