/* template: the prompt that a conversation becomes. */
#include "cli/commands.h"

#include <stdlib.h>
#include <string.h>

typedef struct TemplateArguments {
    const char *model, *messages, *tools, *documents, *chat_template_config, *name;
    bool no_generation_prompt, continue_final_message, json, tokenize, source;
} TemplateArguments;
#define ARGUMENTS TemplateArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "model folder or hub id"),
    OPTION("tools", NULL, TEXT, tools, NULL, "FILE", "JSON list of the tools it may call"),
    OPTION("documents", NULL, TEXT, documents, NULL, "FILE", "JSON list of documents"),
    OPTION("chat-template-config", NULL, TEXT, chat_template_config, NULL, "JSON",
           "object of more variables for the template"),
    OPTION("name", NULL, TEXT, name, NULL, "NAME", "which of several templates"),
    OPTION("no-generation-prompt", NULL, FLAG, no_generation_prompt, NULL, NULL,
           "end after the last message"),
    OPTION("continue-final-message", NULL, FLAG, continue_final_message, NULL, NULL,
           "leave the last message open"),
    OPTION("tokenize", NULL, FLAG, tokenize, NULL, NULL, "print token ids instead of text"),
    OPTION("source", NULL, FLAG, source, NULL, NULL, "print the template itself"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object"),
    POSITIONAL("MESSAGES", TEXT, messages, false,
               "JSON file: a list of messages, or an object with messages and tools; "
               "standard input when absent or -"),
};

static bool print_prompt(const TemplateArguments *arguments, const char *prompt, Error *err) {
    TextIds ids = {0};
    json_t *list = NULL;
    if (arguments->tokenize) {
        TextTokenizer *tokenizer = text_tokenizer_open(arguments->model, err);
        bool good = tokenizer && text_tokenizer_encode(tokenizer, prompt, strlen(prompt),
                                                       TEXT_ENCODE_TEMPLATED, &ids, err);
        text_tokenizer_free(tokenizer);
        if (!good) return false;
        list = json_array();
        for (size_t i = 0; i < ids.length; i++)
            json_array_append_new(list, json_integer(ids.data[i]));
    }
    if (arguments->json) {
        json_t *out = json_pack("{s:o}", "text", output_string(prompt, strlen(prompt)));
        if (list) json_object_set(out, "ids", list);
        output_json(out);
    } else if (list) {
        for (size_t i = 0; i < ids.length; i++) printf("%s%d", i ? " " : "", (int)ids.data[i]);
        putchar('\n');
    } else {
        fputs(prompt, stdout);
    }
    json_decref(list);
    text_ids_free(&ids);
    return true;
}

/* What the conversation consists of; all references are our own. */
typedef struct Inputs {
    json_t *root, *tools, *documents, *variables;
} Inputs;

static bool read_inputs(const TemplateArguments *arguments, Inputs *inputs, Error *err) {
    inputs->root = input_json(arguments->messages ? arguments->messages : "-", err);
    if (!inputs->root) return false;
    if (arguments->tools && !(inputs->tools = input_json(arguments->tools, err))) return false;
    if (arguments->documents && !(inputs->documents = input_json(arguments->documents, err)))
        return false;
    if (arguments->chat_template_config &&
        !(inputs->variables =
              input_object(arguments->chat_template_config, "--chat-template-config", err)))
        return false;
    return true;
}

static bool render_inputs(const TemplateArguments *arguments, const TextChatTemplate *chat,
                          const Inputs *inputs, Error *err) {
    bool wrapped = json_is_object(inputs->root);
    const json_t *messages = wrapped ? json_object_get(inputs->root, "messages") : inputs->root;
    if (!json_is_array(messages))
        return base_fail(err, ERROR_INPUT, "the messages must be a JSON list");
    TextChat request = {
        .messages = messages,
        .tools = inputs->tools ? inputs->tools : json_object_get(inputs->root, "tools"),
        .documents =
            inputs->documents ? inputs->documents : json_object_get(inputs->root, "documents"),
        .variables = inputs->variables,
        .name = arguments->name,
        .add_generation_prompt =
            !arguments->no_generation_prompt && !arguments->continue_final_message,
        .continue_final_message = arguments->continue_final_message,
    };
    char *prompt = text_chat_render(chat, &request, NULL, err);
    bool good = prompt && print_prompt(arguments, prompt, err);
    free(prompt);
    return good;
}

static bool render(const TemplateArguments *arguments, const TextChatTemplate *chat, Error *err) {
    Inputs inputs = {0};
    bool good =
        read_inputs(arguments, &inputs, err) && render_inputs(arguments, chat, &inputs, err);
    json_decref(inputs.root);
    json_decref(inputs.tools);
    json_decref(inputs.documents);
    json_decref(inputs.variables);
    return good;
}

static bool print_source(const TemplateArguments *arguments, const TextChatTemplate *chat,
                         Error *err) {
    const char *source =
        text_chat_template_source(chat, arguments->name, arguments->tools != NULL, err);
    if (source) fputs(source, stdout);
    return source != NULL;
}

static int run(const void *given, Error *err) {
    const TemplateArguments *arguments = given;
    TextChatTemplate *chat = text_chat_template_open(arguments->model, err);
    bool done = chat != NULL;
    if (done && !text_chat_template_has(chat, NULL))
        done = base_fail(err, ERROR_UNSUPPORTED, "%s: has no chat template", arguments->model);
    if (done)
        done =
            arguments->source ? print_source(arguments, chat, err) : render(arguments, chat, err);
    text_chat_template_free(chat);
    return done ? 0 : 1;
}

const Command template_command = {.name = "template",
                                  .summary = "Renders a conversation with a model's chat template.",
                                  OPTIONS(option_table),
                                  .arguments_size = sizeof(TemplateArguments),
                                  .run = run};
