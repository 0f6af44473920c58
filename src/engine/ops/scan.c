/* cumsum along an axis. 16-bit floats and float32 accumulate in double and
 * round once an item; integers wrap in their own type. */
#include "engine/ops/rule.h"
#include "engine/ops/scalar.h"
#include "mlx/c/ops.h"

#include <complex.h>

/* Scans n items, in and out by their steps; exclusive: item i gets the sum
 * before it. */
typedef void (*ScanLoop)(void *out, int64_t out_step, const void *in, int64_t in_step, size_t n,
                         bool inclusive);

#define SCAN_LOOP(name, type, total, load, store)                                              \
    static void name(void *pout, int64_t out_step, const void *pin, int64_t in_step, size_t n, \
                     bool inclusive) {                                                         \
        const type *in = pin;                                                                  \
        type *out = pout;                                                                      \
        total sum = 0;                                                                         \
        for (size_t i = 0; i < n; i++) {                                                       \
            const total v = load(in[(int64_t)i * in_step]);                                    \
            const total before = sum;                                                          \
            sum = (total)(sum + v);                                                            \
            out[(int64_t)i * out_step] = (type)store(inclusive ? sum : before);                \
        }                                                                                      \
    }
#define FROM_BF16(x) (double)scalar_from_bf16(x)
#define TO_BF16(x) scalar_to_bf16((float)(x))
#define FROM_F16(x) (double)scalar_from_f16(x)
#define TO_F16(x) scalar_to_f16((float)(x))
SCAN_LOOP(scan_8, uint8_t, uint32_t, , )
SCAN_LOOP(scan_16, uint16_t, uint32_t, , )
SCAN_LOOP(scan_32, uint32_t, uint32_t, , )
SCAN_LOOP(scan_64, uint64_t, uint64_t, , )
SCAN_LOOP(scan_f32, float, double, (double), )
SCAN_LOOP(scan_f64, double, double, , )
SCAN_LOOP(scan_f16, uint16_t, double, FROM_F16, TO_F16)
SCAN_LOOP(scan_bf16, uint16_t, double, FROM_BF16, TO_BF16)
SCAN_LOOP(scan_c64, float complex, double complex, , )

static const ScanLoop scan_loops[DTYPE_COUNT] = {
    [MLX_UINT8] = scan_8,       [MLX_UINT16] = scan_16,   [MLX_UINT32] = scan_32,
    [MLX_UINT64] = scan_64,     [MLX_INT8] = scan_8,      [MLX_INT16] = scan_16,
    [MLX_INT32] = scan_32,      [MLX_INT64] = scan_64,    [MLX_FLOAT16] = scan_f16,
    [MLX_FLOAT32] = scan_f32,   [MLX_FLOAT64] = scan_f64, [MLX_BFLOAT16] = scan_bf16,
    [MLX_COMPLEX64] = scan_c64,
};

typedef struct ScanParam {
    int axis;
    bool reverse, inclusive;
} ScanParam;

static bool cumsum_eval(Node *node, Error *err) {
    const ScanParam *param = node->param;
    const Node *x = node->inputs[0];
    if (!node_alloc(node, err)) return false;
    const int64_t n = node->shape[param->axis];
    if (node->size == 0) return true;
    int64_t out_step = node->strides[param->axis], in_step = x->strides[param->axis];
    int shape[NODE_DIMS], ndim = 0;
    int64_t strides[2][NODE_DIMS];
    for (int axis = 0; axis < node->ndim; axis++) {
        if (axis == param->axis) continue;
        shape[ndim] = node->shape[axis];
        strides[0][ndim] = node->strides[axis];
        strides[1][ndim++] = x->strides[axis];
    }
    const int64_t out_start = param->reverse ? (n - 1) * out_step : 0;
    const int64_t in_start = param->reverse ? (n - 1) * in_step : 0;
    if (param->reverse) {
        out_step = -out_step;
        in_step = -in_step;
    }
    Walk walk;
    walk_init(&walk, shape, ndim, 2, (const int64_t *[]){strides[0], strides[1]});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk))
        for (int64_t i = 0; i < walk.count; i++)
            scan_loops[node->dtype](ops_at(node, out_start + walk.at[0] + i * walk.step[0]),
                                    out_step, ops_at(x, in_start + walk.at[1] + i * walk.step[1]),
                                    in_step, (size_t)n, param->inclusive);
    return true;
}

static bool cumsum_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const ScanParam *param = node->param;
    return !wanted[0] || (grads[0] = op_cumsum(g, param->axis, !param->reverse, param->inclusive));
}
static const Op cumsum_op = {"cumsum", cumsum_eval, cumsum_vjp};

Node *op_cumsum(Node *x, int axis, bool reverse, bool inclusive) {
    if (!x || !axis_fix("cumsum", &axis, x->ndim)) return NULL;
    Node *source = op_astype(x, x->dtype == MLX_BOOL ? MLX_INT32 : x->dtype);
    Node *result = source ? node_new_param(&cumsum_op, source->dtype, x->shape, x->ndim,
                                           &(ScanParam){axis, reverse, inclusive},
                                           sizeof(ScanParam), NODES(source))
                          : NULL;
    node_release(source);
    return result;
}

int mlx_cumsum(mlx_array *res, const mlx_array a, int axis, bool reverse, bool inclusive,
               const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_cumsum(node_of(a), axis, reverse, inclusive)) : 1;
}
