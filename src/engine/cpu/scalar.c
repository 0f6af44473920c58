/* The trusted twins: every kernel on contiguous runs in plain C, as a reader
 * would write it from its definition. They run where no vector code does and
 * are what the vector code is tested against. Sums keep eight partial sums, so
 * that float32 stays accurate on long rows and a compiler may vectorise. */
#include "cpu/table.h"

#include <math.h>
#include <string.h>

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

uint16_t cpu_bf16_from_f32(float value) {
    uint32_t bits = bits_of_float(value);
    if (value != value) return 0x7FC0;
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float cpu_f32_from_bf16(uint16_t bits) {
    return float_of_bits((uint32_t)bits << 16);
}

uint16_t cpu_f16_from_f32(float value) {
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7D00);
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* 65520 and up round to inf */
    if (magnitude < 0x38800000) {
        /* Subnormal: adding 0.5 puts the last bit of f16 at the last bit of f32. */
        float shifted = float_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3F000000));
    }
    uint32_t rounded = magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | rounded >> 13);
}

float cpu_f32_from_f16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, magnitude = bits & 0x7FFFu;
    if (magnitude > 0x7C00) return float_of_bits(sign | 0x7FC00000 | magnitude << 13);
    if (magnitude == 0x7C00) return float_of_bits(sign | 0x7F800000);
    if (magnitude < 0x400) {
        float value = (float)magnitude * 0x1p-24f;
        return sign ? -value : value;
    }
    return float_of_bits(sign | ((magnitude << 13) + 0x38000000));
}

static void f32_copy(float *out, const void *in, size_t n) {
    if (out != in) memcpy(out, in, n * 4);
}
static void f32_copy_out(void *out, const float *in, size_t n) {
    if (out != in) memcpy(out, in, n * 4);
}
static void f16_to_f32(float *out, const void *in, size_t n) {
    const uint16_t *source = in;
    for (size_t i = 0; i < n; i++) out[i] = cpu_f32_from_f16(source[i]);
}
static void f16_from_f32(void *out, const float *in, size_t n) {
    uint16_t *target = out;
    for (size_t i = 0; i < n; i++) target[i] = cpu_f16_from_f32(in[i]);
}
static void bf16_to_f32(float *out, const void *in, size_t n) {
    const uint16_t *source = in;
    for (size_t i = 0; i < n; i++) out[i] = cpu_f32_from_bf16(source[i]);
}
static void bf16_from_f32(void *out, const float *in, size_t n) {
    uint16_t *target = out;
    for (size_t i = 0; i < n; i++) target[i] = cpu_bf16_from_f32(in[i]);
}

static void f32_round(float *out, const float *in, size_t n) {
    f32_copy(out, in, n);
}
static void f16_round(float *out, const float *in, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = cpu_f32_from_f16(cpu_f16_from_f32(in[i]));
}
static void bf16_round(float *out, const float *in, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = cpu_f32_from_bf16(cpu_bf16_from_f32(in[i]));
}

static float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}
static float silu(float x) {
    return x * sigmoid(x);
}
static float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.707106781f));
}
static float gelu_approx(float x) {
    return 0.5f * x * (1.0f + tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
}
/* NaN wins over every number. */
static float maximum(float a, float b) {
    return a > b || a != a ? a : b;
}
static float minimum(float a, float b) {
    return a < b || a != a ? a : b;
}

#define UNARY(name, expression)                                     \
    static void name##_run(float *out, const float *in, size_t n) { \
        for (size_t i = 0; i < n; i++) {                            \
            float x = in[i];                                        \
            out[i] = expression;                                    \
        }                                                           \
    }
UNARY(abs, fabsf(x))
UNARY(ceil, ceilf(x))
UNARY(cos, cosf(x))
UNARY(erf, erff(x))
UNARY(exp, expf(x))
UNARY(expm1, expm1f(x))
UNARY(floor, floorf(x))
UNARY(gelu, gelu(x))
UNARY(gelu_approx, gelu_approx(x))
UNARY(gelu_fast, x *sigmoid(1.702f * x))
UNARY(log, logf(x))
UNARY(log1p, log1pf(x))
UNARY(negative, -x)
UNARY(reciprocal, 1.0f / x)
UNARY(relu, maximum(x, 0.0f))
UNARY(round, rintf(x))
UNARY(rsqrt, 1.0f / sqrtf(x))
UNARY(sigmoid, sigmoid(x))
UNARY(silu, silu(x))
UNARY(sin, sinf(x))
UNARY(softplus, maximum(x, 0.0f) + log1pf(expf(-fabsf(x))))
UNARY(sqrt, sqrtf(x))
UNARY(square, x *x)
UNARY(tanh, tanhf(x))

#define BINARY(name, expression)                                                              \
    static void name##_run2(float *out, const float *left, int left_step, const float *right, \
                            int right_step, size_t n) {                                       \
        for (size_t i = 0; i < n; i++) {                                                      \
            float a = left[left_step ? i : 0], b = right[right_step ? i : 0];                 \
            out[i] = expression;                                                              \
        }                                                                                     \
    }
BINARY(add, a + b)
BINARY(subtract, a - b)
BINARY(multiply, a *b)
BINARY(divide, a / b)
BINARY(maximum, maximum(a, b))
BINARY(minimum, minimum(a, b))
BINARY(silu_mul, silu(a) * b)
BINARY(gelu_mul, gelu(a) * b)
BINARY(gelu_approx_mul, gelu_approx(a) * b)

static void add_scaled_run(float *out, const float *a, float factor, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = a[i] + factor * b[i];
}
static void scale_shift_run(float *out, const float *in, float shift, float scale, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = (in[i] - shift) * scale;
}

enum { PARTS = 8 };
static float total(const float parts[PARTS]) {
    float sum = 0;
    for (int j = 0; j < PARTS; j++) sum += parts[j];
    return sum;
}
static float sum_run(const float *in, size_t n) {
    float parts[PARTS] = {0};
    for (size_t i = 0; i < n; i++) parts[i % PARTS] += in[i];
    return total(parts);
}
static float sum_squares_run(const float *in, float center, size_t n) {
    float parts[PARTS] = {0};
    for (size_t i = 0; i < n; i++) parts[i % PARTS] += (in[i] - center) * (in[i] - center);
    return total(parts);
}
static float max_run(const float *in, size_t n) {
    float best = -INFINITY;
    for (size_t i = 0; i < n; i++) best = maximum(best, in[i]);
    return best;
}
static float min_run(const float *in, size_t n) {
    float best = INFINITY;
    for (size_t i = 0; i < n; i++) best = minimum(best, in[i]);
    return best;
}
static float exp_sum_run(float *out, const float *in, float shift, size_t n) {
    float parts[PARTS] = {0};
    for (size_t i = 0; i < n; i++) {
        out[i] = expf(in[i] - shift);
        parts[i % PARTS] += out[i];
    }
    return total(parts);
}

static void rope_halves_run(float *out, const float *in, const float *cosine, const float *sine,
                            size_t dims) {
    size_t half = dims / 2;
    for (size_t i = 0; i < half; i++) {
        float x = in[i], y = in[half + i];
        out[i] = x * cosine[i] - y * sine[i];
        out[half + i] = x * sine[i] + y * cosine[i];
    }
}
static void rope_pairs_run(float *out, const float *in, const float *cosine, const float *sine,
                           size_t dims) {
    for (size_t i = 0; i < dims / 2; i++) {
        float x = in[2 * i], y = in[2 * i + 1];
        out[2 * i] = x * cosine[i] - y * sine[i];
        out[2 * i + 1] = x * sine[i] + y * cosine[i];
    }
}

static inline float load(const void *array, CpuType type, size_t i) {
    if (type == CPU_F32) return ((const float *)array)[i];
    uint16_t bits = ((const uint16_t *)array)[i];
    return type == CPU_F16 ? cpu_f32_from_f16(bits) : cpu_f32_from_bf16(bits);
}
float cpu_load(const void *array, CpuType type, size_t index) {
    return load(array, type, index);
}
void cpu_store(void *array, CpuType type, size_t index, float value) {
    if (type == CPU_F32)
        ((float *)array)[index] = value;
    else if (type == CPU_F16)
        ((uint16_t *)array)[index] = cpu_f16_from_f32(value);
    else
        ((uint16_t *)array)[index] = cpu_bf16_from_f32(value);
}

#define MATRIX_ROWS(name, type)                                                                 \
    static void dot_rows_##name(const void *w, ptrdiff_t w_stride, size_t rows, size_t k,       \
                                const float *x, size_t x_stride, size_t m, float *y,            \
                                ptrdiff_t y_stride) {                                           \
        for (size_t i = 0; i < m; i++)                                                          \
            for (size_t r = 0; r < rows; r++) {                                                 \
                const char *row =                                                               \
                    (const char *)w + (ptrdiff_t)r * w_stride * (ptrdiff_t)cpu_type_size(type); \
                float parts[PARTS] = {0};                                                       \
                for (size_t j = 0; j < k; j++)                                                  \
                    parts[j % PARTS] += x[i * x_stride + j] * load(row, type, j);               \
                y[(ptrdiff_t)i * y_stride + (ptrdiff_t)r] = total(parts);                       \
            }                                                                                   \
    }                                                                                           \
    static void sum_rows_##name(const void *w, ptrdiff_t w_stride, size_t rows, size_t n,       \
                                const float *x, size_t x_stride, size_t m, float *y,            \
                                ptrdiff_t y_stride) {                                           \
        for (size_t r = 0; r < rows; r++) {                                                     \
            const char *row =                                                                   \
                (const char *)w + (ptrdiff_t)r * w_stride * (ptrdiff_t)cpu_type_size(type);     \
            for (size_t i = 0; i < m; i++)                                                      \
                for (size_t c = 0; c < n; c++)                                                  \
                    y[(ptrdiff_t)i * y_stride + (ptrdiff_t)c] +=                                \
                        x[i * x_stride + r] * load(row, type, c);                               \
        }                                                                                       \
    }
MATRIX_ROWS(f32, CPU_F32)
MATRIX_ROWS(f16, CPU_F16)
MATRIX_ROWS(bf16, CPU_BF16)

/* Rounded where mlx would hold the value in the row's type. */
#define NORM_ROW(name, type)                                                                  \
    static void norm_row_##name(void *out, const void *in, size_t n, float eps, bool centred, \
                                const float *scale, const float *shift) {                     \
        float parts[PARTS] = {0}, squares[PARTS] = {0};                                       \
        for (size_t i = 0; i < n && centred; i++) parts[i % PARTS] += load(in, type, i);      \
        const float mean = total(parts) / (float)n;                                           \
        for (size_t i = 0; i < n; i++) {                                                      \
            const float x = load(in, type, i) - mean;                                         \
            squares[i % PARTS] += x * x;                                                      \
        }                                                                                     \
        const float factor = 1.0f / sqrtf(total(squares) / (float)n + eps);                   \
        for (size_t i = 0; i < n; i++) {                                                      \
            float x = (load(in, type, i) - mean) * factor;                                    \
            if (scale) name##_round(&x, &x, 1), x *= scale[i];                                \
            if (shift) name##_round(&x, &x, 1), x += shift[i];                                \
            cpu_store(out, type, i, x);                                                       \
        }                                                                                     \
    }
NORM_ROW(f32, CPU_F32)
NORM_ROW(f16, CPU_F16)
NORM_ROW(bf16, CPU_BF16)

void cpu_fill_scalar(Kernels *t) {
    *t = (Kernels){
        .to_f32 = {f32_copy, f16_to_f32, bf16_to_f32},
        .from_f32 = {f32_copy_out, f16_from_f32, bf16_from_f32},
        .round = {f32_round, f16_round, bf16_round},
        .unary =
            {
                [CPU_ABS] = abs_run,
                [CPU_CEIL] = ceil_run,
                [CPU_COS] = cos_run,
                [CPU_ERF] = erf_run,
                [CPU_EXP] = exp_run,
                [CPU_EXPM1] = expm1_run,
                [CPU_FLOOR] = floor_run,
                [CPU_GELU] = gelu_run,
                [CPU_GELU_APPROX] = gelu_approx_run,
                [CPU_GELU_FAST] = gelu_fast_run,
                [CPU_LOG] = log_run,
                [CPU_LOG1P] = log1p_run,
                [CPU_NEGATIVE] = negative_run,
                [CPU_RECIPROCAL] = reciprocal_run,
                [CPU_RELU] = relu_run,
                [CPU_ROUND] = round_run,
                [CPU_RSQRT] = rsqrt_run,
                [CPU_SIGMOID] = sigmoid_run,
                [CPU_SILU] = silu_run,
                [CPU_SIN] = sin_run,
                [CPU_SOFTPLUS] = softplus_run,
                [CPU_SQRT] = sqrt_run,
                [CPU_SQUARE] = square_run,
                [CPU_TANH] = tanh_run,
            },
        .binary =
            {
                [CPU_ADD] = add_run2,
                [CPU_SUBTRACT] = subtract_run2,
                [CPU_MULTIPLY] = multiply_run2,
                [CPU_DIVIDE] = divide_run2,
                [CPU_MAXIMUM] = maximum_run2,
                [CPU_MINIMUM] = minimum_run2,
                [CPU_SILU_MUL] = silu_mul_run2,
                [CPU_GELU_MUL] = gelu_mul_run2,
                [CPU_GELU_APPROX_MUL] = gelu_approx_mul_run2,
            },
        .add_scaled = add_scaled_run,
        .scale_shift = scale_shift_run,
        .sum = sum_run,
        .sum_squares = sum_squares_run,
        .norm_row = {norm_row_f32, norm_row_f16, norm_row_bf16},
        .max = max_run,
        .min = min_run,
        .exp_sum = exp_sum_run,
        .rope_halves = rope_halves_run,
        .rope_pairs = rope_pairs_run,
        .dot_rows = {dot_rows_f32, dot_rows_f16, dot_rows_bf16},
        .sum_rows = {sum_rows_f32, sum_rows_f16, sum_rows_bf16},
    };
}
