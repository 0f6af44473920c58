/* kernels_check: random numbers, storage types and instruction sets for the
 * kernel tests. The table of kernels is chosen once in a process, so every
 * level runs the tests in a child of its own. */
#ifndef TESTS_ENGINE_KERNELS_CHECK_H
#define TESTS_ENGINE_KERNELS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "cpu/kernels.h"
#include "cpu/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t random_state = 0x9E3779B97F4A7C15u;

static inline uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}
static inline size_t random_below(size_t limit) {
    return random_bits() % limit;
}
/* Uniform in [-1, 1). */
static inline float random_float(void) {
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

/* n random values of `type`; caller frees. Its end is the end of the block, so
 * that ASan sees a kernel that reads too far. */
static inline void *random_array(CpuType type, size_t n, float scale) {
    char *array = malloc(n * cpu_type_size(type) + 1);
    for (size_t i = 0; i < n; i++) cpu_store(array, type, i, scale * random_float());
    return array;
}

/* Half a unit in the last place of the type, relative. */
static inline double type_error(CpuType type) {
    return type == CPU_F32 ? 6e-8 : type == CPU_F16 ? 4.9e-4 : 3.95e-3;
}

static inline void assert_near(double got, double want, double tolerance, const char *what,
                               size_t index) {
    if (isnan(want) && isnan(got)) return;
    if (got == want || fabs(got - want) <= tolerance) return;
    fail_msg("%s, %s, element %zu: %.9g, expected %.9g within %.3g", cpu_level(), what, index, got,
             want, tolerance);
}

/* Runs `tests` once a level of this processor. */
static inline int run_levels(int (*tests)(void)) {
    static const char *const levels[] = {"scalar",     "neon",       "neondot",    "avx2", "avx512",
                                         "avx512vnni", "avx512vbmi", "avx512bf16", "amx"};
    int failed = 0;
    for (size_t i = 0; i < BASE_COUNT(levels); i++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            setenv("MLX_RAG_CPU", levels[i], 1);
            if (strcmp(cpu_level(), levels[i]) != 0) _exit(0);
            print_message("level %s\n", levels[i]);
            int status = tests();
            fflush(NULL);
            exit(status ? 1 : 0);
        }
        int status = 1;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) failed = 1;
    }
    return failed;
}

#endif
