/* jinja_filters: the filters on single values: text, numbers, defaults,
 * escapes. Those on sequences are in jinja_filters_sequence.c. Each behaves as
 * jinja2's filter of that name without autoescape. */
#include <math.h>
#include <string.h>

#include "text/jinja.h"

#define UNUSED (void)r, (void)self, (void)slot, (void)args

static int64_t need_int(Render *r, Value value, int64_t absent) {
    int64_t i;
    if (value.kind == V_MISSING) return absent;
    if (!jinja_as_int(value, &i))
        jinja_raise(r, "TypeError", "'%s' object cannot be interpreted as an integer",
                    jinja_type_name(value));
    return i;
}

/* ---- text ------------------------------------------------------------------------- */

static Value f_upper(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_case(r, jinja_str(r, self), CASE_UPPER);
}

static Value f_lower(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_case(r, jinja_str(r, self), CASE_LOWER);
}

static Value f_capitalize(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_case(r, jinja_str(r, self), CASE_CAPITALIZE);
}

static bool separates_words(uint32_t point) {
    return jinja_is_space(point) || (point < 0x80 && point && strchr("-({[<", (int)point));
}

/* Each run of letters between separators: the first upper, the rest lower. */
static Value f_title(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    const Str *s = jinja_str(r, self).as.string;
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < s->length;) {
        uint32_t point;
        size_t first = base_utf8_decode(s->data + i, s->length - i, &point, NULL), end = i + first;
        bool separator = separates_words(point);
        while (end < s->length) {
            size_t n = base_utf8_decode(s->data + end, s->length - end, &point, NULL);
            if (separates_words(point) != separator) break;
            end += n;
        }
        Value head = jinja_case(r, jinja_string_borrow(r, s->data + i, first), CASE_UPPER);
        jinja_write_str(r, head);
        jinja_write_str(r,
                        jinja_case(r, jinja_string_borrow(r, s->data + i + first, end - i - first),
                                   CASE_LOWER));
        i = end;
    }
    return jinja_take(r, mark);
}

static Value f_trim(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_strip(r, jinja_str(r, self), slot[0], true, true);
}

static Value f_string(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_str(r, self);
}

static Value f_replace(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t count = slot[2].kind == V_NONE ? -1 : need_int(r, slot[2], -1);
    return jinja_replace(r, jinja_plain(jinja_str(r, self)), jinja_plain(jinja_str(r, slot[0])),
                         jinja_plain(jinja_str(r, slot[1])), count);
}

static Value f_center(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value text = jinja_str(r, self);
    int64_t width = need_int(r, slot[0], 80),
            missing = width - (int64_t)jinja_points(text.as.string);
    if (missing <= 0) return text;
    int64_t left = missing / 2 + (missing & width & 1);
    return jinja_pad(r, text.as.string, left, missing - left, ' ');
}

static Value f_indent(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (self.kind == V_UNDEFINED) jinja_raise_undefined(r, self);
    if (self.kind == V_LIST)
        jinja_raise(r, "AttributeError", "'list' object has no attribute 'splitlines'");
    if (self.kind != V_STRING)
        jinja_raise(r, "TypeError", "unsupported operand type(s) for +=: '%s' and 'str'",
                    jinja_type_name(self));
    Value indention = slot[0];
    if (indention.kind != V_STRING)
        indention = jinja_repeat(r, jinja_text(r, " ").as.string, need_int(r, slot[0], 4));
    bool first = jinja_truth(r, slot[1]), blank = jinja_truth(r, slot[2]);
    Value text = jinja_concat(r, self.as.string, jinja_text(r, "\n").as.string);
    List *lines = jinja_splitlines(r, text.as.string, false);
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < lines->count; i++) {
        if (i) jinja_putc(r, '\n');
        if (i ? blank || lines->items[i].as.string->length : first) jinja_write_str(r, indention);
        jinja_write_str(r, lines->items[i]);
    }
    Value result = jinja_take(r, mark);
    result.markup = self.markup;
    return result;
}

static Value f_truncate(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t length = need_int(r, slot[0], 255),
            leeway = slot[3].kind == V_NONE ? 5 : need_int(r, slot[3], 5);
    Value end = slot[2].kind == V_MISSING ? jinja_text(r, "...") : slot[2];
    int64_t end_length = jinja_length(r, end), size = jinja_length(r, self);
    if (length < end_length)
        jinja_raise(r, "AssertionError", "expected length >= %lld, got %lld", (long long)end_length,
                    (long long)length);
    if (leeway < 0)
        jinja_raise(r, "AssertionError", "expected leeway >= 0, got %lld", (long long)leeway);
    if (size <= length + leeway) return self;
    Value kept =
        jinja_slice(r, self, jinja_missing(), jinja_int(length - end_length), jinja_missing());
    if (!jinja_truth(r, slot[1]) && kept.kind == V_STRING)
        kept = jinja_split(r, kept.as.string, jinja_text(r, " "), 1, true)->items[0];
    return jinja_binary(r, T_ADD, kept, end);
}

static Value f_wordcount(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    const Str *s = jinja_str(r, self).as.string;
    int64_t words = 0;
    bool inside = false;
    jinja_charge(r, s->length / 16);
    for (size_t i = 0; i < s->length;) {
        uint32_t point;
        i += base_utf8_decode(s->data + i, s->length - i, &point, NULL);
        bool word = jinja_is_word(point);
        words += word && !inside;
        inside = word;
    }
    return jinja_int(words);
}

static Value f_format(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value text = jinja_str(r, self);
    if (args->count && args->n_named)
        jinja_raise(r, "FilterArgumentError",
                    "can't handle positional and keyword arguments at the same time");
    if (args->n_named) {
        Dict *named = jinja_dict_new(r);
        for (size_t i = 0; i < args->n_named; i++)
            jinja_dict_set(r, named, (Value){.kind = V_STRING, .as.string = args->named[i].name},
                           args->named[i].value);
        return jinja_printf(r, text.as.string, (Value){.kind = V_DICT, .as.dict = named},
                            text.markup);
    }
    List *positional = jinja_list_new(r, args->count);
    for (size_t i = 0; i < args->count; i++) jinja_list_add(r, positional, args->positional[i]);
    return jinja_printf(r, text.as.string, jinja_tuple(positional), text.markup);
}

/* ---- escapes ------------------------------------------------------------------------- */

static Value f_escape(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_escape(r, self);
}

static Value f_forceescape(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_escape(r, jinja_plain(jinja_str(r, self)));
}

static Value f_safe(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value text = jinja_str(r, self);
    text.markup = true;
    return text;
}

static void write_quoted(Render *r, Value value, bool query) {
    const Str *s = jinja_str(r, value).as.string;
    for (size_t i = 0; i < s->length; i++) {
        char c = s->data[i], text[4];
        bool letter = ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c >= '0' && c <= '9');
        if (letter || (c && strchr("_.-~", c)) || (c == '/' && !query)) {
            jinja_putc(r, c);
        } else if (c == ' ' && query) {
            jinja_putc(r, '+');
        } else {
            snprintf(text, sizeof text, "%%%02X", (unsigned)(unsigned char)c);
            jinja_puts(r, text);
        }
    }
}

static Value f_urlencode(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    size_t mark = jinja_mark(r);
    if (self.kind == V_STRING || !jinja_is_iterable(self)) {
        write_quoted(r, self, false);
        return jinja_take(r, mark);
    }
    if (self.kind == V_DICT) {
        View *view = jinja_alloc(r, sizeof *view);
        *view = (View){VIEW_ITEMS, self.as.dict};
        self = (Value){.kind = V_VIEW, .as.view = view};
    }
    List *items = jinja_collect(r, self);
    for (size_t i = 0; i < items->count; i++) {
        List *pair = jinja_collect(r, items->items[i]);
        if (pair->count != 2)
            jinja_raise(r, "ValueError", "urlencode wants pairs of a key and a value");
        if (i) jinja_putc(r, '&');
        write_quoted(r, pair->items[0], true);
        jinja_putc(r, '=');
        write_quoted(r, pair->items[1], true);
    }
    return jinja_take(r, mark);
}

static Value f_xmlattr(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (self.kind == V_UNDEFINED) jinja_raise_undefined(r, self);
    if (self.kind != V_DICT)
        jinja_raise(r, "AttributeError", "'%s' object has no attribute 'items'",
                    jinja_type_name(self));
    bool space = slot[0].kind == V_MISSING || jinja_truth(r, slot[0]);
    size_t mark = jinja_mark(r), written = 0;
    for (size_t i = 0; i < self.as.dict->count; i++) {
        Value key = self.as.dict->pairs[i].key, value = self.as.dict->pairs[i].value;
        if (value.kind == V_NONE || value.kind == V_UNDEFINED) continue;
        if (key.kind != V_STRING)
            jinja_raise(r, "TypeError", "expected string or bytes-like object, got '%s'",
                        jinja_type_name(key));
        for (size_t c = 0; c < key.as.string->length; c++)
            if (key.as.string->data[c] && strchr(" \t\n\r\f\v/>=", key.as.string->data[c]))
                jinja_raise(r, "ValueError", "Invalid character in attribute name: %s",
                            jinja_repr_text(r, key));
        if (space || written) jinja_putc(r, ' ');
        jinja_write_str(r, jinja_escape(r, key));
        jinja_puts(r, "=\"");
        jinja_write_str(r, jinja_escape(r, value));
        jinja_putc(r, '"');
        written++;
    }
    return jinja_take(r, mark);
}

/* ---- numbers ---------------------------------------------------------------------------- */

static Value float_to_int(Render *r, double value, Value fallback, bool from_text) {
    if (isinf(value) && !from_text)
        jinja_raise(r, "OverflowError", "cannot convert float infinity to integer");
    if (isnan(value) || isinf(value)) return fallback;
    if (!(fabs(value) < 9223372036854775808.0))
        jinja_raise(r, "OverflowError", "the integer does not fit in 64 bits");
    return jinja_int((int64_t)value);
}

static Value f_int(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value fallback = slot[0].kind == V_MISSING ? jinja_int(0) : slot[0];
    int64_t base = need_int(r, slot[1], 10), i;
    double d;
    bool overflow = false;
    if (self.kind == V_UNDEFINED) jinja_raise_undefined(r, self);
    if (jinja_as_int(self, &i)) return jinja_int(i);
    if (self.kind == V_FLOAT) return float_to_int(r, self.as.real, fallback, false);
    if (self.kind != V_STRING) return fallback;
    if ((base == 0 || (base >= 2 && base <= 36)) &&
        jinja_parse_int(self.as.string, (int)base, &i, &overflow))
        return jinja_int(i);
    if (overflow) jinja_raise(r, "OverflowError", "the integer does not fit in 64 bits");
    return jinja_parse_float(self.as.string, &d) ? float_to_int(r, d, fallback, true) : fallback;
}

static Value f_float(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    double d;
    if (self.kind == V_UNDEFINED) jinja_raise_undefined(r, self);
    if (jinja_is_number(self)) return jinja_float(jinja_as_float(self));
    if (self.kind == V_STRING && jinja_parse_float(self.as.string, &d)) return jinja_float(d);
    return slot[0].kind == V_MISSING ? jinja_float(0) : slot[0];
}

static Value f_abs(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t i;
    if (self.kind == V_FLOAT) return jinja_float(fabs(self.as.real));
    if (!jinja_as_int(self, &i))
        jinja_raise(r, "TypeError", "bad operand type for abs(): '%s'", jinja_type_name(self));
    return jinja_negate(r, jinja_int(i), i >= 0);
}

static double power_of_ten(int64_t exponent) {
    return pow(10, (double)exponent);
}

/* Half to even, of the exact value of the float. */
static double round_float(double value, int64_t precision) {
    char text[700];
    if (!isfinite(value) || precision > 300) return value;
    if (precision < -300) return copysign(0, value);
    if (precision < 0) {
        double unit = power_of_ten(-precision), scaled = nearbyint(value / unit);
        return scaled * unit;
    }
    snprintf(text, sizeof text, "%.*f", (int)precision, value);
    Str digits = {text, strlen(text), POINTS_UNKNOWN, NULL};
    jinja_parse_float(&digits, &value);
    return value;
}

static int64_t round_int(Render *r, int64_t value, int64_t precision) {
    int64_t unit = 1;
    if (precision >= 0) return value;
    if (precision < -18) return 0;
    for (int64_t i = 0; i > precision; i--) unit *= 10;
    int64_t rest = value % unit, down = value - rest;
    if (rest < 0) {
        rest += unit;
        if (__builtin_sub_overflow(down, unit, &down))
            jinja_raise(r, "OverflowError", "the integer does not fit in 64 bits");
    }
    bool up = rest > unit / 2 || (rest == unit / 2 && (down / unit) % 2 != 0);
    if (up && __builtin_add_overflow(down, unit, &down))
        jinja_raise(r, "OverflowError", "the integer does not fit in 64 bits");
    return down;
}

static Value f_round(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t precision = need_int(r, slot[0], 0), i;
    Value method = slot[1].kind == V_MISSING ? jinja_text(r, "common") : slot[1];
    bool ceiling = jinja_string_is(method, "ceil"), floors = jinja_string_is(method, "floor");
    if (!ceiling && !floors && !jinja_string_is(method, "common"))
        jinja_raise(r, "FilterArgumentError", "method must be common, ceil or floor");
    if (self.kind == V_UNDEFINED && (ceiling || floors)) jinja_raise_undefined(r, self);
    if (!jinja_is_number(self))
        jinja_raise(r, "TypeError", "type %s doesn't define __round__ method",
                    jinja_type_name(self));
    if (ceiling || floors) {
        double unit = power_of_ten(precision), scaled = jinja_as_float(self) * unit;
        return jinja_float((ceiling ? ceil(scaled) : floor(scaled)) / unit);
    }
    if (jinja_as_int(self, &i)) return jinja_int(round_int(r, i, precision));
    return jinja_float(round_float(self.as.real, precision));
}

static Value f_filesizeformat(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    static const char letters[] = "kMGTPEZY";
    bool binary = jinja_truth(r, slot[0]);
    double base = binary ? 1024 : 1000, bytes = 0, unit = base;
    if (self.kind == V_UNDEFINED) jinja_raise_undefined(r, self);
    if (jinja_is_number(self))
        bytes = jinja_as_float(self);
    else if (self.kind != V_STRING || !jinja_parse_float(self.as.string, &bytes))
        jinja_raise(r, self.kind == V_STRING ? "ValueError" : "TypeError",
                    "could not convert string to float: %s", jinja_repr_text(r, self));
    if (bytes == 1) return jinja_text(r, "1 Byte");
    if (bytes < base) return jinja_format(r, "%lld Bytes", (long long)bytes);
    size_t i = 0;
    for (; i < 8; i++) {
        unit *= base;
        if (bytes < unit || i == 7) break;
    }
    char letter = binary && i == 0 ? 'K' : letters[i];
    return jinja_format(r, "%.1f %c%sB", base * bytes / unit, letter, binary ? "i" : "");
}

/* ---- any value ------------------------------------------------------------------------------ */

static Value f_default(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    bool falsy = jinja_truth(r, slot[1]) && !jinja_truth(r, self);
    if (self.kind != V_UNDEFINED && !falsy) return self;
    return slot[0].kind == V_MISSING ? jinja_text(r, "") : slot[0];
}

static Value f_attr(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (slot[0].kind != V_STRING)
        jinja_raise(r, "TypeError", "attribute name must be string, not '%s'",
                    jinja_type_name(slot[0]));
    if (self.kind == V_DICT &&
        !jinja_find_method(self, slot[0].as.string->data, slot[0].as.string->length))
        return jinja_undefined_member(r, self, slot[0]);
    return jinja_attribute(r, self, slot[0].as.string);
}

const Function jinja_text_filters[] = {
    {"abs", "abs", "", f_abs},
    {"attr", "do_attr", "name", f_attr},
    {"capitalize", "do_capitalize", "", f_capitalize},
    {"center", "do_center", "?width", f_center},
    {"d", "do_default", "?default_value ?boolean", f_default},
    {"default", "do_default", "?default_value ?boolean", f_default},
    {"e", "escape", "", f_escape},
    {"escape", "escape", "", f_escape},
    {"filesizeformat", "do_filesizeformat", "?binary", f_filesizeformat},
    {"float", "do_float", "?default", f_float},
    {"forceescape", "do_forceescape", "", f_forceescape},
    {"format", "do_format", "*", f_format},
    {"indent", "do_indent", "?width ?first ?blank", f_indent},
    {"int", "do_int", "?default ?base", f_int},
    {"lower", "do_lower", "", f_lower},
    {"replace", "do_replace", "old new ?count", f_replace},
    {"round", "do_round", "?precision ?method", f_round},
    {"safe", "do_mark_safe", "", f_safe},
    {"string", "soft_str", "", f_string},
    {"title", "do_title", "", f_title},
    {"tojson", "tojson", "?ensure_ascii ?indent ?separators ?sort_keys", jinja_tojson},
    {"trim", "do_trim", "?chars", f_trim},
    {"truncate", "do_truncate", "?length ?killwords ?end ?leeway", f_truncate},
    {"upper", "do_upper", "", f_upper},
    {"urlencode", "do_urlencode", "", f_urlencode},
    {"wordcount", "do_wordcount", "", f_wordcount},
    {"xmlattr", "do_xmlattr", "?autospace", f_xmlattr},
};
const size_t jinja_n_text_filters = BASE_COUNT(jinja_text_filters);

const Function *jinja_find(const Function *table, size_t count, const char *name, size_t length) {
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0)
            return &table[i];
    return NULL;
}

const Function *jinja_find_filter(const char *name, size_t length) {
    const struct {
        const Function *table;
        size_t count;
    } tables[] = {
        {jinja_text_filters, jinja_n_text_filters},
        {jinja_sequence_filters, jinja_n_sequence_filters},
        {jinja_layout_filters, jinja_n_layout_filters},
        {jinja_html_filters, jinja_n_html_filters},
    };
    const Function *found = NULL;
    for (size_t i = 0; i < BASE_COUNT(tables) && !found; i++)
        found = jinja_find(tables[i].table, tables[i].count, name, length);
    return found;
}
