/* Models in Hugging Face's cache: listing, verifying, removing, and using them
 * by their id; without a network. */
#include "cli/program.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
/* Of "{}" and of "words", as git hash-object gives them; "x" as sha256sum does. */
#define BLOB_EMPTY "9e26dfeeb6e641a33dae4961196235bdb965b21b"
#define BLOB_X "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

static void link_file(const char *repo, const char *name, const char *blob) {
    char *path = base_format("%s/snapshots/" COMMIT "/%s", repo, name);
    char *target = base_format("../../blobs/%s", blob);
    assert_int_equal(symlink(target, path), 0);
    free(target);
    free(path);
}

/* A cache with org/tiny-mlx (two files, one blob twice) and org/other. */
static int cache_make(void **state) {
    if (folder_make(state) != 0) return -1;
    static const char *const folders[] = {"hub/models--org--tiny-mlx/snapshots/" COMMIT,
                                          "hub/models--org--tiny-mlx/blobs",
                                          "hub/models--org--tiny-mlx/refs",
                                          "hub/.locks/models--org--tiny-mlx",
                                          "hub/datasets--org--other/snapshots/" COMMIT,
                                          "hub/version.txt"};
    for (size_t i = 0; i < BASE_COUNT(folders); i++) {
        char *path = base_path_join(*state, folders[i]);
        if (!base_make_dirs(path, NULL)) return -1;
        free(path);
    }
    char *repo = base_path_join(*state, "hub/models--org--tiny-mlx");
    folder_text(repo, "refs/main", COMMIT);
    folder_text(repo, "blobs/" BLOB_EMPTY, "{}");
    folder_text(repo, "blobs/" BLOB_X, "x");
    link_file(repo, "config.json", BLOB_EMPTY);
    link_file(repo, "generation_config.json", BLOB_EMPTY);
    link_file(repo, "model.safetensors", BLOB_X);
    free(repo);
    setenv("HF_HOME", *state, 1);
    setenv("HF_HUB_OFFLINE", "1", 1);
    unsetenv("HF_HUB_CACHE");
    return 0;
}

static void test_list_shows_each_repository_once(void **state) {
    char *broken = base_path_join(*state, "hub/models--org--broken");
    assert_true(base_make_dirs(broken, NULL));
    free(broken);
    Outcome outcome = program_run(NULL, "model", "list", "--json", NULL);
    assert_non_null(strstr(outcome.err, "models--org--broken: no snapshots in it"));
    json_t *list = expect_json(outcome);
    assert_int_equal(json_array_size(list), 2);
    const json_t *other = json_array_get(list, 0), *tiny = json_array_get(list, 1);
    assert_string_equal(json_string_value(json_object_get(other, "type")), "dataset");
    assert_string_equal(json_string_value(json_object_get(tiny, "id")), "org/tiny-mlx");
    assert_int_equal(json_integer_value(json_object_get(tiny, "bytes")), 3);
    assert_int_equal(json_integer_value(json_object_get(tiny, "files")), 2);
    json_decref(list);
}

/* Lines as mlx_lm.manage 0.31.3 prints them. */
static void test_manage_scans_as_mlx_lm_does(void **state) {
    Outcome outcome = program_run(NULL, "manage", "--scan", NULL);
    assert_int_equal(outcome.status, 0);
    char *path = base_path_join(*state, "hub/models--org--tiny-mlx");
    char *row = base_format("org/tiny-mlx model              3.0        2 a few seconds ago a few "
                            "seconds ago %s \n",
                            path);
    assert_true(base_starts_with(outcome.out,
                                 "Scanning Hugging Face cache for models with pattern \"mlx\".\n"
                                 "REPO ID      REPO TYPE SIZE ON DISK NB FILES LAST_ACCESSED     "
                                 "LAST_MODIFIED     LOCAL PATH "));
    if (!base_ends_with(outcome.out, row)) fail_msg("%s\nwanted\n%s", outcome.out, row);
    free(row);
    free(path);
    outcome_free(&outcome);
}

static void test_delete_asks_until_it_is_answered(void **state) {
    char *path = base_path_join(*state, "hub/models--org--tiny-mlx");
    Outcome outcome = program_run("perhaps\nno\n", "manage", "--delete", NULL);
    assert_non_null(strstr(outcome.out, "Invalid input."));
    assert_non_null(strstr(outcome.out, "Deletion cancelled - no changes made."));
    assert_true(base_is_dir(path));
    outcome_free(&outcome);
    outcome = program_run("", "manage", "--delete", NULL);
    assert_true(base_is_dir(path));
    outcome_free(&outcome);
    outcome = program_run("Y\n", "manage", "--delete", NULL);
    assert_non_null(strstr(outcome.out, "Model(s) deleted successfully."));
    assert_false(base_is_dir(path));
    outcome_free(&outcome);
    expect_output(program_run("", "manage", "--delete", NULL),
                  "Deleting models matching pattern \"mlx\"\n"
                  "No models found matching pattern \"mlx\"\n");
    free(path);
}

static void test_remove_does_not_follow_links(void **state) {
    char *outside = base_path_join(*state, "outside"), *name = base_path_join(outside, "kept");
    char *link = base_path_join(*state, "hub/models--org--tiny-mlx/snapshots/elsewhere");
    assert_true(base_make_dirs(outside, NULL));
    folder_text(outside, "kept", "x");
    assert_int_equal(symlink(outside, link), 0);
    expect_complaint(program_run(NULL, "model", "remove", "org/absent", "--yes", NULL), 1,
                     "org/absent: not in the cache");
    expect_output(program_run(NULL, "model", "remove", "org/tiny-mlx", "-y", NULL),
                  "org/tiny-mlx: removed, 3 B freed\n");
    char *locks = base_path_join(*state, "hub/.locks/models--org--tiny-mlx");
    assert_false(base_is_dir(locks));
    assert_true(base_is_file(name));
    free(locks);
    free(link);
    free(name);
    free(outside);
}

static void test_verify_names_what_is_wrong(void **state) {
    char *repo = base_path_join(*state, "hub/models--org--tiny-mlx");
    char *snapshot = base_path_join(repo, "snapshots/" COMMIT);
    folder_text(repo, "blobs/" BLOB_X, "y");
    link_file(repo, "gone.json", "0123");
    folder_text(*state, "secret", "x");
    char *link = base_path_join(snapshot, "leak.json"), *secret = base_path_join(*state, "secret");
    assert_int_equal(symlink(secret, link), 0);
    Outcome outcome = program_run(NULL, "model", "verify", "org/tiny-mlx", NULL);
    assert_int_equal(outcome.status, 1);
    assert_non_null(strstr(outcome.out, "model.safetensors: its hash is wrong"));
    assert_non_null(strstr(outcome.out, "gone.json: its blob is missing"));
    assert_non_null(strstr(outcome.out, "leak.json: leads out of the cache"));
    outcome_free(&outcome);
    free(secret);
    free(link);
    free(snapshot);
    free(repo);
}

static void test_verify_compares_with_the_list_of_the_commit(void **state) {
    char *repo = base_path_join(*state, "hub/models--org--tiny-mlx");
    char *trees = base_path_join(repo, "trees");
    assert_true(base_make_dirs(trees, NULL));
    folder_text(trees, COMMIT ".json",
                "{\"format_version\": 1, \"files\": {"
                "\"config.json\": {\"size\": 2, \"blob_id\": \"" BLOB_EMPTY "\"},"
                "\"generation_config.json\": {\"size\": 5, \"blob_id\": \"" BLOB_EMPTY "\"},"
                "\"tokenizer.json\": {\"size\": 2, \"blob_id\": \"" BLOB_EMPTY "\"},"
                "\"model.safetensors\": {\"size\": 9, \"blob_id\": \"" BLOB_EMPTY
                "\", \"lfs_size\": 1, \"lfs_sha256\": \"" BLOB_X "\"}}}");
    Outcome outcome = program_run(NULL, "model", "verify", "org/tiny-mlx", "--json", NULL);
    assert_int_equal(outcome.status, 1);
    json_t *result = json_loads(outcome.out, 0, NULL);
    json_t *problems = json_object_get(result, "problems");
    assert_int_equal(json_array_size(problems), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(problems, 0), "problem")),
                        "is missing");
    assert_string_equal(json_string_value(json_object_get(json_array_get(problems, 1), "problem")),
                        "has 2 bytes, the hub's list says 5");
    assert_int_equal(json_integer_value(json_object_get(result, "hashed")), 2);
    json_decref(result);
    outcome_free(&outcome);
    free(trees);
    free(repo);
}

static void test_cached_model_is_used_by_its_id(void **state) {
    char *repo = base_path_join(*state, "hub/models--org--tiny-mlx");
    char *snapshot = base_path_join(repo, "snapshots/" COMMIT);
    char *path = base_path_join(snapshot, "config.json");
    unlink(path);
    folder_text(snapshot, "config.json", CONFIG_LLAMA);
    free(path);
    path = base_path_join(snapshot, "model.safetensors");
    unlink(path);
    folder_safetensors(snapshot, "model.safetensors", HEADER_ONE, 16);
    json_t *info = expect_json(program_run(NULL, "model", "info", "org/tiny-mlx", "--json", NULL));
    assert_int_equal(json_integer_value(json_object_get(json_array_get(info, 0), "parameters")), 4);
    json_decref(info);
    expect_complaint(program_run(NULL, "model", "info", "org/absent", NULL), 1,
                     "org/absent: no such folder, and no model of the hub: not (or not whole) in");
    expect_complaint(program_run(NULL, "model", "info", "./org/absent", NULL), 1,
                     "./org/absent: no such folder");
    free(path);
    free(snapshot);
    free(repo);
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, cache_make, folder_drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_CACHE(test_list_shows_each_repository_once),
        WITH_CACHE(test_manage_scans_as_mlx_lm_does),
        WITH_CACHE(test_delete_asks_until_it_is_answered),
        WITH_CACHE(test_remove_does_not_follow_links),
        WITH_CACHE(test_verify_names_what_is_wrong),
        WITH_CACHE(test_verify_compares_with_the_list_of_the_commit),
        WITH_CACHE(test_cached_model_is_used_by_its_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
