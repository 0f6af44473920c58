/* Streams: a caller's own reader or writer behind the functions of a table,
 * and the one place that the formats write to, be it a file or such a writer.
 * Arrays of a reader are lazy: they hold it and read when they are evaluated. */
#ifndef ENGINE_IO_STREAM_H
#define ENGINE_IO_STREAM_H

#include "engine/io/io.h"
#include "mlx/c/io_types.h"

/* What mlx_io_reader.ctx and mlx_io_writer.ctx point to. */
typedef struct IoStream {
    _Atomic uint32_t refs;
    void *descriptor;
    mlx_io_vtable calls;
} IoStream;

void stream_release(void *stream);          /* the last one calls the table's free */
const char *stream_label(IoStream *stream); /* for messages; never NULL */
bool stream_ready(IoStream *stream, bool reads, Error *err); /* open, good, with what it needs */
/* Bytes from the current position. */
bool stream_read(IoStream *stream, void *out, size_t length, Error *err);
/* Its length in bytes; the position is then `position`. */
bool stream_length(IoStream *stream, size_t position, size_t *length, Error *err);
/* A lazy, row-major array of the items at byte `offset`, each turned around when
 * `swap`. NULL after reporting. */
Node *stream_array(IoStream *stream, size_t offset, bool swap, mlx_dtype dtype, const int *shape,
                   int ndim);

/* Reverses the bytes of each item (of each half of a complex one). */
void swap_items(void *data, size_t count, mlx_dtype dtype);

/* Exactly one of the two is set. */
typedef struct Sink {
    AtomicFile *file;
    IoStream *stream;
} Sink;
bool sink_write(Sink sink, const void *bytes, size_t length, Error *err);
/* The items in row-major order. */
bool sink_write_items(Sink sink, const Node *node, Error *err);

#endif
