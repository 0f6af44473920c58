/* Patterns: literal strings, and regular expressions through PCRE2 after
 * text_regex_translate has turned Oniguruma's dialect into PCRE2's. The
 * iterator gives the matches that the Python package's iterator gives. */
#include "text/tokenizer_parts.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct TextPattern {
    char *literal;
    size_t literal_length;
    pcre2_code *code;
};

TextPattern *text_pattern_literal(const char *text) {
    TextPattern *pattern = base_calloc(1, sizeof *pattern);
    pattern->literal = base_strdup(text);
    pattern->literal_length = strlen(text);
    return pattern;
}

TextPattern *text_pattern_regex(const char *regex, Error *err) {
    char *translated = text_regex_translate(regex, err);
    if (!translated) return NULL;
    int number = 0;
    PCRE2_SIZE offset = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
    pcre2_set_parens_nest_limit(context, 100);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &number,
                      &offset, context);
    pcre2_compile_context_free(context);
    free(translated);
    if (!code) {
        PCRE2_UCHAR reason[256];
        pcre2_get_error_message(number, reason, sizeof reason);
        base_fail(err, ERROR_UNSUPPORTED, "pattern \"%.200s\": %s", regex, (const char *)reason);
        return NULL;
    }
    /* Without JIT the interpreter does the same, slower. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    TextPattern *pattern = base_calloc(1, sizeof *pattern);
    pattern->code = code;
    return pattern;
}

void text_pattern_free(TextPattern *pattern) {
    if (!pattern) return;
    free(pattern->literal);
    pcre2_code_free(pattern->code);
    free(pattern);
}

static bool find_literal(const TextPattern *pattern, const char *text, size_t length, size_t from,
                         size_t *begin, size_t *end) {
    if (from > length) return false;
    const char *found = pattern->literal_length ? memmem(text + from, length - from,
                                                         pattern->literal, pattern->literal_length)
                                                : text + from;
    if (!found) return false;
    *begin = (size_t)(found - text);
    *end = *begin + pattern->literal_length;
    return true;
}

static bool find_regex(const TextPattern *pattern, TextWork *work, const char *text, size_t length,
                       size_t from, size_t *begin, size_t *end) {
    if (from > length || work->failed) return false;
    if (!work->match_data) work->match_data = pcre2_match_data_create(1, NULL);
    pcre2_match_data *data = work->match_data;
    int count =
        pcre2_match(pattern->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK, data, NULL);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT)
        count = pcre2_match(pattern->code, (PCRE2_SPTR)text, length, from,
                            PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, NULL);
    if (count < 0) {
        if (count != PCRE2_ERROR_NOMATCH) {
            PCRE2_UCHAR reason[256];
            pcre2_get_error_message(count, reason, sizeof reason);
            base_fail(work->err, ERROR_UNSUPPORTED,
                      "the tokenizer's pattern gave up on this text: %s", (const char *)reason);
            work->failed = true;
        }
        return false;
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data);
    *begin = ends[0];
    *end = ends[1];
    return *begin <= *end; /* \K in a lookahead could turn them round */
}

bool text_pattern_next(const TextPattern *pattern, TextWork *work, const char *text, size_t length,
                       TextMatch *match) {
    for (;;) {
        size_t begin, end;
        bool found = pattern->code
                         ? find_regex(pattern, work, text, length, match->next, &begin, &end)
                         : find_literal(pattern, text, length, match->next, &begin, &end);
        if (!found) return false;
        /* An empty match right after the last match does not count: go on one
         * character later. */
        if (begin == end && match->any && match->end == end) {
            size_t step = 1;
            while (end + step < length && (text[end + step] & 0xC0) == 0x80) step++;
            match->next = end + step;
            if (match->next > length) return false;
            continue;
        }
        *match = (TextMatch){.begin = begin, .end = end, .next = end, .any = true};
        return true;
    }
}
