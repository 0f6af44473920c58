/* Evaluation: puts the lazy nodes under the wanted ones in an order in which
 * inputs come first, and computes them one by one in the calling thread.
 *
 * The stack of the depth-first search and the resulting order are both chains
 * through Node.link, so a graph of any depth needs no memory. A node leaves its
 * inputs right after it is computed: what nobody else holds is freed, or was
 * reused in place, before the next one starts. */
#include "engine/core/internal.h"
#include "mlx/c/compile.h"
#include "mlx/c/transforms.h"

typedef struct Order {
    Node *first, *last;
} Order;

static void order_add(Order *order, Node *node) {
    node->link = NULL;
    if (order->last)
        order->last->link = node;
    else
        order->first = node;
    order->last = node;
}

static Node *push(Node *stack, Node *node) {
    node->state = NODE_QUEUED;
    node->visited = 0;
    node->link = stack;
    return node;
}

static void order_from(Order *order, Node *root) {
    Node *stack = push(NULL, root);
    while (stack) {
        Node *node = stack;
        if (node->visited < node->n_inputs) {
            Node *input = node->inputs[node->visited++];
            if (input->state == NODE_LAZY) stack = push(stack, input);
        } else {
            stack = node->link;
            order_add(order, node);
        }
    }
}

bool nodes_eval(Node *const *nodes, size_t count) {
    Order order = {0};
    for (size_t i = 0; i < count; i++)
        if (nodes[i]->state == NODE_LAZY) order_from(&order, nodes[i]);

    Error err;
    err.code = ERROR_NONE;
    err.message[0] = err.hint[0] = 0;
    const Op *failed = NULL;
    for (Node *node = order.first, *next; node; node = next) {
        next = node->link;
        const Op *op = node->op;
        if (!failed && op->eval(node, &err)) {
            node->state = NODE_READY;
            if (!node_traced(node)) {
                node->level = 0;
                node_detach(node);
            }
            continue;
        }
        /* This one failed or an earlier one did: they stay lazy. */
        if (!failed) failed = op;
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
    return mlx_eval(outputs);
}

int mlx_compile(mlx_closure *res, const mlx_closure fun, bool shapeless) {
    (void)shapeless;
    return mlx_closure_set(res, fun);
}
