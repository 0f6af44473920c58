/* The side of the parameter tree that only the layers of nn/ use. */
#ifndef NN_PARAMS_H
#define NN_PARAMS_H

#include "nn/nn.h"

enum { NN_PATH = 512 };

/* Formats the variadic arguments after `format` into the char array `out`. */
#define NN_FORMAT(out, format)                            \
    do {                                                  \
        va_list nn_arguments;                             \
        va_start(nn_arguments, format);                   \
        vsnprintf(out, sizeof out, format, nn_arguments); \
        va_end(nn_arguments);                             \
    } while (0)

/* As nn_params_take, with a ready name; raw: never converted. */
mlx_array nn_params_take_named(NnParams *params, const int *shape, size_t ndim, const char *name);
mlx_array nn_params_take_raw(NnParams *params, const int *shape, size_t ndim, const char *name);
/* weight, scales and biases of a packed module whose values have this shape. */
void nn_params_take_packed(NnParams *params, const int *shape, size_t ndim, MxQuant quant,
                           const char *path, mlx_array *weight, mlx_array *scales,
                           mlx_array *biases);
/* Whether the packed linear layer at `path` rounds its inputs. */
bool nn_params_rounds(NnParams *params, MxQuant quant, bool has_bias, const char *path);
/* The adapter's part for a module [in -> out], empty when it has none. */
Lora nn_params_lora(NnParams *params, int in, int out, const char *path, mlx_array *magnitude);

#endif
