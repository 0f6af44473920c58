/* One decoder for the Llama-like families: token ids in, logits out.
 *
 * What tells the families apart is a table (decoder_archs.c) of norms and where
 * they stand, biases, the feed-forward form, names of tensors, and scalars; the
 * forward pass here asks only for what a loaded layer has. Loading lives in
 * decoder_load.c. Results agree with mlx_lm and transformers. */
#include "models/decoder.h"

/* x, or x plus what a sub-block adds, scaled as Granite does. */
static mlx_array residual(const Decoder *d, mlx_array x, mlx_array branch) {
    return mx_add(x, mx_mul_scalar(branch, (double)d->residual_scale));
}

static mlx_array normed(const Norm *norm, bool present, mlx_array x) {
    return present ? nn_norm(norm, x) : x;
}

/* Query-key norms: over each head, or over the whole projection before the heads
 * are split. */
static mlx_array project_heads(const Linear *linear, const Norm *norm, QkNorm kind, mlx_array x,
                               int heads, int head_dim) {
    mlx_array y = nn_linear(linear, x);
    if (kind == QK_NORM_WHOLE) y = nn_norm(norm, y);
    y = nn_split_heads(y, heads, head_dim);
    return kind == QK_NORM_HEAD ? nn_norm(norm, y) : y;
}

static mlx_array attention(const Decoder *d, const DecoderLayer *layer, mlx_array x, KvCache *cache,
                           Mask mask) {
    mx_scope s = mx_open();
    int offset = cache ? cache->offset : 0;
    mlx_array q, k, v;
    if (d->fused_qkv) {
        mlx_array all = nn_linear(&layer->q, x);
        int q_size = d->heads * d->head_dim, kv_size = d->kv_heads * d->head_dim;
        q = nn_split_heads(mx_slice(all, -1, 0, q_size), d->heads, d->head_dim);
        k = nn_split_heads(mx_slice(all, -1, q_size, q_size + kv_size), d->kv_heads, d->head_dim);
        v = nn_split_heads(mx_slice(all, -1, q_size + kv_size, q_size + 2 * kv_size), d->kv_heads,
                           d->head_dim);
    } else {
        q = project_heads(&layer->q, &layer->q_norm, d->qk_norm, x, d->heads, d->head_dim);
        k = project_heads(&layer->k, &layer->k_norm, d->qk_norm, x, d->kv_heads, d->head_dim);
        v = nn_split_heads(nn_linear(&layer->v, x), d->kv_heads, d->head_dim);
    }
    if (layer->rope) {
        q = nn_rope(layer->rope, q, offset);
        k = nn_rope(layer->rope, k, offset);
    }
    mlx_array y = nn_attention(cache, q, k, v, d->attention_scale, mask, d->attention_softcap);
    return mx_close(s, nn_linear(&layer->o, nn_merge_heads(y)));
}

static mlx_array feed_forward(const Decoder *d, const DecoderLayer *layer, mlx_array x) {
    mx_scope s = mx_open();
    mlx_array h;
    if (d->ffn == FFN_TWO_LAYER) {
        h = nn_activate(d->activation, nn_linear(&layer->up, x));
    } else if (d->ffn == FFN_GLU_FUSED) {
        mlx_array halves[2];
        mx_split(nn_linear(&layer->gate, x), 2, -1, halves);
        h = mx_mul(nn_activate(d->activation, halves[0]), halves[1]);
    } else {
        h = mx_mul(nn_activate(d->activation, nn_linear(&layer->gate, x)),
                   nn_linear(&layer->up, x));
    }
    return mx_close(s, nn_linear(&layer->down, h));
}

static mlx_array block(const Decoder *d, const DecoderLayer *layer, mlx_array x, KvCache *cache,
                       Mask mask) {
    mx_scope s = mx_open();
    mlx_array h = normed(&layer->attention_in, layer->has_attention_in, x);
    mlx_array r = attention(d, layer, h, cache, mask);
    if (d->parallel) { /* both branches read the same norm */
        return mx_close(s, residual(d, mx_add(x, r), feed_forward(d, layer, h)));
    }
    x = residual(d, x, normed(&layer->attention_out, layer->has_attention_out, r));
    r = feed_forward(d, layer, normed(&layer->ffn_in, layer->has_ffn_in, x));
    return mx_close(s, residual(d, x, normed(&layer->ffn_out, layer->has_ffn_out, r)));
}

mlx_array model_decoder_hidden(const Decoder *d, mlx_array ids, KvCache *caches) {
    mx_scope s = mx_open();
    int length = mx_dim(ids, 1);
    mlx_array x = mx_mul_scalar(nn_embedding(&d->embed, ids), d->embed_scale);
    /* Layers of one window share a mask, and all caches of one kind have seen the
     * same tokens. */
    Mask full = NN_NO_MASK, sliding = NN_NO_MASK;
    if (d->first_full >= 0) full = nn_kv_mask(caches ? &caches[d->first_full] : NULL, length, 0);
    if (d->first_sliding >= 0) {
        sliding = nn_kv_mask(caches ? &caches[d->first_sliding] : NULL, length, d->window);
    }
    for (int i = 0; i < d->n_layers; i++) {
        const DecoderLayer *layer = &d->layers[i];
        x = block(d, layer, x, caches ? &caches[i] : NULL, layer->sliding ? sliding : full);
    }
    return mx_close(s, nn_norm(&d->norm, x));
}

mlx_array model_decoder_head(const Decoder *d, mlx_array hidden) {
    mx_scope s = mx_open();
    mlx_array logits =
        d->tied ? nn_embedding_as_linear(&d->embed, hidden) : nn_linear(&d->head, hidden);
    logits = mx_mul_scalar(logits, d->logit_scale);
    if (d->logit_softcap > 0) {
        logits =
            mx_mul_scalar(mx_tanh(mx_mul_scalar(logits, 1 / d->logit_softcap)), d->logit_softcap);
    }
    return mx_close(s, logits);
}

int model_decoder_layers(const Decoder *decoder) {
    return decoder->n_layers;
}

int model_decoder_vocab(const Decoder *decoder) {
    return decoder->vocab_size;
}

void model_decoder_kv_shape(const Decoder *decoder, int *kv_heads, int *head_dim) {
    *kv_heads = decoder->kv_heads;
    *head_dim = decoder->head_dim;
}

void model_decoder_caches(const Decoder *d, KvCache *caches, int max_size) {
    for (int i = 0; i < d->n_layers; i++) {
        bool sliding = d->layers[i].sliding;
        caches[i] = (KvCache){.kind = KV_GROWING};
        if (max_size > 0 || sliding) caches[i].kind = KV_ROTATING;
        if (max_size > 0) {
            caches[i].max_size = max_size;
            caches[i].keep = BASE_MIN(4, max_size - 1);
        }
        if (sliding && (max_size == 0 || d->window < max_size)) {
            caches[i].max_size = d->window;
            caches[i].keep = 0;
        }
    }
}
