/* var, std, median and counts of items, composed of other operations. Deviations
 * of 16-bit floats are taken in float32 and the result rounds once. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <math.h>

static size_t all_axes(const Node *x, int *axes) {
    for (int i = 0; x && i < x->ndim; i++) axes[i] = i;
    return x ? x->ndim : 0;
}

/* sum (x - mean)^2 / (count - ddof); the divisor stops at 0, the result then is
 * infinite or NaN, as in MLX. */
static Node *op_var(Node *x, const int *axes, size_t n_axes, bool keepdims, int ddof, bool root) {
    if (!x) return NULL;
    int fixed[NODE_DIMS];
    if (!axes_fix(root ? "std" : "var", axes, n_axes, x->ndim, fixed)) return NULL;
    double count = 1;
    for (size_t i = 0; i < n_axes; i++) count *= x->shape[fixed[i]];
    const mlx_dtype real = dtype_at_least_float(x->dtype);
    const double divisor = ddof ? fmax(count - ddof, 0) : count;
    Temps t = {0};
    Node *wide =
        ops_is_half(real) || !dtype_is_float(x->dtype) ? op_astype(x, MLX_FLOAT32) : node_retain(x);
    temp(&t, wide);
    Node *mean = temp(&t, op_reduce(REDUCE_MEAN, wide, fixed, n_axes, true));
    Node *apart = temp(&t, op_subtract(wide, mean));
    Node *squares = temp(&t, op_unary(UNARY_SQUARE, apart));
    Node *total = temp(&t, op_reduce(REDUCE_SUM, squares, fixed, n_axes, keepdims));
    Node *variance = temp(&t, op_binary_scalar(BINARY_DIVIDE, total, divisor));
    if (root) variance = temp(&t, op_unary(UNARY_SQRT, variance));
    Node *result = op_astype(variance, real);
    temps_end(&t, true);
    return result;
}

/* The middle of the sorted items, or the mean of the two middle ones; NaN where
 * an item is. */
static Node *op_median(Node *x, const int *axes, size_t n_axes, bool keepdims) {
    if (!x) return NULL;
    int fixed[NODE_DIMS], order[NODE_DIMS], shape[NODE_DIMS];
    if (!axes_fix("median", axes, n_axes, x->ndim, fixed)) return NULL;
    uint32_t reduced = 0;
    for (size_t i = 0; i < n_axes; i++) reduced |= 1u << fixed[i];
    int n = 0, kept = 0;
    size_t items = 1;
    for (int i = 0; i < x->ndim; i++)
        if (!(reduced >> i & 1)) order[n++] = i;
    for (int i = 0; i < x->ndim; i++) {
        if (!(reduced >> i & 1)) continue;
        order[n++] = i;
        items *= (size_t)x->shape[i];
    }
    if (items == 0) return op_error("[median] Cannot take median along empty axis.");
    if (items > INT32_MAX) return op_error("[median] Too many items.");
    for (int i = 0; i < x->ndim; i++)
        if (!(reduced >> i & 1)) shape[kept++] = x->shape[i];
    if (kept >= NODE_DIMS) return op_error("[median] Too many axes.");
    shape[kept] = (int)items;
    const mlx_dtype dtype = dtype_at_least_float(x->dtype);
    const int middle = (int)items / 2;
    Temps t = {0};
    Node *flat =
        temp(&t, op_reshape(temp(&t, op_transpose(x, order, (size_t)n)), shape, (size_t)kept + 1));
    Node *sorted = temp(&t, op_sort(flat, kept));
    Node *value = temp(&t, op_slice_axis(sorted, kept, middle, middle + 1));
    value = temp(&t, op_astype(value, dtype));
    if (items % 2 == 0) {
        Node *below = temp(&t, op_slice_axis(sorted, kept, middle - 1, middle));
        value = temp(&t, op_add(value, temp(&t, op_astype(below, dtype))));
        value = temp(&t, op_scale(value, 0.5));
    }
    if (dtype_is_float(x->dtype)) {
        Node *missing = temp(&t, op_unary(UNARY_ISNAN, flat));
        Node *any = temp(&t, op_reduce(REDUCE_ANY, missing, &kept, 1, true));
        value = temp(&t, op_where(any, temp(&t, node_scalar((double)NAN, dtype)), value));
    }
    int result_shape[NODE_DIMS], ndim = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (!(reduced >> i & 1))
            result_shape[ndim++] = x->shape[i];
        else if (keepdims)
            result_shape[ndim++] = 1;
    }
    Node *result = op_reshape(value, result_shape, (size_t)ndim);
    temps_end(&t, true);
    return result;
}

#define DEVIATION_API(name, root)                                                               \
    int mlx_##name##_axes(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,  \
                          bool keepdims, int ddof, const mlx_stream s) {                        \
        if (!stream_ok(s)) return 1;                                                            \
        return op_finish(res, op_var(node_of(a), axes, axes_num, keepdims, ddof, root));        \
    }                                                                                           \
    int mlx_##name##_axis(mlx_array *res, const mlx_array a, int axis, bool keepdims, int ddof, \
                          const mlx_stream s) {                                                 \
        return mlx_##name##_axes(res, a, &axis, 1, keepdims, ddof, s);                          \
    }                                                                                           \
    int mlx_##name(mlx_array *res, const mlx_array a, bool keepdims, int ddof,                  \
                   const mlx_stream s) {                                                        \
        int axes[NODE_DIMS];                                                                    \
        if (!stream_ok(s)) return 1;                                                            \
        Node *x = node_of(a);                                                                   \
        return op_finish(res, op_var(x, axes, all_axes(x, axes), keepdims, ddof, root));        \
    }
DEVIATION_API(var, false)
DEVIATION_API(std, true)

int mlx_median(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num, bool keepdims,
               const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_median(node_of(a), axes, axes_num, keepdims));
}

/* How many items the axes span, or one over it. */
int mlx_number_of_elements(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num,
                           bool inverted, mlx_dtype dtype, const mlx_stream s) {
    int fixed[NODE_DIMS];
    if (!stream_ok(s)) return 1;
    const Node *x = node_of(a);
    if (!x || !axes_fix("number_of_elements", axes, axes_num, x->ndim, fixed)) return 1;
    double count = 1;
    for (size_t i = 0; i < axes_num; i++) count *= x->shape[fixed[i]];
    return op_finish(res, node_scalar(inverted ? 1 / count : count, dtype));
}
