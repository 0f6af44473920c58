/* Hostile comma-separated values and lines, by the operators that split what samples hold. */
#include "data/data.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drain(DxStream *stream) {
    DxSample *sample;
    for (;;) {
        Error err = {0};
        DxStatus status = dx_next(stream, &sample, &err);
        if (status == DX_END) break;
        if (status == DX_OK) dx_sample_free(sample);
    }
    dx_stream_free(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    Error err = {0};
    DxCsvOptions csv = {.separator = (char)(data[0] & 1 ? ';' : 0),
                        .no_quotes = (data[0] & 2) != 0,
                        .bytes = (data[0] & 4) != 0,
                        .max_record = 1 + (size_t)data[1] * 16};
    DxLinesOptions lines = {.crlf = (data[0] & 8) != 0,
                            .skip_empty = (data[0] & 16) != 0,
                            .bytes = csv.bytes,
                            .max_line = csv.max_record};
    DxSample *sample = dx_sample_new();
    dx_sample_put(&sample, dx_key("bytes"), dx_array_bytes(data + 2, size - 2, &err));
    DxBuffer *buffer = dx_samples(&sample, 1, &err);
    dx_sample_free(sample);
    DxStream *stream = dx_buffer_stream(dx_buffer_retain(buffer), &err);
    drain(dx_split_lines(stream, "bytes", &lines, &err));
    /* A header names keys, which are kept for the process: names of its own instead. */
    static const char *const columns[] = {"a", "b", "c"};
    csv.columns = columns;
    csv.n_columns = 1 + size % 3;
    drain(dx_split_csv(dx_buffer_stream(buffer, &err), "bytes", &csv, &err));
    return 0;
}
