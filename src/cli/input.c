/* Words in: standard input, files, lists of texts and ids. */
#include "cli/commands.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *input_stdin(size_t *length, Error *err) {
    StrBuf all = {0};
    char block[16384];
    base_str_append(&all, "");
    for (;;) {
        ssize_t got = read(STDIN_FILENO, block, sizeof block);
        if (got == 0) break;
        if (got < 0 && errno == EINTR && !base_interrupted()) continue;
        if (got < 0) {
            if (base_interrupted())
                base_fail(err, ERROR_INTERRUPTED, "interrupted");
            else
                base_fail_errno(err, "standard input");
            base_str_free(&all);
            return NULL;
        }
        base_str_append_n(&all, block, (size_t)got);
    }
    if (length) *length = all.length;
    return base_str_detach(&all);
}

char *input_file(const char *path, size_t *length, Error *err) {
    if (strcmp(path, "-") == 0) return input_stdin(length, err);
    char *data = NULL;
    size_t size = 0;
    if (!base_file_read(path, &data, &size, err)) return NULL;
    if (length) *length = size;
    return data;
}

json_t *input_json(const char *path, Error *err) {
    size_t length = 0;
    char *text = input_file(path, &length, err);
    if (!text) return NULL;
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    json_t *value = base_json_parse(text, length, name, err);
    free(text);
    return value;
}

json_t *input_object(const char *text, const char *option, Error *err) {
    json_t *value = base_json_parse(text, strlen(text), option, err);
    if (value && !json_is_object(value)) {
        base_fail(err, ERROR_INPUT, "%s: must be a JSON object", option);
        json_decref(value);
        return NULL;
    }
    return value;
}

static void add_text(InputTexts *texts, const char *text, size_t length) {
    texts->items = base_realloc(texts->items, (texts->count + 1) * sizeof *texts->items);
    texts->lengths = base_realloc(texts->lengths, (texts->count + 1) * sizeof *texts->lengths);
    texts->items[texts->count] = text;
    texts->lengths[texts->count++] = length;
}

/* Cuts `storage` into its lines, in place; a last line without end counts. */
static void split_lines(InputTexts *texts, size_t length) {
    char *at = texts->storage, *end = texts->storage + length;
    while (at < end) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        char *stop = newline ? newline : end;
        *stop = '\0';
        char *last = stop > at && stop[-1] == '\r' ? stop - 1 : stop;
        *last = '\0';
        add_text(texts, at, (size_t)(last - at));
        at = stop + 1;
    }
}

bool input_texts(OptionList items, const char *file, InputTexts *texts, Error *err) {
    *texts = (InputTexts){0};
    bool from_stdin = items.count == 1 && strcmp(items.items[0], "-") == 0;
    if (items.count > 0 && !from_stdin) {
        if (file) return base_fail(err, ERROR_INPUT, "give texts or --file, not both");
        for (size_t i = 0; i < items.count; i++)
            add_text(texts, items.items[i], strlen(items.items[i]));
        return true;
    }
    size_t length = 0;
    texts->storage = input_file(file ? file : "-", &length, err);
    if (!texts->storage) return false;
    split_lines(texts, length);
    return true;
}

void input_texts_free(InputTexts *texts) {
    free(texts->items);
    free(texts->lengths);
    free(texts->storage);
    *texts = (InputTexts){0};
}

int32_t *input_ids(const char *text, size_t *count, Error *err) {
    int32_t *ids = NULL;
    size_t capacity = 0;
    *count = 0;
    while (*text) {
        if (isspace((unsigned char)*text) || *text == ',' || *text == '[' || *text == ']') {
            text++;
            continue;
        }
        char *end = NULL;
        errno = 0;
        long long id = strtoll(text, &end, 10);
        if (end == text || id < 0 || id > INT32_MAX || errno == ERANGE) {
            base_fail(err, ERROR_INPUT, "\"%.20s\" is not a token id", text);
            free(ids);
            return NULL;
        }
        ids = base_grow(ids, &capacity, *count + 1, sizeof *ids);
        ids[(*count)++] = (int32_t)id;
        text = end;
    }
    if (!ids) base_fail(err, ERROR_INPUT, "no token ids were given");
    return ids;
}

char *input_unescape(const char *text) {
    StrBuf out = {0};
    base_str_append(&out, "");
    for (; *text; text++) {
        if (text[0] == '\\' && (text[1] == 'n' || text[1] == 't')) {
            base_str_append_char(&out, text[1] == 'n' ? '\n' : '\t');
            text++;
        } else {
            base_str_append_char(&out, *text);
        }
    }
    return base_str_detach(&out);
}
