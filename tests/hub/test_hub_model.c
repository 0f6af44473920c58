/* Opening model folders: what is found, and what is refused with which words. */
#include "hub/folder.h"

static void expect_failure(const char *folder, const char *words) {
    Error err = {0};
    assert_null(hub_model_open(folder, &err));
    if (!strstr(err.message, words)) fail_msg("\"%s\" lacks \"%s\"", err.message, words);
}

static void test_tensors_of_all_shards_are_found_by_name(void **state) {
    folder_text(*state, "config.json", CONFIG_LLAMA);
    folder_safetensors(*state, "model-00001-of-00002.safetensors", HEADER_ONE, 16);
    folder_safetensors(*state, "model-00002-of-00002.safetensors", HEADER_TWO, 8);
    Error err = {0};
    HubModel *model = hub_model_open(*state, &err);
    assert_string_equal(err.message, "");
    assert_non_null(model);
    assert_int_equal(hub_model_count(model), 2);
    assert_int_equal(hub_model_shards(model), 2);
    assert_string_equal(hub_model_name(model, 0), "a.weight");
    assert_string_equal(hub_model_name(model, 1), "b.weight");
    assert_null(hub_model_name(model, 2));
    mlx_array a = hub_model_tensor(model, "a.weight");
    assert_int_equal(mlx_array_ndim(a), 2);
    assert_int_equal(mlx_array_dtype(hub_model_tensor(model, "b.weight")), MLX_FLOAT16);
    assert_null(hub_model_tensor(model, "c.weight").ctx);
    hub_model_free(model);
    hub_model_free(NULL);
}

static void test_stop_ids_of_generation_config_win(void **state) {
    folder_text(*state, "config.json", "{\"model_type\": \"llama\", \"eos_token_id\": 2}");
    folder_safetensors(*state, "model.safetensors", HEADER_ONE, 16);
    int ids[4];
    HubModel *model = hub_model_open(*state, NULL);
    assert_int_equal(hub_model_eos(model, ids, 4), 1);
    assert_int_equal(ids[0], 2);
    hub_model_free(model);

    folder_text(*state, "generation_config.json", "{\"eos_token_id\": [7, 9]}");
    model = hub_model_open(*state, NULL);
    assert_int_equal(hub_model_eos(model, ids, 4), 2);
    assert_int_equal(ids[0], 7);
    assert_int_equal(ids[1], 9);
    assert_int_equal(hub_model_eos(model, ids, 1), 2);
    hub_model_free(model);

    folder_text(*state, "generation_config.json", "{broken");
    model = hub_model_open(*state, NULL);
    assert_int_equal(hub_model_eos(model, ids, 4), 1);
    hub_model_free(model);
}

static void test_missing_pieces_are_named(void **state) {
    expect_failure("/nowhere/at/all", "/nowhere/at/all: no such folder");
    expect_failure(*state, "no config.json");
    folder_text(*state, "config.json", CONFIG_LLAMA);
    expect_failure(*state, "no model*.safetensors");
    folder_text(*state, "model.safetensors.index.json",
                "{\"weight_map\": {\"a.weight\": \"model-00002-of-00002.safetensors\"}}");
    expect_failure(*state, "model.safetensors.index.json: none of the shards it names is there");
    folder_safetensors(*state, "model-00001-of-00002.safetensors", HEADER_ONE, 16);
    expect_failure(*state, "shard model-00002-of-00002.safetensors is missing");
    folder_text(*state, "model.safetensors.index.json", "{\"weight_map\": 5}");
    expect_failure(*state, "weight_map is not an object");
    folder_text(*state, "model.safetensors.index.json", "{\"weight_map\": {\"a\": 5}}");
    expect_failure(*state, "weight_map of a is not a file name");
}

static void test_a_file_instead_of_a_folder_is_explained(void **state) {
    folder_text(*state, "model.gguf", "GGUF");
    char *path = base_path_join(*state, "model.gguf");
    Error err = {0};
    assert_null(hub_model_open(path, &err));
    assert_non_null(strstr(err.message, "is a file"));
    assert_non_null(strstr(err.hint, "model convert --gguf"));
    free(path);
}

static void test_broken_shards_are_refused(void **state) {
    folder_text(*state, "config.json", CONFIG_LLAMA);
    folder_safetensors(*state, "model.safetensors", HEADER_ONE, 15);
    expect_failure(*state, "model.safetensors");
    folder_write(*state, "model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f", 8);
    expect_failure(*state, "model.safetensors");
    folder_write(*state, "model.safetensors", "", 0);
    expect_failure(*state, "model.safetensors");
    folder_safetensors(*state, "model.safetensors", "{]", 0);
    expect_failure(*state, "model.safetensors");
}

static void test_two_files_with_one_tensor_are_refused(void **state) {
    folder_text(*state, "config.json", CONFIG_LLAMA);
    folder_safetensors(*state, "model-00001.safetensors", HEADER_ONE, 16);
    folder_safetensors(*state, "model.safetensors", HEADER_ONE, 16);
    expect_failure(*state,
                   "both model-00001.safetensors and model.safetensors hold tensor a.weight");
}

static void test_broken_configs_are_refused(void **state) {
    static const struct {
        const char *config, *words;
    } cases[] = {
        {"[]", "must be a JSON object"},
        {"{\"hidden_size\": 5}", "model_type is missing"},
        {"{\"model_type\": 5}", "model_type is missing"},
        {"{\"model_type\": \"llama\",}", "config.json"},
        {"{\"model_type\": \"llama\", \"quantization\": 4}", "quantization must be an object"},
        {"{\"model_type\": \"llama\", \"quantization\": {\"group_size\": 33, \"bits\": 4}}",
         "group_size is not one of mode affine"},
        {"{\"model_type\": \"llama\", \"quantization\": {\"group_size\": 32, \"bits\": 7}}",
         "bits is not one of mode affine, which has 2, 3, 4, 5, 6, 8"},
        {"{\"model_type\": \"llama\", \"quantization\": {\"bits\": 4, \"mode\": \"int4\"}}",
         "unknown mode \"int4\""},
        {"{\"model_type\": \"llama\", \"quantization\": {\"bits\": 4, \"x\": {\"bits\": 1}}}",
         "quantization of x: bits is not one of"},
        {"{\"model_type\": \"llama\", \"quantization_config\": {\"quant_method\": \"hqq\"}}",
         "weights quantised by \"hqq\""},
    };
    folder_safetensors(*state, "model.safetensors", HEADER_ONE, 16);
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        folder_text(*state, "config.json", cases[i].config);
        expect_failure(*state, cases[i].words);
    }
}

static void test_quantization_entries_decide_before_scales(void **state) {
    folder_text(*state, "config.json",
                "{\"model_type\": \"llama\", \"quantization\": {\"group_size\": 32, \"bits\": 4,"
                " \"wide\": {\"group_size\": null, \"bits\": 8}, \"plain\": false, \"same\": true,"
                " \"fp\": {\"mode\": \"mxfp4\"}}}");
    folder_safetensors(
        *state, "model.safetensors",
        "{\"packed.scales\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
        "\"plain.scales\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]}}",
        8);
    Error err = {0};
    HubModel *model = hub_model_open(*state, &err);
    assert_string_equal(err.message, "");
    MxQuant quant;
    assert_true(hub_model_quantization(model, "wide", &quant));
    assert_int_equal(quant.bits, 8);
    assert_int_equal(quant.group_size, 64);
    assert_string_equal(quant.mode, "affine");
    assert_true(hub_model_quantization(model, "same", &quant));
    assert_int_equal(quant.bits, 4);
    assert_int_equal(quant.group_size, 32);
    assert_true(hub_model_quantization(model, "fp", &quant));
    assert_string_equal(quant.mode, "mxfp4");
    assert_int_equal(quant.group_size, 32);
    assert_true(hub_model_quantization(model, "packed", &quant));
    assert_int_equal(quant.bits, 4);
    assert_false(hub_model_quantization(model, "plain", &quant));
    assert_false(hub_model_quantization(model, "absent", &quant));
    hub_model_free(model);
}

static void test_info_counts_what_packed_words_stand_for(void **state) {
    folder_text(*state, "config.json",
                "{\"model_type\": \"llama\", \"num_hidden_layers\": 3, \"hidden_size\": 64,"
                " \"num_attention_heads\": 4, \"vocab_size\": 9, \"max_position_embeddings\": 128,"
                " \"quantization\": {\"group_size\": 32, \"bits\": 4}}");
    folder_safetensors(*state, "model.safetensors",
                       "{\"q.weight\":{\"dtype\":\"U32\",\"shape\":[2,4],\"data_offsets\":[0,32]},"
                       "\"q.scales\":{\"dtype\":\"F16\",\"shape\":[2,1],\"data_offsets\":[32,36]},"
                       "\"q.biases\":{\"dtype\":\"F16\",\"shape\":[2,1],\"data_offsets\":[36,40]},"
                       "\"n.weight\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[40,48]}}",
                       48);
    HubInfo info;
    Error err = {0};
    assert_true(hub_model_info(*state, &info, &err));
    assert_string_equal(info.architecture, "llama");
    assert_int_equal(info.parameters, 64 + 4);
    assert_int_equal(info.weight_bytes, 48);
    assert_int_equal(info.bits, 4);
    assert_string_equal(info.dtype, "float16");
    assert_string_equal(info.tokenizer, "");
    assert_int_equal(info.kv_heads, 4);
    assert_int_equal(info.context, 128);
    assert_true(info.bits_per_weight > 5.64 && info.bits_per_weight < 5.65);
}

static void test_weights_are_saved_in_shards_that_open_again(void **state) {
    float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    HubTensor tensors[3];
    static const char *const names[] = {"z.weight", "a.weight", "m.weight"};
    for (int i = 0; i < 3; i++)
        tensors[i] =
            (HubTensor){.name = (char *)names[i],
                        .array = mlx_array_new_data(values, (int[]){2, 4}, 2, MLX_FLOAT32)};
    json_t *config = json_pack("{s:s,s:s,s:{s:i}}", "model_type", "llama", "_name_or_path", "x",
                               "vision_config", "a", 1);
    Error err = {0};
    assert_true(hub_config_save(*state, config, &err));
    assert_true(hub_weights_save(*state, tensors, 3, config, 64, &err));
    HubModel *model = hub_model_open(*state, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(hub_model_count(model), 3);
    assert_int_equal(hub_model_shards(model), 2);
    assert_null(json_object_get(hub_model_config(model), "_name_or_path"));
    assert_null(json_object_get(hub_model_config(model), "vision_config"));
    hub_model_free(model);

    char *path = base_path_join(*state, "model.safetensors.index.json");
    json_t *index = base_json_load(path, &err);
    json_t *metadata = json_object_get(index, "metadata");
    assert_int_equal(json_integer_value(json_object_get(metadata, "total_size")), 96);
    assert_int_equal(json_integer_value(json_object_get(metadata, "total_parameters")), 24);
    json_t *map = json_object_get(index, "weight_map");
    assert_string_equal(json_string_value(json_object_get(map, "z.weight")),
                        "model-00001-of-00002.safetensors");
    assert_string_equal(json_string_value(json_object_get(map, "m.weight")),
                        "model-00002-of-00002.safetensors");
    json_decref(index);
    json_decref(config);
    free(path);
    for (int i = 0; i < 3; i++) mlx_array_free(tensors[i].array);
}

static void test_the_golden_folders_open(void **state) {
    (void)state;
    static const char *const names[] = {"llama", "llama-bias", "llama3-rope", "bert",
                                        "bert-reranker"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char path[512];
        Error err = {0};
        snprintf(path, sizeof path, "%s/hf/%s", GOLDEN, names[i]);
        HubModel *model = hub_model_open(path, &err);
        assert_string_equal(err.message, "");
        assert_true(hub_model_count(model) > 10);
        hub_model_free(model);
    }
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_drop)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_tensors_of_all_shards_are_found_by_name),
        IN_FOLDER(test_stop_ids_of_generation_config_win),
        IN_FOLDER(test_missing_pieces_are_named),
        IN_FOLDER(test_a_file_instead_of_a_folder_is_explained),
        IN_FOLDER(test_broken_shards_are_refused),
        IN_FOLDER(test_two_files_with_one_tensor_are_refused),
        IN_FOLDER(test_broken_configs_are_refused),
        IN_FOLDER(test_quantization_entries_decide_before_scales),
        IN_FOLDER(test_info_counts_what_packed_words_stand_for),
        IN_FOLDER(test_weights_are_saved_in_shards_that_open_again),
        cmocka_unit_test(test_the_golden_folders_open),
    };
    return cmocka_run_group_tests_name("hub model", tests, NULL, NULL);
}
