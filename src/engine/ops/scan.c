/* Scans along an axis: cumsum, cumprod, cummax, cummin, logcumsumexp. Sums,
 * products and log-sums of 16-bit floats and float32 accumulate in double and
 * round once an item; integers wrap in their own type; extremes propagate NaN. */
#include "engine/ops/rule.h"
#include "engine/ops/scalar.h"
#include "mlx/c/ops.h"

#include <complex.h>
#include <math.h>
#include <string.h>

/* Scans n items, in and out by their steps; exclusive: item i gets the result
 * before it. */
typedef void (*ScanLoop)(void *out, int64_t out_step, const void *in, int64_t in_step, size_t n,
                         bool inclusive);

#define SCAN_LOOP(name, type, total, start, load, store, fold)                                 \
    static void name(void *pout, int64_t out_step, const void *pin, int64_t in_step, size_t n, \
                     bool inclusive) {                                                         \
        const type *in = pin;                                                                  \
        type *out = pout;                                                                      \
        total acc = start;                                                                     \
        for (size_t i = 0; i < n; i++) {                                                       \
            const total v = load(in[(int64_t)i * in_step]);                                    \
            const total before = acc;                                                          \
            acc = i ? (total)(fold) : v;                                                       \
            out[(int64_t)i * out_step] = (type)store(inclusive ? acc : before);                \
        }                                                                                      \
    }
#define FROM_BF16(x) (double)scalar_from_bf16(x)
#define TO_BF16(x) scalar_to_bf16((float)(x))
#define FROM_F16(x) (double)scalar_from_f16(x)
#define TO_F16(x) scalar_to_f16((float)(x))
/* One loop per native type that is scanned in double. */
#define REAL_LOOPS(name, start, fold)                                      \
    SCAN_LOOP(name##_f32, float, double, start, (double), (float), fold)   \
    SCAN_LOOP(name##_f64, double, double, start, , , fold)                 \
    SCAN_LOOP(name##_f16, uint16_t, double, start, FROM_F16, TO_F16, fold) \
    SCAN_LOOP(name##_bf16, uint16_t, double, start, FROM_BF16, TO_BF16, fold)
/* Signed integers add and multiply as unsigned ones of their size. */
#define MODULAR_LOOPS(name, start, fold)                      \
    SCAN_LOOP(name##_8, uint8_t, uint32_t, start, , , fold)   \
    SCAN_LOOP(name##_16, uint16_t, uint32_t, start, , , fold) \
    SCAN_LOOP(name##_32, uint32_t, uint32_t, start, , , fold) \
    SCAN_LOOP(name##_64, uint64_t, uint64_t, start, , , fold) \
    SCAN_LOOP(name##_c64, float complex, double complex, start, , , fold)
#define EXTREME_LOOPS(name, limit, infinity, fold)                      \
    SCAN_LOOP(name##_bool, uint8_t, uint8_t, BOOL_##limit, , , fold)    \
    SCAN_LOOP(name##_u8, uint8_t, uint8_t, UINT8_##limit, , , fold)     \
    SCAN_LOOP(name##_u16, uint16_t, uint16_t, UINT16_##limit, , , fold) \
    SCAN_LOOP(name##_u32, uint32_t, uint32_t, UINT32_##limit, , , fold) \
    SCAN_LOOP(name##_u64, uint64_t, uint64_t, UINT64_##limit, , , fold) \
    SCAN_LOOP(name##_i8, int8_t, int8_t, INT8_##limit, , , fold)        \
    SCAN_LOOP(name##_i16, int16_t, int16_t, INT16_##limit, , , fold)    \
    SCAN_LOOP(name##_i32, int32_t, int32_t, INT32_##limit, , , fold)    \
    SCAN_LOOP(name##_i64, int64_t, int64_t, INT64_##limit, , , fold)    \
    REAL_LOOPS(name, infinity, fold)
enum { BOOL_MIN = 0, BOOL_MAX = 1, UINT8_MIN = 0, UINT16_MIN = 0, UINT32_MIN = 0, UINT64_MIN = 0 };

static double log_add(double a, double b) {
    if (isnan(a) || isnan(b)) return (double)NAN;
    const double high = a > b ? a : b, low = a > b ? b : a;
    return isinf(high) || isinf(low) ? high : high + log1p(exp(low - high));
}

/* Complex numbers are ordered by their real parts first; NaN, once seen, stays. */
typedef double complex Complex;
static Complex complex_of(double real, double imaginary) {
    Complex value;
    memcpy(&value, (const double[2]){real, imaginary}, sizeof value);
    return value;
}
static bool complex_above(Complex a, Complex b) {
    return creal(a) > creal(b) || (creal(a) == creal(b) && cimag(a) > cimag(b));
}
static Complex complex_log_add(Complex a, Complex b) {
    const Complex high = complex_above(a, b) ? a : b, low = complex_above(a, b) ? b : a;
    if (isnan(creal(a)) || isnan(creal(b)) || isinf(creal(high)) || isinf(creal(low)))
        return a != a ? a : b != b ? b : high;
    return high + clog(1 + cexp(low - high));
}
#define COMPLEX_LOOP(name, start, fold) \
    SCAN_LOOP(name##_c64, float complex, Complex, start, , , fold)
COMPLEX_LOOP(max, complex_of(-HUGE_VAL, -HUGE_VAL), acc != acc || complex_above(acc, v) ? acc : v)
COMPLEX_LOOP(min, complex_of(HUGE_VAL, HUGE_VAL), acc != acc || complex_above(v, acc) ? acc : v)
COMPLEX_LOOP(logsum, complex_of(-HUGE_VAL, 0), complex_log_add(acc, v))

MODULAR_LOOPS(sum, 0, acc + v)
REAL_LOOPS(sum, 0, acc + v)
MODULAR_LOOPS(prod, 1, acc *v)
REAL_LOOPS(prod, 1, acc *v)
EXTREME_LOOPS(max, MIN, -(double)INFINITY, acc != acc || acc > v ? acc : v)
EXTREME_LOOPS(min, MAX, (double)INFINITY, acc != acc || acc < v ? acc : v)
REAL_LOOPS(logsum, -(double)INFINITY, log_add(acc, v))

typedef enum { SCAN_SUM, SCAN_PROD, SCAN_MAX, SCAN_MIN, SCAN_LOGSUM, SCAN_COUNT } ScanKind;

#define REALS(name)                                                                     \
    [MLX_FLOAT16] = name##_f16, [MLX_FLOAT32] = name##_f32, [MLX_FLOAT64] = name##_f64, \
    [MLX_BFLOAT16] = name##_bf16
#define MODULAR(name)                                                          \
    [MLX_BOOL] = name##_8, [MLX_UINT8] = name##_8, [MLX_UINT16] = name##_16,   \
    [MLX_UINT32] = name##_32, [MLX_UINT64] = name##_64, [MLX_INT8] = name##_8, \
    [MLX_INT16] = name##_16, [MLX_INT32] = name##_32, [MLX_INT64] = name##_64, \
    REALS(name), [MLX_COMPLEX64] = name##_c64
#define ORDERED(name)                                                             \
    [MLX_BOOL] = name##_bool, [MLX_UINT8] = name##_u8, [MLX_UINT16] = name##_u16, \
    [MLX_UINT32] = name##_u32, [MLX_UINT64] = name##_u64, [MLX_INT8] = name##_i8, \
    [MLX_INT16] = name##_i16, [MLX_INT32] = name##_i32, [MLX_INT64] = name##_i64, \
    REALS(name), [MLX_COMPLEX64] = name##_c64
static const ScanLoop scan_loops[SCAN_COUNT][DTYPE_COUNT] = {
    [SCAN_SUM] = {MODULAR(sum)},
    [SCAN_PROD] = {MODULAR(prod)},
    [SCAN_MAX] = {ORDERED(max)},
    [SCAN_MIN] = {ORDERED(min)},
    [SCAN_LOGSUM] = {REALS(logsum), [MLX_COMPLEX64] = logsum_c64},
};

typedef struct ScanParam {
    ScanKind kind;
    int axis;
    bool reverse, inclusive;
} ScanParam;

typedef struct ScanJob {
    const ScanParam *param;
    const Walk *walk; /* output, input; without the axis */
    uint8_t *out;     /* where each line starts, in scan order */
    const uint8_t *in;
    int64_t out_step, in_step, itemsize;
    size_t n;
    ScanLoop loop;
} ScanJob;

static void scan_lines(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const ScanJob *job = context;
    Walk walk = *job->walk;
    const size_t width = (size_t)walk.count;
    walk_seek(&walk, begin / width);
    int64_t column = (int64_t)(begin % width);
    for (size_t line = begin; line < end; line++) {
        job->loop(job->out + (walk.at[0] + column * walk.step[0]) * job->itemsize, job->out_step,
                  job->in + (walk.at[1] + column * walk.step[1]) * job->itemsize, job->in_step,
                  job->n, job->param->inclusive);
        if (++column == walk.count) {
            column = 0;
            walk_next(&walk);
        }
    }
}

static bool scan_eval(Node *node, Error *err) {
    const ScanParam *param = node->param;
    const Node *x = node->inputs[0];
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    const int axis = param->axis;
    int shape[NODE_DIMS], ndim = 0;
    int64_t strides[2][NODE_DIMS];
    for (int i = 0; i < node->ndim; i++) {
        if (i == axis) continue;
        shape[ndim] = node->shape[i];
        strides[0][ndim] = node->strides[i];
        strides[1][ndim++] = x->strides[i];
    }
    Walk walk;
    walk_init(&walk, shape, ndim, 2, (const int64_t *[]){strides[0], strides[1]});
    const int64_t last = param->reverse ? node->shape[axis] - 1 : 0, sign = param->reverse ? -1 : 1;
    ScanJob job = {.param = param,
                   .walk = &walk,
                   .out = ops_at(node, last * node->strides[axis]),
                   .in = ops_at(x, last * x->strides[axis]),
                   .out_step = sign * node->strides[axis],
                   .in_step = sign * x->strides[axis],
                   .itemsize = node->itemsize,
                   .n = (size_t)node->shape[axis],
                   .loop = scan_loops[param->kind][node->dtype]};
    ops_parallel(node->size / job.n, node->size, scan_lines, &job);
    return true;
}

static bool scan_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op scan_ops[SCAN_COUNT] = {
    [SCAN_SUM] = {"cumsum", scan_eval, scan_vjp},
    [SCAN_PROD] = {"cumprod", scan_eval, scan_vjp},
    [SCAN_MAX] = {"cummax", scan_eval, scan_vjp},
    [SCAN_MIN] = {"cummin", scan_eval, scan_vjp},
    [SCAN_LOGSUM] = {"logcumsumexp", scan_eval, scan_vjp},
};

static Node *op_scan(ScanKind kind, Node *x, int axis, bool reverse, bool inclusive) {
    const Op *op = &scan_ops[kind];
    if (!x || !axis_fix(op->name, &axis, x->ndim)) return NULL;
    mlx_dtype dtype = x->dtype;
    if (kind == SCAN_SUM && dtype == MLX_BOOL) dtype = MLX_INT32;
    if (kind == SCAN_LOGSUM) dtype = dtype_at_least_float(dtype);
    Temps t = {0};
    const ScanParam param = {kind, axis, reverse, inclusive};
    Node *source = temp(&t, op_astype(x, dtype));
    Node *result =
        source ? node_new_param(op, dtype, x->shape, x->ndim, &param, sizeof param, NODES(source))
               : NULL;
    if (kind == SCAN_LOGSUM && dtype != x->dtype) /* integers stay what they are, as in MLX */
        result = op_astype(temp(&t, result), x->dtype);
    temps_end(&t, true);
    return result;
}

Node *op_cumsum(Node *x, int axis, bool reverse, bool inclusive) {
    return op_scan(SCAN_SUM, x, axis, reverse, inclusive);
}

Node *op_cumprod(Node *x, int axis, bool reverse, bool inclusive) {
    return op_scan(SCAN_PROD, x, axis, reverse, inclusive);
}

/* ---- gradients ------------------------------------------------------------------ */

/* Up to the first zero each item's part of a product is the product over the
 * item; at the first zero it is the product with 1 in its place; behind it
 * every product is zero whatever the item. */
static Node *prod_grad(Node *x, Node *y, Node *g, const ScanParam *param, Temps *t) {
    const int axis = param->axis;
    const bool reverse = param->reverse, inclusive = param->inclusive;
    Node *other = temp(t, op_scan(SCAN_PROD, x, axis, reverse, !inclusive));
    Node *with = inclusive ? y : other, *without = inclusive ? other : y;
    Node *is_zero = temp(t, op_binary_scalar(BINARY_EQUAL, with, 0));
    Node *before = temp(t, op_binary_scalar(BINARY_NOT_EQUAL, without, 0));
    Node *first = temp(t, op_binary(BINARY_LOGICAL_AND, is_zero, before));
    Node *one = temp(t, node_scalar(1, x->dtype));
    Node *product =
        temp(t, op_scan(SCAN_PROD, temp(t, op_where(first, one, x)), axis, reverse, inclusive));
    Node *at_first =
        temp(t, op_cumsum(temp(t, op_multiply(product, g)), axis, !reverse, inclusive));
    Node *sum = temp(t, op_cumsum(temp(t, op_multiply(y, g)), axis, !reverse, inclusive));
    Node *regular = temp(t, op_divide(sum, temp(t, op_where(is_zero, one, x))));
    return op_where(first, at_first, temp(t, op_drop(is_zero, regular)));
}

/* The part of x along axis that an exclusive scan reads (shift 0) or fills from
 * an item (shift 1). */
static Node *window(Node *x, const ScanParam *param, bool filled) {
    const int n = x->shape[param->axis];
    if (param->inclusive || n == 0) return node_retain(x);
    const int from = filled != param->reverse;
    return op_slice_axis(x, param->axis, from, from + n - 1);
}

/* Each place's gradient goes to the item that holds its extreme, the latest in
 * scan order of equal ones. */
static Node *extreme_grad(Node *x, Node *y, Node *g, const ScanParam *param, Temps *t) {
    const int axis = param->axis, n = x->shape[axis];
    Node *items = temp(t, window(x, param, false)), *extremes = temp(t, window(y, param, true));
    Node *cotangent = temp(t, window(g, param, true));
    if (!items || !extremes || !cotangent || items->size == 0) return op_zeros_like(x);
    int shape[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) shape[i] = 1;
    shape[axis] = items->shape[axis];
    const int start = !param->inclusive && param->reverse;
    Node *line = temp(t, op_arange(start, start + shape[axis], 1, MLX_INT32));
    Node *places = temp(t, op_reshape(line, shape, x->ndim));
    Node *none = temp(t, node_scalar(param->reverse ? n - 1 : 0, MLX_INT32));
    Node *holds =
        temp(t, op_where(temp(t, op_binary(BINARY_EQUAL, items, extremes)), places, none));
    Node *owner =
        temp(t, op_scan(param->reverse ? SCAN_MIN : SCAN_MAX, holds, axis, param->reverse, true));
    return op_put_along_axis(COMBINE_ADD, temp(t, op_zeros_like(x)),
                             temp(t, op_stop_gradient(owner)), cotangent, axis);
}

/* The logarithm of the scanned exp(inside) * size, where it counts; elsewhere size is
 * zero, whose logarithm is `none`. */
static Node *scan_in_logs(Node *size, Node *counts, Node *inside, Node *none,
                          const ScanParam *param, bool reverse, Temps *t) {
    Node *one = temp(t, node_scalar(1, size->dtype));
    Node *logs = temp(t, op_unary(UNARY_LOG, temp(t, op_where(counts, size, one))));
    Node *level = temp(t, op_where(counts, temp(t, op_add(logs, inside)), none));
    return temp(t, op_scan(SCAN_LOGSUM, level, param->axis, reverse, param->inclusive));
}

/* exp(x + log of the scanned g * exp(-y)), for g's positive and negative parts. */
static Node *logsum_grad(Node *x, Node *y, Node *g, const ScanParam *param, Temps *t) {
    Node *parts[2];
    Node *down = temp(t, op_negative(y));
    Node *lowest = temp(t, node_scalar(x->dtype == MLX_FLOAT16 ? -65504 : -1e30, x->dtype));
    for (int i = 0; i < 2; i++) {
        Node *size = i ? temp(t, op_negative(g)) : g;
        Node *counts = temp(t, op_binary_scalar(BINARY_GREATER, size, 0));
        counts =
            temp(t, op_binary(BINARY_LOGICAL_AND, counts, temp(t, op_unary(UNARY_ISFINITE, y))));
        Node *sum = scan_in_logs(size, counts, down, lowest, param, !param->reverse, t);
        parts[i] = temp(t, op_unary(UNARY_EXP, temp(t, op_add(sum, x))));
    }
    return op_subtract(parts[0], parts[1]);
}

static bool scan_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    const ScanParam *param = node->param;
    Node *x = node->inputs[0];
    Temps t = {0};
    switch (param->kind) {
    case SCAN_SUM: grads[0] = op_cumsum(g, param->axis, !param->reverse, param->inclusive); break;
    case SCAN_PROD: grads[0] = prod_grad(x, node, g, param, &t); break;
    case SCAN_LOGSUM: grads[0] = logsum_grad(x, node, g, param, &t); break;
    default: grads[0] = extreme_grad(x, node, g, param, &t); break;
    }
    return temps_end(&t, grads[0] != NULL);
}

/* The scanned exp(x) t over exp(y), for t's positive and negative parts. */
static Node *logsum_tangent(Node *x, Node *y, Node *tangent, const ScanParam *param, Temps *t) {
    Node *parts[2];
    Node *zero = temp(t, node_scalar(0, x->dtype));
    Node *none = temp(t, node_scalar(-INFINITY, x->dtype));
    for (int i = 0; i < 2; i++) {
        Node *size = i ? temp(t, op_negative(tangent)) : tangent;
        Node *counts = temp(t, op_binary(BINARY_GREATER, size, zero));
        Node *sum = scan_in_logs(size, counts, x, none, param, param->reverse, t);
        Node *part = temp(t, op_unary(UNARY_EXP, temp(t, op_subtract(sum, y))));
        Node *some = temp(t, op_binary(BINARY_NOT_EQUAL, sum, none));
        parts[i] = temp(t, op_where(some, part, zero));
    }
    return op_subtract(parts[0], parts[1]);
}

static Node *logsum_jvp(Node *node, Node *const *tangents) {
    Node *x = node->inputs[0];
    if (x->dtype == MLX_COMPLEX64)
        return op_error("[Primitive::jvp] Not implemented for logcumsumexp of complex numbers.");
    Temps t = {0};
    Node *result = logsum_tangent(x, node, tangents[0], node->param, &t);
    temps_end(&t, true);
    return result;
}

ForwardRule scan_forward_rule(const Node *node) {
    return node->op == &scan_ops[SCAN_LOGSUM] ? logsum_jvp : NULL;
}

#define SCAN_API(name, kind)                                                                      \
    int mlx_##name(mlx_array *res, const mlx_array a, int axis, bool reverse, bool inclusive,     \
                   const mlx_stream s) {                                                          \
        return stream_ok(s) ? op_finish(res, op_scan(kind, node_of(a), axis, reverse, inclusive)) \
                            : 1;                                                                  \
    }
SCAN_API(cumsum, SCAN_SUM)
SCAN_API(cumprod, SCAN_PROD)
SCAN_API(cummax, SCAN_MAX)
SCAN_API(cummin, SCAN_MIN)
SCAN_API(logcumsumexp, SCAN_LOGSUM)
