/* matmul and addmm: batches of matrix products on the CPU kernels (float32,
 * float16, bfloat16 in any mix, float32 accumulation) or on plain loops
 * (float64, complex64). Any strides are read where they are; in particular the transposed
 * weight of a linear layer is not copied. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <string.h>

typedef struct MatmulParam {
    float alpha, beta; /* beta used with a third input */
} MatmulParam;

/* Strides of x over the batch axes of node, and of x's matrix. */
typedef struct MatrixView {
    int64_t batch[NODE_DIMS];
    int64_t row, column;
} MatrixView;

static MatrixView matrix_view(const Node *x, const Node *node) {
    MatrixView view;
    int shape[NODE_DIMS];
    memcpy(shape, node->shape, sizeof shape);
    shape[node->ndim - 2] = x->shape[x->ndim - 2];
    shape[node->ndim - 1] = x->shape[x->ndim - 1];
    strides_broadcast(x, shape, node->ndim, view.batch);
    view.row = view.batch[node->ndim - 2];
    view.column = view.batch[node->ndim - 1];
    return view;
}

/* Do the batch axes and the rows follow each other with one stride, so that a
 * batch of products with one B is a single taller product? */
static bool rows_fold(const Node *node, const int64_t *batch, int64_t row, int64_t *folded) {
    int64_t expected = 0;
    bool any = false;
    *folded = row;
    for (int i = node->ndim - 2; i >= 0; i--) {
        const int64_t stride = i == node->ndim - 2 ? row : batch[i];
        if (node->shape[i] == 1) continue;
        if (any && stride != expected) return false;
        if (!any) *folded = stride;
        any = true;
        expected = stride * node->shape[i];
    }
    return true;
}

static bool batch_shared(const Node *node, const int64_t *batch) {
    for (int i = 0; i < node->ndim - 2; i++)
        if (node->shape[i] != 1 && batch[i] != 0) return false;
    return true;
}

static void matmul_kernels(Node *node, const MatmulParam *param) {
    const Node *a = node->inputs[0], *b = node->inputs[1];
    const Node *c = node->n_inputs > 2 ? node->inputs[2] : NULL;
    CpuGemm product = {.m = (size_t)node->shape[node->ndim - 2],
                       .n = (size_t)node->shape[node->ndim - 1],
                       .k = (size_t)a->shape[a->ndim - 1],
                       .alpha = param->alpha,
                       .beta = param->beta};
    const MatrixView view_a = matrix_view(a, node), view_b = matrix_view(b, node);
    MatrixView view_c;
    memset(&view_c, 0, sizeof view_c);
    ops_cpu_type(a->dtype, &product.a_type);
    ops_cpu_type(b->dtype, &product.b_type);
    ops_cpu_type(node->dtype, &product.c_type);
    product.a_row = view_a.row;
    product.a_col = view_a.column;
    product.b_row = view_b.row;
    product.b_col = view_b.column;
    product.c_row = (ptrdiff_t)product.n;
    if (c) {
        strides_broadcast(c, node->shape, node->ndim, view_c.batch);
        ops_cpu_type(c->dtype, &product.add_type);
        product.add_row = view_c.batch[node->ndim - 2];
        product.add_col = view_c.batch[node->ndim - 1];
        product.add = node_data(c);
    }
    product.a = node_data(a);
    product.b = node_data(b);
    product.c = node_data(node);
    int64_t folded_a, folded_c = 0;
    if (batch_shared(node, view_b.batch) && rows_fold(node, view_a.batch, view_a.row, &folded_a) &&
        (!c || rows_fold(node, view_c.batch, product.add_row, &folded_c))) {
        product.m = node->size / product.n;
        product.a_row = folded_a;
        product.add_row = folded_c;
        cpu_gemm(&product);
        return;
    }
    enum { CHUNK = 32 };
    CpuGemm chunk[CHUNK];
    size_t held = 0;
    Walk walk;
    walk_init(&walk, node->shape, node->ndim - 2, 4,
              (const int64_t *[]){node->strides, view_a.batch, view_b.batch, view_c.batch});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        for (int64_t i = 0; i < walk.count; i++) {
            CpuGemm *next = &chunk[held++];
            *next = product;
            next->c = ops_at(node, walk.at[0] + i * walk.step[0]);
            next->a = ops_at(a, walk.at[1] + i * walk.step[1]);
            next->b = ops_at(b, walk.at[2] + i * walk.step[2]);
            if (c) next->add = ops_at(c, walk.at[3] + i * walk.step[3]);
            if (held == CHUNK) {
                cpu_gemm_batch(chunk, held);
                held = 0;
            }
        }
    }
    cpu_gemm_batch(chunk, held);
}

static void matmul_f64(Node *node) {
    const Node *a = node->inputs[0], *b = node->inputs[1];
    const MatrixView view_a = matrix_view(a, node), view_b = matrix_view(b, node);
    const int64_t m = node->shape[node->ndim - 2], n = node->shape[node->ndim - 1];
    const int64_t depth = a->shape[a->ndim - 1];
    Walk walk;
    walk_init(&walk, node->shape, node->ndim - 2, 3,
              (const int64_t *[]){node->strides, view_a.batch, view_b.batch});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        for (int64_t item = 0; item < walk.count; item++) {
            double *out = (double *)node_data(node) + walk.at[0] + item * walk.step[0];
            const double *left = (const double *)node_data(a) + walk.at[1] + item * walk.step[1];
            const double *right = (const double *)node_data(b) + walk.at[2] + item * walk.step[2];
            memset(out, 0, (size_t)(m * n) * sizeof *out);
            for (int64_t i = 0; i < m; i++)
                for (int64_t k = 0; k < depth; k++) {
                    const double factor = left[i * view_a.row + k * view_a.column];
                    const double *line = right + k * view_b.row;
                    for (int64_t j = 0; j < n; j++)
                        out[i * n + j] += factor * line[j * view_b.column];
                }
        }
    }
}

/* [m, k] @ [k, n] of complex numbers, each two floats; steps in numbers. */
typedef struct ComplexProduct {
    const float *a, *b;
    float *out;
    int64_t m, n, k, a_row, a_column, b_row, b_column;
} ComplexProduct;

static void complex_rows(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const ComplexProduct *p = context;
    for (size_t i = begin; i < end; i++) {
        float *out = p->out + 2 * (int64_t)i * p->n;
        memset(out, 0, (size_t)p->n * 2 * sizeof *out);
        for (int64_t k = 0; k < p->k; k++) {
            const float *factor = p->a + 2 * ((int64_t)i * p->a_row + k * p->a_column);
            const float real = factor[0], imaginary = factor[1];
            for (int64_t j = 0; j < p->n; j++) {
                const float *b = p->b + 2 * (k * p->b_row + j * p->b_column);
                out[2 * j] += real * b[0] - imaginary * b[1];
                out[2 * j + 1] += real * b[1] + imaginary * b[0];
            }
        }
    }
}

static void matmul_c64(Node *node) {
    const Node *a = node->inputs[0], *b = node->inputs[1];
    const MatrixView view_a = matrix_view(a, node), view_b = matrix_view(b, node);
    ComplexProduct p = {.m = node->shape[node->ndim - 2],
                        .n = node->shape[node->ndim - 1],
                        .k = a->shape[a->ndim - 1],
                        .a_row = view_a.row,
                        .a_column = view_a.column,
                        .b_row = view_b.row,
                        .b_column = view_b.column};
    Walk walk;
    walk_init(&walk, node->shape, node->ndim - 2, 3,
              (const int64_t *[]){node->strides, view_a.batch, view_b.batch});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        for (int64_t i = 0; i < walk.count; i++) {
            p.out = (float *)(void *)ops_at(node, walk.at[0] + i * walk.step[0]);
            p.a = (const float *)(const void *)ops_at(a, walk.at[1] + i * walk.step[1]);
            p.b = (const float *)(const void *)ops_at(b, walk.at[2] + i * walk.step[2]);
            ops_parallel((size_t)p.m, (size_t)(p.m * p.n * p.k), complex_rows, &p);
        }
    }
}

static bool matmul_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    if (node->dtype == MLX_FLOAT64)
        matmul_f64(node);
    else if (node->dtype == MLX_COMPLEX64)
        matmul_c64(node);
    else
        matmul_kernels(node, node->param);
    return true;
}

/* x with its batch axes folded into the rows. */
static Node *fold_rows(Node *x) {
    return op_reshape(x, (int[]){-1, x->shape[x->ndim - 1]}, 2);
}

/* x transposed, and conjugated where it is complex. */
static Node *adjoint(Node *x, Temps *t) {
    return temp(t, op_swapaxes(temp(t, op_unary(UNARY_CONJUGATE, x)), -1, -2));
}

/* The gradient of b in a @ b: one tall product when all of the batch shares b. */
static Node *right_grad(Node *a, Node *b, Node *g, Temps *t) {
    if (b->ndim == 2 && a->ndim > 2 && a->size && g->size) {
        Node *rows = adjoint(temp(t, fold_rows(a)), t);
        return temp(t, op_matmul(rows, temp(t, fold_rows(g))));
    }
    return temp(t, op_sum_to(temp(t, op_matmul(adjoint(a, t), g)), b));
}

/* y = alpha a @ b + beta c */
static bool matmul_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const MatmulParam *param = node->param;
    Node *a = node->inputs[0], *b = node->inputs[1];
    Temps t = {0};
    bool good = true;
    Node *scaled = param->alpha == 1 ? g : temp(&t, op_scale(g, (double)param->alpha));
    if (wanted[0]) {
        Node *product = temp(&t, op_matmul(scaled, adjoint(b, &t)));
        good = (grads[0] = op_astype(temp(&t, op_sum_to(product, a)), a->dtype)) != NULL;
    }
    if (wanted[1] && good)
        good = (grads[1] = op_astype(right_grad(a, b, scaled, &t), b->dtype)) != NULL;
    if (node->n_inputs > 2 && wanted[2] && good) {
        Node *c = node->inputs[2], *share = g;
        if (param->beta != 1) share = temp(&t, op_scale(g, (double)param->beta));
        good = (grads[2] = op_astype(temp(&t, op_sum_to(share, c)), c->dtype)) != NULL;
    }
    return temps_end(&t, good);
}
const Op matmul_op = {"matmul", matmul_eval, matmul_vjp};
static const Op addmm_op = {"addmm", matmul_eval, matmul_vjp};

bool op_matmul_shape(const char *op, const Node *a, const Node *b, int *shape, int *ndim) {
    const int k = a->shape[a->ndim - 1], rows = b->shape[b->ndim - 2];
    if (k != rows) {
        op_error("[%s] Last dimension of first input with shape %s must match second to last "
                 "dimension of second input with shape %s.",
                 op, SHAPE(a), SHAPE(b));
        return false;
    }
    if (!shape_broadcast(a->shape, a->ndim - 2, b->shape, b->ndim - 2, shape, ndim)) return false;
    shape[(*ndim)++] = a->shape[a->ndim - 2];
    shape[(*ndim)++] = b->shape[b->ndim - 1];
    return true;
}

/* Operands of at least two axes. The kernels mix their three types freely;
 * anything else is cast to the result's dtype first. */
static Node *product_node(const Op *op, Node *a, Node *b, Node *c, mlx_dtype dtype, float alpha,
                          float beta) {
    int shape[NODE_DIMS], ndim;
    if (!op_matmul_shape(op->name, a, b, shape, &ndim)) return NULL;
    Node *inputs[3] = {a, b, c};
    const int n_inputs = c ? 3 : 2;
    CpuType type;
    for (int i = 0; i < n_inputs; i++) {
        const bool as_is = ops_cpu_type(dtype, &type) && ops_cpu_type(inputs[i]->dtype, &type);
        inputs[i] = op_astype(inputs[i], as_is ? inputs[i]->dtype : dtype);
    }
    Node *result = node_new_param(op, dtype, shape, ndim, &(MatmulParam){alpha, beta},
                                  sizeof(MatmulParam), inputs, n_inputs);
    for (int i = 0; i < n_inputs; i++) node_release(inputs[i]);
    return result;
}

static bool product_dtype_ok(const char *op, const Node *a, const Node *b, mlx_dtype dtype) {
    if (a->ndim == 0 || b->ndim == 0) {
        op_error("[%s] Got 0 dimension input. Inputs must have at least one dimension.", op);
        return false;
    }
    if (dtype_is_float(dtype)) return true;
    op_error("[%s] Only floating point types are supported but %s and %s were provided which "
             "results in %s.",
             op, dtype_name(a->dtype), dtype_name(b->dtype), dtype_name(dtype));
    return false;
}

Node *op_matmul(Node *a, Node *b) {
    if (!a || !b) return NULL;
    const mlx_dtype dtype = dtype_promote(a->dtype, b->dtype);
    if (!product_dtype_ok("matmul", a, b, dtype)) return NULL;
    const int front = 0, back = 1;
    Node *left = a->ndim == 1 ? op_expand_dims(a, &front, 1) : node_retain(a);
    Node *right = b->ndim == 1 ? op_expand_dims(b, &back, 1) : node_retain(b);
    Node *result = left && right ? product_node(&matmul_op, left, right, NULL, dtype, 1, 0) : NULL;
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

/* alpha * (a @ b) + beta * c from its parts. */
static Node *addmm_composed(Node *c, Node *a, Node *b, mlx_dtype dtype, float alpha, float beta) {
    Node *left = op_astype(a, dtype), *right = op_astype(b, dtype), *add = op_astype(c, dtype);
    Node *product = op_matmul(left, right), *fits = NULL;
    if (product && !(fits = op_broadcast_to(add, product->shape, product->ndim))) {
        node_release(product);
        product = NULL;
    }
    Node *scaled = op_binary_scalar(BINARY_MULTIPLY, product, (double)alpha);
    Node *shift = op_binary_scalar(BINARY_MULTIPLY, add, (double)beta);
    Node *result = op_binary(BINARY_ADD, scaled, shift);
    Node *const temporaries[] = {left, right, add, product, fits, scaled, shift};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return result;
}

static Node *op_addmm(Node *c, Node *a, Node *b, float alpha, float beta) {
    if (!a || !b || !c) return NULL;
    const mlx_dtype dtype = dtype_promote(dtype_promote(a->dtype, b->dtype), c->dtype);
    if (!product_dtype_ok("addmm", a, b, dtype)) return NULL;
    if (a->ndim == 1 || b->ndim == 1 || !ops_cpu_type(dtype, &(CpuType){0}))
        return addmm_composed(c, a, b, dtype, alpha, beta);
    int shape[NODE_DIMS], merged[NODE_DIMS], ndim, merged_ndim;
    if (!op_matmul_shape("addmm", a, b, shape, &ndim) ||
        !shape_broadcast(c->shape, c->ndim, shape, ndim, merged, &merged_ndim))
        return NULL;
    if (merged_ndim != ndim || memcmp(merged, shape, (size_t)ndim * sizeof shape[0]) != 0)
        return op_error("[addmm] The added array %s does not broadcast to the product's shape %s.",
                        SHAPE(c), shape_text(&(ShapeText){{0}}, shape, ndim));
    return product_node(&addmm_op, a, b, c, dtype, alpha, beta);
}

int mlx_matmul(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_matmul(node_of(a), node_of(b))) : 1;
}

int mlx_addmm(mlx_array *res, const mlx_array c, const mlx_array a, const mlx_array b, float alpha,
              float beta, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_addmm(node_of(c), node_of(a), node_of(b), alpha, beta));
}
