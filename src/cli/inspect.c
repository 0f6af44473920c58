/* inspect logits: a model's raw outputs for given ids, in a safetensors file,
 * because people compare models. */
#include "cli/commands.h"
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>

typedef struct InspectArguments {
    const char *model, *tokens, *text, *output, *dtype, *adapter_path;
    bool json;
} InspectArguments;
#define ARGUMENTS InspectArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "model folder or hub id"),
    OPTION("tokens", NULL, TEXT, tokens, NULL, "IDS", "token ids: \"5 7 9\""),
    OPTION("text", NULL, TEXT, text, NULL, "TEXT", "text to tokenize instead"),
    OPTION_REQUIRED("output", NULL, TEXT, output, "FILE", "safetensors file to write"),
    OPTION_CHOICE("dtype", dtype, NULL, "float16|bfloat16|float32",
                  "compute in it; absent: in the model's"),
    OPTION("adapter-path", NULL, TEXT, adapter_path, NULL, "DIR",
           "adapter of mlx-lm or PEFT to apply"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object about the tensors"),
};

static int32_t *text_ids(const InspectArguments *arguments, size_t *count, Error *err) {
    TextTokenizer *tokenizer = text_tokenizer_open(arguments->model, err);
    TextIds ids = {0};
    bool good =
        tokenizer && text_tokenizer_encode(tokenizer, arguments->text, strlen(arguments->text),
                                           TEXT_ENCODE_PROMPT, &ids, err);
    if (good && ids.length == 0) good = base_fail(err, ERROR_INPUT, "the text has no tokens");
    text_tokenizer_free(tokenizer);
    *count = ids.length;
    if (!good) text_ids_free(&ids);
    return ids.data;
}

static json_t *shape_of(mlx_array array) {
    json_t *shape = json_array();
    for (size_t i = 0; i < mlx_array_ndim(array); i++)
        json_array_append_new(shape, json_integer(mlx_array_shape(array)[i]));
    return shape;
}

/* Says what was written, one line a tensor. */
static void report(const InspectArguments *arguments, const HubTensor *tensors, size_t count) {
    json_t *shapes = json_object();
    for (size_t i = 0; i < count; i++)
        json_object_set_new(shapes, tensors[i].name, shape_of(tensors[i].array));
    if (arguments->json) {
        output_json(json_pack("{s:o,s:o}", "output",
                              output_string(arguments->output, strlen(arguments->output)),
                              "tensors", shapes));
        return;
    }
    const char *name;
    json_t *shape;
    json_object_foreach(shapes, name, shape) {
        char *text = json_dumps(shape, 0);
        printf("%s: %s float32 %s\n", arguments->output, name, text);
        free(text);
    }
    json_decref(shapes);
}

static int run(const void *given, Error *err) {
    const InspectArguments *arguments = given;
    if (!arguments->tokens == !arguments->text) {
        base_fail(err, ERROR_INPUT, "inspect logits: give --tokens or --text");
        return 2;
    }
    size_t count = 0;
    int32_t *ids = arguments->tokens ? input_ids(arguments->tokens, &count, err)
                                     : text_ids(arguments, &count, err);
    if (!ids) return 1;
    mlx_array logits = mlx_array_new(), hidden = mlx_array_new();
    mlx_array embedding = mlx_array_new(), pooled = mlx_array_new();
    const LmOpenOptions options = {.dtype = arguments->dtype,
                                   .adapter_path = arguments->adapter_path};
    bool good = lm_inspect(arguments->model, &options, ids, count, &logits, &hidden, &embedding,
                           &pooled, err);
    if (good) {
        const HubTensor outputs[] = {{.name = (char *)"logits", .array = logits},
                                     {.name = (char *)"last_hidden_state", .array = hidden},
                                     {.name = (char *)"embedding", .array = embedding},
                                     {.name = (char *)"pooler_output", .array = pooled}};
        HubTensor present[BASE_COUNT(outputs)];
        size_t n = 0;
        for (size_t i = 0; i < BASE_COUNT(outputs); i++)
            if (outputs[i].array.ctx) present[n++] = outputs[i];
        good = hub_tensors_save(arguments->output, present, n, err);
        if (good) report(arguments, present, n);
    }
    mlx_array_free(logits);
    mlx_array_free(hidden);
    mlx_array_free(embedding);
    mlx_array_free(pooled);
    free(ids);
    return good ? 0 : 1;
}

const Command inspect_logits_command = {
    .name = "inspect logits",
    .summary = "Writes a model's raw outputs to a safetensors file.",
    .details = "A language model gives `logits` [1, L, V]; an encoder `last_hidden_state` "
               "[1, L, D], `embedding` [1, D] and, where the folder has a pooler, "
               "`pooler_output` [1, P]; a cross-encoder `logits` [1, labels].",
    OPTIONS(option_table),
    .arguments_size = sizeof(InspectArguments),
    .run = run};
