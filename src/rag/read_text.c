/* Plain text: paragraphs are parted by empty lines; a line underlined with
 * ===, ---, ~~~ and the like (reStructuredText, man pages turned to text) and
 * a short numbered line are headings; a paragraph whose every line is indented
 * is kept as code. */
#include <string.h>

#include "rag/document.h"

typedef struct Line {
    const char *text;
    size_t length; /* without the line break and white space at the end */
    size_t indent;
} Line;

static Line next_line(const char *text, size_t length, size_t *position) {
    const char *start = text + *position;
    const char *newline = memchr(start, '\n', length - *position);
    size_t size = newline ? (size_t)(newline - start) : length - *position;
    *position += size + (newline ? 1 : 0);
    while (size && (start[size - 1] == ' ' || start[size - 1] == '\t' || start[size - 1] == '\r' ||
                    start[size - 1] == '\f'))
        size--;
    size_t indent = 0;
    while (indent < size && (start[indent] == ' ' || start[indent] == '\t')) indent++;
    return (Line){start, size, indent};
}

/* The character that underlines, or 0. */
static char underline_of(Line line) {
    if (line.length < 3 || line.indent) return 0;
    char mark = line.text[0];
    if (!strchr("=-~^\"'#*+", mark)) return 0;
    for (size_t i = 1; i < line.length; i++)
        if (line.text[i] != mark) return 0;
    return mark;
}

/* reStructuredText lets every document choose its marks: levels count in the
 * order in which the marks appear. */
static int underline_level(char mark, char seen[8]) {
    size_t count = strlen(seen);
    const char *found = strchr(seen, mark);
    if (found) return (int)(found - seen) + 1;
    if (count < 6) {
        seen[count] = mark;
        return (int)count + 1;
    }
    return 6;
}

static size_t utf8_width(const char *text, size_t length) {
    size_t width = 0;
    for (size_t i = 0; i < length; i++)
        if (((unsigned char)text[i] & 0xC0) != 0x80) width++;
    return width;
}

void rag_read_text(const char *text, size_t length, RagDocument *document) {
    char marks[8] = "";
    size_t position = 0;
    const char *paragraph = NULL, *paragraph_end = NULL;
    bool all_indented = true;
    while (position < length) {
        Line line = next_line(text, length, &position);
        size_t after = position;
        Line following = position < length ? next_line(text, length, &after) : (Line){0};
        bool first = !paragraph;
        char mark = line.length && first ? underline_of(following) : 0;
        if (mark && !line.indent && line.length <= 120 && !underline_of(line) &&
            utf8_width(line.text, line.length) <= following.length + 2) {
            int level = underline_level(mark, marks);
            rag_document_add_line(document, RAG_BLOCK_HEADING, level, 0, line.text, line.length);
            if (!document->title) rag_document_set_title(document, line.text, line.length);
            position = after;
            continue;
        }
        if (first && underline_of(line)) continue; /* a rule, or the line over a title */
        if (line.length > line.indent) {
            if (first) {
                paragraph = line.text;
                all_indented = true;
            }
            all_indented = all_indented && line.indent >= 4;
            paragraph_end = line.text + line.length;
        }
        bool last = position >= length || line.length == line.indent;
        if (paragraph && last) {
            size_t size = (size_t)(paragraph_end - paragraph);
            int level = memchr(paragraph, '\n', size) ? 0 : rag_numbered_heading(paragraph, size);
            RagBlockKind kind = level          ? RAG_BLOCK_HEADING
                                : all_indented ? RAG_BLOCK_CODE
                                               : RAG_BLOCK_PARAGRAPH;
            rag_document_add(document, kind, level, 0, paragraph, size);
            paragraph = NULL;
        }
    }
}
