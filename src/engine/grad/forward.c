/* mlx_jvp: tangents pushed forward, node by node.
 *
 * Few operations have forward rules. A gradient rule is linear in its cotangent u and
 * made of differentiable operations, so transposing it gives the forward rule:
 * for y = f(x) with vjp(u) = J^T u, the tangent J t is d/du <vjp(u), t>. */
#include "engine/core/internal.h"
#include "engine/grad/tape.h"
#include "engine/ops/ops.h"
#include "mlx/c/transforms.h"

#include <stdlib.h>

/* Calls the rule of node with the cotangent u (of a whole: of its part `key`),
 * and transposes what it gives. tangents: of node's inputs, NULL for zero. */
static Node *transpose_rule(Node *node, const Trace *trace, const size_t *key,
                            Node *const *tangents) {
    Node *u = trace->tracers[0], *g = NULL, *result = NULL;
    if (!key)
        g = node_retain(u);
    else if (!bundle_add(&g, *key, node_retain(u)))
        return NULL;
    const uint32_t n = node->n_inputs;
    bool *wanted = base_alloc((n + 1) * sizeof *wanted);
    Node **grads = base_calloc(2 * n + 1, sizeof *grads), **cotangents = grads + n;
    for (uint32_t i = 0; i < n; i++) wanted[i] = tangents[i] != NULL;
    if (node->op->vjp(node, g, wanted, grads)) {
        size_t count = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (!grads[i]) continue;
            Node *grad = grads[i];
            grads[i] = NULL;
            grads[count] = grad;
            cotangents[count++] = tangents[i];
        }
        const size_t target = 0;
        if (!tape_backward(trace, grads, cotangents, count, &target, 1, &result)) result = NULL;
    }
    for (uint32_t i = 0; i < n; i++) node_release(grads[i]);
    free(wanted);
    free(grads);
    node_release(g);
    return result;
}

/* The tangent of y, a result of node: node itself or its part `key`. */
static Node *node_tangent(Node *node, const Node *y, const size_t *key, Node *const *tangents) {
    Node *zero = op_full_value(y->shape, y->ndim, 0, y->dtype), *result = NULL;
    Trace trace;
    if (zero && trace_begin(&trace, &zero, 1)) {
        result = transpose_rule(node, &trace, key, tangents);
        trace_end(&trace, &result, 1);
    }
    node_release(zero);
    return result;
}

/* The rules of those whose transposed one would say something else. */
static ForwardRule forward_rule(const Node *node) {
    ForwardRule rule = unary_forward_rule(node);
    if (!rule) rule = scan_forward_rule(node);
    return rule ? rule : slice_dynamic_forward_rule(node);
}

/* The tangents of node's inputs, borrowed; free() the list. */
static Node **input_tangents(const Tape *tape, const Node *node, Node *const *slots) {
    Node **tangents = base_alloc((node->n_inputs + 1) * sizeof *tangents);
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        const uint32_t place = tape_place(tape, node->inputs[i]);
        tangents[i] = place ? slots[place - 1] : NULL;
    }
    return tangents;
}

/* slots[place] of a whole is a bundle, when a custom rule made one. */
static bool push_forward(const Tape *tape, size_t place, Node **slots) {
    Node *node = tape->nodes[place], *whole = node;
    const size_t *key = NULL;
    if (node->op->vjp == node_part_vjp) {
        whole = node->inputs[0];
        key = node->param;
        Node **bundle = &slots[tape_place(tape, whole) - 1];
        bool handled = *bundle != NULL;
        if (!handled) {
            Node **tangents = input_tangents(tape, whole, slots);
            *bundle = custom_tangents(whole, tangents, &handled);
            free(tangents);
        }
        if (handled) {
            if (!*bundle) return false;
            slots[place] = node_retain(node_part_cotangent(*bundle, *key));
            return true;
        }
    }
    if (!whole->op->vjp) {
        op_error("[Primitive::jvp] Not implemented for %s.", whole->op->name);
        return false;
    }
    Node **tangents = input_tangents(tape, whole, slots);
    const ForwardRule rule = forward_rule(whole);
    slots[place] = rule ? rule(whole, tangents) : node_tangent(whole, node, key, tangents);
    free(tangents);
    return slots[place] != NULL;
}

bool tape_forward(const Trace *trace, Node *const *tangents, Node *const *outputs, size_t count,
                  Node **results) {
    Tape tape;
    tape_open(&tape, trace, outputs, count);
    size_t *targets = base_alloc((trace->count + 1) * sizeof *targets);
    for (size_t i = 0; i < trace->count; i++) targets[i] = i;
    bool *depends = tape_depends(&tape, trace->count, targets, trace->count);
    bool *is_whole = base_calloc(tape.count + 1, sizeof *is_whole);
    for (size_t i = trace->count; i < tape.count; i++)
        if (depends[i] && tape.nodes[i]->op->vjp == node_part_vjp)
            is_whole[tape_place(&tape, tape.nodes[i]->inputs[0]) - 1] = true;
    Node **slots = base_calloc(tape.count + 1, sizeof *slots);
    for (size_t i = 0; i < trace->count; i++) slots[i] = node_retain(tangents[i]);

    bool good = true;
    for (size_t i = trace->count; i < tape.count && good; i++)
        if (depends[i] && !is_whole[i]) good = push_forward(&tape, i, slots);
    for (size_t i = 0; i < count; i++) {
        const Node *y = outputs[i];
        const uint32_t place = tape_place(&tape, y);
        Node *found = place ? slots[place - 1] : NULL;
        /* Answers have tangents that can be added to others, as in MLX. */
        const mlx_dtype dtype =
            y->dtype == MLX_BOOL && trace->count ? tangents[0]->dtype : y->dtype;
        results[i] = !good   ? NULL
                     : found ? node_retain(found)
                             : op_full_value(y->shape, y->ndim, 0, dtype);
        good = good && results[i];
    }
    for (size_t i = 0; i < count && !good; i++) {
        node_release(results[i]);
        results[i] = NULL;
    }
    for (size_t i = 0; i < tape.count; i++) node_release(slots[i]);
    free(slots);
    free(is_whole);
    free(depends);
    free(targets);
    tape_close(&tape);
    return good;
}

/* ---- the public function ---- */

/* The tangents in the dtypes of their primals; false after reporting. */
static bool match_tangents(Node *const *primals, size_t n_primals, Node *const *tangents,
                           size_t n_tangents, Node **casts) {
    if (n_primals != n_tangents) {
        op_error("[jvp] Number of inputs does not match number of tangents.");
        return false;
    }
    for (size_t i = 0; i < n_primals; i++) {
        if (!shape_equal(primals[i], tangents[i])) {
            op_error("[jvp] Input shape does not match shape of tangent.");
            return false;
        }
        if (!(casts[i] = op_astype(tangents[i], primals[i]->dtype))) return false;
    }
    return true;
}

int mlx_jvp(mlx_vector_array *res_0, mlx_vector_array *res_1, const mlx_closure fun,
            const mlx_vector_array primals, const mlx_vector_array tangents) {
    Node *const *inputs, *const *given, *const *outputs = NULL;
    size_t n_inputs, n_given, count = 0;
    if (!vector_nodes(primals, &inputs, &n_inputs) || !vector_nodes(tangents, &given, &n_given) ||
        !ctx_of(fun, mlx_closure))
        return 1;
    Node **casts = base_calloc(n_inputs + 1, sizeof(Node *)), **results = NULL;
    mlx_vector_array values = {NULL};
    Trace trace;
    bool good = match_tangents(inputs, n_inputs, given, n_given, casts) &&
                trace_begin(&trace, inputs, n_inputs);
    if (good) {
        good = trace_call(&trace, n_inputs, fun, &values);
        if (good) vector_nodes(values, &outputs, &count);
        results = base_calloc(2 * count + 1, sizeof(Node *));
        good = good && tape_forward(&trace, casts, outputs, count, results);
        for (size_t i = 0; i < count; i++) results[count + i] = outputs[i];
        trace_end(&trace, results, 2 * count);
    }
    int status = 1;
    if (good) {
        status = mlx_vector_array_set(res_0, values);
        if (op_finish_vector(res_1, results, count)) status = 1;
    }
    for (size_t i = 0; i < n_inputs; i++) node_release(casts[i]);
    free(casts);
    free(results);
    mlx_vector_array_free(values);
    return status;
}
