/* The gradient of an operation that has no rule but can be written with others:
 * the fused gradients, whose own gradients are rarely wanted. */
#include "engine/grad/tape.h"
#include "engine/ops/rule.h"

#include <stdlib.h>

enum { MOST_OUTPUTS = 8 };

bool ops_composed_vjp(Node *node, Node *g, const bool *wanted, Node **grads, Compose compose,
                      const size_t *keys, int n_outputs) {
    const size_t n = node->n_inputs;
    Trace trace;
    if (!trace_begin(&trace, node->inputs, n)) return false;
    Node *outputs[MOST_OUTPUTS] = {NULL}, *live[MOST_OUTPUTS], *cotangents[MOST_OUTPUTS];
    Node **results = base_calloc(n + MOST_OUTPUTS, sizeof *results);
    size_t *targets = base_alloc((n + 1) * sizeof *targets), n_targets = 0, n_live = 0;
    for (size_t i = 0; i < n; i++)
        if (wanted[i]) targets[n_targets++] = i;
    bool good = compose(node->param, trace.tracers, outputs);
    for (int i = 0; i < n_outputs && good; i++) {
        Node *cotangent = keys ? node_part_cotangent(g, keys[i]) : g;
        if (!cotangent) continue;
        live[n_live] = outputs[i];
        cotangents[n_live++] = cotangent;
    }
    good = good && tape_backward(&trace, live, cotangents, n_live, targets, n_targets, results);
    for (size_t i = 0; i < n_targets && good; i++) grads[targets[i]] = results[i];
    trace_end(&trace, results, good ? n_targets : 0);
    for (int i = 0; i < n_outputs; i++) node_release(outputs[i]);
    free(targets);
    free(results);
    return good;
}
