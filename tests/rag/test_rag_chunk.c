/* Chunks: exact slices, bounded in tokens, cut where a reader would cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/chunk.h"
#include "rag/fake.h"
#include "rag/sentences.h"

static FakeEmbedder fake;

static size_t tokens_of(const char *text, size_t length) {
    size_t *ends = NULL, count = 0;
    fake_token_ends(NULL, text, length, &ends, &count, NULL);
    free(ends);
    return count;
}

/* What holds for every document. */
static void check(const RagDocument *d, const RagChunks *chunks, const RagEmbedder *embedder) {
    size_t last = 0;
    for (size_t i = 0; i < chunks->count; i++) {
        const RagChunk *chunk = &chunks->items[i];
        assert_true(chunk->start >= last && chunk->start < chunk->end &&
                    chunk->end <= d->text.length);
        for (size_t k = last; k < chunk->start; k++) /* only white space between chunks */
            assert_true(isspace((unsigned char)d->text.data[k]) ||
                        (unsigned char)d->text.data[k] >= 0x80);
        assert_true(base_utf8_valid(d->text.data + chunk->start, chunk->end - chunk->start));
        assert_true(base_utf8_valid(chunk->header, strlen(chunk->header)));
        StrBuf whole = {0};
        base_str_appendf(&whole, "%s\n", chunk->header);
        base_str_append_n(&whole, d->text.data + chunk->start, chunk->end - chunk->start);
        assert_true(tokens_of(whole.data, whole.length) + embedder->n_special <=
                    embedder->max_tokens);
        base_str_free(&whole);
        last = chunk->end;
    }
}

static void add(RagDocument *d, RagBlockKind kind, int level, const char *text) {
    rag_document_add(d, kind, level, 0, text, strlen(text));
}

static char *repeat(const char *text, size_t count) {
    StrBuf out = {0};
    for (size_t i = 0; i < count; i++) base_str_append(&out, text);
    return base_str_detach(&out);
}

static void test_sections_stay_apart_and_carry_their_headings(void **state) {
    (void)state;
    RagDocument d = {0};
    rag_document_set_title(&d, "Harbour", 7);
    char *body = repeat("Ships wait here. ", 20);
    add(&d, RAG_BLOCK_HEADING, 1, "Pier");
    add(&d, RAG_BLOCK_PARAGRAPH, 0, body);
    add(&d, RAG_BLOCK_HEADING, 2, "Crane");
    add(&d, RAG_BLOCK_PARAGRAPH, 0, body);
    add(&d, RAG_BLOCK_HEADING, 1, "Dock");
    add(&d, RAG_BLOCK_PARAGRAPH, 0, body);
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks;
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 0, &chunks, &err));
    check(&d, &chunks, &embedder);
    assert_int_equal(chunks.count, 3);
    assert_string_equal(chunks.items[0].header, "Harbour > Pier");
    assert_string_equal(chunks.items[1].header, "Harbour > Pier > Crane");
    assert_string_equal(chunks.items[1].heading, "Pier > Crane");
    assert_string_equal(chunks.items[2].header, "Harbour > Dock");
    assert_memory_equal(d.text.data + chunks.items[1].start, "Crane", 5);
    rag_chunks_free(&chunks);
    rag_document_free(&d);
    free(body);
}

static void test_a_chapter_of_another_number_is_not_above_a_section(void **state) {
    (void)state;
    RagDocument d = {0};
    char *body = repeat("Ships wait here. ", 20);
    add(&d, RAG_BLOCK_HEADING, 1, "2 Quays"); /* the end of a table of contents */
    add(&d, RAG_BLOCK_HEADING, 2, "1.1 Pier");
    add(&d, RAG_BLOCK_PARAGRAPH, 0, body);
    add(&d, RAG_BLOCK_HEADING, 3, "1.1.2 Crane");
    add(&d, RAG_BLOCK_PARAGRAPH, 0, body);
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks;
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 0, &chunks, &err));
    assert_int_equal(chunks.count, 2);
    assert_string_equal(chunks.items[0].heading, "1.1 Pier");
    assert_string_equal(chunks.items[1].heading, "1.1 Pier > 1.1.2 Crane");
    rag_chunks_free(&chunks);
    rag_document_free(&d);
    free(body);
}

static void test_small_sections_are_joined_and_headings_stay_with_their_text(void **state) {
    (void)state;
    RagDocument d = {0};
    for (int i = 0; i < 40; i++) {
        add(&d, RAG_BLOCK_HEADING, 3, "A small heading");
        add(&d, RAG_BLOCK_PARAGRAPH, 0, "One short line.");
    }
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks;
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 0, &chunks, &err));
    check(&d, &chunks, &embedder);
    assert_in_range(chunks.count, 3, 10);
    for (size_t i = 0; i < chunks.count; i++) {
        assert_memory_equal(d.text.data + chunks.items[i].start, "A small heading", 15);
        assert_memory_equal(d.text.data + chunks.items[i].end - 5, "line.", 5);
    }
    rag_chunks_free(&chunks);
    rag_document_free(&d);
}

static void test_long_paragraphs_are_cut_between_sentences(void **state) {
    (void)state;
    RagDocument d = {0};
    char *body = repeat("The keeper walks along the pier every evening. ", 100);
    add(&d, RAG_BLOCK_PARAGRAPH, 0, body);
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks;
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 100, &chunks, &err));
    check(&d, &chunks, &embedder);
    assert_true(chunks.count > 10);
    for (size_t i = 0; i < chunks.count; i++) {
        assert_memory_equal(d.text.data + chunks.items[i].start, "The keeper", 10);
        assert_true(chunks.items[i].n_tokens <= 100);
    }
    assert_int_equal(chunks.split_hard, 0);
    rag_chunks_free(&chunks);
    rag_document_free(&d);
    free(body);
}

static void test_a_word_without_end_is_cut_between_code_points(void **state) {
    (void)state;
    RagDocument d = {0};
    char *word = repeat("é", 9000), *cjk = repeat("東京", 3000);
    add(&d, RAG_BLOCK_PARAGRAPH, 0, word);
    add(&d, RAG_BLOCK_PARAGRAPH, 0, cjk);
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks;
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 0, &chunks, &err));
    check(&d, &chunks, &embedder);
    assert_true(chunks.split_hard > 0);
    rag_chunks_free(&chunks);
    rag_document_free(&d);
    free(word);
    free(cjk);
}

static void test_a_cut_table_repeats_its_head_row(void **state) {
    (void)state;
    RagDocument d = {0};
    rag_document_set_title(&d, "Tides", 5);
    add(&d, RAG_BLOCK_TABLE_HEADER, 0, "Day | High water | Low water");
    for (int i = 0; i < 80; i++)
        add(&d, RAG_BLOCK_TABLE_ROW, 0, "Monday | 4.12 m at noon | 0.31 m");
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks;
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 0, &chunks, &err));
    check(&d, &chunks, &embedder);
    assert_true(chunks.count > 2);
    assert_string_equal(chunks.items[0].header, "Tides");
    for (size_t i = 1; i < chunks.count; i++) {
        assert_string_equal(chunks.items[i].header, "Tides\nDay | High water | Low water");
        assert_memory_equal(d.text.data + chunks.items[i].start, "Monday", 6); /* whole rows */
        assert_memory_equal(d.text.data + chunks.items[i].end - 2, " m", 2);
    }
    rag_chunks_free(&chunks);
    rag_document_free(&d);
}

static void test_code_keeps_its_lines_and_indentation(void **state) {
    (void)state;
    RagDocument d = {0};
    char *code = repeat("    call(first, second);\n", 120);
    rag_document_add(&d, RAG_BLOCK_CODE, 0, 0, code, strlen(code));
    RagEmbedder embedder = fake_embedder(&fake);
    RagChunks chunks;
    Error err = {0};
    assert_true(rag_chunk_document(&d, &embedder, 0, &chunks, &err));
    check(&d, &chunks, &embedder);
    assert_true(chunks.count > 2);
    for (size_t i = 0; i < chunks.count; i++)
        assert_memory_equal(d.text.data + chunks.items[i].start, "    call", 8);
    rag_chunks_free(&chunks);
    rag_document_free(&d);
    free(code);
}

static void test_a_long_title_and_long_headings_leave_room_for_text(void **state) {
    (void)state;
    RagDocument d = {0};
    char *long_text = repeat("abcd ", 300), *body = repeat("Words of the body. ", 60);
    rag_document_set_title(&d, long_text, strlen(long_text));
    for (int level = 1; level <= 6; level++) add(&d, RAG_BLOCK_HEADING, level, long_text);
    add(&d, RAG_BLOCK_PARAGRAPH, 0, body);
    RagEmbedder embedder = fake_embedder(&fake);
    for (size_t max = 24; max <= 256; max += 58) {
        embedder.max_tokens = max;
        RagChunks chunks;
        Error err = {0};
        assert_true(rag_chunk_document(&d, &embedder, 0, &chunks, &err));
        check(&d, &chunks, &embedder);
        rag_chunks_free(&chunks);
    }
    rag_document_free(&d);
    free(long_text);
    free(body);
}

static void test_random_documents(void **state) {
    (void)state;
    uint32_t seed = 7;
    static const char *const pieces[] = {
        "word ", "東京タワー", "Sentence ends. ",           "\n",    "é", "x",
        "😀",     "  ",         "verylongwordwithoutanyend", "1.2.3 "};
    RagEmbedder embedder = fake_embedder(&fake);
    embedder.max_tokens = 40;
    for (int round = 0; round < 200; round++) {
        RagDocument d = {0};
        for (int b = 0; b < 12; b++) {
            StrBuf text = {0};
            seed = seed * 1664525 + 1013904223;
            size_t n = (seed >> 16) % 120;
            for (size_t i = 0; i < n; i++) {
                seed = seed * 1664525 + 1013904223;
                base_str_append(&text, pieces[(seed >> 16) % BASE_COUNT(pieces)]);
            }
            seed = seed * 1664525 + 1013904223;
            if (text.length)
                rag_document_add(&d, (RagBlockKind)((seed >> 16) % 6), (int)((seed >> 20) % 7), 0,
                                 text.data, text.length);
            base_str_free(&text);
        }
        RagChunks chunks;
        Error err = {0};
        assert_true(rag_chunk_document(&d, &embedder, round % 3 ? 30 : 0, &chunks, &err));
        check(&d, &chunks, &embedder);
        rag_chunks_free(&chunks);
        rag_document_free(&d);
    }
}

static void test_sentence_ends(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"It works. Really? ", "It works. ", "Really? "},
        {"See e.g. Smith et al. Then go.", "See e.g. Smith et al. Then go.", NULL},
        {"Version 1.2.3 is out. Good.", "Version 1.2.3 is out. ", "Good."},
        {"He said \"stop.\" Then left.", "He said \"stop.\" ", "Then left."},
        {"東京は高い。大阪も。", "東京は高い。", "大阪も。"},
        {"A title\n\nand text.", "A title\n\n", "and text."},
        {"J. R. Smith wrote it. Yes.", "J. R. Smith wrote it. ", "Yes."},
        {"Wait... what? No.", "Wait... what? ", "No."},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        size_t length = strlen(cases[i][0]), at = 0;
        for (size_t k = 1; k < 3 && cases[i][k]; k++) {
            size_t end = rag_sentence_end(cases[i][0], length, at);
            char *sentence = base_strndup(cases[i][0] + at, end - at);
            assert_string_equal(sentence, cases[i][k]);
            free(sentence);
            at = end;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections_stay_apart_and_carry_their_headings),
        cmocka_unit_test(test_a_chapter_of_another_number_is_not_above_a_section),
        cmocka_unit_test(test_small_sections_are_joined_and_headings_stay_with_their_text),
        cmocka_unit_test(test_long_paragraphs_are_cut_between_sentences),
        cmocka_unit_test(test_a_word_without_end_is_cut_between_code_points),
        cmocka_unit_test(test_a_cut_table_repeats_its_head_row),
        cmocka_unit_test(test_code_keeps_its_lines_and_indentation),
        cmocka_unit_test(test_a_long_title_and_long_headings_leave_room_for_text),
        cmocka_unit_test(test_random_documents),
        cmocka_unit_test(test_sentence_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
