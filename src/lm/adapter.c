/* Adapter folders: mlx-lm's LoRA, DoRA and full fine-tuning, and PEFT's (peft.h).
 *
 * Low-rank pairs become a second parameter tree from which the layers take
 * theirs while they load; fully tuned tensors replace the model's. */
#include "lm/model.h"
#include "lm/peft.h"

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

static bool scale_of(const json_t *config, const char *file, float *scale, Error *err) {
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
    *adapter = nn_params_new(file, NULL, NULL);
    bool ok = base_path_inside(folder, file, err);
    if (peft) {
        ok = ok && lm_peft_read(file, config, params, *adapter, scale, err);
    } else {
        Reading reading = {params, *adapter, file, err, false};
        const MxFileVisitor visitor = {.tensor = full ? read_full : read_lora, .context = &reading};
        ok = ok && (full || scale_of(config, config_file, scale, err)) &&
             mx_load_safetensors(file, visitor, err) && !reading.failed;
    }
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
