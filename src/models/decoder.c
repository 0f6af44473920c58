/* One decoder for all families: token ids in, logits out.
 *
 * What tells the families apart is a table of rows (decoder_archs*.c) of norms and
 * where they stand, biases, the forms of attention and feed-forward, names of
 * tensors, and scalars; the forward pass here asks only for what a loaded layer
 * has. Results agree with mlx_lm and transformers. */
#include "models/decoder.h"

/* x, or x plus what a sub-block adds, scaled as Granite does. */
static mlx_array residual(const Decoder *d, mlx_array x, mlx_array branch) {
    branch = mx_mul_scalar(branch, (double)d->residual_scale);
    if (!d->clip_residual || mx_dtype(x) != MLX_FLOAT16) return mx_add(x, branch);
    const double largest = 65504; /* Gemma 3 overflows float16 otherwise */
    mlx_array sum = mx_add(mx_cast(x, MLX_FLOAT32), mx_cast(branch, MLX_FLOAT32));
    sum = mx_maximum(mx_minimum(sum, mx_scalar(largest, MLX_FLOAT32)),
                     mx_scalar(-largest, MLX_FLOAT32));
    return mx_cast(sum, MLX_FLOAT16);
}

static mlx_array normed(const Norm *norm, bool present, mlx_array x) {
    return present ? nn_norm(norm, x) : x;
}

static mlx_array feed_forward(const DecoderLayer *layer, mlx_array x) {
    mx_scope s = mx_open();
    mlx_array y = layer->ffn_block == SUB_LINEAR ? nn_linear(&layer->ffn_linear, x)
                  : layer->moe                   ? model_moe(layer->moe, x)
                                                 : model_glu(&layer->dense, x);
    return mx_close(s, y);
}

/* The layer's output; input->shared passes from layer to layer. */
static mlx_array block(const Decoder *d, const DecoderLayer *layer, mlx_array x,
                       MixerInput *input) {
    mx_scope s = mx_open();
    mlx_array kept[3] = {x, input->shared[0], input->shared[1]};
    mlx_array h = x, r;
    if (layer->attention != SUB_ABSENT) {
        h = normed(&layer->attention_in, layer->has_attention_in, x);
        r = layer->mixer.forward(layer->mixer.state, h, input);
        if (d->parallel) { /* both branches read x, through one norm or two */
            if (layer->has_ffn_in) h = nn_norm(&layer->ffn_in, x);
            r = mx_add(r, feed_forward(layer, h));
        } else {
            r = normed(&layer->attention_out, layer->has_attention_out, r);
        }
        x = residual(d, x, r);
    }
    if (!d->parallel && layer->ffn_block != SUB_ABSENT) {
        r = feed_forward(layer, normed(&layer->ffn_in, layer->has_ffn_in, x));
        x = residual(d, x, normed(&layer->ffn_out, layer->has_ffn_out, r));
    }
    kept[0] = x;
    kept[1] = input->shared[0];
    kept[2] = input->shared[1];
    mx_close_many(s, kept, kept[1].ctx ? 3 : 1);
    input->shared[0] = kept[1];
    input->shared[1] = kept[2];
    return kept[0];
}

static mlx_array embed(const Decoder *d, mlx_array ids, int offset, mlx_array places) {
    mlx_array x = mx_mul_scalar(nn_embedding(&d->embed, ids), d->embed_scale);
    if (d->has_positions) {
        int length = mx_dim(ids, 1);
        if (offset + length > d->n_positions)
            return mx_fail("%d tokens do not fit into the model's %d positions", offset + length,
                           d->n_positions);
        if (!places.ctx) places = mx_arange(offset, offset + length, 1, MLX_INT32);
        x = mx_add(x, nn_embedding(&d->positions, places));
    }
    return d->has_embed_norm ? nn_norm(&d->embed_norm, x) : x;
}

/* Each token sees what came before it in its own chunk of positions. */
static Mask chunk_mask(int offset, int length, int chunk) {
    int end = offset + length;
    mlx_array keys = mx_expand_dims(mx_arange(0, end, 1, MLX_INT32), 0);
    mlx_array queries = mx_expand_dims(mx_arange(offset, end, 1, MLX_INT32), 1);
    mlx_array same =
        mx_equal(mx_floor_divide_scalar(keys, chunk), mx_floor_divide_scalar(queries, chunk));
    return (Mask){.mode = "array", .array = mx_and(same, mx_less_equal(keys, queries))};
}

static const KvCache *slot(const KvCache *caches, int index) {
    return caches && index >= 0 ? &caches[index] : NULL;
}

/* Tokens seen before. */
static int pass_offset(const DecoderPass *pass) {
    const KvCache *full = slot(pass->caches, pass->decoder->first_full);
    const KvCache *any = full ? full : slot(pass->caches, pass->decoder->first_sliding);
    return any ? any->offset : 0;
}

/* The mask, and the tokens' own documents. */
static Mask within_segments(Mask mask, mlx_array segments, int length) {
    if (mask.mode[0] == 'c') {
        mlx_array places = mx_arange(0, length, 1, MLX_INT32);
        mask.mode = "array";
        mask.array = mx_less_equal(mx_expand_dims(places, 0), mx_expand_dims(places, 1));
    }
    mlx_array same = mx_equal(mx_expand_dims(segments, 2), mx_expand_dims(segments, 1));
    same = mx_expand_dims(same, 1); /* [B, 1, L, L] */
    mask.array = mask.array.ctx ? mx_and(mask.array, same) : same;
    mask.mode = "array";
    return mask;
}

DecoderPass model_pass_begin(const Decoder *d, mlx_array ids, KvCache *caches, mlx_array segments,
                             mlx_array places) {
    DecoderPass pass = {d, caches, places, 0, NN_NO_MASK, NN_NO_MASK, NN_NO_MASK};
    int length = mx_dim(ids, 1);
    /* Layers of one window share a mask, and all caches of one kind have seen the
     * same tokens. */
    const KvCache *full_cache = slot(caches, d->first_full);
    const KvCache *sliding_cache = slot(caches, d->first_sliding);
    const KvCache *any = full_cache ? full_cache : sliding_cache;
    pass.text_length = BASE_MAX(pass_offset(&pass) + length, any ? any->text_length : 0);
    if (d->first_full >= 0) pass.full = nn_kv_mask(full_cache, length, 0);
    if (d->first_sliding >= 0) pass.sliding = nn_kv_mask(sliding_cache, length, d->window);
    if (d->chunk > 0) pass.chunked = chunk_mask(pass_offset(&pass), length, d->chunk);
    if (segments.ctx) {
        pass.full = within_segments(pass.full, segments, length);
        pass.sliding = within_segments(pass.sliding, segments, length);
        pass.chunked = within_segments(pass.chunked, segments, length);
    }
    return pass;
}

mlx_array model_pass_embed(const DecoderPass *pass, mlx_array ids) {
    mx_scope s = mx_open();
    return mx_close(s, embed(pass->decoder, ids, pass_offset(pass), pass->places));
}

int model_decoder_blocks(const Decoder *decoder) {
    return decoder->n_layers;
}

void model_decoder_block_prefix(const Decoder *decoder, int i, char *text, size_t bytes) {
    snprintf(text, bytes, "%s.%d.", decoder->layers_prefix, i);
}

static void run_layer(const DecoderPass *pass, const DecoderLayer *layer, mlx_array states[3]) {
    MixerInput input = {.text_length = pass->text_length, .shared = {states[1], states[2]}};
    if (pass->caches && layer->cache >= 0) input.cache = &pass->caches[layer->cache];
    input.mask = layer->chunked ? pass->chunked : layer->sliding ? pass->sliding : pass->full;
    states[0] = block(pass->decoder, layer, states[0], &input);
    states[1] = input.shared[0];
    states[2] = input.shared[1];
}

void model_pass_block(const DecoderPass *pass, int i, mlx_array states[3]) {
    run_layer(pass, &pass->decoder->layers[i], states);
}

void model_pass_block_from(const DecoderPass *pass, int i, NnParams *tensors, const json_t *config,
                           mlx_array states[3]) {
    DecoderLayer layer;
    Error err = {0};
    model_layer_load(tensors, config, pass->decoder, i, &layer);
    if (nn_params_failed(tensors)) {
        nn_params_check(tensors, &err);
        mx_fail("%s", err.message);
        return;
    }
    run_layer(pass, &layer, states);
}

mlx_array model_pass_end(const DecoderPass *pass, mlx_array x) {
    return nn_norm(&pass->decoder->norm, x);
}

mlx_array model_decoder_hidden(const Decoder *d, mlx_array ids, KvCache *caches) {
    mx_scope s = mx_open();
    DecoderPass pass = model_pass_begin(d, ids, caches, (mlx_array){0}, (mlx_array){0});
    mlx_array states[3] = {model_pass_embed(&pass, ids)};
    for (int i = 0; i < d->n_layers; i++) model_pass_block(&pass, i, states);
    return mx_close(s, model_pass_end(&pass, states[0]));
}

bool model_decoder_caps_logits(const Decoder *decoder) {
    return decoder->logit_softcap > 0;
}

/* A factor and a cap. */
static mlx_array bound(const Decoder *d, mlx_array logits) {
    logits = mx_mul_scalar(logits, d->logit_scale);
    if (!(d->logit_softcap > 0)) return logits;
    return mx_mul_scalar(mx_tanh(mx_mul_scalar(logits, 1 / d->logit_softcap)), d->logit_softcap);
}

mlx_array model_decoder_head(const Decoder *d, mlx_array hidden) {
    mx_scope s = mx_open();
    return mx_close(s, bound(d, d->tied ? nn_embedding_as_linear(&d->embed, hidden)
                                        : nn_linear(&d->head, hidden)));
}

mlx_array model_decoder_head_some(const Decoder *d, mlx_array hidden, mlx_array tokens) {
    mx_scope s = mx_open();
    if (!d->tied) return mx_close(s, bound(d, nn_linear_some(&d->head, hidden, tokens)));
    mlx_array rows = mx_cast(nn_embedding(&d->embed, tokens), MLX_FLOAT32);
    mlx_array logits = mx_matmul(mx_cast(hidden, MLX_FLOAT32), mx_swapaxes(rows, 0, 1));
    return mx_close(s, bound(d, logits));
}

int model_decoder_layers(const Decoder *decoder) {
    return decoder->n_caches;
}

int model_decoder_short_length(const Decoder *decoder) {
    int length = 0;
    for (int i = 0; i < decoder->n_layers; i++) {
        const Rope *rope = decoder->layers[i].rope;
        if (rope) length = BASE_MAX(length, rope->short_length);
    }
    return length;
}

int model_decoder_vocab(const Decoder *decoder) {
    return decoder->vocab_size;
}

static const DecoderLayer *of_cache(const Decoder *d, int cache) {
    for (int i = 0; i < d->n_layers; i++) {
        if (d->layers[i].cache == cache) return &d->layers[i];
    }
    return NULL;
}

void model_decoder_kv_shape(const Decoder *decoder, int cache, int *kv_heads, int *key_dim,
                            int *value_dim) {
    const DecoderLayer *layer = of_cache(decoder, cache);
    *kv_heads = layer ? layer->mixer.kv_heads : 0;
    *key_dim = layer ? layer->mixer.key_dim : 0;
    *value_dim = layer ? layer->mixer.value_dim : 0;
}

void model_decoder_caches(const Decoder *d, KvCache *caches, int max_size) {
    for (int i = 0; i < d->n_caches; i++) {
        const DecoderLayer *layer = of_cache(d, i);
        bool sliding = layer && layer->sliding;
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
