/* Hostile npy files and streams: loading must end in arrays or in an error. */
#include "engine_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mlx_stream stream;
    const char *path = fuzz_file(data, size, &stream);
    mlx_array array = mlx_array_new();
    if (mlx_load(&array, path, stream) == 0) fuzz_read(array);
    FuzzMemory memory = {.data = data, .size = size};
    mlx_io_reader reader = fuzz_reader(&memory);
    if (mlx_load_reader(&array, reader, stream) == 0 && mlx_array_nbytes(array) <= size)
        fuzz_read(array);
    mlx_io_reader_free(reader);
    mlx_array_free(array);
    mlx_stream_free(stream);
    return 0;
}
