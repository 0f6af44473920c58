/* mlx_vjp and mlx_value_and_grad: one traced run of the function, one walk back. */
#include "engine/core/internal.h"
#include "engine/grad/tape.h"
#include "engine/ops/ops.h"
#include "mlx/c/transforms.h"

#include <stdlib.h>

/* Pairs outputs with cotangents, those behind stop_gradient left out, and casts
 * the cotangents to the dtypes of their outputs. False after reporting. */
static bool match_cotangents(Node *const *outputs, size_t count, Node *const *cotangents,
                             size_t n_cotangents, Node **live, Node **casts, size_t *n_live) {
    *n_live = 0;
    for (size_t i = 0; i < count; i++) {
        if (node_is_stop_gradient(outputs[i])) continue;
        if (*n_live >= n_cotangents) {
            op_error("[vjp] Number of outputs to compute gradients for (%zu) does not match number "
                     "of cotangents (%zu).",
                     count, n_cotangents);
            return false;
        }
        Node *g = cotangents[*n_live];
        if (!shape_equal(outputs[i], g)) {
            op_error("[vjp] Output shape %s does not match cotangent shape %s.%s",
                     SHAPE(outputs[i]), SHAPE(g),
                     count == 1 && outputs[i]->size == 1
                         ? " If you are using grad your function must return a scalar."
                         : "");
            return false;
        }
        casts[*n_live] = op_astype(g, outputs[i]->dtype);
        if (!casts[*n_live]) return false;
        live[(*n_live)++] = outputs[i];
    }
    return true;
}

static bool backward(const Trace *trace, mlx_vector_array outputs, Node *const *cotangents,
                     size_t n_cotangents, const size_t *targets, size_t n_targets, Node **grads) {
    Node *const *nodes;
    size_t count, n_live;
    if (!vector_nodes(outputs, &nodes, &count)) return false;
    Node **live = base_calloc(2 * count + 1, sizeof(Node *)), **casts = live + count;
    bool good = match_cotangents(nodes, count, cotangents, n_cotangents, live, casts, &n_live) &&
                tape_backward(trace, live, casts, n_live, targets, n_targets, grads);
    for (size_t i = 0; i < count; i++) node_release(casts[i]);
    free(live);
    return good;
}

bool grad_vjp(mlx_closure fun, Node *const *primals, size_t n_primals, Node *const *cotangents,
              size_t n_cotangents, const size_t *targets, size_t n_targets,
              mlx_vector_array *values, Node **grads) {
    Trace trace;
    if (!trace_begin(&trace, primals, n_primals)) return false;
    mlx_vector_array outputs = {NULL};
    const bool good =
        trace_call(&trace, n_primals, fun, &outputs) &&
        backward(&trace, outputs, cotangents, n_cotangents, targets, n_targets, grads);

    Node *const *nodes = NULL;
    size_t count = 0;
    if (outputs.ctx) vector_nodes(outputs, &nodes, &count);
    const size_t n_grads = good ? n_targets : 0;
    Node **results = base_alloc((count + n_grads + 1) * sizeof(Node *));
    for (size_t i = 0; i < count; i++) results[i] = nodes[i];
    for (size_t i = 0; i < n_grads; i++) results[count + i] = grads[i];
    trace_end(&trace, results, count + n_grads);
    free(results);
    if (good)
        *values = outputs;
    else
        mlx_vector_array_free(outputs);
    return good;
}

/* Stores what grad_vjp gave: frees values, takes over grads. */
static int finish(mlx_vector_array *res_0, mlx_vector_array *res_1, mlx_vector_array values,
                  Node *const *grads, size_t count) {
    int status = mlx_vector_array_set(res_0, values);
    mlx_vector_array_free(values);
    if (op_finish_vector(res_1, grads, count)) status = 1;
    return status;
}

int mlx_vjp(mlx_vector_array *res_0, mlx_vector_array *res_1, const mlx_closure fun,
            const mlx_vector_array primals, const mlx_vector_array cotangents) {
    Node *const *inputs, *const *incoming;
    size_t n_inputs, n_incoming;
    if (!vector_nodes(primals, &inputs, &n_inputs) ||
        !vector_nodes(cotangents, &incoming, &n_incoming) || !ctx_of(fun, mlx_closure))
        return 1;
    Node **grads = base_calloc(n_inputs + 1, sizeof(Node *));
    size_t *targets = base_alloc((n_inputs + 1) * sizeof(size_t));
    for (size_t i = 0; i < n_inputs; i++) targets[i] = i;
    mlx_vector_array values = {NULL};
    int status = 1;
    if (grad_vjp(fun, inputs, n_inputs, incoming, n_incoming, targets, n_inputs, &values, grads))
        status = finish(res_0, res_1, values, grads, n_inputs);
    free(targets);
    free(grads);
    return status;
}

/* ---- value_and_grad ---- */

typedef struct ValueAndGrad {
    mlx_closure fun;    /* as given */
    mlx_closure traced; /* fun with every output but the first behind stop_gradient */
    size_t count;
    int argnums[]; /* [count] */
} ValueAndGrad;

static void value_and_grad_free(void *payload) {
    ValueAndGrad *job = payload;
    mlx_closure_free(job->traced);
    mlx_closure_free(job->fun);
    free(job);
}

static int first_output(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    const ValueAndGrad *job = payload;
    mlx_vector_array outputs = {NULL};
    if (mlx_closure_apply(&outputs, job->fun, input)) return 1;
    Node *const *nodes;
    size_t count;
    vector_nodes(outputs, &nodes, &count);
    Node **results = base_alloc((count + 1) * sizeof(Node *));
    for (size_t i = 0; i < count; i++)
        results[i] = i ? op_stop_gradient(nodes[i]) : node_retain(nodes[i]);
    const int status = op_finish_vector(res, results, count);
    free(results);
    mlx_vector_array_free(outputs);
    return status;
}

static int compare_sizes(const void *a, const void *b) {
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* argnums from the end made positive, sorted, checked. False after reporting. */
static bool fix_argnums(const ValueAndGrad *job, size_t n_inputs, size_t *targets) {
    for (size_t i = 0; i < job->count; i++) {
        const int64_t n = (int64_t)n_inputs;
        const int64_t argnum = job->argnums[i] < 0 ? job->argnums[i] + n : job->argnums[i];
        if (argnum < 0 || argnum >= n) {
            op_error("[grad] Invalid argument number for function with %zu inputs.", n_inputs);
            return false;
        }
        targets[i] = (size_t)argnum;
    }
    qsort(targets, job->count, sizeof *targets, compare_sizes);
    for (size_t i = 1; i < job->count; i++)
        if (targets[i] == targets[i - 1]) {
            op_error("[grad] Repeat argument number not allowed in grad.");
            return false;
        }
    return true;
}

static int value_and_grad_run(mlx_vector_array *res_0, mlx_vector_array *res_1,
                              const mlx_vector_array input, void *payload) {
    const ValueAndGrad *job = payload;
    Node *const *inputs;
    size_t n_inputs;
    if (!vector_nodes(input, &inputs, &n_inputs)) return 1;
    size_t *targets = base_alloc(job->count * sizeof(size_t));
    Node **grads = base_calloc(job->count, sizeof(Node *)), *one = node_scalar(1, MLX_FLOAT32);
    mlx_vector_array values = {NULL};
    int status = 1;
    if (fix_argnums(job, n_inputs, targets) &&
        grad_vjp(job->traced, inputs, n_inputs, &one, 1, targets, job->count, &values, grads))
        status = finish(res_0, res_1, values, grads, job->count);
    node_release(one);
    free(targets);
    free(grads);
    return status;
}

int mlx_value_and_grad(mlx_closure_value_and_grad *res, const mlx_closure fun, const int *argnums,
                       size_t argnums_num) {
    if (!ctx_of(fun, mlx_closure)) return 1;
    if (!argnums_num) {
        op_error("[grad] Must specify at least one argument.");
        return 1;
    }
    ValueAndGrad *job = base_alloc(sizeof *job + argnums_num * sizeof(int));
    job->fun = job->traced = (mlx_closure){NULL};
    mlx_closure_set(&job->fun, fun);
    /* The payload owns this closure, so it must not own the payload. */
    job->traced = closure_new_own(first_output, job, NULL);
    job->count = argnums_num;
    for (size_t i = 0; i < argnums_num; i++) job->argnums[i] = argnums[i];
    mlx_closure_value_and_grad made =
        closure_value_and_grad_new_own(value_and_grad_run, job, value_and_grad_free);
    const int status = mlx_closure_value_and_grad_set(res, made);
    mlx_closure_value_and_grad_free(made);
    return status;
}
