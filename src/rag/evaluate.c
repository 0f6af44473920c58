/* Rank metrics, citations and times over questions; see evaluate.h. */
#include "rag/evaluate.h"

#include <math.h>
#include <string.h>

#define DEFAULT_K 10
#define MIDDLE_CUT 5

/* ---- one question ----------------------------------------------------------------- */

/* Adds what the hits of a question with an answer are worth. */
static void judge(const RagQuestion *question, const RagSearch *found, RagEvaluation *sum) {
    size_t k = sum->cuts[RAG_CUTS - 1], n_found = 0, first = 0;
    double gain = 0, best = 0;
    bool *seen = base_calloc(question->n_expected, sizeof *seen);
    size_t at_cut[RAG_CUTS] = {0};
    for (size_t rank = 1; rank <= BASE_MIN(found->n_hits, k); rank++) {
        bool fits = false, new = false;
        for (size_t e = 0; e < question->n_expected; e++) {
            if (!rag_expected_fits(&question->expected[e], &found->hits[rank - 1])) continue;
            fits = true;
            if (seen[e]) continue;
            seen[e] = new = true;
            n_found++;
        }
        if (fits && !first) first = rank;
        if (new) gain += 1 / log2((double)rank + 1);
        for (size_t c = 0; c < RAG_CUTS; c++)
            if (rank <= sum->cuts[c]) at_cut[c] = n_found;
    }
    for (size_t i = 1; i <= BASE_MIN(question->n_expected, k); i++) best += 1 / log2((double)i + 1);
    for (size_t c = 0; c < RAG_CUTS; c++)
        sum->recall[c] += (double)at_cut[c] / (double)question->n_expected;
    sum->mrr += first ? 1 / (double)first : 0;
    sum->ndcg += gain / best;
    free(seen);
}

/* Which of the answer's citations name an expected passage. */
static bool cite(const RagQuestion *question, const RagSearch *found, const RagEmbedder *embedder,
                 const RagGenerator *generator, RagEvaluation *sum, Error *err) {
    RagAnswer answer;
    bool ok = rag_answer(found, embedder, generator, &(RagAnswerOptions){0}, &answer, err);
    for (size_t i = 0; ok && i < answer.n_sentences; i++) {
        size_t source = answer.sentences[i].source;
        if (!source) continue;
        bool right = false;
        for (size_t e = 0; e < question->n_expected; e++)
            right |= rag_expected_fits(&question->expected[e], answer.sources[source - 1].hit);
        sum->n_citations++;
        sum->n_right += right;
    }
    rag_answer_free(&answer);
    return ok;
}

static void add_times(const RagSearch *found, RagEvaluation *sum) {
    sum->embed += found->embed_seconds;
    sum->dense += found->dense_seconds;
    sum->lexical += found->lexical_seconds;
    sum->rerank += found->rerank_seconds;
    sum->total += found->total_seconds;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sums to means; times [n_questions]. */
static void finish(RagEvaluation *sum, double *times) {
    size_t n = sum->n_questions, answerable = n - sum->n_unanswerable;
    double *const over_answers[] = {&sum->recall[0], &sum->recall[1], &sum->recall[2], &sum->mrr,
                                    &sum->ndcg};
    double *const over_all[] = {&sum->embed, &sum->dense, &sum->lexical, &sum->rerank, &sum->total};
    for (size_t i = 0; answerable && i < BASE_COUNT(over_answers); i++)
        *over_answers[i] /= (double)answerable;
    for (size_t i = 0; i < BASE_COUNT(over_all); i++) *over_all[i] /= (double)n;
    qsort(times, n, sizeof *times, by_value);
    sum->total_95 = times[(n * 95 + 99) / 100 - 1];
}

bool rag_evaluate(RagIndex *index, const RagEmbedder *embedder, const RagQuestions *questions,
                  const RagSearchOptions *search, const RagEvaluateOptions *options,
                  RagEvaluation *result, Error *err) {
    RagSearchOptions how = *search;
    how.top_k = options->k ? options->k : DEFAULT_K;
    *result = (RagEvaluation){.n_questions = questions->count,
                              .cuts = {1, BASE_MIN(how.top_k, (size_t)MIDDLE_CUT), how.top_k}};
    double *times = base_calloc(questions->count, sizeof *times);
    bool ok = true;
    for (size_t i = 0; ok && i < questions->count; i++) {
        const RagQuestion *question = &questions->items[i];
        RagSearch found = {0};
        if (base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
        ok = ok && rag_search(index, embedder, question->text, &how, &found, err);
        times[i] = found.total_seconds;
        if (ok) add_times(&found, result);
        if (ok && question->n_expected) {
            judge(question, &found, result);
            result->refused_wrong += !found.relevant;
            if (options->answers)
                ok = cite(question, &found, embedder, options->generator, result, err);
        } else if (ok) {
            result->n_unanswerable++;
            result->refused_right += !found.relevant;
        }
        rag_search_free(&found);
        if (options->on_question) options->on_question(options->context, i + 1);
    }
    if (ok) finish(result, times);
    free(times);
    return ok;
}
