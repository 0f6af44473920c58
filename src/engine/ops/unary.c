/* Element-wise functions of one array: their dtypes and the paths through
 * memory. The loops themselves are in unary_loops.c. */
#include "engine/ops/elementwise.h"
#include "engine/ops/rule.h"
#include "engine/ops/unary_loops.h"
#include "mlx/c/ops.h"

#include <math.h>

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

void unary_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n) {
    const UnaryRow *row = &unary_rows[((const UnaryParam *)node->param)->kind];
    const mlx_dtype dtype = tile_dtype(node->inputs[0]->dtype);
    (void)step;
    if (dtype == MLX_FLOAT32 && row->kernel >= 0)
        cpu_unary_tile((CpuUnary)row->kernel, out, in[0], n);
    else
        unary_run(row, dtype, out, in[0], n);
}

bool unary_eval(Node *node, Error *err) {
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

/* dy/dx from x and y; t owns what is made on the way, and the result. */
static Node *unary_slope(UnaryKind kind, Node *x, Node *y, Temps *t) {
    static const double two_over_root_pi = 1.1283791670955126, half_root_pi = 0.886226925452758;
    Node *square;
    switch (kind) {
    case UNARY_ABS: return temp(t, op_unary(UNARY_SIGN, x));
    case UNARY_ARCCOS:
    case UNARY_ARCSIN:
        square = temp(t, op_rsubtract(1, temp(t, op_unary(UNARY_SQUARE, x))));
        return temp(
            t, op_scale(temp(t, op_unary(UNARY_RSQRT, square)), kind == UNARY_ARCSIN ? 1 : -1));
    case UNARY_ARCCOSH:
    case UNARY_ARCSINH:
        square = temp(t, op_unary(UNARY_SQUARE, x));
        square = temp(t, op_binary_scalar(BINARY_ADD, square, kind == UNARY_ARCSINH ? 1 : -1));
        return temp(t, op_unary(UNARY_RSQRT, square));
    case UNARY_ARCTAN:
        square = temp(t, op_binary_scalar(BINARY_ADD, temp(t, op_unary(UNARY_SQUARE, x)), 1));
        return temp(t, op_unary(UNARY_RECIPROCAL, square));
    case UNARY_ARCTANH:
        square = temp(t, op_rsubtract(1, temp(t, op_unary(UNARY_SQUARE, x))));
        return temp(t, op_unary(UNARY_RECIPROCAL, square));
    case UNARY_COSH: return temp(t, op_unary(UNARY_SINH, x));
    case UNARY_LOG10:
        return temp(t, op_scale(temp(t, op_unary(UNARY_RECIPROCAL, x)), 0.4342944819032518));
    case UNARY_LOG2:
        return temp(t, op_scale(temp(t, op_unary(UNARY_RECIPROCAL, x)), 1.4426950408889634));
    case UNARY_SINH: return temp(t, op_unary(UNARY_COSH, x));
    case UNARY_TAN:
        return temp(t, op_binary_scalar(BINARY_ADD, temp(t, op_unary(UNARY_SQUARE, y)), 1));
    case UNARY_COS: return temp(t, op_negative(temp(t, op_unary(UNARY_SIN, x))));
    case UNARY_ERF:
        square = temp(t, op_negative(temp(t, op_unary(UNARY_SQUARE, x))));
        return temp(t, op_scale(temp(t, op_unary(UNARY_EXP, square)), two_over_root_pi));
    case UNARY_ERFINV:
        square = temp(t, op_unary(UNARY_SQUARE, y));
        return temp(t, op_scale(temp(t, op_unary(UNARY_EXP, square)), half_root_pi));
    case UNARY_EXP: return y;
    case UNARY_EXPM1: return temp(t, op_binary_scalar(BINARY_ADD, y, 1));
    case UNARY_LOG: return temp(t, op_unary(UNARY_RECIPROCAL, x));
    case UNARY_LOG1P:
        return temp(t, op_unary(UNARY_RECIPROCAL, temp(t, op_binary_scalar(BINARY_ADD, x, 1))));
    case UNARY_RECIPROCAL: return temp(t, op_negative(temp(t, op_unary(UNARY_SQUARE, y))));
    case UNARY_RSQRT: return temp(t, op_scale(temp(t, op_divide(y, x)), -0.5));
    case UNARY_SIGMOID: return temp(t, op_multiply(y, temp(t, op_rsubtract(1, y))));
    case UNARY_SIN: return temp(t, op_unary(UNARY_COS, x));
    case UNARY_SQRT: return temp(t, op_scale(temp(t, op_unary(UNARY_RECIPROCAL, y)), 0.5));
    case UNARY_SQUARE: return temp(t, op_scale(x, 2));
    case UNARY_TANH: return temp(t, op_rsubtract(1, temp(t, op_unary(UNARY_SQUARE, y))));
    default: return NULL;
    }
}

/* Real results of complex numbers. */
static Node *complex_grad(UnaryKind kind, Node *g, Temps *t) {
    Node *wide = temp(t, op_astype(g, MLX_COMPLEX64));
    if (kind != UNARY_IMAG) return node_retain(wide);
    Node *factor = temp(t, node_from_data((const float[2]){0, 1}, MLX_COMPLEX64, NULL, 0));
    return op_multiply(wide, factor);
}

static bool unary_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    const UnaryKind kind = ((const UnaryParam *)node->param)->kind;
    Temps t = {0};
    switch (kind) {
    case UNARY_NEGATIVE:
    case UNARY_CONJUGATE: grads[0] = op_unary(kind, g); break;
    case UNARY_IMAG:
    case UNARY_REAL: grads[0] = complex_grad(kind, g, &t); break;
    default: grads[0] = op_multiply(g, unary_slope(kind, node->inputs[0], node, &t)); break;
    }
    return temps_end(&t, grads[0] != NULL);
}

static Node *unary_jvp(Node *node, Node *const *tangents) {
    const UnaryKind kind = ((const UnaryParam *)node->param)->kind;
    Node *x = node->inputs[0], *tangent = tangents[0], *result;
    Temps t = {0};
    switch (kind) {
    case UNARY_NEGATIVE:
    case UNARY_CONJUGATE:
    case UNARY_IMAG:
    case UNARY_REAL: result = op_unary(kind, tangent); break;
    default: {
        Node *slope = unary_slope(kind, x, node, &t);
        if (node->dtype == x->dtype) {
            result = op_multiply(tangent, slope);
        } else { /* the length of a complex number */
            Node *turned = temp(&t, op_unary(UNARY_CONJUGATE, slope));
            result = op_unary(UNARY_REAL, temp(&t, op_multiply(turned, tangent)));
        }
    }
    }
    temps_end(&t, true);
    return result;
}

ForwardRule unary_forward_rule(const Node *node) {
    return node->op->eval == unary_eval ? unary_jvp : NULL;
}

#define UNARY_OP(kind, text, vjp) [kind] = {text, unary_eval, vjp}
static const Op unary_ops[UNARY_COUNT] = {
    UNARY_OP(UNARY_ABS, "abs", unary_vjp),
    UNARY_OP(UNARY_CEIL, "ceil", ops_zero_vjp),
    UNARY_OP(UNARY_COS, "cos", unary_vjp),
    UNARY_OP(UNARY_ERF, "erf", unary_vjp),
    UNARY_OP(UNARY_ERFINV, "erfinv", unary_vjp),
    UNARY_OP(UNARY_EXP, "exp", unary_vjp),
    UNARY_OP(UNARY_EXPM1, "expm1", unary_vjp),
    UNARY_OP(UNARY_FLOOR, "floor", ops_zero_vjp),
    UNARY_OP(UNARY_ISINF, "isinf", ops_zero_vjp),
    UNARY_OP(UNARY_ISNAN, "isnan", ops_zero_vjp),
    UNARY_OP(UNARY_LOG, "log", unary_vjp),
    UNARY_OP(UNARY_LOG1P, "log1p", unary_vjp),
    UNARY_OP(UNARY_LOGICAL_NOT, "logical_not", ops_zero_vjp),
    UNARY_OP(UNARY_NEGATIVE, "negative", unary_vjp),
    UNARY_OP(UNARY_RECIPROCAL, "reciprocal", unary_vjp),
    UNARY_OP(UNARY_ROUND, "round", ops_zero_vjp),
    UNARY_OP(UNARY_RSQRT, "rsqrt", unary_vjp),
    UNARY_OP(UNARY_SIGMOID, "sigmoid", unary_vjp),
    UNARY_OP(UNARY_SIGN, "sign", ops_zero_vjp),
    UNARY_OP(UNARY_SIN, "sin", unary_vjp),
    UNARY_OP(UNARY_SQRT, "sqrt", unary_vjp),
    UNARY_OP(UNARY_SQUARE, "square", unary_vjp),
    UNARY_OP(UNARY_TANH, "tanh", unary_vjp),
    UNARY_OP(UNARY_ARCCOS, "arccos", unary_vjp),
    UNARY_OP(UNARY_ARCCOSH, "arccosh", unary_vjp),
    UNARY_OP(UNARY_ARCSIN, "arcsin", unary_vjp),
    UNARY_OP(UNARY_ARCSINH, "arcsinh", unary_vjp),
    UNARY_OP(UNARY_ARCTAN, "arctan", unary_vjp),
    UNARY_OP(UNARY_ARCTANH, "arctanh", unary_vjp),
    UNARY_OP(UNARY_BITWISE_INVERT, "bitwise_invert", ops_zero_vjp),
    UNARY_OP(UNARY_CONJUGATE, "conjugate", unary_vjp),
    UNARY_OP(UNARY_COSH, "cosh", unary_vjp),
    UNARY_OP(UNARY_IMAG, "imag", unary_vjp),
    UNARY_OP(UNARY_ISFINITE, "isfinite", ops_zero_vjp),
    UNARY_OP(UNARY_ISNEGINF, "isneginf", ops_zero_vjp),
    UNARY_OP(UNARY_ISPOSINF, "isposinf", ops_zero_vjp),
    UNARY_OP(UNARY_LOG10, "log10", unary_vjp),
    UNARY_OP(UNARY_LOG2, "log2", unary_vjp),
    UNARY_OP(UNARY_REAL, "real", unary_vjp),
    UNARY_OP(UNARY_SINH, "sinh", unary_vjp),
    UNARY_OP(UNARY_TAN, "tan", unary_vjp),
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
    if (kind == UNARY_BITWISE_INVERT) {
        if (dtype_is_float(dtype))
            return op_error("[bitwise_invert] Bitwise inverse only allowed on integer types.");
        if (dtype == MLX_BOOL) return op_unary(UNARY_LOGICAL_NOT, x);
    }
    if (kind == UNARY_IMAG && dtype != MLX_COMPLEX64)
        return op_full_value(x->shape, x->ndim, 0, dtype);
    if ((kind == UNARY_CONJUGATE || kind == UNARY_REAL) && dtype != MLX_COMPLEX64)
        return node_retain(x);
    if (kind == UNARY_RECIPROCAL && dtype == MLX_COMPLEX64) { /* its gradient is a quotient's */
        Node *one = node_scalar(1, dtype);
        Node *result = op_divide(one, x);
        node_release(one);
        return result;
    }
    if (dtype == MLX_COMPLEX64 && !row->c64)
        return op_error("[%s] Not supported for complex64.", row->name);
    if (kind == UNARY_NEGATIVE && dtype == MLX_BOOL)
        return op_error("[negative] Not supported for bool, use logical_not instead.");
    if (row->result == ANSWERS && is_integer) /* no integer is infinite or NaN */
        return op_full_value(x->shape, x->ndim, kind == UNARY_ISFINITE, MLX_BOOL);
    if (row->result == FLOATS && is_integer) {
        Node *real = op_astype(x, MLX_FLOAT32);
        Node *result = real ? unary_node(kind, MLX_FLOAT32, real) : NULL;
        node_release(real);
        return result;
    }
    if (is_integer && (kind == UNARY_CEIL || kind == UNARY_FLOOR || kind == UNARY_ROUND))
        return op_stop_gradient(x);
    if (is_integer && (!row->integers || !row->integers[dtype])) return node_retain(x);
    const bool magnitude = kind == UNARY_ABS || kind == UNARY_REAL || kind == UNARY_IMAG;
    const mlx_dtype out = row->result == ANSWERS                ? MLX_BOOL
                          : magnitude && dtype == MLX_COMPLEX64 ? MLX_FLOAT32
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
UNARY_API(erfinv, UNARY_ERFINV)
UNARY_API(arccos, UNARY_ARCCOS)
UNARY_API(arccosh, UNARY_ARCCOSH)
UNARY_API(arcsin, UNARY_ARCSIN)
UNARY_API(arcsinh, UNARY_ARCSINH)
UNARY_API(arctan, UNARY_ARCTAN)
UNARY_API(arctanh, UNARY_ARCTANH)
UNARY_API(bitwise_invert, UNARY_BITWISE_INVERT)
UNARY_API(conjugate, UNARY_CONJUGATE)
UNARY_API(cosh, UNARY_COSH)
UNARY_API(imag, UNARY_IMAG)
UNARY_API(isfinite, UNARY_ISFINITE)
UNARY_API(isneginf, UNARY_ISNEGINF)
UNARY_API(isposinf, UNARY_ISPOSINF)
UNARY_API(log10, UNARY_LOG10)
UNARY_API(log2, UNARY_LOG2)
UNARY_API(real, UNARY_REAL)
UNARY_API(sinh, UNARY_SINH)
UNARY_API(tan, UNARY_TAN)

/* x * factor, integers as float32. */
static Node *scaled_angle(Node *x, double factor) {
    Node *real = x ? op_astype(x, dtype_at_least_float(x->dtype)) : NULL;
    Node *result = op_binary_scalar(BINARY_MULTIPLY, real, factor);
    node_release(real);
    return result;
}
int mlx_degrees(mlx_array *res, const mlx_array a, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, scaled_angle(node_of(a), 57.29577951308232)) : 1;
}
int mlx_radians(mlx_array *res, const mlx_array a, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, scaled_angle(node_of(a), 0.017453292519943295)) : 1;
}

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
