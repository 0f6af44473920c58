/* The public face of arrays: handles, constructors, queries, reading items. */
#include "mlx/c/array.h"

#include "engine/core/internal.h"
#include "engine/core/pool.h"

#include <string.h>

/* ---- handles ---- */

mlx_array array_from_node(Node *node) {
    if (!node) return (mlx_array){NULL};
    Handle *handle = pool_take(POOL_HANDLE);
    handle->node = node;
    return (mlx_array){handle};
}

Node *engine_node_of(const char *file, int line, mlx_array array) {
    if (array.ctx) return ((Handle *)array.ctx)->node;
    return engine_error(file, line, "expected a non-empty mlx_array");
}

Node *node_of_optional(mlx_array array) {
    return array.ctx ? ((Handle *)array.ctx)->node : NULL;
}

int op_finish(mlx_array *res, Node *node) {
    if (!node) return 1;
    if (res->ctx) {
        Handle *handle = res->ctx;
        Node *old = handle->node;
        handle->node = node;
        node_release(old);
    } else {
        *res = array_from_node(node);
    }
    return 0;
}

mlx_array mlx_array_new(void) {
    return (mlx_array){NULL};
}

int mlx_array_free(mlx_array arr) {
    if (!arr.ctx) return 0;
    Handle *handle = arr.ctx;
    node_release(handle->node);
    pool_give(POOL_HANDLE, handle);
    return 0;
}

int mlx_array_set(mlx_array *arr, const mlx_array src) {
    return op_finish(arr, node_retain(node_of(src)));
}

/* ---- constructors ---- */

#define SCALAR(name, type, dtype)                                     \
    mlx_array mlx_array_new_##name(type val) {                        \
        return array_from_node(node_from_data(&val, dtype, NULL, 0)); \
    }                                                                 \
    int mlx_array_set_##name(mlx_array *arr, type val) {              \
        return op_finish(arr, node_from_data(&val, dtype, NULL, 0));  \
    }
SCALAR(bool, bool, MLX_BOOL)
SCALAR(int, int, MLX_INT32)
SCALAR(float32, float, MLX_FLOAT32)
SCALAR(float, float, MLX_FLOAT32)
SCALAR(float64, double, MLX_FLOAT64)
SCALAR(double, double, MLX_FLOAT64)

mlx_array mlx_array_new_complex(float real_val, float imag_val) {
    const float value[2] = {real_val, imag_val};
    return array_from_node(node_from_data(value, MLX_COMPLEX64, NULL, 0));
}

int mlx_array_set_complex(mlx_array *arr, float real_val, float imag_val) {
    const float value[2] = {real_val, imag_val};
    return op_finish(arr, node_from_data(value, MLX_COMPLEX64, NULL, 0));
}

mlx_array mlx_array_new_data(const void *data, const int *shape, int dim, mlx_dtype dtype) {
    return array_from_node(node_from_data(data, dtype, shape, dim));
}

int mlx_array_set_data(mlx_array *arr, const void *data, const int *shape, int dim,
                       mlx_dtype dtype) {
    return op_finish(arr, node_from_data(data, dtype, shape, dim));
}

/* Memory of the caller is used in place, unless its alignment is less than the
 * items' own: then it is copied and let go at once. */
static Node *node_managed(void *data, const int *shape, int dim, mlx_dtype dtype, void *payload,
                          void (*dtor)(void *)) {
    size_t size;
    const bool sane = dtype_valid(dtype) && dim >= 0 && shape_size(shape, dim, &size);
    if (!sane || (uintptr_t)data % dtype_info[dtype].size) {
        Node *node = node_from_data(data, dtype, shape, dim);
        if (node && dtor) dtor(payload);
        return node;
    }
    return node_from_buffer(buffer_foreign(data, size * dtype_info[dtype].size, dtor, payload), 0,
                            dtype, shape, dim);
}

mlx_array mlx_array_new_data_managed(void *data, const int *shape, int dim, mlx_dtype dtype,
                                     void (*dtor)(void *)) {
    return array_from_node(node_managed(data, shape, dim, dtype, data, dtor));
}

mlx_array mlx_array_new_data_managed_payload(void *data, const int *shape, int dim, mlx_dtype dtype,
                                             void *payload, void (*dtor)(void *)) {
    return array_from_node(node_managed(data, shape, dim, dtype, payload, dtor));
}

/* ---- queries ---- */

size_t mlx_dtype_size(mlx_dtype dtype) {
    return dtype_valid(dtype) ? dtype_info[dtype].size : 0;
}

size_t mlx_array_itemsize(const mlx_array arr) {
    const Node *node = node_of(arr);
    return node ? node->itemsize : 0;
}

size_t mlx_array_size(const mlx_array arr) {
    const Node *node = node_of(arr);
    return node ? node->size : 0;
}

size_t mlx_array_nbytes(const mlx_array arr) {
    const Node *node = node_of(arr);
    return node ? node_nbytes(node) : 0;
}

size_t mlx_array_ndim(const mlx_array arr) {
    const Node *node = node_of(arr);
    return node ? node->ndim : 0;
}

const int *mlx_array_shape(const mlx_array arr) {
    const Node *node = node_of(arr);
    return node ? node->shape : NULL;
}

_Static_assert(sizeof(size_t) == sizeof(int64_t), "strides are handed out as size_t");

const size_t *mlx_array_strides(const mlx_array arr) {
    const Node *node = node_of(arr);
    return node ? (const size_t *)node->strides : NULL;
}

int mlx_array_dim(const mlx_array arr, int dim) {
    const Node *node = node_of(arr);
    if (!node) return 0;
    if (dim < -node->ndim || dim >= node->ndim) {
        op_error("Axis %d is out of bounds for array with %d dimensions.", dim, node->ndim);
        return 0;
    }
    return node->shape[dim < 0 ? dim + node->ndim : dim];
}

mlx_dtype mlx_array_dtype(const mlx_array arr) {
    const Node *node = node_of(arr);
    return node ? (mlx_dtype)node->dtype : MLX_BOOL;
}

/* ---- values ---- */

int mlx_array_eval(mlx_array arr) {
    Node *node = node_of(arr);
    return node && node_eval(node) ? 0 : 1;
}

int _mlx_array_wait(const mlx_array arr) {
    return mlx_array_eval(arr);
}

static int read_item(void *res, mlx_array arr, size_t bytes) {
    Node *node = node_of(arr);
    if (!node) return 1;
    if (node->size != 1) {
        op_error("item can only be called on arrays of size 1.");
        return 1;
    }
    if (!node_eval(node)) return 1;
    /* Never more bytes than the item has: a type that does not match then reads
     * zeros above them. */
    memset(res, 0, bytes);
    memcpy(res, node_data(node), BASE_MIN(bytes, node->itemsize));
    return 0;
}

#define ITEM_AND_DATA(name, type)                                          \
    int mlx_array_item_##name(type *res, const mlx_array arr) {            \
        return read_item(res, arr, sizeof *res);                           \
    }                                                                      \
    const type *mlx_array_data_##name(const mlx_array arr) {               \
        const Node *node = node_of(arr);                                   \
        return node && node->state == NODE_READY ? node_data(node) : NULL; \
    }
ITEM_AND_DATA(bool, bool)
ITEM_AND_DATA(uint8, uint8_t)
ITEM_AND_DATA(uint16, uint16_t)
ITEM_AND_DATA(uint32, uint32_t)
ITEM_AND_DATA(uint64, uint64_t)
ITEM_AND_DATA(int8, int8_t)
ITEM_AND_DATA(int16, int16_t)
ITEM_AND_DATA(int32, int32_t)
ITEM_AND_DATA(int64, int64_t)
ITEM_AND_DATA(float32, float)
ITEM_AND_DATA(float64, double)
ITEM_AND_DATA(complex64, mlx_complex64_t)
#ifdef HAS_FLOAT16
ITEM_AND_DATA(float16, float16_t)
#endif
#ifdef HAS_BFLOAT16
ITEM_AND_DATA(bfloat16, bfloat16_t)
#endif

#define LAYOUT(name, expression)                            \
    int _mlx_array_##name(bool *res, const mlx_array arr) { \
        const Node *node = node_of(arr);                    \
        if (!node) return 1;                                \
        *res = (expression);                                \
        return 0;                                           \
    }
LAYOUT(is_available, node->state == NODE_READY)
LAYOUT(is_contiguous, node->contiguous)
LAYOUT(is_row_contiguous, node->row_contiguous)
LAYOUT(is_col_contiguous, node->col_contiguous)
