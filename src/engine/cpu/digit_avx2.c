/* Products of packed weights and activations in bytes for AVX2; the code is
 * digit_kernels.h. */
#include "cpu/digit_kernels.h"
