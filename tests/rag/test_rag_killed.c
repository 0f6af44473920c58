/* An ingest that is killed at 50 random moments: the index opens, is consistent, and
 * the next run ends with the index that an undisturbed one ends with. The ingest finds
 * files that are new, changed, renamed, unchanged and gone. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "rag/fake.h"

enum { KILLS = 50, FILES = 8 };

static FakeEmbedder fake;
static RagEmbedder embedder;
static char *folder, *docs, *before;

static char *name_of(int file) {
    return base_format("f%02d.txt", file);
}

static void write_file(int file, int version) {
    StrBuf text = {0};
    for (int i = 0; i < 24; i++)
        base_str_appendf(&text, "Sentence %d of file %d in version %d is about boats. ", i, file,
                         version);
    char *name = name_of(file);
    fake_write(docs, name, text.data);
    free(name);
    base_str_free(&text);
}

static void remove_file(const char *name) {
    char *path = base_path_join(docs, name);
    unlink(path);
    free(path);
}

static RagIndex *open_index(const char *path) {
    Error err = {0};
    RagIndex *index = rag_index_open(path, RAG_CREATE, &embedder, &err);
    if (!index) fail_msg("%s", err.message);
    return index;
}

static void ingest(const char *path) {
    Error err = {0};
    RagIndex *index = open_index(path);
    RagIngestReport report;
    const char *paths[] = {docs};
    if (!rag_ingest(index, &embedder, paths, 1, &(RagIngestOptions){0}, &report, &err))
        fail_msg("%s", err.message);
    rag_ingest_report_free(&report);
    rag_index_close(index);
}

static void copy_file(const char *from, const char *to) {
    Error err = {0};
    char *bytes = NULL;
    size_t length = 0;
    assert_true(base_file_read(from, &bytes, &length, &err));
    assert_true(base_file_write(to, bytes, length, &err));
    free(bytes);
}

/* `before` is an index of the folder as it was. */
static int setup(void **state) {
    (void)state;
    embedder = fake_embedder(&fake);
    folder = fake_folder();
    docs = base_path_join(folder, "docs");
    before = base_path_join(folder, "before.db");
    mkdir(docs, 0755);
    for (int i = 0; i < FILES; i++) write_file(i, 1);
    ingest(before);
    write_file(1, 2);
    write_file(4, 2);
    remove_file("f02.txt");
    remove_file("f07.txt");
    char *from = base_path_join(docs, "f03.txt"), *to = base_path_join(docs, "g03.txt");
    rename(from, to);
    free(from), free(to);
    for (int i = FILES; i < FILES + 2; i++) write_file(i, 1);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_remove(folder);
    free(docs);
    free(before);
    return 0;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every chunk with its place and vector, in an order of its own: ids may differ. */
static char *content(const char *path) {
    Error err = {0};
    char *file = base_path_join(folder, "out.jsonl"), *text = NULL;
    size_t length = 0, chunks = 0, count = 0, capacity = 0;
    RagIndex *index = open_index(path);
    if (!rag_index_check(index, &err) || !rag_index_export(index, file, &chunks, &err) ||
        !base_file_read(file, &text, &length, &err))
        fail_msg("%s", err.message);
    rag_index_close(index);
    char **lines = NULL;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        lines = base_grow(lines, &capacity, count + 1, sizeof *lines);
        lines[count++] = line;
    }
    assert_int_equal(count, chunks);
    qsort(lines, count, sizeof *lines, by_text);
    StrBuf all = {0};
    for (size_t i = 0; i < count; i++) base_str_appendf(&all, "%s\n", lines[i]);
    unlink(file);
    free(lines), free(text), free(file);
    return base_str_detach(&all);
}

/* Kills an ingest into path after so many seconds; whether it was still at work. */
static bool kill_ingest(const char *path, double seconds) {
    pid_t child = fork();
    if (!child) {
        ingest(path);
        _exit(0);
    }
    usleep((useconds_t)(seconds * 1e6));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status);
}

static void test_an_ingest_killed_at_50_moments_ends_the_same(void **state) {
    (void)state;
    char *db = base_path_join(folder, "index.db");
    copy_file(before, db);
    double started = base_now();
    ingest(db);
    double whole = base_now() - started;
    char *expected = content(db);
    assert_non_null(strstr(expected, "g03.txt"));
    assert_null(strstr(expected, "f07.txt"));
    uint64_t random = 2026;
    int at_work = 0;
    for (int i = 0; i < KILLS; i++) {
        copy_file(before, db);
        random = random * 6364136223846793005u + 1442695040888963407u;
        double share = (double)(random >> 40) / (double)(1 << 24);
        at_work += kill_ingest(db, whole * share);
        Error err = {0};
        RagIndex *index = rag_index_open(db, RAG_READ, &embedder, &err);
        if (!index || !rag_index_check(index, &err)) fail_msg("kill %d: %s", i, err.message);
        rag_index_close(index);
        ingest(db);
        char *ended = content(db);
        if (strcmp(ended, expected) != 0) fail_msg("kill %d at %.3f s: another index", i, whole);
        free(ended);
    }
    assert_true(at_work > KILLS / 4);
    free(expected);
    free(db);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_ingest_killed_at_50_moments_ends_the_same, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
