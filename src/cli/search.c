/* search and ask: the passages that speak to a question, and an answer from
 * them that names its sources. */
#include "cli/commands.h"
#include "rag/rag.h"
#include "rag/show.h"

#include <stdlib.h>
#include <string.h>

typedef struct SearchArguments {
    const char *query, *index, *embedder, *mode, *prefix, *model, *path, *type, *since, *until;
    const char *reranker, *unsupported;
    OptionInt top_k, candidates, max_tokens, max_passages, rerank_candidates, section;
    OptionReal threshold, dense_weight, lexical_weight, rank_constant, mmr;
    bool json, full, verbose, rewrite;
} SearchArguments;
#define ARGUMENTS SearchArguments

#define SEARCH_OPTIONS                                                                             \
    OPTION_REQUIRED("index", NULL, TEXT, index, "FILE", "index file"),                             \
        OPTION("embedder", NULL, MODEL, embedder, NULL, "MODEL",                                   \
               "folder of the model that made the index; without it only words are searched"),     \
        OPTION("top-k", "k", INT, top_k, "5", "K", "passages to find"),                            \
        OPTION_CHOICE("mode", mode, "hybrid", "hybrid|dense|lexical",                              \
                      "by meaning and words, by meaning, or by words"),                            \
        OPTION("candidates", NULL, INT, candidates, "100", "N",                                    \
               "taken from each list before they are merged"),                                     \
        OPTION("prefix", NULL, TEXT, prefix, NULL, "PATH", "only documents whose path starts so"), \
        OPTION("path", NULL, TEXT, path, NULL, "GLOB", "only documents whose path fits"),          \
        OPTION("type", NULL, TEXT, type, NULL, "TYPES",                                            \
               "only these types, commas between: pdf,html,markdown,text,docx,odt,epub,csv,code"), \
        OPTION("since", NULL, TEXT, since, NULL, "DATE",                                           \
               "only files changed on that day or later"),                                         \
        OPTION("until", NULL, TEXT, until, NULL, "DATE", "only files changed before that day"),    \
        OPTION("dense-weight", NULL, REAL, dense_weight, "1", "X", "of meaning in the fusion"),    \
        OPTION("lexical-weight", NULL, REAL, lexical_weight, "1", "X", "of words in the fusion"),  \
        OPTION("rank-constant", NULL, REAL, rank_constant, "60", "X",                              \
               "weight / (X + rank) is what a list adds"),                                         \
        OPTION("mmr", NULL, REAL, mmr, "1", "X",                                                   \
               "share of relevance, the rest is being unlike the passages above; 1: off"),         \
        OPTION("reranker", NULL, MODEL, reranker, NULL, "MODEL",                                   \
               "reranker that orders the best anew"),                                              \
        OPTION("rerank-candidates", NULL, INT, rerank_candidates, "20", "N", "how many it reads"), \
        OPTION("section", NULL, INT, section, "0", "BYTES",                                        \
               "let passages grow to their section, up to so many bytes; 0: off"),                 \
        OPTION("threshold", NULL, REAL, threshold, "0", "X",                                       \
               "cosine under which nothing is relevant; 0: the embedder's own"),                   \
        OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object")

static const Option search_options[] = {
    POSITIONAL("QUERY", TEXT, query, true, "what to look for"),
    SEARCH_OPTIONS,
    OPTION("full", NULL, FLAG, full, NULL, NULL, "print whole passages instead of snippets"),
};

static const Option ask_options[] = {
    POSITIONAL("QUESTION", TEXT, query, true, "what to answer"),
    SEARCH_OPTIONS,
    OPTION("model", NULL, MODEL, model, NULL, "MODEL",
           "language model folder; without it the answer quotes the documents"),
    OPTION("max-tokens", "m", INT, max_tokens, "0", "N", "tokens of the answer at most; 0: 160"),
    OPTION("max-passages", NULL, INT, max_passages, "0", "N",
           "passages that the model reads; 0: by the model's size"),
    OPTION("rewrite", NULL, FLAG, rewrite, NULL, NULL,
           "also search for the question as the model rewords it"),
    OPTION_CHOICE("unsupported", unsupported, "mark", "mark|drop",
                  "sentences that no passage supports: mark them, or leave them out"),
    OPTION("verbose", NULL, FLAG, verbose, NULL, NULL, "show the model's draft as it is written"),
};

/* What both commands work with. */
typedef struct Session {
    RagEmbedder embedder;
    RagGenerator generator;
    RagReranker reranker;
    bool has_embedder, has_generator, has_reranker;
    char *reworded; /* the question, or NULL */
    RagIndex *index;
    RagSearch found;
} Session;

static bool size_option(const char *name, OptionInt given, size_t *value, Error *err) {
    if (given.value < 0 || given.value > 1000000)
        return base_fail(err, ERROR_INPUT, "--%s must be between 0 and 1000000", name);
    *value = (size_t)given.value;
    return true;
}

static bool real_option(const char *name, OptionReal given, double most, float *value, Error *err) {
    if (!(given.value > 0 && given.value <= most))
        return base_fail(err, ERROR_INPUT, "--%s must be above 0 and at most %g", name, most);
    *value = (float)given.value;
    return true;
}

/* Filters and the order of the passages. */
static bool read_choices(const SearchArguments *arguments, RagSearchOptions *how, Error *err) {
    how->path_glob = arguments->path;
    how->formats = arguments->type;
    return (!arguments->since || rag_date_parse(arguments->since, &how->since_ns, err)) &&
           (!arguments->until || rag_date_parse(arguments->until, &how->until_ns, err)) &&
           real_option("dense-weight", arguments->dense_weight, 1e6, &how->dense_weight, err) &&
           real_option("lexical-weight", arguments->lexical_weight, 1e6, &how->lexical_weight,
                       err) &&
           real_option("rank-constant", arguments->rank_constant, 1e6, &how->rank_constant, err) &&
           real_option("mmr", arguments->mmr, 1, &how->diversity_lambda, err) &&
           size_option("section", arguments->section, &how->section_bytes, err) &&
           size_option("rerank-candidates", arguments->rerank_candidates, &how->rerank_candidates,
                       err);
}

/* The language model, and the question in its words. */
static bool open_generator(const SearchArguments *arguments, Session *session, Error *err) {
    if (arguments->rewrite && !arguments->model)
        return base_fail(err, ERROR_INPUT, "--rewrite needs --model");
    if (!arguments->model) return true;
    session->has_generator = rag_generator_open(arguments->model, &session->generator, err);
    if (!session->has_generator || !arguments->rewrite) return session->has_generator;
    session->reworded = rag_reword(&session->generator, arguments->query, NULL, 0, err);
    return session->reworded || err->code == ERROR_NONE;
}

static bool find_passages(const SearchArguments *arguments, Session *session, Error *err) {
    RagSearchOptions how = {.path_prefix = arguments->prefix,
                            .relevance_threshold = (float)arguments->threshold.value,
                            .mode = strcmp(arguments->mode, "dense") == 0     ? RAG_DENSE
                                    : strcmp(arguments->mode, "lexical") == 0 ? RAG_LEXICAL
                                                                              : RAG_HYBRID};
    if (!size_option("top-k", arguments->top_k, &how.top_k, err) ||
        !size_option("candidates", arguments->candidates, &how.candidates, err) ||
        !read_choices(arguments, &how, err) || !open_generator(arguments, session, err))
        return false;
    how.reworded = session->reworded;
    if (arguments->reranker) {
        session->has_reranker = rag_reranker_open(arguments->reranker, &session->reranker, err);
        if (!session->has_reranker) return false;
        how.reranker = &session->reranker;
    }
    if (arguments->embedder) {
        session->has_embedder = rag_embedder_open(arguments->embedder, &session->embedder, err);
        if (!session->has_embedder) return false;
    } else if (how.mode == RAG_DENSE) {
        return base_fail(err, ERROR_INPUT, "--mode dense needs --embedder");
    } else {
        how.mode = RAG_LEXICAL;
    }
    const RagEmbedder *embedder = session->has_embedder ? &session->embedder : NULL;
    session->index = rag_index_open(arguments->index, RAG_READ, embedder, err);
    return session->index &&
           rag_search(session->index, embedder, arguments->query, &how, &session->found, err);
}

static void end_session(Session *session) {
    rag_search_free(&session->found);
    rag_index_close(session->index);
    if (session->has_generator) rag_generator_close(&session->generator);
    if (session->has_reranker) rag_reranker_close(&session->reranker);
    if (session->has_embedder) rag_embedder_close(&session->embedder);
    free(session->reworded);
}

/* "[1] manual.pdf, page 3: Signing > Keys" */
static void print_place(size_t number, const RagHit *hit) {
    char *path = rag_clean_path(hit->document);
    printf("[%zu] %s", number, path);
    free(path);
    if (hit->page > 0)
        printf(", %s %d", strcmp(hit->format, "code") == 0 ? "line" : "page", hit->page);
    if (hit->heading[0]) printf(": %s", hit->heading);
    putchar('\n');
}

static int run_search(const void *given, Error *err) {
    const SearchArguments *arguments = given;
    Session session = {0};
    bool good = find_passages(arguments, &session, err);
    if (good && arguments->json) {
        output_json(rag_search_json(&session.found));
    } else if (good) {
        const RagSearch *found = &session.found;
        for (size_t i = 0; i < found->n_hits; i++) {
            const RagHit *hit = &found->hits[i];
            print_place(i + 1, hit);
            printf("    %s\n", arguments->full ? hit->text : hit->snippet);
        }
        if (!found->relevant) puts("Nothing relevant to this was found.");
        printf("%zu chunks searched in %.1f ms\n", found->n_chunks, found->total_seconds * 1e3);
    }
    end_session(&session);
    return good ? 0 : 1;
}

static bool print_piece(void *context, const char *text, size_t length) {
    (void)context;
    fwrite(text, 1, length, stderr);
    return fflush(stderr) == 0;
}

static void print_answer(const RagAnswer *answer, const RagSearch *found) {
    puts(answer->text);
    if (*found->reworded) printf("\nalso searched: %s\n", found->reworded);
    if (answer->n_sources > 0)
        puts(answer->kind == RAG_ANSWER_REFUSED ? "\nnearest passages:" : "\nsources:");
    for (size_t i = 0; i < answer->n_sources; i++) {
        const RagSource *source = &answer->sources[i];
        if (!source->cited && answer->kind == RAG_ANSWER_GENERATED) continue;
        print_place(source->number, source->hit);
        bool quoted = source->quote && source->quote[0];
        printf("    %s\n", quoted ? source->quote : source->hit->snippet);
    }
    const RagGeneration *generation = &answer->generation;
    printf("\n%zu chunks searched in %.1f ms", found->n_chunks, found->total_seconds * 1e3);
    if (generation->generated_tokens > 0)
        printf(", %zu tokens read in %.2f s, %zu written at %.1f tok/s", generation->prompt_tokens,
               generation->prompt_seconds, generation->generated_tokens,
               generation->generation_seconds > 0
                   ? (double)generation->generated_tokens / generation->generation_seconds
                   : 0);
    printf(", %.2f s in all\n", found->total_seconds + answer->total_seconds);
}

static int run_ask(const void *given, Error *err) {
    const SearchArguments *arguments = given;
    Session session = {0};
    RagAnswer answer = {0};
    RagAnswerOptions how = {.on_text = arguments->verbose ? print_piece : NULL,
                            .mark_unsupported = strcmp(arguments->unsupported, "mark") == 0};
    bool good = size_option("max-tokens", arguments->max_tokens, &how.max_tokens, err) &&
                size_option("max-passages", arguments->max_passages, &how.max_passages, err) &&
                find_passages(arguments, &session, err);
    if (good) {
        good = rag_answer(&session.found, session.has_embedder ? &session.embedder : NULL,
                          session.has_generator ? &session.generator : NULL, &how, &answer, err);
        if (arguments->verbose) fputs("\n\n", stderr);
    }
    if (good && arguments->json)
        output_json(rag_answer_json(&session.found, &answer));
    else if (good)
        print_answer(&answer, &session.found);
    rag_answer_free(&answer);
    end_session(&session);
    return good ? 0 : 1;
}

const Command search_command = {.name = "search",
                                .summary = "Finds passages in an index.",
                                OPTIONS(search_options),
                                .arguments_size = sizeof(SearchArguments),
                                .run = run_search};

const Command ask_command = {.name = "ask",
                             .summary = "Answers a question from an index, with sources.",
                             .details =
                                 "Says \"" RAG_REFUSAL "\" when the documents do not speak of it.",
                             OPTIONS(ask_options),
                             .arguments_size = sizeof(SearchArguments),
                             .run = run_ask};
