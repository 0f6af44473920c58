/* Memory counters and limits, in bytes. A set_ function stores the previous value in
 * *res. Active memory is what arrays hold; freed buffers stay in a cache up to its limit. */
#ifndef MLX_C_MEMORY_H
#define MLX_C_MEMORY_H

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

/* Bytes in live buffers, and the most there were since the start or the last
 * reset. Buffers kept for reuse are not counted. */
int mlx_get_active_memory(size_t *res);
int mlx_get_peak_memory(size_t *res);
int mlx_reset_peak_memory(void);
/* Bytes of freed buffers kept for reuse; clear gives them back to the system. */
int mlx_get_cache_memory(size_t *res);
int mlx_clear_cache(void);
/* Setting a limit gives its previous value. The cache limit is 32 MiB at first, 0
 * keeps nothing; the memory limit (at first 4/5 of the machine's memory) is kept
 * but not enforced; there is no wired memory: 0. */
int mlx_get_memory_limit(size_t *res);
int mlx_set_memory_limit(size_t *res, size_t limit);
int mlx_set_cache_limit(size_t *res, size_t limit);
int mlx_set_wired_limit(size_t *res, size_t limit);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
