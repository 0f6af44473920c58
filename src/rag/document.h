/* A document as the rest of the room sees it, whatever file it came from: one
 * text, and blocks that say which bytes of it are headings, paragraphs, list
 * items, table rows or code, and on which page they stand.
 *
 * The text is valid UTF-8 without control and invisible characters; blocks are
 * in order, do not overlap, and lie in the text. */
#ifndef RAG_DOCUMENT_H
#define RAG_DOCUMENT_H

#include "base/base.h"

typedef enum {
    RAG_BLOCK_HEADING,
    RAG_BLOCK_PARAGRAPH,
    RAG_BLOCK_LIST_ITEM,
    RAG_BLOCK_TABLE_HEADER,
    RAG_BLOCK_TABLE_ROW,
    RAG_BLOCK_CODE
} RagBlockKind;

typedef struct RagBlock {
    size_t start, end; /* bytes of RagDocument.text */
    RagBlockKind kind;
    int level; /* of a heading: 1..6; 0 otherwise */
    int page;  /* from 1; 0 when the document has no pages; its first line in code */
} RagBlock;

typedef struct RagDocument {
    char *title;        /* one line; NULL until known */
    const char *format; /* "text", "markdown", "html", "pdf", "docx", ... (static) */
    StrBuf text;
    RagBlock *blocks;
    size_t n_blocks, blocks_capacity;
    int n_pages;       /* 0: not paged */
    bool line_numbers; /* source code: pages of blocks are numbers of lines */
    char warning[256]; /* worth telling the person, e.g. pages without text; or "" */
} RagDocument;

void rag_document_free(RagDocument *document); /* and makes it {0} */

/* Appends one block, cleaned of what must not be stored; nothing when nothing
 * is left. Line breaks and indentation inside are kept, at the ends not
 * (a code block keeps its first indentation). */
void rag_document_add(RagDocument *document, RagBlockKind kind, int level, int page,
                      const char *text, size_t length);
/* The same on one line: every run of white space becomes one space. */
void rag_document_add_line(RagDocument *document, RagBlockKind kind, int level, int page,
                           const char *text, size_t length);
void rag_document_set_title(RagDocument *document, const char *text, size_t length);

/* ---- readers ------------------------------------------------------------ */

typedef enum {
    RAG_FORMAT_NONE,
    RAG_FORMAT_TEXT,
    RAG_FORMAT_MARKDOWN,
    RAG_FORMAT_HTML,
    RAG_FORMAT_PDF,
    RAG_FORMAT_DOCX,
    RAG_FORMAT_ODT,
    RAG_FORMAT_EPUB,
    RAG_FORMAT_CSV,
    RAG_FORMAT_CODE
} RagFormat;

/* From the name's suffix and the first bytes. In a folder walk (`walking`)
 * files that merely happen to be text, like style sheets, are not documents.
 * RAG_FORMAT_NONE comes with a reason (static). */
RagFormat rag_format_detect(const char *path, const char *head, size_t length, bool walking,
                            const char **reason);

/* The name of a format as RagDocument.format and the index have it, static; and
 * the format of a name, RAG_FORMAT_NONE for one that is not known. */
const char *rag_format_name(RagFormat format);
RagFormat rag_format_named(const char *name);

/* Reads bytes that were loaded already; `path` is for titles, messages, and
 * for PDF the file itself. *document must be {0}; on failure it is {0} again. */
bool rag_document_read(const char *path, RagFormat format, const char *bytes, size_t length,
                       RagDocument *document, Error *err);

/* bytes -> UTF-8 by byte order mark, else as it stands when valid, else read as
 * Windows-1252. False (and nothing written) for binary data. Caller frees. */
bool rag_text_decode(const char *bytes, size_t length, char **text, size_t *text_length);

void rag_read_text(const char *text, size_t length, RagDocument *document);
void rag_read_markdown(const char *text, size_t length, RagDocument *document);
bool rag_read_html(const char *bytes, size_t length, RagDocument *document, Error *err);
bool rag_read_pdf(const char *path, RagDocument *document, Error *err);
/* With another program in pdftotext's place (NULL: pdftotext itself) and
 * another limit of processor time (0: the usual one). */
bool rag_read_pdf_with(const char *path, const char *program, double seconds, RagDocument *document,
                       Error *err);
/* The text that pdftotext printed, pages ended by form feeds. */
void rag_read_pdf_text(const char *text, size_t length, RagDocument *document);

bool rag_read_docx(const char *bytes, size_t length, RagDocument *document, Error *err);
bool rag_read_odt(const char *bytes, size_t length, RagDocument *document, Error *err);
bool rag_read_epub(const char *bytes, size_t length, RagDocument *document, Error *err);
void rag_read_csv(const char *text, size_t length, RagDocument *document);
void rag_read_code(const char *path, const char *text, size_t length, RagDocument *document);
/* By the name, or by "#!" at the beginning; NULL: not source code. Static. */
const char *rag_code_language(const char *path, const char *head, size_t length);

typedef bool (*RagReadBytes)(const char *bytes, size_t length, RagDocument *document, Error *err);
/* Runs such a reader in a child process with limits on time and memory. */
bool rag_read_aside(RagReadBytes read, const char *bytes, size_t length, RagDocument *document,
                    Error *err);

/* "3.2.1 Building packages": a short line that is numbered like a heading and
 * does not end like a sentence or a table of contents. Its level, or 0. */
int rag_numbered_heading(const char *line, size_t length);

#endif
