/* Functions with rules of their own: custom_vjp, custom_function, checkpoint.
 *
 * The call of such a function becomes one node, the whole, over the arguments and
 * the outputs of fun (behind stop_gradient, so the walk back does not enter fun),
 * and a part for each output that passes its value through. The rules travel as
 * one more input: an empty array whose foreign buffer owns them. */
#include "engine/core/internal.h"
#include "engine/grad/tape.h"
#include "engine/ops/rule.h"
#include "mlx/c/transforms.h"

#include <stdlib.h>

typedef struct Rules {
    _Atomic int refs;
    mlx_closure fun;
    mlx_closure_custom vjp;     /* null: differentiate fun */
    mlx_closure_custom_jvp jvp; /* null: through fun */
    bool later;                 /* checkpoint: fun runs again only when the gradient is due */
} Rules;

static void rules_release(void *payload) {
    Rules *rules = payload;
    if (atomic_fetch_sub(&rules->refs, 1) != 1) return;
    mlx_closure_free(rules->fun);
    mlx_closure_custom_free(rules->vjp);
    mlx_closure_custom_jvp_free(rules->jvp);
    free(rules);
}

/* ---- the whole ---- */

typedef struct CustomParam {
    int n_primals, n_outputs; /* inputs: primals, outputs, rules */
} CustomParam;

static bool custom_eval(Node *node, Error *err) {
    return node_alloc(node, err);
}

static bool custom_part_eval(Node *node, Error *err) {
    (void)err;
    node_share(node, node->inputs[1], NULL, 0);
    return true;
}
static const Op custom_part_op = {"custom_output", custom_part_eval, node_part_vjp};

static Node *custom_part(Node *whole, Node *value, size_t key) {
    return node_new_param(&custom_part_op, value->dtype, value->shape, value->ndim, &key,
                          sizeof key, NODES(whole, value));
}

static mlx_vector_array list_of(Node *const *nodes, size_t count) {
    mlx_vector_array list = {NULL};
    for (size_t i = 0; i < count; i++) node_retain(nodes[i]);
    op_finish_vector(&list, nodes, count);
    return list;
}

/* The rule that the user gave. */
static bool call_vjp(const Rules *rules, Node *node, Node *const *cotangents, const bool *wanted,
                     Node **grads) {
    const CustomParam *param = node->param;
    const size_t n = (size_t)param->n_primals, m = (size_t)param->n_outputs;
    Node **parts = base_alloc((m + 1) * sizeof *parts);
    for (size_t i = 0; i < m; i++) parts[i] = custom_part(node, node->inputs[n + i], i);
    mlx_vector_array primals = list_of(node->inputs, n), incoming = list_of(cotangents, m);
    mlx_vector_array outputs = {NULL}, result = {NULL};
    op_finish_vector(&outputs, parts, m);
    free(parts);
    Node *const *given = NULL;
    size_t count = 0;
    bool good = mlx_closure_custom_apply(&result, rules->vjp, primals, incoming, outputs) == 0 &&
                vector_nodes(result, &given, &count);
    for (size_t i = 0; i < n && good; i++) {
        if (!wanted[i]) continue;
        if (i >= count) {
            op_error("[custom_vjp] The rule gave %zu gradients for %zu arguments.", count, n);
            good = false;
        } else {
            good = (grads[i] = op_astype(given[i], node->inputs[i]->dtype)) != NULL;
        }
    }
    mlx_vector_array_free(primals);
    mlx_vector_array_free(incoming);
    mlx_vector_array_free(outputs);
    mlx_vector_array_free(result);
    return good;
}

/* Runs fun again and goes back through it. For a checkpoint its arguments wait
 * for the outputs and cotangents, so that blocks rerun one at a time. */
static bool call_fun(const Rules *rules, Node *node, Node *const *cotangents, const bool *wanted,
                     Node **grads) {
    const CustomParam *param = node->param;
    const size_t n = (size_t)param->n_primals, m = (size_t)param->n_outputs;
    Node **primals = base_alloc((2 * n + 2 * m + 1) * sizeof *primals);
    Node **found = primals + n, **others = found + n;
    size_t *targets = base_alloc((n + 1) * sizeof *targets), count = 0;
    for (size_t i = 0; i < m; i++) {
        others[i] = node->inputs[n + i];
        others[m + i] = cotangents[i];
    }
    op_depends(node->inputs, n, others, rules->later ? 2 * m : 0, primals);
    for (size_t i = 0; i < n; i++)
        if (wanted[i]) targets[count++] = i;
    mlx_vector_array values = {NULL};
    const bool good =
        grad_vjp(rules->fun, primals, n, cotangents, m, targets, count, &values, found);
    for (size_t i = 0; i < count && good; i++) grads[targets[i]] = found[i];
    for (size_t i = 0; i < n; i++) node_release(primals[i]);
    mlx_vector_array_free(values);
    free(targets);
    free(primals);
    return good;
}

static bool custom_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const CustomParam *param = node->param;
    const size_t n = (size_t)param->n_primals, m = (size_t)param->n_outputs;
    const Rules *rules = node->inputs[n + m]->buffer->payload;
    Node **cotangents = base_alloc((m + 1) * sizeof *cotangents);
    bool good = true;
    for (size_t i = 0; i < m; i++) {
        Node *given = node_part_cotangent(g, i);
        cotangents[i] = given ? node_retain(given) : op_zeros_like(node->inputs[n + i]);
        good = good && cotangents[i];
    }
    if (good)
        good = rules->vjp.ctx ? call_vjp(rules, node, cotangents, wanted, grads)
                              : call_fun(rules, node, cotangents, wanted, grads);
    for (size_t i = 0; i < m; i++) node_release(cotangents[i]);
    free(cotangents);
    return good;
}
static const Op custom_op = {"custom_function", custom_eval, custom_vjp};

/* The forward rule that the user gave, on the tangents that are not zero. */
static bool call_jvp(const Rules *rules, Node *whole, Node *const *tangents,
                     mlx_vector_array *results) {
    const size_t n = (size_t)((const CustomParam *)whole->param)->n_primals;
    Node **given = base_alloc((n + 1) * sizeof *given);
    int *argnums = base_alloc((n + 1) * sizeof *argnums);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (!tangents[i]) continue;
        given[count] = tangents[i];
        argnums[count++] = (int)i;
    }
    mlx_vector_array primals = list_of(whole->inputs, n), directions = list_of(given, count);
    const bool good =
        mlx_closure_custom_jvp_apply(results, rules->jvp, primals, directions, argnums, count) == 0;
    mlx_vector_array_free(primals);
    mlx_vector_array_free(directions);
    free(given);
    free(argnums);
    return good;
}

/* Runs fun again, forward. */
static bool push_through(const Rules *rules, Node *whole, Node *const *tangents,
                         mlx_vector_array *results) {
    const size_t n = (size_t)((const CustomParam *)whole->param)->n_primals;
    Node **all = base_calloc(n + 1, sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = tangents[i] ? node_retain(tangents[i]) : op_zeros_like(whole->inputs[i]);
    mlx_vector_array primals = list_of(whole->inputs, n), directions = {NULL}, values = {NULL};
    const bool good = op_finish_vector(&directions, all, n) == 0 &&
                      mlx_jvp(&values, results, rules->fun, primals, directions) == 0;
    mlx_vector_array_free(primals);
    mlx_vector_array_free(directions);
    mlx_vector_array_free(values);
    free(all);
    return good;
}

Node *custom_tangents(Node *whole, Node *const *tangents, bool *handled) {
    *handled = whole->op == &custom_op;
    if (!*handled) return NULL;
    const CustomParam *param = whole->param;
    const size_t n = (size_t)param->n_primals, m = (size_t)param->n_outputs;
    const Rules *rules = whole->inputs[n + m]->buffer->payload;
    mlx_vector_array results = {NULL};
    Node *const *nodes = NULL, *bundle = NULL;
    size_t n_results = 0;
    bool good = (rules->jvp.ctx ? call_jvp : push_through)(rules, whole, tangents, &results) &&
                vector_nodes(results, &nodes, &n_results);
    if (good && n_results != m) {
        op_error("[custom_function] The forward rule gave %zu tangents for %zu outputs.", n_results,
                 m);
        good = false;
    }
    for (size_t i = 0; i < m && good; i++) {
        Node *tangent = op_astype(nodes[i], whole->inputs[n + i]->dtype);
        good = tangent && bundle_add(&bundle, i, tangent);
    }
    if (!good) {
        node_release(bundle);
        bundle = NULL;
    }
    mlx_vector_array_free(results);
    return bundle;
}

/* ---- the call ---- */

static int custom_call(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    Rules *rules = payload;
    Node *const *primals, *const *values;
    size_t n, m;
    mlx_vector_array outputs = {NULL};
    if (!vector_nodes(input, &primals, &n)) return 1;
    if (mlx_closure_apply(&outputs, rules->fun, input) || !vector_nodes(outputs, &values, &m))
        return 1;
    Node **inputs = base_alloc((n + m + 1) * sizeof *inputs);
    Node **results = base_calloc(m + 1, sizeof *results);
    for (size_t i = 0; i < n; i++) inputs[i] = primals[i];
    for (size_t i = 0; i < m; i++) inputs[n + i] = op_stop_gradient(values[i]);
    atomic_fetch_add(&rules->refs, 1);
    inputs[n + m] = node_from_buffer(buffer_foreign(NULL, 0, rules_release, rules), 0, MLX_UINT8,
                                     (int[]){0}, 1);
    const CustomParam param = {(int)n, (int)m};
    Node *whole = node_new_param(&custom_op, MLX_UINT8, (int[]){0}, 1, &param, sizeof param, inputs,
                                 (int)(n + m + 1));
    for (size_t i = 0; i < m; i++) results[i] = custom_part(whole, inputs[n + i], i);
    const int status = op_finish_vector(res, results, m);
    node_release(whole);
    for (size_t i = 0; i <= m; i++) node_release(inputs[n + i]);
    free(inputs);
    free(results);
    mlx_vector_array_free(outputs);
    return status;
}

static int custom_closure(mlx_closure *res, const mlx_closure fun, const mlx_closure_custom vjp,
                          const mlx_closure_custom_jvp jvp, bool later) {
    if (!ctx_of(fun, mlx_closure)) return 1;
    Rules *rules = base_calloc(1, sizeof *rules);
    rules->refs = 1;
    rules->later = later;
    mlx_closure_set(&rules->fun, fun);
    if (vjp.ctx) mlx_closure_custom_set(&rules->vjp, vjp);
    if (jvp.ctx) mlx_closure_custom_jvp_set(&rules->jvp, jvp);
    mlx_closure made = closure_new_own(custom_call, rules, rules_release);
    const int status = mlx_closure_set(res, made);
    mlx_closure_free(made);
    return status;
}

int mlx_custom_function(mlx_closure *res, const mlx_closure fun, const mlx_closure_custom fun_vjp,
                        const mlx_closure_custom_jvp fun_jvp,
                        const mlx_closure_custom_vmap fun_vmap) {
    if (!fun_vjp.ctx && !fun_jvp.ctx && !fun_vmap.ctx) return mlx_closure_set(res, fun);
    return custom_closure(res, fun, fun_vjp, fun_jvp, false);
}

int mlx_custom_vjp(mlx_closure *res, const mlx_closure fun, const mlx_closure_custom fun_vjp) {
    if (!ctx_of(fun_vjp, mlx_closure_custom)) return 1;
    return custom_closure(res, fun, fun_vjp, (mlx_closure_custom_jvp){NULL}, false);
}

int mlx_checkpoint(mlx_closure *res, const mlx_closure fun) {
    return custom_closure(res, fun, (mlx_closure_custom){NULL}, (mlx_closure_custom_jvp){NULL},
                          true);
}
