/* astype and view: the same values in another dtype, the same bytes as another
 * dtype.
 *
 * Casting goes through one loop per pair of native types; float16 and bfloat16
 * pass through tiles of float32. A float becomes an integer by truncation; out
 * of range it takes the low bits of the 64-bit truncation (MLX leaves it
 * undefined). Complex to anything real drops the imaginary part. */
#include "engine/ops/elementwise.h"
#include "mlx/c/ops.h"

#include <complex.h>
#include <string.h>

static int64_t truncate64(double value) {
    if (value >= -0x1p63 && value < 0x1p63) return (int64_t)value;
    if (value >= 0x1p63 && value < 0x1p64) return (int64_t)(uint64_t)value;
    return INT64_MIN;
}

/* How a source value reaches each kind of target. */
#define FROM_INT_TO_INT(type, x) (type)(x)
#define FROM_INT_TO_REAL(type, x) (type)(x)
#define FROM_INT_TO_BOOL(type, x) (x) != 0
#define FROM_REAL_TO_INT(type, x) (type) truncate64((double)(x))
#define FROM_REAL_TO_REAL(type, x) (type)(x)
#define FROM_REAL_TO_BOOL(type, x) (x) != 0
#define FROM_COMPLEX_TO_INT(type, x) (type) truncate64((double)crealf(x))
#define FROM_COMPLEX_TO_REAL(type, x) (type) crealf(x)
#define FROM_COMPLEX_TO_BOOL(type, x) crealf(x) != 0

#define CAST_LOOP(from, source, to, target, convert)                      \
    static void cast_##from##_##to(void *out, const void *in, size_t n) { \
        const source *x = in;                                             \
        target *y = out;                                                  \
        for (size_t i = 0; i < n; i++) y[i] = convert(target, x[i]);      \
    }
#define CAST_FROM(from, source, kind)                            \
    CAST_LOOP(from, source, b8, uint8_t, FROM_##kind##_TO_BOOL)  \
    CAST_LOOP(from, source, u8, uint8_t, FROM_##kind##_TO_INT)   \
    CAST_LOOP(from, source, u16, uint16_t, FROM_##kind##_TO_INT) \
    CAST_LOOP(from, source, u32, uint32_t, FROM_##kind##_TO_INT) \
    CAST_LOOP(from, source, u64, uint64_t, FROM_##kind##_TO_INT) \
    CAST_LOOP(from, source, i8, int8_t, FROM_##kind##_TO_INT)    \
    CAST_LOOP(from, source, i16, int16_t, FROM_##kind##_TO_INT)  \
    CAST_LOOP(from, source, i32, int32_t, FROM_##kind##_TO_INT)  \
    CAST_LOOP(from, source, i64, int64_t, FROM_##kind##_TO_INT)  \
    CAST_LOOP(from, source, f32, float, FROM_##kind##_TO_REAL)   \
    CAST_LOOP(from, source, f64, double, FROM_##kind##_TO_REAL)

CAST_FROM(b8, uint8_t, INT)
CAST_FROM(u8, uint8_t, INT)
CAST_FROM(u16, uint16_t, INT)
CAST_FROM(u32, uint32_t, INT)
CAST_FROM(u64, uint64_t, INT)
CAST_FROM(i8, int8_t, INT)
CAST_FROM(i16, int16_t, INT)
CAST_FROM(i32, int32_t, INT)
CAST_FROM(i64, int64_t, INT)
CAST_FROM(f32, float, REAL)
CAST_FROM(f64, double, REAL)
CAST_FROM(c64, float complex, COMPLEX)

typedef void (*CastLoop)(void *out, const void *in, size_t n);

#define CAST_ROW(from)                                                                 \
    {                                                                                  \
        cast_##from##_b8, cast_##from##_u8, cast_##from##_u16, cast_##from##_u32,      \
            cast_##from##_u64, cast_##from##_i8, cast_##from##_i16, cast_##from##_i32, \
            cast_##from##_i64, NULL, cast_##from##_f32, cast_##from##_f64, NULL        \
    }

/* By the numbers of mlx_dtype; 16-bit floats and complex targets have no loop. */
static const CastLoop cast_loops[DTYPE_COUNT][DTYPE_COUNT - 1] = {
    [MLX_BOOL] = CAST_ROW(b8),     [MLX_UINT8] = CAST_ROW(u8),    [MLX_UINT16] = CAST_ROW(u16),
    [MLX_UINT32] = CAST_ROW(u32),  [MLX_UINT64] = CAST_ROW(u64),  [MLX_INT8] = CAST_ROW(i8),
    [MLX_INT16] = CAST_ROW(i16),   [MLX_INT32] = CAST_ROW(i32),   [MLX_INT64] = CAST_ROW(i64),
    [MLX_FLOAT32] = CAST_ROW(f32), [MLX_FLOAT64] = CAST_ROW(f64), [MLX_COMPLEX64] = CAST_ROW(c64),
};

static void complex_from_real(float complex *out, const float *in, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = in[i];
}

void cast_run(void *out, mlx_dtype to, const void *in, mlx_dtype from, size_t n) {
    CpuType in_type, out_type;
    if (to == from) {
        if (out != in) memcpy(out, in, n * dtype_info[to].size);
        return;
    }
    const bool in_kernel = ops_cpu_type(from, &in_type), out_kernel = ops_cpu_type(to, &out_type);
    if (in_kernel && out_kernel) {
        cpu_convert(out, out_type, in, in_type, n);
        return;
    }
    if (to != MLX_COMPLEX64 && cast_loops[from][to]) {
        cast_loops[from][to](out, in, n);
        return;
    }
    /* A 16-bit float or a complex target: by way of float32. */
    float tile[OPS_TILE];
    const size_t in_size = dtype_info[from].size, out_size = dtype_info[to].size;
    for (size_t done = 0; done < n; done += OPS_TILE) {
        const size_t count = BASE_MIN(n - done, (size_t)OPS_TILE);
        const uint8_t *x = (const uint8_t *)in + done * in_size;
        uint8_t *y = (uint8_t *)out + done * out_size;
        cast_run(tile, MLX_FLOAT32, x, from, count);
        if (to == MLX_COMPLEX64)
            complex_from_real((float complex *)(void *)y, tile, count);
        else
            cast_run(y, to, tile, MLX_FLOAT32, count);
    }
}

typedef struct CastJob {
    uint8_t *out;
    const uint8_t *in;
    mlx_dtype to, from;
} CastJob;

static void cast_slice(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const CastJob *job = context;
    cast_run(job->out + begin * dtype_info[job->to].size, job->to,
             job->in + begin * dtype_info[job->from].size, job->from, end - begin);
}

void astype_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n) {
    (void)step;
    cast_run(out, tile_dtype(node->dtype), in[0], tile_dtype(node->inputs[0]->dtype), n);
}

bool astype_eval(Node *node, Error *err) {
    Node *x = node->inputs[0];
    if (x->contiguous) {
        const uint8_t *in = node_data(x);
        if (!node_alloc_like(node, 0, err)) return false;
        CastJob job = {node_data(node), in, node->dtype, x->dtype};
        ops_parallel(node->data_size, node->data_size, cast_slice, &job);
        return true;
    }
    if (!node_alloc(node, err)) return false;
    Walk walk;
    walk_init(&walk, node->shape, node->ndim, 2, (const int64_t *[]){node->strides, x->strides});
    uint8_t tile[OPS_TILE * 8];
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        for (int64_t done = 0; done < walk.count; done += OPS_TILE) {
            const size_t count = (size_t)BASE_MIN(walk.count - done, (int64_t)OPS_TILE);
            const uint8_t *in = ops_at(x, walk.at[1] + done * walk.step[1]);
            uint8_t *out = ops_at(node, walk.at[0] + done);
            if (walk.step[1] != 1) {
                copy_gather(tile, in, walk.step[1], count, x->itemsize);
                in = tile;
            }
            cast_run(out, node->dtype, in, x->dtype, count);
        }
    }
    return true;
}

static bool astype_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    return !wanted[0] || (grads[0] = op_astype(g, node->inputs[0]->dtype));
}
static const Op astype_op = {"astype", astype_eval, astype_vjp};

Node *op_astype(Node *x, mlx_dtype dtype) {
    if (!x) return NULL;
    if (!dtype_valid(dtype)) return op_error("[astype] %d is not a dtype.", (int)dtype);
    if (x->dtype == dtype) return node_retain(x);
    return node_new(&astype_op, dtype, x->shape, x->ndim, NODES(x));
}

static bool view_eval(Node *node, Error *err) {
    Node *x = node->inputs[0];
    if (x->itemsize == node->itemsize) {
        node_share(node, x, x->strides, 0);
        return true;
    }
    Node *rows = ready_row_contiguous(x, err);
    if (!rows) return false;
    int64_t strides[NODE_DIMS];
    strides_row_major(node->shape, node->ndim, strides);
    node_share(node, rows, strides, 0);
    node_release(rows);
    return true;
}
static const Op view_op = {"view", view_eval, NULL};

Node *op_view(Node *x, mlx_dtype dtype) {
    if (!x) return NULL;
    if (!dtype_valid(dtype)) return op_error("[view] %d is not a dtype.", (int)dtype);
    if (x->dtype == dtype) return node_retain(x);
    int shape[NODE_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    const size_t from = x->itemsize, to = dtype_info[dtype].size;
    if (from != to) {
        if (x->ndim == 0)
            return op_error("[view] A 0-d array cannot change its item size from %s to %s.",
                            dtype_name(x->dtype), dtype_name(dtype));
        const size_t bytes = (size_t)shape[x->ndim - 1] * from;
        if (bytes % to)
            return op_error("[view] The last axis of %s as %s is not a whole number of %s.",
                            SHAPE(x), dtype_name(x->dtype), dtype_name(dtype));
        if (bytes / to > INT32_MAX) return op_error("[view] The last axis would be too long.");
        shape[x->ndim - 1] = (int)(bytes / to);
    }
    return node_new(&view_op, dtype, shape, x->ndim, NODES(x));
}

int mlx_astype(mlx_array *res, const mlx_array a, mlx_dtype dtype, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_astype(node_of(a), dtype)) : 1;
}

int mlx_view(mlx_array *res, const mlx_array a, mlx_dtype dtype, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_view(node_of(a), dtype)) : 1;
}
