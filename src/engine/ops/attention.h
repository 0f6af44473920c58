/* What attention and its gradient share. */
#ifndef ENGINE_OPS_ATTENTION_H
#define ENGINE_OPS_ATTENTION_H

#include "engine/ops/ops.h"

typedef struct AttentionParam {
    float scale;
    bool causal, has_mask, has_sinks; /* inputs behind q, k, v: mask, sinks */
} AttentionParam;

/* x itself when its rows lie contiguously, else a copy; release it. */
bool attention_rows(Node *x, Node **ready, Error *err);
/* The kernel's view of ready arrays with contiguous rows; mask and sinks may be
 * NULL. The output is left to the caller. */
CpuAttention attention_job(const AttentionParam *param, const Node *q, const Node *k, const Node *v,
                           const Node *mask, const Node *sinks);
/* The same with basic operations, on inputs as attention has them; the result in
 * float32, or float64 for float64. */
Node *attention_composed(const AttentionParam *param, Node *const *inputs);
bool attention_vjp(Node *node, Node *g, const bool *wanted, Node **grads);

#endif
