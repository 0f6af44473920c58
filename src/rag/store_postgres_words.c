/* Words on a PostgreSQL server: the GIN index finds the chunks that hold all words of
 * a phrase, their places say how often the phrase stands in them, and BM25 is FTS5's:
 *
 *   score = sum over phrases of idf * f (k1 + 1) / (f + k1 (1 - b + b D / avgdl)),
 *   idf = ln((N - n + 0.5) / (n + 0.5)), at least 1e-6; k1 = 1.2, b = 0.75. */
#include <math.h>
#include <string.h>

#include "rag/store_postgres_internal.h"

enum { MAX_WORDS = 100 }; /* of one question; rag_terms_of gives 48 terms */

/* The different words of all phrases; argument $i + 1 is words[i]. */
typedef struct Question {
    char *words[MAX_WORDS];
    int n_words;
    int phrases[RAG_MAX_TERMS][MAX_WORDS]; /* words of each, in order */
    int lengths[RAG_MAX_TERMS], n_phrases;
} Question;

static void free_question(Question *q) {
    for (int i = 0; i < q->n_words; i++) free(q->words[i]);
}

static void take_word(void *context, const char *word, size_t length, int place) {
    Question *q = context;
    int *phrase = q->phrases[q->n_phrases], *count = &q->lengths[q->n_phrases], at = 0;
    (void)place;
    while (at < q->n_words &&
           (strlen(q->words[at]) != length || memcmp(q->words[at], word, length) != 0))
        at++;
    if (at == MAX_WORDS || *count == MAX_WORDS) return;
    if (at == q->n_words) q->words[q->n_words++] = base_strndup(word, length);
    phrase[(*count)++] = at;
}

static bool add_phrase(RagIndex *index, Question *q, const char *phrase, Error *err) {
    RagStemmer *stemmer = rag_postgres_stemmer(index, err);
    if (!stemmer || q->n_phrases == RAG_MAX_TERMS) return stemmer != NULL;
    rag_stemmer_run(stemmer, phrase, strlen(phrase), true, take_word, q);
    q->n_phrases++;
    return true;
}

/* words @> ARRAY[...] of one phrase; a phrase without words fits nowhere. */
static void append_holds(StrBuf *sql, const Question *q, int phrase) {
    if (!q->lengths[phrase]) {
        base_str_append(sql, "false");
        return;
    }
    base_str_append(sql, "words @> ARRAY[");
    for (int i = 0; i < q->lengths[phrase]; i++)
        base_str_appendf(sql, "%s$%d::text", i ? "," : "", q->phrases[phrase][i] + 1);
    base_str_append(sql, "]");
}

/* id, n_words, then the places of each word, for rows where `condition` holds. */
static PGresult *load_rows(RagIndex *index, const Question *q, const char *condition, Error *err) {
    StrBuf sql = {0};
    RagPgArguments a = {0};
    base_str_append(&sql, "SELECT id, n_words");
    for (int i = 0; i < q->n_words; i++) {
        rag_pg_add_text(&a, q->words[i]);
        base_str_appendf(&sql,
                         ", ARRAY(SELECT places[i] FROM unnest(array_positions(words, $%d::text))"
                         " AS i ORDER BY 1)",
                         i + 1);
    }
    base_str_appendf(&sql, " FROM mlxrag_chunks WHERE %s", condition);
    PGresult *r = rag_pg_query(index, sql.data, &a, "searching words", err);
    base_str_free(&sql);
    return r;
}

/* ---- places ----------------------------------------------------------------------- */

/* An int4[] as it came: element i, in ascending order. */
typedef struct Places {
    const unsigned char *bytes;
    int count;
} Places;

static int32_t big_endian(const unsigned char *b) {
    return (int32_t)((uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3]);
}

static Places places_of(const PGresult *r, int row, int word) {
    const unsigned char *bytes = (const unsigned char *)PQgetvalue(r, row, word + 2);
    int length = PQgetlength(r, row, word + 2);
    Places places = {.bytes = bytes + 20};
    if (length >= 20 && big_endian(bytes) == 1) places.count = (length - 20) / 8;
    return places;
}

static bool has_place(Places places, int32_t place) {
    int first = 0, end = places.count;
    while (first < end) {
        int middle = first + (end - first) / 2;
        int32_t at = big_endian(places.bytes + 8 * middle + 4);
        if (at == place) return true;
        if (at < place)
            first = middle + 1;
        else
            end = middle;
    }
    return false;
}

/* How often a phrase stands in a row. */
static int frequency(const PGresult *r, int row, const Question *q, int phrase) {
    if (!q->lengths[phrase]) return 0;
    Places first = places_of(r, row, q->phrases[phrase][0]);
    int count = 0;
    for (int i = 0; i < first.count; i++) {
        int32_t place = big_endian(first.bytes + 8 * i + 4);
        bool there = true;
        for (int w = 1; there && w < q->lengths[phrase]; w++)
            there = has_place(places_of(r, row, q->phrases[phrase][w]), place + w);
        count += there;
    }
    return count;
}

/* ---- counts ------------------------------------------------------------------------ */

bool rag_postgres_count_rows(RagIndex *index, const char *phrase, size_t most, size_t *rows,
                             Error *err) {
    Question *q = base_calloc(1, sizeof *q);
    StrBuf holds = {0};
    PGresult *r = NULL;
    *rows = 0;
    if (add_phrase(index, q, phrase, err)) {
        append_holds(&holds, q, 0);
        if (q->lengths[0] > 1) {
            r = load_rows(index, q, holds.data, err);
            for (int i = 0; r && i < PQntuples(r) && *rows < most; i++)
                *rows += frequency(r, i, q, 0) > 0;
        } else {
            RagPgArguments a = {0};
            if (q->n_words) rag_pg_add_text(&a, q->words[0]);
            char *sql = base_format("SELECT count(*) FROM (SELECT 1 FROM mlxrag_chunks WHERE %s"
                                    " LIMIT %lld) rows",
                                    holds.data, (long long)BASE_MIN(most, (size_t)INT64_MAX));
            r = rag_pg_query(index, sql, &a, "searching words", err);
            if (r) *rows = (size_t)rag_pg_int(r, 0, 0);
            free(sql);
        }
    }
    bool ok = r != NULL;
    PQclear(r);
    base_str_free(&holds);
    free_question(q);
    free(q);
    return ok;
}

/* ---- the best ----------------------------------------------------------------------- */

typedef struct Totals {
    double rows, average; /* words of a chunk */
} Totals;

static bool read_totals(RagIndex *index, Totals *totals, Error *err) {
    PGresult *r = rag_pg_query(index, "SELECT chunks, words FROM mlxrag_totals", NULL,
                               "searching words", err);
    if (!r) return false;
    totals->rows = (double)rag_pg_int(r, 0, 0);
    totals->average = totals->rows > 0 ? (double)rag_pg_int(r, 0, 1) / totals->rows : 1;
    PQclear(r);
    return true;
}

static double idf_of(double rows, double with) {
    double idf = log((rows - with + 0.5) / (with + 0.5));
    return idf <= 0 ? 1e-6 : idf;
}

static double bm25(const PGresult *r, int row, const Question *q, const double *idf,
                   double average) {
    const double k1 = 1.2, b = 0.75;
    double length = (double)rag_pg_int(r, row, 1), score = 0;
    for (int p = 0; p < q->n_phrases; p++) {
        double f = frequency(r, row, q, p);
        score += idf[p] * ((f * (k1 + 1.0)) / (f + k1 * (1 - b + b * length / average)));
    }
    return score;
}

static bool holds_any(const PGresult *r, int row, const Question *q) {
    for (int p = 0; p < q->n_phrases; p++)
        if (frequency(r, row, q, p)) return true;
    return false;
}

bool rag_postgres_match(RagIndex *index, const char *const *phrases, size_t n_phrases,
                        const RagFilter *filter, size_t capacity, RagScored *best, size_t *found,
                        Error *err) {
    *found = 0;
    Question *q = base_calloc(1, sizeof *q);
    StrBuf condition = {0};
    double idf[RAG_MAX_TERMS];
    Totals totals;
    bool ok = read_totals(index, &totals, err);
    for (size_t i = 0; ok && i < n_phrases; i++) {
        ok = add_phrase(index, q, phrases[i], err);
        if (i) base_str_append(&condition, " OR ");
        if (ok) append_holds(&condition, q, (int)i);
    }
    PGresult *r = ok && q->n_phrases ? load_rows(index, q, condition.data, err) : NULL;
    ok = ok && (r || !q->n_phrases);
    int n_rows = r ? PQntuples(r) : 0;
    for (int p = 0; p < q->n_phrases; p++) {
        int with = 0;
        for (int i = 0; i < n_rows; i++) with += frequency(r, i, q, p) > 0;
        idf[p] = idf_of(totals.rows, with);
    }
    RagBest top = {.items = best, .capacity = capacity};
    for (int i = 0; i < n_rows; i++) {
        int64_t id = rag_pg_int(r, i, 0);
        if (rag_filter_allows(filter, id) && holds_any(r, i, q))
            rag_best_push(&top, (RagScored){id, bm25(r, i, q, idf, totals.average)});
    }
    rag_scored_sort(best, top.count);
    *found = top.count;
    PQclear(r);
    base_str_free(&condition);
    free_question(q);
    free(q);
    return ok;
}
