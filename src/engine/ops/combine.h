/* Writing values into places that hold values already: what the scatters, the
 * slice updates and their gradients have in common. */
#ifndef ENGINE_OPS_COMBINE_H
#define ENGINE_OPS_COMBINE_H

#include "engine/ops/ops.h"

/* out[i * out_step] = f(out[i * out_step], in[i * in_step]), one after the other,
 * so a step of 0 folds everything into one item. */
typedef void (*CombineRun)(void *out, int64_t out_step, const void *in, int64_t in_step, int64_t n);
CombineRun combine_run(Combine kind, mlx_dtype dtype);

/* The same over `shape` items of two layouts; both pointers are first items.
 * Items of out may coincide. */
void combine_strided(Combine kind, mlx_dtype dtype, void *out, const int64_t *out_strides,
                     const void *in, const int64_t *in_strides, const int *shape, int ndim);

/* Inside an eval: node becomes inputs[0] itself when that dies here, else a copy. */
bool combine_begin(Node *node, Error *err);

/* Item `at` of a ready index array, wrapped into [0, n); -1 when outside. */
static inline int64_t index_at(const Node *indices, int64_t at, int64_t n) {
    const void *data = node_data(indices);
    int64_t value;
    switch ((mlx_dtype)indices->dtype) {
    case MLX_BOOL:
    case MLX_UINT8: value = ((const uint8_t *)data)[at]; break;
    case MLX_UINT16: value = ((const uint16_t *)data)[at]; break;
    case MLX_UINT32: value = ((const uint32_t *)data)[at]; break;
    case MLX_INT8: value = ((const int8_t *)data)[at]; break;
    case MLX_INT16: value = ((const int16_t *)data)[at]; break;
    case MLX_INT32: value = ((const int32_t *)data)[at]; break;
    default: value = ((const int64_t *)data)[at]; break; /* uint64 beyond int64 turns negative */
    }
    if (value < 0 && indices->dtype != MLX_UINT64) value += n;
    return value >= 0 && value < n ? value : -1;
}
/* Fails with the index and the axis it does not fit. */
bool index_outside(const char *op, const Node *indices, int64_t at, int axis, int64_t n,
                   Error *err);
/* False after reporting indices that are no integers. */
bool indices_ok(const char *op, const Node *indices);

#endif
