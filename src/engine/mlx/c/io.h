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

/* NumPy's .npy; save appends the extension when it is missing. */
int mlx_load(mlx_array *res, const char *file, const mlx_stream s);
int mlx_save(const char *file, const mlx_array a);

/* Tensors into res_0, the __metadata__ texts into res_1. The file is mapped and the
 * arrays are views of it; it must not change while they live. save writes the file
 * whole or not at all, larger item sizes first, then by name. */
int mlx_load_safetensors(mlx_map_string_to_array *res_0, mlx_map_string_to_string *res_1,
                         const char *file, const mlx_stream s);
int mlx_save_safetensors(const char *file, const mlx_map_string_to_array param,
                         const mlx_map_string_to_string metadata);

/* A GGUF file. Q4_0, Q4_1 and Q8_0 tensors X.weight become X.weight, X.scales and
 * X.biases in the affine layout (group 32); the other block types become float16. */
int mlx_load_gguf(mlx_io_gguf *gguf, const char *file, const mlx_stream s);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
