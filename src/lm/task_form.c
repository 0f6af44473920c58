/* The table of forms. Prompts and metrics are those of EleutherAI's
 * lm-evaluation-harness 0.4, which mlx_lm.evaluate runs. */
#include "lm/task_form.h"

#define QUESTION "Question: {{question}}\nAnswer:"
#define LETTERED(question, a, b, c, d) \
    question "\nA. {{" a "}}\nB. {{" b "}}\nC. {{" c "}}\nD. {{" d "}}"

static const TaskForm forms[] = {
    {/* HellaSwag */
     .keys = {"activity_label", "ctx_a", "ctx_b", "endings", "label"},
     .text = "{{(activity_label ~ ': ' ~ ctx_a ~ ' ' ~ ctx_b.capitalize())|trim}}",
     .list = "endings",
     .gold = {"label"},
     .wikihow = true,
     .norm = true},
    {/* CommonsenseQA */
     .keys = {"question_concept", "question", "choices", "answerKey"},
     .text = LETTERED("Question: {{question.strip()}}", "choices.text[0]", "choices.text[1]",
                      "choices.text[2]", "choices.text[3]") "\nE. {{choices.text[4]}}\nAnswer:",
     .choices = {"A", "B", "C", "D", "E"},
     .gold = {"answerKey"}},
    {/* ARC */
     .keys = {"question", "choices", "answerKey"},
     .text = QUESTION,
     .list = "choices.text",
     .labels = "choices.label",
     .gold = {"answerKey"},
     .norm = true},
    {/* OpenBookQA */
     .keys = {"question_stem", "choices", "answerKey"},
     .text = "{{question_stem}}",
     .list = "choices.text",
     .labels = "choices.label",
     .gold = {"answerKey"},
     .norm = true},
    {/* PIQA */
     .keys = {"goal", "sol1", "sol2", "label"},
     .text = "Question: {{goal}}\nAnswer:",
     .choices = {"{{sol1}}", "{{sol2}}"},
     .gold = {"label"},
     .norm = true},
    {/* Winogrande */
     .keys = {"sentence", "option1", "option2", "answer"},
     .choices = {"{{sentence.split('_')[0]}}{{option1}}", "{{sentence.split('_')[0]}}{{option2}}"},
     .target = "{{sentence[sentence.find('_') + 1:].strip()}}",
     .gold = {"answer"},
     .many_contexts = true,
     .from_one = true},
    {/* MMLU */
     .keys = {"question", "subject", "choices", "answer"},
     .description = "The following are multiple choice questions (with answers) about "
                    "{{subject.replace('_', ' ') ~ '.\n\n'}}",
     .text = LETTERED("{{question.strip()}}", "choices[0]", "choices[1]", "choices[2]",
                      "choices[3]") "\nAnswer:",
     .choices = {"A", "B", "C", "D"},
     .gold = {"answer"},
     .first_examples = true},
    {/* BoolQ */
     .keys = {"passage", "question"},
     .text = "{{passage}}\nQuestion: {{question}}?\nAnswer:",
     .choices = {"no", "yes"},
     .gold = {"label", "answer"}},
    /* Anything with its choices in a list. */
    {.keys = {"question", "choices"},
     .text = QUESTION,
     .list = "choices",
     .gold = {"answer", "label", "gold"},
     .norm = true},
    {.keys = {"context", "choices"},
     .text = "{{context}}",
     .list = "choices",
     .gold = {"answer", "label", "gold"},
     .norm = true},
    {.keys = {"query", "choices"},
     .text = "{{query}}",
     .list = "choices",
     .gold = {"answer", "label", "gold"},
     .norm = true},
    {/* LAMBADA: the last word of a text */
     .keys = {"text"},
     .text = "{{text.split(' ')[:-1]|join(' ')}}",
     .target = " {{text.split(' ')[-1]}}"},
};

static bool has_keys(const TaskForm *form, const json_t *record) {
    for (size_t i = 0; i < FORM_KEYS && form->keys[i]; i++) {
        if (!json_object_get(record, form->keys[i])) return false;
    }
    return true;
}

const TaskForm *lm_task_form(const json_t *record) {
    for (size_t i = 0; i < BASE_COUNT(forms); i++) {
        if (has_keys(&forms[i], record)) return &forms[i];
    }
    return NULL;
}

char *lm_task_forms(void) {
    StrBuf text = {0};
    for (size_t i = 0; i < BASE_COUNT(forms); i++) {
        base_str_append(&text, i ? "; " : "");
        for (size_t k = 0; k < FORM_KEYS && forms[i].keys[k]; k++)
            base_str_appendf(&text, "%s%s", k ? ", " : "", forms[i].keys[k]);
    }
    return base_str_detach(&text);
}
