/* Arrays in files: npy, safetensors, GGUF. */
#ifndef MLX_C_IO_H
#define MLX_C_IO_H

#include "mlx/c/array.h"
#include "mlx/c/closure.h"
#include "mlx/c/io_types.h"
#include "mlx/c/map.h"
#include "mlx/c/stream.h"
#include "mlx/c/string.h"
#include "mlx/c/vector.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* NumPy's .npy; save appends the extension when it is missing and refuses an empty
 * array. What comes from a reader is read when it is evaluated. */
int mlx_load(mlx_array *res, const char *file, const mlx_stream s);
int mlx_load_reader(mlx_array *res, mlx_io_reader in_stream, const mlx_stream s);
int mlx_save(const char *file, const mlx_array a);
int mlx_save_writer(mlx_io_writer out_stream, const mlx_array a);

/* Tensors into res_0, the __metadata__ texts into res_1. The file is mapped and the
 * arrays are views of it; it must not change while they live. A reader's arrays are
 * read when they are evaluated. save writes the file whole or not at all, larger item
 * sizes first, then by name; it refuses empty arrays. */
int mlx_load_safetensors(mlx_map_string_to_array *res_0, mlx_map_string_to_string *res_1,
                         const char *file, const mlx_stream s);
int mlx_load_safetensors_reader(mlx_map_string_to_array *res_0, mlx_map_string_to_string *res_1,
                                mlx_io_reader in_stream, const mlx_stream s);
int mlx_save_safetensors(const char *file, const mlx_map_string_to_array param,
                         const mlx_map_string_to_string metadata);
int mlx_save_safetensors_writer(mlx_io_writer in_stream, const mlx_map_string_to_array param,
                                const mlx_map_string_to_string metadata);

/* A GGUF file. Q4_0, Q4_1 and Q8_0 tensors X.weight become X.weight, X.scales and
 * X.biases in the affine layout (group 32); bfloat16 and the other block types become
 * float16. save appends the extension when it is missing; arrays are float32, float16,
 * int8, int16 or int32 of at most 8 axes, metadata arrays are scalars or lists of bool,
 * integers or float32 that are not empty. */
int mlx_load_gguf(mlx_io_gguf *gguf, const char *file, const mlx_stream s);
int mlx_save_gguf(const char *file, mlx_io_gguf gguf);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
