/* Readers and writers of the caller's own, and a GGUF file in memory. */
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

typedef struct mlx_io_reader_ {
    void *ctx;
} mlx_io_reader;

typedef struct mlx_io_writer_ {
    void *ctx;
} mlx_io_writer;

/* What a stream can do; every function gets the descriptor first. Reading an array
 * or saving one needs is_open, good and read with read_at_offset, or write; loading
 * safetensors also seek and tell. good says whether all went well so far: it is
 * asked after each call. whence is SEEK_SET, SEEK_CUR or SEEK_END. read_at_offset
 * leaves the position undefined and may be called from another thread. free runs
 * when the last user of the stream is gone. label, for messages, and free may be
 * NULL. */
typedef struct mlx_io_vtable_ {
    bool (*is_open)(void *);
    bool (*good)(void *);
    size_t (*tell)(void *);
    void (*seek)(void *, int64_t off, int whence);
    void (*read)(void *, char *data, size_t n);
    void (*read_at_offset)(void *, char *data, size_t n, size_t off);
    void (*write)(void *, const char *data, size_t n);
    const char *(*label)(void *);
    void (*free)(void *);
} mlx_io_vtable;

/* desc is the descriptor. Arrays loaded from a reader keep it until they are
 * evaluated, so it may outlive its handle. */
mlx_io_reader mlx_io_reader_new(void *desc, mlx_io_vtable vtable);
int mlx_io_reader_descriptor(void **desc_, mlx_io_reader io);
int mlx_io_reader_tostring(mlx_string *str_, mlx_io_reader io); /* its label */
int mlx_io_reader_free(mlx_io_reader io);

mlx_io_writer mlx_io_writer_new(void *desc, mlx_io_vtable vtable);
int mlx_io_writer_descriptor(void **desc_, mlx_io_writer io);
int mlx_io_writer_tostring(mlx_string *str_, mlx_io_writer io);
int mlx_io_writer_free(mlx_io_writer io);

/* Arrays and metadata of a GGUF file by name. The getters return 2 for a missing
 * key and 3 for metadata of another kind. */
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
