/* Questions out of records: the form's templates are rendered, examples drawn and
 * put before, and the whole becomes plain text or a chat, as the
 * lm-evaluation-harness does it. */
#include "lm/task.h"

#include "lm/task_form.h"

#include <stdlib.h>
#include <string.h>

struct LmTask {
    LmTaskPrompt prompt;
    LmRecords *records, *examples; /* the latter may be the former */
    bool own_examples;             /* they are a file of their own */
    bool tested;                   /* the records are a test split */
    const TaskForm *form;
    TextTemplate *text, *target, *description, *choices[FORM_CHOICES];
    MersenneTwister twister;
};

/* ---- opening ------------------------------------------------------------------------- */

static bool parse(const char *source, TextTemplate **template, Error *err) {
    if (!source) return true;
    *template = text_template_parse(source, strlen(source), err);
    return *template != NULL;
}

static bool parse_form(LmTask *task, Error *err) {
    const TaskForm *form = task->form;
    bool ok = parse(form->text, &task->text, err) && parse(form->target, &task->target, err) &&
              parse(form->description, &task->description, err);
    for (size_t i = 0; ok && i < FORM_CHOICES; i++)
        ok = parse(form->choices[i], &task->choices[i], err);
    return ok;
}

static bool find_form(LmTask *task, Error *err) {
    json_t *first = lm_records_get(task->records, 0, err);
    if (!first) return false;
    task->form = lm_task_form(first);
    json_decref(first);
    if (task->form) return parse_form(task, err);
    char *known = lm_task_forms();
    base_fail(err, ERROR_INPUT, "%s: is no task of a known form. Keys of those: %s",
              lm_records_file(task->records), known);
    free(known);
    return false;
}

/* A file of examples beside the records, else the records themselves. */
static bool find_examples(LmTask *task, const char *path, Error *err) {
    static const char *const splits[] = {"train", "dev", NULL};
    task->examples = task->records;
    bool any = false;
    for (size_t i = 0; base_is_dir(path) && splits[i]; i++) {
        char *name = base_format("%s/%s.jsonl", path, splits[i]);
        any |= base_is_file(name);
        free(name);
    }
    if (!any || task->prompt.num_shots == 0) return true;
    task->examples = lm_records_open(path, splits, err);
    task->own_examples = task->examples != NULL;
    return task->own_examples;
}

static bool check_shots(const LmTask *task, Error *err) {
    uint32_t count = lm_records_count(task->examples);
    uint32_t wanted = (uint32_t)task->prompt.num_shots + !task->own_examples;
    if (task->prompt.num_shots == 0 || wanted <= count) return true;
    return base_fail(err, ERROR_INPUT, "%s: num-shots %d needs %u records, there are %u",
                     lm_records_file(task->examples), task->prompt.num_shots, wanted, count);
}

LmTask *lm_task_open(const char *path, const LmTaskPrompt *prompt, Error *err) {
    static const char *const splits[] = {"test", "validation", "valid", NULL};
    LmTask *task = base_calloc(1, sizeof *task);
    task->prompt = *prompt;
    base_mersenne_python(&task->twister, prompt->seed);
    task->records = lm_records_open(path, splits, err);
    bool ok = task->records && find_form(task, err) && find_examples(task, path, err) &&
              check_shots(task, err);
    if (ok) {
        task->tested = base_ends_with(lm_records_file(task->records), "/test.jsonl");
        return task;
    }
    lm_task_close(task);
    return NULL;
}

void lm_task_close(LmTask *task) {
    if (!task) return;
    if (task->own_examples) lm_records_close(task->examples);
    lm_records_close(task->records);
    text_template_free(task->text);
    text_template_free(task->target);
    text_template_free(task->description);
    for (size_t i = 0; i < FORM_CHOICES; i++) text_template_free(task->choices[i]);
    free(task);
}

uint32_t lm_task_count(const LmTask *task) {
    return lm_records_count(task->records);
}

bool lm_task_has_norm(const LmTask *task) {
    return task->form->norm;
}

bool lm_task_has_perplexity(const LmTask *task) {
    return task->form->target && !task->form->many_contexts;
}

/* ---- the parts of a record --------------------------------------------------------------- */

/* HellaSwag's texts keep marks of WikiHow: " [title]" ends a sentence, other
 * brackets go, and so do double spaces. In place. */
static void clean_wikihow(char *text) {
    char *out = text, *in = text;
    for (char *title = text; (title = strstr(title, " [title]")) != NULL; title += 2) {
        title[0] = '.';
        title[1] = ' ';
        memmove(title + 2, title + 8, strlen(title + 8) + 1);
    }
    while (*in) {
        size_t inside = strcspn(in, "]\n");
        if (*in == '[' && in[inside] == ']') {
            in += inside + 1;
        } else {
            *out++ = *in++;
        }
    }
    *out = '\0';
    out = in = text;
    for (; *in; *out++ = *in++) in += in[0] == ' ' && in[1] == ' ';
    *out = '\0';
}

/* What follows leading and before trailing white space, a copy. */
static char *stripped(const char *text) {
    static const char space[] = " \t\n\v\f\r";
    text += strspn(text, space);
    size_t length = strlen(text);
    while (length && strchr(space, text[length - 1])) length--;
    return base_strndup(text, length);
}

static char *render(const LmTask *task, const TextTemplate *template, const json_t *record,
                    Error *err) {
    char *text = text_template_render(template, record, NULL, err);
    if (text && task->form->wikihow) clean_wikihow(text);
    return text;
}

/* The value at "choices.text". */
static const json_t *at_path(const json_t *record, const char *path) {
    const char *dot = strchr(path, '.');
    if (!dot) return json_object_get(record, path);
    char key[32];
    snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
    return json_object_get(json_object_get(record, key), dot + 1);
}

/* What is asked about a record, before examples. */
typedef struct Parts {
    char *text, *target;
    char **choices;
    size_t count;
    int gold;
} Parts;

static void parts_free(Parts *parts) {
    for (size_t i = 0; i < parts->count; i++) free(parts->choices[i]);
    free(parts->choices);
    free(parts->text);
    free(parts->target);
}

static bool read_choices(const LmTask *task, const LmRecords *records, uint32_t index,
                         const json_t *record, Parts *parts, Error *err) {
    const TaskForm *form = task->form;
    const json_t *list = form->list ? at_path(record, form->list) : NULL;
    if (form->list && json_array_size(list) == 0)
        return lm_records_fail(records, index, "needs a list of choices", err);
    size_t count = list ? json_array_size(list) : FORM_CHOICES;
    parts->choices = base_calloc(count, sizeof *parts->choices);
    for (size_t i = 0; i < count; i++) {
        if (!list && !task->choices[i]) break;
        const char *text = list ? json_string_value(json_array_get(list, i)) : NULL;
        if (list && (!text || !*text))
            return lm_records_fail(records, index, "a choice is not a text", err);
        char *choice = list && form->wikihow ? stripped(text)
                       : list                ? base_strdup(text)
                                             : render(task, task->choices[i], record, err);
        if (!choice) return false;
        if (list && form->wikihow) clean_wikihow(choice);
        parts->choices[parts->count++] = choice;
    }
    return true;
}

static int find_text(const json_t *list, const char *text) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *item = json_string_value(json_array_get(list, i));
        if (item && strcmp(item, text) == 0) return (int)i;
    }
    return -1;
}

/* A number, a label, a choice's text, or a letter; -1: none of these. */
static int read_gold(const TaskForm *form, const json_t *record, const Parts *parts) {
    const json_t *answer = NULL;
    for (size_t i = 0; i < BASE_COUNT(form->gold) && form->gold[i] && !answer; i++)
        answer = json_object_get(record, form->gold[i]);
    int most = (int)parts->count, first = form->from_one ? 1 : 0, found = -1;
    if (json_is_boolean(answer)) found = json_is_true(answer);
    if (json_is_integer(answer)) {
        json_int_t number = json_integer_value(answer) - first;
        found = number >= 0 && number < most ? (int)number : -1;
    }
    const char *text = json_string_value(answer);
    if (text) {
        text += strspn(text, " ");
        char *end;
        long number = strtol(text, &end, 10) - first;
        if (form->labels) {
            found = find_text(at_path(record, form->labels), text);
        } else if (*text >= '0' && *text <= '9' && *end == '\0') {
            found = number >= 0 && number < most ? (int)number : -1;
        } else {
            for (int i = 0; i < most && found < 0; i++)
                if (strcmp(parts->choices[i], text) == 0) found = i;
            if (found < 0 && text[0] >= 'A' && text[0] <= 'Z' && text[1] == '\0')
                found = text[0] - 'A';
        }
    }
    return found < most ? found : -1;
}

static bool read_parts(const LmTask *task, const LmRecords *records, uint32_t index,
                       const json_t *record, Parts *parts, Error *err) {
    *parts = (Parts){.gold = -1};
    bool ok = (!task->text || (parts->text = render(task, task->text, record, err)) != NULL) &&
              (!task->target || (parts->target = render(task, task->target, record, err)) != NULL);
    if (!ok) {
        char *file = base_format("%s: record %u", lm_records_file(records), index + 1);
        base_error_context(err, "%s", file);
        free(file);
        return false;
    }
    if (!read_choices(task, records, index, record, parts, err)) return false;
    if (lm_task_has_perplexity(task)) return true;
    parts->gold = read_gold(task->form, record, parts);
    return parts->gold >= 0 ||
           lm_records_fail(records, index, "does not say which choice is right", err);
}

/* ---- the prompt ---------------------------------------------------------------------------- */

/* Turns of a conversation; each knows what follows it in plain text. */
typedef struct Turn {
    const char *role;
    char *text;
    const char *delimiter;
} Turn;

typedef struct Turns {
    Turn *items;
    size_t count, capacity;
} Turns;

static void add_turn(Turns *turns, const char *role, const char *text, const char *delimiter) {
    turns->items = base_grow(turns->items, &turns->capacity, turns->count + 1, sizeof(Turn));
    turns->items[turns->count++] = (Turn){role, base_strdup(text), delimiter};
}

static void turns_free(Turns *turns) {
    for (size_t i = 0; i < turns->count; i++) free(turns->items[i].text);
    free(turns->items);
}

static bool add_example(const LmTask *task, uint32_t index, Turns *turns, Error *err) {
    json_t *record = lm_records_get(task->examples, index, err);
    if (!record) return false;
    Parts parts;
    bool ok = read_parts(task, task->examples, index, record, &parts, err);
    if (ok) {
        bool contexts = task->form->many_contexts;
        add_turn(turns, "user", contexts ? parts.choices[parts.gold] : parts.text, " ");
        add_turn(turns, "assistant", parts.target ? parts.target : parts.choices[parts.gold],
                 "\n\n");
    }
    parts_free(&parts);
    json_decref(record);
    return ok;
}

static bool is_record(const LmTask *task, uint32_t index, const json_t *record) {
    json_t *other = lm_records_get(task->examples, index, NULL);
    bool same = other && json_equal(other, record);
    json_decref(other);
    return same;
}

static bool too_few(const LmTask *task, Error *err) {
    return base_fail(err, ERROR_INPUT, "%s: num-shots %d needs more different records",
                     lm_records_file(task->examples), task->prompt.num_shots);
}

/* Draws until none of the chosen is the record itself, which the harness wants where
 * no test split stands apart. chosen has room for one more than num_shots. */
static bool draw(LmTask *task, const json_t *record, uint32_t *chosen, Error *err) {
    uint32_t count = lm_records_count(task->examples), shots = (uint32_t)task->prompt.num_shots;
    if (task->form->first_examples) {
        uint32_t found = 0;
        for (uint32_t i = 0; found < shots && i < count; i++) {
            if (task->own_examples || !is_record(task, i, record)) chosen[found++] = i;
        }
        return found == shots || too_few(task, err);
    }
    if (task->own_examples && task->tested) {
        base_mersenne_sample(&task->twister, count, shots, chosen);
        return true;
    }
    uint32_t kept = 0, drawn = BASE_MIN(shots + 1, count);
    base_mersenne_sample(&task->twister, count, drawn, chosen);
    for (uint32_t i = 0; i < drawn; i++) {
        if (!is_record(task, chosen[i], record)) chosen[kept++] = chosen[i];
    }
    if (kept >= shots) return true;
    /* The record is there more than once: draw from the others. */
    uint32_t *others = base_alloc((count + 1) * sizeof *others), pool = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!is_record(task, i, record)) others[pool++] = i;
    }
    bool enough = pool >= shots;
    if (enough) base_mersenne_sample(&task->twister, pool, shots, chosen);
    for (uint32_t i = 0; enough && i < shots; i++) chosen[i] = others[chosen[i]];
    free(others);
    return enough || too_few(task, err);
}

static bool add_examples(LmTask *task, const json_t *record, Turns *turns, Error *err) {
    size_t shots = (size_t)task->prompt.num_shots;
    if (shots == 0) return true;
    uint32_t *chosen = base_alloc((shots + 1) * sizeof *chosen);
    bool ok = draw(task, record, chosen, err);
    for (size_t i = 0; ok && i < shots; i++) ok = add_example(task, chosen[i], turns, err);
    free(chosen);
    return ok;
}

static void add_message(json_t *messages, const char *role, const char *text) {
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", role, "content", text));
}

/* Plain text, or what the chat template makes of the turns; of the last one only the
 * text counts. One user turn holds all of them unless they may be several. */
static char *finish_context(const LmTask *task, LmModel *model, const Turns *turns, Error *err) {
    StrBuf plain = {0};
    json_t *messages = json_array();
    for (size_t i = 0; i < turns->count; i++) {
        const Turn *turn = &turns->items[i];
        bool alone = strcmp(turn->role, "system") == 0 || task->prompt.multiturn;
        if (task->prompt.templated && alone) {
            add_message(messages, turn->role, turn->text);
            continue;
        }
        base_str_append(&plain, turn->text);
        if (i + 1 < turns->count) base_str_append(&plain, turn->delimiter);
    }
    char *text = base_str_detach(&plain);
    if (task->prompt.templated) {
        if (!task->prompt.multiturn) add_message(messages, "user", text);
        free(text);
        LmChatOptions chat = {.template_options = task->prompt.template_options};
        text = lm_chat_text(model, messages, &chat, err);
    }
    json_decref(messages);
    return text;
}

/* ---- the question ---------------------------------------------------------------------------- */

/* The context of one last turn after `turns`. */
static char *context_of(const LmTask *task, LmModel *model, Turns *turns, const char *last,
                        Error *err) {
    add_turn(turns, "user", last, "");
    char *text = finish_context(task, model, turns, err);
    free(turns->items[--turns->count].text);
    return text;
}

static bool fill(const LmTask *task, LmModel *model, Turns *turns, Parts *parts,
                 LmQuestion *question, Error *err) {
    bool many = task->form->many_contexts, only = lm_task_has_perplexity(task);
    question->count = only ? 1 : parts->count;
    question->many_contexts = many;
    question->gold = parts->gold;
    question->contexts = base_calloc(question->count, sizeof(char *));
    question->continuations = base_calloc(question->count, sizeof(char *));
    const char *delimiter = task->prompt.templated || only ? "" : " ";
    for (size_t i = 0; i < question->count; i++) {
        const char *answer = parts->target ? parts->target : parts->choices[i];
        question->continuations[i] = base_format("%s%s", delimiter, answer);
        if (i > 0 && !many) continue;
        question->contexts[i] =
            context_of(task, model, turns, many ? parts->choices[i] : parts->text, err);
        if (!question->contexts[i]) return false;
    }
    question->choices = parts->choices;
    parts->choices = NULL;
    if (only) {
        free(question->choices);
        question->choices = NULL;
    }
    parts->count = 0;
    return true;
}

bool lm_task_question(LmTask *task, LmModel *model, uint32_t index, LmQuestion *question,
                      Error *err) {
    *question = (LmQuestion){0};
    json_t *record = lm_records_get(task->records, index, err);
    if (!record) return false;
    Turns turns = {0};
    Parts parts = {0};
    bool ok = true;
    if (task->description) {
        char *text = render(task, task->description, record, err);
        if (text) add_turn(&turns, "system", text, "");
        ok = text != NULL;
        free(text);
    }
    ok = ok && add_examples(task, record, &turns, err) &&
         read_parts(task, task->records, index, record, &parts, err) &&
         fill(task, model, &turns, &parts, question, err);
    parts_free(&parts);
    turns_free(&turns);
    json_decref(record);
    if (!ok) lm_question_free(question);
    return ok;
}

void lm_question_free(LmQuestion *question) {
    for (size_t i = 0; i < question->count; i++) {
        if (question->contexts) free(question->contexts[i]);
        if (question->continuations) free(question->continuations[i]);
        if (question->choices) free(question->choices[i]);
    }
    free(question->contexts);
    free(question->continuations);
    free(question->choices);
    *question = (LmQuestion){0};
}
