/* model info: what a model folder holds. */
#include "cli/commands.h"
#include "hub/hub.h"

#include <string.h>

typedef struct InfoArguments {
    const char *model;
    bool json;
} InfoArguments;
#define ARGUMENTS InfoArguments

static const Option option_table[] = {
    POSITIONAL("MODEL", MODEL, model, true, "model folder or hub id"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object"),
};

static void print_json(const char *folder, const HubInfo *info) {
    json_t *out = json_pack(
        "{s:o,s:s,s:s,s:s,s:I,s:I,s:f,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "folder",
        output_string(folder, strlen(folder)), "model_type", info->architecture, "tokenizer",
        info->tokenizer, "dtype", info->dtype, "parameters", (json_int_t)info->parameters,
        "weight_bytes", (json_int_t)info->weight_bytes, "bits_per_weight", info->bits_per_weight,
        "layers", (json_int_t)info->layers, "hidden_size", (json_int_t)info->hidden_size, "heads",
        (json_int_t)info->heads, "kv_heads", (json_int_t)info->kv_heads, "vocab_size",
        (json_int_t)info->vocab_size, "context", (json_int_t)info->context, "tensors",
        (json_int_t)info->tensors, "shards", (json_int_t)info->shards);
    json_t *quantization = info->bits ? json_pack("{s:i,s:i,s:s}", "group_size", info->group_size,
                                                  "bits", info->bits, "mode", info->mode)
                                      : json_null();
    json_object_set_new(out, "quantization", quantization);
    output_json(out);
}

static void print_row(const char *title, int64_t value) {
    if (value > 0) printf("%-16s %lld\n", title, (long long)value);
}

static void print_text(const char *folder, const HubInfo *info) {
    printf("%-16s %s\n", "folder", folder);
    printf("%-16s %s\n", "architecture", info->architecture);
    printf("%-16s %llu (%.1f M)\n", "parameters", (unsigned long long)info->parameters,
           (double)info->parameters / 1e6);
    printf("%-16s %s in %zu tensors, %zu file%s\n", "weights", base_bytes_text(info->weight_bytes),
           info->tensors, info->shards, info->shards == 1 ? "" : "s");
    printf("%-16s %.3f\n", "bits per weight", info->bits_per_weight);
    if (info->bits)
        printf("%-16s %s, %d bits, groups of %d\n", "quantization", info->mode, info->bits,
               info->group_size);
    if (info->dtype[0]) printf("%-16s %s\n", "dtype", info->dtype);
    print_row("layers", info->layers);
    print_row("hidden size", info->hidden_size);
    print_row("heads", info->heads);
    print_row("kv heads", info->kv_heads);
    print_row("vocabulary", info->vocab_size);
    print_row("context", info->context);
    printf("%-16s %s\n", "tokenizer", info->tokenizer[0] ? info->tokenizer : "none");
}

static int run(const void *given, Error *err) {
    const InfoArguments *arguments = given;
    HubInfo info;
    if (!hub_model_info(arguments->model, &info, err)) return 1;
    if (arguments->json)
        print_json(arguments->model, &info);
    else
        print_text(arguments->model, &info);
    return 0;
}

const Command model_info_command = {.name = "model info",
                                    .summary = "Shows what a model folder holds.",
                                    OPTIONS(option_table),
                                    .arguments_size = sizeof(InfoArguments),
                                    .run = run};
