/* io: what the file formats share. */
#ifndef ENGINE_IO_IO_H
#define ENGINE_IO_IO_H

#include "engine/core/internal.h"

/* A mapped file whose parts become arrays: each array holds a reference, the
 * last one unmaps. */
typedef struct SharedMap {
    _Atomic uint32_t refs;
    MappedFile file;
} SharedMap;

bool map_file(const char *path, MappedFile *file, Error *err); /* "Failed to open file ..." */
SharedMap *shared_map_open(const char *path, Error *err);      /* NULL on failure; one reference */
void shared_map_release(void *map);
/* An array of what is at data, inside the mapping: a view when the items lie on
 * their natural alignment, otherwise a copy, made when it is evaluated. NULL after
 * reporting. */
Node *shared_map_array(SharedMap *map, const uint8_t *data, mlx_dtype dtype, const int *shape,
                       int ndim);

/* A lazy array that op makes of the file, which stays mapped until then. */
Node *shared_map_lazy(SharedMap *map, const Op *op, mlx_dtype dtype, const int *shape, int ndim,
                      const void *param, size_t param_bytes);

/* path, with the extension added when it does not end in it; caller frees. */
char *path_with_extension(const char *path, const char *extension);

#endif
