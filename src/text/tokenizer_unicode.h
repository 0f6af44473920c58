/* Questions about code points, answered from tables of named Unicode versions
 * (tokenizer_unicode_data.c). Splitters want one byte of classes per code
 * point at once: text_class, from a two-stage table that text_unicode_prepare
 * lays out from the ranges. */
#ifndef TEXT_TOKENIZER_UNICODE_H
#define TEXT_TOKENIZER_UNICODE_H

#include "base/base.h"

typedef struct TextRange {
    uint32_t first, last;
} TextRange;
typedef struct TextRanges {
    const TextRange *ranges;
    size_t count;
} TextRanges;
typedef struct TextCaseRun {
    uint32_t first, last;
    int32_t step, distance;
} TextCaseRun;

/* In the order of the categories in text_category_starts. */
typedef enum {
    CATEGORY_Cn,
    CATEGORY_Lu,
    CATEGORY_Ll,
    CATEGORY_Lt,
    CATEGORY_Lm,
    CATEGORY_Lo,
    CATEGORY_Mn,
    CATEGORY_Mc,
    CATEGORY_Me,
    CATEGORY_Nd,
    CATEGORY_Nl,
    CATEGORY_No,
    CATEGORY_Pc,
    CATEGORY_Pd,
    CATEGORY_Ps,
    CATEGORY_Pe,
    CATEGORY_Pi,
    CATEGORY_Pf,
    CATEGORY_Po,
    CATEGORY_Sm,
    CATEGORY_Sc,
    CATEGORY_Sk,
    CATEGORY_So,
    CATEGORY_Zs,
    CATEGORY_Zl,
    CATEGORY_Zp,
    CATEGORY_Cc,
    CATEGORY_Cf,
    CATEGORY_Co,
    CATEGORY_Cs,
    CATEGORY_COUNT
} TextCategory;

extern const uint32_t text_category_starts[];
extern const size_t text_category_start_count;
extern const TextRanges text_assigned_9, text_mark_9, text_bert_mark, text_bert_punctuation,
    text_bert_dropped, text_word_extra, text_numeric_extra, text_script_han, text_script_hiragana,
    text_script_katakana, text_script_hangul;
extern const uint32_t text_script_starts[]; /* code point << 8 | script */
extern const size_t text_script_start_count;
extern const TextCaseRun text_lower_runs[];
extern const size_t text_lower_run_count;

/* Classes of a code point, Unicode 16.0. */
enum {
    CLASS_LETTER = 1,    /* L */
    CLASS_NUMBER = 2,    /* N */
    CLASS_SPACE = 4,     /* White_Space */
    CLASS_MARK = 8,      /* M */
    CLASS_UPPERISH = 16, /* Lu Lt Lm Lo M */
    CLASS_LOWERISH = 32, /* Ll Lm Lo M */
    CLASS_NEWLINE = 64,  /* \r \n */
    CLASS_WORD = 128     /* \w of Oniguruma */
};

/* Classes of BERT's rules, Unicode 8.0, and one of Unicode 16.0 that found room. */
enum {
    BERT_PUNCTUATION = 1,
    BERT_DROPPED = 2,
    BERT_MARK = 4,
    BERT_CHINESE = 8,
    BERT_SPACE = 16,
    PUNCTUATION_OR_SYMBOL = 32 /* P S */
};

#define TEXT_PAGE_COUNT (0x110000 / 256)
extern uint8_t (*text_class_pages)[256], (*text_bert_pages)[256];
extern uint16_t text_class_index[TEXT_PAGE_COUNT], text_bert_index[TEXT_PAGE_COUNT];

/* Lays out the two-stage tables, once per process; any thread. */
void text_unicode_prepare(void);

extern uint8_t text_class_ascii[128];

static inline unsigned text_class(uint32_t code) {
    return text_class_pages[text_class_index[code >> 8]][code & 255];
}
static inline unsigned text_bert_class(uint32_t code) {
    return text_bert_pages[text_bert_index[code >> 8]][code & 255];
}
TextCategory text_category(uint32_t code);
bool text_in(const TextRanges *set, uint32_t code);
static inline bool text_is_space(uint32_t code) {
    return (text_class(code) & CLASS_SPACE) != 0;
}
bool text_is_numeric(uint32_t code);   /* Nd Nl No, 17.0 */
bool text_is_rust_word(uint32_t code); /* \w of Rust's regex: joiners too, fractions not */
/* A number for the script of a code point, 0 for none, as the pre-tokenizer
 * UnicodeScripts sees it: Hiragana and Katakana are Han. */
int text_script(uint32_t code);
/* Full lowercase mapping of one code point, 1 or 2 of them. */
int text_lower(uint32_t code, uint32_t out[2]);

/* The code point at s, which is valid UTF-8, and its length. */
static inline uint32_t text_decode(const uint8_t *s, size_t *length) {
    if (s[0] < 0x80) {
        *length = 1;
        return s[0];
    }
    if (s[0] < 0xE0) {
        *length = 2;
        return (uint32_t)(s[0] & 31) << 6 | (s[1] & 63);
    }
    if (s[0] < 0xF0) {
        *length = 3;
        return (uint32_t)(s[0] & 15) << 12 | (uint32_t)(s[1] & 63) << 6 | (s[2] & 63);
    }
    *length = 4;
    return (uint32_t)(s[0] & 7) << 18 | (uint32_t)(s[1] & 63) << 12 | (uint32_t)(s[2] & 63) << 6 |
           (s[3] & 63);
}
/* The code point that ends at s + end (end > 0), and its length. */
static inline uint32_t text_decode_before(const uint8_t *s, size_t end, size_t *length) {
    size_t start = end - 1;
    while (start > 0 && (s[start] & 0xC0) == 0x80) start--;
    uint32_t code = text_decode(s + start, length);
    *length = end - start;
    return code;
}

/* GPT-2's alphabet: bytes as printable characters. */
uint32_t text_alphabet_of_byte(uint8_t byte);
int text_byte_of_alphabet(uint32_t code); /* -1 when not in the alphabet */

#endif
