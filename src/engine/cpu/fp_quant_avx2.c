/* Products of weights with a byte of scale for AVX2; the code is fp_quant_kernels.h. */
#include "cpu/fp_quant_kernels.h"
