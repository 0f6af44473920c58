/* Reading GGUF, versions 2 and 3: metadata, a list of tensors, then their data.
 * Plain types are views of the mapped file; the others are read from it when they are
 * evaluated: Q4_0, Q4_1 and Q8_0 repacked into MLX's affine layout without a change of
 * value, bfloat16 and the other block types as float16. Dimensions are stored innermost first and
 * come out reversed. Every length is checked against the file before it is used. */
#include "engine/cpu/kernels.h"
#include "engine/io/gguf_blocks.h"
#include "engine/io/gguf_object.h"
#include "engine/io/io.h"
#include "engine/ops/ops.h"
#include "mlx/c/io.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reader {
    SharedMap *map;
    const uint8_t *data;
    size_t length, at;
    size_t claimed; /* bytes of the tensors so far */
    uint64_t alignment;
    Gguf *gguf;
    Error *err;
} Reader;

/* ---- bytes ---- */

/* The next `bytes` bytes, or NULL and an error when the file ends before. */
static const uint8_t *take(Reader *reader, size_t bytes) {
    if (bytes > reader->length - reader->at) {
        base_fail(reader->err, ERROR_INPUT,
                  "the file ends inside its header (byte %zu of %zu); is the download complete?",
                  reader->at, reader->length);
        return NULL;
    }
    const uint8_t *data = reader->data + reader->at;
    reader->at += bytes;
    return data;
}

static bool take_u32(Reader *reader, uint32_t *value) {
    const uint8_t *bytes = take(reader, 4);
    if (!bytes) return false;
    *value = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
             (uint32_t)bytes[3] << 24;
    return true;
}

static bool take_u64(Reader *reader, uint64_t *value) {
    uint32_t low, high;
    if (!take_u32(reader, &low) || !take_u32(reader, &high)) return false;
    *value = (uint64_t)high << 32 | low;
    return true;
}

/* A copy, ended by NUL; NULL and an error when the file ends before. Caller frees. */
static char *take_string(Reader *reader) {
    uint64_t length;
    if (!take_u64(reader, &length)) return NULL;
    const uint8_t *bytes = take(reader, length > SIZE_MAX ? SIZE_MAX : (size_t)length);
    return bytes ? base_strndup((const char *)bytes, (size_t)length) : NULL;
}

/* ---- metadata ---- */

static Node *take_numbers(Reader *reader, uint32_t type, size_t count, bool list) {
    const mlx_dtype dtype = gguf_value_dtypes[type];
    const size_t itemsize = dtype_info[dtype].size;
    if (count > (reader->length - reader->at) / itemsize || count > INT_MAX) {
        take(reader, SIZE_MAX);
        return NULL;
    }
    const uint8_t *bytes = take(reader, count * itemsize);
    const int shape[1] = {(int)count};
    if (type != GGUF_VALUE_FLOAT64 && type != GGUF_VALUE_BOOL)
        return node_from_data(bytes, dtype, shape, list ? 1 : 0);

    /* MLX has doubles as float32 here; a bool may be any byte. */
    Node *node =
        node_from_data(NULL, type == GGUF_VALUE_BOOL ? MLX_BOOL : MLX_FLOAT32, shape, list ? 1 : 0);
    for (size_t i = 0; node && i < count; i++) {
        double value;
        if (type == GGUF_VALUE_BOOL) {
            ((bool *)node_data(node))[i] = bytes[i] != 0;
        } else {
            memcpy(&value, bytes + i * sizeof value, sizeof value);
            ((float *)node_data(node))[i] = (float)value;
        }
    }
    return node;
}

static Vector *take_string_list(Reader *reader, size_t count) {
    Vector *texts = vector_new(&element_text);
    for (size_t i = 0; i < count; i++) {
        char *text = take_string(reader);
        if (!text) {
            vector_free(texts);
            return NULL;
        }
        vector_append_owned(texts, text);
    }
    return texts;
}

static bool take_value(Reader *reader, const char *key, const ElementKind **kind, void **value) {
    uint32_t type, item_type;
    uint64_t count = 1;
    if (!take_u32(reader, &type)) return false;
    const bool list = type == GGUF_VALUE_ARRAY;
    item_type = type;
    if (list && (!take_u32(reader, &item_type) || !take_u64(reader, &count))) return false;
    if (item_type >= GGUF_VALUE_TYPES || item_type == GGUF_VALUE_ARRAY)
        return base_fail(reader->err, ERROR_UNSUPPORTED, "metadata %s: unknown type %u", key,
                         item_type);
    if (count > reader->length) return take(reader, SIZE_MAX) != NULL;
    if (item_type != GGUF_VALUE_STRING) {
        *kind = &element_node;
        *value = take_numbers(reader, item_type, (size_t)count, list);
    } else if (list) {
        *kind = &element_vector;
        *value = take_string_list(reader, (size_t)count);
    } else {
        *kind = &element_text;
        *value = take_string(reader);
    }
    return *value != NULL;
}

static bool take_metadata(Reader *reader) {
    const ElementKind *kind = NULL;
    void *value = NULL;
    char *key = take_string(reader);
    if (!key) return false;
    const bool ok = take_value(reader, key, &kind, &value);
    if (ok) map_insert_owned(reader->gguf->metadata, key, kind, value);
    if (!ok) base_fail(reader->err, ERROR_MEMORY, "metadata %s: out of memory", key);
    free(key);
    return ok;
}

/* ---- tensors ---- */

typedef struct Tensor {
    char *name;
    const GgufType *type;
    uint64_t offset;
    int shape[GGUF_DIMS], ndim;
    size_t size, bytes;
} Tensor;

static bool take_tensor(Reader *reader, Tensor *tensor) {
    uint32_t ndim, type;
    if (!(tensor->name = take_string(reader)) || !take_u32(reader, &ndim)) return false;
    if (ndim > GGUF_DIMS)
        return base_fail(reader->err, ERROR_INPUT, "tensor %s: %u dimensions", tensor->name, ndim);
    tensor->ndim = (int)ndim;
    for (uint32_t i = ndim; i-- > 0;) {
        uint64_t dimension;
        if (!take_u64(reader, &dimension)) return false;
        if (dimension > INT_MAX)
            return base_fail(reader->err, ERROR_INPUT, "tensor %s: a dimension of %llu",
                             tensor->name, (unsigned long long)dimension);
        tensor->shape[i] = (int)dimension;
    }
    if (!take_u32(reader, &type) || !take_u64(reader, &tensor->offset)) return false;
    tensor->type = gguf_type(type);
    if (!tensor->type)
        return base_fail(reader->err, ERROR_UNSUPPORTED, "tensor %s: GGUF type %u is not supported",
                         tensor->name, type);
    return true;
}

static bool check_tensor(Reader *reader, Tensor *tensor, size_t data_start) {
    const size_t items = tensor->type->items, available = reader->length - data_start;
    if (!shape_size(tensor->shape, tensor->ndim, &tensor->size))
        return base_fail(reader->err, ERROR_INPUT, "tensor %s: shape %s is too large", tensor->name,
                         shape_text(&(ShapeText){{0}}, tensor->shape, tensor->ndim));
    if (items > 1 && (tensor->ndim == 0 || (size_t)tensor->shape[tensor->ndim - 1] % items != 0))
        return base_fail(reader->err, ERROR_INPUT, "tensor %s: rows are not whole %s blocks of %zu",
                         tensor->name, tensor->type->name, items);
    const size_t blocks = tensor->size / items;
    if (blocks > SIZE_MAX / tensor->type->bytes || tensor->offset > available ||
        blocks * tensor->type->bytes > available - tensor->offset)
        return base_fail(reader->err, ERROR_INPUT,
                         "tensor %s lies beyond the end of the file; is the download complete?",
                         tensor->name);
    tensor->bytes = blocks * tensor->type->bytes;
    reader->claimed += tensor->bytes;
    if (reader->claimed > available)
        return base_fail(reader->err, ERROR_INPUT, "tensor %s overlaps another one", tensor->name);
    return true;
}

/* What one array takes of a tensor's blocks. */
typedef enum { PART_VALUES, PART_PACKED, PART_SCALES, PART_BIASES } BlockPart;

typedef struct BlockParam {
    const GgufType *type;
    const uint8_t *in;
    BlockPart part;
} BlockParam;

typedef struct BlockJob {
    const BlockParam *param;
    void *out;
} BlockJob;

static void read_blocks(void *context, size_t begin, size_t end, int thread) {
    const BlockJob *job = context;
    const GgufType *type = job->param->type;
    (void)thread;
    for (size_t block = begin; block < end; block++) {
        const uint8_t *in = job->param->in + block * type->bytes;
        float values[GGUF_BLOCK_MAX];
        uint32_t packed[GGUF_AFFINE_GROUP];
        uint16_t scale, bias, *halves = job->out;
        if (job->param->part == PART_VALUES) {
            type->expand(in, values);
            for (size_t i = 0; i < type->items; i++)
                halves[block * type->items + i] = cpu_f16_from_f32(values[i]);
            continue;
        }
        type->repack(in, packed, &scale, &bias);
        if (job->param->part == PART_PACKED)
            memcpy((uint32_t *)job->out + block * type->bits, packed, type->bits * sizeof *packed);
        else
            halves[block] = job->param->part == PART_SCALES ? scale : bias;
    }
}

enum { BLOCK_GRAIN = 4096 };

/* Takes over node, also when it fails. */
static bool insert_array(Reader *reader, const char *name, Node *node) {
    if (!node) return base_fail(reader->err, ERROR_MEMORY, "tensor %s: out of memory", name);
    if (map_find(reader->gguf->arrays, name)) {
        node_release(node);
        return base_fail(reader->err, ERROR_INPUT, "two tensors are named %s", name);
    }
    map_insert_owned(reader->gguf->arrays, name, &element_node, node);
    return true;
}

static bool blocks_eval(Node *node, Error *err) {
    const BlockParam *param = node->param;
    if (!node_alloc(node, err)) return false;
    BlockJob job = {.param = param, .out = node_data(node)};
    const size_t items = param->part == PART_VALUES   ? param->type->items
                         : param->part == PART_PACKED ? param->type->bits
                                                      : 1;
    const size_t blocks = node->size / items;
    base_parallel_for(blocks, BLOCK_GRAIN, read_blocks, &job);
    base_map_forget(param->in, blocks * param->type->bytes);
    return true;
}

static const Op blocks_op = {"load", blocks_eval, NULL};

/* An array that is read from the blocks when it is evaluated. */
static Node *lazy_part(const Reader *reader, const Tensor *tensor, const uint8_t *data,
                       BlockPart part, mlx_dtype dtype, const int *shape) {
    const BlockParam param = {tensor->type, data, part};
    return shared_map_lazy(reader->map, &blocks_op, dtype, shape, tensor->ndim, &param,
                           sizeof param);
}

/* X.weight becomes X.weight, X.scales and X.biases. */
static bool load_affine(Reader *reader, const Tensor *tensor, const uint8_t *data) {
    const int last = tensor->ndim - 1;
    int packed_shape[GGUF_DIMS], group_shape[GGUF_DIMS];
    memcpy(packed_shape, tensor->shape, sizeof packed_shape);
    memcpy(group_shape, tensor->shape, sizeof group_shape);
    group_shape[last] = tensor->shape[last] / GGUF_AFFINE_GROUP;
    packed_shape[last] = group_shape[last] * tensor->type->bits;
    const size_t length = strlen(tensor->name);
    const int stem = base_ends_with(tensor->name, ".weight") ? (int)length - 7 : (int)length;
    char *scales = base_format("%.*s.scales", stem, tensor->name);
    char *biases = base_format("%.*s.biases", stem, tensor->name);
    bool ok = insert_array(reader, tensor->name,
                           lazy_part(reader, tensor, data, PART_PACKED, MLX_UINT32, packed_shape));
    ok = insert_array(reader, scales,
                      lazy_part(reader, tensor, data, PART_SCALES, MLX_FLOAT16, group_shape)) &&
         ok;
    ok = insert_array(reader, biases,
                      lazy_part(reader, tensor, data, PART_BIASES, MLX_FLOAT16, group_shape)) &&
         ok;
    free(scales);
    free(biases);
    return ok;
}

static bool load_tensor(Reader *reader, Tensor *tensor, size_t data_start) {
    if (!check_tensor(reader, tensor, data_start)) return false;
    const uint8_t *data = reader->data + data_start + tensor->offset;
    if (tensor->type->repack) return load_affine(reader, tensor, data);
    if (tensor->type->expand)
        return insert_array(
            reader, tensor->name,
            lazy_part(reader, tensor, data, PART_VALUES, MLX_FLOAT16, tensor->shape));
    Node *node =
        shared_map_array(reader->map, data, tensor->type->dtype, tensor->shape, tensor->ndim);
    if (tensor->type->dtype == MLX_BFLOAT16) {
        Node *half = op_astype(node, MLX_FLOAT16);
        node_release(node);
        node = half;
    }
    return insert_array(reader, tensor->name, node);
}

static bool load_tensors(Reader *reader, size_t count) {
    Tensor *tensors = base_try_alloc(count + 1, sizeof *tensors, reader->err);
    if (!tensors) return false;
    memset(tensors, 0, (count + 1) * sizeof *tensors);
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++) ok = take_tensor(reader, &tensors[i]);
    const uint64_t past = reader->at % reader->alignment;
    const uint64_t padding = past ? reader->alignment - past : 0;
    if (ok && count) ok = take(reader, (size_t)padding) != NULL;
    for (size_t i = 0; i < count && ok; i++) ok = load_tensor(reader, &tensors[i], reader->at);
    for (size_t i = 0; i < count; i++) free(tensors[i].name);
    free(tensors);
    return ok;
}

static bool load_file(Reader *reader) {
    uint32_t version;
    uint64_t tensor_count, metadata_count;
    const uint8_t *magic = take(reader, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0) {
        base_error_clear(reader->err);
        return base_fail(reader->err, ERROR_INPUT, "not a GGUF file");
    }
    if (!take_u32(reader, &version)) return false;
    if (version != 2 && version != 3)
        return base_fail(reader->err, ERROR_UNSUPPORTED, "GGUF version %u is not supported",
                         version);
    if (!take_u64(reader, &tensor_count) || !take_u64(reader, &metadata_count)) return false;
    /* The shortest tensor entry has 24 bytes. */
    if (tensor_count > reader->length / 24) return take(reader, SIZE_MAX) != NULL;
    for (uint64_t i = 0; i < metadata_count; i++)
        if (!take_metadata(reader)) return false;
    return gguf_alignment(reader->gguf, &reader->alignment, reader->err) &&
           load_tensors(reader, (size_t)tensor_count);
}

int mlx_load_gguf(mlx_io_gguf *gguf, const char *file, const mlx_stream s) {
    Error err = {0};
    if (!stream_ok(s)) return 1;
    Reader reader = {.map = shared_map_open(file, &err), .err = &err};
    bool ok = reader.map != NULL;
    if (ok) {
        reader.data = reader.map->file.data;
        reader.length = reader.map->file.length;
        reader.gguf = gguf_new();
        ok = load_file(&reader) || base_error_context(&err, "%s", file);
        shared_map_release(reader.map);
    }
    if (!ok) {
        op_error("[load_gguf] %s", err.message);
        gguf_free(reader.gguf);
        return 1;
    }
    if (!gguf->ctx) {
        gguf->ctx = reader.gguf;
        return 0;
    }
    Gguf *existing = gguf->ctx;
    void *arrays = existing->arrays, *metadata = existing->metadata;
    map_finish(&arrays, reader.gguf->arrays);
    map_finish(&metadata, reader.gguf->metadata);
    free(reader.gguf);
    return 0;
}
