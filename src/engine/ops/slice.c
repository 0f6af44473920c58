/* slice, slice_update and its kin, split: part of an array as a view, and a part
 * of an array replaced, added to or compared with, in place when nobody else
 * holds it. */
#include "engine/ops/combine.h"
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

/* numbers: of a SliceRange over x's shape; then the Combine. */
static bool slice_update_eval(Node *node, Error *err) {
    const Node *update = node->inputs[1];
    const int *numbers = node->param;
    if (!combine_begin(node, err)) return false;
    int64_t strides[NODE_DIMS];
    const int64_t start = slice_layout(node, numbers, strides);
    const Combine kind = (Combine)numbers[2 * node->ndim];
    if (update->size == 0) return true;
    if (kind == COMBINE_SET)
        copy_strided(ops_at(node, start), strides, node_data(update), update->strides,
                     update->shape, update->ndim, update->itemsize);
    else
        combine_strided(kind, node->dtype, ops_at(node, start), strides, node_data(update),
                        update->strides, update->shape, update->ndim);
    return true;
}
static bool slice_update_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op slice_update_op = {"slice_update", slice_update_eval, slice_update_vjp};
const Op slice_add_op = {"slice_update", slice_update_eval, slice_update_vjp};

/* part meets the place of x that numbers (of a SliceRange over x's shape) say. */
static Node *put_slice(Combine kind, Node *x, Node *part, const int *numbers) {
    if (!x || !part) return NULL;
    int param[2 * NODE_DIMS + 1];
    memcpy(param, numbers, 2 * x->ndim * sizeof *numbers);
    param[2 * x->ndim] = (int)kind;
    return node_new_param(kind == COMBINE_ADD ? &slice_add_op : &slice_update_op, x->dtype,
                          x->shape, x->ndim, param, (2 * (size_t)x->ndim + 1) * sizeof(int),
                          NODES(x, part));
}

/* The part of x, which has node's shape, that node updates. */
static Node *updated_part(const Node *node, Node *x) {
    const Node *update = node->inputs[1];
    if (!x) return NULL;
    return node_new_param(&slice_op, x->dtype, update->shape, update->ndim, node->param,
                          2 * node->ndim * sizeof(int), NODES(x));
}

static bool slice_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    Temps t = {0};
    grads[0] = put_slice(COMBINE_ADD, temp(&t, op_zeros_like(node->inputs[0])), g, node->param);
    return temps_end(&t, grads[0] != NULL);
}

static bool slice_update_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *x = node->inputs[0], *update = node->inputs[1];
    const Combine kind = (Combine)((const int *)node->param)[2 * node->ndim];
    Temps t = {0};
    bool good = true;
    if (wanted[0]) {
        switch (kind) {
        case COMBINE_SET:
            grads[0] = put_slice(COMBINE_SET, g, temp(&t, op_zeros_like(update)), node->param);
            break;
        case COMBINE_ADD: grads[0] = node_retain(g); break;
        case COMBINE_MULTIPLY: grads[0] = put_slice(kind, g, update, node->param); break;
        default: grads[0] = op_keep(temp(&t, op_binary(BINARY_EQUAL, node, x)), g); break;
        }
        good = grads[0] != NULL;
    }
    if (wanted[1] && good) {
        Node *part = updated_part(node, g);
        if (kind == COMBINE_SET || kind == COMBINE_ADD) {
            grads[1] = part;
        } else if (kind == COMBINE_MULTIPLY) {
            grads[1] = op_multiply(temp(&t, part), temp(&t, updated_part(node, x)));
        } else {
            Node *result = temp(&t, updated_part(node, node));
            grads[1] = op_keep(temp(&t, op_binary(BINARY_EQUAL, result, update)), temp(&t, part));
        }
        good = grads[1] != NULL;
    }
    return temps_end(&t, good);
}

static Node *slice_combine(Combine kind, Node *x, Node *update, const int *start, const int *stop,
                           const int *strides) {
    SliceRange range;
    if (!x || !update || !slice_resolve("slice_update", x, start, stop, strides, &range))
        return NULL;
    Node *cast = op_astype(update, x->dtype);
    Node *whole = op_broadcast_to(cast, range.shape, x->ndim);
    Node *result = NULL;
    if (whole && range.whole && kind == COMBINE_SET)
        result = node_retain(whole);
    else if (whole)
        result = put_slice(kind, x, whole, range.numbers);
    node_release(cast);
    node_release(whole);
    return result;
}

Node *op_slice_update(Node *x, Node *update, const int *start, const int *stop,
                      const int *strides) {
    return slice_combine(COMBINE_SET, x, update, start, stop, strides);
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

#define UPDATE_API(name, kind)                                                                    \
    int mlx_##name(mlx_array *res, const mlx_array src, const mlx_array update, const int *start, \
                   size_t start_num, const int *stop, size_t stop_num, const int *strides,        \
                   size_t strides_num, const mlx_stream s) {                                      \
        if (!stream_ok(s)) return 1;                                                              \
        Node *x = node_of(src);                                                                   \
        if (!slice_counts("slice_update", x, start_num, stop_num, strides_num)) return 1;         \
        return op_finish(res, slice_combine(kind, x, node_of(update), start, stop, strides));     \
    }
UPDATE_API(slice_update, COMBINE_SET)
UPDATE_API(slice_update_add, COMBINE_ADD)
UPDATE_API(slice_update_max, COMBINE_MAXIMUM)
UPDATE_API(slice_update_min, COMBINE_MINIMUM)
UPDATE_API(slice_update_prod, COMBINE_MULTIPLY)

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
