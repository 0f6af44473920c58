/* unpack: one element of a packed row, for portable code. */
#ifndef ENGINE_CPU_UNPACK_H
#define ENGINE_CPU_UNPACK_H

#include <stddef.h>
#include <stdint.h>

/* Element j of a row whose elements of `bits` bits form one little-endian bit
 * stream over 32-bit words; reads the next word only when the element straddles
 * two. */
static inline uint32_t cpu_unpack(const uint32_t *row, int bits, size_t j) {
    size_t bit = j * (size_t)bits;
    unsigned shift = (unsigned)(bit % 32);
    uint32_t value = row[bit / 32] >> shift;
    if (shift + (unsigned)bits > 32) value |= row[bit / 32 + 1] << (32 - shift);
    return value & ((1u << bits) - 1);
}

#endif
