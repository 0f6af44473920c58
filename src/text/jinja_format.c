/* jinja_format: Python's two ways to format: the % operator with its
 * conversions, and str.format with replacement fields and the format
 * specification mini-language. Widths and precisions are bounded. */
#include <math.h>
#include <string.h>

#include "text/jinja.h"

/* How one value is to be laid out; both ways fill it. */
typedef struct Layout {
    uint32_t fill;
    char align;               /* < > = ^, or 0: by type */
    char sign;                /* + - or space; 0 as - */
    bool alternate;           /* 0x before hexadecimal */
    char grouping;            /* , or _ between thousands, or 0 */
    int64_t width, precision; /* precision -1: none */
    char type;
} Layout;

enum { MAX_PRECISION = 400 };

static Value padded(Render *r, Value text, const Layout *layout, char default_align) {
    int64_t missing = layout->width - (int64_t)jinja_points(text.as.string);
    char align = layout->align ? layout->align : default_align;
    if (missing <= 0) return text;
    int64_t left = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
    return jinja_pad(r, text.as.string, left, missing - left, layout->fill ? layout->fill : ' ');
}

/* Python's repr(), or its ascii(). */
static Value representation(Render *r, Value value, bool ascii) {
    size_t mark = jinja_mark(r);
    jinja_write_repr(r, value);
    Value text = jinja_take(r, mark);
    const Str *s = text.as.string;
    for (size_t i = 0; ascii && i < s->length;) {
        uint32_t point;
        char escape[12];
        i += base_utf8_decode(s->data + i, s->length - i, &point, NULL);
        snprintf(escape, sizeof escape,
                 point < 0x80      ? "%c"
                 : point < 0x100   ? "\\x%02x"
                 : point < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                 (unsigned)point);
        jinja_puts(r, escape);
    }
    return ascii ? jinja_take(r, mark) : text;
}

/* Sign, prefix and digits, with zeros or fill between them for align '='. */
static Value number_text(Render *r, const Layout *layout, bool negative, const char *prefix,
                         const char *digits) {
    char sign[2] = {negative                                     ? '-'
                    : layout->sign == '+' || layout->sign == ' ' ? layout->sign
                                                                 : 0,
                    0};
    size_t mark = jinja_mark(r), whole = strspn(digits, "0123456789abcdefABCDEF");
    if (strspn(digits, "0123456789") < whole && (layout->type != 'x' && layout->type != 'X'))
        whole = strspn(digits, "0123456789");
    size_t group =
        layout->type == 'x' || layout->type == 'X' || layout->type == 'o' || layout->type == 'b'
            ? 4
            : 3;
    jinja_puts(r, sign);
    jinja_puts(r, prefix);
    size_t head = strlen(sign) + strlen(prefix);
    size_t separators = layout->grouping && whole > 0 ? (whole - 1) / group : 0;
    if (layout->align == '=') {
        int64_t missing = layout->width - (int64_t)(head + strlen(digits) + separators);
        jinja_put_times(r, layout->fill ? layout->fill : ' ', missing);
    }
    for (size_t i = 0; digits[i]; i++) {
        if (layout->grouping && i > 0 && i < whole && (whole - i) % group == 0)
            jinja_putc(r, layout->grouping);
        jinja_putc(r, digits[i]);
    }
    return padded(r, jinja_take(r, mark), layout, '>');
}

static Value int_text(Render *r, const Layout *layout, int64_t value) {
    char digits[72];
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    unsigned base = 10;
    const char *prefix = "",
               *letters = layout->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    switch (layout->type) {
    case 'x': base = 16, prefix = "0x"; break;
    case 'X': base = 16, prefix = "0X"; break;
    case 'o': base = 8, prefix = "0o"; break;
    case 'b': base = 2, prefix = "0b"; break;
    default: break;
    }
    size_t at = sizeof digits;
    digits[--at] = 0;
    do {
        digits[--at] = letters[magnitude % base];
        magnitude /= base;
    } while (magnitude);
    return number_text(r, layout, value < 0, layout->alternate ? prefix : "", digits + at);
}

static Value float_text(Render *r, const Layout *layout, double value) {
    char digits[MAX_PRECISION + 340], type = (char)(layout->type | 0x20);
    bool upper = layout->type >= 'A' && layout->type <= 'Z', percent = layout->type == '%';
    int precision = (int)(layout->precision < 0 ? 6 : layout->precision);
    if (precision > MAX_PRECISION) jinja_raise(r, "ValueError", "precision too big");
    if (percent) value *= 100;
    if (isnan(value) || isinf(value)) {
        Layout plain = *layout;
        plain.grouping = 0;
        snprintf(digits, sizeof digits, "%s%s",
                 isnan(value) ? (upper ? "NAN" : "nan")
                 : upper      ? "INF"
                              : "inf",
                 percent ? "%" : "");
        return number_text(r, &plain, !isnan(value) && value < 0, "", digits);
    }
    double magnitude = fabs(value);
    if (layout->type == 0 || layout->type == 'n') {
        snprintf(digits, sizeof digits, "%.*g", precision ? precision : 1, magnitude);
    } else if (percent || type == 'f') {
        snprintf(digits, sizeof digits, "%.*f%s", precision, magnitude, percent ? "%" : "");
    } else if (type == 'e') {
        snprintf(digits, sizeof digits, "%.*e", precision, magnitude);
    } else {
        snprintf(digits, sizeof digits, layout->alternate ? "%#.*g" : "%.*g",
                 precision ? precision : 1, magnitude);
    }
    if (upper)
        for (char *c = digits; *c; c++) *c = *c == 'e' ? 'E' : *c;
    return number_text(r, layout, signbit(value), "", digits);
}

/* ---- the % operator ------------------------------------------------------------------- */

typedef struct Printf {
    const Str *format;
    size_t at;
    Value arguments;
    const List *tuple; /* of positional arguments, else one argument */
    size_t next;
    bool markup;
} Printf;

static Value next_argument(Render *r, Printf *p) {
    size_t count = p->tuple ? p->tuple->count : 1;
    if (p->next >= count) jinja_raise(r, "TypeError", "not enough arguments for format string");
    Value value = p->tuple ? p->tuple->items[p->next] : p->arguments;
    p->next++;
    return value;
}

static char peek(const Printf *p) {
    return p->at < p->format->length ? p->format->data[p->at] : 0;
}

static int64_t read_number(Render *r, const char *text, size_t length, size_t *at,
                           const char *what) {
    int64_t value = 0;
    while (*at < length && text[*at] >= '0' && text[*at] <= '9') {
        value = value * 10 + (text[(*at)++] - '0');
        if (value > INT32_MAX) jinja_raise(r, "ValueError", "%s too big", what);
    }
    return value;
}

static int64_t star_or_number(Render *r, Printf *p, const char *what) {
    if (peek(p) != '*') return read_number(r, p->format->data, p->format->length, &p->at, what);
    int64_t value;
    p->at++;
    if (!jinja_as_int(next_argument(r, p), &value)) jinja_raise(r, "TypeError", "* wants int");
    if (value > INT32_MAX || value < -INT32_MAX)
        jinja_raise(r, "OverflowError", "%s too big", what);
    return value;
}

static Value key_argument(Render *r, Printf *p) {
    size_t from = ++p->at, depth = 1;
    if (p->arguments.kind != V_DICT) jinja_raise(r, "TypeError", "format requires a mapping");
    for (; p->at < p->format->length; p->at++) {
        depth += peek(p) == '(';
        depth -= peek(p) == ')';
        if (depth == 0) break;
    }
    if (depth) jinja_raise(r, "ValueError", "incomplete format key");
    Value key = jinja_string_borrow(r, p->format->data + from, p->at++ - from);
    Value value = jinja_dict_get(r, p->arguments.as.dict, key);
    if (value.kind == V_MISSING) jinja_raise(r, "KeyError", "%s", jinja_repr_text(r, key));
    return value;
}

static void printf_flags(Printf *p, Layout *layout) {
    bool zero = false, left = false;
    for (;; p->at++) {
        switch (peek(p)) {
        case '-': left = true; break;
        case '+': layout->sign = '+'; break;
        case ' ': layout->sign = layout->sign ? layout->sign : ' '; break;
        case '#': layout->alternate = true; break;
        case '0': zero = true; break;
        default:
            layout->align = left ? '<' : zero ? '=' : '>';
            layout->fill = zero && !left ? '0' : ' ';
            return;
        }
    }
}

static Value printf_number(Render *r, Layout *layout, Value value, char type) {
    int64_t i;
    if (strchr("eEfFgG", type)) {
        if (value.kind == V_UNDEFINED) jinja_raise_undefined(r, value);
        if (!jinja_is_number(value))
            jinja_raise(r, "TypeError", "must be real number, not %s", jinja_type_name(value));
        return float_text(r, layout, jinja_as_float(value));
    }
    if (value.kind == V_FLOAT && strchr("diu", type)) {
        if (!(fabs(value.as.real) < 9.2e18))
            jinja_raise(r, "OverflowError", "cannot convert this float to an integer");
        value = jinja_int((int64_t)value.as.real);
    }
    if (value.kind == V_UNDEFINED && strchr("diu", type)) jinja_raise_undefined(r, value);
    if (!jinja_as_int(value, &i))
        jinja_raise(r, "TypeError", "%%%c format: %s is required, not %s", type,
                    strchr("diu", type) ? "a real number" : "an integer", jinja_type_name(value));
    layout->type = strchr("diu", type) ? 'd' : type;
    if (layout->precision >= 0) { /* a least number of digits */
        Layout digits = {.fill = '0',
                         .align = '=',
                         .sign = layout->sign,
                         .alternate = layout->alternate,
                         .type = layout->type,
                         .precision = -1};
        bool signed_text = i < 0 || layout->sign == '+' || layout->sign == ' ';
        digits.width =
            layout->precision + signed_text + (layout->alternate && layout->type != 'd' ? 2 : 0);
        if (layout->align == '=') digits.width = BASE_MAX(digits.width, layout->width);
        Value text = int_text(r, &digits, i);
        return padded(r, text, layout, '>');
    }
    return int_text(r, layout, i);
}

static Value printf_text(Render *r, const Printf *p, const Layout *layout, Value value, char type) {
    Value text;
    if (type == 's') {
        text = p->markup ? jinja_escape(r, value) : jinja_str(r, value);
    } else {
        text = representation(r, value, type == 'a');
        if (p->markup) text = jinja_escape(r, text);
    }
    if (layout->precision >= 0 && (int64_t)jinja_points(text.as.string) > layout->precision)
        text = jinja_substring(r, text.as.string, 0, (size_t)layout->precision);
    Layout spaces = *layout;
    spaces.fill = ' ';
    if (spaces.align == '=') spaces.align = '>';
    return padded(r, text, &spaces, '>');
}

static Value printf_character(Render *r, const Layout *layout, Value value) {
    int64_t i;
    char bytes[4];
    if (value.kind == V_STRING && jinja_points(value.as.string) == 1)
        return padded(r, value, layout, '>');
    if (!jinja_as_int(value, &i)) jinja_raise(r, "TypeError", "%%c requires int or char");
    if (i < 0 || i > 0x10FFFF || (i >= 0xD800 && i <= 0xDFFF))
        jinja_raise(r, "OverflowError", "%%c arg not in range(0x110000)");
    return padded(r, jinja_string(r, bytes, base_utf8_encode((uint32_t)i, bytes)), layout, '>');
}

static void printf_one(Render *r, Printf *p) {
    Layout layout = {.precision = -1};
    bool keyed = peek(p) == '(';
    Value value = keyed ? key_argument(r, p) : jinja_missing();
    printf_flags(p, &layout);
    layout.width = star_or_number(r, p, "width");
    if (layout.width < 0) {
        layout.width = -layout.width;
        layout.align = '<';
        layout.fill = ' ';
    }
    if (peek(p) == '.') {
        p->at++;
        int64_t precision = star_or_number(r, p, "precision");
        layout.precision = precision < 0 ? 0 : precision;
    }
    while (peek(p) && strchr("hlL", peek(p))) p->at++;
    if (p->at >= p->format->length) jinja_raise(r, "ValueError", "incomplete format");
    char type = p->format->data[p->at++];
    if (type == '%') {
        jinja_putc(r, '%');
        return;
    }
    if (!keyed) value = next_argument(r, p);
    layout.type = type;
    size_t mark = jinja_mark(r);
    Value text;
    if (type == 's' || type == 'r' || type == 'a')
        text = printf_text(r, p, &layout, value, type);
    else if (type == 'c')
        text = printf_character(r, &layout, value);
    else if (type && strchr("diuxXoeEfFgG", type))
        text = printf_number(r, &layout, value, type);
    else {
        Str before = {p->format->data, p->at - 1, POINTS_UNKNOWN, NULL};
        jinja_raise(r, "ValueError", "unsupported format character '%c' (0x%x) at index %zu", type,
                    (unsigned)(unsigned char)type, jinja_points(&before));
    }
    r->out.length = mark;
    jinja_write_str(r, text);
}

Value jinja_printf(Render *r, const Str *format, Value arguments, bool markup) {
    Printf p = {.format = format,
                .arguments = arguments,
                .markup = markup,
                .tuple = arguments.kind == V_TUPLE ? arguments.as.list : NULL};
    size_t mark = jinja_mark(r);
    while (p.at < format->length) {
        char c = format->data[p.at++];
        if (c != '%') {
            jinja_putc(r, c);
            continue;
        }
        jinja_charge(r, 1);
        printf_one(r, &p);
    }
    size_t count = p.tuple ? p.tuple->count : 1;
    bool mapping = arguments.kind == V_DICT || arguments.kind == V_LIST ||
                   arguments.kind == V_UNDEFINED || arguments.kind == V_RANGE;
    if (p.next < count && !mapping)
        jinja_raise(r, "TypeError", "not all arguments converted during string formatting");
    Value result = jinja_take(r, mark);
    result.markup = markup;
    return result;
}

/* ---- str.format -------------------------------------------------------------------------- */

static Layout parse_spec(Render *r, const Str *spec) {
    Layout layout = {.precision = -1};
    size_t at = 0, n = spec->length;
    uint32_t point = 0;
    size_t first = n ? base_utf8_decode(spec->data, n, &point, NULL) : 0;
    if (n > first && strchr("<>=^", spec->data[first])) {
        layout.fill = point;
        layout.align = spec->data[first];
        at = first + 1;
    } else if (n && strchr("<>=^", spec->data[0])) {
        layout.align = spec->data[0];
        at = 1;
    }
    if (at < n && strchr("+- ", spec->data[at])) layout.sign = spec->data[at++];
    if (at < n && spec->data[at] == '#') {
        layout.alternate = true;
        at++;
    }
    if (at < n && spec->data[at] == '0') {
        if (!layout.fill) layout.fill = '0';
        if (!layout.align) layout.align = '=';
        at++;
    }
    layout.width = read_number(r, spec->data, n, &at, "width");
    if (at < n && (spec->data[at] == ',' || spec->data[at] == '_'))
        layout.grouping = spec->data[at++];
    if (at < n && spec->data[at] == '.') {
        at++;
        if (at >= n || spec->data[at] < '0' || spec->data[at] > '9')
            jinja_raise(r, "ValueError", "Format specifier missing precision");
        layout.precision = read_number(r, spec->data, n, &at, "precision");
    }
    if (at < n) layout.type = spec->data[at++];
    if (at < n) jinja_raise(r, "ValueError", "Invalid format specifier");
    return layout;
}

static Value format_value(Render *r, Value value, const Str *spec) {
    if (spec->length == 0) return jinja_str(r, value);
    Layout layout = parse_spec(r, spec);
    int64_t i;
    char type = layout.type;
    if (value.kind == V_STRING && (type == 0 || type == 's')) {
        if (layout.align == '=')
            jinja_raise(r, "ValueError", "'=' alignment not allowed in string format specifier");
        if (layout.precision >= 0 && (int64_t)jinja_points(value.as.string) > layout.precision)
            value = jinja_substring(r, value.as.string, 0, (size_t)layout.precision);
        return padded(r, value, &layout, '<');
    }
    if (jinja_is_number(value) && type && strchr("eEfFgG%", type))
        return float_text(r, &layout, jinja_as_float(value));
    if (jinja_as_int(value, &i) && (type == 0 || strchr("bcdnoxX", type))) {
        if (type == 'c') return printf_character(r, &layout, value);
        layout.type = type == 0 || type == 'n' ? 'd' : type;
        return int_text(r, &layout, i);
    }
    if (value.kind == V_FLOAT && type == 0 && layout.precision < 0) {
        size_t mark = jinja_mark(r);
        jinja_write_float(r, fabs(value.as.real));
        return number_text(r, &layout, signbit(value.as.real), "",
                           jinja_take(r, mark).as.string->data);
    }
    if (value.kind == V_FLOAT && (type == 0 || type == 'n'))
        return float_text(r, &layout, value.as.real);
    if (value.kind == V_STRING || jinja_is_number(value))
        jinja_raise(r, "ValueError", "Unknown format code '%c' for object of type '%s'", type,
                    jinja_type_name(value));
    jinja_raise(r, "TypeError", "unsupported format string passed to %s.__format__",
                jinja_type_name(value));
}

typedef struct Format {
    const Args *args;
    int64_t automatic; /* next {} ; -1 after an explicit number */
    bool markup;
} Format;

static Value named_argument(Render *r, const Args *args, const char *name, size_t length) {
    for (size_t i = 0; i < args->n_named; i++)
        if (args->named[i].name->length == length &&
            memcmp(args->named[i].name->data, name, length) == 0)
            return args->named[i].value;
    jinja_raise(r, "KeyError", "%s", jinja_repr_text(r, jinja_string(r, name, length)));
}

static Value first_value(Render *r, Format *f, const char *name, size_t length) {
    size_t at = 0;
    int64_t number;
    bool digits = length > 0 && strspn(name, "0123456789") >= length;
    if (length && !digits) return named_argument(r, f->args, name, length);
    if (length == 0 && f->automatic < 0)
        jinja_raise(r, "ValueError",
                    "cannot switch from manual field specification to automatic field numbering");
    if (digits && f->automatic > 0)
        jinja_raise(r, "ValueError",
                    "cannot switch from automatic field numbering to manual field specification");
    number = length ? read_number(r, name, length, &at, "index") : f->automatic;
    f->automatic = length ? -1 : number + 1;
    if (number >= (int64_t)f->args->count) jinja_raise(r, "IndexError", "tuple index out of range");
    return f->args->positional[number];
}

/* name.attribute[item]... */
static Value field_value(Render *r, Format *f, const char *text, size_t length) {
    size_t at = 0;
    while (at < length && text[at] != '.' && text[at] != '[') at++;
    Value value = first_value(r, f, jinja_string(r, text, at).as.string->data, at);
    while (at < length) {
        bool item = text[at] == '[';
        size_t from = ++at;
        while (at < length && (item ? text[at] != ']' : text[at] != '.' && text[at] != '[')) at++;
        Value key = jinja_string(r, text + from, at - from);
        if (at == from) jinja_raise(r, "ValueError", "Empty attribute in format string");
        if (item) {
            if (at >= length) jinja_raise(r, "ValueError", "Missing ']' in format string");
            at++;
            size_t end = 0;
            bool number = strspn(key.as.string->data, "0123456789") == key.as.string->length;
            if (number)
                key = jinja_int(
                    read_number(r, key.as.string->data, key.as.string->length, &end, "index"));
            value = jinja_item(r, value, key);
        } else {
            value = jinja_attribute(r, value, key.as.string);
        }
        if (item && at < length && text[at] != '.' && text[at] != '[')
            jinja_raise(r, "ValueError",
                        "Only '.' or '[' may follow ']' in format field specifier");
    }
    return value;
}

static void format_text(Render *r, Format *f, const Str *text, int depth);

/* One replacement field, text[from, to) between its braces. */
static void format_field(Render *r, Format *f, const Str *text, size_t from, size_t to, int depth) {
    size_t name_end = from, brackets = 0;
    for (; name_end < to; name_end++) {
        char c = text->data[name_end];
        if (c == '[') brackets = 1;
        if (c == ']') brackets = 0;
        if (!brackets && (c == '!' || c == ':')) break;
    }
    Value value = field_value(r, f, text->data + from, name_end - from);
    size_t at = name_end;
    char conversion = 0;
    if (at < to && text->data[at] == '!') {
        if (at + 1 >= to)
            jinja_raise(r, "ValueError", "end of string while looking for conversion specifier");
        conversion = text->data[at + 1];
        at += 2;
        if (at < to && text->data[at] != ':')
            jinja_raise(r, "ValueError", "expected ':' after conversion specifier");
        if (!strchr("sra", conversion))
            jinja_raise(r, "ValueError", "Unknown conversion specifier %c", conversion);
    }
    const Str *spec = jinja_text(r, "").as.string;
    if (at < to) {
        Str inner = {text->data + at + 1, to - at - 1, POINTS_UNKNOWN, NULL};
        size_t mark = jinja_mark(r);
        format_text(r, f, &inner, depth - 1);
        spec = jinja_take(r, mark).as.string;
    }
    if (conversion == 's') value = jinja_str(r, value);
    if (conversion == 'r' || conversion == 'a') value = representation(r, value, conversion == 'a');
    Value formatted = format_value(r, value, spec);
    if (f->markup) formatted = jinja_escape(r, formatted);
    jinja_write_str(r, formatted);
}

static void format_text(Render *r, Format *f, const Str *text, int depth) {
    if (depth < 0) jinja_raise(r, "ValueError", "Max string recursion exceeded");
    for (size_t at = 0; at < text->length;) {
        char c = text->data[at++];
        if (c != '{' && c != '}') {
            jinja_putc(r, c);
            continue;
        }
        if (at < text->length && text->data[at] == c) {
            jinja_putc(r, c);
            at++;
            continue;
        }
        if (c == '}') jinja_raise(r, "ValueError", "Single '}' encountered in format string");
        size_t from = at, open = 1;
        for (; at < text->length; at++) {
            open += text->data[at] == '{';
            open -= text->data[at] == '}';
            if (open == 0) break;
        }
        if (from >= text->length)
            jinja_raise(r, "ValueError", "Single '{' encountered in format string");
        if (open) jinja_raise(r, "ValueError", "expected '}' before end of string");
        jinja_charge(r, 1);
        format_field(r, f, text, from, at, depth);
        at++;
    }
}

Value jinja_str_format(Render *r, const Str *format, const Args *args, bool markup) {
    Format f = {args, 0, markup};
    size_t mark = jinja_mark(r);
    format_text(r, &f, format, 2);
    Value result = jinja_take(r, mark);
    result.markup = markup;
    return result;
}
