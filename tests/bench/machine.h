/* machine: the limits beside which the benches put what they measure, with all
 * threads: how fast they read memory (64 bytes a load in blocks that are fetched
 * ahead, from large pages where the system gives them: the best way that was found,
 * not the plain loop), how many float32 multiply-adds they do, and how many dot
 * products of bf16. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

/* Memory that is there, in large pages where the system gives them; the caller frees. */
static inline char *read_memory(size_t bytes) {
    const size_t huge = (size_t)2 << 20, size = (bytes + huge - 1) / huge * huge + huge;
    char *data = aligned_alloc(huge, size);
    if (!data) return NULL;
#ifdef MADV_HUGEPAGE
    madvise(data, size, MADV_HUGEPAGE);
#endif
    memset(data, 1, size);
    return data;
}

/* Bytes a second, best of nine, over `bytes` of memory. */
static inline double read_bandwidth(size_t bytes) {
    char *data = read_memory(bytes);
    double best = 0;
    for (int run = 0; data && run < READ_RUNS; run++) {
        const double begun = base_now();
        base_parallel_for(bytes / READ_BLOCK, 64, read_blocks, data);
        best = BASE_MAX(best, (double)bytes / (base_now() - begun));
    }
    free(data);
    return best;
}

/* Bytes a second over `passes` of `bytes`, all of them counted. */
static inline double read_kept_up(size_t bytes, int passes) {
    char *data = read_memory(bytes);
    const double begun = base_now();
    for (int pass = 0; data && pass < passes; pass++)
        base_parallel_for(bytes / READ_BLOCK, 64, read_blocks, data);
    const double rate = data ? (double)bytes * passes / (base_now() - begun) : 0;
    free(data);
    return rate;
}

/* ---- multiply-adds ---------------------------------------------------------- */

#if defined(__x86_64__)
typedef float V8 __attribute__((vector_size(32)));
typedef float V16 __attribute__((vector_size(64)));
enum { CHAINS = 10, ROUNDS = 2000 };
/* Ten chains of multiply-adds, each in a register of its own; their beginnings are
 * hidden, or the compiler finds that one chain follows from another. */
#define CHAIN(i) s##i = s##i * x + y
#define HIDE_CHAINS                                                                           \
    __asm__(""                                                                                \
            : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "+v"(s6), "+v"(s7), \
              "+v"(s8), "+v"(s9))
#define PEAK(name, Vector, features)                                                  \
    __attribute__((target(features))) static inline float name(void) {                \
        Vector s0 = {0}, s1 = {1}, s2 = {2}, s3 = {3}, s4 = {4};                      \
        Vector s5 = {5}, s6 = {6}, s7 = {7}, s8 = {8}, s9 = {9}, x = {0.5f}, y = {1}; \
        HIDE_CHAINS;                                                                  \
        for (int r = 0; r < ROUNDS; r++) {                                            \
            CHAIN(0), CHAIN(1), CHAIN(2), CHAIN(3), CHAIN(4);                         \
            CHAIN(5), CHAIN(6), CHAIN(7), CHAIN(8), CHAIN(9);                         \
        }                                                                             \
        Vector total = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9;               \
        return total[0];                                                              \
    }
PEAK(peak8, V8, "avx2,fma")
PEAK(peak16, V16, "avx512f,fma")

/* The same with dot products of pairs of bf16, added to float32. */
#undef CHAIN
#define CHAIN(i) s##i = (V16)_mm512_dpbf16_ps((__m512)s##i, (__m512bh)x, (__m512bh)y)
PEAK(peak_pairs, V16, "avx512f,avx512bf16")

static inline void peak_slice(void *context, size_t begin, size_t end, int thread) {
    static volatile float sink;
    float (*const peak)(void) = *(float (**)(void))context;
    (void)thread;
    for (size_t i = begin; i < end; i++) sink = peak();
    (void)sink;
}

/* Operations a second, best of twenty; peak does `each` in a step of its chains. */
static inline double peak_rate(float (*peak)(void), int each) {
    const size_t calls = (size_t)base_threads() * 16;
    double best = 1e30;
    for (int i = 0; i < 20; i++) {
        const double begun = base_now();
        base_parallel_for(calls, 1, peak_slice, &peak);
        best = BASE_MIN(best, base_now() - begun);
    }
    return (double)calls * ROUNDS * CHAINS * each / best;
}

/* Multiply-adds of float32, two operations each; wide: registers of 512 bits. */
static inline double fma_peak(bool wide) {
    return wide ? peak_rate(peak16, 32) : peak_rate(peak8, 16);
}

/* Operations of bf16 dot products, where registers of 512 bits have them, else 0. */
static inline double bf16_peak(void) {
    return __builtin_cpu_supports("avx512bf16") ? peak_rate(peak_pairs, 64) : 0;
}
#else
static inline double fma_peak(bool wide) {
    (void)wide;
    return 0;
}
static inline double bf16_peak(void) {
    return 0;
}
#endif

#endif
