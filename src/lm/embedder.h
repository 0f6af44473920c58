/* Inside the embedder: what a folder says comes after the encoder. */
#ifndef LM_EMBEDDER_H
#define LM_EMBEDDER_H

#include "lm/encoding.h"

enum { LM_POOLINGS = 6, LM_DENSE = 4 };

typedef struct Pooling {
    const char *name, *old_key; /* pooling_mode's word, and the older boolean key */
    void (*pool)(const float *hidden, int skip, int length, int dim, float *out);
} Pooling;
extern const Pooling lm_poolings[LM_POOLINGS];

typedef struct EmbedderDense {
    NnParams *params;
    Linear linear;
    NnActivation activation;
} EmbedderDense;

struct LmEmbedder {
    EncoderModel model;
    bool pooling[LM_POOLINGS]; /* which of lm_poolings are joined */
    bool include_prompt, normalise;
    EmbedderDense dense[LM_DENSE];
    int n_dense, pooled_dim, dim, max_tokens;
    char *prompts[3]; /* by LmEmbedKind; NULL: none */
    char pooling_name[96], identity[17];
};

#endif
