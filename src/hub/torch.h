/* PyTorch's files: a zip of stored members (or the older plain file), in it a
 * pickle that describes tensors, and their bytes.
 *
 * A pickle is a program that may name any function. This reader runs none: it
 * knows the few names that make tensors and dictionaries, and refuses every
 * other by its name. */
#ifndef HUB_TORCH_H
#define HUB_TORCH_H

#include "mx/mx.h"

/* Shows every tensor of a state dictionary (`visitor.metadata` is not called).
 * Tensors are views of the mapped file where their storage is aligned; strided
 * ones are laid out in rows when they are evaluated; float64 becomes float32.
 * Fails, naming the file and the tensor, on anything that is not plain tensors. */
bool hub_torch_load(const char *path, MxFileVisitor visitor, Error *err);

/* ---- the zip (zip.c) -------------------------------------------------------- */

/* A member of a zip whose bytes are stored as they are; name and bytes are of the
 * file's own memory. */
typedef struct ZipMember {
    const char *name; /* not NUL-terminated */
    size_t name_length;
    const uint8_t *bytes;
    size_t length;
} ZipMember;

/* The members sorted by name; caller frees *members. Fails on compressed and
 * encrypted ones, and on any that leave the file. */
bool zip_read(const uint8_t *file, size_t length, ZipMember **members, size_t *count, Error *err);
const ZipMember *zip_find(const ZipMember *members, size_t count, const char *name);
bool zip_is(const uint8_t *file, size_t length);

/* ---- the pickle (pickle.c) ---------------------------------------------------- */

enum { TORCH_DIMS = 16 };

typedef enum {
    PICKLE_NONE, /* also True, False, floats, long integers: what nothing here needs */
    PICKLE_INT,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT, /* items are key, value, key, value, ... */
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR
} PickleKind;

typedef struct PickleGlobal PickleGlobal;
typedef struct PickleValue PickleValue;
struct PickleValue {
    PickleKind kind;
    union {
        int64_t integer;
        struct {
            const char *bytes; /* of the pickle; not NUL-terminated */
            size_t length;
        } text;
        struct {
            PickleValue **items;
            size_t count, capacity;
        } list;
        const PickleGlobal *global;
        struct {
            const PickleValue *key; /* a text */
            mlx_dtype dtype;        /* MLX_BOOL and width 0: bytes without a type */
            size_t width;           /* bytes of an element */
            uint64_t count;         /* elements */
        } storage;
        struct {
            const PickleValue *storage;
            mlx_dtype dtype;
            size_t width;
            uint64_t offset; /* elements */
            int ndim;
            int shape[TORCH_DIMS];
            int64_t strides[TORCH_DIMS]; /* elements */
        } tensor;
    };
};

/* Reads one pickle from bytes[0..length). The values live in the arena and point
 * into bytes. *used (may be NULL): the bytes it took. NULL on failure. */
const PickleValue *pickle_read(const uint8_t *bytes, size_t length, Arena *arena, size_t *used,
                               Error *err);
bool pickle_text_is(const PickleValue *value, const char *text);

#endif
