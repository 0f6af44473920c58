/* The four public vector types. They differ in how an element comes in and
 * goes out; one table of macros writes the eleven functions of each. */
#include "mlx/c/vector.h"

#include "engine/core/internal.h"

/* Element of a vector from the public value, borrowed; false after reporting. */
static bool array_in(const mlx_array value, const void **element) {
    *element = node_of(value);
    return *element != NULL;
}
static bool vector_array_in(const mlx_vector_array value, const void **element) {
    *element = ctx_of(value, mlx_vector_array);
    return *element != NULL;
}
static bool int_in(int value, const void **element) {
    *element = (const void *)(intptr_t)value;
    return true;
}
static bool string_in(const char *value, const void **element) {
    *element = value;
    if (!value) op_error("expected a non-null string");
    return value != NULL;
}

static int array_out(mlx_array *res, void *element) {
    return op_finish(res, node_retain(element));
}
static int vector_array_out(mlx_vector_array *res, void *element) {
    if (!res->ctx) *res = mlx_vector_array_new();
    vector_assign(res->ctx, element);
    return 0;
}
static int int_out(int *res, void *element) {
    *res = (int)(intptr_t)element;
    return 0;
}
static int string_out(char **res, void *element) {
    *res = element;
    return 0;
}

#define VECTOR(name, kind, Data, Value, Out)                                                    \
    mlx_vector_##name mlx_vector_##name##_new(void) {                                           \
        return (mlx_vector_##name){vector_new(&kind)};                                          \
    }                                                                                           \
    int mlx_vector_##name##_free(mlx_vector_##name vec) {                                       \
        vector_free(vec.ctx);                                                                   \
        return 0;                                                                               \
    }                                                                                           \
    int mlx_vector_##name##_set(mlx_vector_##name *vec, const mlx_vector_##name src) {          \
        const Vector *source = ctx_of(src, mlx_vector_##name);                                  \
        if (!source) return 1;                                                                  \
        if (!vec->ctx) *vec = mlx_vector_##name##_new();                                        \
        vector_assign(vec->ctx, source);                                                        \
        return 0;                                                                               \
    }                                                                                           \
    int mlx_vector_##name##_append_data(mlx_vector_##name vec, Data data, size_t size) {        \
        Vector *vector = ctx_of(vec, mlx_vector_##name);                                        \
        const void *element;                                                                    \
        if (!vector) return 1;                                                                  \
        const size_t before = vector->count;                                                    \
        for (size_t i = 0; i < size; i++) {                                                     \
            if (name##_in(data[i], &element)) {                                                 \
                vector_append(vector, element);                                                 \
                continue;                                                                       \
            }                                                                                   \
            while (vector->count > before) kind.release(vector->items[--vector->count]);        \
            return 1;                                                                           \
        }                                                                                       \
        return 0;                                                                               \
    }                                                                                           \
    int mlx_vector_##name##_append_value(mlx_vector_##name vec, Value val) {                    \
        return mlx_vector_##name##_append_data(vec, &val, 1);                                   \
    }                                                                                           \
    mlx_vector_##name mlx_vector_##name##_new_data(Data data, size_t size) {                    \
        mlx_vector_##name vec = mlx_vector_##name##_new();                                      \
        if (mlx_vector_##name##_append_data(vec, data, size) == 0) return vec;                  \
        mlx_vector_##name##_free(vec);                                                          \
        return (mlx_vector_##name){NULL};                                                       \
    }                                                                                           \
    mlx_vector_##name mlx_vector_##name##_new_value(Value val) {                                \
        return mlx_vector_##name##_new_data(&val, 1);                                           \
    }                                                                                           \
    int mlx_vector_##name##_set_data(mlx_vector_##name *vec, Data data, size_t size) {          \
        mlx_vector_##name fresh = mlx_vector_##name##_new_data(data, size);                     \
        if (!fresh.ctx) return 1;                                                               \
        const int status = mlx_vector_##name##_set(vec, fresh);                                 \
        mlx_vector_##name##_free(fresh);                                                        \
        return status;                                                                          \
    }                                                                                           \
    int mlx_vector_##name##_set_value(mlx_vector_##name *vec, Value val) {                      \
        return mlx_vector_##name##_set_data(vec, &val, 1);                                      \
    }                                                                                           \
    size_t mlx_vector_##name##_size(mlx_vector_##name vec) {                                    \
        const Vector *vector = ctx_of(vec, mlx_vector_##name);                                  \
        return vector ? vector->count : 0;                                                      \
    }                                                                                           \
    int mlx_vector_##name##_get(Out *res, const mlx_vector_##name vec, size_t idx) {            \
        const Vector *vector = ctx_of(vec, mlx_vector_##name);                                  \
        if (!vector) return 1;                                                                  \
        if (idx >= vector->count) {                                                             \
            op_error("index %zu is out of range for a vector of size %zu", idx, vector->count); \
            return 1;                                                                           \
        }                                                                                       \
        return name##_out(res, vector->items[idx]);                                             \
    }

VECTOR(array, element_node, const mlx_array *, const mlx_array, mlx_array)
VECTOR(vector_array, element_vector, const mlx_vector_array *, const mlx_vector_array,
       mlx_vector_array)
VECTOR(int, element_int, int *, int, int)
VECTOR(string, element_text, const char **, const char *, char *)

bool engine_vector_nodes(const char *file, int line, mlx_vector_array vector, Node *const **nodes,
                         size_t *count) {
    const Vector *list = handle_ctx(file, line, vector.ctx, "mlx_vector_array");
    if (!list) return false;
    *nodes = (Node *const *)list->items;
    *count = list->count;
    return true;
}

int op_finish_vector(mlx_vector_array *res, Node *const *nodes, size_t count) {
    bool whole = true;
    for (size_t i = 0; i < count; i++) whole &= nodes[i] != NULL;
    if (!whole) {
        for (size_t i = 0; i < count; i++) node_release(nodes[i]);
        return 1;
    }
    if (!res->ctx) *res = mlx_vector_array_new();
    vector_clear(res->ctx);
    for (size_t i = 0; i < count; i++) vector_append_owned(res->ctx, nodes[i]);
    return 0;
}
