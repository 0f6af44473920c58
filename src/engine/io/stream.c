/* Readers and writers of the caller, lazy arrays that read from them, and the
 * sink that files and writers share. */
#include "engine/io/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the objects ---- */

static IoStream *stream_new(void *descriptor, mlx_io_vtable calls) {
    IoStream *stream = base_alloc(sizeof *stream);
    *stream = (IoStream){.refs = 1, .descriptor = descriptor, .calls = calls};
    return stream;
}

void stream_release(void *shared) {
    IoStream *stream = shared;
    if (!stream || atomic_fetch_sub_explicit(&stream->refs, 1, memory_order_acq_rel) != 1) return;
    if (stream->calls.free) stream->calls.free(stream->descriptor);
    free(stream);
}

const char *stream_label(IoStream *stream) {
    const char *label = stream->calls.label ? stream->calls.label(stream->descriptor) : NULL;
    return label ? label : "an unnamed stream";
}

static int descriptor_of(void **descriptor, const IoStream *stream) {
    if (!stream) return 1;
    *descriptor = stream->descriptor;
    return 0;
}

mlx_io_reader mlx_io_reader_new(void *desc, mlx_io_vtable vtable) {
    return (mlx_io_reader){stream_new(desc, vtable)};
}

int mlx_io_reader_descriptor(void **desc_, mlx_io_reader io) {
    return descriptor_of(desc_, ctx_of(io, mlx_io_reader));
}

int mlx_io_reader_tostring(mlx_string *str_, mlx_io_reader io) {
    IoStream *stream = ctx_of(io, mlx_io_reader);
    return stream ? string_finish(str_, stream_label(stream)) : 1;
}

int mlx_io_reader_free(mlx_io_reader io) {
    stream_release(io.ctx);
    return 0;
}

mlx_io_writer mlx_io_writer_new(void *desc, mlx_io_vtable vtable) {
    return (mlx_io_writer){stream_new(desc, vtable)};
}

int mlx_io_writer_descriptor(void **desc_, mlx_io_writer io) {
    return descriptor_of(desc_, ctx_of(io, mlx_io_writer));
}

int mlx_io_writer_tostring(mlx_string *str_, mlx_io_writer io) {
    IoStream *stream = ctx_of(io, mlx_io_writer);
    return stream ? string_finish(str_, stream_label(stream)) : 1;
}

int mlx_io_writer_free(mlx_io_writer io) {
    stream_release(io.ctx);
    return 0;
}

/* ---- reading ---- */

static bool good(IoStream *stream) {
    return stream->calls.good(stream->descriptor);
}

bool stream_ready(IoStream *stream, bool reads, Error *err) {
    const mlx_io_vtable *calls = &stream->calls;
    const bool able = reads ? calls->read && calls->read_at_offset : calls->write != NULL;
    if (!calls->is_open || !calls->good || !able)
        return base_fail(err, ERROR_INPUT, "%s lacks functions that %s needs", stream_label(stream),
                         reads ? "reading" : "writing");
    if (!good(stream) || !calls->is_open(stream->descriptor))
        return base_fail(err, ERROR_IO, "Failed to open %s", stream_label(stream));
    return true;
}

bool stream_read(IoStream *stream, void *out, size_t length, Error *err) {
    memset(out, 0, length); /* a reader that fails may leave it as it was */
    stream->calls.read(stream->descriptor, out, length);
    return good(stream) || base_fail(err, ERROR_IO, "Unable to read %zu bytes from %s", length,
                                     stream_label(stream));
}

bool stream_length(IoStream *stream, size_t position, size_t *length, Error *err) {
    const mlx_io_vtable *calls = &stream->calls;
    if (!calls->seek || !calls->tell)
        return base_fail(err, ERROR_INPUT, "%s can neither seek nor tell", stream_label(stream));
    calls->seek(stream->descriptor, 0, SEEK_END);
    *length = calls->tell(stream->descriptor);
    calls->seek(stream->descriptor, (int64_t)position, SEEK_SET);
    return good(stream) || base_fail(err, ERROR_IO, "Unable to seek in %s", stream_label(stream));
}

void swap_items(void *data, size_t count, mlx_dtype dtype) {
    const bool pairs = dtype == MLX_COMPLEX64;
    const size_t width = pairs ? sizeof(float) : dtype_info[dtype].size;
    uint8_t *item = data;
    if (pairs) count *= 2;
    for (size_t i = 0; i < count; i++, item += width)
        for (size_t low = 0, high = width - 1; low < high; low++, high--) {
            const uint8_t byte = item[low];
            item[low] = item[high];
            item[high] = byte;
        }
}

typedef struct LoadParam {
    size_t offset; /* of the first byte in the stream */
    bool swap;
} LoadParam;

/* Its input is an empty array whose buffer stands for the stream. */
static bool load_eval(Node *node, Error *err) {
    const LoadParam *param = node->param;
    IoStream *stream = node->inputs[0]->buffer->payload;
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    stream->calls.read_at_offset(stream->descriptor, node_data(node), node_nbytes(node),
                                 param->offset);
    if (!good(stream))
        return base_fail(err, ERROR_IO, "Unable to read %zu bytes at byte %zu of %s",
                         node_nbytes(node), param->offset, stream_label(stream));
    if (param->swap) swap_items(node_data(node), node->size, node->dtype);
    return true;
}

static const Op load_op = {"load", load_eval, NULL};

Node *stream_array(IoStream *stream, size_t offset, bool swap, mlx_dtype dtype, const int *shape,
                   int ndim) {
    atomic_fetch_add_explicit(&stream->refs, 1, memory_order_relaxed);
    Node *source = node_from_buffer(buffer_foreign(NULL, 0, stream_release, stream), 0, MLX_UINT8,
                                    (const int[]){0}, 1);
    Node *node = node_new_param(&load_op, dtype, shape, ndim, &(LoadParam){offset, swap},
                                sizeof(LoadParam), NODES(source));
    node_release(source);
    return node;
}

/* ---- writing ---- */

bool sink_write(Sink sink, const void *bytes, size_t length, Error *err) {
    if (sink.file) return base_atomic_write(sink.file, bytes, length, err);
    if (length) sink.stream->calls.write(sink.stream->descriptor, bytes, length);
    return good(sink.stream) || base_fail(err, ERROR_IO, "Unable to write %zu bytes to %s", length,
                                          stream_label(sink.stream));
}

bool sink_write_items(Sink sink, const Node *node, Error *err) {
    if (node->row_contiguous) return sink_write(sink, node_data(node), node_nbytes(node), err);
    void *rows = base_try_alloc(node->size, node->itemsize, err);
    if (!rows) return false;
    node_read(node, rows);
    const bool ok = sink_write(sink, rows, node_nbytes(node), err);
    free(rows);
    return ok;
}
