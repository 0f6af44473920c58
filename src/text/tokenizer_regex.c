/* Regular expressions of tokenizer.json are Oniguruma's (Ruby syntax, Unicode
 * 16). This turns one into a PCRE2 expression with the same matches whatever
 * Unicode version PCRE2 has: every class, \s, \w, \p{...} is worked out as a
 * set of code points from our own tables and written as plain ranges. */
#include "text/tokenizer_parts.h"

enum { MAX_PATTERN = 1 << 16, MAX_OUTPUT = 1 << 20, MAX_NESTING = 50, LAST_CODE = 0x10FFFF };

/* ---- sets of code points ------------------------------------------------ */

typedef struct Set {
    TextRange *ranges; /* sorted and apart once tidied */
    size_t count, capacity;
} Set;

static void set_add(Set *set, uint32_t first, uint32_t last) {
    set->ranges = base_grow(set->ranges, &set->capacity, set->count + 1, sizeof *set->ranges);
    set->ranges[set->count++] = (TextRange){first, last};
}

static int by_first(const void *left, const void *right) {
    const TextRange *a = left, *b = right;
    return (a->first > b->first) - (a->first < b->first);
}

static void set_tidy(Set *set) {
    if (set->count < 2) return;
    qsort(set->ranges, set->count, sizeof *set->ranges, by_first);
    size_t kept = 0;
    for (size_t i = 1; i < set->count; i++) {
        TextRange *last = &set->ranges[kept];
        if (set->ranges[i].first <= last->last + 1)
            last->last = BASE_MAX(last->last, set->ranges[i].last);
        else
            set->ranges[++kept] = set->ranges[i];
    }
    set->count = kept + 1;
}

static void set_complement(Set *set) {
    set_tidy(set);
    Set out = {0};
    uint32_t next = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (set->ranges[i].first > next) set_add(&out, next, set->ranges[i].first - 1);
        next = set->ranges[i].last + 1;
    }
    if (next <= LAST_CODE) set_add(&out, next, LAST_CODE);
    free(set->ranges);
    *set = out;
}

static void set_union(Set *set, const Set *other) {
    for (size_t i = 0; i < other->count; i++)
        set_add(set, other->ranges[i].first, other->ranges[i].last);
    set_tidy(set);
}

/* a and b = not (not a or not b) */
static void set_intersect(Set *set, Set *other) {
    set_complement(set);
    set_complement(other);
    set_union(set, other);
    set_complement(set);
}

static void set_write(const Set *set, StrBuf *out) {
    if (!set->count) {
        base_str_append(out, "[^\\x{0}-\\x{10ffff}]");
        return;
    }
    base_str_append(out, "[");
    for (size_t i = 0; i < set->count; i++) {
        base_str_appendf(out, "\\x{%x}", (unsigned)set->ranges[i].first);
        if (set->ranges[i].last != set->ranges[i].first)
            base_str_appendf(out, "-\\x{%x}", (unsigned)set->ranges[i].last);
    }
    base_str_append(out, "]");
}

/* ---- named sets --------------------------------------------------------- */

static void add_class(Set *set, unsigned classes) {
    for (uint32_t page = 0; page < TEXT_PAGE_COUNT; page++) {
        const uint8_t *row = text_class_pages[text_class_index[page]];
        for (uint32_t low = 0; low < 256; low++) {
            uint32_t code = page << 8 | low;
            if (!(row[low] & classes)) continue;
            if (set->count && set->ranges[set->count - 1].last + 1 == code)
                set->ranges[set->count - 1].last = code;
            else
                set_add(set, code, code);
        }
    }
}

/* \w of a class or a property. The bare \w and \b also take the superscripts
 * and fractions of Latin-1, by a quirk of Oniguruma that CLASS_WORD has. */
static void add_word(Set *set) {
    static const TextRange quirks[] = {{0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}};
    Set word = {0}, quirk = {0};
    add_class(&word, CLASS_WORD);
    for (size_t i = 0; i < BASE_COUNT(quirks); i++)
        set_add(&quirk, quirks[i].first, quirks[i].last);
    set_complement(&quirk);
    set_intersect(&word, &quirk);
    set_union(set, &word);
    free(word.ranges);
    free(quirk.ranges);
}

static void add_categories(Set *set, uint32_t categories) {
    for (size_t i = 0; i < text_category_start_count; i++) {
        uint32_t end =
            i + 1 < text_category_start_count ? text_category_starts[i + 1] >> 8 : LAST_CODE + 1;
        if (categories >> (text_category_starts[i] & 255) & 1)
            set_add(set, text_category_starts[i] >> 8, end - 1);
    }
    set_tidy(set);
}

#define C(name) (1u << CATEGORY_##name)
enum {
    ALL_L = C(Lu) | C(Ll) | C(Lt) | C(Lm) | C(Lo),
    ALL_M = C(Mn) | C(Mc) | C(Me),
    ALL_N = C(Nd) | C(Nl) | C(No),
    ALL_P = C(Pc) | C(Pd) | C(Ps) | C(Pe) | C(Pi) | C(Pf) | C(Po),
    ALL_S = C(Sm) | C(Sc) | C(Sk) | C(So),
    ALL_Z = C(Zs) | C(Zl) | C(Zp),
    ALL_C = C(Cc) | C(Cf) | C(Co) | C(Cn) | C(Cs)
};

/* Names in lower case without spaces, hyphens and underscores. */
static const struct {
    const char *name;
    uint32_t categories;
    const TextRanges *script;
    unsigned classes;
} properties[] = {
    {"l", ALL_L, NULL, 0},
    {"letter", ALL_L, NULL, 0},
    {"m", ALL_M, NULL, 0},
    {"mark", ALL_M, NULL, 0},
    {"combiningmark", ALL_M, NULL, 0},
    {"n", ALL_N, NULL, 0},
    {"number", ALL_N, NULL, 0},
    {"p", ALL_P, NULL, 0},
    {"punctuation", ALL_P, NULL, 0},
    {"s", ALL_S, NULL, 0},
    {"symbol", ALL_S, NULL, 0},
    {"z", ALL_Z, NULL, 0},
    {"separator", ALL_Z, NULL, 0},
    {"c", ALL_C, NULL, 0},
    {"other", ALL_C, NULL, 0},
    {"lu", C(Lu), NULL, 0},
    {"uppercaseletter", C(Lu), NULL, 0},
    {"ll", C(Ll), NULL, 0},
    {"lowercaseletter", C(Ll), NULL, 0},
    {"lt", C(Lt), NULL, 0},
    {"titlecaseletter", C(Lt), NULL, 0},
    {"lm", C(Lm), NULL, 0},
    {"modifierletter", C(Lm), NULL, 0},
    {"lo", C(Lo), NULL, 0},
    {"otherletter", C(Lo), NULL, 0},
    {"lc", C(Lu) | C(Ll) | C(Lt), NULL, 0},
    {"casedletter", C(Lu) | C(Ll) | C(Lt), NULL, 0},
    {"mn", C(Mn), NULL, 0},
    {"nonspacingmark", C(Mn), NULL, 0},
    {"mc", C(Mc), NULL, 0},
    {"spacingmark", C(Mc), NULL, 0},
    {"me", C(Me), NULL, 0},
    {"enclosingmark", C(Me), NULL, 0},
    {"nd", C(Nd), NULL, 0},
    {"decimalnumber", C(Nd), NULL, 0},
    {"digit", C(Nd), NULL, 0},
    {"nl", C(Nl), NULL, 0},
    {"letternumber", C(Nl), NULL, 0},
    {"no", C(No), NULL, 0},
    {"othernumber", C(No), NULL, 0},
    {"pc", C(Pc), NULL, 0},
    {"connectorpunctuation", C(Pc), NULL, 0},
    {"pd", C(Pd), NULL, 0},
    {"dashpunctuation", C(Pd), NULL, 0},
    {"ps", C(Ps), NULL, 0},
    {"openpunctuation", C(Ps), NULL, 0},
    {"pe", C(Pe), NULL, 0},
    {"closepunctuation", C(Pe), NULL, 0},
    {"pi", C(Pi), NULL, 0},
    {"initialpunctuation", C(Pi), NULL, 0},
    {"pf", C(Pf), NULL, 0},
    {"finalpunctuation", C(Pf), NULL, 0},
    {"po", C(Po), NULL, 0},
    {"otherpunctuation", C(Po), NULL, 0},
    {"sm", C(Sm), NULL, 0},
    {"mathsymbol", C(Sm), NULL, 0},
    {"sc", C(Sc), NULL, 0},
    {"currencysymbol", C(Sc), NULL, 0},
    {"sk", C(Sk), NULL, 0},
    {"modifiersymbol", C(Sk), NULL, 0},
    {"so", C(So), NULL, 0},
    {"othersymbol", C(So), NULL, 0},
    {"zs", C(Zs), NULL, 0},
    {"spaceseparator", C(Zs), NULL, 0},
    {"zl", C(Zl), NULL, 0},
    {"lineseparator", C(Zl), NULL, 0},
    {"zp", C(Zp), NULL, 0},
    {"paragraphseparator", C(Zp), NULL, 0},
    {"cc", C(Cc), NULL, 0},
    {"control", C(Cc), NULL, 0},
    {"cntrl", C(Cc), NULL, 0},
    {"cf", C(Cf), NULL, 0},
    {"format", C(Cf), NULL, 0},
    {"co", C(Co), NULL, 0},
    {"privateuse", C(Co), NULL, 0},
    {"cn", C(Cn), NULL, 0},
    {"unassigned", C(Cn), NULL, 0},
    {"cs", C(Cs), NULL, 0},
    {"surrogate", C(Cs), NULL, 0},
    {"han", 0, &text_script_han, 0},
    {"hani", 0, &text_script_han, 0},
    {"hiragana", 0, &text_script_hiragana, 0},
    {"hira", 0, &text_script_hiragana, 0},
    {"katakana", 0, &text_script_katakana, 0},
    {"kana", 0, &text_script_katakana, 0},
    {"hangul", 0, &text_script_hangul, 0},
    {"hang", 0, &text_script_hangul, 0},
    {"space", 0, NULL, CLASS_SPACE},
    {"whitespace", 0, NULL, CLASS_SPACE},
    /* POSIX names as Oniguruma has them in Unicode text: punct holds symbols. */
    {"punct", ALL_P | ALL_S, NULL, 0},
};

static bool is_ascii_letter(char c) {
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static bool add_property(Set *set, const char *name, size_t length, Error *err) {
    char plain[48];
    size_t used = 0;
    for (size_t i = 0; i < length && used + 1 < sizeof plain; i++) {
        char c = name[i];
        if (c == ' ' || c == '_' || c == '-') continue;
        plain[used++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    plain[used] = '\0';
    if (strcmp(plain, "any") == 0) {
        set_add(set, 0, LAST_CODE);
        return true;
    }
    if (strcmp(plain, "xdigit") == 0) {
        set_add(set, '0', '9');
        set_add(set, 'A', 'F');
        set_add(set, 'a', 'f');
        return true;
    }
    if (strcmp(plain, "ascii") == 0) {
        set_add(set, 0, 127);
        return true;
    }
    if (strcmp(plain, "word") == 0) {
        add_word(set);
        return true;
    }
    for (size_t i = 0; i < BASE_COUNT(properties); i++) {
        if (strcmp(plain, properties[i].name) != 0) continue;
        add_categories(set, properties[i].categories);
        if (properties[i].classes) add_class(set, properties[i].classes);
        for (size_t k = 0; properties[i].script && k < properties[i].script->count; k++)
            set_add(set, properties[i].script->ranges[k].first,
                    properties[i].script->ranges[k].last);
        set_tidy(set);
        return true;
    }
    return base_fail(err, ERROR_UNSUPPORTED, "the property \\p{%.*s} is not supported",
                     (int)BASE_MIN(length, (size_t)40), name);
}

/* ---- the translator ----------------------------------------------------- */

typedef struct Translator {
    const char *pattern;
    size_t length, at;
    StrBuf out;
    Error *err;
} Translator;

static bool fail(Translator *t, const char *what) {
    return base_fail(t->err, ERROR_UNSUPPORTED, "pattern \"%.200s\", byte %zu: %s", t->pattern,
                     t->at, what);
}

static char peek(const Translator *t, size_t ahead) {
    return t->at + ahead < t->length ? t->pattern[t->at + ahead] : '\0';
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

static bool read_hex(Translator *t, size_t least, size_t most, uint32_t *code) {
    size_t digits = 0;
    *code = 0;
    while (digits < most && hex_value(peek(t, 0)) >= 0) {
        *code = *code << 4 | (uint32_t)hex_value(peek(t, 0));
        t->at++;
        digits++;
    }
    return (digits >= least && *code <= LAST_CODE) || fail(t, "bad hexadecimal number");
}

/* After a backslash: a set (\s \d \w \h \p{...}), which goes into *set, or one
 * character, which goes into *code. */
static bool read_escape(Translator *t, bool in_class, bool *is_set, Set *set, uint32_t *code) {
    static const char controls[] = "n\nr\rt\tf\fv\va\ae\033";
    char c = peek(t, 0);
    bool negated = false;
    Set found = {0};
    *is_set = true;
    if ((c | 32) == 's') {
        add_class(&found, CLASS_SPACE);
        negated = c == 'S';
        t->at++;
    } else if ((c | 32) == 'w') {
        if (in_class)
            add_word(&found);
        else
            add_class(&found, CLASS_WORD);
        negated = c == 'W';
        t->at++;
    } else if ((c | 32) == 'd') {
        add_categories(&found, C(Nd));
        negated = c == 'D';
        t->at++;
    } else if ((c | 32) == 'h') {
        add_property(&found, "xdigit", 6, NULL);
        negated = c == 'H';
        t->at++;
    } else if ((c | 32) == 'p') {
        if (peek(t, 1) != '{') return fail(t, "\\p needs a name in braces");
        size_t start = t->at + 2, end = start;
        while (end < t->length && t->pattern[end] != '}') end++;
        if (end == t->length) return fail(t, "\\p{ without }");
        negated = c == 'P';
        if (start < end && t->pattern[start] == '^') {
            negated = !negated;
            start++;
        }
        if (!add_property(&found, t->pattern + start, end - start, t->err)) {
            free(found.ranges);
            return false;
        }
        t->at = end + 1;
    } else {
        *is_set = false;
        if (c == 'x' || c == 'u') {
            t->at++;
            bool braced = c == 'x' && peek(t, 0) == '{';
            t->at += braced;
            if (!read_hex(t, 1, braced ? 6 : (c == 'x' ? 2 : 4), code)) return false;
            if (braced && peek(t, 0) != '}') return fail(t, "\\x{ without }");
            t->at += braced;
            return true;
        }
        for (size_t i = 0; c && i + 1 < sizeof controls - 1; i += 2) {
            if (controls[i] == c) {
                *code = (uint8_t)controls[i + 1];
                t->at++;
                return true;
            }
        }
        if (!c || is_ascii_letter(c) || (c >= '0' && c <= '9'))
            return fail(t, "this escape is not supported here");
        size_t length;
        *code = text_decode((const uint8_t *)t->pattern + t->at, &length);
        t->at += length;
        return true;
    }
    if (negated) set_complement(&found);
    set_union(set, &found);
    free(found.ranges);
    return true;
}

static bool read_posix(Translator *t, Set *set) {
    size_t start = t->at + 2, end = start;
    bool negated = start < t->length && t->pattern[start] == '^';
    start += negated;
    while (end < t->length && t->pattern[end] != ':') end++;
    if (end + 1 >= t->length || t->pattern[end + 1] != ']') return fail(t, "[: without :]");
    Set found = {0};
    bool ok = add_property(&found, t->pattern + start, end - start, t->err);
    if (ok) {
        if (negated) set_complement(&found);
        set_union(set, &found);
        t->at = end + 2;
    }
    free(found.ranges);
    return ok;
}

/* One member of a class that is a character: literal or escaped. */
static bool read_member(Translator *t, bool *is_set, Set *set, uint32_t *code) {
    if (peek(t, 0) == '\\') {
        t->at++;
        return read_escape(t, true, is_set, set, code);
    }
    size_t length;
    *is_set = false;
    *code = text_decode((const uint8_t *)t->pattern + t->at, &length);
    t->at += length;
    return true;
}

static bool read_class(Translator *t, Set *set, int depth);

/* Members up to "]" or "&&". */
static bool read_members(Translator *t, Set *set, bool first, int depth) {
    while (t->at < t->length) {
        char c = peek(t, 0);
        if ((c == ']' && !first) || (c == '&' && peek(t, 1) == '&')) return true;
        first = false;
        if (c == '[') {
            Set inner = {0};
            bool ok = peek(t, 1) == ':' ? read_posix(t, &inner) : read_class(t, &inner, depth + 1);
            if (ok) set_union(set, &inner);
            free(inner.ranges);
            if (!ok) return false;
            continue;
        }
        bool is_set;
        uint32_t begin = 0, end;
        if (!read_member(t, &is_set, set, &begin)) return false;
        if (is_set) continue;
        end = begin;
        if (peek(t, 0) == '-' && peek(t, 1) != ']' && peek(t, 1) != '[' && t->at + 1 < t->length) {
            size_t dash = t->at++;
            Set ignored = {0};
            bool ok = read_member(t, &is_set, &ignored, &end);
            free(ignored.ranges);
            if (!ok) return false;
            if (is_set) { /* [a-\s]: the hyphen is itself */
                t->at = dash;
                end = begin;
            }
        }
        if (end < begin) return fail(t, "a range runs backwards");
        set_add(set, begin, end);
        set_tidy(set);
    }
    return fail(t, "[ without ]");
}

static bool read_class(Translator *t, Set *set, int depth) {
    if (depth > MAX_NESTING) return fail(t, "classes nested too deep");
    t->at++; /* [ */
    bool negated = peek(t, 0) == '^';
    t->at += negated;
    if (!read_members(t, set, true, depth)) return false;
    while (peek(t, 0) == '&') {
        t->at += 2;
        Set right = {0};
        bool ok = read_members(t, &right, false, depth);
        if (ok) set_intersect(set, &right);
        free(right.ranges);
        if (!ok) return false;
    }
    t->at++; /* ] */
    if (negated) set_complement(set);
    set_tidy(set);
    return true;
}

/* ( and what follows it, up to where the group's own text starts. */
static bool open_group(Translator *t) {
    base_str_append_char(&t->out, '(');
    t->at++;
    if (peek(t, 0) != '?') return true;
    base_str_append_char(&t->out, '?');
    t->at++;
    char c = peek(t, 0);
    if (c == '#') return fail(t, "comments are not supported");
    if (c == ':' || c == '=' || c == '!' || c == '>' || c == '<' || c == '|' || c == '\'') {
        while (t->at < t->length && strchr(":=!><|'", t->pattern[t->at])) {
            base_str_append_char(&t->out, t->pattern[t->at]);
            t->at++;
            if (c != '<') break;
        }
        return true;
    }
    /* Flags: Ruby's m is what others call s. */
    while (is_ascii_letter(peek(t, 0)) || peek(t, 0) == '-') {
        c = peek(t, 0);
        if (c == 'x') return fail(t, "the flag x is not supported");
        base_str_append_char(&t->out, c == 'm' ? 's' : c);
        t->at++;
    }
    return peek(t, 0) == ':' || peek(t, 0) == ')' || fail(t, "unknown kind of group");
}

/* {2}, {2,}, {,2}, {1,3}: writes it and true; anything else is a literal brace. */
static bool read_interval(Translator *t, size_t atom) {
    size_t end = t->at + 1, digits = 0, commas = 0;
    while (end < t->length &&
           ((t->pattern[end] >= '0' && t->pattern[end] <= '9') || t->pattern[end] == ',')) {
        digits += t->pattern[end] != ',';
        commas += t->pattern[end] == ',';
        end++;
    }
    if (end == t->length || t->pattern[end] != '}' || !digits || commas > 1) return false;
    bool repeated = end + 1 < t->length && t->pattern[end + 1] == '+';
    if (repeated) { /* in Oniguruma a{2}+ repeats a{2} */
        char *tail = base_strndup(t->out.data + atom, t->out.length - atom);
        t->out.length = atom;
        base_str_append(&t->out, "(?:");
        base_str_append(&t->out, tail);
        free(tail);
    }
    base_str_append(&t->out, peek(t, 1) == ',' ? "{0" : "{");
    base_str_append_n(&t->out, t->pattern + t->at + 1, end - t->at);
    if (repeated) base_str_append(&t->out, ")");
    t->at = end + 1;
    return true;
}

static bool write_boundary(Translator *t, bool negated) {
    Set word = {0};
    add_class(&word, CLASS_WORD);
    static const char *const parts[2][5] = {{"(?:(?<=", ")(?!", ")|(?<!", ")(?=", "))"},
                                            {"(?:(?<=", ")(?=", ")|(?<!", ")(?!", "))"}};
    for (size_t i = 0; i < 5; i++) {
        base_str_append(&t->out, parts[negated][i]);
        if (i < 4) set_write(&word, &t->out);
    }
    free(word.ranges);
    return true;
}

static bool translate_escape(Translator *t) {
    char c = peek(t, 1);
    if (c == 'b' || c == 'B') {
        t->at += 2;
        return write_boundary(t, c == 'B');
    }
    if (c && strchr("AzZGKRX123456789", c)) {
        base_str_append_n(&t->out, t->pattern + t->at, 2);
        t->at += 2;
        return true;
    }
    Set set = {0};
    bool is_set = false;
    uint32_t code = 0;
    t->at++;
    bool ok = read_escape(t, false, &is_set, &set, &code);
    if (ok && is_set)
        set_write(&set, &t->out);
    else if (ok)
        base_str_appendf(&t->out, "\\x{%x}", (unsigned)code);
    free(set.ranges);
    return ok;
}

static bool translate(Translator *t) {
    size_t groups[MAX_NESTING], depth = 0, atom = 0;
    while (t->at < t->length) {
        if (t->out.length > MAX_OUTPUT) return fail(t, "the pattern is too large");
        char c = peek(t, 0);
        size_t start = t->out.length;
        if (c == '(') {
            if (depth == MAX_NESTING) return fail(t, "groups nested too deep");
            groups[depth++] = start;
            if (!open_group(t)) return false;
        } else if (c == ')') {
            if (!depth) return fail(t, ") without (");
            atom = groups[--depth];
            base_str_append_char(&t->out, c);
            t->at++;
        } else if (c == '[') {
            Set set = {0};
            bool ok = read_class(t, &set, 0);
            if (ok) set_write(&set, &t->out);
            free(set.ranges);
            if (!ok) return false;
            atom = start;
        } else if (c == '\\') {
            if (!translate_escape(t)) return false;
            atom = start;
        } else if (c == '{' && start > atom && read_interval(t, atom)) {
            continue;
        } else {
            size_t length = 1;
            while (t->at + length < t->length && (t->pattern[t->at + length] & 0xC0) == 0x80)
                length++;
            base_str_append_n(&t->out, t->pattern + t->at, length);
            t->at += length;
            if (!strchr("?*+|", c)) atom = start;
        }
    }
    return depth == 0 || fail(t, "( without )");
}

char *text_regex_translate(const char *regex, Error *err) {
    text_unicode_prepare();
    Translator t = {.pattern = regex, .length = strlen(regex), .err = err};
    if (t.length > MAX_PATTERN) {
        base_fail(err, ERROR_UNSUPPORTED, "a pattern of %zu bytes; at most %d are supported",
                  t.length, MAX_PATTERN);
        return NULL;
    }
    if (!translate(&t)) {
        base_str_free(&t.out);
        return NULL;
    }
    return base_str_detach(&t.out);
}
