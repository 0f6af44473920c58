/* hadamard_transform: the last axis times a Hadamard matrix, in float32 (or
 * float64) whatever the storage. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <math.h>
#include <stdlib.h>

typedef struct HadamardParam {
    float scale;
    bool transposed; /* the gradient's matrix */
} HadamardParam;

typedef struct HadamardJob {
    uint8_t *data; /* [rows, n], transformed in place */
    mlx_dtype dtype;
    size_t n;
    HadamardParam param;
    float *wide; /* [threads, n] for the 16-bit types */
} HadamardJob;

static void hadamard_rows(void *context, size_t begin, size_t end, int thread) {
    const HadamardJob *job = context;
    CpuType type = CPU_F32;
    ops_cpu_type(job->dtype, &type);
    float *wide = job->wide ? job->wide + (size_t)thread * job->n : NULL;
    for (size_t row = begin; row < end; row++) {
        uint8_t *x = job->data + row * job->n * dtype_info[job->dtype].size;
        if (job->dtype == MLX_FLOAT64) {
            cpu_hadamard_f64((double *)(void *)x, job->n, (double)job->param.scale,
                             job->param.transposed);
        } else if (!wide) {
            cpu_hadamard_f32((float *)(void *)x, job->n, job->param.scale, job->param.transposed);
        } else {
            cpu_convert(wide, CPU_F32, x, type, job->n);
            cpu_hadamard_f32(wide, job->n, job->param.scale, job->param.transposed);
            cpu_convert(x, type, wide, CPU_F32, job->n);
        }
    }
}

static bool hadamard_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    if (!(x->row_contiguous && node_donate(node, 0))) {
        if (!node_alloc(node, err)) return false;
        copy_strided(node_data(node), node->strides, node_data(x), x->strides, x->shape, x->ndim,
                     x->itemsize);
    }
    HadamardJob job = {node_data(node), node->dtype, (size_t)node->shape[node->ndim - 1],
                       *(const HadamardParam *)node->param, NULL};
    if (ops_is_half(node->dtype)) {
        job.wide = base_try_alloc((size_t)base_threads() * job.n, sizeof(float), err);
        if (!job.wide) return false;
    }
    ops_parallel(node->size / job.n, 8 * node->size, hadamard_rows, &job);
    free(job.wide);
    return true;
}

static Node *hadamard_node(Node *x, HadamardParam param);

static bool hadamard_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    HadamardParam param = *(const HadamardParam *)node->param;
    param.transposed = !param.transposed;
    if (wanted[0]) grads[0] = hadamard_node(g, param);
    return !wanted[0] || grads[0];
}
static const Op hadamard_op = {"hadamard_transform", hadamard_eval, hadamard_vjp};

static Node *hadamard_node(Node *x, HadamardParam param) {
    return node_new_param(&hadamard_op, x->dtype, x->shape, x->ndim, &param, sizeof param,
                          NODES(x));
}

static Node *op_hadamard_transform(Node *x, mlx_optional_float scale) {
    if (!x) return NULL;
    if (x->size == 0) return op_error("[hadamard_transform] Does not support empty arrays.");
    const int n = x->ndim ? x->shape[x->ndim - 1] : 1;
    const float factor = scale.has_value ? scale.value : 1.0f / sqrtf((float)n);
    if (!cpu_hadamard_length_ok((size_t)n))
        return op_error("[hadamard_transform] Only supports n = m*2^k where m in (1, 12, 20, 28) "
                        "and k <= 26, but the last axis of %s has %d items.",
                        SHAPE(x), n);
    const mlx_dtype dtype = dtype_info[x->dtype].kind == 'f' ? x->dtype : MLX_FLOAT32;
    if (n == 1) {
        if (factor == 1.0f) return node_retain(x);
        Node *constant = node_scalar((double)factor, dtype);
        Node *scaled = op_binary(BINARY_MULTIPLY, x, constant);
        node_release(constant);
        return scaled;
    }
    Node *real = op_astype(x, dtype);
    Node *result = hadamard_node(real, (HadamardParam){factor, false});
    node_release(real);
    return result;
}

int mlx_hadamard_transform(mlx_array *res, const mlx_array a, mlx_optional_float scale,
                           const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_hadamard_transform(node_of(a), scale)) : 1;
}
