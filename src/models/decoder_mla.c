/* Multi-head latent attention (DeepSeek-V2, 2024, section 2.1): keys and values of
 * all heads are read from one latent row a token, and one rotated key is shared by
 * all. Two forms: expanded, which caches full keys and values, and latent, which
 * caches the rows and, for a single token, moves the heads' matrices onto the
 * queries and outputs instead of the whole past. Agrees with mlx_lm's
 * deepseek_v2.py and deepseek_v3.py. */
#include "models/decoder.h"

#include <math.h>

typedef struct Latent {
    int heads, rank, nope, rope_dim, value_dim;
    float scale;
    bool compressed; /* queries have a latent of their own */
    Linear q, q_a, q_b, kv_a, kv_b, o;
    Norm q_a_norm, kv_a_norm;
    SwitchLinear embed, unembed; /* latent form: [heads, rank, nope], [heads, value, rank] */
    const Rope *rope;
} Latent;

static mlx_array queries_of(const Latent *a, mlx_array x) {
    mlx_array q = a->compressed ? nn_linear(&a->q_b, nn_norm(&a->q_a_norm, nn_linear(&a->q_a, x)))
                                : nn_linear(&a->q, x);
    return nn_split_heads(q, a->heads, a->nope + a->rope_dim);
}

static mlx_array expanded(const void *state, mlx_array x, MixerInput *input) {
    const Latent *a = state;
    int offset = input->cache ? input->cache->offset : 0;
    mlx_array q = queries_of(a, x), packed = nn_linear(&a->kv_a, x);
    mlx_array q_nope = mx_slice(q, -1, 0, a->nope);
    mlx_array q_pe = nn_rope_within(a->rope, mx_slice(q, -1, a->nope, a->nope + a->rope_dim),
                                    offset, input->text_length);
    mlx_array latent = nn_norm(&a->kv_a_norm, mx_slice(packed, -1, 0, a->rank));
    mlx_array k_pe = mx_expand_dims(mx_slice(packed, -1, a->rank, a->rank + a->rope_dim), 1);
    k_pe = mx_repeat(nn_rope_within(a->rope, k_pe, offset, input->text_length), a->heads, 1);
    mlx_array kv = nn_split_heads(nn_linear(&a->kv_b, latent), a->heads, a->nope + a->value_dim);
    mlx_array k = mx_concat2(mx_slice(kv, -1, 0, a->nope), k_pe, -1);
    mlx_array v = mx_slice(kv, -1, a->nope, a->nope + a->value_dim);
    mlx_array y =
        nn_attention(input->cache, mx_concat2(q_nope, q_pe, -1), k, v, a->scale, input->mask, 0);
    return nn_linear(&a->o, nn_merge_heads(y));
}

static mlx_array latent(const void *state, mlx_array x, MixerInput *input) {
    const Latent *a = state;
    KvCache *cache = input->cache;
    if (cache && cache->kind == KV_QUANTIZED)
        return mx_fail("a model with latent attention cannot use a quantised cache (kv-bits)");
    int offset = cache ? cache->offset : 0, length = mx_dim(x, 1);
    mlx_array q = queries_of(a, x), packed = nn_linear(&a->kv_a, x);
    mlx_array q_nope = mx_slice(q, -1, 0, a->nope);
    mlx_array q_pe = nn_rope_within(a->rope, mx_slice(q, -1, a->nope, a->nope + a->rope_dim),
                                    offset, input->text_length);
    mlx_array rows = nn_norm(&a->kv_a_norm, mx_slice(packed, -1, 0, a->rank));
    rows = mx_expand_dims(rows, 1); /* [B, 1, L, rank] */
    mlx_array k_pe = mx_expand_dims(mx_slice(packed, -1, a->rank, a->rank + a->rope_dim), 1);
    k_pe = nn_rope_within(a->rope, k_pe, offset, input->text_length);
    if (cache) nn_kv_update(cache, &rows, &k_pe);

    mlx_array by_place =
        mx_matmul(mx_mul_scalar(q_pe, (double)a->scale), mx_swapaxes(k_pe, -1, -2));
    by_place = nn_mask_scores(by_place, input->mask);
    mlx_array y;
    if (length == 1) {
        y = mx_attention(nn_multi_linear(&a->embed, q_nope, true), rows, rows, a->scale, "array",
                         by_place);
        y = nn_multi_linear(&a->unembed, y, true);
    } else {
        y = mx_attention(q_nope, nn_multi_linear(&a->embed, rows, false),
                         nn_multi_linear(&a->unembed, rows, true), a->scale, "array", by_place);
    }
    return nn_linear(&a->o, nn_merge_heads(y));
}

/* YaRN asks for a sharper softmax where it stretched all features. */
static float scale_of(const Loading *l, const Latent *a) {
    double scale = 1 / sqrt(a->nope + a->rope_dim);
    const json_t *rope = json_object_get(l->config, "rope_parameters");
    if (!json_is_object(rope)) rope = json_object_get(l->config, "rope_scaling");
    double all = nn_config_number(l->params, rope, "mscale_all_dim", 0);
    double factor = nn_config_number(l->params, rope, "factor", 1);
    if (all != 0 && factor > 1) {
        double gain = 0.1 * all * log(factor) + 1;
        scale *= gain * gain;
    }
    return (float)scale;
}

Mixer model_latent_load(const Loading *l, const Decoder *d, int i) {
    NnParams *p = l->params;
    const json_t *ready = json_object_get(l->config, "q_lora_rank");
    bool in_full = l->arch.mixer == MIXER_LATENT_EXPANDED;
    Latent *a = nn_params_alloc(p, 1, sizeof *a);
    int hidden = d->hidden_size, heads = d->layers[i].heads;
    a->heads = heads;
    a->rope = d->layers[i].rope;
    a->rank = nn_config_int(p, l->config, "kv_lora_rank", 512);
    a->nope = nn_config_int(p, l->config, "qk_nope_head_dim", 128);
    a->rope_dim = nn_config_int(p, l->config, "qk_rope_head_dim", 64);
    int even = l->arch.sizes.value_dim ? l->arch.sizes.value_dim : hidden / heads;
    a->value_dim = nn_config_int(p, l->config, "v_head_dim", even);
    int q_rank = nn_config_int(p, l->config, "q_lora_rank", 1536);
    a->compressed = !json_is_null(ready);
    if (a->rank < 1 || a->nope < 1 || a->rope_dim < 1 || a->value_dim < 1 || q_rank < 1) {
        nn_params_fail(p, ERROR_INPUT, "config.json: the ranks of latent attention are impossible");
        return (Mixer){0};
    }
    a->scale = scale_of(l, a);
    double own = model_scalar(l, l->arch.latent_eps);
    float eps = own > 0 ? (float)own : l->eps;
    bool bias = l->qkv_bias;
    int q_size = heads * (a->nope + a->rope_dim);
    if (a->compressed) {
        a->q_a =
            nn_linear_load(p, hidden, q_rank, bias, "%s", model_path(l, i, "self_attn.q_a_proj"));
        a->q_a_norm = nn_norm_load(p, NN_NORM_RMS, q_rank, eps, "%s",
                                   model_path(l, i, "self_attn.q_a_layernorm"));
        a->q_b =
            nn_linear_load(p, q_rank, q_size, false, "%s", model_path(l, i, "self_attn.q_b_proj"));
    } else {
        a->q = nn_linear_load(p, hidden, q_size, false, "%s", model_path(l, i, "self_attn.q_proj"));
    }
    a->kv_a = nn_linear_load(p, hidden, a->rank + a->rope_dim, bias, "%s",
                             model_path(l, i, "self_attn.kv_a_proj_with_mqa"));
    a->kv_a_norm = nn_norm_load(p, NN_NORM_RMS, a->rank, eps, "%s",
                                model_path(l, i, "self_attn.kv_a_layernorm"));
    if (in_full) {
        a->kv_b = nn_linear_load(p, a->rank, heads * (a->nope + a->value_dim), false, "%s",
                                 model_path(l, i, "self_attn.kv_b_proj"));
    } else {
        a->embed = nn_multi_linear_load(p, heads, a->nope, a->rank, "%s",
                                        model_path(l, i, "self_attn.embed_q"));
        a->unembed = nn_multi_linear_load(p, heads, a->rank, a->value_dim, "%s",
                                          model_path(l, i, "self_attn.unembed_out"));
    }
    a->o = nn_linear_load(p, heads * a->value_dim, hidden, bias, "%s",
                          model_path(l, i, "self_attn.o_proj"));
    return in_full ? (Mixer){expanded, a, heads, a->nope + a->rope_dim, a->value_dim}
                   : (Mixer){latent, a, 1, a->rank, a->rope_dim};
}
