/* Texts behind handles. */
#include "mlx/c/string.h"

#include "engine/core/internal.h"
#include "mlx/c/cuda.h"
#include "mlx/c/metal.h"
#include "mlx/c/version.h"

#include <stdlib.h>

typedef struct Text {
    char *data;
} Text;

mlx_string mlx_string_new(void) {
    return (mlx_string){NULL};
}

int string_finish(mlx_string *str, const char *text) {
    char *copy = base_strdup(text); /* first: text may be what str holds */
    if (!str->ctx)
        str->ctx = base_calloc(1, sizeof(Text));
    else
        free(((Text *)str->ctx)->data);
    ((Text *)str->ctx)->data = copy;
    return 0;
}

mlx_string mlx_string_new_data(const char *str) {
    mlx_string result = {NULL};
    string_finish(&result, str);
    return result;
}

int mlx_string_set(mlx_string *str, const mlx_string src) {
    const Text *text = ctx_of(src, mlx_string);
    return text ? string_finish(str, text->data) : 1;
}

const char *mlx_string_data(mlx_string str) {
    const Text *text = ctx_of(str, mlx_string);
    return text ? text->data : NULL;
}

int mlx_string_free(mlx_string str) {
    if (!str.ctx) return 0;
    free(((Text *)str.ctx)->data);
    free(str.ctx);
    return 0;
}

/* ---- what this engine is ---- */

int mlx_version(mlx_string *str_) {
    return string_finish(str_, "0.31.2");
}

int mlx_metal_is_available(bool *res) {
    *res = false;
    return 0;
}

int mlx_cuda_is_available(bool *res) {
    *res = false;
    return 0;
}
