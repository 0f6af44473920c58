/* Word, OpenDocument and EPUB files, tables with separators and source code:
 * which blocks come out of them, and what damaged or hostile ones give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/chunk.h"
#include "rag/document.h"
#include "rag/fake.h"
#include "rag/zipped.h"

typedef struct Expected {
    RagBlockKind kind;
    int level, page;
    const char *text;
} Expected;

static void expect(const RagDocument *d, const Expected *expected, size_t count) {
    for (size_t i = 0; i < count && i < d->n_blocks; i++) {
        const RagBlock *block = &d->blocks[i];
        char *text = base_strndup(d->text.data + block->start, block->end - block->start);
        assert_string_equal(text, expected[i].text);
        assert_int_equal(block->kind, expected[i].kind);
        assert_int_equal(block->level, expected[i].level);
        assert_int_equal(block->page, expected[i].page);
        free(text);
    }
    assert_int_equal(d->n_blocks, count);
}

/* The document of a zip file under this name; frees the bytes. */
static bool read_zip(const char *name, Zipped *zip, RagDocument *document, Error *err) {
    zipped_end(zip);
    const char *reason = "";
    RagFormat format = rag_format_detect(name, zip->bytes, zip->length, true, &reason);
    bool ok = rag_document_read(name, format, zip->bytes, zip->length, document, err);
    free(zip->bytes);
    return ok;
}

#define WORD "<w:document xmlns:w='w'><w:body>"
#define P(text) "<w:p><w:r><w:t>" text "</w:t></w:r></w:p>"

static bool read_docx(const char *body, RagDocument *document, Error *err) {
    Zipped zip;
    zipped_begin(&zip);
    zipped_add(&zip, "docProps/core.xml", "<c xmlns:dc='d'><dc:title>The Ferry</dc:title></c>", 1);
    zipped_add(&zip, "word/styles.xml",
               "<w:styles xmlns:w='w'><w:style w:styleId='berschrift1'><w:name w:val='heading 1'/>"
               "</w:style><w:style w:styleId='Mine'><w:basedOn w:val='berschrift1'/></w:style>"
               "</w:styles>",
               1);
    zipped_add(&zip, "word/document.xml", body, 1);
    return read_zip("ferry.docx", &zip, document, err);
}

static void test_docx_headings_lists_tables_and_pages(void **state) {
    (void)state;
    static const char body[] =
        WORD "<w:p><w:pPr><w:pStyle w:val='Mine'/></w:pPr><w:r><w:t>Timetable</w:t></w:r></w:p>"
             "<w:p><w:r><w:t xml:space='preserve'>It runs </w:t></w:r><w:r><w:t>hourly.</w:t></w:r>"
             "<w:del><w:r><w:t>never</w:t></w:r></w:del></w:p>"
             "<w:p><w:pPr><w:numPr/></w:pPr><w:r><w:t>Buy a ticket</w:t></w:r></w:p>"
             "<w:tbl><w:tr><w:tc>" P("Ticket") "</w:tc><w:tc>" P(
                 "Price") "</w:tc></w:tr>"
                          "<w:tr><w:tc>" P("Single") "</w:tc><w:tc>" P(
                              "3") "</w:tc></w:tr></w:tbl>"
                                   "<w:p><w:r><w:br w:type='page'/></w:r></w:p>" P(
                                       "On the second page.") "</w:body></w:document>";
    static const Expected expected[] = {
        {RAG_BLOCK_HEADING, 1, 1, "Timetable"},
        {RAG_BLOCK_PARAGRAPH, 0, 1, "It runs hourly."},
        {RAG_BLOCK_LIST_ITEM, 0, 1, "- Buy a ticket"},
        {RAG_BLOCK_TABLE_HEADER, 0, 1, "Ticket | Price"},
        {RAG_BLOCK_TABLE_ROW, 0, 1, "Single | 3"},
        {RAG_BLOCK_PARAGRAPH, 0, 2, "On the second page."},
    };
    RagDocument d = {0};
    Error err = {0};
    if (!read_docx(body, &d, &err)) fail_msg("%s", err.message);
    assert_string_equal(d.title, "The Ferry");
    assert_string_equal(d.format, "docx");
    assert_int_equal(d.n_pages, 2);
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_odt_headings_lists_and_spaces(void **state) {
    (void)state;
    Zipped zip;
    zipped_begin(&zip);
    zipped_add(&zip, "content.xml",
               "<o:document-content xmlns:o='o' xmlns:t='t' xmlns:b='b'><o:body><o:text>"
               "<t:h t:outline-level='2'>Lamp</t:h><t:p>Turns<t:s/>slowly, <t:span>once</t:span> in"
               " ten seconds.<t:note>not this</t:note></t:p>"
               "<t:list><t:list-item><t:p>Clean it</t:p></t:list-item></t:list>"
               "</o:text></o:body></o:document-content>",
               1);
    static const Expected expected[] = {
        {RAG_BLOCK_HEADING, 2, 0, "Lamp"},
        {RAG_BLOCK_PARAGRAPH, 0, 0, "Turns slowly, once in ten seconds."},
        {RAG_BLOCK_LIST_ITEM, 0, 0, "- Clean it"},
    };
    RagDocument d = {0};
    Error err = {0};
    if (!read_zip("lamp.odt", &zip, &d, &err)) fail_msg("%s", err.message);
    expect(&d, expected, BASE_COUNT(expected));
    assert_string_equal(d.title, "lamp.odt");
    rag_document_free(&d);
}

#define CONTAINER                                                                        \
    "<container xmlns='c'><rootfiles><rootfile full-path='OEBPS/book.opf'/></rootfiles>" \
    "</container>"

static void test_epub_chapters_in_reading_order(void **state) {
    (void)state;
    Zipped zip;
    zipped_begin(&zip);
    zipped_add(&zip, "META-INF/container.xml", CONTAINER, 1);
    zipped_add(&zip, "OEBPS/b.xhtml", "<html><body><h1>Second</h1><p>Ebb.</p></body></html>", 1);
    zipped_add(&zip, "OEBPS/a 1.xhtml", "<html><body><h1>First</h1><p>Flow.</p></body></html>", 1);
    zipped_add(&zip, "OEBPS/book.opf",
               "<package xmlns='p' xmlns:dc='d'><metadata><dc:title>Tides</dc:title></metadata>"
               "<manifest><item id='b' href='b.xhtml'/><item id='a' href='a%201.xhtml'/>"
               "</manifest><spine><itemref idref='a'/><itemref idref='b'/><itemref idref='x'/>"
               "</spine></package>",
               1);
    static const Expected expected[] = {
        {RAG_BLOCK_HEADING, 1, 0, "First"},
        {RAG_BLOCK_PARAGRAPH, 0, 0, "Flow."},
        {RAG_BLOCK_HEADING, 1, 0, "Second"},
        {RAG_BLOCK_PARAGRAPH, 0, 0, "Ebb."},
    };
    RagDocument d = {0};
    Error err = {0};
    if (!read_zip("tides.epub", &zip, &d, &err)) fail_msg("%s", err.message);
    assert_string_equal(d.title, "Tides");
    assert_string_equal(d.warning, "1 of its 3 chapters cannot be read");
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_csv_quotes_and_separators(void **state) {
    (void)state;
    static const char text[] = "Port;Depth;Note\r\n\"Old; harbour\";4;\"says \"\"no\"\"\nhere\"\n"
                               ";;\nNew;12;";
    static const Expected expected[] = {
        {RAG_BLOCK_TABLE_HEADER, 0, 0, "Port | Depth | Note"},
        {RAG_BLOCK_TABLE_ROW, 0, 0, "Old; harbour | 4 | says \"no\" here"},
        {RAG_BLOCK_TABLE_ROW, 0, 0, "New | 12 |"},
    };
    RagDocument d = {0};
    rag_read_csv(text, sizeof text - 1, &d);
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_code_blocks_carry_their_line(void **state) {
    (void)state;
    static const char text[] = "import os\n\n\ndef tide():\n    return 1\n\n    # still\n\n"
                               "def ebb():\n    return 2\n";
    static const Expected expected[] = {
        {RAG_BLOCK_CODE, 0, 1, "import os"},
        {RAG_BLOCK_CODE, 0, 4, "def tide():\n    return 1\n\n    # still"},
        {RAG_BLOCK_CODE, 0, 9, "def ebb():\n    return 2"},
    };
    RagDocument d = {0};
    rag_read_code("/x/tide.py", text, sizeof text - 1, &d);
    assert_string_equal(d.title, "tide.py (Python)");
    expect(&d, expected, BASE_COUNT(expected));
    FakeEmbedder fake = {0};
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks = {0};
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 16, &chunks, &err));
    assert_int_equal(chunks.items[chunks.count - 1].page, 9);
    rag_chunks_free(&chunks);
    rag_document_free(&d);
}

static void expect_docx_fails(const char *body, const char *why) {
    RagDocument d = {0};
    Error err = {0};
    assert_false(read_docx(body, &d, &err));
    if (!strstr(err.message, why)) fail_msg("'%s' says nothing of '%s'", err.message, why);
    assert_null(d.blocks);
}

static void test_xml_bombs_and_damage_are_refused(void **state) {
    (void)state;
    expect_docx_fails("<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]>" WORD P(
                          "&b;") "</w:body></w:document>",
                      "document type");
    expect_docx_fails(WORD P("cut"), "well-formed");
    StrBuf deep = {0};
    base_str_append(&deep, WORD);
    for (int i = 0; i < 100000; i++) base_str_append(&deep, "<w:x>");
    expect_docx_fails(deep.data, "too deep");
    base_str_free(&deep);
}

static void test_zip_bombs_are_not_unpacked(void **state) {
    (void)state;
    Zipped zip;
    zipped_begin(&zip);
    char zeros[4096];
    memset(zeros, ' ', sizeof zeros - 1);
    zeros[sizeof zeros - 1] = '\0';
    zipped_add(&zip, "word/media/image.bin", zeros, 8192); /* 32 MiB, left out yet counted */
    zipped_add(&zip, "word/document.xml", WORD "</w:body></w:document>", 1);
    RagDocument d = {0};
    Error err = {0};
    assert_false(read_zip("bomb.docx", &zip, &d, &err));
    assert_non_null(strstr(err.message, "zip bomb"));
}

static void test_a_zip_without_its_body_is_damaged(void **state) {
    (void)state;
    static const char *const names[] = {"a.docx", "a.odt", "a.epub"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        Zipped zip;
        zipped_begin(&zip);
        zipped_add(&zip, "other.xml", "<a/>", 1);
        RagDocument d = {0};
        Error err = {0};
        assert_false(read_zip(names[i], &zip, &d, &err));
        assert_non_null(strstr(err.message, "not in it"));
    }
    const char *reason = "";
    assert_int_equal(rag_format_detect("a.docx", "hello", 5, true, &reason), RAG_FORMAT_NONE);
    assert_string_equal(reason, "named .docx but not a Word document");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_docx_headings_lists_tables_and_pages),
        cmocka_unit_test(test_odt_headings_lists_and_spaces),
        cmocka_unit_test(test_epub_chapters_in_reading_order),
        cmocka_unit_test(test_csv_quotes_and_separators),
        cmocka_unit_test(test_code_blocks_carry_their_line),
        cmocka_unit_test(test_xml_bombs_and_damage_are_refused),
        cmocka_unit_test(test_zip_bombs_are_not_unpacked),
        cmocka_unit_test(test_a_zip_without_its_body_is_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
