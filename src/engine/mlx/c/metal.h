/* Is Metal there? Not in this engine. */
#ifndef MLX_C_METAL_H
#define MLX_C_METAL_H

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

int mlx_metal_is_available(bool *res);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
