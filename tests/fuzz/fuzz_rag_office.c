/* The readers of DOCX, ODT and EPUB: any bytes as the zip file, and any text as the part
 * of a sound one that they read. */
#include "fuzz/document.h"
#include "rag/zipped.h"

static const struct {
    RagReadBytes read;
    const char *part; /* what is fuzzed */
    const char *others[2][2];
} formats[] = {
    {rag_read_docx, "word/document.xml", {{NULL, NULL}, {NULL, NULL}}},
    {rag_read_odt, "content.xml", {{NULL, NULL}, {NULL, NULL}}},
    {rag_read_epub,
     "OEBPS/book.opf",
     {{"META-INF/container.xml", "<container xmlns='c'><rootfiles><rootfile "
                                 "full-path='OEBPS/book.opf'/></rootfiles></container>"},
      {"OEBPS/a.xhtml", "<html><body><h1>First</h1><p>Flow.</p></body></html>"}}},
};

static void read_with(RagReadBytes read, const char *bytes, size_t length) {
    RagDocument document = {0};
    Error err = {0};
    read(bytes, length, &document, &err);
    check_document(&document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > ZIPPED_BYTES / 2) return 0;
    const size_t which = data[0] % BASE_COUNT(formats);
    read_with(formats[which].read, (const char *)data, size);
    char *text = base_strndup((const char *)data + 1, size - 1);
    Zipped zip;
    zipped_begin(&zip);
    for (size_t i = 0; i < 2; i++)
        if (formats[which].others[i][0])
            zipped_add(&zip, formats[which].others[i][0], formats[which].others[i][1], 1);
    zipped_add(&zip, formats[which].part, text, 1);
    zipped_end(&zip);
    read_with(formats[which].read, zip.bytes, zip.length);
    free(zip.bytes);
    free(text);
    return 0;
}
