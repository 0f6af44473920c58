/* Fusing: W' = W + scale (a b)^T a module, then DoRA's length of each row. */
#include "lm/fuse.h"

#include "lm/model.h"
#include "lm/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Fusing {
    LmSource *source;
    const NnParams *adapter;
    float scale;
    bool dequantize;
    double lost, gained; /* sums of squares: of packing again, of the adapter */
    LmFuseReport *report;
    Error *err;
    bool failed;
} Fusing;

static bool fail(Fusing *fusing, const char *path, mlx_array weight, mlx_array a, mlx_array b) {
    mx_check(NULL);
    base_fail(fusing->err, ERROR_INPUT, "%s: the weight is %s, the adapter's pair %s and %s", path,
              mx_describe(weight), mx_describe(a), mx_describe(b));
    return base_hint(fusing->err, "Was this adapter trained on another model?");
}

/* What is added to the weight: [out, in] of a [in, r], b [r, out]; an embedding's
 * lies as a b; experts have a [E, r, in], b [E, out, r]. Empty when nothing fits. */
static mlx_array delta_of(mlx_array weight, mlx_array a, mlx_array b, float scale) {
    if (mx_ndim(weight) == 3 && mx_ndim(b) == 3) {
        const int experts = mx_dim(weight, 0), in = mx_dim(weight, 2);
        mlx_array pairs = mx_reshape(a, (const int[]){experts, -1, in}, 3);
        return mx_matmul(mx_mul_scalar(b, (double)scale), pairs);
    }
    if (mx_ndim(weight) != 2 || mx_ndim(a) != 2 || mx_ndim(b) != 2 || mx_dim(a, 1) != mx_dim(b, 0))
        return (mlx_array){0};
    const int rows = mx_dim(weight, 0), columns = mx_dim(weight, 1);
    if (mx_dim(a, 0) == columns && mx_dim(b, 1) == rows)
        return mx_matmul(mx_mul_scalar(mx_swapaxes(b, 0, 1), (double)scale), mx_swapaxes(a, 0, 1));
    if (mx_dim(a, 0) == rows && mx_dim(b, 1) == columns)
        return mx_matmul(mx_mul_scalar(a, (double)scale), b);
    return (mlx_array){0};
}

static double sum_squares(mlx_array a) {
    const int flat[] = {-1};
    return mx_item_float(mx_sum(mx_square(mx_reshape(mx_cast(a, MLX_FLOAT32), flat, 1)), 0, false));
}

static void put(LmSource *source, const char *path, const char *leaf, mlx_array array) {
    char *name = base_format("%s.%s", path, leaf);
    if (array.ctx)
        lm_tensors_add(&source->tensors, name, array);
    else
        lm_tensors_remove(&source->tensors, name);
    free(name);
}

static bool fuse_module(Fusing *fusing, const char *path, mlx_array a, mlx_array b,
                        mlx_array magnitude) {
    LmSource *source = fusing->source;
    mlx_array weight = lm_tensors_find(&source->tensors, "%s.weight", path);
    if (!weight.ctx) {
        base_fail(fusing->err, ERROR_INPUT, "the model has no module %s, which the adapter changes",
                  path);
        return base_hint(fusing->err, "Was this adapter trained on another model?");
    }
    MxQuant quant = {0};
    const bool packed = lm_source_quant(source, path, &quant);
    if (packed)
        weight = mx_dequantize(weight, lm_tensors_find(&source->tensors, "%s.scales", path),
                               lm_tensors_find(&source->tensors, "%s.biases", path), quant);
    mlx_array delta = delta_of(weight, a, b, fusing->scale);
    if (!delta.ctx || mx_failed()) return fail(fusing, path, weight, a, b);
    mlx_array fused = mx_add(weight, mx_cast(delta, mx_dtype(weight)));
    if (magnitude.ctx) {
        mlx_array length = mx_sqrt(mx_sum(mx_square(fused), -1, false));
        fused = mx_mul(mx_expand_dims(mx_div(magnitude, length), 1), fused);
    }
    if (mx_failed()) return fail(fusing, path, weight, a, b);
    put(source, path, "weight", fused);
    fusing->report->fused++;
    if (!packed) return true;
    put(source, path, "scales", (mlx_array){0});
    put(source, path, "biases", (mlx_array){0});
    if (fusing->dequantize) return true;
    if (!lm_pack_module(source, path, quant, fusing->err)) return false;
    mlx_array again = mx_dequantize(lm_tensors_find(&source->tensors, "%s.weight", path),
                                    lm_tensors_find(&source->tensors, "%s.scales", path),
                                    lm_tensors_find(&source->tensors, "%s.biases", path), quant);
    fusing->lost += sum_squares(mx_sub(again, fused));
    fusing->gained += sum_squares(mx_sub(fused, weight));
    return mx_check(fusing->err);
}

static void visit(void *context, const char *name, mlx_array a) {
    Fusing *fusing = context;
    if (fusing->failed || !base_ends_with(name, ".lora_a")) return;
    char *path = base_strndup(name, strlen(name) - strlen(".lora_a"));
    char *second = base_format("%s.lora_b", path), *length = base_format("%s.m", path);
    mlx_array b = nn_params_peek(fusing->adapter, second);
    mx_scope scope = mx_open();
    fusing->failed =
        b.ctx ? !fuse_module(fusing, path, a, b, nn_params_peek(fusing->adapter, length))
              : !base_fail(fusing->err, ERROR_INPUT, "the adapter has no tensor %s", second);
    mx_drop(scope);
    free(path);
    free(second);
    free(length);
}

/* Fully tuned tensors replace the model's; shapes must be equal. */
static void replace(void *context, const char *name, mlx_array array) {
    Fusing *fusing = context;
    mlx_array old = lm_tensors_get(&fusing->source->tensors, name);
    if (old.ctx && old.ctx == array.ctx) return;
    if (!old.ctx || fusing->failed) return;
    bool same = mx_ndim(old) == mx_ndim(array);
    for (int d = 0; same && d < mx_ndim(old); d++) same = mx_dim(old, d) == mx_dim(array, d);
    if (!same) {
        base_fail(fusing->err, ERROR_INPUT, "tensor %s is %s, the model's is %s", name,
                  mx_describe(array), mx_describe(old));
        fusing->failed = true;
        return;
    }
    lm_tensors_add(&fusing->source->tensors, name, array);
}

static bool fuse(Fusing *fusing, const char *folder, Error *err) {
    NnParams *base = nn_params_new(fusing->source->path, NULL, NULL), *adapter = NULL;
    const LmTensors *tensors = &fusing->source->tensors;
    for (size_t i = 0; i < tensors->count; i++)
        nn_params_add(base, tensors->items[i].name, tensors->items[i].array);
    bool good = lm_adapter_read(folder, base, &adapter, &fusing->scale, err);
    if (good) {
        fusing->adapter = adapter;
        nn_params_each(adapter, visit, fusing);
        if (!fusing->failed && fusing->report->fused == 0) nn_params_each(base, replace, fusing);
        good = !fusing->failed || base_error_context(err, "%s", folder);
    }
    nn_params_free(adapter);
    nn_params_free(base);
    return good && (!fusing->dequantize || lm_pack_dequantize(fusing->source, err));
}

bool lm_fuse(const char *base, const char *adapter, const char *output, bool dequantize,
             const LmConvertOptions *options, LmFuseReport *report, Error *err) {
    const double start = base_now();
    *report = (LmFuseReport){0};
    mx_scope scope = mx_open();
    LmSource *source = lm_source_open(base, NULL, err);
    Fusing fusing = {.source = source, .dequantize = dequantize, .report = report, .err = err};
    bool good = source && fuse(&fusing, adapter, err);
    if (good) {
        lm_tensors_order(&source->tensors);
        if (fusing.gained > 0) report->packing_error = sqrt(fusing.lost / fusing.gained);
        lm_pack_measure(source, &report->written);
        good = lm_pack_write(source, output, options, err);
    }
    lm_source_free(source);
    mx_drop(scope);
    report->written.seconds = base_now() - start;
    return good;
}
