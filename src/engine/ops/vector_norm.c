/* linalg.norm: norms of vectors and matrices, composed of reductions. */
#include "engine/ops/linalg.h"
#include "engine/ops/rule.h"
#include "mlx/c/linalg.h"

#include <math.h>
#include <string.h>

/* sqrt(sum |x|^2). */
static Node *l2_norm(Node *x, const int *axes, size_t n_axes, bool keepdims) {
    Temps t = {0};
    Node *real = x && x->dtype == MLX_COMPLEX64 ? temp(&t, op_unary(UNARY_ABS, x)) : x;
    Node *squares = temp(&t, op_unary(UNARY_SQUARE, real));
    Node *total = temp(&t, op_reduce(REDUCE_SUM, squares, axes, n_axes, keepdims));
    Node *result = op_unary(UNARY_SQRT, total);
    temps_end(&t, true);
    return result;
}

static Node *vector_norm(Node *x, double ord, const int *axes, size_t n_axes, bool keepdims) {
    if (ord == 2) return l2_norm(x, axes, n_axes, keepdims);
    const mlx_dtype dtype = dtype_at_least_float(x->dtype);
    Temps t = {0};
    Node *size = temp(&t, op_unary(UNARY_ABS, x)), *value;
    if (ord == 0) {
        Node *counted = temp(&t, op_binary_scalar(BINARY_NOT_EQUAL, x, 0));
        value = temp(&t, op_reduce(REDUCE_SUM, counted, axes, n_axes, keepdims));
    } else if (ord == 1 || isinf(ord)) {
        const ReduceKind kind = ord == 1 ? REDUCE_SUM : ord > 0 ? REDUCE_MAX : REDUCE_MIN;
        value = temp(&t, op_reduce(kind, size, axes, n_axes, keepdims));
    } else {
        Node *real = temp(&t, op_astype(size, dtype));
        Node *powers = temp(&t, op_binary_scalar(BINARY_POWER, real, ord));
        Node *total = temp(&t, op_reduce(REDUCE_SUM, powers, axes, n_axes, keepdims));
        value = temp(&t, op_binary_scalar(BINARY_POWER, total, 1 / ord));
    }
    Node *result = op_astype(value, dtype);
    temps_end(&t, true);
    return result;
}

/* The largest, the smallest or the sum of the singular values. */
static Node *singular_norm(Node *x, ReduceKind kind, const int *axes, bool keepdims) {
    int fixed[NODE_DIMS], order[NODE_DIMS], n = 0;
    if (!axes_fix("linalg::norm", axes, 2, x->ndim, fixed)) return NULL;
    for (int i = 0; i < x->ndim; i++)
        if (i != fixed[0] && i != fixed[1]) order[n++] = i;
    order[n++] = fixed[0];
    order[n++] = fixed[1];
    Temps t = {0};
    Node *values[3] = {NULL}, *result = NULL;
    if (op_svd(temp(&t, op_transpose(x, order, (size_t)n)), false, values)) {
        const int last = -1;
        result = op_reduce(kind, temp(&t, values[0]), &last, 1, false);
        if (keepdims) result = op_expand_dims(temp(&t, result), fixed, 2);
    }
    temps_end(&t, true);
    return result;
}

/* The largest or smallest sum of sizes over one axis, along the other. */
static Node *matrix_norm(Node *x, double ord, const int *axes, bool keepdims) {
    const bool rows = isinf(ord);
    if (fabs(ord) == 2) {
        Node *norm = singular_norm(x, ord > 0 ? REDUCE_MAX : REDUCE_MIN, axes, keepdims);
        Node *typed = norm ? op_astype(norm, x->dtype) : NULL;
        node_release(norm);
        return typed;
    }
    if (!rows && fabs(ord) != 1)
        return op_error("[linalg::norm] Invalid ord %g for matrix norm.", ord);
    int fixed[NODE_DIMS];
    if (!axes_fix("linalg::norm", axes, 2, x->ndim, fixed)) return NULL;
    const int summed = fixed[rows], other = fixed[!rows];
    Temps t = {0};
    Node *size = temp(&t, op_unary(UNARY_ABS, x));
    Node *sums = temp(&t, op_reduce(REDUCE_SUM, size, &summed, 1, true));
    Node *value = temp(&t, op_reduce(ord > 0 ? REDUCE_MAX : REDUCE_MIN, sums, &other, 1, true));
    if (!keepdims) value = temp(&t, op_squeeze(value, fixed, 2));
    Node *result = op_astype(value, dtype_at_least_float(x->dtype));
    temps_end(&t, true);
    return result;
}

/* Axes as given, or all of x's when the list is NULL. */
static const int *norm_axes(const Node *x, const int *axes, size_t *n, int *all) {
    if (axes) return axes;
    *n = x->ndim;
    for (int i = 0; i < x->ndim; i++) all[i] = i;
    return all;
}

int mlx_linalg_norm(mlx_array *res, const mlx_array a, double ord, const int *axis, size_t axis_num,
                    bool keepdims, const mlx_stream s) {
    int all[NODE_DIMS];
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    if (!x) return 1;
    axis = norm_axes(x, axis, &axis_num, all);
    if (axis_num == 1) return op_finish(res, vector_norm(x, ord, axis, 1, keepdims));
    if (axis_num == 2) return op_finish(res, matrix_norm(x, ord, axis, keepdims));
    op_error("[linalg::norm] Received too many axes for norm.");
    return 1;
}

int mlx_linalg_norm_l2(mlx_array *res, const mlx_array a, const int *axis, size_t axis_num,
                       bool keepdims, const mlx_stream s) {
    int all[NODE_DIMS];
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    if (!x) return 1;
    if (axis && axis_num > 2) {
        op_error("[linalg::norm] Received too many axes for norm.");
        return 1;
    }
    axis = norm_axes(x, axis, &axis_num, all);
    return op_finish(res, l2_norm(x, axis, axis_num, keepdims));
}

int mlx_linalg_norm_matrix(mlx_array *res, const mlx_array a, const char *ord, const int *axis,
                           size_t axis_num, bool keepdims, const mlx_stream s) {
    int all[NODE_DIMS];
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    if (!x) return 1;
    axis = norm_axes(x, axis, &axis_num, all);
    if (axis_num != 2) {
        op_error("[linalg::norm] Norm '%s' only supported for matrices, but received %zu "
                 "axis/axes.",
                 ord, axis_num);
        return 1;
    }
    if (strcmp(ord, "nuc") == 0)
        return op_finish(res, singular_norm(x, REDUCE_SUM, axis, keepdims));
    if (strcmp(ord, "f") != 0 && strcmp(ord, "fro") != 0) {
        op_error("[linalg::norm] Invalid ord value '%s' for matrix norm.", ord);
        return 1;
    }
    return op_finish(res, l2_norm(x, axis, 2, keepdims));
}
