/* A GGUF file, version 3: metadata, the list of tensors, their data. Tensors are
 * lazy; each is computed, packed and forgotten when its turn comes. */
#include "hub/gguf_write.h"

#include <stdlib.h>
#include <string.h>

enum { VERSION = 3, ALIGNMENT = 32 };

/* The numbers of metadata types. */
enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STRING = 8, TYPE_ARRAY = 9 };

static void put(StrBuf *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) base_str_append_char(to, (char)(value >> 8 * i));
}

static void put_text(StrBuf *to, const char *text) {
    put(to, strlen(text), 8);
    base_str_append(to, text);
}

static void put_float(StrBuf *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(to, bits, 4);
}

/* ---- metadata ---------------------------------------------------------------------- */

static StrBuf *begin(HubGgufOut *out, const char *key, uint32_t type) {
    out->keys++;
    put_text(&out->metadata, key);
    put(&out->metadata, type, 4);
    return &out->metadata;
}

static StrBuf *begin_array(HubGgufOut *out, const char *key, uint32_t type, size_t count) {
    StrBuf *to = begin(out, key, TYPE_ARRAY);
    put(to, type, 4);
    put(to, count, 8);
    return to;
}

void hub_gguf_out_text(HubGgufOut *out, const char *key, const char *value) {
    put_text(begin(out, key, TYPE_STRING), value);
}

void hub_gguf_out_size(HubGgufOut *out, const char *key, uint32_t value) {
    put(begin(out, key, TYPE_U32), value, 4);
}

void hub_gguf_out_float(HubGgufOut *out, const char *key, float value) {
    put_float(begin(out, key, TYPE_F32), value);
}

void hub_gguf_out_flag(HubGgufOut *out, const char *key, bool value) {
    put(begin(out, key, TYPE_BOOL), value, 1);
}

void hub_gguf_out_texts(HubGgufOut *out, const char *key, const char *const *values, size_t count) {
    StrBuf *to = begin_array(out, key, TYPE_STRING, count);
    for (size_t i = 0; i < count; i++) put_text(to, values[i]);
}

void hub_gguf_out_floats(HubGgufOut *out, const char *key, const float *values, size_t count) {
    StrBuf *to = begin_array(out, key, TYPE_F32, count);
    for (size_t i = 0; i < count; i++) put_float(to, values[i]);
}

void hub_gguf_out_ints(HubGgufOut *out, const char *key, const int32_t *values, size_t count) {
    StrBuf *to = begin_array(out, key, TYPE_I32, count);
    for (size_t i = 0; i < count; i++) put(to, (uint32_t)values[i], 4);
}

/* ---- tensors ------------------------------------------------------------------------ */

static size_t logical_size(const GgufTensor *tensor) {
    size_t size = 1;
    for (int d = 0; d < tensor->ndim; d++) size *= (size_t)tensor->shape[d];
    return size;
}

uint64_t gguf_tensor_bytes(const GgufTensor *tensor) {
    return (uint64_t)logical_size(tensor) / tensor->packing->items * tensor->packing->bytes;
}

static const float *float_data(mlx_array array) {
    return array.ctx ? mx_data(mx_cast(array, MLX_FLOAT32)) : NULL;
}

/* MLX's words become blocks. */
static bool keep_values(const GgufTensor *tensor, uint8_t *blocks, Error *err) {
    const size_t width = (size_t)tensor->shape[tensor->ndim - 1];
    const bool exponents = !tensor->biases.ctx;
    GgufPacked packed = {.words = mx_data(tensor->array),
                         .rows = logical_size(tensor) / width,
                         .width = width,
                         .bits = tensor->quant.bits,
                         .group_size = tensor->quant.group_size};
    if (exponents)
        packed.exponents = mx_data(tensor->scales);
    else
        packed.scales = float_data(tensor->scales);
    packed.biases = float_data(tensor->biases);
    if (!packed.words || mx_failed()) return mx_check(err);
    return gguf_pack_words(tensor->packing, &packed, blocks) ||
           base_fail(err, ERROR_UNSUPPORTED, "its scales are more than float16 can hold");
}

/* Some rows at a time, so that their floats stay near the processor. */
static bool round_values(const GgufTensor *tensor, uint8_t *blocks, Error *err) {
    enum { CHUNK = 1 << 20 };
    const int width = tensor->shape[tensor->ndim - 1],
              rows = (int)(logical_size(tensor) / (size_t)width), step = BASE_MAX(1, CHUNK / width);
    const size_t row_bytes =
        (size_t)width / tensor->packing->items * (size_t)tensor->packing->bytes;
    mlx_array flat = mx_reshape(tensor->array, MX_SHAPE(rows, width));
    if (!mx_data(flat)) return mx_check(err);
    for (int row = 0; row < rows; row += step) {
        const int count = BASE_MIN(step, rows - row);
        mx_scope scope = mx_open();
        const float *values = float_data(mx_slice(flat, 0, row, row + count));
        if (values)
            gguf_pack_floats(tensor->packing, values, (size_t)count, (size_t)width,
                             blocks + (size_t)row * row_bytes);
        mx_drop(scope);
        if (!values) return mx_check(err);
    }
    return true;
}

/* float16 ends at 65504: beyond it the model would be broken without a word. */
static bool check_half(const uint16_t *values, size_t count, Error *err) {
    bool infinite = false;
    for (size_t i = 0; i < count; i++) infinite |= (values[i] & 0x7c00) == 0x7c00;
    if (!infinite) return true;
    base_fail(err, ERROR_UNSUPPORTED, "it has values that float16 cannot hold");
    return base_hint(err, "Choose the type bf16 or f32.");
}

static bool write_data(AtomicFile *file, uint64_t at, const GgufTensor *tensor, Error *err) {
    const uint64_t bytes = gguf_tensor_bytes(tensor);
    if (tensor->packing->items == 1) {
        const void *data = mx_data(mx_cast(tensor->array, tensor->packing->dtype));
        return data ? (tensor->packing->dtype != MLX_FLOAT16 ||
                       check_half(data, logical_size(tensor), err)) &&
                          base_atomic_write_at(file, at, data, bytes, err)
                    : mx_check(err);
    }
    uint8_t *blocks = base_try_alloc(bytes, 1, err);
    bool good = blocks && (tensor->scales.ctx ? keep_values : round_values)(tensor, blocks, err) &&
                base_atomic_write_at(file, at, blocks, bytes, err);
    free(blocks);
    return good;
}

void gguf_tensor_add(HubGgufOut *out, GgufTensor tensor, const char *name) {
    tensor.name = base_strdup(name);
    tensor.array = mx_keep(tensor.array);
    if (tensor.scales.ctx) tensor.scales = mx_keep(tensor.scales);
    if (tensor.biases.ctx) tensor.biases = mx_keep(tensor.biases);
    out->tensors = base_grow(out->tensors, &out->capacity, out->count + 1, sizeof *out->tensors);
    out->tensors[out->count++] = tensor;
}

static void forget(GgufTensor *tensor) {
    mx_free(&tensor->array);
    mx_free(&tensor->scales);
    mx_free(&tensor->biases);
}

/* ---- the file ------------------------------------------------------------------------ */

static uint64_t aligned(uint64_t at) {
    return (at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static StrBuf header_of(const HubGgufOut *out) {
    StrBuf header = {0};
    uint64_t offset = 0;
    base_str_append(&header, "GGUF");
    put(&header, VERSION, 4);
    put(&header, out->count, 8);
    put(&header, out->keys, 8);
    base_str_append_n(&header, out->metadata.data, out->metadata.length);
    for (size_t i = 0; i < out->count; i++) {
        const GgufTensor *tensor = &out->tensors[i];
        put_text(&header, tensor->name);
        put(&header, (uint64_t)tensor->ndim, 4);
        for (int d = tensor->ndim - 1; d >= 0; d--) put(&header, (uint64_t)tensor->shape[d], 8);
        put(&header, tensor->packing->id, 4);
        put(&header, offset, 8);
        offset = aligned(offset + gguf_tensor_bytes(tensor));
    }
    while (header.length % ALIGNMENT) base_str_append_char(&header, '\0');
    return header;
}

static bool write_tensors(HubGgufOut *out, AtomicFile *file, uint64_t at, Progress *progress,
                          Error *err) {
    for (size_t i = 0; i < out->count; i++) {
        if (base_interrupted())
            return base_fail(err, ERROR_INTERRUPTED, "interrupted, nothing was written");
        mx_scope scope = mx_open();
        const uint64_t bytes = gguf_tensor_bytes(&out->tensors[i]);
        bool good = write_data(file, at, &out->tensors[i], err);
        mx_drop(scope);
        if (!good) return base_error_context(err, "%s", out->tensors[i].name);
        forget(&out->tensors[i]);
        at += aligned(bytes);
        if (progress) base_progress_update(progress, progress->done + (double)bytes);
    }
    /* The last tensor too is filled up to the alignment. */
    const uint64_t last = out->count ? gguf_tensor_bytes(&out->tensors[out->count - 1]) : 0;
    static const char zeros[ALIGNMENT];
    const size_t rest = (size_t)(aligned(last) - last);
    return rest == 0 || base_atomic_write_at(file, at - rest, zeros, rest, err);
}

bool hub_gguf_out_write(HubGgufOut *out, const char *path, Progress *progress, Error *err) {
    AtomicFile *file = base_atomic_open(path, err);
    if (!file) return false;
    StrBuf header = header_of(out);
    bool good = base_atomic_write_at(file, 0, header.data, header.length, err) &&
                write_tensors(out, file, header.length, progress, err);
    base_str_free(&header);
    if (good) return base_atomic_commit(file, err);
    base_atomic_abort(file);
    return false;
}

HubGgufPlan hub_gguf_out_plan(const HubGgufOut *out) {
    HubGgufPlan plan = {.tensors = out->count, .kept = out->kept, .unpacked = out->unpacked};
    plan.type = out->main ? out->main->name : "";
    for (size_t i = 0; i < out->count; i++) plan.bytes += gguf_tensor_bytes(&out->tensors[i]);
    return plan;
}

void hub_gguf_out_free(HubGgufOut *out) {
    if (!out) return;
    for (size_t i = 0; i < out->count; i++) {
        forget(&out->tensors[i]);
        free(out->tensors[i].name);
    }
    free(out->tensors);
    base_str_free(&out->metadata);
    free(out);
}
