/* Moving items between layouts: gathers, scatters, strided copies, and the
 * operations that are nothing else (contiguous, copy, stop_gradient, depends). */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

#define GATHER_LOOP(type)                                           \
    {                                                               \
        const type *x = in;                                         \
        type *y = out;                                              \
        for (size_t i = 0; i < n; i++) y[i] = x[(int64_t)i * step]; \
        return;                                                     \
    }
void copy_gather(void *out, const void *in, int64_t step, size_t n, size_t itemsize) {
    if (step == 1) {
        memcpy(out, in, n * itemsize);
        return;
    }
    switch (itemsize) {
    case 1: GATHER_LOOP(uint8_t)
    case 2: GATHER_LOOP(uint16_t)
    case 4: GATHER_LOOP(uint32_t)
    default: GATHER_LOOP(uint64_t)
    }
}

#define SCATTER_LOOP(type)                                          \
    {                                                               \
        const type *x = in;                                         \
        type *y = out;                                              \
        for (size_t i = 0; i < n; i++) y[(int64_t)i * step] = x[i]; \
        return;                                                     \
    }
void copy_scatter(void *out, int64_t step, const void *in, size_t n, size_t itemsize) {
    if (step == 1) {
        memcpy(out, in, n * itemsize);
        return;
    }
    switch (itemsize) {
    case 1: SCATTER_LOOP(uint8_t)
    case 2: SCATTER_LOOP(uint16_t)
    case 4: SCATTER_LOOP(uint32_t)
    default: SCATTER_LOOP(uint64_t)
    }
}

#define RUN_LOOP(type)                                                    \
    {                                                                     \
        const type *x = in;                                               \
        type *y = out;                                                    \
        for (int64_t i = 0; i < n; i++) y[i * out_step] = x[i * in_step]; \
        return;                                                           \
    }
static void copy_run(void *out, int64_t out_step, const void *in, int64_t in_step, int64_t n,
                     size_t itemsize) {
    if (out_step == 1 && in_step == 1) {
        memcpy(out, in, (size_t)n * itemsize);
        return;
    }
    switch (itemsize) {
    case 1: RUN_LOOP(uint8_t)
    case 2: RUN_LOOP(uint16_t)
    case 4: RUN_LOOP(uint32_t)
    default: RUN_LOOP(uint64_t)
    }
}

typedef struct CopyJob {
    uint8_t *out;
    const uint8_t *in;
    size_t itemsize;
    const Walk *walk;
} CopyJob;

static void copy_rows(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const CopyJob *job = context;
    const int64_t itemsize = (int64_t)job->itemsize;
    Walk walk = *job->walk;
    if (begin) walk_seek(&walk, begin);
    for (size_t row = begin; row < end; row++, walk_next(&walk))
        copy_run(job->out + walk.at[0] * itemsize, walk.step[0], job->in + walk.at[1] * itemsize,
                 walk.step[1], walk.count, job->itemsize);
}

void copy_strided(void *out, const int64_t *out_strides, const void *in, const int64_t *in_strides,
                  const int *shape, int ndim, size_t itemsize) {
    Walk walk;
    walk_init(&walk, shape, ndim, 2, (const int64_t *[]){out_strides, in_strides});
    CopyJob job = {out, in, itemsize, &walk};
    if (walk.rows) ops_parallel(walk.rows, walk.rows * (size_t)walk.count, copy_rows, &job);
}

static bool copy_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    if (!node_alloc(node, err)) return false;
    copy_strided(node_data(node), node->strides, node_data(x), x->strides, x->shape, x->ndim,
                 x->itemsize);
    return true;
}

Node *ready_row_contiguous(Node *x, Error *err) {
    if (x->row_contiguous) return node_retain(x);
    Node *copy = node_from_data(NULL, x->dtype, x->shape, x->ndim);
    if (!copy) {
        base_fail(err, ERROR_MEMORY, "no memory for a contiguous copy of %zu bytes",
                  node_nbytes(x));
        return NULL;
    }
    copy_strided(node_data(copy), copy->strides, node_data(x), x->strides, x->shape, x->ndim,
                 x->itemsize);
    return copy;
}

bool ops_zero_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    (void)node, (void)g, (void)wanted, (void)grads;
    return true;
}

/* For all that gives its first input unchanged. */
static bool pass_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    (void)node;
    if (wanted[0]) grads[0] = node_retain(g);
    return true;
}

typedef struct ContiguousParam {
    bool allow_col_major;
} ContiguousParam;

/* Contiguous arrays are shared unless they keep a much larger buffer alive; a
 * mapped file costs nothing to keep. */
static bool contiguous_eval(Node *node, Error *err) {
    enum { SLACK_BYTES = 16384 };
    const Node *x = node->inputs[0];
    const ContiguousParam *param = node->param;
    const bool laid_out = x->row_contiguous || (param->allow_col_major && x->col_contiguous);
    if (laid_out && (x->buffer->foreign || x->buffer->capacity <= node_nbytes(x) + SLACK_BYTES)) {
        node_share(node, x, x->strides, 0);
        return true;
    }
    return copy_eval(node, err);
}
static const Op contiguous_op = {"contiguous", contiguous_eval, pass_vjp};

Node *op_contiguous(Node *x, bool allow_col_major) {
    if (!x) return NULL;
    return node_new_param(&contiguous_op, x->dtype, x->shape, x->ndim,
                          &(ContiguousParam){allow_col_major}, sizeof(ContiguousParam), NODES(x));
}

static bool share_eval(Node *node, Error *err) {
    (void)err;
    const Node *x = node->inputs[0];
    node_share(node, x, x->strides, 0);
    return true;
}
static const Op alias_op = {"copy", share_eval, pass_vjp};
static const Op stop_gradient_op = {"stop_gradient", share_eval, ops_zero_vjp};
static const Op depends_op = {"depends", share_eval, pass_vjp};

static Node *share(const Op *op, Node *x) {
    return x ? node_new(op, x->dtype, x->shape, x->ndim, NODES(x)) : NULL;
}

/* Every output keeps all dependencies as inputs, so they are evaluated first. */
void op_depends(Node *const *values, size_t count, Node *const *others, size_t n_others,
                Node **out) {
    Node **list = base_alloc((n_others + 1) * sizeof *list);
    if (n_others) memcpy(list + 1, others, n_others * sizeof *list);
    for (size_t i = 0; i < count; i++) {
        list[0] = values[i];
        out[i] = values[i] ? node_new(&depends_op, values[i]->dtype, values[i]->shape,
                                      values[i]->ndim, list, (int)n_others + 1)
                           : NULL;
    }
    free(list);
}

Node *op_stop_gradient(Node *x) {
    return share(&stop_gradient_op, x);
}

bool node_is_stop_gradient(const Node *node) {
    return node->op == &stop_gradient_op;
}

int mlx_contiguous(mlx_array *res, const mlx_array a, bool allow_col_major, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_contiguous(node_of(a), allow_col_major)) : 1;
}

int mlx_copy(mlx_array *res, const mlx_array a, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, share(&alias_op, node_of(a))) : 1;
}

int mlx_stop_gradient(mlx_array *res, const mlx_array a, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_stop_gradient(node_of(a))) : 1;
}

int mlx_depends(mlx_vector_array *res, const mlx_vector_array inputs,
                const mlx_vector_array dependencies) {
    Node *const *values, *const *others;
    size_t n_values, n_others;
    if (!vector_nodes(inputs, &values, &n_values) ||
        !vector_nodes(dependencies, &others, &n_others))
        return 1;
    Node **outputs = base_alloc((n_values + 1) * sizeof *outputs);
    op_depends(values, n_values, others, n_others, outputs);
    const int status = op_finish_vector(res, outputs, n_values);
    free(outputs);
    return status;
}
