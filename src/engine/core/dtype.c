/* The 14 types of items: names, sizes, and what two of them promote to. */
#include "engine/core/engine.h"

const DtypeInfo dtype_info[DTYPE_COUNT] = {
    [MLX_BOOL] = {"bool", 1, 'b'},         [MLX_UINT8] = {"uint8", 1, 'u'},
    [MLX_UINT16] = {"uint16", 2, 'u'},     [MLX_UINT32] = {"uint32", 4, 'u'},
    [MLX_UINT64] = {"uint64", 8, 'u'},     [MLX_INT8] = {"int8", 1, 'i'},
    [MLX_INT16] = {"int16", 2, 'i'},       [MLX_INT32] = {"int32", 4, 'i'},
    [MLX_INT64] = {"int64", 8, 'i'},       [MLX_FLOAT16] = {"float16", 2, 'f'},
    [MLX_FLOAT32] = {"float32", 4, 'f'},   [MLX_FLOAT64] = {"float64", 8, 'f'},
    [MLX_BFLOAT16] = {"bfloat16", 2, 'f'}, [MLX_COMPLEX64] = {"complex64", 8, 'c'},
};

bool dtype_valid(mlx_dtype dtype) {
    return (unsigned)dtype < DTYPE_COUNT;
}

static mlx_dtype signed_of_size(int bytes) {
    return bytes <= 1 ? MLX_INT8 : bytes == 2 ? MLX_INT16 : bytes == 4 ? MLX_INT32 : MLX_INT64;
}

mlx_dtype dtype_promote(mlx_dtype a, mlx_dtype b) {
    if (a == b) return a;
    const DtypeInfo *one = &dtype_info[a], *two = &dtype_info[b];
    if (one->kind == 'c' || two->kind == 'c') return MLX_COMPLEX64;
    if (a == MLX_FLOAT64 || b == MLX_FLOAT64) return MLX_FLOAT64;
    if (one->kind == 'f' && two->kind == 'f') return MLX_FLOAT32;
    if (one->kind == 'f' || two->kind == 'f') return one->kind == 'f' ? a : b;
    if (one->kind == 'b' || two->kind == 'b') return one->kind == 'b' ? b : a;
    if (one->kind == two->kind) return one->size > two->size ? a : b;
    /* One is unsigned, the other signed: the smallest signed type that holds
     * both; none holds uint64, and MLX then goes to float32. */
    const int u = one->kind == 'u' ? one->size : two->size;
    const int i = one->kind == 'u' ? two->size : one->size;
    return u == 8 ? MLX_FLOAT32 : signed_of_size(BASE_MAX(2 * u, i));
}
