/* See binary_loops.h. Integer arithmetic is modulo 2^32 or 2^64; division by
 * zero gives 0 and a shift by the width or more shifts everything out (MLX
 * traps on the first and leaves the second undefined). */
#include "engine/ops/binary_loops.h"

#include <complex.h>
#include <math.h>

typedef float complex Complex;

#define LOOP(name, type, result, expression)                                            \
    static void name(void *out, const void *pa, int a_step, const void *pb, int b_step, \
                     size_t n) {                                                        \
        const type *va = pa, *vb = pb;                                                  \
        result *y = out;                                                                \
        if (a_step && b_step) {                                                         \
            for (size_t i = 0; i < n; i++) {                                            \
                const type a = va[i], b = vb[i];                                        \
                y[i] = (result)(expression);                                            \
            }                                                                           \
        } else if (a_step) {                                                            \
            const type b = vb[0];                                                       \
            for (size_t i = 0; i < n; i++) {                                            \
                const type a = va[i];                                                   \
                y[i] = (result)(expression);                                            \
            }                                                                           \
        } else {                                                                        \
            const type a = va[0];                                                       \
            for (size_t i = 0; i < n; i++) {                                            \
                const type b = vb[b_step ? i : 0];                                      \
                y[i] = (result)(expression);                                            \
            }                                                                           \
        }                                                                               \
    }

/* f: a macro of the type and its unsigned type of at least 32 bits. */
#define INTEGER_LOOPS(name, f)                                       \
    LOOP(name##_bool, uint8_t, uint8_t, (f(int32_t, uint32_t)) != 0) \
    LOOP(name##_u8, uint8_t, uint8_t, f(uint8_t, uint32_t))          \
    LOOP(name##_u16, uint16_t, uint16_t, f(uint16_t, uint32_t))      \
    LOOP(name##_u32, uint32_t, uint32_t, f(uint32_t, uint32_t))      \
    LOOP(name##_u64, uint64_t, uint64_t, f(uint64_t, uint64_t))      \
    LOOP(name##_i8, int8_t, int8_t, f(int8_t, uint32_t))             \
    LOOP(name##_i16, int16_t, int16_t, f(int16_t, uint32_t))         \
    LOOP(name##_i32, int32_t, int32_t, f(int32_t, uint32_t))         \
    LOOP(name##_i64, int64_t, int64_t, f(int64_t, uint64_t))
#define FLOAT_LOOPS(name, f32, f64)     \
    LOOP(name##_f32, float, float, f32) \
    LOOP(name##_f64, double, double, f64)
#define ANSWER_LOOPS(name, expression)              \
    LOOP(name##_bool, uint8_t, uint8_t, expression) \
    LOOP(name##_u8, uint8_t, uint8_t, expression)   \
    LOOP(name##_u16, uint16_t, uint8_t, expression) \
    LOOP(name##_u32, uint32_t, uint8_t, expression) \
    LOOP(name##_u64, uint64_t, uint8_t, expression) \
    LOOP(name##_i8, int8_t, uint8_t, expression)    \
    LOOP(name##_i16, int16_t, uint8_t, expression)  \
    LOOP(name##_i32, int32_t, uint8_t, expression)  \
    LOOP(name##_i64, int64_t, uint8_t, expression)  \
    LOOP(name##_f32, float, uint8_t, expression)    \
    LOOP(name##_f64, double, uint8_t, expression)

#define DEFINE_POWER(type, suffix, is_signed)                           \
    static type power_##suffix##_one(type base, type exponent) {        \
        if (is_signed && exponent < (type)1 && exponent != 0) return 0; \
        uint64_t result = 1, factor = (uint64_t)base;                   \
        for (uint64_t left = (uint64_t)exponent; left; left >>= 1) {    \
            if (left & 1) result *= factor;                             \
            factor *= factor;                                           \
        }                                                               \
        return (type)result;                                            \
    }
DEFINE_POWER(uint64_t, u64, false)
DEFINE_POWER(int64_t, i64, true)

/* Quotient rounded down; remainder with the sign of the divisor. */
static int64_t quotient_i64_one(int64_t a, int64_t b) {
    if (b == 0) return 0;
    if (b == -1) return (int64_t)((uint64_t)0 - (uint64_t)a);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
static uint64_t quotient_u64_one(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : a / b;
}
static int64_t remainder_i64_one(int64_t a, int64_t b) {
    if (b == 0 || b == -1) return 0;
    const int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
static uint64_t remainder_u64_one(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : a % b;
}
/* By the real part first. */
static bool complex_above(Complex a, Complex b) {
    return crealf(a) > crealf(b) || (crealf(a) == crealf(b) && cimagf(a) > cimagf(b));
}
static float remainder_f32_one(float a, float b) {
    const float rest = fmodf(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
static double remainder_f64_one(double a, double b) {
    const double rest = fmod(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
static Complex logaddexp_c64_one(Complex a, Complex b) {
    if (a != a || b != b) return a + b; /* NaN */
    const Complex high = complex_above(a, b) ? a : b, low = complex_above(a, b) ? b : a;
    return crealf(low) == -INFINITY || crealf(high) == INFINITY
               ? high
               : high + clogf(1 + cexpf(low - high));
}
static float logaddexp_f32_one(float a, float b) {
    if (isnan(a) || isnan(b)) return NAN;
    const float high = a > b ? a : b, low = a > b ? b : a;
    return isinf(high) || isinf(low) ? high : high + log1pf(expf(low - high));
}
static double logaddexp_f64_one(double a, double b) {
    if (isnan(a) || isnan(b)) return (double)NAN;
    const double high = a > b ? a : b, low = a > b ? b : a;
    return isinf(high) || isinf(low) ? high : high + log1p(exp(low - high));
}

#define IS_SIGNED(type) ((type)-1 < (type)1)
#define ADD(type, wide) (wide) a + (wide)b
#define SUBTRACT(type, wide) (wide) a - (wide)b
#define MULTIPLY(type, wide) (wide) a *(wide)b
#define MAXIMUM(type, wide) a > b ? a : b
#define MINIMUM(type, wide) a < b ? a : b
#define POWER(type, wide)                                         \
    IS_SIGNED(type) ? (wide)power_i64_one((int64_t)a, (int64_t)b) \
                    : (wide)power_u64_one((uint64_t)a, (uint64_t)b)
#define REMAINDER(type, wide)                                         \
    IS_SIGNED(type) ? (wide)remainder_i64_one((int64_t)a, (int64_t)b) \
                    : (wide)remainder_u64_one((uint64_t)a, (uint64_t)b)
#define QUOTIENT(type, wide)                                         \
    IS_SIGNED(type) ? (wide)quotient_i64_one((int64_t)a, (int64_t)b) \
                    : (wide)quotient_u64_one((uint64_t)a, (uint64_t)b)
#define AND(type, wide) a &b
#define OR(type, wide) a | b
#define XOR(type, wide) a ^ b
#define WIDTH(type) ((int64_t)(sizeof(type) * 8))
#define OUTSIDE(type) ((uint64_t)b >= (uint64_t)WIDTH(type))
#define LEFT(type, wide) OUTSIDE(type) ? (wide)0 : (wide)a << b
#define RIGHT(type, wide) \
    (type)(OUTSIDE(type) ? (IS_SIGNED(type) && a < (type)1 && a != 0 ? (type)-1 : 0) : a >> b)

INTEGER_LOOPS(add, ADD)
FLOAT_LOOPS(add, a + b, a + b)
LOOP(add_c64, Complex, Complex, a + b)
INTEGER_LOOPS(subtract, SUBTRACT)
FLOAT_LOOPS(subtract, a - b, a - b)
LOOP(subtract_c64, Complex, Complex, a - b)
INTEGER_LOOPS(multiply, MULTIPLY)
FLOAT_LOOPS(multiply, a *b, a *b)
LOOP(multiply_c64, Complex, Complex, a *b)
FLOAT_LOOPS(divide, a / b, a / b)
LOOP(divide_c64, Complex, Complex, a / b)
INTEGER_LOOPS(maximum, MAXIMUM)
FLOAT_LOOPS(maximum, isnan(a) || a > b ? a : b, isnan(a) || a > b ? a : b)
INTEGER_LOOPS(minimum, MINIMUM)
FLOAT_LOOPS(minimum, isnan(a) || a < b ? a : b, isnan(a) || a < b ? a : b)
INTEGER_LOOPS(power, POWER)
FLOAT_LOOPS(power, powf(a, b), pow(a, b))
LOOP(power_c64, Complex, Complex, cpowf(a, b))
LOOP(maximum_c64, Complex, Complex, a != a || complex_above(a, b) ? a : b)
LOOP(minimum_c64, Complex, Complex, a != a || complex_above(b, a) ? a : b)
FLOAT_LOOPS(arctan2, atan2f(a, b), atan2(a, b))
INTEGER_LOOPS(remainder, REMAINDER)
FLOAT_LOOPS(remainder, remainder_f32_one(a, b), remainder_f64_one(a, b))
INTEGER_LOOPS(floor_divide, QUOTIENT)
FLOAT_LOOPS(floor_divide, floorf(a / b), floor(a / b))
FLOAT_LOOPS(logaddexp, logaddexp_f32_one(a, b), logaddexp_f64_one(a, b))
LOOP(logaddexp_c64, Complex, Complex, logaddexp_c64_one(a, b))
ANSWER_LOOPS(equal, a == b)
LOOP(equal_c64, Complex, uint8_t, a == b)
LOOP(nan_equal_f32, float, uint8_t, a == b || (isnan(a) && isnan(b)))
LOOP(nan_equal_f64, double, uint8_t, a == b || (isnan(a) && isnan(b)))
LOOP(nan_equal_c64, Complex, uint8_t, a == b || (a != a && b != b))
ANSWER_LOOPS(not_equal, a != b)
LOOP(not_equal_c64, Complex, uint8_t, a != b)
ANSWER_LOOPS(greater, a > b)
LOOP(greater_c64, Complex, uint8_t, complex_above(a, b))
ANSWER_LOOPS(greater_equal, a >= b)
LOOP(greater_equal_c64, Complex, uint8_t, a == b || complex_above(a, b))
ANSWER_LOOPS(less, a < b)
LOOP(less_c64, Complex, uint8_t, complex_above(b, a))
ANSWER_LOOPS(less_equal, a <= b)
LOOP(less_equal_c64, Complex, uint8_t, a == b || complex_above(b, a))
LOOP(logical_and_bool, uint8_t, uint8_t, a &&b)
LOOP(logical_or_bool, uint8_t, uint8_t, a || b)
INTEGER_LOOPS(bitwise_and, AND)
INTEGER_LOOPS(bitwise_or, OR)
INTEGER_LOOPS(bitwise_xor, XOR)
INTEGER_LOOPS(left_shift, LEFT)
INTEGER_LOOPS(right_shift, RIGHT)

#define INTEGERS(name)                                                            \
    [MLX_BOOL] = name##_bool, [MLX_UINT8] = name##_u8, [MLX_UINT16] = name##_u16, \
    [MLX_UINT32] = name##_u32, [MLX_UINT64] = name##_u64, [MLX_INT8] = name##_i8, \
    [MLX_INT16] = name##_i16, [MLX_INT32] = name##_i32, [MLX_INT64] = name##_i64
#define FLOATS(name) [MLX_FLOAT32] = name##_f32, [MLX_FLOAT64] = name##_f64
#define COMPLEX(name) [MLX_COMPLEX64] = name##_c64
#define REALS(name) INTEGERS(name), FLOATS(name)
#define ALL(name) REALS(name), COMPLEX(name)

const BinaryRow binary_rows[BINARY_COUNT] = {
    [BINARY_ADD] = {"add", BINARY_KEEPS, CPU_ADD, {ALL(add)}},
    [BINARY_SUBTRACT] = {"subtract", BINARY_KEEPS, CPU_SUBTRACT, {ALL(subtract)}},
    [BINARY_MULTIPLY] = {"multiply", BINARY_KEEPS, CPU_MULTIPLY, {ALL(multiply)}},
    [BINARY_DIVIDE] = {"divide", BINARY_FLOATS, CPU_DIVIDE, {FLOATS(divide), COMPLEX(divide)}},
    [BINARY_MAXIMUM] = {"maximum", BINARY_KEEPS, CPU_MAXIMUM, {ALL(maximum)}},
    [BINARY_MINIMUM] = {"minimum", BINARY_KEEPS, CPU_MINIMUM, {ALL(minimum)}},
    [BINARY_POWER] = {"power", BINARY_KEEPS, -1, {ALL(power)}},
    [BINARY_REMAINDER] = {"remainder", BINARY_KEEPS, -1, {REALS(remainder)}},
    [BINARY_FLOOR_DIVIDE] = {"floor_divide", BINARY_KEEPS, -1, {REALS(floor_divide)}},
    [BINARY_LOGADDEXP] = {"logaddexp", BINARY_FLOATS, -1, {FLOATS(logaddexp), COMPLEX(logaddexp)}},
    [BINARY_ARCTAN2] = {"arctan2", BINARY_FLOATS, -1, {FLOATS(arctan2)}},
    [BINARY_EQUAL] = {"equal", BINARY_ANSWERS, -1, {ALL(equal)}},
    [BINARY_NAN_EQUAL] = {"nan_equal",
                          BINARY_ANSWERS,
                          -1,
                          {INTEGERS(equal), FLOATS(nan_equal), COMPLEX(nan_equal)}},
    [BINARY_NOT_EQUAL] = {"not_equal", BINARY_ANSWERS, -1, {ALL(not_equal)}},
    [BINARY_GREATER] = {"greater", BINARY_ANSWERS, -1, {ALL(greater)}},
    [BINARY_GREATER_EQUAL] = {"greater_equal", BINARY_ANSWERS, -1, {ALL(greater_equal)}},
    [BINARY_LESS] = {"less", BINARY_ANSWERS, -1, {ALL(less)}},
    [BINARY_LESS_EQUAL] = {"less_equal", BINARY_ANSWERS, -1, {ALL(less_equal)}},
    [BINARY_LOGICAL_AND] = {"logical_and", BINARY_ANSWERS, -1, {[MLX_BOOL] = logical_and_bool}},
    [BINARY_LOGICAL_OR] = {"logical_or", BINARY_ANSWERS, -1, {[MLX_BOOL] = logical_or_bool}},
    [BINARY_BITWISE_AND] = {"bitwise_and", BINARY_KEEPS, -1, {INTEGERS(bitwise_and)}},
    [BINARY_BITWISE_OR] = {"bitwise_or", BINARY_KEEPS, -1, {INTEGERS(bitwise_or)}},
    [BINARY_BITWISE_XOR] = {"bitwise_xor", BINARY_KEEPS, -1, {INTEGERS(bitwise_xor)}},
    [BINARY_LEFT_SHIFT] = {"left_shift", BINARY_KEEPS, -1, {INTEGERS(left_shift)}},
    [BINARY_RIGHT_SHIFT] = {"right_shift", BINARY_KEEPS, -1, {INTEGERS(right_shift)}},
};
