/* Stops in the middle of a pass, keeps where it stood in a few bytes, and goes on from
 * there in a new stream: what comes is the same as without a stop.
 *     cc mlxdata_resume.c $(pkg-config --cflags --libs mlxdata) */
#include "data/data.h"

#include <string.h>

static DxStream *open_stream(const char *path, Error *err) {
    static const char *const fields[] = {"id"};
    DxBuffer *rows =
        dx_jsonl(&(DxJsonlOptions){.path = path, .fields = fields, .n_fields = 1}, err);
    DxStream *stream = dx_repeat(dx_buffer_stream(rows, err), 2, err);
    stream = dx_window_shuffle(stream, 4, 11, err);
    return dx_batch(stream, &(DxBatchOptions){.size = 2}, err);
}

/* Appends the ids of up to `most` batches. */
static bool read_batches(DxStream *stream, int most, StrBuf *ids, Error *err) {
    DxSample *batch;
    DxStatus status = DX_OK;
    for (int i = 0; i < most && (status = dx_next(stream, &batch, err)) == DX_OK; i++) {
        const DxArray *id = dx_sample_get(batch, dx_key("id"));
        for (size_t j = 0; j < id->count; j++)
            base_str_appendf(ids, " %d", (int)dx_array_int_at(id, j));
        dx_sample_free(batch);
    }
    return status != DX_FAIL;
}

int main(int count, char **arguments) {
    Error err = {0};
    StrBuf whole = {0}, parts = {0}, state = {0};
    if (count != 2) {
        fprintf(stderr, "usage: mlxdata_resume FILE.jsonl\n");
        return 2;
    }
    DxStream *stream = open_stream(arguments[1], &err);
    bool ok = stream && read_batches(stream, 1000000, &whole, &err);
    dx_stream_free(stream);
    stream = ok ? open_stream(arguments[1], &err) : NULL;
    ok = stream && read_batches(stream, 3, &parts, &err) && dx_save(stream, &state, &err);
    dx_stream_free(stream);
    stream = ok ? open_stream(arguments[1], &err) : NULL;
    ok = stream && dx_load(stream, state.data, state.length, &err) &&
         read_batches(stream, 1000000, &parts, &err);
    dx_stream_free(stream);
    if (ok)
        printf("rows%s\n%zu bytes of state, %s as without a stop\n", parts.data, state.length,
               strcmp(whole.data, parts.data) == 0 ? "the same" : "NOT the same");
    else
        fprintf(stderr, "mlxdata_resume: %s\n", err.message);
    base_str_free(&whole);
    base_str_free(&parts);
    base_str_free(&state);
    return !ok;
}
