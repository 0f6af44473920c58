/* Depthwise convolution for AVX-512; the code is conv_kernels.h. */
#include "cpu/conv_kernels.h"
