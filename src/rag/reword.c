/* Questions in a model's words; see rag_reword. What a model says beside the question
 * (a thought, a label, quotation marks, a second line) is left out. */
#include <ctype.h>
#include <string.h>

#include "rag/prompt.h"
#include "rag/show.h"

#define MAX_TOKENS 64
#define MAX_THOUGHT 1024 /* tokens, of a model that thinks first */
#define MAX_BYTES 400
#define MAX_TURNS 3
#define TURN_BYTES 600

static const char search_system[] =
    "Rewrite the question as one short search query with the words that a text answering it would "
    "use. Write only the query.";
static const char follow_system[] =
    "Rewrite the last question of the conversation so that it can be understood alone: replace "
    "words like \"it\" and \"that\" by what they stand for. Write only the question.";

static char *conversation(const char *question, const RagTurn *turns, size_t n_turns) {
    StrBuf text = {0};
    size_t first = n_turns > MAX_TURNS ? n_turns - MAX_TURNS : 0;
    char *asked = rag_clean_line(question, strlen(question));
    for (size_t i = first; i < n_turns; i++) {
        char *before = rag_clean_line(turns[i].question, strlen(turns[i].question));
        char *answer = rag_clean_line(turns[i].answer, strlen(turns[i].answer));
        base_str_appendf(&text, "Question: %s\nAnswer: %.*s\n", before,
                         (int)rag_utf8_floor(answer, strlen(answer), TURN_BYTES), answer);
        free(before);
        free(answer);
    }
    base_str_appendf(&text, n_turns ? "Last question: %s" : "Question: %s", asked);
    free(asked);
    return base_str_detach(&text);
}

/* Where what is said begins: behind a thought, spaces and line ends. */
static const char *spoken(const char *text) {
    const char *thought = strstr(text, "</think>");
    if (thought) text = thought + strlen("</think>");
    while (isspace((unsigned char)*text)) text++;
    return text;
}

/* A whole line that is not a thought was said, or more than is wanted. */
static bool is_said(const char *text) {
    text = spoken(text);
    if (strncmp(text, "<think>", 7) == 0) return false;
    return strchr(text, '\n') || strlen(text) > MAX_BYTES;
}

static bool take_text(void *context, const char *text, size_t length) {
    StrBuf *said = context;
    rag_clean_append(said, text, length);
    return !said->length || !is_said(said->data);
}

static char *cleaned(const char *text) {
    static const char *const labels[] = {
        "query:", "question:", "search query:", "rewritten question:", "last question:"};
    text = spoken(text);
    if (strncmp(text, "<think>", 7) == 0) return base_strdup("");
    for (size_t i = 0; i < BASE_COUNT(labels); i++)
        if (strncasecmp(text, labels[i], strlen(labels[i])) == 0)
            text = spoken(text + strlen(labels[i]));
    size_t length = strcspn(text, "\n");
    while (length && strchr("\"'*` ", *text)) text++, length--;
    while (length && strchr("\"'*` ", text[length - 1])) length--;
    return rag_clean_line(text, rag_utf8_floor(text, length, MAX_BYTES));
}

char *rag_reword(const RagGenerator *generator, const char *question, const RagTurn *turns,
                 size_t n_turns, Error *err) {
    size_t answer = MAX_TOKENS + MAX_THOUGHT;
    size_t most = generator->context_tokens > 2 * answer ? answer : MAX_TOKENS;
    size_t room = generator->context_tokens > most ? generator->context_tokens - most : 0;
    RagPrompt prompt;
    char *user = conversation(question, turns, n_turns);
    bool ok = rag_prompt_plain(generator, n_turns ? follow_system : search_system, user, room,
                               &prompt, err);
    free(user);
    if (!ok) return NULL;
    StrBuf said = {0};
    RagGeneration generation;
    ok = generator->generate(generator->context, prompt.ids, prompt.count, most, take_text, &said,
                             &generation, err);
    free(prompt.ids);
    char *reworded = ok ? cleaned(said.data ? said.data : "") : NULL;
    base_str_free(&said);
    if (reworded && !*reworded) {
        free(reworded);
        reworded = NULL;
    }
    return reworded;
}
