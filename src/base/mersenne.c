/* MT19937 (Matsumoto and Nishimura, 1998), seeded and drawn from as NumPy's
 * np.random and Python's random do, so that a seed chooses the same samples here
 * and there. */
#include "base/base.h"

#include <math.h>
#include <stdlib.h>

enum { WORDS = BASE_MERSENNE_WORDS, MIDDLE = 397 };

/* ---- the generator ----------------------------------------------------------------- */

static void fill(MersenneTwister *m, uint32_t seed) {
    m->words[0] = seed;
    for (uint32_t i = 1; i < WORDS; i++) {
        uint32_t last = m->words[i - 1];
        m->words[i] = 1812433253u * (last ^ (last >> 30)) + i;
    }
    m->used = WORDS;
}

static void twist(MersenneTwister *m) {
    uint32_t *w = m->words;
    for (int i = 0; i < WORDS; i++) {
        uint32_t joined = (w[i] & 0x80000000u) | (w[(i + 1) % WORDS] & 0x7fffffffu);
        w[i] = w[(i + MIDDLE) % WORDS] ^ (joined >> 1) ^ (joined & 1 ? 0x9908b0dfu : 0);
    }
    m->used = 0;
}

uint32_t base_mersenne_next(MersenneTwister *m) {
    if (m->used >= WORDS) twist(m);
    uint32_t y = m->words[m->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* ---- NumPy --------------------------------------------------------------------------- */

void base_mersenne_numpy(MersenneTwister *m, uint32_t seed) {
    fill(m, seed);
}

/* A number from 0 to most: draws under the smallest mask until one fits. */
static uint32_t at_most(MersenneTwister *m, uint32_t most) {
    uint32_t mask = most, drawn;
    for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    do drawn = base_mersenne_next(m) & mask;
    while (drawn > most);
    return drawn;
}

void base_mersenne_permutation(MersenneTwister *m, uint32_t count, uint32_t *order) {
    for (uint32_t i = 0; i < count; i++) order[i] = i;
    for (uint32_t i = count; i-- > 1;) {
        uint32_t j = at_most(m, i), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

/* ---- Python ---------------------------------------------------------------------------- */

void base_mersenne_python(MersenneTwister *m, uint64_t seed) {
    const uint32_t key[] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t length = key[1] ? 2 : 1, i = 1, j = 0, *w = m->words;
    fill(m, 19650218u);
    for (int k = 0; k < WORDS; k++) {
        w[i] = (w[i] ^ ((w[i - 1] ^ (w[i - 1] >> 30)) * 1664525u)) + key[j] + j;
        j = (j + 1) % length;
        if (++i == WORDS) {
            w[0] = w[WORDS - 1];
            i = 1;
        }
    }
    for (int k = 1; k < WORDS; k++) {
        w[i] = (w[i] ^ ((w[i - 1] ^ (w[i - 1] >> 30)) * 1566083941u)) - i;
        if (++i == WORDS) {
            w[0] = w[WORDS - 1];
            i = 1;
        }
    }
    w[0] = 0x80000000u;
}

/* random.randrange(count): the top bits of draws until they fit. */
static uint32_t below(MersenneTwister *m, uint32_t count) {
    int bits = 0;
    while (bits < 32 && count >> bits) bits++;
    uint32_t drawn;
    do drawn = base_mersenne_next(m) >> (32 - bits);
    while (drawn >= count);
    return drawn;
}

static bool holds(const uint32_t *list, uint32_t count, uint32_t value) {
    for (uint32_t i = 0; i < count; i++) {
        if (list[i] == value) return true;
    }
    return false;
}

void base_mersenne_sample(MersenneTwister *m, uint32_t count, uint32_t wanted, uint32_t *chosen) {
    /* Python shuffles a list when that is no longer than a set of the chosen. */
    double set_size = 21;
    if (wanted > 5) set_size += pow(4, ceil(log(wanted * 3.0) / log(4)));
    if (count > set_size) {
        for (uint32_t i = 0; i < wanted; i++) {
            do chosen[i] = below(m, count);
            while (holds(chosen, i, chosen[i]));
        }
        return;
    }
    uint32_t *pool = base_alloc((count + 1) * sizeof *pool);
    for (uint32_t i = 0; i < count; i++) pool[i] = i;
    for (uint32_t i = 0; i < wanted; i++) {
        uint32_t j = below(m, count - i);
        chosen[i] = pool[j];
        pool[j] = pool[count - i - 1];
    }
    free(pool);
}
