/* Words out: JSON lines, sizes, and the check that they arrived. */
#include "cli/commands.h"

#include <stdlib.h>
#include <string.h>

void output_json(json_t *value) {
    /* Nine digits tell any two floats apart. */
    const size_t form = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9);
    char *text = value ? json_dumps(value, form) : NULL;
    json_decref(value);
    if (!text) return;
    puts(text);
    free(text);
    fflush(stdout);
}

json_t *output_string(const char *text, size_t length) {
    if (base_utf8_valid(text, length)) return json_stringn(text, length);
    StrBuf clean = {0};
    base_str_append(&clean, "");
    for (size_t at = 0; at < length;) {
        uint32_t codepoint = 0;
        at += base_utf8_decode(text + at, length - at, &codepoint, NULL);
        base_str_append_codepoint(&clean, codepoint);
    }
    json_t *string = json_stringn(clean.data, clean.length);
    base_str_free(&clean);
    return string;
}

bool output_flush(Error *err) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return true;
    return base_fail_errno(err, "standard output");
}
