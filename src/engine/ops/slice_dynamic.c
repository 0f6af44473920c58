/* Slices whose place is an array: slice_dynamic and slice_update_dynamic. A place
 * that does not lie inside the array is an error of the evaluation (MLX leaves
 * it undefined); starts do not count from the end. */
#include "engine/ops/combine.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <string.h>

typedef struct PlaceParam {
    uint8_t axes[NODE_DIMS]; /* one per start */
    size_t count;
} PlaceParam;

/* Items of `of` from its first to the slice of that shape. */
static bool place_offset(const Node *node, const Node *start, const Node *of, const int *shape,
                         int64_t *offset, Error *err) {
    const PlaceParam *param = node->param;
    *offset = 0;
    for (size_t i = 0; i < param->count; i++) {
        const int axis = param->axes[i];
        const int64_t at = start->ndim ? (int64_t)i * start->strides[0] : 0;
        int64_t first = 0;
        cast_run(&first, MLX_INT64, ops_at(start, at), start->dtype, 1);
        if (first < 0 || first + shape[axis] > of->shape[axis])
            return base_fail(err, ERROR_INPUT,
                             "[%s] A slice of %d from %lld does not fit axis %d with size %d.",
                             node->op->name, shape[axis], (long long)first, axis, of->shape[axis]);
        *offset += first * of->strides[axis];
    }
    return true;
}

/* inputs: x, start. */
static bool dynamic_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    int64_t offset;
    if (!place_offset(node, node->inputs[1], x, node->shape, &offset, err) ||
        !node_alloc(node, err))
        return false;
    if (node->size)
        copy_strided(node_data(node), node->strides, ops_at(x, offset), x->strides, node->shape,
                     node->ndim, node->itemsize);
    return true;
}

/* inputs: x, update, start. */
static bool dynamic_update_eval(Node *node, Error *err) {
    const Node *update = node->inputs[1];
    int64_t offset;
    if (!combine_begin(node, err) ||
        !place_offset(node, node->inputs[2], node, update->shape, &offset, err))
        return false;
    if (update->size)
        copy_strided(ops_at(node, offset), node->strides, node_data(update), update->strides,
                     update->shape, update->ndim, update->itemsize);
    return true;
}

static bool dynamic_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static bool dynamic_update_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op dynamic_op = {"slice_dynamic", dynamic_eval, dynamic_vjp},
                dynamic_update_op = {"slice_update_dynamic", dynamic_update_eval,
                                     dynamic_update_vjp};

static Node *part_at(Node *x, Node *start, const int *shape, const PlaceParam *param) {
    return x ? node_new_param(&dynamic_op, x->dtype, shape, x->ndim, param, sizeof *param,
                              NODES(x, start))
             : NULL;
}
static Node *put_at(Node *x, Node *update, Node *start, const PlaceParam *param) {
    return x ? node_new_param(&dynamic_update_op, x->dtype, x->shape, x->ndim, param, sizeof *param,
                              NODES(x, update, start))
             : NULL;
}

static bool start_fixed(const Node *node, bool wanted) {
    if (wanted) op_error("[%s] VJP not supported for start indices.", node->op->name);
    return !wanted;
}

static bool dynamic_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!start_fixed(node, wanted[1])) return false;
    Node *zeros = op_zeros_like(node->inputs[0]);
    grads[0] = put_at(zeros, g, node->inputs[1], node->param);
    node_release(zeros);
    return grads[0] != NULL;
}

static bool dynamic_update_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *update = node->inputs[1], *start = node->inputs[2];
    if (!start_fixed(node, wanted[2])) return false;
    bool ok = true;
    if (wanted[0]) {
        Node *zeros = op_zeros_like(update);
        ok = (grads[0] = put_at(g, zeros, start, node->param)) != NULL;
        node_release(zeros);
    }
    if (wanted[1] && ok) ok = (grads[1] = part_at(g, start, update->shape, node->param)) != NULL;
    return ok;
}

/* Forward the place stays what it is, whatever moves. */
static Node *dynamic_jvp(Node *node, Node *const *tangents) {
    return tangents[0] ? part_at(tangents[0], node->inputs[1], node->shape, node->param)
                       : op_zeros_like(node);
}

static Node *dynamic_update_jvp(Node *node, Node *const *tangents) {
    Temps t = {0};
    Node *moved[2];
    for (int i = 0; i < 2; i++)
        moved[i] = tangents[i] ? tangents[i] : temp(&t, op_zeros_like(node->inputs[i]));
    Node *result = put_at(moved[0], moved[1], node->inputs[2], node->param);
    temps_end(&t, true);
    return result;
}

ForwardRule slice_dynamic_forward_rule(const Node *node) {
    return node->op == &dynamic_op          ? dynamic_jvp
           : node->op == &dynamic_update_op ? dynamic_update_jvp
                                            : NULL;
}

static bool place_axes(const char *op, const Node *x, const Node *start, const int *axes, size_t n,
                       PlaceParam *param) {
    int fixed[NODE_DIMS];
    if (start->size > x->ndim)
        op_error("[%s] Invalid number of starting positions for array with dimension %d.", op,
                 x->ndim);
    else if (start->ndim > 1)
        op_error("[%s] array of starting indices must be zero or one dimensional but has dimension "
                 "%d.",
                 op, start->ndim);
    else if (start->size != n)
        op_error("[%s] Number of starting indices %zu does not match number of axes %zu.", op,
                 start->size, n);
    else if (dtype_is_float(start->dtype) || start->dtype == MLX_BOOL)
        op_error("[%s] Start indices must be integers, got type %s.", op, dtype_name(start->dtype));
    else if (axes_fix(op, axes, n, x->ndim, fixed)) {
        memset(param, 0, sizeof *param);
        param->count = n;
        for (size_t i = 0; i < n; i++) param->axes[i] = (uint8_t)fixed[i];
        return true;
    }
    return false;
}

static Node *op_slice_dynamic(Node *x, Node *start, const int *axes, size_t n, const int *sizes,
                              size_t n_sizes) {
    PlaceParam param;
    if (!x || !start || !place_axes("slice", x, start, axes, n, &param)) return NULL;
    if (n_sizes != x->ndim)
        return op_error("[slice] Invalid slice size for array with %d dimensions.", x->ndim);
    for (int i = 0; i < x->ndim; i++)
        if (sizes[i] < 0 || sizes[i] > x->shape[i])
            return op_error("[slice] Invalid slice size %s for array with shape %s.",
                            shape_text(&(ShapeText){{0}}, sizes, x->ndim), SHAPE(x));
    return part_at(x, start, sizes, &param);
}

/* Axes that update lacks in front are whole, or of length 1 where a start is given. */
static Node *op_slice_update_dynamic(Node *x, Node *update, Node *start, const int *axes,
                                     size_t n) {
    PlaceParam param;
    if (!x || !update || !start || !place_axes("slice_update", x, start, axes, n, &param))
        return NULL;
    if (update->ndim > x->ndim)
        return op_error("[slice_update] Cannot broadcast array of shape %s into %s.", SHAPE(update),
                        SHAPE(x));
    const int lacking = x->ndim - update->ndim;
    int shape[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++)
        shape[i] = i < lacking ? x->shape[i] : BASE_MIN(update->shape[i - lacking], x->shape[i]);
    for (size_t i = 0; i < n; i++)
        if (param.axes[i] < lacking) shape[param.axes[i]] = 1;
    Node *cast = op_astype(update, x->dtype);
    Node *wide = op_broadcast_to(cast, shape, x->ndim);
    Node *result = wide ? put_at(x, wide, start, &param) : NULL;
    node_release(cast);
    node_release(wide);
    return result;
}

int mlx_slice_dynamic(mlx_array *res, const mlx_array a, const mlx_array start, const int *axes,
                      size_t axes_num, const int *slice_size, size_t slice_size_num,
                      const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_slice_dynamic(node_of(a), node_of(start), axes, axes_num, slice_size,
                                           slice_size_num));
}

int mlx_slice_update_dynamic(mlx_array *res, const mlx_array src, const mlx_array update,
                             const mlx_array start, const int *axes, size_t axes_num,
                             const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_slice_update_dynamic(node_of(src), node_of(update), node_of(start),
                                                  axes, axes_num));
}
