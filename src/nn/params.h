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
/* The adapter's tree when it holds a pair for the path, with its scale; or NULL. */
NnParams *nn_params_adapter_of(const NnParams *params, const char *path, float *scale);
/* Lists a loaded module; the copy lives as long as the tree. */
NnModule *nn_params_enlist(NnParams *params, const NnModule *module);

/* ---- adapters (adapter.c) ---- */

/* Lists the module, with the adapter's part for it if there is one. */
NnModule *nn_module_new(NnParams *params, NnModule module);
static inline bool nn_adapted(const NnModule *module) {
    return module && module->lora.a.ctx;
}
/* What the base gave for x, without its bias, becomes what the adapted module gives. */
mlx_array nn_adapt_linear(NnModule *module, mlx_array x, mlx_array y);
mlx_array nn_adapt_switch(NnModule *module, mlx_array x, mlx_array indices, bool sorted,
                          mlx_array y);
mlx_array nn_adapt_embedding(NnModule *module, mlx_array ids, mlx_array y);
mlx_array nn_adapt_as_linear(NnModule *module, mlx_array x, mlx_array y);

#endif
