/* A folder in memory for fuzzers of what reads files by their names; it goes away
 * with all that was put there when the process ends. */
#ifndef TESTS_FUZZ_FOLDER_H
#define TESTS_FUZZ_FOLDER_H

#include "base/base.h"

#include <stdlib.h>
#include <unistd.h>

static char folder[64]; /* its path; empty before folder_make */

static inline void folder_drop(void) {
    char **names;
    size_t count;
    if (!base_list_dir(folder, &names, &count, NULL)) return;
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(folder, names[i]);
        unlink(path);
        free(path);
        free(names[i]);
    }
    free(names);
    rmdir(folder);
}

static inline void folder_make(void) {
    snprintf(folder, sizeof folder, "/dev/shm/mlx-rag-fuzz-XXXXXX");
    if (!mkdtemp(folder)) abort();
    atexit(folder_drop);
}

static inline void folder_put(const char *name, const void *bytes, size_t length) {
    char *path = base_path_join(folder, name);
    FILE *file = fopen(path, "wb");
    if (file) {
        fwrite(bytes, 1, length, file);
        fclose(file);
    }
    free(path);
}

#endif
