/* chat: a conversation in the terminal. As in mlx_lm.chat the model's cache is
 * the memory of the conversation: each turn adds only the new message. */
#include "cli/commands.h"
#include "cli/line.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

typedef struct ChatArguments {
    const char *model, *adapter_path, *system_prompt, *chat_template_config;
    OptionInt max_tokens, seed, max_kv_size;
    bool trust_remote_code, pipeline, json;
    SamplingArguments sampling;
} ChatArguments;
#define ARGUMENTS ChatArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "model folder or hub id"),
    OPTION("adapter-path", NULL, TEXT, adapter_path, NULL, "DIR", "LoRA adapter"),
    OPTION("system-prompt", NULL, TEXT, system_prompt, NULL, "TEXT", "system message"),
    OPTION("max-tokens", "m", INT, max_tokens, "256", "N", "tokens of an answer at most"),
    OPTION("max-kv-size", NULL, INT, max_kv_size, NULL, "N",
           "keep the first 4 and the latest tokens, N in all"),
    OPTION("seed", NULL, INT, seed, "0", "N", "seed of the random numbers"),
    SAMPLING_OPTIONS,
    OPTION("chat-template-config", NULL, TEXT, chat_template_config, NULL, "JSON",
           "object of more variables for the template"),
    TRUST_OPTION(trust_remote_code),
    OPTION("pipeline", NULL, FLAG, pipeline, NULL, NULL,
           "accepted for mlx_lm; one machine holds the whole model"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "a JSON object for each answer"),
};

typedef struct Chat {
    const ChatArguments *arguments;
    LmModel *model;
    LmCache *cache;
    LmGenerateOptions options;
    json_t *variables;
    bool terminal; /* a person is typing */
    StrBuf answer;
    LineReader *lines;
} Chat;

/* ---- the screen -------------------------------------------------------------------- */

static int screen_width(void) {
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 80;
    return BASE_MIN((int)size.ws_col, 100);
}

static void rule(const char *left, const char *middle, const char *right, int width) {
    fputs(left, stdout);
    for (int i = 0; i < width - 2; i++) fputs(middle, stdout);
    puts(right);
}

static void panel_row(const char *title, const char *value, int width) {
    enum { LIMIT = 60, KEPT = 57 };
    char shown[256];
    size_t kept = strlen(value);
    bool cut = kept > LIMIT;
    if (cut)
        for (kept = KEPT; kept > 0 && ((unsigned char)value[kept] & 0xc0) == 0x80; kept--) continue;
    snprintf(shown, sizeof shown, "%.*s%s", (int)kept, value, cut ? "..." : "");
    int columns = 0;
    for (const char *at = shown; *at; at++) columns += ((unsigned char)*at & 0xc0) != 0x80;
    int fill = width - 4 - 12 - columns;
    printf("│ %-12s%s%*s │\n", title, shown, fill > 0 ? fill : 0, "");
}

static void print_help(void) {
    puts("commands    q exit   r reset   h help");
}

static void print_panel(const ChatArguments *arguments) {
    int width = BASE_MIN(screen_width(), 80);
    char limit[32];
    snprintf(limit, sizeof limit, "%lld", (long long)arguments->max_tokens.value);
    rule("╭", "─", "╮", width);
    panel_row("mlx-rag chat", "", width);
    panel_row("model", arguments->model, width);
    if (arguments->adapter_path) panel_row("adapter", arguments->adapter_path, width);
    panel_row("max tokens", limit, width);
    if (arguments->system_prompt) panel_row("system", arguments->system_prompt, width);
    rule("╰", "─", "╯", width);
    print_help();
}

/* ---- a turn ------------------------------------------------------------------------------ */

static bool on_token(void *context, const LmToken *token) {
    Chat *chat = context;
    if (chat->arguments->json) {
        base_str_append_n(&chat->answer, token->text, token->text_length);
        return true;
    }
    fwrite(token->text, 1, token->text_length, stdout);
    return fflush(stdout) == 0;
}

static void end_turn(Chat *chat, const LmStats *stats) {
    if (chat->arguments->json) {
        output_json(json_pack(
            "{s:o,s:I,s:I,s:f,s:f}", "text",
            output_string(chat->answer.data ? chat->answer.data : "", chat->answer.length),
            "prompt_tokens", (json_int_t)stats->prompt_tokens, "generation_tokens",
            (json_int_t)stats->generated_tokens, "generation_tps", stats->generation_tps,
            "peak_memory", stats->peak_gb));
        base_str_free(&chat->answer);
        return;
    }
    printf("\n\n  %zu tokens · %.1f tok/s · prompt %.1f tok/s · peak %.2f GB\n",
           stats->generated_tokens, stats->generation_tps, stats->prompt_tps, stats->peak_gb);
}

static bool answer(Chat *chat, const char *line, Error *err) {
    json_t *messages = json_array();
    const char *system = chat->arguments->system_prompt;
    if (system)
        json_array_append_new(messages, json_pack("{s:s,s:o}", "role", "system", "content",
                                                  output_string(system, strlen(system))));
    json_array_append_new(messages, json_pack("{s:s,s:o}", "role", "user", "content",
                                              output_string(line, strlen(line))));
    LmChatOptions how = {.template_options = chat->variables};
    int *ids = NULL;
    size_t count = 0;
    bool good = lm_chat_prompt(chat->model, messages, &how, &ids, &count, err);
    json_decref(messages);
    LmStats stats = {0};
    if (good) good = lm_generate(chat->model, ids, count, &chat->options, &stats, err);
    if (good) end_turn(chat, &stats);
    free(ids);
    return good;
}

static bool talk(Chat *chat, Error *err) {
    bool plain = !chat->arguments->json;
    int width = screen_width();
    for (;;) {
        if (chat->terminal) rule("─", "─", "─", width);
        char *line = line_read(chat->lines);
        if (!line || base_interrupted() || strcmp(line, "q") == 0) {
            free(line);
            break;
        }
        bool good = true;
        if (strcmp(line, "r") == 0) {
            lm_cache_clear(chat->cache);
            if (plain) puts("reset context cleared");
        } else if (strcmp(line, "h") == 0) {
            print_help();
        } else if (*line) {
            if (chat->terminal) rule("─", "─", "─", width);
            good = answer(chat, line, err);
        }
        free(line);
        if (!good) return false;
        if (base_interrupted()) break;
    }
    if (plain) puts("bye");
    return true;
}

static bool prepare(Chat *chat, Error *err) {
    const ChatArguments *arguments = chat->arguments;
    if (arguments->pipeline && arguments->adapter_path)
        return base_fail(err, ERROR_INPUT, "--pipeline and --adapter-path do not go together");
    chat->options = lm_generate_defaults();
    LmCacheOptions cache = {0};
    if (!sampling_read(&arguments->sampling, &chat->options.sampling, err) ||
        !sampling_int("max-tokens", arguments->max_tokens, -1, INT32_MAX, &chat->options.max_tokens,
                      err) ||
        !sampling_int("max-kv-size", arguments->max_kv_size, 0, INT32_MAX, &cache.max_size, err))
        return false;
    if (arguments->chat_template_config &&
        !(chat->variables =
              input_object(arguments->chat_template_config, "--chat-template-config", err)))
        return false;
    LmOpenOptions open = {.adapter_path = arguments->adapter_path};
    chat->model = lm_model_open(arguments->model, &open, err);
    if (chat->model) chat->cache = lm_cache_new(chat->model, &cache, err);
    chat->options.cache = chat->cache;
    chat->options.seeded = true;
    chat->options.seed = (uint64_t)arguments->seed.value;
    chat->options.on_token = on_token;
    chat->options.context = chat;
    return chat->cache != NULL;
}

static int run(const void *given, Error *err) {
    const ChatArguments *arguments = given;
    Chat chat = {.arguments = arguments,
                 .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !arguments->json};
    bool good = prepare(&chat, err);
    if (good) {
        if (!arguments->json) print_panel(arguments);
        chat.lines = line_open(chat.terminal);
        good = talk(&chat, err);
    }
    line_close(chat.lines);
    base_str_free(&chat.answer);
    sampling_free(&chat.options.sampling);
    json_decref(chat.variables);
    lm_cache_free(chat.cache);
    lm_model_close(chat.model);
    return good ? 0 : 1;
}

const Command chat_command = {.name = "chat",
                              .summary = "A conversation with a language model.",
                              .details = "Type q to leave, r to begin anew, h for help.",
                              OPTIONS(option_table),
                              .arguments_size = sizeof(ChatArguments),
                              .run = run};
