/* Images of a folder as one batch: found, loaded, decoded by threads, cut to one size.
 * What is damaged is set aside with its reason.
 *     cc mlxdata_files.c $(pkg-config --cflags --libs mlxdata) */
#include "data/data.h"

static void set_aside(void *context, const DxRecord *record, const Error *failure) {
    (void)context, (void)record;
    fprintf(stderr, "set aside: %s\n", failure->message);
}

int main(int count, char **arguments) {
    static const char *const patterns[] = {"*.png", "*.jpg", "*.jpeg"};
    Error err = {0};
    if (count != 2) {
        fprintf(stderr, "usage: mlxdata_files FOLDER\n");
        return 2;
    }
    const char *const folder = arguments[1];
    DxFilesOptions options = {.paths = &folder,
                              .n_paths = 1,
                              .recursive = true,
                              .include = patterns,
                              .n_include = BASE_COUNT(patterns)};
    DxStream *stream = dx_buffer_stream(dx_files(&options, &err), &err);
    stream = dx_step(stream, dx_load_file("path", NULL, "bytes", &err), &err);
    stream = dx_step(stream, dx_decode_image("bytes", "image", 3, &err), &err);
    stream = dx_step(stream, dx_drop("bytes", &err), &err);
    stream = dx_step(stream, dx_image_resize_side("image", 8, &err), &err);
    stream = dx_step(stream, dx_image_crop("image", 8, 8, &err), &err);
    stream = dx_step(stream, dx_image_flip("image", 0.5, 1, &err), &err);
    stream = dx_parallel(
        stream, &(DxParallelOptions){.on_error = DX_ON_ERROR_CALL, .call = set_aside}, &err);
    stream = dx_batch(stream, &(DxBatchOptions){.size = 4}, &err);
    DxSample *batch;
    DxStatus status = DX_FAIL;
    while (stream && (status = dx_next(stream, &batch, &err)) == DX_OK) {
        char shape[64];
        printf("%s\n",
               dx_array_describe(dx_sample_get(batch, dx_key("image")), shape, sizeof shape));
        dx_sample_free(batch);
    }
    dx_stream_free(stream);
    if (status == DX_END) return 0;
    fprintf(stderr, "mlxdata_files: %s\n", err.message);
    return 1;
}
