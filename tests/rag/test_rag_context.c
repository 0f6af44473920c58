/* What surrounds a passage and a question: sections, near-duplicates, questions in
 * other words, and sentences that nothing supports. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/fake.h"

static FakeEmbedder fake;
static FakeGenerator voice;
static RagEmbedder embedder;
static RagGenerator generator;
static RagIndex *store;
static char *folder, *docs, *db;

#define HARBOUR "The harbour lies east of the town and has four basins for boats of any size."
#define LIGHTS "Its lighthouse burns all night and shows a red light towards the reef."
#define DEPTH "Ships of nine metres draught may enter the harbour only at high water."

static int setup(void **state) {
    (void)state;
    fake = (FakeEmbedder){0};
    voice = (FakeGenerator){0};
    embedder = fake_embedder(&fake);
    generator = fake_generator(&voice);
    folder = fake_folder();
    docs = base_path_join(folder, "docs");
    db = base_path_join(folder, "index.db");
    mkdir(docs, 0755);
    fake_write(
        docs, "town.md",
        "# Town\n\n## Harbour\n\n" HARBOUR "\n\n" LIGHTS "\n\n" DEPTH
        "\n\n## Market\n\nBread and cheese are sold on the square every Saturday morning.\n");
    fake_write(docs, "copy.txt", "The market sells bread, and cheese too, on Sunday evening.");
    fake_write(docs, "copy2.txt", "The market sells bread and cheese, too, on Sunday evening!");
    Error err = {0};
    store = rag_index_open(db, RAG_CREATE, &embedder, &err);
    RagIngestReport report;
    const char *paths[] = {docs};
    RagIngestOptions options = {.chunk_tokens = 32}; /* a paragraph each */
    if (!rag_ingest(store, &embedder, paths, 1, &options, &report, &err))
        fail_msg("%s", err.message);
    rag_ingest_report_free(&report);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    rag_index_close(store);
    fake_remove(folder);
    free(docs);
    free(db);
    free(voice.ids);
    return 0;
}

static RagSearch search(const char *query, RagSearchOptions options) {
    Error err = {0};
    RagSearch found;
    if (!rag_search(store, &embedder, query, &options, &found, &err)) fail_msg("%s", err.message);
    return found;
}

static void test_a_passage_grows_to_its_section_and_no_further(void **state) {
    (void)state;
    RagSearch found = search("red light of the lighthouse", (RagSearchOptions){.top_k = 1});
    assert_string_equal(found.hits[0].text, LIGHTS);
    assert_int_equal(found.hits[0].n_chunks, 1);
    rag_search_free(&found);
    found = search("red light of the lighthouse",
                   (RagSearchOptions){.top_k = 1, .section_bytes = 100000});
    assert_string_equal(found.hits[0].text,
                        "Town\n\nHarbour\n\n" HARBOUR "\n\n" LIGHTS "\n\n" DEPTH);
    assert_int_equal(found.hits[0].n_chunks, 3);
    assert_int_equal(found.hits[0].end - found.hits[0].start, strlen(found.hits[0].text));
    rag_search_free(&found);
    /* What follows comes before what precedes. */
    found = search("red light of the lighthouse",
                   (RagSearchOptions){.top_k = 1, .section_bytes = strlen(LIGHTS DEPTH) + 4});
    assert_string_equal(found.hits[0].text, LIGHTS "\n\n" DEPTH);
    rag_search_free(&found);
}

static void test_passages_of_one_section_become_one(void **state) {
    (void)state;
    const char *query = "harbour lighthouse ships water bread";
    RagSearch apart = search(query, (RagSearchOptions){.top_k = 3});
    size_t of_town = 0;
    for (size_t i = 0; i < apart.n_hits; i++)
        of_town += strcmp(apart.hits[i].heading, "Town > Harbour") == 0;
    assert_true(of_town > 1);
    RagSearch grown = search(query, (RagSearchOptions){.top_k = 3, .section_bytes = 100000});
    assert_int_equal(grown.n_hits, 3); /* others take the places of those that were joined */
    for (size_t i = 0; i < grown.n_hits; i++)
        for (size_t k = 0; k < i; k++)
            assert_true(strcmp(grown.hits[i].document, grown.hits[k].document) != 0 ||
                        grown.hits[i].start >= grown.hits[k].end ||
                        grown.hits[k].start >= grown.hits[i].end);
    rag_search_free(&apart);
    rag_search_free(&grown);
}

static void test_near_duplicates_are_shown_once_and_counted(void **state) {
    (void)state;
    RagSearch found = search("bread on Sunday evening", (RagSearchOptions){.top_k = 10});
    size_t copies = 0;
    for (size_t i = 0; i < found.n_hits; i++)
        copies += strstr(found.hits[i].document, "copy") != NULL;
    assert_int_equal(copies, 1);
    assert_int_equal(found.n_repeated, 1);
    rag_search_free(&found);
}

/* ---- other words --------------------------------------------------------------- */

static void expect_reworded(const char *says, const char *expected) {
    Error err = {0};
    voice.says = says;
    char *reworded = rag_reword(&generator, "and its depth?", NULL, 0, &err);
    assert_int_equal(err.code, ERROR_NONE);
    if (expected)
        assert_string_equal(reworded, expected);
    else
        assert_null(reworded);
    free(reworded);
}

static void test_only_the_question_is_taken_from_what_a_model_says(void **state) {
    (void)state;
    expect_reworded("harbour depth", "harbour depth");
    expect_reworded("\n Query: \"harbour depth\"\nThis query finds it.", "harbour depth");
    expect_reworded("<think>\nthe harbour?\n</think>\n\nharbour depth\n", "harbour depth");
    expect_reworded("<think>\nnever an end", NULL);
    expect_reworded("  \n", NULL);
}

static void test_a_follow_up_is_reworded_by_what_was_said(void **state) {
    (void)state;
    const RagTurn turns[] = {{"Where is the <|e|>harbour?", "East of the town."}};
    Error err = {0};
    voice.says = "How deep is the harbour?";
    char *reworded = rag_reword(&generator, "How deep is it?", turns, 1, &err);
    assert_string_equal(reworded, "How deep is the harbour?");
    free(reworded);
    StrBuf prompt = {0};
    size_t specials = 0;
    for (size_t i = 0; i < voice.count; i++) {
        specials += voice.ids[i] >= 1000;
        base_str_append_char(&prompt, (char)voice.ids[i]);
    }
    assert_int_equal(specials, 5); /* the template's; the turn's are text */
    assert_non_null(strstr(prompt.data, "Question: Where is the <|e|>harbour?\nAnswer: East of the "
                                        "town.\nLast question: How deep is it?"));
    base_str_free(&prompt);
}

static void test_other_words_find_what_the_question_does_not(void **state) {
    (void)state;
    RagSearchOptions options = {.top_k = 1, .mode = RAG_LEXICAL};
    RagSearch found = search("and what about it", options);
    assert_false(found.relevant);
    rag_search_free(&found);
    options.reworded = "ships of nine metres draught enter the harbour";
    found = search("and what about it", options);
    assert_true(found.relevant);
    assert_string_equal(found.hits[0].text, DEPTH);
    assert_string_equal(found.query, "and what about it");
    assert_string_equal(found.reworded, "ships of nine metres draught enter the harbour");
    rag_search_free(&found);
}

/* ---- support ------------------------------------------------------------------------- */

static RagAnswer ask(const char *says, RagSearch *found) {
    Error err = {0};
    RagAnswer answer;
    *found = search("When is bread sold on the square?", (RagSearchOptions){.top_k = 2});
    voice.says = says;
    if (!rag_answer(found, &embedder, &generator, &(RagAnswerOptions){.mark_unsupported = true},
                    &answer, &err))
        fail_msg("%s", err.message);
    return answer;
}

static void test_what_nothing_supports_is_marked(void **state) {
    (void)state;
    RagSearch found;
    RagAnswer answer =
        ask("Bread and cheese are sold every Saturday morning. The moon eats penguins.", &found);
    assert_string_equal(answer.text, "Bread and cheese are sold every Saturday morning. [1] "
                                     "The moon eats penguins. [unsupported]");
    assert_int_equal(answer.n_sentences, 2);
    assert_int_equal(answer.sentences[1].support, RAG_UNSUPPORTED);
    assert_int_equal(answer.sentences[1].source, 0);
    assert_int_equal(answer.n_unsupported, 1);
    rag_answer_free(&answer);
    rag_search_free(&found);
}

static void test_when_nothing_is_supported_the_passages_are_quoted(void **state) {
    (void)state;
    RagSearch found;
    RagAnswer answer = ask("The moon eats penguins.", &found);
    assert_int_equal(answer.kind, RAG_ANSWER_EXTRACTIVE);
    assert_null(strstr(answer.text, "moon"));
    rag_answer_free(&answer);
    rag_search_free(&found);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_passage_grows_to_its_section_and_no_further),
        T(test_passages_of_one_section_become_one),
        T(test_near_duplicates_are_shown_once_and_counted),
        T(test_only_the_question_is_taken_from_what_a_model_says),
        T(test_a_follow_up_is_reworded_by_what_was_said),
        T(test_other_words_find_what_the_question_does_not),
        T(test_what_nothing_supports_is_marked),
        T(test_when_nothing_is_supported_the_passages_are_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
