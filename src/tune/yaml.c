/* YAML files as jansson's trees: libyaml parses, the rules of PyYAML's safe loader say
 * what a plain word is (YAML 1.1: yes is true, 017 is 15, ~ is null), and a number with
 * an exponent is a float without a dot too, as mlx-lm has it. */
#include "tune/yaml.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* Aliases can make a small file a large tree, or one without end. */
enum { MAX_DEPTH = 64, MAX_NODES = 1 << 16 };

typedef struct Yaml {
    const char *name; /* of the file */
    yaml_document_t document;
    size_t nodes;
    Error *err;
} Yaml;

/* ---- plain words ---------------------------------------------------------------- */

static bool one_of(const char *word, const char *const *list) {
    for (; *list; list++)
        if (strcmp(*list, word) == 0) return true;
    return false;
}

/* The digits of `word` without underscores; false when others are among them. */
static bool digits_of(const char *word, const char *allowed, char *out, size_t room) {
    size_t used = 0;
    for (; *word; word++) {
        if (*word == '_') continue;
        if (!strchr(allowed, *word) || used + 1 >= room) return false;
        out[used++] = *word;
    }
    out[used] = '\0';
    return used > 0;
}

static json_t *whole_number(const char *word) {
    char digits[80];
    const bool negative = *word == '-';
    if (*word == '-' || *word == '+') word++;
    int base = 10;
    const char *allowed = "0123456789";
    if (word[0] == '0' && word[1] == 'x') {
        base = 16;
        allowed = "0123456789abcdefABCDEF";
    } else if (word[0] == '0' && word[1] == 'b') {
        base = 2;
        allowed = "01";
    } else if (word[0] == '0' && word[1]) {
        base = 8;
        allowed = "01234567";
    }
    if (!isdigit((unsigned char)word[0]) ||
        !digits_of(word + (base == 16 || base == 2 ? 2 : 0), allowed, digits, sizeof digits))
        return NULL;
    char *end;
    const long long value = strtoll(digits, &end, base);
    return *end ? NULL : json_integer(negative ? -value : value);
}

/* [-+] digits, dot and exponent, with at least one of the two last. */
static json_t *real_number(const char *word) {
    char digits[80];
    const char *at = word + (*word == '-' || *word == '+');
    size_t whole = strspn(at, "0123456789_"), part = 0;
    const char *rest = at + whole;
    bool good = true, real = *rest == '.';
    if (real) part = strspn(++rest, "0123456789_");
    good = (isdigit((unsigned char)*at) || (!whole && part));
    rest += part;
    if (*rest == 'e' || *rest == 'E') {
        rest++;
        rest += *rest == '-' || *rest == '+';
        good = good && isdigit((unsigned char)*rest);
        rest += strspn(rest, "0123456789");
        real = true;
    }
    if (!good || !real || *rest || !digits_of(word, "0123456789.eE+-", digits, sizeof digits))
        return NULL;
    const double value = strtod(digits, NULL);
    return isfinite(value) ? json_real(value) : NULL;
}

static json_t *plain(const char *word) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"yes",  "Yes", "YES", "true", "True",
                                        "TRUE", "on",  "On",  "ON",   NULL};
    static const char *const falses[] = {"no",    "No",  "NO",  "false", "False",
                                         "FALSE", "off", "Off", "OFF",   NULL};
    if (one_of(word, nulls)) return json_null();
    if (one_of(word, trues)) return json_true();
    if (one_of(word, falses)) return json_false();
    json_t *number = whole_number(word);
    if (!number) number = real_number(word);
    return number ? number : json_string(word);
}

/* ---- the tree --------------------------------------------------------------------- */

static json_t *failed(const Yaml *yaml, const yaml_node_t *node, const char *what) {
    base_fail(yaml->err, ERROR_INPUT, "%s: line %zu, column %zu: %s", yaml->name,
              node->start_mark.line + 1, node->start_mark.column + 1, what);
    return NULL;
}

static json_t *scalar(const Yaml *yaml, const yaml_node_t *node) {
    const char *text = (const char *)node->data.scalar.value;
    const size_t length = node->data.scalar.length;
    const char *tag = (const char *)node->tag;
    const bool quoted = node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    const bool own = !tag || strcmp(tag, YAML_STR_TAG) == 0;
    if (strlen(text) != length) return failed(yaml, node, "a NUL character");
    json_t *value = quoted && own ? json_stringn(text, length) : plain(text);
    return value ? value : failed(yaml, node, "this value has no JSON form");
}

static json_t *tree(Yaml *yaml, int index, int depth);

static json_t *sequence(Yaml *yaml, const yaml_node_t *node, int depth) {
    json_t *list = json_array();
    for (const yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top; item++) {
        json_t *value = tree(yaml, *item, depth + 1);
        if (value && json_array_append_new(list, value) == 0) continue;
        json_decref(list);
        return NULL;
    }
    return list;
}

/* Takes the reference. "<<" gives the entries that the mapping itself has not. */
static bool put(Yaml *yaml, const yaml_node_t *key, json_t *object, json_t *merged, json_t *value) {
    if (!value) return false;
    if (key->type != YAML_SCALAR_NODE) {
        json_decref(value);
        failed(yaml, key, "a key that is not one word");
        return false;
    }
    const char *name = (const char *)key->data.scalar.value;
    if (strcmp(name, "<<") != 0 || key->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return json_object_set_new(object, name, value) == 0 ||
               failed(yaml, key, "a key that is not UTF-8");
    size_t i;
    json_t *one;
    json_array_foreach(value, i, one) {
        json_object_update_missing(merged, one);
    }
    json_object_update_missing(merged, value);
    json_decref(value);
    return true;
}

static json_t *mapping(Yaml *yaml, const yaml_node_t *node, int depth) {
    json_t *object = json_object(), *merged = json_object();
    bool good = true;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         good && pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&yaml->document, pair->key);
        good = put(yaml, key, object, merged, tree(yaml, pair->value, depth + 1));
    }
    json_object_update_missing(object, merged);
    json_decref(merged);
    if (good) return object;
    json_decref(object);
    return NULL;
}

static json_t *tree(Yaml *yaml, int index, int depth) {
    const yaml_node_t *node = yaml_document_get_node(&yaml->document, index);
    if (depth > MAX_DEPTH || ++yaml->nodes > MAX_NODES)
        return failed(yaml, node, "nested too deep or too large");
    switch (node->type) {
    case YAML_SCALAR_NODE: return scalar(yaml, node);
    case YAML_SEQUENCE_NODE: return sequence(yaml, node, depth);
    case YAML_MAPPING_NODE: return mapping(yaml, node, depth);
    case YAML_NO_NODE: break;
    }
    return json_null();
}

json_t *tune_yaml_parse(const char *text, size_t length, const char *name, Error *err) {
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        base_fail(err, ERROR_MEMORY, "%s: no memory to read it", name);
        return NULL;
    }
    Yaml yaml = {.name = name, .err = err};
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    json_t *value = NULL;
    if (!yaml_parser_load(&parser, &yaml.document)) {
        base_fail(err, ERROR_INPUT, "%s: not valid YAML at line %zu, column %zu: %s", name,
                  parser.problem_mark.line + 1, parser.problem_mark.column + 1,
                  parser.problem ? parser.problem : "cannot be read");
    } else {
        value = yaml_document_get_root_node(&yaml.document) ? tree(&yaml, 1, 0) : json_null();
        yaml_document_delete(&yaml.document);
    }
    yaml_parser_delete(&parser);
    return value;
}

json_t *tune_yaml_load(const char *path, Error *err) {
    char *text;
    size_t length;
    if (!base_file_read(path, &text, &length, err)) return NULL;
    json_t *value = tune_yaml_parse(text, length, path, err);
    free(text);
    return value;
}
