/* rag: questions one after another about an index or a vdb.npz, with the flags
 * that users of mlx-RAG's rag-cli know. */
#include "rag/rag.h"
#include "cli/commands.h"
#include "cli/line.h"
#include "rag/show.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct RagArguments {
    const char *vdb_path, *model, *reranker, *embedder;
    OptionInt top_k, max_tokens, section;
    bool no_reranker, rewrite;
} RagArguments;
#define ARGUMENTS RagArguments

static const Option option_table[] = {
    OPTION("vdb-path", NULL, TEXT, vdb_path, "var/indexes/vdb.npz", "FILE",
           "index of mlx-rag, or a vdb.npz"),
    OPTION("embedder", NULL, MODEL, embedder, NULL, "MODEL",
           "the model that made the vectors; without it words are searched"),
    OPTION("model-id", NULL, MODEL, model, NULL, "MODEL",
           "language model; without it the answers quote the documents"),
    OPTION("reranker-id", NULL, MODEL, reranker, NULL, "MODEL",
           "reranker that orders the passages anew"),
    OPTION("top-k", "k", INT, top_k, "5", "K", "passages for an answer"),
    OPTION("max-tokens", "m", INT, max_tokens, "512", "N", "tokens of an answer at most"),
    OPTION("no-reranker", NULL, FLAG, no_reranker, NULL, NULL, "leave --reranker-id out"),
    OPTION("section", NULL, INT, section, "0", "BYTES",
           "let passages grow to their section, up to so many bytes; 0: off"),
    OPTION("rewrite", NULL, FLAG, rewrite, NULL, NULL,
           "the model rewords a question before it is searched, by what was said before"),
};

enum { MOST_TURNS = 3 };

typedef struct Session {
    const RagArguments *arguments;
    RagEmbedder embedder;
    RagGenerator generator;
    RagReranker reranker;
    RagIndex *index;
    char *scratch; /* the index that a vdb.npz was taken into */
    bool has_embedder, has_generator, has_reranker;
    RagTurn turns[MOST_TURNS]; /* the last ones, oldest first; their texts are owned */
    size_t n_turns;
} Session;

static bool open_npz(Session *session, Error *err) {
    const char *folder = getenv("TMPDIR");
    session->scratch = base_format("%s/mlx-rag-XXXXXX", folder && *folder ? folder : "/tmp");
    int fd = mkstemp(session->scratch);
    if (fd < 0) {
        free(session->scratch);
        session->scratch = NULL;
        return base_fail_errno(err, "cannot make a temporary file");
    }
    close(fd);
    RagImportReport report;
    return rag_index_import(session->arguments->vdb_path, session->scratch,
                            session->has_embedder ? &session->embedder : NULL, false, &report, err);
}

static bool open_session(Session *session, Error *err) {
    const RagArguments *arguments = session->arguments;
    const char *path = arguments->vdb_path;
    if (arguments->top_k.value < 1 || arguments->top_k.value > 1000)
        return base_fail(err, ERROR_INPUT, "--top-k must be between 1 and 1000");
    if (arguments->max_tokens.value < 1 || arguments->max_tokens.value > 1 << 20)
        return base_fail(err, ERROR_INPUT, "--max-tokens must be between 1 and %d", 1 << 20);
    if (arguments->section.value < 0 || arguments->section.value > 1 << 20)
        return base_fail(err, ERROR_INPUT, "--section must be between 0 and %d", 1 << 20);
    if (arguments->rewrite && !arguments->model)
        return base_fail(err, ERROR_INPUT, "--rewrite needs --model-id");
    if (!base_is_file(path)) {
        base_fail(err, ERROR_INPUT, "%s: no such file", path);
        return base_hint(err, "make one with mlx-rag ingest, or name it with --vdb-path");
    }
    if (arguments->embedder &&
        !(session->has_embedder = rag_embedder_open(arguments->embedder, &session->embedder, err)))
        return false;
    bool npz = base_ends_with(path, ".npz");
    if (npz && !open_npz(session, err)) return false;
    session->index = rag_index_open(npz ? session->scratch : path, RAG_READ,
                                    session->has_embedder ? &session->embedder : NULL, err);
    if (!session->index) return false;
    if (arguments->model &&
        !(session->has_generator = rag_generator_open(arguments->model, &session->generator, err)))
        return false;
    if (arguments->reranker && !arguments->no_reranker)
        session->has_reranker = rag_reranker_open(arguments->reranker, &session->reranker, err);
    return session->has_reranker || !arguments->reranker || arguments->no_reranker;
}

/* The texts of turns are borrowed by rag_reword and owned here. */
static void forget_turn(RagTurn *turn) {
    free((char *)turn->question);
    free((char *)turn->answer);
}

static void remember(Session *session, const char *question, const char *answer) {
    if (session->n_turns == MOST_TURNS) {
        forget_turn(&session->turns[0]);
        memmove(session->turns, session->turns + 1, (MOST_TURNS - 1) * sizeof *session->turns);
        session->n_turns--;
    }
    session->turns[session->n_turns++] = (RagTurn){base_strdup(question), base_strdup(answer)};
}

static void close_session(Session *session) {
    for (size_t i = 0; i < session->n_turns; i++) forget_turn(&session->turns[i]);
    rag_index_close(session->index);
    if (session->scratch) unlink(session->scratch);
    free(session->scratch);
    rag_reranker_close(&session->reranker);
    rag_generator_close(&session->generator);
    rag_embedder_close(&session->embedder);
}

static bool print_panel(const Session *session, Error *err) {
    RagIndexInfo info;
    if (!rag_index_info(session->index, &info, err)) return false;
    printf("VDB       %s\nChunks    %zu\n", session->arguments->vdb_path, info.n_chunks);
    printf("Model     %s\n",
           session->has_generator ? session->generator.name : "none, quotes only");
    printf("Reranker: %s\n", session->has_reranker ? "Enabled" : "Disabled");
    printf("Top-K     %lld\n", (long long)session->arguments->top_k.value);
    return true;
}

static void print_hits(const RagSearch *found) {
    printf("Retrieved %zu chunks:\n", found->n_hits);
    for (size_t i = 0; i < found->n_hits; i++) {
        const RagHit *hit = &found->hits[i];
        char *name = rag_clean_path(base_path_name(hit->document));
        printf("  [%zu] %s", i + 1, name);
        if (hit->page > 0)
            printf(", %s %d", strcmp(hit->format, "code") == 0 ? "line" : "page", hit->page);
        printf(": %s\n", hit->snippet);
        free(name);
    }
}

/* A question that follows others is searched and answered as it can be understood
 * alone; what was typed is searched too. */
static bool find(Session *session, const char *question, RagSearch *found, Error *err) {
    const RagEmbedder *embedder = session->has_embedder ? &session->embedder : NULL;
    RagSearchOptions how = {.top_k = (size_t)session->arguments->top_k.value,
                            .mode = embedder ? RAG_HYBRID : RAG_LEXICAL,
                            .section_bytes = (size_t)session->arguments->section.value,
                            .reranker = session->has_reranker ? &session->reranker : NULL};
    char *reworded = session->arguments->rewrite ? rag_reword(&session->generator, question,
                                                              session->turns, session->n_turns, err)
                                                 : NULL;
    if (!reworded && err->code != ERROR_NONE) return false;
    bool follows = reworded && session->n_turns > 0;
    how.reworded = follows ? question : reworded;
    if (reworded) printf("Searching: %s\n", reworded);
    bool good =
        rag_search(session->index, embedder, follows ? reworded : question, &how, found, err);
    free(reworded);
    return good;
}

static bool answer(Session *session, const char *question, Error *err) {
    RagAnswerOptions write = {.max_tokens = (size_t)session->arguments->max_tokens.value,
                              .mark_unsupported = true};
    RagSearch found = {0};
    RagAnswer said = {0};
    bool good = find(session, question, &found, err);
    if (good && !found.n_hits) {
        puts("No documents retrieved for that question.");
    } else if (good) {
        print_hits(&found);
        good = rag_answer(&found, session->has_embedder ? &session->embedder : NULL,
                          session->has_generator ? &session->generator : NULL, &write, &said, err);
        if (good) printf("A: %s\n", said.text);
        if (good) remember(session, found.query, said.text);
    }
    rag_answer_free(&said);
    rag_search_free(&found);
    return good;
}

static bool talk(Session *session, bool terminal, Error *err) {
    LineReader *lines = line_open(terminal);
    bool good = true;
    while (good) {
        puts("Question:");
        fflush(stdout);
        char *line = base_interrupted() ? NULL : line_read(lines);
        bool leave = !line || base_interrupted() || strcmp(line, "q") == 0 ||
                     strcmp(line, "exit") == 0 || strcmp(line, "quit") == 0;
        if (!leave && line[strspn(line, " \t")]) good = answer(session, line, err);
        free(line);
        if (leave) break;
    }
    line_close(lines);
    /* Ctrl-C is a way to leave, not a failure. */
    if (!good && err->code == ERROR_INTERRUPTED) {
        base_error_clear(err);
        good = true;
    }
    if (good) puts("Bye.");
    return good;
}

static int run(const void *given, Error *err) {
    Session session = {.arguments = given};
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    puts("Loading RAG system...");
    bool good =
        open_session(&session, err) && print_panel(&session, err) && talk(&session, terminal, err);
    close_session(&session);
    return good ? 0 : 1;
}

const Command rag_command = {.name = "rag",
                             .summary = "Questions one after another, answered from an index.",
                             .details = "Type q or press Ctrl-C or Ctrl-D to leave.",
                             OPTIONS(option_table),
                             .arguments_size = sizeof(RagArguments),
                             .run = run};
