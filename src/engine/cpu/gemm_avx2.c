/* Dense products for AVX2 and FMA; the code is dense_kernels.h. */
#include "cpu/dense_kernels.h"
