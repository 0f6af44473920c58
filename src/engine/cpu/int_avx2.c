/* Integer products of many rows for AVX2; the code is int_kernels.h. */
#include "cpu/int_kernels.h"
