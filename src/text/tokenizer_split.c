/* Hand-written splitters for the patterns that nearly every byte-level
 * tokenizer uses, many times faster than a regular expression and with our own
 * tables of Unicode 16. Each returns the end of the piece that starts at
 * `from`; its comments give the alternatives in the pattern's order. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_patterns.h"

static inline unsigned class_at(const uint8_t *text, size_t at, size_t *length) {
    if (text[at] < 0x80) {
        *length = 1;
        return text_class_ascii[text[at]];
    }
    return text_class(text_decode(text + at, length));
}

/* The end of the run of characters of these classes (or, with negated, of none
 * of them). */
static size_t run_of(const uint8_t *text, size_t length, size_t at, unsigned classes) {
    size_t step;
    while (at < length && (class_at(text, at, &step) & classes)) at += step;
    return at;
}

static size_t run_of_none(const uint8_t *text, size_t length, size_t at, unsigned classes) {
    size_t step;
    while (at < length && !(class_at(text, at, &step) & classes)) at += step;
    return at;
}

/* \s+(?!\S)|\s+ : a run of spaces leaves its last one to what follows. */
static size_t spaces(const uint8_t *text, size_t length, size_t from) {
    size_t at = from, last = from, step;
    while (at < length && (class_at(text, at, &step) & CLASS_SPACE)) {
        last = at;
        at += step;
    }
    return at < length && last > from ? last : at;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : the run up to its last line end, if it has one. */
static size_t spaces_or_lines(const uint8_t *text, size_t length, size_t from) {
    size_t at = from, last = from, line_end = from, step;
    unsigned classes;
    while (at < length && ((classes = class_at(text, at, &step)) & CLASS_SPACE)) {
        last = at;
        at += step;
        if (classes & CLASS_NEWLINE) line_end = at;
    }
    if (line_end > from) return line_end;
    return at < length && last > from ? last : at;
}

/* 's 't 're 've 'm 'll 'd; ignoring case, U+017F folds to s. 0 when none. */
static size_t contraction(const uint8_t *text, size_t length, size_t at, bool any_case) {
    if (at + 1 >= length || text[at] != '\'') return 0;
    uint8_t fold = any_case ? 32 : 0, first = text[at + 1] | fold;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    if (any_case && text[at + 1] == 0xC5 && at + 2 < length && text[at + 2] == 0xBF) return 3;
    if (at + 2 >= length) return 0;
    uint8_t second = text[at + 2] | fold;
    bool two = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
               (first == 'l' && second == 'l');
    return two ? 3 : 0;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
size_t text_split_gpt2(const uint8_t *text, size_t length, size_t from) {
    size_t step, at = from, suffix = contraction(text, length, from, false);
    if (suffix) return from + suffix;
    if (text[at] == ' ' && at + 1 < length) at++;
    unsigned classes = class_at(text, at, &step);
    if (classes & CLASS_LETTER) return run_of(text, length, at + step, CLASS_LETTER);
    if (classes & CLASS_NUMBER) return run_of(text, length, at + step, CLASS_NUMBER);
    if (!(classes & CLASS_SPACE))
        return run_of_none(text, length, at + step, CLASS_SPACE | CLASS_LETTER | CLASS_NUMBER);
    return spaces(text, length, from);
}

static size_t digits(const uint8_t *text, size_t length, size_t at, int most) {
    size_t step;
    for (int i = 0; i < most && at < length && (class_at(text, at, &step) & CLASS_NUMBER); i++)
        at += step;
    return at;
}

/* (?:...contractions)|[^\r\n\p{L}\p{N}]?W+|\p{N}{1,most}| ?[^\sW\p{N}]+[\r\n]*
 * then spaces_or_lines, where W is L, or L and M. */
static size_t split_llama(const uint8_t *text, size_t length, size_t from, unsigned word,
                          int most_digits) {
    size_t step, next_step, suffix = contraction(text, length, from, true);
    if (suffix) return from + suffix;
    unsigned classes = class_at(text, from, &step);
    size_t next = from + step;
    if (!(classes & (CLASS_NEWLINE | CLASS_LETTER | CLASS_NUMBER)) && next < length &&
        (class_at(text, next, &next_step) & word))
        return run_of(text, length, next, word);
    if (classes & word) return run_of(text, length, next, word);
    if (classes & CLASS_NUMBER) return digits(text, length, from, most_digits);
    unsigned plain = CLASS_SPACE | CLASS_NUMBER | word;
    size_t at = text[from] == ' ' ? next : from, end = run_of_none(text, length, at, plain);
    if (end > at) return run_of(text, length, end, CLASS_NEWLINE);
    return spaces_or_lines(text, length, from);
}

static size_t split_llama3(const uint8_t *text, size_t length, size_t from) {
    return split_llama(text, length, from, CLASS_LETTER, 3);
}

/* tiktoken's cl100k_base differs from LLAMA3 where the text ends in spaces: \s++$
 * takes them all. Its $ is the end of the text, so this is for tiktoken only. */
size_t text_split_cl100k(const uint8_t *text, size_t length, size_t from) {
    size_t end = run_of(text, length, from, CLASS_SPACE);
    return end == length ? end : split_llama(text, length, from, CLASS_LETTER, 3);
}

static size_t split_qwen2(const uint8_t *text, size_t length, size_t from) {
    return split_llama(text, length, from, CLASS_LETTER, 1);
}

static size_t split_qwen35(const uint8_t *text, size_t length, size_t from) {
    return split_llama(text, length, from, CLASS_LETTER | CLASS_MARK, 1);
}

/* U*L+ from `at`, where U and L share Lm, Lo and M: the U run may give back
 * characters until one of them is an L. 0 when it does not match. */
static size_t upper_then_lower(const uint8_t *text, size_t length, size_t at) {
    size_t step, shared = 0;
    unsigned classes;
    while (at < length && ((classes = class_at(text, at, &step)) & CLASS_UPPERISH)) {
        at += step;
        if (classes & CLASS_LOWERISH) shared = at;
    }
    size_t end = run_of(text, length, at, CLASS_LOWERISH);
    return end > at ? end : shared;
}

/* U+L* from `at`; 0 when it does not match. */
static size_t upper_or_more(const uint8_t *text, size_t length, size_t at) {
    size_t end = run_of(text, length, at, CLASS_UPPERISH);
    return end > at ? run_of(text, length, end, CLASS_LOWERISH) : 0;
}

/* [^\r\n\p{L}\p{N}]?U*L+(contraction)?|[^\r\n\p{L}\p{N}]?U+L*(contraction)?|
 * \p{N}{1,most}| ?[^\s\p{L}\p{N}]+[\r\n/]* then spaces_or_lines */
static size_t split_o200k_family(const uint8_t *text, size_t length, size_t from, bool contractions,
                                 int most_digits) {
    size_t step, end = 0;
    unsigned classes = class_at(text, from, &step);
    size_t next = from + step;
    bool led = !(classes & (CLASS_NEWLINE | CLASS_LETTER | CLASS_NUMBER));
    if (led) end = upper_then_lower(text, length, next);
    if (!end) end = upper_then_lower(text, length, from);
    if (!end && led) end = upper_or_more(text, length, next);
    if (!end) end = upper_or_more(text, length, from);
    if (end) return contractions ? end + contraction(text, length, end, true) : end;
    if (classes & CLASS_NUMBER) return digits(text, length, from, most_digits);
    size_t at = text[from] == ' ' ? next : from;
    end = run_of_none(text, length, at, CLASS_SPACE | CLASS_LETTER | CLASS_NUMBER);
    if (end > at) {
        while (end < length && (text[end] == '\r' || text[end] == '\n' || text[end] == '/')) end++;
        return end;
    }
    return spaces_or_lines(text, length, from);
}

static size_t split_o200k(const uint8_t *text, size_t length, size_t from) {
    return split_o200k_family(text, length, from, true, 3);
}

static size_t split_tekken(const uint8_t *text, size_t length, size_t from) {
    return split_o200k_family(text, length, from, false, 1);
}

/* ---- DeepSeek's, which leave gaps --------------------------------------- */

/* \p{N}{1,3} */
static size_t split_digits(const uint8_t *text, size_t length, size_t from) {
    size_t end = digits(text, length, from, 3);
    return end > from ? end : run_of_none(text, length, from, CLASS_NUMBER);
}

static size_t run_of_cjk(const uint8_t *text, size_t length, size_t at, bool wanted) {
    for (size_t step; at < length; at += step) {
        uint32_t code = text_decode(text + at, &step);
        bool found = (code >= 0x4E00 && code <= 0x9FA5) || (code >= 0x3040 && code <= 0x30FF);
        if (found != wanted) break;
    }
    return at;
}

static size_t split_cjk(const uint8_t *text, size_t length, size_t from) {
    size_t end = run_of_cjk(text, length, from, true);
    return end > from ? end : run_of_cjk(text, length, from, false);
}

static size_t run_of_marks(const uint8_t *text, size_t length, size_t at) {
    size_t step;
    while (at < length && (text_bert_class(text_decode(text + at, &step)) & PUNCTUATION_OR_SYMBOL))
        at += step;
    return at;
}

static bool is_ascii_letter(uint8_t c) {
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

/* [!-/:-@[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*
 * then spaces_or_lines; 0 when it does not match. */
static size_t match_deepseek(const uint8_t *text, size_t length, size_t from) {
    const unsigned word = CLASS_LETTER | CLASS_MARK;
    size_t step, next_step;
    unsigned classes = class_at(text, from, &step);
    size_t next = from + step;
    if (classes & word) return run_of(text, length, next, word);
    bool mark = run_of_marks(text, next, from) > from;
    if (mark && text[from] < 0x80 && next < length && is_ascii_letter(text[next])) {
        while (next < length && is_ascii_letter(text[next])) next++;
        return next;
    }
    if (!mark && !(classes & CLASS_NEWLINE) && next < length &&
        (class_at(text, next, &next_step) & word))
        return run_of(text, length, next, word);
    size_t at = text[from] == ' ' ? next : from, end = run_of_marks(text, length, at);
    if (end > at) return run_of(text, length, end, CLASS_NEWLINE);
    return classes & CLASS_SPACE ? spaces_or_lines(text, length, from) : 0;
}

static size_t split_deepseek(const uint8_t *text, size_t length, size_t from) {
    size_t step, end = match_deepseek(text, length, from);
    if (end) return end;
    for (size_t at = from; at < length; at += step) {
        text_decode(text + at, &step);
        if (at > from && match_deepseek(text, length, at)) return at;
    }
    return length;
}

static const struct {
    const char *regex;
    TextSplitter split;
    bool gaps; /* it gives what lies between matches as pieces too */
} known[] = {
    {GPT2, text_split_gpt2, false},      {LLAMA3, split_llama3, false},
    {QWEN2, split_qwen2, false},         {QWEN35, split_qwen35, false},
    {O200K, split_o200k, false},         {TEKKEN, split_tekken, false},
    {"\\p{N}{1,3}", split_digits, true}, {CJK_KANA, split_cjk, true},
    {DSV3_WORDS, split_deepseek, true},
};

/* Files spell line ends as \r and \n or as themselves. */
static char *spell_line_ends(const char *regex) {
    StrBuf out = {0};
    for (; *regex; regex++) {
        if (*regex == '\r' || *regex == '\n')
            base_str_append(&out, *regex == '\r' ? "\\r" : "\\n");
        else
            base_str_append_char(&out, *regex);
    }
    return base_str_detach(&out);
}

TextSplitter text_splitter_for(const char *regex, bool isolated) {
    char *spelled = spell_line_ends(regex);
    TextSplitter found = NULL;
    for (size_t i = 0; i < BASE_COUNT(known) && !found; i++)
        if (strcmp(spelled, known[i].regex) == 0 && (isolated || !known[i].gaps))
            found = known[i].split;
    free(spelled);
    return found;
}
