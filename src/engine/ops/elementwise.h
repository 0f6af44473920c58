/* What element-wise operations show to fusion: each family can compute a tile
 * of a node from tiles of its inputs, anywhere in memory.
 *
 * In tiles float16 and bfloat16 items are kept as float32 numbers that the
 * type can hold; fusion widens them before and rounds them after. A tile
 * function works in the calling thread, item by item, so that a value does not
 * depend on where in a tile it lies. */
#ifndef ENGINE_OPS_ELEMENTWISE_H
#define ENGINE_OPS_ELEMENTWISE_H

#include "engine/ops/ops.h"

/* n items of node from in[i][k * step[i]]; a step is 1 or 0. out may be an input
 * of step 1 and of the same item size. With every step 0, n is 1. */
typedef void (*TileRun)(const Node *node, void *out, const void *const *in, const int *step,
                        size_t n);

void unary_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n);
void binary_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n);
void where_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n);
void astype_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n);

/* The evaluations by which fusion knows the families. */
bool unary_eval(Node *node, Error *err);
bool binary_eval(Node *node, Error *err);
bool where_eval(Node *node, Error *err);
bool astype_eval(Node *node, Error *err);

/* A norm that is computed row by row while what it reads is made (ops/norm.c). */
typedef struct NormRows {
    CpuNorm job;
    bool found;
} NormRows;
/* Is node a norm that waits for its evaluation? */
bool norm_wants(const Node *node);
/* Gives such a norm of a row-major node, whose memory is there and whose items are
 * not, memory of its own (or x's, when x dies in it) and begins the job. The rows
 * are the caller's to do, cpu_norm_end too; the norm's own evaluation then finds
 * its buffer filled. Not found: it needs values that are not ready yet. */
bool norm_begin(NormRows *norm, Node *node, Error *err);

/* The dtype of items in a tile. */
static inline mlx_dtype tile_dtype(mlx_dtype dtype) {
    return ops_is_half(dtype) ? MLX_FLOAT32 : dtype;
}

#endif
