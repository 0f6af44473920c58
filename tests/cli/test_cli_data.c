/* data prepare: documents and rows to sets, the same ones each time; data inspect: rows
 * as training sees them. */
#include "cli/program.h"
#include "cli/tiny_model.h"

static char *slurp(const char *folder, const char *name) {
    char *path = base_path_join(folder, name), *text = NULL;
    size_t length;
    if (!base_file_read(path, &text, &length, NULL)) text = base_strdup("");
    free(path);
    return text;
}

/* Fifty different rows, one twice, one bad line; a document. */
static void write_input(const char *folder) {
    StrBuf rows = {0};
    for (int i = 0; i < 50; i++)
        base_str_appendf(&rows, "{\"prompt\": \"what is %d?\", \"completion\": \"it is %d\"}\n", i,
                         i);
    base_str_append(&rows, "{\"prompt\": \"what is  7?\", \"completion\": \"it is 7\"}\n{bad\n");
    folder_write(folder, "rows.jsonl", rows.data, rows.length);
    base_str_free(&rows);
}

static void test_rows_are_split_the_same_way_each_time(void **state) {
    char *input = base_path_join(*state, "rows.jsonl");
    char *one = base_path_join(*state, "one"), *two = base_path_join(*state, "two");
    write_input(*state);
    json_t *report = expect_json(program_run(NULL, "data", "prepare", input, "--output", one,
                                             "--valid", "0.1", "--quiet", "--json", NULL));
    const json_t *all = json_array_get(report, 0);
    assert_int_equal(json_integer_value(json_object_get(all, "rows")), 50);
    assert_int_equal(json_integer_value(json_object_get(all, "exact_duplicates")), 1);
    assert_int_equal(json_integer_value(json_object_get(all, "set_aside")), 1);
    const char *note = json_string_value(json_array_get(json_object_get(all, "notes"), 0));
    assert_non_null(strstr(note, "rows.jsonl: line 52: "));
    json_decref(report);
    outcome_free(&(Outcome[]){program_run(NULL, "data", "prepare", input, "--output", two,
                                          "--valid", "0.1", "--quiet", NULL)}[0]);
    const char *names[] = {"train.jsonl", "valid.jsonl", "test.jsonl"};
    const size_t counts[] = {42, 5, 3};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char *left = slurp(one, names[i]), *right = slurp(two, names[i]);
        size_t lines = 0;
        for (const char *at = left; (at = strchr(at, '\n')) != NULL; at++) lines++;
        assert_int_equal(lines, counts[i]);
        assert_string_equal(left, right);
        free(left);
        free(right);
    }
    expect_complaint(program_run(NULL, "data", "prepare", input, "--output", one, "--quiet", NULL),
                     1, "exists already");
    free(input);
    free(one);
    free(two);
}

static void test_documents_become_completions(void **state) {
    char *input = base_path_join(*state, "guide.md"), *output = base_path_join(*state, "made");
    const char text[] = "# Guide\n\n## Keys\n\nThe golden key opens the northern gate of the old "
                        "tower, and nothing else does so in winter.\n";
    folder_write(*state, "guide.md", text, sizeof text - 1);
    Outcome outcome =
        program_run(NULL, "data", "prepare", input, "--output", output, "--format", "completions",
                    "--min-tokens", "4", "--valid", "0", "--test", "0", "--quiet", NULL);
    assert_int_equal(outcome.status, 0);
    outcome_free(&outcome);
    char *made = slurp(output, "train.jsonl");
    assert_non_null(strstr(made, "\"prompt\":\"Write the section"));
    assert_non_null(strstr(made, "golden key opens"));
    free(made);
    free(input);
    free(output);
}

static void test_what_cannot_be_prepared_is_refused(void **state) {
    char *output = base_path_join(*state, "none"), *empty = base_path_join(*state, "empty.jsonl");
    folder_write(*state, "empty.jsonl", "", 0);
    expect_complaint(
        program_run(NULL, "data", "prepare", empty, "--output", output, "--quiet", NULL), 1,
        "no rows in what was given");
    expect_complaint(program_run(NULL, "data", "prepare", "/nowhere/at/all", "--output", output,
                                 "--quiet", NULL),
                     1, "/nowhere/at/all");
    expect_complaint(program_run(NULL, "data", "prepare", empty, "--output", output, "--valid",
                                 "0.6", "--test", "0.4", NULL),
                     2, "nothing to train on");
    free(output);
    free(empty);
}

static void test_rows_are_shown_with_what_counts(void **state) {
    char *model = tiny_path(state), *rows = base_path_join(*state, "shown.jsonl");
    const char text[] = "{\"tokens\": [5, 6, 7, 8, 9], \"prompt_tokens\": 2}\n"
                        "{\"tokens\": [5, 6]}\n{\"tokens\": [5, \"six\"]}\n";
    folder_write(*state, "shown.jsonl", text, sizeof text - 1);
    json_t *lines = expect_json(program_run(NULL, "data", "inspect", "--model", model, "--data",
                                            rows, "--rows", "2", "--mask-prompt", "--json", NULL));
    assert_int_equal(json_array_size(lines), 2);
    const json_t *first = json_array_get(lines, 0), *runs = json_object_get(first, "runs");
    assert_non_null(strstr(json_string_value(json_object_get(first, "where")), "line 1"));
    assert_int_equal(json_integer_value(json_object_get(first, "tokens")), 5);
    assert_int_equal(json_integer_value(json_object_get(first, "targets")), 3);
    assert_int_equal(json_array_size(runs), 2);
    assert_true(json_is_false(json_object_get(json_array_get(runs, 0), "counts")));
    json_t *ids = json_pack("[i,i,i]", 7, 8, 9);
    assert_true(json_equal(json_object_get(json_array_get(runs, 1), "ids"), ids));
    json_decref(ids);
    json_decref(lines);
    Outcome shown = program_run(NULL, "data", "inspect", "--model", model, "--data", rows, "--rows",
                                "1", "--mask-prompt", NULL);
    assert_int_equal(shown.status, 0);
    assert_non_null(strstr(shown.out, "line 1: 5 tokens, 3 count"));
    assert_non_null(strstr(shown.out, "[["));
    outcome_free(&shown);
    expect_complaint(program_run(NULL, "data", "inspect", "--model", model, "--data", rows,
                                 "--start", "2", NULL),
                     1, "line 3");
    free(rows);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_are_split_the_same_way_each_time, folder_make,
                                        folder_drop),
        cmocka_unit_test_setup_teardown(test_documents_become_completions, folder_make,
                                        folder_drop),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_prepared_is_refused, folder_make,
                                        folder_drop),
        cmocka_unit_test_setup_teardown(test_rows_are_shown_with_what_counts, tiny_make,
                                        folder_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
