/* Encoders against transformers 5.17 in float32: hidden states with padding,
 * and the scores of cross-encoders. */
#include "golden.h"

/* Real tokens a row, from the attention mask. */
static void row_lengths(mlx_array mask, int *lengths) {
    mlx_array sums = mx_sum(mx_cast(mask, MLX_INT32), 1, false);
    assert_true(mx_copy_i32(sums, lengths, mx_size(sums)));
}

/* Within 1e-4 of a standard deviation of the golden tensor, if there is one. */
static void expect(const char *name, const char *tensor, const Golden *golden, mlx_array got) {
    mlx_array expected = nn_params_peek(golden->expected, tensor);
    if (mx_empty(expected)) return;
    double difference = golden_difference(got, expected);
    if (!(difference < 1e-4))
        fail_msg("%s: %s differs by %g standard deviations", name, tensor, difference);
    print_message("%s: %s %.2e\n", name, tensor, difference);
}

static void expect_folder(const char *path, const char *name) {
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(path);
    Encoder *encoder = model_encoder_load(golden.params, hub_model_config(golden.folder), &err);
    if (!encoder) fail_msg("%s: %s", name, err.message);
    mlx_array ids = mx_cast(golden_get(&golden, "input_ids"), MLX_INT32);
    int lengths[8];
    row_lengths(golden_get(&golden, "attention_mask"), lengths);
    mlx_array hidden = model_encoder_hidden(encoder, ids, (mlx_array){0}, lengths);
    expect(name, "last_hidden_state", &golden, hidden);
    if (model_encoder_labels(encoder) > 0)
        expect(name, "logits", &golden, model_encoder_classify(encoder, hidden, lengths));
    if (model_encoder_has_pooled(encoder))
        expect(name, "pooler_output", &golden, model_encoder_pooled(encoder, hidden, ids));
    mx_drop(s);
    golden_close(&golden);
}

static void test_encoders_match_transformers(void **state) {
    (void)state;
    Error err = {0};
    char **names;
    size_t count, seen = 0;
    assert_true(base_list_dir(golden_root(), &names, &count, &err));
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(golden_root(), names[i]);
        json_t *config = base_is_dir(path) ? hub_config_load(path, &err) : NULL;
        base_error_clear(&err);
        if (config && model_kind(config, &err) == MODEL_ENCODER) {
            expect_folder(path, names[i]);
            seen++;
        }
        base_error_clear(&err);
        json_decref(config);
        free(path);
        free(names[i]);
    }
    free(names);
    assert_true(seen >= 2);
}

static void test_token_types_matter(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(GOLDEN "/hf/bert-reranker");
    Encoder *encoder = model_encoder_load(golden.params, hub_model_config(golden.folder), &err);
    assert_non_null(encoder);
    mlx_array ids = mx_from_i32((const int[]){2, 5, 9, 3}, MX_SHAPE(1, 4));
    mlx_array zeros = mx_from_i32((const int[]){0, 0, 0, 0}, MX_SHAPE(1, 4));
    mlx_array second = mx_from_i32((const int[]){0, 0, 1, 1}, MX_SHAPE(1, 4));
    int length = 4;
    mlx_array without = model_encoder_hidden(encoder, ids, (mlx_array){0}, &length);
    assert_true(golden_difference(model_encoder_hidden(encoder, ids, zeros, &length), without) <
                1e-6);
    assert_true(golden_difference(model_encoder_hidden(encoder, ids, second, &length), without) >
                1e-3);
    mx_drop(s);
    golden_close(&golden);
}

static void test_more_tokens_than_positions_are_refused(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(GOLDEN "/hf/bert");
    Encoder *encoder = model_encoder_load(golden.params, hub_model_config(golden.folder), &err);
    assert_non_null(encoder);
    int length = model_encoder_max_tokens(encoder) + 1;
    mlx_array ids = mx_zeros(MX_SHAPE(1, length), MLX_INT32);
    assert_true(mx_empty(model_encoder_hidden(encoder, ids, (mlx_array){0}, &length)));
    assert_false(mx_check(&err));
    assert_non_null(strstr(err.message, "129 tokens are more than the model's 128 positions"));
    mx_drop(s);
    golden_close(&golden);
}

/* ---- bad folders ------------------------------------------------------------------------- */

static void expect_refusal(const char *name, const char *key, json_t *value, const char *part) {
    Error err = {0};
    mx_scope s = mx_open();
    char *path = base_format(GOLDEN "/hf/%s", name);
    Golden golden = golden_open(path);
    json_t *config = json_deep_copy(hub_model_config(golden.folder));
    json_object_set_new(config, key, value);
    assert_null(model_encoder_load(golden.params, config, &err));
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
    json_decref(config);
    free(path);
    mx_drop(s);
    golden_close(&golden);
}

static void test_bad_configs_are_refused_with_one_line(void **state) {
    (void)state;
    expect_refusal("bert", "num_attention_heads", json_integer(5), "impossible");
    expect_refusal("bert", "hidden_act", json_string("snake"),
                   "activation \"snake\" is not supported");
    expect_refusal("bert", "position_embedding_type", json_string("relative_key"), "relative_key");
    expect_refusal("bert", "num_hidden_layers", json_integer(1), "not part of this model");
    expect_refusal("bert", "intermediate_size", json_integer(120),
                   "encoder.layer.0.intermediate.dense.weight is 128x64");
    expect_refusal("roberta", "pad_token_id", json_integer(129), "leave none for a text");
    expect_refusal("roberta", "pad_token_id", json_integer(-2), "impossible");
    expect_refusal("mpnet", "relative_attention_num_buckets", json_integer(16),
                   "16 relative buckets");
    expect_refusal("t5-encoder", "relative_attention_max_distance", json_integer(8),
                   "distances up to 8");
    expect_refusal("t5-encoder", "feed_forward_proj", json_string("gated-snake"), "gated-snake");
    expect_refusal("t5-encoder", "d_kv", json_integer(1 << 23), "impossible");
    expect_refusal("modernbert", "layer_types", json_pack("[s]", "full_attention"),
                   "layer_types[1]");
    expect_refusal("modernbert", "local_attention", json_integer(-4), "local_attention");
    expect_refusal("modernbert-reranker", "classifier_pooling", json_string("max"),
                   "neither cls nor mean");
}

static void test_names_of_older_checkpoints_are_understood(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(GOLDEN "/hf/bert");
    nn_params_rename_suffix(golden.params, ".LayerNorm.weight", ".LayerNorm.gamma");
    nn_params_rename_suffix(golden.params, ".LayerNorm.bias", ".LayerNorm.beta");
    nn_params_rename_prefix(golden.params, "", "bert.");
    if (!model_encoder_load(golden.params, hub_model_config(golden.folder), &err))
        fail_msg("%s", err.message);
    mx_drop(s);
    golden_close(&golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encoders_match_transformers),
        cmocka_unit_test(test_token_types_matter),
        cmocka_unit_test(test_bad_configs_are_refused_with_one_line),
        cmocka_unit_test(test_names_of_older_checkpoints_are_understood),
        cmocka_unit_test(test_more_tokens_than_positions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
