/* machine: how fast all threads together read memory, the limit beside which
 * the benches put what they measure. Reads 64 bytes a load in blocks that are
 * fetched ahead, from large pages where the system gives them: the best way
 * that was found, not the plain loop. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { READ_BLOCK = 256, READ_AHEAD = 1024, READ_RUNS = 9 };

typedef uint64_t ReadVector __attribute__((vector_size(64), aligned(8), may_alias));

static inline void read_blocks(void *context, size_t begin, size_t end, int thread) {
    const char *data = context;
    ReadVector sum[4] = {{0}};
    (void)thread;
    for (const char *p = data + begin * READ_BLOCK; p < data + end * READ_BLOCK; p += READ_BLOCK)
        for (int i = 0; i < 4; i++) {
            __builtin_prefetch(p + READ_AHEAD + 64 * i);
            sum[i] ^= *(const ReadVector *)(const void *)(p + 64 * i);
        }
    const ReadVector all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    __asm__ volatile("" : : "r"(all[0] ^ all[7]));
}

/* Bytes a second, best of nine, over `bytes` of memory. */
static inline double read_bandwidth(size_t bytes) {
    const size_t huge = (size_t)2 << 20;
    char *data = aligned_alloc(huge, (bytes + huge - 1) / huge * huge + huge);
    if (!data) return 0;
#ifdef MADV_HUGEPAGE
    madvise(data, bytes + huge, MADV_HUGEPAGE);
#endif
    memset(data, 1, bytes + huge);
    double best = 0;
    for (int run = 0; run < READ_RUNS; run++) {
        const double begun = base_now();
        base_parallel_for(bytes / READ_BLOCK, 64, read_blocks, data);
        best = BASE_MAX(best, (double)bytes / (base_now() - begun));
    }
    free(data);
    return best;
}

#endif
