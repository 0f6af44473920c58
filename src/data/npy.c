/* .npy files: a magic number, a version, the length of a header that is the text of a
 * Python dictionary, and the elements (numpy.lib.format). */
#include "data/npy.h"

#include <stdlib.h>
#include <string.h>

#include "data/step.h"

enum { PREFIX = 8, MOST_HEADER = 65536 };

static const struct {
    const char *code;
    DxType type;
} codes[] = {
    {"b1", DX_BOOL}, {"u1", DX_U8},  {"i1", DX_I8},   {"u2", DX_U16}, {"i2", DX_I16},
    {"u4", DX_U32},  {"i4", DX_I32}, {"u8", DX_U64},  {"i8", DX_I64}, {"f2", DX_F16},
    {"f4", DX_F32},  {"f8", DX_F64}, {"V2", DX_BF16}, /* as MLX and ml_dtypes save it */
};

/* ---- the header ------------------------------------------------------------------------ */

typedef struct Text {
    const char *at, *end;
} Text;

static void pass_space(Text *text) {
    while (text->at < text->end && strchr(" \t\n\r", *text->at) && *text->at) text->at++;
}

static bool pass(Text *text, const char *word) {
    size_t length = strlen(word);
    pass_space(text);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, word, length) != 0)
        return false;
    text->at += length;
    return true;
}

/* 'word' or "word", into word[size]. */
static bool take_quoted(Text *text, char *word, size_t size) {
    pass_space(text);
    if (text->at == text->end || (*text->at != '\'' && *text->at != '"')) return false;
    const char quote = *text->at++;
    const char *stop = memchr(text->at, quote, (size_t)(text->end - text->at));
    if (!stop || (size_t)(stop - text->at) >= size) return false;
    memcpy(word, text->at, (size_t)(stop - text->at));
    word[stop - text->at] = '\0';
    text->at = stop + 1;
    return true;
}

static bool take_size(Text *text, int64_t *size) {
    pass_space(text);
    const char *first = text->at;
    *size = 0;
    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++)
        if (__builtin_mul_overflow(*size, 10, size) ||
            __builtin_add_overflow(*size, *text->at - '0', size))
            return false;
    return text->at > first;
}

static bool take_shape(Text *text, NpyHeader *header, Error *err) {
    if (!pass(text, "(")) return false;
    header->rank = 0;
    while (!pass(text, ")")) {
        if (header->rank == DX_MAX_RANK)
            return base_fail(err, ERROR_UNSUPPORTED, "an array of more than %d axes", DX_MAX_RANK);
        if (!take_size(text, &header->shape[header->rank++])) return false;
        if (!pass(text, ",")) return pass(text, ")");
    }
    return true;
}

static bool take_type(const char *descr, NpyHeader *header, Error *err) {
    bool order = descr[0] && strchr("<>|=", descr[0]);
    for (size_t i = 0; i < BASE_COUNT(codes); i++) {
        if (strcmp(descr + order, codes[i].code) != 0) continue;
        header->type = codes[i].type;
        header->swapped = descr[0] == '>' && dx_type_size(header->type) > 1;
        return true;
    }
    return base_fail(err, ERROR_UNSUPPORTED, "elements of NumPy's type \"%.20s\"", descr);
}

static bool take_dictionary(Text *text, NpyHeader *header, Error *err) {
    bool descr = false, order = false, shape = false;
    char key[24], value[24];
    if (!pass(text, "{")) return false;
    while (!pass(text, "}")) {
        if (!take_quoted(text, key, sizeof key) || !pass(text, ":")) return false;
        if (strcmp(key, "descr") == 0) {
            if (!take_quoted(text, value, sizeof value))
                return base_fail(err, ERROR_UNSUPPORTED, "elements of several fields");
            if (!take_type(value, header, err)) return false;
            descr = true;
        } else if (strcmp(key, "fortran_order") == 0) {
            header->columns_first = pass(text, "True");
            if (!header->columns_first && !pass(text, "False")) return false;
            order = true;
        } else if (strcmp(key, "shape") == 0) {
            if (!take_shape(text, header, err)) return false;
            shape = true;
        } else {
            return false;
        }
        if (!pass(text, ",") && !pass(text, "}")) return false;
        if (text->at[-1] == '}') break;
    }
    return descr && order && shape;
}

static bool elements_fit(const NpyHeader *header, size_t room) {
    size_t bytes = dx_type_size(header->type);
    for (int axis = 0; axis < header->rank; axis++)
        if (__builtin_mul_overflow(bytes, (size_t)header->shape[axis], &bytes)) return false;
    return bytes <= room;
}

bool dx_npy_header(const uint8_t *bytes, size_t length, NpyHeader *header, Error *err) {
    *header = (NpyHeader){0};
    if (length < PREFIX + 2 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return base_fail(err, ERROR_INPUT, "is no .npy file");
    if (bytes[6] < 1 || bytes[6] > 3)
        return base_fail(err, ERROR_UNSUPPORTED, "is of version %d of .npy", bytes[6]);
    const size_t counted = bytes[6] == 1 ? 2 : 4;
    size_t size = 0;
    for (size_t i = counted; i-- > 0 && length >= PREFIX + counted;)
        size = size << 8 | bytes[PREFIX + i];
    if (length < PREFIX + counted || size > length - PREFIX - counted || size > MOST_HEADER)
        return base_fail(err, ERROR_INPUT, "its header is cut short or damaged");
    header->data = PREFIX + counted + size;
    Text text = {(const char *)bytes + PREFIX + counted, (const char *)bytes + header->data};
    if (!take_dictionary(&text, header, err))
        return base_fail(err, ERROR_INPUT, "its header is damaged");
    if (!elements_fit(header, length - header->data))
        return base_fail(err, ERROR_INPUT, "has fewer elements than its header says");
    return true;
}

/* ---- the elements ------------------------------------------------------------------------ */

static void swap_bytes(DxArray *array) {
    size_t size = dx_type_size(array->type);
    uint8_t *at = array->data;
    for (size_t i = 0; i < array->count; i++, at += size)
        for (size_t j = 0; j < size / 2; j++) {
            uint8_t kept = at[j];
            at[j] = at[size - 1 - j];
            at[size - 1 - j] = kept;
        }
}

/* Elements whose first index runs fastest, to those whose last does. */
static void from_columns(DxArray *array, const uint8_t *from) {
    size_t size = dx_type_size(array->type), stride[DX_MAX_RANK], step = size;
    int64_t index[DX_MAX_RANK] = {0};
    for (int axis = 0; axis < array->rank; axis++) {
        stride[axis] = step;
        step *= (size_t)array->shape[axis];
    }
    uint8_t *to = array->data;
    for (size_t i = 0; i < array->count; i++, to += size) {
        memcpy(to, from, size);
        for (int axis = array->rank - 1; axis >= 0; axis--) {
            from += stride[axis];
            if (++index[axis] < array->shape[axis]) break;
            from -= stride[axis] * (size_t)array->shape[axis];
            index[axis] = 0;
        }
    }
}

DxArray *dx_npy_parse(const uint8_t *bytes, size_t length, Error *err) {
    NpyHeader header;
    if (!dx_npy_header(bytes, length, &header, err)) return NULL;
    DxArray *array = dx_array_new(header.type, header.rank, header.shape, err);
    if (!array || array->bytes == 0) return array;
    if (header.columns_first)
        from_columns(array, bytes + header.data);
    else
        memcpy(array->data, bytes + header.data, array->bytes);
    if (header.swapped) swap_bytes(array);
    return array;
}

/* ---- as an operator ------------------------------------------------------------------------- */

static DxStatus decode_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *bytes = dx_sample_need_bytes(*sample, args->key, err);
    if (!bytes) return DX_FAIL;
    DxArray *array = dx_npy_parse(bytes->data, bytes->bytes, err);
    if (!array) base_error_context(err, "key \"%s\"", args->key.name);
    return dx_step_put(args, sample, array);
}

DxStep dx_decode_npy(const char *key, const char *to, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .to = dx_key(to)};
    args.identity = base_format("%s to %s", key, to);
    return dx_step_new("decode npy", decode_apply, args, true, err);
}
