/* matmul: what the dense and the quantised product share. */
#ifndef ENGINE_CPU_MATMUL_H
#define ENGINE_CPU_MATMUL_H

#include "cpu/table.h"

static inline size_t cpu_pieces(size_t count, size_t size) {
    return (count + size - 1) / size;
}

/* C cut into tasks, a strip of columns of a part of the rows each: strips narrow
 * enough, and if those are few parts small enough, that every thread has some. */
typedef struct GemmTasks {
    size_t strip_n, strips, part_m, parts;
} GemmTasks;
/* A tile is [mr, nr]; a strip is at most most_n wide. */
GemmTasks cpu_gemm_tasks(size_t m, size_t n, size_t mr, size_t nr, size_t most_n);

/* Run a product with quantised weights [n, k]: of few rows of x, which stream the
 * packed words; of some more, where there is no matrix unit; of many, by tiles of
 * pairs. False when it is none, when this processor or size is better served
 * otherwise, or when an x is not finite. */
bool cpu_quant_streams(const CpuGemm *product);
bool cpu_quant_streams_more(const CpuGemm *product);
bool cpu_quant_pairs(const CpuGemm *product);

/* One operand of a product: A with outer = m, B with outer = n; inner is k. */
typedef struct GemmSide {
    const char *data;
    CpuType type;
    ptrdiff_t outer, inner;
    const CpuQuant *quant; /* instead of data */
    bool quant_transposed; /* its rows are the outer dimension */
} GemmSide;
GemmSide cpu_gemm_a(const CpuGemm *product);
GemmSide cpu_gemm_b(const CpuGemm *product);

/* Items first.. (`count` of the outer dimension), k0..k0+kb, as float32 panel
 * [kb][width]; from `count` on zero. kb is at most 256 where quantised. */
void cpu_gemm_pack(const GemmSide *side, size_t first, size_t count, size_t k0, size_t kb,
                   size_t width, float *out);

/* Rows first.. (`count`) of quantised weights, elements k0..k0+kb of each, as
 * float32 [count, kb]. k0 is a multiple of every group; kb is at most 256. */
void cpu_gemm_dequantize(const CpuQuant *weights, size_t first, size_t count, size_t k0, size_t kb,
                         float *out);

/* Runs a product by the matrix unit; false when there is none, when it does not
 * pay, or when a number is too large for it: C may then be partly written. */
bool cpu_gemm_split(const CpuGemm *product);

/* Rows of A [m, k], or one of them, as contiguous float32. */
void cpu_gemm_widen(const CpuGemm *product, float *out);
void cpu_gemm_widen_row(const CpuGemm *product, size_t row, float *out);

/* values [n], the product's row `row` from column n0 on, to C: alpha, D, type.
 * values may be C itself. */
void cpu_gemm_finish_row(const CpuGemm *product, size_t row, size_t n0, size_t n, float *values);

#endif
