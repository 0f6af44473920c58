/* What the four chains of a tokenizer.json have in common: members that say
 * where they are wrong, and components that are one object or a Sequence of
 * them. */
#include "text/tokenizer_parts.h"

bool text_json_bool(const json_t *object, const char *key, bool standard, const char *where,
                    bool *out, Error *err) {
    const json_t *value = json_object_get(object, key);
    *out = standard;
    if (!value || json_is_null(value)) return true;
    if (!json_is_boolean(value))
        return base_fail(err, ERROR_INPUT, "%s: \"%s\" must be true or false", where, key);
    *out = json_is_true(value);
    return true;
}

bool text_json_size(const json_t *object, const char *key, size_t standard, const char *where,
                    size_t *out, Error *err) {
    const json_t *value = json_object_get(object, key);
    *out = standard;
    if (!value || json_is_null(value)) return true;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return base_fail(err, ERROR_INPUT, "%s: \"%s\" must be a whole number, 0 or more", where,
                         key);
    *out = (size_t)json_integer_value(value);
    return true;
}

bool text_json_string(const json_t *object, const char *key, const char *standard,
                      const char *where, char **out, Error *err) {
    const json_t *value = json_object_get(object, key);
    *out = NULL;
    if (!value || json_is_null(value)) {
        if (standard) *out = base_strdup(standard);
        return true;
    }
    if (!json_is_string(value))
        return base_fail(err, ERROR_INPUT, "%s: \"%s\" must be a string", where, key);
    *out = base_strdup(json_string_value(value));
    return true;
}

const char *text_json_type(const json_t *object, const char *where, Error *err) {
    const char *type = json_string_value(json_object_get(object, "type"));
    if (!json_is_object(object) || !type) {
        base_fail(err, ERROR_INPUT, "%s: expected an object with a \"type\"", where);
        return NULL;
    }
    return type;
}

/* ---- chains ------------------------------------------------------------- */

static bool load_component(const json_t *json, const TextChainLoader *loader, void *chain,
                           int depth, Error *err) {
    const char *type = text_json_type(json, loader->what, err);
    if (!type) return false;
    if (strcmp(type, "Sequence") != 0) return loader->load(json, type, chain, err);
    const json_t *list = json_object_get(json, loader->list);
    if (!json_is_array(list) || depth >= TEXT_MAX_DEPTH)
        return base_fail(err, ERROR_INPUT, "%s Sequence: \"%s\" must be a list, at most %d deep",
                         loader->what, loader->list, TEXT_MAX_DEPTH);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!load_component(json_array_get(list, i), loader, chain, depth + 1, err)) return false;
    return true;
}

bool text_chain_load(const json_t *json, const TextChainLoader *loader, void *chain, Error *err) {
    return !json || json_is_null(json) || load_component(json, loader, chain, 0, err);
}

void *text_chain_grow(void *parts, size_t *count, size_t bytes, const char *what, Error *err) {
    if (*count == TEXT_MAX_STAGES) {
        base_fail(err, ERROR_UNSUPPORTED, "%s: more than %d steps", what, TEXT_MAX_STAGES);
        return NULL;
    }
    parts = base_realloc(parts, (*count + 1) * bytes);
    memset((char *)parts + *count * bytes, 0, bytes);
    ++*count;
    return parts;
}

bool text_chain_unknown(const char *what, const char *type, Error *err) {
    return base_fail(err, ERROR_UNSUPPORTED, "%s of type \"%.60s\" is not supported", what, type);
}

TextPattern *text_pattern_load(const json_t *json, const char *where, Error *err) {
    const json_t *pattern = json_object_get(json, "pattern");
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    if (literal) return text_pattern_literal(literal);
    if (regex) return text_pattern_regex(regex, err);
    base_fail(err, ERROR_INPUT, "%s: \"pattern\" needs a \"String\" or a \"Regex\"", where);
    return NULL;
}
