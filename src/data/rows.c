/* Arrays by rows: sample i has row i of each, without a copy. Of arrays in memory, of
 * .npy files, which are mapped, and of .npz files. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/buffer.h"
#include "data/npy.h"

typedef struct RowsBuffer {
    DxBuffer base;
    DxColumn *columns;
    DxKey *keys;
    size_t n_columns;
    char *identity, *name;
} RowsBuffer;

static void let_go(void *context) {
    dx_array_release(context);
}

static DxStatus rows_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                         Error *err) {
    const RowsBuffer *rows = (const RowsBuffer *)buffer;
    *sample = dx_sample_new();
    dx_sample_set_record(sample, (DxRecord){.epoch = epoch, .ordinal = (uint64_t)index});
    for (size_t i = 0; i < rows->n_columns; i++) {
        DxArray *whole = rows->columns[i].array;
        size_t bytes = whole->bytes / (size_t)whole->shape[0];
        DxArray *row = dx_array_wrap(whole->type, whole->rank - 1, whole->shape + 1,
                                     (const char *)whole->data + bytes * (size_t)index, let_go,
                                     dx_array_retain(whole), err);
        dx_sample_put(sample, rows->keys[i], row);
    }
    return DX_OK;
}

static void rows_options(const DxBuffer *buffer, StrBuf *text) {
    const RowsBuffer *rows = (const RowsBuffer *)buffer;
    char shape[128];
    base_str_append(text, rows->identity);
    for (size_t i = 0; i < rows->n_columns; i++)
        base_str_appendf(text, ", %s %s", rows->keys[i].name,
                         dx_array_describe(rows->columns[i].array, shape, sizeof shape));
}

static void rows_where(const DxBuffer *buffer, const DxRecord *record, StrBuf *text) {
    base_str_appendf(text, "%s: row %llu", ((const RowsBuffer *)buffer)->name,
                     (unsigned long long)record->ordinal);
}

static void rows_free(DxBuffer *buffer) {
    RowsBuffer *rows = (RowsBuffer *)buffer;
    for (size_t i = 0; i < rows->n_columns; i++) dx_array_release(rows->columns[i].array);
    free(rows->columns);
    free(rows->keys);
    free(rows->identity);
    free(rows->name);
}

static const DxBufferKind rows_kind = {"rows", rows_get, rows_options, rows_where, rows_free};

static bool same_rows(const DxColumn *columns, size_t count, Error *err) {
    char text[128];
    for (size_t i = 0; i < count; i++) {
        if (!columns[i].array) return false;
        if (columns[i].array->rank == 0)
            return base_fail(err, ERROR_INPUT, "\"%s\" is a scalar and has no rows",
                             columns[i].key);
        if (columns[i].array->shape[0] != columns[0].array->shape[0])
            return base_fail(err, ERROR_INPUT, "\"%s\" is %s, \"%s\" has %lld rows", columns[i].key,
                             dx_array_describe(columns[i].array, text, sizeof text), columns[0].key,
                             (long long)columns[0].array->shape[0]);
    }
    return count > 0 || base_fail(err, ERROR_INPUT, "there are no arrays");
}

/* Takes the arrays. `name` stands in messages, `identity` in saved states. */
static DxBuffer *make_rows(const DxColumn *columns, size_t count, const char *name,
                           const char *identity, Error *err) {
    if (!same_rows(columns, count, err)) {
        for (size_t i = 0; i < count; i++) dx_array_release(columns[i].array);
        base_error_context(err, "%s", name);
        return NULL;
    }
    RowsBuffer *rows = dx_buffer_node(&rows_kind, sizeof *rows, NULL, columns[0].array->shape[0]);
    rows->columns = base_calloc(count, sizeof *rows->columns);
    rows->keys = base_calloc(count, sizeof *rows->keys);
    rows->n_columns = count;
    rows->name = base_strdup(name);
    rows->identity = base_strdup(identity);
    for (size_t i = 0; i < count; i++) {
        rows->columns[i].array = columns[i].array;
        rows->keys[i] = dx_key(columns[i].key);
    }
    return &rows->base;
}

DxBuffer *dx_rows(const DxColumn *columns, size_t count, Error *err) {
    return make_rows(columns, count, "rows", "in memory", err);
}

/* ---- files ------------------------------------------------------------------------------ */

static char *file_identity(const char *path) {
    struct stat about = {0};
    if (stat(path, &about) != 0) return base_strdup(base_path_name(path));
    return base_format("%s, %lld bytes, time %lld", base_path_name(path), (long long)about.st_size,
                       (long long)about.st_mtime);
}

static void unmap(void *context) {
    base_map_close(context);
    free(context);
}

/* The array of a file, mapped when it lies as it is needed. */
static DxArray *map_npy(const char *path, Error *err) {
    NpyHeader header;
    MappedFile *map = base_calloc(1, sizeof *map);
    if (!base_map_open(path, map, err)) {
        free(map);
        return NULL;
    }
    DxArray *array = NULL;
    bool ok = dx_npy_header(map->data, map->length, &header, err);
    bool as_it_lies = ok && !header.columns_first && !header.swapped &&
                      header.data % dx_type_size(header.type) == 0;
    if (as_it_lies)
        array = dx_array_wrap(header.type, header.rank, header.shape, map->data + header.data,
                              unmap, map, err);
    else if (ok)
        array = dx_npy_parse(map->data, map->length, err);
    if (!array) base_error_context(err, "%s", path);
    if (!array || !as_it_lies) unmap(map);
    return array;
}

DxBuffer *dx_npy(const char *path, const char *key, Error *err) {
    DxArray *array = map_npy(path, err);
    if (!array) return NULL;
    char *identity = file_identity(path);
    DxBuffer *rows = make_rows(&(DxColumn){key, array}, 1, path, identity, err);
    free(identity);
    return rows;
}

/* One member of an .npz, as the archive gives it, to a column. */
static bool take_member(const DxSample *member, DxColumn *column, Error *err) {
    const DxArray *path = dx_sample_get(member, dx_key("path"));
    const DxArray *bytes = dx_sample_get(member, dx_key("bytes"));
    char *name = base_strndup(path->data, path->bytes);
    column->array = dx_npy_parse(bytes->data, bytes->bytes, err);
    if (!column->array) base_error_context(err, "%.200s", name);
    if (base_ends_with(name, ".npy")) name[strlen(name) - strlen(".npy")] = '\0';
    column->key = dx_key(name).name;
    free(name);
    return column->array != NULL;
}

DxBuffer *dx_npz(const char *path, Error *err) {
    DxStream *members = dx_archive(&(DxArchiveOptions){.path = path}, err);
    if (!members) return NULL;
    DxColumn *columns = NULL;
    size_t count = 0, capacity = 0;
    DxSample *member;
    DxStatus status;
    bool ok = true;
    while (ok && (status = dx_next(members, &member, err)) != DX_END) {
        ok = status == DX_OK;
        if (!ok) break;
        columns = base_grow(columns, &capacity, count + 1, sizeof *columns);
        ok = take_member(member, &columns[count], err);
        if (!ok) base_error_context(err, "%s", path);
        count += ok;
        dx_sample_free(member);
    }
    dx_stream_free(members);
    DxBuffer *rows = NULL;
    char *identity = file_identity(path);
    if (ok)
        rows = make_rows(columns, count, path, identity, err);
    else
        for (size_t i = 0; i < count; i++) dx_array_release(columns[i].array);
    free(identity);
    free(columns);
    return rows;
}
