/* Reranking by a language model through the program: rerank, search and ask give
 * the scores of lm_reranker_score, in their order. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/program.h"
#include "lm/judge_folder.h"
#include "lm/lm.h"

typedef struct Fixture {
    char *folder, *model, *index;
    json_t *golden;
    const char *query, *documents[5];
    float scores[5];
} Fixture;

static int setup(void **state) {
    Fixture *f = base_calloc(1, sizeof *f);
    Error err = {0};
    *state = f;
    f->folder = base_strdup("/tmp/test_cli_rerank_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    f->model = base_path_join(f->folder, "model");
    f->index = base_path_join(f->folder, "index");
    assert_true(base_make_dirs(f->model, &err));
    judge_fill(f->model, "qwen3", JUDGE_TOKENS);
    f->golden = judge_golden();
    f->query = json_string_value(json_object_get(f->golden, "query"));
    StrBuf lines = {0};
    for (size_t i = 0; i < 5; i++) {
        f->documents[i] =
            json_string_value(json_array_get(json_object_get(f->golden, "documents"), i));
        base_str_appendf(&lines,
                         "{\"text\": \"%s\", \"source\": \"%zu.txt\", \"embedding\": [1, 0]}\n",
                         f->documents[i], i);
    }
    char *path = base_path_join(f->folder, "chunks.jsonl");
    assert_true(base_file_write(path, lines.data, lines.length, &err));
    Outcome outcome = program_run(NULL, "index", "import", path, "--index", f->index, NULL);
    if (outcome.status != 0) fail_msg("%s", outcome.err);
    outcome_free(&outcome);
    unlink(path);
    free(path);
    base_str_free(&lines);
    LmReranker *reranker = lm_reranker_open(f->model, NULL, &err);
    if (!reranker || !lm_reranker_score(reranker, f->query, f->documents, 5, f->scores, &err))
        fail_msg("%s", err.message);
    lm_reranker_close(reranker);
    return 0;
}

static int teardown(void **state) {
    Fixture *f = *state;
    unlink(f->index);
    judge_remove(f->model);
    rmdir(f->folder);
    json_decref(f->golden);
    free(f->folder), free(f->index), free(f);
    return 0;
}

/* Greatest scores first, each that of its text. */
static void expect_order(const Fixture *f, const json_t *list, const char *score_key) {
    double last = INFINITY;
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *item = json_array_get(list, k);
        const char *text = json_string_value(json_object_get(item, "text"));
        double score = json_number_value(json_object_get(item, score_key));
        size_t i = 0;
        while (i < 5 && strcmp(f->documents[i], text) != 0) i++;
        assert_in_range(i, 0, 4);
        assert_float_equal(score, f->scores[i], 1e-6);
        assert_true(score <= last);
        last = score;
    }
}

static void test_rerank_prints_the_scores(void **state) {
    const Fixture *f = *state;
    const char *const *d = f->documents;
    json_t *list = expect_json(program_run(NULL, "rerank", "--model", f->model, "--query", f->query,
                                           d[0], d[1], d[2], d[3], d[4], NULL));
    assert_int_equal(json_array_size(list), 5);
    expect_order(f, list, "score");
    json_decref(list);
}

static void test_search_orders_by_the_judge(void **state) {
    const Fixture *f = *state;
    json_t *lines = expect_json(program_run(NULL, "search", f->query, "--index", f->index,
                                            "--reranker", f->model, "--json", NULL));
    const json_t *hits = json_object_get(json_array_get(lines, 0), "hits");
    assert_int_equal(json_array_size(hits), 3); /* the others share no word with the query */
    expect_order(f, hits, "rerank");
    json_decref(lines);
}

static void test_ask_quotes_what_the_judge_prefers(void **state) {
    const Fixture *f = *state;
    json_t *lines = expect_json(program_run(NULL, "ask", f->query, "--index", f->index,
                                            "--reranker", f->model, "--json", NULL));
    const json_t *search = json_object_get(json_array_get(lines, 0), "search");
    expect_order(f, json_object_get(search, "hits"), "rerank");
    json_decref(lines);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_rerank_prints_the_scores),
        T(test_search_orders_by_the_judge),
        T(test_ask_quotes_what_the_judge_prefers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
