/* eval-rag: a table of settings over a small index, as text and as JSON, and what it
 * refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/program.h"

typedef struct Fixture {
    void *folder;
    char *index, *questions;
} Fixture;

static int setup(void **state) {
    static const char chunks[] =
        "{\"text\": \"Apple plum.\", \"source\": \"a.txt\", \"embedding\": [1, 0]}\n"
        "{\"text\": \"Apple pear.\", \"source\": \"b.txt\", \"embedding\": [1, 0]}\n";
    static const char questions[] =
        "{\"question\": \"plum\", \"relevant\": [{\"document\": \"a.txt\"}]}\n"
        "{\"question\": \"pear\", \"relevant\": [{\"document\": \"a.txt\"}]}\n"
        "{\"question\": \"zebra\", \"relevant\": []}\n";
    Fixture *f = base_calloc(1, sizeof *f);
    *state = f;
    if (folder_make(&f->folder) != 0) return -1;
    f->index = base_path_join(f->folder, "index");
    f->questions = base_path_join(f->folder, "questions.jsonl");
    folder_write(f->folder, "chunks.jsonl", chunks, strlen(chunks));
    folder_write(f->folder, "questions.jsonl", questions, strlen(questions));
    char *path = base_path_join(f->folder, "chunks.jsonl");
    Outcome outcome = program_run(NULL, "index", "import", path, "--index", f->index, NULL);
    if (outcome.status != 0) fail_msg("%s", outcome.err);
    outcome_free(&outcome);
    free(path);
    return 0;
}

static int teardown(void **state) {
    Fixture *f = *state;
    free(f->index), free(f->questions);
    int status = folder_drop(&f->folder);
    free(f);
    return status;
}

static void test_settings_are_compared(void **state) {
    const Fixture *f = *state;
    json_t *rows =
        expect_json(program_run(NULL, "eval-rag", "--questions", f->questions, "--index", f->index,
                                "--json", "--settings", "words", "words+lexical-weight=2", NULL));
    assert_int_equal(json_array_size(rows), 2);
    const json_t *row = json_array_get(rows, 1);
    assert_string_equal(json_string_value(json_object_get(row, "setting")),
                        "words+lexical-weight=2");
    assert_int_equal(json_integer_value(json_object_get(row, "questions")), 3);
    const json_t *recall = json_object_get(row, "recall");
    assert_float_equal(json_number_value(json_object_get(recall, "10")), 0.5, 0);
    assert_float_equal(json_number_value(json_object_get(row, "mrr")), 0.5, 0);
    assert_int_equal(json_integer_value(json_object_get(row, "refused_right")), 1);
    json_decref(rows);
    Outcome outcome =
        program_run(NULL, "eval-rag", "--questions", f->questions, "--index", f->index, NULL);
    assert_int_equal(outcome.status, 0);
    assert_non_null(strstr(outcome.out, "setting   recall@1"));
    assert_non_null(strstr(outcome.out, "\nwords          0.500       0.500       0.500  0.500"));
    outcome_free(&outcome);
}

static void test_wrong_settings_are_named(void **state) {
    static const struct {
        const char *setting, *complaint;
    } cases[] = {
        {"words+cheese", "there is no \"cheese\""},
        {"words+mmr=2", "setting words+mmr=2: mmr wants a number up to 1"},
        {"words+section=x", "section wants a number"},
        {"words=1", "words takes no number"},
        {"words+rerank", "setting words+rerank needs --reranker"},
        {"vectors", "setting vectors needs --embedder"},
        {"", "there is no \"\""},
    };
    const Fixture *f = *state;
    for (size_t i = 0; i < BASE_COUNT(cases); i++)
        expect_complaint(program_run(NULL, "eval-rag", "--questions", f->questions, "--index",
                                     f->index, "--settings", cases[i].setting, NULL),
                         1, cases[i].complaint);
    expect_complaint(
        program_run(NULL, "eval-rag", "--questions", "/nowhere", "--index", f->index, NULL), 1,
        "/nowhere");
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_settings_are_compared),
        T(test_wrong_settings_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
