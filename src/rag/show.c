/* What may be stored and shown. One table of code points that are dropped, one
 * pass over the text; see show.h. */
#include "rag/show.h"

#include <string.h>

typedef struct Range {
    uint32_t first, last;
} Range;

/* Controls, soft hyphen, bidirectional marks and overrides, invisible
 * operators, fillers, interlinear marks, tags and their variation selectors. */
static const Range dropped[] = {
    {0x0000, 0x0008}, {0x000E, 0x001F}, {0x007F, 0x0084}, {0x0086, 0x009F},   {0x00AD, 0x00AD},
    {0x034F, 0x034F}, {0x061C, 0x061C}, {0x115F, 0x1160}, {0x17B4, 0x17B5},   {0x180B, 0x180F},
    {0x200B, 0x200B}, {0x200E, 0x200F}, {0x202A, 0x202E}, {0x2060, 0x206F},   {0x3164, 0x3164},
    {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFC}, {0xE0000, 0xE0FFF},
};

static bool is_dropped(uint32_t codepoint) {
    if (codepoint >= 0x20 && codepoint < 0x7F) return false;
    for (size_t i = 0; i < BASE_COUNT(dropped); i++)
        if (codepoint >= dropped[i].first && codepoint <= dropped[i].last) return true;
    return false;
}

void rag_clean_append(StrBuf *out, const char *text, size_t length) {
    uint32_t previous = 0;
    size_t plain = 0; /* start of the run that is copied as it stands */
    for (size_t i = 0; i < length;) {
        unsigned char byte = (unsigned char)text[i];
        if (byte >= 0x20 && byte < 0x7F) {
            previous = byte;
            i++;
            continue;
        }
        uint32_t codepoint = 0;
        bool valid = true;
        size_t taken = base_utf8_decode(text + i, length - i, &codepoint, &valid);
        bool joiner = codepoint == 0x200C || codepoint == 0x200D;
        bool line_break = codepoint == '\r' || codepoint == '\f' || codepoint == '\v' ||
                          codepoint == 0x85 || codepoint == 0x2028 || codepoint == 0x2029;
        bool keep = valid && !line_break && !is_dropped(codepoint) && !(joiner && previous < 0x600);
        if (!keep) {
            base_str_append_n(out, text + plain, i - plain);
            if (!valid)
                base_str_append(out, "\xEF\xBF\xBD");
            else if (line_break && !(codepoint == '\r' && i + 1 < length && text[i + 1] == '\n'))
                base_str_append_char(out, '\n');
            plain = i + taken;
        } else {
            previous = codepoint;
        }
        i += taken;
    }
    base_str_append_n(out, text + plain, length - plain);
}

char *rag_clean(const char *text) {
    StrBuf out = {0};
    if (text) rag_clean_append(&out, text, strlen(text));
    return base_str_detach(&out);
}

bool rag_is_space(uint32_t codepoint) {
    return codepoint == ' ' || (codepoint >= '\t' && codepoint <= '\r') || codepoint == 0x85 ||
           codepoint == 0xA0 || codepoint == 0x1680 ||
           (codepoint >= 0x2000 && codepoint <= 0x200A) || codepoint == 0x2028 ||
           codepoint == 0x2029 || codepoint == 0x202F || codepoint == 0x205F || codepoint == 0x3000;
}

char *rag_clean_line(const char *text, size_t length) {
    StrBuf clean = {0}, line = {0};
    if (text) rag_clean_append(&clean, text, length);
    bool gap = false;
    for (size_t i = 0; i < clean.length;) {
        uint32_t codepoint = 0;
        size_t taken = base_utf8_decode(clean.data + i, clean.length - i, &codepoint, NULL);
        if (rag_is_space(codepoint)) {
            gap = line.length > 0;
        } else {
            if (gap) base_str_append_char(&line, ' ');
            gap = false;
            base_str_append_n(&line, clean.data + i, taken);
        }
        i += taken;
    }
    base_str_free(&clean);
    return base_str_detach(&line);
}

char *rag_clean_path(const char *path) {
    StrBuf out = {0};
    size_t length = path ? strlen(path) : 0;
    for (size_t i = 0; i < length;) {
        uint32_t codepoint = 0;
        bool valid = true;
        size_t taken = base_utf8_decode(path + i, length - i, &codepoint, &valid);
        bool line = codepoint == '\n' || codepoint == '\t';
        bool shown = valid && codepoint >= 0x20 && !is_dropped(codepoint) && codepoint != 0x85 &&
                     codepoint != 0x2028 && codepoint != 0x2029;
        if (shown)
            base_str_append_n(&out, path + i, taken);
        else if (line)
            base_str_append(&out, codepoint == '\n' ? "\\n" : "\\t");
        else
            for (size_t k = 0; k < taken; k++)
                base_str_appendf(&out, "\\x%02x", (unsigned char)path[i + k]);
        i += taken;
    }
    return base_str_detach(&out);
}

size_t rag_utf8_floor(const char *text, size_t length, size_t limit) {
    if (limit >= length) return length;
    while (limit > 0 && ((unsigned char)text[limit] & 0xC0) == 0x80) limit--;
    return limit;
}
