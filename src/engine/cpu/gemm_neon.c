/* Dense products for NEON; the code is dense_kernels.h. */
#if defined(__aarch64__)
#include "cpu/dense_kernels.h"
#endif
