/* Element-wise functions of one array.
 *
 * A row of the table says what dtype a function gives and which loop computes
 * it: floats of up to 32 bits by the CPU kernels or a float32 loop (16-bit
 * floats in tiles), float64 and complex64 by loops here, integers by one loop
 * per type, or not at all where the function is the identity on them. */
#include "engine/ops/ops.h"
#include "engine/ops/threefry.h"
#include "mlx/c/ops.h"

#include <complex.h>
#include <math.h>
#include <string.h>

typedef void (*UnaryLoop)(void *out, const void *in, size_t n);

#define LOOP(name, type, result, expression)                \
    static void name(void *out, const void *in, size_t n) { \
        const type *px = in;                                \
        result *py = out;                                   \
        for (size_t i = 0; i < n; i++) {                    \
            const type x = px[i];                           \
            py[i] = (result)(expression);                   \
        }                                                   \
    }

/* Integers: one loop per type, in the order of mlx_dtype. Arithmetic is modulo
 * 2^32 or 2^64, so that nothing overflows. */
#define INTEGER_LOOPS(name, small, large)                                                         \
    LOOP(name##_bool, uint8_t, uint8_t, (small) != 0)                                             \
    LOOP(name##_u8, uint8_t, uint8_t, small)                                                      \
    LOOP(name##_u16, uint16_t, uint16_t, small)                                                   \
    LOOP(name##_u32, uint32_t, uint32_t, small)                                                   \
    LOOP(name##_u64, uint64_t, uint64_t, large)                                                   \
    LOOP(name##_i8, int8_t, int8_t, small)                                                        \
    LOOP(name##_i16, int16_t, int16_t, small)                                                     \
    LOOP(name##_i32, int32_t, int32_t, small)                                                     \
    LOOP(name##_i64, int64_t, int64_t, large)                                                     \
    static const UnaryLoop name##_integers[MLX_INT64 + 1] = {name##_bool, name##_u8,  name##_u16, \
                                                             name##_u32,  name##_u64, name##_i8,  \
                                                             name##_i16,  name##_i32, name##_i64};

INTEGER_LOOPS(negative, 0u - (uint32_t)x, (uint64_t)0 - (uint64_t)x)
INTEGER_LOOPS(square, (uint32_t)x *(uint32_t)x, (uint64_t)x *(uint64_t)x)
/* Unsigned x is never below 0; the comparison is written so that no type warns. */
INTEGER_LOOPS(sign, (x > 0) - (x != 0 && !(x > 0)), (x > 0) - (x != 0 && !(x > 0)))
LOOP(abs_i8, int8_t, int8_t, x < 0 ? -x : x)
LOOP(abs_i16, int16_t, int16_t, x < 0 ? -x : x)
LOOP(abs_i32, int32_t, int32_t, x < 0 ? 0u - (uint32_t)x : (uint32_t)x)
LOOP(abs_i64, int64_t, int64_t, x < 0 ? (uint64_t)0 - (uint64_t)x : (uint64_t)x)
static const UnaryLoop abs_integers[MLX_INT64 + 1] = {
    [MLX_INT8] = abs_i8, [MLX_INT16] = abs_i16, [MLX_INT32] = abs_i32, [MLX_INT64] = abs_i64};
LOOP(not_bool, uint8_t, uint8_t, !x)
static const UnaryLoop not_integers[MLX_INT64 + 1] = {[MLX_BOOL] = not_bool};

LOOP(erfinv_f32, float, float, random_erfinv(x))
LOOP(isinf_f32, float, uint8_t, isinf(x) != 0)
LOOP(isnan_f32, float, uint8_t, isnan(x) != 0)
LOOP(sign_f32, float, float, isnan(x) ? x : (float)((x > 0) - (x < 0)))

/* The inverse of erf in double: the float32 polynomial, then two Newton steps. */
static double erfinv_f64_one(double x) {
    if (fabs(x) >= 1) return fabs(x) == 1 ? copysign(HUGE_VAL, x) : (double)NAN;
    double y = (double)random_erfinv((float)x);
    for (int step = 0; step < 2 && isfinite(y); step++)
        y -= (erf(y) - x) * 0.88622692545275801 * exp(y * y);
    return y;
}

LOOP(abs_f64, double, double, fabs(x))
LOOP(ceil_f64, double, double, ceil(x))
LOOP(cos_f64, double, double, cos(x))
LOOP(erf_f64, double, double, erf(x))
LOOP(erfinv_f64, double, double, erfinv_f64_one(x))
LOOP(exp_f64, double, double, exp(x))
LOOP(expm1_f64, double, double, expm1(x))
LOOP(floor_f64, double, double, floor(x))
LOOP(isinf_f64, double, uint8_t, isinf(x) != 0)
LOOP(isnan_f64, double, uint8_t, isnan(x) != 0)
LOOP(log_f64, double, double, log(x))
LOOP(log1p_f64, double, double, log1p(x))
LOOP(negative_f64, double, double, -x)
LOOP(reciprocal_f64, double, double, 1 / x)
LOOP(round_f64, double, double, rint(x))
LOOP(rsqrt_f64, double, double, 1 / sqrt(x))
LOOP(sigmoid_f64, double, double, x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)))
LOOP(sign_f64, double, double, isnan(x) ? x : (double)((x > 0) - (x < 0)))
LOOP(sin_f64, double, double, sin(x))
LOOP(sqrt_f64, double, double, sqrt(x))
LOOP(square_f64, double, double, x *x)
LOOP(tanh_f64, double, double, tanh(x))

typedef float complex Complex;
LOOP(abs_c64, Complex, float, cabsf(x))
LOOP(isinf_c64, Complex, uint8_t, isinf(crealf(x)) || isinf(cimagf(x)))
LOOP(isnan_c64, Complex, uint8_t, isnan(crealf(x)) || isnan(cimagf(x)))
LOOP(negative_c64, Complex, Complex, -x)
LOOP(reciprocal_c64, Complex, Complex, 1.0f / x)
LOOP(sign_c64, Complex, Complex, x == 0 ? x : x / cabsf(x))
LOOP(square_c64, Complex, Complex, x *x)

typedef enum { KEEPS, FLOATS, ANSWERS } UnaryResult; /* same dtype, a float, bool */

typedef struct UnaryRow {
    const char *name;
    UnaryResult result;
    int kernel; /* CpuUnary, or -1: use f32 */
    UnaryLoop f32, f64, c64;
    const UnaryLoop *integers; /* entries may be NULL: the identity */
} UnaryRow;

static const UnaryRow unary_rows[UNARY_COUNT] = {
    [UNARY_ABS] = {"abs", KEEPS, CPU_ABS, NULL, abs_f64, abs_c64, abs_integers},
    [UNARY_CEIL] = {"ceil", KEEPS, CPU_CEIL, NULL, ceil_f64, NULL, NULL},
    [UNARY_COS] = {"cos", FLOATS, CPU_COS, NULL, cos_f64, NULL, NULL},
    [UNARY_ERF] = {"erf", FLOATS, CPU_ERF, NULL, erf_f64, NULL, NULL},
    [UNARY_ERFINV] = {"erfinv", FLOATS, -1, erfinv_f32, erfinv_f64, NULL, NULL},
    [UNARY_EXP] = {"exp", FLOATS, CPU_EXP, NULL, exp_f64, NULL, NULL},
    [UNARY_EXPM1] = {"expm1", FLOATS, CPU_EXPM1, NULL, expm1_f64, NULL, NULL},
    [UNARY_FLOOR] = {"floor", KEEPS, CPU_FLOOR, NULL, floor_f64, NULL, NULL},
    [UNARY_ISINF] = {"isinf", ANSWERS, -1, isinf_f32, isinf_f64, isinf_c64, NULL},
    [UNARY_ISNAN] = {"isnan", ANSWERS, -1, isnan_f32, isnan_f64, isnan_c64, NULL},
    [UNARY_LOG] = {"log", FLOATS, CPU_LOG, NULL, log_f64, NULL, NULL},
    [UNARY_LOG1P] = {"log1p", FLOATS, CPU_LOG1P, NULL, log1p_f64, NULL, NULL},
    [UNARY_LOGICAL_NOT] = {"logical_not", ANSWERS, -1, NULL, NULL, NULL, not_integers},
    [UNARY_NEGATIVE] = {"negative", KEEPS, CPU_NEGATIVE, NULL, negative_f64, negative_c64,
                        negative_integers},
    [UNARY_RECIPROCAL] = {"reciprocal", FLOATS, CPU_RECIPROCAL, NULL, reciprocal_f64,
                          reciprocal_c64, NULL},
    [UNARY_ROUND] = {"round", KEEPS, CPU_ROUND, NULL, round_f64, NULL, NULL},
    [UNARY_RSQRT] = {"rsqrt", FLOATS, CPU_RSQRT, NULL, rsqrt_f64, NULL, NULL},
    [UNARY_SIGMOID] = {"sigmoid", FLOATS, CPU_SIGMOID, NULL, sigmoid_f64, NULL, NULL},
    [UNARY_SIGN] = {"sign", KEEPS, -1, sign_f32, sign_f64, sign_c64, sign_integers},
    [UNARY_SIN] = {"sin", FLOATS, CPU_SIN, NULL, sin_f64, NULL, NULL},
    [UNARY_SQRT] = {"sqrt", FLOATS, CPU_SQRT, NULL, sqrt_f64, NULL, NULL},
    [UNARY_SQUARE] = {"square", KEEPS, CPU_SQUARE, NULL, square_f64, square_c64, square_integers},
    [UNARY_TANH] = {"tanh", FLOATS, CPU_TANH, NULL, tanh_f64, NULL, NULL},
};

typedef struct UnaryParam {
    UnaryKind kind;
} UnaryParam;

/* n contiguous items of dtype; out == in is fine for equal item sizes. */
static void unary_run(const UnaryRow *row, mlx_dtype dtype, void *out, const void *in, size_t n) {
    CpuType type;
    if (ops_cpu_type(dtype, &type)) {
        if (row->kernel >= 0) {
            cpu_unary((CpuUnary)row->kernel, type, out, in, n);
            return;
        }
        if (type == CPU_F32) {
            row->f32(out, in, n);
            return;
        }
        float tile[OPS_TILE];
        const size_t out_size = row->result == ANSWERS ? 1 : 2;
        for (size_t done = 0; done < n; done += OPS_TILE) {
            const size_t count = BASE_MIN(n - done, (size_t)OPS_TILE);
            uint8_t *y = (uint8_t *)out + done * out_size;
            cpu_convert(tile, CPU_F32, (const uint8_t *)in + 2 * done, type, count);
            if (row->result == ANSWERS) {
                row->f32(y, tile, count);
            } else {
                row->f32(tile, tile, count);
                cpu_convert(y, type, tile, CPU_F32, count);
            }
        }
        return;
    }
    const UnaryLoop loop = dtype == MLX_FLOAT64     ? row->f64
                           : dtype == MLX_COMPLEX64 ? row->c64
                                                    : row->integers[dtype];
    loop(out, in, n);
}

typedef struct UnaryJob {
    const UnaryRow *row;
    mlx_dtype dtype;
    size_t in_size, out_size;
    uint8_t *out;
    const uint8_t *in;
} UnaryJob;

static void unary_slice(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const UnaryJob *job = context;
    unary_run(job->row, job->dtype, job->out + begin * job->out_size,
              job->in + begin * job->in_size, end - begin);
}

static bool unary_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    const UnaryRow *row = &unary_rows[((const UnaryParam *)node->param)->kind];
    const mlx_dtype dtype = x->dtype;
    if (x->contiguous) {
        const uint8_t *in = node_data(x);
        if (!node_alloc_like(node, 0, err)) return false;
        UnaryJob job = {row, dtype, x->itemsize, node->itemsize, node_data(node), in};
        ops_parallel(node->data_size, node->data_size, unary_slice, &job);
        return true;
    }
    if (!node_alloc(node, err)) return false;
    Walk walk;
    walk_init(&walk, node->shape, node->ndim, 2, (const int64_t *[]){node->strides, x->strides});
    uint8_t tile[OPS_TILE * 8];
    for (size_t r = 0; r < walk.rows; r++, walk_next(&walk)) {
        if (walk.step[1] == 1) {
            unary_run(row, dtype, ops_at(node, walk.at[0]), ops_at(x, walk.at[1]),
                      (size_t)walk.count);
            continue;
        }
        for (int64_t done = 0; done < walk.count; done += OPS_TILE) {
            const size_t count = (size_t)BASE_MIN(walk.count - done, (int64_t)OPS_TILE);
            copy_gather(tile, ops_at(x, walk.at[1] + done * walk.step[1]), walk.step[1], count,
                        x->itemsize);
            unary_run(row, dtype, ops_at(node, walk.at[0] + done), tile, count);
        }
    }
    return true;
}

#define UNARY_OP(kind, text) [kind] = {text, unary_eval, NULL}
static const Op unary_ops[UNARY_COUNT] = {
    UNARY_OP(UNARY_ABS, "abs"),
    UNARY_OP(UNARY_CEIL, "ceil"),
    UNARY_OP(UNARY_COS, "cos"),
    UNARY_OP(UNARY_ERF, "erf"),
    UNARY_OP(UNARY_ERFINV, "erfinv"),
    UNARY_OP(UNARY_EXP, "exp"),
    UNARY_OP(UNARY_EXPM1, "expm1"),
    UNARY_OP(UNARY_FLOOR, "floor"),
    UNARY_OP(UNARY_ISINF, "isinf"),
    UNARY_OP(UNARY_ISNAN, "isnan"),
    UNARY_OP(UNARY_LOG, "log"),
    UNARY_OP(UNARY_LOG1P, "log1p"),
    UNARY_OP(UNARY_LOGICAL_NOT, "logical_not"),
    UNARY_OP(UNARY_NEGATIVE, "negative"),
    UNARY_OP(UNARY_RECIPROCAL, "reciprocal"),
    UNARY_OP(UNARY_ROUND, "round"),
    UNARY_OP(UNARY_RSQRT, "rsqrt"),
    UNARY_OP(UNARY_SIGMOID, "sigmoid"),
    UNARY_OP(UNARY_SIGN, "sign"),
    UNARY_OP(UNARY_SIN, "sin"),
    UNARY_OP(UNARY_SQRT, "sqrt"),
    UNARY_OP(UNARY_SQUARE, "square"),
    UNARY_OP(UNARY_TANH, "tanh"),
};

static Node *unary_node(UnaryKind kind, mlx_dtype dtype, Node *x) {
    return node_new_param(&unary_ops[kind], dtype, x->shape, x->ndim, &(UnaryParam){kind},
                          sizeof(UnaryParam), NODES(x));
}

Node *op_unary(UnaryKind kind, Node *x) {
    if (!x) return NULL;
    const UnaryRow *row = &unary_rows[kind];
    const mlx_dtype dtype = x->dtype;
    const bool is_integer = !dtype_is_float(dtype);
    if (kind == UNARY_LOGICAL_NOT) {
        Node *truth = op_astype(x, MLX_BOOL);
        Node *result = truth ? unary_node(kind, MLX_BOOL, truth) : NULL;
        node_release(truth);
        return result;
    }
    if (dtype == MLX_COMPLEX64 && !row->c64)
        return op_error("[%s] Not supported for complex64.", row->name);
    if (kind == UNARY_NEGATIVE && dtype == MLX_BOOL)
        return op_error("[negative] Not supported for bool, use logical_not instead.");
    if (row->result == ANSWERS && is_integer) /* no integer is infinite or NaN */
        return op_full_value(x->shape, x->ndim, 0, MLX_BOOL);
    if (row->result == FLOATS && is_integer) {
        Node *real = op_astype(x, MLX_FLOAT32);
        Node *result = real ? unary_node(kind, MLX_FLOAT32, real) : NULL;
        node_release(real);
        return result;
    }
    if (is_integer && (!row->integers || !row->integers[dtype])) return node_retain(x);
    const mlx_dtype out = row->result == ANSWERS                        ? MLX_BOOL
                          : kind == UNARY_ABS && dtype == MLX_COMPLEX64 ? MLX_FLOAT32
                                                                        : dtype;
    return unary_node(kind, out, x);
}

#define UNARY_API(function, kind)                                               \
    int mlx_##function(mlx_array *res, const mlx_array a, const mlx_stream s) { \
        return stream_ok(s) ? op_finish(res, op_unary(kind, node_of(a))) : 1;   \
    }
UNARY_API(abs, UNARY_ABS)
UNARY_API(ceil, UNARY_CEIL)
UNARY_API(cos, UNARY_COS)
UNARY_API(erf, UNARY_ERF)
UNARY_API(exp, UNARY_EXP)
UNARY_API(expm1, UNARY_EXPM1)
UNARY_API(floor, UNARY_FLOOR)
UNARY_API(isinf, UNARY_ISINF)
UNARY_API(isnan, UNARY_ISNAN)
UNARY_API(log, UNARY_LOG)
UNARY_API(log1p, UNARY_LOG1P)
UNARY_API(logical_not, UNARY_LOGICAL_NOT)
UNARY_API(negative, UNARY_NEGATIVE)
UNARY_API(reciprocal, UNARY_RECIPROCAL)
UNARY_API(rsqrt, UNARY_RSQRT)
UNARY_API(sigmoid, UNARY_SIGMOID)
UNARY_API(sign, UNARY_SIGN)
UNARY_API(sin, UNARY_SIN)
UNARY_API(sqrt, UNARY_SQRT)
UNARY_API(square, UNARY_SQUARE)
UNARY_API(tanh, UNARY_TANH)

/* With decimals: x * 10^d rounded, times 10^-d; the power is in x's dtype. */
int mlx_round(mlx_array *res, const mlx_array a, int decimals, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    if (!x) return 1;
    if (decimals == 0) return op_finish(res, op_unary(UNARY_ROUND, x));
    const mlx_dtype dtype = dtype_at_least_float(x->dtype);
    Node *real = op_astype(x, dtype);
    Node *scaled = op_binary_scalar(BINARY_MULTIPLY, real, pow(10, decimals));
    Node *rounded = op_unary(UNARY_ROUND, scaled);
    Node *shifted = op_binary_scalar(BINARY_MULTIPLY, rounded, pow(10, -decimals));
    Node *result = op_astype(shifted, x->dtype);
    node_release(real);
    node_release(scaled);
    node_release(rounded);
    node_release(shifted);
    return op_finish(res, result);
}
