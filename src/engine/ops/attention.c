/* fast.scaled_dot_product_attention: checks, masks and strides for the
 * streaming attention kernel. */
#include "engine/ops/attention.h"
#include "mlx/c/fast.h"

#include <string.h>

bool attention_rows(Node *x, Node **ready, Error *err) {
    const int last = x->ndim - 1;
    const bool runs = x->shape[last] == 1 || x->strides[last] == 1;
    *ready = runs ? node_retain(x) : ready_row_contiguous(x, err);
    return *ready != NULL;
}

static void copy_strides(ptrdiff_t *out, const Node *x) {
    for (int i = 0; i < 3; i++) out[i] = (ptrdiff_t)x->strides[i];
}

CpuAttention attention_job(const AttentionParam *param, const Node *q, const Node *k, const Node *v,
                           const Node *mask, const Node *sinks) {
    CpuAttention job = {.batch = (size_t)q->shape[0],
                        .q_heads = (size_t)q->shape[1],
                        .kv_heads = (size_t)k->shape[1],
                        .q_len = (size_t)q->shape[2],
                        .kv_len = (size_t)k->shape[2],
                        .head_dim = (size_t)q->shape[3],
                        .value_dim = (size_t)v->shape[3],
                        .q = node_data(q),
                        .k = node_data(k),
                        .v = node_data(v),
                        .scale = param->scale,
                        .causal = param->causal,
                        .sinks = sinks ? node_data(sinks) : NULL};
    ops_cpu_type(q->dtype, &job.type);
    copy_strides(job.q_stride, q);
    copy_strides(job.k_stride, k);
    copy_strides(job.v_stride, v);
    if (!mask) return job;
    const int shape[4] = {q->shape[0], q->shape[1], q->shape[2], k->shape[2]};
    int64_t strides[NODE_DIMS];
    strides_broadcast(mask, shape, 4, strides);
    for (int i = 0; i < 4; i++) job.mask_stride[i] = (ptrdiff_t)strides[i];
    job.mask = node_data(mask);
    job.mask_kind = ops_cpu_type(mask->dtype, &job.mask_type) ? CPU_MASK_ADDITIVE : CPU_MASK_BOOL;
    return job;
}

/* The result lies in memory as [B, Lq, Hq, Dv], so that putting the heads
 * beside each other, which always follows, is a view. */
static void heads_inside(Node *node) {
    const int64_t heads = node->shape[1], length = node->shape[2], width = node->shape[3];
    node->strides[0] = length * heads * width;
    node->strides[1] = width;
    node->strides[2] = heads * width;
    node->strides[3] = 1;
    node_set_flags(node);
}

static bool attention_eval(Node *node, Error *err) {
    const AttentionParam *param = node->param;
    Node *q = NULL, *k = NULL, *v = NULL, *sinks = NULL;
    bool ok = node_alloc(node, err);
    if (!ok || node->size == 0) return ok;
    heads_inside(node);
    ok = attention_rows(node->inputs[0], &q, err) && attention_rows(node->inputs[1], &k, err) &&
         attention_rows(node->inputs[2], &v, err);
    if (ok && param->has_sinks)
        ok = (sinks = ready_row_contiguous(node->inputs[3 + param->has_mask], err)) != NULL;
    if (ok) {
        CpuAttention job =
            attention_job(param, q, k, v, param->has_mask ? node->inputs[3] : NULL, sinks);
        job.out = node_data(node);
        copy_strides(job.out_stride, node);
        cpu_attention(&job);
    }
    node_release(q);
    node_release(k);
    node_release(v);
    node_release(sinks);
    return ok;
}
static const Op attention_op = {"scaled_dot_product_attention", attention_eval, attention_vjp};

#define NAME "[scaled_dot_product_attention] "

static bool attention_shapes(const Node *q, const Node *k, const Node *v) {
    if (q->ndim != 4 || k->ndim != 4 || v->ndim != 4) {
        op_error(NAME "queries, keys and values must have 4 axes, got %s, %s and %s.", SHAPE(q),
                 SHAPE(k), SHAPE(v));
        return false;
    }
    const bool fits = q->shape[0] == k->shape[0] && q->shape[0] == v->shape[0] &&
                      q->shape[3] == k->shape[3] && k->shape[1] == v->shape[1] &&
                      k->shape[2] == v->shape[2] && k->shape[1] > 0 &&
                      q->shape[1] % k->shape[1] == 0;
    if (!fits)
        op_error(NAME "queries %s, keys %s and values %s do not belong together: batch, head size "
                      "and key length must match, and the key heads must divide the query heads.",
                 SHAPE(q), SHAPE(k), SHAPE(v));
    return fits;
}

/* The mask as bool or in a type of the kernels; NULL after an error. */
static Node *attention_mask(Node *mask, const int *scores, mlx_dtype dtype) {
    int merged[NODE_DIMS], ndim;
    CpuType type;
    if (mask->ndim > 4)
        return op_error(NAME "the mask with shape %s expected to have at most rank 4.",
                        SHAPE(mask));
    if (!shape_broadcast(mask->shape, mask->ndim, scores, 4, merged, &ndim)) return NULL;
    if (memcmp(merged, scores, 4 * sizeof *scores) != 0)
        return op_error(NAME "the mask %s does not broadcast to %s.", SHAPE(mask),
                        shape_text(&(ShapeText){{0}}, scores, 4));
    if (mask->dtype == MLX_BOOL) return node_retain(mask);
    if (dtype_promote(mask->dtype, dtype) != dtype)
        return op_error(NAME "Mask type must promote to output type %s, got %s.", dtype_name(dtype),
                        dtype_name(mask->dtype));
    return op_astype(mask, ops_cpu_type(mask->dtype, &type) ? mask->dtype : dtype);
}

static Node *op_attention(Node *q, Node *k, Node *v, float scale, const char *mode, Node *mask,
                          Node *sinks) {
    if (!q || !k || !v || !attention_shapes(q, k, v)) return NULL;
    const mlx_dtype dtype = dtype_promote(dtype_promote(q->dtype, k->dtype), v->dtype);
    CpuType type;
    if (!ops_cpu_type(dtype, &type) && dtype != MLX_FLOAT64)
        return op_error(NAME "Received unsupported type %s.", dtype_name(dtype));
    const bool causal = mode && strcmp(mode, "causal") == 0;
    const bool array = mode && strcmp(mode, "array") == 0;
    if (!mode || (!causal && !array && *mode))
        return op_error(NAME "Invalid mask_mode %s. mask_mode must be 'causal', 'array' or ''.",
                        mode ? mode : "NULL");
    if (causal && mask)
        return op_error(NAME "An explicit mask cannot be given with mask_mode 'causal'.");
    if (sinks && dtype_promote(sinks->dtype, dtype) != dtype)
        return op_error(NAME "Type of sinks must promote to output type %s.", dtype_name(dtype));
    if (sinks && (sinks->ndim != 1 || sinks->shape[0] != q->shape[1]))
        return op_error(NAME "sinks must have one axis of size %d, got %s.", q->shape[1],
                        SHAPE(sinks));
    const int scores[4] = {q->shape[0], q->shape[1], q->shape[2], k->shape[2]};
    Node *cast_mask = mask ? attention_mask(mask, scores, dtype) : NULL;
    if (mask && !cast_mask) return NULL;
    Node *inputs[5] = {op_astype(q, dtype), op_astype(k, dtype), op_astype(v, dtype)};
    int count = 3;
    if (mask) inputs[count++] = cast_mask;
    if (sinks) inputs[count++] = op_astype(sinks, dtype == MLX_FLOAT64 ? dtype : MLX_FLOAT32);
    const AttentionParam param = {scale, causal, mask != NULL, sinks != NULL};
    const int shape[4] = {q->shape[0], q->shape[1], q->shape[2], v->shape[3]};
    Node *result;
    if (k->shape[2] == 0 || q->shape[2] == 0) /* no keys have nothing to give */
        result = op_full_value(shape, 4, 0, dtype);
    else if (dtype == MLX_FLOAT64 || q->shape[3] == 0)
        result = attention_composed(&param, inputs);
    else
        result =
            node_new_param(&attention_op, dtype, shape, 4, &param, sizeof param, inputs, count);
    for (int i = 0; i < count; i++) node_release(inputs[i]);
    return result;
}

int mlx_fast_scaled_dot_product_attention(mlx_array *res, const mlx_array queries,
                                          const mlx_array keys, const mlx_array values, float scale,
                                          const char *mask_mode, const mlx_array mask_arr,
                                          const mlx_array sinks, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res,
                     op_attention(node_of(queries), node_of(keys), node_of(values), scale,
                                  mask_mode, node_of_optional(mask_arr), node_of_optional(sinks)));
}
