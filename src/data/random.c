/* Random numbers by name: every draw is a function of (seed, epoch, place,
 * counter), so threads, restarts and shards cannot change it; and shuffling as a
 * keyed bijection, which needs no list of the whole set.
 *
 * The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood, 2014). The
 * bijection is a balanced Feistel network over the smallest even number of bits
 * that holds the count, walked until the result lies inside (Black and Rogaway,
 * 2002); at most four steps on average. */
#include "data/data.h"

static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t combine(uint64_t key, uint64_t word) {
    return mix(key + 0x9e3779b97f4a7c15u + mix(word + 0x632be59bd9b4e019u));
}

DxRandom dx_random_of(uint64_t seed, uint64_t epoch, uint64_t place) {
    return (DxRandom){combine(combine(combine(0, seed), epoch), place), 0};
}

uint64_t dx_random(DxRandom *random) {
    return combine(random->key, random->counter++);
}

double dx_random_unit(DxRandom *random) {
    return (double)(dx_random(random) >> 11) * 0x1p-53;
}

/* Without bias: draws in the incomplete last part of the range are drawn again. */
uint64_t dx_random_below(DxRandom *random, uint64_t bound) {
    uint64_t least = -bound % bound, drawn;
    do drawn = dx_random(random);
    while (drawn < least);
    return drawn % bound;
}

uint64_t dx_permute(uint64_t seed, uint64_t epoch, uint64_t count, uint64_t index) {
    const DxRandom keyed = dx_random_of(seed, epoch, count);
    unsigned half = 1;
    while (half < 32 && (count - 1) >> (2 * half)) half++;
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = index >> half, right = index & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t next = left ^ (combine(keyed.key, round << 33 | right) & mask);
            left = right;
            right = next;
        }
        index = left << half | right;
    } while (index >= count);
    return index;
}
