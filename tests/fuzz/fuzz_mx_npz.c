/* Hostile npz files: loading must end in arrays or in an error. */
#include "engine_file.h"

#include "mx/mx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(void *context, const char *name, mlx_array array) {
    (void)context;
    (void)name;
    fuzz_read(array);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mlx_stream stream;
    Error err = {0};
    const char *path = fuzz_file(data, size, &stream);
    mx_load_npz(path, (MxFileVisitor){.tensor = look}, &err);
    mlx_stream_free(stream);
    return 0;
}
