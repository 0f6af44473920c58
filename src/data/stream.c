/* Streams: the common part of every node, saved states with their envelope, and the
 * sources that are buffers or the caller's own.
 *
 * A state is a tree like the pipeline: of each node its identity (name and options),
 * its place, and then the states of its inputs. The envelope has a magic number, the
 * length and a hash. Loading first compares all identities, and changes something
 * only when all agree. */
#include "data/stream.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- nodes ------------------------------------------------------------------------- */

void *dx_stream_node(const DxStreamKind *kind, size_t size, DxStream *const *inputs, size_t count) {
    DxStream *stream = base_calloc(1, size);
    stream->kind = kind;
    stream->n_inputs = count;
    if (count) {
        stream->inputs = base_calloc(count, sizeof *stream->inputs);
        memcpy(stream->inputs, inputs, count * sizeof *inputs);
        stream->upstream = inputs[0];
    }
    return stream;
}

bool dx_stream_check(DxStream *upstream, bool valid, Error *err, const char *format, ...) {
    if (!upstream) return false;
    if (valid) return true;
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    base_fail(err, ERROR_INPUT, "%s", message);
    dx_stream_free(upstream);
    return false;
}

void dx_stream_free(DxStream *stream) {
    if (!stream) return;
    if (stream->kind->stop) stream->kind->stop(stream);
    for (size_t i = 0; i < stream->n_inputs; i++) dx_stream_free(stream->inputs[i]);
    if (stream->kind->free) stream->kind->free(stream);
    free(stream->inputs);
    free(atomic_load(&stream->identity));
    free(stream);
}

DxStatus dx_next(DxStream *stream, DxSample **sample, Error *err) {
    *sample = NULL;
    if (atomic_load_explicit(&stream->cancelled, memory_order_relaxed)) {
        base_fail(err, ERROR_INTERRUPTED, "%s: cancelled", stream->kind->name);
        return DX_FAIL;
    }
    if (stream->ended) return DX_END;
    DxStatus status = stream->kind->next(stream, sample, err);
    if (status == DX_END) stream->ended = true;
    return status;
}

static void pause_all(DxStream *stream) {
    if (stream->kind->pause) stream->kind->pause(stream);
    for (size_t i = 0; i < stream->n_inputs; i++) pause_all(stream->inputs[i]);
}

static bool rewind_all(DxStream *stream, uint64_t epoch, Error *err) {
    for (size_t i = 0; i < stream->n_inputs; i++)
        if (!rewind_all(stream->inputs[i], epoch, err)) return false;
    stream->epoch = epoch;
    stream->ended = false;
    return !stream->kind->rewind || stream->kind->rewind(stream, epoch, err);
}

bool dx_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    pause_all(stream);
    return rewind_all(stream, epoch, err);
}

void dx_cancel(DxStream *stream) {
    atomic_store(&stream->cancelled, true);
    if (stream->kind->cancel) stream->kind->cancel(stream);
    for (size_t i = 0; i < stream->n_inputs; i++) dx_cancel(stream->inputs[i]);
}

void dx_stream_where(const DxStream *stream, const DxRecord *record, StrBuf *text) {
    while (stream && !stream->kind->where) stream = stream->upstream;
    if (stream)
        stream->kind->where(stream, record, text);
    else
        base_str_appendf(text, "record %llu", (unsigned long long)record->ordinal);
}

void dx_where_in_stream(const void *context, const DxRecord *record, StrBuf *text) {
    dx_stream_where(context, record, text);
}

/* It never changes, and dx_parallel asks for it with every chunk, from any thread. */
void dx_stream_identity(const DxStream *stream, StrBuf *text) {
    char *known = atomic_load_explicit(&stream->identity, memory_order_acquire);
    if (!known) {
        StrBuf made = {0};
        base_str_append(&made, stream->kind->name);
        if (stream->kind->options) {
            base_str_append_char(&made, '(');
            stream->kind->options(stream, &made);
            base_str_append_char(&made, ')');
        }
        _Atomic(char *) *slot = &((DxStream *)(uintptr_t)stream)->identity;
        if (atomic_compare_exchange_strong(slot, &known, made.data))
            known = made.data;
        else
            base_str_free(&made);
    }
    base_str_append(text, known);
}

/* ---- numbers, bytes, samples in a state ------------------------------------------------ */

void dx_put_u64(StrBuf *out, uint64_t value) {
    char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (char)(value >> (8 * i));
    base_str_append_n(out, bytes, sizeof bytes);
}

void dx_put_bytes(StrBuf *out, const void *bytes, size_t length) {
    dx_put_u64(out, length);
    if (length) base_str_append_n(out, bytes, length);
}

uint64_t dx_get_u64(DxReader *reader) {
    if (reader->end - reader->at < 8) {
        reader->bad = true;
        return 0;
    }
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)reader->at[i] << (8 * i);
    reader->at += 8;
    return value;
}

const void *dx_get_bytes(DxReader *reader, size_t *length) {
    uint64_t wanted = dx_get_u64(reader);
    *length = 0;
    if (wanted > (uint64_t)(reader->end - reader->at)) reader->bad = true;
    if (reader->bad) return reader->end;
    const void *bytes = reader->at;
    reader->at += wanted;
    *length = (size_t)wanted;
    return bytes;
}

void dx_put_sample(StrBuf *out, const DxSample *sample) {
    const DxRecord *record = dx_sample_record(sample);
    dx_put_u64(out, record->source);
    dx_put_u64(out, record->epoch);
    dx_put_u64(out, record->ordinal);
    dx_put_u64(out, record->sub);
    dx_put_u64(out, dx_sample_count(sample));
    for (size_t i = 0; i < dx_sample_count(sample); i++) {
        const char *name = dx_sample_key(sample, i).name;
        const DxArray *array = dx_sample_at(sample, i);
        dx_put_bytes(out, name, strlen(name));
        dx_put_u64(out, (uint64_t)array->type);
        dx_put_u64(out, (uint64_t)array->rank);
        for (int axis = 0; axis < array->rank; axis++)
            dx_put_u64(out, (uint64_t)array->shape[axis]);
        dx_put_bytes(out, array->data, array->bytes);
    }
}

static bool get_field(DxReader *reader, DxSample **sample, Error *err) {
    size_t length, bytes;
    int64_t shape[DX_MAX_RANK] = {0};
    const char *text = dx_get_bytes(reader, &length);
    char *name = base_strndup(text, length);
    uint64_t type = dx_get_u64(reader), rank = dx_get_u64(reader);
    if (type >= DX_ANY_TYPE || rank > DX_MAX_RANK) reader->bad = true;
    for (uint64_t axis = 0; !reader->bad && axis < rank; axis++)
        shape[axis] = (int64_t)dx_get_u64(reader);
    const void *data = dx_get_bytes(reader, &bytes);
    DxArray *array = NULL;
    /* Memory is taken for what is there, not for what a shape claims. */
    size_t claimed = reader->bad ? 0 : dx_type_size((DxType)type);
    for (uint64_t axis = 0; !reader->bad && axis < rank; axis++)
        reader->bad = __builtin_mul_overflow(claimed, (size_t)shape[axis], &claimed);
    reader->bad = reader->bad || claimed != bytes;
    if (!reader->bad) array = dx_array_new((DxType)type, (int)rank, shape, err);
    if (array && array->bytes == bytes) {
        if (bytes) memcpy(array->data, data, bytes);
        dx_sample_put(sample, dx_key(name), array);
    } else {
        dx_array_release(array);
        reader->bad = true;
    }
    free(name);
    return !reader->bad;
}

DxSample *dx_get_sample(DxReader *reader, Error *err) {
    DxRecord record = {.source = (uint32_t)dx_get_u64(reader)};
    record.epoch = dx_get_u64(reader);
    record.ordinal = dx_get_u64(reader);
    record.sub = dx_get_u64(reader);
    uint64_t count = dx_get_u64(reader);
    if (reader->bad) return NULL;
    DxSample *sample = dx_sample_new();
    dx_sample_set_record(&sample, record);
    for (uint64_t i = 0; i < count; i++)
        if (!get_field(reader, &sample, err)) {
            dx_sample_free(sample);
            return NULL;
        }
    return sample;
}

void dx_samples_add(DxSamples *list, DxSample *sample) {
    list->items = base_grow(list->items, &list->capacity, list->count + 1, sizeof *list->items);
    list->items[list->count++] = sample;
}

void dx_samples_free(DxSamples *list) {
    for (size_t i = 0; i < list->count; i++) dx_sample_free(list->items[i]);
    free(list->items);
    *list = (DxSamples){0};
}

void dx_put_samples(StrBuf *out, const DxSamples *list) {
    dx_put_u64(out, list->count);
    for (size_t i = 0; i < list->count; i++) dx_put_sample(out, list->items[i]);
}

bool dx_get_samples(DxReader *reader, DxSamples *list, Error *err) {
    dx_samples_free(list);
    for (uint64_t count = dx_get_u64(reader); count && !reader->bad; count--) {
        DxSample *sample = dx_get_sample(reader, err);
        if (!sample) return false;
        dx_samples_add(list, sample);
    }
    return !reader->bad;
}

/* ---- states ------------------------------------------------------------------------------ */

static const char state_magic[8] = "DXSTATE1";
enum { STATE_HEAD = 8 + 8 + 8 };

void dx_state_write(DxStream *stream, StrBuf *out) {
    StrBuf identity = {0}, held = {0};
    base_str_append(&held, "");
    dx_stream_identity(stream, &identity);
    dx_put_bytes(out, identity.data, identity.length);
    dx_put_u64(out, stream->epoch);
    dx_put_u64(out, stream->ended);
    if (stream->kind->save) stream->kind->save(stream, &held);
    dx_put_bytes(out, held.data, held.length);
    base_str_free(&identity);
    base_str_free(&held);
    if (stream->kind->save_inputs)
        stream->kind->save_inputs(stream, out);
    else
        for (size_t i = 0; i < stream->n_inputs; i++) dx_state_write(stream->inputs[i], out);
}

bool dx_can_save(const DxStream *stream, Error *err) {
    if (stream->kind->can_save && !stream->kind->can_save(stream, err)) return false;
    for (size_t i = 0; i < stream->n_inputs; i++)
        if (!dx_can_save(stream->inputs[i], err)) return false;
    return true;
}

bool dx_save(DxStream *stream, StrBuf *state, Error *err) {
    if (!dx_can_save(stream, err)) return false;
    StrBuf body = {0};
    dx_state_write(stream, &body);
    state->length = 0;
    base_str_append_n(state, state_magic, sizeof state_magic);
    dx_put_u64(state, body.length);
    dx_put_u64(state, base_hash(body.data, body.length));
    base_str_append_n(state, body.data, body.length);
    base_str_free(&body);
    return true;
}

/* Walks a state beside the pipeline; with `apply` the nodes take it. */
static bool read_node(DxStream *stream, DxReader *reader, bool apply, Error *err) {
    size_t length, held_length;
    const char *saved = dx_get_bytes(reader, &length);
    uint64_t epoch = dx_get_u64(reader), ended = dx_get_u64(reader);
    const uint8_t *held = dx_get_bytes(reader, &held_length);
    if (reader->bad) return base_fail(err, ERROR_INPUT, "a saved state is damaged");
    if (!apply) {
        StrBuf identity = {0};
        dx_stream_identity(stream, &identity);
        bool same = identity.length == length && memcmp(identity.data, saved, length) == 0;
        if (!same)
            base_fail(err, ERROR_INPUT,
                      "a state was saved of another pipeline or other data: it has %.*s where this "
                      "one has %s",
                      (int)BASE_MIN(length, 300), saved, identity.data);
        base_str_free(&identity);
        if (!same) return false;
    } else {
        DxReader inner = {held, held + held_length, false};
        stream->epoch = epoch;
        stream->ended = ended != 0;
        if (stream->kind->load && (!stream->kind->load(stream, &inner, err) || inner.bad))
            return base_fail(err, ERROR_INPUT, "%s: its part of a saved state is damaged",
                             stream->kind->name);
    }
    for (size_t i = 0; i < stream->n_inputs; i++)
        if (!read_node(stream->inputs[i], reader, apply, err)) return false;
    return true;
}

bool dx_load(DxStream *stream, const void *state, size_t length, Error *err) {
    DxReader head = {state, (const uint8_t *)state + length, false};
    bool good = length >= STATE_HEAD && memcmp(state, state_magic, sizeof state_magic) == 0;
    if (!good) return base_fail(err, ERROR_INPUT, "this is no saved state of a data stream");
    head.at += sizeof state_magic;
    uint64_t size = dx_get_u64(&head), hash = dx_get_u64(&head);
    if (size != length - STATE_HEAD || hash != base_hash(head.at, (size_t)size))
        return base_fail(err, ERROR_INPUT, "a saved state is cut short or damaged");
    DxReader check = head;
    if (!read_node(stream, &check, false, err)) return false;
    if (check.at != check.end)
        return base_fail(err, ERROR_INPUT,
                         "a state was saved of another pipeline: it has more operators");
    pause_all(stream);
    if (read_node(stream, &head, true, err)) return true;
    /* Right by its hash and wrong inside: nothing half-read stays. */
    Error ignored = {0};
    dx_rewind(stream, stream->epoch, &ignored);
    return false;
}

/* ---- a buffer as a stream ------------------------------------------------------------------ */

typedef struct BufferStream {
    DxStream base;
    DxBuffer *buffer;
    int64_t position;
} BufferStream;

static DxStatus buffer_next(DxStream *stream, DxSample **sample, Error *err) {
    BufferStream *node = (BufferStream *)stream;
    while (node->position < node->buffer->count) {
        DxStatus status =
            node->buffer->kind->get(node->buffer, stream->epoch, node->position++, sample, err);
        if (status != DX_SKIP) return status;
    }
    return DX_END;
}

static bool buffer_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    ((BufferStream *)stream)->position = 0;
    return true;
}

static void buffer_options(const DxStream *stream, StrBuf *text) {
    dx_buffer_identity(((const BufferStream *)stream)->buffer, text);
}

static void buffer_save(DxStream *stream, StrBuf *out) {
    dx_put_u64(out, (uint64_t)((BufferStream *)stream)->position);
}

static bool buffer_load(DxStream *stream, DxReader *reader, Error *err) {
    (void)err;
    BufferStream *node = (BufferStream *)stream;
    uint64_t position = dx_get_u64(reader);
    if (position > (uint64_t)node->buffer->count) return false;
    node->position = (int64_t)position;
    return true;
}

static void buffer_where(const DxStream *stream, const DxRecord *record, StrBuf *text) {
    dx_buffer_where(((const BufferStream *)stream)->buffer, record, text);
}

static void buffer_free(DxStream *stream) {
    dx_buffer_free(((BufferStream *)stream)->buffer);
}

static const DxStreamKind buffer_kind = {
    .name = "buffer",
    .next = buffer_next,
    .rewind = buffer_rewind,
    .options = buffer_options,
    .save = buffer_save,
    .load = buffer_load,
    .where = buffer_where,
    .free = buffer_free,
};

DxStream *dx_buffer_stream(DxBuffer *buffer, Error *err) {
    (void)err;
    if (!buffer) return NULL;
    BufferStream *node = dx_stream_over(&buffer_kind, sizeof *node, NULL);
    node->buffer = buffer;
    return &node->base;
}

/* ---- the caller's own source ---------------------------------------------------------------- */

typedef struct CallbackStream {
    DxStream base;
    DxStreamCallback callback;
    void *self;
    uint64_t ordinal;
} CallbackStream;

static DxStatus callback_next(DxStream *stream, DxSample **sample, Error *err) {
    CallbackStream *node = (CallbackStream *)stream;
    uint64_t ordinal = node->ordinal++;
    *sample = dx_sample_new();
    dx_sample_set_record(sample, (DxRecord){.epoch = stream->epoch, .ordinal = ordinal});
    DxStatus status = node->callback.next(node->self, sample, err);
    if (status == DX_OK) return status;
    dx_sample_free(*sample);
    *sample = NULL;
    if (status == DX_END) node->ordinal = ordinal;
    if (status == DX_FAIL)
        base_error_context(err, "%s: record %llu", node->callback.name,
                           (unsigned long long)ordinal);
    return status;
}

static bool callback_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    CallbackStream *node = (CallbackStream *)stream;
    if (!node->callback.rewind)
        return base_fail(err, ERROR_INPUT, "%s: this source gives one pass only",
                         node->callback.name);
    node->ordinal = 0;
    return node->callback.rewind(node->self, epoch, err);
}

static void callback_options(const DxStream *stream, StrBuf *text) {
    base_str_append(text, ((const CallbackStream *)stream)->callback.name);
}

static void callback_save(DxStream *stream, StrBuf *out) {
    CallbackStream *node = (CallbackStream *)stream;
    dx_put_u64(out, node->ordinal);
    node->callback.save(node->self, out);
}

static bool callback_load(DxStream *stream, DxReader *reader, Error *err) {
    CallbackStream *node = (CallbackStream *)stream;
    node->ordinal = dx_get_u64(reader);
    return node->callback.load(node->self, reader->at, (size_t)(reader->end - reader->at), err);
}

static bool callback_can_save(const DxStream *stream, Error *err) {
    const CallbackStream *node = (const CallbackStream *)stream;
    return (node->callback.save && node->callback.load) ||
           base_fail(err, ERROR_INPUT, "%s: this source cannot say where it is",
                     node->callback.name);
}

static void callback_where(const DxStream *stream, const DxRecord *record, StrBuf *text) {
    base_str_appendf(text, "%s: record %llu", ((const CallbackStream *)stream)->callback.name,
                     (unsigned long long)record->ordinal);
}

static void callback_free(DxStream *stream) {
    CallbackStream *node = (CallbackStream *)stream;
    if (node->callback.destroy) node->callback.destroy(node->self);
    free((char *)(uintptr_t)node->callback.name);
}

static const DxStreamKind callback_kind = {
    .name = "callback",
    .next = callback_next,
    .rewind = callback_rewind,
    .options = callback_options,
    .save = callback_save,
    .load = callback_load,
    .can_save = callback_can_save,
    .where = callback_where,
    .free = callback_free,
};

DxStream *dx_stream_callback(const DxStreamCallback *callback, void *self, Error *err) {
    (void)err;
    CallbackStream *node = dx_stream_over(&callback_kind, sizeof *node, NULL);
    node->callback = *callback;
    node->callback.name = base_strdup(callback->name);
    node->self = self;
    return &node->base;
}

DxBuffer *dx_collect(DxStream *stream, Error *err) {
    if (!stream) return NULL;
    DxSamples list = {0};
    DxSample *sample;
    DxStatus status;
    while ((status = dx_next(stream, &sample, err)) == DX_OK) dx_samples_add(&list, sample);
    DxBuffer *buffer = status == DX_END ? dx_samples(list.items, list.count, err) : NULL;
    dx_samples_free(&list);
    dx_stream_free(stream);
    return buffer;
}
