/* Scopes, the sticky error, and questions about arrays.
 *
 * A thread owns a stack of array handles; a scope is a mark on it. Opening and
 * closing move the mark and free handles: nothing is allocated per call once
 * the stack has grown to the depth that a model needs. */
#include "mx/thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { DESCRIPTIONS = 8, DESCRIPTION_BYTES = 96 };

typedef struct Thread {
    mlx_array *items;
    size_t count, capacity;
    int depth;
    bool failed, registered;
    Error error;
    char engine_message[512];
    mlx_stream stream;
    char descriptions[DESCRIPTIONS][DESCRIPTION_BYTES];
    int next_description;
} Thread;

static _Thread_local Thread self;
static pthread_key_t exit_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- a thread's life ---------------------------------------------------- */

static void thread_end(void *memory) {
    Thread *thread = memory;
    for (size_t i = 0; i < thread->count; i++) mlx_array_free(thread->items[i]);
    free(thread->items);
    if (thread->stream.ctx) mlx_stream_free(thread->stream);
    *thread = (Thread){0};
}

/* The engine calls it on the thread whose call failed. */
static void remember_engine_message(const char *message, void *data) {
    (void)data;
    snprintf(self.engine_message, sizeof self.engine_message, "%s", message);
}

static void no_destructor(void *data) {
    (void)data;
}

static void process_begin(void) {
    pthread_key_create(&exit_key, thread_end);
    mlx_set_error_handler(remember_engine_message, NULL, no_destructor);
}

static void thread_begin(void) {
    if (self.registered) return;
    pthread_once(&once, process_begin);
    pthread_setspecific(exit_key, &self);
    self.registered = true;
}

mlx_stream mx_stream(void) {
    if (!self.stream.ctx) {
        thread_begin();
        mlx_device device = mlx_device_new();
        mlx_get_default_device(&device);
        mlx_get_default_stream(&self.stream, device);
        mlx_device_free(device);
    }
    return self.stream;
}

/* ---- errors ------------------------------------------------------------- */

bool mx_failed(void) {
    return self.failed;
}

bool mx_check(Error *err) {
    if (!self.failed) return true;
    base_fail(err, self.error.code, "%s", self.error.message);
    self.failed = false;
    base_error_clear(&self.error);
    return false;
}

mlx_array mx_fail(const char *format, ...) {
    if (self.failed) return MX_NONE;
    char message[sizeof self.error.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    base_error_clear(&self.error);
    base_fail(&self.error, ERROR_INTERNAL, "%s", message);
    self.failed = true;
    return MX_NONE;
}

bool mx_ready(const char *operation, const mlx_array *inputs, size_t count) {
    if (self.failed) return false;
    if (self.depth == 0) {
        mx_fail("%s: called outside any scope", operation);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!inputs[i].ctx) {
            mx_fail("%s: input %zu is empty", operation, i);
            return false;
        }
    }
    return true;
}

mlx_array mx_settle(int status, mlx_array result, const char *operation, const mlx_array *inputs,
                    size_t count) {
    if (status == 0) return mx_own(result);
    mlx_array_free(result);
    char shapes[512];
    size_t used = 0;
    shapes[0] = '\0';
    for (size_t i = 0; i < count && used < sizeof shapes; i++) {
        used += (size_t)snprintf(shapes + used, sizeof shapes - used, "%s%s", i ? ", " : "",
                                 mx_describe(inputs[i]));
    }
    return mx_fail("%s(%s): %s", operation, shapes, self.engine_message);
}

/* ---- scopes -------------------------------------------------------------- */

mx_scope mx_open(void) {
    thread_begin();
    return (mx_scope){.mark = self.count, .depth = self.depth++};
}

mlx_array mx_own(mlx_array a) {
    if (!a.ctx) return a;
    if (self.depth == 0) {
        mlx_array_free(a);
        return mx_fail("an array was made outside any scope");
    }
    if (self.count == self.capacity) {
        self.items = base_grow(self.items, &self.capacity, self.count + 1, sizeof *self.items);
    }
    self.items[self.count++] = a;
    return a;
}

void mx_close_many(mx_scope scope, mlx_array *results, size_t count) {
    size_t kept = 0; /* results move to the bottom of the scope, the rest dies */
    if (scope.depth > 0) {
        for (size_t r = 0; r < count; r++) {
            for (size_t i = scope.mark + kept; i < self.count; i++) {
                if (results[r].ctx && self.items[i].ctx == results[r].ctx) {
                    self.items[i] = self.items[scope.mark + kept];
                    self.items[scope.mark + kept++] = results[r];
                    break;
                }
            }
        }
    } else {
        for (size_t r = 0; r < count; r++) results[r] = MX_NONE;
    }
    while (self.count > scope.mark + kept) mlx_array_free(self.items[--self.count]);
    self.depth = scope.depth;
}

mlx_array mx_close(mx_scope scope, mlx_array result) {
    mx_close_many(scope, &result, 1);
    return result;
}

void mx_drop(mx_scope scope) {
    mx_close_many(scope, NULL, 0);
}

mlx_array mx_keep(mlx_array a) {
    mlx_array kept = {0};
    if (a.ctx) mlx_array_set(&kept, a);
    return kept;
}

void mx_store(mlx_array *slot, mlx_array a) {
    if (a.ctx) mlx_array_set(slot, a);
}

void mx_free(mlx_array *slot) {
    if (slot->ctx) mlx_array_free(*slot);
    *slot = MX_NONE;
}

/* ---- asking --------------------------------------------------------------- */

static const struct {
    mlx_dtype dtype;
    const char *name;
} dtype_names[] = {
    {MLX_BOOL, "bool"},         {MLX_UINT8, "uint8"},         {MLX_UINT16, "uint16"},
    {MLX_UINT32, "uint32"},     {MLX_UINT64, "uint64"},       {MLX_INT8, "int8"},
    {MLX_INT16, "int16"},       {MLX_INT32, "int32"},         {MLX_INT64, "int64"},
    {MLX_FLOAT16, "float16"},   {MLX_FLOAT32, "float32"},     {MLX_FLOAT64, "float64"},
    {MLX_BFLOAT16, "bfloat16"}, {MLX_COMPLEX64, "complex64"},
};

const char *mx_dtype_name(mlx_dtype dtype) {
    for (size_t i = 0; i < BASE_COUNT(dtype_names); i++) {
        if (dtype_names[i].dtype == dtype) return dtype_names[i].name;
    }
    return "unknown";
}

bool mx_dtype_parse(const char *name, mlx_dtype *dtype) {
    if (base_starts_with(name, "torch.")) name += strlen("torch.");
    for (size_t i = 0; i < BASE_COUNT(dtype_names); i++) {
        if (strcmp(dtype_names[i].name, name) == 0) {
            *dtype = dtype_names[i].dtype;
            return true;
        }
    }
    return false;
}

const char *mx_describe(mlx_array a) {
    char *text = self.descriptions[self.next_description];
    self.next_description = (self.next_description + 1) % DESCRIPTIONS;
    if (!a.ctx) return "nothing";
    int used = snprintf(text, DESCRIPTION_BYTES, "%s[", mx_dtype_name(mlx_array_dtype(a)));
    for (int axis = 0; axis < mx_ndim(a) && used < DESCRIPTION_BYTES; axis++) {
        used += snprintf(text + used, (size_t)(DESCRIPTION_BYTES - used), "%s%d", axis ? ", " : "",
                         mx_dim(a, axis));
    }
    if (used < DESCRIPTION_BYTES) snprintf(text + used, (size_t)(DESCRIPTION_BYTES - used), "]");
    return text;
}

int mx_ndim(mlx_array a) {
    return a.ctx ? (int)mlx_array_ndim(a) : 0;
}

int mx_dim(mlx_array a, int axis) {
    int count = mx_ndim(a);
    if (axis < 0) axis += count;
    if (axis < 0 || axis >= count) return 0;
    return mlx_array_shape(a)[axis];
}

size_t mx_size(mlx_array a) {
    return a.ctx ? mlx_array_size(a) : 0;
}

mlx_dtype mx_dtype(mlx_array a) {
    return a.ctx ? mlx_array_dtype(a) : MLX_FLOAT32;
}

bool mx_is_float(mlx_dtype dtype) {
    return dtype == MLX_FLOAT16 || dtype == MLX_BFLOAT16 || dtype == MLX_FLOAT32 ||
           dtype == MLX_FLOAT64;
}
