/* dequantize: weights of few bits back to floats. */
#include "engine/ops/quant.h"
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
static const Op dequantize_op = {"dequantize", dequantize_eval, NULL};

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
    Node *result = node_new_param(&dequantize_op, ops_cpu_type(dtype, &type) ? dtype : MLX_FLOAT32,
                                  shape, w->ndim, param, sizeof *param, inputs, count);
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
    return op_finish(
        res, op_dequantize(words, factors, shifts, &param, node_of_optional(global_scale), out));
}
