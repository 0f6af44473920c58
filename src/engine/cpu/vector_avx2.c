/* Contiguous runs for AVX2, FMA and F16C; the code is vector_kernels.h. */
#include "cpu/vector_kernels.h"
