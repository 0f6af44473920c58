/* cpu: the arithmetic of the engine on plain pointers, sizes and strides.
 *
 * Nothing here knows arrays, graphs or handles. Every function chooses, at run
 * time, the fastest code for this processor (scalar, AVX2, AVX-512, AVX-512
 * VNNI, AVX-512 bf16); the environment variable MLX_RAG_CPU=scalar|avx2|avx512|
 * avx512vnni|avx512bf16 sets an upper bound for tests and comparisons.
 *
 * Strides are in elements, never bytes, and may be negative or zero where they
 * are ptrdiff_t. Storage is float32, float16 or bfloat16; arithmetic and sums
 * are float32. Functions spread large work over base_parallel_for themselves
 * and run serially when called from inside a parallel body. Sizes of 0 are
 * fine everywhere. Output never overlaps input unless said. */
#ifndef ENGINE_CPU_KERNELS_H
#define ENGINE_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { CPU_F32, CPU_F16, CPU_BF16, CPU_TYPES } CpuType;

static inline size_t cpu_type_size(CpuType type) {
    return type == CPU_F32 ? 4 : 2;
}

/* The instruction set in use: "scalar", "avx2", "avx512", "avx512vnni" or
 * "avx512bf16". */
const char *cpu_level(void);

/* ---- one number --------------------------------------------------------- */

/* Round to nearest even; NaN becomes 0x7FC0 (bf16) or sign|0x7D00 (f16). */
uint16_t cpu_bf16_from_f32(float value);
uint16_t cpu_f16_from_f32(float value);
float cpu_f32_from_bf16(uint16_t bits);
float cpu_f32_from_f16(uint16_t bits);
/* Element `index` of an array of `type`. */
float cpu_load(const void *array, CpuType type, size_t index);
void cpu_store(void *array, CpuType type, size_t index, float value);

/* ---- contiguous runs ---------------------------------------------------- */

/* out[i] = in[i] in another type; out == in is fine when the sizes agree. */
void cpu_convert(void *out, CpuType out_type, const void *in, CpuType in_type, size_t n);

/* The names of functions of one argument follow mlx; silu(x) = x * sigmoid(x),
 * gelu with erf, gelu_approx with tanh and 0.044715, gelu_fast = x *
 * sigmoid(1.702 x), softplus = log(1 + exp(x)), round half to even. Relative
 * error at most 4e-7 (float32) except near zeros of sin, cos and log, where it
 * is absolute. NaN and infinity follow libm. */
typedef enum {
    CPU_ABS,
    CPU_CEIL,
    CPU_COS,
    CPU_ERF,
    CPU_EXP,
    CPU_EXPM1,
    CPU_FLOOR,
    CPU_GELU,
    CPU_GELU_APPROX,
    CPU_GELU_FAST,
    CPU_LOG,
    CPU_LOG1P,
    CPU_NEGATIVE,
    CPU_RECIPROCAL,
    CPU_RELU,
    CPU_ROUND,
    CPU_RSQRT,
    CPU_SIGMOID,
    CPU_SILU,
    CPU_SIN,
    CPU_SOFTPLUS,
    CPU_SQRT,
    CPU_SQUARE,
    CPU_TANH,
    CPU_UNARY_COUNT
} CpuUnary;
/* out[i] = op(in[i]); out == in is fine. */
void cpu_unary(CpuUnary op, CpuType type, void *out, const void *in, size_t n);

/* maximum and minimum propagate NaN. The last three are the gated activations
 * silu(a) * b, gelu(a) * b and gelu_approx(a) * b. */
typedef enum {
    CPU_ADD,
    CPU_SUBTRACT,
    CPU_MULTIPLY,
    CPU_DIVIDE,
    CPU_MAXIMUM,
    CPU_MINIMUM,
    CPU_SILU_MUL,
    CPU_GELU_MUL,
    CPU_GELU_APPROX_MUL,
    CPU_BINARY_COUNT
} CpuBinary;
/* out[i] = op(a[i * a_step], b[i * b_step]); a step is 1, or 0 for one value
 * used throughout. out == a or out == b is fine where that step is 1. */
void cpu_binary(CpuBinary op, CpuType type, void *out, const void *a, int a_step, const void *b,
                int b_step, size_t n);

/* The same for a tile that stays in the first-level cache: float32, in the
 * calling thread. */
void cpu_unary_tile(CpuUnary op, float *out, const float *in, size_t n);
void cpu_binary_tile(CpuBinary op, float *out, const float *a, int a_step, const float *b,
                     int b_step, size_t n);
void cpu_widen_tile(float *out, CpuType type, const void *in, size_t n);
void cpu_narrow_tile(void *out, CpuType type, const float *in, size_t n);
/* Every number becomes the nearest one that the type has. */
void cpu_round_tile(CpuType type, float *values, size_t n);

/* out[i] = a[i] + factor * b[i], in float32 before the one rounding. */
void cpu_add_scaled(CpuType type, void *out, const void *a, float factor, const void *b, size_t n);

/* Of n elements, summed in float32 by several partial sums. The maximum of
 * none is -infinity, the minimum +infinity; both propagate NaN. */
float cpu_sum(CpuType type, const void *in, size_t n);
float cpu_sum_squares(CpuType type, const void *in, size_t n);
float cpu_max(CpuType type, const void *in, size_t n);
float cpu_min(CpuType type, const void *in, size_t n);
float cpu_dot(CpuType type, const void *a, const void *b, size_t n);

/* ---- rows: n contiguous elements, `rows` of them, strides between rows --- */

typedef struct CpuRows {
    CpuType type; /* of in and out */
    size_t rows, n;
    const void *in; /* [rows, n] */
    void *out;      /* [rows, n]; may be `in` with the same stride */
    ptrdiff_t in_stride, out_stride;
} CpuRows;

void cpu_softmax(const CpuRows *rows);
/* out: [rows], one element a row, out_stride apart. A row of -infinity gives
 * -infinity. */
void cpu_logsumexp(const CpuRows *rows);
/* (x - mean) * rsqrt(variance + eps) * weight + bias (centred: layer norm), or
 * x * rsqrt(mean(x^2) + eps) * weight + bias. weight, bias: [n] of vector_type, or
 * NULL. The normalised value is rounded to the rows' type before the weight
 * multiplies it, and the product before the bias, as mlx does. */
void cpu_norm(const CpuRows *rows, const void *weight, const void *bias, CpuType vector_type,
              float eps, bool centred);

/* The same in pieces, for a parallel loop of the caller whose bodies have just made
 * rows: fill the first part, begin, do every row, end. */
typedef struct CpuNorm {
    CpuRows rows;
    const void *weight, *bias;
    CpuType vector_type;
    float eps;
    bool centred;
    const float *scale, *shift; /* from here on cpu_norm_begin's */
    float *scratch;
} CpuNorm;
void cpu_norm_begin(CpuNorm *norm);
void cpu_norm_rows(const CpuNorm *norm, size_t begin, size_t end);
void cpu_norm_end(CpuNorm *norm);

/* Gradients of the two: x, g, dx [rows, n] contiguous of `type`; weight, dweight,
 * dbias [n] of weight_type. Any result may be NULL: not wanted. */
typedef struct CpuNormGrad {
    CpuType type, weight_type;
    size_t rows, n;
    const void *x, *g, *weight; /* weight NULL: all ones */
    void *dx, *dweight, *dbias;
    float eps;
    bool centred; /* layer norm */
} CpuNormGrad;
void cpu_norm_grad(const CpuNormGrad *job);

/* ---- rotary position embedding ------------------------------------------ */

/* Fills cos, sin: [length, half] with the angles (offset + t) * scale *
 * inv_freq[i], inv_freq: [half], angle and product in float32 as mlx does. */
void cpu_rope_table(float *cosine, float *sine, const float *inv_freq, size_t half, size_t length,
                    float offset, float scale);

typedef struct CpuRope {
    CpuType type;
    size_t batch, heads, length, head_dim; /* x: [batch, heads, length, head_dim] */
    size_t dims;                           /* even, <= head_dim; the rest of a row passes through */
    bool traditional;                      /* pairs (2i, 2i+1) instead of (i, i + dims/2) */
    const void *in;
    void *out;                             /* may be `in` with the same strides */
    ptrdiff_t in_stride[3], out_stride[3]; /* batch, head, position; a row is contiguous */
    const float *cosine, *sine;            /* [length, dims/2], as cpu_rope_table */
    size_t table_stride; /* from one batch entry's table to the next; 0 = shared */
} CpuRope;
void cpu_rope(const CpuRope *rope);

/* ---- quantised weights --------------------------------------------------- */

/* How a code becomes a weight. Affine: w = q * scale + bias. The others keep a
 * byte of scale a group and no bias: w = value(q) * value(scale) * factor. */
typedef enum {
    CPU_AFFINE,
    CPU_MXFP4, /* codes E2M1, scales E8M0, groups of 32 */
    CPU_MXFP8, /* codes E4M3, scales E8M0, groups of 32 */
    CPU_NVFP4, /* codes E2M1, scales E4M3, groups of 16 */
    CPU_QUANT_MODES
} CpuQuantMode;

/* [rows, cols] weights, a row one little-endian bit stream of cols*bits/32
 * words, one scale (and bias) for `group` neighbours of a row. */
typedef struct CpuQuant {
    const uint32_t *words;       /* [rows, cols*bits/32] */
    const void *scales, *biases; /* [rows, cols/group] */
    CpuType type;                /* of affine scales and biases */
    int bits;                    /* 2, 3, 4, 5, 6, 8 */
    int group;                   /* 16, 32, 64, 128 */
    size_t rows, cols;           /* cols a multiple of group */
    CpuQuantMode mode;
    float factor; /* of nvfp4: global scale / 2688, or 1 */
} CpuQuant;

/* Bit for bit what mlx does on the CPU. w: [rows, cols] contiguous of `type`,
 * which is also the type of scales and biases. */
void cpu_quantize(const void *w, CpuType type, size_t rows, size_t cols, int bits, int group,
                  uint32_t *words, void *scales, void *biases);
/* The same for the modes with a byte of scale. *global_scale (nvfp4; NULL
 * without) is the largest magnitude that the scales are to span. */
void cpu_fp_quantize(CpuQuantMode mode, const void *w, CpuType type, size_t rows, size_t cols,
                     const float *global_scale, uint32_t *words, uint8_t *scales);
/* out = what x would be after quantising, as activations are: float32
 * arithmetic, ties to even. x: [rows, cols] contiguous. */
void cpu_fp_round(CpuQuantMode mode, const void *x, CpuType type, size_t rows, size_t cols,
                  const float *global_scale, float *out);
/* E4M3, to nearest even; 448 and above, infinities and NaN become 448. */
uint8_t cpu_fp8_from_f32(float value);
float cpu_f32_from_fp8(uint8_t code);

/* out: [rows, cols] contiguous of out_type, computed in float32 and rounded once.
 * Affine weights whose scales are float32 or of that type round the product too,
 * which is what mlx gives on the CPU, bit for bit. */
void cpu_dequantize(const CpuQuant *weights, CpuType out_type, void *out);
/* `count` rows of the weights from row `first` on. */
CpuQuant cpu_quant_rows(const CpuQuant *weights, size_t first, size_t count);

/* out[i, :] = row indices[i] of the weights; index < rows is the caller's duty. */
void cpu_dequantize_gather(const CpuQuant *weights, const uint32_t *indices, size_t count,
                           CpuType out_type, void *out);

/* y = x * W^T. x: [m, cols] rows x_stride apart, y: [m, rows] rows y_stride
 * apart. Few rows stream the packed weights (activations as integers with a
 * scale a group, 16 bits of them for half types, 24 for float32); many go
 * through the blocked product. */
void cpu_quant_matmul(const CpuQuant *weights, size_t m, const void *x, CpuType x_type,
                      ptrdiff_t x_stride, void *y, CpuType y_type, ptrdiff_t y_stride);
/* y[i] = x * W[i]^T for up to CPU_TOGETHER weights of one mode, width and group
 * and contiguous rows: few rows of x are prepared once and all weights stream in
 * one parallel loop. The values are those of cpu_quant_matmul. */
enum { CPU_TOGETHER = 4 };
enum { CPU_STREAMED_ROWS = 8 }; /* few: more go through the blocked product */
void cpu_quant_matmul_together(const CpuQuant *weights, size_t count, size_t m, const void *x,
                               CpuType x_type, void *const *y, CpuType y_type);

/* ---- matrix product ------------------------------------------------------ */

/* C[m, n] = alpha * A[m, k] * B[k, n] + beta * D[m, n], float32 accumulation.
 * Element (i, j) of A is a[i * a_row + j * a_col]; B, D and C likewise, except
 * that a row of C is contiguous. B is either dense (b) or quantised (quant):
 * with quant_transposed its rows are the n (groups run along k), else its rows
 * are the k (groups run along n). D is absent when add is NULL; add_row = 0
 * makes it a bias. k = 0 gives beta * D. */
typedef struct CpuGemm {
    size_t m, n, k;
    const void *a;
    CpuType a_type;
    ptrdiff_t a_row, a_col;
    const void *b;
    CpuType b_type;
    ptrdiff_t b_row, b_col;
    const CpuQuant *quant;
    bool quant_transposed;
    void *c;
    CpuType c_type;
    ptrdiff_t c_row;
    float alpha; /* 1 for a plain product */
    const void *add;
    CpuType add_type;
    ptrdiff_t add_row, add_col;
    float beta;
} CpuGemm;
/* One product, or a batch of independent ones. A product with few rows and a
 * B that is contiguous one way streams B instead of packing it. */
void cpu_gemm(const CpuGemm *product);
void cpu_gemm_batch(const CpuGemm *products, size_t count);

/* ---- rows times a large vocabulary ----------------------------------------- */

/* The products x [rows, depth] (contiguous) times every word of w, of which only
 * a chunk is there at a time. Item (word, i) of w is w[word * w_word + i *
 * w_depth]; or w is packed, its rows the words. */
typedef struct CpuVocabulary {
    size_t rows, depth, words;
    const void *x;
    CpuType x_type;
    const void *w;
    CpuType w_type;
    ptrdiff_t w_word, w_depth;
    const CpuQuant *quant;   /* instead of w */
    const uint32_t *targets; /* [rows] a word each, below words */
} CpuVocabulary;
/* out: [rows]. mean: [rows, depth], or NULL: the words' mean by their probabilities,
 * which is the gradient of the logsumexp; probabilities are held in x_type. targets are
 * read by the second only: the product with that word. */
void cpu_vocabulary_logsumexp(const CpuVocabulary *job, float *out, float *mean);
void cpu_vocabulary_scores(const CpuVocabulary *job, float *out);

/* Gradients for the cotangents of both, [rows], either may be NULL: zero. dx:
 * [rows, depth] of x_type, dw: [words, depth] of w_type; NULL: not wanted. With the
 * mean dx alone is made, and no product; else the products' gradient is held in
 * x_type. */
typedef struct CpuVocabularyGrad {
    const float *logsumexp, *g_logsumexp, *g_score, *mean;
    void *dx, *dw;
} CpuVocabularyGrad;
void cpu_vocabulary_grad(const CpuVocabulary *job, const CpuVocabularyGrad *grad);

/* ---- convolution ---------------------------------------------------------- */

/* Output o reads the input, dilated, at o * stride + k * kernel_dilation - pad
 * for item k of the kernel; what falls outside or between is zero. */
typedef struct CpuConvAxis {
    size_t in, kernel, out;
    ptrdiff_t stride, kernel_dilation, input_dilation; /* at least 1 */
    ptrdiff_t pad;                                     /* may be negative */
} CpuConvAxis;

/* All arrays are row major; axes that do not exist have sizes of 1. */
typedef struct CpuConv {
    CpuType type; /* of in, weight and out */
    size_t batch, channels, features, groups;
    CpuConvAxis axis[3];
    bool flip;          /* the kernel runs backwards */
    const void *in;     /* [batch, in..., channels] */
    const void *weight; /* [features, kernel..., channels / groups] */
    void *out;          /* [batch, out..., features] */
} CpuConv;
void cpu_conv(const CpuConv *conv);
/* The gradient of the weights when g is that of out; conv's weight and out are
 * not looked at. g: [batch, out..., features], weight as in CpuConv. */
void cpu_conv_weight(const CpuConv *conv, const void *g, void *weight);
/* The same in float64; type is not looked at. */
void cpu_conv_f64(const CpuConv *conv);
void cpu_conv_weight_f64(const CpuConv *conv, const double *g, double *weight);

/* ---- Hadamard transform --------------------------------------------------- */

/* n = m * 2^k with m = 1, 12, 20 or 28 and k <= 26? */
bool cpu_hadamard_length_ok(size_t n);
/* x [n] becomes scale * H x (or H^T x), n a good length. */
void cpu_hadamard_f32(float *x, size_t n, float scale, bool transposed);
void cpu_hadamard_f64(double *x, size_t n, double scale, bool transposed);

/* ---- attention ----------------------------------------------------------- */

typedef enum { CPU_MASK_NONE, CPU_MASK_BOOL, CPU_MASK_ADDITIVE } CpuMask;

/* softmax(scale * q * k^T + mask) * v, streaming: extra memory does not grow
 * with the lengths. Query head h reads key head h / (q_heads / kv_heads).
 * causal: query i sees key j when j <= i + (kv_len - q_len). A bool mask keeps
 * where it is true (bytes); a row masked everywhere averages v, as mlx does. */
typedef struct CpuAttention {
    CpuType type; /* of q, k, v and out */
    size_t batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim;
    const void *q, *k, *v;
    void *out;
    ptrdiff_t q_stride[3], k_stride[3], v_stride[3], out_stride[3]; /* batch, head, row */
    float scale;
    bool causal;
    CpuMask mask_kind;
    const void *mask;  /* [batch, q_heads, q_len, kv_len] through mask_stride */
    CpuType mask_type; /* of an additive mask */
    ptrdiff_t mask_stride[4];
    const float *sinks; /* [q_heads] extra logits in the denominator, or NULL */
} CpuAttention;
void cpu_attention(const CpuAttention *attention);

/* Gradients for the cotangent g of out, which is not read. Results that are NULL
 * are not wanted. Extra memory grows with kv_len, not with its square. */
typedef struct CpuAttentionGrad {
    CpuAttention forward;
    const void *g;
    void *dq, *dk, *dv; /* in the shapes and the type of q, k, v; rows contiguous */
    ptrdiff_t g_stride[3], dq_stride[3], dk_stride[3], dv_stride[3];
    float *dsinks; /* [q_heads] */
} CpuAttentionGrad;
void cpu_attention_grad(const CpuAttentionGrad *job);

#endif
