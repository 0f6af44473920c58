/* jinja_filters_html: the filters that read or make HTML: striptags, which
 * keeps the text of a page, and urlize, which makes links of addresses. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

/* ---- striptags ------------------------------------------------------------------------ */

static const char *entity_named(const char *name, size_t length) {
    size_t low = 0, high = jinja_n_entities;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const Entity *entity = &jinja_entities[middle];
        int order = strncmp(name, entity->name, length);
        if (order == 0 && entity->name[length]) order = -1;
        if (order == 0) return entity->text;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* What Windows' code page 1252 has at 0x80 to 0x9f; pages write those numbers. */
static const uint16_t code_page_1252[32] = {
    0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
    0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};

static void put_numbered(Render *r, uint64_t number) {
    uint32_t point = number > 0x10ffff ? 0xfffd : (uint32_t)number;
    if (point == 0 || (point >= 0xd800 && point <= 0xdfff)) point = 0xfffd;
    if (point >= 0x80 && point < 0xa0) {
        jinja_put_point(r, code_page_1252[point - 0x80]);
        return;
    }
    bool control = (point < 0x20 && !(point >= 9 && point <= 13 && point != 11)) || point == 0x7f,
         no_character = (point >= 0xfdd0 && point <= 0xfdef) || (point & 0xfffe) == 0xfffe;
    if (point == 0xfffd || !(control || no_character)) jinja_put_point(r, point);
}

/* The reference that starts at an ampersand; 0: it is only an ampersand. */
static size_t put_reference(Render *r, const char *text, size_t length) {
    size_t at = 1;
    if (at < length && text[at] == '#') {
        bool hex = at + 1 < length && (text[at + 1] | 0x20) == 'x';
        uint64_t number = 0;
        size_t from = at += 1 + hex;
        for (; at < length; at++) {
            int c = text[at] | 0x20, digit = text[at] >= '0' && text[at] <= '9' ? text[at] - '0'
                                             : hex && c >= 'a' && c <= 'f'      ? c - 'a' + 10
                                                                                : -1;
            if (digit < 0) break;
            if (number <= 0x10ffff) number = number * (hex ? 16 : 10) + (uint64_t)digit;
        }
        if (at == from) return 0;
        put_numbered(r, number);
        return at + (at < length && text[at] == ';');
    }
    for (size_t points = 0; at < length && points < 32 && !strchr("\t\n\f <&#;", text[at]);
         points++)
        at += base_utf8_decode(text + at, length - at, &(uint32_t){0}, NULL);
    if (at < length && text[at] == ';' && at > 1) at++;
    for (size_t end = at; end > 2; end--) {
        const char *named = entity_named(text + 1, end - 1);
        if (!named) continue;
        jinja_puts(r, named);
        return end;
    }
    return 0;
}

/* Tags and comments; what never closes is text. */
static Value without_tags(Render *r, const Str *text) {
    size_t mark = jinja_mark(r), from = 0;
    int64_t open, close;
    while ((open = jinja_find_string(text->data + from, text->length - from, "<", 1)) >= 0) {
        size_t start = from + (size_t)open;
        bool comment = text->length - start >= 4 && memcmp(text->data + start, "<!--", 4) == 0;
        size_t inside = comment ? start + 4 : start;
        const char *end = comment ? "-->" : ">";
        close = jinja_find_string(text->data + inside, text->length - inside, end, strlen(end));
        if (close < 0) break;
        jinja_write(r, text->data + from, (size_t)open);
        from = inside + (size_t)close + strlen(end);
    }
    jinja_write(r, text->data + from, text->length - from);
    return jinja_take(r, mark);
}

static Value f_striptags(Render *r, Value self, Value *slot, const Args *args) {
    (void)slot, (void)args;
    Value text = without_tags(r, jinja_str(r, self).as.string);
    List *words = jinja_split(r, text.as.string, jinja_none(), -1, false);
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < words->count; i++) {
        if (i) jinja_putc(r, ' ');
        jinja_write_str(r, words->items[i]);
    }
    const Str *line = jinja_take(r, mark).as.string;
    mark = jinja_mark(r);
    for (size_t i = 0; i < line->length;) {
        size_t n = line->data[i] == '&' ? put_reference(r, line->data + i, line->length - i) : 0;
        if (n == 0) jinja_putc(r, line->data[i++]);
        i += n;
    }
    return jinja_take(r, mark);
}

/* ---- urlize ----------------------------------------------------------------------------- */

static const char web_address[] =
    "(?i)^(?:(?:https?://|www\\.)(?:(?:[\\w%-]+\\.)+)?(?:[a-z]{2,63}|xn--[\\w%]{2,59})"
    "|(?:[\\w%-]{2,63}\\.)+(?:com|net|int|edu|gov|org|info|mil)"
    "|https?://(?:\\d{1,3}(?:\\.\\d{1,3}){3}|\\[(?:[\\da-f]{0,4}:){2}(?:[\\da-f]{0,4}:?){1,6}\\]))"
    "(?::\\d{1,5})?(?:[/?#]\\S*)?$";
static const char mail_address[] = "^\\S+@\\w[\\w.-]*\\.\\w+$";

typedef struct Slice {
    const char *text;
    size_t length;
} Slice;

typedef struct LinkStyle {
    Value attributes; /* rel and target, ready to write */
    int64_t limit;    /* of the visible text in characters; -1: none */
    List *schemes;    /* more of them, or NULL */
} LinkStyle;

static bool starts(Slice slice, const char *text) {
    size_t n = strlen(text);
    return slice.length >= n && memcmp(slice.text, text, n) == 0;
}

/* The first of the NULL-terminated marks that stands at the place, or 0. */
static size_t mark_at(Slice slice, size_t at, const char *const *marks) {
    for (; *marks; marks++)
        if (starts((Slice){slice.text + at, slice.length - at}, *marks)) return strlen(*marks);
    return 0;
}

static size_t count_of(Slice slice, const char *mark) {
    size_t count = 0;
    for (size_t i = 0; i < slice.length;) {
        bool here = starts((Slice){slice.text + i, slice.length - i}, mark);
        count += here;
        i += here ? strlen(mark) : 1;
    }
    return count;
}

/* Cuts brackets before and punctuation after an address, but leaves what
 * balances a bracket inside it. */
static Slice address_in(Slice word, size_t *head) {
    static const char *const opening[] = {"(", "<", "&lt;", NULL};
    static const char *const closing[] = {")", ">", ".", ",", "\n", "&gt;", NULL};
    static const char *const pairs[][2] = {{"(", ")"}, {"<", ">"}, {"&lt;", "&gt;"}};
    size_t n;
    *head = 0;
    while ((n = mark_at(word, *head, opening))) *head += n;
    Slice middle = {word.text + *head, word.length - *head}, all = middle;
    for (bool cut = true; cut && middle.length;) {
        cut = false;
        for (const char *const *mark = closing; *mark && !cut; mark++) {
            n = strlen(*mark);
            cut = middle.length >= n && memcmp(middle.text + middle.length - n, *mark, n) == 0;
            if (cut) middle.length -= n;
        }
    }
    for (size_t p = 0; p < BASE_COUNT(pairs); p++) {
        Slice tail = {all.text + middle.length, all.length - middle.length};
        size_t open = count_of(middle, pairs[p][0]);
        if (open <= count_of(middle, pairs[p][1])) continue;
        size_t closers = count_of(tail, pairs[p][1]), wanted = BASE_MIN(open, closers);
        for (size_t i = 0; i < wanted; i++) {
            const char *rest = all.text + middle.length;
            int64_t at = jinja_find_string(rest, all.length - middle.length, pairs[p][1],
                                           strlen(pairs[p][1]));
            middle.length += (size_t)at + strlen(pairs[p][1]);
        }
    }
    return middle;
}

static void write_link(Render *r, const char *scheme, Slice address, const LinkStyle *style,
                       int64_t limit) {
    Str text = {address.text, address.length, POINTS_UNKNOWN, NULL};
    bool cut = limit >= 0 && (int64_t)jinja_points(&text) > limit;
    jinja_puts(r, "<a href=\"");
    jinja_puts(r, scheme);
    jinja_write(r, address.text, address.length);
    jinja_putc(r, '"');
    if (style) jinja_write_str(r, style->attributes);
    jinja_putc(r, '>');
    if (cut)
        jinja_write_str(r, jinja_substring(r, &text, 0, (size_t)limit));
    else
        jinja_write(r, address.text, address.length);
    jinja_puts(r, cut ? "...</a>" : "</a>");
}

static bool write_mail(Render *r, Slice address) {
    bool scheme = starts(address, "mailto:");
    Slice plain = scheme ? (Slice){address.text + 7, address.length - 7} : address;
    if (!scheme && (!memchr(address.text, '@', address.length) || starts(address, "www.") ||
                    starts(address, "@") || memchr(address.text, ':', address.length)))
        return false;
    if (!jinja_matches(r, mail_address, plain.text, plain.length)) return false;
    write_link(r, "mailto:", plain, NULL, -1);
    return true;
}

static void write_word(Render *r, Slice word, const LinkStyle *style) {
    size_t head;
    Slice address = address_in(word, &head);
    const char *end = address.text + address.length;
    bool web = address.length && jinja_matches(r, web_address, address.text, address.length);
    jinja_write(r, word.text, head);
    if (web) {
        bool whole = starts(address, "https://") || starts(address, "http://");
        write_link(r, whole ? "" : "https://", address, style, style->limit);
    } else if (!address.length || !write_mail(r, address)) {
        bool linked = false;
        for (size_t i = 0; style->schemes && i < style->schemes->count && !linked; i++) {
            const char *scheme = jinja_cstring(r, style->schemes->items[i].as.string);
            linked = starts(address, scheme) && address.length > strlen(scheme);
        }
        if (linked)
            write_link(r, "", address, style, -1);
        else
            jinja_write(r, address.text, address.length);
    }
    jinja_write(r, end, (size_t)(word.text + word.length - end));
}

/* The words of rel, with noopener, each once and sorted. */
static Value rel_of(Render *r, Value given, bool nofollow) {
    List *words = given.kind == V_STRING && given.as.string->length
                      ? jinja_split(r, given.as.string, jinja_none(), -1, false)
                      : jinja_list_new(r, 2);
    if (nofollow) jinja_list_add(r, words, jinja_text(r, "nofollow"));
    jinja_list_add(r, words, jinja_text(r, "noopener"));
    Pair *pairs = jinja_calloc(r, words->count * sizeof *pairs);
    for (size_t i = 0; i < words->count; i++) pairs[i].key = words->items[i];
    jinja_sort(r, pairs, words->count, false);
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < words->count; i++) {
        if (i && jinja_equal(r, pairs[i].key, pairs[i - 1].key)) continue;
        if (i) jinja_putc(r, ' ');
        jinja_write_str(r, pairs[i].key);
    }
    return jinja_take(r, mark);
}

static LinkStyle style_of(Render *r, const Value *slot) {
    LinkStyle style = {.limit = -1};
    if (slot[0].kind != V_MISSING && slot[0].kind != V_NONE) {
        if (!jinja_as_int(slot[0], &style.limit))
            jinja_raise(r, "TypeError", "'>' not supported between instances of 'int' and '%s'",
                        jinja_type_name(slot[0]));
        style.limit = BASE_MAX(style.limit, 0);
    }
    if (slot[4].kind != V_MISSING && slot[4].kind != V_NONE) {
        style.schemes = jinja_collect(r, slot[4]);
        for (size_t i = 0; i < style.schemes->count; i++) {
            Value scheme = style.schemes->items[i];
            if (scheme.kind != V_STRING ||
                !jinja_matches(r, "[\\w.+-]{2,}:/{0,2}", scheme.as.string->data,
                               scheme.as.string->length))
                jinja_raise(r, "FilterArgumentError", "%s is not a valid URI scheme prefix.",
                            jinja_repr_text(r, scheme));
        }
    }
    Value rel = jinja_escape(r, rel_of(r, slot[3], jinja_truth(r, slot[1])));
    size_t mark = jinja_mark(r);
    jinja_puts(r, " rel=\"");
    jinja_write_str(r, rel);
    jinja_putc(r, '"');
    if (jinja_truth(r, slot[2])) {
        jinja_puts(r, " target=\"");
        jinja_write_str(r, jinja_escape(r, slot[2]));
        jinja_putc(r, '"');
    }
    style.attributes = jinja_take(r, mark);
    return style;
}

static Value f_urlize(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    LinkStyle style = style_of(r, slot);
    const Str *text = jinja_escape(r, self).as.string;
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < text->length;) {
        size_t end = i, n = 0;
        uint32_t point = 0;
        while (end < text->length) {
            n = base_utf8_decode(text->data + end, text->length - end, &point, NULL);
            if (jinja_is_space(point)) break;
            end += n;
        }
        if (end > i) write_word(r, (Slice){text->data + i, end - i}, &style);
        if (end < text->length) jinja_write(r, text->data + end, n);
        i = end + (end < text->length ? n : 0);
    }
    return jinja_take(r, mark);
}

const Function jinja_html_filters[] = {
    {"striptags", "do_striptags", "", f_striptags},
    {"urlize", "do_urlize", "?trim_url_limit ?nofollow ?target ?rel ?extra_schemes", f_urlize},
};
const size_t jinja_n_html_filters = BASE_COUNT(jinja_html_filters);
