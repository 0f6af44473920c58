/* Helpers of the operation tests: arrays from literal values in any dtype, calls
 * that must succeed, comparisons by value. Arrays made here live until the end
 * of their test (teardown `release_all`). */
#ifndef TESTS_ENGINE_OPS_CHECK_H
#define TESTS_ENGINE_OPS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "mlx/c/mlx.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* OP inside OP shadows its own local, on purpose. */
#pragma GCC diagnostic ignored "-Wshadow"

static mlx_array kept[4096];
static int n_kept;
static mlx_stream cpu;
static char last_error[2048];

static void keep_error(const char *msg, void *data) {
    (void)data;
    snprintf(last_error, sizeof last_error, "%s", msg);
}

static inline int start(void **state) {
    (void)state;
    mlx_set_error_handler(keep_error, NULL, NULL);
    cpu = mlx_default_cpu_stream_new();
    return 0;
}

static inline int finish(void **state) {
    (void)state;
    mlx_stream_free(cpu);
    return 0;
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
    return keep(array);
}

/* OP(add, a, b): the result of mlx_add on the CPU stream. */
#define OP(name, ...)                                            \
    __extension__({                                              \
        mlx_array out_ = mlx_array_new();                        \
        const int status_ = mlx_##name(&out_, __VA_ARGS__, cpu); \
        must(status_, out_);                                     \
    })
/* OPV(parts, split, a, 3, 0): the results in an array of handles. */
#define OPV(parts, name, ...)                                                   \
    do {                                                                        \
        mlx_vector_array vector_ = mlx_vector_array_new();                      \
        if (mlx_##name(&vector_, __VA_ARGS__, cpu)) fail_msg("%s", last_error); \
        for (size_t i_ = 0; i_ < mlx_vector_array_size(vector_); i_++) {        \
            (parts)[i_] = mlx_array_new();                                      \
            mlx_vector_array_get(&(parts)[i_], vector_, i_);                    \
            keep((parts)[i_]);                                                  \
        }                                                                       \
        mlx_vector_array_free(vector_);                                         \
    } while (0)
/* The call fails and its message contains the text. */
#define FAILS(text, name, ...)                                                                   \
    do {                                                                                         \
        mlx_array out_ = mlx_array_new();                                                        \
        last_error[0] = 0;                                                                       \
        assert_int_equal(mlx_##name(&out_, __VA_ARGS__, cpu), 1);                                \
        assert_null(out_.ctx);                                                                   \
        if (!strstr(last_error, text)) fail_msg("\"%s\" does not say \"%s\"", last_error, text); \
    } while (0)

#define INTS(...) (int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int)
#define SHAPE(...) (int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))
#define VALUES(...) (double[]){__VA_ARGS__}, sizeof((double[]){__VA_ARGS__}) / sizeof(double)
#define NONE mlx_array_new()

/* An array of the dtype with these values (exact as doubles). */
static inline mlx_array make(mlx_dtype dtype, const int *shape, int ndim, const double *values,
                             size_t count) {
    size_t size = 1;
    for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
    assert_int_equal(size, count);
    mlx_array wide = keep(mlx_array_new_data(values, shape, ndim, MLX_FLOAT64));
    return OP(astype, wide, dtype);
}

static inline mlx_array scalar(mlx_dtype dtype, double value) {
    return make(dtype, NULL, 0, &value, 1);
}

/* 0, 1, 2, ... in that shape. */
static inline mlx_array count_up(mlx_dtype dtype, const int *shape, int ndim) {
    int size = 1;
    for (int i = 0; i < ndim; i++) size *= shape[i];
    mlx_array line = OP(arange, 0, size, 1, dtype);
    return OP(reshape, line, shape, (size_t)ndim);
}

/* The values as doubles in row-major order; borrowed until the test ends. */
static inline const double *doubles(mlx_array array) {
    mlx_array wide = OP(contiguous, OP(astype, array, MLX_FLOAT64), false);
    if (mlx_array_eval(wide)) fail_msg("%s", last_error);
    return mlx_array_data_float64(wide);
}

static inline void check_shape(mlx_array array, mlx_dtype dtype, const int *shape, int ndim) {
    assert_int_equal(mlx_array_dtype(array), dtype);
    assert_int_equal(mlx_array_ndim(array), ndim);
    for (int i = 0; i < ndim; i++) assert_int_equal(mlx_array_shape(array)[i], shape[i]);
}

/* |got - expected| <= tolerance * max(1, |expected|); NaN equals NaN. */
static inline void check_near(mlx_array array, const double *expected, size_t count,
                              double tolerance) {
    assert_int_equal(mlx_array_size(array), count);
    const double *got = doubles(array);
    for (size_t i = 0; i < count; i++) {
        if (isnan(got[i]) && isnan(expected[i])) continue;
        if (got[i] == expected[i]) continue;
        if (!(fabs(got[i] - expected[i]) <= tolerance * fmax(1, fabs(expected[i]))))
            fail_msg("item %zu is %.9g, expected %.9g", i, got[i], expected[i]);
    }
}

#define check(array, ...) check_near(array, VALUES(__VA_ARGS__), 0)

static inline mlx_vector_array vector_of(const mlx_array *arrays, size_t count) {
    return mlx_vector_array_new_data(arrays, count);
}

static inline mlx_optional_int some(int value) {
    return (mlx_optional_int){value, true};
}

#define TEST(name) cmocka_unit_test_teardown(name, release_all)

#endif
