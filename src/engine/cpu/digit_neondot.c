/* Products of packed weights and activations in bytes for NEON with the dot
 * product; the code is digit_kernels.h. */
#if defined(__aarch64__)
#define NEON_DOT /* what the compiler defines says what it may use, not which file this is */
#include "cpu/digit_kernels.h"
#endif
