/* Decoding of text, and the readers of Markdown, plain text and pdftotext's
 * output on the same bytes. */
#include <stdlib.h>

#include "rag/document.h"

static void check(RagDocument *document) {
    size_t last = 0;
    for (size_t i = 0; i < document->n_blocks; i++) {
        RagBlock block = document->blocks[i];
        if (block.start < last || block.start >= block.end || block.end > document->text.length)
            __builtin_trap();
        last = block.end;
    }
    if (document->text.length && !base_utf8_valid(document->text.data, document->text.length))
        __builtin_trap();
    rag_document_free(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = NULL;
    size_t length = 0;
    if (!rag_text_decode((const char *)data, size, &text, &length)) return 0;
    RagDocument document = {0};
    rag_read_markdown(text, length, &document);
    check(&document);
    rag_read_text(text, length, &document);
    check(&document);
    rag_read_pdf_text(text, length, &document);
    check(&document);
    free(text);
    return 0;
}
