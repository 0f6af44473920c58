/* HTML through libxml2's tolerant parser: no network, no external entities.
 * The tree is walked once, without recursion; block elements end the line that
 * is being gathered, inline ones only add to it. What a reader of the page does
 * not see, or sees on every page (navigation), is left out. */
#include <libxml/HTMLparser.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "rag/document.h"
#include "rag/show.h"

typedef enum {
    INLINE,
    DROP,  /* with everything inside */
    BLOCK, /* ends a paragraph before and after */
    HEADING,
    ITEM,
    PRE,
    TABLE,
    ROW,
    CELL,
    BREAK
} Role;

typedef struct Element {
    const char *name;
    Role role;
} Element;

static const Element elements[] = {
    {"address", BLOCK}, {"applet", DROP},      {"article", BLOCK},  {"aside", BLOCK},
    {"audio", DROP},    {"blockquote", BLOCK}, {"br", BREAK},       {"button", DROP},
    {"canvas", DROP},   {"caption", BLOCK},    {"center", BLOCK},   {"datalist", DROP},
    {"dd", BLOCK},      {"details", BLOCK},    {"div", BLOCK},      {"dl", BLOCK},
    {"dt", BLOCK},      {"embed", DROP},       {"fieldset", BLOCK}, {"figcaption", BLOCK},
    {"figure", BLOCK},  {"footer", DROP},      {"form", BLOCK},     {"frame", DROP},
    {"frameset", DROP}, {"h1", HEADING},       {"h2", HEADING},     {"h3", HEADING},
    {"h4", HEADING},    {"h5", HEADING},       {"h6", HEADING},     {"head", DROP},
    {"header", BLOCK},  {"hr", BLOCK},         {"iframe", DROP},    {"input", DROP},
    {"legend", BLOCK},  {"li", ITEM},          {"listing", PRE},    {"main", BLOCK},
    {"map", DROP},      {"menu", BLOCK},       {"meter", DROP},     {"nav", DROP},
    {"noframes", DROP}, {"noscript", DROP},    {"object", DROP},    {"ol", BLOCK},
    {"optgroup", DROP}, {"option", DROP},      {"p", BLOCK},        {"pre", PRE},
    {"progress", DROP}, {"script", DROP},      {"section", BLOCK},  {"select", DROP},
    {"style", DROP},    {"summary", BLOCK},    {"svg", DROP},       {"table", TABLE},
    {"td", CELL},       {"template", DROP},    {"textarea", DROP},  {"th", CELL},
    {"title", DROP},    {"tr", ROW},           {"ul", BLOCK},       {"video", DROP},
    {"xmp", PRE},
};

/* ARIA roles and classes of what surrounds the text of a page. */
static const char *const dropped_roles[] = {"navigation", "search",  "banner", "contentinfo",
                                            "menu",       "menubar", "toolbar"};
static const char *const dropped_classes[] = {
    "headerlink", "nosearch",    "sphinxsidebar",   "related", "navheader", "navfooter",
    "breadcrumb", "breadcrumbs", "visually-hidden", "sr-only", "noprint",   "mw-editsection"};

static bool has_word(const xmlChar *text, const char *const *words, size_t count) {
    const char *s = (const char *)text;
    while (s && *s) {
        size_t length = strcspn(s, " \t\r\n");
        for (size_t i = 0; i < count; i++)
            if (strlen(words[i]) == length && strncasecmp(s, words[i], length) == 0) return true;
        s += length;
        s += strspn(s, " \t\r\n");
    }
    return false;
}

static bool hides(const char *style) {
    static const char *const ways[] = {"display:none", "visibility:hidden", "font-size:0"};
    char packed[512];
    size_t n = 0;
    for (; *style && n + 1 < sizeof packed; style++)
        if (!strchr(" \t\r\n", *style)) packed[n++] = *style;
    packed[n] = '\0';
    for (size_t i = 0; i < BASE_COUNT(ways); i++) {
        const char *found = strcasestr(packed, ways[i]);
        if (!found) continue;
        char next = found[strlen(ways[i])];
        if (i < 2 || !next || next == ';' || next == 'p') return true; /* not font-size:0.9em */
    }
    return false;
}

static bool is_hidden(const xmlNode *node) {
    for (const xmlAttr *attribute = node->properties; attribute; attribute = attribute->next) {
        const char *name = (const char *)attribute->name;
        const xmlChar *value = attribute->children ? attribute->children->content : NULL;
        const char *text = value ? (const char *)value : "";
        if (strcasecmp(name, "hidden") == 0) return true;
        if (strcasecmp(name, "aria-hidden") == 0 && strcasecmp(text, "true") == 0) return true;
        if (strcasecmp(name, "style") == 0 && hides(text)) return true;
        if (strcasecmp(name, "role") == 0 &&
            has_word(value, dropped_roles, BASE_COUNT(dropped_roles)))
            return true;
        if (strcasecmp(name, "class") == 0 &&
            has_word(value, dropped_classes, BASE_COUNT(dropped_classes)))
            return true;
    }
    return false;
}

static Role role_of(const xmlNode *node) {
    size_t low = 0, high = BASE_COUNT(elements);
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcasecmp((const char *)node->name, elements[middle].name);
        if (order == 0) return elements[middle].role;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return INLINE;
}

/* The node after this one and all inside it, in document order, within root. */
static const xmlNode *after(const xmlNode *node, const xmlNode *root) {
    while (node != root) {
        if (node->next) return node->next;
        node = node->parent;
    }
    return NULL;
}

/* A table that only arranges the page: with tables, headings, lists or code in
 * its cells, or with cells as long as paragraphs. */
static bool is_layout(const xmlNode *table) {
    size_t cell_text = 0;
    for (const xmlNode *node = table->children; node;
         node = node->children && node->type == XML_ELEMENT_NODE ? node->children
                                                                 : after(node, table)) {
        if (node->type == XML_TEXT_NODE && node->content) {
            cell_text += strlen((const char *)node->content);
            if (cell_text > 1500) return true;
        }
        if (node->type != XML_ELEMENT_NODE) continue;
        Role role = role_of(node);
        if (role == TABLE || role == HEADING || role == ITEM || role == PRE) return true;
        if (role == CELL) cell_text = 0;
    }
    return false;
}

typedef struct Walk {
    RagDocument *document;
    StrBuf line;
    RagBlockKind kind; /* of the line being gathered */
    int level;         /* of the heading being gathered */
    int pre;           /* depth of pre elements */
    int layout;        /* depth of layout tables */
    int table;         /* depth of data tables */
    bool row_header;   /* every cell of the row so far is a th */
    bool row_open;
} Walk;

static void flush(Walk *walk) {
    if (walk->line.length) {
        if (walk->kind == RAG_BLOCK_CODE)
            rag_document_add(walk->document, RAG_BLOCK_CODE, 0, 0, walk->line.data,
                             walk->line.length);
        else
            rag_document_add_line(walk->document, walk->kind, walk->level, 0, walk->line.data,
                                  walk->line.length);
    }
    walk->line.length = 0;
    walk->kind = walk->pre ? RAG_BLOCK_CODE : RAG_BLOCK_PARAGRAPH;
    walk->level = 0;
}

static bool in_data_table(const Walk *walk) {
    return walk->table > 0 && walk->row_open;
}

static void enter(Walk *walk, const xmlNode *node, Role role) {
    if (in_data_table(walk) && role != CELL && role != ROW) { /* stays in its row */
        if (role != INLINE) base_str_append_char(&walk->line, ' ');
        return;
    }
    switch (role) {
    case BREAK: base_str_append_char(&walk->line, '\n'); break;
    case BLOCK:
    case TABLE:
        /* The first paragraph of a list item belongs to it. */
        if (!(walk->kind == RAG_BLOCK_LIST_ITEM && walk->line.length <= 2)) flush(walk);
        break;
    case HEADING:
        flush(walk);
        walk->kind = RAG_BLOCK_HEADING;
        walk->level = node->name[1] - '0';
        break;
    case ITEM:
        flush(walk);
        walk->kind = RAG_BLOCK_LIST_ITEM;
        base_str_append(&walk->line, "- ");
        break;
    case PRE:
        flush(walk);
        walk->pre++;
        walk->kind = RAG_BLOCK_CODE;
        break;
    case ROW:
        flush(walk);
        if (walk->table) {
            walk->row_open = true;
            walk->row_header = true;
            walk->kind = RAG_BLOCK_TABLE_ROW;
        }
        break;
    case CELL:
        if (in_data_table(walk)) {
            if (walk->line.length) base_str_append(&walk->line, " | ");
            if (strcasecmp((const char *)node->name, "th") != 0) walk->row_header = false;
        } else {
            flush(walk);
        }
        break;
    case INLINE:
    case DROP: break;
    }
}

static void leave(Walk *walk, Role role) {
    if (role == ROW && walk->table && walk->row_open) {
        if (walk->row_header) walk->kind = RAG_BLOCK_TABLE_HEADER;
        walk->row_open = false;
        flush(walk);
        return;
    }
    if (in_data_table(walk)) {
        if (role != INLINE) base_str_append_char(&walk->line, ' ');
        return;
    }
    if (role == PRE) {
        flush(walk);
        walk->pre--;
        walk->kind = walk->pre ? RAG_BLOCK_CODE : RAG_BLOCK_PARAGRAPH;
    } else if (role == ITEM && walk->line.length <= 2) {
        walk->line.length = 0; /* an empty item */
        flush(walk);
    } else if (role != INLINE && role != BREAK) {
        flush(walk);
    }
}

static void walk_tree(Walk *walk, const xmlNode *root) {
    const xmlNode *node = root;
    while (node) {
        Role role = INLINE;
        bool down = false;
        if (node->type == XML_ELEMENT_NODE) {
            role = node == root ? BLOCK : role_of(node);
            if (node != root && (role == DROP || is_hidden(node))) {
                role = INLINE; /* nothing is left open by it */
            } else {
                if (role == TABLE) *(is_layout(node) ? &walk->layout : &walk->table) += 1;
                enter(walk, node, role);
                down = node->children != NULL;
                if (!down) {
                    if (role == TABLE) *(is_layout(node) ? &walk->layout : &walk->table) -= 1;
                    leave(walk, role);
                }
            }
        } else if ((node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE) &&
                   node->content) {
            base_str_append(&walk->line, (const char *)node->content);
        }
        if (down) {
            node = node->children;
            continue;
        }
        while (node != root && !node->next) {
            node = node->parent;
            Role left = node == root ? BLOCK : role_of(node);
            if (left == TABLE) *(is_layout(node) ? &walk->layout : &walk->table) -= 1;
            leave(walk, left);
        }
        node = node == root ? NULL : node->next;
    }
    flush(walk);
}

static const xmlNode *find(const xmlNode *root, bool (*wanted)(const xmlNode *)) {
    for (const xmlNode *node = root; node; node = node->type == XML_ELEMENT_NODE && node->children
                                                      ? node->children
                                                      : after(node, root))
        if (node->type == XML_ELEMENT_NODE && wanted(node)) return node;
    return NULL;
}

static bool is_title(const xmlNode *node) {
    return strcasecmp((const char *)node->name, "title") == 0;
}

static bool is_main(const xmlNode *node) {
    if (strcasecmp((const char *)node->name, "main") == 0) return true;
    for (const xmlAttr *attribute = node->properties; attribute; attribute = attribute->next)
        if (strcasecmp((const char *)attribute->name, "role") == 0 && attribute->children &&
            attribute->children->content &&
            strcasecmp((const char *)attribute->children->content, "main") == 0)
            return true;
    return false;
}

static void set_title(RagDocument *document, const xmlNode *root) {
    const xmlNode *title = find(root, is_title);
    StrBuf text = {0};
    for (const xmlNode *child = title ? title->children : NULL; child; child = child->next)
        if (child->content) base_str_append(&text, (const char *)child->content);
    if (text.length) rag_document_set_title(document, text.data, text.length);
    base_str_free(&text);
    for (size_t i = 0; !document->title && i < document->n_blocks; i++) {
        const RagBlock *block = &document->blocks[i];
        if (block->kind == RAG_BLOCK_HEADING)
            rag_document_set_title(document, document->text.data + block->start,
                                   block->end - block->start);
    }
}

/* The encoding that the bytes force, or NULL to believe the page. */
static const char *encoding_of(const char *bytes, size_t length) {
    bool marked =
        length >= 2 && ((unsigned char)bytes[0] == 0xFF || (unsigned char)bytes[0] == 0xFE);
    if (marked) return NULL;
    return base_utf8_valid(bytes, length) ? "UTF-8" : NULL;
}

bool rag_read_html(const char *bytes, size_t length, RagDocument *document, Error *err) {
    if (length > INT32_MAX / 2) return base_fail(err, ERROR_INPUT, "larger than 1 GiB");
    static pthread_once_t once = PTHREAD_ONCE_INIT; /* several threads read pages */
    pthread_once(&once, xmlInitParser);
    htmlParserCtxtPtr parser = htmlNewParserCtxt();
    htmlDocPtr tree =
        parser ? htmlCtxtReadMemory(parser, bytes, (int)length, NULL, encoding_of(bytes, length),
                                    HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                        HTML_PARSE_NONET | HTML_PARSE_COMPACT)
               : NULL;
    /* The parser gives up on a page only when its elements are too deep. */
    bool too_deep = parser && parser->disableSAX;
    htmlFreeParserCtxt(parser);
    const xmlNode *root = tree ? xmlDocGetRootElement(tree) : NULL;
    if (too_deep) {
        if (tree) xmlFreeDoc(tree);
        return base_fail(err, ERROR_INPUT, "its elements are nested too deep (more than 256)");
    }
    if (!root) {
        if (tree) xmlFreeDoc(tree);
        return base_fail(err, ERROR_INPUT, "no HTML in it");
    }
    const xmlNode *content = find(root, is_main);
    Walk walk = {.document = document, .kind = RAG_BLOCK_PARAGRAPH};
    walk_tree(&walk, content ? content : root);
    if (content && !document->n_blocks) walk_tree(&walk, root);
    set_title(document, root);
    base_str_free(&walk.line);
    xmlFreeDoc(tree);
    return true;
}
