/* evaluate on a tiny model. The numbers in expected.json are those of mlx_lm 0.31.3 with
 * lm_eval 0.4.13 on the same folder and records, the harness' own task files reading
 * them. */
#include "cli/tiny_model.h"

#include <math.h>

#define RECORDS GOLDEN "/lm/evaluate/"

static Outcome evaluate(void **state, const char *task, const char *option, const char *value) {
    char *model = tiny_path(state);
    Outcome outcome = program_run(NULL, "evaluate", "--model", model, "--output-dir", *state,
                                  "--tasks", task, option, value, NULL);
    free(model);
    return outcome;
}

static Outcome evaluate_text(void **state, const char *records, const char *option,
                             const char *value) {
    folder_text(*state, "own.jsonl", records);
    char *task = base_path_join(*state, "own.jsonl");
    Outcome outcome = evaluate(state, task, option, value);
    free(task);
    return outcome;
}

/* ---- the harness' numbers ---------------------------------------------------------------- */

static void expect_near(const char *task, const char *metric, const json_t *got,
                        const json_t *wanted) {
    double have = json_number_value(got), want = json_number_value(wanted);
    if (!json_is_number(got) || fabs(have - want) > 1e-5 * fmax(1, fabs(want)))
        fail_msg("%s: %s is %.9g, not %.9g", task, metric, have, want);
}

static void check_run(void **state, const json_t *run) {
    char *model = tiny_path(state);
    const char *tasks[6], *name, *metric;
    json_t *wanted = json_object_get(run, "results"), *result, *value;
    size_t count = 0;
    for (void *at = json_object_iter(wanted); at && count < 6;
         at = json_object_iter_next(wanted, at)) {
        char *path = base_format(RECORDS "%s", json_object_iter_key(at));
        tasks[count++] = path;
    }
    while (count < 6) tasks[count++] = NULL;
    const char *shots = json_string_value(json_object_get(run, "shots"));
    const char *multiturn = json_is_true(json_object_get(run, "multiturn"))
                                ? "--fewshot-as-multiturn"
                                : "--no-apply-chat-template";
    json_t *lines = expect_json(program_run(
        NULL, "evaluate", "--model", model, "--output-dir", *state, "--json", "--num-shots", shots,
        multiturn, "--tasks", tasks[0], tasks[1], tasks[2], tasks[3], tasks[4], tasks[5], NULL));
    json_t *got = json_object_get(json_array_get(lines, 0), "results");
    assert_int_equal(json_object_size(got), json_object_size(wanted));
    json_object_foreach(wanted, name, result) {
        json_t *own = json_object_get(got, name);
        json_object_foreach(result, metric, value)
            expect_near(name, metric, json_object_get(own, metric), value);
        assert_string_equal(json_string_value(json_object_get(own, "alias")), name);
    }
    json_decref(lines);
    for (size_t i = 0; i < 6; i++) free((char *)tasks[i]);
    free(model);
}

static void test_results_equal_the_harness(void **state) {
    Error err = {0};
    json_t *runs = base_json_load(RECORDS "expected.json", &err), *run;
    assert_non_null(runs);
    size_t i;
    json_array_foreach(runs, i, run) check_run(state, run);
    json_decref(runs);
}

/* ---- output -------------------------------------------------------------------------------- */

static void test_results_are_printed_and_saved_as_mlx_lm_does(void **state) {
    Outcome outcome = evaluate(state, RECORDS "mmlu/", "--limit", "3");
    if (outcome.status != 0) fail_msg("%s", outcome.err);
    const char *head = "Results:\n{\n    \"alias\": \"mmlu\",\n    \"sample_len\": 3,\n"
                       "    \"acc,none\": ";
    if (strncmp(outcome.out, head, strlen(head)) != 0) fail_msg("%s", outcome.out);
    outcome_free(&outcome);
    char *pattern = base_format("eval_%s/tiny_" MLX_RAG_VERSION "_mmlu", (char *)*state);
    for (char *at = pattern; *at; at++) *at = *at == '/' ? '_' : *at;
    char *file = base_path_join(*state, pattern);
    Error err = {0};
    json_t *saved = base_json_load(file, &err);
    if (!saved) fail_msg("%s", err.message);
    assert_non_null(json_object_get(json_object_get(saved, "mmlu"), "acc_stderr,none"));
    json_decref(saved);
    free(file);
    free(pattern);
}

static void test_one_question_has_no_standard_error(void **state) {
    json_t *lines =
        expect_json(evaluate_text(state,
                                  "{\"query\": \"the rope\", \"choices\": [\"held\", \"he\"], "
                                  "\"gold\": 1}\n",
                                  "--json", NULL));
    json_t *result = json_object_get(json_object_get(json_array_get(lines, 0), "results"), "own");
    assert_int_equal(json_integer_value(json_object_get(result, "sample_len")), 1);
    assert_string_equal(json_string_value(json_object_get(result, "acc_stderr,none")), "N/A");
    json_decref(lines);
}

/* The four ways to say that the second choice is right. */
static void test_answers_are_numbers_labels_letters_or_texts(void **state) {
    static const char *const answers[] = {"1", "\"1\"", "\"B\"", "\"he\""};
    char *first = NULL;
    for (size_t i = 0; i < BASE_COUNT(answers); i++) {
        char *record = base_format(
            "{\"question\": \"the rope\", \"choices\": [\"held\", \"he\"], \"answer\": %s}\n",
            answers[i]);
        Outcome outcome = evaluate_text(state, record, "--json", NULL);
        assert_int_equal(outcome.status, 0);
        if (!first) first = base_strdup(outcome.out);
        assert_string_equal(outcome.out, first);
        outcome_free(&outcome);
        free(record);
    }
    free(first);
}

static void test_a_prompt_too_long_loses_its_beginning(void **state) {
    const char *records = "{\"query\": \"the rope held and the climbers rested there\", "
                          "\"choices\": [\"and then\", \"he said\"], \"gold\": 1}\n";
    Outcome outcome = evaluate_text(state, records, "--max-tokens", "7");
    assert_int_equal(outcome.status, 0);
    outcome_free(&outcome);
}

/* ---- bad input ----------------------------------------------------------------------------- */

static void test_bad_tasks_name_file_and_line(void **state) {
    static const struct {
        const char *records, *words;
    } cases[] = {
        {"{\"sentence\": \"x\"}\n", "own.jsonl: is no task of a known form. Keys of those: "},
        {"", "own.jsonl: holds no records"},
        {"[1]\n", "own.jsonl: line 1: is not a JSON object"},
        {"{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1}\n\n{\"query\": \"a\"\n",
         "own.jsonl: line 3, column"},
        {"{\"query\": \"a\", \"choices\": [], \"gold\": 1}\n",
         "own.jsonl: line 1: needs a list of choices"},
        {"{\"query\": \"a\", \"choices\": [\"b\", 4], \"gold\": 1}\n",
         "own.jsonl: line 1: a choice is not a text"},
        {"{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 2}\n",
         "own.jsonl: line 1: does not say which choice is right"},
        {"{\"query\": \"a\", \"choices\": [\"b\", \"c\"]}\n",
         "own.jsonl: line 1: does not say which choice is right"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++)
        expect_complaint(evaluate_text(state, cases[i].records, "--json", NULL), 1, cases[i].words);
}

static void test_bad_options_are_explained(void **state) {
    const char *task = RECORDS "mmlu";
    expect_complaint(evaluate(state, "absent", NULL, NULL), 1, "absent: No such file or directory");
    expect_complaint(evaluate(state, task, "--num-shots", "-1"), 1, "--num-shots must be between");
    expect_complaint(evaluate(state, task, "--num-shots", "9"), 1,
                     "dev.jsonl: num-shots 9 needs 9 records, there are 5");
    expect_complaint(evaluate(state, task, "--max-tokens", "0"), 1, "--max-tokens must be between");
    expect_complaint(evaluate(state, task, "--chat-template-args", "[1]"), 1,
                     "--chat-template-args");
    expect_complaint(evaluate(state, task, "--apply-chat-template", "--no-apply-chat-template"), 1,
                     "exclude each other");
    expect_complaint(evaluate(state, task, RECORDS "mmlu/", NULL), 1,
                     "--tasks: two tasks are called mmlu");
    expect_complaint(program_run(NULL, "evaluate", NULL), 2, "--model");
    expect_complaint(program_run(NULL, "evaluate", "--model", "x", NULL), 2, "--tasks");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results_equal_the_harness),
        cmocka_unit_test(test_results_are_printed_and_saved_as_mlx_lm_does),
        cmocka_unit_test(test_one_question_has_no_standard_error),
        cmocka_unit_test(test_answers_are_numbers_labels_letters_or_texts),
        cmocka_unit_test(test_a_prompt_too_long_loses_its_beginning),
        cmocka_unit_test(test_bad_tasks_name_file_and_line),
        cmocka_unit_test(test_bad_options_are_explained),
    };
    return cmocka_run_group_tests_name("cli evaluate", tests, tiny_make, folder_drop);
}
