/* See combine.h. Integers wrap in their own type; 16-bit floats compute in
 * float32 and round every item; extremes propagate NaN; complex numbers order
 * by their real part first. */
#include "engine/ops/combine.h"
#include "engine/ops/scalar.h"

#include <complex.h>
#include <math.h>

typedef float complex Complex;

#define SAME(x) (x)
#define RUN(name, type, wide, load, store, expression)                                            \
    static void name(void *pout, int64_t out_step, const void *pin, int64_t in_step, int64_t n) { \
        type *out = pout;                                                                         \
        const type *in = pin;                                                                     \
        for (int64_t i = 0; i < n; i++) {                                                         \
            const wide a = load(out[i * out_step]), b = load(in[i * in_step]);                    \
            out[i * out_step] = (type)store(expression);                                          \
        }                                                                                         \
    }
#define ARITHMETIC(suffix, type, wide, load, store)   \
    RUN(add_##suffix, type, wide, load, store, a + b) \
    RUN(multiply_##suffix, type, wide, load, store, a *b)
#define EXTREMES(suffix, type, wide, load, store)                           \
    RUN(maximum_##suffix, type, wide, load, store, a != a || a > b ? a : b) \
    RUN(minimum_##suffix, type, wide, load, store, a != a || a < b ? a : b)

ARITHMETIC(b8, uint8_t, int, SAME, 0 !=)
ARITHMETIC(u8, uint8_t, uint32_t, SAME, SAME)
ARITHMETIC(u16, uint16_t, uint32_t, SAME, SAME)
ARITHMETIC(u32, uint32_t, uint32_t, SAME, SAME)
ARITHMETIC(u64, uint64_t, uint64_t, SAME, SAME)
ARITHMETIC(f32, float, float, SAME, SAME)
ARITHMETIC(f64, double, double, SAME, SAME)
ARITHMETIC(f16, uint16_t, float, scalar_from_f16, scalar_to_f16)
ARITHMETIC(bf16, uint16_t, float, scalar_from_bf16, scalar_to_bf16)
ARITHMETIC(c64, Complex, Complex, SAME, SAME)
EXTREMES(u8, uint8_t, uint8_t, SAME, SAME)
EXTREMES(u16, uint16_t, uint16_t, SAME, SAME)
EXTREMES(u32, uint32_t, uint32_t, SAME, SAME)
EXTREMES(u64, uint64_t, uint64_t, SAME, SAME)
EXTREMES(i8, int8_t, int8_t, SAME, SAME)
EXTREMES(i16, int16_t, int16_t, SAME, SAME)
EXTREMES(i32, int32_t, int32_t, SAME, SAME)
EXTREMES(i64, int64_t, int64_t, SAME, SAME)
EXTREMES(f32, float, float, SAME, SAME)
EXTREMES(f64, double, double, SAME, SAME)
EXTREMES(f16, uint16_t, float, scalar_from_f16, scalar_to_f16)
EXTREMES(bf16, uint16_t, float, scalar_from_bf16, scalar_to_bf16)
static bool complex_above(Complex a, Complex b) {
    return crealf(a) > crealf(b) || (crealf(a) == crealf(b) && cimagf(a) > cimagf(b));
}
RUN(maximum_c64, Complex, Complex, SAME, SAME, a != a || complex_above(a, b) ? a : b)
RUN(minimum_c64, Complex, Complex, SAME, SAME, a != a || complex_above(b, a) ? a : b)

/* Signed integers add and multiply as unsigned ones of their size. */
static const CombineRun runs[][DTYPE_COUNT] = {
    [COMBINE_ADD] = {add_b8, add_u8, add_u16, add_u32, add_u64, add_u8, add_u16, add_u32, add_u64,
                     add_f16, add_f32, add_f64, add_bf16, add_c64},
    [COMBINE_MULTIPLY] = {multiply_b8, multiply_u8, multiply_u16, multiply_u32, multiply_u64,
                          multiply_u8, multiply_u16, multiply_u32, multiply_u64, multiply_f16,
                          multiply_f32, multiply_f64, multiply_bf16, multiply_c64},
    [COMBINE_MAXIMUM] = {maximum_u8, maximum_u8, maximum_u16, maximum_u32, maximum_u64, maximum_i8,
                         maximum_i16, maximum_i32, maximum_i64, maximum_f16, maximum_f32,
                         maximum_f64, maximum_bf16, maximum_c64},
    [COMBINE_MINIMUM] = {minimum_u8, minimum_u8, minimum_u16, minimum_u32, minimum_u64, minimum_i8,
                         minimum_i16, minimum_i32, minimum_i64, minimum_f16, minimum_f32,
                         minimum_f64, minimum_bf16, minimum_c64},
};

#define SET_RUN(name, type)                                                                       \
    static void name(void *pout, int64_t out_step, const void *pin, int64_t in_step, int64_t n) { \
        type *out = pout;                                                                         \
        const type *in = pin;                                                                     \
        for (int64_t i = 0; i < n; i++) out[i * out_step] = in[i * in_step];                      \
    }
SET_RUN(set_1, uint8_t)
SET_RUN(set_2, uint16_t)
SET_RUN(set_4, uint32_t)
SET_RUN(set_8, uint64_t)

CombineRun combine_run(Combine kind, mlx_dtype dtype) {
    if (kind != COMBINE_SET) return runs[kind][dtype];
    switch (dtype_info[dtype].size) {
    case 1: return set_1;
    case 2: return set_2;
    case 4: return set_4;
    default: return set_8;
    }
}

void combine_strided(Combine kind, mlx_dtype dtype, void *out, const int64_t *out_strides,
                     const void *in, const int64_t *in_strides, const int *shape, int ndim) {
    const int64_t itemsize = dtype_info[dtype].size;
    const CombineRun run = combine_run(kind, dtype);
    Walk walk;
    walk_init(&walk, shape, ndim, 2, (const int64_t *[]){out_strides, in_strides});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk))
        run((uint8_t *)out + walk.at[0] * itemsize, walk.step[0],
            (const uint8_t *)in + walk.at[1] * itemsize, walk.step[1], walk.count);
}

bool combine_begin(Node *node, Error *err) {
    if (node_donate(node, 0)) return true;
    const Node *x = node->inputs[0];
    if (!node_alloc(node, err)) return false;
    copy_strided(node_data(node), node->strides, node_data(x), x->strides, x->shape, x->ndim,
                 x->itemsize);
    return true;
}

bool index_outside(const char *op, const Node *indices, int64_t at, int axis, int64_t n,
                   Error *err) {
    double value;
    cast_run(&value, MLX_FLOAT64, ops_at(indices, at), indices->dtype, 1);
    return base_fail(err, ERROR_INPUT,
                     "[%s] Index %.0f is out of bounds for axis %d with size %lld.", op, value,
                     axis, (long long)n);
}

bool indices_ok(const char *op, const Node *indices) {
    if (!dtype_is_float(indices->dtype) || indices->size == 0) return true;
    op_error("[%s] Got indices with invalid dtype %s. Indices must be integral.", op,
             dtype_name(indices->dtype));
    return false;
}
