/* Sentence ends by rule; see sentences.h. */
#include "rag/sentences.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "rag/show.h"

static const char *const abbreviations[] = {
    "e.g",  "i.e", "etc",    "vs",  "cf",  "mr", "mrs", "ms",  "dr",
    "prof", "st",  "no",     "fig", "sec", "ch", "vol", "ed",  "eds",
    "pp",   "al",  "approx", "inc", "ltd", "jr", "sr",  "viz", "resp",
};

/* Whether the word that ends before text[dot] usually takes a full stop. */
static bool is_abbreviation(const char *text, size_t begin, size_t dot) {
    size_t start = dot;
    while (start > begin && dot - start < 12 &&
           (isalpha((unsigned char)text[start - 1]) || text[start - 1] == '.'))
        start--;
    size_t length = dot - start;
    if (length == 1 && isupper((unsigned char)text[start])) return true; /* an initial */
    for (size_t i = 0; i < BASE_COUNT(abbreviations); i++)
        if (strlen(abbreviations[i]) == length &&
            strncasecmp(text + start, abbreviations[i], length) == 0)
            return true;
    return false;
}

static bool is_cjk_stop(uint32_t codepoint) {
    return codepoint == 0x3002 || codepoint == 0xFF01 || codepoint == 0xFF1F || codepoint == 0xFF61;
}

static bool is_closer(uint32_t codepoint) {
    return codepoint == '"' || codepoint == '\'' || codepoint == ')' || codepoint == ']' ||
           codepoint == 0x201D || codepoint == 0x2019 || codepoint == 0xBB || codepoint == 0x300D ||
           codepoint == 0x300F || codepoint == 0xFF09;
}

size_t rag_sentence_end(const char *text, size_t length, size_t start) {
    for (size_t i = start; i < length;) {
        uint32_t codepoint = 0;
        size_t at = i;
        i += base_utf8_decode(text + i, length - i, &codepoint, NULL);
        bool stop = codepoint == '.' || codepoint == '!' || codepoint == '?' || codepoint == 0x2026;
        bool cjk = is_cjk_stop(codepoint);
        bool empty_line = codepoint == '\n' && i < length && text[i] == '\n';
        if (!stop && !cjk && !empty_line) continue;
        size_t end = i, next = 0;
        uint32_t following = 0;
        while (end < length) { /* further stops and closing quotes belong to it */
            next = base_utf8_decode(text + end, length - end, &following, NULL);
            bool more = following == '.' || following == '!' || following == '?' ||
                        is_cjk_stop(following) || is_closer(following);
            if (empty_line || !more) break;
            end += next;
        }
        size_t space = end;
        while (space < length) {
            next = base_utf8_decode(text + space, length - space, &following, NULL);
            if (!rag_is_space(following)) break;
            space += next;
        }
        if (space >= length) return length;
        if (cjk || empty_line) return space;
        i = end;
        if (space == end) continue;
        if (following < 0x80 && islower((int)following)) continue;
        if (codepoint == '.' && end == at + 1 && is_abbreviation(text, start, at)) continue;
        return space;
    }
    return length;
}
