/* Derivatives forward: of complex numbers, through functions with a rule for the way
 * back only; and derivatives where there is nothing, or in the less usual argument. */
#include "conformance/check.h"

typedef int (*Unary)(mlx_array *res, const mlx_array x, const mlx_stream s);

static int apply_unary(mlx_vector_array *res, const mlx_vector_array in, void *payload) {
    mlx_array x = mlx_array_new(), y = mlx_array_new();
    const int failed = mlx_vector_array_get(&x, in, 0) || (*(Unary *)payload)(&y, x, cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(x);
    mlx_array_free(y);
    return failed;
}

/* Item `at` of what f pushes forward, or (back) of what it pulls back. */
static mlx_array derivative(mlx_closure f, mlx_vector_array in, mlx_array direction, size_t at,
                            bool back) {
    mlx_vector_array values = mlx_vector_array_new(), results = mlx_vector_array_new();
    mlx_vector_array directions = vector_of(&direction, 1);
    mlx_array out = mlx_array_new();
    const int failed = (back ? mlx_vjp(&values, &results, f, in, directions)
                             : mlx_jvp(&values, &results, f, in, directions)) ||
                       mlx_vector_array_get(&out, results, at);
    mlx_vector_array_free(values);
    mlx_vector_array_free(results);
    mlx_vector_array_free(directions);
    return must(failed, out);
}

static void test_tangents_of_complex_functions_are_derivatives(void **state) {
    (void)state;
    const struct {
        Unary function;
        double real, imaginary; /* at 1 + 2i */
    } cases[] = {{mlx_square, 2, 4},           {mlx_exp, -1.1312043838, 2.4717266720},
                 {mlx_log, 0.2, -0.4},         {mlx_sqrt, 0.2844322249, -0.1757887680},
                 {mlx_reciprocal, 0.12, 0.16}, {mlx_sin, 2.0327230070, -3.0518977992},
                 {mlx_negative, -1, 0}};
    mlx_array z = keep(mlx_array_new_complex(1, 2)), one = keep(mlx_array_new_complex(1, 0));
    mlx_vector_array in = vector_of(&z, 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        Unary function = cases[i].function;
        mlx_closure f = mlx_closure_new_func_payload(apply_unary, &function, NULL);
        mlx_array t = derivative(f, in, one, 0, false);
        check_near(OP(real, t), &cases[i].real, 1, 1e-5);
        check_near(OP(imag, t), &cases[i].imaginary, 1, 1e-5);
        mlx_closure_free(f);
    }
    mlx_vector_array_free(in);
}

static void test_the_gradient_of_one_over_a_complex_number(void **state) {
    (void)state;
    mlx_array z = keep(mlx_array_new_complex(1, 2)), one = keep(mlx_array_new_complex(1, 0));
    mlx_vector_array in = vector_of(&z, 1);
    Unary function = mlx_reciprocal;
    mlx_closure f = mlx_closure_new_func_payload(apply_unary, &function, NULL);
    mlx_array g = derivative(f, in, one, 0, true);
    check_near(OP(real, g), (const double[]){0.12}, 1, 1e-6);
    check_near(OP(imag, g), (const double[]){-0.16}, 1, 1e-6);
    mlx_closure_free(f);
    mlx_vector_array_free(in);
}

static int hundredfold(mlx_vector_array *res, const mlx_vector_array primals,
                       const mlx_vector_array cotangents, const mlx_vector_array outputs) {
    (void)primals;
    (void)outputs;
    mlx_array g = mlx_array_new(), hundred = mlx_array_new_float(100);
    const int failed = mlx_vector_array_get(&g, cotangents, 0) || mlx_multiply(&g, g, hundred, cpu);
    *res = mlx_vector_array_new_value(g);
    mlx_array_free(g);
    mlx_array_free(hundred);
    return failed;
}

static void test_a_rule_for_the_way_back_leaves_the_way_forward_alone(void **state) {
    (void)state;
    mlx_array x = scalar(MLX_FLOAT32, 3), one = scalar(MLX_FLOAT32, 1);
    mlx_vector_array in = vector_of(&x, 1);
    Unary function = mlx_square;
    mlx_closure f = mlx_closure_new_func_payload(apply_unary, &function, NULL);
    mlx_closure_custom rule = mlx_closure_custom_new_func(hundredfold);
    mlx_closure ruled = mlx_closure_new(), checkpointed = mlx_closure_new();
    assert_int_equal(mlx_custom_vjp(&ruled, f, rule), 0);
    assert_int_equal(mlx_checkpoint(&checkpointed, f), 0);
    check(derivative(ruled, in, one, 0, true), 100);
    check(derivative(ruled, in, one, 0, false), 6);
    check(derivative(checkpointed, in, one, 0, false), 6);
    mlx_closure_custom_free(rule);
    mlx_closure_free(ruled);
    mlx_closure_free(checkpointed);
    mlx_closure_free(f);
    mlx_vector_array_free(in);
}

static int turn(mlx_vector_array *res, const mlx_vector_array in, void *traditional) {
    mlx_array x = mlx_array_new(), freqs = mlx_array_new(), y = mlx_array_new();
    const int failed =
        mlx_vector_array_get(&x, in, 0) || mlx_vector_array_get(&freqs, in, 1) ||
        mlx_fast_rope(&y, x, 4, *(bool *)traditional, (mlx_optional_float){0}, 1, 2, freqs, cpu) ||
        mlx_sum(&y, y, false, cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(x);
    mlx_array_free(freqs);
    mlx_array_free(y);
    return failed;
}

/* Against differences in float32. */
static void test_rope_has_a_gradient_in_its_frequencies(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        bool traditional = i;
        mlx_closure f = mlx_closure_new_func_payload(turn, &traditional, NULL);
        mlx_array x = OP(divide, count_up(MLX_FLOAT32, SHAPE(1, 2, 3, 6)), scalar(MLX_FLOAT32, 9));
        double slopes[2];
        for (int k = 0; k < 2; k++) {
            double sums[2];
            for (int side = 0; side < 2; side++) {
                double freqs[] = {2, 5};
                freqs[k] += side ? 0.01 : -0.01;
                mlx_array at[] = {x, row(MLX_FLOAT32, freqs, 2)}, y = mlx_array_new();
                mlx_vector_array in = vector_of(at, 2), out = mlx_vector_array_new();
                must(mlx_closure_apply(&out, f, in) || mlx_vector_array_get(&y, out, 0), y);
                sums[side] = *doubles(y);
                mlx_vector_array_free(in);
                mlx_vector_array_free(out);
            }
            slopes[k] = (sums[1] - sums[0]) / 0.02;
        }
        mlx_array at[] = {x, row(MLX_FLOAT32, VALUES(2, 5))};
        mlx_vector_array in = vector_of(at, 2);
        check_near(derivative(f, in, scalar(MLX_FLOAT32, 1), 1, true), slopes, 2, 2e-3);
        mlx_vector_array_free(in);
        mlx_closure_free(f);
    }
}

static int normalise(mlx_vector_array *res, const mlx_vector_array in) {
    mlx_array x = mlx_array_new(), w = mlx_array_new(), y = mlx_array_new();
    const int failed = mlx_vector_array_get(&x, in, 0) || mlx_vector_array_get(&w, in, 1) ||
                       mlx_fast_layer_norm(&y, x, w, w, 1e-5f, cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(x);
    mlx_array_free(w);
    mlx_array_free(y);
    return failed;
}

static void test_norms_of_no_rows(void **state) {
    (void)state;
    mlx_array at[] = {empty(MLX_FLOAT32, SHAPE(0, 3)), row(MLX_FLOAT32, VALUES(1, 2, 3))};
    mlx_vector_array in = vector_of(at, 2);
    mlx_closure f = mlx_closure_new_func(normalise);
    check(derivative(f, in, at[0], 1, true), 0, 0, 0);
    check_shape(derivative(f, in, at[0], 0, true), MLX_FLOAT32, SHAPE(0, 3));
    mlx_closure_free(f);
    mlx_vector_array_free(in);
}

static int attend(mlx_vector_array *res, const mlx_vector_array in) {
    mlx_array q = mlx_array_new(), v = mlx_array_new(), y = mlx_array_new();
    const int failed = mlx_vector_array_get(&q, in, 0) || mlx_vector_array_get(&v, in, 1) ||
                       mlx_fast_scaled_dot_product_attention(&y, q, q, v, 1, "", mlx_array_empty,
                                                             mlx_array_empty, cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(q);
    mlx_array_free(v);
    mlx_array_free(y);
    return failed;
}

static void test_attention_by_nothing_and_to_nothing(void **state) {
    (void)state;
    mlx_array at[] = {empty(MLX_FLOAT32, SHAPE(1, 1, 2, 0)),
                      make(MLX_FLOAT32, SHAPE(1, 1, 2, 1), VALUES(3, 5))};
    mlx_vector_array in = vector_of(at, 2);
    mlx_closure f = mlx_closure_new_func(attend);
    check(derivative(f, in, at[1], 1, true), 4, 4);
    mlx_closure_free(f);
    mlx_vector_array_free(in);
    mlx_array q = OP(ones, LIST(1, 1, 2, 4), MLX_FLOAT32);
    mlx_array none = empty(MLX_FLOAT32, SHAPE(1, 1, 0, 4));
    check(OP(fast_scaled_dot_product_attention, q, none, none, 1, "", NONE, NONE), 0, 0, 0, 0, 0, 0,
          0, 0);
    check_shape(OP(fast_scaled_dot_product_attention, none, q, q, 1, "array", NONE, NONE),
                MLX_FLOAT32, SHAPE(1, 1, 0, 4));
}

static int pack(mlx_vector_array *res, const mlx_vector_array in) {
    const mlx_optional_int group = {32, true}, bits = {4, true};
    mlx_array w = mlx_array_new(), scales = mlx_array_new(), biases = mlx_array_new();
    mlx_vector_array parts = mlx_vector_array_new();
    const int failed = mlx_vector_array_get(&w, in, 0) ||
                       mlx_quantize(&parts, w, group, bits, "affine", mlx_array_empty, cpu) ||
                       mlx_vector_array_get(&scales, parts, 1) ||
                       mlx_vector_array_get(&biases, parts, 2) ||
                       mlx_add(&scales, scales, biases, cpu);
    *res = mlx_vector_array_new_value(scales);
    mlx_array_free(w);
    mlx_array_free(scales);
    mlx_array_free(biases);
    mlx_vector_array_free(parts);
    return failed;
}

/* Of 0 to 31 the edge is 31: the scale is 31 / -15 and the bias 31. */
static void test_scales_and_biases_come_from_the_edge_of_a_group(void **state) {
    (void)state;
    mlx_array w = count_up(MLX_FLOAT32, SHAPE(1, 32));
    mlx_vector_array in = vector_of(&w, 1);
    mlx_closure f = mlx_closure_new_func(pack);
    double slopes[32] = {[31] = 14.0 / 15};
    check_near(derivative(f, in, make(MLX_FLOAT32, SHAPE(1, 1), VALUES(1)), 0, true), slopes, 32,
               1e-6);
    mlx_closure_free(f);
    mlx_vector_array_free(in);
}

static int part(mlx_vector_array *res, const mlx_vector_array in) {
    mlx_array x = mlx_array_new(), start = mlx_array_new(), y = mlx_array_new();
    const int failed = mlx_vector_array_get(&x, in, 0) || mlx_vector_array_get(&start, in, 1) ||
                       mlx_slice_dynamic(&y, x, start, LIST(0), LIST(2), cpu);
    *res = mlx_vector_array_new_value(y);
    mlx_array_free(x);
    mlx_array_free(start);
    mlx_array_free(y);
    return failed;
}

static void test_the_place_of_a_slice_does_not_move(void **state) {
    (void)state;
    mlx_array at[] = {row(MLX_FLOAT32, VALUES(1, 2, 3)), row(MLX_INT32, VALUES(1))};
    mlx_array moves[] = {row(MLX_FLOAT32, VALUES(5, 6, 7)), row(MLX_INT32, VALUES(1))};
    mlx_vector_array in = vector_of(at, 2), directions = vector_of(moves, 2);
    mlx_vector_array values = mlx_vector_array_new(), tangents = mlx_vector_array_new();
    mlx_closure f = mlx_closure_new_func(part);
    mlx_array tangent = mlx_array_new();
    must(mlx_jvp(&values, &tangents, f, in, directions) ||
             mlx_vector_array_get(&tangent, tangents, 0),
         tangent);
    check(tangent, 6, 7);
    mlx_closure_free(f);
    mlx_vector_array_free(in);
    mlx_vector_array_free(directions);
    mlx_vector_array_free(values);
    mlx_vector_array_free(tangents);
}

RUN(TEST(test_scales_and_biases_come_from_the_edge_of_a_group),
    TEST(test_the_place_of_a_slice_does_not_move),
    TEST(test_tangents_of_complex_functions_are_derivatives),
    TEST(test_the_gradient_of_one_over_a_complex_number),
    TEST(test_a_rule_for_the_way_back_leaves_the_way_forward_alone),
    TEST(test_rope_has_a_gradient_in_its_frequencies), TEST(test_norms_of_no_rows),
    TEST(test_attention_by_nothing_and_to_nothing))
