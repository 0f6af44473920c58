/* The public handle of a GGUF file: two maps, arrays and metadata. A metadata
 * value is an array, a text, or a list of texts; its map entry knows which. */
#include "engine/io/gguf_object.h"

#include "engine/io/io.h"

#include <stdlib.h>

enum { NOT_FOUND = 2, OTHER_KIND = 3 };

Gguf *gguf_new(void) {
    Gguf *gguf = base_alloc(sizeof *gguf);
    *gguf = (Gguf){map_new(), map_new()};
    return gguf;
}

void gguf_free(Gguf *gguf) {
    if (!gguf) return;
    map_free(gguf->arrays);
    map_free(gguf->metadata);
    free(gguf);
}

const mlx_dtype gguf_value_dtypes[GGUF_VALUE_TYPES] = {
    [0] = MLX_UINT8,
    [1] = MLX_INT8,
    [2] = MLX_UINT16,
    [3] = MLX_INT16,
    [4] = MLX_UINT32,
    [5] = MLX_INT32,
    [6] = MLX_FLOAT32,
    [GGUF_VALUE_BOOL] = MLX_BOOL,
    [10] = MLX_UINT64,
    [11] = MLX_INT64,
    [GGUF_VALUE_FLOAT64] = MLX_FLOAT64,
};

int gguf_value_type(mlx_dtype dtype) {
    for (int i = 0; i < GGUF_VALUE_FLOAT64; i++)
        if (i != GGUF_VALUE_STRING && i != GGUF_VALUE_ARRAY && gguf_value_dtypes[i] == dtype)
            return i;
    return -1;
}

bool gguf_alignment(const Gguf *gguf, uint64_t *alignment, Error *err) {
    *alignment = GGUF_ALIGNMENT;
    const MapEntry *entry = map_find(gguf->metadata, "general.alignment");
    if (!entry) return true;
    const Node *node = entry->kind == &element_node ? entry->value : NULL;
    const bool number = node && node->dtype == MLX_UINT32 && node->size == 1;
    *alignment = number ? *(const uint32_t *)node_data(node) : 0;
    return (*alignment && !(*alignment & (*alignment - 1)) && *alignment <= GGUF_ALIGNMENT_MAX) ||
           base_fail(err, ERROR_INPUT, "general.alignment is not a power of two up to %d (uint32)",
                     (int)GGUF_ALIGNMENT_MAX);
}

mlx_io_gguf mlx_io_gguf_new(void) {
    return (mlx_io_gguf){gguf_new()};
}

int mlx_io_gguf_free(mlx_io_gguf io) {
    gguf_free(io.ctx);
    return 0;
}

int mlx_io_gguf_get_keys(mlx_vector_string *keys, mlx_io_gguf io) {
    const Gguf *gguf = ctx_of(io, mlx_io_gguf);
    if (!gguf) return 1;
    if (!keys->ctx) *keys = mlx_vector_string_new();
    vector_clear(keys->ctx);
    for (size_t i = 0; i < gguf->arrays->count; i++)
        vector_append(keys->ctx, gguf->arrays->entries[i].key);
    return 0;
}

int mlx_io_gguf_get_array(mlx_array *arr, mlx_io_gguf io, const char *key) {
    const Gguf *gguf = ctx_of(io, mlx_io_gguf);
    if (!gguf) return 1;
    const MapEntry *entry = map_find(gguf->arrays, key);
    return entry ? op_finish(arr, node_retain(entry->value)) : NOT_FOUND;
}

/* 0 and *value, NOT_FOUND, OTHER_KIND, or 1 for a null handle. */
static int find_metadata(mlx_io_gguf io, const char *key, const ElementKind *kind, void **value) {
    const Gguf *gguf = ctx_of(io, mlx_io_gguf);
    if (!gguf) return 1;
    const MapEntry *entry = map_find(gguf->metadata, key);
    if (!entry) return NOT_FOUND;
    if (entry->kind != kind) return OTHER_KIND;
    *value = entry->value;
    return 0;
}

int mlx_io_gguf_get_metadata_array(mlx_array *arr, mlx_io_gguf io, const char *key) {
    void *value;
    const int status = find_metadata(io, key, &element_node, &value);
    return status ? status : op_finish(arr, node_retain(value));
}

int mlx_io_gguf_get_metadata_string(mlx_string *str, mlx_io_gguf io, const char *key) {
    void *value;
    const int status = find_metadata(io, key, &element_text, &value);
    return status ? status : string_finish(str, value);
}

int mlx_io_gguf_get_metadata_vector_string(mlx_vector_string *vstr, mlx_io_gguf io,
                                           const char *key) {
    void *value;
    const int status = find_metadata(io, key, &element_vector, &value);
    return status ? status : mlx_vector_string_set(vstr, (mlx_vector_string){value});
}

static int has_metadata(bool *flag, mlx_io_gguf io, const char *key, const ElementKind *kind) {
    void *value;
    const int status = find_metadata(io, key, kind, &value);
    if (status == 1) return 1;
    *flag = status == 0;
    return status == NOT_FOUND ? NOT_FOUND : 0;
}

int mlx_io_gguf_has_metadata_array(bool *flag, mlx_io_gguf io, const char *key) {
    return has_metadata(flag, io, key, &element_node);
}

int mlx_io_gguf_has_metadata_string(bool *flag, mlx_io_gguf io, const char *key) {
    return has_metadata(flag, io, key, &element_text);
}

int mlx_io_gguf_has_metadata_vector_string(bool *flag, mlx_io_gguf io, const char *key) {
    return has_metadata(flag, io, key, &element_vector);
}

static int insert_if_absent(Map *map, const char *key, const ElementKind *kind, const void *value) {
    if (!map_find(map, key)) map_insert_owned(map, key, kind, kind->retain(value));
    return 0;
}

int mlx_io_gguf_set_array(mlx_io_gguf io, const char *key, const mlx_array arr) {
    const Gguf *gguf = ctx_of(io, mlx_io_gguf);
    const Node *node = gguf ? node_of(arr) : NULL;
    return node ? insert_if_absent(gguf->arrays, key, &element_node, node) : 1;
}

int mlx_io_gguf_set_metadata_array(mlx_io_gguf io, const char *key, const mlx_array marr) {
    const Gguf *gguf = ctx_of(io, mlx_io_gguf);
    const Node *node = gguf ? node_of(marr) : NULL;
    return node ? insert_if_absent(gguf->metadata, key, &element_node, node) : 1;
}

int mlx_io_gguf_set_metadata_string(mlx_io_gguf io, const char *key, const char *mstr) {
    const Gguf *gguf = ctx_of(io, mlx_io_gguf);
    return gguf ? insert_if_absent(gguf->metadata, key, &element_text, mstr) : 1;
}

int mlx_io_gguf_set_metadata_vector_string(mlx_io_gguf io, const char *key,
                                           const mlx_vector_string mvstr) {
    const Gguf *gguf = ctx_of(io, mlx_io_gguf);
    const Vector *texts = gguf ? ctx_of(mvstr, mlx_vector_string) : NULL;
    return texts ? insert_if_absent(gguf->metadata, key, &element_vector, texts) : 1;
}
