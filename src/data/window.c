/* Windows that slide over an array: a flat map, so that dx_parallel can run it. */
#include <stdlib.h>

#include "data/stream.h"

typedef struct Windows {
    DxKey key, index;
    int64_t size, stride;
    int axis;
    bool short_tails, indexed;
} Windows;

static DxStatus expand(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                       Error *err) {
    (void)random;
    const Windows *windows = self;
    const DxArray *array = dx_sample_need(sample, windows->key, DX_ANY_TYPE, -1, err);
    if (!array) return DX_FAIL;
    int axis = windows->axis < 0 ? windows->axis + array->rank : windows->axis;
    if (axis < 0 || axis >= array->rank) {
        char text[96];
        base_fail(err, ERROR_INPUT, "key \"%s\": %s has no axis %d", windows->key.name,
                  dx_array_describe(array, text, sizeof text), windows->axis);
        return DX_FAIL;
    }
    int64_t count = array->shape[axis], number = 0;
    for (int64_t start = 0; start < count; number++) {
        int64_t length = BASE_MIN(windows->size, count - start);
        if (length < windows->size && !windows->short_tails) break;
        DxArray *window = dx_array_region(array, axis, start, length, 0, 0, 0, err);
        if (!window) return DX_FAIL;
        DxSample *part = dx_sample_new();
        dx_sample_put(&part, windows->key, window);
        if (windows->indexed) dx_sample_put(&part, windows->index, dx_array_int(number));
        dx_emit(emit, part);
        if (windows->stride >= count - start) break;
        start += windows->stride;
    }
    return DX_OK;
}

DxStream *dx_sliding_window(DxStream *stream, const DxWindowOptions *options, Error *err) {
    if (!dx_stream_check(stream, options->key && options->size > 0 && options->stride > 0, err,
                         "sliding window: a size of %lld, a stride of %lld; both want 1 or more",
                         (long long)options->size, (long long)options->stride))
        return NULL;
    Windows *windows = base_calloc(1, sizeof *windows);
    *windows = (Windows){.key = dx_key(options->key),
                         .index = dx_key(options->index_key ? options->index_key : ""),
                         .indexed = options->index_key != NULL,
                         .size = options->size,
                         .stride = options->stride,
                         .axis = options->axis,
                         .short_tails = options->short_tails};
    char *identity = base_format("%s, %lld by %lld, axis %d%s, %s", options->key,
                                 (long long)options->size, (long long)options->stride,
                                 options->axis, options->short_tails ? ", tails" : "",
                                 options->index_key ? options->index_key : "no index");
    DxExpand how = {.name = "sliding window",
                    .options = identity,
                    .keep = true,
                    .expand = expand,
                    .destroy = free};
    stream = dx_flat_map(stream, &how, windows, err);
    free(identity);
    return stream;
}
