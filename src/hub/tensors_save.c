/* Writing one safetensors file, tensor by tensor: a lazy tensor is computed when
 * its turn comes and may be released at once, so the memory taken is that of the
 * tensors in work and not of the file.
 *
 * In the file tensors stand by item size, largest first, then by name: the bytes
 * depend on the content alone and every tensor lies on its natural alignment, so
 * that it can be mapped. They are written in the order given, each at its place. */
#include "hub/internal.h"

#include <stdlib.h>
#include <string.h>

enum { DATA_ALIGNMENT = 64, HEADER_MAX = 100000000 };

static const struct {
    mlx_dtype dtype;
    const char *name;
} dtype_names[] = {
    {MLX_BOOL, "BOOL"},     {MLX_UINT8, "U8"},      {MLX_UINT16, "U16"},  {MLX_UINT32, "U32"},
    {MLX_UINT64, "U64"},    {MLX_INT8, "I8"},       {MLX_INT16, "I16"},   {MLX_INT32, "I32"},
    {MLX_INT64, "I64"},     {MLX_FLOAT16, "F16"},   {MLX_FLOAT32, "F32"}, {MLX_FLOAT64, "F64"},
    {MLX_BFLOAT16, "BF16"}, {MLX_COMPLEX64, "C64"},
};

static const char *dtype_name(mlx_dtype dtype) {
    for (size_t i = 0; i < BASE_COUNT(dtype_names); i++)
        if (dtype_names[i].dtype == dtype) return dtype_names[i].name;
    return NULL;
}

/* A tensor's place in the file. */
typedef struct Place {
    const HubTensor *tensor;
    uint64_t offset; /* in the data */
} Place;

static int by_size_then_name(const void *a, const void *b) {
    const HubTensor *one = ((const Place *)a)->tensor, *two = ((const Place *)b)->tensor;
    size_t first = mlx_array_itemsize(one->array), second = mlx_array_itemsize(two->array);
    if (first != second) return first < second ? 1 : -1;
    return strcmp(one->name, two->name);
}

static int by_position(const void *a, const void *b) {
    const HubTensor *one = ((const Place *)a)->tensor, *two = ((const Place *)b)->tensor;
    return (one > two) - (one < two);
}

static bool append_name(StrBuf *header, const char *name, Error *err) {
    json_t *value = json_string(name); /* NULL when it is not UTF-8 */
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    if (text) base_str_append(header, text);
    free(text);
    json_decref(value);
    return text || base_fail(err, ERROR_INPUT, "a tensor's name is not valid UTF-8");
}

/* Gives every place its offset; the header with its length in front. */
static bool build_header(StrBuf *header, Place *places, size_t count, Error *err) {
    uint64_t offset = 0;
    base_str_append_n(header, "\0\0\0\0\0\0\0\0", 8);
    base_str_append(header, "{\"__metadata__\":{\"format\":\"mlx\"}");
    for (size_t i = 0; i < count; i++) {
        mlx_array array = places[i].tensor->array;
        const char *name = places[i].tensor->name, *type = dtype_name(mlx_array_dtype(array));
        if (!type || mlx_array_size(array) == 0)
            return base_fail(err, ERROR_UNSUPPORTED, "tensor %s: %s cannot be saved", name,
                             mx_describe(array));
        base_str_append_char(header, ',');
        if (!append_name(header, name, err)) return false;
        base_str_appendf(header, ":{\"dtype\":\"%s\",\"shape\":[", type);
        for (size_t d = 0; d < mlx_array_ndim(array); d++)
            base_str_appendf(header, "%s%d", d ? "," : "", mlx_array_dim(array, (int)d));
        uint64_t end = offset + mlx_array_nbytes(array);
        base_str_appendf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                         (unsigned long long)end);
        places[i].offset = offset;
        offset = end;
    }
    base_str_append_char(header, '}');
    while (header->length % DATA_ALIGNMENT) base_str_append_char(header, ' ');
    const uint64_t length = header->length - 8;
    if (length > HEADER_MAX)
        return base_fail(err, ERROR_UNSUPPORTED, "the header would have %llu bytes",
                         (unsigned long long)length);
    for (int i = 0; i < 8; i++) header->data[i] = (char)(length >> 8 * i);
    return true;
}

static bool write_tensor(AtomicFile *file, uint64_t at, const HubTensor *tensor, Error *err) {
    mx_scope scope = mx_open();
    const void *data = mx_data(tensor->array);
    bool written =
        data && base_atomic_write_at(file, at, data, mlx_array_nbytes(tensor->array), err);
    if (!mx_check(err)) base_error_context(err, "%s", tensor->name);
    mx_drop(scope);
    return written;
}

static bool write_all(AtomicFile *file, const StrBuf *header, Place *places, size_t count,
                      HubTensor *tensors, const HubSave *how, Error *err) {
    if (!base_atomic_write_at(file, 0, header->data, header->length, err)) return false;
    qsort(places, count, sizeof *places, by_position);
    for (size_t i = 0; i < count; i++) {
        HubTensor *tensor = &tensors[places[i].tensor - tensors];
        if (how && base_interrupted())
            return base_fail(err, ERROR_INTERRUPTED, "interrupted, nothing was written");
        if (!write_tensor(file, header->length + places[i].offset, tensor, err)) return false;
        if (how && how->progress)
            base_progress_update(how->progress,
                                 how->progress->done + (double)mlx_array_nbytes(tensor->array));
        if (how && how->release) {
            mlx_array_free(tensor->array);
            tensor->array = (mlx_array){0};
        }
    }
    return true;
}

bool hub_tensors_stream(const char *path, HubTensor *tensors, size_t count, const size_t *shard,
                        size_t index, const HubSave *how, Error *err) {
    Place *places = base_calloc(count + 1, sizeof *places);
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (!shard || shard[i] == index) places[used++] = (Place){.tensor = &tensors[i]};
    qsort(places, used, sizeof *places, by_size_then_name);
    StrBuf header = {0};
    AtomicFile *file = NULL;
    bool saved = build_header(&header, places, used, err) &&
                 (file = base_atomic_open(path, err)) != NULL &&
                 write_all(file, &header, places, used, tensors, how, err);
    base_str_free(&header);
    free(places);
    if (saved) return base_atomic_commit(file, err);
    base_atomic_abort(file);
    return false;
}
