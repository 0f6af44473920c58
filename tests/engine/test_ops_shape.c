/* Views, slices, joins and creation. */
#include "ops_check.h"

static void test_reshape(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(2, 3, 4));
    check_shape(OP(reshape, x, INTS(4, -1)), MLX_INT32, SHAPE(4, 6));
    check_shape(OP(reshape, x, INTS(-1)), MLX_INT32, SHAPE(24));
    mlx_array t = OP(transpose_axes, count_up(MLX_INT32, SHAPE(2, 3)), INTS(1, 0));
    check(OP(reshape, t, INTS(6)), 0, 3, 1, 4, 2, 5);
    check(OP(reshape, OP(reshape, t, INTS(3, 1, 2)), INTS(2, 3)), 0, 3, 1, 4, 2, 5);
    check_shape(OP(reshape, scalar(MLX_INT8, 1), INTS(1, 1)), MLX_INT8, SHAPE(1, 1));
    check_shape(OP(reshape, OP(zeros, INTS(0, 3), MLX_INT8), INTS(3, 0)), MLX_INT8, SHAPE(3, 0));
    FAILS("reshape", reshape, x, INTS(5, 5));
    FAILS("infer", reshape, x, INTS(5, -1));
    FAILS("one", reshape, x, INTS(-1, -1));
    FAILS("Negative", reshape, x, INTS(-2, 12));
}

static void test_flatten_and_unflatten(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(2, 3, 4));
    check_shape(OP(flatten, x, 0, 1), MLX_INT32, SHAPE(6, 4));
    check_shape(OP(flatten, x, 1, 99), MLX_INT32, SHAPE(2, 12));
    check_shape(OP(flatten, scalar(MLX_INT8, 1), 0, -1), MLX_INT8, SHAPE(1));
    check_shape(OP(unflatten, x, -1, INTS(2, -1)), MLX_INT32, SHAPE(2, 3, 2, 2));
    FAILS("unflatten", unflatten, x, 1, INTS(2, 2));
    FAILS("flatten", flatten, x, 2, 1);
}

static void test_transposes_share_their_data(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 3, 4));
    mlx_array_eval(x);
    mlx_array t = OP(transpose_axes, x, INTS(2, 0, -2));
    check_shape(t, MLX_FLOAT32, SHAPE(4, 2, 3));
    check(OP(slice, t, INTS(1, 0, 0), INTS(2, 2, 3), INTS(1, 1, 1)), 1, 5, 9, 13, 17, 21);
    mlx_array_eval(t);
    assert_ptr_equal(mlx_array_data_float32(t), mlx_array_data_float32(x));
    check_shape(OP(swapaxes, x, 0, -1), MLX_FLOAT32, SHAPE(4, 3, 2));
    check_shape(OP(moveaxis, x, 0, -1), MLX_FLOAT32, SHAPE(3, 4, 2));
    check_shape(OP(moveaxis, x, -1, 0), MLX_FLOAT32, SHAPE(4, 2, 3));
    FAILS("axes", transpose_axes, x, INTS(0, 1));
    FAILS("duplicate", transpose_axes, x, INTS(0, 1, 1));
}

static void test_squeeze_and_expand(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(1, 3, 1));
    check_shape(OP(squeeze, x), MLX_INT32, SHAPE(3));
    check_shape(OP(squeeze_axis, x, -1), MLX_INT32, SHAPE(1, 3));
    check_shape(OP(expand_dims_axes, x, INTS(0, -1)), MLX_INT32, SHAPE(1, 1, 3, 1, 1));
    check(OP(expand_dims, OP(transpose, count_up(MLX_INT32, SHAPE(2, 2))), 1), 0, 2, 1, 3);
    FAILS("not equal to 1", squeeze_axis, x, 1);
    FAILS("duplicate", expand_dims_axes, x, INTS(1, 1));
}

static void test_broadcasts(void **state) {
    (void)state;
    mlx_array x = make(MLX_INT32, SHAPE(2, 1), VALUES(1, 2));
    check(OP(broadcast_to, x, INTS(2, 2, 2)), 1, 1, 2, 2, 1, 1, 2, 2);
    check_shape(OP(broadcast_to, x, INTS(2, 0)), MLX_INT32, SHAPE(2, 0));
    FAILS("broadcast", broadcast_to, x, INTS(3, 2));
    FAILS("broadcast", broadcast_to, x, INTS(2));
    FAILS("Negative", broadcast_to, x, INTS(2, -1));
    mlx_array parts[2];
    mlx_vector_array pair =
        vector_of((mlx_array[]){x, make(MLX_INT8, SHAPE(3), VALUES(7, 8, 9))}, 2);
    OPV(parts, broadcast_arrays, pair);
    mlx_vector_array_free(pair);
    check(parts[0], 1, 1, 1, 2, 2, 2);
    check(parts[1], 7, 8, 9, 7, 8, 9);
}

static void test_slices(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(3, 4));
    check(OP(slice, x, INTS(1, -2), INTS(100, 4), INTS(1, 1)), 6, 7, 10, 11);
    check(OP(slice, x, INTS(0, 0), INTS(3, 4), INTS(2, 3)), 0, 3, 8, 11);
    /* A full reversal stops at -(n + 1). */
    check(OP(slice, x, INTS(2, 3), INTS(-4, -5), INTS(-1, -1)), 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1,
          0);
    check_shape(OP(slice, x, INTS(2, 0), INTS(1, 4), INTS(1, 1)), MLX_INT32, SHAPE(0, 4));
    check_shape(OP(slice, x, INTS(0, 9), INTS(3, 20), INTS(1, 1)), MLX_INT32, SHAPE(3, 0));
    FAILS("stride", slice, x, INTS(0, 0), INTS(1, 1), INTS(1, 0));
    FAILS("entry per axis", slice, x, INTS(0), INTS(1), INTS(1));
}

static void test_slice_update(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(3, 3));
    mlx_array_eval(x);
    mlx_array row = make(MLX_FLOAT32, SHAPE(3), VALUES(-1.5, -2, -3));
    check(OP(slice_update, x, row, INTS(1, 0), INTS(2, 3), INTS(1, 1)), 0, 1, 2, -1, -2, -3, 6, 7,
          8);
    check(OP(slice_update, x, scalar(MLX_INT32, 9), INTS(2, 2), INTS(-4, -4), INTS(-2, -2)), 9, 1,
          9, 3, 4, 5, 9, 7, 9);
    check(OP(slice_update, OP(transpose, x), row, INTS(0, 0), INTS(1, 3), INTS(1, 1)), -1, -2, -3,
          1, 4, 7, 2, 5, 8);
    check(OP(slice_update, x, row, INTS(0, 0), INTS(3, 3), INTS(1, 1)), -1, -2, -3, -1, -2, -3, -1,
          -2, -3);
    check(x, 0, 1, 2, 3, 4, 5, 6, 7, 8);
    FAILS("broadcast", slice_update, x, row, INTS(0, 0), INTS(3, 2), INTS(1, 1));
}

static void test_slice_update_in_place_keeps_the_buffer(void **state) {
    (void)state;
    mlx_array cache = mlx_array_new(), zeros = scalar(MLX_FLOAT32, 0);
    assert_int_equal(mlx_full(&cache, INTS(1, 2, 64, 32), zeros, MLX_FLOAT32, cpu), 0);
    mlx_array_eval(cache);
    const float *before = mlx_array_data_float32(cache);
    for (int i = 0; i < 4; i++) {
        mlx_array row = OP(ones, INTS(1, 2, 1, 32), MLX_FLOAT32);
        assert_int_equal(mlx_slice_update(&cache, cache, row, INTS(0, 0, i, 0),
                                          INTS(1, 2, i + 1, 32), INTS(1, 1, 1, 1), cpu),
                         0);
        mlx_array_eval(cache);
        assert_ptr_equal(mlx_array_data_float32(cache), before);
    }
    check(OP(sum, cache, false), 256);
    mlx_array_free(cache);
}

static void test_split(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(2, 6)), parts[4];
    OPV(parts, split, x, 3, -1);
    check(parts[1], 2, 3, 8, 9);
    OPV(parts, split_sections, x, INTS(1, 4), 1);
    check(parts[0], 0, 6);
    check(parts[1], 1, 2, 3, 7, 8, 9);
    check(parts[2], 4, 5, 10, 11);
    mlx_vector_array none = mlx_vector_array_new();
    assert_int_equal(mlx_split(&none, x, 4, 1, cpu), 1);
    assert_int_equal(mlx_split(&none, x, 0, 1, cpu), 1);
    mlx_vector_array_free(none);
}

static void test_concatenate_and_stack(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_INT32, SHAPE(2, 2)), b = OP(transpose, a);
    mlx_vector_array pair = vector_of((mlx_array[]){a, b}, 2);
    check(OP(concatenate_axis, pair, 0), 0, 1, 2, 3, 0, 2, 1, 3);
    check(OP(concatenate_axis, pair, -1), 0, 1, 0, 2, 2, 3, 1, 3);
    check(OP(concatenate, pair), 0, 1, 2, 3, 0, 2, 1, 3);
    check(OP(stack_axis, pair, -1), 0, 0, 1, 2, 2, 1, 3, 3);
    check_shape(OP(stack, pair), MLX_INT32, SHAPE(2, 2, 2));
    mlx_vector_array_append_value(pair, OP(zeros, INTS(2, 0), MLX_FLOAT16));
    check_shape(OP(concatenate_axis, pair, 1), MLX_FLOAT16, SHAPE(2, 4));
    FAILS("match", concatenate_axis, pair, 0);
    FAILS("same shape", stack, pair);
    mlx_vector_array_free(pair);
    mlx_vector_array empty = mlx_vector_array_new();
    FAILS("No arrays", concatenate_axis, empty, 0);
    FAILS("No arrays", stack, empty);
    mlx_vector_array_free(empty);
}

static void test_pad(void **state) {
    (void)state;
    mlx_array x = make(MLX_INT32, SHAPE(3), VALUES(1, 2, 3)), seven = scalar(MLX_INT32, 7);
    check(OP(pad, x, INTS(0), INTS(2), INTS(1), seven, "constant"), 7, 7, 1, 2, 3, 7);
    check(OP(pad, x, INTS(0), INTS(2), INTS(1), seven, "edge"), 1, 1, 1, 2, 3, 3);
    check(OP(pad, x, INTS(0), INTS(2), INTS(4), seven, "reflect"), 3, 2, 1, 2, 3, 2, 1, 2, 3);
    check(OP(pad, x, INTS(0), INTS(2), INTS(4), seven, "symmetric"), 2, 1, 1, 2, 3, 3, 2, 1, 1);
    mlx_array t = OP(transpose, count_up(MLX_INT32, SHAPE(2, 2)));
    check(OP(pad, t, INTS(1), INTS(0), INTS(1), seven, "constant"), 0, 2, 7, 1, 3, 7);
    FAILS("Mode", pad, x, INTS(0), INTS(1), INTS(1), seven, "wrap");
    FAILS("padding", pad, x, INTS(0), INTS(-1), INTS(1), seven, "constant");
}

static void test_repeat_tile_roll(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT32, SHAPE(2, 2));
    check(OP(repeat_axis, x, 2, 1), 0, 0, 1, 1, 2, 2, 3, 3);
    check(OP(repeat_axis, OP(transpose, x), 2, 0), 0, 2, 0, 2, 1, 3, 1, 3);
    check(OP(tile, x, INTS(2)), 0, 1, 0, 1, 2, 3, 2, 3);
    check_shape(OP(tile, x, INTS(2, 1, 3)), MLX_INT32, SHAPE(2, 2, 6));
    check(OP(roll_axis, count_up(MLX_INT32, SHAPE(5)), INTS(2), 0), 3, 4, 0, 1, 2);
    check(OP(roll_axis, count_up(MLX_INT32, SHAPE(5)), INTS(-1, -5), 0), 1, 2, 3, 4, 0);
    FAILS("negative", repeat_axis, x, -1, 0);
    FAILS("negative", tile, x, INTS(-1));
}

static void test_arange(void **state) {
    (void)state;
    check(OP(arange, 0, 5, 1, MLX_INT32), 0, 1, 2, 3, 4);
    check(OP(arange, 5, 0, -2, MLX_FLOAT32), 5, 3, 1);
    check_shape(OP(arange, 3, 3, 1, MLX_INT32), MLX_INT32, SHAPE(0));
    check_shape(OP(arange, 3, 0, 1, MLX_INT32), MLX_INT32, SHAPE(0));
    mlx_array halves = OP(arange, 0, 300, 1, MLX_BFLOAT16);
    check(OP(slice, halves, INTS(298), INTS(299), INTS(1)), 298); /* never sticks at 256 */
    FAILS("step", arange, 0, 1, 0, MLX_INT32);
    FAILS("NaN", arange, NAN, 1, 1, MLX_FLOAT32);
    FAILS("size", arange, 0, 1e12, 1, MLX_FLOAT32);
    FAILS("bool", arange, 0, 1, 1, MLX_BOOL);
}

static void test_full_and_triangles(void **state) {
    (void)state;
    check(OP(full, INTS(2, 2), make(MLX_FLOAT32, SHAPE(2), VALUES(1.5, 2.5)), MLX_INT32), 1, 2, 1,
          2);
    mlx_array x = count_up(MLX_FLOAT16, SHAPE(2, 3));
    check_shape(OP(ones_like, x), MLX_FLOAT16, SHAPE(2, 3));
    check(OP(full_like, x, scalar(MLX_INT32, 4), MLX_INT8), 4, 4, 4, 4, 4, 4);
    check(OP(tri, 2, 3, 0, MLX_FLOAT32), 1, 0, 0, 1, 1, 0);
    check(OP(tri, 2, 3, 1, MLX_BOOL), 1, 1, 0, 1, 1, 1);
    check(OP(tril, x, 0), 0, 0, 0, 3, 4, 0);
    check(OP(triu, x, 1), 0, 1, 2, 0, 0, 5);
    FAILS("2-D", tril, scalar(MLX_FLOAT32, 1), 0);
    FAILS("Negative", zeros, INTS(-1), MLX_FLOAT32);
}

static void test_copies_and_depends(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 3)), t = OP(transpose, x);
    mlx_array rows = OP(contiguous, t, false);
    mlx_array_eval(rows);
    const float expected[] = {0, 3, 1, 4, 2, 5};
    assert_memory_equal(mlx_array_data_float32(rows), expected, sizeof expected);
    check(OP(copy, t), 0, 3, 1, 4, 2, 5);
    check(OP(stop_gradient, t), 0, 3, 1, 4, 2, 5);
    mlx_vector_array values = vector_of(&t, 1), others = vector_of(&x, 1);
    mlx_vector_array result = mlx_vector_array_new();
    assert_int_equal(mlx_depends(&result, values, others), 0);
    mlx_array same = mlx_array_new();
    mlx_vector_array_get(&same, result, 0);
    check(keep(same), 0, 3, 1, 4, 2, 5);
    mlx_vector_array_free(values);
    mlx_vector_array_free(others);
    mlx_vector_array_free(result);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_reshape),
        TEST(test_flatten_and_unflatten),
        TEST(test_transposes_share_their_data),
        TEST(test_squeeze_and_expand),
        TEST(test_broadcasts),
        TEST(test_slices),
        TEST(test_slice_update),
        TEST(test_slice_update_in_place_keeps_the_buffer),
        TEST(test_split),
        TEST(test_concatenate_and_stack),
        TEST(test_pad),
        TEST(test_repeat_tile_roll),
        TEST(test_arange),
        TEST(test_full_and_triangles),
        TEST(test_copies_and_depends),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
