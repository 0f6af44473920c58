/* The gradient of scaled_dot_product_attention: one node for all of dq, dk, dv and
 * dsinks. Its own gradient, and that of an additive mask, go through the same
 * attention written with basic operations. */
#include "engine/grad/tape.h"
#include "engine/ops/attention.h"
#include "engine/ops/rule.h"

#include <float.h>
#include <string.h>

/* ---- with basic operations ---------------------------------------------------- */

/* Scores with the mask on: [B, Hkv, G, Lq, Lk] float32 or float64. */
static Node *masked_scores(const AttentionParam *param, Node *scores, Node *const *inputs,
                           Temps *t) {
    const int *shape = scores->shape;
    const int heads[4] = {shape[0], shape[1] * shape[2], shape[3], shape[4]};
    const mlx_dtype wide = scores->dtype;
    Node *low = temp(t, node_scalar(wide == MLX_FLOAT64 ? -DBL_MAX : -(double)FLT_MAX, wide));
    if (param->causal) {
        const int shift = heads[3] - heads[2];
        Node *rows = temp(t, op_arange(shift, shift + heads[2], 1, MLX_INT32));
        Node *column = temp(t, op_reshape(rows, (int[]){heads[2], 1}, 2));
        Node *keys = temp(t, op_arange(0, heads[3], 1, MLX_INT32));
        Node *seen = temp(t, op_binary(BINARY_GREATER_EQUAL, column, keys));
        return temp(t, op_where(seen, scores, low));
    }
    if (!param->has_mask) return scores;
    Node *whole = temp(t, op_broadcast_to(inputs[3], heads, 4));
    Node *mask = temp(t, op_reshape(whole, shape, 5));
    if (inputs[3]->dtype == MLX_BOOL) return temp(t, op_where(mask, scores, low));
    return temp(t, op_add(scores, temp(t, op_astype(mask, wide))));
}

Node *attention_composed(const AttentionParam *param, Node *const *inputs) {
    const Node *query = inputs[0], *key = inputs[1];
    const int batch = query->shape[0], heads = key->shape[1], group = query->shape[1] / heads;
    const int q_len = query->shape[2], kv_len = key->shape[2], width = inputs[2]->shape[3];
    const mlx_dtype wide = query->dtype == MLX_FLOAT64 ? MLX_FLOAT64 : MLX_FLOAT32;
    Temps t = {0};
    Node *q = temp(&t, op_scale(temp(&t, op_astype(inputs[0], wide)), (double)param->scale));
    q = temp(&t, op_reshape(q, (int[]){batch, heads, group, q_len, query->shape[3]}, 5));
    const int axis = 2;
    Node *k = temp(&t, op_expand_dims(temp(&t, op_astype(inputs[1], wide)), &axis, 1));
    Node *v = temp(&t, op_expand_dims(temp(&t, op_astype(inputs[2], wide)), &axis, 1));
    Node *scores = temp(&t, op_matmul(q, temp(&t, op_swapaxes(k, -1, -2))));
    if (scores) scores = masked_scores(param, scores, inputs, &t);
    const int last = 4;
    if (param->has_sinks) {
        Node *sink =
            temp(&t, op_reshape(inputs[3 + param->has_mask], (int[]){1, heads, group, 1, 1}, 5));
        sink = temp(&t, op_broadcast_to(sink, (int[]){batch, heads, group, q_len, 1}, 5));
        scores = temp(&t, op_concatenate((Node *const[]){scores, sink}, 2, last));
    }
    Node *p = temp(&t, op_softmax(scores, &last, 1, true));
    if (param->has_sinks) p = temp(&t, op_slice_axis(p, last, 0, kv_len));
    Node *out = temp(&t, op_matmul(p, v));
    Node *result = op_reshape(out, (int[]){batch, heads * group, q_len, width}, 4);
    temps_end(&t, true);
    return result;
}

static bool compose_forward(const void *param, Node *const *inputs, Node **outputs) {
    Node *wide = attention_composed(param, inputs);
    outputs[0] = op_astype(wide, inputs[0]->dtype);
    node_release(wide);
    return outputs[0] != NULL;
}

/* ---- the fused gradient -------------------------------------------------------- */

enum { PARTS = 4 }; /* dq, dk, dv, dsinks */

typedef struct AttentionGradParam {
    AttentionParam attention;
    bool wanted[PARTS];
    size_t keys[PARTS], bytes; /* offsets of the results, and all they take */
} AttentionGradParam;

/* Results lie as [B, L, H, D], as a model wants them. */
static void heads_inside(ptrdiff_t *strides, const Node *like) {
    const ptrdiff_t heads = like->shape[1], length = like->shape[2], width = like->shape[3];
    strides[0] = length * heads * width;
    strides[1] = width;
    strides[2] = heads * width;
}

/* inputs: q, k, v, mask, sinks as attention has them, then g. */
static bool attention_grad_eval(Node *node, Error *err) {
    const AttentionGradParam *param = node->param;
    const AttentionParam *attention = &param->attention;
    Node *q = NULL, *k = NULL, *v = NULL, *g = NULL, *sinks = NULL;
    if (!node_alloc_bytes(node, param->bytes, err)) return false;
    bool ok = attention_rows(node->inputs[0], &q, err) &&
              attention_rows(node->inputs[1], &k, err) &&
              attention_rows(node->inputs[2], &v, err) &&
              attention_rows(node->inputs[node->n_inputs - 1], &g, err);
    if (ok && attention->has_sinks)
        ok = (sinks = ready_row_contiguous(node->inputs[3 + attention->has_mask], err)) != NULL;
    if (ok) {
        uint8_t *out = node_data(node);
        const Node *mask = attention->has_mask ? node->inputs[3] : NULL;
        CpuAttentionGrad job = {.forward = attention_job(attention, q, k, v, mask, sinks),
                                .g = node_data(g)};
        void *results[PARTS];
        for (int i = 0; i < PARTS; i++) results[i] = param->wanted[i] ? out + param->keys[i] : NULL;
        job.dq = results[0];
        job.dk = results[1];
        job.dv = results[2];
        job.dsinks = results[3];
        for (int i = 0; i < 3; i++) job.g_stride[i] = (ptrdiff_t)g->strides[i];
        heads_inside(job.dq_stride, q);
        heads_inside(job.dk_stride, k);
        heads_inside(job.dv_stride, v);
        if (q->size && v->size)
            cpu_attention_grad(&job);
        else
            memset(out, 0, param->bytes);
    }
    node_release(q);
    node_release(k);
    node_release(v);
    node_release(g);
    node_release(sinks);
    return ok;
}

/* The same by going back through the composed attention. */
static bool compose_grad(const void *pointer, Node *const *inputs, Node **outputs) {
    const AttentionGradParam *param = pointer;
    const size_t n = 3 + (size_t)param->attention.has_mask + (size_t)param->attention.has_sinks;
    const size_t targets[PARTS] = {0, 1, 2, n - 1};
    const size_t count = param->attention.has_sinks ? PARTS : PARTS - 1;
    Trace trace;
    if (!trace_begin(&trace, inputs, n)) return false;
    Node *out = attention_composed(&param->attention, trace.tracers), *found[PARTS] = {NULL};
    Node *g = op_astype(inputs[n], MLX_FLOAT32);
    const bool good = out && g && tape_backward(&trace, &out, &g, 1, targets, count, found);
    trace_end(&trace, found, count);
    for (size_t i = 0; i < count && good; i++)
        outputs[i] =
            i < 3 ? op_transpose(found[i], (const int[]){0, 2, 1, 3}, 4) : node_retain(found[i]);
    for (size_t i = 0; i < count; i++) node_release(found[i]);
    node_release(out);
    node_release(g);
    return good;
}

static bool attention_grad_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const AttentionGradParam *param = node->param;
    return ops_composed_vjp(node, g, wanted, grads, compose_grad, param->keys,
                            param->attention.has_sinks ? PARTS : PARTS - 1);
}
static const Op attention_grad_op = {"attention_grad", attention_grad_eval, attention_grad_vjp};

bool attention_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const AttentionParam *attention = node->param;
    const int sinks = attention->has_sinks ? 3 + attention->has_mask : 0;
    if (attention->has_mask && wanted[3])
        return ops_composed_vjp(node, g, wanted, grads, compose_forward, NULL, 1);
    AttentionGradParam param = {.attention = *attention};
    for (int i = 0; i < 3; i++) param.wanted[i] = wanted[i];
    param.wanted[3] = sinks && wanted[sinks];
    for (int i = 0; i < PARTS; i++) {
        param.keys[i] = param.bytes;
        if (param.wanted[i])
            param.bytes += (node_nbytes(node->inputs[i < 3 ? i : sinks]) + 63) / 64 * 64;
        else
            param.keys[i] += 1; /* a place of its own, though nothing lies there */
    }
    Node *inputs[6];
    for (uint32_t i = 0; i < node->n_inputs; i++) inputs[i] = node->inputs[i];
    inputs[node->n_inputs] = g;
    Node *whole = node_new_param(&attention_grad_op, node->dtype, (const int[]){0}, 1, &param,
                                 sizeof param, inputs, (int)node->n_inputs + 1);
    bool good = whole != NULL;
    for (int i = 0; i < 3 && good; i++) {
        if (!wanted[i]) continue;
        const int *s = node->inputs[i]->shape, lying[4] = {s[0], s[2], s[1], s[3]};
        Node *part = node_part(whole, param.keys[i], node->dtype, lying, 4);
        good = (grads[i] = op_transpose(part, (const int[]){0, 2, 1, 3}, 4)) != NULL;
        node_release(part);
    }
    if (good && param.wanted[3])
        good = (grads[sinks] = node_part(whole, param.keys[3], MLX_FLOAT32,
                                         node->inputs[sinks]->shape, 1)) != NULL;
    node_release(whole);
    return good;
}
