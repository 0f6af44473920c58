/* Inside data: what a stream is made of, and how operators write what they hold. */
#ifndef DATA_STREAM_H
#define DATA_STREAM_H

#include "data/buffer.h"

/* ---- saved states: little-endian numbers and counted bytes ---- */

typedef struct DxReader {
    const uint8_t *at, *end;
    bool bad; /* it ended too soon, or held nonsense */
} DxReader;

void dx_put_u64(StrBuf *out, uint64_t value);
void dx_put_bytes(StrBuf *out, const void *bytes, size_t length);
void dx_put_sample(StrBuf *out, const DxSample *sample);
uint64_t dx_get_u64(DxReader *reader);
const void *dx_get_bytes(DxReader *reader, size_t *length); /* borrowed */
DxSample *dx_get_sample(DxReader *reader, Error *err);      /* NULL when bad */
/* A growing list of samples; start with {0}. */
typedef struct DxSamples {
    DxSample **items;
    size_t count, capacity;
} DxSamples;
void dx_samples_add(DxSamples *list, DxSample *sample); /* takes it */
void dx_samples_free(DxSamples *list);                  /* and makes it {0} */
void dx_put_samples(StrBuf *out, const DxSamples *list);
bool dx_get_samples(DxReader *reader, DxSamples *list, Error *err); /* replaces the list */

/* ---- nodes ---- */

typedef struct DxStreamKind {
    const char *name;
    DxStatus (*next)(DxStream *stream, DxSample **sample, Error *err);
    /* After the inputs. NULL: nothing to do. */
    bool (*rewind)(DxStream *stream, uint64_t epoch, Error *err);
    /* What decides the samples, for saved states; NULL: only the name. */
    void (*options)(const DxStream *stream, StrBuf *text);
    /* What the node holds; NULL: nothing. `load` runs before the inputs'. */
    void (*save)(DxStream *stream, StrBuf *out);
    bool (*load)(DxStream *stream, DxReader *reader, Error *err);
    /* Writes the states of the inputs where they are not those of now (dx_state_write
     * or bytes it kept); NULL: those of now. */
    void (*save_inputs)(DxStream *stream, StrBuf *out);
    /* Before the inputs are rewound or loaded: stop touching them. */
    void (*pause)(DxStream *stream);
    bool (*can_save)(const DxStream *stream, Error *err); /* NULL: yes */
    void (*where)(const DxStream *stream, const DxRecord *record, StrBuf *text);
    void (*cancel)(DxStream *stream);
    void (*stop)(DxStream *stream); /* before the inputs are freed: its threads end */
    void (*free)(DxStream *stream); /* after them: what the node holds besides */
} DxStreamKind;

/* The first member of every stream. */
struct DxStream {
    const DxStreamKind *kind;
    DxStream **inputs;
    size_t n_inputs;
    DxStream *upstream; /* inputs[0], or NULL */
    uint64_t epoch;
    bool ended;
    _Atomic bool cancelled;
    _Atomic(char *) identity; /* made when it is first asked for */
};

/* A zeroed node; takes its inputs. */
void *dx_stream_node(const DxStreamKind *kind, size_t size, DxStream *const *inputs, size_t count);
static inline void *dx_stream_over(const DxStreamKind *kind, size_t size, DxStream *upstream) {
    return dx_stream_node(kind, size, &upstream, upstream != NULL);
}
/* The state of a stream and all above it, without the envelope. */
void dx_state_write(DxStream *stream, StrBuf *out);
/* Whether it and all above it can say where they are. */
bool dx_can_save(const DxStream *stream, Error *err);
/* "name(options)" */
void dx_stream_identity(const DxStream *stream, StrBuf *text);
/* For constructors: NULL without err where upstream is; frees it and fails when !valid. */
bool dx_stream_check(DxStream *upstream, bool valid, Error *err, const char *format, ...)
    BASE_PRINTF(4, 5);
/* A DxWhere over a stream. */
void dx_where_in_stream(const void *context, const DxRecord *record, StrBuf *text);

/* ---- what dx_parallel takes over (map.c) ---- */

/* Whether the stream is a map or a flat map. */
bool dx_is_pure(const DxStream *stream);
/* Applies a map or flat map to one sample (taken) and appends what comes out. */
DxStatus dx_pure_apply(const DxStream *stream, DxSample *sample, DxSamples *out, Error *err);

#endif
