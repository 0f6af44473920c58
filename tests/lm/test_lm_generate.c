/* Generation on tiny models: greedy tokens equal transformers', and stay the
 * same whatever the prompt is cut into, whoever drafts, and however the cache
 * is continued, saved or trimmed. */
#include "models/golden.h"

#include "lm/lm.h"

#include <unistd.h>

enum { PROMPT = 12, NEW = 16 };

static LmModel *open_model(const char *name) {
    Error err = {0};
    char *path = base_format(GOLDEN "/hf/%s", name);
    LmModel *model =
        lm_model_open(path, &(LmOpenOptions){.dtype = "float32", .no_tokenizer = true}, &err);
    if (!model) fail_msg("%s", err.message);
    free(path);
    return model;
}

static void golden_ids(const char *name, int *ids) {
    mx_scope s = mx_open();
    char *path = base_format(GOLDEN "/hf/%s", name);
    Golden golden = golden_open(path);
    assert_true(mx_copy_i32(golden_get(&golden, "greedy_ids"), ids, PROMPT + NEW));
    golden_close(&golden);
    free(path);
    mx_drop(s);
}

typedef struct Heard {
    int ids[64], count, last_index, prefills;
    size_t prefilled;
    bool drafted;
    LmFinish finish;
    int stop_after;
} Heard;

static bool hear(void *context, const LmToken *token) {
    Heard *heard = context;
    heard->ids[heard->count++] = token->id;
    heard->last_index = token->index;
    heard->finish = token->finish;
    heard->drafted |= token->from_draft;
    return heard->stop_after == 0 || heard->count < heard->stop_after;
}

static void hear_prefill(void *context, size_t done, size_t total) {
    Heard *heard = context;
    heard->prefills++;
    heard->prefilled = done;
    assert_true(done <= total);
}

static LmGenerateOptions options_for(Heard *heard, int max_tokens) {
    LmGenerateOptions options = lm_generate_defaults();
    *heard = (Heard){0};
    options.max_tokens = max_tokens;
    options.ignore_stop = true;
    options.on_token = hear;
    options.on_prefill = hear_prefill;
    options.context = heard;
    return options;
}

static LmStats generate(LmModel *model, const int *ids, size_t count,
                        const LmGenerateOptions *options) {
    Error err = {0};
    LmStats stats;
    if (!lm_generate(model, ids, count, options, &stats, &err)) fail_msg("%s", err.message);
    return stats;
}

static void test_greedy_tokens_match_transformers(void **state) {
    (void)state;
    const char *const names[] = {"llama", "llama-bias", "llama3-rope"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        LmModel *model = open_model(names[i]);
        int ids[PROMPT + NEW];
        golden_ids(names[i], ids);
        Heard heard;
        LmGenerateOptions options = options_for(&heard, NEW);
        LmStats stats = generate(model, ids, PROMPT, &options);
        assert_memory_equal(heard.ids, ids + PROMPT, NEW * sizeof(int));
        assert_int_equal(stats.generated_tokens, NEW);
        assert_int_equal(stats.prompt_tokens, PROMPT);
        assert_int_equal(heard.finish, LM_FINISH_LENGTH);
        assert_int_equal(heard.last_index, NEW - 1);
        assert_int_equal(heard.prefilled, PROMPT);
        lm_model_close(model);
    }
}

/* transformers 5.24.0, generate: the text is longer than 16 tokens from the fifth new one
 * on, and is read anew by LongRoPE's long factors. */
static const int longrope_ids[NEW] = {24, 107, 29,  35, 12, 9,   9,  136,
                                      12, 67,  138, 70, 36, 103, 36, 103};

static void test_longrope_changes_factors_as_transformers(void **state) {
    (void)state;
    LmModel *model = open_model("phi3-longrope"), *other = open_model("phi3");
    LmModel *const drafts[] = {NULL, model, other};
    int ids[PROMPT + NEW];
    golden_ids("phi3-longrope", ids);
    memcpy(ids + PROMPT, longrope_ids, sizeof longrope_ids);
    for (size_t d = 0; d < BASE_COUNT(drafts); d++) {
        for (int known = 0; known < NEW; known++) { /* some of the text is in the prompt */
            Heard heard;
            LmGenerateOptions options = options_for(&heard, NEW - known);
            options.draft = drafts[d];
            options.prefill_step = 5;
            generate(model, ids, (size_t)(PROMPT + known), &options);
            assert_memory_equal(heard.ids, ids + PROMPT + known,
                                (size_t)(NEW - known) * sizeof(int));
        }
    }
    lm_model_close(other);
    lm_model_close(model);
}

/* The same cache, its text growing over the boundary and cut back behind it. */
static void test_longrope_in_a_cache_that_is_continued(void **state) {
    (void)state;
    Error err = {0};
    LmModel *model = open_model("phi3-longrope");
    int ids[PROMPT + NEW];
    golden_ids("phi3-longrope", ids);
    memcpy(ids + PROMPT, longrope_ids, sizeof longrope_ids);
    LmCache *cache = lm_cache_new(model, NULL, &err);
    for (int round = 0; round < 2; round++) {
        for (int at = PROMPT; at < PROMPT + NEW; at++) {
            Heard heard;
            LmGenerateOptions options = options_for(&heard, 1);
            options.cache = cache;
            int held = lm_cache_length(cache);
            generate(model, ids + held, (size_t)(at - held), &options);
            assert_int_equal(heard.ids[0], ids[at]);
            assert_true(lm_cache_trim(cache, 1));
        }
        assert_true(lm_cache_trim(cache, lm_cache_length(cache) - 3));
    }
    lm_cache_free(cache);
    lm_model_close(model);
}

/* mlx_lm knows the long factors only. */
static void test_longrope_in_a_prompt_cache_file_is_long(void **state) {
    (void)state;
    Error err = {0};
    LmModel *model = open_model("phi3-longrope");
    int ids[PROMPT + NEW];
    golden_ids("phi3-longrope", ids);
    Heard heard;
    LmGenerateOptions options = options_for(&heard, NEW);
    const LmCacheOptions for_file = {.for_file = true};
    options.cache = lm_cache_new(model, &for_file, &err);
    generate(model, ids, PROMPT, &options);
    /* mlx_lm 0.31.3, generate_step */
    static const int expected[NEW] = {125, 148, 139, 85, 148, 148, 148, 148,
                                      148, 148, 51,  10, 12,  73,  67,  22};
    assert_memory_equal(heard.ids, expected, sizeof expected);
    lm_cache_free(options.cache);
    lm_model_close(model);
}

static void test_prompt_chunks_do_not_matter(void **state) {
    (void)state;
    LmModel *model = open_model("llama");
    int ids[PROMPT + NEW];
    golden_ids("llama", ids);
    for (int step = 1; step < 14; step += 4) {
        Heard heard;
        LmGenerateOptions options = options_for(&heard, NEW);
        options.prefill_step = step;
        generate(model, ids, PROMPT, &options);
        assert_memory_equal(heard.ids, ids + PROMPT, NEW * sizeof(int));
        assert_int_equal(heard.prefills, (PROMPT + step - 1) / step);
    }
    lm_model_close(model);
}

static void test_a_draft_model_changes_nothing_but_speed(void **state) {
    (void)state;
    LmModel *model = open_model("llama"), *other = open_model("llama-bias");
    int ids[PROMPT + NEW];
    golden_ids("llama", ids);
    LmModel *const drafts[] = {model, other};
    for (size_t d = 0; d < 2; d++) {
        for (int k = 1; k < 6; k++) {
            Heard heard;
            LmGenerateOptions options = options_for(&heard, NEW);
            options.draft = drafts[d];
            options.num_draft_tokens = k;
            LmStats stats = generate(model, ids, PROMPT, &options);
            assert_int_equal(heard.count, NEW);
            assert_memory_equal(heard.ids, ids + PROMPT, NEW * sizeof(int));
            assert_true(d == 1 || heard.drafted);
            assert_true(d == 1 || stats.accepted >= NEW / 2 - 1);
        }
    }
    lm_model_close(other);
    lm_model_close(model);
}

static void test_a_continued_cache_equals_one_run(void **state) {
    (void)state;
    Error err = {0};
    LmModel *model = open_model("llama");
    int ids[PROMPT + NEW];
    golden_ids("llama", ids);
    for (int speculative = 0; speculative < 2; speculative++) {
        LmCache *cache = lm_cache_new(model, NULL, &err);
        Heard heard;
        LmGenerateOptions options = options_for(&heard, 6);
        options.cache = cache;
        options.draft = speculative ? model : NULL;
        generate(model, ids, PROMPT, &options);
        assert_int_equal(lm_cache_length(cache), PROMPT + 6);
        /* The next turn starts with the token that follows. */
        options = options_for(&heard, NEW - 7);
        options.cache = cache;
        generate(model, ids + PROMPT + 6, 1, &options);
        assert_memory_equal(heard.ids, ids + PROMPT + 7, (NEW - 7) * sizeof(int));
        /* Back to the prompt, and again. */
        assert_true(lm_cache_trim(cache, lm_cache_length(cache) - (PROMPT - 1)));
        options = options_for(&heard, NEW);
        options.cache = cache;
        generate(model, ids + PROMPT - 1, 1, &options);
        assert_memory_equal(heard.ids, ids + PROMPT, NEW * sizeof(int));
        lm_cache_free(cache);
    }
    lm_model_close(model);
}

static void test_a_saved_cache_goes_on(void **state) {
    (void)state;
    Error err = {0};
    LmModel *model = open_model("llama3-rope"), *other = open_model("llama");
    int ids[PROMPT + NEW];
    golden_ids("llama3-rope", ids);
    char folder[] = "/tmp/test_lm_cache_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = base_path_join(folder, "cache.safetensors");
    const LmCacheOptions kinds[] = {{0}, {.max_size = 64}, {.kv_bits = 8, .kv_group_size = 32}};
    for (size_t i = 0; i < 2 * BASE_COUNT(kinds); i++) {
        LmCache *cache = lm_cache_new(model, &kinds[i / 2], &err);
        Heard heard, again;
        LmGenerateOptions options = options_for(&heard, 0);
        options.cache = cache;
        generate(model, ids, PROMPT - 1, &options);
        json_t *metadata = json_pack("{s:s}", "model", "tiny"), *read = NULL;
        const LmCacheLayout layout = i % 2 ? LM_CACHE_TEXT : LM_CACHE_TENSORS;
        if (!lm_cache_save(cache, path, layout, metadata, &err)) fail_msg("%s", err.message);
        LmCache *loaded = lm_cache_load(model, path, NULL, &read, &err);
        if (!loaded) fail_msg("%s", err.message);
        assert_string_equal(json_string_value(json_object_get(read, "model")), "tiny");
        assert_int_equal(lm_cache_length(loaded), PROMPT - 1);
        options = options_for(&heard, NEW);
        options.cache = cache;
        generate(model, ids + PROMPT - 1, 1, &options);
        options = options_for(&again, NEW);
        options.cache = loaded;
        generate(model, ids + PROMPT - 1, 1, &options);
        assert_memory_equal(heard.ids, again.ids, NEW * sizeof(int));
        assert_null(lm_cache_load(other, path, NULL, NULL, &err));
        assert_non_null(strstr(err.message, "is not a prompt cache of this model"));
        base_error_clear(&err);
        lm_cache_free(cache);
        lm_cache_free(loaded);
        json_decref(metadata);
        json_decref(read);
    }
    unlink(path);
    rmdir(folder);
    free(path);
    lm_model_close(model);
    lm_model_close(other);
}

static void test_a_rotating_cache_that_never_turns_changes_nothing(void **state) {
    (void)state;
    LmModel *model = open_model("llama");
    int ids[PROMPT + NEW];
    golden_ids("llama", ids);
    Heard heard;
    LmGenerateOptions options = options_for(&heard, NEW);
    options.cache_options.max_size = 64;
    generate(model, ids, PROMPT, &options);
    assert_memory_equal(heard.ids, ids + PROMPT, NEW * sizeof(int));
    options = options_for(&heard, NEW);
    options.cache_options.max_size = 8; /* turns all the time: other tokens, no failure */
    generate(model, ids, PROMPT, &options);
    assert_int_equal(heard.count, NEW);
    lm_model_close(model);
}

static void test_stopping(void **state) {
    (void)state;
    LmModel *model = open_model("llama");
    int ids[PROMPT + NEW];
    golden_ids("llama", ids);
    Heard heard;
    LmGenerateOptions options = options_for(&heard, NEW);
    const int eos = 2, extra = ids[PROMPT + 3]; /* of the config, of the caller */
    int first = 0;
    while (ids[PROMPT + first] != eos && ids[PROMPT + first] != extra) first++;
    options.ignore_stop = false;
    options.stop_ids = &extra;
    options.n_stop_ids = 1;
    LmStats stats = generate(model, ids, PROMPT, &options);
    assert_int_equal(heard.finish, LM_FINISH_STOP);
    assert_int_equal(heard.count, first + 1);
    assert_int_equal(heard.ids[first], ids[PROMPT + first]);
    assert_int_equal(stats.finish, LM_FINISH_STOP);

    options = options_for(&heard, NEW);
    heard.stop_after = 2;
    stats = generate(model, ids, PROMPT, &options);
    assert_int_equal(heard.count, 2);
    assert_int_equal(stats.finish, LM_FINISH_CALLER);

    options = options_for(&heard, 0);
    stats = generate(model, ids, PROMPT, &options);
    assert_int_equal(stats.generated_tokens, 0);
    lm_model_close(model);
}

static void test_seeds_reproduce_and_logprobs_are_given(void **state) {
    (void)state;
    LmModel *model = open_model("llama");
    int ids[PROMPT + NEW];
    golden_ids("llama", ids);
    Heard first, again;
    for (int round = 0; round < 2; round++) {
        LmGenerateOptions options = options_for(round ? &again : &first, NEW);
        options.sampling.temp = 1;
        options.sampling.top_p = 0.9f;
        options.seeded = true;
        options.seed = 5;
        options.logprobs = true;
        generate(model, ids, PROMPT, &options);
    }
    assert_memory_equal(first.ids, again.ids, NEW * sizeof(int));
    lm_model_close(model);
}

static void expect_failure(LmModel *model, const int *ids, size_t count, LmGenerateOptions options,
                           const char *part) {
    Error err = {0};
    assert_false(lm_generate(model, ids, count, &options, NULL, &err));
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
}

static void test_bad_requests_are_refused(void **state) {
    (void)state;
    LmModel *model = open_model("llama");
    LmGenerateOptions options = lm_generate_defaults();
    expect_failure(model, NULL, 0, options, "the prompt is empty");
    expect_failure(model, (const int[]){1, 160}, 2, options,
                   "token 1 of the prompt is 160, the model has 160 ids");
    options.sampling.temp = -1;
    expect_failure(model, (const int[]){1}, 1, options, "temp");
    options = lm_generate_defaults();
    options.cache_options.kv_bits = 7;
    expect_failure(model, (const int[]){1}, 1, options, "kv-bits");
    options.cache_options = (LmCacheOptions){.kv_bits = 4, .max_size = 8};
    expect_failure(model, (const int[]){1}, 1, options, "rotating");
    lm_model_close(model);
}

static void test_bad_folders_are_refused(void **state) {
    (void)state;
    Error err = {0};
    assert_null(lm_model_open("/nonexistent", NULL, &err));
    assert_non_null(strstr(err.message, "/nonexistent"));
    base_error_clear(&err);
    assert_null(lm_model_open(GOLDEN "/hf/bert", NULL, &err));
    assert_non_null(strstr(err.message, "does not generate text"));
    base_error_clear(&err);
    assert_null(lm_model_open(GOLDEN "/hf/llama", &(LmOpenOptions){.dtype = "int8"}, &err));
    assert_non_null(strstr(err.message, "int8"));
}

static void test_inspection_gives_golden_logits(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(GOLDEN "/hf/llama");
    mlx_array row = mx_slice(golden_get(&golden, "input_ids"), 0, 0, 1);
    int ids[24];
    assert_true(mx_copy_i32(row, ids, 24));
    mlx_array logits, hidden;
    if (!lm_inspect(GOLDEN "/hf/llama", &(LmOpenOptions){.dtype = "float32"}, ids, 24, &logits,
                    &hidden, NULL, NULL, &err))
        fail_msg("%s", err.message);
    assert_true(mx_empty(hidden));
    assert_int_equal(mx_dim(logits, 0), 1);
    assert_true(golden_difference(logits, mx_slice(golden_get(&golden, "logits"), 0, 0, 1)) < 1e-4);
    mlx_array_free(logits);
    golden_close(&golden);
    mx_drop(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_tokens_match_transformers),
        cmocka_unit_test(test_longrope_changes_factors_as_transformers),
        cmocka_unit_test(test_longrope_in_a_cache_that_is_continued),
        cmocka_unit_test(test_longrope_in_a_prompt_cache_file_is_long),
        cmocka_unit_test(test_prompt_chunks_do_not_matter),
        cmocka_unit_test(test_a_draft_model_changes_nothing_but_speed),
        cmocka_unit_test(test_a_continued_cache_equals_one_run),
        cmocka_unit_test(test_a_saved_cache_goes_on),
        cmocka_unit_test(test_a_rotating_cache_that_never_turns_changes_nothing),
        cmocka_unit_test(test_stopping),
        cmocka_unit_test(test_seeds_reproduce_and_logprobs_are_given),
        cmocka_unit_test(test_bad_requests_are_refused),
        cmocka_unit_test(test_bad_folders_are_refused),
        cmocka_unit_test(test_inspection_gives_golden_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
