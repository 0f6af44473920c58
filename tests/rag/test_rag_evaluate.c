/* Metrics over questions, with values worked out by hand, and question files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/evaluate.h"
#include "rag/fake.h"

static FakeEmbedder fake;
static RagEmbedder embedder;
static RagIndex *store;
static char *folder, *docs, *db;

static int setup(void **state) {
    (void)state;
    fake = (FakeEmbedder){0};
    embedder = fake_embedder(&fake);
    folder = fake_folder();
    docs = base_path_join(folder, "docs");
    db = base_path_join(folder, "index.db");
    mkdir(docs, 0755);
    fake_write(docs, "one.md", "# Ferry\n\nApple apple apple. The ferry leaves at nine.");
    fake_write(docs, "two.md", "# Train\n\nApple apple plum. The train leaves at ten.");
    fake_write(docs, "three.md", "# Bus\n\nApple plum plum pear. The bus leaves at eleven.");
    Error err = {0};
    store = rag_index_open(db, RAG_CREATE, &embedder, &err);
    RagIngestReport report;
    const char *paths[] = {docs};
    if (!rag_ingest(store, &embedder, paths, 1, &(RagIngestOptions){0}, &report, &err))
        fail_msg("%s", err.message);
    rag_ingest_report_free(&report);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    rag_index_close(store);
    fake_remove(folder);
    free(docs);
    free(db);
    return 0;
}

static RagQuestions load(const char *text) {
    Error err = {0};
    RagQuestions questions;
    fake_write(folder, "questions.jsonl", text);
    char *path = base_path_join(folder, "questions.jsonl");
    if (!rag_questions_load(path, &questions, &err)) fail_msg("%s", err.message);
    free(path);
    return questions;
}

static RagEvaluation evaluate(const RagQuestions *questions, bool answers) {
    Error err = {0};
    RagEvaluation result;
    RagSearchOptions how = {.mode = RAG_LEXICAL};
    RagEvaluateOptions options = {.k = 3, .answers = answers};
    if (!rag_evaluate(store, NULL, questions, &how, &options, &result, &err))
        fail_msg("%s", err.message);
    return result;
}

/* "bus plum" ranks three.md first, then two.md: the only ones that have a word of it. */
static void test_metrics_are_those_worked_out_by_hand(void **state) {
    (void)state;
    RagQuestions questions =
        load("{\"question\": \"bus plum\", \"relevant\": [{\"document\": \"two.md\"}]}\n"
             "\n"
             "{\"question\": \"bus plum\", \"relevant\": [{\"document\": \"docs/three.md\"},"
             " {\"text\": \"FERRY   leaves\"}, {\"heading\": \"train\"}]}\n"
             "{\"question\": \"zebra\", \"relevant\": []}\n"
             "{\"question\": \"ferry nine apple\", \"relevant\": []}\n");
    assert_int_equal(questions.count, 4);
    RagEvaluation e = evaluate(&questions, false);
    assert_int_equal(e.n_questions, 4);
    assert_int_equal(e.n_unanswerable, 2);
    assert_int_equal(e.cuts[0], 1);
    assert_int_equal(e.cuts[2], 3);
    assert_float_equal(e.recall[0], (0 + 1.0 / 3) / 2, 1e-12);
    assert_float_equal(e.recall[2], (1 + 2.0 / 3) / 2, 1e-12);
    assert_float_equal(e.mrr, (0.5 + 1) / 2, 1e-12);
    double third = 1 / log2(3), ideal = 1 + third + 0.5;
    assert_float_equal(e.ndcg, (third + (1 + third) / ideal) / 2, 1e-12);
    assert_int_equal(e.refused_right, 1);
    assert_int_equal(e.refused_wrong, 0);
    assert_true(e.total > 0 && e.total_95 >= e.total / 4);
    assert_int_equal(e.n_citations, 0);
    rag_questions_free(&questions);
}

static void test_citations_are_right_where_they_name_an_expected_place(void **state) {
    (void)state;
    RagQuestions questions = load(
        "{\"question\": \"When does the ferry leave?\", \"relevant\": [{\"document\": \"one.md\"}]}"
        "\n{\"question\": \"When does the bus leave?\", \"relevant\": [{\"document\": "
        "\"no.md\"}]}");
    RagEvaluation e = evaluate(&questions, true);
    assert_int_equal(e.n_citations, 2);
    assert_int_equal(e.n_right, 1);
    rag_questions_free(&questions);
}

static void expect_refusal(const char *text, const char *message) {
    Error err = {0};
    RagQuestions questions;
    fake_write(folder, "questions.jsonl", text);
    char *path = base_path_join(folder, "questions.jsonl");
    assert_false(rag_questions_load(path, &questions, &err));
    if (!strstr(err.message, message)) fail_msg("%s", err.message);
    rag_questions_free(&questions);
    free(path);
}

static void test_a_wrong_line_is_named(void **state) {
    (void)state;
    expect_refusal("", "has no questions");
    expect_refusal("{\"question\": \"a\", \"relevant\": []}\n{", "line 2:");
    expect_refusal("{\"relevant\": []}", "line 1: \"question\" is missing");
    expect_refusal("{\"question\": \"a\"}", "line 1: \"relevant\" is not a list");
    expect_refusal("{\"question\": \"a\", \"relevant\": [{}]}", "line 1: \"relevant\" lists");
    expect_refusal("{\"question\": \"a\", \"relevant\": [{\"document\": 1}]}", "are texts");
    expect_refusal("{\"question\": \"a\", \"relevant\": [{\"doc\": \"x\"}]}", "only");
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_metrics_are_those_worked_out_by_hand),
        T(test_citations_are_right_where_they_name_an_expected_place),
        T(test_a_wrong_line_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
