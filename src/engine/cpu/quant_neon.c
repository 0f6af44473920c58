/* Quantised products for NEON; the code is quant_kernels.h. */
#if defined(__aarch64__)
#include "cpu/quant_kernels.h"
#endif
