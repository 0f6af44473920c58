/* Words wanted, words found; see match.h. */
#include "rag/match.h"

#include <string.h>

#include "rag/show.h"

static bool ends(const char *word, size_t length, const char *suffix) {
    size_t n = strlen(suffix);
    return length > n && memcmp(word + length - n, suffix, n) == 0;
}

/* Plural, -ed, -ing, -ly and a final e: enough to hold "packages" against
 * "package" and "signed" against "sign". In place; returns the length. */
static size_t stem(char *word, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (word[i] < 'a' || word[i] > 'z') return length;
    if (length > 4 && ends(word, length, "ies")) {
        word[length - 3] = 'y';
        length -= 2;
    } else if (length > 4 && (ends(word, length, "sses") || ends(word, length, "xes") ||
                              ends(word, length, "ches") || ends(word, length, "shes"))) {
        length -= 2;
    } else if (length > 3 && word[length - 1] == 's' && !ends(word, length, "ss") &&
               !ends(word, length, "us") && !ends(word, length, "is")) {
        length -= 1;
    }
    size_t cut = length > 5 && ends(word, length, "ing")  ? 3
                 : length > 4 && ends(word, length, "ed") ? 2
                 : length > 5 && ends(word, length, "ly") ? 2
                                                          : 0;
    length -= cut;
    if (cut && length > 3 && word[length - 1] == word[length - 2] &&
        !strchr("lsz", word[length - 1]))
        length--;
    if (length > 3 && word[length - 1] == 'e') length--;
    return length;
}

static void stem_of(const RagWord *word, char out[RAG_WORD_BYTES]) {
    memcpy(out, word->folded, word->length);
    out[stem(out, word->length)] = '\0';
}

static bool has_digit(const char *text) {
    return strpbrk(text, "0123456789") != NULL;
}

static void add(RagStems *stems, const char *text, double weight) {
    for (size_t i = 0; i < stems->count; i++)
        if (strcmp(stems->items[i].text, text) == 0) return;
    stems->items =
        base_grow(stems->items, &stems->capacity, stems->count + 1, sizeof *stems->items);
    RagStem *item = &stems->items[stems->count++];
    snprintf(item->text, sizeof item->text, "%s", text);
    item->weight = weight;
    item->number = has_digit(text);
}

static void collect(RagStems *stems, const char *text, size_t length, double weight,
                    bool with_stop_words) {
    RagWord word;
    size_t position = 0;
    char stemmed[RAG_WORD_BYTES];
    while (stems->count < 256 && rag_word_next(text, length, &position, &word)) {
        if (!with_stop_words && rag_is_stop_word(word.folded, word.length)) continue;
        stem_of(&word, stemmed);
        add(stems, stemmed, weight);
    }
}

RagStems rag_stems_of(const char *text, size_t length) {
    RagStems stems = {0};
    collect(&stems, text, length, 1, false);
    return stems;
}

RagStems rag_stems_of_terms(const RagTerms *terms) {
    RagStems stems = {0};
    for (size_t i = 0; i < terms->count; i++)
        collect(&stems, terms->items[i].phrase, strlen(terms->items[i].phrase), terms->items[i].idf,
                true);
    return stems;
}

void rag_stems_free(RagStems *stems) {
    free(stems->items);
    *stems = (RagStems){0};
}

double rag_overlap(const RagStems *wanted, const char *text, size_t length, bool *missing_number) {
    bool found[256] = {false};
    RagWord word;
    size_t position = 0;
    char stemmed[RAG_WORD_BYTES];
    size_t count = BASE_MIN(wanted->count, BASE_COUNT(found));
    while (count && rag_word_next(text, length, &position, &word)) {
        stem_of(&word, stemmed);
        for (size_t i = 0; i < count; i++)
            if (!found[i] && strcmp(stemmed, wanted->items[i].text) == 0) found[i] = true;
    }
    double total = 0, sum = 0;
    if (missing_number) *missing_number = false;
    for (size_t i = 0; i < count; i++) {
        total += wanted->items[i].weight;
        if (found[i]) sum += wanted->items[i].weight;
        if (!found[i] && wanted->items[i].number && missing_number) *missing_number = true;
    }
    return total > 0 ? sum / total : 0;
}

/* ---- snippets --------------------------------------------------------------- */

typedef struct Found {
    size_t start, end;
    size_t which; /* index of the wanted word */
} Found;

/* The first of `found` from which a window of `room` bytes holds most weight. */
static size_t best_start(const RagStems *wanted, const Found *found, size_t count, size_t room) {
    size_t best = 0;
    double most = -1;
    for (size_t i = 0; i < count; i++) {
        double weight = 0;
        bool seen[256] = {false};
        for (size_t k = i; k < count && found[k].end - found[i].start <= room; k++) {
            size_t which = found[k].which;
            if (!seen[which]) weight += wanted->items[which].weight;
            seen[which] = true;
        }
        if (weight > most) {
            most = weight;
            best = i;
        }
    }
    return best;
}

char *rag_snippet(const RagStems *wanted, const char *text, size_t limit) {
    char *line = rag_clean_line(text, strlen(text));
    size_t length = strlen(line);
    if (length <= limit) return line;
    Found found[128];
    size_t count = 0, position = 0;
    RagWord word;
    char stemmed[RAG_WORD_BYTES];
    while (count < BASE_COUNT(found) && rag_word_next(line, length, &position, &word)) {
        stem_of(&word, stemmed);
        for (size_t i = 0; i < BASE_MIN(wanted->count, (size_t)256); i++)
            if (strcmp(stemmed, wanted->items[i].text) == 0) {
                found[count++] = (Found){word.start, word.end, i};
                break;
            }
    }
    static const char dots[] = "…";
    size_t room = limit > 2 * sizeof dots ? limit - 2 * (sizeof dots) : limit;
    size_t start = count ? found[best_start(wanted, found, count, room * 3 / 4)].start : 0;
    start -= BASE_MIN(start, room / 6); /* some words before */
    if (start + room > length) start = length - BASE_MIN(room, length);
    start = rag_utf8_floor(line, length, start);
    size_t end = start + rag_utf8_floor(line + start, length - start, room);
    const char *space = start ? memchr(line + start, ' ', end - start) : NULL;
    if (space && (size_t)(space - line) < start + room / 4) start = (size_t)(space - line) + 1;
    if (end < length) {
        size_t back = end;
        while (back > start && line[back] != ' ') back--;
        if (back > start + room / 2) end = back;
    }
    StrBuf out = {0};
    if (start) base_str_append(&out, dots);
    base_str_append_n(&out, line + start, end - start);
    if (end < length) base_str_append(&out, dots);
    free(line);
    return base_str_detach(&out);
}
