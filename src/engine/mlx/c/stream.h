/* Streams order work on a device. This engine computes in the calling thread, so a
 * stream only says where; every operation needs a valid one. */
#ifndef MLX_C_STREAM_H
#define MLX_C_STREAM_H

#include "mlx/c/device.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct mlx_stream_ {
    void *ctx;
} mlx_stream;

/* A null handle. */
mlx_stream mlx_stream_new(void);

mlx_stream mlx_stream_new_device(mlx_device dev);
int mlx_stream_set(mlx_stream *stream, const mlx_stream src);
int mlx_stream_free(mlx_stream stream);
int mlx_stream_tostring(mlx_string *str, mlx_stream stream);
bool mlx_stream_equal(mlx_stream lhs, mlx_stream rhs);
int mlx_stream_get_device(mlx_device *dev, mlx_stream stream);
int mlx_stream_get_index(int *index, mlx_stream stream);
int mlx_synchronize(mlx_stream stream);

/* The calling thread's default. */
int mlx_get_default_stream(mlx_stream *stream, mlx_device dev);
int mlx_set_default_stream(mlx_stream stream);
mlx_stream mlx_default_cpu_stream_new(void);

/* An error: there is no GPU here. */
mlx_stream mlx_default_gpu_stream_new(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
