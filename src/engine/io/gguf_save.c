/* Writing GGUF, version 3, whole or not at all: metadata, the list of tensors,
 * then their data, each tensor on the alignment (32 bytes, or what
 * general.alignment says). Dimensions are stored innermost first. Entries stand
 * in the order in which they were set. */
#include "engine/io/gguf_blocks.h"
#include "engine/io/gguf_object.h"
#include "engine/io/stream.h"
#include "mlx/c/io.h"

#include <stdlib.h>
#include <string.h>

enum { GGUF_VERSION = 3 };

/* ---- little-endian fields ---- */

static void append_number(StrBuf *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) base_str_append_char(out, (char)(value >> 8 * i & 255));
}

static void append_text(StrBuf *out, const char *text) {
    const size_t length = strlen(text);
    append_number(out, length, 8);
    base_str_append_n(out, text, length);
}

/* ---- metadata ---- */

static bool append_array(StrBuf *out, const char *key, const Node *node, Error *err) {
    const int type = gguf_value_type((mlx_dtype)node->dtype);
    if (node->ndim > 1)
        return base_fail(err, ERROR_INPUT,
                         "metadata %s: Cannot save arrays with more than one dimension.", key);
    if (node->size == 0)
        return base_fail(err, ERROR_INPUT, "metadata %s: Cannot save empty arrays.", key);
    if (type < 0)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "metadata %s: array type %s not supported for metadata", key,
                         dtype_name(node->dtype));
    if (node->ndim == 1) append_number(out, GGUF_VALUE_ARRAY, 4);
    append_number(out, (uint64_t)type, 4);
    if (node->ndim == 1) append_number(out, node->size, 8);
    char *items = base_try_alloc(node->size, node->itemsize, err);
    if (!items) return false;
    node_read(node, items);
    base_str_append_n(out, items, node_nbytes(node));
    free(items);
    return true;
}

static bool append_metadata(StrBuf *out, const MapEntry *entry, Error *err) {
    append_text(out, entry->key);
    if (entry->kind == &element_node) return append_array(out, entry->key, entry->value, err);
    if (entry->kind == &element_text) {
        append_number(out, GGUF_VALUE_STRING, 4);
        append_text(out, entry->value);
        return true;
    }
    const Vector *texts = entry->value;
    append_number(out, GGUF_VALUE_ARRAY, 4);
    append_number(out, GGUF_VALUE_STRING, 4);
    append_number(out, texts->count, 8);
    for (size_t i = 0; i < texts->count; i++) append_text(out, texts->items[i]);
    return true;
}

/* ---- tensors ---- */

static size_t padding(size_t at, uint64_t alignment) {
    return (size_t)((alignment - at % alignment) % alignment);
}

static bool append_tensor(StrBuf *out, const MapEntry *entry, uint64_t alignment, size_t *offset,
                          Error *err) {
    const Node *node = entry->value;
    const GgufType *type = gguf_type_of((mlx_dtype)node->dtype);
    if (!type)
        return base_fail(err, ERROR_UNSUPPORTED, "tensor %s: dtype %s is not supported", entry->key,
                         dtype_name(node->dtype));
    if (node->ndim > GGUF_DIMS)
        return base_fail(err, ERROR_UNSUPPORTED, "tensor %s: %d axes, GGUF has at most %d",
                         entry->key, node->ndim, (int)GGUF_DIMS);
    append_text(out, entry->key);
    append_number(out, node->ndim, 4);
    for (int i = node->ndim; i-- > 0;) append_number(out, (uint64_t)node->shape[i], 8);
    append_number(out, type->id, 4);
    append_number(out, *offset, 8);
    *offset += node_nbytes(node);
    *offset += padding(*offset, alignment);
    return true;
}

static bool build_header(StrBuf *header, const Gguf *gguf, uint64_t *alignment, Error *err) {
    size_t offset = 0;
    base_str_append_n(header, "GGUF", 4);
    append_number(header, GGUF_VERSION, 4);
    append_number(header, gguf->arrays->count, 8);
    append_number(header, gguf->metadata->count, 8);
    for (size_t i = 0; i < gguf->metadata->count; i++)
        if (!append_metadata(header, &gguf->metadata->entries[i], err)) return false;
    if (!gguf_alignment(gguf, alignment, err)) return false;
    for (size_t i = 0; i < gguf->arrays->count; i++)
        if (!append_tensor(header, &gguf->arrays->entries[i], *alignment, &offset, err))
            return false;
    for (size_t i = padding(header->length, *alignment); i-- > 0;) base_str_append_char(header, 0);
    return true;
}

static bool write_tensors(Sink sink, const Gguf *gguf, uint64_t alignment, Error *err) {
    char *zeros = base_calloc((size_t)alignment, 1);
    bool ok = true;
    for (size_t i = 0; i < gguf->arrays->count && ok; i++) {
        const Node *node = gguf->arrays->entries[i].value;
        ok = sink_write_items(sink, node, err) &&
             sink_write(sink, zeros, padding(node_nbytes(node), alignment), err);
    }
    free(zeros);
    return ok;
}

static bool save_file(const char *path, const Gguf *gguf, Error *err) {
    StrBuf header = {0};
    uint64_t alignment;
    AtomicFile *file = NULL;
    bool ok = build_header(&header, gguf, &alignment, err);
    if (!ok) base_error_context(err, "%s", path);
    if (ok) ok = (file = base_atomic_open(path, err)) != NULL;
    ok = ok && base_atomic_write(file, header.data, header.length, err) &&
         write_tensors((Sink){.file = file}, gguf, alignment, err);
    base_str_free(&header);
    if (ok) return base_atomic_commit(file, err);
    base_atomic_abort(file);
    return false;
}

static bool eval_all(const Gguf *gguf) {
    const Map *maps[] = {gguf->arrays, gguf->metadata};
    Node **nodes = base_calloc(gguf->arrays->count + gguf->metadata->count + 1, sizeof *nodes);
    size_t count = 0;
    for (size_t k = 0; k < BASE_COUNT(maps); k++)
        for (size_t i = 0; i < maps[k]->count; i++)
            if (maps[k]->entries[i].kind == &element_node)
                nodes[count++] = maps[k]->entries[i].value;
    const bool ok = nodes_eval(nodes, count);
    free(nodes);
    return ok;
}

int mlx_save_gguf(const char *file, mlx_io_gguf gguf) {
    const Gguf *content = ctx_of(gguf, mlx_io_gguf);
    if (!content || !eval_all(content)) return 1;
    Error err = {0};
    char *path = path_with_extension(file, ".gguf");
    const bool ok = save_file(path, content, &err);
    if (!ok) op_error("[save_gguf] %s", err.message);
    free(path);
    return ok ? 0 : 1;
}
