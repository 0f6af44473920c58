/* fast.rms_norm and fast.layer_norm over the last axis, in float32 inside
 * (float64 for float64). */
#include "engine/core/internal.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/rule.h"
#include "mlx/c/fast.h"

#include <math.h>

typedef struct NormParam {
    float eps;
    bool centred;              /* layer norm */
    bool has_weight, has_bias; /* the inputs behind x, in this order */
} NormParam;

static void norm_f64(const NormParam *param, size_t rows, size_t n, const double *in, double *out,
                     const double *weight, const double *bias) {
    for (size_t row = 0; row < rows; row++, in += n, out += n) {
        double mean = 0, squares = 0;
        for (size_t i = 0; i < n && param->centred; i++) mean += in[i];
        mean /= (double)n;
        for (size_t i = 0; i < n; i++) squares += (in[i] - mean) * (in[i] - mean);
        const double factor = 1 / sqrt(squares / (double)n + (double)param->eps);
        for (size_t i = 0; i < n; i++)
            out[i] = (in[i] - mean) * factor * (weight ? weight[i] : 1) + (bias ? bias[i] : 0);
    }
}

/* Reuses x's memory when x dies here; a strided x is first copied to the output. */
static bool norm_eval(Node *node, Error *err) {
    const NormParam *param = node->param;
    const Node *x = node->inputs[0];
    if (node->buffer) return true; /* computed with x */
    if (node->size == 0) return node_alloc(node, err);
    Node *weight = NULL, *bias = NULL;
    if (param->has_weight && !(weight = ready_row_contiguous(node->inputs[1], err))) return false;
    if (param->has_bias &&
        !(bias = ready_row_contiguous(node->inputs[1 + param->has_weight], err))) {
        node_release(weight);
        return false;
    }
    bool ok = true;
    const void *in = NULL;
    if (x->row_contiguous && node_donate(node, 0)) {
        in = node_data(node);
    } else if ((ok = node_alloc(node, err))) {
        in = node_data(x);
        if (!x->row_contiguous) {
            copy_strided(node_data(node), node->strides, in, x->strides, x->shape, x->ndim,
                         x->itemsize);
            in = node_data(node);
        }
    }
    const size_t n = (size_t)node->shape[node->ndim - 1], rows = node->size / n;
    const void *w = weight ? node_data(weight) : NULL, *b = bias ? node_data(bias) : NULL;
    CpuType type, weight_type = CPU_F32;
    if (ok && ops_cpu_type(node->dtype, &type)) {
        const Node *any = weight ? weight : bias;
        if (any) ops_cpu_type(any->dtype, &weight_type);
        const CpuRows job = {type, rows, n, in, node_data(node), (ptrdiff_t)n, (ptrdiff_t)n};
        cpu_norm(&job, w, b, weight_type, param->eps, param->centred);
    } else if (ok) {
        norm_f64(param, rows, n, in, node_data(node), w, b);
    }
    node_release(weight);
    node_release(bias);
    return ok;
}

/* ---- together with x ---- */

bool norm_wants(const Node *node) {
    return node->op->eval == norm_eval && !node->buffer;
}

bool norm_begin(NormRows *norm, Node *node, Error *err) {
    const NormParam *param = node->param;
    Node *x = node->inputs[0];
    const Node *vectors[2] = {NULL, NULL}; /* weight, bias */
    CpuType type, vector_type = CPU_F32;
    if (!ops_cpu_type(node->dtype, &type)) return true;
    for (uint32_t i = 1; i < node->n_inputs; i++) {
        const Node *vector = node->inputs[i];
        if (vector->state != NODE_READY || !vector->row_contiguous) return true;
        ops_cpu_type(vector->dtype, &vector_type);
        vectors[i > 1 || !param->has_weight] = vector;
    }
    /* Over x itself if the norm, which is next, alone needs it. */
    const bool over = x->link == node && !node_traced(node) &&
                      atomic_load_explicit(&x->refs, memory_order_acquire) == 1;
    if (over)
        node_take(node, x);
    else if (!node_alloc(node, err))
        return false;
    const size_t n = (size_t)node->shape[node->ndim - 1];
    norm->job = (CpuNorm){.rows = {type, node->size / n, n, node_data(x), node_data(node),
                                   (ptrdiff_t)n, (ptrdiff_t)n},
                          .weight = vectors[0] ? node_data(vectors[0]) : NULL,
                          .bias = vectors[1] ? node_data(vectors[1]) : NULL,
                          .vector_type = vector_type,
                          .eps = param->eps,
                          .centred = param->centred};
    cpu_norm_begin(&norm->job);
    norm->found = true;
    return true;
}

/* ---- the gradient ------------------------------------------------------------- */

/* A node with up to three results: dx, and behind it dweight and dbias. Inputs:
 * x, g, weight or nothing. */
typedef struct NormGradParam {
    NormParam norm;
    bool dx, dweight, dbias; /* wanted */
    mlx_dtype vector_dtype;  /* of dweight and dbias */
    size_t keys[3];          /* offsets of the results */
} NormGradParam;

static void norm_grad_f64(const NormGradParam *param, size_t rows, size_t n, const double *x,
                          const double *g, const double *weight, double *dx, double *dweight,
                          double *dbias) {
    for (size_t i = 0; i < n && dweight; i++) dweight[i] = 0;
    for (size_t i = 0; i < n && dbias; i++) dbias[i] = 0;
    for (size_t row = 0; row < rows; row++, x += n, g += n, dx += dx ? n : 0) {
        double mean = 0, squares = 0, shift = 0, dot = 0;
        for (size_t i = 0; i < n && param->norm.centred; i++) mean += x[i] / (double)n;
        for (size_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
        const double r = 1 / sqrt(squares / (double)n + (double)param->norm.eps);
        for (size_t i = 0; i < n; i++) {
            const double u = g[i] * (weight ? weight[i] : 1), h = (x[i] - mean) * r;
            dot += u * h / (double)n;
            if (param->norm.centred) shift += u / (double)n;
            if (dweight) dweight[i] += g[i] * h;
            if (dbias) dbias[i] += g[i];
        }
        for (size_t i = 0; i < n && dx; i++)
            dx[i] = r * (g[i] * (weight ? weight[i] : 1) - shift - (x[i] - mean) * r * dot);
    }
}

static bool norm_grad_eval(Node *node, Error *err) {
    const NormGradParam *param = node->param;
    const size_t n = (size_t)node->shape[node->ndim - 1], rows = n ? node->size / n : 0;
    if (!node_alloc_bytes(node, param->keys[2] + n * 8, err)) return false;
    Node *x = ready_row_contiguous(node->inputs[0], err);
    Node *g = x ? ready_row_contiguous(node->inputs[1], err) : NULL;
    Node *weight = NULL;
    bool ok = g != NULL;
    if (ok && node->n_inputs > 2)
        ok = (weight = ready_row_contiguous(node->inputs[2], err)) != NULL;
    if (ok) {
        uint8_t *out = node_data(node);
        CpuNormGrad job = {.rows = rows,
                           .n = n,
                           .x = node_data(x),
                           .g = node_data(g),
                           .weight = weight ? node_data(weight) : NULL,
                           .dx = param->dx ? out : NULL,
                           .dweight = param->dweight ? out + param->keys[1] : NULL,
                           .dbias = param->dbias ? out + param->keys[2] : NULL,
                           .eps = param->norm.eps,
                           .centred = param->norm.centred};
        if (ops_cpu_type(node->dtype, &job.type)) {
            ops_cpu_type(param->vector_dtype, &job.weight_type);
            cpu_norm_grad(&job);
        } else {
            norm_grad_f64(param, rows, n, job.x, job.g, job.weight, job.dx, job.dweight, job.dbias);
        }
    }
    node_release(x);
    node_release(g);
    node_release(weight);
    return ok;
}

/* The same from basic operations, for its own gradient. */
static bool norm_grad_composed(const void *pointer, Node *const *inputs, Node **outputs) {
    const NormGradParam *param = pointer;
    Node *x = inputs[0], *g = inputs[1];
    const int last = x->ndim - 1;
    Temps t = {0};
    Node *centred = x, *u = g;
    if (param->norm.centred)
        centred = temp(&t, op_subtract(x, temp(&t, op_reduce(REDUCE_MEAN, x, &last, 1, true))));
    Node *square = temp(&t, op_unary(UNARY_SQUARE, centred));
    Node *variance = temp(&t, op_reduce(REDUCE_MEAN, square, &last, 1, true));
    Node *raised = temp(&t, op_binary_scalar(BINARY_ADD, variance, (double)param->norm.eps));
    Node *r = temp(&t, op_unary(UNARY_RSQRT, raised));
    Node *h = temp(&t, op_multiply(centred, r));
    if (param->norm.has_weight) u = temp(&t, op_multiply(g, inputs[2]));
    Node *dot = temp(&t, op_multiply(u, h));
    dot = temp(&t, op_reduce(REDUCE_MEAN, dot, &last, 1, true));
    Node *rest = temp(&t, op_subtract(u, temp(&t, op_multiply(h, dot))));
    if (param->norm.centred)
        rest = temp(&t, op_subtract(rest, temp(&t, op_reduce(REDUCE_MEAN, u, &last, 1, true))));
    Node *dx = temp(&t, op_multiply(rest, r)), *product = temp(&t, op_multiply(g, h));
    int front[NODE_DIMS];
    for (int i = 0; i < last; i++) front[i] = i;
    Node *dweight = temp(&t, op_reduce(REDUCE_SUM, product, front, (size_t)last, false));
    Node *dbias = temp(&t, op_reduce(REDUCE_SUM, g, front, (size_t)last, false));
    outputs[0] = op_astype(dx, x->dtype);
    outputs[1] = op_astype(dweight, param->vector_dtype);
    outputs[2] = op_astype(dbias, param->vector_dtype);
    return temps_end(&t, outputs[0] && outputs[1] && outputs[2]);
}

static bool norm_grad_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const NormGradParam *param = node->param;
    return ops_composed_vjp(node, g, wanted, grads, norm_grad_composed, param->keys, 3);
}
static const Op norm_grad_op = {"norm_grad", norm_grad_eval, norm_grad_vjp};

static bool norm_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const NormParam *norm = node->param;
    Node *x = node->inputs[0], *inputs[3] = {x, g};
    const int weight = norm->has_weight ? 1 : 0, bias = norm->has_bias ? 1 + weight : 0;
    NormGradParam param = {.norm = *norm,
                           .dx = wanted[0],
                           .dweight = weight && wanted[weight],
                           .dbias = bias && wanted[bias],
                           .vector_dtype = node->dtype};
    if (x->size == 0) {
        bool good = true;
        for (uint32_t i = 0; i < node->n_inputs; i++)
            if (wanted[i]) good = good && (grads[i] = op_zeros_like(node->inputs[i]));
        return good;
    }
    if (norm->has_weight) inputs[2] = node->inputs[weight];
    if (weight || bias) param.vector_dtype = node->inputs[1]->dtype;
    const size_t n = (size_t)x->shape[x->ndim - 1];
    param.keys[1] = (node_nbytes(x) + 63) / 64 * 64;
    param.keys[2] = param.keys[1] + (n * 8 + 63) / 64 * 64;
    Node *whole = node_new_param(&norm_grad_op, node->dtype, x->shape, x->ndim, &param,
                                 sizeof param, inputs, norm->has_weight ? 3 : 2);
    bool good = whole != NULL;
    if (good && param.dx)
        good = (grads[0] = node_part(whole, 0, x->dtype, x->shape, x->ndim)) != NULL;
    if (good && param.dweight)
        good = (grads[weight] = node_part(whole, param.keys[1], param.vector_dtype,
                                          &x->shape[x->ndim - 1], 1)) != NULL;
    if (good && param.dbias)
        good = (grads[bias] = node_part(whole, param.keys[2], param.vector_dtype,
                                        &x->shape[x->ndim - 1], 1)) != NULL;
    node_release(whole);
    return good;
}
static const Op rms_norm_op = {"rms_norm", norm_eval, norm_vjp};
static const Op layer_norm_op = {"layer_norm", norm_eval, norm_vjp};

static bool norm_vector_ok(const char *op, const char *what, const Node *x, const Node *v) {
    if (!v) return true;
    if (v->ndim != 1 || v->shape[0] != x->shape[x->ndim - 1]) {
        op_error("[%s] %s must have one axis of size %d (the last dimension of x), got %s.", op,
                 what, x->shape[x->ndim - 1], SHAPE(v));
        return false;
    }
    return true;
}

static Node *op_norm(const Op *op, Node *x, Node *weight, Node *bias, float eps, bool centred) {
    if (!x) return NULL;
    if (x->ndim == 0) return op_error("[%s] Input must have at least 1 dimension.", op->name);
    mlx_dtype dtype = x->dtype;
    if (weight) {
        dtype = dtype_promote(dtype, weight->dtype);
        if (bias) dtype = dtype_promote(dtype, bias->dtype);
    }
    if (dtype_info[dtype].kind != 'f')
        return op_error("[%s] Received unsupported type %s.", op->name, dtype_name(dtype));
    if (!norm_vector_ok(op->name, "weight", x, weight) ||
        !norm_vector_ok(op->name, "bias", x, bias))
        return NULL;
    /* The kernels take the vectors in their own type when both share it. */
    CpuType type;
    const Node *any = weight ? weight : bias;
    const bool as_is = any && dtype != MLX_FLOAT64 && ops_cpu_type(any->dtype, &type) &&
                       (!weight || !bias || weight->dtype == bias->dtype);
    const mlx_dtype vector_dtype = as_is ? (mlx_dtype)any->dtype : dtype;
    Node *inputs[3] = {op_astype(x, dtype)};
    int count = 1;
    if (weight) inputs[count++] = op_astype(weight, vector_dtype);
    if (bias) inputs[count++] = op_astype(bias, vector_dtype);
    const NormParam param = {eps, centred, weight != NULL, bias != NULL};
    Node *result =
        node_new_param(op, dtype, x->shape, x->ndim, &param, sizeof param, inputs, count);
    for (int i = 0; i < count; i++) node_release(inputs[i]);
    return result;
}

int mlx_fast_rms_norm(mlx_array *res, const mlx_array x, const mlx_array weight, float eps,
                      const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res,
                     op_norm(&rms_norm_op, node_of(x), node_of_optional(weight), NULL, eps, false));
}

int mlx_fast_layer_norm(mlx_array *res, const mlx_array x, const mlx_array weight,
                        const mlx_array bias, float eps, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_norm(&layer_norm_op, node_of(x), node_of_optional(weight),
                                  node_of_optional(bias), eps, true));
}
