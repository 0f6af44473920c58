/* Dense products for AVX-512; the code is dense_kernels.h. */
#include "cpu/dense_kernels.h"
