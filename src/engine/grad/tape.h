/* grad: transforms of functions - gradients, directional derivatives, functions
 * with rules of their own.
 *
 * A transform enters a level (trace_begin): its arguments are wrapped in tracers,
 * alias nodes marked with the number of transforms that run in this thread. Every
 * node made from a marked one inherits the highest mark of its inputs, so a walk
 * from the results over nodes of this level finds just what depends on the
 * arguments. Marked nodes keep operation and inputs past evaluation, and are
 * never overwritten in place, so the function may read values as it goes. Leaving
 * (trace_end) gives every node reached from the results the mark of an outer
 * transform or none, and lets the evaluated ones forget. */
#ifndef ENGINE_GRAD_TAPE_H
#define ENGINE_GRAD_TAPE_H

#include "engine/core/engine.h"
#include "mlx/c/closure.h"

typedef struct Trace {
    Node **tracers; /* one for each primal, owned */
    size_t count, capacity;
    uint8_t level;
} Trace;

/* False after reporting when transforms are nested too deeply. */
bool trace_begin(Trace *trace, Node *const *primals, size_t count);
/* Adds a tracer for one more value; borrowed from the trace. */
Node *trace_add(Trace *trace, Node *primal);
/* Runs fun on tracers [0, n_primals); *outputs is a list that the caller frees. */
bool trace_call(const Trace *trace, size_t n_primals, mlx_closure fun, mlx_vector_array *outputs);
/* results: every node that the caller keeps; NULL entries are skipped. */
void trace_end(Trace *trace, Node *const *results, size_t count);

/* The nodes of a trace's level behind some results, inputs first; the tracers are
 * the first. A node knows its place while the tape is open. */
typedef struct Tape {
    uint8_t level;
    Node **nodes;
    size_t count, capacity;
    Node **stack; /* of the walk */
    size_t depth, stack_capacity;
} Tape;
void tape_open(Tape *tape, const Trace *trace, Node *const *roots, size_t count);
void tape_close(Tape *tape);
/* Place + 1, 0 for a node that is not on the tape. */
static inline uint32_t tape_place(const Tape *tape, const Node *node) {
    return node->level == tape->level ? node->tape : 0;
}
/* For each node: can a gradient pass from it to one of these tracers? free() it. */
bool *tape_depends(const Tape *tape, size_t n_tracers, const size_t *targets, size_t n_targets);
/* Puts the cotangent g of one part into the bundle for its whole (NULL: a new
 * one). Takes over g. */
bool bundle_add(Node **bundle, size_t key, Node *g);

/* Pulls cotangents (of outputs' shapes and dtypes) back to the tracers numbered
 * in targets: grads[i] becomes an owned node of that tracer's shape and dtype,
 * zeros where no output depends on it. False after reporting; nothing is owned
 * then. */
bool tape_backward(const Trace *trace, Node *const *outputs, Node *const *cotangents, size_t count,
                   const size_t *targets, size_t n_targets, Node **grads);

/* Pushes tangents of the tracers (of their shapes and dtypes) forward: results[i]
 * becomes an owned node, the tangent of outputs[i]. False after reporting. */
bool tape_forward(const Trace *trace, Node *const *tangents, Node *const *outputs, size_t count,
                  Node **results);

/* Of a node made by a function with rules of its own: the bundle of all tangents of
 * its parts. *handled is false for any other node. */
Node *custom_tangents(Node *whole, Node *const *tangents, bool *handled);

/* mlx_vjp with gradients of chosen primals only: *values are all outputs of fun,
 * grads the n_targets gradients, both owned by the caller after true. */
bool grad_vjp(mlx_closure fun, Node *const *primals, size_t n_primals, Node *const *cotangents,
              size_t n_cotangents, const size_t *targets, size_t n_targets,
              mlx_vector_array *values, Node **grads);

#endif
