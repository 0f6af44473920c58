/* Checkpoints that other tools quantised, as MLX's layout or as plain floats.
 *
 *   AWQ, GPTQ           integers with scale and zero: w = (q - zero) scale is
 *                       affine with bias = -zero scale, so only bits move
 *   compressed-tensors  the same with zero 8 or points of their own, int8, MXFP4;
 *                       FP8 and NVFP4 weights become bfloat16
 *   FP8                 E4M3 times a scale a block of 128 x 128: bfloat16
 *   MXFP4               MLX's own mxfp4; names and views are sanitize's
 *   bitnet              stays as it is, mlx-lm packs it so
 *
 * Everything is lazy: a tensor is unpacked when it is written. */
#include "lm/source.h"

#include <stdlib.h>
#include <string.h>

typedef struct Foreign {
    LmTensors *tensors;
    const char *method;
    int bits, group_size;
    const char *mode; /* of compressed-tensors' packed weights */
    bool kept;        /* some module stays packed */
    mlx_dtype dtype;  /* of the scales */
    Error *err;
} Foreign;

static bool refuse(const Foreign *foreign, const char *name, mlx_array array) {
    mx_check(NULL);
    return base_fail(foreign->err, ERROR_INPUT, "tensor %s is %s, which is not the layout of %s",
                     name, mx_describe(array), foreign->method);
}

static mlx_array words_of(mlx_array a) {
    mlx_array view = mlx_array_new();
    return mlx_view(&view, a, MLX_UINT32, mx_stream()) == 0 ? mx_own(view) : (mlx_array){0};
}

static mlx_array shifts(const int *order, int count, int bits) {
    int values[32];
    for (int i = 0; i < count; i++) values[i] = bits * (order ? order[i] : i);
    return mx_cast(mx_from_i32(values, &count, 1), MLX_UINT32);
}

/* Words [a, b] to their values [a, b * per], read at the given shifts. */
static mlx_array unpack_columns(mlx_array words, const int *order, int bits) {
    const int per = 32 / bits, a = mx_dim(words, 0), b = mx_dim(words, 1);
    mlx_array out = mlx_array_new(), low = mlx_array_new();
    mlx_right_shift(&out, mx_expand_dims(words, 2), shifts(order, per, bits), mx_stream());
    out = mx_own(out);
    mlx_bitwise_and(&low, out, mx_scalar((double)((1 << bits) - 1), MLX_UINT32), mx_stream());
    return mx_reshape(mx_own(low), MX_SHAPE(a, b * per));
}

/* Values [rows, columns] to words [rows, columns * bits / 32]. */
static mlx_array pack_rows(mlx_array values, int bits) {
    const int per = 32 / bits, rows = mx_dim(values, 0), columns = mx_dim(values, 1);
    mlx_array split = mx_reshape(values, MX_SHAPE(rows, columns / per, per));
    mlx_array moved = mlx_array_new();
    mlx_left_shift(&moved, split, shifts(NULL, per, bits), mx_stream());
    return mx_cast(mx_sum(mx_own(moved), 2, false), MLX_UINT32);
}

static void put(Foreign *foreign, const char *path, const char *leaf, mlx_array array) {
    char *name = base_format("%s.%s", path, leaf);
    lm_tensors_add(foreign->tensors, name, array);
    free(name);
}

static void drop(Foreign *foreign, const char *path, const char *leaf) {
    char *name = base_format("%s.%s", path, leaf);
    lm_tensors_remove(foreign->tensors, name);
    free(name);
}

/* ---- AWQ and GPTQ ----------------------------------------------------------------- */

/* Only 0 0 ... 1 1 ...: with any other order neighbours share no scale. */
static bool groups_are_runs(const Foreign *foreign, const char *path, const char *leaf) {
    mlx_array order = lm_tensors_find(foreign->tensors, "%s.%s", path, leaf);
    if (!order.ctx) return true;
    const size_t count = mx_size(order);
    int *items = base_calloc(count + 1, sizeof *items);
    bool runs = mx_copy_i32(order, items, count);
    for (size_t i = 0; i < count && runs; i++) runs = items[i] == (int)i / foreign->group_size;
    free(items);
    if (runs) return true;
    mx_check(NULL);
    base_fail(foreign->err, ERROR_UNSUPPORTED,
              "tensor %s.%s: the columns of a group do not lie together (desc_act)", path, leaf);
    return base_hint(foreign->err, "Use the unquantised model and quantise it here.");
}

/* qweight [in, out/8] (AWQ, and GPTQ as mlx-lm reads it) or [in/8, out] (GPTQ). */
static bool adopt_zeros(Foreign *foreign, const char *path) {
    static const int awq_order[] = {0, 4, 1, 5, 2, 6, 3, 7};
    const int bits = foreign->bits, per = 32 / bits;
    mlx_array qweight = lm_tensors_find(foreign->tensors, "%s.qweight", path);
    mlx_array scales = lm_tensors_find(foreign->tensors, "%s.scales", path);
    mlx_array qzeros = lm_tensors_find(foreign->tensors, "%s.qzeros", path);
    char *name = base_format("%s.qweight", path);
    if (mx_ndim(qweight) != 2 || mx_ndim(scales) != 2 || !groups_are_runs(foreign, path, "g_idx")) {
        if (foreign->err->code == ERROR_NONE) refuse(foreign, name, qweight);
        free(name);
        return false;
    }
    const int in = mx_dim(scales, 0) * foreign->group_size, out = mx_dim(scales, 1);
    const bool rows_packed = mx_dim(qweight, 0) * per == in && mx_dim(qweight, 1) == out;
    const bool columns_packed = mx_dim(qweight, 0) == in && mx_dim(qweight, 1) * per == out;
    if ((!rows_packed && !(columns_packed && bits == 4)) || in % 32 != 0) {
        refuse(foreign, name, qweight);
        free(name);
        return false;
    }
    free(name);
    mlx_array words = words_of(qweight), weight, zeros = {0};
    if (rows_packed)
        weight = mx_swapaxes(words, 0, 1); /* a column's words are the row's already */
    else
        weight = pack_rows(mx_swapaxes(unpack_columns(words, awq_order, bits), 0, 1), bits);
    mlx_array steps = mx_swapaxes(scales, 0, 1);
    if (qzeros.ctx) {
        mlx_array stored = unpack_columns(words_of(qzeros), rows_packed ? NULL : awq_order, bits);
        zeros = mx_cast(mx_swapaxes(stored, 0, 1), MLX_FLOAT32);
        if (rows_packed) zeros = mx_add_scalar(zeros, 1); /* GPTQ stores zero - 1 */
    } else {
        zeros = mx_scalar(1 << (bits - 1), MLX_FLOAT32);
    }
    mlx_array biases = mx_mul(mx_neg(zeros), mx_cast(steps, MLX_FLOAT32));
    foreign->dtype = mx_dtype(scales);
    put(foreign, path, "weight", mx_contiguous(weight));
    put(foreign, path, "scales", mx_contiguous(steps));
    put(foreign, path, "biases", mx_cast(biases, foreign->dtype));
    static const char *const old[] = {"qweight", "qzeros", "g_idx"};
    for (size_t i = 0; i < BASE_COUNT(old); i++) drop(foreign, path, old[i]);
    return true;
}

/* ---- compressed-tensors and FP8 ------------------------------------------------------ */

/* How many columns share a scale, in MLX's sizes; a scale a row serves several groups,
 * and *scales becomes one a group. 0 when it cannot be. */
static int spread_scales(mlx_array *scales, int in) {
    const int given = mx_ndim(*scales) == 2 ? mx_dim(*scales, 1) : 0;
    int group = given > 0 ? in / given : 0, times = 1;
    while (group > 128 && group % 2 == 0) {
        group /= 2;
        times *= 2;
    }
    if ((group != 32 && group != 64 && group != 128) || in != group * times * given) return 0;
    if (times > 1) *scales = mx_repeat(*scales, times, 1);
    return group;
}

static void drop_all(Foreign *foreign, const char *path) {
    static const char *const old[] = {"weight_packed",     "weight_scale", "weight_shape",
                                      "weight_zero_point", "weight_g_idx", "weight_global_scale",
                                      "input_global_scale"};
    for (size_t i = 0; i < BASE_COUNT(old); i++) drop(foreign, path, old[i]);
}

/* Zero points [out / per, groups], packed down the rows, as floats [out, groups]. */
static mlx_array unpack_zeros(mlx_array packed, int bits, int out) {
    mlx_array values =
        unpack_columns(mx_contiguous(mx_swapaxes(words_of(packed), 0, 1)), NULL, bits);
    return mx_cast(mx_swapaxes(mx_slice(values, 1, 0, out), 0, 1), MLX_FLOAT32);
}

/* NVFP4 and MXFP4: bytes of two codes [out, in/2], a byte of scale a group. The former
 * has a scale of the whole too, which MLX's layout has not: it becomes bfloat16. */
static bool adopt_fp4(Foreign *foreign, const char *path, mlx_array packed, mlx_array scales) {
    mlx_array whole = lm_tensors_find(foreign->tensors, "%s.weight_global_scale", path);
    const int in = mx_dim(packed, 1) * 2, groups = mx_dim(scales, 1);
    const MxQuant quant = whole.ctx ? (MxQuant){16, 4, "nvfp4"} : (MxQuant){32, 4, "mxfp4"};
    if (mx_dtype(scales) != MLX_UINT8 || groups * quant.group_size != in)
        return refuse(foreign, path, packed);
    mlx_array words = words_of(packed);
    foreign->mode = quant.mode;
    if (whole.ctx) {
        mlx_array values =
            mx_cast(mx_dequantize(words, scales, (mlx_array){0}, quant), MLX_FLOAT32);
        mlx_array scale = mx_cast(mx_reshape(whole, MX_SHAPE(1, 1)), MLX_FLOAT32);
        put(foreign, path, "weight", mx_cast(mx_div(values, scale), MLX_BFLOAT16));
    } else {
        put(foreign, path, "weight", words);
        put(foreign, path, "scales", scales);
        foreign->group_size = quant.group_size;
        foreign->kept = true;
    }
    drop_all(foreign, path);
    return true;
}

/* weight_packed int32 [out, in/8], weight_scale [out, groups], the values plus 8. */
static bool adopt_packed(Foreign *foreign, const char *path) {
    mlx_array packed = lm_tensors_find(foreign->tensors, "%s.weight_packed", path);
    mlx_array scales = lm_tensors_find(foreign->tensors, "%s.weight_scale", path);
    mlx_array zeros = lm_tensors_find(foreign->tensors, "%s.weight_zero_point", path);
    if (mx_ndim(packed) != 2 || mx_ndim(scales) != 2) return refuse(foreign, path, packed);
    if (mx_dtype(packed) == MLX_UINT8) return adopt_fp4(foreign, path, packed, scales);
    if (mlx_array_itemsize(packed) != 4 || !groups_are_runs(foreign, path, "weight_g_idx"))
        return foreign->err->code == ERROR_NONE ? refuse(foreign, path, packed) : false;
    const int bits = foreign->bits, out = mx_dim(packed, 0);
    const int group = spread_scales(&scales, mx_dim(packed, 1) * (32 / bits));
    if (group == 0) return refuse(foreign, path, scales);
    mlx_array biases = mx_mul_scalar(scales, -(double)(1 << (bits - 1)));
    if (zeros.ctx) {
        mlx_array each = unpack_zeros(zeros, bits, out);
        if (spread_scales(&each, mx_dim(packed, 1) * (32 / bits)) != group)
            return refuse(foreign, path, zeros);
        biases = mx_neg(mx_mul(each, mx_cast(scales, MLX_FLOAT32)));
    }
    foreign->group_size = group;
    foreign->dtype = mx_dtype(scales);
    put(foreign, path, "weight", words_of(packed));
    put(foreign, path, "scales", scales);
    put(foreign, path, "biases", mx_cast(biases, foreign->dtype));
    drop_all(foreign, path);
    foreign->kept = true;
    return true;
}

/* weight int8 [out, in], weight_scale [out, 1] or [out, groups]: 128 more is unsigned. */
static bool adopt_int8(Foreign *foreign, const char *path, mlx_array weight, mlx_array scales) {
    const int group =
        mx_ndim(weight) == 2 && mx_ndim(scales) == 2 && mx_dim(scales, 0) == mx_dim(weight, 0)
            ? spread_scales(&scales, mx_dim(weight, 1))
            : 0;
    if (group == 0) return refuse(foreign, path, scales);
    mlx_array wide = mx_add_scalar(mx_cast(weight, MLX_INT32), 128);
    put(foreign, path, "weight", words_of(mx_contiguous(mx_cast(wide, MLX_UINT8))));
    put(foreign, path, "scales", scales);
    put(foreign, path, "biases", mx_mul_scalar(scales, -128));
    drop_all(foreign, path);
    foreign->group_size = group;
    foreign->bits = 8;
    foreign->kept = true;
    return true;
}

/* E4M3 [m, n] times a scale: of a block of 128 x 128 when `scale` is a matrix of
 * blocks, else of a row or of all. As bfloat16. */
static bool adopt_fp8(Foreign *foreign, const char *path, const char *scale_leaf) {
    enum { BLOCK = 128 };
    mlx_array codes = lm_tensors_find(foreign->tensors, "%s.weight", path);
    mlx_array scale = lm_tensors_find(foreign->tensors, "%s.%s", path, scale_leaf);
    if (mx_dtype(codes) == MLX_INT8) return adopt_int8(foreign, path, codes, scale);
    if (mx_ndim(codes) != 2 || mx_dtype(codes) != MLX_UINT8) return refuse(foreign, path, codes);
    const int m = mx_dim(codes, 0), n = mx_dim(codes, 1);
    mlx_array weight = mlx_array_new();
    if (mlx_from_fp8(&weight, codes, MLX_BFLOAT16, mx_stream()) != 0)
        return refuse(foreign, path, codes);
    weight = mx_own(weight);
    const int rows = (m + BLOCK - 1) / BLOCK, columns = (n + BLOCK - 1) / BLOCK;
    if (mx_ndim(scale) == 2 && mx_dim(scale, 0) == rows && mx_dim(scale, 1) == columns) {
        mlx_array wide = mx_slice(mx_repeat(scale, BLOCK, 0), 0, 0, m);
        scale = mx_slice(mx_repeat(wide, BLOCK, 1), 1, 0, n);
    } else if (mx_size(scale) == (size_t)m) {
        scale = mx_reshape(scale, MX_SHAPE(m, 1));
    } else if (mx_size(scale) == 1) {
        scale = mx_reshape(scale, MX_SHAPE(1, 1));
    } else {
        return refuse(foreign, path, scale);
    }
    put(foreign, path, "weight", mx_cast(mx_mul(weight, scale), MLX_BFLOAT16));
    drop(foreign, path, scale_leaf);
    drop(foreign, path, "activation_scale");
    drop(foreign, path, "input_scale");
    return true;
}

/* ---- all of a model ---------------------------------------------------------------------- */

/* Calls adopt for each module that has a tensor <path>.<leaf>. */
static bool each_module(Foreign *foreign, const char *leaf, bool *found,
                        bool (*adopt)(Foreign *foreign, const char *path)) {
    bool good = true;
    for (size_t i = 0, count = foreign->tensors->count; i < count && good; i++) {
        const char *name = foreign->tensors->items[i].name, *dot = name ? strrchr(name, '.') : NULL;
        if (!dot || strcmp(dot + 1, leaf) != 0) continue;
        char *path = base_strndup(name, (size_t)(dot - name));
        good = adopt(foreign, path);
        *found = true;
        free(path);
    }
    return good && mx_check(foreign->err);
}

static bool adopt_inverse(Foreign *foreign, const char *path) {
    return adopt_fp8(foreign, path, "weight_scale_inv");
}
static bool adopt_scaled(Foreign *foreign, const char *path) {
    return adopt_fp8(foreign, path, "weight_scale");
}

/* mode NULL: the weights are dense now; "": affine, without saying so. */
static void set_quantization(json_t *config, int group_size, int bits, const char *mode) {
    json_object_del(config, "quantization_config");
    json_t *text = json_object_get(config, "text_config");
    if (text) json_object_del(text, "quantization_config");
    if (!mode) return;
    json_t *entry = json_pack("{s:i,s:i}", "group_size", group_size, "bits", bits);
    if (*mode) json_object_set_new(entry, "mode", json_string(mode));
    json_object_set_new(config, "quantization", entry);
}

/* All floats in the type of the scales, as mlx-lm does for AWQ. */
static void cast_floats(Foreign *foreign) {
    for (size_t i = 0; i < foreign->tensors->count; i++) {
        HubTensor *tensor = &foreign->tensors->items[i];
        if (tensor->name && mx_is_float(mx_dtype(tensor->array)))
            mx_store(&tensor->array, mx_cast(tensor->array, foreign->dtype));
    }
}

static int number(const json_t *object, const char *key, int fallback) {
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? (int)json_integer_value(value) : fallback;
}

/* The one scheme of compressed-tensors' config_groups. */
static const json_t *weight_scheme(const json_t *settings) {
    const char *key;
    json_t *group;
    json_object_foreach(json_object_get(settings, "config_groups"), key, group) {
        return json_object_get(group, "weights");
    }
    return NULL;
}

bool lm_foreign_adopt(LmTensors *tensors, json_t *config, Error *err) {
    const json_t *settings = hub_config_foreign(config);
    if (!settings) return true;
    Error own = {0};
    Foreign foreign = {.tensors = tensors,
                       .method = json_string_value(json_object_get(settings, "quant_method")),
                       .group_size = number(settings, "group_size", 128),
                       .bits = number(settings, "bits", 4),
                       .err = err ? err : &own};
    const char *method = foreign.method;
    /* As mlx-lm, which names the mode of one of the two only. */
    foreign.mode = strcmp(method, "compressed-tensors") == 0 ? "affine" : "";
    bool good = true, packed = false, scaled = false;
    if (strcmp(method, "awq") == 0 || strcmp(method, "gptq") == 0) {
        if (foreign.bits != 4 && foreign.bits != 8 && foreign.bits != 2)
            return base_fail(err, ERROR_UNSUPPORTED, "%s with %d bits cannot be read", method,
                             foreign.bits);
        if (foreign.group_size != 32 && foreign.group_size != 64 && foreign.group_size != 128)
            return base_fail(err, ERROR_UNSUPPORTED, "%s with groups of %d cannot be read", method,
                             foreign.group_size);
        good = each_module(&foreign, "qweight", &packed, adopt_zeros);
        if (good && packed) cast_floats(&foreign);
        foreign.kept = packed;
    } else if (strcmp(method, "compressed-tensors") == 0) {
        foreign.bits = number(weight_scheme(settings), "num_bits", 4);
        if (foreign.bits == 4 || foreign.bits == 8)
            good = each_module(&foreign, "weight_packed", &packed, adopt_packed);
        if (good && !packed) good = each_module(&foreign, "weight_scale", &scaled, adopt_scaled);
        if (good && !packed && !scaled)
            return base_fail(err, ERROR_UNSUPPORTED,
                             "compressed-tensors format \"%.40s\" cannot be read",
                             json_string_value(json_object_get(settings, "format")));
    } else if (strcmp(method, "fp8") == 0) {
        good = each_module(&foreign, "weight_scale_inv", &scaled, adopt_inverse);
        if (good && !scaled) good = each_module(&foreign, "weight_scale", &scaled, adopt_scaled);
    } else if (strcmp(method, "mxfp4") == 0) {
        set_quantization(config, 32, 4, "mxfp4");
        return true;
    } else {
        return true; /* bitnet */
    }
    if (!good) return false;
    set_quantization(config, foreign.group_size, foreign.bits, foreign.kept ? foreign.mode : NULL);
    return mx_check(err);
}
