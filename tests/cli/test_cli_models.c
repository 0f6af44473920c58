/* Commands on models: the golden folders, and a tiny model that is converted
 * from a GGUF file by the program itself. */
#include "cli/tiny_model.h"

#include <math.h>
#include <signal.h>

static const char *golden(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/hf/%s", GOLDEN, name);
    return path;
}

/* ---- model convert and info ---------------------------------------------------------- */

static void test_converted_folder_has_what_mlx_lm_reads(void **state) {
    static const char *const files[] = {"config.json",           "generation_config.json",
                                        "model.safetensors",     "tokenizer.json",
                                        "tokenizer_config.json", "model.safetensors.index.json",
                                        "chat_template.jinja",   "special_tokens_map.json"};
    char *folder = tiny_path(state);
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *path = base_path_join(folder, files[i]);
        if (!base_is_file(path)) fail_msg("%s is missing", files[i]);
        free(path);
    }
    json_t *info = expect_json(program_run(NULL, "model", "info", folder, "--json", NULL));
    json_t *first = json_array_get(info, 0);
    assert_string_equal(json_string_value(json_object_get(first, "model_type")), "llama");
    assert_string_equal(json_string_value(json_object_get(first, "tokenizer")), "BPE");
    assert_string_equal(json_string_value(json_object_get(first, "dtype")), "float32");
    assert_int_equal(json_integer_value(json_object_get(first, "vocab_size")), TINY_VOCAB);
    json_decref(info);
    free(folder);
}

static void test_convert_refuses_to_overwrite_and_leaves_nothing_behind(void **state) {
    char *folder = tiny_path(state), *gguf = base_path_join(*state, "tiny.gguf");
    char *other = base_path_join(*state, "other");
    expect_complaint(
        program_run(NULL, "model", "convert", "--gguf", gguf, "--output", folder, NULL), 1,
        "exists already");
    expect_complaint(
        program_run(NULL, "model", "convert", "--gguf", "/nowhere.gguf", "--output", other, NULL),
        1, "/nowhere.gguf: no such file");
    char *config = base_path_join(folder, "config.json");
    expect_complaint(
        program_run(NULL, "model", "convert", "--gguf", config, "--output", other, NULL), 1,
        "not a GGUF file");
    char **names = NULL;
    size_t count = 0;
    assert_true(base_list_dir(*state, &names, &count, NULL));
    assert_int_equal(count, 2); /* tiny and tiny.gguf */
    for (size_t i = 0; i < count; i++) free(names[i]);
    free(names);
    free(config);
    free(other);
    free(gguf);
    free(folder);
}

static void test_convert_into_a_read_only_folder_says_so(void **state) {
    if (geteuid() == 0) skip(); /* root may write anywhere */
    char *locked = base_path_join(*state, "locked"), *output = base_path_join(locked, "out");
    char *gguf = base_path_join(*state, "tiny.gguf");
    assert_int_equal(mkdir(locked, 0555), 0);
    expect_complaint(
        program_run(NULL, "model", "convert", "--gguf", gguf, "--output", output, NULL), 1,
        "cannot create this folder");
    free(gguf);
    free(output);
    free(locked);
}

/* Killed at any moment, the final name holds a whole model or nothing, and the
 * next run works. */
static void test_a_killed_convert_leaves_nothing_under_the_name(void **state) {
    char *gguf = base_path_join(*state, "tiny.gguf"), *output = base_path_join(*state, "killed");
    for (useconds_t delay = 500; delay < 40000; delay *= 2) {
        pid_t child = fork();
        if (child == 0) {
            int nowhere = open("/dev/null", O_WRONLY);
            dup2(nowhere, 1);
            execl(PROGRAM, PROGRAM, "model", "convert", "--gguf", gguf, "--output", output, NULL);
            _exit(127);
        }
        usleep(delay);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        if (base_is_dir(output)) {
            HubInfo info;
            Error err = {0};
            assert_true(hub_model_info(output, &info, &err));
            folder_remove(output);
        }
    }
    Outcome last = program_run(NULL, "model", "convert", "--gguf", gguf, "--output", output, NULL);
    assert_int_equal(last.status, 0);
    outcome_free(&last);
    folder_remove(output);
    free(gguf);
    free(output);
}

/* ---- tokenize and template --------------------------------------------------------------- */

static void test_text_becomes_ids_and_text_again(void **state) {
    char *folder = tiny_path(state);
    expect_output(program_run(NULL, "tokenize", "--model", folder, "Hi he", NULL),
                  "72 105 32 126\n");
    expect_output(program_run("ab\ncd\n", "tokenize", "--model", folder, NULL), "97 98\n99 100\n");
    char *file = base_path_join(folder, "lines.txt");
    folder_write(folder, "lines.txt", "a\0b\r\ncd", 7);
    expect_output(program_run(NULL, "tokenize", "--model", folder, "--file", file, NULL),
                  "97 0 98\n99 100\n");
    free(file);
    expect_output(program_run("ab\n", "tokenize", "--model", folder, "--whole", NULL),
                  "97 98 10\n");
    expect_output(program_run(NULL, "tokenize", "--model", folder, "--count", "abc", NULL), "3\n");
    expect_output(program_run(NULL, "tokenize", "--model", folder, "<|im_end|>", NULL), "258\n");
    expect_output(
        program_run(NULL, "tokenize", "--model", folder, "--plain", "--count", "<|im_end|>", NULL),
        "10\n");
    expect_output(program_run(NULL, "tokenize", "--model", folder, "--decode", "72", "105", NULL),
                  "Hi\n");
    expect_output(program_run(NULL, "tokenize", "--model", folder, "--decode", "72 258", NULL),
                  "H<|im_end|>\n");
    expect_output(program_run(NULL, "tokenize", "--model", folder, "--decode", "--skip-special",
                              "72 258", NULL),
                  "H\n");
    expect_complaint(program_run(NULL, "tokenize", "--model", folder, "--decode", "x", NULL), 1,
                     "\"x\" is not a token id");
    json_t *lines =
        expect_json(program_run("é\n\xff\n", "tokenize", "--model", folder, "--json", NULL));
    assert_int_equal(json_array_size(lines), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(lines, 0), "count")), 2);
    json_decref(lines);
    free(folder);
}

static void test_template_renders_messages(void **state) {
    char *folder = tiny_path(state);
    const char *messages = "[{\"role\": \"user\", \"content\": \"hi\"}]";
    expect_output(program_run(messages, "template", "--model", folder, NULL),
                  "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    expect_output(
        program_run(messages, "template", "--model", folder, "--no-generation-prompt", "-", NULL),
        "<|im_start|>user\nhi<|im_end|>\n");
    expect_output(program_run("{\"messages\": [{\"role\": \"user\", \"content\": \"he\"}]}",
                              "template", "--model", folder, "--tokenize",
                              "--continue-final-message", NULL),
                  "257 117 115 101 114 10 126\n");
    json_t *lines =
        expect_json(program_run(messages, "template", "--model", folder, "--json", NULL));
    assert_non_null(json_string_value(json_object_get(json_array_get(lines, 0), "text")));
    json_decref(lines);
    expect_complaint(program_run("{", "template", "--model", folder, NULL), 1, "standard input");
    expect_complaint(program_run("5", "template", "--model", folder, NULL), 1,
                     "must be a JSON list");
    expect_complaint(program_run(messages, "template", "--model", golden("llama"), NULL), 1,
                     "has no chat template");
    free(folder);
}

/* ---- generate and chat ----------------------------------------------------------------------- */

static char *generated(const char *folder, const char *seed, const char *prompt) {
    Outcome outcome = program_run(NULL, "generate", "--model", folder, "--prompt", prompt, "-m",
                                  "12", "--temp", "1", "--seed", seed, "--verbose", "False", NULL);
    assert_int_equal(outcome.status, 0);
    free(outcome.err);
    return outcome.out;
}

static void test_a_seed_decides_the_answer(void **state) {
    char *folder = tiny_path(state);
    char *one = generated(folder, "7", "hello"), *again = generated(folder, "7", "hello");
    char *other = generated(folder, "8", "hello");
    assert_string_equal(one, again);
    assert_string_not_equal(one, other);
    free(one);
    free(again);
    free(other);
    free(folder);
}

static void test_generate_prints_as_mlx_lm_does(void **state) {
    char *folder = tiny_path(state);
    Outcome outcome = program_run("he", "generate", "--model", folder, "-p", "-", "-m", "5", NULL);
    assert_int_equal(outcome.status, 0);
    assert_true(base_starts_with(outcome.out, "==========\n"));
    char *end = strstr(outcome.out + 11, "\n==========\n");
    assert_non_null(end);
    size_t prompt = 0, answer = 0;
    double rate = 0;
    if (!strstr(end, "No text generated")) {
        assert_int_equal(sscanf(end + 12, "Prompt: %zu tokens, %lf", &prompt, &rate), 2);
        assert_non_null(strstr(end, " tokens-per-sec\nGeneration: "));
        assert_int_equal(sscanf(strstr(end, "Generation:"), "Generation: %zu tokens", &answer), 1);
        assert_non_null(strstr(end, "\nPeak memory: "));
        assert_true(base_ends_with(outcome.out, " GB\n"));
        /* <|im_start|>user\nhe<|im_end|>\n<|im_start|>assistant\n, "he" being one token */
        assert_int_equal(prompt, 20);
        assert_true(answer >= 1 && answer <= 5);
    }
    outcome_free(&outcome);
    free(folder);
}

static json_t *generate_json(const char *folder, const char *option, const char *value) {
    json_t *lines = expect_json(program_run(NULL, "generate", "--model", folder, "-p", "a\\nb",
                                            "-m", "6", "--json", option, value, NULL));
    assert_int_equal(json_array_size(lines), 1);
    json_t *first = json_incref(json_array_get(lines, 0));
    json_decref(lines);
    return first;
}

static void test_generate_as_json(void **state) {
    char *folder = tiny_path(state);
    json_t *plain = generate_json(folder, "--ignore-chat-template", NULL);
    assert_int_equal(json_integer_value(json_object_get(plain, "prompt_tokens")), 3);
    json_t *tokens = json_object_get(plain, "tokens");
    size_t count = json_array_size(tokens);
    assert_int_equal(json_integer_value(json_object_get(plain, "generation_tokens")), count);
    assert_string_equal(json_string_value(json_object_get(plain, "finish_reason")),
                        count < 6 ? "stop" : "length");

    /* The first token of a greedy answer, named as a stop, ends it at once. */
    json_t *templated = generate_json(folder, "--seed", "1");
    char first[16];
    json_t *id = json_array_get(json_object_get(templated, "tokens"), 0);
    snprintf(first, sizeof first, "%d", (int)json_integer_value(id));
    json_t *stopped = generate_json(folder, "--extra-eos-token", first);
    assert_int_equal(json_integer_value(json_object_get(stopped, "generation_tokens")), 1);
    assert_string_equal(json_string_value(json_object_get(stopped, "finish_reason")), "stop");
    assert_string_equal(json_string_value(json_object_get(stopped, "text")), "");

    /* And a bias can forbid it. */
    char bias[32];
    snprintf(bias, sizeof bias, "{\"%s\": -1000}", first);
    json_t *biased = generate_json(folder, "--logit-bias", bias);
    json_t *other = json_array_get(json_object_get(biased, "tokens"), 0);
    assert_int_not_equal(json_integer_value(other), json_integer_value(id));
    json_decref(plain);
    json_decref(templated);
    json_decref(stopped);
    json_decref(biased);
    free(folder);
}

static void test_system_prompt_and_prefill_reach_the_template(void **state) {
    char *folder = tiny_path(state);
    json_t *lines =
        expect_json(program_run(NULL, "generate", "--model", folder, "-p", "b", "-m", "1", "--json",
                                "--system-prompt", "s", "--prefill-response", "xy", NULL));
    /* system\ns, user\nb, assistant\nxy with their marks; the last stays open */
    json_t *count = json_object_get(json_array_get(lines, 0), "prompt_tokens");
    assert_int_equal(json_integer_value(count), (1 + 7 + 1 + 2) + (1 + 5 + 1 + 2) + (1 + 10 + 2));
    json_decref(lines);
    free(folder);
}

static void test_bad_generate_options_are_explained(void **state) {
    char *folder = tiny_path(state);
    expect_complaint(
        program_run(NULL, "generate", "--model", folder, "--extra-eos-token", "nope", NULL), 1,
        "the model has no token \"nope\"");
    expect_complaint(
        program_run(NULL, "generate", "--model", folder, "--chat-template-config", "{", NULL), 1,
        "--chat-template-config");
    expect_complaint(program_run(NULL, "generate", "--model", folder, "-qa", NULL), 1,
                     "this model is not quantised");
    expect_complaint(program_run(NULL, "generate", "--model", golden("llama"), NULL), 1,
                     "has no tokenizer");
    expect_complaint(
        program_run(NULL, "generate", "--model", folder, "--ignore-chat-template", "-p", "", NULL),
        1, "prompt");
    free(folder);
}

static void test_chat_reads_lines_until_q(void **state) {
    char *folder = tiny_path(state);
    json_t *lines = expect_json(program_run("he\nr\n\nhe\nq\nnever\n", "chat", "--model", folder,
                                            "-m", "4", "--json", NULL));
    /* After a reset the same words get the same answer. */
    assert_int_equal(json_array_size(lines), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(lines, 0), "text")),
                        json_string_value(json_object_get(json_array_get(lines, 1), "text")));
    json_decref(lines);
    Outcome plain = program_run("h\nhe\n", "chat", "--model", folder, "-m", "4", NULL);
    assert_int_equal(plain.status, 0);
    assert_non_null(strstr(plain.out, "commands    q exit   r reset   h help"));
    assert_non_null(strstr(plain.out, " tok/s · peak "));
    assert_true(base_ends_with(plain.out, "bye\n"));
    outcome_free(&plain);
    free(folder);
}

/* ---- inspect, embed, rerank ---------------------------------------------------------------- */

static mlx_array load_tensor(const char *file, const char *name) {
    mlx_map_string_to_array arrays = mlx_map_string_to_array_new();
    mlx_map_string_to_string texts = mlx_map_string_to_string_new();
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_load_safetensors(&arrays, &texts, file, mx_stream()), 0);
    if (mlx_map_string_to_array_get(&array, arrays, name) != 0) fail_msg("%s lacks %s", file, name);
    mlx_map_string_to_array_free(arrays);
    mlx_map_string_to_string_free(texts);
    return array;
}

static char *golden_ids(const char *name, int row, int count) {
    char path[600];
    snprintf(path, sizeof path, "%s/golden.safetensors", golden(name));
    mx_scope scope = mx_open();
    mlx_array ids = mx_own(load_tensor(path, "input_ids"));
    int width = mx_dim(ids, 1), values[64 * 4];
    assert_true(mx_copy_i32(ids, values, mx_size(ids)));
    StrBuf text = {0};
    for (int i = 0; i < count; i++) base_str_appendf(&text, "%d ", values[row * width + i]);
    mx_drop(scope);
    return base_str_detach(&text);
}

/* Row 0 of the golden tensor against all of what was written. */
static void expect_close(const char *written, const char *name, const char *reference,
                         const char *reference_name) {
    mx_scope scope = mx_open();
    mlx_array got = mx_own(load_tensor(written, name));
    mlx_array wanted = mx_slice(mx_own(load_tensor(reference, reference_name)), 0, 0, 1);
    assert_int_equal(mlx_array_dtype(got), MLX_FLOAT32);
    size_t size = mx_size(got);
    assert_int_equal(size, mx_size(wanted));
    float *a = calloc(size, sizeof *a), *b = calloc(size, sizeof *b);
    assert_true(mx_copy_f32(got, a, size) && mx_copy_f32(wanted, b, size));
    double largest = 0, sum = 0, squares = 0;
    for (size_t i = 0; i < size; i++) {
        largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
        sum += (double)b[i];
        squares += (double)b[i] * (double)b[i];
    }
    double deviation = sqrt(squares / (double)size - sum / (double)size * sum / (double)size);
    if (!(largest <= 1e-4 * deviation)) fail_msg("%s is off by %g", name, largest / deviation);
    free(a);
    free(b);
    mx_drop(scope);
}

static void test_inspect_writes_the_golden_logits(void **state) {
    static const char *const names[] = {"llama", "llama-bias", "llama3-rope"};
    char *output = base_path_join(*state, "out.safetensors");
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char reference[600], *ids = golden_ids(names[i], 0, 24);
        snprintf(reference, sizeof reference, "%s/golden.safetensors", golden(names[i]));
        json_t *lines = expect_json(program_run(NULL, "inspect", "logits", "--model",
                                                golden(names[i]), "--tokens", ids, "--output",
                                                output, "--dtype", "float32", "--json", NULL));
        json_t *shape =
            json_object_get(json_object_get(json_array_get(lines, 0), "tensors"), "logits");
        assert_int_equal(json_integer_value(json_array_get(shape, 0)), 1);
        assert_int_equal(json_integer_value(json_array_get(shape, 1)), 24);
        json_decref(lines);
        expect_close(output, "logits", reference, "logits");
        free(ids);
    }
    free(output);
}

static void test_inspect_gives_an_encoders_states_and_vector(void **state) {
    char *output = base_path_join(*state, "out.safetensors"), *ids = golden_ids("bert", 0, 20);
    char reference[600];
    snprintf(reference, sizeof reference, "%s/golden.safetensors", golden("bert"));
    Outcome outcome = program_run(NULL, "inspect", "logits", "--model", golden("bert"), "--tokens",
                                  ids, "--output", output, "--dtype", "float32", NULL);
    assert_string_equal(outcome.err, "");
    assert_int_equal(outcome.status, 0);
    outcome_free(&outcome);
    expect_close(output, "last_hidden_state", reference, "last_hidden_state");
    expect_close(output, "embedding", reference, "mean_pooled_normalized");
    free(ids);
    free(output);
}

static void test_inspect_refuses_what_it_cannot_do(void **state) {
    char *output = base_path_join(*state, "refused.safetensors");
    const char *model = golden("llama");
    expect_complaint(
        program_run(NULL, "inspect", "logits", "--model", model, "--output", output, NULL), 2,
        "give --tokens or --text");
    expect_complaint(program_run(NULL, "inspect", "logits", "--model", model, "--tokens", "5 x",
                                 "--output", output, NULL),
                     1, "\"x\" is not a token id");
    expect_complaint(program_run(NULL, "inspect", "logits", "--model", model, "--tokens",
                                 "99999999", "--output", output, NULL),
                     1, "99999999");
    expect_complaint(program_run(NULL, "inspect", "logits", "--model", model, "--tokens", "5",
                                 "--output", "/nowhere/at/all.safetensors", NULL),
                     1, "/nowhere/at/all.safetensors");
    assert_false(base_is_file(output));
    free(output);
}

static void test_embed_and_rerank_name_folders_they_cannot_use(void **state) {
    (void)state;
    expect_complaint(program_run(NULL, "embed", "--model", "/nowhere", "x", NULL), 1, "/nowhere");
    expect_complaint(program_run(NULL, "rerank", "--model", "/nowhere", "-q", "x", "y", NULL), 1,
                     "/nowhere");
    expect_complaint(program_run(NULL, "ask", "x", "--index", "/nowhere.db", NULL), 1,
                     "/nowhere.db");
    expect_complaint(
        program_run(NULL, "ingest", "/etc", "--index", "x", "--embedder", "/nowhere", NULL), 1,
        "/nowhere");
}

static void test_a_full_disk_for_output_is_an_error(void **state) {
    char *folder = tiny_path(state);
    char *command = base_format("%s model info %s > /dev/full 2>/dev/null", PROGRAM, folder);
    int status = system(command);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    free(command);
    free(folder);
}

static void test_a_reader_that_leaves_ends_it_quietly(void **state) {
    char *said = base_path_join(*state, "said");
    char *command = base_format("%s commands --markdown 2>%s | true", PROGRAM, said);
    assert_int_equal(system(command), 0);
    char *text = NULL;
    size_t length = 0;
    assert_true(base_file_read(said, &text, &length, NULL));
    assert_int_equal(length, 0);
    free(text);
    free(command);
    free(said);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_converted_folder_has_what_mlx_lm_reads),
        cmocka_unit_test(test_convert_refuses_to_overwrite_and_leaves_nothing_behind),
        cmocka_unit_test(test_convert_into_a_read_only_folder_says_so),
        cmocka_unit_test(test_a_killed_convert_leaves_nothing_under_the_name),
        cmocka_unit_test(test_text_becomes_ids_and_text_again),
        cmocka_unit_test(test_template_renders_messages),
        cmocka_unit_test(test_a_seed_decides_the_answer),
        cmocka_unit_test(test_generate_prints_as_mlx_lm_does),
        cmocka_unit_test(test_generate_as_json),
        cmocka_unit_test(test_system_prompt_and_prefill_reach_the_template),
        cmocka_unit_test(test_bad_generate_options_are_explained),
        cmocka_unit_test(test_chat_reads_lines_until_q),
        cmocka_unit_test(test_inspect_writes_the_golden_logits),
        cmocka_unit_test(test_inspect_gives_an_encoders_states_and_vector),
        cmocka_unit_test(test_inspect_refuses_what_it_cannot_do),
        cmocka_unit_test(test_embed_and_rerank_name_folders_they_cannot_use),
        cmocka_unit_test(test_a_full_disk_for_output_is_an_error),
        cmocka_unit_test(test_a_reader_that_leaves_ends_it_quietly),
    };
    return cmocka_run_group_tests_name("cli models", tests, tiny_make, folder_drop);
}
