/* What the tests of data share: small sources, and streams written as text. */
#ifndef TESTS_DATA_TEST_H
#define TESTS_DATA_TEST_H

#include "data/data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* {"n": index} */
static inline DxStatus number_get(void *self, uint64_t epoch, int64_t index, DxSample **sample,
                                  Error *err) {
    (void)self;
    (void)epoch;
    (void)err;
    dx_sample_put(sample, dx_key("n"), dx_array_int(index));
    return DX_OK;
}
static inline DxBuffer *numbers(int64_t count) {
    Error err = {0};
    DxBuffer *buffer = dx_buffer_callback(
        &(DxCallback){.name = "numbers", .count = count, .get = number_get}, NULL, &err);
    assert_non_null(buffer);
    return buffer;
}
static inline DxStream *number_stream(int64_t count) {
    Error err = {0};
    return dx_buffer_stream(numbers(count), &err);
}

/* {"ids": vectors of lengths[i] whose elements are i + 1} */
static inline DxStream *vectors(const int *lengths, size_t count) {
    Error err = {0};
    DxSample **samples = calloc(count + 1, sizeof *samples);
    for (size_t i = 0; i < count; i++) {
        samples[i] = dx_sample_new();
        dx_sample_put(&samples[i], dx_key("ids"),
                      dx_array_filled(DX_I32, (size_t)lengths[i], (double)i + 1, &err));
    }
    DxBuffer *buffer = dx_samples(samples, count, &err);
    for (size_t i = 0; i < count; i++) dx_sample_free(samples[i]);
    free(samples);
    return dx_buffer_stream(buffer, &err);
}
#define VECTORS(...) \
    vectors((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

/* A text as it is; "1 2 3" of another array's elements. */
static inline void print_array(StrBuf *text, const DxArray *array) {
    if (array->type == DX_TEXT) {
        base_str_append_n(text, array->data, array->bytes);
        return;
    }
    for (size_t i = 0; i < array->count; i++)
        base_str_appendf(text, "%s%g", i ? " " : "", dx_array_real_at(array, i));
}

/* What a stream still gives of one key, samples apart by " | ", failures as "!". */
static inline char *drain(DxStream *stream, const char *key) {
    StrBuf text = {0};
    base_str_append(&text, "");
    for (int shown = 0;; shown++) {
        Error err = {0};
        DxSample *sample;
        DxStatus status = dx_next(stream, &sample, &err);
        if (status == DX_END) return base_str_detach(&text);
        if (shown) base_str_append(&text, " | ");
        if (status == DX_FAIL) {
            base_str_append(&text, "!");
            continue;
        }
        const DxArray *array = dx_sample_get(sample, dx_key(key));
        if (array)
            print_array(&text, array);
        else
            base_str_append(&text, "-");
        dx_sample_free(sample);
    }
}

static inline void assert_gives(DxStream *stream, const char *key, const char *expected) {
    assert_non_null(stream);
    char *text = drain(stream, key);
    assert_string_equal(text, expected);
    free(text);
}
/* The same of a stream that is then freed. */
static inline void assert_all(DxStream *stream, const char *key, const char *expected) {
    assert_gives(stream, key, expected);
    dx_stream_free(stream);
}

/* The failure of the next call, which must be one. */
static inline void assert_fails(DxStream *stream, const char *message) {
    Error err = {0};
    DxSample *sample = NULL;
    assert_int_equal(dx_next(stream, &sample, &err), DX_FAIL);
    if (!strstr(err.message, message)) fail_msg("\"%s\" is not in \"%s\"", message, err.message);
}

static inline char *write_file(const char *name, const void *bytes, size_t length) {
    static char folder[64];
    Error err = {0};
    if (!folder[0]) {
        strcpy(folder, "/tmp/test_data_XXXXXX");
        assert_non_null(mkdtemp(folder));
    }
    char *path = base_path_join(folder, name);
    if (!base_file_write(path, bytes, length, &err)) fail_msg("%s", err.message);
    return path;
}

#endif
