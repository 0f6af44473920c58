/* Choosing between values: where, clip, and the comparisons with tolerance. */
#include "engine/ops/elementwise.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <math.h>
#include <string.h>

#define WHERE_LOOP(type)                                                       \
    {                                                                          \
        type *out = pout;                                                      \
        const type *x = px, *y = py;                                           \
        for (int64_t i = 0; i < n; i++)                                        \
            out[i] = condition[i * step[1]] ? x[i * step[2]] : y[i * step[3]]; \
        return;                                                                \
    }
static void where_run(void *pout, const uint8_t *condition, const void *px, const void *py,
                      const int64_t *step, int64_t n, size_t itemsize) {
    switch (itemsize) {
    case 1: WHERE_LOOP(uint8_t)
    case 2: WHERE_LOOP(uint16_t)
    case 4: WHERE_LOOP(uint32_t)
    default: WHERE_LOOP(uint64_t)
    }
}

typedef struct WhereJob {
    const Node *node, *condition, *x, *y;
    const Walk *walk;
} WhereJob;

static void where_rows(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const WhereJob *job = context;
    Walk walk = *job->walk;
    if (begin) walk_seek(&walk, begin);
    for (size_t row = begin; row < end; row++, walk_next(&walk))
        where_run(ops_at(job->node, walk.at[0]), ops_at(job->condition, walk.at[1]),
                  ops_at(job->x, walk.at[2]), ops_at(job->y, walk.at[3]), walk.step, walk.count,
                  job->node->itemsize);
}

void where_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n) {
    const int64_t steps[4] = {1, step[0], step[1], step[2]};
    where_run(out, in[0], in[1], in[2], steps, (int64_t)n,
              dtype_info[tile_dtype(node->dtype)].size);
}

bool where_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    int64_t strides[3][NODE_DIMS];
    for (int i = 0; i < 3; i++)
        strides_broadcast(node->inputs[i], node->shape, node->ndim, strides[i]);
    Walk walk;
    walk_init(&walk, node->shape, node->ndim, 4,
              (const int64_t *[]){node->strides, strides[0], strides[1], strides[2]});
    WhereJob job = {node, node->inputs[0], node->inputs[1], node->inputs[2], &walk};
    if (walk.rows) ops_parallel(walk.rows, node->size, where_rows, &job);
    return true;
}

static bool where_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *condition = node->inputs[0];
    Temps t = {0};
    bool good = true;
    if (wanted[1]) good = (grads[1] = op_sum_to(temp(&t, op_keep(condition, g)), node->inputs[1]));
    if (wanted[2] && good)
        good = (grads[2] = op_sum_to(temp(&t, op_drop(condition, g)), node->inputs[2]));
    return temps_end(&t, good);
}
static const Op where_op = {"select", where_eval, where_vjp};

Node *op_where(Node *condition, Node *x, Node *y) {
    if (!condition || !x || !y) return NULL;
    const mlx_dtype dtype = dtype_promote(x->dtype, y->dtype);
    int shape[NODE_DIMS], ndim;
    if (!shape_broadcast_nodes((Node *const[]){condition, x, y}, 3, shape, &ndim)) return NULL;
    Node *truth = op_astype(condition, MLX_BOOL);
    Node *left = op_astype(x, dtype), *right = op_astype(y, dtype);
    Node *result = node_new(&where_op, dtype, shape, ndim, NODES(truth, left, right));
    node_release(truth);
    node_release(left);
    node_release(right);
    return result;
}

Node *op_clip(Node *x, Node *low, Node *high) {
    if (!x) return NULL;
    Node *raised = low ? op_binary(BINARY_MAXIMUM, x, low) : node_retain(x);
    Node *result = high ? op_binary(BINARY_MINIMUM, raised, high) : node_retain(raised);
    node_release(raised);
    return result;
}

typedef struct CloseParam {
    double rtol, atol;
    bool equal_nan;
} CloseParam;

static bool is_close(double a, double b, const CloseParam *param) {
    if (isnan(a) || isnan(b)) return param->equal_nan && isnan(a) && isnan(b);
    if (isinf(a) || isinf(b)) return a == b;
    return fabs(a - b) <= param->atol + param->rtol * fabs(b);
}

/* Both operands float64, broadcast. */
static bool isclose_eval(Node *node, Error *err) {
    const Node *a = node->inputs[0], *b = node->inputs[1];
    if (!node_alloc(node, err)) return false;
    int64_t strides_a[NODE_DIMS], strides_b[NODE_DIMS];
    strides_broadcast(a, node->shape, node->ndim, strides_a);
    strides_broadcast(b, node->shape, node->ndim, strides_b);
    Walk walk;
    walk_init(&walk, node->shape, node->ndim, 3,
              (const int64_t *[]){node->strides, strides_a, strides_b});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        uint8_t *out = (uint8_t *)node_data(node) + walk.at[0];
        const double *left = (const double *)node_data(a) + walk.at[1];
        const double *right = (const double *)node_data(b) + walk.at[2];
        for (int64_t i = 0; i < walk.count; i++)
            out[i] = is_close(left[i * walk.step[1]], right[i * walk.step[2]], node->param);
    }
    return true;
}
static const Op isclose_op = {"isclose", isclose_eval, ops_zero_vjp};

/* The same for complex numbers, by their distance. */
static Node *complex_close(Node *a, Node *b, double rtol, double atol, bool equal_nan) {
    Temps t = {0};
    Node *distance = temp(&t, op_unary(UNARY_ABS, temp(&t, op_subtract(a, b))));
    Node *allowed = temp(&t, op_scale(temp(&t, op_unary(UNARY_ABS, b)), rtol));
    allowed = temp(&t, op_binary_scalar(BINARY_ADD, allowed, atol));
    Node *infinite = temp(&t, op_binary(BINARY_LOGICAL_OR, temp(&t, op_unary(UNARY_ISINF, a)),
                                        temp(&t, op_unary(UNARY_ISINF, b))));
    Node *result = op_where(infinite, temp(&t, op_binary(BINARY_EQUAL, a, b)),
                            temp(&t, op_binary(BINARY_LESS_EQUAL, distance, allowed)));
    if (equal_nan) {
        Node *missing = temp(&t, op_binary(BINARY_LOGICAL_AND, temp(&t, op_unary(UNARY_ISNAN, a)),
                                           temp(&t, op_unary(UNARY_ISNAN, b))));
        result = op_binary(BINARY_LOGICAL_OR, temp(&t, result), missing);
    }
    temps_end(&t, true);
    return result;
}

Node *op_isclose(Node *a, Node *b, double rtol, double atol, bool equal_nan) {
    if (!a || !b) return NULL;
    if (a->dtype == MLX_COMPLEX64 || b->dtype == MLX_COMPLEX64)
        return complex_close(a, b, rtol, atol, equal_nan);
    int shape[NODE_DIMS], ndim;
    if (!shape_broadcast(a->shape, a->ndim, b->shape, b->ndim, shape, &ndim)) return NULL;
    Node *left = op_astype(a, MLX_FLOAT64), *right = op_astype(b, MLX_FLOAT64);
    Node *result =
        node_new_param(&isclose_op, MLX_BOOL, shape, ndim, &(CloseParam){rtol, atol, equal_nan},
                       sizeof(CloseParam), NODES(left, right));
    node_release(left);
    node_release(right);
    return result;
}

int mlx_where(mlx_array *res, const mlx_array condition, const mlx_array x, const mlx_array y,
              const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_where(node_of(condition), node_of(x), node_of(y))) : 1;
}

int mlx_clip(mlx_array *res, const mlx_array a, const mlx_array a_min, const mlx_array a_max,
             const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *low = node_of_optional(a_min), *high = node_of_optional(a_max);
    if (!low && !high) {
        op_error("[clip] At least one of the bounds must be given.");
        return 1;
    }
    return op_finish(res, op_clip(node_of(a), low, high));
}

int mlx_allclose(mlx_array *res, const mlx_array a, const mlx_array b, double rtol, double atol,
                 bool equal_nan, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *close = op_isclose(node_of(a), node_of(b), rtol, atol, equal_nan);
    const int status = op_finish(res, op_reduce_all(REDUCE_ALL, close, false));
    node_release(close);
    return status;
}

int mlx_array_equal(mlx_array *res, const mlx_array a, const mlx_array b, bool equal_nan,
                    const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *left = node_of(a), *right = node_of(b);
    if (!left || !right) return 1;
    if (!shape_equal(left, right)) return op_finish(res, node_scalar(0, MLX_BOOL));
    Node *equal = op_binary(equal_nan ? BINARY_NAN_EQUAL : BINARY_EQUAL, left, right);
    const int status = op_finish(res, op_reduce_all(REDUCE_ALL, equal, false));
    node_release(equal);
    return status;
}

int mlx_isclose(mlx_array *res, const mlx_array a, const mlx_array b, double rtol, double atol,
                bool equal_nan, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_isclose(node_of(a), node_of(b), rtol, atol, equal_nan));
}

/* The largest finite number of a dtype. */
static double dtype_largest(mlx_dtype dtype) {
    switch (dtype) {
    case MLX_FLOAT16: return 65504;
    case MLX_BFLOAT16: return 0x1.FEp127;
    case MLX_FLOAT64: return 0x1.fffffffffffffp1023;
    default: return (double)0x1.fffffep127f;
    }
}

static Node *replace_where(UnaryKind test, Node *x, Node *tested, double value) {
    Node *found = op_unary(test, tested);
    Node *number = x ? node_scalar(value, x->dtype) : NULL;
    Node *result = op_where(found, number, x);
    node_release(found);
    node_release(number);
    return result;
}

int mlx_nan_to_num(mlx_array *res, const mlx_array a, float nan, mlx_optional_float posinf,
                   mlx_optional_float neginf, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *x = node_of(a);
    if (!x) return 1;
    if (!dtype_is_float(x->dtype)) return op_finish(res, node_retain(x));
    if (x->dtype == MLX_COMPLEX64) {
        op_error("[nan_to_num] Does not yet support given type: complex64.");
        return 1;
    }
    const double largest = dtype_largest(x->dtype);
    Node *numbers = replace_where(UNARY_ISNAN, x, x, (double)nan);
    Node *below = replace_where(UNARY_ISPOSINF, numbers, x,
                                posinf.has_value ? (double)posinf.value : largest);
    Node *result =
        replace_where(UNARY_ISNEGINF, below, x, neginf.has_value ? (double)neginf.value : -largest);
    node_release(numbers);
    node_release(below);
    return op_finish(res, result);
}
