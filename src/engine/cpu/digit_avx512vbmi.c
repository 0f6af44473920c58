/* Products of 2, 3, 5 and 6-bit weights for AVX-512 VBMI with VNNI; the code is
 * digit_kernels.h. */
#include "cpu/digit_kernels.h"
