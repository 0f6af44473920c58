/* argmax and argmin: the index of the first extreme along an axis, as uint32.
 * NaN is ignored unless it comes first, as in MLX. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <complex.h>
#include <math.h>

typedef uint32_t (*ArgLoop)(const void *x, int64_t step, size_t n);

#define ARG_LOOP(name, type, better)                               \
    static uint32_t name(const void *px, int64_t step, size_t n) { \
        const type *x = px;                                        \
        size_t found = 0;                                          \
        type best = x[0];                                          \
        for (size_t i = 1; i < n; i++) {                           \
            const type v = x[(int64_t)i * step];                   \
            if (better) {                                          \
                best = v;                                          \
                found = i;                                         \
            }                                                      \
        }                                                          \
        return (uint32_t)found;                                    \
    }
#define ARG_LOOPS(suffix, type)               \
    ARG_LOOP(argmax_##suffix, type, v > best) \
    ARG_LOOP(argmin_##suffix, type, v < best)
ARG_LOOPS(u8, uint8_t)
ARG_LOOPS(u16, uint16_t)
ARG_LOOPS(u32, uint32_t)
ARG_LOOPS(u64, uint64_t)
ARG_LOOPS(i8, int8_t)
ARG_LOOPS(i16, int16_t)
ARG_LOOPS(i32, int32_t)
ARG_LOOPS(i64, int64_t)
ARG_LOOPS(f32, float)
ARG_LOOPS(f64, double)
/* By the real part first. */
typedef float complex Complex;
static bool complex_above(Complex a, Complex b) {
    return crealf(a) > crealf(b) || (crealf(a) == crealf(b) && cimagf(a) > cimagf(b));
}
ARG_LOOP(argmax_c64, Complex, complex_above(v, best))
ARG_LOOP(argmin_c64, Complex, complex_above(best, v))

#define PAIR(suffix) \
    { argmin_##suffix, argmax_##suffix }
static const ArgLoop arg_loops[DTYPE_COUNT][2] = {
    [MLX_BOOL] = PAIR(u8),     [MLX_UINT8] = PAIR(u8),    [MLX_UINT16] = PAIR(u16),
    [MLX_UINT32] = PAIR(u32),  [MLX_UINT64] = PAIR(u64),  [MLX_INT8] = PAIR(i8),
    [MLX_INT16] = PAIR(i16),   [MLX_INT32] = PAIR(i32),   [MLX_INT64] = PAIR(i64),
    [MLX_FLOAT32] = PAIR(f32), [MLX_FLOAT64] = PAIR(f64), [MLX_COMPLEX64] = PAIR(c64)};

/* The extreme by the vector kernel, then the first place that holds it, a block
 * at a time. */
static uint32_t arg_contiguous(bool want_max, const float *x, size_t n) {
    enum { BLOCK = 64 };
    const float best = want_max ? cpu_max(CPU_F32, x, n) : cpu_min(CPU_F32, x, n);
    if (isnan(best)) return arg_loops[MLX_FLOAT32][want_max](x, 1, n);
    for (size_t block = 0; block < n; block += BLOCK) {
        const size_t end = BASE_MIN(block + BLOCK, n);
        int hits = 0;
        for (size_t i = block; i < end; i++) hits |= x[i] == best;
        if (!hits) continue;
        for (size_t i = block; i < end; i++)
            if (x[i] == best) return (uint32_t)i;
    }
    return 0;
}

typedef struct HalfExtreme {
    float value;
    size_t index;
} HalfExtreme;

/* 16-bit floats in tiles, of which few hold anything better than the best so far. */
static uint32_t arg_halves(bool want_max, CpuType type, const uint8_t *x, int64_t step, size_t n) {
    float values[OPS_TILE];
    uint16_t halves[OPS_TILE];
    HalfExtreme best = {0, 0};
    for (size_t done = 0; done < n; done += OPS_TILE) {
        const size_t count = BASE_MIN(n - done, (size_t)OPS_TILE);
        copy_gather(halves, x + (int64_t)done * step * 2, step, count, 2);
        cpu_convert(values, CPU_F32, halves, type, count);
        if (done) {
            const float extreme =
                want_max ? cpu_max(CPU_F32, values, count) : cpu_min(CPU_F32, values, count);
            if (want_max ? extreme <= best.value : extreme >= best.value) continue;
        }
        for (size_t i = 0; i < count; i++) {
            const bool better = want_max ? values[i] > best.value : values[i] < best.value;
            if (better || (done == 0 && i == 0)) best = (HalfExtreme){values[i], done + i};
        }
    }
    return (uint32_t)best.index;
}

typedef struct ArgParam {
    int axis;
    bool want_max;
} ArgParam;

typedef struct ArgJob {
    const Node *x;
    uint32_t *out;
    size_t n;
    int64_t step;
    bool want_max;
    const Walk *walk;
} ArgJob;

static void arg_rows(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const ArgJob *job = context;
    Walk walk = *job->walk;
    if (begin) walk_seek(&walk, begin);
    const mlx_dtype dtype = job->x->dtype;
    CpuType type;
    const bool kernel_type = ops_cpu_type(dtype, &type);
    for (size_t row = begin; row < end; row++, walk_next(&walk)) {
        for (int64_t i = 0; i < walk.count; i++) {
            const uint8_t *x = ops_at(job->x, walk.at[1] + i * walk.step[1]);
            uint32_t *out = job->out + walk.at[0] + i * walk.step[0];
            if (kernel_type && type != CPU_F32)
                *out = arg_halves(job->want_max, type, x, job->step, job->n);
            else if (kernel_type && job->step == 1)
                *out = arg_contiguous(job->want_max, (const float *)(const void *)x, job->n);
            else
                *out = arg_loops[dtype][job->want_max](x, job->step, job->n);
        }
    }
}

static bool arg_eval(Node *node, Error *err) {
    const ArgParam *param = node->param;
    const Node *x = node->inputs[0];
    if (!node_alloc(node, err)) return false;
    int shape[NODE_DIMS], ndim = 0;
    int64_t strides[NODE_DIMS], out_strides[NODE_DIMS];
    for (int axis = 0; axis < x->ndim; axis++) {
        if (axis == param->axis) continue;
        shape[ndim] = x->shape[axis];
        strides[ndim++] = x->strides[axis];
    }
    strides_row_major(shape, ndim, out_strides);
    Walk walk;
    walk_init(&walk, shape, ndim, 2, (const int64_t *[]){out_strides, strides});
    ArgJob job = {x,
                  node_data(node),
                  (size_t)x->shape[param->axis],
                  x->strides[param->axis],
                  param->want_max,
                  &walk};
    if (walk.rows) ops_parallel(walk.rows, x->size, arg_rows, &job);
    return true;
}
static const Op argmax_op = {"argmax", arg_eval, ops_zero_vjp},
                argmin_op = {"argmin", arg_eval, ops_zero_vjp};

Node *op_arg_reduce(bool want_max, Node *x, int axis, bool keepdims) {
    if (!x) return NULL;
    const char *name = want_max ? "argmax" : "argmin";
    if (!axis_fix(name, &axis, x->ndim)) return NULL;
    if (x->size == 0) return op_error("[%s] Cannot %s reduce zero size array.", name, name);
    int shape[NODE_DIMS], ndim = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (i != axis)
            shape[ndim++] = x->shape[i];
        else if (keepdims)
            shape[ndim++] = 1;
    }
    return node_new_param(want_max ? &argmax_op : &argmin_op, MLX_UINT32, shape, ndim,
                          &(ArgParam){axis, want_max}, sizeof(ArgParam), NODES(x));
}

/* Over all items, in row-major order. */
static Node *arg_reduce_all(bool want_max, Node *x, bool keepdims) {
    if (!x) return NULL;
    Node *flat = op_flatten(x, 0, -1);
    Node *index = op_arg_reduce(want_max, flat, 0, false);
    node_release(flat);
    if (!keepdims || !index) return index;
    int ones[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) ones[i] = 1;
    Node *result = op_reshape(index, ones, x->ndim);
    node_release(index);
    return result;
}

#define ARG_API(name, want_max)                                                                   \
    int mlx_##name(mlx_array *res, const mlx_array a, bool keepdims, const mlx_stream s) {        \
        return stream_ok(s) ? op_finish(res, arg_reduce_all(want_max, node_of(a), keepdims)) : 1; \
    }                                                                                             \
    int mlx_##name##_axis(mlx_array *res, const mlx_array a, int axis, bool keepdims,             \
                          const mlx_stream s) {                                                   \
        return stream_ok(s) ? op_finish(res, op_arg_reduce(want_max, node_of(a), axis, keepdims)) \
                            : 1;                                                                  \
    }
ARG_API(argmax, true)
ARG_API(argmin, false)
