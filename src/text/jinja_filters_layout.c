/* jinja_filters_layout: the filters that lay a value out in lines: wordwrap,
 * which fills paragraphs as Python's textwrap does, and pprint, which breaks a
 * container over lines as Python's pprint does at 80 columns. */
#include <string.h>

#include "text/jinja.h"

static int64_t width_of(const char *bytes, size_t length) {
    Str text = {bytes, length, POINTS_UNKNOWN, NULL};
    return (int64_t)jinja_points(&text);
}

/* ---- wordwrap ----------------------------------------------------------------------- */

/* A run of white space or a word that a line may end after. */
typedef struct Chunk {
    const char *text;
    size_t length;
    int64_t points;
    bool blank;
} Chunk;

typedef struct WrapOptions {
    int64_t width;
    bool break_long_words, break_on_hyphens;
} WrapOptions;

static Chunk chunk_of(const char *text, size_t length) {
    Chunk chunk = {text, length, width_of(text, length), true};
    for (size_t i = 0; i < length && chunk.blank;) {
        uint32_t point;
        i += base_utf8_decode(text + i, length - i, &point, NULL);
        chunk.blank = jinja_is_space(point);
    }
    return chunk;
}

/* Where to cut: at white space, after the hyphen of a compound, around dashes. */
static const char with_hyphens[] = "[\\t\\n\\x0b\\x0c\\r ]+"
                                   "|(?<=[\\w!\"'&.,?])-{2,}(?=\\w)"
                                   "|[^\\t\\n\\x0b\\x0c\\r ]+?(?:"
                                   "-(?:(?<=[^\\d\\W]{2}-)|(?<=[^\\d\\W]-[^\\d\\W]-))"
                                   "(?=[^\\d\\W]-?[^\\d\\W])"
                                   "|(?=[\\t\\n\\x0b\\x0c\\r ]|\\z)"
                                   "|(?<=[\\w!\"'&.,?])(?=-{2,}\\w))";
static const char without_hyphens[] = "[\\t\\n\\x0b\\x0c\\r ]+|[^\\t\\n\\x0b\\x0c\\r ]+";

/* What of a chunk wider than a line still fits into the room that is left. */
static size_t fitting(const Chunk *chunk, int64_t room, bool at_hyphen) {
    size_t end = 0, hyphen = 0;
    bool other = false, useful = false;
    for (int64_t i = 0; i < room && end < chunk->length; i++) {
        uint32_t point;
        size_t n = base_utf8_decode(chunk->text + end, chunk->length - end, &point, NULL);
        if (point == '-') {
            hyphen = end + 1;
            useful = other;
        }
        other |= point != '-';
        end += n;
    }
    return at_hyphen && useful ? hyphen : end;
}

/* One paragraph into as many lines as it needs. */
static void wrap_line(Render *r, const Str *line, const WrapOptions *options, Value newline) {
    size_t n_spans, n_lines = 0, at = 0;
    const MatchSpan *spans = jinja_find_all(
        r, options->break_on_hyphens ? with_hyphens : without_hyphens, line, &n_spans);
    Chunk *chunks = jinja_alloc(r, (n_spans + 1) * sizeof *chunks);
    for (size_t i = 0; i < n_spans; i++)
        chunks[i] = chunk_of(line->data + spans[i].start, spans[i].end - spans[i].start);
    while (at < n_spans) {
        Chunk *kept = jinja_alloc(r, (n_spans - at + 1) * sizeof *kept);
        size_t n_kept = 0;
        int64_t used = 0;
        jinja_charge(r, 1);
        if (chunks[at].blank && n_lines) at++;
        while (at < n_spans && used + chunks[at].points <= options->width) {
            used += chunks[at].points;
            kept[n_kept++] = chunks[at++];
        }
        if (at < n_spans && chunks[at].points > options->width) {
            if (options->break_long_words) {
                size_t part =
                    fitting(&chunks[at], options->width - used, options->break_on_hyphens);
                kept[n_kept++] = chunk_of(chunks[at].text, part);
                chunks[at] = chunk_of(chunks[at].text + part, chunks[at].length - part);
            } else if (n_kept == 0) {
                kept[n_kept++] = chunks[at++];
            }
        }
        if (n_kept && kept[n_kept - 1].blank) n_kept--;
        if (n_kept == 0) continue;
        if (n_lines++) jinja_write_str(r, newline);
        for (size_t i = 0; i < n_kept; i++) jinja_write(r, kept[i].text, kept[i].length);
    }
}

static Value f_wordwrap(Render *r, Value self, Value *slot, const Args *args) {
    (void)args;
    WrapOptions options = {
        .width = 79,
        .break_long_words = slot[1].kind == V_MISSING || jinja_truth(r, slot[1]),
        .break_on_hyphens = slot[3].kind == V_MISSING || jinja_truth(r, slot[3]),
    };
    if (self.kind == V_UNDEFINED) jinja_raise_undefined(r, self);
    if (self.kind != V_STRING)
        jinja_raise(r, "AttributeError", "'%s' object has no attribute 'splitlines'",
                    jinja_type_name(self));
    if (slot[0].kind != V_MISSING && !jinja_as_int(slot[0], &options.width))
        jinja_raise(r, "TypeError", "'<=' not supported between instances of '%s' and 'int'",
                    jinja_type_name(slot[0]));
    bool own = slot[2].kind != V_MISSING && slot[2].kind != V_NONE;
    if (own && slot[2].kind != V_STRING)
        jinja_raise(r, "AttributeError", "'%s' object has no attribute 'join'",
                    jinja_type_name(slot[2]));
    Value newline = own ? slot[2] : jinja_text(r, "\n");
    List *lines = jinja_splitlines(r, self.as.string, false);
    if (options.width <= 0 && lines->count)
        jinja_raise(r, "ValueError", "invalid width %lld (must be > 0)", (long long)options.width);
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < lines->count; i++) {
        if (i) jinja_write_str(r, newline);
        wrap_line(r, lines->items[i].as.string, &options, newline);
    }
    return jinja_take(r, mark);
}

/* ---- pprint --------------------------------------------------------------------------- */

enum { PAGE_WIDTH = 80 };

/* Keys in Python's order; keys of kinds without one go by the name of the kind. */
static bool key_before(Render *r, Value left, Value right) {
    bool numbers = jinja_is_number(left) && jinja_is_number(right);
    if (numbers || (left.kind == V_STRING && right.kind == V_STRING))
        return jinja_ordered(r, T_LT, left, right);
    return strcmp(jinja_type_name(left), jinja_type_name(right)) < 0;
}

static void sort_pairs(Render *r, Pair *pairs, size_t count, Pair *scratch) {
    if (count < 2) return;
    size_t middle = count / 2, left = 0, right = middle, out = 0;
    sort_pairs(r, pairs, middle, scratch);
    sort_pairs(r, pairs + middle, count - middle, scratch);
    memcpy(scratch, pairs, middle * sizeof *pairs);
    while (left < middle && right < count)
        pairs[out++] =
            key_before(r, pairs[right].key, scratch[left].key) ? pairs[right++] : scratch[left++];
    memcpy(pairs + out, scratch + left, (middle - left) * sizeof *pairs);
}

/* The value with every dictionary in the order of its keys. */
static Value in_order(Render *r, Value value) {
    jinja_charge(r, 1);
    jinja_check_stack(r);
    if (value.kind == V_LIST || value.kind == V_TUPLE) {
        List *list = jinja_list_new(r, value.as.list->count);
        for (size_t i = 0; i < value.as.list->count; i++)
            jinja_list_add(r, list, in_order(r, value.as.list->items[i]));
        return (Value){.kind = value.kind, .as.list = list};
    }
    if (value.kind != V_DICT) return value;
    size_t count = value.as.dict->count;
    Pair *pairs = jinja_alloc(r, (count + 1) * sizeof *pairs),
         *scratch = jinja_alloc(r, (count + 1) * sizeof *scratch);
    if (count) memcpy(pairs, value.as.dict->pairs, count * sizeof *pairs);
    sort_pairs(r, pairs, count, scratch);
    Dict *dict = jinja_dict_new(r);
    for (size_t i = 0; i < count; i++)
        jinja_dict_set(r, dict, pairs[i].key, in_order(r, pairs[i].value));
    return (Value){.kind = V_DICT, .as.dict = dict};
}

static const Str *repr_of(Render *r, Value value) {
    size_t mark = jinja_mark(r);
    jinja_write_repr(r, value);
    return jinja_take(r, mark).as.string;
}

static const Str *repr_of_text(Render *r, const char *text, size_t length) {
    return repr_of(r, jinja_string_borrow(r, text, length));
}

static void new_line(Render *r, int64_t indent) {
    jinja_putc(r, '\n');
    jinja_put_times(r, ' ', indent);
}

/* The end of the word at `from` and of the white space after it. */
static size_t word_end(const Str *line, size_t from) {
    bool spaces = false;
    while (from < line->length) {
        uint32_t point;
        size_t n = base_utf8_decode(line->data + from, line->length - from, &point, NULL);
        if (spaces && !jinja_is_space(point)) break;
        spaces = jinja_is_space(point);
        from += n;
    }
    return from;
}

/* A text that is too long for its line: one literal a line, cut after words. */
static void pretty_text(Render *r, const Str *text, int64_t indent, int64_t allowance, int level) {
    List *lines = jinja_splitlines(r, text, true), *pieces = jinja_list_new(r, lines->count);
    bool top = level == 1;
    indent += top;
    allowance += top;
    int64_t width = PAGE_WIDTH - indent;
    for (size_t i = 0; i < lines->count; i++) {
        const Str *line = lines->items[i].as.string, *whole = repr_of(r, lines->items[i]);
        bool last_line = i + 1 == lines->count;
        if ((int64_t)jinja_points(whole) <= width - (last_line ? allowance : 0)) {
            jinja_list_add(r, pieces, (Value){.kind = V_STRING, .as.string = whole});
            continue;
        }
        size_t start = 0, end = 0;
        while (end < line->length) {
            size_t next = word_end(line, end);
            int64_t room = width - (last_line && next == line->length ? allowance : 0);
            const Str *candidate = repr_of_text(r, line->data + start, next - start);
            if ((int64_t)jinja_points(candidate) > room && end > start) {
                const Str *kept = repr_of_text(r, line->data + start, end - start);
                jinja_list_add(r, pieces, (Value){.kind = V_STRING, .as.string = kept});
                start = end;
            }
            end = next;
        }
        const Str *rest = repr_of_text(r, line->data + start, end - start);
        jinja_list_add(r, pieces, (Value){.kind = V_STRING, .as.string = rest});
    }
    bool brackets = top && pieces->count > 1;
    if (brackets) jinja_putc(r, '(');
    for (size_t i = 0; i < pieces->count; i++) {
        if (i) new_line(r, indent);
        jinja_write_str(r, pieces->items[i]);
    }
    if (brackets) jinja_putc(r, ')');
}

/* indent: columns before the value; allowance: columns that must follow it. */
static void pretty(Render *r, Value value, int64_t indent, int64_t allowance, int level) {
    const Str *flat = repr_of(r, value);
    jinja_charge(r, 1 + flat->length / 16);
    jinja_check_stack(r);
    bool list = value.kind == V_LIST || value.kind == V_TUPLE, dict = value.kind == V_DICT,
         text = value.kind == V_STRING && !value.markup && value.as.string->length;
    if ((int64_t)jinja_points(flat) <= PAGE_WIDTH - indent - allowance || !(list || dict || text)) {
        jinja_write(r, flat->data, flat->length);
        return;
    }
    if (text) {
        pretty_text(r, value.as.string, indent, allowance, level + 1);
        return;
    }
    size_t count = list ? value.as.list->count : value.as.dict->count;
    const char *close = dict ? "}" : value.kind == V_LIST ? "]" : count == 1 ? ",)" : ")";
    jinja_putc(r, dict ? '{' : value.kind == V_LIST ? '[' : '(');
    for (size_t i = 0; i < count; i++) {
        int64_t after = i + 1 == count ? allowance + (int64_t)strlen(close) : 1,
                column = indent + 1;
        if (i) {
            jinja_putc(r, ',');
            new_line(r, indent + 1);
        }
        if (dict) {
            const Str *key = repr_of(r, value.as.dict->pairs[i].key);
            jinja_write(r, key->data, key->length);
            jinja_puts(r, ": ");
            column += (int64_t)jinja_points(key) + 2;
        }
        pretty(r, dict ? value.as.dict->pairs[i].value : value.as.list->items[i], column, after,
               level + 1);
    }
    jinja_puts(r, close);
}

static Value f_pprint(Render *r, Value self, Value *slot, const Args *args) {
    (void)slot, (void)args;
    Value value = in_order(r, self);
    size_t mark = jinja_mark(r);
    pretty(r, value, 0, 0, 0);
    return jinja_take(r, mark);
}

const Function jinja_layout_filters[] = {
    {"pprint", "do_pprint", "", f_pprint},
    {"wordwrap", "do_wordwrap", "?width ?break_long_words ?wrapstring ?break_on_hyphens",
     f_wordwrap},
};
const size_t jinja_n_layout_filters = BASE_COUNT(jinja_layout_filters);
