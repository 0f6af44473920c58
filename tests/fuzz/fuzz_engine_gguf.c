/* Hostile GGUF files: loading must end in arrays or in an error. */
#include "engine_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mlx_stream stream;
    const char *path = fuzz_file(data, size, &stream);
    mlx_io_gguf gguf = mlx_io_gguf_new();
    mlx_vector_string keys = {NULL};
    mlx_array array = mlx_array_new();
    mlx_load_gguf(&gguf, path, stream);
    mlx_io_gguf_get_keys(&keys, gguf);
    for (size_t i = 0; i < mlx_vector_string_size(keys); i++) {
        char *key;
        mlx_vector_string_get(&key, keys, i);
        if (mlx_io_gguf_get_array(&array, gguf, key) == 0) fuzz_read(array);
    }
    mlx_array_free(array);
    mlx_vector_string_free(keys);
    mlx_io_gguf_free(gguf);
    mlx_stream_free(stream);
    return 0;
}
