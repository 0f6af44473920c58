/* Opening a language model: folder, architecture, adapter, tokenizer, stop ids.
 * Nothing of the weights is read here; they are mapped. */
#include "lm/model.h"

#include <stdlib.h>
#include <string.h>

bool lm_params_dtype(NnParams *params, const char *name, Error *err) {
    if (!name) return true;
    mlx_dtype dtype;
    if (!mx_dtype_parse(name, &dtype) || !mx_is_float(dtype) || dtype == MLX_FLOAT64) {
        return base_fail(err, ERROR_INPUT, "dtype \"%s\" is not float32, float16 or bfloat16",
                         name);
    }
    nn_params_cast(params, dtype);
    return true;
}

bool lm_open_tokenizer(const char *folder, int rows, TextTokenizer **tokenizer, Error *err) {
    *tokenizer = NULL;
    if (!text_tokenizer_exists(folder)) return true;
    *tokenizer = text_tokenizer_open(folder, err);
    if (!*tokenizer) return false;
    int known = text_tokenizer_vocab_size(*tokenizer);
    /* Models round their vocabulary up, by a few per cent at most. */
    if (known > rows || known < rows - rows / 10) {
        text_tokenizer_free(*tokenizer);
        *tokenizer = NULL;
        base_fail(err, ERROR_INPUT, "%s: the tokenizer knows %d ids, the model has %d", folder,
                  known, rows);
        return base_hint(err, "Does the tokenizer belong to this model?");
    }
    return true;
}

/* ---- stop ids ------------------------------------------------------------------------ */

static void read_stop_ids(LmModel *model) {
    size_t count = hub_model_eos(model->folder, NULL, 0);
    model->stop_ids = base_calloc(count + 1, sizeof *model->stop_ids);
    hub_model_eos(model->folder, model->stop_ids, count);
    model->n_stop_ids = count;
    if (count == 0 && model->tokenizer) {
        int eos = text_tokenizer_special_id(model->tokenizer, TEXT_EOS);
        if (eos >= 0) model->stop_ids[model->n_stop_ids++] = eos;
    }
}

/* ---- sizes ----------------------------------------------------------------------------- */

/* A packed weight counts its values; its scales and biases do not count. */
static void count_parameters(LmModel *model) {
    const HubModel *folder = model->folder;
    for (size_t i = 0; i < hub_model_count(folder); i++) {
        const char *name = hub_model_name(folder, i), *dot = strrchr(name, '.');
        mlx_array array = hub_model_tensor(folder, name);
        model->bytes += mlx_array_nbytes(array);
        size_t values = mx_size(array);
        char path[512];
        MxQuant quant;
        if (dot && (size_t)(dot - name) < sizeof path) {
            snprintf(path, sizeof path, "%.*s", (int)(dot - name), name);
            if (hub_model_quantization(folder, path, &quant)) {
                if (strcmp(dot, ".scales") == 0 || strcmp(dot, ".biases") == 0) values = 0;
                if (strcmp(dot, ".weight") == 0) values = values * 32 / (size_t)quant.bits;
            }
        }
        model->parameters += values;
    }
}

/* ---- opening ----------------------------------------------------------------------------- */

static bool source_rule(const void *context, const char *path, MxQuant *quant) {
    return lm_source_quant(context, path, quant);
}

/* The parameter tree; what other tools quantised goes through the layouts that
 * converting gives it, lazily. */
static NnParams *open_params(LmModel *model, const char *path, Error *err) {
    if (!hub_config_foreign(hub_model_config(model->folder))) return model_params(model->folder);
    model->source = lm_source_open(path, NULL, err);
    if (!model->source) return NULL;
    NnParams *params = nn_params_new(path, source_rule, model->source);
    const LmTensors *tensors = &model->source->tensors;
    for (size_t i = 0; i < tensors->count; i++)
        nn_params_add(params, tensors->items[i].name, tensors->items[i].array);
    return params;
}

static bool open_parts(LmModel *model, const char *path, const LmOpenOptions *options, Error *err) {
    model->folder = hub_model_open(path, err);
    if (!model->folder) return false;
    const json_t *config = hub_model_config(model->folder);
    ModelKind kind = model_kind(config, err);
    if (kind == MODEL_UNKNOWN) return base_error_context(err, "%s", path);
    if (kind != MODEL_DECODER) {
        return base_fail(err, ERROR_UNSUPPORTED, "%s: model type \"%s\" does not generate text",
                         path, json_string_value(json_object_get(config, "model_type")));
    }
    model->params = open_params(model, path, err);
    if (!model->params) return false;
    config = lm_model_config(model);
    if (!lm_params_dtype(model->params, options->dtype, err)) return false;
    if (options->quantize_activations) {
        if (!json_is_object(json_object_get(config, "quantization")))
            return base_fail(err, ERROR_UNSUPPORTED,
                             "%s: quantize-activations: this model is not quantised", path);
        nn_params_round_inputs(model->params);
    }
    if (options->adapter_path &&
        (!model_decoder_sanitize(model->params, config, err) || /* an adapter speaks of our names */
         !lm_adapter_attach(options->adapter_path, model->params, &model->adapter, err))) {
        return false;
    }
    model->decoder = model_decoder_load(model->params, config, err);
    if (!model->decoder) return false;
    if (model->adapter && !nn_params_check(model->adapter, err)) {
        return base_hint(err, "Was this adapter trained on another model?");
    }
    if (!options->no_tokenizer &&
        !lm_open_tokenizer(path, model_decoder_vocab(model->decoder), &model->tokenizer, err)) {
        return false;
    }
    read_stop_ids(model);
    return true;
}

LmModel *lm_model_open(const char *path, const LmOpenOptions *options, Error *err) {
    static const LmOpenOptions defaults = {0};
    LmModel *model = base_calloc(1, sizeof *model);
    mx_scope s = mx_open();
    bool ok = mx_check(err) && open_parts(model, path, options ? options : &defaults, err);
    mx_drop(s);
    if (ok) return model;
    lm_model_close(model);
    return NULL;
}

void lm_model_close(LmModel *model) {
    if (!model) return;
    nn_params_free(model->params);
    nn_params_free(model->adapter);
    lm_source_free(model->source);
    hub_model_free(model->folder);
    text_tokenizer_free(model->tokenizer);
    text_chat_template_free(model->chat);
    free(model->stop_ids);
    free(model);
}

/* ---- asking ------------------------------------------------------------------------------- */

const char *lm_model_folder(const LmModel *model) {
    return hub_model_folder(model->folder);
}

const char *lm_model_type(const LmModel *model) {
    return json_string_value(json_object_get(lm_model_config(model), "model_type"));
}

const json_t *lm_model_config(const LmModel *model) {
    return model->source ? model->source->config : hub_model_config(model->folder);
}

int lm_model_vocab_size(const LmModel *model) {
    return model_decoder_vocab(model->decoder);
}

int lm_model_context(const LmModel *model) {
    return (int)json_integer_value(
        json_object_get(lm_model_config(model), "max_position_embeddings"));
}

size_t lm_model_bytes(const LmModel *model) {
    if (model->bytes == 0) count_parameters((LmModel *)model);
    return model->bytes;
}

size_t lm_model_parameters(const LmModel *model) {
    if (model->bytes == 0) count_parameters((LmModel *)model);
    return model->parameters;
}

TextTokenizer *lm_model_tokenizer(const LmModel *model) {
    return model->tokenizer;
}

const int *lm_model_stop_ids(const LmModel *model, size_t *count) {
    *count = model->n_stop_ids;
    return model->stop_ids;
}

/* ---- chat ------------------------------------------------------------------------------------ */

/* Parsing a template takes a while; programs that never chat do not pay. */
static TextChatTemplate *chat_of(LmModel *model, Error *err) {
    if (!model->chat) model->chat = text_chat_template_open(lm_model_folder(model), err);
    return model->chat;
}

bool lm_model_has_template(const LmModel *model) {
    Error ignored = {0};
    TextChatTemplate *chat = chat_of((LmModel *)model, &ignored);
    return chat && text_chat_template_has(chat, NULL);
}

/* Whether thoughts are marked by tokens of their own. */
static bool has_thinking(const LmModel *model) {
    static const char *const marks[][2] = {{"<think>", "</think>"},
                                           {"<longcat_think>", "</longcat_think>"},
                                           {"<|channel>", "<channel|>"}};
    for (size_t i = 0; model->tokenizer && i < BASE_COUNT(marks); i++) {
        if (text_tokenizer_id(model->tokenizer, marks[i][0]) >= 0 &&
            text_tokenizer_id(model->tokenizer, marks[i][1]) >= 0)
            return true;
    }
    return false;
}

/* The given variables, and mlx_lm's own: enable_thinking. A new object. */
static json_t *template_variables(const LmModel *model, const json_t *given) {
    json_t *variables = given ? json_copy((json_t *)given) : json_object();
    if (!json_object_get(variables, "enable_thinking"))
        json_object_set_new(variables, "enable_thinking", json_boolean(has_thinking(model)));
    return variables;
}

char *lm_chat_text(LmModel *model, const json_t *messages, const LmChatOptions *options,
                   Error *err) {
    static const LmChatOptions defaults = {0};
    if (!options) options = &defaults;
    TextChatTemplate *chat = chat_of(model, err);
    if (!chat) return NULL;
    if (!text_chat_template_has(chat, NULL)) {
        base_fail(err, ERROR_UNSUPPORTED, "%s: the model has no chat template",
                  lm_model_folder(model));
        return NULL;
    }
    json_t *variables = template_variables(model, options->template_options);
    TextChat request = {
        .messages = messages,
        .tools = options->tools,
        .variables = variables,
        .add_generation_prompt = !options->no_generation_prompt && !options->continue_final_message,
        .continue_final_message = options->continue_final_message,
    };
    char *text = text_chat_render(chat, &request, NULL, err);
    json_decref(variables);
    return text;
}

bool lm_chat_prompt(LmModel *model, const json_t *messages, const LmChatOptions *options, int **ids,
                    size_t *count, Error *err) {
    if (!model->tokenizer) {
        return base_fail(err, ERROR_UNSUPPORTED, "%s: the model has no tokenizer",
                         lm_model_folder(model));
    }
    char *text = lm_chat_text(model, messages, options, err);
    if (!text) return false;
    TextIds list = {0};
    bool ok = text_tokenizer_encode(model->tokenizer, text, strlen(text), TEXT_ENCODE_TEMPLATED,
                                    &list, err);
    free(text);
    if (!ok) {
        text_ids_free(&list);
        return false;
    }
    *ids = list.data;
    *count = list.length;
    return true;
}
