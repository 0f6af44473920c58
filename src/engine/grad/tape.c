/* The walk back from results to arguments, and the marks that make it short. */
#include "engine/grad/tape.h"

#include "engine/core/internal.h"
#include "engine/ops/ops.h"

#include <stdlib.h>

enum { MOST_LEVELS = 250, WALKING = UINT32_MAX };

/* ---- an order in which inputs come first ---- */

static void tape_push(Tape *tape, Node *node) {
    node->tape = WALKING;
    node->visited = 0;
    tape->stack = base_grow(tape->stack, &tape->stack_capacity, tape->depth + 1, sizeof(Node *));
    tape->stack[tape->depth++] = node;
}

static void tape_add(Tape *tape, Node *node) {
    tape->nodes = base_grow(tape->nodes, &tape->capacity, tape->count + 1, sizeof(Node *));
    tape->nodes[tape->count++] = node;
    node->tape = (uint32_t)tape->count;
}

static void tape_walk(Tape *tape, Node *root) {
    const uint8_t level = tape->level;
    if (root->level != level || root->tape) return;
    tape_push(tape, root);
    while (tape->depth) {
        Node *node = tape->stack[tape->depth - 1];
        if (node->visited < node->n_inputs) {
            Node *input = node->inputs[node->visited++];
            if (input->level == level && !input->tape) tape_push(tape, input);
        } else {
            tape->depth--;
            tape_add(tape, node);
        }
    }
}

void tape_open(Tape *tape, const Trace *trace, Node *const *roots, size_t count) {
    *tape = (Tape){.level = trace->level};
    for (size_t i = 0; i < trace->count; i++) tape_add(tape, trace->tracers[i]);
    for (size_t i = 0; i < count; i++)
        if (roots[i]) tape_walk(tape, roots[i]);
}

void tape_close(Tape *tape) {
    for (size_t i = 0; i < tape->count; i++) tape->nodes[i]->tape = 0;
    free(tape->nodes);
    free(tape->stack);
}

bool *tape_depends(const Tape *tape, size_t n_tracers, const size_t *targets, size_t n_targets) {
    bool *depends = base_calloc(tape->count + 1, sizeof *depends);
    for (size_t i = 0; i < n_targets; i++) depends[targets[i]] = true;
    for (size_t i = n_tracers; i < tape->count; i++) {
        const Node *node = tape->nodes[i];
        if (!node->op || node->op->vjp == ops_zero_vjp) continue;
        for (uint32_t k = 0; k < node->n_inputs && !depends[i]; k++) {
            const uint32_t place = tape_place(tape, node->inputs[k]);
            depends[i] = place && depends[place - 1];
        }
    }
    return depends;
}

/* ---- tracing ---- */

static bool tracer_eval(Node *node, Error *err) {
    (void)err;
    node_share(node, node->inputs[0], NULL, 0);
    return true;
}
static bool tracer_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    (void)node;
    if (wanted[0]) grads[0] = node_retain(g);
    return true;
}
static const Op tracer_op = {"tracer", tracer_eval, tracer_vjp};

Node *trace_add(Trace *trace, Node *primal) {
    Node *tracer = node_new(&tracer_op, primal->dtype, primal->shape, primal->ndim, NODES(primal));
    if (primal->state == NODE_READY) {
        tracer_eval(tracer, NULL);
        tracer->state = NODE_READY;
    }
    tracer->level = trace->level;
    trace->tracers = base_grow(trace->tracers, &trace->capacity, trace->count + 1, sizeof(Node *));
    trace->tracers[trace->count++] = tracer;
    return tracer;
}

bool trace_begin(Trace *trace, Node *const *primals, size_t count) {
    if (trace_depth >= MOST_LEVELS) {
        op_error("[vjp] Transforms are nested more than %d deep.", (int)MOST_LEVELS);
        return false;
    }
    *trace = (Trace){.level = ++trace_depth};
    for (size_t i = 0; i < count; i++) trace_add(trace, primals[i]);
    return true;
}

bool trace_call(const Trace *trace, size_t n_primals, mlx_closure fun, mlx_vector_array *outputs) {
    Node **nodes = base_alloc((n_primals + 1) * sizeof(Node *));
    for (size_t i = 0; i < n_primals; i++) nodes[i] = node_retain(trace->tracers[i]);
    mlx_vector_array arguments = {NULL};
    op_finish_vector(&arguments, nodes, n_primals);
    free(nodes);
    const int status = mlx_closure_apply(outputs, fun, arguments);
    mlx_vector_array_free(arguments);
    return status == 0;
}

void trace_end(Trace *trace, Node *const *results, size_t count) {
    Tape tape;
    tape_open(&tape, trace, results, count);
    /* Forgetting may free nodes that only the forgetful one held; those stand
     * before it, so their place is cleared first. */
    for (size_t i = 0; i < tape.count; i++) tape.nodes[i]->tape = 0;
    for (size_t i = 0; i < tape.count; i++) {
        Node *node = tape.nodes[i];
        node->level = 0;
        for (uint32_t k = 0; k < node->n_inputs; k++)
            node->level = BASE_MAX(node->level, node->inputs[k]->level);
        if (node->state == NODE_READY && !node->level) node_detach(node);
    }
    tape.count = 0;
    tape_close(&tape);
    for (size_t i = 0; i < trace->count; i++) node_release(trace->tracers[i]);
    free(trace->tracers);
    trace_depth--;
}

/* ---- backwards ---- */

/* All cotangents of an operation with several results, as inputs; param holds
 * their keys. Never evaluated. */
static bool bundle_eval(Node *node, Error *err) {
    (void)node;
    base_fail(err, ERROR_INTERNAL, "a bundle of cotangents has no value");
    return false;
}
static const Op bundle_op = {"bundle", bundle_eval, NULL};

/* Where g adds something to zeros (the gradient of a slice, of an index): the same
 * added to base, so that a large array stays one. NULL for any other g. */
static Node *add_into(Node *base, const Node *g) {
    const Op *op = g->op;
    if ((op != &add_along_op && op != &scatter_add_op && op != &slice_add_op) ||
        g->param != g->own_param || !op_is_zeros(g->inputs[0]))
        return NULL;
    enum { FEW = 8 };
    Node *inputs[FEW] = {base};
    if (g->n_inputs > FEW) return NULL;
    for (uint32_t i = 1; i < g->n_inputs; i++) inputs[i] = g->inputs[i];
    return node_new_param(g->op, g->dtype, g->shape, g->ndim, g->param, NODE_PARAM_BYTES, inputs,
                          (int)g->n_inputs);
}

/* slot becomes slot + g, or g when it is empty. Takes over g. */
static bool accumulate(Node **slot, Node *g) {
    if (!*slot) {
        *slot = g;
        return true;
    }
    Node *sum = add_into(*slot, g);
    if (!sum) sum = add_into(g, *slot);
    if (!sum) sum = op_binary(BINARY_ADD, *slot, g);
    node_release(*slot);
    node_release(g);
    *slot = sum;
    return sum != NULL;
}

/* Puts the cotangent g of one part into the bundle of its whole. Takes over g. */
bool bundle_add(Node **bundle, size_t key, Node *g) {
    const size_t count = *bundle ? (*bundle)->n_inputs : 0;
    Node **inputs = base_alloc((count + 1) * sizeof(Node *));
    size_t *keys = base_alloc((count + 1) * sizeof(size_t)), at = count;
    for (size_t i = 0; i < count; i++) {
        inputs[i] = node_retain((*bundle)->inputs[i]);
        keys[i] = ((const size_t *)(*bundle)->param)[i];
        if (keys[i] == key) at = i;
    }
    if (at == count) inputs[at] = NULL;
    keys[at] = key;
    const size_t total = at == count ? count + 1 : count;
    const bool good = accumulate(&inputs[at], g);
    Node *grown = NULL;
    if (good)
        grown = node_new_param(&bundle_op, MLX_UINT8, (int[]){0}, 1, keys, total * sizeof(size_t),
                               inputs, (int)total);
    for (size_t i = 0; i < total; i++) node_release(inputs[i]);
    free(inputs);
    free(keys);
    node_release(*bundle);
    *bundle = grown;
    return grown != NULL;
}

/* Calls the rule of node and spreads what it gives over the slots. */
static bool pull_back(const Tape *tape, Node *node, Node *g, const bool *depends, Node **slots) {
    enum { FEW = 8 };
    bool few_wanted[FEW];
    Node *few_grads[FEW];
    const uint32_t n = node->n_inputs;
    bool *wanted = n <= FEW ? few_wanted : base_alloc(n * sizeof *wanted);
    Node **grads = n <= FEW ? few_grads : base_alloc(n * sizeof *grads);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t place = tape_place(tape, node->inputs[i]);
        wanted[i] = place && depends[place - 1];
        grads[i] = NULL;
    }
    bool good = node->op->vjp(node, g, wanted, grads);
    for (uint32_t i = 0; i < n; i++) {
        Node *input = node->inputs[i];
        if (!grads[i]) continue;
        if (!good || !wanted[i]) {
            node_release(grads[i]);
        } else if (grads[i]->dtype != input->dtype || !shape_equal(grads[i], input)) {
            op_error("[vjp] The rule of %s gave %s %s for an input that is %s %s.", node->op->name,
                     dtype_name(grads[i]->dtype), SHAPE(grads[i]), dtype_name(input->dtype),
                     SHAPE(input));
            node_release(grads[i]);
            good = false;
        } else {
            good = accumulate(&slots[input->tape - 1], grads[i]);
        }
    }
    if (wanted != few_wanted) free(wanted);
    if (grads != few_grads) free(grads);
    return good;
}

/* From the last node to the first; slots[i] is the cotangent of tape node i. */
static bool pull_back_all(const Tape *tape, size_t n_tracers, const bool *depends, Node **slots) {
    for (size_t i = tape->count; i-- > n_tracers;) {
        Node *node = tape->nodes[i], *g = slots[i];
        slots[i] = NULL;
        if (!g) continue;
        bool good = true;
        if (!depends[i]) {
            node_release(g);
            continue;
        }
        if (!node->op->vjp) {
            op_error("[Primitive::vjp] Not implemented for %s.", node->op->name);
            good = false;
        } else if (node->op->vjp == node_part_vjp) {
            const size_t *key = node->param;
            good = bundle_add(&slots[node->inputs[0]->tape - 1], *key, node_retain(g));
        } else {
            good = pull_back(tape, node, g, depends, slots);
        }
        node_release(g);
        if (!good) return false;
    }
    return true;
}

static Node *zeros_like(const Node *node) {
    return op_full_value(node->shape, node->ndim, 0, node->dtype);
}

/* Opens the tape, after products over a vocabulary that are not needed as a whole
 * are gone from it. */
static void tape_open_fused(Tape *tape, const Trace *trace, Node *const *outputs, size_t count) {
    tape_open(tape, trace, outputs, count);
    Node **readers = base_alloc((tape->count + 1) * sizeof *readers);
    size_t n = 0;
    for (size_t i = 0; i < tape->count; i++)
        if (tape->nodes[i]->op && vocabulary_reads(tape->nodes[i])) readers[n++] = tape->nodes[i];
    if (n) {
        tape_close(tape);
        vocabulary_fuse(readers, n);
        tape_open(tape, trace, outputs, count);
    }
    free(readers);
}

bool tape_backward(const Trace *trace, Node *const *outputs, Node *const *cotangents, size_t count,
                   const size_t *targets, size_t n_targets, Node **grads) {
    Tape tape;
    tape_open_fused(&tape, trace, outputs, count);
    Node **slots = base_calloc(tape.count + 1, sizeof *slots);
    bool *depends = tape_depends(&tape, trace->count, targets, n_targets);

    bool good = true;
    for (size_t i = 0; i < count && good; i++)
        if (tape_place(&tape, outputs[i]))
            good =
                accumulate(&slots[tape_place(&tape, outputs[i]) - 1], node_retain(cotangents[i]));
    good = good && pull_back_all(&tape, trace->count, depends, slots);

    for (size_t i = 0; i < n_targets; i++) {
        Node *found = slots[targets[i]];
        grads[i] = !good   ? NULL
                   : found ? node_retain(found)
                           : zeros_like(trace->tracers[targets[i]]);
        good = good && grads[i];
    }
    for (size_t i = 0; i < n_targets && !good; i++) {
        node_release(grads[i]);
        grads[i] = NULL;
    }
    for (size_t i = 0; i < tape.count; i++) node_release(slots[i]);
    free(slots);
    free(depends);
    tape_close(&tape);
    return good;
}
