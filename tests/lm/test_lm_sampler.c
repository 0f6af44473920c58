/* Sampling: which tokens survive each filter, what penalties do to logits, and
 * that a seed gives the same tokens again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lm/sampler.h"

enum { SIZE = 8, DRAWS = 400 };

/* Probabilities .4 .3 .15 .1 .03 .01 .007 .003 */
static void fill(float *logits) {
    const float p[SIZE] = {.4f, .3f, .15f, .1f, .03f, .01f, .007f, .003f};
    for (int i = 0; i < SIZE; i++) logits[i] = logf(p[i]) + 2;
}

/* The ids that ever come out, as bits. */
static unsigned survivors(LmSampling options) {
    Error err = {0};
    LmSampler sampler;
    unsigned seen = 0;
    mx_scope s = mx_open();
    const int special[] = {1};
    if (!lm_sampler_init(&sampler, &options, SIZE, special, 1, &err)) fail_msg("%s", err.message);
    mx_seed(7);
    for (int i = 0; i < DRAWS; i++) {
        float logits[SIZE];
        fill(logits);
        seen |= 1u << lm_sampler_choose(&sampler, logits, NULL);
    }
    lm_sampler_free(&sampler);
    mx_drop(s);
    assert_true(mx_check(&err));
    return seen;
}

static void test_zero_temperature_takes_the_largest(void **state) {
    (void)state;
    assert_int_equal(survivors((LmSampling){.temp = 0, .top_p = 0.1f, .xtc_probability = 1}), 1);
}

static void test_top_p_keeps_the_smallest_set_that_holds_p(void **state) {
    (void)state;
    assert_int_equal(survivors((LmSampling){.temp = 1, .top_p = 0.3f}), 0x01);
    assert_int_equal(survivors((LmSampling){.temp = 1, .top_p = 0.5f}), 0x03);
    assert_int_equal(survivors((LmSampling){.temp = 1, .top_p = 0.8f}), 0x07);
}

static void test_top_p_ignores_temperature(void **state) {
    (void)state;
    assert_int_equal(survivors((LmSampling){.temp = 50, .top_p = 0.5f}), 0x03);
}

static void test_min_p_is_relative_to_the_largest(void **state) {
    (void)state;
    assert_int_equal(survivors((LmSampling){.temp = 5, .min_p = 0.3f}), 0x07);
    assert_int_equal(survivors((LmSampling){.temp = 5, .min_p = 1, .min_tokens_to_keep = 4}), 0x0f);
}

static void test_top_k_keeps_k(void **state) {
    (void)state;
    assert_int_equal(survivors((LmSampling){.temp = 5, .top_k = 1}), 0x01);
    assert_int_equal(survivors((LmSampling){.temp = 5, .top_k = 3}), 0x07);
}

static void test_xtc_removes_top_choices_but_special_ones(void **state) {
    (void)state;
    /* Above .12 are 0, 1, 2: the least likely of them stays, and 1 is protected. */
    LmSampling always = {.temp = 1, .top_k = 4, .xtc_probability = 1, .xtc_threshold = 0.12f};
    assert_int_equal(survivors(always) & 0x0f, 0x0e);
    always.xtc_probability = 0.5f;
    assert_int_equal(survivors(always) & 0x01, 0x01);
}

static void test_draws_follow_the_probabilities(void **state) {
    (void)state;
    Error err = {0};
    LmSampler sampler;
    int counts[SIZE] = {0};
    mx_scope s = mx_open();
    assert_true(lm_sampler_init(&sampler, &(LmSampling){.temp = 1}, SIZE, NULL, 0, &err));
    mx_seed(11);
    for (int i = 0; i < 2000; i++) {
        float logits[SIZE];
        fill(logits);
        counts[lm_sampler_choose(&sampler, logits, NULL)]++;
    }
    assert_in_range(counts[0], 700, 900);
    assert_in_range(counts[1], 520, 680);
    lm_sampler_free(&sampler);
    mx_drop(s);
}

static void test_a_seed_gives_the_same_tokens(void **state) {
    (void)state;
    Error err = {0};
    LmSampler sampler;
    int first[20], again[20];
    mx_scope s = mx_open();
    assert_true(lm_sampler_init(&sampler, &(LmSampling){.temp = 1}, SIZE, NULL, 0, &err));
    for (int round = 0; round < 2; round++) {
        mx_seed(123);
        for (int i = 0; i < 20; i++) {
            float logits[SIZE];
            fill(logits);
            (round ? again : first)[i] = lm_sampler_choose(&sampler, logits, NULL);
        }
    }
    assert_memory_equal(first, again, sizeof first);
    lm_sampler_free(&sampler);
    mx_drop(s);
}

/* Logits after penalties, history 2 5 5 1. */
static void penalised(LmSampling options, float *logits) {
    Error err = {0};
    LmSampler sampler;
    const int history[] = {2, 5, 5, 1};
    for (int i = 0; i < SIZE; i++) logits[i] = (float)(i - 4);
    assert_true(lm_sampler_init(&sampler, &options, SIZE, NULL, 0, &err));
    for (int i = 0; i < 4; i++) lm_sampler_see(&sampler, history[i]);
    assert_false(lm_sampler_is_argmax(&sampler));
    lm_sampler_choose(&sampler, logits, NULL);
    lm_sampler_free(&sampler);
}

static void test_penalties(void **state) {
    (void)state;
    float x[SIZE];
    penalised((LmSampling){.repetition_penalty = 2}, x);
    const float repetition[SIZE] = {-4, -6, -4, -1, 0, 0.5f, 2, 3};
    assert_memory_equal(x, repetition, sizeof x);
    penalised((LmSampling){.presence_penalty = 1}, x);
    const float presence[SIZE] = {-4, -4, -3, -1, 0, 0, 2, 3};
    assert_memory_equal(x, presence, sizeof x);
    penalised((LmSampling){.frequency_penalty = 1}, x);
    const float frequency[SIZE] = {-4, -4, -3, -1, 0, -1, 2, 3};
    assert_memory_equal(x, frequency, sizeof x);
    penalised((LmSampling){.frequency_penalty = 1, .frequency_context = 2}, x);
    const float recent[SIZE] = {-4, -4, -2, -1, 0, 0, 2, 3};
    assert_memory_equal(x, recent, sizeof x);
    penalised(
        (LmSampling){.bias_ids = (const int[]){3}, .biases = (const float[]){9}, .n_biases = 1}, x);
    assert_float_equal(x[3], 8, 0);
}

static void test_logprobs_are_before_temperature(void **state) {
    (void)state;
    Error err = {0};
    LmSampler sampler;
    float logits[SIZE], logprob;
    fill(logits);
    mx_scope s = mx_open();
    assert_true(
        lm_sampler_init(&sampler, &(LmSampling){.temp = 3, .top_k = 1}, SIZE, NULL, 0, &err));
    assert_int_equal(lm_sampler_choose(&sampler, logits, &logprob), 0);
    assert_float_equal(logprob, logf(.4f), 1e-5);
    lm_sampler_free(&sampler);
    mx_drop(s);
}

static void test_bad_options_are_refused(void **state) {
    (void)state;
    const struct {
        LmSampling options;
        const char *part;
    } cases[] = {
        {{.temp = -1}, "temp"},
        {{.min_p = 1.5f}, "min-p"},
        {{.top_p = -0.5f}, "top-p"},
        {{.top_k = SIZE}, "top-k"},
        {{.xtc_threshold = 0.7f}, "xtc-threshold"},
        {{.xtc_probability = 2}, "xtc-probability"},
        {{.repetition_penalty = -1}, "repetition-penalty"},
        {{.bias_ids = (const int[]){SIZE}, .biases = (const float[]){1}, .n_biases = 1}, "token 8"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Error err = {0};
        LmSampler sampler;
        assert_false(lm_sampler_init(&sampler, &cases[i].options, SIZE, NULL, 0, &err));
        assert_non_null(strstr(err.message, cases[i].part));
        lm_sampler_free(&sampler);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_temperature_takes_the_largest),
        cmocka_unit_test(test_top_p_keeps_the_smallest_set_that_holds_p),
        cmocka_unit_test(test_top_p_ignores_temperature),
        cmocka_unit_test(test_min_p_is_relative_to_the_largest),
        cmocka_unit_test(test_top_k_keeps_k),
        cmocka_unit_test(test_xtc_removes_top_choices_but_special_ones),
        cmocka_unit_test(test_draws_follow_the_probabilities),
        cmocka_unit_test(test_a_seed_gives_the_same_tokens),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_logprobs_are_before_temperature),
        cmocka_unit_test(test_bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
