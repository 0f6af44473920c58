/* vector_kernels: contiguous runs of float32, once for every vector width
 * (see vector.h). Included by vector_avx2.c and vector_avx512.c.
 *
 * Conversions, functions of one and two arguments, reductions, the
 * exponential of softmax and the rotation of rope. All of these read and
 * write memory once; four accumulators hide the latency of an add. */
#include "cpu/vector.h"

static void f32_copy(float *out, const void *in, size_t n) {
    if (out != in) __builtin_memcpy(out, in, n * 4);
}
static void f32_copy_out(void *out, const float *in, size_t n) {
    if (out != in) __builtin_memcpy(out, in, n * 4);
}

#define CONVERSIONS(type, load, store)                                         \
    static void type##_to_f32(float *out, const void *in, size_t n) {          \
        const uint16_t *source = in;                                           \
        size_t i = 0;                                                          \
        for (; i + LANES <= n; i += LANES) v_store(out + i, load(source + i)); \
        if (i < n) {                                                           \
            uint16_t part[LANES] = {0};                                        \
            __builtin_memcpy(part, source + i, (n - i) * 2);                   \
            v_store_n(out + i, load(part), n - i);                             \
        }                                                                      \
    }                                                                          \
    static void type##_from_f32(void *out, const float *in, size_t n) {        \
        uint16_t *target = out;                                                \
        size_t i = 0;                                                          \
        for (; i + LANES <= n; i += LANES) store(target + i, v_load(in + i));  \
        if (i < n) {                                                           \
            uint16_t part[LANES];                                              \
            store(part, v_load_n(in + i, n - i));                              \
            __builtin_memcpy(target + i, part, (n - i) * 2);                   \
        }                                                                      \
    }
CONVERSIONS(f16, v_load_f16, v_store_f16)
CONVERSIONS(bf16, v_load_bf16, v_store_bf16)

/* `expression` of the vector x. */
#define UNARY(name, expression)                                                        \
    static inline V name##_v(V x) {                                                    \
        return expression;                                                             \
    }                                                                                  \
    static void name##_run(float *out, const float *in, size_t n) {                    \
        size_t i = 0;                                                                  \
        for (; i + LANES <= n; i += LANES) v_store(out + i, name##_v(v_load(in + i))); \
        if (i < n) v_store_n(out + i, name##_v(v_load_n(in + i, n - i)), n - i);       \
    }

static inline V gelu_inner(V x) { /* sqrt(2/pi) (x + 0.044715 x^3) */
    V cubic = v_mul(v_mul(x, x), x);
    return v_mul(v_set(0.797884561f), v_fma(v_set(0.044715f), cubic, x));
}
static inline V v_half_of(V x, V y) { /* x (1 + y) / 2 */
    return v_mul(v_mul(v_set(0.5f), x), v_add(v_set(1.0f), y));
}

UNARY(round_f16, v_round_f16(x))
UNARY(round_bf16, v_round_bf16(x))
UNARY(abs, v_abs(x))
UNARY(ceil, v_ceil(x))
UNARY(erf, v_erf(x))
UNARY(exp, v_exp(x))
UNARY(expm1, v_expm1(x))
UNARY(floor, v_floor(x))
UNARY(gelu, v_half_of(x, v_erf(v_mul(x, v_set(0.707106781f)))))
UNARY(gelu_approx, v_half_of(x, v_tanh(gelu_inner(x))))
UNARY(gelu_fast, v_mul(x, v_sigmoid(v_mul(v_set(1.702f), x))))
UNARY(log, v_log(x))
UNARY(log1p, v_log1p(x))
UNARY(negative, v_negate(x))
UNARY(reciprocal, v_div(v_set(1.0f), x))
UNARY(relu, v_max(v_set(0.0f), x))
UNARY(round, v_nearest(x))
UNARY(rsqrt, v_div(v_set(1.0f), v_sqrt(x)))
UNARY(sigmoid, v_sigmoid(x))
UNARY(silu, v_mul(x, v_sigmoid(x)))
UNARY(softplus, v_add(v_max(v_set(0.0f), x), v_log1p(v_exp(v_negate(v_abs(x))))))
UNARY(sqrt, v_sqrt(x))
UNARY(square, v_mul(x, x))
UNARY(tanh, v_tanh(x))

static inline V maximum_v(V a, V b) {
    return v_select(v_is_nan(a), a, v_max(a, b));
}
static inline V minimum_v(V a, V b) {
    return v_select(v_is_nan(a), a, v_min(a, b));
}

#define BINARY(name, expression)                                                                  \
    static inline V name##_pair(V a, V b) {                                                       \
        return expression;                                                                        \
    }                                                                                             \
    static void name##_run2(float *out, const float *a, int a_step, const float *b, int b_step,   \
                            size_t n) {                                                           \
        V a_all = v_set(n ? *a : 0.0f), b_all = v_set(n ? *b : 0.0f);                             \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES)                                                        \
            v_store(out + i,                                                                      \
                    name##_pair(a_step ? v_load(a + i) : a_all, b_step ? v_load(b + i) : b_all)); \
        if (i < n)                                                                                \
            v_store_n(out + i,                                                                    \
                      name##_pair(a_step ? v_load_n(a + i, n - i) : a_all,                        \
                                  b_step ? v_load_n(b + i, n - i) : b_all),                       \
                      n - i);                                                                     \
    }
BINARY(add, v_add(a, b))
BINARY(subtract, v_sub(a, b))
BINARY(multiply, v_mul(a, b))
BINARY(divide, v_div(a, b))
BINARY(maximum, maximum_v(a, b))
BINARY(minimum, minimum_v(a, b))
BINARY(silu_mul, v_mul(silu_v(a), b))
BINARY(gelu_mul, v_mul(gelu_v(a), b))
BINARY(gelu_approx_mul, v_mul(gelu_approx_v(a), b))

static void add_scaled_run(float *out, const float *a, float factor, const float *b, size_t n) {
    V f = v_set(factor);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(out + i, v_fma(f, v_load(b + i), v_load(a + i)));
    if (i < n) v_store_n(out + i, v_fma(f, v_load_n(b + i, n - i), v_load_n(a + i, n - i)), n - i);
}

static void scale_shift_run(float *out, const float *in, float shift, float scale, size_t n) {
    V s = v_set(shift), f = v_set(scale);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(out + i, v_mul(v_sub(v_load(in + i), s), f));
    if (i < n) v_store_n(out + i, v_mul(v_sub(v_load_n(in + i, n - i), s), f), n - i);
}

static float sum_run(const float *in, size_t n) {
    V a = v_set(0), b = a, c = a, d = a;
    size_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        a = v_add(a, v_load(in + i));
        b = v_add(b, v_load(in + i + LANES));
        c = v_add(c, v_load(in + i + 2 * LANES));
        d = v_add(d, v_load(in + i + 3 * LANES));
    }
    for (; i + LANES <= n; i += LANES) a = v_add(a, v_load(in + i));
    if (i < n) b = v_add(b, v_load_n(in + i, n - i));
    return v_sum(v_add(v_add(a, b), v_add(c, d)));
}

static float sum_squares_run(const float *in, float center, size_t n) {
    V a = v_set(0), b = a, shift = v_set(center);
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        V x = v_sub(v_load(in + i), shift), y = v_sub(v_load(in + i + LANES), shift);
        a = v_fma(x, x, a);
        b = v_fma(y, y, b);
    }
    float tail = 0;
    for (; i < n; i++) tail = __builtin_fmaf(in[i] - center, in[i] - center, tail);
    return v_sum(v_add(a, b)) + tail;
}

/* Norm of a row, of any storage type: its moments, then one pass that rounds where
 * mlx would. The sums add up in the order of sum_run and sum_squares_run. */
static inline __attribute__((always_inline)) V row_at(const void *in, size_t i, size_t n,
                                                      CpuType type) {
    return i + LANES <= n ? v_load_type(in, i, type) : v_load_type_n(in, i, n - i, type);
}
static inline __attribute__((always_inline)) V row_round(V x, CpuType type) {
    return type == CPU_F32 ? x : type == CPU_F16 ? v_round_f16(x) : v_round_bf16(x);
}
static inline __attribute__((always_inline)) void row_put(void *out, size_t i, size_t n, V x,
                                                          CpuType type) {
    uint16_t part[LANES], *half = (uint16_t *)out + i;
    if (type == CPU_F32) {
        if (i + LANES <= n)
            v_store((float *)out + i, x);
        else
            v_store_n((float *)out + i, x, n - i);
        return;
    }
    uint16_t *target = i + LANES <= n ? half : part;
    if (type == CPU_F16)
        v_store_f16(target, x);
    else
        v_store_bf16(target, x);
    if (target == part) __builtin_memcpy(half, part, (n - i) * 2);
}

static inline __attribute__((always_inline)) float row_mean(const void *in, size_t n,
                                                            CpuType type) {
    V a = v_set(0), b = a, c = a, d = a;
    size_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        a = v_add(a, v_load_type(in, i, type));
        b = v_add(b, v_load_type(in, i + LANES, type));
        c = v_add(c, v_load_type(in, i + 2 * LANES, type));
        d = v_add(d, v_load_type(in, i + 3 * LANES, type));
    }
    for (; i + LANES <= n; i += LANES) a = v_add(a, v_load_type(in, i, type));
    if (i < n) b = v_add(b, v_load_type_n(in, i, n - i, type));
    return v_sum(v_add(v_add(a, b), v_add(c, d))) / (float)n;
}

static inline __attribute__((always_inline)) float row_variance(const void *in, float mean,
                                                                size_t n, CpuType type) {
    V a = v_set(0), b = a, shift = v_set(mean);
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        V x = v_sub(v_load_type(in, i, type), shift);
        V y = v_sub(v_load_type(in, i + LANES, type), shift);
        a = v_fma(x, x, a);
        b = v_fma(y, y, b);
    }
    float part[2 * LANES], tail = 0;
    if (i + LANES <= n) v_store(part, v_load_type(in, i, type));
    if (i + LANES < n) v_store(part + LANES, v_load_type_n(in, i + LANES, n - i - LANES, type));
    if (i < n && i + LANES > n) v_store(part, v_load_type_n(in, i, n - i, type));
    for (size_t j = 0; i + j < n; j++) tail = __builtin_fmaf(part[j] - mean, part[j] - mean, tail);
    return (v_sum(v_add(a, b)) + tail) / (float)n;
}

static inline __attribute__((always_inline)) void norm_row(void *out, const void *in, size_t n,
                                                           float eps, bool centred,
                                                           const float *scale, const float *shift,
                                                           CpuType type) {
    const float mean = centred ? row_mean(in, n, type) : 0.0f;
    const V from = v_set(mean), by = v_set(1.0f / sqrtf(row_variance(in, mean, n, type) + eps));
    for (size_t i = 0; i < n; i += LANES) {
        V x = v_mul(v_sub(row_at(in, i, n, type), from), by);
        if (scale) x = v_mul(row_round(x, type), row_at(scale, i, n, CPU_F32));
        if (shift) x = v_add(row_round(x, type), row_at(shift, i, n, CPU_F32));
        row_put(out, i, n, x, type);
    }
}
#define NORM_ROW(name, type)                                                                  \
    static void norm_row_##name(void *out, const void *in, size_t n, float eps, bool centred, \
                                const float *scale, const float *shift) {                     \
        norm_row(out, in, n, eps, centred, scale, shift, type);                               \
    }
NORM_ROW(f32, CPU_F32)
NORM_ROW(f16, CPU_F16)
NORM_ROW(bf16, CPU_BF16)

static float max_run(const float *in, size_t n) {
    V a = v_set(-INFINITY), nan = v_set(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        V x = v_load(in + i);
        a = v_max(a, x);
        nan = v_add(nan, v_sub(x, x)); /* NaN or infinite input leaves NaN */
    }
    float best = v_top(a);
    for (; i < n; i++) best = in[i] > best || in[i] != in[i] ? in[i] : best;
    if (v_any(v_is_nan(nan)) || best != best)
        for (size_t j = 0; j < n; j++)
            if (in[j] != in[j]) return NAN;
    return best == best ? best : NAN;
}

static float min_run(const float *in, size_t n) {
    V a = v_set(INFINITY), nan = v_set(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        V x = v_load(in + i);
        a = v_min(a, x);
        nan = v_add(nan, v_sub(x, x));
    }
    float best = v_bottom(a);
    for (; i < n; i++) best = in[i] < best || in[i] != in[i] ? in[i] : best;
    if (v_any(v_is_nan(nan)) || best != best)
        for (size_t j = 0; j < n; j++)
            if (in[j] != in[j]) return NAN;
    return best == best ? best : NAN;
}

static float exp_sum_run(float *out, const float *in, float shift, size_t n) {
    V total = v_set(0), s = v_set(shift);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        V e = v_exp(v_sub(v_load(in + i), s));
        v_store(out + i, e);
        total = v_add(total, e);
    }
    float tail = 0;
    if (i < n) {
        float part[LANES];
        v_store(part, v_exp(v_sub(v_load_n(in + i, n - i), s)));
        for (size_t j = 0; i + j < n; j++) {
            out[i + j] = part[j];
            tail += part[j];
        }
    }
    return v_sum(total) + tail;
}

/* x1' = x1 c - x2 s, x2' = x1 s + x2 c for the halves x1, x2 of the row. */
static void rope_halves_run(float *out, const float *in, const float *cosine, const float *sine,
                            size_t dims) {
    size_t half = dims / 2, i = 0;
    for (; i + LANES <= half; i += LANES) {
        V x = v_load(in + i), y = v_load(in + half + i);
        V c = v_load(cosine + i), s = v_load(sine + i);
        v_store(out + i, v_fnma(y, s, v_mul(x, c)));
        v_store(out + half + i, v_fma(x, s, v_mul(y, c)));
    }
    for (; i < half; i++) {
        float x = in[i], y = in[half + i];
        out[i] = __builtin_fmaf(-y, sine[i], x * cosine[i]);
        out[half + i] = __builtin_fmaf(x, sine[i], y * cosine[i]);
    }
}

void VECTOR(cpu_fill_vector)(Kernels *t) {
    t->to_f32[CPU_F32] = f32_copy;
    t->to_f32[CPU_F16] = f16_to_f32;
    t->to_f32[CPU_BF16] = bf16_to_f32;
    t->from_f32[CPU_F32] = f32_copy_out;
    t->from_f32[CPU_F16] = f16_from_f32;
    t->from_f32[CPU_BF16] = bf16_from_f32;
    t->round[CPU_F16] = round_f16_run;
    t->round[CPU_BF16] = round_bf16_run;
    t->unary[CPU_ABS] = abs_run;
    t->unary[CPU_CEIL] = ceil_run;
    t->unary[CPU_ERF] = erf_run;
    t->unary[CPU_EXP] = exp_run;
    t->unary[CPU_EXPM1] = expm1_run;
    t->unary[CPU_FLOOR] = floor_run;
    t->unary[CPU_GELU] = gelu_run;
    t->unary[CPU_GELU_APPROX] = gelu_approx_run;
    t->unary[CPU_GELU_FAST] = gelu_fast_run;
    t->unary[CPU_LOG] = log_run;
    t->unary[CPU_LOG1P] = log1p_run;
    t->unary[CPU_NEGATIVE] = negative_run;
    t->unary[CPU_RECIPROCAL] = reciprocal_run;
    t->unary[CPU_RELU] = relu_run;
    t->unary[CPU_ROUND] = round_run;
    t->unary[CPU_RSQRT] = rsqrt_run;
    t->unary[CPU_SIGMOID] = sigmoid_run;
    t->unary[CPU_SILU] = silu_run;
    t->unary[CPU_SOFTPLUS] = softplus_run;
    t->unary[CPU_SQRT] = sqrt_run;
    t->unary[CPU_SQUARE] = square_run;
    t->unary[CPU_TANH] = tanh_run;
    t->binary[CPU_ADD] = add_run2;
    t->binary[CPU_SUBTRACT] = subtract_run2;
    t->binary[CPU_MULTIPLY] = multiply_run2;
    t->binary[CPU_DIVIDE] = divide_run2;
    t->binary[CPU_MAXIMUM] = maximum_run2;
    t->binary[CPU_MINIMUM] = minimum_run2;
    t->binary[CPU_SILU_MUL] = silu_mul_run2;
    t->binary[CPU_GELU_MUL] = gelu_mul_run2;
    t->binary[CPU_GELU_APPROX_MUL] = gelu_approx_mul_run2;
    t->add_scaled = add_scaled_run;
    t->scale_shift = scale_shift_run;
    t->sum = sum_run;
    t->sum_squares = sum_squares_run;
    t->norm_row[CPU_F32] = norm_row_f32;
    t->norm_row[CPU_F16] = norm_row_f16;
    t->norm_row[CPU_BF16] = norm_row_bf16;
    t->max = max_run;
    t->min = min_run;
    t->exp_sum = exp_sum_run;
    t->rope_halves = rope_halves_run;
}
