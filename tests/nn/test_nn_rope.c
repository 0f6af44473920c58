/* Rotary embedding: the tables of the stretched variants against the numbers of
 * mlx_lm 0.32 rope_utils, and both spellings of a config. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/nn.h"

/* Loads a rope from a config's text; *periods gets its table. */
static Rope load(NnParams *params, const char *text, int dims, double theta, float *periods) {
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    Rope rope = nn_rope_load(params, config, nn_rope_config(config, NULL, theta, 1), dims, false);
    if (periods && rope.freqs.ctx) assert_true(mx_copy_f32(rope.freqs, periods, (size_t)dims / 2));
    json_decref(config);
    return rope;
}

static void test_llama3_periods(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    float f[32];
    load(params,
         "{\"rope_theta\": 500000, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32,"
         "\"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": "
         "8192}}",
         64, 1e4, f);
    const int at[] = {1, 14, 15, 16, 17, 31};
    const float expected[] = {1.50693f, 311.386f, 774.865f, 2327.98f, 10300.5f, 1.06176e7f};
    for (size_t i = 0; i < BASE_COUNT(at); i++) {
        assert_float_equal(f[at[i]] / expected[i], 1, 1e-5);
    }
    Error err = {0};
    assert_true(nn_params_check(params, &err));
    nn_params_free(params);
    mx_drop(s);
}

static void test_yarn_periods_and_gain(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    float f[32];
    Rope rope = load(params,
                     "{\"rope_parameters\": {\"rope_theta\": 150000, \"rope_type\": \"yarn\","
                     "\"factor\": 32, \"original_max_position_embeddings\": 4096}}",
                     64, 1e4, f);
    assert_float_equal(f[8], 19.6799, 1e-3);
    assert_float_equal(f[12], 142.537, 1e-2);
    assert_float_equal(f[31] / 3.30741e6, 1, 1e-5);
    assert_float_equal(rope.multiplier, 1.3465736, 1e-6);
    nn_params_free(params);
    mx_drop(s);
}

/* As Phi 3.5 spells it, and as transformers 5.24 reads it. */
static void test_longrope_has_periods_for_short_and_for_long_texts(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    float f[2], brief[2];
    Rope rope = load(
        params,
        "{\"rope_theta\": 10000, \"max_position_embeddings\": 131072,"
        "\"original_max_position_embeddings\": 4096,"
        "\"rope_scaling\": {\"type\": \"su\", \"long_factor\": [2, 3], \"short_factor\": [1, 5]}}",
        4, 1e4, f);
    assert_float_equal(rope.multiplier, 1.1902381, 1e-6);
    assert_float_equal(rope.short_multiplier, 1.1902381, 1e-6);
    assert_float_equal(f[0], 2, 1e-6);
    assert_float_equal(f[1], 300, 1e-3);
    assert_true(mx_copy_f32(rope.short_freqs, brief, 2));
    assert_float_equal(brief[0], 1, 1e-6);
    assert_float_equal(brief[1], 500, 1e-3);
    assert_int_equal(rope.short_length, 4096);
    nn_params_free(params);
    mx_drop(s);
}

/* One feature pair at position 1 turns by 1 / period radians. */
static double turn(const Rope *rope, int text_length) {
    const float x[] = {1, 0};
    float y[2];
    mlx_array row = mx_reshape(mx_from_f32(x, MX_SHAPE(2)), MX_SHAPE(1, 1, 1, 2));
    assert_true(mx_copy_f32(nn_rope_within(rope, row, 1, text_length), y, 2));
    return atan2((double)y[1], (double)y[0]);
}

static void test_longrope_turns_by_the_length_of_the_whole_text(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    Rope rope = load(params,
                     "{\"max_position_embeddings\": 64, \"original_max_position_embeddings\": 16,"
                     "\"rope_scaling\": {\"type\": \"longrope\", \"long_factor\": [4],"
                     "\"short_factor\": [2]}}",
                     2, 1e4, NULL);
    assert_float_equal(turn(&rope, 2), 0.5, 1e-6);
    assert_float_equal(turn(&rope, 16), 0.5, 1e-6);
    assert_float_equal(turn(&rope, 17), 0.25, 1e-6);
    nn_params_free(params);
    mx_drop(s);
}

static void test_longrope_without_short_factors_uses_the_long_ones(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    Rope rope = load(params, "{\"rope_scaling\": {\"type\": \"longrope\", \"long_factor\": [4]}}",
                     2, 1e4, NULL);
    assert_int_equal(rope.short_length, 0);
    assert_float_equal(turn(&rope, 2), 0.25, 1e-6);
    nn_params_free(params);
    mx_drop(s);
}

static void test_proportional_rotates_some_pairs(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    float f[8];
    Rope rope = load(params,
                     "{\"rope_parameters\": {\"rope_theta\": 100, \"rope_type\": \"proportional\","
                     "\"partial_rotary_factor\": 0.5}}",
                     16, 1e4, f);
    assert_float_equal(f[1], powf(100, 2 / 16.0f), 1e-5);
    assert_true(isinf(f[4]));
    float row[16], turned[16];
    for (int i = 0; i < 16; i++) row[i] = (float)(i + 1);
    mlx_array x = mx_from_f32(row, MX_SHAPE(1, 1, 1, 16));
    assert_true(mx_copy_f32(nn_rope(&rope, x, 5), turned, 16));
    for (int i = 4; i < 8; i++) {
        assert_float_equal(turned[i], row[i], 0);
        assert_float_equal(turned[i + 8], row[i + 8], 0);
    }
    assert_true(fabsf(turned[0] - row[0]) > 0.1f);
    nn_params_free(params);
    mx_drop(s);
}

static void test_linear_scaling_divides_positions(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    Rope stretched =
        load(params, "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}}", 4, 1e4, NULL);
    Rope plain = load(params, "{}", 4, 1e4, NULL);
    mlx_array x = mx_from_f32((const float[]){1, 2, 3, 4}, MX_SHAPE(1, 1, 1, 4));
    float a[4], b[4];
    assert_true(mx_copy_f32(nn_rope(&stretched, x, 8), a, 4));
    assert_true(mx_copy_f32(nn_rope(&plain, x, 2), b, 4));
    for (int i = 0; i < 4; i++) assert_float_equal(a[i], b[i], 1e-6);
    nn_params_free(params);
    mx_drop(s);
}

static void test_dynamic_is_plain_within_the_trained_length(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    const char *text = "{\"max_position_embeddings\": 64, \"rope_scaling\": {\"type\": "
                       "\"dynamic\", \"factor\": 2}}";
    Rope dynamic = load(params, text, 4, 1e4, NULL), plain = load(params, "{}", 4, 1e4, NULL);
    mlx_array x = mx_from_f32((const float[]){1, 2, 3, 4}, MX_SHAPE(1, 1, 1, 4));
    float a[4], b[4], far[4], far_plain[4];
    assert_true(mx_copy_f32(nn_rope(&dynamic, x, 10), a, 4));
    assert_true(mx_copy_f32(nn_rope(&plain, x, 10), b, 4));
    assert_true(mx_copy_f32(nn_rope(&dynamic, x, 500), far, 4));
    assert_true(mx_copy_f32(nn_rope(&plain, x, 500), far_plain, 4));
    for (int i = 0; i < 4; i++) assert_float_equal(a[i], b[i], 1e-6);
    assert_true(fabsf(far[1] - far_plain[1]) > 1e-3f);
    nn_params_free(params);
    mx_drop(s);
}

static void test_layer_types_have_their_own_parameters(void **state) {
    (void)state;
    json_t *config =
        json_loads("{\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1000000,"
                   "\"rope_type\": \"default\"}, \"sliding_attention\": {\"rope_theta\": 10000,"
                   "\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}}}",
                   0, NULL);
    assert_float_equal(nn_rope_config(config, "full_attention", 5, 1).theta, 1e6, 0);
    assert_float_equal(nn_rope_config(config, "sliding_attention", 5, 1).theta, 1e4, 0);
    assert_float_equal(nn_rope_config(config, "sliding_attention", 5, 1).partial, 0.5, 0);
    json_decref(config);
}

/* transformers 5.24 turns four of twelve features for rotary_pct 0.25: periods 1 and
 * 10000^(2/3). */
static void test_an_odd_size_turns_whole_pairs_with_its_own_periods(void **state) {
    (void)state;
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    Rope rope = load(params, "{\"rope_theta\": 10000}", 3, 1e4, NULL);
    float x[12], y[12];
    for (int i = 0; i < 12; i++) x[i] = (float)(i + 1);
    mlx_array turned = nn_rope(&rope, mx_from_f32(x, MX_SHAPE(1, 1, 1, 12)), 1);
    assert_true(mx_copy_f32(turned, y, 12));
    const double slow = pow(1e4, -2.0 / 3);
    assert_float_equal(y[0], cos(1) - 3 * sin(1), 1e-6);
    assert_float_equal(y[2], 3 * cos(1) + sin(1), 1e-6);
    assert_float_equal(y[1], 2 * cos(slow) - 4 * sin(slow), 1e-6);
    assert_float_equal(y[3], 4 * cos(slow) + 2 * sin(slow), 1e-6);
    for (int i = 4; i < 12; i++) assert_float_equal(y[i], x[i], 0);
    Error err = {0};
    assert_true(nn_params_check(params, &err));
    nn_params_free(params);
    mx_drop(s);
}

static void expect_failure(const char *text, const char *part) {
    mx_scope s = mx_open();
    NnParams *params = nn_params_new("m", NULL, NULL);
    load(params, text, 4, 1e4, NULL);
    Error err = {0};
    assert_false(nn_params_check(params, &err));
    assert_non_null(strstr(err.message, part));
    nn_params_free(params);
    mx_drop(s);
}

static void test_bad_configs_are_refused(void **state) {
    (void)state;
    expect_failure("{\"rope_scaling\": {\"type\": \"spiral\"}}",
                   "rope type \"spiral\" is not supported");
    expect_failure("{\"rope_scaling\": {\"type\": \"linear\"}}", "needs a number factor");
    expect_failure("{\"rope_scaling\": {\"type\": \"longrope\", \"long_factor\": [1]}}",
                   "long_factor");
    expect_failure("{\"rope_scaling\": {\"type\": \"longrope\", \"long_factor\": [1, -1]}}",
                   "positive");
    expect_failure("{\"rope_scaling\": {\"type\": 5}}", "type must be a string");
    expect_failure("{\"rope_theta\": -1}", "impossible");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama3_periods),
        cmocka_unit_test(test_yarn_periods_and_gain),
        cmocka_unit_test(test_longrope_has_periods_for_short_and_for_long_texts),
        cmocka_unit_test(test_longrope_turns_by_the_length_of_the_whole_text),
        cmocka_unit_test(test_longrope_without_short_factors_uses_the_long_ones),
        cmocka_unit_test(test_proportional_rotates_some_pairs),
        cmocka_unit_test(test_linear_scaling_divides_positions),
        cmocka_unit_test(test_dynamic_is_plain_within_the_trained_length),
        cmocka_unit_test(test_layer_types_have_their_own_parameters),
        cmocka_unit_test(test_an_odd_size_turns_whole_pairs_with_its_own_periods),
        cmocka_unit_test(test_bad_configs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
