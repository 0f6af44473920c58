/* Products of packed weights and activations in bytes for NEON; the code is
 * digit_kernels.h. */
#if defined(__aarch64__)
#include "cpu/digit_kernels.h"
#endif
