/* Batches: samples of the same keys, types and ranks become one sample. Arrays are
 * stacked on a new first axis, or joined along one they have; what is shorter is
 * padded. */
#include <stdlib.h>
#include <string.h>

#include "data/batch.h"
#include "data/sample.h"

/* ---- options of the caller, copied --------------------------------------------------------- */

bool dx_batch_rules(const DxBatchOptions *options, BatchRules *rules, Error *err) {
    *rules = (BatchRules){.n_pads = options->n_pads, .n_joins = options->n_joins};
    rules->pads = base_calloc(options->n_pads + 1, sizeof *rules->pads);
    rules->joins = base_calloc(options->n_joins + 1, sizeof *rules->joins);
    for (size_t i = 0; i < options->n_pads; i++)
        rules->pads[i] = (BatchPad){dx_key(options->pads[i].key), options->pads[i].value};
    for (size_t i = 0; i < options->n_joins; i++) {
        rules->joins[i] = (BatchJoin){dx_key(options->joins[i].key), options->joins[i].axis};
        if (options->joins[i].axis < 0 || options->joins[i].axis >= DX_MAX_RANK) {
            base_fail(err, ERROR_INPUT, "batch: key \"%s\" cannot be joined along axis %d",
                      options->joins[i].key, options->joins[i].axis);
            dx_batch_rules_free(rules);
            return false;
        }
    }
    return true;
}

void dx_batch_rules_free(BatchRules *rules) {
    free(rules->pads);
    free(rules->joins);
    *rules = (BatchRules){0};
}

void dx_batch_rules_identity(const BatchRules *rules, StrBuf *text) {
    for (size_t i = 0; i < rules->n_pads; i++)
        base_str_appendf(text, ", pad %s %.17g", rules->pads[i].key.name, rules->pads[i].value);
    for (size_t i = 0; i < rules->n_joins; i++)
        base_str_appendf(text, ", join %s %d", rules->joins[i].key.name, rules->joins[i].axis);
}

/* ---- one key ------------------------------------------------------------------------- */

/* Copies a block of `rank` axes into a larger one. Strides in bytes. */
static void copy_block(char *to, const char *from, int rank, const int64_t *shape,
                       const size_t *to_stride, const size_t *from_stride, size_t size) {
    if (rank == 0) {
        memcpy(to, from, size);
        return;
    }
    if (rank == 1) {
        if (shape[0]) memcpy(to, from, (size_t)shape[0] * size);
        return;
    }
    for (int64_t i = 0; i < shape[0]; i++)
        copy_block(to + (size_t)i * to_stride[0], from + (size_t)i * from_stride[0], rank - 1,
                   shape + 1, to_stride + 1, from_stride + 1, size);
}

static void strides_of(int rank, const int64_t *shape, size_t size, size_t *strides) {
    for (int axis = rank - 1; axis >= 0; axis--) {
        strides[axis] = size;
        size *= (size_t)shape[axis];
    }
}

/* What one key's arrays have in common. axis < 0: they are stacked. */
typedef struct Joint {
    DxArray *const *parts;
    size_t count;
    int axis;
    int64_t shape[DX_MAX_RANK]; /* of the whole */
    bool padded;
} Joint;

static bool measure(Joint *joint, DxKey key, Error *err) {
    const DxArray *first = joint->parts[0];
    int rank = first->rank;
    if (joint->axis >= rank)
        return base_fail(err, ERROR_INPUT, "key \"%s\": cannot be joined along axis %d of %d",
                         key.name, joint->axis, rank);
    if (joint->axis < 0 && rank == DX_MAX_RANK)
        return base_fail(err, ERROR_INPUT, "key \"%s\": arrays of rank %d cannot be stacked",
                         key.name, rank);
    int64_t *inner = joint->shape + (joint->axis < 0);
    if (joint->axis < 0) joint->shape[0] = (int64_t)joint->count;
    for (int axis = 0; axis < rank; axis++) inner[axis] = first->shape[axis];
    for (size_t i = 1; i < joint->count; i++) {
        const DxArray *part = joint->parts[i];
        if (part->type != first->type || part->rank != rank) {
            char one[96], other[96];
            return base_fail(err, ERROR_INPUT, "key \"%s\": %s beside %s in one batch", key.name,
                             dx_array_describe(first, one, sizeof one),
                             dx_array_describe(part, other, sizeof other));
        }
        for (int axis = 0; axis < rank; axis++) {
            if (axis == joint->axis) {
                inner[axis] += part->shape[axis];
            } else if (part->shape[axis] != inner[axis]) {
                joint->padded = true;
                inner[axis] = BASE_MAX(inner[axis], part->shape[axis]);
            }
        }
    }
    return true;
}

static DxArray *join_arrays(Joint *joint, DxKey key, double pad, Error *err) {
    const DxArray *first = joint->parts[0];
    const bool stack = joint->axis < 0;
    const int rank = first->rank, whole_rank = rank + stack;
    const size_t size = dx_type_size(first->type);
    if (!measure(joint, key, err)) return NULL;
    DxArray *whole = dx_array_new(first->type, whole_rank, joint->shape, err);
    if (!whole) return NULL;
    if (stack && !joint->padded) {
        char *to = whole->data;
        for (size_t i = 0; i < joint->count; i++, to += first->bytes)
            if (first->bytes) memcpy(to, joint->parts[i]->data, first->bytes);
        return whole;
    }
    if (joint->padded) dx_array_fill(whole, pad);
    size_t to_stride[DX_MAX_RANK] = {0}, from_stride[DX_MAX_RANK] = {0}, offset = 0;
    strides_of(whole_rank, joint->shape, size, to_stride);
    for (size_t i = 0; i < joint->count; i++) {
        const DxArray *part = joint->parts[i];
        strides_of(rank, part->shape, size, from_stride);
        if (part->count)
            copy_block((char *)whole->data + offset, part->data, rank, part->shape,
                       to_stride + stack, from_stride, size);
        offset += stack ? to_stride[0] : to_stride[joint->axis] * (size_t)part->shape[joint->axis];
    }
    return whole;
}

/* ---- collate ------------------------------------------------------------------------- */

static bool same_keys(DxSample *const *samples, size_t count, Error *err) {
    const DxSample *first = samples[0];
    for (size_t i = 1; i < count; i++) {
        const DxSample *other = samples[i];
        for (uint32_t f = 0; f < first->count; f++)
            if (!dx_sample_get(other, first->fields[f].key))
                return base_fail(err, ERROR_INPUT,
                                 "sample %zu of a batch lacks key \"%s\", which the first has", i,
                                 first->fields[f].key.name);
        for (uint32_t f = 0; other->count != first->count && f < other->count; f++)
            if (!dx_sample_get(first, other->fields[f].key))
                return base_fail(err, ERROR_INPUT,
                                 "sample %zu of a batch has key \"%s\", which the first lacks", i,
                                 other->fields[f].key.name);
    }
    return true;
}

DxSample *dx_batch_join(DxSample *const *samples, size_t count, const BatchRules *rules,
                        Error *err) {
    if (count == 0) {
        base_fail(err, ERROR_INPUT, "a batch of no samples");
        return NULL;
    }
    if (!same_keys(samples, count, err)) return NULL;
    DxSample *batch = dx_sample_new();
    dx_sample_set_record(&batch, samples[0]->record);
    DxArray *few[256], **parts = count <= 256 ? few : base_calloc(count, sizeof *parts);
    bool ok = true;
    for (uint32_t f = 0; ok && f < samples[0]->count; f++) {
        DxKey key = samples[0]->fields[f].key;
        Joint joint = {.parts = parts, .count = count, .axis = -1};
        double pad = 0;
        for (size_t i = 0; i < count; i++) {
            /* Fields mostly stand in the same order. */
            const DxSample *sample = samples[i];
            bool there = f < sample->count && sample->fields[f].key.name == key.name;
            parts[i] = there ? sample->fields[f].value : dx_sample_get(sample, key);
        }
        for (size_t i = 0; i < rules->n_pads; i++)
            if (rules->pads[i].key.name == key.name) pad = rules->pads[i].value;
        for (size_t i = 0; i < rules->n_joins; i++)
            if (rules->joins[i].key.name == key.name) joint.axis = rules->joins[i].axis;
        DxArray *whole = join_arrays(&joint, key, pad, err);
        ok = whole != NULL;
        dx_sample_put(&batch, key, whole);
    }
    if (parts != few) free(parts);
    if (ok) return batch;
    dx_sample_free(batch);
    return NULL;
}

DxSample *dx_collate(DxSample *const *samples, size_t count, const DxBatchOptions *options,
                     Error *err) {
    BatchRules rules;
    if (!dx_batch_rules(options, &rules, err)) return NULL;
    DxSample *batch = dx_batch_join(samples, count, &rules, err);
    dx_batch_rules_free(&rules);
    return batch;
}

/* ---- the stream ---------------------------------------------------------------------- */

typedef struct BatchStream {
    DxStream base;
    int64_t size;
    bool drop_last;
    BatchRules rules;
    DxSamples gathered; /* of the batch under construction, kept over a failure */
} BatchStream;

static void clear(DxSamples *list) {
    for (size_t i = 0; i < list->count; i++) dx_sample_free(list->items[i]);
    list->count = 0;
}

static DxStatus batch_next(DxStream *stream, DxSample **sample, Error *err) {
    BatchStream *batch = (BatchStream *)stream;
    DxStatus status = DX_OK;
    while (batch->gathered.count < (size_t)batch->size) {
        status = dx_next(stream->upstream, sample, err);
        if (status == DX_FAIL) return status;
        if (status == DX_END) break;
        dx_samples_add(&batch->gathered, *sample);
    }
    if (status == DX_END && (batch->gathered.count == 0 || batch->drop_last)) {
        clear(&batch->gathered);
        return DX_END;
    }
    *sample = dx_batch_join(batch->gathered.items, batch->gathered.count, &batch->rules, err);
    if (!*sample) {
        StrBuf where = {0};
        dx_stream_where(stream, dx_sample_record(batch->gathered.items[0]), &where);
        dx_fail_at("batch", &where, err);
        base_str_free(&where);
    }
    clear(&batch->gathered);
    return *sample ? DX_OK : DX_FAIL;
}

static bool batch_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    (void)err;
    clear(&((BatchStream *)stream)->gathered);
    return true;
}

static void batch_options(const DxStream *stream, StrBuf *text) {
    const BatchStream *batch = (const BatchStream *)stream;
    base_str_appendf(text, "%lld%s", (long long)batch->size, batch->drop_last ? ", full" : "");
    dx_batch_rules_identity(&batch->rules, text);
}

static void batch_save(DxStream *stream, StrBuf *out) {
    dx_put_samples(out, &((BatchStream *)stream)->gathered);
}

static bool batch_load(DxStream *stream, DxReader *reader, Error *err) {
    return dx_get_samples(reader, &((BatchStream *)stream)->gathered, err);
}

static void batch_free(DxStream *stream) {
    dx_samples_free(&((BatchStream *)stream)->gathered);
    dx_batch_rules_free(&((BatchStream *)stream)->rules);
}

static const DxStreamKind batch_kind = {
    .name = "batch",
    .next = batch_next,
    .rewind = batch_rewind,
    .options = batch_options,
    .save = batch_save,
    .load = batch_load,
    .free = batch_free,
};

DxStream *dx_batch(DxStream *stream, const DxBatchOptions *options, Error *err) {
    BatchRules rules;
    if (!dx_stream_check(stream, options->size > 0, err, "batch: %lld samples",
                         (long long)options->size))
        return NULL;
    if (!dx_batch_rules(options, &rules, err)) {
        dx_stream_free(stream);
        return NULL;
    }
    BatchStream *batch = dx_stream_over(&batch_kind, sizeof *batch, stream);
    batch->size = options->size;
    batch->drop_last = options->drop_last;
    batch->rules = rules;
    return &batch->base;
}
