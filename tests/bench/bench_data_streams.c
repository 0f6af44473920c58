/* What streams of samples cost: bench_data_streams TEXT [TOKENIZER]. Lines and JSON lines
 * of a text, small samples drained, batched and handed over by threads, padding,
 * and byte-pair encoding in a pipeline. Best of three. The sample is mlx-data's:
 * an int64 and 64 int32. */
#include "data/data.h"

#include "text/text.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 3, SAMPLES = 1 << 20, POOL = 4096 };

static void check(const void *made, const Error *err) {
    if (made) return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

typedef struct Drained {
    double seconds;
    int64_t samples, bytes; /* bytes: of all arrays */
} Drained;

static Drained drain(DxStream *stream) {
    Error err = {0};
    Drained all = {0};
    check(stream, &err);
    double start = base_now();
    for (;;) {
        DxSample *sample;
        DxStatus status = dx_next(stream, &sample, &err);
        if (status == DX_END) break;
        if (status == DX_FAIL) check(NULL, &err);
        all.samples++;
        for (size_t i = 0; i < dx_sample_count(sample); i++)
            all.bytes += (int64_t)dx_sample_at(sample, i)->bytes;
        dx_sample_free(sample);
    }
    all.seconds = base_now() - start;
    dx_stream_free(stream);
    return all;
}

/* ---- files ------------------------------------------------------------------------------ */

static void bench_lines(const char *path, double megabytes) {
    Error err = {0};
    double best = 1e9;
    Drained all = {0};
    for (int round = 0; round < ROUNDS; round++) {
        all = drain(dx_lines(&(DxLinesOptions){.path = path}, &err));
        best = BASE_MIN(best, all.seconds);
    }
    printf("lines                    %7.0f MB/s  %6.2f M lines/s (%.1f bytes each)\n",
           megabytes / best, (double)all.samples / best / 1e6,
           megabytes * 1e6 / (double)all.samples);
}

/* The lines of a text as {"id": n, "text": "...", "meta": {...}}. */
static char *write_jsonl(const char *path) {
    Error err = {0};
    char *name = base_format("%s.jsonl", path);
    AtomicFile *file = base_atomic_open(name, &err);
    check(file, &err);
    DxStream *lines = dx_lines(&(DxLinesOptions){.path = path, .skip_empty = true}, &err);
    DxSample *sample;
    StrBuf record = {0}, text = {0};
    for (int id = 0, in = 0; dx_next(lines, &sample, &err) == DX_OK; in++) {
        const DxArray *line = dx_sample_get(sample, dx_key("line"));
        base_str_append_n(&text, line->data, line->bytes);
        base_str_append_char(&text, '\n');
        dx_sample_free(sample);
        if (in % 20 != 19) continue;
        json_t *string = json_stringn(text.data, text.length);
        char *quoted = json_dumps(string, JSON_ENCODE_ANY);
        record.length = text.length = 0;
        base_str_appendf(&record, "{\"id\": %d, \"text\": %s, \"meta\": {\"source\": \"bench\"}}\n",
                         id++, quoted);
        if (!base_atomic_write(file, record.data, record.length, &err)) check(NULL, &err);
        free(quoted);
        json_decref(string);
    }
    dx_stream_free(lines);
    base_str_free(&record);
    base_str_free(&text);
    if (!base_atomic_commit(file, &err)) check(NULL, &err);
    return name;
}

static void bench_jsonl(const char *path) {
    static const char *const fields[] = {"text"};
    Error err = {0};
    MappedFile map;
    if (!base_map_open(path, &map, &err)) check(NULL, &err);
    double megabytes = (double)map.length / 1e6, indexing = 1e9, both = 1e9;
    base_map_close(&map);
    for (int round = 0; round < ROUNDS; round++) {
        double start = base_now();
        DxBuffer *rows =
            dx_jsonl(&(DxJsonlOptions){.path = path, .fields = fields, .n_fields = 1}, &err);
        check(rows, &err);
        double indexed = base_now() - start;
        indexing = BASE_MIN(indexing, indexed);
        double parsed = indexed + drain(dx_buffer_stream(rows, &err)).seconds;
        both = BASE_MIN(both, parsed);
    }
    printf("JSON lines, index        %7.0f MB/s\n", megabytes / indexing);
    printf("JSON lines, index, parse %7.0f MB/s\n", megabytes / both);
}

/* ---- small samples ------------------------------------------------------------------------ */

static DxBuffer *small_samples(void) {
    Error err = {0};
    DxSample **pool = base_calloc(POOL, sizeof *pool);
    int64_t *indices = base_calloc(SAMPLES, sizeof *indices);
    for (int i = 0; i < POOL; i++) {
        pool[i] = dx_sample_new();
        dx_sample_put(&pool[i], dx_key("id"), dx_array_int(i));
        dx_sample_put(&pool[i], dx_key("ids"), dx_array_filled(DX_I32, 64, i, &err));
    }
    for (int i = 0; i < SAMPLES; i++) indices[i] = i % POOL;
    DxBuffer *buffer = dx_buffer_pick(dx_samples(pool, POOL, &err), indices, SAMPLES, &err);
    for (int i = 0; i < POOL; i++) dx_sample_free(pool[i]);
    free(pool);
    free(indices);
    return buffer;
}

static DxStatus nothing(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self, (void)sample, (void)random, (void)err;
    return DX_OK;
}

static void bench_samples(void) {
    static const char *const names[] = {"drained", "renamed", "batched by 32", "parallel, 1 thread",
                                        "parallel, 2 threads"};
    Error err = {0};
    DxBuffer *buffer = small_samples();
    for (size_t kind = 0; kind < BASE_COUNT(names); kind++) {
        double best = 1e9;
        for (int round = 0; round < ROUNDS; round++) {
            DxStream *stream = dx_buffer_stream(dx_buffer_retain(buffer), &err);
            if (kind == 1) stream = dx_step(stream, dx_rename("id", "number", &err), &err);
            if (kind == 2) stream = dx_batch(stream, &(DxBatchOptions){.size = 32}, &err);
            if (kind > 2) {
                stream = dx_map(stream, &(DxOp){.name = "nothing", .apply = nothing}, NULL, &err);
                stream = dx_parallel(stream, &(DxParallelOptions){.threads = (int)kind - 2}, &err);
            }
            double seconds = drain(stream).seconds;
            best = BASE_MIN(best, seconds);
        }
        printf("%-24s %7.2f M samples/s\n", names[kind], SAMPLES / best / 1e6);
    }
    dx_buffer_free(buffer);
}

/* ---- padding ------------------------------------------------------------------------------- */

static double padding_of(DxStream *stream, int64_t useful) {
    Drained all = drain(stream);
    return 100 * (1 - (double)useful * 4 / (double)all.bytes);
}

static void bench_padding(void) {
    enum { COUNT = 10000, LEAST = 64, MOST = 1024, BUDGET = 16 * 1024 };
    Error err = {0};
    DxSample **samples = base_calloc(COUNT, sizeof *samples);
    DxRandom random = dx_random_of(1, 0, 0);
    int64_t useful = 0;
    for (int i = 0; i < COUNT; i++) {
        size_t length = LEAST + (size_t)dx_random_below(&random, MOST - LEAST + 1);
        samples[i] = dx_sample_new();
        dx_sample_put(&samples[i], dx_key("ids"), dx_array_filled(DX_I32, length, 1, &err));
        useful += (int64_t)length;
    }
    DxBuffer *buffer = dx_samples(samples, COUNT, &err);
    static const int64_t windows[] = {0, 500, 2000};
    printf("padding of 10,000 vectors of 64 to 1024: in order by 16 %.1f %%",
           padding_of(dx_batch(dx_buffer_stream(dx_buffer_retain(buffer), &err),
                               &(DxBatchOptions){.size = 16}, &err),
                      useful));
    for (size_t i = 0; i < BASE_COUNT(windows); i++) {
        DxStream *stream = dx_buffer_stream(dx_buffer_retain(buffer), &err);
        stream = dx_dynamic_batch(
            stream, &(DxDynamicOptions){.key = "ids", .window = windows[i], .max_size = BUDGET},
            &err);
        double share = padding_of(stream, useful);
        if (windows[i])
            printf(", windows of %d %.2f %%", (int)windows[i], share);
        else
            printf(", all sorted %.2f %%", share);
    }
    printf("\n");
    for (int i = 0; i < COUNT; i++) dx_sample_free(samples[i]);
    free(samples);
    dx_buffer_free(buffer);
}

/* ---- byte-pair encoding --------------------------------------------------------------------- */

static DxStatus encode(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    DxArray *text = dx_sample_need(*sample, dx_key("text"), DX_TEXT, 1, err);
    TextIds ids = {0};
    if (!text ||
        !text_tokenizer_encode(self, text->data, text->bytes, TEXT_ENCODE_PLAIN, &ids, err))
        return DX_FAIL;
    dx_sample_put(sample, dx_key("ids"), dx_array_ids(ids.data, ids.length, err));
    dx_sample_remove(sample, dx_key("text"));
    text_ids_free(&ids);
    return DX_OK;
}

static void bench_encoding(const char *path, const char *folder) {
    static const char *const fields[] = {"text"};
    Error err = {0};
    TextTokenizer *tokenizer = text_tokenizer_open(folder, &err);
    check(tokenizer, &err);
    for (int threads = 0; threads <= 2; threads++) {
        double best = 1e9, megabytes = 0, tokens = 0;
        for (int round = 0; round < ROUNDS; round++) {
            DxBuffer *rows =
                dx_jsonl(&(DxJsonlOptions){.path = path, .fields = fields, .n_fields = 1}, &err);
            check(rows, &err);
            if (round == 0 && threads == 0)
                megabytes = (double)drain(dx_buffer_stream(dx_buffer_retain(rows), &err)).bytes;
            DxStream *stream = dx_map(dx_buffer_stream(rows, &err),
                                      &(DxOp){.name = "encode", .apply = encode}, tokenizer, &err);
            if (threads)
                stream = dx_parallel(stream, &(DxParallelOptions){.threads = threads}, &err);
            stream = dx_pack(stream, &(DxPackOptions){.key = "ids", .length = 2048, .split = true},
                             &err);
            stream = dx_batch(stream, &(DxBatchOptions){.size = 8}, &err);
            Drained all = drain(stream);
            best = BASE_MIN(best, all.seconds);
            tokens = (double)all.bytes / 12;
        }
        static double text_bytes;
        if (threads == 0) text_bytes = megabytes;
        printf(
            "JSON lines, BPE, packed, batched, %d threads: %6.1f MB/s of text, %.2f M tokens/s\n",
            threads, text_bytes / best / 1e6, tokens / best / 1e6);
    }
    text_tokenizer_free(tokenizer);
}

int main(int count, char **arguments) {
    Error err = {0};
    MappedFile map;
    if (count < 2) {
        fprintf(stderr, "usage: bench_data_streams TEXT [TOKENIZER]\n");
        return 2;
    }
    if (!base_map_open(arguments[1], &map, &err)) check(NULL, &err);
    bench_lines(arguments[1], (double)map.length / 1e6);
    base_map_close(&map);
    char *jsonl = write_jsonl(arguments[1]);
    bench_jsonl(jsonl);
    bench_samples();
    bench_padding();
    if (count > 2) bench_encoding(jsonl, arguments[2]);
    unlink(jsonl);
    free(jsonl);
    return 0;
}
