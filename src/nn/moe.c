/* One matrix an expert: the gathered product that mixtures of experts are made
 * of, dense or packed, and the product with all of them at once (multi-head
 * latent attention keeps a matrix a head). */
#include "nn/params.h"

static SwitchLinear load(NnParams *params, int experts, int in, int out, bool has_bias,
                         const char *path) {
    char name[NN_PATH + 16];
    SwitchLinear layer = {0};
    const int shape[] = {experts, out, in};
    if (nn_params_quant(params, path, &layer.quant)) {
        nn_params_take_packed(params, shape, 3, layer.quant, path, &layer.weight, &layer.scales,
                              &layer.biases);
    } else {
        snprintf(name, sizeof name, "%s.weight", path);
        layer.weight = nn_params_take_named(params, shape, 3, name);
    }
    snprintf(name, sizeof name, "%s.bias", path);
    if (has_bias) layer.bias = nn_params_take_named(params, shape, 2, name);
    return layer;
}

SwitchLinear nn_switch_linear_load(NnParams *params, int experts, int in, int out, bool has_bias,
                                   const char *format, ...) {
    char path[NN_PATH];
    NN_FORMAT(path, format);
    SwitchLinear layer = load(params, experts, in, out, has_bias, path);
    layer.module = nn_module_new(params, (NnModule){.path = path,
                                                    .kind = NN_SWITCH,
                                                    .in = in,
                                                    .out = out,
                                                    .experts = experts,
                                                    .weight = layer.weight,
                                                    .scales = layer.scales,
                                                    .biases = layer.biases,
                                                    .quant = layer.quant});
    return layer;
}

SwitchLinear nn_multi_linear_load(NnParams *params, int heads, int in, int out, const char *format,
                                  ...) {
    char path[NN_PATH];
    NN_FORMAT(path, format);
    return load(params, heads, in, out, false, path);
}

mlx_array nn_switch_linear(const SwitchLinear *layer, mlx_array x, mlx_array indices, bool sorted) {
    mlx_array y = layer->quant.group_size
                      ? mx_gather_quantized_matmul(x, layer->weight, layer->scales, layer->biases,
                                                   indices, sorted, layer->quant)
                      : mx_gather_matmul(x, mx_swapaxes(layer->weight, -1, -2), indices, sorted);
    if (nn_adapted(layer->module)) y = nn_adapt_switch(layer->module, x, indices, sorted, y);
    if (!layer->bias.ctx) return y;
    return mx_add(y, mx_expand_dims(mx_take(layer->bias, indices, 0), -2));
}

mlx_array nn_multi_linear(const SwitchLinear *layer, mlx_array x, bool transpose) {
    if (layer->quant.group_size) {
        return mx_quantized_matmul(x, layer->weight, layer->scales, layer->biases, transpose,
                                   layer->quant);
    }
    return mx_matmul(x, transpose ? mx_swapaxes(layer->weight, -1, -2) : layer->weight);
}
