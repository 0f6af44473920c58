/* A temporary folder and the files that hub's tests put into it. */
#ifndef TESTS_HUB_FOLDER_H
#define TESTS_HUB_FOLDER_H

#include "hub/hub.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static inline int folder_remove_entry(const char *path, const struct stat *info, int kind,
                                      struct FTW *where) {
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static inline void folder_remove(const char *path) {
    nftw(path, folder_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Setup and teardown of a test: *state is the folder's path. */
static inline int folder_make(void **state) {
    const char *base = getenv("TMPDIR");
    char *path = base_format("%s/mlx-rag-test-XXXXXX", base ? base : "/tmp");
    *state = mkdtemp(path);
    return *state ? 0 : -1;
}

static inline int folder_drop(void **state) {
    folder_remove(*state);
    free(*state);
    return 0;
}

static inline void folder_write(const char *folder, const char *name, const void *bytes,
                                size_t length) {
    char *path = base_path_join(folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    free(path);
}

static inline void folder_text(const char *folder, const char *name, const char *text) {
    folder_write(folder, name, text, strlen(text));
}

/* A safetensors file whose header is `header` and whose data are `bytes` zeros. */
static inline void folder_safetensors(const char *folder, const char *name, const char *header,
                                      size_t bytes) {
    uint64_t length = strlen(header);
    char *file = calloc(1, 8 + length + bytes);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    folder_write(folder, name, file, 8 + length + bytes);
    free(file);
}

#define CONFIG_LLAMA "{\"model_type\": \"llama\", \"hidden_size\": 64}"
#define HEADER_ONE "{\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}"
#define HEADER_TWO "{\"b.weight\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}"

#endif
