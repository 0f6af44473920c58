/* quant: what the operations on weights of few bits share: their settings, the
 * checks of packed arrays, and packed arrays as the kernels want them. */
#ifndef ENGINE_OPS_QUANT_H
#define ENGINE_OPS_QUANT_H

#include "engine/ops/ops.h"

typedef struct QuantParam {
    CpuQuantMode mode;
    int bits, group;
    bool transpose; /* of a product: x @ w.T */
} QuantParam;

/* Checks mode, bits and group, and puts the mode's own where none is given. */
bool quant_settings(const char *op, const char *mode, mlx_optional_int group_size,
                    mlx_optional_int bits, QuantParam *param);
const char *quant_mode_name(CpuQuantMode mode);
/* global_scale may be NULL; otherwise one float32, for nvfp4 only. */
bool quant_global_ok(const char *op, const Node *global_scale, CpuQuantMode mode);

/* Checks packed weights with their scales and biases (NULL except for affine);
 * *columns is the width of a row when unpacked. */
bool quant_weights(const char *op, const Node *w, const Node *scales, const Node *biases,
                   const QuantParam *param, int *columns);

/* The same and x [..., inner] of a product; *outer is the width of its rows and
 * *dtype that of the result. */
bool quant_operands(const char *op, const Node *x, const Node *w, const Node *scales,
                    const Node *biases, const QuantParam *param, int *outer, mlx_dtype *dtype);

/* The inputs of an operation: words, scales and, affine, biases of one dtype;
 * released by quant_inputs_release. Returns how many. */
int quant_inputs(Node *w, Node *scales, Node *biases, Node **inputs);
void quant_inputs_release(Node *const *inputs, int count);
static inline int quant_input_count(const QuantParam *param) {
    return param->mode == CPU_AFFINE ? 3 : 2;
}

/* Those inputs, ready, as the kernels want them. Holds references. */
typedef struct ReadyQuant {
    Node *w, *scales, *biases;
    CpuQuant quant; /* of the first matrix of a batch */
} ReadyQuant;
bool quant_ready(ReadyQuant *ready, Node *const *inputs, const QuantParam *param, Error *err);
void quant_release(ReadyQuant *ready);
/* Matrix number `which` of a batch. */
CpuQuant quant_matrix(const ReadyQuant *ready, size_t which);

/* y [m, outer] = x [m, inner] @ w.T or w, rows of both contiguous. */
void quant_multiply(const CpuQuant *quant, bool transpose, size_t m, const void *x, CpuType x_type,
                    void *y, CpuType y_type);

/* Gradients of the packed arrays inputs[0..] by one rule: none for the words, and
 * for scales and biases (affine) from dw, that of the weights unpacked. */
bool quant_differentiable(const char *op, const QuantParam *param, const bool *wanted);
bool quant_scale_grads(Node *dw, Node *const *inputs, const QuantParam *param, const bool *wanted,
                       Node **grads);
/* The codes themselves, float32: the unpacked weights of scale 1 and bias 0. */
Node *op_quant_codes(Node *w, Node *scales, const QuantParam *param);

/* biases and global_scale may be NULL. */
Node *op_dequantize(Node *w, Node *scales, Node *biases, const QuantParam *param,
                    Node *global_scale, mlx_dtype dtype);
Node *op_quantized_matmul(Node *x, Node *w, Node *scales, Node *biases, QuantParam param);
/* Either list of indices may be NULL: every matrix in turn. */
Node *op_gather_qmm(Node *x, Node *w, Node *scales, Node *biases, Node *lhs_indices,
                    Node *rhs_indices, QuantParam param);

#endif
