/* Evaluation, and functions made from functions: gradients. */
#ifndef MLX_C_TRANSFORMS_H
#define MLX_C_TRANSFORMS_H

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

/* Computes all of outputs and what they need. */
int mlx_eval(const mlx_vector_array outputs);

/* May return before the values are there (this engine does not); reading a value
 * waits for it. Error: outputs that depend on the arguments of a running transform. */
int mlx_async_eval(const mlx_vector_array outputs);

/* Runs fun on primals: res_0 are its outputs, res_1 one gradient a primal, of its
 * shape and dtype (zeros where no output depends on it). cotangents: one for every
 * output that is not the result of stop_gradient, in order, of the output's shape. */
int mlx_vjp(mlx_vector_array *res_0, mlx_vector_array *res_1, const mlx_closure fun,
            const mlx_vector_array primals, const mlx_vector_array cotangents);

/* A function that gives fun's outputs and the gradients of output 0, which must be
 * a scalar of shape (), with respect to the arguments argnums: at least one, each
 * once, negative ones from the end. Gradients come in ascending order of the
 * arguments. The other outputs take no gradient. */
int mlx_value_and_grad(mlx_closure_value_and_grad *res, const mlx_closure fun, const int *argnums,
                       size_t argnums_num);

/* Runs fun on primals: res_0 are its outputs, res_1 their derivatives in the
 * direction of the tangents (one for each primal, of its shape). */
int mlx_jvp(mlx_vector_array *res_0, mlx_vector_array *res_1, const mlx_closure fun,
            const mlx_vector_array primals, const mlx_vector_array tangents);

/* A function that computes what fun computes and whose gradient keeps only its
 * arguments and outputs: fun runs again when the gradient is computed. */
int mlx_checkpoint(mlx_closure *res, const mlx_closure fun);

/* A function that computes what fun computes, differentiated by the given rules
 * instead of by going through fun; a rule that is null is replaced by that. There
 * is no vmap in this engine, so fun_vmap is never called. */
int mlx_custom_function(mlx_closure *res, const mlx_closure fun,
                        const mlx_closure_custom fun_vjp /* may be null */,
                        const mlx_closure_custom_jvp fun_jvp /* may be null */,
                        const mlx_closure_custom_vmap fun_vmap /* may be null */);
int mlx_custom_vjp(mlx_closure *res, const mlx_closure fun, const mlx_closure_custom fun_vjp);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
