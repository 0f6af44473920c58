/* Stop strings on streamed text. What is held is always the longest tail of
 * the text that is a proper prefix of some stop string, so the work per byte is
 * bounded by the lengths of the stop strings. */
#include "text/tokenizer.h"

#include <string.h>

struct TextStop {
    char **strings;
    size_t count, longest;
    StrBuf held;
    const char *found;
};

TextStop *text_stop_new(const char *const *strings, size_t count) {
    TextStop *stop = base_calloc(1, sizeof *stop);
    stop->strings = base_calloc(count + 1, sizeof *stop->strings);
    for (size_t i = 0; i < count; i++) {
        if (!strings[i] || !*strings[i]) continue;
        stop->strings[stop->count++] = base_strdup(strings[i]);
        stop->longest = BASE_MAX(stop->longest, strlen(strings[i]));
    }
    return stop;
}

/* The first place in the held text where a stop string stands whole; among
 * those that start there, the longest. */
static bool find_stop(TextStop *stop, size_t *at) {
    for (size_t i = 0; i < stop->held.length; i++) {
        size_t best = 0;
        for (size_t k = 0; k < stop->count; k++) {
            size_t length = strlen(stop->strings[k]);
            if (length > best && length <= stop->held.length - i &&
                memcmp(stop->held.data + i, stop->strings[k], length) == 0) {
                best = length;
                stop->found = stop->strings[k];
            }
        }
        if (best) {
            *at = i;
            return true;
        }
    }
    return false;
}

static size_t longest_open_tail(const TextStop *stop) {
    for (size_t tail = BASE_MIN(stop->held.length, stop->longest ? stop->longest - 1 : 0); tail > 0;
         tail--) {
        const char *start = stop->held.data + stop->held.length - tail;
        for (size_t k = 0; k < stop->count; k++)
            if (strlen(stop->strings[k]) > tail && memcmp(start, stop->strings[k], tail) == 0)
                return tail;
    }
    return 0;
}

bool text_stop_push(TextStop *stop, const char *text, size_t length, StrBuf *out) {
    size_t at;
    if (stop->found) return true;
    base_str_append_n(&stop->held, text, length);
    if (find_stop(stop, &at)) {
        base_str_append_n(out, stop->held.data, at);
        stop->held.length = 0;
        return true;
    }
    size_t settled = stop->held.length - longest_open_tail(stop);
    if (settled) {
        base_str_append_n(out, stop->held.data, settled);
        memmove(stop->held.data, stop->held.data + settled, stop->held.length - settled);
        stop->held.length -= settled;
    }
    return false;
}

void text_stop_finish(TextStop *stop, StrBuf *out) {
    if (!stop->found && stop->held.length)
        base_str_append_n(out, stop->held.data, stop->held.length);
    stop->held.length = 0;
    stop->found = NULL;
}

const char *text_stop_found(const TextStop *stop) {
    return stop->found;
}

void text_stop_free(TextStop *stop) {
    if (!stop) return;
    for (size_t i = 0; i < stop->count; i++) free(stop->strings[i]);
    free(stop->strings);
    base_str_free(&stop->held);
    free(stop);
}
