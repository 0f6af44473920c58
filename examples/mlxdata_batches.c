/* Batches of JSON lines: shuffled anew in every epoch, worked on by threads, padded.
 *     cc mlxdata_batches.c $(pkg-config --cflags --libs mlxdata) */
#include "data/data.h"

/* An operator of our own: the number of characters of a text. */
static DxStatus count_characters(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self, (void)random;
    const DxArray *text = dx_sample_need(*sample, dx_key("text"), DX_TEXT, 1, err);
    if (!text) return DX_FAIL;
    dx_sample_put(sample, dx_key("length"), dx_array_int((int64_t)text->count));
    return DX_OK;
}

int main(int count, char **arguments) {
    static const char *const fields[] = {"id", "text"};
    Error err = {0};
    if (count != 2) {
        fprintf(stderr, "usage: mlxdata_batches FILE.jsonl\n");
        return 2;
    }
    DxBuffer *rows =
        dx_jsonl(&(DxJsonlOptions){.path = arguments[1], .fields = fields, .n_fields = 2}, &err);
    DxStream *stream = dx_buffer_stream(dx_buffer_shuffle(rows, 7, &err), &err);
    stream = dx_map(stream, &(DxOp){.name = "count", .apply = count_characters}, NULL, &err);
    stream = dx_parallel(stream, &(DxParallelOptions){.threads = 2}, &err);
    stream = dx_batch(stream, &(DxBatchOptions){.size = 3}, &err);
    stream = dx_repeat(stream, 2, &err);
    DxSample *batch;
    DxStatus status = DX_FAIL;
    while (stream && (status = dx_next(stream, &batch, &err)) == DX_OK) {
        char shape[64];
        const DxArray *ids = dx_sample_get(batch, dx_key("id"));
        printf("epoch %d: %d rows, %s, the first is row %d\n", (int)dx_sample_record(batch)->epoch,
               (int)ids->count,
               dx_array_describe(dx_sample_get(batch, dx_key("text")), shape, sizeof shape),
               (int)dx_array_int_at(ids, 0));
        dx_sample_free(batch);
    }
    dx_stream_free(stream);
    if (status == DX_END) return 0;
    fprintf(stderr, "mlxdata_batches: %s\n", err.message);
    return 1;
}
