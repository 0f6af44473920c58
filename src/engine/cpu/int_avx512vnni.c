/* Integer products of many rows for AVX-512 VNNI; the code is int_kernels.h. */
#include "cpu/int_kernels.h"
