/* Writes small GGUF files (version 3) for tests: metadata, then tensors, then
 * the data at multiples of 32. */
#ifndef TESTS_HUB_GGUF_WRITER_H
#define TESTS_HUB_GGUF_WRITER_H

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

enum { GGUF_F32 = 0, GGUF_F16 = 1, GGUF_Q4_0 = 2, GGUF_Q4_1 = 3, GGUF_Q8_0 = 8 };

typedef struct GgufWriter {
    StrBuf metadata, tensors, data;
    uint64_t metadata_count, tensor_count;
} GgufWriter;

static inline void gguf_bytes(StrBuf *out, const void *bytes, size_t length) {
    base_str_append_n(out, bytes, length);
}

static inline void gguf_u32(StrBuf *out, uint32_t value) {
    gguf_bytes(out, &value, sizeof value);
}
static inline void gguf_u64(StrBuf *out, uint64_t value) {
    gguf_bytes(out, &value, sizeof value);
}

static inline void gguf_text(StrBuf *out, const char *text) {
    gguf_u64(out, strlen(text));
    gguf_bytes(out, text, strlen(text));
}

static inline void gguf_key(GgufWriter *w, const char *key, uint32_t type) {
    w->metadata_count++;
    gguf_text(&w->metadata, key);
    gguf_u32(&w->metadata, type);
}

static inline void gguf_set_u32(GgufWriter *w, const char *key, uint32_t value) {
    gguf_key(w, key, 4);
    gguf_u32(&w->metadata, value);
}

static inline void gguf_set_f32(GgufWriter *w, const char *key, float value) {
    gguf_key(w, key, 6);
    gguf_bytes(&w->metadata, &value, sizeof value);
}

static inline void gguf_set_bool(GgufWriter *w, const char *key, bool value) {
    gguf_key(w, key, 7);
    base_str_append_char(&w->metadata, value ? 1 : 0);
}

static inline void gguf_set_text(GgufWriter *w, const char *key, const char *value) {
    gguf_key(w, key, 8);
    gguf_text(&w->metadata, value);
}

static inline void gguf_set_texts(GgufWriter *w, const char *key, const char *const *values,
                                  size_t count) {
    gguf_key(w, key, 9);
    gguf_u32(&w->metadata, 8);
    gguf_u64(&w->metadata, count);
    for (size_t i = 0; i < count; i++) gguf_text(&w->metadata, values[i]);
}

static inline void gguf_set_i32s(GgufWriter *w, const char *key, const int32_t *values,
                                 size_t count) {
    gguf_key(w, key, 9);
    gguf_u32(&w->metadata, 5);
    gguf_u64(&w->metadata, count);
    gguf_bytes(&w->metadata, values, count * sizeof *values);
}

/* A tensor of rows x width (rows 0: a vector); `bytes` are as the type lays
 * them out. */
static inline void gguf_tensor(GgufWriter *w, const char *name, uint32_t type, size_t rows,
                               size_t width, const void *bytes, size_t length) {
    while (w->data.length % 32) base_str_append_char(&w->data, 0);
    w->tensor_count++;
    gguf_text(&w->tensors, name);
    gguf_u32(&w->tensors, rows ? 2 : 1);
    gguf_u64(&w->tensors, width);
    if (rows) gguf_u64(&w->tensors, rows);
    gguf_u32(&w->tensors, type);
    gguf_u64(&w->tensors, w->data.length);
    gguf_bytes(&w->data, bytes, length);
}

/* The whole file; frees the writer's parts. Caller base_str_free's. */
static inline StrBuf gguf_finish(GgufWriter *w) {
    StrBuf file = {0};
    gguf_bytes(&file, "GGUF", 4);
    gguf_u32(&file, 3);
    gguf_u64(&file, w->tensor_count);
    gguf_u64(&file, w->metadata_count);
    gguf_bytes(&file, w->metadata.data, w->metadata.length);
    gguf_bytes(&file, w->tensors.data, w->tensors.length);
    while (file.length % 32) base_str_append_char(&file, 0);
    gguf_bytes(&file, w->data.data, w->data.length);
    base_str_free(&w->metadata);
    base_str_free(&w->tensors);
    base_str_free(&w->data);
    *w = (GgufWriter){0};
    return file;
}

#endif
