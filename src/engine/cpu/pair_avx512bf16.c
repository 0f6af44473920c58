/* Products of many rows with quantised weights for AVX-512 BF16; the code is
 * pair_kernels.h. */
#include "cpu/pair_kernels.h"
