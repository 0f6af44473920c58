/* Counter-based random bits: threefry2x32 with 20 rounds (Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", 2011), laid out in an array
 * as MLX lays them, so that a key gives the same bits in both engines. */
#ifndef ENGINE_OPS_THREEFRY_H
#define ENGINE_OPS_THREEFRY_H

#include <stddef.h>
#include <stdint.h>

typedef struct Threefry {
    uint32_t first, second;
} Threefry;

Threefry threefry_hash(uint32_t key0, uint32_t key1, uint32_t count0, uint32_t count1);

/* The stream of `bytes` random bytes of one key: ceil(bytes / 4) little-endian
 * words, the last one cut. */
void threefry_fill(const uint32_t key[2], uint8_t *out, size_t bytes);

/* The inverse of erf for |x| < 1 as MLX's CPU engine rounds it, at most 2.4 ulp
 * from the true value. */
float random_erfinv(float x);

#endif
