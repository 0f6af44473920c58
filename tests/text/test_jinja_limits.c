/* Hostile templates: each ends in an error of one line, soon and without harm;
 * and numbers and dates do not depend on the program's locale. */
#include <locale.h>

#include "jinja_rows.h"

static char *repeat(const char *piece, size_t times) {
    StrBuf text = {0};
    for (size_t i = 0; i < times; i++) base_str_append(&text, piece);
    return base_str_detach(&text);
}

static char *surround(const char *before, const char *piece, size_t times, const char *after) {
    char *middle = repeat(piece, times);
    char *all = base_format("%s%s%s", before, middle, after);
    free(middle);
    return all;
}

/* The template must fail, with `words` in the message. */
static void fails(const char *source, const char *words) {
    char *text = rows_render(source, NULL);
    if (strncmp(text, "ERROR: ", 7) != 0 || !strstr(text, words))
        fail_msg("%.80s: %.200s instead of %s", source, text, words);
    free(text);
}

static void fails_repeated(const char *before, const char *piece, const char *after,
                           const char *words) {
    char *source = surround(before, piece, 10000, after);
    fails(source, words);
    free(source);
}

static void test_deep_nesting_is_refused_while_parsing(void **state) {
    (void)state;
    fails_repeated("{{ ", "(", "1 }}", "nested too deeply");
    fails_repeated("{{ ", "[", " }}", "nested too deeply");
    fails_repeated("{{ ", "-", "1 }}", "nested too deeply");
    fails_repeated("{{ ", "not ", "1 }}", "nested too deeply");
    fails_repeated("{{ 1", "+1", " }}", "nested too deeply");
    fails_repeated("{{ 1", "|string", " }}", "nested too deeply");
    fails_repeated("{{ x", ".a", " }}", "nested too deeply");
    fails_repeated("{{ x", "[0]", " }}", "nested too deeply");
    fails_repeated("{{ 1", " if 1 else 1", " }}", "nested too deeply");
    fails_repeated("", "{% if 1 %}", "", "nested too deeply");
    fails_repeated("", "{% for i in [1] %}", "", "nested too deeply");
}

static void test_long_flat_templates_are_fine(void **state) {
    (void)state;
    char *source = surround("{% if 0 %}", "{% elif 0 %}", 10000, "{% else %}x{% endif %}");
    char *text = rows_render(source, NULL);
    assert_string_equal(text, "x");
    free(text);
    free(source);
    source = surround("{{ [", "1,", 10000, "]|length }}");
    text = rows_render(source, NULL);
    assert_string_equal(text, "10000");
    free(text);
    free(source);
}

static void test_recursion_is_bounded(void **state) {
    (void)state;
    fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError");
    fails("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "RecursionError");
    fails("{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}", "RecursionError");
    fails("{% set ns = namespace() %}{% set ns.a = (ns,) %}{{ ns == ns }}{{ ns.a|string }}",
          "RecursionError");
    fails("{% set ns = namespace(l=[]) %}{% for i in range(50000) %}{% set ns.l = [ns.l] %}{% "
          "endfor %}{{ ns.l }}",
          "RecursionError");
    fails("{% set ns = namespace(l=[]) %}{% for i in range(50000) %}{% set ns.l = [ns.l] %}{% "
          "endfor %}{{ ns.l|tojson }}",
          "RecursionError");
    fails("{% set ns = namespace(l=[1]|map('string')) %}{% for i in range(50000) %}{% set ns.l = "
          "ns.l|map('string') %}"
          "{% endfor %}{{ ns.l|list }}",
          "RecursionError");
}

static void test_work_is_bounded(void **state) {
    (void)state;
    fails("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
          "operations");
    fails("{% for i in range(100000) %}{% set x = range(100000)|list %}{% endfor %}", "Error");
    fails("{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaa' * 1000 }}{% endfor %}",
          "output is larger");
    fails(
        "{{ range(100001) }}",
        "OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
}

static void test_memory_is_bounded(void **state) {
    (void)state;
    fails("{{ 'a' * 10**9 }}", "MemoryError");
    fails("{{ [0] * 10**9 }}", "MemoryError");
    fails("{{ 'abc' * 9223372036854775807 }}", "MemoryError");
    fails("{{ [1, 2] * 9223372036854775807 }}", "MemoryError");
    fails("{{ '%1000000000d' % 1 }}", "larger");
    fails("{{ '%.1000000000f' % 1 }}", "precision too big");
    fails("{{ '%99999999999999999999d' % 1 }}", "width too big");
    fails("{{ '{:1000000000}'.format(1) }}", "larger");
    fails("{{ 'a'.center(10**12) }}", "larger");
    fails("{{ 'a'.zfill(10**12) }}", "larger");
    fails("{{ 'a'|center(10**12) }}", "larger");
    fails("{{ 'a\nb'|indent(10**12) }}", "MemoryError");
    fails("{{ [1]|tojson(indent=10**12) }}", "MemoryError");
    fails("{{ [1]|batch(10**12, 0)|list }}", "Error");
    fails("{{ [1]|slice(10**12)|list }}", "Error");
    fails("{{ strftime_now('%1000000d') }}", "ValueError");
    fails("{% set ns = namespace(s='ab') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% "
          "endfor %}",
          "MemoryError");
    fails("{% set ns = namespace(s='ab') %}{% for i in range(100) %}{% set ns.s = "
          "ns.s|replace('a', ns.s) %}{% endfor %}",
          "Error");
}

static void test_integers_beyond_64_bits_are_errors(void **state) {
    (void)state;
    fails("{{ 9223372036854775807 + 1 }}", "OverflowError");
    fails("{{ -9223372036854775807 - 2 }}", "OverflowError");
    fails("{{ 10 ** 19 }}", "OverflowError");
    fails("{{ 3037000500 * 3037000500 }}", "OverflowError");
    fails("{{ 99999999999999999999 }}", "64 bits");
    fails("{{ '99999999999999999999'|int }}", "OverflowError");
    fails("{{ (-9223372036854775807 - 1) // -1 }}", "OverflowError");
    fails("{{ (-9223372036854775807 - 1)|abs }}", "OverflowError");
    char *text = rows_render("{{ (-9223372036854775807 - 1) % -1 }}", NULL);
    assert_string_equal(text, "0");
    free(text);
}

static void test_limits_can_be_chosen(void **state) {
    (void)state;
    Error err = {0};
    const char source[] = "{% for i in range(100) %}0123456789{% endfor %}";
    TextTemplate *parsed = text_template_parse(source, sizeof source - 1, &err);
    assert_non_null(parsed);
    assert_null(
        text_template_render(parsed, NULL, &(TextTemplateOptions){.max_output = 999}, &err));
    assert_non_null(strstr(err.message, "the output is larger than 999 bytes"));
    base_error_clear(&err);
    assert_null(
        text_template_render(parsed, NULL, &(TextTemplateOptions){.max_operations = 100}, &err));
    assert_non_null(strstr(err.message, "more than 100 operations"));
    base_error_clear(&err);
    assert_null(
        text_template_render(parsed, NULL, &(TextTemplateOptions){.max_memory = 200}, &err));
    base_error_clear(&err);
    char *text =
        text_template_render(parsed, NULL, &(TextTemplateOptions){.max_output = 1000}, &err);
    assert_int_equal(strlen(text), 1000);
    free(text);
    text_template_free(parsed);
}

static void test_invalid_utf8_is_refused(void **state) {
    (void)state;
    fails("a\xff", "UTF-8");
    fails("{{ '\xed\xa0\x80' }}", "UTF-8");
    fails("{{ '\\ud800' }}", "surrogate");
}

static void test_many_messages_render(void **state) {
    (void)state;
    json_t *messages = json_array(), *variables = json_object();
    for (int i = 0; i < 20000; i++)
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", "user", "content", "hello"));
    json_object_set_new(variables, "messages", messages);
    char *text = rows_render(
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s + m.content %}"
        "{% endfor %}{{ ns.s|length }}",
        variables);
    assert_string_equal(text, "100000");
    free(text);
    json_decref(variables);
}

static void test_line_numbers_name_the_failing_line(void **state) {
    (void)state;
    fails("a\nb\n{% foo %}", "line 3: Encountered unknown tag 'foo'.");
    fails("a\n{{ x.y }}", "line 2: UndefinedError: 'x' is undefined");
    fails("\n\n{{ raise_exception('no') }}", "line 3: TemplateError: no");
}

static void test_other_locales_change_nothing(void **state) {
    (void)state;
    if (!setlocale(LC_ALL, "de_DE.UTF-8")) setlocale(LC_ALL, "");
    char *text = rows_render(
        "{{ 1.5 }} {{ '%.2f' % 2.5 }} {{ '1.25'|float }} {{ strftime_now('%B') }}", NULL);
    setlocale(LC_ALL, "C");
    assert_string_equal(text, "1.5 2.50 1.25 July");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deep_nesting_is_refused_while_parsing),
        cmocka_unit_test(test_long_flat_templates_are_fine),
        cmocka_unit_test(test_recursion_is_bounded),
        cmocka_unit_test(test_work_is_bounded),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_integers_beyond_64_bits_are_errors),
        cmocka_unit_test(test_limits_can_be_chosen),
        cmocka_unit_test(test_invalid_utf8_is_refused),
        cmocka_unit_test(test_many_messages_render),
        cmocka_unit_test(test_line_numbers_name_the_failing_line),
        cmocka_unit_test(test_other_locales_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
