/* perplexity and benchmark on a tiny model; the numbers are those of mlx_lm 0.31.3's commands
 * on the same folders. */
#include "cli/tiny_model.h"

static int measure_make(void **state) {
    if (tiny_make(state) != 0) return -1;
    static const struct {
        const char *folder, *file, *text;
    } data[] = {
        {"text", "train.jsonl",
         "{\"text\": \"The rope held, and the climbers rested.\"}\n"
         "{\"text\": \"he said the theory of the thing was here\"}\n\n"
         "{\"text\": \"Grüße aus Köln: 12 Äpfel, 3 Birnen.\", \"note\": null}\n{\"text\": "
         "\"x\"}\n"},
        {"chat", "train.jsonl",
         "{\"messages\": [{\"role\": \"user\", \"content\": \"hello there\"}, {\"role\": "
         "\"assistant\", \"content\": \"he waved\"}]}\n"
         "{\"messages\": [{\"role\": \"system\", \"content\": \"brief\"}, {\"role\": \"user\", "
         "\"content\": \"where?\"}, {\"role\": \"assistant\", \"content\": \"here\"}]}\n"
         "{\"messages\": [{\"role\": \"user\", \"content\": \"the end\"}, {\"role\": "
         "\"assistant\", \"content\": \"then\"}]}\n"},
        {"completions", "train.jsonl",
         "{\"prompt\": \"one and one\", \"completion\": \"two\"}\n"
         "{\"prompt\": \"the other\", \"completion\": \"three he said\"}\n"
         "{\"prompt\": \"and more\", \"completion\": \"four\"}\n"},
        {"bad", "train.jsonl", "{\"text\": \"x\"}\n\n{\"text\": 5}\n"},
        {"list", "train.jsonl", "[1]\n"},
        {"cut", "train.jsonl", "{\"text\": \"x\"\n"},
        {"other", "train.jsonl", "{\"sentence\": \"x\"}\n"},
        {"empty", "train.jsonl", "\n \n"},
        {"nothing", "test.jsonl", "{\"text\": \"x\"}\n"},
    };
    for (size_t i = 0; i < BASE_COUNT(data); i++) {
        char *folder = base_path_join(*state, data[i].folder);
        if (mkdir(folder, 0777) != 0) return -1;
        folder_text(folder, data[i].file, data[i].text);
        free(folder);
    }
    return 0;
}

/* ---- perplexity ------------------------------------------------------------------------ */

static Outcome perplexity(void **state, const char *data, const char *seed, const char *option,
                          const char *value) {
    char *model = tiny_path(state), *path = base_path_join(*state, data);
    Outcome outcome = program_run(NULL, "perplexity", "--model", model, "--data-path", path,
                                  "--sequence-length", "16", "--num-samples", "4", "--batch-size",
                                  "3", "--seed", seed, option, value, NULL);
    free(path);
    free(model);
    return outcome;
}

static void test_perplexity_equals_mlx_lms(void **state) {
    static const struct {
        const char *data, *seed, *line;
    } cases[] = {
        {"text", "1", "\nPerplexity: 478.257 ± 68.010\n"},
        {"text", "123", "\nPerplexity: 512.836 ± 71.173\n"},
        {"chat", "7", "\nPerplexity: 573.425 ± 90.134\n"},
        {"completions", "1", "\nPerplexity: 515.509 ± 74.908\n"},
        {"completions", "123", "\nPerplexity: 499.306 ± 70.455\n"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Outcome outcome = perplexity(state, cases[i].data, cases[i].seed, NULL, NULL);
        if (outcome.status != 0 || !strstr(outcome.out, cases[i].line))
            fail_msg("%s, seed %s: %s%s", cases[i].data, cases[i].seed, outcome.out, outcome.err);
        assert_non_null(strstr(outcome.out, "\n  Total samples: 4\n  Total tokens: 64\n"));
        outcome_free(&outcome);
    }
}

static void test_perplexity_as_json_of_all_there_is(void **state) {
    char *model = tiny_path(state), *path = base_path_join(*state, "text/train.jsonl");
    json_t *lines =
        expect_json(program_run(NULL, "perplexity", "--model", model, "--data-path", path,
                                "--sequence-length", "20", "--num-samples", "-1", "--json", NULL));
    json_t *result = json_array_get(lines, 0);
    /* 40 + 36 + 40 + 2 tokens make 5 sequences of 20 */
    assert_int_equal(json_integer_value(json_object_get(result, "samples")), 5);
    assert_int_equal(json_integer_value(json_object_get(result, "tokens")), 100);
    assert_true(json_real_value(json_object_get(result, "perplexity")) > 1);
    json_decref(lines);
    free(path);
    free(model);
}

static void test_bad_data_names_file_and_line(void **state) {
    static const struct {
        const char *data, *words;
    } cases[] = {
        {"bad", "bad/train.jsonl: line 3: needs a text"},
        {"list", "list/train.jsonl: line 1: is not a JSON object"},
        {"cut", "cut/train.jsonl: line 1, column"},
        {"other", "other/train.jsonl: line 1: has no messages"},
        {"empty", "empty/train.jsonl: holds no records"},
        {"nothing", "nothing: there is no train.jsonl"},
        {"absent", "absent: No such file or directory. A data set is a jsonl file"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++)
        expect_complaint(perplexity(state, cases[i].data, "1", "--json", NULL), 1, cases[i].words);
    expect_complaint(perplexity(state, "text", "1", "--sequence-length", "4000"), 1,
                     "one sequence needs 4000");
    expect_complaint(perplexity(state, "text", "1", "--sequence-length", "1"), 1,
                     "--sequence-length must be between 2");
    expect_complaint(perplexity(state, "text", "1", "--num-samples", "0"), 1,
                     "num-samples must be -1 or at least 1");
    expect_complaint(perplexity(state, "text", "1", "--batch-size", "0"), 1, "--batch-size");
}

/* ---- benchmark -------------------------------------------------------------------------- */

static Outcome benchmark(void **state, const char *option, const char *value) {
    char *model = tiny_path(state);
    Outcome outcome = program_run(NULL, "benchmark", "--model", model, "-p", "9", "-g", "5", "-n",
                                  "2", option, value, NULL);
    free(model);
    return outcome;
}

static void test_benchmark_prints_as_mlx_lm_does(void **state) {
    Outcome outcome = benchmark(state, NULL, NULL);
    assert_int_equal(outcome.status, 0);
    int read = -1;
    sscanf(outcome.out,
           "Running warmup.. Timing with prompt_tokens=9, generation_tokens=5, batch_size=1. "
           "Trial 1:  prompt_tps=%*f, generation_tps=%*f, peak_memory=%*f, total_time=%*f "
           "Trial 2:  prompt_tps=%*f, generation_tps=%*f, peak_memory=%*f, total_time=%*f "
           "Averages: prompt_tps=%*f, generation_tps=%*f, peak_memory=%*f %n",
           &read);
    assert_int_equal(read, strlen(outcome.out));
    outcome_free(&outcome);
}

static void test_benchmark_of_a_batch_as_json(void **state) {
    json_t *lines = expect_json(benchmark(state, "--json", "-b3"));
    json_t *result = json_array_get(lines, 0), *trials = json_object_get(result, "trials");
    assert_int_equal(json_integer_value(json_object_get(result, "batch_size")), 3);
    assert_int_equal(json_array_size(trials), 2);
    double sum = 0;
    for (size_t i = 0; i < 2; i++) {
        double rate = json_real_value(json_object_get(json_array_get(trials, i), "generation_tps"));
        assert_true(rate > 0);
        sum += rate;
    }
    double mean =
        json_real_value(json_object_get(json_object_get(result, "averages"), "generation_tps"));
    assert_true(mean > 0.999 * sum / 2 && mean < 1.001 * sum / 2);
    json_decref(lines);
}

static void test_bad_benchmark_options_are_explained(void **state) {
    expect_complaint(benchmark(state, "--num-trials", "0"), 1, "--num-trials must be between 1");
    expect_complaint(benchmark(state, "--generation-tokens", "0"), 1, "--generation-tokens");
    expect_complaint(benchmark(state, "-qa", NULL), 1, "this model is not quantised");
    expect_complaint(program_run(NULL, "benchmark", NULL), 2, "--model");
}

/* ---- quantised activations -------------------------------------------------------------- */

static void test_activations_are_quantised_where_the_mode_allows_it(void **state) {
#ifdef OFFICIAL_ENGINE
    skip(); /* no such product on a CPU */
#endif
    char *model = tiny_path(state), *fp8 = base_path_join(*state, "fp8");
    char *affine = base_path_join(*state, "affine");
    Outcome made = program_run(NULL, "convert", "--hf-path", model, "--mlx-path", fp8, "-q",
                               "--q-mode", "mxfp8", NULL);
    assert_int_equal(made.status, 0);
    outcome_free(&made);
    made = program_run(NULL, "convert", "--hf-path", model, "--mlx-path", affine, "-q",
                       "--q-group-size", "32", NULL);
    assert_int_equal(made.status, 0);
    outcome_free(&made);
    json_t *plain =
        expect_json(program_run(NULL, "generate", "--model", fp8, "-m", "12", "--json", NULL));
    json_t *rounded = expect_json(
        program_run(NULL, "generate", "--model", fp8, "-m", "12", "--json", "-qa", NULL));
    assert_false(json_equal(json_object_get(json_array_get(plain, 0), "tokens"),
                            json_object_get(json_array_get(rounded, 0), "tokens")));
    expect_complaint(program_run(NULL, "generate", "--model", affine, "-qa", NULL), 1,
                     "q_proj is of another mode: activations are quantised for layers of mode");
    json_decref(plain);
    json_decref(rounded);
    free(affine);
    free(fp8);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perplexity_equals_mlx_lms),
        cmocka_unit_test(test_perplexity_as_json_of_all_there_is),
        cmocka_unit_test(test_bad_data_names_file_and_line),
        cmocka_unit_test(test_benchmark_prints_as_mlx_lm_does),
        cmocka_unit_test(test_benchmark_of_a_batch_as_json),
        cmocka_unit_test(test_bad_benchmark_options_are_explained),
        cmocka_unit_test(test_activations_are_quantised_where_the_mode_allows_it),
    };
    return cmocka_run_group_tests_name("cli measure", tests, measure_make, folder_drop);
}
