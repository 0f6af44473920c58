/* Converting: open, cast, quantise or dequantise, write. Until the last step all
 * is a plan of lazy arrays. */
#include "lm/convert.h"

#include "lm/pack.h"

#include <string.h>

/* --dtype, else what the config names; only the three that models are kept in. */
static const char *wanted_dtype(const LmSource *source, const LmConvertOptions *options) {
    static const char *const known[] = {"float16", "bfloat16", "float32"};
    const char *name = options->dtype;
    if (!name) name = json_string_value(json_object_get(source->config, "torch_dtype"));
    if (!name)
        name = json_string_value(
            json_object_get(json_object_get(source->config, "text_config"), "dtype"));
    for (size_t i = 0; name && i < BASE_COUNT(known); i++)
        if (strcmp(known[i], name) == 0) return known[i];
    return NULL;
}

static bool plan(LmSource *source, const LmConvertOptions *options, LmConvertReport *report,
                 Error *err) {
    const char *dtype = wanted_dtype(source, options);
    mlx_dtype floats = MLX_FLOAT16;
    for (size_t i = 0; i < source->tensors.count; i++)
        report->source_bytes += mlx_array_nbytes(source->tensors.items[i].array);
    if (options->dtype && !dtype)
        return base_fail(err, ERROR_INPUT, "dtype \"%.32s\" is not float16, bfloat16 or float32",
                         options->dtype);
    /* A packed GGUF file that is to be packed otherwise is unpacked first. */
    if (source->gguf && options->quantize && (options->bits || options->mode) &&
        !lm_pack_dequantize(source, err))
        return false;
    if (dtype && mx_dtype_parse(dtype, &floats)) {
        snprintf(report->dtype, sizeof report->dtype, "%s", dtype);
        if (!lm_pack_cast(source, floats, err)) return false;
    }
    if (options->quantize) return lm_pack_quantize(source, options, &report->quantized, err);
    return !options->dequantize || lm_pack_dequantize(source, err);
}

bool lm_convert(const char *path, const char *output, const LmConvertOptions *options,
                LmConvertReport *report, Error *err) {
    const double start = base_now();
    *report = (LmConvertReport){0};
    if (options->quantize && options->dequantize)
        return base_fail(err, ERROR_INPUT, "choose either quantize or dequantize, not both");
    mx_scope scope = mx_open();
    LmSource *source = lm_source_open(path, options->dtype, err);
    bool good =
        source && (plan(source, options, report, err) || base_error_context(err, "%s", path));
    if (good) lm_pack_measure(source, report);
    /* From here the list alone holds the arrays, so that each dies once it is written. */
    mx_drop(scope);
    good = good && (!output || lm_pack_write(source, output, options, err));
    lm_source_free(source);
    report->seconds = base_now() - start;
    return good;
}
