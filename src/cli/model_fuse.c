/* fuse, model fuse: an adapter becomes part of a model. */
#include "cli/commands.h"
#include "lm/export.h"
#include "lm/fuse.h"

#include <stdlib.h>
#include <string.h>

typedef struct FuseArguments {
    const char *model, *adapter, *output, *gguf_path, *gguf_type;
    bool dequantize, export_gguf, json, trust;
} FuseArguments;
#define ARGUMENTS FuseArguments

static const Option option_table[] = {
    OPTION("model", NULL, MODEL, model, "mlx_model", "MODEL", "model folder or hub id"),
    OPTION("base", NULL, MODEL, model, NULL, "MODEL", "the same"),
    OPTION("adapter-path", NULL, TEXT, adapter, "adapters", "DIR", "adapter of mlx-lm or PEFT"),
    OPTION("adapter", NULL, TEXT, adapter, NULL, "DIR", "the same"),
    OPTION("save-path", NULL, TEXT, output, "fused_model", "DIR",
           "folder to make; it must not exist"),
    OPTION("output", NULL, TEXT, output, NULL, "DIR", "the same"),
    OPTION("dequantize", NULL, FLAG, dequantize, NULL, NULL, "write unpacked weights"),
    OPTION("export-gguf", NULL, FLAG, export_gguf, NULL, NULL, "also write a GGUF file"),
    OPTION("gguf-path", NULL, TEXT, gguf_path, NULL, "FILE",
           "its place in the new folder; absent: ggml-model-TYPE.gguf"),
    OPTION_CHOICE("gguf-type", gguf_type, NULL, GGUF_TYPES, GGUF_TYPE_HELP),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print JSON: progress and result"),
    TRUST_OPTION(trust),
};

static void report_text(const FuseArguments *arguments, const LmFuseReport *report) {
    printf("%s: %s, %zu modules fused, %s, %.3f bits per weight, %.2f s\n", arguments->output,
           report->written.model_type, report->fused, base_bytes_text(report->written.bytes),
           report->written.bits_per_weight, report->written.seconds);
}

static json_t *report_json(const FuseArguments *arguments, const LmFuseReport *report) {
    return json_pack("{s:o,s:I,s:I,s:f,s:f,s:f}", "output",
                     output_string(arguments->output, strlen(arguments->output)), "fused_modules",
                     (json_int_t)report->fused, "weight_bytes", (json_int_t)report->written.bytes,
                     "bits_per_weight", report->written.bits_per_weight, "packing_error",
                     report->packing_error, "seconds", report->written.seconds);
}

/* Of the folder that was just fused; *path is for the caller to free. */
static bool export_gguf(const FuseArguments *arguments, const char *model, const char *output,
                        char **path, LmExportReport *report, Error *err) {
    const LmExportOptions options = {.type = arguments->gguf_type, .json = arguments->json};
    return lm_export_gguf(model, output, &options, path, report, err);
}

static int run(const void *given, Error *err) {
    const FuseArguments *arguments = given;
    const LmConvertOptions options = {.json = arguments->json};
    LmFuseReport report;
    LmExportReport exported = {0};
    char *path = NULL;
    /* Whether the model can be a GGUF is known before the work. */
    if (arguments->export_gguf &&
        !export_gguf(arguments, arguments->model, NULL, NULL, &exported, err))
        return 1;
    if (!lm_fuse(arguments->model, arguments->adapter, arguments->output, arguments->dequantize,
                 &options, &report, err))
        return 1;
    if (report.packing_error > 0.5)
        base_log(LOG_WARNING,
                 "packing again changed the weights %.1f times as much as the adapter did; "
                 "--dequantize keeps the adapter whole",
                 report.packing_error);
    if (arguments->export_gguf) {
        char *target =
            base_path_join(arguments->output, arguments->gguf_path ? arguments->gguf_path : "");
        bool good = export_gguf(arguments, arguments->output, target, &path, &exported, err);
        free(target);
        if (!good) return 1;
    }
    if (arguments->json) {
        json_t *said = report_json(arguments, &report);
        if (path) json_object_set_new(said, "gguf", export_report_json(path, &exported));
        output_json(said);
    } else {
        report_text(arguments, &report);
        if (path) export_report_text(path, &exported);
    }
    free(path);
    return 0;
}

#define DETAILS                                                                               \
    "LoRA, DoRA and fully tuned weights of mlx-lm, LoRA and DoRA of PEFT. Packed layers are " \
    "packed again "                                                                           \
    "as they were, which can undo a small adapter: a warning says by how much."

const Command fuse_command = {.name = "fuse",
                              .summary = "Makes an adapter part of a model.",
                              .details = DETAILS,
                              OPTIONS(option_table),
                              .arguments_size = sizeof(FuseArguments),
                              .run = run};
const Command model_fuse_command = {.name = "model fuse",
                                    .summary = "The same as fuse.",
                                    .details = DETAILS,
                                    OPTIONS(option_table),
                                    .arguments_size = sizeof(FuseArguments),
                                    .run = run};
