/* dequantize: weights of few bits back to floats; and the gradients of scales
 * and biases, which every product with affine weights shares:
 *     w = q * scale + bias, so d scale = sum of dw * q over its group, d bias of dw. */
#include "engine/ops/quant.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <string.h>

/* inputs: words, scales and biases, or words, scales and perhaps the global
 * scale of nvfp4. */
static bool dequantize_eval(Node *node, Error *err) {
    const QuantParam *param = node->param;
    ReadyQuant ready;
    CpuType type;
    if (!quant_ready(&ready, node->inputs, param, err)) return false;
    const bool ok = node_alloc(node, err) && ops_cpu_type(node->dtype, &type);
    if (ok && node->size) {
        if (param->mode == CPU_NVFP4 && node->n_inputs > 2)
            ready.quant.factor = *(const float *)node_data(node->inputs[2]) / (448.0f * 6.0f);
        ready.quant.rows = node->size / ready.quant.cols;
        cpu_dequantize(&ready.quant, type, node_data(node));
    }
    quant_release(&ready);
    return ok;
}

bool quant_differentiable(const char *op, const QuantParam *param, const bool *wanted) {
    if (wanted[0])
        op_error("[%s] No gradient with respect to the quantized weights.", op);
    else if (param->mode != CPU_AFFINE && wanted[1])
        op_error("[%s] No gradient with respect to the scales in %s quantization.", op,
                 quant_mode_name(param->mode));
    else
        return true;
    return false;
}

Node *op_quant_codes(Node *w, Node *scales, const QuantParam *param) {
    Node *one = op_full_value(scales->shape, scales->ndim, 1, MLX_FLOAT32);
    Node *zero = op_full_value(scales->shape, scales->ndim, 0, MLX_FLOAT32);
    Node *codes = one && zero ? op_dequantize(w, one, zero, param, NULL, MLX_FLOAT32) : NULL;
    node_release(one);
    node_release(zero);
    return codes;
}

/* [..., groups, group] */
static Node *grouped(Node *x, const Node *scales, int group) {
    int shape[NODE_DIMS + 1];
    if (!x) return NULL;
    if (scales->ndim == NODE_DIMS) return op_error("[dequantize] Too many axes for a gradient.");
    memcpy(shape, scales->shape, (size_t)scales->ndim * sizeof *shape);
    shape[scales->ndim] = group;
    return op_reshape(x, shape, (size_t)scales->ndim + 1);
}

static Node *sum_groups(Node *x, const Node *like) {
    const int last = -1;
    Node *sum = x ? op_reduce(REDUCE_SUM, x, &last, 1, false) : NULL;
    Node *result = sum ? op_astype(sum, like->dtype) : NULL;
    node_release(sum);
    return result;
}

bool quant_scale_grads(Node *dw, Node *const *inputs, const QuantParam *param, const bool *wanted,
                       Node **grads) {
    if (param->mode != CPU_AFFINE || (!wanted[1] && !wanted[2])) return true;
    Temps t = {0};
    Node *codes = temp(&t, op_quant_codes(inputs[0], inputs[1], param));
    Node *whole = temp(&t, codes && dw ? op_sum_to(dw, codes) : NULL);
    Node *groups = temp(&t, grouped(whole, inputs[1], param->group));
    bool good = groups != NULL;
    if (good && wanted[1]) {
        Node *of_codes = temp(&t, grouped(codes, inputs[1], param->group));
        Node *terms = temp(&t, op_multiply(groups, of_codes));
        good = (grads[1] = sum_groups(terms, inputs[1])) != NULL;
    }
    if (good && wanted[2]) good = (grads[2] = sum_groups(groups, inputs[2])) != NULL;
    return temps_end(&t, good);
}

static bool dequantize_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const QuantParam *param = node->param;
    bool of_scales[3] = {false, wanted[1], param->mode == CPU_AFFINE && wanted[2]};
    if (!quant_differentiable("dequantize", param, of_scales)) return false;
    if (param->mode == CPU_NVFP4 && node->n_inputs > 2 && wanted[2]) {
        op_error("[dequantize] No gradient with respect to the global scale.");
        return false;
    }
    Node *dw = op_astype(g, MLX_FLOAT32);
    const bool good = dw && quant_scale_grads(dw, node->inputs, param, of_scales, grads);
    node_release(dw);
    return good;
}
static const Op dequantize_op = {"dequantize", dequantize_eval, dequantize_vjp};

Node *op_dequantize(Node *w, Node *scales, Node *biases, const QuantParam *param,
                    Node *global_scale, mlx_dtype dtype) {
    int columns, shape[NODE_DIMS];
    CpuType type;
    if (!quant_weights("dequantize", w, scales, biases, param, &columns) ||
        !quant_global_ok("dequantize", global_scale, param->mode))
        return NULL;
    if (!dtype_valid(dtype) || dtype_info[dtype].kind != 'f')
        return op_error("[dequantize] Only real floating types are supported but output dtype == "
                        "%s.",
                        dtype_valid(dtype) ? dtype_name(dtype) : "unknown");
    memcpy(shape, w->shape, sizeof shape);
    shape[w->ndim - 1] = columns;
    Node *inputs[4];
    int count = quant_inputs(w, scales, biases, inputs);
    if (global_scale) inputs[count++] = node_retain(global_scale);
    /* Affine arithmetic is that of the scales' type, whatever is asked for. */
    mlx_dtype computed = ops_cpu_type(dtype, &type) ? dtype : MLX_FLOAT32;
    if (param->mode == CPU_AFFINE) computed = inputs[1]->dtype;
    Node *result = node_new_param(&dequantize_op, computed, shape, w->ndim, param, sizeof *param,
                                  inputs, count);
    quant_inputs_release(inputs, count);
    Node *cast = result ? op_astype(result, dtype) : NULL;
    node_release(result);
    return cast;
}

int mlx_dequantize(mlx_array *res, const mlx_array w, const mlx_array scales,
                   const mlx_array biases, mlx_optional_int group_size, mlx_optional_int bits,
                   const char *mode, const mlx_array global_scale, mlx_optional_dtype dtype,
                   const mlx_stream s) {
    QuantParam param;
    if (!stream_ok(s) || !quant_settings("dequantize", mode, group_size, bits, &param)) return 1;
    Node *words = node_of(w), *factors = words ? node_of(scales) : NULL;
    if (!factors) return 1;
    Node *shifts = node_of_optional(biases);
    mlx_dtype out = MLX_BFLOAT16;
    if (dtype.has_value)
        out = dtype.value;
    else if (shifts)
        out = dtype_promote(factors->dtype, shifts->dtype);
    else if (global_scale.ctx)
        out = MLX_FLOAT32;
    return op_finish(
        res, op_dequantize(words, factors, shifts, &param, node_of_optional(global_scale), out));
}
