/* Tasks: which answer a model finds likeliest, and how often that is the right one.
 * Requests, metrics and their names are the lm-evaluation-harness's. */
#include "lm/evaluate.h"
#include "lm/score.h"
#include "lm/task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The mean of numbers and, from two on, its standard error. */
typedef struct Mean {
    size_t count;
    double sum, squares;
} Mean;

static void mean_add(Mean *mean, double value) {
    mean->count++;
    mean->sum += value;
    mean->squares += value * value;
}

static double mean_of(const Mean *mean) {
    return mean->sum / (double)mean->count;
}

static double mean_error(const Mean *mean) {
    double count = (double)mean->count, average = mean_of(mean);
    double variance = (mean->squares - count * average * average) / (count - 1);
    return sqrt(fmax(variance, 0) / count);
}

typedef struct Tally {
    Mean right, right_by_length, logprob;
} Tally;

/* ---- one question ---------------------------------------------------------------------- */

static double characters(const char *text) {
    size_t count = 0;
    for (; *text; text++) count += ((unsigned char)*text & 0xc0) != 0x80;
    return (double)count;
}

static size_t best_of(const double *values, size_t count) {
    size_t best = 0;
    for (size_t i = 1; i < count; i++) best = values[i] > values[best] ? i : best;
    return best;
}

static void tally_choice(const LmQuestion *question, const LmScore *scores, Tally *tally) {
    double *plain = base_alloc(2 * question->count * sizeof *plain),
           *by_length = plain + question->count;
    for (size_t i = 0; i < question->count; i++) {
        plain[i] = scores[i].logprob;
        by_length[i] = scores[i].logprob / characters(question->choices[i]);
    }
    size_t gold = (size_t)question->gold;
    mean_add(&tally->right, best_of(plain, question->count) == gold);
    mean_add(&tally->right_by_length, best_of(by_length, question->count) == gold);
    free(plain);
}

static bool score_question(LmScorer *scorer, const LmQuestion *question, LmScore *scores,
                           Error *err) {
    const char *const *continuations = (const char *const *)question->continuations;
    if (!question->many_contexts)
        return lm_score(scorer, question->contexts[0], continuations, question->count, scores, err);
    for (size_t i = 0; i < question->count; i++) {
        if (!lm_score(scorer, question->contexts[i], &continuations[i], 1, &scores[i], err))
            return false;
    }
    return true;
}

static bool ask(LmTask *task, LmModel *model, LmScorer *scorer, uint32_t index, Tally *tally,
                Error *err) {
    LmQuestion question;
    if (!lm_task_question(task, model, index, &question, err)) return false;
    LmScore *scores = base_alloc(question.count * sizeof *scores);
    bool ok = score_question(scorer, &question, scores, err);
    if (ok && lm_task_has_perplexity(task)) {
        mean_add(&tally->right, scores[0].greedy);
        mean_add(&tally->logprob, scores[0].logprob);
    } else if (ok) {
        tally_choice(&question, scores, tally);
    }
    free(scores);
    lm_question_free(&question);
    return ok;
}

/* ---- the task ------------------------------------------------------------------------------ */

char *lm_task_name(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    char *whole = base_strndup(path, length);
    const char *name = base_path_name(whole);
    size_t kept = strlen(name) - (base_ends_with(name, ".jsonl") ? strlen(".jsonl") : 0);
    char *task = base_strndup(name, kept);
    free(whole);
    return task;
}

static void report(json_t *result, const char *metric, double value, double error, size_t count) {
    char *name = base_format("%s,none", metric),
         *error_name = base_format("%s_stderr,none", metric);
    json_object_set_new(result, name, json_real(value));
    json_object_set_new(result, error_name, count > 1 ? json_real(error) : json_string("N/A"));
    free(name);
    free(error_name);
}

static void report_mean(json_t *result, const char *metric, const Mean *mean) {
    report(result, metric, mean_of(mean), mean_error(mean), mean->count);
}

static json_t *summary(const LmTask *task, const char *path, const Tally *tally) {
    char *name = lm_task_name(path);
    json_t *result =
        json_pack("{s:s,s:I}", "alias", name, "sample_len", (json_int_t)tally->right.count);
    free(name);
    if (lm_task_has_perplexity(task)) {
        double perplexity = exp(-mean_of(&tally->logprob));
        report(result, "perplexity", perplexity, perplexity * mean_error(&tally->logprob),
               tally->logprob.count);
    }
    report_mean(result, "acc", &tally->right);
    if (lm_task_has_norm(task)) report_mean(result, "acc_norm", &tally->right_by_length);
    return result;
}

json_t *lm_evaluate(LmModel *model, const char *path, const LmTaskOptions *options, Error *err) {
    LmTaskPrompt prompt = {.num_shots = options->num_shots,
                           .seed = options->seed,
                           .templated = options->templated,
                           .multiturn = options->multiturn,
                           .template_options = options->template_options};
    LmTask *task = lm_task_open(path, &prompt, err);
    LmScorer *scorer =
        task ? lm_scorer_new(model, options->templated, options->max_tokens, err) : NULL;
    uint32_t count = task ? lm_task_count(task) : 0;
    if (options->limit > 0) count = BASE_MIN(count, (uint32_t)options->limit);
    Tally tally = {0};
    bool ok = scorer != NULL;
    for (uint32_t i = 0; ok && i < count; i++) {
        ok = ask(task, model, scorer, i, &tally, err);
        if (ok && base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
        if (ok && options->progress) options->progress(options->context, i + 1, count);
    }
    json_t *result = ok ? summary(task, path, &tally) : NULL;
    lm_scorer_free(scorer);
    lm_task_close(task);
    return result;
}
