/* Decoding of text, and the readers of Markdown, plain text and pdftotext's
 * output on the same bytes. */
#include <stdlib.h>

#include "fuzz/document.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = NULL;
    size_t length = 0;
    if (!rag_text_decode((const char *)data, size, &text, &length)) return 0;
    RagDocument document = {0};
    rag_read_markdown(text, length, &document);
    check_document(&document);
    rag_read_text(text, length, &document);
    check_document(&document);
    rag_read_pdf_text(text, length, &document);
    check_document(&document);
    free(text);
    return 0;
}
