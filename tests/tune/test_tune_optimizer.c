/* Optimisers and schedules: one step and several of each against the
 * numbers of mlx 0.31.2. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tune/optimizer.h"

static json_t *object(const char *text) {
    json_t *value = json_loads(text, 0, NULL);
    assert_non_null(value);
    return value;
}

static TuneOptimizer *make(const char *name, const char *settings, double rate) {
    Error err = {0};
    TuneSchedule schedule = tune_schedule_constant(rate);
    json_t *given = object(settings);
    TuneOptimizer *o = tune_optimizer_new(name, given, &schedule, 1, &err);
    if (!o) fail_msg("%s", err.message);
    json_decref(given);
    return o;
}

/* `steps` updates of values[count] with the gradient value / 10 + offset. */
static void run(const char *name, const char *settings, double rate, const int *shape, size_t ndim,
                float *values, size_t count, int steps, float scale, float offset) {
    Error err = {0};
    TuneOptimizer *o = make(name, settings, rate);
    for (int step = 0; step < steps; step++) {
        mx_scope s = mx_open();
        mlx_array value = mx_from_f32(values, shape, ndim), updated;
        mlx_array gradient = mx_add_scalar(mx_mul_scalar(value, scale), offset);
        if (!tune_optimizer_update(o, &value, &gradient, &updated, &err))
            fail_msg("%s", err.message);
        assert_true(mx_copy_f32(updated, values, count));
        mx_drop(s);
    }
    assert_int_equal(tune_optimizer_step(o), steps);
    tune_optimizer_free(o);
}

static void test_one_step_of_every_optimizer_is_mlx_s(void **state) {
    (void)state;
    static const struct {
        const char *name, *settings;
        bool matrix;
        float expected;
    } rows[] = {
        {"adam", "{}", false, .683772445f},
        {"adam", "{\"bias_correction\": true}", false, .900000691f},
        {"adamw", "{}", false, .682772398f},
        {"sgd", "{}", false, .95f},
        {"muon", "{}", false, .995027483f},
        {"muon", "{}", true, .930356145f},
        {"adafactor", "{}", false, .99f},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        float value = 1;
        const int shape[] = {1, 1};
        run(rows[i].name, rows[i].settings, 0.1, shape, rows[i].matrix ? 2 : 1, &value, 1, 1, 0,
            .5f);
        if (fabsf(value - rows[i].expected) > 1e-7f)
            fail_msg("%s %s: %.8f, wanted %.8f", rows[i].name, rows[i].settings, value,
                     rows[i].expected);
    }
}

static void test_adafactor_factors_a_matrix(void **state) {
    (void)state;
    float values[] = {1, 2, 3, 4};
    const float expected[] = {.978787f, 1.97f, 2.97154f, 3.973167f};
    run("adafactor", "{}", 1e-5, MX_SHAPE(2, 2), values, 4, 1, .1f, 0);
    for (int i = 0; i < 4; i++) assert_float_equal(values[i], expected[i], 1e-6);
}

#include "tune/optimizer_golden.h"

static void test_five_steps_with_settings_agree_with_mlx(void **state) {
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(golden); i++) {
        float values[6] = {.5f, -1, 2, .25f, -.75f, 1.5f};
        run(golden[i].name, golden[i].settings, 0.01, golden[i].shape, golden[i].ndim, values, 6, 5,
            .3f, .05f);
        for (int k = 0; k < 6; k++)
            if (fabsf(values[k] - golden[i].values[k]) > 1e-6f)
                fail_msg("%s %s, element %d: %.8f, wanted %.8f", golden[i].name, golden[i].settings,
                         k, values[k], golden[i].values[k]);
    }
}

static void test_state_put_back_continues_the_same_run(void **state) {
    (void)state;
    Error err = {0};
    TuneOptimizer *a = make("adamw", "{\"bias_correction\": true}", 0.1);
    TuneOptimizer *b = make("adamw", "{\"bias_correction\": true}", 0.1);
    mx_scope s = mx_open();
    mlx_array value = mx_from_f32((float[]){1, 2}, MX_SHAPE(2)), next, one, other;
    mlx_array gradient = mx_from_f32((float[]){.1f, -.3f}, MX_SHAPE(2));
    assert_true(tune_optimizer_update(a, &value, &gradient, &next, &err));
    for (size_t slot = 0; tune_optimizer_slot(a, slot); slot++)
        tune_optimizer_restore(b, 0, slot, tune_optimizer_state(a, 0, slot));
    tune_optimizer_set_step(b, tune_optimizer_step(a));
    assert_true(tune_optimizer_update(a, &next, &gradient, &one, &err));
    assert_true(tune_optimizer_update(b, &next, &gradient, &other, &err));
    assert_memory_equal(mx_data(one), mx_data(other), 2 * sizeof(float));
    assert_int_equal(tune_optimizer_state_bytes(a, value), 16);
    mx_drop(s);
    tune_optimizer_free(a);
    tune_optimizer_free(b);
}

static void expect_refused(const char *name, const char *settings, const char *words) {
    Error err = {0};
    TuneSchedule schedule = tune_schedule_constant(1);
    json_t *given = object(settings);
    assert_null(tune_optimizer_new(name, given, &schedule, 1, &err));
    if (!strstr(err.message, words)) fail_msg("\"%s\" lacks \"%s\"", err.message, words);
    json_decref(given);
}

static void test_wrong_settings_are_named(void **state) {
    (void)state;
    expect_refused("adamax", "{}", "Unsupported optimizer: adamax");
    expect_refused("adam", "{\"momentum\": 0.9}", "adam has no setting momentum");
    expect_refused("adam", "{\"betas\": [0.9]}", "betas of adam has a wrong value");
    expect_refused("adam", "{\"eps\": \"small\"}", "eps of adam has a wrong value");
    expect_refused("sgd", "{\"nesterov\": true}", "nesterov of sgd needs a momentum");
    expect_refused("muon", "{\"ns_steps\": -1}", "ns_steps of muon");
}

/* ---- schedules --------------------------------------------------------------------- */

static TuneSchedule parse(const char *text) {
    Error err = {0};
    TuneSchedule schedule;
    json_t *given = object(text);
    if (!tune_schedule_parse(given, &schedule, &err)) fail_msg("%s", err.message);
    json_decref(given);
    return schedule;
}

static void test_cosine_with_warmup_is_mlx_s(void **state) {
    (void)state;
    TuneSchedule s = parse("{\"name\": \"cosine_decay\", \"arguments\": [1e-5, 1000, 1e-7], "
                           "\"warmup\": 100, \"warmup_init\": 1e-7}");
    static const struct {
        uint64_t step;
        float rate;
    } rows[] = {{0, 1e-7f},   {50, 5.05e-6f},      {100, 1e-5f},
                {101, 1e-5f}, {102, 9.999976e-6f}, {601, 5.05e-6f}};
    for (size_t i = 0; i < BASE_COUNT(rows); i++)
        assert_float_equal(tune_schedule_rate(&s, rows[i].step), rows[i].rate, 1e-11);
}

static void test_the_other_schedules_are_mlx_s(void **state) {
    (void)state;
    TuneSchedule linear = parse("{\"name\": \"linear_schedule\", \"arguments\": [0, 0.1, 100]}");
    assert_float_equal(tune_schedule_rate(&linear, 0), 0, 0);
    assert_float_equal(tune_schedule_rate(&linear, 50), .05f, 1e-8);
    assert_float_equal(tune_schedule_rate(&linear, 101), .1f, 1e-8);
    TuneSchedule exponential =
        parse("{\"name\": \"exponential_decay\", \"arguments\": [0.1, 0.9]}");
    assert_float_equal(tune_schedule_rate(&exponential, 4), .06561f, 1e-8);
    TuneSchedule steps = parse("{\"name\": \"step_decay\", \"arguments\": [0.1, 0.9, 10]}");
    assert_float_equal(tune_schedule_rate(&steps, 9), .1f, 1e-8);
    assert_float_equal(tune_schedule_rate(&steps, 21), .081f, 1e-8);
}

static void expect_bad_schedule(const char *text, const char *words) {
    Error err = {0};
    TuneSchedule schedule;
    json_t *given = object(text);
    assert_false(tune_schedule_parse(given, &schedule, &err));
    if (!strstr(err.message, words)) fail_msg("\"%s\" lacks \"%s\"", err.message, words);
    json_decref(given);
}

static void test_wrong_schedules_are_named(void **state) {
    (void)state;
    expect_bad_schedule("{\"arguments\": [1]}", "needs a name");
    expect_bad_schedule("{\"name\": \"sawtooth\", \"arguments\": [1]}",
                        "no schedule is called sawtooth");
    expect_bad_schedule("{\"name\": \"cosine_decay\", \"arguments\": [1]}", "takes 2 to 3");
    expect_bad_schedule("{\"name\": \"cosine_decay\", \"arguments\": [1, 0]}",
                        "argument 2 of cosine_decay is below 1");
    expect_bad_schedule("{\"name\": \"step_decay\", \"arguments\": [1, \"x\", 1]}",
                        "argument 2 of step_decay is not a number");
    expect_bad_schedule("{\"name\": \"cosine_decay\", \"arguments\": [1, 5], \"warmup\": -1}",
                        "warmup");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_step_of_every_optimizer_is_mlx_s),
        cmocka_unit_test(test_adafactor_factors_a_matrix),
        cmocka_unit_test(test_five_steps_with_settings_agree_with_mlx),
        cmocka_unit_test(test_state_put_back_continues_the_same_run),
        cmocka_unit_test(test_wrong_settings_are_named),
        cmocka_unit_test(test_cosine_with_warmup_is_mlx_s),
        cmocka_unit_test(test_the_other_schedules_are_mlx_s),
        cmocka_unit_test(test_wrong_schedules_are_named),
    };
    return cmocka_run_group_tests_name("tune optimizer", tests, NULL, NULL);
}
