/* Helpers of the core and io tests: the last reported error, small arrays. */
#ifndef TESTS_ENGINE_CORE_CHECK_H
#define TESTS_ENGINE_CORE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "mlx/c/mlx.h"

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char last_error[2048];
static int error_count;

static void keep_error(const char *msg, void *data) {
    (void)data;
    snprintf(last_error, sizeof last_error, "%s", msg);
    error_count++;
}

static int catch_errors(void **state) {
    (void)state;
    mlx_set_error_handler(keep_error, NULL, NULL);
    return 0;
}

/* The call failed and its message contains the text. */
#define assert_fails(call, text)                                                                 \
    do {                                                                                         \
        last_error[0] = 0;                                                                       \
        assert_int_equal(call, 1);                                                               \
        if (!strstr(last_error, text)) fail_msg("\"%s\" does not say \"%s\"", last_error, text); \
    } while (0)

#define INTS(...)   \
    (int[]) {       \
        __VA_ARGS__ \
    }

static inline mlx_array floats(const float *values, const int *shape, int ndim) {
    return mlx_array_new_data(values, shape, ndim, MLX_FLOAT32);
}

static inline void assert_text(mlx_array array, const char *expected) {
    mlx_string text = mlx_string_new();
    assert_int_equal(mlx_array_tostring(&text, array), 0);
    assert_string_equal(mlx_string_data(text), expected);
    mlx_string_free(text);
}

#endif
