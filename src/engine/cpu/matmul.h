/* matmul: what the dense and the quantised product share. */
#ifndef ENGINE_CPU_MATMUL_H
#define ENGINE_CPU_MATMUL_H

#include "cpu/table.h"

/* Runs a product with quantised weights [n, k] by the integer kernels; false
 * when this processor or this size is better served by dequantised panels. */
bool cpu_quant_product(const CpuGemm *product);

/* Rows of A [m, k] as contiguous float32. */
void cpu_gemm_widen(const CpuGemm *product, float *out);

/* values [n], the product's row `row` from column n0 on, to C: alpha, D, type.
 * values may be C itself. */
void cpu_gemm_finish_row(const CpuGemm *product, size_t row, size_t n0, size_t n, float *values);

#endif
