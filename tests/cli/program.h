/* Runs the built program and keeps what it said. */
#ifndef TESTS_CLI_PROGRAM_H
#define TESTS_CLI_PROGRAM_H

#include "hub/folder.h"

#include <fcntl.h>
#include <sys/wait.h>

typedef struct Outcome {
    int status; /* exit status; 128 + signal */
    char *out, *err;
} Outcome;

static inline char *program_slurp(int fd) {
    StrBuf text = {0};
    char block[4096];
    base_str_append(&text, "");
    lseek(fd, 0, SEEK_SET);
    for (ssize_t got; (got = read(fd, block, sizeof block)) > 0;)
        base_str_append_n(&text, block, (size_t)got);
    close(fd);
    return base_str_detach(&text);
}

static inline int program_scratch(void) {
    FILE *file = tmpfile();
    int fd = dup(fileno(file));
    fclose(file);
    return fd;
}

/* Arguments end with NULL; `input` is given on standard input (NULL: empty). */
static inline Outcome program_run(const char *input, ...) {
    const char *words[64] = {PROGRAM};
    int count = 1, in = program_scratch(), out = program_scratch(), err = program_scratch();
    va_list arguments;
    va_start(arguments, input);
    while (count < 63 && (words[count] = va_arg(arguments, const char *)) != NULL) count++;
    va_end(arguments);
    if (input) assert_int_equal(write(in, input, strlen(input)), strlen(input));
    lseek(in, 0, SEEK_SET);
    pid_t child = fork();
    if (child == 0) {
        dup2(in, 0);
        dup2(out, 1);
        dup2(err, 2);
        execv(PROGRAM, (char **)words);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    close(in);
    return (Outcome){.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                     .out = program_slurp(out),
                     .err = program_slurp(err)};
}

static inline void outcome_free(Outcome *outcome) {
    free(outcome->out);
    free(outcome->err);
}

/* A failure says one line, "mlx-rag: ...", that contains `words`. */
static inline void expect_complaint(Outcome outcome, int status, const char *words) {
    if (outcome.status != status || !strstr(outcome.err, words))
        fail_msg("status %d, said \"%s\", wanted %d and \"%s\"", outcome.status, outcome.err,
                 status, words);
    assert_true(base_starts_with(outcome.err, "mlx-rag: "));
    assert_ptr_equal(strchr(outcome.err, '\n'), outcome.err + strlen(outcome.err) - 1);
    outcome_free(&outcome);
}

static inline void expect_output(Outcome outcome, const char *text) {
    if (outcome.status != 0) fail_msg("status %d: %s", outcome.status, outcome.err);
    assert_string_equal(outcome.out, text);
    outcome_free(&outcome);
}

/* The JSON value of each line of output; all lines must be JSON. Returns a new
 * list. */
static inline json_t *expect_json(Outcome outcome) {
    if (outcome.status != 0) fail_msg("status %d: %s", outcome.status, outcome.err);
    json_t *list = json_array();
    for (char *line = outcome.out; *line;) {
        size_t length = strcspn(line, "\n");
        json_t *value = json_loadb(line, length, JSON_DECODE_ANY, NULL);
        if (!value) fail_msg("not JSON: %.*s", (int)length, line);
        json_array_append_new(list, value);
        line += length + (line[length] == '\n');
    }
    outcome_free(&outcome);
    return list;
}

#endif
