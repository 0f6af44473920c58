/* Which texts are taken for repetitions of earlier ones. */
#include "data/data_test.h"

static int64_t add(DxDuplicates *duplicates, const char *text, bool *exactly) {
    DxSketch sketch;
    dx_sketch(text, strlen(text), &sketch);
    return dx_duplicates_add(duplicates, &sketch, exactly);
}

/* Words "w<first>" to "w<last>". */
static char *words(int first, int last) {
    StrBuf text = {0};
    for (int i = first; i <= last; i++) base_str_appendf(&text, "w%d ", i);
    return base_str_detach(&text);
}

static void test_equal_words_are_exact_duplicates(void **state) {
    (void)state;
    bool exactly = false;
    DxDuplicates *duplicates = dx_duplicates_new(1);
    assert_int_equal(add(duplicates, "one two", &exactly), -1);
    assert_int_equal(add(duplicates, "one three", &exactly), -1);
    assert_int_equal(add(duplicates, "  one\n\ttwo ", &exactly), 0);
    assert_true(exactly);
    assert_int_equal(add(duplicates, "One two", &exactly), -1);
    assert_int_equal(add(duplicates, "onetwo", &exactly), -1);
    assert_int_equal(add(duplicates, "", &exactly), -1);
    assert_int_equal(add(duplicates, " ", &exactly), 4);
    dx_duplicates_free(duplicates);
}

static void test_near_texts_are_found_among_many(void **state) {
    (void)state;
    bool exactly = true;
    DxDuplicates *duplicates = dx_duplicates_new(0.8);
    for (int i = 0; i < 2000; i++) {
        char *text = words(i * 1000, i * 1000 + 99);
        assert_int_equal(add(duplicates, text, &exactly), -1);
        free(text);
    }
    for (int i = 0; i < 2000; i += 37) {
        char *near = words(i * 1000 + 3, i * 1000 + 99),
             *half = words(i * 1000 + 50, i * 1000 + 149);
        assert_int_equal(add(duplicates, near, &exactly), i);
        assert_false(exactly);
        DxSketch one, other;
        char *whole = words(i * 1000, i * 1000 + 99);
        dx_sketch(whole, strlen(whole), &one);
        dx_sketch(half, strlen(half), &other);
        assert_true(dx_sketch_similarity(&one, &other) < 0.6); /* 46 of 146 runs */
        free(near);
        free(half);
        free(whole);
    }
    dx_duplicates_free(duplicates);
}

static void test_the_estimate_is_near_the_similarity(void **state) {
    (void)state;
    double sum = 0;
    for (int i = 0; i < 50; i++) { /* 96 and 96 runs, 72 of them common: 72 / 120 */
        char *one = words(i * 1000, i * 1000 + 99), *other = words(i * 1000 + 24, i * 1000 + 123);
        DxSketch a, b;
        dx_sketch(one, strlen(one), &a);
        dx_sketch(other, strlen(other), &b);
        sum += dx_sketch_similarity(&a, &b);
        free(one);
        free(other);
    }
    assert_true(sum / 50 > 0.57 && sum / 50 < 0.63);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_words_are_exact_duplicates),
        cmocka_unit_test(test_near_texts_are_found_among_many),
        cmocka_unit_test(test_the_estimate_is_near_the_similarity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
