/* quantized_matmul: products with weights of few bits, which stay packed. */
#include "engine/ops/quant.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

/* Strides over the batch axes of a product, counted in whole matrices of x. */
static void batch_strides(const Node *x, const int *shape, int ndim, int64_t *out) {
    const int added = ndim - (x->ndim - 2);
    int64_t step = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        const int own = i < added ? 1 : x->shape[i - added];
        out[i] = own == 1 && shape[i] != 1 ? 0 : step;
        step *= own;
    }
}

static void multiply_batch(Node *node, const ReadyQuant *ready, const Node *x, CpuType x_type,
                           CpuType y_type, bool transpose) {
    const int batch_ndim = node->ndim - 2;
    const int64_t m = x->shape[x->ndim - 2], k = x->shape[x->ndim - 1];
    const int64_t n = node->shape[node->ndim - 1];
    int64_t strides[3][NODE_DIMS];
    batch_strides(node, node->shape, batch_ndim, strides[0]);
    batch_strides(x, node->shape, batch_ndim, strides[1]);
    batch_strides(ready->w, node->shape, batch_ndim, strides[2]);
    Walk walk;
    walk_init(&walk, node->shape, batch_ndim, 3,
              (const int64_t *[]){strides[0], strides[1], strides[2]});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        for (int64_t i = 0; i < walk.count; i++) {
            const CpuQuant quant = quant_matrix(ready, (size_t)(walk.at[2] + i * walk.step[2]));
            quant_multiply(&quant, transpose, (size_t)m,
                           ops_at(x, (walk.at[1] + i * walk.step[1]) * m * k), x_type,
                           ops_at(node, (walk.at[0] + i * walk.step[0]) * m * n), y_type);
        }
    }
}

static bool quantized_matmul_eval(Node *node, Error *err);

enum { LOOK_AHEAD = 24 }; /* nodes of the order in which a partner is sought */

/* Rows of x when one packed matrix serves all of them, else 0. */
static size_t shared_rows(const Node *node, const Node *x, const Node *w) {
    const size_t rows = node->size ? node->size / (size_t)node->shape[node->ndim - 1] : 0;
    bool shared = x->size == rows * (size_t)x->shape[x->ndim - 1];
    for (int i = 0; i < w->ndim - 2; i++) shared = shared && w->shape[i] == 1;
    return shared ? rows : 0;
}

static bool is_product(const Node *node) {
    return node->op->eval == quantized_matmul_eval;
}

/* Is other, a later product of the same x, one by weights packed alike that could be
 * computed now? */
static bool goes_with(const Node *node, const Node *other) {
    const QuantParam *a = node->param, *b = other->param;
    if (other->buffer || other->dtype != node->dtype || other->n_inputs != node->n_inputs ||
        b->mode != a->mode || b->bits != a->bits || b->group != a->group || !b->transpose)
        return false;
    for (uint32_t i = 1; i < other->n_inputs; i++)
        if (other->inputs[i]->state != NODE_READY) return false;
    return other->size > 0 && other->inputs[1]->ndim == 2;
}

/* The next product in the order that is not computed yet. */
static Node *next_product(const Node *node) {
    int left = LOOK_AHEAD;
    for (Node *next = node->link; next && left-- > 0; next = next->link)
        if (is_product(next) && !next->buffer) return next;
    return NULL;
}

/* The next that goes with first after one that does; a product of another x ends them. */
static Node *next_partner(const Node *first, const Node *one) {
    for (Node *next; (next = next_product(one)) && next->inputs[0] == first->inputs[0]; one = next)
        if (goes_with(first, next)) return next;
    return NULL;
}

/* Tells waiting threads which weights the next group of products will stream. */
static void announce_next(const Node *node) {
    const Node *first = next_product(node), *next = first;
    ParallelReads reads[PARALLEL_READS];
    size_t count = 0;
    for (; next && count < PARALLEL_READS; next = next_partner(first, next)) {
        ParallelReads *read = &reads[count++];
        *read = (ParallelReads){0};
        for (uint32_t i = 1; i < next->n_inputs; i++) {
            const Node *part = next->inputs[i];
            if (part->state != NODE_READY) continue;
            read->data[i - 1] = node_data(part);
            read->bytes[i - 1] = part->size * part->itemsize;
        }
    }
    base_parallel_expect(reads, count);
}

/* Few rows of x stream the weights: the partners of node (queries, keys and
 * values; gate and up) are computed with it in one parallel loop. They find
 * their buffers filled when their turn comes. */
static bool multiply_together(Node *node, const ReadyQuant *ready, const Node *x, size_t rows,
                              CpuType x_type, CpuType y_type, Error *err) {
    ReadyQuant others[CPU_TOGETHER - 1];
    CpuQuant weights[CPU_TOGETHER] = {ready->quant};
    void *y[CPU_TOGETHER] = {node_data(node)};
    size_t count = 1;
    bool ok = true;
    Node *other = next_partner(node, node);
    for (; ok && other && count < CPU_TOGETHER; other = next_partner(node, other)) {
        ok = quant_ready(&others[count - 1], other->inputs + 1, other->param, err);
        if (!ok) break;
        weights[count] = others[count - 1].quant;
        ok = node_alloc(other, err);
        y[count++] = ok ? node_data(other) : NULL;
    }
    if (ok && rows <= CPU_STREAMED_ROWS) announce_next(node);
    if (ok) cpu_quant_matmul_together(weights, count, rows, node_data(x), x_type, y, y_type);
    for (size_t i = 1; i < count; i++) quant_release(&others[i - 1]);
    return ok;
}

/* inputs: x of at least two axes, then the packed arrays. */
static bool quantized_matmul_eval(Node *node, Error *err) {
    if (node->buffer) return true; /* computed with an earlier one */
    const QuantParam *param = node->param;
    ReadyQuant ready;
    if (!quant_ready(&ready, node->inputs + 1, param, err)) return false;
    Node *x = ready_row_contiguous(node->inputs[0], err);
    CpuType x_type, y_type;
    bool ok = x && node_alloc(node, err) && ops_cpu_type(x->dtype, &x_type) &&
              ops_cpu_type(node->dtype, &y_type);
    if (ok && node->size) {
        const size_t rows = shared_rows(node, x, ready.w);
        if (rows && param->transpose)
            ok = multiply_together(node, &ready, x, rows, x_type, y_type, err);
        else if (rows)
            quant_multiply(&ready.quant, false, rows, node_data(x), x_type, node_data(node),
                           y_type);
        else
            multiply_batch(node, &ready, x, x_type, y_type, param->transpose);
    }
    node_release(x);
    quant_release(&ready);
    return ok;
}

/* d x = g @ the weights the other way; d weights = g.T @ x, or x.T @ g. */
static bool quantized_matmul_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    QuantParam param = *(const QuantParam *)node->param;
    Node *x = node->inputs[0], *const *packed = node->inputs + 1;
    if (!quant_differentiable("quantized_matmul", &param, wanted + 1)) return false;
    Temps t = {0};
    bool good = true;
    if (wanted[0]) {
        QuantParam other = param;
        other.transpose = !param.transpose;
        Node *dx =
            temp(&t, op_quantized_matmul(g, packed[0], packed[1],
                                         param.mode == CPU_AFFINE ? packed[2] : NULL, other));
        Node *sum = temp(&t, op_sum_to(dx, x));
        good = sum && (grads[0] = op_astype(sum, x->dtype));
    }
    if (good && param.mode == CPU_AFFINE && (wanted[2] || wanted[3])) {
        Node *left = temp(&t, op_astype(param.transpose ? g : x, MLX_FLOAT32));
        Node *right = temp(&t, op_astype(param.transpose ? x : g, MLX_FLOAT32));
        if (left && right && packed[0]->ndim == 2) { /* one matrix for all rows */
            left = temp(&t, op_flatten(left, 0, -2));
            right = temp(&t, op_flatten(right, 0, -2));
        }
        Node *turned = temp(&t, left ? op_swapaxes(left, -1, -2) : NULL);
        Node *dw = temp(&t, op_matmul(turned, right));
        good = dw && quant_scale_grads(dw, packed, &param, wanted + 1, grads + 1);
    }
    return temps_end(&t, good);
}
const Op quantized_matmul_op = {"quantized_matmul", quantized_matmul_eval, quantized_matmul_vjp};

Node *op_quantized_matmul(Node *x, Node *w, Node *scales, Node *biases, QuantParam param) {
    int outer, shape[NODE_DIMS], ndim;
    mlx_dtype dtype;
    CpuType type;
    if (!quant_operands("quantized_matmul", x, w, scales, biases, &param, &outer, &dtype))
        return NULL;
    const int front = 0;
    Node *matrix = x->ndim == 1 ? op_expand_dims(x, &front, 1) : node_retain(x);
    Node *result = NULL;
    if (matrix &&
        shape_broadcast(matrix->shape, matrix->ndim - 2, w->shape, w->ndim - 2, shape, &ndim)) {
        shape[ndim++] = matrix->shape[matrix->ndim - 2];
        shape[ndim++] = outer;
        /* The kernels read x in its own type; integers become the result's. */
        Node *inputs[4] = {op_astype(matrix, ops_cpu_type(x->dtype, &type) ? x->dtype : dtype)};
        const int count = 1 + quant_inputs(w, scales, biases, inputs + 1);
        result = node_new_param(&quantized_matmul_op, dtype, shape, ndim, &param, sizeof param,
                                inputs, count);
        quant_inputs_release(inputs, count);
    }
    node_release(matrix);
    if (result && x->ndim == 1) {
        const int row = result->ndim - 2;
        Node *squeezed = op_squeeze(result, &row, 1);
        node_release(result);
        return squeezed;
    }
    return result;
}

int mlx_quantized_matmul(mlx_array *res, const mlx_array x, const mlx_array w,
                         const mlx_array scales, const mlx_array biases, bool transpose,
                         mlx_optional_int group_size, mlx_optional_int bits, const char *mode,
                         const mlx_stream s) {
    QuantParam param;
    if (!stream_ok(s) || !quant_settings("quantized_matmul", mode, group_size, bits, &param))
        return 1;
    param.transpose = transpose;
    return op_finish(res, op_quantized_matmul(node_of(x), node_of(w), node_of(scales),
                                              node_of_optional(biases), param));
}
