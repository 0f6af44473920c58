/* qqmm: products of quantised activations with quantised weights. x is rounded
 * to the codes of the mode on the fly, and so is w when it comes as floats; the
 * sums are float32. */
#include "engine/ops/quant.h"
#include "mlx/c/ops.h"

#include <stdlib.h>

typedef struct QqmmParam {
    QuantParam quant;
    bool global; /* the last two inputs are the global scales of x and w */
} QqmmParam;

/* x as it is after quantising; the caller frees. */
static float *rounded(const Node *node, CpuQuantMode mode, const float *global, Error *err) {
    CpuType type = CPU_F32;
    const size_t columns = (size_t)node->shape[1];
    Node *x = ready_row_contiguous((Node *)(uintptr_t)node, err);
    float *out = x ? base_try_alloc(node->size + 1, sizeof(float), err) : NULL;
    if (out && node->size && ops_cpu_type(node->dtype, &type))
        cpu_fp_round(mode, node_data(x), type, (size_t)node->shape[0], columns, global, out);
    node_release(x);
    return out;
}

static bool multiply_packed(Node *node, const float *x, const float *global, Error *err) {
    const QqmmParam *param = node->param;
    ReadyQuant ready;
    CpuType type = CPU_F32;
    if (!quant_ready(&ready, node->inputs + 1, &param->quant, err)) return false;
    if (global) ready.quant.factor = *global / (448.0f * 6.0f);
    if (ops_cpu_type(node->dtype, &type))
        quant_multiply(&ready.quant, true, (size_t)node->shape[0], x, CPU_F32, node_data(node),
                       type);
    quant_release(&ready);
    return true;
}

static bool multiply_floats(Node *node, const float *x, const float *global, Error *err) {
    const QqmmParam *param = node->param;
    const size_t k = (size_t)node->inputs[0]->shape[1], n = (size_t)node->shape[1];
    CpuType type = CPU_F32;
    float *w = rounded(node->inputs[1], param->quant.mode, global, err);
    if (!w) return false;
    if (ops_cpu_type(node->dtype, &type))
        cpu_gemm(&(CpuGemm){.m = (size_t)node->shape[0],
                            .n = n,
                            .k = k,
                            .a = x,
                            .a_row = (ptrdiff_t)k,
                            .a_col = 1,
                            .b = w,
                            .b_row = 1,
                            .b_col = (ptrdiff_t)k,
                            .c = node_data(node),
                            .c_type = type,
                            .c_row = (ptrdiff_t)n,
                            .alpha = 1});
    free(w);
    return true;
}

/* inputs: x [M, K], w [N, K] or packed with its scales, perhaps global scales. */
static bool qqmm_eval(Node *node, Error *err) {
    const QqmmParam *param = node->param;
    const float *global[2] = {NULL, NULL};
    for (uint32_t i = 0; param->global && i < 2; i++)
        global[i] = node_data(node->inputs[node->n_inputs - 2 + i]);
    if (!node_alloc(node, err)) return false;
    if (!node->size) return true;
    float *x = rounded(node->inputs[0], param->quant.mode, global[0], err);
    if (!x) return false;
    const bool packed = node->inputs[1]->dtype == MLX_UINT32;
    const bool ok = packed ? multiply_packed(node, x, global[1], err)
                           : multiply_floats(node, x, global[1], err);
    free(x);
    return ok;
}

static bool qqmm_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op qqmm_op = {"qqmm", qqmm_eval, qqmm_vjp};

static bool floats_ok(const Node *x, const char *which) {
    CpuType type;
    if (ops_cpu_type(x->dtype, &type)) return true;
    op_error("[qqmm] Only real floating types except float64 are supported but %s argument dtype "
             "== %s.",
             which, dtype_name(x->dtype));
    return false;
}

static bool divides(const Node *x, const QuantParam *param) {
    if (x->shape[x->ndim - 1] % param->group == 0) return true;
    op_error("[qqmm] The last dimension of %s needs to be divisible by the quantization group "
             "size %d.",
             SHAPE(x), param->group);
    return false;
}

/* The width of the result; x and w have two axes. -1 after reporting. */
static int qqmm_outer(Node *x, Node *w, Node *scales, const QuantParam *param) {
    int outer;
    mlx_dtype dtype;
    if (!floats_ok(x, "first")) return -1;
    if (w->dtype == MLX_UINT32) {
        if (!scales) {
            op_error("[qqmm] Scales must be provided if second argument is quantized.");
            return -1;
        }
        return quant_operands("qqmm", x, w, scales, NULL, param, &outer, &dtype) ? outer : -1;
    }
    if (!floats_ok(w, "second") || !divides(x, param)) return -1;
    if (x->shape[1] == w->shape[1]) return w->shape[0];
    op_error("[qqmm] Last dimension of first input with shape %s must match last dimension of "
             "second input with shape %s.",
             SHAPE(x), SHAPE(w));
    return -1;
}

static bool globals_ok(const Node *global_x, const Node *global_w, const QuantParam *param) {
    if (!quant_global_ok("qqmm", global_x, param->mode) ||
        !quant_global_ok("qqmm", global_w, param->mode))
        return false;
    if (!global_x == !global_w) return true;
    op_error("[qqmm] For nvfp4 mode, either both global_scale_x and global_scale_w must be "
             "provided, or neither.");
    return false;
}

/* x: [..., K] or [K]; scales and global scales may be NULL. */
static Node *op_qqmm(Node *x, Node *w, Node *scales, QuantParam param, Node *global_x,
                     Node *global_w) {
    if (!x || !w) return NULL;
    if (param.mode == CPU_AFFINE)
        return op_error("[qqmm] Only 'nvfp4', 'mxfp8' and 'mxfp4' quantization modes are "
                        "supported but 'affine' was provided.");
    if (x->ndim == 0 || w->ndim != 2)
        return op_error("[qqmm] Only 2D inputs are supported but x.ndim() == %d and w.ndim() == "
                        "%d.",
                        x->ndim, w->ndim);
    if (!globals_ok(global_x, global_w, &param)) return NULL;
    param.transpose = true;
    const int columns = x->shape[x->ndim - 1];
    const size_t rows = columns ? x->size / (size_t)columns : 0;
    Node *matrix = op_reshape(x, (int[]){(int)rows, columns}, 2), *result = NULL;
    const int outer = matrix ? qqmm_outer(matrix, w, scales, &param) : -1;
    if (outer >= 0) {
        const QqmmParam all = {param, global_x != NULL};
        Node *inputs[5] = {matrix, w};
        int count = 2;
        if (w->dtype == MLX_UINT32) inputs[count++] = scales;
        if (global_x) {
            inputs[count++] = global_x;
            inputs[count++] = global_w;
        }
        Node *product = node_new_param(&qqmm_op, x->dtype, (int[]){(int)rows, outer}, 2, &all,
                                       sizeof all, inputs, count);
        int shape[NODE_DIMS];
        for (int i = 0; i < x->ndim - 1; i++) shape[i] = x->shape[i];
        shape[x->ndim - 1] = outer;
        result = op_reshape(product, shape, x->ndim);
        node_release(product);
    }
    node_release(matrix);
    return result;
}

/* The largest magnitude of g as the global scale of its quantising. */
static Node *largest(Node *g) {
    Node *size = op_unary(UNARY_ABS, g);
    Node *top = size ? op_reduce_all(REDUCE_MAX, size, false) : NULL;
    Node *result = top ? op_astype(top, MLX_FLOAT32) : NULL;
    node_release(size);
    node_release(top);
    return result;
}

/* As MLX: the gradients are quantised products too, along the other axes. */
static bool qqmm_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const QqmmParam *param = node->param;
    Node *x = node->inputs[0], *w = node->inputs[1];
    if (w->dtype == MLX_UINT32) {
        op_error("[qqmm] No gradient with quantized weights.");
        return false;
    }
    Node *global_g = param->global ? largest(g) : NULL;
    bool good = !param->global || global_g;
    if (good && wanted[0]) {
        Node *turned = op_swapaxes(w, 0, 1);
        grads[0] = op_qqmm(g, turned, NULL, param->quant, global_g,
                           param->global ? node->inputs[3] : NULL);
        node_release(turned);
        good = grads[0] != NULL;
    }
    if (good && wanted[1]) {
        Node *left = op_swapaxes(g, 0, 1), *right = op_swapaxes(x, 0, 1);
        Node *product = op_qqmm(left, right, NULL, param->quant, global_g,
                                param->global ? node->inputs[2] : NULL);
        grads[1] = product ? op_astype(product, w->dtype) : NULL;
        node_release(left);
        node_release(right);
        node_release(product);
        good = grads[1] != NULL;
    }
    node_release(global_g);
    return good;
}

int mlx_qqmm(mlx_array *res, const mlx_array x, const mlx_array w, const mlx_array w_scales,
             mlx_optional_int group_size, mlx_optional_int bits, const char *mode,
             const mlx_array global_scale_x, const mlx_array global_scale_w, const mlx_stream s) {
    QuantParam param;
    if (!stream_ok(s) || !quant_settings("qqmm", mode, group_size, bits, &param)) return 1;
    return op_finish(res,
                     op_qqmm(node_of(x), node_of(w), node_of_optional(w_scales), param,
                             node_of_optional(global_scale_x), node_of_optional(global_scale_w)));
}
