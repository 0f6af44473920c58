/* rag_word_next as a tokenizer of FTS5, so that the index, its integrity check
 * and its queries split text by one rule. Used below FTS5's porter stemmer. And what
 * BM25 needs to know of rows and of the whole. */
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

static fts5_api *api_of(sqlite3 *db) {
    fts5_api *api = NULL;
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(db, "SELECT fts5(?1)", -1, &statement, NULL) == SQLITE_OK) {
        sqlite3_bind_pointer(statement, 1, (void *)&api, "fts5_api_ptr", NULL);
        sqlite3_step(statement);
    }
    sqlite3_finalize(statement);
    return api;
}

/* ---- what a query may ask about its rows --------------------------------------- */

/* How often the first phrase of the query stands in the row. */
static void frequency(const Fts5ExtensionApi *api, Fts5Context *fts, sqlite3_context *result,
                      int count, sqlite3_value **arguments) {
    (void)count, (void)arguments;
    Fts5PhraseIter at;
    int column = -1, offset = 0;
    sqlite3_int64 times = 0;
    int rc = api->xPhraseFirst(fts, 0, &at, &column, &offset);
    for (; rc == SQLITE_OK && column >= 0; api->xPhraseNext(fts, &at, &column, &offset)) times++;
    if (rc == SQLITE_OK)
        sqlite3_result_int64(result, times);
    else
        sqlite3_result_error_code(result, rc);
}

/* Rows of the index. */
static void rows(const Fts5ExtensionApi *api, Fts5Context *fts, sqlite3_context *result, int count,
                 sqlite3_value **arguments) {
    (void)count, (void)arguments;
    sqlite3_int64 all = 0;
    int rc = api->xRowCount(fts, &all);
    if (rc == SQLITE_OK)
        sqlite3_result_int64(result, all);
    else
        sqlite3_result_error_code(result, rc);
}

/* Words of the index. */
static void tokens(const Fts5ExtensionApi *api, Fts5Context *fts, sqlite3_context *result,
                   int count, sqlite3_value **arguments) {
    (void)count, (void)arguments;
    sqlite3_int64 all = 0;
    int rc = api->xColumnTotalSize(fts, -1, &all);
    if (rc == SQLITE_OK)
        sqlite3_result_int64(result, all);
    else
        sqlite3_result_error_code(result, rc);
}

static const struct {
    const char *name;
    fts5_extension_function call;
} functions[] = {{"mlxrag_frequency", frequency}, {"mlxrag_rows", rows}, {"mlxrag_tokens", tokens}};

bool rag_words_register(struct sqlite3 *db, Error *err) {
    fts5_api *api = api_of(db);
    fts5_tokenizer tokenizer = {create, destroy, tokenize};
    bool ok = api && api->xCreateTokenizer(api, "mlxrag", NULL, &tokenizer, NULL) == SQLITE_OK;
    for (size_t i = 0; ok && i < BASE_COUNT(functions); i++)
        ok = api->xCreateFunction(api, functions[i].name, NULL, functions[i].call, NULL) ==
             SQLITE_OK;
    return ok || base_fail(err, ERROR_UNSUPPORTED, "this SQLite library has no FTS5");
}

/* ---- the same words without an index ---------------------------------------- */

struct RagStemmer {
    sqlite3 *db;
    fts5_tokenizer porter;
    Fts5Tokenizer *tokenizer;
};

RagStemmer *rag_stemmer_open(Error *err) {
    RagStemmer *stemmer = base_calloc(1, sizeof *stemmer);
    const char *base[] = {"mlxrag"};
    void *context = NULL;
    bool ok =
        sqlite3_open(":memory:", &stemmer->db) == SQLITE_OK && rag_words_register(stemmer->db, err);
    fts5_api *api = ok ? api_of(stemmer->db) : NULL;
    if (api && api->xFindTokenizer(api, "porter", &context, &stemmer->porter) == SQLITE_OK &&
        stemmer->porter.xCreate(context, base, 1, &stemmer->tokenizer) == SQLITE_OK)
        return stemmer;
    base_fail(err, ERROR_UNSUPPORTED, "this SQLite library has no FTS5");
    stemmer->tokenizer = NULL;
    rag_stemmer_close(stemmer);
    return NULL;
}

void rag_stemmer_close(RagStemmer *stemmer) {
    if (!stemmer) return;
    if (stemmer->tokenizer) stemmer->porter.xDelete(stemmer->tokenizer);
    sqlite3_close(stemmer->db);
    free(stemmer);
}

typedef struct Stems {
    RagOnStem on_stem;
    void *context;
    int places;
} Stems;

static int take_stem(void *context, int flags, const char *word, int length, int start, int end) {
    Stems *stems = context;
    (void)start, (void)end;
    if (!(flags & FTS5_TOKEN_COLOCATED)) stems->places++;
    stems->on_stem(stems->context, word, (size_t)length, BASE_MAX(stems->places - 1, 0));
    return SQLITE_OK;
}

int rag_stemmer_run(RagStemmer *stemmer, const char *text, size_t length, bool query,
                    RagOnStem on_stem, void *context) {
    Stems stems = {.on_stem = on_stem, .context = context};
    stemmer->porter.xTokenize(stemmer->tokenizer, &stems,
                              query ? FTS5_TOKENIZE_QUERY : FTS5_TOKENIZE_DOCUMENT, text,
                              (int)BASE_MIN(length, (size_t)INT32_MAX), take_stem);
    return stems.places;
}
