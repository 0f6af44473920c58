/* Inside data: what a buffer is made of. */
#ifndef DATA_BUFFER_H
#define DATA_BUFFER_H

#include "data/data.h"

/* [start, start + length) along an axis, which the caller has checked, with `left` and
 * `right` places of `value` around it. New. */
DxArray *dx_array_region(const DxArray *array, int axis, int64_t start, int64_t length,
                         int64_t left, int64_t right, double value, Error *err);

/* Text, when it is valid UTF-8. */
DxArray *dx_checked_text(const char *text, size_t length, Error *err);

typedef struct DxBufferKind {
    const char *name;
    DxStatus (*get)(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                    Error *err);
    /* What decides its samples, for saved states; NULL: nothing but its name. */
    void (*options)(const DxBuffer *buffer, StrBuf *text);
    /* Where a record stands; NULL: asks the buffer under it. */
    void (*where)(const DxBuffer *buffer, const DxRecord *record, StrBuf *text);
    void (*free)(DxBuffer *buffer); /* what the node holds besides the upstream; may be NULL */
} DxBufferKind;

/* The first member of every buffer. */
struct DxBuffer {
    const DxBufferKind *kind;
    _Atomic uint32_t references;
    DxBuffer *upstream; /* NULL: a source */
    int64_t count;
};

/* A zeroed node of `size` bytes; takes the upstream. */
void *dx_buffer_node(const DxBufferKind *kind, size_t size, DxBuffer *upstream, int64_t count);
/* The options of a node and all under it: the text by which a saved state knows them. */
void dx_buffer_identity(const DxBuffer *buffer, StrBuf *text);
/* Puts "operator name: where it stands" before a failure. */
void dx_fail_at(const char *name, const StrBuf *where, Error *err);

/* A map node's work, shared with streams: applies `op` to *sample, which is freed
 * unless DX_OK. The failure names the operator and `where(context, record)`. */
typedef void (*DxWhere)(const void *context, const DxRecord *record, StrBuf *text);
DxStatus dx_op_apply(const DxOp *op, void *self, DxSample **sample, DxWhere where,
                     const void *context, Error *err);
/* A copy of an operator's description; its strings are freed by dx_op_free, which
 * also calls destroy. */
DxOp dx_op_copy(const DxOp *op);
void dx_op_free(DxOp *op, void *self);
/* Its name and options, for saved states. */
void dx_op_identity(const DxOp *op, StrBuf *text);

#endif
