/* CSV (RFC 4180) and its kin with other separators: the first record names the
 * columns, every further one is a table row. Quoted fields may hold separators,
 * line breaks and doubled quotes. */
#include <string.h>

#include "rag/document.h"

/* The separator that the first line holds most often outside quotes. */
static char separator_of(const char *text, size_t length) {
    static const char candidates[] = ",;\t|";
    size_t counts[sizeof candidates] = {0}, best = 0;
    bool quoted = false;
    for (size_t i = 0; i < length && (quoted || text[i] != '\n'); i++) {
        if (text[i] == '"') quoted = !quoted;
        const char *found = quoted || !text[i] ? NULL : strchr(candidates, text[i]);
        if (found) counts[found - candidates]++;
    }
    for (size_t k = 1; k < sizeof candidates - 1; k++)
        if (counts[k] > counts[best]) best = k;
    return candidates[best];
}

/* Appends the field at text[i) to *row; returns where it ended: at a separator,
 * a line break or the end. An open quote ends with the text. */
static size_t take_field(const char *text, size_t length, size_t i, char separator, StrBuf *row) {
    bool quoted = i < length && text[i] == '"';
    if (quoted) i++;
    while (i < length) {
        if (quoted && text[i] == '"') {
            if (i + 1 < length && text[i + 1] == '"') {
                base_str_append_char(row, '"');
                i += 2;
                continue;
            }
            quoted = false;
            i++;
            continue;
        }
        if (!quoted && (text[i] == separator || text[i] == '\n')) break;
        base_str_append_char(row, text[i] == '\n' || text[i] == '\r' ? ' ' : text[i]);
        i++;
    }
    while (row->length && row->data[row->length - 1] == ' ') row->length--;
    return i;
}

void rag_read_csv(const char *text, size_t length, RagDocument *document) {
    char separator = separator_of(text, length);
    StrBuf row = {0};
    for (size_t i = 0, rows = 0; i < length; i++) {
        row.length = 0;
        size_t fields = 0, filled = 0;
        for (;; i++) {
            if (fields++) base_str_append(&row, " | ");
            size_t before = row.length;
            i = take_field(text, length, i, separator, &row);
            filled += row.length > before;
            if (i >= length || text[i] == '\n') break;
        }
        if (!filled) continue;
        rag_document_add_line(document, rows++ ? RAG_BLOCK_TABLE_ROW : RAG_BLOCK_TABLE_HEADER, 0, 0,
                              row.data, row.length);
    }
    base_str_free(&row);
}
