/* Examples on disk: where the lines are, and what their tokens are. */
#include "lm/records.h"

#include <stdlib.h>
#include <string.h>

typedef enum { KIND_COMPLETION, KIND_CHAT, KIND_TEXT, KIND_UNKNOWN } Kind;

typedef struct Line {
    size_t begin, length;
    uint32_t number; /* from 1, in the file */
} Line;

struct LmRecords {
    char *file;
    MappedFile map;
    Line *lines;
    size_t count, capacity;
    Kind kind;
};

/* ---- finding the lines --------------------------------------------------------------- */

static bool is_blank(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') return false;
    }
    return true;
}

static bool find_lines(LmRecords *records, Error *err) {
    const char *text = (const char *)records->map.data;
    size_t total = records->map.length;
    uint32_t number = 0;
    for (size_t at = 0; at < total; number++) {
        const char *end = memchr(text + at, '\n', total - at);
        size_t length = end ? (size_t)(end - text) - at : total - at;
        if (number == UINT32_MAX - 1)
            return base_fail(err, ERROR_UNSUPPORTED, "%s: more lines than this program counts",
                             records->file);
        if (!is_blank(text + at, length)) {
            records->lines = base_grow(records->lines, &records->capacity, records->count + 1,
                                       sizeof *records->lines);
            records->lines[records->count++] = (Line){at, length, number + 1};
        }
        at += length + 1;
    }
    if (records->count == 0)
        return base_fail(err, ERROR_INPUT, "%s: holds no records", records->file);
    return true;
}

static char *find_file(const char *path, const char *const *splits, Error *err) {
    if (base_is_file(path)) return base_strdup(path);
    if (!base_is_dir(path)) {
        base_fail(err, ERROR_IO, "%s: No such file or directory", path);
        base_hint(err, "A data set is a jsonl file or a folder with %s.jsonl", splits[0]);
        return NULL;
    }
    for (const char *const *split = splits; *split; split++) {
        char *name = base_format("%s.jsonl", *split), *file = base_path_join(path, name);
        free(name);
        if (base_is_file(file)) return file;
        free(file);
    }
    base_fail(err, ERROR_INPUT, "%s: there is no %s.jsonl in this folder", path, splits[0]);
    return NULL;
}

static Kind kind_of(const json_t *record) {
    if (json_object_get(record, "prompt") && json_object_get(record, "completion"))
        return KIND_COMPLETION;
    if (json_object_get(record, "messages")) return KIND_CHAT;
    return json_object_get(record, "text") ? KIND_TEXT : KIND_UNKNOWN;
}

LmRecords *lm_records_open(const char *path, const char *const *splits, Error *err) {
    LmRecords *records = base_calloc(1, sizeof *records);
    records->file = find_file(path, splits, err);
    bool ok = records->file && base_map_open(records->file, &records->map, err) &&
              find_lines(records, err);
    json_t *first = ok ? lm_records_get(records, 0, err) : NULL;
    if (!first) {
        lm_records_close(records);
        return NULL;
    }
    records->kind = kind_of(first);
    json_decref(first);
    return records;
}

void lm_records_close(LmRecords *records) {
    if (!records) return;
    if (records->map.data) base_map_close(&records->map);
    free(records->file);
    free(records->lines);
    free(records);
}

uint32_t lm_records_count(const LmRecords *records) {
    return (uint32_t)records->count;
}

const char *lm_records_file(const LmRecords *records) {
    return records->file;
}

/* ---- one record ------------------------------------------------------------------------ */

bool lm_records_fail(const LmRecords *records, uint32_t index, const char *message, Error *err) {
    return base_fail(err, ERROR_INPUT, "%s: line %u: %s", records->file,
                     records->lines[index].number, message);
}

json_t *lm_records_get(const LmRecords *records, uint32_t index, Error *err) {
    Line line = records->lines[index];
    json_error_t wrong;
    json_t *record =
        json_loadb((const char *)records->map.data + line.begin, line.length, 0, &wrong);
    if (!record) {
        base_fail(err, ERROR_INPUT, "%s: line %u, column %d: %s", records->file, line.number,
                  wrong.column, wrong.text);
        return NULL;
    }
    if (json_is_object(record)) return record;
    json_decref(record);
    lm_records_fail(records, index, "is not a JSON object", err);
    return NULL;
}

/* ---- its tokens -------------------------------------------------------------------------- */

static bool chat_tokens(LmModel *model, const json_t *record, const json_t *messages, TextIds *ids,
                        Error *err) {
    const json_t *tools = json_object_get(record, "tools");
    LmChatOptions chat = {.tools = json_is_array(tools) ? tools : NULL,
                          .no_generation_prompt = true};
    int *data = NULL;
    size_t count = 0;
    if (!lm_chat_prompt(model, messages, &chat, &data, &count, err)) return false;
    for (size_t i = 0; i < count; i++) text_ids_append(ids, data[i]);
    free(data);
    return true;
}

static bool text_tokens(LmModel *model, const json_t *text, TextIds *ids, Error *err) {
    const TextTokenizer *tokenizer = lm_model_tokenizer(model);
    size_t before = ids->length;
    if (!text_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                               TEXT_ENCODE_PROMPT, ids, err))
        return false;
    int eos = text_tokenizer_special_id(tokenizer, TEXT_EOS);
    bool ended = ids->length > before && ids->data[ids->length - 1] == eos;
    if (eos >= 0 && !ended) text_ids_append(ids, eos);
    return true;
}

/* "line 7: " goes before what a model said about a record. */
static bool named(const LmRecords *records, uint32_t index, bool done, Error *err) {
    return done ||
           base_error_context(err, "%s: line %u", records->file, records->lines[index].number);
}

static bool record_tokens(const LmRecords *records, LmModel *model, const json_t *record,
                          uint32_t index, TextIds *ids, Error *err) {
    json_t *prompt = json_object_get(record, "prompt");
    json_t *completion = json_object_get(record, "completion");
    json_t *messages = json_object_get(record, "messages"), *text = json_object_get(record, "text");
    if (records->kind == KIND_COMPLETION) {
        if (!prompt || !completion)
            return lm_records_fail(records, index, "needs prompt and completion, as the first has",
                                   err);
        json_t *chat = json_pack("[{s:s,s:O},{s:s,s:O}]", "role", "user", "content", prompt, "role",
                                 "assistant", "content", completion);
        bool done = chat_tokens(model, record, chat, ids, err);
        json_decref(chat);
        return named(records, index, done, err);
    }
    if (records->kind == KIND_CHAT) {
        if (!json_is_array(messages))
            return lm_records_fail(records, index, "needs a list of messages", err);
        return named(records, index, chat_tokens(model, record, messages, ids, err), err);
    }
    if (records->kind == KIND_TEXT) {
        if (!json_is_string(text)) return lm_records_fail(records, index, "needs a text", err);
        return named(records, index, text_tokens(model, text, ids, err), err);
    }
    lm_records_fail(records, index, "has no messages, no text, no prompt and completion", err);
    return base_hint(err, "See the formats of mlx_lm.lora's data sets");
}

bool lm_records_tokens(const LmRecords *records, LmModel *model, uint32_t index, TextIds *ids,
                       Error *err) {
    if (!lm_model_tokenizer(model))
        return base_fail(err, ERROR_UNSUPPORTED, "%s: the model has no tokenizer",
                         lm_model_folder(model));
    json_t *record = lm_records_get(records, index, err);
    bool done = record && record_tokens(records, model, record, index, ids, err);
    json_decref(record);
    return done;
}
