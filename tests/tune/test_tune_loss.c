/* Losses against numbers of torch 2.15 in float64 (those of preferences by the formulas
 * of trl's DPOTrainer and ORPOTrainer), and the gradient of one linear layer by hand. */
#include "tune/loss.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "nn/nn.h"

static void expect(mlx_array got, const double *wanted, size_t count, double tolerance) {
    float *values = base_alloc(count * sizeof *values);
    assert_int_equal(mx_size(got), count);
    assert_true(mx_copy_f32(got, values, count));
    for (size_t i = 0; i < count; i++)
        if (!(fabs(values[i] - wanted[i]) <= tolerance * fmax(1e-3, fabs(wanted[i]))))
            fail_msg("%zu: %.9g, wanted %.9g", i, values[i], wanted[i]);
    free(values);
}

static void test_preferences_cost_what_trl_says(void **state) {
    (void)state;
    mx_scope s = mx_open();
    const float c[] = {-12.5f, -3.25f, -40, -7}, r[] = {-14, -2.5f, -90, -7};
    const float rc[] = {-13, -3, -42, -6.5f}, rr[] = {-13.5f, -3, -60, -6};
    mlx_array chosen = mx_from_f32(c, MX_SHAPE(4)), rejected = mx_from_f32(r, MX_SHAPE(4));
    mlx_array before = mx_from_f32(rc, MX_SHAPE(4)), other = mx_from_f32(rr, MX_SHAPE(4));
    mlx_array margins;
    mlx_array losses = tune_dpo_loss(chosen, rejected, before, other, 0.1, &margins);
    expect(losses, (double[]){0.6443967, 0.7313501, 0.03995333, 0.6684597}, 4, 1e-6);
    expect(margins, (double[]){0.1, -0.075, 3.2, 0.05}, 4, 1e-6);
    losses = tune_dpo_loss(chosen, rejected, before, other, 0.5, &margins);
    expect(losses, (double[]){0.474077, 0.8981233, 1.125352e-07, 0.5759394}, 4, 1e-6);
    const float mc[] = {-1.25f, -.5f, -3, -.01f}, mr[] = {-2, -.25f, -3, -4};
    chosen = mx_from_f32(mc, MX_SHAPE(4));
    rejected = mx_from_f32(mr, MX_SHAPE(4));
    losses = tune_orpo_loss(chosen, rejected, 0.1, &margins);
    expect(losses, (double[]){1.28291473, 0.618906993, 3.06931472, 0.0100187492}, 4, 1e-6);
    expect(margins, (double[]){0.942166107, -0.82593942, 0, 8.58168057}, 4, 1e-6);
    losses = tune_orpo_loss(chosen, rejected, 1, &margins);
    expect(losses, (double[]){1.57914734, 1.68906993, 3.69314718, 0.010187492}, 4, 1e-6);
    mx_drop(s);
}

static void test_orpo_stays_finite_where_a_sequence_is_certain(void **state) {
    (void)state;
    mx_scope s = mx_open();
    const float certain = 0, unlikely = -200;
    mlx_array margins;
    mlx_array loss = tune_orpo_loss(mx_from_f32(&certain, MX_SHAPE(1)),
                                    mx_from_f32(&unlikely, MX_SHAPE(1)), 0.1, &margins);
    assert_float_equal(mx_item_float(loss), 0, 1e-6);
    mx_drop(s);
}

static void test_equal_logits_cost_the_logarithm_of_the_vocabulary(void **state) {
    (void)state;
    mx_scope s = mx_open();
    const int targets[] = {0, 31999, 7};
    mlx_array logits = mx_full(MX_SHAPE(3, 32000), 1.5, MLX_FLOAT32);
    mlx_array loss = tune_cross_entropy(logits, mx_from_i32(targets, MX_SHAPE(3)), false);
    expect(loss, (double[]){10.373491, 10.373491, 10.373491}, 3, 1e-7);
    mx_drop(s);
}

/* ---- divergences ------------------------------------------------------------------------ */

enum { N = 2, V = 4000 };

static mlx_array waves(double pace, double size, bool cosine) {
    float *values = base_alloc(N * V * sizeof *values);
    for (int i = 0; i < N * V; i++)
        values[i] = (float)(size * (cosine ? cos(i * pace) : sin(i * pace)));
    mlx_array out = mx_from_f32(values, MX_SHAPE(N, V));
    free(values);
    return out;
}

typedef mlx_array (*Divergence)(mlx_array logits_q, mlx_array logits_p);

static int summed(mlx_vector_array *results, const mlx_vector_array arguments, void *payload) {
    mx_scope s = mx_open();
    mlx_array q = {0}, p = {0};
    mlx_vector_array_get(&q, arguments, 0);
    mlx_vector_array_get(&p, arguments, 1);
    const Divergence *divergence = payload;
    mlx_array sum = mx_sum((*divergence)(mx_own(q), mx_own(p)), 0, false);
    mlx_vector_array_set_value(results, sum);
    mx_drop(s);
    return 0;
}

/* Gradient of function(arguments) towards argument `of`. */
static mlx_array gradient(mlx_closure function, const mlx_array *arguments, size_t count, int of) {
    mlx_vector_array given = mlx_vector_array_new_data(arguments, count);
    mlx_vector_array values = mlx_vector_array_new(), grads = mlx_vector_array_new();
    mlx_closure_value_and_grad both = mlx_closure_value_and_grad_new();
    assert_int_equal(mlx_value_and_grad(&both, function, &of, 1), 0);
    assert_int_equal(mlx_closure_value_and_grad_apply(&values, &grads, both, given), 0);
    mlx_array out = {0};
    mlx_vector_array_get(&out, grads, 0);
    mlx_closure_value_and_grad_free(both);
    mlx_vector_array_free(given);
    mlx_vector_array_free(values);
    mlx_vector_array_free(grads);
    return mx_own(out);
}

static void check_divergence(Divergence divergence, const double *values, const double *slopes,
                             double sum) {
    mx_scope s = mx_open();
    mlx_array pair[] = {waves(0.11, 2, true), waves(0.37, 3, false)};
    expect(divergence(pair[0], pair[1]), values, N, 2e-5);
    mlx_closure function = mlx_closure_new_func_payload(summed, &divergence, NULL);
    mlx_array grad = gradient(function, pair, 2, 0);
    mlx_closure_free(function);
    float *slope = base_alloc(N * V * sizeof *slope);
    assert_true(mx_copy_f32(grad, slope, N * V));
    double found = 0;
    for (int i = 0; i < N * V; i++) found += fabs((double)slope[i]);
    assert_float_equal(found, sum, 1e-4 * sum);
    assert_float_equal(slope[0], slopes[0], 2e-7);
    assert_float_equal(slope[9], slopes[1], 2e-7);
    assert_float_equal(slope[N * V - 1], slopes[2], 2e-7);
    free(slope);
    mx_drop(s);
}

static void test_divergences_and_their_gradients(void **state) {
    (void)state;
    check_divergence(tune_kl_divergence, (double[]){1.66303078, 1.67496021},
                     (double[]){0.000758497023, 0.000299158001, 0.000655337885}, 2.54399908);
    check_divergence(tune_js_divergence, (double[]){0.317121151, 0.319830356},
                     (double[]){0.000133217116, 5.01088069e-05, 9.77614064e-05}, 0.413990128);
}

/* ---- one layer ---------------------------------------------------------------------------- */

typedef struct Layer {
    Linear linear;
    mlx_array towards; /* G: the loss is sum G y */
} Layer;

static int through_layer(mlx_vector_array *results, const mlx_vector_array arguments,
                         void *payload) {
    Layer *layer = payload;
    mx_scope s = mx_open();
    mlx_array given[3] = {{0}};
    for (size_t i = 0; i < 3; i++) {
        mlx_vector_array_get(&given[i], arguments, i);
        mx_own(given[i]);
    }
    layer->linear.module->lora.a = given[1];
    layer->linear.module->lora.b = given[2];
    mlx_array y = nn_linear(&layer->linear, given[0]);
    mlx_array sum = mx_sum(mx_reshape(mx_mul(y, layer->towards), MX_SHAPE(-1)), 0, false);
    mlx_vector_array_set_value(results, sum);
    mx_drop(s);
    return 0;
}

/* W = I, A = [.5; -.5], B = 0, scale 20, x = [1, 2], G = [.1, -.2]. */
static void test_the_gradient_of_a_lora_layer(void **state) {
    (void)state;
    mx_scope s = mx_open();
    const float identity[] = {1, 0, 0, 1}, a[] = {.5f, -.5f}, b[] = {0, 0}, x[] = {1, 2},
                g[] = {.1f, -.2f};
    NnParams *params = nn_params_new("layer", NULL, NULL);
    nn_params_add(params, "l.weight", mx_from_f32(identity, MX_SHAPE(2, 2)));
    Layer layer = {.linear = nn_linear_load(params, 2, 2, false, "l"),
                   .towards = mx_from_f32(g, MX_SHAPE(1, 2))};
    layer.linear.module->lora.scale = 20;
    const mlx_array given[] = {mx_from_f32(x, MX_SHAPE(1, 2)), mx_from_f32(a, MX_SHAPE(2, 1)),
                               mx_from_f32(b, MX_SHAPE(1, 2))};
    mlx_closure function = mlx_closure_new_func_payload(through_layer, &layer, NULL);
    expect(gradient(function, given, 3, 0), (double[]){.1, -.2}, 2, 1e-6);
    expect(gradient(function, given, 3, 1), (double[]){0, 0}, 2, 1e-6);
    expect(gradient(function, given, 3, 2), (double[]){-1, 2}, 2, 1e-6);
    mlx_closure_free(function);
    layer.linear.module->lora = (Lora){0};
    nn_params_free(params);
    mx_drop(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preferences_cost_what_trl_says),
        cmocka_unit_test(test_orpo_stays_finite_where_a_sequence_is_certain),
        cmocka_unit_test(test_equal_logits_cost_the_logarithm_of_the_vocabulary),
        cmocka_unit_test(test_divergences_and_their_gradients),
        cmocka_unit_test(test_the_gradient_of_a_lora_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
