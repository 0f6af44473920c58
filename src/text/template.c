/* template: the face of the Jinja interpreter: parse a source, render it with
 * JSON variables under limits. Sets up the arena, the C locale for numbers and
 * dates, and the one place that a failure returns to. */
#include "text/template.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

enum { DEFAULT_OUTPUT = 64 << 20, DEFAULT_MEMORY = 512 << 20, DEFAULT_OPERATIONS = 50000000 };

/* Numbers have a point and months English names, whatever the program's locale. */
static locale_t enter_c_locale(locale_t *plain) {
    *plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return *plain ? uselocale(*plain) : (locale_t)0;
}

static void leave_c_locale(locale_t before, locale_t plain) {
    if (before) uselocale(before);
    if (plain) freelocale(plain);
}

/* setjmp lives in functions without locals that could be clobbered. */
static bool parse_guarded(Parser *p, TextTemplate *parsed, const char *source, size_t length) {
    if (setjmp(p->fail)) return false;
    jinja_lexer_start(p, source, length);
    jinja_parse_template(p, &parsed->body);
    jinja_check_template(p, &parsed->body);
    parsed->loop = jinja_intern(p, "loop", 4);
    parsed->caller = jinja_intern(p, "caller", 6);
    parsed->kwargs = jinja_intern(p, "kwargs", 6);
    parsed->varargs = jinja_intern(p, "varargs", 7);
    return true;
}

TextTemplate *text_template_parse(const char *source, size_t length, Error *err) {
    locale_t plain, before = enter_c_locale(&plain);
    TextTemplate *parsed = base_calloc(1, sizeof *parsed);
    parsed->arena = base_arena_new();
    Parser *p = base_calloc(1, sizeof *p);
    p->arena = parsed->arena;
    p->err = err;
    bool ok = parse_guarded(p, parsed, source, length);
    free(p);
    leave_c_locale(before, plain);
    if (ok) return parsed;
    text_template_free(parsed);
    return NULL;
}

void text_template_free(TextTemplate *parsed) {
    if (!parsed) return;
    base_arena_free(parsed->arena);
    free(parsed);
}

static bool render_guarded(Render *r, const json_t *variables) {
    r->stack = __builtin_frame_address(0);
    if (setjmp(r->fail)) return false;
    r->context = jinja_dict_new(r);
    r->root = jinja_env_new(r, NULL);
    if (variables) r->context = jinja_from_json(r, variables).as.dict;
    jinja_exec(r, r->root, &r->parsed->body);
    return true;
}

static void fill_report(TextTemplateReport *report, const Render *r) {
    *report = (TextTemplateReport){.length = r->out.length, .n_spans = r->n_spans};
    if (r->n_spans == 0) return;
    report->spans = base_calloc(r->n_spans, sizeof *report->spans);
    memcpy(report->spans, r->spans, r->n_spans * sizeof *report->spans);
}

char *text_template_render(const TextTemplate *parsed, const json_t *variables,
                           const TextTemplateOptions *options, Error *err) {
    static const TextTemplateOptions none = {0};
    if (!options) options = &none;
    if (variables && !json_is_object(variables)) {
        base_fail(err, ERROR_INPUT, "template: the variables are not a JSON object");
        return NULL;
    }
    locale_t plain, before = enter_c_locale(&plain);
    Render *r = base_calloc(1, sizeof *r);
    r->parsed = parsed;
    r->arena = base_arena_new();
    r->max_memory = options->max_memory ? options->max_memory : DEFAULT_MEMORY;
    r->max_output = options->max_output ? options->max_output : DEFAULT_OUTPUT;
    r->max_operations = options->max_operations ? options->max_operations : DEFAULT_OPERATIONS;
    r->now = options->now;
    r->line = 1;
    r->err = err;
    bool ok = render_guarded(r, variables);
    if (ok && options->report) fill_report(options->report, r);
    size_t length = r->out.length; /* what was taken off the end leaves no NUL there */
    char *text = ok ? base_str_detach(&r->out) : NULL;
    if (text) text[length] = 0;
    base_str_free(&r->out);
    base_arena_free(r->arena);
    free(r);
    leave_c_locale(before, plain);
    return text;
}

void text_template_report_free(TextTemplateReport *report) {
    if (!report) return;
    free(report->spans);
    *report = (TextTemplateReport){0};
}
