/* Operators on the fields of a sample: which stay, under what name, cut and padded.
 * Arguments are checked when an operator is made, arrays when it meets them. */
#include "data/step.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "data/stream.h"

/* ---- the common part ----------------------------------------------------------------- */

static void args_free(void *self) {
    DxStepArgs *args = self;
    free(args->identity);
    free(args->text);
    free(args->other);
    free(args->keys);
    free(args);
}

DxStep dx_step_new(const char *name, DxApply apply, DxStepArgs args, bool valid, Error *err) {
    DxStepArgs *self = base_alloc(sizeof *self);
    *self = args;
    if (valid)
        return (DxStep){
            {.name = name, .options = self->identity, .apply = apply, .destroy = args_free}, self};
    base_fail(err, ERROR_INPUT, "%s(%s): these arguments make no sense", name, self->identity);
    args_free(self);
    return (DxStep){0};
}

DxArray *dx_step_array(const DxStepArgs *args, const DxSample *sample, int *axis, Error *err) {
    DxArray *array = dx_sample_need(sample, args->key, DX_ANY_TYPE, -1, err);
    if (!array) return NULL;
    *axis = args->axis < 0 ? args->axis + array->rank : args->axis;
    if (*axis >= 0 && *axis < array->rank) return array;
    char text[96];
    base_fail(err, ERROR_INPUT, "key \"%s\": %s has no axis %d", args->key.name,
              dx_array_describe(array, text, sizeof text), args->axis);
    return NULL;
}

DxStatus dx_step_put(const DxStepArgs *args, DxSample **sample, DxArray *value) {
    dx_sample_put(sample, args->to, value);
    return value ? DX_OK : DX_FAIL;
}

DxStream *dx_step(DxStream *stream, DxStep step, Error *err) {
    if (step.op.apply) return dx_map(stream, &step.op, step.self, err);
    dx_stream_free(stream);
    return NULL;
}

DxBuffer *dx_buffer_step(DxBuffer *buffer, DxStep step, Error *err) {
    if (step.op.apply) return dx_buffer_map(buffer, &step.op, step.self, err);
    dx_buffer_free(buffer);
    return NULL;
}

/* ---- which samples ------------------------------------------------------------------- */

typedef struct Filter {
    bool (*test)(void *self, const DxSample *sample);
    void *self;
    void (*destroy)(void *self);
} Filter;

static DxStatus filter_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    (void)err;
    const Filter *filter = self;
    return filter->test(filter->self, *sample) ? DX_OK : DX_SKIP;
}

static void filter_free(void *self) {
    Filter *filter = self;
    if (filter->destroy) filter->destroy(filter->self);
    free(filter);
}

DxStep dx_filter(const char *name, bool (*test)(void *self, const DxSample *sample), void *self,
                 void (*destroy)(void *self)) {
    Filter *filter = base_alloc(sizeof *filter);
    *filter = (Filter){test, self, destroy};
    return (DxStep){{.name = name, .apply = filter_apply, .destroy = filter_free}, filter};
}

static DxStatus filter_size_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    int axis;
    const DxArray *array = dx_step_array(args, *sample, &axis, err);
    if (!array) return DX_FAIL;
    int64_t size = array->shape[axis];
    return size >= args->first && (args->second < 0 || size <= args->second) ? DX_OK : DX_SKIP;
}

DxStep dx_filter_size(const char *key, int axis, int64_t low, int64_t high, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .axis = axis, .first = low, .second = high};
    args.identity =
        base_format("%s, axis %d, %lld to %lld", key, axis, (long long)low, (long long)high);
    return dx_step_new("filter size", filter_size_apply, args, true, err);
}

/* ---- which fields -------------------------------------------------------------------- */

static DxStatus keep_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    DxSample *kept = dx_sample_new();
    dx_sample_set_record(&kept, *dx_sample_record(*sample));
    for (size_t i = 0; i < args->n_keys; i++) {
        DxArray *array = dx_sample_need(*sample, args->keys[i], DX_ANY_TYPE, -1, err);
        if (!array) {
            dx_sample_free(kept);
            return DX_FAIL;
        }
        dx_sample_put(&kept, args->keys[i], dx_array_retain(array));
    }
    dx_sample_free(*sample);
    *sample = kept;
    return DX_OK;
}

DxStep dx_keep(const char *const *keys, size_t count, Error *err) {
    DxStepArgs args = {.n_keys = count, .keys = base_calloc(count + 1, sizeof *args.keys)};
    StrBuf identity = {0};
    for (size_t i = 0; i < count; i++) {
        args.keys[i] = dx_key(keys[i]);
        base_str_appendf(&identity, "%s%s", i ? ", " : "", keys[i]);
    }
    args.identity = base_str_detach(&identity);
    return dx_step_new("keep", keep_apply, args, true, err);
}

static DxStatus drop_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    if (!dx_sample_need(*sample, args->key, DX_ANY_TYPE, -1, err)) return DX_FAIL;
    dx_sample_remove(sample, args->key);
    return DX_OK;
}

DxStep dx_drop(const char *key, Error *err) {
    return dx_step_new("drop", drop_apply,
                       (DxStepArgs){.key = dx_key(key), .identity = base_strdup(key)}, true, err);
}

static DxStatus rename_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    DxArray *array = dx_sample_need(*sample, args->key, DX_ANY_TYPE, -1, err);
    if (!array) return DX_FAIL;
    dx_array_retain(array);
    dx_sample_remove(sample, args->key);
    return dx_step_put(args, sample, array);
}

DxStep dx_rename(const char *key, const char *to, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .to = dx_key(to)};
    args.identity = base_format("%s to %s", key, to);
    return dx_step_new("rename", rename_apply, args, true, err);
}

/* ---- cut and padded ------------------------------------------------------------------ */

static DxStatus slice_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    int axis;
    const DxArray *array = dx_step_array(args, *sample, &axis, err);
    if (!array) return DX_FAIL;
    int64_t size = array->shape[axis], start = args->first, end = args->second;
    if (start < 0) start = BASE_MAX(start + size, 0);
    if (end < 0) end += size;
    start = BASE_MIN(start, size);
    end = BASE_MAX(BASE_MIN(end, size), start);
    return dx_step_put(args, sample,
                       dx_array_region(array, axis, start, end - start, 0, 0, 0, err));
}

DxStep dx_slice(const char *key, int axis, int64_t start, int64_t end, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .axis = axis, .first = start, .second = end};
    args.to = args.key;
    args.identity =
        base_format("%s, axis %d, %lld:%lld", key, axis, (long long)start, (long long)end);
    return dx_step_new("slice", slice_apply, args, true, err);
}

static DxStatus random_slice_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    const DxStepArgs *args = self;
    int axis;
    const DxArray *array = dx_step_array(args, *sample, &axis, err);
    if (!array) return DX_FAIL;
    int64_t spare = array->shape[axis] - args->first;
    if (spare <= 0) return DX_OK;
    int64_t start = (int64_t)dx_random_below(random, (uint64_t)spare + 1);
    return dx_step_put(args, sample,
                       dx_array_region(array, axis, start, args->first, 0, 0, 0, err));
}

DxStep dx_random_slice(const char *key, int axis, int64_t size, uint64_t seed, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .axis = axis, .first = size};
    args.to = args.key;
    args.identity = base_format("%s, axis %d, %lld", key, axis, (long long)size);
    DxStep step = dx_step_new("random slice", random_slice_apply, args, size > 0, err);
    step.op.seed = seed;
    return step;
}

static DxStatus pad_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    int axis;
    const DxArray *array = dx_step_array(args, *sample, &axis, err);
    if (!array) return DX_FAIL;
    return dx_step_put(args, sample,
                       dx_array_region(array, axis, 0, array->shape[axis], args->first,
                                       args->second, args->value, err));
}

DxStep dx_pad(const char *key, int axis, int64_t left, int64_t right, double value, Error *err) {
    DxStepArgs args = {
        .key = dx_key(key), .axis = axis, .first = left, .second = right, .value = value};
    args.to = args.key;
    args.identity = base_format("%s, axis %d, %lld and %lld of %.17g", key, axis, (long long)left,
                                (long long)right, value);
    return dx_step_new("pad", pad_apply, args, left >= 0 && right >= 0, err);
}

/* `first` is the size, or with `second` the multiple. */
static DxStatus pad_to_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    int axis;
    const DxArray *array = dx_step_array(args, *sample, &axis, err);
    if (!array) return DX_FAIL;
    int64_t size = array->shape[axis], missing = args->first - size;
    if (args->second) missing = size % args->first ? args->first - size % args->first : 0;
    if (missing == 0 || (missing < 0 && !args->flag)) return DX_OK;
    int64_t length = missing < 0 ? args->first : size;
    return dx_step_put(
        args, sample,
        dx_array_region(array, axis, 0, length, 0, BASE_MAX(missing, 0), args->value, err));
}

static DxStep pad_to(const char *name, const char *key, int axis, int64_t size, double value,
                     bool cut, bool multiple, Error *err) {
    DxStepArgs args = {.key = dx_key(key),
                       .axis = axis,
                       .first = size,
                       .second = multiple,
                       .value = value,
                       .flag = cut};
    args.to = args.key;
    args.identity = base_format("%s, axis %d, %lld of %.17g%s", key, axis, (long long)size, value,
                                cut ? ", cut" : "");
    return dx_step_new(name, pad_to_apply, args, multiple ? size > 0 : size >= 0, err);
}

DxStep dx_pad_to(const char *key, int axis, int64_t size, double value, bool cut, Error *err) {
    return pad_to("pad to", key, axis, size, value, cut, false, err);
}

DxStep dx_pad_to_multiple(const char *key, int axis, int64_t multiple, double value, Error *err) {
    return pad_to("pad to multiple", key, axis, multiple, value, false, true, err);
}

/* ---- shapes -------------------------------------------------------------------------- */

static DxStatus shape_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *array = dx_sample_need(*sample, args->key, DX_ANY_TYPE, -1, err);
    if (!array) return DX_FAIL;
    if (args->axis < 0)
        return dx_step_put(args, sample,
                           dx_array_copy(DX_I64, 1, (int64_t[]){array->rank}, array->shape, err));
    int axis;
    if (!dx_step_array(args, *sample, &axis, err)) return DX_FAIL;
    return dx_step_put(args, sample, dx_array_int(array->shape[axis]));
}

DxStep dx_shape(const char *key, int axis, const char *to, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .to = dx_key(to), .axis = axis};
    args.identity = base_format("%s, axis %d, to %s", key, axis, to);
    return dx_step_new("shape", shape_apply, args, true, err);
}

static DxStatus squeeze_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    DxArray *array = dx_sample_need(*sample, args->key, DX_ANY_TYPE, -1, err);
    int one = -1, rank = 0;
    int64_t shape[DX_MAX_RANK];
    if (!array || (args->axis != INT_MIN && !dx_step_array(args, *sample, &one, err)))
        return DX_FAIL;
    if (one >= 0 && array->shape[one] != 1) {
        char text[96];
        base_fail(err, ERROR_INPUT, "key \"%s\": axis %d of %s has more than one element",
                  args->key.name, args->axis, dx_array_describe(array, text, sizeof text));
        return DX_FAIL;
    }
    for (int i = 0; i < array->rank; i++)
        if (one >= 0 ? i != one : array->shape[i] != 1) shape[rank++] = array->shape[i];
    return dx_step_put(args, sample, dx_array_copy(array->type, rank, shape, array->data, err));
}

DxStep dx_squeeze(const char *key, int axis, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .axis = axis};
    args.to = args.key;
    args.identity = base_format("%s, axis %d", key, axis);
    return dx_step_new("squeeze", squeeze_apply, args, true, err);
}

/* ---- bytes --------------------------------------------------------------------------- */

static DxStatus replace_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *array = dx_sample_need_bytes(*sample, args->key, err);
    if (!array) return DX_FAIL;
    StrBuf out = {0};
    base_str_append(&out, "");
    const char *at = array->data, *end = at + array->bytes;
    for (int64_t left = args->first; left != 0; left -= left > 0) {
        const char *found =
            array->bytes ? memmem(at, (size_t)(end - at), args->text, args->text_length) : NULL;
        if (!found) break;
        base_str_append_n(&out, at, (size_t)(found - at));
        base_str_append_n(&out, args->other, args->other_length);
        at = found + args->text_length;
    }
    if (end > at) base_str_append_n(&out, at, (size_t)(end - at));
    DxArray *made = dx_array_copy(array->type, 1, (int64_t[]){(int64_t)out.length}, out.data, err);
    base_str_free(&out);
    return dx_step_put(args, sample, made);
}

DxStep dx_replace(const char *key, const char *old, const char *by, int64_t count, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .first = count};
    args.to = args.key;
    args.text = base_strdup(old);
    args.other = base_strdup(by);
    args.text_length = strlen(old);
    args.other_length = strlen(by);
    args.identity = base_format("%s, \"%s\" by \"%s\", %lld", key, old, by, (long long)count);
    return dx_step_new("replace", replace_apply, args, args.text_length > 0, err);
}

/* ---- files --------------------------------------------------------------------------- */

static DxStatus load_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *name = dx_sample_need_bytes(*sample, args->key, err);
    if (!name) return DX_FAIL;
    char *file = base_strndup(name->bytes ? name->data : "", name->bytes);
    bool alone = !args->text || file[0] == '/';
    char *path = alone ? base_strdup(file) : base_path_join(args->text, file), *data = NULL;
    size_t length = 0;
    DxArray *bytes = NULL;
    if (base_file_read(path, &data, &length, err)) bytes = dx_array_bytes(data, length, err);
    free(data);
    free(path);
    free(file);
    return dx_step_put(args, sample, bytes);
}

DxStep dx_load_file(const char *key, const char *folder, const char *to, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .to = dx_key(to)};
    args.text = folder ? base_strdup(folder) : NULL;
    args.identity = base_format("%s in %s to %s", key, folder ? folder : ".", to);
    return dx_step_new("load file", load_apply, args, true, err);
}

static DxStatus text_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *bytes = dx_sample_need_bytes(*sample, args->key, err);
    if (!bytes) return DX_FAIL;
    const char *text = bytes->bytes ? bytes->data : "";
    size_t length = bytes->bytes;
    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, length -= 3;
    if (!args->flag || base_utf8_valid(text, length)) {
        DxArray *made = dx_checked_text(text, length, err);
        if (!made) base_error_context(err, "key \"%s\"", args->key.name);
        return dx_step_put(args, sample, made);
    }
    StrBuf out = {0};
    for (size_t at = 0; at < length;) {
        uint32_t codepoint;
        at += base_utf8_decode(text + at, length - at, &codepoint, NULL);
        base_str_append_codepoint(&out, codepoint);
    }
    DxArray *made = dx_array_text(out.data, out.length, err);
    base_str_free(&out);
    return dx_step_put(args, sample, made);
}

DxStep dx_decode_text(const char *key, const char *to, bool repair, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .to = dx_key(to), .flag = repair};
    args.identity = base_format("%s to %s%s", key, to, repair ? ", repaired" : "");
    return dx_step_new("decode text", text_apply, args, true, err);
}
