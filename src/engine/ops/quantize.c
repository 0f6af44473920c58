/* quantize: floats to weights of few bits, as MLX does it on the CPU. Its gradient is
 * that of scales and biases; the codes have none. */
#include "engine/ops/quant.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <string.h>

enum { PART_ALIGN = 64 };

/* The node holds words, scales and biases one after the other, padded to
 * PART_ALIGN bytes each. */
typedef struct QuantizeSizes {
    size_t rows, columns, words_bytes, scales_bytes;
} QuantizeSizes;

static size_t padded(size_t bytes) {
    return (bytes + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
}

static QuantizeSizes quantize_sizes(const Node *w, const QuantParam *param) {
    QuantizeSizes sizes;
    sizes.columns = (size_t)w->shape[w->ndim - 1];
    sizes.rows = sizes.columns ? w->size / sizes.columns : 0;
    sizes.words_bytes = padded(w->size * (size_t)param->bits / 8);
    sizes.scales_bytes =
        padded(w->size / (size_t)param->group * (param->mode == CPU_AFFINE ? w->itemsize : 1));
    return sizes;
}

/* inputs: w and, for nvfp4, perhaps the global scale. */
static bool quantize_eval(Node *node, Error *err) {
    const QuantParam *param = node->param;
    const QuantizeSizes sizes = quantize_sizes(node->inputs[0], param);
    const float *global = node->n_inputs > 1 ? node_data(node->inputs[1]) : NULL;
    CpuType type = CPU_F32;
    Node *w = ready_row_contiguous(node->inputs[0], err);
    const bool ok = w && node_alloc(node, err) && ops_cpu_type(w->dtype, &type);
    if (ok && w->size) {
        uint8_t *words = node_data(node), *scales = words + sizes.words_bytes;
        if (param->mode == CPU_AFFINE)
            cpu_quantize(node_data(w), type, sizes.rows, sizes.columns, param->bits, param->group,
                         (uint32_t *)(void *)words, scales, scales + sizes.scales_bytes);
        else
            cpu_fp_quantize(param->mode, node_data(w), type, sizes.rows, sizes.columns, global,
                            (uint32_t *)(void *)words, scales);
    }
    node_release(w);
    return ok;
}

/* ---- the gradient --------------------------------------------------------------- */

/* Scales and biases of affine groups [.., groups, group], from basic operations: the
 * scale is such that the group's edge, its end farther from 0, is a whole number of
 * steps q from 0; it is the bias unless that number is 0. */
static bool affine_composed(const void *pointer, Node *const *inputs, Node **outputs) {
    const QuantParam *param = pointer;
    Node *w = inputs[0];
    const int last = w->ndim; /* the axis within a group */
    int shape[NODE_DIMS + 1];
    memcpy(shape, w->shape, (size_t)w->ndim * sizeof *shape);
    shape[last - 1] = w->shape[w->ndim - 1] / param->group;
    shape[last] = param->group;
    Temps t = {0};
    Node *groups = temp(&t, op_reshape(w, shape, (size_t)last + 1));
    Node *high = temp(&t, op_reduce(REDUCE_MAX, groups, &last, 1, false));
    Node *low = temp(&t, op_reduce(REDUCE_MIN, groups, &last, 1, false));
    Node *below = temp(&t, op_binary(BINARY_GREATER, temp(&t, op_unary(UNARY_ABS, low)),
                                     temp(&t, op_unary(UNARY_ABS, high))));
    Node *span = temp(&t, op_subtract(high, low));
    Node *step = temp(&t, op_scale(span, 1.0 / ((1 << param->bits) - 1)));
    Node *least = temp(&t, node_scalar(1e-7, w->dtype)), *zero = temp(&t, node_scalar(0, w->dtype));
    step = temp(&t, op_binary(BINARY_MAXIMUM, step, least));
    step = temp(&t, op_where(below, step, temp(&t, op_negative(step))));
    Node *edge = temp(&t, op_where(below, low, high));
    Node *steps = temp(&t, op_unary(UNARY_ROUND, temp(&t, op_divide(edge, step))));
    Node *some = temp(&t, op_binary(BINARY_NOT_EQUAL, steps, zero));
    shape[last - 1] = (int)((int64_t)w->shape[w->ndim - 1] * param->bits / 32);
    outputs[0] = op_full_value(shape, (size_t)last, 0, MLX_UINT32);
    outputs[1] = op_where(some, temp(&t, op_divide(edge, steps)), step);
    outputs[2] = op_where(some, edge, zero);
    return temps_end(&t, outputs[0] && outputs[1] && outputs[2]);
}

static bool quantize_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const QuantParam *param = node->param;
    if (param->mode != CPU_AFFINE) {
        op_error("[quantize] No gradient passes through scales of mode %s.",
                 quant_mode_name(param->mode));
        return false;
    }
    const QuantizeSizes sizes = quantize_sizes(node->inputs[0], param);
    const size_t keys[3] = {0, sizes.words_bytes, sizes.words_bytes + sizes.scales_bytes};
    return ops_composed_vjp(node, g, wanted, grads, affine_composed, keys, 3);
}
static const Op quantize_op = {"quantize", quantize_eval, quantize_vjp};

/* ---- the operation --------------------------------------------------------------- */

static bool can_quantize(const Node *w, const QuantParam *param) {
    CpuType type;
    if (!ops_cpu_type(w->dtype, &type))
        op_error("[quantize] Only float32, float16 and bfloat16 can be quantized but w has type "
                 "%s.",
                 dtype_name(w->dtype));
    else if (w->ndim < 2)
        op_error("[quantize] The matrix to be quantized must have at least 2 dimension but it has "
                 "only %d.",
                 w->ndim);
    else if (w->shape[w->ndim - 1] % param->group)
        op_error("[quantize] The last dimension of the matrix needs to be divisible by the "
                 "quantization group size %d. However the provided matrix has shape %s.",
                 param->group, SHAPE(w));
    else
        return true;
    return false;
}

int mlx_quantize(mlx_vector_array *res, const mlx_array w, mlx_optional_int group_size,
                 mlx_optional_int bits, const char *mode, const mlx_array global_scale,
                 const mlx_stream s) {
    QuantParam param;
    if (!stream_ok(s)) return 1;
    Node *weights = node_of(w), *global = node_of_optional(global_scale);
    if (!weights || !quant_settings("quantize", mode, group_size, bits, &param) ||
        !can_quantize(weights, &param) || !quant_global_ok("quantize", global, param.mode))
        return 1;
    const bool affine = param.mode == CPU_AFFINE;
    const QuantizeSizes sizes = quantize_sizes(weights, &param);
    const size_t items = (sizes.words_bytes + (affine ? 2 : 1) * sizes.scales_bytes) / 4;
    if (items > INT32_MAX) {
        op_error("[quantize] The matrix %s is too large.", SHAPE(weights));
        return 1;
    }
    const int whole_shape = (int)items, last = weights->ndim - 1;
    Node *whole = node_new_param(&quantize_op, MLX_UINT32, &whole_shape, 1, &param, sizeof param,
                                 (Node *const[]){weights, global}, global ? 2 : 1);
    int shape[NODE_DIMS], group_shape[NODE_DIMS];
    memcpy(shape, weights->shape, sizeof shape);
    memcpy(group_shape, weights->shape, sizeof group_shape);
    shape[last] = (int)((int64_t)shape[last] * param.bits / 32);
    group_shape[last] /= param.group;
    const mlx_dtype dtype = affine ? weights->dtype : MLX_UINT8;
    Node *parts[3] = {NULL, NULL, NULL};
    if (whole) {
        size_t at = sizes.words_bytes;
        parts[0] = node_part(whole, 0, MLX_UINT32, shape, weights->ndim);
        parts[1] = node_part(whole, at, dtype, group_shape, weights->ndim);
        at += sizes.scales_bytes;
        if (affine) parts[2] = node_part(whole, at, dtype, group_shape, weights->ndim);
    }
    node_release(whole);
    return op_finish_vector(res, parts, affine ? 3 : 2);
}
