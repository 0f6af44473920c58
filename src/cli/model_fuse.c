/* fuse, model fuse: an adapter becomes part of a model. */
#include "cli/commands.h"
#include "lm/fuse.h"

#include <string.h>

typedef struct FuseArguments {
    const char *model, *adapter, *output;
    bool dequantize, json, trust;
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
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print JSON: progress and result"),
    OPTION("trust-remote-code", NULL, FLAG, trust, NULL, NULL,
           "taken for mlx-lm's sake; code in a model folder is copied, never run"),
};

static int run(const void *given, Error *err) {
    const FuseArguments *arguments = given;
    const LmConvertOptions options = {.json = arguments->json};
    LmFuseReport report;
    if (!lm_fuse(arguments->model, arguments->adapter, arguments->output, arguments->dequantize,
                 &options, &report, err))
        return 1;
    if (report.packing_error > 0.5)
        base_log(LOG_WARNING,
                 "packing again changed the weights %.1f times as much as the adapter did; "
                 "--dequantize keeps the adapter whole",
                 report.packing_error);
    if (arguments->json)
        output_json(json_pack("{s:o,s:I,s:I,s:f,s:f,s:f}", "output",
                              output_string(arguments->output, strlen(arguments->output)),
                              "fused_modules", (json_int_t)report.fused, "weight_bytes",
                              (json_int_t)report.written.bytes, "bits_per_weight",
                              report.written.bits_per_weight, "packing_error", report.packing_error,
                              "seconds", report.written.seconds));
    else
        printf("%s: %s, %zu modules fused, %s, %.3f bits per weight, %.2f s\n", arguments->output,
               report.written.model_type, report.fused, output_bytes(report.written.bytes),
               report.written.bits_per_weight, report.written.seconds);
    return 0;
}

#define DETAILS                                                                                   \
    "LoRA, DoRA and fully tuned weights of mlx-lm, LoRA of PEFT. Packed layers are packed again " \
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
