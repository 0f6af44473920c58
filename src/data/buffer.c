/* Buffers: samples by index, computed at every access, from any thread. The
 * sources in memory and the operators that choose, order or change. */
#include "data/buffer.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- the common part ---------------------------------------------------------------- */

void *dx_buffer_node(const DxBufferKind *kind, size_t size, DxBuffer *upstream, int64_t count) {
    DxBuffer *buffer = base_calloc(1, size);
    buffer->kind = kind;
    atomic_init(&buffer->references, 1);
    buffer->upstream = upstream;
    buffer->count = count;
    return buffer;
}

DxBuffer *dx_buffer_retain(DxBuffer *buffer) {
    if (buffer) atomic_fetch_add(&buffer->references, 1);
    return buffer;
}

void dx_buffer_free(DxBuffer *buffer) {
    if (!buffer || atomic_fetch_sub(&buffer->references, 1) != 1) return;
    dx_buffer_free(buffer->upstream);
    if (buffer->kind->free) buffer->kind->free(buffer);
    free(buffer);
}

int64_t dx_buffer_count(const DxBuffer *buffer) {
    return buffer->count;
}

DxStatus dx_buffer_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                       Error *err) {
    *sample = NULL;
    if (index < 0 || index >= buffer->count) {
        base_fail(err, ERROR_INPUT, "%s: sample %lld of %lld", buffer->kind->name, (long long)index,
                  (long long)buffer->count);
        return DX_FAIL;
    }
    return buffer->kind->get(buffer, epoch, index, sample, err);
}

void dx_buffer_where(const DxBuffer *buffer, const DxRecord *record, StrBuf *text) {
    while (buffer && !buffer->kind->where) buffer = buffer->upstream;
    if (buffer)
        buffer->kind->where(buffer, record, text);
    else
        base_str_appendf(text, "record %llu", (unsigned long long)record->ordinal);
}

void dx_buffer_identity(const DxBuffer *buffer, StrBuf *text) {
    base_str_append(text, buffer->kind->name);
    if (buffer->kind->options) {
        base_str_append_char(text, '(');
        buffer->kind->options(buffer, text);
        base_str_append_char(text, ')');
    }
    if (!buffer->upstream) return;
    base_str_append(text, " of ");
    dx_buffer_identity(buffer->upstream, text);
}

void dx_fail_at(const char *name, const StrBuf *where, Error *err) {
    if (where && where->length)
        base_error_context(err, "%s: %s", where->data, name);
    else
        base_error_context(err, "%s", name);
}

/* ---- operators ---------------------------------------------------------------------- */

DxOp dx_op_copy(const DxOp *op) {
    DxOp copy = *op;
    copy.name = base_strdup(op->name);
    copy.options = op->options ? base_strdup(op->options) : NULL;
    return copy;
}

void dx_op_free(DxOp *op, void *self) {
    if (op->destroy) op->destroy(self);
    free((char *)(uintptr_t)op->name);
    free((char *)(uintptr_t)op->options);
}

void dx_op_identity(const DxOp *op, StrBuf *text) {
    base_str_appendf(text, "%s", op->name);
    if (op->options) base_str_appendf(text, ", %s", op->options);
    if (op->seed) base_str_appendf(text, ", seed %llu", (unsigned long long)op->seed);
}

DxStatus dx_op_apply(const DxOp *op, void *self, DxSample **sample, DxWhere where,
                     const void *context, Error *err) {
    const DxRecord record = *dx_sample_record(*sample);
    DxRandom random =
        dx_random_of(op->seed ^ base_hash(op->name, strlen(op->name)), record.epoch,
                     record.ordinal ^ (uint64_t)record.source << 48 ^ record.sub << 24);
    DxStatus status = op->apply(self, sample, &random, err);
    if (status == DX_OK) return status;
    dx_sample_free(*sample);
    *sample = NULL;
    if (status == DX_SKIP) return status;
    StrBuf text = {0};
    base_str_append(&text, "");
    if (where) where(context, &record, &text);
    dx_fail_at(op->name, &text, err);
    base_str_free(&text);
    return DX_FAIL;
}

typedef struct MapBuffer {
    DxBuffer base;
    DxOp op;
    void *self;
} MapBuffer;

static void where_in_buffer(const void *context, const DxRecord *record, StrBuf *text) {
    dx_buffer_where(context, record, text);
}

static DxStatus map_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                        Error *err) {
    const MapBuffer *map = (const MapBuffer *)buffer;
    DxStatus status = dx_buffer_get(buffer->upstream, epoch, index, sample, err);
    if (status != DX_OK) return status;
    return dx_op_apply(&map->op, map->self, sample, where_in_buffer, buffer->upstream, err);
}

static void map_options(const DxBuffer *buffer, StrBuf *text) {
    dx_op_identity(&((const MapBuffer *)buffer)->op, text);
}

static void map_free(DxBuffer *buffer) {
    MapBuffer *map = (MapBuffer *)buffer;
    dx_op_free(&map->op, map->self);
}

static const DxBufferKind map_kind = {"map", map_get, map_options, NULL, map_free};

DxBuffer *dx_buffer_map(DxBuffer *buffer, const DxOp *op, void *self, Error *err) {
    (void)err;
    if (!buffer) {
        if (op->destroy) op->destroy(self);
        return NULL;
    }
    MapBuffer *map = dx_buffer_node(&map_kind, sizeof *map, buffer, buffer->count);
    map->op = dx_op_copy(op);
    map->self = self;
    return &map->base;
}

/* ---- samples in memory ---------------------------------------------------------------- */

typedef struct MemoryBuffer {
    DxBuffer base;
    DxSample **samples;
} MemoryBuffer;

static DxStatus memory_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                           Error *err) {
    (void)err;
    *sample = dx_sample_retain(((const MemoryBuffer *)buffer)->samples[index]);
    if (dx_sample_record(*sample)->epoch != epoch)
        dx_sample_set_record(sample, (DxRecord){.epoch = epoch, .ordinal = (uint64_t)index});
    return DX_OK;
}

static void memory_options(const DxBuffer *buffer, StrBuf *text) {
    base_str_appendf(text, "%lld samples", (long long)buffer->count);
}

static void memory_free(DxBuffer *buffer) {
    MemoryBuffer *memory = (MemoryBuffer *)buffer;
    for (int64_t i = 0; i < buffer->count; i++) dx_sample_free(memory->samples[i]);
    free(memory->samples);
}

static const DxBufferKind memory_kind = {"samples", memory_get, memory_options, NULL, memory_free};

DxBuffer *dx_samples(DxSample *const *samples, size_t count, Error *err) {
    (void)err;
    MemoryBuffer *memory = dx_buffer_node(&memory_kind, sizeof *memory, NULL, (int64_t)count);
    memory->samples = base_calloc(count ? count : 1, sizeof *memory->samples);
    for (size_t i = 0; i < count; i++) {
        memory->samples[i] = dx_sample_retain(samples[i]);
        dx_sample_set_record(&memory->samples[i], (DxRecord){.ordinal = i});
    }
    return &memory->base;
}

/* ---- samples of the caller's making --------------------------------------------------- */

typedef struct CallbackBuffer {
    DxBuffer base;
    DxCallback callback;
    void *self;
} CallbackBuffer;

static DxStatus callback_get(const DxBuffer *buffer, uint64_t epoch, int64_t index,
                             DxSample **sample, Error *err) {
    const CallbackBuffer *node = (const CallbackBuffer *)buffer;
    *sample = dx_sample_new();
    dx_sample_set_record(sample, (DxRecord){.epoch = epoch, .ordinal = (uint64_t)index});
    DxStatus status = node->callback.get(node->self, epoch, index, sample, err);
    if (status == DX_OK) return DX_OK;
    dx_sample_free(*sample);
    *sample = NULL;
    if (status == DX_FAIL)
        base_error_context(err, "%s: record %lld", node->callback.name, (long long)index);
    return status;
}

static void callback_options(const DxBuffer *buffer, StrBuf *text) {
    base_str_appendf(text, "%s, %lld samples", ((const CallbackBuffer *)buffer)->callback.name,
                     (long long)buffer->count);
}

static void callback_where(const DxBuffer *buffer, const DxRecord *record, StrBuf *text) {
    base_str_appendf(text, "%s: record %llu", ((const CallbackBuffer *)buffer)->callback.name,
                     (unsigned long long)record->ordinal);
}

static void callback_free(DxBuffer *buffer) {
    CallbackBuffer *node = (CallbackBuffer *)buffer;
    if (node->callback.destroy) node->callback.destroy(node->self);
    free((char *)(uintptr_t)node->callback.name);
}

static const DxBufferKind callback_kind = {"callback", callback_get, callback_options,
                                           callback_where, callback_free};

DxBuffer *dx_buffer_callback(const DxCallback *callback, void *self, Error *err) {
    if (callback->count < 0) {
        base_fail(err, ERROR_INPUT, "%s: a buffer of %lld samples", callback->name,
                  (long long)callback->count);
        if (callback->destroy) callback->destroy(self);
        return NULL;
    }
    CallbackBuffer *node = dx_buffer_node(&callback_kind, sizeof *node, NULL, callback->count);
    node->callback = *callback;
    node->callback.name = base_strdup(callback->name);
    node->self = self;
    return &node->base;
}

/* ---- order and choice ------------------------------------------------------------------ */

typedef struct ShuffleBuffer {
    DxBuffer base;
    uint64_t seed;
} ShuffleBuffer;

static DxStatus shuffle_get(const DxBuffer *buffer, uint64_t epoch, int64_t index,
                            DxSample **sample, Error *err) {
    uint64_t other = dx_permute(((const ShuffleBuffer *)buffer)->seed, epoch,
                                (uint64_t)buffer->count, (uint64_t)index);
    return dx_buffer_get(buffer->upstream, epoch, (int64_t)other, sample, err);
}

static void shuffle_options(const DxBuffer *buffer, StrBuf *text) {
    base_str_appendf(text, "seed %llu", (unsigned long long)((const ShuffleBuffer *)buffer)->seed);
}

static const DxBufferKind shuffle_kind = {"shuffle", shuffle_get, shuffle_options, NULL, NULL};

DxBuffer *dx_buffer_shuffle(DxBuffer *buffer, uint64_t seed, Error *err) {
    (void)err;
    if (!buffer) return NULL;
    ShuffleBuffer *shuffle = dx_buffer_node(&shuffle_kind, sizeof *shuffle, buffer, buffer->count);
    shuffle->seed = seed;
    return &shuffle->base;
}

/* start, start + step, ... modulo the upstream's count: shards and ranges. */
typedef struct StrideBuffer {
    DxBuffer base;
    int64_t start, step;
} StrideBuffer;

static DxStatus stride_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                           Error *err) {
    const StrideBuffer *stride = (const StrideBuffer *)buffer;
    int64_t other = stride->start + index * stride->step;
    return dx_buffer_get(buffer->upstream, epoch, other % buffer->upstream->count, sample, err);
}

static void stride_options(const DxBuffer *buffer, StrBuf *text) {
    const StrideBuffer *stride = (const StrideBuffer *)buffer;
    base_str_appendf(text, "%lld from %lld by %lld", (long long)buffer->count,
                     (long long)stride->start, (long long)stride->step);
}

static const DxBufferKind shard_kind = {"shard", stride_get, stride_options, NULL, NULL};
static const DxBufferKind range_kind = {"range", stride_get, stride_options, NULL, NULL};

DxBuffer *dx_buffer_shard(DxBuffer *buffer, int world, int rank, DxTail tail, Error *err) {
    if (!buffer) return NULL;
    if (world < 1 || rank < 0 || rank >= world) {
        base_fail(err, ERROR_INPUT, "shard: rank %d of %d", rank, world);
        dx_buffer_free(buffer);
        return NULL;
    }
    int64_t share = buffer->count / world, rest = buffer->count % world;
    if (tail == DX_UNEVEN) share += rank < rest;
    if (tail == DX_WRAP) share += rest > 0;
    StrideBuffer *stride = dx_buffer_node(&shard_kind, sizeof *stride, buffer, share);
    stride->start = rank;
    stride->step = world;
    return &stride->base;
}

DxBuffer *dx_buffer_range(DxBuffer *buffer, int64_t start, int64_t count, Error *err) {
    if (!buffer) return NULL;
    if (start < 0) {
        base_fail(err, ERROR_INPUT, "range: it cannot begin at %lld", (long long)start);
        dx_buffer_free(buffer);
        return NULL;
    }
    start = BASE_MIN(start, buffer->count);
    if (count < 0 || count > buffer->count - start) count = buffer->count - start;
    StrideBuffer *stride = dx_buffer_node(&range_kind, sizeof *stride, buffer, count);
    stride->start = start;
    stride->step = 1;
    return &stride->base;
}

typedef struct PickBuffer {
    DxBuffer base;
    int64_t *indices;
    uint64_t hash; /* of them, for saved states */
} PickBuffer;

static DxStatus pick_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                         Error *err) {
    return dx_buffer_get(buffer->upstream, epoch, ((const PickBuffer *)buffer)->indices[index],
                         sample, err);
}

static void pick_options(const DxBuffer *buffer, StrBuf *text) {
    const PickBuffer *pick = (const PickBuffer *)buffer;
    base_str_appendf(text, "%lld, %016llx", (long long)buffer->count,
                     (unsigned long long)pick->hash);
}

static void pick_free(DxBuffer *buffer) {
    free(((PickBuffer *)buffer)->indices);
}

static const DxBufferKind pick_kind = {"pick", pick_get, pick_options, NULL, pick_free};

DxBuffer *dx_buffer_pick(DxBuffer *buffer, const int64_t *indices, size_t count, Error *err) {
    if (!buffer) return NULL;
    for (size_t i = 0; i < count; i++) {
        if (indices[i] >= 0 && indices[i] < buffer->count) continue;
        base_fail(err, ERROR_INPUT, "pick: sample %lld of %lld", (long long)indices[i],
                  (long long)buffer->count);
        dx_buffer_free(buffer);
        return NULL;
    }
    PickBuffer *pick = dx_buffer_node(&pick_kind, sizeof *pick, buffer, (int64_t)count);
    pick->indices = base_calloc(count ? count : 1, sizeof *indices);
    if (count) memcpy(pick->indices, indices, count * sizeof *indices);
    pick->hash = base_hash(pick->indices, count * sizeof *indices);
    return &pick->base;
}

/* ---- one after another ------------------------------------------------------------------- */

typedef struct AppendBuffer {
    DxBuffer base;
    DxBuffer **parts;
    int64_t *starts; /* of each part, and the end of all */
    size_t n_parts;
} AppendBuffer;

static DxStatus append_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                           Error *err) {
    const AppendBuffer *append = (const AppendBuffer *)buffer;
    size_t low = 0, high = append->n_parts;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (append->starts[middle] <= index)
            low = middle;
        else
            high = middle;
    }
    DxStatus status =
        dx_buffer_get(append->parts[low], epoch, index - append->starts[low], sample, err);
    if (status != DX_OK) return status;
    DxRecord record = *dx_sample_record(*sample);
    record.source = record.source * (uint32_t)append->n_parts + (uint32_t)low;
    dx_sample_set_record(sample, record);
    return DX_OK;
}

static void append_options(const DxBuffer *buffer, StrBuf *text) {
    const AppendBuffer *append = (const AppendBuffer *)buffer;
    for (size_t i = 0; i < append->n_parts; i++) {
        if (i) base_str_append(text, "; ");
        dx_buffer_identity(append->parts[i], text);
    }
}

static void append_where(const DxBuffer *buffer, const DxRecord *record, StrBuf *text) {
    const AppendBuffer *append = (const AppendBuffer *)buffer;
    DxRecord inner = *record;
    inner.source /= (uint32_t)append->n_parts;
    dx_buffer_where(append->parts[record->source % append->n_parts], &inner, text);
}

static void append_free(DxBuffer *buffer) {
    AppendBuffer *append = (AppendBuffer *)buffer;
    for (size_t i = 0; i < append->n_parts; i++) dx_buffer_free(append->parts[i]);
    free(append->parts);
    free(append->starts);
}

static const DxBufferKind append_kind = {"append", append_get, append_options, append_where,
                                         append_free};

DxBuffer *dx_buffer_append(DxBuffer *const *buffers, size_t count, Error *err) {
    bool whole = count > 0;
    for (size_t i = 0; i < count; i++) whole = whole && buffers[i];
    if (!whole) {
        if (count == 0) base_fail(err, ERROR_INPUT, "append: no buffers");
        for (size_t i = 0; i < count; i++) dx_buffer_free(buffers[i]);
        return NULL;
    }
    AppendBuffer *append = dx_buffer_node(&append_kind, sizeof *append, NULL, 0);
    append->parts = base_calloc(count, sizeof *append->parts);
    append->starts = base_calloc(count + 1, sizeof *append->starts);
    append->n_parts = count;
    for (size_t i = 0; i < count; i++) {
        append->parts[i] = buffers[i];
        append->starts[i + 1] = append->starts[i] + buffers[i]->count;
    }
    append->base.count = append->starts[count];
    return &append->base;
}
