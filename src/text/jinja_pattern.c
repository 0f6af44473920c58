/* jinja_pattern: the regular expressions that filters need, read as Python's
 * re reads them: over code points, with \w and \d of Unicode. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/jinja.h"

enum { MATCH_LIMIT = 1000000 };

const MatchSpan *jinja_find_all(Render *r, const char *pattern, const Str *text, size_t *count) {
    /* Allocated first: a raise between here and the frees below would leak. */
    MatchSpan *spans = jinja_alloc(r, (text->length + 1) * sizeof *spans);
    jinja_charge(r, text->length);
    int code;
    size_t where, found = 0, at = 0;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    bool ready = compiled && data && context;
    int result = PCRE2_ERROR_NOMEMORY;
    if (ready) pcre2_set_match_limit(context, MATCH_LIMIT);
    while (ready && at <= text->length &&
           (result = pcre2_match(compiled, (PCRE2_SPTR)text->data, text->length, at,
                                 at ? PCRE2_NO_UTF_CHECK : 0, data, context)) >= 0) {
        const size_t *edges = pcre2_get_ovector_pointer(data);
        if (edges[1] == edges[0]) break;
        spans[found++] = (MatchSpan){edges[0], edges[1]};
        at = edges[1];
        result = PCRE2_ERROR_NOMATCH;
    }
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(compiled);
    if (result < 0 && result != PCRE2_ERROR_NOMATCH)
        jinja_raise(r, "RuntimeError", "a text of %zu bytes is too hard to match", text->length);
    *count = found;
    return spans;
}

bool jinja_matches(Render *r, const char *pattern, const char *bytes, size_t length) {
    size_t count;
    Str text = {bytes, length, POINTS_UNKNOWN, NULL};
    const MatchSpan *spans = jinja_find_all(r, pattern, &text, &count);
    return count && spans[0].start == 0 && spans[0].end == length;
}
