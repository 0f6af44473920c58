/* From a record to its tokens and targets: one function a form, the form chosen by
 * the first record. The tokens are those of mlx_lm.lora (tuner/datasets.py): chats
 * through the model's template, texts with one end-of-sequence token. */
#include "tune/record.h"

#include <stdlib.h>
#include <string.h>

#include "text/text.h"

typedef struct Form Form;
typedef struct RecordOp {
    TuneRecordOptions options;
    TuneSource names; /* with strings of its own */
    const Form *form;
} RecordOp;

/* What a form fills: one row, or two of a preference. */
typedef struct Filled {
    TextIds ids;
    int32_t *targets;
    size_t n_targets, capacity;
} Filled;

static void add_target(Filled *row, size_t begin, size_t end) {
    if (begin >= end) return;
    row->targets =
        base_grow(row->targets, &row->capacity, (row->n_targets + 1) * 2, sizeof *row->targets);
    row->targets[2 * row->n_targets] = (int32_t)begin;
    row->targets[2 * row->n_targets + 1] = (int32_t)end;
    row->n_targets++;
}

/* ---- chats ----------------------------------------------------------------------------- */

static bool encode_chat(const RecordOp *op, const json_t *messages, const json_t *tools,
                        bool generation_prompt, TextIds *ids, Error *err) {
    LmChatOptions chat = {.tools = json_is_array(tools) ? tools : NULL,
                          .no_generation_prompt = !generation_prompt};
    int *data = NULL;
    size_t count = 0;
    if (!lm_chat_prompt(op->options.model, messages, &chat, &data, &count, err)) return false;
    *ids = (TextIds){data, count, count};
    return true;
}

/* The first `count` messages; new. */
static json_t *first_messages(const json_t *messages, size_t count) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append(list, json_array_get(messages, i));
    return list;
}

static bool is_assistant(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && strcmp(role, "assistant") == 0;
}

/* How many tokens the first `count` messages have. With `whole` they must be the
 * first of those ids. */
static bool prefix_length(const RecordOp *op, const json_t *messages, const json_t *tools,
                          size_t count, bool generation_prompt, const TextIds *whole,
                          size_t *length, Error *err) {
    *length = 0;
    if (count == 0) return true;
    TextIds ids = {0};
    json_t *list = first_messages(messages, count);
    bool ok = encode_chat(op, list, tools, generation_prompt, &ids, err);
    json_decref(list);
    if (ok && whole &&
        (ids.length > whole->length ||
         memcmp(ids.data, whole->data, ids.length * sizeof *ids.data) != 0)) {
        ok = base_fail(err, ERROR_UNSUPPORTED,
                       "the chat template renders the first %zu messages alone otherwise than in "
                       "the whole conversation, so the turns cannot be told apart",
                       count);
        base_hint(err, "Train on the last message only (--mask-prompt)");
    }
    *length = ids.length;
    text_ids_free(&ids);
    return ok;
}

static bool every_turn(const RecordOp *op, const json_t *messages, const json_t *tools, Filled *row,
                       Error *err) {
    size_t count = json_array_size(messages), begin, end;
    for (size_t i = 0; i < count; i++) {
        if (!is_assistant(json_array_get(messages, i))) continue;
        if (!prefix_length(op, messages, tools, i, true, &row->ids, &begin, err)) return false;
        end = row->ids.length;
        if (i + 1 < count &&
            !prefix_length(op, messages, tools, i + 1, false, &row->ids, &end, err))
            return false;
        add_target(row, begin, end);
    }
    return true;
}

static bool fill_chat(const RecordOp *op, const json_t *messages, const json_t *tools, Filled *row,
                      Error *err) {
    size_t count = json_array_size(messages), begin = 0;
    if (!encode_chat(op, messages, tools, false, &row->ids, err)) return false;
    if (op->options.every_turn) return every_turn(op, messages, tools, row, err);
    if (op->options.mask_prompt || op->options.pairs) {
        bool answers = op->options.pairs || is_assistant(json_array_get(messages, count - 1));
        if (!prefix_length(op, messages, tools, count - 1, answers, NULL, &begin, err))
            return false;
    }
    add_target(row, begin, row->ids.length);
    return true;
}

/* ---- the forms --------------------------------------------------------------------------- */

static bool needs(const json_t *record, const char *name, bool right, const char *what,
                  Error *err) {
    if (right) return true;
    if (!json_object_get(record, name))
        return base_fail(err, ERROR_INPUT, "there is no \"%s\", which the first record has", name);
    return base_fail(err, ERROR_INPUT, "\"%s\" is not %s", name, what);
}

static bool fill_messages(const RecordOp *op, const json_t *record, Filled *row, Error *err) {
    const json_t *messages = json_object_get(record, op->names.chat_feature);
    return needs(record, op->names.chat_feature, json_array_size(messages) > 0,
                 "a list of messages", err) &&
           fill_chat(op, messages, json_object_get(record, "tools"), row, err);
}

static bool fill_completion(const RecordOp *op, const json_t *record, Filled *row, Error *err) {
    json_t *prompt = json_object_get(record, op->names.prompt_feature);
    json_t *completion = json_object_get(record, op->names.completion_feature);
    if (!needs(record, op->names.prompt_feature, json_is_string(prompt), "a text", err) ||
        !needs(record, op->names.completion_feature, json_is_string(completion), "a text", err))
        return false;
    json_t *messages = json_pack("[{s:s,s:O},{s:s,s:O}]", "role", "user", "content", prompt, "role",
                                 "assistant", "content", completion);
    bool ok = fill_chat(op, messages, json_object_get(record, "tools"), row, err);
    json_decref(messages);
    return ok;
}

static bool append_text(const RecordOp *op, const json_t *text, bool special, TextIds *ids,
                        Error *err) {
    TextEncodeOptions how = {.add_special = special, .parse_special = true};
    return text_tokenizer_encode(lm_model_tokenizer(op->options.model), json_string_value(text),
                                 json_string_length(text), how, ids, err);
}

static void append_end(const RecordOp *op, TextIds *ids) {
    int eos = text_tokenizer_special_id(lm_model_tokenizer(op->options.model), TEXT_EOS);
    if (eos >= 0 && (ids->length == 0 || ids->data[ids->length - 1] != eos))
        text_ids_append(ids, eos);
}

static bool fill_text(const RecordOp *op, const json_t *record, Filled *row, Error *err) {
    const json_t *text = json_object_get(record, op->names.text_feature);
    if (!needs(record, op->names.text_feature, json_is_string(text), "a text", err) ||
        !append_text(op, text, true, &row->ids, err))
        return false;
    append_end(op, &row->ids);
    add_target(row, 0, row->ids.length);
    return true;
}

static bool fill_tokens(const RecordOp *op, const json_t *record, Filled *row, Error *err) {
    const json_t *tokens = json_object_get(record, "tokens");
    const json_t *prompt = json_object_get(record, "prompt_tokens");
    if (!needs(record, "tokens", json_is_array(tokens), "a list of token ids", err)) return false;
    int64_t limit = op->options.model ? lm_model_vocab_size(op->options.model) : INT32_MAX;
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *id = json_array_get(tokens, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= limit)
            return base_fail(err, ERROR_INPUT, "tokens[%zu] is not an id of 0 to %lld", i,
                             (long long)limit - 1);
        text_ids_append(&row->ids, (int32_t)json_integer_value(id));
    }
    int64_t begin = prompt ? json_integer_value(prompt) : 0;
    if (prompt && (!json_is_integer(prompt) || begin < 0 || begin > (int64_t)row->ids.length))
        return base_fail(err, ERROR_INPUT, "\"prompt_tokens\" is not a number of 0 to %zu",
                         row->ids.length);
    add_target(row, (size_t)begin, row->ids.length);
    return true;
}

/* An answer as a list of messages: a text, a message, or a list of them. New; NULL
 * when it is none of these. */
static json_t *as_messages(json_t *value, const char *role) {
    if (json_is_string(value)) return json_pack("[{s:s,s:O}]", "role", role, "content", value);
    if (json_is_object(value)) return json_pack("[O]", value);
    return json_array_size(value) > 0 ? json_incref(value) : NULL;
}

/* Without a chat template a preference is two texts, one behind the other. */
static bool fill_plain(const RecordOp *op, const json_t *prompt, const json_t *answer, Filled *row,
                       Error *err) {
    if (!append_text(op, prompt, true, &row->ids, err)) return false;
    size_t begin = row->ids.length;
    if (!append_text(op, answer, false, &row->ids, err)) return false;
    append_end(op, &row->ids);
    add_target(row, begin, row->ids.length);
    return true;
}

static bool fill_answer(const RecordOp *op, const json_t *record, const char *name, Filled *row,
                        Error *err) {
    json_t *prompt = json_object_get(record, op->names.prompt_feature);
    json_t *answer = json_object_get(record, name);
    if (json_is_string(prompt) && json_is_string(answer) &&
        !lm_model_has_template(op->options.model))
        return fill_plain(op, prompt, answer, row, err);
    json_t *messages = as_messages(answer, "assistant");
    json_t *before = prompt ? as_messages(prompt, "user") : json_array();
    bool ok = needs(record, name, messages != NULL, "a text or messages", err) &&
              needs(record, op->names.prompt_feature, before != NULL, "a text or messages", err);
    if (ok) {
        json_array_extend(before, messages);
        ok = fill_chat(op, before, json_object_get(record, "tools"), row, err);
    }
    json_decref(messages);
    json_decref(before);
    return ok;
}

static bool fill_chosen(const RecordOp *op, const json_t *record, Filled *row, Error *err) {
    return fill_answer(op, record, "chosen", row, err);
}

struct Form {
    const char *name;
    bool (*fill)(const RecordOp *op, const json_t *record, Filled *row, Error *err);
    bool pair, tokenised;
};

static const Form forms[] = {
    {"tokens", fill_tokens, false, true},
    {"preferences", fill_chosen, true, false},
    {"completions", fill_completion, false, false},
    {"chat", fill_messages, false, false},
    {"text", fill_text, false, false},
};
enum { FORM_TOKENS, FORM_PAIR, FORM_COMPLETION, FORM_CHAT, FORM_TEXT };

static const Form *form_of(const RecordOp *op, const json_t *first, Error *err) {
    const TuneSource *names = &op->names;
    if (op->options.pairs) {
        if (json_object_get(first, "chosen") && json_object_get(first, "rejected"))
            return &forms[FORM_PAIR];
        base_fail(err, ERROR_INPUT, "a preference needs \"chosen\" and \"rejected\"");
        return NULL;
    }
    if (json_is_array(json_object_get(first, "tokens"))) return &forms[FORM_TOKENS];
    if (json_object_get(first, names->prompt_feature) &&
        json_object_get(first, names->completion_feature))
        return &forms[FORM_COMPLETION];
    if (json_object_get(first, names->chat_feature)) return &forms[FORM_CHAT];
    if (json_object_get(first, names->text_feature)) {
        if (!op->options.mask_prompt && !op->options.every_turn) return &forms[FORM_TEXT];
        base_fail(err, ERROR_INPUT, "Prompt masking not supported for text dataset.");
        return NULL;
    }
    base_fail(err, ERROR_INPUT, "records of no known form");
    base_hint(err, "A record has \"text\", or \"%s\" and \"%s\", or \"%s\", or \"tokens\"",
              names->prompt_feature, names->completion_feature, names->chat_feature);
    return NULL;
}

/* ---- the operator -------------------------------------------------------------------------- */

static bool put_row(DxSample **sample, const Filled *row, const char *ids, const char *targets,
                    Error *err) {
    if (row->ids.length > INT32_MAX)
        return base_fail(err, ERROR_INPUT, "more tokens than a row may have");
    DxArray *tokens = dx_array_ids(row->ids.data, row->ids.length, err);
    DxArray *runs =
        dx_array_copy(DX_I32, 2, (int64_t[]){(int64_t)row->n_targets, 2}, row->targets, err);
    dx_sample_put(sample, dx_key(ids), tokens);
    dx_sample_put(sample, dx_key(targets), runs);
    return tokens && runs;
}

static DxStatus record_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const RecordOp *op = self;
    Filled row = {0}, other = {0};
    DxArray *line = dx_sample_need(*sample, dx_key("json"), DX_TEXT, 1, err);
    json_t *record = line ? base_json_parse(line->data, line->bytes, "JSON", err) : NULL;
    bool ok = record && (json_is_object(record) ||
                         base_fail(err, ERROR_INPUT, "the line is not a JSON object"));
    ok = ok && op->form->fill(op, record, &row, err) &&
         (!op->form->pair || fill_answer(op, record, "rejected", &other, err)) &&
         put_row(sample, &row, "tokens", "targets", err) &&
         (!op->form->pair || put_row(sample, &other, "rejected", "rejected_targets", err));
    dx_sample_remove(sample, dx_key("json"));
    json_decref(record);
    text_ids_free(&row.ids);
    text_ids_free(&other.ids);
    free(row.targets);
    free(other.targets);
    return ok ? DX_OK : DX_FAIL;
}

static void record_destroy(void *self) {
    RecordOp *op = self;
    free((char *)(uintptr_t)op->names.prompt_feature);
    free((char *)(uintptr_t)op->names.completion_feature);
    free((char *)(uintptr_t)op->names.chat_feature);
    free((char *)(uintptr_t)op->names.text_feature);
    free(op);
}

static char *name_of(const char *given, const char *usual) {
    return base_strdup(given ? given : usual);
}

DxBuffer *tune_record_tokens(DxBuffer *records, const TuneRecordOptions *options,
                             const json_t *first, Error *err) {
    RecordOp *op = base_calloc(1, sizeof *op);
    op->options = *options;
    op->names = (TuneSource){
        .prompt_feature = name_of(options->names.prompt_feature, "prompt"),
        .completion_feature = name_of(options->names.completion_feature, "completion"),
        .chat_feature = name_of(options->names.chat_feature, "messages"),
        .text_feature = name_of(options->names.text_feature, "text"),
    };
    op->form = form_of(op, first, err);
    if (op->form && !op->form->tokenised &&
        (!options->model || !lm_model_tokenizer(options->model))) {
        base_fail(err, ERROR_UNSUPPORTED, "the model has no tokenizer");
        op->form = NULL;
    }
    if (!op->form) {
        record_destroy(op);
        dx_buffer_free(records);
        return NULL;
    }
    char *how = base_format("%s%s%s", op->form->name, options->mask_prompt ? ", masked" : "",
                            options->every_turn ? ", every turn" : "");
    DxOp node = {
        .name = "tokens", .options = how, .apply = record_apply, .destroy = record_destroy};
    DxBuffer *buffer = dx_buffer_map(records, &node, op, err);
    free(how);
    return buffer;
}
