/* Inside the configurable encoder: the table of families and a loaded model. */
#ifndef MODELS_ENCODERS_H
#define MODELS_ENCODERS_H

#include "models/models.h"

typedef enum {
    HEAD_POOLER, /* pooler.dense, tanh, classifier */
    HEAD_OWN     /* classifier.dense, tanh, classifier.out_proj */
} EncoderHead;

typedef struct EncoderArch {
    const char *model_type, *prefix;
    const char *q, *k, *v, *o, *attention_norm; /* inside encoder.layer.N */
    bool token_types, positions_after_pad, relative_bias;
    EncoderHead head;
} EncoderArch;

typedef struct EncoderLayer {
    Linear q, k, v, o, up, down;
    Norm attention_norm, ffn_norm;
} EncoderLayer;

struct Encoder {
    const EncoderArch *arch;
    int n_layers, hidden_size, heads, head_dim, vocab_size, max_positions, pad_id, labels;
    NnActivation activation;
    Embedding words, positions, types;
    mlx_array
        by_distance; /* [2 max_positions - 1, heads]: bias of key - query + max_positions - 1 */
    Norm norm;
    EncoderLayer *layers;
    Linear pooler, classifier;
};

/* The family's row, or NULL; all families, comma-separated, for messages. */
const EncoderArch *model_encoder_arch(const char *model_type);
void model_encoder_types(char *text, size_t bytes);

#endif
