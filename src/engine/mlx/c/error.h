/* Failures go to one handler of the process, then the failing call returns non-zero.
 * The default handler prints "MLX error: ..." to stdout and ends the program. */
#ifndef MLX_C_ERROR_H
#define MLX_C_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* data reaches the handler only when dtor is not NULL; dtor(data) runs when the
 * handler is replaced. handler NULL brings the default back. */
typedef void (*mlx_error_handler_func)(const char *msg, void *data);
void mlx_set_error_handler(mlx_error_handler_func handler, void *data, void (*dtor)(void *));

/* Calls the handler with the text and " at file:line". */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void _mlx_error(const char *file, const int line, const char *fmt, ...);
#define mlx_error(...) _mlx_error(__FILE__, __LINE__, __VA_ARGS__)

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
