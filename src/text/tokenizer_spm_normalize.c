/* The two ways to apply SentencePiece's character map. The Python package
 * `tokenizers` goes by grapheme cluster: a short one whose beginning is in the
 * map is replaced whole by the shortest match. SentencePiece itself takes the
 * longest match at each place, and tidies spaces while it goes. */
#include "text/tokenizer_parts.h"

#include <utf8proc.h>

/* ---- by grapheme cluster ------------------------------------------------ */

enum { CLUSTER_BYTES = 6 }; /* shorter clusters are looked up as a whole */

static bool is_plain(const char *text, size_t length, size_t at) {
    return (uint8_t)text[at] < 0x80 && text[at] != '\r' &&
           (at + 1 == length || (uint8_t)text[at + 1] < 0x80);
}

/* The end of the cluster that starts at `from`. */
static size_t cluster_end(const char *text, size_t length, size_t from) {
    size_t step;
    utf8proc_int32_t state = 0;
    if (is_plain(text, length, from)) return from + 1;
    uint32_t before = text_decode((const uint8_t *)text + from, &step);
    size_t at = from + step;
    while (at < length) {
        uint32_t code = text_decode((const uint8_t *)text + at, &step);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)code,
                                             &state))
            break;
        before = code;
        at += step;
    }
    return at;
}

static bool replace_range(const TextCharsmap *map, TextView in, size_t begin, size_t end,
                          TextBuffer *out) {
    size_t matched;
    const char *text = text_charsmap_find(map, in.data + begin, end - begin, false, &matched);
    if (text) text_buffer_add(out, text, strlen(text), text_view_span(in, begin, end));
    return text != NULL;
}

void text_normalize_precompiled(const TextCharsmap *map, TextView in, TextBuffer *out) {
    for (size_t begin = 0, end, step; begin < in.length; begin = end) {
        end = cluster_end(in.data, in.length, begin);
        if (end - begin < CLUSTER_BYTES && replace_range(map, in, begin, end, out)) continue;
        for (size_t i = begin; i < end; i += step) {
            text_decode((const uint8_t *)in.data + i, &step);
            if (!replace_range(map, in, i, i + step, out)) text_buffer_copy(out, in, i, i + step);
        }
    }
}

/* ---- SentencePiece ------------------------------------------------------ */

#define MARK "\xE2\x96\x81"

void text_spm_rules_free(TextSpmRules *rules) {
    if (!rules) return;
    text_charsmap_free(rules->map);
    text_prefixes_free(&rules->user);
    free(rules);
}

/* What stands for the text at `at`, and how many bytes of it. */
static const char *next_normal(const TextSpmRules *rules, TextView in, size_t at, size_t *length,
                               size_t *taken) {
    const char *text = in.data + at, *found = NULL;
    size_t rest = in.length - at;
    if (rules->user.count > 1 && text_prefixes_longest(&rules->user, text, rest, taken) >= 0) {
        *length = *taken;
        return text;
    }
    if (rules->map) found = text_charsmap_find(rules->map, text, rest, true, taken);
    if (found) {
        *length = strlen(found);
        return found;
    }
    text_decode((const uint8_t *)text, taken);
    *length = *taken;
    return text;
}

static void add_space(const TextSpmRules *rules, TextBuffer *out, TextSpan span) {
    text_buffer_add(out, rules->escape_spaces ? MARK : " ", rules->escape_spaces ? 3 : 1, span);
}

/* Bytes [0, length) of a replacement, its spaces as the model writes them. */
static void add_normal(const TextSpmRules *rules, const char *text, size_t length, TextSpan span,
                       TextBuffer *out) {
    while (length) {
        const char *space = rules->escape_spaces ? memchr(text, ' ', length) : NULL;
        size_t run = space ? (size_t)(space - text) : length;
        text_buffer_add(out, text, run, span);
        if (space) add_space(rules, out, span);
        text += run + (space != NULL);
        length -= run + (space != NULL);
    }
}

static size_t literal_run(const TextSpmRules *rules, TextView in, size_t at) {
    size_t end = at;
    while (end < in.length && rules->literal[(uint8_t)in.data[end]]) end++;
    return end - at;
}

void text_normalize_spm(const TextSpmRules *rules, TextView in, TextBuffer *out) {
    size_t at = 0, length, taken = 0;
    while (rules->remove_extra_spaces && at < in.length) {
        const char *text = next_normal(rules, in, at, &length, &taken);
        if (length != 1 || *text != ' ') break;
        at += taken;
    }
    if (at == in.length) return;
    TextSpan start = {text_view_span(in, at, at).begin, text_view_span(in, at, at).begin};
    if (rules->add_dummy_prefix && !rules->space_as_suffix) add_space(rules, out, start);
    bool after_space = rules->remove_extra_spaces;
    for (; at < in.length; at += taken) {
        taken = literal_run(rules, in, at);
        if (taken) {
            text_buffer_copy(out, in, at, at + taken);
            after_space = false;
            continue;
        }
        const char *text = next_normal(rules, in, at, &length, &taken);
        while (after_space && length && *text == ' ') text++, length--;
        if (length) {
            after_space = text[length - 1] == ' ';
            add_normal(rules, text, length, text_view_span(in, at, at + taken), out);
        }
        if (!rules->remove_extra_spaces) after_space = false;
    }
    const char *space = rules->escape_spaces ? MARK : " ";
    size_t width = strlen(space);
    while (rules->remove_extra_spaces && out->length >= width &&
           memcmp(out->data + out->length - width, space, width) == 0)
        out->length -= width;
    if (rules->add_dummy_prefix && rules->space_as_suffix)
        add_space(rules, out, text_view_span(in, in.length, in.length));
}
