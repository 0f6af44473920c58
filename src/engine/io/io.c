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

Node *shared_map_array(SharedMap *map, const uint8_t *data, mlx_dtype dtype, const int *shape,
                       int ndim) {
    size_t size;
    if (!shape_size(shape, ndim, &size) || size == 0 ||
        (uintptr_t)data % dtype_info[dtype].size != 0)
        return node_from_data(data, dtype, shape, ndim);
    atomic_fetch_add_explicit(&map->refs, 1, memory_order_relaxed);
    Buffer *buffer = buffer_foreign((void *)(uintptr_t)data, size * dtype_info[dtype].size,
                                    shared_map_release, map);
    return node_from_buffer(buffer, 0, dtype, shape, ndim);
}

char *path_with_extension(const char *path, const char *extension) {
    return base_ends_with(path, extension) ? base_strdup(path)
                                           : base_format("%s%s", path, extension);
}
