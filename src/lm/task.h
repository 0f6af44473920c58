/* Questions with answers to choose from, out of records of well-known forms. */
#ifndef LM_TASK_H
#define LM_TASK_H

#include "lm/records.h"

typedef struct LmTask LmTask;

/* What a model is asked about one record. Either one context with a continuation a
 * choice, or (Winogrande) a context a choice with the same continuation. */
typedef struct LmQuestion {
    char **contexts, **continuations;
    char **choices; /* the answers alone, whose lengths acc_norm divides by */
    size_t count;
    bool many_contexts;
    int gold; /* which choice is right; -1: none */
} LmQuestion;

typedef struct LmTaskPrompt {
    int num_shots;
    uint64_t seed;
    bool templated, multiturn;
    const json_t *template_options;
} LmTaskPrompt;

/* path: a jsonl file, or a folder with test.jsonl, validation.jsonl or valid.jsonl
 * and, for examples, train.jsonl or dev.jsonl. NULL on failure; caller frees with
 * lm_task_close. */
LmTask *lm_task_open(const char *path, const LmTaskPrompt *prompt, Error *err);
void lm_task_close(LmTask *task); /* NULL ok */
uint32_t lm_task_count(const LmTask *task);
/* Which numbers are usual for the task's form. */
bool lm_task_has_norm(const LmTask *task);       /* acc_norm */
bool lm_task_has_perplexity(const LmTask *task); /* one continuation, acc: it is greedy */
/* The question of a record, asked in the records' order (examples are drawn one
 * after another). Free with lm_question_free. */
bool lm_task_question(LmTask *task, LmModel *model, uint32_t index, LmQuestion *question,
                      Error *err);
void lm_question_free(LmQuestion *question);

#endif
