/* Shapes, axes, indexing, empty arrays, and what is refused. */
#include "conformance/check.h"

static void test_negative_axes_are_those_from_the_end(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 3, 4));
    check_same(OP(sum_axis, x, -1, false), OP(sum_axis, x, 2, false), 0);
    check_same(OP(max_axes, x, LIST(-3, -1), true), OP(max_axes, x, LIST(0, 2), true), 0);
    check_same(OP(transpose_axes, x, LIST(-1, 0, -2)), OP(transpose_axes, x, LIST(2, 0, 1)), 0);
    check_same(OP(swapaxes, x, -1, 0), OP(swapaxes, x, 2, 0), 0);
    check_same(OP(moveaxis, x, -1, 0), OP(moveaxis, x, 2, 0), 0);
    check_same(OP(cumsum, x, -2, true, false), OP(cumsum, x, 1, true, false), 0);
    check_same(OP(argmax_axis, x, -2, true), OP(argmax_axis, x, 1, true), 0);
    check_same(OP(take_axis, x, scalar(MLX_INT32, -1), -1),
               OP(take_axis, x, scalar(MLX_UINT8, 3), 2), 0);
    check_same(OP(repeat_axis, x, 2, -2), OP(repeat_axis, x, 2, 1), 0);
    check_same(OP(softmax_axis, x, -2, true), OP(softmax_axis, x, 1, true), 0);
    check_same(OP(flatten, x, -2, -1), OP(flatten, x, 1, 2), 0);
    check_shape(OP(expand_dims, x, -1), MLX_FLOAT32, SHAPE(2, 3, 4, 1));
    check_shape(OP(expand_dims_axes, x, LIST(0, -1)), MLX_FLOAT32, SHAPE(1, 2, 3, 4, 1));
    check_shape(OP(unflatten, x, -1, LIST(2, -1)), MLX_FLOAT32, SHAPE(2, 3, 2, 2));
}

static void test_axes_out_of_range_or_twice_are_refused(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 3)), i = OP(astype, x, MLX_INT32);
    FAILS("", sum_axis, x, 2, false);
    FAILS("", sum_axis, x, -3, false);
    FAILS("", sum_axes, x, LIST(0, -2), false);
    FAILS("", max_axes, x, LIST(1, 1), false);
    FAILS("", mean_axis, x, 5, true);
    FAILS("", argmax_axis, scalar(MLX_FLOAT32, 1), 3, true);
    FAILS("", transpose_axes, x, LIST(0));
    FAILS("", transpose_axes, x, LIST(0, 0));
    FAILS("", transpose_axes, x, LIST(0, 2));
    FAILS("", swapaxes, x, 0, 2);
    FAILS("", moveaxis, x, -3, 0);
    FAILS("", squeeze_axis, x, 0);
    FAILS("", squeeze_axis, x, 7);
    FAILS("", expand_dims, x, 4);
    FAILS("", expand_dims_axes, x, LIST(0, 0));
    FAILS("", cumsum, x, 2, false, true);
    FAILS("", sort_axis, x, -3);
    FAILS("", argsort_axis, x, 2);
    FAILS("", softmax_axis, x, 2, false);
    FAILS("", logsumexp_axis, x, -3, false);
    FAILS("", take_axis, x, i, 2);
    FAILS("", take_along_axis, x, i, 2);
    FAILS("", put_along_axis, x, i, x, -3);
    FAILS("", repeat_axis, x, 2, 2);
    FAILS("", repeat_axis, x, -1, 0);
    FAILS("", roll_axis, x, LIST(1), 2);
    FAILS("", flatten, x, 2, 3);
    FAILS("", flatten, x, 1, 0);
    FAILS("", unflatten, x, 0, LIST(3, -1));
    FAILS("", unflatten, x, 2, LIST(1));
    FAILS("", topk_axis, x, 4, 1);
    FAILS("", partition_axis, x, 3, 1);
}

static void test_shapes_that_do_not_fit_are_refused(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 3)), y = count_up(MLX_FLOAT32, SHAPE(4));
    mlx_array z = count_up(MLX_FLOAT32, SHAPE(2));
    FAILS("[broadcast_shapes] Shapes (2,3) and (4) cannot be broadcast.", add, x, y);
    FAILS("broadcast", where, x, x, y);
    FAILS("[matmul] Last dimension of first input with shape (2,3)", matmul, x, y);
    FAILS("[matmul]", matmul, scalar(MLX_FLOAT32, 1), x);
    FAILS("", addmm, count_up(MLX_FLOAT32, SHAPE(5)), x, OP(transpose, x), 1, 1);
    FAILS("", addmm, count_up(MLX_FLOAT32, SHAPE(7, 2, 2)), x, OP(transpose, x), 1, 1);
    FAILS("[reshape] Cannot reshape array of size 6 into shape (4)", reshape, x, LIST(4));
    FAILS("", reshape, x, LIST(-1, -1));
    FAILS("", reshape, x, LIST(-1, 4));
    FAILS("", reshape, x, LIST(-2, 3));
    FAILS("", broadcast_to, x, LIST(3));
    FAILS("", broadcast_to, x, LIST(2, 4));
    FAILS("", broadcast_to, x, LIST(-1, 3));
    FAILS("", full, LIST(-1), z, MLX_FLOAT32);
    FAILS("", zeros, LIST(2, -3), MLX_FLOAT32);
    FAILS("", slice, x, LIST(0), LIST(1), LIST(1));
    FAILS("", slice_update, x, y, LIST(0, 0), LIST(1, 2), LIST(1, 1));
    FAILS("broadcast", slice_update, x, count_up(MLX_FLOAT32, SHAPE(1, 1, 1)), LIST(0, 0),
          LIST(1, 1), LIST(1, 1));
    FAILS("", pad, x, LIST(0), LIST(-1), LIST(0), scalar(MLX_FLOAT32, 0), "constant");
    FAILS("", pad, x, LIST(0), LIST(1, 1), LIST(0), scalar(MLX_FLOAT32, 0), "constant");
    FAILS("", pad, x, LIST(0), LIST(1), LIST(1), scalar(MLX_FLOAT32, 0), "nonsense");
    FAILS("[tril]", tril, y, 0);
    FAILS("", take_along_axis, x, OP(astype, z, MLX_INT32), 0);
    FAILS("", take, x, y);
    FAILS("", fast_rms_norm, x, y, 1e-5f);
    FAILS("", fast_layer_norm, x, z, NONE, 1e-5f);
    mlx_vector_array list = vector_of((mlx_array[]){x, y}, 2), none = mlx_vector_array_new();
    FAILS("[concatenate]", concatenate_axis, list, 0);
    FAILS("[stack]", stack_axis, list, 0);
    FAILS("[concatenate]", concatenate_axis, none, 0);
    FAILS("[stack]", stack_axis, none, 0);
    mlx_vector_array parts = mlx_vector_array_new();
    assert_int_equal(mlx_split(&parts, x, 2, 1, cpu), 1);
    assert_int_equal(mlx_split(&parts, x, 0, 1, cpu), 1);
    assert_int_equal(mlx_split(&parts, x, 1, 2, cpu), 1);
    assert_int_equal(mlx_vector_array_size(parts), 0);
    mlx_vector_array_free(parts);
    mlx_vector_array_free(list);
    mlx_vector_array_free(none);
}

static void test_empty_arrays_flow_through(void **state) {
    (void)state;
    mlx_array x = empty(MLX_FLOAT32, SHAPE(0, 3)), v = empty(MLX_INT32, SHAPE(0));
    check(OP(add, x, scalar(MLX_FLOAT32, 1)));
    check_shape(OP(add, x, empty(MLX_FLOAT32, SHAPE(1, 3))), MLX_FLOAT32, SHAPE(0, 3));
    check(OP(sum, x, false), 0);
    check(OP(sum_axis, x, 0, false), 0, 0, 0);
    check_shape(OP(sum_axis, x, 1, false), MLX_FLOAT32, SHAPE(0));
    check(OP(mean, x, false), NAN);
    check(OP(all, v, false), 1);
    check(OP(any, v, false), 0);
    check_shape(OP(matmul, x, empty(MLX_FLOAT32, SHAPE(3, 2))), MLX_FLOAT32, SHAPE(0, 2));
    check(OP(matmul, empty(MLX_FLOAT32, SHAPE(2, 0)), empty(MLX_FLOAT32, SHAPE(0, 2))), 0, 0, 0, 0);
    check_shape(OP(transpose, x), MLX_FLOAT32, SHAPE(3, 0));
    check_shape(OP(reshape, x, LIST(0, 5)), MLX_FLOAT32, SHAPE(0, 5));
    check_shape(OP(reshape, x, LIST(3, 0)), MLX_FLOAT32, SHAPE(3, 0));
    check_shape(OP(flatten, x, 0, -1), MLX_FLOAT32, SHAPE(0));
    check_shape(OP(softmax_axis, x, -1, true), MLX_FLOAT32, SHAPE(0, 3));
    check_shape(OP(take_axis, count_up(MLX_FLOAT32, SHAPE(2, 3)), v, 0), MLX_FLOAT32, SHAPE(0, 3));
    check_shape(OP(pad, x, LIST(0), LIST(1), LIST(1), scalar(MLX_FLOAT32, 5), "constant"),
                MLX_FLOAT32, SHAPE(2, 3));
    check_shape(OP(arange, 5, 1, 1, MLX_INT32), MLX_INT32, SHAPE(0));
    check(OP(array_equal, x, x, false), 1);
    check_shape(OP(tile, x, LIST(2, 2)), MLX_FLOAT32, SHAPE(0, 6));
    check_shape(OP(repeat_axis, count_up(MLX_INT8, SHAPE(2, 2)), 0, 1), MLX_INT8, SHAPE(0));
    check_shape(OP(slice_update, x, x, LIST(0, 0), LIST(0, 3), LIST(1, 1)), MLX_FLOAT32,
                SHAPE(0, 3));
    check_shape(OP(fast_rms_norm, x, NONE, 1e-5f), MLX_FLOAT32, SHAPE(0, 3));
    check_shape(OP(put_along_axis, x, empty(MLX_INT32, SHAPE(0, 3)), x, 0), MLX_FLOAT32,
                SHAPE(0, 3));
    mlx_vector_array list = vector_of((mlx_array[]){x, count_up(MLX_FLOAT32, SHAPE(1, 3)), x}, 3);
    check(OP(concatenate_axis, list, 0), 0, 1, 2);
    mlx_vector_array_free(list);
    FAILS("[max] Cannot max reduce zero size array", max, x, false);
    FAILS("[min] Cannot min reduce zero size array", min_axis, x, 1, false);
    FAILS("[argmax] Cannot argmax reduce zero size array", argmax_axis, x, 1, false);
    FAILS("[logsumexp] Received empty array", logsumexp_axis, x, 1, false);
    FAILS("broadcast", add, x, empty(MLX_FLOAT32, SHAPE(2, 3)));
}

static void test_indices_of_every_type_wrap_once(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(3, 4));
    for (int dtype = MLX_UINT8; dtype <= MLX_INT64; dtype++)
        check(OP(take_axis, x, row((mlx_dtype)dtype, VALUES(2, 0)), 1), 2, 0, 6, 4, 10, 8);
    check(OP(take, x, row(MLX_INT32, VALUES(-1, 5, -12))), 11, 5, 0);
    check(OP(take_axis, x, make(MLX_INT64, SHAPE(1, 2), VALUES(-1, -3)), 0), 8, 9, 10, 11, 0, 1, 2,
          3);
    check(OP(take_along_axis, x, make(MLX_INT8, SHAPE(3, 1), VALUES(-1, 0, 2)), 1), 3, 4, 10);
    mlx_array two = row(MLX_INT32, VALUES(0, 2));
    mlx_vector_array both = vector_of((mlx_array[]){two, row(MLX_INT32, VALUES(1, 3))}, 2);
    check(OP(gather, x, both, LIST(0, 1), LIST(1, 1)), 1, 11);
    check_shape(OP(gather, x, both, LIST(0, 1), LIST(1, 1)), MLX_FLOAT32, SHAPE(2, 1, 1));
    mlx_vector_array_free(both);
    check(OP(put_along_axis, x, make(MLX_INT32, SHAPE(3, 1), VALUES(0, 1, -1)),
             scalar(MLX_FLOAT32, 9), 1),
          9, 1, 2, 3, 4, 9, 6, 7, 8, 9, 10, 9);
    if (upstream(INDEX_BOUNDS)) return;
    mlx_array bad = mlx_array_new();
    assert_int_equal(mlx_take_axis(&bad, x, scalar(MLX_INT32, 3), 0, cpu), 0);
    assert_int_equal(mlx_array_eval(bad), 1);
    mlx_array_free(bad);
}

static void test_nan_and_infinity_behave(void **state) {
    (void)state;
    mlx_array x = row(MLX_FLOAT32, VALUES(1, NAN, 3)),
              i = row(MLX_FLOAT32, VALUES(-INFINITY, 2, INFINITY));
    check(OP(max, x, false), NAN);
    check(OP(min, x, false), NAN);
    check(OP(maximum, x, scalar(MLX_FLOAT32, 2)), 2, NAN, 3);
    check(OP(minimum, scalar(MLX_FLOAT32, 2), x), 1, NAN, 2);
    check(OP(argmax, x, false), 2);
    check(OP(sort_axis, row(MLX_FLOAT32, VALUES(NAN, 2, -INFINITY, INFINITY)), 0), -INFINITY, 2,
          INFINITY, NAN);
    check(OP(argsort_axis, row(MLX_FLOAT16, VALUES(NAN, 2, -1)), 0), 2, 1, 0);
    check(OP(isnan, x), 0, 1, 0);
    check(OP(isinf, i), 1, 0, 1);
    check(OP(equal, x, x), 1, 0, 1);
    check(OP(not_equal, x, x), 0, 1, 0);
    check(OP(array_equal, x, x, false), 0);
    check(OP(array_equal, x, x, true), 1);
    check(OP(allclose, i, i, 1e-5, 1e-8, false), 1);
    check(OP(allclose, x, x, 1e-5, 1e-8, false), 0);
    check(OP(allclose, x, x, 1e-5, 1e-8, true), 1);
    check(OP(softmax, i, true), NAN, NAN, NAN);
    check(OP(softmax, row(MLX_FLOAT32, VALUES(-INFINITY, -INFINITY)), true), NAN, NAN);
    check(OP(logsumexp, row(MLX_FLOAT32, VALUES(-INFINITY, -INFINITY)), false), -INFINITY);
    check(OP(logaddexp, i, i), -INFINITY, 2 + log(2), INFINITY);
    check(OP(sign, row(MLX_FLOAT32, VALUES(-2, NAN, 0, 5))), -1, 0, 0, 1);
    check(OP(log, row(MLX_FLOAT32, VALUES(0, -1, INFINITY))), -INFINITY, NAN, INFINITY);
    check(OP(log1p, row(MLX_FLOAT32, VALUES(-1, -2))), -INFINITY, NAN);
    check(OP(exp, i), 0, exp(2), INFINITY);
    check(OP(divide, row(MLX_FLOAT32, VALUES(1, -1, 0)), scalar(MLX_FLOAT32, 0)), INFINITY,
          -INFINITY, NAN);
    check(OP(divide, row(MLX_INT32, VALUES(1, -1, 0)), scalar(MLX_INT32, 0)), INFINITY, -INFINITY,
          NAN);
    check(OP(clip, x, scalar(MLX_FLOAT32, 2), scalar(MLX_FLOAT32, 2.5)), 2, NAN, 2.5);
    check(OP(logical_not, x), 0, 0, 0);
    check(OP(round, row(MLX_FLOAT32, VALUES(0.5, 1.5, -2.5, INFINITY)), 0), 0, 2, -2, INFINITY);
    check(OP(tanh, i), -1, tanh(2), 1);
    check(OP(sigmoid, i), 0, 1 / (1 + exp(-2)), 1);
    check(OP(cumsum, x, 0, false, true), 1, NAN, NAN);
}

static void test_sums_of_halves_are_exact(void **state) {
    (void)state;
    if (upstream(HALF_SUMS)) return;
    for (int k = 0; k < 2; k++) {
        const mlx_dtype dtype = k ? MLX_BFLOAT16 : MLX_FLOAT16;
        mlx_array ones = OP(ones, LIST(1000), dtype);
        check(OP(sum, ones, false), 1000);
        check(OP(mean, ones, false), 1);
        check(OP(matmul, OP(reshape, ones, LIST(1, 1000)), OP(reshape, ones, LIST(1000, 1))), 1000);
        check(OP(sum_axis, OP(ones, LIST(1024, 3), dtype), 0, false), 1024, 1024, 1024);
    }
}

static void test_arange_counts(void **state) {
    (void)state;
    check(OP(arange, 0, 1, 0.3, MLX_FLOAT32), 0, 0.3f, 0.3f * 2, 0.9f);
    check(OP(arange, 5, 0, -2, MLX_INT32), 5, 3, 1);
    FAILS("", arange, 0, 5, NAN, MLX_FLOAT32);
    FAILS("", arange, 0, INFINITY, 1, MLX_FLOAT32);
    if (!upstream(ARANGE))
        check(OP(take, OP(arange, 0, 300, 1, MLX_BFLOAT16), scalar(MLX_INT32, 299)), 300);
}

static void test_ranges_of_integers_step_by_what_is_whole(void **state) {
    (void)state;
    check(OP(arange, -3, 3, 1.5, MLX_INT32), -3, -1, 1, 3);
    check(OP(arange, 0.5, 4, 0.5, MLX_INT64), 0, 1, 2, 3, 4, 5, 6);
    check(OP(arange, 0.6, 3, 0.7, MLX_UINT8), 0, 1, 2, 3);
    check(OP(arange, 5, 0, -2, MLX_INT8), 5, 3, 1);
}

static void test_tiles_of_many_axes(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(1, 1, 1, 1, 1, 1, 1, 1, 1, 2));
    int reps[10] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 2};
    check(OP(tile, x, reps, 10), 0, 1, 0, 1);
    check(OP(kron, x, x), 0, 0, 0, 1);
    reps[0] = 2;
    check(OP(tile, x, reps, 10), 0, 1, 0, 1, 0, 1, 0, 1);
}

static void test_padding_wants_a_value_in_every_mode(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(3));
    FAILS("", pad, x, LIST(0), LIST(1), LIST(1), NONE, "edge");
    FAILS("", pad_symmetric, x, 1, NONE, "edge");
}

RUN(TEST(test_ranges_of_integers_step_by_what_is_whole), TEST(test_tiles_of_many_axes),
    TEST(test_padding_wants_a_value_in_every_mode), TEST(test_negative_axes_are_those_from_the_end),
    TEST(test_axes_out_of_range_or_twice_are_refused),
    TEST(test_shapes_that_do_not_fit_are_refused), TEST(test_empty_arrays_flow_through),
    TEST(test_indices_of_every_type_wrap_once), TEST(test_nan_and_infinity_behave),
    TEST(test_sums_of_halves_are_exact), TEST(test_arange_counts))
