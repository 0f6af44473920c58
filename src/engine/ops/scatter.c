/* scatter: slices of updates written, added, multiplied or compared into an
 * array at places given by index arrays; and masked_scatter.
 *
 * Updates are applied in order, so the last of several writes to one place wins.
 * Sums and products of 16-bit floats are gathered by place first: each place
 * accumulates in float32 and rounds once. An index outside its axis is an error
 * of the evaluation (MLX leaves it undefined). */
#include "engine/ops/combine.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct ScatterParam {
    Combine kind;
    int index_ndim;
    uint8_t axes[NODE_DIMS]; /* one per index array */
} ScatterParam;

/* Where update number `order` goes, in items. */
typedef struct Place {
    int64_t start;
    size_t order;
} Place;

static int place_order(const void *left, const void *right) {
    const Place *a = left, *b = right;
    if (a->start != b->start) return a->start < b->start ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

/* inputs: x, the index arrays, updates. Fills one start per place. */
static bool scatter_places(const Node *node, Place *places, size_t count, Error *err) {
    const ScatterParam *param = node->param;
    const Node *updates = node->inputs[node->n_inputs - 1];
    const int n_axes = (int)node->n_inputs - 2;
    const int *slice = updates->shape + param->index_ndim;
    int64_t strides[NODE_DIMS][NODE_DIMS], position[NODE_DIMS] = {0};
    for (int k = 0; k < n_axes; k++)
        strides_broadcast(node->inputs[k + 1], updates->shape, param->index_ndim, strides[k]);
    for (size_t place = 0; place < count; place++) {
        int64_t start = 0;
        for (int k = 0; k < n_axes; k++) {
            const Node *indices = node->inputs[k + 1];
            const int axis = param->axes[k];
            int64_t at = 0;
            for (int i = 0; i < param->index_ndim; i++) at += position[i] * strides[k][i];
            const int64_t which = index_at(indices, at, node->shape[axis]);
            if (which < 0 || which + slice[axis] > node->shape[axis])
                return index_outside("scatter", indices, at, axis, node->shape[axis], err);
            start += which * node->strides[axis];
        }
        places[place] = (Place){start, place};
        for (int i = param->index_ndim - 1; i >= 0; i--) {
            if (++position[i] < updates->shape[i]) break;
            position[i] = 0;
        }
    }
    return true;
}

/* One run of equal places of 16-bit floats. Updates are row major; wide has room
 * for two slices, narrow for one. */
static void scatter_wide(Node *node, const uint16_t *updates, const Place *places, size_t count,
                         const int *slice, size_t inner, float *wide, uint16_t *narrow) {
    const ScatterParam *param = node->param;
    const CpuType type = node->dtype == MLX_FLOAT16 ? CPU_F16 : CPU_BF16;
    uint16_t *out = (uint16_t *)node_data(node) + places[0].start;
    int64_t packed[NODE_DIMS];
    strides_row_major(slice, node->ndim, packed);
    copy_strided(narrow, packed, out, node->strides, slice, node->ndim, sizeof *narrow);
    cpu_convert(wide, CPU_F32, narrow, type, inner);
    const CombineRun run = combine_run(param->kind, MLX_FLOAT32);
    for (size_t i = 0; i < count; i++) {
        cpu_convert(wide + inner, CPU_F32, updates + places[i].order * inner, type, inner);
        run(wide, 1, wide + inner, 1, (int64_t)inner);
    }
    cpu_convert(narrow, type, wide, CPU_F32, inner);
    copy_strided(out, node->strides, narrow, packed, slice, node->ndim, sizeof *narrow);
}

static bool scatter_grouped(Node *node, Node *updates, Place *places, size_t count,
                            const int *slice, size_t inner, Error *err) {
    Node *rows = ready_row_contiguous(updates, err);
    float *wide = rows ? base_try_alloc(2 * inner, sizeof *wide, err) : NULL;
    uint16_t *narrow = wide ? base_try_alloc(inner, sizeof *narrow, err) : NULL;
    if (narrow) {
        qsort(places, count, sizeof *places, place_order);
        for (size_t first = 0, next; first < count; first = next) {
            for (next = first + 1; next < count && places[next].start == places[first].start;)
                next++;
            scatter_wide(node, node_data(rows), places + first, next - first, slice, inner, wide,
                         narrow);
        }
    }
    const bool ok = narrow != NULL;
    free(narrow);
    free(wide);
    node_release(rows);
    return ok;
}

/* One slice, laid out as the two operands of `slice`, at places of both nodes. */
static void combine_slice(const Walk *slice, CombineRun run, const Node *out, int64_t to,
                          const Node *in, int64_t from) {
    if (slice->rows == 1) { /* no need for a walk of its own */
        run(ops_at(out, to), slice->step[0], ops_at(in, from), slice->step[1], slice->count);
        return;
    }
    Walk inside = *slice;
    for (size_t line = 0; line < inside.rows; line++, walk_next(&inside))
        run(ops_at(out, to + inside.at[0]), inside.step[0], ops_at(in, from + inside.at[1]),
            inside.step[1], inside.count);
}

static bool scatter_eval(Node *node, Error *err) {
    const ScatterParam *param = node->param;
    Node *updates = node->inputs[node->n_inputs - 1];
    if (!combine_begin(node, err)) return false;
    if (updates->size == 0) return true;
    const int *slice = updates->shape + param->index_ndim;
    size_t inner = 1;
    for (int i = 0; i < node->ndim; i++) inner *= (size_t)slice[i];
    const size_t count = updates->size / inner;
    Place *places = base_try_alloc(count, sizeof *places, err);
    bool ok = places && scatter_places(node, places, count, err);
    const bool sums = param->kind == COMBINE_ADD || param->kind == COMBINE_MULTIPLY;
    if (ok && sums && ops_is_half(node->dtype)) {
        ok = scatter_grouped(node, updates, places, count, slice, inner, err);
    } else if (ok) {
        const CombineRun run = combine_run(param->kind, node->dtype);
        Walk outer, whole;
        int64_t starts[NODE_DIMS];
        strides_row_major(updates->shape, param->index_ndim, starts);
        walk_init(&outer, updates->shape, param->index_ndim, 2,
                  (const int64_t *[]){starts, updates->strides});
        walk_init(&whole, slice, node->ndim, 2,
                  (const int64_t *[]){node->strides, updates->strides + param->index_ndim});
        size_t place = 0;
        for (size_t row = 0; row < outer.rows; row++, walk_next(&outer)) {
            for (int64_t i = 0; i < outer.count; i++, place++) {
                const int64_t from = outer.at[1] + i * outer.step[1], to = places[place].start;
                combine_slice(&whole, run, node, to, updates, from);
            }
        }
    }
    free(places);
    return ok;
}

static bool scatter_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op scatter_op = {"scatter", scatter_eval, scatter_vjp};
const Op scatter_add_op = {"scatter", scatter_eval, scatter_vjp};

/* Updates are cast to x's dtype; their shape is that of the indices, broadcast
 * together, and then a slice no larger than x. */
Node *op_scatter(Combine kind, Node *x, Node *const *indices, size_t count, Node *updates,
                 const int *axes, size_t n_axes) {
    if (!x || !updates) return NULL;
    if (count > x->ndim)
        return op_error(
            "[scatter] Too many index arrays. Got %zu index arrays for input with %d dimensions.",
            count, x->ndim);
    if (count != n_axes)
        return op_error("[scatter] Number of index arrays does not match number of axes.");
    ScatterParam param;
    memset(&param, 0, sizeof param);
    param.kind = kind;
    int fixed[NODE_DIMS], shape[NODE_DIMS];
    for (size_t i = 0; i < n_axes; i++)
        if (axes[i] < 0 || axes[i] >= x->ndim)
            return op_error("[scatter] Axes don't match array dimensions.");
    if (!axes_fix("scatter", axes, n_axes, x->ndim, fixed)) return NULL;
    Node *inputs[NODE_DIMS + 2] = {x};
    for (size_t i = 0; i < count; i++) {
        if (!indices[i] || !indices_ok("scatter", indices[i])) return NULL;
        if (indices[i]->dtype == MLX_BOOL)
            return op_error("[scatter] Boolean indices not supported.");
        param.axes[i] = (uint8_t)fixed[i];
        inputs[i + 1] = indices[i];
    }
    if (!shape_broadcast_nodes(indices, count, shape, &param.index_ndim)) return NULL;
    if (updates->ndim != x->ndim + param.index_ndim)
        return op_error("[scatter] Updates with %d dimensions does not match the sum of the array "
                        "(%d) and indices (%d) dimensions.",
                        updates->ndim, x->ndim, param.index_ndim);
    if (param.index_ndim &&
        memcmp(shape, updates->shape, (size_t)param.index_ndim * sizeof(int)) != 0)
        return op_error("[scatter] Update shape %s is not valid for broadcasted index shape %s.",
                        SHAPE(updates), shape_text(&(ShapeText){{0}}, shape, param.index_ndim));
    for (int i = 0; i < x->ndim; i++)
        if (updates->shape[i + param.index_ndim] > x->shape[i])
            return op_error(
                "[scatter] Updates with shape %s are too large for array with shape %s.",
                SHAPE(updates), SHAPE(x));
    Node *cast = op_astype(updates, x->dtype);
    inputs[count + 1] = cast;
    const Op *op = kind == COMBINE_ADD ? &scatter_add_op : &scatter_op;
    Node *result = cast ? node_new_param(op, x->dtype, x->shape, x->ndim, &param, sizeof param,
                                         inputs, (int)count + 2)
                        : NULL;
    node_release(cast);
    return result;
}

/* The slices of x where the updates of node went. */
static Node *scattered_part(const Node *node, Node *x) {
    const ScatterParam *param = node->param;
    const size_t count = node->n_inputs - 2;
    const Node *updates = node->inputs[count + 1];
    int axes[NODE_DIMS];
    for (size_t i = 0; i < count; i++) axes[i] = param->axes[i];
    return op_gather(x, node->inputs + 1, count, axes, count, updates->shape + param->index_ndim,
                     (size_t)node->ndim);
}

static bool scatter_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const ScatterParam *param = node->param;
    const size_t last = node->n_inputs - 1;
    Node *x = node->inputs[0], *updates = node->inputs[last];
    Temps t = {0};
    bool ok = true;
    if (param->kind == COMBINE_MULTIPLY) {
        op_error("[scatter] VJP not implemented for scatter_prod.");
        return false;
    }
    for (size_t i = 1; i < last; i++) {
        if (!wanted[i]) continue;
        op_error("[scatter] Cannot calculate VJP with respect to indices.");
        return false;
    }
    int axes[NODE_DIMS];
    for (size_t i = 0; i + 1 < last; i++) axes[i] = param->axes[i];
    if (wanted[0]) {
        switch (param->kind) {
        case COMBINE_SET: {
            Node *zeros = temp(&t, op_zeros_like(updates));
            grads[0] =
                op_scatter(COMBINE_SET, g, node->inputs + 1, last - 1, zeros, axes, last - 1);
            break;
        }
        case COMBINE_ADD: grads[0] = node_retain(g); break;
        default: grads[0] = op_keep(temp(&t, op_binary(BINARY_EQUAL, node, x)), g); break;
        }
        ok = grads[0] != NULL;
    }
    if (wanted[last] && ok) {
        Node *part = scattered_part(node, g);
        if (param->kind == COMBINE_SET || param->kind == COMBINE_ADD) {
            grads[last] = part;
        } else {
            Node *result = temp(&t, scattered_part(node, node));
            temp(&t, part);
            grads[last] = op_keep(temp(&t, op_binary(BINARY_EQUAL, result, updates)), part);
        }
        ok = grads[last] != NULL;
    }
    return temps_end(&t, ok);
}

/* ---- masked_scatter -------------------------------------------------------------- */

/* inputs: x, mask over its leading axes, rows [n, the other axes of x]. Each
 * place where the mask is true takes the next row. */
static bool masked_scatter_eval(Node *node, Error *err) {
    const Node *mask = node->inputs[1], *rows = node->inputs[2];
    if (!combine_begin(node, err)) return false;
    Walk outer, whole;
    const int n_outer = mask->ndim, n_inner = node->ndim - n_outer;
    walk_init(&outer, mask->shape, n_outer, 2, (const int64_t *[]){node->strides, mask->strides});
    walk_init(&whole, node->shape + n_outer, n_inner, 2,
              (const int64_t *[]){node->strides + n_outer, rows->strides + 1});
    const CombineRun run = combine_run(COMBINE_SET, node->dtype);
    int64_t used = 0;
    for (size_t row = 0; row < outer.rows; row++, walk_next(&outer)) {
        for (int64_t i = 0; i < outer.count; i++) {
            if (!*ops_at(mask, outer.at[1] + i * outer.step[1])) continue;
            if (used == rows->shape[0])
                return base_fail(err, ERROR_INPUT,
                                 "[masked_scatter] The %lld rows of the source are not enough for "
                                 "the mask.",
                                 (long long)used);
            if (whole.rows)
                combine_slice(&whole, run, node, outer.at[0] + i * outer.step[0], rows,
                              used * rows->strides[0]);
            used++;
        }
    }
    return true;
}

/* rows: the values under the mask go back to their row; the index of a place
 * that takes none is that of some row, and adds zero to it. */
static bool masked_scatter_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *mask = node->inputs[1], *rows = node->inputs[2];
    Temps t = {0};
    bool ok = true;
    int axes[NODE_DIMS];
    for (int i = mask->ndim; i < node->ndim; i++) axes[i - mask->ndim] = i;
    Node *whole = temp(&t, op_expand_dims(mask, axes, (size_t)(node->ndim - mask->ndim)));
    if (wanted[0]) ok = (grads[0] = op_drop(whole, g)) != NULL;
    if (wanted[2] && ok && rows->shape[0]) {
        Node *number = temp(&t, op_astype(temp(&t, op_reshape(mask, (int[]){-1}, 1)), MLX_INT32));
        Node *before = temp(&t, op_cumsum(number, 0, false, false));
        Node *index =
            temp(&t, op_binary_scalar(BINARY_MINIMUM, before, (double)rows->shape[0] - 1));
        int shape[NODE_DIMS];
        memcpy(shape + 1, rows->shape, sizeof shape - sizeof shape[0]);
        shape[0] = (int)mask->size;
        shape[1] = 1;
        Node *updates =
            temp(&t, op_reshape(temp(&t, op_keep(whole, g)), shape, (size_t)rows->ndim + 1));
        Node *zeros = temp(&t, op_zeros_like(rows));
        grads[2] = op_scatter(COMBINE_ADD, zeros, &index, 1, updates, (int[]){0}, 1);
        ok = grads[2] != NULL;
    }
    return temps_end(&t, ok);
}
static const Op masked_scatter_op = {"masked_scatter", masked_scatter_eval, masked_scatter_vjp};

static Node *op_masked_scatter(Node *x, Node *mask, Node *values) {
    if (!x || !mask || !values) return NULL;
    if (mask->dtype != MLX_BOOL) return op_error("[masked_scatter] The mask has to be boolean.");
    if (mask->ndim > x->ndim)
        return op_error("[masked_scatter] The mask cannot have more dimensions than the target.");
    const int inner = x->ndim - mask->ndim;
    if (values->ndim > inner + 1)
        return op_error("[masked_scatter] Value array shape must be broadcastable with the last %d "
                        "dimensions of the input.",
                        inner);
    if (inner + 1 > NODE_DIMS) return op_error("[masked_scatter] Too many axes.");
    if (mask->ndim && memcmp(mask->shape, x->shape, (size_t)mask->ndim * sizeof(int)) != 0)
        return op_error("[masked_scatter] The boolean mask should have the same shape as the "
                        "beginning of the indexed array but the mask has shape %s and the array "
                        "has shape %s.",
                        SHAPE(mask), SHAPE(x));
    /* One row per true place: as given, or the same row for all. */
    int shape[NODE_DIMS];
    shape[0] = values->ndim == inner + 1 ? values->shape[0] : (int)mask->size;
    for (int i = 0; i < inner; i++) shape[i + 1] = x->shape[mask->ndim + i];
    Node *cast = op_astype(values, x->dtype);
    Node *rows = op_broadcast_to(cast, shape, inner + 1);
    Node *result =
        rows ? node_new(&masked_scatter_op, x->dtype, x->shape, x->ndim, NODES(x, mask, rows))
             : NULL;
    node_release(cast);
    node_release(rows);
    return result;
}

/* ---- the public functions ---------------------------------------------------------- */

#define SCATTER_API(name, kind)                                                                 \
    int mlx_##name(mlx_array *res, const mlx_array a, const mlx_vector_array indices,           \
                   const mlx_array updates, const int *axes, size_t axes_num,                   \
                   const mlx_stream s) {                                                        \
        Node *const *nodes;                                                                     \
        size_t count;                                                                           \
        if (!stream_ok(s) || !vector_nodes(indices, &nodes, &count)) return 1;                  \
        return op_finish(                                                                       \
            res, op_scatter(kind, node_of(a), nodes, count, node_of(updates), axes, axes_num)); \
    }                                                                                           \
    int mlx_##name##_single(mlx_array *res, const mlx_array a, const mlx_array indices,         \
                            const mlx_array updates, int axis, const mlx_stream s) {            \
        if (!stream_ok(s)) return 1;                                                            \
        Node *const index = node_of(indices);                                                   \
        if (!index) return 1;                                                                   \
        return op_finish(res,                                                                   \
                         op_scatter(kind, node_of(a), &index, 1, node_of(updates), &axis, 1));  \
    }
SCATTER_API(scatter, COMBINE_SET)
SCATTER_API(scatter_add, COMBINE_ADD)
SCATTER_API(scatter_max, COMBINE_MAXIMUM)
SCATTER_API(scatter_min, COMBINE_MINIMUM)
SCATTER_API(scatter_prod, COMBINE_MULTIPLY)

int mlx_masked_scatter(mlx_array *res, const mlx_array a, const mlx_array mask, const mlx_array src,
                       const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_masked_scatter(node_of(a), node_of(mask), node_of(src)));
}
