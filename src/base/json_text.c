/* JSON as Python's json.dump(indent=4) writes it, byte for byte: keys in their
 * order, everything past ASCII escaped, floats with the fewest digits that read
 * back as the same number. */
#include "base/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* repr() of a float: digits and exponent apart, plain between 1e-4 and 1e16. */
static void append_real(StrBuf *out, double value) {
    char text[40], digits[24];
    if (!isfinite(value)) {
        base_str_append(out, isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity");
        return;
    }
    int precision = 0;
    do snprintf(text, sizeof text, "%.*e", precision, value);
    while (++precision <= 17 && strtod(text, NULL) != value);
    const char *mark = strchr(text, 'e'), *at = text;
    int exponent = mark ? (int)strtol(mark + 1, NULL, 10) : 0, count = 0;
    if (*at == '-') base_str_append_char(out, *at++);
    for (; at < mark && count < 20; at++)
        if (*at != '.') digits[count++] = *at;
    while (count > 1 && digits[count - 1] == '0') count--;
    if (exponent < -4 || exponent >= 16) {
        base_str_append_char(out, digits[0]);
        if (count > 1) base_str_appendf(out, ".%.*s", count - 1, digits + 1);
        base_str_appendf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        base_str_append(out, "0.");
        for (int i = -1; i > exponent; i--) base_str_append_char(out, '0');
        base_str_append_n(out, digits, (size_t)count);
        return;
    }
    for (int i = 0; i <= exponent; i++) base_str_append_char(out, i < count ? digits[i] : '0');
    base_str_append_char(out, '.');
    if (count > exponent + 1)
        base_str_append_n(out, digits + exponent + 1, (size_t)(count - exponent - 1));
    else
        base_str_append_char(out, '0');
}

static void append_text(StrBuf *out, const char *text, size_t length) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    base_str_append_char(out, '"');
    for (size_t at = 0; at < length;) {
        uint32_t c = 0;
        at += base_utf8_decode(text + at, length - at, &c, NULL);
        const char *special = c && c < 128 ? strchr(from, (int)c) : NULL;
        if (special)
            base_str_appendf(out, "\\%c", to[special - from]);
        else if (c >= 32 && c < 127)
            base_str_append_char(out, (char)c);
        else if (c < 0x10000)
            base_str_appendf(out, "\\u%04x", c);
        else
            base_str_appendf(out, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                             0xDC00 + ((c - 0x10000) & 0x3FF));
    }
    base_str_append_char(out, '"');
}

static void append_line(StrBuf *out, int depth) {
    base_str_append_char(out, '\n');
    for (int i = 0; i < depth; i++) base_str_append(out, "    ");
}

static void append_value(StrBuf *out, const json_t *value, int depth);

static void append_list(StrBuf *out, const json_t *list, int depth) {
    size_t i;
    json_t *item;
    base_str_append_char(out, '[');
    json_array_foreach((json_t *)list, i, item) {
        if (i) base_str_append_char(out, ',');
        append_line(out, depth + 1);
        append_value(out, item, depth + 1);
    }
    if (json_array_size(list)) append_line(out, depth);
    base_str_append_char(out, ']');
}

static void append_object(StrBuf *out, const json_t *object, int depth) {
    const char *key;
    json_t *item;
    bool first = true;
    base_str_append_char(out, '{');
    json_object_foreach((json_t *)object, key, item) {
        if (!first) base_str_append_char(out, ',');
        first = false;
        append_line(out, depth + 1);
        append_text(out, key, strlen(key));
        base_str_append(out, ": ");
        append_value(out, item, depth + 1);
    }
    if (!first) append_line(out, depth);
    base_str_append_char(out, '}');
}

static void append_value(StrBuf *out, const json_t *value, int depth) {
    switch (json_typeof(value)) {
    case JSON_OBJECT: append_object(out, value, depth); break;
    case JSON_ARRAY: append_list(out, value, depth); break;
    case JSON_STRING: append_text(out, json_string_value(value), json_string_length(value)); break;
    case JSON_INTEGER: base_str_appendf(out, "%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: append_real(out, json_real_value(value)); break;
    case JSON_TRUE: base_str_append(out, "true"); break;
    case JSON_FALSE: base_str_append(out, "false"); break;
    case JSON_NULL: base_str_append(out, "null"); break;
    }
}

char *base_json_text(const json_t *value) {
    StrBuf out = {0};
    base_str_append(&out, "");
    append_value(&out, value, 0);
    return base_str_detach(&out);
}

bool base_json_save_ordered(const char *path, const json_t *value, Error *err) {
    char *text = base_json_text(value);
    bool saved = base_file_write(path, text, strlen(text), err);
    free(text);
    return saved;
}
