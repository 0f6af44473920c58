/* Weights of few bits: the table of modes, the checks that every operation on
 * packed arrays makes, and the view of packed arrays that the kernels take. */
#include "engine/ops/quant.h"

#include <string.h>

/* The modes of MLX with their bits and group, which are affine's default and
 * the others' only choice. */
static const struct {
    const char *name;
    int bits, group;
} modes[CPU_QUANT_MODES] = {
    [CPU_AFFINE] = {"affine", 4, 64},
    [CPU_MXFP4] = {"mxfp4", 4, 32},
    [CPU_MXFP8] = {"mxfp8", 8, 32},
    [CPU_NVFP4] = {"nvfp4", 4, 16},
};

const char *quant_mode_name(CpuQuantMode mode) {
    return modes[mode].name;
}

static bool affine_settings(const char *op, int bits, int group) {
    if (group != 32 && group != 64 && group != 128) {
        op_error("[%s] The requested group size %d is not supported. The supported group sizes are "
                 "32, 64, and 128.",
                 op, group);
        return false;
    }
    if (bits < 2 || bits > 8 || bits == 7) {
        op_error("[%s] The requested number of bits %d is not supported. The supported bits are 2, "
                 "3, 4, 5, 6 and 8.",
                 op, bits);
        return false;
    }
    return true;
}

bool quant_settings(const char *op, const char *mode, mlx_optional_int group_size,
                    mlx_optional_int bits, QuantParam *param) {
    int m = 0;
    while (m < CPU_QUANT_MODES && (!mode || strcmp(mode, modes[m].name) != 0)) m++;
    if (m == CPU_QUANT_MODES) {
        op_error("[%s] Invalid quantization mode '%.32s'. The modes are affine, mxfp4, mxfp8 and "
                 "nvfp4.",
                 op, mode ? mode : "");
        return false;
    }
    *param = (QuantParam){.mode = (CpuQuantMode)m,
                          .bits = bits.has_value ? bits.value : modes[m].bits,
                          .group = group_size.has_value ? group_size.value : modes[m].group};
    if (param->mode == CPU_AFFINE) return affine_settings(op, param->bits, param->group);
    if (param->group != modes[m].group) {
        op_error("[%s] %s quantization requires group size %d but got %d.", op, modes[m].name,
                 modes[m].group, param->group);
        return false;
    }
    if (param->bits != modes[m].bits) {
        op_error("[%s] %s quantization requires bits to be %d but got %d.", op, modes[m].name,
                 modes[m].bits, param->bits);
        return false;
    }
    return true;
}

bool quant_global_ok(const char *op, const Node *global_scale, CpuQuantMode mode) {
    if (!global_scale) return true;
    if (mode != CPU_NVFP4)
        op_error("[%s] Global scale is only supported for 'nvfp4' quantization mode.", op);
    else if (global_scale->size != 1)
        op_error("[%s] Global scale must be a scalar but got shape %s.", op, SHAPE(global_scale));
    else if (global_scale->dtype != MLX_FLOAT32)
        op_error("[%s] Global scale must have dtype float32 but got %s.", op,
                 dtype_name(global_scale->dtype));
    else
        return true;
    return false;
}

static bool scales_ok(const char *op, const Node *scales, const Node *biases, CpuQuantMode mode) {
    CpuType type;
    if (mode == CPU_AFFINE && !biases)
        op_error("[%s] Biases must be provided for affine quantization.", op);
    else if (mode == CPU_AFFINE &&
             (!ops_cpu_type(scales->dtype, &type) || !ops_cpu_type(biases->dtype, &type)))
        op_error("[%s] Only float32, float16 and bfloat16 are supported but scales.dtype() == %s "
                 "and biases.dtype() == %s.",
                 op, dtype_name(scales->dtype), dtype_name(biases->dtype));
    else if (mode != CPU_AFFINE && scales->dtype != MLX_UINT8)
        op_error("[%s] Scale type must be uint8 but received type %s.", op,
                 dtype_name(scales->dtype));
    else if (mode != CPU_AFFINE && biases)
        op_error("[%s] Biases must be null for quantization mode '%s'.", op, modes[mode].name);
    else
        return true;
    return false;
}

bool quant_weights(const char *op, const Node *w, const Node *scales, const Node *biases,
                   const QuantParam *param, int *columns) {
    if (!w || !scales || !scales_ok(op, scales, biases, param->mode)) return false;
    if (w->dtype != MLX_UINT32) {
        op_error("[%s] The weight matrix should be uint32 but received %s.", op,
                 dtype_name(w->dtype));
        return false;
    }
    if (biases && !shape_equal(scales, biases)) {
        op_error("[%s] Scales and biases should have the same shape. Received scales with shape %s "
                 "and biases with %s.",
                 op, SHAPE(scales), SHAPE(biases));
        return false;
    }
    bool fits = w->ndim >= 1 && scales->ndim == w->ndim;
    for (int i = 0; fits && i < w->ndim - 1; i++) fits = w->shape[i] == scales->shape[i];
    if (fits) {
        const int64_t words = w->shape[w->ndim - 1], width = words * 32 / param->bits;
        fits = width == (int64_t)scales->shape[w->ndim - 1] * param->group &&
               words * 32 == width * param->bits && width <= INT32_MAX;
        *columns = (int)width;
    }
    if (!fits)
        op_error("[%s] The shapes of the weight %s and scales %s are incompatible based on bits "
                 "and group_size, with group_size=%d and bits=%d.",
                 op, SHAPE(w), SHAPE(scales), param->group, param->bits);
    return fits;
}

bool quant_operands(const char *op, const Node *x, const Node *w, const Node *scales,
                    const Node *biases, const QuantParam *param, int *outer, mlx_dtype *dtype) {
    CpuType type;
    int columns;
    if (!x || !quant_weights(op, w, scales, biases, param, &columns)) return false;
    if (x->ndim == 0 || w->ndim < 2) {
        op_error("[%s] x must have at least 1 axis and w 2, got %s and %s.", op, SHAPE(x),
                 SHAPE(w));
        return false;
    }
    const int rows = w->shape[w->ndim - 2], inner = param->transpose ? columns : rows;
    *outer = param->transpose ? rows : columns;
    if (x->shape[x->ndim - 1] != inner) {
        op_error("[%s] Last dimension of first input with shape %s does not match the expanded "
                 "quantized matrix (%d, %d) computed from shape %s with group_size=%d, bits=%d and "
                 "transpose=%s.",
                 op, SHAPE(x), inner, *outer, SHAPE(w), param->group, param->bits,
                 param->transpose ? "true" : "false");
        return false;
    }
    *dtype = x->dtype;
    if (biases) *dtype = dtype_promote(x->dtype, dtype_promote(scales->dtype, biases->dtype));
    if (ops_cpu_type(*dtype, &type)) return true;
    op_error("[%s] Only float32, float16 and bfloat16 are supported but x.dtype() == %s.", op,
             dtype_name(x->dtype));
    return false;
}

/* ---- inputs ----------------------------------------------------------------------------- */

int quant_inputs(Node *w, Node *scales, Node *biases, Node **inputs) {
    inputs[0] = node_retain(w);
    if (!biases) {
        inputs[1] = node_retain(scales);
        return 2;
    }
    const mlx_dtype dtype = dtype_promote(scales->dtype, biases->dtype);
    inputs[1] = op_astype(scales, dtype);
    inputs[2] = op_astype(biases, dtype);
    return 3;
}

void quant_inputs_release(Node *const *inputs, int count) {
    for (int i = 0; i < count; i++) node_release(inputs[i]);
}

void quant_release(ReadyQuant *ready) {
    node_release(ready->w);
    node_release(ready->scales);
    node_release(ready->biases);
}

bool quant_ready(ReadyQuant *ready, Node *const *inputs, const QuantParam *param, Error *err) {
    const bool affine = param->mode == CPU_AFFINE;
    *ready = (ReadyQuant){0};
    ready->w = ready_row_contiguous(inputs[0], err);
    ready->scales = ready->w ? ready_row_contiguous(inputs[1], err) : NULL;
    if (affine && ready->scales) ready->biases = ready_row_contiguous(inputs[2], err);
    if (!ready->scales || (affine && !ready->biases)) {
        quant_release(ready);
        return false;
    }
    const Node *w = ready->w;
    ready->quant = (CpuQuant){.words = node_data(w),
                              .scales = node_data(ready->scales),
                              .biases = affine ? node_data(ready->biases) : NULL,
                              .bits = param->bits,
                              .group = param->group,
                              .rows = w->ndim > 1 ? (size_t)w->shape[w->ndim - 2] : 1,
                              .cols = (size_t)w->shape[w->ndim - 1] * 32 / (size_t)param->bits,
                              .mode = param->mode,
                              .factor = 1};
    return !affine || ops_cpu_type(ready->scales->dtype, &ready->quant.type);
}

CpuQuant quant_matrix(const ReadyQuant *ready, size_t which) {
    return cpu_quant_rows(&ready->quant, which * ready->quant.rows, ready->quant.rows);
}

void quant_multiply(const CpuQuant *quant, bool transpose, size_t m, const void *x, CpuType x_type,
                    void *y, CpuType y_type) {
    const size_t inner = transpose ? quant->cols : quant->rows;
    const size_t outer = transpose ? quant->rows : quant->cols;
    cpu_gemm(&(CpuGemm){.m = m,
                        .n = outer,
                        .k = inner,
                        .a = x,
                        .a_type = x_type,
                        .a_row = (ptrdiff_t)inner,
                        .a_col = 1,
                        .quant = quant,
                        .quant_transposed = transpose,
                        .c = y,
                        .c_type = y_type,
                        .c_row = (ptrdiff_t)outer,
                        .alpha = 1});
}
