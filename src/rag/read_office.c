/* Word (DOCX) and OpenDocument text (ODT): zip files whose body is one XML
 * file. It is read as a stream of elements; a table for each format says what
 * an element means. No entities are expanded, no document type is accepted. */
#include <libxml/xmlreader.h>
#include <string.h>
#include <strings.h>

#include "rag/document.h"
#include "rag/zip.h"

typedef enum {
    IGNORE, /* its children are looked at */
    SKIP,   /* with everything inside */
    PARAGRAPH,
    HEADING,  /* a paragraph whose attribute gives its level */
    STYLE,    /* names the style of the paragraph */
    OUTLINE,  /* gives the paragraph's level, from 0 */
    NUMBERED, /* makes the paragraph a list item */
    ITEM,     /* holds the paragraphs of a list item */
    TEXT,     /* what is inside is text */
    TAB,
    SPACES,
    BREAK, /* of a line, or of a page */
    PAGE,  /* a page began here when the file was last laid out */
    TABLE,
    ROW,
    CELL
} Role;

typedef struct Element {
    const char *name;
    Role role;
} Element;

static const Element word_elements[] = {
    {"p", PARAGRAPH},    {"pStyle", STYLE},  {"outlineLvl", OUTLINE},
    {"numPr", NUMBERED}, {"t", TEXT},        {"tab", TAB},
    {"br", BREAK},       {"cr", BREAK},      {"lastRenderedPageBreak", PAGE},
    {"tbl", TABLE},      {"tr", ROW},        {"tc", CELL},
    {"del", SKIP}, /* deleted, moved away, the second form of a drawing */
    {"moveFrom", SKIP},  {"Fallback", SKIP}, {"tabs", SKIP},
    {NULL, IGNORE},
};

static const Element open_elements[] = {
    {"p", PARAGRAPH},
    {"h", HEADING},
    {"list-item", ITEM},
    {"s", SPACES},
    {"tab", TAB},
    {"line-break", BREAK},
    {"soft-page-break", PAGE},
    {"table", TABLE},
    {"table-row", ROW},
    {"table-cell", CELL},
    {"annotation", SKIP},
    {"tracked-changes", SKIP},
    {"note", SKIP},
    {"forms", SKIP},
    {NULL, IGNORE},
};

typedef struct Style {
    char *id, *parent;
    int level; /* of a heading; 0: none said; -1: the title */
} Style;

typedef struct Office {
    RagDocument *document;
    const Element *elements;
    bool text_anywhere; /* ODT: text stands in the paragraph itself */
    Style *styles;
    size_t n_styles, styles_capacity;
    StrBuf line, row;
    int paragraphs, texts, tables, items; /* depths */
    int level, page, paragraph_page;
    size_t cells, rows;
    bool listed, hard_break;
} Office;

static bool fail_xml(Error *err, const char *name) {
    return base_fail(err, ERROR_INPUT, "damaged: %.60s is not well-formed XML, or too deep", name);
}

static xmlTextReaderPtr open_xml(const RagZipMember *member) {
    return xmlReaderForMemory(member->data, (int)member->length, NULL, NULL,
                              XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
}

static const char *name_of(xmlTextReaderPtr reader) {
    const xmlChar *name = xmlTextReaderConstLocalName(reader);
    return name ? (const char *)name : "";
}

/* The attribute of this name in whatever namespace; NULL when there is none;
 * caller frees. */
static char *attribute(xmlTextReaderPtr reader, const char *name) {
    char *value = NULL;
    while (!value && xmlTextReaderMoveToNextAttribute(reader) == 1)
        if (strcmp(name_of(reader), name) == 0) {
            const xmlChar *text = xmlTextReaderConstValue(reader);
            value = base_strdup(text ? (const char *)text : "");
        }
    xmlTextReaderMoveToElement(reader);
    return value;
}

static int number_attribute(xmlTextReaderPtr reader, const char *name, int fallback) {
    char *text = attribute(reader, name);
    int value = text && *text >= '0' && *text <= '9' ? atoi(text) : fallback;
    free(text);
    return BASE_MIN(value, 1000);
}

static Role role_of(const Office *office, const char *name) {
    const Element *element = office->elements;
    while (element->name && strcmp(element->name, name) != 0) element++;
    return element->role;
}

/* ---- lines and rows ---------------------------------------------------------- */

static void append_text(Office *office, const char *text, size_t length) {
    if (!office->line.length) office->paragraph_page = office->page;
    base_str_append_n(&office->line, text, length);
    office->hard_break = false;
}

static void end_paragraph(Office *office) {
    if (office->tables) { /* paragraphs of a cell share its line */
        if (office->line.length) base_str_append_char(&office->line, ' ');
        return;
    }
    if (office->line.length) {
        bool listed = (office->listed || office->items) && !office->level;
        RagBlockKind kind = office->level ? RAG_BLOCK_HEADING
                            : listed      ? RAG_BLOCK_LIST_ITEM
                                          : RAG_BLOCK_PARAGRAPH;
        StrBuf text = {0};
        if (listed) base_str_append(&text, "- ");
        base_str_append_n(&text, office->line.data, office->line.length);
        if (office->level < 0)
            rag_document_set_title(office->document, office->line.data, office->line.length);
        int level = office->level < 0 ? 1 : BASE_MIN(office->level, 6);
        rag_document_add_line(office->document, kind, level, office->paragraph_page, text.data,
                              text.length);
        base_str_free(&text);
    }
    office->line.length = 0;
    office->level = 0;
    office->listed = false;
}

static void end_cell(Office *office) {
    if (office->tables != 1) return;
    if (office->cells++) base_str_append(&office->row, " | ");
    base_str_append_n(&office->row, office->line.data ? office->line.data : "",
                      office->line.length);
    office->line.length = 0;
}

static void end_row(Office *office) {
    if (office->tables != 1) return;
    RagBlockKind kind = office->rows++ ? RAG_BLOCK_TABLE_ROW : RAG_BLOCK_TABLE_HEADER;
    if (office->row.length > 3 * office->cells)
        rag_document_add_line(office->document, kind, 0, office->page, office->row.data,
                              office->row.length);
    office->row.length = 0;
    office->cells = 0;
}

/* ---- elements ------------------------------------------------------------------ */

static void set_style(Office *office, const char *id) {
    for (int hops = 0; id && hops < 12; hops++) {
        const Style *found = NULL;
        for (size_t i = 0; i < office->n_styles && !found; i++)
            if (strcmp(office->styles[i].id, id) == 0) found = &office->styles[i];
        if (!found) return;
        if (found->level) {
            office->level = found->level;
            return;
        }
        id = found->parent;
    }
}

static void page_break(Office *office, bool hard) {
    if (hard || !office->hard_break) office->page++;
    office->hard_break = hard;
    office->document->n_pages = BASE_MIN(office->page, 1000000);
}

static void enter(Office *office, xmlTextReaderPtr reader, Role role) {
    char *text = NULL;
    switch (role) {
    case PARAGRAPH:
    case HEADING:
        if (office->paragraphs++ == 0 && !office->tables) office->line.length = 0;
        if (role == HEADING) office->level = number_attribute(reader, "outline-level", 1);
        break;
    case STYLE:
        text = attribute(reader, "val");
        set_style(office, text);
        break;
    case OUTLINE: {
        int level = number_attribute(reader, "val", 9);
        if (level < 9) office->level = level + 1;
        break;
    }
    case NUMBERED: office->listed = true; break;
    case ITEM: office->items++; break;
    case TEXT: office->texts++; break;
    case TAB: append_text(office, " ", 1); break;
    case SPACES: append_text(office, " ", 1); break;
    case BREAK:
        text = attribute(reader, "type");
        if (text && strcmp(text, "page") == 0)
            page_break(office, true);
        else if (office->paragraphs)
            append_text(office, "\n", 1);
        break;
    case PAGE: page_break(office, false); break;
    case TABLE:
        if (office->tables++ == 0) office->rows = office->cells = 0;
        break;
    case ROW:
    case CELL:
    case IGNORE:
    case SKIP: break;
    }
    free(text);
}

static void leave(Office *office, Role role) {
    switch (role) {
    case PARAGRAPH:
    case HEADING:
        office->paragraphs -= office->paragraphs > 0;
        end_paragraph(office);
        break;
    case ITEM: office->items -= office->items > 0; break;
    case TEXT: office->texts -= office->texts > 0; break;
    case TABLE: office->tables -= office->tables > 0; break;
    case ROW: end_row(office); break;
    case CELL: end_cell(office); break;
    default: break;
    }
}

static bool walk(Office *office, const RagZipMember *member, Error *err) {
    xmlTextReaderPtr reader = open_xml(member);
    int rc = reader ? xmlTextReaderRead(reader) : -1;
    bool ok = true;
    while (ok && rc == 1) {
        int type = xmlTextReaderNodeType(reader);
        bool skip = false;
        if (type == XML_READER_TYPE_ELEMENT) {
            Role role = role_of(office, name_of(reader));
            skip = role == SKIP;
            enter(office, reader, role);
            if (!skip && xmlTextReaderIsEmptyElement(reader) == 1) leave(office, role);
        } else if (type == XML_READER_TYPE_END_ELEMENT) {
            leave(office, role_of(office, name_of(reader)));
        } else if (type == XML_READER_TYPE_DOCUMENT_TYPE) {
            ok = base_fail(err, ERROR_INPUT, "its XML declares a document type");
        } else if (type == XML_READER_TYPE_TEXT || type == XML_READER_TYPE_CDATA ||
                   type == XML_READER_TYPE_SIGNIFICANT_WHITESPACE) {
            bool inside = office->paragraphs && (office->texts || office->text_anywhere);
            const char *text = inside ? (const char *)xmlTextReaderConstValue(reader) : NULL;
            if (text) append_text(office, text, strlen(text));
        }
        if (ok) rc = skip ? xmlTextReaderNext(reader) : xmlTextReaderRead(reader);
    }
    if (ok && rc < 0) ok = fail_xml(err, member->name);
    xmlFreeTextReader(reader);
    return ok;
}

/* ---- styles and titles ------------------------------------------------------------ */

/* "heading 2" and "Title": Word's own names, whatever the language of the ids. */
static int level_of_style(const char *name) {
    if (strcasecmp(name, "title") == 0) return -1;
    if (strncasecmp(name, "heading ", 8) != 0) return 0;
    return name[8] >= '1' && name[8] <= '9' ? name[8] - '0' : 0;
}

static bool read_styles(Office *office, const RagZipMember *member, Error *err) {
    xmlTextReaderPtr reader = open_xml(member);
    Style *open = NULL;
    int rc = reader ? xmlTextReaderRead(reader) : -1;
    for (; rc == 1; rc = xmlTextReaderRead(reader)) {
        if (xmlTextReaderNodeType(reader) != XML_READER_TYPE_ELEMENT) continue;
        const char *name = name_of(reader);
        if (strcmp(name, "style") == 0) {
            char *id = attribute(reader, "styleId");
            office->styles = base_grow(office->styles, &office->styles_capacity,
                                       office->n_styles + 1, sizeof *office->styles);
            open = &office->styles[office->n_styles++];
            *open = (Style){.id = id ? id : base_strdup("")};
            continue;
        }
        char *value = open ? attribute(reader, "val") : NULL;
        if (value && strcmp(name, "name") == 0) open->level = level_of_style(value);
        if (value && strcmp(name, "outlineLvl") == 0 && !open->level && *value >= '0' &&
            *value < '9')
            open->level = *value - '0' + 1;
        if (value && strcmp(name, "basedOn") == 0 && !open->parent)
            open->parent = base_strdup(value);
        free(value);
    }
    xmlFreeTextReader(reader);
    return rc == 0 || fail_xml(err, member->name);
}

/* The text of the first dc:title. */
static void read_title(const RagZipMember *member, RagDocument *document) {
    xmlTextReaderPtr reader = open_xml(member);
    bool inside = false;
    while (reader && xmlTextReaderRead(reader) == 1) {
        int type = xmlTextReaderNodeType(reader);
        if (type == XML_READER_TYPE_ELEMENT) inside = strcmp(name_of(reader), "title") == 0;
        if (type != XML_READER_TYPE_TEXT || !inside) continue;
        const char *text = (const char *)xmlTextReaderConstValue(reader);
        if (text) rag_document_set_title(document, text, strlen(text));
        break;
    }
    xmlFreeTextReader(reader);
}

static bool read_office(const char *bytes, size_t length, const Element *elements,
                        const char *body_name, const char *meta_name, const char *styles_name,
                        RagDocument *document, Error *err) {
    static const char *const wanted[] = {".xml", NULL};
    RagZip zip;
    if (!rag_zip_read(bytes, length, wanted, &zip, err)) return false;
    Office office = {.document = document,
                     .elements = elements,
                     .text_anywhere = elements == open_elements,
                     .page = 1};
    const RagZipMember *body = rag_zip_find(&zip, body_name), *meta = rag_zip_find(&zip, meta_name);
    const RagZipMember *styles = styles_name ? rag_zip_find(&zip, styles_name) : NULL;
    bool ok = body || base_fail(err, ERROR_INPUT, "damaged: %s is not in it", body_name);
    if (ok && styles) ok = read_styles(&office, styles, err);
    if (ok && meta) read_title(meta, document);
    ok = ok && walk(&office, body, err);
    /* Without a single break nothing is known about pages. */
    for (size_t i = 0; i < document->n_blocks && !document->n_pages; i++)
        document->blocks[i].page = 0;
    for (size_t i = 0; i < office.n_styles; i++)
        free(office.styles[i].id), free(office.styles[i].parent);
    free(office.styles);
    base_str_free(&office.line);
    base_str_free(&office.row);
    rag_zip_free(&zip);
    return ok;
}

bool rag_read_docx(const char *bytes, size_t length, RagDocument *document, Error *err) {
    return read_office(bytes, length, word_elements, "word/document.xml", "docProps/core.xml",
                       "word/styles.xml", document, err);
}

bool rag_read_odt(const char *bytes, size_t length, RagDocument *document, Error *err) {
    return read_office(bytes, length, open_elements, "content.xml", "meta.xml", NULL, document,
                       err);
}
