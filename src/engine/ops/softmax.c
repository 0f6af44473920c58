/* softmax and logsumexp. Along the last axis by the row kernels, in float32
 * whatever the storage (so `precise` asks for what always happens); along one
 * other axis by moving it last; along several, and of complex numbers, by
 * composition. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <math.h>

static void softmax_f64(double *out, const double *x, size_t n) {
    double high = -HUGE_VAL, total = 0;
    for (size_t i = 0; i < n; i++) high = x[i] > high || isnan(x[i]) ? x[i] : high;
    for (size_t i = 0; i < n; i++) total += out[i] = exp(x[i] - high);
    for (size_t i = 0; i < n; i++) out[i] /= total;
}

static double logsumexp_f64(const double *x, size_t n) {
    double high = -HUGE_VAL, total = 0;
    for (size_t i = 0; i < n; i++) high = x[i] > high || isnan(x[i]) ? x[i] : high;
    if (isinf(high)) return high;
    for (size_t i = 0; i < n; i++) total += exp(x[i] - high);
    return high + log(total);
}

static bool softmax_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    if (node->size == 0) return node_alloc(node, err);
    const void *in;
    if (x->row_contiguous && node_donate(node, 0)) {
        in = node_data(node);
    } else {
        if (!node_alloc(node, err)) return false;
        in = node_data(node);
        if (x->row_contiguous)
            in = node_data(x);
        else
            copy_strided(node_data(node), node->strides, node_data(x), x->strides, x->shape,
                         x->ndim, x->itemsize);
    }
    const size_t n = (size_t)node->shape[node->ndim - 1], rows = node->size / n;
    void *out = node_data(node);
    CpuType type;
    if (ops_cpu_type(node->dtype, &type)) {
        cpu_softmax(&(CpuRows){type, rows, n, in, out, (ptrdiff_t)n, (ptrdiff_t)n});
    } else {
        for (size_t row = 0; row < rows; row++)
            softmax_f64((double *)out + row * n, (const double *)in + row * n, n);
    }
    return true;
}

/* y * (g - sum(y * g)) */
static bool softmax_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    const int last = node->ndim - 1;
    Temps t = {0};
    Node *weighted = temp(&t, op_multiply(node, g));
    Node *total = temp(&t, op_reduce(REDUCE_SUM, weighted, &last, 1, true));
    grads[0] = op_subtract(weighted, temp(&t, op_multiply(node, total)));
    return temps_end(&t, grads[0] != NULL);
}
static const Op softmax_op = {"softmax", softmax_eval, softmax_vjp};

static bool logsumexp_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    Node *x = ready_row_contiguous(node->inputs[0], err);
    if (!x) return false;
    const size_t n = (size_t)x->shape[x->ndim - 1];
    CpuType type;
    if (ops_cpu_type(node->dtype, &type)) {
        cpu_logsumexp(
            &(CpuRows){type, node->size, n, node_data(x), node_data(node), (ptrdiff_t)n, 1});
    } else {
        for (size_t row = 0; row < node->size; row++)
            ((double *)node_data(node))[row] =
                logsumexp_f64((const double *)node_data(x) + row * n, n);
    }
    node_release(x);
    return true;
}

static bool logsumexp_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    Node *x = node->inputs[0];
    const int last = x->ndim - 1;
    int shape[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) shape[i] = i == last ? 1 : x->shape[i];
    Temps t = {0};
    Node *share = temp(&t, op_softmax(x, &last, 1, true));
    grads[0] = op_multiply(share, temp(&t, op_reshape(g, shape, x->ndim)));
    return temps_end(&t, grads[0] != NULL);
}
const Op logsumexp_op = {"logsumexp", logsumexp_eval, logsumexp_vjp};

/* The dtype of sums over several axes. */
static mlx_dtype wide_dtype(const Node *x) {
    return ops_is_half(x->dtype) ? MLX_FLOAT32 : x->dtype;
}

/* exp(x - max) / sum over several axes, of 16-bit floats in float32. */
static Node *softmax_composed(Node *x, const int *axes, size_t n_axes) {
    Node *wide = op_astype(x, wide_dtype(x));
    Node *high = op_reduce(REDUCE_MAX, wide, axes, n_axes, true);
    Node *shifted = op_binary(BINARY_SUBTRACT, wide, high);
    Node *powers = op_unary(UNARY_EXP, shifted);
    Node *total = op_reduce(REDUCE_SUM, powers, axes, n_axes, true);
    Node *parts = op_binary(BINARY_DIVIDE, powers, total);
    Node *result = op_astype(parts, x->dtype);
    node_release(wide);
    node_release(high);
    node_release(shifted);
    node_release(powers);
    node_release(total);
    node_release(parts);
    return result;
}

/* Are these axes the last one, and perhaps axes of size 1 just before it? */
static bool over_last_axis(const Node *x, const int *axes, size_t n_axes) {
    if (!n_axes || axes[n_axes - 1] != x->ndim - 1) return false;
    for (size_t i = n_axes - 1; i > 0; i--)
        if (axes[i - 1] + 1 != axes[i] || x->shape[axes[i - 1]] != 1) return false;
    return true;
}

/* As in MLX, integers become floats along the last axis only; elsewhere the
 * result is cast back to x's dtype. */
Node *op_softmax(Node *x, const int *axes, size_t n_axes, bool precise) {
    (void)precise;
    if (!x) return NULL;
    if (x->size == 0) return node_retain(x);
    int fixed[NODE_DIMS];
    if (!axes_fix("softmax", axes, n_axes, x->ndim, fixed)) return NULL;
    Node *real = op_astype(x, dtype_at_least_float(x->dtype)), *result = NULL;
    if (!real) return NULL;
    if (n_axes == 0) {
        result = op_full_value(x->shape, x->ndim, 1, real->dtype);
    } else if (x->dtype == MLX_COMPLEX64) {
        result = softmax_composed(real, fixed, n_axes);
    } else if (n_axes == 1 && fixed[0] == x->ndim - 1) {
        result = node_new(&softmax_op, real->dtype, x->shape, x->ndim, NODES(real));
    } else if (n_axes == 1) {
        Node *moved = op_moveaxis(real, fixed[0], -1);
        Node *rows =
            moved ? node_new(&softmax_op, real->dtype, moved->shape, moved->ndim, NODES(moved))
                  : NULL;
        result = op_moveaxis(rows, -1, fixed[0]);
        node_release(moved);
        node_release(rows);
    } else {
        result = softmax_composed(real, fixed, n_axes);
    }
    node_release(real);
    if (over_last_axis(x, fixed, n_axes)) return result;
    Node *cast = op_astype(result, x->dtype);
    node_release(result);
    return cast;
}

/* log(sum(exp(x - max))) + max over several axes; an infinite maximum is not
 * subtracted, so that rows of -infinity stay -infinity. */
static Node *logsumexp_composed(Node *x, const int *axes, size_t n_axes, bool keepdims) {
    Node *wide = op_astype(x, wide_dtype(x));
    Node *high = op_reduce(REDUCE_MAX, wide, axes, n_axes, true);
    Node *infinite = op_unary(UNARY_ISINF, high);
    Node *zero = node_scalar(0, wide ? wide->dtype : MLX_FLOAT32);
    Node *base = op_where(infinite, zero, high);
    Node *shifted = op_binary(BINARY_SUBTRACT, wide, base);
    Node *powers = op_unary(UNARY_EXP, shifted);
    Node *total = op_reduce(REDUCE_SUM, powers, axes, n_axes, true);
    Node *logs = op_unary(UNARY_LOG, total);
    Node *sum = op_binary(BINARY_ADD, logs, base);
    Node *narrow = op_astype(sum, x->dtype);
    Node *result = keepdims ? node_retain(narrow) : op_squeeze(narrow, axes, n_axes);
    Node *const temporaries[] = {wide,   high,  infinite, zero, base,  shifted,
                                 powers, total, logs,     sum,  narrow};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return result;
}

Node *op_logsumexp(Node *x, const int *axes, size_t n_axes, bool keepdims) {
    if (!x) return NULL;
    int fixed[NODE_DIMS];
    if (!axes_fix("logsumexp", axes, n_axes, x->ndim, fixed)) return NULL;
    if (x->size == 0) return op_error("[logsumexp] Received empty array.");
    Node *real = op_astype(x, dtype_at_least_float(x->dtype)), *result = NULL;
    if (!real) return NULL;
    if (n_axes == 1 && fixed[0] == x->ndim - 1 && x->dtype != MLX_COMPLEX64) {
        int shape[NODE_DIMS];
        for (int i = 0; i < x->ndim; i++) shape[i] = x->shape[i];
        shape[x->ndim - 1] = 1;
        result = node_new(&logsumexp_op, real->dtype, shape, x->ndim - !keepdims, NODES(real));
    } else {
        result = n_axes ? logsumexp_composed(real, fixed, n_axes, keepdims) : node_retain(real);
    }
    node_release(real);
    return result;
}

static size_t all_axes(const Node *x, int *axes) {
    for (int i = 0; x && i < x->ndim; i++) axes[i] = i;
    return x ? x->ndim : 0;
}

int mlx_softmax(mlx_array *res, const mlx_array a, bool precise, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    int axes[NODE_DIMS];
    Node *x = node_of(a);
    return op_finish(res, op_softmax(x, axes, all_axes(x, axes), precise));
}

int mlx_softmax_axis(mlx_array *res, const mlx_array a, int axis, bool precise,
                     const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_softmax(node_of(a), &axis, 1, precise)) : 1;
}

int mlx_softmax_axes(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,
                     bool precise, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_softmax(node_of(a), axes, axes_num, precise)) : 1;
}

int mlx_logsumexp(mlx_array *res, const mlx_array a, bool keepdims, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    int axes[NODE_DIMS];
    Node *x = node_of(a);
    return op_finish(res, op_logsumexp(x, axes, all_axes(x, axes), keepdims));
}

int mlx_logsumexp_axis(mlx_array *res, const mlx_array a, int axis, bool keepdims,
                       const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_logsumexp(node_of(a), &axis, 1, keepdims)) : 1;
}

int mlx_logsumexp_axes(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,
                       bool keepdims, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_logsumexp(node_of(a), axes, axes_num, keepdims)) : 1;
}
