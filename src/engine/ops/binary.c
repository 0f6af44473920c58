/* Element-wise functions of two arrays: promotion, broadcasting, and the paths
 * through memory. The loops themselves are in binary_loops.c.
 *
 * Paths, cheapest first: both arrays in one layout, or one of them a single
 * value, run linearly in that layout (in place when an input dies here);
 * everything else walks merged axes row by row, and only rows whose items do
 * not lie side by side are gathered into tiles. */
#include "engine/ops/binary_loops.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <string.h>

typedef struct BinaryParam {
    BinaryKind kind;
} BinaryParam;

typedef struct BinaryJob {
    const BinaryRow *row;
    mlx_dtype dtype; /* of a and b */
    size_t in_size, out_size;
    uint8_t *out;
    const uint8_t *a, *b;
    int a_step, b_step; /* the linear path */
    const Walk *walk;   /* the walking path: out, a, b */
} BinaryJob;

static void binary_run(const BinaryRow *row, mlx_dtype dtype, uint8_t *out, const uint8_t *a,
                       int a_step, const uint8_t *b, int b_step, size_t n) {
    CpuType type;
    if (!ops_cpu_type(dtype, &type)) {
        row->loops[dtype](out, a, a_step, b, b_step, n);
        return;
    }
    if (row->kernel >= 0) {
        cpu_binary((CpuBinary)row->kernel, type, out, a, a_step, b, b_step, n);
        return;
    }
    const BinaryLoop loop = row->loops[MLX_FLOAT32];
    if (type == CPU_F32) {
        loop(out, a, a_step, b, b_step, n);
        return;
    }
    float left[OPS_TILE], right[OPS_TILE];
    if (n && !a_step) cpu_convert(left, CPU_F32, a, type, 1);
    if (n && !b_step) cpu_convert(right, CPU_F32, b, type, 1);
    const bool answers = row->result == BINARY_ANSWERS;
    for (size_t done = 0; done < n; done += OPS_TILE) {
        const size_t count = BASE_MIN(n - done, (size_t)OPS_TILE);
        if (a_step) cpu_convert(left, CPU_F32, a + 2 * done, type, count);
        if (b_step) cpu_convert(right, CPU_F32, b + 2 * done, type, count);
        if (answers) {
            loop(out + done, left, a_step, right, b_step, count);
        } else {
            float result[OPS_TILE];
            loop(result, left, a_step, right, b_step, count);
            cpu_convert(out + 2 * done, type, result, CPU_F32, count);
        }
    }
}

static void binary_linear(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const BinaryJob *job = context;
    binary_run(job->row, job->dtype, job->out + begin * job->out_size,
               job->a + (job->a_step ? begin * job->in_size : 0), job->a_step,
               job->b + (job->b_step ? begin * job->in_size : 0), job->b_step, end - begin);
}

static void binary_rows_slice(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    const BinaryJob *job = context;
    const int64_t in_size = (int64_t)job->in_size, out_size = (int64_t)job->out_size;
    uint8_t tile_a[OPS_TILE * 8], tile_b[OPS_TILE * 8];
    Walk walk = *job->walk;
    if (begin) walk_seek(&walk, begin);
    const int64_t a_step = walk.step[1], b_step = walk.step[2];
    const bool direct_a = a_step == 0 || a_step == 1, direct_b = b_step == 0 || b_step == 1;
    for (size_t r = begin; r < end; r++, walk_next(&walk)) {
        uint8_t *out = job->out + walk.at[0] * out_size;
        const uint8_t *a = job->a + walk.at[1] * in_size, *b = job->b + walk.at[2] * in_size;
        if (direct_a && direct_b) {
            binary_run(job->row, job->dtype, out, a, (int)a_step, b, (int)b_step,
                       (size_t)walk.count);
            continue;
        }
        for (int64_t done = 0; done < walk.count; done += OPS_TILE) {
            const size_t count = (size_t)BASE_MIN(walk.count - done, (int64_t)OPS_TILE);
            const uint8_t *left = a + done * a_step * in_size, *right = b + done * b_step * in_size;
            if (!direct_a) copy_gather(tile_a, left, a_step, count, job->in_size);
            if (!direct_b) copy_gather(tile_b, right, b_step, count, job->in_size);
            binary_run(job->row, job->dtype, out + done * out_size, direct_a ? left : tile_a,
                       a_step != 0, direct_b ? right : tile_b, b_step != 0, count);
        }
    }
}

/* Other layouts, equal or not, give a row-major result, as in MLX. */
static bool same_layout(const Node *a, const Node *b) {
    return (a->row_contiguous && b->row_contiguous) || (a->col_contiguous && b->col_contiguous);
}

void binary_tile(const Node *node, void *out, const void *const *in, const int *step, size_t n) {
    const BinaryRow *row = &binary_rows[((const BinaryParam *)node->param)->kind];
    const mlx_dtype dtype = tile_dtype(node->inputs[0]->dtype);
    if (dtype == MLX_FLOAT32 && row->kernel >= 0)
        cpu_binary_tile((CpuBinary)row->kernel, out, in[0], step[0], in[1], step[1], n);
    else
        row->loops[dtype](out, in[0], step[0], in[1], step[1], n);
}

bool binary_eval(Node *node, Error *err) {
    const Node *a = node->inputs[0], *b = node->inputs[1];
    BinaryJob job = {.row = &binary_rows[((const BinaryParam *)node->param)->kind],
                     .dtype = a->dtype,
                     .in_size = a->itemsize,
                     .out_size = node->itemsize};
    if (node->size == 0) return node_alloc(node, err);
    job.a = node_data(a);
    job.b = node_data(b);
    const bool full_a = shape_equal(a, node), full_b = shape_equal(b, node);
    /* One value throughout; two such operands take the first path or the walk. */
    const bool single_a = a->data_size == 1 && full_b && b->contiguous;
    const bool single_b = b->data_size == 1 && full_a && a->contiguous;
    int like = -1;
    if (full_a && full_b && a->contiguous && b->contiguous && same_layout(a, b)) {
        like = node->itemsize == a->itemsize && !node_donatable(node, 0) && node_donatable(node, 1)
                   ? 1
                   : 0;
        job.a_step = job.b_step = 1;
    } else if (single_b) {
        like = 0;
        job.a_step = 1;
    } else if (single_a) {
        like = 1;
        job.b_step = 1;
    }
    if (like >= 0) {
        if (!node_alloc_like(node, like, err)) return false;
        job.out = node_data(node);
        ops_parallel(node->data_size, node->data_size, binary_linear, &job);
        return true;
    }
    int64_t strides_a[NODE_DIMS], strides_b[NODE_DIMS];
    strides_broadcast(a, node->shape, node->ndim, strides_a);
    strides_broadcast(b, node->shape, node->ndim, strides_b);
    const bool same_size = node->itemsize == a->itemsize;
    const bool into_a = same_size && full_a && a->row_contiguous && node_donatable(node, 0);
    const bool into_b = same_size && full_b && b->row_contiguous && node_donatable(node, 1);
    if (!(into_a   ? node_alloc_like(node, 0, err)
          : into_b ? node_alloc_like(node, 1, err)
                   : node_alloc(node, err)))
        return false;
    job.out = node_data(node);
    Walk walk;
    walk_init(&walk, node->shape, node->ndim, 3,
              (const int64_t *[]){node->strides, strides_a, strides_b});
    job.walk = &walk;
    ops_parallel(walk.rows, node->size, binary_rows_slice, &job);
    return true;
}

/* As mlx has it: products and quotients of complex numbers conjugate the slope. */
static Node *slope(Node *x, Temps *t) {
    return x->dtype == MLX_COMPLEX64 ? temp(t, op_unary(UNARY_CONJUGATE, x)) : x;
}

/* The gradient of the left operand, before it is summed to its shape. */
static Node *binary_left(BinaryKind kind, Node *a, Node *b, Node *g, Temps *t) {
    switch (kind) {
    case BINARY_MULTIPLY: return temp(t, op_multiply(g, slope(b, t)));
    case BINARY_DIVIDE: return temp(t, op_divide(g, slope(b, t)));
    case BINARY_MAXIMUM: return temp(t, op_keep(temp(t, op_binary(BINARY_GREATER, a, b)), g));
    case BINARY_MINIMUM: return temp(t, op_keep(temp(t, op_binary(BINARY_LESS, a, b)), g));
    case BINARY_POWER: {
        Node *less = temp(t, op_binary_scalar(BINARY_SUBTRACT, b, 1));
        Node *slope = temp(t, op_multiply(b, temp(t, op_binary(BINARY_POWER, a, less))));
        return temp(t, op_multiply(g, slope));
    }
    case BINARY_LOGADDEXP: {
        Node *share = temp(t, op_unary(UNARY_SIGMOID, temp(t, op_subtract(a, b))));
        return temp(t, op_multiply(g, share));
    }
    case BINARY_ARCTAN2: {
        Node *squares =
            temp(t, op_add(temp(t, op_unary(UNARY_SQUARE, a)), temp(t, op_unary(UNARY_SQUARE, b))));
        return temp(t, op_multiply(b, temp(t, op_divide(g, squares))));
    }
    default: return g; /* add, subtract, remainder */
    }
}

static Node *binary_right(BinaryKind kind, Node *a, Node *b, Node *y, Node *g, Temps *t) {
    switch (kind) {
    case BINARY_SUBTRACT: return temp(t, op_negative(g));
    case BINARY_MULTIPLY: return temp(t, op_multiply(g, slope(a, t)));
    case BINARY_DIVIDE:
        return temp(
            t, op_negative(temp(t, op_divide(temp(t, op_multiply(g, slope(y, t))), slope(b, t)))));
    case BINARY_MAXIMUM: return temp(t, op_keep(temp(t, op_binary(BINARY_LESS_EQUAL, a, b)), g));
    case BINARY_MINIMUM: return temp(t, op_keep(temp(t, op_binary(BINARY_GREATER_EQUAL, a, b)), g));
    case BINARY_POWER: { /* 0 where y is, whatever the logarithm */
        Node *logs = temp(t, op_unary(UNARY_LOG, a));
        Node *slope = temp(t, op_astype(temp(t, op_multiply(y, logs)), g->dtype));
        Node *vanished = temp(t, op_binary_scalar(BINARY_EQUAL, y, 0));
        return temp(t, op_multiply(g, temp(t, op_drop(vanished, slope))));
    }
    case BINARY_REMAINDER:
        return temp(
            t, op_negative(temp(t, op_multiply(g, temp(t, op_binary(BINARY_FLOOR_DIVIDE, a, b))))));
    case BINARY_LOGADDEXP: return binary_left(kind, b, a, g, t);
    case BINARY_ARCTAN2: return temp(t, op_negative(binary_left(kind, b, a, g, t)));
    default: return g; /* add */
    }
}

static bool binary_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const BinaryKind kind = ((const BinaryParam *)node->param)->kind;
    Node *a = node->inputs[0], *b = node->inputs[1];
    Temps t = {0};
    bool good = true;
    if (wanted[0]) good = (grads[0] = op_sum_to(binary_left(kind, a, b, g, &t), a)) != NULL;
    if (wanted[1] && good)
        good = (grads[1] = op_sum_to(binary_right(kind, a, b, node, g, &t), b)) != NULL;
    return temps_end(&t, good);
}

#define BINARY_OP(kind, text, vjp) [kind] = {text, binary_eval, vjp}
static const Op binary_ops[BINARY_COUNT] = {
    BINARY_OP(BINARY_ADD, "add", binary_vjp),
    BINARY_OP(BINARY_SUBTRACT, "subtract", binary_vjp),
    BINARY_OP(BINARY_MULTIPLY, "multiply", binary_vjp),
    BINARY_OP(BINARY_DIVIDE, "divide", binary_vjp),
    BINARY_OP(BINARY_MAXIMUM, "maximum", binary_vjp),
    BINARY_OP(BINARY_MINIMUM, "minimum", binary_vjp),
    BINARY_OP(BINARY_POWER, "power", binary_vjp),
    BINARY_OP(BINARY_REMAINDER, "remainder", binary_vjp),
    BINARY_OP(BINARY_FLOOR_DIVIDE, "floor_divide", ops_zero_vjp),
    BINARY_OP(BINARY_LOGADDEXP, "logaddexp", binary_vjp),
    BINARY_OP(BINARY_ARCTAN2, "arctan2", binary_vjp),
    BINARY_OP(BINARY_EQUAL, "equal", ops_zero_vjp),
    BINARY_OP(BINARY_NAN_EQUAL, "nan_equal", ops_zero_vjp),
    BINARY_OP(BINARY_NOT_EQUAL, "not_equal", ops_zero_vjp),
    BINARY_OP(BINARY_GREATER, "greater", ops_zero_vjp),
    BINARY_OP(BINARY_GREATER_EQUAL, "greater_equal", ops_zero_vjp),
    BINARY_OP(BINARY_LESS, "less", ops_zero_vjp),
    BINARY_OP(BINARY_LESS_EQUAL, "less_equal", ops_zero_vjp),
    BINARY_OP(BINARY_LOGICAL_AND, "logical_and", ops_zero_vjp),
    BINARY_OP(BINARY_LOGICAL_OR, "logical_or", ops_zero_vjp),
    BINARY_OP(BINARY_BITWISE_AND, "bitwise_and", ops_zero_vjp),
    BINARY_OP(BINARY_BITWISE_OR, "bitwise_or", ops_zero_vjp),
    BINARY_OP(BINARY_BITWISE_XOR, "bitwise_xor", ops_zero_vjp),
    BINARY_OP(BINARY_LEFT_SHIFT, "left_shift", ops_zero_vjp),
    BINARY_OP(BINARY_RIGHT_SHIFT, "right_shift", ops_zero_vjp),
};

/* The dtype both operands are cast to, from the promoted one. */
static mlx_dtype operand_dtype(BinaryKind kind, mlx_dtype promoted) {
    switch (kind) {
    case BINARY_LOGICAL_AND:
    case BINARY_LOGICAL_OR: return MLX_BOOL;
    case BINARY_LEFT_SHIFT:
    case BINARY_RIGHT_SHIFT: return promoted == MLX_BOOL ? MLX_UINT8 : promoted;
    default:
        return binary_rows[kind].result == BINARY_FLOATS ? dtype_at_least_float(promoted)
                                                         : promoted;
    }
}

Node *op_binary(BinaryKind kind, Node *a, Node *b) {
    if (!a || !b) return NULL;
    const BinaryRow *row = &binary_rows[kind];
    const mlx_dtype dtype = operand_dtype(kind, dtype_promote(a->dtype, b->dtype));
    const mlx_dtype loop_dtype = ops_is_half(dtype) ? MLX_FLOAT32 : dtype;
    if (!row->loops[loop_dtype])
        return op_error("[%s] Not supported for %s.", row->name, dtype_name(dtype));
    int shape[NODE_DIMS], ndim;
    if (!shape_broadcast(a->shape, a->ndim, b->shape, b->ndim, shape, &ndim)) return NULL;
    Node *left = op_astype(a, dtype), *right = op_astype(b, dtype), *result = NULL;
    if (left && right)
        result = node_new_param(&binary_ops[kind], row->result == BINARY_ANSWERS ? MLX_BOOL : dtype,
                                shape, ndim, &(BinaryParam){kind}, sizeof(BinaryParam),
                                NODES(left, right));
    node_release(left);
    node_release(right);
    return result;
}

Node *op_binary_scalar(BinaryKind kind, Node *a, double b) {
    if (!a) return NULL;
    Node *scalar = node_scalar(b, a->dtype);
    Node *result = op_binary(kind, a, scalar);
    node_release(scalar);
    return result;
}

#define BINARY_API(function, kind)                                                                 \
    int mlx_##function(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_stream s) { \
        return stream_ok(s) ? op_finish(res, op_binary(kind, node_of(a), node_of(b))) : 1;         \
    }
BINARY_API(add, BINARY_ADD)
BINARY_API(subtract, BINARY_SUBTRACT)
BINARY_API(multiply, BINARY_MULTIPLY)
BINARY_API(divide, BINARY_DIVIDE)
BINARY_API(maximum, BINARY_MAXIMUM)
BINARY_API(minimum, BINARY_MINIMUM)
BINARY_API(power, BINARY_POWER)
BINARY_API(remainder, BINARY_REMAINDER)
BINARY_API(floor_divide, BINARY_FLOOR_DIVIDE)
BINARY_API(logaddexp, BINARY_LOGADDEXP)
BINARY_API(equal, BINARY_EQUAL)
BINARY_API(not_equal, BINARY_NOT_EQUAL)
BINARY_API(greater, BINARY_GREATER)
BINARY_API(greater_equal, BINARY_GREATER_EQUAL)
BINARY_API(less, BINARY_LESS)
BINARY_API(less_equal, BINARY_LESS_EQUAL)
BINARY_API(logical_and, BINARY_LOGICAL_AND)
BINARY_API(logical_or, BINARY_LOGICAL_OR)
BINARY_API(bitwise_and, BINARY_BITWISE_AND)
BINARY_API(bitwise_or, BINARY_BITWISE_OR)
BINARY_API(bitwise_xor, BINARY_BITWISE_XOR)
BINARY_API(left_shift, BINARY_LEFT_SHIFT)
BINARY_API(right_shift, BINARY_RIGHT_SHIFT)
BINARY_API(arctan2, BINARY_ARCTAN2)

/* The quotient rounded down and the rest, which has the sign of the divisor. */
int mlx_divmod(mlx_vector_array *res, const mlx_array a, const mlx_array b, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *left = node_of(a), *right = node_of(b);
    if (!left || !right) return 1;
    Node *const parts[] = {op_binary(BINARY_FLOOR_DIVIDE, left, right),
                           op_binary(BINARY_REMAINDER, left, right)};
    return op_finish_vector(res, parts, 2);
}
