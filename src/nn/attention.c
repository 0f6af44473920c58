/* Scaled dot product attention over a cache: the fused operation where it fits,
 * explicit scores where keys are packed or scores are capped. */
#include "nn/cache.h"

#include <math.h>
#include <string.h>

mlx_array nn_split_heads(mlx_array x, int heads, int head_dim) {
    int batch = mx_dim(x, 0), length = mx_dim(x, 1);
    if (length == 1) return mx_reshape(x, MX_SHAPE(batch, heads, 1, head_dim));
    return mx_swapaxes(mx_reshape(x, MX_SHAPE(batch, length, heads, head_dim)), 1, 2);
}

mlx_array nn_merge_heads(mlx_array x) {
    int batch = mx_dim(x, 0), heads = mx_dim(x, 1), length = mx_dim(x, 2), head_dim = mx_dim(x, 3);
    mlx_array rows = length == 1 ? x : mx_swapaxes(x, 1, 2);
    return mx_reshape(rows, MX_SHAPE(batch, length, heads * head_dim));
}

static double lowest(mlx_dtype dtype) {
    return dtype == MLX_FLOAT16    ? -65504.0
           : dtype == MLX_BFLOAT16 ? -3.3895313892515355e38
                                   : -3.4028234663852886e38;
}

mlx_array nn_mask_scores(mlx_array scores, Mask mask) {
    if (mask.mode[0] == '\0') return scores;
    mlx_array keep = mask.array;
    if (strcmp(mask.mode, "causal") == 0) {
        int length = mx_dim(scores, -2), keys = mx_dim(scores, -1);
        mlx_array columns = mx_expand_dims(mx_arange(0, keys, 1, MLX_INT32), 0);
        mlx_array rows = mx_expand_dims(mx_arange(keys - length, keys, 1, MLX_INT32), 1);
        keep = mx_greater_equal(rows, columns);
    }
    return mx_where(keep, scores, mx_scalar(lowest(mx_dtype(scores)), mx_dtype(scores)));
}

/* scores [B, kv, rep, L, T] under a mask that broadcasts to [B, heads, L, T]. */
static mlx_array masked(mlx_array scores, Mask mask) {
    /* [B, 1, L, T]: one mask for all heads */
    if (mask.array.ctx && mx_ndim(mask.array) == 4) mask.array = mx_expand_dims(mask.array, 2);
    return nn_mask_scores(scores, mask);
}

/* What is multiplied: a plain array or packed, scales, biases. */
typedef struct Operand {
    mlx_array parts[3];
    MxQuant quant; /* group_size 0: plain */
} Operand;

static Operand per_group(Operand side) /* [B, kv, T, D] -> [B, kv, 1, T, D] */
{
    for (int i = 0; i < (side.quant.group_size ? 3 : 1); i++)
        side.parts[i] = mx_expand_dims(side.parts[i], 2);
    return side;
}

static mlx_array times(mlx_array x, Operand side, bool transpose) {
    if (side.quant.group_size) {
        return mx_quantized_matmul(x, side.parts[0], side.parts[1], side.parts[2], transpose,
                                   side.quant);
    }
    return mx_matmul(x, transpose ? mx_swapaxes(side.parts[0], -1, -2) : side.parts[0]);
}

static mlx_array explicit_attention(mlx_array queries, Operand keys, Operand values, float scale,
                                    Mask mask, float softcap) {
    mx_scope s = mx_open();
    int batch = mx_dim(queries, 0), heads = mx_dim(queries, 1), length = mx_dim(queries, 2);
    int head_dim = mx_dim(queries, 3), kv_heads = mx_dim(keys.parts[0], 1);
    if (kv_heads < 1) return mx_close(s, mx_fail("attention: no keys"));
    queries = mx_reshape(mx_mul_scalar(queries, (double)scale),
                         MX_SHAPE(batch, kv_heads, heads / kv_heads, length, head_dim));
    mlx_array scores = times(queries, per_group(keys), true);
    if (softcap > 0)
        scores =
            mx_mul_scalar(mx_tanh(mx_mul_scalar(scores, 1 / (double)softcap)), (double)softcap);
    mlx_array weights = mx_softmax(masked(scores, mask), -1);
    mlx_array out = times(weights, per_group(values), false);
    return mx_close(s, mx_reshape(out, MX_SHAPE(batch, heads, length, -1)));
}

mlx_array nn_attention(KvCache *cache, mlx_array queries, mlx_array keys, mlx_array values,
                       float scale, Mask mask, float softcap) {
    if (cache && cache->kind == KV_QUANTIZED) {
        Operand all_keys = {.quant = cache->quant}, all_values = {.quant = cache->quant};
        nn_kv_update_quantized(cache, keys, values, all_keys.parts, all_values.parts);
        return explicit_attention(queries, all_keys, all_values, scale, mask, softcap);
    }
    if (cache) nn_kv_update(cache, &keys, &values);
    if (softcap > 0) {
        return explicit_attention(queries, (Operand){.parts = {keys}}, (Operand){.parts = {values}},
                                  scale, mask, softcap);
    }
    return mx_attention(queries, keys, values, scale, mask.mode, mask.array);
}

mlx_array nn_attention_sinks(KvCache *cache, mlx_array queries, mlx_array keys, mlx_array values,
                             float scale, Mask mask, mlx_array sinks) {
    if (cache && cache->kind == KV_QUANTIZED)
        return mx_fail("a model with attention sinks cannot use a quantised cache (kv-bits)");
    if (cache) nn_kv_update(cache, &keys, &values);
    return mx_attention_sinks(queries, keys, values, scale, mask.mode, mask.array, sinks);
}
