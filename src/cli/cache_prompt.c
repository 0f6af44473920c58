/* cache-prompt: reads a long prompt once and keeps what the model made of it, for
 * `generate --prompt-cache-file`. Flags, output and file are mlx_lm.cache_prompt's. */
#include "cli/commands.h"
#include "hub/remote.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct CacheArguments {
    const char *model, *adapter_path, *eos_token, *prompt, *prompt_cache_file, *layout;
    OptionInt max_kv_size, kv_bits, kv_group_size, quantized_kv_start;
    bool trust_remote_code, json;
} CacheArguments;
#define ARGUMENTS CacheArguments

static const Option option_table[] = {
    OPTION("model", NULL, MODEL, model, "mlx_model", "MODEL", "model folder or hub id"),
    OPTION_REQUIRED("prompt", NULL, TEXT, prompt, "TEXT", "what to read; - is standard input"),
    OPTION_REQUIRED("prompt-cache-file", NULL, TEXT, prompt_cache_file, "FILE",
                    "safetensors file to write"),
    OPTION("adapter-path", NULL, TEXT, adapter_path, NULL, "DIR", "LoRA adapter"),
    OPTION("eos-token", NULL, TEXT, eos_token, NULL, "TOKEN",
           "what ends an answer, for a model that does not say; kept in the file"),
    OPTION("max-kv-size", NULL, INT, max_kv_size, NULL, "N",
           "keep the first 4 and the latest tokens, N in all"),
    OPTION("kv-bits", NULL, INT, kv_bits, NULL, "N",
           "quantise the cache to 2, 3, 4, 5, 6 or 8 bits"),
    OPTION("kv-group-size", NULL, INT, kv_group_size, "64", "N", "group size of that"),
    OPTION("quantized-kv-start", NULL, INT, quantized_kv_start, "5000", "N",
           "quantise once the cache holds N tokens"),
    OPTION_CHOICE("layout", layout, "0.32", "0.32|0.31",
                  "mlx-lm that reads the file: 0.32, or 0.31 and before; both are read here"),
    TRUST_OPTION(trust_remote_code),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "one JSON object instead of text"),
};
#undef ARGUMENTS

typedef struct Reading {
    bool json, terminal;
    double started;
} Reading;

static void show_progress(void *context, size_t done, size_t total) {
    const Reading *reading = context;
    (void)total;
    if (reading->json) return;
    double seconds = base_now() - reading->started;
    printf("%sProcessed %6zu tokens (%6.2f tok/s)%s", reading->terminal ? "\r" : "", done,
           seconds > 0 ? (double)done / seconds : 0, reading->terminal ? "" : "\n");
    fflush(stdout);
}

/* With a template the prompt is a user's message that goes on; without, plain text. */
static bool encode(LmModel *model, const char *prompt, int **ids, size_t *count, Error *err) {
    if (!lm_model_tokenizer(model))
        return base_fail(err, ERROR_INPUT, "%s: has no tokenizer", lm_model_folder(model));
    if (lm_model_has_template(model)) {
        json_t *messages = json_pack("[{s:s,s:o}]", "role", "user", "content",
                                     output_string(prompt, strlen(prompt)));
        LmChatOptions chat = {.continue_final_message = true};
        bool good = lm_chat_prompt(model, messages, &chat, ids, count, err);
        json_decref(messages);
        return good;
    }
    TextIds list = {0};
    if (!text_tokenizer_encode(lm_model_tokenizer(model), prompt, strlen(prompt),
                               TEXT_ENCODE_PROMPT, &list, err))
        return false;
    *ids = list.data;
    *count = list.length;
    return true;
}

/* The entries that mlx_lm.generate looks for. */
static json_t *file_metadata(const CacheArguments *arguments) {
    json_t *tokenizer = json_pack("{s:n}", "trust_remote_code");
    if (arguments->trust_remote_code)
        json_object_set_new(tokenizer, "trust_remote_code", json_true());
    if (arguments->eos_token)
        json_object_set_new(tokenizer, "eos_token", json_string(arguments->eos_token));
    char *text = json_dumps(tokenizer, 0);
    json_t *metadata =
        json_pack("{s:s,s:s}", "model", arguments->model, "tokenizer_config", text ? text : "{}");
    free(text);
    json_decref(tokenizer);
    return metadata;
}

static bool read_and_save(LmModel *model, const CacheArguments *arguments, const char *prompt,
                          const LmCacheOptions *kind, Error *err) {
    int *ids = NULL;
    size_t count = 0;
    if (!encode(model, prompt, &ids, &count, err)) return false;
    LmCache *cache = lm_cache_new(model, kind, err);
    Reading reading = {.json = arguments->json, .terminal = isatty(STDOUT_FILENO) != 0};
    LmGenerateOptions options = lm_generate_defaults();
    options.max_tokens = 0;
    options.cache = cache;
    options.on_prefill = show_progress;
    options.context = &reading;
    LmStats stats = {0};
    reading.started = base_now();
    bool good = cache && lm_generate(model, ids, count, &options, &stats, err);
    if (good && base_interrupted()) good = base_fail(err, ERROR_INTERRUPTED, "interrupted");
    if (good && !arguments->json) {
        printf("%sPeak memory: %.3f GB\nSaving...\n", reading.terminal ? "\n" : "", stats.peak_gb);
        fflush(stdout);
    }
    json_t *metadata = file_metadata(arguments);
    good = good &&
           lm_cache_save(cache, arguments->prompt_cache_file,
                         strcmp(arguments->layout, "0.31") == 0 ? LM_CACHE_TEXT : LM_CACHE_TENSORS,
                         metadata, err);
    if (good && arguments->json) {
        output_json(json_pack(
            "{s:o,s:I,s:f,s:f}", "prompt_cache_file",
            output_string(arguments->prompt_cache_file, strlen(arguments->prompt_cache_file)),
            "prompt_tokens", (json_int_t)count, "prompt_tps", stats.prompt_tps, "peak_memory",
            stats.peak_gb));
    }
    json_decref(metadata);
    lm_cache_free(cache);
    free(ids);
    return good;
}

static int run(const void *given, Error *err) {
    const CacheArguments *arguments = given;
    LmCacheOptions kind = {.for_file = true};
    if (!cache_options_read(arguments->max_kv_size, arguments->kv_bits, arguments->kv_group_size,
                            arguments->quantized_kv_start, &kind, err))
        return 1;
    char *prompt = strcmp(arguments->prompt, "-") == 0 ? input_stdin(NULL, err)
                                                       : base_strdup(arguments->prompt);
    LmOpenOptions open = {.adapter_path = arguments->adapter_path};
    LmModel *model = prompt ? lm_model_open(arguments->model, &open, err) : NULL;
    bool good = model && read_and_save(model, arguments, prompt, &kind, err);
    lm_model_close(model);
    free(prompt);
    return good ? 0 : 1;
}

const Command cache_prompt_command = {
    .name = "cache-prompt",
    .summary = "Reads a prompt once and saves the model's state.",
    .details =
        "`mlx-rag generate --prompt-cache-file FILE` goes on from there. The files are those "
        "of mlx_lm.cache_prompt, in both directions.",
    OPTIONS(option_table),
    .arguments_size = sizeof(CacheArguments),
    .run = run};
