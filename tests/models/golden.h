/* Reading golden models: an open folder with its tree, and golden.safetensors as
 * named host arrays. */
#ifndef TESTS_MODELS_GOLDEN_H
#define TESTS_MODELS_GOLDEN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/models.h"

typedef struct Golden {
    HubModel *folder;
    NnParams *params, *expected;
} Golden;

static inline void golden_add(void *context, const char *name, mlx_array array) {
    nn_params_add(context, name, array);
}

static inline Golden golden_open(const char *folder) {
    Error err = {0};
    Golden golden = {.folder = hub_model_open(folder, &err)};
    if (!golden.folder) fail_msg("%s", err.message);
    golden.params = model_params(golden.folder);
    nn_params_cast(golden.params, MLX_FLOAT32);
    golden.expected = nn_params_new("golden", NULL, NULL);
    char *path = base_path_join(folder, "golden.safetensors");
    if (!mx_load_safetensors(
            path, (MxFileVisitor){.tensor = golden_add, .context = golden.expected}, &err)) {
        fail_msg("%s", err.message);
    }
    free(path);
    return golden;
}

static inline void golden_close(Golden *golden) {
    nn_params_free(golden->params);
    nn_params_free(golden->expected);
    hub_model_free(golden->folder);
}

static inline mlx_array golden_get(const Golden *golden, const char *name) {
    mlx_array array = nn_params_peek(golden->expected, name);
    if (mx_empty(array)) fail_msg("no golden %s", name);
    return array;
}

/* Largest difference as a share of the standard deviation of what is expected. */
static inline double golden_difference(mlx_array got, mlx_array expected) {
    size_t count = mx_size(expected);
    float *a = malloc(count * sizeof *a), *b = malloc(count * sizeof *b);
    Error err = {0};
    mx_copy_f32(got, a, count);
    mx_copy_f32(expected, b, count);
    if (!mx_check(&err)) fail_msg("%s", err.message);
    double mean = 0, square = 0, most = 0;
    for (size_t i = 0; i < count; i++) {
        mean += b[i];
        square += (double)b[i] * b[i];
        most = fmax(most, isfinite(a[i]) ? fabs((double)a[i] - b[i]) : INFINITY);
    }
    mean /= (double)count;
    double deviation = sqrt(fmax(square / (double)count - mean * mean, 0));
    free(a);
    free(b);
    return most / (count > 4 ? deviation : 1);
}

/* Folders of golden models: the suite's, or those under $MLX_RAG_GOLDEN_HF. */
static inline const char *golden_root(void) {
    const char *other = getenv("MLX_RAG_GOLDEN_HF");
    return other ? other : GOLDEN "/hf";
}

#endif
