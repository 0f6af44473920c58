/* Norms and activations. */
#include "nn/params.h"

#include <string.h>

Norm nn_norm_load(NnParams *params, NnNormKind kind, int size, float eps, const char *format, ...) {
    char path[NN_PATH], name[NN_PATH + 16];
    NN_FORMAT(path, format);
    Norm norm = {.kind = kind, .eps = eps};
    if (kind == NN_NORM_RMS_UNIT || kind == NN_NORM_LAYER_UNIT) return norm;
    snprintf(name, sizeof name, "%s.weight", path);
    norm.weight = nn_params_take_named(params, &size, 1, name);
    bool plus_one = kind == NN_NORM_RMS_PLUS_ONE || kind == NN_NORM_LAYER_BIAS_PLUS_ONE;
    if (plus_one && norm.weight.ctx) {
        mx_scope s = mx_open();
        norm.weight = nn_params_adopt(params, mx_add_scalar(norm.weight, 1));
        mx_drop(s);
    }
    snprintf(name, sizeof name, "%s.bias", path);
    if (kind == NN_NORM_LAYER_BIAS || kind == NN_NORM_LAYER_BIAS_PLUS_ONE)
        norm.bias = nn_params_take_named(params, &size, 1, name);
    return norm;
}

mlx_array nn_norm(const Norm *norm, mlx_array x) {
    bool rms = norm->kind == NN_NORM_RMS || norm->kind == NN_NORM_RMS_PLUS_ONE ||
               norm->kind == NN_NORM_RMS_UNIT;
    return rms ? mx_rms_norm(x, norm->weight, norm->eps)
               : mx_layer_norm(x, norm->weight, norm->bias, norm->eps);
}

static const struct {
    const char *name;
    NnActivation activation;
} activation_names[] = {
    {"silu", NN_SILU},
    {"swish", NN_SILU},
    {"gelu", NN_GELU},
    {"gelu_python", NN_GELU},
    {"gelu_new", NN_GELU_APPROX},
    {"gelu_pytorch_tanh", NN_GELU_APPROX},
    {"gelu_fast", NN_GELU_APPROX},
    {"gelu_accurate", NN_GELU_APPROX},
    {"gelu_python_tanh", NN_GELU_APPROX},
    {"quick_gelu", NN_GELU_QUICK},
    {"relu", NN_RELU},
    {"relu2", NN_RELU2},
    {"tanh", NN_TANH},
    {"identity", NN_IDENTITY},
    {"linear", NN_IDENTITY},
};

bool nn_activation_parse(const char *name, NnActivation *activation) {
    for (size_t i = 0; i < BASE_COUNT(activation_names); i++) {
        if (strcmp(activation_names[i].name, name) == 0) {
            *activation = activation_names[i].activation;
            return true;
        }
    }
    return false;
}

mlx_array nn_activate(NnActivation activation, mlx_array x) {
    switch (activation) {
    case NN_SILU: return mx_silu(x);
    case NN_GELU: return mx_gelu(x);
    case NN_GELU_APPROX: return mx_gelu_approx(x);
    case NN_GELU_QUICK: return mx_mul(x, mx_sigmoid(mx_mul_scalar(x, 1.702)));
    case NN_RELU: return mx_relu(x);
    case NN_RELU2: return mx_square(mx_relu(x));
    case NN_TANH: return mx_tanh(x);
    case NN_IDENTITY: return x;
    }
    return x;
}
