/* model convert: a model of another program becomes an MLX model folder. */
#include "cli/commands.h"
#include "hub/hub.h"
#include "lm/import.h"

#include <string.h>

typedef struct ConvertArguments {
    const char *gguf, *output, *dtype;
    bool json;
} ConvertArguments;
#define ARGUMENTS ConvertArguments

static const Option option_table[] = {
    OPTION_REQUIRED("gguf", NULL, TEXT, gguf, "FILE", "GGUF file to read"),
    OPTION_REQUIRED("output", NULL, TEXT, output, "DIR", "folder to make; it must not exist"),
    OPTION_CHOICE("dtype", dtype, NULL, "float16|bfloat16|float32",
                  "of norms, scales and unquantised weights; absent: as the file's"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object about the result"),
};

static int run(const void *given, Error *err) {
    const ConvertArguments *arguments = given;
    double start = base_now();
    LmImport how = {.dtype = arguments->dtype};
    HubInfo info;
    if (!lm_import_gguf(arguments->gguf, arguments->output, &how, err) ||
        !hub_model_info(arguments->output, &info, err))
        return 1;
    double seconds = base_now() - start;
    if (arguments->json)
        output_json(json_pack("{s:o,s:s,s:I,s:I,s:f,s:f}", "output",
                              output_string(arguments->output, strlen(arguments->output)),
                              "model_type", info.architecture, "parameters",
                              (json_int_t)info.parameters, "weight_bytes",
                              (json_int_t)info.weight_bytes, "bits_per_weight",
                              info.bits_per_weight, "seconds", seconds));
    else
        printf("%s: %s, %.1f M parameters, %s, %.3f bits per weight, %.2f s\n", arguments->output,
               info.architecture, (double)info.parameters / 1e6, output_bytes(info.weight_bytes),
               info.bits_per_weight, seconds);
    return 0;
}

const Command model_convert_command = {
    .name = "model convert",
    .summary = "Turns a GGUF file into an MLX model folder.",
    .details = "Q4_0, Q4_1 and Q8_0 weights keep their exact values. The folder appears whole or "
               "not at all.",
    OPTIONS(option_table),
    .arguments_size = sizeof(ConvertArguments),
    .run = run};
