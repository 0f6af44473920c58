/* The operations that random programs are made of. A builder draws its inputs
 * and parameters, mostly valid ones, and gives mlx's own status back: two
 * engines must also agree on what is an error. */
#include "conformance/programs.h"

#include <stdlib.h>

mlx_array pick_second(Program *program, unsigned flags, mlx_array first) {
    const int ndim = (int)mlx_array_ndim(first);
    if (chance(program, 25) || program->count == PROGRAM_VALUES) return pick(program, flags);
    int shape[PROGRAM_DIMS];
    const int drop = ndim && chance(program, 20) ? 1 : 0;
    for (int i = drop; i < ndim && i < PROGRAM_DIMS; i++)
        shape[i - drop] = chance(program, 20) ? 1 : mlx_array_shape(first)[i];
    if (ndim > PROGRAM_DIMS) return pick(program, flags);
    Value *value = &program->values[program->count++];
    value->wild = !(flags & OP_TAME) && chance(program, 20);
    value->array = leaf(program, draw_dtype(program, flags), shape, ndim - drop, value->wild);
    const mlx_dtype dtype = mlx_array_dtype(value->array);
    value->half = dtype == MLX_FLOAT16 || dtype == MLX_BFLOAT16;
    if (program->n_chosen < 4) program->chosen[program->n_chosen++] = value;
    note(program, " new v%d", (int)(value - program->values));
    return value->array;
}

/* ---- one function, many operations ---- */

static int unary(Program *program, const ProgramOp *op, mlx_array *res) {
    return CALL((mlx_array *, mlx_array, mlx_stream))(res, pick(program, op->flags),
                                                      program->stream);
}

static int binary(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags), b = pick_second(program, op->flags, a);
    if (chance(program, 50)) {
        mlx_array t = a;
        a = b;
        b = t;
    }
    return CALL((mlx_array *, mlx_array, mlx_array, mlx_stream))(res, a, b, program->stream);
}

static int reduce_all(Program *program, const ProgramOp *op, mlx_array *res) {
    const bool keep = chance(program, 50);
    return CALL((mlx_array *, mlx_array, bool, mlx_stream))(res, pick(program, op->flags), keep,
                                                            program->stream);
}

/* At least one axis: upstream fails on 0-d arrays with keepdims. */
static int reduce_first(Program *program, const ProgramOp *op, mlx_array *res) {
    const bool keep = chance(program, 50);
    return CALL((mlx_array *, mlx_array, bool, mlx_stream))(res, pick_shaped(program, op->flags, 1),
                                                            keep, program->stream);
}

static int reduce_axis(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int axis = draw_axis(program, a);
    const bool keep = chance(program, 50);
    note(program, " axis %d keep %d", axis, keep);
    return CALL((mlx_array *, mlx_array, int, bool, mlx_stream))(res, a, axis, keep,
                                                                 program->stream);
}

int draw_axes(Program *program, mlx_array a, int *axes) {
    int count = 0;
    const int ndim = (int)mlx_array_ndim(a);
    for (int i = 0; i < ndim; i++)
        if (chance(program, 60)) axes[count++] = chance(program, 50) ? i - ndim : i;
    if (count > 1 && chance(program, 30)) {
        const int t = axes[0];
        axes[0] = axes[1];
        axes[1] = t;
    }
    if (count && chance(program, 3)) {
        axes[count] = axes[0];
        count++;
    }
    for (int i = 0; i < count; i++) note(program, " %d", axes[i]);
    return count;
}

static int reduce_axes(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    int axes[PROGRAM_DIMS + 4];
    note(program, " axes");
    const int count = draw_axes(program, a, axes);
    /* Upstream's logsumexp forgets to drop all but one axis. */
    const bool keep = chance(program, 50) || op->call == FUNCTION(logsumexp_axes);
    note(program, " keep %d", keep);
    return CALL((mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream))(
        res, a, axes, (size_t)count, keep, program->stream);
}

static int along_axis(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int axis = draw_axis(program, a);
    note(program, " axis %d", axis);
    return CALL((mlx_array *, mlx_array, int, mlx_stream))(res, a, axis, program->stream);
}

static int scan(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int axis = draw_axis(program, a);
    const bool reverse = chance(program, 50), inclusive = chance(program, 50);
    note(program, " axis %d reverse %d inclusive %d", axis, reverse, inclusive);
    return CALL((mlx_array *, mlx_array, int, bool, bool, mlx_stream))(res, a, axis, reverse,
                                                                       inclusive, program->stream);
}

/* ---- values ---- */

/* floor_divide and remainder: no integer division by zero, and nothing negative
 * where engines round differently. */
static int division(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array a = mlx_array_new(), b = mlx_array_new(), one = mlx_array_new_bool(true);
    mlx_array x = pick(program, op->flags), y = pick_second(program, op->flags, x);
    OP(abs, &a, x);
    OP(abs, &b, y);
    OP(maximum, &b, b, one);
    if (!failed)
        failed = CALL((mlx_array *, mlx_array, mlx_array, mlx_stream))(res, a, b, program->stream);
    mlx_array_free(a);
    mlx_array_free(b);
    mlx_array_free(one);
    return failed;
}

static int shift(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array limit = mlx_array_new(), five = mlx_array_new_int(5), b = mlx_array_new();
    mlx_array x = pick(program, op->flags), y = pick_second(program, op->flags, x);
    OP(astype, &limit, five, mlx_array_dtype(y));
    OP(minimum, &b, y, limit);
    OP(abs, &b, b);
    if (!failed)
        failed = CALL((mlx_array *, mlx_array, mlx_array, mlx_stream))(res, x, b, program->stream);
    mlx_array_free(limit);
    mlx_array_free(five);
    mlx_array_free(b);
    return failed;
}

static int round_to(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags);
    /* Upstream scales float64 in float32. */
    const int decimals = mlx_array_dtype(a) == MLX_FLOAT64 ? 0 : (int)draw(program, 4) - 1;
    note(program, " decimals %d", decimals);
    return mlx_round(res, a, decimals, program->stream);
}

static int where(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array c = pick(program, op->flags | OP_JUMPS), a = pick_second(program, op->flags, c);
    mlx_array b = pick_second(program, op->flags, a);
    return mlx_where(res, c, a, b, program->stream);
}

static int clip(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags), none = mlx_array_new(), low = none, high = none;
    if (chance(program, 70)) low = pick_second(program, op->flags, a);
    if (chance(program, 70)) high = pick_second(program, op->flags, a);
    return mlx_clip(res, a, low, high, program->stream);
}

/* A cast whose values fit the target. */
static int cast(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array a = pick(program, op->flags);
    const mlx_dtype from = mlx_array_dtype(a), to = (mlx_dtype)draw(program, 14);
    note(program, " to %d", to);
    const bool ints = to >= MLX_UINT8 && to <= MLX_INT64;
    if (!ints || from < MLX_FLOAT16) return mlx_astype(res, a, to, program->stream);
    mlx_array low = mlx_array_new_float(to <= MLX_UINT64 ? 0 : -100), clean = mlx_array_new();
    mlx_array high = mlx_array_new_float(100), zero = mlx_array_new_int(0);
    mlx_array is_nan = mlx_array_new();
    OP(astype, &clean, a, MLX_FLOAT32);
    OP(isnan, &is_nan, clean);
    OP(where, &clean, is_nan, zero, clean);
    OP(clip, &clean, clean, low, high);
    OP(astype, res, clean, to);
    mlx_array_free(low);
    mlx_array_free(high);
    mlx_array_free(zero);
    mlx_array_free(clean);
    mlx_array_free(is_nan);
    return failed;
}

static int view(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, chance(program, 95) ? 1 : 0);
    static const mlx_dtype to[] = {MLX_UINT8, MLX_UINT16, MLX_UINT32, MLX_UINT64, MLX_INT8};
    const mlx_dtype dtype = to[draw(program, 5)];
    note(program, " to %d", dtype);
    return mlx_view(res, a, dtype, program->stream);
}

static int equal_all(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags), b = chance(program, 40) ? a : pick(program, op->flags);
    return mlx_array_equal(res, a, b, chance(program, 50), program->stream);
}

static int close_all(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags), b = pick_second(program, op->flags, a);
    return mlx_allclose(res, a, b, 0.5, 0.25, chance(program, 50), program->stream);
}

/* ---- new arrays ---- */

static int arange(Program *program, const ProgramOp *op, mlx_array *res) {
    const mlx_dtype dtype = draw_dtype(program, OP_REAL);
    const double start = (double)draw(program, 20) - (dtype < MLX_INT8 ? 0 : 10);
    double stop = start + (double)draw(program, 30), step = 1 + (double)draw(program, 3);
    (void)op;
    if (chance(program, 10)) stop = start - 1;
    if (chance(program, 20)) step /= 2;
    if (dtype == MLX_BOOL) return mlx_arange(res, 0, 2, 1, MLX_INT32, program->stream);
    note(program, " %g %g %g dtype %d", start, stop, step, dtype);
    return mlx_arange(res, start, stop, dtype < MLX_FLOAT16 ? (int)step + 1 : step, dtype,
                      program->stream);
}

static int full(Program *program, const ProgramOp *op, mlx_array *res) {
    int shape[PROGRAM_DIMS];
    const int ndim = draw_shape(program, shape);
    mlx_array value = pick(program, op->flags);
    const mlx_dtype dtype = chance(program, 50) ? mlx_array_dtype(value) : MLX_FLOAT32;
    return mlx_full(res, shape, (size_t)ndim, value, dtype, program->stream);
}

static int full_like(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags), value = pick_second(program, op->flags, a);
    return mlx_full_like(res, a, value, chance(program, 50) ? MLX_FLOAT32 : mlx_array_dtype(value),
                         program->stream);
}

static int triangle(Program *program, const ProgramOp *op, mlx_array *res) {
    const int k = (int)draw(program, 7) - 3;
    note(program, " k %d", k);
    return CALL((mlx_array *, mlx_array, int, mlx_stream))(
        res, pick_shaped(program, op->flags, chance(program, 90) ? 2 : 0), k, program->stream);
}

/* ---- products ---- */

/* A second factor that fits: [..., K, N] or [K]. */
static mlx_array draw_factor(Program *program, unsigned flags, mlx_array a) {
    const int ndim = (int)mlx_array_ndim(a);
    if (chance(program, 10) || ndim > PROGRAM_DIMS || program->count == PROGRAM_VALUES)
        return pick(program, flags);
    int shape[PROGRAM_DIMS], at = 0;
    const int kind = (int)draw(program, 4); /* vector, matrix, batches, batches of 1 */
    if (kind >= 2)
        for (int i = 0; i + 2 < ndim; i++) shape[at++] = kind == 2 ? mlx_array_shape(a)[i] : 1;
    shape[at++] = mlx_array_shape(a)[ndim - 1];
    if (kind) shape[at++] = 1 + (int)draw(program, program->large ? 70 : 6);
    Value *value = &program->values[program->count++];
    value->wild = false;
    value->array = leaf(program, draw_dtype(program, flags), shape, at, false);
    const mlx_dtype dtype = mlx_array_dtype(value->array);
    value->half = dtype == MLX_FLOAT16 || dtype == MLX_BFLOAT16;
    if (program->n_chosen < 4) program->chosen[program->n_chosen++] = value;
    note(program, " new v%d", (int)(value - program->values));
    return value->array;
}

static int matmul(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1), b = draw_factor(program, op->flags, a);
    return mlx_matmul(res, a, b, program->stream);
}

static int addmm(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array a = pick_shaped(program, op->flags, 1), b = draw_factor(program, op->flags, a);
    mlx_array like = mlx_array_new(), c = mlx_array_new();
    /* Upstream asks more of c when b has one axis. */
    if (b.ctx && mlx_array_ndim(b) == 1) return mlx_matmul(res, a, b, program->stream);
    OP(matmul, &like, a, b);
    if (!failed) mlx_array_set(&c, pick_second(program, op->flags, like));
    OP(addmm, res, c, a, b, 0.5f, -2.0f);
    mlx_array_free(like);
    mlx_array_free(c);
    return failed;
}

static const int bit_widths[] = {2, 3, 4, 5, 6, 8};

/* A quantised matrix of float32 and what multiplies it. */
static int quantised(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    (void)op;
    const mlx_optional_int bits = {bit_widths[draw(program, 6)], true};
    const mlx_optional_int group = {32 << draw(program, 3), true};
    const int rows = 32 * (1 + (int)draw(program, 3)),
              columns = group.value * (1 + (int)draw(program, 2));
    const bool transpose = chance(program, 60), multiply = chance(program, 70);
    int shape[2] = {rows, columns},
        x_shape[2] = {1 + (int)draw(program, 5), transpose ? columns : rows};
    program->text[0] = 0;
    note(program, "quantised bits %d group %d rows %d columns %d transpose %d multiply %d",
         bits.value, group.value, rows, columns, transpose, multiply);
    mlx_array w = leaf(program, MLX_FLOAT32, shape, 2, false);
    mlx_array x = leaf(program, MLX_FLOAT32, x_shape, 2, false), part[3], none = mlx_array_new();
    mlx_vector_array parts = mlx_vector_array_new();
    OP(quantize, &parts, w, group, bits, "affine", none);
    for (size_t i = 0; i < 3; i++) {
        part[i] = mlx_array_new();
        if (!failed) failed = mlx_vector_array_get(&part[i], parts, i);
    }
    if (multiply)
        OP(quantized_matmul, res, x, part[0], part[1], part[2], transpose, group, bits, "affine");
    else
        OP(dequantize, res, part[0], part[1], part[2], group, bits, "affine", none,
           (mlx_optional_dtype){MLX_FLOAT32, false});
    for (size_t i = 0; i < 3; i++) mlx_array_free(part[i]);
    mlx_vector_array_free(parts);
    mlx_array_free(w);
    mlx_array_free(x);
    return failed;
}

/* ---- rows ---- */

static int softmax(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    /* Upstream's unsigned integers wrap below zero along other axes. */
    const int axis = mlx_array_dtype(a) < MLX_INT8 ? -1 : draw_axis(program, a);
    note(program, " axis %d", axis);
    return mlx_softmax_axis(res, a, axis, chance(program, 50), program->stream);
}

static int norm(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array x = pick_shaped(program, op->flags, 1), w = mlx_array_new(), b = mlx_array_new();
    const int ndim = (int)mlx_array_ndim(x);
    const mlx_dtype dtype = mlx_array_dtype(x);
    if (chance(program, 60)) w = leaf(program, dtype, &mlx_array_shape(x)[ndim - 1], 1, false);
    if (chance(program, 40)) b = leaf(program, dtype, &mlx_array_shape(x)[ndim - 1], 1, false);
    const int failed = chance(program, 50)
                           ? mlx_fast_rms_norm(res, x, w, 1e-3f, program->stream)
                           : mlx_fast_layer_norm(res, x, w, b, 1e-3f, program->stream);
    mlx_array_free(w);
    mlx_array_free(b);
    return failed;
}

static int rope(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array x = pick_shaped(program, op->flags, 3);
    const int width = mlx_array_shape(x)[mlx_array_ndim(x) - 1], dims = width & ~1;
    const bool traditional = chance(program, 50);
    note(program, " dims %d traditional %d", dims, traditional);
    if (!dims) return mlx_copy(res, x, program->stream);
    return mlx_fast_rope(res, x, dims, traditional, (mlx_optional_float){100, true}, 0.5f,
                         (int)draw(program, 9), mlx_array_new(), program->stream);
}

static int attention(Program *program, const ProgramOp *op, mlx_array *res) {
    const mlx_dtype dtype = draw_dtype(program, op->flags);
    const int heads = 1 + (int)draw(program, 2), groups = 1 + (int)draw(program, 2);
    const int width = 4 * (1 + (int)draw(program, 4)), batch = 1 + (int)draw(program, 2);
    const int lq = 1 + (int)draw(program, 6), lk = lq + (int)draw(program, 6);
    const int q_shape[] = {batch, heads * groups, lq, width}, k_shape[] = {batch, heads, lk, width};
    const int mask_shape[] = {lq, lk};
    const int kind = (int)draw(program, 4);
    mlx_array q = leaf(program, dtype, q_shape, 4, false), mask = mlx_array_new();
    mlx_array k = leaf(program, dtype, k_shape, 4, false);
    mlx_array v = leaf(program, dtype, k_shape, 4, false);
    if (kind == 2) mask = leaf(program, dtype, mask_shape, 2, false);
    if (kind == 3) mask = leaf(program, MLX_BOOL, mask_shape, 2, false);
    note(program, " dtype %d heads %dx%d width %d batch %d lq %d lk %d mask %d", dtype, heads,
         groups, width, batch, lq, lk, kind);
    const int failed =
        mlx_fast_scaled_dot_product_attention(res, q, k, v, 0.25f,
                                              kind == 1  ? "causal"
                                              : kind > 1 ? "array"
                                                         : "",
                                              mask, mlx_array_new(), program->stream);
    mlx_array_free(q);
    mlx_array_free(k);
    mlx_array_free(v);
    mlx_array_free(mask);
    return failed;
}

/* ---- random numbers ---- */

static int random_numbers(Program *program, const ProgramOp *op, mlx_array *res) {
    const mlx_stream s = program->stream;
    static const mlx_dtype floats[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16};
    int failed, shape[PROGRAM_DIMS];
    const size_t ndim = (size_t)draw_shape(program, shape);
    mlx_array key = mlx_array_new(), low = mlx_array_new_float(-1), high = mlx_array_new_float(3);
    mlx_random_key(&key, draw(program, 1000));
    const mlx_dtype dtype = floats[draw(program, 3)];
    const int kind = (int)draw(program, 4);
    (void)op;
    note(program, " kind %d dtype %d", kind, dtype);
    switch (kind) {
    case 0: failed = mlx_random_bits(res, shape, ndim, 1 << draw(program, 3), key, s); break;
    case 1: failed = mlx_random_uniform(res, low, high, shape, ndim, dtype, key, s); break;
    case 2: failed = mlx_random_normal(res, shape, ndim, dtype, 1, 0.5f, key, s); break;
    default: failed = mlx_random_split_num(res, key, 1 + (int)draw(program, 9), s); break;
    }
    mlx_array_free(key);
    mlx_array_free(low);
    mlx_array_free(high);
    return failed;
}

const ProgramOp program_ops[] = {
    ROW(abs, 3, 0, unary),
    ROW(ceil, 2, JUMPS, unary),
    ROW(floor, 2, JUMPS, unary),
    ROW(sign, 2, JUMPS, unary),
    ROW(negative, 3, 0, unary),
    ROW(square, 3, OP_GROWS | OP_WILD, unary),
    ROW(sqrt, 2, JUMPS, unary),
    ROW(rsqrt, 2, JUMPS | OP_ROUNDS, unary),
    ROW(reciprocal, 2, JUMPS, unary),
    ROW(cos, 2, CURVE, unary),
    ROW(sin, 2, CURVE, unary),
    ROW(exp, 2, CURVE | OP_WILD, unary),
    ROW(expm1, 2, CURVE | OP_WILD, unary),
    ROW(log, 2, JUMPS | OP_ROUNDS, unary),
    ROW(log1p, 2, JUMPS | OP_ROUNDS, unary),
    ROW(erf, 2, CURVE, unary),
    ROW(sigmoid, 2, CURVE, unary),
    ROW(tanh, 2, CURVE, unary),
    ROW(isnan, 2, OP_JUMPS, unary),
    ROW(isinf, 2, OP_JUMPS, unary),
    ROW(logical_not, 2, OP_JUMPS, unary),
    ROW(copy, 1, 0, unary),
    ROW(stop_gradient, 1, 0, unary),
    ROW(ones_like, 1, 0, unary),
    ROW(zeros_like, 1, 0, unary),
    ROW(squeeze, 2, 0, unary),
    ROW(transpose, 3, 0, unary),
    ROW(add, 6, 0, binary),
    ROW(subtract, 4, 0, binary),
    ROW(multiply, 6, OP_GROWS | OP_WILD, binary),
    ROW(divide, 4, OP_JUMPS, binary),
    ROW(maximum, 4, REAL, binary),
    ROW(minimum, 4, REAL, binary),
    ROW(power, 3, JUMPS | OP_TAME | OP_ROUNDS | OP_WILD, binary),
    ROW(floor_divide, 2, JUMPS | OP_TAME, division),
    ROW(remainder, 2, JUMPS | OP_TAME | OP_WIDE, division),
    ROW(logaddexp, 2, OP_ROUNDS | REAL, binary),
    ROW(equal, 2, OP_JUMPS, binary),
    ROW(not_equal, 2, OP_JUMPS, binary),
    ROW(greater, 2, JUMPS, binary),
    ROW(greater_equal, 2, JUMPS, binary),
    ROW(less, 2, JUMPS, binary),
    ROW(less_equal, 2, JUMPS, binary),
    ROW(logical_and, 2, OP_JUMPS, binary),
    ROW(logical_or, 2, OP_JUMPS, binary),
    ROW(bitwise_and, 2, OP_INTS, binary),
    ROW(bitwise_or, 2, OP_INTS, binary),
    ROW(bitwise_xor, 2, OP_INTS, binary),
    ROW(left_shift, 2, OP_INTS, shift),
    ROW(right_shift, 2, OP_INTS, shift),
    ROW(sum, 2, OP_WIDE | OP_ROUNDS | OP_TAME, reduce_all),
    ROW(sum_axis, 4, OP_WIDE | OP_ROUNDS | OP_TAME, reduce_axis),
    ROW(sum_axes, 3, OP_WIDE | OP_ROUNDS | OP_TAME, reduce_axes),
    ROW(mean, 1, OP_WIDE | OP_ROUNDS | OP_TAME, reduce_all),
    ROW(mean_axis, 2, OP_WIDE | OP_ROUNDS | OP_TAME, reduce_axis),
    ROW(mean_axes, 2, OP_WIDE | OP_ROUNDS | OP_TAME, reduce_axes),
    ROW(max, 2, REAL, reduce_all),
    ROW(max_axis, 3, REAL, reduce_axis),
    ROW(max_axes, 2, REAL, reduce_axes),
    ROW(min, 2, REAL, reduce_all),
    ROW(min_axis, 3, REAL, reduce_axis),
    ROW(min_axes, 2, REAL, reduce_axes),
    ROW(all, 1, OP_INTS, reduce_all),
    ROW(all_axis, 2, OP_INTS, reduce_axis),
    ROW(any, 1, OP_INTS, reduce_all),
    ROW(any_axis, 2, OP_INTS, reduce_axis),
    ROW(argmax, 1, JUMPS, reduce_first),
    ROW(argmax_axis, 3, JUMPS, reduce_axis),
    ROW(argmin, 1, JUMPS, reduce_first),
    ROW(argmin_axis, 3, JUMPS, reduce_axis),
    ROW(logsumexp_axis, 1, CURVE | OP_FLOATS, reduce_axis),
    ROW(logsumexp_axis, 2, CURVE | OP_FLOATS, reduce_axis),
    ROW(logsumexp_axes, 2, CURVE | OP_FLOATS, reduce_axes),
    ROW(cumsum, 3, OP_WIDE | OP_ROUNDS | OP_TAME | REAL, scan),
    ROW(sort_axis, 3, JUMPS, along_axis),
    ROW(argsort_axis, 3, JUMPS, along_axis),
    ROW(expand_dims, 3, 0, along_axis),
    ROW(squeeze_axis, 2, 0, along_axis),
    ROW(tril, 2, 0, triangle),
    ROW(triu, 2, 0, triangle),
    {"round", 2, JUMPS, round_to, 0},
    {"astype", 6, OP_JUMPS, cast, 0},
    {"array_equal", 1, OP_JUMPS, equal_all, 0},
    {"allclose", 1, JUMPS | OP_FLOATS, close_all, 0},
    OWN(where, 4, 0),
    OWN(clip, 3, REAL),
    OWN(view, 2, OP_JUMPS | OP_WILD),
    OWN(arange, 2, 0),
    OWN(full, 2, 0),
    OWN(full_like, 1, 0),
    OWN(matmul, 5, OP_FLOATS | OP_ROUNDS | OP_TAME | OP_GROWS),
    OWN(addmm, 3, OP_FLOATS | OP_ROUNDS | OP_TAME | OP_GROWS),
    OWN(quantised, 3, OP_ROUNDS | OP_WILD),
    OWN(softmax, 3, CURVE | OP_WIDE),
    OWN(norm, 3, CURVE | OP_FLOATS),
    OWN(rope, 2, CURVE | OP_FLOATS | OP_WIDE),
    OWN(attention, 2, OP_ROUNDS | OP_FLOATS | OP_WIDE),
    {"random", 2, OP_ROUNDS | OP_WILD, random_numbers, 0},
};
const int program_op_count = sizeof program_ops / sizeof *program_ops;
