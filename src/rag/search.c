/* One question against the index: the dense list, the lexical list, their
 * fusion, the chunks behind the best, and whether any of it is relevant.
 *
 * Relevance is never read off the fused score. A question is taken as answered
 * by the documents when its best cosine reaches the embedder's threshold; a
 * little below it, the words must make up for what is missing.
 *
 * How the threshold was chosen: all-MiniLM-L6-v2 over Debian Policy and the
 * Developer's Reference (2003 chunks), 60 questions. Best cosines of 25 with an
 * answer: 0.475 to 0.785, one at 0.353; of 25 on other subjects: 0.118 to 0.345;
 * of 10 on Debian without an answer there: 0.223 to 0.638. 0.42 lies in the gap:
 * 24 of 25 accepted, 25 of 25 and 6 of 10 refused. The last ten show the limit
 * of a cosine: it knows the subject, not the answer.
 *
 * Words alone: the largest share of a question's words, weighed by rarity, that one
 * passage holds. Of the 73 questions with an answer in scripts/demo_questions.jsonl
 * 0.42 to 1, of 57 on other subjects 0 to 0.48 and two more. Half accepts 69 and
 * refuses 55: words that are in no document weigh most, so a question half of whose
 * weight is missing speaks of something else. */
#include <math.h>
#include <string.h>

#include "rag/filter.h"
#include "rag/fusion.h"
#include "rag/match.h"
#include "rag/select.h"
#include "rag/show.h"
#include "rag/store.h"
#include "rag/words.h"

#define DEFAULT_TOP_K 5
#define DEFAULT_CANDIDATES 100
#define RESCORE_FACTOR 2       /* int8 candidates for each exact one */
#define DEFAULT_THRESHOLD 0.42 /* cosine */
#define LEXICAL_RELIEF 0.15    /* how far below it words can carry */
#define LEXICAL_OVERLAP 0.80   /* share of the question's words in one chunk for that */
#define LEXICAL_ALONE 0.50     /* the same where only words are searched */
#define SNIPPET_BYTES 240
#define REWORDED_WEIGHT 0.5 /* in the fusion, the question's own words having 1 */
enum { WORDINGS = 2 };      /* the question as asked, and in other words */

/* One wording of the question and what it finds. */
typedef struct Search {
    RagIndex *index;
    const RagSearchOptions *options;
    size_t candidates;
    const RagFilter *filter;
    float *vector; /* of the query, when dense search ran */
    RagScored *dense, *lexical;
    size_t n_dense, n_lexical;
    RagTerms terms;
    RagStems wanted;
} Search;

/* ---- dense -------------------------------------------------------------------- */

static bool embed_query(Search *s, const RagEmbedder *embedder, const char *query,
                        RagSearch *result, Error *err) {
    double started = base_now();
    float *vector = s->vector = base_calloc(s->index->dim, sizeof *vector);
    if (!embedder->embed(embedder->context, &query, 1, RAG_QUERY, vector, err)) return false;
    double sum = 0;
    for (size_t i = 0; i < embedder->dim; i++) sum += (double)vector[i] * (double)vector[i];
    if (!isfinite(sum) || sum < 1e-12)
        return base_fail(err, ERROR_INPUT,
                         "the embedder %s gives a vector of zeros or not-a-number", embedder->name);
    float factor = (float)(1.0 / sqrt(sum));
    for (size_t i = 0; i < embedder->dim; i++) vector[i] *= factor;
    result->embed_seconds += base_now() - started;
    return true;
}

/* The exact cosine of some chunks; score becomes it. One that is gone (an ingest
 * going on beside) gets -1. */
static bool rescore(const Search *s, RagScored *scored, size_t count, Error *err) {
    size_t dim = s->index->dim;
    float *vectors = base_alloc((count + 1) * dim * sizeof *vectors);
    bool ok = s->index->storage->vectors(s->index, scored, count, vectors, err);
    for (size_t i = 0; ok && i < count; i++) {
        const float *vector = vectors + i * dim;
        double sum = 0;
        bool there = false;
        for (size_t k = 0; k < dim; k++) {
            there |= vector[k] != 0;
            sum += (double)vector[k] * (double)s->vector[k];
        }
        scored[i].score = there && isfinite(sum) ? sum : -1;
    }
    free(vectors);
    return ok;
}

/* The best by the rounded vectors, put in order by the exact ones. */
static bool finish_dense(Search *s, RagDense *dense, RagSearch *result, Error *err) {
    double started = base_now();
    size_t width = s->candidates * RESCORE_FACTOR;
    s->dense = base_calloc(width, sizeof *s->dense);
    bool ok = s->index->storage->dense_end(dense, s->dense, &s->n_dense, err) &&
              rescore(s, s->dense, s->n_dense, err);
    rag_scored_sort(s->dense, s->n_dense);
    s->n_dense = BASE_MIN(s->n_dense, s->candidates);
    if (ok && s->n_dense) result->best_cosine = fmax(result->best_cosine, s->dense[0].score);
    result->dense_seconds += base_now() - started;
    return ok;
}

/* ---- lexical -------------------------------------------------------------------- */

/* From this many rows on a term is common: it adds little to any score, costs
 * the most, and is not counted further. */
static size_t common_rows(size_t n_rows) {
    return BASE_MAX((size_t)2000, n_rows / 20);
}

/* Rows that hold each term, and its idf in a form that is never negative. */
static bool weigh_terms(Search *s, size_t n_rows, Error *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < s->terms.count; i++) {
        RagTerm *term = &s->terms.items[i];
        ok = s->index->storage->count_rows(s->index, term->phrase, common_rows(n_rows), &term->rows,
                                           err);
        double rows = (double)term->rows;
        term->idf = log(1 + fmax((double)n_rows - rows + 0.5, 0.5) / (rows + 0.5));
    }
    return ok;
}

/* The terms without the common ones; none when all are and there are meanings to
 * search by. Phrases are borrowed, caller frees the list. */
static const char **phrases_of(const Search *s, size_t n_rows, size_t *count) {
    size_t common = common_rows(n_rows);
    const char **phrases = base_calloc(s->terms.count + 1, sizeof *phrases);
    *count = 0;
    for (int pass = 0; pass < 2 && !*count; pass++) {
        if (pass && s->options->mode != RAG_LEXICAL && s->vector) break;
        for (size_t i = 0; i < s->terms.count; i++) {
            size_t rows = s->terms.items[i].rows;
            if (rows && (rows < common || pass)) phrases[(*count)++] = s->terms.items[i].phrase;
        }
    }
    return phrases;
}

static bool search_lexical(Search *s, size_t n_rows, RagSearch *result, Error *err) {
    double started = base_now();
    bool ok = weigh_terms(s, n_rows, err);
    if (ok && s->options->mode != RAG_DENSE) {
        size_t n_phrases = 0;
        const char **phrases = phrases_of(s, n_rows, &n_phrases);
        s->lexical = base_calloc(s->candidates, sizeof *s->lexical);
        ok = s->index->storage->match(s->index, phrases, n_phrases, s->filter, s->candidates,
                                      s->lexical, &s->n_lexical, err);
        free(phrases);
    }
    result->lexical_seconds += base_now() - started;
    return ok;
}

/* ---- both at once ------------------------------------------------------------- */

typedef struct Halves {
    Search *search;
    RagSearch *result;
    RagDense *dense; /* NULL: words only */
    size_t n_rows;
    bool words_ok;
    Error words_err;
} Halves;

/* One item a thread: the first looks for the words, all for the vectors, the first
 * when it is done with the words. */
static void run_halves(void *context, size_t begin, size_t end, int thread) {
    Halves *h = context;
    for (size_t item = begin; item < end; item++) {
        if (!item) h->words_ok = search_lexical(h->search, h->n_rows, h->result, &h->words_err);
        if (h->dense) h->search->index->storage->dense_help(h->dense, thread);
    }
}

static bool search_both(Search *s, bool dense, size_t n_rows, RagSearch *result, Error *err) {
    double started = base_now();
    Halves halves = {.search = s, .result = result, .n_rows = n_rows};
    if (dense) {
        halves.dense = s->index->storage->dense_begin(s->index, s->vector, s->filter,
                                                      s->candidates * RESCORE_FACTOR, err);
        if (!halves.dense) return false;
    }
    base_parallel_for(dense ? (size_t)base_threads() : 1, 1, run_halves, &halves);
    if (dense) result->dense_seconds += base_now() - started;
    bool ok = !dense || finish_dense(s, halves.dense, result, err);
    if (!ok || halves.words_ok) return ok;
    base_fail(err, halves.words_err.code, "%s", halves.words_err.message);
    return halves.words_err.hint[0] ? base_hint(err, "%s", halves.words_err.hint) : false;
}

/* ---- hits ------------------------------------------------------------------------- */

#define SAME_TEXT 0.95 /* share of words, both ways */

/* The same text in another format or place says nothing new. */
static bool is_repeated(const RagSearch *result, const char *text) {
    size_t length = strlen(text);
    RagStems words = rag_stems_of(text, length);
    bool repeated = false;
    for (size_t i = 0; i < result->n_hits && !repeated; i++) {
        const char *before = result->hits[i].text;
        repeated = strcmp(before, text) == 0;
        if (repeated || rag_overlap(&words, before, strlen(before), NULL) < SAME_TEXT) continue;
        RagStems others = rag_stems_of(before, strlen(before));
        bool number_differs = false, missing = false;
        rag_overlap(&words, before, strlen(before), &number_differs);
        repeated = rag_overlap(&others, text, length, &missing) >= SAME_TEXT && !number_differs &&
                   !missing;
        rag_stems_free(&others);
    }
    rag_stems_free(&words);
    return repeated;
}

/* The chunks behind the best of the fused list; the same text once. */
static bool load_hits(const Search *wordings, size_t n_wordings, const RagFused *fused,
                      size_t count, size_t top_k, RagSearch *result, Error *err) {
    RagIndex *index = wordings->index;
    result->hits = base_calloc(top_k, sizeof *result->hits);
    bool ok = true;
    for (size_t i = 0; ok && i < count && result->n_hits < top_k; i++) {
        RagHit hit = {0};
        char *header = NULL;
        bool found = false; /* an ingest may be going on */
        ok = index->storage->hit(index, fused[i].chunk, &hit, &header, &found, err);
        if (!ok || !found) continue;
        hit.n_chunks = 1;
        hit.score = fused[i].score;
        hit.cosine = fused[i].cosine;
        hit.bm25 = fused[i].bm25;
        hit.dense_rank = fused[i].dense_rank;
        hit.lexical_rank = fused[i].lexical_rank;
        if (is_repeated(result, hit.text)) {
            result->n_repeated++;
            rag_hit_free(&hit);
        } else {
            char *whole = base_format("%s\n%s", header, hit.text);
            for (size_t w = 0; w < n_wordings; w++) {
                const Search *s = &wordings[w];
                double overlap = s->terms.only_stop_words
                                     ? 0
                                     : rag_overlap(&s->wanted, whole, strlen(whole), NULL);
                result->best_overlap = fmax(result->best_overlap, overlap);
            }
            hit.snippet = rag_snippet(&wordings->wanted, hit.text, SNIPPET_BYTES);
            result->hits[result->n_hits++] = hit;
            free(whole);
        }
        free(header);
    }
    return ok;
}

/* Hits that only the lexical list found get their cosine too. */
static bool complete_cosines(const Search *s, RagSearch *result, Error *err) {
    bool ok = true;
    for (size_t i = 0; s->vector && ok && i < result->n_hits; i++) {
        if (result->hits[i].cosine > -2) continue;
        RagScored one = {result->hits[i].chunk, 0};
        ok = rescore(s, &one, 1, err);
        result->hits[i].cosine = one.score;
    }
    return ok;
}

static bool is_relevant(const RagSearch *result, bool dense_ran) {
    if (!result->n_hits) return false;
    if (!dense_ran) return result->best_overlap >= LEXICAL_ALONE;
    if (result->best_cosine >= result->threshold) return true;
    return result->best_cosine >= result->threshold - LEXICAL_RELIEF &&
           result->best_overlap >= LEXICAL_OVERLAP;
}

static double or_default(double value, double fallback) {
    return value > 0 ? value : fallback;
}

static bool is_blank(const char *text) {
    return strspn(text, " \t\n") == strlen(text);
}

/* Both lists of one wording. */
static bool search_wording(Search *s, const RagEmbedder *embedder, const char *query,
                           RagSearch *result, Error *err) {
    bool dense = s->options->mode != RAG_LEXICAL && embedder && !is_blank(query);
    s->terms = rag_terms_of(query);
    bool ok = (!dense || embed_query(s, embedder, query, result, err)) &&
              search_both(s, dense, result->n_chunks, result, err);
    s->wanted = rag_stems_of_terms(&s->terms);
    return ok;
}

static void end_wording(Search *s) {
    free(s->vector);
    free(s->dense);
    free(s->lexical);
    rag_stems_free(&s->wanted);
    rag_terms_free(&s->terms);
}

static RagFused *fuse(const Search *wordings, size_t n_wordings, size_t *count) {
    const RagSearchOptions *options = wordings->options;
    RagRanked lists[2 * WORDINGS];
    for (size_t w = 0; w < n_wordings; w++) {
        /* "and what about it?" says nothing, where there are better words. */
        bool empty = n_wordings > 1 && wordings[w].terms.only_stop_words;
        double share = empty ? 0 : w ? REWORDED_WEIGHT : 1;
        lists[2 * w] = (RagRanked){wordings[w].dense, wordings[w].n_dense,
                                   share * or_default((double)options->dense_weight, 1), true};
        lists[2 * w + 1] =
            (RagRanked){wordings[w].lexical, wordings[w].n_lexical,
                        share * or_default((double)options->lexical_weight, 1), false};
    }
    return rag_fuse(lists, 2 * n_wordings,
                    or_default((double)options->rank_constant, RAG_RANK_CONSTANT), count);
}

static bool search_wordings(Search *wordings, size_t n_wordings, const RagEmbedder *embedder,
                            size_t top_k, RagSearch *result, Error *err) {
    RagIndex *index = wordings->index;
    const RagSearchOptions *options = wordings->options;
    const char *const queries[WORDINGS] = {result->query, result->reworded};
    bool ok = true;
    for (size_t w = 0; ok && w < n_wordings; w++)
        ok = search_wording(&wordings[w], embedder, queries[w], result, err);
    if (!ok) return false;
    size_t n_fused = 0;
    RagFused *fused = fuse(wordings, n_wordings, &n_fused);
    ok = load_hits(wordings, n_wordings, fused, n_fused, rag_select_width(options, top_k), result,
                   err) &&
         complete_cosines(wordings, result, err) && rag_select(index, options, top_k, result, err);
    free(fused);
    bool dense = wordings[0].vector || (n_wordings > 1 && wordings[1].vector);
    if (ok) result->relevant = is_relevant(result, dense);
    return ok;
}

bool rag_search(RagIndex *index, const RagEmbedder *embedder, const char *query,
                const RagSearchOptions *options, RagSearch *result, Error *err) {
    double started = base_now();
    size_t top_k = options->top_k ? BASE_MIN(options->top_k, (size_t)1000) : DEFAULT_TOP_K;
    *result = (RagSearch){
        .query = rag_clean(query), .reworded = rag_clean(options->reworded), .best_cosine = -2};
    if (options->mode == RAG_DENSE && !embedder)
        return base_fail(err, ERROR_INPUT, "dense search needs an embedder");
    RagFilter filter = {0};
    Search wordings[WORDINGS];
    size_t n_wordings = is_blank(result->reworded) ? 1 : 2;
    size_t candidates =
        options->candidates ? BASE_MIN(options->candidates, (size_t)10000) : DEFAULT_CANDIDATES;
    for (size_t w = 0; w < WORDINGS; w++)
        wordings[w] =
            (Search){.index = index,
                     .options = options,
                     .filter = &filter,
                     .candidates = BASE_MAX(candidates, rag_select_width(options, top_k))};
    double own = embedder && embedder->relevance_threshold > 0
                     ? (double)embedder->relevance_threshold
                     : DEFAULT_THRESHOLD;
    result->threshold = or_default((double)options->relevance_threshold, own);
    RagIndexInfo info;
    /* One transaction, so that an ingest going on beside changes nothing below. */
    bool ok = index->storage->begin(index, err) && rag_index_info(index, &info, err) &&
              rag_filter_open(index, options, &filter, err);
    if (ok) result->n_chunks = info.n_chunks;
    ok = ok && search_wordings(wordings, n_wordings, embedder, top_k, result, err);
    index->storage->end(index);
    rag_filter_close(&filter);
    for (size_t w = 0; w < WORDINGS; w++) end_wording(&wordings[w]);
    result->total_seconds = base_now() - started;
    return ok;
}

void rag_search_free(RagSearch *result) {
    for (size_t i = 0; i < result->n_hits; i++) rag_hit_free(&result->hits[i]);
    free(result->hits);
    free(result->query);
    free(result->reworded);
    *result = (RagSearch){0};
}
