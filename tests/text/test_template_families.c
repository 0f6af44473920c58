/* Templates with the structure of the model families, written for this test,
 * over several conversations. */
#include "jinja_rows.h"

typedef struct Case {
    const char *conversation;
    const char *output; /* NULL: it must fail */
    const char *error;
} Case;

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": "
    "\"Weather \\\"now\\\" & <later>\", \"parameters\": {\"type\": \"object\", \"properties\": "
    "{\"city\": {\"type\": \"string\"}, \"days\": {\"type\": [\"integer\", \"null\"]}, \"grid\": "
    "{\"type\": \"array\", \"items\": {\"type\": \"array\", \"items\": {\"type\": \"number\"}}}, "
    "\"o\": {\"type\": \"object\", \"properties\": {\"b\": {\"type\": \"string\"}, \"a\": "
    "{\"type\": \"x\"}}}}, \"required\": [\"city\"]}, \"return\": {\"type\": \"string\"}}}]";

static const char one_turn[] = "[{\"role\": \"user\", \"content\": \"Hello\"}]";
static const char system_and_turns[] =
    "[{\"role\": \"system\", \"content\": \" Be kind. \"}, {\"role\": \"user\", \"content\": \" "
    "Hi\\n\"}, {\"role\": \"assistant\", \"content\": \" Yo \"}, {\"role\": \"user\", \"content\": "
    "\"Bye 😀\"}]";
static const char tool_turns[] =
    "[{\"role\": \"user\", \"content\": \"Weather?\"}, {\"role\": \"assistant\", \"content\": "
    "\"\", \"tool_calls\": [{\"id\": \"abc123def\", \"type\": \"function\", \"function\": "
    "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2, \"deep\": "
    "[null, true, 1.5]}}}]}, {\"role\": \"tool\", \"tool_call_id\": \"abc123def\", \"name\": "
    "\"get_weather\", \"content\": \"{\\\"t\\\": 21}\"}, {\"role\": \"assistant\", \"content\": "
    "\"21 degrees\"}, {\"role\": \"user\", \"content\": \"Thanks\"}]";
static const char two_results[] =
    "[{\"role\": \"user\", \"content\": \"W?\"}, {\"role\": \"assistant\", \"content\": \"\", "
    "\"tool_calls\": [{\"id\": \"x\", \"type\": \"function\", \"function\": {\"name\": "
    "\"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2, \"deep\": [null, true, "
    "1.5]}}}]}, {\"role\": \"tool\", \"tool_call_id\": \"x\", \"content\": \"1\"}, {\"role\": "
    "\"tool\", \"tool_call_id\": \"x\", \"content\": \"2\"}]";
static const char thoughts[] =
    "[{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": "
    "\"<think>\\nwhy\\n</think>\\n\\nBecause\"}, {\"role\": \"user\", \"content\": \"More\"}, "
    "{\"role\": \"assistant\", \"content\": \"Sure\", \"reasoning_content\": \"hm\"}]";
static const char blocks[] = "[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}, "
                             "{\"type\": \"text\", \"text\": \" look \"}]}]";
static const char wrong_order[] =
    "[{\"role\": \"assistant\", \"content\": \"x\"}, {\"role\": \"user\", \"content\": \"y\"}]";

static char *render(const char *source, const char *conversation) {
    Error err = {0};
    json_t *messages = base_json_parse(conversation, strlen(conversation), "conversation", &err);
    json_t *list = base_json_parse(tools, sizeof tools - 1, "tools", &err);
    json_t *special = json_pack("{s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>");
    TextChatTemplate *chat = text_chat_template_new(source, strlen(source), special, &err);
    struct tm now = rows_now();
    TextTemplateOptions options = {.now = &now};
    bool with_tools = strstr(conversation, "tool_calls") != NULL;
    TextChat request = {
        .messages = messages, .tools = with_tools ? list : NULL, .add_generation_prompt = true};
    char *prompt = chat ? text_chat_render(chat, &request, &options, &err) : NULL;
    text_chat_template_free(chat);
    json_decref(special);
    json_decref(list);
    json_decref(messages);
    return prompt ? prompt : base_format("ERROR: %s", err.message);
}

static void check(const char *source, const Case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char *prompt = render(source, cases[i].conversation);
        if (cases[i].output)
            assert_string_equal(prompt, cases[i].output);
        else if (strncmp(prompt, "ERROR: ", 7) != 0 || !strstr(prompt, cases[i].error))
            fail_msg("%s", prompt);
        free(prompt);
    }
}

static const char chatml_with_default_system[] =
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\n"
    "Answer briefly.<|im_end|>\n"
    "' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\n"
    "' + m['content'] + '<|im_end|>' + '\n"
    "' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
    "' }}{% endif %}";
static const Case chatml_with_default_system_cases[] = {
    {one_turn,
     "<|im_start|>system\nAnswer "
     "briefly.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {system_and_turns,
     "<|im_start|>system\n Be kind. <|im_end|>\n<|im_start|>user\n "
     "Hi\n<|im_end|>\n<|im_start|>assistant\n Yo <|im_end|>\n<|im_start|>user\nBye "
     "😀<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {tool_turns,
     "<|im_start|>system\nAnswer "
     "briefly.<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n<|im_end|>"
     "\n<|im_start|>tool\n{\"t\": 21}<|im_end|>\n<|im_start|>assistant\n21 "
     "degrees<|im_end|>\n<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {two_results,
     "<|im_start|>system\nAnswer "
     "briefly.<|im_end|>\n<|im_start|>user\nW?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_"
     "start|>tool\n1<|im_end|>\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {thoughts,
     "<|im_start|>system\nAnswer "
     "briefly.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\nwhy\n</"
     "think>\n\nBecause<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\nSure<|"
     "im_end|>\n<|im_start|>assistant\n",
     NULL},
    {blocks, NULL, "can only concatenate str (not \"list\") to str"},
    {wrong_order,
     "<|im_start|>system\nAnswer "
     "briefly.<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n<|im_start|>user\ny<|im_end|>\n<|im_"
     "start|>assistant\n",
     NULL},
};

static void test_chatml_with_default_system(void **state) {
    (void)state;
    check(chatml_with_default_system, chatml_with_default_system_cases,
          BASE_COUNT(chatml_with_default_system_cases));
}

static const char llama3_tools_and_date[] =
    "{{- bos_token }}\n"
    "{%- if not date_string is defined %}\n"
    "    {%- if strftime_now is defined %}\n"
    "        {%- set date_string = strftime_now(\"%d %b %Y\") %}\n"
    "    {%- else %}\n"
    "        {%- set date_string = \"26 Jul 2024\" %}\n"
    "    {%- endif %}\n"
    "{%- endif %}\n"
    "{%- if not tools is defined %}\n"
    "    {%- set tools = none %}\n"
    "{%- endif %}\n"
    "{#- The first message may be the system's. #}\n"
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set instructions = messages[0]['content']|trim %}\n"
    "    {%- set messages = messages[1:] %}\n"
    "{%- else %}\n"
    "    {%- set instructions = \"\" %}\n"
    "{%- endif %}\n"
    "{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}\n"
    "{%- if builtin_tools is defined or tools is not none %}\n"
    "    {{- \"Environment: ipython\\n\" }}\n"
    "{%- endif %}\n"
    "{%- if builtin_tools is defined %}\n"
    "    {{- \"Tools: \" + builtin_tools | reject('equalto', 'code_interpreter') | join(\", \") + "
    "\"\\n\\n\"}}\n"
    "{%- endif %}\n"
    "{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n"
    "{%- if tools is not none %}\n"
    "    {{- \"Call functions as JSON.\\n\\n\" }}\n"
    "    {%- for t in tools %}\n"
    "        {{- t | tojson(indent=4) }}\n"
    "        {{- \"\\n\\n\" }}\n"
    "    {%- endfor %}\n"
    "{%- endif %}\n"
    "{{- instructions }}\n"
    "{{- \"<|eot_id|>\" }}\n"
    "{%- for message in messages %}\n"
    "    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in "
    "message) %}\n"
    "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ "
    "message['content'] | trim + '<|eot_id|>' }}\n"
    "    {%- elif 'tool_calls' in message %}\n"
    "        {%- if not message.tool_calls|length == 1 %}\n"
    "            {{- raise_exception(\"One call at a time, please.\") }}\n"
    "        {%- endif %}\n"
    "        {%- set call = message.tool_calls[0].function %}\n"
    "        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}\n"
    "        {{- '{\"name\": \"' + call.name + '\", ' }}\n"
    "        {{- '\"parameters\": ' }}\n"
    "        {{- call.arguments | tojson }}\n"
    "        {{- \"}\" }}\n"
    "        {{- \"<|eot_id|>\" }}\n"
    "    {%- elif message.role == \"tool\" or message.role == \"ipython\" %}\n"
    "        {{- \"<|start_header_id|>ipython<|end_header_id|>\\n\\n\" }}\n"
    "        {%- if message.content is mapping or (message.content is iterable and message.content "
    "is not string) %}\n"
    "            {{- message.content | tojson }}\n"
    "        {%- else %}\n"
    "            {{- message.content }}\n"
    "        {%- endif %}\n"
    "        {{- \"<|eot_id|>\" }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n"
    "{%- endif %}\n";
static const Case llama3_tools_and_date_cases[] = {
    {one_turn,
     "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul "
     "2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_"
     "id|>assistant<|end_header_id|>\n\n",
     NULL},
    {system_and_turns,
     "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe "
     "kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\nYo<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye "
     "😀<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     NULL},
    {tool_turns,
     "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nToday Date: 26 Jul "
     "2024\n\nCall functions as JSON.\n\n{\n    \"type\": \"function\",\n    \"function\": {\n     "
     "   \"name\": \"get_weather\",\n        \"description\": \"Weather \\\"now\\\" & <later>\",\n "
     "       \"parameters\": {\n            \"type\": \"object\",\n            \"properties\": {\n "
     "               \"city\": {\n                    \"type\": \"string\"\n                },\n   "
     "             \"days\": {\n                    \"type\": [\n                        "
     "\"integer\",\n                        \"null\"\n                    ]\n                },\n  "
     "              \"grid\": {\n                    \"type\": \"array\",\n                    "
     "\"items\": {\n                        \"type\": \"array\",\n                        "
     "\"items\": {\n                            \"type\": \"number\"\n                        }\n  "
     "                  }\n                },\n                \"o\": {\n                    "
     "\"type\": \"object\",\n                    \"properties\": {\n                        \"b\": "
     "{\n                            \"type\": \"string\"\n                        },\n            "
     "            \"a\": {\n                            \"type\": \"x\"\n                        "
     "}\n                    }\n                }\n            },\n            \"required\": [\n   "
     "             \"city\"\n            ]\n        },\n        \"return\": {\n            "
     "\"type\": \"string\"\n        }\n    "
     "}\n}\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWeather?<|eot_id|><|start_"
     "header_id|>assistant<|end_header_id|>\n\n{\"name\": \"get_weather\", \"parameters\": "
     "{\"city\": \"Zürich\", \"days\": 2, \"deep\": [null, true, "
     "1.5]}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n{\"t\": "
     "21}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n21 "
     "degrees<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThanks<|eot_id|><|start_header_"
     "id|>assistant<|end_header_id|>\n\n",
     NULL},
    {two_results,
     "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nToday Date: 26 Jul "
     "2024\n\nCall functions as JSON.\n\n{\n    \"type\": \"function\",\n    \"function\": {\n     "
     "   \"name\": \"get_weather\",\n        \"description\": \"Weather \\\"now\\\" & <later>\",\n "
     "       \"parameters\": {\n            \"type\": \"object\",\n            \"properties\": {\n "
     "               \"city\": {\n                    \"type\": \"string\"\n                },\n   "
     "             \"days\": {\n                    \"type\": [\n                        "
     "\"integer\",\n                        \"null\"\n                    ]\n                },\n  "
     "              \"grid\": {\n                    \"type\": \"array\",\n                    "
     "\"items\": {\n                        \"type\": \"array\",\n                        "
     "\"items\": {\n                            \"type\": \"number\"\n                        }\n  "
     "                  }\n                },\n                \"o\": {\n                    "
     "\"type\": \"object\",\n                    \"properties\": {\n                        \"b\": "
     "{\n                            \"type\": \"string\"\n                        },\n            "
     "            \"a\": {\n                            \"type\": \"x\"\n                        "
     "}\n                    }\n                }\n            },\n            \"required\": [\n   "
     "             \"city\"\n            ]\n        },\n        \"return\": {\n            "
     "\"type\": \"string\"\n        }\n    "
     "}\n}\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nW?<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\n{\"name\": \"get_weather\", \"parameters\": {\"city\": "
     "\"Zürich\", \"days\": 2, \"deep\": [null, true, "
     "1.5]}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n1<|eot_id|><|start_header_id|>"
     "ipython<|end_header_id|>\n\n2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     NULL},
    {thoughts,
     "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul "
     "2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\n<think>\nwhy\n</"
     "think>\n\nBecause<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nMore<|eot_id|><|start_"
     "header_id|>assistant<|end_header_id|>\n\nSure<|eot_id|><|start_header_id|>assistant<|end_"
     "header_id|>\n\n",
     NULL},
    {blocks,
     "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul "
     "2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n[{'type': 'image'}, {'type': "
     "'text', 'text': ' look '}]<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     NULL},
    {wrong_order,
     "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul "
     "2024\n\n<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nx<|eot_id|><|start_header_"
     "id|>user<|end_header_id|>\n\ny<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     NULL},
};

static void test_llama3_tools_and_date(void **state) {
    (void)state;
    check(llama3_tools_and_date, llama3_tools_and_date_cases,
          BASE_COUNT(llama3_tools_and_date_cases));
}

static const char qwen25_tool_results_grouped[] =
    "{%- if tools %}\n"
    "    {{- '<|im_start|>system\\n' }}\n"
    "    {%- if messages[0].role == 'system' %}\n"
    "        {{- messages[0].content + '\\n\\n' }}\n"
    "    {%- endif %}\n"
    "    {{- \"# Tools\\n<tools>\" }}\n"
    "    {%- for tool in tools %}\n"
    "        {{- \"\\n\" }}\n"
    "        {{- tool | tojson }}\n"
    "    {%- endfor %}\n"
    "    {{- \"\\n</tools>\\n{\\\"name\\\": <name>, \\\"arguments\\\": <object>}<|im_end|>\\n\" "
    "}}\n"
    "{%- elif messages[0].role == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or "
    "(message.role == \"assistant\" and not message.tool_calls) %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' "
    "}}\n"
    "    {%- elif message.role == \"assistant\" %}\n"
    "        {{- '<|im_start|>' + message.role }}\n"
    "        {%- if message.content %}\n"
    "            {{- '\\n' + message.content }}\n"
    "        {%- endif %}\n"
    "        {%- for tool_call in message.tool_calls %}\n"
    "            {%- if tool_call.function is defined %}\n"
    "                {%- set tool_call = tool_call.function %}\n"
    "            {%- endif %}\n"
    "            {{- '\\n<tool_call>\\n{\"name\": \"' }}\n"
    "            {{- tool_call.name }}\n"
    "            {{- '\", \"arguments\": ' }}\n"
    "            {{- tool_call.arguments | tojson }}\n"
    "            {{- '}\\n</tool_call>' }}\n"
    "        {%- endfor %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- elif message.role == \"tool\" %}\n"
    "        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != \"tool\") %}\n"
    "            {{- '<|im_start|>user' }}\n"
    "        {%- endif %}\n"
    "        {{- '\\n<tool_response>\\n' }}\n"
    "        {{- message.content }}\n"
    "        {{- '\\n</tool_response>' }}\n"
    "        {%- if loop.last or (messages[loop.index0 + 1].role != \"tool\") %}\n"
    "            {{- '<|im_end|>\\n' }}\n"
    "        {%- endif %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}";
static const Case qwen25_tool_results_grouped_cases[] = {
    {one_turn, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", NULL},
    {system_and_turns,
     "<|im_start|>system\n Be kind. <|im_end|>\n<|im_start|>user\n "
     "Hi\n<|im_end|>\n<|im_start|>assistant\n Yo <|im_end|>\n<|im_start|>user\nBye "
     "😀<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {tool_turns,
     "<|im_start|>system\n# Tools\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": "
     "\"get_weather\", \"description\": \"Weather \\\"now\\\" & <later>\", \"parameters\": "
     "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": "
     "{\"type\": [\"integer\", \"null\"]}, \"grid\": {\"type\": \"array\", \"items\": {\"type\": "
     "\"array\", \"items\": {\"type\": \"number\"}}}, \"o\": {\"type\": \"object\", "
     "\"properties\": {\"b\": {\"type\": \"string\"}, \"a\": {\"type\": \"x\"}}}}, \"required\": "
     "[\"city\"]}, \"return\": {\"type\": \"string\"}}}\n</tools>\n{\"name\": <name>, "
     "\"arguments\": "
     "<object>}<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n<tool_call>"
     "\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2, \"deep\": "
     "[null, true, 1.5]}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n{\"t\": "
     "21}\n</tool_response><|im_end|>\n<|im_start|>assistant\n21 "
     "degrees<|im_end|>\n<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {two_results,
     "<|im_start|>system\n# Tools\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": "
     "\"get_weather\", \"description\": \"Weather \\\"now\\\" & <later>\", \"parameters\": "
     "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": "
     "{\"type\": [\"integer\", \"null\"]}, \"grid\": {\"type\": \"array\", \"items\": {\"type\": "
     "\"array\", \"items\": {\"type\": \"number\"}}}, \"o\": {\"type\": \"object\", "
     "\"properties\": {\"b\": {\"type\": \"string\"}, \"a\": {\"type\": \"x\"}}}}, \"required\": "
     "[\"city\"]}, \"return\": {\"type\": \"string\"}}}\n</tools>\n{\"name\": <name>, "
     "\"arguments\": "
     "<object>}<|im_end|>\n<|im_start|>user\nW?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{"
     "\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 2, \"deep\": "
     "[null, true, "
     "1.5]}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n1\n</"
     "tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {thoughts,
     "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\nwhy\n</"
     "think>\n\nBecause<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\nSure<|"
     "im_end|>\n<|im_start|>assistant\n",
     NULL},
    {blocks, NULL, "can only concatenate str (not \"list\") to str"},
    {wrong_order,
     "<|im_start|>assistant\nx<|im_end|>\n<|im_start|>user\ny<|im_end|>\n<|im_start|>assistant\n",
     NULL},
};

static void test_qwen25_tool_results_grouped(void **state) {
    (void)state;
    check(qwen25_tool_results_grouped, qwen25_tool_results_grouped_cases,
          BASE_COUNT(qwen25_tool_results_grouped_cases));
}

static const char qwen3_thinking[] =
    "{%- set ns = namespace(searching=true, last=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n"
    "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
    "    {%- if ns.searching and message.role == \"user\" and message.content is string and "
    "not(message.content.startswith('<tool_response>') and "
    "message.content.endswith('</tool_response>')) %}\n"
    "        {%- set ns.searching = false %}\n"
    "        {%- set ns.last = index %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.content is string %}\n"
    "        {%- set content = message.content %}\n"
    "    {%- else %}\n"
    "        {%- set content = '' %}\n"
    "    {%- endif %}\n"
    "    {%- if message.role == \"assistant\" %}\n"
    "        {%- set thought = '' %}\n"
    "        {%- if message.reasoning_content is string %}\n"
    "            {%- set thought = message.reasoning_content %}\n"
    "        {%- elif '</think>' in content %}\n"
    "            {%- set thought = "
    "content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
    "            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
    "        {%- endif %}\n"
    "        {%- if loop.index0 > ns.last and (loop.last or thought) %}\n"
    "            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + "
    "'\\n</think>\\n\\n' + content.lstrip('\\n') }}\n"
    "        {%- else %}\n"
    "            {{- '<|im_start|>assistant\\n' + content }}\n"
    "        {%- endif %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endif %}";
static const Case qwen3_thinking_cases[] = {
    {one_turn, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", NULL},
    {system_and_turns,
     "<|im_start|>system\n Be kind. <|im_end|>\n<|im_start|>user\n "
     "Hi\n<|im_end|>\n<|im_start|>assistant\n Yo <|im_end|>\n<|im_start|>user\nBye "
     "😀<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {tool_turns,
     "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\n{"
     "\"t\": 21}<|im_end|>\n<|im_start|>assistant\n21 "
     "degrees<|im_end|>\n<|im_start|>user\nThanks<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {two_results,
     "<|im_start|>user\nW?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\n1<|im_"
     "end|>\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {thoughts,
     "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nBecause<|im_end|>\n<|im_start|>"
     "user\nMore<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</"
     "think>\n\nSure<|im_end|>\n<|im_start|>assistant\n",
     NULL},
    {blocks, "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n", NULL},
    {wrong_order,
     "<|im_start|>assistant\nx<|im_end|>\n<|im_start|>user\ny<|im_end|>\n<|im_start|>assistant\n",
     NULL},
};

static void test_qwen3_thinking(void **state) {
    (void)state;
    check(qwen3_thinking, qwen3_thinking_cases, BASE_COUNT(qwen3_thinking_cases));
}

static const char phi3_roles[] =
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] "
    "%}{{'<|system|>\n"
    "' + message['content'] + '<|end|>\n"
    "'}}{% elif message['role'] == 'user' %}{{'<|user|>\n"
    "' + message['content'] + '<|end|>\n"
    "'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n"
    "' + message['content'] + '<|end|>\n"
    "'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n"
    "' }}{% else %}{{ eos_token }}{% endif %}";
static const Case phi3_roles_cases[] = {
    {one_turn, "<|user|>\nHello<|end|>\n<|assistant|>\n", NULL},
    {system_and_turns,
     "<|system|>\n Be kind. <|end|>\n<|user|>\n Hi\n<|end|>\n<|assistant|>\n Yo "
     "<|end|>\n<|user|>\nBye 😀<|end|>\n<|assistant|>\n",
     NULL},
    {tool_turns,
     "<|user|>\nWeather?<|end|>\n<|assistant|>\n<|end|>\n<|assistant|>\n21 "
     "degrees<|end|>\n<|user|>\nThanks<|end|>\n<|assistant|>\n",
     NULL},
    {two_results, "<|user|>\nW?<|end|>\n<|assistant|>\n<|end|>\n<|assistant|>\n", NULL},
    {thoughts,
     "<|user|>\nQ<|end|>\n<|assistant|>\n<think>\nwhy\n</"
     "think>\n\nBecause<|end|>\n<|user|>\nMore<|end|>\n<|assistant|>\nSure<|end|>\n<|assistant|>\n",
     NULL},
    {blocks, NULL, "can only concatenate str (not \"list\") to str"},
    {wrong_order, "<|assistant|>\nx<|end|>\n<|user|>\ny<|end|>\n<|assistant|>\n", NULL},
};

static void test_phi3_roles(void **state) {
    (void)state;
    check(phi3_roles, phi3_roles_cases, BASE_COUNT(phi3_roles_cases));
}

static const char mistral_tools_and_alternation[] =
    "{%- if messages[0][\"role\"] == \"system\" %}\n"
    "    {%- set system_text = messages[0][\"content\"] %}\n"
    "    {%- set turns = messages[1:] %}\n"
    "{%- else %}\n"
    "    {%- set turns = messages %}\n"
    "{%- endif %}\n"
    "{%- set user_turns = turns | selectattr(\"role\", \"equalto\", \"user\") | list %}\n"
    "{%- set ns = namespace() %}\n"
    "{%- set ns.index = 0 %}\n"
    "{%- for message in turns %}\n"
    "    {%- if not (message.role == \"tool\" or (message.tool_calls is defined and "
    "message.tool_calls is not none)) %}\n"
    "        {%- if (message[\"role\"] == \"user\") != (ns.index % 2 == 0) %}\n"
    "            {{- raise_exception(\"user and assistant must take turns\") }}\n"
    "        {%- endif %}\n"
    "        {%- set ns.index = ns.index + 1 %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{{- bos_token }}\n"
    "{%- for message in turns %}\n"
    "    {%- if message[\"role\"] == \"user\" %}\n"
    "        {%- if tools is not none and (message == user_turns[-1]) %}\n"
    "            {{- \"[AVAILABLE_TOOLS] [\" }}\n"
    "            {%- for tool in tools %}\n"
    "                {%- set tool = tool.function %}\n"
    "                {{- '{\"type\": \"function\", \"function\": {' }}\n"
    "                {%- for key, val in tool.items() if key != \"return\" %}\n"
    "                    {%- if val is string %}\n"
    "                        {{- '\"' + key + '\": \"' + val + '\"' }}\n"
    "                    {%- else %}\n"
    "                        {{- '\"' + key + '\": ' + val|tojson }}\n"
    "                    {%- endif %}\n"
    "                    {%- if not loop.last %}\n"
    "                        {{- \", \" }}\n"
    "                    {%- endif %}\n"
    "                {%- endfor %}\n"
    "                {{- \"}}\" }}\n"
    "                {%- if not loop.last %}\n"
    "                    {{- \", \" }}\n"
    "                {%- else %}\n"
    "                    {{- \"]\" }}\n"
    "                {%- endif %}\n"
    "            {%- endfor %}\n"
    "            {{- \"[/AVAILABLE_TOOLS]\" }}\n"
    "        {%- endif %}\n"
    "        {%- if loop.last and system_text is defined %}\n"
    "            {{- \"[INST] \" + system_text + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" "
    "}}\n"
    "        {%- else %}\n"
    "            {{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}\n"
    "        {%- endif %}\n"
    "    {%- elif message.tool_calls is defined and message.tool_calls is not none %}\n"
    "        {{- \"[TOOL_CALLS] [\" }}\n"
    "        {%- for tool_call in message.tool_calls %}\n"
    "            {%- set out = tool_call.function|tojson %}\n"
    "            {{- out[:-1] }}\n"
    "            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}\n"
    "                {{- raise_exception(\"Call ids have 9 characters\") }}\n"
    "            {%- endif %}\n"
    "            {{- ', \"id\": \"' + tool_call.id + '\"}' }}\n"
    "            {{- \", \" if not loop.last else \"]\" + eos_token }}\n"
    "        {%- endfor %}\n"
    "    {%- elif message[\"role\"] == \"assistant\" %}\n"
    "        {{- \" \" + message[\"content\"]|trim + eos_token }}\n"
    "    {%- elif message[\"role\"] == \"tool\" %}\n"
    "        {%- set content = message.content.content if message.content.content is defined else "
    "message.content %}\n"
    "        {{- '[TOOL_RESULTS] {\"content\": ' + content|string + ', \"call_id\": \"' + "
    "message.tool_call_id + '\"}[/TOOL_RESULTS]' }}\n"
    "    {%- else %}\n"
    "        {{- raise_exception(\"unknown role \" + message[\"role\"]) }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n";
static const Case mistral_tools_and_alternation_cases[] = {
    {one_turn, "<s>[INST] Hello[/INST]", NULL},
    {system_and_turns, "<s>[INST]  Hi\n[/INST] Yo</s>[INST]  Be kind. \n\nBye 😀[/INST]", NULL},
    {tool_turns,
     "<s>[INST] Weather?[/INST][TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": "
     "\"Zürich\", \"days\": 2, \"deep\": [null, true, 1.5]}, \"id\": "
     "\"abc123def\"}]</s>[TOOL_RESULTS] {\"content\": {\"t\": 21}, \"call_id\": "
     "\"abc123def\"}[/TOOL_RESULTS] 21 degrees</s>[AVAILABLE_TOOLS] [{\"type\": \"function\", "
     "\"function\": {\"name\": \"get_weather\", \"description\": \"Weather \"now\" & <later>\", "
     "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}, "
     "\"days\": {\"type\": [\"integer\", \"null\"]}, \"grid\": {\"type\": \"array\", \"items\": "
     "{\"type\": \"array\", \"items\": {\"type\": \"number\"}}}, \"o\": {\"type\": \"object\", "
     "\"properties\": {\"b\": {\"type\": \"string\"}, \"a\": {\"type\": \"x\"}}}}, \"required\": "
     "[\"city\"]}}}][/AVAILABLE_TOOLS][INST] Thanks[/INST]",
     NULL},
    {two_results, NULL, "Call ids have 9 characters"},
    {thoughts,
     "<s>[INST] Q[/INST] <think>\nwhy\n</think>\n\nBecause</s>[INST] More[/INST] Sure</s>", NULL},
    {blocks, NULL, "can only concatenate str (not \"list\") to str"},
    {wrong_order, NULL, "user and assistant must take turns"},
};

static void test_mistral_tools_and_alternation(void **state) {
    (void)state;
    check(mistral_tools_and_alternation, mistral_tools_and_alternation_cases,
          BASE_COUNT(mistral_tools_and_alternation_cases));
}

static const char gemma2_no_system[] =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif "
    "%}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = "
    "message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n"
    "' + message['content'] | trim + '<end_of_turn>\n"
    "' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n"
    "'}}{% endif %}";
static const Case gemma2_no_system_cases[] = {
    {one_turn, "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n", NULL},
    {system_and_turns, NULL, "System role not supported"},
    {tool_turns, NULL, "Conversation roles must alternate"},
    {two_results, NULL, "Conversation roles must alternate"},
    {thoughts,
     "<s><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n<think>\nwhy\n</"
     "think>\n\nBecause<end_of_turn>\n<start_of_turn>user\nMore<end_of_turn>\n<start_of_turn>"
     "model\nSure<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {blocks,
     "<s><start_of_turn>user\n[{'type': 'image'}, {'type': 'text', 'text': ' look "
     "'}]<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {wrong_order, NULL, "Conversation roles must alternate"},
};

static void test_gemma2_no_system(void **state) {
    (void)state;
    check(gemma2_no_system, gemma2_no_system_cases, BASE_COUNT(gemma2_no_system_cases));
}

static const char gemma3_system_folded_and_blocks[] =
    "{{ bos_token }}\n"
    "{%- if messages[0]['role'] == 'system' -%}\n"
    "    {%- set prefix = (messages[0]['content'] if messages[0]['content'] is string else "
    "messages[0]['content'][0]['text']) + '\n"
    "\n"
    "' -%}\n"
    "    {%- set turns = messages[1:] -%}\n"
    "{%- else -%}\n"
    "    {%- set prefix = \"\" -%}\n"
    "    {%- set turns = messages -%}\n"
    "{%- endif -%}\n"
    "{%- for message in turns -%}\n"
    "    {%- set role = \"model\" if message['role'] == 'assistant' else message['role'] -%}\n"
    "    {{ '<start_of_turn>' + role + '\n"
    "' + (prefix if loop.first else \"\") }}\n"
    "    {%- if message['content'] is string -%}\n"
    "        {{ message['content'] | trim }}\n"
    "    {%- elif message['content'] is iterable -%}\n"
    "        {%- for item in message['content'] -%}\n"
    "            {%- if item['type'] == 'image' -%}\n"
    "                {{ '<start_of_image>' }}\n"
    "            {%- elif item['type'] == 'text' -%}\n"
    "                {{ item['text'] | trim }}\n"
    "            {%- endif -%}\n"
    "        {%- endfor -%}\n"
    "    {%- else -%}\n"
    "        {{ raise_exception(\"Invalid content type\") }}\n"
    "    {%- endif -%}\n"
    "    {{ '<end_of_turn>\n"
    "' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "    {{'<start_of_turn>model\n"
    "'}}\n"
    "{%- endif -%}\n";
static const Case gemma3_system_folded_and_blocks_cases[] = {
    {one_turn, "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n", NULL},
    {system_and_turns,
     "<s><start_of_turn>user\n Be kind. "
     "\n\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n<start_of_turn>user\nBye "
     "😀<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {tool_turns,
     "<s><start_of_turn>user\nWeather?<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\n<start_"
     "of_turn>tool\n{\"t\": 21}<end_of_turn>\n<start_of_turn>model\n21 "
     "degrees<end_of_turn>\n<start_of_turn>user\nThanks<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {two_results,
     "<s><start_of_turn>user\nW?<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\n<start_of_turn>"
     "tool\n1<end_of_turn>\n<start_of_turn>tool\n2<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {thoughts,
     "<s><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n<think>\nwhy\n</"
     "think>\n\nBecause<end_of_turn>\n<start_of_turn>user\nMore<end_of_turn>\n<start_of_turn>"
     "model\nSure<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {blocks, "<s><start_of_turn>user\n<start_of_image>look<end_of_turn>\n<start_of_turn>model\n",
     NULL},
    {wrong_order,
     "<s><start_of_turn>model\nx<end_of_turn>\n<start_of_turn>user\ny<end_of_turn>\n<start_of_turn>"
     "model\n",
     NULL},
};

static void test_gemma3_system_folded_and_blocks(void **state) {
    (void)state;
    check(gemma3_system_folded_and_blocks, gemma3_system_folded_and_blocks_cases,
          BASE_COUNT(gemma3_system_folded_and_blocks_cases));
}

static const char recursive_macro_for_types[] =
    "{%- macro type_name(spec) %}\n"
    "{%- if spec.type is iterable and spec.type is not string %}\n"
    "    {{- spec.type | join(\" | \") }}\n"
    "{%- elif spec.type == \"array\" %}\n"
    "    {{- \"list[\" + type_name(spec[\"items\"]) + \"]\" }}\n"
    "{%- elif spec.type == \"object\" and spec.properties %}\n"
    "    {%- for name, sub in spec.properties|dictsort %}\n"
    "        {{- (\"{\" if loop.first else \", \") ~ name ~ \": \" ~ type_name(sub) }}\n"
    "        {%- if loop.last %}{{ \"}\" }}{% endif %}\n"
    "    {%- endfor %}\n"
    "{%- else %}\n"
    "    {{- {\"string\": \"str\", \"integer\": \"int\", \"number\": \"float\"}.get(spec.type, "
    "\"Any\") }}\n"
    "{%- endif %}\n"
    "{%- endmacro %}\n"
    "{%- for tool in tools or [] %}\n"
    "{%- set f = tool.function %}\n"
    "def {{ f.name }}({% for name, spec in f.parameters.properties.items() %}{{ name }}: {{ "
    "type_name(spec) }}{{ \"\" if name in (f.parameters.required | default([])) else \" = None\" "
    "}}{{ \", \" if not loop.last }}{% endfor %})\n"
    "{%- endfor %}\n";
static const Case recursive_macro_for_types_cases[] = {
    {one_turn, "", NULL},
    {system_and_turns, "", NULL},
    {tool_turns,
     "def get_weather(city: str, days: integer | null = None, grid: list[list[float]] = None, o: "
     "{a: Any, b: str} = None)",
     NULL},
    {two_results,
     "def get_weather(city: str, days: integer | null = None, grid: list[list[float]] = None, o: "
     "{a: Any, b: str} = None)",
     NULL},
    {thoughts, "", NULL},
    {blocks, "", NULL},
    {wrong_order, "", NULL},
};

static void test_recursive_macro_for_types(void **state) {
    (void)state;
    check(recursive_macro_for_types, recursive_macro_for_types_cases,
          BASE_COUNT(recursive_macro_for_types_cases));
}

static const char assistant_marked_for_masks[] = "{% for m in messages %}\n"
                                                 "{% if m.role == 'assistant' %}\n"
                                                 "{% generation %}\n"
                                                 "{{ m.content }}{{ eos_token }}\n"
                                                 "{% endgeneration %}\n"
                                                 "{% else %}\n"
                                                 "[{{ m.role | upper }}] {{ m.content }}\n"
                                                 "{% endif %}\n"
                                                 "{% endfor %}\n";
static const Case assistant_marked_for_masks_cases[] = {
    {one_turn, "[USER] Hello\n", NULL},
    {system_and_turns, "[SYSTEM]  Be kind. \n[USER]  Hi\n\n Yo </s>\n[USER] Bye 😀\n", NULL},
    {tool_turns, "[USER] Weather?\n</s>\n[TOOL] {\"t\": 21}\n21 degrees</s>\n[USER] Thanks\n",
     NULL},
    {two_results, "[USER] W?\n</s>\n[TOOL] 1\n[TOOL] 2\n", NULL},
    {thoughts, "[USER] Q\n<think>\nwhy\n</think>\n\nBecause</s>\n[USER] More\nSure</s>\n", NULL},
    {blocks, "[USER] [{'type': 'image'}, {'type': 'text', 'text': ' look '}]\n", NULL},
    {wrong_order, "x</s>\n[USER] y\n", NULL},
};

static void test_assistant_marked_for_masks(void **state) {
    (void)state;
    check(assistant_marked_for_masks, assistant_marked_for_masks_cases,
          BASE_COUNT(assistant_marked_for_masks_cases));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chatml_with_default_system),
        cmocka_unit_test(test_llama3_tools_and_date),
        cmocka_unit_test(test_qwen25_tool_results_grouped),
        cmocka_unit_test(test_qwen3_thinking),
        cmocka_unit_test(test_phi3_roles),
        cmocka_unit_test(test_mistral_tools_and_alternation),
        cmocka_unit_test(test_gemma2_no_system),
        cmocka_unit_test(test_gemma3_system_folded_and_blocks),
        cmocka_unit_test(test_recursive_macro_for_types),
        cmocka_unit_test(test_assistant_marked_for_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
