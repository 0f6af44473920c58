/* The parameter tree: every tensor is taken once with its shape, or one message
 * names the culprit; adapters and packed weights take part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/nn.h"

static void add(NnParams *params, const char *name, int rows, int columns) {
    float values[64 * 64];
    for (int i = 0; i < rows * columns; i++) values[i] = (float)((i * 7) % 13 - 6) / 8;
    nn_params_add(params, name, mx_from_f32(values, MX_SHAPE(rows, columns)));
}

static void test_a_complete_tree_is_accepted(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("folder", NULL, NULL);
    add(params, "a.weight", 3, 4);
    Linear layer = nn_linear_load(params, 4, 3, false, "%s", "a");
    Error err = {0};
    assert_true(nn_params_check(params, &err));
    mlx_array y = nn_linear(&layer, mx_full(MX_SHAPE(2, 4), 1, MLX_FLOAT32));
    assert_int_equal(mx_dim(y, 0), 2);
    assert_int_equal(mx_dim(y, 1), 3);
    mx_drop(s);
    nn_params_free(params);
}

static void expect_message(NnParams *params, const char *part) {
    Error err = {0};
    assert_false(nn_params_check(params, &err));
    assert_non_null(strstr(err.message, part));
    nn_params_free(params);
}

static void test_a_missing_tensor_is_named(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("folder", NULL, NULL);
    nn_linear_load(params, 4, 3, false, "layers.%d.proj", 7);
    expect_message(params, "folder: tensor layers.7.proj.weight is missing");
    mx_drop(s);
}

static void test_a_wrong_shape_is_named(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("folder", NULL, NULL);
    add(params, "a.weight", 4, 3);
    nn_linear_load(params, 4, 3, false, "a");
    expect_message(params, "tensor a.weight is 4x3, the model needs 3x4");
    mx_drop(s);
}

static void test_extra_tensors_are_named(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("folder", NULL, NULL);
    add(params, "a.weight", 3, 4);
    add(params, "b.weight", 1, 1);
    add(params, "c.weight", 1, 1);
    nn_linear_load(params, 4, 3, false, "a");
    expect_message(params, "tensor b.weight and 1 more are not part of this model");
    mx_drop(s);
}

static void test_renaming_and_removing(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("folder", NULL, NULL);
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "old.%d.weight", i);
        add(params, name, 1, 1);
    }
    add(params, "old.freq", 1, 1);
    nn_params_remove_suffix(params, ".freq");
    nn_params_rename_prefix(params, "old.", "");
    assert_true(nn_params_has(params, "%d.weight", 299));
    assert_false(nn_params_has(params, "old.0.weight"));
    assert_false(nn_params_has(params, "freq"));
    nn_params_free(params);
    mx_drop(s);
}

static bool all_four_bit(const void *source, const char *path, MxQuant *quant) {
    (void)source;
    *quant = (MxQuant){32, 4, "affine"};
    return strcmp(path, "a") == 0;
}

static void test_packed_layers_equal_their_dequantised_selves(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("folder", all_four_bit, NULL);
    add(params, "dense.weight", 8, 64);
    mlx_array parts[3];
    mx_quantize(nn_params_peek(params, "dense.weight"), (MxQuant){32, 4, "affine"}, parts);
    nn_params_add(params, "a.weight", parts[0]);
    nn_params_add(params, "a.scales", parts[1]);
    nn_params_add(params, "a.biases", parts[2]);
    nn_params_remove(params, "dense.weight");
    Linear linear = nn_linear_load(params, 64, 8, false, "a");
    Embedding embedding = nn_embedding_load(params, 8, 64, "a");
    Error err = {0};
    assert_true(nn_params_check(params, &err));

    mlx_array rows =
        nn_embedding(&embedding, mx_from_i32((const int[]){0, 1, 2, 3, 4, 5, 6, 7}, MX_SHAPE(8)));
    mlx_array x = mx_full(MX_SHAPE(1, 64), 0.5, MLX_FLOAT32);
    float packed[8], plain[8], head[8];
    assert_true(mx_copy_f32(nn_linear(&linear, x), packed, 8));
    assert_true(mx_copy_f32(nn_embedding_as_linear(&embedding, x), head, 8));
    assert_true(mx_copy_f32(mx_matmul(x, mx_swapaxes(rows, 0, 1)), plain, 8));
    for (int i = 0; i < 8; i++) {
        assert_float_equal(packed[i], plain[i], 1e-4);
        assert_float_equal(head[i], plain[i], 1e-4);
    }
    mx_drop(s);
    nn_params_free(params);
}

static void test_a_low_rank_adapter_adds_its_product(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("model", NULL, NULL),
             *adapter = nn_params_new("adapter", NULL, NULL);
    nn_params_add(params, "a.weight", mx_zeros(MX_SHAPE(3, 4), MLX_FLOAT32));
    nn_params_add(adapter, "a.lora_a", mx_full(MX_SHAPE(4, 2), 1, MLX_FLOAT32));
    nn_params_add(adapter, "a.lora_b", mx_full(MX_SHAPE(2, 3), 0.5, MLX_FLOAT32));
    nn_params_adapter(params, adapter, 10, NULL);
    Linear layer = nn_linear_load(params, 4, 3, false, "a");
    Error err = {0};
    assert_true(nn_params_check(params, &err) && nn_params_check(adapter, &err));
    float y[3];
    assert_true(mx_copy_f32(nn_linear(&layer, mx_full(MX_SHAPE(1, 4), 1, MLX_FLOAT32)), y, 3));
    assert_float_equal(y[1], 10 * 4 * 2 * 0.5, 1e-5);
    mx_drop(s);
    nn_params_free(params);
    nn_params_free(adapter);
}

static void test_dora_rescales_rows(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("model", NULL, NULL),
             *adapter = nn_params_new("adapter", NULL, NULL);
    nn_params_add(params, "a.weight", mx_from_f32((const float[]){3, 4, 0, 2}, MX_SHAPE(2, 2)));
    nn_params_add(adapter, "a.lora_a", mx_zeros(MX_SHAPE(2, 1), MLX_FLOAT32));
    nn_params_add(adapter, "a.lora_b", mx_zeros(MX_SHAPE(1, 2), MLX_FLOAT32));
    nn_params_add(adapter, "a.m", mx_from_f32((const float[]){10, 1}, MX_SHAPE(2)));
    nn_params_adapter(params, adapter, 1, NULL);
    Linear layer = nn_linear_load(params, 2, 2, false, "a");
    float y[2];
    assert_true(mx_copy_f32(nn_linear(&layer, mx_full(MX_SHAPE(1, 2), 1, MLX_FLOAT32)), y, 2));
    assert_float_equal(y[0], 7 * 10 / 5.0, 1e-5); /* row (3, 4) brought to length 10 */
    assert_float_equal(y[1], 2 * 1 / 2.0, 1e-5);
    mx_drop(s);
    nn_params_free(params);
    nn_params_free(adapter);
}

static void test_an_adapter_of_another_model_is_refused(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("model", NULL, NULL),
             *adapter = nn_params_new("adapter", NULL, NULL);
    add(params, "a.weight", 3, 4);
    add(adapter, "a.lora_a", 5, 2);
    add(adapter, "a.lora_b", 2, 3);
    nn_params_adapter(params, adapter, 1, NULL);
    nn_linear_load(params, 4, 3, false, "a");
    nn_params_free(params);
    expect_message(adapter, "tensor a.lora_a is 5x2, the model needs 4x2");
    mx_drop(s);
}

static void test_config_values_are_checked(void **state) {
    (void)state;
    Error err = {0};
    json_t *config = json_pack("{s:i, s:s, s:f, s:n}", "good", 5, "text", "x", "half", 0.5, "none");
    NnParams *params = nn_params_new("m", NULL, NULL);
    assert_int_equal(nn_config_size(params, config, "good"), 5);
    assert_int_equal(nn_config_int(params, config, "none", 9), 9);
    assert_float_equal(nn_config_number(params, config, "half", 1), 0.5, 0);
    assert_true(nn_params_check(params, &err));
    nn_config_int(params, config, "half", 1);
    expect_message(params, "half must be an integer");
    params = nn_params_new("m", NULL, NULL);
    nn_config_size(params, config, "absent");
    expect_message(params, "absent is missing");
    params = nn_params_new("m", NULL, NULL);
    nn_config_bool(params, config, "text", false);
    expect_message(params, "text must be true or false");
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_complete_tree_is_accepted),
        cmocka_unit_test(test_a_missing_tensor_is_named),
        cmocka_unit_test(test_a_wrong_shape_is_named),
        cmocka_unit_test(test_extra_tensors_are_named),
        cmocka_unit_test(test_renaming_and_removing),
        cmocka_unit_test(test_packed_layers_equal_their_dequantised_selves),
        cmocka_unit_test(test_a_low_rank_adapter_adds_its_product),
        cmocka_unit_test(test_dora_rescales_rows),
        cmocka_unit_test(test_an_adapter_of_another_model_is_refused),
        cmocka_unit_test(test_config_values_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
