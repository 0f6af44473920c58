/* A text owned by a handle. */
#ifndef MLX_C_STRING_H
#define MLX_C_STRING_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct mlx_string_ {
    void *ctx;
} mlx_string;

/* A null handle; functions that return text fill it. */
mlx_string mlx_string_new(void);

/* A copy of str. */
mlx_string mlx_string_new_data(const char *str);

/* str shares src. */
int mlx_string_set(mlx_string *str, const mlx_string src);

/* NUL-terminated, borrowed from the handle. */
const char *mlx_string_data(mlx_string str);

int mlx_string_free(mlx_string str);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
