/* Evaluation: puts the lazy nodes under the wanted ones in an order in which
 * inputs come first, and computes them one by one in the calling thread.
 *
 * The stack of the depth-first search and the resulting order are both chains
 * through Node.link, so a graph of any depth needs no memory. A node leaves its
 * inputs right after it is computed: what nobody else holds is freed, or was
 * reused in place, before the next one starts. Element-wise nodes that only one
 * other element-wise node needs are left to it (ops/fuse.c). */
#include "engine/core/internal.h"
#include "mlx/c/transforms.h"

#include <stdlib.h>

static Node *push(Node *stack, Node *node) {
    node->state = NODE_QUEUED;
    node->visited = 0;
    node->link = stack;
    return node;
}

/* What is in a chain: nodes that transforms made, and that read rows of a product. */
typedef struct Found {
    size_t traced, readers;
} Found;

/* Queues root and what it needs in front of `newest`, inputs first; a chain from
 * the last to the first. */
static Node *queue_from(Node *newest, Node *root, Found *found) {
    Node *stack = push(NULL, root);
    while (stack) {
        Node *node = stack;
        if (node->visited < node->n_inputs) {
            Node *input = node->inputs[node->visited++];
            if (input->state == NODE_LAZY) stack = push(stack, input);
        } else {
            stack = node->link;
            node->link = newest;
            newest = node;
            found->traced += node->sequence != 0;
            found->readers += vocabulary_reads(node);
        }
    }
    return newest;
}

static int made_before(const void *a, const void *b) {
    const Node *x = *(Node *const *)a, *y = *(Node *const *)b;
    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* Queues again what is in the chain, so that the nodes of transforms run in the
 * order in which they were made and everything else just before it is needed.
 * Then a layer's gradients follow each other, and its activations die early,
 * whatever order the results are asked for. */
static Node *queue_as_made(Node *newest, size_t n_traced, Node *const *roots, size_t count) {
    Node **traced = base_alloc(n_traced * sizeof *traced);
    size_t found = 0;
    Found again = {0, 0};
    for (Node *node = newest; node; node = node->link) {
        node->state = NODE_LAZY;
        if (node->sequence) traced[found++] = node;
    }
    qsort(traced, found, sizeof *traced, made_before);
    newest = NULL;
    for (size_t i = 0; i < found; i++)
        if (traced[i]->state == NODE_LAZY) newest = queue_from(newest, traced[i], &again);
    for (size_t i = 0; i < count; i++)
        if (roots[i]->state == NODE_LAZY) newest = queue_from(newest, roots[i], &again);
    free(traced);
    return newest;
}

/* Queues again when a product over a vocabulary is not needed as a whole. */
static Node *queue_without_products(Node *newest, Found *found, Node *const *roots, size_t count) {
    Node **readers = base_alloc(found->readers * sizeof *readers);
    size_t n = 0;
    for (Node *node = newest; node; node = node->link) {
        node->state = NODE_LAZY;
        if (vocabulary_reads(node) && !node_traced(node)) readers[n++] = node;
    }
    vocabulary_fuse(readers, n);
    free(readers);
    newest = NULL;
    *found = (Found){0, 0};
    for (size_t i = 0; i < count; i++)
        if (roots[i]->state == NODE_LAZY) newest = queue_from(newest, roots[i], found);
    return newest;
}

/* The chain from the first to the last, without the nodes that consumers, which
 * are met before their inputs, compute themselves. */
static Node *order(Node *newest) {
    Node *first = NULL;
    while (newest) {
        Node *node = newest;
        newest = node->link;
        if (node->state == NODE_ABSORBED) continue;
        fuse_absorb(node);
        node->link = first;
        first = node;
    }
    return first;
}

bool nodes_eval(Node *const *nodes, size_t count) {
    Node *newest = NULL;
    Found found = {0, 0};
    for (size_t i = 0; i < count; i++)
        if (nodes[i]->state == NODE_LAZY) newest = queue_from(newest, nodes[i], &found);
    if (found.readers) newest = queue_without_products(newest, &found, nodes, count);
    if (found.traced > 1) newest = queue_as_made(newest, found.traced, nodes, count);

    Error err;
    err.code = ERROR_NONE;
    err.message[0] = err.hint[0] = 0;
    const Op *failed = NULL;
    for (Node *node = order(newest), *next; node; node = next) {
        next = node->link;
        const Op *op = node->op;
        if (!failed && (node->fused ? fuse_eval(node, &err) : op->eval(node, &err))) {
            node->state = NODE_READY;
            node->fused = false;
            if (!node_traced(node)) {
                node->level = 0;
                node_detach(node);
            }
            continue;
        }
        /* This one failed or an earlier one did: they stay lazy. */
        if (!failed) failed = op;
        if (node->fused) fuse_undo(node);
        buffer_release(node->buffer);
        node->buffer = NULL;
        node->state = NODE_LAZY;
    }
    if (failed) op_error("[%s] %s", failed->name, err.message);
    return !failed;
}

int mlx_eval(const mlx_vector_array outputs) {
    Node *const *nodes;
    size_t count;
    return vector_nodes(outputs, &nodes, &count) && nodes_eval(nodes, count) ? 0 : 1;
}

int mlx_async_eval(const mlx_vector_array outputs) {
    Node *const *nodes;
    size_t count;
    if (!vector_nodes(outputs, &nodes, &count)) return 1;
    for (size_t i = 0; i < count; i++) {
        if (nodes[i]->state == NODE_READY || !node_traced(nodes[i])) continue;
        op_error("[async_eval] Not allowed inside a graph transformation.");
        return 1;
    }
    return nodes_eval(nodes, count) ? 0 : 1;
}
