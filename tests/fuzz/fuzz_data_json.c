/* Hostile JSON lines: a record ends in a sample or in an error that says where. */
#include "data/data.h"
#include "data/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"a", "a.b", "a.0", "b.0.c", "text"};
    Error err = {0};
    JsonFields fields;
    size_t column = 0;
    if (!dx_json_fields(paths, NULL, BASE_COUNT(paths), size & 1, &fields, &err)) return 0;
    DxSample *sample = dx_sample_new();
    bool ok = dx_json_scan((const char *)data, size, &fields, &sample, &column, &err);
    if (!ok && column > size + 1) __builtin_trap();
    for (size_t i = 0; ok && i < dx_sample_count(sample); i++) {
        const DxArray *array = dx_sample_at(sample, i);
        if (array->type == DX_TEXT && !base_utf8_valid(array->data, array->bytes)) __builtin_trap();
    }
    dx_sample_free(sample);
    dx_json_fields_free(&fields);
    return 0;
}
