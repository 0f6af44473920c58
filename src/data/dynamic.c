/* Batches of similar size: samples are gathered into a window, ordered by size, and
 * cut into batches whose padded size stays within bounds. Samples that are alone too
 * large come out alone or are left out; a group that cannot reach the least size
 * waits for the next window. */
#include <stdlib.h>

#include "data/batch.h"

enum { WAITING = 1000 }; /* samples that may wait, where the window is smaller */

typedef struct DynamicStream {
    DxStream base;
    DxKey key;
    size_t window; /* 0: all */
    int64_t min_size, max_size;
    bool drop_outliers, shuffle;
    uint64_t seed;
    BatchRules rules;
    int axis;           /* along which `key` is joined; -1: stacked */
    DxSamples gathered; /* those that waited, then `fresh` new ones */
    size_t fresh;
    DxSamples *batches; /* of this window, from `at` on */
    size_t n_batches, at, capacity;
    uint64_t windows, dropped;
    bool drained; /* the input has ended */
} DynamicStream;

static void empty(DynamicStream *dynamic) {
    for (size_t i = dynamic->at; i < dynamic->n_batches; i++) dx_samples_free(&dynamic->batches[i]);
    dynamic->n_batches = dynamic->at = 0;
    dx_samples_free(&dynamic->gathered);
    dynamic->fresh = 0;
    dynamic->windows = dynamic->dropped = 0;
    dynamic->drained = false;
}

/* ---- sizes --------------------------------------------------------------------------------- */

/* What `key` of a group takes once it is padded. */
typedef struct Extent {
    int64_t shape[DX_MAX_RANK];
    int rank;
    int64_t count;
} Extent;

static void extent_add(Extent *extent, const DxArray *array, int axis) {
    if (extent->count++ == 0) extent->rank = array->rank;
    for (int i = 0; i < BASE_MIN(extent->rank, array->rank); i++) {
        if (i == axis)
            extent->shape[i] += array->shape[i];
        else
            extent->shape[i] = BASE_MAX(extent->shape[i], array->shape[i]);
    }
}

static int64_t extent_size(const Extent *extent, int axis) {
    double size = axis < 0 ? (double)extent->count : 1;
    for (int i = 0; i < extent->rank; i++) size *= (double)extent->shape[i];
    return size < 9e18 ? (int64_t)size : INT64_MAX;
}

typedef struct Sized {
    DxSample *sample;
    size_t size, place;
} Sized;

static int by_size(const void *a, const void *b) {
    const Sized *one = a, *other = b;
    if (one->size != other->size) return one->size < other->size ? -1 : 1;
    return one->place < other->place ? -1 : one->place > other->place;
}

/* ---- the cut of a window -----------------------------------------------------------------------
 */

static DxSamples *open_batch(DynamicStream *dynamic) {
    dynamic->batches = base_grow(dynamic->batches, &dynamic->capacity, dynamic->n_batches + 1,
                                 sizeof *dynamic->batches);
    dynamic->batches[dynamic->n_batches] = (DxSamples){0};
    return &dynamic->batches[dynamic->n_batches++];
}

static void move_all(DxSamples *from, DxSamples *to) {
    for (size_t i = 0; i < from->count; i++) dx_samples_add(to, from->items[i]);
    from->count = 0;
}

static void drop_all(DynamicStream *dynamic, DxSamples *list) {
    dynamic->dropped += list->count;
    dx_samples_free(list);
}

/* One sample is alone too large: a batch of its own, or none. */
static void settle_outlier(DynamicStream *dynamic, DxSamples *group) {
    if (dynamic->drop_outliers)
        drop_all(dynamic, group);
    else
        move_all(group, open_batch(dynamic));
}

/* Adds a sample to the open group, which closes, waits or goes on. */
static void place(DynamicStream *dynamic, DxSample *sample, DxSamples *group, Extent *extent,
                  DxSamples *waiting) {
    const int64_t least = dynamic->min_size, most = dynamic->max_size;
    const DxArray *array = dx_sample_get(sample, dynamic->key);
    Extent with = *extent, alone = {0};
    extent_add(&with, array, dynamic->axis);
    extent_add(&alone, array, dynamic->axis);
    int64_t size = extent_size(&with, dynamic->axis);
    if (most > 0 && size > most && group->count > 0) {
        bool outlier = extent_size(&alone, dynamic->axis) > most;
        if (least <= 0)
            move_all(group, open_batch(dynamic));
        else if (!outlier)
            dx_samples_add(group, sample); /* neither fits the other: both wait */
        if (least > 0) move_all(group, waiting);
        *extent = (Extent){0};
        if (least > 0 && !outlier) return;
        with = alone;
        size = extent_size(&with, dynamic->axis);
    }
    dx_samples_add(group, sample);
    *extent = with;
    if (most > 0 && size > most)
        settle_outlier(dynamic, group);
    else if (least > 0 && size >= least)
        move_all(group, open_batch(dynamic));
    if (group->count == 0) *extent = (Extent){0};
}

static void cut_window(DynamicStream *dynamic) {
    size_t count = dynamic->gathered.count;
    Sized *order = base_calloc(count + 1, sizeof *order);
    for (size_t i = 0; i < count; i++) {
        DxSample *sample = dynamic->gathered.items[i];
        order[i] = (Sized){sample, dx_sample_get(sample, dynamic->key)->count, i};
    }
    if (dynamic->max_size > 0) qsort(order, count, sizeof *order, by_size);
    dynamic->n_batches = dynamic->at = 0;
    DxSamples group = {0}, waiting = {0};
    Extent extent = {0};
    for (size_t i = 0; i < count; i++) place(dynamic, order[i].sample, &group, &extent, &waiting);
    if (group.count) {
        bool enough = dynamic->min_size <= 0;
        move_all(&group, enough ? open_batch(dynamic) : &waiting);
    }
    free(order);
    free(group.items);
    free(dynamic->gathered.items);
    dynamic->gathered = waiting;
    dynamic->fresh = 0;
    size_t most = BASE_MAX(dynamic->window, (size_t)WAITING);
    if (dynamic->drained) {
        drop_all(dynamic, &dynamic->gathered);
    } else if (waiting.count > most) {
        for (size_t i = most; i < waiting.count; i++) dx_sample_free(waiting.items[i]);
        dynamic->dropped += waiting.count - most;
        dynamic->gathered.count = most;
    }
    DxRandom random = dx_random_of(dynamic->seed, dynamic->base.epoch, dynamic->windows++);
    for (size_t i = dynamic->n_batches; dynamic->shuffle && i > 1; i--) {
        size_t other = (size_t)dx_random_below(&random, i);
        DxSamples swap = dynamic->batches[i - 1];
        dynamic->batches[i - 1] = dynamic->batches[other];
        dynamic->batches[other] = swap;
    }
}

/* ---- the node
 * ------------------------------------------------------------------------------------ */

static DxStatus fail_here(DxStream *stream, const DxSample *sample, Error *err) {
    StrBuf where = {0};
    dx_stream_where(stream->upstream, dx_sample_record(sample), &where);
    dx_fail_at("dynamic batch", &where, err);
    base_str_free(&where);
    return DX_FAIL;
}

static DxStatus dynamic_next(DxStream *stream, DxSample **sample, Error *err) {
    DynamicStream *dynamic = (DynamicStream *)stream;
    while (dynamic->at == dynamic->n_batches) {
        if (dynamic->drained) return DX_END;
        while (!dynamic->drained && (dynamic->window == 0 || dynamic->fresh < dynamic->window)) {
            DxSample *next;
            DxStatus status = dx_next(stream->upstream, &next, err);
            if (status == DX_FAIL) return status;
            if (status == DX_END) {
                dynamic->drained = true;
                break;
            }
            if (!dx_sample_need(next, dynamic->key, DX_ANY_TYPE, -1, err)) {
                status = fail_here(stream, next, err);
                dx_sample_free(next);
                return status;
            }
            dx_samples_add(&dynamic->gathered, next);
            dynamic->fresh++;
        }
        cut_window(dynamic);
    }
    DxSamples *group = &dynamic->batches[dynamic->at++];
    *sample = dx_batch_join(group->items, group->count, &dynamic->rules, err);
    DxStatus status = *sample ? DX_OK : fail_here(stream, group->items[0], err);
    dx_samples_free(group);
    return status;
}

static bool dynamic_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    empty((DynamicStream *)stream);
    return true;
}

static void dynamic_options(const DxStream *stream, StrBuf *text) {
    const DynamicStream *dynamic = (const DynamicStream *)stream;
    base_str_appendf(text, "%s, window %zu, %lld to %lld%s", dynamic->key.name, dynamic->window,
                     (long long)dynamic->min_size, (long long)dynamic->max_size,
                     dynamic->drop_outliers ? ", no outliers" : "");
    if (dynamic->shuffle) base_str_appendf(text, ", seed %llu", (unsigned long long)dynamic->seed);
    dx_batch_rules_identity(&dynamic->rules, text);
}

static void dynamic_save(DxStream *stream, StrBuf *out) {
    DynamicStream *dynamic = (DynamicStream *)stream;
    dx_put_u64(out, dynamic->windows);
    dx_put_u64(out, dynamic->dropped);
    dx_put_u64(out, dynamic->drained);
    dx_put_u64(out, dynamic->fresh);
    dx_put_samples(out, &dynamic->gathered);
    dx_put_u64(out, dynamic->n_batches - dynamic->at);
    for (size_t i = dynamic->at; i < dynamic->n_batches; i++)
        dx_put_samples(out, &dynamic->batches[i]);
}

static bool dynamic_load(DxStream *stream, DxReader *reader, Error *err) {
    DynamicStream *dynamic = (DynamicStream *)stream;
    empty(dynamic);
    dynamic->windows = dx_get_u64(reader);
    dynamic->dropped = dx_get_u64(reader);
    dynamic->drained = dx_get_u64(reader) != 0;
    dynamic->fresh = (size_t)dx_get_u64(reader);
    if (!dx_get_samples(reader, &dynamic->gathered, err)) return false;
    for (uint64_t left = dx_get_u64(reader); left && !reader->bad; left--)
        if (!dx_get_samples(reader, open_batch(dynamic), err)) return false;
    for (size_t i = 0; i < dynamic->n_batches; i++)
        if (dynamic->batches[i].count == 0) return false;
    for (size_t i = 0; i < dynamic->gathered.count; i++)
        if (!dx_sample_get(dynamic->gathered.items[i], dynamic->key)) return false;
    return true;
}

static void dynamic_free(DxStream *stream) {
    DynamicStream *dynamic = (DynamicStream *)stream;
    empty(dynamic);
    free(dynamic->batches);
    dx_batch_rules_free(&dynamic->rules);
}

static const DxStreamKind dynamic_kind = {
    .name = "dynamic batch",
    .next = dynamic_next,
    .rewind = dynamic_rewind,
    .options = dynamic_options,
    .save = dynamic_save,
    .load = dynamic_load,
    .free = dynamic_free,
};

DxStream *dx_dynamic_batch(DxStream *stream, const DxDynamicOptions *options, Error *err) {
    if (!dx_stream_check(stream,
                         options->key && options->window >= 0 && options->min_size >= 0 &&
                             options->max_size >= 0 &&
                             (options->max_size ? options->max_size >= options->min_size
                                                : options->min_size > 0),
                         err,
                         "dynamic batch: a window of %lld, batches of %lld to %lld; it wants a key "
                         "and at least one bound",
                         (long long)options->window, (long long)options->min_size,
                         (long long)options->max_size))
        return NULL;
    BatchRules rules;
    if (!dx_batch_rules(&options->batch, &rules, err)) {
        dx_stream_free(stream);
        return NULL;
    }
    DynamicStream *dynamic = dx_stream_over(&dynamic_kind, sizeof *dynamic, stream);
    dynamic->key = dx_key(options->key);
    dynamic->window = (size_t)options->window;
    dynamic->min_size = options->min_size;
    dynamic->max_size = options->max_size;
    dynamic->drop_outliers = options->drop_outliers;
    dynamic->shuffle = options->shuffle;
    dynamic->seed = options->seed;
    dynamic->rules = rules;
    dynamic->axis = -1;
    for (size_t i = 0; i < rules.n_joins; i++)
        if (rules.joins[i].key.name == dynamic->key.name) dynamic->axis = rules.joins[i].axis;
    return &dynamic->base;
}

uint64_t dx_dynamic_dropped(const DxStream *dynamic) {
    return ((const DynamicStream *)dynamic)->dropped;
}
