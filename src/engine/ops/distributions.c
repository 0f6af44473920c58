/* Distributions made of random bits, beyond the basic ones of random.c, number for
 * number as MLX makes them: bernoulli, laplace, truncated normal, integers,
 * permutations, and normal numbers of given means and deviations or covariances. */
#include "engine/ops/linalg.h"
#include "engine/ops/rule.h"
#include "mlx/c/random.h"

#include <math.h>
#include <string.h>

static bool real_dtype(mlx_dtype dtype) {
    return dtype_valid(dtype) && dtype_info[dtype].kind == 'f';
}

/* True with probability p: bits / 2^32 below p. */
static Node *op_bernoulli(Node *p, const int *shape, size_t ndim, Node *key) {
    if (!p) return NULL;
    if (!real_dtype((mlx_dtype)p->dtype))
        return op_error("[bernoulli] bernoulli probability `p` must be a float type.");
    Temps t = {0};
    Node *bits = temp(&t, op_random_bits(shape, ndim, 4, key));
    Node *upper = temp(&t, node_scalar(4294967808.0, MLX_FLOAT32)); /* above every bits */
    Node *limit = temp(&t, op_multiply(p, upper));
    Node *result = op_binary(BINARY_LESS, bits, limit);
    if (result && !shape_equal(result, bits)) {
        op_error("[bernoulli] shape of `p` is incompatible with argument `shape`.");
        node_release(result);
        result = NULL;
    }
    temps_end(&t, true);
    return result;
}

/* Uniform float32 numbers in the open interval of -1 and 1. */
static Node *symmetric_uniform(const int *shape, size_t ndim, Node *key, Temps *t) {
    Node *low = temp(t, node_scalar((double)nextafterf(-1.0f, 0.0f), MLX_FLOAT32));
    Node *high = temp(t, node_scalar(1, MLX_FLOAT32));
    return temp(t, op_random_uniform(low, high, shape, ndim, MLX_FLOAT32, key));
}

static Node *op_laplace(const int *shape, size_t ndim, mlx_dtype dtype, float loc, float scale,
                        Node *key) {
    if (!real_dtype(dtype))
        return op_error("[laplace] Only real floating point types are supported.");
    Temps t = {0};
    Node *u = symmetric_uniform(shape, ndim, key, &t);
    Node *depth = temp(&t, op_negative(temp(&t, op_unary(UNARY_ABS, u))));
    Node *tail = temp(&t, op_unary(UNARY_LOG1P, depth));
    Node *noise = temp(&t, op_multiply(temp(&t, op_unary(UNARY_SIGN, u)), tail));
    Node *result = op_astype(noise, dtype);
    if (scale != 1) result = op_scale(temp(&t, result), (double)scale);
    if (loc != 0) result = op_binary_scalar(BINARY_ADD, temp(&t, result), (double)loc);
    temps_end(&t, true);
    return result;
}

/* loc and scale broadcast with the shape; NULL: 0 and 1. */
Node *op_normal_broadcast(const int *shape, size_t ndim, mlx_dtype dtype, Node *loc, Node *scale,
                          Node *key) {
    const bool is_complex = dtype == MLX_COMPLEX64;
    if (!is_complex && !real_dtype(dtype))
        return op_error("[normal] Only floating point and complex64 types are supported.");
    Temps t = {0};
    Node *result;
    if (is_complex) { /* both parts at once: a last axis of two, seen as one number */
        int wide[NODE_DIMS];
        if (ndim >= NODE_DIMS) return op_error("[normal] %zu axes are too many.", ndim);
        if (ndim) memcpy(wide, shape, ndim * sizeof *wide);
        wide[ndim] = 2;
        Node *u = symmetric_uniform(wide, ndim + 1, key, &t);
        Node *parts = temp(&t, op_view(temp(&t, op_unary(UNARY_ERFINV, u)), MLX_COMPLEX64));
        const int last = -1;
        result = op_squeeze(parts, &last, 1);
        if (scale) result = op_multiply(temp(&t, op_astype(scale, dtype)), temp(&t, result));
    } else {
        Node *factor = temp(&t, node_scalar(1.4142135623730951, dtype));
        if (scale) factor = temp(&t, op_multiply(factor, temp(&t, op_astype(scale, dtype))));
        Node *quantile = temp(&t, op_unary(UNARY_ERFINV, symmetric_uniform(shape, ndim, key, &t)));
        result = op_multiply(factor, temp(&t, op_astype(quantile, dtype)));
    }
    if (loc) result = op_add(temp(&t, op_astype(loc, dtype)), temp(&t, result));
    temps_end(&t, true);
    return result;
}

/* mean + z times the square root of cov, taken from its singular values. */
static Node *op_multivariate_normal(Node *mean, Node *cov, const int *shape, size_t ndim,
                                    mlx_dtype dtype, Node *key) {
    if (!mean || !cov) return NULL;
    if (dtype != MLX_FLOAT32) return op_error("[multivariate_normal] dtype must be float32.");
    if (mean->ndim < 1)
        return op_error("[multivariate_normal] mean must have at least one dimension.");
    if (cov->ndim < 2)
        return op_error("[multivariate_normal] cov must have at least two dimensions.");
    const int n = mean->shape[mean->ndim - 1];
    if (cov->shape[cov->ndim - 1] != cov->shape[cov->ndim - 2])
        return op_error("[multivariate_normal] last two dimensions of cov must be equal.");
    if (cov->shape[cov->ndim - 1] != n)
        return op_error("[multivariate_normal] mean and cov must have compatible shapes.");
    if (ndim >= NODE_DIMS) return op_error("[multivariate_normal] %zu axes are too many.", ndim);
    int batch[NODE_DIMS], whole[NODE_DIMS + 1], n_batch, n_whole;
    if (!shape_broadcast(cov->shape, cov->ndim - 2, mean->shape, mean->ndim - 1, batch, &n_batch) ||
        !shape_broadcast(batch, n_batch, shape, (int)ndim, whole, &n_whole))
        return NULL;
    whole[n_whole++] = n;
    const int middle = -2;
    Temps t = {0};
    Node *parts[3] = {NULL}, *result = NULL;
    if (op_svd(temp(&t, op_astype(cov, MLX_FLOAT32)), true, parts)) {
        Node *u = temp(&t, parts[0]), *v = temp(&t, parts[2]);
        Node *sizes = temp(&t, op_unary(UNARY_SQRT, temp(&t, parts[1])));
        Node *scaled = temp(&t, op_multiply(u, temp(&t, op_expand_dims(sizes, &middle, 1))));
        Node *root = temp(&t, op_matmul(scaled, v));
        Node *z = temp(&t, op_normal_broadcast(whole, (size_t)n_whole, dtype, NULL, NULL, key));
        Node *rows = temp(&t, op_matmul(temp(&t, op_expand_dims(z, &middle, 1)), root));
        result = op_add(mean, temp(&t, op_squeeze(rows, &middle, 1)));
    }
    temps_end(&t, true);
    return result;
}

/* sqrt(2) erfinv(u), u uniform between the values of erf at the bounds. */
static Node *op_truncated_normal(Node *lower, Node *upper, const int *shape, size_t ndim,
                                 mlx_dtype dtype, Node *key) {
    if (!lower || !upper) return NULL;
    if (!real_dtype(dtype))
        return op_error("[trunc_normal] trunc_normal only accepts floating point dtypes.");
    Temps t = {0};
    Node *root = temp(&t, node_scalar(1.4142135623730951, dtype));
    Node *low = temp(&t, op_astype(lower, dtype)), *high = temp(&t, op_astype(upper, dtype));
    Node *from = temp(&t, op_unary(UNARY_ERF, temp(&t, op_divide(low, root))));
    Node *to = temp(&t, op_unary(UNARY_ERF, temp(&t, op_divide(high, root))));
    Node *u = temp(&t, op_random_uniform(from, to, shape, ndim, dtype, key));
    Node *normal = temp(&t, op_multiply(root, temp(&t, op_unary(UNARY_ERFINV, u))));
    Node *result =
        op_binary(BINARY_MAXIMUM, temp(&t, op_binary(BINARY_MINIMUM, high, normal)), low);
    temps_end(&t, true);
    return result;
}

/* floor of uniform numbers, kept in [low, high - 1] where float32 cannot. */
static Node *op_randint(Node *low, Node *high, const int *shape, size_t ndim, mlx_dtype dtype,
                        Node *key) {
    if (!low || !high) return NULL;
    if (!dtype_valid(dtype) || dtype_is_float(dtype))
        return op_error("[randint] randint only accepts integer dtypes and bool.");
    /* Bounds that dtype cannot hold are kept, and the numbers between them wrap. */
    const mlx_dtype wide = dtype == MLX_UINT64 ? dtype : MLX_INT64;
    Temps t = {0};
    Node *u = temp(&t, op_random_uniform(low, high, shape, ndim, MLX_FLOAT32, key));
    Node *whole = temp(&t, op_astype(temp(&t, op_unary(UNARY_FLOOR, u)), wide));
    Node *last = temp(&t, op_astype(temp(&t, op_binary_scalar(BINARY_SUBTRACT, high, 1)), wide));
    Node *capped = temp(&t, op_binary(BINARY_MINIMUM, whole, last));
    Node *bounded = temp(&t, op_binary(BINARY_MAXIMUM, capped, temp(&t, op_astype(low, wide))));
    Node *result = op_astype(bounded, dtype);
    temps_end(&t, true);
    return result;
}

static Node *op_permutation(int n, Node *key) {
    if (n < 0) return op_error("[permutation] A negative count %d.", n);
    Node *bits = op_random_bits(&n, 1, 4, key);
    Node *order = op_argsort(bits, 0);
    node_release(bits);
    return order;
}

int mlx_random_bernoulli(mlx_array *res, const mlx_array p, const int *shape, size_t shape_num,
                         const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_bernoulli(node_of(p), shape, shape_num, node_of_optional(key)));
}

int mlx_random_laplace(mlx_array *res, const int *shape, size_t shape_num, mlx_dtype dtype,
                       float loc, float scale, const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_laplace(shape, shape_num, dtype, loc, scale, node_of_optional(key)));
}

int mlx_random_normal_broadcast(mlx_array *res, const int *shape, size_t shape_num, mlx_dtype dtype,
                                const mlx_array loc, const mlx_array scale, const mlx_array key,
                                const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_normal_broadcast(shape, shape_num, dtype, node_of_optional(loc),
                                              node_of_optional(scale), node_of_optional(key)));
}

int mlx_random_multivariate_normal(mlx_array *res, const mlx_array mean, const mlx_array cov,
                                   const int *shape, size_t shape_num, mlx_dtype dtype,
                                   const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_multivariate_normal(node_of(mean), node_of(cov), shape, shape_num,
                                                 dtype, node_of_optional(key)));
}

int mlx_random_truncated_normal(mlx_array *res, const mlx_array lower, const mlx_array upper,
                                const int *shape, size_t shape_num, mlx_dtype dtype,
                                const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_truncated_normal(node_of(lower), node_of(upper), shape, shape_num,
                                              dtype, node_of_optional(key)));
}

int mlx_random_randint(mlx_array *res, const mlx_array low, const mlx_array high, const int *shape,
                       size_t shape_num, mlx_dtype dtype, const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_randint(node_of(low), node_of(high), shape, shape_num, dtype,
                                     node_of_optional(key)));
}

/* The slices of x along axis in another order. */
int mlx_random_permutation(mlx_array *res, const mlx_array x, int axis, const mlx_array key,
                           const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *array = node_of(x);
    if (!array || !axis_fix("permutation", &axis, array->ndim)) return 1;
    Node *order = op_permutation(array->shape[axis], node_of_optional(key));
    const int status = op_finish(res, op_take(array, order, axis));
    node_release(order);
    return status;
}

int mlx_random_permutation_arange(mlx_array *res, int x, const mlx_array key, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_permutation(x, node_of_optional(key))) : 1;
}
