/* jinja_repr: the output of a render, and values as text the way Python's str()
 * and repr() write them. Floats are the shortest text that reads back as the
 * same number. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

size_t jinja_mark(const Render *r) {
    return r->out.length;
}

/* The text written since `mark`, off the output. */
Value jinja_take(Render *r, size_t mark) {
    size_t length = r->out.length - mark;
    Value value = jinja_string(r, length ? r->out.data + mark : "", length);
    r->out.length = mark;
    return value;
}

void jinja_write(Render *r, const char *bytes, size_t length) {
    if (length > r->max_output || r->out.length > r->max_output - length)
        jinja_raise(r, "LimitError", "the output is larger than %zu bytes", r->max_output);
    jinja_charge(r, length / 64);
    base_str_append_n(&r->out, bytes, length);
}

void jinja_puts(Render *r, const char *text) {
    jinja_write(r, text, strlen(text));
}
void jinja_putc(Render *r, char character) {
    jinja_write(r, &character, 1);
}

void jinja_put_point(Render *r, uint32_t point) {
    char bytes[4];
    jinja_write(r, bytes, base_utf8_encode(point, bytes));
}

void jinja_put_times(Render *r, uint32_t point, int64_t times) {
    char bytes[4];
    size_t n = base_utf8_encode(point, bytes);
    if (times > 0 && (uint64_t)times > r->max_output)
        jinja_raise(r, "LimitError", "the output is larger than %zu bytes", r->max_output);
    for (int64_t i = 0; i < times; i++) jinja_write(r, bytes, n);
    if (times > 0) jinja_charge(r, (size_t)times / 16);
}

/* repr(float): as %e with the fewest digits that read back, then fixed point
 * for decimal exponents from -4 to 15. */
void jinja_write_float(Render *r, double value) {
    char text[40], digits[24];
    if (isnan(value)) {
        jinja_puts(r, "nan");
        return;
    }
    if (isinf(value)) {
        jinja_puts(r, value < 0 ? "-inf" : "inf");
        return;
    }
    for (int precision = 0; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value) break;
    }
    char *mark = strchr(text, 'e');
    int exponent = atoi(mark + 1), n = 0;
    for (const char *c = text; c < mark; c++)
        if (*c >= '0' && *c <= '9') digits[n++] = *c;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (signbit(value)) jinja_putc(r, '-');
    if (exponent < -4 || exponent >= 16) {
        jinja_putc(r, digits[0]);
        if (n > 1) jinja_putc(r, '.');
        jinja_write(r, digits + 1, (size_t)n - 1);
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        jinja_puts(r, text);
    } else if (exponent < 0) {
        jinja_puts(r, "0.");
        jinja_put_times(r, '0', -exponent - 1);
        jinja_write(r, digits, (size_t)n);
    } else {
        int whole = exponent + 1;
        jinja_write(r, digits, (size_t)BASE_MIN(n, whole));
        jinja_put_times(r, '0', whole - n);
        jinja_putc(r, '.');
        if (n > whole)
            jinja_write(r, digits + whole, (size_t)(n - whole));
        else
            jinja_putc(r, '0');
    }
}

static void write_string_repr(Render *r, const Str *string) {
    char quote =
        memchr(string->data, '\'', string->length) && !memchr(string->data, '"', string->length)
            ? '"'
            : '\'';
    jinja_putc(r, quote);
    for (size_t i = 0; i < string->length;) {
        uint32_t point;
        char escape[16];
        size_t n = base_utf8_decode(string->data + i, string->length - i, &point, NULL);
        if (point == (uint32_t)quote || point == '\\') {
            jinja_putc(r, '\\');
            jinja_putc(r, (char)point);
        } else if (point == '\n' || point == '\r' || point == '\t') {
            jinja_puts(r, point == '\n' ? "\\n" : point == '\r' ? "\\r" : "\\t");
        } else if (jinja_is_printable(point)) {
            jinja_write(r, string->data + i, n);
        } else {
            const char *format = point < 0x100     ? "\\x%02x"
                                 : point < 0x10000 ? "\\u%04x"
                                                   : "\\U%08x";
            snprintf(escape, sizeof escape, format, point);
            jinja_puts(r, escape);
        }
        i += n;
    }
    jinja_putc(r, quote);
}

static void write_items(Render *r, const List *list, char open, char close) {
    jinja_putc(r, open);
    for (size_t i = 0; i < list->count; i++) {
        if (i) jinja_puts(r, ", ");
        jinja_write_repr(r, list->items[i]);
    }
    if (open == '(' && list->count == 1) jinja_putc(r, ',');
    jinja_putc(r, close);
}

static void write_dict(Render *r, const Dict *dict) {
    jinja_putc(r, '{');
    for (size_t i = 0; i < dict->count; i++) {
        if (i) jinja_puts(r, ", ");
        jinja_write_repr(r, dict->pairs[i].key);
        jinja_puts(r, ": ");
        jinja_write_repr(r, dict->pairs[i].value);
    }
    jinja_putc(r, '}');
}

static void write_range(Render *r, const Range *range) {
    char text[96];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)range->start,
                     (long long)range->stop);
    jinja_write(r, text, (size_t)n);
    if (range->step != 1)
        jinja_write(r, text, (size_t)snprintf(text, sizeof text, ", %lld", (long long)range->step));
    jinja_putc(r, ')');
}

static void write_macro(Render *r, const Macro *macro) {
    if (macro->node->name) {
        jinja_puts(r, "<Macro ");
        write_string_repr(r, macro->node->name);
        jinja_putc(r, '>');
    } else {
        jinja_puts(r, "<Macro anonymous>");
    }
}

void jinja_write_repr(Render *r, Value value) {
    char text[64];
    jinja_charge(r, 1);
    jinja_check_stack(r);
    switch (value.kind) {
    case V_UNDEFINED: jinja_puts(r, "Undefined"); return;
    case V_NONE: jinja_puts(r, "None"); return;
    case V_BOOL: jinja_puts(r, value.as.truth ? "True" : "False"); return;
    case V_INT:
        jinja_write(r, text,
                    (size_t)snprintf(text, sizeof text, "%lld", (long long)value.as.integer));
        return;
    case V_FLOAT: jinja_write_float(r, value.as.real); return;
    case V_STRING:
        if (value.markup) jinja_puts(r, "Markup(");
        write_string_repr(r, value.as.string);
        if (value.markup) jinja_putc(r, ')');
        return;
    case V_LIST: write_items(r, value.as.list, '[', ']'); return;
    case V_TUPLE: write_items(r, value.as.list, '(', ')'); return;
    case V_DICT: write_dict(r, value.as.dict); return;
    case V_RANGE: write_range(r, value.as.range); return;
    case V_VIEW:
        jinja_puts(r, jinja_type_name(value));
        jinja_putc(r, '(');
        write_items(r, jinja_collect(r, value), '[', ']');
        jinja_putc(r, ')');
        return;
    case V_NAMESPACE:
        jinja_puts(r, "<Namespace ");
        write_dict(r, value.as.dict);
        jinja_putc(r, '>');
        return;
    case V_MACRO: write_macro(r, value.as.macro); return;
    case V_LOOP:
        jinja_write(r, text,
                    (size_t)snprintf(text, sizeof text, "<LoopContext %lld/%lld>",
                                     (long long)value.as.loop->index0 + 1,
                                     (long long)jinja_loop_length(r, value.as.loop)));
        return;
    default:
        jinja_putc(r, '<');
        jinja_puts(r, jinja_type_name(value));
        jinja_puts(r, " object>");
        return;
    }
}

void jinja_write_str(Render *r, Value value) {
    if (value.kind == V_STRING)
        jinja_write(r, value.as.string->data, value.as.string->length);
    else if (value.kind != V_UNDEFINED)
        jinja_write_repr(r, value);
}

Value jinja_str(Render *r, Value value) {
    if (value.kind == V_STRING) return value;
    size_t mark = jinja_mark(r);
    jinja_write_str(r, value);
    return jinja_take(r, mark);
}

Value jinja_plain(Value value) {
    value.markup = false;
    return value;
}

const char *jinja_repr_text(Render *r, Value value) {
    size_t mark = jinja_mark(r);
    jinja_write_repr(r, value);
    return jinja_take(r, mark).as.string->data;
}
