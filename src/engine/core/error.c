/* The error handler of the process, and how the engine reports to it. */
#include "mlx/c/error.h"

#include "engine/core/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void print_and_exit(const char *msg, void *data) {
    (void)data;
    printf("MLX error: %s\n", msg);
    exit(-1);
}

static struct {
    pthread_mutex_t lock;
    mlx_error_handler_func handler;
    void *data;
    void (*dtor)(void *);
} current = {PTHREAD_MUTEX_INITIALIZER, print_and_exit, NULL, NULL};

void mlx_set_error_handler(mlx_error_handler_func handler, void *data, void (*dtor)(void *)) {
    pthread_mutex_lock(&current.lock);
    void *old_data = current.data;
    void (*old_dtor)(void *) = current.dtor;
    current.handler = handler ? handler : print_and_exit;
    current.dtor = dtor;
    current.data = dtor ? data : NULL;
    pthread_mutex_unlock(&current.lock);
    if (old_dtor) old_dtor(old_data);
}

/* The data of the last handler goes with the library. */
static __attribute__((destructor)) void release_handler(void) {
    mlx_set_error_handler(NULL, NULL, NULL);
}

/* The part of a source path that means something to a reader. */
static const char *short_path(const char *file) {
    const char *engine = strstr(file, "src/engine/");
    return engine ? engine + 4 : file;
}

static void report(const char *file, int line, const char *format, va_list arguments) {
    StrBuf text = {0};
    char *message = NULL;
    if (vasprintf(&message, format, arguments) < 0) message = NULL;
    base_str_appendf(&text, "%s at %s:%d", message ? message : format, short_path(file), line);
    free(message);
    pthread_mutex_lock(&current.lock);
    const mlx_error_handler_func handler = current.handler;
    void *data = current.data;
    pthread_mutex_unlock(&current.lock);
    handler(text.data, data);
    base_str_free(&text);
}

void _mlx_error(const char *file, const int line, const char *fmt, ...) {
    va_list arguments;
    va_start(arguments, fmt);
    report(file, line, fmt, arguments);
    va_end(arguments);
}

void *engine_error(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    report(file, line, format, arguments);
    va_end(arguments);
    return NULL;
}

bool engine_report(const char *file, int line, const Error *err) {
    engine_error(file, line, "%s", err->message);
    return false;
}

void *handle_ctx(const char *file, int line, const void *ctx, const char *type) {
    if (!ctx) return engine_error(file, line, "expected a non-empty %s", type);
    return (void *)(uintptr_t)ctx;
}
