/* What holds of every document that a reader gives. */
#ifndef FUZZ_DOCUMENT_H
#define FUZZ_DOCUMENT_H

#include "rag/document.h"

static inline void check_document(RagDocument *document) {
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

#endif
