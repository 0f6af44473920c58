/* The PostgreSQL keeper beside the SQLite one, over the same documents: same counts at
 * every step, same hits with the same scores, same files exported. Runs against the
 * server of MLX_RAG_TEST_POSTGRES (a URL whose tables mlxrag_* may be dropped), or one
 * that scripts/postgres.sh starts; says so and does nothing where there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/fake.h"
#include "rag/store_postgres_internal.h"

static FakeEmbedder fake;
static RagEmbedder embedder;
static char *server, *url, *folder, *docs, *file;

static char *shell(const char *command, int *status) {
    FILE *pipe = popen(command, "r");
    char line[512] = "";
    if (pipe && fgets(line, sizeof line, pipe)) line[strcspn(line, "\n")] = 0;
    *status = pipe ? pclose(pipe) : -1;
    return base_strdup(line);
}

static bool start(void) {
    const char *given = getenv("MLX_RAG_TEST_POSTGRES");
    int status = 0;
    if (given) {
        url = base_strdup(given);
        return true;
    }
    server = fake_folder();
    char *command = base_format(GOLDEN "/../../scripts/postgres.sh start %s", server);
    url = shell(command, &status);
    free(command);
    return status == 0 && *url;
}

static void stop(void) {
    if (!server) return;
    int status = 0;
    char *command =
        base_format(GOLDEN "/../../scripts/postgres.sh stop %s; rm -rf %s", server, server);
    free(shell(command, &status));
    free(command);
}

static int setup(void **state) {
    (void)state;
    PGconn *connection = PQconnectdb(url);
    PQclear(PQexec(connection, "SET client_min_messages = error; DROP TABLE IF EXISTS mlxrag_meta,"
                               " mlxrag_chunks, mlxrag_documents, mlxrag_free_chunks,"
                               " mlxrag_totals"));
    PQfinish(connection);
    fake = (FakeEmbedder){0};
    embedder = fake_embedder(&fake);
    folder = fake_folder();
    docs = base_path_join(folder, "docs");
    file = base_path_join(folder, "index.db");
    mkdir(docs, 0755);
    fake_write(docs, "a.txt", "The lighthouse keeper winds the clock.\n\nThe lamp turns slowly.");
    fake_write(docs, "b.md",
               "# Ferry\n\nThe ferry crosses every hour; the user_id of C++ is v1.2.3.\n\n"
               "## Tickets\n\nA single ticket costs 3 euros. The ferry takes tickets.\n");
    fake_write(docs, "caf\xe9.txt",
               "Caf\xc3\xa9 \xe6\x9d\xb1\xe4\xba\xac by the harbour. "
               "Ferries and clocks, clocks and lamps.");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_remove(folder);
    free(docs), free(file);
    return 0;
}

static RagIngestReport ingest(const char *where) {
    Error err = {0};
    RagIngestReport report;
    const char *paths[] = {docs};
    RagIndex *index = rag_index_open(where, RAG_CREATE, &embedder, &err);
    if (!index) fail_msg("%s", err.message);
    if (!rag_ingest(index, &embedder, paths, 1, &(RagIngestOptions){0}, &report, &err))
        fail_msg("%s", err.message);
    if (!rag_index_check(index, &err)) fail_msg("%s", err.message);
    rag_index_close(index);
    return report;
}

static void ingest_both(void) {
    RagIngestReport a = ingest(file), b = ingest(url);
    assert_int_equal(a.added, b.added);
    assert_int_equal(a.changed, b.changed);
    assert_int_equal(a.unchanged, b.unchanged);
    assert_int_equal(a.removed, b.removed);
    assert_int_equal(a.failed, b.failed);
    assert_int_equal(a.chunks_embedded, b.chunks_embedded);
    assert_int_equal(a.chunks_removed, b.chunks_removed);
    rag_ingest_report_free(&a), rag_ingest_report_free(&b);
}

static RagSearch search(const char *where, const char *query, const RagSearchOptions *options) {
    Error err = {0};
    RagSearch found;
    RagIndex *index = rag_index_open(where, RAG_READ, &embedder, &err);
    if (!index) fail_msg("%s", err.message);
    if (!rag_search(index, &embedder, query, options, &found, &err)) fail_msg("%s", err.message);
    rag_index_close(index);
    return found;
}

static void expect_same(const char *query, RagSearchOptions options) {
    RagSearch a = search(file, query, &options), b = search(url, query, &options);
    assert_int_equal(a.n_chunks, b.n_chunks);
    assert_int_equal(a.n_hits, b.n_hits);
    assert_int_equal(a.relevant, b.relevant);
    assert_true(a.best_cosine == b.best_cosine);
    assert_true(a.best_overlap == b.best_overlap);
    for (size_t i = 0; i < a.n_hits; i++) {
        const RagHit *x = &a.hits[i], *y = &b.hits[i];
        assert_int_equal(x->chunk, y->chunk);
        assert_string_equal(x->document, y->document);
        assert_string_equal(x->title, y->title);
        assert_string_equal(x->heading, y->heading);
        assert_string_equal(x->text, y->text);
        assert_string_equal(x->format, y->format);
        assert_int_equal(x->start, y->start);
        assert_int_equal(x->end, y->end);
        assert_int_equal(x->lexical_rank, y->lexical_rank);
        assert_int_equal(x->dense_rank, y->dense_rank);
        assert_true(x->cosine == y->cosine);
        assert_float_equal(x->bm25, y->bm25, 1e-12);
    }
    rag_search_free(&a), rag_search_free(&b);
}

static const char *const questions[] = {"When does the ferry cross?",
                                        "lighthouse clock",
                                        "user_id",
                                        "C++",
                                        "C",
                                        "\xe6\x9d\xb1\xe4\xba\xac",
                                        "a single ticket",
                                        "cafe",
                                        "v1.2.3",
                                        "nothing here",
                                        "the of and",
                                        "clocks clocks lamp",
                                        "\"; DROP'",
                                        "keepers $1"};

static void test_searches_find_the_same(void **state) {
    (void)state;
    ingest_both();
    for (size_t i = 0; i < BASE_COUNT(questions); i++) {
        expect_same(questions[i], (RagSearchOptions){0});
        expect_same(questions[i], (RagSearchOptions){.mode = RAG_LEXICAL});
        expect_same(questions[i], (RagSearchOptions){.mode = RAG_DENSE, .top_k = 2});
        expect_same(questions[i], (RagSearchOptions){.path_glob = "*.md"});
        expect_same(questions[i], (RagSearchOptions){.formats = "text", .diversity_lambda = 0.5f});
    }
}

static void test_changes_and_removals_keep_them_alike(void **state) {
    (void)state;
    ingest_both();
    fake_write(docs, "a.txt", "The keeper sleeps.");
    fake_write(docs, "d.md", "# Whales\n\nWhales pass in June.\n\n# Seals\n\nSeals stay.\n");
    ingest_both();
    char *gone = base_path_join(docs, "b.md");
    unlink(gone);
    free(gone);
    ingest_both();
    fake_write(docs, "e.txt", "The ferry crosses every hour again.");
    ingest_both();
    ingest_both();
    for (size_t i = 0; i < BASE_COUNT(questions); i++)
        expect_same(questions[i], (RagSearchOptions){0});
    expect_same("whales in June", (RagSearchOptions){0});
}

static void test_exports_and_merges_are_the_same(void **state) {
    (void)state;
    Error err = {0};
    ingest_both();
    char *names[] = {base_path_join(folder, "a.jsonl"), base_path_join(folder, "b.jsonl")};
    const char *where[] = {file, url};
    char *texts[2];
    for (int i = 0; i < 2; i++) {
        size_t chunks = 0, length = 0;
        RagIndex *index = rag_index_open(where[i], RAG_READ, NULL, &err);
        if (!index || !rag_index_export(index, names[i], &chunks, &err))
            fail_msg("%s", err.message);
        assert_int_equal(chunks, 3);
        rag_index_close(index);
        assert_true(base_file_read(names[i], &texts[i], &length, &err));
    }
    assert_string_equal(texts[0], texts[1]);
    /* What was exported there comes back into a third. */
    char *third = base_path_join(folder, "third.db");
    RagIndex *from = rag_index_open(url, RAG_READ, NULL, &err);
    RagIndex *into = rag_index_open(third, RAG_CREATE, &embedder, &err);
    size_t documents = 0;
    assert_true(rag_index_merge(into, from, &documents, &err));
    assert_int_equal(documents, 3);
    assert_true(rag_index_check(into, &err));
    rag_index_close(from), rag_index_close(into);
    RagImportReport report;
    if (!rag_index_import(names[0], url, &embedder, false, &report, &err))
        fail_msg("%s", err.message);
    assert_int_equal(report.chunks, 3);
    for (int i = 0; i < 2; i++) free(texts[i]), free(names[i]);
    free(third);
}

static void test_refusals_say_what_is_wrong(void **state) {
    (void)state;
    Error err = {0};
    assert_null(rag_index_open(url, RAG_READ, NULL, &err));
    assert_non_null(strstr(err.message, "holds no index"));
    ingest_both();
    RagEmbedder other = embedder;
    other.hash = "beef";
    err = (Error){0};
    assert_null(rag_index_open(url, RAG_CREATE, &other, &err));
    assert_non_null(strstr(err.message, "was made with the embedder fake"));
    err = (Error){0};
    assert_null(rag_index_open("postgresql://u:secret@127.0.0.1:1/none", RAG_READ, NULL, &err));
    assert_int_equal(err.code, ERROR_IO);
    assert_null(strstr(err.message, "secret"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_searches_find_the_same),
        T(test_changes_and_removals_keep_them_alike),
        T(test_exports_and_merges_are_the_same),
        T(test_refusals_say_what_is_wrong),
    };
    if (!start()) {
        printf("skipped: no PostgreSQL with pgvector here\n");
        stop();
        return 77;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    stop();
    return failed;
}
