/* eval-rag: how well several ways of searching find what a file of questions asks
 * for, in one table. */
#include "cli/commands.h"
#include "rag/evaluate.h"

#include <stdlib.h>
#include <string.h>

typedef struct EvalArguments {
    const char *questions, *index, *embedder, *reranker, *model;
    OptionList settings;
    OptionInt k;
    bool no_answers, json;
} EvalArguments;
#define ARGUMENTS EvalArguments

static const Option option_table[] = {
    OPTION_REQUIRED("questions", NULL, TEXT, questions, "FILE",
                    "JSON lines: question, and a list \"relevant\" of {document, heading, text}"),
    OPTION_REQUIRED("index", NULL, TEXT, index, "FILE", "index file"),
    OPTION("embedder", NULL, MODEL, embedder, NULL, "MODEL",
           "folder of the model that made the index; without it only words are searched"),
    OPTION("reranker", NULL, MODEL, reranker, NULL, "MODEL", "for settings with rerank"),
    OPTION("model", NULL, MODEL, model, NULL, "MODEL",
           "language model that answers; without it answers quote the documents"),
    OPTION("settings", NULL, LIST, settings, NULL, "SETTING",
           "ways of searching, as hybrid+mmr=0.7; absent: those that the models allow"),
    OPTION("k", NULL, INT, k, "10", "K", "passages that count"),
    OPTION("no-answers", NULL, FLAG, no_answers, NULL, NULL, "no answers, no citations"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "a JSON object for each setting"),
};

/* ---- settings ------------------------------------------------------------------------- */

/* A part of a setting: "mmr", or with a number "mmr=0.7". */
typedef enum { PART_MODE, PART_RERANK, PART_REAL, PART_SIZE } PartKind;
typedef struct Part {
    const char *name;
    PartKind kind;
    double fallback; /* of a number that is left out; 0: it must be given. The mode */
    double most;
    size_t field;
} Part;

#define FIELD(member) offsetof(RagSearchOptions, member)
static const Part parts[] = {
    {"hybrid", PART_MODE, RAG_HYBRID, 0, 0},
    {"vectors", PART_MODE, RAG_DENSE, 0, 0},
    {"words", PART_MODE, RAG_LEXICAL, 0, 0},
    {"rerank", PART_RERANK, 20, 1000, FIELD(rerank_candidates)},
    {"mmr", PART_REAL, 0.7, 1, FIELD(diversity_lambda)},
    {"dense-weight", PART_REAL, 0, 1e6, FIELD(dense_weight)},
    {"lexical-weight", PART_REAL, 0, 1e6, FIELD(lexical_weight)},
    {"rank-constant", PART_REAL, 0, 1e6, FIELD(rank_constant)},
    {"candidates", PART_SIZE, 0, 10000, FIELD(candidates)},
    {"section", PART_SIZE, 4000, 1e6, FIELD(section_bytes)},
};

static bool set_part(RagSearchOptions *how, const Part *part, const char *number,
                     const RagReranker *reranker, const char *setting, Error *err) {
    char *end = NULL;
    double value = number ? strtod(number, &end) : part->fallback;
    if (part->kind == PART_MODE && number)
        return base_fail(err, ERROR_INPUT, "setting %s: %s takes no number", setting, part->name);
    if (part->kind != PART_MODE &&
        ((number && (end == number || *end)) || !(value > 0) || !(value <= part->most)))
        return base_fail(err, ERROR_INPUT, "setting %s: %s wants a number up to %g", setting,
                         part->name, part->most);
    if (part->kind == PART_RERANK && !reranker)
        return base_fail(err, ERROR_INPUT, "setting %s needs --reranker", setting);
    char *field = (char *)how + part->field;
    switch (part->kind) {
    case PART_MODE: how->mode = (RagSearchMode)value; break;
    case PART_REAL: *(float *)(void *)field = (float)value; break;
    case PART_RERANK: how->reranker = reranker; /* fall through */
    case PART_SIZE: *(size_t *)(void *)field = (size_t)value; break;
    }
    return true;
}

static bool read_setting(const char *setting, const RagReranker *reranker, RagSearchOptions *how,
                         Error *err) {
    *how = (RagSearchOptions){0};
    bool ok = true;
    for (const char *at = setting; ok && at; at = strchr(at, '+') ? strchr(at, '+') + 1 : NULL) {
        char *word = base_strndup(at, strcspn(at, "+")), *number = strchr(word, '=');
        if (number) *number++ = '\0';
        const Part *part = NULL;
        for (size_t i = 0; i < BASE_COUNT(parts); i++)
            if (strcmp(parts[i].name, word) == 0) part = &parts[i];
        ok = part ? set_part(how, part, number, reranker, setting, err)
                  : base_fail(err, ERROR_INPUT, "setting %s: there is no \"%s\"", setting, word);
        if (!part)
            base_hint(err, "Known: hybrid, vectors, words, rerank, mmr, section, candidates, "
                           "dense-weight, lexical-weight, rank-constant.");
        free(word);
    }
    return ok;
}

/* ---- output ------------------------------------------------------------------------------ */

static double share(size_t part, size_t whole) {
    return whole ? (double)part / (double)whole : 0;
}

static void print_heading(const RagEvaluation *e, int width) {
    printf("%-*s", width, "setting");
    for (size_t c = 0; c < RAG_CUTS; c++) printf("  recall@%-3zu", e->cuts[c]);
    puts("    MRR   nDCG  citations  refused  wrongly   embed   dense   words  rerank   total     "
         "95%");
}

static void print_row(const char *name, const RagEvaluation *e, int width) {
    printf("%-*s", width, name);
    for (size_t c = 0; c < RAG_CUTS; c++) printf("  %10.3f", e->recall[c]);
    printf("  %.3f  %.3f", e->mrr, e->ndcg);
    if (e->n_citations)
        printf("  %9.3f", share(e->n_right, e->n_citations));
    else
        printf("  %9s", "-");
    printf("  %3zu/%-3zu  %3zu/%-3zu  %6.1f  %6.1f  %6.1f  %6.1f  %6.1f  %6.1f\n", e->refused_right,
           e->n_unanswerable, e->refused_wrong, e->n_questions - e->n_unanswerable, e->embed * 1e3,
           e->dense * 1e3, e->lexical * 1e3, e->rerank * 1e3, e->total * 1e3, e->total_95 * 1e3);
}

static json_t *row_json(const char *name, const RagEvaluation *e) {
    json_t *recall = json_object();
    for (size_t c = 0; c < RAG_CUTS; c++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", e->cuts[c]);
        json_object_set_new(recall, key, json_real(e->recall[c]));
    }
    return json_pack(
        "{s:s, s:I, s:I, s:o, s:f, s:f, s:o, s:I, s:I, s:I, s:{s:f, s:f, s:f, s:f, s:f, s:f}}",
        "setting", name, "questions", (json_int_t)e->n_questions, "unanswerable",
        (json_int_t)e->n_unanswerable, "recall", recall, "mrr", e->mrr, "ndcg", e->ndcg,
        "citation_precision",
        e->n_citations ? json_real(share(e->n_right, e->n_citations)) : json_null(), "citations",
        (json_int_t)e->n_citations, "refused_right", (json_int_t)e->refused_right, "refused_wrong",
        (json_int_t)e->refused_wrong, "seconds", "embed", e->embed, "dense", e->dense, "lexical",
        e->lexical, "rerank", e->rerank, "total", e->total, "total_95", e->total_95);
}

/* ---- the command --------------------------------------------------------------------------- */

typedef struct Session {
    const EvalArguments *arguments;
    RagQuestions questions;
    RagEmbedder embedder;
    RagReranker reranker;
    RagGenerator generator;
    RagIndex *index;
    bool has_embedder, has_reranker, has_generator;
} Session;

static bool open_session(Session *s, Error *err) {
    const EvalArguments *a = s->arguments;
    if (a->k.value < 1 || a->k.value > 1000)
        return base_fail(err, ERROR_INPUT, "--k must be between 1 and 1000");
    if (!rag_questions_load(a->questions, &s->questions, err)) return false;
    if (a->embedder && !(s->has_embedder = rag_embedder_open(a->embedder, &s->embedder, err)))
        return false;
    if (a->reranker && !(s->has_reranker = rag_reranker_open(a->reranker, &s->reranker, err)))
        return false;
    if (a->model && !(s->has_generator = rag_generator_open(a->model, &s->generator, err)))
        return false;
    s->index = rag_index_open(a->index, RAG_READ, s->has_embedder ? &s->embedder : NULL, err);
    return s->index != NULL;
}

static void close_session(Session *s) {
    rag_index_close(s->index);
    if (s->has_generator) rag_generator_close(&s->generator);
    if (s->has_reranker) rag_reranker_close(&s->reranker);
    if (s->has_embedder) rag_embedder_close(&s->embedder);
    rag_questions_free(&s->questions);
}

/* Those that the models at hand allow; the list is static. */
static OptionList default_settings(const Session *s) {
    static const char *all[] = {"words",        "vectors",       "hybrid",           "hybrid+mmr",
                                "words+rerank", "hybrid+rerank", "hybrid+rerank+mmr"};
    static const char *words[] = {"words", "words+rerank"};
    if (s->has_embedder) return (OptionList){all, s->has_reranker ? 7 : 4};
    return (OptionList){words, s->has_reranker ? 2 : 1};
}

static void on_question(void *context, size_t done) {
    Progress *progress = context;
    base_progress_update(progress, (double)done);
}

static bool run_setting(Session *s, const char *setting, const RagSearchOptions *how,
                        RagEvaluation *result, Error *err) {
    Progress progress = base_progress_start(setting, "questions", (double)s->questions.count);
    progress.json = s->arguments->json;
    RagEvaluateOptions options = {.k = (size_t)s->arguments->k.value,
                                  .answers = !s->arguments->no_answers,
                                  .generator = s->has_generator ? &s->generator : NULL,
                                  .on_question = on_question,
                                  .context = &progress};
    bool ok = rag_evaluate(s->index, s->has_embedder ? &s->embedder : NULL, &s->questions, how,
                           &options, result, err);
    base_progress_end(&progress);
    return ok;
}

static bool run_all(Session *s, Error *err) {
    OptionList settings =
        s->arguments->settings.count ? s->arguments->settings : default_settings(s);
    RagSearchOptions *how = base_calloc(settings.count, sizeof *how);
    int width = 8;
    bool ok = true;
    for (size_t i = 0; ok && i < settings.count; i++) {
        ok = read_setting(settings.items[i], s->has_reranker ? &s->reranker : NULL, &how[i], err);
        if (ok && how[i].mode != RAG_LEXICAL && !s->has_embedder)
            ok = base_fail(err, ERROR_INPUT, "setting %s needs --embedder", settings.items[i]);
        width = BASE_MAX(width, (int)strlen(settings.items[i]));
    }
    for (size_t i = 0; ok && i < settings.count; i++) {
        RagEvaluation result;
        ok = run_setting(s, settings.items[i], &how[i], &result, err);
        if (ok && s->arguments->json) {
            output_json(row_json(settings.items[i], &result));
        } else if (ok) {
            if (!i) print_heading(&result, width);
            print_row(settings.items[i], &result, width);
            fflush(stdout);
        }
    }
    free(how);
    return ok;
}

static int run(const void *given, Error *err) {
    Session session = {.arguments = given};
    bool good = open_session(&session, err) && run_all(&session, err);
    close_session(&session);
    return good ? 0 : 1;
}

const Command eval_rag_command = {
    .name = "eval-rag",
    .summary = "Measures how well an index finds what questions ask for.",
    .details = "recall@k, MRR and nDCG are means over the questions that have an answer in the\n"
               "documents; citations is the share that name a place of the answer; refused and\n"
               "wrongly count refusals of questions without and with an answer; times are\n"
               "milliseconds a question.",
    OPTIONS(option_table),
    .arguments_size = sizeof(EvalArguments),
    .run = run};
