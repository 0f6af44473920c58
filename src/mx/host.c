/* From lazy arrays to numbers of this process: evaluation, items, copies. */
#include "mx/thread.h"

#include <string.h>

static bool evaluate(const char *name, const mlx_array *arrays, size_t count,
                     int (*engine)(const mlx_vector_array)) {
    if (!mx_ready(name, arrays, count)) return false;
    mlx_vector_array list = mlx_vector_array_new_data(arrays, count);
    int status = engine(list);
    mlx_vector_array_free(list);
    if (status != 0) mx_settle(status, MX_NONE, name, arrays, BASE_MIN(count, 4));
    return status == 0;
}

bool mx_eval(const mlx_array *arrays, size_t count) {
    return evaluate("eval", arrays, count, mlx_eval);
}

bool mx_eval_async(const mlx_array *arrays, size_t count) {
    return evaluate("async_eval", arrays, count, mlx_async_eval);
}

int64_t mx_item_int(mlx_array a) {
    if (!mx_ready("item", &a, 1)) return 0;
    mx_scope s = mx_open();
    int64_t value = 0;
    int status;
    if (mlx_array_dtype(a) == MLX_UINT32) { /* what argmax and sampling give */
        uint32_t word = 0;
        status = mlx_array_item_uint32(&word, a);
        value = word;
    } else {
        mlx_array wide = mx_cast(a, MLX_INT64);
        status = mx_failed() ? 0 : mlx_array_item_int64(&value, wide);
    }
    if (status != 0) mx_settle(status, MX_NONE, "item", &a, 1);
    mx_drop(s);
    return value;
}

double mx_item_float(mlx_array a) {
    if (!mx_ready("item", &a, 1)) return 0;
    mx_scope s = mx_open();
    mlx_array single = mx_cast(a, MLX_FLOAT32);
    float value = 0;
    int status = mx_failed() ? 0 : mlx_array_item_float32(&value, single);
    if (status != 0) mx_settle(status, MX_NONE, "item", &a, 1);
    mx_drop(s);
    return (double)value;
}

const void *mx_data(mlx_array a) {
    mlx_array plain = mx_contiguous(a);
    if (!mx_eval(&plain, 1)) return NULL;
    const void *data = mlx_array_data_uint8(plain);
    if (!data) mx_fail("data(%s): no data", mx_describe(a));
    return data;
}

static bool copy(mlx_array a, mlx_dtype dtype, void *out, size_t count) {
    if (!mx_ready("copy", &a, 1)) return false;
    if (mx_size(a) != count) {
        mx_fail("copy(%s): the caller expects %zu elements", mx_describe(a), count);
        return false;
    }
    if (count == 0) return true;
    mx_scope s = mx_open();
    mlx_array plain = mx_contiguous(mx_cast(a, dtype));
    if (mx_eval(&plain, 1)) {
        const void *data = dtype == MLX_FLOAT32 ? (const void *)mlx_array_data_float32(plain)
                                                : (const void *)mlx_array_data_int32(plain);
        if (data) {
            memcpy(out, data, count * 4);
        } else {
            mx_fail("copy(%s): no data", mx_describe(a));
        }
    }
    mx_drop(s);
    return !mx_failed();
}

bool mx_copy_f32(mlx_array a, float *out, size_t count) {
    return copy(a, MLX_FLOAT32, out, count);
}

bool mx_copy_i32(mlx_array a, int *out, size_t count) {
    return copy(a, MLX_INT32, out, count);
}
