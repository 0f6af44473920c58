/* inner, outer and tensordot: products that come down to one matrix product
 * or one multiplication, with the axes brought into place around it. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

Node *op_outer(Node *a, Node *b) {
    if (!a || !b) return NULL;
    Node *column = op_reshape(a, (int[]){-1, 1}, 2);
    Node *row = op_flatten(b, 0, -1), *result = op_binary(BINARY_MULTIPLY, column, row);
    node_release(column);
    node_release(row);
    return result;
}

/* x with `axes` (fixed, n of them) last or first, as the matrix [rest,
 * contracted] or [contracted, rest]; the sizes of the rest go to shape. */
static Node *tensordot_matrix(Node *x, const int *axes, int n, bool contracted_first, int *shape,
                              int *ndim) {
    int order[NODE_DIMS], rest = 0, count = 0;
    int64_t contracted = 1, free_size = 1;
    bool used[NODE_DIMS] = {false};
    for (int i = 0; i < n; i++) {
        used[axes[i]] = true;
        contracted *= x->shape[axes[i]];
    }
    if (contracted_first)
        for (int i = 0; i < n; i++) order[count++] = axes[i];
    for (int i = 0; i < x->ndim; i++) {
        if (used[i]) continue;
        order[count++] = i;
        shape[(*ndim)++] = x->shape[i];
        free_size *= x->shape[i];
        rest++;
    }
    if (!contracted_first)
        for (int i = 0; i < n; i++) order[count++] = axes[i];
    if (contracted > INT32_MAX || free_size > INT32_MAX)
        return op_error("[tensordot] The matrix of %s would be too large.", SHAPE(x));
    const int first = (int)(contracted_first ? contracted : free_size);
    const int second = (int)(contracted_first ? free_size : contracted);
    Node *moved = op_transpose(x, order, (size_t)count);
    Node *matrix = op_reshape(moved, (int[]){first, second}, 2);
    node_release(moved);
    return matrix;
}

Node *op_tensordot(Node *a, Node *b, const int *axes_a, size_t n_a, const int *axes_b, size_t n_b) {
    if (!a || !b) return NULL;
    if (n_a != n_b) return op_error("[tensordot] axes must have the same size.");
    int left[NODE_DIMS], right[NODE_DIMS], shape[2 * NODE_DIMS], ndim = 0;
    if (!axes_fix("tensordot", axes_a, n_a, a->ndim, left) ||
        !axes_fix("tensordot", axes_b, n_b, b->ndim, right))
        return NULL;
    for (size_t i = 0; i < n_a; i++)
        if (a->shape[left[i]] != b->shape[right[i]])
            return op_error("[tensordot] a and b must have the same shape on the contracted axes.");
    Node *x = tensordot_matrix(a, left, (int)n_a, false, shape, &ndim);
    Node *y = x ? tensordot_matrix(b, right, (int)n_a, true, shape, &ndim) : NULL;
    Node *product = op_matmul(x, y), *result = op_reshape(product, shape, (size_t)ndim);
    node_release(x);
    node_release(y);
    node_release(product);
    return result;
}

static Node *op_tensordot_count(Node *a, Node *b, int count) {
    if (!a || !b) return NULL;
    if (count < 0) return op_error("[tensordot] axis must be greater or equal to 0.");
    if (count > BASE_MIN(a->ndim, b->ndim))
        return op_error("[tensordot] axis must be less than the number of dimensions of a and b.");
    int last[NODE_DIMS], first[NODE_DIMS];
    for (int i = 0; i < count; i++) {
        last[i] = a->ndim - count + i;
        first[i] = i;
    }
    return op_tensordot(a, b, last, (size_t)count, first, (size_t)count);
}

Node *op_inner(Node *a, Node *b) {
    if (!a || !b) return NULL;
    if (a->ndim == 0 || b->ndim == 0) return op_binary(BINARY_MULTIPLY, a, b);
    if (a->shape[a->ndim - 1] != b->shape[b->ndim - 1])
        return op_error("[inner] a and b must have the same last dimension.");
    const int last = -1;
    return op_tensordot(a, b, &last, 1, &last, 1);
}

int mlx_outer(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_outer(node_of(a), node_of(b))) : 1;
}

int mlx_inner(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_inner(node_of(a), node_of(b))) : 1;
}

int mlx_tensordot(mlx_array *res, const mlx_array a, const mlx_array b, const int *axes_a,
                  size_t axes_a_num, const int *axes_b, size_t axes_b_num, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res,
                     op_tensordot(node_of(a), node_of(b), axes_a, axes_a_num, axes_b, axes_b_num));
}

int mlx_tensordot_axis(mlx_array *res, const mlx_array a, const mlx_array b, int axis,
                       const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_tensordot_count(node_of(a), node_of(b), axis)) : 1;
}
