/* template: chat templates, from a conversation to the prompt a model was
 * trained on.
 *
 * Two layers. A TextTemplate is a Jinja template, rendered as jinja2 renders
 * it in the sandbox that Hugging Face's apply_chat_template sets up (trim and
 * lstrip of blocks, break and continue, the generation tag, tojson without
 * HTML escapes, raise_exception, strftime_now). A TextChatTemplate is the set
 * of templates and special tokens of one model folder, and knows which
 * template a conversation needs.
 *
 *     Error err = {0};
 *     TextChatTemplate *chat = text_chat_template_open("model/", &err);
 *     TextChat request = {.messages = messages, .add_generation_prompt = true};
 *     char *prompt = text_chat_render(chat, &request, NULL, &err);
 *
 * Templates and conversations may be hostile: every render is bounded in
 * operations, memory, depth and output. Values are UTF-8; a parsed template
 * is read-only and may be rendered by several threads at once. */
#ifndef TEXT_TEMPLATE_H
#define TEXT_TEMPLATE_H

#include <time.h>

#include "base/base.h"

/* ---- Jinja -------------------------------------------------------------- */

typedef struct TextTemplate TextTemplate;

/* Bytes [start, end) of the output that the template marked as the
 * assistant's with {% generation %}. */
typedef struct TextTemplateSpan {
    size_t start, end;
} TextTemplateSpan;

/* What a render reports besides the text. Start with {0}. */
typedef struct TextTemplateReport {
    size_t length;           /* bytes of the text; it may hold NUL bytes */
    TextTemplateSpan *spans; /* in order of appearance; freed by text_template_report_free */
    size_t n_spans;
} TextTemplateReport;
void text_template_report_free(TextTemplateReport *report);

/* All fields may be zero. Borrowed for the call. */
typedef struct TextTemplateOptions {
    const struct tm *now;       /* what strftime_now prints; NULL: the local time */
    size_t max_output;          /* bytes; 0: 64 MiB */
    size_t max_memory;          /* bytes of values; 0: 512 MiB */
    uint64_t max_operations;    /* evaluation steps; 0: 50 million */
    TextTemplateReport *report; /* filled on success when not NULL */
} TextTemplateOptions;

/* Parses a template. NULL and *err, with the line, on a syntax error:
 * "template: line 3: Encountered unknown tag 'foo'.". The source is copied.
 * Free with text_template_free (NULL is accepted). */
TextTemplate *text_template_parse(const char *source, size_t length, Error *err);
void text_template_free(TextTemplate *parsed);

/* Renders with the members of `variables` (a JSON object, borrowed; NULL:
 * none) as the template's variables. `options` may be NULL. The text is
 * NUL-terminated; caller frees with free. NULL and *err on failure; the
 * message has jinja2's words, after the line:
 * "template: line 3: UndefinedError: 'x' is undefined". A failure that the
 * template itself raised with raise_exception reads
 * "template: line 3: TemplateError: MESSAGE". */
char *text_template_render(const TextTemplate *parsed, const json_t *variables,
                           const TextTemplateOptions *options, Error *err);

/* ---- chat --------------------------------------------------------------- */

typedef struct TextChatTemplate TextChatTemplate;

/* One conversation to render. Everything is borrowed; NULL is absent. */
typedef struct TextChat {
    const json_t *messages;  /* array of objects with role and content; not empty */
    const json_t *tools;     /* array of JSON schemas; absent: None in the template */
    const json_t *documents; /* array of objects; absent: None in the template */
    const json_t *variables; /* object: more variables, they win over special tokens */
    const char *name;        /* which of several templates, or NULL: see below */
    bool add_generation_prompt;
    /* Leave the last message open, so that a model continues it. Not together
     * with add_generation_prompt. */
    bool continue_final_message;
    const char *continue_field; /* the field to continue; NULL: "content" */
} TextChat;

/* Reads the templates of a model folder: chat_template.jinja and
 * additional_chat_templates/NAME.jinja; without chat_template.jinja the
 * chat_template of tokenizer_config.json (a string, or a list of {name,
 * template}). bos_token, eos_token and the like come from
 * tokenizer_config.json; special_tokens_map.json overrides it unless it lists
 * added_tokens_decoder. A folder without any template opens;
 * text_chat_template_has tells. A template that does not parse fails when it
 * is used. Free with text_chat_template_free (NULL is accepted). */
TextChatTemplate *text_chat_template_open(const char *folder, Error *err);

/* From a template's source, with special tokens as a JSON object such as
 * {"bos_token": "<s>"} (borrowed, NULL: none).
 * NULL and *err when it does not parse. */
TextChatTemplate *text_chat_template_new(const char *source, size_t length,
                                         const json_t *special_tokens, Error *err);
void text_chat_template_free(TextChatTemplate *chat);

/* Whether a template of that name is there; NULL asks for any at all. */
bool text_chat_template_has(const TextChatTemplate *chat, const char *name);
/* The source that a conversation would use, for display (borrowed), or NULL
 * and *err. With several templates: `name`, else "tool_use" when there are
 * tools, else "default". */
const char *text_chat_template_source(const TextChatTemplate *chat, const char *name,
                                      bool with_tools, Error *err);
/* The special tokens that templates see: {"bos_token": "<s>", ...}. Borrowed. */
const json_t *text_chat_template_special_tokens(const TextChatTemplate *chat);

/* The prompt, exactly as transformers' apply_chat_template(tokenize=False)
 * gives it: members of a message that are null are left out, and a message's
 * reasoning is visible as reasoning_content and thinking. Caller frees with
 * free; NULL and *err on failure. An empty conversation is an error. Encode it
 * without adding special tokens. `options` may be NULL. */
char *text_chat_render(const TextChatTemplate *chat, const TextChat *request,
                       const TextTemplateOptions *options, Error *err);

#endif
