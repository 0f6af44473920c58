/* Indexing by arrays: take, gather, take_along_axis, put_along_axis,
 * scatter_add_axis.
 *
 * Signed indices below zero count from the end. An index outside its axis is an
 * error of the evaluation (MLX leaves it undefined): indices come from token
 * ids and files. */
#include "engine/ops/combine.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <string.h>

/* ---- take -------------------------------------------------------------------------- */

typedef struct AxisParam {
    int axis;
} AxisParam;

/* out = x[:axis] + indices + x[axis+1:]. */
static bool take_eval(Node *node, Error *err) {
    const int axis = ((const AxisParam *)node->param)->axis;
    const Node *x = node->inputs[0];
    Node *indices = ready_row_contiguous(node->inputs[1], err);
    if (!indices) return false;
    if (!node_alloc(node, err)) {
        node_release(indices);
        return false;
    }
    const int inner_ndim = x->ndim - axis - 1;
    const int64_t n = x->shape[axis];
    int64_t inner = 1;
    for (int i = axis + 1; i < x->ndim; i++) inner *= x->shape[i];
    int64_t packed[NODE_DIMS];
    strides_row_major(x->shape + axis + 1, inner_ndim, packed);
    bool runs = true; /* the part behind the axis is one run of memory */
    for (int i = 0; i < inner_ndim; i++)
        runs = runs && (x->shape[axis + 1 + i] == 1 || x->strides[axis + 1 + i] == packed[i]);
    bool ok = true;
    if (node->size) {
        Walk walk; /* over the axes in front, one row or item at a time */
        int64_t front[NODE_DIMS];
        strides_row_major(x->shape, axis, front);
        walk_init(&walk, x->shape, axis, 2, (const int64_t *[]){front, x->strides});
        uint8_t *out = node_data(node);
        const size_t run_bytes = (size_t)inner * x->itemsize;
        for (size_t row = 0; row < walk.rows && ok; row++, walk_next(&walk)) {
            for (int64_t item = 0; item < walk.count && ok; item++) {
                const int64_t base = walk.at[1] + item * walk.step[1];
                for (size_t i = 0; i < indices->size; i++, out += run_bytes) {
                    const int64_t which = index_at(indices, (int64_t)i, n);
                    if (which < 0) {
                        ok = index_outside("take", indices, (int64_t)i, axis, n, err);
                        break;
                    }
                    const uint8_t *in = ops_at(x, base + which * x->strides[axis]);
                    if (runs)
                        memcpy(out, in, run_bytes);
                    else
                        copy_strided(out, packed, in, x->strides + axis + 1, x->shape + axis + 1,
                                     inner_ndim, x->itemsize);
                }
            }
        }
    }
    node_release(indices);
    return ok;
}

/* The axes of the indices move to the front, and the taken axis becomes a slice
 * of one item. */
static bool take_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const int axis = ((const AxisParam *)node->param)->axis;
    Node *x = node->inputs[0], *indices = node->inputs[1];
    if (!wanted[0]) return true;
    int order[NODE_DIMS], n = 0;
    for (int i = 0; i < indices->ndim; i++) order[n++] = axis + i;
    for (int i = 0; i < node->ndim; i++)
        if (i < axis || i >= axis + indices->ndim) order[n++] = i;
    const int place = indices->ndim + axis;
    Temps t = {0};
    Node *updates = temp(&t, op_transpose(g, order, (size_t)n));
    updates = temp(&t, op_expand_dims(updates, &place, 1));
    Node *zeros = temp(&t, op_zeros_like(x));
    grads[0] = op_scatter(COMBINE_ADD, zeros, &indices, 1, updates, &axis, 1);
    return temps_end(&t, grads[0] != NULL);
}
static const Op take_op = {"take", take_eval, take_vjp};

Node *op_take(Node *x, Node *indices, int axis) {
    if (!x || !indices || !axis_fix("take", &axis, x->ndim) || !indices_ok("take", indices))
        return NULL;
    if (x->ndim - 1 + indices->ndim > NODE_DIMS) return op_error("[take] Too many axes.");
    if (x->shape[axis] == 0 && indices->size != 0)
        return op_error("[take] Cannot do a non-empty take from an array with zero elements.");
    int shape[NODE_DIMS], ndim = 0;
    for (int i = 0; i < axis; i++) shape[ndim++] = x->shape[i];
    for (int i = 0; i < indices->ndim; i++) shape[ndim++] = indices->shape[i];
    for (int i = axis + 1; i < x->ndim; i++) shape[ndim++] = x->shape[i];
    return node_new_param(&take_op, x->dtype, shape, ndim, &(AxisParam){axis}, sizeof(AxisParam),
                          NODES(x, indices));
}

/* ---- along an axis -------------------------------------------------------------------- */

/* Visits every item of `indices` (in the shape of `shape`) with its offsets in
 * two arrays whose axis is addressed by the index: take copies from the
 * indexed one, put and add write into it. */
typedef struct AlongJob {
    const char *op;
    int axis;
    const int *shape; /* of the indices, broadcast */
    int ndim;
    const Node *indices;
    const int64_t *index_strides, *plain_strides, *indexed_strides;
    uint8_t *plain, *indexed; /* first items */
    int64_t indexed_size;     /* of the axis */
    size_t itemsize;
    bool put;
    CombineRun run; /* NULL: a copy */
} AlongJob;

#define ALONG_COPY(type)                         \
    if (job->put)                                \
        *(type *)indexed = *(const type *)plain; \
    else                                         \
        *(type *)plain = *(const type *)indexed; \
    break;

static bool along_axis(const AlongJob *job, Error *err) {
    /* The axis itself is the inner loop, the others are walked. */
    int shape[NODE_DIMS], ndim = 0;
    int64_t strides[3][NODE_DIMS];
    const int64_t *const all[3] = {job->index_strides, job->plain_strides, job->indexed_strides};
    for (int i = 0; i < job->ndim; i++) {
        if (i == job->axis) continue;
        for (int k = 0; k < 3; k++) strides[k][ndim] = all[k][i];
        shape[ndim++] = job->shape[i];
    }
    Walk walk;
    walk_init(&walk, shape, ndim, 3, (const int64_t *[]){strides[0], strides[1], strides[2]});
    const int64_t length = job->shape[job->axis], itemsize = (int64_t)job->itemsize;
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        for (int64_t item = 0; item < walk.count; item++) {
            for (int64_t i = 0; i < length; i++) {
                const int64_t at = walk.at[0] + item * walk.step[0] + i * all[0][job->axis];
                const int64_t which = index_at(job->indices, at, job->indexed_size);
                if (which < 0)
                    return index_outside(job->op, job->indices, at, job->axis, job->indexed_size,
                                         err);
                void *plain = job->plain +
                              (walk.at[1] + item * walk.step[1] + i * all[1][job->axis]) * itemsize;
                void *indexed =
                    job->indexed +
                    (walk.at[2] + item * walk.step[2] + which * all[2][job->axis]) * itemsize;
                if (job->run) {
                    job->run(indexed, 1, plain, 1, 1);
                    continue;
                }
                switch (itemsize) {
                case 1: ALONG_COPY(uint8_t)
                case 2: ALONG_COPY(uint16_t)
                case 4: ALONG_COPY(uint32_t)
                default: ALONG_COPY(uint64_t)
                }
            }
        }
    }
    return true;
}

/* inputs: x, indices. Every axis but `axis` broadcasts both ways. */
static bool take_along_eval(Node *node, Error *err) {
    const int axis = ((const AxisParam *)node->param)->axis;
    const Node *x = node->inputs[0], *indices = node->inputs[1];
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    int64_t index_strides[NODE_DIMS], x_strides[NODE_DIMS];
    int x_shape[NODE_DIMS];
    memcpy(x_shape, node->shape, sizeof x_shape);
    x_shape[axis] = x->shape[axis];
    strides_broadcast(indices, node->shape, node->ndim, index_strides);
    strides_broadcast(x, x_shape, node->ndim, x_strides);
    return along_axis(&(AlongJob){.op = "take_along_axis",
                                  .axis = axis,
                                  .shape = node->shape,
                                  .ndim = node->ndim,
                                  .indices = indices,
                                  .index_strides = index_strides,
                                  .plain_strides = node->strides,
                                  .indexed_strides = x_strides,
                                  .plain = node_data(node),
                                  .indexed = node_data(x),
                                  .indexed_size = x->shape[axis],
                                  .itemsize = x->itemsize,
                                  .put = false},
                      err);
}

static bool take_along_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const int axis = ((const AxisParam *)node->param)->axis;
    Node *x = node->inputs[0];
    if (!wanted[0]) return true;
    int shape[NODE_DIMS];
    memcpy(shape, node->shape, sizeof shape);
    shape[axis] = x->shape[axis];
    Temps t = {0};
    Node *zeros = temp(&t, op_full_value(shape, x->ndim, 0, x->dtype));
    Node *sum = temp(&t, op_put_along_axis(COMBINE_ADD, zeros, node->inputs[1], g, axis));
    grads[0] = op_sum_to(sum, x);
    return temps_end(&t, grads[0] != NULL);
}
const Op take_along_op = {"take_along_axis", take_along_eval, take_along_vjp};

/* The shape of the visit: indices and x broadcast together, the axis the indices'. */
static bool along_shape(const char *op, const Node *x, const Node *indices, int axis, int *shape) {
    int left[NODE_DIMS], right[NODE_DIMS], ndim;
    if (indices->ndim != x->ndim) {
        op_error("[%s] Indices of dimension %d does not match array of dimension %d.", op,
                 indices->ndim, x->ndim);
        return false;
    }
    memcpy(left, x->shape, sizeof left);
    memcpy(right, indices->shape, sizeof right);
    left[axis] = right[axis] = 1;
    if (!shape_broadcast(left, x->ndim, right, x->ndim, shape, &ndim)) return false;
    shape[axis] = indices->shape[axis];
    return true;
}

Node *op_take_along_axis(Node *x, Node *indices, int axis) {
    int shape[NODE_DIMS];
    if (!x || !indices || !axis_fix("take_along_axis", &axis, x->ndim) ||
        !indices_ok("take_along_axis", indices) ||
        !along_shape("take_along_axis", x, indices, axis, shape))
        return NULL;
    return node_new_param(&take_along_op, x->dtype, shape, x->ndim, &(AxisParam){axis},
                          sizeof(AxisParam), NODES(x, indices));
}

typedef struct PutParam {
    int axis;
    Combine kind; /* COMBINE_SET or COMBINE_ADD */
} PutParam;

/* inputs: x, indices, values of x's dtype in the visited shape. */
static bool put_along_eval(Node *node, Error *err) {
    const PutParam *param = node->param;
    const Node *indices = node->inputs[1], *values = node->inputs[2];
    if (!combine_begin(node, err)) return false;
    if (values->size == 0) return true;
    int64_t index_strides[NODE_DIMS];
    strides_broadcast(indices, values->shape, values->ndim, index_strides);
    return along_axis(&(AlongJob){.op = node->op->name,
                                  .axis = param->axis,
                                  .shape = values->shape,
                                  .ndim = values->ndim,
                                  .indices = indices,
                                  .index_strides = index_strides,
                                  .plain_strides = values->strides,
                                  .indexed_strides = node->strides,
                                  .plain = node_data(values),
                                  .indexed = node_data(node),
                                  .indexed_size = node->shape[param->axis],
                                  .itemsize = node->itemsize,
                                  .put = true,
                                  .run = param->kind == COMBINE_SET
                                             ? NULL
                                             : combine_run(param->kind, node->dtype)},
                      err);
}

static bool put_along_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const PutParam *param = node->param;
    Node *indices = node->inputs[1];
    bool ok = true;
    if (wanted[1]) {
        op_error("[scatter_axis] Cannot calculate VJP with respect to indices.");
        return false;
    }
    if (wanted[0] && param->kind == COMBINE_ADD) {
        grads[0] = node_retain(g);
    } else if (wanted[0]) {
        Node *zeros = op_zeros_like(node->inputs[2]);
        ok = (grads[0] = op_put_along_axis(COMBINE_SET, g, indices, zeros, param->axis)) != NULL;
        node_release(zeros);
    }
    if (wanted[2] && ok) ok = (grads[2] = op_take_along_axis(g, indices, param->axis)) != NULL;
    return ok;
}
static const Op put_along_op = {"put_along_axis", put_along_eval, put_along_vjp};
const Op add_along_op = {"scatter_add_axis", put_along_eval, put_along_vjp};

/* Indices and values broadcast together, then with x but for the axis; values may
 * have leading axes of size 1 too many. */
Node *op_put_along_axis(Combine kind, Node *x, Node *indices, Node *values, int axis) {
    const Op *op = kind == COMBINE_SET ? &put_along_op : &add_along_op;
    int shape[NODE_DIMS], ndim, extra[NODE_DIMS];
    if (!x || !indices || !values || !axis_fix(op->name, &axis, x->ndim) ||
        !indices_ok(op->name, indices))
        return NULL;
    if (indices->ndim != x->ndim)
        return op_error("[%s] Indices of dimension %d does not match array of dimension %d.",
                        op->name, indices->ndim, x->ndim);
    if (x->size == 0) return node_retain(x);
    int n_extra = 0;
    for (; values->ndim - n_extra > x->ndim; n_extra++) extra[n_extra] = n_extra;
    Node *cast = op_astype(values, x->dtype), *fit = op_squeeze(cast, extra, (size_t)n_extra);
    Node *where = NULL, *wide = NULL, *target = NULL, *result = NULL;
    if (fit && shape_broadcast(indices->shape, x->ndim, fit->shape, fit->ndim, shape, &ndim))
        where = op_broadcast_to(indices, shape, ndim);
    if (where && along_shape(op->name, x, where, axis, shape)) {
        wide = op_broadcast_to(fit, shape, x->ndim);
        shape[axis] = x->shape[axis];
        target = op_broadcast_to(x, shape, x->ndim);
        result = node_new_param(op, x->dtype, shape, x->ndim, &(PutParam){axis, kind},
                                sizeof(PutParam), NODES(target, where, wide));
    }
    Node *const temporaries[] = {cast, fit, where, wide, target};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return result;
}

/* ---- gather ------------------------------------------------------------------------------ */

typedef struct GatherParam {
    uint8_t axes[NODE_DIMS]; /* one per index array */
    int index_ndim;
    int slice_sizes[NODE_DIMS];
} GatherParam;

/* inputs: x, then the index arrays, all broadcast to the leading part of the
 * result's shape; each place takes a slice that starts at its indices. */
static bool gather_eval(Node *node, Error *err) {
    const GatherParam *param = node->param;
    const Node *x = node->inputs[0];
    const int n_axes = (int)node->n_inputs - 1;
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    const int *sizes = param->slice_sizes;
    int64_t packed[NODE_DIMS], inner = 1;
    strides_row_major(sizes, x->ndim, packed);
    for (int i = 0; i < x->ndim; i++) inner *= sizes[i];
    int64_t index_strides[NODE_DIMS][NODE_DIMS], position[NODE_DIMS] = {0};
    for (int k = 0; k < n_axes; k++)
        strides_broadcast(node->inputs[k + 1], node->shape, param->index_ndim, index_strides[k]);
    uint8_t *out = node_data(node);
    const size_t places = node->size / (size_t)inner;
    for (size_t place = 0; place < places; place++) {
        int64_t start = 0;
        for (int k = 0; k < n_axes; k++) {
            const int axis = param->axes[k];
            int64_t at = 0;
            for (int i = 0; i < param->index_ndim; i++) at += position[i] * index_strides[k][i];
            const int64_t which = index_at(node->inputs[k + 1], at, x->shape[axis]);
            if (which < 0 || which + sizes[axis] > x->shape[axis])
                return index_outside("gather", node->inputs[k + 1], at, axis, x->shape[axis], err);
            start += which * x->strides[axis];
        }
        copy_strided(out, packed, ops_at(x, start), x->strides, sizes, x->ndim, x->itemsize);
        out += (size_t)inner * x->itemsize;
        for (int i = param->index_ndim - 1; i >= 0; i--) {
            if (++position[i] < node->shape[i]) break;
            position[i] = 0;
        }
    }
    return true;
}

static bool gather_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const GatherParam *param = node->param;
    const size_t count = node->n_inputs - 1;
    if (!wanted[0]) return true;
    int axes[NODE_DIMS];
    for (size_t i = 0; i < count; i++) axes[i] = param->axes[i];
    Node *zeros = op_zeros_like(node->inputs[0]);
    grads[0] = op_scatter(COMBINE_ADD, zeros, node->inputs + 1, count, g, axes, count);
    node_release(zeros);
    return grads[0] != NULL;
}
static const Op gather_op = {"gather", gather_eval, gather_vjp};

Node *op_gather(Node *x, Node *const *indices, size_t count, const int *axes, size_t n_axes,
                const int *slice_sizes, size_t n_sizes) {
    if (!x) return NULL;
    if (count != n_axes)
        return op_error("[gather] Number of index arrays %zu does not match number of axes %zu.",
                        count, n_axes);
    if (n_axes > x->ndim) return op_error("[gather] Too many index arrays for %s.", SHAPE(x));
    if (n_sizes != x->ndim)
        return op_error("[gather] slice_sizes must have one entry per axis of %s, got %zu.",
                        SHAPE(x), n_sizes);
    int fixed[NODE_DIMS], shape[NODE_DIMS], ndim = 0;
    Node *inputs[NODE_DIMS + 1] = {x};
    GatherParam param;
    memset(&param, 0, sizeof param);
    for (size_t i = 0; i < n_axes; i++)
        if (axes[i] < 0) return op_error("[gather] Axis %d is negative.", axes[i]);
    if (!axes_fix("gather", axes, n_axes, x->ndim, fixed)) return NULL;
    for (size_t i = 0; i < n_axes; i++) {
        if (!indices_ok("gather", indices[i])) return NULL;
        param.axes[i] = (uint8_t)fixed[i];
        inputs[i + 1] = indices[i];
    }
    for (int i = 0; i < x->ndim; i++) {
        if (slice_sizes[i] < 0 || slice_sizes[i] > x->shape[i])
            return op_error("[gather] Slice size %d of axis %d does not fit %s.", slice_sizes[i], i,
                            SHAPE(x));
        param.slice_sizes[i] = slice_sizes[i];
    }
    if (!shape_broadcast_nodes(indices, count, shape, &ndim)) return NULL;
    if (ndim + x->ndim > NODE_DIMS) return op_error("[gather] Too many axes.");
    param.index_ndim = ndim;
    for (int i = 0; i < x->ndim; i++) shape[ndim++] = slice_sizes[i];
    return node_new_param(&gather_op, x->dtype, shape, ndim, &param, sizeof param, inputs,
                          (int)count + 1);
}

/* ---- the public functions -------------------------------------------------------------------- */

int mlx_take_axis(mlx_array *res, const mlx_array a, const mlx_array indices, int axis,
                  const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_take(node_of(a), node_of(indices), axis)) : 1;
}

/* From the flattened array. */
int mlx_take(mlx_array *res, const mlx_array a, const mlx_array indices, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *flat = op_flatten(node_of(a), 0, -1);
    const int status = op_finish(res, op_take(flat, node_of(indices), 0));
    node_release(flat);
    return status;
}

int mlx_take_along_axis(mlx_array *res, const mlx_array a, const mlx_array indices, int axis,
                        const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_take_along_axis(node_of(a), node_of(indices), axis));
}

int mlx_put_along_axis(mlx_array *res, const mlx_array a, const mlx_array indices,
                       const mlx_array values, int axis, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(
        res, op_put_along_axis(COMBINE_SET, node_of(a), node_of(indices), node_of(values), axis));
}

int mlx_scatter_add_axis(mlx_array *res, const mlx_array a, const mlx_array indices,
                         const mlx_array values, int axis, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(
        res, op_put_along_axis(COMBINE_ADD, node_of(a), node_of(indices), node_of(values), axis));
}

int mlx_gather(mlx_array *res, const mlx_array a, const mlx_vector_array indices, const int *axes,
               size_t axes_num, const int *slice_sizes, size_t slice_sizes_num,
               const mlx_stream s) {
    Node *const *nodes;
    size_t count;
    if (!stream_ok(s) || !vector_nodes(indices, &nodes, &count)) return 1;
    return op_finish(
        res, op_gather(node_of(a), nodes, count, axes, axes_num, slice_sizes, slice_sizes_num));
}

int mlx_gather_single(mlx_array *res, const mlx_array a, const mlx_array indices, int axis,
                      const int *slice_sizes, size_t slice_sizes_num, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *const index = node_of(indices);
    if (!index) return 1;
    return op_finish(res, op_gather(node_of(a), &index, 1, &axis, 1, slice_sizes, slice_sizes_num));
}
