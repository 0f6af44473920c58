/* as_strided and what follows from it: diagonals, diagonal matrices, traces.
 *
 * A strided view reads the items of a flat array at offset + sum(i * stride). Its
 * gradient adds every item back to where it was read; that operation's gradient
 * is a strided view again. A view must lie inside its array (MLX does not
 * look). */
#include "engine/ops/combine.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct StridedParam {
    int64_t offset;
    int64_t strides[NODE_DIMS];
} StridedParam;

/* inputs: x, row major. */
static bool strided_eval(Node *node, Error *err) {
    const StridedParam *param = node->param;
    if (node->size == 0) return node_alloc(node, err);
    Node *flat = ready_row_contiguous(node->inputs[0], err);
    if (!flat) return false;
    node_share(node, flat, param->strides, param->offset);
    node_release(flat);
    return true;
}

/* inputs: x of one axis, update. */
static bool strided_add_eval(Node *node, Error *err) {
    const StridedParam *param = node->param;
    const Node *update = node->inputs[1];
    if (!combine_begin(node, err)) return false;
    if (update->size == 0) return true;
    const int64_t step = node->ndim ? node->strides[0] : 1;
    int64_t strides[NODE_DIMS];
    for (int i = 0; i < update->ndim; i++) strides[i] = param->strides[i] * step;
    combine_strided(COMBINE_ADD, node->dtype, ops_at(node, param->offset * step), strides,
                    node_data(update), update->strides, update->shape, update->ndim);
    return true;
}

static bool strided_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static bool strided_add_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op strided_op = {"as_strided", strided_eval, strided_vjp},
                strided_add_op = {"strided_add", strided_add_eval, strided_add_vjp};

static Node *strided_view(Node *x, const int *shape, int ndim, const StridedParam *param) {
    return x ? node_new_param(&strided_op, x->dtype, shape, ndim, param, sizeof *param, NODES(x))
             : NULL;
}
static Node *strided_add(Node *x, Node *update, const StridedParam *param) {
    return x ? node_new_param(&strided_add_op, x->dtype, x->shape, x->ndim, param, sizeof *param,
                              NODES(x, update))
             : NULL;
}

static bool strided_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    const Node *x = node->inputs[0];
    Temps t = {0};
    Node *zeros = temp(&t, op_full_value((int[]){(int)x->size}, 1, 0, x->dtype));
    grads[0] = op_reshape(temp(&t, strided_add(zeros, g, node->param)), x->shape, x->ndim);
    return temps_end(&t, grads[0] != NULL);
}

static bool strided_add_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const Node *update = node->inputs[1];
    if (wanted[0]) grads[0] = node_retain(g);
    if (wanted[1]) grads[1] = strided_view(g, update->shape, update->ndim, node->param);
    return !wanted[1] || grads[1];
}

static Node *op_as_strided(Node *x, const int *shape, size_t ndim, const int64_t *strides,
                           size_t n_strides, size_t offset) {
    if (!x) return NULL;
    if (ndim > NODE_DIMS) return op_error("[as_strided] %zu axes are too many.", ndim);
    if (ndim != n_strides)
        return op_error("[as_strided] %zu axes need as many strides, got %zu.", ndim, n_strides);
    StridedParam param;
    memset(&param, 0, sizeof param);
    size_t size;
    for (size_t i = 0; i < ndim; i++)
        if (shape[i] < 0) return op_error("[as_strided] Negative dimensions not allowed.");
    if (!shape_size(shape, (int)ndim, &size))
        return op_error("[as_strided] The shape is too large.");
    /* The lowest and the highest item read. */
    int64_t low = 0, high = 0;
    bool far = offset > (size_t)INT64_MAX / 4;
    for (size_t i = 0; i < ndim; i++) {
        int64_t reach;
        param.strides[i] = strides[i];
        far = far || __builtin_mul_overflow(strides[i], (int64_t)shape[i] - 1, &reach) ||
              __builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high);
    }
    param.offset = far ? 0 : (int64_t)offset;
    far = far || low + param.offset < 0 || high >= (int64_t)x->size - param.offset;
    if (size && far)
        return op_error("[as_strided] The view %s from item %zu leaves the %zu items of %s.",
                        shape_text(&(ShapeText){{0}}, shape, (int)ndim), offset, x->size, SHAPE(x));
    Node *flat = op_flatten(x, 0, -1);
    Node *result = strided_view(flat, shape, (int)ndim, &param);
    node_release(flat);
    return result;
}

/* ---- diagonals -------------------------------------------------------------------- */

static bool diagonal_eval(Node *node, Error *err);
static bool diagonal_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op diagonal_op = {"diagonal", diagonal_eval, diagonal_vjp};

typedef struct DiagonalParam {
    int axis1, axis2, offset;
} DiagonalParam;

/* Strides of node, whose last axis runs along the diagonal; the start in items. */
static int64_t diagonal_layout(const Node *node, const int64_t *strides, int ndim, int64_t *out) {
    const DiagonalParam *param = node->param;
    int n = 0;
    for (int i = 0; i < ndim; i++)
        if (i != param->axis1 && i != param->axis2) out[n++] = strides[i];
    out[n] = strides[param->axis1] + strides[param->axis2];
    return param->offset < 0 ? -param->offset * strides[param->axis1]
                             : param->offset * strides[param->axis2];
}

static bool diagonal_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    if (node->size == 0) return node_alloc(node, err);
    int64_t strides[NODE_DIMS];
    const int64_t start = diagonal_layout(node, x->strides, x->ndim, strides);
    node_share(node, x, strides, start);
    return true;
}

static bool diagonal_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    const Node *x = node->inputs[0];
    int64_t packed[NODE_DIMS];
    StridedParam param;
    memset(&param, 0, sizeof param);
    strides_row_major(x->shape, x->ndim, packed);
    param.offset = diagonal_layout(node, packed, x->ndim, param.strides);
    Temps t = {0};
    Node *zeros = temp(&t, op_full_value((int[]){(int)x->size}, 1, 0, x->dtype));
    grads[0] = op_reshape(temp(&t, strided_add(zeros, g, &param)), x->shape, x->ndim);
    return temps_end(&t, grads[0] != NULL);
}

static bool diagonal_axis(const char *op, const char *name, int *axis, int ndim) {
    const int given = *axis;
    if (given < 0) *axis += ndim;
    if (*axis >= 0 && *axis < ndim) return true;
    op_error("[%s] Invalid %s %d for array with %d dimensions.", op, name, given, ndim);
    return false;
}

/* The other axes, then the diagonal. */
static Node *diagonal(const char *op, Node *x, int offset, int axis1, int axis2) {
    if (!x) return NULL;
    if (x->ndim < 2)
        return op_error("[%s] Array must have at least two dimensions, but got %d dimensions.", op,
                        x->ndim);
    if (!diagonal_axis(op, "axis1", &axis1, x->ndim) ||
        !diagonal_axis(op, "axis2", &axis2, x->ndim))
        return NULL;
    if (axis1 == axis2) return op_error("[%s] axis1 and axis2 cannot be the same axis", op);
    const int64_t rows = (int64_t)x->shape[axis1] + BASE_MIN(offset, 0),
                  columns = (int64_t)x->shape[axis2] - BASE_MAX(offset, 0);
    int shape[NODE_DIMS], ndim = 0;
    for (int i = 0; i < x->ndim; i++)
        if (i != axis1 && i != axis2) shape[ndim++] = x->shape[i];
    shape[ndim++] = (int)BASE_MAX((int64_t)0, BASE_MIN(rows, columns));
    return node_new_param(&diagonal_op, x->dtype, shape, ndim,
                          &(DiagonalParam){axis1, axis2, offset}, sizeof(DiagonalParam), NODES(x));
}

Node *op_diagonal(Node *x, int offset, int axis1, int axis2) {
    return diagonal("diagonal", x, offset, axis1, axis2);
}

/* A matrix of zeros with the items of x, of one axis, from row and column on. */
static Node *matrix_of_diagonal(Node *x, int rows, int columns, int row, int column) {
    if (!x) return NULL;
    if ((int64_t)rows * columns > INT32_MAX)
        return op_error("[diag] A matrix of %d by %d is too large.", rows, columns);
    StridedParam param = {.offset = (int64_t)row * columns + column, .strides = {columns + 1}};
    Node *zeros = op_full_value((int[]){rows * columns}, 1, 0, x->dtype);
    Node *flat = x->size ? strided_add(zeros, x, &param) : node_retain(zeros);
    Node *result = op_reshape(flat, (int[]){rows, columns}, 2);
    node_release(zeros);
    node_release(flat);
    return result;
}

static Node *op_diag(Node *x, int k) {
    if (!x) return NULL;
    if (x->ndim == 2) return op_diagonal(x, k, 0, 1);
    if (x->ndim != 1)
        return op_error("[diag] array must be 1-D or 2-D, got array with %d dimensions.", x->ndim);
    if (k == INT32_MIN || abs(k) > INT32_MAX - x->shape[0])
        return op_error("[diag] The offset %d is too large.", k);
    const int n = x->shape[0] + abs(k);
    return matrix_of_diagonal(x, n, n, BASE_MAX(-k, 0), BASE_MAX(k, 0));
}

static Node *op_eye(int rows, int columns, int k, mlx_dtype dtype) {
    if (rows < 0 || columns < 0) return op_error("[eye] N and M must be positive integers.");
    const int64_t below = BASE_MAX(-(int64_t)k, 0), right = BASE_MAX((int64_t)k, 0);
    const int64_t length = BASE_MIN(rows - below, columns - right);
    if (length <= 0) return op_full_value((int[]){rows, columns}, 2, 0, dtype);
    Node *ones = op_full_value((int[]){(int)length}, 1, 1, dtype);
    Node *result = matrix_of_diagonal(ones, rows, columns, (int)below, (int)right);
    node_release(ones);
    return result;
}

static Node *op_trace(Node *x, int offset, int axis1, int axis2, mlx_dtype dtype) {
    Node *items = diagonal("trace", x, offset, axis1, axis2);
    Node *cast = op_astype(items, dtype);
    const int last = -1;
    Node *result = op_reduce(REDUCE_SUM, cast, &last, 1, false);
    node_release(items);
    node_release(cast);
    return result;
}

int mlx_as_strided(mlx_array *res, const mlx_array a, const int *shape, size_t shape_num,
                   const int64_t *strides, size_t strides_num, size_t offset, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res,
                     op_as_strided(node_of(a), shape, shape_num, strides, strides_num, offset));
}

int mlx_diag(mlx_array *res, const mlx_array a, int k, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_diag(node_of(a), k)) : 1;
}

int mlx_diagonal(mlx_array *res, const mlx_array a, int offset, int axis1, int axis2,
                 const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_diagonal(node_of(a), offset, axis1, axis2)) : 1;
}

int mlx_eye(mlx_array *res, int n, int m, int k, mlx_dtype dtype, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_eye(n, m, k, dtype)) : 1;
}

int mlx_identity(mlx_array *res, int n, mlx_dtype dtype, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_eye(n, n, 0, dtype)) : 1;
}

int mlx_trace(mlx_array *res, const mlx_array a, int offset, int axis1, int axis2, mlx_dtype dtype,
              const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_trace(node_of(a), offset, axis1, axis2, dtype)) : 1;
}
