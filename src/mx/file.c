/* safetensors files through the C API, with our errors. */
#include "mx/thread.h"

#include <string.h>

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

/* The engine ends a message with " at file.c:123", which says nothing to a
 * person who gave a bad file. */
static void cut_source_line(char *message) {
    char *at = NULL;
    for (char *next = strstr(message, " at "); next; next = strstr(next + 1, " at ")) at = next;
    if (!at || strchr(at + 4, ' ')) return;
    const char *colon = strrchr(at, ':');
    if (colon && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1)) *at = '\0';
}

bool mx_file_failed(const char *path, Error *err) {
    static const char frame[] = "file(): ";
    Error engine = {0};
    mx_settle(1, MX_NONE, "file", NULL, 0);
    mx_check(&engine);
    cut_source_line(engine.message);
    const char *message = engine.message;
    if (base_starts_with(message, frame)) message += strlen(frame);
    const char *function = message[0] == '[' ? strstr(message, "] ") : NULL;
    if (function) message = function + strlen("] ");
    if (strstr(message, path)) return base_fail(err, ERROR_INPUT, "%s", message);
    return base_fail(err, ERROR_INPUT, "%s: %s", path, message);
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
    return ok || mx_file_failed(path, err);
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
    return ok || mx_file_failed(path, err);
}
