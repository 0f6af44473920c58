/* Operations of random programs, continued: the rarer functions of one array,
 * products, scatters, weights of few bits, and gradients. */
#include "conformance/programs.h"

#include <string.h>

#define SHAPE(...) (const int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))

enum { MOST = 16 };

/* Fresh leaves and everything else to free at the end of a builder. */
typedef struct Scratch {
    Program *program;
    mlx_array arrays[MOST];
    int count;
} Scratch;

static mlx_array *scratch(Scratch *s) {
    s->arrays[s->count] = mlx_array_new();
    return &s->arrays[s->count++];
}

static mlx_array fresh(Scratch *s, mlx_dtype dtype, const int *shape, int ndim) {
    mlx_array *array = scratch(s);
    *array = leaf(s->program, dtype, shape, ndim, false);
    return *array;
}

static int done(Scratch *s, int failed) {
    for (int i = 0; i < s->count; i++) mlx_array_free(s->arrays[i]);
    return failed;
}

static int unary(Program *program, const ProgramOp *op, mlx_array *res) {
    return CALL((mlx_array *, mlx_array, mlx_stream))(res, pick(program, op->flags),
                                                      program->stream);
}

static int size(Program *program, int limit) {
    return 1 + (int)draw(program, (uint64_t)limit);
}

/* ---- products ---- */

static int einsum(Program *program, const ProgramOp *op, mlx_array *res) {
    static const struct {
        const char *text;
        int ndims[3];
    } forms[] = {{"ij,jk->ik", {2, 2}},
                 {"ij,kj", {2, 2}},
                 {"bij,bjk->bik", {3, 3}},
                 {"ii->i", {2}},
                 {"ii", {2}},
                 {"ij->ji", {2}},
                 {"i,j->ij", {1, 1}},
                 {"ij,ij->", {2, 2}},
                 {"abc,cd->abd", {3, 2}},
                 {"ij,jk,kl->il", {2, 2, 2}},
                 {"...ij,...jk->...ik", {3, 3}},
                 {"bhqd,bhkd->bhqk", {4, 4}},
                 {"ijk->k", {3}},
                 {"ij,j", {2, 1}},
                 {"iij->ij", {3}},
                 {"i,i,i->i", {1, 1, 1}}};
    Scratch s = {.program = program};
    const int form = (int)draw(program, 16);
    mlx_vector_array operands = mlx_vector_array_new();
    int sizes[128] = {0};
    const char *at = forms[form].text;
    for (int i = 0; i < 3 && forms[form].ndims[i]; i++, at++) {
        int shape[PROGRAM_DIMS], ndim = 0;
        for (; *at && *at != ',' && *at != '-'; at++) {
            if (*at == '.') {
                if (at[1] != '.') shape[ndim++] = 2;
                continue;
            }
            int *axis = &sizes[(int)*at];
            if (!*axis) *axis = size(program, 5);
            shape[ndim++] = *axis;
        }
        mlx_vector_array_append_value(operands, fresh(&s, MLX_FLOAT32, shape, ndim));
    }
    note(program, " %s", forms[form].text);
    (void)op;
    const int failed = mlx_einsum(res, forms[form].text, operands, program->stream);
    mlx_vector_array_free(operands);
    return done(&s, failed);
}

static int pairs(Program *program, const ProgramOp *op, mlx_array *res) {
    Scratch s = {.program = program};
    const int n = size(program, 4), k = size(program, 5), m = size(program, 4),
              kind = (int)draw(program, 4);
    const mlx_stream cpu = program->stream;
    int failed;
    (void)op;
    note(program, " kind %d", kind);
    if (kind == 0) {
        mlx_array a = fresh(&s, MLX_FLOAT32, SHAPE(n, m, k)),
                  b = fresh(&s, MLX_FLOAT32, SHAPE(m, k, 2));
        failed = chance(program, 50) ? mlx_tensordot_axis(res, a, b, 2, cpu)
                                     : mlx_tensordot(res, a, b, (const int[]){-1, 1}, 2,
                                                     (const int[]){1, 0}, 2, cpu);
    } else if (kind == 1) {
        failed = mlx_inner(res, fresh(&s, MLX_FLOAT32, SHAPE(n, k)),
                           fresh(&s, MLX_FLOAT32, SHAPE(m, k)), cpu);
    } else if (kind == 2) {
        failed = mlx_outer(res, fresh(&s, MLX_FLOAT32, SHAPE(n, k)),
                           fresh(&s, MLX_FLOAT32, SHAPE(m)), cpu);
    } else {
        const int width = 1 << (1 + draw(program, 5));
        failed = mlx_hadamard_transform(res, fresh(&s, MLX_FLOAT32, SHAPE(n, width)),
                                        (mlx_optional_float){0.5f, chance(program, 50)}, cpu);
    }
    return done(&s, failed);
}

static mlx_array indices(Scratch *s, int limit, const int *shape, int ndim) {
    int items[64], count = 1;
    for (int i = 0; i < ndim; i++) count *= shape[i];
    for (int i = 0; i < count; i++) items[i] = (int)draw(s->program, (uint64_t)limit);
    mlx_array *array = scratch(s);
    *array = mlx_array_new_data(items, shape, ndim, MLX_INT32);
    mlx_astype(array, *array, chance(s->program, 50) ? MLX_UINT32 : MLX_INT32, s->program->stream);
    return *array;
}

static int gathered(Program *program, const ProgramOp *op, mlx_array *res) {
    Scratch s = {.program = program};
    const int m = size(program, 3), k = 32, n = 32 * size(program, 2), kind = (int)draw(program, 3);
    const mlx_array none = mlx_array_new();
    mlx_array x = fresh(&s, MLX_FLOAT32, SHAPE(3, m, k)), lhs = none, rhs = none;
    if (kind != 1) lhs = indices(&s, 3, SHAPE(2, 2));
    if (kind != 2) rhs = indices(&s, 4, SHAPE(1, 2));
    if (kind == 2) lhs = indices(&s, 3, SHAPE(2, 4));
    if (kind == 1) rhs = indices(&s, 4, SHAPE(2, 3));
    (void)op;
    note(program, " kind %d m %d n %d", kind, m, n);
    if (chance(program, 40)) {
        mlx_array w = fresh(&s, MLX_FLOAT32, SHAPE(4, k, n));
        return done(&s, mlx_gather_mm(res, x, w, lhs, rhs, false, program->stream));
    }
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    const bool transpose = chance(program, 60);
    const mlx_optional_int bits = {widths[draw(program, 6)], true}, group = {32, true};
    mlx_array w =
        transpose ? fresh(&s, MLX_FLOAT32, SHAPE(4, n, k)) : fresh(&s, MLX_FLOAT32, SHAPE(4, k, n));
    mlx_vector_array parts = mlx_vector_array_new();
    mlx_array part[3];
    int failed = 0;
    OP(quantize, &parts, w, group, bits, "affine", none);
    for (size_t i = 0; i < 3; i++) {
        part[i] = *scratch(&s);
        if (!failed) failed = mlx_vector_array_get(&part[i], parts, i);
        s.arrays[s.count - 1] = part[i];
    }
    OP(gather_qmm, res, x, part[0], part[1], part[2], lhs, rhs, transpose, group, bits, "affine",
       false);
    mlx_vector_array_free(parts);
    return done(&s, failed);
}

/* Weights with a byte of scale, by value; fp8 by code. */
static int bytes(Program *program, const ProgramOp *op, mlx_array *res) {
    static const char *const modes[] = {"mxfp4", "mxfp8", "nvfp4"};
    Scratch s = {.program = program};
    const mlx_optional_int absent = {0, false};
    const int mode = (int)draw(program, 4), n = 32 * size(program, 2), k = 32 * size(program, 3);
    const mlx_array none = mlx_array_new();
    int failed = 0;
    (void)op;
    note(program, " %s n %d k %d", mode < 3 ? modes[mode] : "fp8", n, k);
    mlx_array w = fresh(&s, MLX_FLOAT32, SHAPE(n, k));
    if (mode == 3) {
        mlx_array *codes = scratch(&s);
        OP(to_fp8, codes, w);
        if (chance(program, 50)) {
            mlx_array_set(res, *codes);
            return done(&s, failed);
        }
        OP(from_fp8, res, *codes, MLX_FLOAT32);
        return done(&s, failed);
    }
    mlx_vector_array parts = mlx_vector_array_new();
    OP(quantize, &parts, w, absent, absent, modes[mode], none);
    mlx_array *codes = scratch(&s), *scales = scratch(&s);
    if (!failed)
        failed = mlx_vector_array_get(codes, parts, 0) || mlx_vector_array_get(scales, parts, 1);
    mlx_vector_array_free(parts);
    if (chance(program, 40)) {
        OP(dequantize, res, *codes, *scales, none, absent, absent, modes[mode], none,
           (mlx_optional_dtype){MLX_FLOAT32, true});
        return done(&s, failed);
    }
    const bool transpose = chance(program, 60);
    mlx_array x = fresh(&s, MLX_FLOAT32, SHAPE(size(program, 4), 1));
    x = transpose ? fresh(&s, MLX_FLOAT32, SHAPE(3, k)) : fresh(&s, MLX_FLOAT32, SHAPE(2, n));
    OP(quantized_matmul, res, x, *codes, *scales, none, transpose, absent, absent, modes[mode]);
    return done(&s, failed);
}

/* ---- scatters ---- */

/* Updates of slices of a at indices along one or two axes. The indices of a plain
 * scatter differ, so that the order does not matter. */
static int scatter(Program *program, const ProgramOp *op, mlx_array *res) {
    Scratch s = {.program = program};
    const mlx_dtype dtype = draw_dtype(program, op->flags);
    const int rows = 5, columns = 4, n = size(program, 4), depth = size(program, 3);
    const int kind = (int)draw(program, 5);
    mlx_array a = fresh(&s, dtype, SHAPE(rows, columns, depth)), at;
    note(program, " kind %d dtype %d n %d", kind, dtype, n);
    if (kind == 0) {
        const int order[] = {3, 0, -1, 2};
        at = *scratch(&s) = mlx_array_new_data(order, &n, 1, MLX_INT32);
    } else {
        at = indices(&s, rows, SHAPE(n));
    }
    const mlx_stream cpu = program->stream;
    mlx_array updates = fresh(&s, dtype, SHAPE(n, 1, columns, depth));
    int failed;
    (void)op;
    switch (kind) {
    case 0: failed = mlx_scatter_single(res, a, at, updates, 0, cpu); break;
    case 1: failed = mlx_scatter_add_single(res, a, at, updates, 0, cpu); break;
    case 2: failed = mlx_scatter_max_single(res, a, at, updates, 0, cpu); break;
    case 3: failed = mlx_scatter_min_single(res, a, at, updates, 0, cpu); break;
    default: {
        mlx_array second = indices(&s, columns, SHAPE(n));
        mlx_array small = fresh(&s, dtype, SHAPE(n, 1, 1, depth));
        mlx_vector_array both = mlx_vector_array_new_data((mlx_array[]){at, second}, 2);
        failed = mlx_scatter_add(res, a, both, small, (const int[]){0, 1}, 2, cpu);
        mlx_vector_array_free(both);
    }
    }
    return done(&s, failed);
}

static int masked(Program *program, const ProgramOp *op, mlx_array *res) {
    Scratch s = {.program = program};
    const mlx_dtype dtype = draw_dtype(program, op->flags);
    const int n = size(program, 5), m = size(program, 4);
    mlx_array a = fresh(&s, dtype, SHAPE(n, m)), mask = fresh(&s, MLX_BOOL, SHAPE(n, m));
    note(program, " dtype %d", dtype);
    return done(&s,
                mlx_masked_scatter(res, a, mask, fresh(&s, dtype, SHAPE(n * m)), program->stream));
}

static int add_along(Program *program, const ProgramOp *op, mlx_array *res) {
    Scratch s = {.program = program};
    const mlx_dtype dtype = draw_dtype(program, op->flags);
    const int n = size(program, 5), m = size(program, 4);
    mlx_array a = fresh(&s, dtype, SHAPE(n, m)), at = indices(&s, n, SHAPE(3, m));
    note(program, " dtype %d", dtype);
    return done(
        &s, mlx_scatter_add_axis(res, a, at, fresh(&s, dtype, SHAPE(3, m)), 0, program->stream));
}

/* ---- gradients ---- */

typedef struct Body {
    const char *name;
    int (*run)(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s);
} Body;

/* x is [3, 4, 6] and y [4, 6], both float32, values in [-4, 4]. */
#define BODY(name, ...)                                                              \
    static int body_##name(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) { \
        (void)x;                                                                     \
        (void)y;                                                                     \
        return __VA_ARGS__;                                                          \
    }
/* The same on t = |x| + 1. */
#define POSITIVE(name, ...)                                                          \
    static int body_##name(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) { \
        (void)y;                                                                     \
        mlx_array t = mlx_array_new(), one = mlx_array_new_float(1);                 \
        int failed = mlx_abs(&t, x, s) || mlx_add(&t, t, one, s) || (__VA_ARGS__);   \
        mlx_array_free(t);                                                           \
        mlx_array_free(one);                                                         \
        return failed;                                                               \
    }
#define LIST(...) (const int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int)

BODY(add, mlx_add(res, x, y, s))
BODY(subtract, mlx_subtract(res, y, x, s))
BODY(multiply, mlx_multiply(res, x, y, s))
POSITIVE(divide, mlx_divide(res, y, t, s))
BODY(maximum, mlx_maximum(res, x, y, s))
BODY(minimum, mlx_minimum(res, y, x, s))
POSITIVE(power, mlx_power(res, t, y, s))
BODY(logaddexp, mlx_logaddexp(res, x, y, s))
BODY(exp, mlx_exp(res, x, s))
BODY(expm1, mlx_expm1(res, x, s))
POSITIVE(log, mlx_log(res, t, s))
POSITIVE(log1p, mlx_log1p(res, t, s))
POSITIVE(log2, mlx_log2(res, t, s))
POSITIVE(log10, mlx_log10(res, t, s))
BODY(sin, mlx_sin(res, x, s))
BODY(cos, mlx_cos(res, x, s))
BODY(tanh, mlx_tanh(res, x, s))
BODY(sinh, mlx_sinh(res, x, s))
BODY(cosh, mlx_cosh(res, x, s))
BODY(arctan, mlx_arctan(res, x, s))
BODY(arcsinh, mlx_arcsinh(res, x, s))
BODY(sigmoid, mlx_sigmoid(res, x, s))
BODY(erf, mlx_erf(res, x, s))
POSITIVE(sqrt, mlx_sqrt(res, t, s))
POSITIVE(rsqrt, mlx_rsqrt(res, t, s))
POSITIVE(reciprocal, mlx_reciprocal(res, t, s))
BODY(square, mlx_square(res, x, s))
BODY(negative, mlx_negative(res, x, s))
BODY(abs, mlx_abs(res, x, s))
BODY(floor, mlx_floor(res, x, s))
BODY(sum_axis, mlx_sum_axis(res, x, 1, false, s))
BODY(sum_axes, mlx_sum_axes(res, x, LIST(0, -1), true, s))
BODY(mean, mlx_mean(res, x, false, s))
BODY(mean_axis, mlx_mean_axis(res, x, -1, false, s))
BODY(max_axis, mlx_max_axis(res, x, -1, false, s))
BODY(min_axes, mlx_min_axes(res, x, LIST(0, 1), false, s))
BODY(logsumexp, mlx_logsumexp_axis(res, x, -1, true, s))
BODY(logsumexp_axes, mlx_logsumexp_axes(res, x, LIST(0, 1), false, s))
BODY(softmax, mlx_softmax_axis(res, x, -1, true, s))
BODY(softmax_first, mlx_softmax_axis(res, x, 0, true, s))
BODY(cumsum, mlx_cumsum(res, x, 1, false, true, s))
BODY(cumsum_reverse, mlx_cumsum(res, x, -1, true, false, s))
BODY(reshape, mlx_reshape(res, x, LIST(6, -1), s))
BODY(transpose, mlx_transpose_axes(res, x, LIST(2, 0, 1), s))
BODY(slice, mlx_slice(res, x, LIST(2, 0, 1), LIST(-4, 4, 6), LIST(-1, 2, 3), s))
BODY(broadcast, mlx_broadcast_to(res, y, LIST(5, 4, 6), s))
BODY(tile, mlx_tile(res, x, LIST(2, 1, 2), s))
BODY(repeat, mlx_repeat_axis(res, x, 2, 1, s))
BODY(roll, mlx_roll_axis(res, x, LIST(2), -1, s))
BODY(flatten, mlx_flatten(res, x, 0, 1, s))
BODY(swap, mlx_swapaxes(res, x, 0, 2, s))
BODY(tril, mlx_tril(res, x, 1, s))
BODY(clip, mlx_clip(res, x, mlx_array_empty, y, s))
BODY(slice_update, mlx_slice_update(res, x, y, LIST(1, 0, 0), LIST(2, 4, 6), LIST(1, 1, 1), s))
BODY(rms_norm, mlx_fast_rms_norm(res, x, mlx_array_empty, 1e-3f, s))
BODY(layer_norm, mlx_fast_layer_norm(res, x, mlx_array_empty, mlx_array_empty, 1e-3f, s))
BODY(rope,
     mlx_fast_rope(res, x, 4, false, (mlx_optional_float){100, true}, 1, 3, mlx_array_empty, s))
BODY(rope_pairs,
     mlx_fast_rope(res, x, 6, true, (mlx_optional_float){10, true}, 1, 0, mlx_array_empty, s))
BODY(stop, mlx_stop_gradient(res, x, s))

static int body_matmul(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    mlx_array t = mlx_array_new();
    const int failed = mlx_transpose(&t, y, s) || mlx_matmul(res, x, t, s);
    mlx_array_free(t);
    return failed;
}
static int body_addmm(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    mlx_array t = mlx_array_new(), c = mlx_array_new();
    const int failed = mlx_transpose(&t, y, s) || mlx_mean_axis(&c, y, -1, false, s) ||
                       mlx_addmm(res, c, x, t, 0.5f, 2, s);
    mlx_array_free(t);
    mlx_array_free(c);
    return failed;
}
static int body_where(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    mlx_array c = mlx_array_new();
    const int failed = mlx_greater(&c, x, y, s) || mlx_where(res, c, y, x, s);
    mlx_array_free(c);
    return failed;
}
static int body_pad(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    (void)y;
    mlx_array zero = mlx_array_new_float(0);
    const int failed =
        mlx_pad(res, x, LIST(0, 1, 2), LIST(1, 0, 0), LIST(2, 0, 3), zero, "constant", s);
    mlx_array_free(zero);
    return failed;
}
static int body_take(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    (void)y;
    mlx_array at =
        mlx_array_new_data((const int[]){1, -1, 1, 0}, (const int[]){2, 2}, 2, MLX_INT32);
    const int failed = mlx_take_axis(res, x, at, 1, s);
    mlx_array_free(at);
    return failed;
}
static int body_along(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    mlx_array at = mlx_array_new();
    const int failed = mlx_argsort_axis(&at, y, -1, s) || mlx_stop_gradient(&at, at, s) ||
                       mlx_reshape(&at, at, LIST(1, 4, 6), s) ||
                       mlx_take_along_axis(res, x, at, -1, s);
    mlx_array_free(at);
    return failed;
}
static int body_concatenate(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    mlx_array wide = mlx_array_new();
    int failed = mlx_expand_dims(&wide, y, 0, s);
    mlx_vector_array both = mlx_vector_array_new_data((mlx_array[]){x, wide, x}, 3);
    failed = failed || mlx_concatenate_axis(res, both, 0, s);
    mlx_vector_array_free(both);
    mlx_array_free(wide);
    return failed;
}
static int body_split(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    (void)y;
    mlx_vector_array parts = mlx_vector_array_new();
    const int failed = mlx_split(&parts, x, 3, -1, s) || mlx_vector_array_get(res, parts, 1);
    mlx_vector_array_free(parts);
    return failed;
}
static int body_attention(mlx_array *res, mlx_array x, mlx_array y, mlx_stream s) {
    mlx_array q = mlx_array_new(), k = mlx_array_new();
    const int failed = mlx_expand_dims(&q, x, 0, s) || mlx_reshape(&k, y, LIST(1, 1, 4, 6), s) ||
                       mlx_fast_scaled_dot_product_attention(res, q, k, k, 0.5f, "causal",
                                                             mlx_array_empty, mlx_array_empty, s);
    mlx_array_free(q);
    mlx_array_free(k);
    return failed;
}

#define IT(name) \
    { #name, body_##name }
static const Body bodies[] = {IT(add),          IT(subtract),
                              IT(multiply),     IT(divide),
                              IT(maximum),      IT(minimum),
                              IT(power),        IT(logaddexp),
                              IT(exp),          IT(expm1),
                              IT(log),          IT(log1p),
                              IT(log2),         IT(log10),
                              IT(sin),          IT(cos),
                              IT(tanh),         IT(sinh),
                              IT(cosh),         IT(arctan),
                              IT(arcsinh),      IT(sigmoid),
                              IT(erf),          IT(sqrt),
                              IT(rsqrt),        IT(reciprocal),
                              IT(square),       IT(negative),
                              IT(abs),          IT(floor),
                              IT(sum_axis),     IT(sum_axes),
                              IT(mean),         IT(mean_axis),
                              IT(max_axis),     IT(min_axes),
                              IT(logsumexp),    IT(logsumexp_axes),
                              IT(softmax),      IT(softmax_first),
                              IT(cumsum),       IT(cumsum_reverse),
                              IT(reshape),      IT(transpose),
                              IT(slice),        IT(pad),
                              IT(broadcast),    IT(tile),
                              IT(repeat),       IT(roll),
                              IT(flatten),      IT(swap),
                              IT(tril),         IT(clip),
                              IT(slice_update), IT(rms_norm),
                              IT(layer_norm),   IT(rope),
                              IT(rope_pairs),   IT(stop),
                              IT(matmul),       IT(addmm),
                              IT(where),        IT(take),
                              IT(along),        IT(concatenate),
                              IT(split),        IT(attention)};
enum { BODIES = sizeof bodies / sizeof *bodies };

/* Two bodies in a chain: the second on tanh of the first, brought to x's shape. */
typedef struct Chain {
    const Body *first, *second;
    mlx_stream stream;
} Chain;

static int run_chain(mlx_vector_array *res, const mlx_vector_array in, void *payload) {
    const Chain *chain = payload;
    const mlx_stream s = chain->stream;
    mlx_array x = mlx_array_new(), y = mlx_array_new(), out = mlx_array_new();
    int failed = mlx_vector_array_get(&x, in, 0) || mlx_vector_array_get(&y, in, 1) ||
                 chain->first->run(&out, x, y, s);
    if (!failed && chain->second) {
        mlx_array sum = mlx_array_new();
        failed = mlx_tanh(&out, out, s) || mlx_mean(&sum, out, false, s) ||
                 mlx_multiply(&x, x, sum, s) || chain->second->run(&out, x, y, s);
        mlx_array_free(sum);
    }
    if (!failed) *res = mlx_vector_array_new_value(out);
    mlx_array_free(x);
    mlx_array_free(y);
    mlx_array_free(out);
    return failed;
}

static int gradient(Program *program, const ProgramOp *op, mlx_array *res) {
    Scratch s = {.program = program};
    Chain *chain = &(Chain){.first = &bodies[draw(program, BODIES)], .stream = program->stream};
    if (chance(program, 40)) chain->second = &bodies[draw(program, BODIES)];
    mlx_array x = fresh(&s, MLX_FLOAT32, SHAPE(3, 4, 6)), y = fresh(&s, MLX_FLOAT32, SHAPE(4, 6));
    note(program, " of %s then %s", chain->first->name,
         chain->second ? chain->second->name : "nothing");
    const int wanted = (int)draw(program, 2);
    (void)op;
    mlx_closure f = mlx_closure_new_func_payload(run_chain, chain, NULL);
    mlx_vector_array in = mlx_vector_array_new_data((mlx_array[]){x, y}, 2);
    mlx_vector_array out = mlx_vector_array_new(), grads = mlx_vector_array_new();
    mlx_vector_array cotangents = mlx_vector_array_new();
    int failed = mlx_closure_apply(&out, f, in);
    if (!failed) {
        mlx_array *value = scratch(&s);
        mlx_vector_array_get(value, out, 0);
        mlx_vector_array_append_value(cotangents, fresh(&s, MLX_FLOAT32, mlx_array_shape(*value),
                                                        (int)mlx_array_ndim(*value)));
        if (chain->first->run == body_stop && !chain->second)
            mlx_vector_array_set_data(&cotangents, NULL, 0);
        if (chain->second && chain->second->run == body_stop)
            mlx_vector_array_set_data(&cotangents, NULL, 0);
        failed = mlx_vjp(&out, &grads, f, in, cotangents);
    }
    if (!failed) failed = mlx_vector_array_get(res, grads, (size_t)wanted);
    mlx_closure_free(f);
    mlx_vector_array_free(in);
    mlx_vector_array_free(out);
    mlx_vector_array_free(grads);
    mlx_vector_array_free(cotangents);
    return done(&s, failed);
}

const ProgramOp program_products[] = {ROW(log2, 1, JUMPS | OP_ROUNDS, unary),
                                      ROW(log10, 1, JUMPS | OP_ROUNDS, unary),
                                      ROW(tan, 1, JUMPS | OP_ROUNDS | OP_TAME | OP_WILD, unary),
                                      ROW(sinh, 1, CURVE | OP_WILD, unary),
                                      ROW(cosh, 1, CURVE | OP_WILD, unary),
                                      ROW(arctan, 1, CURVE, unary),
                                      ROW(arcsinh, 1, CURVE, unary),
                                      ROW(arcsin, 1, JUMPS | OP_ROUNDS, unary),
                                      ROW(arccos, 1, JUMPS | OP_ROUNDS, unary),
                                      ROW(arccosh, 1, JUMPS | OP_ROUNDS, unary),
                                      ROW(arctanh, 1, JUMPS | OP_ROUNDS, unary),
                                      ROW(erfinv, 1, JUMPS | OP_ROUNDS, unary),
                                      ROW(isfinite, 1, OP_JUMPS, unary),
                                      ROW(isposinf, 1, JUMPS, unary),
                                      ROW(isneginf, 1, JUMPS, unary),
                                      ROW(degrees, 1, CURVE | OP_WILD, unary),
                                      ROW(radians, 1, CURVE, unary),
                                      ROW(bitwise_invert, 1, OP_INTS, unary),
                                      ROW(real, 1, OP_JUMPS, unary),
                                      ROW(imag, 1, OP_JUMPS, unary),
                                      ROW(conjugate, 1, OP_JUMPS, unary),
                                      OWN(einsum, 3, OP_ROUNDS | OP_WILD),
                                      OWN(pairs, 3, OP_ROUNDS | OP_WILD),
                                      OWN(gathered, 3, OP_ROUNDS | OP_WILD),
                                      OWN(bytes, 3, OP_ROUNDS | OP_WILD),
                                      OWN(scatter, 3, OP_ROUNDS | OP_WIDE | OP_REAL | OP_WILD),
                                      OWN(masked, 2, 0),
                                      OWN(add_along, 2, OP_ROUNDS | OP_WIDE | OP_REAL),
                                      OWN(gradient, 12, OP_ROUNDS | OP_WILD)};
const int program_product_count = sizeof program_products / sizeof *program_products;
