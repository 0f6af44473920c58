/* Inside data: a scanner that reads a JSON text once, checks all of it, and takes
 * out the fields that were asked for, without building a tree. */
#ifndef DATA_JSON_H
#define DATA_JSON_H

#include "data/data.h"

enum { JSON_MAX_FIELDS = 64, JSON_MAX_DEPTH = 512 };

/* Paths split into names: "choices.0.text". */
typedef struct JsonFields {
    size_t count;
    char **names[JSON_MAX_FIELDS]; /* [length[i]] */
    size_t length[JSON_MAX_FIELDS];
    DxKey keys[JSON_MAX_FIELDS];
    bool optional;
} JsonFields;

bool dx_json_fields(const char *const *paths, const char *const *keys, size_t count, bool optional,
                    JsonFields *fields, Error *err);
void dx_json_fields_free(JsonFields *fields);

/* text[0..length) must be one JSON value with white space around it. *column (may
 * be NULL) is the byte, from 1, at which it went wrong. */
bool dx_json_scan(const char *text, size_t length, const JsonFields *fields, DxSample **sample,
                  size_t *column, Error *err);

#endif
