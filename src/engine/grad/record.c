/* Recording what a function builds, and building it again. */
#include "engine/grad/record.h"

#include "engine/core/internal.h"

#include <stdlib.h>
#include <string.h>

/* Where an input or output comes from: a constant, or the value of that number:
 * first the inputs, then the steps. */
typedef struct Source {
    Node *constant; /* NULL: a value */
    uint32_t value;
} Source;

struct Recording {
    _Atomic uint32_t refs;
    bool shapeless;
    size_t n_inputs, n_steps, n_outputs;
    uint32_t most_inputs; /* of a step */
    Node **placeholders;  /* owned */
    Node **steps;         /* owned, inputs first; never evaluated */
    Source *sources;      /* of the steps' inputs, one after the other */
    Source *outputs;      /* constants owned */
};

static _Thread_local int running;

bool recording_runs(void) {
    return running > 0;
}

static bool placeholder_eval(Node *node, Error *err) {
    (void)node;
    return base_fail(err, ERROR_INPUT,
                     "Attempting to eval an array during function transformations like compile or "
                     "vmap is not allowed. If you are compiling a function, make sure all the "
                     "inputs and outputs are captured.");
}
static const Op placeholder_op = {"eval", placeholder_eval, NULL};

/* ---- the graph in order ---- */

/* The lazy nodes behind the outputs, inputs first; the placeholders lead. While
 * it is open a node knows its place (`tape`, place + 1). */
typedef struct Order {
    Node **nodes, **stack;
    size_t count, capacity, depth, stack_capacity;
} Order;

enum { WALKING = UINT32_MAX };

static void order_add(Order *order, Node *node) {
    order->nodes = base_grow(order->nodes, &order->capacity, order->count + 1, sizeof(Node *));
    order->nodes[order->count++] = node;
    node->tape = (uint32_t)order->count;
}

static void order_push(Order *order, Node *node) {
    if (node->state != NODE_LAZY || node->tape) return;
    node->tape = WALKING;
    node->visited = 0;
    order->stack =
        base_grow(order->stack, &order->stack_capacity, order->depth + 1, sizeof(Node *));
    order->stack[order->depth++] = node;
}

static void order_walk(Order *order, Node *root) {
    order_push(order, root);
    while (order->depth) {
        Node *node = order->stack[order->depth - 1];
        if (node->visited < node->n_inputs) {
            order_push(order, node->inputs[node->visited++]);
        } else {
            order->depth--;
            order_add(order, node);
        }
    }
}

static void order_close(Order *order) {
    for (size_t i = 0; i < order->count; i++) order->nodes[i]->tape = 0;
    free(order->nodes);
    free(order->stack);
}

/* ---- recording ---- */

/* Number of node's value + 1; 0 when it does not depend on the inputs. */
static uint32_t value_of(const Node *node, const uint32_t *numbers) {
    return node->state == NODE_LAZY ? numbers[node->tape - 1] : 0;
}

/* Numbers the nodes that depend on the inputs. False after reporting. */
static bool number_values(Recording *recording, const Order *order, uint32_t *numbers) {
    for (size_t i = 0; i < order->count; i++) {
        const Node *node = order->nodes[i];
        bool depends = i < recording->n_inputs;
        if (!depends && node->op == &placeholder_op) {
            op_error("[compile] Attempting to compile a function with uncaptured inputs is not "
                     "allowed.");
            return false;
        }
        for (uint32_t k = 0; k < node->n_inputs && !depends; k++)
            depends = value_of(node->inputs[k], numbers) != 0;
        if (!depends) continue;
        if (i >= recording->n_inputs) recording->n_steps++;
        numbers[i] =
            (uint32_t)(i < recording->n_inputs ? i : recording->n_inputs + recording->n_steps - 1) +
            1;
    }
    return true;
}

static Source source_of(Node *node, const uint32_t *numbers) {
    const uint32_t number = value_of(node, numbers);
    return number ? (Source){NULL, number - 1} : (Source){node, 0};
}

/* Fills steps, sources and outputs; *constants become the lazy nodes that these
 * need as they are. */
static void take_steps(Recording *recording, const Order *order, const uint32_t *numbers,
                       Node *const *outputs, Node ***constants, size_t *n_constants) {
    size_t n_sources = 0, capacity = 0, at = 0;
    for (size_t i = recording->n_inputs; i < order->count; i++)
        if (numbers[i]) n_sources += order->nodes[i]->n_inputs;
    recording->steps = base_alloc((recording->n_steps + 1) * sizeof(Node *));
    recording->sources = base_alloc((n_sources + 1) * sizeof(Source));
    recording->outputs = base_alloc((recording->n_outputs + 1) * sizeof(Source));
    Source *source = recording->sources;
    for (size_t i = recording->n_inputs; i < order->count; i++) {
        Node *node = order->nodes[i];
        if (!numbers[i]) continue;
        recording->steps[at++] = node_retain(node);
        recording->most_inputs = BASE_MAX(recording->most_inputs, node->n_inputs);
        recording->shapeless = recording->shapeless && shape_infer(node, NULL, NULL, NULL);
        for (uint32_t k = 0; k < node->n_inputs; k++)
            *source++ = source_of(node->inputs[k], numbers);
    }
    for (size_t i = 0; i < recording->n_outputs; i++) {
        recording->outputs[i] = source_of(outputs[i], numbers);
        node_retain(recording->outputs[i].constant);
    }
    for (size_t i = 0; i < n_sources + recording->n_outputs; i++) {
        Node *node = i < n_sources ? recording->sources[i].constant
                                   : recording->outputs[i - n_sources].constant;
        if (!node || node->state == NODE_READY) continue;
        /* Made by the function, perhaps in the shape of an input. */
        if (node->size > 1) recording->shapeless = false;
        *constants = base_grow(*constants, &capacity, *n_constants + 1, sizeof(Node *));
        (*constants)[(*n_constants)++] = node;
    }
}

static bool record(Recording *recording, Node *const *outputs) {
    Order order = {0};
    for (size_t i = 0; i < recording->n_inputs; i++) order_add(&order, recording->placeholders[i]);
    for (size_t i = 0; i < recording->n_outputs; i++) order_walk(&order, outputs[i]);
    uint32_t *numbers = base_calloc(order.count + 1, sizeof *numbers);
    Node **constants = NULL;
    size_t n_constants = 0;
    bool good = number_values(recording, &order, numbers);
    if (good) take_steps(recording, &order, numbers, outputs, &constants, &n_constants);
    free(numbers);
    order_close(&order);
    if (good) good = nodes_eval(constants, n_constants);
    free(constants);
    return good;
}

Recording *recording_make(mlx_closure fun, Node *const *inputs, size_t count) {
    Recording *recording = base_calloc(1, sizeof *recording);
    recording->refs = 1;
    recording->shapeless = true;
    recording->placeholders = base_calloc(count + 1, sizeof(Node *));
    Node **arguments = base_alloc((count + 1) * sizeof(Node *));
    for (size_t i = 0; i < count; i++) {
        recording->placeholders[i] =
            node_new(&placeholder_op, inputs[i]->dtype, inputs[i]->shape, inputs[i]->ndim, NULL, 0);
        arguments[i] = node_retain(recording->placeholders[i]);
    }
    recording->n_inputs = count;
    mlx_vector_array list = {NULL}, outputs = {NULL};
    op_finish_vector(&list, arguments, count);
    free(arguments);
    running++;
    Node *const *nodes;
    bool good = mlx_closure_apply(&outputs, fun, list) == 0 &&
                vector_nodes(outputs, &nodes, &recording->n_outputs);
    if (good)
        good = record(recording, nodes);
    else
        recording->n_outputs = 0;
    running--;
    mlx_vector_array_free(list);
    mlx_vector_array_free(outputs);
    if (good) return recording;
    recording_release(recording);
    return NULL;
}

Recording *recording_retain(Recording *recording) {
    atomic_fetch_add_explicit(&recording->refs, 1, memory_order_relaxed);
    return recording;
}

void recording_release(Recording *recording) {
    if (!recording || atomic_fetch_sub_explicit(&recording->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < recording->n_inputs; i++) node_release(recording->placeholders[i]);
    for (size_t i = 0; i < recording->n_steps && recording->steps; i++)
        node_release(recording->steps[i]);
    for (size_t i = 0; i < recording->n_outputs && recording->outputs; i++)
        node_release(recording->outputs[i].constant);
    free(recording->placeholders);
    free(recording->steps);
    free(recording->sources);
    free(recording->outputs);
    free(recording);
}

bool recording_is_shapeless(const Recording *recording) {
    return recording->shapeless;
}

/* ---- replaying ---- */

/* The node of a step over these inputs. */
static Node *build(const Node *step, Node *const *inputs, bool same_shapes) {
    int shape[NODE_DIMS], ndim = step->ndim;
    const int *dims = step->shape;
    if (!same_shapes) {
        if (!shape_infer(step, inputs, shape, &ndim)) return NULL;
        dims = shape;
    }
    return node_new_param(step->op, step->dtype, dims, ndim, step->param, step->param_bytes, inputs,
                          (int)step->n_inputs);
}

bool recording_replay(const Recording *recording, Node *const *inputs, mlx_vector_array *res) {
    enum { FEW = 64 };
    Node *few[FEW];
    const size_t n = recording->n_inputs, total = n + recording->n_steps;
    const size_t room = total + BASE_MAX(recording->most_inputs, recording->n_outputs) + 1;
    Node **values = room <= FEW ? few : base_alloc(room * sizeof *values);
    Node **list = values + total; /* the inputs of a step, the outputs */
    bool same_shapes = true;
    for (size_t i = 0; i < n; i++) {
        values[i] = inputs[i];
        same_shapes = same_shapes && shape_equal(inputs[i], recording->placeholders[i]);
    }
    const Source *source = recording->sources;
    size_t done = n;
    for (; done < total; done++) {
        const Node *step = recording->steps[done - n];
        for (uint32_t k = 0; k < step->n_inputs; k++, source++)
            list[k] = source->constant ? source->constant : values[source->value];
        values[done] = build(step, list, same_shapes);
        if (!values[done]) break;
    }
    const bool good = done == total;
    if (good) {
        for (size_t i = 0; i < recording->n_outputs; i++) {
            const Source *output = &recording->outputs[i];
            list[i] = node_retain(output->constant ? output->constant : values[output->value]);
        }
        op_finish_vector(res, list, recording->n_outputs);
    }
    for (size_t i = n; i < done; i++) node_release(values[i]);
    if (values != few) free(values);
    return good;
}
