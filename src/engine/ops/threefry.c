/* Threefry blocks and their order in an array of words; see threefry.h. The
 * words come in two halves: block i gives word i of the first half and word i
 * of the second, and with an odd number of words the middle one comes from a
 * block of its own. */
#include "engine/ops/threefry.h"

#include <math.h>
#include <string.h>

static uint32_t rotate_left(uint32_t x, int bits) {
    return (x << bits) | (x >> (32 - bits));
}

Threefry threefry_hash(uint32_t key0, uint32_t key1, uint32_t count0, uint32_t count1) {
    static const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    const uint32_t schedule[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDAu};
    uint32_t x0 = count0 + schedule[0], x1 = count1 + schedule[1];
    for (uint32_t round = 0; round < 5; round++) {
        for (int i = 0; i < 4; i++) {
            x0 += x1;
            x1 = rotate_left(x1, rotations[round & 1][i]) ^ x0;
        }
        x0 += schedule[(round + 1) % 3];
        x1 += schedule[(round + 2) % 3] + round + 1;
    }
    return (Threefry){x0, x1};
}

void threefry_fill(const uint32_t key[2], uint8_t *out, size_t bytes) {
    const size_t words = (bytes + 3) / 4, half = words / 2, odd = words % 2;
    for (size_t i = 0; i < half; i++) {
        const size_t partner = half + odd + i;
        const Threefry block = threefry_hash(key[0], key[1], (uint32_t)i, (uint32_t)partner);
        memcpy(out + 4 * i, &block.first, 4);
        const size_t left = bytes - 4 * partner;
        memcpy(out + 4 * partner, &block.second, left < 4 ? left : 4);
    }
    if (odd) {
        const Threefry block = threefry_hash(key[0], key[1], (uint32_t)half, 0);
        const size_t left = bytes - 4 * half;
        memcpy(out + 4 * half, &block.first, left < 4 ? left : 4);
    }
}

float random_erfinv(float x) {
    /* Polynomials in t = log(1 - x^2), highest power first, from Norbert
     * Juffa's published single-precision fit; one for the centre and one for
     * the tails. */
    static const float centre[10] = {
        5.43877832e-9f,  1.43285448e-7f, 1.22774793e-6f, 1.12963626e-7f,  -5.61530760e-5f,
        -1.47697632e-4f, 2.31468678e-3f, 1.15392581e-2f, -2.32015476e-1f, 8.86226892e-1f};
    static const float tails[9] = {3.03697567e-10f, 2.93243101e-8f,  1.22150334e-6f,
                                   2.84108955e-5f,  3.93552968e-4f,  3.02698812e-3f,
                                   4.83185798e-3f,  -2.64646143e-1f, 8.40016484e-1f};
    const float t = logf(fmaf(x, -x, 1.0f));
    const int far = fabsf(t) > 6.125f;
    const float *terms = far ? tails : centre;
    const int count = far ? 9 : 10;
    float sum = terms[0];
    for (int i = 1; i < count; i++) {
        sum = fmaf(sum, t, terms[i]);
    }
    return x * sum;
}
