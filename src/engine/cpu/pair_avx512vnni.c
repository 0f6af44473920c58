/* Products of many rows with quantised weights for AVX-512 VNNI, of 16-bit integers; the code
 * is pair_kernels.h. */
#include "cpu/pair_kernels.h"
