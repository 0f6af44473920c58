/* Indexes exchanged: npz as mlx-RAG writes it, safetensors and JSON lines, there
 * and back without a loss; files that do not hold together are refused; merged
 * indexes hold what their parts held. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mx/mx.h"
#include "rag/bank.h"
#include "rag/fake.h"

static FakeEmbedder fake;
static RagEmbedder embedder;
static char *folder, *docs;

static int setup(void **state) {
    (void)state;
    fake = (FakeEmbedder){0};
    embedder = fake_embedder(&fake);
    folder = fake_folder();
    docs = base_path_join(folder, "docs");
    mkdir(docs, 0755);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_remove(folder);
    free(docs);
    return 0;
}

static void expect_fine(bool ok, const Error *err) {
    if (!ok) fail_msg("%s", err->message);
}

static char *ingest(const char *name) {
    char *path = base_path_join(folder, name);
    Error err = {0};
    RagIndex *index = rag_index_open(path, RAG_CREATE, &embedder, &err);
    expect_fine(index != NULL, &err);
    RagIngestReport report;
    const char *paths[] = {docs};
    expect_fine(rag_ingest(index, &embedder, paths, 1, &(RagIngestOptions){0}, &report, &err),
                &err);
    rag_ingest_report_free(&report);
    rag_index_close(index);
    return path;
}

static void export_to(const char *db, const char *path) {
    Error err = {0};
    size_t chunks = 0;
    RagIndex *index = rag_index_open(db, RAG_READ, NULL, &err);
    expect_fine(index != NULL, &err);
    expect_fine(rag_index_export(index, path, &chunks, &err), &err);
    rag_index_close(index);
}

static RagBank bank_of(const char *db) {
    Error err = {0};
    RagBank bank = {0};
    RagIndex *index = rag_index_open(db, RAG_READ, NULL, &err);
    expect_fine(index != NULL, &err);
    expect_fine(rag_index_check(index, &err) && rag_bank_from_index(index, &bank, &err), &err);
    rag_index_close(index);
    return bank;
}

static void expect_same(const char *db, const char *other) {
    RagBank a = bank_of(db), b = bank_of(other);
    assert_int_equal(a.count, b.count);
    assert_int_equal(a.dim, b.dim);
    for (size_t i = 0; i < a.count; i++) {
        assert_string_equal(a.chunks[i].text, b.chunks[i].text);
        assert_string_equal(a.chunks[i].source, b.chunks[i].source);
        assert_string_equal(a.chunks[i].title, b.chunks[i].title);
        assert_string_equal(a.chunks[i].heading, b.chunks[i].heading);
        assert_string_equal(a.chunks[i].header, b.chunks[i].header);
        assert_string_equal(a.chunks[i].format, b.chunks[i].format);
        assert_int_equal(a.chunks[i].page, b.chunks[i].page);
    }
    assert_memory_equal(a.vectors, b.vectors, a.count * a.dim * sizeof(float));
    rag_bank_free(&a);
    rag_bank_free(&b);
}

static void test_there_and_back_in_every_format(void **state) {
    (void)state;
    fake_write(docs, "a.txt", "The lighthouse keeper winds the clock 🕰 in Zürich.");
    fake_write(docs, "b.md",
               "# Ferry\n\nIt crosses every hour.\n\n## Prices\n\n| A | B |\n|--|--|\n"
               "| single | 3 € |\n");
    fake_write(docs, "c.py", "import os\n\n\ndef tide():\n    return 1\n");
    char *db = ingest("index.db");
    static const char *const names[] = {"x.npz", "x.safetensors", "x.jsonl"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char *file = base_path_join(folder, names[i]), *back = base_format("%s.db", file);
        export_to(db, file);
        Error err = {0};
        RagImportReport report;
        expect_fine(rag_index_import(file, back, &embedder, false, &report, &err), &err);
        assert_int_equal(report.documents, 3);
        expect_same(db, back);
        free(file), free(back);
    }
    free(db);
}

/* Arrays as mlx-RAG writes them; lengths[n] code points each of the texts. */
static char *write_npz(const int32_t *points, int n_points, const int32_t *lengths, int n,
                       const float *vectors, int n_vectors, bool wide) {
    char *path = base_path_join(folder, "vdb.npz");
    mx_scope scope = mx_open();
    static const char *const names[] = {"chunk_lengths", "source_data", "embeddings",
                                        "source_lengths", "chunk_data"};
    const int32_t source[] = {'/', 'a', '/', 'a', '/', 'a', '/', 'a', '/', 'a', '/', 'a'};
    const int32_t twos[] = {2, 2, 2, 2, 2, 2};
    mlx_array arrays[] = {mx_from_i32(lengths, MX_SHAPE(n)), mx_from_i32(source, MX_SHAPE(2 * n)),
                          mx_from_f32(vectors, MX_SHAPE(n_vectors, 2)),
                          mx_from_i32(twos, MX_SHAPE(n)), mx_from_i32(points, MX_SHAPE(n_points))};
    for (size_t i = 0; wide && i < BASE_COUNT(arrays); i++)
        if (i != 2) arrays[i] = mx_cast(arrays[i], MLX_INT64);
    Error err = {0};
    expect_fine(mx_save_npz(path, names, arrays, BASE_COUNT(arrays), false, &err), &err);
    mx_drop(scope);
    return path;
}

static const int32_t points[] = {'o', 'n', 'e', 0x1F600, 't', 'w', 'o', 0x20000, 'x'};
static const int32_t lengths[] = {3, 4, 0, 1, 1};
static const float vectors[] = {3, 4, 0, 1, 1, 0, 0.6f, 0.8f, -1, 0};

static void test_offsets_are_running_sums(void **state) {
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        char *path = write_npz(points, 9, lengths, 5, vectors, 5, wide != 0);
        RagBank bank;
        Error err = {0};
        expect_fine(rag_bank_load_tensors(path, &bank, &err), &err);
        static const char *const texts[] = {"one", "😀two", "", "𠀀", "x"};
        assert_int_equal(bank.count, 5);
        assert_int_equal(bank.dim, 2);
        for (size_t i = 0; i < 5; i++) {
            assert_string_equal(bank.chunks[i].text, texts[i]);
            assert_string_equal(bank.chunks[i].source, "/a");
        }
        rag_bank_free(&bank);
        char *db = base_path_join(folder, wide ? "wide.db" : "narrow.db");
        RagImportReport report;
        expect_fine(rag_index_import(path, db, NULL, false, &report, &err), &err);
        assert_int_equal(report.documents, 1);
        bank = bank_of(db);
        assert_int_equal(bank.count, 5);
        assert_string_equal(bank.chunks[1].text, "😀two");
        assert_true(bank.vectors[0] == 0.6f && bank.vectors[1] == 0.8f);
        rag_bank_free(&bank);
        free(db), free(path);
    }
}

static void expect_refused(const char *path, const char *why) {
    char *db = base_path_join(folder, "refused.db");
    Error err = {0};
    RagImportReport report;
    assert_false(rag_index_import(path, db, NULL, false, &report, &err));
    if (!strstr(err.message, why)) fail_msg("'%s' says nothing of '%s'", err.message, why);
    assert_false(base_is_file(db));
    free(db);
}

static void test_arrays_that_do_not_hold_together_are_refused(void **state) {
    (void)state;
    static const struct {
        int32_t points[4], lengths[2];
        float vectors[6];
        int n_points, n_vectors;
        const char *why;
    } cases[] = {
        {{'a', 'b', 'c'}, {1, 3}, {1, 0, 1, 0}, 3, 2, "reaches past the end"},
        {{'a', 'b', 'c'}, {1, -1}, {1, 0, 1, 0}, 3, 2, "reaches past the end"},
        {{'a', 'b', 'c'}, {1, 1}, {1, 0, 1, 0}, 3, 2, "1 characters more"},
        {{'a', 0xD800, 'c'}, {1, 2}, {1, 0, 1, 0}, 3, 2, "chunk_data[1] is 55296"},
        {{'a', 0x110000, 'c'}, {1, 2}, {1, 0, 1, 0}, 3, 2, "not a character"},
        {{'a', 'b', 'c'}, {1, 2}, {1, 0, 1, 0, 1, 0}, 3, 3, "3 embeddings but 2"},
        {{'a', 'b', 'c'}, {1, 2}, {1, 0, 0, 0}, 3, 2, "embedding 1 is zero"},
        {{'a', 'b', 'c'}, {1, 2}, {1, 0, INFINITY, 0}, 3, 2, "embedding 1 is zero, infinite"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        char *path = write_npz(cases[i].points, cases[i].n_points, cases[i].lengths, 2,
                               cases[i].vectors, cases[i].n_vectors, false);
        expect_refused(path, cases[i].why);
        free(path);
    }
    fake_write(folder, "cut.npz", "PK\3\4 but no more");
    char *path = base_path_join(folder, "cut.npz");
    expect_refused(path, "cut.npz");
    free(path);
    fake_write(folder, "x.jsonl", "{\"text\":\"a\",\"embedding\":[1,0]}\n\n{\"source\":\"b\"}\n");
    path = base_path_join(folder, "x.jsonl");
    expect_refused(path, "x.jsonl:3: has no \"text\"");
    free(path);
}

static void test_vectors_of_another_model_are_refused_or_made_anew(void **state) {
    (void)state;
    fake_write(docs, "a.txt", "The lighthouse keeper winds the clock.");
    char *db = ingest("index.db"), *file = base_path_join(folder, "x.npz"),
         *back = base_path_join(folder, "back.db");
    export_to(db, file);
    RagEmbedder other = embedder;
    other.hash = "another";
    Error err = {0};
    RagImportReport report;
    assert_false(rag_index_import(file, back, &other, false, &report, &err));
    assert_non_null(strstr(err.message, "are not of fake"));
    base_error_clear(&err);
    expect_fine(rag_index_import(file, back, &other, true, &report, &err), &err);
    expect_same(db, back);
    free(db), free(file), free(back);
}

static void test_a_merge_holds_what_its_parts_held(void **state) {
    (void)state;
    fake_write(docs, "a.txt", "The lighthouse keeper winds the clock.");
    char *first = ingest("first.db");
    fake_write(docs, "b.md", "# Ferry\n\nIt crosses every hour.");
    char *both = ingest("both.db"), *merged = base_path_join(folder, "merged.db");
    Error err = {0};
    RagIndex *into = rag_index_open(merged, RAG_CREATE, &embedder, &err);
    size_t documents = 0;
    const char *const parts[] = {first, both};
    for (size_t i = 0; i < 2; i++) {
        RagIndex *from = rag_index_open(parts[i], RAG_READ, NULL, &err);
        expect_fine(rag_index_merge(into, from, &documents, &err), &err);
        rag_index_close(from);
    }
    assert_int_equal(documents, 3);
    rag_index_close(into);
    expect_same(both, merged);
    size_t texts = fake.texts; /* what was merged counts as ingested */
    free(ingest("merged.db"));
    assert_int_equal(fake.texts, texts);
    RagEmbedder other = embedder;
    other.hash = "another";
    char *strange = base_path_join(folder, "strange.db");
    into = rag_index_open(strange, RAG_CREATE, &other, &err);
    RagIndex *from = rag_index_open(both, RAG_READ, NULL, &err);
    assert_false(rag_index_merge(into, from, &documents, &err));
    assert_non_null(strstr(err.message, "made with the embedder"));
    rag_index_close(from), rag_index_close(into);
    free(first), free(both), free(merged), free(strange);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_there_and_back_in_every_format),
        T(test_offsets_are_running_sums),
        T(test_arrays_that_do_not_hold_together_are_refused),
        T(test_vectors_of_another_model_are_refused_or_made_anew),
        T(test_a_merge_holds_what_its_parts_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
