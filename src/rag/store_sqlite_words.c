/* Words of an index file: FTS5 finds the chunks that hold a phrase, and BM25 is
 * computed here as FTS5 does it:
 *
 *   score = sum over phrases of idf * f (k1 + 1) / (f + k1 (1 - b + b D / avgdl)),
 *   idf = ln((N - n + 0.5) / (n + 0.5)), at least 1e-6; k1 = 1.2, b = 0.75.
 *
 * FTS5's own ranking reads every posting a second time for the counts, looks up the
 * length D of every row in a table, and sorts all of them. Here the postings that were
 * read to count a phrase are kept until the search ends, and D is looked up only where
 * the row could still come among the best if it were as short as can be. */
#include <math.h>
#include <string.h>

#include "rag/store_sqlite.h"
#include "rag/words.h"

#define K1 1.2
#define B 0.75

typedef struct Posting {
    int64_t chunk;
    int64_t frequency; /* of the phrase in it */
} Posting;

/* The chunks that hold a phrase, in the order of their ids. */
typedef struct Phrase {
    char *text;
    Posting *postings;
    size_t count, capacity;
    bool whole; /* all of them were read */
    size_t at;  /* of the merge */
    double idf;
} Phrase;

struct RagPhrases {
    Phrase **items;
    size_t count, capacity;
};

void rag_sqlite_forget_words(RagIndex *index) {
    RagPhrases *phrases = index->sqlite->phrases;
    for (size_t i = 0; phrases && i < phrases->count; i++)
        free(phrases->items[i]->text), free(phrases->items[i]->postings), free(phrases->items[i]);
    if (phrases) free(phrases->items);
    free(phrases);
    index->sqlite->phrases = NULL;
}

/* ---- postings ---------------------------------------------------------------- */

/* A query of one parameter, the phrase. NULL on failure. */
static sqlite3_stmt *prepare_phrase(RagIndex *index, const char *sql, const char *phrase,
                                    Error *err) {
    sqlite3_stmt *s = rag_sqlite_prepare(index, sql, err);
    StrBuf quoted = {0};
    rag_fts_quote(&quoted, phrase);
    if (s) sqlite3_bind_text(s, 1, quoted.data, (int)quoted.length, SQLITE_TRANSIENT);
    base_str_free(&quoted);
    return s;
}

/* At most `most` of them. */
static bool read_postings(RagIndex *index, Phrase *phrase, size_t most, Error *err) {
    sqlite3_stmt *s = prepare_phrase(
        index, "SELECT rowid, mlxrag_frequency(words) FROM words WHERE words MATCH ?1",
        phrase->text, err);
    if (!s) return false;
    int rc = SQLITE_ROW;
    phrase->count = 0;
    while (phrase->count < most && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        phrase->postings = base_grow(phrase->postings, &phrase->capacity, phrase->count + 1,
                                     sizeof *phrase->postings);
        phrase->postings[phrase->count++] =
            (Posting){sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1)};
    }
    bool ok =
        rc == SQLITE_ROW || rc == SQLITE_DONE || rag_sqlite_fail(index, err, "searching words");
    phrase->whole = rc == SQLITE_DONE;
    sqlite3_finalize(s);
    return ok;
}

/* The phrase with its postings, all of them or at least `most`. NULL on failure. */
static Phrase *find_phrase(RagIndex *index, const char *text, size_t most, Error *err) {
    RagPhrases *all = index->sqlite->phrases;
    if (!all) all = index->sqlite->phrases = base_calloc(1, sizeof *all);
    Phrase *phrase = NULL;
    for (size_t i = 0; i < all->count && !phrase; i++)
        if (strcmp(all->items[i]->text, text) == 0) phrase = all->items[i];
    if (phrase && (phrase->whole || phrase->count >= most)) return phrase;
    if (!phrase) {
        all->items = base_grow(all->items, &all->capacity, all->count + 1, sizeof *all->items);
        phrase = all->items[all->count++] = base_calloc(1, sizeof *phrase);
        phrase->text = base_strdup(text);
    }
    return read_postings(index, phrase, most, err) ? phrase : NULL;
}

bool rag_sqlite_count_rows(RagIndex *index, const char *phrase, size_t most, size_t *rows,
                           Error *err) {
    const Phrase *found = find_phrase(index, phrase, most, err);
    if (found) *rows = BASE_MIN(found->count, most);
    return found != NULL;
}

/* ---- the best ---------------------------------------------------------------- */

typedef struct Ranking {
    RagIndex *index;
    Phrase **phrases;
    size_t n_phrases;
    double rows, average;  /* chunks, and words of one */
    sqlite3_stmt *lengths; /* of one chunk */
    int64_t *frequencies;  /* [n_phrases], of the chunk at hand */
} Ranking;

/* phrase: one that stands somewhere. */
static bool read_totals(Ranking *r, const char *phrase, Error *err) {
    sqlite3_stmt *s = prepare_phrase(
        r->index,
        "SELECT mlxrag_rows(words), mlxrag_tokens(words) FROM words WHERE words MATCH ?1 LIMIT 1",
        phrase, err);
    if (!s) return false;
    bool ok = sqlite3_step(s) == SQLITE_ROW || rag_sqlite_fail(r->index, err, "searching words");
    r->rows = ok ? sqlite3_column_double(s, 0) : 0;
    r->average = r->rows > 0 ? sqlite3_column_double(s, 1) / r->rows : 1;
    sqlite3_finalize(s);
    return ok;
}

/* The postings of all phrases and their weights. */
static bool open_ranking(Ranking *r, const char *const *phrases, Error *err) {
    const char *somewhere = NULL;
    for (size_t i = 0; i < r->n_phrases; i++) {
        r->phrases[i] = find_phrase(r->index, phrases[i], SIZE_MAX, err);
        if (!r->phrases[i]) return false;
        r->phrases[i]->at = 0;
        if (r->phrases[i]->count) somewhere = phrases[i];
    }
    if (somewhere && !read_totals(r, somewhere, err)) return false;
    for (size_t i = 0; i < r->n_phrases; i++) {
        double with = (double)r->phrases[i]->count;
        double idf = log((r->rows - with + 0.5) / (with + 0.5));
        r->phrases[i]->idf = idf <= 0 ? 1e-6 : idf;
    }
    r->lengths = rag_sqlite_prepare(r->index, "SELECT sz FROM words_docsize WHERE id = ?1", err);
    return r->lengths != NULL;
}

/* FTS5 keeps the number of words of each column of a row as one varint. */
static bool read_length(const Ranking *r, int64_t chunk, double *length, Error *err) {
    sqlite3_bind_int64(r->lengths, 1, chunk);
    bool ok = sqlite3_step(r->lengths) == SQLITE_ROW;
    const unsigned char *bytes = ok ? sqlite3_column_blob(r->lengths, 0) : NULL;
    int size = bytes ? sqlite3_column_bytes(r->lengths, 0) : 0;
    uint64_t sum = 0, number = 0;
    for (int i = 0; i < size; i++) {
        number = number << 7 | (bytes[i] & 0x7F);
        if (bytes[i] & 0x80) continue;
        sum += number;
        number = 0;
    }
    *length = (double)sum;
    sqlite3_reset(r->lengths);
    return ok || base_fail(err, ERROR_INPUT, "%s: the index is damaged (words of chunk %lld)",
                           r->index->path, (long long)chunk);
}

/* Of the chunk at hand, were it of `length` words. */
static double bm25(const Ranking *r, double length) {
    double score = 0;
    for (size_t i = 0; i < r->n_phrases; i++) {
        double f = (double)r->frequencies[i];
        score +=
            r->phrases[i]->idf * ((f * (K1 + 1.0)) / (f + K1 * (1 - B + B * length / r->average)));
    }
    return score;
}

/* Goes to the next chunk that any phrase stands in. */
static bool next_chunk(Ranking *r, int64_t *chunk) {
    *chunk = INT64_MAX;
    for (size_t i = 0; i < r->n_phrases; i++) {
        const Phrase *p = r->phrases[i];
        if (p->at < p->count) *chunk = BASE_MIN(*chunk, p->postings[p->at].chunk);
    }
    bool any = false;
    for (size_t i = 0; i < r->n_phrases; i++) {
        Phrase *p = r->phrases[i];
        bool here = p->at < p->count && p->postings[p->at].chunk == *chunk;
        r->frequencies[i] = here ? p->postings[p->at++].frequency : 0;
        any |= here;
    }
    return any;
}

static bool rank(Ranking *r, const RagFilter *filter, RagBest *best, Error *err) {
    int64_t chunk;
    double length;
    while (next_chunk(r, &chunk)) {
        if (!rag_filter_allows(filter, chunk)) continue;
        if (best->count == best->capacity && bm25(r, 0) <= best->items[0].score) continue;
        if (!read_length(r, chunk, &length, err)) return false;
        rag_best_push(best, (RagScored){chunk, bm25(r, length)});
    }
    return true;
}

bool rag_sqlite_match(RagIndex *index, const char *const *phrases, size_t n_phrases,
                      const RagFilter *filter, size_t capacity, RagScored *best, size_t *found,
                      Error *err) {
    *found = 0;
    if (!n_phrases || !capacity) return true;
    Ranking r = {.index = index,
                 .n_phrases = n_phrases,
                 .phrases = base_calloc(n_phrases, sizeof *r.phrases),
                 .frequencies = base_calloc(n_phrases, sizeof *r.frequencies)};
    RagBest top = {.items = best, .capacity = capacity};
    bool ok = open_ranking(&r, phrases, err) && rank(&r, filter, &top, err);
    if (ok) {
        rag_scored_sort(best, top.count);
        *found = top.count;
    }
    sqlite3_finalize(r.lengths);
    free(r.phrases);
    free(r.frequencies);
    return ok;
}
