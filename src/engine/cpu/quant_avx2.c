/* Quantised products for AVX2; the code is quant_kernels.h. */
#include "cpu/quant_kernels.h"
