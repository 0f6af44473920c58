/* A GGUF file in memory: arrays and metadata by name. The getters return 2 for a
 * missing key and 3 for metadata of another kind. */
#ifndef MLX_C_IO_TYPES_H
#define MLX_C_IO_TYPES_H

#include "mlx/c/array.h"
#include "mlx/c/string.h"
#include "mlx/c/vector.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct mlx_io_gguf_ {
    void *ctx;
} mlx_io_gguf;

mlx_io_gguf mlx_io_gguf_new(void);
int mlx_io_gguf_free(mlx_io_gguf io);

/* The names of the arrays. */
int mlx_io_gguf_get_keys(mlx_vector_string *keys, mlx_io_gguf io);

int mlx_io_gguf_get_array(mlx_array *arr, mlx_io_gguf io, const char *key);
int mlx_io_gguf_get_metadata_array(mlx_array *arr, mlx_io_gguf io, const char *key);
int mlx_io_gguf_get_metadata_string(mlx_string *str, mlx_io_gguf io, const char *key);
int mlx_io_gguf_get_metadata_vector_string(mlx_vector_string *vstr, mlx_io_gguf io,
                                           const char *key);
int mlx_io_gguf_has_metadata_array(bool *flag, mlx_io_gguf io, const char *key);
int mlx_io_gguf_has_metadata_string(bool *flag, mlx_io_gguf io, const char *key);
int mlx_io_gguf_has_metadata_vector_string(bool *flag, mlx_io_gguf io, const char *key);

/* These insert only a key that is absent. */
int mlx_io_gguf_set_array(mlx_io_gguf io, const char *key, const mlx_array arr);
int mlx_io_gguf_set_metadata_array(mlx_io_gguf io, const char *key, const mlx_array marr);
int mlx_io_gguf_set_metadata_string(mlx_io_gguf io, const char *key, const char *mstr);
int mlx_io_gguf_set_metadata_vector_string(mlx_io_gguf io, const char *key,
                                           const mlx_vector_string mvstr);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
