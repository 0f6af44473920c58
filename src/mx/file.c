/* safetensors files through the C API, with our errors. */
#include "mx/thread.h"

static void show_tensors(mlx_map_string_to_array tensors, MxFileVisitor visitor) {
    mlx_map_string_to_array_iterator at = mlx_map_string_to_array_iterator_new(tensors);
    const char *name;
    mlx_array array = {0};
    while (mlx_map_string_to_array_iterator_next(&name, &array, at) == 0) {
        visitor.tensor(visitor.context, name, array);
    }
    mlx_array_free(array);
    mlx_map_string_to_array_iterator_free(at);
}

static void show_metadata(mlx_map_string_to_string entries, MxFileVisitor visitor) {
    mlx_map_string_to_string_iterator at = mlx_map_string_to_string_iterator_new(entries);
    const char *key, *value;
    while (mlx_map_string_to_string_iterator_next(&key, &value, at) == 0) {
        visitor.metadata(visitor.context, key, value);
    }
    mlx_map_string_to_string_iterator_free(at);
}

/* A failed call without inputs, as an error about a file. */
static bool file_error(const char *operation, const char *path, Error *err) {
    Error engine = {0};
    mx_settle(1, MX_NONE, operation, NULL, 0);
    mx_check(&engine);
    return base_fail(err, ERROR_INPUT, "%s: %s", path, engine.message);
}

bool mx_load_safetensors(const char *path, MxFileVisitor visitor, Error *err) {
    if (!mx_check(err)) return false;
    if (!base_is_file(path)) return base_fail(err, ERROR_IO, "%s: no such file", path);
    mx_scope s = mx_open(); /* installs the error handler */
    mlx_map_string_to_array tensors = {0};
    mlx_map_string_to_string metadata = {0};
    bool ok = mlx_load_safetensors(&tensors, &metadata, path, mx_stream()) == 0;
    if (ok && visitor.tensor) show_tensors(tensors, visitor);
    if (ok && visitor.metadata) show_metadata(metadata, visitor);
    if (tensors.ctx) mlx_map_string_to_array_free(tensors);
    if (metadata.ctx) mlx_map_string_to_string_free(metadata);
    mx_drop(s);
    return ok || file_error("load", path, err);
}

bool mx_save_safetensors(const char *path, const char *const *names, const mlx_array *arrays,
                         size_t count, const json_t *metadata, Error *err) {
    if (!mx_check(err)) return false;
    mx_scope s = mx_open();
    mlx_map_string_to_array tensors = mlx_map_string_to_array_new();
    mlx_map_string_to_string entries = mlx_map_string_to_string_new();
    for (size_t i = 0; i < count; i++) mlx_map_string_to_array_insert(tensors, names[i], arrays[i]);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (json_is_string(value))
            mlx_map_string_to_string_insert(entries, key, json_string_value(value));
    }
    bool ok = mlx_save_safetensors(path, tensors, entries) == 0;
    mlx_map_string_to_array_free(tensors);
    mlx_map_string_to_string_free(entries);
    mx_drop(s);
    return ok || file_error("save", path, err);
}
