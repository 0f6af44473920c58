/* Rows of a template and what it must give, and the check that walks them.
 * Expected texts were made with jinja2 3.1.6 in the environment of
 * transformers 5.23 (chat_template_utils), at 2024-07-26 13:05:09. */
#ifndef TESTS_TEXT_JINJA_ROWS_H
#define TESTS_TEXT_JINJA_ROWS_H

/* cmocka wants these first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/template.h"

typedef struct Row {
    const char *source;
    const char *output; /* NULL: it must fail */
    const char *error;  /* a part of the message */
} Row;

static inline struct tm rows_now(void) {
    return (struct tm){.tm_year = 124,
                       .tm_mon = 6,
                       .tm_mday = 26,
                       .tm_wday = 5,
                       .tm_yday = 207,
                       .tm_hour = 13,
                       .tm_min = 5,
                       .tm_sec = 9};
}

/* What a template gives, or "ERROR: message". Caller frees. */
static inline char *rows_render(const char *source, const json_t *variables) {
    Error err = {0};
    struct tm now = rows_now();
    TextTemplateOptions options = {
        .now = &now, .max_operations = 3000000, .max_memory = 64 << 20, .max_output = 8 << 20};
    TextTemplate *parsed = text_template_parse(source, strlen(source), &err);
    char *text = parsed ? text_template_render(parsed, variables, &options, &err) : NULL;
    text_template_free(parsed);
    return text ? text : base_format("ERROR: %s", err.message);
}

static inline void rows_check(const Row *rows, size_t count, const char *variables) {
    Error err = {0};
    json_t *json = base_json_parse(variables, strlen(variables), "variables", &err);
    if (!json) fail_msg("%s", err.message);
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) {
        char *text = rows_render(rows[i].source, json);
        bool failed = strncmp(text, "ERROR: ", 7) == 0;
        bool right = rows[i].output ? strcmp(text, rows[i].output) == 0
                                    : failed && strstr(text, rows[i].error);
        if (!right)
            print_error("%s\n  gives %s\n  not   %s\n", rows[i].source, text,
                        rows[i].output ? rows[i].output : rows[i].error);
        wrong += !right;
        free(text);
    }
    json_decref(json);
    assert_int_equal(wrong, 0);
}

#endif
