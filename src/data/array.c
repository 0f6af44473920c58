/* Arrays: dense typed memory, counted by reference, its header and its data in
 * one piece unless the memory is somebody else's. */
#include "data/buffer.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [DX_TEXT] = {"text", 1},   [DX_U8] = {"uint8", 1},      [DX_I8] = {"int8", 1},
    [DX_U16] = {"uint16", 2},  [DX_I16] = {"int16", 2},     [DX_U32] = {"uint32", 4},
    [DX_I32] = {"int32", 4},   [DX_U64] = {"uint64", 8},    [DX_I64] = {"int64", 8},
    [DX_F16] = {"float16", 2}, [DX_BF16] = {"bfloat16", 2}, [DX_F32] = {"float32", 4},
    [DX_F64] = {"float64", 8}, [DX_BOOL] = {"bool", 1},     [DX_ANY_TYPE] = {"any type", 0},
};

size_t dx_type_size(DxType type) {
    return types[type].size;
}

const char *dx_type_name(DxType type) {
    return types[type].name;
}

/* The data of an array of our own begins behind its header, aligned for vectors. */
enum { HEADER = (sizeof(DxArray) + 63) / 64 * 64 };

static bool measure(DxType type, int rank, const int64_t *shape, size_t *count, Error *err) {
    if (rank < 0 || rank > DX_MAX_RANK)
        return base_fail(err, ERROR_INPUT, "an array of rank %d; 0 to %d are possible", rank,
                         DX_MAX_RANK);
    size_t product = 1, bytes;
    for (int axis = 0; axis < rank; axis++) {
        if (shape[axis] < 0)
            return base_fail(err, ERROR_INPUT, "an array of negative size %lld along axis %d",
                             (long long)shape[axis], axis);
        if (__builtin_mul_overflow(product, (size_t)shape[axis], &product))
            return base_fail(err, ERROR_MEMORY, "an array of more elements than memory has");
    }
    if (__builtin_mul_overflow(product, types[type].size, &bytes) || bytes > SIZE_MAX - HEADER)
        return base_fail(err, ERROR_MEMORY, "an array of more bytes than memory has");
    *count = product;
    return true;
}

static void fill_header(DxArray *array, DxType type, int rank, const int64_t *shape, size_t count) {
    atomic_init(&array->references, 1);
    array->type = type;
    array->rank = rank;
    for (int axis = 0; axis < rank; axis++) array->shape[axis] = shape[axis];
    array->count = count;
    array->bytes = count * types[type].size;
    array->release = NULL;
    array->context = NULL;
}

DxArray *dx_array_new(DxType type, int rank, const int64_t *shape, Error *err) {
    size_t count;
    if (!measure(type, rank, shape, &count, err)) return NULL;
    DxArray *array = base_try_alloc(1, HEADER + count * types[type].size, err);
    if (!array) return NULL;
    fill_header(array, type, rank, shape, count);
    array->data = (char *)array + HEADER;
    return array;
}

DxArray *dx_array_copy(DxType type, int rank, const int64_t *shape, const void *data, Error *err) {
    DxArray *array = dx_array_new(type, rank, shape, err);
    if (array && array->bytes) memcpy(array->data, data, array->bytes);
    return array;
}

DxArray *dx_array_text(const char *text, size_t length, Error *err) {
    return dx_array_copy(DX_TEXT, 1, (int64_t[]){(int64_t)length}, text, err);
}

DxArray *dx_checked_text(const char *text, size_t length, Error *err) {
    size_t valid = base_utf8_valid_length(text, length);
    if (valid == length) return dx_array_text(text, length, err);
    base_fail(err, ERROR_INPUT, "byte %zu of it is not valid UTF-8", valid + 1);
    base_hint(err, "Take bytes instead of text, or convert the file to UTF-8.");
    return NULL;
}

DxArray *dx_array_bytes(const void *bytes, size_t length, Error *err) {
    return dx_array_copy(DX_U8, 1, (int64_t[]){(int64_t)length}, bytes, err);
}

DxArray *dx_array_ids(const int32_t *ids, size_t count, Error *err) {
    return dx_array_copy(DX_I32, 1, (int64_t[]){(int64_t)count}, ids, err);
}

static DxArray *scalar(DxType type, const void *value) {
    DxArray *array = base_alloc(HEADER + types[type].size);
    fill_header(array, type, 0, NULL, 1);
    array->data = (char *)array + HEADER;
    memcpy(array->data, value, types[type].size);
    return array;
}

DxArray *dx_array_int(int64_t value) {
    return scalar(DX_I64, &value);
}

DxArray *dx_array_real(double value) {
    return scalar(DX_F64, &value);
}

DxArray *dx_array_wrap(DxType type, int rank, const int64_t *shape, const void *data,
                       void (*release)(void *context), void *context, Error *err) {
    size_t count;
    if (!measure(type, rank, shape, &count, err)) return NULL;
    DxArray *array = base_alloc(sizeof *array);
    fill_header(array, type, rank, shape, count);
    array->data = (void *)(uintptr_t)data;
    array->release = release;
    array->context = context;
    return array;
}

DxArray *dx_array_retain(DxArray *array) {
    if (array) atomic_fetch_add_explicit(&array->references, 1, memory_order_relaxed);
    return array;
}

void dx_array_release(DxArray *array) {
    if (!array) return;
    /* The only holder needs no locked instruction. */
    if (atomic_load_explicit(&array->references, memory_order_acquire) != 1 &&
        atomic_fetch_sub_explicit(&array->references, 1, memory_order_acq_rel) != 1)
        return;
    if (array->release) array->release(array->context);
    free(array);
}

static bool owns_data(const DxArray *array) {
    return array->data == (const char *)array + HEADER;
}

void *dx_array_write(DxArray **array, Error *err) {
    DxArray *old = *array;
    if (owns_data(old) && atomic_load_explicit(&old->references, memory_order_acquire) == 1)
        return old->data;
    DxArray *copy = dx_array_copy(old->type, old->rank, old->shape, old->data, err);
    if (!copy) return NULL;
    dx_array_release(old);
    *array = copy;
    return copy->data;
}

bool dx_array_equal(const DxArray *a, const DxArray *b) {
    if (a->type != b->type || a->rank != b->rank || a->bytes != b->bytes) return false;
    for (int axis = 0; axis < a->rank; axis++)
        if (a->shape[axis] != b->shape[axis]) return false;
    return a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0;
}

const char *dx_array_describe(const DxArray *array, char *text, size_t size) {
    StrBuf out = {0};
    base_str_append(&out, types[array->type].name);
    for (int axis = 0; axis < array->rank; axis++)
        base_str_appendf(&out, "%s%lld", axis ? ", " : "[", (long long)array->shape[axis]);
    if (array->rank) base_str_append_char(&out, ']');
    snprintf(text, size, "%s", out.data);
    base_str_free(&out);
    return text;
}

/* ---- reading single numbers ------------------------------------------------------- */

static float half_value(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = (bits >> 10) & 31;
    uint32_t fraction = bits & 1023;
    if (exponent == 0) {
        float tiny = (float)fraction * 0x1p-24f;
        return sign ? -tiny : tiny;
    }
    exponent = exponent == 31 ? 255 : exponent + 112;
    uint32_t word = sign | exponent << 23 | fraction << 13;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

#define ELEMENT(ctype) (((const ctype *)array->data)[index])

double dx_array_real_at(const DxArray *array, size_t index) {
    if (index >= array->count) return 0;
    switch (array->type) {
    case DX_F16: return (double)half_value(ELEMENT(uint16_t));
    case DX_BF16: {
        uint32_t word = (uint32_t)ELEMENT(uint16_t) << 16;
        float value;
        memcpy(&value, &word, sizeof value);
        return (double)value;
    }
    case DX_F32: return (double)ELEMENT(float);
    case DX_F64: return ELEMENT(double);
    case DX_U64: return (double)ELEMENT(uint64_t);
    default: return (double)dx_array_int_at(array, index);
    }
}

int64_t dx_array_int_at(const DxArray *array, size_t index) {
    if (index >= array->count) return 0;
    switch (array->type) {
    case DX_TEXT:
    case DX_BOOL:
    case DX_U8: return ELEMENT(uint8_t);
    case DX_I8: return ELEMENT(int8_t);
    case DX_U16: return ELEMENT(uint16_t);
    case DX_I16: return ELEMENT(int16_t);
    case DX_U32: return ELEMENT(uint32_t);
    case DX_I32: return ELEMENT(int32_t);
    case DX_U64: return (int64_t)ELEMENT(uint64_t);
    case DX_I64: return ELEMENT(int64_t);
    default: {
        double value = dx_array_real_at(array, index);
        if (!(value > -9.2e18)) return value == value ? INT64_MIN : 0;
        return value < 9.2e18 ? (int64_t)value : INT64_MAX;
    }
    }
}

/* ---- writing one number everywhere --------------------------------------------------- */

/* To float16, to the nearest, ties to even. */
static uint16_t to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more */
    if (rest < 0x38800000) {                                  /* below 2^-14: a multiple of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &rest, sizeof magnitude);
        return (uint16_t)(sign | (uint32_t)lrintf(magnitude * 0x1p24f));
    }
    uint32_t rounded = rest + 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000) >> 13);
}

static uint16_t to_bfloat(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* A number as an element of a type. */
static void element(DxType type, double value, void *out) {
    int64_t whole = value > -9.2e18 && value < 9.2e18 ? (int64_t)value : 0;
    uint64_t large = value >= 9.2e18 ? (uint64_t)value : (uint64_t)whole;
    float single = (float)value;
    switch (type) {
    case DX_F64: memcpy(out, &value, 8); return;
    case DX_F32: memcpy(out, &single, 4); return;
    case DX_BF16: memcpy(out, &(uint16_t){to_bfloat(single)}, 2); return;
    case DX_F16: memcpy(out, &(uint16_t){to_half(single)}, 2); return;
    case DX_BOOL: memcpy(out, &(uint8_t){value != 0}, 1); return;
    default: memcpy(out, &large, dx_type_size(type));
    }
}

void dx_array_fill(DxArray *array, double value) {
    uint8_t pattern[8] = {0};
    size_t size = dx_type_size(array->type);
    element(array->type, value, pattern);
    bool same = true;
    for (size_t i = 1; i < size; i++) same = same && pattern[i] == pattern[0];
    if (same) {
        if (array->bytes) memset(array->data, pattern[0], array->bytes);
        return;
    }
    for (size_t i = 0; i < array->count; i++) memcpy((char *)array->data + i * size, pattern, size);
}

DxArray *dx_array_filled(DxType type, size_t count, double value, Error *err) {
    DxArray *array = dx_array_new(type, 1, (int64_t[]){(int64_t)count}, err);
    if (array) dx_array_fill(array, value);
    return array;
}

/* ---- parts --------------------------------------------------------------------------- */

DxArray *dx_array_region(const DxArray *array, int axis, int64_t start, int64_t length,
                         int64_t left, int64_t right, double value, Error *err) {
    int64_t shape[DX_MAX_RANK];
    memcpy(shape, array->shape, sizeof shape);
    bool fits = left <= INT64_MAX - length && right <= INT64_MAX - length - left;
    shape[axis] = fits ? left + length + right : INT64_MAX;
    DxArray *whole = dx_array_new(array->type, array->rank, shape, err);
    if (!whole || whole->bytes == 0) return whole;
    if (left || right) dx_array_fill(whole, value);
    size_t inner = dx_type_size(array->type), outer = 1;
    for (int i = axis + 1; i < array->rank; i++) inner *= (size_t)array->shape[i];
    for (int i = 0; i < axis; i++) outer *= (size_t)array->shape[i];
    const size_t bytes = inner * (size_t)length;
    const char *from = (const char *)array->data + inner * (size_t)start;
    char *to = (char *)whole->data + inner * (size_t)left;
    for (size_t i = 0; bytes && i < outer; i++) {
        memcpy(to, from, bytes);
        from += inner * (size_t)array->shape[axis];
        to += inner * (size_t)shape[axis];
    }
    return whole;
}
