/* Helpers of the io tests: a scratch folder and files with given bytes. */
#ifndef TESTS_ENGINE_IO_CHECK_H
#define TESTS_ENGINE_IO_CHECK_H

#include "base/base.h"
#include "engine/core_check.h"

#include <stdlib.h>
#include <unistd.h>

static char scratch[] = "/tmp/mlx-rag-io-XXXXXX";
static mlx_stream cpu;

static int io_setup(void **state) {
    cpu = mlx_default_cpu_stream_new();
    return mkdtemp(scratch) ? catch_errors(state) : 1;
}

static int io_teardown(void **state) {
    (void)state;
    char **names;
    size_t count;
    if (base_list_dir(scratch, &names, &count, NULL)) {
        for (size_t i = 0; i < count; i++) {
            char *path = base_path_join(scratch, names[i]);
            unlink(path);
            free(path);
            free(names[i]);
        }
        free(names);
    }
    mlx_stream_free(cpu);
    return rmdir(scratch);
}

/* The path of a scratch file, valid until the fourth next call. */
static const char *scratch_path(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static inline const char *write_scratch(const char *name, const void *bytes, size_t length) {
    const char *path = scratch_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
    return path;
}

static inline void read_bytes(const char *path, char **data, size_t *length) {
    assert_true(base_file_read(path, data, length, NULL));
}

#endif
