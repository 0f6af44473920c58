/* The BERT family: token ids in, hidden states or class scores out.
 *
 * Post-norm transformer blocks that see the whole text (Devlin et al., 2018).
 * Families differ in tensor names, in how positions are counted, and in the
 * classification head; a table says how. Results agree with transformers. */
#include "models/encoders.h"

#include <math.h>
#include <string.h>

static const EncoderArch families[] = {
    {.model_type = "bert",
     .prefix = "bert.",
     .q = "attention.self.query",
     .k = "attention.self.key",
     .v = "attention.self.value",
     .o = "attention.output.dense",
     .attention_norm = "attention.output.LayerNorm",
     .token_types = true,
     .head = HEAD_POOLER},
    {.model_type = "roberta",
     .prefix = "roberta.",
     .q = "attention.self.query",
     .k = "attention.self.key",
     .v = "attention.self.value",
     .o = "attention.output.dense",
     .attention_norm = "attention.output.LayerNorm",
     .token_types = true,
     .positions_after_pad = true,
     .head = HEAD_OWN},
    {.model_type = "xlm-roberta",
     .prefix = "roberta.",
     .q = "attention.self.query",
     .k = "attention.self.key",
     .v = "attention.self.value",
     .o = "attention.output.dense",
     .attention_norm = "attention.output.LayerNorm",
     .token_types = true,
     .positions_after_pad = true,
     .head = HEAD_OWN},
    {.model_type = "mpnet",
     .prefix = "mpnet.",
     .q = "attention.attn.q",
     .k = "attention.attn.k",
     .v = "attention.attn.v",
     .o = "attention.attn.o",
     .attention_norm = "attention.LayerNorm",
     .positions_after_pad = true,
     .relative_bias = true,
     .head = HEAD_OWN},
};

const EncoderArch *model_encoder_arch(const char *model_type) {
    for (size_t i = 0; i < BASE_COUNT(families); i++) {
        if (strcmp(model_type, families[i].model_type) == 0) return &families[i];
    }
    return NULL;
}

void model_encoder_types(char *text, size_t bytes) {
    size_t used = 0;
    for (size_t i = 0; i < BASE_COUNT(families) && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", i ? ", " : "",
                                 families[i].model_type);
    }
}

/* ---- positions and masks ---------------------------------------------------------- */

/* Rows of the position table: 0, 1, ... or, RoBERTa's way, counted from behind
 * the padding id, padding itself at the padding id. */
static mlx_array positions(const Encoder *e, int batch, int length, const int *lengths,
                           bool padded) {
    int first = e->arch->positions_after_pad ? e->pad_id + 1 : 0;
    if (!e->arch->positions_after_pad || !padded) {
        return mx_slice(e->positions.weight, 0, first, first + length);
    }
    mlx_array column = mx_expand_dims(mx_from_i32(lengths, MX_SHAPE(batch)), 1);
    mlx_array index = mx_expand_dims(mx_arange(0, length, 1, MLX_INT32), 0);
    mlx_array counted = mx_add_scalar(index, first);
    mlx_array where = mx_where(mx_less(index, column), counted, mx_scalar(e->pad_id, MLX_INT32));
    return mx_take(e->positions.weight, where, 0);
}

/* [1, heads, L, L], added to the scores: each distance between key and query
 * picks its row of e->by_distance. */
static mlx_array relative_bias(const Encoder *e, int length) {
    mlx_array key = mx_expand_dims(mx_arange(0, length, 1, MLX_INT32), 0);
    mlx_array query = mx_expand_dims(mx_arange(0, length, 1, MLX_INT32), 1);
    mlx_array distance = mx_add_scalar(mx_sub(key, query), e->max_positions - 1);
    mlx_array bias = mx_take(e->by_distance, distance, 0); /* [L, L, H] */
    return mx_expand_dims(mx_transpose(bias, (const int[]){2, 0, 1}, 3), 0);
}

/* bool [B, 1, 1, L]: which tokens are real. */
static mlx_array real_tokens(int batch, int length, const int *lengths) {
    mlx_array column = mx_from_i32(lengths, MX_SHAPE(batch));
    mlx_array index = mx_arange(0, length, 1, MLX_INT32);
    return mx_less(mx_reshape(index, MX_SHAPE(1, 1, 1, length)),
                   mx_reshape(column, MX_SHAPE(batch, 1, 1, 1)));
}

static Mask attention_mask(const Encoder *e, int batch, int length, const int *lengths, bool padded,
                           mlx_dtype dtype) {
    if (!e->arch->relative_bias) {
        return padded ? (Mask){.mode = "array", .array = real_tokens(batch, length, lengths)}
                      : NN_NO_MASK;
    }
    mlx_array bias = mx_cast(relative_bias(e, length), dtype);
    if (padded)
        bias = mx_where(real_tokens(batch, length, lengths), bias, mx_scalar(-30000, dtype));
    return (Mask){.mode = "array", .array = bias};
}

/* ---- the forward pass ---------------------------------------------------------------- */

static mlx_array attention(const Encoder *e, const EncoderLayer *layer, mlx_array x, Mask mask) {
    mx_scope s = mx_open();
    mlx_array q = nn_split_heads(nn_linear(&layer->q, x), e->heads, e->head_dim);
    mlx_array k = nn_split_heads(nn_linear(&layer->k, x), e->heads, e->head_dim);
    mlx_array v = nn_split_heads(nn_linear(&layer->v, x), e->heads, e->head_dim);
    mlx_array y = nn_attention(NULL, q, k, v, 1 / sqrtf((float)e->head_dim), mask, 0);
    return mx_close(s, nn_linear(&layer->o, nn_merge_heads(y)));
}

static mlx_array block(const Encoder *e, const EncoderLayer *layer, mlx_array x, Mask mask) {
    mx_scope s = mx_open();
    x = nn_norm(&layer->attention_norm, mx_add(x, attention(e, layer, x, mask)));
    mlx_array h = nn_linear(&layer->down, nn_activate(e->activation, nn_linear(&layer->up, x)));
    return mx_close(s, nn_norm(&layer->ffn_norm, mx_add(x, h)));
}

mlx_array model_encoder_hidden(const Encoder *e, mlx_array ids, mlx_array types,
                               const int *lengths) {
    mx_scope s = mx_open();
    int batch = mx_dim(ids, 0), length = mx_dim(ids, 1);
    if (length > model_encoder_max_tokens(e)) {
        return mx_close(s, mx_fail("%d tokens are more than the model's %d positions", length,
                                   model_encoder_max_tokens(e)));
    }
    bool padded = false;
    for (int i = 0; i < batch; i++) padded |= lengths[i] < length;

    mlx_array x =
        mx_add(nn_embedding(&e->words, ids), positions(e, batch, length, lengths, padded));
    if (e->arch->token_types) {
        x = mx_add(x, mx_empty(types) ? mx_slice(e->types.weight, 0, 0, 1)
                                      : nn_embedding(&e->types, types));
    }
    x = nn_norm(&e->norm, x);
    Mask mask = attention_mask(e, batch, length, lengths, padded, mx_dtype(x));
    for (int i = 0; i < e->n_layers; i++) x = block(e, &e->layers[i], x, mask);
    return mx_close(s, x);
}

mlx_array model_encoder_classify(const Encoder *e, mlx_array hidden) {
    mx_scope s = mx_open();
    mlx_array first = mx_squeeze(mx_slice(hidden, 1, 0, 1), 1);
    return mx_close(s, nn_linear(&e->classifier, mx_tanh(nn_linear(&e->pooler, first))));
}

int model_encoder_dim(const Encoder *e) {
    return e->hidden_size;
}

int model_encoder_max_tokens(const Encoder *e) {
    return e->max_positions - (e->arch->positions_after_pad ? e->pad_id + 1 : 0);
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
