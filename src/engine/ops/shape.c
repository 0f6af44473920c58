/* Views: the same items under another shape or order. Nothing is copied,
 * except by a reshape whose strides cannot express the new shape. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

/* ---- reshape --------------------------------------------------------------- */

/* Strides that read x under the new shape without a copy: each run of old axes
 * that lie one after the other must cover a run of new axes. */
static bool reshape_strides(const Node *x, const int *shape, int ndim, int64_t *out) {
    int64_t old_shape[NODE_DIMS], old_strides[NODE_DIMS];
    int n_old = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (x->shape[i] == 1) continue;
        if (n_old && old_strides[n_old - 1] == x->strides[i] * x->shape[i]) {
            old_shape[n_old - 1] *= x->shape[i];
            old_strides[n_old - 1] = x->strides[i];
        } else {
            old_shape[n_old] = x->shape[i];
            old_strides[n_old++] = x->strides[i];
        }
    }
    int axis = n_old - 1;
    int64_t left = axis >= 0 ? old_shape[axis] : 1, step = axis >= 0 ? old_strides[axis] : 1;
    for (int i = ndim - 1; i >= 0; i--) {
        out[i] = step;
        if (shape[i] == 1) continue;
        if (left == 1 && axis > 0) {
            axis--;
            left = old_shape[axis];
            out[i] = step = old_strides[axis];
        }
        if (left % shape[i]) return false;
        left /= shape[i];
        step *= shape[i];
    }
    return true;
}

static bool reshape_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    int64_t strides[NODE_DIMS];
    if (x->row_contiguous || x->size == 0) {
        strides_row_major(node->shape, node->ndim, strides);
        node_share(node, x, strides, 0);
        return true;
    }
    if (reshape_strides(x, node->shape, node->ndim, strides)) {
        node_share(node, x, strides, 0);
        return true;
    }
    if (!node_alloc(node, err)) return false;
    strides_row_major(x->shape, x->ndim, strides);
    copy_strided(node_data(node), strides, node_data(x), x->strides, x->shape, x->ndim,
                 x->itemsize);
    return true;
}

/* For all that only regroups the items. */
static bool regroup_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const Node *x = node->inputs[0];
    return !wanted[0] || (grads[0] = op_reshape(g, x->shape, x->ndim));
}
static const Op reshape_op = {"reshape", reshape_eval, regroup_vjp};

Node *op_reshape(Node *x, const int *shape, size_t ndim) {
    if (!x) return NULL;
    if (ndim > NODE_DIMS)
        return op_error("[reshape] %zu axes are too many, the most is %d.", ndim, NODE_DIMS);
    int fixed[NODE_DIMS];
    int unknown = -1;
    size_t known = 1;
    for (size_t i = 0; i < ndim; i++) {
        fixed[i] = shape[i];
        if (shape[i] == -1) {
            if (unknown >= 0) return op_error("[reshape] Reshape can only infer one dimension.");
            unknown = (int)i;
        } else if (shape[i] < 0) {
            return op_error("[reshape] Negative dimension %d.", shape[i]);
        } else if (__builtin_mul_overflow(known, (size_t)shape[i], &known)) {
            return op_error("[reshape] The shape is too large.");
        }
    }
    if (unknown >= 0) {
        if (known == 0 || x->size % known || x->size / known > INT32_MAX)
            return op_error("[reshape] Cannot infer the missing dimension for %s into %s.",
                            SHAPE(x), shape_text(&(ShapeText){{0}}, fixed, (int)ndim));
        fixed[unknown] = (int)(x->size / known);
    } else if (known != x->size) {
        return op_error("[reshape] Cannot reshape array of size %zu into shape %s.", x->size,
                        shape_text(&(ShapeText){{0}}, fixed, (int)ndim));
    }
    if (ndim == x->ndim && memcmp(fixed, x->shape, ndim * sizeof fixed[0]) == 0)
        return node_retain(x);
    return node_new(&reshape_op, x->dtype, fixed, (int)ndim, NODES(x));
}

Node *op_flatten(Node *x, int start_axis, int end_axis) {
    if (!x) return NULL;
    if (x->ndim == 0) return op_reshape(x, (int[]){1}, 1);
    int start = start_axis < 0 ? start_axis + x->ndim : start_axis;
    int end = end_axis < 0 ? end_axis + x->ndim : BASE_MIN(end_axis, x->ndim - 1);
    start = BASE_MAX(start, 0);
    if (end < start || start >= x->ndim)
        return op_error("[flatten] Axes %d to %d are out of order for %s.", start_axis, end_axis,
                        SHAPE(x));
    int shape[NODE_DIMS], ndim = 0;
    size_t merged = 1;
    for (int i = 0; i < x->ndim; i++) {
        if (i < start || i > end) {
            shape[ndim++] = x->shape[i];
            continue;
        }
        merged *= (size_t)x->shape[i];
        if (merged > INT32_MAX) return op_error("[flatten] The merged axis would be too long.");
        if (i == end) shape[ndim++] = (int)merged;
    }
    return op_reshape(x, shape, (size_t)ndim);
}

static Node *op_unflatten(Node *x, int axis, const int *sizes, size_t n) {
    if (!x || !axis_fix("unflatten", &axis, x->ndim)) return NULL;
    if (n == 0) return op_error("[unflatten] Shape to unflatten to cannot be empty.");
    if (n + x->ndim - 1 > NODE_DIMS) return op_error("[unflatten] Too many axes.");
    int shape[NODE_DIMS], ndim = 0, unknown = -1;
    int64_t known = 1;
    for (int i = 0; i < axis; i++) shape[ndim++] = x->shape[i];
    for (size_t i = 0; i < n; i++) {
        if (sizes[i] == -1 && unknown < 0)
            unknown = ndim;
        else if (sizes[i] < 0)
            return op_error("[unflatten] Bad dimension %d.", sizes[i]);
        else
            known = known > INT32_MAX ? known : known * sizes[i];
        shape[ndim++] = sizes[i];
    }
    const int64_t whole = x->shape[axis];
    if (unknown >= 0 && known > 0 && whole % known == 0) {
        shape[unknown] = (int)(whole / known);
        known = whole;
    }
    if (known != whole || (unknown >= 0 && shape[unknown] < 0))
        return op_error("[unflatten] Cannot unflatten axis %d of %s into %s.", axis, SHAPE(x),
                        shape_text(&(ShapeText){{0}}, sizes, (int)n));
    for (int i = axis + 1; i < x->ndim; i++) shape[ndim++] = x->shape[i];
    return op_reshape(x, shape, (size_t)ndim);
}

/* ---- transpose ---------------------------------------------------------------- */

typedef struct AxesParam {
    uint8_t axes[NODE_DIMS]; /* of the input, one per axis of the result */
} AxesParam;

static bool transpose_eval(Node *node, Error *err) {
    (void)err;
    const Node *x = node->inputs[0];
    const AxesParam *param = node->param;
    int64_t strides[NODE_DIMS];
    for (int i = 0; i < node->ndim; i++) strides[i] = x->strides[param->axes[i]];
    node_share(node, x, strides, 0);
    return true;
}

static bool transpose_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const AxesParam *param = node->param;
    int inverse[NODE_DIMS];
    for (int i = 0; i < node->ndim; i++) inverse[param->axes[i]] = i;
    return !wanted[0] || (grads[0] = op_transpose(g, inverse, g->ndim));
}
static const Op transpose_op = {"transpose", transpose_eval, transpose_vjp};

Node *op_transpose(Node *x, const int *axes, size_t n) {
    if (!x) return NULL;
    int fixed[NODE_DIMS], shape[NODE_DIMS];
    AxesParam param = {{0}};
    if (axes) {
        if (n != x->ndim)
            return op_error("[transpose] Received %zu axes for array with %d dimensions.", n,
                            x->ndim);
        if (!axes_fix("transpose", axes, n, x->ndim, fixed)) return NULL;
    }
    bool identity = true;
    for (int i = 0; i < x->ndim; i++) {
        const int axis = axes ? fixed[i] : x->ndim - 1 - i;
        identity = identity && axis == i;
        param.axes[i] = (uint8_t)axis;
        shape[i] = x->shape[axis];
    }
    if (identity) return node_retain(x);
    return node_new_param(&transpose_op, x->dtype, shape, x->ndim, &param, sizeof param, NODES(x));
}

Node *op_swapaxes(Node *x, int axis1, int axis2) {
    if (!x || !axis_fix("swapaxes", &axis1, x->ndim) || !axis_fix("swapaxes", &axis2, x->ndim))
        return NULL;
    int axes[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) axes[i] = i;
    axes[axis1] = axis2;
    axes[axis2] = axis1;
    return op_transpose(x, axes, x->ndim);
}

Node *op_moveaxis(Node *x, int source, int destination) {
    if (!x || !axis_fix("moveaxis", &source, x->ndim) ||
        !axis_fix("moveaxis", &destination, x->ndim))
        return NULL;
    int axes[NODE_DIMS], next = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (i == destination) {
            axes[i] = source;
            continue;
        }
        if (next == source) next++;
        axes[i] = next++;
    }
    return op_transpose(x, axes, x->ndim);
}

/* ---- axes of length 1 ------------------------------------------------------------ */

enum { ADDED = NODE_DIMS }; /* in AxesParam: an axis that the input lacks */

bool op_axes_shape(const Node *node, const Node *x, int *shape, int *ndim) {
    const AxesParam *param = node->param;
    size_t size;
    *ndim = node->ndim;
    for (int i = 0; i < node->ndim; i++)
        shape[i] = param->axes[i] == ADDED ? 1 : x->shape[param->axes[i]];
    if (shape_size(shape, *ndim, &size) && size == x->size) return true;
    return op_error("[%s] An axis of %s that is left out does not have size 1.", node->op->name,
                    SHAPE(x));
}

/* Drops or adds axes of length 1: the strides of the kept axes, in order; an
 * added axis may have any stride. */
static bool axes_eval(Node *node, Error *err) {
    (void)err;
    const Node *x = node->inputs[0];
    const AxesParam *param = node->param;
    int64_t strides[NODE_DIMS];
    for (int i = node->ndim - 1; i >= 0; i--)
        strides[i] = param->axes[i] != ADDED ? x->strides[param->axes[i]]
                     : i + 1 < node->ndim    ? strides[i + 1] * node->shape[i + 1]
                                             : 1;
    node_share(node, x, strides, 0);
    return true;
}
static const Op squeeze_op = {"squeeze", axes_eval, regroup_vjp};
static const Op expand_dims_op = {"expand_dims", axes_eval, regroup_vjp};

Node *op_squeeze(Node *x, const int *axes, size_t n) {
    if (!x) return NULL;
    int fixed[NODE_DIMS], shape[NODE_DIMS], ndim = 0;
    if (!axes_fix("squeeze", axes, n, x->ndim, fixed)) return NULL;
    if (n == 0) return node_retain(x);
    bool dropped[NODE_DIMS] = {false};
    for (size_t i = 0; i < n; i++) {
        if (x->shape[fixed[i]] != 1)
            return op_error(
                "[squeeze] Cannot squeeze axis %d with size %d which is not equal to 1.", fixed[i],
                x->shape[fixed[i]]);
        dropped[fixed[i]] = true;
    }
    AxesParam param = {{0}};
    for (int i = 0; i < x->ndim; i++) {
        if (dropped[i]) continue;
        param.axes[ndim] = (uint8_t)i;
        shape[ndim++] = x->shape[i];
    }
    return node_new_param(&squeeze_op, x->dtype, shape, ndim, &param, sizeof param, NODES(x));
}

Node *op_expand_dims(Node *x, const int *axes, size_t n) {
    if (!x) return NULL;
    if (n == 0) return node_retain(x);
    if (n + x->ndim > NODE_DIMS) return op_error("[expand_dims] Too many axes for %s.", SHAPE(x));
    const int ndim = x->ndim + (int)n;
    int fixed[NODE_DIMS], shape[NODE_DIMS];
    if (!axes_fix("expand_dims", axes, n, ndim, fixed)) return NULL;
    AxesParam param;
    memset(param.axes, 0, sizeof param.axes);
    for (size_t i = 0; i < n; i++) param.axes[fixed[i]] = NODE_DIMS;
    for (int i = 0, next = 0; i < ndim; i++) {
        const bool added = param.axes[i] == NODE_DIMS;
        shape[i] = added ? 1 : x->shape[next];
        if (!added) param.axes[i] = (uint8_t)next++;
    }
    return node_new_param(&expand_dims_op, x->dtype, shape, ndim, &param, sizeof param, NODES(x));
}

/* ---- broadcast ---------------------------------------------------------------------- */

static bool broadcast_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    if (node->size == 0) return node_alloc(node, err);
    int64_t strides[NODE_DIMS];
    strides_broadcast(x, node->shape, node->ndim, strides);
    node_share(node, x, strides, 0);
    return true;
}

Node *op_sum_to(Node *g, const Node *x) {
    if (!g) return NULL;
    int axes[NODE_DIMS];
    size_t n = 0;
    const int extra = g->ndim - x->ndim;
    for (int i = 0; i < g->ndim; i++)
        if (i < extra || g->shape[i] != x->shape[i - extra]) axes[n++] = i;
    if (n == 0) return node_retain(g);
    Node *sum = op_reduce(REDUCE_SUM, g, axes, n, true);
    Node *cast = op_astype(sum, g->dtype);
    Node *result = op_reshape(cast, x->shape, x->ndim);
    node_release(sum);
    node_release(cast);
    return result;
}

static bool broadcast_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    return !wanted[0] || (grads[0] = op_sum_to(g, node->inputs[0]));
}
static const Op broadcast_op = {"broadcast", broadcast_eval, broadcast_vjp};

Node *op_broadcast_to(Node *x, const int *shape, int ndim) {
    if (!x) return NULL;
    if (ndim > NODE_DIMS || ndim < 0)
        return op_error("[broadcast_to] %d axes are too many, the most is %d.", ndim, NODE_DIMS);
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0) return op_error("[broadcast_to] Negative dimension %d.", shape[i]);
    if (ndim == x->ndim && memcmp(shape, x->shape, (size_t)ndim * sizeof shape[0]) == 0)
        return node_retain(x);
    int merged[NODE_DIMS], merged_ndim;
    if (!shape_broadcast(x->shape, x->ndim, shape, ndim, merged, &merged_ndim)) return NULL;
    if (merged_ndim != ndim || memcmp(merged, shape, (size_t)ndim * sizeof shape[0]) != 0)
        return op_error("[broadcast_to] Cannot broadcast array of shape %s into shape %s.",
                        SHAPE(x), shape_text(&(ShapeText){{0}}, shape, ndim));
    return node_new(&broadcast_op, x->dtype, shape, ndim, NODES(x));
}

/* ---- the public functions --------------------------------------------------------------- */

int mlx_reshape(mlx_array *res, const mlx_array a, const int *shape, size_t shape_num,
                const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_reshape(node_of(a), shape, shape_num)) : 1;
}

int mlx_flatten(mlx_array *res, const mlx_array a, int start_axis, int end_axis,
                const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_flatten(node_of(a), start_axis, end_axis)) : 1;
}

int mlx_unflatten(mlx_array *res, const mlx_array a, int axis, const int *shape, size_t shape_num,
                  const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_unflatten(node_of(a), axis, shape, shape_num)) : 1;
}

int mlx_transpose(mlx_array *res, const mlx_array a, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_transpose(node_of(a), NULL, 0)) : 1;
}

int mlx_transpose_axes(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,
                       const mlx_stream s) {
    static const int none = 0; /* a null list of no axes is a list all the same */
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_transpose(node_of(a), axes ? axes : &none, axes_num));
}

int mlx_swapaxes(mlx_array *res, const mlx_array a, int axis1, int axis2, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_swapaxes(node_of(a), axis1, axis2)) : 1;
}

int mlx_moveaxis(mlx_array *res, const mlx_array a, int source, int destination,
                 const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_moveaxis(node_of(a), source, destination)) : 1;
}

int mlx_squeeze(mlx_array *res, const mlx_array a, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const Node *x = node_of(a);
    int axes[NODE_DIMS];
    size_t n = 0;
    for (int i = 0; x && i < x->ndim; i++)
        if (x->shape[i] == 1) axes[n++] = i;
    return x ? op_finish(res, op_squeeze(node_of(a), axes, n)) : 1;
}

int mlx_squeeze_axis(mlx_array *res, const mlx_array a, int axis, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_squeeze(node_of(a), &axis, 1)) : 1;
}

int mlx_squeeze_axes(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,
                     const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_squeeze(node_of(a), axes, axes_num)) : 1;
}

int mlx_expand_dims(mlx_array *res, const mlx_array a, int axis, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_expand_dims(node_of(a), &axis, 1)) : 1;
}

int mlx_expand_dims_axes(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,
                         const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_expand_dims(node_of(a), axes, axes_num)) : 1;
}

int mlx_broadcast_to(mlx_array *res, const mlx_array a, const int *shape, size_t shape_num,
                     const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const int ndim = shape_num > NODE_DIMS ? NODE_DIMS + 1 : (int)shape_num;
    return op_finish(res, op_broadcast_to(node_of(a), shape, ndim));
}

int mlx_broadcast_arrays(mlx_vector_array *res, const mlx_vector_array inputs, const mlx_stream s) {
    Node *const *nodes;
    size_t count;
    int shape[NODE_DIMS], ndim = 0;
    if (!stream_ok(s) || !vector_nodes(inputs, &nodes, &count)) return 1;
    if (count && !shape_broadcast_nodes(nodes, count, shape, &ndim)) return 1;
    Node **results = base_alloc((count + 1) * sizeof *results);
    for (size_t i = 0; i < count; i++) results[i] = op_broadcast_to(nodes[i], shape, ndim);
    const int status = op_finish_vector(res, results, count);
    free(results);
    return status;
}

/* Axes of length 1 in front; the third comes last. */
static Node *op_atleast(Node *x, int ndim) {
    if (!x || x->ndim >= ndim) return node_retain(x);
    const int items = x->ndim ? x->shape[0] : 1;
    if (ndim == 1) return op_reshape(x, (int[]){1}, 1);
    if (ndim == 2) return op_reshape(x, (int[]){1, items}, 2);
    if (x->ndim == 2) return op_reshape(x, (int[]){items, x->shape[1], 1}, 3);
    return op_reshape(x, (int[]){1, items, 1}, 3);
}

#define ATLEAST_API(n)                                                              \
    int mlx_atleast_##n##d(mlx_array *res, const mlx_array a, const mlx_stream s) { \
        return stream_ok(s) ? op_finish(res, op_atleast(node_of(a), n)) : 1;        \
    }
ATLEAST_API(1)
ATLEAST_API(2)
ATLEAST_API(3)
