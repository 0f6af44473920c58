/* Shapes of recorded operations over inputs of other shapes: a table of the
 * operations whose parameters do not hold a shape. */
#include "engine/grad/record.h"
#include "engine/ops/elementwise.h"

#include <string.h>

typedef bool (*ShapeRule)(const Node *node, Node *const *inputs, int *shape, int *ndim);

static bool like_first(const Node *node, Node *const *inputs, int *shape, int *ndim) {
    (void)node;
    *ndim = inputs[0]->ndim;
    memcpy(shape, inputs[0]->shape, inputs[0]->ndim * sizeof(int));
    return true;
}

static bool broadcast(const Node *node, Node *const *inputs, int *shape, int *ndim) {
    return shape_broadcast_nodes(inputs, node->n_inputs, shape, ndim);
}

static bool product(const Node *node, Node *const *inputs, int *shape, int *ndim) {
    return op_matmul_shape(node->op->name, inputs[0], inputs[1], shape, ndim);
}

static bool reduced(const Node *node, Node *const *inputs, int *shape, int *ndim) {
    return op_reduce_shape(node, inputs[0], shape, ndim);
}

static bool axes(const Node *node, Node *const *inputs, int *shape, int *ndim) {
    return op_axes_shape(node, inputs[0], shape, ndim);
}

static bool joined(const Node *node, Node *const *inputs, int *shape, int *ndim) {
    return op_concatenate_shape(node, inputs, shape, ndim);
}

static const struct {
    const char *name;
    ShapeRule rule;
} rules[] = {
    {"copy", like_first},
    {"contiguous", like_first},
    {"stop_gradient", like_first},
    {"depends", like_first},
    {"tracer", like_first},
    {"softmax", like_first},
    {"rms_norm", like_first},
    {"layer_norm", like_first},
    {"rope", like_first},
    {"cumsum", like_first},
    {"cumprod", like_first},
    {"cummax", like_first},
    {"cummin", like_first},
    {"logcumsumexp", like_first},
    {"sort", like_first},
    {"argsort", like_first},
    {"argpartition", like_first},
    {"partition", like_first},
    {"isclose", broadcast},
    {"matmul", product},
    {"sum", reduced},
    {"mean", reduced},
    {"prod", reduced},
    {"max", reduced},
    {"min", reduced},
    {"all", reduced},
    {"any", reduced},
    {"transpose", axes},
    {"squeeze", axes},
    {"expand_dims", axes},
    {"concatenate", joined},
};

static ShapeRule rule_of(const Op *op) {
    if (op->eval == unary_eval || op->eval == astype_eval) return like_first;
    if (op->eval == binary_eval || op->eval == where_eval) return broadcast;
    for (size_t i = 0; i < BASE_COUNT(rules); i++)
        if (strcmp(op->name, rules[i].name) == 0) return rules[i].rule;
    return NULL;
}

bool shape_infer(const Node *recorded, Node *const *inputs, int *shape, int *ndim) {
    const ShapeRule rule = rule_of(recorded->op);
    return rule && (!inputs || rule(recorded, inputs, shape, ndim));
}
