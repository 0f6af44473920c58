/* scatter and its kin, masked_scatter, the along-axis writes, and the gradients
 * of everything that indexes. Values by mlx 0.31.2 on the CPU. */
#include "grad_check.h"

static mlx_vector_array indices_of(mlx_array first, mlx_array second) {
    return vector_of((mlx_array[]){first, second}, second.ctx ? 2 : 1);
}

static void test_scatter_kinds(void **state) {
    (void)state;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64,
                                MLX_INT8,    MLX_UINT32,  MLX_INT64};
    for (int i = 0; i < 7; i++) {
        mlx_array x = make(dtypes[i], SHAPE(4), VALUES(3, 3, 3, 3));
        mlx_array at = make(MLX_INT32, SHAPE(3), VALUES(1, 3, -3));
        mlx_array u = make(dtypes[i], SHAPE(3, 1), VALUES(5, 2, 4));
        check(OP(scatter_single, x, at, u, 0), 3, 4, 3, 2);
        check(OP(scatter_add_single, x, at, u, 0), 3, 12, 3, 5);
        check(OP(scatter_prod_single, x, at, u, 0), 3, 60, 3, 6);
        check(OP(scatter_max_single, x, at, u, 0), 3, 5, 3, 3);
        check(OP(scatter_min_single, x, at, u, 0), 3, 3, 3, 2);
        check(x, 3, 3, 3, 3);
    }
    mlx_array truth = OP(zeros, INTS(2), MLX_BOOL), one = make(MLX_BOOL, SHAPE(2, 1), VALUES(1, 1));
    check(OP(scatter_add_single, truth, make(MLX_INT32, SHAPE(2), VALUES(0, 0)), one, 0), 1, 0);
}

static void test_scatter_of_slices_by_two_indices(void **state) {
    (void)state;
    mlx_array x = OP(transpose, count_up(MLX_INT32, SHAPE(2, 3))); /* 0 3 / 1 4 / 2 5 */
    mlx_vector_array at = indices_of(make(MLX_UINT32, SHAPE(2, 1), VALUES(0, 2)),
                                     make(MLX_INT64, SHAPE(2), VALUES(1, 0)));
    mlx_array u = make(MLX_FLOAT32, SHAPE(2, 2, 1, 1), VALUES(10.9, 20, 30, 40));
    check(OP(scatter_add, x, at, u, INTS(0, 1)), 20, 13, 1, 4, 42, 35);
    mlx_vector_array_free(at);
    at = indices_of(make(MLX_INT32, SHAPE(2), VALUES(1, 0)), NONE);
    u = make(MLX_INT32, SHAPE(2, 2, 1), VALUES(7, 8, 9, 6));
    check(OP(scatter, x, at, u, INTS(0)), 9, 3, 6, 4, 8, 5);
    mlx_vector_array_free(at);
}

static void test_sums_of_16_bit_floats_round_once(void **state) {
    (void)state;
    enum { N = 1000 };
    mlx_array at = OP(zeros, INTS(N), MLX_INT32), u = OP(ones, INTS(N, 1, 3), MLX_BFLOAT16);
    mlx_array x = OP(zeros, INTS(2, 3), MLX_BFLOAT16);
    check(OP(scatter_add_single, x, at, u, 0), 1000, 1000, 1000, 0, 0, 0);
}

static void test_scatter_errors(void **state) {
    (void)state;
    mlx_array x = OP(zeros, INTS(3, 2), MLX_FLOAT32);
    mlx_array at = make(MLX_INT32, SHAPE(2), VALUES(0, 3));
    FAILS("does not match the sum", scatter_single, x, at, OP(ones, INTS(2, 2), MLX_INT8), 0);
    FAILS("not valid", scatter_single, x, at, OP(ones, INTS(3, 1, 2), MLX_INT8), 0);
    FAILS("too large", scatter_single, x, at, OP(ones, INTS(2, 4, 2), MLX_INT8), 0);
    FAILS("Axes", scatter_single, x, at, OP(ones, INTS(2, 1, 2), MLX_INT8), 2);
    FAILS("integral", scatter_single, x, OP(astype, at, MLX_FLOAT32),
          OP(ones, INTS(2, 1, 2), MLX_INT8), 0);
    mlx_array y = OP(scatter_single, x, at, OP(ones, INTS(2, 1, 2), MLX_INT8), 0);
    assert_int_equal(mlx_array_eval(y), 1);
    assert_non_null(strstr(last_error, "out of bounds"));
    mlx_array none = OP(zeros, INTS(0), MLX_INT32);
    check(OP(scatter_add_single, OP(ones, INTS(2), MLX_INT8), none, OP(zeros, INTS(0, 1), MLX_INT8),
             0),
          1, 1);
}

static void test_scatter_add_axis(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_FLOAT16, SHAPE(2, 3));
    mlx_array at = make(MLX_INT32, SHAPE(2, 2), VALUES(2, 2, -1, 1));
    mlx_array v = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(10, 20, 30, 40));
    check(OP(scatter_add_axis, x, at, v, 1), 0, 1, 32, 3, 44, 35);
    check(OP(scatter_add_axis, x, at, scalar(MLX_INT8, 1), -1), 0, 1, 4, 3, 5, 6);
}

static void test_masked_scatter(void **state) {
    (void)state;
    mlx_array x = count_up(MLX_INT16, SHAPE(2, 2));
    mlx_array rows = make(MLX_BOOL, SHAPE(2), VALUES(0, 1));
    mlx_array items = make(MLX_BOOL, SHAPE(2, 2), VALUES(1, 0, 0, 1));
    check(OP(masked_scatter, x, rows, make(MLX_INT32, SHAPE(1, 2), VALUES(8, 9))), 0, 1, 8, 9);
    check(OP(masked_scatter, x, rows, scalar(MLX_INT32, 7)), 0, 1, 7, 7);
    check(OP(masked_scatter, x, items, make(MLX_FLOAT32, SHAPE(2), VALUES(8, 9))), 8, 1, 2, 9);
    check(OP(masked_scatter, OP(transpose, x), items, scalar(MLX_INT8, 5)), 5, 2, 1, 5);
    FAILS("boolean", masked_scatter, x, x, scalar(MLX_INT8, 5));
    FAILS("beginning", masked_scatter, x, make(MLX_BOOL, SHAPE(1), VALUES(1)), x);
    mlx_array y = OP(masked_scatter, x, items, make(MLX_INT8, SHAPE(1), VALUES(8)));
    assert_int_equal(mlx_array_eval(y), 1);
    assert_non_null(strstr(last_error, "not enough"));
}

#define INDEX(...) make(MLX_INT32, SHAPE(2, 2), VALUES(__VA_ARGS__))
static mlx_array take_of(const mlx_array *x) {
    return OP(take_axis, x[0], INDEX(1, -1, 1, 0), 1);
}
static mlx_array take_along_of(const mlx_array *x) {
    return OP(take_along_axis, x[0], INDEX(1, -1, 1, 0), 1);
}
static mlx_array put_along_of(const mlx_array *x) {
    return OP(put_along_axis, x[0], INDEX(1, 2, 1, 0), x[1], 1);
}
static mlx_array add_along_of(const mlx_array *x) {
    return OP(scatter_add_axis, x[0], INDEX(1, 1, 1, 0), x[1], 1);
}
static mlx_array gather_of(const mlx_array *x) {
    return OP(gather_single, x[0], INDEX(1, 1, 1, 0), 0, INTS(1, 2));
}
static mlx_array updates_of(mlx_array x) {
    return OP(expand_dims, x, 1);
}
#define SCATTER_OF(name)                                                                          \
    static mlx_array name##_of(const mlx_array *x) {                                              \
        return OP(name##_single, x[0], make(MLX_INT32, SHAPE(2), VALUES(1, 0)), updates_of(x[1]), \
                  0);                                                                             \
    }
SCATTER_OF(scatter)
SCATTER_OF(scatter_max)
SCATTER_OF(scatter_min)
static mlx_array scatter_add_of(const mlx_array *x) {
    return OP(scatter_add_single, x[0], make(MLX_INT32, SHAPE(2), VALUES(1, 1)), updates_of(x[1]),
              0);
}
static mlx_array masked_items_of(const mlx_array *x) {
    return OP(masked_scatter, x[0], make(MLX_BOOL, SHAPE(2, 3), VALUES(0, 1, 0, 1, 1, 0)),
              OP(reshape, x[1], INTS(4)));
}
static mlx_array masked_rows_of(const mlx_array *x) {
    return OP(masked_scatter, x[0], make(MLX_BOOL, SHAPE(2), VALUES(0, 1)),
              OP(flatten, OP(slice, x[0], INTS(0, 0), INTS(1, 3), INTS(1, 1)), 0, -1));
}

static void test_gradients_of_indexing(void **state) {
    (void)state;
    mlx_array x = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.3, -.7, 1.2, -1.9, .05, 2.4));
    mlx_array v = make(MLX_FLOAT64, SHAPE(2, 2), VALUES(1.3, -2.1, .6, .9));
    mlx_array w = make(MLX_FLOAT64, SHAPE(2, 3), VALUES(.4, .2, -1.2, 1.9, -.5, 2.6));
    check_gradients(take_of, &x, 1);
    check_gradients(take_along_of, &x, 1);
    check_gradients(gather_of, &x, 1);
    check_gradients(put_along_of, (mlx_array[]){x, v}, 2);
    check_gradients(add_along_of, (mlx_array[]){x, v}, 2);
    check_gradients(scatter_of, (mlx_array[]){x, w}, 2);
    check_gradients(scatter_add_of, (mlx_array[]){x, w}, 2);
    check_gradients(scatter_max_of, (mlx_array[]){x, w}, 2);
    check_gradients(scatter_min_of, (mlx_array[]){x, w}, 2);
    check_gradients(masked_items_of, (mlx_array[]){x, v}, 2);
    check_gradients(masked_rows_of, &x, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_scatter_kinds),
        TEST(test_scatter_of_slices_by_two_indices),
        TEST(test_sums_of_16_bit_floats_round_once),
        TEST(test_scatter_errors),
        TEST(test_scatter_add_axis),
        TEST(test_masked_scatter),
        TEST(test_gradients_of_indexing),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
