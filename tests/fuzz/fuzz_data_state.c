/* Hostile saved states: loading is refused or gives a stream that goes on. The body is
 * the fuzzer's, the head with its length and hash is made right, so that what is behind
 * it is reached. Half of the inputs begin with a real state and change it. */
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static DxStatus double_it(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                          Error *err) {
    (void)self, (void)random, (void)err;
    for (int i = 0; i < 2; i++) {
        DxSample *part = dx_sample_new();
        DxArray *ids = dx_sample_get(sample, dx_key("ids"));
        if (ids) dx_sample_put(&part, dx_key("ids"), dx_array_retain(ids));
        dx_emit(emit, part);
    }
    return DX_OK;
}

static DxStream *pipeline(void) {
    Error err = {0};
    DxSample *samples[8];
    for (int i = 0; i < 8; i++) {
        samples[i] = dx_sample_new();
        dx_sample_put(&samples[i], dx_key("ids"), dx_array_filled(DX_I32, 1 + i % 3, i, &err));
    }
    DxStream *stream =
        dx_buffer_stream(dx_buffer_shuffle(dx_samples(samples, 8, &err), 1, &err), &err);
    for (int i = 0; i < 8; i++) dx_sample_free(samples[i]);
    stream = dx_flat_map(stream, &(DxExpand){.name = "double", .expand = double_it}, NULL, &err);
    stream = dx_window_shuffle(dx_repeat(stream, 2, &err), 3, 5, &err);
    stream = dx_pack(stream, &(DxPackOptions){.key = "ids", .length = 4, .open = 2}, &err);
    stream = dx_dynamic_batch(stream,
                              &(DxDynamicOptions){.key = "ids", .window = 4, .max_size = 12}, &err);
    return stream;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Error err = {0};
    StrBuf state = {0};
    DxSample *sample;
    DxStream *stream = pipeline();
    if (size < 2 || !stream) {
        dx_stream_free(stream);
        return 0;
    }
    for (int i = 0; i < data[0] % 5; i++)
        if (dx_next(stream, &sample, &err) == DX_OK) dx_sample_free(sample);
    if (dx_save(stream, &state, &err)) {
        enum { HEAD = 24 };
        char *body = state.data + HEAD;
        size_t length = state.length - HEAD;
        /* Places and new bytes, three of the input each. */
        for (size_t i = 1; i + 2 < size; i += 3)
            body[((size_t)data[i] << 8 | data[i + 1]) % length] ^= (char)data[i + 2];
        uint64_t hash = base_hash(body, length);
        memcpy(state.data + 16, &hash, sizeof hash);
        if (dx_load(stream, state.data, state.length, &err))
            for (int i = 0; i < 20; i++) {
                Error ignored = {0};
                DxStatus status = dx_next(stream, &sample, &ignored);
                if (status == DX_END) break;
                if (status == DX_OK) dx_sample_free(sample);
            }
    }
    dx_load(stream, data, size, &err);
    base_str_free(&state);
    dx_stream_free(stream);
    return 0;
}
