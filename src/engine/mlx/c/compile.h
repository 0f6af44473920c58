/* Compiled functions. */
#ifndef MLX_C_COMPILE_H
#define MLX_C_COMPILE_H

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

typedef enum mlx_compile_mode_ {
    MLX_COMPILE_MODE_DISABLED,
    MLX_COMPILE_MODE_NO_SIMPLIFY,
    MLX_COMPILE_MODE_NO_FUSE,
    MLX_COMPILE_MODE_ENABLED
} mlx_compile_mode;

/* The result computes what fun computes, but runs fun itself only on the first
 * call of a thread for each number, dtypes and shapes of inputs. What fun built is
 * recorded and built again from the inputs of later calls, so fun must not depend
 * on anything else: arrays that it captures and random keys that it takes are
 * frozen at the first call, and it must not read values. With shapeless, other
 * shapes of as many dimensions reuse the recording where all its operations can
 * follow, and are recorded anew where not. Inside a gradient or another
 * compilation fun runs itself. The recordings go when the last handle goes.
 *
 * Errors: those of fun; inputs of an outer compilation that were not passed in. */
int mlx_compile(mlx_closure *res, const mlx_closure fun, bool shapeless);

/* The same with an identity and constants of the caller's choice: closures of one
 * fun_id share their recordings, each list of constants has its own. They stay
 * until mlx_detail_compile_erase. */
int mlx_detail_compile(mlx_closure *res, const mlx_closure fun, uintptr_t fun_id, bool shapeless,
                       const uint64_t *constants, size_t constants_num);
int mlx_detail_compile_clear_cache(void); /* all recordings of the calling thread */
int mlx_detail_compile_erase(uintptr_t fun_id);

/* While disabled mlx_compile gives fun itself; the environment variable
 * MLX_DISABLE_COMPILE disables from the start. The modes between compile as well:
 * they leave out passes that this engine does not have. */
int mlx_disable_compile(void);
int mlx_enable_compile(void);
int mlx_set_compile_mode(mlx_compile_mode mode);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
