/* Products beyond matmul: einsum and its kin, products of gathered, masked and
 * segmented matrices, the Hadamard transform. Numbers from mlx 0.31.2. */
#include "ops_check.h"

static mlx_array einsum(const char *subscripts, const mlx_array *operands, size_t count) {
    mlx_vector_array vector = vector_of(operands, count);
    mlx_array out = mlx_array_new();
    const int status = mlx_einsum(&out, subscripts, vector, cpu);
    mlx_vector_array_free(vector);
    return must(status, out);
}
#define EINSUM(text, ...) \
    einsum(text, (mlx_array[]){__VA_ARGS__}, sizeof((mlx_array[]){__VA_ARGS__}) / sizeof(mlx_array))

#define EINSUM_FAILS(message, text, ...)                                                         \
    do {                                                                                         \
        const mlx_array operands_[] = {__VA_ARGS__};                                             \
        mlx_vector_array vector_ = vector_of(operands_, sizeof operands_ / sizeof operands_[0]); \
        FAILS(message, einsum, text, vector_);                                                   \
        mlx_vector_array_free(vector_);                                                          \
    } while (0)

static void test_einsum_multiplies_matrices(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(2, 3)), b = count_up(MLX_FLOAT32, SHAPE(3, 2));
    check(EINSUM("ij,jk->ki", a, b), 10, 28, 13, 40);
    check(EINSUM(" ij , jk ", a, b), 10, 13, 28, 40);
    check(EINSUM("cb,ba", a, b), 10, 28, 13, 40);
    check(EINSUM("ij,jk,kl->il", a, b, count_up(MLX_FLOAT32, SHAPE(2, 2))), 26, 49, 80, 148);
    check_shape(EINSUM("xyz,zw->wxy", OP(zeros, INTS(2, 3, 0), MLX_FLOAT16),
                       OP(zeros, INTS(0, 4), MLX_FLOAT16)),
                MLX_FLOAT16, SHAPE(4, 2, 3));
}

static void test_einsum_takes_diagonals_and_sums(void **state) {
    (void)state;
    check(EINSUM("ii", count_up(MLX_FLOAT32, SHAPE(3, 3))), 12);
    check(EINSUM("iji->ji", count_up(MLX_FLOAT32, SHAPE(2, 2, 2))), 0, 5, 2, 7);
    check(EINSUM("ij->j", count_up(MLX_INT32, SHAPE(3, 2))), 6, 9);
    check(EINSUM("i,i,i->", count_up(MLX_FLOAT64, SHAPE(4)), count_up(MLX_FLOAT64, SHAPE(4)),
                 count_up(MLX_FLOAT64, SHAPE(4))),
          36);
}

static void test_einsum_broadcasts_ellipses_and_single_items(void **state) {
    (void)state;
    check(EINSUM("...ij,kj->...k", count_up(MLX_FLOAT32, SHAPE(2, 2, 3)),
                 count_up(MLX_FLOAT32, SHAPE(2, 3))),
          19, 64, 55, 208);
    check_shape(EINSUM("...ij,...jk", OP(zeros, INTS(2, 3, 4), MLX_FLOAT32),
                       OP(zeros, INTS(6, 1, 4, 5), MLX_FLOAT32)),
                MLX_FLOAT32, SHAPE(6, 2, 3, 5));
    /* A contracted axis of one item stands for any length. */
    check(
        EINSUM("ij,jk->ik", count_up(MLX_FLOAT32, SHAPE(2, 1)), count_up(MLX_FLOAT32, SHAPE(2, 2))),
        0, 0, 2, 4);
}

static void test_einsum_refuses_bad_subscripts(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(3, 4));
    EINSUM_FAILS("does not match number of input subscripts, 2", "ij,jk", a);
    EINSUM_FAILS("must be letters, but got '1'", "i1", a);
    EINSUM_FAILS("Invalid number of subscripts 3 for input 0 with 2", "ijk", a);
    EINSUM_FAILS("Repeat indices not allowed", "ij->ii", a);
    EINSUM_FAILS("do not have the same size (3 != 4)", "ii", a);
    EINSUM_FAILS("Cannot broadcast dimension 0 of input 1", "ij,jk", a,
                 count_up(MLX_FLOAT32, SHAPE(5, 2)));
    EINSUM_FAILS("Only one ellipsis", "......ij", a);
    EINSUM_FAILS("at least 3 dimensions", "...ijk", a);
    EINSUM_FAILS("that no input has", "ij->k", a);
    EINSUM_FAILS("must be letters, but got '.'", "ij.", a);
    mlx_vector_array none = mlx_vector_array_new();
    FAILS("At least one operand", einsum, "ij", none);
    mlx_vector_array_free(none);
}

static void test_tensordot_inner_outer(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(2, 3)), b = count_up(MLX_FLOAT32, SHAPE(3, 2));
    check(OP(tensordot, count_up(MLX_FLOAT32, SHAPE(2, 3, 2)), a, INTS(1, 2), INTS(1, 0)), 50, 140);
    check(OP(tensordot, a, b, INTS(-1), INTS(0)), 10, 13, 28, 40);
    check(OP(tensordot_axis, a, b, 1), 10, 13, 28, 40);
    check_shape(OP(tensordot_axis, a, b, 0), MLX_FLOAT32, SHAPE(2, 3, 3, 2));
    check(OP(inner, a, a), 5, 14, 14, 50);
    check(OP(inner, a, scalar(MLX_FLOAT32, 2)), 0, 2, 4, 6, 8, 10);
    check(OP(outer, count_up(MLX_INT32, SHAPE(3)), count_up(MLX_INT32, SHAPE(2))), 0, 0, 0, 1, 0,
          2);
    check_shape(OP(outer, OP(zeros, INTS(0), MLX_FLOAT32), a), MLX_FLOAT32, SHAPE(0, 6));
    FAILS("axes must have the same size", tensordot, a, b, INTS(0, 1), INTS(0));
    FAILS("same shape on the contracted axes", tensordot, a, b, INTS(0), INTS(0));
    FAILS("tensordot", tensordot, a, b, INTS(2), INTS(0));
    FAILS("less than the number of dimensions", tensordot_axis, a, b, 3);
    FAILS("greater or equal to 0", tensordot_axis, a, b, -1);
    FAILS("same last dimension", inner, a, b);
}

static void test_gather_mm_picks_matrices(void **state) {
    (void)state;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64};
    for (int i = 0; i < 4; i++) {
        mlx_array a = count_up(dtypes[i], SHAPE(3, 1, 2)), b = count_up(dtypes[i], SHAPE(2, 2, 2));
        mlx_array experts = make(MLX_UINT32, SHAPE(3), VALUES(1, 0, 1));
        mlx_array c = OP(gather_mm, a, b, NONE, experts, false);
        check_shape(c, dtypes[i], SHAPE(3, 1, 2));
        check(c, 6, 7, 6, 11, 46, 55);
        check(OP(gather_mm, a, b, make(MLX_INT32, SHAPE(2), VALUES(2, 0)),
                 make(MLX_INT8, SHAPE(2, 1), VALUES(1, 0)), false),
              46, 55, 6, 7, 10, 19, 2, 3);
        check(OP(gather_mm, make(dtypes[i], SHAPE(2), VALUES(0, 1)), b, NONE, experts, false), 6, 7,
              2, 3, 6, 7);
    }
}

/* Many rows, sorted and not, transposed weights, against one product a row. */
static void test_gather_mm_groups_rows_of_one_expert(void **state) {
    (void)state;
    enum { ROWS = 50, EXPERTS = 4, K = 24, N = 17 };
    double rows[ROWS * K], weights[EXPERTS * N * K], order[ROWS], expected[ROWS * N];
    for (int i = 0; i < ROWS * K; i++) rows[i] = i * 7 % 11 - 5;
    for (int i = 0; i < EXPERTS * N * K; i++) weights[i] = i * 5 % 13 - 6;
    mlx_array a = make(MLX_FLOAT32, SHAPE(ROWS, 1, K), rows, ROWS * K);
    mlx_array w = make(MLX_FLOAT32, SHAPE(EXPERTS, N, K), weights, EXPERTS * N * K);
    for (int sorted = 0; sorted < 2; sorted++) {
        for (int i = 0; i < ROWS; i++) {
            const int expert = sorted ? i * EXPERTS / ROWS : i * i % EXPERTS;
            order[i] = expert;
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = 0; k < K; k++)
                    sum += rows[i * K + k] * weights[(expert * N + j) * K + k];
                expected[i * N + j] = sum;
            }
        }
        mlx_array experts = make(MLX_UINT32, SHAPE(ROWS), order, ROWS);
        mlx_array c = OP(gather_mm, a, OP(swapaxes, w, -1, -2), NONE, experts, sorted);
        check_near(c, expected, ROWS * N, 0);
    }
}

static void test_gather_mm_refuses_bad_input(void **state) {
    (void)state;
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(3, 1, 2)), b = count_up(MLX_FLOAT32, SHAPE(2, 2, 2));
    mlx_array far = OP(gather_mm, a, b, NONE, make(MLX_UINT32, SHAPE(1), VALUES(2)), false);
    assert_int_equal(mlx_array_eval(far), 1);
    assert_non_null(strstr(last_error, "Index 2 is out of range for 2"));
    mlx_array zero = make(MLX_UINT32, SHAPE(1), VALUES(0));
    FAILS("must be integral", gather_mm, a, b, NONE, scalar(MLX_FLOAT32, 0), false);
    FAILS("must match", gather_mm, a, count_up(MLX_FLOAT32, SHAPE(2, 3, 2)), NONE, zero, false);
    FAILS("real floating", gather_mm, count_up(MLX_INT32, SHAPE(1, 1, 2)),
          count_up(MLX_INT32, SHAPE(2, 2, 2)), NONE, zero, false);
    FAILS("0 dimension", gather_mm, scalar(MLX_FLOAT32, 1), b, NONE, zero, false);
}

static void test_block_masked_mm(void **state) {
    (void)state;
    mlx_array a = OP(ones, INTS(40, 70), MLX_FLOAT32), b = OP(ones, INTS(70, 33), MLX_FLOAT32);
    mlx_array left = make(MLX_BOOL, SHAPE(2, 3), VALUES(1, 0, 1, 0, 1, 0));
    mlx_array right = make(MLX_FLOAT32, SHAPE(3, 2), VALUES(1, 2, 3, 4, 5, 6));
    mlx_array out = make(MLX_BOOL, SHAPE(2, 2), VALUES(1, 1, 0, 1));
    mlx_array c = OP(block_masked_mm, a, b, 32, out, left, right);
    check_shape(c, MLX_FLOAT32, SHAPE(40, 33));
    const double *got = doubles(c);
    /* 32 * 1 + 6 * 5, 32 * 2 + 6 * 6, nothing, 32 * 4 */
    assert_true(got[0] == 62 && got[32] == 100 && got[33 * 39] == 0 && got[33 * 39 + 32] == 128);
    check_shape(OP(block_masked_mm, OP(ones, INTS(70), MLX_FLOAT32), b, 64,
                   make(MLX_BOOL, SHAPE(1), VALUES(1)), NONE, NONE),
                MLX_FLOAT32, SHAPE(33));
    FAILS("Only block_sizes 32, 64", block_masked_mm, a, b, 16, out, NONE, NONE);
    FAILS("broadcast", block_masked_mm, a, b, 32, left, NONE, NONE);
}

static void test_segmented_mm(void **state) {
    (void)state;
    const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64};
    for (int i = 0; i < 4; i++) {
        mlx_array a = count_up(dtypes[i], SHAPE(2, 4)), b = count_up(dtypes[i], SHAPE(4, 2));
        mlx_array segments = make(MLX_INT32, SHAPE(3, 2), VALUES(0, 2, 2, 4, 3, 3));
        check(OP(segmented_mm, a, b, segments), 2, 3, 10, 19, 26, 31, 66, 79, 0, 0, 0, 0);
    }
    mlx_array a = count_up(MLX_FLOAT32, SHAPE(2, 4)), b = count_up(MLX_FLOAT32, SHAPE(4, 2));
    FAILS("(..., 2)", segmented_mm, a, b, count_up(MLX_INT32, SHAPE(3)));
    FAILS("integral", segmented_mm, a, b, count_up(MLX_FLOAT32, SHAPE(2)));
    mlx_array far = OP(segmented_mm, a, b, make(MLX_UINT32, SHAPE(1, 2), VALUES(1, 5)));
    assert_int_equal(mlx_array_eval(far), 1);
}

static void test_hadamard_transform(void **state) {
    (void)state;
    const mlx_optional_float standard = {0, false}, one = {1, true};
    check(OP(hadamard_transform, count_up(MLX_FLOAT32, SHAPE(2, 4)), standard), 3, -1, -2, 0, 11,
          -1, -2, 0);
    check(OP(hadamard_transform, count_up(MLX_FLOAT64, SHAPE(12)), one), 64, -6, 0, -6, -20, -10, 0,
          -14, 20, -18, 0, -22);
    check(OP(hadamard_transform, count_up(MLX_INT32, SHAPE(20)), one), -10, -4, 2, 8, 14, -10, -20,
          -10, 0, -10, 20, 30, 20, 10, 20, -100, -98, -96, -94, -92);
    check(OP(hadamard_transform, count_up(MLX_FLOAT32, SHAPE(28)), one), -84, -78, -72, -66, -60,
          -54, -48, -56, -46, -64, -54, -44, -62, -52, -70, -60, -50, -68, -86, -76, -66, -126,
          -144, -134, -124, -114, -104, -122);
    check(OP(hadamard_transform, count_up(MLX_FLOAT16, SHAPE(24)), one), 266, -10, -26, 2, 2, -2,
          -26, 2, -78, -2, -42, 2, 2, -2, -58, 2, 82, -2, -74, 2, 2, -2, -90, 2);
    /* Two transforms of a power of two give the vector back. */
    mlx_array x = count_up(MLX_FLOAT32, SHAPE(2, 64));
    check_near(OP(hadamard_transform, OP(hadamard_transform, x, standard), standard), doubles(x),
               128, 1e-6);
    FAILS("m*2^k", hadamard_transform, count_up(MLX_FLOAT32, SHAPE(7)), standard);
    FAILS("m*2^k", hadamard_transform, count_up(MLX_FLOAT32, SHAPE(36)), standard);
    FAILS("empty", hadamard_transform, OP(zeros, INTS(0), MLX_FLOAT32), standard);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_einsum_multiplies_matrices),
        TEST(test_einsum_takes_diagonals_and_sums),
        TEST(test_einsum_broadcasts_ellipses_and_single_items),
        TEST(test_einsum_refuses_bad_subscripts),
        TEST(test_tensordot_inner_outer),
        TEST(test_gather_mm_picks_matrices),
        TEST(test_gather_mm_groups_rows_of_one_expert),
        TEST(test_gather_mm_refuses_bad_input),
        TEST(test_block_masked_mm),
        TEST(test_segmented_mm),
        TEST(test_hadamard_transform),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
