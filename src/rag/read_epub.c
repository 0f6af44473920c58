/* EPUB: a zip file with a package file that lists the chapters, which are
 * XHTML, in reading order. */
#include <libxml/xmlreader.h>
#include <string.h>

#include "rag/document.h"
#include "rag/zip.h"

typedef struct Item {
    char *id, *href;
} Item;

typedef struct Package {
    char *folder; /* of the package file, "" or "OEBPS/" */
    char *title;
    Item *items; /* the manifest */
    size_t n_items, items_capacity;
    char **spine; /* ids in reading order */
    size_t n_spine, spine_capacity;
} Package;

static xmlTextReaderPtr open_xml(const RagZipMember *member) {
    return xmlReaderForMemory(member->data, (int)member->length, NULL, NULL,
                              XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
}

static char *attribute(xmlTextReaderPtr reader, const char *name) {
    xmlChar *value = xmlTextReaderGetAttribute(reader, (const xmlChar *)name);
    char *copy = value ? base_strdup((const char *)value) : NULL;
    xmlFree(value);
    return copy;
}

static const char *name_of(xmlTextReaderPtr reader) {
    const xmlChar *name = xmlTextReaderConstLocalName(reader);
    return name ? (const char *)name : "";
}

/* The path of the package file; NULL when the container names none. */
static char *package_path(const RagZip *zip) {
    const RagZipMember *container = rag_zip_find(zip, "META-INF/container.xml");
    xmlTextReaderPtr reader = container ? open_xml(container) : NULL;
    char *path = NULL;
    while (reader && !path && xmlTextReaderRead(reader) == 1)
        if (xmlTextReaderNodeType(reader) == XML_READER_TYPE_ELEMENT &&
            strcmp(name_of(reader), "rootfile") == 0)
            path = attribute(reader, "full-path");
    xmlFreeTextReader(reader);
    return path;
}

/* "a%20b.xhtml#part" -> "a b.xhtml", in place. */
static void unescape(char *href) {
    href[strcspn(href, "#")] = '\0';
    char *to = href;
    for (const char *at = href; *at; at++) {
        unsigned int byte = 0;
        if (*at == '%' && sscanf(at + 1, "%2x", &byte) == 1 && byte && at[1] && at[2]) {
            *to++ = (char)byte;
            at += 2;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

static bool read_package(const RagZipMember *member, Package *package, Error *err) {
    xmlTextReaderPtr reader = open_xml(member);
    bool in_title = false;
    int rc = reader ? xmlTextReaderRead(reader) : -1;
    for (; rc == 1; rc = xmlTextReaderRead(reader)) {
        int type = xmlTextReaderNodeType(reader);
        if (type == XML_READER_TYPE_TEXT && in_title && !package->title) {
            const char *text = (const char *)xmlTextReaderConstValue(reader);
            package->title = text ? base_strdup(text) : NULL;
        }
        if (type != XML_READER_TYPE_ELEMENT) continue;
        const char *name = name_of(reader);
        in_title = strcmp(name, "title") == 0;
        if (strcmp(name, "item") == 0) {
            Item item = {attribute(reader, "id"), attribute(reader, "href")};
            if (item.href) unescape(item.href);
            package->items = base_grow(package->items, &package->items_capacity,
                                       package->n_items + 1, sizeof *package->items);
            package->items[package->n_items++] = item;
        } else if (strcmp(name, "itemref") == 0) {
            char *id = attribute(reader, "idref");
            if (!id) continue;
            package->spine = base_grow(package->spine, &package->spine_capacity,
                                       package->n_spine + 1, sizeof *package->spine);
            package->spine[package->n_spine++] = id;
        }
    }
    xmlFreeTextReader(reader);
    return rc == 0 || base_fail(err, ERROR_INPUT, "damaged: its package file is not XML");
}

static const RagZipMember *chapter(const RagZip *zip, const Package *package, const char *id) {
    for (size_t i = 0; i < package->n_items; i++) {
        const Item *item = &package->items[i];
        if (!item->id || !item->href || strcmp(item->id, id) != 0) continue;
        char *path = base_format("%s%s", package->folder, item->href);
        const RagZipMember *member = rag_zip_find(zip, path);
        free(path);
        return member;
    }
    return NULL;
}

static bool read_chapters(const RagZip *zip, const Package *package, RagDocument *document,
                          Error *err) {
    size_t missing = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < package->n_spine; i++) {
        const RagZipMember *member = chapter(zip, package, package->spine[i]);
        Error wrong = {0};
        if (!member || !rag_read_html(member->data, member->length, document, &wrong)) missing++;
    }
    if (missing == package->n_spine && missing)
        ok = base_fail(err, ERROR_INPUT, "damaged: none of its %zu chapters can be read", missing);
    else if (missing)
        snprintf(document->warning, sizeof document->warning,
                 "%zu of its %zu chapters cannot be read", missing, package->n_spine);
    if (package->title) rag_document_set_title(document, package->title, strlen(package->title));
    return ok;
}

static void free_package(Package *package) {
    for (size_t i = 0; i < package->n_items; i++)
        free(package->items[i].id), free(package->items[i].href);
    for (size_t i = 0; i < package->n_spine; i++) free(package->spine[i]);
    free(package->items), free(package->spine), free(package->folder), free(package->title);
}

bool rag_read_epub(const char *bytes, size_t length, RagDocument *document, Error *err) {
    static const char *const wanted[] = {".xml", ".opf", ".xhtml", ".html", ".htm", NULL};
    RagZip zip;
    if (!rag_zip_read(bytes, length, wanted, &zip, err)) return false;
    Package package = {0};
    char *path = package_path(&zip);
    const RagZipMember *member = path ? rag_zip_find(&zip, path) : NULL;
    bool ok = member || base_fail(err, ERROR_INPUT, "damaged: its package file is not in it");
    if (ok) {
        const char *slash = strrchr(path, '/');
        package.folder = base_strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
    }
    ok = ok && read_package(member, &package, err) && read_chapters(&zip, &package, document, err);
    free_package(&package);
    free(path);
    rag_zip_free(&zip);
    return ok;
}
