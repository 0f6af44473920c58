/* mx: scopes hand up what they should, the first failure sticks and names its
 * operation, scalars keep the dtype beside them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mx/mx.h"

static mlx_array numbers(int count) {
    float values[16];
    for (int i = 0; i < count; i++) values[i] = (float)i;
    return mx_from_f32(values, MX_SHAPE(count));
}

static void test_a_scope_hands_its_result_to_the_scope_around_it(void **state) {
    (void)state;
    mx_scope outer = mx_open();
    mx_scope inner = mx_open();
    mlx_array a = numbers(3);
    mlx_array sum = mx_close(inner, mx_add(a, a));
    float host[3];
    assert_true(mx_copy_f32(sum, host, 3));
    assert_float_equal(host[2], 4, 0);
    assert_true(mx_empty(mx_close(outer, sum)));
}

static void test_several_results_leave_a_scope(void **state) {
    (void)state;
    mx_scope outer = mx_open();
    mx_scope inner = mx_open();
    mlx_array results[3] = {numbers(4), {0}, numbers(5)};
    results[1] = mx_mul_scalar(results[0], 2);
    mx_close_many(inner, results, 3);
    assert_int_equal(mx_size(results[0]), 4);
    assert_float_equal(mx_item_float(mx_slice(results[1], 0, 3, 4)), 6, 0);
    assert_int_equal(mx_size(results[2]), 5);
    mx_drop(outer);
}

static void test_kept_and_stored_arrays_outlive_scopes(void **state) {
    (void)state;
    mlx_array slot = {0};
    mx_scope s = mx_open();
    mlx_array kept = mx_keep(numbers(2));
    mx_store(&slot, numbers(7));
    mx_drop(s);
    assert_int_equal(mx_size(kept), 2);
    s = mx_open();
    mx_store(&slot, (mlx_array){0});
    assert_int_equal(mx_size(slot), 7);
    mx_store(&slot, numbers(3));
    assert_int_equal(mx_size(slot), 3);
    mx_drop(s);
    mx_free(&kept);
    mx_free(&slot);
    assert_true(mx_empty(slot));
}

static void test_the_first_failure_sticks_and_names_operation_and_shapes(void **state) {
    (void)state;
    mx_scope s = mx_open();
    mlx_array bad = mx_add(numbers(2), numbers(3));
    assert_true(mx_empty(bad));
    assert_true(mx_failed());
    assert_true(mx_empty(mx_matmul(bad, bad)));
    Error err = {0};
    assert_false(mx_check(&err));
    assert_non_null(strstr(err.message, "add(float32[2], float32[3])"));
    assert_true(mx_check(&err));
    assert_int_equal(mx_size(mx_add(numbers(2), numbers(2))), 2);
    mx_drop(s);
}

static void test_calls_outside_a_scope_fail(void **state) {
    (void)state;
    Error err = {0};
    assert_true(mx_empty(mx_zeros(MX_SHAPE(2), MLX_FLOAT32)));
    assert_false(mx_check(&err));
    assert_non_null(strstr(err.message, "scope"));
}

static void test_scalars_take_the_dtype_beside_them(void **state) {
    (void)state;
    mx_scope s = mx_open();
    mlx_array half = mx_cast(numbers(3), MLX_BFLOAT16);
    assert_int_equal(mx_dtype(mx_mul_scalar(half, 0.5)), MLX_BFLOAT16);
    assert_int_equal(mx_dtype(mx_add_scalar(half, 1)), MLX_BFLOAT16);
    assert_ptr_equal(mx_mul_scalar(half, 1).ctx, half.ctx);
    assert_ptr_equal(mx_cast(half, MLX_BFLOAT16).ctx, half.ctx);
    mx_drop(s);
}

static void test_slices_clamp_and_count_from_the_end(void **state) {
    (void)state;
    mx_scope s = mx_open();
    mlx_array a = numbers(6);
    int host[2];
    assert_true(mx_copy_i32(mx_slice(a, 0, -2, 100), host, 2));
    assert_int_equal(host[0], 4);
    assert_int_equal(host[1], 5);
    assert_int_equal(mx_size(mx_slice(a, 0, 4, 2)), 0);
    assert_ptr_equal(mx_slice(a, 0, 0, 6).ctx, a.ctx);
    mx_drop(s);
}

static void test_a_slot_is_updated_along_an_axis(void **state) {
    (void)state;
    mlx_array slot = {0};
    mx_scope s = mx_open();
    mx_store(&slot, mx_zeros(MX_SHAPE(2, 4), MLX_FLOAT32));
    mx_slice_assign(&slot, mx_reshape(numbers(4), MX_SHAPE(2, 2)), 1, 1);
    mx_drop(s);
    s = mx_open();
    float host[8];
    assert_true(mx_copy_f32(slot, host, 8));
    const float expected[8] = {0, 0, 1, 0, 0, 2, 3, 0};
    assert_memory_equal(host, expected, sizeof host);
    mx_drop(s);
    mx_free(&slot);
}

static void test_copies_refuse_another_size(void **state) {
    (void)state;
    mx_scope s = mx_open();
    float host[4];
    assert_false(mx_copy_f32(numbers(3), host, 4));
    Error err = {0};
    assert_false(mx_check(&err));
    mx_drop(s);
}

static void test_activations_match_their_formulas(void **state) {
    (void)state;
    mx_scope s = mx_open();
    float host[2];
    mlx_array x = mx_from_f32((const float[]){-1, 2}, MX_SHAPE(2));
    assert_true(mx_copy_f32(mx_silu(x), host, 2));
    assert_float_equal(host[0], -0.26894142, 1e-6);
    assert_true(mx_copy_f32(mx_gelu(x), host, 2));
    assert_float_equal(host[1], 1.9544997, 1e-6);
    assert_true(mx_copy_f32(mx_gelu_approx(x), host, 2));
    assert_float_equal(host[0], -0.15880801, 1e-6);
    mx_drop(s);
}

static void test_seeds_reproduce_draws(void **state) {
    (void)state;
    mx_scope s = mx_open();
    mx_seed(42);
    double first = mx_item_float(mx_uniform(0, 1, NULL, 0, MLX_FLOAT32));
    mx_uniform(0, 1, NULL, 0, MLX_FLOAT32);
    mx_seed(42);
    assert_true(first == mx_item_float(mx_uniform(0, 1, NULL, 0, MLX_FLOAT32)));
    mx_drop(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_scope_hands_its_result_to_the_scope_around_it),
        cmocka_unit_test(test_several_results_leave_a_scope),
        cmocka_unit_test(test_kept_and_stored_arrays_outlive_scopes),
        cmocka_unit_test(test_the_first_failure_sticks_and_names_operation_and_shapes),
        cmocka_unit_test(test_calls_outside_a_scope_fail),
        cmocka_unit_test(test_scalars_take_the_dtype_beside_them),
        cmocka_unit_test(test_slices_clamp_and_count_from_the_end),
        cmocka_unit_test(test_a_slot_is_updated_along_an_axis),
        cmocka_unit_test(test_copies_refuse_another_size),
        cmocka_unit_test(test_activations_match_their_formulas),
        cmocka_unit_test(test_seeds_reproduce_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
