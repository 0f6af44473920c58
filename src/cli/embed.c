/* embed and rerank: texts in, vectors or scores out, as JSON lines. */
#include "cli/commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *json_float(float value) {
    return isfinite(value) ? json_real((double)value) : json_null();
}

/* ---- embed ---------------------------------------------------------------------- */

typedef struct EmbedArguments {
    const char *model, *file, *kind;
    OptionList texts;
    bool json;
} EmbedArguments;
#define ARGUMENTS EmbedArguments

static const Option embed_options[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL",
                    "folder or hub id of a sentence embedder"),
    OPTION("file", NULL, TEXT, file, NULL, "FILE",
           "take the lines of this file; - is standard input"),
    OPTION_CHOICE("kind", kind, "plain", "plain|query|document",
                  "which of the model's prompts goes before each text"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "accepted; the output is JSON lines anyway"),
    POSITIONAL("TEXT", LIST, texts, false, "what to embed; without any, standard input's lines"),
};
#undef ARGUMENTS

static LmEmbedKind kind_of(const char *name) {
    return strcmp(name, "query") == 0      ? LM_EMBED_QUERY
           : strcmp(name, "document") == 0 ? LM_EMBED_DOCUMENT
                                           : LM_EMBED_PLAIN;
}

/* So many texts at a time, that a long input is not held as vectors. */
enum { EMBED_BATCH = 1024 };

static bool embed_all(LmEmbedder *embedder, const InputTexts *texts, LmEmbedKind kind, Error *err) {
    size_t dim = (size_t)lm_embedder_dim(embedder);
    float *vectors = base_calloc(EMBED_BATCH * dim, sizeof *vectors);
    bool good = true;
    for (size_t start = 0; start < texts->count && good; start += EMBED_BATCH) {
        size_t count = BASE_MIN(texts->count - start, (size_t)EMBED_BATCH);
        good = lm_embedder_encode(embedder, texts->items + start, count, kind, vectors, NULL, err);
        for (size_t i = 0; i < count && good; i++) {
            json_t *vector = json_array();
            for (size_t d = 0; d < dim; d++)
                json_array_append_new(vector, json_float(vectors[i * dim + d]));
            size_t index = start + i;
            const char *text = texts->items[index];
            output_json(json_pack("{s:I,s:o,s:o}", "index", (json_int_t)index, "text",
                                  output_string(text, strlen(text)), "embedding", vector));
        }
        if (good && base_interrupted()) good = base_fail(err, ERROR_INTERRUPTED, "interrupted");
    }
    free(vectors);
    return good;
}

static int run_embed(const void *given, Error *err) {
    const EmbedArguments *arguments = given;
    InputTexts texts;
    if (!input_texts(arguments->texts, arguments->file, &texts, err)) return 1;
    LmEmbedder *embedder = lm_embedder_open(arguments->model, NULL, err);
    bool good = embedder && embed_all(embedder, &texts, kind_of(arguments->kind), err);
    lm_embedder_close(embedder);
    input_texts_free(&texts);
    return good ? 0 : 1;
}

const Command embed_command = {.name = "embed",
                               .summary = "Turns texts into vectors, as JSON lines.",
                               OPTIONS(embed_options),
                               .arguments_size = sizeof(EmbedArguments),
                               .run = run_embed};

/* ---- rerank ---------------------------------------------------------------------- */

typedef struct RerankArguments {
    const char *model, *query, *file;
    OptionList texts;
    OptionInt top_k;
    bool json;
} RerankArguments;
#define ARGUMENTS RerankArguments

static const Option rerank_options[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "folder or hub id of a reranker"),
    OPTION_REQUIRED("query", "q", TEXT, query, "TEXT", "what the texts should answer"),
    OPTION("file", NULL, TEXT, file, NULL, "FILE",
           "take the lines of this file; - is standard input"),
    OPTION("top-k", NULL, INT, top_k, "0", "K", "print the K best; 0: all"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "accepted; the output is JSON lines anyway"),
    POSITIONAL("TEXT", LIST, texts, false, "texts to order; without any, standard input's lines"),
};
#undef ARGUMENTS

typedef struct Scored {
    size_t index;
    float score;
} Scored;

static int by_score(const void *a, const void *b) {
    const Scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

static bool rerank_all(LmReranker *reranker, const RerankArguments *arguments,
                       const InputTexts *texts, Error *err) {
    float *scores = base_calloc(texts->count + 1, sizeof *scores);
    Scored *order = base_calloc(texts->count + 1, sizeof *order);
    bool good =
        lm_reranker_score(reranker, arguments->query, texts->items, texts->count, scores, err);
    if (good) {
        for (size_t i = 0; i < texts->count; i++)
            order[i] = (Scored){.index = i, .score = scores[i]};
        qsort(order, texts->count, sizeof *order, by_score);
        size_t shown = texts->count;
        if (arguments->top_k.value > 0 && (uint64_t)arguments->top_k.value < shown)
            shown = (size_t)arguments->top_k.value;
        for (size_t i = 0; i < shown; i++) {
            const char *text = texts->items[order[i].index];
            output_json(json_pack("{s:I,s:o,s:o,s:o}", "index", (json_int_t)order[i].index, "score",
                                  json_float(order[i].score), "probability",
                                  json_float(1 / (1 + expf(-order[i].score))), "text",
                                  output_string(text, strlen(text))));
        }
    }
    free(scores);
    free(order);
    return good;
}

static int run_rerank(const void *given, Error *err) {
    const RerankArguments *arguments = given;
    InputTexts texts;
    if (!input_texts(arguments->texts, arguments->file, &texts, err)) return 1;
    LmReranker *reranker = lm_reranker_open(arguments->model, NULL, err);
    bool good = reranker && rerank_all(reranker, arguments, &texts, err);
    lm_reranker_close(reranker);
    input_texts_free(&texts);
    return good ? 0 : 1;
}

const Command rerank_command = {.name = "rerank",
                                .summary = "Orders texts by how well they answer a query.",
                                OPTIONS(rerank_options),
                                .arguments_size = sizeof(RerankArguments),
                                .run = run_rerank};
