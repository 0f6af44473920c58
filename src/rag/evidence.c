/* Sentences for and against; see evidence.h. */
#include "rag/evidence.h"

#include <math.h>
#include <string.h>

#include "rag/sentences.h"
#include "rag/show.h"

#define MAX_SENTENCES 64   /* of one passage */
#define SENTENCE_BYTES 600 /* longer ones, like code, are cut for the embedder */

static void split(RagEvidence *e) {
    const char *text = e->hit->text;
    size_t length = strlen(text), capacity = 0;
    e->n_sentences = 0;
    size_t at = 0;
    while (at < length && e->n_sentences < MAX_SENTENCES) {
        size_t end = rag_sentence_end(text, length, at);
        e->starts = base_grow(e->starts, &capacity, e->n_sentences + 2, sizeof *e->starts);
        e->starts[e->n_sentences++] = at;
        at = end;
    }
    e->starts = base_grow(e->starts, &capacity, e->n_sentences + 2, sizeof *e->starts);
    e->starts[e->n_sentences] = length;
}

static double cosine(const float *a, const float *b, size_t dim) {
    double dot = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < dim; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 && isfinite(dot) ? dot / sqrt(aa * bb) : 0;
}

static char *sentence_line(const RagEvidence *e, size_t i) {
    const char *from = e->hit->text + e->starts[i];
    size_t length = e->starts[i + 1] - e->starts[i];
    return rag_clean_line(from, rag_utf8_floor(from, length, SENTENCE_BYTES));
}

/* Vectors of every sentence of every passage in one call. */
static bool embed(RagEvidence *evidence, size_t n, const char *question,
                  const RagEmbedder *embedder, float *asked, Error *err) {
    size_t total = 0, dim = embedder->dim;
    for (size_t i = 0; i < n; i++) total += evidence[i].n_sentences;
    char **lines = base_calloc(total + 1, sizeof *lines);
    float *vectors = base_calloc((total + 1) * dim, sizeof *vectors);
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t s = 0; s < evidence[i].n_sentences; s++)
            lines[k++] = sentence_line(&evidence[i], s);
    bool ok = (!total || embedder->embed(embedder->context, (const char *const *)lines, total,
                                         RAG_PASSAGE, vectors, err)) &&
              embedder->embed(embedder->context, &question, 1, RAG_QUERY, asked, err);
    k = 0;
    for (size_t i = 0; ok && i < n; i++) {
        size_t bytes = evidence[i].n_sentences * dim * sizeof *vectors;
        evidence[i].vectors = base_alloc(bytes + 1);
        memcpy(evidence[i].vectors, vectors + k * dim, bytes);
        k += evidence[i].n_sentences;
    }
    for (size_t i = 0; i < total; i++) free(lines[i]);
    free(lines);
    free(vectors);
    return ok;
}

RagEvidence *rag_evidence_gather(const char *question, const RagHit *hits, size_t n,
                                 const RagEmbedder *embedder, Error *err) {
    RagEvidence *evidence = base_calloc(n + 1, sizeof *evidence);
    for (size_t i = 0; i < n; i++) {
        evidence[i].hit = &hits[i];
        split(&evidence[i]);
    }
    float *asked = embedder ? base_calloc(embedder->dim, sizeof *asked) : NULL;
    if (embedder && !embed(evidence, n, question, embedder, asked, err)) {
        free(asked);
        rag_evidence_free(evidence, n);
        return NULL;
    }
    RagStems wanted = rag_stems_of(question, strlen(question));
    for (size_t i = 0; i < n; i++) {
        RagEvidence *e = &evidence[i];
        e->scores = base_calloc(e->n_sentences + 1, sizeof *e->scores);
        for (size_t s = 0; s < e->n_sentences; s++) {
            size_t length = e->starts[s + 1] - e->starts[s];
            double words = rag_overlap(&wanted, e->hit->text + e->starts[s], length, NULL);
            double meaning =
                e->vectors ? cosine(e->vectors + s * embedder->dim, asked, embedder->dim) : words;
            e->scores[s] = 0.3 * words + 0.7 * fmax(meaning, 0);
            /* A heading or a label is like the question but answers nothing. */
            if (length < 40) e->scores[s] *= 0.6;
            if (e->scores[s] > e->scores[e->best]) e->best = s;
        }
    }
    rag_stems_free(&wanted);
    free(asked);
    return evidence;
}

void rag_evidence_free(RagEvidence *evidence, size_t n) {
    for (size_t i = 0; evidence && i < n; i++)
        free(evidence[i].starts), free(evidence[i].vectors), free(evidence[i].scores);
    free(evidence);
}

char *rag_evidence_window(const RagEvidence *e, size_t limit) {
    if (!e->n_sentences) return base_strdup("");
    size_t first = e->best, last = e->best + 1;
    for (bool grown = true; grown;) {
        grown = false;
        /* What follows a statement explains it more often than what precedes. */
        if (last < e->n_sentences && e->starts[last + 1] - e->starts[first] <= limit)
            last++, grown = true;
        if (first > 0 && e->starts[last] - e->starts[first - 1] <= limit) first--, grown = true;
    }
    const char *from = e->hit->text + e->starts[first];
    size_t length = e->starts[last] - e->starts[first];
    return rag_clean_line(from, rag_utf8_floor(from, length, limit));
}

/* Quoting is support; numbers that the passage does not have are not. */
static RagSupport grade(double overlap, double meaning, bool missing_number, bool has_vector) {
    if (overlap >= 0.75 && !missing_number) return RAG_SUPPORTED;
    if (has_vector && overlap >= 0.5 && meaning >= 0.6 && !missing_number) return RAG_SUPPORTED;
    if (overlap >= 0.5 || (has_vector && overlap >= 0.25 && meaning >= 0.55)) return RAG_WEAK;
    return RAG_UNSUPPORTED;
}

RagJudgement rag_evidence_judge(const RagEvidence *evidence, size_t n, const char *sentence,
                                size_t length, const float *vector, size_t dim, size_t preferred) {
    RagStems wanted = rag_stems_of(sentence, length);
    RagJudgement best = {.cosine = -2};
    double best_score = 0;
    for (size_t i = 0; i < n && wanted.count; i++) {
        const RagEvidence *e = &evidence[i];
        char *whole = base_format("%s\n%s\n%s", e->hit->title, e->hit->heading, e->hit->text);
        bool missing = false;
        double overlap = rag_overlap(&wanted, whole, strlen(whole), &missing), meaning = -2;
        free(whole);
        for (size_t s = 0; vector && e->vectors && s < e->n_sentences; s++)
            meaning = fmax(meaning, cosine(vector, e->vectors + s * dim, dim));
        RagSupport support = grade(overlap, meaning, missing, meaning > -2);
        double score = overlap + (meaning > -2 ? fmax(meaning, 0) : 0) +
                       (preferred == i + 1 ? 0.1 : 0) + 0.25 * (double)(int)support;
        if (support == RAG_UNSUPPORTED || score <= best_score) continue;
        best_score = score;
        best = (RagJudgement){i + 1, support, overlap, meaning};
    }
    rag_stems_free(&wanted);
    return best;
}
