/* What the file fuzzers of the engine share: the input as a file in memory, and
 * a look at every byte of what was loaded. */
#ifndef TESTS_FUZZ_ENGINE_FILE_H
#define TESTS_FUZZ_ENGINE_FILE_H

#include "mlx/c/mlx.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static inline void fuzz_ignore(const char *msg, void *data) {
    (void)msg;
    (void)data;
}

/* The path of a file with these bytes, valid until the next call. */
static inline const char *fuzz_file(const uint8_t *data, size_t size, mlx_stream *stream) {
    static int file = -1;
    static char path[64];
    if (file < 0) {
        file = memfd_create("fuzz", 0);
        if (file < 0) abort();
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        mlx_set_error_handler(fuzz_ignore, NULL, NULL);
    }
    if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) abort();
    *stream = mlx_default_cpu_stream_new();
    return path;
}

static inline void fuzz_read(mlx_array array) {
    const uint8_t *bytes = mlx_array_data_uint8(array);
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < mlx_array_nbytes(array); i++) sum = (uint8_t)(sum + bytes[i]);
}

#endif
