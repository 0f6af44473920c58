/* JSON files: jansson's trees, our errors. */
#include "base/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *base_json_parse(const char *text, size_t length, const char *name, Error *err) {
    json_error_t where;
    json_t *value = json_loadb(text, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    if (!value)
        base_fail(err, ERROR_INPUT, "%s: not valid JSON at line %d, column %d: %s", name,
                  where.line, where.column, where.text);
    return value;
}

json_t *base_json_load(const char *path, Error *err) {
    char *text;
    size_t length;
    if (!base_file_read(path, &text, &length, err)) return NULL;
    json_t *value = base_json_parse(text, length, path, err);
    free(text);
    return value;
}

bool base_json_save(const char *path, const json_t *value, Error *err) {
    char *text = json_dumps(value, JSON_INDENT(4) | JSON_SORT_KEYS | JSON_ENCODE_ANY |
                                       JSON_REAL_PRECISION(15));
    if (!text) return base_fail(err, ERROR_INTERNAL, "%s: this value has no JSON form", path);
    bool ok = base_file_write(path, text, strlen(text), err);
    free(text);
    return ok;
}

json_t *base_json_float(double value) {
    if (!isfinite(value)) return NULL;
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if ((float)strtod(text, NULL) == (float)value) break;
    }
    return json_real(strtod(text, NULL));
}
