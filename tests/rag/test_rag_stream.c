/* The stream of an ingest: files in their order whatever they are and however many
 * threads read them, batches bounded, the same index for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/fake.h"
#include "rag/ingest_stream.h"

enum { FILES = 300 };

static FakeEmbedder fake;
static RagEmbedder embedder;
static char *folder, *docs, *db;

static int setup(void **state) {
    (void)state;
    fake = (FakeEmbedder){0};
    embedder = fake_embedder(&fake);
    folder = fake_folder();
    docs = base_path_join(folder, "docs");
    db = base_path_join(folder, "index.db");
    mkdir(docs, 0755);
    for (int i = 0; i < FILES; i++) {
        static const char *const suffixes[] = {"md", "html", "txt", "c", "csv"};
        char name[32], text[256];
        snprintf(name, sizeof name, "f%03d.%s", i, suffixes[i % 5]);
        snprintf(text, sizeof text,
                 i % 5 == 1 ? "<h1>Boat %d</h1><p>Row %d.</p>" : "Boat %d, row %d.\n", i, i);
        fake_write(docs, name, i % 50 == 7 ? "\1\2\3" : text);
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_remove(folder);
    free(docs);
    free(db);
    return 0;
}

typedef struct Order {
    char last[512];
    size_t files, skipped;
} Order;

static void in_order(void *context, const RagFileEvent *event) {
    Order *order = context;
    assert_true(strcmp(order->last, event->path) < 0);
    snprintf(order->last, sizeof order->last, "%s", event->path);
    assert_int_equal(event->files_done, ++order->files);
    order->skipped += event->status == RAG_SKIPPED || event->status == RAG_FAILED;
}

static void test_files_are_told_in_their_order(void **state) {
    (void)state;
    for (int pass = 0; pass < 2; pass++) { /* new, then unchanged */
        Error err = {0};
        Order order = {0};
        RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
        RagIngestReport report;
        const char *paths[] = {docs};
        RagIngestOptions options = {.on_file = in_order, .on_file_context = &order};
        if (!rag_ingest(index, &embedder, paths, 1, &options, &report, &err))
            fail_msg("%s", err.message);
        assert_int_equal(order.files, FILES);
        assert_int_equal(order.skipped, 6);
        assert_int_equal(pass ? report.unchanged : report.added, FILES - 6);
        rag_ingest_report_free(&report);
        assert_true(rag_index_check(index, &err));
        rag_index_close(index);
    }
}

static void test_batches_have_documents_whole_and_vectors_in_their_order(void **state) {
    (void)state;
    Error err = {0};
    RagFiles files;
    const char *paths[] = {docs};
    assert_true(rag_walk(paths, 1, NULL, &files, &err));
    RagEntry *entries = base_calloc(files.count, sizeof *entries);
    for (size_t i = 0; i < files.count; i++) entries[i].found = &files.items[i];
    RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
    DxStream *stream =
        rag_ingest_stream(index, &embedder, entries, files.count, 1, &(RagIngestOptions){0}, &err);
    DxSample *sample;
    DxStatus status;
    size_t at = 0;
    while ((status = dx_next(stream, &sample, &err)) == DX_OK) {
        const RagBatch *batch = rag_ingest_batch(sample);
        const float *row = batch->vectors;
        assert_in_range(batch->n_chunks, 1, 128);
        for (size_t d = 0; d < batch->n_documents; d++, at++) {
            const RagReading *reading = batch->readings[d];
            assert_ptr_equal(reading->entry, &entries[at]);
            for (size_t i = 0; i < reading->chunks.count; i++, row += FAKE_DIM) {
                const RagChunk *chunk = &reading->chunks.items[i];
                char *text = base_format("%s%s%.*s", chunk->header, *chunk->header ? "\n" : "",
                                         (int)(chunk->end - chunk->start),
                                         reading->document.text.data + chunk->start);
                float expected[FAKE_DIM];
                fake_embed(&fake, (const char *const *)&text, 1, RAG_PASSAGE, expected, &err);
                for (size_t k = 0; k < FAKE_DIM; k++) assert_float_equal(row[k], expected[k], 1e-6);
                free(text);
            }
        }
        dx_sample_free(sample);
    }
    assert_int_equal(status, DX_END);
    assert_int_equal(at, FILES);
    dx_stream_free(stream);
    rag_index_close(index);
    free(entries);
    rag_files_free(&files);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_files_are_told_in_their_order),
        T(test_batches_have_documents_whole_and_vectors_in_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
