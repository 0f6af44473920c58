/* Inside the configurable decoder: the table of families and what a loaded
 * model consists of. */
#ifndef MODELS_DECODER_H
#define MODELS_DECODER_H

#include "models/models.h"

typedef enum { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_WHOLE } QkNorm;
typedef enum { FFN_GLU, FFN_GLU_FUSED, FFN_TWO_LAYER } FfnKind;
/* Yes, no, or as a key of the config says. */
typedef struct Flag {
    const char *key; /* NULL: always `value` */
    bool value;      /* when the config has no such key */
} Flag;
typedef struct Scalar {
    const char *key;
    double value;
} Scalar;
typedef enum { EMBED_PLAIN, EMBED_SQRT_HIDDEN } EmbedScale;
typedef enum {
    WINDOW_NONE,
    WINDOW_LAYER_TYPES, /* only where layer_types says so; it decides in all rules */
    WINDOW_ALL,         /* sliding_window, when given, holds for every layer */
    WINDOW_ALTERNATING, /* even layers slide (Gemma 2) */
    WINDOW_PATTERN      /* all but each sliding_window_pattern'th layer slide */
} WindowRule;
typedef enum {
    POSITION_ROPE,
    POSITION_ROPE_SOME,   /* no_rope_layers / no_rope_layer_interval (SmolLM3) */
    POSITION_ROPE_SLIDING /* only sliding layers rotate, if there are any */
} PositionRule;

/* A family. Fields left out are Llama's. The name "" means: there is none; the
 * key "" is never in a config. */
typedef struct DecoderArch {
    const char *model_type;
    NnNormKind norm;
    Flag norm_bias; /* LayerNorm families: with or without bias */
    Scalar norm_eps;
    Flag parallel; /* attention and feed-forward side by side, from one norm */
    /* Norm names in a layer, NULL where there is none. */
    const char *attention_in, *attention_out, *ffn_in, *ffn_out;
    const char *final_norm;
    Flag qkv_bias, o_bias;
    const char *o_name;
    bool fused_qkv;
    QkNorm qk_norm;
    FfnKind ffn;
    const char *gate, *up, *down;
    Flag ffn_bias;
    NnActivation activation;
    const char *activation_key; /* overrides activation; NULL: fixed */
    Flag tied;
    bool head_bias;
    EmbedScale embed;
    Scalar embed_scale, residual_scale, logit_scale, logit_divisor, logit_softcap,
        attention_softcap;
    Scalar attention_scale; /* multiplier itself; 0: from the next */
    Scalar attention_dim;   /* scale = dim^-1/2; 0: head_dim */
    double rope_theta, rope_partial;
    bool rope_traditional;
    WindowRule window;
    int default_window, default_pattern;
    PositionRule position;
    double local_theta;  /* of sliding layers, 0: the same */
    const char *refused; /* a config flag this family's row cannot honour */
} DecoderArch;

/* The family's row, or NULL. */
const DecoderArch *model_decoder_arch(const char *model_type);
/* A row with what it leaves out filled in. */
DecoderArch model_decoder_complete(const DecoderArch *row);
/* All families, comma-separated, for messages. */
void model_decoder_types(char *text, size_t bytes);

typedef struct DecoderLayer {
    Linear q, k, v, o; /* q holds all three when fused */
    Norm q_norm, k_norm;
    Linear gate, up, down;
    Norm attention_in, attention_out, ffn_in, ffn_out;
    bool has_attention_in, has_attention_out, has_ffn_in, has_ffn_out;
    bool sliding;
    const Rope *rope; /* NULL: this layer has no positions */
} DecoderLayer;

struct Decoder {
    int n_layers, hidden_size, vocab_size, heads, kv_heads, head_dim, window;
    float attention_scale, attention_softcap, residual_scale;
    double embed_scale, logit_scale, logit_softcap;
    bool parallel, fused_qkv, tied;
    QkNorm qk_norm;
    FfnKind ffn;
    NnActivation activation;
    int first_full, first_sliding; /* the first layer of each kind, or -1 */
    Embedding embed;
    DecoderLayer *layers;
    Norm norm;
    Linear head;
    Rope rope, local_rope;
};

#endif
