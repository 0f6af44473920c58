/* Quantised products for AVX-512 BW; the code is quant_kernels.h. */
#include "cpu/quant_kernels.h"
