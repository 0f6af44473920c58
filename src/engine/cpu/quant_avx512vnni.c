/* Quantised products for AVX-512 VNNI; the code is quant_kernels.h. */
#include "cpu/quant_kernels.h"
