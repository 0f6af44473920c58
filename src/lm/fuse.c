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

/* One module that the adapter changes. */
typedef struct Module {
    const char *path;
    mlx_array weight, scales, biases;
    bool packed;
    MxQuant quant;
    mlx_array left, right; /* what is added: [..., out, r] times [..., r, in] */
    mlx_array magnitude;   /* of each row, DoRA; else empty */
} Module;

static bool refuse(const Fusing *fusing, const Module *module, mlx_array a, mlx_array b) {
    mx_check(NULL);
    base_fail(fusing->err, ERROR_INPUT, "%s: the weight is %s, the adapter's pair %s and %s",
              module->path, mx_describe(module->weight), mx_describe(a), mx_describe(b));
    return base_hint(fusing->err, "Was this adapter trained on another model?");
}

/* A layer has a [in, r], b [r, out]; an embedding's pair lies the other way; experts
 * have a [E, r, in] or [E * r, in], b [E, out, r]. False when nothing fits. */
static bool orient(Module *module, mlx_array a, mlx_array b, float scale) {
    mlx_array dense = module->weight;
    const int ndim = mx_ndim(dense), rows = mx_dim(dense, -2);
    const int columns =
        module->packed ? mx_dim(dense, -1) * 32 / module->quant.bits : mx_dim(dense, -1);
    if (ndim == 3 && mx_ndim(b) == 3) {
        const int experts = mx_dim(dense, 0), rank = mx_dim(b, 2);
        if (mx_dim(b, 0) != experts || mx_dim(b, 1) != rows ||
            mx_size(a) != (size_t)experts * (size_t)rank * (size_t)columns)
            return false;
        module->left = b;
        module->right = mx_reshape(a, (const int[]){experts, rank, columns}, 3);
    } else if (ndim != 2 || mx_ndim(a) != 2 || mx_ndim(b) != 2 || mx_dim(a, 1) != mx_dim(b, 0)) {
        return false;
    } else if (mx_dim(a, 0) == columns && mx_dim(b, 1) == rows) {
        module->left = mx_swapaxes(b, 0, 1);
        module->right = mx_swapaxes(a, 0, 1);
    } else if (mx_dim(a, 0) == rows && mx_dim(b, 1) == columns) {
        module->left = a;
        module->right = b;
    } else {
        return false;
    }
    module->left = mx_mul_scalar(module->left, (double)scale);
    return true;
}

/* left @ right by a product and a sum a rank, each rounded: as mlx multiplies on the
 * CPU, so that fused weights are mlx_lm.fuse's to the byte. */
static mlx_array product(mlx_array left, mlx_array right) {
    mlx_array sum = {0};
    const int ranks = mx_dim(left, -1);
    for (int r = 0; r < ranks; r++) {
        mlx_array term = mx_mul(mx_slice(left, -1, r, r + 1), mx_slice(right, -2, r, r + 1));
        sum = r == 0 ? term : mx_add(sum, term);
    }
    return sum;
}

/* The first rows of the module as they become; *before as they are. */
static mlx_array fused_rows(const Module *module, int rows, mlx_array *before) {
    mlx_array weight = mx_slice(module->weight, -2, 0, rows);
    if (module->packed) {
        mlx_array biases = module->biases;
        if (biases.ctx) biases = mx_slice(biases, -2, 0, rows);
        weight =
            mx_dequantize(weight, mx_slice(module->scales, -2, 0, rows), biases, module->quant);
    }
    *before = weight;
    mlx_array delta = product(mx_slice(module->left, -2, 0, rows), module->right);
    mlx_array fused = mx_add(weight, mx_cast(delta, mx_dtype(weight)));
    if (!module->magnitude.ctx) return fused;
    /* In float32, as in training; mlx_lm.fuse takes it in the weight's type. */
    mlx_array length = mx_sqrt(mx_sum(mx_square(mx_cast(fused, MLX_FLOAT32)), -1, false));
    mlx_array ratio = mx_div(mx_slice(module->magnitude, -1, 0, rows), length);
    return mx_mul(mx_expand_dims(ratio, -1), fused);
}

static double sum_squares(mlx_array a) {
    const int flat[] = {-1};
    return mx_item_float(mx_sum(mx_square(mx_reshape(mx_cast(a, MLX_FLOAT32), flat, 1)), 0, false));
}

/* What packing again takes away, on rows enough to know: the weights themselves are
 * computed only when they are written. */
static void measure_packing(Fusing *fusing, const Module *module) {
    enum { ROWS = 64 };
    mx_scope scope = mx_open();
    mlx_array before, parts[3] = {{0}, {0}, {0}};
    mlx_array fused = fused_rows(module, BASE_MIN(ROWS, mx_dim(module->weight, -2)), &before);
    mx_quantize(fused, module->quant, parts);
    mlx_array again = mx_dequantize(parts[0], parts[1], parts[2], module->quant);
    fusing->lost += sum_squares(mx_sub(again, fused));
    fusing->gained += sum_squares(mx_sub(fused, before));
    mx_drop(scope);
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
    const LmTensors *tensors = &source->tensors;
    Module module = {.path = path,
                     .weight = lm_tensors_find(tensors, "%s.weight", path),
                     .scales = lm_tensors_find(tensors, "%s.scales", path),
                     .biases = lm_tensors_find(tensors, "%s.biases", path),
                     .magnitude = magnitude};
    if (!module.weight.ctx) {
        base_fail(fusing->err, ERROR_INPUT, "the model has no module %s, which the adapter changes",
                  path);
        return base_hint(fusing->err, "Was this adapter trained on another model?");
    }
    module.packed = lm_source_quant(source, path, &module.quant);
    if (!orient(&module, a, b, fusing->scale)) return refuse(fusing, &module, a, b);
    const bool pack = module.packed && !fusing->dequantize;
    mlx_array before, fused = fused_rows(&module, mx_dim(module.weight, -2), &before);
    if (pack) measure_packing(fusing, &module);
    if (mx_failed()) return refuse(fusing, &module, a, b);
    put(source, path, "weight", fused);
    fusing->report->fused++;
    if (!module.packed) return true;
    put(source, path, "scales", (mlx_array){0});
    put(source, path, "biases", (mlx_array){0});
    return !pack || lm_pack_module(source, path, module.quant, fusing->err);
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
    }
    /* From here the list alone holds the arrays, so that each dies once it is written. */
    mx_drop(scope);
    good = good && lm_pack_write(source, output, options, err);
    lm_source_free(source);
    report->written.seconds = base_now() - start;
    return good;
}
