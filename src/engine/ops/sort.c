/* sort, argsort, partition, argpartition and topk along one axis.
 *
 * A line of items becomes keys: unsigned numbers in the order of the items,
 * NaN last and -0 equal to 0, so that one radix sort and one selection serve
 * every dtype. Sorting carries positions along and is stable; values are then
 * fetched by position. */
#include "engine/ops/rule.h"
#include "engine/ops/scalar.h"
#include "mlx/c/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct SortItem {
    uint64_t key;
    uint32_t index;
} SortItem;

/* ---- keys --------------------------------------------------------------------------- */

static uint64_t key_f32(float value) {
    if (isnan(value)) return UINT32_MAX;
    const uint32_t bits = value == 0 ? 0 : scalar_bits(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static uint64_t key_f64(double value) {
    uint64_t bits = 0;
    if (isnan(value)) return UINT64_MAX;
    if (value != 0) memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

typedef struct ComplexParts {
    float part[2];
} ComplexParts;

/* By the real part, then by the imaginary one. */
static uint64_t key_c64(const float *value) {
    if (isnan(value[0]) || isnan(value[1])) return UINT64_MAX;
    return key_f32(value[0]) << 32 | key_f32(value[1]);
}

#define KEYS(type, key)                              \
    {                                                \
        const type *x = in;                          \
        for (size_t i = 0; i < n; i++) {             \
            const type v = x[(int64_t)i * step];     \
            items[i] = (SortItem){key, (uint32_t)i}; \
        }                                            \
        break;                                       \
    }
/* Signed numbers move up by half their range. */
static void fill_keys(SortItem *items, mlx_dtype dtype, const void *in, int64_t step, size_t n) {
    switch (dtype) {
    case MLX_BOOL:
    case MLX_UINT8: KEYS(uint8_t, v)
    case MLX_UINT16: KEYS(uint16_t, v)
    case MLX_UINT32: KEYS(uint32_t, v)
    case MLX_UINT64: KEYS(uint64_t, v)
    case MLX_INT8: KEYS(int8_t, (uint64_t)(v + 0x80))
    case MLX_INT16: KEYS(int16_t, (uint64_t)(v + 0x8000))
    case MLX_INT32: KEYS(int32_t, (uint32_t)v ^ 0x80000000u)
    case MLX_INT64: KEYS(int64_t, (uint64_t)v ^ (uint64_t)1 << 63)
    case MLX_FLOAT16: KEYS(uint16_t, key_f32(scalar_from_f16(v)))
    case MLX_BFLOAT16: KEYS(uint16_t, key_f32(scalar_from_bf16(v)))
    case MLX_FLOAT32: KEYS(float, key_f32(v))
    case MLX_COMPLEX64: KEYS(ComplexParts, key_c64(v.part))
    default: KEYS(double, key_f64(v))
    }
}

/* ---- order --------------------------------------------------------------------------- */

enum { INSERTION_ITEMS = 48, RADIX_BITS = 11, RADIX_SIZE = 1 << RADIX_BITS, RADIX_PASSES = 6 };

static void insertion_sort(SortItem *items, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const SortItem item = items[i];
        size_t at = i;
        for (; at > 0 && items[at - 1].key > item.key; at--) items[at] = items[at - 1];
        items[at] = item;
    }
}

/* Stable. Least significant digit first; a digit that all keys share costs one
 * look. scratch holds n items. Returns where the result is: items or scratch. */
static SortItem *radix_sort(SortItem *items, SortItem *scratch, size_t n) {
    if (n <= INSERTION_ITEMS) {
        insertion_sort(items, n);
        return items;
    }
    uint64_t differ = 0;
    for (size_t i = 1; i < n; i++) differ |= items[i].key ^ items[0].key;
    uint32_t count[RADIX_SIZE];
    for (int pass = 0; pass < RADIX_PASSES; pass++) {
        const int shift = pass * RADIX_BITS;
        if (!(differ >> shift & (RADIX_SIZE - 1))) continue;
        memset(count, 0, sizeof count);
        for (size_t i = 0; i < n; i++) count[items[i].key >> shift & (RADIX_SIZE - 1)]++;
        uint32_t start = 0;
        for (size_t digit = 0; digit < RADIX_SIZE; digit++) {
            const uint32_t here = count[digit];
            count[digit] = start;
            start += here;
        }
        for (size_t i = 0; i < n; i++)
            scratch[count[items[i].key >> shift & (RADIX_SIZE - 1)]++] = items[i];
        SortItem *const sorted = scratch;
        scratch = items;
        items = sorted;
    }
    return items;
}

static void swap_items(SortItem *a, SortItem *b) {
    const SortItem kept = *a;
    *a = *b;
    *b = kept;
}

/* Puts the item of rank kth in its place, smaller ones before it and larger
 * ones behind it. Three-way quickselect by the median of three; ranges that
 * shrink badly for too long are sorted outright, so the worst case stays
 * n log n. scratch holds n items. */
static void select_item(SortItem *items, SortItem *scratch, size_t n, size_t kth) {
    size_t low = 0, high = n; /* kth is in [low, high) */
    for (int round = 0; high - low > INSERTION_ITEMS; round++) {
        if (round == 64) {
            const SortItem *sorted = radix_sort(items + low, scratch, high - low);
            if (sorted == scratch) memcpy(items + low, scratch, (high - low) * sizeof *items);
            return;
        }
        const uint64_t a = items[low].key, b = items[low + (high - low) / 2].key,
                       c = items[high - 1].key;
        const uint64_t pivot = BASE_MAX(BASE_MIN(a, b), BASE_MIN(BASE_MAX(a, b), c));
        size_t less = low, at = low, more = high;
        while (at < more) {
            if (items[at].key < pivot)
                swap_items(&items[less++], &items[at++]);
            else if (items[at].key > pivot)
                swap_items(&items[at], &items[--more]);
            else
                at++;
        }
        if (kth < less)
            high = less;
        else if (kth >= more)
            low = more;
        else
            return;
    }
    insertion_sort(items + low, high - low);
}

/* ---- the operations --------------------------------------------------------------------- */

typedef struct SortParam {
    int axis, kth;  /* kth < 0: sort */
    bool positions; /* the result is the positions, not the values */
} SortParam;

typedef struct SortJob {
    const Node *x, *node;
    SortParam param;
    const Walk *walk; /* output, x; without the axis */
    _Atomic bool failed;
} SortJob;

static void sort_lines(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    SortJob *job = context;
    const Node *x = job->x, *node = job->node;
    const int axis = job->param.axis;
    const size_t n = (size_t)x->shape[axis], itemsize = x->itemsize;
    const int64_t out_step = node->strides[axis], in_step = x->strides[axis];
    SortItem *items = base_try_alloc(2 * n, sizeof *items, NULL);
    if (!items) {
        atomic_store(&job->failed, true);
        return;
    }
    Walk walk = *job->walk;
    const size_t width = (size_t)walk.count;
    walk_seek(&walk, begin / width);
    int64_t column = (int64_t)(begin % width);
    for (size_t line = begin; line < end; line++) {
        const uint8_t *in = ops_at(x, walk.at[1] + column * walk.step[1]);
        uint8_t *out = ops_at(node, walk.at[0] + column * walk.step[0]);
        fill_keys(items, x->dtype, in, in_step, n);
        const SortItem *sorted = items;
        if (job->param.kth < 0)
            sorted = radix_sort(items, items + n, n);
        else
            select_item(items, items + n, n, (size_t)job->param.kth);
        for (size_t i = 0; i < n; i++) {
            const int64_t place = (int64_t)i * out_step, from = sorted[i].index * in_step;
            if (job->param.positions)
                ((uint32_t *)(void *)out)[place] = sorted[i].index;
            else
                memcpy(out + place * (int64_t)itemsize, in + from * (int64_t)itemsize, itemsize);
        }
        if (++column == walk.count) {
            column = 0;
            walk_next(&walk);
        }
    }
    free(items);
}

static bool sort_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    SortJob job = {.x = x, .node = node, .param = *(const SortParam *)node->param};
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    int shape[NODE_DIMS], ndim = 0;
    int64_t strides[2][NODE_DIMS];
    for (int i = 0; i < x->ndim; i++) {
        if (i == job.param.axis) continue;
        strides[0][ndim] = node->strides[i];
        strides[1][ndim] = x->strides[i];
        shape[ndim++] = x->shape[i];
    }
    Walk walk;
    walk_init(&walk, shape, ndim, 2, (const int64_t *[]){strides[0], strides[1]});
    job.walk = &walk;
    ops_parallel(node->size / (size_t)x->shape[job.param.axis], node->size, sort_lines, &job);
    return !job.failed || base_fail(err, ERROR_MEMORY, "[%s] No memory for lines of %d items.",
                                    node->op->name, x->shape[job.param.axis]);
}
static bool sort_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static const Op sort_op = {"sort", sort_eval, sort_vjp},
                argsort_op = {"argsort", sort_eval, ops_zero_vjp},
                partition_op = {"partition", sort_eval, sort_vjp},
                argpartition_op = {"argpartition", sort_eval, ops_zero_vjp};

/* Item i came from order[i], so its gradient goes there: the inverse permutation
 * reads g. */
static bool sort_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    if (!wanted[0]) return true;
    SortParam param = *(const SortParam *)node->param;
    param.positions = true;
    Temps t = {0};
    Node *order = temp(&t, node_new_param(param.kth < 0 ? &argsort_op : &argpartition_op,
                                          MLX_UINT32, node->shape, node->ndim, &param, sizeof param,
                                          NODES(node->inputs[0])));
    Node *inverse = temp(&t, op_argsort(order, param.axis));
    grads[0] = op_take_along_axis(g, inverse, param.axis);
    return temps_end(&t, grads[0] != NULL);
}

/* kth NULL: a full sort. */
static Node *sort_node(const Op *op, Node *x, const int *kth, int axis, bool positions) {
    if (!x || !axis_fix(op->name, &axis, x->ndim)) return NULL;
    SortParam param = {axis, -1, positions};
    if (kth) {
        const int n = x->shape[axis];
        param.kth = *kth < 0 ? *kth + n : *kth;
        if (param.kth < 0 || param.kth >= n)
            return op_error("[%s] Received invalid kth %d along axis %d for array with shape %s.",
                            op->name, *kth, axis, SHAPE(x));
    }
    return node_new_param(op, positions ? MLX_UINT32 : x->dtype, x->shape, x->ndim, &param,
                          sizeof param, NODES(x));
}

Node *op_sort(Node *x, int axis) {
    return sort_node(&sort_op, x, NULL, axis, false);
}

Node *op_argsort(Node *x, int axis) {
    return sort_node(&argsort_op, x, NULL, axis, true);
}

/* The k largest, in no order. */
static Node *op_topk(Node *x, int k, int axis) {
    if (!x || !axis_fix("topk", &axis, x->ndim)) return NULL;
    const int n = x->shape[axis];
    if (k < 0 || k > n)
        return op_error("[topk] Received invalid k=%d along axis %d for array with shape %s.", k,
                        axis, SHAPE(x));
    if (k == n) return node_retain(x);
    if (k == 0) return op_slice_axis(x, axis, 0, 0);
    const int kth = n - k;
    Node *parted = sort_node(&partition_op, x, &kth, axis, false);
    Node *result = op_slice_axis(parted, axis, kth, n);
    node_release(parted);
    return result;
}

int mlx_sort_axis(mlx_array *res, const mlx_array a, int axis, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_sort(node_of(a), axis)) : 1;
}

int mlx_argsort_axis(mlx_array *res, const mlx_array a, int axis, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_argsort(node_of(a), axis)) : 1;
}

int mlx_partition_axis(mlx_array *res, const mlx_array a, int kth, int axis, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, sort_node(&partition_op, node_of(a), &kth, axis, false));
}

int mlx_argpartition_axis(mlx_array *res, const mlx_array a, int kth, int axis,
                          const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, sort_node(&argpartition_op, node_of(a), &kth, axis, true));
}

int mlx_topk_axis(mlx_array *res, const mlx_array a, int k, int axis, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_topk(node_of(a), k, axis)) : 1;
}

/* Without an axis: of all items in one line. */
#define FLAT_API(name, parameters, call)            \
    int mlx_##name parameters {                     \
        if (!stream_ok(s)) return 1;                \
        Node *flat = op_flatten(node_of(a), 0, -1); \
        const int status = op_finish(res, call);    \
        node_release(flat);                         \
        return status;                              \
    }
FLAT_API(sort, (mlx_array * res, const mlx_array a, const mlx_stream s), op_sort(flat, 0))
FLAT_API(argsort, (mlx_array * res, const mlx_array a, const mlx_stream s), op_argsort(flat, 0))
FLAT_API(partition, (mlx_array * res, const mlx_array a, int kth, const mlx_stream s),
         sort_node(&partition_op, flat, &kth, 0, false))
FLAT_API(argpartition, (mlx_array * res, const mlx_array a, int kth, const mlx_stream s),
         sort_node(&argpartition_op, flat, &kth, 0, true))
FLAT_API(topk, (mlx_array * res, const mlx_array a, int k, const mlx_stream s), op_topk(flat, k, 0))
