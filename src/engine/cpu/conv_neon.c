/* Depthwise convolution for NEON; the code is conv_kernels.h. */
#if defined(__aarch64__)
#include "cpu/conv_kernels.h"
#endif
