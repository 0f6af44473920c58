/* Chat templates of a model folder: which one counts, what the template sees,
 * continued messages, spans of the assistant. The rules are those of
 * transformers 5.23 (apply_chat_template). */
#include <unistd.h>

#include "jinja_rows.h"

static char folder[] = "/tmp/template-chat-XXXXXX";

static void put(const char *name, const char *text) {
    Error err = {0};
    char *path = base_path_join(folder, name);
    if (!base_file_write(path, text, strlen(text), &err)) fail_msg("%s", err.message);
    free(path);
}

static void drop(const char *name) {
    char *path = base_path_join(folder, name);
    unlink(path);
    rmdir(path);
    free(path);
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int clean_folder(void **state) {
    (void)state;
    drop("additional_chat_templates/rag.jinja");
    drop("additional_chat_templates");
    drop("chat_template.jinja");
    drop("tokenizer_config.json");
    drop("special_tokens_map.json");
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    rmdir(folder);
    return 0;
}

static json_t *parse(const char *text) {
    Error err = {0};
    json_t *json = base_json_parse(text, strlen(text), "test", &err);
    if (!json) fail_msg("%s", err.message);
    return json;
}

static TextChatTemplate *open_folder(void) {
    Error err = {0};
    TextChatTemplate *chat = text_chat_template_open(folder, &err);
    if (!chat) fail_msg("%s", err.message);
    return chat;
}

/* The prompt, or "ERROR: message", of one conversation; frees `chat`. */
static char *prompt_of(TextChatTemplate *chat, TextChat request, const char *messages) {
    Error err = {0};
    json_t *list = parse(messages);
    request.messages = list;
    char *prompt = text_chat_render(chat, &request, NULL, &err);
    json_decref(list);
    text_chat_template_free(chat);
    return prompt ? prompt : base_format("ERROR: %s", err.message);
}

static void expect(char *prompt, const char *expected) {
    assert_string_equal(prompt, expected);
    free(prompt);
}

static void expect_error(char *prompt, const char *words) {
    if (strncmp(prompt, "ERROR: ", 7) != 0 || !strstr(prompt, words)) fail_msg("%s", prompt);
    free(prompt);
}

static TextChatTemplate *from_source(const char *source) {
    Error err = {0};
    TextChatTemplate *chat = text_chat_template_new(source, strlen(source), NULL, &err);
    if (!chat) fail_msg("%s", err.message);
    return chat;
}

#define HELLO "[{\"role\":\"user\",\"content\":\"Hello\"}]"

static void test_config_string_is_the_template(void **state) {
    (void)state;
    put("tokenizer_config.json",
        "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\",\"lstrip\":false},"
        "\"pad_token\":null,\"chat_template\":\"{{ bos_token }}{{ messages[0].content }}"
        "{{ eos_token }}{{ pad_token is defined }}\"}");
    expect(prompt_of(open_folder(), (TextChat){0}, HELLO), "<s>Hello</s>False");
}

static void test_jinja_file_wins_over_config(void **state) {
    (void)state;
    put("tokenizer_config.json", "{\"bos_token\":\"<s>\",\"chat_template\":\"config\"}");
    put("chat_template.jinja", "{{ bos_token }}file\n");
    expect(prompt_of(open_folder(), (TextChat){0}, HELLO), "<s>file");
}

static void test_named_templates_follow_tools(void **state) {
    (void)state;
    json_t *tools = parse("[{\"type\":\"function\"}]");
    put("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"default\",\"template\":\"D\"},"
                                 "{\"name\":\"tool_use\",\"template\":\"T{{ tools|length }}\"},"
                                 "{\"name\":\"rag\",\"template\":\"R{{ documents }}\"}]}");
    expect(prompt_of(open_folder(), (TextChat){0}, HELLO), "D");
    expect(prompt_of(open_folder(), (TextChat){.tools = tools}, HELLO), "T1");
    expect(prompt_of(open_folder(), (TextChat){.tools = tools, .name = "default"}, HELLO), "D");
    expect(prompt_of(open_folder(), (TextChat){.name = "rag"}, HELLO), "RNone");
    expect_error(prompt_of(open_folder(), (TextChat){.name = "other"}, HELLO),
                 "no chat template named 'other'");
    json_decref(tools);
}

static void test_additional_templates_have_their_file_names(void **state) {
    (void)state;
    Error err = {0};
    char *path = base_path_join(folder, "additional_chat_templates");
    assert_true(base_make_dirs(path, &err));
    free(path);
    put("chat_template.jinja", "D");
    put("additional_chat_templates/rag.jinja", "R");
    expect(prompt_of(open_folder(), (TextChat){.name = "rag"}, HELLO), "R");
    expect(prompt_of(open_folder(), (TextChat){0}, HELLO), "D");
    drop("chat_template.jinja");
    expect_error(prompt_of(open_folder(), (TextChat){0}, HELLO), "none is the default");
}

static void test_special_tokens_map_counts_for_old_configs(void **state) {
    (void)state;
    put("chat_template.jinja", "{{ bos_token }}");
    put("tokenizer_config.json", "{\"bos_token\":\"<a>\"}");
    put("special_tokens_map.json", "{\"bos_token\":{\"content\":\"<b>\"}}");
    expect(prompt_of(open_folder(), (TextChat){0}, HELLO), "<b>");
    put("tokenizer_config.json", "{\"bos_token\":\"<a>\",\"added_tokens_decoder\":{}}");
    expect(prompt_of(open_folder(), (TextChat){0}, HELLO), "<a>");
}

static void test_folder_without_template_opens_and_says_so(void **state) {
    (void)state;
    TextChatTemplate *chat = open_folder();
    assert_false(text_chat_template_has(chat, NULL));
    expect_error(prompt_of(chat, (TextChat){0}, HELLO), "the model has no chat template");
}

static void test_broken_template_fails_when_used(void **state) {
    (void)state;
    put("chat_template.jinja", "{% if %}");
    expect_error(prompt_of(open_folder(), (TextChat){0}, HELLO),
                 "Expected an expression, got 'end of statement block'");
    Error err = {0};
    assert_null(text_chat_template_new("{{", 2, NULL, &err));
    assert_true(err.code == ERROR_INPUT);
}

static void test_bad_config_is_named(void **state) {
    (void)state;
    Error err = {0};
    put("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"default\"}]}");
    assert_null(text_chat_template_open(folder, &err));
    assert_non_null(strstr(err.message, "chat_template[0]"));
    base_error_clear(&err);
    put("tokenizer_config.json", "[]");
    assert_null(text_chat_template_open(folder, &err));
    assert_non_null(strstr(err.message, "tokenizer_config.json"));
}

static void test_tools_and_documents_are_none_when_absent(void **state) {
    (void)state;
    const char *source =
        "{{ tools is defined }}{{ tools }}{{ documents }}{{ add_generation_prompt }}";
    expect(prompt_of(from_source(source), (TextChat){0}, HELLO), "TrueNoneNoneFalse");
    json_t *empty = json_array();
    expect(prompt_of(from_source(source), (TextChat){.tools = empty, .add_generation_prompt = true},
                     HELLO),
           "True[]NoneTrue");
    json_decref(empty);
}

static void test_more_variables_win_over_special_tokens(void **state) {
    (void)state;
    Error err = {0};
    json_t *special = parse("{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}"),
           *more = parse("{\"bos_token\":\"B\",\"x\":1}");
    const char source[] = "{{ bos_token }}{{ eos_token }}{{ x }}";
    TextChatTemplate *chat = text_chat_template_new(source, sizeof source - 1, special, &err);
    expect(prompt_of(chat, (TextChat){.variables = more}, HELLO), "B</s>1");
    json_decref(special);
    json_decref(more);
}

static void test_messages_lose_nulls_and_gain_reasoning_names(void **state) {
    (void)state;
    expect(prompt_of(from_source("{{ messages }}"), (TextChat){0},
                     "[{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"why\"}]"),
           "[{'thinking': 'why', 'role': 'assistant', 'reasoning': 'why', 'reasoning_content': "
           "'why'}]");
}

static void test_bad_conversations_are_errors(void **state) {
    (void)state;
    expect_error(prompt_of(from_source("x"), (TextChat){0}, "[]"), "empty conversation");
    expect_error(prompt_of(from_source("x"), (TextChat){0}, "{}"), "not a list");
    expect_error(prompt_of(from_source("x"), (TextChat){0}, "[1]"), "messages[0]");
    json_t *bad = parse("[1]");
    expect_error(prompt_of(from_source("x"), (TextChat){.tools = bad}, HELLO), "tools[0]");
    expect_error(prompt_of(from_source("x"), (TextChat){.documents = bad}, HELLO), "documents[0]");
    expect_error(prompt_of(from_source("x"), (TextChat){.variables = bad}, HELLO), "variables");
    json_decref(bad);
}

#define TURNS "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
#define TRIMMED "{% for m in messages %}[{{ m.role }}]{{ m.content|trim }}</s>{% endfor %}"
#define OPEN_TURN \
    "[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\" I think \"}]"

static void test_final_message_stays_open(void **state) {
    (void)state;
    TextChat request = {.continue_final_message = true};
    expect(prompt_of(from_source(TURNS), request, OPEN_TURN), "[user]Q</s>[assistant] I think ");
    expect(prompt_of(from_source(TRIMMED), request, OPEN_TURN), "[user]Q</s>[assistant]I think");
    expect(prompt_of(from_source("{% for m in messages %}{% for b in m.content %}{{ b.text }}|{% "
                                 "endfor %}{% endfor %}"),
                     request,
                     "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"A\"},{"
                     "\"type\":\"image\"},"
                     "{\"type\":\"text\",\"text\":\"B\"}]}]"),
           "A||B");
}

static void test_another_field_can_be_continued(void **state) {
    (void)state;
    TextChat request = {.continue_final_message = true, .continue_field = "reasoning_content"};
    expect(
        prompt_of(from_source("<think>{{ messages[0].thinking }}</think>{{ messages[0].content }}"),
                  request,
                  "[{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"because\"}]"),
        "<think>because");
}

static void test_what_cannot_be_continued_is_an_error(void **state) {
    (void)state;
    TextChat request = {.continue_final_message = true};
    TextChat both = {.continue_final_message = true, .add_generation_prompt = true};
    expect_error(prompt_of(from_source(TURNS), both, OPEN_TURN), "not compatible");
    expect_error(prompt_of(from_source(TURNS), request, "[{\"role\":\"user\"}]"),
                 "has no \"content\" to continue");
    expect_error(prompt_of(from_source("{{ messages|length }}"), request, OPEN_TURN),
                 "not an accepted field");
    expect_error(prompt_of(from_source("{{ messages[0].content }}"), request, OPEN_TURN),
                 "does not appear");
    expect_error(prompt_of(from_source(TURNS), request,
                           "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]"),
                 "could not find any text");
    expect_error(prompt_of(from_source(TURNS), request, "[{\"role\":\"user\",\"content\":5}]"),
                 "not text");
}

static void test_spans_mark_the_assistant_in_bytes(void **state) {
    (void)state;
    Error err = {0};
    TextChatTemplate *chat =
        from_source("{% for m in messages %}{% if m.role == 'user' %}é{{ m.content }}{% else %}"
                    "{% generation %}{{ m.content }}.{% endgeneration %}{% endif %}{% endfor %}");
    json_t *messages =
        parse("[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Yo\"},"
              "{\"role\":\"user\",\"content\":\"A\"},{\"role\":\"assistant\",\"content\":\"B\"}]");
    TextTemplateReport report = {0};
    char *prompt = text_chat_render(chat, &(TextChat){.messages = messages},
                                    &(TextTemplateOptions){.report = &report}, &err);
    assert_string_equal(prompt, "éHiYo.éAB.");
    assert_int_equal(report.length, strlen(prompt));
    assert_int_equal(report.n_spans, 2);
    assert_int_equal(report.spans[0].start, 4);
    assert_int_equal(report.spans[0].end, 7);
    assert_int_equal(report.spans[1].start, 10);
    assert_int_equal(report.spans[1].end, 12);
    text_template_report_free(&report);
    free(prompt);
    json_decref(messages);
    text_chat_template_free(chat);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_config_string_is_the_template, clean_folder),
        cmocka_unit_test_teardown(test_jinja_file_wins_over_config, clean_folder),
        cmocka_unit_test_teardown(test_named_templates_follow_tools, clean_folder),
        cmocka_unit_test_teardown(test_additional_templates_have_their_file_names, clean_folder),
        cmocka_unit_test_teardown(test_special_tokens_map_counts_for_old_configs, clean_folder),
        cmocka_unit_test_teardown(test_folder_without_template_opens_and_says_so, clean_folder),
        cmocka_unit_test_teardown(test_broken_template_fails_when_used, clean_folder),
        cmocka_unit_test_teardown(test_bad_config_is_named, clean_folder),
        cmocka_unit_test(test_tools_and_documents_are_none_when_absent),
        cmocka_unit_test(test_more_variables_win_over_special_tokens),
        cmocka_unit_test(test_messages_lose_nulls_and_gain_reasoning_names),
        cmocka_unit_test(test_bad_conversations_are_errors),
        cmocka_unit_test(test_final_message_stays_open),
        cmocka_unit_test(test_another_field_can_be_continued),
        cmocka_unit_test(test_what_cannot_be_continued_is_an_error),
        cmocka_unit_test(test_spans_mark_the_assistant_in_bytes),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
