/* Functions as values. A handle holds one reference to a shared Closure, so a
 * payload lives until the last handle that came from it is freed. */
#include "mlx/c/closure.h"

#include "engine/core/internal.h"

#include <stdlib.h>

typedef struct Closure {
    _Atomic uint32_t refs;
    int (*plain)(mlx_vector_array *, const mlx_vector_array);
    int (*with_payload)(mlx_vector_array *, const mlx_vector_array, void *);
    int (*unary)(mlx_array *, const mlx_array);
    void *payload;
    void (*dtor)(void *);
} Closure;

typedef struct ClosureHandle {
    Closure *closure;
} ClosureHandle;

static mlx_closure closure_make(Closure fields) {
    ClosureHandle *handle = base_alloc(sizeof *handle);
    handle->closure = base_alloc(sizeof(Closure));
    *handle->closure = fields;
    handle->closure->refs = 1;
    return (mlx_closure){handle};
}

static void closure_release(Closure *closure) {
    if (atomic_fetch_sub_explicit(&closure->refs, 1, memory_order_acq_rel) != 1) return;
    if (closure->dtor) closure->dtor(closure->payload);
    free(closure);
}

mlx_closure mlx_closure_new(void) {
    return (mlx_closure){NULL};
}

mlx_closure mlx_closure_new_func(int (*fun)(mlx_vector_array *, const mlx_vector_array)) {
    return closure_make((Closure){.plain = fun});
}

mlx_closure mlx_closure_new_unary(int (*fun)(mlx_array *, const mlx_array)) {
    return closure_make((Closure){.unary = fun});
}

mlx_closure mlx_closure_new_func_payload(int (*fun)(mlx_vector_array *, const mlx_vector_array,
                                                    void *),
                                         void *payload, void (*dtor)(void *)) {
    return closure_make((Closure){.with_payload = fun, .payload = payload, .dtor = dtor});
}

int mlx_closure_free(mlx_closure cls) {
    if (!cls.ctx) return 0;
    closure_release(((ClosureHandle *)cls.ctx)->closure);
    free(cls.ctx);
    return 0;
}

int mlx_closure_set(mlx_closure *cls, const mlx_closure src) {
    const ClosureHandle *source = ctx_of(src, mlx_closure);
    if (!source) return 1;
    atomic_fetch_add_explicit(&source->closure->refs, 1, memory_order_relaxed);
    ClosureHandle *handle = cls->ctx;
    if (handle)
        closure_release(handle->closure);
    else
        cls->ctx = handle = base_alloc(sizeof *handle);
    handle->closure = source->closure;
    return 0;
}

static int apply_unary(const Closure *closure, mlx_vector_array *result,
                       const mlx_vector_array input) {
    mlx_array argument = {NULL}, value = {NULL};
    int status = mlx_vector_array_get(&argument, input, 0);
    if (status == 0) status = closure->unary(&value, argument);
    if (status == 0) status = mlx_vector_array_set_value(result, value);
    mlx_array_free(argument);
    mlx_array_free(value);
    return status;
}

int mlx_closure_apply(mlx_vector_array *res, mlx_closure cls, const mlx_vector_array input) {
    const ClosureHandle *handle = ctx_of(cls, mlx_closure);
    if (!handle || !ctx_of(input, mlx_vector_array)) return 1;
    Closure *closure = handle->closure;
    atomic_fetch_add_explicit(&closure->refs, 1, memory_order_relaxed);

    /* The function sees its own copy of the list: it may free or refill the
     * caller's while it runs. */
    mlx_vector_array arguments = {NULL}, result = {NULL};
    mlx_vector_array_set(&arguments, input);
    int status = closure->unary ? apply_unary(closure, &result, arguments)
                 : closure->with_payload
                     ? closure->with_payload(&result, arguments, closure->payload)
                     : closure->plain(&result, arguments);
    if (status != 0) {
        op_error("mlx_closure returned a non-zero value");
        status = 1;
    } else {
        status = mlx_vector_array_set(res, result);
    }
    mlx_vector_array_free(arguments);
    mlx_vector_array_free(result);
    closure_release(closure);
    return status;
}
