/* jinja_json: JSON into values, and the filter tojson, which writes as Python's
 * json.dumps does: separators, indentation, key conversions and escapes of
 * that function, non-ASCII text as it is unless asked otherwise. */
#include <math.h>
#include <string.h>

#include "text/jinja.h"

/* The strings are borrowed: the JSON lives as long as the render. */
Value jinja_from_json(Render *r, const json_t *json) {
    jinja_charge(r, 1);
    jinja_check_stack(r);
    switch (json_typeof(json)) {
    case JSON_NULL: return jinja_none();
    case JSON_TRUE: return jinja_bool(true);
    case JSON_FALSE: return jinja_bool(false);
    case JSON_INTEGER: return jinja_int(json_integer_value(json));
    case JSON_REAL: return jinja_float(json_real_value(json));
    case JSON_STRING:
        return jinja_string_borrow(r, json_string_value(json), json_string_length(json));
    case JSON_ARRAY: {
        List *list = jinja_list_new(r, json_array_size(json));
        for (size_t i = 0; i < json_array_size(json); i++)
            jinja_list_add(r, list, jinja_from_json(r, json_array_get(json, i)));
        return jinja_list(list);
    }
    default: {
        Dict *dict = jinja_dict_new(r);
        const char *key;
        json_t *member;
        json_object_foreach((json_t *)json, key, member)
            jinja_dict_set(r, dict, jinja_text(r, key), jinja_from_json(r, member));
        return (Value){.kind = V_DICT, .as.dict = dict};
    }
    }
}

typedef struct Writer {
    bool ascii, sort, pretty;
    Value indent; /* the text of one level */
    Value item_separator, key_separator;
} Writer;

static void write_escape(Render *r, uint32_t unit) {
    char text[8];
    snprintf(text, sizeof text, "\\u%04x", unit & 0xffffu);
    jinja_puts(r, text);
}

static void write_string(Render *r, const Writer *w, const Str *string) {
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    jinja_putc(r, '"');
    for (size_t i = 0; i < string->length;) {
        uint32_t point;
        size_t n = base_utf8_decode(string->data + i, string->length - i, &point, NULL);
        const char *simple = point && point < 0x80 ? strchr(from, (int)point) : NULL;
        if (simple) {
            jinja_putc(r, '\\');
            jinja_putc(r, to[simple - from]);
        } else if (point < 0x20 || (w->ascii && point >= 0x7f && point < 0x10000)) {
            write_escape(r, point);
        } else if (w->ascii && point >= 0x10000) {
            write_escape(r, 0xD800 + ((point - 0x10000) >> 10));
            write_escape(r, 0xDC00 + ((point - 0x10000) & 0x3ff));
        } else {
            jinja_write(r, string->data + i, n);
        }
        i += n;
    }
    jinja_putc(r, '"');
}

static void write_float(Render *r, double value) {
    if (isnan(value))
        jinja_puts(r, "NaN");
    else if (isinf(value))
        jinja_puts(r, value < 0 ? "-Infinity" : "Infinity");
    else
        jinja_write_float(r, value);
}

static void write_line(Render *r, const Writer *w, size_t level) {
    if (!w->pretty) return;
    jinja_putc(r, '\n');
    for (size_t i = 0; i < level; i++) jinja_write_str(r, w->indent);
}

static void write_key(Render *r, const Writer *w, Value key) {
    switch (key.kind) {
    case V_STRING: write_string(r, w, key.as.string); return;
    case V_NONE: jinja_puts(r, "\"null\""); return;
    case V_BOOL: jinja_puts(r, key.as.truth ? "\"true\"" : "\"false\""); return;
    case V_INT:
    case V_FLOAT:
        jinja_putc(r, '"');
        if (key.kind == V_INT)
            jinja_write_repr(r, key);
        else
            write_float(r, key.as.real);
        jinja_putc(r, '"');
        return;
    default:
        jinja_raise(r, "TypeError", "keys must be str, int, float, bool or None, not %s",
                    jinja_type_name(key));
    }
}

static void write_value(Render *r, const Writer *w, Value value, size_t level);

static void write_object(Render *r, const Writer *w, const Dict *dict, size_t level) {
    const Pair *pairs = dict->pairs;
    if (dict->count == 0) {
        jinja_puts(r, "{}");
        return;
    }
    if (w->sort) {
        Pair *sorted = jinja_alloc(r, dict->count * sizeof *sorted);
        memcpy(sorted, dict->pairs, dict->count * sizeof *sorted);
        jinja_sort(r, sorted, dict->count, false);
        pairs = sorted;
    }
    jinja_putc(r, '{');
    for (size_t i = 0; i < dict->count; i++) {
        if (i) jinja_write_str(r, w->item_separator);
        write_line(r, w, level + 1);
        write_key(r, w, pairs[i].key);
        jinja_write_str(r, w->key_separator);
        write_value(r, w, pairs[i].value, level + 1);
    }
    write_line(r, w, level);
    jinja_putc(r, '}');
}

static void write_array(Render *r, const Writer *w, const List *list, size_t level) {
    if (list->count == 0) {
        jinja_puts(r, "[]");
        return;
    }
    jinja_putc(r, '[');
    for (size_t i = 0; i < list->count; i++) {
        if (i) jinja_write_str(r, w->item_separator);
        write_line(r, w, level + 1);
        write_value(r, w, list->items[i], level + 1);
    }
    write_line(r, w, level);
    jinja_putc(r, ']');
}

static void write_value(Render *r, const Writer *w, Value value, size_t level) {
    jinja_charge(r, 1);
    jinja_check_stack(r);
    switch (value.kind) {
    case V_NONE: jinja_puts(r, "null"); return;
    case V_BOOL: jinja_puts(r, value.as.truth ? "true" : "false"); return;
    case V_INT: jinja_write_repr(r, value); return;
    case V_FLOAT: write_float(r, value.as.real); return;
    case V_STRING: write_string(r, w, value.as.string); return;
    case V_LIST:
    case V_TUPLE: write_array(r, w, value.as.list, level); return;
    case V_DICT: write_object(r, w, value.as.dict, level); return;
    default:
        jinja_raise(r, "TypeError", "Object of type %s is not JSON serializable",
                    jinja_type_name(value));
    }
}

static void read_separators(Render *r, Writer *w, Value separators) {
    List *parts = jinja_collect(r, separators);
    if (parts->count < 2)
        jinja_raise(r, "ValueError", "not enough values to unpack (expected 2, got %zu)",
                    parts->count);
    if (parts->count > 2) jinja_raise(r, "ValueError", "too many values to unpack (expected 2)");
    if (parts->items[0].kind != V_STRING || parts->items[1].kind != V_STRING)
        jinja_raise(r, "TypeError", "separators must be strings");
    w->item_separator = parts->items[0];
    w->key_separator = parts->items[1];
}

/* tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) */
Value jinja_tojson(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    int64_t spaces;
    Writer w = {.ascii = jinja_truth(r, slot[0]),
                .sort = jinja_truth(r, slot[3]),
                .pretty = slot[1].kind != V_MISSING && slot[1].kind != V_NONE};
    w.item_separator = jinja_text(r, w.pretty ? "," : ", ");
    w.key_separator = jinja_text(r, ": ");
    if (w.pretty && jinja_as_int(slot[1], &spaces))
        w.indent = jinja_repeat(r, jinja_text(r, " ").as.string, spaces);
    else if (w.pretty && slot[1].kind == V_STRING)
        w.indent = slot[1];
    else if (w.pretty)
        jinja_raise(r, "TypeError", "indent must be an integer or a string, not %s",
                    jinja_type_name(slot[1]));
    if (slot[2].kind != V_MISSING && slot[2].kind != V_NONE) read_separators(r, &w, slot[2]);
    size_t mark = jinja_mark(r);
    write_value(r, &w, self, 0);
    return jinja_take(r, mark);
}
