/* template_chat: a model folder's chat templates and special tokens, and the
 * rendering of a conversation as transformers' apply_chat_template does it:
 * which template, which variables, what is done to the messages before, and
 * the open last message of continue_final_message. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

typedef struct Entry {
    char *name, *source;
    size_t length;
    TextTemplate *parsed; /* NULL: `error` says why, once it is used */
    Error error;
} Entry;

struct TextChatTemplate {
    Entry *entries;
    size_t count, capacity;
    json_t *special;
};

static const char continue_tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";
static const char *const reasoning_fields[] = {"reasoning_content", "thinking", "reasoning"};

/* ---- the templates of a folder ------------------------------------------------------ */

static const Entry *find_entry(const TextChatTemplate *chat, const char *name) {
    for (size_t i = 0; i < chat->count; i++)
        if (strcmp(chat->entries[i].name, name) == 0) return &chat->entries[i];
    return NULL;
}

static Entry *add_entry(TextChatTemplate *chat, const char *name, const char *source,
                        size_t length) {
    chat->entries =
        base_grow(chat->entries, &chat->capacity, chat->count + 1, sizeof *chat->entries);
    Entry *entry = &chat->entries[chat->count++];
    *entry = (Entry){
        .name = base_strdup(name), .source = base_strndup(source, length), .length = length};
    entry->parsed = text_template_parse(source, length, &entry->error);
    return entry;
}

static bool add_file(TextChatTemplate *chat, const char *name, const char *path, Error *err) {
    char *source = NULL;
    size_t length = 0;
    if (!base_file_read(path, &source, &length, err)) return false;
    add_entry(chat, name, source, length);
    free(source);
    return true;
}

static bool add_default_file(TextChatTemplate *chat, const char *folder, Error *err) {
    char *path = base_path_join(folder, "chat_template.jinja");
    bool ok = !base_is_file(path) ||
              (base_path_inside(folder, path, err) && add_file(chat, "default", path, err));
    free(path);
    return ok;
}

static bool add_more_files(TextChatTemplate *chat, const char *folder, Error *err) {
    char *path = base_path_join(folder, "additional_chat_templates");
    char **names = NULL;
    size_t count = 0;
    bool ok = !base_is_dir(path) || base_list_dir(path, &names, &count, err);
    for (size_t i = 0; i < count; i++) {
        if (ok && base_ends_with(names[i], ".jinja")) {
            char *file = base_path_join(path, names[i]);
            char *name = base_strndup(names[i], strlen(names[i]) - strlen(".jinja"));
            ok = base_path_inside(folder, file, err) && add_file(chat, name, file, err);
            free(name);
            free(file);
        }
        free(names[i]);
    }
    free(names);
    free(path);
    return ok;
}

static bool add_from_config(TextChatTemplate *chat, const json_t *config, Error *err) {
    const json_t *value = json_object_get(config, "chat_template");
    if (!value || json_is_null(value)) return true;
    if (json_is_string(value)) {
        add_entry(chat, "default", json_string_value(value), json_string_length(value));
        return true;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const json_t *name = json_object_get(item, "name"),
                     *source = json_object_get(item, "template");
        if (!json_is_string(name) || !json_is_string(source))
            return base_fail(
                err, ERROR_INPUT,
                "tokenizer_config.json: chat_template[%zu] wants the strings name and template", i);
        if (!find_entry(chat, json_string_value(name)))
            add_entry(chat, json_string_value(name), json_string_value(source),
                      json_string_length(source));
    }
    if (!json_is_array(value))
        return base_fail(err, ERROR_INPUT,
                         "tokenizer_config.json: chat_template is neither a string nor a list");
    return true;
}

/* Every "..._token" that is a string, or an object with its content. */
static void add_special_tokens(TextChatTemplate *chat, const json_t *from) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)from, key, value) {
        if (!base_ends_with(key, "_token")) continue;
        json_t *text = json_is_object(value) ? json_object_get(value, "content") : value;
        if (json_is_string(text)) json_object_set(chat->special, key, text);
    }
}

static bool load_json(const char *folder, const char *name, json_t **json, Error *err) {
    char *path = base_path_join(folder, name);
    *json = !base_path_inside(folder, path, err) ? NULL
            : base_is_file(path)                 ? base_json_load(path, err)
                                                 : json_object();
    free(path);
    if (*json && !json_is_object(*json)) {
        json_decref(*json);
        *json = NULL;
        return base_fail(err, ERROR_INPUT, "%s/%s: not a JSON object", folder, name);
    }
    return *json != NULL;
}

/* special_tokens_map.json is the older file: it counts only while the config
 * does not list the added tokens itself. */
static bool read_config(TextChatTemplate *chat, const char *folder, Error *err) {
    json_t *config = NULL, *map = NULL;
    if (!load_json(folder, "tokenizer_config.json", &config, err)) return false;
    add_special_tokens(chat, config);
    bool ok = true;
    if (!json_object_get(config, "added_tokens_decoder")) {
        ok = load_json(folder, "special_tokens_map.json", &map, err);
        if (ok) add_special_tokens(chat, map);
        json_decref(map);
    }
    if (ok && chat->count == 0) ok = add_from_config(chat, config, err);
    json_decref(config);
    return ok;
}

TextChatTemplate *text_chat_template_open(const char *folder, Error *err) {
    TextChatTemplate *chat = base_calloc(1, sizeof *chat);
    chat->special = json_object();
    if (add_default_file(chat, folder, err) && add_more_files(chat, folder, err) &&
        read_config(chat, folder, err))
        return chat;
    text_chat_template_free(chat);
    return NULL;
}

TextChatTemplate *text_chat_template_new(const char *source, size_t length,
                                         const json_t *special_tokens, Error *err) {
    TextChatTemplate *chat = base_calloc(1, sizeof *chat);
    chat->special = json_object();
    if (special_tokens) add_special_tokens(chat, special_tokens);
    const Entry *entry = add_entry(chat, "default", source, length);
    if (entry->parsed) return chat;
    base_fail(err, entry->error.code, "%s", entry->error.message);
    text_chat_template_free(chat);
    return NULL;
}

void text_chat_template_free(TextChatTemplate *chat) {
    if (!chat) return;
    for (size_t i = 0; i < chat->count; i++) {
        text_template_free(chat->entries[i].parsed);
        free(chat->entries[i].name);
        free(chat->entries[i].source);
    }
    free(chat->entries);
    json_decref(chat->special);
    free(chat);
}

bool text_chat_template_has(const TextChatTemplate *chat, const char *name) {
    return name ? find_entry(chat, name) != NULL : chat->count > 0;
}

const json_t *text_chat_template_special_tokens(const TextChatTemplate *chat) {
    return chat->special;
}

static const Entry *choose(const TextChatTemplate *chat, const char *name, bool with_tools,
                           Error *err) {
    const Entry *entry = NULL;
    if (chat->count == 0) {
        base_fail(err, ERROR_INPUT, "the model has no chat template");
        base_hint(
            err,
            "It is not a chat model, or chat_template.jinja is missing; give a template yourself.");
        return NULL;
    }
    if (name)
        entry = find_entry(chat, name);
    else if (with_tools)
        entry = find_entry(chat, "tool_use");
    if (!entry && !name) entry = find_entry(chat, "default");
    if (entry) return entry;
    StrBuf names = {0};
    for (size_t i = 0; i < chat->count; i++)
        base_str_appendf(&names, "%s%s", i ? ", " : "", chat->entries[i].name);
    if (name)
        base_fail(err, ERROR_INPUT, "the model has no chat template named '%s'", name);
    else
        base_fail(err, ERROR_INPUT, "the model has several chat templates and none is the default");
    base_hint(err, "Its templates are: %s", names.data);
    base_str_free(&names);
    return NULL;
}

const char *text_chat_template_source(const TextChatTemplate *chat, const char *name,
                                      bool with_tools, Error *err) {
    const Entry *entry = choose(chat, name, with_tools, err);
    return entry ? entry->source : NULL;
}

/* ---- messages --------------------------------------------------------------------------- */

static bool is_present(const json_t *value) {
    return value && !json_is_null(value);
}

/* A copy of a message without its null members, its reasoning visible under
 * the names that templates of different ages read. */
static json_t *message_copy(const json_t *message) {
    json_t *copy = json_object(), *reasoning = NULL;
    const char *key;
    json_t *value;
    for (size_t i = 0; i < BASE_COUNT(reasoning_fields) && !is_present(reasoning); i++)
        reasoning = json_object_get(message, reasoning_fields[i]);
    if (is_present(reasoning)) json_object_set(copy, "thinking", reasoning);
    json_object_foreach((json_t *)message, key, value) if (!json_is_null(value))
        json_object_set(copy, key, value);
    if (is_present(reasoning)) json_object_set(copy, "reasoning_content", reasoning);
    return copy;
}

static json_t *messages_copy(const json_t *messages, Error *err) {
    if (!json_is_array(messages)) {
        base_fail(err, ERROR_INPUT, "the conversation is not a list of messages");
        return NULL;
    }
    if (json_array_size(messages) == 0) {
        base_fail(
            err, ERROR_INPUT,
            "Cannot apply chat template to an empty conversation. Provide at least one message.");
        return NULL;
    }
    json_t *copy = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message)) {
            base_fail(err, ERROR_INPUT, "messages[%zu] is not an object with role and content", i);
            json_decref(copy);
            return NULL;
        }
        json_array_append_new(copy, message_copy(message));
    }
    return copy;
}

static json_t *tagged(const json_t *text) {
    StrBuf buffer = {0};
    base_str_append_n(&buffer, json_string_value(text), json_string_length(text));
    base_str_append(&buffer, continue_tag);
    json_t *result = json_stringn(buffer.data, buffer.length);
    base_str_free(&buffer);
    return result;
}

/* Appends the tag to every field that holds the text to continue. */
static bool tag_fields(json_t *message, const char *field, const json_t *text, const char *source,
                       Error *err) {
    bool accepted = false, reasoning = false;
    for (size_t i = 0; i < BASE_COUNT(reasoning_fields); i++)
        reasoning |= strcmp(field, reasoning_fields[i]) == 0;
    json_t *replacement = tagged(text);
    if (!reasoning) {
        accepted = strstr(source, field) != NULL;
        json_object_set(message, field, replacement);
    }
    for (size_t i = 0; reasoning && i < BASE_COUNT(reasoning_fields); i++) {
        if (!json_equal(json_object_get(message, reasoning_fields[i]), text)) continue;
        accepted |= strstr(source, reasoning_fields[i]) != NULL;
        json_object_set(message, reasoning_fields[i], replacement);
    }
    json_decref(replacement);
    if (accepted) return true;
    return base_fail(err, ERROR_INPUT,
                     "continue_final_message is set to \"%s\" but this is not an accepted field in "
                     "the chat_template",
                     field);
}

/* Of content in blocks, the last text. */
static bool tag_block(json_t *message, const char *field, json_t *blocks, const char *source,
                      json_t **text, Error *err) {
    if (!strstr(source, field))
        return base_fail(
            err, ERROR_INPUT,
            "continue_final_message is set to \"%s\" but this is not an accepted field in the "
            "chat_template",
            field);
    json_t *copy = json_deep_copy(blocks);
    json_object_set_new(message, field, copy);
    for (size_t i = json_array_size(copy); i-- > 0;) {
        json_t *block = json_array_get(copy, i), *old = json_object_get(block, "text");
        if (!json_is_string(old)) continue;
        *text = json_incref(old);
        json_object_set_new(block, "text", tagged(old));
        return true;
    }
    return base_fail(err, ERROR_INPUT,
                     "continue_final_message is set but we could not find any text to continue in "
                     "the final message!");
}

/* Tags the last message; *text is what it continues (caller json_decref's). */
static bool tag_last(json_t *messages, const char *field, const char *source, json_t **text,
                     Error *err) {
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    json_t *value = json_object_get(last, field);
    if (!value)
        return base_fail(
            err, ERROR_INPUT,
            "continue_final_message is set but the final message has no \"%s\" to continue!",
            field);
    if (json_is_array(value)) return tag_block(last, field, value, source, text, err);
    if (!json_is_string(value))
        return base_fail(err, ERROR_INPUT,
                         "the final message's \"%s\" is not text that can be continued", field);
    *text = json_incref(value);
    return tag_fields(last, field, *text, source, err);
}

static size_t strip_right(const char *text, size_t length) {
    uint32_t point;
    while (length > 0) {
        size_t start = length - 1;
        while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
        base_utf8_decode(text + start, length - start, &point, NULL);
        if (!jinja_is_space(point)) break;
        length = start;
    }
    return length;
}

static size_t spaces_left(const char *text, size_t length) {
    uint32_t point;
    size_t at = 0;
    while (at < length) {
        size_t n = base_utf8_decode(text + at, length - at, &point, NULL);
        if (!jinja_is_space(point)) break;
        at += n;
    }
    return at;
}

/* Cuts the prompt at the last tag. A template that trimmed the tag's own blank
 * trims its text, so the blanks before the tag go too. */
static bool cut_at_tag(char *prompt, size_t *length, const json_t *text, Error *err) {
    const char *message = json_string_value(text);
    size_t message_length = strip_right(message, json_string_length(text));
    size_t skipped = spaces_left(message, message_length), tag_length = sizeof continue_tag - 2,
           at = *length;
    message_length -= skipped;
    bool found =
        message_length == 0 || memmem(prompt, *length, message + skipped, message_length) != NULL;
    while (at > 0 &&
           (*length - at < tag_length || memcmp(prompt + at, continue_tag, tag_length) != 0))
        at--;
    if (!found || *length - at < tag_length || memcmp(prompt + at, continue_tag, tag_length) != 0)
        return base_fail(
            err, ERROR_INPUT,
            "continue_final_message is set but the final message does not appear in the chat after "
            "applying the chat template! This can happen if the chat template deletes portions of "
            "the "
            "final message.");
    bool kept_blank = *length - at > tag_length && prompt[at + tag_length] == ' ';
    *length = kept_blank ? at : strip_right(prompt, at);
    prompt[*length] = 0;
    return true;
}

/* ---- rendering ------------------------------------------------------------------------------ */

static bool check_objects(const json_t *list, const char *what, Error *err) {
    if (!is_present(list)) return true;
    if (!json_is_array(list)) return base_fail(err, ERROR_INPUT, "%s is not a list", what);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_object(json_array_get(list, i)))
            return base_fail(err, ERROR_INPUT, "%s[%zu] is not an object", what, i);
    return true;
}

static void set_or_null(json_t *object, const char *key, const json_t *value) {
    if (is_present(value))
        json_object_set(object, key, (json_t *)value);
    else
        json_object_set_new(object, key, json_null());
}

static json_t *variables_of(const TextChatTemplate *chat, const TextChat *request,
                            json_t *messages) {
    json_t *variables = json_copy(chat->special);
    if (request->variables) json_object_update(variables, (json_t *)request->variables);
    json_object_set(variables, "messages", messages);
    set_or_null(variables, "tools", request->tools);
    set_or_null(variables, "documents", request->documents);
    json_object_set_new(variables, "add_generation_prompt",
                        json_boolean(request->add_generation_prompt));
    return variables;
}

static bool check_request(const TextChat *request, Error *err) {
    if (request->continue_final_message && request->add_generation_prompt)
        return base_fail(err, ERROR_INPUT,
                         "continue_final_message and add_generation_prompt are not compatible: one "
                         "continues the "
                         "final message, the other starts a new one");
    if (request->variables && !json_is_object(request->variables))
        return base_fail(err, ERROR_INPUT, "the template variables are not a JSON object");
    return check_objects(request->tools, "tools", err) &&
           check_objects(request->documents, "documents", err);
}

static char *render(const TextChatTemplate *chat, const Entry *entry, const TextChat *request,
                    json_t *messages, const TextTemplateOptions *options, Error *err) {
    const char *field = request->continue_field ? request->continue_field : "content";
    json_t *text = NULL;
    char *prompt = NULL;
    TextTemplateReport own = {0};
    TextTemplateOptions used = options ? *options : (TextTemplateOptions){0};
    if (!used.report) used.report = &own;
    if (!request->continue_final_message || tag_last(messages, field, entry->source, &text, err)) {
        json_t *variables = variables_of(chat, request, messages);
        prompt = text_template_render(entry->parsed, variables, &used, err);
        json_decref(variables);
    }
    if (prompt && text && !cut_at_tag(prompt, &used.report->length, text, err)) {
        text_template_report_free(used.report);
        free(prompt);
        prompt = NULL;
    }
    json_decref(text);
    text_template_report_free(&own);
    return prompt;
}

char *text_chat_render(const TextChatTemplate *chat, const TextChat *request,
                       const TextTemplateOptions *options, Error *err) {
    if (!check_request(request, err)) return NULL;
    const Entry *entry = choose(chat, request->name, is_present(request->tools), err);
    if (!entry) return NULL;
    if (!entry->parsed) {
        base_fail(err, entry->error.code, "%s", entry->error.message);
        return NULL;
    }
    json_t *messages = messages_copy(request->messages, err);
    if (!messages) return NULL;
    char *prompt = render(chat, entry, request, messages, options, err);
    json_decref(messages);
    return prompt;
}
