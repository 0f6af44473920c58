/* Mapped files shared by arrays, and the names of files. */
#include "engine/io/io.h"

#include <stdlib.h>
#include <string.h>

bool map_file(const char *path, MappedFile *file, Error *err) {
    Error why = {0};
    return base_map_open(path, file, &why) ||
           base_fail(err, why.code, "Failed to open file %s", why.message);
}

SharedMap *shared_map_open(const char *path, Error *err) {
    SharedMap *map = base_alloc(sizeof *map);
    map->refs = 1;
    if (map_file(path, &map->file, err)) return map;
    free(map);
    return NULL;
}

void shared_map_release(void *shared) {
    SharedMap *map = shared;
    if (atomic_fetch_sub_explicit(&map->refs, 1, memory_order_acq_rel) != 1) return;
    base_map_close(&map->file);
    free(map);
}

static void share(SharedMap *map) {
    atomic_fetch_add_explicit(&map->refs, 1, memory_order_relaxed);
}

/* ---- views ---- */

/* A large array's part of a file: no longer an array, it need not stay in memory. */
typedef struct MappedPart {
    SharedMap *map;
    const uint8_t *data;
    size_t bytes;
} MappedPart;

enum { FORGET_BYTES = 1 << 18 }; /* less is not worth a call */

static void part_release(void *payload) {
    MappedPart *part = payload;
    if (part->bytes >= FORGET_BYTES) base_map_forget(part->data, part->bytes);
    shared_map_release(part->map);
    free(part);
}

/* ---- copies ---- */

static bool copy_eval(Node *node, Error *err) {
    const uint8_t *data = *(const uint8_t *const *)node->param;
    if (!node_alloc(node, err)) return false;
    memcpy(node_data(node), data, node_nbytes(node));
    base_map_forget(data, node_nbytes(node));
    return true;
}

static const Op copy_op = {"load", copy_eval, NULL};

Node *shared_map_lazy(SharedMap *map, const Op *op, mlx_dtype dtype, const int *shape, int ndim,
                      const void *param, size_t param_bytes) {
    share(map);
    /* An empty array whose buffer stands for the file. */
    Node *source = node_from_buffer(buffer_foreign(NULL, 0, shared_map_release, map), 0, MLX_UINT8,
                                    (const int[]){0}, 1);
    Node *node = node_new_param(op, dtype, shape, ndim, param, param_bytes, NODES(source));
    node_release(source);
    return node;
}

Node *shared_map_array(SharedMap *map, const uint8_t *data, mlx_dtype dtype, const int *shape,
                       int ndim) {
    size_t size;
    if (!shape_size(shape, ndim, &size) || size == 0)
        return node_from_data(data, dtype, shape, ndim);
    if ((uintptr_t)data % dtype_info[dtype].size != 0)
        return shared_map_lazy(map, &copy_op, dtype, shape, ndim, &data, sizeof data);
    MappedPart *part = base_alloc(sizeof *part);
    *part = (MappedPart){map, data, size * dtype_info[dtype].size};
    share(map);
    Buffer *buffer = buffer_foreign((void *)(uintptr_t)data, part->bytes, part_release, part);
    return node_from_buffer(buffer, 0, dtype, shape, ndim);
}

char *path_with_extension(const char *path, const char *extension) {
    return base_ends_with(path, extension) ? base_strdup(path)
                                           : base_format("%s%s", path, extension);
}
