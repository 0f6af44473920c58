/* Weights of 8-bit codes and the decoding of all with a byte of scale for NEON; the
 * code is fp_quant_kernels.h. */
#if defined(__aarch64__)
#include "cpu/fp_quant_kernels.h"
#endif
