/* Ranking by words agrees with FTS5's own, and words alone say whether documents speak
 * of a question. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rag/fake.h"
#include "rag/store_sqlite.h"

enum { DOCUMENTS = 60, SENTENCES = 30 };

static const char *const vocabulary[] = {"boat",  "river", "stone", "market", "winter",
                                         "東京",  "user",  "c++",   "lamp",   "garden",
                                         "music", "paper", "horse", "copper", "signal"};
static char *folder, *path;
static FakeEmbedder fake;
static RagEmbedder embedder;

/* Word k stands about half as often as word k - 1, some right behind another. */
static int setup(void **state) {
    (void)state;
    uint64_t draw = 88172645463325252u;
    Error err = {0};
    folder = fake_folder();
    path = base_path_join(folder, "index.db");
    embedder = fake_embedder(&fake);
    char *documents = base_path_join(folder, "documents");
    mkdir(documents, 0700);
    for (int d = 0; d < DOCUMENTS; d++) {
        StrBuf text = {0};
        char name[32];
        for (int s = 0; s < SENTENCES; s++) {
            for (int w = 0; w < 5 + d % 7; w++) {
                draw ^= draw << 13, draw ^= draw >> 7, draw ^= draw << 17;
                size_t word = (size_t)__builtin_ctzll(draw | 1u << (BASE_COUNT(vocabulary) - 1));
                base_str_appendf(&text, "%s%s", vocabulary[word],
                                 (draw >> 40) % 5 == 0 ? "_" : " ");
            }
            base_str_append(&text, "end.\n\n");
        }
        snprintf(name, sizeof name, "d%02d.txt", d);
        fake_write(documents, name, text.data);
        base_str_free(&text);
    }
    RagIndex *index = rag_index_open(path, RAG_CREATE, &embedder, &err);
    RagIngestReport report;
    assert_non_null(index);
    assert_true(rag_ingest(index, &embedder, (const char *const *)&documents, 1,
                           &(RagIngestOptions){.chunk_tokens = 40}, &report, &err));
    assert_int_equal(report.added, DOCUMENTS);
    rag_ingest_report_free(&report);
    rag_index_close(index);
    free(documents);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(path);
    fake_remove(folder);
    return 0;
}

enum { MOST = 2000 };

/* What FTS5 itself ranks best, ties by id. */
static size_t rank_by_fts5(RagIndex *index, const char *const *phrases, size_t count,
                           RagScored best[MOST]) {
    Error err = {0};
    StrBuf expression = {0};
    for (size_t i = 0; i < count; i++)
        base_str_appendf(&expression, "%s\"%s\"", i ? " OR " : "", phrases[i]);
    sqlite3_stmt *s = rag_sqlite_prepare(
        index, "SELECT rowid, bm25(words) FROM words WHERE words MATCH ?1", &err);
    assert_non_null(s);
    sqlite3_bind_text(s, 1, expression.data, -1, SQLITE_STATIC);
    size_t found = 0;
    while (sqlite3_step(s) == SQLITE_ROW)
        best[found++] = (RagScored){sqlite3_column_int64(s, 0), -sqlite3_column_double(s, 1)};
    sqlite3_finalize(s);
    base_str_free(&expression);
    rag_scored_sort(best, found);
    return found;
}

static void test_the_best_by_words_are_those_of_fts5(void **state) {
    (void)state;
    static const char *const questions[][4] = {{"horse"},
                                               {"boat"},
                                               {"boat", "lamp"},
                                               {"copper", "garden", "signal"},
                                               {"boat river"},
                                               {"東 京", "horse"},
                                               {"c++", "user"},
                                               {"winter market", "stone"},
                                               {"horse", "nowhere"},
                                               {"nowhere"},
                                               {"boat", "river", "stone", "market"}};
    Error err = {0};
    RagIndex *index = rag_index_open(path, RAG_READ, &embedder, &err);
    assert_non_null(index);
    RagScored *wanted = base_calloc(MOST, sizeof *wanted), *got = base_calloc(MOST, sizeof *got);
    for (size_t q = 0; q < BASE_COUNT(questions); q++) {
        size_t count = 0;
        while (count < 4 && questions[q][count]) count++;
        size_t all = rank_by_fts5(index, questions[q], count, wanted);
        for (size_t capacity = 1; capacity <= 1000; capacity *= 10) {
            size_t found = 0;
            assert_true(index->storage->begin(index, &err));
            assert_true(index->storage->match(index, questions[q], count, &(RagFilter){0}, capacity,
                                              got, &found, &err));
            index->storage->end(index);
            assert_int_equal(found, BASE_MIN(all, capacity));
            for (size_t i = 0; i < found; i++) {
                assert_int_equal(got[i].chunk, wanted[i].chunk);
                assert_true(got[i].score == wanted[i].score);
            }
        }
    }
    free(wanted);
    free(got);
    rag_index_close(index);
}

static void test_a_filter_leaves_the_best_of_what_it_allows(void **state) {
    (void)state;
    const char *const phrases[] = {"market", "winter"};
    Error err = {0};
    RagIndex *index = rag_index_open(path, RAG_READ, &embedder, &err);
    assert_non_null(index);
    RagScored *wanted = base_calloc(MOST, sizeof *wanted), got[5];
    uint8_t allowed[MOST / 8];
    memset(allowed, 0x24, sizeof allowed);
    RagFilter filter = {allowed, MOST};
    size_t all = rank_by_fts5(index, phrases, 2, wanted), found = 0, k = 0;
    assert_true(index->storage->begin(index, &err));
    assert_true(index->storage->match(index, phrases, 2, &filter, 5, got, &found, &err));
    index->storage->end(index);
    assert_int_equal(found, 5);
    for (size_t i = 0; i < all && k < found; i++)
        if (rag_filter_allows(&filter, wanted[i].chunk))
            assert_int_equal(got[k++].chunk, wanted[i].chunk);
    assert_int_equal(k, 5);
    free(wanted);
    rag_index_close(index);
}

static void test_counting_stops_where_it_is_told_and_match_still_sees_all(void **state) {
    (void)state;
    const char *const phrases[] = {"market"};
    Error err = {0};
    RagIndex *index = rag_index_open(path, RAG_READ, &embedder, &err);
    assert_non_null(index);
    RagScored *wanted = base_calloc(MOST, sizeof *wanted), *got = base_calloc(MOST, sizeof *got);
    size_t all = rank_by_fts5(index, phrases, 1, wanted), rows = 0, found = 0;
    assert_true(all > 3);
    assert_true(index->storage->begin(index, &err));
    assert_true(index->storage->count_rows(index, "market", 3, &rows, &err));
    assert_int_equal(rows, 3);
    assert_true(index->storage->match(index, phrases, 1, &(RagFilter){0}, MOST, got, &found, &err));
    assert_int_equal(found, all);
    assert_true(index->storage->count_rows(index, "market", MOST, &rows, &err));
    assert_int_equal(rows, all);
    index->storage->end(index);
    free(wanted);
    free(got);
    rag_index_close(index);
}

/* Half of what a question's words weigh must stand in one passage. */
static void test_words_alone_say_whether_documents_speak_of_it(void **state) {
    (void)state;
    static const struct {
        const char *question;
        bool relevant;
    } rows[] = {{"Where is the stone of the river?", true},
                {"Which music is about boats and copper?", true},
                {"What is a horse?", true},
                {"Which vitamin is in carrots?", false},
                {"Who painted the lamp in the museum of Vienna?", false},
                {"What is the capital of the river?", false}};
    Error err = {0};
    RagIndex *index = rag_index_open(path, RAG_READ, NULL, &err);
    assert_non_null(index);
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        RagSearch found;
        assert_true(
            rag_search(index, NULL, rows[i].question, &(RagSearchOptions){0}, &found, &err));
        if (found.relevant != rows[i].relevant)
            fail_msg("%s: overlap %.3f", rows[i].question, found.best_overlap);
        rag_search_free(&found);
    }
    rag_index_close(index);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_best_by_words_are_those_of_fts5),
        cmocka_unit_test(test_a_filter_leaves_the_best_of_what_it_allows),
        cmocka_unit_test(test_counting_stops_where_it_is_told_and_match_still_sees_all),
        cmocka_unit_test(test_words_alone_say_whether_documents_speak_of_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
