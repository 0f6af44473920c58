/* watch: the index follows files that come, change and go, lies in the watched folder
 * itself, and a Ctrl-C ends it with a whole index. */
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "cli/program.h"
#include "lm/embed_folder.h"

typedef struct Watching {
    char *folder, *docs, *model, *index;
    pid_t child;
    FILE *says;
} Watching;

static void start(Watching *w) {
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    w->child = fork();
    if (!w->child) {
        dup2(pipes[1], 1);
        dup2(pipes[1], 2);
        close(pipes[0]), close(pipes[1]);
        execl(PROGRAM, PROGRAM, "watch", w->docs, "--index", w->index, "--embedder", w->model,
              "--settle", "0.05", "--json", "--quiet", (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    w->says = fdopen(pipes[0], "r");
}

static int setup(void **state) {
    Watching *w = base_calloc(1, sizeof *w);
    Error err = {0};
    *state = w;
    void *folder = NULL;
    if (folder_make(&folder) != 0) return -1;
    w->folder = folder;
    w->docs = base_path_join(w->folder, "docs");
    w->model = base_path_join(w->folder, "model");
    w->index = base_path_join(w->docs, "my.index");
    assert_true(base_make_dirs(w->docs, &err) && base_make_dirs(w->model, &err));
    embed_fill(w->model, "bert", 160);
    folder_text(w->docs, "first.txt", "Boats lie in the harbour.");
    start(w);
    return 0;
}

static int teardown(void **state) {
    Watching *w = *state;
    if (w->child) kill(w->child, SIGKILL), waitpid(w->child, NULL, 0);
    if (w->says) fclose(w->says);
    void *folder = w->folder;
    folder_drop(&folder);
    free(w->docs), free(w->model), free(w->index), free(w);
    return 0;
}

/* The next ingest that did something, within 20 s. */
static json_t *next_done(Watching *w) {
    char *line = NULL;
    size_t room = 0;
    json_t *value = NULL;
    alarm(20);
    while (!value && getline(&line, &room, w->says) > 0) {
        value = json_loads(line, 0, NULL);
        if (!value) fail_msg("said: %s", line);
        const char *event = json_string_value(json_object_get(value, "event"));
        if (!event || strcmp(event, "done") != 0) json_decref(value), value = NULL;
    }
    alarm(0);
    free(line);
    assert_non_null(value);
    return value;
}

static void expect_done(Watching *w, int added, int changed, int removed) {
    json_t *done = next_done(w);
    assert_int_equal(json_integer_value(json_object_get(done, "added")), added);
    assert_int_equal(json_integer_value(json_object_get(done, "changed")), changed);
    assert_int_equal(json_integer_value(json_object_get(done, "removed")), removed);
    assert_int_equal(json_integer_value(json_object_get(done, "skipped")), 0);
    json_decref(done);
}

static void expect_found(const Watching *w, const char *word, size_t hits) {
    json_t *found =
        expect_json(program_run(NULL, "search", word, "--index", w->index, "--json", NULL));
    const json_t *list = json_object_get(json_array_get(found, 0), "hits");
    if (json_array_size(list) != hits) fail_msg("%s: %zu hits", word, json_array_size(list));
    json_decref(found);
}

static void remove_document(const Watching *w, const char *name) {
    char *path = base_path_join(w->docs, name);
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void test_the_index_follows_its_folder(void **state) {
    Watching *w = *state;
    expect_done(w, 1, 0, 0);
    expect_found(w, "harbour", 1);
    folder_text(w->docs, "second.txt", "Lighthouses blink.");
    expect_done(w, 1, 0, 0);
    expect_found(w, "lighthouses", 1);
    folder_text(w->docs, "first.txt", "Trains stand in the station.");
    expect_done(w, 0, 1, 0);
    expect_found(w, "harbour", 0);
    expect_found(w, "station", 1);
    remove_document(w, "second.txt");
    expect_done(w, 0, 0, 1);
    expect_found(w, "lighthouses", 0);
    char *inner = base_path_join(w->docs, "inner");
    assert_int_equal(mkdir(inner, 0755), 0);
    folder_text(inner, "third.txt", "Windmills turn.");
    expect_done(w, 1, 0, 0);
    expect_found(w, "windmills", 1);
    free(inner);
}

static void test_an_interrupt_ends_it_with_a_whole_index(void **state) {
    Watching *w = *state;
    expect_done(w, 1, 0, 0);
    kill(w->child, SIGINT);
    int status = 0;
    alarm(20);
    assert_int_equal(waitpid(w->child, &status, 0), w->child);
    alarm(0);
    w->child = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    char said[64];
    assert_null(fgets(said, sizeof said, w->says));
    Outcome outcome = program_run(NULL, "index", "verify", w->index, NULL);
    if (outcome.status != 0) fail_msg("%s", outcome.err);
    outcome_free(&outcome);
    char **files = NULL;
    size_t count = 0;
    Error err = {0};
    assert_true(base_list_dir(w->docs, &files, &count, &err));
    for (size_t i = 0; i < count; i++) free(files[i]);
    free(files);
    assert_int_equal(count, 2); /* the document and the index, no log beside it */
}

static void test_wrong_words_are_named(void **state) {
    Watching *w = *state;
    expect_complaint(program_run(NULL, "watch", w->docs, "--index", w->index, "--embedder",
                                 w->model, "--settle", "0", NULL),
                     1, "--settle must be more than 0");
    expect_complaint(program_run(NULL, "watch", "/nowhere", "--index", "x.index", "--embedder",
                                 "/nowhere", NULL),
                     1, "/nowhere");
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_the_index_follows_its_folder),
        T(test_an_interrupt_ends_it_with_a_whole_index),
        T(test_wrong_words_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
