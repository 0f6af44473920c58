/* Encoders against transformers 5.17 in float32: hidden states with padding,
 * and the scores of cross-encoders. */
#include "golden.h"

/* Real tokens a row, from the attention mask. */
static void row_lengths(mlx_array mask, int *lengths) {
    mlx_array sums = mx_sum(mx_cast(mask, MLX_INT32), 1, false);
    assert_true(mx_copy_i32(sums, lengths, mx_size(sums)));
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
    bool scores = model_encoder_labels(encoder) > 0;
    mlx_array got = scores ? model_encoder_classify(encoder, hidden) : hidden;
    double difference =
        golden_difference(got, golden_get(&golden, scores ? "logits" : "last_hidden_state"));
    if (!(difference < 1e-4)) fail_msg("%s: differs by %g standard deviations", name, difference);
    print_message("%s: %.2e\n", name, difference);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encoders_match_transformers),
        cmocka_unit_test(test_token_types_matter),
        cmocka_unit_test(test_more_tokens_than_positions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
