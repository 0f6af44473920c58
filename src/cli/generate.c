/* generate: one prompt, one answer, with the flags and the output of
 * mlx_lm.generate. */
#include "cli/commands.h"
#include "hub/remote.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct GenerateArguments {
    const char *model, *adapter_path, *system_prompt, *prompt, *prefill_response;
    const char *chat_template_config, *verbose, *prompt_cache_file, *draft_model;
    OptionList extra_eos_token;
    OptionInt max_tokens, seed, max_kv_size, kv_bits, kv_group_size, quantized_kv_start,
        num_draft_tokens;
    bool trust_remote_code, ignore_chat_template, use_default_chat_template, quantize_activations,
        json;
    SamplingArguments sampling;
} GenerateArguments;
#define ARGUMENTS GenerateArguments

static const Option option_table[] = {
    OPTION("model", NULL, MODEL, model, NULL, "MODEL",
           "model folder or hub id; absent: the one that the prompt cache was made with"),
    OPTION("prompt", "p", TEXT, prompt, "hello", "TEXT",
           "what to answer; \\n and \\t become newline and tab; - reads standard input"),
    OPTION("max-tokens", "m", INT, max_tokens, "100", "N", "tokens at most; -1: until it ends"),
    OPTION("system-prompt", NULL, TEXT, system_prompt, NULL, "TEXT", "system message before it"),
    OPTION("prefill-response", NULL, TEXT, prefill_response, NULL, "TEXT", "how the answer begins"),
    OPTION("adapter-path", NULL, TEXT, adapter_path, NULL, "DIR", "LoRA adapter"),
    OPTION("extra-eos-token", NULL, LIST, extra_eos_token, NULL, "TOKEN",
           "ids or tokens that also end the answer"),
    OPTION("ignore-chat-template", NULL, FLAG, ignore_chat_template, NULL, NULL,
           "give the prompt to the model as it is"),
    OPTION("use-default-chat-template", NULL, FLAG, use_default_chat_template, NULL, NULL,
           "accepted for mlx_lm; the folder's template is used anyway"),
    OPTION("chat-template-config", NULL, TEXT, chat_template_config, NULL, "JSON",
           "object of more variables for the template"),
    OPTION("seed", NULL, INT, seed, NULL, "N", "seed of the random numbers; absent: the clock"),
    SAMPLING_OPTIONS,
    OPTION("max-kv-size", NULL, INT, max_kv_size, NULL, "N",
           "keep the first 4 and the latest tokens, N in all"),
    OPTION("kv-bits", NULL, INT, kv_bits, NULL, "N",
           "quantise the cache to 2, 3, 4, 5, 6 or 8 bits"),
    OPTION("kv-group-size", NULL, INT, kv_group_size, "64", "N", "group size of that"),
    OPTION("quantized-kv-start", NULL, INT, quantized_kv_start, "5000", "N",
           "quantise once the cache holds N tokens"),
    OPTION("prompt-cache-file", NULL, TEXT, prompt_cache_file, NULL, "FILE",
           "go on from a saved prompt cache"),
    OPTION("draft-model", NULL, MODEL, draft_model, NULL, "MODEL",
           "small model of the same vocabulary that proposes tokens"),
    OPTION("num-draft-tokens", NULL, INT, num_draft_tokens, "3", "N", "tokens it proposes at once"),
    OPTION("quantize-activations", "qa", FLAG, quantize_activations, NULL, NULL,
           "quantise activations too; for models of mode nvfp4 or mxfp8"),
    TRUST_OPTION(trust_remote_code),
    OPTION("verbose", NULL, TEXT, verbose, "True", "BOOL", "false or f: print only the answer"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "one JSON object instead of text"),
};

/* What a run needs besides its arguments. */
typedef struct Run {
    const GenerateArguments *arguments;
    const char *folder; /* of the model */
    char *found;        /* the same, when the prompt cache named it */
    json_t *metadata;   /* of the prompt cache, or NULL */
    LmModel *model, *draft;
    LmCache *cache;
    LmSampling sampling;
    int *prompt, *stops;
    size_t prompt_length, stop_count;
    bool verbose;
    StrBuf text;       /* the whole answer, for JSON */
    json_t *token_ids; /* likewise */
    bool any_text;
} Run;

static json_t *message(const char *role, const char *content) {
    return json_pack("{s:s,s:o}", "role", role, "content", output_string(content, strlen(content)));
}

static json_t *make_messages(const GenerateArguments *arguments, const char *prompt) {
    json_t *messages = json_array();
    if (arguments->system_prompt)
        json_array_append_new(messages, message("system", arguments->system_prompt));
    json_array_append_new(messages, message("user", prompt));
    if (arguments->prefill_response)
        json_array_append_new(messages, message("assistant", arguments->prefill_response));
    return messages;
}

static bool encode(Run *run, const char *text, TextEncodeOptions how, Error *err) {
    TextIds ids = {0};
    if (!text_tokenizer_encode(lm_model_tokenizer(run->model), text, strlen(text), how, &ids, err))
        return false;
    run->prompt = ids.data;
    run->prompt_length = ids.length;
    return true;
}

/* With a saved cache only what follows the cached prefix is fed: the rendered
 * prompt from where a placeholder for the last message lands. */
static bool encode_suffix(Run *run, const json_t *messages, const LmChatOptions *chat, Error *err) {
    static const char placeholder[] = "<query>";
    char *full = lm_chat_text(run->model, messages, chat, err);
    json_t *probe = json_deep_copy(messages);
    json_t *last = json_array_get(probe, json_array_size(probe) - 1);
    json_object_set_new(last, "content", json_string(placeholder));
    char *marked = full ? lm_chat_text(run->model, probe, chat, err) : NULL;
    const char *at = marked ? strstr(marked, placeholder) : NULL;
    bool good = marked != NULL;
    if (good && (!at || (size_t)(at - marked) > strlen(full)))
        good = base_fail(err, ERROR_UNSUPPORTED,
                         "this chat template does not show the message where a cache could end");
    if (good) good = encode(run, full + (at - marked), TEXT_ENCODE_TEMPLATED, err);
    json_decref(probe);
    free(marked);
    free(full);
    return good;
}

static bool encode_prompt(Run *run, const char *prompt, Error *err) {
    const GenerateArguments *arguments = run->arguments;
    if (!lm_model_tokenizer(run->model))
        return base_fail(err, ERROR_INPUT, "%s: has no tokenizer", run->folder);
    if (arguments->ignore_chat_template || !lm_model_has_template(run->model))
        return encode(run, prompt, TEXT_ENCODE_PROMPT, err);
    json_t *variables = NULL;
    if (arguments->chat_template_config) {
        variables = input_object(arguments->chat_template_config, "--chat-template-config", err);
        if (!variables) return false;
    }
    json_t *messages = make_messages(arguments, prompt);
    LmChatOptions chat = {.template_options = variables,
                          .continue_final_message = arguments->prefill_response != NULL};
    bool good = run->cache ? encode_suffix(run, messages, &chat, err)
                           : lm_chat_prompt(run->model, messages, &chat, &run->prompt,
                                            &run->prompt_length, err);
    json_decref(messages);
    json_decref(variables);
    return good;
}

/* Each a whole number, which is an id, or a token's text. */
static bool read_stops(Run *run, Error *err) {
    OptionList list = run->arguments->extra_eos_token;
    run->stops = base_calloc(list.count + 1, sizeof *run->stops);
    /* A token that cache-prompt was told of ends the text of a model without one. */
    size_t own;
    const char *settings = json_string_value(json_object_get(run->metadata, "tokenizer_config"));
    json_t *config = settings ? json_loads(settings, 0, NULL) : NULL;
    const char *token = json_string_value(json_object_get(config, "eos_token"));
    lm_model_stop_ids(run->model, &own);
    int eos = token && own == 0 ? text_tokenizer_id(lm_model_tokenizer(run->model), token) : -1;
    if (eos >= 0) run->stops[run->stop_count++] = eos;
    json_decref(config);
    for (size_t i = 0; i < list.count; i++) {
        char *end = NULL;
        long id = strtol(list.items[i], &end, 10);
        if (end == list.items[i] || *end != '\0')
            id = text_tokenizer_id(lm_model_tokenizer(run->model), list.items[i]);
        if (id < 0 || id >= lm_model_vocab_size(run->model))
            return base_fail(err, ERROR_INPUT,
                             "--extra-eos-token: the model has no token \"%.64s\"", list.items[i]);
        run->stops[run->stop_count++] = (int)id;
    }
    return true;
}

/* The folder given, or the one that the prompt cache names; both must agree. */
static bool find_model(Run *run, Error *err) {
    const char *given = run->arguments->model, *file = run->arguments->prompt_cache_file;
    run->folder = given;
    if (!file) return true;
    run->metadata = lm_cache_metadata(file, err);
    if (!run->metadata) return false;
    const char *made_with = json_string_value(json_object_get(run->metadata, "model"));
    if (!given) {
        if (!made_with)
            return base_fail(err, ERROR_INPUT, "%s: names no model; give --model", file);
        run->folder = run->found = hub_find(made_with, err);
        return run->folder != NULL;
    }
    char *id = hub_label(given);
    bool same = !made_with || strcmp(made_with, given) == 0 || strcmp(made_with, id) == 0;
    free(id);
    return same || base_fail(err, ERROR_INPUT, "%s: was made with model %.200s, not %.200s", file,
                             made_with, given);
}

static bool open_models(Run *run, const LmCacheOptions *cache, Error *err) {
    const GenerateArguments *arguments = run->arguments;
    LmOpenOptions open = {.adapter_path = arguments->adapter_path,
                          .quantize_activations = arguments->quantize_activations};
    if (!find_model(run, err)) return false;
    run->model = lm_model_open(run->folder, &open, err);
    if (!run->model) return false;
    if (arguments->draft_model) {
        run->draft = lm_model_open(arguments->draft_model, NULL, err);
        if (!run->draft) return false;
    }
    if (!arguments->prompt_cache_file) return true;
    LmCacheOptions asked = *cache;
    if (!arguments->kv_group_size.given) asked.kv_group_size = 0;
    run->cache = lm_cache_load(run->model, arguments->prompt_cache_file, &asked, NULL, err);
    return run->cache != NULL;
}

static bool on_token(void *context, const LmToken *token) {
    Run *run = context;
    run->any_text |= token->text_length > 0;
    if (run->arguments->json) {
        base_str_append_n(&run->text, token->text, token->text_length);
        json_array_append_new(run->token_ids, json_integer(token->id));
        return true;
    }
    fwrite(token->text, 1, token->text_length, stdout);
    return fflush(stdout) == 0;
}

static bool read_options(const GenerateArguments *arguments, Run *run, LmGenerateOptions *options,
                         Error *err) {
    *options = lm_generate_defaults();
    bool good =
        sampling_read(&arguments->sampling, &run->sampling, err) &&
        sampling_int("max-tokens", arguments->max_tokens, -1, INT32_MAX, &options->max_tokens,
                     err) &&
        sampling_int("num-draft-tokens", arguments->num_draft_tokens, 1, 1024,
                     &options->num_draft_tokens, err) &&
        cache_options_read(arguments->max_kv_size, arguments->kv_bits, arguments->kv_group_size,
                           arguments->quantized_kv_start, &options->cache_options, err);
    options->sampling = run->sampling;
    options->seeded = arguments->seed.given;
    options->seed = (uint64_t)arguments->seed.value;
    options->on_token = on_token;
    options->context = run;
    return good;
}

static const char *finish_name(LmFinish finish) {
    return finish == LM_FINISH_STOP     ? "stop"
           : finish == LM_FINISH_LENGTH ? "length"
                                        : "interrupted";
}

static void print_json(Run *run, const LmStats *stats) {
    output_json(json_pack("{s:o,s:O,s:s,s:I,s:I,s:f,s:f,s:f}", "text",
                          output_string(run->text.data ? run->text.data : "", run->text.length),
                          "tokens", run->token_ids, "finish_reason", finish_name(stats->finish),
                          "prompt_tokens", (json_int_t)stats->prompt_tokens, "generation_tokens",
                          (json_int_t)stats->generated_tokens, "prompt_tps", stats->prompt_tps,
                          "generation_tps", stats->generation_tps, "peak_memory", stats->peak_gb));
}

static void print_end(const Run *run, const LmStats *stats) {
    putchar('\n');
    if (!run->verbose) return;
    puts("==========");
    if (!run->any_text) {
        puts("No text generated for this prompt");
        return;
    }
    printf("Prompt: %zu tokens, %.3f tokens-per-sec\n", stats->prompt_tokens, stats->prompt_tps);
    printf("Generation: %zu tokens, %.3f tokens-per-sec\n", stats->generated_tokens,
           stats->generation_tps);
    printf("Peak memory: %.3f GB\n", stats->peak_gb);
}

static bool generate(Run *run, const char *prompt, Error *err) {
    LmGenerateOptions options;
    if (!read_options(run->arguments, run, &options, err) ||
        !open_models(run, &options.cache_options, err) || !encode_prompt(run, prompt, err) ||
        !read_stops(run, err))
        return false;
    options.cache = run->cache;
    options.draft = run->draft;
    options.stop_ids = run->stops;
    options.n_stop_ids = run->stop_count;
    run->token_ids = json_array();
    bool plain = !run->arguments->json;
    if (plain && run->verbose) puts("==========");
    LmStats stats = {0};
    if (!lm_generate(run->model, run->prompt, run->prompt_length, &options, &stats, err))
        return false;
    if (plain)
        print_end(run, &stats);
    else
        print_json(run, &stats);
    return true;
}

static int run_generate(const void *given, Error *err) {
    const GenerateArguments *arguments = given;
    Run run = {.arguments = arguments,
               .verbose = strcasecmp(arguments->verbose, "false") != 0 &&
                          strcasecmp(arguments->verbose, "f") != 0};
    if (!arguments->model && !arguments->prompt_cache_file) {
        base_fail(err, ERROR_INPUT, "generate: --model is required");
        base_hint(err, "See mlx-rag generate --help");
        return 2;
    }
    char *prompt = strcmp(arguments->prompt, "-") == 0 ? input_stdin(NULL, err)
                                                       : input_unescape(arguments->prompt);
    bool done = prompt && generate(&run, prompt, err);
    free(prompt);
    free(run.prompt);
    free(run.stops);
    json_decref(run.token_ids);
    json_decref(run.metadata);
    free(run.found);
    base_str_free(&run.text);
    sampling_free(&run.sampling);
    lm_cache_free(run.cache);
    lm_model_close(run.draft);
    lm_model_close(run.model);
    if (done && base_interrupted()) return 130;
    return done ? 0 : 1;
}

const Command generate_command = {.name = "generate",
                                  .summary = "Answers a prompt with a language model.",
                                  OPTIONS(option_table),
                                  .arguments_size = sizeof(GenerateArguments),
                                  .run = run_generate};
