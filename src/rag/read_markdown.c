/* Markdown as people write it (CommonMark's blocks, GitHub's tables): headings,
 * fenced and indented code, lists, quotes, tables, front matter. Links and
 * images keep their words and lose their addresses; emphasis marks, inline HTML
 * and comments go. */
#include <ctype.h>
#include <string.h>

#include "rag/document.h"

typedef struct Reader {
    RagDocument *document;
    StrBuf block;      /* the paragraph, list item or code in the making */
    RagBlockKind kind; /* of it */
    char fence;        /* '`' or '~' inside fenced code, else 0 */
    size_t fence_length;
    bool comment;    /* inside <!-- --> */
    bool table_body; /* a delimiter row was seen */
    bool blank_before;
} Reader;

/* ---- inline -------------------------------------------------------------- */

/* The end of "[...]" that begins at i, or 0; brackets nest. */
static size_t closing(const char *text, size_t length, size_t i, char open, char close) {
    int depth = 0;
    size_t limit = BASE_MIN(length, i + 2000);
    for (; i < limit; i++) {
        if (text[i] == '\\') {
            i++;
        } else if (text[i] == open) {
            depth++;
        } else if (text[i] == close && --depth == 0) {
            return i;
        }
    }
    return 0;
}

static bool is_word(const char *text, size_t length, size_t i) {
    return i < length &&
           (isalnum((unsigned char)text[i]) || (unsigned char)text[i] >= 0x80 || text[i] == '_');
}

static void append_inline(StrBuf *out, const char *text, size_t length) {
    for (size_t i = 0; i < length;) {
        char c = text[i];
        if (c == '\\' && i + 1 < length && ispunct((unsigned char)text[i + 1])) {
            base_str_append_char(out, text[i + 1]);
            i += 2;
            continue;
        }
        if (c == '`') {
            size_t ticks = 0;
            while (i + ticks < length && text[i + ticks] == '`') ticks++;
            size_t from = i + ticks, end = from, limit = BASE_MIN(length, from + 2000);
            while (end + ticks <= limit && memcmp(text + end, text + i, ticks) != 0) end++;
            if (end + ticks <= limit) {
                base_str_append_n(out, text + from, end - from);
                i = end + ticks;
            } else {
                base_str_append_n(out, text + i, ticks);
                i = from;
            }
            continue;
        }
        if (c == '[' || (c == '!' && i + 1 < length && text[i + 1] == '[')) {
            size_t open = i + (c == '!');
            size_t end = closing(text, length, open, '[', ']');
            char next = end && end + 1 < length ? text[end + 1] : 0;
            size_t target = next == '('   ? closing(text, length, end + 1, '(', ')')
                            : next == '[' ? closing(text, length, end + 1, '[', ']')
                                          : 0;
            if (target) {
                /* Link texts hold at most one more level (an image). */
                StrBuf words = {0};
                base_str_append_n(&words, text + open + 1, end - open - 1);
                if (words.length && c == '[' && memchr(words.data, '[', words.length) &&
                    words.data[0] == '!') {
                    size_t inner = closing(words.data, words.length, 1, '[', ']');
                    if (inner) base_str_append_n(out, words.data + 2, inner - 2);
                } else if (words.length) {
                    base_str_append_n(out, words.data, words.length);
                }
                base_str_free(&words);
                i = target + 1;
                continue;
            }
        }
        if (c == '<' && i + 1 < length) {
            const char *end = memchr(text + i, '>', BASE_MIN(length - i, (size_t)1000));
            size_t tag = end ? (size_t)(end - text) : 0;
            bool address =
                tag && (memmem(text + i, tag - i, "://", 3) || memchr(text + i, '@', tag - i)) &&
                !memchr(text + i, ' ', tag - i);
            if (address) {
                base_str_append_n(out, text + i + 1, tag - i - 1);
                i = tag + 1;
                continue;
            }
            if (tag &&
                (isalpha((unsigned char)text[i + 1]) || text[i + 1] == '/' || text[i + 1] == '!')) {
                i = tag + 1;
                continue;
            }
        }
        if (c == '*' || c == '_' || (c == '~' && i + 1 < length && text[i + 1] == '~')) {
            size_t run = 0;
            while (i + run < length && text[i + run] == c) run++;
            bool before = i > 0 && !isspace((unsigned char)text[i - 1]);
            bool after = i + run < length && !isspace((unsigned char)text[i + run]);
            bool inside_word =
                c == '_' && i > 0 && is_word(text, length, i - 1) && is_word(text, length, i + run);
            if (run <= 3 && (before || after) && !inside_word) {
                i += run;
                continue;
            }
            base_str_append_n(out, text + i, run);
            i += run;
            continue;
        }
        base_str_append_char(out, c);
        i++;
    }
}

/* ---- blocks -------------------------------------------------------------- */

static void flush(Reader *reader) {
    if (reader->block.length) {
        if (reader->kind == RAG_BLOCK_CODE) {
            rag_document_add(reader->document, RAG_BLOCK_CODE, 0, 0, reader->block.data,
                             reader->block.length);
        } else {
            StrBuf words = {0};
            append_inline(&words, reader->block.data, reader->block.length);
            if (words.length)
                rag_document_add_line(reader->document, reader->kind, 0, 0, words.data,
                                      words.length);
            base_str_free(&words);
        }
    }
    reader->block.length = 0;
    reader->kind = RAG_BLOCK_PARAGRAPH;
    reader->table_body = false;
}

static void add_heading(Reader *reader, int level, const char *text, size_t length) {
    StrBuf words = {0};
    append_inline(&words, text, length);
    if (words.length) {
        rag_document_add_line(reader->document, RAG_BLOCK_HEADING, level, 0, words.data,
                              words.length);
        if (!reader->document->title)
            rag_document_set_title(reader->document, words.data, words.length);
    }
    base_str_free(&words);
}

static bool all_of(const char *text, size_t length, const char *set) {
    for (size_t i = 0; i < length; i++)
        if (!strchr(set, text[i])) return false;
    return length > 0;
}

/* Three or more of one of - * _, with spaces between. */
static bool is_rule(const char *text, size_t length) {
    size_t marks = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ' || text[i] == '\t') continue;
        if (text[i] != text[0]) return false;
        marks++;
    }
    return marks >= 3 && strchr("-*_", text[0]);
}

/* Bytes of a list marker with the space after it, or 0. */
static size_t list_marker(const char *text, size_t length) {
    size_t i = 0;
    if (length > 1 && strchr("-*+", text[0])) {
        i = 1;
    } else {
        while (i < length && i < 9 && isdigit((unsigned char)text[i])) i++;
        if (!i || i >= length || (text[i] != '.' && text[i] != ')')) return 0;
        i++;
    }
    if (i >= length || (text[i] != ' ' && text[i] != '\t')) return 0;
    return i + 1;
}

static void add_row(Reader *reader, const char *text, size_t length, bool header) {
    StrBuf row = {0}, cells = {0};
    append_inline(&cells, text, length);
    size_t start = 0;
    while (start < cells.length && (cells.data[start] == '|' || cells.data[start] == ' ')) start++;
    while (cells.length > start &&
           (cells.data[cells.length - 1] == '|' || cells.data[cells.length - 1] == ' '))
        cells.length--;
    if (cells.length > start) base_str_append_n(&row, cells.data + start, cells.length - start);
    if (row.length)
        rag_document_add_line(reader->document,
                              header ? RAG_BLOCK_TABLE_HEADER : RAG_BLOCK_TABLE_ROW, 0, 0, row.data,
                              row.length);
    base_str_free(&row);
    base_str_free(&cells);
}

/* Cuts <!-- ... --> out of a line, over line ends. */
static size_t without_comments(Reader *reader, char *line, size_t length) {
    size_t out = 0;
    for (size_t i = 0; i < length;) {
        if (reader->comment) {
            const char *end = memmem(line + i, length - i, "-->", 3);
            if (!end) return out;
            i = (size_t)(end - line) + 3;
            reader->comment = false;
        } else if (length - i >= 4 && memcmp(line + i, "<!--", 4) == 0) {
            reader->comment = true;
            i += 4;
        } else {
            line[out++] = line[i++];
        }
    }
    return out;
}

static void fenced_line(Reader *reader, const char *text, size_t length, const char *body,
                        size_t body_length) {
    size_t run = 0;
    while (run < body_length && body[run] == reader->fence) run++;
    if (run >= reader->fence_length && run == body_length) {
        flush(reader);
        reader->fence = 0;
        return;
    }
    base_str_append_n(&reader->block, text, length);
    base_str_append_char(&reader->block, '\n');
}

static void take_line(Reader *reader, char *text, size_t length) {
    while (length && isspace((unsigned char)text[length - 1])) length--;
    size_t indent = 0;
    while (indent < length && (text[indent] == ' ' || text[indent] == '\t')) indent++;
    bool tab_indent = memchr(text, '\t', indent) != NULL;
    if (reader->fence) {
        fenced_line(reader, text, length, text + indent, length - indent);
        return;
    }
    length = without_comments(reader, text, length);
    if (indent > length) indent = length;
    char *body = text + indent;
    size_t size = length - indent;
    while (size && *body == '>') { /* quotes are paragraphs */
        body++, size--;
        while (size && *body == ' ') body++, size--;
    }
    bool blank_before = reader->blank_before;
    reader->blank_before = !size;
    if (!size) {
        if (reader->kind == RAG_BLOCK_CODE) {
            base_str_append_char(&reader->block, '\n');
        } else {
            flush(reader);
        }
        return;
    }
    bool in_list =
        reader->document->n_blocks &&
        reader->document->blocks[reader->document->n_blocks - 1].kind == RAG_BLOCK_LIST_ITEM;
    bool deep = indent >= 4 || tab_indent;
    if (reader->kind == RAG_BLOCK_CODE && !deep) flush(reader);
    if (deep && (reader->kind == RAG_BLOCK_CODE ||
                 (blank_before && !in_list && !list_marker(body, size)))) {
        reader->kind = RAG_BLOCK_CODE;
        base_str_append_n(&reader->block, text, length);
        base_str_append_char(&reader->block, '\n');
        return;
    }
    size_t run = 0;
    while (run < size && body[run] == body[0]) run++;
    if ((body[0] == '`' || body[0] == '~') && run >= 3 && !memchr(body + run, '`', size - run)) {
        flush(reader);
        reader->kind = RAG_BLOCK_CODE;
        reader->fence = body[0];
        reader->fence_length = run;
        return;
    }
    if (body[0] == '#' && run <= 6 && (run == size || body[run] == ' ' || body[run] == '\t')) {
        flush(reader);
        while (size > run && body[size - 1] == '#') size--;
        add_heading(reader, (int)run, body + run, size - run);
        return;
    }
    bool paragraph = reader->kind == RAG_BLOCK_PARAGRAPH && reader->block.length;
    if (paragraph && (all_of(body, size, "=") || all_of(body, size, "-"))) {
        StrBuf title = reader->block;
        reader->block = (StrBuf){0};
        add_heading(reader, body[0] == '=' ? 1 : 2, title.data, title.length);
        base_str_free(&title);
        flush(reader);
        return;
    }
    if (is_rule(body, size)) {
        flush(reader);
        return;
    }
    if (all_of(body, size, "|:- \t") && memchr(body, '|', size) && memchr(body, '-', size)) {
        StrBuf header = reader->block;
        reader->block = (StrBuf){0};
        flush(reader);
        if (header.length) add_row(reader, header.data, header.length, true);
        base_str_free(&header);
        reader->table_body = true;
        return;
    }
    if (reader->table_body && memchr(body, '|', size)) {
        add_row(reader, body, size, false);
        return;
    }
    size_t marker = list_marker(body, size);
    if (marker) {
        flush(reader);
        reader->kind = RAG_BLOCK_LIST_ITEM;
        base_str_append(&reader->block, isdigit((unsigned char)body[0]) ? "" : "- ");
        if (isdigit((unsigned char)body[0])) base_str_append_n(&reader->block, body, marker);
        base_str_append_n(&reader->block, body + marker, size - marker);
        return;
    }
    if (reader->block.length) base_str_append_char(&reader->block, '\n');
    base_str_append_n(&reader->block, body, size);
}

/* Skips "---\n...\n---\n" at the top; its title becomes the document's. */
static size_t front_matter(const char *text, size_t length, RagDocument *document) {
    if (length < 8 || memcmp(text, "---\n", 4) != 0) return 0;
    const char *end = memmem(text + 3, length - 3, "\n---", 4);
    if (!end || (size_t)(end - text) > 65536) return 0;
    size_t stop = (size_t)(end - text);
    for (size_t i = 4; i < stop;) {
        const char *newline = memchr(text + i, '\n', stop - i);
        size_t next = newline ? (size_t)(newline - text) + 1 : stop;
        if (next - i > 6 && memcmp(text + i, "title:", 6) == 0) {
            size_t from = i + 6, to = next;
            while (from < to && strchr(" \"'", text[from])) from++;
            while (to > from && strchr(" \"'\n", text[to - 1])) to--;
            rag_document_set_title(document, text + from, to - from);
        }
        i = next;
    }
    const char *newline = memchr(end + 1, '\n', length - stop - 1);
    return newline ? (size_t)(newline - text) + 1 : length;
}

void rag_read_markdown(const char *text, size_t length, RagDocument *document) {
    Reader reader = {.document = document, .kind = RAG_BLOCK_PARAGRAPH, .blank_before = true};
    StrBuf line = {0};
    size_t position = front_matter(text, length, document);
    while (position < length) {
        const char *newline = memchr(text + position, '\n', length - position);
        size_t size = newline ? (size_t)(newline - text) - position : length - position;
        line.length = 0;
        base_str_append_n(&line, text + position, size);
        base_str_append_char(&line, '\0');
        take_line(&reader, line.data, size);
        position += size + 1;
    }
    flush(&reader);
    base_str_free(&line);
    base_str_free(&reader.block);
}
