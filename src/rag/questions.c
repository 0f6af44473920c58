/* Questions with the places of their answers, from JSON lines; see evaluate.h. */
#include <ctype.h>
#include <string.h>

#include "rag/evaluate.h"
#include "rag/show.h"

static char *copy_text(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? base_strdup(text) : NULL;
}

static bool is_text_or_absent(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return !value || (json_is_string(value) && *json_string_value(value));
}

/* What is wrong with one place, or NULL; static. */
static const char *wrong_place(const json_t *place) {
    static const char *const keys[] = {"document", "heading", "text"};
    const char *key;
    json_t *value;
    if (!json_is_object(place) || !json_object_size(place))
        return "\"relevant\" lists objects with document, heading or text";
    for (size_t i = 0; i < BASE_COUNT(keys); i++)
        if (!is_text_or_absent(place, keys[i])) return "document, heading and text are texts";
    json_object_foreach((json_t *)place, key, value) {
        bool known = false;
        for (size_t i = 0; i < BASE_COUNT(keys); i++) known |= strcmp(key, keys[i]) == 0;
        if (!known) return "a place has document, heading and text only";
    }
    return NULL;
}

static const char *wrong_line(const json_t *line) {
    const json_t *places = json_object_get(line, "relevant");
    const char *question = json_string_value(json_object_get(line, "question")), *wrong = NULL;
    if (!question || !*question) return "\"question\" is missing";
    if (!json_is_array(places)) return "\"relevant\" is not a list";
    for (size_t i = 0; !wrong && i < json_array_size(places); i++)
        wrong = wrong_place(json_array_get(places, i));
    return wrong;
}

static void add(RagQuestions *questions, const json_t *line) {
    const json_t *places = json_object_get(line, "relevant");
    questions->items = base_grow(questions->items, &questions->capacity, questions->count + 1,
                                 sizeof *questions->items);
    RagQuestion *one = &questions->items[questions->count++];
    *one =
        (RagQuestion){.text = copy_text(line, "question"), .n_expected = json_array_size(places)};
    one->expected = base_calloc(one->n_expected + 1, sizeof *one->expected);
    for (size_t i = 0; i < one->n_expected; i++) {
        const json_t *place = json_array_get(places, i);
        one->expected[i] = (RagExpected){copy_text(place, "document"), copy_text(place, "heading"),
                                         copy_text(place, "text")};
    }
}

static bool read_line(const char *path, size_t number, const char *text, size_t length,
                      RagQuestions *questions, Error *err) {
    json_error_t where;
    json_t *line = json_loadb(text, length, 0, &where);
    const char *wrong = line ? wrong_line(line) : where.text;
    bool ok = !wrong || base_fail(err, ERROR_INPUT, "%s: line %zu: %s", path, number, wrong);
    if (ok) add(questions, line);
    json_decref(line);
    return ok;
}

bool rag_questions_load(const char *path, RagQuestions *questions, Error *err) {
    *questions = (RagQuestions){0};
    char *text = NULL;
    size_t length = 0, number = 0;
    if (!base_file_read(path, &text, &length, err)) return false;
    bool ok = true;
    for (size_t at = 0; ok && at < length;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - text) : length;
        number++;
        size_t first = at;
        while (first < end && isspace((unsigned char)text[first])) first++;
        if (first < end) ok = read_line(path, number, text + first, end - first, questions, err);
        at = end + 1;
    }
    free(text);
    if (ok && !questions->count) ok = base_fail(err, ERROR_INPUT, "%s: has no questions", path);
    return ok;
}

void rag_questions_free(RagQuestions *questions) {
    for (size_t i = 0; i < questions->count; i++) {
        RagQuestion *one = &questions->items[i];
        for (size_t k = 0; k < one->n_expected; k++)
            free(one->expected[k].document), free(one->expected[k].heading),
                free(one->expected[k].text);
        free(one->expected);
        free(one->text);
    }
    free(questions->items);
    *questions = (RagQuestions){0};
}

/* ---- matching ------------------------------------------------------------------- */

/* Whether `text` holds `part`, white space being one space and case none. */
static bool holds(const char *text, const char *part) {
    char *where = rag_clean_line(text, strlen(text)), *what = rag_clean_line(part, strlen(part));
    for (char *c = where; *c; c++) *c = (char)tolower((unsigned char)*c);
    for (char *c = what; *c; c++) *c = (char)tolower((unsigned char)*c);
    bool found = strstr(where, what) != NULL;
    free(where);
    free(what);
    return found;
}

static bool ends_path(const char *path, const char *end) {
    size_t length = strlen(path), tail = strlen(end);
    return tail <= length && strcmp(path + length - tail, end) == 0 &&
           (tail == length || path[length - tail - 1] == '/');
}

bool rag_expected_fits(const RagExpected *expected, const RagHit *hit) {
    return (!expected->document || ends_path(hit->document, expected->document)) &&
           (!expected->heading || holds(hit->heading, expected->heading)) &&
           (!expected->text || holds(hit->text, expected->text));
}
