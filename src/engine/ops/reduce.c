/* Reductions: sum, mean, product, extremes, all, any, over any set of axes.
 *
 * Two ways through memory. Rows: the reduced items of one result lie in runs,
 * each folded by one call. Columns: the kept items lie side by side and the
 * reduced ones do not, so a tile of accumulators takes one row after another.
 * Floats of up to 32 bits accumulate in float32, integers modulo 2^64. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <complex.h>
#include <math.h>
#include <string.h>

typedef struct ReduceLoops {
    void (*init)(void *accumulators, size_t n);
    void (*row)(void *accumulator, const void *x, int64_t step,
                size_t n);                                       /* folds n items into one */
    void (*column)(void *accumulators, const void *x, size_t n); /* folds one item into each */
} ReduceLoops;

#define LOOPS(name, type, total, start, fold)                                           \
    static void name##_init(void *accumulators, size_t n) {                             \
        total *acc = accumulators;                                                      \
        for (size_t i = 0; i < n; i++) acc[i] = start;                                  \
    }                                                                                   \
    static void name##_row(void *accumulator, const void *px, int64_t step, size_t n) { \
        const type *x = px;                                                             \
        total acc = *(total *)accumulator;                                              \
        for (size_t i = 0; i < n; i++) {                                                \
            const total v = (total)x[(int64_t)i * step];                                \
            acc = (total)(fold);                                                        \
        }                                                                               \
        *(total *)accumulator = acc;                                                    \
    }                                                                                   \
    static void name##_column(void *accumulators, const void *px, size_t n) {           \
        const type *x = px;                                                             \
        total *list = accumulators;                                                     \
        for (size_t i = 0; i < n; i++) {                                                \
            const total acc = list[i], v = (total)x[i];                                 \
            list[i] = (total)(fold);                                                    \
        }                                                                               \
    }                                                                                   \
    static const ReduceLoops name = {name##_init, name##_row, name##_column};
#define EXTREMES(suffix, type, lowest, highest)                \
    LOOPS(max_##suffix, type, type, lowest, v > acc ? v : acc) \
    LOOPS(min_##suffix, type, type, highest, v < acc ? v : acc)
/* NaN, once seen, stays. */
#define REAL_EXTREMES(suffix, type)                                               \
    LOOPS(max_##suffix, type, type, (type)-INFINITY, v > acc || v != v ? v : acc) \
    LOOPS(min_##suffix, type, type, (type)INFINITY, v < acc || v != v ? v : acc)
#define TRUTHS(suffix, type)                               \
    LOOPS(all_##suffix, type, type, 1, acc != 0 && v != 0) \
    LOOPS(any_##suffix, type, type, 0, acc != 0 || v != 0)
#define INTEGER(suffix, type, lowest, highest)      \
    LOOPS(sum_##suffix, type, uint64_t, 0, acc + v) \
    LOOPS(prod_##suffix, type, uint64_t, 1, acc *v) \
    EXTREMES(suffix, type, lowest, highest)         \
    TRUTHS(suffix, type)

INTEGER(b8, uint8_t, 0, 1)
INTEGER(u8, uint8_t, 0, UINT8_MAX)
INTEGER(u16, uint16_t, 0, UINT16_MAX)
INTEGER(u32, uint32_t, 0, UINT32_MAX)
INTEGER(u64, uint64_t, 0, UINT64_MAX)
INTEGER(i8, int8_t, INT8_MIN, INT8_MAX)
INTEGER(i16, int16_t, INT16_MIN, INT16_MAX)
INTEGER(i32, int32_t, INT32_MIN, INT32_MAX)
INTEGER(i64, int64_t, INT64_MIN, INT64_MAX)
LOOPS(sum_f32, float, float, 0, acc + v)
LOOPS(prod_f32, float, float, 1, acc *v)
REAL_EXTREMES(f32, float)
TRUTHS(f32, float)
LOOPS(sum_f64, double, double, 0, acc + v)
LOOPS(prod_f64, double, double, 1, acc *v)
REAL_EXTREMES(f64, double)
TRUTHS(f64, double)
typedef float complex Complex;
LOOPS(sum_c64, Complex, Complex, 0, acc + v)
LOOPS(prod_c64, Complex, Complex, 1, acc *v)
/* Infinities keep out of the arithmetic of real + imaginary * I. */
static Complex complex_of(float real, float imaginary) {
    Complex value;
    memcpy(&value, (const float[2]){real, imaginary}, sizeof value);
    return value;
}
/* By the real part first. */
static bool complex_above(Complex a, Complex b) {
    return crealf(a) > crealf(b) || (crealf(a) == crealf(b) && cimagf(a) > cimagf(b));
}
LOOPS(max_c64, Complex, Complex, complex_of(-INFINITY, -INFINITY),
      acc == acc && (v != v || complex_above(v, acc)) ? v : acc)
LOOPS(min_c64, Complex, Complex, complex_of(INFINITY, INFINITY),
      acc == acc && (v != v || complex_above(acc, v)) ? v : acc)

#define KINDS(suffix)                                                                              \
    {                                                                                              \
        &sum_##suffix, &sum_##suffix, &prod_##suffix, &max_##suffix, &min_##suffix, &all_##suffix, \
            &any_##suffix                                                                          \
    }
/* By dtype and ReduceKind; 16-bit floats use float32's. */
static const ReduceLoops *const reduce_loops[DTYPE_COUNT][REDUCE_COUNT] = {
    [MLX_BOOL] = KINDS(b8),
    [MLX_UINT8] = KINDS(u8),
    [MLX_UINT16] = KINDS(u16),
    [MLX_UINT32] = KINDS(u32),
    [MLX_UINT64] = KINDS(u64),
    [MLX_INT8] = KINDS(i8),
    [MLX_INT16] = KINDS(i16),
    [MLX_INT32] = KINDS(i32),
    [MLX_INT64] = KINDS(i64),
    [MLX_FLOAT16] = KINDS(f32),
    [MLX_FLOAT32] = KINDS(f32),
    [MLX_FLOAT64] = KINDS(f64),
    [MLX_BFLOAT16] = KINDS(f32),
    [MLX_COMPLEX64] = {&sum_c64, &sum_c64, &prod_c64, &max_c64, &min_c64}};

static const char *const reduce_names[REDUCE_COUNT] = {"sum", "mean", "prod", "max",
                                                       "min", "all",  "any"};

typedef struct ReduceParam {
    ReduceKind kind;
    uint32_t axes; /* bit i: axis i is reduced */
} ReduceParam;

/* What both ways share. */
typedef struct ReduceJob {
    ReduceKind kind;
    const ReduceLoops *loops;
    const Node *x;
    Node *node;
    CpuType type;        /* when kernel_type */
    bool kernel_type;    /* float32 or a 16-bit float */
    double divisor;      /* of a mean */
    const Walk *kept;    /* operand 0: the output, 1: x */
    const Walk *reduced; /* operand 0: x */
} ReduceJob;

/* Folds a run of n items into *acc. */
static void fold_run(const ReduceJob *job, void *acc, const uint8_t *x, int64_t step, size_t n) {
    if (!job->kernel_type) {
        job->loops->row(acc, x, step, n);
        return;
    }
    const size_t itemsize = job->x->itemsize;
    float *total = acc;
    const bool summing = job->kind == REDUCE_SUM || job->kind == REDUCE_MEAN;
    const bool direct = summing || job->kind == REDUCE_MAX || job->kind == REDUCE_MIN;
    float tile[OPS_TILE];
    uint16_t halves[OPS_TILE];
    const size_t limit = direct && step == 1 ? n : OPS_TILE;
    for (size_t done = 0; done < n; done += limit) {
        const size_t count = BASE_MIN(n - done, limit);
        const uint8_t *items = x + (int64_t)done * step * (int64_t)itemsize;
        CpuType type = job->type;
        if (step != 1) {
            void *gathered = type == CPU_F32 ? (void *)tile : (void *)halves;
            copy_gather(gathered, items, step, count, itemsize);
            items = gathered;
        }
        if (summing) {
            *total += cpu_sum(type, items, count);
        } else if (direct) {
            const float v =
                job->kind == REDUCE_MAX ? cpu_max(type, items, count) : cpu_min(type, items, count);
            job->loops->row(acc, &v, 1, 1);
        } else if (type == CPU_F32) {
            job->loops->row(acc, items, 1, count);
        } else {
            cpu_convert(tile, CPU_F32, items, type, count);
            job->loops->row(acc, tile, 1, count);
        }
    }
}

/* Writes n finished accumulators to items of the output. */
static void finish(const ReduceJob *job, uint8_t *out, void *acc, size_t n) {
    const mlx_dtype dtype = job->node->dtype;
    const bool mean = job->kind == REDUCE_MEAN, truth = job->kind >= REDUCE_ALL;
    if (truth) {
        /* The accumulators hold 0 or 1 in x's working type. */
        const mlx_dtype from = job->kernel_type ? MLX_FLOAT32 : job->x->dtype;
        cast_run(out, MLX_BOOL, acc, from, n);
    } else if (job->kernel_type) {
        float *values = acc;
        if (mean)
            for (size_t i = 0; i < n; i++) values[i] = (float)(values[i] / job->divisor);
        cpu_convert(out, job->type, values, CPU_F32, n);
    } else if (dtype == MLX_FLOAT64) {
        double *values = acc;
        if (mean)
            for (size_t i = 0; i < n; i++) values[i] /= job->divisor;
        memcpy(out, values, n * sizeof *values);
    } else if (dtype == MLX_COMPLEX64) {
        Complex *values = acc;
        if (mean)
            for (size_t i = 0; i < n; i++) values[i] /= (float)job->divisor;
        memcpy(out, values, n * sizeof *values);
    } else if (job->kind <= REDUCE_PROD) {
        cast_run(out, dtype, acc, MLX_UINT64, n);
    } else {
        memcpy(out, acc, n * job->node->itemsize);
    }
}

static void reduce_rows(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const ReduceJob *job = context;
    Walk kept = *job->kept;
    const size_t itemsize = job->x->itemsize, out_size = job->node->itemsize;
    const size_t width = (size_t)kept.count;
    walk_seek(&kept, begin / width);
    int64_t column = (int64_t)(begin % width);
    for (size_t i = begin; i < end; i++) {
        const uint8_t *x = ops_at(job->x, kept.at[1] + column * kept.step[1]);
        uint8_t *out = (uint8_t *)node_data(job->node) +
                       (size_t)(kept.at[0] + column * kept.step[0]) * out_size;
        uint64_t acc[2];
        job->loops->init(acc, 1);
        if (job->reduced->rows == 1) {
            fold_run(job, acc, x, job->reduced->step[0], (size_t)job->reduced->count);
        } else {
            Walk reduced = *job->reduced;
            for (size_t r = 0; r < reduced.rows; r++, walk_next(&reduced))
                fold_run(job, acc, x + reduced.at[0] * (int64_t)itemsize, reduced.step[0],
                         (size_t)reduced.count);
        }
        finish(job, out, acc, 1);
        if (++column == kept.count) {
            column = 0;
            walk_next(&kept);
        }
    }
}

/* Tiles of kept items; unit i is tile i % tiles of kept row i / tiles. */
static void reduce_columns(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const ReduceJob *job = context;
    Walk kept = *job->kept;
    const int64_t itemsize = job->x->itemsize;
    const size_t tiles = ((size_t)kept.count + OPS_TILE - 1) / OPS_TILE;
    for (size_t unit = begin; unit < end; unit++) {
        const size_t first = unit % tiles * OPS_TILE;
        const size_t count = BASE_MIN((size_t)kept.count - first, (size_t)OPS_TILE);
        walk_seek(&kept, unit / tiles);
        const uint8_t *x = ops_at(job->x, kept.at[1] + (int64_t)first);
        uint64_t acc[OPS_TILE];
        float tile[OPS_TILE];
        job->loops->init(acc, count);
        Walk reduced = *job->reduced;
        for (size_t r = 0; r < reduced.rows; r++, walk_next(&reduced)) {
            for (int64_t i = 0; i < reduced.count; i++) {
                const uint8_t *row = x + (reduced.at[0] + i * reduced.step[0]) * itemsize;
                if (job->kernel_type && job->type != CPU_F32) {
                    cpu_convert(tile, CPU_F32, row, job->type, count);
                    job->loops->column(acc, tile, count);
                } else {
                    job->loops->column(acc, row, count);
                }
            }
        }
        finish(job, ops_at(job->node, kept.at[0] + (int64_t)first), acc, count);
    }
}

static bool reduce_eval(Node *node, Error *err) {
    const ReduceParam *param = node->param;
    const Node *x = node->inputs[0];
    if (!node_alloc(node, err)) return false;
    int kept_shape[NODE_DIMS], reduced_shape[NODE_DIMS], n_kept = 0, n_reduced = 0;
    int64_t kept_strides[NODE_DIMS], reduced_strides[NODE_DIMS], out_strides[NODE_DIMS];
    size_t reduced_size = 1;
    for (int axis = 0; axis < x->ndim; axis++) {
        if (param->axes >> axis & 1) {
            reduced_size *= (size_t)x->shape[axis];
            reduced_shape[n_reduced] = x->shape[axis];
            reduced_strides[n_reduced++] = x->strides[axis];
        } else {
            kept_shape[n_kept] = x->shape[axis];
            kept_strides[n_kept++] = x->strides[axis];
        }
    }
    strides_row_major(kept_shape, n_kept, out_strides);
    Walk kept, reduced;
    walk_init(&kept, kept_shape, n_kept, 2, (const int64_t *[]){out_strides, kept_strides});
    walk_init(&reduced, reduced_shape, n_reduced, 1, (const int64_t *[]){reduced_strides});
    ReduceJob job = {.kind = param->kind,
                     .loops = reduce_loops[x->dtype][param->kind],
                     .x = x,
                     .node = node,
                     .divisor = (double)reduced_size,
                     .kept = &kept,
                     .reduced = &reduced};
    job.kernel_type = ops_cpu_type(x->dtype, &job.type);
    if (kept.rows == 0) return true;
    enum { COLUMNS = 8 };
    const bool columns = reduced.rows && kept.step[1] == 1 && kept.step[0] == 1 &&
                         kept.count >= COLUMNS && reduced.step[0] != 1;
    if (columns)
        ops_parallel(kept.rows * (((size_t)kept.count + OPS_TILE - 1) / OPS_TILE), x->size,
                     reduce_columns, &job);
    else
        ops_parallel(node->size, x->size, reduce_rows, &job);
    return true;
}

/* y (or its cotangent) back in the shape in which it broadcasts against x. */
static Node *keep_axes(Node *y, const Node *x, uint32_t axes) {
    int shape[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) shape[i] = axes >> i & 1 ? 1 : x->shape[i];
    return op_reshape(y, shape, x->ndim);
}

static size_t axes_list(const Node *x, uint32_t axes, int *list) {
    size_t n = 0;
    for (int i = 0; i < x->ndim; i++)
        if (axes >> i & 1) list[n++] = i;
    return n;
}

/* Items that share the extreme share its gradient equally. */
static Node *extreme_grad(Node *x, Node *y, Node *g, uint32_t axes, Temps *t) {
    int list[NODE_DIMS];
    const size_t n = axes_list(x, axes, list);
    Node *winners = temp(t, op_astype(temp(t, op_binary(BINARY_EQUAL, x, y)), g->dtype));
    Node *count = temp(t, op_reduce(REDUCE_SUM, winners, list, n, true));
    return op_multiply(temp(t, op_divide(g, count)), winners);
}

/* Each item's gradient is the product of the others: of those before it and of
 * those behind it, which stays right, and differentiable, where items are zero. */
static Node *prod_grad(Node *x, Node *g, uint32_t axes, Temps *t) {
    int order[NODE_DIMS], back[NODE_DIMS], shape[NODE_DIMS], n = 0, kept;
    for (int i = 0; i < x->ndim; i++)
        if (!(axes >> i & 1)) order[n++] = i;
    kept = n;
    for (int i = 0; i < x->ndim; i++)
        if (axes >> i & 1) order[n++] = i;
    for (int i = 0; i < n; i++) {
        back[order[i]] = i;
        shape[i] = x->shape[order[i]];
    }
    Node *moved = temp(t, op_transpose(x, order, (size_t)n));
    Node *lines = temp(t, op_flatten(moved, kept, -1));
    Node *before = temp(t, op_cumprod(lines, -1, false, false));
    Node *behind = temp(t, op_cumprod(lines, -1, true, false));
    Node *others = temp(t, op_reshape(temp(t, op_multiply(before, behind)), shape, (size_t)n));
    others = temp(t, op_unary(UNARY_CONJUGATE, temp(t, op_transpose(others, back, (size_t)n))));
    return temp(t, op_multiply(others, g));
}

static bool reduce_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    const ReduceParam *param = node->param;
    Node *x = node->inputs[0];
    Temps t = {0};
    Node *wide = temp(&t, keep_axes(g, x, param->axes)), *result = NULL;
    switch (param->kind) {
    case REDUCE_SUM: result = wide; break;
    case REDUCE_MEAN:
        result = temp(&t, op_scale(wide, (double)node->size / (double)BASE_MAX(x->size, 1)));
        break;
    case REDUCE_PROD: result = prod_grad(x, wide, param->axes, &t); break;
    default:
        result = temp(
            &t, extreme_grad(x, temp(&t, keep_axes(node, x, param->axes)), wide, param->axes, &t));
        break;
    }
    Node *cast = temp(&t, op_astype(result, x->dtype));
    grads[0] = op_broadcast_to(cast, x->shape, x->ndim);
    return temps_end(&t, grads[0] != NULL);
}

#define REDUCE_OP(kind, text) \
    [kind] = {text, reduce_eval, kind < REDUCE_ALL ? reduce_vjp : ops_zero_vjp}
static const Op reduce_ops[REDUCE_COUNT] = {
    REDUCE_OP(REDUCE_SUM, "sum"), REDUCE_OP(REDUCE_MEAN, "mean"), REDUCE_OP(REDUCE_PROD, "prod"),
    REDUCE_OP(REDUCE_MAX, "max"), REDUCE_OP(REDUCE_MIN, "min"),   REDUCE_OP(REDUCE_ALL, "all"),
    REDUCE_OP(REDUCE_ANY, "any"),
};

static mlx_dtype reduce_dtype(ReduceKind kind, mlx_dtype dtype) {
    switch (kind) {
    case REDUCE_ALL:
    case REDUCE_ANY: return MLX_BOOL;
    case REDUCE_MAX:
    case REDUCE_MIN:
    case REDUCE_MEAN: return dtype;
    default: break;
    }
    switch (dtype) {
    case MLX_BOOL:
    case MLX_INT8:
    case MLX_INT16: return MLX_INT32;
    case MLX_UINT8:
    case MLX_UINT16: return MLX_UINT32;
    default: return dtype;
    }
}

bool op_reduce_shape(const Node *node, const Node *x, int *shape, int *ndim) {
    const ReduceParam *param = node->param;
    const bool keeps = node->ndim == x->ndim;
    *ndim = 0;
    for (int axis = 0; axis < x->ndim; axis++) {
        const bool folds = param->axes >> axis & 1;
        if (folds && x->shape[axis] == 0 &&
            (param->kind == REDUCE_MAX || param->kind == REDUCE_MIN))
            return op_error("[%s] Cannot %s reduce zero size array.", node->op->name,
                            node->op->name);
        if (!folds || keeps) shape[(*ndim)++] = folds ? 1 : x->shape[axis];
    }
    return true;
}

Node *op_reduce(ReduceKind kind, Node *x, const int *axes, size_t n_axes, bool keepdims) {
    if (!x) return NULL;
    const char *name = reduce_names[kind];
    int fixed[NODE_DIMS];
    if (!axes_fix(name, axes, n_axes, x->ndim, fixed)) return NULL;
    ReduceParam param = {kind, 0};
    for (size_t i = 0; i < n_axes; i++) param.axes |= 1u << fixed[i];
    if ((kind == REDUCE_MAX || kind == REDUCE_MIN) && x->size == 0)
        return op_error("[%s] Cannot %s reduce zero size array.", name, name);
    if ((kind == REDUCE_SUM || kind == REDUCE_PROD) && n_axes == 0) return node_retain(x);
    Node *source = node_retain(x);
    if (kind == REDUCE_MEAN && !dtype_is_float(x->dtype)) {
        node_release(source);
        source = op_astype(x, MLX_FLOAT32);
    } else if (kind >= REDUCE_ALL && x->dtype == MLX_COMPLEX64) {
        node_release(source);
        source = op_binary_scalar(BINARY_NOT_EQUAL, x, 0);
    }
    if (!source) return NULL;
    const mlx_dtype dtype = reduce_dtype(kind, source->dtype);
    int shape[NODE_DIMS], ndim = 0;
    for (int axis = 0; axis < x->ndim; axis++) {
        if (!(param.axes >> axis & 1))
            shape[ndim++] = x->shape[axis];
        else if (keepdims)
            shape[ndim++] = 1;
    }
    Node *result;
    if (n_axes == 0) /* nothing to fold: the items themselves */
        result = op_astype(source, dtype);
    else
        result = node_new_param(&reduce_ops[kind], dtype, shape, ndim, &param, sizeof param,
                                NODES(source));
    node_release(source);
    return result;
}

Node *op_reduce_all(ReduceKind kind, Node *x, bool keepdims) {
    if (!x) return NULL;
    int axes[NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) axes[i] = i;
    return op_reduce(kind, x, axes, x->ndim, keepdims);
}

#define REDUCE_API(name, kind)                                                                     \
    int mlx_##name(mlx_array *res, const mlx_array a, bool keepdims, const mlx_stream s) {         \
        return stream_ok(s) ? op_finish(res, op_reduce_all(kind, node_of(a), keepdims)) : 1;       \
    }                                                                                              \
    int mlx_##name##_axis(mlx_array *res, const mlx_array a, int axis, bool keepdims,              \
                          const mlx_stream s) {                                                    \
        return stream_ok(s) ? op_finish(res, op_reduce(kind, node_of(a), &axis, 1, keepdims)) : 1; \
    }
#define REDUCE_AXES_API(name, kind)                                                            \
    REDUCE_API(name, kind)                                                                     \
    int mlx_##name##_axes(mlx_array *res, const mlx_array a, const int *axes, size_t axes_num, \
                          bool keepdims, const mlx_stream s) {                                 \
        if (!stream_ok(s)) return 1;                                                           \
        return op_finish(res, op_reduce(kind, node_of(a), axes, axes_num, keepdims));          \
    }
REDUCE_AXES_API(all, REDUCE_ALL)
REDUCE_AXES_API(any, REDUCE_ANY)
REDUCE_AXES_API(prod, REDUCE_PROD)
REDUCE_AXES_API(sum, REDUCE_SUM)
REDUCE_AXES_API(mean, REDUCE_MEAN)
REDUCE_AXES_API(max, REDUCE_MAX)
REDUCE_AXES_API(min, REDUCE_MIN)
