/* gather_qmm: products of matrices of x with packed matrices, both picked by
 * index, as a mixture of experts takes them.
 *
 * Items are grouped by packed matrix, whatever their order: its weights are
 * then read once for all rows that want them. Rows that lie one after the other
 * already, because the indices came sorted, stay where they are. */
#include "engine/ops/quant.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct GatherParam {
    QuantParam quant;
    bool every; /* the left indices are 0, 1, 2, ... */
} GatherParam;

typedef struct Gather {
    const ReadyQuant *ready;
    bool transpose;
    const Node *x;
    CpuType x_type, y_type;
    size_t count, m, x_item, y_item; /* items; rows and bytes of one */
    uint8_t *y;
    uint32_t *left, *right, *order; /* [count]; order: items by right */
} Gather;

static size_t matrices(const Node *x) {
    size_t count = 1;
    for (int i = 0; i < x->ndim - 2; i++) count *= (size_t)x->shape[i];
    return count;
}

/* A list of indices, each below limit; NULL and *err otherwise. */
static uint32_t *read_indices(const Node *indices, size_t limit, Error *err) {
    uint32_t *out = base_try_alloc(indices->size + 1, sizeof *out, err);
    if (!out) return NULL;
    node_read(indices, out);
    for (size_t i = 0; i < indices->size; i++) {
        if (out[i] < limit) continue;
        base_fail(err, ERROR_INPUT, "[gather_qmm] Index %u is out of range for %zu matrices.",
                  out[i], limit);
        free(out);
        return NULL;
    }
    return out;
}

/* Fills order: items by their packed matrix, equal ones in their old order. */
static bool sort_items(Gather *gather, size_t limit, Error *err) {
    size_t *starts = base_try_alloc(limit + 1, sizeof *starts, err);
    gather->order = base_try_alloc(gather->count + 1, sizeof *gather->order, err);
    const bool ok = starts && gather->order;
    if (ok) {
        memset(starts, 0, (limit + 1) * sizeof *starts);
        for (size_t i = 0; i < gather->count; i++) starts[gather->right[i] + 1]++;
        for (size_t i = 0; i < limit; i++) starts[i + 1] += starts[i];
        for (size_t i = 0; i < gather->count; i++)
            gather->order[starts[gather->right[i]]++] = (uint32_t)i;
    }
    free(starts);
    return ok;
}

/* Items order[0..length), all of one packed matrix. */
static bool multiply_group(const Gather *gather, const uint32_t *order, size_t length, Error *err) {
    const CpuQuant quant = quant_matrix(gather->ready, gather->right[order[0]]);
    const uint8_t *x = ops_at(gather->x, 0), *rows = x + gather->left[order[0]] * gather->x_item;
    uint8_t *y = gather->y + order[0] * gather->y_item, *taken = NULL, *result = NULL;
    bool in_order = true, out_order = true;
    for (size_t i = 1; i < length; i++) {
        in_order = in_order && gather->left[order[i]] == gather->left[order[i - 1]] + 1;
        out_order = out_order && order[i] == order[i - 1] + 1;
    }
    if (!in_order) {
        rows = taken = base_try_alloc(length, gather->x_item, err);
        if (!taken) return false;
        for (size_t i = 0; i < length; i++)
            memcpy(taken + i * gather->x_item, x + gather->left[order[i]] * gather->x_item,
                   gather->x_item);
    }
    if (!out_order) y = result = base_try_alloc(length, gather->y_item, err);
    if (y)
        quant_multiply(&quant, gather->transpose, length * gather->m, rows, gather->x_type, y,
                       gather->y_type);
    for (size_t i = 0; result && i < length; i++)
        memcpy(gather->y + order[i] * gather->y_item, result + i * gather->y_item, gather->y_item);
    free(taken);
    free(result);
    return y != NULL;
}

static bool multiply_items(Gather *gather, const Node *lhs, const Node *rhs, Error *err) {
    const size_t experts = matrices(gather->ready->w);
    gather->left = read_indices(lhs, matrices(gather->x), err);
    gather->right = gather->left ? read_indices(rhs, experts, err) : NULL;
    bool ok = gather->right && sort_items(gather, experts, err);
    for (size_t i = 0, length; ok && i < gather->count; i += length) {
        const uint32_t *order = gather->order + i;
        for (length = 1; i + length < gather->count; length++)
            if (gather->right[order[length]] != gather->right[order[0]]) break;
        ok = multiply_group(gather, order, length, err);
    }
    free(gather->left);
    free(gather->right);
    free(gather->order);
    return ok;
}

/* inputs: x, the packed arrays, both lists of indices in one shape. */
static bool gather_qmm_eval(Node *node, Error *err) {
    const QuantParam *param = &((const GatherParam *)node->param)->quant;
    Node *const *indices = node->inputs + 1 + quant_input_count(param);
    ReadyQuant ready;
    if (!quant_ready(&ready, node->inputs + 1, param, err)) return false;
    Node *x = ready_row_contiguous(node->inputs[0], err);
    Gather gather = {
        .ready = &ready, .transpose = param->transpose, .x = x, .count = indices[0]->size};
    bool ok = x && node_alloc(node, err) && ops_cpu_type(x->dtype, &gather.x_type) &&
              ops_cpu_type(node->dtype, &gather.y_type);
    if (ok && node->size) {
        gather.m = (size_t)x->shape[x->ndim - 2];
        gather.x_item = gather.m * (size_t)x->shape[x->ndim - 1] * x->itemsize;
        gather.y_item = gather.m * (size_t)node->shape[node->ndim - 1] * node->itemsize;
        gather.y = node_data(node);
        ok = multiply_items(&gather, indices[0], indices[1], err);
    }
    node_release(x);
    quant_release(&ready);
    return ok;
}
/* The indices as uint32, or 0, 1, 2, ... in the shape of x's batch axes. */
static Node *indices_or_all(Node *indices, const Node *x) {
    if (indices) {
        const char kind = dtype_info[indices->dtype].kind;
        if (kind != 'u' && kind != 'i')
            return op_error("[gather_qmm] Got indices with invalid dtype %s. Indices must be "
                            "integral.",
                            dtype_name(indices->dtype));
        return op_astype(indices, MLX_UINT32);
    }
    Node *line = op_arange(0, (double)matrices(x), 1, MLX_UINT32);
    Node *result = op_reshape(line, x->shape, (size_t)x->ndim - 2);
    node_release(line);
    return result;
}

/* ---- gradients ---------------------------------------------------------------------- */

/* out [T, M, K]: sums of the matrices of x over one target, in float32. */
static bool matrix_sum_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    const size_t item = node->shape[0] ? node->size / (size_t)node->shape[0] : 0;
    CpuType type = CPU_F32;
    Node *x = ready_row_contiguous(node->inputs[0], err);
    uint32_t *target = x ? read_indices(node->inputs[1], (size_t)node->shape[0], err) : NULL;
    float *sums = target ? base_try_alloc(node->size + 1, sizeof *sums, err) : NULL;
    float *wide = sums ? base_try_alloc(item + 1, sizeof *wide, err) : NULL;
    if (wide && ops_cpu_type(node->dtype, &type)) {
        memset(sums, 0, node->size * sizeof *sums);
        for (size_t i = 0; i < node->inputs[1]->size; i++) {
            float *sum = sums + target[i] * item;
            cpu_convert(wide, CPU_F32, ops_at(x, (int64_t)(i * item)), type, item);
            cpu_binary(CPU_ADD, CPU_F32, sum, sum, 1, wide, 1, item);
        }
        cpu_convert(node_data(node), type, sums, CPU_F32, node->size);
    }
    const bool ok = wide != NULL;
    node_release(x);
    free(target);
    free(sums);
    free(wide);
    return ok;
}

static bool matrix_sum_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    return !wanted[0] || (grads[0] = op_take(g, node->inputs[1], 0));
}
static const Op matrix_sum_op = {"matrix_sum", matrix_sum_eval, matrix_sum_vjp};

/* The sums in the shape of `like`, whose matrices the targets count. */
static Node *matrix_sum(Node *x, Node *target, const Node *like) {
    const int shape[] = {(int)matrices(like), like->shape[like->ndim - 2],
                         like->shape[like->ndim - 1]};
    Node *sum = x ? node_new(&matrix_sum_op, x->dtype, shape, 3, NODES(x, target)) : NULL;
    Node *result = op_reshape(sum, like->shape, like->ndim);
    node_release(sum);
    return result;
}

/* d x = g @ the weights the other way, summed where x is used more than once;
 * d weights = sums of g.T @ x, or x.T @ g, over the items of each. */
static bool gather_qmm_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const GatherParam *param = node->param;
    const int count = quant_input_count(&param->quant);
    Node *x = node->inputs[0], *const *packed = node->inputs + 1;
    Node *lhs = packed[count], *rhs = packed[count + 1];
    const bool affine = param->quant.mode == CPU_AFFINE;
    if (!quant_differentiable("gather_qmm", &param->quant, wanted + 1)) return false;
    if (wanted[count + 1] || wanted[count + 2]) {
        op_error("[gather_qmm] No gradient with respect to the indices.");
        return false;
    }
    Temps t = {0};
    bool good = true;
    if (wanted[0]) {
        QuantParam other = param->quant;
        other.transpose = !other.transpose;
        Node *dx = temp(&t, op_gather_qmm(g, packed[0], packed[1], affine ? packed[2] : NULL, NULL,
                                          rhs, other));
        Node *sum =
            temp(&t, param->every ? op_reshape(dx, x->shape, x->ndim) : matrix_sum(dx, lhs, x));
        good = sum && (grads[0] = op_astype(sum, x->dtype));
    }
    if (good && affine && (wanted[2] || wanted[3])) {
        const bool turned = param->quant.transpose;
        Node *every = temp(&t, indices_or_all(NULL, node));
        Node *codes = temp(&t, op_quant_codes(packed[0], packed[1], &param->quant));
        Node *left = temp(&t, op_astype(turned ? g : x, MLX_FLOAT32));
        Node *right = temp(&t, op_astype(turned ? x : g, MLX_FLOAT32));
        Node *flipped = temp(&t, left ? op_swapaxes(left, -1, -2) : NULL), *dw = NULL;
        if (every && codes)
            dw = temp(&t, op_gather_sum(flipped, right, turned ? every : lhs, turned ? lhs : every,
                                        rhs, codes));
        good = dw && quant_scale_grads(dw, packed, &param->quant, wanted + 1, grads + 1);
    }
    return temps_end(&t, good);
}
static const Op gather_qmm_op = {"gather_qmm", gather_qmm_eval, gather_qmm_vjp};

/* ---- the operation ------------------------------------------------------------------ */

Node *op_gather_qmm(Node *x, Node *w, Node *scales, Node *biases, Node *lhs_indices,
                    Node *rhs_indices, QuantParam param) {
    if (!lhs_indices && !rhs_indices) return op_quantized_matmul(x, w, scales, biases, param);
    int outer, shape[NODE_DIMS], ndim;
    mlx_dtype dtype;
    CpuType type;
    if (!quant_operands("gather_qmm", x, w, scales, biases, &param, &outer, &dtype)) return NULL;
    if (x->ndim < 2)
        return op_error("[gather_qmm] Non-quantized input must have at least two dimensions but "
                        "got input with shape %s.",
                        SHAPE(x));
    Node *lhs = indices_or_all(lhs_indices, x), *rhs = lhs ? indices_or_all(rhs_indices, w) : NULL;
    Node *result = NULL;
    if (rhs && shape_broadcast_nodes((Node *const[]){lhs, rhs}, 2, shape, &ndim)) {
        if (ndim + 2 > NODE_DIMS) {
            op_error("[gather_qmm] Indices of %d axes are too many.", ndim);
        } else {
            Node *inputs[6] = {op_astype(x, ops_cpu_type(x->dtype, &type) ? x->dtype : dtype)};
            int count = 1 + quant_inputs(w, scales, biases, inputs + 1);
            inputs[count++] = op_broadcast_to(lhs, shape, ndim);
            inputs[count++] = op_broadcast_to(rhs, shape, ndim);
            shape[ndim] = x->shape[x->ndim - 2];
            shape[ndim + 1] = outer;
            const GatherParam all = {param, !lhs_indices && ndim == lhs->ndim &&
                                                matrices(x) == inputs[count - 1]->size};
            result = node_new_param(&gather_qmm_op, dtype, shape, ndim + 2, &all, sizeof all,
                                    inputs, count);
            quant_inputs_release(inputs, count);
        }
    }
    node_release(lhs);
    node_release(rhs);
    return result;
}

int mlx_gather_qmm(mlx_array *res, const mlx_array x, const mlx_array w, const mlx_array scales,
                   const mlx_array biases, const mlx_array lhs_indices, const mlx_array rhs_indices,
                   bool transpose, mlx_optional_int group_size, mlx_optional_int bits,
                   const char *mode, bool sorted_indices, const mlx_stream s) {
    QuantParam param;
    (void)sorted_indices; /* the order is looked at anyway */
    if (!stream_ok(s) || !quant_settings("gather_qmm", mode, group_size, bits, &param)) return 1;
    param.transpose = transpose;
    return op_finish(res, op_gather_qmm(node_of(x), node_of(w), node_of(scales),
                                        node_of_optional(biases), node_of_optional(lhs_indices),
                                        node_of_optional(rhs_indices), param));
}
