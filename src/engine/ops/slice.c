/* slice, slice_update and split: part of an array as a view, and a part of an
 * array replaced, in place when nobody else holds it. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

/* A slice resolved against a shape: item i of axis a is item
 * start[a] + i * step[a] of the array. Kept in a node as 2 * ndim numbers, so
 * that the usual ones fit inside it. */
typedef struct SliceRange {
    int shape[NODE_DIMS];
    int numbers[2 * NODE_DIMS]; /* ndim starts, then ndim steps */
    bool whole;                 /* everything, in order */
} SliceRange;

/* NumPy's rules: negative positions count from the end, then clamp. */
static bool slice_resolve(const char *op, const Node *x, const int *start, const int *stop,
                          const int *strides, SliceRange *range) {
    range->whole = true;
    for (int i = 0; i < x->ndim; i++) {
        const int64_t n = x->shape[i], step = strides ? strides[i] : 1;
        int64_t first = start[i] < 0 ? start[i] + n : start[i];
        int64_t last = stop[i] < 0 ? stop[i] + n : stop[i];
        int64_t count;
        if (step == 0) {
            op_error("[%s] The stride of axis %d is 0.", op, i);
            return false;
        }
        if (step > 0) {
            first = BASE_MAX(0, BASE_MIN(first, n));
            last = BASE_MAX(first, BASE_MIN(last, n));
            count = (last - first + step - 1) / step;
        } else {
            first = BASE_MIN(first, n - 1);
            last = BASE_MIN(first, BASE_MAX(last, -1));
            count = (first - last - step - 1) / -step;
        }
        range->shape[i] = (int)count;
        range->numbers[i] = count ? (int)first : 0;
        range->numbers[x->ndim + i] = (int)step;
        range->whole = range->whole && first == 0 && step == 1 && count == n;
    }
    return true;
}

/* Where the slice starts, in items, and its strides. */
static int64_t slice_layout(const Node *x, const int *numbers, int64_t *strides) {
    int64_t start = 0;
    for (int i = 0; i < x->ndim; i++) {
        start += numbers[i] * x->strides[i];
        strides[i] = numbers[x->ndim + i] * x->strides[i];
    }
    return start;
}

static bool slice_eval(Node *node, Error *err) {
    (void)err;
    const Node *x = node->inputs[0];
    int64_t strides[NODE_DIMS];
    const int64_t start = slice_layout(x, node->param, strides);
    node_share(node, x, strides, node->size ? start : 0);
    return true;
}
static bool slice_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op slice_op = {"slice", slice_eval, slice_vjp};

Node *op_slice(Node *x, const int *start, const int *stop, const int *strides) {
    SliceRange range;
    if (!x || !slice_resolve("slice", x, start, stop, strides, &range)) return NULL;
    if (range.whole) return node_retain(x);
    return node_new_param(&slice_op, x->dtype, range.shape, x->ndim, range.numbers,
                          2 * x->ndim * sizeof(int), NODES(x));
}

Node *op_slice_axis(Node *x, int axis, int start, int stop) {
    if (!x) return NULL;
    int first[NODE_DIMS] = {0}, last[NODE_DIMS];
    memcpy(last, x->shape, sizeof last);
    first[axis] = start;
    last[axis] = stop;
    return op_slice(x, first, last, NULL);
}

static bool slice_update_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0], *update = node->inputs[1];
    if (!node_donate(node, 0)) {
        if (!node_alloc(node, err)) return false;
        copy_strided(node_data(node), node->strides, node_data(x), x->strides, x->shape, x->ndim,
                     x->itemsize);
    }
    int64_t strides[NODE_DIMS];
    const int64_t start = slice_layout(node, node->param, strides);
    if (update->size)
        copy_strided(ops_at(node, start), strides, node_data(update), update->strides,
                     update->shape, update->ndim, update->itemsize);
    return true;
}
static bool slice_update_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op slice_update_op = {"slice_update", slice_update_eval, slice_update_vjp};

/* part in the place of x that numbers (of a SliceRange over x's shape) say. */
static Node *put_slice(Node *x, Node *part, const int *numbers) {
    if (!x || !part) return NULL;
    return node_new_param(&slice_update_op, x->dtype, x->shape, x->ndim, numbers,
                          2 * x->ndim * sizeof(int), NODES(x, part));
}

static bool slice_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    Temps t = {0};
    grads[0] = put_slice(temp(&t, op_zeros_like(node->inputs[0])), g, node->param);
    return temps_end(&t, grads[0] != NULL);
}

static bool slice_update_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *update = node->inputs[1];
    Temps t = {0};
    bool good = true;
    if (wanted[0])
        good = (grads[0] = put_slice(g, temp(&t, op_zeros_like(update)), node->param)) != NULL;
    if (wanted[1] && good)
        good = (grads[1] = node_new_param(&slice_op, g->dtype, update->shape, update->ndim,
                                          node->param, 2 * node->ndim * sizeof(int), NODES(g)));
    return temps_end(&t, good);
}

Node *op_slice_update(Node *x, Node *update, const int *start, const int *stop,
                      const int *strides) {
    SliceRange range;
    if (!x || !update || !slice_resolve("slice_update", x, start, stop, strides, &range))
        return NULL;
    Node *cast = op_astype(update, x->dtype);
    /* Leading axes of length 1 beyond x's fall away, as they would by broadcasting. */
    if (cast && cast->ndim > x->ndim) {
        int axes[NODE_DIMS];
        const int extra = cast->ndim - x->ndim;
        for (int i = 0; i < extra; i++) axes[i] = i;
        Node *squeezed = op_squeeze(cast, axes, (size_t)extra);
        node_release(cast);
        cast = squeezed;
    }
    Node *whole = op_broadcast_to(cast, range.shape, x->ndim);
    Node *result = NULL;
    if (whole && range.whole)
        result = node_retain(whole);
    else if (whole)
        result = put_slice(x, whole, range.numbers);
    node_release(cast);
    node_release(whole);
    return result;
}

/* ---- split ------------------------------------------------------------------- */

/* A split is one node (x itself) with a view for each part, so that its gradient
 * joins the parts at once. Param of the split: axis, then the end of each part. */
typedef struct SplitPart {
    size_t number; /* which part: the key of its cotangent */
    int axis, start;
} SplitPart;

static bool split_eval(Node *node, Error *err) {
    (void)err;
    node_share(node, node->inputs[0], NULL, 0);
    return true;
}

/* Parts that nothing depends on leave zeros. */
static bool split_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    const int *numbers = node->param, axis = numbers[0], *ends = numbers + 1;
    int shape[NODE_DIMS], start = 0;
    memcpy(shape, node->shape, sizeof shape);
    size_t count = 0;
    while (start < node->shape[axis]) start = ends[count++];
    Node **parts = base_alloc((count + 1) * sizeof *parts);
    start = 0;
    for (size_t i = 0; i < count; i++) {
        shape[axis] = ends[i] - start;
        start = ends[i];
        Node *part = node_part_cotangent(g, i);
        parts[i] = part ? node_retain(part) : op_full_value(shape, node->ndim, 0, node->dtype);
    }
    grads[0] = op_concatenate(parts, count, axis);
    for (size_t i = 0; i < count; i++) node_release(parts[i]);
    free(parts);
    return grads[0] != NULL;
}
static const Op split_op = {"split", split_eval, split_vjp};

static bool split_part_eval(Node *node, Error *err) {
    (void)err;
    const SplitPart *part = node->param;
    const Node *x = node->inputs[0];
    node_share(node, x, x->strides, node->size ? part->start * x->strides[part->axis] : 0);
    return true;
}
static const Op split_part_op = {"split_part", split_part_eval, node_part_vjp};

/* Cut positions as in NumPy: they clamp, and a position before the one in front
 * of it gives an empty part, after which parts overlap: those are plain slices. */
static int split_at(mlx_vector_array *res, Node *x, const int *cuts, size_t n_cuts, int axis) {
    if (!x || !axis_fix("split", &axis, x->ndim)) return 1;
    const size_t count = n_cuts + 1;
    Node **parts = base_alloc(count * sizeof *parts);
    int *numbers = base_alloc((count + 1) * sizeof *numbers), *ends = numbers + 1;
    const int size = x->shape[axis];
    bool ordered = n_cuts > 0 && size > 0;
    numbers[0] = axis;
    for (size_t i = 0; i < count; i++) {
        int stop = i < n_cuts ? cuts[i] : size;
        if (stop < 0) stop += size;
        ends[i] = BASE_MAX(0, BASE_MIN(stop, size));
        ordered = ordered && (i == 0 || ends[i] >= ends[i - 1]);
    }
    Node *whole = ordered ? node_new_param(&split_op, x->dtype, x->shape, x->ndim, numbers,
                                           (count + 1) * sizeof *numbers, NODES(x))
                          : NULL;
    int shape[NODE_DIMS], start = 0;
    memcpy(shape, x->shape, sizeof shape);
    for (size_t i = 0; i < count; i++) {
        shape[axis] = BASE_MAX(0, ends[i] - start);
        parts[i] =
            ordered ? node_new_param(&split_part_op, x->dtype, shape, x->ndim,
                                     &(SplitPart){i, axis, start}, sizeof(SplitPart), NODES(whole))
                    : op_slice_axis(x, axis, start, BASE_MAX(start, ends[i]));
        start = ends[i];
    }
    node_release(whole);
    free(numbers);
    const int status = op_finish_vector(res, parts, count);
    free(parts);
    return status;
}

static bool slice_counts(const char *op, const Node *x, size_t start, size_t stop, size_t strides) {
    if (!x) return false;
    if (start == x->ndim && stop == x->ndim && strides == x->ndim) return true;
    op_error("[%s] start, stop and strides must have one entry per axis of %s, got %zu, %zu, %zu.",
             op, SHAPE(x), start, stop, strides);
    return false;
}

int mlx_slice(mlx_array *res, const mlx_array a, const int *start, size_t start_num,
              const int *stop, size_t stop_num, const int *strides, size_t strides_num,
              const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    if (!slice_counts("slice", x, start_num, stop_num, strides_num)) return 1;
    return op_finish(res, op_slice(x, start, stop, strides));
}

int mlx_slice_update(mlx_array *res, const mlx_array src, const mlx_array update, const int *start,
                     size_t start_num, const int *stop, size_t stop_num, const int *strides,
                     size_t strides_num, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *x = node_of(src);
    if (!slice_counts("slice_update", x, start_num, stop_num, strides_num)) return 1;
    return op_finish(res, op_slice_update(x, node_of(update), start, stop, strides));
}

int mlx_split(mlx_vector_array *res, const mlx_array a, int num_splits, int axis,
              const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    if (!x || !axis_fix("split", &axis, x->ndim)) return 1;
    const int size = x->shape[axis];
    if (num_splits <= 0 || size % num_splits) {
        op_error("[split] The size %d of axis %d cannot be split into %d equal parts.", size, axis,
                 num_splits);
        return 1;
    }
    int *cuts = base_alloc((size_t)num_splits * sizeof *cuts);
    for (int i = 0; i + 1 < num_splits; i++) cuts[i] = (i + 1) * (size / num_splits);
    const int status = split_at(res, x, cuts, (size_t)num_splits - 1, axis);
    free(cuts);
    return status;
}

int mlx_split_sections(mlx_vector_array *res, const mlx_array a, const int *indices,
                       size_t indices_num, int axis, const mlx_stream s) {
    return stream_ok(s) ? split_at(res, node_of(a), indices, indices_num, axis) : 1;
}
