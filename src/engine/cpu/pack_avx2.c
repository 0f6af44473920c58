/* Affine quantisation for AVX2; the code is pack_kernels.h. */
#include "cpu/pack_kernels.h"
