/* Language models as rerankers, against transformers (golden/rag/judge names the
 * versions): Qwen3-Reranker's protocol on a tiny Qwen3, mxbai-rerank v2's on a tiny
 * Qwen2. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lm/judge_folder.h"
#include "lm/lm.h"

static char *make_folder(const char *name) {
    char *folder = base_strdup("/tmp/test_lm_judge_XXXXXX");
    assert_non_null(mkdtemp(folder));
    judge_fill(folder, name, JUDGE_TOKENS);
    return folder;
}

static LmReranker *open_reranker(const char *folder) {
    Error err = {0};
    LmReranker *reranker = lm_reranker_open(folder, &(LmOpenOptions){.dtype = "float32"}, &err);
    if (!reranker) fail_msg("%s", err.message);
    return reranker;
}

enum { MOST_DOCUMENTS = 8 };

static size_t read_documents(const json_t *golden, const char **documents) {
    const json_t *list = json_object_get(golden, "documents");
    for (size_t i = 0; i < json_array_size(list); i++)
        documents[i] = json_string_value(json_array_get(list, i));
    return json_array_size(list);
}

static void score(LmReranker *reranker, const json_t *golden, const char *const *documents,
                  size_t count, float *scores) {
    Error err = {0};
    const char *query = json_string_value(json_object_get(golden, "query"));
    if (!lm_reranker_score(reranker, query, documents, count, scores, &err))
        fail_msg("%s", err.message);
}

static void check(const char *name) {
    json_t *golden = judge_golden();
    const json_t *expected = json_object_get(json_object_get(golden, name), "scores");
    const char *documents[MOST_DOCUMENTS];
    size_t count = read_documents(golden, documents);
    float scores[MOST_DOCUMENTS];
    char *folder = make_folder(name);
    LmReranker *reranker = open_reranker(folder);
    score(reranker, golden, documents, count, scores);
    for (size_t i = 0; i < count; i++) {
        double want = json_number_value(json_array_get(expected, i));
        if (fabs((double)scores[i] - want) > 2e-5)
            fail_msg("%s, document %zu: %.7f, transformers %.7f", name, i, (double)scores[i], want);
    }
    lm_reranker_close(reranker);
    judge_remove(folder);
    json_decref(golden);
}

static void test_qwen3_reranker_scores_as_transformers(void **state) {
    (void)state;
    check("qwen3");
}

static void test_mxbai_rerank_v2_scores_as_transformers(void **state) {
    (void)state;
    check("qwen2");
}

static void test_a_document_scores_the_same_alone_and_among_others(void **state) {
    (void)state;
    json_t *golden = judge_golden();
    const char *documents[MOST_DOCUMENTS];
    size_t count = read_documents(golden, documents);
    float together[MOST_DOCUMENTS], alone;
    char *folder = make_folder("qwen3");
    LmReranker *reranker = open_reranker(folder);
    documents[count] = documents[0]; /* twice the same, and an empty one */
    documents[count + 1] = "";
    score(reranker, golden, documents, count + 2, together);
    assert_float_equal(together[0], together[count], 0);
    for (size_t i = 0; i < count + 2; i++) {
        score(reranker, golden, documents + i, 1, &alone);
        assert_float_equal(alone, together[i], 1e-5);
    }
    lm_reranker_close(reranker);
    judge_remove(folder);
    json_decref(golden);
}

static void test_folders_may_name_the_two_tokens(void **state) {
    (void)state;
    json_t *golden = judge_golden();
    const char *documents[MOST_DOCUMENTS];
    read_documents(golden, documents);
    float plain, turned;
    char *folder = make_folder("qwen3"), *own = base_path_join(folder, "1_LogitScore");
    LmReranker *reranker = open_reranker(folder);
    score(reranker, golden, documents, 1, &plain);
    lm_reranker_close(reranker);
    Error err = {0};
    char *tokenizer = base_path_join(folder, "tokenizer.json");
    json_t *vocab = base_json_load(tokenizer, &err);
    const json_t *ids = json_object_get(json_object_get(vocab, "model"), "vocab");
    char *text = base_format("{\"true_token_id\": %d, \"false_token_id\": %d}",
                             (int)json_integer_value(json_object_get(ids, "no")),
                             (int)json_integer_value(json_object_get(ids, "yes")));
    char *path = base_path_join(own, "config.json");
    assert_true(base_make_dirs(own, &err));
    assert_true(base_file_write(path, text, strlen(text), &err));
    reranker = open_reranker(folder);
    score(reranker, golden, documents, 1, &turned);
    assert_float_equal(turned, -plain, 1e-6);
    lm_reranker_close(reranker);
    unlink(path);
    rmdir(own);
    json_decref(vocab);
    json_decref(golden);
    free(text), free(tokenizer), free(path), free(own);
    judge_remove(folder);
}

static void expect_refusal(const char *folder, const char *message) {
    Error err = {0};
    assert_null(lm_reranker_open(folder, NULL, &err));
    if (!strstr(err.message, message)) fail_msg("%s", err.message);
}

static void test_models_that_cannot_judge_are_refused(void **state) {
    (void)state;
    char *folder = make_folder("llama");
    expect_refusal(folder, "no reranking protocol is known for the architecture llama");
    judge_remove(folder);

    folder = make_folder("qwen3");
    char *path = base_path_join(folder, "tokenizer.json");
    unlink(path);
    expect_refusal(folder, "the model has no tokenizer");
    free(path);
    judge_remove(folder);

    folder = make_folder("qwen2");
    judge_fill(folder, "qwen2", 128);
    expect_refusal(folder, "the prompt alone has");
    judge_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen3_reranker_scores_as_transformers),
        cmocka_unit_test(test_mxbai_rerank_v2_scores_as_transformers),
        cmocka_unit_test(test_a_document_scores_the_same_alone_and_among_others),
        cmocka_unit_test(test_folders_may_name_the_two_tokens),
        cmocka_unit_test(test_models_that_cannot_judge_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
