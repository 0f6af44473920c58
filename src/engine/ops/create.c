/* New arrays: full and its kin, arange, triangles. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <math.h>
#include <string.h>

Node *op_full(const int *shape, size_t ndim, Node *value, mlx_dtype dtype) {
    if (!value) return NULL;
    if (!dtype_valid(dtype)) return op_error("[full] %d is not a dtype.", (int)dtype);
    if (ndim > NODE_DIMS) return op_error("[full] %zu axes are too many.", ndim);
    for (size_t i = 0; i < ndim; i++)
        if (shape[i] < 0) return op_error("[full] Negative dimension %d.", shape[i]);
    Node *cast = op_astype(value, dtype);
    Node *wide = op_broadcast_to(cast, shape, (int)ndim);
    Node *result = op_contiguous(wide, false);
    node_release(cast);
    node_release(wide);
    return result;
}

static bool zeros_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    memset(node_data(node), 0, node_nbytes(node));
    return true;
}
static const Op zeros_op = {"zeros", zeros_eval, ops_zero_vjp};

bool op_is_zeros(const Node *node) {
    return node->op == &zeros_op;
}

Node *op_full_value(const int *shape, size_t ndim, double value, mlx_dtype dtype) {
    if (!dtype_valid(dtype)) return op_error("[full] %d is not a dtype.", (int)dtype);
    bool plain = value == 0 && ndim <= NODE_DIMS;
    for (size_t i = 0; i < ndim && plain; i++) plain = shape[i] >= 0;
    if (plain) return node_new(&zeros_op, dtype, shape, (int)ndim, NULL, 0);
    Node *scalar = node_scalar(value, dtype);
    Node *result = op_full(shape, ndim, scalar, dtype);
    node_release(scalar);
    return result;
}

typedef struct ArangeParam {
    double start, step;
} ArangeParam;

/* Item i is start + i * step, computed wide and cast once. Integers start and step
 * on by what the first two items are without their fractions. */
static bool arange_eval(Node *node, Error *err) {
    const ArangeParam *param = node->param;
    if (!node_alloc(node, err)) return false;
    uint8_t *out = node_data(node);
    const bool whole = !dtype_is_float(node->dtype);
    const int64_t start = whole ? (int64_t)param->start : 0,
                  step = whole ? (int64_t)(param->start + param->step) - start : 0;
    double reals[OPS_TILE];
    int64_t integers[OPS_TILE];
    for (size_t done = 0; done < node->size; done += OPS_TILE) {
        const size_t count = BASE_MIN(node->size - done, (size_t)OPS_TILE);
        for (size_t i = 0; i < count; i++) {
            if (whole)
                integers[i] = start + (int64_t)(done + i) * step;
            else
                reals[i] = param->start + (double)(done + i) * param->step;
        }
        cast_run(out + done * node->itemsize, node->dtype,
                 whole ? (const void *)integers : (const void *)reals,
                 whole ? MLX_INT64 : MLX_FLOAT64, count);
    }
    return true;
}
static const Op arange_op = {"arange", arange_eval, NULL};

Node *op_arange(double start, double stop, double step, mlx_dtype dtype) {
    if (!dtype_valid(dtype)) return op_error("[arange] %d is not a dtype.", (int)dtype);
    if (dtype == MLX_BOOL) return op_error("[arange] bool not supported for arange.");
    if (isnan(start) || isnan(stop) || isnan(step))
        return op_error("[arange] Cannot compute length of a range with NaN.");
    if (isinf(start) || isinf(stop)) return op_error("[arange] Cannot compute an infinite range.");
    if (step == 0) return op_error("[arange] The step must not be 0.");
    const bool whole = !dtype_is_float(dtype);
    if (whole && (fabs(start) > 0x1p61 || (fabs(step) > 0x1p61 && !isinf(step))))
        return op_error("[arange] The bounds exceed the integers.");
    /* An infinite step leaves the first item alone. */
    const double length = isinf(step) ? (double)((step > 0) == (start < stop) && start != stop)
                                      : ceil((stop - start) / step);
    if (length > INT32_MAX) return op_error("[arange] Maximum size exceeded.");
    const int size = length > 0 ? (int)length : 0;
    ArangeParam param = {start, isinf(step) ? 0 : step};
    return node_new_param(&arange_op, dtype, &size, 1, &param, sizeof param, NULL, 0);
}

typedef struct TriParam {
    int k;
} TriParam;

static bool tri_eval(Node *node, Error *err) {
    const int k = ((const TriParam *)node->param)->k;
    if (!node_alloc(node, err)) return false;
    const int64_t rows = node->shape[0], columns = node->shape[1];
    uint8_t *out = node_data(node);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t ones = BASE_MAX((int64_t)0, BASE_MIN(columns, i + k + 1));
        memset(out + i * columns, 1, (size_t)ones);
        memset(out + i * columns + ones, 0, (size_t)(columns - ones));
    }
    return true;
}
static const Op tri_op = {"tri", tri_eval, NULL};

/* [n, m], true where column <= row + k. */
static Node *triangle(int n, int m, int k) {
    if (n < 0 || m < 0) return op_error("[tri] Negative dimensions (%d, %d).", n, m);
    return node_new_param(&tri_op, MLX_BOOL, (int[]){n, m}, 2, &(TriParam){k}, sizeof(TriParam),
                          NULL, 0);
}

/* x where the triangle of its last two axes is `keep`, else 0. */
static Node *keep_triangle(const char *name, Node *x, int k, bool keep) {
    if (!x) return NULL;
    if (x->ndim < 2)
        return op_error("[%s] The array must be at least 2-D, got %s.", name, SHAPE(x));
    Node *mask = triangle(x->shape[x->ndim - 2], x->shape[x->ndim - 1], k);
    Node *zero = node_scalar(0, x->dtype);
    Node *result = keep ? op_where(mask, x, zero) : op_where(mask, zero, x);
    node_release(mask);
    node_release(zero);
    return result;
}

int mlx_arange(mlx_array *res, double start, double stop, double step, mlx_dtype dtype,
               const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_arange(start, stop, step, dtype)) : 1;
}

int mlx_full(mlx_array *res, const int *shape, size_t shape_num, const mlx_array vals,
             mlx_dtype dtype, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_full(shape, shape_num, node_of(vals), dtype)) : 1;
}

int mlx_full_like(mlx_array *res, const mlx_array a, const mlx_array vals, mlx_dtype dtype,
                  const mlx_stream s) {
    Node *x = stream_ok(s) ? node_of(a) : NULL, *value = x ? node_of(vals) : NULL;
    int shape[NODE_DIMS], ndim;
    if (!value || !shape_broadcast(x->shape, x->ndim, value->shape, value->ndim, shape, &ndim))
        return 1;
    return op_finish(res, op_full(shape, (size_t)ndim, value, dtype));
}

#define CONSTANT_API(name, value)                                                                \
    int mlx_##name(mlx_array *res, const int *shape, size_t shape_num, mlx_dtype dtype,          \
                   const mlx_stream s) {                                                         \
        return stream_ok(s) ? op_finish(res, op_full_value(shape, shape_num, value, dtype)) : 1; \
    }                                                                                            \
    int mlx_##name##_like(mlx_array *res, const mlx_array a, const mlx_stream s) {               \
        const Node *x = stream_ok(s) ? node_of(a) : NULL;                                        \
        return x ? op_finish(res, op_full_value(x->shape, x->ndim, value, x->dtype)) : 1;        \
    }
CONSTANT_API(zeros, 0)
CONSTANT_API(ones, 1)

int mlx_tri(mlx_array *res, int n, int m, int k, mlx_dtype type, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *mask = triangle(n, m, k);
    const int status = op_finish(res, op_astype(mask, type));
    node_release(mask);
    return status;
}

int mlx_tril(mlx_array *res, const mlx_array x, int k, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, keep_triangle("tril", node_of(x), k, true)) : 1;
}

int mlx_triu(mlx_array *res, const mlx_array x, int k, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, keep_triangle("triu", node_of(x), k - 1, false)) : 1;
}
