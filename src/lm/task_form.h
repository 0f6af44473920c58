/* The forms in which well-known tests are published, and how each is asked. */
#ifndef LM_TASK_FORM_H
#define LM_TASK_FORM_H

#include "base/base.h"

enum { FORM_KEYS = 5, FORM_CHOICES = 5 };

typedef struct TaskForm {
    const char *keys[FORM_KEYS];       /* a record of this form has all of them */
    const char *text;                  /* of the question; Jinja over the record */
    const char *list;                  /* where the choices stand: "choices.text"; NULL: next */
    const char *choices[FORM_CHOICES]; /* Jinja, one a choice */
    const char *labels;                /* list in which the answer is looked up */
    const char *gold[3];               /* keys of the answer; the first present counts */
    const char *description;           /* before everything; Jinja */
    const char *target;                /* many_contexts, or the only continuation; Jinja */
    bool many_contexts;                /* choices are contexts, target follows each */
    bool from_one;                     /* answers count from 1 */
    bool wikihow;                      /* texts carry WikiHow's brackets (HellaSwag) */
    bool first_examples;               /* examples are the first ones, not drawn */
    bool norm;
} TaskForm;

/* The first row whose keys the record has, or NULL. */
const TaskForm *lm_task_form(const json_t *record);
/* The keys of all rows, for messages; caller frees. */
char *lm_task_forms(void);

#endif
