/* Contiguous runs for NEON; the code is vector_kernels.h. */
#if defined(__aarch64__)
#include "cpu/vector_kernels.h"
#endif
