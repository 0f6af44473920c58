/* Building a document block by block, telling formats apart, and decoding plain
 * text of unknown encoding. The readers of each format are in read_*.c. */
#include "rag/document.h"

#include <string.h>
#include <strings.h>

#include "rag/child.h"
#include "rag/show.h"

void rag_document_free(RagDocument *document) {
    free(document->title);
    base_str_free(&document->text);
    free(document->blocks);
    *document = (RagDocument){0};
}

/* Rows and list items of one kind stand on lines of their own, everything else
 * is set off by an empty line. */
static const char *separator(const RagDocument *document, RagBlockKind kind) {
    if (!document->n_blocks) return "";
    RagBlockKind before = document->blocks[document->n_blocks - 1].kind;
    bool tabular = (kind == RAG_BLOCK_TABLE_ROW || kind == RAG_BLOCK_TABLE_HEADER) &&
                   (before == RAG_BLOCK_TABLE_ROW || before == RAG_BLOCK_TABLE_HEADER);
    return tabular || (kind == RAG_BLOCK_LIST_ITEM && before == kind) ? "\n" : "\n\n";
}

/* Takes `clean`, which has no white space at its end. */
static void add_clean(RagDocument *document, RagBlockKind kind, int level, int page,
                      const char *clean, size_t length) {
    if (!length) return;
    base_str_append(&document->text, separator(document, kind));
    document->blocks = base_grow(document->blocks, &document->blocks_capacity,
                                 document->n_blocks + 1, sizeof *document->blocks);
    size_t start = document->text.length;
    base_str_append_n(&document->text, clean, length);
    document->blocks[document->n_blocks++] =
        (RagBlock){.start = start,
                   .end = document->text.length,
                   .kind = kind,
                   .level = kind == RAG_BLOCK_HEADING ? level : 0,
                   .page = page};
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

void rag_document_add(RagDocument *document, RagBlockKind kind, int level, int page,
                      const char *text, size_t length) {
    StrBuf clean = {0};
    rag_clean_append(&clean, text, length);
    size_t start = 0, end = clean.length;
    while (end > 0 && is_blank(clean.data[end - 1])) end--;
    while (start < end && is_blank(clean.data[start])) start++;
    if (kind == RAG_BLOCK_CODE) /* back to the beginning of its first line */
        while (start > 0 && clean.data[start - 1] != '\n') start--;
    if (start < end) add_clean(document, kind, level, page, clean.data + start, end - start);
    base_str_free(&clean);
}

void rag_document_add_line(RagDocument *document, RagBlockKind kind, int level, int page,
                           const char *text, size_t length) {
    char *line = rag_clean_line(text, length);
    add_clean(document, kind, level, page, line, strlen(line));
    free(line);
}

void rag_document_set_title(RagDocument *document, const char *text, size_t length) {
    char *line = rag_clean_line(text, length);
    size_t kept = rag_utf8_floor(line, strlen(line), 200);
    line[kept] = '\0';
    if (!kept) {
        free(line);
        return;
    }
    free(document->title);
    document->title = line;
}

/* ---- formats ------------------------------------------------------------- */

typedef struct Suffix {
    const char *text;
    RagFormat format;
} Suffix;

static const Suffix known[] = {
    {".txt", RAG_FORMAT_TEXT},    {".text", RAG_FORMAT_TEXT},         {".rst", RAG_FORMAT_TEXT},
    {".adoc", RAG_FORMAT_TEXT},   {".org", RAG_FORMAT_TEXT},          {".log", RAG_FORMAT_TEXT},
    {".tex", RAG_FORMAT_TEXT},    {".csv", RAG_FORMAT_CSV},           {".tsv", RAG_FORMAT_CSV},
    {".md", RAG_FORMAT_MARKDOWN}, {".markdown", RAG_FORMAT_MARKDOWN}, {".mkd", RAG_FORMAT_MARKDOWN},
    {".html", RAG_FORMAT_HTML},   {".htm", RAG_FORMAT_HTML},          {".xhtml", RAG_FORMAT_HTML},
};

/* Zip files that are documents, and what their suffix promises. */
static const struct {
    Suffix suffix;
    const char *promise;
} zipped[] = {
    {{".docx", RAG_FORMAT_DOCX}, "named .docx but not a Word document"},
    {{".odt", RAG_FORMAT_ODT}, "named .odt but not an OpenDocument file"},
    {{".epub", RAG_FORMAT_EPUB}, "named .epub but not an EPUB file"},
};

/* Text by nature, prose seldom: read when named, passed over in a folder. */
static const char *const not_prose[] = {
    ".css", ".map",  ".svg", ".xml",  ".json",   ".jsonl", ".yaml", ".yml",
    ".ini", ".toml", ".inv", ".lock", ".pikchr", ".patch", ".diff",
};

static bool has_suffix(const char *path, const char *suffix) {
    size_t length = strlen(path), tail = strlen(suffix);
    return length > tail && strcasecmp(path + length - tail, suffix) == 0;
}

static bool looks_like_html(const char *head, size_t length) {
    static const char *const openings[] = {"<!doctype html", "<html", "<head", "<body"};
    size_t i = 0;
    if (length >= 3 && memcmp(head, "\xEF\xBB\xBF", 3) == 0) i = 3;
    while (i < length && is_blank(head[i])) i++;
    if (length - i > 5 && memcmp(head + i, "<?xml", 5) == 0) {
        const char *end = memchr(head + i, '>', length - i);
        i = end ? (size_t)(end - head) + 1 : length;
        while (i < length && is_blank(head[i])) i++;
    }
    for (size_t k = 0; k < BASE_COUNT(openings); k++) {
        size_t n = strlen(openings[k]);
        if (length - i >= n && strncasecmp(head + i, openings[k], n) == 0) return true;
    }
    return false;
}

static bool has_utf16_mark(const char *bytes, size_t length) {
    return length >= 2 && (memcmp(bytes, "\xFF\xFE", 2) == 0 || memcmp(bytes, "\xFE\xFF", 2) == 0);
}

/* A NUL, or more than one control character in 32, is not text. */
static bool looks_binary(const char *bytes, size_t length) {
    if (has_utf16_mark(bytes, length)) return false;
    size_t controls = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (!c) return true;
        if (c < 0x20 && !is_blank((char)c) && c != 0x1B && c != '\b') controls++;
    }
    return controls * 32 > length;
}

RagFormat rag_format_detect(const char *path, const char *head, size_t length, bool walking,
                            const char **reason) {
    *reason = "";
    /* The PDF mark may stand anywhere in the first kilobyte. */
    size_t pdf_zone = BASE_MIN(length, (size_t)1024);
    if (memmem(head, pdf_zone, "%PDF-", 5) && (length >= 5) &&
        (memcmp(head, "%PDF-", 5) == 0 || has_suffix(path, ".pdf")))
        return RAG_FORMAT_PDF;
    if (has_suffix(path, ".pdf")) {
        *reason = length ? "named .pdf but not a PDF file" : "empty file";
        return RAG_FORMAT_NONE;
    }
    if (!length) {
        *reason = "empty file";
        return RAG_FORMAT_NONE;
    }
    for (size_t i = 0; i < BASE_COUNT(zipped); i++) {
        if (!has_suffix(path, zipped[i].suffix.text)) continue;
        if (length >= 4 && memcmp(head, "PK\3\4", 4) == 0) return zipped[i].suffix.format;
        *reason = zipped[i].promise;
        return RAG_FORMAT_NONE;
    }
    if (looks_binary(head, length)) {
        *reason = "unsupported type (binary)";
        return RAG_FORMAT_NONE;
    }
    if (walking)
        for (size_t i = 0; i < BASE_COUNT(not_prose); i++)
            if (has_suffix(path, not_prose[i])) {
                *reason = "unsupported type (not prose)";
                return RAG_FORMAT_NONE;
            }
    for (size_t i = 0; i < BASE_COUNT(known); i++)
        if (has_suffix(path, known[i].text)) return known[i].format;
    if (looks_like_html(head, length)) return RAG_FORMAT_HTML;
    return rag_code_language(path, head, length) ? RAG_FORMAT_CODE : RAG_FORMAT_TEXT;
}

/* Windows-1252, bytes 0x80..0x9F; 0 where it has none. */
static const uint16_t windows_1252[32] = {
    0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017D, 0,      0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178,
};

static void decode_utf16(const unsigned char *bytes, size_t length, bool big, StrBuf *out) {
    for (size_t i = 0; i + 1 < length; i += 2) {
        uint32_t unit = big ? (uint32_t)(bytes[i] << 8 | bytes[i + 1])
                            : (uint32_t)(bytes[i + 1] << 8 | bytes[i]);
        if (unit >= 0xD800 && unit < 0xDC00 && i + 3 < length) {
            uint32_t low = big ? (uint32_t)(bytes[i + 2] << 8 | bytes[i + 3])
                               : (uint32_t)(bytes[i + 3] << 8 | bytes[i + 2]);
            if (low >= 0xDC00 && low < 0xE000) {
                unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                i += 2;
            }
        }
        if (unit >= 0xD800 && unit < 0xE000) unit = 0xFFFD;
        base_str_append_codepoint(out, unit);
    }
}

bool rag_text_decode(const char *bytes, size_t length, char **text, size_t *text_length) {
    StrBuf out = {0};
    if (has_utf16_mark(bytes, length)) {
        decode_utf16((const unsigned char *)bytes + 2, length - 2, bytes[0] == '\xFE', &out);
    } else if (looks_binary(bytes, BASE_MIN(length, (size_t)1 << 16))) {
        return false;
    } else {
        if (length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) bytes += 3, length -= 3;
        if (base_utf8_valid(bytes, length)) {
            base_str_append_n(&out, bytes, length);
        } else {
            for (size_t i = 0; i < length; i++) {
                unsigned char c = (unsigned char)bytes[i];
                uint32_t codepoint = c;
                if (c >= 0x80 && c < 0xA0)
                    codepoint = windows_1252[c - 0x80] ? windows_1252[c - 0x80] : 0xFFFD;
                base_str_append_codepoint(&out, codepoint);
            }
        }
    }
    *text_length = out.length;
    *text = base_str_detach(&out);
    return true;
}

int rag_numbered_heading(const char *line, size_t length) {
    if (length < 4 || length > 90) return 0;
    size_t i = 0;
    int level = 0;
    if (length > 8 && strncmp(line, "Chapter ", 8) == 0) i = 8;
    if (length > 9 && strncmp(line, "Appendix ", 9) == 0) i = 9;
    bool named = i > 0;
    while (i < length) {
        size_t digits = 0;
        while (i < length && line[i] >= '0' && line[i] <= '9') i++, digits++;
        if (!digits && level == 0 && named && line[i] >= 'A' && line[i] <= 'Z') i++, digits = 1;
        if (!digits || digits > 3) return 0;
        level++;
        if (i < length && (line[i] == '.' || (named && line[i] == ':'))) i++;
        if (i < length && line[i] == ' ') break;
    }
    /* "2. " begins a list item more often than a chapter. */
    bool dotted_single = level == 1 && !named && i > 0 && line[i - 1] == '.';
    while (i < length && line[i] == ' ') i++;
    if (dotted_single || level > 5 || length - i < 3) return 0;
    bool letter = (line[i] >= 'A' && line[i] <= 'Z') || (unsigned char)line[i] >= 0x80;
    char last = line[length - 1];
    /* "6 Sep 2003" is a date, "12 Debian changelogs" a chapter. */
    if (level == 1 && !named)
        for (size_t k = i; k < length; k++)
            if (line[k] >= '0' && line[k] <= '9') return 0;
    if (!letter || last == '.' || last == ',' || last == ';' || last == ':') return 0;
    if (memmem(line, length, ". . ", 4) || memmem(line, length, "....", 4)) return 0;
    return level;
}

static bool read_words(const char *path, RagFormat format, const char *bytes, size_t length,
                       RagDocument *document, Error *err) {
    char *text = NULL;
    size_t text_length = 0;
    if (!rag_text_decode(bytes, length, &text, &text_length))
        return base_fail(err, ERROR_INPUT, "not text");
    if (format == RAG_FORMAT_CODE)
        rag_read_code(path, text, text_length, document);
    else if (format == RAG_FORMAT_CSV)
        rag_read_csv(text, text_length, document);
    else
        (format == RAG_FORMAT_TEXT ? rag_read_text : rag_read_markdown)(text, text_length,
                                                                        document);
    free(text);
    return true;
}

static const char *const format_names[] = {
    [RAG_FORMAT_NONE] = "",     [RAG_FORMAT_TEXT] = "text", [RAG_FORMAT_MARKDOWN] = "markdown",
    [RAG_FORMAT_HTML] = "html", [RAG_FORMAT_PDF] = "pdf",   [RAG_FORMAT_DOCX] = "docx",
    [RAG_FORMAT_ODT] = "odt",   [RAG_FORMAT_EPUB] = "epub", [RAG_FORMAT_CSV] = "csv",
    [RAG_FORMAT_CODE] = "code"};

const char *rag_format_name(RagFormat format) {
    return (size_t)format < BASE_COUNT(format_names) ? format_names[format] : "";
}

RagFormat rag_format_named(const char *name) {
    for (size_t i = 1; i < BASE_COUNT(format_names); i++)
        if (strcmp(format_names[i], name) == 0) return (RagFormat)i;
    return RAG_FORMAT_NONE;
}

bool rag_document_read(const char *path, RagFormat format, const char *bytes, size_t length,
                       RagDocument *document, Error *err) {
    bool ok = true;
    switch (format) {
    case RAG_FORMAT_PDF: ok = rag_read_pdf(path, document, err); break;
    case RAG_FORMAT_HTML:
        rag_child_hold();
        ok = rag_read_html(bytes, length, document, err);
        rag_child_release();
        break;
    case RAG_FORMAT_DOCX: ok = rag_read_aside(rag_read_docx, bytes, length, document, err); break;
    case RAG_FORMAT_ODT: ok = rag_read_aside(rag_read_odt, bytes, length, document, err); break;
    case RAG_FORMAT_EPUB: ok = rag_read_aside(rag_read_epub, bytes, length, document, err); break;
    case RAG_FORMAT_TEXT:
    case RAG_FORMAT_MARKDOWN:
    case RAG_FORMAT_CSV:
    case RAG_FORMAT_CODE: ok = read_words(path, format, bytes, length, document, err); break;
    case RAG_FORMAT_NONE: ok = base_fail(err, ERROR_UNSUPPORTED, "unsupported type"); break;
    }
    document->format = rag_format_name(format);
    if (ok && !document->n_blocks && !document->warning[0])
        snprintf(document->warning, sizeof document->warning, "no text in it");
    if (ok && !document->title)
        rag_document_set_title(document, base_path_name(path), strlen(base_path_name(path)));
    if (!ok) rag_document_free(document);
    return ok;
}
