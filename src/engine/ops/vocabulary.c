/* The loss over a large vocabulary: logsumexp of x @ w, and the score of a target
 * a row, without the product, which may be larger than the model. Nobody calls
 * it: a logsumexp (and a take_along_axis) that alone read such a product become
 * parts of it, before a transform goes back through them and when they are
 * evaluated. Where the gradient of x alone is wanted, the mean of the words by their
 * probabilities is made with the logsumexp, in one pass over the words, as attention
 * makes its values; that of the words computes the product again. */
#include "engine/core/internal.h"
#include "engine/ops/combine.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/quant.h"
#include "engine/ops/rule.h"

#include <stdlib.h>
#include <string.h>

enum { LARGE_PRODUCT = 1 << 22, MANY_WORDS = 1 << 12 }; /* items; items of a row */

/* inputs: x, w [depth, words] or the packed arrays, targets or nothing. Two
 * float32 results, an item a row of x: logsumexp and, at `keys[1]`, scores. The
 * gradient has the node itself and the cotangents behind them. */
typedef struct VocabularyParam {
    size_t keys[2];
    QuantParam quant;
    bool packed, targets;
    bool mean;                         /* float32 [rows, depth], behind the node's items */
    bool dx, dw, g_logsumexp, g_score; /* the gradient: wanted, there */
} VocabularyParam;

static int weight_count(const VocabularyParam *param) {
    return param->packed ? quant_input_count(&param->quant) : 1;
}

/* ---- both evaluations ---- */

typedef struct Ready {
    CpuVocabulary job;
    ReadyQuant quant;
    Node *x;
    uint32_t *targets;
} Ready;

static void ready_release(const VocabularyParam *param, Ready *ready) {
    if (param->packed) quant_release(&ready->quant);
    node_release(ready->x);
    free(ready->targets);
}

static bool ready_targets(const Node *targets, Ready *ready, Error *err) {
    CpuVocabulary *job = &ready->job;
    uint32_t *out = base_alloc((job->rows + 1) * sizeof *out);
    job->targets = ready->targets = out;
    Node *list = ready_row_contiguous((Node *)(uintptr_t)targets, err);
    if (!list) return false;
    bool ok = true;
    for (size_t i = 0; i < job->rows && ok; i++) {
        const int64_t which = index_at(list, (int64_t)i, (int64_t)job->words);
        if (which < 0)
            ok = index_outside("take_along_axis", list, (int64_t)i, targets->ndim - 1,
                               (int64_t)job->words, err);
        out[i] = (uint32_t)which;
    }
    node_release(list);
    return ok;
}

static bool ready_job(Node *const *inputs, const VocabularyParam *param, Ready *ready, Error *err) {
    CpuVocabulary *job = &ready->job;
    memset(ready, 0, sizeof *ready);
    if (param->packed && !quant_ready(&ready->quant, inputs + 1, &param->quant, err)) return false;
    ready->x = ready_row_contiguous(inputs[0], err);
    bool ok = ready->x != NULL;
    if (ok) {
        job->depth = (size_t)ready->x->shape[ready->x->ndim - 1];
        job->rows = job->depth ? ready->x->size / job->depth : 0;
        job->x = node_data(ready->x);
        ok = ops_cpu_type(ready->x->dtype, &job->x_type);
    }
    if (param->packed) {
        job->quant = &ready->quant.quant;
        job->words = job->quant->rows;
    } else {
        const Node *w = inputs[1];
        job->w = node_data(w);
        job->w_depth = w->strides[0];
        job->w_word = w->strides[1];
        job->words = (size_t)w->shape[1];
        ok = ok && ops_cpu_type(w->dtype, &job->w_type);
    }
    if (ok && param->targets) ok = ready_targets(inputs[1 + weight_count(param)], ready, err);
    if (!ok) ready_release(param, ready);
    return ok;
}

/* Where the mean lies in the node, in bytes. */
static size_t mean_place(const Node *node) {
    return (node_nbytes(node) + 63) / 64 * 64;
}

static bool vocabulary_eval(Node *node, Error *err) {
    const VocabularyParam *param = node->param;
    Ready ready;
    if (!ready_job(node->inputs, param, &ready, err)) return false;
    const size_t place = mean_place(node);
    const bool ok = node_alloc_bytes(
        node, place + (param->mean ? ready.job.rows * ready.job.depth * 4 : 0), err);
    if (ok) {
        uint8_t *out = node_data(node);
        float *mean = param->mean ? (float *)(void *)(out + place) : NULL;
        cpu_vocabulary_logsumexp(&ready.job, (float *)(void *)out, mean);
        if (param->targets)
            cpu_vocabulary_scores(&ready.job, (float *)(void *)(out + param->keys[1]));
    }
    ready_release(param, &ready);
    return ok;
}

static bool vocabulary_grad_eval(Node *node, Error *err) {
    const VocabularyParam *param = node->param;
    Node *const *more = node->inputs + 1 + weight_count(param) + param->targets;
    Ready ready;
    if (!ready_job(node->inputs, param, &ready, err)) return false;
    const size_t dw_bytes =
        param->dw ? ready.job.words * ready.job.depth * cpu_type_size(ready.job.w_type) : 0;
    bool ok = node_alloc_bytes(node, param->keys[1] + dw_bytes, err);
    if (ok) {
        uint8_t *out = node_data(node);
        const CpuVocabularyGrad grad = {
            .logsumexp = node_data(more[0]),
            .g_logsumexp = param->g_logsumexp ? node_data(more[1]) : NULL,
            .g_score = param->g_score ? node_data(more[1 + param->g_logsumexp]) : NULL,
            .mean = param->mean && !param->dw
                        ? (const float *)(const void *)((uint8_t *)node_data(more[0]) +
                                                        mean_place(more[0]))
                        : NULL,
            .dx = param->dx ? out : NULL,
            .dw = param->dw ? out + param->keys[1] : NULL};
        cpu_vocabulary_grad(&ready.job, &grad);
    }
    ready_release(param, &ready);
    return ok;
}

/* ---- the same from basic operations, for gradients of the gradient ---- */

static Node *product_of(const VocabularyParam *param, Node *const *inputs) {
    if (!param->packed) return op_matmul(inputs[0], inputs[1]);
    return op_quantized_matmul(inputs[0], inputs[1], inputs[2],
                               quant_input_count(&param->quant) > 2 ? inputs[3] : NULL,
                               param->quant);
}

/* The gradient of the products, [rows, words], from x, the weights, targets, the
 * node and the cotangents; *rows is x as a matrix. */
static Node *slope_of(const VocabularyParam *param, Node *const *inputs, Node **rows, Temps *t) {
    Node *x = inputs[0], *const *more = inputs + 1 + weight_count(param) + param->targets;
    Node *flat[5] = { *rows = temp(t, op_flatten(x, 0, -2))};
    for (int i = 1; i <= weight_count(param); i++) flat[i] = inputs[i];
    Node *products = flat[0] ? temp(t, product_of(param, flat)) : NULL;
    const int last = 1;
    Node *slope = temp(t, op_softmax(temp(t, op_astype(products, MLX_FLOAT32)), &last, 1, true));
    if (param->g_logsumexp)
        slope = temp(t, op_multiply(slope, temp(t, op_reshape(more[1], (int[]){-1, 1}, 2))));
    else
        slope = temp(t, op_scale(slope, 0));
    if (param->g_score) {
        Node *targets = temp(t, op_reshape(inputs[1 + weight_count(param)], (int[]){-1, 1}, 2));
        Node *g = temp(t, op_reshape(more[1 + param->g_logsumexp], (int[]){-1, 1}, 2));
        slope = temp(t, op_put_along_axis(COMBINE_ADD, slope, targets, g, 1));
    }
    return temp(t, op_astype(slope, x->dtype));
}

/* dx and dw. */
static bool grad_composed(const void *pointer, Node *const *inputs, Node **outputs) {
    const VocabularyParam *param = pointer;
    Node *x = inputs[0], *rows;
    Temps t = {0};
    Node *slope = slope_of(param, inputs, &rows, &t);
    Node *dx = NULL, *dw = NULL;
    if (param->packed) {
        QuantParam other = param->quant;
        other.transpose = false;
        dx = temp(&t, op_quantized_matmul(slope, inputs[1], inputs[2],
                                          quant_input_count(&other) > 2 ? inputs[3] : NULL, other));
    } else {
        dx = temp(&t, op_matmul(slope, temp(&t, op_transpose(inputs[1], NULL, 0))));
        dw = temp(&t, op_matmul(temp(&t, op_transpose(slope, NULL, 0)), rows));
    }
    outputs[0] = op_reshape(temp(&t, op_astype(dx, x->dtype)), x->shape, x->ndim);
    outputs[1] = param->packed ? node_scalar(0, MLX_FLOAT32) : op_astype(dw, inputs[1]->dtype);
    return temps_end(&t, outputs[0] && outputs[1]);
}

static bool vocabulary_grad_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const VocabularyParam *param = node->param;
    return ops_composed_vjp(node, g, wanted, grads, grad_composed, param->keys, 2);
}
static const Op vocabulary_grad_op = {"vocabulary_grad", vocabulary_grad_eval, vocabulary_grad_vjp};

/* Nobody has the node's value yet, so it can still be made with more behind it. */
static void want_mean(Node *node) {
    if (node->state == NODE_LAZY) ((VocabularyParam *)(uintptr_t)node->param)->mean = true;
}

static bool vocabulary_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (wanted[0] && (((const VocabularyParam *)node->param)->packed || !wanted[1]))
        want_mean(node);
    VocabularyParam param = *(const VocabularyParam *)node->param;
    Node *g_logsumexp = node_part_cotangent(g, 0);
    Node *g_score = param.targets ? node_part_cotangent(g, param.keys[1]) : NULL;
    Node *x = node->inputs[0], *inputs[8];
    int count = 0;
    Temps t = {0};
    for (uint32_t i = 0; i < node->n_inputs; i++) inputs[count++] = node->inputs[i];
    inputs[count++] = node;
    if (g_logsumexp) inputs[count++] = temp(&t, op_contiguous(g_logsumexp, false));
    if (g_score) inputs[count++] = temp(&t, op_contiguous(g_score, false));
    param.dx = wanted[0];
    param.dw = !param.packed && wanted[1];
    param.g_logsumexp = g_logsumexp != NULL;
    param.g_score = g_score != NULL;
    param.keys[1] = (node_nbytes(x) + 63) / 64 * 64;
    if (param.packed && !quant_differentiable("quantized_matmul", &param.quant, wanted + 1))
        return temps_end(&t, false);
    if (param.packed && param.quant.mode == CPU_AFFINE && (wanted[2] || wanted[3])) {
        Node *rows, *slope = temp(&t, op_transpose(slope_of(&param, inputs, &rows, &t), NULL, 0));
        Node *dw = temp(&t, op_matmul(temp(&t, op_astype(slope, MLX_FLOAT32)),
                                      temp(&t, op_astype(rows, MLX_FLOAT32))));
        if (!dw || !quant_scale_grads(dw, inputs + 1, &param.quant, wanted + 1, grads + 1))
            return temps_end(&t, false);
    }
    Node *whole = temp(&t, node_new_param(&vocabulary_grad_op, x->dtype, x->shape, x->ndim, &param,
                                          sizeof param, inputs, count));
    bool good = whole != NULL;
    if (good && param.dx)
        good = (grads[0] = node_part(whole, 0, x->dtype, x->shape, x->ndim)) != NULL;
    if (good && param.dw) {
        const Node *w = node->inputs[1];
        Node *dw = temp(
            &t, node_part(whole, param.keys[1], w->dtype, (int[]){w->shape[1], w->shape[0]}, 2));
        good = (grads[1] = op_transpose(dw, NULL, 0)) != NULL;
    }
    return temps_end(&t, good);
}
static const Op vocabulary_op = {"vocabulary", vocabulary_eval, vocabulary_vjp};

/* ---- where it fits ---- */

static bool lies_lazy(const Node *node) {
    return node->state == NODE_LAZY && !node->buffer && node->op;
}

/* A large product by one matrix of words. */
static bool is_product(const Node *node) {
    CpuType type;
    if (!lies_lazy(node)) return false;
    const bool packed = node->op == &quantized_matmul_op;
    if (node->op != &matmul_op && !(packed && ((const QuantParam *)node->param)->transpose))
        return false;
    return node->inputs[1]->ndim == 2 && node->size >= LARGE_PRODUCT &&
           node->shape[node->ndim - 1] >= MANY_WORDS && ops_cpu_type(node->dtype, &type);
}

bool vocabulary_reads(const Node *node) {
    return (node->op == &logsumexp_op || node->op == &take_along_op) &&
           node->inputs[0]->size >= LARGE_PRODUCT;
}

static uint32_t references(const Node *node) {
    return atomic_load_explicit(&node->refs, memory_order_relaxed);
}

/* The one that takes a target's score a row of `source`, if there is one. */
static Node *score_of(const Node *source, Node *const *nodes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Node *node = nodes[i];
        if (!lies_lazy(node) || node->op != &take_along_op || node->inputs[0] != source) continue;
        const Node *targets = node->inputs[1];
        const int axis = *(const int *)node->param; /* AxisParam */
        const size_t rows = source->size / (size_t)source->shape[source->ndim - 1];
        const bool fits = axis == source->ndim - 1 && node->shape[axis] == 1 &&
                          node->size == rows && targets->size == rows;
        return fits ? node : NULL;
    }
    return NULL;
}

static void become_part(Node *node, Node *whole, size_t key) {
    Node *part = node_part(whole, key, MLX_FLOAT32, node->shape, node->ndim);
    Node *cast = op_astype(part, node->dtype);
    node_release(part);
    if (cast) node_become(node, cast);
}

static bool fuse_one(Node *reader, Node *const *nodes, size_t count) {
    Node *source = reader->inputs[0];
    Node *score = score_of(source, nodes, count);
    if (!lies_lazy(source) || references(source) != 1 + (score != NULL)) return false;
    /* Logits may be cast first. */
    const Node *product = source;
    CpuType type;
    if (!is_product(product) && source->n_inputs == 1 && source->op->eval == astype_eval &&
        ops_cpu_type(source->dtype, &type) && references(source->inputs[0]) == 1)
        product = source->inputs[0];
    if (!is_product(product)) return false;
    VocabularyParam param;
    memset(&param, 0, sizeof param);
    param.packed = product->op == &quantized_matmul_op;
    param.targets = score != NULL;
    if (param.packed) param.quant = *(const QuantParam *)product->param;
    Node *inputs[5];
    int n = 0;
    for (uint32_t i = 0; i < product->n_inputs; i++) inputs[n++] = product->inputs[i];
    if (score) inputs[n++] = score->inputs[1];
    const size_t rows = reader->size;
    param.keys[1] = (rows * sizeof(float) + 63) / 64 * 64;
    const int items = (int)((param.keys[1] / sizeof(float)) + rows);
    Node *whole =
        node_new_param(&vocabulary_op, MLX_FLOAT32, &items, 1, &param, sizeof param, inputs, n);
    if (!whole) return false;
    become_part(reader, whole, 0);
    if (score) become_part(score, whole, param.keys[1]);
    node_release(whole);
    return true;
}

size_t vocabulary_fuse(Node *const *nodes, size_t count) {
    size_t fused = 0;
    for (size_t i = 0; i < count; i++)
        if (lies_lazy(nodes[i]) && nodes[i]->op == &logsumexp_op)
            fused += fuse_one(nodes[i], nodes, count);
    return fused;
}
