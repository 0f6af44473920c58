/* train plot: of folders, as text, PNG or JSON. */
#include "cli/program.h"

#define LINES                                            \
    "{\"type\": \"train\", \"iter\": 10, \"loss\": 3}\n" \
    "{\"type\": \"train\", \"iter\": 20, \"loss\": 2}\n{\"type\": \"va"

static void test_a_run_is_drawn_summed_up_and_made_a_picture(void **state) {
    folder_text(*state, "metrics.jsonl", LINES);
    char *png = base_path_join(*state, "loss.png");
    Outcome text = program_run(NULL, "train", "plot", *state, NULL);
    assert_int_equal(text.status, 0);
    assert_non_null(strstr(text.out, "* train\n"));
    assert_null(strchr(text.out, '\033'));
    outcome_free(&text);
    json_t *rows = expect_json(program_run(NULL, "train", "plot", *state, *state, "--json", NULL));
    assert_int_equal(json_array_size(rows), 2);
    const json_t *train = json_object_get(json_array_get(rows, 1), "train");
    assert_float_equal(json_number_value(json_object_get(train, "best")), 2, 0);
    json_decref(rows);
    expect_output(program_run(NULL, "train", "plot", *state, "-o", png, NULL), "");
    assert_true(base_is_file(png));
    free(png);
}

static void test_what_cannot_be_drawn_is_refused(void **state) {
    expect_complaint(program_run(NULL, "train", "plot", *state, NULL), 1, "metrics.jsonl");
    expect_complaint(program_run(NULL, "train", "plot", NULL), 2, "DIR");
    folder_text(*state, "metrics.jsonl", LINES);
    expect_complaint(program_run(NULL, "train", "plot", *state, "--width", "5", NULL), 1, "width");
    expect_complaint(program_run(NULL, "train", "plot", *state, "-o", "/nowhere/at/all.png", NULL),
                     1, "/nowhere");
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_a_run_is_drawn_summed_up_and_made_a_picture),
        IN_FOLDER(test_what_cannot_be_drawn_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
