/* convert, model convert, model quantize, model dequantize: one command under
 * mlx-lm's names, mlx-RAG's names, and for one purpose each. */
#include "cli/commands.h"
#include "lm/convert.h"

#include <string.h>

typedef struct ConvertArguments {
    const char *source, *output, *dtype, *mode, *recipe;
    OptionInt bits, group_size, shard_megabytes;
    OptionList overrides;
    bool quantize, dequantize, estimate, json, trust;
} ConvertArguments;
#define ARGUMENTS ConvertArguments

#define MODES "affine|mxfp4|nvfp4|mxfp8"
#define RECIPES "mixed_2_6|mixed_3_4|mixed_3_6|mixed_4_6"
#define SOURCE_HELP "folder of an MLX or Hugging Face model, or a GGUF file"

#define SOURCES                                                         \
    OPTION("hf-path", NULL, MODEL, source, NULL, "PATH", SOURCE_HELP),  \
        OPTION("hf-id", NULL, MODEL, source, NULL, "PATH", "the same"), \
        OPTION("model", NULL, MODEL, source, NULL, "PATH", "the same"), \
        OPTION("gguf", NULL, TEXT, source, NULL, "FILE", "the same")
#define TARGETS(fallback)                                                                         \
    OPTION("mlx-path", NULL, TEXT, output, fallback, "DIR", "folder to make; it must not exist"), \
        OPTION("output", NULL, TEXT, output, NULL, "DIR", "the same")
#define PACKING                                                                        \
    OPTION("q-bits", NULL, INT, bits, NULL, "N",                                       \
           "bits a weight; absent: the mode's (4, mxfp8: 8)"),                         \
        OPTION("bits", NULL, INT, bits, NULL, "N", "the same"),                        \
        OPTION("q-group-size", NULL, INT, group_size, NULL, "N",                       \
               "weights that share a scale; absent: the mode's (64, mx: 32, nv: 16)"), \
        OPTION("group-size", NULL, INT, group_size, NULL, "N", "the same"),            \
        OPTION_CHOICE("q-mode", mode, "affine", MODES, "how weights are packed"),      \
        OPTION_CHOICE("mode", mode, NULL, MODES, "the same"),                          \
        OPTION_CHOICE("quant-predicate", recipe, NULL, RECIPES,                        \
                      "low bits, high bits for the layers that need them"),            \
        OPTION("override", NULL, LIST, overrides, NULL, "PATTERN=BITS[:GROUP]",        \
               "for modules whose path contains PATTERN; PATTERN=no leaves them")
#define OTHERS                                                                              \
    OPTION_CHOICE("dtype", dtype, NULL, "float16|bfloat16|float32",                         \
                  "of unquantised weights, norms and scales; absent: as config.json says"), \
        OPTION("shard-size", NULL, INT, shard_megabytes, NULL, "MB",                        \
               "largest file of weights; absent: 5 GiB"),                                   \
        OPTION("estimate", NULL, FLAG, estimate, NULL, NULL,                                \
               "say how large it would be, write nothing"),                                 \
        OPTION("json", NULL, FLAG, json, NULL, NULL, "print JSON: progress and result"),    \
        TRUST_OPTION(trust)

static const Option convert_table[] = {
    SOURCES,
    TARGETS("mlx_model"),
    OPTION("quantize", "q", FLAG, quantize, NULL, NULL, "quantise the weights"),
    PACKING,
    OPTION("dequantize", "d", FLAG, dequantize, NULL, NULL, "unpack quantised weights"),
    OTHERS,
};
static const Option quantize_table[] = {SOURCES, TARGETS(NULL), PACKING, OTHERS};
static const Option dequantize_table[] = {SOURCES, TARGETS(NULL), OTHERS};

static json_t *report_json(const ConvertArguments *arguments, const LmConvertReport *report) {
    const char *output = arguments->estimate ? NULL : arguments->output;
    return json_pack("{s:o,s:s,s:I,s:I,s:I,s:I,s:I,s:f,s:f}", "output",
                     output ? output_string(output, strlen(output)) : json_null(), "model_type",
                     report->model_type, "parameters", (json_int_t)report->parameters,
                     "weight_bytes", (json_int_t)report->bytes, "source_bytes",
                     (json_int_t)report->source_bytes, "tensors", (json_int_t)report->tensors,
                     "quantized_modules", (json_int_t)report->quantized, "bits_per_weight",
                     report->bits_per_weight, "seconds", report->seconds);
}

static void report_text(const ConvertArguments *arguments, const LmConvertReport *report) {
    printf("%s: %s, %.1f M parameters, %s from %s, %.3f bits per weight",
           arguments->estimate ? "estimate" : arguments->output, report->model_type,
           (double)report->parameters / 1e6, base_bytes_text(report->bytes),
           base_bytes_text(report->source_bytes), report->bits_per_weight);
    if (!arguments->estimate)
        printf(
            ", %.2f s, %s/s", report->seconds,
            base_bytes_text((uint64_t)((double)report->source_bytes / (report->seconds + 1e-9))));
    putchar('\n');
}

static int convert(const ConvertArguments *arguments, bool quantize, bool dequantize, Error *err) {
    if (!arguments->source) {
        base_fail(err, ERROR_INPUT, "--hf-path (or --hf-id, --model) is required");
        return 2;
    }
    if (!arguments->output && !arguments->estimate) {
        base_fail(err, ERROR_INPUT, "--output (or --mlx-path) is required");
        return 2;
    }
    if (arguments->bits.given && (arguments->bits.value < 1 || arguments->bits.value > 8)) {
        base_fail(err, ERROR_INPUT, "--q-bits: %lld is not 2, 3, 4, 5, 6 or 8",
                  (long long)arguments->bits.value);
        return 2;
    }
    if (arguments->shard_megabytes.given && arguments->shard_megabytes.value < 1) {
        base_fail(err, ERROR_INPUT, "--shard-size must be at least 1");
        return 2;
    }
    LmConvertOptions options = {.dtype = arguments->dtype,
                                .quantize = quantize,
                                .dequantize = dequantize,
                                .mode = arguments->mode,
                                .group_size = (int)BASE_MIN(arguments->group_size.value, 1 << 20),
                                .bits = (int)arguments->bits.value,
                                .recipe = arguments->recipe,
                                .overrides = arguments->overrides.items,
                                .override_count = arguments->overrides.count,
                                .shard_bytes = (uint64_t)arguments->shard_megabytes.value * 1000000,
                                .json = arguments->json};
    LmConvertReport report;
    if (!lm_convert(arguments->source, arguments->estimate ? NULL : arguments->output, &options,
                    &report, err))
        return 1;
    if (arguments->json)
        output_json(report_json(arguments, &report));
    else
        report_text(arguments, &report);
    return 0;
}

static int run_convert(const void *given, Error *err) {
    const ConvertArguments *arguments = given;
    return convert(arguments, arguments->quantize, arguments->dequantize, err);
}
static int run_quantize(const void *given, Error *err) {
    return convert(given, true, false, err);
}
static int run_dequantize(const void *given, Error *err) {
    return convert(given, false, true, err);
}

#define DETAILS                                                                                \
    "Reads safetensors folders as MLX or Hugging Face lay them out, GGUF files of all common " \
    "types, and weights packed by AWQ, GPTQ, compressed-tensors, FP8 or MXFP4. Weights pass "  \
    "one by one, so memory holds the largest, not the model. The folder appears whole or not " \
    "at all."

const Command convert_command = {.name = "convert",
                                 .summary = "Makes an MLX model folder, quantised if wanted.",
                                 .details = DETAILS,
                                 OPTIONS(convert_table),
                                 .arguments_size = sizeof(ConvertArguments),
                                 .run = run_convert};
const Command model_convert_command = {.name = "model convert",
                                       .summary = "The same as convert.",
                                       .details = DETAILS,
                                       OPTIONS(convert_table),
                                       .arguments_size = sizeof(ConvertArguments),
                                       .run = run_convert};
const Command model_quantize_command = {.name = "model quantize",
                                        .summary = "Packs the weights of a model into few bits.",
                                        .details = DETAILS,
                                        OPTIONS(quantize_table),
                                        .arguments_size = sizeof(ConvertArguments),
                                        .run = run_quantize};
const Command model_dequantize_command = {.name = "model dequantize",
                                          .summary = "Unpacks quantised weights to floats.",
                                          .details = DETAILS,
                                          OPTIONS(dequantize_table),
                                          .arguments_size = sizeof(ConvertArguments),
                                          .run = run_dequantize};
