/* jinja_strings: the methods of Python's str that templates call, and the
 * helpers that filters share with them. Positions count code points. */
#include <string.h>

#include "text/jinja.h"

/* The string of an argument, or a TypeError. */
static const Str *need_string(Render *r, Value value, const char *what) {
    if (value.kind != V_STRING)
        jinja_raise(r, "TypeError", "%s must be str, not %s", what, jinja_type_name(value));
    return value.as.string;
}

static int64_t int_or(Render *r, Value value, int64_t absent) {
    int64_t i;
    if (value.kind == V_MISSING) return absent;
    if (!jinja_as_int(value, &i))
        jinja_raise(r, "TypeError", "'%s' object cannot be interpreted as an integer",
                    jinja_type_name(value));
    return i;
}

/* ---- searching ------------------------------------------------------------------- */

/* The byte offset of the first occurrence, or -1. */
int64_t jinja_find_string(const char *text, size_t length, const char *needle,
                          size_t needle_length) {
    if (needle_length == 0) return 0;
    const char *found =
        length >= needle_length ? memmem(text, length, needle, needle_length) : NULL;
    return found ? found - text : -1;
}

static int64_t find_last(const char *text, size_t length, const Str *needle) {
    for (size_t i = length + 1; i-- > 0;)
        if (length - i >= needle->length && memcmp(text + i, needle->data, needle->length) == 0)
            return (int64_t)i;
    return -1;
}

/* text[start:end] of the optional bounds of find, count and startswith. */
static const Str *bounded(Render *r, const Str *string, Value start, Value end, int64_t *offset) {
    int64_t length = (int64_t)jinja_points(string);
    int64_t from = start.kind == V_NONE ? 0 : int_or(r, start, 0);
    int64_t to = end.kind == V_NONE ? length : int_or(r, end, length);
    if (from < 0) from = BASE_MAX(from + length, 0);
    if (to < 0) to = BASE_MAX(to + length, 0);
    to = BASE_MIN(to, length);
    *offset = from;
    if (from > to) return NULL;
    return from == 0 && to == length
               ? string
               : jinja_substring(r, string, (size_t)from, (size_t)to).as.string;
}

static Value find(Render *r, Value self, Value *slot, bool last, bool must) {
    const Str *needle = need_string(r, slot[0], "the argument");
    int64_t offset, at = -1;
    const Str *part = bounded(r, self.as.string, slot[1], slot[2], &offset);
    jinja_charge(r, self.as.string->length / 16);
    if (part)
        at = last ? find_last(part->data, part->length, needle)
                  : jinja_find_string(part->data, part->length, needle->data, needle->length);
    if (at < 0) {
        if (must) jinja_raise(r, "ValueError", "substring not found");
        return jinja_int(-1);
    }
    Str before = {part->data, (size_t)at, POINTS_UNKNOWN, NULL};
    return jinja_int(offset + (int64_t)jinja_points(&before));
}

static Value m_find(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return find(r, self, slot, false, false);
}
static Value m_rfind(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return find(r, self, slot, true, false);
}
static Value m_index(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return find(r, self, slot, false, true);
}
static Value m_rindex(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return find(r, self, slot, true, true);
}

static Value m_count(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    const Str *needle = need_string(r, slot[0], "the argument");
    int64_t offset, count = 0;
    const Str *part = bounded(r, self.as.string, slot[1], slot[2], &offset);
    if (!part) return jinja_int(0);
    if (needle->length == 0) return jinja_int((int64_t)jinja_points(part) + 1);
    jinja_charge(r, part->length / 16);
    for (size_t at = 0;;) {
        int64_t found =
            jinja_find_string(part->data + at, part->length - at, needle->data, needle->length);
        if (found < 0) return jinja_int(count);
        at += (size_t)found + needle->length;
        count++;
    }
}

static bool has_affix(const Str *string, const Str *affix, bool at_end) {
    if (affix->length > string->length) return false;
    return memcmp(string->data + (at_end ? string->length - affix->length : 0), affix->data,
                  affix->length) == 0;
}

static Value affix(Render *r, Value self, Value *slot, bool at_end) {
    int64_t offset;
    const Str *part = bounded(r, self.as.string, slot[1], slot[2], &offset);
    const char *name = at_end ? "endswith" : "startswith";
    if (slot[0].kind == V_TUPLE) {
        for (size_t i = 0; i < slot[0].as.list->count; i++) {
            Value item = slot[0].as.list->items[i];
            if (item.kind != V_STRING)
                jinja_raise(r, "TypeError", "tuple for %s must only contain str, not %s", name,
                            jinja_type_name(item));
            if (part && has_affix(part, item.as.string, at_end)) return jinja_bool(true);
        }
        return jinja_bool(false);
    }
    if (slot[0].kind != V_STRING)
        jinja_raise(r, "TypeError", "%s first arg must be str or a tuple of str, not %s", name,
                    jinja_type_name(slot[0]));
    return jinja_bool(part && has_affix(part, slot[0].as.string, at_end));
}

static Value m_startswith(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return affix(r, self, slot, false);
}
static Value m_endswith(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return affix(r, self, slot, true);
}

static Value m_removeprefix(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    const Str *s = self.as.string, *prefix = need_string(r, slot[0], "removeprefix() argument");
    if (!has_affix(s, prefix, false)) return self;
    return jinja_string_borrow(r, s->data + prefix->length, s->length - prefix->length);
}

static Value m_removesuffix(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    const Str *s = self.as.string, *suffix = need_string(r, slot[0], "removesuffix() argument");
    if (!has_affix(s, suffix, true)) return self;
    return jinja_string_borrow(r, s->data, s->length - suffix->length);
}

/* ---- stripping --------------------------------------------------------------------- */

static bool strips(uint32_t point, const char *bytes, size_t n, const Str *characters) {
    if (!characters) return jinja_is_space(point);
    for (size_t i = 0; i + n <= characters->length; i++)
        if (memcmp(characters->data + i, bytes, n) == 0 &&
            ((unsigned char)characters->data[i] & 0xC0) != 0x80)
            return true;
    return false;
}

/* `characters`: a string, or none for whitespace. */
Value jinja_strip(Render *r, Value string, Value characters, bool left, bool right) {
    const Str *s = string.as.string, *set = NULL;
    if (characters.kind != V_NONE && characters.kind != V_MISSING) {
        if (characters.kind != V_STRING)
            jinja_raise(r, "TypeError", "strip arg must be None or str");
        set = characters.as.string;
    }
    size_t from = 0, to = s->length;
    uint32_t point;
    jinja_charge(r, s->length / 64);
    while (left && from < to) {
        size_t n = base_utf8_decode(s->data + from, to - from, &point, NULL);
        if (!strips(point, s->data + from, n, set)) break;
        from += n;
    }
    while (right && to > from) {
        size_t start = to - 1;
        while (start > from && ((unsigned char)s->data[start] & 0xC0) == 0x80) start--;
        base_utf8_decode(s->data + start, to - start, &point, NULL);
        if (!strips(point, s->data + start, to - start, set)) break;
        to = start;
    }
    if (from == 0 && to == s->length) return string;
    Value result = jinja_string_borrow(r, s->data + from, to - from);
    result.markup = string.markup;
    return result;
}

static Value m_strip(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return jinja_strip(r, self, slot[0], true, true);
}
static Value m_lstrip(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return jinja_strip(r, self, slot[0], true, false);
}
static Value m_rstrip(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return jinja_strip(r, self, slot[0], false, true);
}

/* ---- splitting and joining ------------------------------------------------------------ */

static void add_part(Render *r, List *list, const Str *string, size_t from, size_t to) {
    jinja_charge(r, 1);
    jinja_list_add(r, list, jinja_string_borrow(r, string->data + from, to - from));
}

static size_t point_before(const Str *s, size_t at, uint32_t *point) {
    size_t start = at - 1;
    while (start > 0 && ((unsigned char)s->data[start] & 0xC0) == 0x80) start--;
    base_utf8_decode(s->data + start, at - start, point, NULL);
    return start;
}

static void reverse(List *list) {
    for (size_t i = 0, j = list->count; i + 1 < j; i++) {
        Value item = list->items[i];
        list->items[i] = list->items[--j];
        list->items[j] = item;
    }
}

static void split_space_right(Render *r, List *list, const Str *s, int64_t limit) {
    size_t end = s->length;
    uint32_t point;
    for (;;) {
        while (end > 0) {
            size_t start = point_before(s, end, &point);
            if (!jinja_is_space(point)) break;
            end = start;
        }
        if (end == 0) break;
        size_t from = limit == 0 ? 0 : end;
        while (from > 0) {
            size_t start = point_before(s, from, &point);
            if (jinja_is_space(point)) break;
            from = start;
        }
        add_part(r, list, s, from, end);
        end = from;
        if (limit-- == 0) break;
    }
    reverse(list);
}

static void split_space(Render *r, List *list, const Str *s, int64_t limit) {
    uint32_t point;
    for (size_t at = 0;;) {
        while (at < s->length) {
            size_t n = base_utf8_decode(s->data + at, s->length - at, &point, NULL);
            if (!jinja_is_space(point)) break;
            at += n;
        }
        if (at >= s->length) return;
        size_t from = at;
        if (limit-- == 0) {
            add_part(r, list, s, from, s->length);
            return;
        }
        while (at < s->length) {
            size_t n = base_utf8_decode(s->data + at, s->length - at, &point, NULL);
            if (jinja_is_space(point)) break;
            at += n;
        }
        add_part(r, list, s, from, at);
    }
}

static void split_at(Render *r, List *list, const Str *s, const Str *separator, int64_t limit,
                     bool from_right) {
    size_t from = 0, to = s->length;
    while (limit-- != 0) {
        int64_t found = from_right ? find_last(s->data, to, separator)
                                   : jinja_find_string(s->data + from, to - from, separator->data,
                                                       separator->length);
        if (found < 0) break;
        if (from_right) {
            add_part(r, list, s, (size_t)found + separator->length, to);
            to = (size_t)found;
        } else {
            add_part(r, list, s, from, from + (size_t)found);
            from += (size_t)found + separator->length;
        }
    }
    add_part(r, list, s, from, to);
    if (from_right) reverse(list);
}

/* limit -1: no limit. */
List *jinja_split(Render *r, const Str *string, Value separator, int64_t limit, bool from_right) {
    List *list = jinja_list_new(r, 0);
    jinja_charge(r, string->length / 16);
    if (separator.kind == V_NONE || separator.kind == V_MISSING) {
        if (from_right)
            split_space_right(r, list, string, limit);
        else
            split_space(r, list, string, limit);
        return list;
    }
    const Str *mark = need_string(r, separator, "the separator");
    if (mark->length == 0) jinja_raise(r, "ValueError", "empty separator");
    split_at(r, list, string, mark, limit, from_right);
    return list;
}

static Value m_split(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    return jinja_list(jinja_split(r, self.as.string, slot[0], int_or(r, slot[1], -1), false));
}

static Value m_rsplit(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    return jinja_list(jinja_split(r, self.as.string, slot[0], int_or(r, slot[1], -1), true));
}

static bool is_line_end(uint32_t point) {
    return (point >= 10 && point <= 13) || (point >= 0x1c && point <= 0x1e) || point == 0x85 ||
           point == 0x2028 || point == 0x2029;
}

List *jinja_splitlines(Render *r, const Str *s, bool keep_ends) {
    List *list = jinja_list_new(r, 0);
    jinja_charge(r, s->length / 16);
    for (size_t from = 0, at = 0; at < s->length;) {
        uint32_t point;
        size_t n = base_utf8_decode(s->data + at, s->length - at, &point, NULL);
        if (is_line_end(point)) {
            if (point == '\r' && at + 1 < s->length && s->data[at + 1] == '\n') n = 2;
            add_part(r, list, s, from, keep_ends ? at + n : at);
            from = at + n;
        }
        at += n;
        if (at >= s->length && from < s->length) add_part(r, list, s, from, s->length);
    }
    return list;
}

static Value m_splitlines(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    return jinja_list(jinja_splitlines(r, self.as.string, jinja_truth(r, slot[0])));
}

static Value partition(Render *r, Value self, Value separator, bool last) {
    const Str *s = self.as.string, *mark = need_string(r, separator, "the separator");
    if (mark->length == 0) jinja_raise(r, "ValueError", "empty separator");
    int64_t at = last ? find_last(s->data, s->length, mark)
                      : jinja_find_string(s->data, s->length, mark->data, mark->length);
    List *list = jinja_list_new(r, 3);
    if (at < 0) {
        if (!last) jinja_list_add(r, list, self);
        jinja_list_add(r, list, jinja_text(r, ""));
        jinja_list_add(r, list, jinja_text(r, ""));
        if (last) jinja_list_add(r, list, self);
    } else {
        add_part(r, list, s, 0, (size_t)at);
        jinja_list_add(r, list, separator);
        add_part(r, list, s, (size_t)at + mark->length, s->length);
    }
    return jinja_tuple(list);
}

static Value m_partition(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return partition(r, self, slot[0], false);
}
static Value m_rpartition(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return partition(r, self, slot[0], true);
}

/* str.join: all items must be strings already. */
static Value m_join(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    if (!jinja_is_iterable(slot[0])) jinja_raise(r, "TypeError", "can only join an iterable");
    List *items = jinja_collect(r, slot[0]);
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < items->count; i++) {
        Value item = items->items[i];
        if (item.kind != V_STRING)
            jinja_raise(r, "TypeError", "sequence item %zu: expected str instance, %s found", i,
                        jinja_type_name(item));
        if (i) jinja_write_str(r, self);
        if (self.markup) item = jinja_escape(r, item);
        jinja_write_str(r, item);
    }
    Value result = jinja_take(r, mark);
    result.markup = self.markup;
    return result;
}

/* ---- replacing, padding, case --------------------------------------------------------------- */

/* count -1: all. An empty `old` matches between all characters. */
Value jinja_replace(Render *r, Value string, Value old, Value fresh, int64_t count) {
    const Str *s = string.as.string, *from = need_string(r, old, "replace() argument 1");
    const Str *to = need_string(r, fresh, "replace() argument 2");
    if (string.markup && !fresh.markup) to = jinja_escape(r, fresh).as.string;
    size_t mark = jinja_mark(r), at = 0;
    jinja_charge(r, s->length / 16);
    for (; count != 0; count--) {
        if (from->length == 0) {
            jinja_write(r, to->data, to->length);
            if (at >= s->length) break;
            uint32_t point;
            size_t n = base_utf8_decode(s->data + at, s->length - at, &point, NULL);
            jinja_write(r, s->data + at, n);
            at += n;
            jinja_charge(r, 1);
            continue;
        }
        int64_t found = jinja_find_string(s->data + at, s->length - at, from->data, from->length);
        if (found < 0) break;
        jinja_write(r, s->data + at, (size_t)found);
        jinja_write(r, to->data, to->length);
        jinja_charge(r, 1);
        at += (size_t)found + from->length;
    }
    if (at < s->length) jinja_write(r, s->data + at, s->length - at);
    Value result = jinja_take(r, mark);
    result.markup = string.markup;
    return result;
}

static Value m_replace(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    return jinja_replace(r, self, slot[0], slot[1], int_or(r, slot[2], -1));
}

Value jinja_repeat(Render *r, const Str *string, int64_t count) {
    size_t times = count > 0 ? (size_t)count : 0, total;
    if (__builtin_mul_overflow(times, string->length, &total) || total > r->max_memory)
        jinja_raise(r, "MemoryError", "a repeated string is too large");
    char *bytes = jinja_alloc(r, total + 1);
    if (string->length == 1)
        memset(bytes, string->data[0], total);
    else if (string->length)
        for (size_t i = 0; i < total; i += string->length)
            memcpy(bytes + i, string->data, string->length);
    return jinja_string_borrow(r, bytes, total);
}

Value jinja_pad(Render *r, const Str *string, int64_t left, int64_t right, uint32_t fill) {
    size_t mark = jinja_mark(r);
    jinja_put_times(r, fill, left);
    jinja_write(r, string->data, string->length);
    jinja_put_times(r, fill, right);
    return jinja_take(r, mark);
}

typedef enum { PAD_LEFT, PAD_RIGHT, PAD_CENTER } PadSide;

static Value pad(Render *r, Value self, Value *slot, PadSide side) {
    int64_t space = int_or(r, slot[0], 0), length = (int64_t)jinja_points(self.as.string);
    uint32_t fill = ' ';
    if (slot[1].kind != V_MISSING) {
        const Str *character = need_string(r, slot[1], "the fill character");
        if (jinja_points(character) != 1)
            jinja_raise(r, "TypeError", "The fill character must be exactly one character long");
        base_utf8_decode(character->data, character->length, &fill, NULL);
    }
    if (space <= length) return self;
    int64_t missing = space - length, left = side == PAD_LEFT ? missing : 0;
    if (side == PAD_CENTER) left = missing / 2 + (missing & space & 1);
    return jinja_pad(r, self.as.string, left, missing - left, fill);
}

static Value m_ljust(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return pad(r, self, slot, PAD_RIGHT);
}
static Value m_rjust(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return pad(r, self, slot, PAD_LEFT);
}
static Value m_center(Render *r, Value self, Value *slot, const Args *a) {
    (void)a;
    return pad(r, self, slot, PAD_CENTER);
}

static Value m_zfill(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    const Str *s = self.as.string;
    int64_t missing = int_or(r, slot[0], 0) - (int64_t)jinja_points(s);
    if (missing <= 0) return self;
    size_t sign = s->length && (s->data[0] == '-' || s->data[0] == '+'), mark = jinja_mark(r);
    jinja_write(r, s->data, sign);
    jinja_put_times(r, '0', missing);
    jinja_write(r, s->data + sign, s->length - sign);
    return jinja_take(r, mark);
}

static Value m_expandtabs(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    const Str *s = self.as.string;
    int64_t size = int_or(r, slot[0], 8), column = 0;
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < s->length; i++) {
        char c = s->data[i];
        if (c == '\t') {
            int64_t spaces = size > 0 ? size - column % size : 0;
            jinja_put_times(r, ' ', spaces);
            column += spaces;
            continue;
        }
        jinja_putc(r, c);
        if (c == '\n' || c == '\r')
            column = 0;
        else
            column += ((unsigned char)c & 0xC0) != 0x80;
    }
    return jinja_take(r, mark);
}

static Value m_upper(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return jinja_case(r, self, CASE_UPPER);
}
static Value m_lower(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return jinja_case(r, self, CASE_LOWER);
}
static Value m_title(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return jinja_case(r, self, CASE_TITLE);
}
static Value m_capitalize(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return jinja_case(r, self, CASE_CAPITALIZE);
}
static Value m_casefold(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return jinja_casefold(r, self);
}
static Value m_swapcase(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return jinja_case(r, self, CASE_SWAP);
}

/* ---- questions about characters -----------------------------------------------------------------
 */

static bool is_alnum(uint32_t point) {
    return point != '_' && jinja_is_word(point);
}
static bool is_ascii(uint32_t point) {
    return point < 0x80;
}

static Value all(Render *r, Value self, bool (*is)(uint32_t), bool empty) {
    const Str *s = self.as.string;
    if (s->length == 0) return jinja_bool(empty);
    jinja_charge(r, s->length / 16);
    for (size_t i = 0; i < s->length;) {
        uint32_t point;
        i += base_utf8_decode(s->data + i, s->length - i, &point, NULL);
        if (!is(point)) return jinja_bool(false);
    }
    return jinja_bool(true);
}

static Value m_isalpha(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return all(r, self, jinja_is_alpha, false);
}
static Value m_isalnum(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return all(r, self, is_alnum, false);
}
static Value m_isdigit(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return all(r, self, jinja_is_digit, false);
}
static Value m_isdecimal(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return all(r, self, jinja_is_decimal, false);
}
static Value m_isspace(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return all(r, self, jinja_is_space, false);
}
static Value m_isascii(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return all(r, self, is_ascii, true);
}
static Value m_isprintable(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return all(r, self, jinja_is_printable, true);
}

/* Some cased character, and none of the other case. */
static Value of_case(Render *r, const Str *s, bool upper) {
    bool found = false;
    jinja_charge(r, s->length / 16);
    for (size_t i = 0; i < s->length;) {
        uint32_t point;
        i += base_utf8_decode(s->data + i, s->length - i, &point, NULL);
        if (jinja_is_title(point) || (upper ? jinja_is_lower(point) : jinja_is_upper(point)))
            return jinja_bool(false);
        found |= upper ? jinja_is_upper(point) : jinja_is_lower(point);
    }
    return jinja_bool(found);
}

static Value m_isupper(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return of_case(r, self.as.string, true);
}
static Value m_islower(Render *r, Value self, Value *slot, const Args *a) {
    (void)slot, (void)a;
    return of_case(r, self.as.string, false);
}

static Value m_istitle(Render *r, Value self, Value *slot, const Args *args) {
    (void)r, (void)slot, (void)args;
    const Str *s = self.as.string;
    bool word = false, found = false;
    for (size_t i = 0; i < s->length;) {
        uint32_t point;
        i += base_utf8_decode(s->data + i, s->length - i, &point, NULL);
        bool capital = jinja_is_upper(point) || jinja_is_title(point),
             small = jinja_is_lower(point);
        if ((capital && word) || (small && !word)) return jinja_bool(false);
        word = capital || small;
        found |= word;
    }
    return jinja_bool(found);
}

static Value m_format(Render *r, Value self, Value *slot, const Args *args) {
    (void)slot;
    return jinja_str_format(r, self.as.string, args, self.markup);
}

#define METHOD(name, parameters) \
    { #name, "str." #name, parameters, m_##name }
const Function jinja_string_methods[] = {
    METHOD(capitalize, "/"),
    METHOD(casefold, "/"),
    METHOD(center, "/width ?fillchar"),
    METHOD(count, "/sub ?start ?end"),
    METHOD(endswith, "/suffix ?start ?end"),
    METHOD(expandtabs, "?tabsize"),
    METHOD(find, "/sub ?start ?end"),
    METHOD(format, "*"),
    METHOD(index, "/sub ?start ?end"),
    METHOD(isalnum, "/"),
    METHOD(isalpha, "/"),
    METHOD(isascii, "/"),
    METHOD(isdecimal, "/"),
    METHOD(isdigit, "/"),
    METHOD(islower, "/"),
    METHOD(isprintable, "/"),
    METHOD(isspace, "/"),
    METHOD(istitle, "/"),
    METHOD(isupper, "/"),
    METHOD(join, "/iterable"),
    METHOD(ljust, "/width ?fillchar"),
    METHOD(lower, "/"),
    METHOD(lstrip, "/?chars"),
    METHOD(partition, "/sep"),
    METHOD(removeprefix, "/prefix"),
    METHOD(removesuffix, "/suffix"),
    METHOD(replace, "/old new ?count"),
    METHOD(rfind, "/sub ?start ?end"),
    METHOD(rindex, "/sub ?start ?end"),
    METHOD(rjust, "/width ?fillchar"),
    METHOD(rpartition, "/sep"),
    METHOD(rsplit, "?sep ?maxsplit"),
    METHOD(rstrip, "/?chars"),
    METHOD(split, "?sep ?maxsplit"),
    METHOD(splitlines, "?keepends"),
    METHOD(startswith, "/prefix ?start ?end"),
    METHOD(strip, "/?chars"),
    METHOD(swapcase, "/"),
    METHOD(title, "/"),
    METHOD(upper, "/"),
    METHOD(zfill, "/width"),
};
const size_t jinja_n_string_methods = BASE_COUNT(jinja_string_methods);
