/* Words, terms, and queries that FTS5 must accept whatever a person types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <sqlite3.h>

#include <cmocka.h>

#include "rag/fake.h"
#include "rag/match.h"
#include "rag/words.h"

static void expect_words(const char *text, const char *expected) {
    StrBuf out = {0};
    RagWord word;
    size_t position = 0;
    while (rag_word_next(text, strlen(text), &position, &word)) {
        if (out.length) base_str_append_char(&out, ' ');
        base_str_append_n(&out, word.folded, word.length);
    }
    assert_string_equal(out.data ? out.data : "", expected);
    base_str_free(&out);
}

static void test_words(void **state) {
    (void)state;
    expect_words("Hello, World!", "hello world");
    expect_words("Café ﬁnd ＡＢＣ Straße", "cafe find abc strasse");
    expect_words("user_id v1.2.3", "user id v1 2 3");
    expect_words("C++ and C#, g++.", "c++ and c# g++");
    expect_words("the user's don't l'homme", "the users dont l homme");
    expect_words("東京タワー is 高い", "東 京 タ ワ ー is 高 い");
    expect_words("한국어 abc漢字", "한 국 어 abc 漢 字");
    expect_words(" --- ''' ", "");
}

static void expect_terms(const char *query, const char *expected) {
    RagTerms terms = rag_terms_of(query);
    StrBuf out = {0};
    for (size_t i = 0; i < terms.count; i++)
        base_str_appendf(&out, "%s%s", i ? "," : "", terms.items[i].phrase);
    assert_string_equal(out.data ? out.data : "", expected);
    base_str_free(&out);
    rag_terms_free(&terms);
}

static void test_terms_of_questions(void **state) {
    (void)state;
    expect_terms("What is the user_id in v1.2.3?", "user id,v1 2 3");
    expect_terms("who are you", "who,are,you"); /* nothing else to ask for */
    expect_terms("東京タワー", "東 京,京 タ,タ ワ,ワ ー");
    expect_terms("高", "高");
    expect_terms("built-in C++ C++", "built in,c++");
    expect_terms("", "");
    expect_terms("\"quoted\" AND OR NEAR(a)", "quoted,near");
}

static sqlite3 *open_words(void) {
    sqlite3 *db = NULL;
    Error err = {0};
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_true(rag_words_register(db, &err));
    assert_int_equal(
        sqlite3_exec(db, "CREATE VIRTUAL TABLE words USING fts5(text, tokenize='porter mlxrag')", 0,
                     0, 0),
        SQLITE_OK);
    return db;
}

/* Rows that hold the phrase; -1 for a syntax error. */
static int rows_of(sqlite3 *db, const char *phrase) {
    StrBuf quoted = {0};
    rag_fts_quote(&quoted, phrase);
    sqlite3_stmt *s = NULL;
    sqlite3_prepare_v2(db, "SELECT count(*) FROM words WHERE words MATCH ?1", -1, &s, NULL);
    sqlite3_bind_text(s, 1, quoted.data, (int)quoted.length, SQLITE_STATIC);
    int rows = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int(s, 0) : -1;
    sqlite3_finalize(s);
    base_str_free(&quoted);
    return rows;
}

static int rows_of_query(sqlite3 *db, const char *query) {
    RagTerms terms = rag_terms_of(query);
    int most = 0;
    for (size_t i = 0; i < terms.count; i++) {
        int rows = rows_of(db, terms.items[i].phrase);
        if (rows < 0) most = -1000;
        most += rows;
    }
    rag_terms_free(&terms);
    return most;
}

static void test_awkward_names_are_found(void **state) {
    (void)state;
    sqlite3 *db = open_words();
    const char *rows[] = {"Use C++ here",         "plain C code",     "set user_id first",
                          "release v1.2.3 today", "東京タワーは高い", "Café au lait",
                          "signed packages"};
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        char *sql = sqlite3_mprintf("INSERT INTO words VALUES (%Q)", rows[i]);
        assert_int_equal(sqlite3_exec(db, sql, 0, 0, 0), SQLITE_OK);
        sqlite3_free(sql);
    }
    assert_int_equal(rows_of_query(db, "C++"), 1);
    assert_int_equal(rows_of_query(db, "C"), 2);
    assert_int_equal(rows_of_query(db, "user_id"), 1);
    assert_int_equal(rows_of_query(db, "v1.2.3"), 1);
    assert_int_equal(rows_of_query(db, "v1.2.4"), 0);
    assert_int_equal(rows_of_query(db, "東京"), 1);
    assert_int_equal(rows_of_query(db, "高"), 1);
    assert_int_equal(rows_of_query(db, "京東"), 0);
    assert_int_equal(rows_of_query(db, "cafe"), 1);
    assert_int_equal(rows_of_query(db, "package signing"), 2);
    sqlite3_close(db);
}

static void test_no_text_is_a_syntax_error(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "\"", "'", "*",  "(",  ")",    "AND",  "OR", "NOT",          "NEAR", "^", ":", "-",
        "+",  "a", "b1", " ",  "\xFF", "\xC3", "é",  "東",           "\n",   "{", "}", "col:",
        "?",  ".", ",",  "\\", "#",    "++",   "%",  "\xE2\x80\xAE", "½",    "ﷺ"};
    sqlite3 *db = open_words();
    assert_int_equal(sqlite3_exec(db, "INSERT INTO words VALUES ('a b1 é 東')", 0, 0, 0),
                     SQLITE_OK);
    sqlite3_stmt *s = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT rowid FROM words WHERE words MATCH ?1 LIMIT 1",
                                        -1, &s, NULL),
                     SQLITE_OK);
    uint32_t seed = 1;
    for (int round = 0; round < 100000; round++) {
        char query[64];
        size_t length = 0;
        seed = seed * 1664525 + 1013904223;
        size_t n = (seed >> 16) % 10;
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525 + 1013904223;
            const char *piece = pieces[(seed >> 16) % BASE_COUNT(pieces)];
            memcpy(query + length, piece, strlen(piece));
            length += strlen(piece);
        }
        query[length] = '\0';
        RagTerms terms = rag_terms_of(query);
        StrBuf expression = {0};
        for (size_t i = 0; i < terms.count; i++) {
            if (i) base_str_append(&expression, " OR ");
            rag_fts_quote(&expression, terms.items[i].phrase);
        }
        if (expression.length) {
            sqlite3_bind_text(s, 1, expression.data, (int)expression.length, SQLITE_STATIC);
            int rc = sqlite3_step(s);
            if (rc != SQLITE_ROW && rc != SQLITE_DONE)
                fail_msg("'%s' -> %s: %s", query, expression.data, sqlite3_errmsg(db));
            sqlite3_reset(s);
        }
        base_str_free(&expression);
        rag_terms_free(&terms);
    }
    sqlite3_finalize(s);
    sqlite3_close(db);
}

static void test_overlap_knows_inflections_and_missing_numbers(void **state) {
    (void)state;
    RagStems wanted = rag_stems_of("Packages were signed by 12 maintainers", 38);
    bool missing = false;
    const char *text = "A maintainer signs the package with 12 keys.";
    assert_true(rag_overlap(&wanted, text, strlen(text), &missing) > 0.99);
    assert_false(missing);
    text = "A maintainer signs the package with 13 keys.";
    assert_true(rag_overlap(&wanted, text, strlen(text), &missing) < 0.8);
    assert_true(missing);
    rag_stems_free(&wanted);
}

static void test_snippet_shows_the_words(void **state) {
    (void)state;
    StrBuf text = {0};
    for (int i = 0; i < 100; i++) base_str_append(&text, "filler wörds that say nothing at all, ");
    base_str_append(&text, "the golden key lies here, ");
    for (int i = 0; i < 100; i++) base_str_append(&text, "filler wörds that say nothing at all, ");
    RagStems wanted = rag_stems_of("golden keys", 11);
    char *snippet = rag_snippet(&wanted, text.data, 120);
    assert_non_null(strstr(snippet, "golden key"));
    assert_true(strlen(snippet) <= 120);
    assert_true(base_utf8_valid(snippet, strlen(snippet)));
    free(snippet);
    rag_stems_free(&wanted);
    base_str_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_terms_of_questions),
        cmocka_unit_test(test_awkward_names_are_found),
        cmocka_unit_test(test_no_text_is_a_syntax_error),
        cmocka_unit_test(test_overlap_knows_inflections_and_missing_numbers),
        cmocka_unit_test(test_snippet_shows_the_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
