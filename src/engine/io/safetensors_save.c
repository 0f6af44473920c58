/* Writing safetensors, whole or not at all. Tensors stand by item size, largest
 * first, then by name: the bytes depend on the content only, and every tensor
 * lies on its natural alignment, so that it can be mapped. */
#include "engine/io/safetensors.h"
#include "engine/io/stream.h"
#include "mlx/c/io.h"

#include <stdlib.h>
#include <string.h>

enum { DATA_ALIGNMENT = 64 };

static const char *type_name(mlx_dtype dtype) {
    for (size_t i = 0; i < safetensors_type_count; i++)
        if (safetensors_types[i].written && safetensors_types[i].dtype == dtype)
            return safetensors_types[i].name;
    return NULL;
}

static int by_size_then_name(const void *a, const void *b) {
    const MapEntry *one = *(const MapEntry *const *)a, *two = *(const MapEntry *const *)b;
    const Node *first = one->value, *second = two->value;
    if (first->itemsize != second->itemsize) return first->itemsize < second->itemsize ? 1 : -1;
    return strcmp(one->key, two->key);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const MapEntry *const *)a)->key, (*(const MapEntry *const *)b)->key);
}

/* Caller frees. */
static const MapEntry **sorted_entries(const Map *map, int (*compare)(const void *, const void *)) {
    const MapEntry **sorted = base_calloc(map->count + 1, sizeof *sorted);
    for (size_t i = 0; i < map->count; i++) sorted[i] = &map->entries[i];
    qsort(sorted, map->count, sizeof *sorted, compare);
    return sorted;
}

static bool append_json_text(StrBuf *out, const char *text, Error *err) {
    json_t *value = json_string(text); /* NULL when it is not UTF-8 */
    char *dump = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    if (dump) base_str_append(out, dump);
    free(dump);
    json_decref(value);
    return dump || base_fail(err, ERROR_INPUT, "a name or metadata text is not valid UTF-8");
}

static bool append_metadata(StrBuf *header, const Map *metadata, Error *err) {
    const MapEntry **sorted = sorted_entries(metadata, by_name);
    bool ok = true;
    base_str_append(header, "\"__metadata__\":{");
    for (size_t i = 0; i < metadata->count && ok; i++) {
        if (i) base_str_append_char(header, ',');
        ok = append_json_text(header, sorted[i]->key, err);
        base_str_append_char(header, ':');
        ok = ok && append_json_text(header, sorted[i]->value, err);
    }
    base_str_append_char(header, '}');
    free(sorted);
    return ok;
}

static bool append_tensor(StrBuf *header, const MapEntry *entry, size_t *offset, Error *err) {
    const Node *node = entry->value;
    const char *type = type_name(node->dtype);
    if (!type)
        return base_fail(err, ERROR_UNSUPPORTED, "tensor %s: safetensors cannot hold %s here",
                         entry->key, dtype_name(node->dtype));
    if (node->size == 0)
        return base_fail(err, ERROR_INPUT, "Cannot serialize an empty array ('%s')", entry->key);
    if (!append_json_text(header, entry->key, err)) return false;
    base_str_appendf(header, ":{\"dtype\":\"%s\",\"shape\":[", type);
    for (int i = 0; i < node->ndim; i++)
        base_str_appendf(header, "%s%d", i ? "," : "", node->shape[i]);
    base_str_appendf(header, "],\"data_offsets\":[%zu,%zu]}", *offset, *offset + node_nbytes(node));
    *offset += node_nbytes(node);
    return true;
}

static bool build_header(StrBuf *header, const MapEntry **tensors, size_t count,
                         const Map *metadata, Error *err) {
    size_t offset = 0;
    base_str_append_char(header, '{');
    if (metadata->count && !append_metadata(header, metadata, err)) return false;
    for (size_t i = 0; i < count; i++) {
        if (i || metadata->count) base_str_append_char(header, ',');
        if (!append_tensor(header, tensors[i], &offset, err)) return false;
    }
    base_str_append_char(header, '}');
    while ((8 + header->length) % DATA_ALIGNMENT) base_str_append_char(header, ' ');
    if (header->length >= SAFETENSORS_HEADER_MAX)
        return base_fail(err, ERROR_UNSUPPORTED, "the header of %zu bytes is too large",
                         header->length);
    return true;
}

static bool write_all(Sink sink, const StrBuf *header, const MapEntry **tensors, size_t count,
                      Error *err) {
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header->length >> 8 * i);
    bool ok = sink_write(sink, length, sizeof length, err) &&
              sink_write(sink, header->data, header->length, err);
    for (size_t i = 0; i < count && ok; i++) ok = sink_write_items(sink, tensors[i]->value, err);
    return ok;
}

/* To the stream, or to a file at path when it is NULL. */
static bool save_to(IoStream *stream, const char *path, const MapEntry **tensors, size_t count,
                    const Map *metadata, Error *err) {
    StrBuf header = {0};
    AtomicFile *file = NULL;
    bool ok = build_header(&header, tensors, count, metadata, err);
    if (!ok) base_error_context(err, "%s", stream ? stream_label(stream) : path);
    if (ok) ok = stream ? stream_ready(stream, false, err) : !!(file = base_atomic_open(path, err));
    if (ok) ok = write_all((Sink){.file = file, .stream = stream}, &header, tensors, count, err);
    base_str_free(&header);
    if (ok && file) return base_atomic_commit(file, err);
    base_atomic_abort(file);
    return ok;
}

static bool eval_all(const Map *map) {
    Node **nodes = base_calloc(map->count + 1, sizeof *nodes);
    for (size_t i = 0; i < map->count; i++) nodes[i] = map->entries[i].value;
    const bool ok = nodes_eval(nodes, map->count);
    free(nodes);
    return ok;
}

static int save(IoStream *stream, const char *path, mlx_map_string_to_array param,
                mlx_map_string_to_string metadata) {
    const Map *tensors = ctx_of(param, mlx_map_string_to_array);
    const Map *texts = tensors ? ctx_of(metadata, mlx_map_string_to_string) : NULL;
    if (!texts || !eval_all(tensors)) return 1;
    Error err = {0};
    const MapEntry **sorted = sorted_entries(tensors, by_size_then_name);
    const bool ok = save_to(stream, path, sorted, tensors->count, texts, &err);
    if (!ok) op_error("[save_safetensors] %s", err.message);
    free(sorted);
    return ok ? 0 : 1;
}

int mlx_save_safetensors(const char *file, const mlx_map_string_to_array param,
                         const mlx_map_string_to_string metadata) {
    char *path = path_with_extension(file, ".safetensors");
    const int status = save(NULL, path, param, metadata);
    free(path);
    return status;
}

int mlx_save_safetensors_writer(mlx_io_writer in_stream, const mlx_map_string_to_array param,
                                const mlx_map_string_to_string metadata) {
    IoStream *stream = ctx_of(in_stream, mlx_io_writer);
    return stream ? save(stream, NULL, param, metadata) : 1;
}
