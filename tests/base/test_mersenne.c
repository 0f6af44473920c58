/* The Mersenne Twister draws what NumPy 2.4.6 and Python 3.11 draw. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void expect(const uint32_t *got, const uint32_t *wanted, size_t count) {
    for (size_t i = 0; i < count; i++) assert_int_equal(got[i], wanted[i]);
}

static void test_permutations_are_numpys(void **state) {
    (void)state;
    static const uint32_t ten[] = {4, 0, 7, 5, 8, 3, 1, 6, 9, 2}, seven[] = {3, 5, 4, 2, 6, 0, 1};
    static const uint32_t head[] = {993, 859, 298, 553, 672}, tail[] = {629, 559, 684};
    static uint32_t order[1000];
    MersenneTwister twister;
    base_mersenne_numpy(&twister, 123);
    base_mersenne_permutation(&twister, 10, order);
    expect(order, ten, 10);
    base_mersenne_permutation(&twister, 7, order);
    expect(order, seven, 7);
    base_mersenne_numpy(&twister, 0);
    base_mersenne_permutation(&twister, 1000, order);
    expect(order, head, 5);
    expect(order + 997, tail, 3);
    base_mersenne_permutation(&twister, 0, order);
    base_mersenne_permutation(&twister, 1, order);
    assert_int_equal(order[0], 0);
}

static void test_samples_are_pythons(void **state) {
    (void)state;
    static const uint32_t of_ten[] = {0, 4, 1, 6}, of_hundred[] = {52, 34, 13, 4, 48};
    static const uint32_t of_more[] = {137, 143, 85, 87, 13, 40, 34, 86, 179};
    static const uint32_t of_long_seed[] = {628, 765, 834};
    uint32_t chosen[16];
    MersenneTwister twister;
    base_mersenne_python(&twister, 123);
    base_mersenne_sample(&twister, 10, 4, chosen);
    expect(chosen, of_ten, 4);
    base_mersenne_sample(&twister, 100, 5, chosen);
    expect(chosen, of_hundred, 5);
    base_mersenne_sample(&twister, 200, 9, chosen);
    expect(chosen, of_more, 9);
    base_mersenne_python(&twister, (UINT64_C(1) << 40) + 7);
    base_mersenne_sample(&twister, 1000, 3, chosen);
    expect(chosen, of_long_seed, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutations_are_numpys),
        cmocka_unit_test(test_samples_are_pythons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
