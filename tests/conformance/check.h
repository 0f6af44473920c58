/* Helpers of the conformance tests, on mlx-c alone: arrays from literal values
 * in any dtype, calls that must succeed or fail, comparisons by value. Arrays
 * made here live until the end of their test (teardown `release_all`). */
#ifndef TESTS_CONFORMANCE_CHECK_H
#define TESTS_CONFORMANCE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "mlx/c/mlx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Where this engine and MLX 0.31.2 on a CPU differ on purpose. A test that meets
 * one asks upstream(NAME), which is true when the official library is tested. */
#define DIFFERENCES(X)                                                                  \
    X(HALF_SUMS, "sums of 16-bit floats grow in float32; upstream in the element type") \
    X(FLOAT64_MATHS, "float64 functions have double precision; upstream float32's")     \
    X(FLOOR_DIVIDE, "floor_divide rounds down; upstream truncates integers")            \
    X(INDEX_BOUNDS, "an index out of bounds is an error; upstream reads what is there") \
    X(HALF_REMAINDER, "remainder of 16-bit floats has the divisor's sign")              \
    X(ARANGE, "item i is start + i step; upstream adds step by step in the dtype")      \
    X(EMPTY_SCAN, "a scan of nothing is nothing; upstream divides by zero")             \
    X(NULL_DATA, "the data of a lazy array is NULL; upstream crashes")                  \
    X(INTEGER_POWER, "an integer to a negative power is 0; upstream does not return")   \
    X(BAD_DTYPE, "a number that is no dtype is an error; upstream makes something")     \
    X(COMPLEX_CURVES, "expm1 and sigmoid of complex numbers; upstream drops a part")    \
    X(PROCESS_KEY, "random keys are per thread; 0.31.2 has one for the process")        \
    X(NO_CACHE, "freed buffers are kept up to a limit; 0.31.2 keeps none on the CPU")   \
    X(SPEED, "loops are shortened for the slower library")                              \
    X(EVAL_ERRORS, "a failed evaluation is an error; upstream ends the process")
#define NAME_OF(name, why) name,
enum { DIFFERENCES(NAME_OF) DIFFERENCE_COUNT };
#undef NAME_OF
static inline int upstream(int difference) {
#ifdef OFFICIAL_ENGINE
    return difference < DIFFERENCE_COUNT;
#else
    return difference >= DIFFERENCE_COUNT;
#endif
}

/* OP inside OP shadows its own local, on purpose. */
#pragma GCC diagnostic ignored "-Wshadow"

static mlx_array kept[4096];
static int n_kept, error_count;
static mlx_stream cpu;
static char last_error[4096];

static void keep_error(const char *msg, void *data) {
    (void)data;
    error_count++;
    snprintf(last_error, sizeof last_error, "%s", msg);
}

static inline int start(void **state) {
    (void)state;
    mlx_set_error_handler(keep_error, NULL, NULL);
    cpu = mlx_default_cpu_stream_new();
    return cpu.ctx ? 0 : 1;
}

static inline int finish(void **state) {
    (void)state;
    return mlx_stream_free(cpu);
}

static inline int release_all(void **state) {
    (void)state;
    while (n_kept) mlx_array_free(kept[--n_kept]);
    return 0;
}

static inline mlx_array keep(mlx_array array) {
    assert_true(n_kept < 4096);
    kept[n_kept++] = array;
    return array;
}

static inline mlx_array must(int status, mlx_array array) {
    if (status) fail_msg("%s", last_error);
    assert_non_null(array.ctx);
    return keep(array);
}

/* OP(add, a, b): the result of mlx_add on the CPU stream. */
#define OP(name, ...)                                            \
    __extension__({                                              \
        mlx_array out_ = mlx_array_new();                        \
        const int status_ = mlx_##name(&out_, __VA_ARGS__, cpu); \
        must(status_, out_);                                     \
    })
/* OPV(parts, split, a, 3, 0): the results in an array of handles, and their number. */
#define OPV(parts, name, ...)                                                   \
    __extension__({                                                             \
        mlx_vector_array vector_ = mlx_vector_array_new();                      \
        if (mlx_##name(&vector_, __VA_ARGS__, cpu)) fail_msg("%s", last_error); \
        const size_t size_ = mlx_vector_array_size(vector_);                    \
        for (size_t i_ = 0; i_ < size_; i_++) {                                 \
            (parts)[i_] = mlx_array_new();                                      \
            mlx_vector_array_get(&(parts)[i_], vector_, i_);                    \
            keep((parts)[i_]);                                                  \
        }                                                                       \
        mlx_vector_array_free(vector_);                                         \
        (int)size_;                                                             \
    })
/* The call fails, tells the handler once and leaves its output alone. */
#define FAILS_WITH(text, name, ...)                                                              \
    do {                                                                                         \
        mlx_array out_ = mlx_array_new_int(77);                                                  \
        int item_ = 0;                                                                           \
        last_error[0] = 0;                                                                       \
        error_count = 0;                                                                         \
        if (mlx_##name(&out_, __VA_ARGS__) != 1) fail_msg("%s did not fail", #name);             \
        assert_int_equal(error_count >= 1, 1);                                                   \
        if (!strstr(last_error, text)) fail_msg("\"%s\" does not say \"%s\"", last_error, text); \
        assert_int_equal(mlx_array_item_int32(&item_, out_), 0);                                 \
        assert_int_equal(item_, 77);                                                             \
        mlx_array_free(out_);                                                                    \
    } while (0)
#define FAILS(text, name, ...) FAILS_WITH(text, name, __VA_ARGS__, cpu)

#define LIST(...) (int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int)
#define SHAPE(...) (int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))
/* VALUES() is the empty list. */
#define VALUES(...) \
    ((double[]){0, ##__VA_ARGS__} + 1), sizeof((double[]){0, ##__VA_ARGS__}) / sizeof(double) - 1
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define NONE mlx_array_new()

/* An array of the dtype with these values (exact as doubles). */
static inline mlx_array make(mlx_dtype dtype, const int *shape, int ndim, const double *values,
                             size_t count) {
    size_t size = 1;
    for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
    assert_int_equal(size, count);
    mlx_array wide = keep(mlx_array_new_data(values, shape, ndim, MLX_FLOAT64));
    return dtype == MLX_FLOAT64 ? wide : OP(astype, wide, dtype);
}

static inline mlx_array scalar(mlx_dtype dtype, double value) {
    return make(dtype, NULL, 0, &value, 1);
}

static inline mlx_array row(mlx_dtype dtype, const double *values, size_t count) {
    return make(dtype, SHAPE((int)count), values, count);
}

/* 0, 1, 2, ... in that shape. */
static inline mlx_array count_up(mlx_dtype dtype, const int *shape, int ndim) {
    int size = 1;
    for (int i = 0; i < ndim; i++) size *= shape[i];
    mlx_array line = OP(astype, OP(arange, 0, size, 1, MLX_INT32), dtype);
    return OP(reshape, line, shape, (size_t)ndim);
}

static inline mlx_array empty(mlx_dtype dtype, const int *shape, int ndim) {
    return OP(zeros, shape, (size_t)ndim, dtype);
}

/* The values as doubles in row-major order; borrowed until the test ends. */
static inline const double *doubles(mlx_array array) {
    mlx_array wide = OP(contiguous, OP(astype, array, MLX_FLOAT64), false);
    if (mlx_array_eval(wide)) fail_msg("%s", last_error);
    return mlx_array_size(wide) ? mlx_array_data_float64(wide) : NULL;
}

static inline void check_shape(mlx_array array, mlx_dtype dtype, const int *shape, int ndim) {
    if (mlx_array_dtype(array) != dtype)
        fail_msg("dtype %d, expected %d", mlx_array_dtype(array), dtype);
    if ((int)mlx_array_ndim(array) != ndim)
        fail_msg("%zu dimensions, expected %d", mlx_array_ndim(array), ndim);
    for (int i = 0; i < ndim; i++)
        if (mlx_array_shape(array)[i] != shape[i])
            fail_msg("axis %d has size %d, expected %d", i, mlx_array_shape(array)[i], shape[i]);
}

/* |got - expected| <= tolerance * max(1, |expected|); NaN equals NaN. */
static inline void check_near(mlx_array array, const double *expected, size_t count,
                              double tolerance) {
    if (mlx_array_size(array) != count)
        fail_msg("%zu items, expected %zu", mlx_array_size(array), count);
    const double *got = doubles(array);
    for (size_t i = 0; i < count; i++) {
        if (isnan(got[i]) && isnan(expected[i])) continue;
        if (got[i] == expected[i]) continue;
        if (!(fabs(got[i] - expected[i]) <= tolerance * fmax(1, fabs(expected[i]))))
            fail_msg("item %zu is %.9g, expected %.9g", i, got[i], expected[i]);
    }
}

#define check(array, ...) check_near(array, VALUES(__VA_ARGS__), 3e-7)

static inline void check_same(mlx_array a, mlx_array b, double tolerance) {
    check_near(a, doubles(b), mlx_array_size(b), tolerance);
}

static inline mlx_vector_array vector_of(const mlx_array *arrays, size_t count) {
    return mlx_vector_array_new_data(arrays, count);
}

static inline mlx_optional_int some(int value) {
    return (mlx_optional_int){value, true};
}

static inline void check_text(mlx_array array, const char *expected) {
    mlx_string text = mlx_string_new();
    assert_int_equal(mlx_array_tostring(&text, array), 0);
    assert_string_equal(mlx_string_data(text), expected);
    mlx_string_free(text);
}

#define TEST(name) cmocka_unit_test_teardown(name, release_all)
#define RUN(...)                                             \
    int main(void) {                                         \
        const struct CMUnitTest tests[] = {__VA_ARGS__};     \
        return cmocka_run_group_tests(tests, start, finish); \
    }

#endif
