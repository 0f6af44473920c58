/* gather_mm: products of matrices picked by index, as a mixture of experts
 * takes them. Items with one right matrix run together as one taller product:
 * in place when their rows follow each other, else through gathered rows.
 *
 * The gradient is the same product summed over items with one target,
 *     out[t] = sum over i with target[i] = t of a[lhs[i]] @ b[rhs[i]],
 * an operation of its own whose gradients are such sums again. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL_M = 16, SMALL_K = 16, CHUNK = 32 };

typedef struct Gather {
    const Node *a, *b;
    size_t count, m, n, k;
    int64_t *a_at, *b_at; /* [count] item offsets of the matrices */
    uint32_t *right;      /* [count] which b */
    uint32_t *target;     /* [count] which result, of a sum */
    uint32_t *order;      /* [count] items by right (or by target) */
    int64_t a_row, a_col, b_row, b_col;
} Gather;

/* ---- which matrices ---------------------------------------------------------- */

static size_t matrix_count(const Node *x) {
    size_t count = 1;
    for (int i = 0; i < x->ndim - 2; i++) count *= (size_t)x->shape[i];
    return count;
}

static int64_t matrix_offset(const Node *x, size_t index) {
    int64_t at = 0;
    for (int i = x->ndim - 3; i >= 0; i--) {
        at += (int64_t)(index % (size_t)x->shape[i]) * x->strides[i];
        index /= (size_t)x->shape[i];
    }
    return at;
}

/* The indices of a list, each below limit; NULL and *err otherwise. */
static uint32_t *read_indices(const Node *indices, size_t limit, Error *err) {
    uint32_t *out = base_try_alloc(indices->size + 1, sizeof *out, err);
    if (!out) return NULL;
    node_read(indices, out);
    for (size_t i = 0; i < indices->size; i++) {
        if (out[i] < limit) continue;
        base_fail(err, ERROR_INPUT, "[gather_mm] Index %u is out of range for %zu matrices.",
                  out[i], limit);
        free(out);
        return NULL;
    }
    return out;
}

static int64_t *offsets(const Node *x, const uint32_t *indices, size_t count, Error *err) {
    int64_t *out = base_try_alloc(count + 1, sizeof *out, err);
    for (size_t i = 0; out && i < count; i++) out[i] = matrix_offset(x, indices[i]);
    return out;
}

/* Items in the order of keys below limit, equal keys in their old order. */
static bool sort_items(Gather *gather, const uint32_t *keys, size_t limit, Error *err) {
    size_t *starts = base_try_alloc(limit + 1, sizeof *starts, err);
    gather->order = base_try_alloc(gather->count + 1, sizeof *gather->order, err);
    if (!starts || !gather->order) {
        free(starts);
        return false;
    }
    memset(starts, 0, (limit + 1) * sizeof *starts);
    for (size_t i = 0; i < gather->count; i++) starts[keys[i] + 1]++;
    for (size_t i = 0; i < limit; i++) starts[i + 1] += starts[i];
    for (size_t i = 0; i < gather->count; i++) gather->order[starts[keys[i]]++] = (uint32_t)i;
    free(starts);
    return true;
}

static void gather_free(Gather *gather) {
    free(gather->a_at);
    free(gather->b_at);
    free(gather->right);
    free(gather->target);
    free(gather->order);
}

static bool gather_read(Gather *gather, const Node *node, Error *err) {
    const Node *a = gather->a = node->inputs[0], *b = gather->b = node->inputs[1];
    gather->count = node->inputs[2]->size;
    gather->m = (size_t)a->shape[a->ndim - 2];
    gather->k = (size_t)a->shape[a->ndim - 1];
    gather->n = (size_t)b->shape[b->ndim - 1];
    gather->a_row = a->strides[a->ndim - 2];
    gather->a_col = a->strides[a->ndim - 1];
    gather->b_row = b->strides[b->ndim - 2];
    gather->b_col = b->strides[b->ndim - 1];
    uint32_t *left = read_indices(node->inputs[2], matrix_count(a), err);
    if (!left) return false;
    gather->a_at = offsets(a, left, gather->count, err);
    free(left);
    gather->right = read_indices(node->inputs[3], matrix_count(b), err);
    if (!gather->a_at || !gather->right) return false;
    gather->b_at = offsets(b, gather->right, gather->count, err);
    return gather->b_at != NULL;
}

/* ---- products --------------------------------------------------------------- */

static CpuGemm gather_gemm(const Gather *gather, CpuType type, void *out) {
    CpuGemm product = {.m = gather->m,
                       .n = gather->n,
                       .k = gather->k,
                       .a_row = gather->a_row,
                       .a_col = gather->a_col,
                       .b_row = gather->b_row,
                       .b_col = gather->b_col,
                       .c = out,
                       .c_type = type,
                       .c_row = (ptrdiff_t)gather->n,
                       .alpha = 1};
    ops_cpu_type(gather->a->dtype, &product.a_type);
    ops_cpu_type(gather->b->dtype, &product.b_type);
    return product;
}

/* Do items order[0..length) lie in at with one step? A chain of `unit` lines
 * that are `stride` apart must go on with that stride; a single line may have
 * any. *step is the stride of the lines of all. */
static bool evenly_spaced(const int64_t *at, const uint32_t *order, size_t length, size_t unit,
                          int64_t stride, int64_t *step) {
    *step = stride;
    if (length < 2) return true;
    const int64_t first = at[order[1]] - at[order[0]];
    if (unit != 1 && first != (int64_t)unit * stride) return false;
    for (size_t i = 2; i < length; i++)
        if (at[order[i]] - at[order[i - 1]] != first) return false;
    if (unit == 1) *step = first;
    return true;
}

static bool consecutive(const uint32_t *order, size_t length) {
    return length == 0 || order[length - 1] - order[0] == length - 1;
}

/* The m rows of each item of a, gathered to rows [length * m, k]. */
static void take_rows(const Gather *gather, const uint32_t *order, size_t length, uint8_t *rows) {
    const int shape[] = {(int)gather->m, (int)gather->k};
    const int64_t to[] = {shape[1], 1}, from[] = {gather->a_row, gather->a_col};
    const size_t bytes = gather->m * gather->k * gather->a->itemsize;
    for (size_t i = 0; i < length; i++)
        copy_strided(rows + i * bytes, to, ops_at(gather->a, gather->a_at[order[i]]), from, shape,
                     2, gather->a->itemsize);
}

/* One group through gathered rows and a scattered result. */
static bool multiply_gathered(const Gather *gather, const uint32_t *order, size_t length,
                              CpuType type, uint8_t *out, Error *err) {
    const size_t item = gather->m * gather->n * cpu_type_size(type);
    uint8_t *rows = base_try_alloc(length * gather->m, gather->k * gather->a->itemsize + 1, err);
    uint8_t *result = base_try_alloc(length, item, err);
    if (rows && result) {
        take_rows(gather, order, length, rows);
        CpuGemm product = gather_gemm(gather, type, result);
        product.m = length * gather->m;
        product.a = rows;
        product.a_row = (ptrdiff_t)gather->k;
        product.a_col = 1;
        product.b = ops_at(gather->b, gather->b_at[order[0]]);
        cpu_gemm(&product);
        for (size_t i = 0; i < length; i++) memcpy(out + order[i] * item, result + i * item, item);
    }
    const bool good = rows && result;
    free(rows);
    free(result);
    return good;
}

/* out: [count, m, n], every product. */
static bool multiply_items(Gather *gather, CpuType type, uint8_t *out, Error *err) {
    if (!sort_items(gather, gather->right, matrix_count(gather->b), err)) return false;
    const size_t item = gather->m * gather->n * cpu_type_size(type);
    CpuGemm chunk[CHUNK];
    size_t held = 0, length;
    for (size_t i = 0; i < gather->count; i += length) {
        const uint32_t *order = gather->order + i;
        for (length = 1; i + length < gather->count; length++)
            if (gather->right[order[length]] != gather->right[order[0]]) break;
        int64_t step;
        const bool whole =
            consecutive(order, length) &&
            evenly_spaced(gather->a_at, order, length, gather->m, gather->a_row, &step);
        if (!whole && gather->m <= SMALL_M) {
            if (!multiply_gathered(gather, order, length, type, out, err)) return false;
            continue;
        }
        for (size_t j = 0; j < length; j += whole ? length : 1) {
            CpuGemm *next = &chunk[held++];
            *next = gather_gemm(gather, type, out + order[j] * item);
            next->a = ops_at(gather->a, gather->a_at[order[j]]);
            next->b = ops_at(gather->b, gather->b_at[order[j]]);
            if (whole) {
                next->m *= length;
                next->a_row = (ptrdiff_t)step;
            }
            if (held == CHUNK) {
                cpu_gemm_batch(chunk, held);
                held = 0;
            }
        }
    }
    cpu_gemm_batch(chunk, held);
    return true;
}

/* float64: each product into result [.., m, n] number target[i], or i. */
static void multiply_f64(const Gather *gather, double *out) {
    for (size_t i = 0; i < gather->count; i++) {
        double *result = out + (gather->target ? gather->target[i] : i) * gather->m * gather->n;
        const double *a = (const double *)node_data(gather->a) + gather->a_at[i];
        const double *b = (const double *)node_data(gather->b) + gather->b_at[i];
        for (size_t r = 0; r < gather->m; r++)
            for (size_t p = 0; p < gather->k; p++) {
                const double factor = a[(int64_t)r * gather->a_row + (int64_t)p * gather->a_col];
                const double *line = b + (int64_t)p * gather->b_row;
                for (size_t c = 0; c < gather->n; c++)
                    result[r * gather->n + c] += factor * line[(int64_t)c * gather->b_col];
            }
    }
}

static bool gather_mm_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    Gather gather = {0};
    bool good = gather_read(&gather, node, err);
    if (good && node->dtype == MLX_FLOAT64) {
        memset(node_data(node), 0, node_nbytes(node));
        multiply_f64(&gather, node_data(node));
    } else if (good && node->size) {
        CpuType type = CPU_F32;
        ops_cpu_type(node->dtype, &type);
        good = multiply_items(&gather, type, node_data(node), err);
    }
    gather_free(&gather);
    return good;
}

/* ---- sums of products --------------------------------------------------------- */

/* Sum over a short k: the k of a group's items side by side are one product's
 * depth, result [m, n] = [m, length * k] @ [length * k, n]. */
static bool sum_group(const Gather *gather, const uint32_t *order, size_t length, CpuType type,
                      void *out, Error *err) {
    CpuGemm product = gather_gemm(gather, type, out);
    product.k = length * gather->k;
    uint8_t *left = NULL, *right = NULL;
    int64_t step;
    if (evenly_spaced(gather->a_at, order, length, gather->k, gather->a_col, &step)) {
        product.a = ops_at(gather->a, gather->a_at[order[0]]);
        product.a_col = (ptrdiff_t)step;
    } else {
        left = base_try_alloc(product.k * gather->m + 1, gather->a->itemsize, err);
        if (!left) return false;
        const int shape[] = {(int)gather->k, (int)gather->m};
        const int64_t to[] = {shape[1], 1}, from[] = {gather->a_col, gather->a_row};
        for (size_t i = 0; i < length; i++)
            copy_strided(left + i * gather->k * gather->m * gather->a->itemsize, to,
                         ops_at(gather->a, gather->a_at[order[i]]), from, shape, 2,
                         gather->a->itemsize);
        product.a = left;
        product.a_row = 1;
        product.a_col = (ptrdiff_t)gather->m;
    }
    if (evenly_spaced(gather->b_at, order, length, gather->k, gather->b_row, &step)) {
        product.b = ops_at(gather->b, gather->b_at[order[0]]);
        product.b_row = (ptrdiff_t)step;
    } else {
        right = base_try_alloc(product.k * gather->n + 1, gather->b->itemsize, err);
        if (!right) {
            free(left);
            return false;
        }
        const int shape[] = {(int)gather->k, (int)gather->n};
        const int64_t to[] = {shape[1], 1}, from[] = {gather->b_row, gather->b_col};
        for (size_t i = 0; i < length; i++)
            copy_strided(right + i * gather->k * gather->n * gather->b->itemsize, to,
                         ops_at(gather->b, gather->b_at[order[i]]), from, shape, 2,
                         gather->b->itemsize);
        product.b = right;
        product.b_row = (ptrdiff_t)gather->n;
        product.b_col = 1;
    }
    cpu_gemm(&product);
    free(left);
    free(right);
    return true;
}

static bool sum_by_depth(Gather *gather, const Node *node, CpuType type, Error *err) {
    if (!sort_items(gather, gather->target, (size_t)node->shape[0], err)) return false;
    const size_t item = gather->m * gather->n * cpu_type_size(type);
    memset(node_data(node), 0, node_nbytes(node));
    size_t length;
    for (size_t i = 0; i < gather->count; i += length) {
        const uint32_t *order = gather->order + i;
        for (length = 1; i + length < gather->count; length++)
            if (gather->target[order[length]] != gather->target[order[0]]) break;
        uint8_t *out = (uint8_t *)node_data(node) + gather->target[order[0]] * item;
        if (!sum_group(gather, order, length, type, out, err)) return false;
    }
    return true;
}

/* Every product in float32, then their sums. */
static bool sum_by_items(Gather *gather, const Node *node, CpuType type, Error *err) {
    const size_t item = gather->m * gather->n;
    float *products = base_try_alloc(gather->count + 1, item * sizeof(float), err);
    float *sums = base_try_alloc(node->size, sizeof(float), err);
    bool good = products && sums;
    if (good) good = multiply_items(gather, CPU_F32, (uint8_t *)products, err);
    if (good) {
        memset(sums, 0, node->size * sizeof(float));
        for (size_t i = 0; i < gather->count; i++) {
            float *sum = sums + gather->target[i] * item;
            cpu_binary(CPU_ADD, CPU_F32, sum, sum, 1, products + i * item, 1, item);
        }
        cpu_convert(node_data(node), type, sums, CPU_F32, node->size);
    }
    free(products);
    free(sums);
    return good;
}

static bool gather_sum_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    Gather gather = {0};
    bool good = gather_read(&gather, node, err);
    if (good) gather.target = read_indices(node->inputs[4], (size_t)node->shape[0], err);
    good = good && gather.target;
    if (good && node->dtype == MLX_FLOAT64) {
        memset(node_data(node), 0, node_nbytes(node));
        multiply_f64(&gather, node_data(node));
    } else if (good && node->size) {
        CpuType type = CPU_F32;
        ops_cpu_type(node->dtype, &type);
        good = gather.k <= SMALL_K ? sum_by_depth(&gather, node, type, err)
                                   : sum_by_items(&gather, node, type, err);
    }
    gather_free(&gather);
    return good;
}

/* ---- gradients ------------------------------------------------------------------- */

static bool gather_sum_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op gather_sum_op = {"gather_mm_sum", gather_sum_eval, gather_sum_vjp};

Node *op_gather_sum(Node *a, Node *b, Node *lhs, Node *rhs, Node *target, const Node *like) {
    if (!a || !b) return NULL;
    const int shape[] = {(int)matrix_count(like), a->shape[a->ndim - 2], b->shape[b->ndim - 1]};
    Node *sum = node_new(&gather_sum_op, dtype_promote(a->dtype, b->dtype), shape, 3,
                         NODES(a, b, lhs, rhs, target));
    Node *shaped = op_reshape(sum, like->shape, like->ndim);
    Node *result = shaped ? op_astype(shaped, like->dtype) : NULL;
    node_release(sum);
    node_release(shaped);
    return result;
}

/* Gradients of products whose result `i` or target[i] has the cotangent
 * number from[i] of g. */
static bool gather_grads(Node *node, Node *g, Node *from, const bool *wanted, Node **grads) {
    Node *a = node->inputs[0], *b = node->inputs[1], *lhs = node->inputs[2];
    Node *rhs = node->inputs[3];
    if (wanted[0]) {
        Node *turned = op_swapaxes(b, -1, -2);
        grads[0] = op_gather_sum(g, turned, from, rhs, lhs, a);
        node_release(turned);
        if (!grads[0]) return false;
    }
    if (wanted[1]) {
        Node *turned = op_swapaxes(a, -1, -2);
        grads[1] = op_gather_sum(turned, g, lhs, from, rhs, b);
        node_release(turned);
        if (!grads[1]) return false;
    }
    return true;
}

static bool gather_sum_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    return gather_grads(node, g, node->inputs[4], wanted, grads);
}

/* 0, 1, 2, ... for the matrices of x, in the shape of its batch axes. */
static Node *every_matrix(const Node *x) {
    const size_t count = matrix_count(x);
    if (count > INT32_MAX) return op_error("[gather_mm] Too many matrices.");
    Node *line = op_arange(0, (double)count, 1, MLX_UINT32);
    Node *result = op_reshape(line, x->shape, (size_t)x->ndim - 2);
    node_release(line);
    return result;
}

static bool gather_mm_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *from = every_matrix(node);
    const bool good = from && gather_grads(node, g, from, wanted, grads);
    node_release(from);
    return good;
}
static const Op gather_mm_op = {"gather_mm", gather_mm_eval, gather_mm_vjp};

/* ---- the operation --------------------------------------------------------------- */

static Node *indices_or_all(Node *indices, const Node *x) {
    if (!indices) return every_matrix(x);
    const char kind = dtype_info[indices->dtype].kind;
    if (kind != 'u' && kind != 'i')
        return op_error("[gather_mm] Got indices with invalid dtype. Indices must be integral.");
    return op_astype(indices, MLX_UINT32);
}

/* Operands of at least two axes. */
static Node *gather_node(Node *a, Node *b, Node *lhs_indices, Node *rhs_indices, mlx_dtype dtype) {
    Node *lhs = indices_or_all(lhs_indices, a);
    Node *rhs = lhs ? indices_or_all(rhs_indices, b) : NULL;
    Node *result = NULL;
    int shape[NODE_DIMS + 2], ndim;
    if (lhs && rhs && shape_broadcast_nodes((Node *const[]){lhs, rhs}, 2, shape, &ndim)) {
        Node *left = op_broadcast_to(lhs, shape, ndim), *right = op_broadcast_to(rhs, shape, ndim);
        CpuType type = CPU_F32;
        const bool mixed =
            dtype != MLX_FLOAT64 && ops_cpu_type(a->dtype, &type) && ops_cpu_type(b->dtype, &type);
        Node *x = mixed ? node_retain(a) : op_astype(a, dtype);
        Node *y = mixed ? node_retain(b) : op_astype(b, dtype);
        shape[ndim] = a->shape[a->ndim - 2];
        shape[ndim + 1] = b->shape[b->ndim - 1];
        result = node_new(&gather_mm_op, dtype, shape, ndim + 2, NODES(x, y, left, right));
        node_release(left);
        node_release(right);
        node_release(x);
        node_release(y);
    }
    node_release(lhs);
    node_release(rhs);
    return result;
}

Node *op_gather_mm(Node *a, Node *b, Node *lhs_indices, Node *rhs_indices) {
    if (!a || !b) return NULL;
    if (!lhs_indices && !rhs_indices) return op_matmul(a, b);
    if (a->ndim == 0 || b->ndim == 0)
        return op_error("[gather_mm] Got 0 dimension input. Inputs must have at least one "
                        "dimension.");
    const int front = 0, back = 1;
    Node *left = a->ndim == 1 ? op_expand_dims(a, &front, 1) : node_retain(a);
    Node *right = b->ndim == 1 ? op_expand_dims(b, &back, 1) : node_retain(b);
    const mlx_dtype dtype = dtype_promote(a->dtype, b->dtype);
    Node *result = NULL;
    if (!left || !right)
        result = NULL;
    else if (left->shape[left->ndim - 1] != right->shape[right->ndim - 2])
        op_error("[gather_mm] Last dimension of first input with shape %s must match second to "
                 "last dimension of second input with shape %s.",
                 SHAPE(left), SHAPE(right));
    else if (dtype_info[dtype].kind != 'f')
        op_error("[gather_mm] Only real floating point types are supported but %s and %s were "
                 "provided which results in %s, which is not a real floating point type.",
                 dtype_name(a->dtype), dtype_name(b->dtype), dtype_name(dtype));
    else
        result = gather_node(left, right, lhs_indices, rhs_indices, dtype);
    node_release(left);
    node_release(right);
    if (result && (a->ndim == 1 || b->ndim == 1)) {
        int axes[2], n = 0;
        if (a->ndim == 1) axes[n++] = result->ndim - 2;
        if (b->ndim == 1) axes[n++] = result->ndim - 1;
        Node *squeezed = op_squeeze(result, axes, (size_t)n);
        node_release(result);
        return squeezed;
    }
    return result;
}

/* The order of the indices is looked at anyway; that they are sorted need not
 * be promised. */
int mlx_gather_mm(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_array lhs_indices,
                  const mlx_array rhs_indices, bool sorted_indices, const mlx_stream s) {
    (void)sorted_indices;
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_gather_mm(node_of(a), node_of(b), node_of_optional(lhs_indices),
                                       node_of_optional(rhs_indices)));
}
