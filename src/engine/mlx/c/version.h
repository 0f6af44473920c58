/* The version of MLX whose behaviour this engine has. */
#ifndef MLX_C_VERSION_H
#define MLX_C_VERSION_H

#include "mlx/c/string.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

int mlx_version(mlx_string *str_);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
