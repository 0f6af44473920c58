/* Settings of training in YAML. */
#include "tune/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Error err = {0};
    json_decref(tune_yaml_parse((const char *)data, size, "settings.yaml", &err));
    return 0;
}
