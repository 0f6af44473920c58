/* rag_word_next as a tokenizer of FTS5, so that the index, its integrity check
 * and its queries split text by one rule. Used below FTS5's porter stemmer. */
#include <sqlite3.h>

#include "rag/words.h"

static int create(void *context, const char **arguments, int count, Fts5Tokenizer **out) {
    (void)context, (void)arguments, (void)count;
    *out = (Fts5Tokenizer *)out; /* no state; any pointer but NULL */
    return SQLITE_OK;
}

static void destroy(Fts5Tokenizer *tokenizer) {
    (void)tokenizer;
}

/* "c++" is indexed as itself at the place of "c"; a query for it means only it. */
static int tokenize(Fts5Tokenizer *tokenizer, void *context, int flags, const char *text,
                    int length, int (*token)(void *, int, const char *, int, int, int)) {
    (void)tokenizer;
    RagWord word;
    size_t position = 0;
    int rc = SQLITE_OK;
    while (rc == SQLITE_OK && length > 0 && rag_word_next(text, (size_t)length, &position, &word)) {
        int start = (int)word.start, end = (int)word.end;
        bool query = (flags & FTS5_TOKENIZE_QUERY) != 0;
        if (word.symbol_tail && !query) {
            size_t stem = word.length;
            while (stem && (word.folded[stem - 1] == '+' || word.folded[stem - 1] == '#')) stem--;
            rc = token(context, 0, word.folded, (int)stem, start, end);
            if (rc == SQLITE_OK)
                rc =
                    token(context, FTS5_TOKEN_COLOCATED, word.folded, (int)word.length, start, end);
        } else {
            rc = token(context, 0, word.folded, (int)word.length, start, end);
        }
    }
    return rc;
}

bool rag_words_register(struct sqlite3 *db, Error *err) {
    fts5_api *api = NULL;
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(db, "SELECT fts5(?1)", -1, &statement, NULL) == SQLITE_OK) {
        sqlite3_bind_pointer(statement, 1, (void *)&api, "fts5_api_ptr", NULL);
        sqlite3_step(statement);
    }
    sqlite3_finalize(statement);
    fts5_tokenizer tokenizer = {create, destroy, tokenize};
    if (!api || api->xCreateTokenizer(api, "mlxrag", NULL, &tokenizer, NULL) != SQLITE_OK)
        return base_fail(err, ERROR_UNSUPPORTED, "this SQLite library has no FTS5");
    return true;
}
