/* How well an index finds what questions ask for: rank metrics, citations and times,
 * for any way of searching. */
#ifndef RAG_EVALUATE_H
#define RAG_EVALUATE_H

#include "rag/rag.h"

/* Where an answer stands. What is NULL fits everything; letter case and white space do
 * not count. */
typedef struct RagExpected {
    char *document; /* the end of the path, whole names: "sqlite/wal.html" */
    char *heading;  /* part of the headings */
    char *text;     /* part of the passage */
} RagExpected;

typedef struct RagQuestion {
    char *text;
    RagExpected *expected;
    size_t n_expected; /* 0: the documents have no answer */
} RagQuestion;

typedef struct RagQuestions {
    RagQuestion *items;
    size_t count, capacity;
} RagQuestions;

/* JSON lines: {"question": "...", "relevant": [{"document": "...", "heading": "...",
 * "text": "..."}, ...]}; an empty list is a question without an answer. A line that is
 * wrong is named. Free with rag_questions_free, also after a failure. */
bool rag_questions_load(const char *path, RagQuestions *questions, Error *err);
void rag_questions_free(RagQuestions *questions);
bool rag_expected_fits(const RagExpected *expected, const RagHit *hit);

enum { RAG_CUTS = 3 };

typedef struct RagEvaluation {
    size_t n_questions, n_unanswerable;
    /* Means over the questions that have an answer. */
    size_t cuts[RAG_CUTS];   /* 1, 5 (or less), k */
    double recall[RAG_CUTS]; /* |expected among the first so many| / |expected| */
    double mrr;              /* 1 / rank of the first that fits, 0 when none within k */
    double ndcg;             /* Järvelin and Kekäläinen, 2002: gain 1 / log2(rank + 1) for each
                              * expected place when it is first found, over the best possible */
    size_t n_citations, n_right;         /* of the answers; right: the passage is an expected one */
    size_t refused_right, refused_wrong; /* without and with an answer in the documents */
    /* Seconds of a question: means, and what 95 of 100 stay under. */
    double embed, dense, lexical, rerank, total, total_95;
} RagEvaluation;

typedef struct RagEvaluateOptions {
    size_t k;                                        /* hits that count; 0: 10 */
    bool answers;                                    /* write them, and count citations */
    const RagGenerator *generator;                   /* writes them; NULL: they quote */
    void (*on_question)(void *context, size_t done); /* may be NULL */
    void *context;
} RagEvaluateOptions;

/* top_k of `search` is k. embedder may be NULL: words only. */
bool rag_evaluate(RagIndex *index, const RagEmbedder *embedder, const RagQuestions *questions,
                  const RagSearchOptions *search, const RagEvaluateOptions *options,
                  RagEvaluation *result, Error *err);

#endif
