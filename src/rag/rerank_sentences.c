/* Reranking by sentences; see rerank_sentences.h. The vector of a passage is a mean in
 * which the one sentence that answers a question drowns; the sentences' own vectors
 * show it. */
#include "rag/rerank_sentences.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rag/sentences.h"
#include "rag/show.h"

#define SENTENCE_BYTES 600
#define SHORT_BYTES 30 /* a label is like every question of its subject */
#define MOST_SENTENCES 32
/* Cosines around the middle become logits, as other rerankers give them. */
#define MIDDLE 0.4
#define STEEPNESS 10

/* The texts of all passages: each whole, then its sentences. */
typedef struct Texts {
    char **items;
    size_t *passages; /* which passage each belongs to */
    size_t count, items_capacity, passages_capacity;
} Texts;

static void add(Texts *texts, size_t passage, char *text) {
    texts->items =
        base_grow(texts->items, &texts->items_capacity, texts->count + 1, sizeof *texts->items);
    texts->passages = base_grow(texts->passages, &texts->passages_capacity, texts->count + 1,
                                sizeof *texts->passages);
    texts->items[texts->count] = text;
    texts->passages[texts->count++] = passage;
}

static void add_passage(Texts *texts, size_t passage, const char *text) {
    size_t length = strlen(text), n = 0;
    add(texts, passage, base_strdup(text));
    for (size_t at = 0; at < length && n < MOST_SENTENCES;) {
        size_t end = rag_sentence_end(text, length, at);
        if (end - at >= SHORT_BYTES && end - at < length) {
            size_t kept = rag_utf8_floor(text + at, end - at, SENTENCE_BYTES);
            add(texts, passage, rag_clean_line(text + at, kept));
            n++;
        }
        at = end;
    }
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

static bool score(void *context, const char *query, const char *const *passages, size_t count,
                  float *scores, Error *err) {
    const RagEmbedder *embedder = context;
    size_t dim = embedder->dim;
    Texts texts = {0};
    for (size_t i = 0; i < count; i++) add_passage(&texts, i, passages[i]);
    float *asked = base_calloc(dim, sizeof *asked);
    float *vectors = base_calloc((texts.count + 1) * dim, sizeof *vectors);
    bool ok = embedder->embed(embedder->context, &query, 1, RAG_QUERY, asked, err) &&
              (!texts.count || embedder->embed(embedder->context, (const char *const *)texts.items,
                                               texts.count, RAG_PASSAGE, vectors, err));
    double whole = 0, best = 0;
    for (size_t i = 0; ok && i < texts.count; i++) {
        double near = cosine(vectors + i * dim, asked, dim);
        bool first = !i || texts.passages[i] != texts.passages[i - 1];
        if (first) whole = near;
        best = first ? near : fmax(best, near);
        scores[texts.passages[i]] = (float)(STEEPNESS * ((whole + best) / 2 - MIDDLE));
    }
    for (size_t i = 0; i < texts.count; i++) free(texts.items[i]);
    free(texts.items), free(texts.passages);
    free(asked), free(vectors);
    return ok;
}

static void close_embedder(void *context) {
    RagEmbedder *embedder = context;
    rag_embedder_close(embedder);
    free(embedder);
}

void rag_rerank_by_sentences(RagEmbedder *embedder, RagReranker *reranker) {
    RagEmbedder *own = base_calloc(1, sizeof *own);
    *own = *embedder;
    *embedder = (RagEmbedder){0};
    *reranker =
        (RagReranker){.context = own, .name = own->name, .score = score, .close = close_embedder};
}
