/* The index: ingesting again does only what changed, the tables agree at every
 * step, a killed ingest leaves a sound file, and files that are not ours, are
 * damaged or cannot be written give one line and stay as they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <signal.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "rag/fake.h"
#include "rag/store_sqlite.h"

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
    fake_write(docs, "a.txt", "The lighthouse keeper winds the clock.\n\nThe lamp turns slowly.");
    fake_write(docs, "b.md", "# Ferry\n\nThe ferry crosses every hour.");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    chmod(folder, 0755);
    fake_remove(folder);
    free(docs);
    free(db);
    return 0;
}

static RagIngestReport ingest(const char *path) {
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
    if (!index) fail_msg("%s", err.message);
    RagIngestReport report;
    const char *paths[] = {path};
    RagIngestOptions options = {0};
    if (!rag_ingest(index, &embedder, paths, 1, &options, &report, &err))
        fail_msg("%s", err.message);
    if (!rag_index_check(index, &err)) fail_msg("%s", err.message);
    rag_index_close(index);
    return report;
}

static void expect_counts(RagIngestReport report, size_t added, size_t changed, size_t unchanged,
                          size_t removed) {
    assert_int_equal(report.added, added);
    assert_int_equal(report.changed, changed);
    assert_int_equal(report.unchanged, unchanged);
    assert_int_equal(report.removed, removed);
    rag_ingest_report_free(&report);
}

static char *top_document(const char *query) {
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_READ, &embedder, &err);
    if (!index) fail_msg("%s", err.message);
    RagSearch found;
    RagSearchOptions options = {0};
    if (!rag_search(index, &embedder, query, &options, &found, &err)) fail_msg("%s", err.message);
    char *name = base_strdup(found.n_hits ? base_path_name(found.hits[0].document) : "");
    rag_search_free(&found);
    rag_index_close(index);
    return name;
}

static void expect_top(const char *query, const char *name) {
    char *found = top_document(query);
    assert_string_equal(found, name);
    free(found);
}

static void test_add_change_rename_delete(void **state) {
    (void)state;
    expect_counts(ingest(docs), 2, 0, 0, 0);
    expect_top("when does the ferry cross", "b.md");
    size_t texts = fake.texts;
    expect_counts(ingest(docs), 0, 0, 2, 0);

    /* touched: the bytes decide */
    fake_write(docs, "b.md", "# Ferry\n\nThe ferry crosses every hour.");
    expect_counts(ingest(docs), 0, 0, 2, 0);
    assert_int_equal(fake.texts, texts);

    fake_write(docs, "b.md", "# Ferry\n\nThe ferry is closed; take the bridge.");
    expect_counts(ingest(docs), 0, 1, 1, 0);
    expect_top("bridge", "b.md");

    char *from = base_path_join(docs, "b.md"), *to = base_path_join(docs, "c.md");
    texts = fake.texts;
    rename(from, to);
    expect_counts(ingest(docs), 1, 0, 1, 1);
    assert_int_equal(fake.texts, texts); /* a renamed file is not embedded again */
    expect_top("bridge", "c.md");

    unlink(to);
    expect_counts(ingest(docs), 0, 0, 1, 1);
    expect_top("bridge", "a.txt");
    free(from);
    free(to);
}

static void test_files_elsewhere_are_not_removed(void **state) {
    (void)state;
    char *other = base_path_join(folder, "other");
    mkdir(other, 0755);
    fake_write(other, "x.txt", "Something about herrings.");
    expect_counts(ingest(other), 1, 0, 0, 0);
    expect_counts(ingest(docs), 2, 0, 0, 0);
    expect_top("herrings", "x.txt");
    free(other);
}

static void test_what_a_walk_leaves_out(void **state) {
    (void)state;
    fake_write(docs, ".hidden.txt", "hidden");
    fake_write(docs, "style.css", "p { color: red }");
    fake_write(docs, "empty.txt", "");
    fake_write(docs, "broken.pdf", "%PDF-1.4 nothing else");
    fake_write(folder, "secret.txt", "secret words");
    char *link = base_path_join(docs, "link.txt"), *secret = base_path_join(folder, "secret.txt");
    assert_int_equal(symlink(secret, link), 0);
    RagIngestReport report = ingest(docs);
    assert_int_equal(report.added, 2);
    assert_int_equal(report.skipped, 3);
    assert_int_equal(report.failed, 1);
    assert_int_equal(report.n_notes, 4);
    assert_non_null(strstr(report.notes[0].path, "broken.pdf"));
    assert_int_equal(report.notes[0].status, RAG_FAILED);
    rag_ingest_report_free(&report);
    free(link);
    free(secret);
}

static void test_ids_of_removed_chunks_are_used_again(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 30; i++) {
            char name[32], text[128];
            snprintf(name, sizeof name, "n%d.txt", i);
            snprintf(text, sizeof text, "Round %d speaks of number %d and of fish%d.", round, i,
                     round * 100 + i);
            fake_write(docs, name, text);
        }
        RagIngestReport report = ingest(docs);
        rag_ingest_report_free(&report);
    }
    expect_top("fish305", "n5.txt");
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_READ, &embedder, &err);
    sqlite3_stmt *s = rag_sqlite_prepare(index, "SELECT max(id) FROM chunks", &err);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_in_range(sqlite3_column_int(s, 0), 32, 33);
    sqlite3_finalize(s);
    rag_index_close(index);
}

static void test_another_embedder_is_refused(void **state) {
    (void)state;
    RagIngestReport report = ingest(docs);
    rag_ingest_report_free(&report);
    RagEmbedder other = embedder;
    other.hash = "beef";
    other.name = "other";
    Error err = {0};
    assert_null(rag_index_open(db, RAG_CREATE, &other, &err));
    assert_non_null(strstr(err.message, "made with the embedder fake"));
    assert_null(strchr(err.message, '\n'));
    base_error_clear(&err);
    other = embedder;
    other.dim = 32;
    assert_null(rag_index_open(db, RAG_READ, &other, &err));
    expect_top("ferry", "b.md");
}

static void expect_refused_and_untouched(const char *bytes, size_t length, const char *words) {
    FILE *file = fopen(db, "wb");
    fwrite(bytes, 1, length, file);
    fclose(file);
    for (int mode = RAG_READ; mode <= RAG_CREATE; mode++) {
        Error err = {0};
        RagIndex *index = rag_index_open(db, (RagOpenMode)mode, &embedder, &err);
        assert_null(index);
        assert_non_null(strstr(err.message, words));
        assert_null(strchr(err.message, '\n'));
    }
    char *after = NULL;
    size_t size = 0;
    Error err = {0};
    assert_true(base_file_read(db, &after, &size, &err));
    assert_int_equal(size, length);
    assert_memory_equal(after, bytes, length);
    free(after);
}

static void test_foreign_files_are_left_alone(void **state) {
    (void)state;
    expect_refused_and_untouched("just some text, no database at all", 34, "not an index");
    expect_refused_and_untouched("SQLite format 3\0 and then rubbish that goes on", 46,
                                 "not an index");
    unlink(db);
    sqlite3 *foreign = NULL;
    sqlite3_open(db, &foreign);
    sqlite3_exec(foreign, "CREATE TABLE t(x); INSERT INTO t VALUES (1)", 0, 0, 0);
    sqlite3_close(foreign);
    char *bytes = NULL;
    size_t length = 0;
    Error err = {0};
    assert_true(base_file_read(db, &bytes, &length, &err));
    expect_refused_and_untouched(bytes, length, "another program");
    free(bytes);
}

static void test_missing_index(void **state) {
    (void)state;
    Error err = {0};
    assert_null(rag_index_open(db, RAG_READ, &embedder, &err));
    assert_non_null(strstr(err.message, "No such file"));
    assert_false(base_is_file(db));
    base_error_clear(&err);
    assert_null(rag_index_open("/nowhere/at/all.db", RAG_CREATE, &embedder, &err));
    assert_true(err.message[0]);
}

/* A search on it may fail or not, but says so in one line and never crashes. */
static void try_damaged(const char *bytes, size_t length) {
    FILE *file = fopen(db, "wb");
    fwrite(bytes, 1, length, file);
    fclose(file);
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_READ, &embedder, &err);
    if (index) {
        RagSearch found;
        RagSearchOptions options = {0};
        bool ok = rag_search(index, &embedder, "the ferry and the keeper", &options, &found, &err);
        assert_true(ok || err.message[0]);
        rag_search_free(&found);
        base_error_clear(&err);
        ok = rag_index_check(index, &err);
        assert_true(ok || err.message[0]);
    } else {
        assert_true(err.message[0]);
    }
    rag_index_close(index);
}

static void test_truncated_and_flipped_indexes(void **state) {
    (void)state;
    RagIngestReport report = ingest(docs);
    rag_ingest_report_free(&report);
    char *bytes = NULL;
    size_t length = 0;
    Error err = {0};
    assert_true(base_file_read(db, &bytes, &length, &err));
    for (size_t cut = 0; cut < length; cut += length / 23 + 1) try_damaged(bytes, cut);
    uint32_t seed = 3;
    for (int round = 0; round < 150; round++) {
        char *copy = base_alloc(length);
        memcpy(copy, bytes, length);
        for (int k = 0; k < 20; k++) {
            seed = seed * 1664525 + 1013904223;
            copy[seed % length] ^= (char)(1 << (seed >> 29));
        }
        try_damaged(copy, length);
        free(copy);
    }
    free(bytes);
}

static void test_a_folder_that_cannot_be_written(void **state) {
    (void)state;
    RagIngestReport report = ingest(docs);
    rag_ingest_report_free(&report);
    chmod(folder, 0555);
    chmod(db, 0444);
    expect_top("ferry", "b.md"); /* reading works, no log beside the file is needed */
    if (geteuid() != 0) {        /* root may write anywhere */
        Error err = {0};
        assert_null(rag_index_open(db, RAG_CREATE, &embedder, &err));
        assert_true(err.message[0]);
    }
    chmod(folder, 0755);
    Error err = {0};
    char *unmade = base_path_join(docs, "a.txt/index.db");
    assert_null(rag_index_open(unmade, RAG_CREATE, &embedder, &err));
    assert_non_null(strstr(err.message, "Not a directory"));
    free(unmade);
}

static void die_now(void *context, const RagFileEvent *event) {
    (void)event;
    int *left = context;
    if (--*left <= 0) kill(getpid(), SIGKILL);
}

static void test_killed_ingest_goes_on_where_it_stopped(void **state) {
    (void)state;
    for (int i = 0; i < 12; i++) {
        char name[32];
        snprintf(name, sizeof name, "k%02d.txt", i);
        StrBuf text = {0};
        for (int k = 0; k < 400; k++)
            base_str_appendf(&text, "Sentence %d of file %d is about boats. ", k, i);
        fake_write(docs, name, text.data);
        base_str_free(&text);
    }
    for (int after = 1; after < 14; after += 4) {
        pid_t child = fork();
        if (!child) {
            Error err = {0};
            int left = after;
            RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
            const char *paths[] = {docs};
            RagIngestReport report;
            RagIngestOptions options = {
                .force = true, .on_file = die_now, .on_file_context = &left};
            rag_ingest(index, &embedder, paths, 1, &options, &report, &err);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        Error err = {0};
        RagIndex *index = rag_index_open(db, RAG_WRITE, &embedder, &err);
        if (!index) fail_msg("after %d: %s", after, err.message);
        if (!rag_index_check(index, &err)) fail_msg("after %d: %s", after, err.message);
        rag_index_close(index);
    }
    RagIngestReport report = ingest(docs);
    assert_true(report.unchanged > 0);
    assert_int_equal(report.added + report.unchanged, 14);
    rag_ingest_report_free(&report);
}

/* Killed at a random moment instead of between two documents. */
static void test_killed_at_any_moment(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) {
        char name[32];
        snprintf(name, sizeof name, "k%02d.txt", i);
        StrBuf text = {0};
        for (int k = 0; k < 300; k++)
            base_str_appendf(&text, "Sentence %d of file %d is about boats. ", k, i);
        fake_write(docs, name, text.data);
        base_str_free(&text);
    }
    for (unsigned wait = 200; wait < 40000; wait = wait * 2) {
        pid_t child = fork();
        if (!child) {
            Error err = {0};
            RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
            const char *paths[] = {docs};
            RagIngestReport report;
            RagIngestOptions options = {.force = true};
            while (index && rag_ingest(index, &embedder, paths, 1, &options, &report, &err))
                rag_ingest_report_free(&report);
            _exit(0);
        }
        usleep(wait);
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        Error err = {0};
        RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
        if (!index) fail_msg("after %u us: %s", wait, err.message);
        if (!rag_index_check(index, &err)) fail_msg("after %u us: %s", wait, err.message);
        rag_index_close(index);
    }
    RagIngestReport report = ingest(docs);
    rag_ingest_report_free(&report);
}

static bool failing_embed(void *context, const char *const *texts, size_t count, RagTextRole role,
                          float *out, Error *err) {
    if (((FakeEmbedder *)context)->texts > 4)
        return base_fail(err, ERROR_INTERNAL, "the embedder stopped");
    return fake_embed(context, texts, count, role, out, err);
}

static void test_a_failing_embedder_leaves_what_was_stored(void **state) {
    (void)state;
    RagIngestReport report = ingest(docs);
    rag_ingest_report_free(&report);
    for (int i = 0; i < 200; i++) {
        char name[32], text[64];
        snprintf(name, sizeof name, "m%03d.txt", i);
        snprintf(text, sizeof text, "Note number %d.", i);
        fake_write(docs, name, text);
    }
    embedder.embed = failing_embed;
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
    const char *paths[] = {docs};
    RagIngestOptions options = {0};
    assert_false(rag_ingest(index, &embedder, paths, 1, &options, &report, &err));
    assert_string_equal(err.message, "the embedder stopped");
    base_error_clear(&err);
    assert_true(rag_index_check(index, &err));
    rag_index_close(index);
    rag_ingest_report_free(&report);
    embedder.embed = fake_embed;
    expect_top("ferry", "b.md");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_add_change_rename_delete),
        T(test_files_elsewhere_are_not_removed),
        T(test_what_a_walk_leaves_out),
        T(test_ids_of_removed_chunks_are_used_again),
        T(test_another_embedder_is_refused),
        T(test_foreign_files_are_left_alone),
        T(test_missing_index),
        T(test_truncated_and_flipped_indexes),
        T(test_a_folder_that_cannot_be_written),
        T(test_killed_ingest_goes_on_where_it_stopped),
        T(test_killed_at_any_moment),
        T(test_a_failing_embedder_leaves_what_was_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
