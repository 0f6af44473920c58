/* The tiny Llama as a model folder, which the program itself converts. */
#ifndef TESTS_CLI_TINY_MODEL_H
#define TESTS_CLI_TINY_MODEL_H

#include "cli/program.h"
#include "cli/tiny_gguf.h"

/* *state is a folder with tiny.gguf and, once converted, tiny/. */
static inline int tiny_make(void **state) {
    if (folder_make(state) != 0) return -1;
    StrBuf file = tiny_gguf();
    folder_write(*state, "tiny.gguf", file.data, file.length);
    base_str_free(&file);
    char *gguf = base_path_join(*state, "tiny.gguf"), *output = base_path_join(*state, "tiny");
    Outcome outcome =
        program_run(NULL, "model", "convert", "--gguf", gguf, "--output", output, NULL);
    if (outcome.status != 0) fprintf(stderr, "convert: %s", outcome.err);
    int status = outcome.status;
    outcome_free(&outcome);
    free(gguf);
    free(output);
    return status;
}

static inline char *tiny_path(void **state) {
    return base_path_join(*state, "tiny");
}

#endif
