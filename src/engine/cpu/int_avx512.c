/* Integer products of many rows for AVX-512 BW; the code is int_kernels.h. */
#include "cpu/int_kernels.h"
