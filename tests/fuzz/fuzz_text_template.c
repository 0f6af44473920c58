/* Any bytes as a chat template, rendered with a fixed conversation under small
 * limits: it must give a text or an error, in bounded time and memory. */
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

static const char variables[] =
    "{\"bos_token\":\"<s>\",\"eos_token\":\"</"
    "s>\",\"add_generation_prompt\":true,\"n\":null,\"i\":3,\"f\":1.5,"
    "\"s\":\"h\\u00e9 'x'\",\"l\":[3,1,2],\"d\":{\"a\":1,\"items\":[1]},"
    "\"messages\":[{\"role\":\"system\",\"content\":\"be "
    "brief\"},{\"role\":\"user\",\"content\":\" hi \"},"
    "{\"role\":\"assistant\",\"content\":\"yo\",\"tool_calls\":[{\"type\":\"function\","
    "\"function\":{\"name\":\"f\","
    "\"arguments\":{\"x\":[1,2.5,true]}}}]}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"
    "\"object\"}}}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static json_t *context;
    Error err = {0};
    if (!context) context = base_json_parse(variables, sizeof variables - 1, "variables", &err);
    TextTemplate *parsed = text_template_parse((const char *)data, size, &err);
    if (!parsed) {
        if (err.code == ERROR_NONE) abort();
        return 0;
    }
    struct tm now = {.tm_year = 124, .tm_mon = 6, .tm_mday = 26};
    TextTemplateReport report = {0};
    TextTemplateOptions options = {.now = &now,
                                   .max_output = 1 << 16,
                                   .max_memory = 4 << 20,
                                   .max_operations = 50000,
                                   .report = &report};
    char *text = text_template_render(parsed, context, &options, &err);
    if (!text && err.code == ERROR_NONE) abort();
    if (text && (text[report.length] != 0 || !base_utf8_valid(text, report.length))) abort();
    free(text);
    text_template_report_free(&report);
    text_template_free(parsed);
    return 0;
}
