/* Weights of few bits (mlx affine): quantize, dequantize, quantized_matmul.
 * Layout and rounding belong to the CPU kernels; here stand the checks, the
 * batches and the result dtypes. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <string.h>

typedef struct QuantParam {
    int bits, group;
    bool transpose;
} QuantParam;

enum { QUANT_BITS = 4, QUANT_GROUP = 64, PART_ALIGN = 64 }; /* the defaults of MLX */

/* Checks mode, bits and group. */
static bool quant_settings(const char *op, const char *mode, mlx_optional_int group_size,
                           mlx_optional_int bits, QuantParam *param) {
    param->bits = bits.has_value ? bits.value : QUANT_BITS;
    param->group = group_size.has_value ? group_size.value : QUANT_GROUP;
    param->transpose = false;
    if (!mode || strcmp(mode, "affine") != 0) {
        op_error("[%s] Mode \"%s\" is not supported, only \"affine\" is.", op, mode ? mode : "");
        return false;
    }
    const int b = param->bits, g = param->group;
    if (b < 2 || b > 8 || b == 7) {
        op_error("[%s] The requested number of bits %d is not supported. The supported bits are 2, "
                 "3, 4, 5, 6 and 8.",
                 op, b);
        return false;
    }
    if (g != 32 && g != 64 && g != 128) {
        op_error("[%s] The requested group size %d is not supported. The supported group sizes are "
                 "32, 64 and 128.",
                 op, g);
        return false;
    }
    return true;
}

/* Checks packed weights with their scales and biases; *columns is the width of
 * a row when unpacked. */
static bool quant_weights(const char *op, const Node *w, const Node *scales, const Node *biases,
                          const QuantParam *param, int *columns) {
    CpuType type;
    if (!w || !scales) return false;
    if (!biases) {
        op_error("[%s] Biases must be provided for affine quantization.", op);
        return false;
    }
    if (w->dtype != MLX_UINT32) {
        op_error("[%s] The weight matrix should be uint32 but received %s.", op,
                 dtype_name(w->dtype));
        return false;
    }
    if (!ops_cpu_type(scales->dtype, &type) || !ops_cpu_type(biases->dtype, &type)) {
        op_error("[%s] Scales and biases must be float32, float16 or bfloat16, got %s and %s.", op,
                 dtype_name(scales->dtype), dtype_name(biases->dtype));
        return false;
    }
    bool fits = w->ndim >= 1 && scales->ndim == w->ndim && shape_equal(scales, biases);
    for (int i = 0; fits && i < w->ndim - 1; i++) fits = w->shape[i] == scales->shape[i];
    if (fits) {
        const int64_t width = (int64_t)w->shape[w->ndim - 1] * 32 / param->bits;
        const int64_t groups = scales->shape[w->ndim - 1];
        fits = width == groups * param->group &&
               (int64_t)w->shape[w->ndim - 1] * 32 == width * param->bits && width <= INT32_MAX;
        *columns = (int)width;
    }
    if (!fits)
        op_error("[%s] The shapes of the weight %s, scales %s and biases %s do not belong together "
                 "with %d bits and groups of %d.",
                 op, SHAPE(w), SHAPE(scales), SHAPE(biases), param->bits, param->group);
    return fits;
}

/* ---- quantize ------------------------------------------------------------------------ */

/* The node holds words, scales and biases one after the other, padded to
 * PART_ALIGN bytes each. */
typedef struct QuantizeSizes {
    size_t rows, columns, words_bytes, scales_bytes;
} QuantizeSizes;

static size_t padded(size_t bytes) {
    return (bytes + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
}

static QuantizeSizes quantize_sizes(const Node *w, const QuantParam *param) {
    QuantizeSizes sizes;
    sizes.columns = (size_t)w->shape[w->ndim - 1];
    sizes.rows = sizes.columns ? w->size / sizes.columns : 0;
    sizes.words_bytes = padded(w->size * (size_t)param->bits / 8);
    sizes.scales_bytes = padded(w->size / (size_t)param->group * w->itemsize);
    return sizes;
}

static bool quantize_eval(Node *node, Error *err) {
    const QuantParam *param = node->param;
    const QuantizeSizes sizes = quantize_sizes(node->inputs[0], param);
    CpuType type = CPU_F32;
    Node *w = ready_row_contiguous(node->inputs[0], err);
    const bool ok = w && node_alloc(node, err) && ops_cpu_type(w->dtype, &type);
    if (ok && w->size) {
        uint8_t *out = node_data(node);
        cpu_quantize(node_data(w), type, sizes.rows, sizes.columns, param->bits, param->group,
                     (uint32_t *)(void *)out, out + sizes.words_bytes,
                     out + sizes.words_bytes + sizes.scales_bytes);
    }
    node_release(w);
    return ok;
}
static const Op quantize_op = {"quantize", quantize_eval, NULL};

int mlx_quantize(mlx_vector_array *res, const mlx_array w, mlx_optional_int group_size,
                 mlx_optional_int bits, const char *mode, const mlx_array global_scale,
                 const mlx_stream s) {
    QuantParam param;
    CpuType type;
    if (!stream_ok(s)) return 1;
    Node *weights = node_of(w);
    if (!weights || !quant_settings("quantize", mode, group_size, bits, &param)) return 1;
    if (node_of_optional(global_scale)) {
        op_error("[quantize] Affine quantization takes no global scale.");
        return 1;
    }
    if (!ops_cpu_type(weights->dtype, &type)) {
        op_error("[quantize] Only float32, float16 and bfloat16 can be quantized, got %s.",
                 dtype_name(weights->dtype));
        return 1;
    }
    if (weights->ndim < 2 || weights->shape[weights->ndim - 1] % param.group) {
        op_error("[quantize] The matrix must have at least 2 dimensions and a last dimension "
                 "divisible by the group size %d, got %s.",
                 param.group, SHAPE(weights));
        return 1;
    }
    const QuantizeSizes sizes = quantize_sizes(weights, &param);
    const size_t items = (sizes.words_bytes + 2 * sizes.scales_bytes) / 4;
    if (items > INT32_MAX) {
        op_error("[quantize] The matrix %s is too large.", SHAPE(weights));
        return 1;
    }
    const int whole_shape = (int)items;
    Node *whole = node_new_param(&quantize_op, MLX_UINT32, &whole_shape, 1, &param, sizeof param,
                                 NODES(weights));
    int shape[NODE_DIMS], group_shape[NODE_DIMS];
    memcpy(shape, weights->shape, sizeof shape);
    memcpy(group_shape, weights->shape, sizeof group_shape);
    const int last = weights->ndim - 1;
    shape[last] = (int)((int64_t)shape[last] * param.bits / 32);
    group_shape[last] /= param.group;
    const mlx_dtype dtype = weights->dtype;
    Node *parts[3] = {NULL, NULL, NULL};
    if (whole) {
        parts[0] = node_part(whole, 0, MLX_UINT32, shape, weights->ndim);
        parts[1] = node_part(whole, sizes.words_bytes, dtype, group_shape, weights->ndim);
        parts[2] = node_part(whole, sizes.words_bytes + sizes.scales_bytes, dtype, group_shape,
                             weights->ndim);
    }
    node_release(whole);
    return op_finish_vector(res, parts, 3);
}

/* ---- dequantize ------------------------------------------------------------------------- */

/* Three ready arrays as the kernels want them. Holds references. */
typedef struct ReadyQuant {
    Node *w, *scales, *biases;
    CpuQuant quant; /* of the first matrix of a batch */
} ReadyQuant;

static void quant_release(ReadyQuant *ready) {
    node_release(ready->w);
    node_release(ready->scales);
    node_release(ready->biases);
}

static bool quant_ready(ReadyQuant *ready, Node *const *inputs, const QuantParam *param,
                        Error *err) {
    ready->w = ready_row_contiguous(inputs[0], err);
    ready->scales = ready->w ? ready_row_contiguous(inputs[1], err) : NULL;
    ready->biases = ready->scales ? ready_row_contiguous(inputs[2], err) : NULL;
    if (!ready->biases) {
        quant_release(ready);
        return false;
    }
    const Node *w = ready->w;
    ready->quant = (CpuQuant){.words = node_data(w),
                              .scales = node_data(ready->scales),
                              .biases = node_data(ready->biases),
                              .bits = param->bits,
                              .group = param->group,
                              .rows = w->ndim > 1 ? (size_t)w->shape[w->ndim - 2] : 1,
                              .cols = (size_t)w->shape[w->ndim - 1] * 32 / (size_t)param->bits};
    return ops_cpu_type(ready->scales->dtype, &ready->quant.type);
}

static bool dequantize_eval(Node *node, Error *err) {
    ReadyQuant ready;
    CpuType type;
    if (!quant_ready(&ready, node->inputs, node->param, err)) return false;
    const bool ok = node_alloc(node, err) && ops_cpu_type(node->dtype, &type);
    if (ok && node->size) {
        ready.quant.rows = node->size / ready.quant.cols;
        cpu_dequantize(&ready.quant, type, node_data(node));
    }
    quant_release(&ready);
    return ok;
}
static const Op dequantize_op = {"dequantize", dequantize_eval, NULL};

/* Scales and biases in one dtype. */
static void same_dtype(Node *scales, Node *biases, Node **scales_out, Node **biases_out) {
    const mlx_dtype dtype = dtype_promote(scales->dtype, biases->dtype);
    *scales_out = op_astype(scales, dtype);
    *biases_out = op_astype(biases, dtype);
}

int mlx_dequantize(mlx_array *res, const mlx_array w, const mlx_array scales,
                   const mlx_array biases, mlx_optional_int group_size, mlx_optional_int bits,
                   const char *mode, const mlx_array global_scale, mlx_optional_dtype dtype,
                   const mlx_stream s) {
    QuantParam param;
    CpuType type;
    int columns;
    if (!stream_ok(s) || !quant_settings("dequantize", mode, group_size, bits, &param)) return 1;
    Node *words = node_of(w), *factors = words ? node_of(scales) : NULL;
    Node *shifts = node_of_optional(biases);
    if (node_of_optional(global_scale)) {
        op_error("[dequantize] Affine quantization takes no global scale.");
        return 1;
    }
    if (!quant_weights("dequantize", words, factors, shifts, &param, &columns)) return 1;
    const mlx_dtype out =
        dtype.has_value ? dtype.value : dtype_promote(factors->dtype, shifts->dtype);
    if (!dtype_valid(out) || !ops_cpu_type(out, &type)) {
        op_error("[dequantize] The result must be float32, float16 or bfloat16.");
        return 1;
    }
    int shape[NODE_DIMS];
    memcpy(shape, words->shape, sizeof shape);
    shape[words->ndim - 1] = columns;
    same_dtype(factors, shifts, &factors, &shifts);
    Node *result = node_new_param(&dequantize_op, out, shape, words->ndim, &param, sizeof param,
                                  NODES(words, factors, shifts));
    node_release(factors);
    node_release(shifts);
    return op_finish(res, result);
}

/* ---- quantized_matmul ----------------------------------------------------------------------- */

static void multiply_one(const CpuQuant *quant, bool transpose, size_t m, const void *x,
                         CpuType x_type, ptrdiff_t x_stride, void *y, CpuType y_type) {
    if (transpose) {
        cpu_quant_matmul(quant, m, x, x_type, x_stride, y, y_type, (ptrdiff_t)quant->rows);
        return;
    }
    cpu_gemm(&(CpuGemm){.m = m,
                        .n = quant->cols,
                        .k = quant->rows,
                        .a = x,
                        .a_type = x_type,
                        .a_row = x_stride,
                        .a_col = 1,
                        .quant = quant,
                        .quant_transposed = false,
                        .c = y,
                        .c_type = y_type,
                        .c_row = (ptrdiff_t)quant->cols,
                        .alpha = 1});
}

/* Strides over the batch axes of a product, counted in whole matrices of x. */
static void batch_strides(const Node *x, const int *shape, int ndim, int64_t *out) {
    const int added = ndim - (x->ndim - 2);
    int64_t step = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        const int own = i < added ? 1 : x->shape[i - added];
        out[i] = own == 1 && shape[i] != 1 ? 0 : step;
        step *= own;
    }
}

static void multiply_batch(Node *node, const ReadyQuant *ready, const Node *x, CpuType x_type,
                           CpuType y_type, bool transpose) {
    const Node *w = ready->w;
    const int batch_ndim = node->ndim - 2;
    const int64_t m = x->shape[x->ndim - 2], k = x->shape[x->ndim - 1];
    const int64_t n = node->shape[node->ndim - 1];
    const size_t words = ready->quant.rows * (size_t)w->shape[w->ndim - 1];
    const size_t scale_bytes = ready->quant.rows * ready->quant.cols / (size_t)ready->quant.group *
                               ready->scales->itemsize;
    int64_t strides[3][NODE_DIMS];
    batch_strides(node, node->shape, batch_ndim, strides[0]);
    batch_strides(x, node->shape, batch_ndim, strides[1]);
    batch_strides(w, node->shape, batch_ndim, strides[2]);
    Walk walk;
    walk_init(&walk, node->shape, batch_ndim, 3,
              (const int64_t *[]){strides[0], strides[1], strides[2]});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        for (int64_t i = 0; i < walk.count; i++) {
            const size_t which = (size_t)(walk.at[2] + i * walk.step[2]);
            CpuQuant quant = ready->quant;
            quant.words += which * words;
            quant.scales = (const uint8_t *)quant.scales + which * scale_bytes;
            quant.biases = (const uint8_t *)quant.biases + which * scale_bytes;
            multiply_one(&quant, transpose, (size_t)m,
                         ops_at(x, (walk.at[1] + i * walk.step[1]) * m * k), x_type, (ptrdiff_t)k,
                         ops_at(node, (walk.at[0] + i * walk.step[0]) * m * n), y_type);
        }
    }
}

/* inputs: w, scales, biases, x; x has at least two axes. */
static bool quantized_matmul_eval(Node *node, Error *err) {
    const QuantParam *param = node->param;
    ReadyQuant ready;
    if (!quant_ready(&ready, node->inputs, param, err)) return false;
    Node *x = ready_row_contiguous(node->inputs[3], err);
    CpuType x_type, y_type;
    const bool ok = x && node_alloc(node, err) && ops_cpu_type(x->dtype, &x_type) &&
                    ops_cpu_type(node->dtype, &y_type);
    if (ok && node->size) {
        const size_t rows = node->size / (size_t)node->shape[node->ndim - 1];
        const size_t k = (size_t)x->shape[x->ndim - 1];
        bool shared = x->size == rows * k; /* one matrix for the whole batch */
        for (int i = 0; i < ready.w->ndim - 2; i++) shared = shared && ready.w->shape[i] == 1;
        if (shared)
            multiply_one(&ready.quant, param->transpose, rows, node_data(x), x_type, (ptrdiff_t)k,
                         node_data(node), y_type);
        else
            multiply_batch(node, &ready, x, x_type, y_type, param->transpose);
    }
    node_release(x);
    quant_release(&ready);
    return ok;
}
static const Op quantized_matmul_op = {"quantized_matmul", quantized_matmul_eval, NULL};

static Node *op_quantized_matmul(Node *x, Node *w, Node *scales, Node *biases, QuantParam param) {
    int columns, shape[NODE_DIMS], ndim;
    CpuType type;
    if (!x || !quant_weights("quantized_matmul", w, scales, biases, &param, &columns)) return NULL;
    if (x->ndim == 0 || w->ndim < 2)
        return op_error("[quantized_matmul] x must have at least 1 axis and w 2, got %s and %s.",
                        SHAPE(x), SHAPE(w));
    const int rows = w->shape[w->ndim - 2];
    const int inner = param.transpose ? columns : rows, outer = param.transpose ? rows : columns;
    if (x->shape[x->ndim - 1] != inner)
        return op_error("[quantized_matmul] Last dimension of first input with shape %s does not "
                        "match the expanded quantized matrix (%d, %d) computed from shape %s with "
                        "group_size=%d, bits=%d and transpose=%s.",
                        SHAPE(x), inner, outer, SHAPE(w), param.group, param.bits,
                        param.transpose ? "true" : "false");
    const mlx_dtype dtype = dtype_promote(x->dtype, dtype_promote(scales->dtype, biases->dtype));
    if (!ops_cpu_type(dtype, &type))
        return op_error("[quantized_matmul] Only float32, float16 and bfloat16 results are "
                        "supported, not %s.",
                        dtype_name(dtype));
    const int front = 0;
    Node *matrix = x->ndim == 1 ? op_expand_dims(x, &front, 1) : node_retain(x);
    Node *result = NULL;
    if (matrix &&
        shape_broadcast(matrix->shape, matrix->ndim - 2, w->shape, w->ndim - 2, shape, &ndim)) {
        shape[ndim++] = matrix->shape[matrix->ndim - 2];
        shape[ndim++] = outer;
        Node *factors, *shifts;
        same_dtype(scales, biases, &factors, &shifts);
        /* The kernels read x in its own type; integers become the result's. */
        Node *input = op_astype(matrix, ops_cpu_type(x->dtype, &type) ? x->dtype : dtype);
        result = node_new_param(&quantized_matmul_op, dtype, shape, ndim, &param, sizeof param,
                                NODES(w, factors, shifts, input));
        node_release(factors);
        node_release(shifts);
        node_release(input);
    }
    node_release(matrix);
    if (result && x->ndim == 1) {
        const int row = result->ndim - 2;
        Node *squeezed = op_squeeze(result, &row, 1);
        node_release(result);
        return squeezed;
    }
    return result;
}

int mlx_quantized_matmul(mlx_array *res, const mlx_array x, const mlx_array w,
                         const mlx_array scales, const mlx_array biases, bool transpose,
                         mlx_optional_int group_size, mlx_optional_int bits, const char *mode,
                         const mlx_stream s) {
    QuantParam param;
    if (!stream_ok(s) || !quant_settings("quantized_matmul", mode, group_size, bits, &param))
        return 1;
    param.transpose = transpose;
    return op_finish(res, op_quantized_matmul(node_of(x), node_of(w), node_of(scales),
                                              node_of_optional(biases), param));
}
