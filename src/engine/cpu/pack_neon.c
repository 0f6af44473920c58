/* Affine quantisation for NEON; the code is pack_kernels.h. */
#if defined(__aarch64__)
#include "cpu/pack_kernels.h"
#endif
