/* Linear and Embedding, dense or packed; what stands on top is adapter.c's.
 *
 * Which kind a layer is, the weights say; the model code does not know. A
 * dense weight is kept as its transposed view, so a call is one matmul. */
#include "nn/params.h"

#include <string.h>

/* weight, scales and biases of a packed module, shape [..., rows, columns]. */
void nn_params_take_packed(NnParams *params, const int *shape, size_t ndim, MxQuant quant,
                           const char *path, mlx_array *weight, mlx_array *scales,
                           mlx_array *biases) {
    char name[NN_PATH + 16];
    int columns = shape[ndim - 1];
    if (columns % quant.group_size != 0) {
        nn_params_fail(params, ERROR_INPUT,
                       "%s has %d columns, not a multiple of its group size %d", path, columns,
                       quant.group_size);
        return;
    }
    int words[4], groups[4];
    memcpy(words, shape, ndim * sizeof *shape);
    memcpy(groups, shape, ndim * sizeof *shape);
    words[ndim - 1] = (int)((int64_t)columns * quant.bits / 32);
    groups[ndim - 1] = columns / quant.group_size;
    snprintf(name, sizeof name, "%s.weight", path);
    *weight = nn_params_take_raw(params, words, ndim, name);
    if (weight->ctx && mx_dtype(*weight) != MLX_UINT32) {
        nn_params_fail(params, ERROR_INPUT, "tensor %s is %s, a packed weight is uint32", name,
                       mx_dtype_name(mx_dtype(*weight)));
    }
    snprintf(name, sizeof name, "%s.scales", path);
    *scales = nn_params_take_named(params, groups, ndim, name);
    snprintf(name, sizeof name, "%s.biases", path);
    if (quant.mode[0] == 'a') *biases = nn_params_take_named(params, groups, ndim, name);
}

static Linear load(NnParams *params, int in, int out, bool has_bias, bool lies_transposed,
                   const char *path) {
    Linear layer = {0};
    char name[NN_PATH + 16];
    mx_scope s = mx_open();
    if (nn_params_quant(params, path, &layer.quant)) {
        nn_params_take_packed(params, (const int[]){out, in}, 2, layer.quant, path, &layer.weight,
                              &layer.scales, &layer.biases);
        layer.rounds = nn_params_rounds(params, layer.quant, has_bias, path);
    } else {
        snprintf(name, sizeof name, "%s.weight", path);
        int shape[] = {lies_transposed ? in : out, lies_transposed ? out : in};
        mlx_array weight = nn_params_take_named(params, shape, 2, name);
        layer.weight = weight;
        if (weight.ctx && !lies_transposed) {
            layer.weight = nn_params_adopt(params, mx_swapaxes(weight, 0, 1));
        }
    }
    snprintf(name, sizeof name, "%s.bias", path);
    if (has_bias) layer.bias = nn_params_take_named(params, &out, 1, name);

    layer.module = nn_module_new(params, (NnModule){.path = path,
                                                    .kind = NN_LINEAR,
                                                    .in = in,
                                                    .out = out,
                                                    .weight = layer.weight,
                                                    .scales = layer.scales,
                                                    .biases = layer.biases,
                                                    .quant = layer.quant,
                                                    .columns = true});
    mx_drop(s);
    return layer;
}

Linear nn_linear_load(NnParams *params, int in, int out, bool has_bias, const char *format, ...) {
    char path[NN_PATH];
    NN_FORMAT(path, format);
    return load(params, in, out, has_bias, false, path);
}

Linear nn_linear_load_transposed(NnParams *params, int in, int out, bool has_bias,
                                 const char *format, ...) {
    char path[NN_PATH];
    NN_FORMAT(path, format);
    /* Packing always turns such a weight around first. */
    bool packed = nn_params_has(params, "%s.scales", path);
    return load(params, in, out, has_bias, !packed, path);
}

mlx_array nn_linear(const Linear *layer, mlx_array x) {
    bool plain = !nn_adapted(layer->module);
    mlx_array y;
    if (layer->rounds) {
        y = mx_rounded_matmul(x, layer->weight, layer->scales, layer->quant);
    } else if (layer->quant.group_size) {
        y = mx_quantized_matmul(x, layer->weight, layer->scales, layer->biases, true, layer->quant);
    } else if (layer->bias.ctx && plain) {
        return mx_addmm(layer->bias, x, layer->weight);
    } else {
        y = mx_matmul(x, layer->weight);
    }
    if (!plain) y = nn_adapt_linear(layer->module, x, y);
    return layer->bias.ctx ? mx_add(y, layer->bias) : y;
}

mlx_array nn_linear_some(const Linear *layer, mlx_array x, mlx_array outputs) {
    mlx_array rows; /* [n, in] */
    if (layer->quant.group_size) {
        mlx_array biases = layer->biases.ctx ? mx_take(layer->biases, outputs, 0) : layer->biases;
        rows = mx_dequantize(mx_take(layer->weight, outputs, 0), mx_take(layer->scales, outputs, 0),
                             biases, layer->quant);
    } else {
        rows = mx_swapaxes(mx_take(layer->weight, outputs, 1), 0, 1);
    }
    mlx_array y = mx_matmul(mx_cast(x, MLX_FLOAT32), mx_swapaxes(mx_cast(rows, MLX_FLOAT32), 0, 1));
    return layer->bias.ctx ? mx_add(y, mx_take(layer->bias, outputs, 0)) : y;
}

Embedding nn_embedding_load(NnParams *params, int count, int dims, const char *format, ...) {
    char path[NN_PATH], name[NN_PATH + 16];
    NN_FORMAT(path, format);
    Embedding layer = {0};
    if (nn_params_quant(params, path, &layer.quant)) {
        nn_params_take_packed(params, (const int[]){count, dims}, 2, layer.quant, path,
                              &layer.weight, &layer.scales, &layer.biases);
    } else {
        snprintf(name, sizeof name, "%s.weight", path);
        layer.weight = nn_params_take_named(params, (const int[]){count, dims}, 2, name);
    }
    layer.module = nn_module_new(params, (NnModule){.path = path,
                                                    .kind = NN_EMBEDDING,
                                                    .in = count,
                                                    .out = dims,
                                                    .weight = layer.weight,
                                                    .scales = layer.scales,
                                                    .biases = layer.biases,
                                                    .quant = layer.quant});
    return layer;
}

mlx_array nn_embedding(const Embedding *layer, mlx_array ids) {
    mlx_array y;
    if (layer->quant.group_size) {
        mlx_array biases = layer->biases.ctx ? mx_take(layer->biases, ids, 0) : layer->biases;
        y = mx_dequantize(mx_take(layer->weight, ids, 0), mx_take(layer->scales, ids, 0), biases,
                          layer->quant);
    } else {
        y = mx_take(layer->weight, ids, 0);
    }
    return nn_adapted(layer->module) ? nn_adapt_embedding(layer->module, ids, y) : y;
}

mlx_array nn_embedding_as_linear(const Embedding *layer, mlx_array x) {
    mlx_array y = layer->quant.group_size ? mx_quantized_matmul(x, layer->weight, layer->scales,
                                                                layer->biases, true, layer->quant)
                                          : mx_matmul(x, mx_swapaxes(layer->weight, 0, 1));
    return nn_adapted(layer->module) ? nn_adapt_as_linear(layer->module, x, y) : y;
}
