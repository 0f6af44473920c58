/* Inside the configurable encoder: the table of families and a loaded model. */
#ifndef MODELS_ENCODERS_H
#define MODELS_ENCODERS_H

#include "models/models.h"

/* A yes or no that a key of the config may override; key NULL: fixed. */
typedef struct EncoderFlag {
    const char *key;
    bool value;
} EncoderFlag;

typedef enum {
    POSITIONS_NONE,      /* no table: rotary, or a bias on the scores */
    POSITIONS_FROM_ZERO, /* 0, 1, ... */
    POSITIONS_AFTER_PAD  /* RoBERTa: real tokens count from the padding id + 1 */
} EncoderPositions;

/* A family. A name is NULL where the family has no such thing; names of a layer
 * follow "<layer>.<N>.". */
typedef struct EncoderArch {
    const char *model_type;
    const char *section;     /* object inside the config that speaks of this encoder */
    const char *prefixes[2]; /* left out of the names when there */
    const char *dropped[5];  /* beginnings of names that are not the encoder's */
    /* Keys of the config. */
    const char *hidden_key, *layers_key, *heads_key, *inner_key, *head_dim_key, *eps_key,
        *activation_key;
    double eps;
    const char *activation; /* when the config is silent */
    /* Around the layers. */
    const char *words, *words_copy, *positions, *types, *embed_norm, *final_norm;
    EncoderPositions counting;
    int pad;        /* padding id when the config is silent */
    bool pad_fixed; /* positions count from `pad` whatever the config says */
    /* Inside a layer. */
    const char *layer;
    const char *q, *k, *v, *o; /* k NULL: q holds all three */
    const char *gate, *up, *down;
    const char *up_alone; /* name of `up` when the activation is not gated */
    bool fused_gate;      /* up holds the activated half, then the other */
    const char *attention_norm, *ffn_norm;
    EncoderFlag attention_bias, ffn_bias, norm_bias;
    bool rms, pre_norm, causal, unscaled;
    bool first_norm_absent;    /* layer 0 attends without a norm */
    const char *relative_bias; /* one table for all layers */
    bool buckets_fixed;        /* 32 up to 128 tokens, whatever the config says */
    bool rotary_windows;       /* rotary positions, most layers see a window (ModernBERT) */
    /* Heads. */
    const char *pooler;                              /* tanh over the first token */
    const char *head_dense, *head_norm, *classifier; /* classes */
    const char *projection;                          /* of the state at the closing token */
} EncoderArch;

typedef struct EncoderLayer {
    Linear q, k, v, o, gate, up, down;
    Norm attention_norm, ffn_norm;
    bool has_attention_norm, windowed;
} EncoderLayer;

struct Encoder {
    const EncoderArch *arch;
    int n_layers, hidden_size, heads, head_dim, vocab_size, pad_id, max_tokens;
    int position_pad; /* of POSITIONS_AFTER_PAD */
    int window;       /* tokens seen to each side by windowed layers */
    float scale;      /* of the scores */
    bool gated;
    NnActivation activation;
    Embedding words, positions, types;
    bool has_types;
    mlx_array by_distance; /* [2 furthest + 1, heads]: bias by key - query, clamped */
    int furthest;
    Norm embed_norm, final_norm;
    Rope rope, local_rope;
    EncoderLayer *layers;

    bool has_pooler, has_projection, classify_mean;
    int labels, eos_id, pooled_size;
    Linear pooler, projection, head_dense, classifier;
    NnActivation head_activation;
    Norm head_norm;
};

/* The family's row, or NULL; all families, comma-separated, for messages. */
const EncoderArch *model_encoder_arch(const char *model_type);
void model_encoder_types(char *text, size_t bytes);

#endif
