/* Reading safetensors: a little-endian u64 length, a JSON header of that length,
 * then the data. A file stays mapped and tensors are views of it; a reader's
 * tensors are read when they are evaluated. Nothing in the header is trusted:
 * every tensor must have a known dtype, exactly the bytes its shape asks for,
 * and lie inside the file. */
#include "engine/io/safetensors.h"
#include "engine/io/stream.h"
#include "mlx/c/io.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

const SafetensorsType safetensors_types[] = {
    {"F32", MLX_FLOAT32, 1},   {"F16", MLX_FLOAT16, 1},   {"BF16", MLX_BFLOAT16, 1},
    {"I8", MLX_INT8, 1},       {"I16", MLX_INT16, 1},     {"I32", MLX_INT32, 1},
    {"I64", MLX_INT64, 1},     {"U8", MLX_UINT8, 1},      {"U16", MLX_UINT16, 1},
    {"U32", MLX_UINT32, 1},    {"U64", MLX_UINT64, 1},    {"BOOL", MLX_BOOL, 1},
    {"C64", MLX_COMPLEX64, 1}, {"F8_E4M3", MLX_UINT8, 0}, {"F8_E8M0", MLX_UINT8, 0},
};
const size_t safetensors_type_count = BASE_COUNT(safetensors_types);

typedef struct Loader {
    SharedMap *map;   /* or */
    IoStream *stream; /* where the bytes are */
    size_t start;     /* of the data, behind the header */
    size_t length;    /* bytes of data */
    size_t claimed;   /* bytes of the tensors so far */
    Map *tensors, *metadata;
    Error *err;
} Loader;

static bool read_dtype(const Loader *loader, const char *name, const json_t *entry,
                       mlx_dtype *dtype) {
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; text && i < safetensors_type_count; i++)
        if (strcmp(text, safetensors_types[i].name) == 0) {
            *dtype = safetensors_types[i].dtype;
            return true;
        }
    return base_fail(loader->err, text ? ERROR_UNSUPPORTED : ERROR_INPUT,
                     "tensor %s: unsupported dtype %s", name, text ? text : "(none)");
}

static bool read_shape(const Loader *loader, const char *name, const json_t *entry, int *shape,
                       int *ndim) {
    const json_t *list = json_object_get(entry, "shape");
    const size_t count = json_array_size(list);
    if (!json_is_array(list) || count > NODE_DIMS)
        return base_fail(loader->err, ERROR_INPUT,
                         "tensor %s: \"shape\" is not a list of at most %d numbers", name,
                         (int)NODE_DIMS);
    for (size_t i = 0; i < count; i++) {
        const json_t *number = json_array_get(list, i);
        const json_int_t value = json_integer_value(number);
        if (!json_is_integer(number) || value < 0 || value > INT_MAX)
            return base_fail(loader->err, ERROR_INPUT, "tensor %s: bad dimension in \"shape\"",
                             name);
        shape[i] = (int)value;
    }
    *ndim = (int)count;
    return true;
}

static bool read_range(const Loader *loader, const char *name, const json_t *entry, size_t *begin,
                       size_t *end) {
    const json_t *list = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(list, 0), *second = json_array_get(list, 1);
    const json_int_t low = json_integer_value(first), high = json_integer_value(second);
    if (json_array_size(list) != 2 || !json_is_integer(first) || !json_is_integer(second) ||
        low < 0 || high < low)
        return base_fail(loader->err, ERROR_INPUT, "tensor %s: bad \"data_offsets\"", name);
    if ((uint64_t)high > loader->length)
        return base_fail(loader->err, ERROR_INPUT,
                         "tensor %s ends at byte %lld of the data, but there are only %zu", name,
                         (long long)high, loader->length);
    *begin = (size_t)low;
    *end = (size_t)high;
    return true;
}

static bool load_tensor(Loader *loader, const char *name, const json_t *entry) {
    mlx_dtype dtype = MLX_BOOL;
    int shape[NODE_DIMS], ndim = 0;
    size_t begin = 0, end = 0, size;
    if (!read_dtype(loader, name, entry, &dtype) ||
        !read_shape(loader, name, entry, shape, &ndim) ||
        !read_range(loader, name, entry, &begin, &end))
        return false;
    if (!shape_size(shape, ndim, &size) || size * dtype_info[dtype].size != end - begin)
        return base_fail(loader->err, ERROR_INPUT,
                         "tensor %s: %zu bytes do not hold shape %s of %s", name, end - begin,
                         shape_text(&(ShapeText){{0}}, shape, ndim), dtype_name(dtype));
    loader->claimed += end - begin;
    if (loader->claimed > loader->length)
        return base_fail(loader->err, ERROR_INPUT, "tensor %s overlaps another one", name);
    const size_t at = loader->start + begin;
    Node *node =
        loader->map ? shared_map_array(loader->map, loader->map->file.data + at, dtype, shape, ndim)
                    : stream_array(loader->stream, at, false, dtype, shape, ndim);
    if (!node) return base_fail(loader->err, ERROR_MEMORY, "tensor %s: out of memory", name);
    map_insert_owned(loader->tensors, name, &element_node, node);
    return true;
}

static bool load_metadata(Loader *loader, const json_t *object) {
    const char *key;
    json_t *value;
    if (!json_is_object(object) && !json_is_null(object))
        return base_fail(loader->err, ERROR_INPUT, "__metadata__ is not an object");
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        if (!json_is_string(value))
            return base_fail(loader->err, ERROR_INPUT, "__metadata__.%s is not a text", key);
        map_insert_owned(loader->metadata, key, &element_text,
                         base_strdup(json_string_value(value)));
    }
    return true;
}

static bool load_entries(Loader *loader, json_t *header) {
    const char *name;
    json_t *entry;
    if (!json_is_object(header))
        return base_fail(loader->err, ERROR_INPUT, "the header is not a JSON object");
    json_object_foreach(header, name, entry) {
        const bool ok = strcmp(name, "__metadata__") == 0 ? load_metadata(loader, entry)
                                                          : load_tensor(loader, name, entry);
        if (!ok) return false;
    }
    return true;
}

/* Checks the header's length against the whole, and sets where the data lies. */
static bool place_header(Loader *loader, const uint8_t *prefix, size_t total, size_t *length) {
    uint64_t header_length = 0;
    if (total >= 8)
        for (int i = 7; i >= 0; i--) header_length = header_length << 8 | prefix[i];
    if (total < 8 || header_length == 0 || header_length >= SAFETENSORS_HEADER_MAX ||
        header_length > total - 8)
        return base_fail(loader->err, ERROR_INPUT,
                         "not a safetensors file, or a truncated one (%zu bytes, header of %llu)",
                         total, (unsigned long long)header_length);
    *length = (size_t)header_length;
    loader->start = 8 + *length;
    loader->length = total - loader->start;
    return true;
}

static bool load_header(Loader *loader, const char *text, size_t length) {
    json_t *header = base_json_parse(text, length, "header", loader->err);
    const bool ok = header && load_entries(loader, header);
    json_decref(header);
    return ok;
}

static bool load_file(Loader *loader) {
    const MappedFile *file = &loader->map->file;
    size_t length;
    return place_header(loader, file->data, file->length, &length) &&
           load_header(loader, (const char *)file->data + 8, length);
}

static bool load_stream(Loader *loader) {
    IoStream *stream = loader->stream;
    uint8_t prefix[8];
    size_t total, length;
    if (!stream_ready(stream, true, loader->err) ||
        !stream_read(stream, prefix, sizeof prefix, loader->err) ||
        !stream_length(stream, sizeof prefix, &total, loader->err) ||
        !place_header(loader, prefix, total, &length))
        return false;
    char *text = base_try_alloc(length, 1, loader->err);
    const bool ok =
        text && stream_read(stream, text, length, loader->err) && load_header(loader, text, length);
    free(text);
    return ok;
}

/* Hands over what was loaded, or reports why it was not. */
static int finish(Loader *loader, bool ok, mlx_map_string_to_array *tensors,
                  mlx_map_string_to_string *metadata) {
    if (!ok) {
        op_error("[load_safetensors] %s", loader->err->message);
        map_free(loader->tensors);
        map_free(loader->metadata);
        return 1;
    }
    map_finish(&tensors->ctx, loader->tensors);
    map_finish(&metadata->ctx, loader->metadata);
    return 0;
}

int mlx_load_safetensors(mlx_map_string_to_array *res_0, mlx_map_string_to_string *res_1,
                         const char *file, const mlx_stream s) {
    Error err = {0};
    if (!stream_ok(s)) return 1;
    Loader loader = {.map = shared_map_open(file, &err), .err = &err};
    bool ok = loader.map != NULL;
    if (ok) {
        loader.tensors = map_new();
        loader.metadata = map_new();
        ok = load_file(&loader) || base_error_context(&err, "%s", file);
        shared_map_release(loader.map);
    }
    return finish(&loader, ok, res_0, res_1);
}

int mlx_load_safetensors_reader(mlx_map_string_to_array *res_0, mlx_map_string_to_string *res_1,
                                mlx_io_reader in_stream, const mlx_stream s) {
    Error err = {0};
    IoStream *stream = stream_ok(s) ? ctx_of(in_stream, mlx_io_reader) : NULL;
    if (!stream) return 1;
    Loader loader = {.stream = stream, .tensors = map_new(), .metadata = map_new(), .err = &err};
    const bool ok = load_stream(&loader) || base_error_context(&err, "%s", stream_label(stream));
    return finish(&loader, ok, res_0, res_1);
}
