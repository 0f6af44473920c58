/* Splitting text into folded words, and a question into terms; see words.h. */
#include "rag/words.h"

#include <string.h>
#include <utf8proc.h>

#include "rag/show.h"

typedef struct Range {
    uint32_t first, last;
} Range;

/* Scripts written without spaces between words (Hangul has spaces, but its
 * particles stick to the words). */
static const Range unspaced[] = {
    {0x0E00, 0x0EFF}, {0x1000, 0x109F},   {0x1100, 0x11FF}, {0x1780, 0x17FF}, {0x2E80, 0x2FDF},
    {0x3005, 0x3007}, {0x3040, 0x312F},   {0x3130, 0x318F}, {0x31A0, 0x31BF}, {0x31F0, 0x31FF},
    {0x3400, 0x4DBF}, {0x4E00, 0x9FFF},   {0xA960, 0xA97F}, {0xAC00, 0xD7FF}, {0xF900, 0xFAFF},
    {0xFF66, 0xFFDC}, {0x20000, 0x3FFFF},
};

static bool is_unspaced(uint32_t codepoint) {
    if (codepoint < unspaced[0].first) return false;
    for (size_t i = 0; i < BASE_COUNT(unspaced); i++)
        if (codepoint >= unspaced[i].first && codepoint <= unspaced[i].last) return true;
    return false;
}

typedef enum { SEPARATOR, LETTER, MARK } Class;

static Class class_of(uint32_t codepoint) {
    if (codepoint < 0x80) {
        bool word = (codepoint >= '0' && codepoint <= '9') ||
                    (codepoint >= 'a' && codepoint <= 'z') ||
                    (codepoint >= 'A' && codepoint <= 'Z');
        return word ? LETTER : SEPARATOR;
    }
    switch (utf8proc_category((utf8proc_int32_t)codepoint)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
    case UTF8PROC_CATEGORY_CO: return LETTER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return MARK;
    default: return SEPARATOR;
    }
}

static bool is_ascii_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The bytes of an apostrophe in a contraction or genitive at text[i]: between a
 * letter and one or two final letters, as in "user's" and "don't"; else 0. */
static size_t inner_apostrophe(const char *text, size_t length, size_t i) {
    size_t bytes = text[i] == '\''                                               ? 1
                   : length - i >= 3 && memcmp(text + i, "\xE2\x80\x99", 3) == 0 ? 3
                                                                                 : 0;
    if (!bytes) return 0;
    size_t letters = 0, k = i + bytes;
    while (k < length && letters < 3 && is_ascii_letter(text[k])) k++, letters++;
    if (!letters || letters > 2) return 0;
    if (k < length && ((unsigned char)text[k] >= 0x80 || (text[k] >= '0' && text[k] <= '9')))
        return 0;
    return bytes;
}

static size_t symbol_tail(const char *text, size_t length, size_t i) {
    size_t bytes = length - i >= 2 && text[i] == '+' && text[i + 1] == '+' ? 2
                   : i < length && text[i] == '#'                          ? 1
                                                                           : 0;
    if (!bytes) return 0;
    if (i + bytes < length) {
        uint32_t next = 0;
        base_utf8_decode(text + i + bytes, length - i - bytes, &next, NULL);
        if (class_of(next) != SEPARATOR || next == '+' || next == '#') return 0;
    }
    return bytes;
}

/* Case, compatibility and (unless marks carry the word) diacritics. */
static size_t fold(const char *raw, size_t length, bool keep_marks, char out[RAG_WORD_BYTES]) {
    bool ascii = true;
    for (size_t i = 0; i < length && ascii; i++) ascii = (unsigned char)raw[i] < 0x80;
    if (ascii) {
        length = BASE_MIN(length, (size_t)RAG_WORD_BYTES - 4);
        for (size_t i = 0; i < length; i++)
            out[i] = (char)(raw[i] >= 'A' && raw[i] <= 'Z' ? raw[i] + 32 : raw[i]);
        return length;
    }
    utf8proc_uint8_t *folded = NULL;
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT |
                                UTF8PROC_CASEFOLD | UTF8PROC_IGNORE |
                                (keep_marks ? 0 : UTF8PROC_STRIPMARK);
    utf8proc_ssize_t size =
        utf8proc_map((const utf8proc_uint8_t *)raw, (utf8proc_ssize_t)length, &folded, options);
    const char *from = size > 0 ? (const char *)folded : raw;
    size_t from_length = size > 0 ? (size_t)size : length;
    size_t kept = rag_utf8_floor(from, from_length, RAG_WORD_BYTES - 4);
    memcpy(out, from, kept);
    free(folded);
    return kept;
}

bool rag_word_next(const char *text, size_t length, size_t *position, RagWord *word) {
    size_t i = *position;
    uint32_t codepoint = 0;
    while (i < length) { /* to the next letter */
        size_t taken = base_utf8_decode(text + i, length - i, &codepoint, NULL);
        if (class_of(codepoint) == LETTER) break;
        i += taken;
    }
    if (i >= length) {
        *position = length;
        return false;
    }
    *word = (RagWord){.start = i, .unspaced = is_unspaced(codepoint)};
    char raw[RAG_WORD_BYTES];
    size_t raw_length = 0;
    bool only_ascii_letter = false;
    for (bool first = true; i < length; first = false) {
        size_t taken = base_utf8_decode(text + i, length - i, &codepoint, NULL);
        Class class = class_of(codepoint);
        bool other_script = class == LETTER && !first && (word->unspaced || is_unspaced(codepoint));
        if (class == SEPARATOR || other_script) {
            size_t skip = !other_script && only_ascii_letter && !word->unspaced
                              ? inner_apostrophe(text, length, i)
                              : 0;
            if (!skip) break;
            i += skip;
            only_ascii_letter = false; /* one apostrophe a word */
            continue;
        }
        only_ascii_letter = codepoint < 0x80 && is_ascii_letter((char)codepoint);
        if (raw_length + taken <= sizeof raw - 4) { /* longer words are cut */
            memcpy(raw + raw_length, text + i, taken);
            raw_length += taken;
        }
        i += taken;
    }
    word->length = fold(raw, raw_length, word->unspaced, word->folded);
    size_t tail = word->unspaced || raw_length > 16 ? 0 : symbol_tail(text, length, i);
    if (tail) {
        memcpy(word->folded + word->length, text + i, tail);
        word->length += tail;
        word->symbol_tail = true;
        i += tail;
    }
    word->end = i;
    *position = i;
    return true;
}

/* ---- queries --------------------------------------------------------------- */

/* Sorted; function words and the words that questions are made of. */
static const char *const stop_words[] = {
    "a",     "about", "am",    "an",    "and",   "any",  "are",    "as",    "at",    "be",
    "been",  "but",   "by",    "can",   "could", "did",  "do",     "does",  "doing", "dont",
    "for",   "from",  "had",   "has",   "have",  "he",   "her",    "his",   "how",   "i",
    "if",    "in",    "into",  "is",    "it",    "its",  "many",   "me",    "much",  "my",
    "no",    "not",   "of",    "on",    "or",    "our",  "please", "shall", "she",   "should",
    "so",    "some",  "tell",  "than",  "that",  "the",  "their",  "them",  "then",  "there",
    "these", "they",  "this",  "those", "to",    "us",   "was",    "we",    "were",  "what",
    "whats", "when",  "where", "which", "who",   "whom", "whose",  "why",   "will",  "with",
    "would", "you",   "your",
};

bool rag_is_stop_word(const char *folded, size_t length) {
    size_t low = 0, high = BASE_COUNT(stop_words);
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strncmp(folded, stop_words[middle], length);
        if (order == 0 && stop_words[middle][length]) order = -1;
        if (order == 0) return true;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

static void add_term(RagTerms *terms, const char *phrase, size_t length) {
    if (!length || terms->count >= RAG_MAX_TERMS) return;
    for (size_t i = 0; i < terms->count; i++)
        if (strlen(terms->items[i].phrase) == length &&
            memcmp(terms->items[i].phrase, phrase, length) == 0)
            return;
    terms->items =
        base_grow(terms->items, &terms->capacity, terms->count + 1, sizeof *terms->items);
    terms->items[terms->count++] = (RagTerm){.phrase = base_strndup(phrase, length)};
}

/* Whether the text between two words writes them together: one of _ - . : @ &
 * or a plus, nothing else. */
static bool connects(const char *text, size_t from, size_t to) {
    return to == from + 1 && strchr("_-.:@&+", text[from]) && text[from];
}

static RagTerms collect(const char *text, size_t length, bool with_stop_words) {
    RagTerms terms = {0};
    size_t position = 0, words = 0; /* of the phrase in the making */
    RagWord word = {0}, before = {0};
    StrBuf phrase = {0};
    bool stop = false;
    bool more = rag_word_next(text, length, &position, &word);
    while (more) {
        bool pair = words && before.unspaced && word.unspaced && before.end == word.start;
        bool together = words && !before.unspaced && !word.unspaced && words < 8 &&
                        connects(text, before.end, word.start);
        if (words && !pair && !together) {
            if (!(stop && words == 1 && !with_stop_words))
                add_term(&terms, phrase.data, phrase.length);
            words = 0;
        }
        if (pair) {
            /* 2-grams: the next pair begins with this word. */
            phrase.length = 0;
            base_str_append_n(&phrase, before.folded, before.length);
            base_str_append_char(&phrase, ' ');
            base_str_append_n(&phrase, word.folded, word.length);
            add_term(&terms, phrase.data, phrase.length);
            words = 2;
        } else {
            if (!words) phrase.length = 0;
            if (words) base_str_append_char(&phrase, ' ');
            base_str_append_n(&phrase, word.folded, word.length);
            words++;
            stop = rag_is_stop_word(word.folded, word.length);
        }
        before = word;
        more = rag_word_next(text, length, &position, &word);
    }
    if (words && !(stop && words == 1 && !with_stop_words))
        add_term(&terms, phrase.data, phrase.length);
    base_str_free(&phrase);
    return terms;
}

RagTerms rag_terms_of(const char *query) {
    char *clean = rag_clean(query);
    size_t length = strlen(clean);
    RagTerms terms = collect(clean, length, false);
    if (!terms.count) {
        terms = collect(clean, length, true);
        terms.only_stop_words = true;
    }
    free(clean);
    return terms;
}

void rag_terms_free(RagTerms *terms) {
    for (size_t i = 0; i < terms->count; i++) free(terms->items[i].phrase);
    free(terms->items);
    *terms = (RagTerms){0};
}

void rag_fts_quote(StrBuf *out, const char *phrase) {
    base_str_append_char(out, '"');
    for (const char *p = phrase; *p; p++) {
        if (*p == '"') base_str_append_char(out, '"');
        base_str_append_char(out, *p);
    }
    base_str_append_char(out, '"');
}
