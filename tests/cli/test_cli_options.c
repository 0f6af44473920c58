/* The words of a command line: help, shortened options, and what is refused. */
#include "cli/program.h"

static void test_version_and_help_need_no_command(void **state) {
    (void)state;
    expect_output(program_run(NULL, "--version", NULL), "mlx-rag " MLX_RAG_VERSION "\n");
    Outcome help = program_run(NULL, "--help", NULL);
    assert_int_equal(help.status, 0);
    assert_non_null(strstr(help.out, "generate"));
    assert_non_null(strstr(help.out, "model convert"));
    assert_null(strstr(help.out, "  commands "));
    outcome_free(&help);
    Outcome nothing = program_run(NULL, NULL);
    assert_int_equal(nothing.status, 2);
    assert_string_equal(nothing.out, "");
    outcome_free(&nothing);
}

static void test_every_command_explains_itself(void **state) {
    (void)state;
    Outcome list = program_run(NULL, "commands", NULL);
    assert_int_equal(list.status, 0);
    size_t commands = 0;
    for (char *line = strtok(list.out, "\n"); line; line = strtok(NULL, "\n")) {
        char first[64];
        snprintf(first, sizeof first, "%s", line);
        char *second = strchr(first, ' ');
        if (second) *second++ = '\0';
        Outcome help = second ? program_run(NULL, first, second, "--help", NULL)
                              : program_run(NULL, first, "--help", NULL);
        assert_int_equal(help.status, 0);
        assert_true(base_starts_with(help.out, "usage: mlx-rag "));
        for (char *at = help.out; *at; at += strcspn(at, "\n") + (at[strcspn(at, "\n")] == '\n'))
            if (strcspn(at, "\n") > 100) fail_msg("a long line in the help of %s", line);
        outcome_free(&help);
        commands++;
    }
    assert_true(commands >= 12);
    outcome_free(&list);
}

static void test_the_manual_is_made_from_the_tables(void **state) {
    (void)state;
    Outcome manual = program_run(NULL, "commands", "--markdown", NULL);
    assert_int_equal(manual.status, 0);
    assert_non_null(strstr(manual.out, "## generate\n"));
    assert_non_null(strstr(manual.out, "| `-m, --max-tokens N` | `100` |"));
    assert_non_null(strstr(manual.out, "float16\\|bfloat16\\|float32"));
    outcome_free(&manual);
}

static void test_the_manifest_is_that_manual(void **state) {
    (void)state;
    Error err = {0};
    char *manifest = NULL;
    size_t length = 0;
    assert_true(
        base_file_read(GOLDEN "/../../docs/COMMANDS_MANIFEST.md", &manifest, &length, &err));
    Outcome manual = program_run(NULL, "commands", "--markdown", NULL);
    if (strcmp(manual.out, manifest) != 0)
        fail_msg("docs/COMMANDS_MANIFEST.md is not of these options: run make manifest");
    free(manifest);
    outcome_free(&manual);
}

static void test_wrong_words_are_refused_with_status_2(void **state) {
    (void)state;
    expect_complaint(program_run(NULL, "fly", NULL), 2, "unknown command \"fly\"");
    expect_complaint(program_run(NULL, "model", NULL), 2, "model needs one of: model convert");
    expect_complaint(program_run(NULL, "model", "fly", NULL), 2, "model needs one of");
    expect_complaint(program_run(NULL, "generate", NULL), 2, "generate: --model is required");
    expect_complaint(program_run(NULL, "generate", "--model", NULL), 2, "--model needs a value");
    expect_complaint(program_run(NULL, "generate", "--model", "--json", NULL), 2,
                     "--model needs a value");
    expect_complaint(program_run(NULL, "generate", "--fly", NULL), 2, "unknown option --fly");
    expect_complaint(program_run(NULL, "generate", "-z", NULL), 2, "unknown option -z");
    expect_complaint(program_run(NULL, "generate", "--json=1", NULL), 2, "--json takes no value");
    expect_complaint(program_run(NULL, "generate", "more", NULL), 2,
                     "unexpected argument \"more\"");
    expect_complaint(program_run(NULL, "generate", "--max-tokens", "many", NULL), 2,
                     "--max-tokens: \"many\" is not a whole number");
    expect_complaint(program_run(NULL, "generate", "--temp", "hot", NULL), 2,
                     "--temp: \"hot\" is not a number");
    expect_complaint(program_run(NULL, "generate", "--temp", "nan", NULL), 2, "is not a number");
    expect_complaint(program_run(NULL, "generate", "-m", "99999999999999999999", NULL), 2,
                     "is not a whole number");
    expect_complaint(program_run(NULL, "search", "q", "--index", "x", "--mode", "magic", NULL), 2,
                     "\"magic\" is not one of hybrid|dense|lexical");
    expect_complaint(program_run(NULL, "search", "--index", "x", NULL), 2, "QUERY is required");
}

static void test_shortened_options_must_be_unambiguous(void **state) {
    (void)state;
    expect_complaint(program_run(NULL, "generate", "--top", "1", NULL), 2, "--top could be any of");
    expect_complaint(program_run(NULL, "generate", "--mod", "/nowhere", NULL), 1,
                     "/nowhere: no such folder");
    expect_complaint(program_run(NULL, "generate", "--mod=/nowhere", "-m5", "--max-t", "-1", NULL),
                     1, "/nowhere: no such folder");
    expect_complaint(program_run(NULL, "generate", "--model=/nowhere", "-p", "-two words", NULL), 1,
                     "/nowhere: no such folder");
}

static void test_values_out_of_range_are_refused_before_the_model_opens(void **state) {
    (void)state;
    expect_complaint(
        program_run(NULL, "generate", "--model", "/nowhere", "--max-tokens", "-2", NULL), 1,
        "--max-tokens must be between -1 and");
    expect_complaint(
        program_run(NULL, "generate", "--model", "/nowhere", "--logit-bias", "[1]", NULL), 1,
        "--logit-bias: must be a JSON object");
    expect_complaint(
        program_run(NULL, "generate", "--model", "/nowhere", "--logit-bias", "{\"x\": 1}", NULL), 1,
        "\"x\" is not a token id");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_and_help_need_no_command),
        cmocka_unit_test(test_every_command_explains_itself),
        cmocka_unit_test(test_the_manual_is_made_from_the_tables),
        cmocka_unit_test(test_the_manifest_is_that_manual),
        cmocka_unit_test(test_wrong_words_are_refused_with_status_2),
        cmocka_unit_test(test_shortened_options_must_be_unambiguous),
        cmocka_unit_test(test_values_out_of_range_are_refused_before_the_model_opens),
    };
    return cmocka_run_group_tests_name("cli options", tests, NULL, NULL);
}
