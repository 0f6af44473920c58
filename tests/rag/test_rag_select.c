/* What a search may find and in which order: filters by path, type and date,
 * weights of the fusion, a reranker, and passages unlike each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/fake.h"
#include "rag/rerank_sentences.h"

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
    fake_write(docs, "one.txt", "The ferry crosses the river every hour from the old pier.");
    fake_write(docs, "two.md", "The ferry crosses the river every hour from the old harbour.");
    fake_write(docs, "three.csv", "boat,place\nferry,river\n");
    fake_write(docs, "four.txt", "A ferry needs a licence before it may carry passengers.");
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_CREATE, &embedder, &err);
    RagIngestReport report;
    const char *paths[] = {docs};
    if (!rag_ingest(index, &embedder, paths, 1, &(RagIngestOptions){0}, &report, &err))
        fail_msg("%s", err.message);
    rag_ingest_report_free(&report);
    rag_index_close(index);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_remove(folder);
    free(docs);
    free(db);
    return 0;
}

/* The names of the documents found, a space after each; caller frees. */
static char *found(const RagSearchOptions *options) {
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_READ, &embedder, &err);
    RagSearch result;
    if (!rag_search(index, &embedder, "ferry crosses the river", options, &result, &err))
        fail_msg("%s", err.message);
    StrBuf names = {0};
    base_str_append(&names, "");
    for (size_t i = 0; i < result.n_hits; i++)
        base_str_appendf(&names, "%s ", base_path_name(result.hits[i].document));
    rag_search_free(&result);
    rag_index_close(index);
    return base_str_detach(&names);
}

static void expect_found(RagSearchOptions options, const char *names) {
    char *got = found(&options);
    assert_string_equal(got, names);
    free(got);
}

static void test_filters_by_path_type_and_date(void **state) {
    (void)state;
    expect_found((RagSearchOptions){.path_glob = "two.*"}, "two.md ");
    expect_found((RagSearchOptions){.path_glob = "docs/t*.csv"}, "three.csv ");
    expect_found((RagSearchOptions){.path_glob = "nothing"}, "");
    expect_found((RagSearchOptions){.formats = "csv,markdown"}, "two.md three.csv ");
    int64_t day = 0;
    Error err = {0};
    assert_true(rag_date_parse("2001-02-28", &day, &err));
    expect_found((RagSearchOptions){.until_ns = day}, "");
    expect_found((RagSearchOptions){.since_ns = day, .formats = "markdown"}, "two.md ");
    assert_false(rag_date_parse("2001-02-30", &day, &err));
    assert_non_null(strstr(err.message, "2001-02-30: not a date"));
}

static void test_a_type_that_is_not_known_is_named(void **state) {
    (void)state;
    Error err = {0};
    RagIndex *index = rag_index_open(db, RAG_READ, &embedder, &err);
    RagSearch result;
    RagSearchOptions options = {.formats = "pdf,powerpoint"};
    assert_false(rag_search(index, &embedder, "ferry", &options, &result, &err));
    assert_string_equal(err.message, "no such type of document: powerpoint");
    rag_search_free(&result);
    rag_index_close(index);
}

/* Texts about a licence first. */
static bool prefer_licence(void *context, const char *query, const char *const *texts, size_t count,
                           float *scores, Error *err) {
    (void)query, (void)err;
    *(size_t *)context += count;
    for (size_t i = 0; i < count; i++) scores[i] = strstr(texts[i], "licence") ? 3.0f : -3.0f;
    return true;
}

static void test_a_reranker_orders_anew_and_reads_no_more_than_allowed(void **state) {
    (void)state;
    size_t read = 0;
    RagReranker reranker = {.context = &read, .name = "fake", .score = prefer_licence};
    expect_found((RagSearchOptions){.top_k = 1, .reranker = &reranker}, "four.txt ");
    assert_int_equal(read, 4);
    read = 0;
    expect_found((RagSearchOptions){.top_k = 2, .reranker = &reranker, .rerank_candidates = 2},
                 "one.txt two.md ");
    assert_int_equal(read, 2);
}

static void test_an_embedder_prefers_the_passage_with_the_better_sentence(void **state) {
    (void)state;
    const char *const texts[] = {
        "Sheep graze on the hill above the town. Rain falls on most days of the autumn. A "
        "licence costs ten euros and lasts for one whole year.",
        "Sheep graze on the hill above the town. Rain falls on most days of the autumn. Boats "
        "are painted in the spring by their owners and friends.",
        ""};
    RagEmbedder own = fake_embedder(&fake);
    RagReranker reranker;
    rag_rerank_by_sentences(&own, &reranker);
    float scores[3];
    Error err = {0};
    assert_true(
        reranker.score(reranker.context, "what a licence costs in euros", texts, 3, scores, &err));
    assert_true(scores[0] > scores[1] + 1);
    assert_true(isfinite(scores[2]));
    rag_reranker_close(&reranker);
}

static void test_passages_unlike_each_other_come_first_when_asked_for(void **state) {
    (void)state;
    expect_found((RagSearchOptions){.top_k = 2, .mode = RAG_DENSE, .formats = "text,markdown"},
                 "two.md one.txt ");
    expect_found(
        (RagSearchOptions){
            .top_k = 2, .mode = RAG_DENSE, .formats = "text,markdown", .diversity_lambda = 0.3f},
        "two.md four.txt ");
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_filters_by_path_type_and_date),
        T(test_a_type_that_is_not_known_is_named),
        T(test_a_reranker_orders_anew_and_reads_no_more_than_allowed),
        T(test_an_embedder_prefers_the_passage_with_the_better_sentence),
        T(test_passages_unlike_each_other_come_first_when_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
