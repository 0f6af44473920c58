/* ops: the operations of the engine as functions on graph nodes.
 *
 * Every op_ function borrows its inputs and returns an owned lazy node, or NULL
 * after reporting the error once; NULL in means NULL out, so they nest without
 * checks between them (see core/engine.h). Shapes, dtypes and axes are checked
 * here, when the node is built. The public mlx_ functions are thin wrappers
 * that stand at the end of the file of their family.
 *
 * One family a file: unary, binary, select (where, clip), cast, reduce, arg
 * reductions, scan, softmax, shape (views), slice, join, index, sort, create,
 * matmul, products (product, einsum, gather_mm, masked_mm, hadamard), conv, linalg
 * (systems) and factor (LU, QR, SVD, eigenvalues), quantize, norm, rope, attention,
 * random. */
#ifndef ENGINE_OPS_OPS_H
#define ENGINE_OPS_OPS_H

#include "engine/core/engine.h"
#include "engine/cpu/kernels.h"

/* Below this many items an element-wise operation stays in the calling thread. */
enum { OPS_PARALLEL_ITEMS = 65536, OPS_TILE = 256 };

/* ---- gradients ------------------------------------------------------------ */

/* The rule of an operation whose gradient is zero everywhere (comparisons, floor,
 * argmax, ...): what lies behind it is not differentiated. */
bool ops_zero_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
/* Results that are inputs[0] plus something the other inputs make. Gradients that
 * such a one forms on zeros are added to other gradients in place. */
extern const Op add_along_op, scatter_add_op, slice_add_op;
/* What other files recognise. */
extern const Op logsumexp_op, take_along_op, matmul_op, quantized_matmul_op;

/* ---- element-wise -------------------------------------------------------- */

typedef enum {
    UNARY_ABS,
    UNARY_CEIL,
    UNARY_COS,
    UNARY_ERF,
    UNARY_ERFINV,
    UNARY_EXP,
    UNARY_EXPM1,
    UNARY_FLOOR,
    UNARY_ISINF,
    UNARY_ISNAN,
    UNARY_LOG,
    UNARY_LOG1P,
    UNARY_LOGICAL_NOT,
    UNARY_NEGATIVE,
    UNARY_RECIPROCAL,
    UNARY_ROUND,
    UNARY_RSQRT,
    UNARY_SIGMOID,
    UNARY_SIGN,
    UNARY_SIN,
    UNARY_SQRT,
    UNARY_SQUARE,
    UNARY_TANH,
    UNARY_ARCCOS,
    UNARY_ARCCOSH,
    UNARY_ARCSIN,
    UNARY_ARCSINH,
    UNARY_ARCTAN,
    UNARY_ARCTANH,
    UNARY_BITWISE_INVERT,
    UNARY_CONJUGATE,
    UNARY_COSH,
    UNARY_IMAG,
    UNARY_ISFINITE,
    UNARY_ISNEGINF,
    UNARY_ISPOSINF,
    UNARY_LOG10,
    UNARY_LOG2,
    UNARY_REAL,
    UNARY_SINH,
    UNARY_TAN,
    UNARY_COUNT
} UnaryKind;
Node *op_unary(UnaryKind kind, Node *x);
/* The forward rule of an operation that has one: node's owned tangent from those of its
 * inputs (NULL: zero), or NULL after reporting. */
typedef Node *(*ForwardRule)(Node *node, Node *const *tangents);
ForwardRule unary_forward_rule(const Node *node);
ForwardRule scan_forward_rule(const Node *node);
ForwardRule slice_dynamic_forward_rule(const Node *node);

/* From BINARY_EQUAL to BINARY_LOGICAL_OR the result is bool. */
typedef enum {
    BINARY_ADD,
    BINARY_SUBTRACT,
    BINARY_MULTIPLY,
    BINARY_DIVIDE,
    BINARY_MAXIMUM,
    BINARY_MINIMUM,
    BINARY_POWER,
    BINARY_REMAINDER,
    BINARY_FLOOR_DIVIDE,
    BINARY_LOGADDEXP,
    BINARY_EQUAL,
    BINARY_NAN_EQUAL,
    BINARY_NOT_EQUAL,
    BINARY_GREATER,
    BINARY_GREATER_EQUAL,
    BINARY_LESS,
    BINARY_LESS_EQUAL,
    BINARY_LOGICAL_AND,
    BINARY_LOGICAL_OR,
    BINARY_BITWISE_AND,
    BINARY_BITWISE_OR,
    BINARY_BITWISE_XOR,
    BINARY_LEFT_SHIFT,
    BINARY_RIGHT_SHIFT,
    BINARY_ARCTAN2,
    BINARY_COUNT
} BinaryKind;
/* Promotes and broadcasts. */
Node *op_binary(BinaryKind kind, Node *a, Node *b);
/* op_binary with a constant of a's dtype on the right. */
Node *op_binary_scalar(BinaryKind kind, Node *a, double b);

Node *op_where(Node *condition, Node *x, Node *y);
Node *op_clip(Node *x, Node *low, Node *high); /* either bound may be NULL: absent */
Node *op_isclose(Node *a, Node *b, double rtol, double atol, bool equal_nan);

Node *op_astype(Node *x, mlx_dtype dtype);
Node *op_view(Node *x, mlx_dtype dtype);
/* n contiguous items; out and in of one size may be the same memory. */
void cast_run(void *out, mlx_dtype to, const void *in, mlx_dtype from, size_t n);

/* ---- reductions ---------------------------------------------------------- */

typedef enum {
    REDUCE_SUM,
    REDUCE_MEAN,
    REDUCE_PROD,
    REDUCE_MAX,
    REDUCE_MIN,
    REDUCE_ALL,
    REDUCE_ANY,
    REDUCE_COUNT
} ReduceKind;
Node *op_reduce(ReduceKind kind, Node *x, const int *axes, size_t n_axes, bool keepdims);
Node *op_reduce_all(ReduceKind kind, Node *x, bool keepdims);
Node *op_arg_reduce(bool want_max, Node *x, int axis, bool keepdims);
Node *op_cumsum(Node *x, int axis, bool reverse, bool inclusive);
Node *op_cumprod(Node *x, int axis, bool reverse, bool inclusive);
Node *op_softmax(Node *x, const int *axes, size_t n_axes, bool precise);
Node *op_logsumexp(Node *x, const int *axes, size_t n_axes, bool keepdims);

/* ---- views ---------------------------------------------------------------- */

Node *op_reshape(Node *x, const int *shape, size_t ndim); /* one -1 allowed */
Node *op_flatten(Node *x, int start_axis, int end_axis);
Node *op_transpose(Node *x, const int *axes, size_t n); /* axes NULL: reverse them */
Node *op_swapaxes(Node *x, int axis1, int axis2);
Node *op_moveaxis(Node *x, int source, int destination);
Node *op_squeeze(Node *x, const int *axes, size_t n);
Node *op_expand_dims(Node *x, const int *axes, size_t n);
Node *op_broadcast_to(Node *x, const int *shape, int ndim);
/* The other axes, then the diagonal of axis1 and axis2, as a view. */
Node *op_diagonal(Node *x, int offset, int axis1, int axis2);
Node *op_contiguous(Node *x, bool allow_col_major);
Node *op_stop_gradient(Node *x);
bool node_is_stop_gradient(const Node *node);
/* out[i]: values[i], evaluated after all of others. */
void op_depends(Node *const *values, size_t count, Node *const *others, size_t n_others,
                Node **out);
Node *op_slice(Node *x, const int *start, const int *stop, const int *strides);
/* Items [start, stop) of one axis, 0 <= start <= stop <= dimension. */
Node *op_slice_axis(Node *x, int axis, int start, int stop);
Node *op_slice_update(Node *x, Node *update, const int *start, const int *stop, const int *strides);

/* Copies `shape` items between two layouts; both pointers are the first items.
 * The areas must not overlap. */
void copy_strided(void *out, const int64_t *out_strides, const void *in, const int64_t *in_strides,
                  const int *shape, int ndim, size_t itemsize);
/* n items from in[0], in[step], ... to out[0..n), and the reverse. */
void copy_gather(void *out, const void *in, int64_t step, size_t n, size_t itemsize);
void copy_scatter(void *out, int64_t step, const void *in, size_t n, size_t itemsize);
/* Inside an eval: x itself, retained, when its last axis lies contiguously and
 * the others follow each other row-major; otherwise a new row-major copy.
 * Release the result. NULL and *err when memory is short. */
Node *ready_row_contiguous(Node *x, Error *err);

/* ---- joining, indexing, sorting, creating ---------------------------------- */

Node *op_concatenate(Node *const *nodes, size_t count, int axis);
Node *op_take(Node *x, Node *indices, int axis);
Node *op_take_along_axis(Node *x, Node *indices, int axis);
Node *op_gather(Node *x, Node *const *indices, size_t count, const int *axes, size_t n_axes,
                const int *slice_sizes, size_t n_sizes);
/* How a value meets the one that is there. */
typedef enum {
    COMBINE_SET,
    COMBINE_ADD,
    COMBINE_MULTIPLY,
    COMBINE_MAXIMUM,
    COMBINE_MINIMUM
} Combine;
Node *op_put_along_axis(Combine kind, Node *x, Node *indices, Node *values, int axis);
/* updates: [the indices' shape broadcast together, a slice no larger than x]. */
Node *op_scatter(Combine kind, Node *x, Node *const *indices, size_t count, Node *updates,
                 const int *axes, size_t n_axes);
Node *op_sort(Node *x, int axis);
Node *op_argsort(Node *x, int axis);
Node *op_full(const int *shape, size_t ndim, Node *value, mlx_dtype dtype);
Node *op_full_value(const int *shape, size_t ndim, double value, mlx_dtype dtype);
bool op_is_zeros(const Node *node); /* zeros that op_full_value made, not yet evaluated */
Node *op_arange(double start, double stop, double step, mlx_dtype dtype);

/* ---- matrix products and random numbers -------------------------------------- */

Node *op_matmul(Node *a, Node *b);
Node *op_outer(Node *a, Node *b);
Node *op_inner(Node *a, Node *b);
Node *op_tensordot(Node *a, Node *b, const int *axes_a, size_t n_a, const int *axes_b, size_t n_b);
Node *op_einsum(const char *subscripts, Node *const *operands, size_t count);
/* Either list of indices may be NULL: every matrix in turn. */
Node *op_gather_mm(Node *a, Node *b, Node *lhs_indices, Node *rhs_indices);
/* Sums of a[lhs[i]] @ b[rhs[i]] over the items i of one target, in the shape and dtype of
 * `like`, whose matrices the targets count. The lists have one shape, uint32. */
Node *op_gather_sum(Node *a, Node *b, Node *lhs, Node *rhs, Node *target, const Node *like);
/* key: [2] uint32; NULL takes the next key of the calling thread. */
Node *op_random_bits(const int *shape, size_t ndim, int width, Node *key);
/* loc and scale broadcast with the shape; NULL: 0 and 1. complex64 too. */
Node *op_normal_broadcast(const int *shape, size_t ndim, mlx_dtype dtype, Node *loc, Node *scale,
                          Node *key);
Node *op_random_uniform(Node *low, Node *high, const int *shape, size_t ndim, mlx_dtype dtype,
                        Node *key);

/* ---- shapes of nodes built again (grad/infer.c) ------------------------------ */

/* Of node's operation and parameters over other inputs; false after reporting. */
bool op_reduce_shape(const Node *node, const Node *x, int *shape, int *ndim);
bool op_axes_shape(const Node *node, const Node *x, int *shape, int *ndim); /* transpose too */
bool op_concatenate_shape(const Node *node, Node *const *inputs, int *shape, int *ndim);
/* The shape of a @ b for arrays of at least two axes. */
bool op_matmul_shape(const char *op, const Node *a, const Node *b, int *shape, int *ndim);

/* The kernels' name of a storage type; false for the dtypes they do not know. */
static inline bool ops_cpu_type(mlx_dtype dtype, CpuType *type) {
    switch (dtype) {
    case MLX_FLOAT32: *type = CPU_F32; return true;
    case MLX_FLOAT16: *type = CPU_F16; return true;
    case MLX_BFLOAT16: *type = CPU_BF16; return true;
    default: return false;
    }
}

static inline bool ops_is_half(mlx_dtype dtype) {
    return dtype == MLX_FLOAT16 || dtype == MLX_BFLOAT16;
}

/* node's byte address `items` items after its first. */
static inline uint8_t *ops_at(const Node *node, int64_t items) {
    return (uint8_t *)node_data(node) + items * node->itemsize;
}

/* Runs body over [0, count), in parallel when the work is worth it; items is
 * the number of array items the whole loop touches. */
static inline void ops_parallel(size_t count, size_t items, ParallelBody body, void *context) {
    if (items < OPS_PARALLEL_ITEMS || count < 2) {
        body(context, 0, count, 0);
        return;
    }
    const size_t per_unit = items / count ? items / count : 1;
    base_parallel_for(count, OPS_PARALLEL_ITEMS / 4 / per_unit + 1, body, context);
}

#endif
