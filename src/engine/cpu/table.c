/* Which kernels this processor runs, decided once: the processor's features
 * (and the system's, for the wide registers), bounded by MLX_RAG_CPU. */
#include "cpu/table.h"

#include "base/base.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

typedef struct Level {
    const char *name;
    bool (*available)(void);
    void (*fill[8])(Kernels *table);
} Level;

static bool always(void) {
    return true;
}

#if defined(__aarch64__)
/* The dot product of bytes (FEAT_DotProd), as the system tells it. */
static bool has_neondot(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
#else
    return false;
#endif
}
#endif

#if defined(__x86_64__)
/* __builtin_cpu_supports asks XGETBV too: a feature whose registers the system
 * does not save counts as missing. */
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool has_avx512vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
static bool has_avx512vbmi(void) {
    return has_avx512vnni() && __builtin_cpu_supports("avx512vbmi");
}
/* Intel's cores issue the bf16 dot product at half the rate: float32 panels
 * are as fast there and keep every bit, so they run it only when asked. */
static bool has_avx512bf16(void) {
    const char *asked = getenv("MLX_RAG_CPU");
    return has_avx512vnni() && __builtin_cpu_supports("avx512bf16") &&
           (__builtin_cpu_is("amd") || (asked && strcmp(asked, "avx512bf16") == 0));
}
/* The system gives the tile registers to a process that asks for them. */
static bool has_amx(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, TILES_AND_BF16 = 1 << 24 | 1 << 22 };
    unsigned a, b, c, d;
    return has_avx512vnni() && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (d & TILES_AND_BF16) == TILES_AND_BF16 &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

static const Level levels[] = {
    {"scalar",
     always,
     {cpu_fill_scalar, cpu_fill_gemm_scalar, cpu_fill_quant_scalar, cpu_fill_fp_quant_scalar,
      cpu_fill_conv_scalar}},
#if defined(__aarch64__)
    {"neon",
     always,
     {cpu_fill_vector_neon, cpu_fill_gemm_neon, cpu_fill_conv_neon, cpu_fill_quant_neon,
      cpu_fill_digit_neon, cpu_fill_fp_quant_neon, cpu_fill_pack_neon}},
    {"neondot", has_neondot, {cpu_fill_digit_neondot}},
#endif
#if defined(__x86_64__)
    {"avx2",
     has_avx2,
     {cpu_fill_vector_avx2, cpu_fill_gemm_avx2, cpu_fill_quant_avx2, cpu_fill_digit_avx2,
      cpu_fill_pairs_avx2, cpu_fill_fp_quant_avx2, cpu_fill_conv_avx2, cpu_fill_pack_avx2}},
    {"avx512",
     has_avx512,
     {cpu_fill_vector_avx512, cpu_fill_gemm_avx512, cpu_fill_quant_avx512, cpu_fill_digit_avx512,
      cpu_fill_pairs_avx512, cpu_fill_fp_quant_avx512, cpu_fill_conv_avx512, cpu_fill_pack_avx512}},
    {"avx512vnni",
     has_avx512vnni,
     {cpu_fill_quant_avx512vnni, cpu_fill_digit_avx512vnni, cpu_fill_pairs_avx512vnni}},
    {"avx512vbmi", has_avx512vbmi, {cpu_fill_digit_avx512vbmi}},
    {"avx512bf16", has_avx512bf16, {cpu_fill_gemm_avx512bf16, cpu_fill_pairs_avx512bf16}},
    {"amx", has_amx, {cpu_fill_split_amx, cpu_fill_split_quant_amx}},
#endif
};

static Kernels table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_table(void) {
    const char *limit = getenv("MLX_RAG_CPU");
    for (size_t i = 0; i < BASE_COUNT(levels); i++) {
        if (!levels[i].available()) continue;
        for (size_t j = 0; j < BASE_COUNT(levels[i].fill) && levels[i].fill[j]; j++)
            levels[i].fill[j](&table);
        table.name = levels[i].name;
        if (limit && strcmp(limit, levels[i].name) == 0) break;
    }
#if defined(__x86_64__)
    table.fetch_once = __builtin_cpu_is("amd");
#endif
}

const Kernels *cpu_kernels(void) {
    pthread_once(&once, fill_table);
    return &table;
}

const char *cpu_level(void) {
    return cpu_kernels()->name;
}
