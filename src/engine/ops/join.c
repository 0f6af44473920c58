/* Joining and repeating: concatenate, stack, pad, repeat, tile, roll. Always
 * new memory, filled by runs. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct ConcatParam {
    int axis;
} ConcatParam;

static bool concatenate_eval(Node *node, Error *err) {
    const int axis = ((const ConcatParam *)node->param)->axis;
    if (!node_alloc(node, err)) return false;
    int64_t start = 0;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const Node *x = node->inputs[i];
        if (x->size)
            copy_strided(ops_at(node, start * node->strides[axis]), node->strides, node_data(x),
                         x->strides, x->shape, x->ndim, x->itemsize);
        start += x->shape[axis];
    }
    return true;
}

static bool concatenate_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const int axis = ((const ConcatParam *)node->param)->axis;
    int start = 0;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const int stop = start + node->inputs[i]->shape[axis];
        if (wanted[i] && !(grads[i] = op_slice_axis(g, axis, start, stop))) return false;
        start = stop;
    }
    return true;
}
static const Op concatenate_op = {"concatenate", concatenate_eval, concatenate_vjp};

bool op_concatenate_shape(const Node *node, Node *const *inputs, int *shape, int *ndim) {
    const int axis = ((const ConcatParam *)node->param)->axis;
    int64_t length = 0;
    *ndim = node->ndim;
    memcpy(shape, inputs[0]->shape, node->ndim * sizeof(int));
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        for (int k = 0; k < node->ndim; k++)
            if (k != axis && inputs[i]->shape[k] != shape[k])
                return op_error("[concatenate] All the input array dimensions must match exactly "
                                "except for the concatenation axis %d: got %s and %s.",
                                axis, SHAPE(inputs[0]), SHAPE(inputs[i]));
        length += inputs[i]->shape[axis];
    }
    shape[axis] = (int)BASE_MIN(length, (int64_t)INT32_MAX);
    return true;
}

Node *op_concatenate(Node *const *nodes, size_t count, int axis) {
    if (count == 0) return op_error("[concatenate] No arrays provided for concatenation.");
    for (size_t i = 0; i < count; i++)
        if (!nodes[i]) return NULL;
    const Node *first = nodes[0];
    if (!axis_fix("concatenate", &axis, first->ndim)) return NULL;
    int shape[NODE_DIMS];
    memcpy(shape, first->shape, sizeof shape);
    int64_t length = 0;
    mlx_dtype dtype = first->dtype;
    for (size_t i = 0; i < count; i++) {
        const Node *x = nodes[i];
        bool fits = x->ndim == first->ndim;
        for (int k = 0; fits && k < x->ndim; k++) fits = k == axis || x->shape[k] == shape[k];
        if (!fits)
            return op_error("[concatenate] All the input array dimensions must match exactly "
                            "except for the concatenation axis %d: got %s and %s.",
                            axis, SHAPE(first), SHAPE(x));
        length += x->shape[axis];
        dtype = dtype_promote(dtype, x->dtype);
    }
    if (count == 1) return node_retain(nodes[0]);
    if (length > INT32_MAX) return op_error("[concatenate] The joined axis would be too long.");
    shape[axis] = (int)length;
    Node *local[8];
    Node **cast = count <= BASE_COUNT(local) ? local : base_alloc(count * sizeof *cast);
    for (size_t i = 0; i < count; i++) cast[i] = op_astype(nodes[i], dtype);
    Node *result = node_new_param(&concatenate_op, dtype, shape, first->ndim, &(ConcatParam){axis},
                                  sizeof(ConcatParam), cast, (int)count);
    for (size_t i = 0; i < count; i++) node_release(cast[i]);
    if (cast != local) free(cast);
    return result;
}

static Node *op_stack(Node *const *nodes, size_t count, int axis) {
    if (count == 0) return op_error("[stack] No arrays provided for stacking.");
    Node **expanded = base_alloc(count * sizeof *expanded);
    bool same = true;
    for (size_t i = 1; i < count; i++) same = same && shape_equal(nodes[0], nodes[i]);
    Node *result = NULL;
    if (!same) {
        op_error("[stack] All arrays must have the same shape.");
    } else if (axis_fix("stack", &axis, nodes[0]->ndim + 1)) {
        for (size_t i = 0; i < count; i++) expanded[i] = op_expand_dims(nodes[i], &axis, 1);
        result = op_concatenate(expanded, count, axis);
        for (size_t i = 0; i < count; i++) node_release(expanded[i]);
    }
    free(expanded);
    return result;
}

/* ---- pad ------------------------------------------------------------------------ */

/* Which item of an axis of n a position outside it repeats; n > 0. */
static int64_t pad_edge(int64_t at, int64_t n) {
    return BASE_MAX(0, BASE_MIN(at, n - 1));
}
static int64_t pad_reflect(int64_t at, int64_t n) {
    const int64_t period = 2 * (n - 1);
    if (period == 0) return 0;
    const int64_t place = ((at % period) + period) % period;
    return place < n ? place : period - place;
}
static int64_t pad_symmetric(int64_t at, int64_t n) {
    const int64_t period = 2 * n, place = ((at % period) + period) % period;
    return place < n ? place : period - 1 - place;
}

static const struct {
    const char *name;
    int64_t (*place)(int64_t at, int64_t n);
} pad_modes[] = {{"edge", pad_edge}, {"reflect", pad_reflect}, {"symmetric", pad_symmetric}};

static Node *pad_by_index(Node *x, const int *low, const int *high, const char *mode) {
    size_t which = 0;
    while (which < BASE_COUNT(pad_modes) && strcmp(pad_modes[which].name, mode)) which++;
    if (which == BASE_COUNT(pad_modes))
        return op_error("[pad] Mode \"%s\" is not one of constant, edge, reflect, symmetric.",
                        mode);
    Node *result = node_retain(x);
    for (int axis = 0; axis < x->ndim && result; axis++) {
        if (!low[axis] && !high[axis]) continue;
        if (x->shape[axis] == 0) {
            node_release(result);
            return op_error("[pad] Axis %d of size 0 has nothing to repeat.", axis);
        }
        const int length = low[axis] + x->shape[axis] + high[axis];
        Node *index = node_from_data(NULL, MLX_INT32, &length, 1);
        for (int i = 0; index && i < length; i++)
            ((int32_t *)node_data(index))[i] =
                (int32_t)pad_modes[which].place(i - low[axis], x->shape[axis]);
        Node *next = op_take(result, index, axis);
        node_release(index);
        node_release(result);
        result = next;
    }
    return result;
}

static Node *op_pad(Node *x, const int *axes, size_t n, const int *low, const int *high,
                    Node *value, const char *mode) {
    if (!x) return NULL;
    int fixed[NODE_DIMS], before[NODE_DIMS] = {0}, after[NODE_DIMS] = {0};
    int shape[NODE_DIMS], stop[NODE_DIMS];
    if (!axes_fix("pad", axes, n, x->ndim, fixed)) return NULL;
    for (size_t i = 0; i < n; i++) {
        if (low[i] < 0 || high[i] < 0)
            return op_error("[pad] Invalid padding size (%d, %d) of axis %d: sizes must be >= 0.",
                            low[i], high[i], fixed[i]);
        before[fixed[i]] = low[i];
        after[fixed[i]] = high[i];
    }
    for (int i = 0; i < x->ndim; i++) {
        const int64_t length = (int64_t)before[i] + x->shape[i] + after[i];
        if (length > INT32_MAX) return op_error("[pad] Axis %d would be too long.", i);
        shape[i] = (int)length;
        stop[i] = before[i] + x->shape[i];
    }
    if (mode && strcmp(mode, "constant") != 0) return pad_by_index(x, before, after, mode);
    if (!value) return NULL;
    if (value->size != 1) return op_error("[pad] The padding value must be a scalar.");
    Node *scalar = op_reshape(value, NULL, 0);
    Node *filled = op_full(shape, x->ndim, scalar, x->dtype);
    Node *result = op_slice_update(filled, x, before, stop, NULL);
    node_release(scalar);
    node_release(filled);
    return result;
}

/* ---- repeat, tile, roll ------------------------------------------------------------ */

/* Each item of an axis `repeats` times, one after the other. */
static Node *op_repeat(Node *x, int repeats, int axis) {
    if (!x || !axis_fix("repeat", &axis, x->ndim)) return NULL;
    if (repeats < 0) return op_error("[repeat] Number of repeats %d cannot be negative.", repeats);
    if (repeats == 0) return node_from_data(NULL, x->dtype, (const int[]){0}, 1); /* as MLX does */
    if (repeats == 1) return node_retain(x);
    if (x->ndim == NODE_DIMS) return op_error("[repeat] Too many axes in %s.", SHAPE(x));
    const int added = axis + 1;
    Node *expanded = op_expand_dims(x, &added, 1);
    int shape[NODE_DIMS];
    memcpy(shape, expanded ? expanded->shape : x->shape, sizeof shape);
    shape[added] = repeats;
    Node *wide = op_broadcast_to(expanded, shape, x->ndim + 1);
    Node *result = op_flatten(wide, axis, added);
    node_release(expanded);
    node_release(wide);
    return result;
}

static Node *op_tile(Node *x, const int *reps, size_t n) {
    if (!x) return NULL;
    const int ndim = BASE_MAX(x->ndim, n > NODE_DIMS ? NODE_DIMS : (int)n);
    int split[2 * NODE_DIMS], wide_shape[2 * NODE_DIMS], shape[NODE_DIMS], parts_ndim = 0;
    if (n > NODE_DIMS) return op_error("[tile] %zu counts are too many.", n);
    for (int i = 0; i < ndim; i++) {
        const int own = i - (ndim - x->ndim), rep = i - (ndim - (int)n);
        const int size = own < 0 ? 1 : x->shape[own], times = rep < 0 ? 1 : reps[rep];
        if (times < 0) return op_error("[tile] A count of %d cannot be negative.", times);
        if ((int64_t)size * times > INT32_MAX) return op_error("[tile] Axis %d is too long.", i);
        shape[i] = size * times;
        if (times != 1 || size == 1) {
            split[parts_ndim] = 1;
            wide_shape[parts_ndim++] = times;
        }
        if (size != 1) split[parts_ndim] = wide_shape[parts_ndim] = size, parts_ndim++;
    }
    if (parts_ndim > NODE_DIMS)
        return op_error("[tile] Tiling %s in %zu axes needs too many axes.", SHAPE(x), n);
    Node *parts = op_reshape(x, split, (size_t)parts_ndim);
    Node *wide = op_broadcast_to(parts, wide_shape, parts_ndim);
    Node *result = op_reshape(wide, shape, (size_t)ndim);
    node_release(parts);
    node_release(wide);
    return result;
}

static Node *op_roll(Node *x, const int *shifts, size_t n, int axis) {
    if (!x || !axis_fix("roll", &axis, x->ndim)) return NULL;
    const int size = x->shape[axis];
    if (size == 0) return node_retain(x);
    int64_t total = 0;
    for (size_t i = 0; i < n; i++) total += shifts[i];
    const int by = (int)(((total % size) + size) % size);
    if (by == 0) return node_retain(x);
    Node *tail = op_slice_axis(x, axis, size - by, size);
    Node *head = op_slice_axis(x, axis, 0, size - by);
    Node *result = op_concatenate((Node *const[]){tail, head}, 2, axis);
    node_release(tail);
    node_release(head);
    return result;
}

/* ---- the public functions ------------------------------------------------------------ */

int mlx_concatenate_axis(mlx_array *res, const mlx_vector_array arrays, int axis,
                         const mlx_stream s) {
    Node *const *nodes;
    size_t count;
    if (!stream_ok(s) || !vector_nodes(arrays, &nodes, &count)) return 1;
    return op_finish(res, op_concatenate(nodes, count, axis));
}

/* Flattens first. */
int mlx_concatenate(mlx_array *res, const mlx_vector_array arrays, const mlx_stream s) {
    Node *const *nodes;
    size_t count;
    if (!stream_ok(s) || !vector_nodes(arrays, &nodes, &count)) return 1;
    Node **flat = base_alloc((count + 1) * sizeof *flat);
    for (size_t i = 0; i < count; i++) flat[i] = op_flatten(nodes[i], 0, -1);
    const int status = op_finish(res, op_concatenate(flat, count, 0));
    for (size_t i = 0; i < count; i++) node_release(flat[i]);
    free(flat);
    return status;
}

int mlx_stack_axis(mlx_array *res, const mlx_vector_array arrays, int axis, const mlx_stream s) {
    Node *const *nodes;
    size_t count;
    if (!stream_ok(s) || !vector_nodes(arrays, &nodes, &count)) return 1;
    return op_finish(res, op_stack(nodes, count, axis));
}

int mlx_stack(mlx_array *res, const mlx_vector_array arrays, const mlx_stream s) {
    return mlx_stack_axis(res, arrays, 0, s);
}

int mlx_pad(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,
            const int *low_pad_size, size_t low_pad_size_num, const int *high_pad_size,
            size_t high_pad_size_num, const mlx_array pad_value, const char *mode,
            const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    if (axes_num != low_pad_size_num || axes_num != high_pad_size_num) {
        op_error("[pad] %zu axes need as many sizes, got %zu and %zu.", axes_num, low_pad_size_num,
                 high_pad_size_num);
        return 1;
    }
    Node *value = node_of(pad_value);
    return value ? op_finish(res, op_pad(node_of(a), axes, axes_num, low_pad_size, high_pad_size,
                                         value, mode))
                 : 1;
}

int mlx_repeat_axis(mlx_array *res, const mlx_array arr, int repeats, int axis,
                    const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_repeat(node_of(arr), repeats, axis)) : 1;
}

int mlx_tile(mlx_array *res, const mlx_array arr, const int *reps, size_t reps_num,
             const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_tile(node_of(arr), reps, reps_num)) : 1;
}

int mlx_roll_axis(mlx_array *res, const mlx_array a, const int *shift, size_t shift_num, int axis,
                  const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_roll(node_of(a), shift, shift_num, axis)) : 1;
}

/* Of the flattened array. */
int mlx_repeat(mlx_array *res, const mlx_array arr, int repeats, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *flat = op_flatten(node_of(arr), 0, -1);
    const int status = op_finish(res, op_repeat(flat, repeats, 0));
    node_release(flat);
    return status;
}

/* The flattened array, by the sum of the shifts. */
int mlx_roll(mlx_array *res, const mlx_array a, const int *shift, size_t shift_num,
             const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    Node *flat = op_flatten(x, 0, -1);
    Node *rolled = op_roll(flat, shift, shift_num, 0);
    const int status = op_finish(res, rolled ? op_reshape(rolled, x->shape, x->ndim) : NULL);
    node_release(flat);
    node_release(rolled);
    return status;
}

/* shift[i] along axes[i]. */
int mlx_roll_axes(mlx_array *res, const mlx_array a, const int *shift, size_t shift_num,
                  const int *axes, size_t axes_num, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *result = node_retain(node_of(a));
    if (result && shift_num < axes_num) {
        op_error("[roll] At least one shift value per axis is required, %zu provided for %zu axes.",
                 shift_num, axes_num);
        node_release(result);
        return 1;
    }
    for (size_t i = 0; i < axes_num && result; i++) {
        Node *next = op_roll(result, &shift[i], 1, axes[i]);
        node_release(result);
        result = next;
    }
    return op_finish(res, result);
}

/* Every axis by the same width on both sides. */
int mlx_pad_symmetric(mlx_array *res, const mlx_array a, int pad_width, const mlx_array pad_value,
                      const char *mode, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a), *value = x ? node_of(pad_value) : NULL;
    if (!value) return 1;
    int axes[NODE_DIMS], widths[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) {
        axes[i] = i;
        widths[i] = pad_width;
    }
    return op_finish(res, op_pad(x, axes, x->ndim, widths, widths, value, mode));
}
