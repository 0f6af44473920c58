/* Streams that choose and order: take, skip, repeat, shard, window shuffle, and
 * several streams mixed or one behind another. */
#include <stdlib.h>
#include <string.h>

#include "data/stream.h"

/* ---- take, skip, shard: every step-th sample of [start, end) ------------------------------ */

typedef struct SliceStream {
    DxStream base;
    uint64_t start, end, step; /* of the input's samples */
    uint64_t position;         /* samples of the input seen in this pass */
} SliceStream;

static DxStatus slice_next(DxStream *stream, DxSample **sample, Error *err) {
    SliceStream *slice = (SliceStream *)stream;
    while (slice->position < slice->end) {
        DxStatus status = dx_next(stream->upstream, sample, err);
        if (status != DX_OK) return status;
        uint64_t at = slice->position++;
        if (at >= slice->start && (at - slice->start) % slice->step == 0) return DX_OK;
        dx_sample_free(*sample);
        *sample = NULL;
    }
    return DX_END;
}

static bool slice_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    ((SliceStream *)stream)->position = 0;
    return true;
}

static void slice_options(const DxStream *stream, StrBuf *text) {
    const SliceStream *slice = (const SliceStream *)stream;
    base_str_appendf(text, "%llu to %llu by %llu", (unsigned long long)slice->start,
                     (unsigned long long)slice->end, (unsigned long long)slice->step);
}

static void slice_save(DxStream *stream, StrBuf *out) {
    dx_put_u64(out, ((SliceStream *)stream)->position);
}

static bool slice_load(DxStream *stream, DxReader *reader, Error *err) {
    (void)err;
    ((SliceStream *)stream)->position = dx_get_u64(reader);
    return true;
}

static const DxStreamKind slice_kind = {
    .name = "slice",
    .next = slice_next,
    .rewind = slice_rewind,
    .options = slice_options,
    .save = slice_save,
    .load = slice_load,
};

static DxStream *slice_new(DxStream *stream, uint64_t start, uint64_t end, uint64_t step) {
    SliceStream *slice = dx_stream_over(&slice_kind, sizeof *slice, stream);
    slice->start = start;
    slice->end = end;
    slice->step = step;
    return &slice->base;
}

DxStream *dx_take(DxStream *stream, int64_t count, Error *err) {
    if (!dx_stream_check(stream, count >= 0, err, "take: %lld samples", (long long)count))
        return NULL;
    return slice_new(stream, 0, (uint64_t)count, 1);
}

DxStream *dx_skip(DxStream *stream, int64_t count, Error *err) {
    if (!dx_stream_check(stream, count >= 0, err, "skip: %lld samples", (long long)count))
        return NULL;
    return slice_new(stream, (uint64_t)count, UINT64_MAX, 1);
}

DxStream *dx_stream_shard(DxStream *stream, int world, int rank, Error *err) {
    if (!dx_stream_check(stream, world > 0 && rank >= 0 && rank < world, err,
                         "shard: rank %d of %d", rank, world))
        return NULL;
    return slice_new(stream, (uint64_t)rank, UINT64_MAX, (uint64_t)world);
}

/* ---- repeat -------------------------------------------------------------------------------- */

typedef struct RepeatStream {
    DxStream base;
    uint64_t passes; /* 0: for ever */
    uint64_t pass;   /* done */
    bool any;        /* this pass gave a sample */
} RepeatStream;

static DxStatus repeat_next(DxStream *stream, DxSample **sample, Error *err) {
    RepeatStream *repeat = (RepeatStream *)stream;
    for (;;) {
        DxStatus status = dx_next(stream->upstream, sample, err);
        if (status == DX_OK) repeat->any = true;
        if (status != DX_END) return status;
        if (!repeat->any || repeat->pass + 1 == repeat->passes) return DX_END;
        repeat->pass++;
        repeat->any = false;
        uint64_t first = stream->epoch * (repeat->passes ? repeat->passes : 1);
        if (!dx_rewind(stream->upstream, first + repeat->pass, err)) return DX_FAIL;
    }
}

static bool repeat_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    RepeatStream *repeat = (RepeatStream *)stream;
    repeat->pass = 0;
    repeat->any = false;
    return repeat->passes < 2 || epoch == 0 ||
           dx_rewind(stream->upstream, epoch * repeat->passes, err);
}

static void repeat_options(const DxStream *stream, StrBuf *text) {
    base_str_appendf(text, "%llu", (unsigned long long)((const RepeatStream *)stream)->passes);
}

static void repeat_save(DxStream *stream, StrBuf *out) {
    dx_put_u64(out, ((RepeatStream *)stream)->pass);
    dx_put_u64(out, ((RepeatStream *)stream)->any);
}

static bool repeat_load(DxStream *stream, DxReader *reader, Error *err) {
    (void)err;
    ((RepeatStream *)stream)->pass = dx_get_u64(reader);
    ((RepeatStream *)stream)->any = dx_get_u64(reader) != 0;
    return true;
}

static const DxStreamKind repeat_kind = {
    .name = "repeat",
    .next = repeat_next,
    .rewind = repeat_rewind,
    .options = repeat_options,
    .save = repeat_save,
    .load = repeat_load,
};

DxStream *dx_repeat(DxStream *stream, int64_t passes, Error *err) {
    if (!dx_stream_check(stream, passes >= 0, err, "repeat: %lld passes", (long long)passes))
        return NULL;
    RepeatStream *repeat = dx_stream_over(&repeat_kind, sizeof *repeat, stream);
    repeat->passes = (uint64_t)passes;
    return &repeat->base;
}

/* ---- window shuffle -------------------------------------------------------------------------- */

typedef struct ShuffleStream {
    DxStream base;
    size_t size;
    uint64_t seed, drawn;
    DxSamples held;
} ShuffleStream;

static DxStatus shuffle_next(DxStream *stream, DxSample **sample, Error *err) {
    ShuffleStream *shuffle = (ShuffleStream *)stream;
    while (shuffle->held.count < shuffle->size) {
        DxStatus status = dx_next(stream->upstream, sample, err);
        if (status == DX_FAIL) return status;
        if (status == DX_END) break;
        dx_samples_add(&shuffle->held, *sample);
    }
    if (shuffle->held.count == 0) return DX_END;
    DxRandom random = dx_random_of(shuffle->seed, stream->epoch, shuffle->drawn++);
    size_t at = (size_t)dx_random_below(&random, shuffle->held.count);
    *sample = shuffle->held.items[at];
    shuffle->held.items[at] = shuffle->held.items[--shuffle->held.count];
    return DX_OK;
}

static bool shuffle_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    ShuffleStream *shuffle = (ShuffleStream *)stream;
    dx_samples_free(&shuffle->held);
    shuffle->drawn = 0;
    return true;
}

static void shuffle_options(const DxStream *stream, StrBuf *text) {
    const ShuffleStream *shuffle = (const ShuffleStream *)stream;
    base_str_appendf(text, "%zu, seed %llu", shuffle->size, (unsigned long long)shuffle->seed);
}

static void shuffle_save(DxStream *stream, StrBuf *out) {
    ShuffleStream *shuffle = (ShuffleStream *)stream;
    dx_put_u64(out, shuffle->drawn);
    dx_put_samples(out, &shuffle->held);
}

static bool shuffle_load(DxStream *stream, DxReader *reader, Error *err) {
    ShuffleStream *shuffle = (ShuffleStream *)stream;
    shuffle->drawn = dx_get_u64(reader);
    return dx_get_samples(reader, &shuffle->held, err);
}

static void shuffle_free(DxStream *stream) {
    dx_samples_free(&((ShuffleStream *)stream)->held);
}

static const DxStreamKind shuffle_kind = {
    .name = "window shuffle",
    .next = shuffle_next,
    .rewind = shuffle_rewind,
    .options = shuffle_options,
    .save = shuffle_save,
    .load = shuffle_load,
    .free = shuffle_free,
};

DxStream *dx_window_shuffle(DxStream *stream, size_t size, uint64_t seed, Error *err) {
    if (!dx_stream_check(stream, size > 0, err, "window shuffle: a window of no samples"))
        return NULL;
    ShuffleStream *shuffle = dx_stream_over(&shuffle_kind, sizeof *shuffle, stream);
    shuffle->size = size;
    shuffle->seed = seed;
    return &shuffle->base;
}

/* ---- several streams ----------------------------------------------------------------------------
 */

typedef struct MixStream {
    DxStream base;
    double *weights; /* NULL: one behind another */
    uint64_t seed, drawn;
    bool shortest;
} MixStream;

/* The stream whose turn it is among those that have not ended; n_inputs: none. */
static size_t choose(MixStream *mix) {
    DxStream *const *inputs = mix->base.inputs;
    size_t count = mix->base.n_inputs, last = count;
    double total = 0;
    for (size_t i = 0; i < count; i++) {
        if (inputs[i]->ended) continue;
        if (!mix->weights) return i;
        total += mix->weights[i];
    }
    if (total <= 0) return count;
    DxRandom random = dx_random_of(mix->seed, mix->base.epoch, mix->drawn++);
    double drawn = dx_random_unit(&random) * total;
    for (size_t i = 0; i < count; i++) {
        if (inputs[i]->ended || mix->weights[i] == 0) continue;
        last = i;
        drawn -= mix->weights[i];
        if (drawn < 0) break;
    }
    return last;
}

static DxStatus mix_next(DxStream *stream, DxSample **sample, Error *err) {
    MixStream *mix = (MixStream *)stream;
    size_t turn;
    while ((turn = choose(mix)) < stream->n_inputs) {
        DxStatus status = dx_next(stream->inputs[turn], sample, err);
        if (status == DX_OK) {
            DxRecord record = *dx_sample_record(*sample);
            record.source = record.source * (uint32_t)stream->n_inputs + (uint32_t)turn;
            dx_sample_set_record(sample, record);
        }
        if (status != DX_END || mix->shortest) return status;
    }
    return DX_END;
}

static bool mix_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    ((MixStream *)stream)->drawn = 0;
    return true;
}

static void mix_options(const DxStream *stream, StrBuf *text) {
    const MixStream *mix = (const MixStream *)stream;
    base_str_appendf(text, "%zu, seed %llu%s", stream->n_inputs, (unsigned long long)mix->seed,
                     mix->shortest ? ", shortest" : "");
    for (size_t i = 0; mix->weights && i < stream->n_inputs; i++)
        base_str_appendf(text, ", %.17g", mix->weights[i]);
}

static void mix_save(DxStream *stream, StrBuf *out) {
    dx_put_u64(out, ((MixStream *)stream)->drawn);
}

static bool mix_load(DxStream *stream, DxReader *reader, Error *err) {
    (void)err;
    ((MixStream *)stream)->drawn = dx_get_u64(reader);
    return true;
}

static void mix_where(const DxStream *stream, const DxRecord *record, StrBuf *text) {
    DxRecord inner = *record;
    inner.source /= (uint32_t)stream->n_inputs;
    dx_stream_where(stream->inputs[record->source % stream->n_inputs], &inner, text);
}

static void mix_free(DxStream *stream) {
    free(((MixStream *)stream)->weights);
}

#define MIX_KIND(name_)                                                                \
    {                                                                                  \
        .name = name_, .next = mix_next, .rewind = mix_rewind, .options = mix_options, \
        .save = mix_save, .load = mix_load, .where = mix_where, .free = mix_free       \
    }
static const DxStreamKind mix_kind = MIX_KIND("mix"), chain_kind = MIX_KIND("chain");

static bool check_inputs(DxStream *const *streams, size_t count, const double *weights,
                         const char *name, Error *err) {
    bool there = true, good = count > 0 && count <= UINT32_MAX;
    double total = weights ? 0 : 1;
    for (size_t i = 0; i < count; i++) {
        there = there && streams[i];
        good = good && (!weights || (weights[i] >= 0 && weights[i] < 1e300));
        if (weights) total += weights[i];
    }
    if (there && good && total > 0) return true;
    if (there)
        base_fail(err, ERROR_INPUT, "%s: %zu streams with weights that are no shares", name, count);
    for (size_t i = 0; i < count; i++) dx_stream_free(streams[i]);
    return false;
}

DxStream *dx_mix(DxStream *const *streams, size_t count, const DxMixOptions *options, Error *err) {
    if (!check_inputs(streams, count, options->weights, "mix", err)) return NULL;
    MixStream *mix = dx_stream_node(&mix_kind, sizeof *mix, streams, count);
    mix->seed = options->seed;
    mix->shortest = options->shortest;
    mix->weights = base_calloc(count, sizeof *mix->weights);
    for (size_t i = 0; i < count; i++) mix->weights[i] = options->weights ? options->weights[i] : 1;
    return &mix->base;
}

DxStream *dx_chain(DxStream *const *streams, size_t count, Error *err) {
    if (!check_inputs(streams, count, NULL, "chain", err)) return NULL;
    MixStream *chain = dx_stream_node(&chain_kind, sizeof *chain, streams, count);
    return &chain->base;
}
