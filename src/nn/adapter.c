/* Low-rank adapters on modules: LoRA on linear layers, experts and embeddings, DoRA
 * on linear layers and embeddings. Equations are mlx_lm's (tuner/lora.py, dora.py):
 * the adapter's tensors are float32, what they add is cast to what the base gave. */
#include "nn/params.h"

#include <string.h>

/* ---- loading ------------------------------------------------------------------------ */

static mlx_array take(NnParams *adapter, const char *path, const char *leaf, const int *shape,
                      size_t ndim) {
    char name[NN_PATH + 8];
    snprintf(name, sizeof name, "%s.%s", path, leaf);
    return nn_params_take_named(adapter, shape, ndim, name);
}

static mlx_array peek(const NnParams *adapter, const char *path, const char *leaf) {
    char name[NN_PATH + 8];
    snprintf(name, sizeof name, "%s.%s", path, leaf);
    return nn_params_peek(adapter, name);
}

/* Experts' pairs; before October 2025 mlx_lm wrote lora_a as [E r, in]. */
static void take_experts(NnParams *adapter, NnModule *module) {
    mlx_array a = peek(adapter, module->path, "lora_a"), b = peek(adapter, module->path, "lora_b");
    const int experts = module->experts, rank = mx_dim(b, -1);
    if (mx_ndim(a) == 2) {
        a = take(adapter, module->path, "lora_a", (const int[]){experts * rank, module->in}, 2);
        if (a.ctx) a = nn_params_adopt(adapter, mx_reshape(a, MX_SHAPE(experts, rank, module->in)));
    } else {
        a = take(adapter, module->path, "lora_a", (const int[]){experts, rank, module->in}, 3);
    }
    module->lora.a = a;
    module->lora.b =
        take(adapter, module->path, "lora_b", (const int[]){experts, module->out, rank}, 3);
}

static void take_pair(NnParams *adapter, NnModule *module) {
    const int rank = mx_dim(peek(adapter, module->path, "lora_a"), 1);
    module->lora.a = take(adapter, module->path, "lora_a", (const int[]){module->in, rank}, 2);
    module->lora.b = take(adapter, module->path, "lora_b", (const int[]){rank, module->out}, 2);
    if (!peek(adapter, module->path, "m").ctx) return;
    const int rows = module->kind == NN_EMBEDDING ? module->in : module->out;
    module->lora.m = take(adapter, module->path, "m", &rows, 1);
}

static mlx_array adapted_lengths(const NnModule *module);

NnModule *nn_module_new(NnParams *params, NnModule module) {
    float scale = 1;
    NnParams *adapter = nn_params_adapter_of(params, module.path, &scale);
    if (adapter) {
        mx_scope s = mx_open();
        module.lora.scale = scale;
        if (module.kind == NN_SWITCH)
            take_experts(adapter, &module);
        else
            take_pair(adapter, &module);
        Lora *lora = &module.lora;
        if (lora->m.ctx && module.weight.ctx && !nn_params_failed(adapter)) {
            lora->lengths = nn_params_adopt(params, nn_module_lengths(&module));
            mlx_array factor = mx_div(mx_cast(lora->m, MLX_FLOAT32), adapted_lengths(&module));
            lora->factor = nn_params_adopt(params, factor);
        }
        mx_drop(s);
    }
    return nn_params_enlist(params, &module);
}

/* ---- dropout -------------------------------------------------------------------------- */

mlx_array nn_dropout_key(Dropout *dropout) {
    mlx_array parts[2];
    mx_key_split(dropout->chain, parts);
    mx_store(&dropout->chain, parts[0]);
    return parts[1];
}

static mlx_array dropped(Lora *lora, mlx_array x) {
    Dropout *dropout = lora->dropout;
    if (!dropout || !(dropout->p > 0)) return x;
    if (!dropout->again) mx_store(&lora->key, nn_dropout_key(dropout));
    mlx_array keep = mx_bernoulli(1 - (double)dropout->p, x, lora->key);
    return mx_mul_scalar(mx_mul(keep, x), 1 / (1 - (double)dropout->p));
}

/* ---- what is added ---------------------------------------------------------------------- */

static mlx_array transposed(mlx_array a) {
    return mx_swapaxes(a, -1, -2);
}

/* The base's weight times x [n, in] -> [n, out], an embedding's [n, dims] -> [n, count]. */
static mlx_array base_product(const NnModule *module, mlx_array x) {
    if (module->quant.group_size)
        return mx_quantized_matmul(x, module->weight, module->scales, module->biases, true,
                                   module->quant);
    return mx_matmul(x, module->columns ? module->weight : transposed(module->weight));
}

mlx_array nn_module_lengths(const NnModule *module) {
    mlx_array rows = module->weight;
    if (module->quant.group_size)
        rows = mx_dequantize(rows, module->scales, module->biases, module->quant);
    const bool columns = module->columns && !module->quant.group_size;
    rows = mx_square(mx_cast(rows, MLX_FLOAT32));
    return mx_sqrt(mx_sum(rows, columns ? 0 : 1, false));
}

/* |W + s D|, a row, of D = b'a' without making D: |W|^2 + 2 s W.D + s^2 |D|^2, where the
 * sums over the wide axis are products of r rows. left [rows, r], right [r, width]. */
static mlx_array adapted_lengths(const NnModule *module) {
    const Lora *lora = &module->lora;
    const bool embedding = module->kind == NN_EMBEDDING;
    mlx_array left = mx_stop_gradient(embedding ? lora->a : transposed(lora->b));
    mlx_array right = mx_stop_gradient(embedding ? lora->b : transposed(lora->a));
    const double scale = (double)lora->scale;
    mlx_array with_base = transposed(base_product(module, mx_cast(right, MLX_FLOAT32)));
    mlx_array gram = mx_matmul(left, mx_matmul(right, transposed(right)));
    mlx_array more = mx_add(mx_mul_scalar(mx_cast(with_base, MLX_FLOAT32), 2 * scale),
                            mx_mul_scalar(gram, scale * scale));
    mlx_array squares = mx_add(mx_square(lora->lengths), mx_sum(mx_mul(left, more), -1, false));
    return mx_sqrt(mx_maximum(squares, mx_scalar(1e-30, MLX_FLOAT32)));
}

static mlx_array factor_of(const NnModule *module) {
    if (module->lora.factor.ctx) return module->lora.factor;
    return mx_div(module->lora.m, adapted_lengths(module));
}

static mlx_array plus(mlx_array y, mlx_array delta, float scale) {
    return mx_add(y, mx_cast(mx_mul_scalar(delta, (double)scale), mx_dtype(y)));
}

mlx_array nn_adapt_linear(NnModule *module, mlx_array x, mlx_array y) {
    Lora *lora = &module->lora;
    mlx_array xa = mx_matmul(dropped(lora, x), lora->a);
    y = plus(y, mx_matmul(xa, lora->b), lora->scale);
    return lora->m.ctx ? mx_mul(y, mx_cast(factor_of(module), mx_dtype(y))) : y;
}

mlx_array nn_adapt_switch(NnModule *module, mlx_array x, mlx_array indices, bool sorted,
                          mlx_array y) {
    Lora *lora = &module->lora;
    mlx_array xa = mx_gather_matmul(dropped(lora, x), transposed(lora->a), indices, sorted);
    return plus(y, mx_gather_matmul(xa, transposed(lora->b), indices, sorted), lora->scale);
}

mlx_array nn_adapt_embedding(NnModule *module, mlx_array ids, mlx_array y) {
    Lora *lora = &module->lora;
    mlx_array z = mx_matmul(mx_take(lora->a, ids, 0), lora->b);
    if (!lora->m.ctx) return plus(y, dropped(lora, z), lora->scale);
    mlx_array full = mx_add(mx_cast(y, MLX_FLOAT32), mx_mul_scalar(z, (double)lora->scale));
    mlx_array length = mx_sqrt(mx_sum(mx_square(mx_stop_gradient(full)), -1, false));
    mlx_array factor = mx_expand_dims(mx_div(mx_take(lora->m, ids, 0), length), -1);
    y = plus(y, dropped(lora, z), lora->scale);
    return mx_mul(y, mx_cast(factor, mx_dtype(y)));
}

mlx_array nn_adapt_as_linear(NnModule *module, mlx_array x, mlx_array y) {
    Lora *lora = &module->lora;
    mlx_array xb = mx_matmul(dropped(lora, x), transposed(lora->b));
    y = plus(y, mx_matmul(xb, transposed(lora->a)), lora->scale);
    return lora->m.ctx ? mx_mul(y, mx_cast(factor_of(module), mx_dtype(y))) : y;
}
