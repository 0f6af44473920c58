/* Affine quantisation for AVX-512; the code is pack_kernels.h. */
#include "cpu/pack_kernels.h"
