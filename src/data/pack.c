/* Packing: short vectors share one of a fixed length. A vector goes into the open
 * pack with the least room that holds it; when none does and all are open, the
 * fullest leaves. */
#include <stdlib.h>
#include <string.h>

#include "data/stream.h"

typedef struct PackStream {
    DxStream base;
    DxKey key, along;
    bool beside, split;
    size_t length, open;
    double pad;
    DxSamples *packs; /* [open]: what each holds */
    size_t *used;     /* elements */
    DxSamples queue;  /* pieces that wait for their place, after a pack has left */
    size_t queued;    /* of them placed */
} PackStream;

/* Elements [begin, end) of a vector; new. */
static DxArray *part_of(const DxArray *array, size_t begin, size_t end, Error *err) {
    size_t size = dx_type_size(array->type);
    return dx_array_copy(array->type, 1, (int64_t[]){(int64_t)(end - begin)},
                         (const char *)array->data + begin * size, err);
}

/* ---- a finished pack ------------------------------------------------------------------------ */

static DxArray *joined(const PackStream *pack, const DxSamples *parts, DxKey key, Error *err) {
    const DxArray *first = dx_sample_get(parts->items[0], key);
    DxArray *whole = dx_array_new(first->type, 1, (int64_t[]){(int64_t)pack->length}, err);
    if (!whole) return NULL;
    size_t size = dx_type_size(first->type), at = 0;
    for (size_t i = 0; i < parts->count; i++) {
        const DxArray *part = dx_sample_get(parts->items[i], key);
        if (part->bytes) memcpy((char *)whole->data + at * size, part->data, part->bytes);
        at += part->count;
    }
    DxArray *pad = dx_array_filled(first->type, pack->length - at, pack->pad, err);
    if (pad && pad->bytes) memcpy((char *)whole->data + at * size, pad->data, pad->bytes);
    dx_array_release(pad);
    return whole;
}

static DxStatus leave(PackStream *pack, size_t index, DxSample **sample, Error *err) {
    DxSamples *parts = &pack->packs[index];
    int64_t shape[] = {(int64_t)pack->length};
    *sample = dx_sample_new();
    dx_sample_set_record(sample, *dx_sample_record(parts->items[0]));
    DxArray *segments = dx_array_new(DX_I32, 1, shape, err);
    DxArray *positions = dx_array_new(DX_I32, 1, shape, err);
    DxArray *whole = joined(pack, parts, pack->key, err);
    DxArray *beside = pack->beside && whole ? joined(pack, parts, pack->along, err) : NULL;
    bool ok = segments && positions && whole && (!pack->beside || beside);
    if (ok) {
        int32_t *segment = segments->data, *position = positions->data;
        memset(segment, 0, segments->bytes);
        memset(position, 0, positions->bytes);
        for (size_t i = 0, at = 0; i < parts->count; i++) {
            size_t count = dx_sample_get(parts->items[i], pack->key)->count;
            for (size_t j = 0; j < count; j++, at++) {
                segment[at] = (int32_t)i + 1;
                position[at] = (int32_t)j;
            }
        }
    }
    dx_sample_put(sample, pack->key, whole);
    dx_sample_put(sample, pack->along, beside);
    dx_sample_put(sample, dx_key("segments"), segments);
    dx_sample_put(sample, dx_key("positions"), positions);
    dx_samples_free(parts);
    pack->used[index] = 0;
    if (ok) return DX_OK;
    dx_sample_free(*sample);
    *sample = NULL;
    return DX_FAIL;
}

/* Whether an array is of the type that `key` has in what is packed already. */
static bool same_type(const PackStream *pack, DxKey key, const DxArray *array, Error *err) {
    for (size_t i = 0; i < pack->open; i++) {
        if (pack->packs[i].count == 0) continue;
        DxType type = dx_sample_get(pack->packs[i].items[0], key)->type;
        return type == array->type ||
               base_fail(err, ERROR_INPUT, "key \"%s\": %s after %s", key.name,
                         dx_type_name(array->type), dx_type_name(type));
    }
    return true;
}

/* ---- placing -----------------------------------------------------------------------------------
 */

/* A sample's vector, and the one beside it, cut into pieces of at most `length`. */
static bool queue_pieces(PackStream *pack, DxSample *sample, Error *err) {
    DxArray *main = dx_sample_need(sample, pack->key, DX_ANY_TYPE, 1, err);
    DxArray *beside =
        pack->beside ? dx_sample_need(sample, pack->along, DX_ANY_TYPE, 1, err) : NULL;
    if (!main || (pack->beside && !beside)) return false;
    if (beside && beside->count != main->count)
        return base_fail(err, ERROR_INPUT, "key \"%s\" has %zu elements, \"%s\" has %zu",
                         pack->key.name, main->count, pack->along.name, beside->count);
    if (!same_type(pack, pack->key, main, err)) return false;
    if (beside && !same_type(pack, pack->along, beside, err)) return false;
    dx_samples_free(&pack->queue);
    pack->queued = 0;
    for (size_t begin = 0; begin < main->count; begin += pack->length) {
        size_t end = BASE_MIN(begin + pack->length, main->count);
        DxSample *piece = dx_sample_new();
        DxArray *one = part_of(main, begin, end, err);
        DxArray *two = beside ? part_of(beside, begin, end, err) : NULL;
        bool ok = one && (!beside || two);
        dx_sample_set_record(&piece, *dx_sample_record(sample));
        dx_sample_put(&piece, pack->key, one);
        dx_sample_put(&piece, pack->along, two);
        dx_samples_add(&pack->queue, piece);
        if (!ok) return false;
        if (!pack->split) break;
    }
    return true;
}

/* The pack for a piece of `length`: the least room, else an empty one; `open`: none. */
static size_t best_fit(const PackStream *pack, size_t length) {
    size_t best = pack->open;
    for (size_t i = 0; i < pack->open; i++) {
        if (pack->length - pack->used[i] < length) continue;
        if (best == pack->open || pack->used[i] > pack->used[best]) best = i;
    }
    return best;
}

static size_t fullest(const PackStream *pack) {
    size_t best = 0;
    for (size_t i = 1; i < pack->open; i++)
        if (pack->used[i] > pack->used[best]) best = i;
    return best;
}

static DxStatus pack_next(DxStream *stream, DxSample **sample, Error *err) {
    PackStream *pack = (PackStream *)stream;
    for (;;) {
        while (pack->queued < pack->queue.count) {
            DxSample *piece = pack->queue.items[pack->queued];
            size_t length = dx_sample_get(piece, pack->key)->count;
            size_t place = best_fit(pack, length);
            if (place == pack->open) return leave(pack, fullest(pack), sample, err);
            dx_samples_add(&pack->packs[place], dx_sample_retain(piece));
            pack->used[place] += length;
            pack->queued++;
            if (pack->used[place] == pack->length) return leave(pack, place, sample, err);
        }
        DxSample *next;
        DxStatus status = dx_next(stream->upstream, &next, err);
        if (status == DX_FAIL) return status;
        if (status == DX_END) {
            size_t last = fullest(pack);
            return pack->used[last] ? leave(pack, last, sample, err) : DX_END;
        }
        bool ok = queue_pieces(pack, next, err);
        if (!ok) {
            StrBuf where = {0};
            dx_stream_where(stream, dx_sample_record(next), &where);
            dx_fail_at("pack", &where, err);
            base_str_free(&where);
            dx_samples_free(&pack->queue);
            pack->queued = 0;
        }
        dx_sample_free(next);
        if (!ok) return DX_FAIL;
    }
}

/* ---- the node
 * ------------------------------------------------------------------------------------ */

static bool pack_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    PackStream *pack = (PackStream *)stream;
    for (size_t i = 0; i < pack->open; i++) dx_samples_free(&pack->packs[i]);
    memset(pack->used, 0, pack->open * sizeof *pack->used);
    dx_samples_free(&pack->queue);
    pack->queued = 0;
    return true;
}

static void pack_options(const DxStream *stream, StrBuf *text) {
    const PackStream *pack = (const PackStream *)stream;
    base_str_appendf(text, "%s%s%s, %zu, %zu open, pad %.17g%s", pack->key.name,
                     pack->beside ? " and " : "", pack->beside ? pack->along.name : "",
                     pack->length, pack->open, pack->pad, pack->split ? ", split" : "");
}

static void pack_save(DxStream *stream, StrBuf *out) {
    PackStream *pack = (PackStream *)stream;
    for (size_t i = 0; i < pack->open; i++) dx_put_samples(out, &pack->packs[i]);
    DxSamples rest = pack->queue;
    if (pack->queued) rest.items += pack->queued;
    rest.count -= pack->queued;
    dx_put_samples(out, &rest);
}

/* Whether a piece of a saved state is one that queue_pieces makes; types[2] are those of
 * all pieces, DX_ANY_TYPE before the first. */
static bool is_piece(const PackStream *pack, const DxSample *piece, DxType *types) {
    const DxArray *arrays[2] = {dx_sample_get(piece, pack->key),
                                pack->beside ? dx_sample_get(piece, pack->along) : NULL};
    for (int i = 0; i < 1 + pack->beside; i++) {
        const DxArray *array = arrays[i];
        if (!array || array->rank != 1 || array->count == 0 || array->count > pack->length ||
            array->count != arrays[0]->count)
            return false;
        if (types[i] != DX_ANY_TYPE && types[i] != array->type) return false;
        types[i] = array->type;
    }
    return true;
}

static bool pack_load(DxStream *stream, DxReader *reader, Error *err) {
    PackStream *pack = (PackStream *)stream;
    DxType types[2] = {DX_ANY_TYPE, DX_ANY_TYPE};
    bool good = true;
    pack_rewind(stream, 0, err);
    for (size_t i = 0; good && i < pack->open; i++) {
        good = dx_get_samples(reader, &pack->packs[i], err);
        for (size_t j = 0; good && j < pack->packs[i].count; j++) {
            const DxSample *piece = pack->packs[i].items[j];
            good = is_piece(pack, piece, types);
            if (good) pack->used[i] += dx_sample_get(piece, pack->key)->count;
            good = good && pack->used[i] <= pack->length;
        }
    }
    good = good && dx_get_samples(reader, &pack->queue, err);
    for (size_t j = 0; good && j < pack->queue.count; j++)
        good = is_piece(pack, pack->queue.items[j], types);
    if (!good) pack_rewind(stream, 0, err); /* nothing half-read stays */
    return good;
}

static void pack_free(DxStream *stream) {
    PackStream *pack = (PackStream *)stream;
    pack_rewind(stream, 0, NULL);
    free(pack->packs);
    free(pack->used);
}

static const DxStreamKind pack_kind = {
    .name = "pack",
    .next = pack_next,
    .rewind = pack_rewind,
    .options = pack_options,
    .save = pack_save,
    .load = pack_load,
    .free = pack_free,
};

DxStream *dx_pack(DxStream *stream, const DxPackOptions *options, Error *err) {
    if (!dx_stream_check(stream,
                         options->key && options->length > 0 && options->open >= 0 &&
                             options->open <= 65536,
                         err, "pack: a length of %lld with %lld open", (long long)options->length,
                         (long long)options->open))
        return NULL;
    PackStream *pack = dx_stream_over(&pack_kind, sizeof *pack, stream);
    pack->key = dx_key(options->key);
    pack->beside = options->along != NULL;
    pack->along = dx_key(options->along ? options->along : "");
    pack->split = options->split;
    pack->length = (size_t)options->length;
    pack->open = options->open ? (size_t)options->open : 16;
    pack->pad = options->pad;
    pack->packs = base_calloc(pack->open, sizeof *pack->packs);
    pack->used = base_calloc(pack->open, sizeof *pack->used);
    return &pack->base;
}
