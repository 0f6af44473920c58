/* to_fp8 and from_fp8: floats as bytes of E4M3 and back. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

enum { CHUNK = 256 };

typedef struct Convert {
    const Node *x, *node;
    float values[256]; /* of every code; from_fp8 */
} Convert;

/* Items [begin, end) of a layout without holes, by way of float32. */
static void to_fp8_slice(void *context, size_t begin, size_t end, int thread) {
    const Convert *c = context;
    uint8_t *out = node_data(c->node);
    float wide[CHUNK];
    (void)thread;
    for (size_t i = begin; i < end; i += CHUNK) {
        const size_t n = BASE_MIN((size_t)CHUNK, end - i);
        cast_run(wide, MLX_FLOAT32, ops_at(c->x, (int64_t)i), c->x->dtype, n);
        for (size_t j = 0; j < n; j++) out[i + j] = cpu_fp8_from_f32(wide[j]);
    }
}

static void from_fp8_slice(void *context, size_t begin, size_t end, int thread) {
    const Convert *c = context;
    const uint8_t *in = node_data(c->x);
    float wide[CHUNK];
    (void)thread;
    for (size_t i = begin; i < end; i += CHUNK) {
        const size_t n = BASE_MIN((size_t)CHUNK, end - i);
        for (size_t j = 0; j < n; j++) wide[j] = c->values[in[i + j]];
        cast_run(ops_at(c->node, (int64_t)i), c->node->dtype, wide, MLX_FLOAT32, n);
    }
}

static bool convert(Node *node, ParallelBody slice, Error *err) {
    Convert context = {.node = node};
    Node *x = ready_row_contiguous(node->inputs[0], err);
    const bool ok = x && node_alloc(node, err);
    if (ok) {
        for (int code = 0; code < 256; code++)
            context.values[code] = cpu_f32_from_fp8((uint8_t)code);
        context.x = x;
        ops_parallel(node->size, node->size, slice, &context);
    }
    node_release(x);
    return ok;
}

static bool to_fp8_eval(Node *node, Error *err) {
    return convert(node, to_fp8_slice, err);
}
static const Op to_fp8_op = {"to_fp8", to_fp8_eval, NULL};

static bool from_fp8_eval(Node *node, Error *err) {
    return convert(node, from_fp8_slice, err);
}
static const Op from_fp8_op = {"from_fp8", from_fp8_eval, NULL};

int mlx_to_fp8(mlx_array *res, const mlx_array x, const mlx_stream s) {
    Node *node = stream_ok(s) ? node_of(x) : NULL;
    if (!node) return 1;
    if (dtype_info[node->dtype].kind != 'f') {
        op_error("[to_fp8] Only real floating types are supported but x.dtype() == %s.",
                 dtype_name(node->dtype));
        return 1;
    }
    return op_finish(res, node_new(&to_fp8_op, MLX_UINT8, node->shape, node->ndim, NODES(node)));
}

int mlx_from_fp8(mlx_array *res, const mlx_array x, mlx_dtype dtype, const mlx_stream s) {
    Node *node = stream_ok(s) ? node_of(x) : NULL;
    if (!node) return 1;
    if (node->dtype != MLX_UINT8) {
        op_error("[from_fp8] Input must have type uint8 but x.dtype() == %s.",
                 dtype_name(node->dtype));
        return 1;
    }
    if (!dtype_valid(dtype) || dtype_info[dtype].kind != 'f') {
        op_error("[from_fp8] Only real floating types are supported but dtype == %s.",
                 dtype_valid(dtype) ? dtype_name(dtype) : "unknown");
        return 1;
    }
    return op_finish(res, node_new(&from_fp8_op, dtype, node->shape, node->ndim, NODES(node)));
}
