/* Any bytes as a question: no FTS5 syntax error, and snippets, sentences and
 * overlaps stay in bounds. */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "rag/match.h"
#include "rag/sentences.h"
#include "rag/show.h"

static sqlite3_stmt *statement(void) {
    static sqlite3_stmt *match = NULL;
    if (match) return match;
    sqlite3 *db = NULL;
    Error err = {0};
    sqlite3_open(":memory:", &db);
    if (!rag_words_register(db, &err)) __builtin_trap();
    sqlite3_exec(db,
                 "CREATE VIRTUAL TABLE words USING fts5(text, tokenize='porter mlxrag'); INSERT "
                 "INTO words VALUES ('a b')",
                 0, 0, 0);
    if (sqlite3_prepare_v2(db, "SELECT rowid FROM words WHERE words MATCH ?1", -1, &match, NULL) !=
        SQLITE_OK)
        __builtin_trap();
    return match;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *query = base_strndup((const char *)data, size);
    size_t length = strlen(query);
    RagTerms terms = rag_terms_of(query);
    StrBuf expression = {0};
    for (size_t i = 0; i < terms.count; i++) {
        terms.items[i].idf = 1;
        if (i) base_str_append(&expression, " OR ");
        rag_fts_quote(&expression, terms.items[i].phrase);
    }
    if (expression.length) {
        sqlite3_stmt *s = statement();
        sqlite3_bind_text(s, 1, expression.data, (int)expression.length, SQLITE_STATIC);
        int rc = sqlite3_step(s);
        if (rc != SQLITE_ROW && rc != SQLITE_DONE) __builtin_trap();
        sqlite3_reset(s);
    }
    RagStems wanted = rag_stems_of_terms(&terms);
    double overlap = rag_overlap(&wanted, query, length, NULL);
    if (overlap < 0 || overlap > 1.000001) __builtin_trap();
    char *snippet = rag_snippet(&wanted, query, 60);
    if (strlen(snippet) > 60 || !base_utf8_valid(snippet, strlen(snippet))) __builtin_trap();
    for (size_t at = 0; at < length;) {
        size_t end = rag_sentence_end(query, length, at);
        if (end <= at || end > length) __builtin_trap();
        at = end;
    }
    free(snippet);
    rag_stems_free(&wanted);
    rag_terms_free(&terms);
    base_str_free(&expression);
    free(query);
    return 0;
}
