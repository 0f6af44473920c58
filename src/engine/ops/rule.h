/* What gradient rules are written with: short names for arithmetic on nodes, and
 * a list that releases the values between.
 *
 *     static bool tanh_vjp(Node *y, Node *g, const bool *wanted, Node **grads) {
 *         Temps t = {0};
 *         Node *slope = temp(&t, op_rsubtract(1, temp(&t, op_unary(UNARY_SQUARE, y))));
 *         return temps_end(&t, !wanted[0] || (grads[0] = op_multiply(g, slope)));
 *     } */
#ifndef ENGINE_OPS_RULE_H
#define ENGINE_OPS_RULE_H

#include "engine/ops/ops.h"

enum { RULE_TEMPS = 64 }; /* more than any rule makes */

typedef struct Temps {
    Node *nodes[RULE_TEMPS];
    int count;
} Temps;

/* node, released by temps_end. NULL stays NULL. */
static inline Node *temp(Temps *temps, Node *node) {
    if (node) temps->nodes[temps->count++] = node;
    return node;
}
static inline bool temps_end(Temps *temps, bool good) {
    while (temps->count) node_release(temps->nodes[--temps->count]);
    return good;
}

static inline Node *op_add(Node *a, Node *b) {
    return op_binary(BINARY_ADD, a, b);
}
static inline Node *op_subtract(Node *a, Node *b) {
    return op_binary(BINARY_SUBTRACT, a, b);
}
static inline Node *op_multiply(Node *a, Node *b) {
    return op_binary(BINARY_MULTIPLY, a, b);
}
static inline Node *op_divide(Node *a, Node *b) {
    return op_binary(BINARY_DIVIDE, a, b);
}
static inline Node *op_negative(Node *a) {
    return op_unary(UNARY_NEGATIVE, a);
}
static inline Node *op_scale(Node *a, double factor) {
    return op_binary_scalar(BINARY_MULTIPLY, a, factor);
}
/* value - a */
static inline Node *op_rsubtract(double value, Node *a) {
    Node *scalar = a ? node_scalar(value, a->dtype) : NULL;
    Node *result = op_subtract(scalar, a);
    node_release(scalar);
    return result;
}
/* x where condition holds, 0 elsewhere; and the reverse. */
static inline Node *op_keep(Node *condition, Node *x) {
    Node *zero = x ? node_scalar(0, x->dtype) : NULL;
    Node *result = op_where(condition, x, zero);
    node_release(zero);
    return result;
}
static inline Node *op_drop(Node *condition, Node *x) {
    Node *zero = x ? node_scalar(0, x->dtype) : NULL;
    Node *result = op_where(condition, zero, x);
    node_release(zero);
    return result;
}
static inline Node *op_zeros_like(const Node *x) {
    return op_full_value(x->shape, x->ndim, 0, x->dtype);
}

/* The gradient of broadcasting: g summed over the axes along which x was repeated
 * to g's shape, in x's shape. */
Node *op_sum_to(Node *g, const Node *x);

/* Fills outputs with owned nodes built from inputs; false after an error. */
typedef bool (*Compose)(const void *param, Node *const *inputs, Node **outputs);
/* The rule of a node that equals compose(node->param, node->inputs): goes back
 * through that composition. keys: the offsets of the parts that the outputs
 * stand for, at most 8; NULL for a node that is its one output. */
bool ops_composed_vjp(Node *node, Node *g, const bool *wanted, Node **grads, Compose compose,
                      const size_t *keys, int n_outputs);

#endif
