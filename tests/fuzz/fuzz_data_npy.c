/* Hostile .npy files. */
#include "data/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Error err = {0};
    DxArray *array = dx_npy_parse(data, size, &err);
    volatile double sum = 0;
    for (size_t i = 0; array && i < array->count; i += 1 + array->count / 64)
        sum = sum + dx_array_real_at(array, i);
    if (array && array->bytes > size) __builtin_trap();
    dx_array_release(array);
    return 0;
}
