/* Hostile safetensors files and streams: loading must end in arrays or in an
 * error. */
#include "engine_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(mlx_map_string_to_array tensors) {
    mlx_map_string_to_array_iterator it = mlx_map_string_to_array_iterator_new(tensors);
    mlx_array array = mlx_array_new();
    const char *name;
    while (mlx_map_string_to_array_iterator_next(&name, &array, it) == 0) fuzz_read(array);
    mlx_array_free(array);
    mlx_map_string_to_array_iterator_free(it);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mlx_stream stream;
    const char *path = fuzz_file(data, size, &stream);
    mlx_map_string_to_array tensors = mlx_map_string_to_array_new();
    mlx_map_string_to_string metadata = mlx_map_string_to_string_new();
    if (mlx_load_safetensors(&tensors, &metadata, path, stream) == 0) read_all(tensors);
    FuzzMemory memory = {.data = data, .size = size};
    mlx_io_reader reader = fuzz_reader(&memory);
    if (mlx_load_safetensors_reader(&tensors, &metadata, reader, stream) == 0) read_all(tensors);
    mlx_io_reader_free(reader);
    mlx_map_string_to_array_free(tensors);
    mlx_map_string_to_string_free(metadata);
    mlx_stream_free(stream);
    return 0;
}
