/* model export: an MLX model as a GGUF file. */
#include "cli/commands.h"
#include "lm/export.h"

#include <stdlib.h>
#include <string.h>

typedef struct ExportArguments {
    const char *model, *output, *type;
    bool estimate, json, trust;
} ExportArguments;
#define ARGUMENTS ExportArguments

static const Option option_table[] = {
    OPTION("model", NULL, MODEL, model, "mlx_model", "MODEL", "model folder or hub id"),
    OPTION("output", NULL, TEXT, output, ".", "FILE",
           "GGUF file to write, or a folder for ggml-model-TYPE.gguf"),
    OPTION("gguf-path", NULL, TEXT, output, NULL, "FILE", "the same"),
    OPTION_CHOICE("type", type, NULL, GGUF_TYPES, GGUF_TYPE_HELP),
    OPTION("estimate", NULL, FLAG, estimate, NULL, NULL,
           "say how large it would be, write nothing"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print JSON: progress and result"),
    TRUST_OPTION(trust),
};

json_t *export_report_json(const char *path, const LmExportReport *report) {
    return json_pack("{s:o,s:s,s:I,s:I,s:I,s:I,s:f}", "gguf",
                     path ? output_string(path, strlen(path)) : json_null(), "type", report->type,
                     "weight_bytes", (json_int_t)report->bytes, "tensors",
                     (json_int_t)report->tensors, "kept_matrices", (json_int_t)report->kept,
                     "unpacked_matrices", (json_int_t)report->unpacked, "seconds", report->seconds);
}

void export_report_text(const char *path, const LmExportReport *report) {
    printf("%s: %zu tensors, mostly %s, %s, %.2f s\n", path ? path : "estimate", report->tensors,
           report->type, base_bytes_text(report->bytes), report->seconds);
    if (report->kept + report->unpacked)
        printf("%zu packed matrices keep their values, %zu were packed otherwise\n", report->kept,
               report->unpacked);
}

static int run(const void *given, Error *err) {
    const ExportArguments *arguments = given;
    const LmExportOptions options = {.type = arguments->type, .json = arguments->json};
    LmExportReport report;
    char *path = NULL;
    if (!lm_export_gguf(arguments->model, arguments->estimate ? NULL : arguments->output, &options,
                        &path, &report, err))
        return 1;
    if (arguments->json)
        output_json(export_report_json(path, &report));
    else
        export_report_text(path, &report);
    free(path);
    return 0;
}

const Command model_export_command = {
    .name = "model export",
    .summary = "Writes a model as a GGUF file for llama.cpp.",
    .details = "Tokenizer and chat template go into the file. Without --type a quantised model "
               "keeps its values where GGUF has a type for them: affine of 2 to 5 bits and mxfp4. "
               "llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, phi3, gemma and gemma2 models.",
    OPTIONS(option_table),
    .arguments_size = sizeof(ExportArguments),
    .run = run};
