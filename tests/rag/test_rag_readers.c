/* Every reader on a small file of its format: which blocks come out, and what
 * is left out. Broken, encrypted and scanned files are told apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/document.h"
#include "rag/fake.h"
#include "rag/show.h"

static bool read_golden(const char *name, RagDocument *document, Error *err) {
    char *path = base_format(GOLDEN "/rag/%s", name), *bytes = NULL;
    size_t length = 0;
    const char *reason = "";
    assert_true(base_file_read(path, &bytes, &length, err));
    RagFormat format = rag_format_detect(path, bytes, length, true, &reason);
    bool ok = rag_document_read(path, format, bytes, length, document, err);
    free(bytes);
    free(path);
    return ok;
}

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

static void test_html_keeps_what_a_reader_sees(void **state) {
    (void)state;
    static const Expected expected[] = {
        {RAG_BLOCK_HEADING, 1, 0, "Keeping Bees"},
        {RAG_BLOCK_PARAGRAPH, 0, 0,
         "A hive holds one queen and up to 60 000 workers. They fly at 12 °C."},
        {RAG_BLOCK_HEADING, 2, 0, "Food"},
        {RAG_BLOCK_LIST_ITEM, 0, 0, "- Nectar"},
        {RAG_BLOCK_LIST_ITEM, 0, 0, "- Pollen, collected in baskets"},
        {RAG_BLOCK_TABLE_HEADER, 0, 0, "Month | Work"},
        {RAG_BLOCK_TABLE_ROW, 0, 0, "April | Add a super"},
        {RAG_BLOCK_TABLE_ROW, 0, 0, "July | Harvest"},
        {RAG_BLOCK_CODE, 0, 0, "for bee in hive:\n    bee.feed()"},
    };
    RagDocument d = {0};
    Error err = {0};
    assert_true(read_golden("page.html", &d, &err));
    assert_string_equal(d.title, "Keeping Bees");
    assert_string_equal(d.format, "html");
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_markdown_blocks(void **state) {
    (void)state;
    static const Expected expected[] = {
        {RAG_BLOCK_HEADING, 1, 0, "Ferry"},
        {RAG_BLOCK_PARAGRAPH, 0, 0,
         "The ferry runs every hour, see the timetable and a ship. Call user_id and "
         "snake_case_name."},
        {RAG_BLOCK_HEADING, 2, 0, "Prices"},
        {RAG_BLOCK_TABLE_HEADER, 0, 0, "Ticket | Price"},
        {RAG_BLOCK_TABLE_ROW, 0, 0, "Single | 3 €"},
        {RAG_BLOCK_TABLE_ROW, 0, 0, "Return | 5 €"},
        {RAG_BLOCK_LIST_ITEM, 0, 0, "1. Buy a ticket"},
        {RAG_BLOCK_LIST_ITEM, 0, 0, "2. Walk on board and wait"},
        {RAG_BLOCK_CODE, 0, 0, "int main(void) {\n    return 0;\n}"},
        {RAG_BLOCK_PARAGRAPH, 0, 0, "Quoted words here."},
    };
    RagDocument d = {0};
    Error err = {0};
    assert_true(read_golden("guide.md", &d, &err));
    assert_string_equal(d.title, "The Ferry Guide");
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_plain_text_underlined_and_numbered_headings(void **state) {
    (void)state;
    static const Expected expected[] = {
        {RAG_BLOCK_HEADING, 1, 0, "Lighthouse notes"},
        {RAG_BLOCK_PARAGRAPH, 0, 0, "The lamp turns once in ten seconds. It was\nbuilt in 1884."},
        {RAG_BLOCK_HEADING, 2, 0, "Keeper's duties"},
        {RAG_BLOCK_PARAGRAPH, 0, 0, "Clean the lens. Wind the clock."},
        {RAG_BLOCK_CODE, 0, 0, "    if dark:\n        light()"},
        {RAG_BLOCK_HEADING, 2, 0, "3.2 Fog signal"},
        {RAG_BLOCK_PARAGRAPH, 0, 0, "The horn sounds twice a minute."},
    };
    RagDocument d = {0};
    Error err = {0};
    assert_true(read_golden("notes.txt", &d, &err));
    assert_string_equal(d.title, "Lighthouse notes");
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_pdf_pages_without_running_heads(void **state) {
    (void)state;
    static const Expected expected[] = {
        {RAG_BLOCK_PARAGRAPH, 0, 1, "Bridge Keeping Manual"},
        {RAG_BLOCK_HEADING, 2, 2, "1.1 Opening the bridge"},
        {RAG_BLOCK_PARAGRAPH, 0, 2,
         "The keeper opens the bridge when a ship of more than nine metres height asks for it by "
         "radio on channel 18. "
         "The lights turn red two minutes before."},
        {RAG_BLOCK_HEADING, 2, 3, "1.2 Closing the bridge"},
        {RAG_BLOCK_PARAGRAPH, 0, 3, "Closing takes four minutes in calm weather."},
        {RAG_BLOCK_HEADING, 2, 4, "2.1 Log book"},
        {RAG_BLOCK_PARAGRAPH, 0, 4,
         "Every opening is written into the log book with the name of the ship."},
    };
    RagDocument d = {0};
    Error err = {0};
    assert_true(read_golden("bridge.pdf", &d, &err));
    assert_int_equal(d.n_pages, 4);
    assert_string_equal(d.title, "Bridge Keeping Manual");
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_pdf_text_joins_hyphenated_words_and_drops_contents_lines(void **state) {
    (void)state;
    static const char text[] = "Contents\n1 Ropes . . . . . . . 3\n\nA long rope is spli-\nced, a "
                               "three-\nStrand one is not.\n\f";
    static const Expected expected[] = {
        {RAG_BLOCK_PARAGRAPH, 0, 1, "Contents"},
        {RAG_BLOCK_PARAGRAPH, 0, 1, "A long rope is spliced, a three- Strand one is not."},
    };
    RagDocument d = {0};
    rag_read_pdf_text(text, sizeof text - 1, &d);
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_pdf_chapter_pages_and_running_feet(void **state) {
    (void)state;
    static const char text[] = "CHAPTER\n\nTWO\n\nTHE PIER\n\n2.1 Ropes\n\nRopes are "
                               "long.\n\n12\n\nChapter 2. The Pier\n\f"
                               "More of them.\n\nChapter 2. The Pier\n\n13\n\f";
    static const Expected expected[] = {
        {RAG_BLOCK_HEADING, 1, 1, "THE PIER"},
        {RAG_BLOCK_HEADING, 2, 1, "2.1 Ropes"},
        {RAG_BLOCK_PARAGRAPH, 0, 1, "Ropes are long."},
        {RAG_BLOCK_PARAGRAPH, 0, 2, "More of them."},
    };
    RagDocument d = {0};
    rag_read_pdf_text(text, sizeof text - 1, &d);
    expect(&d, expected, BASE_COUNT(expected));
    rag_document_free(&d);
}

static void test_scanned_pdf_says_so(void **state) {
    (void)state;
    RagDocument d = {0};
    Error err = {0};
    assert_true(read_golden("scanned.pdf", &d, &err));
    assert_int_equal(d.n_blocks, 0);
    assert_non_null(strstr(d.warning, "scanned"));
    rag_document_free(&d);
}

static void test_broken_and_encrypted_pdf_fail_with_a_reason(void **state) {
    (void)state;
    RagDocument d = {0};
    Error err = {0};
    assert_false(read_golden("broken.pdf", &d, &err));
    assert_non_null(strstr(err.message, "broken PDF"));
    assert_null(d.blocks);
    base_error_clear(&err);
    assert_false(read_golden("encrypted.pdf", &d, &err));
    assert_non_null(strstr(err.message, "password"));
}

static void test_formats_by_content_before_suffix(void **state) {
    (void)state;
    const char *reason;
    assert_int_equal(rag_format_detect("a.txt", "%PDF-1.4\n", 9, true, &reason), RAG_FORMAT_PDF);
    assert_int_equal(rag_format_detect("a.pdf", "hello", 5, true, &reason), RAG_FORMAT_NONE);
    assert_int_equal(rag_format_detect("README", "hello", 5, true, &reason), RAG_FORMAT_TEXT);
    assert_int_equal(rag_format_detect("page", " <!DOCTYPE HTML>", 16, true, &reason),
                     RAG_FORMAT_HTML);
    assert_int_equal(rag_format_detect("x.MD", "# a", 3, true, &reason), RAG_FORMAT_MARKDOWN);
    assert_int_equal(rag_format_detect("x.css", "p {}", 4, true, &reason), RAG_FORMAT_NONE);
    assert_int_equal(rag_format_detect("x.css", "p {}", 4, false, &reason), RAG_FORMAT_TEXT);
    assert_int_equal(rag_format_detect("x.txt", "a\0b", 3, false, &reason), RAG_FORMAT_NONE);
    assert_int_equal(rag_format_detect("x.txt", "", 0, false, &reason), RAG_FORMAT_NONE);
    assert_string_equal(reason, "empty file");
}

static void expect_decoded(const char *bytes, size_t length, const char *expected) {
    char *text = NULL;
    size_t size = 0;
    assert_true(rag_text_decode(bytes, length, &text, &size));
    assert_string_equal(text, expected);
    assert_int_equal(size, strlen(expected));
    free(text);
}

static void test_text_encodings(void **state) {
    (void)state;
    expect_decoded("\xEF\xBB\xBFna\xC3\xAFve", 9, "naïve");
    expect_decoded("na\xEFve \x93quoted\x94 5 \x80", 18, "naïve “quoted” 5 €");
    expect_decoded("\xFF\xFEh\0\xE9\0=\xD8\0\xDE", 10, "hé😀");
    expect_decoded("\xFE\xFF\0h\0i", 6, "hi");
    char *text = NULL;
    size_t size = 0;
    assert_false(rag_text_decode("a\0b", 3, &text, &size));
}

static void test_controls_and_invisible_characters_do_not_get_in(void **state) {
    (void)state;
    char *clean = rag_clean("a\x1b[31mred\x07 \xE2\x80\xAE"
                            "evil\xE2\x80\xAC \xE2\x80\x8Bz\xF3\xA0\x81\x81\xC2\x9B!\r\nnext\xFF");
    assert_string_equal(clean, "a[31mred evil z!\nnext\xEF\xBF\xBD");
    free(clean);
    clean = rag_clean(
        "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x94\xA7"); /* an emoji of two keeps its joiner */
    assert_string_equal(clean, "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x94\xA7");
    free(clean);
}

static void test_deeply_nested_html_is_read(void **state) {
    (void)state;
    StrBuf html = {0};
    for (int i = 0; i < 20000; i++) base_str_append(&html, "<div><table><tr><td><b>");
    base_str_append(&html, "words at the bottom");
    RagDocument d = {0};
    Error err = {0};
    bool ok = rag_read_html(html.data, html.length, &d, &err);
    assert_true(ok || err.code == ERROR_INPUT);
    rag_document_free(&d);
    base_str_free(&html);
}

static void test_numbered_headings(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int level;
    } cases[] = {
        {"3.2.1 Building packages", 3},
        {"3.2. Source packages", 2},
        {"Chapter 4: Sources", 1},
        {"12 Debian changelogs", 1},
        {"3.2 ends like a sentence.", 0},
        {"2. Walk on board", 0},
        {"4.1 Names . . . . . 17", 0},
        {"1984 was a year", 0},
        {"3.5 lower case", 0},
        {"6 Sep 2003 17:15:03 -0500", 0},
        {"", 0},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++)
        assert_int_equal(rag_numbered_heading(cases[i].line, strlen(cases[i].line)),
                         cases[i].level);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_html_keeps_what_a_reader_sees),
        cmocka_unit_test(test_markdown_blocks),
        cmocka_unit_test(test_plain_text_underlined_and_numbered_headings),
        cmocka_unit_test(test_pdf_pages_without_running_heads),
        cmocka_unit_test(test_pdf_text_joins_hyphenated_words_and_drops_contents_lines),
        cmocka_unit_test(test_pdf_chapter_pages_and_running_feet),
        cmocka_unit_test(test_scanned_pdf_says_so),
        cmocka_unit_test(test_broken_and_encrypted_pdf_fail_with_a_reason),
        cmocka_unit_test(test_formats_by_content_before_suffix),
        cmocka_unit_test(test_text_encodings),
        cmocka_unit_test(test_controls_and_invisible_characters_do_not_get_in),
        cmocka_unit_test(test_deeply_nested_html_is_read),
        cmocka_unit_test(test_numbered_headings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
