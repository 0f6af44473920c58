/* The HTML reader, and the format detection in front of it. */
#include "rag/document.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    RagDocument document = {0};
    Error err = {0};
    const char *reason;
    rag_format_detect("page", (const char *)data, size, true, &reason);
    if (rag_read_html((const char *)data, size, &document, &err))
        for (size_t i = 0; i < document.n_blocks; i++)
            if (document.blocks[i].start >= document.blocks[i].end ||
                document.blocks[i].end > document.text.length)
                __builtin_trap();
    if (document.text.length && !base_utf8_valid(document.text.data, document.text.length))
        __builtin_trap();
    rag_document_free(&document);
    return 0;
}
