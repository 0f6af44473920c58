/* A folder of documents that mean harm: each is set aside with its reason or
 * read within bounds, the others are ingested, and the index stays sound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/fake.h"
#include "rag/show.h"
#include "rag/zipped.h"

static char *folder, *docs, *db;

static int setup(void **state) {
    (void)state;
    folder = fake_folder();
    docs = base_path_join(folder, "docs");
    db = base_path_join(folder, "index.db");
    mkdir(docs, 0755);
    fake_write(docs, "good.txt", "The lighthouse keeper winds the clock every evening.");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_remove(folder);
    free(docs);
    free(db);
    return 0;
}

static void write_bytes(const char *name, const char *bytes, size_t length) {
    char *path = base_path_join(docs, name);
    Error err = {0};
    if (!base_file_write(path, bytes, length, &err)) fail_msg("%s", err.message);
    free(path);
}

static RagIngestReport ingest(void) {
    FakeEmbedder fake = {0};
    RagEmbedder embedder = fake_embedder(&fake);
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
    if (!index) fail_msg("%s", err.message);
    RagIngestReport report;
    const char *paths[] = {docs};
    RagIngestOptions options = {0};
    if (!rag_ingest(index, &embedder, paths, 1, &options, &report, &err))
        fail_msg("%s", err.message);
    if (!rag_index_check(index, &err)) fail_msg("%s", err.message);
    rag_index_close(index);
    return report;
}

/* The good file is in, and `name` is set aside for this reason. */
static void expect_set_aside(const char *name, RagFileStatus status, const char *why) {
    RagIngestReport report = ingest();
    assert_int_equal(report.added, 1);
    assert_int_equal(report.n_notes, 1);
    assert_string_equal(base_path_name(report.notes[0].path), name);
    assert_int_equal(report.notes[0].status, status);
    if (!strstr(report.notes[0].reason, why)) fail_msg("reason: %s", report.notes[0].reason);
    rag_ingest_report_free(&report);
}

static void test_zip_bomb_in_docx(void **state) {
    (void)state;
    Zipped zip;
    zipped_begin(&zip);
    char spaces[4096];
    memset(spaces, ' ', sizeof spaces - 1);
    spaces[sizeof spaces - 1] = '\0';
    zipped_add(&zip, "word/document.xml", spaces, 16384);
    zipped_end(&zip);
    write_bytes("bomb.docx", zip.bytes, zip.length);
    free(zip.bytes);
    expect_set_aside("bomb.docx", RAG_FAILED, "zip bomb");
}

static void test_html_nested_a_hundred_thousand_deep(void **state) {
    (void)state;
    StrBuf html = {0};
    for (int i = 0; i < 100000; i++) base_str_append(&html, "<div>");
    base_str_append(&html, "bottom");
    write_bytes("deep.html", html.data, html.length);
    base_str_free(&html);
    expect_set_aside("deep.html", RAG_FAILED, "nested too deep");
}

static void test_a_line_of_two_gigabytes(void **state) {
    (void)state;
    char *path = base_path_join(docs, "line.txt");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 4096; i++) fputs("words ", file); /* the beginning looks like text */
    fclose(file);
    assert_int_equal(truncate(path, (off_t)2 << 30), 0);
    free(path);
    double started = base_now();
    expect_set_aside("line.txt", RAG_FAILED, "larger than 256 MiB");
    assert_true(base_now() - started < 1.0);
}

static void test_a_pdf_that_loops(void **state) {
    (void)state;
    /* The tree of pages holds itself, the objects' lengths name each other. */
    static const char pdf[] =
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[2 0 R]/Count 999999999>>endobj\n"
        "3 0 obj<</Length 4 0 R>>stream\nendstream endobj\n4 0 obj 3 0 R endobj\n"
        "trailer<</Root 1 0 R/Size 5/Prev 0>>\nstartxref\n0\n%%EOF\n";
    write_bytes("loop.pdf", pdf, sizeof pdf - 1);
    RagIngestReport report = ingest();
    assert_true(report.added >= 1);
    assert_int_equal(report.n_notes, 1); /* broken, or without text */
    rag_ingest_report_free(&report);
}

static void test_invalid_utf8_is_read_as_an_old_encoding(void **state) {
    (void)state;
    static const char text[] = "Caf\xE9 \xC3\x28 \xFF\xF0\x9F in the harbour";
    write_bytes("old.txt", text, sizeof text - 1);
    RagIngestReport report = ingest();
    assert_int_equal(report.added, 2);
    assert_int_equal(report.n_notes, 0);
    rag_ingest_report_free(&report);
}

static void test_names_with_newlines_and_escapes(void **state) {
    (void)state;
    fake_write(docs, "two\nlines \x1b[31m.txt", "The ferry crosses every hour.");
    RagIngestReport report = ingest();
    assert_int_equal(report.added, 2);
    rag_ingest_report_free(&report);
    report = ingest();
    assert_int_equal(report.unchanged, 2);
    rag_ingest_report_free(&report);
    char *shown = rag_clean_path("/a/two\nlines \x1b[31m\xFF.txt");
    assert_string_equal(shown, "/a/two\\nlines \\x1b[31m\\xff.txt");
    free(shown);
}

static void test_binary_files_are_not_read_whole(void **state) {
    (void)state;
    char *path = base_path_join(docs, "disk.img");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(truncate(path, (off_t)64 << 30), 0);
    free(path);
    expect_set_aside("disk.img", RAG_SKIPPED, "binary");
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_zip_bomb_in_docx),
        T(test_html_nested_a_hundred_thousand_deep),
        T(test_a_line_of_two_gigabytes),
        T(test_a_pdf_that_loops),
        T(test_invalid_utf8_is_read_as_an_old_encoding),
        T(test_names_with_newlines_and_escapes),
        T(test_binary_files_are_not_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
