/* Gradients against central differences.
 *
 *     static mlx_array f(const mlx_array *x) {           // built with OP
 *         return OP(multiply, x[0], OP(sin, x[1]));
 *     }
 *     check_gradient(f, (mlx_array[]){a, b}, 2, 1e-6, 1e-7);
 *
 * f may give any shape; its result is weighted with fixed numbers and summed.
 * Inputs are float64 (or float32, with a larger step and tolerance; numbers of
 * other dtypes are given to f and not differentiated). `second` also checks the
 * gradient of the gradient. What f keeps is released after each call. */
#ifndef TESTS_ENGINE_GRAD_CHECK_H
#define TESTS_ENGINE_GRAD_CHECK_H

#include "ops_check.h"

#include <stdlib.h>

typedef mlx_array (*GradFunction)(const mlx_array *inputs);

enum { GRAD_INPUTS = 8 };

static inline void release_to(int mark) {
    while (n_kept > mark) mlx_array_free(kept[--n_kept]);
}

/* A list of the arrays, for the caller to free. */
static inline int call_function(mlx_vector_array *res, const mlx_vector_array input,
                                void *payload) {
    mlx_array inputs[GRAD_INPUTS];
    const size_t n = mlx_vector_array_size(input);
    for (size_t i = 0; i < n; i++) {
        inputs[i] = mlx_array_new();
        mlx_vector_array_get(&inputs[i], input, i);
        keep(inputs[i]);
    }
    GradFunction function;
    memcpy(&function, payload, sizeof function);
    return mlx_vector_array_set_value(res, function(inputs));
}

static void free_nothing(void *payload) {
    (void)payload;
}

static inline mlx_closure closure_of(GradFunction *function) {
    return mlx_closure_new_func_payload(call_function, function, free_nothing);
}

/* Numbers that repeat in no pattern of the function: sin(1), sin(2.7), ... */
static inline mlx_array weights_like(mlx_array y) {
    const int size = (int)mlx_array_size(y);
    mlx_array line = OP(arange, 0, size, 1, MLX_FLOAT64);
    line = OP(sin, OP(add, OP(multiply, line, scalar(MLX_FLOAT64, 1.7)), scalar(MLX_FLOAT64, 1)));
    line = OP(reshape, line, mlx_array_shape(y), mlx_array_ndim(y));
    return OP(astype, line, mlx_array_dtype(y));
}

/* The gradients of sum(weights * f(inputs)), kept. */
static inline void gradients(GradFunction function, const mlx_array *inputs, size_t n,
                             mlx_array weights, mlx_array *grads) {
    mlx_closure closure = closure_of(&function);
    mlx_vector_array primals = vector_of(inputs, n), cotangents = vector_of(&weights, 1);
    mlx_vector_array values = {NULL}, result = {NULL};
    if (mlx_vjp(&values, &result, closure, primals, cotangents)) fail_msg("%s", last_error);
    assert_int_equal(mlx_vector_array_size(result), n);
    for (size_t i = 0; i < n; i++) {
        grads[i] = mlx_array_new();
        mlx_vector_array_get(&grads[i], result, i);
        keep(grads[i]);
        check_shape(grads[i], mlx_array_dtype(inputs[i]), mlx_array_shape(inputs[i]),
                    (int)mlx_array_ndim(inputs[i]));
    }
    mlx_vector_array_free(primals);
    mlx_vector_array_free(cotangents);
    mlx_vector_array_free(values);
    mlx_vector_array_free(result);
    mlx_closure_free(closure);
}

static inline double weighted_sum(GradFunction function, const mlx_array *inputs,
                                  const double *weights) {
    const int mark = n_kept;
    mlx_array y = function(inputs);
    const double *values = doubles(y);
    double total = 0;
    for (size_t i = 0; i < mlx_array_size(y); i++) total += weights[i] * values[i];
    release_to(mark);
    return total;
}

static inline bool is_real(mlx_array x) {
    const mlx_dtype dtype = mlx_array_dtype(x);
    return dtype == MLX_FLOAT64 || dtype == MLX_FLOAT32;
}

static inline void check_gradient(GradFunction function, const mlx_array *inputs, size_t n,
                                  double step, double tolerance) {
    const int mark = n_kept;
    mlx_array moved[GRAD_INPUTS], grads[GRAD_INPUTS];
    mlx_array weights = weights_like(function(inputs));
    const double *weight_values = doubles(weights);
    gradients(function, inputs, n, weights, grads);
    for (size_t i = 0; i < n; i++) moved[i] = inputs[i];
    for (size_t i = 0; i < n; i++) {
        if (!is_real(inputs[i])) continue;
        const size_t size = mlx_array_size(inputs[i]);
        const double *got = doubles(grads[i]);
        double *x = malloc((size + 1) * sizeof *x);
        memcpy(x, doubles(inputs[i]), size * sizeof *x);
        for (size_t k = 0; k < size; k++) {
            const double at = x[k];
            double slope = 0;
            for (int side = -1; side <= 1; side += 2) {
                const int inner = n_kept;
                x[k] = at + side * step;
                moved[i] = make(mlx_array_dtype(inputs[i]), mlx_array_shape(inputs[i]),
                                (int)mlx_array_ndim(inputs[i]), x, size);
                slope += side * weighted_sum(function, moved, weight_values) / (2 * step);
                release_to(inner);
            }
            x[k] = at;
            if (!(fabs(got[k] - slope) <= tolerance * fmax(1, fabs(slope))))
                fail_msg("gradient %zu of input %zu is %.9g, the difference quotient %.9g", k, i,
                         got[k], slope);
        }
        moved[i] = inputs[i];
        free(x);
    }
    release_to(mark);
}

/* The gradients of grad_target joined to one line, as a function of its inputs
 * (the real ones) and of the cotangent, the last input. */
static GradFunction grad_target;

static inline mlx_array gradient_line(const mlx_array *inputs, size_t n) {
    mlx_array grads[GRAD_INPUTS], lines[GRAD_INPUTS];
    gradients(grad_target, inputs, n - 1, inputs[n - 1], grads);
    size_t count = 0;
    for (size_t i = 0; i + 1 < n; i++)
        if (is_real(inputs[i])) lines[count++] = OP(flatten, grads[i], 0, -1);
    mlx_vector_array vector = vector_of(lines, count);
    mlx_array line = OP(concatenate_axis, vector, 0);
    mlx_vector_array_free(vector);
    return line;
}

#define GRADIENT_LINE(n)                                            \
    static inline mlx_array gradient_line_##n(const mlx_array *x) { \
        return gradient_line(x, n);                                 \
    }
GRADIENT_LINE(2)
GRADIENT_LINE(3)
GRADIENT_LINE(4)
GRADIENT_LINE(5)
GRADIENT_LINE(6)

static inline void check_second(GradFunction function, const mlx_array *inputs, size_t n,
                                double step, double tolerance) {
    static const GradFunction lines[] = {gradient_line_2, gradient_line_3, gradient_line_4,
                                         gradient_line_5, gradient_line_6};
    const int mark = n_kept;
    mlx_array all[GRAD_INPUTS];
    for (size_t i = 0; i < n; i++) all[i] = inputs[i];
    all[n] = weights_like(function(inputs));
    grad_target = function;
    check_gradient(lines[n - 1], all, n + 1, step, tolerance);
    release_to(mark);
}

/* First and second order in float64. */
static inline void check_gradients(GradFunction function, const mlx_array *inputs, size_t n) {
    check_gradient(function, inputs, n, 1e-6, 1e-7);
    check_second(function, inputs, n, 1e-6, 1e-6);
}

#endif
