/* Which architecture a config names, and a folder's tensors as a tree. */
#include "models/models.h"

#include "models/decoder.h"
#include "models/encoders.h"

ModelKind model_kind(const json_t *config, Error *err) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type) {
        base_fail(err, ERROR_INPUT, "config.json: model_type is missing");
        return MODEL_UNKNOWN;
    }
    if (model_decoder_known(type)) return MODEL_DECODER;
    if (model_encoder_arch(type)) return MODEL_ENCODER;
    char decoders[1536], encoders[256];
    model_decoder_types(decoders, sizeof decoders);
    model_encoder_types(encoders, sizeof encoders);
    base_fail(err, ERROR_UNSUPPORTED, "config.json: model type \"%s\" is not supported", type);
    base_hint(err, "Known are %s; %s.", decoders, encoders);
    return MODEL_UNKNOWN;
}

static bool quantization(const void *source, const char *path, MxQuant *quant) {
    return hub_model_quantization(source, path, quant);
}

NnParams *model_params(const HubModel *folder) {
    NnParams *params = nn_params_new(hub_model_folder(folder), quantization, folder);
    for (size_t i = 0; i < hub_model_count(folder); i++) {
        const char *name = hub_model_name(folder, i);
        nn_params_add(params, name, hub_model_tensor(folder, name));
    }
    return params;
}
