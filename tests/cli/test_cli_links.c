/* The program's other names: links to it that stand for commands. */
#include "cli/program.h"

#include <unistd.h>

/* What a link of this name says, run with a word or two. */
static Outcome call(const char *folder, const char *name, const char *first, const char *second) {
    char *path = base_path_join(folder, name);
    unlink(path);
    assert_int_equal(symlink(PROGRAM, path), 0);
    char *words[] = {path, (char *)(uintptr_t)first, (char *)(uintptr_t)second, NULL};
    int out = program_scratch(), err = program_scratch(), status = 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(out, 1);
        dup2(err, 2);
        execv(path, words);
        _exit(127);
    }
    waitpid(child, &status, 0);
    free(path);
    return (Outcome){.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                     .out = program_slurp(out),
                     .err = program_slurp(err)};
}

static void expect_start(Outcome outcome, int status, const char *text) {
    const char *said = status == 0 ? outcome.out : outcome.err;
    if (outcome.status != status || !base_starts_with(said, text))
        fail_msg("status %d, said \"%.200s\", wanted \"%s\"", outcome.status, said, text);
    outcome_free(&outcome);
}

static void test_links_are_installed_for_the_names_that_are_known(void **state) {
    (void)state;
    StrBuf names = {0};
    for (const char *c = LINKS; *c; c++) base_str_append_char(&names, *c == ' ' ? '\n' : *c);
    base_str_append_char(&names, '\n');
    expect_output(program_run(NULL, "commands", "--links", NULL), names.data);
    base_str_free(&names);
}

static void test_every_link_leads_to_a_command(void **state) {
    char *names = base_strdup(LINKS), *rest = names, *name;
    while ((name = strsep(&rest, " ")) != NULL) {
        bool group = strcmp(name, "rag-cli") == 0 || strcmp(name, "mlx_lm") == 0;
        char *usage = base_format("usage: %s", group ? name : "mlx-rag ");
        expect_start(call(*state, name, "--help", NULL), 0, usage);
        expect_start(call(*state, name, "--version", NULL), 0, "mlx-rag ");
        free(usage);
    }
    free(names);
}

static void test_a_link_is_the_command_it_names(void **state) {
    expect_start(call(*state, "mlx_lm.cache_prompt", "--help", NULL), 0,
                 "usage: mlx-rag cache-prompt");
    expect_start(call(*state, "mlx_lm.convert", "--hf-path", "/nowhere"), 1,
                 "mlx-rag: /nowhere: no such folder");
    expect_start(call(*state, "mlx_lm", "fuse", "--help"), 0, "usage: mlx-rag fuse");
    expect_start(call(*state, "model-cli", "info", "--help"), 0, "usage: mlx-rag model info");
    expect_start(call(*state, "model-cli", "fly", NULL), 2, "mlx-rag: model needs one of");
    expect_start(call(*state, "rag-cli", "ask", "--help"), 0, "usage: mlx-rag ask");
    expect_start(call(*state, "ingest-cli", "--embedder", "/nowhere"), 2,
                 "mlx-rag: give either --pdfs or --banks-root");
}

static void test_rag_cli_has_its_own_commands_only(void **state) {
    expect_start(call(*state, "rag-cli", "generate", NULL), 2,
                 "mlx-rag: unknown command \"generate\"");
    expect_start(call(*state, "rag-cli", "--vdb-path", "/nowhere.npz"), 1,
                 "mlx-rag: /nowhere.npz: no such file");
    expect_start(call(*state, "rag-cli", NULL, NULL), 1,
                 "mlx-rag: var/indexes/vdb.npz: no such file");
    expect_start(call(*state, "rag-cli", "--fly", NULL), 2, "mlx-rag: rag: ");
    Outcome outcome = call(*state, "rag-cli", "--help", NULL);
    assert_non_null(strstr(outcome.out, "  ingest "));
    assert_null(strstr(outcome.out, "  generate "));
    outcome_free(&outcome);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links_are_installed_for_the_names_that_are_known),
        cmocka_unit_test(test_every_link_leads_to_a_command),
        cmocka_unit_test(test_a_link_is_the_command_it_names),
        cmocka_unit_test(test_rag_cli_has_its_own_commands_only),
    };
    return cmocka_run_group_tests_name("cli links", tests, folder_make, folder_drop);
}
