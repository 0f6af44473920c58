/* Functions as values. A handle holds one reference to a shared Closure, so a
 * payload lives until the last handle that came from it is freed. The kinds
 * differ only by the signature of the function; a macro writes what they share,
 * and each has its own apply. */
#include "mlx/c/closure.h"

#include "engine/core/internal.h"

#include <stdlib.h>

typedef void (*AnyFunction)(void);

typedef enum { CALLS_PLAIN, CALLS_WITH_PAYLOAD, CALLS_UNARY } CallKind;

typedef struct Closure {
    _Atomic uint32_t refs;
    CallKind kind;
    bool reports; /* a failure of the function was reported by itself */
    AnyFunction function;
    void *payload;
    void (*dtor)(void *);
} Closure;

typedef struct ClosureHandle {
    Closure *closure;
} ClosureHandle;

static void *closure_make(Closure fields) {
    ClosureHandle *handle = base_alloc(sizeof *handle);
    handle->closure = base_alloc(sizeof(Closure));
    *handle->closure = fields;
    handle->closure->refs = 1;
    return handle;
}

static Closure *closure_retain(Closure *closure) {
    atomic_fetch_add_explicit(&closure->refs, 1, memory_order_relaxed);
    return closure;
}

static void closure_release(Closure *closure) {
    if (atomic_fetch_sub_explicit(&closure->refs, 1, memory_order_acq_rel) != 1) return;
    if (closure->dtor) closure->dtor(closure->payload);
    free(closure);
}

static int handle_free(void *ctx) {
    if (!ctx) return 0;
    closure_release(((ClosureHandle *)ctx)->closure);
    free(ctx);
    return 0;
}

static void handle_set(void **ctx, const ClosureHandle *source) {
    Closure *closure = closure_retain(source->closure);
    ClosureHandle *handle = *ctx;
    if (handle)
        closure_release(handle->closure);
    else
        *ctx = handle = base_alloc(sizeof *handle);
    handle->closure = closure;
}

/* After the call: reports, releases. */
static int call_end(Closure *closure, int status) {
    if (status != 0 && !closure->reports) op_error("mlx_closure returned a non-zero value");
    closure_release(closure);
    return status != 0;
}

/* What every kind has: Function and PayloadFunction are its function types. */
#define CLOSURE_KIND(name, Function, PayloadFunction)                               \
    mlx_##name mlx_##name##_new(void) {                                             \
        return (mlx_##name){NULL};                                                  \
    }                                                                               \
    int mlx_##name##_free(mlx_##name cls) {                                         \
        return handle_free(cls.ctx);                                                \
    }                                                                               \
    mlx_##name mlx_##name##_new_func(Function fun) {                                \
        return (mlx_##name){closure_make((Closure){.function = (AnyFunction)fun})}; \
    }                                                                               \
    mlx_##name mlx_##name##_new_func_payload(PayloadFunction fun, void *payload,    \
                                             void (*dtor)(void *)) {                \
        return (mlx_##name){closure_make((Closure){.kind = CALLS_WITH_PAYLOAD,      \
                                                   .function = (AnyFunction)fun,    \
                                                   .payload = payload,              \
                                                   .dtor = dtor})};                 \
    }                                                                               \
    int mlx_##name##_set(mlx_##name *cls, const mlx_##name src) {                   \
        const ClosureHandle *source = ctx_of(src, mlx_##name);                      \
        if (!source) return 1;                                                      \
        handle_set(&cls->ctx, source);                                              \
        return 0;                                                                   \
    }

/* The function sees its own copies of the lists: it may free or refill the
 * caller's while it runs. */
static mlx_vector_array list_copy(const mlx_vector_array list) {
    mlx_vector_array copy = {NULL};
    mlx_vector_array_set(&copy, list);
    return copy;
}

/* Hands a result over; the function may have left it null. */
static int list_finish(mlx_vector_array *res, mlx_vector_array result) {
    const int status = mlx_vector_array_set(res, result);
    mlx_vector_array_free(result);
    return status;
}

/* ---- arrays to arrays ---- */

typedef int (*PlainFunction)(mlx_vector_array *, const mlx_vector_array);
typedef int (*PlainPayloadFunction)(mlx_vector_array *, const mlx_vector_array, void *);
typedef int (*UnaryFunction)(mlx_array *, const mlx_array);
CLOSURE_KIND(closure, PlainFunction, PlainPayloadFunction)

mlx_closure mlx_closure_new_unary(UnaryFunction fun) {
    return (mlx_closure){
        closure_make((Closure){.kind = CALLS_UNARY, .function = (AnyFunction)fun})};
}

mlx_closure closure_new_own(PlainPayloadFunction fun, void *payload, void (*dtor)(void *)) {
    mlx_closure closure = mlx_closure_new_func_payload(fun, payload, dtor);
    ((ClosureHandle *)closure.ctx)->closure->reports = true;
    return closure;
}

static int apply_unary(UnaryFunction function, mlx_vector_array *result,
                       const mlx_vector_array input) {
    mlx_array argument = {NULL}, value = {NULL};
    int status = mlx_vector_array_get(&argument, input, 0);
    if (status == 0) status = function(&value, argument);
    if (status == 0) status = mlx_vector_array_set_value(result, value);
    mlx_array_free(argument);
    mlx_array_free(value);
    return status;
}

int mlx_closure_apply(mlx_vector_array *res, mlx_closure cls, const mlx_vector_array input) {
    const ClosureHandle *handle = ctx_of(cls, mlx_closure);
    if (!handle || !ctx_of(input, mlx_vector_array)) return 1;
    if (handle->closure->kind == CALLS_UNARY && mlx_vector_array_size(input) != 1) {
        op_error("closure: expected unary input");
        return 1;
    }
    Closure *closure = closure_retain(handle->closure);
    mlx_vector_array arguments = list_copy(input), result = {NULL};
    int status = 0;
    switch (closure->kind) {
    case CALLS_PLAIN: status = ((PlainFunction)closure->function)(&result, arguments); break;
    case CALLS_WITH_PAYLOAD:
        status = ((PlainPayloadFunction)closure->function)(&result, arguments, closure->payload);
        break;
    case CALLS_UNARY:
        status = apply_unary((UnaryFunction)closure->function, &result, arguments);
        break;
    }
    mlx_vector_array_free(arguments);
    if (call_end(closure, status)) {
        mlx_vector_array_free(result);
        return 1;
    }
    return list_finish(res, result);
}

/* ---- arrays and named arrays to arrays ---- */

typedef int (*KwargsFunction)(mlx_vector_array *, const mlx_vector_array,
                              const mlx_map_string_to_array);
typedef int (*KwargsPayloadFunction)(mlx_vector_array *, const mlx_vector_array,
                                     const mlx_map_string_to_array, void *);
CLOSURE_KIND(closure_kwargs, KwargsFunction, KwargsPayloadFunction)

int mlx_closure_kwargs_apply(mlx_vector_array *res, mlx_closure_kwargs cls,
                             const mlx_vector_array input_0,
                             const mlx_map_string_to_array input_1) {
    const ClosureHandle *handle = ctx_of(cls, mlx_closure_kwargs);
    if (!handle || !ctx_of(input_0, mlx_vector_array) || !ctx_of(input_1, mlx_map_string_to_array))
        return 1;
    Closure *closure = closure_retain(handle->closure);
    mlx_vector_array arguments = list_copy(input_0), result = {NULL};
    mlx_map_string_to_array named = {NULL};
    mlx_map_string_to_array_set(&named, input_1);
    const int status = closure->kind == CALLS_WITH_PAYLOAD
                           ? ((KwargsPayloadFunction)closure->function)(&result, arguments, named,
                                                                        closure->payload)
                           : ((KwargsFunction)closure->function)(&result, arguments, named);
    mlx_vector_array_free(arguments);
    mlx_map_string_to_array_free(named);
    if (call_end(closure, status)) {
        mlx_vector_array_free(result);
        return 1;
    }
    return list_finish(res, result);
}

/* ---- arrays to values and gradients ---- */

typedef int (*GradFunction)(mlx_vector_array *, mlx_vector_array *, const mlx_vector_array);
typedef int (*GradPayloadFunction)(mlx_vector_array *, mlx_vector_array *, const mlx_vector_array,
                                   void *);
CLOSURE_KIND(closure_value_and_grad, GradFunction, GradPayloadFunction)

mlx_closure_value_and_grad closure_value_and_grad_new_own(GradPayloadFunction fun, void *payload,
                                                          void (*dtor)(void *)) {
    mlx_closure_value_and_grad closure =
        mlx_closure_value_and_grad_new_func_payload(fun, payload, dtor);
    ((ClosureHandle *)closure.ctx)->closure->reports = true;
    return closure;
}

int mlx_closure_value_and_grad_apply(mlx_vector_array *res_0, mlx_vector_array *res_1,
                                     mlx_closure_value_and_grad cls, const mlx_vector_array input) {
    const ClosureHandle *handle = ctx_of(cls, mlx_closure_value_and_grad);
    if (!handle || !ctx_of(input, mlx_vector_array)) return 1;
    Closure *closure = closure_retain(handle->closure);
    mlx_vector_array arguments = list_copy(input), values = {NULL}, grads = {NULL};
    const int status =
        closure->kind == CALLS_WITH_PAYLOAD
            ? ((GradPayloadFunction)closure->function)(&values, &grads, arguments, closure->payload)
            : ((GradFunction)closure->function)(&values, &grads, arguments);
    mlx_vector_array_free(arguments);
    if (call_end(closure, status) || !ctx_of(grads, mlx_vector_array)) {
        mlx_vector_array_free(values);
        mlx_vector_array_free(grads);
        return 1;
    }
    if (list_finish(res_0, values)) {
        mlx_vector_array_free(grads);
        return 1;
    }
    return list_finish(res_1, grads);
}

/* ---- gradient rules ---- */

typedef int (*CustomFunction)(mlx_vector_array *, const mlx_vector_array, const mlx_vector_array,
                              const mlx_vector_array);
typedef int (*CustomPayloadFunction)(mlx_vector_array *, const mlx_vector_array,
                                     const mlx_vector_array, const mlx_vector_array, void *);
CLOSURE_KIND(closure_custom, CustomFunction, CustomPayloadFunction)

int mlx_closure_custom_apply(mlx_vector_array *res, mlx_closure_custom cls,
                             const mlx_vector_array input_0, const mlx_vector_array input_1,
                             const mlx_vector_array input_2) {
    const ClosureHandle *handle = ctx_of(cls, mlx_closure_custom);
    if (!handle || !ctx_of(input_0, mlx_vector_array) || !ctx_of(input_1, mlx_vector_array) ||
        !ctx_of(input_2, mlx_vector_array))
        return 1;
    Closure *closure = closure_retain(handle->closure);
    mlx_vector_array primals = list_copy(input_0), cotangents = list_copy(input_1),
                     outputs = list_copy(input_2), result = {NULL};
    const int status =
        closure->kind == CALLS_WITH_PAYLOAD
            ? ((CustomPayloadFunction)closure->function)(&result, primals, cotangents, outputs,
                                                         closure->payload)
            : ((CustomFunction)closure->function)(&result, primals, cotangents, outputs);
    mlx_vector_array_free(primals);
    mlx_vector_array_free(cotangents);
    mlx_vector_array_free(outputs);
    if (call_end(closure, status)) {
        mlx_vector_array_free(result);
        return 1;
    }
    return list_finish(res, result);
}

/* ---- forward rules ---- */

typedef int (*JvpFunction)(mlx_vector_array *, const mlx_vector_array, const mlx_vector_array,
                           const int *, size_t);
typedef int (*JvpPayloadFunction)(mlx_vector_array *, const mlx_vector_array,
                                  const mlx_vector_array, const int *, size_t, void *);
CLOSURE_KIND(closure_custom_jvp, JvpFunction, JvpPayloadFunction)

int mlx_closure_custom_jvp_apply(mlx_vector_array *res, mlx_closure_custom_jvp cls,
                                 const mlx_vector_array input_0, const mlx_vector_array input_1,
                                 const int *input_2, size_t input_2_num) {
    const ClosureHandle *handle = ctx_of(cls, mlx_closure_custom_jvp);
    if (!handle || !ctx_of(input_0, mlx_vector_array) || !ctx_of(input_1, mlx_vector_array))
        return 1;
    Closure *closure = closure_retain(handle->closure);
    mlx_vector_array primals = list_copy(input_0), tangents = list_copy(input_1), result = {NULL};
    const int status =
        closure->kind == CALLS_WITH_PAYLOAD
            ? ((JvpPayloadFunction)closure->function)(&result, primals, tangents, input_2,
                                                      input_2_num, closure->payload)
            : ((JvpFunction)closure->function)(&result, primals, tangents, input_2, input_2_num);
    mlx_vector_array_free(primals);
    mlx_vector_array_free(tangents);
    if (call_end(closure, status)) {
        mlx_vector_array_free(result);
        return 1;
    }
    return list_finish(res, result);
}

/* ---- batching rules ---- */

typedef int (*VmapFunction)(mlx_vector_array *, mlx_vector_int *, const mlx_vector_array,
                            const int *, size_t);
typedef int (*VmapPayloadFunction)(mlx_vector_array *, mlx_vector_int *, const mlx_vector_array,
                                   const int *, size_t, void *);
CLOSURE_KIND(closure_custom_vmap, VmapFunction, VmapPayloadFunction)

int mlx_closure_custom_vmap_apply(mlx_vector_array *res_0, mlx_vector_int *res_1,
                                  mlx_closure_custom_vmap cls, const mlx_vector_array input_0,
                                  const int *input_1, size_t input_1_num) {
    const ClosureHandle *handle = ctx_of(cls, mlx_closure_custom_vmap);
    if (!handle || !ctx_of(input_0, mlx_vector_array)) return 1;
    Closure *closure = closure_retain(handle->closure);
    mlx_vector_array inputs = list_copy(input_0), outputs = {NULL};
    mlx_vector_int axes = {NULL};
    const int status =
        closure->kind == CALLS_WITH_PAYLOAD
            ? ((VmapPayloadFunction)closure->function)(&outputs, &axes, inputs, input_1,
                                                       input_1_num, closure->payload)
            : ((VmapFunction)closure->function)(&outputs, &axes, inputs, input_1, input_1_num);
    mlx_vector_array_free(inputs);
    if (call_end(closure, status) || !ctx_of(axes, mlx_vector_int) ||
        !ctx_of(outputs, mlx_vector_array)) {
        mlx_vector_array_free(outputs);
        mlx_vector_int_free(axes);
        return 1;
    }
    mlx_vector_int_set(res_1, axes);
    mlx_vector_int_free(axes);
    return list_finish(res_0, outputs);
}
