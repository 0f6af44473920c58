/* What the file fuzzers of the engine share: the input as a file in memory or
 * behind a reader, and a look at every byte of what was loaded. */
#ifndef TESTS_FUZZ_ENGINE_FILE_H
#define TESTS_FUZZ_ENGINE_FILE_H

#include "mlx/c/mlx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

typedef struct FuzzMemory {
    const uint8_t *data;
    size_t size, at;
    bool failed;
} FuzzMemory;

static inline bool fuzz_open(void *desc) {
    return desc != NULL;
}
static inline bool fuzz_good(void *desc) {
    return !((FuzzMemory *)desc)->failed;
}
static inline size_t fuzz_tell(void *desc) {
    return ((FuzzMemory *)desc)->at;
}
static inline void fuzz_seek(void *desc, int64_t off, int whence) {
    FuzzMemory *memory = desc;
    memory->at = (whence == SEEK_END ? memory->size : 0) + (size_t)off;
}
static inline void fuzz_read_at(void *desc, char *out, size_t n, size_t off) {
    FuzzMemory *memory = desc;
    memory->failed |= off > memory->size || n > memory->size - off;
    if (!memory->failed) memcpy(out, memory->data + off, n);
}
static inline void fuzz_read_next(void *desc, char *out, size_t n) {
    FuzzMemory *memory = desc;
    fuzz_read_at(desc, out, n, memory->at);
    memory->at += n;
}

/* A reader of *memory, which must outlive what is loaded from it. */
static inline mlx_io_reader fuzz_reader(FuzzMemory *memory) {
    return mlx_io_reader_new(memory, (mlx_io_vtable){.is_open = fuzz_open,
                                                     .good = fuzz_good,
                                                     .tell = fuzz_tell,
                                                     .seek = fuzz_seek,
                                                     .read = fuzz_read_next,
                                                     .read_at_offset = fuzz_read_at});
}

/* Evaluates; what cannot be evaluated has no bytes. */
static inline void fuzz_read(mlx_array array) {
    if (mlx_array_eval(array) != 0) return;
    const uint8_t *bytes = mlx_array_data_uint8(array);
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < mlx_array_nbytes(array); i++) sum = (uint8_t)(sum + bytes[i]);
}

#endif
