/* Products with parts left out: block_masked_mm, whose masks switch or scale
 * whole blocks of the operands and of the result, and segmented_mm, which
 * multiplies slices of the inner axis one by one. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

/* ---- block_masked_mm ----------------------------------------------------------- */

/* The mask [..., rows, columns] of blocks as a mask of items, cut to x's matrix. */
static Node *spread_mask(Node *mask, const Node *x, int block) {
    int shape[NODE_DIMS], start[NODE_DIMS] = {0}, stop[NODE_DIMS], strides[NODE_DIMS];
    const int ndim = mask->ndim, rows = mask->shape[ndim - 2], columns = mask->shape[ndim - 1];
    memcpy(shape, mask->shape, sizeof shape);
    Node *wide = op_expand_dims(mask, (int[]){ndim - 1, ndim + 1}, 2);
    shape[ndim - 1] = block;
    shape[ndim] = columns;
    shape[ndim + 1] = block;
    Node *repeated = op_broadcast_to(wide, shape, ndim + 2);
    shape[ndim - 2] = stop[ndim - 2] = rows * block;
    shape[ndim - 1] = stop[ndim - 1] = columns * block;
    Node *items = op_reshape(repeated, shape, (size_t)ndim);
    for (int i = 0; i < ndim; i++) {
        stop[i] = i < ndim - 2 ? shape[i] : x->shape[x->ndim - ndim + i];
        strides[i] = 1;
    }
    for (int i = ndim - 2; i < ndim; i++) stop[i] = x->shape[x->ndim - ndim + i];
    Node *result = op_slice(items, start, stop, strides);
    node_release(wide);
    node_release(repeated);
    node_release(items);
    return result;
}

/* x with its blocks masked. Takes over x. batch: the product's leading axes. */
static Node *apply_mask(Node *x, Node *mask, int block, const int *batch, int n_batch) {
    if (!x || !mask) return x;
    int shape[NODE_DIMS];
    const int rows = (x->shape[x->ndim - 2] + block - 1) / block;
    const int columns = (x->shape[x->ndim - 1] + block - 1) / block;
    memcpy(shape, batch, (size_t)n_batch * sizeof *shape);
    shape[n_batch] = rows;
    shape[n_batch + 1] = columns;
    Node *checked = op_broadcast_to(mask, shape, n_batch + 2);
    node_release(checked);
    const int own = BASE_MAX(mask->ndim - 2, 0);
    for (int i = 0; i < own; i++) shape[i] = mask->shape[i];
    shape[own] = rows;
    shape[own + 1] = columns;
    Node *blocks = checked ? op_broadcast_to(mask, shape, own + 2) : NULL;
    Node *result = NULL;
    if (blocks && blocks->ndim + 2 > NODE_DIMS)
        op_error("[block_masked_mm] Too many dimensions.");
    else if (blocks) {
        Node *items = spread_mask(blocks, x, block);
        if (mask->dtype == MLX_BOOL) {
            Node *zero = node_scalar(0, (mlx_dtype)x->dtype);
            result = op_where(items, x, zero);
            node_release(zero);
        } else if (items) {
            Node *factors = op_astype(items, x->dtype);
            result = op_binary(BINARY_MULTIPLY, x, factors);
            node_release(factors);
        }
        node_release(items);
    }
    node_release(blocks);
    node_release(x);
    return result;
}

/* x, or a mask of it, as a matrix: a vector gets the axis it lacks. */
static Node *with_axis(Node *x, bool add, int axis) {
    return x && add ? op_expand_dims(x, &axis, 1) : node_retain(x);
}

static Node *block_masked(Node *a, Node *b, int block, Node *const *masks, mlx_dtype dtype) {
    int batch[NODE_DIMS], n_batch;
    if (!shape_broadcast(a->shape, a->ndim - 2, b->shape, b->ndim - 2, batch, &n_batch))
        return NULL;
    Node *left = apply_mask(op_astype(a, dtype), masks[1], block, batch, n_batch);
    Node *right = left ? apply_mask(op_astype(b, dtype), masks[2], block, batch, n_batch) : NULL;
    Node *result = apply_mask(op_matmul(left, right), masks[0], block, batch, n_batch);
    node_release(left);
    node_release(right);
    return result;
}

/* masks: of the result, of a, of b; NULL where absent. */
static Node *op_block_masked_mm(Node *a, Node *b, int block, Node *const *masks) {
    if (!a || !b) return NULL;
    if (!masks[0] && !masks[1] && !masks[2]) return op_matmul(a, b);
    if (block != 32 && block != 64)
        return op_error("[block_masked_mm] Only block_sizes 32, 64 are supported. Got block size "
                        "%d.",
                        block);
    if (a->ndim == 0 || b->ndim == 0)
        return op_error("[block_masked_mm] Got 0 dimension input. Inputs must have at least one "
                        "dimension.");
    const mlx_dtype dtype = dtype_promote(a->dtype, b->dtype);
    const bool flat_a = a->ndim == 1, flat_b = b->ndim == 1;
    if (a->shape[a->ndim - 1] != b->shape[flat_b ? 0 : b->ndim - 2])
        return op_error("[block_masked_mm] Last dimension of first input with shape %s must match "
                        "second to last dimension of second input with shape %s.",
                        SHAPE(a), SHAPE(b));
    if (dtype_info[dtype].kind != 'f')
        return op_error("[block_masked_mm] Only real floating point types are supported but %s "
                        "and %s were provided which results in %s, which is not a real floating "
                        "point type.",
                        dtype_name(a->dtype), dtype_name(b->dtype), dtype_name(dtype));
    Node *left = with_axis(a, flat_a, 0), *right = with_axis(b, flat_b, 1);
    Node *column = with_axis(masks[0], flat_b, -1);
    Node *full[] = {with_axis(column, flat_a, -2), with_axis(masks[1], flat_a, -2),
                    with_axis(masks[2], flat_b, -1)};
    bool good = left && right;
    for (int i = 0; i < 3; i++) good = good && (full[i] || !masks[i]);
    Node *result = good ? block_masked(left, right, block, full, dtype) : NULL;
    Node *const temporaries[] = {left, right, column, full[0], full[1], full[2]};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    if (result && (flat_a || flat_b)) {
        int axes[2], n = 0;
        if (flat_a) axes[n++] = result->ndim - 2;
        if (flat_b) axes[n++] = result->ndim - 1;
        Node *squeezed = op_squeeze(result, axes, (size_t)n);
        node_release(result);
        return squeezed;
    }
    return result;
}

/* ---- segmented_mm -------------------------------------------------------------- */

static void segment_f64(const Node *node, size_t index, size_t from, size_t to) {
    const Node *a = node->inputs[0], *b = node->inputs[1];
    const size_t m = (size_t)a->shape[0], n = (size_t)b->shape[1];
    double *out = (double *)node_data(node) + index * m * n;
    memset(out, 0, m * n * sizeof *out);
    for (size_t i = 0; i < m; i++)
        for (size_t k = from; k < to; k++) {
            const double factor = *(const double *)(void *)ops_at(
                a, (int64_t)i * a->strides[0] + (int64_t)k * a->strides[1]);
            const double *line = (const double *)(void *)ops_at(b, (int64_t)k * b->strides[0]);
            for (size_t j = 0; j < n; j++)
                out[i * n + j] += factor * line[(int64_t)j * b->strides[1]];
        }
}

static CpuGemm segment_product(const Node *node, size_t index, size_t from, size_t to) {
    const Node *a = node->inputs[0], *b = node->inputs[1];
    CpuGemm product = {.m = (size_t)a->shape[0],
                       .n = (size_t)b->shape[1],
                       .k = to - from,
                       .a = ops_at(a, (int64_t)from * a->strides[1]),
                       .a_row = (ptrdiff_t)a->strides[0],
                       .a_col = (ptrdiff_t)a->strides[1],
                       .b = ops_at(b, (int64_t)from * b->strides[0]),
                       .b_row = (ptrdiff_t)b->strides[0],
                       .b_col = (ptrdiff_t)b->strides[1],
                       .c_row = b->shape[1],
                       .alpha = 1};
    product.c = ops_at(node, (int64_t)(index * product.m * product.n));
    ops_cpu_type(a->dtype, &product.a_type);
    ops_cpu_type(b->dtype, &product.b_type);
    ops_cpu_type(node->dtype, &product.c_type);
    return product;
}

static bool segmented_mm_eval(Node *node, Error *err) {
    const Node *segments = node->inputs[2];
    const size_t depth = (size_t)node->inputs[0]->shape[1], count = segments->size / 2;
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    uint32_t *bounds = base_try_alloc(segments->size, sizeof *bounds, err);
    if (!bounds) return false;
    node_read(segments, bounds);
    bool good = true;
    for (size_t i = 0; good && i < count; i++) {
        const size_t from = bounds[2 * i], to = BASE_MAX(bounds[2 * i], bounds[2 * i + 1]);
        if (to > depth && to > from) {
            good = base_fail(err, ERROR_INPUT,
                             "[segmented_mm] Segment %zu to %zu is out of range "
                             "for an inner axis of %zu items.",
                             from, to, depth);
        } else if (node->dtype == MLX_FLOAT64) {
            segment_f64(node, i, from, to);
        } else {
            const CpuGemm product =
                segment_product(node, i, to > from ? from : 0, to > from ? to : 0);
            cpu_gemm(&product);
        }
    }
    free(bounds);
    return good;
}

/* [..., 1, K] true where the inner axis lies in the segment. */
static Node *segment_mask(Node *segments, int depth) {
    Node *line = op_arange(0, depth, 1, MLX_UINT32);
    const int axis = segments->ndim - 1, back = -1;
    Node *from = op_slice_axis(segments, axis, 0, 1), *to = op_slice_axis(segments, axis, 1, 2);
    Node *from_row = op_expand_dims(from, &back, 1), *to_row = op_expand_dims(to, &back, 1);
    Node *above = op_binary(BINARY_GREATER_EQUAL, line, from_row);
    Node *below = op_binary(BINARY_LESS, line, to_row);
    Node *mask = op_binary(BINARY_LOGICAL_AND, above, below);
    Node *const temporaries[] = {line, from, to, from_row, to_row, above, below};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return mask;
}

/* The product x @ y, of which only what the mask keeps counts, summed over the
 * segments. */
static Node *segment_grad(Node *x, Node *y, Node *mask, const Node *like) {
    int axes[NODE_DIMS];
    Node *product = op_matmul(x, y), *zero = node_scalar(0, MLX_FLOAT32);
    Node *typed = zero && product ? op_astype(zero, product->dtype) : NULL;
    Node *kept = op_where(mask, product, typed);
    const int n = kept ? kept->ndim - 2 : 0;
    for (int i = 0; i < n; i++) axes[i] = i;
    Node *sum = kept ? op_reduce(REDUCE_SUM, kept, axes, (size_t)n, false) : NULL;
    Node *result = sum ? op_astype(sum, like->dtype) : NULL;
    Node *const temporaries[] = {product, zero, typed, kept, sum};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return result;
}

static bool segmented_mm_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *a = node->inputs[0], *b = node->inputs[1];
    Node *mask = segment_mask(node->inputs[2], a->shape[1]);
    if (!mask) return false;
    bool good = true;
    if (wanted[0]) {
        Node *turned = op_transpose(b, NULL, 0);
        grads[0] = segment_grad(g, turned, mask, a);
        node_release(turned);
        good = grads[0] != NULL;
    }
    if (wanted[1] && good) {
        Node *turned = op_transpose(a, NULL, 0), *column = op_swapaxes(mask, -1, -2);
        grads[1] = segment_grad(turned, g, column, b);
        node_release(turned);
        node_release(column);
        good = grads[1] != NULL;
    }
    node_release(mask);
    return good;
}
static const Op segmented_mm_op = {"segmented_mm", segmented_mm_eval, segmented_mm_vjp};

static Node *op_segmented_mm(Node *a, Node *b, Node *segments) {
    if (!a || !b || !segments) return NULL;
    if (a->ndim != 2 || b->ndim != 2)
        return op_error("[segmented_mm] Batched matmul not supported");
    if (a->shape[1] != b->shape[0])
        return op_error("[segmented_mm] Last dimension of first input with shape %s must match "
                        "first dimension of second input with shape %s.",
                        SHAPE(a), SHAPE(b));
    if (segments->ndim < 1 || segments->shape[segments->ndim - 1] != 2)
        return op_error("[segmented_mm] The segments should have shape (..., 2) but %s was "
                        "provided.",
                        SHAPE(segments));
    const mlx_dtype dtype = dtype_promote(a->dtype, b->dtype);
    if (dtype_info[dtype].kind != 'f')
        return op_error("[segmented_mm] Only real floating point types are supported but %s and "
                        "%s were provided which results in %s, which is not a real floating "
                        "point type.",
                        dtype_name(a->dtype), dtype_name(b->dtype), dtype_name(dtype));
    const char kind = dtype_info[segments->dtype].kind;
    if (kind != 'u' && kind != 'i')
        return op_error("[segmented_mm] Got segments with invalid dtype. Segments must be "
                        "integral.");
    int shape[NODE_DIMS + 1];
    memcpy(shape, segments->shape, sizeof segments->shape);
    shape[segments->ndim - 1] = a->shape[0];
    shape[segments->ndim] = b->shape[1];
    Node *x = op_astype(a, dtype), *y = op_astype(b, dtype);
    Node *bounds = op_astype(segments, MLX_UINT32);
    Node *result =
        node_new(&segmented_mm_op, dtype, shape, segments->ndim + 1, NODES(x, y, bounds));
    node_release(x);
    node_release(y);
    node_release(bounds);
    return result;
}

int mlx_block_masked_mm(mlx_array *res, const mlx_array a, const mlx_array b, int block_size,
                        const mlx_array mask_out, const mlx_array mask_lhs,
                        const mlx_array mask_rhs, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *const masks[] = {node_of_optional(mask_out), node_of_optional(mask_lhs),
                           node_of_optional(mask_rhs)};
    return op_finish(res, op_block_masked_mm(node_of(a), node_of(b), block_size, masks));
}

int mlx_segmented_mm(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_array segments,
                     const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_segmented_mm(node_of(a), node_of(b), node_of(segments)));
}
