/* Arithmetic, shapes, reductions and order: each call of the C API with its
 * result owned by the innermost scope. */
#include "mx/thread.h"

#include <math.h>

/* ---- making --------------------------------------------------------------- */

static mlx_array from_host(const char *name, const void *data, const int *shape, size_t ndim,
                           mlx_dtype dtype) {
    if (!mx_ready(name, NULL, 0)) return MX_NONE;
    mlx_array made = mlx_array_new_data(data, shape, (int)ndim, dtype);
    return mx_settle(made.ctx ? 0 : 1, made, name, NULL, 0);
}

mlx_array mx_scalar(double value, mlx_dtype dtype) {
    if (!mx_ready("scalar", NULL, 0)) return MX_NONE;
    mlx_array made = dtype == MLX_BOOL    ? mlx_array_new_bool(value != 0)
                     : mx_is_float(dtype) ? mlx_array_new_float32((float)value)
                                          : mlx_array_new_int((int)value);
    return mx_cast(mx_settle(made.ctx ? 0 : 1, made, "scalar", NULL, 0), dtype);
}

mlx_array mx_from_i32(const int *data, const int *shape, size_t ndim) {
    return from_host("from_i32", data, shape, ndim, MLX_INT32);
}

mlx_array mx_from_f32(const float *data, const int *shape, size_t ndim) {
    return from_host("from_f32", data, shape, ndim, MLX_FLOAT32);
}

mlx_array mx_full(const int *shape, size_t ndim, double value, mlx_dtype dtype) {
    mlx_array fill = mx_scalar(value, dtype);
    MX_CALL("full", mlx_full(&result, shape, ndim, fill, dtype, mx_stream()), fill);
}

mlx_array mx_zeros(const int *shape, size_t ndim, mlx_dtype dtype) {
    if (!mx_ready("zeros", NULL, 0)) return MX_NONE;
    mlx_array result = {0};
    int status = mlx_zeros(&result, shape, ndim, dtype, mx_stream());
    return mx_settle(status, result, "zeros", NULL, 0);
}

mlx_array mx_arange(double start, double stop, double step, mlx_dtype dtype) {
    if (!mx_ready("arange", NULL, 0)) return MX_NONE;
    mlx_array result = {0};
    int status = mlx_arange(&result, start, stop, step, dtype, mx_stream());
    return mx_settle(status, result, "arange", NULL, 0);
}

/* ---- arithmetic ------------------------------------------------------------ */

#define UNARY(name)                                             \
    mlx_array mx_##name(mlx_array a) {                          \
        MX_CALL(#name, mlx_##name(&result, a, mx_stream()), a); \
    }
#define UNARY_AS(name, engine_name)                                    \
    mlx_array mx_##name(mlx_array a) {                                 \
        MX_CALL(#name, mlx_##engine_name(&result, a, mx_stream()), a); \
    }
#define BINARY_AS(name, engine_name)                                         \
    mlx_array mx_##name(mlx_array a, mlx_array b) {                          \
        MX_CALL(#name, mlx_##engine_name(&result, a, b, mx_stream()), a, b); \
    }

BINARY_AS(add, add)
BINARY_AS(sub, subtract)
BINARY_AS(mul, multiply)
BINARY_AS(div, divide)
BINARY_AS(pow, power)
BINARY_AS(maximum, maximum)
BINARY_AS(minimum, minimum)
BINARY_AS(matmul, matmul)
BINARY_AS(bits_and, bitwise_and)
BINARY_AS(shift_left, left_shift)
BINARY_AS(shift_right, right_shift)
BINARY_AS(equal, equal)
BINARY_AS(less, less)
BINARY_AS(less_equal, less_equal)
BINARY_AS(greater, greater)
BINARY_AS(greater_equal, greater_equal)
BINARY_AS(and, logical_and)
BINARY_AS(or, logical_or)
UNARY_AS(not, logical_not)
UNARY_AS(neg, negative)
UNARY(abs)
UNARY(sign)
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(square)
UNARY(tanh)
UNARY(erf)
UNARY(expm1)
UNARY(log1p)
UNARY(floor)
UNARY(sigmoid)
UNARY(stop_gradient)

mlx_array mx_add_scalar(mlx_array a, double value) {
    return mx_add(a, mx_scalar(value, mx_dtype(a)));
}

mlx_array mx_mul_scalar(mlx_array a, double value) {
    if (value == 1) return a;
    return mx_mul(a, mx_scalar(value, mx_dtype(a)));
}

mlx_array mx_addmm(mlx_array c, mlx_array a, mlx_array b) {
    MX_CALL("addmm", mlx_addmm(&result, c, a, b, 1, 1, mx_stream()), c, a, b);
}

mlx_array mx_silu(mlx_array a) {
    return mx_mul(a, mx_sigmoid(a));
}

mlx_array mx_relu(mlx_array a) {
    return mx_maximum(a, mx_scalar(0, mx_dtype(a)));
}

mlx_array mx_gelu(mlx_array a) {
    mlx_array bell = mx_add_scalar(mx_erf(mx_mul_scalar(a, M_SQRT1_2)), 1);
    return mx_mul(mx_mul_scalar(a, 0.5), bell);
}

mlx_array mx_gelu_approx(mlx_array a) {
    mlx_array cube = mx_mul(mx_square(a), a);
    mlx_array inner = mx_add(a, mx_mul_scalar(cube, 0.044715));
    mlx_array bell = mx_add_scalar(mx_tanh(mx_mul_scalar(inner, sqrt(2 / M_PI))), 1);
    return mx_mul(mx_mul_scalar(a, 0.5), bell);
}

mlx_array mx_where(mlx_array condition, mlx_array x, mlx_array y) {
    MX_CALL("where", mlx_where(&result, condition, x, y, mx_stream()), condition, x, y);
}

mlx_array mx_softplus(mlx_array a) {
    mlx_array zero = mx_scalar(0, mx_dtype(a));
    MX_CALL("softplus", mlx_logaddexp(&result, a, zero, mx_stream()), a, zero);
}

mlx_array mx_floor_divide_scalar(mlx_array a, int divisor) {
    mlx_array scalar = mx_scalar(divisor, mx_dtype(a));
    MX_CALL("floor_divide", mlx_floor_divide(&result, a, scalar, mx_stream()), a, scalar);
}

/* ---- shapes ----------------------------------------------------------------- */

mlx_array mx_cast(mlx_array a, mlx_dtype dtype) {
    if (a.ctx && mlx_array_dtype(a) == dtype) return a;
    MX_CALL("cast", mlx_astype(&result, a, dtype, mx_stream()), a);
}

mlx_array mx_view(mlx_array a, mlx_dtype dtype) {
    MX_CALL("view", mlx_view(&result, a, dtype, mx_stream()), a);
}

mlx_array mx_from_fp8(mlx_array a, mlx_dtype dtype) {
    MX_CALL("from_fp8", mlx_from_fp8(&result, a, dtype, mx_stream()), a);
}

mlx_array mx_reshape(mlx_array a, const int *shape, size_t ndim) {
    MX_CALL("reshape", mlx_reshape(&result, a, shape, ndim, mx_stream()), a);
}

mlx_array mx_transpose(mlx_array a, const int *axes, size_t count) {
    MX_CALL("transpose", mlx_transpose_axes(&result, a, axes, count, mx_stream()), a);
}

mlx_array mx_swapaxes(mlx_array a, int axis1, int axis2) {
    MX_CALL("swapaxes", mlx_swapaxes(&result, a, axis1, axis2, mx_stream()), a);
}

mlx_array mx_expand_dims(mlx_array a, int axis) {
    MX_CALL("expand_dims", mlx_expand_dims(&result, a, axis, mx_stream()), a);
}

mlx_array mx_squeeze(mlx_array a, int axis) {
    MX_CALL("squeeze", mlx_squeeze_axis(&result, a, axis, mx_stream()), a);
}

mlx_array mx_contiguous(mlx_array a) {
    MX_CALL("contiguous", mlx_contiguous(&result, a, false, mx_stream()), a);
}

mlx_array mx_broadcast_to(mlx_array a, const int *shape, size_t ndim) {
    MX_CALL("broadcast_to", mlx_broadcast_to(&result, a, shape, ndim, mx_stream()), a);
}

enum { MAX_DIMS = 16 };

/* The box that covers all of a, but [start, stop) along one axis. */
typedef struct Box {
    int start[MAX_DIMS], stop[MAX_DIMS], stride[MAX_DIMS];
    size_t ndim;
} Box;

static bool box_along(const char *operation, mlx_array a, int axis, int start, int stop, Box *box) {
    int ndim = mx_ndim(a);
    if (axis < 0) axis += ndim;
    if (ndim > MAX_DIMS || axis < 0 || axis >= ndim) {
        mx_fail("%s(%s): no axis %d", operation, mx_describe(a), axis);
        return false;
    }
    box->ndim = (size_t)ndim;
    for (int i = 0; i < ndim; i++) {
        box->start[i] = i == axis ? start : 0;
        box->stop[i] = i == axis ? stop : mx_dim(a, i);
        box->stride[i] = 1;
    }
    return true;
}

mlx_array mx_slice(mlx_array a, int axis, int start, int stop) {
    int size = mx_dim(a, axis);
    if (start < 0) start += size;
    if (stop < 0) stop += size;
    start = BASE_MAX(0, BASE_MIN(start, size));
    stop = BASE_MAX(start, BASE_MIN(stop, size));
    if (a.ctx && start == 0 && stop == size) return a;
    Box box;
    if (!mx_ready("slice", &a, 1) || !box_along("slice", a, axis, start, stop, &box))
        return MX_NONE;
    MX_CALL("slice",
            mlx_slice(&result, a, box.start, box.ndim, box.stop, box.ndim, box.stride, box.ndim,
                      mx_stream()),
            a);
}

mlx_array mx_slice_update(mlx_array a, mlx_array update, int axis, int start) {
    Box box;
    const mlx_array inputs[] = {a, update};
    if (!mx_ready("slice_update", inputs, 2) ||
        !box_along("slice_update", a, axis, start, start + mx_dim(update, axis), &box)) {
        return MX_NONE;
    }
    MX_CALL("slice_update",
            mlx_slice_update(&result, a, update, box.start, box.ndim, box.stop, box.ndim,
                             box.stride, box.ndim, mx_stream()),
            a, update);
}

void mx_slice_assign(mlx_array *slot, mlx_array update, int axis, int start) {
    Box box;
    const mlx_array inputs[] = {*slot, update};
    if (!mx_ready("slice_assign", inputs, 2) ||
        !box_along("slice_assign", *slot, axis, start, start + mx_dim(update, axis), &box)) {
        return;
    }
    int status = mlx_slice_update(slot, *slot, update, box.start, box.ndim, box.stop, box.ndim,
                                  box.stride, box.ndim, mx_stream());
    if (status != 0) mx_settle(status, MX_NONE, "slice_assign", inputs, 2);
}

static mlx_array join(const char *name, const mlx_array *arrays, size_t count, int axis,
                      int (*engine)(mlx_array *, const mlx_vector_array, int, const mlx_stream)) {
    if (!mx_ready(name, arrays, count)) return MX_NONE;
    mlx_vector_array list = mlx_vector_array_new_data(arrays, count);
    mlx_array result = {0};
    int status = engine(&result, list, axis, mx_stream());
    mlx_vector_array_free(list);
    return mx_settle(status, result, name, arrays, count);
}

mlx_array mx_concat(const mlx_array *arrays, size_t count, int axis) {
    return join("concat", arrays, count, axis, mlx_concatenate_axis);
}

mlx_array mx_concat2(mlx_array a, mlx_array b, int axis) {
    return mx_concat((const mlx_array[]){a, b}, 2, axis);
}

mlx_array mx_stack(const mlx_array *arrays, size_t count, int axis) {
    return join("stack", arrays, count, axis, mlx_stack_axis);
}

/* Moves an engine's list of results into the scope; {0} where it is shorter. */
static void unpack(int status, mlx_vector_array list, const char *operation, mlx_array input,
                   mlx_array *parts, size_t count) {
    if (status != 0) mx_settle(status, MX_NONE, operation, &input, 1);
    for (size_t i = 0; i < count; i++) {
        parts[i] = MX_NONE;
        if (status == 0 && i < mlx_vector_array_size(list)) {
            mlx_array part = {0};
            mlx_vector_array_get(&part, list, i);
            parts[i] = mx_own(part);
        }
    }
    if (list.ctx) mlx_vector_array_free(list);
}

void mx_split(mlx_array a, int count, int axis, mlx_array *parts) {
    mlx_vector_array list = {0};
    int status = 0;
    if (mx_ready("split", &a, 1)) status = mlx_split(&list, a, count, axis, mx_stream());
    unpack(status, list, "split", a, parts, (size_t)count);
}

mlx_array mx_repeat(mlx_array a, int repeats, int axis) {
    MX_CALL("repeat", mlx_repeat_axis(&result, a, repeats, axis, mx_stream()), a);
}

mlx_array mx_take(mlx_array a, mlx_array indices, int axis) {
    MX_CALL("take", mlx_take_axis(&result, a, indices, axis, mx_stream()), a, indices);
}

mlx_array mx_take_along(mlx_array a, mlx_array indices, int axis) {
    MX_CALL("take_along", mlx_take_along_axis(&result, a, indices, axis, mx_stream()), a, indices);
}

mlx_array mx_put_along(mlx_array a, mlx_array indices, mlx_array values, int axis) {
    MX_CALL("put_along", mlx_put_along_axis(&result, a, indices, values, axis, mx_stream()), a,
            indices, values);
}

/* ---- reductions and order ----------------------------------------------------- */

#define REDUCTION(name)                                                                \
    mlx_array mx_##name(mlx_array a, int axis, bool keepdims) {                        \
        MX_CALL(#name, mlx_##name##_axis(&result, a, axis, keepdims, mx_stream()), a); \
    }
REDUCTION(sum)
REDUCTION(mean)
REDUCTION(max)
REDUCTION(min)
REDUCTION(logsumexp)

mlx_array mx_argmax(mlx_array a, int axis) {
    MX_CALL("argmax", mlx_argmax_axis(&result, a, axis, false, mx_stream()), a);
}

mlx_array mx_softmax(mlx_array a, int axis) {
    MX_CALL("softmax", mlx_softmax_axis(&result, a, axis, true, mx_stream()), a);
}

mlx_array mx_cumsum(mlx_array a, int axis) {
    MX_CALL("cumsum", mlx_cumsum(&result, a, axis, false, true, mx_stream()), a);
}

mlx_array mx_sort(mlx_array a, int axis) {
    MX_CALL("sort", mlx_sort_axis(&result, a, axis, mx_stream()), a);
}

mlx_array mx_argsort(mlx_array a, int axis) {
    MX_CALL("argsort", mlx_argsort_axis(&result, a, axis, mx_stream()), a);
}

mlx_array mx_argpartition(mlx_array a, int kth, int axis) {
    MX_CALL("argpartition", mlx_argpartition_axis(&result, a, kth, axis, mx_stream()), a);
}

/* ---- fused ---------------------------------------------------------------------- */

mlx_array mx_rms_norm(mlx_array x, mlx_array weight, float eps) {
    MX_CALL("rms_norm", mlx_fast_rms_norm(&result, x, weight, eps, mx_stream()), x);
}

mlx_array mx_layer_norm(mlx_array x, mlx_array weight, mlx_array bias, float eps) {
    MX_CALL("layer_norm", mlx_fast_layer_norm(&result, x, weight, bias, eps, mx_stream()), x);
}

mlx_array mx_rope(mlx_array x, int dims, bool traditional, float base, float scale, int offset,
                  mlx_array freqs) {
    mlx_optional_float period = {.value = base, .has_value = freqs.ctx == NULL};
    MX_CALL("rope",
            mlx_fast_rope(&result, x, dims, traditional, period, scale, offset, freqs, mx_stream()),
            x);
}

mlx_array mx_attention(mlx_array queries, mlx_array keys, mlx_array values, float scale,
                       const char *mask_mode, mlx_array mask) {
    MX_CALL("attention",
            mlx_fast_scaled_dot_product_attention(&result, queries, keys, values, scale, mask_mode,
                                                  mask, MX_NONE, mx_stream()),
            queries, keys, values);
}

mlx_array mx_attention_sinks(mlx_array queries, mlx_array keys, mlx_array values, float scale,
                             const char *mask_mode, mlx_array mask, mlx_array sinks) {
    MX_CALL("attention",
            mlx_fast_scaled_dot_product_attention(&result, queries, keys, values, scale, mask_mode,
                                                  mask, sinks, mx_stream()),
            queries, keys, values, sinks);
}

mlx_array mx_gather_matmul(mlx_array x, mlx_array w, mlx_array indices, bool sorted) {
    MX_CALL("gather_matmul", mlx_gather_mm(&result, x, w, MX_NONE, indices, sorted, mx_stream()), x,
            w, indices);
}

static mlx_optional_int some(int value) {
    return (mlx_optional_int){.value = value, .has_value = true};
}

mlx_array mx_quantized_matmul(mlx_array x, mlx_array w, mlx_array scales, mlx_array biases,
                              bool transpose, MxQuant quant) {
    MX_CALL("quantized_matmul",
            mlx_quantized_matmul(&result, x, w, scales, biases, transpose, some(quant.group_size),
                                 some(quant.bits), quant.mode, mx_stream()),
            x, w, scales);
}

mlx_array mx_rounded_matmul(mlx_array x, mlx_array w, mlx_array scales, MxQuant quant) {
    MX_CALL("qqmm",
            mlx_qqmm(&result, x, w, scales, some(quant.group_size), some(quant.bits), quant.mode,
                     MX_NONE, MX_NONE, mx_stream()),
            x, w, scales);
}

mlx_array mx_gather_quantized_matmul(mlx_array x, mlx_array w, mlx_array scales, mlx_array biases,
                                     mlx_array indices, bool sorted, MxQuant quant) {
    MX_CALL("gather_quantized_matmul",
            mlx_gather_qmm(&result, x, w, scales, biases, MX_NONE, indices, true,
                           some(quant.group_size), some(quant.bits), quant.mode, sorted,
                           mx_stream()),
            x, w, scales, indices);
}

mlx_array mx_dequantize(mlx_array w, mlx_array scales, mlx_array biases, MxQuant quant) {
    MX_CALL("dequantize",
            mlx_dequantize(&result, w, scales, biases, some(quant.group_size), some(quant.bits),
                           quant.mode, MX_NONE, (mlx_optional_dtype){.has_value = false},
                           mx_stream()),
            w, scales);
}

void mx_quantize(mlx_array w, MxQuant quant, mlx_array parts[3]) {
    mlx_vector_array list = {0};
    int status = 0;
    if (mx_ready("quantize", &w, 1)) {
        status = mlx_quantize(&list, w, some(quant.group_size), some(quant.bits), quant.mode,
                              MX_NONE, mx_stream());
    }
    unpack(status, list, "quantize", w, parts, 3);
}

/* ---- random ---------------------------------------------------------------------- */

void mx_seed(uint64_t seed) {
    mlx_random_seed(seed);
}

mlx_array mx_categorical(mlx_array logits, int axis) {
    MX_CALL("categorical", mlx_random_categorical(&result, logits, axis, MX_NONE, mx_stream()),
            logits);
}

mlx_array mx_uniform(double low, double high, const int *shape, size_t ndim, mlx_dtype dtype) {
    mlx_array from = mx_scalar(low, dtype), to = mx_scalar(high, dtype);
    MX_CALL("uniform",
            mlx_random_uniform(&result, from, to, shape, ndim, dtype, MX_NONE, mx_stream()), from,
            to);
}

mlx_array mx_key(uint64_t seed) {
    if (!mx_ready("key", NULL, 0)) return MX_NONE;
    mlx_array result = {0};
    int status = mlx_random_key(&result, seed);
    return mx_settle(status, result, "key", NULL, 0);
}

void mx_key_split(mlx_array key, mlx_array parts[2]) {
    parts[0] = parts[1] = MX_NONE;
    if (!mx_ready("split", &key, 1)) return;
    mlx_array next = {0}, drawn = {0};
    int status = mlx_random_split(&next, &drawn, key, mx_stream());
    parts[0] = mx_settle(status, next, "split", &key, 1);
    parts[1] = mx_settle(status, drawn, "split", &key, 1);
}

mlx_array mx_uniform_of(mlx_array key, double low, double high, const int *shape, size_t ndim) {
    mlx_array from = mx_scalar(low, MLX_FLOAT32), to = mx_scalar(high, MLX_FLOAT32);
    MX_CALL("uniform",
            mlx_random_uniform(&result, from, to, shape, ndim, MLX_FLOAT32, key, mx_stream()), from,
            to, key);
}

mlx_array mx_bernoulli(double probability, mlx_array like, mlx_array key) {
    mlx_array p = mx_scalar(probability, MLX_FLOAT32);
    MX_CALL("bernoulli",
            mlx_random_bernoulli(&result, p, mlx_array_shape(like), mlx_array_ndim(like), key,
                                 mx_stream()),
            p, like, key);
}
