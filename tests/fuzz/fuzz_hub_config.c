/* config.json and model.safetensors.index.json of any bytes: the input is cut
 * at its first NUL, config before it, index after it. */
#include "folder.h"
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>

static void start(void) {
    static const char header[] =
        "{\"a.weight\":{\"dtype\":\"U32\",\"shape\":[1,4],\"data_offsets\":[0,16]},"
        "\"a.scales\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[16,18]}}";
    uint8_t file[256] = {0};
    size_t length = strlen(header);
    folder_make();
    file[0] = (uint8_t)length;
    memcpy(file + 8, header, length);
    folder_put("model.safetensors", file, 8 + length + 18);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!folder[0]) start();
    const uint8_t *cut = size ? memchr(data, 0, size) : NULL;
    size_t config = cut ? (size_t)(cut - data) : size;
    folder_put("config.json", data, config);
    if (cut)
        folder_put("model.safetensors.index.json", cut + 1, size - config - 1);
    else
        folder_put("model.safetensors.index.json", "{\"weight_map\":{}}", 17);
    Error err = {0};
    HubInfo info;
    hub_model_info(folder, &info, &err);
    HubModel *model = hub_model_open(folder, NULL);
    if (model) {
        int ids[4];
        MxQuant quant;
        hub_model_eos(model, ids, 4);
        hub_model_quantization(model, "a", &quant);
        hub_model_free(model);
    }
    return 0;
}
