/* jinja_number: text to numbers, by the rules of Python's int() and float():
 * whitespace around, a sign, single underscores between digits, prefixes for
 * base 0. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

/* The text without whitespace around it, in a buffer; false when it is too
 * long to be a number that fits, or holds something that no number has. */
static bool clean(const Str *text, char *out, size_t capacity) {
    size_t from = 0, to = text->length, n = 0;
    while (from < to) {
        uint32_t point;
        size_t step = base_utf8_decode(text->data + from, to - from, &point, NULL);
        if (!jinja_is_space(point)) break;
        from += step;
    }
    while (to > from && jinja_is_space((unsigned char)text->data[to - 1])) to--;
    if (to == from) return false;
    for (size_t i = from; i < to; i++) {
        char c = text->data[i];
        if ((unsigned char)c >= 0x80 || c == 0) return false;
        if (c == '_') {
            bool between = i > from && i + 1 < to && text->data[i - 1] != '_' &&
                           text->data[i + 1] != '_' && strchr("+-.", text->data[i - 1]) == NULL &&
                           strchr("+-.", text->data[i + 1]) == NULL;
            if (!between) return false;
            continue;
        }
        if (n + 1 >= capacity) return false;
        out[n++] = c;
    }
    out[n] = 0;
    return true;
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* *overflow tells a number that does not fit from one that is none. */
bool jinja_parse_int(const Str *text, int base, int64_t *out, bool *overflow) {
    char buffer[512];
    *overflow = false;
    if (!clean(text, buffer, sizeof buffer)) return false;
    const char *c = buffer;
    bool negative = *c == '-';
    if (*c == '-' || *c == '+') c++;
    if (c[0] == '0' && c[1]) {
        char mark = (char)(c[1] | 0x20);
        int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
        if (marked && (base == 0 || base == marked)) {
            base = marked;
            c += 2;
        } else if (base == 0 && strspn(c, "0") != strlen(c)) {
            return false;
        }
    }
    if (base == 0) base = 10;
    if (!*c) return false;
    int64_t value = 0;
    for (; *c; c++) {
        int digit = digit_of(*c);
        if (digit >= base) return false;
        if (__builtin_mul_overflow(value, (int64_t)base, &value) ||
            __builtin_add_overflow(value, (int64_t)(negative ? -digit : digit), &value))
            *overflow = true;
    }
    *out = value;
    return !*overflow;
}

bool jinja_parse_float(const Str *text, double *out) {
    char buffer[1024];
    if (!clean(text, buffer, sizeof buffer)) return false;
    const char *c = buffer + (buffer[0] == '-' || buffer[0] == '+');
    bool word = strspn(c, "0123456789.eE+-") != strlen(c);
    static const char *const words[] = {"inf", "infinity", "nan"};
    bool known = false;
    for (size_t i = 0; i < BASE_COUNT(words); i++) known |= strcasecmp(c, words[i]) == 0;
    if (word && !known) return false;
    char *end;
    *out = strtod(buffer, &end);
    return *end == 0 && end != buffer;
}
