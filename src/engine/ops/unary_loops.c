/* See unary_loops.h. A row of the table says what dtype a function gives and
 * which loop computes it: floats of up to 32 bits by a CPU kernel or a float32
 * loop, float64 and complex64 by their own, integers by one loop per type. */
#include "engine/ops/unary_loops.h"
#include "engine/ops/threefry.h"

#include <complex.h>
#include <math.h>
#include <string.h>

#define LOOP(name, type, result, expression)                \
    static void name(void *out, const void *in, size_t n) { \
        const type *px = in;                                \
        result *py = out;                                   \
        for (size_t i = 0; i < n; i++) {                    \
            const type x = px[i];                           \
            py[i] = (result)(expression);                   \
        }                                                   \
    }

/* Integers: one loop per type, in the order of mlx_dtype. Arithmetic is modulo
 * 2^32 or 2^64, so that nothing overflows. */
#define INTEGER_LOOPS(name, small, large)                                                         \
    LOOP(name##_bool, uint8_t, uint8_t, (small) != 0)                                             \
    LOOP(name##_u8, uint8_t, uint8_t, small)                                                      \
    LOOP(name##_u16, uint16_t, uint16_t, small)                                                   \
    LOOP(name##_u32, uint32_t, uint32_t, small)                                                   \
    LOOP(name##_u64, uint64_t, uint64_t, large)                                                   \
    LOOP(name##_i8, int8_t, int8_t, small)                                                        \
    LOOP(name##_i16, int16_t, int16_t, small)                                                     \
    LOOP(name##_i32, int32_t, int32_t, small)                                                     \
    LOOP(name##_i64, int64_t, int64_t, large)                                                     \
    static const UnaryLoop name##_integers[MLX_INT64 + 1] = {name##_bool, name##_u8,  name##_u16, \
                                                             name##_u32,  name##_u64, name##_i8,  \
                                                             name##_i16,  name##_i32, name##_i64};

INTEGER_LOOPS(negative, 0u - (uint32_t)x, (uint64_t)0 - (uint64_t)x)
INTEGER_LOOPS(square, (uint32_t)x *(uint32_t)x, (uint64_t)x *(uint64_t)x)
/* Unsigned x is never below 0; the comparison is written so that no type warns. */
INTEGER_LOOPS(sign, (x > 0) - (x != 0 && !(x > 0)), (x > 0) - (x != 0 && !(x > 0)))
LOOP(abs_i8, int8_t, int8_t, x < 0 ? -x : x)
LOOP(abs_i16, int16_t, int16_t, x < 0 ? -x : x)
LOOP(abs_i32, int32_t, int32_t, x < 0 ? 0u - (uint32_t)x : (uint32_t)x)
LOOP(abs_i64, int64_t, int64_t, x < 0 ? (uint64_t)0 - (uint64_t)x : (uint64_t)x)
static const UnaryLoop abs_integers[MLX_INT64 + 1] = {
    [MLX_INT8] = abs_i8, [MLX_INT16] = abs_i16, [MLX_INT32] = abs_i32, [MLX_INT64] = abs_i64};
LOOP(not_bool, uint8_t, uint8_t, !x)
#define INVERT_LOOP(suffix, type) LOOP(invert_##suffix, type, type, ~x)
INVERT_LOOP(u8, uint8_t)
INVERT_LOOP(u16, uint16_t)
INVERT_LOOP(u32, uint32_t)
INVERT_LOOP(u64, uint64_t)
INVERT_LOOP(i8, int8_t)
INVERT_LOOP(i16, int16_t)
INVERT_LOOP(i32, int32_t)
INVERT_LOOP(i64, int64_t)
static const UnaryLoop invert_integers[MLX_INT64 + 1] = {NULL,       invert_u8,  invert_u16,
                                                         invert_u32, invert_u64, invert_i8,
                                                         invert_i16, invert_i32, invert_i64};
static const UnaryLoop not_integers[MLX_INT64 + 1] = {[MLX_BOOL] = not_bool};

LOOP(erfinv_f32, float, float, random_erfinv(x))
LOOP(arccos_f32, float, float, acosf(x))
LOOP(arccosh_f32, float, float, acoshf(x))
LOOP(arcsin_f32, float, float, asinf(x))
LOOP(arcsinh_f32, float, float, asinhf(x))
LOOP(arctan_f32, float, float, atanf(x))
LOOP(arctanh_f32, float, float, atanhf(x))
LOOP(cosh_f32, float, float, coshf(x))
LOOP(isfinite_f32, float, uint8_t, isfinite(x) != 0)
LOOP(isneginf_f32, float, uint8_t, x == -INFINITY)
LOOP(isposinf_f32, float, uint8_t, x == INFINITY)
LOOP(log10_f32, float, float, log10f(x))
LOOP(log2_f32, float, float, log2f(x))
LOOP(sinh_f32, float, float, sinhf(x))
LOOP(tan_f32, float, float, tanf(x))
LOOP(isinf_f32, float, uint8_t, isinf(x) != 0)
LOOP(isnan_f32, float, uint8_t, isnan(x) != 0)
LOOP(sign_f32, float, float, (x > 0) - (x < 0))

/* The inverse of erf in double: the float32 polynomial, then two Newton steps. */
static double erfinv_f64_one(double x) {
    if (fabs(x) >= 1) return fabs(x) == 1 ? copysign(HUGE_VAL, x) : (double)NAN;
    double y = (double)random_erfinv((float)x);
    for (int step = 0; step < 2 && isfinite(y); step++)
        y -= (erf(y) - x) * 0.88622692545275801 * exp(y * y);
    return y;
}

LOOP(abs_f64, double, double, fabs(x))
LOOP(arccos_f64, double, double, acos(x))
LOOP(arccosh_f64, double, double, acosh(x))
LOOP(arcsin_f64, double, double, asin(x))
LOOP(arcsinh_f64, double, double, asinh(x))
LOOP(arctan_f64, double, double, atan(x))
LOOP(arctanh_f64, double, double, atanh(x))
LOOP(ceil_f64, double, double, ceil(x))
LOOP(cos_f64, double, double, cos(x))
LOOP(cosh_f64, double, double, cosh(x))
LOOP(erf_f64, double, double, erf(x))
LOOP(erfinv_f64, double, double, erfinv_f64_one(x))
LOOP(exp_f64, double, double, exp(x))
LOOP(expm1_f64, double, double, expm1(x))
LOOP(floor_f64, double, double, floor(x))
LOOP(isfinite_f64, double, uint8_t, isfinite(x) != 0)
LOOP(isinf_f64, double, uint8_t, isinf(x) != 0)
LOOP(isnan_f64, double, uint8_t, isnan(x) != 0)
LOOP(isneginf_f64, double, uint8_t, x == -(double)INFINITY)
LOOP(isposinf_f64, double, uint8_t, x == (double)INFINITY)
LOOP(log_f64, double, double, log(x))
LOOP(log10_f64, double, double, log10(x))
LOOP(log1p_f64, double, double, log1p(x))
LOOP(log2_f64, double, double, log2(x))
LOOP(negative_f64, double, double, -x)
LOOP(reciprocal_f64, double, double, 1 / x)
LOOP(round_f64, double, double, rint(x))
LOOP(rsqrt_f64, double, double, 1 / sqrt(x))
LOOP(sigmoid_f64, double, double, x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)))
LOOP(sign_f64, double, double, (x > 0) - (x < 0))
LOOP(sin_f64, double, double, sin(x))
LOOP(sinh_f64, double, double, sinh(x))
LOOP(sqrt_f64, double, double, sqrt(x))
LOOP(square_f64, double, double, x *x)
LOOP(tan_f64, double, double, tan(x))
LOOP(tanh_f64, double, double, tanh(x))

typedef float complex Complex;
static Complex complex_of(float real, float imaginary) {
    Complex value;
    memcpy(&value, (const float[2]){real, imaginary}, sizeof value);
    return value;
}

/* exp(x) - 1 and log(1 + x), exact near 0. */
static Complex expm1_complex(Complex x) {
    const float half = sinf(cimagf(x) / 2);
    return complex_of(expm1f(crealf(x)) * cosf(cimagf(x)) - 2 * half * half,
                      expf(crealf(x)) * sinf(cimagf(x)));
}

static Complex log1p_complex(Complex x) {
    const float real = crealf(x), imaginary = cimagf(x);
    const float angle = atan2f(imaginary, real + 1);
    if (cabsf(x) >= 0.5f) return complex_of(logf(hypotf(real + 1, imaginary)), angle);
    return complex_of(0.5f * log1pf(real * (2 + real) + imaginary * imaginary), angle);
}

static Complex sigmoid_complex(Complex x) {
    const Complex power = cexpf(crealf(x) < 0 ? x : -x);
    return (crealf(x) < 0 ? power : 1.0f) / (1.0f + power);
}

LOOP(abs_c64, Complex, float, cabsf(x))
LOOP(arccos_c64, Complex, Complex, cacosf(x))
LOOP(arccosh_c64, Complex, Complex, cacoshf(x))
LOOP(arcsin_c64, Complex, Complex, casinf(x))
LOOP(arcsinh_c64, Complex, Complex, casinhf(x))
LOOP(arctan_c64, Complex, Complex, catanf(x))
LOOP(arctanh_c64, Complex, Complex, catanhf(x))
LOOP(conjugate_c64, Complex, Complex, conjf(x))
LOOP(cos_c64, Complex, Complex, ccosf(x))
LOOP(cosh_c64, Complex, Complex, ccoshf(x))
LOOP(exp_c64, Complex, Complex, cexpf(x))
LOOP(expm1_c64, Complex, Complex, expm1_complex(x))
LOOP(imag_c64, Complex, float, cimagf(x))
LOOP(isfinite_c64, Complex, uint8_t, isfinite(crealf(x)) && isfinite(cimagf(x)))
LOOP(isneginf_c64, Complex, uint8_t, x == -INFINITY)
LOOP(isposinf_c64, Complex, uint8_t, x == INFINITY)
LOOP(log_c64, Complex, Complex, clogf(x))
LOOP(log1p_c64, Complex, Complex, log1p_complex(x))
LOOP(log10_c64, Complex, Complex, clogf(x) * 0.43429448190325183f)
LOOP(log2_c64, Complex, Complex, clogf(x) * 1.4426950408889634f)
LOOP(real_c64, Complex, float, crealf(x))
LOOP(round_c64, Complex, Complex, complex_of(rintf(crealf(x)), rintf(cimagf(x))))
LOOP(rsqrt_c64, Complex, Complex, 1.0f / csqrtf(x))
LOOP(sigmoid_c64, Complex, Complex, sigmoid_complex(x))
LOOP(sin_c64, Complex, Complex, csinf(x))
LOOP(sinh_c64, Complex, Complex, csinhf(x))
LOOP(sqrt_c64, Complex, Complex, csqrtf(x))
LOOP(tan_c64, Complex, Complex, ctanf(x))
LOOP(tanh_c64, Complex, Complex, ctanhf(x))
LOOP(isinf_c64, Complex, uint8_t, isinf(crealf(x)) || isinf(cimagf(x)))
LOOP(isnan_c64, Complex, uint8_t, isnan(crealf(x)) || isnan(cimagf(x)))
LOOP(negative_c64, Complex, Complex, -x)
LOOP(sign_c64, Complex, Complex, x == 0 ? x : x / cabsf(x))
LOOP(square_c64, Complex, Complex, x *x)

const UnaryRow unary_rows[UNARY_COUNT] = {
    [UNARY_ABS] = {"abs", KEEPS, CPU_ABS, NULL, abs_f64, abs_c64, abs_integers},
    [UNARY_ARCCOS] = {"arccos", FLOATS, -1, arccos_f32, arccos_f64, arccos_c64, NULL},
    [UNARY_ARCCOSH] = {"arccosh", FLOATS, -1, arccosh_f32, arccosh_f64, arccosh_c64, NULL},
    [UNARY_ARCSIN] = {"arcsin", FLOATS, -1, arcsin_f32, arcsin_f64, arcsin_c64, NULL},
    [UNARY_ARCSINH] = {"arcsinh", FLOATS, -1, arcsinh_f32, arcsinh_f64, arcsinh_c64, NULL},
    [UNARY_ARCTAN] = {"arctan", FLOATS, -1, arctan_f32, arctan_f64, arctan_c64, NULL},
    [UNARY_ARCTANH] = {"arctanh", FLOATS, -1, arctanh_f32, arctanh_f64, arctanh_c64, NULL},
    [UNARY_BITWISE_INVERT] = {"bitwise_invert", KEEPS, -1, NULL, NULL, NULL, invert_integers},
    [UNARY_CEIL] = {"ceil", KEEPS, CPU_CEIL, NULL, ceil_f64, NULL, NULL},
    [UNARY_CONJUGATE] = {"conjugate", KEEPS, -1, NULL, NULL, conjugate_c64, NULL},
    [UNARY_COS] = {"cos", FLOATS, CPU_COS, NULL, cos_f64, cos_c64, NULL},
    [UNARY_COSH] = {"cosh", FLOATS, -1, cosh_f32, cosh_f64, cosh_c64, NULL},
    [UNARY_ERF] = {"erf", FLOATS, CPU_ERF, NULL, erf_f64, NULL, NULL},
    [UNARY_ERFINV] = {"erfinv", FLOATS, -1, erfinv_f32, erfinv_f64, NULL, NULL},
    [UNARY_EXP] = {"exp", FLOATS, CPU_EXP, NULL, exp_f64, exp_c64, NULL},
    [UNARY_EXPM1] = {"expm1", FLOATS, CPU_EXPM1, NULL, expm1_f64, expm1_c64, NULL},
    [UNARY_FLOOR] = {"floor", KEEPS, CPU_FLOOR, NULL, floor_f64, NULL, NULL},
    [UNARY_IMAG] = {"imag", KEEPS, -1, NULL, NULL, imag_c64, NULL},
    [UNARY_ISFINITE] = {"isfinite", ANSWERS, -1, isfinite_f32, isfinite_f64, isfinite_c64, NULL},
    [UNARY_ISINF] = {"isinf", ANSWERS, -1, isinf_f32, isinf_f64, isinf_c64, NULL},
    [UNARY_ISNAN] = {"isnan", ANSWERS, -1, isnan_f32, isnan_f64, isnan_c64, NULL},
    [UNARY_ISNEGINF] = {"isneginf", ANSWERS, -1, isneginf_f32, isneginf_f64, isneginf_c64, NULL},
    [UNARY_ISPOSINF] = {"isposinf", ANSWERS, -1, isposinf_f32, isposinf_f64, isposinf_c64, NULL},
    [UNARY_LOG] = {"log", FLOATS, CPU_LOG, NULL, log_f64, log_c64, NULL},
    [UNARY_LOG10] = {"log10", FLOATS, -1, log10_f32, log10_f64, log10_c64, NULL},
    [UNARY_LOG1P] = {"log1p", FLOATS, CPU_LOG1P, NULL, log1p_f64, log1p_c64, NULL},
    [UNARY_LOG2] = {"log2", FLOATS, -1, log2_f32, log2_f64, log2_c64, NULL},
    [UNARY_LOGICAL_NOT] = {"logical_not", ANSWERS, -1, NULL, NULL, NULL, not_integers},
    [UNARY_NEGATIVE] = {"negative", KEEPS, CPU_NEGATIVE, NULL, negative_f64, negative_c64,
                        negative_integers},
    [UNARY_REAL] = {"real", KEEPS, -1, NULL, NULL, real_c64, NULL},
    [UNARY_RECIPROCAL] = {"reciprocal", FLOATS, CPU_RECIPROCAL, NULL, reciprocal_f64, NULL, NULL},
    [UNARY_ROUND] = {"round", KEEPS, CPU_ROUND, NULL, round_f64, round_c64, NULL},
    [UNARY_RSQRT] = {"rsqrt", FLOATS, CPU_RSQRT, NULL, rsqrt_f64, rsqrt_c64, NULL},
    [UNARY_SIGMOID] = {"sigmoid", FLOATS, CPU_SIGMOID, NULL, sigmoid_f64, sigmoid_c64, NULL},
    [UNARY_SIGN] = {"sign", KEEPS, -1, sign_f32, sign_f64, sign_c64, sign_integers},
    [UNARY_SIN] = {"sin", FLOATS, CPU_SIN, NULL, sin_f64, sin_c64, NULL},
    [UNARY_SINH] = {"sinh", FLOATS, -1, sinh_f32, sinh_f64, sinh_c64, NULL},
    [UNARY_SQRT] = {"sqrt", FLOATS, CPU_SQRT, NULL, sqrt_f64, sqrt_c64, NULL},
    [UNARY_SQUARE] = {"square", KEEPS, CPU_SQUARE, NULL, square_f64, square_c64, square_integers},
    [UNARY_TAN] = {"tan", FLOATS, -1, tan_f32, tan_f64, tan_c64, NULL},
    [UNARY_TANH] = {"tanh", FLOATS, CPU_TANH, NULL, tanh_f64, tanh_c64, NULL},
};
