/* cache-prompt, and generate from its file. The file's names and metadata are those of
 * mlx_lm.cache_prompt 0.31.3 on the same folder. */
#include "cli/tiny_model.h"

static Outcome cache_prompt(void **state, const char *file, const char *input, const char *prompt,
                            const char *option, const char *value) {
    char *model = tiny_path(state), *path = base_path_join(*state, file);
    Outcome outcome = program_run(input, "cache-prompt", "--model", model, "--prompt", prompt,
                                  "--prompt-cache-file", path, option, value, NULL);
    free(path);
    free(model);
    return outcome;
}

static void expect_cached(Outcome outcome) {
    if (outcome.status != 0) fail_msg("status %d: %s", outcome.status, outcome.err);
    outcome_free(&outcome);
}

static Outcome generate(void **state, const char *file, const char *prompt, const char *option,
                        const char *value) {
    char *path = base_path_join(*state, file);
    Outcome outcome = program_run(NULL, "generate", "--prompt-cache-file", path, "--prompt", prompt,
                                  "-m", "6", "--json", option, value, NULL);
    free(path);
    return outcome;
}

static char *slurp(void **state, const char *file, size_t *length) {
    char *path = base_path_join(*state, file), *bytes = NULL;
    assert_true(base_file_read(path, &bytes, length, NULL));
    free(path);
    return bytes;
}

/* The header of a safetensors file. */
static json_t *header(void **state, const char *file) {
    size_t length = 0;
    uint64_t size = 0;
    char *bytes = slurp(state, file, &length);
    memcpy(&size, bytes, sizeof size);
    json_t *json = json_loadb(bytes + 8, (size_t)size, 0, NULL);
    assert_non_null(json);
    free(bytes);
    return json;
}

static void expect_text(const json_t *metadata, const char *key, const char *text) {
    const char *got = json_string_value(json_object_get(metadata, key));
    if (!got || strcmp(got, text) != 0)
        fail_msg("%s is \"%s\", not \"%s\"", key, got ? got : "absent", text);
}

static void expect_rows(const json_t *json, const char *tensor, int rows) {
    json_t *wanted = json_pack("[i,i,i,i]", 1, 2, rows, 16);
    if (!json_equal(json_object_get(json_object_get(json, tensor), "shape"), wanted))
        fail_msg("%s has other rows than %d", tensor, rows);
    json_decref(wanted);
}

/* A number that is a tensor. */
static void expect_number(void **state, const char *file, const char *tensor, int32_t wanted) {
    json_t *json = header(state, file);
    const json_t *places = json_object_get(json_object_get(json, tensor), "data_offsets");
    assert_non_null(places);
    size_t length = 0;
    char *bytes = slurp(state, file, &length);
    uint64_t size;
    int32_t number;
    memcpy(&size, bytes, sizeof size);
    const size_t at = 8 + (size_t)size + (size_t)json_integer_value(json_array_get(places, 0));
    assert_true(at + sizeof number <= length);
    memcpy(&number, bytes + at, sizeof number);
    assert_int_equal(number, wanted);
    free(bytes);
    json_decref(json);
}

/* ---- the file ------------------------------------------------------------------------------ */

static void test_output_is_mlx_lms(void **state) {
    Outcome outcome = cache_prompt(state, "said", NULL, "the rope", NULL, NULL);
    assert_int_equal(outcome.status, 0);
    int read = -1;
    sscanf(outcome.out,
           "Processed 12 tokens (%*f tok/s) Processed 13 tokens (%*f tok/s) Peak memory: %*f GB "
           "Saving... %n",
           &read);
    assert_int_equal(read, strlen(outcome.out));
    outcome_free(&outcome);
}

static void test_the_file_has_mlx_lms_names(void **state) {
    char *model = tiny_path(state);
    expect_cached(cache_prompt(state, "plain", NULL, "the rope", "--eos-token", "x"));
    json_t *json = header(state, "plain.safetensors");
    json_t *metadata = json_object_get(json, "__metadata__");
    expect_text(metadata, "0.model", model);
    expect_text(metadata, "0.tokenizer_config",
                "{\"trust_remote_code\": null, \"eos_token\": \"x\"}");
    expect_text(metadata, "1.0", "KVCache");
    expect_text(metadata, "1.1", "KVCache");
    expect_text(metadata, "2.0", "");
    expect_text(metadata, "2.1.0", "0.2");
    expect_text(metadata, "2.1.1", "scalar");
    expect_text(metadata, "2.2.0", "1.2");
    assert_int_equal(json_object_size(metadata), 9);
    assert_int_equal(json_object_size(json), 7);
    expect_rows(json, "0.0", 13);
    expect_rows(json, "1.1", 13);
    json_decref(json);
    free(model);
}

static void test_the_file_has_the_names_of_mlx_lm_0_31(void **state) {
    char *model = tiny_path(state);
    expect_cached(cache_prompt(state, "older", NULL, "the rope", "--layout", "0.31"));
    json_t *json = header(state, "older.safetensors");
    json_t *metadata = json_object_get(json, "__metadata__");
    expect_text(metadata, "0.0", "");
    expect_text(metadata, "0.1", "");
    expect_text(metadata, "1.model", model);
    expect_text(metadata, "1.tokenizer_config", "{\"trust_remote_code\": null}");
    expect_text(metadata, "2.0", "KVCache");
    expect_text(metadata, "2.1", "KVCache");
    assert_int_equal(json_object_size(metadata), 6);
    assert_int_equal(json_object_size(json), 5);
    expect_rows(json, "0.0", 13);
    expect_rows(json, "1.1", 13);
    json_decref(json);
    json_t *lines = expect_json(generate(state, "older", " rested", NULL, NULL));
    json_t *now = expect_json(generate(state, "plain", " rested", NULL, NULL));
    assert_true(json_equal(json_object_get(json_array_get(lines, 0), "tokens"),
                           json_object_get(json_array_get(now, 0), "tokens")));
    json_decref(lines);
    json_decref(now);
    free(model);
}

static void test_a_rotating_cache_keeps_its_place(void **state) {
    expect_cached(cache_prompt(state, "rotating", NULL, "the rope held, and the climbers",
                               "--max-kv-size", "12"));
    json_t *json = header(state, "rotating.safetensors");
    json_t *metadata = json_object_get(json, "__metadata__");
    expect_text(metadata, "1.0", "RotatingKVCache");
    expect_text(metadata, "2.4.0", "0.5");
    expect_number(state, "rotating.safetensors", "0.3", 4);
    expect_number(state, "rotating.safetensors", "0.4", 12);
    expect_rows(json, "0.0", 12);
    json_decref(json);
    json_t *lines = expect_json(generate(state, "rotating", " rested", NULL, NULL));
    assert_int_equal(json_array_size(json_object_get(json_array_get(lines, 0), "tokens")), 6);
    json_decref(lines);
}

static void test_standard_input_is_read_to_its_end(void **state) {
    size_t one_length = 0, other_length = 0;
    expect_cached(cache_prompt(state, "typed", "the rope", "-", NULL, NULL));
    expect_cached(cache_prompt(state, "given", NULL, "the rope", NULL, NULL));
    char *one = slurp(state, "typed.safetensors", &one_length);
    char *other = slurp(state, "given.safetensors", &other_length);
    assert_int_equal(one_length, other_length);
    assert_memory_equal(one, other, one_length);
    free(one);
    free(other);
}

/* ---- going on -------------------------------------------------------------------------------- */

static void test_what_is_cached_need_not_be_read_again(void **state) {
    char *model = tiny_path(state);
    expect_cached(cache_prompt(state, "half", NULL, "the rope", NULL, NULL));
    json_t *whole = expect_json(program_run(NULL, "generate", "--model", model, "--prompt",
                                            "the rope held", "-m", "6", "--json", NULL));
    json_t *rest = expect_json(generate(state, "half", " held", NULL, NULL));
    json_t *all = json_array_get(whole, 0), *part = json_array_get(rest, 0);
    assert_true(json_equal(json_object_get(all, "tokens"), json_object_get(part, "tokens")));
    assert_int_equal(json_integer_value(json_object_get(all, "prompt_tokens")),
                     13 + json_integer_value(json_object_get(part, "prompt_tokens")));
    json_decref(whole);
    json_decref(rest);
    free(model);
}

/* ---- bad input ------------------------------------------------------------------------------- */

/* The official engine says which file, and the rest in words of its own. */
#ifdef OFFICIAL_ENGINE
static const char *const no_tensors = "text.safetensors", *const no_place = "bad.safetensors";
#else
static const char *const no_tensors = "text.safetensors: ";
static const char *const no_place = "nowhere/bad.safetensors: cannot write here";
#endif

static void test_files_that_are_no_prompt_cache_are_refused(void **state) {
    char *model = tiny_path(state);
    expect_complaint(generate(state, "absent", "x", NULL, NULL), 1,
                     "absent.safetensors: no such file");
    folder_text(*state, "text.safetensors", "no tensors");
    expect_complaint(generate(state, "text", "x", NULL, NULL), 1, no_tensors);
    folder_safetensors(*state, "other.safetensors",
                       "{\"0.0\":{\"dtype\":\"F32\",\"shape\":[1,2,1,8],\"data_offsets\":[0,64]},"
                       "\"0.1\":{\"dtype\":\"F32\",\"shape\":[1,2,1,8],\"data_offsets\":[64,128]},"
                       "\"__metadata__\":{\"2.0\":\"KVCache\",\"0.0\":\"\"}}",
                       128);
    expect_complaint(generate(state, "other", "x", NULL, NULL), 1, "names no model; give --model");
    expect_complaint(generate(state, "other", "x", "--model", model), 1,
                     "other.safetensors: layer 0 is not a prompt cache of this model");
    expect_cached(cache_prompt(state, "mine", NULL, "the rope", NULL, NULL));
    expect_complaint(generate(state, "mine", "x", "--model", GOLDEN "/hf/llama"), 1,
                     "was made with model");
    free(model);
}

static void test_bad_options_are_explained(void **state) {
    expect_complaint(cache_prompt(state, "bad", NULL, "x", "--kv-bits", "7"), 1, "kv-bits must be");
    expect_complaint(cache_prompt(state, "bad", NULL, "x", "--kv-bits", "8"), 1,
                     "kv-group-size 64 does not divide the 16 features");
    expect_complaint(cache_prompt(state, "bad", NULL, "x", "--max-kv-size", "1"), 1,
                     "max-kv-size must be at least 2");
    expect_complaint(cache_prompt(state, "nowhere/bad", NULL, "x", "--json", NULL), 1, no_place);
    expect_complaint(program_run(NULL, "cache-prompt", NULL), 2, "--prompt");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_is_mlx_lms),
        cmocka_unit_test(test_the_file_has_mlx_lms_names),
        cmocka_unit_test(test_the_file_has_the_names_of_mlx_lm_0_31),
        cmocka_unit_test(test_a_rotating_cache_keeps_its_place),
        cmocka_unit_test(test_standard_input_is_read_to_its_end),
        cmocka_unit_test(test_what_is_cached_need_not_be_read_again),
        cmocka_unit_test(test_files_that_are_no_prompt_cache_are_refused),
        cmocka_unit_test(test_bad_options_are_explained),
    };
    return cmocka_run_group_tests_name("cli prompt cache", tests, tiny_make, folder_drop);
}
