/* Maps and flat maps: operators without a memory of their own. Their nodes run here,
 * one sample after another, or are taken over by dx_parallel (dx_pure_apply). */
#include "data/stream.h"

#include <stdlib.h>

#include "data/sample.h"

/* ---- map ------------------------------------------------------------------------------ */

typedef struct MapStream {
    DxStream base;
    DxOp op;
    void *self;
} MapStream;

static DxStatus map_next(DxStream *stream, DxSample **sample, Error *err) {
    MapStream *map = (MapStream *)stream;
    DxStatus status;
    do {
        status = dx_next(stream->upstream, sample, err);
        if (status != DX_OK) return status;
        status =
            dx_op_apply(&map->op, map->self, sample, dx_where_in_stream, stream->upstream, err);
    } while (status == DX_SKIP);
    return status;
}

static void map_options(const DxStream *stream, StrBuf *text) {
    dx_op_identity(&((const MapStream *)stream)->op, text);
}

static void map_free(DxStream *stream) {
    MapStream *map = (MapStream *)stream;
    dx_op_free(&map->op, map->self);
}

static const DxStreamKind map_kind = {
    .name = "map", .next = map_next, .options = map_options, .free = map_free};

DxStream *dx_map(DxStream *stream, const DxOp *op, void *self, Error *err) {
    (void)err;
    if (!stream) {
        if (op->destroy) op->destroy(self);
        return NULL;
    }
    MapStream *map = dx_stream_over(&map_kind, sizeof *map, stream);
    map->op = dx_op_copy(op);
    map->self = self;
    return &map->base;
}

/* ---- flat map --------------------------------------------------------------------------- */

typedef struct FlatStream {
    DxStream base;
    DxExpand expand;
    void *self;
    DxSample *whole; /* whose parts these are; NULL: none */
    DxSamples ready; /* its parts */
    size_t given;    /* of them */
} FlatStream;

struct DxEmit {
    DxSamples *out;
    const DxSample *whole;
    uint64_t count;
    bool keep;
};

void dx_emit(DxEmit *emit, DxSample *sample) {
    DxRecord record = *dx_sample_record(emit->whole);
    record.sub = record.sub * 1000003 + ++emit->count;
    dx_sample_set_record(&sample, record);
    for (uint32_t i = 0; emit->keep && i < emit->whole->count; i++) {
        const DxField *field = &emit->whole->fields[i];
        if (!dx_sample_get(sample, field->key))
            dx_sample_put(&sample, field->key, dx_array_retain(field->value));
    }
    dx_samples_add(emit->out, sample);
}

/* Takes `whole`, appends its parts. */
static DxStatus expand(const FlatStream *flat, DxSample *whole, DxSamples *out, Error *err) {
    const DxRecord record = *dx_sample_record(whole);
    DxEmit emit = {.out = out, .whole = whole, .keep = flat->expand.keep};
    DxRandom random = dx_random_of(flat->expand.seed, record.epoch,
                                   record.ordinal ^ (uint64_t)record.source << 48);
    size_t before = out->count;
    DxStatus status = flat->expand.expand(flat->self, whole, &random, &emit, err);
    if (status == DX_FAIL) {
        /* A failure replaces all parts: half a document is not a document. */
        while (out->count > before) dx_sample_free(out->items[--out->count]);
        StrBuf where = {0};
        dx_stream_where(flat->base.upstream, &record, &where);
        dx_fail_at(flat->expand.name, &where, err);
        base_str_free(&where);
    }
    dx_sample_free(whole);
    return status;
}

static void forget_whole(FlatStream *flat) {
    for (size_t i = flat->given; i < flat->ready.count; i++) dx_sample_free(flat->ready.items[i]);
    flat->ready.count = flat->given = 0;
    dx_sample_free(flat->whole);
    flat->whole = NULL;
}

/* Makes the parts of `whole`, which is kept for saved states. */
static DxStatus take_whole(FlatStream *flat, DxSample *whole, Error *err) {
    flat->whole = dx_sample_retain(whole);
    return expand(flat, whole, &flat->ready, err);
}

static DxStatus flat_next(DxStream *stream, DxSample **sample, Error *err) {
    FlatStream *flat = (FlatStream *)stream;
    while (flat->given == flat->ready.count) {
        DxSample *whole;
        forget_whole(flat);
        DxStatus status = dx_next(stream->upstream, &whole, err);
        if (status == DX_OK) status = take_whole(flat, whole, err);
        if (status != DX_OK && status != DX_SKIP) return status;
    }
    *sample = flat->ready.items[flat->given];
    flat->ready.items[flat->given++] = NULL;
    return DX_OK;
}

static bool flat_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    forget_whole((FlatStream *)stream);
    return true;
}

static void flat_options(const DxStream *stream, StrBuf *text) {
    const DxExpand *how = &((const FlatStream *)stream)->expand;
    dx_op_identity(&(DxOp){.name = how->name, .options = how->options, .seed = how->seed}, text);
}

/* How many parts of a whole were given, and the whole; 0 between two of them. */
static void flat_save(DxStream *stream, StrBuf *out) {
    FlatStream *flat = (FlatStream *)stream;
    bool inside = flat->given < flat->ready.count;
    dx_put_u64(out, inside ? flat->given : 0);
    if (inside) dx_put_sample(out, flat->whole);
}

static bool flat_load(DxStream *stream, DxReader *reader, Error *err) {
    FlatStream *flat = (FlatStream *)stream;
    forget_whole(flat);
    uint64_t given = dx_get_u64(reader);
    if (given == 0) return true;
    DxSample *whole = dx_get_sample(reader, err);
    if (!whole || take_whole(flat, whole, err) != DX_OK || given > flat->ready.count) return false;
    while (flat->given < given) {
        dx_sample_free(flat->ready.items[flat->given]);
        flat->ready.items[flat->given++] = NULL;
    }
    return true;
}

static void flat_free(DxStream *stream) {
    FlatStream *flat = (FlatStream *)stream;
    forget_whole(flat);
    free(flat->ready.items);
    dx_op_free(&(DxOp){.name = flat->expand.name,
                       .options = flat->expand.options,
                       .destroy = flat->expand.destroy},
               flat->self);
}

static const DxStreamKind flat_kind = {
    .name = "flat map",
    .next = flat_next,
    .rewind = flat_rewind,
    .options = flat_options,
    .save = flat_save,
    .load = flat_load,
    .free = flat_free,
};

DxStream *dx_flat_map(DxStream *stream, const DxExpand *how, void *self, Error *err) {
    (void)err;
    if (!stream) {
        if (how->destroy) how->destroy(self);
        return NULL;
    }
    FlatStream *flat = dx_stream_over(&flat_kind, sizeof *flat, stream);
    DxOp names = dx_op_copy(&(DxOp){.name = how->name, .options = how->options});
    flat->expand = *how;
    flat->expand.name = names.name;
    flat->expand.options = names.options;
    flat->self = self;
    return &flat->base;
}

/* ---- for dx_parallel ---------------------------------------------------------------------- */

bool dx_is_pure(const DxStream *stream) {
    return stream->kind == &map_kind || stream->kind == &flat_kind;
}

DxStatus dx_pure_apply(const DxStream *stream, DxSample *sample, DxSamples *out, Error *err) {
    if (stream->kind == &flat_kind) return expand((const FlatStream *)stream, sample, out, err);
    const MapStream *map = (const MapStream *)stream;
    DxStatus status =
        dx_op_apply(&map->op, map->self, &sample, dx_where_in_stream, stream->upstream, err);
    if (status == DX_OK) dx_samples_add(out, sample);
    return status;
}
