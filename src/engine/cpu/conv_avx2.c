/* Depthwise convolution for AVX2 and FMA; the code is conv_kernels.h. */
#include "cpu/conv_kernels.h"
