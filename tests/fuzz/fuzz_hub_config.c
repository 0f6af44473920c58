/* config.json and model.safetensors.index.json of any bytes: the input is cut
 * at its first NUL, config before it, index after it. */
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static void put(const char *name, const uint8_t *bytes, size_t length) {
    char *path = base_path_join(folder, name);
    FILE *file = fopen(path, "wb");
    if (file) {
        fwrite(bytes, 1, length, file);
        fclose(file);
    }
    free(path);
}

static void drop(void) {
    static const char *const names[] = {"config.json", "model.safetensors.index.json",
                                        "model.safetensors"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char *path = base_path_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
}

static void start(void) {
    static const char header[] =
        "{\"a.weight\":{\"dtype\":\"U32\",\"shape\":[1,4],\"data_offsets\":[0,16]},"
        "\"a.scales\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[16,18]}}";
    uint8_t file[256] = {0};
    size_t length = strlen(header);
    snprintf(folder, sizeof folder, "/dev/shm/mlx-rag-fuzz-XXXXXX");
    if (!mkdtemp(folder)) abort();
    atexit(drop);
    file[0] = (uint8_t)length;
    memcpy(file + 8, header, length);
    put("model.safetensors", file, 8 + length + 18);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!folder[0]) start();
    const uint8_t *cut = size ? memchr(data, 0, size) : NULL;
    size_t config = cut ? (size_t)(cut - data) : size;
    put("config.json", data, config);
    if (cut)
        put("model.safetensors.index.json", cut + 1, size - config - 1);
    else
        put("model.safetensors.index.json", (const uint8_t *)"{\"weight_map\":{}}", 17);
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
