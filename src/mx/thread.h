/* What the files of mx/ share: a thread's stack of owned arrays, its failure,
 * and the frame in which an operation of the C API is called. */
#ifndef MX_THREAD_H
#define MX_THREAD_H

#include "mx/mx.h"

#define MX_NONE ((mlx_array){0})

/* True when the operation may run: nothing failed before, a scope is open, no
 * input is empty. Otherwise the failure is recorded. */
bool mx_ready(const char *operation, const mlx_array *inputs, size_t count);
/* Takes over the result of a C API call: owned by the innermost scope when
 * status is 0, else a recorded failure that names the inputs' shapes. */
mlx_array mx_settle(int status, mlx_array result, const char *operation, const mlx_array *inputs,
                    size_t count);
/* Calls `expression` (an int-returning mlx_ function that writes to &result)
 * on the inputs listed after the operation's name. */
#define MX_CALL(operation, expression, ...)                                               \
    do {                                                                                  \
        const mlx_array mx_inputs[] = {__VA_ARGS__};                                      \
        if (!mx_ready(operation, mx_inputs, BASE_COUNT(mx_inputs))) return MX_NONE;       \
        mlx_array result = {0};                                                           \
        int mx_status = (expression);                                                     \
        return mx_settle(mx_status, result, operation, mx_inputs, BASE_COUNT(mx_inputs)); \
    } while (0)

#endif
