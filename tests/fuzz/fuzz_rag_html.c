/* The HTML reader, and the format detection in front of it. */
#include "fuzz/document.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    RagDocument document = {0};
    Error err = {0};
    const char *reason;
    rag_format_detect("page", (const char *)data, size, true, &reason);
    rag_read_html((const char *)data, size, &document, &err);
    check_document(&document);
    return 0;
}
