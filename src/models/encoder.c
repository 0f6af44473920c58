/* One encoder for the BERT family and its relatives: token ids in, hidden states
 * out. Blocks with the norm after each branch (BERT; Devlin et al., 2018) or
 * before it (T5, CLIP, ModernBERT); positions from a table, from rotation, or as
 * a bias on the scores. What a family has, a table says (encoder_archs.c).
 * Results agree with transformers. */
#include "models/encoders.h"

#include <string.h>

/* ---- positions and masks ---------------------------------------------------------- */

/* What the position table adds: [L, D], or [B, L, D] where padding ids are not
 * counted and stand at their own row. */
static mlx_array positions(const Encoder *e, mlx_array ids) {
    int length = mx_dim(ids, 1);
    if (e->arch->counting == POSITIONS_FROM_ZERO) {
        return nn_embedding(&e->positions, mx_arange(0, length, 1, MLX_INT32));
    }
    mlx_array pad = mx_scalar(e->position_pad, MLX_INT32);
    mlx_array real = mx_cast(mx_not(mx_equal(ids, pad)), MLX_INT32);
    mlx_array row = mx_mul(mx_cumsum(real, 1), real);
    return nn_embedding(&e->positions, mx_add_scalar(row, e->position_pad));
}

/* int32 [L, L]: key's place minus query's. */
static mlx_array distances(int length) {
    mlx_array places = mx_arange(0, length, 1, MLX_INT32);
    return mx_sub(mx_expand_dims(places, 0), mx_expand_dims(places, 1));
}

/* [1, heads, L, L], added to the scores: each distance between key and query
 * picks its row of e->by_distance. */
static mlx_array relative_bias(const Encoder *e, int length) {
    mlx_array furthest = mx_scalar(e->furthest, MLX_INT32);
    mlx_array near = mx_maximum(mx_minimum(distances(length), furthest), mx_neg(furthest));
    mlx_array bias = mx_take(e->by_distance, mx_add(near, furthest), 0); /* [L, L, H] */
    return mx_expand_dims(mx_transpose(bias, (const int[]){2, 0, 1}, 3), 0);
}

/* bool [B, 1, 1, L]: which tokens are real. */
static mlx_array real_tokens(int batch, int length, const int *lengths) {
    mlx_array column = mx_from_i32(lengths, MX_SHAPE(batch));
    mlx_array index = mx_arange(0, length, 1, MLX_INT32);
    return mx_less(mx_reshape(index, MX_SHAPE(1, 1, 1, length)),
                   mx_reshape(column, MX_SHAPE(batch, 1, 1, 1)));
}

static mlx_array both(mlx_array a, mlx_array b) {
    return mx_empty(a) ? b : mx_and(a, b);
}

/* The mask of all layers, or of the windowed ones. */
static Mask attention_mask(const Encoder *e, int batch, int length, const int *lengths,
                           mlx_dtype dtype, bool windowed) {
    bool padded = false;
    for (int i = 0; i < batch; i++) padded |= lengths[i] < length;
    mlx_array seen = {0}; /* bool, broadcasts to [B, heads, L, L]; empty: everything */
    if (padded) seen = real_tokens(batch, length, lengths);
    if (e->arch->causal && length > 1) {
        if (!padded) return (Mask){.mode = "causal"};
        seen = both(seen, mx_less_equal(distances(length), mx_scalar(0, MLX_INT32)));
    }
    if (windowed && e->window < length - 1) {
        mlx_array far = mx_abs(distances(length));
        seen = both(seen, mx_less_equal(far, mx_scalar(e->window, MLX_INT32)));
    }
    if (e->arch->relative_bias) {
        mlx_array bias = mx_cast(relative_bias(e, length), dtype);
        if (!mx_empty(seen)) bias = mx_where(seen, bias, mx_scalar(-30000, dtype));
        return (Mask){.mode = "array", .array = bias};
    }
    return mx_empty(seen) ? NN_NO_MASK : (Mask){.mode = "array", .array = seen};
}

/* ---- the forward pass ---------------------------------------------------------------- */

static mlx_array attention(const Encoder *e, const EncoderLayer *layer, mlx_array x, Mask mask) {
    mx_scope s = mx_open();
    mlx_array sides[3];
    if (e->arch->k) {
        sides[0] = nn_linear(&layer->q, x);
        sides[1] = nn_linear(&layer->k, x);
        sides[2] = nn_linear(&layer->v, x);
    } else {
        mx_split(nn_linear(&layer->q, x), 3, -1, sides);
    }
    for (int i = 0; i < 3; i++) sides[i] = nn_split_heads(sides[i], e->heads, e->head_dim);
    if (e->arch->rotary_windows) {
        const Rope *rope = layer->windowed ? &e->local_rope : &e->rope;
        sides[0] = nn_rope(rope, sides[0], 0);
        sides[1] = nn_rope(rope, sides[1], 0);
    }
    mlx_array y = nn_attention(NULL, sides[0], sides[1], sides[2], e->scale, mask, 0);
    return mx_close(s, nn_linear(&layer->o, nn_merge_heads(y)));
}

static mlx_array feed_forward(const Encoder *e, const EncoderLayer *layer, mlx_array x) {
    mx_scope s = mx_open();
    mlx_array h = nn_linear(&layer->up, x);
    if (!e->gated) {
        h = nn_activate(e->activation, h);
    } else if (e->arch->fused_gate) {
        mlx_array halves[2];
        mx_split(h, 2, -1, halves);
        h = mx_mul(nn_activate(e->activation, halves[0]), halves[1]);
    } else {
        h = mx_mul(nn_activate(e->activation, nn_linear(&layer->gate, x)), h);
    }
    return mx_close(s, nn_linear(&layer->down, h));
}

static mlx_array block(const Encoder *e, const EncoderLayer *layer, mlx_array x, Mask mask) {
    mx_scope s = mx_open();
    if (e->arch->pre_norm) {
        mlx_array h = layer->has_attention_norm ? nn_norm(&layer->attention_norm, x) : x;
        x = mx_add(x, attention(e, layer, h, mask));
        return mx_close(s, mx_add(x, feed_forward(e, layer, nn_norm(&layer->ffn_norm, x))));
    }
    x = nn_norm(&layer->attention_norm, mx_add(x, attention(e, layer, x, mask)));
    return mx_close(s, nn_norm(&layer->ffn_norm, mx_add(x, feed_forward(e, layer, x))));
}

mlx_array model_encoder_hidden(const Encoder *e, mlx_array ids, mlx_array types,
                               const int *lengths) {
    mx_scope s = mx_open();
    int batch = mx_dim(ids, 0), length = mx_dim(ids, 1);
    if (length > e->max_tokens) {
        return mx_close(
            s, mx_fail("%d tokens are more than the model's %d positions", length, e->max_tokens));
    }
    mlx_array x = nn_embedding(&e->words, ids);
    if (e->arch->positions) x = mx_add(x, positions(e, ids));
    if (e->has_types) {
        mlx_array first = mx_zeros(MX_SHAPE(1), MLX_INT32);
        x = mx_add(x, nn_embedding(&e->types, mx_empty(types) ? first : types));
    }
    if (e->arch->embed_norm) x = nn_norm(&e->embed_norm, x);
    Mask full = attention_mask(e, batch, length, lengths, mx_dtype(x), false), window = full;
    if (e->arch->rotary_windows)
        window = attention_mask(e, batch, length, lengths, mx_dtype(x), true);
    for (int i = 0; i < e->n_layers; i++) {
        const EncoderLayer *layer = &e->layers[i];
        x = block(e, layer, x, layer->windowed ? window : full);
    }
    return mx_close(s, e->arch->final_norm ? nn_norm(&e->final_norm, x) : x);
}

/* ---- heads ---------------------------------------------------------------------------------- */

static mlx_array first_token(mlx_array hidden) {
    return mx_squeeze(mx_slice(hidden, 1, 0, 1), 1);
}

/* The state at the closing token, whose place is the first of the largest value
 * of `marks` [B, L]. */
static mlx_array closing_token(mlx_array hidden, mlx_array marks) {
    mlx_array place = mx_cast(mx_argmax(marks, 1), MLX_INT32);
    int batch = mx_dim(hidden, 0);
    mlx_array index = mx_broadcast_to(mx_reshape(place, MX_SHAPE(batch, 1, 1)),
                                      MX_SHAPE(batch, 1, mx_dim(hidden, 2)));
    return mx_squeeze(mx_take_along(hidden, index, 1), 1);
}

bool model_encoder_has_pooled(const Encoder *e) {
    return e->has_pooler || e->arch->projection;
}

mlx_array model_encoder_pooled(const Encoder *e, mlx_array hidden, mlx_array ids) {
    mx_scope s = mx_open();
    if (e->has_pooler) return mx_close(s, mx_tanh(nn_linear(&e->pooler, first_token(hidden))));
    /* Configs of the first CLIP models say 2, which is wrong; there the closing
     * token is the largest id of the vocabulary. */
    enum { WRONG_EOS = 2 };
    mlx_array eos = mx_scalar(e->eos_id, MLX_INT32);
    mlx_array marks = e->eos_id == WRONG_EOS ? ids : mx_cast(mx_equal(ids, eos), MLX_INT32);
    mlx_array state = closing_token(hidden, marks);
    return mx_close(s, e->has_projection ? nn_linear(&e->projection, state) : state);
}

/* [B, D]: the mean over real tokens. */
static mlx_array mean_token(mlx_array hidden, const int *lengths) {
    int batch = mx_dim(hidden, 0), length = mx_dim(hidden, 1);
    mlx_array real = mx_reshape(real_tokens(batch, length, lengths), MX_SHAPE(batch, length, 1));
    mlx_array kept = mx_where(real, hidden, mx_scalar(0, mx_dtype(hidden)));
    mlx_array count = mx_expand_dims(mx_from_i32(lengths, MX_SHAPE(batch)), 1);
    return mx_div(mx_sum(kept, 1, false), mx_cast(count, mx_dtype(hidden)));
}

mlx_array model_encoder_classify(const Encoder *e, mlx_array hidden, const int *lengths) {
    mx_scope s = mx_open();
    mlx_array x = e->classify_mean ? mean_token(hidden, lengths) : first_token(hidden);
    x = nn_activate(e->head_activation, nn_linear(&e->head_dense, x));
    if (e->arch->head_norm) x = nn_norm(&e->head_norm, x);
    return mx_close(s, nn_linear(&e->classifier, x));
}

int model_encoder_dim(const Encoder *e) {
    return e->hidden_size;
}
int model_encoder_max_tokens(const Encoder *e) {
    return e->max_tokens;
}
int model_encoder_vocab(const Encoder *e) {
    return e->vocab_size;
}
int model_encoder_labels(const Encoder *e) {
    return e->labels;
}
int model_encoder_pad_id(const Encoder *e) {
    return e->pad_id;
}
