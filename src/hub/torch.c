/* Tensors of PyTorch's files: storages are found in the mapped file, tensors are
 * views of them. Both forms: the zip (since PyTorch 1.6) and the plain file
 * before it, which is a row of pickles and then the storages one by one. */
#include "hub/torch.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Larger tensors that repeat their storage are refused: memory that a few bytes
 * of a file could ask for. */
enum { REPEAT_LIMIT = 64 << 20, PICKLE_LIMIT = 512 << 20 };

/* The file stays mapped while any array uses it. */
typedef struct TorchMap {
    _Atomic int refs;
    MappedFile file;
} TorchMap;

typedef struct Storage {
    const uint8_t *bytes;
    size_t length;
    const PickleValue *key;
} Storage;

typedef struct Torch {
    TorchMap *map;
    Arena *arena;
    ZipMember *members; /* of a zip */
    size_t member_count;
    char *root;        /* the folder of its members, with the slash */
    Storage *storages; /* of a plain file */
    size_t storage_count;
    MxFileVisitor visitor;
    size_t shown;
    Error *err;
} Torch;

static void map_release(void *payload) {
    TorchMap *map = payload;
    if (atomic_fetch_sub_explicit(&map->refs, 1, memory_order_acq_rel) != 1) return;
    base_map_close(&map->file);
    free(map);
}

/* ---- storages ------------------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    const PickleValue *one = ((const Storage *)a)->key, *other = ((const Storage *)b)->key;
    const size_t shorter = BASE_MIN(one->text.length, other->text.length);
    const int order = memcmp(one->text.bytes, other->text.bytes, shorter);
    return order
               ? order
               : (one->text.length > other->text.length) - (one->text.length < other->text.length);
}

static bool find_storage(const Torch *torch, const PickleValue *storage, Storage *found) {
    const PickleValue *key = storage->storage.key;
    if (!torch->members) {
        const Storage wanted = {.key = key};
        const Storage *held =
            torch->storage_count
                ? bsearch(&wanted, torch->storages, torch->storage_count, sizeof wanted, by_key)
                : NULL;
        if (held) *found = *held;
        return held != NULL;
    }
    char *name = base_format("%sdata/%.*s", torch->root, (int)BASE_MIN(key->text.length, 4096),
                             key->text.bytes);
    const ZipMember *member = zip_find(torch->members, torch->member_count, name);
    free(name);
    if (member) *found = (Storage){.bytes = member->bytes, .length = member->length};
    return member != NULL;
}

/* ---- tensors ----------------------------------------------------------------------- */

static bool is_row_major(const PickleValue *tensor) {
    int64_t expected = 1;
    for (int i = tensor->tensor.ndim - 1; i >= 0; i--) {
        if (tensor->tensor.shape[i] > 1 && tensor->tensor.strides[i] != expected) return false;
        if (tensor->tensor.shape[i] == 0) return true;
        expected *= tensor->tensor.shape[i];
    }
    return true;
}

/* Elements; false when they do not fit into 64 bits. */
static bool elements_of(const PickleValue *tensor, uint64_t *count) {
    *count = 1;
    for (int i = 0; i < tensor->tensor.ndim; i++)
        if (tensor->tensor.shape[i] == 0) {
            *count = 0;
            return true;
        }
    for (int i = 0; i < tensor->tensor.ndim; i++)
        if (__builtin_mul_overflow(*count, (uint64_t)tensor->tensor.shape[i], count)) return false;
    return true;
}

/* Elements from the first to the last. */
static uint64_t span_of(const PickleValue *tensor) {
    uint64_t last = 0;
    for (int i = 0; i < tensor->tensor.ndim; i++)
        if (tensor->tensor.shape[i] > 1)
            last += (uint64_t)(tensor->tensor.shape[i] - 1) * (uint64_t)tensor->tensor.strides[i];
    return last + 1;
}

static mlx_array view(const Torch *torch, const uint8_t *bytes, const int *shape, int ndim,
                      mlx_dtype dtype) {
    atomic_fetch_add_explicit(&torch->map->refs, 1, memory_order_relaxed);
    return mx_own(mlx_array_new_data_managed_payload((void *)(uintptr_t)bytes, shape, ndim, dtype,
                                                     torch->map, map_release));
}

/* Strided tensors are laid out in rows when they are evaluated. */
static mlx_array strided(const Torch *torch, const PickleValue *tensor, const uint8_t *first) {
    const int span = (int)span_of(tensor);
    mlx_array flat = view(torch, first, &span, 1, tensor->tensor.dtype);
    mlx_array result = mlx_array_new();
    if (mlx_as_strided(&result, flat, tensor->tensor.shape, (size_t)tensor->tensor.ndim,
                       tensor->tensor.strides, (size_t)tensor->tensor.ndim, 0, mx_stream()) != 0)
        mx_fail("a strided tensor cannot be viewed");
    return mx_contiguous(mx_own(result));
}

static bool tensor_array(const Torch *torch, const PickleValue *tensor, mlx_array *array) {
    const PickleValue *storage = tensor->tensor.storage;
    const size_t width = tensor->tensor.width;
    const size_t unit = storage->storage.width ? storage->storage.width : 1;
    uint64_t count;
    Storage found;
    if (!find_storage(torch, storage, &found))
        return base_fail(torch->err, ERROR_INPUT, "its storage %.*s is not in the file",
                         (int)BASE_MIN(storage->storage.key->text.length, 60),
                         storage->storage.key->text.bytes);
    if (storage->storage.count > found.length / unit)
        return base_fail(torch->err, ERROR_INPUT,
                         "its storage has %zu bytes, %llu elements need more", found.length,
                         (unsigned long long)storage->storage.count);
    if (!elements_of(tensor, &count) || count > INT64_MAX / width)
        return base_fail(torch->err, ERROR_MEMORY, "is too large");
    if (count == 0) {
        *array = mx_zeros(tensor->tensor.shape, (size_t)tensor->tensor.ndim, tensor->tensor.dtype);
    } else {
        const uint8_t *first = found.bytes + tensor->tensor.offset * width;
        const uint64_t span = span_of(tensor);
        if (span > INT_MAX && !is_row_major(tensor))
            return base_fail(torch->err, ERROR_UNSUPPORTED, "is strided over too many elements");
        if (count > span && count * width > REPEAT_LIMIT)
            return base_fail(torch->err, ERROR_INPUT,
                             "repeats %llu elements to %llu, refused as a bomb",
                             (unsigned long long)span, (unsigned long long)count);
        *array = is_row_major(tensor) ? view(torch, first, tensor->tensor.shape,
                                             tensor->tensor.ndim, tensor->tensor.dtype)
                                      : strided(torch, tensor, first);
    }
    if (tensor->tensor.dtype == MLX_FLOAT64) *array = mx_cast(*array, MLX_FLOAT32);
    return mx_check(torch->err);
}

static bool show_tensor(Torch *torch, const PickleValue *key, const PickleValue *tensor) {
    const char *text = key->text.bytes;
    const size_t length = key->text.length;
    if (length == 0 || length > 4096 || memchr(text, 0, length) || !base_utf8_valid(text, length))
        return base_fail(torch->err, ERROR_INPUT, "a tensor's name is not a name");
    char *name = base_strndup(text, length);
    mlx_array array = {0};
    const bool good =
        tensor_array(torch, tensor, &array) || base_error_context(torch->err, "tensor %s", name);
    if (good) torch->visitor.tensor(torch->visitor.context, name, array);
    torch->shown += good;
    free(name);
    return good;
}

static const PickleValue *value_of(const PickleValue *dict, const char *key) {
    for (size_t i = 0; i + 1 < dict->list.count; i += 2)
        if (pickle_text_is(dict->list.items[i], key)) return dict->list.items[i + 1];
    return NULL;
}

/* The dictionary's own tensors; of a training checkpoint, those of its state_dict
 * or model. */
static bool show_dict(Torch *torch, const PickleValue *root) {
    static const char *const inner[] = {"state_dict", "model"};
    if (root->kind != PICKLE_DICT)
        return base_fail(torch->err, ERROR_UNSUPPORTED, "holds no dictionary of tensors");
    for (size_t i = 0; i < BASE_COUNT(inner); i++) {
        const PickleValue *dict = value_of(root, inner[i]);
        if (dict && dict->kind == PICKLE_DICT) {
            root = dict;
            break;
        }
    }
    for (size_t i = 0; i + 1 < root->list.count; i += 2) {
        const PickleValue *key = root->list.items[i], *value = root->list.items[i + 1];
        if (key->kind != PICKLE_TEXT || value->kind != PICKLE_TENSOR) continue;
        if (!show_tensor(torch, key, value)) return false;
    }
    return torch->shown > 0 || base_fail(torch->err, ERROR_INPUT, "holds no tensors");
}

/* ---- the two forms -------------------------------------------------------------------- */

/* Members are <root>/data.pkl, <root>/data/<key>, <root>/byteorder. */
static const ZipMember *find_pickle(Torch *torch) {
    static const char tail[] = "data.pkl";
    for (size_t i = 0; i < torch->member_count; i++) {
        const ZipMember *member = &torch->members[i];
        const size_t length = member->name_length;
        if (length < strlen(tail) ||
            memcmp(member->name + length - strlen(tail), tail, strlen(tail)))
            continue;
        torch->root = base_strndup(member->name, length - strlen(tail));
        return member;
    }
    base_fail(torch->err, ERROR_INPUT, "a zip without data.pkl: not written by torch.save");
    return NULL;
}

static bool read_zip(Torch *torch) {
    const MappedFile *file = &torch->map->file;
    if (!zip_read(file->data, file->length, &torch->members, &torch->member_count, torch->err))
        return false;
    const ZipMember *pickle = find_pickle(torch);
    if (!pickle) return false;
    char *name = base_format("%sbyteorder", torch->root);
    const ZipMember *order = zip_find(torch->members, torch->member_count, name);
    free(name);
    if (order && (order->length < 6 || memcmp(order->bytes, "little", 6) != 0))
        return base_fail(torch->err, ERROR_UNSUPPORTED, "its numbers are not little-endian");
    if (pickle->length > PICKLE_LIMIT)
        return base_fail(torch->err, ERROR_INPUT, "its pickle of %zu bytes is too large",
                         pickle->length);
    const PickleValue *root =
        pickle_read(pickle->bytes, pickle->length, torch->arena, NULL, torch->err);
    return root && show_dict(torch, root);
}

/* Adds the storages of a dictionary's tensors, `length` being an element's width
 * until they are placed. */
static void collect_storages(Torch *torch, const PickleValue *dict, size_t *capacity, int depth) {
    for (size_t i = 1; i < dict->list.count; i += 2) {
        const PickleValue *value = dict->list.items[i];
        if (value->kind == PICKLE_DICT && depth == 0) collect_storages(torch, value, capacity, 1);
        if (value->kind != PICKLE_TENSOR) continue;
        const PickleValue *storage = value->tensor.storage;
        torch->storages =
            base_grow(torch->storages, capacity, torch->storage_count + 1, sizeof *torch->storages);
        torch->storages[torch->storage_count++] =
            (Storage){.length = storage->storage.width, .key = storage->storage.key};
    }
}

/* The keys come as a list, then for each the count of its elements and their
 * bytes; how wide an element is, only the tensors say. */
static bool place_storages(Torch *torch, const PickleValue *root, const PickleValue *keys,
                           size_t at) {
    const MappedFile *file = &torch->map->file;
    size_t capacity = 0;
    if (keys->kind != PICKLE_LIST || root->kind != PICKLE_DICT)
        return base_fail(torch->err, ERROR_UNSUPPORTED, "holds no dictionary of tensors");
    collect_storages(torch, root, &capacity, 0);
    if (torch->storage_count > 1)
        qsort(torch->storages, torch->storage_count, sizeof *torch->storages, by_key);
    Storage *placed = base_calloc(keys->list.count + 1, sizeof *placed);
    bool good = true;
    for (size_t i = 0; i < keys->list.count && good; i++) {
        placed[i].key = keys->list.items[i];
        const Storage *known =
            placed[i].key->kind == PICKLE_TEXT && torch->storage_count
                ? bsearch(&placed[i], torch->storages, torch->storage_count, sizeof *placed, by_key)
                : NULL;
        uint64_t count = 0, bytes = 0;
        if (!known)
            good = base_fail(torch->err, ERROR_UNSUPPORTED, "a storage belongs to no tensor");
        else if (file->length - at < 8)
            good = base_fail(torch->err, ERROR_INPUT, "is truncated");
        if (!good) break;
        for (int k = 7; k >= 0; k--) count = count << 8 | file->data[at + (size_t)k];
        at += 8;
        if (__builtin_mul_overflow(count, known->length, &bytes) || bytes > file->length - at)
            good = base_fail(torch->err, ERROR_INPUT, "is truncated");
        placed[i].bytes = file->data + at;
        placed[i].length = (size_t)bytes;
        at += good ? (size_t)bytes : 0;
    }
    free(torch->storages);
    torch->storages = placed;
    torch->storage_count = good ? keys->list.count : 0;
    if (torch->storage_count > 1) qsort(placed, torch->storage_count, sizeof *placed, by_key);
    return good;
}

/* Pickles of a magic number, the version 1001, facts about the machine, the value
 * itself, the storages' keys. */
static bool read_plain(Torch *torch) {
    enum { MAGIC, VERSION, MACHINE, ROOT, KEYS, PICKLES };
    static const uint8_t magic[] = {0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                    0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
    const MappedFile *file = &torch->map->file;
    const PickleValue *values[PICKLES];
    /* Protocol 4 puts the length of a frame before it. */
    const size_t framed = file->length > 2 && file->data[2] == 0x95 ? 9 : 0;
    if (file->length < 2 + framed + sizeof magic || file->data[0] != 0x80 ||
        memcmp(file->data + 2 + framed, magic, sizeof magic) != 0)
        return base_fail(torch->err, ERROR_INPUT, "is not a file of torch.save");
    size_t at = 0;
    for (int i = 0; i < PICKLES; i++) {
        size_t used = 0;
        const size_t room = BASE_MIN(file->length - at, (size_t)PICKLE_LIMIT);
        values[i] = pickle_read(file->data + at, room, torch->arena, &used, torch->err);
        if (!values[i]) return false;
        at += used;
    }
    if (values[VERSION]->kind != PICKLE_INT || values[VERSION]->integer != 1001)
        return base_fail(torch->err, ERROR_UNSUPPORTED, "its version is not known");
    return place_storages(torch, values[ROOT], values[KEYS], at) && show_dict(torch, values[ROOT]);
}

bool hub_torch_load(const char *path, MxFileVisitor visitor, Error *err) {
    Error failure = {0};
    Torch torch = {.map = base_calloc(1, sizeof *torch.map), .visitor = visitor, .err = &failure};
    torch.map->refs = 1;
    if (!base_map_open(path, &torch.map->file, err)) {
        free(torch.map);
        return false;
    }
    torch.arena = base_arena_new();
    mx_scope scope = mx_open();
    const bool good = zip_is(torch.map->file.data, torch.map->file.length) ? read_zip(&torch)
                                                                           : read_plain(&torch);
    mx_drop(scope);
    if (!good) base_error_context(&failure, "%s", path);
    if (!good && err && err->code == ERROR_NONE) *err = failure;
    base_arena_free(torch.arena);
    free(torch.members);
    free(torch.storages);
    free(torch.root);
    map_release(torch.map);
    return good;
}
