/* From retrieved passages to a cited answer: refuse, or let the model speak and
 * then check every sentence. What no passage supports is not shown, or marked; when
 * nothing is supported, the passages speak for themselves. Citations are set here, by which
 * passage supports a sentence; the model's own numbers are only a hint. */
#include <ctype.h>
#include <string.h>

#include "rag/evidence.h"
#include "rag/prompt.h"
#include "rag/sentences.h"
#include "rag/show.h"

#define DEFAULT_MAX_TOKENS 160
#define SMALL_PASSAGES 3
#define LARGE_PASSAGES 5
#define SMALL_SENTENCES 2
#define MAX_CITED 16

/* ---- the model speaks ----------------------------------------------------- */

typedef struct Draft {
    StrBuf text;
    const RagAnswerOptions *options;
    size_t max_sentences; /* 0: no limit */
} Draft;

/* Whether the text holds `limit` whole sentences and the beginning of another:
 * small models say what they know first and repeat themselves then. */
static bool has_said_enough(const Draft *draft) {
    size_t at = 0, sentences = 0;
    while (draft->max_sentences && at < draft->text.length) {
        size_t end = rag_sentence_end(draft->text.data, draft->text.length, at);
        if (end >= draft->text.length) break;
        at = end;
        sentences++;
    }
    return draft->max_sentences && sentences >= draft->max_sentences;
}

static bool take_text(void *context, const char *text, size_t length) {
    Draft *draft = context;
    size_t before = draft->text.length;
    rag_clean_append(&draft->text, text, length);
    bool go_on = draft->text.length == before || !draft->options->on_text ||
                 draft->options->on_text(draft->options->on_text_context, draft->text.data + before,
                                         draft->text.length - before);
    /* A model that goes on to invent the next question is done. */
    return go_on && !(draft->text.length && strstr(draft->text.data, "\nQuestion:")) &&
           !has_said_enough(draft);
}

/* Where the last sentence that was not finished begins, when the model was
 * stopped in it and said something before; else the length. */
static size_t finished_length(const char *text, size_t length) {
    size_t start = 0;
    for (size_t at = 0; at < length; at = rag_sentence_end(text, length, at)) start = at;
    size_t last = length;
    while (last && strchr("\"')]*_ \n", text[last - 1])) last--;
    bool finished =
        last && (strchr(".!?:", text[last - 1]) || (unsigned char)text[last - 1] >= 0x80);
    return finished || !start ? length : start;
}

/* Without a reasoning block, the invented rest, and (stopped) the sentence that
 * was cut. */
static char *said(const Draft *draft, bool stopped) {
    const char *text = draft->text.data ? draft->text.data : "";
    const char *thought = strstr(text, "</think>");
    if (thought)
        text = thought + strlen("</think>");
    else if (strstr(text, "<think>"))
        text = ""; /* it never came to an answer */
    const char *next = strstr(text, "\nQuestion:");
    size_t length = next ? (size_t)(next - text) : strlen(text);
    while (length && isspace((unsigned char)*text)) text++, length--;
    if (stopped) length = finished_length(text, length);
    while (length && isspace((unsigned char)text[length - 1])) length--;
    return base_strndup(text, length);
}

/* ---- citations ------------------------------------------------------------- */

/* "[3]" or "[1, 2]" at text: its bytes, its numbers; 0 when it is neither. */
static size_t parse_citation(const char *text, size_t length, size_t numbers[MAX_CITED],
                             size_t *count) {
    size_t i = 1, n = 0;
    if (!length || text[0] != '[') return 0;
    while (i < length && n < MAX_CITED) {
        size_t value = 0, digits = 0;
        while (i < length && isdigit((unsigned char)text[i]) && digits < 9)
            value = value * 10 + (size_t)(text[i++] - '0'), digits++;
        if (!digits) return 0;
        numbers[n++] = value;
        while (i < length && (text[i] == ',' || text[i] == ' ' || text[i] == ';')) i++;
        if (i < length && text[i] == ']') {
            *count = n;
            return i + 1;
        }
    }
    return 0;
}

/* A sentence of the draft without its citation marks; *preferred is the first
 * valid number, numbers outside 1..n are counted. */
static char *without_citations(const char *text, size_t length, size_t n, size_t *preferred,
                               size_t *invalid) {
    StrBuf out = {0};
    *preferred = 0;
    for (size_t i = 0; i < length;) {
        size_t numbers[MAX_CITED], count = 0;
        size_t taken = parse_citation(text + i, length - i, numbers, &count);
        if (!taken) {
            base_str_append_char(&out, text[i++]);
            continue;
        }
        for (size_t k = 0; k < count; k++) {
            if (numbers[k] < 1 || numbers[k] > n)
                (*invalid)++;
            else if (!*preferred)
                *preferred = numbers[k];
        }
        i += taken;
        while (out.length && out.data[out.length - 1] == ' ') out.length--;
    }
    while (out.length && isspace((unsigned char)out.data[out.length - 1])) out.length--;
    char *sentence = base_strndup(out.data ? out.data : "", out.length);
    base_str_free(&out);
    return sentence;
}

/* A mark that follows the full stop belongs to the sentence before it. */
static size_t with_trailing_citation(const char *text, size_t length, size_t end) {
    size_t numbers[MAX_CITED], count = 0, taken = 0;
    while (end < length &&
           (taken = parse_citation(text + end, length - end, numbers, &count)) > 0) {
        end += taken;
        while (end < length && isspace((unsigned char)text[end])) end++;
        if (end < length && text[end] == '.') end++;
    }
    return end;
}

static void add_sentence(RagAnswer *answer, StrBuf *text, const char *sentence, RagJudgement judged,
                         bool new_line) {
    size_t capacity = answer->n_sentences;
    answer->sentences =
        base_grow(answer->sentences, &capacity, answer->n_sentences + 1, sizeof *answer->sentences);
    if (text->length) base_str_append_char(text, new_line ? '\n' : ' ');
    size_t start = text->length;
    base_str_append(text, sentence);
    answer->sentences[answer->n_sentences++] = (RagSentence){.start = start,
                                                             .end = text->length,
                                                             .source = judged.source,
                                                             .support = judged.support,
                                                             .overlap = judged.overlap,
                                                             .cosine = judged.cosine};
    if (judged.source) {
        base_str_appendf(text, " [%zu]", judged.source);
        answer->sources[judged.source - 1].cited = true;
    } else {
        base_str_append(text, " " RAG_MARK);
    }
}

/* Whether an earlier sentence says all of it already. */
static bool is_repetition(const RagAnswer *answer, const StrBuf *text, const char *sentence) {
    RagStems words = rag_stems_of(sentence, strlen(sentence));
    bool repeated = false;
    for (size_t i = 0; i < answer->n_sentences && !repeated; i++) {
        const RagSentence *before = &answer->sentences[i];
        repeated = rag_overlap(&words, text->data + before->start, before->end - before->start,
                               NULL) > 0.9;
    }
    rag_stems_free(&words);
    return repeated;
}

/* Judges the draft sentence by sentence and keeps what is supported; with `mark` also
 * the rest, as long as anything is. */
static bool check_draft(RagAnswer *answer, const RagEvidence *evidence, size_t n,
                        const RagEmbedder *embedder, bool mark, StrBuf *text, Error *err) {
    const char *draft = answer->draft;
    size_t length = strlen(draft), dim = embedder ? embedder->dim : 0;
    float *vector = embedder ? base_calloc(dim, sizeof *vector) : NULL;
    bool ok = true, new_line = false, any = false;
    for (size_t at = 0; ok && at < length;) {
        /* A line is a sentence of its own: lists have no full stops. */
        const char *newline = memchr(draft + at, '\n', length - at);
        size_t line = newline ? (size_t)(newline - draft) + 1 : length;
        size_t end = with_trailing_citation(draft, line, rag_sentence_end(draft, line, at));
        size_t preferred = 0;
        char *sentence =
            without_citations(draft + at, end - at, n, &preferred, &answer->invalid_citations);
        bool words = sentence[strspn(sentence, " \t\n-*.#0123456789")] != '\0' &&
                     !is_repetition(answer, text, sentence);
        if (words && embedder)
            ok = embedder->embed(embedder->context, (const char *const *)&sentence, 1, RAG_PASSAGE,
                                 vector, err);
        if (ok && words) {
            RagJudgement judged =
                rag_evidence_judge(evidence, n, sentence, strlen(sentence), vector, dim, preferred);
            bool supported = judged.support != RAG_UNSUPPORTED;
            answer->n_unsupported += !supported;
            any |= supported;
            if (supported || mark) add_sentence(answer, text, sentence, judged, new_line);
            new_line = false;
        }
        new_line = new_line || end == line;
        free(sentence);
        at = end;
    }
    free(vector);
    if (!any) {
        answer->n_sentences = 0;
        base_str_free(text);
    }
    return ok;
}

/* The best sentences as they stand, from the one or two passages that speak to
 * the question. */
static void quote(RagAnswer *answer, const RagEvidence *evidence, size_t n, StrBuf *text) {
    size_t first = 0, second = SIZE_MAX;
    for (size_t i = 1; i < n; i++)
        if (evidence[i].n_sentences &&
            evidence[i].scores[evidence[i].best] > evidence[first].scores[evidence[first].best])
            first = i;
    for (size_t i = 0; i < n; i++) {
        bool near = i != first && evidence[i].n_sentences &&
                    evidence[i].scores[evidence[i].best] >
                        0.9 * evidence[first].scores[evidence[first].best];
        if (near && (second == SIZE_MAX || evidence[i].scores[evidence[i].best] >
                                               evidence[second].scores[evidence[second].best]))
            second = i;
    }
    size_t chosen[2] = {first, second};
    for (size_t k = 0; k < 2 && chosen[k] != SIZE_MAX; k++) {
        if (!*answer->sources[chosen[k]].quote) continue;
        RagJudgement exact = {
            .source = chosen[k] + 1, .support = RAG_SUPPORTED, .overlap = 1, .cosine = 1};
        add_sentence(answer, text, answer->sources[chosen[k]].quote, exact, true);
    }
}

/* ---- the answer --------------------------------------------------------------- */

static void list_sources(RagAnswer *answer, const RagSearch *search, size_t n) {
    answer->sources = base_calloc(n + 1, sizeof *answer->sources);
    answer->n_sources = n;
    for (size_t i = 0; i < n; i++)
        answer->sources[i] =
            (RagSource){.number = i + 1, .hit = &search->hits[i], .quote = base_strdup("")};
}

static void set_quotes(RagAnswer *answer, const RagEvidence *evidence, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const RagEvidence *e = &evidence[i];
        if (!e->n_sentences) continue;
        free(answer->sources[i].quote);
        const char *from = e->hit->text + e->starts[e->best];
        size_t length = e->starts[e->best + 1] - e->starts[e->best];
        answer->sources[i].quote = rag_clean_line(from, rag_utf8_floor(from, length, 600));
    }
}

static bool generate(RagAnswer *answer, const RagSearch *search, const RagEvidence *evidence,
                     size_t n, const RagGenerator *generator, const RagAnswerOptions *options,
                     Error *err) {
    size_t max_tokens = options->max_tokens ? options->max_tokens : DEFAULT_MAX_TOKENS;
    if (generator->context_tokens <= max_tokens)
        return base_fail(err, ERROR_INPUT, "an answer of %zu tokens does not fit the %zu of %s",
                         max_tokens, generator->context_tokens, generator->name);
    RagPrompt prompt;
    if (!rag_prompt_build(generator, search->query, evidence, n,
                          generator->context_tokens - max_tokens, &prompt, err))
        return false;
    Draft draft = {.options = options,
                   .max_sentences = rag_prompt_is_small(generator) ? SMALL_SENTENCES : 0};
    bool ok = generator->generate(generator->context, prompt.ids, prompt.count, max_tokens,
                                  take_text, &draft, &answer->generation, err);
    free(answer->draft);
    answer->draft =
        said(&draft, has_said_enough(&draft) || answer->generation.generated_tokens >= max_tokens);
    base_str_free(&draft.text);
    free(prompt.ids);
    return ok;
}

/* "Not in the documents.", with or without quotes. */
static bool is_refusal(const char *text) {
    while (*text && !isalpha((unsigned char)*text)) text++;
    size_t length = strlen(RAG_REFUSAL);
    return strncasecmp(text, RAG_REFUSAL, length) == 0 && strlen(text) <= length + 3;
}

static void refuse(RagAnswer *answer) {
    answer->kind = RAG_ANSWER_REFUSED;
    answer->text = base_strdup(RAG_REFUSAL);
}

bool rag_answer(const RagSearch *search, const RagEmbedder *embedder, const RagGenerator *generator,
                const RagAnswerOptions *options, RagAnswer *answer, Error *err) {
    double started = base_now();
    *answer = (RagAnswer){.draft = base_strdup("")};
    bool large = generator && generator->n_parameters >= (size_t)1000000000;
    size_t wanted = options->max_passages ? options->max_passages
                    : large               ? LARGE_PASSAGES
                                          : SMALL_PASSAGES;
    size_t n = BASE_MIN(wanted, search->n_hits);
    list_sources(answer, search, n);
    RagEvidence *evidence = NULL;
    bool ok = true;
    if (!search->relevant || !n) {
        refuse(answer);
    } else {
        evidence = rag_evidence_gather(search->query, search->hits, n, embedder, err);
        ok = evidence != NULL;
        if (ok) set_quotes(answer, evidence, n);
        if (ok && generator) ok = generate(answer, search, evidence, n, generator, options, err);
        StrBuf text = {0};
        if (ok && is_refusal(answer->draft)) {
            refuse(answer);
        } else if (ok) {
            ok = check_draft(answer, evidence, n, embedder, options->mark_unsupported, &text, err);
            answer->kind = answer->n_sentences ? RAG_ANSWER_GENERATED : RAG_ANSWER_EXTRACTIVE;
            if (ok && !answer->n_sentences) quote(answer, evidence, n, &text);
            answer->text = base_str_detach(&text);
        }
        base_str_free(&text);
    }
    rag_evidence_free(evidence, n);
    if (!answer->text) answer->text = base_strdup("");
    answer->total_seconds = base_now() - started;
    return ok;
}

void rag_answer_free(RagAnswer *answer) {
    for (size_t i = 0; i < answer->n_sources; i++) free(answer->sources[i].quote);
    free(answer->sources);
    free(answer->sentences);
    free(answer->text);
    free(answer->draft);
    *answer = (RagAnswer){0};
}
