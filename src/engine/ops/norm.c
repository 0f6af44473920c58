/* fast.rms_norm and fast.layer_norm over the last axis, in float32 inside
 * (float64 for float64). */
#include "engine/ops/ops.h"
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
        if (param->centred)
            cpu_layer_norm(&job, w, b, weight_type, param->eps);
        else
            cpu_rms_norm(&job, w, weight_type, param->eps);
    } else if (ok) {
        norm_f64(param, rows, n, in, node_data(node), w, b);
    }
    node_release(weight);
    node_release(bias);
    return ok;
}
static const Op rms_norm_op = {"rms_norm", norm_eval, NULL}, layer_norm_op = {"layer_norm", norm_eval, NULL};

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
