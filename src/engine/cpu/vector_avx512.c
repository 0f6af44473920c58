/* Contiguous runs for AVX-512 F, BW, DQ and VL; the code is vector_kernels.h. */
#include "cpu/vector_kernels.h"
