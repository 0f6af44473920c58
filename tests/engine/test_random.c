/* Random bits and distributions: exact vectors of key 0 and seed 42, made with
 * MLX's own CPU engine. */
#include "ops_check.h"

#include <stdlib.h>

static mlx_array key_of(uint64_t seed) {
    mlx_array key = mlx_array_new();
    assert_int_equal(mlx_random_key(&key, seed), 0);
    return keep(key);
}

static void test_keys_and_bits(void **state) {
    (void)state;
    mlx_array key = key_of(0);
    check(key_of(0x100000002), 1, 2);
    check(OP(random_bits, INTS(4), 4, key), 4146024105, 967050713, 2718843009, 1272950319);
    check(OP(random_bits, INTS(5), 4, key), 2467461003, 428148500, 1688610540, 3840466878,
          2562233961);
    check(OP(random_bits, INTS(1), 4, key), 1797259609);
    check(OP(random_bits, INTS(3), 2, key), 9103, 14175, 5405);
    check(OP(random_bits, INTS(7), 1, key), 143, 35, 95, 55, 29, 21, 219);
    check_shape(OP(random_bits, INTS(7), 1, key), MLX_UINT8, SHAPE(7));
    check_shape(OP(random_bits, NULL, 0, 4, key), MLX_UINT32, NULL, 0);
    check_shape(OP(random_bits, INTS(0), 4, key), MLX_UINT32, SHAPE(0));
    FAILS("width", random_bits, INTS(1), 3, key);
    FAILS("key", random_bits, INTS(1), 4, scalar(MLX_FLOAT32, 1));
}

static void test_splits(void **state) {
    (void)state;
    mlx_array key = key_of(0);
    check(OP(random_split_num, key, 3), 2467461003, 428148500, 3186719485, 3840466878, 2562233961,
          1946702221);
    mlx_array first = mlx_array_new(), second = mlx_array_new();
    assert_int_equal(mlx_random_split(&first, &second, key, cpu), 0);
    check(keep(first), 4146024105, 967050713);
    check(keep(second), 2718843009, 1272950319);
}

static void test_distributions_of_key_0(void **state) {
    (void)state;
    mlx_array key = key_of(0), zero = scalar(MLX_FLOAT32, 0), one = scalar(MLX_FLOAT32, 1);
    static const double uniform[] = {.965321481, .225159034, .633029997, .296381831};
    static const double normal[] = {1.81608713, -.754884779, .339889258, -.534835339};
    static const double gumbel[] = {3.34403968, -.399412364, .782552361, -.195654482};
    check_near(OP(random_uniform, zero, one, INTS(4), MLX_FLOAT32, key), uniform, 4, 1e-9);
    check_near(OP(random_normal, INTS(4), MLX_FLOAT32, 0, 1, key), normal, 4, 2e-7);
    check_near(OP(random_gumbel, INTS(4), MLX_FLOAT32, key), gumbel, 4, 3e-7);
    const double *wide = doubles(OP(random_normal, INTS(4), MLX_FLOAT32, 10, 3, key));
    for (int i = 0; i < 4; i++) assert_true(fabs(wide[i] - (10 + 3 * normal[i])) < 1e-5);
    mlx_array low = make(MLX_FLOAT32, SHAPE(2), VALUES(-1, 100));
    const double *u =
        doubles(OP(random_uniform, low, scalar(MLX_FLOAT32, 200), INTS(50, 2), MLX_FLOAT32, key));
    for (int i = 0; i < 100; i++) assert_true(u[i] >= (i % 2 ? 100 : -1) && u[i] < 200);
    check_shape(OP(random_uniform, zero, one, INTS(4), MLX_BFLOAT16, key), MLX_BFLOAT16, SHAPE(4));
    FAILS("shape", random_uniform, low, one, INTS(3), MLX_FLOAT32, key);
    FAILS("float64", random_uniform, zero, one, INTS(3), MLX_FLOAT64, key);
    FAILS("normal", random_normal, INTS(3), MLX_INT32, 0, 1, key);
}

static void test_half_uniforms_stay_below_one(void **state) {
    (void)state;
    const mlx_dtype halves[] = {MLX_FLOAT16, MLX_BFLOAT16};
    for (int i = 0; i < 2; i++) {
        mlx_array zero = scalar(halves[i], 0), one = scalar(halves[i], 1);
        mlx_array u = OP(random_uniform, zero, one, INTS(20000), halves[i], key_of(3));
        assert_true(doubles(OP(max, u, false))[0] < 1);
        assert_true(fabs(doubles(OP(mean, u, false))[0] - 0.5) < 0.01);
    }
}

static void test_the_global_generator(void **state) {
    (void)state;
    mlx_array zero = scalar(MLX_FLOAT32, 0), one = scalar(MLX_FLOAT32, 1);
    for (int round = 0; round < 2; round++) {
        mlx_random_seed(42);
        check_near(OP(random_uniform, zero, one, INTS(2), MLX_FLOAT32, NONE),
                   VALUES(.955981255, .403272569), 1e-9);
        check_near(OP(random_uniform, zero, one, INTS(2), MLX_FLOAT32, NONE),
                   VALUES(.537103951, .104098655), 1e-9);
    }
}

static void test_bounds_that_a_dtype_cannot_hold_wrap(void **state) {
    (void)state;
    mlx_array key = key_of(7), low = scalar(MLX_INT32, -7), high = scalar(MLX_INT32, 3);
    mlx_array wide = OP(random_randint, low, high, INTS(64), MLX_INT32, key);
    mlx_array bytes = OP(random_randint, low, high, INTS(64), MLX_UINT8, key);
    mlx_array same = OP(all, OP(equal, bytes, OP(astype, wide, MLX_UINT8)), false);
    check(same, 1);
}

static void test_categorical(void **state) {
    (void)state;
    mlx_array key = key_of(0);
    mlx_array line = make(MLX_FLOAT32, SHAPE(4), VALUES(0, 1, 2, 3));
    mlx_array row = OP(reshape, line, INTS(1, 4)), two = OP(broadcast_to, line, INTS(2, 4));
    check_shape(OP(random_categorical, line, -1, key), MLX_UINT32, NULL, 0);
    check(OP(random_categorical, line, -1, key), 0);
    check(OP(random_categorical, row, -1, key), 3);
    check(OP(random_categorical, two, -1, key), 3, 1);
    check_shape(OP(random_categorical_num_samples, two, -1, 5, key), MLX_UINT32, SHAPE(2, 5));
    check_shape(OP(random_categorical_shape, two, 1, INTS(3, 2), key), MLX_UINT32, SHAPE(3, 2));
    FAILS("broadcast", random_categorical_shape, two, 1, INTS(3), key);
    FAILS("out of bounds", random_categorical, two, 2, key);
}

static void test_categorical_frequencies(void **state) {
    (void)state;
    /* Weights 1, 0, 2, 5, 0 by both methods; no class of weight 0 appears. */
    mlx_array logits =
        make(MLX_FLOAT32, SHAPE(5), VALUES(0, -INFINITY, 0.6931471806, 1.6094379124, -INFINITY));
    mlx_array both[] = {
        OP(random_categorical_num_samples, logits, -1, 8000, key_of(1)),
        OP(random_categorical, OP(broadcast_to, logits, INTS(8000, 5)), -1, key_of(1))};
    for (int m = 0; m < 2; m++) {
        const double *drawn = doubles(both[m]);
        int count[5] = {0};
        for (int i = 0; i < 8000; i++) count[(int)drawn[i]]++;
        assert_int_equal(count[1] + count[4], 0);
        assert_true(abs(count[0] - 1000) < 120 && abs(count[2] - 2000) < 150);
    }
}

/* bernoulli, randint (-5 to 3) and the permutation by MLX's head, the rest by
 * mlx 0.31.2. */
static void test_more_distributions_of_key_0(void **state) {
    (void)state;
    mlx_array key = key_of(0);
    check(OP(random_bernoulli, scalar(MLX_FLOAT32, 0.5), INTS(8), key), 0, 1, 1, 0, 1, 0, 1, 0);
    check(OP(random_bernoulli, make(MLX_FLOAT16, SHAPE(2), VALUES(0, 1)), INTS(2, 2), key), 0, 1, 0,
          1);
    mlx_array low = scalar(MLX_INT32, 0), high = scalar(MLX_INT32, 10);
    check(OP(random_randint, low, high, INTS(8), MLX_INT32, key), 5, 3, 3, 9, 1, 9, 1, 8);
    mlx_array below =
        OP(random_randint, scalar(MLX_INT32, -5), scalar(MLX_INT32, 300), INTS(4), MLX_INT16, key);
    check_shape(below, MLX_INT16, SHAPE(4));
    check(below, 289, 63, 188, 85);
    check(OP(random_randint, scalar(MLX_INT32, -5), scalar(MLX_INT32, 3), INTS(8), MLX_INT8, key),
          -1, -3, -3, 2, -5, 2, -4, 1);
    check(OP(random_permutation_arange, 8, key), 4, 6, 1, 2, 0, 7, 3, 5);
    check(OP(random_permutation, count_up(MLX_INT8, SHAPE(3, 2)), 0, key), 2, 3, 4, 5, 0, 1);
    check_near(OP(random_laplace, INTS(2), MLX_FLOAT32, 1, 2, key),
               VALUES(2.6759252548217773, -0.8742547035217285), 1e-6);
    check_near(OP(random_truncated_normal, scalar(MLX_FLOAT32, -1), scalar(MLX_FLOAT32, 2), INTS(3),
                  MLX_FLOAT32, key),
               VALUES(1.633920669555664, -0.21149109303951263, 0.4589090943336487), 1e-6);
    check_near(OP(random_normal_broadcast, INTS(2), MLX_FLOAT32,
                  make(MLX_FLOAT32, SHAPE(2), VALUES(1, 100)), scalar(MLX_FLOAT32, 0.5), key),
               VALUES(0.607617199420929, 100.42822265625), 1e-6);
    mlx_array z = OP(random_normal_broadcast, INTS(2), MLX_COMPLEX64, NONE, NONE, key);
    check_near(OP(view, z, MLX_FLOAT32), VALUES(1.284168, -0.533784, 0.240338, -0.378186), 1e-5);
    mlx_array mean = make(MLX_FLOAT32, SHAPE(2), VALUES(1, -1));
    mlx_array cov = make(MLX_FLOAT32, SHAPE(2, 2), VALUES(2, 0.5, 0.5, 1));
    check_near(
        OP(random_multivariate_normal, mean, cov, INTS(2), MLX_FLOAT32, key),
        VALUES(3.380892753601074, -1.3558213710784912, 1.362779140472412, -1.4513365030288696),
        2e-6);
    FAILS("must be float32", random_multivariate_normal, mean, cov, INTS(2), MLX_FLOAT16, key);
    FAILS("compatible", random_multivariate_normal, OP(zeros, INTS(3), MLX_FLOAT32), cov, INTS(2),
          MLX_FLOAT32, key);
    FAILS("float type", random_bernoulli, low, INTS(1), key);
    FAILS("incompatible", random_bernoulli, make(MLX_FLOAT32, SHAPE(2), VALUES(0, 1)), INTS(1),
          key);
    FAILS("integer dtypes", random_randint, low, high, INTS(1), MLX_FLOAT32, key);
    FAILS("real floating", random_laplace, INTS(1), MLX_INT32, 0, 1, key);
    FAILS("out of bounds", random_permutation, low, 0, key);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_keys_and_bits),
        TEST(test_splits),
        TEST(test_distributions_of_key_0),
        TEST(test_half_uniforms_stay_below_one),
        TEST(test_the_global_generator),
        TEST(test_bounds_that_a_dtype_cannot_hold_wrap),
        TEST(test_categorical),
        TEST(test_categorical_frequencies),
        TEST(test_more_distributions_of_key_0),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
