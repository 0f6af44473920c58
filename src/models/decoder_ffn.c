/* The dense feed-forward: gated or two layers, fused or not, and the activations
 * that need more than one number. */
#include "models/decoder.h"

#include <string.h>

/* Apertus' xIELU (Huang, 2025) with trained slopes: quadratic above 0, an
 * exponential below. */
static mlx_array xielu(const Glu *glu, mlx_array x) {
    mlx_dtype dtype = mx_dtype(x);
    mlx_array line = mx_mul(x, glu->xielu[XIELU_BETA]);
    mlx_array above = mx_add(mx_mul(mx_square(x), glu->xielu[XIELU_ABOVE]), line);
    mlx_array under = mx_sub(mx_expm1(mx_minimum(x, glu->xielu[XIELU_EPS])), x);
    under = mx_add(mx_mul(under, glu->xielu[XIELU_BELOW]), line);
    return mx_cast(mx_where(mx_greater(x, mx_scalar(0, dtype)), above, under), dtype);
}

static mlx_array activate(const Glu *glu, mlx_array x) {
    return glu->xielu[0].ctx ? xielu(glu, x) : nn_activate(glu->activation, x);
}

static mlx_array below(mlx_array x, double limit) {
    return mx_minimum(x, mx_scalar(limit, mx_dtype(x)));
}

static mlx_array within(mlx_array x, double limit) {
    return mx_maximum(below(x, limit), mx_scalar(-limit, mx_dtype(x)));
}

mlx_array model_pair(NnActivation activation, PairKind pair, float limit, mlx_array gate,
                     mlx_array up) {
    if (pair == PAIR_CLAMPED) { /* gpt-oss */
        gate = below(gate, 7);
        gate = mx_mul(gate, mx_sigmoid(mx_mul_scalar(gate, 1.702)));
        return mx_mul(gate, mx_add_scalar(within(up, 7), 1));
    }
    gate = nn_activate(activation, gate);
    if (pair == PAIR_LIMITED && limit > 0)
        return mx_mul(below(gate, (double)limit), within(up, (double)limit));
    return mx_mul(gate, up);
}

mlx_array model_glu(const Glu *glu, mlx_array x) {
    mlx_array h, halves[2];
    if (glu->kind == FFN_TWO_LAYER) {
        h = activate(glu, nn_linear(&glu->up, x));
    } else if (glu->kind == FFN_GLU) {
        h = model_pair(glu->activation, glu->pair, glu->limit, nn_linear(&glu->gate, x),
                       nn_linear(&glu->up, x));
    } else {
        mx_split(nn_linear(&glu->gate, x), 2, -1, halves);
        bool gate_first = glu->kind == FFN_GLU_FUSED;
        h = model_pair(glu->activation, glu->pair, glu->limit, halves[gate_first ? 0 : 1],
                       halves[gate_first ? 1 : 0]);
    }
    if (glu->has_sub_norm) h = nn_norm(&glu->sub_norm, h);
    return nn_linear(&glu->down, h);
}

/* The slopes are weights, and so are the two constants in the files of some. */
static void load_xielu(const Loading *l, const char *path, Glu *glu) {
    static const struct {
        const char *name;
        double fallback; /* 0: it must be there */
    } numbers[] = {[XIELU_ABOVE] = {"alpha_p", 0},
                   [XIELU_BELOW] = {"alpha_n", 0},
                   [XIELU_BETA] = {"beta", 0.5},
                   [XIELU_EPS] = {"eps", -1e-6}};
    mx_scope s = mx_open();
    mlx_array values[BASE_COUNT(numbers)];
    for (size_t i = 0; i < BASE_COUNT(numbers); i++) {
        const char *name = numbers[i].name;
        values[i] = numbers[i].fallback == 0 || nn_params_has(l->params, "%s.act_fn.%s", path, name)
                        ? nn_params_take(l->params, NULL, 0, "%s.act_fn.%s", path, name)
                        : mx_scalar(numbers[i].fallback, MLX_FLOAT32);
    }
    if (!nn_params_failed(l->params)) {
        values[XIELU_ABOVE] = mx_softplus(values[XIELU_ABOVE]);
        values[XIELU_BELOW] = mx_add(mx_softplus(values[XIELU_BELOW]), values[XIELU_BETA]);
        for (size_t i = 0; i < BASE_COUNT(numbers); i++)
            glu->xielu[i] = nn_params_adopt(l->params, values[i]);
    }
    mx_drop(s);
}

static const char *joined(const Loading *l, const char *path, const char *name) {
    size_t bytes = strlen(path) + strlen(name) + 2;
    char *text = nn_params_alloc(l->params, bytes, 1);
    bool bare = path[0] == '\0' || path[strlen(path) - 1] == '.';
    snprintf(text, bytes, "%s%s%s", path, bare ? "" : ".", name);
    return text;
}

void model_glu_load(const Loading *l, const char *path, int hidden, int width, int layer,
                    const char *sub_norm, Glu *glu) {
    NnParams *p = l->params;
    const DecoderArch *a = &l->arch;
    *glu = (Glu){.kind = a->ffn, .activation = l->activation, .pair = a->pair};
    bool bias = l->ffn_bias, fused = a->ffn == FFN_GLU_FUSED || a->ffn == FFN_GLU_FUSED_UP_FIRST;
    if (a->ffn != FFN_TWO_LAYER) {
        glu->gate = nn_linear_load(p, hidden, fused ? 2 * width : width, bias, "%s",
                                   joined(l, path, a->gate_name));
    }
    if (!fused) glu->up = nn_linear_load(p, hidden, width, bias, "%s", joined(l, path, a->up));
    glu->down = nn_linear_load(p, width, hidden, bias, "%s", joined(l, path, a->down));
    if (model_flag(l, a->xielu)) load_xielu(l, path, glu);
    if (glu->pair == PAIR_CLAMPED) glu->pair = PAIR_PLAIN; /* of experts only */
    if (glu->pair == PAIR_LIMITED) {
        glu->limit =
            (float)json_number_value(model_layer_value(l->config, "swiglu_limits_shared", layer));
    }
    glu->has_sub_norm = sub_norm != NULL;
    if (glu->has_sub_norm)
        glu->sub_norm = nn_norm_load(p, l->norm, width, l->eps, "%s", joined(l, path, sub_norm));
}
