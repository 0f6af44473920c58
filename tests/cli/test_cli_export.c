/* model export and fuse --export-gguf: a model that goes to GGUF and comes back, and
 * what is refused. */
#include "cli/tiny_model.h"

#include <stdio.h>

static char *in(void **state, const char *name) {
    return base_path_join(*state, name);
}

static void expect_done(Outcome outcome) {
    if (outcome.status != 0) fail_msg("status %d: %s", outcome.status, outcome.err);
    outcome_free(&outcome);
}

static void expect_same_file(const char *one, const char *two, const char *name) {
    char *paths[] = {base_path_join(one, name), base_path_join(two, name)}, *data[2];
    size_t length[2];
    for (int i = 0; i < 2; i++) {
        assert_true(base_file_read(paths[i], &data[i], &length[i], NULL));
        free(paths[i]);
    }
    if (length[0] != length[1] || memcmp(data[0], data[1], length[0]) != 0)
        fail_msg("%s differs", name);
    free(data[0]);
    free(data[1]);
}

static void export_and_back(void **state, const char *model, const char *type, const char *name) {
    char *gguf = base_format("%s/%s.gguf", (char *)*state, name), *back = in(state, name);
    if (type)
        expect_done(program_run(NULL, "model", "export", "--model", model, "--output", gguf,
                                "--type", type, NULL));
    else
        expect_done(program_run(NULL, "model", "export", "--model", model, "--output", gguf, NULL));
    expect_done(program_run(NULL, "model", "convert", "--gguf", gguf, "--output", back, NULL));
    free(gguf);
    free(back);
}

static void test_a_model_comes_back_from_gguf_as_it_went(void **state) {
    static const char *const files[] = {"model.safetensors",     "config.json",
                                        "tokenizer.json",        "chat_template.jinja",
                                        "tokenizer_config.json", "generation_config.json"};
    char *tiny = tiny_path(state), *back = in(state, "back");
    export_and_back(state, tiny, "f32", "back");
    for (size_t i = 0; i < BASE_COUNT(files); i++) expect_same_file(tiny, back, files[i]);
    free(tiny);
    free(back);
}

static void test_packed_weights_keep_their_bytes(void **state) {
#ifdef OFFICIAL_ENGINE
    skip(); /* it reads Q4_1 wrongly */
#endif
    static const char *const bits[] = {"2", "3", "4"};
    char *tiny = tiny_path(state);
    for (size_t i = 0; i < BASE_COUNT(bits); i++) {
        char *packed = base_format("%s/packed%s", (char *)*state, bits[i]);
        char *name = base_format("again%s", bits[i]);
        char *again = in(state, name);
        expect_done(program_run(NULL, "convert", "--hf-path", tiny, "--mlx-path", packed, "-q",
                                "--q-bits", bits[i], "--q-group-size", "32", "--dtype", "float16",
                                NULL));
        export_and_back(state, packed, NULL, name);
        Outcome first = program_run(NULL, "generate", "--model", packed, "--prompt", "he", NULL),
                second = program_run(NULL, "generate", "--model", again, "--prompt", "he", NULL);
        assert_int_equal(strncmp(first.out, second.out, 40), 0);
        outcome_free(&first);
        outcome_free(&second);
        if (strcmp(bits[i], "4") == 0) expect_same_file(packed, again, "model.safetensors");
        free(packed);
        free(name);
        free(again);
    }
    free(tiny);
}

/* The golden models have other kinds of layers than a file supposes. */
static void suppose(const char *model, const char *pattern, int value) {
    static const char *const said[] = {"layer_types", "no_rope_layers", "_sliding_window_pattern"};
    char *file = base_path_join(model, "config.json");
    json_t *config = base_json_load(file, NULL);
    assert_non_null(config);
    for (size_t i = 0; i < BASE_COUNT(said); i++) json_object_del(config, said[i]);
    json_object_set_new(config, pattern, json_integer(value));
    assert_true(base_json_save(file, config, NULL));
    json_decref(config);
    free(file);
}

/* Names, rows, norms, rotary settings of every family: there and back the weights are
 * the same bytes, and so are the logits that the config makes of them. */
static void test_every_family_comes_back_with_its_logits(void **state) {
    static const char *const families[] = {"llama",         "llama-bias", "llama3-rope", "mixtral",
                                           "phi3",          "gemma",      "gemma2",      "qwen2",
                                           "phi3-longrope", "qwen3",      "qwen3_moe",   "olmo2",
                                           "granite",       "smollm3",    "gemma3_text", "cohere2"};
    for (size_t i = 0; i < BASE_COUNT(families); i++) {
        char *golden = base_format("%s/hf/%s", GOLDEN, families[i]);
        char *model = base_format("%s/family%zu", (char *)*state, i);
        char *name = base_format("family-back%zu", i), *back = in(state, name);
        expect_done(program_run(NULL, "convert", "--hf-path", golden, "--mlx-path", model,
                                "--dtype", "float32", NULL));
        folder_text(model, "tokenizer.json",
                    "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
                    "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", "
                    "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}}");
        if (strcmp(families[i], "smollm3") == 0) suppose(model, "no_rope_layer_interval", 4);
        if (strcmp(families[i], "gemma3_text") == 0) suppose(model, "sliding_window_pattern", 6);
        if (strcmp(families[i], "cohere2") == 0) suppose(model, "sliding_window_pattern", 4);
        export_and_back(state, model, "f32", name);
        expect_same_file(model, back, "model.safetensors");
        char *logits[] = {base_path_join(model, "l.safetensors"),
                          base_path_join(back, "l.safetensors")};
        for (int side = 0; side < 2; side++)
            expect_done(program_run(NULL, "inspect", "logits", "--model", side ? back : model,
                                    "--tokens", "5 9 2 7", "--output", logits[side], NULL));
        expect_same_file(model, back, "l.safetensors");
        free(logits[0]);
        free(logits[1]);
        free(golden);
        free(model);
        free(name);
        free(back);
    }
}

static void test_a_folder_gets_a_file_named_by_its_type(void **state) {
    char *tiny = tiny_path(state), *file = in(state, "ggml-model-q8_0.gguf");
    json_t *said = expect_json(program_run(NULL, "model", "export", "--model", tiny, "--output",
                                           *state, "--type", "q8_0", "--json", NULL));
    const json_t *last = json_array_get(said, json_array_size(said) - 1);
    assert_string_equal(json_string_value(json_object_get(last, "gguf")), file);
    assert_true(base_is_file(file));
    assert_int_equal(remove(file), 0);
    json_decref(said);
    free(tiny);
    free(file);
}

static void test_an_estimate_writes_nothing(void **state) {
    char *tiny = tiny_path(state), *file = in(state, "none.gguf");
    Outcome outcome = program_run(NULL, "model", "export", "--model", tiny, "--output", file,
                                  "--type", "q4_0", "--estimate", NULL);
    assert_int_equal(outcome.status, 0);
    assert_true(base_starts_with(outcome.out, "estimate: 20 tensors, mostly q4_0"));
    assert_false(base_is_file(file));
    outcome_free(&outcome);
    free(tiny);
    free(file);
}

/* The golden LoRA adapter belongs to a model of its own, which gets a vocabulary. */
static void test_fuse_writes_a_gguf_too(void **state) {
    char *tiny = tiny_path(state), *adapter = in(state, "adapter"), *fused = in(state, "fused");
    assert_true(base_make_dirs(adapter, NULL));
    folder_text(adapter, "adapter_config.json",
                "{\"fine_tune_type\": \"lora\", \"num_layers\": 1, \"lora_parameters\": "
                "{\"rank\": 1, \"scale\": 2.0, \"dropout\": 0.0}}");
    mx_scope scope = mx_open();
    HubTensor pair[] = {{"model.layers.1.self_attn.q_proj.lora_a",
                         mx_full(MX_SHAPE(TINY_HIDDEN, 1), 0.25, MLX_FLOAT32)},
                        {"model.layers.1.self_attn.q_proj.lora_b",
                         mx_full(MX_SHAPE(1, TINY_HIDDEN), 0.5, MLX_FLOAT32)}};
    char *file = base_path_join(adapter, "adapters.safetensors");
    assert_true(hub_tensors_save(file, pair, 2, NULL));
    mx_drop(scope);
    expect_done(program_run(NULL, "fuse", "--model", tiny, "--adapter-path", adapter, "--save-path",
                            fused, "--export-gguf", "--gguf-type", "f32", "--gguf-path", "out",
                            NULL));
    char *gguf = base_path_join(fused, "out.gguf"), *back = in(state, "fused-back");
    expect_done(program_run(NULL, "model", "convert", "--gguf", gguf, "--output", back, NULL));
    expect_same_file(fused, back, "model.safetensors");
    free(gguf);
    free(back);
    free(file);
    free(tiny);
    free(adapter);
    free(fused);
}

static void test_what_llama_cpp_has_not_is_refused(void **state) {
    char *tiny = tiny_path(state), *gguf = in(state, "tiny.gguf"), *out = in(state, "no.gguf");
    char *bert = base_format("%s/hf/bert", GOLDEN), *llama = base_format("%s/hf/llama", GOLDEN);
    expect_complaint(program_run(NULL, "model", "export", "--model", bert, "--output", out, NULL),
                     1, "a bert model cannot become a GGUF");
    expect_complaint(program_run(NULL, "model", "export", "--model", llama, "--output", out, NULL),
                     1, "no tokenizer.json there");
    expect_complaint(program_run(NULL, "model", "export", "--model", tiny, "--output", out,
                                 "--type", "q2_k", NULL),
                     2, "--type");
    expect_complaint(program_run(NULL, "model", "export", "--model", tiny, "--output",
                                 "/nowhere/at/all.gguf", NULL),
                     1, "/nowhere/at/all.gguf");
    assert_false(base_is_file(out));
    free(bert);
    free(llama);
    free(tiny);
    free(gguf);
    free(out);
}

static void test_values_beyond_float16_ask_for_another_type(void **state) {
    char *tiny = tiny_path(state), *large = in(state, "large"), *out = in(state, "large.gguf");
    expect_done(program_run(NULL, "convert", "--hf-path", tiny, "--mlx-path", large, NULL));
    char *path = base_path_join(large, "model.safetensors"), *data = NULL;
    size_t length = 0;
    assert_true(base_file_read(path, &data, &length, NULL));
    /* After the header: the embedding's first weight, in float32. */
    const float million = 1e6F;
    uint64_t header;
    memcpy(&header, data, 8);
    memcpy(data + 8 + header, &million, 4);
    folder_write(large, "model.safetensors", data, length);
    expect_complaint(program_run(NULL, "model", "export", "--model", large, "--output", out,
                                 "--type", "f16", NULL),
                     1, "values that float16 cannot hold");
    assert_false(base_is_file(out));
    expect_done(program_run(NULL, "model", "export", "--model", large, "--output", out, "--type",
                            "bf16", NULL));
    free(data);
    free(path);
    free(tiny);
    free(large);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_model_comes_back_from_gguf_as_it_went),
        cmocka_unit_test(test_packed_weights_keep_their_bytes),
        cmocka_unit_test(test_every_family_comes_back_with_its_logits),
        cmocka_unit_test(test_a_folder_gets_a_file_named_by_its_type),
        cmocka_unit_test(test_an_estimate_writes_nothing),
        cmocka_unit_test(test_fuse_writes_a_gguf_too),
        cmocka_unit_test(test_what_llama_cpp_has_not_is_refused),
        cmocka_unit_test(test_values_beyond_float16_ask_for_another_type),
    };
    return cmocka_run_group_tests_name("cli export", tests, tiny_make, folder_drop);
}
