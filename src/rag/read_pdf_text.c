/* From what pdftotext prints to blocks: form feeds part the pages, lines that
 * repeat at the top or the bottom of many pages go, words hyphenated at a line
 * end are joined again, numbered short lines are headings. */
#include <ctype.h>
#include <string.h>

#include "rag/document.h"

typedef struct Line {
    const char *text;
    size_t length;
    int page;
    bool dropped;
} Line;

typedef struct Pages {
    Line *lines;
    size_t count, capacity;
    int n_pages, n_empty;
} Pages;

static size_t trimmed(const char *text, size_t length) {
    while (length && isspace((unsigned char)text[length - 1])) length--;
    return length;
}

static Pages split(const char *text, size_t length) {
    Pages pages = {0};
    size_t i = 0;
    while (i < length) {
        const char *feed = memchr(text + i, '\f', length - i);
        size_t end = feed ? (size_t)(feed - text) : length;
        if (!feed && !trimmed(text + i, end - i)) break; /* after the last page */
        pages.n_pages++;
        if (!trimmed(text + i, end - i)) pages.n_empty++;
        while (i < end) {
            const char *newline = memchr(text + i, '\n', end - i);
            size_t stop = newline ? (size_t)(newline - text) : end;
            size_t from = i;
            while (from < stop && (text[from] == ' ' || text[from] == '\t')) from++;
            pages.lines =
                base_grow(pages.lines, &pages.capacity, pages.count + 1, sizeof *pages.lines);
            pages.lines[pages.count++] =
                (Line){text + from, trimmed(text + from, stop - from), pages.n_pages, false};
            i = stop + 1;
        }
        i = end + 1;
    }
    return pages;
}

/* ---- running heads and feet ---------------------------------------------- */

/* The line with every number written as one '#', so that page numbers agree. */
static uint64_t shape(const Line *line) {
    char form[160];
    size_t n = 0;
    for (size_t i = 0; i < line->length && n < sizeof form; i++) {
        char c = line->text[i];
        if (!isdigit((unsigned char)c))
            form[n++] = c;
        else if (!n || form[n - 1] != '#')
            form[n++] = '#';
    }
    return base_hash(form, n) | 1;
}

typedef struct Shape {
    uint64_t hash;
    size_t line;
} Shape;

static int by_hash(const void *a, const void *b) {
    const Shape *left = a, *right = b;
    if (left->hash != right->hash) return left->hash < right->hash ? -1 : 1;
    return left->line < right->line ? -1 : left->line > right->line;
}

/* The outermost two lines with text at each end of every page. */
static size_t edge_lines(const Pages *pages, Shape *out) {
    size_t count = 0, begin = 0;
    while (begin < pages->count) {
        size_t end = begin;
        while (end < pages->count && pages->lines[end].page == pages->lines[begin].page) end++;
        size_t first = begin, last = end, taken = 0, top = 0;
        for (; first < end && taken < 2; first++)
            if (pages->lines[first].length && pages->lines[first].length <= 150) {
                out[count++] = (Shape){shape(&pages->lines[first]), first};
                taken++;
                top = first + 1;
            } else if (pages->lines[first].length) {
                break;
            }
        for (taken = 0; last > BASE_MAX(first, top) && taken < 2; last--)
            if (pages->lines[last - 1].length && pages->lines[last - 1].length <= 150) {
                out[count++] = (Shape){shape(&pages->lines[last - 1]), last - 1};
                taken++;
            } else if (pages->lines[last - 1].length) {
                break;
            }
        begin = end;
    }
    return count;
}

/* Page numbers, and "Chapter 2. The Pier" at the foot of a page, which is no
 * heading however seldom it repeats. */
static void drop_feet(Pages *pages) {
    size_t seen = 0; /* lines with text, from the foot of the page up */
    for (size_t i = pages->count; i-- > 0;) {
        Line *line = &pages->lines[i];
        if (i + 1 == pages->count || pages->lines[i + 1].page != line->page) seen = 0;
        if (!line->length || ++seen > 2) continue;
        bool number = line->length <= 4;
        for (size_t k = 0; k < line->length; k++)
            number = number && isdigit((unsigned char)line->text[k]);
        bool first = i == 0 || pages->lines[i - 1].page != line->page;
        bool chapter = line->length > 8 && strncmp(line->text, "Chapter ", 8) == 0 && !first &&
                       rag_numbered_heading(line->text, line->length) > 0;
        if (number || chapter) line->dropped = true;
    }
}

static void drop_running_lines(Pages *pages) {
    drop_feet(pages);
    if (pages->n_pages < 3) return;
    Shape *shapes = base_calloc((size_t)pages->n_pages * 4 + 4, sizeof *shapes);
    size_t count = edge_lines(pages, shapes);
    qsort(shapes, count, sizeof *shapes, by_hash);
    /* Chapters change the head, left and right pages differ: a fifth of the
     * pages, never fewer than three. */
    size_t needed = BASE_MAX((size_t)3, (size_t)pages->n_pages / 5);
    for (size_t i = 0; i < count;) {
        size_t end = i;
        while (end < count && shapes[end].hash == shapes[i].hash) end++;
        bool runs = end - i >= needed;
        /* Chapter titles at page tops repeat less often than that, but then on
         * neighbouring pages. */
        for (size_t k = i; !runs && k + 2 < end; k++)
            runs = pages->lines[shapes[k + 2].line].page - pages->lines[shapes[k].line].page <= 4;
        for (size_t k = i; runs && k < end; k++) pages->lines[shapes[k].line].dropped = true;
        i = end;
    }
    free(shapes);
}

/* ---- paragraphs ----------------------------------------------------------- */

static bool ends_with_hyphen(const StrBuf *text) {
    size_t n = text->length;
    if (n < 2) return false;
    if (text->data[n - 1] == '-')
        return isalpha((unsigned char)text->data[n - 2]) ||
               (unsigned char)text->data[n - 2] >= 0x80;
    return n >= 3 && memcmp(text->data + n - 3, "\xE2\x80\x90", 3) == 0; /* U+2010 */
}

static bool starts_lower(const Line *line) {
    return line->length &&
           (islower((unsigned char)line->text[0]) || (unsigned char)line->text[0] >= 0xC3);
}

static void append_line(StrBuf *paragraph, const Line *line) {
    if (paragraph->length && ends_with_hyphen(paragraph) && starts_lower(line)) {
        paragraph->length -= paragraph->data[paragraph->length - 1] == '-' ? 1 : 3;
    } else if (paragraph->length) {
        base_str_append_char(paragraph, ' ');
    }
    base_str_append_n(paragraph, line->text, line->length);
}

static bool is_bullet(const Line *line) {
    static const char *const bullets[] = {"\xE2\x80\xA2 ", "\xE2\x80\x93 ", "\xE2\x97\xA6 ", "- ",
                                          "* "};
    for (size_t i = 0; i < BASE_COUNT(bullets); i++) {
        size_t n = strlen(bullets[i]);
        if (line->length > n && memcmp(line->text, bullets[i], n) == 0) return true;
    }
    return false;
}

static void flush(RagDocument *document, StrBuf *paragraph, bool item, int page) {
    if (paragraph->length)
        rag_document_add_line(document, item ? RAG_BLOCK_LIST_ITEM : RAG_BLOCK_PARAGRAPH, 0, page,
                              paragraph->data, paragraph->length);
    paragraph->length = 0;
}

/* Lines of a table of contents: many dots, then a number. */
static bool is_contents_line(const Line *line) {
    return memmem(line->text, line->length, ". . . .", 7) ||
           memmem(line->text, line->length, ".....", 5);
}

/* A chapter's first page as LaTeX sets it: "CHAPTER", its number in words, its
 * title, each a paragraph. The index of the title's line, or 0. */
static size_t chapter_title(const Pages *pages, size_t i) {
    const Line *line = &pages->lines[i];
    bool opens = (line->length == 7 && memcmp(line->text, "CHAPTER", 7) == 0) ||
                 (line->length == 8 && memcmp(line->text, "APPENDIX", 8) == 0);
    size_t seen = 0;
    for (size_t k = i + 1; opens && k < pages->count && pages->lines[k].page == line->page; k++) {
        if (!pages->lines[k].length) continue;
        if (++seen == 1 && pages->lines[k].length > 16) return 0;
        if (seen == 2) return pages->lines[k].length <= 120 ? k : 0;
    }
    return 0;
}

static void gather(const Pages *pages, RagDocument *document) {
    StrBuf paragraph = {0};
    bool item = false;
    int page = 0;
    for (size_t i = 0; i < pages->count; i++) {
        const Line *line = &pages->lines[i];
        if (line->page != page || !line->length) flush(document, &paragraph, item, page);
        if (line->page != page || !line->length) item = false;
        page = line->page;
        if (line->dropped || !line->length || is_contents_line(line)) continue;
        size_t title = paragraph.length ? 0 : chapter_title(pages, i);
        if (title) {
            i = title;
            line = &pages->lines[i];
            rag_document_add_line(document, RAG_BLOCK_HEADING, 1, page, line->text, line->length);
            continue;
        }
        int level = paragraph.length ? 0 : rag_numbered_heading(line->text, line->length);
        if (level) {
            rag_document_add_line(document, RAG_BLOCK_HEADING, level, page, line->text,
                                  line->length);
            continue;
        }
        if (is_bullet(line)) {
            flush(document, &paragraph, item, page);
            item = true;
        }
        append_line(&paragraph, line);
    }
    flush(document, &paragraph, item, page);
    base_str_free(&paragraph);
}

void rag_read_pdf_text(const char *text, size_t length, RagDocument *document) {
    Pages pages = split(text, length);
    drop_running_lines(&pages);
    gather(&pages, document);
    document->n_pages = pages.n_pages;
    if (pages.n_empty && pages.n_empty == pages.n_pages)
        snprintf(document->warning, sizeof document->warning,
                 "no text on its %d pages: scanned? run it through OCR first (ocrmypdf)",
                 pages.n_pages);
    else if (pages.n_empty * 2 > pages.n_pages)
        snprintf(document->warning, sizeof document->warning,
                 "%d of its %d pages have no text (scanned?)", pages.n_empty, pages.n_pages);
    /* A title page opens with the title, unless it opens with a paragraph. */
    if (document->n_blocks && document->blocks[0].page == 1) {
        RagBlock first = document->blocks[0];
        if (first.end - first.start <= 80)
            rag_document_set_title(document, document->text.data + first.start,
                                   first.end - first.start);
    }
    free(pages.lines);
}
